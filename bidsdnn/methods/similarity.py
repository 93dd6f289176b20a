"""Comparisons of representational dissimilarity matrices, and their test by relabelled stimuli.

The one idea: transformed once, RDMs are compared by inner products, so that relabelled stimuli cost an index and
a matrix product. Kendall's tau is the exception: it costs a count for each relabelling and each two RDMs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.kendall import Ranking, concordance, ranking
from bidsdnn.methods.relabelling import Index, relabellings
from bidsdnn.methods.transforms import SIDES, condensed_to_square, n_stimuli

Float = NDArray[np.float64]
Relabelled = Callable[[Index], Float]
Comparison = Callable[[Float, Float], float]

_TOLERANCE = 1e-10
"""Similarities that differ by less are ties, which count as reached: equal sums differ by rounding."""


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
    return _compare("pearson", a, b)


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
    return _compare("spearman", a, b)


def kendall_tau_a(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by Kendall's tau-a: ties count for neither order and against both RDMs.

    Fair to models that predict ties (Nili et al., 2014, PLoS Computational Biology 10, e1003553).

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
    return _compare("kendall_tau_a", a, b)


def kendall_tau_b(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by Kendall's tau-b: tied pairs of dissimilarities were left out on either side.

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
    return _compare("kendall_tau_b", a, b)


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by the cosine of the angle between them, with no mean taken off.

    Parameters
    ----------
    a, b : array-like, shape (pairs,)

    Returns
    -------
    float
        From -1 to 1; NaN if either holds NaN or is zero.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _compare("cosine", a, b)


def whitened_cosine(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by the cosine after whitening, as distances that share a stimulus covary.

    a' V^-1 b over its norms, where V is the covariance of distances between equal patterns with independent noise
    (Diedrichsen et al., 2021, Neurons, Behavior, Data analysis, and Theory 5; rsatoolbox's "cosine_cov"). In
    closed form it is the cosine of the double-centred RDMs, so no pairs x pairs matrix is made.

    Parameters
    ----------
    a, b : array-like, shape (pairs,)
        Squared distances.

    Returns
    -------
    float
        From -1 to 1; NaN if either holds NaN or is zero.

    Raises
    ------
    ValueError
        If the shapes differ, or the number of pairs is not that of 4 or more stimuli.
    """
    return _compare("whitened_cosine", a, b)


