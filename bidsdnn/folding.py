"""How the items of a table are held out and relabelled: by what was asked with ``--cv``, and by what the items are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.names import natural
from bidsdnn.config_tables import CrossValidation
from bidsdnn.lookup import summary
from bidsdnn.methods.folds import block_orders, blocks_out, group_folds
from bidsdnn.methods.scores import Split
from bidsdnn.methods.time_folds import circular_shifts, clips_of, near, time_folds
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Patterns

logger = logging.getLogger(__name__)

FEWEST_HELD_OUT = 3
"""Items of a single split's test part, below which r says nothing."""
_FEW = 20
"""With fewer relabellings than this, no p is below .05."""


@dataclass(frozen=True, eq=False)
class Folding:
    """Folds, relabellings, and how reports speak of both.

    Parameters
    ----------
    splits : list of (train, test)
        They hold out every item once, or are a single split, whose items may be in neither part.
    orders : ndarray of int, shape (permutations, n)
        Relabellings of the items; of a single split, of those held out alone.
    unit : str
        What is held out.
    gap : str
        What is left out of training, as the end of a sentence.
    test : str
        What relabellings are.
    method : str
        Sentences for the Methods; may be empty.
    series : bool
        Whether items are moments in time, which have neighbours.
    """

    splits: list[Split]
    orders: np.ndarray
    unit: str
    gap: str
    test: str
    method: str
    series: bool = False

    @property
    def single(self) -> bool:
        """Whether there is one split, whose fit a relabelling of what is held out does not change."""
        return len(self.splits) == 1

    @property
    def tested(self) -> np.ndarray:
        """Items that are held out, sorted."""
        return np.sort(np.concatenate([test for _, test in self.splits]))

    @property
    def said(self) -> str:
        """How many folds of what, for a sidecar."""
        if not self.single:
            return f"{len(self.splits)} folds over {self.unit}"
        train, test = self.splits[0]
        return f"a given split: trained on {len(train)} {self.unit}, tested on {len(test)}"


def is_series(items: pd.DataFrame) -> bool:
    """Whether items are moments of stimuli, which have neighbours."""
    return {"stimulus", "time", "shown"} <= set(items.columns)


def items_for(cv: str, y: Patterns, trials: Patterns | None) -> Patterns:
    """Give the responses that a cross-validation can hold out: of stimuli, or of stimuli in each run or session.

    Parameters
    ----------
    cv : str
        As `CrossValidation.parse` reads it.
    y : Patterns
        Responses to stimuli, or moments of a series, which know their runs.
    trials : Patterns or None
        Single trials, with ``run`` and ``session``.

    Returns
    -------
    Patterns

    Raises
    ------
    ValueError
        If runs or sessions are to be held out and there are no single trials.
    """
    kind = CrossValidation.parse(cv).kind
    if kind not in ("run", "session") or is_series(y.items):
        return y
    if trials is None:
        raise ValueError(
            f"--cv {cv}: these responses are averages over runs; choose an estimator of single trials, as "
            "--response lss, or --cv kfold:10"
        )
    return trials.average("session", "run") if kind == "run" else trials.average("session")


def n_items_for(cv: str, y: Patterns, trials: Patterns | None) -> int:
    """How many items `items_for` would give, without making them."""
    kind = CrossValidation.parse(cv).kind
    if kind not in ("run", "session") or is_series(y.items) or trials is None:
        return len(y)
    columns = ["stimulus_id", "session", "run"] if kind == "run" else ["stimulus_id", "session"]
    return len(trials.items[columns].astype(str).drop_duplicates())


