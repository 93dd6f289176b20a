"""Encoding from channels and positions: each is a layer of its own, in every layout of a layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.analyses import encoding
from bidsdnn.errors import DataError
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

N = 40
ITEMS = pd.DataFrame({"stimulus_id": [f"s{i:02d}" for i in range(N)]})
OPTIONS = {"permutations": 19, "seed": 1, "map": serial, "cv": "kfold:5", "inner_splits": 3, "bootstrap": 0}
REGIONS = {"a": {"all": np.arange(6) < 5}, "b": {"one": np.arange(6) == 1, "two": np.arange(6) == 2}}


def case(shape):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, *shape))
    return values, Group("l", values.reshape(N, -1), "net", shape)


def brain(values):
    return Patterns(ITEMS, (Group("brain", values.astype(np.float32)),))


@pytest.mark.parametrize(
    ("iterate", "shape", "axis", "chosen", "name"),
    [
        ("channel", (4, 2, 3), 1, 2, "2"),
        ("position", (4, 2, 3), (2, 3), (1, 2), "1+2"),
        ("channel", (5, 3), 2, 1, "1"),
        ("position", (5, 3), 1, 4, "4"),
        ("channel", (6,), 1, 3, "3"),
    ],
)
def test_the_planted_unit_is_found_and_scored_as_a_layer(iterate, shape, axis, chosen, name):
    values, group = case(shape)
    unit = values.copy()
    for one, place in zip(np.atleast_1d(axis), np.atleast_1d(chosen), strict=True):
        unit = np.take(unit, [place], axis=one)
    unit = unit.reshape(N, -1)
    rng = np.random.default_rng(1)
    y = brain(unit @ rng.normal(size=(unit.shape[1], 6)) + 0.3 * rng.normal(size=(N, 6)))
    found = encoding(Patterns(ITEMS, (group,)), y, regions=REGIONS, iterate=iterate, **OPTIONS)
    table = found.tables[f"encoding{iterate}"]
    best = table[table["region"] == "all"].set_index(iterate)
    assert best["pearsonr"].idxmax() == name
    assert best.loc[name, "p_fwe"] == 0.05
    alone = encoding(Patterns(ITEMS, (Group("l", unit, "net"),)), y, regions=REGIONS, **OPTIONS).tables["encoding"]
    same = table[table[iterate] == name].set_index(["atlas", "region"])
    for _, row in alone.iterrows():
        assert same.loc[(row["atlas"], row["region"]), "pearsonr"] == pytest.approx(row["pearsonr"], abs=1e-6)
        assert same.loc[(row["atlas"], row["region"]), "p"] == row["p"]
    assert (table["p_fwe"] >= table["p"]).all()


def test_a_dead_channel_and_a_shape_that_is_not_known():
    values, _ = case((3, 2, 2))
    values[:, 1] = 0
    y = brain(np.random.default_rng(2).normal(size=(N, 6)))
    x = Patterns(ITEMS, (Group("l", values.reshape(N, -1), "net", (3, 2, 2)),))
    table = encoding(x, y, regions=REGIONS, iterate="channel", **OPTIONS).tables["encodingchannel"]
    assert table.groupby("channel")["pearsonr"].apply(lambda r: r.isna().all()).tolist() == [False, True, False]
    assert table.loc[table["channel"] == "1", ["p", "p_fwe"]].isna().all(axis=None)
    with pytest.raises(DataError, match="the shape of its activations is not known"):
        encoding(
            Patterns(ITEMS, (Group("l", values.reshape(N, -1), "net"),)), y, regions=REGIONS, iterate="channel",
            **OPTIONS,
        )  # fmt: skip
