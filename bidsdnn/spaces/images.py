"""Image files of any format opened safely: what is not there, damaged or absurd is one clear error."""

from __future__ import annotations

import gzip
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bidsdnn.errors import DataError, MissingInputError

# Longer than any repetition time in seconds: a GIFTI file that says more means milliseconds, as FreeSurfer writes.
LONGEST_TR = 60.0


def load_image(path: Path) -> Any:
    """Open an image file; the values of volumes and CIFTI files are not read yet.

    Parameters
    ----------
    path : Path
        NIfTI, CIFTI-2, MGH or GIFTI.

    Returns
    -------
    nibabel image

    Raises
    ------
    MissingInputError
        If the file is not there, or is a DataLad link whose content is not there.
    DataError
        If the file is no readable image, or its header claims more values than the file can hold.
    """
    if not path.exists():
        remedy = "run `datalad get` on it" if path.is_symlink() else "check the path"
        raise MissingInputError(f"{path}: image not found; {remedy}")
    kind = next((name for end, name in _KINDS.items() if path.name.endswith(end)), "NIfTI")
    try:
        with _no_word_of_voxel_sizes() if _CIFTI.search(path.name) else nullcontext():
            image = _gifti_in_gzip(path) if path.name.endswith(".gii.gz") else nib.load(path)
    # A damaged file makes the parsers fail in every way there is; all of them mean the same to the user.
    except Exception as error:
        raise DataError(f"{path}: not a readable {kind} image ({one_line(error)}); replace the file") from error
    if hasattr(image, "dataobj"):
        _check_claim(image, path)
    return image


# How often the file's size the values can be at most: the deflate format cannot shrink data by more than this.
_LIMITS = {".nii": 1, ".mgh": 1, ".gz": 1032, ".mgz": 1032}
_CIFTI = re.compile(r"\.[dp](tseries|scalar|label|conn)\.nii$")
_KINDS = {".gii": "GIFTI", ".gii.gz": "GIFTI", ".mgz": "MGH", ".mgh": "MGH"}


@contextmanager
def _no_word_of_voxel_sizes() -> Iterator[None]:
    """Keep nibabel from logging the voxel sizes that a CIFTI file, having no grid, rightly leaves at 0."""
    logger = nib.imageglobals.logger
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _gifti_in_gzip(path: Path) -> Any:
    with gzip.open(path) as file:
        return nib.GiftiImage.from_bytes(file.read())


def _check_claim(image: Any, path: Path) -> None:
    """Refuse a header that promises more bytes than the file can hold, before memory is asked for them."""
    if not image.shape or min(image.shape) < 1:
        raise DataError(f"{path}: header claims the shape {tuple(image.shape)}; replace the file")
    claimed = math.prod(int(n) for n in image.shape) * np.dtype(image.get_data_dtype()).itemsize
    limit = next((limit for end, limit in _LIMITS.items() if path.name.endswith(end)), np.inf)
    if claimed > path.stat().st_size * limit:
        raise DataError(
            f"{path}: image is truncated or damaged (its header claims {claimed:,} bytes, the file has "
            f"{path.stat().st_size:,}); copy or compute it again"
        )


def image_data(image: Any, path: Path) -> np.ndarray:
    """Read an image's values as float32.

    Parameters
    ----------
    image : nibabel image
        What `load_image` returned.
    path : Path
        Named in the error.

    Returns
    -------
    ndarray of float32
        Scaled values, of the image's shape.

    Raises
    ------
    DataError
        If the file ends before its values do.
    """
    try:
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except Exception as error:
        raise DataError(
            f"{path}: image is truncated or damaged ({one_line(error)}); copy or compute it again"
        ) from error


def check_common(inside: np.ndarray, path: Path, first: Path, *, what: str) -> None:
    """Check that masks have a point in common.

    Parameters
    ----------
    inside : ndarray of bool
        What lies in all masks so far.
    path, first : Path
        The mask that came last, and the first one.
    what : str
        A point's name.

    Raises
    ------
    DataError
        Naming the mask that left nothing.
    """
    if inside.any():
        return
    if path == first:
        raise DataError(f"{path}: no {what} lies in this mask; mend it or leave out its run")
    raise DataError(
        f"{path}: no {what} lies in this mask and in those of the runs before it, the first being {first.name}; "
        "mend it or leave out its run"
    )


def one_line(error: BaseException) -> str:
    """First line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def write_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray, *, tr: float | None = None, dtype: Any = np.float32
) -> None:
    """Write a NIfTI image whose bytes depend on its content only.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    data : ndarray, shape (x, y, z) or (x, y, z, k)
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    tr : float, optional
        Seconds between volumes.
    dtype : numpy dtype
        Stored type.
    """
    image = nib.Nifti1Image(np.asarray(data, dtype=dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    # A gzip header with a name or a time would make equal images unequal, and the validator warns of both.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as out:
        out.write(image.to_bytes())


def write_mgh(path: Path, values: np.ndarray, *, tr: float | None = None) -> None:
    """Write maps of one hemisphere, shape (k, vertices), as an MGH file whose bytes depend on its content only.

    Parameters
    ----------
    path : Path
        Ends in ``.mgh`` or ``.mgz``.
    values : ndarray of float32, shape (k, vertices)
    tr : float, optional
        Seconds between maps.
    """
    whole = np.asarray(values, dtype=np.float32).T[:, None, None, :]
    image = nib.MGHImage(whole if len(values) > 1 else whole[..., 0], np.eye(4))
    if tr is not None and len(values) > 1:
        image.header.set_zooms((1.0, 1.0, 1.0, tr * 1e3))
    content = image.to_bytes()
    with path.open("wb") as raw:
        if not path.name.endswith(".mgz"):
            raw.write(content)
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as out:
            out.write(content)
