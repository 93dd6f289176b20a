"""Maps on the anatomy or the cortex, and pictures of the distances between stimuli, with their captions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bidsdnn.report.arrangement import arrange, distances_of, items_of
from bidsdnn.report.backdrop import Backdrop, Picture, read_picture
from bidsdnn.report.blocks import Block, Notes, attempt
from bidsdnn.report.brains import Scan, best_layer, layer_map, peak, score_map
from bidsdnn.report.drawing import Figure, Panel, slug
from bidsdnn.report.entries import Entry, listed, pick
from bidsdnn.report.figures import rdm_pictures
from bidsdnn.report.findings import ALPHA, count, number
from bidsdnn.report.sheets import Sheet
from bidsdnn.result import JOINT
from bidsdnn.spaces import Volume

MAX_RDMS = 16
_VOXELS = {
    "tsnr": ("Temporal signal-to-noise ratio", "tSNR",
             "each {0}'s mean over its standard deviation in time, averaged over runs"),
    "reliability": ("Reliability of each {0}", "reliability",
                    "the agreement of a {0}'s responses to repeated presentations of the same stimuli"),
    "noiseceiling": ("Noise ceiling of each {0}", "ceiling",
                     "the highest r that any model can be expected to reach, the square root of the reliability"),
    "hrf": ("Chosen haemodynamic response of each {0}", "number",
            "which response of the library fits best, counted from the earliest"),
}  # fmt: skip
# Share of the highest r from which voxels are coloured.
_SHOWN_FROM = 0.5
_SLICES = "Slices by their place in mm; the left of the picture is the left of the brain."
_SURFACES = "Sulci are darker."


def voxel_blocks(entries: list[Entry], stat: str, base: Backdrop, stem: str, problems: list[str]) -> list[Block]:
    """Draw maps that describe the data: ``tsnr``, ``reliability``, ``noiseceiling`` or ``hrf``.

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


def _voxel_map(entry: Entry, stat: str, base: Backdrop, stem: str) -> list[Block]:
    """One map that describes the data."""
    title, label, meaning = _VOXELS[stat]
    picture = read_picture(entry.path, base)
    row = picture.values[0]
    finite = row[np.isfinite(row)]
    middle = float(np.median(finite)) if finite.size else float("nan")
    median = number(middle) if stat in ("reliability", "noiseceiling") else f"{middle:.0f}"
    alt = f"{view(picture)} with the {label} of each {picture.noun[0]}; the median is {median}."
    caption = (
        f"{title.format(*picture.noun)}: {meaning.format(*picture.noun)}. n = {count(finite.size, *picture.noun)}; "
        f"median {median}. No test and no error bars. {looking(picture)}"
    )
    panels = tuple(
        score_map(part, base.scan, stem=name, label=label, alt=alt, highest=peak(row))
        for name, part in named_parts(f"{stem}_{stat}", picture, row)
    )
    return as_figure(panels, title.format(*picture.noun), caption, picture)


def named_parts(stem: str, picture: Picture, row: np.ndarray) -> list[tuple[str, Scan | Sheet]]:
    """Parts of a row with the names of their files."""
    parts = picture.laid_out(row)
    return [(stem if index == 0 else f"{stem}_part-{index + 1}", part) for index, part in enumerate(parts)]


def as_figure(panels: tuple[Panel, ...], title: str, caption: str, picture: Picture) -> list[Block]:
    """A figure of the parts that can be drawn, and a sentence on the one that cannot."""
    missing: list[Block] = [Notes(title, (picture.missing,))] if picture.missing else []
    return missing + ([Figure(panels, title, caption, "wide")] if panels else [])


def view(picture: Picture) -> str:
    """What the pictures of a map are."""
    return "Slices" if picture.kind is Volume else "Views of the cortex"


def looking(picture: Picture) -> str:
    """How a picture is to be looked at."""
    below = f" Below the cortex: {_SLICES[0].lower()}{_SLICES[1:]}" if len(picture.parts) > 1 else ""
    return _SLICES if picture.kind is Volume else _SURFACES + below


