"""Searchlights on arrays and in the demo: planted truth, and the same space-free code in each space."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry import METRICS
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import serial, workers
from bidsdnn.patterns import Group, Patterns
from bidsdnn.searchlights import searchlight
from bidsdnn.spaces import Volume

IDS = [f"s{i:02d}" for i in range(40)]
OPTIONS = {"permutations": 199, "seed": 1, "map": serial}


def cube(side: int = 8) -> Volume:
    mask = np.ones((side, side, side), dtype=bool)
    mask[:2, 0, 0] = False
    return Volume(mask, np.diag([3.0, 3.0, 3.0, 1.0]))


@pytest.fixture
def planted():
    """Two layers; the first drives the corner of a cube of voxels."""
    rng = np.random.default_rng(0)
    space = cube()
    places = np.argwhere(space.mask)
    region = (places >= 5).all(axis=1)
    right, wrong = rng.standard_normal((40, 60)), rng.standard_normal((40, 60))
    right[:, :3] *= 6
    values = rng.standard_normal((40, space.size))
    values[:, region] += right @ rng.standard_normal((60, region.sum())) / 8
    values[:, 20] = np.nan
    items = pd.DataFrame({"stimulus_id": IDS})
    x = Patterns(items, (Group("right", right, "net"), Group("wrong", wrong, "net")))
    y = Patterns(items, (Group("brain", values.astype(np.float32)),), space)
    return x, y, {"a": {"planted": region, "rest": ~region, "empty": np.zeros(space.size, dtype=bool)}}


def maps(result):
    return {(one.desc, one.stat): one.values for one in result.maps}


def test_a_planted_region_is_found_and_nothing_that_does_not_touch_it(planted):
    x, y, regions = planted
    result = searchlight(x, y, regions=regions, radius=5, **OPTIONS)
    found = maps(result)
    assert set(found) == {("searchlight", stat) for stat in ("similarity", "p", "pfwe")}
    near = y.space.neighbors(radius=5)
    overlaps = near @ regions["a"]["planted"].astype(int) > 0
    significant = found["searchlight", "pfwe"] < 0.05
    assert significant[0][regions["a"]["planted"]].mean() > 0.9
    assert not significant[0][~overlaps].any() and not significant[1].any()
    inside = near[[300]].indices
    brain = DISSIMILARITIES["correlation"](y.values[:, inside].astype(float))
    model = DISSIMILARITIES["correlation"](x.groups[0].values)
    expected = SIMILARITIES["spearman"](model, brain)
    np.testing.assert_allclose(found["searchlight", "similarity"][0, 300], expected, atol=1e-6)
    table = result.tables["searchlight"].set_index(["layer", "region"])
    assert table.loc[("right", "planted"), "n_significant"] == significant[0][regions["a"]["planted"]].sum()
    assert table.loc[("right", "planted"), "peak"] == np.nanmax(found["searchlight", "similarity"][0])
    assert table.loc[("right", "planted"), "peak_pfwe"] == 1 / 200
    assert table.loc[("wrong", "empty"), "n_voxels"] == 0 and np.isnan(table.loc[("wrong", "empty"), "peak"])
    assert result.sidecar["NumberOfVoxelsNotScored"] == 1
    assert result.sidecar["NumberOfCentres"] == y.space.size


def test_searchlight_encoding_finds_it_too_and_workers_do_not_matter(planted):
    x, y, regions = planted
    asked = {"regions": regions, "radius": 5, "methods": ("rsa", "encoding"), "permutations": 99, "seed": 1}
    result = searchlight(x, y, map=serial, **asked)
    found = maps(result)
    assert {desc for desc, _ in found} == {"searchlight", "searchlightencoding"}
    significant = found["searchlightencoding", "pfwe"] < 0.05
    overlaps = y.space.neighbors(radius=5) @ regions["a"]["planted"].astype(int) > 0
    assert significant[0][regions["a"]["planted"]].mean() > 0.9
    assert not significant[0][~overlaps].any() and not significant[1].any()
    assert set(result.tables) == {"searchlight", "searchlightencoding"}
    with workers(2) as spread:
        again = maps(searchlight(x, y, map=spread, **asked))
    for key, values in found.items():
        np.testing.assert_array_equal(values, again[key])


def test_neighbourhoods_of_a_number_of_voxels(planted):
    x, y, regions = planted
    result = searchlight(x, y, regions=regions, neighbors=19, **OPTIONS)
    assert result.sidecar["NeighborhoodExtent"] == "19 voxels or vertices"
    assert 18.5 < result.sidecar["MeanNeighborhoodSize"] <= 19


def test_centres_with_too_few_voxels_are_nan_and_counted(planted):
    x, y, regions = planted
    result = searchlight(x, y, regions=regions, radius=1, **OPTIONS)
    assert all(np.isnan(one.values).all() for one in result.maps)
    assert result.sidecar["NumberOfCentres"] == 0 and result.sidecar["NumberOfCentresNotScored"] == y.space.size
    assert (result.tables["searchlight"]["n_voxels"] == 0).all()


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric(planted, metric):
    x, y, regions = planted
    x = Patterns(x.items, tuple(Group(g.name, g.values + 40, g.network) for g in x.groups))
    y = Patterns(y.items, (Group("brain", y.values + 40),), y.space)
    result = searchlight(x, y, regions=regions, radius=3, metric=metric, **{**OPTIONS, "permutations": 2})
    assert np.isfinite(maps(result)["searchlight", "pfwe"]).mean() > 0.95
    assert result.sidecar["Metric"] == metric


def test_what_it_will_cost_is_said_beforehand(planted, caplog):
    x, y, regions = planted
    with caplog.at_level(logging.INFO, logger="bidsdnn"):
        searchlight(x, y, regions=regions, radius=5, **OPTIONS)
    assert "searchlight: 510 neighbourhoods of 15 on average, 2 layers, 199 permutations: about " in caplog.text


def test_bad_parameters_and_too_few_stimuli(planted):
    x, y, regions = planted
    with pytest.raises(ConfigError, match=r"parameters\.searchlight\.methods = 'no': choose of rsa, encoding"):
        searchlight(x, y, regions=regions, methods=("no",), **OPTIONS)
    with pytest.raises(ConfigError, match=r"parameters\.searchlight\.methods is empty"):
        searchlight(x, y, regions=regions, methods=(), **OPTIONS)
    with pytest.raises(ConfigError, match=r"parameters\.searchlight\.neighbors = 1: a neighbourhood needs 2"):
        searchlight(x, y, regions=regions, neighbors=1, **OPTIONS)
    few = np.arange(3)
    with pytest.raises(DataError, match="3 distinct stimuli; this searchlight needs 4"):
        searchlight(x.take(few), y.take(few), regions=regions, **OPTIONS)
