"""Maps over participants: formulas, families, clusters, covariates and groups, from files to files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import false_discovery_control, linregress, ttest_1samp, ttest_ind

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.bids.people import People
from bidsdnn.grouplevel import group
from bidsdnn.methods.inference import sign_flips
from bidsdnn.methods.tfce import tfce
from bidsdnn.spaces import Surface, Volume, fsaverage5

LABELS = [f"{i:02d}" for i in range(1, 9)]
MODEL = {"task": "t", "model": "net"}


def write(out, label, values, space, where, layers=("b", "a")):
    """One participant's table, mask and map of two layers."""
    extension = space.extension
    table = pd.DataFrame({"network": ["net"], "layer": ["a"], "region": ["V1"], "pearsonr": [0.1 * int(label)]})
    out.write_table(out.path("results", ".tsv", sub=label, **MODEL, space=where, desc="encoding"), table, {})
    entities = {**space.entities, "space": where}
    mask = out.path("mask", space.label_extension, sub=label, task="t", **entities, desc="brain")
    mask.parent.mkdir(parents=True, exist_ok=True)
    out.write_mask(mask, space)
    path = out.path("statmap", extension, sub=label, **MODEL, **entities, stat="pearsonr", desc="encoding")
    out.write_map(path, values.astype(np.float32), space, {"Layers": list(layers), "Network": "net"})


@pytest.fixture(scope="module")
def volume():
    return Volume(np.ones((5, 4, 3), dtype=bool), np.eye(4))


@pytest.fixture(scope="module")
def made(tmp_path_factory, volume):
    """Eight participants; age drives the first voxel of layer b, the group the last of layer a; a blob is above 0."""
    rng = np.random.default_rng(0)
    age, sick = rng.normal(40, 10, 8), np.array([0.0, 1, 0, 1, 0, 1, 0, 1])
    values = rng.normal(0, 0.1, size=(8, 2, volume.size))
    values[:, 0, 10:20] += 0.3
    values[:, 0, 0] = 0.03 * (age - 40)
    values[:, 1, -1] = 0.4 * sick + rng.normal(0, 0.02, 8)
    out = Derivatives(tmp_path_factory.mktemp("maps") / "out")
    for label, one in zip(LABELS, values, strict=True):
        write(out, label, one, volume, "MNI152NLin6Asym")
    write(out, "09", values[0][:1], volume, "MNI152NLin6Asym", layers=("b",))
    ages = dict(zip(LABELS, age, strict=True))
    people = People(
        out.root / "participants.tsv", {"age": {**ages, "09": 30.0}}, "group",
        {**dict(zip(LABELS, sick, strict=True)), "09": float("nan")}, ("control", "patient"),
    )  # fmt: skip
    said = []
    n, omitted = group(
        out, [*LABELS, "09", "10"], permutations=300, seed=1, tfce=True, people=people, announce=said.append
    )
    return out, values.astype(np.float32), people, age, sick, n, omitted, said


def read(made, volume, stat, contrast=""):
    folder = made[0].root / "tpl-MNI152NLin6Asym" / "func"
    name = f"_contrast-{contrast}_stat-{stat}" if contrast else f"_model-net_stat-{stat}"
    path = next(folder.glob(f"*{name}_desc-encoding_statmap.nii.gz"))
    return volume.read(path), read_json(sidecar_path(path))


def test_every_map_is_what_its_name_says(made, volume):
    values = made[1].astype(float)
    z = np.arctanh(values)
    mean, sidecar = read(made, volume, "mean")
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(read(made, volume, "sem")[0], values.std(axis=0, ddof=1) / 8**0.5, atol=1e-6)
    np.testing.assert_allclose(read(made, volume, "t")[0], ttest_1samp(z, 0).statistic, rtol=1e-4, atol=1e-5)
    flips = sign_flips(z.reshape(8, -1))
    shape = mean.shape
    np.testing.assert_allclose(read(made, volume, "p")[0], flips.p.reshape(shape), atol=1e-6)
    np.testing.assert_allclose(read(made, volume, "pfwe")[0], flips.p_fwe.reshape(shape), atol=1e-6)
    q = false_discovery_control(flips.p.reshape(shape), axis=1)
    np.testing.assert_allclose(read(made, volume, "q")[0], q, atol=1e-6)
    assert sidecar["Participants"] == LABELS and sidecar["SmallestAttainableP"] == 1 / 256
    assert "all layers" in sidecar["Correction"]


