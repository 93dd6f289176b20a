"""Representational dissimilarity matrices: how far apart the patterns of each two stimuli are.

An RDM is a condensed vector of pairs, in the order of scipy's ``pdist``: (0, 1), (0, 2), ..., (1, 2), ... The
one idea: distances follow from inner products, and those are summed over blocks of columns.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from bidsdnn.methods.noise import as_precision, stacked_folds, weighted
from bidsdnn.methods.reduce import SINGLE, blocks

Float = NDArray[np.float64]

_COLUMNS = 8192
"""Columns multiplied at a time; a constant, because the order of summation decides the last bits."""
_ROUNDING = 1e-14
"""Squared distances below this share of the patterns' sum of squares are zero but for rounding."""


class Dissimilarity(Protocol):
    """A row of `DISSIMILARITIES`: patterns in, condensed RDM out; refuses an argument that it does not use."""

    def __call__(self, values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
        """Measure each two patterns."""


def correlation(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was one minus the Pearson correlation of their patterns.

    Kriegeskorte, Mur & Bandettini (2008), Frontiers in Systems Neuroscience 2, 4.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row. An array, memory map or file dataset is read in blocks of columns.
    precision, folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        From 0 to 2; NaN in the pairs of a row that is constant or not finite. Exact to 1e-12, and to 1e-6 for
        float32 tables of 4 million values or more.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or a precision or folds are given.
    """
    table = _table("correlation", values, precision, folds)
    (n, p), first = table.shape, table[:, :_COLUMNS]
    single = first.dtype == np.float32 and n * p >= SINGLE
    kind: Any = np.float32 if single else np.float64
    # Correlations do not change when a row is shifted; near its mean nothing cancels.
    shift = (np.asarray(first, dtype=np.float64).sum(axis=1, keepdims=True) / max(first.shape[1], 1)).astype(kind)
    products, sums = np.zeros((n, n)), np.zeros(n)
    with np.errstate(invalid="ignore", over="ignore"):
        for columns in blocks(p, _COLUMNS):
            part = np.asarray(table[:, columns], dtype=kind) - shift
            products += part @ part.T
            sums += part @ np.ones(part.shape[1], dtype=kind)
        offset = shift[:, 0].astype(np.float64)
        energy = np.diag(products) + 2 * offset * sums + p * offset**2
    return _correlation_distance(products, sums, max(p, 1), floor=1e-24 * energy)


def cosine(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was one minus the cosine of the angle between their patterns.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row, read in blocks of columns.
    precision, folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        From 0 to 2; NaN in the pairs of a row that is zero or not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or a precision or folds are given.
    """
    return _cosine_distance(_products(_table("cosine", values, precision, folds)))


def euclidean(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was the Euclidean distance of their patterns.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row, read in blocks of columns.
    precision, folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        Not divided by the number of columns; NaN in the pairs of a row that is not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or a precision or folds are given.
    """
    return np.sqrt(_squared_distance(_products(_table("euclidean", values, precision, folds), centre=True)))


def sqeuclidean(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was the squared Euclidean distance of their patterns.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row, read in blocks of columns.
    precision, folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        Not divided by the number of columns (rsatoolbox's is); NaN in the pairs of a row that is not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or a precision or folds are given.
    """
    return _squared_distance(_products(_table("sqeuclidean", values, precision, folds), centre=True))


def spearman(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was one minus the Spearman rank correlation of their patterns.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row, all in memory: ranks need whole rows. Ties get their mean rank.
    precision, folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        From 0 to 2; NaN in the pairs of a row that is constant or holds NaN.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or a precision or folds are given.
    """
    table = np.asarray(_table("spearman", values, precision, folds))
    return correlation(rankdata(table, axis=1, nan_policy="propagate"))


def mahalanobis(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was the squared Mahalanobis distance of their patterns, per channel.

    (a - b) P (a - b)' / p for noise precision P, as in rsatoolbox: squared, and divided by the number of channels.
    Walther et al. (2016), NeuroImage 137, 188-200.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row.
    precision : array-like, shape (p, p) or (p,)
        Inverse of the noise covariance, or its diagonal; from `noise_precision`.
    folds : None

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        NaN in the pairs of a row that is not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, the precision is missing or of another shape, or folds are given.
    """
    if precision is None:
        raise ValueError("precision: mahalanobis needs one, from noise_precision; got None")
    table = np.asarray(_table("mahalanobis", values, None, folds), dtype=np.float64)
    weights = as_precision(precision, table.shape[1])
    with np.errstate(invalid="ignore"):
        table = table - _centre(table)
        return _squared_distance(weighted(table, weights) @ table.T) / table.shape[1]


def crossnobis(values: Any, *, precision: ArrayLike | None = None, folds: ArrayLike | None = None) -> Float:
    """The dissimilarity of two stimuli was their cross-validated Mahalanobis distance, per channel.

    The mean over all pairs of folds (f, g) of (a_f - b_f) P (a_g - b_g)' / p: noise that is independent between folds
    cancels, so it is unbiased, zero on average for equal stimuli, and may be negative; equal to rsatoolbox's, which
    leaves one fold out at a time. Walther et al. (2016), NeuroImage 137, 188-200.

    Parameters
    ----------
    values : array-like, shape (folds, n, p), or (rows, p) with `folds`
        Patterns of the same stimuli in the same order in each fold. A stimulus that is missing from a fold is a
        row of NaN there; its pairs use the folds that hold both.
    precision : array-like, shape (p, p) or (p,), optional
        Inverse of the noise covariance, or its diagonal. None is the identity, for patterns already whitened.
    folds : array-like, shape (rows,), optional
        The fold of each row of a two-dimensional table; the k-th row of each fold is stimulus k.

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        NaN for pairs of stimuli that fewer than two folds hold both of.

    Raises
    ------
    ValueError
        If there are fewer than two folds, folds hold different numbers of rows, or shapes disagree.
    """
    stacked = stacked_folds(values, folds)
    n_folds, n, p = stacked.shape
    white = stacked if precision is None else weighted(stacked, as_precision(precision, p))
    total, count = np.zeros(n * (n - 1) // 2), np.zeros(n * (n - 1) // 2)
    for one, other in combinations(range(n_folds), 2):
        with np.errstate(invalid="ignore"):
            products = white[one] @ stacked[other].T
            distance = _upper(_contrast(products))
        there = np.isfinite(distance)
        total += np.where(there, distance, 0)
        count += there
    return total / np.where(count, count, np.nan) / p


def poisson_kl(
    values: Any,
    *,
    precision: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    prior_rate: float = 1.0,
    prior_weight: float = 0.1,
) -> Float:
    """The dissimilarity of two stimuli was the symmetrised Kullback-Leibler divergence of Poisson firing rates.

    The mean over channels of (a - b) (log a - log b), after each rate x became (x + w r) / (1 + w) for a prior rate r
    of weight w: rsatoolbox's definition and prior.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern of rates, none negative, in each row.
    precision, folds : None
    prior_rate, prior_weight : float

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        NaN in the pairs of a row that is not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, a rate is negative, or a precision or folds are given.
    """
    table = np.asarray(_table("poisson_kl", values, precision, folds), dtype=np.float64)
    if (table < 0).any():
        raise ValueError(f"values: poisson_kl expects rates of at least 0, got {np.nanmin(table)}")
    rates = (table + prior_rate * prior_weight) / (1 + prior_weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        products = rates @ np.log(rates).T
        return _upper(_contrast(products)) / max(table.shape[1], 1)


def from_gram(name: str, gram: ArrayLike, row_sums: ArrayLike, n_columns: int) -> Float:
    """Distances of a wide table, from the inner products of its rows alone.

    Parameters
    ----------
    name : str
        "correlation", "cosine", "euclidean" or "sqeuclidean".
    gram : array-like, shape (n, n)
        Raw inner products, from `reduce.gram`.
    row_sums : array-like, shape (n,)
        Sums of the rows.
    n_columns : int
        Columns of the table.

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        To about 1e-16 times the ratio of a row's mean square to its variance, or to its squared distance.

    Raises
    ------
    ValueError
        If the name is another one, the shapes disagree or there are no columns.
    """
    products, sums = np.asarray(gram, dtype=np.float64), np.asarray(row_sums, dtype=np.float64)
    if products.shape != (len(sums), len(sums)):
        raise ValueError(f"gram: expected shape ({len(sums)}, {len(sums)}), got {products.shape}")
    if n_columns < 1:
        raise ValueError(f"n_columns: expected at least 1, got {n_columns}")
    if name == "correlation":
        # What centring leaves of a constant row is rounding.
        return _correlation_distance(products, sums, n_columns, floor=1e-11 * np.diag(products))
    if name == "cosine":
        return _cosine_distance(products)
    if name in ("euclidean", "sqeuclidean"):
        squared = _squared_distance(products)
        return squared if name == "sqeuclidean" else np.sqrt(squared)
    raise ValueError(f"name: expected correlation, cosine, euclidean or sqeuclidean, got {name!r}")


def correlation_from_gram(gram: ArrayLike, row_sums: ArrayLike, n_columns: int) -> Float:
    """Correlation distances of a wide table: `from_gram` of "correlation"."""
    return from_gram("correlation", gram, row_sums, n_columns)


def _table(name: str, values: Any, precision: ArrayLike | None, folds: ArrayLike | None) -> Any:
    """A two-dimensional table that can be read by columns, for a distance that uses neither of the arguments."""
    for given, label in ((precision, "precision"), (folds, "folds")):
        if given is not None:
            raise ValueError(f"{label}: {name} does not use any, expected None")
    table = values if hasattr(values, "shape") else np.asarray(values)
    if len(table.shape) != 2:
        raise ValueError(f"values: expected shape (n, p), got {tuple(table.shape)}")
    return table


def _products(table: Any, *, centre: bool = False) -> Float:
    """Inner products of the rows, over blocks of columns; with ``centre``, of columns near mean 0."""
    products = np.zeros((len(table), len(table)))
    with np.errstate(invalid="ignore", over="ignore"):
        for columns in blocks(table.shape[1], _COLUMNS):
            part = np.asarray(table[:, columns], dtype=np.float64)
            if centre:
                # Distances do not change, and what the patterns share does not drown how they differ.
                part = part - _centre(part)
            products += part @ part.T
    return products


def _centre(table: Float) -> Float:
    """Column means of the rows that are finite throughout."""
    finite = np.isfinite(table).all(axis=1)
    return np.asarray(table[finite].sum(axis=0) / max(finite.sum(), 1))


def _correlation_distance(products: Float, sums: Float, n_columns: int, *, floor: Float) -> Float:
    """From inner products; rows whose sum of squares about the mean is at most ``floor`` are constant."""
    with np.errstate(invalid="ignore"):
        covariance = products - np.outer(sums, sums) / n_columns
        spread = np.diag(covariance)
        scale = 1 / np.sqrt(np.where(spread > floor, spread, np.nan))
        return _upper(np.clip(1 - covariance * scale * scale[:, None], 0, 2))


def _cosine_distance(products: Float) -> Float:
    energy = np.diag(products)
    scale = 1 / np.sqrt(np.where(energy > 0, energy, np.nan))
    with np.errstate(invalid="ignore"):
        return _upper(np.clip(1 - products * scale * scale[:, None], 0, 2))


def _squared_distance(products: Float) -> Float:
    own = np.diag(products)
    with np.errstate(invalid="ignore"):
        squared = _contrast(np.where(np.isfinite(products), products, np.nan))
        # NaN is not below anything, and stays.
        return _upper(np.where(squared < _ROUNDING * np.add.outer(own, own), 0, squared))


def _contrast(products: Float) -> Float:
    """Inner product of (a - b) with itself, for each two rows, from the inner products of the rows."""
    own = np.diag(products)
    return np.asarray(np.add.outer(own, own) - products - products.T)


def _upper(square: Float) -> Float:
    return np.asarray(square[np.triu_indices(len(square), 1)])


DISSIMILARITIES: dict[str, Dissimilarity] = {
    "correlation": correlation,
    "cosine": cosine,
    "euclidean": euclidean,
    "sqeuclidean": sqeuclidean,
    "spearman": spearman,
    "mahalanobis": mahalanobis,
    "crossnobis": crossnobis,
    "poisson_kl": poisson_kl,
}
USES_PRECISION = frozenset({"mahalanobis", "crossnobis"})
USES_FOLDS = frozenset({"crossnobis"})
FROM_GRAM = frozenset({"correlation", "cosine", "euclidean", "sqeuclidean"})
