from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from bidsdnn.methods import products
from bidsdnn.methods.models import MODELS, OLS, Ridge
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.reduce import gram, rotation

SMALLEST = {
    "banded-ridge": {"penalties": [0.1, 10.0], "n_splits": 2, "columns": [2, 4], "n_candidates": 4},
    "ridge": {"penalties": [0.1, 10.0], "n_splits": 2},
    "lasso": {"n_splits": 2},
    "elastic-net": {"n_splits": 2},
    "pls": {"n_splits": 2},
    "kernel-ridge": {"penalties": [0.1, 10.0], "n_splits": 2},
}


def tables(n=40, p=6, v=5, *, noise=1.0, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) * rng.uniform(0.5, 3, p) + 5
    y = x @ rng.standard_normal((p, v)) + noise * rng.standard_normal((n, v)) * np.arange(1, v + 1) - 20
    return x, y.astype(dtype)


def by_grid_search(x, y, grid, *, n_splits, seed):
    """scikit-learn's exhaustive search, one target at a time, over the same inner folds."""
    fold_of = np.empty(len(x), dtype=int)
    for number, (_, test) in enumerate(kfold(len(x), n_splits, seed=seed)):
        fold_of[test] = number
    return [
        GridSearchCV(
            sklearn.linear_model.Ridge(solver="svd"),
            {"alpha": grid},
            scoring="neg_mean_squared_error",
            cv=PredefinedSplit(fold_of),
        ).fit(x, target)
        for target in y.T
    ]


@pytest.mark.parametrize("name", MODELS)
def test_models_fit_and_predict_and_can_be_cloned(name):
    x, y = tables()
    model = MODELS[name](**SMALLEST.get(name, {}))
    first = model.fit(x, y).predict(x[:3])
    assert first.shape == (3, 5)
    np.testing.assert_array_equal(clone(model).fit(x, y).predict(x[:3]), first)


