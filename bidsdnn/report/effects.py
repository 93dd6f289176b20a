"""What covariates and groups of participants do to the scores: a sentence for each effect, all numbers, and maps."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from bidsdnn.report.backdrop import Backdrop, read_picture
from bidsdnn.report.blocks import Block, Heading, Notes, attempt, data_table
from bidsdnn.report.brains import best_layer, peak, score_map
from bidsdnn.report.drawing import slug
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.findings import ALPHA, count, equation, number, probability
from bidsdnn.report.maps import as_figure, looking, named_parts, outline, significance, view

TITLE = "Covariates and groups: what do participants' differences do to the scores?"
_ANALYSES = {
    "encoding": "Prediction", "rsa": "Similarity of geometries", "decoding": "Labels told",
    "searchlight": "Similarity of neighbourhoods' geometries", "searchlightencoding": "Prediction of neighbourhoods",
    "variancepartition": "Explained variance",
}  # fmt: skip
_MOST = 6
# Share of the largest t from which voxels are coloured.
_SHOWN_FROM = 0.5


def effect_blocks(entries: list[Entry], problems: list[str]) -> list[Block]:
    """Say which effects are significant where, by analysis.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
        Empty where no covariate and no groups were given.
    """
    blocks: list[Block] = []
    for analysis, title in _ANALYSES.items():
        for entry in pick(entries, "results", f"{analysis}effects"):

            def make(entry: Entry = entry, title: str = title) -> list[Block]:
                return _blocks(entry, title)

            blocks += attempt(make, entry.path.name, problems)
    return [Heading(TITLE), *blocks] if blocks else []


def _blocks(entry: Entry, title: str) -> list[Block]:
    table = read_tables([entry], "effect", "estimate", "p", "p_fwe")
    said = [_sentence(str(effect), table[table["effect"] == effect]) for effect in ordered(table["effect"])]
    atlas = entry.entities.get("atlas")
    named = f"{title}, atlas {atlas}" if atlas else title
    draws, test = first([entry], "Permutations"), str(first([entry], "Test") or "permutations")
    note = f"{draws:,} {test}." if isinstance(draws, int) else f"{test}."
    numbers = data_table(table.drop(columns=["sub"], errors="ignore"), f"{named}: all effects", note=note)
    return [Notes(named, tuple(said)), numbers]


def _sentence(effect: str, rows: pd.DataFrame) -> str:
    """One effect: where it is significant, or the strongest of it."""
    people = count(rows["n_participants"].max(), "participant") if "n_participants" in rows else ""
    sure = rows[rows["p_fwe"] < ALPHA]
    if sure.empty:
        known = rows[rows["p"].notna()]
        if known.empty:
            return f"{effect}: not tested."
        row = known.loc[known["p"].idxmin()]
        return f"{effect}: no effect in {count(len(rows), 'test')} (smallest {_where(row)}; {people})."
    few = sure.nsmallest(_MOST, "p_fwe")
    more = f"; and in {len(sure) - len(few):,} more" if len(sure) > len(few) else ""
    return f"{effect}: {'; '.join(_where(row) for _, row in few.iterrows())}{more} ({people})."


def _where(row: pd.Series) -> str:
    place = ", ".join(str(row[name]) for name in ("region", "layer", "target") if str(row.get(name) or "n/a") != "n/a")
    return f"{place}: {equation('estimate', number(row['estimate']))}, {probability(row['p_fwe'], 'p(FWE)')}"


def effect_maps(entries: list[Entry], base: Backdrop, stem: str, problems: list[str]) -> list[Block]:
    """Draw t of each effect in each voxel, of the layer where it is largest either way.

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
        Empty where no covariate and no groups were given.
    """
    blocks: list[Block] = []
    for entry in pick(entries, "statmap", stat="t"):
        if "contrast" in entry.entities:
            sure = significance(entries, entry)
            blocks += attempt(partial(_effect_map, entry, sure, base, stem), entry.path.name, problems)
    return blocks


def _effect_map(entry: Entry, p: Entry | None, base: Backdrop, stem: str) -> list[Block]:
    picture = read_picture(entry.path, base)
    sizes = np.abs(picture.values)
    layer, size = best_layer(sizes)
    chosen = np.nan_to_num(layer, nan=1).astype(int) - 1
    row = np.where(np.isfinite(size), picture.values[chosen, np.arange(len(chosen))], np.nan)
    highest = peak(size)
    sure, tested = outline(p, base, picture.noun)
    lines = [None] * len(picture.parts) if sure is None else picture.laid_out(sure)
    said = entry.sidecar
    effect, model = str(said.get("Effect") or entry.entities["contrast"]), str(said.get("Network") or "the network")
    analysis = _ANALYSES.get(entry.desc, entry.desc)
    stem = f"{stem}_model-{slug(model)}_desc-{slug(entry.desc)}_contrast-{slug(effect)}"
    one, several = picture.noun
    panels = tuple(
        score_map(part, base.scan, stem=name, label=f"t of {effect}", floor=_SHOWN_FROM * highest, highest=highest,
                  sure=line, signed=True, alt=f"{view(picture)} with the t of {effect} in each {one}. {tested}")
        for (name, part), line in zip(named_parts(f"{stem}_stat-t", picture, row), lines, strict=True)
    )  # fmt: skip
    held = f", with {', '.join(said['Held'])} held" if said.get("Held") else ""
    people = count(len(said.get("Participants") or ()), "participant")
    caption = (
        f"t of what {effect} does to the score of each {one}{held}, of the layer where it is furthest from zero "
        f"({count(len(picture.values), 'layer')}); {several} below {number(_SHOWN_FROM * highest)}, half of the "
        f"largest, are left clear. n = {people}. {tested} No error bars. {looking(picture)}"
    )
    return as_figure(panels, f"{analysis} and {effect}: {model}", caption, picture)
