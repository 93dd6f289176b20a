"""From tables and maps on disk to the group: matched by name, missing ones named, statistics as scipy's."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.errors import MissingInputError
from bidsdnn.grouplevel import group
from bidsdnn.grouptables import PREVALENCE, fisher_z
from bidsdnn.methods.inference import sign_flip_familywise
from bidsdnn.methods.prevalence import posterior
from bidsdnn.spaces import Volume

MODEL = {"task": "t", "space": "MNI152NLin2009cAsym", "model": "net"}
OPTIONS = {"permutations": 500, "seed": 0}
COLUMNS = ["network", "layer", "region", "n_voxels", "pearsonr", "r2", "p"]


def write_table(out, sub, rows, **entities):
    names = {**MODEL, "atlas": "a", **entities}
    table = pd.DataFrame(rows, columns=COLUMNS)
    path = out.path("results", ".tsv", sub=sub, **names, desc="encoding")
    out.write_table(path, table, {"Layers": ["b", "a"], "Network": "net", "ConfigurationHash": sub})


def rows(values):
    return [["net", layer, region, 10, r, r / 2, 0.5] for (layer, region), r in values.items()]


@pytest.fixture
def out(tmp_path):
    return Derivatives(tmp_path / "out")


def test_scores_are_joined_by_layer_and_region(out):
    rng = np.random.default_rng(0)
    keys = [("b", "V1"), ("a", "V1"), ("b", "V2"), ("a", "V2")]
    scores = rng.normal(0.3, 0.1, size=(5, 4))
    for i, values in enumerate(scores):
        order = rng.permutation(4) if i else np.arange(4)
        write_table(out, f"{i:02d}", rows({keys[k]: values[k] for k in order}))
    n, omitted = group(out, [f"{i:02d}" for i in range(5)], **OPTIONS)
    assert (n, omitted) == (2, [])
    path = out.root / "group" / "task-t_space-MNI152NLin2009cAsym_atlas-a_model-net_desc-encoding_results.tsv"
    table = read_table(path)
    assert list(zip(table["layer"], table["region"], strict=True)) == keys
    np.testing.assert_allclose(table["pearsonr"], scores.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(table["sem"], scores.std(axis=0, ddof=1) / np.sqrt(5), atol=1e-8)
    np.testing.assert_allclose(table["t"], ttest_1samp(np.arctanh(scores), 0).statistic, rtol=1e-6)
    assert (table["p"] == 1 / 32).all()
    assert (table["q"] == 1 / 32).all()
    # Of the family.
    expected = sign_flip_familywise(np.arctanh(scores))
    np.testing.assert_allclose(table["p_fwe"], expected)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["SmallestAttainableP"] == 1 / 32
    assert len(sidecar["Participants"]) == 5


def test_ceilings_and_normalised_scores_are_averaged(out):
    for sub, ceiling, normal in (("01", 0.5, 0.4), ("02", 0.7, np.nan), ("03", 0.6, 0.8)):
        table = pd.DataFrame(rows({("a", "V1"): 0.2}), columns=COLUMNS)
        path = out.path("results", ".tsv", sub=sub, **MODEL, atlas="a", desc="encoding")
        out.write_table(path, table.assign(ceiling=ceiling, pearsonr_normalized=normal), {"ConfigurationHash": sub})
    group(out, ["01", "02", "03"], **OPTIONS)
    table = read_table(next((out.root / "group").glob("*_desc-encoding_results.tsv")))
    assert table["ceiling"].tolist() == [0.6]
    assert table["pearsonr_normalized"].tolist() == [pytest.approx(0.6)]


def test_a_region_that_a_participant_lacks_uses_the_others(out):
    write_table(out, "01", rows({("a", "V1"): 0.1, ("a", "V2"): 0.2}))
    write_table(out, "02", rows({("a", "V1"): 0.3}))
    write_table(out, "03", rows({("a", "V1"): 0.5, ("a", "V2"): np.nan}))
    group(out, ["01", "02", "03", "04"], **OPTIONS)
    table = read_table(next((out.root / "group").glob("*_desc-encoding_results.tsv"))).set_index("region")
    assert table["n_participants"].to_dict() == {"V1": 3, "V2": 1}
    assert table.loc["V2", ["t", "p", "q", "sem"]].isna().all()
    assert table.loc["V1", "pearsonr"] == pytest.approx(0.3)


def test_tables_say_how_common_an_effect_is_and_which_p_is_the_smallest(out):
    for label, (r, p) in {"01": (0.3, 0.01), "02": (0.4, 0.02), "03": (0.2, 0.4)}.items():
        table = pd.DataFrame(rows({("a", "V1"): r, ("a", "V2"): r}), columns=COLUMNS).assign(p=p)
        path = out.path("results", ".tsv", sub=label, **MODEL, atlas="a", desc="encoding")
        kept = table[table["region"] == "V1"] if label == "03" else table
        out.write_table(path, kept, {"NumberOfStimuli": int(100 * r)})
    labels = ["01", "02", "03", "04"]
    _, omitted = group(out, labels, **OPTIONS)
    path = next((out.root / "group").glob("*_desc-encoding_results.tsv"))
    table, sidecar = read_table(path).set_index("region"), json.loads(path.with_suffix(".json").read_text())
    assert table["p_smallest"].tolist() == [1 / 8, 1 / 4]
    assert table.loc["V1", list(PREVALENCE)].tolist() == pytest.approx(posterior(2, 3))
    assert table.loc["V2", "prevalence"] == 1
    assert sidecar["NumberOfStimuli"] == {"01": 30, "02": 40, "03": 20}
    left_out = ["sub-04 has no results and was left out.", "sub-03 has no scores in V2: the others' are used."]
    assert sidecar["Omitted"] == left_out and omitted == left_out
    assert "prevalence" in sidecar["References"] and "interval" in sidecar["prevalence_low"]["Description"]
    assert group(out, labels, **OPTIONS)[1] == left_out


def test_who_has_nothing_is_named(out):
    write_table(out, "01", rows({("a", "V1"): 0.1}))
    write_table(out, "02", rows({("a", "V1"): 0.2}))
    write_table(out, "02", rows({("a", "V1"): 0.2}), model="other")
    write_table(out, "01", rows({("a", "V1"): 0.2}), model="third")
    write_table(out, "04", rows({("a", "V1"): 0.2}), model="third")
    _, omitted = group(out, ["01", "02", "03", "04"], **OPTIONS)
    assert omitted[0] == "sub-03 has no results and was left out."
    assert "sub-04 has no encoding table of" in omitted[1] and "model net" in omitted[1]
    assert "sub-02 has no encoding table of" in omitted[2] and "model third" in omitted[2]
    assert "model other" in omitted[3] and "only sub-02 has it" in omitted[3]


def test_regions_found_in_different_spaces_are_joined_by_name(out):
    for i, space in enumerate(("MNI152NLin6Asym", "T1w", "T1w", "T1w")):
        write_table(out, f"{i}", rows({("a", "V1"): 0.1 * (i + 1)}), space=space)
    # Whoever has several enters once, with the space that most have.
    write_table(out, "3", rows({("a", "V1"): 0.9}))
    write_table(out, "3", rows({("a", "V1"): 0.9}), space="MNI152NLin6Asym")
    group(out, ["0", "1", "2", "3"], **OPTIONS)
    path = out.root / "group" / "task-t_space-pooled_atlas-a_model-net_desc-encoding_results.tsv"
    table, sidecar = read_table(path), json.loads(path.with_suffix(".json").read_text())
    assert table["n_participants"].tolist() == [4] and table["pearsonr"].tolist() == pytest.approx([0.25])
    assert sidecar["Spaces"] == {"0": "MNI152NLin6Asym", "1": "T1w", "2": "T1w", "3": "T1w"}
    assert "T1w: sub-1, sub-2, sub-3" in sidecar["Notes"][0]
    own = read_table(path.with_name(path.name.replace("pooled", "T1w")))
    assert own["pearsonr"].tolist() == pytest.approx([0.3])


def test_who_lacks_a_run_that_most_have_is_named(out):
    for i in range(3):
        write_table(out, f"{i}", rows({("a", "V1"): 0.1 * (i + 1)}))
        runs = pd.DataFrame({"run": ["task-t_run-1", "task-t_run-2"][: 1 if i == 2 else 2]})
        out.write_table(out.path("results", ".tsv", sub=f"{i}", task="t", desc="quality"), runs, {})
    _, omitted = group(out, ["0", "1", "2"], **OPTIONS)
    assert omitted == ["sub-2 has no results of task-t_run-2, which most have; the other runs are used."]


def test_a_group_needs_two(out):
    write_table(out, "01", rows({("a", "V1"): 0.1}))
    with pytest.raises(MissingInputError, match="1 of 2 participants have results"):
        group(out, ["01", "02"], **OPTIONS)
    out.write_table(out.path("results", ".tsv", sub="02", task="t", desc="quality"), pd.DataFrame({"x": [1]}), {})
    with pytest.raises(MissingInputError, match="no analysis has results of two"):
        group(out, ["01", "02"], **OPTIONS)


def write_map(out, sub, values, mask, affine=None, **entities):
    names = {**MODEL, **entities}
    space = Volume(mask, np.eye(4) if affine is None else affine)
    where = {key: value for key, value in names.items() if key in ("task", "space")}
    out.write_mask(out.path("mask", ".nii.gz", sub=sub, **where, desc="brain"), space)
    path = out.path("statmap", ".nii.gz", sub=sub, **names, stat="pearsonr", desc="encoding")
    data = np.zeros((2, *mask.shape), dtype=np.float32)
    data[:] = values
    out.write_map(path, data[:, mask], space, {"Layers": ["b", "a"]})


def test_maps_cover_the_voxels_that_all_have(out):
    masks = np.ones((3, 4, 4, 4), dtype=bool)
    masks[0, 0], masks[1, 1] = False, False
    for i in range(3):
        write_table(out, f"{i}", rows({("a", "V1"): 0.1 * i}))
        write_map(out, f"{i}", 0.1 * (i + 1), masks[i])
    _, omitted = group(out, ["0", "1", "2"], **OPTIONS)
    assert omitted == []
    folder = out.root / "tpl-MNI152NLin2009cAsym" / "func"
    both = Volume(masks.all(axis=0), np.eye(4))
    mean = both.read(next(folder.glob("*stat-mean*.nii.gz")))
    np.testing.assert_allclose(mean, 0.2, atol=1e-6)
    assert both.read(next(folder.glob("*stat-p_*.nii.gz"))).max() == 0.125
    t = both.read(next(folder.glob("*stat-t_*.nii.gz")))
    np.testing.assert_allclose(t, ttest_1samp(np.arctanh([0.1, 0.2, 0.3]), 0).statistic, rtol=1e-5)
    everywhere = Volume(np.ones((4, 4, 4), dtype=bool), np.eye(4)).read(next(folder.glob("*stat-mean*.nii.gz")))
    assert np.isfinite(everywhere).sum() == 2 * both.size


def test_native_maps_and_other_grids_are_left_out_with_a_sentence(out):
    mask = np.ones((3, 3, 3), dtype=bool)
    for i in range(2):
        write_table(out, f"{i}", rows({("a", "V1"): 0.1}))
        write_map(out, f"{i}", 0.1, mask, space="T1w")
        write_map(out, f"{i}", 0.1, np.ones((3 + i, 3, 3), dtype=bool))
    _, omitted = group(out, ["0", "1"], **OPTIONS)
    assert any("T1w space differ between participants" in sentence for sentence in omitted)
    assert any("no group map in MNI152NLin2009cAsym" in sentence for sentence in omitted)
    assert not (out.root / "tpl-MNI152NLin2009cAsym").exists()


def test_fisher_z_is_finite_for_a_perfect_score():
    assert np.isfinite(fisher_z(np.array([1.0, -1.0, 0.3]))).all()
    assert fisher_z(np.array([0.3]))[0] == pytest.approx(np.arctanh(0.3))
