from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import scipy.stats

from bidsdnn.methods.inference import fdr, pvalue, sign_flip, sign_flip_familywise, sign_flips, sign_flips_two_sided


def test_sign_flip_enumerates_all_flips():
    values = np.random.default_rng(0).standard_normal((6, 5)) + 0.3
    t, p = sign_flip(values)
    expected = scipy.stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(t, expected.statistic)
    flipped = np.array([(values * np.array(signs)[:, None]) for signs in itertools.product([1, -1], repeat=6)])
    every = flipped.mean(axis=1) / flipped.std(axis=1, ddof=1)
    observed = values.mean(axis=0) / values.std(axis=0, ddof=1)
    np.testing.assert_allclose(p, (every >= observed - 1e-12).mean(axis=0))


def test_all_participants_above_zero_reach_the_smallest_p():
    values = np.random.default_rng(1).uniform(0.1, 1, (5, 3))
    assert (sign_flip(values)[1] == 1 / 32).all()
    assert (sign_flip(-values)[1] == 1).all()


def test_equal_scores_tie_exactly():
    """Sums of 0.1 and 0.2 in another order differ by rounding, and must count as equal."""
    values = np.array([[0.1], [0.2], [0.3], [-0.3], [-0.2], [-0.1], [0.1], [0.7]])
    _, p = sign_flip(values)
    sums = [
        sum(s * v for s, v in zip(signs, [1, 2, 3, 3, 2, 1, 1, 7], strict=True))
        for signs in itertools.product([1, -1], repeat=8)
    ]
    assert p[0] == sum(total >= 8 for total in sums) / 256


def test_random_flips_agree_with_enumeration_and_with_scipy():
    values = np.random.default_rng(2).standard_normal((12, 4)) + 0.4
    _, exact = sign_flip(values)
    _, sampled = sign_flip(values, permutations=20000, enumerate_up_to=11)
    np.testing.assert_allclose(sampled, exact, atol=0.01)
    assert (sign_flip(values + 9, permutations=99, enumerate_up_to=2)[1] == 1 / 100).all()
    reference = scipy.stats.permutation_test(
        (values[:, 0],), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert exact[0] == pytest.approx(reference.pvalue)


def test_sign_flip_does_not_depend_on_blocks(monkeypatch):
    values = np.random.default_rng(3).standard_normal((15, 20))
    whole = sign_flip(values, seed=4)
    monkeypatch.setattr("bidsdnn.methods.inference._FLIPS", 7)
    monkeypatch.setattr("bidsdnn.methods.inference._FEATURES", 3)
    np.testing.assert_allclose(sign_flip(values, seed=4), whole)
    assert not np.array_equal(sign_flip(values, seed=5)[1], whole[1])


@pytest.mark.parametrize("n", [9, 30])
def test_single_precision_gives_the_same_p_and_keeps_ties(n):
    values = np.random.default_rng(9).standard_normal((n, 60)) + 0.2
    values[:, 0], values[:, 1] = np.resize([0.1, 0.2, 0.3, -0.2], n), np.resize([1, 2, 3, -2], n)
    double, single = sign_flips(values, permutations=999), sign_flips(values.astype(np.float32), permutations=999)
    np.testing.assert_allclose(single.p, double.p, atol=1e-12)
    np.testing.assert_allclose(single.p_fwe, double.p_fwe, atol=1e-12)
    np.testing.assert_allclose(single.t, double.t, rtol=1e-4)
    assert single.p[0] == single.p[1]


def test_differences_are_tested_on_both_sides():
    values = np.random.default_rng(10).standard_normal((7, 4)) + np.array([1, -1, 0, 0])
    found, mirrored = sign_flips_two_sided(values), sign_flips_two_sided(-values)
    np.testing.assert_allclose(found.p, mirrored.p)
    np.testing.assert_allclose(found.p_fwe, mirrored.p_fwe)
    flips = np.array(list(itertools.product([-1, 1], repeat=7)))
    every = np.abs(flips @ values) / np.sqrt((values**2).sum(axis=0))
    np.testing.assert_allclose(found.p_fwe, (every.max(axis=1)[:, None] >= every[-1] - 1e-9).mean(axis=0))


def test_missing_participants_and_empty_columns_in_silence():
    values = np.random.default_rng(5).standard_normal((7, 5)) + 0.5
    expected_t, expected_p = sign_flip(values[:5])
    values[5:, 0], values[:, 1], values[1:, 2], values[:, 3] = np.nan, np.nan, np.nan, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t, p = sign_flip(values)
    assert t[0] == pytest.approx(expected_t[0])
    assert p[0] == pytest.approx(expected_p[0])
    assert np.flatnonzero(np.isnan(t)).tolist() == np.flatnonzero(np.isnan(p)).tolist() == [1, 2, 3]


def test_identical_scores_have_an_infinite_t():
    t, p = sign_flip(np.full((4, 1), 0.1))
    assert t[0] == np.inf
    assert p[0] == 1 / 16


@pytest.mark.parametrize("n", [7, 16])
def test_familywise_p_of_flips_is_written_out(n):
    rng = np.random.default_rng(4)
    values = rng.normal(0.2, 1, size=(n, 5)) + rng.normal(size=(n, 1))
    values[2, 3], values[:, 4] = np.nan, np.nan
    p = sign_flip_familywise(values, permutations=400, seed=3)
    filled = np.nan_to_num(values[:, :4])
    if n == 7:
        flips = np.array(list(itertools.product([-1, 1], repeat=n)))
    else:
        flips = np.random.default_rng(3).choice([-1.0, 1.0], size=(400, n))
    u = (flips @ filled) / np.sqrt((filled**2).sum(axis=0))
    observed = filled.sum(axis=0) / np.sqrt((filled**2).sum(axis=0))
    reached = (u.max(axis=1)[:, None] >= observed - 1e-9).sum(axis=0)
    np.testing.assert_allclose(p[:4], reached / len(flips) if n == 7 else (1 + reached) / 401)
    assert np.isnan(p[4])
    _, each = sign_flip(values, permutations=400, seed=3)
    assert (p[:4] >= each[:4]).all()
    _, alone = sign_flip(values[:, :1], permutations=400, seed=3)
    np.testing.assert_allclose(sign_flip_familywise(values[:, :1], permutations=400, seed=3), alone)


def test_familywise_p_orders_scores_by_t_and_names_what_is_wrong():
    values = np.random.default_rng(5).normal(0.3, 1, size=(9, 30))
    t, _ = sign_flip(values)
    p = sign_flip_familywise(values)
    assert (np.diff(p[np.argsort(t)]) <= 0).all()
    with pytest.raises(ValueError, match="at least 2 participants"):
        sign_flip_familywise(values[:1])
    with pytest.raises(ValueError, match="permutations"):
        sign_flip_familywise(values, permutations=0)
    assert np.isnan(sign_flip_familywise(np.zeros((4, 2)))).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 15])
