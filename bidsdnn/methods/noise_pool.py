"""What voxels that do not respond have in common, as regressors that are no one's response.

The one idea: a run's leading noise components follow from the (time x time) products of the pool's series, which are
summed over blocks of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

Float = NDArray[np.float64]

_MOST = 100_000
"""Voxels a mixture is fitted to."""

_BRIGHT = (99, 0.1)
"""Percentile of the means over voxels, and share of it, below which a voxel is not tissue."""


def tail_threshold(values: Float) -> float:
    """Where a value is as likely to belong to the upper as to the lower of two Gaussians fitted to all values.

    Parameters
    ----------
    values : array, shape (V,)
        NaN is left out.

    Returns
    -------
    float
    """
    finite = values[np.isfinite(values)]
    finite = finite[:: max(1, len(finite) // _MOST)][:, None]
    if len(finite) < 2 or np.ptp(finite) == 0:
        return float(np.max(finite, initial=0.0))
    unit = finite.std()
    mixture = GaussianMixture(2, tol=1e-8, reg_covar=1e-6, n_init=3, max_iter=500, random_state=0).fit(finite / unit)
    upper = int(mixture.means_[:, 0].argmax())
    grid = np.linspace(mixture.means_.min(), max(mixture.means_.max(), (finite / unit).max()), 1000)
    below = mixture.predict_proba(grid[:, None])[:, upper] <= 0.5
    # Beyond the upper mean a broad lower Gaussian may win again; the boundary is the first one.
    return float(unit * (grid[below.argmin()] if not below.all() else grid[-1]))


def pool_of(onoff: Float, mean: Float, threshold: float) -> NDArray[np.bool_]:
    """Voxels that are bright and do not respond.

    Parameters
    ----------
    onoff : array, shape (V,)
        Share of variance that the on-off model explains.
    mean : array, shape (V,)
        Of the series; brightness counts only where means are positive, as they are before centring.
    threshold : float
        On ``onoff``.

    Returns
    -------
    array of bool, shape (V,)
    """
    finite = np.isfinite(onoff) & np.isfinite(mean)
    if not finite.any():
        return finite
    percentile, share = _BRIGHT
    bright = mean > share * np.percentile(mean[finite], percentile)
    centred = np.median(mean[finite]) <= 0
    return finite & (onoff < threshold) & (bright | centred)


def components(
    parts: Iterable[tuple[Sequence[torch.Tensor], NDArray[np.bool_]]], count: int
) -> list[torch.Tensor] | None:
    """Leading principal components over time of the pool's voxels, each at unit length.

    Parameters
    ----------
    parts : iterable of (sequence of tensor, array of bool)
        Blocks of voxels: each run's (T, v) series without nuisance, and which are in the pool.
    count : int
        How many.

    Returns
    -------
    list of tensor, shape (T, count), or None
        One a run, orthonormal; None if the pool has fewer than twice as many voxels.
    """
    products: list[torch.Tensor] = []
    members = 0
    for series, inside in parts:
        members += int(inside.sum())
        columns = torch.from_numpy(np.flatnonzero(inside)).to(series[0].device)
        units = [torch.nn.functional.normalize(one[:, columns], dim=0) for one in series]
        found = [one @ one.T for one in units]
        products = [a + b for a, b in zip(products, found, strict=True)] if products else found
    if count < 1 or members < 2 * count:
        return None
    return [_leading(one, count) for one in products]


def _leading(products: torch.Tensor, count: int) -> torch.Tensor:
    vectors = torch.linalg.eigh(products).eigenvectors.flip(1)[:, :count]
    # Signs are the machine's choice; the largest entry is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * largest.sign()


def choose_count(curve: Float) -> int:
    """The fewest components whose gain in agreement over none is within 5 % of the largest one.

    Parameters
    ----------
    curve : array, shape (n + 1,)
        Error with 0, 1, ... components.

    Returns
    -------
    int
    """
    gain = curve[0] - curve
    return int((gain * 1.05 >= gain.max()).argmax())
