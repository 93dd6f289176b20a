"""CIFTI-2: read, written and read back equal with its brain models; neighbours on cortex and below; atlases."""

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, ParcelsAxis, ScalarAxis

from bidsdnn.errors import DataError
from bidsdnn.spaces import Cifti, Surface, Volume, header_tr, recording_shape, shared_space
from tests.spaces.conftest import lattice

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2, 0, -10], [0, 0, 2, -10], [0, 0, 0, 1]])
GRID = (9, 8, 7)
N = 100


def points(*, seed: int = 0, kept: float = 0.8) -> BrainModelAxis:
    """Left and right cortex of 100 vertices, two structures below."""
    rng = np.random.default_rng(seed)
    axis = BrainModelAxis.from_surface(np.flatnonzero(rng.random(N) < kept), N, name="CortexLeft")
    axis = axis + BrainModelAxis.from_surface(np.flatnonzero(rng.random(N) < kept), N, name="CortexRight")
    for name, part in (("thalamus_left", slice(0, 4)), ("thalamus_right", slice(4, 9))):
        mask = np.zeros(GRID, dtype=bool)
        mask[part] = rng.random(mask[part].shape) < kept
        axis = axis + BrainModelAxis.from_mask(mask, affine=AFFINE, name=name)
    return axis


@pytest.fixture
def space() -> Cifti:
    mesh = lattice(10, 10)
    return Cifti(points(), (mesh, mesh))


def test_written_values_read_back_equal(space, tmp_path):
    path = tmp_path / "space-fsLR_den-91k_statmap.dscalar.nii"
    values = np.random.default_rng(1).normal(size=(3, space.size)).astype(np.float32)
    values[0, 2] = np.nan
    space.write(path, values, names=["conv1", "conv2", "fc"])
    np.testing.assert_array_equal(space.read(path), values)
    image = nib.load(path)
    assert list(image.header.get_axis(0).name) == ["conv1", "conv2", "fc"]
    assert image.header.get_axis(1) == space.points
    assert image.nifti_header["intent_code"] == 3006
    assert image.get_data_dtype() == np.float32
    space.write(path, values[1])
    np.testing.assert_array_equal(space.read(path), values[1:2])
    assert space.files(path) == (path,)


def test_series_say_their_repetition_time(space, tmp_path, caplog):
    path = tmp_path / "bold.dtseries.nii"
    space.write(path, np.ones((5, space.size)), tr=0.72)
    assert nib.load(path).nifti_header["intent_code"] == 3002
    assert header_tr(path) == pytest.approx(0.72)
    assert recording_shape(path) == (space.size, 5)
    found, warnings = shared_space([path], [])
    assert (found.identity, warnings) == (Cifti(space.points).identity, [])
    assert not caplog.text


def test_columns_are_found_by_vertex_and_voxel(space, tmp_path):
    """A file in another order, or with more points, gives the same table."""
    everything = points(kept=1.1)
    values = np.random.default_rng(0).normal(size=(2, len(everything))).astype(np.float32)
    order = np.random.default_rng(1).permutation(4)
    parts = [everything[part] for _, part, _ in everything.iter_structures()]
    columns = [np.arange(len(everything))[part] for _, part, _ in everything.iter_structures()]
    shuffled = parts[order[0]] + parts[order[1]] + parts[order[2]] + parts[order[3]]
    Cifti(everything).write(tmp_path / "a.dscalar.nii", values)
    Cifti(shuffled).write(tmp_path / "b.dscalar.nii", values[:, np.concatenate([columns[i] for i in order])])
    table = space.read(tmp_path / "a.dscalar.nii")
    np.testing.assert_array_equal(space.read(tmp_path / "b.dscalar.nii"), table)
    key = {(point[0], str(point[1]), point[2]): index for index, point in enumerate(everything)}
    for column in (0, 90, 170, space.size - 1):
        kind, where, name = space.points[column]
        np.testing.assert_array_equal(table[:, column], values[:, key[kind, str(where), name]])
    with pytest.raises(DataError, match=r"small\.dscalar\.nii: lacks .* of the"):
        Cifti(space.points[5:]).write(tmp_path / "small.dscalar.nii", np.ones(space.size - 5))
        space.read(tmp_path / "small.dscalar.nii")


