"""RSA on the page: what is above chance and how near to the ceiling, which layers differ, where stimuli lie."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from bidsdnn.bids.stimulus_index import read_categories
from bidsdnn.report.arrangement import arrange, plane_blocks
from bidsdnn.report.entries import Entry
from bidsdnn.report.pairs import pair_blocks
from bidsdnn.reports import Shown
from tests.report.conftest import LAYERS, SIDECAR, encoding_table
from tests.report.test_page import read

PEOPLE = [f"{i:02d}" for i in range(1, 9)]
ENTITIES = {"task": "view", "space": "S", "atlas": "demo"}
GROUPS = np.repeat(["tool", "face", "house"], 4)
ITEMS = [f"s{i:02d}.png" for i in range(12)]


def relmat(tmp_path, arrays, items=ITEMS, **sidecar):
    return Entry(tmp_path / "x_relmat.h5", {**ENTITIES, "stat": "correlation"}, "relmat",
                 {"_items": list(items), "_arrays": arrays, **sidecar})  # fmt: skip


def group_rsa(output):
    """A group whose table and pairs say that only `early` has a layer above chance."""
    sidecar = {**SIDECAR, "Permutations": 1000, "Test": "sign flips of the participants' Fisher-z scores, one-sided",
               "Participants": PEOPLE, "Correction": "family-wise over the layers"}  # fmt: skip
    table = encoding_table().drop(columns=["pearsonr", "r2", "n_voxels"])
    scores = encoding_table()["pearsonr"]
    table = table.assign(metric="correlation", comparison="spearman", similarity=scores, n_participants=8, sem=0.02,
                         t=5.0, p=0.004, p_fwe=np.where(scores > 0.4, 0.01, 0.3), q=0.02, ceiling_lower=0.5,
                         ceiling_upper=0.6, se_both=0.03, p_ceiling=0.04)  # fmt: skip
    table.loc[table["region"] == "late", "p_fwe"] = 0.2
    output.table(table, "rsa", sidecar, **ENTITIES, model="demo+none+seed0")
    rows = [
        {"region": region, "metric": "correlation", "comparison": "spearman", "network": "demo", "layer": a,
         "other_network": "demo", "other_layer": b, "difference": d, "se": 0.1, "t": 2.0, "p": 0.01,
         "p_fwe": 0.01 if region == "early" and d > 0.3 else 0.5, "q": 0.02}
        for region in ("early", "late")
        for a, b, d in (("conv1", "conv2", 0.21), ("conv1", "fc", 0.36), ("conv2", "fc", 0.15))
    ]  # fmt: skip
    output.table(pd.DataFrame(rows), "rsapairs", sidecar, **ENTITIES)
    return output


def test_the_group_is_told_by_ceiling_and_family_wise_p(output, log):
    html, outline = read(group_rsa(output), log, level="group")
    text = " ".join(outline.text.split())
    assert "matched 1 of 3 regions above chance, best in early (Spearman’s ρ = .41, 82 % of the ceiling" in text
    assert "ρ = .41 ± .02, 82 % of the ceiling (.50 to .60), p(FWE) = .010" in text
    assert "nothing matched above chance" in text
    assert "Filled points: p < .05, family-wise over the layers" in text
    assert "Band: the noise ceiling, from the mean of the other participants" in text
    assert "Noise ceiling .50 to .60." in html
    early = next(t for t in re.findall(r"<svg.*?</svg>", html, re.DOTALL) if "by layer in early" in t)
    assert "noise ceiling" in early and re.search(r"fill: var\(--ghost\); opacity: 0\.25", early)


def test_pairs_say_which_layers_differ(output, log, tmp_path):
    html, outline = read(group_rsa(output), log, level="group")
    assert "Pairs of layers in early: 1 of 3 differ. conv1 over fc by .36" in html
    assert "In late no two layers can be told apart by their" in outline.text
    assert "Pairs of layers in late" not in html
    assert "All pairs of layers" in outline.text and "other layer" in outline.text


def test_pairs_of_several_networks_name_them_and_many_layers_are_numbers_only(output, tmp_path):
    layers = [(f"net{i % 2}", f"l{i:02d}") for i in range(32)]
    rows = [
        {"region": "V1", "metric": "m", "comparison": "pearson", "network": a[0], "layer": a[1], "other_network": b[0],
         "other_layer": b[1], "difference": j - i, "p_fwe": 0.001}
        for i, a in enumerate(layers) for j, b in enumerate(layers) if i < j
    ]  # fmt: skip
    output.table(pd.DataFrame(rows), "rsapairs", {}, **ENTITIES)
    problems = []
    assert [block.kind for block in pair_blocks(output.entries, "rsa", "x", problems)] == ["table"]
    few = [row for row in rows if row["layer"] < "l03" and row["other_layer"] < "l03"]
    output.entries.clear()
    output.table(pd.DataFrame(few), "rsapairs", {"Participants": PEOPLE}, **ENTITIES)
    figure, _ = pair_blocks(output.entries, "rsa", "x", problems)
    assert "3 of 3 differ. l00 (net0) over l01 (net1) by 1.00" in figure.panels[0].alt
    assert "n = 8 participants" in figure.caption and not problems
    output.entries.clear()
    output.table(pd.DataFrame(few).assign(p_fwe=0.2), "rsapairs", {"Participants": PEOPLE}, **ENTITIES)
    same, _ = pair_blocks(output.entries, "rsa", "x", problems)
    assert same.items[0].startswith("In V1 no two layers can be told apart") and "n = 8 participants" in same.items[0]


def clustered(seed=0):
    """Three clusters of four, apart in the second and third dimension."""
    rng = np.random.default_rng(seed)
    centres = {"tool": [0, 0, 0], "face": [0, 20, 0], "house": [0, 0, 9]}
    points = np.array([centres[name] for name in GROUPS]) + rng.normal(size=(12, 3))
    return rng.permutation(12), points


def test_order_is_by_category_where_all_have_one_else_by_clusters(tmp_path):
    shuffle, points = clustered()
    items, rdm = [ITEMS[i] for i in shuffle], pdist(points[shuffle], "sqeuclidean")
    known = dict(zip(ITEMS, GROUPS, strict=True))
    order = arrange(relmat(tmp_path, {"V1": rdm}, items))
    changes = [known[a] != known[b] for a, b in zip(order.items, order.items[1:], strict=False)]
    assert sum(changes) == 2 and "clustered" in order.said
    order = arrange(relmat(tmp_path, {"V1": rdm}, items, _categories=known))
    assert [known[item] for item in order.items] == ["face"] * 4 + ["house"] * 4 + ["tool"] * 4
    assert order.said == "grouped by category (face, house, tool)"
    del known[ITEMS[0]]
    assert "clustered" in arrange(relmat(tmp_path, {"V1": rdm}, items, _categories=known)).said
    assert "order of the file" in arrange(relmat(tmp_path, {"V1": np.full(66, np.nan)}, items)).said


def test_planes_show_categories_or_pictures(tmp_path):
    _, points = clustered()
    rdms = {"V1": pdist(points, "sqeuclidean"), "gap": np.full(66, np.nan)}
    known = dict(zip(ITEMS, GROUPS, strict=True))
    problems = []
    legend, figure = plane_blocks([relmat(tmp_path, rdms, _categories=known)], "x", problems)
    assert [name for name, _, _ in legend.items] == ["face", "house", "tool"]
    assert len({(colour, mark) for _, colour, mark in legend.items}) == 3
    assert len(figure.panels) == 1 and "12 stimuli on a plane by their distances in V1" in figure.panels[0].alt
    assert "Centres: face " in figure.panels[0].alt and b"<image" not in figure.panels[0].content
    pictures = {item: np.full((8, 6, 3), 200, dtype=np.uint8) for item in ITEMS[:5]}
    (figure,) = plane_blocks([relmat(tmp_path, rdms, _pictures=pictures, Participants=PEOPLE)], "x", problems)
    assert figure.panels[0].content.count(b"<image") == 5
    assert "mean over n = 8 participants" in figure.caption and not problems


def test_a_network_alone_has_no_plane(tmp_path):
    entry = relmat(tmp_path, {"conv1": np.ones(66)})
    entry.entities["model"] = "net"
    assert plane_blocks([entry], "x", []) == []


def test_layers_keep_the_order_of_depth(output, log):
    html, _ = read(group_rsa(output), log, level="group")
    spoken = re.search(r"by layer in early\. [^\"]*", html).group()
    assert [spoken.index(layer) for layer in LAYERS] == sorted(spoken.index(layer) for layer in LAYERS)


@pytest.mark.parametrize("pictures", [False, True])
def test_pictures_are_shown_on_request_only(demo_dataset, pictures):
    shown = Shown(demo_dataset / "stimuli", pictures)
    name = next(path.name for path in shown.root.iterdir() if path.suffix == ".png")
    found = shown.thumbnails([name, "not there.png"])
    assert set(found) == ({name} if pictures else set())
    assert not pictures or max(found[name].shape[:2]) == 40
    assert Shown().thumbnails([name]) == {} and Shown().categories == {}


def test_categories_come_from_the_folders_table(tmp_path):
    assert read_categories(tmp_path) == {}
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    table = tmp_path / "stimuli.tsv"
    table.write_text("stimulus_id\tcategory\na\tface\nB.PNG\ttool\nc.png\tn/a\nd\tNA\n")
    assert read_categories(tmp_path) == {"a.png": "face", "b.png": "tool", "d": "NA"}
    table.write_text("stimulus_id\tkind\na\tface\n")
    assert read_categories(tmp_path) == {}
