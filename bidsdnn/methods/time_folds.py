"""Folds and relabellings of volumes, which unlike stimuli are not independent of their neighbours.

The one idea: what may be exchanged is time as a whole. Folds are stretches of it, with a gap to what they are trained
on, and a relabelling shifts the responses in time against the features and leaves their autocorrelation as it was;
shuffled volumes would be told from real ones by that alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bidsdnn.methods.scores import Split

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Clips:
    """Rows of a table of time: the moments of stimuli, and when in which recording each was shown.

    Parameters
    ----------
    stimulus : array of str, shape (n,)
        In the order of presentation.
    time : array, shape (n,)
        Seconds into the stimulus.
    row : array of int, shape (m,)
        Which row each presentation shows; a row that is an average of repeats has several.
    run : array of str, shape (m,)
    seconds : array, shape (m,)
        Within the run.

    Raises
    ------
    ValueError
        If shapes disagree, or a row was never shown.
    """

    stimulus: NDArray[np.str_]
    time: NDArray[np.float64]
    row: Index
    run: NDArray[np.str_]
    seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.stimulus.shape != self.time.shape or not self.row.shape == self.run.shape == self.seconds.shape:
            raise ValueError(
                f"clips: expected as many stimuli as times and as many rows as runs and seconds, got "
                f"{self.stimulus.shape}, {self.time.shape}, {self.row.shape}, {self.run.shape}, {self.seconds.shape}"
            )
        if set(self.row.tolist()) != set(range(len(self.stimulus))):
            raise ValueError("row: expected every row to be shown at least once, got others")

    def __len__(self) -> int:
        return len(self.stimulus)

    def families(self) -> Index:
        """Number, for each row, of the set of runs that its run shares stimuli with, shape (n,)."""
        stimuli, stimulus = np.unique(self.stimulus, return_inverse=True)
        runs, run = np.unique(self.run, return_inverse=True)
        links = coo_array(
            (np.ones(len(run)), (stimulus[self.row], len(stimuli) + run)), shape=2 * (len(stimuli) + len(runs),)
        )
        return np.asarray(connected_components(links, directed=False)[1][stimulus], dtype=np.intp)

    def presentations(self) -> list[frozenset[tuple[str, float]]]:
        """Of each row, the runs and onsets of its stimulus that it is from."""
        found: list[set[tuple[str, float]]] = [set() for _ in self.stimulus]
        for row, run, seconds in zip(self.row.tolist(), self.run.tolist(), self.seconds.tolist(), strict=True):
            found[row].add((run, round(seconds - float(self.time[row]), 2)))
        return [frozenset(one) for one in found]


def time_folds(
    clips: Clips, *, n_splits: int = 10, purge: float = 20.0, runs: int | None = None
) -> tuple[list[Split], str]:
    """Held out were whole runs, stimuli or stretches of time, and what lay near them was left out of training.

    Runs that show the same stimulus stay together, so that no stimulus is both trained on and tested. If that leaves
    all runs together, stimuli are held out; of a single stimulus, stretches of equal length.

    Parameters
    ----------
    clips : Clips
    n_splits : int
        At most so many folds; fewer where there are fewer runs or stimuli.
    purge : float
        Seconds: a row that was shown within so much time of a held-out one, in any run or within its stimulus, is not
        trained on.
    runs : int, optional
        Runs that are held out together, in place of ``n_splits``; then nothing but runs is held out.

    Returns
    -------
    splits : list of (train, test)
        Sorted index arrays; every row is held out once.
    unit : str
        ``runs``, ``stimuli`` or ``stretches of time``.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds or rows than folds, the gap is negative, or leaves a fold nothing to train on;
        if runs are asked for, and too few show stimuli of their own.
    """
    if n_splits < 2:
        raise ValueError(f"n_splits: expected at least 2 folds, got {n_splits}")
    if not 0 <= purge < np.inf:
        raise ValueError(f"purge: expected seconds, 0 or more, got {purge}")
    groups, unit = clips.families(), "runs"
    families = len(set(groups.tolist()))
    if runs is not None and families <= runs:
        raise ValueError(
            f"runs: {families} of the {len(set(clips.run.tolist()))} runs or sets of runs share no stimulus with "
            f"another; to hold out {runs}, more are needed"
        )
    if families < 2:
        groups, unit = np.unique(clips.stimulus, return_inverse=True)[1], "stimuli"
    if len(set(groups.tolist())) < 2:
        groups, unit = np.unique(clips.time, return_inverse=True)[1], "stretches of time"
        order = np.unique(groups)
    else:
        order = groups[np.sort(np.unique(groups, return_index=True)[1])]
    if len(order) < 2:
        raise ValueError("clips: expected several moments of time, got one")
    folds = min(n_splits, len(order)) if runs is None else -(-len(order) // runs)
    splits = []
    for held_out in np.array_split(order, folds):
        test = np.isin(groups, held_out)
        train = ~test & ~near(clips, test, purge)
        if train.sum() < 2:
            raise ValueError(
                f"purge: a gap of {purge:g} s to the held-out {unit} leaves {int(train.sum())} of {len(clips)} volumes "
                "to train on; make it smaller, or give more runs"
            )
        splits.append((np.flatnonzero(train), np.flatnonzero(test)))
    return splits, unit


def near(clips: Clips, test: NDArray[np.bool_], purge: float) -> NDArray[np.bool_]:
    """Rows that were shown within some seconds of a held-out row, in any run or within its stimulus.

    Parameters
    ----------
    clips : Clips
    test : array of bool, shape (n,)
    purge : float
        Seconds.

    Returns
    -------
    array of bool, shape (n,)
    """
    found = np.zeros(len(clips), dtype=bool)
    for run in np.unique(clips.run):
        here = clips.run == run
        rows, seconds = clips.row[here], clips.seconds[here]
        found[rows] |= _distance(seconds, seconds[test[rows]]) < purge
    for name in np.unique(clips.stimulus):
        here = clips.stimulus == name
        found[here] |= _distance(clips.time[here], clips.time[here & test]) < purge
    return found


def _distance(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each time to the nearest of some others."""
    bounded = np.concatenate([[-np.inf], np.sort(others), [np.inf]])
    after = np.searchsorted(bounded, times)
    return np.minimum(times - bounded[after - 1], bounded[after] - times)


