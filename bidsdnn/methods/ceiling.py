"""How well responses could be predicted at all: their agreement over repeats of the same stimulus.

The one idea: a trial is signal plus noise, and all that is asked follows from the ratio of their variances. Averaging
the n repeats of a stimulus divides the noise by n, so the reliability of averaged responses is
1 / (1 + (noise / signal) mean(1 / n)), the Spearman-Brown formula for numbers of repeats that may differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.scores import pearsonr

_STIMULI_NEEDED = 3
"""Two points always lie on a line."""

LOWEST_CEILING = 0.1
"""A score divided by less is mostly noise."""


class Variances(NamedTuple):
    """Variance over stimuli and over repeats of one stimulus; each an array of shape (V,)."""

    signal: NDArray[np.float64]
    noise: NDArray[np.float64]


def split_half(values: ArrayLike, stimulus: ArrayLike, *, order: ArrayLike | None = None) -> NDArray[np.float64]:
    """Reliability of averaged responses was the correlation of odd with even repeats, corrected to all repeats.

    The correlation r of the halves' means over the stimuli that were repeated gives the ratio x of noise to signal
    variance in a trial, from r^2 (1 + x a) (1 + x b) = 1, a and b being the mean over stimuli of 1 over the repeats
    in each half; and 1 / (1 + x c), c being the mean of 1 / n over all stimuli, is the reliability of the responses
    averaged over the n repeats of each. Where all stimuli have the same even number of repeats that is 2 r / (1 + r)
    (Spearman, 1910, British Journal of Psychology 3, 271-295; Brown, 1910, same journal, 296-322). A negative r gives
    the same value with its sign, which keeps it within -1 and 1.

    Parameters
    ----------
    values : array-like, shape (trials, V)
        Single-trial responses; trials that were not estimated (NaN throughout) are left out.
    stimulus : array-like, shape (trials,)
        Which stimulus each trial showed; numbers of repeats may differ, and some stimuli may be shown once.
    order : array-like, shape (trials,), optional
        Sorts the trials, so that repeats are counted in time. As given if absent.

    Returns
    -------
    array, shape (V,)
        NaN where responses are constant or not finite; everywhere if fewer than 3 stimuli were repeated.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    responses, codes, counts = _trials(values, stimulus, order)
    twice = counts >= 2
    if twice.sum() < _STIMULI_NEEDED:
        return np.full(responses.shape[1], np.nan)
    odd = _repeat(codes, counts) % 2 == 0
    halves = [_means(responses[part], codes[part], len(counts))[twice] for part in (odd, ~odd)]
    r = pearsonr(*halves)
    a, b = (np.mean(1 / np.bincount(codes[part], minlength=len(counts))[twice]) for part in (odd, ~odd))
    with np.errstate(divide="ignore"):
        # The positive root of a b x^2 + (a + b) x + 1 - 1 / r^2.
        ratio = (np.sqrt((a - b) ** 2 + 4 * a * b / r**2) - (a + b)) / (2 * a * b)
    return np.sign(r) / (1 + ratio * np.mean(1 / counts))


