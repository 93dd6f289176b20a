"""A participant's single trials as one table, read from the runs' files when a block of columns is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.files import read_table
from bidsdnn.patterns import Group, Patterns
from bidsdnn.single_trials import Task, betas_path, trials_of


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

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        rows, columns = key
        parts = []
        for task, keep in zip(self.tasks, self.kept, strict=True):
            betas = task.space.read(betas_path(task))[keep][:, columns]
            centred = betas - betas.mean(axis=0, dtype=np.float64).astype(np.float32)
            spread = centred.std(axis=0, dtype=np.float64).astype(np.float32)
            parts.append(np.divide(centred, spread, out=np.full_like(centred, np.nan), where=spread > 0))
        return np.vstack(parts)[rows]


def trials(tasks: Sequence[Task]) -> Patterns:
    """Find a participant's single trials, without reading their responses.

    Parameters
    ----------
    tasks : sequence of Task
        One a run, whose responses have been written.

    Returns
    -------
    Patterns
        One item a trial that was estimated, with ``run`` and ``session``; runs of one usable trial are left out.
    """
    used, kept, items = [], [], []
    for task in tasks:
        table = read_table(trials_of(task))
        keep = table["estimated"].astype(str).str.lower().eq("true").to_numpy()
        if keep.sum() < 2:
            continue
        used.append(task)
        kept.append(keep)
        shown = table.loc[keep, "stim_id"].to_numpy()
        items.append(pd.DataFrame({"stimulus_id": shown, "run": task.run.name, "session": task.run.ses or ""}))
    return Patterns(pd.concat(items, ignore_index=True), (Group("brain", RunsOfTrials(used, kept)),), tasks[0].space)
