"""Inner products between two tables that share their columns, in blocks: what a dual model needs of new rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from bidsdnn.methods.reduce import Float, blocks

_COLUMNS = 65_536


def cross_gram(new: Any, known: Any, *, block: int = _COLUMNS) -> Float:
    """Inner products of new items with known ones, over blocks of columns.

    Parameters
    ----------
    new : array-like, shape (m, p)
    known : array-like, shape (n, p)
        Anything with a ``shape`` that can be sliced by columns.
    block : int
        Columns held in memory at a time.

    Returns
    -------
    array, shape (m, n)

    Raises
    ------
    ValueError
        If they differ in columns.
    """
    if new.shape[1] != known.shape[1]:
        raise ValueError(f"new, known: expected as many columns, got {new.shape[1]} and {known.shape[1]}")
    products = np.zeros((new.shape[0], known.shape[0]))
    for columns in blocks(new.shape[1], block):
        a, b = (np.asarray(table[:, columns], dtype=np.float64) for table in (new, known))
        products += a @ b.T
    return products


def on_rotation(products: Float, rotated: Float) -> Float:
    """Give new items the coordinates that the known ones have in `reduce.rotation`.

    What of a new item lies outside the space of the known ones is dropped; linear models have no weights there.

    Parameters
    ----------
    products : array, shape (m, n)
        Of `cross_gram`.
    rotated : array, shape (n, rank)
        Of the known items; its columns are orthogonal.

    Returns
    -------
    array, shape (m, rank)
    """
    return np.asarray(products @ (rotated / (rotated**2).sum(axis=0)))
