"""RDMs that others measured: one file a region, several participants in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from bidsdnn.bids.arrays import is_hdf5, read_arrays, read_attribute, read_rdms
from bidsdnn.bids.dnnbrain import read_rdm
from bidsdnn.bids.names import require
from bidsdnn.errors import DataError

FORMATS = ".npz, .npy, .mat, .tsv, DNNBrain's .rdm.h5, or a _relmat.h5 of ours"
SYMMETRY = 1e-6
ID_NAMES = ("stim_id", "stimulus_id", "stimuli", "ids", "names", "labels")
"""Arrays of text in a .npz, .mat or .h5 file that may name the stimuli."""
FEWEST_STIMULI = 4


def read_people(path: Path, *, region: str = "") -> tuple[list[str] | None, np.ndarray]:
    """Read the RDMs of one or several participants.

    Parameters
    ----------
    path : Path
        An array, shape (n, n), (participants, n, n) or (participants, pairs), in a ``.npz``, ``.npy`` or ``.mat``
        file (any version), with the stimuli's names beside it if it has some; a square table with names in its
        header; DNNBrain's ``.rdm.h5``; or a ``_relmat.h5`` file of this program. Nothing is unpickled.
    region : str
        Which of a file's arrays, where it holds several.

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
        If it holds no RDM: not square, not symmetric, a diagonal that is not zero, gaps, fewer than four stimuli,
        several arrays of which none is the region's, or a format that is not known.
    """
    require(path)
    try:
        ids, array = _read(path, region)
        rdms = condensed(np.asarray(array, dtype=np.float64), path)
    except (OSError, ValueError, KeyError, NotImplementedError, TypeError, MatReadError, BadZipFile) as error:
        raise DataError(f"--rdm {path}: not readable ({' '.join(str(error).split())}); give {FORMATS}") from error
    n = count_stimuli(rdms.shape[1], path)
    if n < FEWEST_STIMULI:
        raise DataError(f"--rdm {path}: {n} stimuli make no RDM to compare; RSA needs {FEWEST_STIMULI} or more")
    if not np.isfinite(rdms).all():
        gaps = int((~np.isfinite(rdms)).any(axis=0).sum())
        raise DataError(f"--rdm {path}: an RDM has gaps (NaN) in {gaps} pairs; leave out the stimuli that are missing")
    if ids is not None and (len(ids) != n or len(set(ids)) < n):
        raise DataError(f"--rdm {path}: {len(set(ids))} names for {n} stimuli; name each once")
    return ids, rdms


def _read(path: Path, region: str) -> tuple[list[str] | None, np.ndarray]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return None, np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return _chosen({name: file[name] for name in file.files}, region)
    if suffix == ".mat":
        return _chosen(_matlab(path), region)
    if suffix == ".tsv":
        return _square_table(path)
    if suffix == ".h5":
        return _hdf5(path, region)
    raise ValueError(f"unknown ending {suffix!r}")


def _matlab(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file; since version 7.3 those are HDF5 files, with axes the other way round."""
    if is_hdf5(path):
        return {name: array.T for name, array in read_arrays(path).items()}
    return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}


def _hdf5(path: Path, region: str) -> tuple[list[str] | None, np.ndarray]:
    kind = read_attribute(path, "type")
    if kind == "":
        ids, rdms = read_rdms(path)
        return ids, rdms[region][None] if region in rdms else np.array(list(rdms.values()))
    arrays = {name: np.atleast_2d(array) for name, array in read_rdm(path)[1].items()}
    if region not in arrays and len(arrays) > 1:
        raise ValueError(f"it holds {', '.join(arrays)}; name one of them, as in --rdm {next(iter(arrays))}={path}")
    return None, arrays.get(region, next(iter(arrays.values())))


def _square_table(path: Path) -> tuple[list[str], np.ndarray]:
    """A table with the stimuli in its header, in the same order as its rows, which a first column may name."""
    table = pd.read_csv(path, sep="\t", encoding="utf-8-sig", na_values=["n/a"], float_precision="round_trip")
    if len(table.columns) == len(table) + 1:
        rows = table.iloc[:, 0].astype(str).tolist()
        table = table.iloc[:, 1:]
        if rows != [str(name) for name in table.columns]:
            raise ValueError("its rows and columns name different stimuli, or stand in another order")
    if table.shape[0] != table.shape[1]:
        raise ValueError(f"{table.shape[0]} rows under {table.shape[1]} columns are no square")
    return [str(name) for name in table.columns], table.to_numpy(dtype=float)


