"""What encoding says beyond scores: how sure a best layer is, how deep, which network is ahead, and the best voxels."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from bidsdnn.report.backdrop import Backdrop, read_picture
from bidsdnn.report.blocks import Block, Legend, Notes, attempt, data_table
from bidsdnn.report.brains import best_layer, score_map
from bidsdnn.report.drawing import (
    INK,
    LINE,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    Figure,
    Panel,
    draw,
    shorten,
    slug,
)
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.figures import MAX_REGIONS, legend
from bidsdnn.report.findings import ALPHA, count, number
from bidsdnn.report.maps import as_figure, looking, named_parts, view

ORDERED = "hierarchy"
"""Row of the table of regions that is about all of them in their order."""


def encoding_blocks(near: list[Entry], stem: str, problems: list[str], *, level: str) -> list[Block]:
    """Confidence of best layers, their depth and the comparison of networks, of one atlas.

    Parameters
    ----------
    near : list of Entry
        Of one context and atlas.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for desc, make in (("bestlayer", _confidence), ("hierarchy", _depth), ("networks", _networks)):
        tables = [e for e in pick(near, "results", desc) if level == "participant" or "sub" not in e.entities]
        if tables:
            blocks += attempt(partial(make, tables, stem), f"{desc} table", problems)
    return blocks


def _colours(n: int) -> list[str]:
    """Dark for shallow layers, bright for deep ones, as on the maps."""
    return [to_hex(colour) for colour in matplotlib.colormaps["plasma"](np.linspace(0.05, 0.95, n))]


def _confidence(tables: list[Entry], stem: str) -> list[Block]:
    """Shares of bootstrap samples in which each layer is best, a bar a region."""
    table = read_tables(tables, "network", "layer", "region", "confidence")
    panels = []
    for network, rows in table.groupby("network", sort=False):
        layers, regions = ordered(rows["layer"]), ordered(rows["region"])[:MAX_REGIONS]
        if len(layers) < 2:
            continue
        share = rows.pivot(index="region", columns="layer", values="confidence").reindex(index=regions, columns=layers)
        panels.append(_bars(share, f"{stem}_model-{slug(str(network))}_confidence", str(network)))
    if not panels:
        return []
    samples, people = first(tables, "BootstrapSamples"), first(tables, "Participants")
    stimuli = first(tables, "BootstrapUnits") or first(tables, "NumberOfStimuli")
    drawn = f"participants (n = {len(people)})" if people else f"stimuli (n = {stimuli or 'all'})"
    over = f"{samples:,} bootstrap samples of the {drawn}" if samples else "the samples"
    what = "their scores" if people else "held-out predictions"
    caption = (
        f"Share of {over} in which a layer has a region's highest mean r, the first layer on the left and dark; "
        f"{what} are resampled, no model is fitted again. Named is the layer with the largest share. No test and no "
        "error bars."
    )
    return [Figure(tuple(panels), "How sure is the best layer?", caption, "wide")]


def _bars(share: pd.DataFrame, stem: str, network: str) -> Panel:
    colours = _colours(share.shape[1])

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for row, (_, shares) in enumerate(share.iterrows()):
            left = 0.0
            values = shares.fillna(0).to_numpy()
            for width, colour in zip(values, colours, strict=True):
                axes.barh(row, width, left=left, color=colour, height=0.72)
                left += width
            if values.any():
                best = int(values.argmax())
                text = f"{shorten(str(share.columns[best]), 20)} {values[best]:.0%}"
                axes.text(1.015, row, text, va="center", color=INK, fontsize=9.5)
        axes.set_yticks(range(len(share)), [shorten(str(name), 24) for name in share.index])
        axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False)
        axes.set(xlim=(0, 1.4), ylim=(len(share) - 0.5, -0.5))
        axes.spines[:].set_visible(False)

    best = ", ".join(f"{name}: {row.idxmax()} {row.max():.0%}" for name, row in share.iterrows() if row.notna().any())
    alt = f"Confidence of the best layer of {network} by region. {best}."
    return draw(stem, (560, 30 * len(share) + 46), paint, alt=alt[:4000], label=network)


