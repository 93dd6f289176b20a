"""Kernel ridge against scikit-learn's, its operator, and what a kernel can fit that a line cannot."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.kernel_ridge
from sklearn.metrics.pairwise import linear_kernel, polynomial_kernel, rbf_kernel
from sklearn.preprocessing import KernelCenterer

from bidsdnn.methods.models import KernelRidge, Ridge
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.reduce import gram, rotation


def planted(n=40, p=6, v=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) * rng.uniform(0.5, 2, p) + 5
    return x, x @ rng.standard_normal((p, v)) + rng.standard_normal((n, v)) - 20


def by_scikit_learn(kernel, x, y, new, *, gamma, alpha):
    """Kernel ridge on centred kernels: with an intercept that is not penalised."""
    of = {
        "linear": linear_kernel,
        "rbf": lambda a, b: rbf_kernel(a, b, gamma=gamma),
        "polynomial": lambda a, b: polynomial_kernel(a, b, degree=2, gamma=gamma, coef0=1),
    }[kernel]
    center = x.mean(axis=0)
    products = of(x - center, x - center)
    centerer = KernelCenterer().fit(products)
    model = sklearn.kernel_ridge.KernelRidge(alpha=alpha, kernel="precomputed")
    model.fit(centerer.transform(products), y - y.mean(axis=0))
    return model.predict(centerer.transform(of(new - center, x - center))) + y.mean(axis=0)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "polynomial"])
@pytest.mark.parametrize("p", [1, 6, 80])
def test_one_penalty_is_scikit_learns_with_an_intercept(kernel, p):
    x, y = planted(p=p)
    new = x[:9] + 0.3
    ours = KernelRidge(kernel, 0.02, penalties=[0.5], relative=False).fit(x, y).predict(new)
    np.testing.assert_allclose(ours, by_scikit_learn(kernel, x, y, new, gamma=0.02, alpha=0.5), rtol=1e-6)


def test_the_linear_kernel_is_ridge():
    x, y = planted(p=80)
    ours, ridge = KernelRidge("linear", seed=3).fit(x, y), Ridge(seed=3).fit(x, y)
    np.testing.assert_array_equal(ours.ridge_.penalty_, ridge.penalty_)
    np.testing.assert_allclose(ours.predict(x + 1), ridge.predict(x + 1), rtol=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "polynomial"])
def test_units_scale_and_rotation_make_no_difference(kernel):
    x, y = planted(p=300)
    splits = kfold(40, 5, seed=0)
    expected = cross_predict(KernelRidge(kernel), x, y, splits)
    for other in (rotation(gram(x)[0]), x * 1e3):
        np.testing.assert_allclose(cross_predict(KernelRidge(kernel), other, y, splits), expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "polynomial"])
def test_the_operator_gives_the_predictions_of_refitting(kernel):
    x, y = planted(p=80)
    splits = kfold(40, 5, seed=1)
    operator = KernelRidge(kernel).operator(x, splits)
    np.testing.assert_allclose(operator.sum(axis=1), 1)
    expected = cross_predict(KernelRidge(kernel, penalties=[1.0]), x, y, splits)
    np.testing.assert_allclose(operator @ y, expected, rtol=1e-6)


def test_curves_are_found():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2))
    y = (x**2).sum(axis=1, keepdims=True) + 0.1 * rng.standard_normal((200, 1))
    splits = kfold(200, 5, seed=0)
    r = {
        kernel: np.corrcoef(cross_predict(KernelRidge(kernel), x, y, splits)[:, 0], y[:, 0])[0, 1]
        for kernel in ("linear", "rbf", "polynomial")
    }
    assert r["linear"] < 0.3 and r["rbf"] > 0.95 and r["polynomial"] > 0.98


def test_what_is_not_finite_or_constant_spares_the_others():
    x, y = planted()
    whole = KernelRidge().fit(x, y).predict(x)
    broken = np.column_stack([y, np.full(len(y), 3.25), y[:, 0]])
    broken[4, 6] = np.nan
    predicted = KernelRidge().fit(x, broken).predict(x)
    np.testing.assert_allclose(predicted[:, :5], whole)
    np.testing.assert_allclose(predicted[:, 5], 3.25)
    assert np.isnan(predicted[:, 6]).all()
    for nothing in (np.empty((40, 0)), np.full((40, 3), 0.1)):
        np.testing.assert_allclose(KernelRidge().fit(nothing, y).predict(nothing)[0], y.mean(axis=0))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KernelRidge("cubic"), "kernel: expected one of linear, rbf, polynomial, got 'cubic'"),
        (KernelRidge(gamma=0), "gamma: expected a positive number, got 0"),
        (KernelRidge("polynomial", degree=0), "degree: expected at least 1, got 0"),
        (KernelRidge(penalties=[-1]), "penalties: expected positive"),
    ],
)
def test_bad_parameters_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*planted())


def test_predict_wants_the_columns_of_fit():
    x, y = planted()
    with pytest.raises(ValueError, match=r"X: expected shape \(m, 6\), got \(40, 5\)"):
        KernelRidge().fit(x, y).predict(x[:, :5])
