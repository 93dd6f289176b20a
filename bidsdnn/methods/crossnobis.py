"""Cross-validated distances from single trials, however often each stimulus was shown in each fold.

The one idea: inner products of trials of different folds are all inner products less those within a fold, so that no
pair of folds is visited.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.noise import as_precision, weighted

Float = NDArray[np.float64]


def crossnobis_trials(
    values: ArrayLike, stimulus: ArrayLike, folds: ArrayLike, *, n_stimuli: int, precision: ArrayLike | None = None
) -> Float:
    """The dissimilarity of two stimuli is their cross-validated Mahalanobis distance over pairs of trials, per channel.

    d(a, b) = s(a, a) + s(b, b) - 2 s(a, b), divided by p, where s is the mean of x P y' over all pairs of a trial x of
    the one stimulus and a trial y of the other that stem from different folds. With as many trials of each stimulus in
    each fold it is the crossnobis distance of Walther et al. (2016), NeuroImage 137, 188-200; otherwise each pair of
    trials weighs the same, as in rsatoolbox's ``calc_rdm_unbalanced``.

    Parameters
    ----------
    values : array-like, shape (trials, p)
        Best centred within folds, as what a fold adds to all its trials does not cancel in an unbalanced design.
    stimulus : array-like of int, shape (trials,)
        From 0 to n_stimuli - 1.
    folds : array-like, shape (trials,)
        The fold of each trial, as its run or session.
    n_stimuli : int
    precision : array-like, shape (p, p) or (p,), optional
        Inverse of the noise covariance, or its diagonal; None is the identity.

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        NaN in the pairs of a stimulus that fewer than two folds hold.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, or there are fewer than two folds.
    """
    table, codes, labels = np.asarray(values, dtype=np.float64), np.asarray(stimulus), np.asarray(folds)
    if table.ndim != 2 or codes.shape != table.shape[:1] or labels.shape != codes.shape:
        raise ValueError(
            f"values, stimulus, folds: expected (trials, p) and (trials,), got {table.shape}, {codes.shape}, "
            f"{labels.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError("values: expected finite numbers, got NaN or infinity; leave out those trials or channels")
    names = np.unique(labels)
    if len(names) < 2:
        raise ValueError(f"folds: a cross-validated distance needs at least 2 repeats, got {len(names)}")
    weights = None if precision is None else as_precision(precision, table.shape[1])
    total, count = np.zeros((n_stimuli, table.shape[1])), np.zeros(n_stimuli)
    within, pairs_within = np.zeros((n_stimuli, n_stimuli)), np.zeros((n_stimuli, n_stimuli))
    for name in names:
        rows = labels == name
        shown, code, repeats = np.unique(codes[rows], return_inverse=True, return_counts=True)
        sums = np.zeros((len(shown), table.shape[1]))
        np.add.at(sums, code, table[rows])
        block = np.ix_(shown, shown)
        within[block] += _inner(sums, weights)
        pairs_within[block] += np.outer(repeats, repeats)
        total[shown] += sums
        count[shown] += repeats
    pairs = np.outer(count, count) - pairs_within
    similarity = (_inner(total, weights) - within) / np.where(pairs > 0, pairs, np.nan)
    own = np.diag(similarity)
    distance = np.add.outer(own, own) - similarity - similarity.T
    return np.asarray(distance[np.triu_indices(n_stimuli, 1)] / table.shape[1])


def _inner(table: Float, weights: Float | None) -> Float:
    return np.asarray((table if weights is None else weighted(table, weights)) @ table.T)
