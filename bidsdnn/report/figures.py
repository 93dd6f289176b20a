"""The charts of a report: how scores change with depth, where they are high, and what the data were like.

Each function takes tables or arrays and returns pictures; captions belong to whoever knows the analysis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.stats import rankdata

from bidsdnn.report.drawing import (
    GHOST,
    HEAT,
    HEAT_TEXT,
    INK,
    LINE,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    Panel,
    draw,
    picture,
    shorten,
    slug,
)  # fmt: skip
from bidsdnn.report.entries import ordered, square
from bidsdnn.report.findings import ALPHA, decisive, number
from bidsdnn.result import COLUMN

# Panels beyond these are not looked at; the heat map and the table still hold every region.
MAX_REGIONS = 12
_MAX_RDM_PIXELS = 220


def profiles(
    table: pd.DataFrame,
    value: str,
    *,
    stem: str,
    symbol: str,
    reliability: dict[str, float] | None = None,
    individuals: pd.DataFrame | None = None,
) -> tuple[Panel, ...]:
    """Draw score against layer, one panel for each region and one line for each network.

    Parameters
    ----------
    table : DataFrame
        With columns network, layer, region, `value`, and as far as known p, q, p_fwe, sem and the ceiling.
    value : str
        Column on the vertical axis.
    stem : str
        Beginning of the file names.
    symbol : str
        Label of the vertical axis.
    reliability : dict of str to float, optional
        Drawn as a dashed line, by region.
    individuals : DataFrame, optional
        The same columns with `sub`: drawn as thin lines behind.

    Returns
    -------
    tuple of Panel
        At most `MAX_REGIONS`, those with the highest scores, in the order of the table.
    """
    peak = table.groupby("region", sort=False)[value].max()
    highest = set(peak.nlargest(MAX_REGIONS).index)
    regions = [region for region in peak.index if len(peak) <= MAX_REGIONS or region in highest]
    limits = _limits(table, value, individuals, reliability or {})
    panels = []
    for place, region in enumerate(regions, 1):
        series = [(name, part) for name, part in table.groupby("network", sort=False)]

        def paint(canvas: Any, region: str = region, series: list[Any] = series) -> None:
            axes = canvas.subplots()
            _ghosts(axes, table[table["region"].isin(regions)], value, region, individuals)
            labels = _depth_axis(axes, series)
            for i, (_, part) in enumerate(series):
                _line(axes, part[part["region"] == region], value, i, number_of_lines=len(series))
            own = table[table["region"] == region]
            _band(axes, own)
            early = own[value].notna().any() and int(np.nanargmax(own[value])) % labels < labels / 2
            _reference(axes, (reliability or {}).get(region, np.nan), limits, right=bool(early))
            axes.set(title=shorten(region, 28), ylabel=symbol, ylim=limits, xlim=(-0.35, labels - 0.65))

        own = table[table["region"] == region]
        alt = f"{symbol} by layer in {region}. " + " ".join(
            _spoken(name, part, value) for name, part in own.groupby("network", sort=False)
        )
        if has_ceiling(own):
            low, high = own["ceiling_lower"].iloc[0], own["ceiling_upper"].iloc[0]
            alt += f" Noise ceiling {number(low)} to {number(high)}."
        panels.append(draw(f"{stem}_{place:02d}+{slug(region)}", (270, 226), paint, alt=alt))
    return tuple(panels)


def _limits(
    table: pd.DataFrame, value: str, individuals: pd.DataFrame | None, reliability: dict[str, float]
) -> tuple[float, float]:
    """One vertical axis for all panels: zero, every point with its bar, and reliability unless it dwarfs them."""
    spread = table["sem"].fillna(0) if "sem" in table else 0
    low, high = float((table[value] - spread).min()), float((table[value] + spread).max())
    if individuals is not None and len(individuals):
        low, high = min(low, individuals[value].min()), max(high, individuals[value].max())
    low, high = (0.0, 0.1) if not np.isfinite([low, high]).all() else (min(low, 0.0), max(high, 0.02))
    if "ceiling_upper" in table and table["ceiling_upper"].notna().any():
        high = max(high, float(table["ceiling_upper"].max()))
    ceiling = max((r for r in reliability.values() if np.isfinite(r)), default=0.0)
    high = ceiling if high < ceiling <= 2.5 * high else high
    margin = 0.12 * (high - low)
    return low - margin / 2, high + 1.6 * margin


def _depth_axis(axes: Axes, series: list[tuple[str, pd.DataFrame]]) -> int:
    """Name the layers if all networks share them, else number them by depth."""
    names = [ordered(part["layer"]) for _, part in series]
    longest = max(names, key=len)
    if any(own != names[0] for own in names):
        axes.set_xticks(range(len(longest)), [str(i + 1) for i in range(len(longest))])
        axes.set_xlabel("layer, from shallow to deep")
    else:
        labels = [shorten(name, 14) for name in longest]
        axes.set_xticks(range(len(longest)), labels, rotation=42, ha="right", rotation_mode="anchor")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    return len(longest)


def _tick(value: float, _: int | None = None) -> str:
    """As few digits as a tick needs."""
    return "0" if abs(value) < 1e-9 else number(value, 1 if round(value, 1) == round(value, 3) else 2)


def _ghosts(axes: Axes, table: pd.DataFrame, value: str, region: str, individuals: pd.DataFrame | None) -> None:
    """Thin lines to compare with: the participants if given, else the other regions of a single network."""
    if individuals is not None and len(individuals):
        lines = individuals[individuals["region"] == region].groupby(["network", "sub"], sort=False)
    elif table["network"].nunique() == 1:
        lines = table[table["region"] != region].groupby(["network", "region"], sort=False)
    else:
        return
    for (network, _), part in lines:
        layers = ordered(table[table["network"] == network]["layer"])
        axes.plot([layers.index(x) for x in part["layer"] if x in layers],
                  part[value][part["layer"].isin(layers)], color=GHOST, linewidth=0.9, zorder=1)  # fmt: skip


def _line(axes: Axes, part: pd.DataFrame, value: str, i: int, *, number_of_lines: int) -> None:
    """One network's scores; points are filled where they are significant, and the best one is named."""
    if part.empty or not part[value].notna().any():
        return
    colour, y = SERIES[i % len(SERIES)], part[value].to_numpy()
    x = np.arange(len(y))
    if "sem" in part:
        axes.errorbar(x, y, part["sem"].to_numpy(), fmt="none", ecolor=colour, elinewidth=1.4, zorder=2)
    axes.plot(x, y, color=colour, zorder=3)
    sure_by = decisive(part)
    p = part[sure_by].to_numpy() if sure_by else np.full(len(y), np.nan)
    for sure, fill in ((True, colour), (False, PAPER)):
        chosen = (p < ALPHA) == sure
        axes.plot(x[chosen], y[chosen], MARKERS[i % len(MARKERS)], color=colour, markerfacecolor=fill, zorder=4)
    top = int(np.nanargmax(y))
    if number_of_lines == 1:
        lift = part["sem"].to_numpy()[top] if "sem" in part and np.isfinite(part["sem"].to_numpy()[top]) else 0
        box = {"boxstyle": "round,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75}
        axes.annotate(number(y[top]), (x[top], y[top] + lift), xytext=(0, 9), textcoords="offset points",
                      ha="center", color=INK, weight="bold", fontsize=11, bbox=box)  # fmt: skip


def _reference(axes: Axes, reliability: float, limits: tuple[float, float], *, right: bool) -> None:
    """The line of chance, and the reliability of the responses where it is known."""
    axes.axhline(0, color=MUTED, linewidth=1, zorder=1)
    if not np.isfinite(reliability):
        return
    inside = reliability <= limits[1]
    if inside:
        axes.axhline(reliability, color=MUTED, linewidth=1, dashes=(4, 3), zorder=1)
    text = f"reliability {number(reliability)}" + ("" if inside else " ↑")
    height = reliability if inside else limits[1]
    axes.annotate(
        text, (1 if right else 0, height), xycoords=("axes fraction", "data"), xytext=(0, 2 if inside else -2),
        textcoords="offset points", ha="right" if right else "left", va="bottom" if inside else "top",
        color=MUTED, fontsize=9,
    )  # fmt: skip


def has_ceiling(table: pd.DataFrame) -> bool:
    """Whether a table knows both bounds of a noise ceiling."""
    bounds = ["ceiling_lower", "ceiling_upper"]
    return set(bounds) <= set(table) and bool(table[bounds].notna().any().all())


def _band(axes: Axes, own: pd.DataFrame) -> None:
    """The noise ceiling of one region, from its lower to its upper bound."""
    if has_ceiling(own):
        low, high = (float(own[f"ceiling_{end}"].dropna().iloc[0]) for end in ("lower", "upper"))
        axes.axhspan(low, high, facecolor=GHOST, edgecolor="none", alpha=0.25, zorder=0)
        axes.annotate("noise ceiling", (0, high), xycoords=("axes fraction", "data"), xytext=(2, 2),
                      textcoords="offset points", color=MUTED, fontsize=9, va="bottom")  # fmt: skip


def _spoken(network: str, part: pd.DataFrame, value: str) -> str:
    """A line in words."""
    return f"{network}: " + ", ".join(f"{row['layer']} {number(row[value])}" for _, row in part.iterrows()) + "."


def legend(networks: list[str]) -> list[tuple[str, str, str]]:
    """Name, colour variable and marker of each network, in the order of their lines."""
    shapes = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
    return [(name, f"--series{i % len(SERIES)}", shapes[MARKERS[i % len(MARKERS)]]) for i, name in enumerate(networks)]


def heat_map(table: pd.DataFrame, value: str, *, stem: str, symbol: str, top: float, named: bool) -> Panel:
    """Draw the scores of one network as a table of regions x layers.

    Parameters
    ----------
    table : DataFrame
        With columns network, layer, region, `value`, and p or q where computed.
    value : str
        Column that gives the colour.
    stem : str
        File name.
    symbol : str
        Label of the colour bar.
    top : float
        Score of the darkest colour, shared by all networks of a page; zero and below have the lightest.
    named : bool
        Whether the network's name stands above.

    Returns
    -------
    Panel
        Scores with p (at the group q) below .05 carry a star.
    """
    regions, layers = ordered(table["region"]), ordered(table["layer"])
    width, height = max(58 * len(layers), 240) + 150, 27 * len(regions) + 96
    last = len(HEAT) - 1

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        shades = _cells(axes, table, value, top)
        edges = np.arange(len(layers) + 1) - 0.5, np.arange(len(regions) + 1) - 0.5
        mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(shades), cmap=ListedColormap(HEAT), vmin=-0.5,
                               vmax=last + 0.5, edgecolors=PAPER, linewidth=2)  # fmt: skip
        _table_axes(axes, regions, layers)
        bar = canvas.colorbar(mesh, ax=axes, location="bottom", shrink=min(1, 260 / width), aspect=26, pad=0.03,
                              ticks=[-0.5, last / 2, last + 0.5])  # fmt: skip
        bar.ax.set_xticklabels(["0", number(top / 2), number(top)])
        bar.ax.set_xlabel(symbol)
        bar.outline.set_visible(False)
        bar.solids.set_edgecolor("face")

    network = str(table["network"].iloc[0])
    network = "behaviour and categories" if network == COLUMN else network
    alt = f"{symbol} of {network} by region and layer. " + " ".join(
        _spoken(region, part, value) for region, part in table.groupby("region", sort=False)
    )
    return draw(stem, (width, height), paint, alt=alt[:4000], label=network if named else "")


