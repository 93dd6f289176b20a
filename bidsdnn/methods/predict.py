"""Cross-validated prediction of one table from another, its scores, and its test.

The one idea: with the penalty fixed, the held-out predictions of all folds are one items x items matrix times
the targets; relabelling the items permutes that matrix, so a test that refits every model costs one product a
permutation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.held_out import decompose
from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.relabelled import TIES, relabelled_correlations
from bidsdnn.methods.scores import Float, Split, membership, standardise, trained_on

_COLUMNS = 4096
"""Columns tested at a time."""

EXACT_ITEMS = 64
"""Up to this many items the permuted products are in float64: where labels are few, permutations tie."""


class Model(Protocol):
    """What a model needs: ``fit`` and ``predict``, as in scikit-learn."""

    def fit(self, X: Any, Y: Any, /) -> Any:
        """Learn from rows (n, p) and targets (n, V)."""

    def predict(self, X: Any, /) -> Any:
        """Predict the targets (m, V) of rows (m, p)."""


@runtime_checkable
class Direct(Model, Protocol):
    """A model that can predict some targets at a time without keeping weights, which wide tables leave no room for."""

    def held_out(self, X: Any, X_new: Any, /) -> Any:
        """What makes of targets (n, c) the predictions (m, c) that ``fit`` and ``predict`` would give."""


@runtime_checkable
class Linear(Model, Protocol):
    """A model whose held-out predictions are linear in the targets, with all else fixed before they are seen.

    Its test then costs one product a relabelling.
    """

    def operator(self, X: Any, splits: Any, /) -> Any:
        """The matrix (n, n) whose product with the targets is every held-out prediction, as `prediction_operator`."""


def kfold(n_items: int, n_splits: int, *, seed: int, shuffle: bool = True) -> list[Split]:
    """Items were dealt at random into folds of equal size, each held out once.

    Parameters
    ----------
    n_items, n_splits : int
    seed : int
        Of the shuffle: equal arguments give equal folds.
    shuffle : bool
        Whether items are dealt at random; else folds are stretches of neighbours.

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
    order = np.random.default_rng(seed).permutation(n_items) if shuffle else np.arange(n_items)
    tests = [np.sort(part) for part in np.array_split(order, n_splits)]
    return [(np.setdiff1d(np.arange(n_items), test, assume_unique=True), test) for test in tests]


def cross_predict(
    model: Model, x: ArrayLike, y: ArrayLike, splits: Iterable[Split], *, out: NDArray[Any] | None = None
) -> Float:
    """Each item was predicted by a model that was fitted without it.

    Parameters
    ----------
    model : object with ``fit(X, Y)`` and ``predict(X)``
        Left as it is; every fold fits a copy.
    x : array-like, shape (n, p)
    y : array-like, shape (n, V)
    splits : iterable of (train, test)
        Index arrays.
    out : array, shape (n, V), optional
        Of NaN, to write into.

    Returns
    -------
    array, shape (n, V)
        Of the precision of ``y``; NaN for items that no fold holds out.

    Raises
    ------
    ValueError
        If ``x`` and ``y`` differ in rows, a fold overlaps itself, or an item is held out twice.
    """
    if hasattr(model, "cross_predict"):  # It reads the columns of x some at a time, for all folds.
        predicted: Float = model.cross_predict(x, y, list(_disjoint(splits, len(np.asarray(y)))))
        return predicted
    # A table in a file stays what it is, and gives the columns that are asked for.
    x, y = np.asarray(x), np.asanyarray(y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"x, y: expected shapes (n, p) and (n, V), got {x.shape} and {y.shape}")
    predicted = np.full(y.shape, np.nan, dtype=np.result_type(y.dtype, np.float32)) if out is None else out
    for train, test in _disjoint(splits, len(x)):
        if isinstance(model, Direct):
            predict = model.held_out(x[train], x[test])
            for columns in blocks(y.shape[1], _COLUMNS):
                predicted[test, columns] = predict(y[train, columns])
            # A fold's decomposition goes before that of the next one comes.
            del predict
            continue
        fitted = copy.deepcopy(model)
        fitted.fit(x[train], y[train])
        predicted[test] = fitted.predict(x[test])
    return predicted


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
    given = np.asarray(x, dtype=np.float64)
    rows = torch.from_numpy(given if given.flags.writeable else given.copy())
    if rows.ndim != 2 or not torch.isfinite(rows).all():
        raise ValueError(f"x: expected finite numbers of shape (n, p), got shape {tuple(rows.shape)}")
    if not penalty > 0:
        raise ValueError(f"penalty: expected a positive number, got {penalty}")
    # A basis is for new rows, of which there are none.
    table = decompose(rows)._replace(factored=())
    operator = np.full((len(rows), len(rows)), np.nan)
    for train, test in _disjoint(splits, len(rows)):
        left_out = np.setdiff1d(np.arange(len(rows)), train)
        amount = torch.tensor([penalty * table.unit(torch.from_numpy(train))], dtype=torch.float64)
        maps = table.held_out(torch.from_numpy(left_out), amount)[0, np.searchsorted(left_out, test), :-1]
        # Rows sum to one, so what is not the training part's mean follows from the scores about their mean.
        added = (maps @ table.scores.T).numpy()[:, train]
        operator[test] = 0
        operator[np.ix_(test, train)] = 1 / len(train) + added - added.mean(axis=1, keepdims=True)
    missed = np.isnan(operator).any(axis=1)
    if missed.any():
        raise ValueError(f"splits: expected every item held out once, got {int(missed.sum())} of {len(rows)} never")
    return operator


