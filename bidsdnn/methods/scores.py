"""How well predictions agree with what was measured, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import at_a_time, blocks

Float = NDArray[np.float64]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]

_COLUMNS = 4096
"""Columns scored at a time, of few rows."""


def pearsonr(a: ArrayLike, b: ArrayLike) -> Float:
    """Scores were Pearson correlations between predicted and measured responses, pooled over held-out items.

    Parameters
    ----------
    a, b : array-like, shape (n, V)

    Returns
    -------
    array, shape (V,)
        Correlation of each column of ``a`` with that of ``b``; NaN if either is constant or not finite.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    a, b = _alike(a, b)
    scores = np.empty(a.shape[1])
    for columns in blocks(a.shape[1], at_a_time(len(a), _COLUMNS)):
        with np.errstate(invalid="ignore"):
            scores[columns] = (standardise(a[:, columns]) * standardise(b[:, columns])).sum(axis=0)
    return np.clip(scores, -1, 1)


def r2(prediction: ArrayLike, y: ArrayLike) -> Float:
    """R2 was one minus the squared error over the squared deviation from the mean, pooled over held-out items.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)

    Returns
    -------
    array, shape (V,)
        1 - SSE / SST; negative where the mean would have predicted better, NaN where ``y`` is constant or
        either is not finite.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    prediction, y = _alike(prediction, y)
    scores = np.empty(y.shape[1])
    for columns in blocks(y.shape[1], at_a_time(len(y), _COLUMNS)):
        measured = y[:, columns].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            wrong = ((measured - prediction[:, columns]) ** 2).sum(axis=0)
            spread = ((measured - measured.mean(axis=0)) ** 2).sum(axis=0)
            part = 1 - wrong / spread
        part[~np.isfinite(part) | ~varies(measured)] = np.nan
        scores[columns] = part
    return scores


def explained_variance(prediction: ArrayLike, y: ArrayLike) -> Float:
    """Explained variance was one minus the variance of the errors over that of the responses, over held-out items.

    It is R2 but for the mean error, which it forgives.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)

    Returns
    -------
    array, shape (V,)
        NaN as in `r2`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    prediction, y = _alike(prediction, y)
    scores = np.empty(y.shape[1])
    for columns in blocks(y.shape[1], at_a_time(len(y), _COLUMNS)):
        measured = y[:, columns].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            part = 1 - (measured - prediction[:, columns]).var(axis=0) / measured.var(axis=0)
        part[~np.isfinite(part) | ~varies(measured)] = np.nan
        scores[columns] = part
    return scores


def training_means(y: ArrayLike, splits: Iterable[Split]) -> Float:
    """Say what each held-out item would be predicted to be from the mean of the training items alone.

    Pooled over folds, held-out values correlate negatively with it: a fold whose test items are high leaves a low mean.
    Scores of predictions are freed from that by taking it off both sides.

    Parameters
    ----------
    y : array-like, shape (n, V)
    splits : iterable of (train, test)

    Returns
    -------
    array, shape (n, V)
        In the precision of ``y``.
    """
    y = np.asarray(y)
    means = np.full_like(y, np.nan)
    for train, test in splits:
        means[test] = y[train].mean(axis=0, dtype=np.float64)
    return means


def fold_pearsonr(prediction: ArrayLike, y: ArrayLike, splits: Sequence[Split]) -> Float:
    """Pearson correlations within each fold's held-out items.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
    splits : sequence of (train, test)

    Returns
    -------
    array, shape (F, V)
        A row for each fold; NaN as in `pearsonr`.

    Raises
    ------
    ValueError
        If the shapes differ, or there are no folds.
    """
    prediction, y = _alike(prediction, y)
    if not splits:
        raise ValueError("splits: expected at least one fold, got none")
    return np.stack([pearsonr(prediction[test], y[test]) for _, test in splits])


def standardise(values: NDArray[Any]) -> Float:
    """Columns of mean 0 and length 1; NaN for those that are constant or not finite."""
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = values - values.mean(axis=0)
        standard = centred / np.sqrt((centred**2).sum(axis=0))
    standard[:, ~varies(values)] = np.nan
    return standard


