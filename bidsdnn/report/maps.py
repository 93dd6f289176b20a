"""Maps of voxels on the anatomy, and pictures of the distances between stimuli, with their captions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bidsdnn.report.blocks import Block, attempt
from bidsdnn.report.brains import Scan, best_layer, layer_map, peak, read_scans, score_map
from bidsdnn.report.drawing import Figure, slug
from bidsdnn.report.entries import Entry, first, listed, pick
from bidsdnn.report.figures import rdm_pictures
from bidsdnn.report.findings import count, number

MAX_RDMS = 16
_VOXELS = {
    "tsnr": ("Temporal signal-to-noise ratio", "tSNR",
             "each voxel's mean over its standard deviation in time, averaged over runs"),
    "reliability": ("Reliability of each voxel", "reliability",
                    "the agreement of a voxel's responses to repeated presentations of the same stimuli"),
}  # fmt: skip
# Share of the highest r from which voxels are coloured.
_SHOWN_FROM = 0.5
_LEFT = "Slices by their place in mm; the left of the picture is the left of the brain."


def background(entries: list[Entry], problems: list[str]) -> Scan | None:
    """The anatomy that a sidecar names, else the mean image, else nothing.

    Parameters
    ----------
    entries : list of Entry
    problems : list of str
        Gets a warning for each image that cannot be read.

    Returns
    -------
    Scan or None
    """
    anatomy = first(entries, "Anatomy")
    paths = [Path(anatomy)] if anatomy else []
    for path in paths + [entry.path for entry in pick(entries, "statmap", "quality", "mean")]:
        scans: list[Scan] = []

        def read(path: Path = path, scans: list[Scan] = scans) -> list[Block]:
            scans += read_scans(path)
            return []

        attempt(read, f"background {path.name}", problems)
        if scans:
            return scans[0]
    return None


def voxel_blocks(entries: list[Entry], stat: str, base: Scan | None, stem: str, problems: list[str]) -> list[Block]:
    """Draw maps that describe the data: ``tsnr`` or ``reliability``.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stat : str
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
    for entry in pick(entries, "statmap", stat=stat):
        blocks += attempt(partial(_voxel_map, entry, stat, base, stem), entry.path.name, problems)
    return blocks


def _voxel_map(entry: Entry, stat: str, base: Scan | None, stem: str) -> list[Block]:
    """One map that describes the data."""
    title, label, meaning = _VOXELS[stat]
    scan = read_scans(entry.path)[0]
    finite = scan.values[np.isfinite(scan.values)]
    middle = float(np.median(finite)) if finite.size else float("nan")
    median = number(middle) if stat == "reliability" else f"{middle:.0f}"
    alt = f"Slices with the {label} of each voxel; the median is {median}."
    caption = (
        f"{title}: {meaning}. n = {count(finite.size, 'voxel')}; median {median}. No test and no error bars. {_LEFT}"
    )
    return [Figure((score_map(scan, base, stem=f"{stem}_{stat}", label=label, alt=alt),), title, caption, "wide")]


