from __future__ import annotations

import numpy as np
import pytest

from bidsdnn.report.brains import Scan, best_layer, cut, layer_map, read_scans, score_map
from bidsdnn.spaces import write_nifti


def test_scans_are_turned_to_the_right_the_front_and_the_top(tmp_path):
    # Axes stored as (top, left, front): world x runs against voxel axis 1.
    affine = np.array([[0, -2.0, 0, 10], [0, 0, 3.0, -5], [4.0, 0, 0, 7], [0, 0, 0, 1]])
    data = np.arange(24, dtype=float).reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii.gz", data, affine)
    (scan,) = read_scans(tmp_path / "a.nii.gz")
    assert scan.values.shape == (3, 4, 2)
    np.testing.assert_allclose(np.diag(scan.affine)[:3], [2, 3, 4])
    for voxel in np.ndindex(data.shape):
        place = affine[:3, :3] @ voxel + affine[:3, 3]
        assert scan.at(place[None])[0] == data[voxel]


def test_oblique_scans_keep_their_values_in_place(tmp_path):
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * 3
    data = np.random.default_rng(0).random((5, 6, 4)).astype(np.float32)
    write_nifti(tmp_path / "a.nii.gz", data, affine)
    (scan,) = read_scans(tmp_path / "a.nii.gz")
    place = affine[:3, :3] @ (1, 4, 2) + affine[:3, 3]
    assert scan.at(place[None])[0] == data[1, 4, 2]
    assert np.isnan(scan.at(np.array([[99.0, 99, 99]]))[0])


def test_best_layer_ignores_missing_values():
    layer, score = best_layer(np.array([[0.2, np.nan, 0.3], [0.5, np.nan, np.nan]]))
    np.testing.assert_array_equal(layer, [2, np.nan, 1])
    np.testing.assert_array_equal(score, [0.5, np.nan, 0.3])


def test_slices_hold_the_values_of_their_voxels():
    values = np.random.default_rng(0).random((4, 5, 6))
    scan = Scan(values, np.diag([2.0, 2, 2, 1]))
    slices = cut(scan)
    assert [name for _, name in slices] == [f"z = {2 * k}" for k in range(6)]
    points, _ = slices[3]
    seen = scan.at(points)
    assert set(np.unique(seen[np.isfinite(seen)])) == set(np.unique(values[:, :, 3]))
    # The top row of a picture is the front of the brain, its first column the left.
    assert points[0, 0, 1] > points[-1, 0, 1] and points[0, 0, 0] < points[0, -1, 0]


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 20, 1), "z"), ((40, 1, 20), "y"), ((1, 9, 9), "x"), ((2, 2, 2), "x")]
)
def test_thin_volumes_are_cut_across_their_thin_side(shape, axis):
    scan = Scan(np.random.default_rng(0).random(shape), np.diag([3.0, 3, 3, 1]))
    slices = cut(scan)
    assert {name[0] for _, name in slices} == {axis} and len(slices) == shape["xyz".index(axis)]
    panel = score_map(scan, None, stem="map", label="r", alt="a map")
    assert panel.content.startswith(b"<?xml") and b"image" in panel.content


@pytest.mark.parametrize("fill", [np.nan, 0.0, -1.0])
def test_maps_without_anything_to_show_are_still_drawn(fill):
    scan = Scan(np.full((5, 5, 5), fill), np.eye(4))
    assert score_map(scan, scan, stem="map", label="r", alt="a map").markup
    layer = Scan(np.full((5, 5, 5), np.nan), np.eye(4))
    assert layer_map(layer, scan, None, layers=["a", "b"], stem="map", alt="a map").markup


def test_background_of_another_resolution_is_looked_up_in_millimetres():
    fine = Scan(np.random.default_rng(0).random((30, 30, 30)) + 1, np.eye(4))
    coarse = Scan(np.random.default_rng(0).random((10, 10, 10)), np.diag([3.0, 3, 3, 1]))
    with_anatomy = score_map(coarse, fine, stem="map", label="r", alt="a map")
    assert with_anatomy.content != score_map(coarse, None, stem="map", label="r", alt="a map").content