def test_the_family_holds_both_layers_and_the_blob_is_found(made, volume):
    pfwe, enhanced = read(made, volume, "pfwe")[0], read(made, volume, "ptfce")[0]
    blob = np.zeros(volume.size, dtype=bool)
    blob[10:20] = True
    assert (enhanced[0, blob] < 0.05).mean() > 0.8
    assert (enhanced[1] > 0.05).mean() > 0.9
    # What a cluster supports is found more surely than each voxel by itself.
    assert enhanced[0, blob].mean() <= pfwe[0, blob].mean()
    t = ttest_1samp(np.arctanh(made[1].astype(float)), 0).statistic
    expected = np.array([tfce(row, volume.edges()) for row in t])
    found, sidecar = read(made, volume, "tfce")
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.1)
    assert sidecar["ClusterEnhancement"]["Height"] == 2 and "tfce" in sidecar["References"]
    assert "2 layers x 256 flips take about" in made[-1][0]


def test_covariates_and_groups_have_maps_and_tables(made, volume):
    _, values, _, age, sick, _, _, _ = made
    z = np.arctanh(values.astype(float))
    t, sidecar = read(made, volume, "t", "age")
    design = np.column_stack([age, np.ones(8), sick])
    beta, rest, *_ = np.linalg.lstsq(design, z.reshape(8, -1), rcond=None)
    expected = beta[0] / np.sqrt(rest / 5 * np.linalg.inv(design.T @ design)[0, 0])
    np.testing.assert_allclose(t.ravel(), expected, rtol=1e-3)
    np.testing.assert_allclose(read(made, volume, "effect", "age")[0].ravel(), beta[0], rtol=1e-3, atol=1e-6)
    assert read(made, volume, "pfwe", "age")[0].argmin() == 0
    assert read(made, volume, "pfwe", "patient+control")[0].argmin() == 2 * volume.size - 1
    assert read(made, volume, "pfwe", "patient+control")[0].min() < 0.05
    assert sidecar["Effect"] == "age" and sidecar["Held"] == ["group"] and "freedman-lane" in sidecar["References"]
    assert read(made, volume, "q", "age")[1]["SmallestAttainableP"] == pytest.approx(1 / 301)
    path = next((made[0].root / "group").glob("*_desc-encodingeffects_results.tsv"))
    table = pd.read_csv(path, sep="\t").set_index("effect")
    assert table.index.tolist() == ["age", "patient - control"]
    assert (table["n_participants"] == 8).all()
    scores = np.arctanh(0.1 * np.arange(1, 9))
    alone = linregress(age, scores)
    assert np.sign(table.loc["age", "estimate"]) == np.sign(alone.slope) or abs(alone.rvalue) < 0.3
    assert read_json(sidecar_path(path))["Groups"] == {"control": 4, "patient": 4}
    assert ttest_ind(scores[sick == 1], scores[sick == 0]).pvalue > 0.05


def test_effects_are_enhanced_on_either_side(made, volume):
    found, sidecar = read(made, volume, "tfce", "age")
    t = read(made, volume, "t", "age")[0].astype(float)
    edges = volume.edges()
    expected = np.array([tfce(row, edges) - tfce(-row, edges) for row in t])
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.1)
    assert (found < 0).any() and sidecar["SmallestAttainableP"] == pytest.approx(1 / 301)
    p = read(made, volume, "ptfce", "age")[0]
    assert p[0, 0] < 0.1 and p.min() >= 1 / 301 - 1e-6 and "orders take" in made[-1][1]


@pytest.fixture
def three(tmp_path, volume):
    out, rng = Derivatives(tmp_path / "out"), np.random.default_rng(7)
    for label in LABELS[:3]:
        write(out, label, rng.normal(0.2, 0.1, size=(2, volume.size)), volume, "MNI152NLin6Asym")
    return out


def map_of(out, stat):
    return next((out.root / "tpl-MNI152NLin6Asym" / "func").glob(f"*_stat-{stat}_desc-encoding_statmap.nii.gz"), None)


def test_an_odd_first_participant_costs_nobody_else_the_map(three, volume):
    values = np.random.default_rng(8).normal(size=(1, volume.size))
    write(three, "00", values / 10, volume, "MNI152NLin6Asym", layers=("b",))
    turned = Volume(volume.mask, np.diag([-1.0, 1, 1, 1]))
    write(three, "04", np.tile(values, (2, 1)) / 10, turned, "MNI152NLin6Asym")
    write(three, "05", np.tile(values, (2, 1)) / 10, volume, "MNI152NLin6Asym")
    next(three.root.glob("sub-05/func/*_mask.nii.gz")).unlink()
    _, omitted = group(three, ["00", *LABELS[:5]], permutations=20, seed=0)
    sidecar = read_json(sidecar_path(map_of(three, "mean")))
    assert sidecar["Participants"] == LABELS[:3]
    assert any("sub-00" in one and "other layers" in one for one in omitted)
    assert any("sub-04" in one and "another grid" in one for one in omitted)
    assert any("sub-05 was left out of the map" in one for one in omitted)
    assert sidecar["Omitted"] == [one for one in omitted if one in sidecar["Omitted"]] and len(sidecar["Omitted"]) == 3


