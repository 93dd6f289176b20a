"""Threshold-free cluster enhancement on any graph: voxels that touch, vertices that share an edge.

The one idea: falling through the thresholds, clusters only grow and merge, so that they form a tree; a cluster that
meets no other at a threshold costs nothing there, and each point's enhancement is a sum along its way to the root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bidsdnn.methods.freedman_lane import permuted_t
from bidsdnn.methods.inference import standardised
from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]

EXTENT, HEIGHT, STEP = 0.5, 2.0, 0.1
"""Exponents of a cluster's size and of its threshold, and the distance of thresholds, for t (Smith & Nichols, 2009)."""
HIGHEST = 1000.0
"""What higher values count as; with two participants t has no bounds."""


def tfce(
    values: ArrayLike, edges: ArrayLike, *, extent: float = EXTENT, height: float = HEIGHT, step: float = STEP
) -> Float:
    """Maps were enhanced by the size of the cluster around each point at each threshold up to its value.

    The sum over thresholds h = step, 2 step, ... up to a point's value of size^extent h^height step, size being the
    number of connected points of at least h (Smith & Nichols, 2009, NeuroImage 44, 83-98). FSL and nilearn leave out
    the last factor, and their steps follow each map's peak.

    Parameters
    ----------
    values : array-like, shape (n,)
        Values below the first threshold, and NaN, are enhanced to 0.
    edges : array-like of int, shape (m, 2)
        Pairs of points that touch, each once.
    extent, height, step : float

    Returns
    -------
    array, shape (n,)

    Raises
    ------
    ValueError
        If the shapes are others, or the step is not positive.
    """
    values, ends = np.asarray(values, dtype=np.float64), np.asarray(edges)
    if values.ndim != 1 or ends.ndim != 2 or ends.shape[1] != 2:
        raise ValueError(f"expected values of shape (n,) and edges of (m, 2), got {values.shape} and {ends.shape}")
    if not step > 0:
        raise ValueError(f"step: expected a positive number, got {step}")
    # A threshold that equals a value but for rounding is reached.
    level = np.floor(np.clip(np.nan_to_num(values, nan=0.0), 0, HIGHEST) / step * (1 + 1e-12)).astype(np.int32)
    area = np.concatenate([[0.0], np.cumsum((step * np.arange(1, level.max(initial=0) + 1)) ** height) * step])
    own = np.flatnonzero(level)
    number = np.full(len(level), -1, dtype=np.int32)
    number[own] = np.arange(len(own))
    ends = number[ends]
    ends = ends[(ends >= 0).all(axis=1)]
    enhanced = np.zeros(len(level))
    enhanced[own] = _Tree(level[own]).grown(ends).summed(area, extent)
    return enhanced


class _Tree:
    """Clusters as they merge: the first nodes are points, each further one a cluster of those below it."""

    def __init__(self, level: np.ndarray) -> None:
        self.n = len(level)
        # At most n - 1 merges.
        self.birth = np.concatenate([level, np.zeros(self.n, dtype=np.int32)])
        self.size = np.concatenate([np.ones(self.n), np.zeros(self.n)])
        self.up = np.full(2 * self.n, -1, dtype=np.int32)
        self.batches: list[tuple[int, int]] = []

    def grown(self, edges: np.ndarray) -> _Tree:
        """Merge, from the highest level down, what the edges of each level join."""
        levels = self.birth[edges].min(axis=1)
        # Numbers of two bytes are sorted fastest.
        order = np.argsort((-levels).astype(np.int16), kind="stable")
        edges, levels = edges[order], levels[order]
        cuts = np.flatnonzero(np.diff(levels)) + 1
        root = np.arange(2 * self.n, dtype=np.int32)
        count = self.n
        for start, stop in zip(np.r_[0, cuts], np.r_[cuts, len(edges)], strict=True):
            if start == stop:
                continue
            ends = _roots(root, edges[start:stop])
            ends = ends[ends[:, 0] != ends[:, 1]]
            if not len(ends):
                continue
            nodes, ends = np.unique(ends, return_inverse=True)
            ends = ends.reshape(-1, 2)
            graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(len(nodes),) * 2)
            found, part = connected_components(graph, directed=False)
            self.up[nodes] = root[nodes] = count + part
            self.birth[count : count + found] = levels[start]
            self.size[count : count + found] = np.bincount(part, weights=self.size[nodes], minlength=found)
            self.batches.append((count, count + found))
            count += found
        return self

    def summed(self, area: np.ndarray, extent: float) -> Float:
        """Each point's sum over the clusters it is in, of size^extent times the thresholds' area."""
        parent = self.up >= 0
        end = np.where(parent, self.birth[self.up], 0)
        total = self.size**extent * (area[self.birth] - area[end])
        for start, stop in [*self.batches[::-1], (0, self.n)]:
            nodes = np.arange(start, stop)[parent[start:stop]]
            total[nodes] += total[self.up[nodes]]
        return np.asarray(total[: self.n])


