"""Maps of the cortex as views of its surface.

A view is a picture that a small rasteriser paints: triangles that face the viewer are filled with points, and of all
points on a pixel the nearest is seen. Each point has the colour of the nearest vertex, so that nothing is blended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bidsdnn.spaces.mesh import Mesh

# Which coordinate runs to the right of a picture, which to its top and which to the viewer, with their signs: for the
# left hemisphere.
_TURNS = {
    "outer": ((1, -1), (2, 1), (0, -1)),
    "inner": ((1, 1), (2, 1), (0, 1)),
    "lower": ((0, -1), (1, 1), (2, -1)),
}
# Seen from below, the right hemisphere is on the left.
_ORDER = (("L", "outer"), ("L", "inner"), ("R", "lower"), ("L", "lower"), ("R", "inner"), ("R", "outer"))
_WIDTH = 300
_MARGIN = 4
_LIGHT, _DARK = 0.80, 0.52


@dataclass(frozen=True, eq=False)
class Sheet:
    """Values on the vertices of both hemispheres.

    Parameters
    ----------
    values : ndarray, shape (vertices of left and right,)
        NaN where there are none.
    drawn : tuple of two Mesh
        Where the vertices are drawn, best inflated.
    folds : ndarray of bool, shape (vertices of left and right,)
        Whether a vertex lies in a sulcus, which is shaded.
    """

    values: np.ndarray
    drawn: tuple[Mesh, Mesh]
    folds: np.ndarray


def sulci(mesh: Mesh) -> np.ndarray:
    """Which vertices lie lower than their surroundings.

    Parameters
    ----------
    mesh : Mesh
        Folded as the brain is, not inflated.

    Returns
    -------
    ndarray of bool, shape (vertices,)
    """
    points = mesh.coordinates.astype(float)
    ends = np.vstack([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    ends = np.vstack([ends, ends[:, ::-1]])
    degree = np.maximum(np.bincount(ends[:, 0], minlength=len(points)), 1)

    def around(values: np.ndarray) -> np.ndarray:
        return np.bincount(ends[:, 0], weights=values[ends[:, 1]], minlength=len(points)) / degree

    middle = np.column_stack([around(axis) for axis in points.T])
    depth = ((middle - points) * _normals(mesh)).sum(axis=1)
    # Once around each vertex, so that single ones do not stand out.
    return np.asarray(0.5 * (depth + around(depth)) > 0)


def _normals(mesh: Mesh) -> np.ndarray:
    """Unit normals of the vertices, pointing outwards whichever way the triangles turn."""
    corners = mesh.coordinates[mesh.faces].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = mesh.coordinates.mean(axis=0)
    # The volume that the triangles enclose is positive if they turn outwards.
    outwards = np.sign(((corners.mean(axis=1) - centre) * across).sum()) or 1.0
    total = np.zeros_like(mesh.coordinates, dtype=float)
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(mesh.faces[:, corner], weights=across[:, axis], minlength=mesh.size)
    return outwards * total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def views(
    sheet: Sheet, strength: Sheet, colour: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> list[tuple[np.ndarray, str]]:
    """Paint both hemispheres from the outer, the inner and the lower side.

    Parameters
    ----------
    sheet, strength : Sheet
    colour : callable
        From the values of both to red, green, blue and opacity, shape (vertices, 4).

    Returns
    -------
    list of (ndarray of shape (height, width, 4), str)
        Pictures of one size, top row first, and their names.
    """
    painted = colour(sheet.values, strength.values)
    n = sheet.drawn[0].size
    halves = {"L": (sheet.drawn[0], slice(0, n)), "R": (sheet.drawn[1], slice(n, None))}
    reach = max(float(np.ptp(mesh.coordinates, axis=0).max()) for mesh in sheet.drawn)
    pictures = []
    for side, turn in _ORDER:
        mesh, part = halves[side]
        # The right hemisphere's outer side is seen from the right.
        axes = _TURNS[{"outer": "inner", "inner": "outer"}.get(turn, turn) if side == "R" else turn]
        pixels = _paint(mesh, axes, painted[part], sheet.folds[part], scale=(_WIDTH - 2 * _MARGIN) / reach)
        pictures.append((pixels, f"{'left' if side == 'L' else 'right'}, {turn} side"))
    height = max(len(pixels) for pixels, _ in pictures)
    return [(_padded(pixels, height), name) for pixels, name in pictures]


def _paint(
    mesh: Mesh, axes: tuple[tuple[int, int], ...], colours: np.ndarray, folds: np.ndarray, *, scale: float
) -> np.ndarray:
    """One view of one hemisphere."""
    seen, facing = _seen(mesh, axes, scale)
    grey = np.where(folds, _DARK, _LIGHT) * (0.55 + 0.45 * np.clip(facing, 0, 1))
    base = np.column_stack([grey, grey, grey, np.ones(len(grey))])
    alpha = colours[:, 3:]
    vertex_colours = np.column_stack([colours[:, :3] * alpha + base[:, :3] * (1 - alpha), base[:, 3]])
    return np.where(seen[..., None] >= 0, vertex_colours[seen], 0)


@lru_cache(maxsize=4 * len(_ORDER))
def _seen(mesh: Mesh, axes: tuple[tuple[int, int], ...], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which vertex each pixel shows, -1 for none, and how much each vertex faces the viewer: the same for all maps."""
    turned = np.column_stack([sign * mesh.coordinates[:, axis] for axis, sign in axes]).astype(float)
    facing = _normals(mesh) @ np.array([[sign * (axis == k) for axis, sign in axes] for k in range(3)], dtype=float)
    x = (turned[:, 0] - turned[:, 0].min()) * scale
    y = (turned[:, 1].max() - turned[:, 1]) * scale
    height, width = int(y.max()) + 1, int(x.max()) + 1
    faces = mesh.faces[(facing[mesh.faces, 2] > 0).any(axis=1)]
    longest = max(float(np.ptp(one[faces], axis=1).max()) for one in (x, y))
    weights, nearest = _samples(int(np.ceil(longest)) + 2)
    pixel, depth, vertex = [], [], []
    for weight, corner in zip(weights, nearest, strict=True):
        column, row = (np.minimum(one[faces] @ weight, top) for one, top in ((x, width - 1), (y, height - 1)))
        pixel.append(row.astype(int) * width + column.astype(int))
        depth.append(turned[faces, 2] @ weight)
        vertex.append(faces[:, corner])
    order = np.argsort(np.concatenate(depth), kind="stable")
    seen = np.full(height * width, -1)
    # Of several points on one pixel the last stays, which is the nearest.
    seen[np.concatenate(pixel)[order]] = np.concatenate(vertex)[order]
    return seen.reshape(height, width), facing[:, 2]


def _samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread over a triangle, as weights of its corners, and the nearest corner of each."""
    i, j = np.triu_indices(n)
    weights = np.column_stack([i, j - i, n - 1 - j]) / max(n - 1, 1)
    return weights, weights.argmax(axis=1)


def _padded(pixels: np.ndarray, height: int) -> np.ndarray:
    """A picture in the middle of a larger clear one."""
    above, beside = (height - pixels.shape[0]) // 2, (_WIDTH - pixels.shape[1]) // 2
    whole = np.zeros((height, _WIDTH, 4))
    whole[above : above + pixels.shape[0], beside : beside + pixels.shape[1]] = pixels
    return whole
