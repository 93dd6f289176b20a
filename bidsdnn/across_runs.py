"""The responses of all runs at once: series wait in scratch files, and are read a block of voxels at a time.

Each image is decompressed once, into a file of float32; so memory holds one run while runs
are read, and a block of voxels of all runs while the model is fitted, however many runs there are. Single trials'
responses go into such a file as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.lookup import resolve
from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.responses import ACROSS_RUNS
from bidsdnn.parallel import Map
from bidsdnn.recordings import BLOCK, Recording, Task, load_run
from bidsdnn.single_trials import call, finish_run, judge_trials, trials_shown, write_design


@dataclass(frozen=True, eq=False)
class Joint:
    """What a model of all runs found.

    Parameters
    ----------
    found : list of dict
        Of each run, as `finish_run` gives it.
    items : DataFrame or None
        ``stimulus_id`` and ``n_repeats``, one row a stimulus; None where single trials were written.
    values : ndarray, shape (n_stimuli, size), or None
    reliability : ndarray, shape (size,), or None
        Of responses to stimuli, between the odd and even runs that show them.
    maps : dict of str to ndarray, shape (size,)
        What else the estimator says of each voxel, by the name that goes after ``stat-``.
    left_out : list of str
        Sentences.
    """

    found: list[dict[str, Any]]
    items: pd.DataFrame | None = None
    values: np.ndarray | None = None
    reliability: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """A table in a ``.npy`` file of which a slice is in memory when it is asked for, and no longer.

    A map that stayed open would keep every page that was ever read among the process' memory. Columns lie one behind
    the other, because that is how blocks of voxels are read.

    Parameters
    ----------
    path : Path
    shape : tuple of int
    """

    path: Path
    shape: tuple[int, int]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @classmethod
    def of(cls, path: Path, table: np.ndarray) -> Stored:
        """Put a table into a file, as float32."""
        np.save(path, np.asfortranarray(table, dtype=np.float32))
        return cls(path, (table.shape[0], table.shape[1]))

    @classmethod
    def empty(cls, path: Path, shape: tuple[int, int]) -> Stored:
        """Make room for a table of float32, zeros so far.

        Parameters
        ----------
        path : Path
        shape : tuple of int

        Returns
        -------
        Stored
        """
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape, fortran_order=True)
        return cls(path, shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(np.load(self.path, mmap_mode="r")[key], order="C")

    def __setitem__(self, key: Any, values: np.ndarray) -> None:
        np.load(self.path, mmap_mode="r+")[key] = values


@dataclass(frozen=True)
class Stacked:
    """Stored tables one below the other, of which a block of columns is in memory when it is asked for.

    Parameters
    ----------
    parts : sequence of Stored
        Of equal width.
    """

    parts: Sequence[Stored]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of all parts, and columns."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = key
        return np.vstack([part[:, columns] for part in self.parts])[rows]


@contextmanager
def scratch(work_dir: Path | None) -> Iterator[Path]:
    """Open a folder for scratch files that is removed with them, by default among the system's temporary files."""
    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bidsdnn-", dir=work_dir) as folder:
        yield Path(folder)


def copy_run(task: Task, *, folder: Path) -> tuple[Stored, Recording]:
    """Read one run, prepare it, and put its series into a file.

    Parameters
    ----------
    task : Task
    folder : Path
        Of scratch files.

    Returns
    -------
    series : Stored
        Of float32, shape (kept, size).
    recording : Recording
        Without the series.
    """
    recording = load_run(task)
    path = folder / f"{task.run.name or 'run'}.npy"
    series = Stored.of(path, recording.series)
    return series, replace(recording, series=np.empty((0, 0), dtype=np.float32))


