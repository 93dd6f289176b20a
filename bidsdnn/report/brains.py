"""Maps as pictures: what is high where, and which layer is, with a bar of colours below."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize

from bidsdnn.report.drawing import Panel, shorten
from bidsdnn.report.findings import number
from bidsdnn.report.mosaic import Scan, cut, mosaic, oriented, read_scans
from bidsdnn.report.sheets import Sheet

__all__ = ["Scan", "best_layer", "cut", "layer_map", "oriented", "peak", "read_scans", "score_map"]


def best_layer(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which layer is highest in each column, counted from 1, and its value.

    Parameters
    ----------
    values : ndarray, shape (layers, columns)

    Returns
    -------
    layer, score : ndarray, shape (columns,)
        NaN where no layer has a value.
    """
    known = np.isfinite(values).any(axis=0)
    filled = np.where(np.isfinite(values), values, -np.inf)
    layer = np.where(known, filled.argmax(axis=0) + 1.0, np.nan)
    return layer, np.where(known, filled.max(axis=0), np.nan)


def peak(values: np.ndarray) -> float:
    """The 99.5th percentile of a map, which one odd voxel does not move; 0 for an empty map."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, 99.5)) if finite.size else 0.0


def score_map(
    scan: Scan | Sheet, background: Scan | None, *, stem: str, label: str, alt: str, floor: float = 0.0,
    highest: float | None = None, sure: Scan | Sheet | None = None, signed: bool = False,
) -> Panel:  # fmt: skip
    """Draw a map of numbers; the lowest fade into the background.

    Parameters
    ----------
    scan : Scan or Sheet
    background : Scan or None
        The anatomy; None shows the outline of the map's voxels.
    stem : str
        File name.
    label : str
        Of the colour bar.
    alt : str
        Text alternative.
    floor : float
        Values at and below are not shown.
    highest : float, optional
        Where the colours end; by default the map's own peak.
    sure : Scan or Sheet, optional
        1 in what is outlined.
    signed : bool
        Whether values below zero are shown as well, in other colours; `floor` is then that of their size.

    Returns
    -------
    Panel
    """
    top = max(peak(scan.values) if highest is None else highest, floor + 1e-6)
    ramp = matplotlib.colormaps["inferno"].resampled(256)
    # Purple is below and orange above zero: told apart by all kinds of eyes.
    ramp = matplotlib.colormaps["PuOr_r"] if signed else ListedColormap(ramp(np.linspace(0.12, 0.98, 256)))
    lowest = -top if signed else floor

    def colour(scores: np.ndarray, _: np.ndarray) -> np.ndarray:
        known = np.nan_to_num(scores, nan=floor)
        share = np.clip(((np.abs(known) if signed else known) - floor) / (top - floor), 0, 1)
        pixels = ramp(np.clip((known + top) / (2 * top), 0, 1) if signed else share)
        pixels[..., 3] = np.clip(share * 3, 0, 1) * np.isfinite(scores)
        return pixels

    def paint(canvas: Any, axes: Any) -> None:
        mappable = matplotlib.cm.ScalarMappable(Normalize(lowest, top), ramp)
        ticks = [lowest, (lowest + top) / 2, top]
        bar = canvas.colorbar(mappable, cax=axes, orientation="horizontal", ticks=ticks)
        bar.ax.set_xticklabels([number(t) if abs(top) <= 1 else f"{t:.3g}".replace("-", "−") for t in ticks])
        bar.outline.set_visible(False)
        bar.ax.set_xlabel(label, fontsize=12)

    return mosaic(scan, scan, background, colour, paint, stem=stem, alt=alt, sure=sure)


def layer_map(
    layer: Scan | Sheet,
    score: Scan | Sheet | None,
    background: Scan | None,
    *,
    layers: list[str],
    stem: str,
    alt: str,
    floor: float = 0.0,
    highest: float | None = None,
    sure: Scan | Sheet | None = None,
) -> Panel:
    """Draw which layer is best in each voxel, from dark for shallow to bright for deep.

    Parameters
    ----------
    layer : Scan or Sheet
        Numbers of layers from 1, NaN elsewhere.
    score : Scan, Sheet or None
        Makes weak voxels transparent, and hides those at or below `floor`.
    background : Scan or None
        The anatomy.
    layers : list of str
        Names by depth.
    stem : str
        File name.
    alt : str
        Text alternative.
    floor : float
        Scores at and below are not shown.
    highest : float, optional
        The peak of the scores; by default that of `score`.
    sure : Scan or Sheet, optional
        1 in what is outlined.

    Returns
    -------
    Panel
    """
    palette = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.95, len(layers)))
    top = highest if highest is not None else peak(score.values) if score is not None else 1.0

    def colour(numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
        index = np.clip(np.nan_to_num(numbers, nan=1).astype(int) - 1, 0, len(layers) - 1)
        pixels = palette[index]
        rise = np.clip((np.nan_to_num(scores) - floor) / max((top - floor) / 3, 1e-6), 0, 1)
        pixels[..., 3] = np.isfinite(numbers) * (rise if score is not None else 1.0)
        return pixels

    def paint(canvas: Any, axes: Any) -> None:
        axes.imshow(palette[None], aspect="auto", interpolation="none")
        axes.set_xticks(range(len(layers)), [shorten(name, 13) for name in layers], rotation=32, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    share = max(0.3, min(1.0, 0.075 * len(layers)))
    return mosaic(layer, score or layer, background, colour, paint, stem=stem, alt=alt, bar_share=share, sure=sure)
