"""The space that all runs of a participant share: the kind of file of the first run says which it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.errors import DataError
from bidsdnn.spaces.atlases import AFFINE_TOLERANCE
from bidsdnn.spaces.cifti import CORTICES, is_cifti, open_cifti, open_parcels, series_step
from bidsdnn.spaces.gifti import both, heading
from bidsdnn.spaces.grayordinates import Cifti, common_points
from bidsdnn.spaces.images import load_image
from bidsdnn.spaces.mesh import Mesh, fsaverage5, read_meshes
from bidsdnn.spaces.parcels import PARCELLATED, Parcels
from bidsdnn.spaces.protocol import Space
from bidsdnn.spaces.surface import Surface
from bidsdnn.spaces.volume import Volume

# Vertices of a hemisphere of fsaverage5, the one mesh that is always at hand.
FSAVERAGE5 = 10242
# The NIfTI format's codes of units of time.
_MILLISECONDS, _MICROSECONDS = 16, 24
_UNITS = {_MILLISECONDS: 1e-3, _MICROSECONDS: 1e-6}


def kind_of(path: Path) -> type[Volume] | type[Surface] | type[Cifti] | type[Parcels]:
    """Which kind of space a file's columns lie in, by its name, or for MGH by its shape.

    Parameters
    ----------
    path : Path

    Returns
    -------
    type
        `Volume`, `Surface`, `Cifti` or `Parcels`.
    """
    if path.name.endswith((".gii", ".gii.gz")):
        return Surface
    if is_cifti(path):
        return Cifti
    if path.name.endswith(PARCELLATED):
        return Parcels
    if path.name.endswith((".mgh", ".mgz")) and tuple(load_image(path).shape[1:3]) == (1, 1):
        return Surface
    return Volume


def recording_shape(path: Path) -> tuple[int, ...]:
    """Shape of a recording's table without reading it: (x, y, z, n) of a volume, else (points, n).

    Parameters
    ----------
    path : Path
        Of a surface the left hemisphere's file, whose right one counts as well.

    Returns
    -------
    tuple of int
    """
    kind = kind_of(path)
    if kind is Surface:
        headings = [heading(one) for one in both(path)]
        return sum(one.n_vertices for one in headings), headings[0].n_maps
    if kind is Cifti:
        _, maps, points = open_cifti(path)
        return len(points), len(maps)
    if kind is Parcels:
        return _parcels_shape(path)
    return tuple(int(n) for n in load_image(path).shape)


def _parcels_shape(path: Path) -> tuple[int, int]:
    size = Parcels.from_files([path]).size
    if not path.name.endswith(".tsv"):
        return size, len(open_parcels(path)[1])
    with path.open("rb") as file:
        return size, sum(1 for line in file if line.strip()) - 1


def header_tr(path: Path) -> float:
    """Repetition time that a recording's own header states, in seconds; 0 where it states none.

    Parameters
    ----------
    path : Path

    Returns
    -------
    float
    """
    kind = kind_of(path)
    if kind is Surface:
        return heading(path).tr
    if kind is Cifti:
        return series_step(open_cifti(path)[1])
    if kind is Parcels:
        return 0.0 if path.name.endswith(".tsv") else series_step(open_parcels(path)[1])
    header = load_image(path).header
    zooms = header.get_zooms()
    if len(zooms) < 4:
        return 0.0
    # An MGH header has no units: its time is in milliseconds.
    units = int(header["xyzt_units"]) & 0x38 if "xyzt_units" in header else _MILLISECONDS
    return float(zooms[3]) * _UNITS.get(units, 1.0)


def intersection(masks: Sequence[Path]) -> Space:
    """Space of the points that lie in every mask.

    Parameters
    ----------
    masks : sequence of Path
        Of one kind; of surfaces the left hemispheres' files. A mask of parcels is the parcels that it names.

    Returns
    -------
    Space

    Raises
    ------
    DataError
        If they differ in shape, or have no point in common.
    """
    return kind_of(masks[0]).from_masks(list(masks))


def shared_space(
    bolds: Sequence[Path], masks: Sequence[Path], *, meshes: tuple[Path, Path] | None = None
) -> tuple[Any, list[str]]:
    """Points that lie in the masks of all runs.

    Parameters
    ----------
    bolds : sequence of Path
        The runs of one participant, in one space; of surfaces the left hemispheres' files.
    masks : sequence of Path
        Their masks. Without any, the brain of a volume is found by the first run's intensity, and the medial wall of
        a surface is where the first run is zero or NaN throughout; a CIFTI file needs none, and parcels have none.
    meshes : tuple of two Path, optional
        The left and the right hemisphere's mesh. Surfaces named fsaverage of 10,242 vertices have theirs without.

    Returns
    -------
    space : Space
        On the grid or mesh of the functional images.
    warnings : list of str

    Raises
    ------
    DataError
        If kinds, grids or numbers of vertices differ, or no point is in all masks.
    """
    kind = kind_of(bolds[0])
    for bold in bolds[1:]:
        if kind_of(bold) is not kind:
            raise DataError(f"{bold}: another kind of file than {bolds[0]}; ask for one space with --space")
    masks = list(dict.fromkeys(masks))
    if kind is Surface:
        return _shared_surface(bolds, masks, meshes)
    if kind is Cifti:
        return _shared_cifti(bolds, masks, meshes)
    if kind is Parcels:
        return Parcels.from_files(bolds), []
    return _shared_volume(bolds, masks)


def _shared_volume(bolds: Sequence[Path], masks: Sequence[Path]) -> tuple[Volume, list[str]]:
    warnings: list[str] = []
    image = load_image(bolds[0])
    if masks:
        space = Volume.from_masks(list(masks))
    else:
        space = Volume.from_bold(bolds[0])
        warnings.append("no brain mask was found; the brain was found in the first run by its intensity")
    _check_near(space, image, masks, warnings)
    space = Volume(space.mask, np.asarray(image.affine))
    for bold in bolds[1:]:
        other = load_image(bold)
        if other.shape[:3] != space.mask.shape or space.grid_difference(other) > 0.5 * _voxel_size(image):
            raise DataError(
                f"{bold}: its grid differs from that of {bolds[0]}; ask for one resolution with --space SPACE:res-X"
            )
    return space, warnings


def _check_near(space: Volume, image: Any, masks: Sequence[Path], warnings: list[str]) -> None:
    """Warn of a mask off the image's grid, and refuse one that lies half a voxel off or more."""
    if image.shape[:3] != space.mask.shape:
        raise DataError(
            f"{masks[0]}: shape {space.mask.shape} differs from the bold's {image.shape[:3]}; give its own mask"
        )
    difference = space.grid_difference(image)
    if difference > 0.5 * _voxel_size(image):
        raise DataError(
            f"{masks[0]}: lies up to {difference:.1f} mm off the bold's grid; resample the mask to the bold"
        )
    if difference > AFFINE_TOLERANCE or not np.array_equal(space.affine, image.affine):
        warnings.append(f"{masks[0].name} lies {difference:.2g} mm off the bold's grid; the bold's grid was used")


