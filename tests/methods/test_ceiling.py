from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from bidsdnn.methods.ceiling import averaged_reliability, ncsnr, normalized, repeated, split_half, variances


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
    counts = np.unique(stimulus, return_counts=True)[1]
    a, b = np.mean(1 / np.ceil(counts[counts > 1] / 2)), np.mean(1 / np.floor(counts[counts > 1] / 2))
    found = []
    for one in r:
        x = scipy.optimize.brentq(lambda x, r=one: r**2 * (1 + x * a) * (1 + x * b) - 1, 0, 1e12)
        found.append(np.sign(one) / (1 + x * np.mean(1 / counts)))
    return np.array(found)


def test_equal_repeats_are_spearman_browns_formula():
    values, stimulus = trials(noise=3.0)
    means = [np.array([values[stimulus == s][i::2].mean(axis=0) for s in range(30)]) for i in (0, 1)]
    r = np.array([scipy.stats.pearsonr(a, b).statistic for a, b in zip(means[0].T, means[1].T, strict=True)])
    np.testing.assert_allclose(split_half(values, stimulus), 2 * r / (1 + np.abs(r)), rtol=1e-10)


def unequal(n_stimuli=3000, *, noise=1.5, seed=0):
    """Stimuli shown once to five times, in as many voxels as make a mean."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, n_stimuli)
    stimulus = rng.permutation(np.repeat(np.arange(n_stimuli), counts))
    truth = rng.standard_normal((n_stimuli, 8))
    return truth[stimulus] + noise * rng.standard_normal((len(stimulus), 8)), stimulus, truth, counts


def test_unequal_repeats_by_both_methods():
    values, stimulus, truth, counts = unequal()
    averaged = np.array([values[stimulus == s].mean(axis=0) for s in range(len(counts))])
    # The reliability of a table is the squared correlation with what it would be without noise.
    r2 = [scipy.stats.pearsonr(a, b).statistic ** 2 for a, b in zip(averaged.T, truth.T, strict=True)]
    np.testing.assert_allclose(split_half(values, stimulus).mean(), np.mean(r2), atol=0.02)
    np.testing.assert_allclose(averaged_reliability(ncsnr(values, stimulus), counts).mean(), np.mean(r2), atol=0.02)
    signal, noise = variances(values, stimulus)
    np.testing.assert_allclose(signal.mean(), 1, atol=0.03)
    np.testing.assert_allclose(noise.mean(), 1.5**2, atol=0.05)


def test_equal_repeats_are_the_natural_scenes_datasets_ncsnr():
    values, stimulus = trials(n_stimuli=400, n_repeats=3, noise=2.0)
    values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    noise = np.mean([values[stimulus == s].var(axis=0, ddof=1) for s in range(400)], axis=0)
    found = variances(values, stimulus)
    np.testing.assert_allclose(found.noise, noise)
    np.testing.assert_allclose(found.signal, 1 - noise, atol=3e-3)
    expected = np.sqrt(np.maximum(1 - noise, 0)) / np.sqrt(noise)
    np.testing.assert_allclose(ncsnr(values, stimulus), expected, rtol=0.02)


def test_variances_are_unbiased_in_small_unequal_samples():
    stimulus = np.repeat(np.arange(8), [1, 1, 2, 2, 3, 3, 5, 6])
    rng = np.random.default_rng(5)
    shape = (len(stimulus), 40_000)
    values = rng.standard_normal((8, shape[1]))[stimulus] * 0.8 + 1.5 * rng.standard_normal(shape)
    _, counts = np.unique(stimulus, return_counts=True)
    found = variances(values, stimulus)
    assert found.noise.mean() == pytest.approx(1.5**2, rel=0.01)
    # Before it is cut at 0 the signal is unbiased; redo its last line.
    n, s = len(stimulus), 8
    means = np.array([values[stimulus == i].mean(axis=0) for i in range(s)])
    between = (counts[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0) / (s - 1)
    signal = (between - found.noise) / ((n - (counts**2).sum() / n) / (s - 1))
    assert signal.mean() == pytest.approx(0.8**2, rel=0.03)
    np.testing.assert_allclose(found.signal, np.maximum(signal, 0), atol=1e-9)


def test_pure_noise_and_pure_signal():
    noise = np.random.default_rng(6).standard_normal((400, 500))
    stimulus = np.repeat(np.arange(100), 4)
    assert abs(split_half(noise, stimulus).mean()) < 0.05
    assert np.median(ncsnr(noise, stimulus)) < 0.2
    same = noise[:100][stimulus]
    np.testing.assert_allclose(split_half(same, stimulus), 1)
    broken = np.hstack([same[:, :1] * np.nan, np.ones((400, 1))])
    assert np.isnan(ncsnr(broken, stimulus)).all()
    assert np.isnan(variances(noise[:5], [0, 0, 1, 1, 2]).signal).all()


def test_normalized_scores():
    assert normalized(0.3, 0.6) == pytest.approx(0.5)
    assert np.isnan(normalized(0.3, 0.09))
    assert np.isnan(normalized(0.3, float("nan")))


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
