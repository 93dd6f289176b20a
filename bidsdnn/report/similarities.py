"""How similar layers, regions or people are: a matrix in the order of its tree, and a plane."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import dendrogram

from bidsdnn.methods.arrangement import classical_mds, square_of_pairs, tree
from bidsdnn.report.blocks import Block, Heading, attempt, data_table
from bidsdnn.report.drawing import (
    HEAT,
    HEAT_TEXT,
    INK,
    LINE,
    MARKERS,
    MUTED,
    SERIES,
    Figure,
    Panel,
    draw,
    shorten,
    slug,
)
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.findings import comparison_symbol, count, number
from bidsdnn.result import COLUMN

MAX_ITEMS = 60
MAX_REGIONS = 12
_WRITTEN = 14
"""Up to so many items a cell holds its number."""
FEW = 5
"""Fewer items lie on any plane as well as on another."""
Items = list[tuple[str, str]]


def similarity_blocks(entries: list[Entry], stem: str, problems: list[str], *, level: str) -> list[Block]:
    """Draw matrices, trees and planes of layers, regions and people.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` or ``group``, which shows what belongs to no single participant.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for desc, make in (("similarity", _geometries), ("people", _people)):
        for entry in pick(entries, "results", desc):
            if (level == "group") != ("sub" in entry.entities):
                label = f"{stem}_atlas-{slug(entry.entities.get('atlas', 'none'))}_desc-{desc}"
                blocks += attempt(partial(make, entry, label), entry.path.name, problems)
    return [Heading("Geometries side by side: what is alike?"), *blocks] if blocks else []


def _geometries(entry: Entry, stem: str) -> list[Block]:
    """Layers and columns, regions, and all together."""
    table, comparison = _chosen(read_tables([entry], "first_kind", "first", "second_kind", "second", "similarity"))
    regions = (table["first_kind"] == "region") & (table["second_kind"] == "region")
    models = (table["first_kind"] != "region") & (table["second_kind"] != "region")
    panels: list[Panel] = []
    for name, rows in (("models", table[models]), ("regions", table[regions]), ("models and regions", table)):
        # All together repeats either, where there is only one kind.
        if len(rows) > 2 and (name != "models and regions" or (models.any() and regions.any())):
            panels += _pictures(rows, name, comparison, f"{stem}_{slug(name)}", _limits(rows))
    people = len(first([entry], "Participants") or [])
    over = f"; mean over n = {count(people, 'participant')}, Fisher-averaged" if people else ""
    return _figure(panels, "Layers and regions", comparison, over, table)


def _people(entry: Entry, stem: str) -> list[Block]:
    """People in each region."""
    table, comparison = _chosen(read_tables([entry], "region", "first", "second", "similarity"))
    panels: list[Panel] = []
    for region in ordered(table["region"])[:MAX_REGIONS]:
        rows = table[table["region"] == region].assign(first_kind="", second_kind="")
        if len(rows) > 2:
            panels += _pictures(rows, str(region), comparison, f"{stem}_{slug(region)}", _limits(table))
    n = len(set(table["first"]) | set(table["second"]))
    return _figure(panels, "Participants", comparison, f", n = {count(n, 'participant')}, by region", table)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Where the shades begin and end: at zero, unless something lies below it."""
    known = table.loc[table["similarity"] < 1, "similarity"]
    return (float(min(known.min(), 0.0)), float(max(known.max(), 1e-9))) if len(known) else (0.0, 1.0)


def _chosen(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    comparisons = ordered(table["comparison"])
    comparison = "spearman" if "spearman" in comparisons else comparisons[0]
    return table[table["comparison"] == comparison], comparison


def _figure(panels: list[Panel], title: str, comparison: str, over: str, table: pd.DataFrame) -> list[Block]:
    numbers = data_table(table.drop(columns=["sub"], errors="ignore"), f"{title}: all pairs")
    if not panels:
        return [numbers]
    planes = any(panel.name.endswith("_plane.svg") for panel in panels)
    flat = (
        " Planes keep those distances as well as two dimensions can (classical multidimensional scaling)."
        if planes
        else ""
    )
    caption = (
        f"Similarity ({comparison_symbol(comparison)}) of each two distance matrices{over}. They stand in the order "
        f"of a tree (average linkage of 1 − similarity).{flat} No test and no error bars: a description."
    )
    return [Figure(tuple(panels), title, caption, "pairs" if planes else "grid"), numbers]


def _pictures(rows: pd.DataFrame, name: str, comparison: str, stem: str, limits: tuple[float, float]) -> list[Panel]:
    items, square = square_of_pairs(
        list(zip(rows["first_kind"], rows["first"], strict=True)),
        list(zip(rows["second_kind"], rows["second"], strict=True)),
        rows["similarity"],
    )
    known = np.isfinite(square).sum(axis=1) > 1
    items, square = [one for one, there in zip(items, known, strict=True) if there], square[np.ix_(known, known)]
    if not 3 <= len(items) <= MAX_ITEMS or not np.isfinite(square).all():
        return []
    matrix = _matrix(items, square, name, comparison, f"{stem}_matrix", limits)
    return [matrix, _plane(items, square, name, f"{stem}_plane")] if len(items) >= FEW else [matrix]


def _labels(items: Items) -> list[str]:
    kinds = list(dict.fromkeys(kind for kind, _ in items if kind not in ("", "region", COLUMN)))
    return [shorten(f"{name} ({kind})" if len(kinds) > 1 and kind in kinds else name, 26) for kind, name in items]


def _matrix(
    items: Items, square: np.ndarray, name: str, comparison: str, stem: str, limits: tuple[float, float]
) -> Panel:
    """Similarities as shades, the tree above them."""
    links, order = tree(1 - square)
    labels = [_labels(items)[k] for k in order]
    shown = square[np.ix_(order, order)]
    off = shown[~np.eye(len(items), dtype=bool)]
    low, high = limits
    side = max(230 if len(items) >= FEW else 120, (34 if len(items) <= _WRITTEN else 12) * len(items))

    def paint(canvas: Any) -> None:
        above, axes = canvas.subplots(2, 1, height_ratios=(1, 5), sharex=False)
        drawn = dendrogram(links, no_plot=True)
        for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            above.plot((np.array(x) - 5) / 10, y, color=MUTED, linewidth=1)
        above.set(xlim=(-0.5, len(items) - 0.5), xticks=[], yticks=[], title=name)
        above.grid(visible=False)
        above.spines[:].set_visible(False)
        for i, j in np.ndindex(shown.shape):
            if i != j:
                shade = int(np.clip((shown[i, j] - low) / (high - low) * len(HEAT), 0, len(HEAT) - 1))
                axes.fill([j - 0.5, j + 0.5, j + 0.5, j - 0.5], [i - 0.5, i - 0.5, i + 0.5, i + 0.5],
                          facecolor=HEAT[shade], edgecolor="none")  # fmt: skip
                if len(items) <= _WRITTEN:
                    axes.text(
                        j, i, number(float(shown[i, j])), ha="center", va="center", fontsize=8, color=HEAT_TEXT[shade]
                    )
        axes.set_xticks(range(len(items)), labels, rotation=55, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(items)), labels)
        axes.tick_params(length=0, labelcolor=INK)
        axes.set(xlim=(-0.5, len(items) - 0.5), ylim=(len(items) - 0.5, -0.5))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    one, other = np.unravel_index(np.where(np.eye(len(items), dtype=bool), -2, shown).argmax(), shown.shape)
    alt = (
        f"{comparison_symbol(comparison)} between {count(len(items), 'geometry', 'geometries')} ({name}), from "
        f"{number(float(off.min()))} to {number(float(off.max()))}; most alike are {labels[one]} and {labels[other]}. "
        f"Order of the tree: {', '.join(labels)}."
    )
    return draw(stem, (side + 130, side * 1.2 + 110), paint, alt=alt[:4000])


def _plane(items: Items, square: np.ndarray, name: str, stem: str) -> Panel:
    """Each item as a mark of its kind, with its name."""
    distances = 1 - square
    np.fill_diagonal(distances, 0)
    places, _ = classical_mds(distances)
    kinds, labels = list(dict.fromkeys(kind for kind, _ in items)), [shorten(item, 18) for _, item in items]

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for i, kind in enumerate(kinds):
            chosen = np.array([one == kind for one, _ in items])
            axes.plot(*places[chosen].T, MARKERS[i % len(MARKERS)], color=SERIES[i % len(SERIES)], linestyle="none",
                      label=kind or None)  # fmt: skip
        for place, label in zip(places, labels, strict=True):
            axes.annotate(label, place, xytext=(4, 4), textcoords="offset points", fontsize=8, color=INK)
        axes.set(title=name, xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(LINE)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.15)
        if len(kinds) > 1:
            axes.legend(fontsize=8, loc="best")

    alt = f"{name} on a plane: " + "; ".join(
        f"{label} {x:.2g}, {y:.2g}" for label, (x, y) in zip(labels, places, strict=True)
    )
    return draw(stem, (340, 340), paint, alt=alt[:4000])
