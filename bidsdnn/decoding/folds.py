"""How the items of a target are held out and relabelled.

The one idea: stimuli are dealt to folds class by class, and labels are permuted within folds, so that folds are as
balanced under every relabelling as they are; anything else is held out and relabelled as `folding` says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bidsdnn.bids.filters import event_filter
from bidsdnn.config_tables import CrossValidation
from bidsdnn.decoding.targets import Target
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.folding import Folding, folding
from bidsdnn.methods.folds import block_orders
from bidsdnn.methods.scores import Split
from bidsdnn.parallel import seed_for

DEFAULT = "kfold:10"
OVER_RUNS = "leave-one-run-out"
_SHOWN = {"run": "run_label", "ses": "session"}
"""What a filter calls a column of the items."""


def scheme_for(cv: str | None, bearer: str, name: str) -> str:
    """What is held out, for a target of this kind.

    Parameters
    ----------
    cv : str or None
        As asked.
    bearer : str
        Of `Target`.
    name : str
        Of the target, for the error.

    Returns
    -------
    str

    Raises
    ------
    DataError
        If stimuli are to be held out, and each class is one stimulus.
    """
    if bearer == "stimulus":
        return cv or DEFAULT
    if cv is None:
        return OVER_RUNS
    if bearer == "identity" and CrossValidation.parse(cv).kind in ("kfold", "stimulus", "column"):
        raise DataError(
            f"--cv {cv}: each class of --target {name} is one stimulus, which no decoder knows when it is held out; "
            f"use --cv {OVER_RUNS}"
        )
    return cv


def folds_of(
    target: Target, *, cv: str, parts: pd.DataFrame | None, permutations: int, seed: int, train: str = "",
    test: str = "",
) -> Folding:  # fmt: skip
    """Choose folds and relabellings of a target's items.

    Parameters
    ----------
    target : Target
    cv : str
        From `scheme_for`.
    parts : DataFrame, optional
        For ``column:NAME``.
    permutations, seed : int
    train, test : str
        Filters of the items that are trained on, and that are tested; empty for all.

    Returns
    -------
    Folding

    Raises
    ------
    DataError
        If a class has fewer members than folds, or a fold trains on no member of a class.
    """
    scheme, items = CrossValidation.parse(cv), target.table.items
    if scheme.kind == "kfold" and target.classes and target.bearer == "stimulus" and "run" not in items:
        return _stratified(target, scheme.k, permutations=permutations, seed=seed)
    together = None if target.bearer == "identity" else "stimulus_id"
    try:
        folded = folding(
            items, cv=cv, parts=parts, permutations=permutations, seed=seed_for(seed, target.name),
            keep_together=None if target.bearer == "trial" and scheme.kind in ("run", "session") else together,
            relabel_together="stimulus_id" if target.bearer == "stimulus" else None,
        )  # fmt: skip
    except ValueError as error:
        raise DataError(f"--target {target.name}: {error}") from error
    if train or test:
        folded = replace(folded, splits=_crossed(folded.splits, target, train, test))
    _check_classes(target, folded.splits)
    return folded


def _stratified(target: Target, k: int, *, permutations: int, seed: int) -> Folding:
    """Stimuli of each class were dealt at random into folds, and labels were permuted within folds."""
    codes, name = target.labels, target.name
    counts = np.bincount(codes)
    if counts.min() < k:
        few = target.classes[int(counts.argmin())]
        raise DataError(
            f"--target {name}: class {few!r} has {counts.min()} stimuli, fewer than the {k} folds; "
            + (f"use --cv kfold:{counts.min()}" if counts.min() > 1 else "give more stimuli, or leave it out")
        )
    rng = np.random.default_rng(seed_for(seed, "folds", name))
    fold, dealt = np.empty(len(codes), dtype=int), 0
    for one in range(len(target.classes)):
        members = rng.permutation(np.flatnonzero(codes == one))
        # Where one class ends the next begins, so that folds are of equal size.
        fold[members] = (dealt + np.arange(len(members))) % k
        dealt += len(members)
    splits = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(k)]
    orders, _ = block_orders(fold, permutations=permutations, seed=seed_for(seed, "relabellings", name))
    return Folding(splits, orders, "stimuli, class by class", "", "permutations of the labels within folds", "")


def _crossed(splits: list[Split], target: Target, train: str, test: str) -> list[Split]:
    """Folds that train on some items and test others."""
    seen = target.table.items
    for shown, column in _SHOWN.items():
        if column in seen:
            seen = seen.assign(**{shown: seen[column]})
    try:
        here, there = (event_filter(text)(seen) if text else np.ones(len(seen), dtype=bool) for text in (train, test))
    except ConfigError as error:
        raise ConfigError(str(error).replace("--event-filter", "parameters.decoding: train or test")) from error
    for text, mask, key in ((train, here, "train"), (test, there, "test")):
        if not mask.any():
            raise DataError(
                f"parameters.decoding.{key} = {text!r}: none of {len(seen)} items of --target {target.name}; mend it"
            )
    both = [(learn[here[learn]], judge[there[judge]]) for learn, judge in splits]
    return [(learn, judge) for learn, judge in both if len(judge)]


def _check_classes(target: Target, splits: list[Split]) -> None:
    """A class that is not trained on cannot be told."""
    for learn, judge in splits:
        missing = sorted(set(target.labels[judge]) - set(target.labels[learn])) if target.classes else []
        if missing or len(learn) < 2:
            lacking = f"no item of {target.classes[missing[0]]!r}" if missing else f"{len(learn)} items"
            raise DataError(
                f"--target {target.name}: a fold of {len(judge)} held-out items leaves {lacking} to train on; use "
                "fewer folds, or leave the class out"
            )
