"""Atlases: which points lie in which region, and the regions' names, whatever file they come in."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis

from bidsdnn.errors import DataError
from bidsdnn.spaces.cifti import CORTICES, columns_in, is_cifti, open_cifti
from bidsdnn.spaces.gifti import both, read_label_table
from bidsdnn.spaces.images import image_data, load_image, one_line

logger = logging.getLogger(__name__)

# fMRIPrep's masks and bolds of one space agree to rounding; a scanner's header and a tool's differ by up to a voxel.
AFFINE_TOLERANCE = 1e-3
# Vertices of a hemisphere of fsaverage3 to fsaverage6 and fsaverage: each has the vertices of all coarser ones first.
FSAVERAGE = (642, 2562, 10242, 40962, 163842)
# What atlases call the points that are in no region.
BACKGROUND = {"", "???", "unknown", "background", "medial_wall", "medialwall", "medial wall"}
# What the name of a mask's file says of its content, and all that comes before the ending of an atlas's file.
_LABEL = re.compile(r"(?:^|[_.])(?:label|mask|roi|desc)-([^_.]+)")
_ENDING = re.compile(r"(\.(dlabel|dscalar|label|func|shape))?\.(nii|nii\.gz|gii|gii\.gz|mgz|mgh|annot)$")


def region_names(path: Path, labels: Path | None, codes: np.ndarray) -> dict[int, str]:
    """Names of an atlas's regions by their number, from its label table, else the numbers themselves.

    Parameters
    ----------
    path : Path
        The atlas image. A mask, of zeros and ones and not called ``dseg``, is one region named by its file.
    labels : Path or None
        The label table; None looks beside the image.
    codes : ndarray
        The numbers that occur, used where there is no table.

    Returns
    -------
    dict of int to str

    Raises
    ------
    DataError
        If the table lacks a column, or names two regions alike.
    """
    table_path = labels or path.with_name(_ENDING.sub("", path.name) + ".tsv")
    if not table_path.exists():
        there = [int(code) for code in np.unique(codes) if code != 0]
        mask = there == [1] and not _ENDING.sub("", path.name).endswith("dseg")
        return {1: mask_name(path)} if mask else {code: str(code) for code in there}
    table = pd.read_csv(table_path, sep="\t", dtype=str, encoding="utf-8-sig", keep_default_na=False)
    if not {"index", "name"} <= set(table.columns):
        raise DataError(f"{table_path}: columns {sorted(table.columns)}; a label table has `index` and `name`")
    try:
        names = {int(row["index"]): row["name"] for _, row in table.iterrows() if int(row["index"]) != 0}
    except ValueError as error:
        raise DataError(
            f"{table_path}: column `index` holds {error.args[0].split()[-1]}; give whole numbers"
        ) from error
    if {"n/a", ""} & set(names.values()):
        raise DataError(f"{table_path}: a region is called `n/a`, which means missing; name every region")
    if len(set(names.values())) < len(names):
        raise DataError(f"{table_path}: two regions have the same name; name each region once")
    return names


def mask_name(path: Path) -> str:
    """Name of the region that a mask is: the entity ``label``, ``mask``, ``roi`` or ``desc`` of its file, or its stem.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        With ``L_`` or ``R_`` before it where the name of a volume says the hemisphere.
    """
    stem = _ENDING.sub("", path.name)
    found = _LABEL.search(stem)
    side = re.search(r"(?:^|_)hemi-([LR])(?=_)", stem)
    surface = path.name.endswith((".gii", ".annot"))
    return (f"{side[1]}_" if side and found and not surface else "") + (found[1] if found else stem)


def named_regions(codes: np.ndarray, names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """Points of each region; numbers of one name are one region, and the background is none.

    Parameters
    ----------
    codes : ndarray of int
    names : mapping of int to str

    Returns
    -------
    dict of str to ndarray of bool
    """
    found: dict[str, np.ndarray] = {}
    for code, name in names.items():
        if code == 0 or name.strip().casefold() in BACKGROUND:
            continue
        found[name] = found[name] | (codes == code) if name in found else codes == code
    return found


def codes_on_grid(path: Path, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Read a discrete segmentation, resampled by nearest neighbour (with a warning) if it lies on another grid.

    Parameters
    ----------
    path : Path
        A volume.
    affine : ndarray, shape (4, 4)
    shape : sequence of int
        The wanted grid.

    Returns
    -------
    ndarray of float32, of the wanted shape

    Raises
    ------
    DataError
        If the image has four dimensions, or holds fractions.
    """
    image = load_image(path)
    if not hasattr(image, "affine"):
        raise DataError(f"{path}: not an atlas of voxels; give a dseg.nii.gz on the data's space")
    if len([n for n in image.shape if n > 1]) > 3:
        raise DataError(f"{path}: an atlas has three dimensions, this image has shape {image.shape}")
    data = image_data(image, path).reshape((*image.shape, 1, 1, 1)[:3])
    if not np.array_equal(data, np.round(data)):
        raise DataError(f"{path}: an atlas holds whole numbers, this image does not; give a dseg file")
    if data.shape == tuple(shape) and grid_difference(affine, image.affine, shape) <= AFFINE_TOLERANCE:
        return data
    from nilearn.image import resample_img

    logger.warning("%s: lies on another grid than the data; it was resampled by nearest neighbour", path)
    moved = resample_img(
        nib.Nifti1Image(data, image.affine),
        target_affine=affine,
        target_shape=tuple(shape),
        interpolation="nearest",
        force_resample=True,
        copy_header=True,
    )
    return np.asarray(moved.dataobj, dtype=np.float32)


