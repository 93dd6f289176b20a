"""Searchlights on arrays and in the demo: planted truth, and the same space-free code in each space."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.cli import main
from bidsdnn.demo import write_demo
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry import METRICS
from bidsdnn.grouplevel import group
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import serial, workers
from bidsdnn.patterns import Group, Patterns
from bidsdnn.searchlights import searchlight
from bidsdnn.spaces import Cifti, Surface, Volume, read_meshes
from tests.conftest import ATLAS
from tests.test_surfaces import ATLASES, CIFTI, SURFACE

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


def test_searchlight_encoding_holds_out_what_cv_says(planted):
    x, y, regions = planted
    asked = {"regions": regions, "radius": 5, "methods": ("encoding",), **OPTIONS, "permutations": 5}
    # 30 stimuli in two runs each, 10 more in one: items of the stimuli held out are left out of training.
    shown = np.concatenate([np.arange(30), np.arange(20, 40), np.arange(10)])
    trials = y.take(shown)
    runs = np.repeat([f"{k}" for k in range(6)], 10)
    trials = Patterns(trials.items.assign(run=runs, session="", n_repeats=1), trials.groups, trials.space)
    found = searchlight(x, y, trials=trials, cv="leave-one-run-out", **asked)
    assert "Encoding used 6 folds over runs, without items of the stimuli held out" in found.sidecar["Methods"]
    table = found.tables["searchlightencoding"].set_index(["layer", "region"])["pearsonr"]
    assert table["right", "planted"] > 0.2 > abs(table["wrong", "planted"])
    single = searchlight(x, y, cv="leave-one-out", **asked).tables["searchlightencoding"]
    assert single["pearsonr"].iloc[0] > 0.2
    with pytest.raises(ConfigError, match=r"--cv column:part: searchlight encoding holds every stimulus out once"):
        searchlight(x, y, cv="column:part", **asked)
    with pytest.raises(ValueError, match=r"--cv kfold:41: 40 distinct stimuli for 41 folds"):
        searchlight(x, y, cv="kfold:41", **asked)


STEM = "sub-{0}/func/sub-{0}_task-objects_space-MNI152NLin2009cAsym_"
MODEL = "model-demo+none+seed0_"
PLANTED = {"early": "conv1", "middle": "conv3", "late": "conv5"}


@pytest.fixture(scope="module")
def lit(demo_dataset, tmp_path_factory):
    """Output of the participant and the group level on the demo dataset."""
    out = tmp_path_factory.mktemp("searchlight") / "bidsdnn"
    options = ("--network", "demo", "--atlas", str(demo_dataset / ATLAS), "--permutations", "200", "--nprocs", "1")
    for level in ("participant", "group"):
        assert main([str(demo_dataset), str(out), level, *options, "--analysis", "searchlight", "--radius", "12"]) == 0
    return out


def check_lights(dataset, out, sub, *, radius, share):
    """At family-wise .05 each planted region lights up, and each significant neighbourhood holds driven voxels."""
    space = Volume.from_masks([out / (STEM.format(sub) + "desc-brain_mask.nii.gz")])
    regions = space.regions(dataset / ATLAS)
    near = space.neighbors(radius=radius)
    driven = regions["early"] | regions["middle"] | regions["late"]
    touching = near @ driven.astype(int) > 0
    path = out / (STEM.format(sub) + MODEL + "stat-pfwe_desc-searchlight_statmap.nii.gz")
    significant = space.read(path) < 0.05
    layers = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Layers"]
    assert not significant[:, ~touching].any()
    assert not significant[:, regions["none"]].any()
    for region, layer in PLANTED.items():
        assert significant[layers.index(layer), regions[region]].mean() > share, region
    similarity = space.read(path.with_name(path.name.replace("pfwe", "similarity")))
    for region, layer in PLANTED.items():
        assert similarity[:, regions[region]].mean(axis=1).argmax() == layers.index(layer)


@pytest.mark.parametrize("sub", ["01", "02"])
def test_the_demos_planted_regions_light_up_and_nothing_else(demo_dataset, lit, sub):
    check_lights(demo_dataset, lit, sub, radius=12, share=0)


@pytest.mark.slow
def test_most_of_the_planted_regions_lights_up_with_48_pictures_at_normal_noise(tmp_path):
    dataset, out = write_demo(tmp_path / "bids", participants=1), tmp_path / "out"
    options = ("--network", "demo", "--atlas", str(dataset / ATLAS), "--analysis", "searchlight")
    assert main([str(dataset), str(out), "participant", *options]) == 0
    check_lights(dataset, out, "01", radius=10, share=0.5)


def test_the_table_counts_what_the_maps_show(demo_dataset, lit):
    space = Volume.from_masks([lit / (STEM.format("01") + "desc-brain_mask.nii.gz")])
    regions = space.regions(demo_dataset / ATLAS)
    maps = {
        stat: space.read(lit / (STEM.format("01") + MODEL + f"stat-{stat}_desc-searchlight_statmap.nii.gz"))
        for stat in ("similarity", "p", "pfwe")
    }
    table = read_table(lit / (STEM.format("01") + "atlas-planted_" + MODEL + "desc-searchlight_results.tsv"))
    row = table[(table["layer"] == "conv3") & (table["region"] == "middle")].iloc[0]
    inside = regions["middle"]
    assert row["n_significant"] == (maps["pfwe"][2, inside] < 0.05).sum()
    assert row["n_voxels"] == np.isfinite(maps["similarity"][2, inside]).sum()
    assert row["peak"] == pytest.approx(np.nanmax(maps["similarity"][2, inside]), abs=1e-6)
    assert row["similarity"] == pytest.approx(np.nanmean(maps["similarity"][2, inside]), abs=1e-6)
    assert (maps["pfwe"] >= maps["p"] - 1e-6)[np.isfinite(maps["p"])].all()


def test_the_radius_is_part_of_what_makes_a_result_current(demo_dataset, lit, capsys):
    options = ("--network", "demo", "--atlas", str(demo_dataset / ATLAS), "--permutations", "200", "--nprocs", "1",
               "--participant-label", "01", "--analysis", "searchlight", "-v")  # fmt: skip
    assert main([str(demo_dataset), str(lit), "participant", *options, "--radius", "12"]) == 0
    assert "sub-01: searchlight is up to date" in capsys.readouterr().err
    assert main([str(demo_dataset), str(lit), "participant", *options, "--radius", "-1"]) == 2
    assert "radius = -1" in capsys.readouterr().err


def test_the_group_has_maps_with_familywise_p(lit):
    folder = lit / "tpl-MNI152NLin2009cAsym" / "func"
    found = {path.name.split("_stat-")[1].split("_")[0]: path for path in folder.glob("*desc-searchlight_*.nii.gz")}
    assert set(found) == {"mean", "sem", "t", "p", "pfwe", "q"}
    each = [lit / (STEM.format(s) + MODEL + "stat-similarity_desc-searchlight_statmap.nii.gz") for s in ("01", "02")]
    space = Volume.from_masks([lit / (STEM.format(s) + "desc-brain_mask.nii.gz") for s in ("01", "02")])
    both = np.array([space.read(path) for path in each])
    known = np.isfinite(both).all(axis=0)
    np.testing.assert_allclose(space.read(found["mean"])[known], both.mean(axis=0)[known], atol=1e-6)
    p, corrected = space.read(found["p"]), space.read(found["pfwe"])
    assert set(np.unique(p[known])) <= {0.25, 0.5, 0.75, 1.0}
    assert (corrected >= p)[known].all() and np.isnan(corrected[~known]).all()
    z = np.arctanh(both[:, known].astype(float))
    t = np.abs(z.mean(axis=0) / (z.std(axis=0, ddof=1) / np.sqrt(2)))
    np.testing.assert_allclose(np.abs(space.read(found["t"])[known]), t, rtol=1e-3)
    table = read_table(next((lit / "group").glob("*desc-searchlight_results.tsv")))
    assert {"n_participants", "t", "p", "q", "similarity"} <= set(table)
    keys = read_json(sidecar_path(found["mean"]))
    assert (keys["Comparison"], keys["NeighborhoodExtent"]) == ("spearman", "12 mm")
    said = (lit / "group.html").read_text()
    assert "The layer with the highest Spearman’s ρ." in said and "neighbourhoods: 12 mm" in said


def test_group_maps_are_refused_where_chance_is_not_zero(lit, demo_dataset, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(lit, out)
    for path in out.rglob("sub-*stat-similarity_desc-searchlight_statmap.json"):
        path.write_text(path.read_text().replace('"Comparison": "spearman"', '"Comparison": "cosine"'))
    _, omitted = group(Derivatives(out), ["01", "02"], permutations=10, seed=0)
    assert any("hold cosine, whose chance level is not 0" in sentence for sentence in omitted)


def test_reports_say_and_show_where_neighbourhoods_are_significant(lit):
    page = (lit / "sub-01.html").read_text()
    space = Volume.from_masks([lit / (STEM.format("01") + "desc-brain_mask.nii.gz")])
    p = space.read(lit / (STEM.format("01") + MODEL + "stat-pfwe_desc-searchlight_statmap.nii.gz"))
    found, tested = (p < 0.05).any(axis=0).sum(), np.isfinite(p).any(axis=0).sum()
    assert f"{found:,} of {tested:,} centres are significant, family-wise p &lt; .05 over all centres" in page
    assert "neighbourhoods: 12 mm" in page
    assert "Kriegeskorte N, Goebel R, Bandettini P (2006)" in page
    pictures = {path.name for path in (lit / "sub-01" / "figures").iterdir()}
    assert any("desc-searchlight_stat-bestlayer" in name for name in pictures)
    assert any("desc-searchlight_stat-score" in name for name in pictures)
    group_page = (lit / "group.html").read_text()
    assert "centres reaches family-wise p &lt; .05" in group_page, "two participants cannot reach .05"


@pytest.fixture(scope="module")
def cortical(tmp_path_factory):
    return write_demo(
        tmp_path_factory.mktemp("cortical") / "bids", participants=1, stimuli=36, runs=2, voxel_size=8.0, noise=0.2,
        spaces=("surface", "cifti"),
    )  # fmt: skip


@pytest.mark.parametrize("space", [SURFACE, CIFTI])
def test_the_demos_planted_regions_light_up_on_the_cortex(cortical, space, tmp_path):
    dataset, out = cortical, tmp_path / "out"
    atlas = dataset / "derivatives" / "planted" / ATLASES[space]
    options = ("--space", space, "--network", "demo", "--atlas", str(atlas), "--permutations", "200", "--nprocs", "1")
    assert main([str(dataset), str(out), "participant", *options, "--analysis", "searchlight", "--radius", "15"]) == 0
    func = out / "sub-01" / "func"
    quality = json.loads(next(func.glob("*_desc-quality_results.json")).read_text())
    meshes = read_meshes(tuple(dataset / "derivatives" / "fmriprep" / uri.split(":")[2] for uri in quality["Mesh"]))
    kind, mask = (Surface, "*hemi-L*_desc-brain_mask.label.gii") if space == SURFACE else (Cifti, "*_mask.dlabel.nii")
    columns = kind.from_masks([next(func.glob(mask))], meshes)
    regions = columns.regions(atlas)
    touching = columns.neighbors(radius=15) @ (regions["early"] | regions["middle"] | regions["late"]).astype(int) > 0
    path = next(one for one in func.glob("*stat-pfwe_desc-searchlight_statmap*") if one.suffix in (".gii", ".nii")
                and "hemi-R" not in one.name)  # fmt: skip
    significant = columns.read(path) < 0.05
    assert touching.any() and not significant[:, ~touching].any()
    assert not significant[:, regions["none"]].any()
    for number, region in ((0, "early"), (2, "middle"), (4, "late")):
        assert significant[number, regions[region]].any(), region
    page = (out / "sub-01.html").read_text()
    assert "centres are significant" in page and "Best layer of each neighbourhood" in page
