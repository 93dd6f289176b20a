"""Banded ridge as an encoder: one row of all bands, and what each adds; variance shared out between feature spaces."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.analyses import encoding
from bidsdnn.encoding.bands import bands_of, check_bands
from bidsdnn.encoding.partition import variance_partition
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

N = 48
IDS = [f"s{i:02d}" for i in range(N)]
ITEMS = pd.DataFrame({"stimulus_id": IDS})
OPTIONS = {"permutations": 99, "seed": 1, "map": serial, "encoder": "banded-ridge"}
FEW = {"n_candidates": 5, "penalties": [0.01, 1.0, 100.0]}


@pytest.fixture(scope="module")
def planted():
    """Two layers of a network and a feature space; voxels of the first layer, of the space, and of neither."""
    rng = np.random.default_rng(0)
    right, wrong, light = rng.normal(size=(N, 300)), rng.normal(size=(N, 200)), rng.normal(size=(N, 2))
    right[:, :3] *= 12
    noise = rng.normal(size=(N, 18))
    y = np.hstack([right[:, :3] @ rng.normal(size=(3, 6)) / 12, light @ rng.normal(size=(2, 6)), np.zeros((N, 6))])
    groups = (Group("right", right, "net"), Group("wrong", wrong, "net"), Group("light", light, "light"))
    regions = {"a": {"layer": np.arange(18) < 6, "space": np.arange(18) // 6 == 1, "none": np.arange(18) >= 12}}
    return Patterns(ITEMS, groups), Patterns(ITEMS, (Group("brain", (y + 0.7 * noise).astype(np.float32)),)), regions


@pytest.fixture(scope="module")
def joint(planted):
    x, y, regions = planted
    return encoding(x, y, regions=regions, ceiling=np.full(18, 0.8), **OPTIONS)


def test_the_joint_model_finds_what_is_planted_and_nothing_in_noise(joint):
    table = joint.tables["encoding"].set_index(["layer", "region"])
    assert table.loc[("joint", "layer"), "pearsonr"] > 0.4
    assert table.loc[("joint", "space"), "pearsonr"] > 0.4
    assert table.loc[("joint", "layer"), "p"] == table.loc[("joint", "space"), "p"] == 0.01
    assert table.loc[("joint", "none"), "p"] > 0.05
    share = table["pearsonr"]
    assert share["net/right", "layer"] > 0.8 * share["joint", "layer"]
    assert share["light", "space"] > 0.8 * share["joint", "space"]
    largest = next(m for m in joint.maps if m.desc == "largestshare")
    assert (largest.values[:6] == 1).all()
    assert (largest.values[6:12] == 3).all()


def test_shares_sum_to_the_joint_row_in_tables_folds_and_maps(joint):
    for name, columns in (("encoding", ["pearsonr", "r2", "pearsonr_normalized"]), ("encodingfolds", ["pearsonr"])):
        table = joint.tables[name]
        keys = ["region", "fold"] if "fold" in table else ["region"]
        whole = table[table["layer"] == "joint"].set_index(keys)[columns]
        parts = table[table["layer"] != "joint"].groupby(keys)[columns].sum()
        pd.testing.assert_frame_equal(parts, whole.loc[parts.index], atol=1e-12)
    for m in joint.maps[:2]:
        np.testing.assert_allclose(m.values[1:].sum(axis=0), m.values[0], atol=1e-12)
        assert m.sidecar["Layers"] == ["joint", "net/right", "net/wrong", "light"]
    table = joint.tables["encoding"]
    assert set(table["network"]) == {"net+light"}
    assert table.loc[table["layer"] != "joint", "p"].isna().all()


def test_bands_may_be_networks_or_named(planted, joint):
    x, y, regions = planted
    options = {**OPTIONS, "encoder_parameters": {**FEW, "bands": "network"}}
    table = encoding(x, y, regions=regions, **options).tables["encoding"]
    assert table["layer"].unique().tolist() == ["joint", "net", "light"]
    named = {**FEW, "bands": {"first": ["*/right"], "both": ["wrong", "light"]}}
    result = encoding(x, y, regions=regions, **{**OPTIONS, "encoder_parameters": named})
    assert result.tables["encoding"]["layer"].unique().tolist() == ["joint", "first", "both"]
    assert result.sidecar["Bands"] == {"first": ["net/right"], "both": ["net/wrong", "light"]}
    assert joint.sidecar["LayersLeftOut"] == []


def test_one_layer_is_ridge(planted):
    x, y, regions = planted
    x = x.select(lambda group: group.name == "right")
    ridge = encoding(x, y, regions=regions, **{**OPTIONS, "encoder": "ridge"}).tables["encoding"]
    table = encoding(x, y, regions=regions, **OPTIONS).tables["encoding"]
    banded = table[table["layer"] == "joint"].reset_index(drop=True)
    pd.testing.assert_frame_equal(banded.drop(columns="layer"), ridge.drop(columns="layer"), atol=1e-4)


def test_columns_that_cannot_be_scored_are_nan(planted):
    x, y, _ = planted
    values = y.values.copy()
    values[:, 0], values[:, 1] = 3.0, np.nan
    brain = Patterns(ITEMS, (Group("brain", values),))
    maps = encoding(x, brain, regions={"": {"brain": np.ones(18, dtype=bool)}}, encoder_parameters=FEW, **OPTIONS).maps
    for m in maps:
        assert np.isnan(np.atleast_2d(m.values)[:, :2]).all()
        assert np.isfinite(np.atleast_2d(m.values)[:, 2:]).all()


@pytest.mark.parametrize("wanted", ["layers", {}, {"a": "conv1"}, {"a": []}, 3])
def test_bands_that_mean_nothing(wanted):
    with pytest.raises(ConfigError, match=r"\[parameters.banded-ridge\] bands = "):
        check_bands(wanted, key="banded-ridge] bands")


def test_patterns_that_fit_no_layer_or_two_bands(planted):
    groups = planted[0].groups
    with pytest.raises(DataError, match=r"bands\.a: 'rihgt' fits no layer; did you mean net/right"):
        bands_of(groups, {"a": ["rihgt"]}, key="banded-ridge] bands")
    with pytest.raises(DataError, match="layer right is in two"):
        bands_of(groups, {"a": ["right"], "b": ["net"]}, key="banded-ridge] bands")


@pytest.fixture(scope="module")
def partition(planted):
    x, y, regions = planted
    return variance_partition(x, y, regions=regions, permutations=99, seed=1, map=serial, n_candidates=4)


def test_variance_is_shared_out_between_networks_and_feature_spaces(partition):
    table = partition.tables["variancepartition"].set_index(["part", "spaces", "region"])
    assert set(table.index.droplevel("region")) == {
        ("all", "net+light"), ("alone", "net"), ("alone", "light"), ("unique", "net"), ("unique", "light"),
        ("shared", "net+light"),
    }  # fmt: skip
    assert table.loc[("unique", "net", "layer"), "r2"] > 0.15
    assert table.loc[("unique", "light", "space"), "r2"] > 0.3
    assert table.loc[("unique", "net", "layer"), "p"] == table.loc[("unique", "light", "space"), "p"] == 0.01
    assert (table.loc[[("unique", "net", "none"), ("unique", "light", "none")], "p"] > 0.05).all()
    assert (table["ci_low"] <= table["r2"]).all()
    assert (table["r2"] <= table["ci_high"]).all()
    assert table[table["p"].notna()].index.get_level_values("part").unique().tolist() == ["unique"]


def test_parts_sum_in_tables_and_maps(partition):
    table = partition.tables["variancepartition"]
    whole = table[table["part"] == "all"].set_index("region")["r2"]
    np.testing.assert_allclose(
        table[table["part"].isin(["unique", "shared"])].groupby("region")["r2"].sum(), whole.sort_index()
    )
    r2 = dict(zip(partition.maps[0].sidecar["Layers"], partition.maps[0].values, strict=True))
    assert list(r2) == ["all", "alone net", "alone light", "unique net", "unique light", "shared net+light"]
    np.testing.assert_allclose(r2["unique net"] + r2["unique light"] + r2["shared net+light"], r2["all"])
    np.testing.assert_allclose(r2["all"] - r2["unique net"], r2["alone light"])
    assert partition.sidecar["Spaces"] == {"net": ["net/right", "net/wrong"], "light": ["light"]}


def test_one_space_has_nothing_to_share(planted):
    x, y, regions = planted
    x = x.select(lambda group: group.network == "net")
    options = {"regions": regions, "permutations": 9, "seed": 1, "map": serial}
    with pytest.raises(DataError, match=r"and there is 1: net; add another --network"):
        variance_partition(x, y, **options)
    made = variance_partition(x, y, **options, spaces="layer", n_candidates=3)
    assert made.tables["variancepartition"]["spaces"].unique().tolist() == ["right+wrong", "right", "wrong"]


def test_a_given_split_is_scored_on_its_test_part(planted):
    x, y, regions = planted
    parts = pd.DataFrame({"stimulus_id": IDS, "value": ["train"] * 36 + ["test"] * 12})
    options = {**OPTIONS, "cv": "column:x", "parts": parts}
    result = encoding(x, y, regions=regions, encoder_parameters=FEW, **options)
    table = result.tables["encoding"].set_index(["layer", "region"])
    assert table.loc[("joint", "space"), "pearsonr"] > 0.4
    assert table.loc[("joint", "space"), "p"] <= 0.05
    assert table.loc[("joint", "none"), "p"] > 0.05
    made = variance_partition(
        x, y, regions=regions, permutations=19, seed=1, map=serial, n_candidates=3, cv="column:x", parts=parts
    ).tables["variancepartition"]
    assert made.set_index(["part", "spaces", "region"]).loc[("unique", "light", "space"), "r2"] > 0.2


def test_stimuli_may_be_left_out_one_by_one(planted):
    x, y, regions = planted
    x, y = x.take(np.arange(16)), y.take(np.arange(16))
    result = encoding(x, y, regions=regions, encoder_parameters=FEW, cv="leave-one-stimulus-out", **OPTIONS)
    ridge = encoding(x, y, regions=regions, cv="leave-one-stimulus-out", **{**OPTIONS, "encoder": "ridge"})
    table = result.tables["encoding"].set_index(["layer", "region"])["pearsonr"]
    alone = ridge.tables["encoding"].set_index(["layer", "region"])["pearsonr"]
    assert table["joint", "space"] > 0.7 * alone["light", "space"] > 0.2
