"""Surfaces: a column is a vertex of the left or the right hemisphere that is no medial wall."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.sparse import block_diag, csr_array

from bidsdnn.errors import DataError
from bidsdnn.spaces.atlases import surface_regions
from bidsdnn.spaces.gifti import STRUCTURES, both, hemispheres, read_label_table, read_maps, write_labels, write_maps
from bidsdnn.spaces.images import check_common, write_mgh
from bidsdnn.spaces.mesh import REMEDY, Mesh, check_extent, check_fwhm

MGH = (".mgh", ".mgz")


@dataclass(frozen=True, eq=False)
class Surface:
    """The vertices of both hemispheres inside a mask, left before right.

    Parameters
    ----------
    inside : tuple of two ndarray of bool, shape (vertices,)
        Left and right; what is not inside, the medial wall, is no column.
    meshes : tuple of two Mesh, optional
        Left and right; needed for neighbours and smoothing only.
    nested : bool
        Whether the meshes are of FreeSurfer's fsaverage, whose coarser meshes are the first vertices of its finer
        ones: atlases of a higher density can then be used.
    """

    inside: tuple[np.ndarray, np.ndarray]
    meshes: tuple[Mesh, Mesh] | None = None
    nested: bool = False
    extension: ClassVar[str] = ".func.gii"
    label_extension: ClassVar[str] = ".label.gii"

    @property
    def entities(self) -> dict[str, str]:
        """Entities that the name of a map's left file needs."""
        return {"hemi": "L"}

    @cached_property
    def identity(self) -> str:
        """Hash of the vertices inside and of the meshes."""
        text = hashlib.sha256()
        for inside in self.inside:
            text.update(f"{inside.size} ".encode() + np.packbits(inside).tobytes())
        for mesh in self.meshes or ():
            text.update(mesh.identity.encode())
        return text.hexdigest()

    @property
    def size(self) -> int:
        """Number of columns."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        left, right = (int(np.count_nonzero(inside)) for inside in self.inside)
        return left, right

    @classmethod
    def from_data(cls, path: Path, meshes: tuple[Mesh, Mesh] | None = None) -> Surface:
        """Find the medial wall of a recording: vertices that are NaN or zero throughout.

        Parameters
        ----------
        path : Path
            The left hemisphere's file.
        meshes : tuple of two Mesh, optional

        Returns
        -------
        Surface

        Raises
        ------
        DataError
            If a hemisphere is missing, or nothing is left of it.
        """
        inside = []
        for one in both(path):
            values = read_maps(one)
            inside.append(~((values == 0) | np.isnan(values)).all(axis=0))
            if not inside[-1].any():
                raise DataError(f"{one}: every vertex is zero or NaN throughout; replace the file or leave out the run")
        return cls((inside[0], inside[1]), meshes, nested="fsaverage" in path.name)

    @classmethod
    def from_masks(cls, paths: Sequence[Path], meshes: tuple[Mesh, Mesh] | None = None) -> Surface:
        """Intersect masks of the cortex.

        Parameters
        ----------
        paths : sequence of Path
            Left hemispheres' files (``hemi-L_desc-cortex_mask.label.gii``); whatever is not 0 is inside.
        meshes : tuple of two Mesh, optional

        Returns
        -------
        Surface
            The vertices that lie in every mask.

        Raises
        ------
        DataError
            If numbers of vertices differ, or no vertex is in all masks.
        """
        inside: list[np.ndarray] = []
        for side in (0, 1):
            files = [both(path)[side] for path in paths]
            whole = read_label_table(files[0])[0] != 0
            for file in files[1:]:
                mask = read_label_table(file)[0] != 0
                if mask.size != whole.size:
                    raise DataError(
                        f"{file}: {mask.size} vertices, {files[0]} has {whole.size}; give masks of one density"
                    )
                whole &= mask
                check_common(whole, file, files[0], what="vertex")
            check_common(whole, files[0], files[0], what="vertex")
            inside.append(whole)
        return cls((inside[0], inside[1]), meshes, nested="fsaverage" in paths[0].name)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files that one map consists of: the left hemisphere's and the right one's."""
        return hemispheres(path)

    def read(self, path: Path) -> np.ndarray:
        """Read the maps or time points of both hemispheres at the vertices inside.

        Parameters
        ----------
        path : Path
            The left hemisphere's file: GIFTI or MGH.

        Returns
        -------
        ndarray of float32, shape (k, size)

        Raises
        ------
        DataError
            If a hemisphere is missing, has another number of vertices or maps, or is damaged.
        """
        table: np.ndarray | None = None
        start = 0
        for file, inside, size in zip(both(path), self.inside, self._sizes, strict=True):
            values = read_maps(file)
            if values.shape[1] != inside.size:
                raise DataError(
                    f"{file}: {values.shape[1]} vertices, the space has {inside.size}; "
                    "ask for one density with --space SPACE:den-X"
                )
            if table is None:
                table = np.empty((len(values), self.size), dtype=np.float32)
            if len(values) != len(table):
                raise DataError(f"{file}: {len(values)} maps, the left hemisphere has {len(table)}; replace the pair")
            table[:, start : start + size] = values[:, inside]
            start += size
        assert table is not None
        return table

    def write(
        self, path: Path, values: np.ndarray, *, names: Sequence[str] | None = None, tr: float | None = None
    ) -> None:
        """Write a table of items x columns as two files, NaN in the medial wall.

        Parameters
        ----------
        path : Path
            The left hemisphere's file, ending in ``.func.gii`` (or ``.mgh``, ``.mgz``).
        values : ndarray, shape (k, size) or (size,)
        names : sequence of str, optional
            One a map.
        tr : float, optional
            Seconds between maps; makes them a time series (``NIFTI_INTENT_TIME_SERIES``), without it they are
            estimates (``NIFTI_INTENT_ESTIMATE``).
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float32))
        parts = np.split(values, [self._sizes[0]], axis=1)
        for file, structure, inside, part in zip(hemispheres(path), STRUCTURES, self.inside, parts, strict=True):
            whole = np.full((len(values), inside.size), np.nan, dtype=np.float32)
            whole[:, inside] = part
            if file.name.endswith(MGH):
                write_mgh(file, whole, tr=tr)
            else:
                write_maps(file, whole, structure, names=names, tr=tr)

    def write_codes(self, path: Path, codes: np.ndarray, names: Mapping[int, str] | None = None) -> None:
        """Write whole numbers as two label files, 0 in the medial wall.

        Parameters
        ----------
        path : Path
            The left hemisphere's file, ending in ``.label.gii``.
        codes : ndarray of int, shape (size,)
        names : mapping of int to str, optional
            The label table; by default the numbers themselves.
        """
        codes = np.asarray(codes)
        names = names or {int(code): str(code) for code in np.unique(codes) if code != 0}
        parts = np.split(codes, [self._sizes[0]])
        for file, structure, inside, part in zip(hemispheres(path), STRUCTURES, self.inside, parts, strict=True):
            whole = np.zeros(inside.size, dtype=np.int32)
            whole[inside] = part
            write_labels(file, whole, structure, names)

    def write_mask(self, path: Path) -> None:
        """Write the vertices inside as two label files of zeros and ones."""
        self.write_codes(path, np.ones(self.size, dtype=np.int32), {1: "cortex"})

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas.

        Parameters
        ----------
        path : Path
            The left hemisphere's ``.label.gii``, FreeSurfer ``.annot`` or mask; or a CIFTI ``.dlabel.nii`` of this
            number of vertices. A name that both hemispheres have is one region.
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
        sides = surface_regions(path, labels, [inside.size for inside in self.inside], nested=self.nested)
        start = 0
        found: dict[str, np.ndarray] = {}
        for regions, inside, size in zip(sides, self.inside, self._sizes, strict=True):
            for name, where in regions.items():
                found.setdefault(name, np.zeros(self.size, dtype=bool))[start : start + size] = where[inside]
            start += size
        return found

    def neighbors(self, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Vertices near each vertex, by the shortest way along edges inside the mask, never in the other hemisphere.

        Parameters
        ----------
        radius : float, optional
            Millimetres.
        count : int, optional
            Number of nearest vertices including the centre.

        Returns
        -------
        csr_array of bool, shape (size, size)
            A row is a centre.

        Raises
        ------
        DataError
            If the meshes are not known.
        """
        check_extent(radius, count)
        pairs = zip(self._meshes(), self.inside, strict=True)
        parts = [mesh.neighbors(inside, radius=radius, count=count) for mesh, inside in pairs]
        return csr_array(block_diag(parts, format="csr"), dtype=bool)

    def edges(self) -> np.ndarray:
        """Pairs of vertices inside the mask that an edge of the meshes joins, shape (m, 2).

        Raises
        ------
        DataError
            If the meshes are not known.
        """
        starts = (0, self._sizes[0])
        triples = zip(self._meshes(), self.inside, starts, strict=True)
        return np.concatenate([mesh.pairs(inside) + start for mesh, inside, start in triples])

    def smooth(self, values: np.ndarray, fwhm: float) -> np.ndarray:
        """Smooth maps along the surface by the heat equation; NaN vertices and the medial wall have no part in it.

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
            If the meshes are not known.
        """
        check_fwhm(fwhm)
        parts = np.split(np.asarray(values, dtype=np.float32), [self._sizes[0]], axis=1)
        pairs = zip(self._meshes(), self.inside, parts, strict=True)
        return np.hstack([mesh.smooth(part, inside, fwhm) for mesh, inside, part in pairs])

    def _meshes(self) -> tuple[Mesh, Mesh]:
        if self.meshes is None:
            counts = " and ".join(str(inside.size) for inside in self.inside)
            raise DataError(f"the meshes of the surfaces of {counts} vertices are not known; {REMEDY}")
        return self.meshes
