"""Ridge from the inner products of bands of features: centred, weighted, and whole paths of penalties at once.

The one idea: eigenvectors of all rows turn a fold's held-out errors, at any penalty, into a system of the size of what
is left out. Targets are rotated once for all folds and penalties, and errors are summed while they are in the cache.
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
"""Targets predicted at a time."""
_ENTRIES = 1_000_000
"""Held-out errors made by one product, few enough to stay in the cache while they are summed."""
_STEEPEST = 1e4
"""Largest condition number at which single precision loses less than bfloat16 products do."""
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

    ``y`` holds a target a row, (V, n), less its mean, in the precision that products are taken in. ``spans`` says which
    targets meet which penalties of the grid; the errors of all else are infinite, as where rounding swallows a penalty.
    """
    values, vectors = torch.linalg.eigh(centred)
    rank = rank_of(values)
    values, size = values.clamp(min=0), float(torch.linalg.vector_norm(values))
    rotated = y @ vectors.to(y.dtype)
    errors = torch.full((len(grid), len(y)), torch.inf, dtype=torch.float64, device=y.device)
    for targets, steps in spans:
        errors[steps.start : steps.stop, targets] = 0
    wanted = sorted({step for _, steps in spans for step in steps})
    for train, test in folds:
        out = torch.from_numpy(test).to(y.device)
        unit = _unit_without(centred, out, min(rank, len(train) - 1)) if relative else 1.0
        rows, made = {dtype: vectors[out].to(dtype) for dtype in (torch.float32, torch.float64)}, {}
        for step in wanted:
            penalty = float(grid[step]) * unit
            rough = y.dtype == torch.bfloat16 and size < _STEEPEST * penalty
            solved_in = torch.float32 if rough else torch.float64
            left = penalty / (values + penalty)
            made[step] = _left_out(rows[solved_in], left.to(solved_in)).T.to(y.dtype)
        for span, steps in spans:
            maps = torch.cat([made[step] for step in steps], dim=1)
            for part in blocks(span.stop - span.start, max(1, _ENTRIES // maps.shape[1])):
                targets = slice(span.start + part.start, span.start + part.stop)
                wrong = (rotated[targets] @ maps).unflatten(1, (len(steps), len(test)))
                norms = torch.linalg.vector_norm(wrong, dim=2, dtype=torch.promote_types(y.dtype, torch.float32))
                errors[steps.start : steps.stop, targets] += norms.double().square_().T
    return errors.nan_to_num(torch.inf), rank


def _left_out(rows: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """What turns a rotated target into the errors of rows left out, (rows, n), from their eigenvectors' entries.

    The residuals' matrix of all rows is R = U diag(left) U' - 1/n, where ``left`` = a / (values + a) and 1/n is the
    intercept's. Without the rows k, their errors are R_kk^-1 (R y)_k (Cook and Weisberg, 1982, Residuals and Influence
    in Regression, section 2.2, for one row), for any penalty. Targets less their mean need no intercept in (R y)_k.
    """
    weighted = rows * left
    factor, failed = torch.linalg.cholesky_ex(weighted @ rows.T - 1 / rows.shape[1])
    return torch.full_like(rows, torch.nan) if failed else torch.cholesky_solve(weighted, factor)


def _unit_without(centred: torch.Tensor, out: torch.Tensor, rank: int) -> float:
    """`unit_of` the rows that are not left out, once these are centred; K 1 = 0 makes their sum that of the others."""
    own = centred[out][:, out]
    trace = float(centred.diagonal().sum() - own.diagonal().sum() - own.sum() / (len(centred) - len(out)))
    return trace / rank if rank and trace > 0 else 1.0
