"""Training parts averaged over the items of a stimulus."""

from __future__ import annotations

import copy

import numpy as np

from bidsdnn.methods.folds import blocks_out
from bidsdnn.methods.grouped import Grouped, GroupedLinear, grouped
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.null import Products, held_out_scaled, scorer


class Plain:
    takes = "units"

    def fit(self, X, Y):
        self.seen = len(X)
        self.ridge = Ridge(n_splits=3).fit(X, Y)
        return self

    def predict(self, X):
        return self.ridge.predict(X)


def test_a_stimulus_in_several_runs_is_trained_on_once():
    rng = np.random.default_rng(0)
    stimulus = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 8, 9, 10, 11, 2, 3])
    runs = list("aaaaabbbbbcccccc")
    x, y = rng.normal(size=(12, 5))[stimulus], rng.normal(size=(16, 4))
    splits = blocks_out(runs, stimulus)
    model = grouped(Ridge(n_splits=3), stimulus)
    predicted, _ = held_out_scaled(model, x, y, splits)
    train, test = splits[2]
    names = np.unique(stimulus[train])
    assert len(names) < len(train)
    averages = [np.array([table[train][stimulus[train] == name].mean(axis=0) for name in names]) for table in (x, y)]
    np.testing.assert_allclose(predicted[test], Ridge(n_splits=3).fit(*averages).predict(x[test]))
    assert isinstance(model, GroupedLinear)
    assert isinstance(scorer(model, x, splits), Products)


def test_other_models_keep_what_they_are():
    groups = np.array([0, 0, 1, 2])
    model = grouped(Plain(), groups)
    assert type(model) is Grouped
    assert model.takes == "units"
    assert not hasattr(copy.deepcopy(model), "operator")
    plain = Plain()
    assert grouped(plain, np.arange(4)) is plain
