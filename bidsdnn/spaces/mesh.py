"""Triangle meshes: distances along their edges, and the heat kernel that smooths along them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from scipy.special import ive

from bidsdnn.errors import DataError
from bidsdnn.spaces.images import load_image, one_line

FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))
REMEDY = "give the meshes of both hemispheres with --mesh L R"
# Lets a neighbour at exactly the radius in, whatever the rounding of coordinates.
SLACK = 1 + 1e-6
# Vertices whose neighbours are sought in one go, and columns smoothed in one go: both bound memory.
_BLOCK = 256
_ROWS = 128
# Slivers count as this high relative to their longest side; otherwise one of them would rule the whole diffusion.
_SLIVER = 0.01


@dataclass(frozen=True, eq=False)
class Mesh:
    """The triangle mesh of one hemisphere.

    Parameters
    ----------
    coordinates : ndarray of float, shape (vertices, 3)
        Millimetres.
    faces : ndarray of int, shape (triangles, 3)
        Vertices by number.
    """

    coordinates: np.ndarray
    faces: np.ndarray

    @property
    def size(self) -> int:
        """Number of vertices."""
        return len(self.coordinates)

    @cached_property
    def identity(self) -> str:
        """Hash of coordinates and triangles."""
        text = hashlib.sha256(np.ascontiguousarray(self.coordinates, dtype=np.float32).tobytes())
        text.update(np.ascontiguousarray(self.faces, dtype=np.int32).tobytes())
        return text.hexdigest()

    def edges(self, inside: np.ndarray) -> csr_array:
        """Lengths of the edges between vertices of a mask.

        Parameters
        ----------
        inside : ndarray of bool, shape (vertices,)

        Returns
        -------
        csr_array of float64, shape (inside.sum(), inside.sum())
            Symmetric; millimetres.
        """
        pairs = self.pairs(inside)
        ends = self.coordinates[inside][pairs].astype(np.float64)
        # An edge of no length would be no edge in a sparse matrix.
        lengths = np.maximum(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), 1e-9)
        a, b = pairs.T
        size = int(inside.sum())
        return csr_array((np.tile(lengths, 2), (np.r_[a, b], np.r_[b, a])), shape=(size, size))

    def pairs(self, inside: np.ndarray) -> np.ndarray:
        """Vertices of a mask that an edge joins, by their number inside it, shape (m, 2)."""
        pairs = np.vstack([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        pairs = np.unique(np.sort(pairs[inside[pairs].all(axis=1)], axis=1), axis=0)
        return np.asarray((np.cumsum(inside) - 1)[pairs])

    def neighbors(self, inside: np.ndarray, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Vertices near each vertex, by the shortest way along edges inside the mask.

        Parameters
        ----------
        inside : ndarray of bool, shape (vertices,)
        radius : float, optional
            Millimetres.
        count : int, optional
            Number of nearest vertices including the centre; fewer where a piece of the mask has fewer.

        Returns
        -------
        csr_array of bool, shape (inside.sum(), inside.sum())
            A row is a centre.
        """
        points = self.coordinates[inside].astype(np.float64)
        graph = self.edges(inside)
        blocks = _blocks(points)
        if radius is not None:
            found = [_within(graph, points, block, radius * SLACK) for block in blocks]
        else:
            assert count is not None
            pieces = np.bincount(labels := connected_components(graph, directed=False)[1])[labels]
            start = 1.5 * np.sqrt(count / np.pi) * (np.median(graph.data) if graph.nnz else 1.0)
            found = [_nearest(graph, points, block, np.minimum(count, pieces[block]), start) for block in blocks]
        rows, columns = (np.concatenate(part) if part else np.zeros(0, int) for part in zip(*found, strict=True))
        del found
        shape = (len(points), len(points))
        return csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)

    def smooth(self, values: np.ndarray, inside: np.ndarray, fwhm: float) -> np.ndarray:
        """Smooth maps along the surface by the heat equation, solved on the mesh for the time that gives the FWHM.

        NaN vertices are holes with no flux through their rims, and stay NaN. The mean weighted by area is kept.
        The kernel is exp(-t A) with t = sigma^2 / 2, A being the finite-element (cotangent) Laplacian with lumped
        masses, applied as a sum of Chebyshev polynomials.

        Parameters
        ----------
        values : ndarray, shape (k, inside.sum())
        inside : ndarray of bool, shape (vertices,)
        fwhm : float
            Full width at half maximum in millimetres.

        Returns
        -------
        ndarray of float32, shape (k, inside.sum())
        """
        return by_pattern(values, lambda rows, known: self._diffuse(rows, inside, known, fwhm))

    def _diffuse(self, rows: np.ndarray, inside: np.ndarray, known: np.ndarray, fwhm: float) -> np.ndarray:
        where = inside.copy()
        where[inside] = known
        operator, root = self._laplacian(where)
        bound = float(abs(operator).sum(axis=0).max())
        half = (fwhm / FWHM_PER_SIGMA) ** 2 / 2 * bound / 2
        if half == 0:
            return rows
        # The eigenvalues moved to [-1, 1].
        moved = (operator * (2 / bound) - diags_array(np.ones(len(root)))).tocsr().astype(np.float32)
        weights = _chebyshev_weights(half)
        smoothed = np.empty_like(rows)
        for start in range(0, len(rows), _ROWS):
            before = np.ascontiguousarray((rows[start : start + _ROWS] * root).T)
            current = moved @ before
            total = weights[0] * before + weights[1] * current
            for weight in weights[2:]:
                before, current = current, 2 * (moved @ current) - before
                total += weight * current
            smoothed[start : start + _ROWS] = total.T / root
        return smoothed

    def _laplacian(self, where: np.ndarray) -> tuple[csr_array, np.ndarray]:
        """Symmetric Laplacian of the triangles inside a mask, and the square root of each vertex's area."""
        number = np.cumsum(where) - 1
        faces = self.faces[where[self.faces].all(axis=1)]
        corners = self.coordinates[faces].astype(np.float64)
        size = int(where.sum())
        area, entries = np.zeros(size), []
        sides = np.roll(corners, -1, axis=1) - corners
        double = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
        double = np.maximum(double, _SLIVER * (sides**2).sum(axis=2).max(axis=1) + 1e-12)
        for corner in range(3):
            a, b, c = (number[faces[:, (corner + step) % 3]] for step in range(3))
            first = corners[:, (corner + 1) % 3] - corners[:, corner]
            second = corners[:, (corner + 2) % 3] - corners[:, corner]
            weight = 0.5 * (first * second).sum(axis=1) / double
            np.add.at(area, a, double / 6)
            entries.append((b, c, -weight))
        i, j, v = (np.concatenate(part) for part in zip(*entries, strict=True))
        off = coo_array((np.tile(v, 2), (np.r_[i, j], np.r_[j, i])), shape=(size, size)).tocsr()
        # A vertex with no triangle left is left as it is.
        root = np.sqrt(np.where(area > 0, area, 1.0))
        whole = off - diags_array(np.asarray(off.sum(axis=1)).ravel())
        return diags_array(1 / root) @ whole @ diags_array(1 / root), root.astype(np.float32)


