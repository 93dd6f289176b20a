"""What the group's page says of covariates, of pairs of layers and of models fitted at the group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bidsdnn.report.backdrop import Backdrop
from bidsdnn.report.effects import effect_blocks, effect_maps
from bidsdnn.report.findings import findings
from bidsdnn.report.groupmodels import group_model_blocks
from bidsdnn.report.pairs import pair_blocks
from tests.report.conftest import SIDECAR, encoding_table

GROUP = {"task": "view", "space": "S", "atlas": "demo", "model": "demo+none+seed0"}


def text(block) -> str:
    return " ".join(block.items).replace("\N{NO-BREAK SPACE}", " ")


def test_effects_say_where_they_are_significant_and_where_nothing_is(output):
    rows = [
        ("age", "late", "conv1", 0.02, 0.001, 0.004), ("age", "early", "conv1", 0.01, 0.2, 0.7),
        ("patients - controls", "late", "conv1", 0.1, 0.3, 0.8),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["effect", "region", "layer", "estimate", "p", "p_fwe"]).assign(n_participants=9)
    sidecar = {"Permutations": 5000, "Test": "permuted residuals (Freedman and Lane), two-sided"}
    output.table(table, "encodingeffects", sidecar, **GROUP)
    problems: list[str] = []
    heading, said, numbers = effect_blocks(output.entries, problems)
    assert problems == [] and "Covariates" in heading.text
    assert "age: late, conv1: estimate = .02, p(FWE) = .004 (9 participants)." in text(said)
    assert "patients - controls: no effect in 1 test (smallest late, conv1" in text(said)
    assert len(numbers.rows) == 3 and numbers.note == "5,000 permuted residuals (Freedman and Lane), two-sided."
    assert effect_blocks([], problems) == []


def test_maps_of_an_effect_show_the_layer_where_it_is_largest_either_way(output):
    t, p = np.zeros((4, 5, 3, 2)), np.ones((4, 5, 3, 2))
    t[1, 2, 1], t[2, 2, 1], p[1, 2, 1] = (1.0, -6.0), (5.0, 2.0), (0.4, 0.01)
    about = {"Effect": "patients - controls", "Held": ["age"], "Participants": ["01", "02", "03", "04", "05", "06"],
             "Permutations": 720, "Test": "permuted residuals, two-sided", "Network": "demo"}  # fmt: skip
    entities = {"task": "view", "tpl": "MNI", "model": "demo"}
    for values, stat in ((t, "t"), (p, "pfwe")):
        output.map(values, stat, "encoding", about, **entities, contrast="x")
    output.map(t, "t", "encoding", about, **entities)
    problems: list[str] = []
    (figure,) = effect_maps(output.entries, Backdrop(), "group", problems)
    assert problems == [] and figure.title == "Prediction and patients - controls: demo"
    assert "with age held" in figure.caption and "n = 6 participants" in figure.caption
    assert "Outlined: 1 voxel with p < .05 (720 permuted residuals), family-wise" in figure.caption
    drawn = figure.panels[0].content.decode()
    assert ">−5.7" in drawn and ">5.7" in drawn and "t of patients - controls" in drawn


def test_a_model_of_the_group_is_no_participant(output):
    sidecar = {**SIDECAR, "GroupModel": "averaged", "GroupMethods": "Responses were averaged.",
               "NumberOfParticipants": 7}  # fmt: skip
    output.table(encoding_table().assign(p_fwe=0.01), "encodingAveraged", sidecar, **GROUP)
    output.table(encoding_table(), "encodingpeopleCrossparticipant", sidecar, **GROUP)
    problems: list[str] = []
    blocks = group_model_blocks(output.entries, Backdrop(), "group", problems)
    assert problems == []
    assert [b.text for b in blocks if b.kind == "heading"] == [
        "Participants' averaged responses: encoding", "From some participants to another one: encoding"
    ]  # fmt: skip
    assert text(blocks[0]) == "Responses were averaged."
    captions = " ".join(b.caption for b in blocks if b.kind == "figure")
    assert "n = 12 stimuli, 7 participants" in captions and "No error bars: one model of all participants." in captions
    names = [panel.name for b in blocks if b.kind == "figure" for panel in b.panels]
    assert all("encodingAveraged" in name for name in names) and len(set(names)) == len(names)
    assert [b.title for b in blocks if b.kind == "table"] == ["All numbers", "Prediction of each participant"]


def test_a_model_of_other_people_has_the_spread_over_those_it_was_tested_on(output):
    table = encoding_table().assign(p_fwe=0.01, sem=0.03, n_participants=7)
    sidecar = {**SIDECAR, "GroupModel": "cross-participant", "NumberOfParticipants": 7}
    output.table(table, "encodingCrossparticipant", sidecar, **GROUP)
    blocks = group_model_blocks(output.entries, Backdrop(), "group", [])
    profile = next(b for b in blocks if b.kind == "figure")
    assert "Error bars: ± standard error of the mean over participants." in profile.caption
    assert "r = .45 ± .03" in "".join(next(b for b in blocks if b.kind == "sentences").items).replace("\xa0", " ")


def test_pairs_of_encoding_are_tested_over_participants(output):
    rows = pd.DataFrame({
        "region": "late", "network": "n", "layer": ["a", "a", "b"], "other_network": "n",
        "other_layer": ["b", "c", "c"],
        "difference": [0.3, 0.4, 0.1], "p_fwe": [0.01, 0.01, 0.6], "n_participants": 9,
    })  # fmt: skip
    sidecar = {"Participants": [f"{i:02d}" for i in range(9)], "Test": "sign flips of differences, two-sided"}
    output.table(rows, "encodingpairs", sidecar, **GROUP)
    problems: list[str] = []
    figure, _ = pair_blocks(output.entries, "encoding", "group", problems)
    assert problems == [] and "predicts the region better than" in figure.caption
    assert "(sign flips of differences, two-sided)" in figure.caption and "n = 9 participants" in figure.caption
    assert "2 of 3 differ" in figure.panels[0].alt


def test_prevalence_is_said_with_its_interval():
    table = encoding_table().assign(n_participants=9, prevalence=0.8, prevalence_low=0.5, prevalence_high=0.95)
    said = findings(table, "pearsonr", verb="predicted", symbol="r").items[0].replace("\N{NO-BREAK SPACE}", " ")
    assert "9 participants, prevalence .80 (.50 to .95)" in said and "voxels" not in said
