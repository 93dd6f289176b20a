"""How the items of a table are held out and relabelled: stimuli at random, volumes of a series as stretches of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bidsdnn.lookup import summary
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.scores import Split
from bidsdnn.methods.time_folds import circular_shifts, clips_of, time_folds
from bidsdnn.parallel import seed_for


@dataclass(frozen=True, eq=False)
class Folding:
    """Folds, relabellings, and how reports speak of both.

    Parameters
    ----------
    splits : list of (train, test)
    orders : ndarray of int, shape (permutations, n), or None
        Relabellings of the items; None for random ones.
    unit : str
        What is held out.
    gap : str
        What is left out of training, as the end of a sentence.
    test : str
        What relabellings are.
    method : str
        Sentences for the Methods; empty where items are stimuli.
    """

    splits: list[Split]
    orders: np.ndarray | None
    unit: str
    gap: str
    test: str
    method: str


def is_series(items: pd.DataFrame) -> bool:
    """Whether items are moments of stimuli, which have neighbours."""
    return {"stimulus", "time", "shown"} <= set(items.columns)


def folding(items: pd.DataFrame, *, n_splits: int, purge: float, permutations: int, seed: int) -> Folding:
    """Choose folds and relabellings by what the items are.

    Parameters
    ----------
    items : DataFrame
        Of `Patterns`. Moments of stimuli have ``stimulus``, ``time`` and ``shown``, as `series` gives them.
    n_splits : int
        Folds; at most so many of a series.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.
    permutations : int
    seed : int

    Returns
    -------
    Folding

    Raises
    ------
    ValueError
        As `kfold` and `time_folds`.
    """
    if not is_series(items):
        splits = kfold(len(items), n_splits, seed=seed_for(seed, "folds"))
        return Folding(splits, None, "stimuli", "", "permutations of the stimulus labels", "")
    clips = clips_of(items["stimulus"], items["time"], items["shown"])
    splits, unit = time_folds(clips, n_splits=n_splits, purge=purge)
    orders = circular_shifts(clips, permutations=permutations, seed=seed_for(seed, "shifts"))
    return Folding(
        splits, orders, unit, f", volumes within {purge:g} s of those left out of training",
        "circular shifts of the responses in time", f" {summary(time_folds)} {summary(circular_shifts)}",
    )  # fmt: skip
