"""How every figure of a report looks, and how it becomes part of a page.

Figures are drawn in the colours of a light page. Inside the page each of those colours is a variable of the style
sheet, so that the same drawing follows the reader's choice of light or dark; the file on disk keeps plain colours.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib import image as mpl_image
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

INK, MUTED, LINE, GHOST, PAPER = "#1a1f26", "#545e6b", "#d8dde4", "#8a94a1", "#fdfefe"
# Okabe and Ito's hues, darkened until text in them has a contrast of 4.5 on white; told apart by shape as well.
SERIES = ("#0b63a5", "#b34700", "#00755a", "#9c3577", "#75570a", "#5549c4")
MARKERS = ("o", "s", "^", "D", "v", "P")
_SERIES_DARK = ("#6fb7f2", "#ff9c5b", "#4fd0a4", "#f191c6", "#e3bd50", "#aba5ff")
_SHADES = 16


def _ramp(name: str, low: float, high: float) -> tuple[str, ...]:
    """Evenly spaced colours of a perceptually uniform map."""
    return tuple(to_hex(c) for c in matplotlib.colormaps[name](np.linspace(low, high, _SHADES)))


# More is darker on paper and brighter on a dark screen.
HEAT = _ramp("magma_r", 0.015, 0.86)
_HEAT_DARK = _ramp("magma", 0.13, 0.97)


def luminance(colour: str) -> float:
    """Relative luminance of a hexadecimal colour, as WCAG 2 defines it."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, from 1 to 21, as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _readable_on(colours: tuple[str, ...]) -> tuple[str, ...]:
    """Near black or near white, whichever can be read on each colour; the last digit keeps each one unique."""
    picks = []
    for i, colour in enumerate(colours):
        dark, light = f"#0a0c{i:02x}", f"#fcfd{0xF0 + i:02x}"
        picks.append(max((dark, light), key=lambda text, on=colour: contrast(text, on)))  # type: ignore[misc]
    return tuple(picks)


