"""Searchlight decoding against scikit-learn's ridge, neighbourhood by neighbourhood."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score

from bidsdnn.methods.predict import kfold
from bidsdnn.methods.searchlight_decoding import searchlight_decoding

N, V, CLASSES = 30, 12, 3


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N) % CLASSES)
    x = rng.standard_normal((N, V)) + 4
    x[:, :4] += 2 * np.eye(CLASSES, 4)[y]
    x[0, 11] = np.nan
    near = csr_array([[max(0, c - 2) <= v <= c + 2 for v in range(V)] for c in range(V)])
    orders = np.array([rng.permutation(N) for _ in range(39)])
    return x, near, y, kfold(N, 5, seed=0), orders


def slow(x, y, splits):
    said = np.empty(N, dtype=int)
    for train, test in splits:
        rows = x[train] - x[train].mean(axis=0)
        penalty = (rows**2).sum() / (len(train) - 1)
        said[test] = Ridge(alpha=penalty).fit(x[train], np.eye(CLASSES)[y[train]]).predict(x[test]).argmax(axis=1)
    return balanced_accuracy_score(y, said)


def test_neighbourhoods_and_relabellings_are_scikit_learns(data):
    x, near, y, splits, orders = data
    found = searchlight_decoding(x, near, y, splits, n_classes=CLASSES, orders=orders)
    null = []
    for centre in range(V):
        inside = [v for v in np.flatnonzero(near.toarray()[centre]) if v != 11]
        observed = slow(x[:, inside], y, splits)
        assert found.balanced_accuracy[centre] == pytest.approx(observed)
        null.append([slow(x[:, inside], y[order], splits) for order in orders])
        assert found.p[centre] == pytest.approx((1 + np.sum(np.array(null[-1]) >= observed - 1e-9)) / 40)
    largest = np.max(null, axis=0)
    for centre in range(V):
        reached = np.sum(largest >= found.balanced_accuracy[centre] - 1e-6)
        assert found.p_familywise[centre] == pytest.approx((1 + reached) / 40)
    assert found.balanced_accuracy[:4].min() > 0.5


def test_a_fold_may_leave_items_out(data):
    x, near, y, _, orders = data
    splits = [(np.arange(18), np.arange(20, 30))]
    found = searchlight_decoding(x, near, y, splits, n_classes=CLASSES, orders=orders)
    rows = x[:18, :3] - x[:18, :3].mean(axis=0)
    model = Ridge(alpha=(rows**2).sum() / 17).fit(x[:18, :3], np.eye(CLASSES)[y[:18]])
    said = model.predict(x[20:, :3]).argmax(axis=1)
    assert found.balanced_accuracy[0] == pytest.approx(balanced_accuracy_score(y[20:], said))


def test_lone_columns_are_unknown_and_shapes_are_checked(data):
    x, _, y, splits, orders = data
    found = searchlight_decoding(x, csr_array(np.eye(V, dtype=bool)), y, splits, n_classes=CLASSES, orders=orders)
    assert np.isnan(found).all()
    with pytest.raises(ValueError, match="values, adjacency, labels"):
        searchlight_decoding(x, csr_array((V, V + 1)), y, splits, n_classes=CLASSES, orders=orders)
    with pytest.raises(ValueError, match="penalty"):
        searchlight_decoding(x, csr_array((V, V)), y, splits, n_classes=CLASSES, orders=orders, penalty=0)
