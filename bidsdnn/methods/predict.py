"""Cross-validated prediction of one table from another, its scores, and its test.

The one idea: with the penalty fixed, the held-out predictions of all folds are one items x items matrix times
the targets; relabelling the items permutes that matrix, so a test that refits every model costs one product a
permutation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.reduce import blocks, spectrum

Float = NDArray[np.float64]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]

_COLUMNS = 4096
"""Columns scored at a time."""

_NULL_ENTRIES = 2_000_000
"""Numbers held by one block of permuted predictions."""

_EXACT_ITEMS = 64
"""Up to this many items the permuted products are in float64: where labels are few, permutations tie."""


class Model(Protocol):
    """What a model needs: ``fit`` and ``predict``, as in scikit-learn."""

    def fit(self, X: Any, Y: Any, /) -> Any:
        """Learn from rows (n, p) and targets (n, V)."""

    def predict(self, X: Any, /) -> Any:
        """Predict the targets (m, V) of rows (m, p)."""


def kfold(n_items: int, n_splits: int, *, seed: int) -> list[Split]:
    """Items were dealt at random into folds of equal size, each held out once.

    Parameters
    ----------
    n_items, n_splits : int
    seed : int
        Of the shuffle: equal arguments give equal folds.

    Returns
    -------
    list of (train, test)
        Sorted index arrays; fold sizes differ by at most one.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds, or fewer items than folds.
    """
    if n_splits < 2:
        raise ValueError(f"n_splits: expected at least 2 folds, got {n_splits}")
    if n_items < n_splits:
        raise ValueError(f"n_items: expected at least as many items as folds ({n_splits}), got {n_items}")
    order = np.random.default_rng(seed).permutation(n_items)
    tests = [np.sort(part) for part in np.array_split(order, n_splits)]
    return [(np.setdiff1d(np.arange(n_items), test, assume_unique=True), test) for test in tests]


def cross_predict(model: Model, x: ArrayLike, y: ArrayLike, splits: Iterable[Split]) -> Float:
    """Each item was predicted by a model that was fitted without it.

    Parameters
    ----------
    model : object with ``fit(X, Y)`` and ``predict(X)``
        Left as it is; every fold fits a copy.
    x : array-like, shape (n, p)
    y : array-like, shape (n, V)
    splits : iterable of (train, test)
        Index arrays.

    Returns
    -------
    array, shape (n, V)
        Of the precision of ``y``; NaN for items that no fold holds out.

    Raises
    ------
    ValueError
        If ``x`` and ``y`` differ in rows, a fold overlaps itself, or an item is held out twice.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"x, y: expected shapes (n, p) and (n, V), got {x.shape} and {y.shape}")
    predicted = np.full(y.shape, np.nan, dtype=np.result_type(y.dtype, np.float32))
    for train, test in _disjoint(splits, len(x)):
        fitted = copy.deepcopy(model)
        fitted.fit(x[train], y[train])
        predicted[test] = fitted.predict(x[test])
    return predicted


def pearsonr(a: ArrayLike, b: ArrayLike) -> Float:
    """Scores are Pearson correlations between predicted and measured responses, pooled over held-out items.

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
    for columns in blocks(a.shape[1], _COLUMNS):
        with np.errstate(invalid="ignore"):
            scores[columns] = (_standard(a[:, columns]) * _standard(b[:, columns])).sum(axis=0)
    return np.clip(scores, -1, 1)


def r2(prediction: ArrayLike, y: ArrayLike) -> Float:
    """R2 is one minus the squared error over the squared deviation from the mean, pooled over held-out items.

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
    for columns in blocks(y.shape[1], _COLUMNS):
        measured = y[:, columns].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            wrong = ((measured - prediction[:, columns]) ** 2).sum(axis=0)
            spread = ((measured - measured.mean(axis=0)) ** 2).sum(axis=0)
            part = 1 - wrong / spread
        part[~np.isfinite(part) | ~_varies(measured)] = np.nan
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


def prediction_operator(x: ArrayLike, splits: Iterable[Split], *, penalty: float = 1.0) -> Float:
    """All held-out predictions of a ridge of fixed penalty, as one matrix that multiplies the targets.

    Parameters
    ----------
    x : array-like, shape (n, p)
    splits : iterable of (train, test)
        Together they hold out every item once.
    penalty : float
        In units of the mean non-zero eigenvalue of each fold's training rows (as in `models.Ridge`). It must
        not be chosen by looking at the targets.

    Returns
    -------
    array, shape (n, n)
        H such that ``H @ y`` are the cross-validated predictions, intercept included: its rows sum to one.

    Raises
    ------
    ValueError
        If the penalty is not positive, or the folds do not hold out every item once.
    """
    rows = torch.from_numpy(np.array(x, dtype=np.float64))
    if rows.ndim != 2 or not torch.isfinite(rows).all():
        raise ValueError(f"x: expected finite numbers of shape (n, p), got shape {tuple(rows.shape)}")
    if not penalty > 0:
        raise ValueError(f"penalty: expected a positive number, got {penalty}")
    operator = np.full((len(rows), len(rows)), np.nan)
    for train, test in _disjoint(splits, len(rows)):
        table = spectrum(rows[train])
        shrunk = table.scale / (table.scale**2 + penalty * table.mean_eigenvalue)
        weights = ((rows[test] - table.mean) @ table.right * shrunk) @ table.left.T
        operator[test] = 0
        operator[np.ix_(test, train)] = 1 / len(train) + weights.numpy()
    missed = np.isnan(operator).any(axis=1)
    if missed.any():
        raise ValueError(f"splits: expected every item held out once, got {int(missed.sum())} of {len(rows)} never")
    return operator


