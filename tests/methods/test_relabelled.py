from __future__ import annotations

import numpy as np
import pytest

from bidsdnn.methods import products, relabelled
from bidsdnn.methods.predict import kfold, mean_operator, prediction_operator
from bidsdnn.methods.relabelled import TIES, relabelled_correlations
from bidsdnn.methods.scores import membership, pooled_correlation, pooled_pearsonr, standardise, trained_on


def case(n=30, p=5, v=7, *, dtype=np.float64, gap=0):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, p)), rng.standard_normal((n, v))
    y[:, : v // 2] += x @ rng.standard_normal((p, v // 2))
    splits = [(train[gap:], test) for train, test in kfold(n, 4, seed=0)]
    orders = np.array([np.arange(n), *(rng.permutation(n) for _ in range(10))])
    return prediction_operator(x, splits), standardise(y).astype(dtype), splits, orders


def scored(h, y, splits, orders):
    n = len(y)
    r = np.full((len(orders), y.shape[1]), np.nan)
    parts = relabelled_correlations(
        h - mean_operator(splits, n), y, orders, membership(splits, n), trained_on(splits, n)
    )
    for some, columns, part in parts:
        assert np.isnan(r[some, columns]).all()
        r[some, columns] = part
    return r


@pytest.mark.parametrize("gap", [0, 3], ids=["all the rest is trained on", "with a gap"])
@pytest.mark.parametrize("entries", [90, 1_000_000], ids=["in parts", "at once"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_r_of_each_relabelling_is_that_of_its_predictions(gap, entries, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(relabelled, "_ENTRIES", entries)
    monkeypatch.setattr(relabelled, "_ORDERS", 4)
    h, y, splits, orders = case(dtype=dtype, gap=gap)
    moved = [y[np.argsort(order)].astype(np.float64) for order in orders]
    # Folds are those of the items' places, so moving the rows of y moves the labels and not the folds.
    expected = np.array([pooled_pearsonr(h @ one, one, splits) for one in moved])
    np.testing.assert_allclose(scored(h, y, splits, orders), expected, atol=tolerance)
    assert expected[0, :3].min() > 0.5 > expected[1:].mean()


def test_moving_the_operator_is_moving_the_labels():
    h, y, splits, orders = case()
    less = h - mean_operator(splits, len(y))
    moved = np.stack([(less[np.ix_(order, order)]) @ y for order in orders])
    folds = np.stack([membership(splits, len(y))[:, order] for order in orders])
    np.testing.assert_allclose(scored(h, y, splits, orders), pooled_correlation(moved, y, folds), atol=1e-12)


def test_leaving_one_out_is_a_fold_for_each_item():
    _, y, _, orders = case(n=12)
    splits = [(np.delete(np.arange(12), i), np.array([i])) for i in range(12)]
    h = prediction_operator(np.random.default_rng(3).standard_normal((12, 3)), splits)
    expected = [pooled_pearsonr(h @ one, one, splits) for one in (y[np.argsort(order)] for order in orders)]
    np.testing.assert_allclose(scored(h, y, splits, orders), expected, atol=1e-12)


def test_what_does_not_vary_has_no_r():
    _, y, splits, orders = case(dtype=np.float32)
    nothing = prediction_operator(np.zeros((30, 2)), splits)
    assert np.isnan(scored(nothing, y, splits, orders)).all()


def test_in_bfloat16_a_relabelling_scores_what_it_scores_in_float32(monkeypatch):
    h, y, splits, orders = case(n=300, p=60, v=40, dtype=np.float32)
    monkeypatch.setattr(products, "_has_tiles", lambda: False)
    exact = scored(h, y, splits, orders)
    monkeypatch.setattr(products, "_has_tiles", lambda: True)
    rounded = scored(h, y, splits, orders)
    assert 0 < np.abs(rounded - exact).max() < 2e-3
    assert abs((rounded - exact).mean()) < 1e-4
    # Targets are rounded before they are moved: a relabelling that changes nothing gives the same.
    np.testing.assert_allclose(scored(h, y, splits, orders[[0, 0, 3]])[1], rounded[0], atol=TIES, rtol=0)
    double = y.astype(np.float64)
    np.testing.assert_allclose(scored(h, double, splits, orders), exact, atol=1e-5)
