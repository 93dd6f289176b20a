"""Freedman and Lane's permutations: the formula written out, nilearn, planted effects, rates on noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nilearn.mass_univariate import permuted_ols
from scipy.stats import linregress, ttest_ind

from bidsdnn.methods import freedman_lane as module
from bidsdnn.methods.freedman_lane import freedman_lane, smallest_p


def t_of(y, x, nuisance):
    """t of x in a regression of y on a mean, x and the nuisance, by the normal equations."""
    design = np.column_stack([x, np.ones(len(x)), nuisance])
    beta, *_ = np.linalg.lstsq(design, y, rcond=None)
    left = ((y - design @ beta) ** 2).sum(axis=0) / (len(x) - design.shape[1])
    return beta[0], beta[0] / np.sqrt(left * np.linalg.inv(design.T @ design)[0, 0])


def written_out(y, x, nuisance, orders):
    """Permute residuals of the reduced model, add what it fits, fit the whole model again."""
    reduced = np.column_stack([np.ones(len(x)), nuisance])
    fit = reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    return np.array([np.abs(t_of(fit + (y - fit)[list(order)], x, nuisance)[1]) for order in orders])


@pytest.mark.parametrize("q", [0, 2])
def test_every_order_of_six_is_written_out(q):
    rng = np.random.default_rng(0)
    x, nuisance = rng.normal(size=6), rng.normal(size=(6, q)) * [1, 100][:q] + 5
    y = rng.normal(size=(6, 4)) + x[:, None] * [1, 0, 0, 0.5]
    found = freedman_lane(y, x, nuisance)
    estimate, t = t_of(y, x, nuisance)
    np.testing.assert_allclose(found.estimate, estimate)
    np.testing.assert_allclose(found.t, t)
    every = written_out(y, x, nuisance, list(itertools.permutations(range(6))))
    # An order and its inverse are both among all of them.
    np.testing.assert_allclose(found.p, (every >= np.abs(t) - 1e-9).mean(axis=0))
    np.testing.assert_allclose(found.p_fwe, (every.max(axis=1)[:, None] >= np.abs(t) - 1e-9).mean(axis=0))
    assert (found.n == 6).all()


def test_two_groups_and_one_covariate_have_the_usual_t():
    rng = np.random.default_rng(1)
    y, group, age = rng.normal(size=(12, 3)), np.arange(12) % 2, rng.normal(30, 5, size=12)
    expected = ttest_ind(y[group == 1], y[group == 0])
    found = freedman_lane(y, group, permutations=2000)
    np.testing.assert_allclose(found.t, expected.statistic)
    np.testing.assert_allclose(found.p, expected.pvalue, atol=0.06)
    np.testing.assert_allclose(found.estimate, y[group == 1].mean(axis=0) - y[group == 0].mean(axis=0))
    line = linregress(age, y[:, 0])
    assert freedman_lane(y, age).estimate[0] == pytest.approx(line.slope)


def test_nilearn_gives_the_same_t_and_familywise_p():
    rng = np.random.default_rng(2)
    y, x, nuisance = rng.normal(size=(20, 8)), rng.normal(size=20), rng.normal(size=(20, 2))
    y[:, :2] += 0.7 * x[:, None] + nuisance[:, :1]
    theirs = permuted_ols(x[:, None], y, confounding_vars=nuisance, model_intercept=True, n_perm=2000,
                          random_state=0, output_type="dict")  # fmt: skip
    ours = freedman_lane(y, x, nuisance, permutations=2000)
    np.testing.assert_allclose(ours.t, theirs["t"][0], rtol=1e-6)
    np.testing.assert_allclose(ours.p_fwe, 10 ** -theirs["logp_max_t"][0], atol=0.05)
    single = freedman_lane(y.astype(np.float32), x, nuisance, permutations=2000)
    np.testing.assert_allclose(single.p, ours.p, atol=1e-3)
    np.testing.assert_allclose(single.p_fwe, ours.p_fwe, atol=1e-3)


def test_a_missing_participant_is_missing_in_every_order(monkeypatch):
    rng = np.random.default_rng(3)
    y, x, nuisance = rng.normal(size=(9, 5)), rng.normal(size=9), rng.normal(size=(9, 1))
    whole = freedman_lane(y, x, nuisance, permutations=3000)
    y[2, 1], y[:7, 3], y[:, 4] = np.nan, np.nan, 1.0
    found = freedman_lane(y, x, nuisance, permutations=3000)
    kept = np.arange(9) != 2
    alone = freedman_lane(y[kept][:, [1]], x[kept], nuisance[kept], permutations=3000)
    assert found.t[1] == pytest.approx(alone.t[0])
    assert found.p[1] == pytest.approx(alone.p[0], abs=0.04)
    np.testing.assert_allclose(found.p[[0, 2]], whole.p[[0, 2]])
    assert np.isnan(found.p[[3, 4]]).all() and np.isnan(found.p_fwe[[3, 4]]).all()
    assert found.n.tolist() == [9, 8, 9, 2, 9]
    monkeypatch.setattr(module, "_FEATURES", 2)
    monkeypatch.setattr(module, "_ORDERS", 7)
    np.testing.assert_allclose(freedman_lane(y, x, nuisance, permutations=3000).p_fwe, found.p_fwe)


def test_the_smallest_p_counts_orders_that_tie():
    rng = np.random.default_rng(4)
    assert smallest_p([0, 0, 1, 1], 1000) == pytest.approx(2 / 6)
    assert smallest_p([0, 1, 1], 1000) == pytest.approx(1 / 3)
    assert smallest_p(rng.normal(size=5), 1000) == pytest.approx(1 / 120)
    assert smallest_p(rng.normal(size=20), 999) == pytest.approx(1 / 1000)
    assert smallest_p([0, 0, 0, 0, 1, 1, 1, 1], 5000) == pytest.approx(2 / 70)


@pytest.mark.parametrize("tested", [[0.0, 0, 1, 1, 1], [1.0, 2, 3, 5, 9]])
def test_the_smallest_p_beside_other_variables_is_one_that_is_reached(tested):
    others = np.array([1.0, 2, 4, 4, 3])[:, None]
    y = np.asarray(tested)[:, None] + 1e-3 * np.random.default_rng(5).normal(size=(5, 20))
    assert freedman_lane(y, tested, others).p.min() == pytest.approx(smallest_p(tested, 1000, others))
    y = np.array([[0.0], [0.1], [5.0], [5.1]])
    assert freedman_lane(y, [0, 0, 1, 1]).p[0] == pytest.approx(2 / 6)


def test_what_cannot_be_tested_is_named():
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=(8, 2)), rng.normal(size=8)
    with pytest.raises(ValueError, match="explain all of it"):
        freedman_lane(y, x, 3 * x[:, None] + 1)
    with pytest.raises(ValueError, match="finite variables"):
        freedman_lane(y, np.full(8, np.nan))
    with pytest.raises(ValueError, match="permutations"):
        freedman_lane(y, x, permutations=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["covariate", "groups"])
def test_rates_on_noise(kind):
    """2,000 groups of 10 participants; the nuisance matters and is correlated with the tested variable."""
    rng, rejected = np.random.default_rng([6, kind == "groups"]), {"one": 0, "family": 0}
    for seed in range(2000):
        nuisance = rng.normal(size=(10, 1))
        x = nuisance[:, 0] + rng.normal(size=10) if kind == "covariate" else np.arange(10.0) >= 5
        y = rng.normal(size=(10, 6)) + rng.normal(size=(10, 1)) + 2 * nuisance
        found = freedman_lane(y, x, nuisance, permutations=500, seed=seed)
        rejected["one"] += found.p[0] <= 0.05
        rejected["family"] += found.p_fwe.min() <= 0.05
    print(kind, {key: value / 2000 for key, value in rejected.items()})
    assert all(0.03 < value / 2000 < 0.07 for value in rejected.values())
