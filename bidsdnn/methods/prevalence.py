"""How common an effect is among people, from the tests within each participant."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import beta

Float = NDArray[np.float64]

ALPHA = 0.05
LEVEL = 0.95


def prevalence(p: ArrayLike, *, alpha: float = ALPHA, level: float = LEVEL) -> tuple[Float, Float, Float]:
    """Prevalence, the share of the population that would show an effect, was estimated from participants' own p.

    k of n participants are significant at alpha. A test with effect always rejects and one without does in a share of
    alpha, so that k is binomial with alpha + (1 - alpha) prevalence; the prior of the prevalence is uniform (Ince et
    al., 2021, eLife 10, e62461).

    Parameters
    ----------
    p : array-like, shape (n, F)
        A row for each participant; NaN is a participant without a test.
    alpha : float
        Level of the participants' tests.
    level : float
        Share of the posterior in the interval.

    Returns
    -------
    most_likely, low, high : arrays, shape (F,)
        The posterior's maximum, and the ends of its highest-density interval. NaN without tests.

    Raises
    ------
    ValueError
        If alpha or level lie outside 0 to 1.
    """
    for name, value in (("alpha", alpha), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")
    p = np.asarray(p, dtype=np.float64)
    n = np.isfinite(p).sum(axis=0)
    k = (p <= alpha).sum(axis=0)
    found = np.full((3, p.shape[1]), np.nan)
    for place in np.flatnonzero(n):
        found[:, place] = posterior(int(k[place]), int(n[place]), alpha=alpha, level=level)
    return found[0], found[1], found[2]


@lru_cache(maxsize=4096)
def posterior(k: int, n: int, *, alpha: float = ALPHA, level: float = LEVEL) -> tuple[float, float, float]:
    """Most likely prevalence, and the highest-density interval, after k of n significant tests.

    The posterior of the share of significant tests is a beta distribution with k + 1 and n - k + 1, cut off below
    alpha.

    Parameters
    ----------
    k, n : int
    alpha, level : float

    Returns
    -------
    tuple of three float
    """
    shape = beta(k + 1, n - k + 1)
    above = shape.sf(alpha)

    def quantile(tail: float) -> float:
        """Where so much of the cut posterior is left above: small tails stay exact."""
        return float(shape.isf(tail * above))

    def width(tail: float) -> float:
        return quantile(tail) - quantile(tail + level)

    # One hump: the narrowest interval of this probability is that of highest density.
    best = minimize_scalar(width, bounds=(0, 1 - level), method="bounded", options={"xatol": 1e-10}).x
    tail = min((0.0, 1 - level, float(best)), key=width)
    ends = np.clip((np.array([quantile(tail + level), quantile(tail)]) - alpha) / (1 - alpha), 0, 1)
    return float(np.clip((k / n - alpha) / (1 - alpha), 0, 1)), float(ends[0]), float(ends[1])
