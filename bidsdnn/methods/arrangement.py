"""Many RDMs or stimuli at a glance: each two compared, laid out in a plane, and joined into a tree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from bidsdnn.methods.similarity import SIMILARITIES, Comparison
from bidsdnn.methods.transforms import SIDES

Float = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)
_OPTIMAL = 300
"""Ordering the leaves of more items so that neighbours are close takes minutes; their tree's own order stays."""


def pairwise_similarity(rdms: ArrayLike, *, comparison: str | Comparison = "spearman") -> Float:
    """Compare each two of some RDMs.

    Parameters
    ----------
    rdms : array-like, shape (k, pairs)
    comparison : str or callable
        Row of `SIMILARITIES`, or a function of two RDMs.

    Returns
    -------
    array, shape (k, k)
        Symmetric, as far as a function is; NaN in the rows and columns of an RDM that holds NaN or is constant.

    Raises
    ------
    ValueError
        If the comparison is unknown, or the RDMs are no table of pairs.
    """
    if not callable(comparison) and comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
    table = np.asarray(rdms, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"rdms: expected shape (k, pairs), got {table.shape}")
    if not callable(comparison) and comparison in SIDES:
        left, right = SIDES[comparison](table)
        square = left @ right.T
        return np.asarray(np.clip((square + square.T) / 2, -1, 1))
    similar = comparison if callable(comparison) else SIMILARITIES[comparison]
    square = np.array([[similar(a, b) for b in table] for a in table], dtype=np.float64)
    return square.reshape(len(table), len(table))


def square_of_pairs(first: Sequence[Name], second: Sequence[Name], similarity: ArrayLike) -> tuple[list[Name], Float]:
    """Bring similarities of pairs into a symmetric matrix.

    Parameters
    ----------
    first, second : sequence, length m
        Names of the two items of each pair.
    similarity : array-like, shape (m,)

    Returns
    -------
    items : list
        Names in the order of their first appearance.
    square : array, shape (k, k)
        Ones on the diagonal; NaN where a pair is lacking.
    """
    items = list(dict.fromkeys([*first, *second]))
    place = {item: row for row, item in enumerate(items)}
    square = np.full((len(items), len(items)), np.nan)
    np.fill_diagonal(square, 1)
    one, other = [place[item] for item in first], [place[item] for item in second]
    square[one, other] = square[other, one] = np.asarray(similarity, dtype=np.float64)
    return items, square


def classical_mds(distances: ArrayLike, *, dimensions: int = 2, squared: bool = False) -> tuple[Float, float]:
    """Distances were laid out in a plane by classical multidimensional scaling.

    The leading eigenvectors of the double-centred squared distances (Torgerson, 1952, Psychometrika 17, 401-419),
    each times the root of its eigenvalue, its largest coordinate positive.

    Parameters
    ----------
    distances : array-like, shape (n, n)
        Symmetric.
    dimensions : int
    squared : bool
        Whether they are squared distances, as 1 - r is that of z-scored patterns up to a factor; those that are
        cross-validated may be negative.

    Returns
    -------
    places : array, shape (n, dimensions)
        Zero in dimensions that the distances do not have.
    share : float
        How much of the positive part of the variance these dimensions hold; NaN if there is none.

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric and finite.
    """
    d = _square(distances)
    n = len(d)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centre @ (d if squared else d**2) @ centre / -2)
    order = np.argsort(values)[::-1][:dimensions]
    # Eigenvalues that are negative belong to distances that no space has, tiny ones to rounding.
    size = np.sqrt(np.where(values[order] > 1e-12 * np.abs(values).max(initial=0), values[order], 0))
    found = vectors[:, order] * size
    sign = np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    place = np.zeros((n, dimensions))
    place[:, : found.shape[1]] = found * np.where(sign == 0, 1, sign)
    positive = np.clip(values, 0, None)
    return place, float(positive[order].sum() / positive.sum()) if positive.any() else np.nan


def tree(distances: ArrayLike) -> tuple[Float, NDArray[np.intp]]:
    """Items were joined by the average distance between clusters (UPGMA).

    Sokal & Michener (1958), University of Kansas Science Bulletin 38, 1409-1438; leaves in the order of Bar-Joseph et
    al. (2001), Bioinformatics 17, S22-S29.

    Parameters
    ----------
    distances : array-like, shape (n, n)
        Symmetric; n of at least 2.

    Returns
    -------
    links : array, shape (n - 1, 4)
        As scipy's ``linkage``.
    order : array of int, shape (n,)
        The leaves, neighbours side by side.

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric and finite, or of one item.
    """
    d = _square(distances)
    if len(d) < 2:
        raise ValueError(f"distances: expected at least 2 items, got {len(d)}")
    condensed = squareform(d, checks=False)
    # A cross-validated distance may be negative, which a tree cannot hold; a shift keeps its order.
    condensed = condensed - min(float(condensed.min()), 0.0)
    links = linkage(condensed, "average", optimal_ordering=len(d) <= _OPTIMAL)
    return np.asarray(links), np.asarray(leaves_list(links), dtype=np.intp)


def _square(distances: ArrayLike) -> Float:
    d = np.asarray(distances, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not np.isfinite(d).all() or not np.allclose(d, d.T, atol=1e-10):
        raise ValueError(f"distances: expected a symmetric matrix of finite numbers, got shape {d.shape}")
    return d
