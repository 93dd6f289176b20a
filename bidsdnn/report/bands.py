"""Models of several bands or feature spaces at once: what each adds to the joint score, or explains by itself.

Parts that sum to a whole are drawn as bars from zero, one panel a region, with the whole beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from bidsdnn.report.blocks import Block, Notes, data_table
from bidsdnn.report.drawing import GHOST, INK, MUTED, SERIES, Figure, Panel, draw, shorten, slug
from bidsdnn.report.entries import Entry, first, ordered, read_tables
from bidsdnn.report.figures import MAX_REGIONS
from bidsdnn.report.findings import ALPHA, MAX_SENTENCES, Sentences, count, decisive, equation, number, probability
from bidsdnn.result import JOINT

if TYPE_CHECKING:
    from bidsdnn.report.scores import Trust

_PARTS = {"unique": "unique to {}", "shared": "shared by {}", "alone": "{} alone", "all": "all spaces"}


def joint_blocks(table: pd.DataFrame, trust: Trust, stem: str) -> list[Block]:
    """Sentences and bars of joint models: the score of all bands, and each one's share of it.

    Parameters
    ----------
    table : DataFrame
        Rows of encoding whose ``layer`` is `JOINT` or a band.
    trust : Trust
        What is to be said of n and the test.
    stem : str
        Beginning of the file names.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for network in ordered(table["network"]):
        own = table[table["network"] == network]
        blocks += [_joint_sentences(own, trust, network), _joint_figure(own, trust, stem, network)]
    return blocks


def _joint_sentences(table: pd.DataFrame, trust: Trust, network: str) -> Sentences:
    """What all bands predict in each region, and which of them adds most."""
    whole, bands = table[table["layer"] == JOINT], table[table["layer"] != JOINT]
    sure_by, items = decisive(whole), []
    known = whole[whole["pearsonr"].notna()]
    for _, row in known.head(MAX_SENTENCES).iterrows():
        own = bands[bands["region"] == row["region"]]
        largest = own.loc[own["pearsonr"].idxmax()] if own["pearsonr"].notna().any() else None
        text = Markup("In <b>{}</b>, all bands together {} <strong>{}</strong>{}").format(
            row["region"], "predicted" if _sure(row, sure_by) or not sure_by else "did not predict above chance:",
            equation("mean r", number(row["pearsonr"])), f", {probability(row['p'])}" if "p" in row else "",
        )  # fmt: skip
        if largest is not None:
            text += Markup("; <code>{}</code> adds most ({}).").format(largest["layer"], number(largest["pearsonr"]))
        items.append(text)
    if len(known) > MAX_SENTENCES:
        items.append(Markup("{}: see the table below.").format(count(len(known) - MAX_SENTENCES, "more region")))
    sure = int(sum(_sure(row, sure_by) for _, row in known.iterrows())) if trust.decidable and sure_by else 0
    lead = Markup("All {} of <b>{}</b> as one model predicted {} of {} above chance.").format(
        count(bands["layer"].nunique(), "band"), network, sure, count(len(known), "region")
    )
    return Sentences(lead, tuple(items))


def _sure(row: pd.Series, sure_by: str | None) -> bool:
    return bool(sure_by and row[sure_by] < ALPHA)


def _joint_figure(table: pd.DataFrame, trust: Trust, stem: str, network: str) -> Figure:
    bars = {
        region: [(str(row["layer"]), float(row["pearsonr"]), np.nan, np.nan) for _, row in part.iterrows()]
        for region, part in table.groupby("region", sort=False)
    }
    panels = _panels(bars, f"{stem}_model-{slug(network)}_bands", "mean r", first_is_whole=True)
    caption = (
        "Cross-validated r of all bands as one model (dark), and what each band adds to it (the product measure): the "
        f"bands sum to the whole, and may be negative. {trust.caption('A sentence above says which regions are')} "
        "Bands have no p. No error bars."
    )
    return Figure(panels, f"What each band adds: {network}", caption)