def varies(values: Float) -> NDArray[np.bool_]:
    """Whether a column is finite and varies by more than rounding."""
    finite = np.isfinite(values).all(axis=0)
    kept = np.where(finite, values, 0)
    spread = kept.max(axis=0) - kept.min(axis=0)
    return np.asarray(finite & (spread > 1e-12 * np.abs(kept).max(axis=0)))


def _alike(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or a.shape != b.shape or not len(a):
        raise ValueError(f"expected two arrays of one shape (n, V), got {a.shape} and {b.shape}")
    return a, b


def pooled_pearsonr(
    prediction: ArrayLike, y: ArrayLike, splits: Sequence[Split], *, scale: ArrayLike | None = None
) -> Float:
    """Held-out predictions of all folds were correlated with what was measured, each fold on its own scale.

    From both sides the training part's mean is taken, and each fold's predicted deviations are divided by their root
    mean square. Without the first, a fold whose test items are high leaves a low mean; without the second, folds whose
    penalty came out small outweigh the others, and on noise those are the ones that learned the training part's
    accidents. Either makes r on noise negative (-.27 and -.12 for 48 items); so scored it centres on zero.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
    splits : sequence of (train, test)
        Together they hold out every item once.
    scale : array-like, shape (n, V), optional
        What the predicted deviations are divided by in place of their root mean square over the held-out items of a
        fold, which says nothing where these are one or two.

    Returns
    -------
    array, shape (V,)
        NaN where ``y`` is constant or either is not finite, or no fold predicts a deviation.
    """
    prediction, y = _alike(prediction, y)
    if scale is not None:
        means = training_means(y, splits)
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = (prediction - means) / np.asarray(scale)
        return pearsonr(np.where(np.asarray(scale) == 0, 0, scaled), y - means)
    members, learned = membership(splits, len(y)), trained_on(splits, len(y))
    result = np.full(y.shape[1], np.nan)
    for columns in blocks(y.shape[1], at_a_time(len(y), _COLUMNS)):
        measured = standardise(y[:, columns])
        with np.errstate(invalid="ignore"):
            deviations = (prediction[:, columns] - training_means(y[:, columns], splits)).astype(np.float64)
            result[columns] = pooled_correlation(
                deviations[None], measured, members[None], None if learned is None else learned[None]
            )[0]
    return result


def membership(splits: Sequence[Split], n_items: int) -> Float:
    """Which fold holds out each item, shape (folds, n_items), as zeros and ones."""
    members = np.zeros((len(splits), n_items))
    for row, (_, test) in zip(members, splits, strict=True):
        row[test] = 1
    return members


def trained_on(splits: Sequence[Split], n_items: int) -> Float | None:
    """Which items each fold is trained on, shape (folds, n_items); None if that is all that it does not hold out."""
    if all(len(train) + len(test) == n_items for train, test in splits):
        return None
    return membership([(test, train) for train, test in splits], n_items)


def pooled_correlation(
    deviations: NDArray[Any], y: NDArray[Any], members: NDArray[Any], training: NDArray[Any] | None = None
) -> NDArray[Any]:
    """`pooled_pearsonr` of several sets of predictions at once.

    Parameters
    ----------
    deviations : array, shape (k, n, V)
        Predictions less the training part's mean.
    y : array, shape (n, V)
        Measured, each column with mean zero.
    members : array, shape (k, folds, n)
        From `membership`, for each set.
    training : array, shape (k, folds, n), optional
        From `trained_on`, for each set.

    Returns
    -------
    array, shape (k, V)
        NaN where nothing varies.
    """
    members = members.astype(deviations.dtype)
    sizes = members.sum(axis=2)[:, :, None]
    spread = np.sqrt(members @ deviations**2 / sizes)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    back = members.transpose(0, 2, 1)
    predicted = deviations * (back @ scale)
    if training is None:
        # The items' sum is zero, so what the training part sums to is what the test part lacks.
        measured = y + back @ ((members @ y) / (y.shape[0] - sizes))
    else:
        training = training.astype(deviations.dtype)
        measured = y - back @ ((training @ y) / training.sum(axis=2)[:, :, None])
    predicted = predicted - predicted.mean(axis=1, keepdims=True)
    measured = measured - measured.mean(axis=1, keepdims=True)
    agree = (predicted * measured).sum(axis=1)
    length = np.sqrt((predicted**2).sum(axis=1) * (measured**2).sum(axis=1))
    return np.divide(agree, length, out=np.full_like(agree, np.nan), where=length > 0)
