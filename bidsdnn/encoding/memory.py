"""Encoding in bounded memory: responses and predictions wait in files, and are read some voxels at a time.

The one idea: only responses and predictions grow with stimuli x voxels, and every model that predicts target by target
needs a block of them at a time; what a layer's fit holds besides grows with the square of the stimuli, whatever the
number of voxels and units, and is there once for each job.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.errors import ConfigError
from bidsdnn.methods.models import MODELS
from bidsdnn.methods.reduce import blocks
from bidsdnn.patterns import Patterns

IN_MEMORY = 2**26
"""Numbers of a table of predictions up to which it stays in memory; what wider tables of targets are fitted by."""
SQUARES = 7
"""Tables of stimuli x stimuli, in double precision, that a job holds at its peak, of models that predict by columns."""
SQUARES_OF_OTHERS = 15
"""The same of other models, counted in partial least squares, which has a decomposition for each inner fold."""
COPIES_OF_OTHERS = 6
"""Copies of the responses, in single precision, of models that keep weights of all voxels."""
BLOCK_BYTES = 450_000_000
"""Of work on some voxels at a time, beyond what the tables of stimuli x stimuli leave free by then."""
VOXEL_BYTES = 1000
"""Of one voxel's scores, in all folds."""
PROGRAM_BYTES = 750_000_000
"""The interpreter with its libraries."""


class Table(np.memmap):
    """Numbers in a file of which what was asked for is in memory, and no longer.

    A map keeps every page that was ever touched among the process' memory; this one lets them go, to the file. Columns
    lie one behind the other. It travels between processes as a path.
    """

    @classmethod
    def of(cls, file: Any, shape: tuple[int, ...], dtype: Any = np.float32, *, mode: str = "r") -> Table:
        """Open a file, or make it (``w+``)."""
        return cls(file, dtype=dtype, mode=mode, shape=shape, order="F")  # type: ignore[call-overload]

    def __getitem__(self, key: Any) -> Any:
        found = np.array(np.asarray(self)[key])
        self._let_go()
        return found

    def __setitem__(self, key: Any, values: Any) -> None:
        # Of a subclass numpy would write into what `__getitem__` gives, which is a copy.
        np.asarray(self)[key] = values
        self._let_go()

    def __reduce__(self) -> Any:
        return Table.of, (self.filename, self.shape, self.dtype)

    def _let_go(self) -> None:
        held = getattr(self, "_mmap", None)
        if held is not None and hasattr(mmap, "MADV_DONTNEED"):
            held.madvise(mmap.MADV_DONTNEED)


def in_file(patterns: Patterns, folder: Path | None) -> Patterns:
    """Put the values of the only group into a file of the folder, if they are many; read some columns at a time.

    Parameters
    ----------
    patterns : Patterns
    folder : Path, optional
        Of scratch files.

    Returns
    -------
    Patterns
    """
    (group,) = patterns.groups
    n_items, n_columns = group.values.shape
    if folder is None or n_items * n_columns <= IN_MEMORY or isinstance(group.values, Table):
        return patterns
    dtype = np.result_type(getattr(group.values, "dtype", group.values[:1, :1].dtype), np.float32)
    table = Table.of(folder / "responses.bin", (n_items, n_columns), dtype, mode="w+")
    for columns in blocks(n_columns, width(n_items)):
        table[:, columns] = group.values[:, columns]
    return replace(patterns, groups=(replace(group, values=table),))


def room(folder: Path | None, shape: tuple[int, int], dtype: Any = np.float32) -> np.ndarray:
    """Make room for a table whose columns are written and read some at a time.

    Parameters
    ----------
    folder : Path, optional
        Of scratch files.
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    ndarray
        NaN so far. More than `IN_MEMORY` numbers lie in a file of the folder, which goes away with the array.
    """
    if folder is None or shape[0] * shape[1] <= IN_MEMORY:
        return np.full(shape, np.nan, dtype=dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        table = Table.of(file, shape, dtype, mode="w+")
    for columns in blocks(shape[1], width(shape[0])):
        table[:, columns] = np.nan
    return table


def width(n_items: int) -> int:
    """Columns read at a time of a table of so many rows."""
    return max(1, IN_MEMORY // 4 // max(n_items, 1))


def by_voxel(score: Callable[..., np.ndarray], *tables: np.ndarray | None) -> np.ndarray:
    """Score each voxel by its own column of each table, some voxels at a time; the same as all at once.

    Parameters
    ----------
    score : callable
        From columns of the tables to an array whose last axis is the voxels.
    *tables : ndarray, shape (n, V), or None
        None is passed on.

    Returns
    -------
    ndarray, shape (..., V)
    """
    first = next(table for table in tables if table is not None)
    parts = [
        score(*(None if table is None else table[:, columns] for table in tables))
        for columns in blocks(first.shape[1], width(len(first)))
    ]
    return np.concatenate(parts, axis=-1) if parts else score(*tables)


def estimate_bytes(n_items: int, n_voxels: int, *, jobs: int = 1, encoder: str = "ridge") -> int:
    """Bytes that the encoding of a participant needs, whatever the number of layers and their units.

    Responses and predictions lie in files, so that with `ridge` and `ols` only scores grow with the number of voxels.

    Parameters
    ----------
    n_items, n_voxels : int
    jobs : int
        Layers fitted at once.
    encoder : str
        Row of `MODELS`, or one's own.

    Returns
    -------
    int
    """
    values = n_items * n_voxels
    direct = hasattr(MODELS.get(encoder), "held_out")
    # What fits is in memory: the responses, and a job's predictions of them.
    work = BLOCK_BYTES + 2 * 4 * min(values, IN_MEMORY) + VOXEL_BYTES * n_voxels
    work += 8 * n_items**2 * (SQUARES if direct else SQUARES_OF_OTHERS)
    if not direct:
        work += COPIES_OF_OTHERS * 4 * values
    return int(jobs * work + (jobs + (jobs > 1)) * PROGRAM_BYTES)


def jobs_that_fit(n_items: int, n_voxels: int, *, mem_mb: float | None, jobs: int = 1, encoder: str = "ridge") -> int:
    """How many layers may be fitted at once; what does not fit at all is refused, before it is started.

    Parameters
    ----------
    n_items, n_voxels : int
    mem_mb : float or None
        The limit.
    jobs : int
        At most.
    encoder : str

    Returns
    -------
    int

    Raises
    ------
    ConfigError
        If a single layer at a time does not fit.
    """
    if mem_mb is None:
        return jobs
    needed = estimate_bytes(n_items, n_voxels, encoder=encoder)
    if needed > mem_mb * 1e6:
        other = "" if hasattr(MODELS.get(encoder), "held_out") else "--encoder ridge, which needs less, "
        raise ConfigError(
            f"--mem-mb {mem_mb:g}: encoding of {n_items} stimuli x {n_voxels} voxels with {encoder} needs about "
            f"{needed} bytes; give --mem-mb {int(np.ceil(needed / 1e6))}, {other}a coarser --space, or fewer stimuli "
            "with --event-filter"
        )
    fit = [n for n in range(1, jobs + 1) if estimate_bytes(n_items, n_voxels, jobs=n, encoder=encoder) <= mem_mb * 1e6]
    return max(fit)
