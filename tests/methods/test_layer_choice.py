"""Choice among predictions: moments, bootstrap, depth and hierarchy against formulas written out and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bidsdnn.methods import layer_choice
from bidsdnn.methods.predict import kfold, prediction_operator
from bidsdnn.methods.scores import pooled_pearsonr


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    y = rng.normal(2, 3, size=(30, 4))
    splits = kfold(30, 5, seed=0)
    return [prediction_operator(rng.normal(size=(30, 8)), splits) @ y for _ in range(3)], y, splits


def test_counting_each_item_once_is_the_pooled_correlation(predictions):
    several, y, splits = predictions
    p, m = layer_choice.on_one_scale(several[0], y, splits)
    found = layer_choice.weighted_pearsonr(np.ones((1, 30), dtype=np.float32), p, m)[0]
    np.testing.assert_allclose(found, pooled_pearsonr(several[0], y, splits), atol=1e-5)


def test_a_sample_is_the_correlation_of_its_items(predictions):
    several, y, splits = predictions
    p, m = layer_choice.on_one_scale(several[0], y, splits)
    weights = layer_choice.resamplings(np.arange(30), samples=3, seed=1)
    assert (weights.sum(axis=1) == 30).all()
    found = layer_choice.weighted_pearsonr(weights, p, m)
    for row, counts in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(30), counts.astype(int))
        np.testing.assert_allclose(row, [np.corrcoef(p[rows, v], m[rows, v])[0, 1] for v in range(4)], atol=1e-5)


def test_items_of_one_stimulus_are_drawn_together():
    weights = layer_choice.resamplings(["a", "b", "a", "c"], samples=20, seed=0)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_a_single_split_scores_its_test_items_alone(predictions):
    several, y, splits = predictions
    part = several[0].copy()
    part[splits[0][0]] = np.nan
    p, m = layer_choice.on_one_scale(part, y, splits[:1])
    assert len(p) == len(splits[0][1])
    found = layer_choice.weighted_pearsonr(np.ones((1, len(p)), dtype=np.float32), p, m)[0]
    test = splits[0][1]
    np.testing.assert_allclose(found, [np.corrcoef(part[test, v], y[test, v])[0, 1] for v in range(4)], atol=1e-5)


def test_a_choice_by_fold_is_the_correlation_of_the_predictions_put_together(predictions):
    several, y, splits = predictions
    choice = np.random.default_rng(3).integers(3, size=(5, 4))
    together = np.empty_like(y)
    for fold, (_, test) in enumerate(splits):
        for v in range(4):
            together[test, v] = several[choice[fold, v]][test, v]
    parts = [test for _, test in splits]
    sums = np.array([layer_choice.moments(*layer_choice.on_one_scale(one, y, splits), parts) for one in several])
    found = layer_choice.chosen_pearsonr(sums, choice)
    np.testing.assert_allclose(found, pooled_pearsonr(together, y, splits), atol=1e-5)


def test_merged_folds_are_trained_on_what_all_of_them_are():
    joined = layer_choice.merged(kfold(23, 23, seed=0), most=10)
    assert len(joined) == 10
    assert sorted(np.concatenate([test for _, test in joined])) == list(range(23))
    assert all(sorted([*train, *test]) == list(range(23)) for train, test in joined)
    few = kfold(23, 5, seed=0)
    for (train, test), (other_train, other_test) in zip(layer_choice.merged(few), few, strict=True):
        assert (train == other_train).all()
        assert (test == other_test).all()


def test_depth_is_the_mean_place_of_the_best_layer():
    assert layer_choice.preferred_depth([2, 0, 1]) == pytest.approx((0 + 0 + 1) / 3)
    assert np.isnan(layer_choice.preferred_depth([[0, 0, 0]])).all()
    assert np.isnan(layer_choice.preferred_depth([3]))


def test_the_hierarchy_score_is_spearmans_over_voxels():
    rng = np.random.default_rng(4)
    level = rng.integers(4, size=200)
    layer = np.clip(level + rng.integers(-1, 3, size=200), 0, 4)
    counts = np.zeros((4, 5))
    np.add.at(counts, (level, layer), 1)
    assert layer_choice.hierarchy_score(counts) == pytest.approx(spearmanr(level, layer).statistic)
    assert layer_choice.hierarchy_score(np.eye(4) * 7) == pytest.approx(1)
    assert np.isnan(layer_choice.hierarchy_score(np.ones((1, 5))))


def test_a_profile_that_rises_with_depth():
    assert layer_choice.profile_rank([0.1, 0.2, np.nan, 0.4]) == pytest.approx(1)
    assert np.isnan(layer_choice.profile_rank([0.1, 0.2]))


def test_a_difference_is_judged_by_the_corrected_bootstrap_variance():
    resampled = np.random.default_rng(0).normal(0.3, 0.1, size=4000)
    factor = layer_choice.training_factor(kfold(50, 10, seed=0))
    assert factor == pytest.approx(1 + 50 / 45)
    found = layer_choice.difference_test(0.3, resampled, factor=factor, dof=49)
    assert found.se == pytest.approx(0.1 * np.sqrt(factor), rel=0.05)
    assert 0.03 < found.p < 0.06
    assert np.isnan(layer_choice.difference_test(0.0, np.zeros(9), factor=factor, dof=8).p)
