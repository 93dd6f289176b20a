"""Measures of tuning against their formulas, written out, and against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway
from sklearn.decomposition import PCA

from bidsdnn.methods.tuning import (
    class_means,
    class_selectivity,
    components_for,
    discriminability,
    participation_ratio,
    treves_rolls,
    variance_between,
    variances_of,
    vinje_gallant,
)


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.gamma(1.0, 2.0, (30, 7)) + np.arange(7), rng.permutation(np.arange(30) % 3)


def test_sparseness_is_the_formula_and_has_its_ends(table):
    rates, _ = table
    got = treves_rolls(rates)
    for column in range(rates.shape[1]):
        r = rates[:, column]
        assert got[column] == pytest.approx((sum(r) / 30) ** 2 / (sum(x * x for x in r) / 30))
    one = np.zeros((10, 3))
    one[4, 0], one[:, 1] = 5.0, 2.0
    assert treves_rolls(one)[:2] == pytest.approx([0.1, 1.0])
    assert vinje_gallant(treves_rolls(one), 10)[:2] == pytest.approx([1.0, 0.0])
    assert np.isnan(treves_rolls(one)[2])
    assert treves_rolls(np.array([-4.0, 1.0, 1.0, -2.0])) == pytest.approx(0.5)
    assert treves_rolls(rates, axis=1).shape == (30,)


def test_dimensionality_is_that_of_principal_components(table):
    rates, _ = table
    expected = PCA().fit(rates).explained_variance_
    got = variances_of(rates @ rates.T)
    np.testing.assert_allclose(got[:7], expected, rtol=1e-8)
    assert not got[7:].any()
    assert participation_ratio(got) == pytest.approx(expected.sum() ** 2 / (expected**2).sum())
    assert components_for(got, 0.8) == int(np.argmax(np.cumsum(expected) / expected.sum() >= 0.8)) + 1
    assert participation_ratio([2.0, 2.0, 2.0, 0.0]) == pytest.approx(3)
    assert components_for([1.0] * 5, 0.8) == 4
    assert components_for([1.0] * 5, 1.0) == 5
    assert np.isnan(participation_ratio([0.0, 0.0]))
    assert components_for([0.0, 0.0], 0.8) == 0


def test_selectivity_is_the_formula(table):
    rates, classes = table
    means, variances, counts = class_means(rates, classes, 3)
    for one in range(3):
        np.testing.assert_allclose(means[one], rates[classes == one].mean(0))
        np.testing.assert_allclose(variances[one], rates[classes == one].var(0, ddof=1))
        assert counts[one] == 10
    got = class_selectivity(means)
    for column, (a, b, c) in enumerate(np.sort(means, axis=0)[::-1].T):
        assert got[column] == pytest.approx((a - (b + c) / 2) / (a + (b + c) / 2))
    assert class_selectivity(np.array([[3.0, -1.0, 1.0], [0.0, -2.0, 1.0]]))[[0, 2]] == pytest.approx([1, 0])
    assert np.isnan(class_selectivity(np.array([[-1.0], [-2.0]])))


def test_discriminability_and_eta_squared_are_those_of_textbooks(table):
    rates, classes = table
    preferred = class_means(rates, classes, 3)[0].argmax(0)
    got = discriminability(rates, classes, preferred)
    for column, one in enumerate(preferred):
        a, b = rates[classes == one, column], rates[classes != one, column]
        assert got[column] == pytest.approx((a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    f = f_oneway(*(rates[classes == one] for one in range(3))).statistic
    np.testing.assert_allclose(variance_between(rates, classes, 3), 2 * f / (2 * f + 27), rtol=1e-10)
    assert np.isnan(variance_between(np.ones((6, 1)), np.arange(6) % 2, 2))