def _voxel_size(image: Any) -> float:
    return float(min(np.linalg.norm(image.affine[:3, :3], axis=0)))


def _shared_surface(
    bolds: Sequence[Path], masks: Sequence[Path], meshes: tuple[Path, Path] | None
) -> tuple[Surface, list[str]]:
    warnings: list[str] = []
    counts = [tuple(heading(one).n_vertices for one in both(bold)) for bold in bolds]
    for bold, count in zip(bolds, counts, strict=True):
        if count != counts[0]:
            raise DataError(
                f"{bold}: {count[0]} and {count[1]} vertices, {bolds[0]} has {counts[0][0]} and {counts[0][1]}; "
                "ask for one density with --space SPACE:den-X"
            )
    known = _meshes_of(bolds[0], counts[0], meshes)
    if masks:
        space = replace(Surface.from_masks(masks, known), nested="fsaverage" in bolds[0].name)
        found = tuple(inside.size for inside in space.inside)
        if found != counts[0]:
            raise DataError(
                f"{masks[0]}: {found[0]} and {found[1]} vertices, {bolds[0]} has {counts[0][0]} and {counts[0][1]}; "
                "give the mask on the mesh of the data"
            )
    else:
        space = Surface.from_data(bolds[0], known)
        warnings.append("no cortex mask was found; vertices that are zero or NaN throughout the first run are left out")
    return space, warnings


def _shared_cifti(
    bolds: Sequence[Path], masks: Sequence[Path], meshes: tuple[Path, Path] | None
) -> tuple[Cifti, list[str]]:
    warnings: list[str] = []
    space = Cifti.from_files(bolds)
    first = len(open_cifti(bolds[0])[2])
    if space.size < first:
        warnings.append(f"the runs have {space.size} of the first run's {first} vertices and voxels in common")
    if masks:
        inside = Cifti.from_masks(masks)
        space = Cifti(common_points([(bolds[0], space.points), (masks[0], inside.points)]))
    counts = tuple(space.points.nvertices.get(name, 0) for name in CORTICES)
    return Cifti(space.points, _meshes_of(bolds[0], counts, meshes)), warnings


def _meshes_of(bold: Path, counts: tuple[int, ...], meshes: tuple[Path, Path] | None) -> tuple[Mesh, Mesh] | None:
    """Meshes that were given, or fsaverage5 where the name and the number of vertices say so."""
    if meshes is None:
        return fsaverage5() if counts == (FSAVERAGE5, FSAVERAGE5) and "fsaverage" in bold.name else None
    known = read_meshes(meshes)
    for path, mesh, count in zip(meshes, known, counts, strict=True):
        if count and mesh.size != count:
            raise DataError(f"{path}: {mesh.size} vertices, {bold} has {count}; give the mesh of the data with --mesh")
    return known
