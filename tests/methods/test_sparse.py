"""Lasso and elastic net against scikit-learn: at one penalty, along the path, and with components."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline

from bidsdnn.methods.models import ElasticNet, Lasso
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.reduce import gram, rotation


def planted(n=40, p=12, v=6, *, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) * rng.uniform(0.5, 3, p) + 5
    weights = rng.standard_normal((p, v)) * (rng.random((p, v)) < 0.3)
    return x, x @ weights + noise * rng.standard_normal((n, v)) - 20


def theirs(l1_ratio, alpha, n_components=None):
    model = sklearn.linear_model.ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000)
    return model if n_components is None else make_pipeline(PCA(n_components, svd_solver="full"), model)


@pytest.mark.parametrize("p", [1, 12, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_one_penalty_on_the_features_is_scikit_learns(p, alpha, l1_ratio):
    x, y = planted(p=p, v=3)
    ours = ElasticNet([alpha], l1_ratio, n_components=None, relative=False).fit(x, y)
    for target in range(y.shape[1]):
        expected = theirs(l1_ratio, alpha).fit(x, y[:, target])
        np.testing.assert_allclose(ours.coef_[:, target], expected.coef_, atol=1e-4)
        np.testing.assert_allclose(ours.predict(x + 1)[:, target], expected.predict(x + 1), atol=1e-4 * y.std())
    if l1_ratio == 1:
        np.testing.assert_array_equal(
            Lasso([alpha], n_components=None, relative=False).fit(x, y).coef_, ours.coef_
        )  # fmt: skip


@pytest.mark.parametrize(("n", "p"), [(40, 12), (40, 200)])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_on_components_it_is_scikit_learns_pipeline(n, p, l1_ratio):
    x, y = planted(n, p)
    ours = ElasticNet([0.7], l1_ratio, n_components=9, relative=False).fit(x, y)
    for target in range(y.shape[1]):
        expected = theirs(l1_ratio, 0.7, 9).fit(x, y[:, target])
        np.testing.assert_allclose(ours.predict(x + 1)[:, target], expected.predict(x + 1), rtol=1e-8)
        assert ours.n_nonzero_[target] == np.count_nonzero(expected[-1].coef_)


@pytest.mark.parametrize("n_components", [5, None])
def test_penalties_are_chosen_as_by_scikit_learns_grid_search(n_components):
    x, y = planted(noise=4.0, v=4, seed=1)
    grid = np.logspace(1, -2, 5)
    ours = Lasso(grid, n_components=n_components, seed=7, relative=False).fit(x, y)
    fold_of = np.empty(len(x), dtype=int)
    for number, (_, test) in enumerate(kfold(len(x), 5, seed=7)):
        fold_of[test] = number
    model = theirs(1.0, 1.0, n_components)
    key = "alpha" if n_components is None else "elasticnet__alpha"
    search = GridSearchCV(model, {key: grid}, scoring="neg_mean_squared_error", cv=PredefinedSplit(fold_of))
    chosen = [search.fit(x, target).best_params_[key] for target in y.T]
    np.testing.assert_allclose(ours.penalty_, chosen)
    assert len(set(chosen)) > 1


def test_shares_are_of_the_least_penalty_that_leaves_nothing():
    x, y = planted()
    for model in (Lasso([1.0]), ElasticNet([1.0], 0.3), Lasso([1.0], n_components=0)):
        assert (model.fit(x, y).coef_ == 0).all()
        np.testing.assert_allclose(model.predict(x), np.broadcast_to(y.mean(axis=0), y.shape))
        assert (clone(model).set_params(penalties=[0.99]).fit(x, y).n_nonzero_ == 1).all()


def test_components_of_the_exact_rotation_are_those_of_the_units():
    x, y = planted(p=300)
    splits = kfold(40, 5, seed=0)
    expected = cross_predict(Lasso(), x, y, splits)
    np.testing.assert_allclose(cross_predict(Lasso(), rotation(gram(x)[0]), y, splits), expected, rtol=1e-6)


def test_the_penalty_follows_the_signal():
    x, y = planted(n=80, noise=0.01, v=3)
    noise = np.random.default_rng(1).standard_normal((80, 30))
    model = Lasso().fit(x, np.column_stack([y, noise]))
    assert (model.penalty_[:3] < 0.02).all() and np.median(model.penalty_[3:]) > 0.3


def test_float32_targets_are_predicted_alike():
    x, y = planted(n=60, p=30, v=40, noise=2.0)
    for model in (Lasso([0.1]), Lasso([0.1], n_components=None)):
        single = clone(model).fit(x, y.astype(np.float32))
        assert single.coef_.dtype == np.float32
        np.testing.assert_allclose(single.predict(x), model.fit(x, y).predict(x), atol=1e-3)


@pytest.mark.parametrize("n_components", [5, None])
def test_what_is_not_finite_or_constant_spares_the_others(n_components):
    x, y = planted()
    whole = Lasso(n_components=n_components).fit(x, y).predict(x)
    broken = np.column_stack([y, np.full(len(y), 3.25), y[:, 0]])
    broken[4, 7] = np.nan
    predicted = Lasso(n_components=n_components).fit(x, broken).predict(x)
    np.testing.assert_allclose(predicted[:, :6], whole, rtol=1e-6)
    np.testing.assert_allclose(predicted[:, 6], 3.25)
    assert np.isnan(predicted[:, 7]).all()
    for nothing in (np.empty((40, 0)), np.full((40, 3), 0.1)):
        np.testing.assert_allclose(
            Lasso(n_components=n_components).fit(nothing, y).predict(nothing), np.broadcast_to(y.mean(axis=0), y.shape)
        )


def test_a_fixed_model_keeps_what_was_given():
    assert Lasso().fixed().penalties == (0.3,)
    assert ElasticNet(l1_ratio=0.2, n_components=7).fixed().get_params()["l1_ratio"] == 0.2
    given = Lasso([0.5], relative=False)
    assert given.fixed() is given
    assert Lasso().takes == "rotation" and Lasso(n_components=0).takes == "units"
    assert "at most 100" in Lasso().said() and "features themselves" in Lasso(n_components=None).said()


def test_slow_convergence_is_said(monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.models.sparse._SWEEPS", 1)
    monkeypatch.setattr("bidsdnn.methods.models.sparse._ROUNDS", 1)
    with pytest.warns(ConvergenceWarning, match=r"\d targets had not converged after 1 sweeps"):
        Lasso([0.01], n_components=None).fit(*planted(p=60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Lasso([0.01]).fit(*planted(p=60))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Lasso([0.0]), "penalties: expected positive"),
        (Lasso([]), "penalties: expected positive"),
        (ElasticNet(l1_ratio=0.0), "l1_ratio: expected above 0, at most 1, got 0"),
        (Lasso(n_components=-1), "n_components: expected at least 1, got -1"),
        (Lasso(n_splits=50), r"as many items as folds \(50\), got 40"),
    ],
)
def test_bad_parameters_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*planted())
