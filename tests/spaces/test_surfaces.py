"""Surfaces: both hemispheres as one table, read, written and read back equal; label files; damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Surface, header_tr, hemispheres, recording_shape

SIZES = (40, 50)


@pytest.fixture
def surface() -> Surface:
    rng = np.random.default_rng(0)
    return Surface((rng.random(SIZES[0]) > 0.2, rng.random(SIZES[1]) > 0.2))


@pytest.fixture
def bold(tmp_path) -> Path:
    """Both hemispheres, all vertices inside, as this program writes them."""
    path = tmp_path / "sub-01_task-x_hemi-L_space-fsnative_bold.func.gii"
    values = np.random.default_rng(1).normal(100, 1, size=(6, sum(SIZES)))
    Surface(tuple(np.ones(n, dtype=bool) for n in SIZES)).write(path, values, tr=1.5)
    return path


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("sub-1_hemi-L_space-fsnative_bold.func.gii", "sub-1_hemi-R_space-fsnative_bold.func.gii"),
        ("sub-1_space-fsnative_hemi-L.func.gii", "sub-1_space-fsnative_hemi-R.func.gii"),
        ("sub-1_bold_space-fsnative.L.func.gii", "sub-1_bold_space-fsnative.R.func.gii"),
        ("S1200.L.midthickness.32k_fs_LR.surf.gii", "S1200.R.midthickness.32k_fs_LR.surf.gii"),
        ("lh.bold.mgz", "rh.bold.mgz"),
        ("sub-1.lh.mgh", "sub-1.rh.mgh"),
        ("white_left.gii.gz", "white_right.gii.gz"),
        (".0a1b.sub-L_hemi-L_statmap.func.gii", ".0a1b.sub-L_hemi-R_statmap.func.gii"),
    ],
)
def test_the_right_hemispheres_name_follows_from_the_left_ones(left, right):
    assert hemispheres(Path("hemi-L") / left) == (Path("hemi-L") / left, Path("hemi-L") / right)
    with pytest.raises(DataError, match="is the right hemisphere's file"):
        hemispheres(Path(right))


def test_a_name_without_hemisphere_is_refused():
    with pytest.raises(DataError, match="does not say which hemisphere"):
        hemispheres(Path("sub-L_bold.func.gii"))


@pytest.mark.parametrize("name", ["hemi-L_statmap.func.gii", "lh.statmap.mgh", "lh.statmap.mgz"])
def test_written_values_read_back_equal(surface, tmp_path, name):
    values = np.random.default_rng(1).normal(size=(3, surface.size)).astype(np.float32)
    values[1, 4] = np.nan
    path = tmp_path / name
    surface.write(path, values)
    np.testing.assert_array_equal(surface.read(path), values)
    surface.write(path, values[0])
    np.testing.assert_array_equal(surface.read(path), values[:1])
    assert sorted(tmp_path.iterdir()) == sorted(surface.files(path))
    whole = Surface(tuple(np.ones(n, dtype=bool) for n in SIZES)).read(path)[0]
    np.testing.assert_array_equal(np.isnan(whole), ~np.concatenate(surface.inside))


def test_headers_say_what_is_in_the_files(surface, tmp_path):
    path = tmp_path / "hemi-L_statmap.func.gii"
    surface.write(path, np.ones((2, surface.size)), names=["conv1", "conv2"])
    for file, structure, size in zip(surface.files(path), ("CortexLeft", "CortexRight"), SIZES, strict=True):
        image = nib.load(file)
        assert image.meta["AnatomicalStructurePrimary"] == structure
        assert [one.meta["Name"] for one in image.darrays] == ["conv1", "conv2"]
        assert {one.intent for one in image.darrays} == {nib.nifti1.intent_codes["NIFTI_INTENT_ESTIMATE"]}
        assert {(one.data.shape, one.data.dtype.name) for one in image.darrays} == {((size,), "float32")}
    surface.write(path, np.ones((2, surface.size)), tr=0.8)
    image = nib.load(path)
    assert {one.intent for one in image.darrays} == {nib.nifti1.intent_codes["NIFTI_INTENT_TIME_SERIES"]}
    assert image.meta["TimeStep"] == image.darrays[0].meta["TimeStep"] == "0.8"
    assert header_tr(path) == 0.8
    assert recording_shape(path) == (sum(SIZES), 2)


def test_bytes_depend_on_content_only(surface, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        surface.write(tmp_path / folder / "lh.x.mgz", np.ones(surface.size))
        surface.write(tmp_path / folder / "hemi-L_x.func.gii", np.ones(surface.size))
        surface.write_mask(tmp_path / folder / "hemi-L_mask.label.gii")
    for one in (tmp_path / "a").iterdir():
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()


def test_freesurfers_milliseconds_and_other_peoples_layouts_are_read(tmp_path):
    """One array of vertices x time, as some tools write, gzipped files, and a time step in milliseconds."""
    data = np.random.default_rng(0).normal(size=(SIZES[0], 5)).astype(np.float32)
    array = nib.gifti.GiftiDataArray(
        data, "NIFTI_INTENT_TIME_SERIES", "NIFTI_TYPE_FLOAT32",
        meta=nib.gifti.GiftiMetaData({"Other": "1", "TimeStep": "2000.000000"}),
    )  # fmt: skip
    content = nib.GiftiImage(darrays=[array]).to_bytes()
    path = tmp_path / "lh.bold.gii.gz"
    for file in hemispheres(path):
        file.write_bytes(gzip.compress(content))
    space = Surface((np.ones(SIZES[0], dtype=bool),) * 2)
    np.testing.assert_array_equal(space.read(path), np.hstack([data.T, data.T]))
    assert header_tr(path) == 2.0
    assert recording_shape(path) == (2 * SIZES[0], 5)


def test_mgh_says_its_repetition_time(surface, tmp_path):
    path = tmp_path / "lh.bold.mgz"
    surface.write(path, np.ones((4, surface.size)), tr=1.5)
    assert nib.load(path).shape == (SIZES[0], 1, 1, 4)
    assert header_tr(path) == 1.5
    assert recording_shape(path) == (sum(SIZES), 4)


def test_the_medial_wall_is_found(bold):
    right = hemispheres(bold)[1]
    image = nib.load(bold)
    for array in image.darrays:
        array.data[:3] = np.nan
    image.darrays[0].data[5] = np.nan
    nib.save(image, bold)
    image = nib.load(right)
    for array in image.darrays:
        array.data[[0, 7]] = 0
    image.darrays[2].data[9] = 0
    nib.save(image, right)
    space = Surface.from_data(bold)
    np.testing.assert_array_equal(np.flatnonzero(~space.inside[0]), [0, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(~space.inside[1]), [0, 7])
    assert space.size == sum(SIZES) - 5
    assert np.isnan(space.read(bold)[0]).sum() == 1
    for array in image.darrays:
        array.data[:] = 0
    nib.save(image, right)
    with pytest.raises(DataError, match=r"hemi-R.*every vertex is zero or NaN"):
        Surface.from_data(bold)


def test_masks_are_written_and_intersected(surface, tmp_path):
    path = tmp_path / "hemi-L_desc-cortex_mask.label.gii"
    surface.write_mask(path)
    again = Surface.from_masks([path])
    for ours, theirs in zip(surface.inside, again.inside, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.identity == surface.identity
    image = nib.load(path)
    assert image.darrays[0].intent == nib.nifti1.intent_codes["NIFTI_INTENT_LABEL"]
    assert image.labeltable.get_labels_as_dict() == {0: "???", 1: "cortex"}
    flipped = Surface(tuple(~inside for inside in surface.inside))
    flipped.write_mask(tmp_path / "hemi-L_desc-other_mask.label.gii")
    assert flipped.identity != surface.identity
    with pytest.raises(DataError, match=r"desc-other_mask.label.gii: no vertex .* the first being hemi-L_desc-cortex"):
        Surface.from_masks([path, tmp_path / "hemi-L_desc-other_mask.label.gii"])
    larger = Surface((np.ones(41, dtype=bool), np.ones(50, dtype=bool)))
    larger.write_mask(tmp_path / "hemi-L_desc-large_mask.label.gii")
    with pytest.raises(DataError, match=r"desc-large_mask.*41 vertices, .*desc-cortex_mask.* has 40"):
        Surface.from_masks([path, tmp_path / "hemi-L_desc-large_mask.label.gii"])


def test_codes_are_read_back_as_regions(surface, tmp_path):
    path = tmp_path / "hemi-L_atlas-x_dseg.label.gii"
    codes = np.random.default_rng(0).integers(0, 4, size=surface.size)
    surface.write_codes(path, codes, {1: "V1", 2: "V2", 3: "a & b"})
    regions = surface.regions(path)
    assert list(regions) == ["V1", "V2", "a & b"]
    for index, where in enumerate(regions.values(), start=1):
        np.testing.assert_array_equal(where, codes == index)
    colours = [tuple(label.rgba) for label in nib.load(path).labeltable.labels]
    assert len(set(colours)) == 4


def test_a_missing_hemisphere_is_named(surface, bold):
    hemispheres(bold)[1].unlink()
    for ask in (lambda: surface.read(bold), lambda: Surface.from_data(bold), lambda: Surface.from_masks([bold])):
        with pytest.raises(DataError, match=r"hemi-R_space-fsnative_bold\.func\.gii: hemisphere is missing"):
            ask()
    hemispheres(bold)[1].symlink_to(".git/annex/objects/none")
    with pytest.raises(MissingInputError, match=r"hemi-R.*datalad get"):
        Surface.from_data(bold)
    hemispheres(bold)[1].unlink()
    bold.unlink()
    with pytest.raises(MissingInputError, match=r"hemi-L.*check the path"):
        Surface.from_data(bold)


def test_other_numbers_of_vertices_or_maps_are_refused(surface, bold):
    with pytest.raises(DataError, match=r"hemi-R.*: 50 vertices, the space has 49; .*den-X"):
        Surface((surface.inside[0], surface.inside[1][1:])).read(bold)
    right = hemispheres(bold)[1]
    image = nib.load(right)
    image.remove_gifti_data_array(0)
    nib.save(image, right)
    with pytest.raises(DataError, match=r"hemi-R.*: 5 maps, the left hemisphere has 6"):
        surface.read(bold)


def test_damaged_files_are_named(surface, bold):
    whole = bold.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x00" * 500, whole.replace(whole[9000:9040], b"A" * 40)):
        bold.write_bytes(content)
        with pytest.raises(DataError, match=r"hemi-L_space-fsnative_bold\.func\.gii: ") as caught:
            surface.read(bold)
        assert "\n" not in str(caught.value)
    bold.write_bytes(whole.replace(b'Dim0="40"', b'Dim0="4000000000000"'))
    with pytest.raises(DataError, match="not a readable GIFTI"):
        surface.read(bold)
    mgz = bold.with_name("lh.bold.mgz")
    surface.write(mgz, np.random.default_rng(0).normal(size=(50, surface.size)))
    content = mgz.read_bytes()
    mgz.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"lh\.bold\.mgz: "):
        surface.read(mgz)


def test_a_mesh_is_no_map(surface, tmp_path):
    from tests.spaces.conftest import lattice, write_mesh

    write_mesh(tmp_path / "hemi-L_white.surf.gii", lattice(4, 5))
    write_mesh(tmp_path / "hemi-R_white.surf.gii", lattice(4, 5))
    with pytest.raises(DataError, match="holds no maps"):
        surface.read(tmp_path / "hemi-L_white.surf.gii")
