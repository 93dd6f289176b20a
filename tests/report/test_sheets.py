"""Views of the cortex: what is seen from where, and which map goes on which mesh."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, ScalarAxis
from scipy.spatial import ConvexHull

from bidsdnn.report.backdrop import Backdrop, background, inflated_fsaverage5, read_picture
from bidsdnn.report.brains import Scan, layer_map, score_map
from bidsdnn.report.entries import Entry
from bidsdnn.report.maps import model_blocks, voxel_blocks
from bidsdnn.report.sheets import Sheet, sulci, views
from bidsdnn.spaces import Cifti, Mesh, Surface, fsaverage5
from bidsdnn.spaces.cifti import write_cifti


def ball(n: int = 600, *, radius: float = 50.0) -> Mesh:
    """Points spread evenly over a sphere."""
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    turn = np.pi * (1 + 5**0.5) * np.arange(n)
    flat = np.sqrt(1 - height**2)
    points = radius * np.column_stack([flat * np.cos(turn), flat * np.sin(turn), height])
    faces = ConvexHull(points).simplices
    inwards = np.linalg.det(points[faces]) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return Mesh(points.astype(np.float32), faces.astype(np.int32))


def sheet(values: np.ndarray, mesh: Mesh) -> Sheet:
    return Sheet(values, (mesh, mesh), np.zeros(2 * mesh.size, dtype=bool))


def red_where(values: np.ndarray, _: np.ndarray) -> np.ndarray:
    pixels = np.zeros((len(values), 4))
    pixels[values > 0] = (1, 0, 0, 1)
    return pixels


def redness(pixels: np.ndarray) -> float:
    """Share of a picture's brain that is red."""
    inside = pixels[..., 3] > 0
    return float((pixels[inside][:, 1] == 0).mean())


@pytest.mark.parametrize(
    ("axis", "sign", "seen"),
    [
        (0, -1, {"left, outer side", "right, inner side"}),
        (0, 1, {"left, inner side", "right, outer side"}),
        (2, -1, {"left, lower side", "right, lower side"}),
    ],
)
def test_each_side_is_seen_from_its_side(axis, sign, seen):
    mesh = ball()
    cap = sign * mesh.coordinates[:, axis] > 0.8 * 50
    shown = {name: redness(pixels) for pixels, name in views(sheet(np.tile(cap, 2).astype(float), mesh), sheet(
        np.ones(2 * mesh.size), mesh), red_where)}  # fmt: skip
    assert {name for name, share in shown.items() if share > 0.25} == seen
    # Of a cap that is seen from its side a segment shows.
    assert all(share < 0.08 for name, share in shown.items() if name not in seen)


def test_the_front_is_where_a_reader_expects_it():
    mesh = ball()
    front, top = mesh.coordinates[:, 1] > 35, mesh.coordinates[:, 2] > 35
    for part, where in ((front, "front"), (top, "top")):
        values = np.tile(part, 2).astype(float)
        for pixels, name in views(sheet(values, mesh), sheet(values, mesh), red_where):
            rows, columns = np.nonzero((pixels[..., 3] > 0) & (pixels[..., 1] == 0))
            middle = np.array(pixels.shape[:2]) / 2
            if where == "top" and "lower" not in name:
                assert rows.mean() < 0.5 * middle[0]
            if where == "front" and "lower" in name:
                assert rows.mean() < 0.5 * middle[0]
            if where == "front" and "lower" not in name:
                # From the left one looks at a nose that points left.
                left = name in ("left, outer side", "right, inner side")
                assert (columns.mean() < middle[1]) == left