def _chosen(arrays: dict[str, np.ndarray], region: str) -> tuple[list[str] | None, np.ndarray]:
    """The region's array of numbers, else the only one with two or three dimensions; and the names of the stimuli."""
    found = {
        name: a for name, a in arrays.items()
        if a.ndim in (2, 3) and np.issubdtype(a.dtype, np.number) and a.size > 1
    }  # fmt: skip
    named = {name.lower(): a for name, a in arrays.items()}
    texts = next((named[name] for name in ID_NAMES if name in named and named[name].dtype.kind in "UOS"), None)
    ids = None if texts is None else [_text(one) for one in texts.ravel()]
    if region in found:
        return ids, found[region]
    if len(found) != 1:
        raise ValueError(f"expected one array of RDMs, or one named {region or 'as the region'}, got "
                         f"{sorted(found) or 'none'}")  # fmt: skip
    return ids, next(iter(found.values()))


def _text(value: object) -> str:
    """A name; MATLAB's cells hold arrays of one text."""
    inner = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return (inner.decode() if isinstance(inner, bytes) else str(inner)).strip()


def condensed(array: np.ndarray, path: Path) -> np.ndarray:
    """Bring square RDMs into scipy's order, one row a participant; condensed ones stay.

    Parameters
    ----------
    array : ndarray, shape (n, n), (participants, n, n), (n, n, participants) or (participants, pairs)
    path : Path
        Named in the error.

    Returns
    -------
    ndarray, shape (participants, pairs)
    """
    if array.ndim == 2 and array.shape[0] == array.shape[1]:
        array = array[None]
    if array.ndim == 3 and array.shape[0] == array.shape[1] != array.shape[2]:
        # MATLAB's users put the participants last.
        array = np.moveaxis(array, 2, 0)
    if array.ndim == 2:
        count_stimuli(array.shape[1], path)
        return array
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise DataError(f"--rdm {path}: shape {array.shape} is no RDM; give (n, n), (participants, n, n) or condensed")
    size = np.nanmax(np.abs(array), initial=0.0)
    if np.nanmax(np.abs(array - array.transpose(0, 2, 1)), initial=0.0) > SYMMETRY * size:
        raise DataError(f"--rdm {path}: an RDM differs from its transpose; give symmetric ones")
    diagonal = np.abs(np.diagonal(array, axis1=1, axis2=2))
    if np.nanmax(diagonal, initial=0.0) > SYMMETRY * size:
        raise DataError(
            f"--rdm {path}: the diagonal of an RDM is up to {np.nanmax(diagonal):g} and not 0; give dissimilarities"
        )
    return array[:, *np.triu_indices(array.shape[1], 1)]


def count_stimuli(pairs: int, path: Path) -> int:
    """Number of stimuli that so many pairs belong to."""
    n = round((1 + float(np.sqrt(1 + 8 * pairs))) / 2)
    if n * (n - 1) // 2 != pairs:
        raise DataError(f"--rdm {path}: {pairs} pairs belong to no number of stimuli; give whole RDMs")
    return n


def reordered(rdms: np.ndarray, ids: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Bring condensed RDMs into another order of the same stimuli.

    Parameters
    ----------
    rdms : ndarray, shape (participants, pairs)
    ids, wanted : sequence of str

    Returns
    -------
    ndarray, shape (participants, pairs)
    """
    first, second = np.triu_indices(len(ids), 1)
    number = np.zeros((len(ids), len(ids)), dtype=int)
    number[first, second] = number[second, first] = np.arange(len(first))
    place = {name: row for row, name in enumerate(ids)}
    rows = np.array([place[name] for name in wanted])
    return rdms[:, number[np.ix_(rows, rows)][first, second]]


def name_stimuli(ids: Sequence[str] | None, n: int, known: Sequence[str], path: Path) -> list[str]:
    """Names of an RDM's stimuli: the file's own, else all that are known, in their order.

    Parameters
    ----------
    ids : sequence of str or None
        From the file.
    n : int
        Stimuli of the RDM.
    known : sequence of str
        Stimuli of the folder, sorted, or of a ``.stim.csv``.
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
    return list(known)
