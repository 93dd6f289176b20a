"""Arrays in HDF5 files: activations, read in blocks, and RDMs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bidsdnn.bids.files import atomic
from bidsdnn.errors import DataError

_BLOCK = 4096
"""Columns written at a time."""


@dataclass(frozen=True)
class Stored:
    """A layer's activations in an HDF5 file; opened when a block is asked for, so it travels to workers as a few words.

    Parameters
    ----------
    path : Path
    dataset : str
        Name of the layer.
    shape : tuple of int
        Stimuli and units.
    rows : str
        Hash of the stimuli's names in order. Another job may replace the file by one with more rows; a file whose first
        rows are no longer these stops the run, so that rows cannot slip.
    unit_shape : tuple of int
        Shape of one stimulus' activations; empty where the file does not say.
    channel_axis : int or None
        Which axis of it is the channels; None where the file does not say.
    """

    path: Path
    dataset: str
    shape: tuple[int, int]
    rows: str
    unit_shape: tuple[int, ...] = ()
    channel_axis: int | None = None

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            if _rows_hash(file["stim_id"][: self.shape[0]]) != self.rows:
                raise DataError(f"{self.path}: another job changed its stimuli during this run; run again")
            values = np.asarray(file[self.dataset][: self.shape[0], key[1]])[key[0]]
        # Activations stored in half precision are computed with in single.
        return values.astype(np.float32) if values.dtype == np.float16 else values


def _rows_hash(ids: np.ndarray) -> str:
    return hashlib.sha256(b"\0".join(ids)).hexdigest()


def is_activations(path: Path) -> bool:
    """Whether a file of activations is there and can be opened; a damaged one is extracted again."""
    return path.exists() and h5py.is_hdf5(path) and _opens(path)


def _opens(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "stim_id" in file
    except OSError:
        return False


def read_activations(path: Path, layers: Sequence[str]) -> tuple[list[str], list[Stored]]:
    """Find layers in a file of activations, without reading them.

    Parameters
    ----------
    path : Path
        Written by `bidsdnn.networks.extract`.
    layers : sequence of str

    Returns
    -------
    ids : list of str
        Stimuli in the order of the rows.
    stored : list of Stored
        One a layer.
    """
    with h5py.File(path, "r") as file:
        ids = file["stim_id"][:]
        hashed, stored = _rows_hash(ids), []
        for layer in layers:
            said = file[layer].attrs
            shape = tuple(int(size) for size in said.get("shape", ()))
            axis = int(said["channel_axis"]) if "channel_axis" in said else None
            stored.append(Stored(path, layer, file[layer].shape, hashed, shape, axis))
    return [name.decode() for name in ids], stored


def write_activations(path: Path, tables: Mapping[str, np.ndarray], ids: Sequence[str]) -> None:
    """Write small tables of stimuli by values, as `read_activations` reads them.

    Parameters
    ----------
    path : Path
    tables : mapping of str to ndarray, shape (n, p)
        By layer.
    ids : sequence of str, length n
    """
    names = [name.encode() for name in ids]
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        kind = h5py.string_dtype("utf-8", max(map(len, names)))
        file.create_dataset("stim_id", data=np.array(names, dtype=kind))
        for layer, values in tables.items():
            file.create_dataset(layer, data=values).attrs["shape"] = np.array([values.shape[1]], dtype=np.int64)


def read_rdms(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read RDMs that `Derivatives.write_rdms` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ids : list of str
        Stimuli, in the order of the RDMs' rows.
    rdms : dict of str to ndarray, shape (n * (n - 1) / 2,)

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            ids = [text.decode() for text in file["stim_id"][:]]
            stored = sorted((name for name in file if name.startswith("rdm")), key=lambda name: int(name[3:]))
            return ids, {file[name].attrs["name"]: file[name][:] for name in stored}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a readable RDM file ({error}); delete it and run again") from error


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, whatever its name."""
    return bool(h5py.is_hdf5(path))


