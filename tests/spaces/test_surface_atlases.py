"""Atlases on surfaces: label tables, annotations, masks and BIDS tables keep their names."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Cifti, Surface, fsaverage5

N = 30
CODES = np.repeat([0, 1, 2], 10)


@pytest.fixture
def surface() -> Surface:
    left, right = np.ones(N, dtype=bool), np.ones(N, dtype=bool)
    left[[3, 12]] = right[25] = False
    return Surface((left, right))


def write_labels(path, codes, names) -> None:
    table = nib.gifti.GiftiLabelTable()
    for code, name in names.items():
        label = nib.gifti.GiftiLabel(code, 1, 0, 0, 1)
        label.label = name
        table.labels.append(label)
    array = nib.gifti.GiftiDataArray(codes.astype(np.int32), "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32")
    nib.GiftiImage(labeltable=table, darrays=[array]).to_filename(path)


def columns(surface: Surface, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.r_[left[surface.inside[0]], right[surface.inside[1]]]


def test_names_that_differ_stay_apart_and_equal_ones_are_merged(surface, tmp_path):
    write_labels(tmp_path / "hemi-L_dseg.label.gii", CODES, {0: "???", 1: "L_V1", 2: "MT"})
    write_labels(tmp_path / "hemi-R_dseg.label.gii", CODES, {0: "unknown", 1: "R_V1", 2: "MT"})
    regions = surface.regions(tmp_path / "hemi-L_dseg.label.gii")
    none = np.zeros(N, dtype=bool)
    assert list(regions) == ["L_V1", "MT", "R_V1"]
    np.testing.assert_array_equal(regions["L_V1"], columns(surface, CODES == 1, none))
    np.testing.assert_array_equal(regions["R_V1"], columns(surface, none, CODES == 1))
    np.testing.assert_array_equal(regions["MT"], columns(surface, CODES == 2, CODES == 2))


def test_two_numbers_of_one_name_are_one_region(surface, tmp_path):
    for side in "LR":
        write_labels(tmp_path / f"x.{side}.label.gii", CODES, {1: "V1", 2: "V1"})
    regions = surface.regions(tmp_path / "x.L.label.gii")
    np.testing.assert_array_equal(regions["V1"], columns(surface, CODES > 0, CODES > 0))


def test_a_bids_table_names_what_the_file_does_not(surface, tmp_path):
    for side in "LR":
        write_labels(tmp_path / f"tpl-x_hemi-{side}_atlas-y_dseg.label.gii", CODES, {0: "???"})
    path = tmp_path / "tpl-x_hemi-L_atlas-y_dseg.label.gii"
    assert list(surface.regions(path)) == ["1", "2"]
    for side in "LR":
        (tmp_path / f"tpl-x_hemi-{side}_atlas-y_dseg.tsv").write_text(f"index\tname\n1\t{side}_V1\n2\t{side}_V2\n")
    assert list(surface.regions(path)) == ["L_V1", "L_V2", "R_V1", "R_V2"]
    (tmp_path / "labels.tsv").write_text("index\tname\n1\tA\n2\tB\n")
    assert list(surface.regions(path, tmp_path / "labels.tsv")) == ["A", "B"]


def test_freesurfers_annotations(surface, tmp_path):
    colours = np.array([[25, 5, 25, 0, 0], [100, 0, 0, 0, 0], [0, 100, 0, 0, 0]])
    colours[:, 4] = colours[:, :3] @ [1, 2**8, 2**16]
    for side in "lr":
        nib.freesurfer.write_annot(tmp_path / f"{side}h.aparc.annot", CODES, colours, ["unknown", "cuneus", "lingual"])
    regions = surface.regions(tmp_path / "lh.aparc.annot")
    assert list(regions) == ["cuneus", "lingual"]
    np.testing.assert_array_equal(regions["lingual"], columns(surface, CODES == 2, CODES == 2))
    (tmp_path / "rh.aparc.annot").write_bytes(b"\x00\x00\x00\x1enothing")
    with pytest.raises(DataError, match=r"rh\.aparc\.annot: not a readable annotation"):
        surface.regions(tmp_path / "lh.aparc.annot")
    with pytest.raises(MissingInputError, match=r"lh\.none\.annot"):
        surface.regions(tmp_path / "lh.none.annot")


def test_a_mask_of_both_hemispheres_is_one_region(surface, tmp_path):
    for side in "LR":
        array = nib.gifti.GiftiDataArray((CODES == 1).astype(np.float32), "NIFTI_INTENT_SHAPE", "NIFTI_TYPE_FLOAT32")
        nib.GiftiImage(darrays=[array]).to_filename(tmp_path / f"hemi-{side}_label-FFA_mask.shape.gii")
    regions = surface.regions(tmp_path / "hemi-L_label-FFA_mask.shape.gii")
    np.testing.assert_array_equal(regions["FFA"], columns(surface, CODES == 1, CODES == 1))
    assert list(regions) == ["FFA"]


def test_other_meshes_and_fractions_are_refused(surface, tmp_path):
    for side in "LR":
        write_labels(tmp_path / f"hemi-{side}_dseg.label.gii", np.ones(31), {1: "V1"})
        array = nib.gifti.GiftiDataArray(np.full(N, 0.5, np.float32), "NIFTI_INTENT_SHAPE", "NIFTI_TYPE_FLOAT32")
        nib.GiftiImage(darrays=[array]).to_filename(tmp_path / f"hemi-{side}_sulc.shape.gii")
    with pytest.raises(DataError, match=r"hemi-L_dseg\.label\.gii: 31 vertices, the data have 30"):
        surface.regions(tmp_path / "hemi-L_dseg.label.gii")
    with pytest.raises(DataError, match=r"hemi-L_sulc\.shape\.gii: an atlas holds whole numbers"):
        surface.regions(tmp_path / "hemi-L_sulc.shape.gii")
    (tmp_path / "hemi-R_dseg.label.gii").unlink()
    with pytest.raises(DataError, match=r"hemi-R_dseg\.label\.gii: hemisphere is missing"):
        surface.regions(tmp_path / "hemi-L_dseg.label.gii")


def test_coarser_fsaverages_are_the_first_vertices_of_finer_ones():
    """Each vertex of fsaverage5 beyond fsaverage4's 2,562 is the middle of an edge between two of these."""
    for mesh in fsaverage5():
        near = mesh.edges(np.ones(mesh.size, dtype=bool)) > 0
        assert near[:2562, :2562].nnz == 0
        np.testing.assert_array_equal(near[2562:, :2562].sum(axis=1), 2)


