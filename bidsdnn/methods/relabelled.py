"""Prediction under relabelling: what a score is when the items' labels are exchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.scores import Float, standardise


def held_out_permutation(prediction: ArrayLike, y: ArrayLike, regions: ArrayLike, orders: ArrayLike) -> Float:
    """A region's mean r was tested by permuting what was measured of a single held-out part.

    The model saw none of it, so that its predictions stay as they are.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
        Of the held-out items.
    regions : array-like of bool, shape (R, V)
    orders : array-like of int, shape (permutations, n)

    Returns
    -------
    array, shape (R,)
        (1 + b) / (1 + permutations), one-sided; NaN for a region without a column that is finite and varies.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    a, b = standardise(np.asarray(prediction)), standardise(np.asarray(y))
    members, moved = np.asarray(regions, dtype=bool), np.asarray(orders)
    if a.shape != b.shape or members.shape[1:] != a.shape[1:] or moved.shape[1:] != a.shape[:1]:
        raise ValueError(
            f"prediction, y, regions, orders: expected shapes (n, V), (n, V), (R, V), (permutations, n), got "
            f"{a.shape}, {b.shape}, {members.shape}, {moved.shape}"
        )
    usable = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    counts = (members & usable).sum(axis=1)
    means = np.full((len(moved) + 1, len(members)), np.nan)
    for row, (region, count) in enumerate(zip(members, counts, strict=True)):
        if count:
            # Mean r of a region is the trace of one product of its items, and of the same with rows exchanged.
            shared = a[:, region & usable] @ b[:, region & usable].T / count
            means[0, row] = np.trace(shared)
            means[1:, row] = shared[np.arange(len(a)), moved].sum(axis=1)
    return pvalue(means[0], means[1:])
