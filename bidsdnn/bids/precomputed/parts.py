"""Files of responses, and the space that all of a participant's files share.

The one idea: an image knows its grid, an array does not; an array borrows it from an image of the same shape beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bidsdnn.bids.dnnbrain import ROI, read_roi
from bidsdnn.bids.meshes import Meshes
from bidsdnn.bids.names import require
from bidsdnn.errors import DataError
from bidsdnn.spaces import (
    Parcels,
    Space,
    Volume,
    image_data,
    kind_of,
    load_image,
    one_line,
    recording_shape,
    shared_space,
)

NONE = Meshes()

ARRAYS = (".hdf5", ".h5", ".mat", ".npy")
IMAGES = (".nii.gz", ".nii", ".func.gii", ".shape.gii", ".mgh", ".mgz")

# Names of the betas, and whether trials come first with the axes reversed, as h5py sees what MATLAB wrote.
_DATASETS = {"betasmd": False, "modelmd": True, "betas": True}


@dataclass(frozen=True, eq=False)
class Part:
    """Responses in one file.

    Parameters
    ----------
    path : Path
        An image, or an array in HDF5 or npy; of a surface the left hemisphere's file.
    ids : tuple of str
        The stimulus of each row, as the file's makers named it.
    rows : ndarray of int, shape (n,)
        Which maps of the file those are.
    run, ses : tuple of str
        Of each row; empty text where unknown.
    labels : Path or None
        The table that the names stand in, where they are not in file names or headers.
    key : str
        Dataset of an HDF5 file that holds one a run, (rows, regions); of DNNBrain's its ending.
    """

    path: Path
    ids: tuple[str, ...]
    rows: np.ndarray
    run: tuple[str, ...]
    ses: tuple[str, ...]
    labels: Path | None = None
    key: str = ""


def count_maps(path: Path) -> int:
    """Number of responses in a file, without reading them where the format allows.

    Parameters
    ----------
    path : Path

    Returns
    -------
    int
        0 for what holds no responses.
    """
    if path.name.endswith(ARRAYS):
        shape = _array_shape(path)
        return shape[-1] if len(shape) in (2, 4) else 0
    if kind_of(path) is Volume:
        shape = load_image(path).shape
        return int(shape[3]) if len(shape) == 4 else 1
    return recording_shape(path)[-1]


def shared_space_of(parts: Sequence[Part], near: Sequence[Path], meshes: Meshes = NONE) -> tuple[Any, list[str]]:
    """Find the points that have a response in every row.

    Parameters
    ----------
    parts : sequence of Part
        Of one participant.
    near : sequence of Path
        The participant's other files, among them perhaps a mask.
    meshes : Meshes
        Of responses on a surface.

    Returns
    -------
    space : Space
    warnings : list of str

    Raises
    ------
    DataError
        If files differ in grid, or no point has a response in all of them.
    """
    first = parts[0].path
    if is_parcels(parts[0]):
        return _parcels_of(parts), []
    if first.name.endswith(ARRAYS):
        return _array_space(parts, near)
    kind = kind_of(first)
    for part in parts[1:]:
        if part.path.name.endswith(ARRAYS) or kind_of(part.path) is not kind:
            raise DataError(f"{part.path}: another kind of file than {first}; give one format with -d NAME=PATH")
    if kind is not Volume:
        masks = [meshes.cortex[0]] if meshes.cortex else []
        return shared_space([part.path for part in parts], masks, meshes=meshes.folded)
    image = load_image(first)
    space, warnings = _whole(image.shape[:3], np.asarray(image.affine), near)
    for part in parts:
        other = load_image(part.path)
        if other.shape[:3] != image.shape[:3] or space.grid_difference(other) > 0.1:
            raise DataError(
                f"{part.path}: its grid {tuple(other.shape[:3])} differs from that of {first}, "
                f"{tuple(image.shape[:3])}; give images of one space, as with --space"
            )
    return _within(space, parts), warnings


def read_part(part: Part, space: Space) -> np.ndarray:
    """Read the responses of one file.

    Parameters
    ----------
    part : Part
    space : Space
        Of `shared_space_of`.

    Returns
    -------
    ndarray of float32, shape (n, size)

    Raises
    ------
    DataError
        If the file is damaged, or on another grid.
    """
    if part.key == ROI:
        return np.asarray(read_roi(part.path)[1][part.rows], dtype=np.float32)
    if part.key:
        with _open_hdf5(part.path) as file:
            return np.asarray(file[part.key][()], dtype=np.float32)[part.rows]
    if not part.path.name.endswith(ARRAYS):
        return space.read(part.path)[part.rows]
    values = _read_array(part.path)
    shape = values.shape[1:] if isinstance(space, Volume) else ()
    if isinstance(space, Volume) and len(shape) == 3:
        if shape != space.mask.shape:
            raise DataError(f"{part.path}: grid {shape} differs from {space.mask.shape} of the files before it")
        values = values[:, space.mask]
    if values.shape[1] != space.size:
        raise DataError(f"{part.path}: {values.shape[1]} voxels, the files before it have {space.size}")
    return np.asarray(values[part.rows], dtype=np.float32)


def is_parcels(part: Part) -> bool:
    """Whether columns are regions and not points."""
    return bool(part.key) or (not part.path.name.endswith(ARRAYS) and kind_of(part.path) is Parcels)


def parcel_runs(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of an HDF5 file's tables, (rows, regions) each, by their names; none if it holds something else."""
    if path.name.endswith(ROI):
        return {ROI: read_roi(path)[1].shape}
    with _open_hdf5(path) as file:
        shapes = {name: tuple(one.shape) for name, one in file.items() if isinstance(one, h5py.Dataset)}
        tables = len(shapes) == len(file) and all(len(shape) == 2 for shape in shapes.values())
    alike = len({shape[-1] for shape in shapes.values() if shape}) == 1
    return shapes if tables and alike and not set(shapes) & set(_DATASETS) else {}


