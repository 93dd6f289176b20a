"""Prevalence: the posterior on a fine grid, and how often its interval holds the planted share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from bidsdnn.methods.prevalence import posterior, prevalence


@pytest.mark.parametrize(("k", "n"), [(0, 8), (1, 20), (2, 3), (9, 20), (19, 20), (12, 12)])
def test_the_posterior_is_written_out(k, n):
    share = np.linspace(0, 1, 200001)
    density = binom.pmf(k, n, 0.05 + 0.95 * share)
    density /= density.sum()
    most, low, high = posterior(k, n)
    assert most == pytest.approx(share[density.argmax()], abs=1e-4)
    # The highest-density interval: the fewest points of the grid that hold 95 %.
    order = np.argsort(-density, kind="stable")
    kept = share[order[: np.searchsorted(np.cumsum(density[order]), 0.95) + 1]]
    assert (low, high) == pytest.approx((kept.min(), kept.max()), abs=2e-4)


def test_participants_are_counted_by_column():
    p = np.array([[0.01, 0.5, np.nan, np.nan], [0.04, 0.9, np.nan, 0.05], [0.001, 0.2, np.nan, 0.06]])
    most, low, high = prevalence(p)
    assert most[0] == 1 and most[1] == 0 and np.isnan(most[2]) and np.isnan(high[2])
    assert (most[3], low[3], high[3]) == posterior(1, 2)
    with pytest.raises(ValueError, match="alpha"):
        prevalence(p, alpha=0)


@pytest.mark.slow
def test_the_interval_holds_the_true_share_as_often_as_it_says():
    """Shares are drawn from the prior, participants from the share, tests with full power or none."""
    rng = np.random.default_rng(0)
    share = rng.uniform(size=4000)
    has = rng.random((20, 4000)) < share
    p = np.where(has, 0.0, rng.random((20, 4000)))
    _, low, high = prevalence(p)
    held = float(np.mean((low <= share) & (share <= high)))
    print(f"95 % intervals of the prevalence held the share in {held:.3f}")
    assert held == pytest.approx(0.95, abs=0.015)