def test_maps_of_other_data_do_not_stay_beside_new_ones(three, volume):
    run = {"permutations": 20, "seed": 0}
    group(three, LABELS[:3], **run)
    assert map_of(three, "tfce") is None
    mean = map_of(three, "mean").stat().st_mtime_ns
    group(three, LABELS[:3], **run, tfce=True)
    assert map_of(three, "ptfce") is not None
    group(three, LABELS[:3], **run)
    assert map_of(three, "ptfce") is not None and map_of(three, "mean").stat().st_mtime_ns > mean
    write(three, "04", np.full((2, volume.size), 0.3), volume, "MNI152NLin6Asym")
    group(three, LABELS[:4], **run)
    assert read_json(sidecar_path(map_of(three, "mean")))["Participants"] == LABELS[:4]
    assert map_of(three, "ptfce") is None and map_of(three, "tfce") is None


def test_who_has_no_part_is_listed(made, volume):
    omitted, sidecar = made[6], read(made, volume, "mean")[1]
    assert omitted[0] == "sub-10 has no results and was left out."
    assert any("sub-09" in one and "other layers" in one for one in sidecar["Omitted"])
    assert any("sub-09 has no group in participants.tsv" in one for one in omitted)


def test_a_second_run_writes_nothing(made, volume):
    out, _, people, *_ = made
    folder = out.root / "tpl-MNI152NLin6Asym" / "func"
    times = {path: path.stat().st_mtime_ns for path in [*folder.iterdir(), *(out.root / "group").glob("*")]}
    _, omitted = group(out, [*LABELS, "09", "10"], permutations=300, seed=1, tfce=True, people=people)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert sorted(omitted) == sorted(made[6])


def test_surfaces_are_enhanced_along_the_mesh(tmp_path):
    mesh = fsaverage5()
    rng = np.random.default_rng(3)
    inside = tuple(np.arange(one.size) < 400 for one in mesh)
    space = Surface(inside, nested=True)
    out = Derivatives(tmp_path / "out")
    for label in LABELS[:4]:
        write(out, label, rng.normal(0.2, 0.1, size=(2, space.size)), space, "fsaverage5")
    _, omitted = group(out, LABELS[:4], permutations=20, seed=0, tfce=True)
    assert omitted == []
    folder = out.root / "tpl-fsaverage5" / "func"
    t, found = (space.read(next(folder.glob(f"*hemi-L*_stat-{stat}_*.func.gii"))) for stat in ("t", "tfce"))
    edges = Surface(inside, mesh).edges()
    np.testing.assert_allclose(found[0], tfce(t[0], edges), rtol=0.02, atol=0.1)
    # Each edge once, none across the hemispheres.
    assert len(np.unique(edges, axis=0)) == len(edges) and ((edges < 400).sum(axis=1) != 1).all()


def test_a_mesh_that_is_not_known_leaves_the_other_maps(tmp_path):
    space = Surface((np.ones(30, dtype=bool), np.ones(30, dtype=bool)))
    out, rng = Derivatives(tmp_path / "out"), np.random.default_rng(5)
    for label in LABELS[:3]:
        write(out, label, rng.normal(0.2, 0.1, size=(2, space.size)), space, "fsLR")
    _, omitted = group(out, LABELS[:3], permutations=20, seed=0, tfce=True)
    assert "was not enhanced: the meshes of the surfaces of 30 and 30 vertices are not known" in omitted[0]
    folder = out.root / "tpl-fsLR" / "func"
    t = next(folder.glob("*hemi-L*_stat-t_*.func.gii"))
    before = t.stat().st_mtime_ns
    group(out, LABELS[:3], permutations=20, seed=0, tfce=True)
    assert t.stat().st_mtime_ns == before and not list(folder.glob("*tfce*"))


@pytest.mark.slow
def test_rates_of_smooth_maps():
    """1,000 groups of 8 participants; two layers of a smooth field, sign flips over both."""
    rejected = 0
    for seed in range(1000):
        fields = gaussian_filter(np.random.default_rng([4, seed]).normal(size=(8, 2, 8, 8, 8)), (0, 0, 1, 1, 1))
        rejected += np.nanmin(sign_flips(fields.reshape(8, -1).astype(np.float32)).p_fwe) <= 0.05
    print(f"maps: {rejected / 1000:.3f}")
    assert 0.03 < rejected / 1000 < 0.07
