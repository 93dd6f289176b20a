"""CIFTI-2 files: their maps, the points that their columns are, and how one file's columns are found in another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis, ParcelsAxis, ScalarAxis, SeriesAxis

from bidsdnn.errors import DataError
from bidsdnn.spaces.images import image_data, load_image, one_line

CORTICES = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
_INTENTS: dict[tuple[type, type], str] = {
    (SeriesAxis, BrainModelAxis): "NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES",
    (ScalarAxis, BrainModelAxis): "NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS",
    (LabelAxis, BrainModelAxis): "NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS",
    (SeriesAxis, ParcelsAxis): "NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SERIES",
    (ScalarAxis, ParcelsAxis): "NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SCALAR",
    # The format has no code of its own for a .plabel.nii.
    (LabelAxis, ParcelsAxis): "NIFTI_INTENT_CONNECTIVITY_UNKNOWN",
}
# Eight times a grid of 0.5 mm around a head.
_MOST_VOXELS = 2**30
DENSE = (".dtseries.nii", ".dscalar.nii", ".dlabel.nii")


def is_cifti(path: Path) -> bool:
    """Whether a file's name is that of a CIFTI file with a value for every point."""
    return path.name.endswith(DENSE)


def open_cifti(path: Path) -> tuple[Cifti2Image, Any, BrainModelAxis]:
    """Open a CIFTI-2 file of vertices and voxels, without reading its values.

    Parameters
    ----------
    path : Path
        ``.dtseries.nii``, ``.dscalar.nii`` or ``.dlabel.nii``.

    Returns
    -------
    image : Cifti2Image
    maps : nibabel axis
        What the rows are: a series, scalars or labels.
    points : BrainModelAxis
        What the columns are.

    Raises
    ------
    DataError
        If it is no CIFTI file, is damaged, or its columns are no brain models (parcels, for example).
    """
    image, axes = _open(path)
    if len(axes) != 2 or not isinstance(axes[1], BrainModelAxis) or not len(axes[1]):
        kind = type(axes[-1]).__name__.removesuffix("Axis")
        raise DataError(f"{path}: a CIFTI file without brain models (its columns are {kind}); give a dtseries.nii")
    _check_points(axes[1], path)
    return image, axes[0], axes[1]


def open_parcels(path: Path) -> tuple[Cifti2Image, Any, ParcelsAxis]:
    """Open a CIFTI-2 file of parcels, without reading its values.

    Parameters
    ----------
    path : Path
        ``.ptseries.nii``, ``.pscalar.nii`` or ``.plabel.nii``.

    Returns
    -------
    image : Cifti2Image
    maps : nibabel axis
        What the rows are: a series, scalars or labels.
    parcels : ParcelsAxis
        What the columns are.

    Raises
    ------
    DataError
        If it is no CIFTI file, is damaged, or its columns are no parcels.
    """
    image, axes = _open(path)
    if len(axes) != 2 or not isinstance(axes[1], ParcelsAxis) or not len(axes[1]):
        kind = type(axes[-1]).__name__.removesuffix("Axis")
        raise DataError(f"{path}: a CIFTI file without parcels (its columns are {kind}); give a ptseries.nii")
    return image, axes[0], axes[1]


def _open(path: Path) -> tuple[Cifti2Image, list[Any]]:
    image = load_image(path)
    if not isinstance(image, Cifti2Image):
        raise DataError(f"{path}: not a readable CIFTI-2 file (it has no CIFTI header); replace the file")
    try:
        axes = [image.header.get_axis(index) for index in range(len(image.shape))]
    # Whatever the header lacks, the user's remedy is the same.
    except Exception as error:
        raise DataError(f"{path}: CIFTI header is damaged ({one_line(error)}); replace the file") from error
    lengths = tuple(len(axis) for axis in axes)
    if lengths != tuple(image.shape):
        described, held = (" x ".join(str(n) for n in shape) for shape in (lengths, image.shape))
        raise DataError(f"{path}: CIFTI header describes {described} values, the file holds {held}; replace the file")
    return image, axes


def _check_points(points: BrainModelAxis, path: Path) -> None:
    """Refuse points that lie outside their own mesh or grid, and grids beyond reason."""
    surface = np.asarray(points.surface_mask)
    wrong = any(np.asarray(points.vertex)[points.name == name].max() >= n for name, n in points.nvertices.items())
    if not surface.all():
        shape, voxels = np.asarray(points.volume_shape, dtype=np.int64), np.asarray(points.voxel)[~surface]
        wrong |= bool((shape < 1).any() or (voxels < 0).any() or (voxels >= shape).any())
        wrong |= math.prod(int(n) for n in shape) > _MOST_VOXELS
    if wrong:
        raise DataError(f"{path}: CIFTI header is damaged (points outside their mesh or grid); replace the file")


