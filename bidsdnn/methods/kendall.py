"""Kendall's tau: how many pairs two rankings put in the same order.

The one idea: the pairs in opposite order are the inversions of a permutation, and those are counted in bulk, from
a coarse grid of places x ranks and the small blocks that the grid cannot resolve.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST = 1 << 18
"""Longer permutations are halved first: the grid grows with the square of the length."""


class Ranking(NamedTuple):
    """What comparisons of a vector by rank need of it, found once."""

    rank: Integers
    """(n,) 0, 1, ... for the distinct values in ascending order."""
    order: NDArray[np.intp]
    """(n,) where the values are found in ascending order."""
    tied: int
    """Pairs of equal values."""

    @property
    def pairs(self) -> int:
        """All pairs of values."""
        return len(self.rank) * (len(self.rank) - 1) // 2


def ranking(values: Float) -> Ranking:
    """Rank a vector without NaN."""
    # Not stable, and several times faster for it: equal values get one rank in any order.
    order = np.argsort(values)
    ascending = values[order]
    new = np.concatenate([[False], ascending[1:] != ascending[:-1]])
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.cumsum(new)
    return Ranking(rank, order, _tied(ascending))


def concordance(x: Ranking, rank: Integers, tied: int) -> int:
    """Pairs in the same order in two rankings, less those in opposite order (Kendall, 1938, Biometrika 30, 81-93).

    Parameters
    ----------
    x : Ranking
    rank : array of int, shape (n,)
        Ranks of the other vector.
    tied : int
        Its tied pairs.

    Returns
    -------
    int
        S. Divided by the number of pairs it is tau-a; by the geometric mean of the pairs that are not tied in
        the one and in the other, tau-b.
    """
    bits, both = len(rank).bit_length(), 0
    if x.tied:
        # Sorting one number made of both ranks is faster than finding an order. Within a tie of x the other ranks
        # ascend, so that none counts as an inversion.
        pairs = np.sort(x.rank << bits | rank)
        both, sequence = _tied(pairs), pairs & ((1 << bits) - 1)
    else:
        sequence = rank[x.order]
    if tied:
        # The inverse permutation has as many inversions; equal ranks keep their order, and count for none.
        sequence = np.sort(sequence << bits | np.arange(len(rank))) & ((1 << bits) - 1)
    return x.pairs - x.tied - tied + both - 2 * inversions(sequence)


def inversions(permutation: NDArray[np.integer]) -> int:
    """Pairs of a permutation of 0 ... n - 1 of which the larger comes first."""
    n = len(permutation)
    if n > _MOST:
        low = permutation < n // 2
        where = np.flatnonzero(low)
        # A low value with r low ones before it, at place k, has k - r high ones before it.
        across = int(where.sum()) - len(where) * (len(where) - 1) // 2
        return across + inversions(permutation[where]) + inversions(permutation[~low] - n // 2)
    shift = min(8, max(2, n.bit_length() // 2))
    width = 1 << shift
    count = -(-n // width)
    # What fills up the last block is larger than all before it: no inversions.
    padded = np.arange(count * width, dtype=np.int32)
    padded[:n] = permutation
    bins = (padded >> shift).astype(np.uint16)
    places = bins.reshape(count, width)
    grid = np.bincount((places + np.arange(count)[:, None] * count).ravel(), minlength=count * count)
    grid = grid.reshape(count, count)
    before = np.zeros_like(grid)
    np.cumsum(grid[:-1], axis=0, out=before[1:])
    larger_before = before.sum(axis=1, keepdims=True) - np.cumsum(before, axis=1)
    # Three kinds: of different blocks and bins, of one block and different bins, of one bin.
    in_bin = (padded & (width - 1)).astype(np.uint8)[np.argsort(bins, kind="stable")].reshape(count, width)
    return int(np.vdot(grid, larger_before)) + _within(places) + _within(in_bin)


def _within(rows: NDArray[np.integer]) -> int:
    """Inversions within each row, summed over the rows."""
    columns = np.ascontiguousarray(rows.T)
    return sum(int(np.count_nonzero(columns[:-step] > columns[step:])) for step in range(1, len(columns)))


def _tied(ascending: NDArray[np.generic]) -> int:
    """Pairs of equal values of a sorted vector."""
    edges = np.flatnonzero(ascending[1:] != ascending[:-1])
    lengths = np.diff(np.concatenate([[-1], edges, [len(ascending) - 1]]))
    return int((lengths * (lengths - 1) // 2).sum())
