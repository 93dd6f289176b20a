from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from bidsdnn.methods.ceiling import repeated, split_half


def trials(n_stimuli=30, n_repeats=4, n_voxels=6, *, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n_stimuli, n_voxels))
    stimulus = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_repeats)])
    return truth[stimulus] + noise * rng.standard_normal((len(stimulus), n_voxels)), stimulus


def by_hand(values, stimulus):
    odd, even = [], []
    for label in sorted(set(stimulus)):
        repeats = values[[i for i, other in enumerate(stimulus) if other == label]]
        if len(repeats) > 1:
            odd.append(repeats[0::2].mean(axis=0))
            even.append(repeats[1::2].mean(axis=0))
    r = [scipy.stats.pearsonr(a, b).statistic for a, b in zip(np.array(odd).T, np.array(even).T, strict=True)]
    return np.array([2 * one / (1 + one) if one > 0 else 2 * one / (1 - one) for one in r])


@pytest.mark.parametrize("n_repeats", [2, 3, 4])
@pytest.mark.parametrize("noise", [1.0, 20.0])
def test_split_half_equals_the_formula_written_out(n_repeats, noise):
    values, stimulus = trials(n_repeats=n_repeats, noise=noise)
    once = np.random.default_rng(1).standard_normal((3, 6))
    values, stimulus = np.vstack([once, values]), np.concatenate([[100, 101, 102], stimulus])
    names = np.array([f"picture{label:03d}.png" for label in stimulus])
    np.testing.assert_allclose(split_half(values, names), by_hand(values, stimulus), rtol=1e-10)
    assert repeated(names) == 30


def test_split_half_estimates_the_reliability_of_the_mean_of_all_repeats():
    values, stimulus = trials(n_stimuli=2000, n_repeats=4, noise=2.0)
    np.testing.assert_allclose(split_half(values, stimulus).mean(), 1 / (1 + 2.0**2 / 4), atol=0.03)


def test_order_says_which_repeats_are_odd():
    values, stimulus = trials()
    order = np.arange(len(stimulus)) * 1.5
    shuffled = np.random.default_rng(2).permutation(len(stimulus))
    expected = split_half(values, stimulus)
    np.testing.assert_allclose(split_half(values[shuffled], stimulus[shuffled], order=order[shuffled]), expected)
    assert not np.allclose(split_half(values[shuffled], stimulus[shuffled]), expected)


def test_trials_that_were_not_estimated_are_left_out():
    values, stimulus = trials()
    expected = split_half(np.delete(values, [3, 40], axis=0), np.delete(stimulus, [3, 40]))
    values[[3, 40]] = np.nan
    np.testing.assert_allclose(split_half(values, stimulus), expected)


def test_broken_voxels_are_nan_and_spare_the_others():
    values, stimulus = trials()
    expected = split_half(values, stimulus)
    values[:, 1], values[5, 3] = 0.1, np.nan
    found = split_half(values, stimulus)
    assert np.flatnonzero(np.isnan(found)).tolist() == [1, 3]
    np.testing.assert_allclose(found[[0, 2, 4, 5]], expected[[0, 2, 4, 5]])


def test_fewer_than_three_repeated_stimuli_have_no_reliability():
    values = np.random.default_rng(3).standard_normal((6, 4))
    assert np.isnan(split_half(values, [0, 0, 1, 1, 2, 3])).all()
    assert np.isfinite(split_half(values, [0, 0, 1, 1, 2, 2])).all()
    assert repeated([0, 0, 1, 1, 2, 3]) == 2


def test_reliability_of_opposite_halves_is_minus_one():
    half = np.random.default_rng(4).standard_normal((5, 2))
    np.testing.assert_allclose(split_half(np.vstack([half, -half]), [*range(5), *range(5)]), -1)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"got \(6, 4\) and \(5,\)"):
        split_half(np.zeros((6, 4)), np.zeros(5))
    with pytest.raises(ValueError, match=r"order: expected shape \(6,\), got \(5,\)"):
        split_half(np.zeros((6, 4)), np.zeros(6), order=np.zeros(5))