def region_permutation(
    operator: ArrayLike,
    y: ArrayLike,
    regions: ArrayLike,
    splits: Sequence[Split],
    *,
    permutations: int,
    seed: int,
    orders: ArrayLike | None = None,
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
    splits : sequence of (train, test)
        Those of the operator.
    permutations : int
        Relabellings; one relabelling holds for all columns, so their dependence is kept. The cost of each is a
        product (n, n) @ (n, V).
    seed : int
    orders : array-like of int, shape (permutations, n), optional
        Relabellings in place of random ones, where not all are as likely: shifts of a series.

    Returns
    -------
    p : array, shape (R,)
        (1 + relabellings that reach the observed mean r) / (1 + permutations), one-sided: greater than
        chance.
    observed : array, shape (R,)
        Mean over the region's columns of `scores.pooled_pearsonr` of ``operator @ y`` and ``y``. Both are NaN for a
        region without a column that is finite and varies.

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
    standard = np.empty((n, len(asked)), dtype=np.float64 if n <= EXACT_ITEMS else np.float32)
    for columns in blocks(len(asked), _COLUMNS):
        standard[:, columns] = standardise(y[:, asked[columns]])
    usable = np.isfinite(standard).all(axis=0)
    standard, weights = standard[:, usable], members[:, asked[usable]].T.astype(np.float64)
    counts = weights.sum(axis=0)
    weights /= np.maximum(counts, 1)
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(n) for _ in range(permutations)]) if orders is None else np.asarray(orders)
    if drawn.shape != (permutations, n) or (np.sort(drawn, axis=1) != np.arange(n)).any():
        raise ValueError(f"orders: expected {permutations} orders of {n} items, got shape {drawn.shape}")
    every = np.vstack([np.arange(n), drawn])
    means = mean_correlations(
        h - mean_operator(splits, n), standard, weights, every, membership(splits, n), trained_on(splits, n)
    )
    means[:, counts == 0] = np.nan
    return pvalue(means[0], means[1:], tolerance=TIES), means[0]


def mean_operator(splits: Sequence[Split], n: int) -> Float:
    """The matrix whose product with y is the training part's mean for each held-out item."""
    operator = np.zeros((n, n))
    for train, test in splits:
        operator[np.ix_(test, train)] = 1 / len(train)
    return operator


def mean_correlations(
    h: NDArray[Any],
    y: NDArray[Any],
    weights: Any,
    orders: NDArray[np.intp],
    folds: Float,
    training: Float | None = None,
) -> Float:
    """Mean r, by weights (V, R), of predictions and standard columns y for each relabelling, (orders, R).

    As `relabelled_correlations`, of whose r those that are NaN count as 0.
    """
    means = np.zeros((len(orders), weights.shape[1]))
    for some, columns, r in relabelled_correlations(h, y, orders, folds, training):
        means[some] += np.nan_to_num(r) @ weights[columns]
    return means


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
