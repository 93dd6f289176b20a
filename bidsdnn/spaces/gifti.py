"""One hemisphere's files: GIFTI and MGH in, GIFTI out; and the name of the other hemisphere's file."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

from bidsdnn.errors import DataError
from bidsdnn.spaces.images import LONGEST_TR, image_data, load_image

STRUCTURES = ("CortexLeft", "CortexRight")
# How names say which hemisphere: BIDS, fMRIPrep 1.x and HCP, FreeSurfer, nilearn.
_SIDES = (
    (r"hemi-L(?=[_.])", r"hemi-R(?=[_.])", "hemi-R"),
    (r"(?<=[._])L(?=\.)", r"(?<=[._])R(?=\.)", "R"),
    (r"(?:(?<=^)|(?<=[._]))lh(?=[._])", r"(?:(?<=^)|(?<=[._]))rh(?=[._])", "rh"),
    (r"(?<=[._])left(?=\.)", r"(?<=[._])right(?=\.)", "right"),
)
# Far beyond the metadata and label table that stand before the first array.
_HEAD = 2**24


def hemispheres(path: Path) -> tuple[Path, Path]:
    """Name the two files that a left hemisphere's file stands for.

    Parameters
    ----------
    path : Path
        The left hemisphere's file: ``hemi-L``, ``.L.func.gii``, ``lh.`` or ``_left.`` in its name.

    Returns
    -------
    tuple of Path
        Left and right; neither need exist.

    Raises
    ------
    DataError
        If the name is not that of a left hemisphere's file.
    """
    for left, right, other in _SIDES:
        if re.search(left, path.name):
            return path, path.with_name(re.sub(left, other, path.name, count=1))
        if re.search(right, path.name):
            raise DataError(f"{path}: is the right hemisphere's file; name the left one, its right one is found")
    raise DataError(f"{path}: its name does not say which hemisphere it holds; name the files with hemi-L and hemi-R")


def both(path: Path) -> tuple[Path, Path]:
    """Name the two files of a left hemisphere's file, or say which one is not there."""
    pair = hemispheres(path)
    for one, other in (pair, pair[::-1]):
        if not (one.exists() or one.is_symlink()) and other.exists():
            raise DataError(f"{one}: hemisphere is missing, though {other.name} is there; add it or leave out the run")
    return pair


@dataclass(frozen=True)
class Heading:
    """What a surface file says of itself before its data.

    Parameters
    ----------
    n_vertices : int
    n_maps : int
        Time points or maps.
    tr : float
        Seconds; 0 where the file does not say.
    """

    n_vertices: int
    n_maps: int
    tr: float


def heading(path: Path) -> Heading:
    """Read how many vertices and maps a surface file has, without reading its data.

    Parameters
    ----------
    path : Path
        GIFTI (``.gii``, ``.gii.gz``) or MGH (``.mgh``, ``.mgz``).

    Returns
    -------
    Heading

    Raises
    ------
    DataError
        If it is neither, or damaged.
    """
    if not path.name.endswith((".gii", ".gii.gz")):
        image = load_image(path)
        vertices, *others = _mgh_shape(image, path)
        zooms = image.header.get_zooms()
        return Heading(vertices, others[0], float(zooms[3]) / 1e3 if len(zooms) > 3 else 0.0)
    if not path.exists():
        load_image(path)
    text = _before_data(path)
    first = re.search(r"<DataArray\b[^>]*>", text)
    size = re.search(r'Dim0\s*=\s*"(\d+)"', first[0]) if first else None
    count = re.search(r'NumberOfDataArrays\s*=\s*"(\d+)"', text)
    if not first or not size or not count:
        raise DataError(f"{path}: not a readable GIFTI image (no data arrays in it); replace the file")
    columns = re.search(r'Dim1\s*=\s*"(\d+)"', first[0])
    step = re.search(r"TimeStep\W.*?<Value>\s*(?:<!\[CDATA\[)?\s*([-+.\deE]+)", text, re.DOTALL)
    try:
        tr = float(step[1]) if step else 0.0
    except ValueError:
        tr = 0.0
    maps = int(count[1]) * (int(columns[1]) if columns else 1)
    return Heading(int(size[1]), maps, tr / 1e3 if tr > LONGEST_TR else tr)


def _before_data(path: Path) -> str:
    """Text of a GIFTI file up to the data of its first array."""
    opened = gzip.open if path.name.endswith(".gz") else Path.open
    read, text = 0, ""
    try:
        with opened(path, "rb") as file:
            while "<Data>" not in text and read < _HEAD and (piece := file.read(2**16)):
                read += len(piece)
                text += piece.decode("latin-1")
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable GIFTI image ({error}); replace the file") from error
    return text


def _mgh_shape(image: Any, path: Path) -> tuple[int, int]:
    shape = (*image.shape, 1, 1, 1)[:4]
    if shape[1:3] != (1, 1):
        raise DataError(f"{path}: shape {tuple(image.shape)} is a volume's, not (vertices, 1, 1, n); give its --space")
    return int(shape[0]), int(shape[3])