def variances(values: ArrayLike, stimulus: ArrayLike) -> Variances:
    """Noise variance is that of the repeats of a stimulus, and signal variance what is left of the total.

    As in the Natural Scenes Dataset (Allen et al., 2022, Nature Neuroscience 25, 116-126), whose ``ncsnr`` is the
    square root of signal over noise; here the noise of all stimuli is pooled by its degrees of freedom and the total
    is corrected for unequal numbers of repeats, as in a one-way analysis of variance with random effects: with
    MSW the variance within stimuli, MSB that of their means weighted by n, and
    n0 = (N - sum(n^2) / N) / (S - 1), the signal is (MSB - MSW) / n0.

    Parameters
    ----------
    values : array-like, shape (trials, V)
        Single-trial responses; trials that were not estimated (NaN throughout) are left out.
    stimulus : array-like, shape (trials,)
        Which stimulus each trial showed; numbers of repeats may differ, and some stimuli may be shown once.

    Returns
    -------
    Variances
        Of a trial; signal is 0 where its estimate is negative. NaN where responses are not finite, and everywhere if
        fewer than 3 stimuli were repeated.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    responses, codes, counts = _trials(values, stimulus, None)
    if (counts >= 2).sum() < _STIMULI_NEEDED:
        nothing = np.full(responses.shape[1], np.nan)
        return Variances(nothing, nothing)
    n, s = len(codes), len(counts)
    means = _means(responses, codes, s)
    grand = responses.mean(axis=0, dtype=np.float64)
    between = (counts[:, None] * (means - grand) ** 2).sum(axis=0) / (s - 1)
    total = ((responses - grand) ** 2).sum(axis=0, dtype=np.float64)
    noise = np.maximum(total - between * (s - 1), 0) / (n - s)
    signal = (between - noise) / ((n - (counts**2).sum() / n) / (s - 1))
    return Variances(np.where(signal > 0, signal, np.where(np.isnan(signal), np.nan, 0)), noise)


def ncsnr(values: ArrayLike, stimulus: ArrayLike) -> NDArray[np.float64]:
    """A voxel's noise ceiling signal-to-noise ratio was the root of the signal's over the noise' variance in a trial.

    Parameters and errors are those of `variances`.

    Parameters
    ----------
    values : array-like, shape (trials, V)
    stimulus : array-like, shape (trials,)

    Returns
    -------
    array, shape (V,)
        NaN where there is no variance.
    """
    signal, noise = variances(values, stimulus)
    return np.sqrt(np.divide(signal, noise, out=np.full(len(noise), np.nan), where=noise > 0))


def averaged_reliability(snr: ArrayLike, n_repeats: ArrayLike) -> NDArray[np.float64]:
    """Reliability of responses averaged over repeats, from a trial's signal-to-noise ratio.

    snr^2 / (snr^2 + mean(1 / n)); in percent the noise ceiling of the Natural Scenes Dataset (Allen et al., 2022).

    Parameters
    ----------
    snr : array-like, shape (V,)
        Of `ncsnr`.
    n_repeats : array-like, shape (stimuli,)
        Repeats of each stimulus.

    Returns
    -------
    array, shape (V,)
    """
    power = np.asarray(snr, dtype=np.float64) ** 2
    return np.asarray(power / (power + np.mean(1 / np.asarray(n_repeats, dtype=np.float64))))


def ceiling_of_items(ceiling: ArrayLike, averaged: ArrayLike, n_repeats: ArrayLike) -> NDArray[np.float64]:
    """Highest r to be expected of responses that average other numbers of repeats than those it was measured with.

    By Spearman and Brown: with x the ratio of noise to signal in a trial, the reliability is 1 / (1 + x mean(1 / n)),
    and the ceiling its square root.

    Parameters
    ----------
    ceiling : array-like, shape (V,)
        Of the averaged responses.
    averaged : array-like, shape (stimuli,)
        Repeats that these average.
    n_repeats : array-like, shape (items,)
        Repeats that the others average.

    Returns
    -------
    array, shape (V,)
        0 stays 0, and NaN NaN.
    """
    known = np.asarray(ceiling, dtype=np.float64)
    had, has = (np.mean(1 / np.asarray(n, dtype=np.float64)) for n in (averaged, n_repeats))
    if has == had:
        return known
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(1 / (1 + (1 / known**2 - 1) * has / had)))


def normalized(score: float, ceiling: float) -> float:
    """A normalised score is the ratio of a region's mean score to its mean ceiling; NaN where that is below .1.

    Parameters
    ----------
    score, ceiling : float
        Means over the same voxels.

    Returns
    -------
    float
    """
    return score / ceiling if ceiling >= LOWEST_CEILING else float("nan")


def _trials(
    values: ArrayLike, stimulus: ArrayLike, order: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Estimated trials (n, V) in order, the stimulus of each as a number (n,), and repeats of each stimulus."""
    responses, labels = np.asarray(values), np.asarray(stimulus)
    if responses.ndim != 2 or labels.shape != responses.shape[:1]:
        raise ValueError(
            f"values, stimulus: expected (trials, V) and (trials,), got {responses.shape} and {labels.shape}"
        )
    if order is not None:
        position = np.argsort(np.asarray(order), kind="stable")
        if position.shape != labels.shape:
            raise ValueError(f"order: expected shape {labels.shape}, got {position.shape}")
        responses, labels = responses[position], labels[position]
    estimated = ~np.isnan(responses).all(axis=1)
    if not estimated.all():
        responses, labels = responses[estimated], labels[estimated]
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return responses, codes, counts


def repeated(stimulus: ArrayLike) -> int:
    """Count the stimuli that were shown at least twice, on which `split_half` rests.

    Parameters
    ----------
    stimulus : array-like, shape (trials,)

    Returns
    -------
    int
    """
    return int((np.unique(np.asarray(stimulus), return_counts=True)[1] >= 2).sum())


def _repeat(codes: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Count, for each trial, how often its stimulus was shown before."""
    grouped = np.argsort(codes, kind="stable")
    first = np.cumsum(counts) - counts
    seen = np.empty(len(codes), dtype=np.intp)
    seen[grouped] = np.arange(len(codes)) - first[codes[grouped]]
    return seen


def _means(values: NDArray[Any], codes: NDArray[np.intp], n_stimuli: int) -> NDArray[np.float64]:
    """Mean of the trials of each stimulus, (stimuli, V)."""
    member = np.zeros((n_stimuli, len(codes)))
    member[codes, np.arange(len(codes))] = 1
    with np.errstate(invalid="ignore"):
        totals = member @ values.astype(np.float64)
    return np.asarray(totals / np.maximum(member.sum(axis=1, keepdims=True), 1))
