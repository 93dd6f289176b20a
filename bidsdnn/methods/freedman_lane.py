"""Effects of covariates and groups over participants, with others held, by permuting residuals.

The one idea: residuals of the nuisance model are permuted and the whole model is fitted again; with orthonormal
nuisance columns that is a matrix product for the effect and one for each of them, whatever the number of permutations.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]

_ORDERS = 240
_FEATURES = 4096
ENUMERATED = 6
"""Participants up to whom all orders are made: 720."""
_TIES = {"f": 2e-6, "d": 1e-10}
_CONSTANT = 1e-8
"""Share of a column's length below which what the nuisance leaves of it is rounding."""


@dataclass(frozen=True)
class Effect:
    """Tests of an effect over participants; each of shape (F,), NaN where it cannot be tested.

    Parameters
    ----------
    estimate : array
        Change of the score with one unit of the tested variable.
    t : array
        Of the estimate, from the whole model.
    p : array
        Share of permutations whose absolute t reaches the observed one, two-sided.
    p_fwe : array
        The same for the largest absolute t of each permutation.
    n : array of int
        Participants.
    """

    estimate: Float
    t: Float
    p: Float
    p_fwe: Float
    n: NDArray[np.int64]


def freedman_lane(
    values: ArrayLike, tested: ArrayLike, nuisance: ArrayLike | None = None, *, permutations: int = 1000, seed: int = 0
) -> Effect:
    """Effects of covariates and groups were tested by permuting what the other variables leave of participants' scores.

    Freedman & Lane (1983), Journal of Business & Economic Statistics 1, 292-298; Winkler et al. (2014), NeuroImage 92,
    381-397. Up to 6 participants all orders are made, the identity among them.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant. NaN is a participant who is missing from that feature; those that have the same
        participants are tested together, and the order of the others is that of all.
    tested : array-like, shape (n,)
        The covariate, or 0 and 1 for two groups.
    nuisance : array-like, shape (n, q), optional
        Other variables; the mean is always among them.
    permutations, seed : int
        Of the random orders.

    Returns
    -------
    Effect

    Raises
    ------
    ValueError
        If shapes disagree, variables are not finite, there are no permutations, or the nuisance explains all of the
        tested variable.
    """
    values = np.asarray(values)
    scores: NDArray[np.floating] = values if values.dtype == np.float32 else values.astype(np.float64)
    n = len(scores)
    x = np.asarray(tested, dtype=np.float64)
    others = np.zeros((n, 0)) if nuisance is None else np.asarray(nuisance, dtype=np.float64).reshape(n, -1)
    if scores.ndim != 2 or x.shape != (n,) or not (np.isfinite(x).all() and np.isfinite(others).all()):
        raise ValueError(f"expected values (n, F) and finite variables of n, got {scores.shape}, {x.shape}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    if _model(x, others) is None:
        raise ValueError("tested: the nuisance variables explain all of it")
    orders, sampled = orders_of(n, permutations, seed)
    found = {key: np.full(scores.shape[1], np.nan) for key in ("estimate", "t", "p", "low")}
    largest = np.full(len(orders), -np.inf)
    count = np.zeros(scores.shape[1], dtype=np.int64)
    for features in blocks(scores.shape[1], _FEATURES):
        part = scores[:, features]
        there = np.isfinite(part)
        count[features] = there.sum(axis=0)
        for pattern in np.unique(there, axis=1).T if not there.all() else [np.ones(n, dtype=bool)]:
            columns = np.flatnonzero((there == pattern[:, None]).all(axis=0))
            model = _model(x[pattern], others[pattern])
            if model is None:
                continue
            fitted = _tested(part[np.ix_(pattern, columns)], model, _induced(orders, pattern), largest, sampled)
            for key, one in zip(found, fitted, strict=True):
                found[key][features.start + columns] = one
    low = found["low"]
    known = ~np.isnan(low)
    p_fwe = np.full(len(low), np.nan)
    below = np.searchsorted(np.sort(largest), low[known])
    p_fwe[known] = (sampled + len(orders) - below) / (sampled + len(orders))
    return Effect(found["estimate"], found["t"], found["p"], p_fwe, count)


def smallest_p(tested: ArrayLike, permutations: int, nuisance: ArrayLike | None = None) -> float:
    """Smallest p that the permutations can give: orders that change nothing of the test, or turn it round, tie.

    Parameters
    ----------
    tested : array-like, shape (n,)
    permutations : int
    nuisance : array-like, shape (n, q), optional
        Other variables: with them fewer orders tie.

    Returns
    -------
    float
    """
    x = np.asarray(tested, dtype=np.float64)
    others = np.zeros((len(x), 0)) if nuisance is None else np.asarray(nuisance, dtype=np.float64).reshape(len(x), -1)
    if len(x) > ENUMERATED:
        return max(_ties(x, others) / math.factorial(len(x)), 1 / (1 + permutations))
    model = _model(x, others)
    if model is None:
        return 1.0
    # Scores without any pattern tie only where all scores do.
    scores = np.random.default_rng(0).normal(size=(len(x), 1))
    largest = np.full(math.factorial(len(x)), -np.inf)
    observed = _tested(scores, model, orders_of(len(x), 1, 0)[0], largest, 0)[3]
    near = np.abs(largest / observed - 1) < 1e-8
    return float(near.mean())


def _ties(x: Float, others: Float) -> float:
    """Orders of many participants that leave all variables as they are, or are the mirror image of a lone one."""
    _, counts = np.unique(np.column_stack([x, others]), axis=0, return_counts=True)
    ties = math.prod(math.factorial(int(count)) for count in counts)
    centred = np.sort(x - x.mean())
    mirrored = np.allclose(centred, -centred[::-1], atol=1e-9 * max(np.ptp(x), 1e-300))
    return ties * (2 if mirrored and not np.ptp(others, axis=0).any() else 1)


def _model(x: Float, others: Float) -> tuple[Float, float, Float] | None:
    """The tested variable less the nuisance at a length of 1, its length before, and orthonormal nuisance columns."""
    n = len(x)
    if not n:
        return None
    whole = np.column_stack([np.ones(n), others])
    scale = np.linalg.norm(whole, axis=0)
    u, s, _ = np.linalg.svd(whole / np.where(scale > 0, scale, 1), full_matrices=False)
    nuisance = u[:, s > _CONSTANT * s[0]]
    left = x - nuisance @ (nuisance.T @ x)
    left -= nuisance @ (nuisance.T @ left)
    length = float(np.linalg.norm(left))
    if n - nuisance.shape[1] < 2 or length <= _CONSTANT * np.linalg.norm(x):
        return None
    return left / length, length, nuisance


def _tested(
    values: np.ndarray, model: tuple[Float, float, Float], orders: np.ndarray, largest: np.ndarray, sampled: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Estimate, t, p and the lowest absolute t that ties with the observed one; ``largest`` is raised."""
    x, length, nuisance = model
    freedom = len(x) - nuisance.shape[1] - 1
    exact = values.astype(np.float64)
    residuals = exact - nuisance @ (nuisance.T @ exact)
    size = np.sqrt((residuals**2).sum(axis=0))
    fine = size > 1e-12 * np.linalg.norm(exact, axis=0)
    estimate, t, p, low = (np.full(values.shape[1], np.nan) for _ in range(4))
    if not fine.any():
        return estimate, t, p, low
    scaled = (residuals[:, fine] / size[fine]).astype(values.dtype)
    estimate[fine] = x @ residuals[:, fine] / length
    r = x @ (residuals[:, fine] / size[fine])
    with np.errstate(divide="ignore"):
        t[fine] = r * np.sqrt(freedom / np.maximum(1 - r**2, 0))
    low[fine] = np.abs(r) - _TIES[values.dtype.char]
    reached = np.zeros(int(fine.sum()), dtype=np.int64)
    # The mean of residuals is 0 in every order.
    free = _without_mean(nuisance)
    for some in blocks(len(orders), _ORDERS):
        permuted = _partial(x, free, orders[some], scaled)
        np.abs(permuted, out=permuted)
        largest[some] = np.maximum(largest[some], _absolute_t(permuted.max(axis=1), freedom))
        reached += np.add.reduce((permuted >= low[fine].astype(values.dtype)).view(np.uint8), axis=0, dtype=np.uint8)
    p[fine] = (sampled + reached) / (sampled + len(orders))
    return estimate, t, p, _absolute_t(low, freedom)


def permuted_t(values: ArrayLike, tested: ArrayLike, nuisance: ArrayLike | None, orders: ArrayLike) -> Float:
    """Give t of the tested variable where residuals of the nuisance model are in other orders.

    Parameters
    ----------
    values : array-like, shape (n, F)
        Without NaN.
    tested : array-like, shape (n,)
    nuisance : array-like, shape (n, q), or None
    orders : array-like of int, shape (k, n)
        Of `orders_of`.

    Returns
    -------
    array, shape (k, F)
        0 where the nuisance explains a column.

    Raises
    ------
    ValueError
        If the nuisance explains all of the tested variable.
    """
    exact, x = np.asarray(values, dtype=np.float64), np.asarray(tested, dtype=np.float64)
    others = np.zeros((len(x), 0)) if nuisance is None else np.asarray(nuisance, dtype=np.float64).reshape(len(x), -1)
    model = _model(x, others)
    if model is None:
        raise ValueError("tested: the nuisance variables explain all of it")
    x, _, span = model
    residuals = exact - span @ (span.T @ exact)
    size = np.linalg.norm(residuals, axis=0)
    fine = size > 1e-12 * np.linalg.norm(exact, axis=0)
    scaled = np.where(fine, residuals / np.where(fine, size, 1), 0)
    r = _partial(x, _without_mean(span), np.asarray(orders), scaled)
    freedom = len(x) - span.shape[1] - 1
    return np.asarray(r * np.sqrt(freedom / np.maximum(1 - r**2, 1e-12)))


def _partial(x: Float, nuisance: Float, orders: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Partial correlation of x with residuals in other orders, (orders, features)."""
    found = x.astype(scaled.dtype)[orders] @ scaled
    if nuisance.shape[1]:
        explained = sum((column.astype(scaled.dtype)[orders] @ scaled) ** 2 for column in nuisance.T)
        found /= np.sqrt(np.maximum(1 - explained, 1e-12))
    return np.asarray(found)


def _without_mean(nuisance: Float) -> Float:
    """Orthonormal columns of what the nuisance spans besides the mean."""
    centred = nuisance - nuisance.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(u[:, s > _CONSTANT])


def _absolute_t(r: np.ndarray, freedom: int) -> np.ndarray:
    """Absolute t of correlations, which orders features of several numbers of participants; infinite at 1."""
    r = np.asarray(r, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(r * np.sqrt(freedom / np.maximum(1 - r**2, 0)))


def orders_of(n: int, permutations: int, seed: int) -> tuple[np.ndarray, int]:
    """Orders of participants, a row each, and 1 where they were drawn and the identity is to be counted."""
    if n <= ENUMERATED:
        return np.array(list(itertools.permutations(range(n)))), 0
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((permutations, n)), axis=1), 1


def _induced(orders: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The orders of those who are present, numbered among themselves."""
    if present.all():
        return orders
    number = np.cumsum(present) - 1
    return np.asarray(number[orders[present[orders]].reshape(len(orders), -1)])