def columns_in(points: BrainModelAxis, wanted: BrainModelAxis, path: Path) -> np.ndarray:
    """Find the points of one file among those of another, by structure and vertex, or by voxel.

    Parameters
    ----------
    points : BrainModelAxis
        Of the file that is read.
    wanted : BrainModelAxis
        What is looked for.
    path : Path
        The file that is read, named in the error.

    Returns
    -------
    ndarray of int, shape (len(wanted),)
        Columns of `points`; -1 where a point is not in the file.

    Raises
    ------
    DataError
        If the two are drawn on different meshes or grids.
    """
    for name in set(points.nvertices) & set(wanted.nvertices):
        if points.nvertices[name] != wanted.nvertices[name]:
            raise DataError(
                f"{path}: {points.nvertices[name]} vertices of {name.removeprefix('CIFTI_STRUCTURE_')}, expected "
                f"{wanted.nvertices[name]}; ask for one density with --space SPACE:den-X"
            )
    voxels = [axis for axis in (points, wanted) if not axis.surface_mask.all()]
    if len(voxels) == 2 and (
        tuple(points.volume_shape) != tuple(wanted.volume_shape)
        or not np.allclose(points.affine, wanted.affine, atol=1e-3)
    ):
        raise DataError(f"{path}: its voxels lie on another grid than expected; give files of one resolution")
    names = sorted({*points.nvertices, *wanted.nvertices})
    there, sought = _keys(points, names), _keys(wanted, names)
    order = np.argsort(there, kind="stable")
    place = np.minimum(np.searchsorted(there[order], sought), len(order) - 1)
    return np.where(there[order[place]] == sought, order[place], -1)


def _keys(axis: BrainModelAxis, names: Sequence[str]) -> np.ndarray:
    """One number for each point: of structure and vertex, or of the voxel whatever structure it is said to be."""
    structures = {name: index + 1 for index, name in enumerate(names)}
    keys = np.array([structures.get(name, 0) for name in axis.name], dtype=np.int64) << 32
    surface = np.asarray(axis.surface_mask)
    keys[surface] += np.asarray(axis.vertex)[surface]
    if not surface.all():
        strides = np.array([axis.volume_shape[1] * axis.volume_shape[2], axis.volume_shape[2], 1], dtype=np.int64)
        keys[~surface] = np.asarray(axis.voxel)[~surface] @ strides
    return keys


def read_cifti(path: Path, wanted: BrainModelAxis) -> np.ndarray:
    """Read maps at wanted points.

    Parameters
    ----------
    path : Path
    wanted : BrainModelAxis

    Returns
    -------
    ndarray of float32, shape (k, len(wanted))

    Raises
    ------
    DataError
        If a point is not in the file, or the file is damaged.
    """
    image, _, points = open_cifti(path)
    values = image_data(image, path)
    if points == wanted:
        return values
    columns = columns_in(points, wanted, path)
    if (columns < 0).any():
        missing = int((columns < 0).sum())
        raise DataError(
            f"{path}: lacks {missing} of the {len(wanted)} vertices and voxels; give files of one density and mask"
        )
    return np.ascontiguousarray(values[:, columns])


def write_cifti(path: Path, values: np.ndarray, maps: Any, points: BrainModelAxis | ParcelsAxis) -> None:
    """Write a table of maps x points.

    Parameters
    ----------
    path : Path
    values : ndarray, shape (k, points)
        Stored in its own type.
    maps : SeriesAxis, ScalarAxis or LabelAxis
        What the rows are.
    points : BrainModelAxis or ParcelsAxis
        What the columns are.
    """
    image = Cifti2Image(values, header=(maps, points), nifti_header=nib.Nifti2Header())
    image.nifti_header.set_data_dtype(values.dtype)
    image.nifti_header.set_intent(_INTENTS[type(maps), type(points)])
    image.update_headers()
    path.write_bytes(image.to_bytes())


def series_step(maps: Any) -> float:
    """Seconds between the rows of a series; 0 where rows are no series in time."""
    step = float(maps.step) if isinstance(maps, SeriesAxis) and maps.unit == "SECOND" else 0.0
    return step if math.isfinite(step) and step > 0 else 0.0