def test_familywise_flips_are_calibrated_in_many_simulations(n):
    rng, rejected = np.random.default_rng(n), 0
    for seed in range(2000):
        # Layers of one network resemble each other.
        values = rng.normal(size=(n, 10)) + 2 * rng.normal(size=(n, 1))
        rejected += np.nanmin(sign_flip_familywise(values, permutations=500, seed=seed)) <= 0.05
    print(f"family-wise sign flips of {n}: {rejected / 2000:.3f}")
    assert 0.03 < rejected / 2000 < 0.07


def test_sign_flip_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"at least 2 participants in shape \(n, F\), got \(1, 3\)"):
        sign_flip(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="permutations: expected at least 1, got 0"):
        sign_flip(np.zeros((3, 3)), permutations=0)


@pytest.mark.parametrize("shape", [(1,), (50,), (6, 7)])
def test_fdr_equals_scipy(shape):
    p = np.random.default_rng(6).uniform(size=shape) ** 3
    p.flat[0] = p.flat[-1]
    expected = scipy.stats.false_discovery_control(p, axis=None).reshape(shape)
    np.testing.assert_allclose(fdr(p), expected)


def test_fdr_ignores_tests_that_were_not_made():
    p = np.array([0.01, np.nan, 0.04, 0.03, np.nan])
    q = fdr(p)
    np.testing.assert_allclose(q[[0, 2, 3]], scipy.stats.false_discovery_control(p[[0, 2, 3]]))
    assert np.isnan(q[[1, 4]]).all()
    assert np.isnan(fdr([np.nan, np.nan])).all()
    with pytest.raises(ValueError, match=r"from 0 to 1, got 0.5 to 1.5"):
        fdr([0.5, 1.5])


def test_pvalue_counts_the_observed_and_its_ties():
    null = np.array([[0.1, 5.0], [0.2, 6.0], [0.1 + 0.2, 7.0], [0.4, np.nan]])
    np.testing.assert_array_equal(pvalue([0.3, 5.5], null), [3 / 5, np.nan])
    assert pvalue(9.0, [1.0, 2.0, 3.0]) == 1 / 4
    assert np.isnan(pvalue(np.nan, [1.0]))
    with pytest.raises(ValueError, match="null: expected shape"):
        pvalue([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("n", [10, 20])
def test_sign_flip_is_calibrated(n):
    values = np.random.default_rng(7).standard_t(3, (n, 400))
    p = sign_flip(values, permutations=199)[1]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 10, 20])
def test_sign_flip_is_calibrated_in_many_simulations(n):
    values = np.random.default_rng(8).standard_t(3, (n, 4000))
    p = sign_flip(values, permutations=999)[1]
    print(f"sign flips of {n}: {(p <= 0.05).mean():.3f}")
    # All p of 8 participants are multiples of 1/256: spread over their steps they are uniform.
    spread = p - np.random.default_rng(0).random(p.shape) / (2**n if n <= 12 else 1000)
    assert scipy.stats.kstest(spread, "uniform").pvalue > 0.01
    assert 0.03 < (p <= 0.05).mean() < 0.07
