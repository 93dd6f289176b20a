"""Volumes: read, write and read back equal; masks, atlases and damaged files."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Volume, load_image, shared_space, write_nifti

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (5, 6, 4)


@pytest.fixture
def volume():
    mask = np.random.default_rng(0).random(SHAPE) > 0.4
    return Volume(mask, AFFINE)


def image(path, data, affine=AFFINE, **options):
    write_nifti(path, data, affine, **options)
    return path


def test_written_values_read_back_equal(volume, tmp_path):
    values = np.random.default_rng(1).normal(size=(3, volume.size)).astype(np.float32)
    path = tmp_path / "m.nii.gz"
    volume.write(path, values)
    np.testing.assert_array_equal(volume.read(path), values)
    assert np.isnan(nib.load(path).get_fdata()[~volume.mask]).all()
    volume.write(path, values[0])
    assert nib.load(path).ndim == 3
    np.testing.assert_array_equal(volume.read(path)[0], values[0])


def test_bytes_depend_on_content_only(volume, tmp_path):
    paths = [tmp_path / "a.nii.gz", tmp_path / "bb.nii.gz"]
    for path in paths:
        volume.write(path, np.ones(volume.size))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_columns_follow_nibabel_indexing(volume, tmp_path):
    data = np.random.default_rng(2).normal(size=(*SHAPE, 2)).astype(np.float32)
    path = image(tmp_path / "b.nii.gz", data, tr=2.5)
    np.testing.assert_array_equal(volume.read(path), data[volume.mask].T)
    assert nib.load(path).header.get_zooms()[3] == 2.5


def test_masks_are_intersected(tmp_path):
    a, b = np.zeros(SHAPE), np.zeros(SHAPE)
    a[1:3], b[2:4] = 1, 1
    paths = [image(tmp_path / "a.nii.gz", a), image(tmp_path / "b.nii.gz", b)]
    assert Volume.from_masks(paths).size == 24
    empty = image(tmp_path / "c.nii.gz", np.zeros(SHAPE))
    with pytest.raises(DataError, match="no voxel lies in the masks of all 3 runs"):
        Volume.from_masks([*paths, empty])
    with pytest.raises(DataError, match="differs from"):
        Volume.from_masks([paths[0], image(tmp_path / "d.nii.gz", np.zeros((2, 2, 2)))])


def test_regions_keep_their_names(volume, tmp_path):
    codes = np.zeros(SHAPE)
    codes[:2], codes[2:4] = 1, 7
    path = image(tmp_path / "atlas-x_dseg.nii.gz", codes)
    assert set(volume.regions(path)) == {"1", "7"}
    (tmp_path / "atlas-x_dseg.tsv").write_text("index\tname\n1\tV1\n7\tNA\n9\tabsent\n")
    regions = volume.regions(path)
    np.testing.assert_array_equal(regions["V1"], (codes == 1)[volume.mask])
    assert not regions["absent"].any()
    assert regions["NA"].any()


def test_an_atlas_on_another_grid_is_resampled(volume, tmp_path):
    fine = np.zeros((10, 12, 8))
    fine[:5] = 1
    fine[5:] = 2
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -0.7
    regions = volume.regions(image(tmp_path / "dseg.nii.gz", fine, affine))
    where = np.nonzero(volume.mask)[0]
    np.testing.assert_array_equal(regions["2"], where > 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index\tlabel\n1\ta\n", "has `index` and `name`"),
        ("index\tname\none\ta\n", "whole numbers"),
        ("index\tname\n1\ta\n2\ta\n", "same name"),
    ],
)
def test_label_tables_are_checked(volume, tmp_path, table, message):
    path = image(tmp_path / "dseg.nii.gz", np.ones(SHAPE))
    (tmp_path / "dseg.tsv").write_text(table)
    with pytest.raises(DataError, match=message):
        volume.regions(path)


def test_an_atlas_of_fractions_is_refused(volume, tmp_path):
    with pytest.raises(DataError, match="whole numbers"):
        volume.regions(image(tmp_path / "p.nii.gz", np.full(SHAPE, 0.5)))
    with pytest.raises(DataError, match="three dimensions"):
        volume.regions(image(tmp_path / "q.nii.gz", np.ones((*SHAPE, 2))))


def test_damaged_files_name_the_file_and_the_fix(volume, tmp_path):
    path = image(tmp_path / "b.nii.gz", np.random.default_rng(0).normal(size=(*SHAPE, 50)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.nii\.gz: image is truncated or damaged"):
        volume.read(path)
    flat = tmp_path / "c.nii"
    flat.write_bytes(gzip.decompress(whole)[:5000])
    with pytest.raises(DataError, match="truncated"):
        volume.read(flat)
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable NIfTI"):
        load_image(path)
    with pytest.raises(MissingInputError, match="check the path"):
        load_image(tmp_path / "none.nii.gz")
    link = tmp_path / "annexed.nii.gz"
    link.symlink_to(".git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        load_image(link)


def test_a_mask_slightly_off_the_grid_is_accepted_with_a_warning(tmp_path):
    bold = image(tmp_path / "bold.nii.gz", np.ones((*SHAPE, 3)))
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3], far[0, 3] = 0.2, 2.0
    mask = image(tmp_path / "mask.nii.gz", np.ones(SHAPE), near)
    space, warnings = shared_space([bold], [mask])
    np.testing.assert_array_equal(space.affine, AFFINE)
    assert "0.2 mm off" in warnings[0]
    with pytest.raises(DataError, match=r"2\.0 mm off"):
        shared_space([bold], [image(tmp_path / "far.nii.gz", np.ones(SHAPE), far)])
    with pytest.raises(DataError, match="give its own mask"):
        shared_space([bold], [image(tmp_path / "small.nii.gz", np.ones((2, 2, 2)))])
    other = image(tmp_path / "other.nii.gz", np.ones((*SHAPE, 3)), far)
    with pytest.raises(DataError, match="its grid differs"):
        shared_space([bold, other], [mask])


def test_without_a_mask_the_brain_is_found_by_intensity(tmp_path):
    data = np.full((20, 20, 20, 4), 5.0)
    data[5:15, 5:15, 5:15] = 1000.0
    data += np.random.default_rng(0).normal(size=data.shape)
    space, warnings = shared_space([image(tmp_path / "bold.nii.gz", data)], [])
    assert 500 < space.size < 1500
    assert "no brain mask" in warnings[0]
