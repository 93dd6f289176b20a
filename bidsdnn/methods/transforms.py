"""RDMs transformed so that their inner product is their similarity.

The one idea: of two transformed RDMs, the second may be relabelled afterwards, for relabelling changes neither its
mean, nor its length, nor its ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Float = NDArray[np.float64]
Sides = tuple[Float, Float]


def condensed_to_square(rdm: NDArray[Any]) -> NDArray[Any]:
    """The symmetric matrix of a condensed vector of pairs.

    Parameters
    ----------
    rdm : array, shape (n * (n - 1) / 2,)

    Returns
    -------
    array, shape (n, n)
        Of the same type, with a zero diagonal.
    """
    n = n_stimuli(len(rdm))
    first, second = np.triu_indices(n, 1)
    square = np.zeros((n, n), dtype=rdm.dtype)
    square[first, second] = square[second, first] = rdm
    return square


def n_stimuli(n_pairs: int) -> int:
    """The number of stimuli that have so many pairs.

    Parameters
    ----------
    n_pairs : int

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If there is no such number, or it is less than 4.
    """
    n = round((1 + (1 + 8 * n_pairs) ** 0.5) / 2)
    if n * (n - 1) // 2 != n_pairs or n < 4:
        raise ValueError(f"pairs: expected n * (n - 1) / 2 for n of at least 4 stimuli, got {n_pairs}")
    return n


def _standard(rows: Float) -> Sides:
    """Rows of mean 0 and length 1; NaN for those that are constant or not finite."""
    with np.errstate(invalid="ignore"):
        return _unit(rows - rows.sum(axis=1, keepdims=True) / rows.shape[1], rows)


def _unit(rows: Float, origin: Float) -> Sides:
    """Rows of length 1; NaN for those of which centring has left no more than rounding, or that are not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        usable = length > 1e-12 * np.sqrt(np.einsum("ij,ij->i", origin, origin))
        unit = rows / np.where(usable, length, np.nan)[:, None]
    return unit, unit


def _ranks(rows: Float) -> Float:
    return np.asarray(rankdata(rows, axis=1, nan_policy="propagate"), dtype=np.float64)


def _whitened(rows: Float, origin: Float) -> Sides:
    """Two sides whose inner product is the cosine of the double-centred matrices G = -HDH/2.

    <G, G'> is <G, -D'/2>, as H is a projection; and D' has a zero diagonal, so the pairs are enough.
    """
    still, moved = np.empty_like(rows), np.empty_like(rows)
    with np.errstate(invalid="ignore", over="ignore"):
        for index, row in enumerate(rows):
            square = condensed_to_square(row)
            mean = square.mean(axis=0)
            centred = (np.add.outer(mean, mean) - mean.mean() - square) / 2
            length = np.sqrt(np.vdot(centred, centred))
            usable = length > 1e-12 * np.sqrt(np.vdot(origin[index], origin[index]))
            length = length if usable else np.nan
            still[index] = -centred[np.triu_indices(len(square), 1)] / length
            moved[index] = row / length
    return still, moved


def _whitened_standard(rows: Float) -> Sides:
    with np.errstate(invalid="ignore"):
        return _whitened(rows - rows.mean(axis=1, keepdims=True), rows)


SIDES: dict[str, Callable[[Float], Sides]] = {
    "spearman": lambda rows: _standard(_ranks(rows)),
    "pearson": _standard,
    "cosine": lambda rows: _unit(rows, rows),
    "whitened_pearson": _whitened_standard,
    "whitened_cosine": lambda rows: _whitened(rows, rows),
    "linear_cka": lambda rows: _whitened(rows, rows),
}
"""From RDMs (k, pairs) to two sides: similarity is the inner product of the one's first and the other's second."""
