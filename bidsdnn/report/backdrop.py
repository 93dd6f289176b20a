"""Maps as tables, and how a row of one is laid out for drawing: voxels as a volume, vertices on a mesh, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bidsdnn.report.blocks import Block, attempt
from bidsdnn.report.brains import Scan, oriented, read_scans
from bidsdnn.report.entries import Entry, first, pick
from bidsdnn.report.sheets import Sheet, sulci
from bidsdnn.spaces import (
    Cifti,
    Mesh,
    Parcels,
    Surface,
    Volume,
    fsaverage5,
    hemispheres,
    kind_of,
    load_image,
    read_mesh,
)
from bidsdnn.spaces.cifti import CORTICES, open_cifti, read_cifti
from bidsdnn.spaces.gifti import read_maps
from bidsdnn.spaces.images import image_data
from bidsdnn.spaces.mesh import REMEDY
from bidsdnn.spaces.shared import FSAVERAGE5

NOUNS = {
    Volume: ("voxel", "voxels"),
    Surface: ("vertex", "vertices"),
    Cifti: ("grayordinate", "grayordinates"),
    Parcels: ("region", "regions"),
}


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What maps are drawn on; meshes are read once.

    Parameters
    ----------
    scan : Scan or None
        The anatomy under voxels; without one, the outline of the map.
    folded, inflated : tuple of Path
        Meshes of the left and the right hemisphere; empty where there are none.
    """

    scan: Scan | None = None
    folded: tuple[Path, ...] = ()
    inflated: tuple[Path, ...] = ()

    def canvas(self, counts: tuple[int, int]) -> Sheet | None:
        """Empty sheet of the meshes that have these numbers of vertices, fsaverage5 where none are named.

        Parameters
        ----------
        counts : tuple of int
            Vertices of the left and the right hemisphere.

        Returns
        -------
        Sheet or None
        """
        fitting = [pair for pair in self._named if tuple(mesh.size for mesh in pair) == counts]
        if fitting and counts not in self._canvases:
            self._canvases[counts] = _canvas(fitting[0], fitting[-1])
        if counts == (FSAVERAGE5, FSAVERAGE5) and counts not in self._canvases:
            self._canvases[counts] = _canvas(inflated_fsaverage5(), fsaverage5())
        return self._canvases.get(counts)

    @cached_property
    def _named(self) -> list[tuple[Mesh, ...]]:
        return [tuple(map(read_mesh, pair)) for pair in (self.inflated, self.folded) if pair]

    @cached_property
    def _canvases(self) -> dict[tuple[int, int], Sheet]:
        return {}


def background(entries: list[Entry], problems: list[str]) -> Backdrop:
    """Find what the maps of one context are drawn on.

    Under voxels lies the anatomy that a sidecar names, else the mean image, else nothing; vertices lie on the meshes
    that a sidecar names.

    Parameters
    ----------
    entries : list of Entry
    problems : list of str
        Gets a warning for each image that cannot be read.

    Returns
    -------
    Backdrop
    """
    folded, inflated = (tuple(map(Path, first(entries, key) or ())) for key in ("Mesh", "InflatedMesh"))
    anatomy = first(entries, "Anatomy")
    paths = [Path(anatomy)] if anatomy else []
    means = [entry.path for entry in pick(entries, "statmap", "quality", "mean")]
    for path in paths + [path for path in means if kind_of(path) is Volume]:
        scans: list[Scan] = []

        def read(path: Path = path, scans: list[Scan] = scans) -> list[Block]:
            scans += read_scans(path)
            return []

        attempt(read, f"background {path.name}", problems)
        if scans:
            return Backdrop(scans[0], folded, inflated)
    return Backdrop(None, folded, inflated)