def read_attribute(path: Path, name: str) -> str:
    """A text attribute of an HDF5 file's root, empty where there is none."""
    with h5py.File(path, "r") as file:
        value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays in the root of an HDF5 file, as they lie there; MATLAB's texts become text.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray
        Without groups, as MATLAB's structures and hidden references are.
    """
    found = {}
    with h5py.File(path, "r") as file:
        for name in file:
            if name.startswith("#"):
                continue
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link, which is not followed; copy the data into the file")
            item = file[name]
            if not isinstance(item, h5py.Dataset):
                continue
            if item.is_virtual or item.external:
                raise ValueError(f"{name} lies in other files, which are not read; copy the data into the file")
            array = item[()] if item.shape != () else np.asarray(item[()])
            if h5py.check_ref_dtype(item.dtype) is not None:
                cells = [np.asarray(file[reference][()]) for reference in array.ravel()]
                array = np.array(["".join(map(chr, cell.ravel())) for cell in cells], dtype=object)
            elif item.attrs.get("MATLAB_class") in (b"char", "char"):
                array = np.array(["".join(map(chr, np.asarray(array).ravel()))], dtype=object)
            found[name] = array
    return found


def write_rdms(path: Path, rdms: Mapping[str, np.ndarray], ids: Sequence[str]) -> None:
    """Write condensed RDMs, one dataset a layer or region, with the stimuli's names.

    Parameters
    ----------
    path : Path
    rdms : mapping of str to ndarray, shape (n * (n - 1) / 2,)
    ids : sequence of str, length n
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.create_dataset("stim_id", data=np.array(list(ids), dtype=object), dtype=h5py.string_dtype())
        for position, (name, rdm) in enumerate(rdms.items()):
            # A region's name may hold a slash, which HDF5 takes for a folder: number the rows, name them beside.
            data = file.create_dataset(f"rdm{position}", data=np.asarray(rdm, dtype=np.float64))
            data.attrs["name"] = name


def write_covariances(path: Path, regions: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the covariance of each region's noise, or the variances alone, beside the columns that it is of.

    Parameters
    ----------
    path : Path
    regions : mapping of str to (ndarray of int, shape (p,), ndarray, shape (p, p) or (p,))
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for position, (name, (columns, covariance)) in enumerate(regions.items()):
            data = file.create_dataset(f"covariance{position}", data=np.asarray(covariance, dtype=np.float64))
            data.attrs["name"] = name
            file.create_dataset(f"column{position}", data=columns)


def write_columns(
    path: Path, ids: Sequence[str], size: int, tables: Mapping[str, Callable[[slice], np.ndarray]],
    vectors: Mapping[str, np.ndarray], dtypes: Mapping[str, str],
) -> None:  # fmt: skip
    """Write large arrays of every column, a block of columns at a time, with the stimuli's names.

    Parameters
    ----------
    path : Path
    ids : sequence of str, length n
    size : int
        Columns.
    tables : mapping of str to callable
        By dataset: gives the rows of a slice of columns.
    vectors : mapping of str to ndarray
    dtypes : mapping of str to str
        Of the tables that are not in float32.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.create_dataset("stim_id", data=np.array(list(ids), dtype=object), dtype=h5py.string_dtype())
        for name, read in tables.items():
            data = file.create_dataset(name, (len(ids), size), dtypes.get(name, "float32"))
            for start in range(0, size, _BLOCK):
                columns = slice(start, min(start + _BLOCK, size))
                data[:, columns] = read(columns)
        for name, values in vectors.items():
            file.create_dataset(name, data=values)


def read_columns_file(path: Path, tables: Sequence[str], columns: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Read some columns of some datasets that `write_columns` wrote.

    Parameters
    ----------
    path : Path
    tables : sequence of str
    columns : ndarray of bool, shape (size,)

    Returns
    -------
    ids : list of str
    values : list of ndarray
        Shape (n, k) or (k,).
    """
    with h5py.File(path, "r") as file:
        ids = [text.decode() for text in file["stim_id"][:]]
        return ids, [_some_columns(file[name], columns) for name in tables]


def _some_columns(data: h5py.Dataset, columns: np.ndarray) -> np.ndarray:
    """Read blocks of neighbours and choose in memory, as picking single columns from a file is slow."""
    if data.ndim == 1:
        return np.asarray(data[:][columns])
    found = np.empty((data.shape[0], int(columns.sum())), dtype=data.dtype)
    start = 0
    for first in range(0, data.shape[1], _BLOCK):
        chosen = columns[first : first + _BLOCK]
        found[:, start : start + int(chosen.sum())] = data[:, first : first + _BLOCK][:, chosen]
        start += int(chosen.sum())
    return found


def write_numbers(path: Path, numbers: Mapping[str, np.ndarray]) -> None:
    """Write arrays as datasets of one file, in single precision where they are in double; texts as UTF-8.

    Parameters
    ----------
    path : Path
    numbers : mapping of str to ndarray
        By the dataset's name.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in numbers.items():
            array = np.asarray(values)
            if array.dtype.kind in "OU":
                file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
            else:
                array = array.astype(np.float32) if array.dtype == np.float64 else array
                small = array.nbytes < 65_536
                file.create_dataset(name, data=array, compression=None if small else "gzip", track_times=False)