def _roots(root: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The clusters that nodes are in by now, which the nodes are then told."""
    found = root[nodes]
    while True:
        further = root[found]
        if np.array_equal(further, found):
            root[nodes] = found
            return found
        found = further


def peaks(
    values: ArrayLike, edges: ArrayLike, flips: ArrayLike, *, extent: float = EXTENT, height: float = HEIGHT,
    step: float = STEP,
) -> Float:  # fmt: skip
    """Largest enhancement of the t map of each sign flip.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant.
    edges : array-like of int, shape (m, 2)
    flips : array-like, shape (k, n)
        Of `signs`.
    extent, height, step : float
        As in `tfce`.

    Returns
    -------
    array, shape (k,)
    """
    values, flips = np.asarray(values), np.asarray(flips)
    n = len(values)
    tested, scaled, _ = standardised(values)
    largest = np.zeros(len(flips))
    for some in blocks(len(flips), 16):
        sums = np.asarray(flips[some].astype(scaled.dtype) @ scaled, dtype=np.float64)
        t = sums * np.sqrt((n - 1) / np.maximum(n - sums**2, 1e-9))
        for place, row in zip(range(some.start, some.stop), t, strict=True):
            whole = np.zeros(len(tested))
            whole[tested] = row
            largest[place] = tfce(whole, edges, extent=extent, height=height, step=step).max(initial=0.0)
    return largest


def peaks_of_effect(
    values: ArrayLike, edges: ArrayLike, tested: ArrayLike, nuisance: ArrayLike | None, orders: ArrayLike, *,
    extent: float = EXTENT, height: float = HEIGHT, step: float = STEP,
) -> Float:  # fmt: skip
    """Largest enhancement, of either sign, of an effect's t map in each order of the participants.

    Parameters
    ----------
    values : array-like, shape (n, F)
        A row for each participant; columns with NaN have no part.
    edges : array-like of int, shape (m, 2)
    tested, nuisance : array-like
        As in `freedman_lane`.
    orders : array-like, shape (k, n)
        Of `orders_of`.
    extent, height, step : float
        As in `tfce`.

    Returns
    -------
    array, shape (k,)
    """
    values, orders = np.asarray(values), np.asarray(orders)
    known = np.isfinite(values).all(axis=0)
    largest = np.zeros(len(orders))
    for some in blocks(len(orders), 16):
        t = permuted_t(values[:, known], tested, nuisance, orders[some])
        for place, row in zip(range(some.start, some.stop), t, strict=True):
            whole = np.zeros(len(known))
            whole[known] = row
            both = two_sided(whole, edges, extent=extent, height=height, step=step)
            largest[place] = np.abs(both).max(initial=0.0)
    return largest


def two_sided(values: ArrayLike, edges: ArrayLike, **options: float) -> Float:
    """Enhance what is above zero, and what is below as its negative.

    Parameters
    ----------
    values : array-like, shape (n,)
    edges : array-like of int, shape (m, 2)
    **options : float
        Of `tfce`.

    Returns
    -------
    array, shape (n,)
    """
    values = np.asarray(values, dtype=np.float64)
    return tfce(values, edges, **options) - tfce(-values, edges, **options)


def familywise(enhanced: ArrayLike, largest: ArrayLike, *, sampled: int) -> Float:
    """Family-wise p of enhanced maps: the share of relabellings whose largest enhancement reaches the observed one.

    Parameters
    ----------
    enhanced : array-like, any shape
        NaN stay NaN.
    largest : array-like, shape (k,)
        Of each relabelling, over the whole family.
    sampled : int
        1 where relabellings were drawn and the observed one is to be counted, 0 where all were made.

    Returns
    -------
    array, of the shape of ``enhanced``
    """
    enhanced, largest = np.asarray(enhanced, dtype=np.float64), np.sort(np.asarray(largest, dtype=np.float64))
    below = np.searchsorted(largest, enhanced * (1 - 1e-9))
    return np.where(np.isnan(enhanced), np.nan, (sampled + len(largest) - below) / (sampled + len(largest)))
