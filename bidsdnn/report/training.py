"""Figures of ablation and of training: what a cut changes by layer, and how the losses fell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from bidsdnn.report.blocks import Block
from bidsdnn.report.drawing import MARKERS, MUTED, SERIES, Figure, Panel, draw
from bidsdnn.report.entries import Entry, pick, read_table
from bidsdnn.report.figures import heat_map
from bidsdnn.report.findings import number

MOST_CUTS = 40
TERMS = {"loss": "loss", "brain": "loss of the region", "task": "loss of the task"}


def ablation_figures(entries: list[Entry], stem: str) -> list[Block]:
    """Draw what cuts change, by layer.

    Parameters
    ----------
    entries : list of Entry
        Of one network.
    stem : str
        Begins the pictures' names, unique in the page.

    Returns
    -------
    list of Block
    """
    return [_changes(entry, stem) for entry in pick(entries, "results", "ablation")]


def curve_figures(entries: list[Entry], stem: str) -> list[Block]:
    """Draw how the losses of a training fell.

    Parameters
    ----------
    entries : list of Entry
        Of one analysis of one network.
    stem : str
        Begins the pictures' names, unique in the page.

    Returns
    -------
    list of Block
    """
    curves = [entry for entry in pick(entries, "results") if entry.desc.endswith("curves")]
    return [_curves(entry, stem) for entry in curves]


def _changes(entry: Entry, stem: str) -> Figure:
    """Relative change of each layer by cut."""
    table = read_table(entry.path)
    cuts = list(dict.fromkeys(table["cut"]))
    shown = table[table["cut"].isin(cuts[:MOST_CUTS])].assign(network=entry.entities.get("model", ""))
    top = max(float(shown["relative_change"].max()), 0.02)
    panel = heat_map(shown.rename(columns={"cut": "region"}), "relative_change", stem=f"{stem}_heatmap",
                     symbol="relative change", top=top, named=False)  # fmt: skip
    caption = (
        "Change of a layer's output, as the ratio of root mean squares of the difference and of the output before, "
        f"over {entry.sidecar.get('NumberOfStimuli', 'all')} stimuli. Rows: what was cut. Columns: what is compared."
    )
    caption += f" The first {MOST_CUTS} of {len(cuts)} cuts; all are in the table." if len(cuts) > MOST_CUTS else ""
    return Figure((panel,), "What a cut changes", f"{caption} No error bars.", "wide")


def _curves(entry: Entry, stem: str) -> Figure:
    """Loss by epoch, a panel a term."""
    table = read_table(entry.path)
    terms = [term for term in TERMS if term in table]
    kept = table.loc[table["kept"] == 1, "epoch"]
    best = int(kept.iloc[0]) if len(kept) else None
    panels = tuple(_curve(table, term, best, f"{stem}_{term}") for term in terms)
    stopped = entry.sidecar.get("Stopped", "")
    why = stopped.get(entry.entities.get("model", ""), "") if isinstance(stopped, dict) else stopped
    caption = (
        "Loss after each epoch: blue circles, of the stimuli that weights were learnt from (mean over the epoch's "
        "batches); orange squares, of those by which training was stopped. Dashed: the epoch whose weights were kept. "
        f"Training ended because {why or 'all epochs were done'}. No error bars."
    )
    return Figure(panels, "Learning curves", caption)


def _curve(table: pd.DataFrame, term: str, best: int | None, name: str) -> Panel:
    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for i, (part, rows) in enumerate(table.groupby("part", sort=False)):
            axes.plot(rows["epoch"], rows[term], color=SERIES[i], marker=MARKERS[i], markersize=3.5, label=str(part))
        if best is not None:
            axes.axvline(best, color=MUTED, linestyle="--", linewidth=1)
        axes.set_xlabel("epoch")
        axes.set_ylabel(TERMS[term])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    said = [
        f"{part} {number(float(rows[term].iloc[0]))} before training, "
        f"{number(float(np.nanmin(rows[term])))} at the lowest"
        for part, rows in table.groupby("part", sort=False)
    ]
    return draw(name, (330, 240), paint, alt=f"{TERMS[term]} by epoch: {'; '.join(said)}.")
