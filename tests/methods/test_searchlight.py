from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import kstest, rankdata, spearmanr

from bidsdnn.methods.neighbourhoods import mean_ranks, rdms
from bidsdnn.methods.rdm import DISSIMILARITIES, USES_PRECISION
from bidsdnn.methods.searchlight import familywise, searchlight
from bidsdnn.methods.similarity import SIMILARITIES, label_permutation
from bidsdnn.parallel import workers

METRICS = sorted(set(DISSIMILARITIES) - USES_PRECISION)


def line(size: int, reach: int) -> csr_array:
    """Columns on a line, each with its neighbours up to so far: smaller neighbourhoods at the ends."""
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return csr_array(distance <= reach)


def some(n: int = 30, size: int = 40, m: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2, size=(n, size)) + 5
    return values, np.array([DISSIMILARITIES["correlation"](rng.standard_normal((n, 12))) for _ in range(m)])


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("metric", METRICS)
def test_rdms_are_those_of_each_neighbourhood(metric, n):
    values, _ = some(n)
    tolerance = 1e-12 if n <= 48 else 2e-6
    found = rdms(values, line(40, 4), metric=metric)
    for centre in (0, 3, 20, 39):
        expected = DISSIMILARITIES[metric](values[:, max(0, centre - 4) : centre + 5])
        np.testing.assert_allclose(found[centre], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("comparison", sorted(SIMILARITIES))
def test_each_centre_is_compared_as_by_itself(comparison):
    values, models = some()
    found = searchlight(values, line(40, 4), models, comparison=comparison)
    for centre in (0, 7, 39):
        brain = DISSIMILARITIES["correlation"](values[:, max(0, centre - 4) : centre + 5])
        expected = [SIMILARITIES[comparison](model, brain) for model in models]
        np.testing.assert_allclose(found.similarity[:, centre], expected, atol=1e-6)
    assert np.isnan(found.p).all() and np.isnan(found.p_familywise).all()


def test_ranks_are_scipys():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 6, (20, 13)).astype(np.float32)
    rows[3], rows[4] = 2, np.arange(13)[::-1]
    np.testing.assert_array_equal(mean_ranks(torch.from_numpy(rows)).numpy(), rankdata(rows, axis=1) - 7)
    rows[5, 2] = np.nan
    assert mean_ranks(torch.from_numpy(rows)).isnan().any(dim=1).nonzero().flatten().tolist() == [5]


def test_tied_distances_get_their_mean_rank():
    values = np.random.default_rng(0).integers(0, 2, (30, 12)).astype(float)
    _, models = some()
    found = searchlight(values, line(12, 6), models, metric="sqeuclidean")
    brain = DISSIMILARITIES["sqeuclidean"](values[:, :7])
    expected = spearmanr(models[0], np.round(brain)).statistic
    assert abs(expected - spearmanr(models[0], brain).statistic) > 1e-4
    np.testing.assert_allclose(found.similarity[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("comparison", ["spearman", "cosine", "whitened_pearson", "kendall_tau_a"])
def test_p_is_that_of_the_label_permutation(comparison, n):
    values, models = some(n, size=12)
    values[:, :6] += np.random.default_rng(1).standard_normal((n, 6))
    found = searchlight(values, line(12, 3), models, comparison=comparison, permutations=60, seed=4)
    brains = rdms(values, line(12, 3)).astype(np.float64)
    similarity, p, null = label_permutation(
        models, brains, comparison=comparison, permutations=60, seed=4, return_null=True
    )
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-5)
    np.testing.assert_allclose(found.p, p, atol=1e-12)
    scale = np.sqrt((np.concatenate([null, similarity[None]]) ** 2).mean(axis=(0, 2)))
    largest = (null / scale[:, None]).max(axis=(1, 2))
    expected = (1 + (largest[:, None, None] >= similarity / scale[:, None] - 1e-6).sum(axis=0)) / 61
    np.testing.assert_allclose(found.p_familywise, expected, atol=1e-12)
    assert (found.p_familywise >= found.p).all()


def test_voxels_that_are_not_finite_are_left_out_and_few_make_no_rdm():
    values, models = some()
    values[2, [5, 6]], values[0, 39] = np.nan, np.inf
    near = line(40, 3).tolil()
    near[0] = False
    near[0, [4, 5, 6]] = True
    near[1] = False
    near[2, :] = False
    near[2, [0, 39, 9]] = True
    # Two columns make correlations of 1 or -1 up to rounding: nothing to rank.
    found = searchlight(values, csr_array(near), models, comparison="pearson", permutations=5)
    assert found.n_voxels[:3].tolist() == [1, 0, 2]
    assert np.isnan(found.similarity[:, :2]).all() and np.isnan(found.p_familywise[:, :2]).all()
    assert np.isfinite(found.similarity[:, 2:]).all() and np.isfinite(found.p[:, 2:]).all()
    brain = DISSIMILARITIES["correlation"](values[:, [0, 9]])
    np.testing.assert_allclose(found.similarity[0, 2], SIMILARITIES["pearson"](models[0], brain), atol=1e-6)


def test_constant_patterns_and_models_are_nan_and_no_part_of_the_family():
    values, models = some()
    values[4, :4] = 5.0
    with_constant = np.concatenate([models, np.ones((1, models.shape[1]))])
    found = searchlight(values, line(40, 3), with_constant, permutations=20, comparison="pearson")
    assert np.isnan(found.similarity[:, 0]).all() and np.isnan(found.p[3]).all()
    alone = searchlight(values, line(40, 3), models, permutations=20, comparison="pearson")
    np.testing.assert_array_equal(found.p_familywise[:3], alone.p_familywise)


def test_the_result_does_not_depend_on_blocks_or_workers(monkeypatch):
    values, models = some(n=50)
    whole = searchlight(values, line(40, 4), models, permutations=30)
    monkeypatch.setattr("bidsdnn.methods.searchlight._CENTRES", 7)
    monkeypatch.setattr("bidsdnn.methods.searchlight._FEWEST_CENTRES", 7)
    cut = searchlight(values, line(40, 4), models, permutations=30)
    np.testing.assert_allclose(cut.similarity, whole.similarity, atol=1e-6)
    np.testing.assert_array_equal(cut.p, whole.p)
    np.testing.assert_array_equal(cut.p_familywise, whole.p_familywise)
    with workers(2) as spread:
        two = searchlight(values, line(40, 4), models, permutations=30, map=spread)
    for one, other in zip(cut, two, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_planted_geometry_is_found_where_it_is_and_nowhere_else():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 200))
    layers = rng.standard_normal((2, 30, 8))
    values[:, 60:80] += layers[0] @ rng.standard_normal((8, 20)) / 2
    models = np.array([DISSIMILARITIES["correlation"](layer) for layer in layers])
    found = searchlight(values, line(200, 5), models, permutations=500)
    significant = [set(np.flatnonzero(p < 0.05)) for p in found.p_familywise]
    assert set(range(64, 76)) <= significant[0] <= set(range(55, 85))
    assert not significant[1]