def model_blocks(entries: list[Entry], base: Scan | None, stem: str, problems: list[str], *, level: str) -> list[Block]:
    """Draw the best layer of each voxel and its score, for each network.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    base : Scan or None
        The background.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` draws the maps of r, ``group`` those of its mean.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for entry in pick(entries, "statmap", "encoding", "mean" if level == "group" else "pearsonr"):
        model = entry.entities.get("model")
        best = [e for e in pick(entries, "statmap", "bestlayer") if e.entities.get("model") == model]
        # At the group the best layer is that of the mean map, not a mean of best layers.
        written = best[0].path if best and level == "participant" else None
        blocks += attempt(partial(_model_maps, entry, written, base, stem), entry.path.name, problems)
    return blocks


def _model_maps(entry: Entry, written: Path | None, base: Scan | None, stem: str) -> list[Block]:
    """Two mosaics of one network."""
    scans = read_scans(entry.path)
    layers = list(entry.sidecar.get("Layers") or [f"layer {i}" for i in range(1, len(scans) + 1)])
    if len(layers) != len(scans):
        raise ValueError(f"{entry.path}: sidecar names {len(layers)} layers, the image has {len(scans)} volumes")
    layer, score = best_layer(scans)
    layer = read_scans(written)[0] if written else layer
    model = str(entry.sidecar.get("Network") or entry.entities.get("model", "network"))
    stem = f"{stem}_model-{slug(model)}"
    # The best of several layers lies above zero by chance alone; a clear brain shows where there is more.
    floor = max(peak(score), 0.0) * _SHOWN_FROM
    above = np.isfinite(layer.values) & (np.nan_to_num(score.values) > floor)
    tally = np.bincount(layer.values[above].astype(int), minlength=len(layers) + 1)[1:]
    shares = ", ".join(f"{name} in {n / max(above.sum(), 1):.0%}" for name, n in zip(layers, tally, strict=False))
    people = listed([entry], "Participants")
    over = f", mean over n = {count(len(people), 'participant')}" if people else ""
    finite = score.values[np.isfinite(score.values)]
    rest = f"n = {count(finite.size, 'voxel')}. No test and no error bars. {_LEFT}"
    highest = number(float(finite.max())) if finite.size else "n/a"
    where = layer_map(
        layer, score, base, layers=layers, stem=f"{stem}_stat-bestlayer", floor=floor,
        alt=f"Slices with the best layer of {model} in each voxel. Where r is above {number(floor)}: {shares}.",
    )  # fmt: skip
    much = score_map(
        score, base, stem=f"{stem}_stat-pearsonr", label="r of the best layer", floor=floor,
        alt=f"Slices with the highest r over the layers of {model}; the maximum is {highest}.",
    )  # fmt: skip
    clear = f"voxels below r = {number(floor)}, half of the highest, are left clear"
    caption_where = (
        f"The layer that predicts each voxel best{over}; the fainter, the lower its r; {clear}. "
        f"Of the {count(above.sum(), 'coloured voxel')}: {shares}. {rest}"
    )
    caption_much = (
        f"Cross-validated r of each voxel's best of {count(len(layers), 'layer')}{over}; {clear}, because taking the "
        f"best lifts r above zero by chance. {rest}"
    )
    return [
        Figure((where,), f"Best layer in each voxel: {model}", caption_where, "wide"),
        Figure((much,), f"Prediction in each voxel: {model}", caption_much, "wide"),
    ]


def rdm_blocks(entries: list[Entry], stem: str, problems: list[str]) -> list[Block]:
    """Draw the distance matrices of regions and of layers, stimuli in one order.

    Parameters
    ----------
    entries : list of Entry
        Of one context; ``relmat`` files count if their sidecar has ``_arrays``.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    filled = [entry for entry in pick(entries, "relmat") if entry.sidecar.get("_arrays")]
    brain = [entry for entry in filled if "model" not in entry.entities]
    models = [entry for entry in filled if "model" in entry.entities]
    items = _items(brain[0]) if brain else []
    blocks: list[Block] = []
    for entry in brain + models:
        blocks += attempt(partial(_rdm_figure, entry, items, stem), entry.path.name, problems)
    return blocks


def _items(entry: Entry) -> list[str]:
    """Names of the stimuli, as text."""
    items = entry.sidecar.get("_items", entry.sidecar["_arrays"].get("_items", ()))
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]


def _rdm_figure(entry: Entry, items: list[str], stem: str) -> list[Block]:
    """The matrices of one file; those of a network are put into the order of the brain's stimuli."""
    named = {name: array for name, array in entry.sidecar["_arrays"].items() if not name.startswith("_")}
    if not named:
        return []
    known = _items(entry)
    place = {name: i for i, name in enumerate(known)}
    kept = np.array([place[x] for x in items]) if items and set(items) <= set(known) else None
    model = entry.entities.get("model", "")
    kind = "layer" if model else "region"
    label = f"model-{slug(model)}" if model else f"atlas-{slug(entry.entities.get('atlas', 'none'))}"
    part = dict(list(named.items())[:MAX_RDMS])
    panels = rdm_pictures(part, stem=f"{stem}_{label}_rdm", kept=kept, kind=kind)
    pairs = np.size(next(iter(part.values())))
    n = kept.size if kept is not None else round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    order = "in the same order everywhere" if kept is not None else "in the order of the file"
    more = f" The first {MAX_RDMS} of {len(named)}." if len(named) > MAX_RDMS else ""
    caption = (
        f"Dissimilarity of every pair of stimuli, one picture for each {kind}; n = {count(n, 'stimulus', 'stimuli')}, "
        f"{order}. Shades are ranks, stronger for more dissimilar.{more} No test and no error bars: a description."
    )
    return [Figure(panels, f"Distances between stimuli in {model or 'the brain'}", caption, "tiles")]
