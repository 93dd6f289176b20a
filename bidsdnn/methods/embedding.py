"""Where stimuli lie by their distances: on a plane, and in the order of a tree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from bidsdnn.methods.transforms import condensed_to_square

_OPTIMAL = 300
"""Ordering the leaves of more stimuli so that neighbours are close takes minutes; their tree's own order stays."""


def classical_mds(rdm: ArrayLike, *, squared: bool = True) -> tuple[NDArray[np.float64], float]:
    """Stimuli were placed on a plane by classical multidimensional scaling.

    The two principal axes of the double-centred squared distances (Torgerson, 1952, Psychometrika 17, 401-419).

    Parameters
    ----------
    rdm : array-like, shape (n * (n - 1) / 2,)
    squared : bool
        Whether the distances are squared ones, as 1 - r is that of z-scored patterns up to a factor.

    Returns
    -------
    places : array, shape (n, 2)
        Along the longer axis first; the sign makes the largest coordinate of each axis positive.
    share : float
        How much of the positive part of the variance the two axes hold.

    Raises
    ------
    ValueError
        If the number of pairs is not that of 4 or more stimuli, or a distance is not finite.
    """
    distances = np.asarray(rdm, dtype=np.float64)
    if not np.isfinite(distances).all():
        raise ValueError("rdm: expected finite distances to place stimuli by, got NaN or infinity")
    square = condensed_to_square(distances if squared else distances**2)
    mean = square.mean(axis=0)
    values, vectors = np.linalg.eigh((np.add.outer(mean, mean) - mean.mean() - square) / 2)
    positive = np.clip(values, 0, None)
    places = vectors[:, [-1, -2]] * np.sqrt(positive[[-1, -2]])
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return places, float(positive[-2:].sum() / positive.sum()) if positive.any() else np.nan


def leaf_order(rdm: ArrayLike) -> NDArray[np.intp]:
    """Stimuli were ordered by average linkage, so that those next to each other are close.

    Parameters
    ----------
    rdm : array-like, shape (n * (n - 1) / 2,)
        Infinite and missing distances count as the largest.

    Returns
    -------
    array of int, shape (n,)
    """
    distances = np.asarray(rdm, dtype=np.float64)
    finite = np.isfinite(distances)
    filled = np.where(finite, distances, distances[finite].max(initial=0))
    # A cross-validated distance may be negative, which a tree cannot hold; a shift keeps its order.
    filled = filled - min(filled.min(), 0.0)
    n = round((1 + np.sqrt(1 + 8 * len(filled))) / 2)
    return np.asarray(leaves_list(linkage(filled, "average", optimal_ordering=n <= _OPTIMAL)))