def _parcels_of(parts: Sequence[Part]) -> Parcels:
    """Regions of the first file; a file without names must have as many in every run."""
    if not parts[0].key:
        return Parcels.from_files([part.path for part in parts])
    if parts[0].key == ROI:
        return _regions_of(parts)
    sizes = {part.path: parcel_runs(part.path)[part.key][1] for part in parts}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{parts[0].path}: files have {sorted(set(sizes.values()))} regions; give files of one atlas")
    return Parcels(tuple(f"parcel{number}" for number in range(1, sizes[parts[0].path] + 1)))


def _regions_of(parts: Sequence[Part]) -> Parcels:
    """Regions that the files name themselves, the same in all."""
    first = read_roi(parts[0].path)[0]
    for part in parts:
        if part.key != ROI or read_roi(part.path)[0] != first:
            raise DataError(
                f"{part.path}: other regions than {parts[0].path}; give files of the same regions, in one order"
            )
    return Parcels(tuple(first))


def _whole(shape: tuple[int, ...], affine: np.ndarray, near: Sequence[Path]) -> tuple[Volume, list[str]]:
    """The brain mask of this grid among some files; else the whole grid."""
    whole = Volume(np.ones(shape[:3], dtype=bool), affine)
    for path in near:
        if not path.name.endswith(("mask.nii.gz", "mask.nii")):
            continue
        image = load_image(path)
        if image.shape[:3] == tuple(shape[:3]) and whole.grid_difference(image) < 0.1:
            return Volume(image_data(image, path).reshape(shape[:3]) > 0, affine), []
    return whole, [
        "no brain mask on the grid of the responses was found; points with a response in every row were taken"
    ]


def _within(space: Volume, parts: Sequence[Part]) -> Volume:
    """Without the voxels that are NaN in some row, or zero in all rows of a file."""
    inside = reduce(np.logical_and, (_responding(read_part(part, space)) for part in parts))
    if not inside.any():
        raise DataError(
            f"{parts[0].path}: no voxel has a response in all of {len(parts)} files; "
            "check that they are of one participant and space"
        )
    mask = np.zeros_like(space.mask)
    mask[space.mask] = inside
    return Volume(mask, space.affine)