def test_runs_share_what_all_of_them_have(tmp_path):
    for index in range(2):
        one = Cifti(points(seed=index))
        one.write(tmp_path / f"run-{index}.dtseries.nii", np.ones((3, one.size)), tr=2.0)
    runs = [tmp_path / "run-0.dtseries.nii", tmp_path / "run-1.dtseries.nii"]
    space, warnings = shared_space(runs, [])
    keys = [{tuple(map(str, point)) for point in points(seed=index)} for index in range(2)]
    assert {tuple(map(str, point)) for point in space.points} == keys[0] & keys[1]
    assert "in common" in warnings[0]
    assert space.read(runs[1]).shape == (3, space.size)


def test_masks_are_written_and_intersected(space, tmp_path):
    path = tmp_path / "desc-brain_mask.dlabel.nii"
    space.write_mask(path)
    assert Cifti.from_masks([path]).points == space.points
    codes = np.arange(space.size) % 2
    space.write_codes(tmp_path / "other.dlabel.nii", codes, {1: "in"})
    assert Cifti.from_masks([path, tmp_path / "other.dlabel.nii"]).points == space.points[codes == 1]
    space.write_codes(tmp_path / "rest.dlabel.nii", 1 - codes, {1: "in"})
    with pytest.raises(DataError, match=r"other.dlabel.nii: no vertex .* the first being rest.dlabel.nii"):
        Cifti.from_masks([tmp_path / "rest.dlabel.nii", tmp_path / "other.dlabel.nii"])
    space.write(tmp_path / "bold.dtseries.nii", np.ones((3, space.size)), tr=1.0)
    found, _ = shared_space([tmp_path / "bold.dtseries.nii"], [tmp_path / "other.dlabel.nii"])
    assert found.points == space.points[codes == 1]


@pytest.mark.parametrize("extent", [{"radius": 2.5}, {"radius": 6.0}, {"count": 9}])
def test_neighbours_are_those_of_each_mesh_and_of_the_voxels(space, extent):
    near = space.neighbors(**extent)
    surface, names = np.asarray(space.points.surface_mask), space.points.name
    for name, mesh in zip(["CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"], space.meshes, strict=True):
        inside = np.zeros(N, dtype=bool)
        inside[space.points.vertex[names == name]] = True
        part = near[names == name]
        assert (part[:, names == name] != mesh.neighbors(inside, **extent)).nnz == 0
        assert part[:, names != name].nnz == 0
    positions = np.asarray(space.points.voxel)[~surface] @ AFFINE[:3, :3].T
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    below = near[~surface]
    assert below[:, surface].nnz == 0
    if "radius" in extent:
        np.testing.assert_array_equal(below[:, ~surface].toarray(), distance <= extent["radius"])
    else:
        for row, others in zip(below[:, ~surface].toarray(), distance, strict=True):
            np.testing.assert_allclose(np.sort(others[row]), np.sort(others)[: extent["count"]])


