"""What the page says of best layers, depth, networks and best voxels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bidsdnn.report.backdrop import Backdrop
from bidsdnn.report.drawing import Figure
from bidsdnn.report.encoding import encoding_blocks, voxel_blocks
from bidsdnn.report.page import Entry
from bidsdnn.report.scores import FAMILIES, participant_trust
from bidsdnn.report.units import unit_blocks
from bidsdnn.spaces import write_nifti

WHERE = {"sub": "01", "space": "S", "atlas": "a"}


def entry(folder, table, desc, sidecar=None, **entities):
    path = folder / f"{desc}_results.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return Entry(path, {**WHERE, **entities, "desc": desc}, "results", sidecar or {})


def figures(blocks):
    return {block.title: block for block in blocks if isinstance(block, Figure)}


def test_confidence_depth_and_networks(tmp_path):
    layers = pd.DataFrame({
        "network": "net", "layer": ["l1", "l2"] * 2, "region": ["V1", "V1", "V4", "V4"],
        "confidence": [0.9, 0.1, 0.25, 0.75],
    })  # fmt: skip
    regions = pd.DataFrame({
        "network": "net", "region": ["V1", "V4", "hierarchy"], "depth": [0.2, 0.8, np.nan],
        "depth_se": [0.1, 0.1, np.nan], "hierarchy_score": [np.nan, np.nan, 0.61],
        "hierarchy_se": [np.nan, np.nan, 0.05],
    })  # fmt: skip
    pairs = pd.DataFrame({
        "first": "net", "second": "other", "region": ["V1", "V4"], "difference": [-0.2, 0.01], "p_fwe": [0.002, 0.7],
    })  # fmt: skip
    entries = [
        entry(tmp_path, layers, "bestlayer", {"BootstrapSamples": 1000}), entry(tmp_path, regions, "hierarchy"),
        entry(tmp_path, pairs, "networks"),
    ]  # fmt: skip
    problems = []
    blocks = encoding_blocks(entries, "sub-01_atlas-a", problems, level="participant")
    assert problems == []
    drawn = figures(blocks)
    assert "V1: l1 90%, V4: l2 75%" in drawn["How sure is the best layer?"].panels[0].alt
    assert "1,000 bootstrap samples" in drawn["How sure is the best layer?"].caption
    assert "V1 in net .20; V4 in net .80" in drawn["How deep is each region?"].panels[0].alt
    said = " ".join(item for block in blocks for item in getattr(block, "items", ()) if isinstance(item, str))
    assert "net: brain hierarchy score .61 ± .05" in said
    assert "V1: other over net by .20 (p = .002)" in said
    assert "In 1 comparison no difference can be told" in said


def test_best_voxels_and_the_map_of_confidence(tmp_path):
    rng = np.random.default_rng(0)
    voxels = pd.DataFrame({
        "layer": "l1", "region": "V1", "voxel": np.repeat([3, 5], 20), "pearsonr": np.repeat([0.8, 0.7], 20),
        "prediction": rng.normal(size=40), "measured": rng.normal(size=40),
    })  # fmt: skip
    path = tmp_path / "x_statmap.nii.gz"
    write_nifti(path, rng.uniform(size=(5, 6, 4, 3)), np.diag([3.0, 3, 3, 1]))
    shares = Entry(path, {"sub": "01", "model": "net", "stat": "confidence", "desc": "bestlayer"}, "statmap",
                   {"Layers": ["a", "b", "c"], "Network": "net"})  # fmt: skip
    problems = []
    drawn = figures(
        voxel_blocks([entry(tmp_path, voxels, "bestvoxels", model="net"), shares], Backdrop(), "sub-01", problems)
    )
    assert problems == []
    scatter = drawn["Best voxels: net"]
    assert [panel.alt.endswith(f"l1: r {r}.") for panel, r in zip(scatter.panels, (".80", ".70"), strict=True)] == [
        True
    ] * 2
    assert "n = 20 stimuli" in scatter.caption
    assert ".33 would be chance" in drawn["How sure is each voxel's best layer: net"].caption


def test_a_damaged_table_costs_its_figure_alone(tmp_path):
    problems = []
    broken = entry(tmp_path, pd.DataFrame({"network": ["net"]}), "bestlayer")
    assert encoding_blocks([broken], "sub-01", problems, level="participant") == []
    assert len(problems) == 1 and "bestlayer" in problems[0]


def test_units_and_identification_name_the_best_of_each_region(tmp_path):
    units = pd.DataFrame({
        "network": "net", "layer": "l1", "channel": [0, 1, 0, 1], "region": ["V1", "V1", "V4", "V4"],
        "pearsonr": [0.1, 0.4, 0.3, 0.2], "p": 0.01, "p_fwe": [0.9, 0.02, 0.03, 0.5],
    })  # fmt: skip
    told = pd.DataFrame({
        "network": "net", "layer": ["l1", "l2"], "region": "V1", "top1": [0.5, 0.75], "chance_top1": 0.25,
        "rank": [0.6, 0.9], "p_top1": [0.3, 0.01], "p": [0.2, 0.02],
    })  # fmt: skip
    entries = [entry(tmp_path, units, "encodingchannel", {"Permutations": 99}), entry(tmp_path, told, "identification")]
    problems = []
    blocks = unit_blocks(entries, "encoding", problems)
    assert problems == [] and unit_blocks(entries, "rsa", problems) == []
    said = " ".join(item for block in blocks for item in getattr(block, "items", ())).replace("\xa0", " ")
    assert "V1: highest is channel 1 of l1 (net), mean r = .40, p(family-wise) = .020" in said
    assert "V4: highest is channel 0 of l1 (net), mean r = .30, p(family-wise) = .030" in said
    assert "p from 99 permutations" in said
    assert "V1: best by l2 (net), .75 identified (chance .25, p = .010), mean rank .90 (chance .50, p = .020)" in said


def test_joint_models_and_layers_have_their_own_family():
    assert participant_trust([], family=FAMILIES["joint"]).rule.endswith("family-wise over the regions of the atlas.")
    assert "not corrected for the number of layers and regions" in participant_trust([]).rule
