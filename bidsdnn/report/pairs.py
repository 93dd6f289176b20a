"""Which layers differ from which: a matrix for each region, of all networks together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.report.blocks import Block, Notes, attempt, data_table
from bidsdnn.report.drawing import GHOST, MUTED, PAPER, SERIES, Figure, Panel, draw, shorten, slug, square_axes
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.findings import ALPHA, comparison_symbol, count, number

MAX_LAYERS = 30
MAX_REGIONS = 12
_WRITTEN = 12
"""Up to so many layers a cell holds its difference."""


def pair_blocks(entries: list[Entry], desc: str, stem: str, problems: list[str]) -> list[Block]:
    """Draw which layers are more similar to a region, or predict it better, than others, and fold away the numbers.

    Parameters
    ----------
    entries : list of Entry
        Of one context and atlas.
    desc : str
        ``encoding`` or ``rsa``.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    tables = pick(entries, "results", f"{desc}pairs")
    return attempt(partial(_blocks, tables, f"{stem}_desc-{desc}"), "pairs of layers", problems) if tables else []


def _blocks(tables: list[Entry], stem: str) -> list[Block]:
    every = read_tables(tables, "network", "layer", "other_network", "other_layer", "region", "difference", "p_fwe")
    table, symbol, does = every, "r", "predicts the region better than"
    if "comparison" in every:
        comparisons, metric = ordered(every["comparison"]), ordered(every["metric"])[0]
        comparison = "spearman" if "spearman" in comparisons else comparisons[0]
        table = every[(every["comparison"] == comparison) & (every["metric"] == metric)]
        symbol, does = comparison_symbol(comparison), "is more similar to the region than"
    several = len(set(table["network"]) | set(table["other_network"])) > 1
    panels: list[Panel] = []
    alike: list[str] = []
    for place, (region, rows) in enumerate(table.groupby("region", sort=False), 1):
        names, matrix, p = _matrices(rows, several=several)
        if not (p < ALPHA).any():
            alike.append(str(region))
        elif len(names) <= MAX_LAYERS and len(panels) < MAX_REGIONS:
            panels.append(_panel(str(region), names, matrix, p, f"{stem}_pairs_{place:02d}+{slug(str(region))}"))
    numbers = data_table(every.drop(columns=["sub"], errors="ignore"), "All pairs of layers")
    people = len(first(tables, "Participants") or [])
    tested = "Holm; t-tests with the bootstrap variance over stimuli and participants"
    tested = tested if "comparison" in every else str(first(tables, "Test") or "permutations")
    nothing = (
        f"In {', '.join(alike)} no two layers can be told apart by their {symbol} "
        f"(family-wise p < .05 over all pairs of a region, n = {count(people, 'participant')})."
    )
    if not panels:
        return [*([Notes("Which layers differ?", (nothing,))] if alike else []), numbers]
    caption = (
        f"Difference in {symbol} of each two layers, best layer on top. Filled: the row's layer {does} that of the "
        f"column, p < .05 family-wise over all pairs of a region ({tested}); outlined: less so; dots: no difference "
        f"can be told. n = {count(people, 'participant')}. No error bars.{' ' + nothing if alike else ''}"
    )
    return [Figure(tuple(panels), "Which layers differ?", caption, "wide"), numbers]


def _matrices(rows: pd.DataFrame, *, several: bool) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, differences (row less column) and p of one region's layers, the most similar layer first."""
    one = list(zip(rows["network"], rows["layer"], strict=True))
    other = list(zip(rows["other_network"], rows["other_layer"], strict=True))
    keys = list(dict.fromkeys([*one[:1], *other, *one]))
    place = {key: i for i, key in enumerate(keys)}
    difference, p = np.zeros((len(keys), len(keys))), np.full((len(keys), len(keys)), np.nan)
    for a, b, value, sure in zip(one, other, rows["difference"], rows["p_fwe"], strict=True):
        i, j = place[a], place[b]
        difference[i, j], difference[j, i] = value, -value
        p[i, j] = p[j, i] = sure
    order = np.argsort(-difference.sum(axis=1), kind="stable")
    names = [f"{layer} ({shorten(network, 12)})" if several else layer for network, layer in keys]
    return [names[i] for i in order], difference[np.ix_(order, order)], p[np.ix_(order, order)]


def _panel(region: str, names: list[str], difference: np.ndarray, p: np.ndarray, stem: str) -> Panel:
    cell = 34 if len(names) <= _WRITTEN else 16
    side = cell * len(names)

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for i, j in zip(*np.nonzero(~np.eye(len(names), dtype=bool)), strict=True):
            if not p[i, j] < ALPHA:
                axes.plot(j, i, ".", color=GHOST, markersize=4)
                continue
            more = difference[i, j] > 0
            axes.fill([j - 0.45, j + 0.45, j + 0.45, j - 0.45], [i - 0.45, i - 0.45, i + 0.45, i + 0.45],
                      facecolor=SERIES[0] if more else PAPER, edgecolor=SERIES[0], linewidth=1)  # fmt: skip
            if len(names) <= _WRITTEN:
                axes.text(j, i, number(abs(difference[i, j])), ha="center", va="center", fontsize=8.5,
                          color=PAPER if more else MUTED)  # fmt: skip
        square_axes(axes, [shorten(name, 34) for name in names])

    upper = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if p[i, j] < ALPHA]
    said = "; ".join(f"{names[i]} over {names[j]} by {number(difference[i, j])}" for i, j in upper)
    alt = f"Pairs of layers in {region}: {len(upper)} of {len(names) * (len(names) - 1) // 2} differ. {said}"
    return draw(stem, (side + 150, side + 130), paint, alt=alt[:4000], label=region)
