"""Which of many stimuli was seen: measured patterns recognised by what a model predicts for each stimulus.

The one idea: correlations of all predictions with all measurements are one product of two standardised tables, and a
relabelling of the measurements is that product's columns in another order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.scores import standardise

Float = NDArray[np.float64]


class Identified(NamedTuple):
    """How well stimuli were identified."""

    top1: float
    """Share of items whose own prediction correlates with them most; ties share the credit."""
    rank: float
    """Mean share of the other items' predictions that correlate less with an item than its own; chance is a half."""
    p: float
    """Of the rank."""
    p_top1: float


def identify(
    prediction: ArrayLike, y: ArrayLike, orders: ArrayLike, *, candidates: ArrayLike | None = None
) -> Identified:
    """Measured patterns were matched with the predictions of all held-out stimuli by their correlation over voxels.

    As Kay et al. (2008, Nature 452, 352-355). Relabellings exchange the measured patterns and leave the predictions as
    they are, of a single training part; where predictions come from several folds, give the patterns less their
    training part's mean, as `deviations` does.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
        Of held-out items; a voxel that is not finite in both is left out.
    orders : array-like of int, shape (P, n)
    candidates : array-like of bool, shape (n, n), optional
        Which predictions (columns) an item (row) is compared with: those of its fold, or of other stimuli. All by
        default; an item's own always.

    Returns
    -------
    Identified
        NaN if fewer than two voxels are usable.

    Raises
    ------
    ValueError
        If shapes disagree, or there are fewer than two items.
    """
    guess, true = np.asarray(prediction, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n = len(true)
    if guess.shape != true.shape or guess.ndim != 2 or n < 2:
        raise ValueError(f"prediction, y: expected two tables of 2 items or more, got {guess.shape} and {true.shape}")
    usable = np.isfinite(guess).all(axis=0) & np.isfinite(true).all(axis=0)
    if usable.sum() < 2:
        return Identified(*[float("nan")] * 4)
    with np.errstate(invalid="ignore"):
        # r of measured pattern i with prediction j; a pattern that does not vary agrees with nothing.
        r = np.nan_to_num(standardise(true[:, usable].T).T @ standardise(guess[:, usable].T))
    compared = np.ones((n, n), dtype=bool) if candidates is None else np.asarray(candidates, dtype=bool).copy()
    np.fill_diagonal(compared, val=True)
    every = np.vstack([np.arange(n), np.asarray(orders, dtype=int)])
    scores = np.array([_credit(r[order], compared) for order in every])
    p = pvalue(scores[0], scores[1:])
    return Identified(float(scores[0, 0]), float(scores[0, 1]), float(p[1]), float(p[0]))


def _credit(r: Float, compared: NDArray[np.bool_]) -> tuple[float, float]:
    """Top-1 and rank accuracy of correlations whose diagonal is right."""
    own = np.diag(r)[:, None]
    # Equal patterns differ by rounding.
    more, less = (compared & (r > own + 1e-12)).sum(axis=1), (compared & (r < own - 1e-12)).sum(axis=1)
    others = compared.sum(axis=1) - 1
    tied = others - more - less
    top = np.where(more == 0, 1 / (1 + tied), 0.0)
    rank = np.divide(less + tied / 2, others, out=np.full(len(r), 0.5), where=others > 0)
    return float(top.mean()), float(rank.mean())
