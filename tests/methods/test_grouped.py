"""Training parts averaged over the items of a stimulus."""

from __future__ import annotations

import copy

import numpy as np

from bidsdnn.encoding.held import Keeping
from bidsdnn.encoding.joint import FoldFit
from bidsdnn.methods.folds import blocks_out
from bidsdnn.methods.grouped import Grouped, GroupedLinear, grouped
from bidsdnn.methods.models import BandedRidge, Ridge
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


def repeated_items():
    """Features, responses, splits by runs, and what a training part's averages are."""
    rng = np.random.default_rng(1)
    stimulus = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 8, 9, 10, 11, 2, 3])
    x, y = rng.normal(size=(12, 5))[stimulus], rng.normal(size=(16, 4))
    splits = blocks_out(list("aaaaabbbbbcccccc"), stimulus)

    def averages(table, train):
        return np.array([table[train][stimulus[train] == one].mean(axis=0) for one in np.unique(stimulus[train])])

    return stimulus, x, y, splits, averages


def test_layers_are_chosen_by_inner_folds_that_do_not_divide_a_stimulus():
    stimulus, x, y, splits, averages = repeated_items()
    found = Keeping(inner_splits=3, groups=stimulus).inner(grouped(Ridge(n_splits=3), stimulus), x, y, splits)
    for row, (train, _) in zip(found, splits, strict=True):
        one, other = averages(x, train), averages(y, train)
        alone = Keeping(inner_splits=3).inner(Ridge(n_splits=3), one, other, [(np.arange(len(one)), np.arange(0))])
        np.testing.assert_allclose(row, alone[0], rtol=1e-5)


def test_models_without_an_operator_average_a_training_part_too():
    stimulus, x, y, splits, averages = repeated_items()
    found = Keeping(inner_splits=3, groups=stimulus).inner(grouped(Plain(), stimulus), x, y, splits)
    train = splits[2][0]
    one, other = averages(x, train), averages(y, train)
    alone = Keeping(inner_splits=3).inner(Plain(), one, other, [(np.arange(len(one)), np.arange(0))])
    np.testing.assert_allclose(found[2], alone[0], rtol=1e-5)


def test_a_model_of_all_layers_is_fitted_to_averages_as_well():
    stimulus, x, y, splits, averages = repeated_items()
    bands, (train, test) = [[0, 1], [2, 3, 4]], splits[2]
    grams = [x[:, columns] @ x[:, columns].T for columns in bands]
    model = BandedRidge(n_splits=3, n_candidates=4, columns=[2, 3])
    _, predicted = FoldFit(model, grams, [[0], [1]], y, stimulus, keep=True)((train, test))
    expected = BandedRidge(n_splits=3, n_candidates=4, columns=[2, 3]).fit(averages(x, train), averages(y, train))
    np.testing.assert_allclose(predicted, expected.predict(x[test]))
