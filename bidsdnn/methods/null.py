"""Scores under relabelling, of any model, and what they say of the observed ones.

The one idea: scores come some relabellings and columns at a time and are reduced at once, to how many reach the
observed one, to the largest of each relabelling, and to means over regions: a whole brain is tested in one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.predict import EXACT_ITEMS, Direct, Linear, Model, cross_predict
from bidsdnn.methods.reduce import at_a_time, blocks
from bidsdnn.methods.relabelled import TIES, relabelled_correlations
from bidsdnn.methods.scores import (
    Float,
    Split,
    membership,
    pooled_pearsonr,
    standardise,
    trained_on,
)

Scored = Iterator[tuple[slice, slice, Float]]
"""Some relabellings, some of the columns, and r, shape (relabellings, columns)."""
Scorer = Callable[[NDArray[Any], NDArray[np.intp], NDArray[np.intp]], Scored]
"""From targets (n, k), which columns of the table these are, and orders (m, n)."""

_COLUMNS = 8192
"""Columns tested at a time."""
_ENTRIES = 2_000_000
"""Numbers of one block of relabelled predictions."""
FEWEST_SCALED = 3
"""Held-out items of a fold that its predictions' own scale can be taken from."""


@dataclass(frozen=True, eq=False)
class Products:
    """Each relabelling repeated the cross-validated fit with all choices fixed beforehand, as a product with a matrix.

    Parameters
    ----------
    operator : array, shape (n, n)
        From ``model.operator``, less the training parts' means: see `products`.
    splits : sequence of (train, test)
    """

    operator: Float
    splits: Sequence[Split]

    def __call__(self, y: NDArray[Any], columns: NDArray[np.intp], orders: NDArray[np.intp]) -> Scored:
        """R of each column for each relabelling, as `null` asks for it."""
        n = len(y)
        folds, training = membership(self.splits, n), trained_on(self.splits, n)
        if len(folds) == n:
            # Folds of one item have no scale of their own and, at one penalty, need none.
            folds = training = np.ones((1, n))
        # r ignores the mean and scale of a column, and relabelling changes neither: standardise once.
        standard = standardise(y).astype(np.float64 if n <= EXACT_ITEMS else np.float32)
        yield from relabelled_correlations(self.operator, standard, orders, folds, training)