def test_familywise_counts_the_largest_of_each_relabelling():
    observed = np.array([[0.5, 0.1], [np.nan, 0.4]])
    largest = np.array([[0.2, 0.5], [0.6, 0.3], [0.1, 0.1]])
    squares = np.array([0.75 * 0.25 * 4 - 0.25, 1.0])
    scale = np.sqrt((squares + np.array([0.25, 0.17])) / [4, 8])
    best = (largest / scale).max(axis=1)
    expected = (1 + (best[:, None, None] >= observed / scale).sum(axis=0)) / 4
    expected[1, 0] = np.nan
    np.testing.assert_allclose(familywise(observed, largest, squares), expected)


def test_arguments_that_make_no_sense_are_refused():
    values, models = some()
    with pytest.raises(ValueError, match=r"values, adjacency: expected shapes .* got \(30, 40\), \(9, 9\)"):
        searchlight(values, line(9, 1), models)
    with pytest.raises(ValueError, match="models: expected the pairs of 30 stimuli"):
        searchlight(values, line(40, 1), models[:, :6])
    with pytest.raises(ValueError, match="metric: expected one of"):
        searchlight(values, line(40, 1), models, metric="no")
    with pytest.raises(ValueError, match="comparison: expected one of"):
        searchlight(values, line(40, 1), models, comparison="no")
    with pytest.raises(ValueError, match="at least 4 stimuli"):
        searchlight(values[:3], line(40, 1), models[:, :3])


def test_equal_to_rsatoolbox():
    theirs = pytest.importorskip("rsatoolbox.util.searchlight")
    compare = pytest.importorskip("rsatoolbox.rdm").compare
    RDMs = pytest.importorskip("rsatoolbox.rdm").RDMs
    values, models = some()
    near = line(40, 4)
    places = [near.indices[a:b] for a, b in zip(near.indptr[:-1], near.indptr[1:], strict=True)]
    expected = theirs.get_searchlight_RDMs(values, np.arange(40), places, np.arange(30), verbose=False)
    np.testing.assert_allclose(rdms(values, near), expected.dissimilarities, atol=1e-5)
    for comparison, name in (("spearman", "spearman"), ("pearson", "corr"), ("cosine", "cosine")):
        found = searchlight(values, near, models, comparison=comparison).similarity
        np.testing.assert_allclose(found, compare(RDMs(models), expected, method=name), atol=1e-5)


def test_equal_to_mne_rsa():
    theirs = pytest.importorskip("mne_rsa")
    values, models = some()
    near = line(40, 4)
    patches = [near.indices[a:b] for a, b in zip(near.indptr[:-1], near.indptr[1:], strict=True)]
    expected = theirs.rsa_array(values[:, :, None], list(models), patches=[(slice(None), p) for p in patches])
    found = searchlight(values, near, models).similarity
    np.testing.assert_allclose(found, np.reshape(expected, (3, 40)), atol=1e-5)


@pytest.mark.slow
def test_the_familywise_error_is_at_its_level():
    """1,000 maps of noise that is smooth in space, three layers that resemble each other."""
    rng = np.random.default_rng(0)
    near = line(60, 4)
    kernel = np.exp(-(np.subtract.outer(np.arange(60), np.arange(60)) ** 2) / 8)
    smallest = []
    for number in range(1000):
        shared = rng.standard_normal((16, 6))
        layers = [shared + rng.standard_normal((16, 6)) for _ in range(3)]
        models = np.array([DISSIMILARITIES["correlation"](layer) for layer in layers])
        values = rng.standard_normal((16, 60)) @ kernel
        smallest.append(np.min(searchlight(values, near, models, permutations=199, seed=number).p_familywise))
    assert 0.03 <= np.mean(np.array(smallest) <= 0.05) <= 0.07
    assert kstest(smallest, "uniform").pvalue > 0.01
