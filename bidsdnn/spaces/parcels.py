"""Parcels: a column is a whole region, of a parcellated CIFTI file or of a table of regions' time series."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.cifti2 import LabelAxis, ParcelsAxis, ScalarAxis, SeriesAxis
from scipy.sparse import csr_array

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces.atlases import named_regions
from bidsdnn.spaces.cifti import open_parcels, write_cifti
from bidsdnn.spaces.gifti import label_colour
from bidsdnn.spaces.images import image_data, one_line

PARCELLATED = (".ptseries.nii", ".pscalar.nii", ".plabel.nii", ".tsv")


@dataclass(frozen=True, eq=False)
class Parcels:
    """Regions by name.

    Parameters
    ----------
    names : tuple of str
    axis : ParcelsAxis, optional
        What the parcels of a CIFTI file consist of; without it files are tables, one column a region.
    """

    names: tuple[str, ...]
    axis: ParcelsAxis | None = None

    @property
    def extension(self) -> str:
        """Ending of a map's file."""
        return ".tsv" if self.axis is None else ".pscalar.nii"

    @property
    def label_extension(self) -> str:
        """Ending of a segmentation's or a mask's file."""
        return ".tsv" if self.axis is None else ".plabel.nii"

    @property
    def entities(self) -> dict[str, str]:
        """Entities that the name of a map's file needs: none."""
        return {}

    @cached_property
    def identity(self) -> str:
        """Hash of the regions' names."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.names)

    @classmethod
    def from_masks(cls, paths: Sequence[Path]) -> Parcels:
        """Intersect the regions that files name."""
        return cls.from_files(paths)

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> Parcels:
        """Find the regions that all files have.

        Parameters
        ----------
        paths : sequence of Path
            ``.ptseries.nii``, ``.pscalar.nii`` or ``.tsv``.

        Returns
        -------
        Parcels
            In the order of the first file.

        Raises
        ------
        DataError
            If a file names two regions alike, or they have none in common.
        """
        first, axis = _regions_of(paths[0])
        kept = list(first)
        for path in paths[1:]:
            others = set(_regions_of(path)[0])
            kept = [name for name in kept if name in others]
            if not kept:
                raise DataError(f"{path}: has no region in common with {paths[0]}; leave out a run")
        if axis is not None:
            axis = axis[np.array([first.index(name) for name in kept])]
        return cls(tuple(kept), axis)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files that one map consists of: itself."""
        return (path,)

    def read(self, path: Path) -> np.ndarray:
        """Read maps or time points; columns are found by the regions' names.

        Parameters
        ----------
        path : Path
            ``.ptseries.nii``, ``.pscalar.nii``, ``.plabel.nii`` or ``.tsv``.

        Returns
        -------
        ndarray of float32, shape (k, size)

        Raises
        ------
        DataError
            If a region is missing, or the file is damaged.
        """
        names, _ = _regions_of(path)
        missing = [name for name in self.names if name not in set(names)]
        if missing:
            raise DataError(f"{path}: lacks {len(missing)} of {self.size} regions, such as {missing[0]}; replace it")
        values = _table(path) if path.name.endswith(".tsv") else image_data(open_parcels(path)[0], path)
        place = {name: index for index, name in enumerate(names)}
        return np.ascontiguousarray(values[:, [place[name] for name in self.names]])

    def write(
        self, path: Path, values: np.ndarray, *, names: Sequence[str] | None = None, tr: float | None = None
    ) -> None:
        """Write a table of items x regions.

        Parameters
        ----------
        path : Path
            Ends in ``.pscalar.nii`` (with `tr` in ``.ptseries.nii``) or ``.tsv``.
        values : ndarray, shape (k, size) or (size,)
        names : sequence of str, optional
            One a map; a table does not keep them.
        tr : float, optional
            Seconds between maps, which makes them a series.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float32))
        if self.axis is None:
            # Nine digits tell every number of single precision from the next.
            pd.DataFrame(values, columns=list(self.names)).to_csv(
                path, sep="\t", index=False, na_rep="n/a", float_format="%.9g", lineterminator="\n"
            )
            return
        maps: ScalarAxis | SeriesAxis
        if tr is None:
            maps = ScalarAxis(list(names) if names is not None else [str(i + 1) for i in range(len(values))])
        else:
            maps = SeriesAxis(0.0, tr, len(values), "SECOND")
        write_cifti(path, values, maps, self.axis)

    def write_codes(self, path: Path, codes: np.ndarray, names: Mapping[int, str] | None = None) -> None:
        """Write whole numbers of regions, shape (size,), as labels of parcels or as a table."""
        codes = np.asarray(codes, dtype=np.int32)
        if self.axis is None:
            self.write(path, codes)
            return
        names = names or {int(code): str(code) for code in np.unique(codes) if code != 0}
        table = {int(code): (str(name), label_colour(int(code))) for code, name in {0: "???", **names}.items()}
        write_cifti(path, codes[None], LabelAxis(["labels"], [table]), self.axis)

    def write_mask(self, path: Path) -> None:
        """Write the regions as labels that are all 1."""
        self.write_codes(path, np.ones(self.size, dtype=np.int32), {1: "brain"})

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas.

        Parameters
        ----------
        path : Path
            ``.plabel.nii``, whose labels group the parcels; or a file of the same parcels (``.ptseries.nii``,
            ``.pscalar.nii``, ``.tsv``), each of which is then a region of its own.
        labels : Path, optional
            Not used: parcels have their names.

        Returns
        -------
        dict of str to ndarray of bool, shape (size,)

        Raises
        ------
        DataError
            If the file is no parcellated one.
        """
        if not path.name.endswith(PARCELLATED):
            raise DataError(f"{path}: an atlas of points, but the data are parcels; give a .plabel.nii or no atlas")
        if not path.name.endswith(".plabel.nii"):
            there = set(_regions_of(path)[0])
            identity = np.eye(self.size, dtype=bool)
            return {name: row for name, row in zip(self.names, identity, strict=True) if name in there}
        table = open_parcels(path)[1].label[0]
        return named_regions(self.read(path)[0], {int(code): str(name) for code, (name, _) in table.items()})

    def neighbors(self, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Refuse: parcels have no neighbours.

        Raises
        ------
        DataError
        """
        raise DataError(f"parcels such as {self.names[0]} have no neighbours; give voxels or vertices")

    def edges(self) -> np.ndarray:
        """Refuse: parcels have no neighbours.

        Raises
        ------
        DataError
        """
        raise DataError(f"parcels such as {self.names[0]} have no neighbours; leave out --tfce")

    def smooth(self, values: np.ndarray, fwhm: float) -> np.ndarray:
        """Refuse: parcels are averages already.

        Raises
        ------
        DataError
        """
        raise DataError(f"parcels such as {self.names[0]} cannot be smoothed; leave out --smoothing")


def _regions_of(path: Path) -> tuple[list[str], ParcelsAxis | None]:
    """Names of a file's regions, and the axis that describes them in a CIFTI file."""
    axis = None
    if path.name.endswith(".tsv"):
        names = _header(path)
    else:
        axis = open_parcels(path)[2]
        names = [str(name) for name in axis.name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two regions are called {twice}; name each region once")
    return names, axis


def _header(path: Path) -> list[str]:
    if not path.exists():
        remedy = "run `datalad get` on it" if path.is_symlink() else "check the path"
        raise MissingInputError(f"{path}: table not found; {remedy}")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().rstrip("\r\n").split("\t")


def _table(path: Path) -> np.ndarray:
    try:
        table = pd.read_csv(path, sep="\t", encoding="utf-8-sig", na_values=["n/a"], dtype=np.float32)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a table of numbers ({one_line(error)}); give one column a region") from error
    return table.to_numpy()
