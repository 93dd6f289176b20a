"""The stimuli's order in all matrices of a page, and their places on a plane by their distances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.stats import rankdata

from bidsdnn.methods.arrangement import classical_mds, tree
from bidsdnn.methods.transforms import condensed_to_square
from bidsdnn.report.blocks import Block, Legend, attempt
from bidsdnn.report.drawing import INK, LINE, MARKERS, SERIES, Figure, Panel, draw, shorten, slug
from bidsdnn.report.entries import Entry, pick
from bidsdnn.report.findings import count, number

MAX_PLANES = 12
MOST_ITEMS = 1000
"""Of more stimuli neither a tree nor a plane can be read."""
_SHAPES = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}


@dataclass(frozen=True)
class Order:
    """Stimuli in the order in which they are drawn, and in words how that came about."""

    items: list[str]
    said: str


def items_of(entry: Entry) -> list[str]:
    """Names of the stimuli of an RDM file, as text."""
    items = entry.sidecar.get("_items", entry.sidecar["_arrays"].get("_items", ()))
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]


def distances_of(entry: Entry) -> dict[str, np.ndarray]:
    """Condensed RDMs of a file by region or layer."""
    return {name: np.asarray(array) for name, array in entry.sidecar["_arrays"].items() if not name.startswith("_")}


def arrange(entry: Entry) -> Order:
    """Order the stimuli by category where each has one, else so that those next to each other are close.

    Parameters
    ----------
    entry : Entry
        A ``relmat`` file with ``_arrays``, and as far as known ``_categories`` by stimulus.

    Returns
    -------
    Order
    """
    items, rdms = items_of(entry), list(distances_of(entry).values())
    usable = [rankdata(rdm) for rdm in rdms if np.isfinite(rdm).all()]
    if not items or not usable or len(items) > MOST_ITEMS:
        return Order(items, "in the order of the file")
    _, leaves = tree(condensed_to_square(np.mean(usable, axis=0)))
    categories, whose = _categories(entry, items), "layers'" if "model" in entry.entities else "regions'"
    if len(set(categories)) > 1:
        leaves = np.array(sorted(leaves, key=lambda place: categories[place]))
        return Order(
            [items[i] for i in leaves], f"grouped by category ({', '.join(dict.fromkeys(sorted(categories)))})"
        )
    return Order([items[i] for i in leaves], f"clustered by the mean of the {whose} distances (average linkage)")


def _categories(entry: Entry, items: list[str]) -> list[str]:
    """Category of each stimulus; all the same where one of them has none."""
    known = entry.sidecar.get("_categories") or {}
    return [str(known[item]) for item in items] if all(item in known for item in items) else [""] * len(items)


def plane_blocks(entries: list[Entry], stem: str, problems: list[str]) -> list[Block]:
    """Draw where the stimuli lie in each region by multidimensional scaling.

    Parameters
    ----------
    entries : list of Entry
        Of one context; ``relmat`` files of brains count, with ``_pictures`` by stimulus where they were asked for.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for entry in pick(entries, "relmat"):
        if entry.sidecar.get("_arrays") and "model" not in entry.entities and not entry.desc:
            blocks += attempt(partial(_planes, entry, stem), f"plane of {entry.path.name}", problems)
    return blocks


def _planes(entry: Entry, stem: str) -> list[Block]:
    items = items_of(entry)
    usable = {name: rdm for name, rdm in distances_of(entry).items() if np.isfinite(rdm).all()}
    if not usable or not 4 <= len(items) <= MOST_ITEMS:
        return []
    categories, pictures = _categories(entry, items), entry.sidecar.get("_pictures") or {}
    metric = str(entry.sidecar.get("Metric") or entry.stat)
    label = f"atlas-{slug(entry.entities.get('atlas', 'none'))}"
    panels = tuple(
        _plane(
            name, usable[name], items, categories, pictures, metric, f"{stem}_{label}_plane_{place:02d}+{slug(name)}"
        )
        for place, name in enumerate(list(usable)[:MAX_PLANES], 1)
    )
    more = f" The first {MAX_PLANES} of {len(usable)} regions." if len(usable) > MAX_PLANES else ""
    n = count(len(items), "stimulus", "stimuli")
    people = len(entry.sidecar.get("Participants") or ())
    over = f" of the mean over n = {count(people, 'participant')}" if people else ""
    caption = (
        f"The two dimensions that keep most of the distances between stimuli{over} (classical multidimensional scaling "
        f"of {metric} distances); stimuli that lie close evoke similar patterns. n = {n}."
        f"{more} Directions have no meaning. No test and no error bars: a description."
    )
    names = sorted(set(categories))
    marks = tuple((name, *_mark(i)) for i, name in enumerate(names))
    legend = [Legend(marks)] if 1 < len(names) <= 36 and not pictures else []
    return [*legend, Figure(panels, "Stimuli on a plane, by their distances", caption, "pairs" if pictures else "grid")]


def _mark(i: int) -> tuple[str, str]:
    """Colour variable and character of the i-th category: told apart by shape as well as by colour."""
    return f"--series{i % len(SERIES)}", _SHAPES[MARKERS[(i + i // len(SERIES)) % len(MARKERS)]]


def _plane(
    name: str, rdm: np.ndarray, items: list[str], categories: list[str], pictures: dict[str, np.ndarray], metric: str,
    stem: str,
) -> Panel:  # fmt: skip
    """One region's stimuli as marks of their category, or as small pictures."""
    places, share = classical_mds(condensed_to_square(rdm), squared=metric != "euclidean")
    names, side = sorted(set(categories)), 620 if pictures else 270

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.grid(visible=False)
        axes.set(title=shorten(name, 28), xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(LINE)
        for i, category in enumerate(names):
            chosen = np.array([one == category for one in categories])
            axes.plot(*places[chosen].T, MARKERS[(i + i // len(SERIES)) % len(MARKERS)], color=SERIES[i % len(SERIES)],
                      markersize=1 if pictures else 5, alpha=0.85, linestyle="none")  # fmt: skip
        for item, place in zip(items, places, strict=True):
            if item in pictures:
                box = OffsetImage(pictures[item], zoom=34 / max(pictures[item].shape[:2]), interpolation="none")
                axes.add_artist(AnnotationBbox(box, place, frameon=False, pad=0))
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.08)
        axes.set_xlabel(f"{100 * share:.0f} % of the variance", color=INK)

    alt = (
        f"{count(len(items), 'stimulus', 'stimuli')} on a plane by their distances in {name}, "
        f"which holds {number(share)} of the variance."
    )
    if len(names) > 1:
        middles = {one: places[[c == one for c in categories]].mean(axis=0) for one in names}
        alt += " Centres: " + ", ".join(f"{one} {x:.2g}, {y:.2g}" for one, (x, y) in middles.items()) + "."
    return draw(stem, (side, side), paint, alt=alt[:4000])
