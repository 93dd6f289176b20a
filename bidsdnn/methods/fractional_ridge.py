"""Ridge regression told by how much it shrinks: one fraction a voxel, chosen where repeats agree best.

The one idea: in the coordinates of the design's singular vectors, ridge multiplies each coefficient by
``s^2 / (s^2 + alpha)``; so the penalty that shrinks a voxel's responses to a given fraction of their unregularised
length is looked up, for all voxels, in one matrix product over a grid of penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

FRACTIONS = tuple(np.linspace(1.0, 0.05, 20).round(2))

_STEP = 0.05
"""Decades between penalties of the grid; fractions are then within .001 of what was asked."""

_SMALLEST = 1e-5
"""Singular values below this share of the largest one are dropped: trials that the design cannot tell apart."""


class Rotated(NamedTuple):
    """Designs of several runs, each of its own trials, in the coordinates of their singular vectors."""

    left: Sequence[torch.Tensor]
    """By run, (T, rank): orthonormal time courses."""
    scale: torch.Tensor
    """(ranks of all runs,) singular values."""
    right: Sequence[torch.Tensor]
    """By run, (n_trials, rank): from coordinates to responses."""


def rotate(designs: Sequence[torch.Tensor]) -> Rotated:
    """Singular value decompositions of each run's (T, n_trials) design, nuisance projected out."""
    parts = [torch.linalg.svd(design, full_matrices=False) for design in designs]
    largest = max(float(scale.max()) for _, scale, _ in parts)
    kept = [scale > _SMALLEST * largest for _, scale, _ in parts]
    return Rotated(
        [left[:, keep] for (left, _, _), keep in zip(parts, kept, strict=True)],
        torch.cat([scale[keep] for (_, scale, _), keep in zip(parts, kept, strict=True)]),
        [right[keep].T for (_, _, right), keep in zip(parts, kept, strict=True)],
    )


def coordinates(rotated: Rotated, series: Sequence[torch.Tensor]) -> torch.Tensor:
    """Unregularised coefficients (ranks, V) of each run's (T, V) time series."""
    products = torch.cat([left.T @ one for left, one in zip(rotated.left, series, strict=True)])
    return products / rotated.scale[:, None]


def responses(rotated: Rotated, coefficients: torch.Tensor) -> torch.Tensor:
    """From coefficients (ranks, V) to the responses of all runs' trials, (n_trials, V)."""
    parts = coefficients.split([right.shape[1] for right in rotated.right])
    return torch.cat([right @ part for right, part in zip(rotated.right, parts, strict=True)])


def penalties(scale: torch.Tensor, coefficients: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Penalties that shrink each voxel's responses to fractions of their unregularised length.

    Parameters
    ----------
    scale : tensor, shape (ranks,)
        Singular values.
    coefficients : tensor, shape (ranks, V)
        Of `coordinates`.
    fractions : tensor, shape (F,)
        Above 0, at most 1.

    Returns
    -------
    tensor, shape (F, V)
        Penalties; 0 for a fraction of 1.
    """
    low, high = 2 * scale.min().log10() - 3, 2 * scale.max().log10() + 3
    grid = torch.arange(float(low), float(high), _STEP, dtype=scale.dtype, device=scale.device)
    shrink = scale**2 / (scale**2 + 10 ** grid[:, None])
    energy = coefficients**2
    # Rising, as searching a sorted sequence wants: from the largest penalty to the smallest.
    reached = (((shrink**2) @ energy) / energy.sum(dim=0).clamp_min(1e-300)).sqrt().flip(0).T.contiguous()
    wanted = fractions.expand(len(reached), -1).contiguous()
    above = torch.searchsorted(reached, wanted).clamp(1, len(grid) - 1)
    low_value, high_value = reached.gather(1, above - 1), reached.gather(1, above)
    weight = ((wanted - low_value) / (high_value - low_value).clamp_min(1e-300)).clamp(0, 1)
    exponent = grid.flip(0)[above - 1] - weight * _STEP
    return torch.where(fractions[:, None] >= 1, torch.zeros_like(exponent.T), 10**exponent.T)


def shrunk(scale: torch.Tensor, coefficients: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """Coefficients (ranks, V) under a penalty a voxel, (V,)."""
    energy = (scale**2)[:, None]
    return coefficients * (energy / (energy + penalty))


def fractional_ridge(design: ArrayLike, series: ArrayLike, fractions: ArrayLike) -> NDArray[np.float64]:
    """Responses were shrunk by ridge regression to a fraction of their unregularised length in each voxel.

    Rokem & Kay (2020), GigaScience 9, giaa133.

    Parameters
    ----------
    design : array-like, shape (T, n)
    series : array-like, shape (T, V)
    fractions : array-like, shape (F,)
        Above 0, at most 1.

    Returns
    -------
    array, shape (F, n, V)
        For each fraction, ridge coefficients whose length is that fraction of the least-squares solution's.

    Raises
    ------
    ValueError
        If shapes disagree or a fraction is out of range.
    """
    x, y, wanted = (torch.from_numpy(np.array(one, dtype=np.float64)) for one in (design, series, fractions))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"design, series: expected (T, n) and (T, V), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not ((wanted > 0) & (wanted <= 1)).all():
        raise ValueError(f"fractions: expected numbers above 0 and up to 1, got {wanted.tolist()}")
    rotated = rotate([x])
    found = coordinates(rotated, [y])
    chosen = penalties(rotated.scale, found, wanted)
    return np.stack([responses(rotated, shrunk(rotated.scale, found, one)).numpy() for one in chosen])
