"""Searchlights in the report: where a neighbourhood is significant, of which layer, and how much."""

from __future__ import annotations

from functools import partial

import numpy as np

from bidsdnn.report.backdrop import Backdrop, read_picture
from bidsdnn.report.blocks import Block, Heading, Notes, attempt, data_table
from bidsdnn.report.brains import best_layer, layer_map, peak, score_map
from bidsdnn.report.drawing import slug
from bidsdnn.report.entries import Entry, first, listed, pick, read_tables
from bidsdnn.report.findings import ALPHA, comparison_symbol, count, number
from bidsdnn.report.maps import as_figure, looking, named_parts, view

SEARCHLIGHTS = {"searchlight": "similarity", "searchlightencoding": "pearsonr"}
"""The score of each kind of searchlight."""
_TITLES = {
    "searchlight": "Searchlight: where do neighbourhoods arrange the stimuli as a layer does?",
    "searchlightencoding": "Searchlight encoding: where does a layer predict the responses of neighbourhoods?",
}
# Where nothing is significant: share of the highest score from which the map is coloured.
_SHOWN_FROM = 0.5


def searchlight_blocks(
    entries: list[Entry], base: Backdrop, stem: str, problems: list[str], *, level: str
) -> list[Block]:
    """Draw the searchlights of one context: best layer and score of the centres that are significant.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    base : Backdrop
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Block
        Empty where no searchlight was run.
    """
    blocks: list[Block] = []
    for desc, stat in SEARCHLIGHTS.items():
        part: list[Block] = []
        for entry in pick(entries, "statmap", desc, "mean" if level == "group" else stat):
            alike = [one for one in pick(entries, "statmap", desc, "pfwe") if _same(one, entry)]
            if alike:
                part += attempt(partial(_maps, entry, alike[0], base, stem), entry.path.name, problems)
        tables = [one for one in pick(entries, "results", desc) if ("sub" in one.entities) == (level == "participant")]
        if tables:
            part += attempt(partial(_numbers, tables, stat), f"{desc} table", problems)
        blocks += [Heading(_TITLES[desc]), *part] if part else []
    return blocks


