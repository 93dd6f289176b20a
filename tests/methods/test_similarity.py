from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import squareform

from bidsdnn.methods import kendall
from bidsdnn.methods.rdm import correlation, sqeuclidean
from bidsdnn.methods.similarity import SIMILARITIES, familywise, kendall_tau_a, label_permutation, spearman


def tau_a(a, b):
    first, second = np.triu_indices(len(a), 1)
    return np.mean(np.sign(a[first] - a[second]) * np.sign(b[first] - b[second]))


def whitened(a, b):
    """By the inverse of the covariance of the distances, pairs x pairs."""
    n = round((1 + (1 + 8 * len(a)) ** 0.5) / 2)
    contrasts = np.zeros((len(a), n))
    contrasts[np.arange(len(a)), np.triu_indices(n, 1)[0]] = 1
    contrasts[np.arange(len(a)), np.triu_indices(n, 1)[1]] = -1
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    return a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))


def cka(a, b):
    n = round((1 + (1 + 8 * len(a)) ** 0.5) / 2)
    centring = np.eye(n) - 1 / n
    one, other = (centring @ squareform(rdm) @ centring for rdm in (a, b))
    return np.sum(one * other) / (np.linalg.norm(one) * np.linalg.norm(other))


REFERENCE = {
    "spearman": lambda a, b: scipy.stats.spearmanr(a, b).statistic,
    "pearson": lambda a, b: scipy.stats.pearsonr(a, b).statistic,
    "kendall_tau_a": tau_a,
    "kendall_tau_b": lambda a, b: scipy.stats.kendalltau(a, b).statistic,
    "cosine": lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
    "whitened_pearson": lambda a, b: whitened(a - a.mean(), b - b.mean()),
    "whitened_cosine": whitened,
    "linear_cka": cka,
}
THEIRS = {
    "spearman": "spearman",
    "pearson": "corr",
    "kendall_tau_a": "tau-a",
    "kendall_tau_b": "tau-b",
    "cosine": "cosine",
    "whitened_pearson": "corr_cov",
    "whitened_cosine": "cosine_cov",
    "linear_cka": "cosine_cov",
}
KNOWS_CONSTANTS = {"cosine", "whitened_cosine", "linear_cka"}


def rdms(count, n=8, *, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([correlation(rng.standard_normal((n, 12))) for _ in range(count)])


def with_ties(n_pairs, seed=4):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, n_pairs).astype(float)
    return a, a + rng.integers(0, 4, n_pairs)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("pair", [with_ties(45), tuple(rdms(2, n=10)), tuple(rdms(2, n=30, seed=1))])
def test_similarities_equal_the_reference(name, pair):
    a, b = pair
    assert SIMILARITIES[name](a, b) == pytest.approx(REFERENCE[name](a, b), abs=1e-10)
    assert SIMILARITIES[name](a, b) == pytest.approx(SIMILARITIES[name](b, a), abs=1e-12)
    assert SIMILARITIES[name](a, a) == pytest.approx(tau_a(a, a) if name == "kendall_tau_a" else 1)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_rsatoolbox_agrees(name):
    compare = pytest.importorskip("rsatoolbox.rdm.compare", reason="rsatoolbox is not installed")
    for a, b in (with_ties(45), rdms(2, n=20)):
        theirs = float(np.ravel(compare.compare(a, b, method=THEIRS[name]))[0])
        assert SIMILARITIES[name](a, b) == pytest.approx(theirs, abs=1e-8)


