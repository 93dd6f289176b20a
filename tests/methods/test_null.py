"""Scores under relabelling, against refits written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr as scipy_pearsonr

from bidsdnn.methods.folds import block_orders, blocks_out
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.null import Given, Refits, held_out_scaled, null, products, scorer
from bidsdnn.methods.predict import cross_predict, kfold, region_permutation
from bidsdnn.methods.scores import pooled_pearsonr, training_means


class Plain:
    """A ridge that does not say that it is linear, and counts how often it is fitted."""

    fits = 0

    def __init__(self, penalty=None):
        self.ridge = Ridge() if penalty is None else Ridge([penalty])

    def fit(self, X, Y):
        Plain.fits += 1
        self.ridge.fit(X, Y)
        return self

    def predict(self, X):
        return self.ridge.predict(X)

    def fixed(self):
        return type(self)(1.0)


class Separable(Plain):
    separable = True


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)), rng.normal(size=(24, 7))
    y[:, :3] += 2 * x[:, :3]
    y[:, 5], y[3, 6] = 1.0, np.nan
    orders = np.array([rng.permutation(24) for _ in range(39)])
    return x, y, kfold(24, 6, seed=0), orders


REGIONS = np.array([[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1]], dtype=bool)


def refitted(x, y, splits, orders):
    """r of every column for the given labels and each relabelling: items take the places of others in X."""
    r = []
    for order in [np.arange(len(x)), *orders]:
        place = np.argsort(order)
        predicted = cross_predict(Ridge([1.0]), x, y[place], splits)
        r.append(pooled_pearsonr(predicted, y[place], splits))
    return np.array(r)


@pytest.mark.parametrize("model", [Ridge(), Plain(), Separable()], ids=["product", "refits", "side by side"])
def test_every_way_gives_what_refits_give(planted, model):
    x, y, splits, orders = planted
    found = null(scorer(model, x, splits), y, REGIONS, orders)
    r = refitted(x, y, splits, orders)
    np.testing.assert_allclose(found.observed, r[0], atol=1e-9)
    reached = (r[1:, :5] >= r[0, :5] - 1e-9).sum(axis=0)
    np.testing.assert_array_equal(found.p[:5], (1 + reached) / 40)
    assert np.isnan(found.p[5:]).all()
    np.testing.assert_allclose(found.largest, np.nanmax(r[1:], axis=1), atol=1e-9)
    assert found.squares == pytest.approx(np.nansum(r[1:] ** 2))
    np.testing.assert_allclose(found.means[:, :2], [[row[:3].mean(), row[3:5].mean()] for row in r], atol=1e-9)
    np.testing.assert_array_equal(
        found.p_regions[:2], (1 + (found.means[1:, :2] >= found.means[0, :2]).sum(axis=0)) / 40
    )
    assert np.isnan(found.p_regions[2])
    assert found.p[:3].max() == 0.025


def test_relabellings_of_separable_targets_share_a_fit(planted):
    x, y, splits, orders = planted
    Plain.fits = 0
    null(Refits(Separable(), x, splits), y, REGIONS, orders)
    together = Plain.fits
    null(Refits(Plain(), x, splits), y, REGIONS, orders)
    assert (together, Plain.fits - together) == (2 * len(splits), 40 * len(splits))


def test_products_are_the_test_of_regions(planted):
    x, y, splits, orders = planted
    expected, observed = region_permutation(
        Ridge().operator(x, splits), y, REGIONS, splits, permutations=39, seed=0, orders=orders
    )
    found = null(scorer(Ridge(), x, splits), y, REGIONS, orders)
    np.testing.assert_array_equal(found.p_regions, expected)
    np.testing.assert_allclose(found.means[0], observed)


def test_runs_are_held_out_without_the_stimuli_they_share():
    rng = np.random.default_rng(1)
    stimulus = np.repeat(np.arange(12), [2, 2, *[1] * 10])
    runs = np.array(list("ab" * 2 + "aaabbbcccc"))
    x, y = rng.normal(size=(12, 4))[stimulus], rng.normal(size=(14, 3))
    splits = blocks_out(runs.tolist(), stimulus)
    orders, _ = block_orders(runs, stimulus, permutations=20, seed=0)
    found = null(scorer(Ridge(), x, splits), y, np.ones((1, 3), bool), orders)
    r = refitted(x, y, splits, orders)
    np.testing.assert_allclose(found.observed, r[0], atol=1e-9)
    np.testing.assert_allclose(found.largest, r[1:].max(axis=1), atol=1e-9)


def test_of_a_single_split_what_was_held_out_is_exchanged(planted):
    _, y, _, orders = planted
    prediction = y + np.random.default_rng(2).normal(size=y.shape)
    found = null(Given(prediction), y, REGIONS, orders)
    for column in range(5):
        observed = scipy_pearsonr(prediction[:, column], y[:, column]).statistic
        under = [scipy_pearsonr(prediction[order, column], y[:, column]).statistic for order in orders]
        assert found.observed[column] == pytest.approx(observed)
        assert found.p[column] == (1 + np.sum(np.array(under) >= observed)) / 40
    assert np.isnan(found.p[5:]).all()


def test_only_some_columns_are_tested(planted):
    x, y, splits, orders = planted
    whole = null(scorer(Ridge(), x, splits), y, REGIONS, orders)
    some = null(scorer(Ridge(), x, splits), y, REGIONS, orders, columns=np.arange(7) > 1)
    np.testing.assert_array_equal(some.columns, np.arange(2, 7))
    np.testing.assert_allclose(some.observed, whole.observed[2:], atol=1e-12)
    np.testing.assert_allclose(some.means[:, 0], refitted(x, y, splits, orders)[:, 2], atol=1e-9)


def test_single_items_are_scaled_by_what_was_fitted(planted):
    x, y, _, orders = planted
    y, one_by_one = y[:, :5], kfold(24, 24, seed=0)
    predicted, scale = held_out_scaled(Ridge([0.5]), x, y, one_by_one)
    np.testing.assert_allclose(predicted, cross_predict(Ridge([0.5]), x, y, one_by_one))
    train, test = one_by_one[3]
    fitted = Ridge([0.5]).fit(x[train], y[train]).predict(x[train])
    np.testing.assert_allclose(scale[test[0]], fitted.std(axis=0), rtol=1e-6)
    assert held_out_scaled(Ridge([0.5]), x, y, kfold(24, 8, seed=0))[1] is None
    # At one penalty for all folds r needs no scale: it is that of the deviations as they are.
    found = null(products(Ridge().operator(x, one_by_one), one_by_one), y, np.ones((1, 5), bool), orders)
    means = training_means(y, one_by_one)
    deviations = cross_predict(Ridge([1.0]), x, y, one_by_one) - means
    expected = [scipy_pearsonr(a, b).statistic for a, b in zip(deviations.T, (y - means).T, strict=True)]
    np.testing.assert_allclose(found.observed, expected)


def test_leave_one_out_centres_on_zero_and_keeps_what_is_there():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 29))
    noise = rng.normal(size=(30, 400))
    signal = x @ rng.normal(size=(29, 400)) / 29**0.5 + noise
    one_by_one = kfold(30, 30, seed=0)

    def score(y, **scaled):
        predicted, scale = held_out_scaled(Ridge(n_splits=3), x, y, one_by_one)
        return np.nanmean(pooled_pearsonr(predicted, y, one_by_one, **{"scale": scale} | scaled))

    assert abs(score(noise)) < 0.03
    # By the signs of the predictions alone, as folds of one item would be scaled by themselves, less is seen.
    assert score(signal) > score(signal, scale=None) + 0.02


def test_bad_input(planted):
    x, y, splits, orders = planted
    score = scorer(Ridge(), x, splits)
    with pytest.raises(ValueError, match="one or more orders of 24 items"):
        null(score, y, REGIONS, orders[:, 1:])
    with pytest.raises(ValueError, match="one or more orders of 24 items"):
        null(score, y, REGIONS, orders[:0])
    with pytest.raises(ValueError, match="expected shapes"):
        null(score, y, REGIONS[:, 1:], orders)
