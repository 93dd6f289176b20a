"""Decoding in the report: how well each target was told from each region and layer, and what was taken for what."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import ListedColormap

from bidsdnn.report.blocks import Block, Heading, attempt, data_table
from bidsdnn.report.drawing import (
    GHOST,
    HEAT,
    HEAT_TEXT,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Figure,
    Panel,
    draw,
    shorten,
    slug,
    square_axes,
)
from bidsdnn.report.entries import Entry, first, pick, read_tables
from bidsdnn.report.findings import ALPHA, Sentences, count, equation, number, probability

MAX_SOURCES = 40
"""Rows of one figure; the table holds the others."""
MAX_CONFUSIONS = 6
_WRITTEN = 12
"""Up to so many classes a cell holds its share."""
TITLE = "Decoding: can labels be told from regions and layers?"


def decoding_blocks(entries: list[Entry], stem: str, problems: list[str], *, level: str) -> list[Block]:
    """Draw what was decoded in one context, target by target.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Block
        Empty where nothing was decoded.
    """
    mine = [one for one in entries if ("sub" in one.entities) == (level == "participant")]
    tables = pick(mine, "results", "decoding")
    if not tables:
        return []
    blocks = attempt(partial(told_blocks, tables, pick(mine, "results", "confusion"), stem), "decoding", problems)
    return [Heading(TITLE), *blocks] if blocks else []


def told_blocks(tables: list[Entry], confusions: list[Entry], stem: str) -> list[Block]:
    """Say and draw how well each target was told from each place.

    Parameters
    ----------
    tables, confusions : list of Entry
    stem : str
        Beginning of the file names.

    Returns
    -------
    list of Block
    """
    whole = pd.concat([_named(entry) for entry in tables], ignore_index=True)
    draws, test = first(tables, "Permutations"), str(first(tables, "Test") or "permutations")
    tested = f"{draws:,} {test.split(', ')[0]}" if isinstance(draws, int) else test
    counts = pd.concat([_named(entry) for entry in confusions], ignore_index=True) if confusions else None
    blocks: list[Block] = [_sentences(whole, tested)]
    for target, rows in whole.groupby("target", sort=False):
        value = _value(rows)
        shown = rows[rows[value].notna()]
        if shown.empty:
            continue
        few = shown.nlargest(MAX_SOURCES, value).sort_index()
        panel = _scores(few, value, f"{stem}_desc-decoding_target-{slug(str(target))}", str(target))
        blocks.append(Figure((panel,), f"{target}: every region and layer", _caption(rows, value, tested), "wide"))
        if counts is not None:
            blocks += _confusions(shown, counts[counts["target"] == target], value, stem, str(target))
    return [*blocks, data_table(whole.drop(columns=["place", "sub"], errors="ignore"), "All numbers of decoding")]


def _named(entry: Entry) -> pd.DataFrame:
    """A table with the name of what was decoded from in each row."""
    table = read_tables([entry], "target")
    lacking = {"network": entry.entities.get("model", "")}
    network, layer, region = (table.get(name, pd.Series(lacking.get(name, ""), index=table.index)) for name in _PLACES)
    place = np.where(layer != "", layer + " (" + network + ")", region)
    atlas = entry.entities.get("atlas", "")
    return table.assign(
        place=[f"{one} ({atlas})" if atlas and one == region[k] else one for k, one in enumerate(place)]
    )


_PLACES = ("network", "layer", "region")


def _value(rows: pd.DataFrame) -> str:
    """The column of the score of a target: of classes, or of numbers."""
    has_classes = "balanced_accuracy" in rows and rows["balanced_accuracy"].notna().any()
    return "balanced_accuracy" if has_classes else "pearsonr"


def _symbol(value: str) -> str:
    return "balanced accuracy" if value == "balanced_accuracy" else "r"


def _sentences(whole: pd.DataFrame, tested: str) -> Sentences:
    """One sentence a target: where it is told best, and from how many places above chance."""
    items = []
    for target, rows in whole.groupby("target", sort=False):
        value = _value(rows)
        known = rows[rows[value].notna()]
        if known.empty:
            items.append(Markup("<b>{}</b> could not be decoded: no voxel was usable.").format(target))
            continue
        best, sure = known.loc[known[value].idxmax()], int((_corrected(known) < ALPHA).sum())
        score = equation(_symbol(value), number(best[value]))
        above = f"from {sure} of {len(known)} places above chance" if sure else "from nowhere above chance"
        items.append(
            Markup("<b>{}</b> was told {}; best from <b>{}</b>: <strong>{}</strong>, chance {}, {}, {}.").format(
                target, above, best["place"], score, number(best["chance"], 3), probability(best["p"]),
                probability(_corrected(known).loc[best.name], _corrected(known).name),
            )
        )  # fmt: skip
    lead = Markup("Each place by itself; p from {}, each repeating the whole fit.").format(tested)
    return Sentences(lead, tuple(items))


def _corrected(rows: pd.DataFrame) -> pd.Series:
    name = "p_fwe" if "p_fwe" in rows else "q"
    return rows[name].rename("p(family-wise)" if name == "p_fwe" else "q")


def _caption(rows: pd.DataFrame, value: str, tested: str) -> str:
    people = int(rows["n_participants"].max()) if "n_participants" in rows else 0
    items = int(rows["n_items"].max()) if "n_items" in rows and rows["n_items"].notna().any() else 0
    size = f"n = {count(people, 'participant')}" if people else f"n = {count(items, 'held-out item')}"
    null = " Grey: up to the 95th percentile of relabellings." if "null_95" in rows else ""
    rule = "family-wise over the regions of an atlas or over all layers" if "p_fwe" in rows else "false discovery rate"
    bars = "Bars: ± standard error of the mean over participants." if people else "No error bars: one participant."
    more = f" The {MAX_SOURCES} highest of {len(rows)}." if len(rows) > MAX_SOURCES else ""
    return (
        f"Cross-validated {_symbol(value)}; dashed: chance.{null} {size}. Filled: p < .05 ({tested}), {rule}. "
        f"{bars}{more}"
    )


def _scores(rows: pd.DataFrame, value: str, stem: str, target: str) -> Panel:
    """Score of each place, one below the other, with chance and what chance reaches."""
    places, scores = list(rows["place"]), rows[value].to_numpy(dtype=float)
    chance = float(rows["chance"].iloc[0]) if rows["chance"].notna().any() else 0.0
    sure = _corrected(rows).to_numpy() < ALPHA
    height = 23 * len(places) + 70

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        at = np.arange(len(places))
        if "null_95" in rows:
            axes.barh(at, rows["null_95"] - chance, left=chance, height=0.5, color=GHOST)
        axes.axvline(chance, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        if "sem" in rows:
            axes.errorbar(scores, at, xerr=rows["sem"], fmt="none", ecolor=INK, elinewidth=1.2)
        for y, score, filled in zip(at, scores, sure, strict=True):
            axes.plot(score, y, "o", markerfacecolor=SERIES[0] if filled else PAPER, markeredgecolor=SERIES[0])
        axes.set_yticks(at, [shorten(place, 36) for place in places])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        low, high = min(scores.min(), chance), max(scores.max(), chance + 0.05)
        axes.set(ylim=(len(places) - 0.4, -0.6), xlabel=f"{_symbol(value)} ({target})",
                 xlim=(low - 0.06 * (high - low), high + 0.08 * (high - low)))  # fmt: skip

    spoken = "; ".join(
        f"{place} {number(score)}{' (significant)' if yes else ''}"
        for place, score, yes in zip(places, scores, sure, strict=True)
    )
    return draw(
        stem, (560, height), paint, alt=f"{_symbol(value)} of {target}, chance {number(chance)}: {spoken}"[:4000]
    )


def _confusions(rows: pd.DataFrame, counts: pd.DataFrame, value: str, stem: str, target: str) -> list[Block]:
    """Confusion matrices of the places with the highest scores."""
    panels = []
    for number_of, place in enumerate(rows.nlargest(MAX_CONFUSIONS, value)["place"], 1):
        cells = counts[counts["place"] == place]
        if len(cells):
            panels.append(_confusion(cells, f"{stem}_desc-confusion_target-{slug(target)}_{number_of:02d}", str(place)))
    if not panels:
        return []
    text = (
        "Rows: the true class; columns: what it was taken for; numbers: share of the row's held-out items. "
        "A decoder without information gives rows that are alike. No test, and no error bars."
    )
    return [Figure(tuple(panels), f"{target}: what was taken for what", text, "pairs")]


def _confusion(cells: pd.DataFrame, stem: str, place: str) -> Panel:
    names = list(dict.fromkeys(cells["true"]))
    share = cells.pivot(index="true", columns="predicted", values="share").loc[names, names].to_numpy(dtype=float)
    side = max(34 * len(names), 90)
    last = len(HEAT) - 1

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        shades = np.clip(np.nan_to_num(share), 0, 1) * last
        edges = np.arange(len(names) + 1) - 0.5
        axes.pcolormesh(edges, edges, np.round(shades), cmap=ListedColormap(HEAT), vmin=-0.5, vmax=last + 0.5,
                        edgecolors=PAPER, linewidth=1.5)  # fmt: skip
        for i, j in np.ndindex(*share.shape) if len(names) <= _WRITTEN else ():
            axes.text(j, i, number(share[i, j]), ha="center", va="center", fontsize=8.5,
                      color=HEAT_TEXT[int(np.round(shades[i, j]))])  # fmt: skip
        square_axes(axes, [shorten(name, 18) for name in names])

    right = "; ".join(f"{name} {number(share[k, k])}" for k, name in enumerate(names))
    return draw(
        stem, (side + 110, side + 110), paint, alt=f"Confusions from {place}; right: {right}"[:4000], label=place
    )
