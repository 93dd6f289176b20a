from __future__ import annotations

import numpy as np
import pytest
import torch

from bidsdnn.methods.noise_pool import choose_count, components, pool_of, tail_threshold


def test_the_threshold_lies_where_both_gaussians_are_equally_likely():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 8000), rng.normal(6, 2, 2000), [np.nan]])
    grid = np.linspace(0, 6, 10_001)
    lower = 0.8 * np.exp(-(grid**2) / 2)
    upper = 0.2 / 2 * np.exp(-((grid - 6) ** 2) / 8)
    assert tail_threshold(values) == pytest.approx(grid[(upper > lower).argmax()], abs=0.15)
    assert tail_threshold(values / 1000) == pytest.approx(tail_threshold(values) / 1000, rel=1e-3)


def test_equal_values_have_no_tail():
    assert tail_threshold(np.full(10, 0.3)) == 0.3


def test_the_pool_is_bright_and_does_not_respond():
    onoff = np.array([0.0, 0.0, 0.5, np.nan, 0.1])
    mean = np.array([100.0, 3.0, 100.0, 100.0, 90.0])
    assert pool_of(onoff, mean, 0.2).tolist() == [True, False, False, False, True]
    centred = np.array([-0.1, 0.1, 0.0, 0.0, -0.2])
    assert pool_of(onoff, centred, 0.2).tolist() == [True, True, False, False, True]


def test_components_are_the_left_singular_vectors_of_unit_length_series():
    rng = np.random.default_rng(1)
    series = [torch.from_numpy(rng.standard_normal((40 + 5 * r, 30)) * rng.uniform(1, 50, 30)) for r in range(2)]
    inside = rng.random(30) < 0.8
    halves = [slice(0, 13), slice(13, 30)]
    found = components((([one[:, part] for one in series], inside[part]) for part in halves), 4)
    for one, ours in zip(series, found, strict=True):
        pool = one.numpy()[:, inside]
        theirs = np.linalg.svd(pool / np.linalg.norm(pool, axis=0))[0][:, :4]
        np.testing.assert_allclose(np.abs(ours.numpy().T @ theirs), np.eye(4), atol=1e-8)


def test_a_pool_too_small_gives_no_components():
    series = [torch.randn(40, 30, dtype=torch.float64)]
    assert components([(series, np.arange(30) < 7)], 4) is None


@pytest.mark.parametrize(
    ("curve", "expected"),
    [([5, 3, 2, 1.99, 3], 2), ([1, 2, 3], 0), ([5, 4, 3, 2], 3), ([2, 2, 2], 0)],
)
def test_the_fewest_components_within_five_per_cent_of_the_best_are_taken(curve, expected):
    assert choose_count(np.array(curve, dtype=float)) == expected
