"""Ridge from the inner products of bands of features: centred, weighted, and whole paths of penalties at once.

The one idea: for one fold and penalty, a single matrix turns targets into their held-out errors. It is made once for
all targets by a Cholesky decomposition, which is cheap beside eigenvectors, and meets them in products that stay in the
cache until they are summed.
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


def rank_within(centred: torch.Tensor) -> int:
    """How many eigenvalues of centred inner products are not rounding: `rank_of`, without them where none is.

    Lifted off zero in the direction of the mean and lowered by what counts as rounding, inner products of full rank
    still have a Cholesky decomposition, at a tenth of the price. Their norm is no less than the largest eigenvalue.
    """
    n, norm = len(centred), float(torch.linalg.vector_norm(centred))
    lowered = centred + norm / n
    lowered.diagonal().sub_(_RANK * norm)
    _, failed = torch.linalg.cholesky_ex(lowered)
    return rank_of(torch.linalg.eigvalsh(centred)) if failed else n - 1


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

    ``y`` holds a target a row, (V, n), in the precision that products are taken in. ``spans`` says which targets meet
    which penalties of the grid; the errors of all else are infinite, as are those of a penalty that rounding swallows.
    """
    rank = rank_within(centred) if relative else 0
    errors = torch.full((len(grid), len(y)), torch.inf, dtype=torch.float64, device=y.device)
    for targets, steps in spans:
        errors[steps.start : steps.stop, targets] = 0
    wanted = sorted({step for _, steps in spans for step in steps})
    summed = torch.promote_types(y.dtype, torch.float32)
    for train, test in folds:
        fold = _Fold(centred, *(torch.from_numpy(index).to(y.device) for index in (train, test)))
        unit = fold.unit(rank) if relative else 1.0
        made = {step: fold.wrong(float(grid[step]) * unit, y.dtype) for step in wanted}
        for span, steps in spans:
            maps = torch.cat([made[step] for step in steps]).T
            for part in blocks(span.stop - span.start, max(1, _ENTRIES // maps.shape[1])):
                targets = slice(span.start + part.start, span.start + part.stop)
                wrong = (y[targets] @ maps).unflatten(1, (len(steps), len(test)))
                norms = torch.linalg.vector_norm(wrong, dim=2, dtype=summed).double()
                errors[steps.start : steps.stop, targets] += norms.square_().T
    return errors.nan_to_num(torch.inf), rank


class _Fold:
    """Centred inner products of all rows, split into rows that are fitted and rows that are left out."""

    def __init__(self, centred: torch.Tensor, inside: torch.Tensor, outside: torch.Tensor) -> None:
        self.inside, self.outside, self.n = inside, outside, len(centred)
        rows = centred[inside]
        self.rest = rows[:, inside]
        # What the system is solved for: the rows left out and, for the intercept, ones.
        self.right = torch.cat([rows[:, outside], rows.new_ones(len(inside), 1)], dim=1)
        self.size = float(torch.linalg.vector_norm(self.rest))

    def unit(self, rank: int) -> float:
        """The unit of a relative penalty; less their own mean, the rows have one rank less than rows at most."""
        trace = float(self.rest.diagonal().sum() - self.rest.mean() * len(self.rest))
        fewer = min(rank, len(self.inside) - 1)
        return trace / fewer if fewer and trace > 0 else 1.0

    def wrong(self, penalty: float, dtype: torch.dtype) -> torch.Tensor:
        """The matrix that turns a target into the errors of the rows left out, (outside, n).

        With A = K + a I of the rows that are fitted, k their products with a row left out and b the intercept, that
        row's prediction is k'A^-1 (y - b) + b, where b = 1'A^-1 y / 1'A^-1 1 makes the dual coefficients sum to zero.
        """
        rough = dtype == torch.bfloat16 and self.size < _STEEPEST * penalty
        solved_in = torch.float32 if rough else torch.float64
        shifted = self.rest.to(solved_in, copy=True)
        shifted.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        result = torch.zeros(len(self.outside), self.n, dtype=dtype, device=factor.device)
        if failed:
            return result.fill_(torch.nan)
        solved = torch.cholesky_solve(self.right.to(solved_in), factor).T
        path, ones = solved[:-1], solved[-1]
        path = torch.addr(path, 1 - path.sum(dim=1), ones / ones.sum())
        result[:, self.inside] = path.to(dtype)
        result[torch.arange(len(self.outside), device=result.device), self.outside] = -1
        return result
