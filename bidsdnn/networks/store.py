"""An HDF5 file of activations that is filled row by row and can be left and taken up again at any time.

The file is laid out whole when it is made (contiguous datasets, allocated early), closed, and then only the bytes
inside its datasets are written. So it is a valid HDF5 file whenever the process dies, and which rows are done stands
in a small file beside it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bidsdnn.errors import OutputError

SECONDS_BETWEEN_MARKS = 20.0
HEADER = 64  # hexadecimal digits of a hash


class Store:
    """Rows of layers, written in any order.

    Parameters
    ----------
    path : Path
        Of the finished file. Until then there are ``.NAME.part`` and, saying which rows are there, ``.NAME.done``.
    identity : str
        Hash, 64 hexadecimal digits, of all that the file's content depends on.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.part, self.marks = part_paths(path)
        self._identity = identity
        self._file: int | None = None
        self._where: dict[str, tuple[int, int, np.dtype[Any]]] = {}
        self._waiting: list[int] = []
        self._marked = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the file has been laid out."""
        return self._file is not None

    def resume(self) -> np.ndarray | None:
        """Take up a file that an interrupted run left; rows that are done, or None if there is no such file."""
        try:
            text = self.marks.read_bytes()
            if text[:HEADER] != self._identity.encode() or not self.part.is_file():
                raise ValueError("of something else")
            self._open()
            return np.frombuffer(text[HEADER:], dtype=np.uint8).astype(bool)
        except (OSError, ValueError, KeyError):
            self.discard()
            return None

    def create(
        self, texts: Mapping[str, Sequence[str]], attributes: Mapping[str, Any],
        layers: Mapping[str, Mapping[str, Any]], *, n: int, dtype: str,
    ) -> None:  # fmt: skip
        """Lay the file out.

        Parameters
        ----------
        texts : mapping of str to sequence of str
            Datasets of one text a row.
        attributes : mapping
            Of the root.
        layers : mapping of str to mapping of str to numbers
            Attributes of each layer, among them ``shape``, that of one row before it is flattened.
        n : int
            Rows.
        dtype : str
        """
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        early.set_obj_track_times(False)
        try:
            # The newer format has no limit of 64 KiB on attributes, and no times.
            with h5py.File(self.part, "w", libver=("v110", "v110")) as file:
                for name, values in texts.items():
                    encoded = [text.encode() for text in values]
                    kind = h5py.string_dtype("utf-8", max(map(len, encoded)))
                    file.create_dataset(name, data=np.array(encoded, dtype=kind), track_times=False)
                file.attrs.update(attributes)
                for layer, described in layers.items():
                    units = int(np.prod(described["shape"], dtype=np.int64))
                    made = file.create_dataset(layer, (n, units), dtype, dcpl=early.copy(), track_times=False)
                    for name, numbers in described.items():
                        made.attrs[name] = np.asarray(numbers, dtype=np.int64)
            self._open()
        except OSError as error:
            raise self._failed(error) from error

    def begin(self, done: np.ndarray) -> None:
        """From here on the file can be taken up again.

        Parameters
        ----------
        done : ndarray of bool, shape (n,)
            Rows for which nothing will be computed.
        """
        try:
            self.marks.write_bytes(self._identity.encode() + done.astype(np.uint8).tobytes())
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> None:
        with h5py.File(self.part, "r") as file:
            for layer, dataset in file.items():
                if "shape" in dataset.attrs:
                    self._where[layer] = (dataset.id.get_offset(), dataset.shape[1], dataset.dtype)
        self._file = os.open(self.part, os.O_WRONLY)
        self._marked = time.monotonic()

    def write(self, layer: str, rows: Sequence[int], values: np.ndarray) -> None:
        """Write rows of one layer.

        Parameters
        ----------
        layer : str
        rows : sequence of int
        values : ndarray, shape (len(rows), units)
        """
        start, units, dtype = self._where[layer]
        table = np.ascontiguousarray(values.reshape(len(rows), units), dtype=dtype)
        size = units * dtype.itemsize
        cuts = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1), len(rows)]
        try:
            for first, last in itertools.pairwise(cuts):
                _write_all(self._descriptor, table[first:last].data.cast("B"), start + rows[first] * size)
        except OSError as error:
            raise self._failed(error) from error

    def mark(self, rows: Sequence[int]) -> None:
        """Say that rows are done; now and then, after the data have reached the disk, this is written down."""
        self._waiting.extend(rows)
        if time.monotonic() - self._marked >= SECONDS_BETWEEN_MARKS:
            self._write_marks()

    def _write_marks(self) -> None:
        try:
            os.fsync(self._descriptor)
            with self.marks.open("r+b", buffering=0) as marks:
                for row in self._waiting:
                    _write_all(marks.fileno(), memoryview(b"\1"), HEADER + row)
        except OSError as error:
            raise self._failed(error) from error
        self._waiting, self._marked = [], time.monotonic()

    def finish(self) -> None:
        """Give the file its name."""
        self._close()
        try:
            self.part.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error
        self.marks.unlink(missing_ok=True)

    def leave(self) -> None:
        """Close the file so that a later run goes on where this one stopped."""
        if self.is_open and self.marks.exists():
            self._write_marks()
            self._close()
        else:
            self.discard()

    def discard(self) -> None:
        """Close the file and remove what there is of it."""
        self._close()
        self.part.unlink(missing_ok=True)
        self.marks.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise ValueError("the file has not been laid out")
        return self._file

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error}); free space there, or choose another folder")


def part_paths(path: Path) -> tuple[Path, Path]:
    """Where an unfinished file and its marks lie."""
    return path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.done")


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while len(data):  # one call writes at most 2 GB
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