def grid_difference(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance in millimetres, along an axis, between a corner of a grid and the same corner of another."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
    return float(np.abs(corners @ (np.asarray(affine) - other).T).max())


def surface_regions(
    path: Path, labels: Path | None, sizes: Sequence[int], *, nested: bool = False
) -> list[dict[str, np.ndarray]]:
    """Regions of the two hemispheres, from files of labels on the same meshes.

    Parameters
    ----------
    path : Path
        The left hemisphere's ``.label.gii``, ``.annot`` or mask (``.gii``, ``.mgz``), or a ``.dlabel.nii``.
    labels : Path or None
        A BIDS label table.
    sizes : sequence of int
        Vertices of the left and the right mesh.
    nested : bool
        Whether the meshes are of FreeSurfer's fsaverage: an atlas on a finer one is then taken at the vertices of
        the coarser one, which are its first, with a warning.

    Returns
    -------
    list of two dict of str to ndarray of bool, shape (vertices,)

    Raises
    ------
    DataError
        If the atlas is drawn on another mesh.
    """
    if is_cifti(path):
        whole = BrainModelAxis.from_surface(np.arange(sizes[0]), sizes[0], name=CORTICES[0])
        whole = whole + BrainModelAxis.from_surface(np.arange(sizes[1]), sizes[1], name=CORTICES[1])
        regions = cifti_regions(path, labels, whole)
        return [{name: where[part] for name, where in regions.items()}
                for part in (slice(sizes[0]), slice(sizes[0], None))]  # fmt: skip
    sides = []
    for file, size in zip(both(path), sizes, strict=True):
        codes, names = _annotation(file) if file.name.endswith(".annot") else read_label_table(file)
        if nested and size in FSAVERAGE and codes.size in FSAVERAGE and codes.size > size:
            logger.warning("%s: has %d vertices, the data the first %d; these were taken", file, codes.size, size)
            codes = codes[:size]
        if codes.size != size:
            raise DataError(
                f"{file}: {codes.size} vertices, the data have {size}; give the atlas on the mesh of the data"
            )
        if labels is not None or not any(name.strip().casefold() not in BACKGROUND for name in names.values()):
            names = region_names(file, labels, codes)
        sides.append(named_regions(codes, names))
    return sides


def _annotation(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Codes and names of a FreeSurfer annotation; a code is one more than the row in its table."""
    if not path.exists():
        load_image(path)
    try:
        rows, _, names = nib.freesurfer.read_annot(path)
    # A damaged file makes the parser fail in every way there is.
    except Exception as error:
        raise DataError(f"{path}: not a readable annotation ({one_line(error)}); replace the file") from error
    return rows + 1, {index + 1: name.decode("utf-8", "replace") for index, name in enumerate(names)}


def cifti_regions(path: Path, labels: Path | None, wanted: BrainModelAxis) -> dict[str, np.ndarray]:
    """Regions at wanted points, from a CIFTI file of labels, or of masks that are named by their maps.

    Parameters
    ----------
    path : Path
        ``.dlabel.nii`` (its first map), or ``.dscalar.nii`` of zeros and ones.
    labels : Path or None
        A BIDS label table, instead of the names in the file.
    wanted : BrainModelAxis
        Points that the file lacks, such as a medial wall's, are in no region.

    Returns
    -------
    dict of str to ndarray of bool, shape (len(wanted),)

    Raises
    ------
    DataError
        If the file holds neither, or none of the wanted points.
    """
    image, maps, points = open_cifti(path)
    columns = columns_in(points, wanted, path)
    if (columns < 0).all():
        raise DataError(f"{path}: holds none of the vertices and voxels of the data; give an atlas of their space")
    values = np.where(columns >= 0, image_data(image, path)[:, columns], 0)
    if isinstance(maps, ScalarAxis) and labels is None:
        if not np.isin(values, (0, 1)).all():
            raise DataError(f"{path}: an atlas holds labels or masks of 0 and 1, this file does not; give a dlabel.nii")
        return {str(name): row == 1 for name, row in zip(maps.name, values, strict=True)}
    if not np.array_equal(values[0], np.round(values[0])):
        raise DataError(f"{path}: an atlas holds whole numbers, this file does not; give a dlabel.nii")
    if len(values) > 1:
        logger.warning("%s: holds %d maps of labels; the first was used", path, len(values))
    if labels is None and isinstance(maps, LabelAxis):
        names = {int(code): str(name) for code, (name, _) in maps.label[0].items()}
    else:
        names = region_names(path, labels, values[0])
    return named_regions(values[0], names)