def folding(
    items: pd.DataFrame,
    *,
    permutations: int,
    seed: int,
    cv: str = "kfold:10",
    parts: pd.DataFrame | None = None,
    purge: float = 20.0,
    keep_together: str | None = "stimulus_id",
    relabel_together: str | None = "stimulus_id",
    fewest: int = 2,
) -> Folding:
    """Choose folds and relabellings by what was asked and what the items are.

    Parameters
    ----------
    items : DataFrame
        Of `Patterns`. Moments of stimuli have ``stimulus``, ``time`` and ``shown``, as `series` gives them; responses
        in runs or sessions have ``run`` or ``session``, and are relabelled within these.
    permutations : int
    seed : int
    cv : str
        As `CrossValidation.parse` reads it.
    parts : DataFrame, optional
        For ``column:NAME``: ``stimulus_id`` and ``value``, which is train or test.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.
    keep_together : str or None
        Column of the items; items that are equal in it are never both trained on and tested. None where each item may
        be held out by itself, as trials are whose stimulus is to be told.
    relabel_together : str or None
        Column of the items; items that are equal in it are relabelled as one, as their labels are. None where each item
        has a label of its own.
    fewest : int
        Items that each fold must have to train on.

    Returns
    -------
    Folding

    Raises
    ------
    ValueError
        In one line with the flag: if items do not suffice for the folds, or the column has gaps.
    """
    asked = CrossValidation.parse(cv)
    try:
        if is_series(items):
            return _of_series(items, asked, parts, purge=purge, permutations=permutations, seed=seed, fewest=fewest)
        splits, unit, gap = _held_out(items, asked, parts, keep_together, seed=seed, fewest=fewest)
    except ValueError as error:
        raise ValueError(f"--cv {cv}: {error}") from error
    tested = splits[0][1] if len(splits) == 1 else np.arange(len(items))
    block, within = _blocks(items)
    orders, count = block_orders(
        block[tested], None if relabel_together is None else items[relabel_together].to_numpy(str)[tested],
        permutations=permutations, seed=seed_for(seed, "relabellings"),
    )  # fmt: skip
    if count < _FEW:
        logger.warning(
            "--cv %s: there are only %.0f relabellings%s; no p can be below %.2g", cv, count, within, 1 / count
        )
    of = "held-out responses" if len(splits) == 1 else "stimulus labels"
    return Folding(
        splits, _among(tested, orders, len(items)), unit, gap, f"permutations of the {of}{within}",
        f" {summary(blocks_out)}" if gap else "",
    )  # fmt: skip


def _held_out(
    items: pd.DataFrame, asked: CrossValidation, parts: pd.DataFrame | None, keep: str | None, *, seed: int, fewest: int
) -> tuple[list[Split], str, str]:
    """Splits of items that are no series, what they hold out, and what they leave out."""
    groups = np.arange(len(items)) if keep is None else items[keep].to_numpy(str)
    unit = "stimuli" if keep == "stimulus_id" else "items"
    if asked.kind == "column":
        split = _given(items["stimulus_id"], asked, parts, fewest=fewest)
        return [split], "stimuli", ""
    if asked.kind in ("kfold", "stimulus"):
        there = len(np.unique(groups))
        n_splits = asked.k if asked.kind == "kfold" else there
        if there < n_splits:
            raise ValueError(
                f"{there} distinct {unit} for {n_splits} folds; give more runs, or fewer folds: "
                f"--cv kfold:{max(2, min(5, there))}"
            )
        splits = group_folds(groups, n_splits, seed=seed_for(seed, "folds"))
        smallest = min(len(train) for train, _ in splits)
        if smallest < fewest:
            raise ValueError(f"{smallest} {unit} are left to train on, fewer than {fewest}; give more runs")
        return splits, unit, ""
    if asked.kind not in items:
        raise ValueError(f"items of no {asked.kind}; use --cv kfold:10")
    where = items[asked.kind].to_numpy(str)
    try:
        order = sorted(set(where), key=natural)
        by_name = np.argsort([order.index(name) for name in where], kind="stable")
        moved = blocks_out(where[by_name].tolist(), None if keep is None else groups[by_name], k=asked.k, fewest=fewest)
    except ValueError as error:
        raise ValueError(f"{error}; use --cv kfold:10, which holds out stimuli") from error
    splits = [(np.sort(by_name[train]), np.sort(by_name[test])) for train, test in moved]
    named = "stimuli" if keep == "stimulus_id" else "items"
    gap = "" if keep is None else f", without items of the {named} held out"
    return splits, f"{asked.kind}s", gap