def _depth(tables: list[Entry], stem: str) -> list[Block]:
    """Depth of each region in each network, with its error, and the scores of the regions' order."""
    table = read_tables(tables, "network", "region", "depth")
    regions = table[table["region"] != ORDERED]
    numbers = data_table(table.drop(columns=["sub"], errors="ignore"), "Best layer and depth of each region")
    known = regions[regions["depth"].notna()]
    if known.empty:
        return [numbers]
    # Networks keep the colour that they have in the profiles.
    networks, names = ordered(regions["network"]), ordered(known["region"])[: 2 * MAX_REGIONS]
    error = "depth_se" if "depth_se" in known else "sem"

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x", color=LINE, linewidth=0.8)
        for i, network in enumerate(networks):
            rows = known[known["network"] == network].set_index("region")
            if rows.empty:
                continue
            y = [row + 0.22 * (i - (len(networks) - 1) / 2) for row, name in enumerate(names) if name in rows.index]
            part = rows.loc[[name for name in names if name in rows.index]]
            bars = part[error].fillna(0) if error in part else None
            colour = SERIES[i % len(SERIES)]
            axes.errorbar(part["depth"], y, xerr=bars, fmt=MARKERS[i % len(MARKERS)], color=colour, elinewidth=1.4)
        axes.set_yticks(range(len(names)), [shorten(name, 26) for name in names])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(xlabel="depth: 0 first layer, 1 last layer", xlim=(-0.03, 1.03), ylim=(len(names) - 0.5, -0.5))
        axes.spines["bottom"].set_visible(False)

    spoken = "; ".join(f"{r['region']} in {r['network']} {number(r['depth'])}" for _, r in known.iterrows())
    panel = draw(f"{stem}_depth", (520, 28 * len(names) + 60), paint, alt=f"Depth by region: {spoken}."[:4000])
    people = first(tables, "Participants")
    bars = "over participants" if people else "bootstrap over stimuli, raised for training parts' overlap"
    n = (
        f"n = {count(len(people), 'participant')}"
        if people
        else f"n = {count(len(names), 'region')} of one participant"
    )
    caption = (
        "Mean depth of the layer that predicts each voxel best, of voxels whose r exceeds 1.645 over the root of the "
        f"number of stimuli. {n}. Error bars: ± standard error ({bars}). No test."
    )
    said = [
        f"{row['network']}: brain hierarchy score {number(row['hierarchy_score'])} "
        f"± {number(row['hierarchy_se'])} (rank correlation of the regions' order and each voxel's best layer)."
        for _, row in table[table["region"] == ORDERED].iterrows()
        if np.isfinite(row.get("hierarchy_score", np.nan))
    ]
    keys: list[Block] = [Legend(tuple(legend(networks)))] if len(networks) > 1 else []
    order: list[Block] = [Notes("The regions' order", tuple(said))] if said else []
    return [*keys, Figure((panel,), "How deep is each region?", caption, "wide"), *order, numbers]


def _p(p: float) -> str:
    """As of a test that is not limited by a number of permutations."""
    return "< .001" if p < 0.001 else f"= {number(p, 3)}"


def _networks(tables: list[Entry], stem: str) -> list[Block]:
    """Sentences on the networks that can be told apart, and all numbers."""
    table = read_tables(tables, "first", "second", "region", "difference", "p_fwe")
    sure = table[table["p_fwe"] < ALPHA]
    said = [
        f"{row['region']}: {row['first'] if row['difference'] > 0 else row['second']} over "
        f"{row['second'] if row['difference'] > 0 else row['first']} by {number(abs(row['difference']))} "
        f"(p {_p(row['p_fwe'])})"
        for _, row in sure.iterrows()
    ]
    how = str(
        first(tables, "NetworksTest") or "t-test with the bootstrap variance over stimuli; Holm over a region's pairs"
    )
    rest = len(table) - len(sure)
    said += [f"In {count(rest, 'comparison')} no difference can be told. ({how})"] if rest else [f"({how})"]
    return [Notes("Which network predicts better?", tuple(said)), data_table(table, "All pairs of networks")]