def region_permutation(
    operator: ArrayLike, y: ArrayLike, regions: ArrayLike, *, permutations: int, seed: int
) -> tuple[Float, Float]:
    """A region's mean r was tested by permuting the items' labels and predicting anew, penalty fixed.

    Parameters
    ----------
    operator : array-like, shape (n, n)
        From `prediction_operator`.
    y : array-like, shape (n, V)
        Measured responses.
    regions : array-like of bool, shape (R, V)
        Which columns each region holds; they may overlap.
    permutations : int
        Relabellings; one relabelling holds for all columns, so their dependence is kept. The cost of each is a
        product (n, n) @ (n, V).
    seed : int

    Returns
    -------
    p : array, shape (R,)
        (1 + relabellings that reach the observed mean r) / (1 + permutations), one-sided: greater than
        chance.
    observed : array, shape (R,)
        Mean over the region's columns of r between ``operator @ y`` and ``y``. Both are NaN for a region
        without a column that is finite and varies.

    Raises
    ------
    ValueError
        If shapes disagree, rows of the operator do not sum to one, or there are no permutations.
    """
    h, y, members = np.asarray(operator, dtype=np.float64), np.asarray(y), np.asarray(regions, dtype=bool)
    n = len(h)
    if h.shape != (n, n) or y.ndim != 2 or len(y) != n or members.ndim != 2 or members.shape[1] != y.shape[1]:
        raise ValueError(
            f"operator, y, regions: expected shapes (n, n), (n, V), (R, V), got {h.shape}, {y.shape}, {members.shape}"
        )
    if not np.allclose(h.sum(axis=1), 1):
        raise ValueError("operator: expected rows that sum to one (an intercept), got others")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    asked = np.flatnonzero(members.any(axis=0))
    # r ignores the mean and scale of a column, and relabelling changes neither: standardise once.
    standard = np.empty((n, len(asked)), dtype=np.float64 if n <= _EXACT_ITEMS else np.float32)
    for columns in blocks(len(asked), _COLUMNS):
        standard[:, columns] = _standard(y[:, asked[columns]])
    usable = np.isfinite(standard).all(axis=0)
    standard, weights = standard[:, usable], members[:, asked[usable]].T.astype(np.float64)
    counts = weights.sum(axis=0)
    weights /= np.maximum(counts, 1)
    rng = np.random.default_rng(seed)
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(permutations))])
    # The predictions' mean over items plays no part in r.
    means = _mean_correlations(h - h.mean(axis=0), standard, weights, orders)
    means[:, counts == 0] = np.nan
    return pvalue(means[0], means[1:], tolerance=1e-6), means[0]


def _mean_correlations(h: NDArray[Any], y: NDArray[Any], weights: Float, orders: NDArray[np.intp]) -> Float:
    """Weighted mean r of predictions and standard columns y for each relabelling, (orders, R).

    Relabelling the rows of y and predicting is the same as predicting y with both axes of h relabelled: the
    small matrix is moved, and the large one stays where it is.
    """
    n, n_columns = y.shape
    h = h.astype(y.dtype)
    means = np.zeros((len(orders), weights.shape[1]))
    step = max(1, _NULL_ENTRIES // (n * max(n, min(n_columns, _COLUMNS))))
    for some in blocks(len(orders), step):
        moved = np.stack([h[np.ix_(order, order)] for order in orders[some]]).reshape(-1, n)
        for columns in blocks(n_columns, _COLUMNS):
            predicted = (moved @ y[:, columns]).reshape(len(orders[some]), n, -1)
            agree = np.einsum("kiv,iv->kv", predicted, y[:, columns])
            length = np.sqrt(np.einsum("kiv,kiv->kv", predicted, predicted))
            r = np.divide(agree, length, out=np.zeros_like(agree), where=length > 0)
            means[some] += r.astype(np.float64) @ weights[columns]
    return means


def _standard(values: NDArray[Any]) -> Float:
    """Columns of mean 0 and length 1; NaN for those that are constant or not finite."""
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = values - values.mean(axis=0)
        standard = centred / np.sqrt((centred**2).sum(axis=0))
    standard[:, ~_varies(values)] = np.nan
    return standard


def _varies(values: Float) -> NDArray[np.bool_]:
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


def _disjoint(splits: Iterable[Split], n_items: int) -> Iterable[Split]:
    """Pass the folds on, once they are known not to test what they train on."""
    held_out = np.zeros(n_items, dtype=int)
    for train, test in splits:
        if np.intersect1d(train, test).size:
            raise ValueError("splits: expected train and test items apart, got a fold that shares some")
        held_out[test] += 1
        if (held_out > 1).any():
            raise ValueError(f"splits: expected every item held out once, got item {int(held_out.argmax())} twice")
        yield train, test
