"""Identification against loops over items, its test against refitting, and patterns against Haufe's formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from bidsdnn.methods.identification import Identified, identification_permutation, identify
from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.pattern_maps import patterns
from bidsdnn.methods.predict import kfold, prediction_operator

N, V = 20, 30


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 6))
    y = x @ rng.standard_normal((6, V)) + 2 * rng.standard_normal((N, V)) + 5 * rng.standard_normal(V)
    return x, y, kfold(N, 5, seed=0)


def slow(prediction, y, splits, ids=None):
    """One item after the other."""
    ids = np.arange(len(y)) if ids is None else ids
    mean = np.empty_like(y)
    for train, test in splits:
        mean[test] = y[train].mean(axis=0)
    guess, true = (prediction - mean) / y.std(axis=0), (y - mean) / y.std(axis=0)
    top, rank = [], []
    for _, test in splits:
        for i in test:
            own = pearsonr(true[i], guess[i]).statistic
            rest = [pearsonr(true[i], guess[j]).statistic for j in test if ids[j] != ids[i]]
            top.append(all(own > r for r in rest))
            rank.append(np.mean([own > r for r in rest]))
    return np.mean(top), np.mean(rank)


@pytest.mark.parametrize("ids", [None, np.arange(N) // 2])
def test_identification_is_a_loop_over_items(planted, ids):
    x, y, splits = planted
    prediction = prediction_operator(x, splits) @ y
    np.testing.assert_allclose(identify(prediction, y, splits, ids=ids)[:2], slow(prediction, y, splits, ids))


def test_the_test_predicts_anew(planted):
    x, y, splits = planted
    h = prediction_operator(x, splits)
    orders = np.array([np.random.default_rng(k).permutation(N) for k in range(30)])
    p = identification_permutation(h, y, splits, orders)
    scores = np.array([slow(h @ y[order], y[order], splits) for order in [np.arange(N), *orders]])
    np.testing.assert_allclose(p, pvalue(scores[0], scores[1:]))
    assert p[1] < 0.1


def test_noise_is_at_chance():
    rng, splits = np.random.default_rng(1), kfold(12, 4, seed=0)
    h = [prediction_operator(rng.standard_normal((12, 5)), splits) for _ in range(100)]
    found = [identify(one @ y, y, splits) for one, y in zip(h, rng.standard_normal((100, 12, 20)), strict=True)]
    assert np.mean([one.rank for one in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.top1 for one in found]) == pytest.approx(1 / 3, abs=0.05)
    assert found[0].chance == pytest.approx(1 / 3)


def test_ties_share_the_credit_and_empty_regions_are_unknown():
    splits = kfold(6, 3, seed=0)
    y = np.random.default_rng(0).standard_normal((6, 5))
    same = np.vstack([y[train].mean(axis=0) for train, _ in splits for _ in range(2)])[
        np.argsort(np.concatenate([t for _, t in splits]))
    ]
    assert identify(same, y, splits) == pytest.approx((1 / 2, 0.5, 1 / 2))
    assert np.isnan(identify(y * np.nan, y, splits)).all()
    assert np.isnan(identification_permutation(np.full((6, 6), 1 / 6), y * np.nan, splits, [np.arange(6)])).all()
    with pytest.raises(ValueError, match="expected two tables"):
        identify(y, y[1:], splits)
    assert isinstance(identify(y, y, splits), Identified)


def test_only_what_is_held_out_is_identified(planted):
    x, y, _ = planted
    splits = [(np.arange(12), np.arange(12, N))]
    prediction = np.full_like(y, np.nan)
    weights = np.linalg.lstsq(x[:12], y[:12] - y[:12].mean(axis=0), rcond=None)[0]
    prediction[12:] = x[12:] @ weights + y[:12].mean(axis=0)
    assert identify(prediction, y, splits).rank > 0.7


def test_patterns_are_haufes(planted):
    x, y, _ = planted
    weights = np.linalg.lstsq(y - y.mean(axis=0), x[:, :3] - x[:, :3].mean(axis=0), rcond=None)[0]
    decisions = (y - y.mean(axis=0)) @ weights
    formula = np.cov(y.T) @ weights @ np.linalg.inv(np.cov(decisions.T))
    np.testing.assert_allclose(patterns(y, decisions), formula.T, atol=1e-8)


def test_a_pattern_is_not_misled_by_noise_as_weights_are():
    rng = np.random.default_rng(0)
    label, noise = rng.choice([-1.0, 1.0], 2000), rng.standard_normal(2000)
    x = np.stack([label + noise, noise], axis=1)
    weights = np.linalg.lstsq(x, label, rcond=None)[0]
    assert abs(weights[1]) > 0.9
    found = patterns(x, np.stack([-(x @ weights), x @ weights], axis=1))
    assert found[1, 0] > 0.4
    assert abs(found[1, 1]) < 0.05
