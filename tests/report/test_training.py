"""Figures of ablation and training: what is drawn is what the tables say, and other analyses have none."""

from __future__ import annotations

import pandas as pd
import pytest

from bidsdnn.report.entries import Entry
from bidsdnn.report.training import MOST_CUTS, ablation_figures, curve_figures
from tests.report.conftest import write


def entry(folder, table, desc, **sidecar):
    path = write(pd.DataFrame(table), folder / f"model-net_desc-{desc}_results.tsv")
    return Entry(path, {"model": "net", "desc": desc}, "results", sidecar)


def test_changes_by_cut_and_layer(tmp_path):
    rows = [
        {"cut": f"conv1:{i}", "layer": layer, "relative_change": change, "pearsonr": 1.0}
        for i in range(MOST_CUTS + 2) for layer, change in (("conv1", 0.1), ("output", 0.5))
    ]  # fmt: skip
    (figure,) = ablation_figures([entry(tmp_path, rows, "ablation", NumberOfStimuli=9)], "x")
    assert "over 9 stimuli" in figure.caption and f"The first {MOST_CUTS} of {MOST_CUTS + 2} cuts" in figure.caption
    (panel,) = figure.panels
    assert "conv1:0" in panel.alt and ".50" in panel.alt and "conv1:41" not in panel.alt
    assert panel.name == "x_heatmap.svg"


@pytest.mark.parametrize(("desc", "terms"), [("transfer", ["loss"]), ("braintraining", ["loss", "brain", "task"])])
def test_curves_say_what_was_kept_and_why_training_ended(tmp_path, desc, terms):
    rows = [
        {"epoch": epoch, "part": part, **dict.fromkeys(terms, 1.0 / (1 + epoch)), "kept": int(epoch == 2)}
        for epoch in range(4) for part in ("train", "validation")
    ]  # fmt: skip
    stopped = {"net": "no smaller validation loss in 1 epochs"} if desc == "braintraining" else "all 3 epochs were done"
    given = entry(tmp_path, rows, f"{desc}curves", Stopped=stopped)
    (figure,) = curve_figures([given], "x")
    assert [panel.name for panel in figure.panels] == [f"x_{term}.svg" for term in terms]
    assert "train 1.00 before training, .25 at the lowest" in figure.panels[0].alt
    assert (stopped["net"] if isinstance(stopped, dict) else stopped) in figure.caption


def test_other_analyses_have_none(tmp_path):
    other = entry(tmp_path, [{"layer": "a"}], "topstimuli")
    assert ablation_figures([other], "x") == [] and curve_figures([other], "x") == []
