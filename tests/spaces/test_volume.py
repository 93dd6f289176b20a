"""Volumes: read, write and read back equal; masks, atlases and damaged files."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Volume, header_tr, load_image, recording_shape, shared_space, write_nifti

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
    with pytest.raises(DataError, match=r"c.nii.gz: no voxel lies in this mask and in .* being a.nii.gz"):
        Volume.from_masks([*paths, empty])
    with pytest.raises(DataError, match="differs from"):
        Volume.from_masks([paths[0], image(tmp_path / "d.nii.gz", np.zeros((2, 2, 2)))])
    with pytest.raises(DataError, match="a mask has three dimensions"):
        Volume.from_masks([image(tmp_path / "e.nii.gz", np.ones((*SHAPE, 3)))])


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


OBLIQUE = np.array([[2.0, 0.3, 0, 5], [-0.2, 2.5, 0.4, -3], [0.1, -0.3, 3.6, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([-2.0, 2.0, 4.0, 1.0])])
@pytest.mark.parametrize("radius", [0.5, 3.0, 6.0, 8.5, 100.0])
def test_neighbours_by_radius_equal_brute_force(volume, affine, radius):
    near = Volume(volume.mask, affine).neighbors(radius=radius)
    points = np.argwhere(volume.mask) @ affine[:3, :3].T
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert near.dtype == bool
    np.testing.assert_array_equal(near.toarray(), distances <= radius + 1e-9)
    assert near.has_sorted_indices


def test_edges_join_voxels_that_share_a_face(volume):
    points = np.argwhere(volume.mask)
    steps = np.abs(points[:, None] - points[None]).sum(axis=2)
    expected = np.argwhere(np.triu(steps == 1))
    found = np.sort(Volume(volume.mask, OBLIQUE).edges(), axis=1)
    np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], expected)


@pytest.mark.parametrize("count", [1, 8, 1000])
def test_neighbours_by_count_are_the_nearest(volume, count):
    space = Volume(volume.mask, OBLIQUE)
    points = np.argwhere(volume.mask) @ OBLIQUE[:3, :3].T
    near = space.neighbors(count=count).toarray()
    for row, distances in zip(near, np.linalg.norm(points[:, None] - points[None], axis=2), strict=True):
        np.testing.assert_allclose(np.sort(distances[row]), np.sort(distances)[:count])
    assert near.diagonal().all()


def test_neighbours_do_not_depend_on_blocks(volume, monkeypatch):
    before = volume.neighbors(radius=5.0)
    monkeypatch.setattr("bidsdnn.spaces.volume._BLOCK", 7)
    assert (before != volume.neighbors(radius=5.0)).nnz == 0


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE])
def test_smoothing_a_whole_image_equals_nilearns(affine):
    from nilearn.image import smooth_img

    data = np.random.default_rng(0).normal(size=(12, 11, 10, 3)).astype(np.float32)
    space = Volume(np.ones(data.shape[:3], dtype=bool), affine)
    theirs = smooth_img(nib.Nifti1Image(data, affine), 6.0).get_fdata()
    np.testing.assert_allclose(space.smooth(data[space.mask].T, 6.0), theirs[space.mask].T, atol=1e-5)


def test_smoothing_stays_inside_the_mask(volume):
    """A normalised convolution: what lies outside or is NaN has no weight."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, volume.size)).astype(np.float32)
    values[0] = 1
    values[1, :5] = np.nan
    smoothed = volume.smooth(values, 7.0)
    np.testing.assert_allclose(smoothed[0], 1, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(values))
    sigma, points = 7.0 / np.sqrt(8 * np.log(2)), np.argwhere(volume.mask) * 3.0
    weights = np.exp(-((points[:, None] - points[None]) ** 2).sum(axis=2) / (2 * sigma**2))
    large = np.zeros((25, 26, 24), dtype=bool)
    large[10:15, 10:16, 10:14] = volume.mask
    space = Volume(large, AFFINE)
    for row in (1, 2):
        known = np.isfinite(values[row])
        expected = weights[np.ix_(known, known)] @ values[row, known] / weights[np.ix_(known, known)].sum(axis=1)
        np.testing.assert_allclose(space.smooth(values[[row]], 7.0)[0, known], expected, atol=2e-3)
    with pytest.raises(ValueError, match="fwhm"):
        volume.smooth(values, 0.0)


def test_smoothing_is_as_wide_as_asked():
    impulse = np.zeros((41, 41, 41), dtype=np.float32)
    impulse[20, 20, 20] = 1
    space = Volume(np.ones(impulse.shape, dtype=bool), np.diag([1.0, 1.0, 2.0, 1.0]))
    kernel = space.smooth(impulse.reshape(1, -1), 8.0).reshape(impulse.shape)
    assert kernel[24, 20, 20] / kernel[20, 20, 20] == pytest.approx(0.5, rel=1e-3)
    assert kernel[20, 20, 22] / kernel[20, 20, 20] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("name", ["a.nii", "a.mgz", "a.mgh"])