def read_maps(path: Path) -> np.ndarray:
    """Read all maps or time points of one hemisphere's file.

    Parameters
    ----------
    path : Path
        GIFTI or MGH.

    Returns
    -------
    ndarray of float32, shape (k, vertices)

    Raises
    ------
    DataError
        If the file is damaged, or its arrays are not maps of one mesh.
    """
    image = load_image(path)
    if not isinstance(image, GiftiImage):
        vertices, count = _mgh_shape(image, path)
        return image_data(image, path).reshape(vertices, count, order="F").T
    arrays = [np.asarray(one.data) for one in image.darrays if one.intent not in _MESH_INTENTS]
    if not arrays:
        raise DataError(f"{path}: holds no maps; give a func.gii, shape.gii or label.gii file")
    _check_arrays(arrays, path)
    if arrays[0].ndim == 2:
        return np.ascontiguousarray(np.hstack(arrays).T, dtype=np.float32)
    values = np.empty((len(arrays), len(arrays[0])), dtype=np.float32)
    for row, array in zip(values, arrays, strict=True):
        row[:] = array
    return values


_MESH_INTENTS = {nib.nifti1.intent_codes[name] for name in ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")}


def _check_arrays(arrays: Sequence[np.ndarray], path: Path) -> None:
    shapes = {(array.ndim, array.shape[:1]) for array in arrays}
    if len(shapes) > 1 or arrays[0].ndim not in (1, 2) or not arrays[0].size:
        found = sorted({array.shape for array in arrays})
        raise DataError(f"{path}: its arrays have the shapes {found}; maps have one value a vertex, replace the file")


def read_label_table(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Read the whole numbers of a ``label.gii`` (or of any map of whole numbers), and their names.

    Parameters
    ----------
    path : Path

    Returns
    -------
    codes : ndarray of int64, shape (vertices,)
        Of the first map.
    names : dict of int to str
        The label table; empty where there is none.

    Raises
    ------
    DataError
        If the map holds anything but whole numbers, 0 for NaN.
    """
    values = np.nan_to_num(read_maps(path)[0])
    codes = np.round(values).astype(np.int64)
    if not np.array_equal(codes, values):
        raise DataError(f"{path}: an atlas holds whole numbers, this file does not; give a label.gii or a mask")
    image = load_image(path)
    table = image.labeltable.get_labels_as_dict() if isinstance(image, GiftiImage) else {}
    return codes, {int(code): str(name or "") for code, name in table.items()}


def write_maps(
    path: Path, values: np.ndarray, structure: str, *, names: Sequence[str] | None = None, tr: float | None = None
) -> None:
    """Write maps of one hemisphere, as time series when there is a time step and as estimates otherwise.

    Parameters
    ----------
    path : Path
        Ends in ``.func.gii``.
    values : ndarray of float32, shape (k, vertices)
    structure : str
        ``CortexLeft`` or ``CortexRight``.
    names : sequence of str, optional
        One a map.
    tr : float, optional
        Seconds between maps, written as ``TimeStep``.
    """
    intent = "NIFTI_INTENT_ESTIMATE" if tr is None else "NIFTI_INTENT_TIME_SERIES"
    arrays = []
    for index, row in enumerate(np.atleast_2d(values)):
        meta = {} if names is None else {"Name": str(names[index])}
        if tr is not None:
            meta["TimeStep"] = repr(float(tr))
        arrays.append(
            GiftiDataArray(
                np.ascontiguousarray(row, dtype=np.float32),
                intent=intent,
                datatype="NIFTI_TYPE_FLOAT32",
                meta=GiftiMetaData(meta),
            )
        )
    meta = {"AnatomicalStructurePrimary": structure} | ({} if tr is None else {"TimeStep": repr(float(tr))})
    path.write_bytes(GiftiImage(meta=GiftiMetaData(meta), darrays=arrays).to_bytes())


def write_labels(path: Path, codes: np.ndarray, structure: str, names: Mapping[int, str]) -> None:
    """Write whole numbers of one hemisphere with a label table; a label's colour follows from its number.

    Parameters
    ----------
    path : Path
        Ends in ``.label.gii``.
    codes : ndarray of int, shape (vertices,)
    structure : str
        ``CortexLeft`` or ``CortexRight``.
    names : mapping of int to str
    """
    table = GiftiLabelTable()
    for code, name in {0: "???", **names}.items():
        red, green, blue, alpha = label_colour(code)
        label = GiftiLabel(key=int(code), red=red, green=green, blue=blue, alpha=alpha)
        label.label = name  # type: ignore[attr-defined]
        table.labels.append(label)
    array = GiftiDataArray(
        np.ascontiguousarray(codes, dtype=np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32"
    )
    meta = GiftiMetaData({"AnatomicalStructurePrimary": structure})
    path.write_bytes(GiftiImage(meta=meta, labeltable=table, darrays=[array]).to_bytes())


def label_colour(code: int) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha of a label: golden-angle hues, and nothing for 0."""
    if code == 0:
        return (1.0, 1.0, 1.0, 0.0)
    hue = (code * 0.618034) % 1.0
    red, green, blue = (float(np.clip(abs((hue + turn) % 1.0 * 6 - 3) - 1, 0, 1)) for turn in (0.0, 2 / 3, 1 / 3))
    return (round(red, 4), round(green, 4), round(blue, 4), 1.0)
