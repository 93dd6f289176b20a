from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from bidsdnn.methods.predict import kfold, prediction_operator, region_permutation
from bidsdnn.methods.scores import pooled_pearsonr
from bidsdnn.methods.searchlight_encoding import encoding_permutation, pooled
from bidsdnn.parallel import workers


def line(size: int, reach: int) -> csr_array:
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return csr_array(distance <= reach)


def some(n: int = 24, size: int = 40) -> tuple[list[np.ndarray], np.ndarray, list]:
    rng = np.random.default_rng(0)
    splits = kfold(n, 6, seed=0)
    features = [rng.standard_normal((n, 3)) for _ in range(2)]
    y = rng.standard_normal((n, size))
    y[:, 10:20] += features[0] @ rng.standard_normal((3, 10))
    return [prediction_operator(x, splits) for x in features], y, splits


def drawn(permutations: int, seed: int, n: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(n) for _ in range(permutations)]).reshape(permutations, n)


def test_a_neighbourhoods_score_is_the_mean_over_its_scored_columns():
    scores = np.random.default_rng(0).standard_normal((3, 20))
    scores[:, 4], scores[0, 5] = np.nan, np.nan
    found = pooled(scores, line(20, 2))
    np.testing.assert_allclose(found[1, 4], scores[1, [2, 3, 5, 6]].mean())
    np.testing.assert_allclose(found[0, 19], scores[0, 17:].mean())
    lonely = pooled(scores[:, :6], csr_array(np.eye(6) + np.diag([0, 0, 0, 1, 0], 1)))
    assert np.isnan(lonely).all(), "one column is no neighbourhood, nor is one with one score"
    with pytest.raises(ValueError, match=r"scores, adjacency: expected shapes .*, got \(3, 20\), \(9, 9\)"):
        pooled(scores, line(9, 1))


def test_p_is_that_of_a_region_for_each_neighbourhood():
    operators, y, splits = some()
    y[3, 30], y[:, 31] = np.nan, 7
    p, p_familywise = encoding_permutation(operators, y, line(40, 2), splits, orders=drawn(50, 1))
    for h, row in zip(operators, p, strict=True):
        expected, _ = region_permutation(h, y, line(40, 2).toarray(), splits, permutations=50, seed=1)
        np.testing.assert_allclose(row, expected)
    assert (p_familywise >= p - 1e-12).all()


def test_familywise_p_follows_from_the_largest_mean_of_each_relabelling():
    operators, y, splits = some()
    near = line(40, 2)
    _, found = encoding_permutation(operators, y, near, splits, orders=drawn(30, 5))
    rng = np.random.default_rng(5)
    orders = [np.arange(24), *(rng.permutation(24) for _ in range(30))]
    means = []
    for order in orders:
        moved = [h[np.ix_(order, order)] for h in operators]
        # Relabelled predictions: the operator's rows and columns move together, and so do the folds.
        back = [(np.flatnonzero(np.isin(order, train)), np.flatnonzero(np.isin(order, test))) for train, test in splits]
        means.append([pooled(pooled_pearsonr(h @ y, y, back)[None], near)[0] for h in moved])
    null = np.array(means)
    scale = np.sqrt((null**2).mean(axis=(0, 2)))
    largest = (null[1:] / scale[:, None]).max(axis=(1, 2))
    expected = (1 + (largest[:, None, None] >= null[0] / scale[:, None] - 1e-6).sum(axis=0)) / 31
    np.testing.assert_allclose(found, expected)


def test_planted_prediction_is_found_where_it_is_and_workers_do_not_matter():
    operators, y, splits = some()
    found = encoding_permutation(operators, y, line(40, 2), splits, orders=drawn(200, 0))
    significant = np.flatnonzero(found[1][0] < 0.05)
    assert set(range(12, 18)) <= set(significant) <= set(range(8, 22))
    assert not (found[1][1] < 0.05).any()
    with workers(2) as spread:
        again = encoding_permutation(operators, y, line(40, 2), splits, orders=drawn(200, 0), map=spread)
    np.testing.assert_array_equal(found, again)


def test_arguments_that_make_no_sense_are_refused():
    operators, y, splits = some()
    with pytest.raises(ValueError, match="orders: expected one or more orders of 24"):
        encoding_permutation(operators, y, line(40, 2), splits, orders=drawn(0, 0))
    with pytest.raises(ValueError, match="operators, y, adjacency: expected shapes"):
        encoding_permutation(operators, y, line(39, 2), splits, orders=drawn(2, 0))
