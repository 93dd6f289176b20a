"""How much each part of a prediction adds to its score, from sums over held-out items alone.

The one idea: predictions that are a sum of parts have scores that are linear in the parts once the whole's scale is
known, so the parts' shares add up to the score exactly; and all that is needed of a fold are a few sums a target, so
that no prediction is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the held-out items of one fold; all deviations are from the training part's mean.

    Parameters
    ----------
    n : int
        Items.
    part : array, shape (n_parts, V)
        Of each part's predicted deviations.
    agreed : array, shape (n_parts, V)
        Of each part's, times the measured ones.
    shared : array, shape (n_parts, V)
        Of each part's, times those of all parts together.
    measured, squared : array, shape (V,)
        Of the measured deviations, and their squares.
    spread : array, shape (V,)
        Root mean square of the joint prediction's deviations, which r is taken in units of.
    """

    n: int
    part: Float
    agreed: Float
    shared: Float
    measured: Float
    squared: Float
    spread: Float

    @classmethod
    def of(cls, parts: ArrayLike, measured: ArrayLike, *, spread: ArrayLike | None = None) -> Sums:
        """Sum up a fold.

        Parameters
        ----------
        parts : array-like, shape (n_parts, n, V)
            Predicted deviations from the training part's mean.
        measured : array-like, shape (n, V)
            Measured deviations from it.
        spread : array-like, shape (V,), optional
            In place of the root mean square over the held-out items, which says nothing where these are one or two.
        """
        parts, measured = np.asarray(parts, dtype=np.float64), np.asarray(measured, dtype=np.float64)
        if parts.ndim != 3 or parts.shape[1:] != measured.shape:
            raise ValueError(
                f"parts, measured: expected shapes (n_parts, n, V) and (n, V), got {parts.shape}, {measured.shape}"
            )
        joint = parts.sum(axis=0)
        return cls(
            len(measured),
            parts.sum(axis=1),
            (parts * measured).sum(axis=1),
            (parts * joint).sum(axis=1),
            measured.sum(axis=0),
            (measured**2).sum(axis=0),
            np.sqrt((joint**2).mean(axis=0)) if spread is None else np.asarray(spread, dtype=np.float64),
        )

    @classmethod
    def joined(cls, blocks: Sequence[Sums]) -> Sums:
        """Put blocks of targets of one fold side by side."""
        return cls(
            blocks[0].n,
            *(
                np.concatenate([getattr(one, name) for one in blocks], axis=-1)
                for name in ("part", "agreed", "shared", "measured", "squared", "spread")
            ),
        )


def pearsonr_shares(folds: Iterable[Sums]) -> Float:
    """A band's share of r was its covariance with the responses over the joint prediction's and their deviations.

    The product measure (Pratt, 1987; Dupre la Tour et al., 2022), of the r that `scores.pooled_pearsonr` gives: each
    fold's deviations are divided by the root mean square of the joint prediction's.

    Parameters
    ----------
    folds : iterable of Sums

    Returns
    -------
    array, shape (n_parts, V)
        Their sum is the joint prediction's r; NaN where nothing varies. A share may be negative.

    Raises
    ------
    ValueError
        If there are no folds.
    """
    every = list(folds)
    if not every:
        raise ValueError("folds: expected at least one, got none")
    part, agreed = np.zeros_like(every[0].part), np.zeros_like(every[0].part)
    shared, measured, squared = (np.zeros(part.shape[1]) for _ in range(3))
    for fold in every:
        scale = np.divide(1, fold.spread, out=np.zeros_like(fold.spread), where=fold.spread > 0)
        part += fold.part * scale
        agreed += fold.agreed * scale
        shared += fold.shared.sum(axis=0) * scale**2
        measured += fold.measured
        squared += fold.squared
    n = sum(fold.n for fold in every)
    covariance = agreed - part * measured / n
    predicted = shared - part.sum(axis=0) ** 2 / n
    length = np.sqrt(np.clip(predicted * (squared - measured**2 / n), 0, None))
    return np.divide(covariance, length, out=np.full_like(covariance, np.nan), where=length > 0)


def r2_shares(folds: Iterable[Sums], spread: ArrayLike) -> Float:
    """A band's share of R2 was the sum over items of its prediction times twice the response less the joint prediction.

    The product measure of `scores.r2`. What predicting the training part's mean costs belongs to no band, and is split
    evenly: it is a few parts in as many as there are items.

    Parameters
    ----------
    folds : iterable of Sums
    spread : array-like, shape (V,)
        Sum of squared deviations of the measured responses from their mean over all items.

    Returns
    -------
    array, shape (n_parts, V)
        Their sum is the joint prediction's R2; NaN where nothing varies.

    Raises
    ------
    ValueError
        If there are no folds.
    """
    every = list(folds)
    if not every:
        raise ValueError("folds: expected at least one, got none")
    gained = np.sum([2 * fold.agreed - fold.shared for fold in every], axis=0)
    left = np.sum([fold.squared for fold in every], axis=0)
    total = np.asarray(spread, dtype=np.float64)
    shares = np.full_like(gained, np.nan)
    return np.divide(gained + (total - left) / len(gained), total, out=shares, where=total > 0)
