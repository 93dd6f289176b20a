"""The RDMs of many small neighbourhoods of columns, in batches.

The one idea: a sparse matrix of centres x columns is all there is to know of space, and neighbourhoods of equal size
are one batch of matrix products, small enough to stay in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.reduce import blocks, float64_device

_GATHERED = 300_000
"""Numbers of one batch of neighbourhoods: what stays in a processor's cache."""
_EXACT_STIMULI = 48
"""Up to this many stimuli all is in float64: relabellings tie, and one rank of few makes a difference."""
FEWEST_COLUMNS = 2
"""A neighbourhood of fewer has no RDM."""


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The usable columns of every centre, ready to be gathered."""

    columns: NDArray[Any]
    """(V, n): the stimuli of a column lie side by side, as they are gathered."""
    indptr: NDArray[Any]
    indices: NDArray[Any]
    metric: str
    device: str

    @classmethod
    def of(cls, values: ArrayLike, adjacency: csr_array, *, metric: str, device: str = "cpu") -> Neighbourhoods:
        """Leave out the columns that are not finite throughout.

        Parameters
        ----------
        values : array-like, shape (n, V)
        adjacency : sparse array of bool, shape (centres, V)
        metric : str
            A row of `DISSIMILARITIES` that needs neither precision nor folds.
        device : str

        Returns
        -------
        Neighbourhoods

        Raises
        ------
        ValueError
            If shapes disagree, or the metric is unknown.
        """
        table = np.asarray(values)
        if table.ndim != 2 or adjacency.ndim != 2 or adjacency.shape[1] != table.shape[1]:
            raise ValueError(
                f"values, adjacency: expected shapes (n, V), (centres, V), got {table.shape}, {adjacency.shape}"
            )
        if metric not in DISSIMILARITIES:
            raise ValueError(f"metric: expected one of {sorted(DISSIMILARITIES)}, got {metric!r}")
        usable = np.isfinite(table).all(axis=0)
        near = csr_array(adjacency, copy=True)
        near.eliminate_zeros()
        kept = usable[near.indices]
        ends = np.concatenate([[0], np.cumsum(kept)])[near.indptr]
        place = np.cumsum(usable) - 1
        return cls(_columns(table[:, usable], metric), ends, place[near.indices[kept]], metric, device)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """(centres,) usable columns of each."""
        return np.diff(self.indptr)

    def rdms(self, centres: slice, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """RDMs of some centres, changed batch by batch while they are in cache.

        Parameters
        ----------
        centres : slice
        change : callable
            Takes and returns RDMs (b, pairs).

        Returns
        -------
        tensor, shape (centres, pairs)
            NaN where there are too few columns.
        """
        where = torch.device(self.device) if self.columns.dtype == np.float32 else float64_device(self.device)
        starts = self.indptr[centres.start : centres.stop + 1].astype(np.intp)
        used, members = np.unique(self.indices[starts[0] : starts[-1]], return_inverse=True)
        starts -= starts[0]
        columns = torch.from_numpy(self.columns[used]).to(where)
        n = columns.shape[1]
        found = columns.new_empty((len(starts) - 1, n * (n - 1) // 2))
        found[torch.from_numpy(np.diff(starts) < FEWEST_COLUMNS).to(where)] = torch.nan
        pairs = torch.from_numpy(_pairs(n)).to(where)
        for rows, size in _batches(np.diff(starts), n):
            near = torch.from_numpy(members[starts[rows][:, None] + np.arange(size)]).to(where)
            gathered = columns.index_select(0, near.flatten()).view(*near.shape, n)
            found.index_copy_(0, torch.from_numpy(rows).to(where), change(_distances(gathered, self.metric, pairs)))
        return found


def rdms(values: ArrayLike, adjacency: csr_array, *, metric: str = "correlation", device: str = "cpu") -> NDArray[Any]:
    """The RDM of each neighbourhood.

    Parameters
    ----------
    values, adjacency, metric, device
        As of `Neighbourhoods.of`.

    Returns
    -------
    array, shape (centres, n * (n - 1) / 2)
        In float32 for more than 48 stimuli; NaN for neighbourhoods with fewer than two usable columns.
    """
    near = Neighbourhoods.of(values, adjacency, metric=metric, device=device)
    return np.asarray(near.rdms(slice(0, len(near.sizes)), lambda brains: brains).cpu().numpy())


def _batches(sizes: NDArray[np.intp], n: int) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Centres whose neighbourhoods are of one size, a few at a time."""
    for size in np.unique(sizes[sizes >= FEWEST_COLUMNS]):
        alike = np.flatnonzero(sizes == size)
        for some in blocks(len(alike), max(1, _GATHERED // int(size * n))):
            yield alike[some], int(size)


def _columns(table: NDArray[Any], metric: str) -> NDArray[Any]:
    """Columns (V, n) in the precision of the work, freed in float64 of what the distance does not see."""
    exact = table.T.astype(np.float64)
    if exact.size and metric == "correlation":
        exact -= exact.mean(axis=0)
    elif exact.size and metric in ("euclidean", "sqeuclidean"):
        exact -= exact.mean(axis=1, keepdims=True)
    small = exact.shape[1] <= _EXACT_STIMULI
    return np.ascontiguousarray(exact if small else exact.astype(np.float32))


def _distances(near: torch.Tensor, metric: str, pairs: torch.Tensor) -> torch.Tensor:
    """RDMs (b, pairs) of neighbourhoods (b, size, n)."""
    if metric == "spearman":
        ranked = mean_ranks(near.transpose(1, 2).reshape(-1, near.shape[1]))
        near, metric = ranked.view(len(near), -1, near.shape[1]).transpose(1, 2), "correlation"
    if metric not in ("correlation", "cosine", "euclidean", "sqeuclidean"):
        each = [DISSIMILARITIES[metric](one.T.double().cpu().numpy()) for one in near]
        return torch.from_numpy(np.array(each)).to(near)
    mean = near.mean(dim=1)
    if metric == "correlation":
        near = near - mean[:, None]
    products = torch.bmm(near.transpose(1, 2), near)
    own = products.diagonal(dim1=1, dim2=2)
    rounding = torch.finfo(near.dtype).eps
    if metric in ("correlation", "cosine"):
        # What centring leaves of a constant pattern is rounding.
        size = near.shape[1]
        floor = (rounding * size) ** 2 * (own + size * mean**2) if metric == "correlation" else torch.zeros_like(own)
        scale = torch.where(own > floor, own, torch.nan).rsqrt()
        products = products.mul_(scale[:, :, None]).mul_(scale[:, None])
        return products.flatten(1).index_select(1, pairs).neg_().add_(1).clamp_(0, 2)
    both = own[:, :, None] + own[:, None]
    squared = both - 2 * products
    squared = torch.where(squared < 4 * rounding * both, 0, squared).flatten(1).index_select(1, pairs)
    return squared if metric == "sqeuclidean" else squared.sqrt()


def mean_ranks(rows: torch.Tensor) -> torch.Tensor:
    """Ranks about 0 within each row, ties at their mean rank; NaN throughout a row that holds NaN.

    Equal values differ by rounding: here, they are put on a grid of a millionth of the row's range (in float64 2^-40),
    and are ties again.

    Parameters
    ----------
    rows : tensor, shape (b, k)

    Returns
    -------
    tensor, shape (b, k)
        Each row's sum is 0.
    """
    n_rows, size = rows.shape
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    levels = 2.0**20 if rows.dtype == torch.float32 else 2.0**40
    scale = torch.where(high > low, levels / (high - low), 0)
    # A value and its place make one whole number: sorted, it carries its place along.
    bits = (size - 1).bit_length()
    keys = ((rows - low) * scale).round_().long().bitwise_left_shift_(bits)
    keys.bitwise_or_(torch.arange(size, device=rows.device))
    if rows.device.type == "cpu":
        # numpy sorts with vector instructions, and is ten times faster than torch here.
        keys.numpy().sort(axis=1)
    else:
        keys = keys.sort(dim=1).values
    places = (torch.arange(size, dtype=rows.dtype, device=rows.device) - (size - 1) / 2).repeat(n_rows, 1)
    level = keys.bitwise_right_shift(bits).flatten()
    equal = level[1:] == level[:-1]
    equal[size - 1 :: size] = False
    # numpy again, for the same reason.
    before = torch.from_numpy(np.flatnonzero(equal.cpu().numpy())).to(rows.device)
    if len(before):
        # Runs of equal values, as places in the flattened table; a run cannot cross the end of a row.
        first = torch.cat([before.new_ones(1, dtype=torch.bool), before.diff() != 1])
        run = first.cumsum(0) - 1
        ends = before[torch.cat([first[1:], first.new_ones(1)])] + 1
        middle = ((before[first] % size + ends % size) / 2 - (size - 1) / 2).to(rows.dtype)
        places.view(-1)[torch.cat([before, ends])] = torch.cat([middle[run], middle])
    ranked = torch.empty_like(rows).scatter_(1, keys.bitwise_and_(2**bits - 1), places)
    unknown = high[:, 0].isnan()
    if unknown.any():
        ranked[unknown] = torch.nan
    return ranked


def _pairs(n: int) -> NDArray[np.intp]:
    """Where the pairs are in the flattened square matrix."""
    first, second = np.triu_indices(n, 1)
    return np.asarray(first * n + second)