def decoding_searchlights(entries: list[Entry], base: Backdrop, stem: str, problems: list[str]) -> list[Block]:
    """Draw the neighbourhoods of one participant from which classes were told.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    base : Backdrop
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    own = [one for one in entries if one.desc.startswith("searchlightdecoding") and "sub" in one.entities]
    blocks: list[Block] = []
    for entry in pick(own, "statmap", stat="balancedaccuracy"):
        for corrected in pick(own, "statmap", entry.desc, "pfwe"):
            blocks += attempt(partial(_told, entry, corrected, base, stem), entry.path.name, problems)
    tables = pick(own, "results", "searchlightdecoding")
    if tables:
        blocks.append(data_table(read_tables(tables, "region", "target"), "All regions"))
    return [Heading("Searchlight decoding: where can labels be told from neighbourhoods?"), *blocks] if blocks else []


def _told(entry: Entry, corrected: Entry, base: Backdrop, stem: str) -> list[Block]:
    """How many neighbourhoods tell the classes, and the map of those, or of all above chance where none does."""
    picture, p = read_picture(entry.path, base), read_picture(corrected.path, base).values[0]
    row, target = picture.values[0], str(first([entry], "Target") or "labels")
    chance, significant = float(first([entry], "Chance") or 0), p < ALPHA
    test = first([entry], "NullDistribution") or "permutations"
    rule = f"family-wise p < .05 over all centres ({test}, largest of each)"
    tested, found = int(np.isfinite(p).sum()), int(significant.sum())
    how = f"{found:,} of {tested:,} centres reach" if found else f"none of {tested:,} centres reaches"
    shown = np.where(significant | np.isnan(p), row, chance) if found else row
    what = "Only significant centres are coloured" if found else "Centres above chance are coloured"
    panels = tuple(
        score_map(
            part, base.scan, stem=name, label="balanced accuracy", floor=chance, highest=peak(row),
            alt=f"{view(picture)} with the balanced accuracy of {target} in each neighbourhood; {how} {rule}.",
        )
        for name, part in named_parts(f"{stem}_desc-{slug(entry.desc)}", picture, shown)
    )  # fmt: skip
    caption = (
        f"Cross-validated balanced accuracy in the neighbourhood of each centre (radius "
        f"{first([entry], 'NeighborhoodExtent') or 'in the tables'}); chance is {number(chance, 3)}. {what}. "
        f"{rule[0].upper()}{rule[1:]}. No error bars. {looking(picture)}"
    )
    return [Notes("", (f"{target}: {how} {rule}.",)), *as_figure(panels, f"Where {target} is told", caption, picture)]


def _same(one: Entry, other: Entry) -> bool:
    """Whether two maps are of one network and one person or group."""
    return all(one.entities.get(key) == other.entities.get(key) for key in ("model", "sub", "tpl"))


def _numbers(tables: list[Entry], stat: str) -> list[Block]:
    return [data_table(read_tables(tables, "network", "layer", "region", stat), "All regions")]


def _maps(entry: Entry, corrected: Entry, base: Backdrop, stem: str) -> list[Block]:
    """What was found in a sentence, the best layer of each significant centre, and its score."""
    picture = read_picture(entry.path, base)
    layers = list(entry.sidecar.get("Layers") or [])
    p = read_picture(corrected.path, base).values
    if len(layers) != len(picture.values) or p.shape != picture.values.shape:
        raise ValueError(f"{entry.path}: {len(layers)} layers, maps of shapes {picture.values.shape} and {p.shape}")
    model = str(entry.sidecar.get("Network") or entry.entities.get("model", "network"))
    significant = p < ALPHA
    tested, found = int(np.isfinite(p).any(axis=0).sum()), int(significant.any(axis=0).sum())
    # Below zero is clear, and keeps its place in the picture of the whole brain.
    shown = np.where(significant | np.isnan(p), picture.values, -1.0) if found else picture.values
    layer, score = best_layer(shown)
    highest = peak(score[score > 0])
    floor = 0.0 if found else max(highest, 0.0) * _SHOWN_FROM
    desc = entry.desc
    symbol = "mean r" if desc == "searchlightencoding" else comparison_symbol(str(first([entry], "Comparison") or ""))
    each = ", ".join(f"{name} {row.sum()}" for name, row in zip(layers, significant, strict=True) if row.any())
    people = listed([entry], "Participants")
    who = f"n = {count(len(people), 'participant')}" if people else f"n = {_stimuli(entry)}"
    test = "sign flips of participants" if people else "permutations of stimulus labels"
    rule = f"family-wise p < .05 over all centres and layers ({test}, largest value of each)"
    said = (
        f"{model}: {found:,} of {tested:,} centres are significant, {rule}; by layer: {each}."
        if found
        else f"{model}: none of {tested:,} centres reaches {rule}."
    )
    extent = first([entry], "NeighborhoodExtent") or "a radius that the tables name"
    what = "Only significant centres are coloured" if found else f"Centres from {symbol} = {number(floor)} are coloured"
    rest = f"{what}. {who}; neighbourhoods: {extent}. {rule[0].upper()}{rule[1:]}. No error bars. {looking(picture)}"
    stem = f"{stem}_model-{slug(model)}_desc-{desc}"
    where, much = [], []
    for (place, part), (_, strength) in zip(
        named_parts(stem, picture, layer), named_parts(stem, picture, score), strict=True
    ):
        where.append(
            layer_map(
                part, strength, base.scan, layers=layers, stem=f"{place}_stat-bestlayer", floor=floor,
                highest=highest, alt=f"{view(picture)} with the best layer of {model}. {said}",
            )
        )  # fmt: skip
        much.append(
            score_map(
                strength, base.scan, stem=f"{place}_stat-score", label=f"{symbol} of the best layer", floor=floor,
                highest=highest, alt=f"{view(picture)} with the score of the best layer of {model}. {said}",
            )
        )  # fmt: skip
    return [
        Notes("", (said,)),
        *as_figure(tuple(where), f"Best layer of each neighbourhood: {model}",
                   f"The layer with the highest {symbol}. {rest}", picture),
        *as_figure(tuple(much), f"Score of each neighbourhood: {model}", f"{symbol} of the best layer. {rest}",
                   picture if not picture.missing else type(picture)(picture.values, picture.kind, picture.parts)),
    ]  # fmt: skip


def _stimuli(entry: Entry) -> str:
    return count(int(first([entry], "NumberOfStimuli") or 0), "stimulus", "stimuli")
