"""Which of many stimuli was seen: measured patterns recognised by what a model predicts for each stimulus.

The one idea: the correlation over voxels of every prediction with every measurement needs the items' inner products
alone, and those of a relabelling are the same numbers in another order; so a test that predicts anew costs a few small
products, however many voxels there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.predict import mean_operator
from bidsdnn.methods.reduce import gram
from bidsdnn.methods.scores import Split, standardise, training_means

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Identified(NamedTuple):
    """How well stimuli were identified."""

    top1: float
    """Share of items whose own prediction correlates with them most; ties share the credit."""
    rank: float
    """Mean share of the other items' predictions that correlate less with an item than its own; chance is a half."""
    chance: float
    """Of top-1: one over the number of candidates, on average over items."""


def identify(
    prediction: ArrayLike, y: ArrayLike, splits: Sequence[Split], *, ids: ArrayLike | None = None
) -> Identified:
    """Measured patterns were matched with predictions of the stimuli held out with them, by correlation over voxels.

    After Kay et al. (2008, Nature 452, 352-355). Both are taken less the mean of the training part, voxel by voxel, so
    that what all patterns share says nothing. A prediction of another fold is no candidate: its model was trained on
    the very pattern that is to be identified.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
        A voxel that is not finite in both, or does not vary, is left out; voxels are scaled by their spread.
    splits : sequence of (train, test)
        Items that no fold holds out are left out.
    ids : array-like, shape (n,), optional
        Stimulus of each item: an item is not compared with others of its own stimulus.

    Returns
    -------
    Identified
        Over the items that have candidates; NaN if none has, as with one item a fold, or fewer than two voxels are
        usable.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    guess, true = np.asarray(prediction, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if guess.shape != true.shape or guess.ndim != 2:
        raise ValueError(f"prediction, y: expected two tables of one shape, got {guess.shape} and {true.shape}")
    held = np.unique(np.concatenate([test for _, test in splits]))
    compared = candidates(splits, len(true), ids)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(guess[held]).all(axis=0) & np.isfinite(true).all(axis=0) & (true.std(axis=0) > 0)
    if usable.sum() < 2 or not compared.any():
        return Identified(float("nan"), float("nan"), float("nan"))
    guess, true = guess[:, usable], true[:, usable]
    spread, mean = true.std(axis=0), training_means(true, splits)
    r = np.zeros(compared.shape)
    with np.errstate(invalid="ignore"):
        # r of measured pattern i with prediction j; a pattern that does not vary agrees with nothing.
        known, foretold = (standardise(((side - mean)[held] / spread).T) for side in (true, guess))
    r[np.ix_(held, held)] = np.nan_to_num(known.T @ foretold)
    among = compared.sum(axis=1)
    return Identified(*_credit(r, compared), float((1 / (1 + among[among > 0])).mean()))


def candidates(splits: Sequence[Split], n: int, ids: ArrayLike | None = None) -> Mask:
    """Whose predictions, beside its own, an item is compared with: those of other stimuli held out with it, (n, n)."""
    names = np.arange(n) if ids is None else np.asarray(ids)
    fold = np.full(n, -1)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    return np.asarray((fold[:, None] == fold) & (fold >= 0) & (names[:, None] != names))


def identification_permutation(
    operator: ArrayLike, y: ArrayLike, splits: Sequence[Split], orders: ArrayLike, *, ids: ArrayLike | None = None
) -> tuple[float, float]:
    """Identification was tested by permuting the items' labels and predicting anew, penalty fixed.

    Parameters
    ----------
    operator : array-like, shape (n, n)
        Its product with the targets is every held-out prediction, as `predict.prediction_operator`.
    y : array-like, shape (n, V)
    splits : sequence of (train, test)
        Together they hold out every item once.
    orders : array-like of int, shape (P, n)
        Relabellings.
    ids : array-like, shape (n,), optional
        As of `identify`.

    Returns
    -------
    p_top1, p_rank : float
        (1 + b) / (1 + P); NaN if fewer than two voxels are usable.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    h, table, orders = np.asarray(operator, dtype=np.float64), np.asarray(y), np.asarray(orders, dtype=int)
    n = len(h)
    if h.shape != (n, n) or len(table) != n or orders.ndim != 2 or orders.shape[1] != n:
        raise ValueError(
            f"operator, y, orders: expected shapes (n, n), (n, V), (P, n), got {h.shape}, {table.shape}, {orders.shape}"
        )
    # Relabelling changes neither a voxel's mean nor its spread.
    table = standardise(table)
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] < 2 or not candidates(splits, n, ids).any():
        return float("nan"), float("nan")
    inner = gram(table - table.mean(axis=1, keepdims=True))[0]
    base = mean_operator(splits, n)
    predicts, measures = h - base, np.eye(n) - base
    compared = candidates(splits, n, ids)
    scores = np.empty((1 + len(orders), 2))
    for number, order in enumerate(np.vstack([np.arange(n), orders])):
        moved = inner[np.ix_(order, order)]
        ahead, measured = predicts @ moved, measures @ moved
        across = measured @ predicts.T
        lengths = np.sqrt(
            np.outer(np.einsum("ij,ij->i", measured, measures), np.einsum("ij,ij->i", ahead, predicts)).clip(0)
        )
        r = np.divide(across, lengths, out=np.zeros_like(across), where=lengths > 1e-12 * np.abs(inner).max())
        scores[number] = _credit(r, compared)
    p = pvalue(scores[0], scores[1:])
    return float(p[0]), float(p[1])


def _credit(r: Float, compared: Mask) -> tuple[float, float]:
    """Top-1 and rank accuracy of correlations (n, n) whose diagonal is right."""
    some = compared.any(axis=1)
    r, compared, own = r[some], compared[some], np.diag(r)[some, None]
    # Equal patterns differ by rounding.
    more, less = (compared & (r > own + 1e-9)).sum(axis=1), (compared & (r < own - 1e-9)).sum(axis=1)
    among = compared.sum(axis=1)
    tied = among - more - less
    return float(np.where(more == 0, 1 / (1 + tied), 0.0).mean()), float(((less + tied / 2) / among).mean())
