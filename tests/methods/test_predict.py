from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model
import sklearn.metrics

from bidsdnn.methods.models import Ridge
from bidsdnn.methods.predict import (
    cross_predict,
    kfold,
    prediction_operator,
    region_permutation,
)
from bidsdnn.methods.scores import fold_pearsonr, pearsonr, pooled_pearsonr, r2, training_means


def tables(n=24, p=5, v=7, *, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    return x, x @ rng.standard_normal((p, v)) + rng.standard_normal((n, v)) + 3


@pytest.mark.parametrize(("n", "k"), [(10, 5), (11, 3), (4, 4)])
def test_kfold_holds_out_every_item_once(n, k):
    splits = kfold(n, k, seed=3)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(n))
    sizes = [len(test) for _, test in splits]
    assert max(sizes) - min(sizes) <= 1
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(n))


def test_kfold_is_shuffled_by_its_seed_alone():
    def tests(seed):
        return [test.tolist() for _, test in kfold(30, 3, seed=seed)]

    assert tests(1) == tests(1)
    assert tests(1) != tests(2)
    assert tests(1)[0] != list(range(10))


def test_kfold_names_the_numbers():
    with pytest.raises(ValueError, match=r"as many items as folds \(5\), got 4"):
        kfold(4, 5, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        kfold(4, 1, seed=0)


def test_cross_predict_is_a_loop_over_folds():
    x, y = tables()
    splits = kfold(24, 4, seed=0)
    model = sklearn.linear_model.LinearRegression()
    expected = np.empty_like(y)
    for train, test in splits:
        expected[test] = sklearn.linear_model.LinearRegression().fit(x[train], y[train]).predict(x[test])
    np.testing.assert_allclose(cross_predict(model, x, y, splits), expected)
    assert not hasattr(model, "coef_")
    assert cross_predict(model, x, y.astype(np.float32), splits).dtype == np.float32


@pytest.mark.parametrize("p", [5, 40])
def test_blocks_of_targets_are_predicted_as_a_fitted_model_would(p, monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.predict._COLUMNS", 3)
    x, y = tables(p=p)
    y[2, 1] = np.nan
    splits = kfold(24, 4, seed=0)
    expected = np.full_like(y, np.nan)
    for train, test in splits:
        expected[test] = Ridge().fit(x[train], y[train]).predict(x[test])
    np.testing.assert_allclose(cross_predict(Ridge(), x, y, splits), expected, rtol=1e-9)


def test_nothing_fitted_sees_its_test_fold():
    x, y = tables()
    splits = kfold(24, 4, seed=0)
    before = cross_predict(Ridge(n_splits=3), x, y, splits)
    test = splits[1][1]
    y[test] += 1000
    np.testing.assert_array_equal(cross_predict(Ridge(n_splits=3), x, y, splits)[test], before[test])


def test_items_no_fold_holds_out_are_nan():
    x, y = tables()
    predicted = cross_predict(Ridge([1.0]), x, y, kfold(24, 4, seed=0)[:1])
    assert np.isnan(predicted).any(axis=1).sum() == 18


def test_folds_that_leak_are_refused():
    x, y = tables()
    half = np.arange(12)
    with pytest.raises(ValueError, match="a fold that shares some"):
        cross_predict(Ridge([1.0]), x, y, [(np.arange(13), np.arange(12, 24))])
    with pytest.raises(ValueError, match="got item 12 twice"):
        cross_predict(Ridge([1.0]), x, y, [(half, half + 12), (half, half + 12)])
    with pytest.raises(ValueError, match=r"got \(24, 5\) and \(23, 7\)"):
        cross_predict(Ridge([1.0]), x, y[1:], kfold(24, 4, seed=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_equal_scipy_and_scikit_learn(dtype, monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.predict._COLUMNS", 3)
    rng = np.random.default_rng(0)
    y = (rng.standard_normal((20, 8)) + 50).astype(dtype)
    prediction = (y + rng.standard_normal((20, 8))).astype(dtype)
    expected = [scipy.stats.pearsonr(a, b).statistic for a, b in zip(prediction.T, y.T, strict=True)]
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(pearsonr(prediction, y), expected, rtol=tolerance)
    expected = sklearn.metrics.r2_score(y, prediction, multioutput="raw_values")
    np.testing.assert_allclose(r2(prediction, y), expected, rtol=tolerance)


def test_fold_scores_are_scores_within_folds():
    x, y = tables()
    splits = kfold(24, 3, seed=0)
    predicted = cross_predict(Ridge([1.0]), x, y, splits)
    scores = fold_pearsonr(predicted, y, splits)
    assert scores.shape == (3, 7)
    for row, (_, test) in zip(scores, splits, strict=True):
        np.testing.assert_allclose(row[2], scipy.stats.pearsonr(predicted[test, 2], y[test, 2]).statistic)
    with pytest.raises(ValueError, match="at least one fold"):
        fold_pearsonr(predicted, y, [])


def test_constant_and_missing_columns_score_nan_in_silence():
    _, y = tables()
    prediction = y + 1
    y[:, 0], y[3, 1], prediction[:, 2], prediction[3, 4] = 0.1, np.nan, 0.1, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.flatnonzero(np.isnan(pearsonr(prediction, y))).tolist() == [0, 1, 2, 4]
        assert np.flatnonzero(np.isnan(r2(prediction, y))).tolist() == [0, 1, 4]
    np.testing.assert_allclose(r2(np.broadcast_to(y[:, 5:].mean(axis=0), (24, 2)), y[:, 5:]), 0, atol=1e-12)
    with pytest.raises(ValueError, match=r"one shape \(n, V\), got \(24, 7\) and \(24, 6\)"):
        r2(prediction, y[:, 1:])


@pytest.mark.parametrize("p", [5, 40])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_operator_makes_the_predictions_of_a_ridge(p, penalty):
    x, y = tables(p=p)
    splits = kfold(24, 5, seed=2)
    operator = prediction_operator(x, splits, penalty=penalty)
    np.testing.assert_allclose(operator.sum(axis=1), 1)
    np.testing.assert_allclose(operator @ y, cross_predict(Ridge([penalty]), x, y, splits), rtol=1e-8)
    for train, test in splits:
        assert (operator[np.ix_(test, test)] == 0).all()
        assert (operator[np.ix_(test, train)] != 0).all()


def test_the_operator_of_folds_that_train_on_a_part():
    x, y = tables()
    splits = [(train[2:], test) for train, test in kfold(24, 5, seed=2)]
    predicted = cross_predict(Ridge([1.0]), x, y, splits)
    np.testing.assert_allclose(prediction_operator(x, splits) @ y, predicted, rtol=1e-8)
    few = [(np.array([0, 1, 2, 3, 20]), np.arange(4, 20)), (np.arange(4, 20), np.r_[0:4, 20:24])]
    predicted = cross_predict(Ridge([1.0]), x, y, few)
    # Five rows have four directions, and so have the features less one.
    np.testing.assert_allclose((prediction_operator(x, few) @ y), predicted, rtol=1e-8)


def test_the_operator_names_what_is_wrong():
    x, _ = tables()
    splits = kfold(24, 4, seed=0)
    with pytest.raises(ValueError, match="got 6 of 24 never"):
        prediction_operator(x, splits[1:])
    with pytest.raises(ValueError, match="penalty: expected a positive number, got 0"):
        prediction_operator(x, splits, penalty=0)
    with pytest.raises(ValueError, match="x: expected finite"):
        prediction_operator(x * np.nan, splits)


def _pooled(prediction, y, splits):
    """The definition written out: each fold's deviations on their own scale, then one correlation."""
    predicted, measured = np.empty_like(prediction), np.empty_like(y)
    for train, test in splits:
        deviation = prediction[test] - y[train].mean(axis=0)
        predicted[test] = deviation / np.sqrt((deviation**2).mean(axis=0))
        measured[test] = y[test] - y[train].mean(axis=0)
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, measured.T, strict=True)])


def test_pooled_r_is_the_definition_written_out():
    x, y = tables(n=30, v=4)
    splits = kfold(30, 4, seed=1)
    prediction = cross_predict(Ridge(), x, y, splits)
    assert pooled_pearsonr(prediction, y, splits).mean() == pytest.approx(_pooled(prediction, y, splits), abs=1e-12)
    np.testing.assert_allclose(training_means(y, splits)[splits[2][1]][0], y[splits[2][0]].mean(axis=0))
    y[:, 0], y[3, 1] = 1.0, np.inf
    constant = np.tile(y.mean(axis=0), (30, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(pooled_pearsonr(prediction, y, splits)).tolist() == [True, True, False, False]
        assert np.isnan(pooled_pearsonr(training_means(y, splits), y, splits)).all()
    assert constant.shape == y.shape


@pytest.mark.parametrize("n", [24, 60])
def test_pooled_r_centres_on_zero_for_noise_with_the_penalty_chosen_in_each_fold(n):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((n, n - 2)), rng.standard_normal((n, 3000))
    splits = kfold(n, 10, seed=0)
    prediction = cross_predict(Ridge(), x, y, splits)
    assert abs(pooled_pearsonr(prediction, y, splits).mean()) < 0.02
    assert pearsonr(prediction, y).mean() < -0.1


@pytest.mark.parametrize("exact_items", [0, 256], ids=["float32", "float64"])
def test_region_permutation_is_a_refit_for_every_relabelling(exact_items, monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.predict.EXACT_ITEMS", exact_items)
    monkeypatch.setattr("bidsdnn.methods.predict._COLUMNS", 3)
    monkeypatch.setattr("bidsdnn.methods.relabelled._ENTRIES", 24 * 3)
    monkeypatch.setattr("bidsdnn.methods.relabelled._ORDERS", 7)
    x, y = tables()
    y[:, 1] = 2.5
    y[2, 6] = np.nan
    regions = np.array([[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 1], [0] * 7], dtype=bool)
    splits = kfold(24, 4, seed=0)
    p, observed = region_permutation(prediction_operator(x, splits), y, regions, splits, permutations=30, seed=9)
    rng = np.random.default_rng(9)
    orders = [np.arange(24), *(rng.permutation(24) for _ in range(30))]
    used = [[0, 2], [2, 3, 4]]
    # The relabelling of both axes of the operator by an order is the relabelling of y by its inverse.
    means = np.array(
        [
            [_pooled(cross_predict(Ridge([1.0]), x, moved[:, some], splits), moved[:, some], splits) for some in used]
            for moved in (y[np.argsort(order)] for order in orders)
        ]
    )
    np.testing.assert_allclose(observed[:2], means[0], atol=1e-6)
    np.testing.assert_allclose(p[:2], (1 + (means[1:] >= means[0]).sum(axis=0)) / 31)
    assert np.isnan(p[2:]).all()
    assert np.isnan(observed[2:]).all()


def test_region_permutation_without_any_usable_voxel_is_nan():
    x, y = tables()
    splits = kfold(24, 4, seed=0)
    operator = prediction_operator(x, splits)
    p, observed = region_permutation(operator, np.ones_like(y), np.ones((2, 7)), splits, permutations=5, seed=0)
    assert np.isnan([p, observed]).all()


def test_region_permutation_finds_what_was_planted():
    x, y = tables(n=40, v=10)
    y[:, 5:] = np.random.default_rng(4).standard_normal((40, 5))
    regions = np.repeat(np.eye(2, dtype=bool), 5, axis=1)
    splits = kfold(40, 5, seed=0)
    p, observed = region_permutation(prediction_operator(x, splits), y, regions, splits, permutations=199, seed=0)
    assert p[0] == 1 / 200
    assert observed[0] > 0.6
    assert p[1] > 0.05


def test_region_permutation_names_what_is_wrong():
    x, y = tables()
    splits = kfold(24, 4, seed=0)
    operator = prediction_operator(x, splits)
    regions = np.ones((1, 7), dtype=bool)
    with pytest.raises(ValueError, match=r"got \(24, 24\), \(24, 7\), \(1, 6\)"):
        region_permutation(operator, y, regions[:, 1:], splits, permutations=5, seed=0)
    with pytest.raises(ValueError, match="rows that sum to one"):
        region_permutation(operator * 2, y, regions, splits, permutations=5, seed=0)
    with pytest.raises(ValueError, match="permutations: expected at least 1, got 0"):
        region_permutation(operator, y, regions, splits, permutations=0, seed=0)


def null_p_values(n_simulations, permutations):
    """p of two regions of correlated voxels that know nothing of the features."""
    rng = np.random.default_rng(11)
    regions = np.repeat(np.eye(2, dtype=bool), 4, axis=1)
    p = []
    for simulation in range(n_simulations):
        x = rng.standard_normal((16, 4))
        y = rng.standard_normal((16, 8)) + rng.standard_normal((16, 1))
        splits = kfold(16, 4, seed=simulation)
        operator = prediction_operator(x, splits)
        p.append(region_permutation(operator, y, regions, splits, permutations=permutations, seed=simulation)[0][0])
    return np.array(p)


def test_region_permutation_is_calibrated():
    p = null_p_values(200, 99)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_region_permutation_is_calibrated_in_many_simulations():
    p = null_p_values(2000, 199)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 < (p <= 0.05).mean() < 0.07