def _cells(axes: Axes, table: pd.DataFrame, value: str, top: float) -> np.ndarray:
    """Write the scores into their places, stars where they are significant; returns the shade of each place."""
    regions, layers = ordered(table["region"]), ordered(table["layer"])
    grid = table.drop_duplicates(["region", "layer"]).set_index(["region", "layer"])
    sure = decisive(table)
    shades = np.full((len(regions), len(layers)), np.nan)
    for i, region in enumerate(regions):
        for j, layer in enumerate(layers):
            score = grid[value].get((region, layer), np.nan)
            if np.isfinite(score):
                shades[i, j] = shade = int(np.clip(score / top, 0, 1) * (len(HEAT) - 1) + 0.5)
                star = "*" if sure and grid[sure][(region, layer)] < ALPHA else ""
                text, colour = number(score) + star, HEAT_TEXT[shade]
            else:
                text, star, colour = "n/a", "", MUTED
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=10,
                      weight="bold" if star else "normal", in_layout=False)  # fmt: skip
    return shades


def _table_axes(axes: Axes, regions: list[str], layers: list[str]) -> None:
    """Name rows and columns, and take every line away."""
    names = [shorten(name, 14) for name in layers]
    axes.set_xticks(range(len(layers)), names, rotation=32, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(regions)), [shorten(name, 24) for name in regions])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def rdm_pictures(
    distances: dict[str, np.ndarray], *, stem: str, kept: np.ndarray | None = None, kind: str
) -> tuple[Panel, ...]:
    """Draw distance matrices by the rank of each distance, so that matrices of any scale compare.

    Parameters
    ----------
    distances : dict of str to ndarray, shape (pairs,)
        Condensed distances by the name of their region or layer.
    stem : str
        Beginning of the file names.
    kept : ndarray of int, optional
        Items to show, and their order; all by default.
    kind : str
        What the names name, as ``layer``, for the text alternative.

    Returns
    -------
    tuple of Panel
    """
    ramp = np.array([to_rgba(colour) for colour in HEAT])
    panels = []
    for place, (name, condensed) in enumerate(distances.items(), 1):
        matrix = square(condensed)
        matrix = matrix if kept is None else matrix[np.ix_(kept, kept)]
        shades = _ranks(matrix)
        step = -(-len(shades) // _MAX_RDM_PIXELS)
        shades = shades[::step, ::step]
        pixels = ramp[np.nan_to_num(shades * (len(HEAT) - 1) + 0.5).astype(int)]
        pixels[np.isnan(shades)] = 0
        alt = f"Dissimilarity matrix of {len(matrix)} items for {kind} {name}"
        panels.append(picture(f"{stem}_{place:02d}+{slug(name)}", pixels, alt=alt, label=name))
    return tuple(panels)


def _ranks(matrix: np.ndarray) -> np.ndarray:
    """Rank of each distance among all, from 0 to 1; NaN stays NaN and the diagonal is 0."""
    upper = np.triu_indices(len(matrix), 1)
    distances = matrix[upper]
    finite = np.isfinite(distances)
    shades = np.full(distances.shape, np.nan)
    shades[finite] = (rankdata(distances[finite]) - 1) / max(finite.sum() - 1, 1)
    ranks = np.zeros(matrix.shape)
    ranks[upper] = shades
    return ranks + ranks.T


def dots(
    values: dict[str, float],
    *,
    stem: str,
    label: str,
    alt: str,
    upper: dict[str, float] | None = None,
    limit: float | None = None,
) -> Panel:
    """Draw one dot for each name, with a line up to a second value where given.

    Parameters
    ----------
    values : dict of str to float
        Region or run -> value.
    stem : str
        File name.
    label : str
        Of the horizontal axis.
    alt : str
        Text alternative; the values are added to it.
    upper : dict of str to float, optional
        A second value, as the highest beside the mean.
    limit : float, optional
        A vertical line to compare with.

    Returns
    -------
    Panel
    """
    names, heights = list(values), np.array(list(values.values()), dtype=float)

    def paint(canvas: Any) -> None:
        axes, rows = canvas.subplots(), np.arange(len(names))
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x", color=LINE, linewidth=0.8)
        if upper is not None:
            ends = np.array([upper[name] for name in names], dtype=float)
            axes.hlines(rows, heights, ends, color=GHOST, linewidth=2, zorder=2)
            axes.plot(ends, rows, "|", color=MUTED, markersize=9, markeredgewidth=2, zorder=3)
        axes.plot(heights, rows, "o", color=SERIES[0], markersize=7, zorder=4)
        if limit is not None:
            axes.axvline(limit, color=SERIES[1], linewidth=1.2, dashes=(4, 3), zorder=1)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(rows, [shorten(name, 26) for name in names])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
        axes.spines["bottom"].set_visible(False)

    spoken = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, heights, strict=True))
    return draw(stem, (520, 22 * len(names) + 52), paint, alt=f"{alt}: {spoken}."[:4000])