def test_an_atlas_of_a_finer_fsaverage_is_taken_at_the_datas_vertices(tmp_path, caplog):
    codes = np.random.default_rng(0).integers(0, 3, size=40962)
    for side in "LR":
        write_labels(tmp_path / f"hemi-{side}_dseg.label.gii", codes, {1: "V1", 2: "V2"})
    path = tmp_path / "hemi-L_dseg.label.gii"
    inside = np.ones(10242, dtype=bool)
    with pytest.raises(DataError, match="40962 vertices, the data have 10242"):
        Surface((inside, inside)).regions(path)
    with caplog.at_level("WARNING"):
        regions = Surface((inside, inside), nested=True).regions(path)
    assert "hemi-L_dseg.label.gii: has 40962 vertices, the data the first 10242" in caplog.text
    np.testing.assert_array_equal(regions["V2"], np.tile(codes[:10242] == 2, 2))


@pytest.fixture
def cifti(surface) -> Cifti:
    """The surface's columns, and voxels below."""
    parts = [
        BrainModelAxis.from_surface(np.flatnonzero(inside), N, name=name)
        for inside, name in zip(surface.inside, ("CortexLeft", "CortexRight"), strict=True)
    ]
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1:, 1:3, :2] = True
    return Cifti(
        parts[0] + parts[1] + BrainModelAxis.from_mask(mask, affine=np.diag([2, 2, 2, 1]), name="putamen_left")
    )


def test_surface_and_volume_atlases_on_a_cifti(surface, cifti, tmp_path, caplog):
    for side in "LR":
        write_labels(tmp_path / f"hemi-{side}_dseg.label.gii", CODES, {1: f"{side}_V1", 2: "MT"})
    path = tmp_path / "hemi-L_dseg.label.gii"
    below = cifti.size - surface.size
    for name, where in surface.regions(path).items():
        np.testing.assert_array_equal(cifti.regions(path)[name], np.r_[where, np.zeros(below, dtype=bool)])
    codes = np.zeros((4, 4, 4), np.int16)
    codes[2:] = 5
    nib.Nifti1Image(codes, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "seg_dseg.nii.gz")
    (tmp_path / "seg_dseg.tsv").write_text("index\tname\n5\tPutamen\n")
    where = cifti.regions(tmp_path / "seg_dseg.nii.gz")["Putamen"]
    assert not where[: surface.size].any()
    np.testing.assert_array_equal(where[surface.size :], cifti.points.voxel[surface.size :, 0] >= 2)
    fine = np.zeros((8, 8, 8), np.int16)
    fine[4:] = 5
    moved = np.diag([1.0, 1, 1, 1])
    moved[:3, 3] = -0.5
    nib.Nifti1Image(fine, moved).to_filename(tmp_path / "fine_dseg.nii.gz")
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(cifti.regions(tmp_path / "fine_dseg.nii.gz")["5"], where)
    assert "fine_dseg.nii.gz: lies on another grid" in caplog.text
    with pytest.raises(DataError, match="has vertices only"):
        Cifti(cifti.points[: surface.size]).regions(tmp_path / "seg_dseg.nii.gz")
    with pytest.raises(DataError, match="two hemispheres, which the CIFTI file lacks"):
        Cifti(cifti.points[surface.size :]).regions(path)


def test_a_dlabel_with_another_medial_wall(surface, cifti, tmp_path):
    """The atlas has vertices that the data lack, and the other way round: vertices are matched, never positions."""
    atlas = Cifti(
        BrainModelAxis.from_surface(np.arange(5, N), N, name="CortexLeft")
        + BrainModelAxis.from_surface(np.arange(0, N - 5), N, name="CortexRight")
    )
    path = tmp_path / "atlas.dlabel.nii"
    atlas.write_codes(path, np.r_[CODES[5:], CODES[: N - 5]], {1: "V1", 2: "V2"})
    left, right = CODES.copy(), CODES.copy()
    left[:5] = right[N - 5 :] = 0
    for index, name in ((1, "V1"), (2, "V2")):
        expected = columns(surface, left == index, right == index)
        np.testing.assert_array_equal(surface.regions(path)[name], expected)
        np.testing.assert_array_equal(cifti.regions(path)[name][: surface.size], expected)
    with pytest.raises(DataError, match="30 vertices of CORTEX_LEFT, expected 31"):
        Surface((np.ones(31, dtype=bool), np.ones(30, dtype=bool))).regions(path)
    voxels = Cifti(cifti.points[surface.size :])
    with pytest.raises(DataError, match="none of the vertices and voxels of the data"):
        voxels.regions(path)
