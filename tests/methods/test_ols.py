"""Least squares against numpy and scikit-learn, with and without components."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from bidsdnn.methods.models import OLS
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.reduce import gram, rotation

RNG = np.random.default_rng(0)


def planted(n=40, p=6, v=5):
    x = RNG.standard_normal((n, p)) * RNG.uniform(0.5, 3, p) + 50
    return x, x @ RNG.standard_normal((p, v)) + RNG.standard_normal((n, v)) - 20


@pytest.mark.parametrize("p", [1, 6, 39, 40, 200])
def test_it_is_the_least_squares_solution_of_least_norm(p):
    x, y = planted(p=p)
    model = OLS().fit(x, y)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.coef_, theirs.coef_.T, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, rtol=1e-6)
    np.testing.assert_allclose(model.predict(x + 1), theirs.predict(x + 1), rtol=1e-8)
    assert model.rank_ == min(p, 39)


def test_the_exact_rotation_of_a_wide_layer_predicts_as_its_units_do():
    x, y = planted(p=500)
    splits = kfold(40, 5, seed=0)
    expected = cross_predict(OLS(), x, y, splits)
    np.testing.assert_allclose(cross_predict(OLS(), rotation(gram(x)[0]), y, splits), expected, rtol=1e-6)


@pytest.mark.parametrize(("n", "p"), [(40, 6), (40, 120), (60, 30)])
@pytest.mark.parametrize("n_components", [1, 4])
def test_components_are_those_of_scikit_learns_pca(n, p, n_components):
    x, y = planted(n, p)
    theirs = make_pipeline(PCA(n_components, svd_solver="full"), LinearRegression()).fit(x, y)
    ours = OLS(n_components).fit(x, y)
    np.testing.assert_allclose(ours.predict(x + 1), theirs.predict(x + 1), rtol=1e-8)
    assert ours.rank_ == n_components
    assert f"the {n_components} largest principal components" in ours.said()


def test_more_components_than_there_are_is_all_of_them():
    x, y = planted()
    np.testing.assert_allclose(OLS(100).fit(x, y).predict(x), OLS().fit(x, y).predict(x))


@pytest.mark.parametrize("p", [6, 80])
@pytest.mark.parametrize("n_components", [None, 5])
def test_the_operator_gives_the_predictions_of_refitting(p, n_components):
    x, y = planted(p=p)
    splits, model = kfold(40, 5, seed=1), OLS(n_components)
    operator = model.operator(x, splits)
    np.testing.assert_allclose(operator.sum(axis=1), 1)
    np.testing.assert_allclose(operator @ y, cross_predict(model, x, y, splits), rtol=1e-7)
    with pytest.raises(ValueError, match="every item held out once"):
        model.operator(x, splits[1:])
    with pytest.raises(ValueError, match="every item held out once"):
        model.operator(x, [*splits, splits[0]])


def test_float32_targets_are_predicted_alike():
    x, y = planted(p=30)
    single = OLS().fit(x, y.astype(np.float32))
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.predict(x), OLS().fit(x, y).predict(x), rtol=1e-4)


def test_r2_is_what_the_planting_allows():
    x, noise = RNG.standard_normal((4000, 3)), RNG.standard_normal((4000, 1))
    y = x @ np.array([[1.0], [2.0], [0.0]]) + noise
    predicted = cross_predict(OLS(), x, y, kfold(4000, 10, seed=0))
    r2 = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    # Variance 5 of 6 is explained; the share's Monte-Carlo error at 4,000 items is about .005.
    assert r2 == pytest.approx(5 / 6, abs=0.015)


def test_columns_that_say_nothing_and_targets_that_are_not_finite():
    x, y = planted()
    y[:, 1], y[3, 2] = 7.0, np.nan
    predicted = OLS().fit(x, y).predict(x)
    np.testing.assert_allclose(predicted[:, 1], 7)
    assert np.isnan(predicted[:, 2]).all() and np.isfinite(predicted[:, [0, 1, 3, 4]]).all()
    for nothing in (np.empty((40, 0)), np.full((40, 3), 0.1)):
        np.testing.assert_allclose(OLS().fit(nothing, y[:, :2]).predict(nothing)[0], y[:, :2].mean(axis=0))


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (OLS(), np.zeros((5, 2)), np.zeros((4, 2)), r"got \(5, 2\) and \(4, 2\)"),
        (OLS(), np.full((5, 2), np.inf), np.zeros((5, 2)), "X: expected finite"),
        (OLS(0), np.zeros((5, 2)), np.zeros((5, 2)), "n_components: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_named(model, x, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(x, y)


def test_predict_wants_the_columns_of_fit():
    x, y = planted()
    with pytest.raises(ValueError, match=r"X: expected shape \(m, 6\), got \(40, 5\)"):
        OLS().fit(x, y).predict(x[:, :5])
