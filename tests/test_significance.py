"""Corrections over voxels, regions, layers and networks, written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from bidsdnn.encoding import encoding
from bidsdnn.encoding.layer import LayerScores
from bidsdnn.encoding.significance import MOST_TESTED, significance, which_voxels
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.null import Null
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

PERMUTATIONS = 19


def scored(seed, columns=(0, 1, 3, 4), spread=1.0):
    """A layer of four tested voxels of six, and of three regions, with its relabellings."""
    rng = np.random.default_rng(seed)
    r, means = spread * rng.normal(size=(1 + PERMUTATIONS, 4)), rng.normal(size=(1 + PERMUTATIONS, 3))
    r[0, 0], means[0, 0] = 6 * spread, 5.0
    found = Null(
        np.array(columns), r[0], (r[1:] >= r[0]).sum(axis=0), r[1:].max(axis=1), float((r[1:] ** 2).sum()), means
    )
    empty = np.zeros(6)
    return LayerScores(empty, empty, empty[None], found.p_regions, empty, found), r


def test_familywise_p_is_of_the_largest_over_layers_and_voxels_each_layer_on_its_scale():
    layers = [scored(0), scored(1, spread=0.1), scored(2)]
    found = significance([score for score, _ in layers], ["a", "a", "b"], 6)
    r = np.array([values / np.sqrt((values**2).mean()) for _, values in layers])
    largest = r[:, 1:].max(axis=(0, 2))
    expected = (1 + (largest[:, None, None] >= r[:, 0]).sum(axis=0)) / (1 + PERMUTATIONS)
    np.testing.assert_allclose(found.p_fwe[:, [0, 1, 3, 4]], expected)
    assert (found.p_fwe[:, 0] == 1 / (1 + PERMUTATIONS)).all()
    assert np.isnan(found.p_fwe[:, [2, 5]]).all()
    for layer, (_, values) in enumerate(layers):
        p = (1 + (values[1:] >= values[0]).sum(axis=0)) / (1 + PERMUTATIONS)
        np.testing.assert_allclose(found.p[layer, [0, 1, 3, 4]], p)
        np.testing.assert_allclose(found.q[layer, [0, 1, 3, 4]], false_discovery_control(p))


def test_regions_are_corrected_within_an_atlas_and_over_layers():
    layers = [scored(number) for number in range(3)]
    found = significance([score for score, _ in layers], ["a", "a", "b"], 6)
    means = np.array([score.null.means for score, _ in layers])
    z = means / np.sqrt((means**2).mean(axis=1, keepdims=True))
    for own in ([0, 1], [2]):
        largest = z[:, 1:][:, :, own].max(axis=(0, 2))
        expected = (1 + (largest[:, None, None] >= z[:, 0][:, own]).sum(axis=0)) / (1 + PERMUTATIONS)
        np.testing.assert_allclose(found.regions_fwe[:, own], expected)
        q = false_discovery_control(found.regions_p[:, own].ravel()).reshape(3, -1)
        np.testing.assert_allclose(found.regions_q[:, own], q)


@pytest.mark.parametrize(
    ("voxels", "asked", "single", "every"),
    [
        (MOST_TESTED, None, False, True),
        (50_000, None, False, False),
        (50_000, None, True, True),
        (50_000, True, False, True),
        (3000, False, False, False),
    ],
)
def test_every_voxel_is_tested_where_it_is_cheap_or_asked(voxels, asked, single, every):
    regions = np.ones((1, voxels), dtype=bool)
    drawn, voxelwise = which_voxels(
        Ridge(), regions, n_items=1000, n_layers=1, permutations=1000, single=single, seed=0, asked=asked
    )
    assert voxelwise == every
    assert drawn.sum() == (voxels if every else MOST_TESTED)


def test_a_region_is_tested_by_its_own_draw_whatever_regions_it_overlaps():
    regions = np.ones((2, 5000), dtype=bool)
    regions[1, 40:] = False
    options = {"n_items": 9, "n_layers": 1, "permutations": 9, "single": False, "seed": 0, "asked": False}
    both, _ = which_voxels(Ridge(), regions, **options)
    alone, _ = which_voxels(Ridge(), regions[:1], **options)
    np.testing.assert_array_equal(both[0], alone[0])
    assert both[0].sum() == MOST_TESTED
    assert not both[0, :40].all()
    np.testing.assert_array_equal(both[1], regions[1])


def test_voxels_that_a_layer_predicts_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    ids = pd.DataFrame({"stimulus_id": [f"s{i}" for i in range(60)], "n_repeats": 2})
    right, wrong = rng.normal(size=(2, 60, 8))
    y = rng.normal(size=(60, 30))
    y[:, :10] += right @ rng.normal(size=(8, 10))
    x = Patterns(ids, (Group("right", right, "a"), Group("wrong", wrong, "b")))
    regions = {"": {"first": np.arange(30) < 10, "rest": np.arange(30) >= 10}}
    result = encoding(
        x, Patterns(ids, (Group("brain", y),)), regions=regions,
        permutations=199, seed=0, map=serial, ceiling=np.where(np.arange(30) < 3, 0.05, 0.5),
    )  # fmt: skip
    maps = {(one.network, one.stat): one.values for one in result.maps if not one.desc}
    assert (maps["a", "pfwe"][0, :10] <= 0.05).sum() >= 9
    assert (maps["a", "pfwe"][0, 10:] > 0.05).all()
    assert (maps["b", "pfwe"] > 0.05).all()
    assert (maps["a", "p"] <= maps["a", "pfwe"]).all()
    np.testing.assert_allclose(maps["a", "q"][0], false_discovery_control(maps["a", "p"][0]))
    r = maps["a", "pearsonr"]
    assert np.isnan(maps["a", "pearsonrnormalized"][0, :3]).all()
    np.testing.assert_allclose(maps["a", "pearsonrnormalized"][0, 3:], r[0, 3:] / 0.5)
    assert (maps["a", "explainedvariance"] >= maps["a", "r2"] - 1e-12).all()
    table = result.tables["encoding"].set_index(["layer", "region"])
    assert table.loc[("right", "first"), "p_fwe"] == 0.005
    assert table.loc[("right", "first"), "q"] <= 0.02
    assert table.loc[("right", "first"), "explained_variance"] > 0.3
    assert (table.drop(index=("right", "first"))["p_fwe"] > 0.05).all()


def test_runs_are_held_out_of_single_trials():
    rng = np.random.default_rng(1)
    names = np.array([f"s{i:02d}" for i in range(36)])
    # Three runs of twelve stimuli of their own, shown twice, and four that the first two runs share.
    shown = np.concatenate([names[:12], names[:12], names[8:24], names[24:], names[24:]])
    items = pd.DataFrame({"stimulus_id": shown, "session": "", "run": np.repeat(["r1", "r2", "r3"], [24, 16, 24])})
    features = rng.normal(size=(36, 5))
    code = np.unique(shown, return_inverse=True)[1]
    trials = Patterns(items, (Group("brain", features[code] @ rng.normal(size=(5, 6)) + rng.normal(size=(64, 6))),))
    x = Patterns(pd.DataFrame({"stimulus_id": names}), (Group("layer", features, "net"),))
    result = encoding(
        x, trials.average(), regions={"": {"all": np.ones(6, dtype=bool)}}, permutations=99, seed=0, map=serial,
        cv="leave-one-run-out", trials=trials, ceiling=np.full(6, 0.8), bootstrap=0,
    )  # fmt: skip
    row = result.tables["encoding"].iloc[0]
    assert row["pearsonr"] > 0.5
    assert row["p"] == 0.01
    assert row["ceiling"] < 0.8
    assert len(result.tables["encodingfolds"]) == 3
    assert result.sidecar["NumberOfItems"] == 40
    assert result.sidecar["NumberOfStimuli"] == 36
    assert result.sidecar["CrossValidation"].startswith("3 folds over runs")
    assert "stimuli held out" in result.sidecar["CrossValidation"]
    assert result.sidecar["Test"] == "permutations of the stimulus labels within runs, one-sided"
    assert "averaged over the items" in result.sidecar["Methods"]