def whitened_pearson(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by correlation after whitening, as distances that share a stimulus covary.

    `whitened_cosine` of RDMs less their mean: rsatoolbox's "corr_cov".

    Parameters
    ----------
    a, b : array-like, shape (pairs,)
        Squared distances.

    Returns
    -------
    float
        From -1 to 1; NaN if either holds NaN or is constant.

    Raises
    ------
    ValueError
        If the shapes differ, or the number of pairs is not that of 4 or more stimuli.
    """
    return _compare("whitened_pearson", a, b)


def linear_cka(a: ArrayLike, b: ArrayLike) -> float:
    """RDMs were compared by linear centred kernel alignment, the cosine of the patterns' centred inner products.

    Double centring turns squared Euclidean distances into those inner products, up to a factor (Kornblith et al.,
    2019, ICML). The same number as `whitened_cosine` (Diedrichsen et al., 2021).

    Parameters
    ----------
    a, b : array-like, shape (pairs,)
        Squared Euclidean distances.

    Returns
    -------
    float
        From 0 to 1; NaN if either holds NaN or is zero.

    Raises
    ------
    ValueError
        If the shapes differ, or the number of pairs is not that of 4 or more stimuli.
    """
    return _compare("linear_cka", a, b)


@overload
def label_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    *,
    comparison: str | Comparison = ...,
    permutations: int = ...,
    seed: int = ...,
    return_null: Literal[False] = ...,
) -> tuple[Float, Float]: ...
@overload
def label_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    *,
    comparison: str | Comparison = ...,
    permutations: int = ...,
    seed: int = ...,
    return_null: Literal[True],
) -> tuple[Float, Float, Float]: ...
def label_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    *,
    comparison: str | Comparison = "spearman",
    permutations: int = 1000,
    seed: int = 0,
    return_null: bool = False,
) -> tuple[Float, Float] | tuple[Float, Float, Float]:
    """Similarity of RDMs was tested by permuting the stimulus labels: rows and columns together, never pairs.

    Pairs that share a stimulus depend on each other, so permuting entries would be too liberal (Mantel, 1967,
    Cancer Research 27, 209-220; Kriegeskorte et al., 2008). Kendall's tau takes a count of each relabelling of
    each two RDMs, about 0.3 ms for 92 stimuli and 7 ms for 500; all others a matrix product.

    Parameters
    ----------
    models : array-like, shape (L, pairs)
        RDMs of layers.
    brains : array-like, shape (R, pairs)
        RDMs of regions, of the same stimuli in the same order.
    comparison : str or callable
        A row of `SIMILARITIES`, or a function of two RDMs, which is called for each relabelling.
    permutations : int
        Relabellings; the same ones for all pairs of RDMs.
    seed : int
    return_null : bool
        Whether to return the similarities under relabelling too, for `familywise`.

    Returns
    -------
    similarity : array, shape (L, R)
    p : array, shape (L, R)
        (1 + relabellings that reach the observed similarity) / (1 + permutations), one-sided: greater than
        chance. Both are NaN for an RDM that holds NaN or that the comparison knows as constant.
    null : array, shape (permutations, L, R)
        With `return_null` only.

    Raises
    ------
    ValueError
        If the comparison is unknown, shapes differ, the number of pairs is not that of 4 or more stimuli, or
        there are no permutations.
    """
    if not callable(comparison) and comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
    left, right = (np.asarray(rdms, dtype=np.float64) for rdms in (models, brains))
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(f"models, brains: expected shapes (L, pairs), (R, pairs), got {left.shape}, {right.shape}")
    n = n_stimuli(left.shape[1])
    # Relabelling the one side is relabelling the other the inverse way: move the side with fewer RDMs.
    swap = len(left) < len(right)
    observed, relabelled = _prepared(comparison, *((right, left) if swap else (left, right)))
    reached = np.zeros(observed.shape, dtype=int)
    null = np.empty((max(permutations, 0) if return_null else 0, *observed.shape))
    for some, places in relabellings(n, permutations, seed=seed, inverse=swap):
        values = relabelled(places)
        reached += (values >= observed - _TOLERANCE).sum(axis=0)
        if return_null:
            null[some] = values
    if swap:
        observed, reached, null = observed.T, reached.T, null.transpose(0, 2, 1)
    p = np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + permutations))
    similarity = observed if callable(comparison) else np.clip(observed, -1, 1)
    return (similarity, p, null) if return_null else (similarity, p)


def familywise(observed: ArrayLike, null: ArrayLike) -> Float:
    """Family-wise p over the layers of a region: how often the best layer of a relabelling reaches the observed one.

    Westfall & Young (1993), Resampling-based multiple testing; Nichols & Holmes (2002), Human Brain Mapping 15,
    1-25.

    Parameters
    ----------
    observed : array-like, shape (L, R)
        Similarities of layers and regions.
    null : array-like, shape (B, L, R)
        The same under relabelling, from `label_permutation`.

    Returns
    -------
    array, shape (L, R)
        (1 + b) / (1 + B). NaN where the similarity is; such a layer is not part of the region's family.

    Raises
    ------
    ValueError
        If the shapes disagree or the null is empty.
    """
    seen, under = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if seen.ndim != 2 or under.shape[1:] != seen.shape or not len(under):
        raise ValueError(f"observed, null: expected shapes (L, R), (B, L, R), got {seen.shape}, {under.shape}")
    best = np.where(np.isnan(under), -np.inf, under).max(axis=1, keepdims=True, initial=-np.inf)
    return pvalue(seen, np.broadcast_to(best, under.shape), tolerance=_TOLERANCE)


def _prepared(comparison: str | Comparison, still: Float, moved: Float) -> tuple[Float, Relabelled]:
    """Similarities (S, M) of two sets of RDMs, and the function that gives them under relabellings of the second.

    That function takes places in the square matrix, (count, pairs), and returns (count, S, M).
    """
    if callable(comparison):
        return _called(comparison, still, moved)
    if comparison in SIDES:
        left, right = SIDES[comparison](still)[0], SIDES[comparison](moved)[1]
        squares = [condensed_to_square(rdm).ravel() for rdm in right]
        return left @ right.T, lambda places: np.stack(
            [(left @ at.take(places, mode="clip").T).T for at in squares], axis=2
        )
    known, other = ([_ranked(rdm) for rdm in rdms] for rdms in (still, moved))
    flat = [None if y is None else condensed_to_square(y.rank).ravel() for y in other]

    def relabelled(places: Index) -> Float:
        values = np.empty((len(places), len(known), len(other)))
        for number, place in enumerate(places):
            for j, (y, ranks) in enumerate(zip(other, flat, strict=True)):
                rank = None if ranks is None else ranks.take(place)
                values[number, :, j] = [_tau(comparison, x, y, rank) for x in known]
        return values

    return np.array([[_tau(comparison, x, y) for y in other] for x in known]).reshape(len(still), -1), relabelled


def _called(function: Comparison, still: Float, moved: Float) -> tuple[Float, Relabelled]:
    """What `_prepared` gives, of any function; NaN for an RDM that holds NaN."""
    fine = [[not np.isnan(rdm).any() for rdm in rdms] for rdms in (still, moved)]
    squares = [condensed_to_square(rdm).ravel() for rdm in moved]

    def compared(others: list[Float]) -> Float:
        return np.array(
            [
                [function(a, b) if good and fair else np.nan for b, fair in zip(others, fine[1], strict=True)]
                for a, good in zip(still, fine[0], strict=True)
            ],
            dtype=np.float64,
        ).reshape(len(still), len(moved))

    return compared(list(moved)), lambda places: np.array(
        [compared([square.take(place) for square in squares]) for place in places]
    )


def _tau(comparison: str, x: Ranking | None, y: Ranking | None, rank: NDArray[np.int64] | None = None) -> float:
    """Kendall's tau; ``rank`` are the ranks of y in another order."""
    if x is None or y is None:
        return np.nan
    counted = concordance(x, y.rank if rank is None else rank, y.tied)
    return counted / (x.pairs if comparison == "kendall_tau_a" else ((x.pairs - x.tied) * (y.pairs - y.tied)) ** 0.5)


def _ranked(rdm: Float) -> Ranking | None:
    """None where there is nothing to rank: NaN, or one value throughout."""
    if np.isnan(rdm).any() or (rdm == rdm[:1]).all():
        return None
    return ranking(rdm)


def _compare(comparison: str, a: ArrayLike, b: ArrayLike) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a, b: expected two vectors of pairs of one length, got {a.shape} and {b.shape}")
    if comparison in SIDES:
        still, moved = (SIDES[comparison](rdm[None])[side][0] for side, rdm in enumerate((a, b)))
        return float(np.clip(still @ moved, -1, 1))
    return _tau(comparison, _ranked(a), _ranked(b))


SIMILARITIES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "spearman": spearman,
    "pearson": pearson,
    "kendall_tau_a": kendall_tau_a,
    "kendall_tau_b": kendall_tau_b,
    "cosine": cosine,
    "whitened_pearson": whitened_pearson,
    "whitened_cosine": whitened_cosine,
    "linear_cka": linear_cka,
}
