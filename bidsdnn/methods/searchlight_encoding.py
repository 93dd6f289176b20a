"""Searchlight encoding: how well the responses of every small neighbourhood are predicted.

The one idea: a neighbourhood's score is the mean over its columns of the columns' own cross-validated r, so that the
models are fitted once for the whole brain, and neighbourhoods are one sparse product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bidsdnn.methods.neighbourhoods import FEWEST_COLUMNS
from bidsdnn.methods.predict import EXACT_ITEMS, mean_correlations, mean_operator
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import Split, membership, standardise, trained_on
from bidsdnn.methods.searchlight import Float, familywise, serial

_COLUMNS = 4096
"""Columns standardised at a time."""
_ORDERS = 20
"""Relabellings of one piece of work; a constant, because sums over them are added in pieces."""


def pooled(scores: ArrayLike, adjacency: csr_array) -> Float:
    """Scores were averaged over the columns of each neighbourhood.

    Parameters
    ----------
    scores : array-like, shape (m, V)
        NaN is a column without a score, and is left out.
    adjacency : sparse array of bool, shape (centres, V)

    Returns
    -------
    array, shape (m, centres)
        NaN for neighbourhoods with fewer than two scores.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or adjacency.shape[1] != table.shape[1]:
        raise ValueError(
            f"scores, adjacency: expected shapes (m, V), (centres, V), got {table.shape}, {adjacency.shape}"
        )
    near, known = csr_array(adjacency, dtype=np.float64), np.isfinite(table)
    counts = near @ known.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (near @ np.where(known, table, 0).T) / counts
    return np.where(counts < FEWEST_COLUMNS, np.nan, means).T


def encoding_permutation(
    operators: Sequence[ArrayLike],
    y: ArrayLike,
    adjacency: csr_array,
    splits: Sequence[Split],
    *,
    orders: ArrayLike,
    map: Callable[..., list[Any]] = serial,
) -> tuple[Float, Float]:
    """A neighbourhood's mean r was tested by permuting the items' labels and predicting anew, penalty fixed.

    As `predict.region_permutation`, with a neighbourhood for a region; each relabelling holds for all columns and
    models, so that the largest mean r of each controls the family-wise error, as in `searchlight.searchlight`.

    Parameters
    ----------
    operators : sequence of array-like, shape (n, n)
        Of each model, from `predict.prediction_operator`.
    y : array-like, shape (n, V)
        Measured responses; a column that is constant or not finite is left out.
    adjacency : sparse array of bool, shape (centres, V)
    splits : sequence of (train, test)
        Those of the operators.
    orders : array-like of int, shape (permutations, n)
        Relabellings; the cost of each is a product (n, n) @ (n, V) for each model.
    map : callable
        Spreads blocks of relabellings. The result is the same for any.

    Returns
    -------
    p : array, shape (m, centres)
        (1 + b) / (1 + n), one-sided, of each centre by itself.
    p_familywise : array, shape (m, centres)
        The same over all centres and models. Both are NaN for neighbourhoods with fewer than two usable columns.

    Raises
    ------
    ValueError
        If shapes disagree, or there are no permutations.
    """
    y = np.asarray(y)
    n, drawn = len(y), np.asarray(orders, dtype=np.intp)
    if drawn.ndim != 2 or not len(drawn) or drawn.shape[1] != n or (np.sort(drawn, axis=1) != np.arange(n)).any():
        raise ValueError(f"orders: expected one or more orders of {n} items, got shape {drawn.shape}")
    if any(np.shape(h) != (n, n) for h in operators) or adjacency.shape[1] != y.shape[1]:
        raise ValueError(
            f"operators, y, adjacency: expected shapes (n, n), (n, V), (centres, V), got "
            f"{[np.shape(h) for h in operators]}, {y.shape}, {adjacency.shape}"
        )
    # As in `region_permutation`: r ignores the mean and scale of a column, and relabelling changes neither.
    standard = np.empty(y.shape, dtype=np.float64 if n <= EXACT_ITEMS else np.float32)
    for columns in blocks(y.shape[1], _COLUMNS):
        standard[:, columns] = standardise(y[:, columns])
    usable = np.isfinite(standard).all(axis=0)
    near = csr_array(csr_array(adjacency, dtype=np.float64)[:, np.flatnonzero(usable)])
    counts = near.sum(axis=1)
    tested = np.flatnonzero(counts >= FEWEST_COLUMNS)
    weights = csr_array((near[tested] / counts[tested][:, None]).T)
    base = mean_operator(splits, n)
    deviations = np.array([np.asarray(h, dtype=np.float64) - base for h in operators]).reshape(-1, n, n)
    folds, training = membership(splits, n), trained_on(splits, n)
    if len(folds) == n:
        # As in `null.Products`: folds of one item have no scale of their own and, at one penalty, need none.
        folds = training = np.ones((1, n))
    refit = _Refit(deviations, standard[:, usable], weights, folds, training, drawn)
    observed = refit.means(np.arange(n)[None])[0]
    parts = map(_Reached(refit, observed), list(blocks(len(drawn), _ORDERS)), label="searchlight encoding")
    found, corrected = (np.full((len(operators), len(counts)), np.nan) for _ in range(2))
    found[:, tested] = (1 + sum(part[0] for part in parts)) / (1 + len(drawn))
    largest, squares = np.concatenate([part[1] for part in parts]), sum(part[2] for part in parts)
    corrected[:, tested] = familywise(observed.T, largest, squares).T
    return found, corrected


@dataclass(frozen=True, eq=False)
class _Refit:
    """Responses, and what predicts them under any relabelling."""

    operators: Float
    standard: NDArray[Any]
    weights: csr_array
    folds: Float
    training: Float | None
    orders: NDArray[np.intp]

    def means(self, orders: NDArray[np.intp]) -> Float:
        """Mean r of each neighbourhood, (orders, m, centres)."""
        each = [
            mean_correlations(h, self.standard, self.weights, orders, self.folds, self.training)
            for h in self.operators
        ]  # fmt: skip
        return np.stack(each, axis=1) if each else np.empty((len(orders), 0, self.weights.shape[1]))


@dataclass(frozen=True, eq=False)
class _Reached:
    """How a block of relabellings compares with the observed labels."""

    refit: _Refit
    observed: Float

    def __call__(self, some: slice) -> tuple[NDArray[np.intp], Float, Float]:
        under = self.refit.means(self.refit.orders[some])
        reached = (under >= self.observed - 1e-6).sum(axis=0)
        return reached, under.max(axis=2, initial=-np.inf), (under**2).sum(axis=(0, 2))
