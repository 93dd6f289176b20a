"""The best unit against a search written out, and what its choice inside the folds is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress

from bidsdnn.methods.models import Unitwise
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.scores import pearsonr, pooled_pearsonr


def planted(n=40, p=30, v=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) + 5
    return x, x[:, :v] * rng.uniform(1, 2, v) * (-1.0) ** np.arange(v) + 0.5 * rng.standard_normal((n, v))


def written_out(x, y, splits):
    predicted = np.full(y.shape, np.nan)
    for train, test in splits:
        for target in range(y.shape[1]):
            fits = [linregress(unit, y[train, target]) for unit in x[train].T]
            best = int(np.argmax([abs(fit.rvalue) for fit in fits]))
            predicted[test, target] = fits[best].intercept + fits[best].slope * x[test, best]
    return predicted


class Counted:
    """An array on disk, as it were: read by slices of columns only."""

    def __init__(self, values):
        self.values, self.shape, self.read, self.widest = values, values.shape, 0, 0

    def __getitem__(self, key):
        rows, columns = key
        assert rows == slice(None) and isinstance(columns, slice)
        self.read, self.widest = self.read + 1, max(self.widest, columns.stop - columns.start)
        return self.values[:, columns]


@pytest.mark.parametrize("units", [4, 7, 2048])
def test_it_is_the_search_written_out_whatever_is_read_at_a_time(units, monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.models.unitwise._UNITS", units)
    monkeypatch.setattr("bidsdnn.methods.models.unitwise._TARGETS", 4)
    x, y = planted()
    splits = kfold(40, 5, seed=0)
    stored = Counted(x)
    predicted = cross_predict(Unitwise(), stored, y, splits)
    np.testing.assert_allclose(predicted, written_out(x, y, splits), rtol=1e-8)
    assert stored.widest <= units and stored.read <= 3 * -(-30 // units)


def test_fit_and_predict_are_what_each_fold_does():
    x, y = planted()
    splits = kfold(40, 4, seed=0)
    predicted = cross_predict(Unitwise(), x, y, splits)
    for train, test in splits:
        model = Unitwise().fit(x[train], y[train])
        np.testing.assert_allclose(model.predict(x[test]), predicted[test])
    model = Unitwise().fit(x, y)
    np.testing.assert_array_equal(model.unit_, range(6))
    with pytest.raises(ValueError, match=r"X: expected shape \(m, 30\), got \(40, 29\)"):
        model.predict(x[:, 1:])


def test_on_noise_the_best_of_many_is_large_and_its_prediction_is_not():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 500)), rng.standard_normal((300, 200))
    best = np.abs(np.corrcoef(x.T, y.T)[:500, 500:]).max(axis=0)
    assert best.mean() > 0.17
    splits = kfold(300, 10, seed=0)
    r = pooled_pearsonr(cross_predict(Unitwise(), x, y, splits), y, splits)
    # Mean of 200 targets, each with a spread of about 1 / sqrt(300) at least.
    assert abs(r.mean()) < 0.02
    assert pearsonr(Unitwise().fit(x, y).predict(x), y).mean() == pytest.approx(best.mean(), abs=1e-6)


def test_drawn_units_are_few_and_the_same_each_time():
    x, y = planted(p=5000)
    model = Unitwise(20, seed=3).fit(x, y)
    drawn = np.random.default_rng(3).choice(5000, 20, replace=False)
    assert set(model.unit_) <= set(drawn)
    r = np.abs(np.corrcoef(x[:, drawn].T, y.T)[:20, 20:])
    np.testing.assert_array_equal(model.unit_, drawn[r.argmax(axis=0)])
    assert Unitwise().fixed().n_units == 1000 and Unitwise(5).fixed().n_units == 5
    assert "20 units" in Unitwise(20).said()


def test_units_that_are_drawn_are_read_once_and_predict_the_same():
    x, y = planted(p=5000)
    splits, model, stored = kfold(40, 5, seed=0), Unitwise(20, seed=3), Counted(x)
    few = model.drawn(stored)
    assert few.shape == (40, 20) and stored.read <= 3
    np.testing.assert_allclose(cross_predict(model, few, y, splits), cross_predict(model, x, y, splits))
    assert Unitwise(5000).drawn(x) is x and Unitwise().drawn(x) is x


def test_a_unit_that_hardly_varies_in_the_training_part_leads_nowhere():
    # As a rectified unit: next to nothing for what is trained on, whose line there is steep, and large elsewhere.
    x, y = planted()
    (train, test), *_ = splits = kfold(40, 5, seed=0)
    quiet = np.zeros(40)
    quiet[train], quiet[test] = 1e-9 * y[train, 0], 3
    with_it = cross_predict(Unitwise(), np.column_stack([x, quiet]), y, [splits[0]])
    np.testing.assert_allclose(with_it[test], cross_predict(Unitwise(), x, y, [splits[0]])[test])
    assert (Unitwise().fit(np.column_stack([quiet, x])[train], y[train]).unit_ > 0).all()


def test_what_is_not_finite_or_does_not_vary():
    x, y = planted()
    whole = cross_predict(Unitwise(), x, y, kfold(40, 5, seed=0))
    broken = np.column_stack([y, np.full(len(y), 3.25), y[:, 0]])
    broken[4, 7] = np.nan
    predicted = cross_predict(Unitwise(), np.column_stack([np.full(40, 0.1), x]), broken, kfold(40, 5, seed=0))
    np.testing.assert_allclose(predicted[:, :6], whole)
    np.testing.assert_allclose(predicted[:, 6], 3.25)
    assert np.isnan(predicted[:, 7]).all()
    for nothing in (np.empty((40, 0)), np.full((40, 3), 0.1)):
        model = Unitwise().fit(nothing, y)
        assert (model.unit_ == -1).all()
        np.testing.assert_allclose(model.predict(nothing)[0], y.mean(axis=0))
        (train, test), *_ = splits = kfold(40, 5, seed=0)
        np.testing.assert_allclose(cross_predict(Unitwise(), nothing, y, splits)[test[0]], y[train].mean(axis=0))
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="X: expected finite"):
        Unitwise().fit(x, y)
    with pytest.raises(ValueError, match="X: expected finite"):
        cross_predict(Unitwise(), x, y, kfold(40, 5, seed=0))
    with pytest.raises(ValueError, match="n_units: expected at least 1, got 0"):
        Unitwise(0).fit(np.nan_to_num(x), y)
