"""The demo's cortex: nilearn's fsaverage5, thinned to the voxels' size, and the voxel whose time course a vertex shows.

The voxels of a region are laid out on the vertices around its place, each on one vertex, so that a region holds the
same time courses in every space; the rest of the cortex shows the nearest voxels that belong to no region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_data, load_surf_mesh
from scipy.ndimage import binary_erosion
from scipy.optimize import linear_sum_assignment
from scipy.spatial import ConvexHull, cKDTree

from bidsdnn.demo.brain import REGIONS, Grid

# Vertices of one hemisphere of fsaverage4 and fsaverage5; the first are among the second.
DENSITIES = {"3k": 2562, "10k": 10242}
_FINE = 4.5
_MEDIAL_THICKNESS, _MEDIAL_EXTENT = 0.5, 30.0
# Centre of the right thalamus in millimetres, the left is its mirror image.
THALAMUS = (11.0, -18.0, 8.0)
_THALAMUS_RADIUS = 11.0


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """One half of the cortex.

    Parameters
    ----------
    side : str
        ``L`` or ``R``.
    faces : ndarray of int, shape (triangles, 3)
    midthickness, inflated : ndarray, shape (vertices, 3)
        Millimetres.
    cortex : ndarray of bool, shape (vertices,)
        False on the medial wall.
    voxels : ndarray of int, shape (vertices,)
        The voxel of the grid, counted in C order, whose time course each vertex shows.
    labels : ndarray of int, shape (vertices,)
        Region numbers, from 1; 0 outside.
    """

    side: str
    faces: np.ndarray
    midthickness: np.ndarray
    inflated: np.ndarray
    cortex: np.ndarray
    voxels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Cortex:
    """Both halves, and voxels below the cortex.

    Parameters
    ----------
    density : str
        Of `DENSITIES`.
    left, right : Hemisphere
    below : dict of str to ndarray of int
        By CIFTI structure: voxels of the grid, counted in C order.
    """

    density: str
    left: Hemisphere
    right: Hemisphere
    below: dict[str, np.ndarray]

    @property
    def sides(self) -> tuple[Hemisphere, Hemisphere]:
        """Left and right."""
        return self.left, self.right

    @property
    def size(self) -> int:
        """Vertices of the cortex without the medial wall, and voxels below it."""
        return sum(int(half.cortex.sum()) for half in self.sides) + sum(map(len, self.below.values()))


def lay_out(grid: Grid, brain: np.ndarray, labels: np.ndarray) -> Cortex:
    """Choose the voxel of each vertex.

    Parameters
    ----------
    grid : Grid
    brain : ndarray of bool, shape (x, y, z)
    labels : ndarray of int, shape (x, y, z)
        Region numbers of `bidsdnn.demo.brain.draw_regions`.

    Returns
    -------
    Cortex
    """
    density = "10k" if grid.affine[0, 0] < _FINE else "3k"
    files = fetch_surf_fsaverage("fsaverage5")
    halves = []
    for side, word, sign in (("L", "left", -1), ("R", "right", 1)):
        coordinates = {
            kind: np.asarray(load_surf_mesh(files[f"{kind}_{word}"]).coordinates)[: DENSITIES[density]]
            for kind in ("white", "pial", "infl", "sphere")
        }
        middle = (coordinates["white"] + coordinates["pial"]) / 2
        thickness = load_surf_data(files[f"thick_{word}"])[: DENSITIES[density]]
        cortex = ~((thickness < _MEDIAL_THICKNESS) & (np.abs(middle[:, 0]) < _MEDIAL_EXTENT))
        voxels, numbers = _assign(grid, brain, labels, middle, cortex, sign)
        faces = _triangles(coordinates["sphere"])
        halves.append(Hemisphere(side, faces, middle, coordinates["infl"], cortex, voxels, numbers))
    below = {}
    for sign, side in ((-1, "LEFT"), (1, "RIGHT")):
        near = np.linalg.norm(grid.places - np.multiply(THALAMUS, (sign, 1, 1)), axis=-1) <= _THALAMUS_RADIUS
        inside = near & brain & (labels == 0) & (sign * grid.places[..., 0] > 0)
        below[f"CIFTI_STRUCTURE_THALAMUS_{side}"] = np.flatnonzero(inside)
    return Cortex(density, halves[0], halves[1], below)


def _triangles(sphere: np.ndarray) -> np.ndarray:
    """Triangles of points on a sphere, corners in the order that makes their normals point outwards."""
    faces = ConvexHull(sphere).simplices
    corners = sphere[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inwards = (normals * corners.mean(axis=1)).sum(axis=1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return faces.astype(np.int32)


def _assign(
    grid: Grid, brain: np.ndarray, labels: np.ndarray, places: np.ndarray, cortex: np.ndarray, sign: int
) -> tuple[np.ndarray, np.ndarray]:
    """Voxel and region number of each vertex of the hemisphere on one side of the midline."""
    side = sign * grid.places[..., 0] > 0
    # A run's mask loses voxels of the brain's surface; those that stand for no region had better be in every mask.
    filling = np.flatnonzero(binary_erosion(brain) & side & (labels == 0))
    flat = grid.places.reshape(-1, 3)
    voxels = filling[cKDTree(flat[filling]).query(places)[1]]
    numbers = np.zeros(len(places), dtype=np.int32)
    for number, centre in enumerate(REGIONS.values(), start=1):
        members = np.flatnonzero((labels == number) & side)
        distance = np.linalg.norm(places - np.multiply(centre, (sign, 1, 1)), axis=1)
        distance[~cortex | (numbers > 0)] = np.inf
        vertices = np.argsort(distance, kind="stable")[: len(members)]
        # Neighbours on the surface had better be neighbours in the volume, as responses vary smoothly there.
        apart = _centred(places[vertices])[:, None] - _centred(flat[members])[None]
        rows, columns = linear_sum_assignment((apart**2).sum(axis=-1))
        voxels[vertices[rows]] = members[columns]
        numbers[vertices] = number
    return voxels, numbers


def _centred(places: np.ndarray) -> np.ndarray:
    return (places - places.mean(axis=0)) / np.maximum(places.std(axis=0), 1e-6)
