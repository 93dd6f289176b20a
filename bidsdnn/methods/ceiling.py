"""How well responses could be predicted at all: their agreement over repeats of the same stimulus."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.scores import pearsonr

_STIMULI_NEEDED = 3
"""Two points always lie on a line."""


def split_half(values: ArrayLike, stimulus: ArrayLike, *, order: ArrayLike | None = None) -> NDArray[np.float64]:
    """Reliability is the correlation of odd with even repeats over stimuli, Spearman-Brown corrected.

    2 r / (1 + r) (Spearman, 1910, British Journal of Psychology 3, 271-295), and 2 r / (1 + |r|) where r is
    negative, which keeps it within -1 and 1.

    Parameters
    ----------
    values : array-like, shape (trials, V)
        Single-trial responses; trials that were not estimated (NaN throughout) are left out.
    stimulus : array-like, shape (trials,)
        Which stimulus each trial showed.
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
    responses, labels = responses[estimated], labels[estimated]
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    twice = counts >= 2
    if twice.sum() < _STIMULI_NEEDED:
        return np.full(responses.shape[1], np.nan)
    odd = _repeat(codes, counts) % 2 == 0
    halves = [_means(responses[part], codes[part], len(counts))[twice] for part in (odd, ~odd)]
    r = pearsonr(*halves)
    return 2 * r / (1 + np.abs(r))


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
