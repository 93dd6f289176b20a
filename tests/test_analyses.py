"""Encoding and RSA on arrays: planted truth, references written out, and what cannot be scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kstest, spearmanr

from bidsdnn.analyses import encoding, reliability
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry import METRICS, region_rdms, rsa
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.scores import pooled_pearsonr
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns

IDS = [f"s{i:02d}" for i in range(40)]


def brain(values):
    return Patterns(pd.DataFrame({"stimulus_id": IDS[: len(values)]}), (Group("brain", values),))


def layers(**values):
    items = pd.DataFrame({"stimulus_id": IDS[: len(next(iter(values.values())))]})
    return Patterns(items, tuple(Group(name, value, "net") for name, value in values.items()))


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(size=(40, 300)), rng.normal(size=(40, 300))
    right[:, :3] *= 12
    responses = (right[:, :3] @ rng.normal(size=(3, 20)) / 12 + rng.normal(size=(40, 20))).astype(np.float32)
    return layers(right=right, wrong=wrong), brain(responses)


OPTIONS = {"permutations": 99, "seed": 1, "map": serial}


def test_encoding_finds_the_planted_layer(planted):
    x, y = planted
    regions = {"a": {"all": np.ones(20, dtype=bool)}}
    result = encoding(x, y, regions=regions, **OPTIONS)
    table = result.tables["encoding"].set_index("layer")
    assert table.loc["right", "pearsonr"] > 0.4
    assert table.loc["right", "p"] == 0.01
    assert table.loc["wrong", "pearsonr"] < 0.1
    assert table.loc["wrong", "p"] > 0.05
    best = next(m for m in result.maps if m.desc == "bestlayer")
    assert (best.values == 1).mean() > 0.9
    folds = result.tables["encodingfolds"]
    assert len(folds) == 2 * 10
    assert folds.groupby("layer")["pearsonr"].mean()["right"] > 0.3


def test_encoding_through_the_rotation_is_encoding_from_the_units(planted):
    x, y = planted
    regions = {"": {"brain": np.ones(20, dtype=bool)}}
    result = encoding(x, y, regions=regions, cv="kfold:5", **OPTIONS)
    splits = kfold(40, 5, seed=seed_for(1, "folds"))
    model = Ridge(seed=seed_for(1, "encoding"))
    predicted = cross_predict(model, x.groups[0].values, y.values, splits)
    np.testing.assert_allclose(result.maps[0].values[0], pooled_pearsonr(predicted, y.values, splits), atol=1e-5)


def test_scores_are_normalised_by_the_ratio_of_means(planted):
    x, y = planted
    ceiling = np.linspace(0.01, 0.96, 20)
    ceiling[19] = np.nan
    regions = {"a": {"most": np.arange(20) < 18, "high": np.arange(20) >= 15, "low": np.arange(20) < 3}}
    result = encoding(x, y, regions=regions, ceiling=ceiling, **OPTIONS)
    r, table = result.maps[0].values[0], result.tables["encoding"].set_index(["layer", "region"])
    assert table.loc[("right", "most"), "ceiling"] == pytest.approx(ceiling[:18].mean())
    assert table.loc[("right", "most"), "pearsonr_normalized"] == pytest.approx(r[:18].mean() / ceiling[:18].mean())
    # A voxel whose ceiling is not known is in neither mean.
    assert table.loc[("right", "high"), "pearsonr_normalized"] == pytest.approx(r[15:19].mean() / ceiling[15:19].mean())
    assert table.loc[("right", "high"), "pearsonr"] == pytest.approx(r[15:].mean())
    assert table["n_voxels_low_ceiling"].to_dict()[("right", "most")] == 2
    assert table.loc[("right", "low"), "n_voxels_low_ceiling"] == 2
    assert np.isnan(table.loc[("right", "low"), "pearsonr_normalized"])
    assert "ceiling" not in encoding(x, y, regions=regions, **OPTIONS).tables["encoding"]


def test_columns_that_cannot_be_scored_are_nan_and_counted(planted):
    x, y = planted
    values = y.values.copy()
    values[:, 0], values[:, 1], values[5, 2] = 3.0, np.nan, np.inf
    regions = {"a": {"some": np.arange(20) < 6, "bad": np.arange(20) < 3, "empty": np.zeros(20, dtype=bool)}}
    result = encoding(x, brain(values), regions=regions, **OPTIONS)
    assert np.isnan(result.maps[0].values[:, :3]).all()
    assert np.isfinite(result.maps[0].values[:, 3:]).all()
    table = result.tables["encoding"]
    assert table.groupby("region")["n_voxels"].first().to_dict() == {"bad": 0, "empty": 0, "some": 3}
    unscored = table[table["region"] != "some"]
    assert unscored[["pearsonr", "r2", "p"]].isna().all(axis=None)
    assert result.sidecar["NumberOfVoxelsNotScored"] == 3


def test_p_of_a_large_region_comes_from_a_sample_of_its_voxels(planted, monkeypatch):
    x, y = planted
    regions = {"a": {"all": np.ones(20, dtype=bool), "few": np.arange(20) < 4}}
    exact = encoding(x, y, regions=regions, **OPTIONS).tables["encoding"]
    monkeypatch.setattr("bidsdnn.encoding.significance.MOST_TESTED", 5)
    result = encoding(x, y, regions=regions, **OPTIONS, voxelwise=False)
    thin, tests = result.tables["encoding"], ["p", "p_fwe", "q"]
    pd.testing.assert_frame_equal(thin.drop(columns=tests), exact.drop(columns=tests))
    assert "p" not in [one.stat for one in result.maps]
    assert "of more than 5 voxels that of 5 drawn at random" in result.sidecar["Methods"]
    few = thin["region"] == "few"
    assert thin.loc[few, "p"].tolist() == exact.loc[few, "p"].tolist()
    assert thin.loc[~few, "p"].tolist() != exact.loc[~few, "p"].tolist()
    assert thin.loc[(thin["region"] == "all") & (thin["layer"] == "right"), "p"].item() == 0.01


def test_fewer_stimuli_than_folds():
    x, y = layers(a=np.ones((6, 3))), brain(np.ones((6, 2)))
    with pytest.raises(ValueError, match="6 distinct stimuli for 10 folds"):
        encoding(x, y, regions={}, **OPTIONS)
    with pytest.raises(DataError, match="RSA needs 4"):
        rsa(None, brain(np.ones((3, 2))), regions={}, **OPTIONS)


def test_rsa_is_the_rank_correlation_of_scipys_distances(planted):
    x, y = planted
    regions = {"a": {"all": np.ones(20, dtype=bool), "one": np.arange(20) == 0}}
    result = rsa(x, y, regions=regions, **OPTIONS)
    table = result.tables["rsa"].set_index(["comparison", "layer", "region"])
    expected = spearmanr(pdist(x.groups[0].values, "correlation"), pdist(y.values, "correlation")).statistic
    assert table.loc[("spearman", "right", "all"), "similarity"] == pytest.approx(expected, abs=1e-9)
    expected = np.corrcoef(pdist(x.groups[1].values, "correlation"), pdist(y.values, "correlation"))[0, 1]
    assert table.loc[("pearson", "wrong", "all"), "similarity"] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(table.loc[("spearman", "right", "one"), "similarity"])
    ids, rdms = result.arrays["a"]
    assert ids == IDS
    np.testing.assert_allclose(rdms["all"], pdist(y.values, "correlation"), atol=1e-9)
    assert np.isnan(rdms["one"]).all()


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("comparison", sorted(SIMILARITIES))
def test_every_metric_and_comparison_runs(planted, metric, comparison):
    x, y = planted
    x = x.select(lambda group: group.name == "right")
    rates = Patterns(x.items, tuple(Group(g.name, np.exp(g.values / 10), g.network) for g in x.groups))
    regions = {"a": {"all": np.ones(20, dtype=bool)}}
    options = {**OPTIONS, "permutations": 9, "metric": metric, "comparisons": [comparison]}
    result = rsa(rates, brain(np.exp(y.values / 5)), regions=regions, **options)
    row = result.tables["rsa"].iloc[0]
    expected = SIMILARITIES[comparison](rates.groups[0].rdm(metric), result.arrays["a"][1]["all"])
    assert row["similarity"] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(rates.groups[0].rdm(metric), METRICS[metric](rates.groups[0].values), atol=1e-9)
    assert (row["metric"], row["comparison"]) == (metric, comparison)


def test_unknown_metric_or_comparison(planted):
    with pytest.raises(ConfigError, match="did you mean euclidean"):
        rsa(*planted, regions={}, **OPTIONS, metric="euclidian")
    with pytest.raises(DataError, match="crossnobis needs single trials"):
        rsa(*planted, regions={}, **OPTIONS, metric="crossnobis")
    with pytest.raises(ConfigError, match="did you mean spearman"):
        rsa(*planted, regions={}, **OPTIONS, comparisons=["spearmann"])


def test_rsa_without_network_gives_the_regions_rdms(planted):
    _, y = planted
    result = rsa(None, y, regions={"": {"brain": np.ones(20, dtype=bool)}}, **OPTIONS)
    assert result.tables == {}
    assert set(result.arrays[""][1]) == {"brain"}


def test_unusable_voxels_do_not_enter_rdms(planted):
    values = planted[1].values.copy()
    values[3, 0] = np.nan
    rdms = region_rdms(brain(values), {"all": np.ones(20, dtype=bool)})
    np.testing.assert_allclose(rdms["all"], pdist(values[:, 1:], "correlation"), atol=1e-9)


def test_reliability_of_a_region_is_the_mean_of_its_voxels():
    y = Patterns(pd.DataFrame({"stimulus_id": ["a", "b"], "n_repeats": [2, 1]}), (Group("brain", np.ones((2, 3))),))
    result = reliability(y, np.array([0.2, 0.4, np.nan]), regions={"x": {"all": np.ones(3, dtype=bool)}})
    row = result.tables["reliability"].iloc[0]
    assert row["reliability"] == pytest.approx(0.3)
    assert (row["n_voxels"], row["n_stimuli"], row["n_repeats"]) == (2, 1, 1.5)


def test_seeds_differ_by_name_and_not_by_time():
    assert seed_for(0, "a") == seed_for(0, "a")
    assert len({seed_for(0, "a"), seed_for(0, "b"), seed_for(1, "a"), seed_for(0, "a", "b"), seed_for(0, "ab")}) == 5


@pytest.mark.slow
@pytest.mark.parametrize("analysis", [encoding, rsa])
def test_p_is_uniform_on_noise(analysis):
    """1,000 seeded simulations: nothing relates network and brain."""
    regions = {"a": {"all": np.ones(6, dtype=bool)}}
    found = []
    for simulation in range(1000):
        rng = np.random.default_rng([7, simulation])
        x, y = layers(a=rng.normal(size=(20, 30))), brain(rng.normal(size=(20, 6)))
        options = {"cv": "kfold:5", "inner_splits": 3} if analysis is encoding else {"comparisons": ["spearman"]}
        result = analysis(x, y, regions=regions, permutations=99, seed=simulation, map=serial, **options)
        found.append(result.tables[result.analysis]["p"].iloc[0])
    # p takes the values .01, .02, ... 1: spread each over its step to compare with a continuous uniform.
    spread = np.array(found) - np.random.default_rng(0).random(1000) / 100
    assert kstest(spread, "uniform").pvalue > 0.01
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07


@pytest.mark.slow
def test_the_groups_test_of_encoding_is_calibrated_on_noise():
    """1,000 seeded groups of 8 participants whose responses have nothing to do with the network."""
    from bidsdnn.grouptables import fisher_z
    from bidsdnn.methods.inference import sign_flip

    rng = np.random.default_rng(3)
    n, groups, people, voxels = 30, 1000, 8, 10
    features = rng.normal(size=(n, n - 1))
    noise = rng.normal(size=(n, groups * people * voxels)).astype(np.float32)
    splits = kfold(n, 10, seed=0)
    r = pooled_pearsonr(cross_predict(Ridge(), features, noise, splits), noise, splits)
    scores = r.reshape(people, groups, voxels).mean(axis=2)
    _, p = sign_flip(fisher_z(scores))
    assert abs(scores.mean()) < 0.005
    assert 0.03 <= np.mean(p <= 0.05) <= 0.07
