"""The report's account of the estimation: motion by volume, designs, dropped trials, chosen responses."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bidsdnn.report.blocks import Notes, Table
from bidsdnn.report.drawing import Figure
from bidsdnn.report.estimation import estimation_blocks
from tests.report.conftest import ENTITIES, write


def volumes(n=20):
    fd = np.r_[np.nan, np.full(n - 1, 0.1)]
    fd[7] = 0.9
    one = pd.DataFrame({"volume": range(1, n + 1), "framewise_displacement": fd, "reason": "", "run": "run-1"})
    one.loc[[0, 7], "reason"] = ["not in steady state", "moved by more than 0.5 mm"]
    return pd.concat([one, one.assign(run="run-2")])


def by_title(blocks):
    return {getattr(block, "title", ""): block for block in blocks}


def test_all_that_is_known_is_shown(output):
    output.table(volumes(), "volumes", **ENTITIES)
    rng = np.random.default_rng(0)
    for run in ("run-1", "run-2"):
        design = pd.DataFrame({"trial0": rng.random(20), "trial1": rng.random(20), "trans_x": rng.random(20)})
        design["constant"], design["fitted"] = 1.0, [0, *[1] * 19]
        write(design, output.folder / f"{run}_design.tsv")
    quality = pd.DataFrame({"run": ["run-1", "run-2"], "max_trial_r": [0.2, 0.9], "condition_number": [3.0, 41.2]})
    output.table(quality, "quality", {"DesignFiles": ["run-1_design.tsv", "run-2_design.tsv"]}, **ENTITIES)
    dropped = pd.DataFrame({"reason": ["collinear", "after the last volume"], "n_trials": [2, 1], "run": "run-2"})
    output.table(dropped, "dropped", **ENTITIES)
    chosen = np.zeros((4, 4, 3))
    chosen[:2], chosen[0, 0] = 12, 3
    output.map(chosen, "hrf", "estimation", **ENTITIES)
    problems = []
    shown = by_title(estimation_blocks(output.entries, "sub-01", problems))
    assert problems == []
    motion = shown["Motion by volume"]
    assert isinstance(motion, Figure)
    assert "n = 40 volumes of 2 runs" in motion.caption
    assert "2 volumes left out: moved by more than 0.5 mm" in motion.caption
    designs = shown["Design matrices"]
    # The first, and the one that is the most collinear.
    assert [panel.label for panel in designs.panels] == ["run-1", "run-2"]
    assert "2 trials and 2 other regressors over 20 volumes" in designs.panels[0].alt
    assert ".20 to .90 over n = 2 runs" in designs.caption
    assert "3 to 41" in designs.caption
    assert "In 1 run two trials' regressors correlate by more than 0.8" in designs.caption
    notes = shown["Dropped trials"]
    assert isinstance(notes, Notes)
    assert notes.items == ("2 trials: collinear", "1 trial: after the last volume")
    assert isinstance(shown["Dropped trials by run"], Table)
    hrfs = shown["Chosen haemodynamic responses"]
    assert "most often number 12 of the library (21 voxels)" in hrfs.caption


def test_nothing_is_drawn_of_what_is_not_there(output):
    output.table(volumes().assign(framewise_displacement=np.nan), "volumes", **ENTITIES)
    output.table(pd.DataFrame({"run": ["run-1"], "n_trials": 3}), "quality", **ENTITIES)
    output.table(pd.DataFrame({"reason": [], "n_trials": [], "run": []}), "dropped", **ENTITIES)
    problems = []
    (only,) = estimation_blocks(output.entries, "sub-01", problems)
    assert only.items == ("Every trial of interest has a response.",)
    assert problems == []


def test_a_design_that_is_gone_costs_its_figure_only(output):
    output.table(volumes(), "volumes", **ENTITIES)
    quality = pd.DataFrame({"run": ["run-1"], "max_trial_r": [0.2], "condition_number": [3.0]})
    output.table(quality, "quality", {"DesignFiles": ["gone_design.tsv"]}, **ENTITIES)
    problems = []
    assert "Motion by volume" in by_title(estimation_blocks(output.entries, "sub-01", problems))
    assert len(problems) == 1
    assert "designs not shown" in problems[0]
