"""CIFTI-2: a column is a vertex of the cortex or a voxel below it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis
from scipy.sparse import coo_array, csr_array

from bidsdnn.errors import DataError
from bidsdnn.spaces.atlases import cifti_regions, codes_on_grid, named_regions, region_names, surface_regions
from bidsdnn.spaces.cifti import CORTICES, columns_in, is_cifti, open_cifti, read_cifti, write_cifti
from bidsdnn.spaces.gifti import label_colour
from bidsdnn.spaces.images import check_common
from bidsdnn.spaces.mesh import REMEDY, Mesh, check_extent, check_fwhm
from bidsdnn.spaces.volume import Volume


@dataclass(frozen=True, eq=False)
class Cifti:
    """The vertices and voxels of a CIFTI-2 file, in its order.

    Parameters
    ----------
    points : BrainModelAxis
        What the columns are.
    meshes : tuple of two Mesh, optional
        Left and right cortex; needed for neighbours and smoothing only.
    """

    points: BrainModelAxis
    meshes: tuple[Mesh, Mesh] | None = None
    extension: ClassVar[str] = ".dscalar.nii"
    label_extension: ClassVar[str] = ".dlabel.nii"

    @property
    def entities(self) -> dict[str, str]:
        """Entities that the name of a map's file needs: none."""
        return {}

    @cached_property
    def identity(self) -> str:
        """Hash of the points and of the meshes."""
        points = self.points
        text = hashlib.sha256("\n".join(points.name).encode())
        text.update(np.asarray(points.vertex, dtype=np.int64).tobytes())
        text.update(repr(sorted(points.nvertices.items())).encode())
        if not points.surface_mask.all():
            text.update(np.asarray(points.voxel, dtype=np.int64).tobytes())
            text.update(repr((tuple(points.volume_shape), np.asarray(points.affine, dtype=float).tolist())).encode())
        for mesh in self.meshes or ():
            text.update(mesh.identity.encode())
        return text.hexdigest()

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.points)

    @classmethod
    def from_files(cls, paths: Sequence[Path], meshes: tuple[Mesh, Mesh] | None = None) -> Cifti:
        """Find the points that all files have.

        Parameters
        ----------
        paths : sequence of Path
            CIFTI files with brain models.
        meshes : tuple of two Mesh, optional

        Returns
        -------
        Cifti
            In the order of the first file.

        Raises
        ------
        DataError
            If files are drawn on different meshes or grids, or have no point in common.
        """
        return cls(common_points([(path, open_cifti(path)[2]) for path in paths]), meshes)

    @classmethod
    def from_masks(cls, paths: Sequence[Path], meshes: tuple[Mesh, Mesh] | None = None) -> Cifti:
        """Intersect masks.

        Parameters
        ----------
        paths : sequence of Path
            ``.dlabel.nii`` or ``.dscalar.nii``; whatever is not 0 is inside.
        meshes : tuple of two Mesh, optional

        Returns
        -------
        Cifti
            The points that lie in every mask, in the order of the first.

        Raises
        ------
        DataError
            If masks are drawn on different meshes or grids, or no point is in all of them.
        """
        space = cls.from_files(paths, meshes)
        inside = np.ones(space.size, dtype=bool)
        for path in paths:
            inside &= np.nan_to_num(space.read(path)[0]) != 0
            check_common(inside, path, paths[0], what="vertex")
        return cls(space.points[inside], meshes)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files that one map consists of: itself."""
        return (path,)

    def read(self, path: Path) -> np.ndarray:
        """Read maps or time points; the file's columns are found by structure and vertex or voxel.

        Parameters
        ----------
        path : Path
            ``.dtseries.nii``, ``.dscalar.nii`` or ``.dlabel.nii``.

        Returns
        -------
        ndarray of float32, shape (k, size)

        Raises
        ------
        DataError
            If the file lacks a column, has no brain models, or is damaged.
        """
        return read_cifti(path, self.points)

    def write(
        self, path: Path, values: np.ndarray, *, names: Sequence[str] | None = None, tr: float | None = None
    ) -> None:
        """Write a table of items x columns with the brain models it came with.

        Parameters
        ----------
        path : Path
            Ends in ``.dscalar.nii``; with `tr` in ``.dtseries.nii``.
        values : ndarray, shape (k, size) or (size,)
        names : sequence of str, optional
            One a map; by default their numbers from 1.
        tr : float, optional
            Seconds between maps, which makes them a series.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float32))
        maps: ScalarAxis | SeriesAxis
        if tr is None:
            maps = ScalarAxis(list(names) if names is not None else [str(i + 1) for i in range(len(values))])
        else:
            maps = SeriesAxis(0.0, tr, len(values), "SECOND")
        write_cifti(path, values, maps, self.points)

    def write_codes(self, path: Path, codes: np.ndarray, names: Mapping[int, str] | None = None) -> None:
        """Write whole numbers as a map of labels.

        Parameters
        ----------
        path : Path
            Ends in ``.dlabel.nii``.
        codes : ndarray of int, shape (size,)
        names : mapping of int to str, optional
            The label table; by default the numbers themselves.
        """
        codes = np.asarray(codes, dtype=np.int32)
        names = names or {int(code): str(code) for code in np.unique(codes) if code != 0}
        table = {int(code): (str(name), label_colour(int(code))) for code, name in {0: "???", **names}.items()}
        write_cifti(path, codes[None], LabelAxis(["labels"], [table]), self.points)

    def write_mask(self, path: Path) -> None:
        """Write the columns as a map of labels that are all 1."""
        self.write_codes(path, np.ones(self.size, dtype=np.int32), {1: "brain"})

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas.

        Parameters
        ----------
        path : Path
            ``.dlabel.nii``, matched by structure and vertex or voxel; ``.dscalar.nii`` of masks; the left
            hemisphere's ``.label.gii`` or ``.annot``, for the cortex; or a volume, for the voxels below it, resampled
            to their grid with a warning.
        labels : Path, optional
            A BIDS label table, instead of the names in the file.

        Returns
        -------
        dict of str to ndarray of bool, shape (size,)

        Raises
        ------
        DataError
            If the atlas is drawn on another mesh, or holds no labels.
        """
        if is_cifti(path):
            return cifti_regions(path, labels, self.points)
        if path.name.endswith((".gii", ".gii.gz", ".annot")):
            return self._cortical_regions(path, labels)
        columns = np.flatnonzero(~self.points.surface_mask)
        if not columns.size:
            raise DataError(f"{path}: an atlas of voxels, but the CIFTI file has vertices only; give a dlabel.nii")
        grid = codes_on_grid(path, self.points.affine, self.points.volume_shape)
        codes = np.zeros(self.size, dtype=np.float32)
        codes[columns] = grid[tuple(np.asarray(self.points.voxel)[columns].T)]
        return named_regions(codes, region_names(path, labels, codes))

    def _cortical_regions(self, path: Path, labels: Path | None) -> dict[str, np.ndarray]:
        counts = [self.points.nvertices.get(name) for name in CORTICES]
        if None in counts:
            raise DataError(f"{path}: an atlas of two hemispheres, which the CIFTI file lacks; give a dlabel.nii")
        found: dict[str, np.ndarray] = {}
        for name, regions in zip(CORTICES, surface_regions(path, labels, [n or 0 for n in counts]), strict=True):
            columns = np.flatnonzero(self.points.name == name)
            for region, where in regions.items():
                inside = found.setdefault(region, np.zeros(self.size, dtype=bool))
                inside[columns] = where[np.asarray(self.points.vertex)[columns]]
        return found

    def neighbors(self, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Points near each point: along the mesh in each hemisphere, by straight distance among voxels.

        Voxels of different structures are neighbours, vertices and voxels never.

        Parameters
        ----------
        radius : float, optional
            Millimetres.
        count : int, optional
            Number of nearest points including the centre.

        Returns
        -------
        csr_array of bool, shape (size, size)
            A row is a centre.

        Raises
        ------
        DataError
            If a mesh is not known.
        """
        check_extent(radius, count)
        rows, columns = [], []
        for where, mesh, inside in self._sheets():
            near = mesh.neighbors(inside, radius=radius, count=count).tocoo()
            rows.append(where[near.row])
            columns.append(where[near.col])
        below = np.flatnonzero(~self.points.surface_mask)
        if below.size:
            where, volume = self._volume(below)
            near = volume.neighbors(radius=radius, count=count).tocoo()
            rows.append(where[near.row])
            columns.append(where[near.col])
        i, j = np.concatenate(rows), np.concatenate(columns)
        return coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(self.size, self.size)).tocsr()

    def edges(self) -> np.ndarray:
        """Pairs of vertices that an edge of a mesh joins, and of voxels that share a face, shape (m, 2).

        Raises
        ------
        DataError
            If a mesh is not known.
        """
        pairs = [where[mesh.pairs(inside)] for where, mesh, inside in self._sheets()]
        below = np.flatnonzero(~self.points.surface_mask)
        if below.size:
            where, volume = self._volume(below)
            pairs.append(where[volume.edges()])
        return np.concatenate(pairs)

    def smooth(self, values: np.ndarray, fwhm: float) -> np.ndarray:
        """Smooth maps along the cortex by the heat equation, and inside each structure below it by a Gaussian.

        Parameters
        ----------
        values : ndarray, shape (k, size)
        fwhm : float
            Full width at half maximum in millimetres.

        Returns
        -------
        ndarray of float32, shape (k, size)

        Raises
        ------
        DataError
            If a mesh is not known.
        """
        check_fwhm(fwhm)
        values = np.asarray(values, dtype=np.float32)
        smoothed = np.empty_like(values)
        for where, mesh, inside in self._sheets():
            smoothed[:, where] = mesh.smooth(values[:, where], inside, fwhm)
        for name in dict.fromkeys(self.points.name[~self.points.surface_mask]):
            where, volume = self._volume(np.flatnonzero(self.points.name == name))
            smoothed[:, where] = volume.smooth(values[:, where], fwhm)
        return smoothed

    def _sheets(self) -> Iterator[tuple[np.ndarray, Mesh, np.ndarray]]:
        """Of each surface: its columns in the order of the vertices, its mesh, and which vertices are columns."""
        for name, n_vertices in self.points.nvertices.items():
            if self.meshes is None or name not in CORTICES:
                structure = name.removeprefix("CIFTI_STRUCTURE_")
                raise DataError(f"the mesh of {structure} ({n_vertices} vertices) is not known; {REMEDY}")
            columns = np.flatnonzero(self.points.name == name)
            vertices = np.asarray(self.points.vertex)[columns]
            inside = np.zeros(n_vertices, dtype=bool)
            inside[vertices] = True
            yield columns[np.argsort(vertices)], self.meshes[CORTICES.index(name)], inside

    def _volume(self, columns: np.ndarray) -> tuple[np.ndarray, Volume]:
        """Columns that are voxels in the order of a volume's columns, and that volume."""
        voxels = np.asarray(self.points.voxel)[columns]
        mask = np.zeros(self.points.volume_shape, dtype=bool)
        mask[tuple(voxels.T)] = True
        order = np.argsort(np.ravel_multi_index(tuple(voxels.T), mask.shape))
        return columns[order], Volume(mask, np.asarray(self.points.affine))


def common_points(found: Sequence[tuple[Path, BrainModelAxis]]) -> BrainModelAxis:
    """Points that all files have, in the order of the first.

    Parameters
    ----------
    found : sequence of tuple of Path and BrainModelAxis
        The files and their points.

    Returns
    -------
    BrainModelAxis

    Raises
    ------
    DataError
        If they are drawn on different meshes or grids, or have no point in common.
    """
    (first, points), *others = found
    for path, other in others:
        if other != points:
            points = points[columns_in(other, points, path) >= 0]
        if not len(points):
            raise DataError(f"{path}: has no vertex or voxel in common with {first}; leave it out")
    return points
