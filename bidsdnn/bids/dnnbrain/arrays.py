"""DNNBrain's HDF5 files: ``.act.h5`` of activations, ``.roi.h5`` of regions, ``.rdm.h5`` of RDMs.

Nothing is followed out of a file and no objects are read: links into other files, data stored outside and pickles are
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bidsdnn.bids.files import atomic
from bidsdnn.bids.names import require
from bidsdnn.errors import DataError
from bidsdnn.patterns import Group

RDM_TYPES = ("bRDM", "dRDM")
"""RDMs of brain regions, and of a network's layers."""

_CHUNK_ROWS, _CHUNK_VALUES, _BLOCK_VALUES = 64, 2**18, 2**24


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading; whatever is wrong with it is a `DataError`."""
    try:
        with h5py.File(require(path), "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable HDF5 file ({' '.join(str(error).split())}); copy it again") from error


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset of numbers that lies in the file itself.

    Parameters
    ----------
    file : h5py.File
    name : str
    path : Path
        Named in the error.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    DataError
        If it is a link, a group, stored in or made of other files, or holds objects or text.
    """
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        where = f" into {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
        raise DataError(f"{path}: {name} is a link{where}, which is not followed; copy the data into the file")
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{path}: {name} is a group; arrays are expected at the top of the file")
    if data.is_virtual or data.external:
        raise DataError(f"{path}: {name} lies in other files, which are not read; copy the data into the file")
    if data.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} holds {data.dtype} and not numbers; objects and texts are not read")
    return data


@dataclass(frozen=True)
class StoredLayer:
    """One layer of an ``.act.h5`` file, a row a stimulus; read when a block of columns is asked for.

    Parameters
    ----------
    path : Path
    dataset : str
    shape : tuple of int
        Stimuli and units.
    unit_shape : tuple of int
        Channels, rows and columns.
    dtype : str
    """

    path: Path
    dataset: str
    shape: tuple[int, int]
    unit_shape: tuple[int, int, int]
    dtype: str

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        rows, columns = key
        size = self.unit_shape[1] * self.unit_shape[2]
        whole = columns if isinstance(columns, slice) and (columns.step or 1) == 1 else slice(None)
        start, stop, _ = whole.indices(self.shape[1])
        first, last = start // size, -(-stop // size)
        with opened(self.path) as file:
            values = np.asarray(own_dataset(file, self.dataset, self.path)[:, first:last])
        if not np.isfinite(values).all():
            row = int((~np.isfinite(values)).any(axis=(1, 2, 3)).argmax())
            raise DataError(f"{self.path}: {self.dataset} has NaN or infinite activations in row {row + 1}")
        values = values.reshape(len(values), -1)[:, start - first * size : stop - first * size]
        return (values if whole is columns else values[:, columns])[rows]


def read_layers(path: Path) -> dict[str, StoredLayer]:
    """Find the layers of a file of activations, without reading them.

    Parameters
    ----------
    path : Path
        An ``.act.h5`` file: a dataset of shape (stimuli, channels, rows, columns) a layer.

    Returns
    -------
    dict of str to StoredLayer

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it holds no activations, or another number of rows in one layer than in another.
    """
    layers = {}
    with opened(path) as file:
        for name in file:
            data = own_dataset(file, name, path)
            if data.ndim != 4 or not data.size:
                raise DataError(f"{path}: {name} has shape {data.shape}; expected (stimuli, channels, rows, columns)")
            n, *shape = map(int, data.shape)
            layers[name] = StoredLayer(path, name, (n, int(np.prod(shape))), tuple(shape), data.dtype.str)  # type: ignore[arg-type]
    if not layers:
        raise DataError(f"{path}: no layer in it; expected one dataset a layer")
    first = next(iter(layers.values()))
    for layer in layers.values():
        if layer.shape[0] != first.shape[0]:
            counts = f"{first.dataset} has {first.shape[0]} stimuli and {layer.dataset} has {layer.shape[0]}"
            raise DataError(f"{path}: {counts}; extract them again")
    return layers


