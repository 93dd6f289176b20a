"""Best layers, depth and networks in the encoding of arrays: planted truth, formulas written out, calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.analyses import encoding
from bidsdnn.encoding.held import Keeping
from bidsdnn.errors import ConfigError
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.scores import pooled_pearsonr
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns

N = 60
IDS = [f"s{i:02d}" for i in range(N)]
OPTIONS = {"permutations": 19, "seed": 1, "map": serial, "cv": "kfold:5", "inner_splits": 3, "bootstrap": 100}
PLACE = np.arange(40)
REGIONS = {"a": {"V1": PLACE < 15, "V4": (PLACE >= 15) & (PLACE < 30), "none": PLACE >= 30}}


def table(groups):
    return Patterns(pd.DataFrame({"stimulus_id": IDS}), tuple(groups))


@pytest.fixture(scope="module")
def planted():
    """Two networks of three layers: V1 is of the first network's first layer, V4 of its last one."""
    rng = np.random.default_rng(0)
    layers = {(net, name): rng.normal(size=(N, 8)) for net in ("one", "two") for name in ("l1", "l2", "l3")}
    y = rng.normal(size=(N, 40))
    y[:, :15] += layers["one", "l1"] @ rng.normal(size=(8, 15))
    y[:, 15:30] += layers["one", "l3"] @ rng.normal(size=(8, 15))
    x = table(Group(name, values, net) for (net, name), values in layers.items())
    return x, table([Group("brain", y.astype(np.float32))])


@pytest.fixture(scope="module")
def result(planted):
    ceiling = np.full(40, 0.9)
    return encoding(*planted, regions=REGIONS, ceiling=ceiling, hierarchy=["V1", "V4"], **OPTIONS)


def test_the_planted_layers_are_best_and_sure(result):
    regions = result.tables["hierarchy"].set_index(["network", "region"])
    assert regions.loc[("one", "V1"), "layer"] == "l1"
    assert regions.loc[("one", "V4"), "layer"] == "l3"
    assert (regions.loc[[("one", "V1"), ("one", "V4")], "confidence"] > 0.95).all()
    assert (regions.loc[[("one", "V1"), ("one", "V4")], "pearsonr"] > 0.6).all()
    assert regions.loc[("one", "V1"), "depth"] < 0.1
    assert regions.loc[("one", "V4"), "depth"] > 0.9
    assert regions.loc[("one", "none"), "pearsonr"] < 0.15
    assert regions.loc[("one", "V1"), "pearsonr_normalized"] == pytest.approx(
        regions.loc[("one", "V1"), "pearsonr"] / 0.9
    )
    layers = result.tables["bestlayer"].set_index(["network", "region", "layer"])
    assert layers.loc[("one", "V1", "l1"), "chosen"] == 1
    assert layers.sort_index().loc[("one", "V4")]["confidence"].sum() == pytest.approx(1)
    assert layers.sort_index().loc[("one", "V4")]["voxels"].sum() == pytest.approx(1)


def test_confidence_maps_hold_shares(result):
    share = next(m for m in result.maps if (m.stat, m.network) == ("confidence", "one"))
    assert share.desc == "bestlayer"
    assert share.sidecar["Layers"] == ["l1", "l2", "l3"]
    np.testing.assert_allclose(share.values.sum(axis=0), 1, atol=1e-6)
    assert share.values[0, :15].mean() > 0.9
    assert share.values[:, 30:].max(axis=0).mean() < 0.9


def test_the_hierarchy_score_of_the_planted_order(result):
    rows = result.tables["hierarchy"].set_index(["network", "region"])
    assert rows.loc[("one", "hierarchy"), "hierarchy_score"] > 0.9
    assert 0 <= rows.loc[("one", "hierarchy"), "hierarchy_se"] < 0.2
    assert rows["hierarchy_score"].drop([("one", "hierarchy"), ("two", "hierarchy")]).isna().all()


