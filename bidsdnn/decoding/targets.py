"""What is to be decoded: a column's values, of which items, as classes or as numbers.

The one idea: a value belongs to a stimulus, or to a trial. Of stimuli, the stimuli are the items, and none is both
trained on and tested. Where each class is one stimulus, or a stimulus' trials differ, trials (or their means within
runs) are the items, and runs are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.patterns import Patterns

ITEMS = ("run", "trial")
"""What an item is where trials bear the labels: a stimulus' mean in a run, or a trial."""
LABEL = "label"


@dataclass(frozen=True, eq=False)
class Target:
    """One column, understood.

    Parameters
    ----------
    name : str
    table : Patterns
        Responses to the items that have a label.
    labels : ndarray, shape (n,)
        Classes from 0, or numbers.
    classes : tuple of str
        Their names; empty for numbers.
    bearer : str
        What bears a label: ``stimulus``; ``identity``, if each class is one stimulus; ``trial``, if one stimulus'
        trials differ.
    left_out : int
        Items without a label.
    """

    name: str
    table: Patterns
    labels: np.ndarray
    classes: tuple[str, ...]
    bearer: str
    left_out: int = 0

    @property
    def kind(self) -> str:
        """``classes`` or ``numbers``."""
        return "classes" if self.classes else "numbers"


def understood(
    name: str, column: pd.DataFrame, y: Patterns, trials: Patterns | None, *, numeric: bool | None, by_run: bool,
    items: str = "run", kept: Sequence[str] = (),
) -> Target:  # fmt: skip
    """Find the items of a column, and their labels.

    Parameters
    ----------
    name : str
    column : DataFrame
        ``stimulus_id`` and ``value`` as text, a row a trial or a stimulus.
    y : Patterns
        Responses to stimuli.
    trials : Patterns or None
        Single trials, with ``run``, ``session`` and the columns of the events.
    numeric : bool or None
        Whether values are numbers; None: if all are, and there are more than two.
    by_run : bool
        Whether the responses are to be told apart by run, as cross-validation over runs and cross-decoding ask.
    items : str
        Of `ITEMS`.
    kept : sequence of str
        Columns of the trials whose values must not be mixed in an item.

    Returns
    -------
    Target

    Raises
    ------
    DataError
        If no item has a label, all have the same, or trials are needed and there are none.
    """
    rows = column[column["value"].notna() & column["stimulus_id"].isin(y.ids)]
    if rows.empty:
        raise DataError(f"--target {name}: none of the {len(y)} stimuli has a value; check the column and its ids")
    numbers = pd.to_numeric(rows["value"], errors="coerce")
    if numeric is None:
        numeric = bool(np.isfinite(numbers).all()) and numbers.nunique() > 2
    elif numeric and not np.isfinite(numbers).all():
        wrong = rows["value"][~np.isfinite(numbers)].iloc[0]
        raise DataError(f"--target {name}: {wrong!r} is no number; choose a decoder of classes, as --decoder logistic")
    bearer = "stimulus" if numeric else _bearer(rows)
    if bearer == "stimulus" and not by_run:
        of_stimuli = (numbers if numeric else rows["value"]).groupby(rows["stimulus_id"].to_numpy())
        values = (of_stimuli.mean() if numeric else of_stimuli.first()).reindex(y.ids)
        table = y
    else:
        table = _of_trials(name, rows, trials, bearer, numeric=numeric, items=items, kept=kept)
        values = table.items[LABEL]
    known = values.notna().to_numpy()
    table = table if known.all() else table.take(np.flatnonzero(known))
    return _coded(Target(name, table, values[known].to_numpy(), (), bearer, int((~known).sum())), numeric)


def _bearer(rows: pd.DataFrame) -> str:
    """What bears the labels of classes."""
    pairs = rows[["stimulus_id", "value"]].drop_duplicates()
    if pairs["stimulus_id"].duplicated().any():
        return "trial"
    return "stimulus" if pairs["value"].duplicated().any() else "identity"


def _of_trials(
    name: str, rows: pd.DataFrame, trials: Patterns | None, bearer: str, *, numeric: bool, items: str,
    kept: Sequence[str],
) -> Patterns:  # fmt: skip
    """Trials with their labels, or their means within each run, stimulus and label."""
    if trials is None:
        raise DataError(
            f"--target {name}: these responses are averages over runs, and runs have to be told apart here; "
            "choose an estimator of single trials, as --response lss"
        )
    if bearer == "trial":
        if name not in trials.items:
            pairs = rows[["stimulus_id", "value"]].drop_duplicates()
            twice = pairs.loc[pairs["stimulus_id"].duplicated(), "stimulus_id"].iloc[0]
            first, second = pairs.loc[pairs["stimulus_id"] == twice, "value"].iloc[:2]
            raise DataError(
                f"--target {name}: stimulus {twice} is both {first!r} and {second!r}; give each stimulus one value, or "
                "take the column from the events"
            )
        labels = trials.items[name].map(str, na_action="ignore")
    else:
        numbers = pd.to_numeric(rows["value"]) if numeric else rows["value"]
        grouped = numbers.groupby(rows["stimulus_id"].to_numpy())
        labels = trials.items["stimulus_id"].map(grouped.mean() if numeric else grouped.first())
    table = replace(trials, items=trials.items.assign(**{LABEL: labels}))
    known = np.flatnonzero(labels.notna())
    if items == "trial" or not len(known):
        return table
    named = [
        column for column in dict.fromkeys(["session", "run", "run_label", "task", *kept]) if column in table.items
    ]
    # An average keeps no label that varies within it: the labels are part of what is averaged within.
    means = table.take(known).average(*named, LABEL) if len(known) < len(table) else table.average(*named, LABEL)
    if numeric:
        means = replace(means, items=means.items.assign(**{LABEL: pd.to_numeric(means.items[LABEL])}))
    return means


def _coded(target: Target, numeric: bool) -> Target:
    """Labels as numbers or as codes of classes, none of which is all there is."""
    if not len(target.labels):
        raise DataError(f"--target {target.name}: no item has a value; check the column and its ids")
    if numeric:
        labels = target.labels.astype(float)
        if np.ptp(labels) == 0:
            raise DataError(f"--target {target.name}: all {len(labels)} items have {labels[0]:g}; nothing to decode")
        return replace(target, labels=labels)
    classes, codes = np.unique(target.labels.astype(str), return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"--target {target.name}: all {len(codes)} items are {str(classes[0])!r}; there is nothing to decode"
        )
    return replace(target, labels=codes, classes=tuple(map(str, classes)))
