from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from bidsdnn.methods import rdm
from bidsdnn.methods.noise import noise_precision
from bidsdnn.methods.rdm import (
    DISSIMILARITIES,
    FROM_GRAM,
    USES_FOLDS,
    USES_PRECISION,
    correlation,
    correlation_from_gram,
    crossnobis,
    euclidean,
    from_gram,
    mahalanobis,
    poisson_kl,
    sqeuclidean,
)
from bidsdnn.methods.reduce import gram

PDIST = ["correlation", "cosine", "euclidean", "sqeuclidean"]


def each_two(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def a_precision(p, seed=0):
    root = np.random.default_rng(seed).standard_normal((p, p + 3))
    return np.linalg.inv(root @ root.T)


@pytest.mark.parametrize("name", PDIST)
@pytest.mark.parametrize("shape", [(10, 50), (50, 4), (2, 3), (6, 9000)])
def test_distances_equal_scipy(name, shape):
    values = np.random.default_rng(0).standard_normal(shape) * 3 + 7
    expected = pdist(values, name)
    np.testing.assert_allclose(DISSIMILARITIES[name](values), expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(DISSIMILARITIES[name](values.tolist()), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", PDIST)
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_distances_follow_from_inner_products(name, offset):
    values = np.random.default_rng(1).standard_normal((10, 300)) + offset
    products, sums = gram(values, block=64)
    np.testing.assert_allclose(from_gram(name, products, sums, 300), pdist(values, name), atol=1e-9)
    assert name in FROM_GRAM


def test_spearman_is_the_correlation_of_ranks():
    values = np.random.default_rng(1).integers(0, 5, (7, 30)).astype(float)
    expected = pdist(rankdata(values, axis=1), "correlation")
    np.testing.assert_allclose(DISSIMILARITIES["spearman"](values), expected, atol=1e-12)


def test_mahalanobis_by_the_formula():
    values, precision = np.random.default_rng(2).standard_normal((6, 5)) + 50, a_precision(5)
    expected = pdist(values, "mahalanobis", VI=precision) ** 2 / 5
    np.testing.assert_allclose(mahalanobis(values, precision=precision), expected, rtol=1e-9)
    np.testing.assert_allclose(mahalanobis(values, precision=np.ones(5)), sqeuclidean(values) / 5, rtol=1e-9)
    diagonal = np.arange(1.0, 6)
    expected = mahalanobis(values, precision=np.diag(diagonal))
    np.testing.assert_allclose(mahalanobis(values, precision=diagonal), expected, rtol=1e-12)


def crossnobis_by_formula(patterns, precision):
    """Each two stimuli, each two folds, one by one."""
    found = []
    for i, j in each_two(patterns.shape[1]):
        contrast = patterns[:, i] - patterns[:, j]
        terms = [contrast[f] @ precision @ contrast[g] for f, g in each_two(len(patterns))]
        terms = [term for term in terms if np.isfinite(term)]
        found.append(np.mean(terms) / patterns.shape[2] if terms else np.nan)
    return np.array(found)


def test_crossnobis_by_the_formula():
    patterns, precision = np.random.default_rng(3).standard_normal((4, 6, 5)), a_precision(5)
    expected = crossnobis_by_formula(patterns, precision)
    np.testing.assert_allclose(crossnobis(patterns, precision=precision), expected, atol=1e-12)
    np.testing.assert_allclose(crossnobis(patterns), crossnobis_by_formula(patterns, np.eye(5)), atol=1e-12)
    # The same as rows of a table, the folds in turn.
    rows, folds = patterns.transpose(1, 0, 2).reshape(24, 5), np.tile([3, 5, 7, 9], 6)
    np.testing.assert_allclose(crossnobis(rows, precision=precision, folds=folds), expected, atol=1e-12)


def test_crossnobis_uses_the_folds_that_hold_both_stimuli():
    patterns = np.random.default_rng(4).standard_normal((3, 5, 4))
    patterns[0, 1, 2], patterns[0, 4], patterns[1, 4] = np.nan, np.nan, np.inf
    expected = crossnobis_by_formula(np.where(np.isfinite(patterns), patterns, np.nan), np.eye(4))
    found = crossnobis(patterns)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(found), [4 in pair for pair in each_two(5)])


def test_crossnobis_is_unbiased_and_mahalanobis_is_not():
    """Two equal stimuli and one that differs, in noise of a known covariance."""
    rng = np.random.default_rng(5)
    truth = np.zeros((3, 8))
    truth[2] = 1.0
    root = np.linalg.cholesky(np.linalg.inv(a_precision(8, seed=1)) / 20)
    precision = np.linalg.inv(root @ root.T)
    folds = truth + rng.standard_normal((2000, 2, 3, 8)) @ root.T
    found = np.array([crossnobis(pair, precision=precision) for pair in folds])
    expected = mahalanobis(truth, precision=precision)
    error = found.std(axis=0) / 2000**0.5
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
    assert (found[:, 0] < 0).mean() > 0.3
    biased = np.mean([mahalanobis(pair.mean(axis=0), precision=precision) for pair in folds], axis=0)
    np.testing.assert_allclose(biased - expected, 1, atol=0.1)


def test_poisson_kl_by_the_formula():
    rates = np.random.default_rng(6).poisson(3, (6, 20)).astype(float)
    smooth = (rates + 0.1) / 1.1
    expected = [((smooth[i] - smooth[j]) * np.log(smooth[i] / smooth[j])).mean() for i, j in each_two(6)]
    np.testing.assert_allclose(poisson_kl(rates), expected, atol=1e-12)
    exact = ((rates[0] + 1 - rates[1] - 1) * np.log((rates[0] + 1) / (rates[1] + 1))).mean()
    assert poisson_kl(rates + 1, prior_weight=0)[0] == pytest.approx(exact)


def test_rsatoolbox_agrees():
    data = pytest.importorskip("rsatoolbox.data", reason="rsatoolbox is not installed")
    calc = pytest.importorskip("rsatoolbox.rdm.calc", reason="rsatoolbox is not installed")
    rng = np.random.default_rng(7)
    stacked, precision = rng.standard_normal((3, 6, 5)), a_precision(5)
    one, rates = data.Dataset(stacked[0]), rng.poisson(3, (6, 5)).astype(float)
    folds, stimuli = np.repeat(np.arange(3), 6), np.tile(np.arange(6), 3)
    rows = stacked.reshape(18, 5)
    repeated = data.Dataset(rows, obs_descriptors={"stimulus": stimuli, "fold": folds})
    crossed = calc.calc_rdm_crossnobis(repeated, "stimulus", noise=precision, cv_descriptor="fold")
    for ours, theirs in [
        (correlation(stacked[0]), calc.calc_rdm_correlation(one)),
        (sqeuclidean(stacked[0]) / 5, calc.calc_rdm_euclidean(one)),
        (mahalanobis(stacked[0], precision=precision), calc.calc_rdm_mahalanobis(one, noise=precision)),
        (crossnobis(rows, precision=precision, folds=folds), crossed),
        (poisson_kl(rates), calc.calc_rdm_poisson(data.Dataset(rates))),
    ]:
        np.testing.assert_allclose(ours, theirs.get_vectors()[0], atol=1e-10)
    noise = pytest.importorskip("rsatoolbox.data.noise", reason="rsatoolbox is not installed")
    residuals = rng.standard_normal((40, 5)) @ np.linalg.cholesky(precision).T + 3
    for method, theirs in [("diagonal", "diag"), ("shrunk", "shrinkage_eye"), ("full", "full")]:
        ours = noise_precision(residuals, method=method)
        expected = noise.prec_from_residuals(residuals, method=theirs)
        np.testing.assert_allclose(np.diag(ours) if ours.ndim == 1 else ours, expected, rtol=1e-8)


@pytest.mark.parametrize("offset", [0, 100])
def test_large_single_precision_tables_are_exact_to_five_digits(offset, monkeypatch):
    values = np.random.default_rng(8).standard_normal((12, 9000)).astype(np.float32) + np.float32(offset)
    values[3] = offset
    exact = correlation(values)
    monkeypatch.setattr(rdm, "SINGLE", 1)
    found = correlation(values)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    assert np.nanmax(np.abs(found - exact)) > 0, "not the path in single precision"


class Streamed:
    """A table that says how much of it was read at a time."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.widest = values, values.shape, values.dtype, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, where):
        part = self.values[where]
        self.widest = max(self.widest, part.shape[1])
        return part


@pytest.mark.parametrize("name", PDIST)
def test_tables_larger_than_memory_are_read_in_blocks(name):
    table = Streamed(np.random.default_rng(9).standard_normal((5, 10000)) + 1)
    np.testing.assert_allclose(DISSIMILARITIES[name](table), pdist(table.values, name), rtol=1e-10)
    assert table.widest == 8192


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_pattern_has_no_correlation(value):
    values = np.random.default_rng(2).standard_normal((5, 30))
    values[3] = value
    touched = np.array([3 in pair for pair in each_two(5)])
    np.testing.assert_array_equal(np.isnan(correlation(values)), touched)
    np.testing.assert_array_equal(np.isnan(DISSIMILARITIES["spearman"](values)), touched)
    np.testing.assert_array_equal(np.isnan(correlation_from_gram(*gram(values), 30)), touched)


@pytest.mark.parametrize("name", sorted(set(DISSIMILARITIES) - USES_FOLDS))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pattern_that_is_not_finite_spares_the_others(name, value):
    values = np.random.default_rng(2).random((5, 30))
    given = {"precision": np.ones(30)} if name in USES_PRECISION else {}
    whole = DISSIMILARITIES[name](values, **given)
    values[3, 4] = value
    if name == "spearman" and value == np.inf:
        assert np.isfinite(DISSIMILARITIES[name](values)).all()
        return
    expected = np.where([3 in pair for pair in each_two(5)], np.nan, whole)
    np.testing.assert_allclose(DISSIMILARITIES[name](values, **given), expected, rtol=1e-10)


def test_identical_and_opposite_patterns_have_the_extreme_distances():
    pattern = np.random.default_rng(3).standard_normal(9)
    np.testing.assert_allclose(correlation([pattern, 2 * pattern + 1, -pattern]), [0, 2, 2], atol=1e-12)
    np.testing.assert_allclose(DISSIMILARITIES["cosine"]([pattern, 2 * pattern, -pattern]), [0, 2, 2], atol=1e-12)
    assert np.isnan(DISSIMILARITIES["cosine"]([pattern, 0 * pattern]))
    same = np.array([pattern + 1e6, pattern + 1e6, -pattern])
    assert euclidean(same)[0] == 0
    assert from_gram("euclidean", *gram(same), 9)[0] == 0


@pytest.mark.parametrize("method", ["diagonal", "shrunk", "full"])
def test_noise_precision_inverts_the_covariance(method):
    covariance = np.diag([1.0, 4, 9, 16]) if method == "diagonal" else np.linalg.inv(a_precision(4))
    residuals = np.random.default_rng(10).multivariate_normal(np.full(4, 5), covariance, 200000)
    precision = noise_precision(residuals, method=method)
    product = np.diag(precision) @ covariance if method == "diagonal" else precision @ covariance
    np.testing.assert_allclose(product, np.eye(4), atol=0.06)


def test_noise_precision_is_that_of_the_written_out_covariance():
    residuals = np.random.default_rng(11).standard_normal((30, 4)) + 2
    np.testing.assert_allclose(noise_precision(residuals), 1 / residuals.var(axis=0, ddof=1))
    full = np.linalg.inv(np.cov(residuals.T))
    np.testing.assert_allclose(noise_precision(residuals, method="full"), full, rtol=1e-10)
    # Shrinkage stays between the two, and has an inverse where the covariance has none.
    short = noise_precision(residuals[:3], method="shrunk")
    assert (np.linalg.eigvalsh(short) > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation(np.zeros(3)), r"values: expected shape \(n, p\), got \(3,\)"),
        (lambda: correlation(np.zeros((3, 2)), folds=[1, 2, 3]), "folds: correlation does not use any"),
        (lambda: euclidean(np.zeros((3, 2)), precision=np.eye(2)), "precision: euclidean does not use any"),
        (lambda: mahalanobis(np.zeros((3, 2))), "precision: mahalanobis needs one"),
        (lambda: mahalanobis(np.zeros((3, 2)), precision=np.eye(3)), r"precision: expected shape \(2, 2\) or \(2,\)"),
        (lambda: mahalanobis(np.zeros((3, 2)), precision=[[1, 2], [0, 1]]), "precision: expected a symmetric matrix"),
        (lambda: mahalanobis(np.zeros((3, 2)), precision=[1, np.nan]), "precision: expected finite numbers"),
        (lambda: crossnobis(np.zeros((3, 2))), r"expected shape \(folds, n, p\), or \(rows, p\) with folds"),
        (lambda: crossnobis(np.zeros((1, 3, 2))), "needs at least 2 repeats, got 1"),
        (lambda: crossnobis(np.zeros((3, 2)), folds=[1, 1, 1]), "needs at least 2 repeats, got 1"),
        (lambda: crossnobis(np.zeros((3, 2)), folds=[1, 1, 2]), r"got \[2, 1\] rows in \[1, 2\]"),
        (lambda: crossnobis(np.zeros((3, 2)), folds=[1, 1]), r"one for each row of a table .*got \(2,\), \(3, 2\)"),
        (lambda: poisson_kl([[1, -2], [3, 4]]), "poisson_kl expects rates of at least 0, got -2"),
        (lambda: from_gram("spearman", np.eye(2), np.ones(2), 4), "got 'spearman'"),
        (lambda: correlation_from_gram(np.zeros((3, 3)), np.zeros(2), 4), r"gram: expected shape \(2, 2\)"),
        (lambda: correlation_from_gram(np.zeros((3, 3)), np.zeros(3), 0), "n_columns: expected at least 1, got 0"),
        (lambda: noise_precision(np.zeros((1, 3))), "t of at least 2"),
        (lambda: noise_precision([[1, np.nan], [2, 3]]), "residuals: expected finite numbers"),
        (lambda: noise_precision([[1, 5], [2, 5]]), "channel 1 is constant"),
        (lambda: noise_precision([[1, 5], [2, 4]], method="full"), "2 degrees of freedom or more, got 1"),
        (lambda: noise_precision([[1, 5], [2, 4]], method="x"), "expected diagonal, shrunk or full, got 'x'"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pairs_are_in_the_order_of_pdist():
    square = squareform(correlation(np.random.default_rng(12).standard_normal((4, 9))))
    assert square[0, 3] == correlation(np.random.default_rng(12).standard_normal((4, 9)))[2]