def test_networks_are_told_apart_where_one_explains_the_region(result):
    pairs = result.tables["networks"].set_index("region")
    assert (pairs["first"] + pairs["second"] == "onetwo").all()
    assert pairs.loc["V1", "p_fwe"] < 0.001
    assert pairs.loc["V1", "difference"] == pytest.approx(
        pairs.loc["V1", "first_pearsonr"] - pairs.loc["V1", "second_pearsonr"]
    )
    assert pairs.loc["none", "p"] > 0.05
    rows = result.tables["hierarchy"].set_index(["network", "region"])
    assert pairs.loc["V4", "first_pearsonr"] == pytest.approx(rows.loc[("one", "V4"), "pearsonr_voxelwise"], abs=1e-5)


def test_the_nested_score_is_that_of_predictions_put_together(planted, result):
    x, y = planted
    splits, model = kfold(N, 5, seed=seed_for(1, "folds")), Ridge(n_splits=3, seed=seed_for(1, "encoding"))
    groups = x.groups[:3]
    predicted = np.array([cross_predict(model, one.values, y.values, splits) for one in groups])
    together = np.empty(y.values.shape)
    for train, test in splits:
        inside = kfold(len(train), 3, seed=seed_for(1, "encoding"))
        inner = [
            pooled_pearsonr(model.operator(one.values[train], inside) @ y.values[train], y.values[train], inside)
            for one in groups
        ]
        together[test] = np.take_along_axis(predicted[:, test], np.argmax(inner, axis=0)[None, None], axis=0)[0]
    found = next(m for m in result.maps if (m.stat, m.desc, m.network) == ("pearsonr", "bestlayer", "one"))
    np.testing.assert_allclose(found.values, pooled_pearsonr(together, y.values, splits), atol=1e-4)


def test_scratch_files_give_the_same_numbers(planted, result, tmp_path):
    again = encoding(*planted, regions=REGIONS, hierarchy=["V1", "V4"], scratch=tmp_path, **OPTIONS)
    assert len(list(tmp_path.iterdir())) == 6
    for name in ("bestlayer", "networks"):
        pd.testing.assert_frame_equal(again.tables[name], result.tables[name])


def test_a_voxel_that_cannot_be_scored_is_in_no_mean(planted):
    x, y = planted
    values = y.values.copy()
    values[:, 0], values[:, 16] = 3.0, np.nan
    found = encoding(x, table([Group("brain", values)]), regions=REGIONS, **OPTIONS)
    rows = found.tables["hierarchy"].set_index(["network", "region"])
    assert rows.loc["one", "n_voxels"].to_dict() == {"V1": 14, "V4": 14, "none": 10}
    assert rows.loc[("one", "V4"), "pearsonr"] > 0.6
    nested = next(m for m in found.maps if (m.stat, m.desc) == ("pearsonr", "bestlayer"))
    assert np.flatnonzero(np.isnan(nested.values)).tolist() == [0, 16]


def test_no_bootstrap_and_a_misspelt_region(planted):
    assert "bestlayer" not in encoding(*planted, regions=REGIONS, **{**OPTIONS, "bootstrap": 0}).tables
    with pytest.raises(ConfigError, match="'V2' is no region of atlas a; it has V1, V4, none"):
        encoding(*planted, regions=REGIONS, hierarchy=["V1", "V2"], **OPTIONS)


class Refitted:
    """A model without an operator."""

    def fit(self, x, y):
        self.model = Ridge(penalties=[1.0]).fit(x, y)

    def predict(self, x):
        return self.model.predict(x)


def test_a_model_without_an_operator_is_refitted_within_the_training_part(planted):
    x, y = planted
    splits = kfold(N, 5, seed=0)
    keeping = Keeping(inner_splits=3, seed=2)
    features = x.groups[0].values
    one = keeping.inner(Refitted(), features, y.values[:, :5], splits)
    other = keeping.inner(Ridge(penalties=[1.0]), features, y.values[:, :5], splits)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "n_voxels", "n_units"), [(0.0, 6, 40), (0.4, 6, 12), (1.0, 1, 40)])