def model_blocks(
    entries: list[Entry], base: Backdrop, stem: str, problems: list[str], *, level: str, desc: str = "encoding"
) -> list[Block]:
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
    desc : str
        Of the maps.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for entry in pick(entries, "statmap", desc, "mean" if level == "group" else "pearsonr"):
        model = entry.entities.get("model")
        best = [e for e in pick(entries, "statmap", "bestlayer", "") if e.entities.get("model") == model]
        # At the group the best layer is that of the mean map, not a mean of best layers.
        written = best[0].path if best and level == "participant" else None
        sure = significance(entries, entry)
        blocks += attempt(partial(_model_maps, entry, written, sure, base, stem), entry.path.name, problems)
    return blocks


def significance(entries: list[Entry], entry: Entry) -> Entry | None:
    """The map of corrected p that belongs to a map of scores: of clusters, family-wise, else by discovery rate."""
    for stat in ("ptfce", "pfwe", "q"):
        for one in pick(entries, "statmap", entry.desc, stat):
            if all(one.entities.get(key) == entry.entities.get(key) for key in ("model", "sub", "tpl", "contrast")):
                return one
    return None


def outline(entry: Entry | None, base: Backdrop, noun: tuple[str, str]) -> tuple[np.ndarray | None, str]:
    """1 where any layer is significant, and what a caption says of the test."""
    if entry is None:
        return None, "No test."
    p = read_picture(entry.path, base).values
    sure = (p < ALPHA).any(axis=0)
    said = entry.sidecar
    draws, test = said.get("Permutations"), str(said.get("Test") or "permutations").split(", ")[0]
    test = f"{draws:,} {test}" if isinstance(draws, int) else test
    over = f"{noun[1]} and layers"
    how = f"by false discovery rate over {noun[1]}" if entry.stat == "q" else f"family-wise over all {over}"
    how += " by threshold-free cluster enhancement" if entry.stat == "ptfce" else ""
    least = said.get("SmallestAttainableP")
    if isinstance(least, (int, float)) and least >= ALPHA:
        return (
            None,
            f"No {noun[0]} is outlined: the smallest p that so few participants can give is {number(least, 3)}.",
        )
    if not sure.any():
        return None, f"No {noun[0]} is outlined: none has p < .05 ({test}), {how}."
    return np.asarray(sure, dtype=float), f"Outlined: {count(sure.sum(), *noun)} with p < .05 ({test}), {how}."


