"""Partial least squares against scikit-learn's PLSRegression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from bidsdnn.methods.models import OLS, PLS
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.reduce import gram, rotation


def planted(n=40, p=12, v=6, *, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) * rng.uniform(0.5, 3, p) + 5
    y = x @ rng.standard_normal((p, v)) + noise * rng.standard_normal((n, v)) * np.arange(1, v + 1) - 20
    return x, y


@pytest.mark.parametrize(("p", "v"), [(12, 6), (12, 1), (6, 30), (90, 6), (90, 70)])
@pytest.mark.parametrize("n_components", [1, 2, 5])
@pytest.mark.parametrize("scale", [False, True])
def test_it_is_scikit_learns(p, v, n_components, scale):
    x, y = planted(p=p, v=v)
    theirs = PLSRegression(n_components, scale=scale, tol=1e-24, max_iter=20_000).fit(x, y)
    ours = PLS(n_components, scale_x=scale, scale_y=scale).fit(x, y)
    np.testing.assert_allclose(ours.predict(x + 1), theirs.predict(x + 1).reshape(len(x), v), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.coef_, theirs.coef_.T, rtol=1e-4, atol=1e-5)


def test_many_rows_take_the_search_for_one_vector(monkeypatch):
    x, y = planted(n=60, p=50, v=70)
    whole = PLS(4).fit(x, y).coef_
    monkeypatch.setattr("bidsdnn.methods.models.pls._SMALL", 10)
    np.testing.assert_allclose(PLS(4).fit(x, y).coef_, whole, atol=1e-8)


def test_scaled_targets_alone_are_those_of_scaled_y():
    x, y = planted()
    spread = y.std(axis=0, ddof=1)
    theirs = PLSRegression(3, scale=False, tol=1e-24, max_iter=20_000).fit(x, y / spread)
    np.testing.assert_allclose(PLS(3).fit(x, y).predict(x), theirs.predict(x) * spread, rtol=1e-6)


def test_all_components_are_least_squares():
    x, y = planted(p=5)
    np.testing.assert_allclose(PLS(50).fit(x, y).predict(x + 1), OLS().fit(x, y).predict(x + 1), rtol=1e-6)


def test_the_exact_rotation_of_a_wide_layer_predicts_as_its_units_do():
    x, y = planted(p=500)
    splits = kfold(40, 5, seed=0)
    expected = cross_predict(PLS(), x, y, splits)
    np.testing.assert_allclose(cross_predict(PLS(), rotation(gram(x)[0]), y, splits), expected, rtol=1e-6)


@pytest.mark.parametrize("v", [1, 6, 60])
def test_the_number_of_components_is_that_of_least_held_out_error(v):
    x, y = planted(p=20, v=v, noise=8.0)
    ours = PLS(most=8, seed=3, scale_y=False).fit(x, y)
    errors = np.zeros(8)
    for train, test in kfold(40, 5, seed=3):
        for number in range(8):
            model = PLSRegression(number + 1, scale=False, tol=1e-24, max_iter=20_000).fit(x[train], y[train])
            errors[number] += ((y[test] - model.predict(x[test]).reshape(len(test), v)) ** 2).sum()
    assert (ours.n_components_ == errors.argmin() + 1).all()


def test_targets_are_fitted_together_by_their_number():
    x, y = planted()
    model = PLS(2, together=np.array([3, 3, 7, 7, 7, 0])).fit(x, y)
    for columns in ([0, 1], [2, 3, 4], [5]):
        np.testing.assert_allclose(model.coef_[:, columns], PLS(2).fit(x, y[:, columns]).coef_)
    some = model.among(np.array([1, 3, 4])).fit(x, y[:, [1, 3, 4]])
    np.testing.assert_allclose(some.coef_[:, 1:], PLS(2).fit(x, y[:, [3, 4]]).coef_)
    assert PLS(2).among(np.array([1])).together is None
    with pytest.raises(ValueError, match="together: expected a number for each of 6 targets"):
        PLS(2, together=np.array([1, 2])).fit(x, y)


def test_blocks_of_targets_do_not_change_the_fit(monkeypatch):
    x, y = planted(v=23)
    whole = PLS().fit(x, y)
    monkeypatch.setattr("bidsdnn.methods.models.pls.TARGETS", 4)
    parts = PLS().fit(x, y)
    np.testing.assert_array_equal(parts.n_components_, whole.n_components_)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-7)


def test_float32_targets_are_predicted_alike():
    x, y = planted(p=30, v=50)
    single = PLS(4).fit(x, y.astype(np.float32))
    assert single.coef_.dtype == np.float32
    np.testing.assert_allclose(single.predict(x), PLS(4).fit(x, y).predict(x), atol=1e-3)


def test_what_is_not_finite_or_constant_spares_the_others():
    x, y = planted()
    whole = PLS(3).fit(x, y).predict(x)
    broken = np.column_stack([y, np.full(len(y), 3.25), y[:, 0]])
    broken[4, 7] = np.nan
    model = PLS(3).fit(x, broken)
    np.testing.assert_allclose(model.predict(x)[:, :6], whole)
    np.testing.assert_allclose(model.predict(x)[:, 6], 3.25)
    assert np.isnan(model.predict(x)[:, 7]).all() and model.n_components_[7] == 0
    for nothing in (np.empty((40, 0)), np.full((40, 3), 0.1)):
        np.testing.assert_allclose(PLS().fit(nothing, y).predict(nothing)[0], y.mean(axis=0))
    np.testing.assert_allclose(PLS().fit(x, np.full((40, 2), 1.0)).predict(x), 1)


def test_a_fixed_model_keeps_what_was_given():
    assert PLS(scale_y=False).fixed().get_params() == PLS(5, scale_y=False).get_params()
    given = PLS(2)
    assert given.fixed() is given
    assert PLS().takes == "rotation" and PLS(scale_x=True).takes == "units"
    assert PLS().said() == "It took at most 20 components, with voxels scaled."


@pytest.mark.parametrize(
    ("model", "message"), [(PLS(0), "got 0"), (PLS(most=0), "got 0"), (PLS(n_splits=50), "got 40")]
)
def test_bad_parameters_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*planted())