@dataclass(frozen=True, eq=False)
class Refits:
    """Each relabelling repeated the cross-validated fit.

    Targets that a model fits each by itself are relabelled side by side, as columns of one table.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
        Where it has ``fixed()``, with all that it would choose by looking at the targets fixed beforehand; else it
        chooses anew.
    features : array-like, shape (n, p)
    splits : sequence of (train, test)
    """

    model: Any
    features: Any
    splits: Sequence[Split]

    def __call__(self, y: NDArray[Any], columns: NDArray[np.intp], orders: NDArray[np.intp]) -> Scored:
        """R of each column for each relabelling, as `null` asks for it."""
        model = self.model.fixed() if hasattr(self.model, "fixed") else self.model
        model = model.among(columns) if hasattr(model, "among") else model
        features = model.drawn(self.features) if hasattr(model, "drawn") else self.features
        width = y.shape[1]
        together = max(1, _ENTRIES // y.size) if getattr(model, "separable", False) else 1
        inverse = np.argsort(orders, axis=1)
        for some in blocks(len(orders), together):
            moved = np.concatenate([y[order] for order in inverse[some]], axis=1)
            r = pooled_pearsonr(held_out(model, features, moved, self.splits), moved, self.splits)
            yield some, slice(0, width), r.reshape(-1, width)


@dataclass(frozen=True, eq=False)
class Given:
    """What was measured of a single held-out part was permuted; the model saw none of it, and its predictions stay.

    Parameters
    ----------
    prediction : array, shape (n, V)
        Of the held-out items.
    """

    prediction: NDArray[Any]

    def __call__(self, y: NDArray[Any], columns: NDArray[np.intp], orders: NDArray[np.intp]) -> Scored:
        """R of each column for each relabelling, as `null` asks for it."""
        given, measured = standardise(self.prediction[:, columns]), standardise(y)
        for some in blocks(len(orders), max(1, _ENTRIES // max(y.size, 1))):
            yield some, slice(0, y.shape[1]), np.einsum("onv,nv->ov", given[orders[some]], measured)


def scorer(model: Model, features: Any, splits: Sequence[Split]) -> Products | Refits:
    """Choose how a model is scored under relabelling: by one product where it is linear in the targets."""
    if not isinstance(model, Linear):
        return Refits(model, features, splits)
    return products(model.operator(features, splits), splits)


def products(operator: Float, splits: Sequence[Split]) -> Products:
    """Take the training parts' means off an operator, which is changed; the rest is all that is needed of it.

    Parameters
    ----------
    operator : array, shape (n, n)
        From ``model.operator``.
    splits : sequence of (train, test)

    Returns
    -------
    Products
    """
    for train, test in splits:
        operator[np.ix_(test, train)] -= 1 / len(train)
    return Products(operator if len(operator) <= EXACT_ITEMS else operator.astype(np.float32), splits)


def held_out(model: Any, features: Any, y: NDArray[Any], splits: Sequence[Split]) -> Float:
    """Cross-validated predictions, shape (n, V); by the model itself if it has a way of its own."""
    own = getattr(model, "cross_predict", None)
    return np.asarray(own(features, y, splits)) if own is not None else cross_predict(model, features, y, splits)


def held_out_scaled(
    model: Any, features: Any, y: NDArray[Any], splits: Sequence[Split], *, out: NDArray[Any] | None = None
) -> tuple[Float, Float | None]:
    """Cross-validated predictions, and what puts those of small folds on one scale.

    Parameters
    ----------
    model, features, y, splits, out
        As of `cross_predict`; the predictions are written into ``out``, if given, by models that predict by columns.

    Returns
    -------
    predicted : array, shape (n, V)
    scale : array, shape (n, V), or None
        Root mean square of the fold's fitted deviations from the mean over its training part, if a fold holds out fewer
        than `FEWEST_SCALED` items; else None.
    """
    if hasattr(model, "cross_predict") or min(len(test) for _, test in splits) >= FEWEST_SCALED:
        if isinstance(model, Direct) and not hasattr(model, "cross_predict"):
            return cross_predict(model, features, y, splits, out=out), None
        return held_out(model, features, y, splits), None
    x = np.asarray(features)
    predicted = np.full(y.shape, np.nan, dtype=np.result_type(y.dtype, np.float32))
    scale = np.full_like(predicted, np.nan)
    for train, test in splits:
        fitted = copy.deepcopy(model)
        fitted.fit(x[train], y[train])
        predicted[test] = fitted.predict(x[test])
        deviations = fitted.predict(x[train]) - y[train].mean(axis=0, dtype=np.float64)
        scale[test] = np.sqrt((deviations**2).mean(axis=0))
    return predicted, scale


@dataclass(frozen=True, eq=False)
class Null:
    """How the scores of relabellings compare with the observed ones.

    Parameters
    ----------
    columns : array of int, shape (k,)
        Which columns were tested.
    observed : array, shape (k,)
        r of each; NaN where nothing varies. A model that chooses by cross-validation may be scored here with its
        choices fixed, and differ from what is reported.
    reached : array of int, shape (k,)
        How many relabellings reach it.
    largest : array, shape (permutations,)
        Over columns, under each relabelling.
    squares : float
        Sum of r^2 over columns and relabellings.
    means : array, shape (1 + permutations, R)
        Mean over the tested columns of each region, the observed one first; NaN for regions without any.
    """

    columns: NDArray[np.intp]
    observed: Float
    reached: NDArray[np.intp]
    largest: Float
    squares: float
    means: Float

    @property
    def p(self) -> Float:
        """P of each tested column by itself, (1 + b) / (1 + n), one-sided; shape (k,)."""
        return np.where(np.isnan(self.observed), np.nan, (1 + self.reached) / (1 + len(self.largest)))

    @property
    def p_regions(self) -> Float:
        """P of each region's mean, shape (R,)."""
        return pvalue(self.means[0], self.means[1:], tolerance=TIES)


def null(
    score: Scorer, y: ArrayLike, regions: ArrayLike, orders: ArrayLike, *, columns: NDArray[np.bool_] | None = None
) -> Null:
    """Scores were compared with those of relabelled items, the same relabellings for all columns.

    Parameters
    ----------
    score : Products, Refits or Given
    y : array-like, shape (n, V)
        Measured responses.
    regions : array-like of bool, shape (R, V)
        Which columns each region holds; they may overlap.
    orders : array-like of int, shape (permutations, n)
        Item ``orders[k, i]`` takes the place of item i.
    columns : array of bool, shape (V,), optional
        Which to test; all by default. Regions' means are over these.

    Returns
    -------
    Null

    Raises
    ------
    ValueError
        If shapes disagree, orders are none, or there are no relabellings.
    """
    values, moved = np.asanyarray(y), np.asarray(orders, dtype=np.intp)
    members = np.asarray(regions, dtype=bool)
    if members.ndim != 2 or members.shape[1:] != values.shape[1:]:
        raise ValueError(f"y, regions: expected shapes (n, V) and (R, V), got {values.shape} and {members.shape}")
    if (
        not len(moved)
        or moved.shape[1:] != values.shape[:1]
        or (np.sort(moved, axis=1) != np.arange(len(values))).any()
    ):
        raise ValueError(f"orders: expected one or more orders of {len(values)} items, got shape {moved.shape}")
    asked = np.arange(values.shape[1]) if columns is None else np.flatnonzero(columns)
    found = Null(
        asked, np.full(len(asked), np.nan), np.zeros(len(asked), dtype=np.intp), np.full(len(moved), -np.inf), 0.0,
        np.zeros((1 + len(moved), len(members))),
    )  # fmt: skip
    counts, squares = np.zeros(len(members)), 0.0
    for some in blocks(len(asked), at_a_time(len(values), _COLUMNS)):
        part = values[:, asked[some]]
        usable = some.start + np.flatnonzero(np.isfinite(standardise(part)).all(axis=0))
        weights = csr_array(members[:, asked[usable]].T.astype(np.float64))
        counts += weights.sum(axis=0)
        squares += _compared(score, values[:, asked[usable]], usable, weights, moved, found)
    found.means[:] /= np.where(counts > 0, counts, np.nan)
    return Null(found.columns, found.observed, found.reached, found.largest, squares, found.means)


def _compared(
    score: Scorer, y: NDArray[Any], places: NDArray[np.intp], weights: csr_array, orders: NDArray[np.intp], found: Null
) -> float:
    """Add what some columns give to a null; their sum of squares."""
    if not len(places):
        return 0.0
    columns, squares = found.columns[places], 0.0
    for _, here, r in score(y, columns, np.arange(len(y))[None]):
        found.observed[places[here]] = r[0]
        found.means[0] += np.nan_to_num(r[0]) @ weights[here]
    for some, here, r in score(y, columns, orders):
        r = np.nan_to_num(np.asarray(r, dtype=np.float64))
        # What cannot be scored observed is no member of the family.
        known = np.isfinite(found.observed[places[here]])
        found.reached[places[here]] += (r >= found.observed[places[here]] - TIES).sum(axis=0)
        np.maximum(found.largest[some], r[:, known].max(axis=1, initial=-np.inf), out=found.largest[some])
        squares += float((r[:, known] ** 2).sum())
        found.means[1:][some] += r @ weights[here]
    return squares
