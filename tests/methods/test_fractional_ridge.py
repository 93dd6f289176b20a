from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from bidsdnn.methods.fractional_ridge import FRACTIONS, fractional_ridge


def a_problem(*, n=80, p=15, v=6, seed=0, decay=0.8):
    rng = np.random.default_rng(seed)
    design = rng.standard_normal((n, p)) * decay ** np.arange(p)
    return design, design @ rng.standard_normal((p, v)) + rng.standard_normal((n, v))


def test_equals_ridge_at_the_penalty_that_gives_the_fraction():
    design, series = a_problem()
    found = fractional_ridge(design, series, [1.0, 0.7, 0.3, 0.05])

    def ridge(y, penalty):
        return np.linalg.solve(design.T @ design + penalty * np.eye(design.shape[1]), design.T @ y)

    for column, y in enumerate(series.T):
        ols = np.linalg.lstsq(design, y, rcond=None)[0]
        np.testing.assert_allclose(found[0, :, column], ols, atol=1e-8)
        for row, fraction in enumerate([0.7, 0.3, 0.05], start=1):
            penalty = brentq(
                lambda a, y=y, f=fraction, full=ols: np.linalg.norm(ridge(y, a)) / np.linalg.norm(full) - f, 0, 1e8
            )
            np.testing.assert_allclose(found[row, :, column], ridge(y, penalty), rtol=0, atol=2e-3 * np.abs(ols).max())


def test_lengths_are_the_fractions_asked_for():
    design, series = a_problem(v=50, seed=1, decay=0.6)
    lengths = np.linalg.norm(fractional_ridge(design, series, FRACTIONS), axis=1)
    np.testing.assert_allclose(lengths / lengths[0], np.array(FRACTIONS)[:, None] * np.ones(50), atol=1e-3)


def test_agrees_with_the_authors_package():
    fracridge = pytest.importorskip("fracridge", reason="fracridge is not installed")
    design, series = a_problem(v=20, seed=2)
    theirs, _ = fracridge.fracridge(design, series, fracs=np.array([0.2, 0.5, 0.9]))
    ours = fractional_ridge(design, series, [0.2, 0.5, 0.9])
    # Theirs interpolates on a coarser grid of penalties.
    np.testing.assert_allclose(ours, theirs.transpose(1, 0, 2), atol=0.02 * np.abs(theirs).max())


def test_voxels_of_zeros_and_collinear_columns_give_finite_numbers():
    design, series = a_problem()
    series[:, 0] = 0
    design = np.column_stack([design, design[:, 0]])
    found = fractional_ridge(design, series, [1.0, 0.5])
    assert np.isfinite(found).all() and (found[:, :, 0] == 0).all()
    np.testing.assert_allclose(found[:, 0], found[:, -1], atol=1e-8)


@pytest.mark.parametrize("fractions", [[0.0], [1.1], [np.nan]])
def test_fractions_out_of_range_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions: expected numbers above 0"):
        fractional_ridge(*a_problem(), fractions)


def test_shapes_that_disagree_are_refused():
    design, series = a_problem()
    with pytest.raises(ValueError, match="design, series: expected"):
        fractional_ridge(design[:-1], series, [0.5])
