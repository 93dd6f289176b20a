"""RDMs that others measured: one file a region, several participants in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat

from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.names import require
from bidsdnn.errors import DataError

FORMATS = ".npz, .npy, .mat, .tsv, or a _relmat.h5 of ours"
SYMMETRY = 1e-6


def read_people(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Read the RDMs of one or several participants.

    Parameters
    ----------
    path : Path
        An array, shape (n, n), (participants, n, n) or (participants, pairs), in a ``.npz``, ``.npy`` or ``.mat``
        file; a square table with names in its header; or a ``_relmat.h5`` file of this program. Nothing is unpickled.

    Returns
    -------
    ids : list of str or None
        Names of the stimuli, where the file has them.
    rdms : ndarray, shape (participants, n * (n - 1) / 2)
        Condensed, in scipy's order.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it holds no RDM: not square, not symmetric, several arrays, or a format that is not known.
    """
    require(path)
    try:
        ids, array = _read(path)
    except (OSError, ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise DataError(f"--rdm {path}: not readable ({' '.join(str(error).split())}); give {FORMATS}") from error
    return ids, condensed(np.asarray(array, dtype=np.float64), path)


def _read(path: Path) -> tuple[list[str] | None, np.ndarray]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return None, np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return None, _only({name: file[name] for name in file.files})
    if suffix == ".mat":
        return None, _only({name: value for name, value in loadmat(path).items() if not name.startswith("__")})
    if suffix == ".tsv":
        table = pd.read_csv(path, sep="\t", encoding="utf-8-sig")
        numbers = table.select_dtypes("number")
        return [str(name) for name in numbers.columns], numbers.to_numpy(dtype=float)
    if suffix == ".h5":
        ids, rdms = read_rdms(path)
        return ids, np.array(list(rdms.values()))
    raise ValueError(f"unknown ending {suffix!r}")


def _only(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The only array of numbers with two or three dimensions."""
    found = {name: a for name, a in arrays.items() if a.ndim in (2, 3) and np.issubdtype(a.dtype, np.number)}
    if len(found) != 1:
        raise ValueError(f"expected one array of RDMs, got {sorted(found) or 'none'}")
    return next(iter(found.values()))


def condensed(array: np.ndarray, path: Path) -> np.ndarray:
    """Bring square RDMs into scipy's order, one row a participant; condensed ones stay.

    Parameters
    ----------
    array : ndarray, shape (n, n), (participants, n, n) or (participants, pairs)
    path : Path
        Named in the error.

    Returns
    -------
    ndarray, shape (participants, pairs)
    """
    if array.ndim == 2 and array.shape[0] == array.shape[1]:
        array = array[None]
    if array.ndim == 2:
        count_stimuli(array.shape[1], path)
        return array
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise DataError(f"--rdm {path}: shape {array.shape} is no RDM; give (n, n), (participants, n, n) or condensed")
    size = np.nanmax(np.abs(array), initial=0.0)
    if np.nanmax(np.abs(array - array.transpose(0, 2, 1)), initial=0.0) > SYMMETRY * size:
        raise DataError(f"--rdm {path}: an RDM differs from its transpose; give symmetric ones")
    return array[:, *np.triu_indices(array.shape[1], 1)]


def count_stimuli(pairs: int, path: Path) -> int:
    """Number of stimuli that so many pairs belong to."""
    n = round((1 + float(np.sqrt(1 + 8 * pairs))) / 2)
    if n * (n - 1) // 2 != pairs:
        raise DataError(f"--rdm {path}: {pairs} pairs belong to no number of stimuli; give whole RDMs")
    return n


def name_stimuli(ids: Sequence[str] | None, n: int, known: Sequence[str], path: Path) -> list[str]:
    """Names of an RDM's stimuli: the file's own, else those of the stimuli folder in sorted order.

    Parameters
    ----------
    ids : sequence of str or None
        From the file.
    n : int
        Stimuli of the RDM.
    known : sequence of str
        Stimuli of the folder.
    path : Path
        Named in the error.

    Returns
    -------
    list of str

    Raises
    ------
    DataError
        If a name is not in the folder, or names are lacking and the numbers differ.
    """
    if ids is not None:
        by_stem = {name.rsplit(".", 1)[0]: name for name in known}
        found = [name if name in known else by_stem.get(name) for name in ids]
        missing = [name for name, there in zip(ids, found, strict=True) if there is None]
        if missing:
            raise DataError(
                f"--rdm {path}: {len(missing)} stimuli are not in the stimuli folder ({', '.join(missing[:5])}); "
                "give their folder with --stimuli-dir"
            )
        return [str(name) for name in found]
    if n != len(known):
        raise DataError(
            f"--rdm {path}: {n} stimuli without names, the stimuli folder has {len(known)}; "
            "give that of these stimuli with --stimuli-dir"
        )
    return sorted(known)