def test_a_view_has_no_holes_and_hides_the_far_side():
    mesh = ball(300)
    far = np.tile(mesh.coordinates[:, 0] > 0, 2).astype(float)
    pixels = views(sheet(far, mesh), sheet(far, mesh), red_where)[0][0]
    rows, columns = np.nonzero(pixels[..., 3] > 0)
    area = np.pi * (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 4
    assert len(rows) > 0.97 * area
    assert redness(pixels) < 0.08


def test_triangles_that_turn_inwards_make_the_same_picture():
    mesh = ball()
    turned = Mesh(mesh.coordinates, mesh.faces[:, ::-1].copy())
    values = np.tile(mesh.coordinates[:, 0] < -40, 2).astype(float)
    one, other = (views(sheet(values, m), sheet(values, m), red_where) for m in (mesh, turned))
    for (a, _), (b, _) in zip(one, other, strict=True):
        # Points as near to one corner as to another may take either's colour.
        assert (np.abs(a - b).max(axis=-1) > 0.1).mean() < 0.01


def test_dents_are_sulci():
    mesh = ball(2000)
    apart = np.linalg.norm(mesh.coordinates - mesh.coordinates[1000], axis=1)
    depth = 1 - 0.2 * np.exp(-(apart**2) / (2 * 6**2))
    inside = sulci(Mesh((mesh.coordinates * depth[:, None]).astype(np.float32), mesh.faces))
    assert inside[apart < 5].all()
    assert not inside[apart > 25].any()


def test_maps_are_drawn_on_surfaces():
    mesh = ball()
    score = sheet(np.random.default_rng(0).random(2 * mesh.size), mesh)
    layer = sheet(np.ones(2 * mesh.size), mesh)
    assert b"image" in score_map(score, None, stem="map", label="r", alt="a map").content
    assert b"image" in layer_map(layer, score, None, layers=["a", "b"], stem="map", alt="a map").content
    nothing = sheet(np.full(2 * mesh.size, np.nan), mesh)
    assert score_map(nothing, None, stem="map", label="r", alt="a map").markup


@pytest.fixture
def surface(tmp_path):
    """A map of two layers on fsaverage5."""
    path = tmp_path / "sub-01_task-x_hemi-L_space-fsaverage5_model-m_stat-pearsonr_desc-encoding_statmap.func.gii"
    inside = np.ones(10242, dtype=bool)
    Surface((inside, inside)).write(path, np.random.default_rng(0).random((2, 20484)))
    return path


def test_fsaverage5_is_known(surface):
    picture = read_picture(surface, Backdrop())
    (part,) = picture.laid_out(picture.values[0])
    assert isinstance(part, Sheet) and picture.missing == "" and picture.noun == ("vertex", "vertices")
    np.testing.assert_array_equal(part.drawn[1].coordinates, inflated_fsaverage5()[1].coordinates)
    # About half of the cortex lies in sulci.
    assert 0.35 < part.folds.mean() < 0.65
    assert sulci(fsaverage5()[0]).sum() == part.folds[:10242].sum()


def test_a_figure_for_each_map_of_a_surface(surface):
    entities = {"model": "m", "stat": "pearsonr", "desc": "encoding"}
    entry = Entry(surface, entities, "statmap", {"Layers": ["one", "two"], "Network": "m"})
    problems: list[str] = []
    blocks = model_blocks([entry], Backdrop(), "stem", problems, level="participant")
    assert problems == []
    assert [block.title for block in blocks] == ["Best layer in each vertex: m", "Prediction in each vertex: m"]
    assert "vertices below r" in blocks[0].caption and "voxel" not in blocks[0].caption


@pytest.fixture
def grayordinates(tmp_path):
    """A CIFTI map of a small mesh without its first vertices, and of four voxels."""
    mask = np.arange(600) >= 50
    voxels = np.zeros((3, 3, 3), dtype=bool)
    voxels[1, :2, :2] = True
    points = (
        BrainModelAxis.from_mask(mask, name="CortexLeft")
        + BrainModelAxis.from_mask(mask, name="CortexRight")
        + BrainModelAxis.from_mask(voxels, name="thalamus_left", affine=np.diag([-2.0, 2, 2, 1]))
    )
    path = tmp_path / "sub-01_task-x_space-fsLR_stat-tsnr_desc-quality_statmap.dscalar.nii"
    write_cifti(path, np.arange(1, 1105, dtype=np.float32)[None], ScalarAxis(["a"]), points)
    return path


def write_ball(tmp_path):
    import nibabel as nib

    mesh = ball()
    arrays = [
        nib.gifti.GiftiDataArray(mesh.coordinates, intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(mesh.faces, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / "ball.surf.gii")
    return tmp_path / "ball.surf.gii"


def test_cifti_is_laid_out_as_cortex_and_voxels(grayordinates, tmp_path):
    mesh = write_ball(tmp_path)
    picture = read_picture(grayordinates, Backdrop(folded=(mesh, mesh)))
    cortex, below = picture.laid_out(picture.values[0])
    assert isinstance(cortex, Sheet) and isinstance(below, Scan)
    assert np.isnan(cortex.values[:50]).all() and np.isnan(cortex.values[600:650]).all()
    np.testing.assert_array_equal(cortex.values[50:600], np.arange(1, 551))
    np.testing.assert_array_equal(cortex.values[650:], np.arange(551, 1101))
    # The first axis ran to the left and has been turned: voxel (1, 0, 0) lies at x = -2.
    assert below.at(np.array([[-2.0, 0, 0]]))[0] == 1101
    assert np.isfinite(below.values).sum() == 4
    assert Cifti.from_files([grayordinates]).size == picture.values.shape[1]


def test_what_has_no_mesh_gets_a_sentence(grayordinates, tmp_path):
    entry = Entry(grayordinates, {"stat": "tsnr", "desc": "quality"}, "statmap", {})
    problems: list[str] = []
    note, figure = voxel_blocks([entry], "tsnr", Backdrop(), "stem", problems)
    assert "because its mesh is not known: give the meshes of both hemispheres with --mesh L R" in note.items[0]
    assert len(figure.panels) == 1 and problems == []
    mesh = str(write_ball(tmp_path))
    named = Entry(grayordinates, entry.entities, "statmap", {"Mesh": [mesh, mesh], "InflatedMesh": [mesh, mesh]})
    (figure,) = voxel_blocks([named], "tsnr", background([named], problems), "stem", problems)
    assert len(figure.panels) == 2 and problems == []
    assert "1,104 grayordinates" in figure.caption