def partition_blocks(tables: list[Entry], stem: str, *, level: str) -> list[Block]:
    """Bars of what feature spaces explain, uniquely and together, in each region, and the numbers.

    Parameters
    ----------
    tables : list of Entry
        Of one atlas.
    stem : str
        Beginning of the file names.
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Block
    """
    table = read_tables(tables, "network", "part", "spaces", "region", "r2")
    if level == "group":
        table, tables = table[table["sub"] == ""], [one for one in tables if "sub" not in one.entities]
    if table.empty:
        return []
    shown = table[table["part"].isin(["all", "unique", "shared"])]
    spread = ("ci_low", "ci_high") if "ci_low" in table else ("sem", "sem")
    bars = {
        str(region): [
            (_PARTS[row["part"]].format(row["spaces"].replace("+", " and ")), float(row["r2"]), *_ends(row, spread))
            for _, row in part.iterrows()
        ]
        for region, part in shown.groupby("region", sort=False)
    }
    interval = str(first(tables, "Interval") or "") if level == "participant" else ""
    n = first(tables, "NumberOfStimuli")
    people = len(first(tables, "Participants") or [])
    size = f"n = {count(people, 'participant')}" if level == "group" else f"n = {count(n or 0, 'stimulus', 'stimuli')}"
    caption = (
        "Held-out R² of all spaces as one model (dark), and its parts, which sum to it: what each space explains "
        f"beyond the others, and what several explain alike. Parts may be negative. {size}. "
        + (f"Error bars: {interval}." if interval else "Error bars: ± standard error of the mean over participants.")
        + (f" p of unique parts: {first(tables, 'Test')}; not corrected for the number of parts." if interval else "")
    )
    figure = Figure(_panels(bars, f"{stem}_parts", "R²", first_is_whole=True), "Unique and shared variance", caption)
    return [_partition_sentences(table), figure, data_table(table, "All numbers")]


def _partition_sentences(table: pd.DataFrame) -> Block:
    """How much all spaces explain in each region, and what is unique to each."""
    said = []
    for region, part in table.groupby("region", sort=False):
        whole, unique = part[part["part"] == "all"].iloc[0], part[part["part"] == "unique"]
        pieces = [
            f"{row['spaces']} by itself adds {number(row['r2'], 3)}"
            + (f" ({probability(row['p'])})" if "p" in row else "")
            for _, row in unique.iterrows()
        ]
        if np.isfinite(whole["r2"]):
            said.append(f"In {region}, all spaces explain R² = {number(whole['r2'])}: {'; '.join(pieces)}.")
    return Notes("", tuple(said[:MAX_SENTENCES]) or ("No region could be scored.",))


def _ends(row: pd.Series, spread: tuple[str, str]) -> tuple[float, float]:
    """Lower and upper end of an error bar."""
    if spread[0] == "ci_low":
        return float(row["ci_low"]), float(row["ci_high"])
    sem = float(row.get("sem", np.nan))
    return float(row["r2"]) - sem, float(row["r2"]) + sem


def _panels(
    bars: dict[str, list[tuple[str, float, float, float]]], stem: str, symbol: str, *, first_is_whole: bool
) -> tuple[Panel, ...]:
    """One picture a region: name, value, and the ends of its error bar, of each bar."""
    regions = sorted(bars, key=lambda name: -np.nan_to_num(bars[name][0][1]))[:MAX_REGIONS]
    every = [value for region in regions for bar in bars[region] for value in bar[1:] if np.isfinite(value)]
    limits = min([0.0, *every]), max([0.02, *every]) * 1.08
    return tuple(
        _bars(bars[region], region, f"{stem}_{place:02d}+{slug(region)}", symbol, limits, whole=first_is_whole)
        for place, region in enumerate([name for name in bars if name in regions], 1)
    )


def _bars(
    rows: list[tuple[str, float, float, float]], region: str, stem: str, symbol: str, limits: tuple[float, float], *,
    whole: bool,
) -> Panel:  # fmt: skip
    names, values = [row[0] for row in rows], np.array([row[1] for row in rows])
    ends = np.array([row[2:] for row in rows])

    def paint(canvas: Any) -> None:
        axes, places = canvas.subplots(), np.arange(len(rows))
        colours = [MUTED if whole and i == 0 else SERIES[0] for i in places]
        for place, value, colour in zip(places, values, colours, strict=True):
            if np.isfinite(value):
                axes.fill([0, value, value, 0], place + np.array([-0.32, -0.32, 0.32, 0.32]), facecolor=colour)
        if np.isfinite(ends).any():
            axes.hlines(places, ends[:, 0], ends[:, 1], color=INK, linewidth=1.2, zorder=4)
        axes.axvline(0, color=GHOST, linewidth=1)
        axes.set_yticks(places, [shorten(name, 26) for name in names])
        axes.set(title=shorten(region, 28), xlabel=symbol, xlim=limits, ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False)

    spoken = ", ".join(f"{name} {number(value, 3)}" for name, value in zip(names, values, strict=True))
    return draw(stem, (340, 24 * len(rows) + 78), paint, alt=f"{symbol} in {region}: {spoken}."[:4000])