def _responding(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(values).all(axis=0) & (values != 0).any(axis=0))


def _array_space(parts: Sequence[Part], near: Sequence[Path]) -> tuple[Volume, list[str]]:
    path = parts[0].path
    shape = _array_shape(path)[:-1]
    images = [one for one in near if one.name.endswith((".nii", ".nii.gz"))]
    # A mask first: it says which voxels, and another image only where they are.
    for image_path in sorted(images, key=lambda one: "mask" not in one.name):
        image = load_image(image_path)
        grid, affine = tuple(image.shape[:3]), np.asarray(image.affine)
        if len(shape) == 3 and grid == shape:
            space, warnings = _whole(grid, affine, near)
            return _within(space, parts), warnings
        if len(shape) == 1 and "mask" in image_path.name:
            mask = image_data(image, image_path).reshape(grid) > 0
            if np.count_nonzero(mask) == shape[0]:
                return _within(Volume(mask, affine), parts), []
    if len(shape) == 1:
        raise DataError(
            f"{path}: {shape[0]} voxels without a grid; put the mask they were taken from, "
            "NAME_mask.nii.gz with as many voxels, into its folder"
        )
    warning = (
        f"{path.name} has no affine, and no image of shape {shape} lies beside it: voxels were taken as 1 mm, "
        "so atlases cannot be laid over it; put its mask into its folder"
    )
    return _within(Volume(np.ones(shape, dtype=bool), np.eye(4)), parts), [warning]


def _array_shape(path: Path) -> tuple[int, ...]:
    """Shape of an array of betas, trials last; a GLMsingle result of unravelled voxels has two axes."""
    if path.suffix == ".npy":
        shape: tuple[int, ...] = _load_npy(path).shape
    else:
        with _open_hdf5(path) as file:
            name = _dataset(file, path)
            shape = tuple(file[name].shape)
            shape = shape[::-1] if _DATASETS[name] else shape
    return (shape[0], shape[-1]) if len(shape) == 4 and shape[1:3] == (1, 1) else shape


def _read_array(path: Path) -> np.ndarray:
    """Betas with trials first and the grid after, (n, x, y, z) or (n, voxels)."""
    if path.suffix == ".npy":
        values = np.moveaxis(np.asarray(_load_npy(path)), -1, 0)
    else:
        with _open_hdf5(path) as file:
            name = _dataset(file, path)
            stored = file[name][()]
        values = stored.transpose(0, *range(stored.ndim - 1, 0, -1)) if _DATASETS[name] else np.moveaxis(stored, -1, 0)
    return values[:, :, 0, 0] if values.ndim == 4 and values.shape[2:] == (1, 1) else values


def _open_hdf5(path: Path) -> h5py.File:
    require(path)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        hint = "; MATLAB files must be saved with -v7.3" if path.suffix == ".mat" else "; copy it again"
        raise DataError(f"{path}: not a readable HDF5 file ({one_line(error)}){hint}") from error


def _dataset(file: h5py.File, path: Path) -> str:
    name = next((one for one in _DATASETS if one in file), None)
    if name is None:
        raise DataError(
            f"{path}: holds {', '.join(file) or 'nothing'}; responses are expected in {' or '.join(_DATASETS)}"
        )
    return name


def _load_npy(path: Path) -> np.ndarray:
    require(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error) or "object" in str(error).lower():
            raise DataError(
                f"{path}: holds pickled Python objects, which may run any code when they are read, so it is refused; "
                "run GLMsingle with wanthdf5=1, or save its `betasmd` with numpy.save"
            ) from error
        raise DataError(f"{path}: not a readable npy file ({one_line(error)}); save it again") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable npy file ({one_line(error)}); save it again") from error
    return values
