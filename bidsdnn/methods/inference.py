"""Tests over participants and corrections for many tests.

The one idea: a p-value counts how often a relabelled world does as well as the observed one, which is itself
counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]

_FLIPS = 1024
_FEATURES = 8192
"""Sign-flips and features multiplied at a time."""


def pvalue(observed: ArrayLike, null: ArrayLike, *, tolerance: float = 1e-10) -> Float:
    """One-sided p is (1 + b) / (1 + m): b of m relabellings reach the observed value.

    Phipson & Smyth (2010), Statistical Applications in Genetics and Molecular Biology 9, 39.

    Parameters
    ----------
    observed : array-like, any shape
    null : array-like, shape (m, *observed.shape)
        Values under relabelling, the identity not among them.
    tolerance : float
        Differences up to this are ties, which count as reached: equal sums differ by rounding.

    Returns
    -------
    array, of the shape of ``observed``
        NaN where the observed or a null value is NaN.

    Raises
    ------
    ValueError
        If the shapes disagree or the null is empty.
    """
    observed, null = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if null.shape[1:] != observed.shape or not len(null):
        raise ValueError(f"null: expected shape (m, *{observed.shape}) with m of at least 1, got {null.shape}")
    reached = (null >= observed - tolerance).sum(axis=0)
    unknown = np.isnan(observed) | np.isnan(null).any(axis=0)
    return np.where(unknown, np.nan, (1 + reached) / (1 + len(null)))


def sign_flip(
    values: ArrayLike, *, permutations: int = 1000, seed: int = 0, enumerate_up_to: int = 12
) -> tuple[Float, Float]:
    """Participants' scores were tested against zero by flipping the signs of whole participants, one-sided.

    Under the null a participant's score is as likely as its negative (Nichols & Holmes, 2002, Human Brain
    Mapping 15, 1-25). The sum of squares does not change under flips, so ordering by the sum is ordering by
    t.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant. NaN is a participant who is missing from that feature.
    permutations : int
        Random flips, where they are not enumerated.
    seed : int
        Of the random flips.
    enumerate_up_to : int
        Up to this many participants, all 2^n flips are used, the identity among them.

    Returns
    -------
    t : array, shape (F,)
        mean / (sd / sqrt(n)) over the participants present; infinite if all have the same score other than
        zero.
    p : array, shape (F,)
        Share of flips whose sum reaches the observed one; (1 + b) / (1 + permutations) for random flips. Both
        are NaN where fewer than two participants are present or all scores are zero.

    Raises
    ------
    ValueError
        If there are fewer than 2 participants, or no permutations.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 2:
        raise ValueError(f"values: expected at least 2 participants in shape (n, F), got {scores.shape}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    n = len(scores)
    present = np.isfinite(scores)
    scores = np.where(present, scores, 0)
    tested = (present.sum(axis=0) >= 2) & (scores != 0).any(axis=0)
    flips, sampled = _flips(n, permutations, seed, enumerate_up_to)
    p = np.full(scores.shape[1], np.nan)
    for features in blocks(scores.shape[1], _FEATURES):
        part = scores[:, features]
        # Equal sums in another order differ by rounding, relative to the size of what is summed.
        threshold = part.sum(axis=0) - 1e-12 * np.abs(part).sum(axis=0)
        reached = sum((flips[some] @ part >= threshold).sum(axis=0) for some in blocks(len(flips), _FLIPS))
        p[features] = (sampled + reached) / (sampled + len(flips))
    p[~tested] = np.nan
    return np.where(tested, _student(scores, present), np.nan), p


def sign_flip_familywise(
    values: ArrayLike, *, permutations: int = 1000, seed: int = 0, enumerate_up_to: int = 12
) -> Float:
    """Family-wise p of participants' scores: how often the largest t of a sign flip reaches the observed one.

    Westfall & Young (1993), Resampling-based multiple testing; Nichols & Holmes (2002), Human Brain Mapping 15,
    1-25. A score's sum over the root of its sum of squares, which flips do not change, orders flips as t does and,
    of scores with as many participants, orders scores as well.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant, a column for each member of the family. NaN is a participant who is missing.
    permutations, seed, enumerate_up_to : int
        As in `sign_flip`, whose flips are the same.

    Returns
    -------
    array, shape (F,)
        NaN where `sign_flip` gives NaN; such a score is not part of the family.

    Raises
    ------
    ValueError
        If there are fewer than 2 participants, or no permutations.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 2:
        raise ValueError(f"values: expected at least 2 participants in shape (n, F), got {scores.shape}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    present = np.isfinite(scores)
    scores = np.where(present, scores, 0)
    tested = (present.sum(axis=0) >= 2) & (scores != 0).any(axis=0)
    p = np.full(scores.shape[1], np.nan)
    if not tested.any():
        return p
    scaled = scores[:, tested] / np.sqrt((scores[:, tested] ** 2).sum(axis=0))
    flips, sampled = _flips(len(scores), permutations, seed, enumerate_up_to)
    largest = np.full(len(flips), -np.inf)
    for features in blocks(scaled.shape[1], _FEATURES):
        for some in blocks(len(flips), _FLIPS):
            np.maximum(largest[some], (flips[some] @ scaled[:, features]).max(axis=1), out=largest[some])
    below = np.searchsorted(np.sort(largest), scaled.sum(axis=0) - 1e-12 * len(scores))
    p[tested] = (sampled + len(flips) - below) / (sampled + len(flips))
    return p


def _flips(n: int, permutations: int, seed: int, enumerate_up_to: int) -> tuple[Float, int]:
    """Signs of participants, a row each flip, and 1 where they were drawn and the identity is to be counted."""
    if n <= enumerate_up_to:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)), 0
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n)), 1


def fdr(p: ArrayLike) -> Float:
    """The false discovery rate was controlled by Benjamini and Hochberg's procedure.

    Benjamini & Hochberg (1995), Journal of the Royal Statistical Society B 57, 289-300.

    Parameters
    ----------
    p : array-like, any shape
        P-values of one family; NaN are tests that were not made, and are not counted.

    Returns
    -------
    array, of the shape of ``p``
        The smallest rate at which each test would be a discovery; NaN where p is.

    Raises
    ------
    ValueError
        If a p-value lies outside 0 to 1.
    """
    p = np.asarray(p, dtype=np.float64)
    made = ~np.isnan(p)
    tested = p[made]
    if ((tested < 0) | (tested > 1)).any():
        raise ValueError(f"p: expected values from 0 to 1, got {tested.min()} to {tested.max()}")
    order = np.argsort(tested, kind="stable")[::-1]
    raised = tested[order] * len(tested) / np.arange(len(tested), 0, -1)
    rates = np.empty_like(tested)
    rates[order] = np.minimum.accumulate(np.minimum(raised, 1))
    q = np.full(p.shape, np.nan)
    q[made] = rates
    return q


def _student(scores: Float, present: NDArray[np.bool_]) -> Float:
    """One-sample t of each column over the participants present (absent ones hold zeros)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = present.sum(axis=0)
        mean = scores.sum(axis=0) / n
        deviations = np.where(present, scores - mean, 0)
        deviations[np.abs(deviations) < 1e-14 * np.abs(mean)] = 0
        variance = (deviations**2).sum(axis=0) / (n - 1)
        return np.asarray(mean / np.sqrt(variance / n))