@dataclass(frozen=True, eq=False)
class Picture:
    """A map, as a table whose rows can be laid out for drawing.

    Parameters
    ----------
    values : ndarray, shape (k, columns)
        NaN where there is no value.
    kind : type
        `Volume`, `Surface`, `Cifti` or `Parcels`.
    parts : tuple of callable
        Each lays a row out as a `Scan` or a `Sheet`.
    missing : str
        Why something cannot be drawn, if it cannot.
    """

    values: np.ndarray
    kind: type
    parts: tuple[Callable[[np.ndarray], Scan | Sheet], ...]
    missing: str = ""

    @property
    def noun(self) -> tuple[str, str]:
        """What a column is, and several are."""
        return NOUNS[self.kind]

    def laid_out(self, row: np.ndarray) -> list[Scan | Sheet]:
        """A row for drawing, the cortex first."""
        return [part(row) for part in self.parts]


def read_picture(path: Path, base: Backdrop) -> Picture:
    """Read a map of any space.

    Parameters
    ----------
    path : Path
        Of a surface the left hemisphere's file.
    base : Backdrop

    Returns
    -------
    Picture

    Raises
    ------
    MissingInputError, DataError
        If the map or a mesh is not there or cannot be read.
    """
    kind = kind_of(path)
    if kind is Surface:
        maps = [read_maps(one) for one in hemispheres(path)]
        sheet = base.canvas((maps[0].shape[1], maps[1].shape[1]))
        parts = (lambda row: _sheet(row, sheet),) if sheet else ()
        return Picture(np.hstack(maps), kind, parts, "" if sheet else _unknown(path))
    if kind is Cifti:
        return _grayordinates(path, base)
    if kind is Parcels:
        values = Parcels.from_files([path]).read(path)
        return Picture(values, kind, (), f"There is no picture of {path.name}, which holds one value a region.")
    image = load_image(path)
    data = image_data(image, path)
    shape = data.shape[:3]
    values = np.moveaxis(data.reshape(*shape, -1), 3, 0).reshape(-1, int(np.prod(shape)))
    return Picture(values, kind, (lambda row: oriented(row.reshape(shape), image.affine),))


def _grayordinates(path: Path, base: Backdrop) -> Picture:
    """Cortex on its mesh, where one is known, and the voxels below it as slices."""
    points = open_cifti(path)[2]
    counts = tuple(int(points.nvertices.get(name, 0)) for name in CORTICES)
    start = np.where(points.name == CORTICES[1], counts[0], 0)
    vertices = np.flatnonzero(np.isin(points.name, CORTICES))
    place = start[vertices] + np.asarray(points.vertex)[vertices]
    voxels = np.flatnonzero(~points.surface_mask)
    sheet = base.canvas((counts[0], counts[1])) if vertices.size else None

    def on_sheet(row: np.ndarray) -> Sheet:
        assert sheet is not None
        whole = np.full(sum(counts), np.nan)
        whole[place] = row[vertices]
        return _sheet(whole, sheet)

    def in_volume(row: np.ndarray) -> Scan:
        whole = np.full(points.volume_shape, np.nan)
        whole[tuple(np.asarray(points.voxel)[voxels].T)] = row[voxels]
        return oriented(whole, points.affine)

    parts: tuple[Callable[[np.ndarray], Scan | Sheet], ...] = (on_sheet,) if sheet else ()
    parts += (in_volume,) if voxels.size else ()
    missing = _unknown(path) if vertices.size and not sheet else ""
    return Picture(read_cifti(path, points), Cifti, parts, missing)


def _unknown(path: Path) -> str:
    return f"There is no picture of the cortex in {path.name}, because its mesh is not known: {REMEDY}."


def _canvas(drawn: tuple[Mesh, ...], folded: tuple[Mesh, ...]) -> Sheet:
    folds = np.concatenate([sulci(mesh) for mesh in folded])
    return Sheet(np.full(len(folds), np.nan), (drawn[0], drawn[1]), folds)


def inflated_fsaverage5() -> tuple[Mesh, ...]:
    """Read the two inflated meshes of fsaverage5 that come with nilearn."""
    from nilearn.datasets import fetch_surf_fsaverage

    files = fetch_surf_fsaverage("fsaverage5")
    return tuple(read_mesh(Path(files[f"infl_{side}"])) for side in ("left", "right"))


def _sheet(row: np.ndarray, canvas: Sheet) -> Sheet:
    return Sheet(row, canvas.drawn, canvas.folds)