def estimate_jointly(tasks: Sequence[Task], *, map: Map, work_dir: Path | None = None) -> Joint:
    """Estimate responses by a model of all runs of a participant.

    Parameters
    ----------
    tasks : sequence of Task
        Of one participant.
    map : callable
        Spreads the reading of runs over workers.
    work_dir : Path, optional
        Folder for scratch files, which are removed; by default the system's.

    Returns
    -------
    Joint

    Raises
    ------
    DataError
        If a run cannot be read, or no trial of it can be estimated.
    """
    with scratch(work_dir) as folder:
        copied = map(partial(copy_run, folder=folder), tasks, label=f"sub-{tasks[0].run.sub} runs")
        bolds = [series for series, _ in copied]
        recordings = [recording for _, recording in copied]
        ends = np.cumsum([0, *(int(task.events["trial"].sum()) for task in tasks)])
        out = Stored.empty(folder / "responses.npy", (int(ends[-1]), tasks[0].space.size))
        fit = partial(_fit, tasks, recordings, bolds, out)
        whole = fit(range(len(tasks)))
        if hasattr(whole, "betas"):
            return _trials(tasks, recordings, whole, ends)
        halves = [fit(range(first, len(tasks), 2)) for first in (0, 1)] if len(tasks) > 1 else []
        items, values = whole
        return _stimuli(tasks, recordings, items, values, halves)


def _fit(
    tasks: Sequence[Task], recordings: Sequence[Recording], bolds: Sequence[Any], out: Stored, runs: Sequence[int]
) -> Any:
    """What the estimator finds in some of the runs."""
    designs = [recordings[i].design for i in runs]
    sessions = [tasks[i].run.ses or "" for i in runs]
    return call(
        resolve(tasks[0].estimation.response, ACROSS_RUNS),
        tasks[0].estimation,
        tasks[0].device,
        f"sub-{tasks[0].run.sub}",
        [bolds[i] for i in runs],
        [trials_shown(tasks[i]) for i in runs],
        [design.frame_times[design.kept] for design in designs],
        [design.fitted_nuisance() for design in designs],
        sessions=sessions,
        out=out,
    )


def _trials(tasks: Sequence[Task], recordings: Sequence[Recording], fitted: Any, ends: np.ndarray) -> Joint:
    """Responses of all runs' trials: each run's are written as those of the other estimators are."""
    found = [
        finish_run(task, recording, np.asarray(fitted.betas[start:stop], dtype=np.float32))
        for task, recording, start, stop in zip(tasks, recordings, ends[:-1], ends[1:], strict=True)
    ]
    maps = {
        name.replace("_", ""): np.asarray(getattr(fitted, name), dtype=np.float32)
        for name in ("hrf", "r2", "onoff_r2", "fraction", "noise_pool")
        if hasattr(fitted, name)
    }
    return Joint(found, maps=maps, left_out=list(getattr(fitted, "left_out", ())))


def _stimuli(
    tasks: Sequence[Task],
    recordings: Sequence[Recording],
    items: pd.DataFrame,
    values: np.ndarray,
    halves: Sequence[tuple[pd.DataFrame, np.ndarray]],
) -> Joint:
    """Responses to stimuli; a trial counts as estimated if its stimulus is."""
    usable = np.logical_and.reduce([recording.usable for recording in recordings])
    values[:, ~usable] = np.nan
    estimated = np.isfinite(values[:, usable]).any(axis=1)
    known = dict(zip(items["stimulus_id"], estimated, strict=True))
    found = []
    for task, recording in zip(tasks, recordings, strict=True):
        trials = trials_shown(task)
        trials["estimated"] = trials["stimulus_id"].map(known).astype(bool)
        found.append(judge_trials(task, recording, trials))
        write_design(task, recording.design)
    reliability = np.full(values.shape[1], np.nan)
    if halves:
        ids = np.concatenate([half["stimulus_id"].to_numpy(dtype=str) for half, _ in halves])
        for voxels in blocks(values.shape[1], BLOCK):
            reliability[voxels] = split_half(np.vstack([half[:, voxels] for _, half in halves]), ids)
    return Joint(found, items[estimated].reset_index(drop=True), values[estimated], reliability)