HEAT_TEXT = _readable_on(HEAT)
# Colour on paper -> (variable of the style sheet, colour on a dark page)
_THEME: dict[str, tuple[str, str]] = {
    INK: ("--ink", "#e8ebef"),
    MUTED: ("--muted", "#a5afbb"),
    LINE: ("--line", "#2f3741"),
    GHOST: ("--ghost", "#6d7987"),
    PAPER: ("--paper", "#12161b"),
    **{c: (f"--series{i}", d) for i, (c, d) in enumerate(zip(SERIES, _SERIES_DARK, strict=True))},
    **{c: (f"--heat{i}", d) for i, (c, d) in enumerate(zip(HEAT, _HEAT_DARK, strict=True))},
    **{c: (f"--heattext{i}", d) for i, (c, d) in enumerate(zip(HEAT_TEXT, _readable_on(_HEAT_DARK), strict=True))},
}
# Colours of the page besides those of its figures: on paper, and on a dark page.
PAGE = {
    "--soft": ("#f3f5f7", "#1b2127"), "--link": ("#0b5a96", "#7fc0f5"), "--bad": ("#a1260d", "#ff9d86"),
    "--bad-soft": ("#fdeeea", "#2d1a16"), "--warn": ("#7a4b00", "#eec06a"), "--warn-soft": ("#fdf4e0", "#2a2213"),
}  # fmt: skip
_STYLE: Any = {
    "svg.fonttype": "none", "image.composite_image": False, "text.parse_math": False, "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.linewidth": 1,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.titlesize": 12,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8, "axes.labelsize": 10,
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": LINE, "grid.linewidth": 0.8,
    "xtick.color": LINE, "xtick.labelcolor": MUTED, "ytick.color": LINE, "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "ytick.major.size": 0, "xtick.major.size": 3,
    "lines.linewidth": 2, "lines.markersize": 5.5, "legend.frameon": False, "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One picture: the file that is written beside the report (empty if it lies elsewhere), and the markup in it."""

    name: str
    content: bytes
    markup: Markup
    alt: str
    label: str = ""


@dataclass(frozen=True)
class Figure:
    """Pictures under one caption.

    Parameters
    ----------
    panels : tuple of Panel
    title : str
    caption : str
        Says n, the test, the correction and what error bars are.
    layout : str
        ``grid`` flows the panels over the width, ``pairs`` two beside each other, ``tiles`` flows small ones,
        ``wide`` stacks them.
    """

    panels: tuple[Panel, ...]
    title: str
    caption: str
    layout: str = "grid"
    kind: str = "figure"


def theme_css() -> str:
    """Declare the colours of the page and its figures as variables, for light and for dark pages.

    The system's wish decides, unless the reader chose on the page; paper is always light.

    Returns
    -------
    str
        Rules of a style sheet.
    """
    light = "".join(f"{name}:{colour};" for colour, (name, _) in _THEME.items())
    dark = "".join(f"{name}:{colour};" for name, colour in _THEME.values())
    light += "color-scheme:light;" + "".join(f"{name}:{colour};" for name, (colour, _) in PAGE.items())
    dark += "color-scheme:dark;" + "".join(f"{name}:{colour};" for name, (_, colour) in PAGE.items())
    return (
        f":root{{{light}}}@media screen{{:root[data-theme=dark]{{{dark}}}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
    )


def draw(name: str, size: tuple[float, float], paint: Callable[[Canvas], None], *, alt: str, label: str = "") -> Panel:
    """Draw a picture as SVG, the same bytes for the same content.

    Parameters
    ----------
    name : str
        File name without ending; unique in the page.
    size : tuple of float
        Width and height in CSS pixels at full size.
    paint : callable
        Draws on the canvas it is given.
    alt : str
        What the picture shows, for those who cannot see it.
    label : str
        Printed under the picture.

    Returns
    -------
    Panel
    """
    out = StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
        paint(canvas)
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", out.getvalue(), flags=re.DOTALL)
    return Panel(f"{name}.svg", svg.encode(), _inline(svg, name, size[0], alt), alt, label)


def _inline(svg: str, name: str, width: float, alt: str) -> Markup:
    """Make an SVG file a part of a page: unique ids, the page's font and colours, a text alternative."""
    body = svg[svg.index("<svg") :]
    prefix = re.sub(r"[^0-9A-Za-z]+", "-", name) + "-"
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", body)
    # Family names hold quotes and commas; the page's own family takes their place.
    body = re.sub(r"(font: [^;\"]*?\d+(?:\.\d+)?px) [^;\"]*", r"\1 system-ui, sans-serif", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for colour, (variable, _) in _THEME.items():
        body = re.sub(rf"{colour}\b", f"var({variable})", body)
    box = re.search(r'viewBox="[^"]*"', body)
    opening = (
        f'<svg class="drawing" role="img" aria-label="{escape(alt)}" {box.group(0) if box else ""} '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" style="--own:{width:.0f}px">'
    )
    return Markup(opening + body[body.index(">") + 1 :].strip())


def picture(name: str, pixels: np.ndarray, *, alt: str, label: str = "") -> Panel:
    """Make a small raster image, the same bytes for the same content.

    Parameters
    ----------
    name : str
        File name without ending; unique in the page.
    pixels : ndarray, shape (height, width, 4)
        Red, green, blue and opacity from 0 to 1.
    alt : str
        What the picture shows.
    label : str
        Printed under the picture.

    Returns
    -------
    Panel
    """
    out = BytesIO()
    no_name: Any = {"Software": None}
    mpl_image.imsave(out, np.round(pixels * 255).astype(np.uint8), format="png", metadata=no_name)
    data = b64encode(out.getvalue()).decode()
    markup = Markup('<img class="raster" alt="{}" src="data:image/png;base64,{}">').format(alt, data)
    return Panel(f"{name}.png", out.getvalue(), markup, alt, label)


def square_axes(axes: Any, names: Sequence[str]) -> None:
    """Name the rows and columns of a square table that is drawn with a cell a step, without lines around it."""
    axes.set_xticks(range(len(names)), names, rotation=55, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=INK)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal")


def shorten(text: str, length: int = 20) -> str:
    """Cut a long name in its middle, so that its beginning and its end stay."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def slug(text: str) -> str:
    """Turn any name into a label that a BIDS file name may hold."""
    return re.sub(r"[^0-9A-Za-z]+", "+", text).strip("+")[:40] or "x"