def _chebyshev_weights(half: float) -> np.ndarray:
    """Weights of T_0, T_1, ... in exp(-half (1 + x)), as many as single precision sees."""
    degree = 16
    while abs(ive(degree, half)) > 1e-9:
        degree += 16
    signs = np.where(np.arange(degree + 1) % 2, -2.0, 2.0)
    weights = signs * ive(np.arange(degree + 1), half)
    weights[0] /= 2
    return weights.astype(np.float32)


def check_extent(radius: float | None, count: int | None) -> None:
    """Refuse a neighbourhood that has no extent, or two."""
    if (radius is None) == (count is None):
        raise ValueError(f"radius, count: expected one of the two, got radius={radius}, count={count}")
    extent = radius if count is None else count
    if not (extent is not None and np.isfinite(extent) and extent > 0):
        raise ValueError(f"radius, count: expected a positive number, got {extent}")


def check_fwhm(fwhm: float) -> None:
    """Refuse a kernel that has no width."""
    if not (np.isfinite(fwhm) and fwhm > 0):
        raise ValueError(f"fwhm: expected a positive number of millimetres, got {fwhm}")


def by_pattern(values: np.ndarray, smoother: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Smooth rows together that have their NaN in the same columns, which stay NaN.

    Parameters
    ----------
    values : ndarray, shape (k, size)
    smoother : callable
        From the rows' finite columns and the mask of these to the smoothed columns.

    Returns
    -------
    ndarray of float32, shape (k, size)
    """
    values = np.asarray(values, dtype=np.float32)
    known = np.isfinite(values)
    smoothed = np.full_like(values, np.nan)
    patterns, which = np.unique(np.packbits(known, axis=1), axis=0, return_inverse=True)
    for index in range(len(patterns)):
        rows = np.flatnonzero(which.reshape(-1) == index)
        mask = known[rows[0]]
        if mask.any():
            smoothed[np.ix_(rows, mask)] = smoother(values[np.ix_(rows, mask)], mask)
    return smoothed


def _blocks(points: np.ndarray) -> list[np.ndarray]:
    """Vertices in groups that lie together in space."""
    order = cKDTree(points, leafsize=_BLOCK).indices if len(points) else np.zeros(0, dtype=int)
    return [order[start : start + _BLOCK] for start in range(0, len(order), _BLOCK)]


def _distances(graph: csr_array, points: np.ndarray, block: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances from a block's vertices to all those near the block, and which these are.

    The way along edges is never shorter than the straight line, so what a way of this length can touch lies within
    a box around the block: the search stays there, and its cost does not grow with the mesh.
    """
    low, high = points[block].min(axis=0) - radius, points[block].max(axis=0) + radius
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    local = graph[near][:, near]
    return dijkstra(local, indices=np.searchsorted(near, block), limit=radius), near


def _within(graph: csr_array, points: np.ndarray, block: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    distances, near = _distances(graph, points, block, radius)
    row, column = np.nonzero(distances <= radius)
    return block[row].astype(np.int32), near[column].astype(np.int32)


def _nearest(
    graph: csr_array, points: np.ndarray, block: np.ndarray, counts: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vertices of each of a block's: the radius grows until all have as many as they can have."""
    while True:
        distances, near = _distances(graph, points, block, radius)
        if (np.isfinite(distances).sum(axis=1) >= counts).all():
            break
        radius *= 1.5
    # Equal distances are taken in the order of the vertices' numbers.
    order = np.argsort(distances, axis=1, kind="stable")
    chosen = [near[row[:count]] for row, count in zip(order, counts, strict=True)]
    return np.repeat(block, counts).astype(np.int32), np.concatenate(chosen).astype(np.int32)


def read_mesh(path: Path) -> Mesh:
    """Read a triangle mesh.

    Parameters
    ----------
    path : Path
        ``.surf.gii`` (also ``.gii.gz``), or a FreeSurfer surface such as ``lh.midthickness``.

    Returns
    -------
    Mesh

    Raises
    ------
    DataError
        If the file holds no mesh, or is damaged.
    """
    if path.exists() and not path.name.endswith((".gii", ".gii.gz")):
        try:
            coordinates, faces = nib.freesurfer.read_geometry(path)[:2]
        except Exception as error:
            raise DataError(f"{path}: not a readable surface mesh ({one_line(error)}); give a surf.gii") from error
    else:
        image = load_image(path)
        points = image.get_arrays_from_intent("NIFTI_INTENT_POINTSET") if isinstance(image, nib.GiftiImage) else []
        triangles = image.get_arrays_from_intent("NIFTI_INTENT_TRIANGLE") if points else []
        if not points or not triangles:
            raise DataError(f"{path}: holds no triangle mesh; give a surf.gii file")
        coordinates, faces = points[0].data, triangles[0].data
    coordinates, faces = np.asarray(coordinates, dtype=np.float32), np.asarray(faces, dtype=np.int32)
    if coordinates.ndim != 2 or faces.ndim != 2 or coordinates.shape[1] != 3 or faces.shape[1] != 3 or not faces.size:
        raise DataError(f"{path}: holds no triangle mesh; give a surf.gii file")
    if faces.min() < 0 or faces.max() >= len(coordinates) or not np.isfinite(coordinates).all():
        raise DataError(f"{path}: mesh is damaged (triangles of vertices that are not there); replace the file")
    return Mesh(coordinates, faces)


def read_meshes(paths: tuple[Path, Path]) -> tuple[Mesh, Mesh]:
    """Read the left and the right hemisphere's mesh."""
    left, right = (read_mesh(Path(path)) for path in paths)
    return left, right


def fsaverage5() -> tuple[Mesh, Mesh]:
    """Read the two fsaverage5 meshes that come with nilearn, half way between white and pial surface.

    Returns
    -------
    tuple of Mesh
        10,242 vertices each.
    """
    from nilearn.datasets import fetch_surf_fsaverage

    files = fetch_surf_fsaverage("fsaverage5")
    meshes = []
    for side in ("left", "right"):
        white, pial = (read_mesh(Path(files[f"{kind}_{side}"])) for kind in ("white", "pial"))
        meshes.append(Mesh((white.coordinates + pial.coordinates) / 2, white.faces))
    return meshes[0], meshes[1]