def voxel_blocks(own: list[Entry], base: Backdrop, stem: str, problems: list[str]) -> list[Block]:
    """Predicted against measured responses of the best voxels, and maps of how sure each best layer is.

    Parameters
    ----------
    own : list of Entry
        Of one context.
    base : Scan or None
        The background.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for entry in pick(own, "statmap", "bestlayer", "confidence"):
        blocks += attempt(partial(_confidence_map, entry, base, stem), entry.path.name, problems)
    for entry in pick(own, "results", "bestvoxels"):
        blocks += attempt(partial(_scatter, entry, stem), entry.path.name, problems)
    return blocks


def _confidence_map(entry: Entry, base: Backdrop, stem: str) -> list[Block]:
    picture = read_picture(entry.path, base)
    if len(picture.values) < 2:
        return []
    _, share = best_layer(picture.values)
    model = str(entry.sidecar.get("Network") or entry.entities.get("model", "network"))
    chance = 1 / len(picture.values)
    finite = share[np.isfinite(share)]
    median = f"{np.median(finite):.0%}" if finite.size else "n/a"
    one, several = picture.noun
    label = "share of bootstrap samples"
    alt = (
        f"{view(picture)} with the largest share of bootstrap samples of any layer of {model}; the median is {median}."
    )
    panels = tuple(
        score_map(part, base.scan, stem=name, label=label, alt=alt, floor=chance, highest=1.0)
        for name, part in named_parts(f"{stem}_model-{slug(model)}_stat-confidence", picture, share)
    )
    caption = (
        f"In how many bootstrap samples of the held-out stimuli the same layer of {model} has a {one}'s highest r; "
        f"{number(chance)} would be chance. n = {count(finite.size, one, several)}; median {median}. "
        f"No test and no error bars. {looking(picture)}"
    )
    return as_figure(panels, f"How sure is each {one}'s best layer: {model}", caption, picture)


def _scatter(entry: Entry, stem: str) -> list[Block]:
    table = read_tables([entry], "layer", "region", "voxel", "pearsonr", "prediction", "measured")
    network = entry.entities.get("model", "")
    panels = []
    for place, (_, rows) in enumerate(table.groupby("voxel", sort=False), 1):
        panels.append(_cloud(rows, f"{stem}_model-{slug(network)}_voxel_{place}", place))
    n = len(table) // max(len(panels), 1)
    caption = (
        "Held-out predictions and measured responses of the voxels with the highest cross-validated r, a point a "
        f"stimulus (n = {count(n, 'stimulus', 'stimuli')}), in units of their spread. They were chosen for their r, so "
        "it is too high as an estimate. No test and no error bars."
    )
    return [Figure(tuple(panels), f"Best voxels: {network}", caption)] if panels else []


def _cloud(rows: pd.DataFrame, stem: str, place: int) -> Panel:
    row = rows.iloc[0]
    title = f"{shorten(str(row['region']), 16)}, {shorten(str(row['layer']), 12)}: r {number(row['pearsonr'])}"

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.plot(rows["prediction"], rows["measured"], "o", color=SERIES[0], markersize=4, alpha=0.75,
                  markeredgecolor=PAPER, markeredgewidth=0.5)  # fmt: skip
        axes.set(title=title, xlabel="predicted", ylabel="measured")
        axes.title.set_fontsize(10.5)

    return draw(stem, (250, 226), paint, alt=f"Predicted against measured responses of voxel {place}: {title}.")