def test_linear_cka_is_that_of_the_patterns():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((12, 30)), rng.standard_normal((12, 7))
    y[:, 0] += x[:, 0]
    first, second = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = np.linalg.norm(first @ first.T) * np.linalg.norm(second @ second.T)
    expected = np.linalg.norm(first.T @ second) ** 2 / norms
    assert SIMILARITIES["linear_cka"](sqeuclidean(x), sqeuclidean(y)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_to_nothing_is_nan(name):
    a = np.arange(6.0)
    assert np.isnan(SIMILARITIES[name](a, np.zeros(6)))
    assert np.isnan(SIMILARITIES[name](a, np.full(6, 0.1))) == (name not in KNOWS_CONSTANTS)
    assert np.isnan(SIMILARITIES[name](a, np.where(a == 2, np.nan, a)))
    with pytest.raises(ValueError, match=r"got \(6,\) and \(5,\)"):
        SIMILARITIES[name](a, a[1:])


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 700])
@pytest.mark.parametrize("most", [1 << 18, 50])
def test_inversions_are_all_counted(n, most, monkeypatch):
    monkeypatch.setattr(kendall, "_MOST", most)
    order = np.random.default_rng(n).permutation(n)
    assert kendall.inversions(order) == sum(int((order[:i] > order[i]).sum()) for i in range(n))
    assert kendall.inversions(np.arange(n)[::-1]) == n * (n - 1) // 2


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_kendall_equals_scipy_in_long_vectors(levels):
    rng = np.random.default_rng(7)
    a, b = (rng.integers(0, levels, 5000).astype(float) for _ in range(2))
    expected = scipy.stats.kendalltau(a, a + b).statistic
    assert SIMILARITIES["kendall_tau_b"](a, a + b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_label_permutation_permutes_rows_and_columns(name, counts, tied, monkeypatch):
    """Against a loop that moves the square matrix and asks the reference anew."""
    monkeypatch.setattr("bidsdnn.methods.relabelling._PAIRS_IN_MEMORY", 28 * 7)
    models, brains = rdms(counts[0]), rdms(counts[1], seed=1)
    if tied:
        models, brains = np.round(models, 1), np.round(brains, 1)
    similarity, p, null = label_permutation(models, brains, comparison=name, permutations=20, seed=5, return_null=True)
    assert null.shape == (20, *counts)
    rng = np.random.default_rng(5)
    orders = [rng.permutation(8) for _ in range(20)]
    for i, model in enumerate(models):
        for j, brain in enumerate(brains):
            observed = REFERENCE[name](model, brain)
            assert similarity[i, j] == pytest.approx(observed, abs=1e-10)
            # Whichever side is moved, it is as if the brains were.
            expected = [REFERENCE[name](model, squareform(squareform(brain)[np.ix_(o, o)])) for o in orders]
            np.testing.assert_allclose(null[:, i, j], expected, atol=1e-10)
            assert p[i, j] == (1 + sum(value >= observed - 1e-9 for value in expected)) / 21
    again = label_permutation(models, brains, comparison=name, permutations=20, seed=5)
    np.testing.assert_array_equal(again[1], p)


@pytest.mark.parametrize("comparison", SIMILARITIES)
def test_ties_count_against_significance(comparison):
    """Two clusters of two: 8 of the 24 relabellings leave the RDM as it is."""
    rdm = squareform(np.kron([[0, 1], [1, 0]], np.ones((2, 2))))[None]
    _, p = label_permutation(rdm, rdm, comparison=comparison, permutations=2000, seed=0)
    assert p[0, 0] == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("comparison", SIMILARITIES)
def test_a_planted_similarity_is_found_and_a_missing_rdm_spares_the_others(comparison):
    models = rdms(3, n=12)
    constant = 0.0 if comparison in KNOWS_CONSTANTS else 0.5
    brains = np.stack([models[1] + 0.1 * rdms(1, n=12, seed=8)[0], np.full(66, constant), models[0]])
    models[2, 7] = np.nan
    similarity, p, null = label_permutation(
        models, brains, comparison=comparison, permutations=199, seed=0, return_null=True
    )
    assert p[1, 0] == p[0, 2] == 1 / 200
    assert similarity[0, 2] == pytest.approx(1)
    assert p[0, 0] > 0.05
    unknown = np.array([[False, True, False], [False, True, False], [True, True, True]])
    np.testing.assert_array_equal(np.isnan(p), unknown)
    np.testing.assert_array_equal(np.isnan(similarity), unknown)
    np.testing.assert_array_equal(np.isnan(familywise(similarity, null)), unknown)


def test_familywise_asks_for_the_best_layer():
    observed = np.array([[0.5, 0.2], [0.1, np.nan], [0.3, 0.4]])
    null = np.array(
        [
            [[0.6, 0.1], [0.0, np.nan], [0.0, 0.0]],
            [[0.0, 0.0], [0.3, np.nan], [0.2, 0.3]],
            [[0.0, 0.0], [0.0, np.nan], [0.0, 0.4]],
        ]
    )
    # Best of the layers: 0.6, 0.3, 0.0 in the one region; 0.1, 0.3, 0.4 in the other.
    expected = np.array([[2, 3], [3, np.nan], [3, 2]]) / 4
    np.testing.assert_allclose(familywise(observed, null), expected)
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(0, 3, 2\)"):
        familywise(observed, null[:0])
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 2, 2\)"):
        familywise(observed, null[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparison": "cosin"}, r"comparison: expected one of \['cosine', .*\], got 'cosin'"),
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


def test_the_tables_agree():
    for name, function in SIMILARITIES.items():
        assert function.__name__ == name
        similarity, _ = label_permutation(rdms(1), rdms(1, seed=1), comparison=name, permutations=1)
        assert similarity[0, 0] == pytest.approx(function(rdms(1)[0], rdms(1, seed=1)[0]))
    assert label_permutation(rdms(1), rdms(1, seed=1), permutations=1)[0] == spearman(rdms(1)[0], rdms(1, seed=1)[0])


def null_p_values(n_simulations, permutations, comparison="spearman", layers=1):
    """Per simulation, p of unrelated RDMs whose pairs depend on each other through their stimuli."""
    rng = np.random.default_rng(21)
    p, corrected = [], []
    for simulation in range(n_simulations):
        # Stimuli of unequal noise give whole rows of an RDM large or small distances.
        made = [
            correlation(1 + np.arange(8) + rng.uniform(0.2, 3, (10, 1)) * rng.standard_normal((10, 8)))
            for _ in range(layers + 1)
        ]
        seen, single, null = label_permutation(
            made[1:], made[:1], comparison=comparison, permutations=permutations, seed=simulation, return_null=True
        )
        p.append(single[0, 0])
        corrected.append(familywise(seen, null).min())
    return np.array(p), np.array(corrected)


def test_label_permutation_is_calibrated():
    assert scipy.stats.kstest(null_p_values(300, 99)[0], "uniform").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("comparison", SIMILARITIES)
def test_label_permutation_is_calibrated_in_many_simulations(comparison):
    p, corrected = null_p_values(2000, 199, comparison, layers=3)
    print(f"labels, {comparison}: {(p <= 0.05).mean():.3f}, family-wise {(corrected <= 0.05).mean():.3f}")
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 < (p <= 0.05).mean() < 0.07
    assert 0.03 < (corrected <= 0.05).mean() < 0.07


def test_tau_a_counts_ties_against_both():
    assert kendall_tau_a([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]) == pytest.approx(12 / 15)
