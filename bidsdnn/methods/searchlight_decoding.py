"""Searchlight decoding: how well classes are told from every small neighbourhood.

The one idea: a ridge of fixed penalty on class indicators is linear in them, so that one small matrix for each
neighbourhood holds all its held-out decisions, and a thousand relabellings are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bidsdnn.methods.neighbourhoods import FEWEST_COLUMNS
from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.scores import Split
from bidsdnn.methods.searchlight import serial

Float = NDArray[np.float64]

_CENTRES = 64
"""Neighbourhoods of one piece of work; a constant, so that sums do not depend on the number of workers."""
_ENTRIES = 6_000_000
"""Decisions held at a time."""
_TIES = 1e-5


class Told(NamedTuple):
    """Balanced accuracy of each neighbourhood, and its p, each of shape (centres,)."""

    balanced_accuracy: Float
    p: Float
    p_familywise: Float


def searchlight_decoding(
    values: ArrayLike, adjacency: csr_array, labels: ArrayLike, splits: Sequence[Split], *, n_classes: int,
    orders: ArrayLike, penalty: float = 1.0, device: str = "cpu", map: Callable[..., list[Any]] = serial,
) -> Told:  # fmt: skip
    """Classes were told from each neighbourhood by ridge regression on class indicators, penalty fixed beforehand.

    The class of the highest prediction is chosen. Of two classes of equal size this is linear discriminant analysis
    with a shrunk covariance. Each relabelling repeats the cross-validated fit.

    Parameters
    ----------
    values : array-like, shape (n, V)
        On a common scale: they are centred by the training part, and not scaled.
    adjacency : sparse array of bool, shape (centres, V)
    labels : array-like of int, shape (n,)
    splits : sequence of (train, test)
    n_classes : int
    orders : array-like of int, shape (P, n)
        Relabellings.
    penalty : float
        In units of the mean eigenvalue of the training rows' inner products.
    device : str
    map : callable
        Spreads blocks of neighbourhoods over workers. The result is the same for any.

    Returns
    -------
    Told
        ``p`` is (1 + b) / (1 + P); family-wise, by the best neighbourhood of each relabelling. NaN for a neighbourhood
        of fewer than two usable columns.

    Raises
    ------
    ValueError
        If shapes disagree, or the penalty is not positive.
    """
    table, codes = np.asarray(values, dtype=np.float32), np.asarray(labels)
    if table.ndim != 2 or adjacency.shape[1] != table.shape[1] or codes.shape != table.shape[:1]:
        raise ValueError(
            f"values, adjacency, labels: expected shapes (n, V), (centres, V), (n,), got {table.shape}, "
            f"{adjacency.shape}, {codes.shape}"
        )
    if not penalty > 0:
        raise ValueError(f"penalty: expected a positive number, got {penalty}")
    usable = np.isfinite(table).all(axis=0)
    near = csr_array(csr_array(adjacency, dtype=np.float32)[:, np.flatnonzero(usable)])
    near.eliminate_zeros()
    tested = np.flatnonzero(np.diff(near.indptr) >= FEWEST_COLUMNS)
    every = codes[np.vstack([np.arange(len(codes)), np.asarray(orders)]).astype(int)]
    work = _Block(table[:, usable], near, tested, every, tuple(splits), n_classes, penalty, device)
    parts = map(work, list(blocks(len(tested), _CENTRES)), label="searchlight decoding")
    found = [np.full(adjacency.shape[0], np.nan) for _ in Told._fields]
    if len(tested):
        observed = np.concatenate([part[0] for part in parts])
        largest = np.max([part[2] for part in parts], axis=0)
        found[0][tested] = observed
        found[1][tested] = (1 + np.concatenate([part[1] for part in parts])) / len(every)
        reached = len(largest) - np.searchsorted(np.sort(largest), observed - _TIES)
        found[2][tested] = (1 + reached) / len(every)
    return Told(*found)


@dataclass(frozen=True, eq=False)
class _Block:
    """How a block of neighbourhoods is decoded."""

    values: NDArray[np.float32]
    near: csr_array
    tested: NDArray[np.intp]
    labels: NDArray[Any]
    splits: tuple[Split, ...]
    n_classes: int
    penalty: float
    device: str

    def __call__(self, some: slice) -> tuple[Float, NDArray[np.intp], Float]:
        """Observed scores, how many relabellings reach each, and the best score of each relabelling."""
        operators, held = self._operators(self.tested[some])
        scores = self._scores(operators, held)
        return scores[:, 0], (scores[:, 1:] >= scores[:, :1] - _TIES).sum(axis=1), scores[:, 1:].max(axis=0)

    def _operators(self, centres: NDArray[np.intp]) -> tuple[torch.Tensor, NDArray[np.intp]]:
        """Matrices (b, m, n) whose products with indicators are the decisions of the m held-out items."""
        where = float64_device(self.device)
        x = torch.from_numpy(self.values).to(where)
        inner = torch.stack([
            (part := x[:, torch.from_numpy(self.near.indices[self.near.indptr[c] : self.near.indptr[c + 1]]).to(where)
                       .long()].double()) @ part.T for c in centres
        ])  # fmt: skip
        rows = [held_out_rows(inner, train, test, self.penalty) for train, test in self.splits]
        return torch.cat(rows, dim=1).float(), np.concatenate([test for _, test in self.splits])

    def _scores(self, operators: torch.Tensor, held: NDArray[np.intp]) -> Float:
        """Balanced accuracy of each neighbourhood and labelling, (b, 1 + P)."""
        b, m, n = operators.shape
        scores = np.empty((b, len(self.labels)))
        true = self.labels[:, held]
        step = max(1, _ENTRIES // (b * m * self.n_classes))
        for some in blocks(len(self.labels), step):
            codes = torch.from_numpy(self.labels[some]).to(operators.device)
            y = torch.nn.functional.one_hot(codes.long(), self.n_classes).float()
            decisions = operators.reshape(-1, n) @ y.permute(1, 0, 2).reshape(n, -1)
            said = decisions.view(b, m, len(codes), self.n_classes).argmax(dim=3)
            right = (said == torch.from_numpy(true[some].T.copy()).to(said.device)).float()
            scores[:, some] = torch.einsum("bmp,mp->bp", right, self._weights(true[some]).to(said.device)).cpu().numpy()
        return scores

    def _weights(self, true: NDArray[Any]) -> torch.Tensor:
        """What a right item adds to the balanced accuracy, (m, p)."""
        counts = np.stack([(true == one).sum(axis=1) for one in range(self.n_classes)], axis=1)
        there = (counts > 0).sum(axis=1, keepdims=True)
        share = 1 / (np.take_along_axis(counts, true, axis=1) * there)
        return torch.from_numpy(share.T.astype(np.float32))


def held_out_rows(inner: torch.Tensor, train: NDArray[np.intp], test: NDArray[np.intp], penalty: float) -> torch.Tensor:
    """Rows of the operators of ridge regressions with an intercept, (b, n_test, n), from inner products (b, n, n)."""
    learn, judge = (torch.from_numpy(np.asarray(index)).to(inner.device) for index in (train, test))
    k = inner[:, learn][:, :, learn]
    ahead = inner[:, judge][:, :, learn]
    mean = k.mean(dim=1, keepdim=True)
    centred = k - mean - mean.transpose(1, 2) + mean.mean(dim=2, keepdim=True)
    ahead = ahead - mean
    ahead = ahead - ahead.mean(dim=2, keepdim=True)
    size = torch.diagonal(centred, dim1=1, dim2=2).sum(dim=1) / max(len(learn) - 1, 1)
    ridge = (
        centred + (penalty * size.clamp_min(1e-30))[:, None, None] * torch.eye(len(learn), device=inner.device).double()
    )
    weights = torch.linalg.solve(ridge, ahead.transpose(1, 2)).transpose(1, 2)
    rows = inner.new_zeros(len(inner), len(judge), inner.shape[1])
    rows[:, :, learn] = weights + 1 / len(learn)
    return rows
