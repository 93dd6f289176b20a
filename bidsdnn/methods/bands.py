"""Ridge from the inner products of bands of features: centred, weighted, and whole paths of penalties at once.

The one idea: the hat matrix of all rows says what a fit without some of them predicts, so that one decomposition of the
weighted inner products serves every fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import Split

Float = NDArray[np.float64]

TARGETS = 4096
"""Targets scored at a time."""
_RANK = 1e-10
"""Directions whose eigenvalue is at most this share of the largest are rounding, as in `rotation`."""


def combine(grams: Sequence[ArrayLike], members: Sequence[Sequence[int]], rows: NDArray[np.intp]) -> Float:
    """Inner products of bands made of several layers, each layer brought to one length over some rows.

    Parameters
    ----------
    grams : sequence of array-like, shape (n, n)
        Of each layer.
    members : sequence of sequence of int
        Layers of each band.
    rows : array of int
        The training part.

    Returns
    -------
    array, shape (n_bands, n, n)
        A band of one layer is that layer's as it is; of several, the sum of theirs over their mean squared lengths of
        the centred rows, so that a layer of many units does not outweigh the others of its band.
    """
    made = []
    for layers in members:
        products = [np.asarray(grams[layer], dtype=np.float64) for layer in layers]
        if len(products) > 1:
            inside = [torch.from_numpy(one[np.ix_(rows, rows)])[None] for one in products]
            products = [one / float(lengths(centre(part)[0])[0]) for one, part in zip(products, inside, strict=True)]
        made.append(np.sum(products, axis=0))
    return np.stack(made)


class Means(NamedTuple):
    """Means of the training rows' inner products, with which new rows are centred."""

    rows: torch.Tensor
    """(n_bands, n)"""
    all: torch.Tensor
    """(n_bands,)"""


def centre(grams: torch.Tensor) -> tuple[torch.Tensor, Means]:
    """Inner products of rows less their mean, and the means."""
    rows = grams.mean(dim=1)
    every = rows.mean(dim=1)
    return grams - rows[:, None, :] - rows[:, :, None] + every[:, None, None], Means(rows, every)


def lengths(centred: torch.Tensor) -> torch.Tensor:
    """Mean squared length of the rows of each band; 1 for a band whose rows are all equal."""
    found = torch.diagonal(centred, dim1=1, dim2=2).mean(dim=1)
    return torch.where(found > 0, found, torch.ones_like(found))


def mixed(grams: torch.Tensor, weights: Float) -> torch.Tensor:
    """Weighted sum over bands."""
    return torch.tensordot(torch.from_numpy(weights).to(grams.device), grams, dims=1)


def recentre(new: torch.Tensor, means: Means) -> torch.Tensor:
    """Inner products (n_bands, m, n) of new rows with the training rows, both less the training rows' mean."""
    return new - new.mean(dim=2, keepdim=True) - means.rows[:, None, :] + means.all[:, None, None]


def rank_of(values: torch.Tensor) -> int:
    """How many of ascending eigenvalues are not rounding."""
    return int((values > _RANK * values[-1].clamp(min=0)).sum())


def unit_of(centred: torch.Tensor, rank: int) -> float:
    """Mean non-zero eigenvalue, the unit of a relative penalty, as `Spectrum.mean_eigenvalue`."""
    trace = float(centred.diagonal().sum())
    return trace / rank if rank and trace > 0 else 1.0


def solve(centred: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Dual coefficients (K + a I)^-1 y at one absolute penalty a."""
    shifted = centred + penalty * torch.eye(len(centred), dtype=centred.dtype, device=centred.device)
    return torch.cholesky_solve(y, torch.linalg.cholesky(shifted))


def path_errors(
    centred: torch.Tensor,
    y: torch.Tensor,
    folds: Sequence[Split],
    grid: Float,
    spans: Sequence[tuple[slice, range]],
    *,
    relative: bool,
) -> tuple[torch.Tensor, int]:
    """Squared error of each penalty for each target over the held-out rows, (penalties, V), and the rank.

    ``spans`` says which targets meet which penalties of the grid; the errors of all else are infinite.

    With the hat matrix H of all rows (intercept included), a fit without the rows t predicts them as
    (I - H_tt)^-1 H_t,rest y_rest: exact for any penalty, so that each fold keeps its own unit of the penalty.
    """
    values, vectors = torch.linalg.eigh(centred)
    rank = rank_of(values)
    values, vectors = values[len(values) - rank :], vectors[:, len(values) - rank :]
    errors = torch.full((len(grid), y.shape[1]), torch.inf, dtype=torch.float64, device=y.device)
    for targets, steps in spans:
        errors[steps.start : steps.stop, targets] = 0
    wanted = sorted({step for _, steps in spans for step in steps})
    for train, test in folds:
        inside, outside = (torch.from_numpy(index).to(y.device) for index in (train, test))
        # Once centred, the rows that are left have one rank less than rows at most.
        rest = centre(centred[inside][:, inside][None])[0][0]
        unit = unit_of(rest, min(rank, len(train) - 1)) if relative else 1.0
        paths = {i: _path(values, vectors, inside, outside, float(grid[i]) * unit).to(y.dtype) for i in wanted}
        for span, steps in spans:
            for part in blocks(span.stop - span.start, TARGETS):
                targets = slice(span.start + part.start, span.start + part.stop)
                learned, measured = y[inside, targets], y[outside, targets]
                for i in steps:
                    wrong = torch.addmm(measured, paths[i], learned, alpha=-1)
                    errors[i, targets] += torch.linalg.vector_norm(wrong, dim=0).double().square_()
    return errors, rank


def _path(
    values: torch.Tensor, vectors: torch.Tensor, inside: torch.Tensor, outside: torch.Tensor, penalty: float
) -> torch.Tensor:
    """The matrix that predicts the rows left out from the others, (outside, inside)."""
    shrunk = vectors[outside] * (values / (values + penalty))
    n = len(vectors)
    rest, own = shrunk @ vectors[inside].T + 1 / n, shrunk @ vectors[outside].T + 1 / n
    return torch.linalg.solve(torch.eye(len(outside), dtype=own.dtype, device=own.device) - own, rest)