def test_other_volume_formats_are_read(volume, tmp_path, name):
    data = np.random.default_rng(2).normal(size=(*SHAPE, 2)).astype(np.float32)
    kind = nib.Nifti1Image if name.endswith(".nii") else nib.MGHImage
    kind(data, AFFINE).to_filename(tmp_path / name)
    np.testing.assert_array_equal(volume.read(tmp_path / name), data[volume.mask].T)
    space, _ = shared_space([tmp_path / name], [image(tmp_path / "mask.nii.gz", volume.mask)])
    assert space.identity == volume.identity
    assert recording_shape(tmp_path / name) == data.shape


def test_the_headers_repetition_time_is_in_seconds(volume, tmp_path):
    volume.write(tmp_path / "a.nii.gz", np.ones((3, volume.size)), tr=2.5)
    assert header_tr(tmp_path / "a.nii.gz") == 2.5
    milli = nib.load(tmp_path / "a.nii.gz")
    milli.header.set_xyzt_units("mm", "msec")
    milli.header.set_zooms((3, 3, 3, 1500))
    milli.to_filename(tmp_path / "b.nii.gz")
    assert header_tr(tmp_path / "b.nii.gz") == 1.5
    content = bytearray(gzip.decompress((tmp_path / "b.nii.gz").read_bytes()))
    # A code that the format does not know counts as seconds.
    content[123] = 2 + 56
    (tmp_path / "b.nii").write_bytes(content)
    assert header_tr(tmp_path / "b.nii") == 1500
    mgh = nib.MGHImage(np.ones((*SHAPE, 2), np.float32), AFFINE)
    mgh.header.set_zooms((3, 3, 3, 800))
    mgh.to_filename(tmp_path / "c.mgz")
    assert header_tr(tmp_path / "c.mgz") == pytest.approx(0.8)
    volume.write(tmp_path / "d.nii.gz", np.ones(volume.size))
    assert header_tr(tmp_path / "d.nii.gz") == 0


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz"])
def test_headers_that_claim_terabytes_are_refused(volume, tmp_path, name):
    path = tmp_path / name
    data = np.ones(SHAPE, np.float32)
    kind = nib.Nifti1Image if ".nii" in name else nib.MGHImage
    content = bytearray(kind(data, AFFINE).to_bytes())
    if ".nii" in name:
        content[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    else:
        content[4:20] = np.array([30000, 30000, 30000, 1], ">i4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if name.endswith("z") else bytes(content))
    with pytest.raises(DataError, match="header claims .* bytes" if name != "a.mgh" else "not a readable MGH"):
        Volume(np.ones((30000, 1, 1), dtype=bool), AFFINE).read(path)
    if ".nii" in name:
        content[40:48] = np.array([3, -5, 6, 4], "<i2").tobytes()
        path.write_bytes(gzip.compress(bytes(content)) if name.endswith("z") else bytes(content))
        with pytest.raises(DataError, match=r"a\.nii"):
            volume.read(path)


@pytest.mark.parametrize(
    ("file", "region"),
    [
        ("sub-01_label-V1_mask.nii.gz", "V1"),
        ("sub-01_hemi-L_space-T1w_label-FFA_desc-loc_mask.nii.gz", "L_FFA"),
        ("sub-CSI1_mask-LHPPA.nii.gz", "LHPPA"),
        ("sub-01_desc-face_mask.nii", "face"),
        ("lh_ventral.nii.gz", "lh_ventral"),
        ("sub-01_atlas-x_dseg.nii.gz", "1"),
    ],
)
def test_a_mask_is_one_region_named_by_its_file(volume, tmp_path, file, region):
    codes = np.zeros(SHAPE, np.float32)
    codes[:2] = 1
    nib.Nifti1Image(codes, AFFINE).to_filename(tmp_path / file)
    regions = volume.regions(tmp_path / file)
    assert list(regions) == [region]
    np.testing.assert_array_equal(regions[region], codes[volume.mask] == 1)


def test_resampling_an_atlas_is_said(volume, tmp_path, caplog):
    codes = np.zeros((10, 12, 8))
    codes[:5] = 1
    path = image(tmp_path / "atlas_dseg.nii.gz", codes, np.diag([1.5, 1.5, 1.5, 1.0]))
    with caplog.at_level("WARNING"):
        volume.regions(path)
    assert "atlas_dseg.nii.gz: lies on another grid than the data; it was resampled" in caplog.text
    caplog.clear()
    volume.regions(image(tmp_path / "same_dseg.nii.gz", np.ones(SHAPE)))
    assert not caplog.text


def test_identity_is_of_mask_and_grid(volume):
    other = volume.mask.copy()
    other[0, 0, 0] = ~other[0, 0, 0]
    spaces = [volume, Volume(other, AFFINE), Volume(volume.mask, OBLIQUE), Volume(volume.mask.reshape(6, 5, 4), AFFINE)]
    assert len({space.identity for space in spaces}) == 4
    assert Volume(volume.mask.copy(), AFFINE.copy()).identity == volume.identity
    assert (volume.entities, volume.extension, volume.files("x")) == ({}, ".nii.gz", ("x",))