def _model_maps(entry: Entry, written: Path | None, p: Entry | None, base: Backdrop, stem: str) -> list[Block]:
    """Two mosaics of one network."""
    picture = read_picture(entry.path, base)
    layers = list(entry.sidecar.get("Layers") or [f"layer {i}" for i in range(1, len(picture.values) + 1)])
    if len(layers) != len(picture.values):
        raise ValueError(
            f"{entry.path}: sidecar names {len(layers)} layers, the image has {len(picture.values)} volumes"
        )
    joint = layers[0] == JOINT
    layer, score = best_layer(picture.values[1:] if joint else picture.values)
    score, layers = (picture.values[0], layers[1:]) if joint else (score, layers)
    what, each = ("band that adds most", "all bands together") if joint else ("best layer", "the best layer")
    of = "all bands as one model" if joint else "the best layer"
    layer = read_picture(written, base).values[0] if written else layer
    model = str(entry.sidecar.get("Network") or entry.entities.get("model", "network"))
    stem = f"{stem}_model-{slug(model)}" + (f"_desc-{slug(entry.desc)}" if entry.desc != "encoding" else "")
    # The best of several layers lies above zero by chance alone; a clear brain shows where there is more.
    highest = peak(score)
    floor = max(highest, 0.0) * _SHOWN_FROM
    above = np.isfinite(layer) & (np.nan_to_num(score) > floor)
    tally = np.bincount(layer[above].astype(int), minlength=len(layers) + 1)[1:]
    shares = ", ".join(f"{name} in {n / max(above.sum(), 1):.0%}" for name, n in zip(layers, tally, strict=False))
    people = listed([entry], "Participants")
    over = f", mean over n = {count(len(people), 'participant')}" if people else ""
    if entry.sidecar.get("GroupModel"):
        over = f", one model of n = {count(len(people), 'participant')}"
    finite = score[np.isfinite(score)]
    one, several = picture.noun
    sure, tested = outline(p, base, picture.noun)
    rest = f"n = {count(finite.size, one, several)}. {tested} No error bars. {looking(picture)}"
    best = number(float(finite.max())) if finite.size else "n/a"
    where, much = f"{stem}_stat-bestlayer", f"{stem}_stat-pearsonr"
    lines: list[Scan | Sheet] | list[None] = [None] * len(picture.parts) if sure is None else picture.laid_out(sure)
    places = zip(named_parts(where, picture, layer), named_parts(much, picture, score), lines, strict=True)
    maps = [
        (
            layer_map(
                layers_part, score_part, base.scan, layers=layers, stem=where_name, floor=floor, highest=highest,
                sure=line, alt=f"{view(picture)} with the {what} of {model} in each {one}. Where r is above "
                f"{number(floor)}: {shares}.",
            ),
            score_map(
                score_part, base.scan, stem=much_name, label=f"r of {each}", floor=floor, highest=highest,
                sure=line, alt=f"{view(picture)} with the r of {of} of {model}; the maximum is {best}.",
            ),
        )
        for (where_name, layers_part), (much_name, score_part), line in places
    ]  # fmt: skip
    clear = f"{several} below r = {number(floor)}, half of the highest, are left clear"
    by = f"band that adds most to the joint r of each {one}" if joint else f"layer that predicts each {one} best"
    caption_where = (
        f"The {by}{over}; the fainter, the lower its r; {clear}. "
        f"Of the {count(above.sum(), f'coloured {one}', f'coloured {several}')}: {shares}. {rest}"
    )
    caption_much = (
        f"Cross-validated r of {of} in each {one}{over}; {clear}. {rest}"
        if joint
        else f"Cross-validated r of each {one}'s best of {count(len(layers), 'layer')}{over}; {clear}, because taking "
        f"the best lifts r above zero by chance. {rest}"
    )
    first_title = f"{what[0].upper()}{what[1:]} in each {one}: {model}"
    second_title = f"Prediction in each {one}: {model}"
    drawn = Picture(picture.values, picture.kind, picture.parts)
    # Of a single layer there is nothing to choose.
    where_best = as_figure(tuple(pair[0] for pair in maps), first_title, caption_where, picture)
    return [
        *(where_best if len(layers) > 1 else ()),
        *as_figure(tuple(pair[1] for pair in maps), second_title, caption_much, drawn),
    ]


def rdm_blocks(entries: list[Entry], stem: str, problems: list[str]) -> list[Block]:
    """Draw the distance matrices of regions and of layers, stimuli in one order: by category, or clustered.

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
    filled = [entry for entry in pick(entries, "relmat", "") if entry.sidecar.get("_arrays")]
    brain = [entry for entry in filled if "model" not in entry.entities]
    models = [entry for entry in filled if "model" in entry.entities]
    blocks: list[Block] = []
    for entry in brain + models:
        make = partial(_rdm_figure, entry, (brain or models)[0], stem)
        blocks += attempt(make, entry.path.name, problems)
    return blocks


def _rdm_figure(entry: Entry, reference: Entry, stem: str) -> list[Block]:
    """The matrices of one file, in the order of the first one's stimuli."""
    named = distances_of(entry)
    if not named:
        return []
    order = arrange(reference)
    place = {name: i for i, name in enumerate(items_of(entry))}
    kept = np.array([place[x] for x in order.items]) if order.items and set(order.items) <= set(place) else None
    model = entry.entities.get("model", "")
    kind = "layer" if model else "region"
    label = f"model-{slug(model)}" if model else f"atlas-{slug(entry.entities.get('atlas', 'none'))}"
    part = dict(list(named.items())[:MAX_RDMS])
    panels = rdm_pictures(part, stem=f"{stem}_{label}_rdm", kept=kept, kind=kind)
    pairs = np.size(next(iter(part.values())))
    n = kept.size if kept is not None else round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    said = f"in the same order everywhere, {order.said}" if kept is not None else "in the order of the file"
    more = f" The first {MAX_RDMS} of {len(named)}." if len(named) > MAX_RDMS else ""
    caption = (
        f"Dissimilarity of every pair of stimuli, one picture for each {kind}; n = {count(n, 'stimulus', 'stimuli')}, "
        f"{said}. Shades are ranks, stronger for more dissimilar.{more} No test and no error bars: a description."
    )
    return [Figure(panels, f"Distances between stimuli in {model or 'the brain'}", caption, "tiles")]
