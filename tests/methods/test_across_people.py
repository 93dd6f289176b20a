"""Models of others, judged by one person: against plain loops, and their test against a refit for each relabelling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression

from bidsdnn.methods.across_people import alpha, crossed_null, crossed_pearsonr, means_of_others, reliability_of_mean
from bidsdnn.methods.crossed_rsa import crossed_weighted
from bidsdnn.methods.folds import block_orders
from bidsdnn.methods.inference import pvalue, sign_flip
from bidsdnn.methods.models import OLS, Ridge
from bidsdnn.methods.models.estimator import Estimator
from bidsdnn.methods.predict import cross_predict, kfold


def score_by_hand(predicted, targets, measured, splits):
    """Each side less its own training part's mean, each fold's predictions over their root mean square."""
    a, b = np.zeros(len(measured)), np.zeros(len(measured))
    for train, test in splits:
        guess = predicted[test] - targets[train].mean()
        a[test], b[test] = guess / np.sqrt((guess**2).mean()), measured[test] - measured[train].mean()
    return np.corrcoef(a, b)[0, 1]


def test_scores_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    predicted, targets, measured = rng.standard_normal((3, 20, 2)) + 5
    splits = kfold(20, 4, seed=0)
    found = crossed_pearsonr(predicted, targets, measured, splits)
    expected = [score_by_hand(predicted[:, v], targets[:, v], measured[:, v], splits) for v in range(2)]
    assert found == pytest.approx(expected)
    train, test = splits[0]
    single = crossed_pearsonr(predicted, targets, measured, [(train, test)])
    assert single[0] == pytest.approx(np.corrcoef(predicted[test, 0], measured[test, 0])[0, 1])
    scale = np.ones_like(predicted)
    a, b = predicted[:, 0].copy(), measured[:, 0].copy()
    for train, test in splits:
        a[test] -= targets[train, 0].mean()
        b[test] -= measured[train, 0].mean()
    scaled = crossed_pearsonr(predicted, targets, measured, splits, scale=scale)
    assert scaled[0] == pytest.approx(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("n", [20, 70])
def test_the_null_repeats_the_fit(n):
    rng = np.random.default_rng(1)
    x, tables = rng.standard_normal((n, 3)), rng.standard_normal((3, n, 4))
    tables[0, 0, 3] = np.nan
    splits, orders = kfold(n, 5, seed=0), np.array([rng.permutation(n) for _ in range(4)])
    regions = np.array([[True, True, False, True], [False, False, True, False], [False, False, False, True]])
    found = crossed_null(OLS(), x, tables, splits, orders, regions)
    others = means_of_others(tables)
    expected = np.zeros((5, 3))
    # Labels that move are stimuli's: item i of the responses meets the features of item order[i].
    for row, order in enumerate([np.arange(n), *orders]):
        moved, held = x[order], [(np.argsort(order)[train], np.argsort(order)[test]) for train, test in splits]
        for person in range(3):
            for column in range(3):
                target, predicted = others[person, :, column], np.zeros(n)
                for train, test in held:
                    predicted[test] = LinearRegression().fit(moved[train], target[train]).predict(moved[test])
                expected[row, column] += score_by_hand(predicted, target, tables[person, :, column], held) / 3
    assert found[:, 0] == pytest.approx(expected[:, :2].mean(axis=1), abs=1e-5)
    assert found[:, 1] == pytest.approx(expected[:, 2], abs=1e-5)
    assert np.isnan(found[:, 2]).all()
    refitted = crossed_null(Estimator(LinearRegression()), x, tables, splits, orders, regions)
    assert refitted[:, :2] == pytest.approx(found[:, :2], abs=1e-5)


def test_the_null_of_one_split_relabels_what_is_held_out():
    rng = np.random.default_rng(2)
    x, tables = rng.standard_normal((20, 3)), rng.standard_normal((3, 20, 1))
    split = (np.arange(12), np.arange(12, 20))
    order = np.arange(20)
    order[12:] = rng.permutation(np.arange(12, 20))
    found = crossed_null(OLS(), x, tables, [split], order[None], np.array([[True]]))[:, 0]
    others = means_of_others(tables)
    each = []
    for person in range(3):
        fit = LinearRegression().fit(x[:12], others[person, :12, 0])
        given, own = fit.predict(x[12:]), tables[person, :, 0]
        each.append([np.corrcoef(given, own[12:])[0, 1], np.corrcoef(given, own[order[12:]])[0, 1]])
    assert found == pytest.approx(np.mean(each, axis=0))


def test_one_persons_data_are_not_in_the_mean_of_the_others():
    tables = np.random.default_rng(0).standard_normal((4, 5, 3))
    expected = [np.delete(tables, one, axis=0).mean(axis=0) for one in range(4)]
    assert np.allclose(means_of_others(tables), expected)


def test_reliability_of_a_mean_is_what_another_sample_of_noise_agrees_in():
    rng = np.random.default_rng(3)
    people, n = 5, 20_000
    signal = rng.standard_normal((people, n)) * 0.5 + rng.standard_normal(n)
    noise = np.linspace(0.5, 2, people)[:, None]
    first, second = (signal + noise * rng.standard_normal((people, n)) for _ in range(2))
    found = reliability_of_mean((noise**2).sum(axis=0), first.mean(axis=0).var()[None], people)[0]
    assert found == pytest.approx(np.corrcoef(first.mean(axis=0), second.mean(axis=0))[0, 1], abs=0.02)


def test_alpha_is_spearman_and_browns_formula_for_people_who_are_alike():
    rng = np.random.default_rng(4)
    values = rng.standard_normal(50_000) + rng.standard_normal((4, 50_000))
    r = np.corrcoef(values)[np.triu_indices(4, 1)].mean()
    found = alpha(values.var(axis=1).sum()[None], values.mean(axis=0).var()[None], 4)
    assert found[0] == pytest.approx(4 * r / (1 + 3 * r), abs=0.005)
    assert np.isnan(alpha([0.0], [0.0], 3))[0]


def test_weights_of_others_are_judged_by_one():
    rng = np.random.default_rng(5)
    n, first, second = 18, *np.triu_indices(18, 1)
    models = np.array([pdist(rng.standard_normal((n, 3))) for _ in range(3)])
    people = np.array([models.T @ [1.0, 0.5, 0.0] + 0.3 * rng.standard_normal(len(first)) for _ in range(3)])
    folds = kfold(n, 3, seed=0)
    found, null = crossed_weighted(models, people, folds=folds, permutations=5, seed=0)
    for person in range(3):
        others, each = np.delete(people, person, axis=0).mean(axis=0), []
        for train, test in folds:
            known, held = (np.isin(first, part) & np.isin(second, part) for part in (train, test))
            a = models[:, known] - models[:, known].mean(axis=1, keepdims=True)
            weights = nnls(a.T, others[known] - others[known].mean())[0]
            each.append(spearmanr(weights @ models[:, held], people[person, held]).statistic)
        assert found[person] == pytest.approx(np.tanh(np.arctanh(each).mean()))
    assert null.shape == (5, 3) and (null.mean(axis=1) < found.mean()).all()


def null_rates(simulations, *, shared):
    """How often no relation is found below .05: by relabelled stimuli, and by flipped signs of people's scores."""
    rng = np.random.default_rng(0)
    people, n, hits = 8, 40, np.zeros(2)
    splits = kfold(n, 5, seed=0)
    for one in range(simulations):
        x = rng.standard_normal((n, 6))
        tables = shared * rng.standard_normal((n, 5)) + rng.standard_normal((people, n, 5))
        orders, _ = block_orders(np.zeros(n, dtype=int), None, permutations=99, seed=one)
        found = crossed_null(Ridge(), x, tables, splits, orders, np.ones((1, 5), dtype=bool))
        others = means_of_others(tables)
        scores = [
            crossed_pearsonr(cross_predict(OLS(), x, target, splits), target, own, splits).mean()
            for target, own in zip(others, tables, strict=True)
        ]
        flipped = sign_flip(np.array(scores)[:, None])[1]
        hits += [pvalue(found[0], found[1:])[0] <= 0.05, flipped[0] <= 0.05]
    return hits / simulations


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "flips"), [(0.0, (0.08, 0.2)), (1.0, (0.3, 0.5))])
def test_relabelling_keeps_its_rate_and_flipping_signs_would_not(shared, flips):
    relabelled, flipped = null_rates(1000, shared=shared)
    assert 0.03 <= relabelled <= 0.07
    # Why no p of the people's scores is given: they depend on each other, all the more where people are alike.
    assert flips[0] <= flipped <= flips[1]
