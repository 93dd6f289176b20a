"""Many RDMs at a glance: against each comparison by itself, distances that a plane holds, and scipy's tree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist, squareform

from bidsdnn.methods.arrangement import classical_mds, pairwise_similarity, square_of_pairs, tree
from bidsdnn.methods.similarity import SIMILARITIES


@pytest.mark.parametrize("comparison", SIMILARITIES)
def test_each_two_are_compared(comparison):
    rng = np.random.default_rng(0)
    rdms = np.array([pdist(rng.standard_normal((6, 3))) for _ in range(4)])
    rdms[2, 3] = np.nan
    found = pairwise_similarity(rdms, comparison=comparison)
    expected = [[SIMILARITIES[comparison](a, b) for b in rdms] for a in rdms]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[2]).all() and np.isfinite(found[0, [0, 1, 3]]).all()
    with pytest.raises(ValueError, match="comparison: expected one of"):
        pairwise_similarity(rdms, comparison="x")


@pytest.mark.parametrize("squared", [True, False])
def test_a_plane_keeps_the_distances_of_a_plane(squared):
    points = np.random.default_rng(1).standard_normal((9, 2))
    places, share = classical_mds(squareform(pdist(points, "sqeuclidean" if squared else "euclidean")), squared=squared)
    assert share == pytest.approx(1)
    np.testing.assert_allclose(pdist(places), pdist(points), atol=1e-10)
    assert (np.abs(places).max(axis=0) == places.max(axis=0)).all()
    assert places[:, 0].var() > places[:, 1].var()
    line, _ = classical_mds(squareform(pdist(points[:, :1])))
    np.testing.assert_allclose(line[:, 1], 0, atol=1e-10)
    np.testing.assert_allclose(np.abs(classical_mds([[0, 2], [2, 0]])[0])[:, 0], 1)
    assert np.isnan(classical_mds(np.zeros((5, 5)))[1])


def test_a_plane_of_more_dimensions_is_the_best_of_the_inner_products():
    points = np.random.default_rng(2).standard_normal((8, 5))
    centred = points - points.mean(axis=0)
    places, share = classical_mds(squareform(pdist(points)))
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(left[:, :2] * size[:2]), atol=1e-10)
    assert share == pytest.approx((size[:2] ** 2).sum() / (size**2).sum())


def test_the_tree_is_average_linkage_with_neighbours_side_by_side():
    points = np.array([[0.0], [10.0], [0.5], [10.4], [30.0]])
    square = squareform(pdist(points))
    links, order = tree(square)
    np.testing.assert_allclose(cophenet(links), cophenet(linkage(pdist(points), "average")))
    assert order.tolist() in ([0, 2, 1, 3, 4], [4, 3, 1, 2, 0])
    with pytest.raises(ValueError, match="at least 2 items"):
        tree([[0.0]])


@pytest.mark.parametrize("shift", [0, -20])
def test_leaves_keep_clusters_together_and_negative_distances_their_order(shift):
    group = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], 5))
    points = group[:, None] * 10 + np.random.default_rng(3).normal(size=(15, 2))
    _, order = tree(squareform(pdist(points) + shift, checks=False))
    assert sorted(order) == list(range(15))
    assert (np.diff(group[order]) != 0).sum() == 2


@pytest.mark.parametrize("distances", [[[0, 1], [2, 0]], [[0, np.nan], [np.nan, 0]], [[0, 1, 2], [1, 0, 3]]])
def test_what_is_no_matrix_of_distances(distances):
    with pytest.raises(ValueError, match="expected a symmetric matrix of finite numbers"):
        classical_mds(distances)


def test_pairs_become_a_matrix():
    items, square = square_of_pairs(["b", "b"], ["a", "c"], [0.5, 0.25])
    assert items == ["b", "a", "c"]
    np.testing.assert_array_equal(square, [[1, 0.5, 0.25], [0.5, 1, np.nan], [0.25, np.nan, 1]])
