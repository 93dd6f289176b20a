"""Representational dissimilarity matrices, their comparison and its test.

An RDM is a condensed vector of pairs, in the order of scipy's ``pdist``: (0, 1), (0, 2), ..., (1, 2), ... The
one idea: standardised once, RDMs are compared by inner products, so that relabelled stimuli cost an index and
a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]

_PAIRS_IN_MEMORY = 4_000_000
"""Permuted pairs of one RDM held at a time."""


def correlation(values: ArrayLike) -> Float:
    """The dissimilarity of two stimuli is one minus the Pearson correlation of their patterns.

    Kriegeskorte, Mur & Bandettini (2008), Frontiers in Systems Neuroscience 2, 4.

    Parameters
    ----------
    values : array-like, shape (n, p)
        A pattern in each row.

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        From 0 to 2; NaN in the pairs of a row that is constant or not finite.

    Raises
    ------
    ValueError
        If the table is not two-dimensional.
    """
    patterns = np.asarray(values, dtype=np.float64)
    if patterns.ndim != 2:
        raise ValueError(f"values: expected shape (n, p), got {patterns.shape}")
    standard = _standard(patterns)
    return _condensed(1 - standard @ standard.T)


def correlation_from_gram(gram: ArrayLike, row_sums: ArrayLike, n_columns: int) -> Float:
    """Correlation distances of a wide table, from the inner products of its rows alone.

    Parameters
    ----------
    gram : array-like, shape (n, n)
        Raw inner products, from `reduce.gram`.
    row_sums : array-like, shape (n,)
        Sums of the rows.
    n_columns : int
        Columns of the table.

    Returns
    -------
    array, shape (n * (n - 1) / 2,)
        As `correlation`, to about 1e-16 times the ratio of a row's mean square to its variance.

    Raises
    ------
    ValueError
        If the shapes disagree or there are no columns.
    """
    products, sums = np.asarray(gram, dtype=np.float64), np.asarray(row_sums, dtype=np.float64)
    if products.shape != (len(sums), len(sums)):
        raise ValueError(f"gram: expected shape ({len(sums)}, {len(sums)}), got {products.shape}")
    if n_columns < 1:
        raise ValueError(f"n_columns: expected at least 1, got {n_columns}")
    covariance = products - np.outer(sums, sums) / n_columns
    energy, spread = np.diag(products), np.diag(covariance)
    # What centring leaves of a constant row is rounding.
    spread = np.where(spread > 1e-11 * energy, spread, np.nan)
    scale = 1 / np.sqrt(spread)
    return _condensed(1 - covariance * scale * scale[:, None])


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by Spearman's rank correlation, ties at their average rank.

    Parameters
    ----------
    a, b : array-like, shape (pairs,)

    Returns
    -------
    float
        From -1 to 1; NaN if either holds NaN or is constant.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _compare(a, b, rank=True)


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by Pearson correlation.

    Parameters
    ----------
    a, b : array-like, shape (pairs,)

    Returns
    -------
    float
        From -1 to 1; NaN if either holds NaN or is constant.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _compare(a, b, rank=False)


def label_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    *,
    comparison: str = "spearman",
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[Float, Float]:
    """Similarity of RDMs was tested by permuting the stimulus labels: rows and columns together, never pairs.

    Pairs that share a stimulus depend on each other, so permuting entries would be too liberal (Mantel, 1967,
    Cancer Research 27, 209-220; Kriegeskorte et al., 2008).

    Parameters
    ----------
    models : array-like, shape (L, pairs)
        RDMs of layers.
    brains : array-like, shape (R, pairs)
        RDMs of regions, of the same stimuli in the same order.
    comparison : str
        A row of `SIMILARITIES`.
    permutations : int
        Relabellings; the same ones for all pairs of RDMs.
    seed : int

    Returns
    -------
    similarity : array, shape (L, R)
    p : array, shape (L, R)
        (1 + relabellings that reach the observed similarity) / (1 + permutations), one-sided: greater than
        chance. Both are NaN for an RDM that holds NaN or is constant.

    Raises
    ------
    ValueError
        If the comparison is unknown, shapes differ, the number of pairs is not that of 4 or more stimuli, or
        there are no permutations.
    """
    if comparison not in _RANKED:
        raise ValueError(f"comparison: expected one of {sorted(_RANKED)}, got {comparison!r}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    left, right = (np.asarray(rdms, dtype=np.float64) for rdms in (models, brains))
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(f"models, brains: expected shapes (L, pairs), (R, pairs), got {left.shape}, {right.shape}")
    n = _stimuli(left.shape[1])
    left, right = (_standard(_ranks(rdms) if _RANKED[comparison] else rdms) for rdms in (left, right))
    similarity = left @ right.T
    # Relabelling the one side is relabelling the other the inverse way: move the side with fewer RDMs.
    moved, still = (left, right) if len(left) < len(right) else (right, left)
    observed = (similarity if moved is right else similarity.T) - 1e-10
    reached = np.zeros(observed.shape, dtype=int)
    rng = np.random.default_rng(seed)
    step = max(1, _PAIRS_IN_MEMORY // left.shape[1])
    for some in blocks(permutations, step):
        pairs = _relabelled(n, rng, some.stop - some.start)
        for index, rdm in enumerate(moved):
            reached[:, index] += (still @ rdm[pairs] >= observed[:, index, None]).sum(axis=1)
    p = (1 + (reached if moved is right else reached.T)) / (1 + permutations)
    return np.clip(similarity, -1, 1), np.where(np.isnan(similarity), np.nan, p)


def _relabelled(n: int, rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    """Where relabelled pairs of n stimuli are found in the condensed vector, (pairs, count).

    In each of ``count`` random relabellings, the pair (i, j) becomes (order[i], order[j]).
    """
    first, second = np.triu_indices(n, 1)
    position = np.zeros((n, n), dtype=np.intp)
    position[first, second] = position[second, first] = np.arange(len(first))
    orders = np.stack([rng.permutation(n) for _ in range(count)], axis=1)
    return np.asarray(position[orders[first], orders[second]])


def _stimuli(n_pairs: int) -> int:
    n = round((1 + (1 + 8 * n_pairs) ** 0.5) / 2)
    if n * (n - 1) // 2 != n_pairs or n < 4:
        raise ValueError(f"pairs: expected n * (n - 1) / 2 for n of at least 4 stimuli, got {n_pairs}")
    return n


def _compare(a: ArrayLike, b: ArrayLike, *, rank: bool) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a, b: expected two vectors of pairs of one length, got {a.shape} and {b.shape}")
    rows = np.stack([a, b])
    first, second = _standard(_ranks(rows) if rank else rows)
    return float(np.clip(first @ second, -1, 1))


def _ranks(rows: Float) -> Float:
    return np.asarray(rankdata(rows, axis=1, nan_policy="propagate"), dtype=np.float64)


def _standard(rows: Float) -> Float:
    """Rows of mean 0 and length 1; NaN for those that are constant or not finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        standard = rows - rows.sum(axis=1, keepdims=True) / rows.shape[1]
        length = np.sqrt(np.einsum("ij,ij->i", standard, standard))
        # What centring leaves of a constant row is rounding; of one that is not finite, NaN.
        usable = length > 1e-12 * np.sqrt(np.einsum("ij,ij->i", rows, rows))
        standard /= np.where(usable, length, np.nan)[:, None]
    return standard


def _condensed(square: Float) -> Float:
    return np.asarray(np.clip(square[np.triu_indices(len(square), 1)], 0, 2))


DISSIMILARITIES: dict[str, Callable[[ArrayLike], Float]] = {"correlation": correlation}
SIMILARITIES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"spearman": spearman, "pearson": pearson}
_RANKED = {"spearman": True, "pearson": False}
