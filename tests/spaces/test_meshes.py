"""Neighbours along edges against brute force, and smoothing that is as wide as asked."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Mesh, Surface, fsaverage5, read_mesh
from tests.spaces.conftest import lattice, write_mesh


@pytest.fixture(scope="module")
def crumpled() -> Mesh:
    """A lattice whose edges all differ in length."""
    flat = lattice(25, 30)
    noise = np.random.default_rng(0).normal(scale=0.15, size=flat.coordinates.shape)
    return Mesh((flat.coordinates + noise).astype(np.float32), flat.faces)


def all_distances(mesh: Mesh, inside: np.ndarray) -> np.ndarray:
    """Shortest ways along edges by SciPy on the dense matrix of edge lengths."""
    lengths = np.zeros((mesh.size, mesh.size))
    for triangle in mesh.faces:
        for a in triangle:
            for b in triangle:
                if inside[a] and inside[b]:
                    lengths[a, b] = np.linalg.norm(mesh.coordinates[a].astype(float) - mesh.coordinates[b])
    return dijkstra(lengths)[np.ix_(inside, inside)]


@pytest.mark.parametrize("radius", [0.4, 2.0, 5.5, 100.0])
def test_neighbours_by_radius_equal_brute_force(crumpled, radius):
    inside = np.random.default_rng(1).random(crumpled.size) > 0.2
    near = crumpled.neighbors(inside, radius=radius)
    assert near.dtype == bool
    np.testing.assert_array_equal(near.toarray(), all_distances(crumpled, inside) <= radius)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_neighbours_by_count_are_the_nearest(crumpled, count):
    inside = np.random.default_rng(2).random(crumpled.size) > 0.5
    near, distances = crumpled.neighbors(inside, count=count).toarray(), all_distances(crumpled, inside)
    for row, others in zip(near, distances, strict=True):
        expected = np.sort(others[np.isfinite(others)])[:count]
        np.testing.assert_allclose(np.sort(others[row]), expected)
    assert near.diagonal().all()


def test_a_piece_smaller_than_the_count_is_taken_whole(crumpled):
    inside = np.zeros(crumpled.size, dtype=bool)
    inside[:3] = inside[-4:] = True
    sizes = crumpled.neighbors(inside, count=5).sum(axis=1)
    np.testing.assert_array_equal(sizes, [3, 3, 3, 4, 4, 4, 4])


def test_a_gap_is_gone_around():
    """Two arms of a horseshoe are near in a straight line and far along the surface."""
    mesh = lattice(21, 21)
    inside = np.ones(mesh.size, dtype=bool).reshape(21, 21)
    inside[:15, 10] = False
    near = Surface((inside.reshape(-1), inside.reshape(-1)), (mesh, mesh)).neighbors(radius=3.0)
    number = (np.cumsum(inside.reshape(-1)) - 1).reshape(21, 21)
    assert near[number[5, 9], number[5, 8]]
    assert not near[number[5, 9], number[5, 11]]
    assert near[number[18, 9], number[18, 11]]
    half = int(inside.sum())
    assert near[:half, half:].nnz == 0
    assert near[half:, half:].nnz == near[:half, :half].nnz


def test_neighbours_do_not_depend_on_blocks(crumpled, monkeypatch):
    inside = np.ones(crumpled.size, dtype=bool)
    whole = [crumpled.neighbors(inside, radius=3.0), crumpled.neighbors(inside, count=12)]
    monkeypatch.setattr("bidsdnn.spaces.mesh._BLOCK", 17)
    again = [crumpled.neighbors(inside, radius=3.0), crumpled.neighbors(inside, count=12)]
    for before, now in zip(whole, again, strict=True):
        assert (before != now).nnz == 0


@pytest.mark.parametrize("fwhm", [3.0, 6.0, 10.0])
@pytest.mark.parametrize("edge", [0.8, 1.5])
def test_the_kernel_is_as_wide_as_asked(fwhm, edge):
    mesh = lattice(81, 81, edge=edge)
    inside = np.ones(mesh.size, dtype=bool)
    impulse = np.zeros((1, mesh.size), dtype=np.float32)
    centre = 40 * 81 + 40
    impulse[0, centre] = 1
    kernel = mesh.smooth(impulse, inside, fwhm)[0]
    profile = kernel.reshape(81, 81)[40, 40:]
    half = np.interp(-profile[0] / 2, -profile, np.arange(41) * edge)
    # On a mesh as coarse as the kernel the peak is a corner: the spread is exact where the half maximum is not.
    if fwhm >= 3 * edge:
        assert abs(2 * half / fwhm - 1) < 0.1
    offset = mesh.coordinates[:, :2] - mesh.coordinates[centre, :2]
    variance = (kernel[:, None] * offset**2).sum(axis=0) / kernel.sum()
    np.testing.assert_allclose(np.sqrt(8 * np.log(2) * variance), fwhm, rtol=0.02)
    np.testing.assert_allclose(kernel.sum(), 1, atol=1e-4)


def test_smoothing_on_a_plane_equals_a_gaussian():
    mesh = lattice(90, 90)
    impulse = np.zeros((1, mesh.size), dtype=np.float32)
    centre = 45 * 90 + 45
    impulse[0, centre] = 1
    kernel = mesh.smooth(impulse, np.ones(mesh.size, dtype=bool), 8.0)[0]
    sigma = 8.0 / np.sqrt(8 * np.log(2))
    distance = np.linalg.norm(mesh.coordinates - mesh.coordinates[centre], axis=1)
    gaussian = np.exp(-(distance**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    np.testing.assert_allclose(kernel, gaussian, atol=0.03 * gaussian.max())


def test_smoothing_keeps_constants_means_and_holes():
    left, right = fsaverage5()
    rng = np.random.default_rng(0)
    inside = tuple(rng.random(mesh.size) > 0.05 for mesh in (left, right))
    space = Surface(inside, (left, right))
    values = np.vstack([np.ones(space.size), rng.normal(3, 1, size=(2, space.size))]).astype(np.float32)
    holes = rng.random(space.size) < 0.02
    values[1, holes] = np.nan
    smoothed = space.smooth(values, 8.0)
    np.testing.assert_allclose(smoothed[0], 1, atol=1e-4)
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(values))
    assert np.nanstd(smoothed[1:]) < 0.5 * np.nanstd(values[1:])
    # The mean weighted by the area of the triangles that lie inside.
    faces = left.faces[inside[0][left.faces].all(axis=1)]
    a, b, c = left.coordinates[faces].astype(float).transpose(1, 0, 2)
    area = np.bincount(faces.reshape(-1), np.repeat(np.linalg.norm(np.cross(b - a, c - a), axis=1), 3), left.size)
    weight, part = area[inside[0]], slice(None, inside[0].sum())
    moved = weight > 0
    np.testing.assert_allclose(weight @ smoothed[2, part], weight @ values[2, part], rtol=1e-5)
    np.testing.assert_allclose(smoothed[2, part][~moved], values[2, part][~moved], rtol=1e-5)


def test_nothing_is_smoothed_across_the_hemispheres_or_a_gap():
    mesh = lattice(30, 30)
    inside = np.ones(mesh.size, dtype=bool).reshape(30, 30)
    inside[:, 15] = False
    space = Surface((inside.reshape(-1), np.ones(mesh.size, dtype=bool)), (mesh, mesh))
    left = np.zeros((30, 30))
    left[:, :15] = 1
    values = np.r_[left.reshape(-1)[inside.reshape(-1)], np.full(mesh.size, 5.0)][None]
    np.testing.assert_allclose(space.smooth(values, 6.0), values, atol=1e-4)


def test_rows_are_smoothed_alike_however_many_there_are():
    mesh = lattice(20, 20)
    inside = np.ones(mesh.size, dtype=bool)
    values = np.random.default_rng(0).normal(size=(150, mesh.size)).astype(np.float32)
    values[3, 5] = np.nan
    whole = mesh.smooth(values, inside, 4.0)
    for row in (0, 3, 149):
        np.testing.assert_array_equal(mesh.smooth(values[[row]], inside, 4.0)[0], whole[row])


def test_without_a_mesh_the_remedy_is_named():
    space = Surface((np.ones(5, dtype=bool),) * 2)
    for ask in (lambda: space.neighbors(radius=3.0), lambda: space.smooth(np.ones((1, 10)), 4.0)):
        with pytest.raises(DataError, match=r"surfaces of 5 and 5 vertices are not known; .* --mesh L R"):
            ask()


@pytest.mark.parametrize("extent", [{}, {"radius": 1.0, "count": 2}, {"radius": 0.0}, {"count": 0}, {"radius": np.nan}])
def test_a_neighbourhood_has_one_positive_extent(extent):
    with pytest.raises(ValueError, match="radius, count"):
        Surface((np.ones(5, dtype=bool),) * 2).neighbors(**extent)


def test_meshes_are_read(tmp_path):
    mesh = lattice(4, 5)
    read = read_mesh(write_mesh(tmp_path / "hemi-L_midthickness.surf.gii", mesh))
    np.testing.assert_array_equal(read.coordinates, mesh.coordinates)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    assert read.identity == mesh.identity
    nib.freesurfer.write_geometry(tmp_path / "lh.white", mesh.coordinates, mesh.faces)
    np.testing.assert_array_equal(read_mesh(tmp_path / "lh.white").faces, mesh.faces)
    assert [one.size for one in fsaverage5()] == [10242, 10242]


def test_damaged_meshes_are_refused(tmp_path):
    path = write_mesh(tmp_path / "a.surf.gii", lattice(20, 20))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.surf\.gii: not a readable GIFTI"):
        read_mesh(path)
    wrong = lattice(4, 4)
    write_mesh(path, Mesh(wrong.coordinates, wrong.faces + 5))
    with pytest.raises(DataError, match="vertices that are not there"):
        read_mesh(path)
    (tmp_path / "lh.white").write_bytes(b"no mesh at all")
    with pytest.raises(DataError, match=r"lh\.white: not a readable surface mesh"):
        read_mesh(tmp_path / "lh.white")
    with pytest.raises(MissingInputError, match="check the path"):
        read_mesh(tmp_path / "lh.pial")
    (tmp_path / "x.func.gii").write_bytes(content[:0])
    with pytest.raises(DataError, match="not a readable GIFTI"):
        read_mesh(tmp_path / "x.func.gii")
