from __future__ import annotations

import numpy as np
import pytest
import torch

from bidsdnn.methods.repeats import repeats_across_runs

CPU = torch.device("cpu")


@pytest.mark.parametrize("sessions", [1, 2])
def test_error_is_the_mean_over_pairs_of_repeats_in_different_runs(sessions):
    rng = np.random.default_rng(0)
    stimulus, run = rng.integers(0, 9, 60), np.repeat(np.arange(4), 15)
    session = run // (4 // sessions)
    plain, other = rng.standard_normal((60, 5)) * 3 + 2, rng.standard_normal((60, 5))
    repeats = repeats_across_runs(stimulus, run, session, device=CPU)
    found = repeats.agreement(torch.from_numpy(plain)).error(torch.from_numpy(other)).numpy()
    mean, spread = np.empty_like(plain), np.empty_like(plain)
    for one in np.unique(session):
        mean[session == one] = plain[session == one].mean(axis=0)
        spread[session == one] = plain[session == one].std(axis=0, ddof=1)
    z_plain, z_other = (plain - mean) / spread, (other - mean) / spread
    pairs = [(i, j) for i in range(60) for j in range(60) if stimulus[i] == stimulus[j] and run[i] != run[j]]
    expected = np.mean([(z_other[i] - z_plain[j]) ** 2 for i, j in pairs], axis=0)
    np.testing.assert_allclose(found, expected)


def test_without_repeats_across_runs_there_is_nothing_to_compare():
    once = [f"s{i}" for i in range(40)]
    assert repeats_across_runs(once, np.repeat([0, 1], 20), np.zeros(40), device=CPU) is None
    within = [f"s{i // 2}" for i in range(40)]
    assert repeats_across_runs(within, np.repeat([0, 1], 20), np.zeros(40), device=CPU) is None
    two = [f"s{i % 20}" if i % 20 < 2 else f"x{i}" for i in range(40)]
    assert repeats_across_runs(two, np.repeat([0, 1], 20), np.zeros(40), device=CPU) is None
    three = [f"s{i % 20}" if i % 20 < 3 else f"x{i}" for i in range(40)]
    assert repeats_across_runs(three, np.repeat([0, 1], 20), np.zeros(40), device=CPU) is not None


def test_voxels_that_do_not_vary_give_a_finite_error():
    repeats = repeats_across_runs(np.tile(np.arange(5), 2), np.repeat([0, 1], 5), np.zeros(10), device=CPU)
    values = torch.full((10, 2), 3.0, dtype=torch.float64)
    assert torch.isfinite(repeats.agreement(values).error(values)).all()
