"""What units tell apart, and how many dimensions a layer has: sparseness, selectivity, participation ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def treves_rolls(rates: ArrayLike, *, axis: int = 0) -> Float:
    """Sparseness is the squared mean over the mean square of rates (Treves & Rolls 1991), negative ones taken as 0.

    Parameters
    ----------
    rates : array-like
        Over stimuli, for the lifetime sparseness of a unit; over units, for the population sparseness of a stimulus.
    axis : int
        That is summed over.

    Returns
    -------
    ndarray
        From 1 / n, if one rate alone is not 0, to 1, if all are the same; NaN where all are 0.
    """
    positive = np.maximum(np.asarray(rates, dtype=np.float64), 0)
    return sparseness_of(positive.sum(axis), (positive**2).sum(axis), positive.shape[axis])


def sparseness_of(sums: ArrayLike, squares: ArrayLike, n: int) -> Float:
    """Treves and Rolls' sparseness from sums and sums of squares of rates that are not negative.

    Parameters
    ----------
    sums, squares : array-like
    n : int
        Rates in each sum.

    Returns
    -------
    ndarray
    """
    mean, square = np.asarray(sums, dtype=np.float64) / n, np.asarray(squares, dtype=np.float64) / n
    return np.divide(mean**2, square, out=np.full(np.shape(mean), np.nan), where=square > 0)


def vinje_gallant(sparseness: ArrayLike, n: int) -> Float:
    """Sparseness was scaled to 0 for equal rates and 1 for a single one, (1 - a) / (1 - 1 / n) (Vinje & Gallant 2000).

    Parameters
    ----------
    sparseness : array-like
        Of `treves_rolls`.
    n : int
        Rates that it is of.

    Returns
    -------
    ndarray
    """
    share = np.asarray(sparseness, dtype=np.float64)
    return (1 - share) / (1 - 1 / n) if n > 1 else np.full(share.shape, np.nan)


def participation_ratio(variances: ArrayLike) -> float:
    """Dimensionality is the squared sum over the sum of squares of the variances of principal components.

    Parameters
    ----------
    variances : array-like, shape (n,)
        Eigenvalues of the covariance, or of the centred Gram matrix.

    Returns
    -------
    float
        From 1 to their number (Gao et al. 2017); NaN where nothing varies.
    """
    values = np.maximum(np.asarray(variances, dtype=np.float64), 0)
    square = float((values**2).sum())
    return float(values.sum() ** 2 / square) if square > 0 else float("nan")


def components_for(variances: ArrayLike, share: float) -> int:
    """How many principal components explain a share of the variance.

    Parameters
    ----------
    variances : array-like, shape (n,)
    share : float
        Above 0, at most 1.

    Returns
    -------
    int
        0 where nothing varies.
    """
    values = np.sort(np.maximum(np.asarray(variances, dtype=np.float64), 0))[::-1]
    if not values.sum() > 0:
        return 0
    # A share that is reached but for rounding is reached.
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share * (1 - 1e-12)) + 1)


def variances_of(gram: ArrayLike) -> Float:
    """Variances of the principal components of a table, from the inner products of its rows.

    Parameters
    ----------
    gram : array-like, shape (n, n)

    Returns
    -------
    ndarray, shape (n,)
        Eigenvalues of the Gram matrix of the column-centred rows over n - 1, the largest first; none below 0.
    """
    inner = np.asarray(gram, dtype=np.float64)
    centred = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
    values = np.linalg.eigvalsh((centred + centred.T) / 2)[::-1]
    values = np.where(values > values[0] * len(values) * np.finfo(np.float32).eps, values, 0.0)
    return values / max(len(values) - 1, 1)


def class_means(values: ArrayLike, classes: ArrayLike, n_classes: int) -> tuple[Float, Float, NDArray[np.intp]]:
    """Mean and variance of each class, and how many it has.

    Parameters
    ----------
    values : array-like, shape (n, p)
    classes : array-like of int, shape (n,)
        From 0.
    n_classes : int

    Returns
    -------
    means, variances : ndarray, shape (n_classes, p)
        Variances have n - 1 below; NaN of a class with one member.
    counts : ndarray of int, shape (n_classes,)
    """
    rows, codes = np.asarray(values, dtype=np.float64), np.asarray(classes)
    counts = np.bincount(codes, minlength=n_classes)
    indicator = np.eye(n_classes)[codes]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = indicator.T @ rows / counts[:, None]
        around = rows - means[codes]
        variances = indicator.T @ around**2 / (counts[:, None] - 1)
    return means, variances, counts


def class_selectivity(means: ArrayLike) -> Float:
    """Class selectivity is (largest - others) / (largest + others), others being the mean of the other classes' means.

    As Morcos et al. (2018) have it of rectified units; negative means are taken as 0.

    Parameters
    ----------
    means : array-like, shape (n_classes, p)

    Returns
    -------
    ndarray, shape (p,)
        From 0 to 1; NaN where all means are 0.
    """
    positive = np.maximum(np.asarray(means, dtype=np.float64), 0)
    largest = positive.max(0)
    others = (positive.sum(0) - largest) / (len(positive) - 1)
    total = largest + others
    return np.divide(largest - others, total, out=np.full(total.shape, np.nan), where=total > 0)


def discriminability(values: ArrayLike, classes: ArrayLike, preferred: ArrayLike) -> Float:
    """D' is the difference of means of the preferred class and all others over the root of their mean variance.

    Parameters
    ----------
    values : array-like, shape (n, p)
    classes : array-like of int, shape (n,)
    preferred : array-like of int, shape (p,)
        Class of each column.

    Returns
    -------
    ndarray, shape (p,)
        NaN where a part has one member, or neither varies.
    """
    rows, codes = np.asarray(values, dtype=np.float64), np.asarray(classes)
    best = np.asarray(preferred)
    found = np.full(rows.shape[1], np.nan)
    for one in np.unique(best):
        columns = np.flatnonzero(best == one)
        inside, outside = rows[np.ix_(codes == one, columns)], rows[np.ix_(codes != one, columns)]
        if len(inside) < 2 or len(outside) < 2:
            continue
        spread = np.sqrt((inside.var(0, ddof=1) + outside.var(0, ddof=1)) / 2)
        gap = inside.mean(0) - outside.mean(0)
        found[columns] = np.divide(gap, spread, out=np.full(len(columns), np.nan), where=spread > 0)
    return found


def variance_between(values: ArrayLike, classes: ArrayLike, n_classes: int) -> Float:
    """Eta squared is the share of variance that lies between classes.

    Parameters
    ----------
    values : array-like, shape (n, p)
    classes : array-like of int, shape (n,)
    n_classes : int

    Returns
    -------
    ndarray, shape (p,)
        NaN where nothing varies.
    """
    rows, codes = np.asarray(values, dtype=np.float64), np.asarray(classes)
    means, _, counts = class_means(rows, codes, n_classes)
    around = rows - rows.mean(0)
    total = (around**2).sum(0)
    there = counts > 0
    between = (counts[there, None] * (means[there] - rows.mean(0)) ** 2).sum(0)
    varies = total > 1e-20 * (rows**2).sum(0)
    return np.divide(between, total, out=np.full(total.shape, np.nan), where=varies)