def _given(ids: pd.Series[Any], asked: CrossValidation, parts: pd.DataFrame | None, *, fewest: int) -> Split:
    """The split that a column gives."""
    if parts is None:
        raise ValueError("no such column was given")
    known = parts.dropna(subset="value").drop_duplicates()
    known = known.assign(value=known["value"].astype(str).str.strip())
    twice = known.loc[known["stimulus_id"].duplicated(), "stimulus_id"]
    if len(twice):
        raise ValueError(f"{twice.iloc[0]!r} is both train and test; give each stimulus one value")
    value = ids.map(known.set_index("stimulus_id")["value"])
    lacking = ids[~value.isin(["train", "test"])].drop_duplicates()
    if len(lacking):
        got = sorted(set(value.dropna()) - {"train", "test"})
        raise ValueError(
            f"{len(lacking)} of {ids.nunique()} stimuli are neither train nor test, the first {lacking.iloc[0]!r}"
            + (f" ({got[0]!r})" if got else "") + "; fill the column with train and test"
        )  # fmt: skip
    train, test = (np.flatnonzero(value == part) for part in ("train", "test"))
    if len(train) < fewest or len(test) < FEWEST_HELD_OUT:
        raise ValueError(
            f"{len(train)} items are train and {len(test)} test; at least {fewest} and {FEWEST_HELD_OUT} are needed"
        )
    return train, test


def _blocks(items: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Within what items may be exchanged: their run or session, if they have one."""
    for column in ("run", "session"):
        if column in items:
            return items[column].to_numpy(str), f" within {column}s"
    return np.zeros(len(items), dtype=int), ""


def _among(tested: np.ndarray, orders: np.ndarray, n: int) -> np.ndarray:
    """Orders of some items as orders of all, in which the others stay."""
    whole = np.tile(np.arange(n, dtype=np.int32), (len(orders), 1))
    whole[:, tested] = tested[orders]
    return whole


def _of_series(
    items: pd.DataFrame, asked: CrossValidation, parts: pd.DataFrame | None, *,
    purge: float, permutations: int, seed: int, fewest: int,
) -> Folding:  # fmt: skip
    """Folds and relabellings of moments of time."""
    clips = clips_of(items["stimulus"], items["time"], items["shown"])
    gap = f", volumes within {purge:g} s of those left out of training"
    tested = np.arange(len(items))
    if asked.kind == "column":
        train, tested = _given(items["stimulus"], asked, parts, fewest=fewest)
        held = np.isin(np.arange(len(items)), tested)
        train = train[~near(clips, held, purge)[train]]
        if len(train) < fewest:
            raise ValueError(f"a gap of {purge:g} s to the held-out stimuli leaves {len(train)} volumes to train on")
        splits, unit = [(train, tested)], "volumes"
    elif asked.kind == "kfold":
        splits, unit = time_folds(clips, n_splits=asked.k, purge=purge)
    elif asked.kind == "run":
        splits, unit = time_folds(clips, runs=asked.k, purge=purge)
    else:
        raise ValueError(
            "volumes of a series are held out as stretches of time; use --cv kfold:10, leave-one-run-out or column:NAME"
        )
    shown = (
        clips
        if len(tested) == len(items)
        else clips_of(*(items[c].iloc[tested] for c in ("stimulus", "time", "shown")))
    )
    orders = circular_shifts(shown, permutations=permutations, seed=seed_for(seed, "shifts"))
    return Folding(
        splits, _among(tested, orders, len(items)), unit, gap,
        "circular shifts of the responses in time", f" {summary(time_folds)} {summary(circular_shifts)}", series=True,
    )  # fmt: skip