@pytest.mark.parametrize("p", [1, 6, 60])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e4])
def test_one_absolute_penalty_is_scikit_learns_ridge(p, penalty):
    x, y = tables(p=p)
    ours = Ridge([penalty], relative=False).fit(x, y)
    theirs = sklearn.linear_model.Ridge(alpha=penalty, solver="svd").fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_.T, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(ours.predict(x + 1), theirs.predict(x + 1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("p", [6, 60])
def test_penalties_are_chosen_as_by_scikit_learns_grid_search(p):
    x, y = tables(p=p, v=8, noise=3.0)
    grid = np.logspace(-3, 4, 15)
    ours = Ridge(grid, n_splits=5, seed=7, relative=False).fit(x, y)
    theirs = by_grid_search(x, y, grid, n_splits=5, seed=7)
    np.testing.assert_allclose(ours.penalty_, [one.best_params_["alpha"] for one in theirs])
    assert len(set(ours.penalty_)) > 2
    expected = np.column_stack([one.predict(x) for one in theirs])
    np.testing.assert_allclose(ours.predict(x), expected, rtol=1e-5)


@pytest.mark.parametrize("p", [12, 90])
def test_ridge_is_himalayas(p):
    ridge, kernel_ridge = (pytest.importorskip(f"himalaya.{name}") for name in ("ridge", "kernel_ridge"))
    x, y = tables(n=80, p=p, v=30, noise=4.0)
    # himalaya centres all rows once, also those that a fold holds out.
    x, y, grid = x - x.mean(axis=0), y - y.mean(axis=0), np.logspace(-2, 4, 7)
    folds = kfold(80, 4, seed=3)
    theirs = (
        kernel_ridge.KernelRidgeCV(alphas=grid, cv=folds, kernel="linear", warn=False)
        if p > 80
        else ridge.RidgeCV(alphas=grid, cv=folds, solver_params={"warn": False})
    ).fit(x, y)
    ours = Ridge(grid, n_splits=4, seed=3, relative=False).fit(x, y)
    same = np.isclose(ours.penalty_, np.asarray(theirs.best_alphas_))
    assert same.mean() > 0.9
    new = np.random.default_rng(1).standard_normal((50, p))
    np.testing.assert_allclose(ours.predict(new)[:, same], theirs.predict(new)[:, same], atol=1e-8)
    assert len(set(ours.penalty_)) > 2


@pytest.mark.parametrize("shape", [(60, 20), (30, 70)], ids=["tall", "wide"])
def test_inner_products_decompose_as_the_table_itself(shape, monkeypatch):
    x, y = tables(n=shape[0], p=shape[1], v=12)
    direct = Ridge().fit(x, y)
    monkeypatch.setattr("bidsdnn.methods.held_out._SMALL", 0)
    through = Ridge().fit(x, y)
    np.testing.assert_array_equal(through.penalty_, direct.penalty_)
    np.testing.assert_allclose(through.predict(x), direct.predict(x), rtol=1e-7)
    assert np.isfinite(Ridge().fit(np.ones((30, 40)), y[:30]).predict(np.ones((2, 40)))).all()


@pytest.mark.parametrize("kept", [0, 10**9], ids=["made anew", "kept"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_held_out_predictions_need_no_weights(kept, dtype, monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.models.ridge._KEPT", kept)
    monkeypatch.setattr("bidsdnn.methods.models.ridge._TARGETS", 4)
    x, y = tables(n=50, p=9, v=11, dtype=dtype)
    y[3, 2] = np.nan
    predict = Ridge().held_out(x[:40], x[40:])
    parts = np.hstack([predict(y[:40, :6]), predict(y[:40, 6:])])
    expected = Ridge().fit(x[:40], y[:40]).predict(x[40:])
    np.testing.assert_allclose(parts, expected, rtol=1e-4 if dtype == np.float32 else 1e-10)
    assert parts.dtype == dtype
    assert np.isnan(parts[:, 2]).all()


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_least_squares_predict_without_weights_too(most, dtype):
    x, y = tables(n=50, p=20, v=7, dtype=dtype)
    y[3, 2] = np.nan
    parts = OLS(most).held_out(x[:40], x[40:])(y[:40])
    expected = OLS(most).fit(x[:40], y[:40]).predict(x[40:])
    np.testing.assert_allclose(parts, expected, rtol=1e-4 if dtype == np.float32 else 1e-9)
    assert parts.dtype == dtype


def test_in_bfloat16_nearly_all_choose_the_same_and_the_fit_is_exact(monkeypatch):
    x, y = tables(n=400, p=300, v=200, noise=20.0, dtype=np.float32)
    grid = np.logspace(-3, 3, 13)
    monkeypatch.setattr(products, "_has_tiles", lambda: False)
    exact = Ridge(grid).fit(x, y)
    monkeypatch.setattr(products, "_has_tiles", lambda: True)
    rounded = Ridge(grid).fit(x, y)
    same = rounded.penalty_ == exact.penalty_
    assert same.mean() > 0.95
    # The others took a neighbour, as good to within the rounding.
    assert np.abs(np.log10(rounded.penalty_ / exact.penalty_)).max() < 0.51
    np.testing.assert_array_equal(rounded.coef_[:, same], exact.coef_[:, same])
    assert len(set(exact.penalty_)) > 2


def test_every_penalty_is_tried_so_that_the_best_of_several_peaks_is_found():
    rng = np.random.default_rng(0)
    strong, weak = rng.standard_normal((120, 2)) * 100, rng.standard_normal((120, 40)) * 0.1
    x = np.hstack([strong, weak])
    y = (
        strong @ rng.standard_normal((2, 20)) / 100
        + weak @ rng.standard_normal((40, 20))
        + rng.standard_normal((120, 20))
    )
    grid = np.logspace(-4, 6, 21)
    wrong = np.zeros((21, 20))
    for train, test in kfold(120, 4, seed=1):
        for row, penalty in zip(wrong, grid, strict=True):
            fitted = sklearn.linear_model.Ridge(alpha=penalty, solver="cholesky").fit(x[train], y[train])
            row += ((fitted.predict(x[test]) - y[test]) ** 2).sum(axis=0)
    turns = (np.diff(np.sign(np.diff(wrong, axis=0)), axis=0) > 0).sum(axis=0)
    assert turns.max() > 1
    ours = Ridge(grid, n_splits=4, seed=1, relative=False).fit(x, y)
    np.testing.assert_allclose(ours.penalty_, grid[wrong.argmin(axis=0)])


def test_a_penalty_lost_in_rounding_is_not_chosen():
    x, y = tables(n=20, p=60)
    model = Ridge([1e-30, 1.0]).fit(x, y)
    assert (model.penalty_ == 1).all()


def test_float32_targets_choose_the_same_penalties():
    x, y = tables(n=60, p=30, v=40, noise=2.0, dtype=np.float32)
    single, double = Ridge().fit(x, y), Ridge().fit(x, y.astype(np.float64))
    assert single.coef_.dtype == np.float32
    np.testing.assert_array_equal(single.penalty_, double.penalty_)
    np.testing.assert_allclose(single.predict(x), double.predict(x), rtol=1e-4, atol=1e-4)


def test_relative_penalties_follow_the_scale_and_the_rotation_of_x():
    x, y = tables(n=30, p=80)
    z = rotation(gram(x)[0])
    assert z.shape == (30, 30)
    plain = Ridge().fit(x, y)
    for other in (Ridge().fit(x * 1e3, y).predict(x * 1e3), Ridge().fit(z, y).predict(z)):
        np.testing.assert_allclose(other, plain.predict(x), rtol=1e-6)
    centred = x - x.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T)[1:]
    absolute = Ridge([0.5 * eigenvalues.mean()], relative=False).fit(x, y)
    np.testing.assert_allclose(absolute.coef_, Ridge([0.5]).fit(x, y).coef_, rtol=1e-8)


def test_whole_numbers_are_targets_too():
    x, y = tables()
    np.testing.assert_array_equal(Ridge().fit(x, y.astype(int)).coef_, Ridge().fit(x, y.astype(int) * 1.0).coef_)


def test_the_penalty_follows_the_signal():
    x, y = tables(n=60, p=20, v=1, noise=0.01)
    noise = np.random.default_rng(5).standard_normal((60, 30))
    model = Ridge().fit(x, np.column_stack([y, noise]))
    assert model.penalty_[0] < 1e-1
    assert np.median(model.penalty_[1:]) > 10


def test_targets_that_are_not_finite_or_constant_spare_the_others():
    x, y = tables()
    whole = Ridge().fit(x, y).predict(x)
    broken = np.column_stack([y, np.full(len(y), 3.25), y[:, 0], y[:, 0]])
    broken[4, 6], broken[5, 7] = np.nan, np.inf
    model = Ridge().fit(x, broken)
    predicted = model.predict(x)
    np.testing.assert_allclose(predicted[:, :5], whole)
    np.testing.assert_allclose(predicted[:, 5], 3.25)
    assert np.isnan(predicted[:, 6:]).all()
    assert np.isnan(model.penalty_[6:]).all()
    assert np.isnan(model.coef_[:, 6:]).all()


@pytest.mark.parametrize("x", [np.empty((12, 0)), np.full((12, 3), 0.1)], ids=["no column", "constant"])
def test_features_that_say_nothing_predict_the_mean(x):
    y = np.random.default_rng(0).standard_normal((12, 4))
    np.testing.assert_allclose(Ridge().fit(x, y).predict(x), np.broadcast_to(y.mean(axis=0), y.shape))


def test_blocks_of_targets_do_not_change_the_fit(monkeypatch):
    x, y = tables(v=23)
    whole = Ridge().fit(x, y)
    monkeypatch.setattr("bidsdnn.methods.models.ridge._TARGETS", 4)
    parts = Ridge().fit(x, y)
    np.testing.assert_array_equal(parts.penalty_, whole.penalty_)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (Ridge(), np.zeros((5, 2)), np.zeros((4, 2)), r"got \(5, 2\) and \(4, 2\)"),
        (Ridge(), np.zeros((1, 2)), np.zeros((1, 2)), "expected at least 2 rows, got 1"),
        (Ridge(), np.full((5, 2), np.nan), np.zeros((5, 2)), "X: expected finite"),
        (Ridge([1.0, 0.0]), np.zeros((5, 2)), np.zeros((5, 2)), "penalties: expected positive"),
        (Ridge([]), np.zeros((5, 2)), np.zeros((5, 2)), "penalties: expected positive"),
        (Ridge(n_splits=5), np.zeros((4, 2)), np.zeros((4, 2)), r"as many items as folds \(5\), got 4"),
    ],
)
def test_bad_input_is_named(model, x, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(x, y)


def test_predict_wants_the_columns_of_fit():
    x, y = tables()
    with pytest.raises(ValueError, match=r"X: expected shape \(m, 6\), got \(40, 5\)"):
        Ridge([1.0]).fit(x, y).predict(x[:, :5])