def test_two_networks_that_explain_as_much_are_rarely_told_apart(signal, n_voxels, n_units):
    """1,000 seeded simulations a case; the nested score on noise centres on zero."""
    n, p, r = 40, [], []
    for simulation in range(1000):
        rng = np.random.default_rng([11, simulation])
        layers = {(net, name): rng.normal(size=(n, n_units)) for net in ("a", "b") for name in ("l1", "l2")}
        y = rng.normal(size=(n, n_voxels))
        for net in ("a", "b"):
            weights = rng.normal(size=(n_units, n_voxels))
            y += signal * layers[net, "l1"] @ (weights / np.linalg.norm(weights, axis=0))
        items = pd.DataFrame({"stimulus_id": IDS[:n]})
        found = encoding(
            Patterns(items, tuple(Group(name, values, net) for (net, name), values in layers.items())),
            Patterns(items, (Group("brain", y),)), regions={"": {"brain": np.ones(n_voxels, dtype=bool)}},
            encoder_parameters={"penalties": [1.0]}, **{**OPTIONS, "seed": simulation, "permutations": 1},
        )  # fmt: skip
        p.append(found.tables["networks"]["p"].iloc[0])
        r.append(found.tables["hierarchy"]["pearsonr_voxelwise"].mean())
    assert np.mean(np.array(p) <= 0.05) <= 0.07
    if signal == 0:
        assert abs(np.mean(r)) < 3 * np.std(r) / np.sqrt(len(r)) + 0.02


def test_weights_on_stimuli_are_those_of_the_units(planted):
    """w = X' alpha of a layer with more units than stimuli, against the fit to the units themselves."""
    _, y = planted
    rng = np.random.default_rng(5)
    values = rng.normal(size=(N, 90)) + 1
    found = encoding(table([Group("l", values, "net")]), y, regions=REGIONS, save_weights=True, **OPTIONS)
    (stored,) = found.columns
    assert (stored.suffix, stored.ids, stored.dtypes) == ("weights", IDS, {"alpha/l": "float32"})
    alpha = stored.tables["alpha/l"](slice(0, 40))
    model = Ridge(n_splits=3, seed=found.sidecar["EncoderFit"]["Seed"]).fit(values, y.values)
    np.testing.assert_allclose(values.T @ alpha, model.coef_, atol=1e-4)
    new = rng.normal(size=(7, 90))
    np.testing.assert_allclose(new @ values.T @ alpha + stored.vectors["intercept/l"], model.predict(new), atol=2e-4)
    np.testing.assert_allclose(stored.vectors["penalty/l"], model.penalty_)


class Squared:
    """A model that is not linear."""

    def fit(self, x, y):
        self.mean = y.mean(axis=0)

    def predict(self, x):
        return (np.asarray(x) ** 2).sum(axis=1)[:, None] + self.mean

    def operator(self, x, splits):
        return np.full((len(x), len(x)), 1 / len(x))


def test_a_model_that_is_not_linear_has_no_weights(planted):
    x, y = planted
    with pytest.raises(ValueError, match="Squared is not linear in the features"):
        Keeping(weights=True).fitted(Squared(), x.groups[0].values, y.values, "net", "l")


def test_the_best_voxels_predictions_are_those_of_their_scores(planted, result):
    voxels = result.tables["bestvoxels"]
    assert voxels.groupby("network")["voxel"].nunique().to_dict() == {"one": 4, "two": 4}
    for _, one in voxels.groupby(["network", "voxel"]):
        assert np.corrcoef(one["prediction"], one["measured"])[0, 1] == pytest.approx(one["pearsonr"].iloc[0], abs=1e-4)
        assert one["stimulus_id"].tolist() == IDS


def test_predictions_are_kept_by_option(planted, result):
    kept = encoding(*planted, regions=REGIONS, save_predictions=True, **{**OPTIONS, "bootstrap": 0})
    one, two = kept.columns
    assert (one.suffix, one.network, list(one.tables)) == ("predictions", "one", ["l1", "l2", "l3"])
    splits = kfold(N, 5, seed=seed_for(1, "folds"))
    r = next(m for m in result.maps if (m.stat, m.desc, m.network) == ("pearsonr", "", "two")).values
    found = pooled_pearsonr(two.tables["l2"](slice(0, 40)), planted[1].values, splits)
    np.testing.assert_allclose(found, r[1], atol=1e-5)
