"""Tests over participants and corrections for many tests.

The one idea: a p-value counts how often a relabelled world does as well as the observed one, which is itself
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]

_FLIPS = 240
_FEATURES = 4096
"""Sign-flips and features multiplied at a time: their product stays in the processor's cache."""
_TIES = {"f": 2e-6, "d": 1e-12}
"""Relative difference of sums that are equal, by precision."""


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


@dataclass(frozen=True)
class SignFlips:
    """Tests of scores against zero by sign flips of participants.

    Parameters
    ----------
    t : array, shape (F,)
        mean / (sd / sqrt(n)) over the participants present; infinite if all have the same score other than zero.
    p : array, shape (F,)
        Share of flips whose sum reaches the observed one; (1 + b) / (1 + permutations) for random flips.
    p_fwe : array, shape (F,)
        The same for the largest t of each flip. All three are NaN where fewer than two participants are present or all
        scores are zero; such a score is not part of the family.
    """

    t: Float
    p: Float
    p_fwe: Float


def sign_flips(values: ArrayLike, *, permutations: int = 1000, seed: int = 0, enumerate_up_to: int = 12) -> SignFlips:
    """Participants' scores were tested against zero by flipping the signs of whole participants, one-sided.

    Under the null a participant's score is as likely as its negative (Nichols & Holmes, 2002, Human Brain
    Mapping 15, 1-25). The sum of squares does not change under flips, so ordering by the sum is ordering by
    t; a score's sum over the root of its sum of squares, of scores with as many participants, orders scores as well
    (Westfall & Young, 1993, Resampling-based multiple testing). Flips and scores are multiplied in blocks.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant, a column for each member of the family. NaN is a participant who is missing from
        that feature. float32 is multiplied as it is, anything else as float64.
    permutations : int
        Random flips, where they are not enumerated.
    seed : int
        Of the random flips.
    enumerate_up_to : int
        Up to this many participants, all 2^n flips are used, the identity among them.

    Returns
    -------
    SignFlips

    Raises
    ------
    ValueError
        If there are fewer than 2 participants, or no permutations.
    """
    scores = _scores(values, permutations)
    flips, sampled = signs(len(scores), permutations, seed, enumerate_up_to)
    flips = flips.astype(scores.dtype)
    t, p, p_fwe, observed = (np.full(scores.shape[1], np.nan) for _ in range(4))
    largest = np.full(len(flips), -np.inf)
    for features in blocks(scores.shape[1], _FEATURES):
        tested, scaled, t[features] = standardised(scores[:, features])
        if tested.any():
            # Equal sums in another order differ by rounding, relative to the size of what is summed.
            low = scaled.sum(axis=0) - _TIES[scores.dtype.char] * np.abs(scaled).sum(axis=0)
            reached = _count(flips, scaled, low, largest)
            p[features][tested] = (sampled + reached) / (sampled + len(flips))
            observed[features][tested] = low
    below = np.searchsorted(np.sort(largest), observed)
    known = ~np.isnan(observed)
    p_fwe[known] = (sampled + len(flips) - below[known]) / (sampled + len(flips))
    return SignFlips(t, p, p_fwe)


def sign_flip(
    values: ArrayLike, *, permutations: int = 1000, seed: int = 0, enumerate_up_to: int = 12
) -> tuple[Float, Float]:
    """Give t and p of `sign_flips`, whose parameters these are."""
    found = sign_flips(values, permutations=permutations, seed=seed, enumerate_up_to=enumerate_up_to)
    return found.t, found.p


def sign_flip_familywise(
    values: ArrayLike, *, permutations: int = 1000, seed: int = 0, enumerate_up_to: int = 12
) -> Float:
    """Family-wise p of participants' scores: how often the largest t of a sign flip reaches the observed one.

    That of `sign_flips`, whose parameters these are.
    """
    return sign_flips(values, permutations=permutations, seed=seed, enumerate_up_to=enumerate_up_to).p_fwe


def sign_flips_two_sided(values: ArrayLike, *, permutations: int = 1000, seed: int = 0) -> SignFlips:
    """Participants' differences were tested against zero by flipping the signs of whole participants, two-sided.

    The family holds each difference and its negative: its largest is the largest absolute t.

    Parameters
    ----------
    values : array-like, shape (n, F)
    permutations, seed : int
        As in `sign_flips`.

    Returns
    -------
    SignFlips
        p is twice the smaller of both sides'.
    """
    values = np.asarray(values)
    both = sign_flips(np.hstack([values, -values]), permutations=permutations, seed=seed)
    up, down = np.split(both.p, 2)
    return SignFlips(np.split(both.t, 2)[0], np.minimum(1, 2 * np.fmin(up, down)), np.fmin(*np.split(both.p_fwe, 2)))


def signs(n: int, permutations: int, seed: int, enumerate_up_to: int = 12) -> tuple[Float, int]:
    """Signs of participants, a row each flip, and 1 where they were drawn and the identity is to be counted."""
    if n <= enumerate_up_to:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)), 0
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n)), 1


def standardised(scores: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.floating], Float]:
    """Which columns can be tested, these at a length of 1 with 0 for who is missing, and the t of all."""
    present = np.isfinite(scores)
    scores = np.where(present, scores, 0)
    tested = (present.sum(axis=0) >= 2) & (scores != 0).any(axis=0)
    t = np.where(tested, _student(scores.astype(np.float64), present), np.nan)
    kept = scores[:, tested]
    return tested, kept / np.sqrt((kept**2).sum(axis=0)), t


def _scores(values: ArrayLike, permutations: int) -> NDArray[np.floating]:
    values = np.asarray(values)
    scores: NDArray[np.floating] = values if values.dtype == np.float32 else values.astype(np.float64)
    if scores.ndim != 2 or len(scores) < 2:
        raise ValueError(f"values: expected at least 2 participants in shape (n, F), got {scores.shape}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    return scores


def _count(flips: np.ndarray, scaled: np.ndarray, low: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """How many flips' sums reach each column's ``low``; ``largest`` is raised to the largest sum of each flip."""
    reached = np.zeros(scaled.shape[1], dtype=np.int64)
    low = low.astype(scaled.dtype)
    sums = np.empty((_FLIPS, scaled.shape[1]), dtype=scaled.dtype)
    for some in blocks(len(flips), _FLIPS):
        product = np.matmul(flips[some], scaled, out=sums[: some.stop - some.start])
        np.maximum(largest[some], product.max(axis=1), out=largest[some])
        # So few flips at a time that a byte holds their number: sums of bytes are quick.
        reached += np.add.reduce((product >= low).view(np.uint8), axis=0, dtype=np.uint8)
    return reached


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