def test_edges_are_those_of_each_mesh_and_of_the_voxels(space):
    edges = space.edges()
    names = np.asarray(space.points.name)
    cortex = space.points.surface_mask
    # A voxel's structure does not matter, a vertex' hemisphere does.
    assert (cortex[edges[:, 0]] == cortex[edges[:, 1]]).all()
    on = cortex[edges[:, 0]]
    assert (names[edges[on, 0]] == names[edges[on, 1]]).all() and on.any()
    apart = np.abs(space.points.voxel[edges[~on, 0]] - space.points.voxel[edges[~on, 1]]).sum(axis=1)
    assert (apart == 1).all() and len(apart)
    for where, mesh, _ in space._sheets():
        vertices = space.points.vertex[where]
        faces = mesh.faces[np.isin(mesh.faces, vertices).any(axis=1)]
        pairs = np.sort(np.vstack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        expected = np.unique(pairs[np.isin(pairs, vertices).all(axis=1)], axis=0)
        found = edges[np.isin(edges, where).all(axis=1)]
        np.testing.assert_array_equal(np.unique(np.sort(space.points.vertex[found], axis=1), axis=0), expected)


def test_smoothing_keeps_to_structures(space):
    values = np.zeros((2, space.size), dtype=np.float32)
    names = list(dict.fromkeys(space.points.name))
    for index, name in enumerate(names):
        values[0, space.points.name == name] = index
    values[1] = np.random.default_rng(0).normal(size=space.size)
    smoothed = space.smooth(values, 4.0)
    np.testing.assert_allclose(smoothed[0], values[0], atol=1e-4)
    assert smoothed[1].std() < 0.6 * values[1].std()
    voxels = space.points.name == "CIFTI_STRUCTURE_THALAMUS_LEFT"
    mask = np.zeros(GRID, dtype=bool)
    mask[tuple(space.points.voxel[voxels].T)] = True
    np.testing.assert_allclose(smoothed[1, voxels], Volume(mask, AFFINE).smooth(values[1:, voxels], 4.0)[0], rtol=1e-5)


def test_without_meshes_the_remedy_is_named(space):
    with pytest.raises(DataError, match=r"mesh of CORTEX_LEFT \(100 vertices\) is not known; .* --mesh L R"):
        Cifti(space.points).neighbors(radius=3.0)
    voxels = Cifti(space.points[~space.points.surface_mask])
    assert voxels.neighbors(radius=2.0).shape == (voxels.size, voxels.size)


def test_labels_are_read_back_as_regions(space, tmp_path):
    path = tmp_path / "atlas-x_dseg.dlabel.nii"
    codes = np.random.default_rng(0).integers(0, 4, size=space.size)
    space.write_codes(path, codes, {1: "V1", 2: "V2", 3: "Thalamus"})
    assert nib.load(path).nifti_header["intent_code"] == 3007
    regions = space.regions(path)
    assert list(regions) == ["V1", "V2", "Thalamus"]
    for index, where in enumerate(regions.values(), start=1):
        np.testing.assert_array_equal(where, codes == index)
    (tmp_path / "names.tsv").write_text("index\tname\n1\tone\n2\ttwo\n")
    assert list(space.regions(path, tmp_path / "names.tsv")) == ["one", "two"]


def test_the_space_goes_to_workers(space):
    copy = pickle.loads(pickle.dumps(space))
    assert copy.identity == space.identity != Cifti(space.points).identity


def test_files_without_brain_models_are_refused(space, tmp_path):
    parcels = ParcelsAxis(["a", "b"], [[], []], [{}, {}], None, None, {})
    path = tmp_path / "x.dscalar.nii"
    nib.save(Cifti2Image(np.ones((1, 2), np.float32), header=(ScalarAxis(["m"]), parcels)), path)
    with pytest.raises(DataError, match=r"without brain models \(its columns are Parcels\)"):
        space.read(path)
    nib.save(nib.Nifti2Image(np.ones((1, 1, 1, 1, 3, 5), np.float32), np.eye(4)), path)
    with pytest.raises(DataError, match="no CIFTI header"):
        shared_space([path], [])


def test_damaged_files_are_named(space, tmp_path):
    path = tmp_path / "bold.dtseries.nii"
    space.write(path, np.random.default_rng(0).normal(size=(50, space.size)), tr=1.0)
    whole = path.read_bytes()
    start = whole.index(b"<CIFTI")
    for content in (
        whole[: len(whole) // 2], whole[:1000], whole[:200], b"", b"\x00" * 2000,
        whole[:start] + whole[start:].replace(b"<MatrixIndicesMap ", b"<MatrixIndicesMup ", 1),
        whole.replace(b'SurfaceNumberOfVertices="100"', b'SurfaceNumberOfVertices="007"'),
        whole.replace(b'VolumeDimensions="9,8,7"', b'VolumeDimensions="3,8,7"'),
    ):  # fmt: skip
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bold\.dtseries\.nii: ") as caught:
            space.read(path)
        assert "\n" not in str(caught.value)


def test_other_densities_and_grids_are_refused(space, tmp_path):
    path = tmp_path / "x.dscalar.nii"
    other = Cifti(BrainModelAxis.from_surface(np.arange(20), 25, name="CortexLeft"))
    other.write(path, np.ones(20))
    with pytest.raises(DataError, match=r"25 vertices of CORTEX_LEFT, expected 100; .*den-X"):
        space.read(path)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    other = Cifti(BrainModelAxis.from_mask(np.ones(GRID), affine=moved, name="thalamus_left"))
    other.write(path, np.ones(other.size))
    with pytest.raises(DataError, match="voxels lie on another grid"):
        space.read(path)


@pytest.fixture(scope="module")
def fslr(hcp) -> Cifti:
    meshes = tuple(hcp / f"S1200.{side}.midthickness_MSMAll.32k_fs_LR.surf.gii" for side in "LR")
    return shared_space([hcp / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"], [], meshes=meshes)[0]


def test_the_published_atlas_lies_where_it_is_said_to(hcp, fslr):
    regions = fslr.regions(next(hcp.glob("*.dlabel.nii")))
    assert len(regions) == 360
    assert not any("???" in name for name in regions)
    assert (np.sum(list(regions.values()), axis=0) == 1).all()
    coordinates = np.vstack(
        [
            mesh.coordinates[fslr.points.vertex[fslr.points.name == name]]
            for mesh, name in zip(fslr.meshes, dict.fromkeys(fslr.points.name), strict=True)
        ]
    )
    np.testing.assert_allclose(coordinates[regions["L_FFC_ROI"]].mean(axis=0), (-40, -59, -17), atol=1.5)
    np.testing.assert_allclose(coordinates[regions["L_V1_ROI"]].mean(axis=0), (-12, -82, 2), atol=1.5)
    masks = fslr.regions(hcp / "VTC_V8-FFC-PIT-VVC-VMV123.32k_fs_LR.dscalar.nii")
    assert {name: where.sum() for name, where in masks.items()} == {"VTC": 1250}
    parts = ("V8", "FFC", "PIT", "VVC", "VMV1", "VMV2", "VMV3")
    union = np.any([regions[f"{side}_{part}_ROI"] for side in "LR" for part in parts], axis=0)
    np.testing.assert_array_equal(masks["VTC"], union)
    with pytest.raises(DataError, match="labels or masks of 0 and 1"):
        fslr.regions(hcp / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii")


def test_neighbours_on_the_published_mesh(fslr):
    near = fslr.neighbors(radius=6.0)
    counts = np.diff(near.indptr)
    assert (near != near.T).nnz == 0
    assert 40 < np.median(counts) < 80
    assert (np.diff(fslr.neighbors(count=20).indptr) == 20).all()


def test_a_dlabel_on_a_surface_of_its_density(hcp, fslr):
    image = nib.load(next(hcp.glob("*.dlabel.nii")))
    axis = image.header.get_axis(1)
    inside = []
    for name in dict.fromkeys(axis.name):
        inside.append(np.zeros(32492, dtype=bool))
        inside[-1][axis.vertex[axis.name == name]] = True
    surface = Surface(tuple(inside))
    ours, theirs = surface.regions(next(hcp.glob("*.dlabel.nii"))), fslr.regions(next(hcp.glob("*.dlabel.nii")))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