def write_act(path: Path, layers: Sequence[Group]) -> Path:
    """Write activations as DNNBrain does: a compressed dataset (stimuli, channels, rows, columns) a layer.

    Parameters
    ----------
    path : Path
    layers : sequence of Group
        Vectors become channels of one row and column; tokens (n, width) become rows, their width the channels; of maps
        whose channels are last these come first.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a layer's values have more than three axes, or its name cannot be a dataset's.
    """
    shapes = {layer.name: _unit_shape(layer) for layer in layers}
    if len(shapes) < len(layers):
        raise ValueError(f"layers: expected each name once, got {[layer.name for layer in layers]}")
    with atomic(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for layer in layers:
            _write_layer(file, layer, shapes[layer.name])
    return path


def _unit_shape(layer: Group) -> tuple[int, int, int]:
    shape = layer.shape or (layer.values.shape[1],)
    if "/" in layer.name or not layer.name.strip(".") or len(shape) > 3:
        raise ValueError(f"{layer.name}: expected a name without '/' and up to three axes, got {shape}")
    ordered = (shape[-1], *shape[:-1]) if _channels_last(layer) else shape
    channels, rows, columns = (*ordered, 1, 1)[:3]
    return channels, rows, columns


def _channels_last(layer: Group) -> bool:
    """Whether a layer's channels are its last axis, as those of tokens are."""
    if layer.channel_axis is None:
        return len(layer.shape) == 2
    return 0 < layer.channel_axis == len(layer.shape) - 1


def _write_layer(file: h5py.File, layer: Group, shape: tuple[int, int, int]) -> None:
    n, size = layer.values.shape[0], shape[1] * shape[2]
    kept = np.dtype(getattr(layer.values, "dtype", np.float32))
    rows = min(n, _CHUNK_ROWS)
    channels = max(1, min(shape[0], _CHUNK_VALUES // (rows * size)))
    data = file.create_dataset(
        layer.name, (n, *shape), dtype=kept if kept.kind == "f" else np.float32, compression="gzip",
        chunks=(rows, channels, *shape[1:]),
    )  # fmt: skip
    if _channels_last(layer):
        places = np.asarray(layer.values[:, :]).reshape(n, size, shape[0])
        data[...] = places.transpose(0, 2, 1).reshape(n, *shape)
        return
    step = channels * max(1, _BLOCK_VALUES // (n * size * channels))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        block = np.asarray(layer.values[:, start * size : stop * size])
        data[:, start:stop] = block.reshape(n, stop - start, *shape[1:])


def read_roi(path: Path) -> tuple[list[str], np.ndarray]:
    """Read regions' responses.

    Parameters
    ----------
    path : Path
        A ``.roi.h5`` file.

    Returns
    -------
    names : list of str
    values : ndarray, shape (n_volumes, n_regions)

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it has no names or no table of them.
    """
    with opened(path) as file:
        if "roi" not in file.attrs or "data" not in list(file):
            raise DataError(f"{path}: expected the attribute roi, names, and the dataset data, (volumes, regions)")
        names = [one.decode() if isinstance(one, bytes) else str(one) for one in np.ravel(file.attrs["roi"])]
        values = own_dataset(file, "data", path)[()]
    if values.ndim != 2 or values.shape[1] != len(names) or len(set(names)) < len(names):
        raise DataError(f"{path}: data of shape {values.shape} for {len(set(names))} names; name each column once")
    return names, values


def write_roi(path: Path, names: Sequence[str], values: np.ndarray) -> Path:
    """Write regions' responses as DNNBrain does.

    Parameters
    ----------
    path : Path
    names : sequence of str
    values : ndarray, shape (n_volumes, n_regions)

    Returns
    -------
    Path
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != len(set(names)) or len(names) != len(set(names)):
        raise ValueError(f"values: expected a column for each of {len(names)} names, each once, got {values.shape}")
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.create("roi", np.array(list(names), dtype=object), dtype=h5py.string_dtype())
        file.create_dataset("data", data=values)
    return path


def read_rdm(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read the RDMs of regions or layers.

    Parameters
    ----------
    path : Path
        An ``.rdm.h5`` file.

    Returns
    -------
    kind : {'bRDM', 'dRDM'}
        Of brain regions, or of layers.
    rdms : dict of str to ndarray, shape (pairs,) of a region, (iterations, pairs) of a layer
        Upper triangles in scipy's order, as they are stored.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If its type is unknown, it has no RDM, or one has another number of axes.
    """
    with opened(path) as file:
        kind = file.attrs.get("type", "")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if kind not in RDM_TYPES:
            raise DataError(f"{path}: type {kind!r} is none of {', '.join(RDM_TYPES)}")
        rdms = {name: own_dataset(file, name, path)[()] for name in file}
    if not rdms:
        raise DataError(f"{path}: no RDM in it; expected one dataset a region or layer")
    for name, rdm in rdms.items():
        if rdm.ndim not in (1, 2):
            raise DataError(f"{path}: {name} has shape {rdm.shape}; expected (pairs,) or (iterations, pairs)")
    return kind, rdms


def write_rdm(path: Path, kind: str, rdms: Mapping[str, np.ndarray]) -> Path:
    """Write RDMs as DNNBrain does.

    Parameters
    ----------
    path : Path
    kind : {'bRDM', 'dRDM'}
    rdms : mapping of str to ndarray, shape (pairs,) of regions, (iterations, pairs) of layers
        Upper triangles in scipy's order.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a shape does not belong to the kind, or a name cannot be a dataset's.
    """
    if kind not in RDM_TYPES:
        raise ValueError(f"kind: expected one of {', '.join(RDM_TYPES)}, got {kind!r}")
    for name, rdm in rdms.items():
        n = round((1 + float(np.sqrt(1 + 8 * rdm.shape[-1]))) / 2)
        if rdm.ndim != 1 + RDM_TYPES.index(kind) or n * (n - 1) // 2 != rdm.shape[-1]:
            raise ValueError(f"{name}: expected upper triangles of {kind}, got shape {rdm.shape}")
        if "/" in name or not name.strip("."):
            raise ValueError(f"{name!r}: expected a name without '/'")
    with atomic(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.attrs["type"] = kind
        for name, rdm in rdms.items():
            file.create_dataset(name, data=rdm, compression="gzip")
    return path