def circular_shifts(clips: Clips, *, permutations: int, seed: int) -> Index:
    """Responses were shifted in time within runs, by random amounts, what runs off one end coming in at the other.

    Autocorrelation stays as it is but for the seams (Nastase et al., 2019, Social Cognitive and Affective Neuroscience
    14, 667-685). Runs that share stimuli are one table of averages and are shifted as one; where repeats of a
    stimulus stand beside each other, all are shifted alike, as what they have in common is no evidence.

    Parameters
    ----------
    clips : Clips
        Rows in the order of presentation.
    permutations : int
    seed : int

    Returns
    -------
    array of int, shape (permutations, n)
        Orders of the rows; shifts by nothing are among those drawn.

    Raises
    ------
    ValueError
        If there are no permutations.
    """
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    strands = _strands(clips)
    names = list(dict.fromkeys(shared for shared, _ in strands))
    drawn = dict(zip(names, np.random.default_rng(seed).random((len(names), permutations)), strict=True))
    orders = np.empty((permutations, len(clips)), dtype=np.intp)
    for shared, rows in strands:
        shifts = np.floor(drawn[shared] * len(rows)).astype(np.intp)
        orders[:, rows] = rows[(np.arange(len(rows)) - shifts[:, None]) % len(rows)]
    return orders


def _strands(clips: Clips) -> list[tuple[object, Index]]:
    """Rows that are shifted in a ring, each with the name of those that are shifted alike."""
    presentations = clips.presentations()
    common: dict[str, frozenset[tuple[str, float]]] = {}
    rows_of: dict[tuple[str, frozenset[tuple[str, float]]], list[int]] = {}
    for row, (name, shown) in enumerate(zip(clips.stimulus.tolist(), presentations, strict=True)):
        common[name] = common.get(name, shown) & shown
        rows_of.setdefault((name, shown), []).append(row)
    if all(common.values()):
        families = clips.families()
        return [(int(family), np.flatnonzero(families == family)) for family in np.unique(families)]
    return [(name, np.array(rows)) for (name, _), rows in rows_of.items()]


def clips_of(stimulus: ArrayLike, time: ArrayLike, shown: ArrayLike) -> Clips:
    """Read when each row was shown from text such as ``run-1@12.5 run-2@30``.

    Parameters
    ----------
    stimulus : array-like of str, shape (n,)
    time : array-like, shape (n,)
    shown : array-like of str, shape (n,)
        Runs and seconds within them, ``<run>@<seconds>``, with spaces between.

    Returns
    -------
    Clips
    """
    parts = [(row, *one.rsplit("@", 1)) for row, text in enumerate(np.asarray(shown, str)) for one in text.split()]
    return Clips(
        np.asarray(stimulus, dtype=str),
        np.asarray(time, dtype=np.float64),
        np.array([row for row, _, _ in parts], dtype=np.intp),
        np.array([run for _, run, _ in parts], dtype=str),
        np.array([float(seconds) for _, _, seconds in parts]),
    )
