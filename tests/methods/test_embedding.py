from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from bidsdnn.methods.embedding import classical_mds, leaf_order


@pytest.mark.parametrize("squared", [True, False])
def test_points_of_a_plane_are_found_again(squared):
    points = np.random.default_rng(0).normal(size=(15, 2)) * [3, 1]
    rdm = pdist(points, "sqeuclidean" if squared else "euclidean")
    places, share = classical_mds(rdm, squared=squared)
    np.testing.assert_allclose(pdist(places), pdist(points), atol=1e-9)
    assert share == pytest.approx(1)
    assert places[:, 0].var() > places[:, 1].var()


def test_scaling_is_the_principal_components_of_the_patterns():
    patterns = np.random.default_rng(1).normal(size=(20, 30))
    places, share = classical_mds(pdist(patterns, "sqeuclidean"))
    u, s, _ = np.linalg.svd(patterns - patterns.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(u[:, :2] * s[:2]), atol=1e-8)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum())


def test_what_cannot_be_placed_is_refused():
    with pytest.raises(ValueError, match="finite"):
        classical_mds(np.full(15, np.nan))
    assert np.isnan(classical_mds(np.zeros(15))[1])


def test_leaves_keep_clusters_together():
    group = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], 5))
    points = group[:, None] * 10 + np.random.default_rng(3).normal(size=(15, 2))
    rdm = pdist(points)
    order = leaf_order(rdm)
    assert sorted(order) == list(range(15))
    assert (np.diff(group[order]) != 0).sum() == 2
    rdm[0] = np.nan
    assert len(leaf_order(rdm - 20)) == 15
