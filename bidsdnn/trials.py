"""A participant's single trials as one table, read from the runs' files when a block of columns is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.design import canonical
from bidsdnn.methods.responses import residuals, standardized
from bidsdnn.patterns import Group, Patterns
from bidsdnn.recordings import load_run
from bidsdnn.single_trials import Task, betas_path, desc_of, trials_of, trials_shown


@dataclass(frozen=True, eq=False)
class RunsOfTrials:
    """Responses of all runs' trials, z-scored within runs as those that are averaged over a stimulus' trials.

    Parameters
    ----------
    tasks : sequence of Task
        Whose responses have been written.
    kept : sequence of ndarray of bool
        Which trials of each run were estimated.
    """

    tasks: Sequence[Task]
    kept: Sequence[np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """Trials and columns."""
        return int(sum(one.sum() for one in self.kept)), self.tasks[0].space.size

    def runs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the rows of each run, and all their columns; each file is read once."""
        start = 0
        for task, keep in zip(self.tasks, self.kept, strict=True):
            stop = start + int(keep.sum())
            yield slice(start, stop), standardized(task.space.read(betas_path(task))[keep])
            start = stop

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        rows, columns = key
        parts = []
        for task, keep in zip(self.tasks, self.kept, strict=True):
            betas = task.space.read(betas_path(task))[keep][:, columns]
            parts.append(standardized(betas))
        return np.vstack(parts)[rows]


@dataclass(frozen=True, eq=False)
class RunsOfResiduals:
    """What a regressor for every trial leaves of all runs, in the units of `RunsOfTrials`; read when it is called.

    Parameters
    ----------
    tasks, kept
        As in `RunsOfTrials`.
    """

    tasks: Sequence[Task]
    kept: Sequence[np.ndarray]

    def __call__(self, columns: np.ndarray) -> tuple[np.ndarray, int]:
        """Residuals of some voxels.

        Parameters
        ----------
        columns : ndarray of bool, shape (size,)

        Returns
        -------
        residuals : ndarray, shape (volumes, k)
            NaN in the column of a voxel that is constant or not finite in a run.
        dof : int
            Summed over runs.
        """
        parts, dof = [], 0
        for task, keep in zip(self.tasks, self.kept, strict=True):
            recording = load_run(task)
            design, hrf = recording.design, task.estimation.hrf
            left, own = residuals(
                recording.series, trials_shown(task), frame_times=design.frame_times[design.kept],
                nuisance=design.fitted_nuisance(), columns=columns, hrf=canonical(hrf),
            )  # fmt: skip
            spread = task.space.read(betas_path(task))[keep][:, columns].std(axis=0, dtype=np.float64)
            parts.append(np.divide(left, spread, out=np.full_like(left, np.nan), where=spread > 0).astype(np.float32))
            dof += own
        return np.vstack(parts), dof


def trials(tasks: Sequence[Task]) -> Patterns | None:
    """Find a participant's single trials, without reading their responses.

    Parameters
    ----------
    tasks : sequence of Task
        One a run, whose responses have been written.

    Returns
    -------
    Patterns or None
        One item a trial that was estimated, with ``run``, ``session`` and what the events say of it; runs of one usable
        trial are left out. None where the estimator gives no single trials.
    """
    used, kept, items = [], [], []
    for task in tasks:
        # Another estimator's trials, left by an earlier run, are no source for this one's.
        made_by = read_json(sidecar_path(betas_path(task))).get("Estimator") if betas_path(task).exists() else None
        if desc_of(task) != "singletrial" or made_by != task.estimation.response or not trials_of(task).exists():
            return None
        table = read_table(trials_of(task))
        keep = table["estimated"].astype(str).str.lower().eq("true").to_numpy()
        if keep.sum() < 2:
            continue
        used.append(task)
        kept.append(keep)
        # What the events say of a trial stays with it: labels to decode, conditions to tell apart.
        events = trials_shown(task).loc[keep].reset_index(drop=True)
        own = {
            "stimulus_id": table.loc[keep, "stim_id"].to_numpy(), "run": task.run.name, "session": task.run.ses or "",
            "task": task.run.task, "run_label": task.run.run,
        }  # fmt: skip
        items.append(events.drop(columns=["trial", *own], errors="ignore").assign(**own))
    if not used:
        return None
    groups = (Group("brain", RunsOfTrials(used, kept)),)
    return Patterns(pd.concat(items, ignore_index=True), groups, tasks[0].space)


def residuals_of(table: Patterns | None) -> RunsOfResiduals | None:
    """The residuals that belong to single trials of `trials`."""
    return None if table is None else RunsOfResiduals(table.groups[0].values.tasks, table.groups[0].values.kept)
