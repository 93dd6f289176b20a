from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import pdist, squareform

from bidsdnn.methods.rdm import (
    DISSIMILARITIES,
    SIMILARITIES,
    correlation,
    correlation_from_gram,
    label_permutation,
    spearman,
)
from bidsdnn.methods.reduce import gram

REFERENCE = {
    "spearman": lambda a, b: scipy.stats.spearmanr(a, b).statistic,
    "pearson": lambda a, b: scipy.stats.pearsonr(a, b).statistic,
}


def rdms(count, n=8, *, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([correlation(rng.standard_normal((n, 12))) for _ in range(count)])


@pytest.mark.parametrize("name", DISSIMILARITIES)
@pytest.mark.parametrize("shape", [(10, 50), (50, 4), (2, 3)])
def test_dissimilarities_equal_scipy(name, shape):
    values = np.random.default_rng(0).standard_normal(shape) * 3 + 7
    np.testing.assert_allclose(DISSIMILARITIES[name](values), pdist(values, name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_correlation_follows_from_inner_products(offset):
    values = np.random.default_rng(1).standard_normal((10, 300)) + offset
    products, sums = gram(values, block=64)
    np.testing.assert_allclose(correlation_from_gram(products, sums, 300), pdist(values, "correlation"), atol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_pattern_has_no_correlation(value):
    values = np.random.default_rng(2).standard_normal((5, 30))
    values[3] = value
    expected = np.isnan(np.where(np.eye(5), 0, 1) * np.where(np.arange(5) == 3, np.nan, 0)[:, None])
    touched = squareform((expected | expected.T) & ~np.eye(5, dtype=bool))
    np.testing.assert_array_equal(np.isnan(correlation(values)), touched)
    np.testing.assert_array_equal(np.isnan(correlation_from_gram(*gram(values), 30)), touched)
    values[3, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(correlation(values)), touched)


def test_identical_and_opposite_patterns_have_the_extreme_distances():
    pattern = np.random.default_rng(3).standard_normal(9)
    np.testing.assert_allclose(correlation([pattern, 2 * pattern + 1, -pattern]), [0, 2, 2], atol=1e-12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_equal_scipy_with_ties(name):
    rng = np.random.default_rng(4)
    a = rng.integers(0, 6, 45).astype(float)
    b = a + rng.integers(0, 4, 45)
    assert SIMILARITIES[name](a, b) == pytest.approx(REFERENCE[name](a, b), abs=1e-12)
    assert SIMILARITIES[name](a, a) == pytest.approx(1)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_to_nothing_is_nan(name):
    a = np.arange(6.0)
    assert np.isnan(SIMILARITIES[name](a, np.full(6, 0.1)))
    assert np.isnan(SIMILARITIES[name](a, np.where(a == 2, np.nan, a)))
    with pytest.raises(ValueError, match=r"got \(6,\) and \(5,\)"):
        SIMILARITIES[name](a, a[1:])


@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_label_permutation_permutes_rows_and_columns(name, counts, monkeypatch):
    """Against a loop that moves the square matrix and asks scipy anew."""
    monkeypatch.setattr("bidsdnn.methods.rdm._PAIRS_IN_MEMORY", 28 * 7)
    models, brains = rdms(counts[0]), rdms(counts[1], seed=1)
    similarity, p = label_permutation(models, brains, comparison=name, permutations=20, seed=5)
    rng = np.random.default_rng(5)
    orders = [rng.permutation(8) for _ in range(20)]
    for i, model in enumerate(models):
        for j, brain in enumerate(brains):
            observed = REFERENCE[name](model, brain)
            assert similarity[i, j] == pytest.approx(observed, abs=1e-12)
            # The side with fewer RDMs is the one that is moved.
            moved, still = (model, brain) if len(models) < len(brains) else (brain, model)
            null = [REFERENCE[name](squareform(squareform(moved)[np.ix_(o, o)]), still) for o in orders]
            assert p[i, j] == (1 + sum(value >= observed - 1e-10 for value in null)) / 21


def test_ties_count_against_significance():
    """Two clusters of two: 8 of the 24 relabellings leave the RDM as it is."""
    rdm = squareform(np.kron([[0, 1], [1, 0]], np.ones((2, 2))))[None]
    for comparison in SIMILARITIES:
        _, p = label_permutation(rdm, rdm, comparison=comparison, permutations=3000, seed=0)
        assert p[0, 0] == pytest.approx(1 / 3, abs=0.03)


def test_a_planted_similarity_is_found_and_a_missing_rdm_spares_the_others():
    models = rdms(3, n=12)
    brains = np.stack([models[1] + 0.1 * rdms(1, n=12, seed=8)[0], np.full(66, 0.5), models[0]])
    models[2, 7] = np.nan
    similarity, p = label_permutation(models, brains, permutations=199, seed=0)
    assert p[1, 0] == p[0, 2] == 1 / 200
    assert similarity[0, 2] == pytest.approx(1)
    assert p[0, 0] > 0.05
    unknown = np.array([[False, True, False], [False, True, False], [True, True, True]])
    np.testing.assert_array_equal(np.isnan(p), unknown)
    np.testing.assert_array_equal(np.isnan(similarity), unknown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparison": "cosine"}, r"comparison: expected one of \['pearson', 'spearman'\], got 'cosine'"),
        ({"permutations": 0}, "permutations: expected at least 1, got 0"),
        ({"brains": np.zeros((2, 27))}, r"got \(2, 28\), \(2, 27\)"),
        ({"models": np.zeros((1, 29)), "brains": np.zeros((1, 29))}, "at least 4 stimuli, got 29"),
        ({"models": np.zeros((1, 3)), "brains": np.zeros((1, 3))}, "at least 4 stimuli, got 3"),
    ],
)
def test_label_permutation_names_what_is_wrong(change, message):
    given = {"models": rdms(2), "brains": rdms(2)} | change
    with pytest.raises(ValueError, match=message):
        label_permutation(given.pop("models"), given.pop("brains"), **given)


def test_rdm_functions_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"values: expected shape \(n, p\), got \(3,\)"):
        correlation(np.zeros(3))
    with pytest.raises(ValueError, match=r"gram: expected shape \(2, 2\), got \(3, 3\)"):
        correlation_from_gram(np.zeros((3, 3)), np.zeros(2), 4)
    with pytest.raises(ValueError, match="n_columns: expected at least 1, got 0"):
        correlation_from_gram(np.zeros((3, 3)), np.zeros(3), 0)


def test_the_tables_agree():
    assert spearman is SIMILARITIES["spearman"]
    similarity, _ = label_permutation(rdms(1), rdms(1, seed=1), permutations=1)
    assert similarity[0, 0] == pytest.approx(spearman(rdms(1)[0], rdms(1, seed=1)[0]))
    for comparison in SIMILARITIES:
        assert label_permutation(rdms(1), rdms(1), comparison=comparison, permutations=1)[0] == pytest.approx(1)


def null_p_values(n_simulations, permutations):
    """p of unrelated RDMs whose pairs depend on each other through their stimuli."""
    rng = np.random.default_rng(21)
    p = []
    for simulation in range(n_simulations):
        # Stimuli of unequal noise give whole rows of an RDM large or small distances.
        spread = rng.uniform(0.2, 3, (2, 10, 1))
        model, brain = (correlation(1 + np.arange(8) + s * rng.standard_normal((10, 8))) for s in spread)
        p.append(label_permutation(model[None], brain[None], permutations=permutations, seed=simulation)[1][0, 0])
    return np.array(p)


def test_label_permutation_is_calibrated():
    assert scipy.stats.kstest(null_p_values(300, 99), "uniform").pvalue > 0.01


@pytest.mark.slow
def test_label_permutation_is_calibrated_in_many_simulations():
    p = null_p_values(2000, 199)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 < (p <= 0.05).mean() < 0.07
