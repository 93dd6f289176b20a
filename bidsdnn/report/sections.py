"""The order in which a page is read: what was found, data quality, methods, errors.

Within the findings: sentences, then depth, then the brain, then geometry. Participants and the group share it.
"""

from __future__ import annotations

from functools import partial

from bidsdnn.report.arrangement import plane_blocks
from bidsdnn.report.backdrop import Backdrop, background
from bidsdnn.report.bands import partition_blocks
from bidsdnn.report.blocks import Block, Heading, Notes, Section, attempt
from bidsdnn.report.decoding import decoding_blocks
from bidsdnn.report.encoding import encoding_blocks
from bidsdnn.report.encoding import voxel_blocks as best_voxel_blocks
from bidsdnn.report.entries import Entry, Log, listed, pick
from bidsdnn.report.estimation import estimation_blocks
from bidsdnn.report.maps import model_blocks, rdm_blocks, voxel_blocks
from bidsdnn.report.pairs import pair_blocks
from bidsdnn.report.quality import log_section, methods_section, reliability_blocks, run_blocks
from bidsdnn.report.scores import VALUES, score_blocks
from bidsdnn.report.searchlights import SEARCHLIGHTS, decoding_searchlights, searchlight_blocks
from bidsdnn.report.similarities import similarity_blocks
from bidsdnn.report.units import unit_blocks

PARTITION = "variancepartition"
LEVELS = ("participant", "group")
_TITLES = {
    "encoding": "Encoding: do the layers predict the responses?",
    "rsa": "Representational similarity: do layers and regions arrange the stimuli alike?",
}


def build(entries: list[Entry], log: Log, *, level: str) -> list[Section]:
    """Put a whole page together.

    Parameters
    ----------
    entries : list of Entry
        Files that are there.
    log : Log
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Section
        What was found, data quality, methods, errors; always all four.

    Raises
    ------
    ValueError
        If the level is neither.
    """
    if level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    problems: list[str] = []
    found: list[Block] = []
    quality: list[Block] = []
    contexts = _contexts(entries)
    for context in contexts:
        own = [entry for entry in entries if set(entry.context) <= set(context)]
        stem = "_".join([_owner(own, level), *(f"{entity}-{label}" for entity, label in context)])
        heading: list[Block] = []
        if len(contexts) > 1:
            heading.append(Heading(", ".join(f"{entity} {label}" for entity, label in context)))
        base = background(own, problems)
        for blocks, make in ((found, _found), (quality, _quality)):
            made = make(own, base, stem, problems, level)
            blocks += heading + made if made else []
    people, left_out = listed(entries, "Participants"), listed(entries, "Notes") + listed(entries, "Omitted")
    if level == "group" and people:
        quality.insert(0, Notes("Participants", (", ".join(people),)))
    if left_out:
        quality.append(Notes("What was left out", tuple(dict.fromkeys(left_out))))
    nothing = "No score was written." + (" See the errors below." if log.errors else "")
    return [
        Section("found", "What was found", tuple(found) or (Notes("", (nothing,)),)),
        Section("quality", "Data quality", tuple(quality) or (Notes("", ("No table of runs was written.",)),)),
        methods_section(entries),
        log_section(log, problems),
    ]


def _contexts(entries: list[Entry]) -> list[tuple[tuple[str, str], ...]]:
    """Combinations of task and space; a file without a space belongs to every space of its task."""
    every = list(dict.fromkeys(entry.context for entry in entries))
    return [one for one in every if not any(set(one) < set(other) for other in every)]


def _owner(entries: list[Entry], level: str) -> str:
    """Beginning of the names of the pictures."""
    label = next((entry.entities["sub"] for entry in entries if "sub" in entry.entities), "none")
    return "group" if level == "group" else f"sub-{label}"


def _has_network(entries: list[Entry]) -> bool:
    return any(pick(entries, "results", desc) for desc in (*VALUES, *SEARCHLIGHTS, PARTITION))


def _partitions(own: list[Entry], stem: str, problems: list[str], level: str) -> list[Block]:
    """Variance shared out between feature spaces, by atlas."""
    tables = pick(own, "results", PARTITION)
    blocks: list[Block] = []
    atlases = list(dict.fromkeys(entry.entities.get("atlas", "none") for entry in tables))
    for atlas in atlases:
        these = [entry for entry in tables if entry.entities.get("atlas", "none") == atlas]
        make = partial(partition_blocks, these, f"{stem}_atlas-{atlas}_desc-{PARTITION}", level=level)
        made = attempt(make, f"{PARTITION} of atlas {atlas}", problems)
        blocks += [Heading(f"Atlas {atlas}"), *made] if len(atlases) > 1 else made
    return (
        [Heading("Variance partitioning: what do feature spaces explain alone and together?"), *blocks]
        if blocks
        else []
    )


def _found(own: list[Entry], base: Backdrop, stem: str, problems: list[str], level: str) -> list[Block]:
    """All findings of one context."""
    pictures = {
        "encoding": model_blocks(own, base, stem, problems, level=level),
        "rsa": rdm_blocks(own, stem, problems) + plane_blocks(own, stem, problems),
    }
    alike = similarity_blocks(own, stem, problems, level=level)
    told = decoding_blocks(own, stem, problems, level=level) + decoding_searchlights(own, base, stem, problems)
    if not _has_network(own):
        blocks = attempt(partial(reliability_blocks, own, stem), "reliability", problems)
        blocks = told + blocks + voxel_blocks(own, "reliability", base, stem, problems) + pictures["rsa"] + alike
        alone = listed(own, "Notes") or ["No network was compared; these are the responses by themselves."]
        return [*([] if told else [Notes("", tuple(alone))]), *blocks] if blocks else []
    blocks = []
    for desc, title in _TITLES.items():
        part: list[Block] = []
        tables = pick(own, "results", desc)
        atlases = list(dict.fromkeys(entry.entities.get("atlas", "none") for entry in tables))
        for atlas in atlases:
            near = [entry for entry in own if entry.entities.get("atlas", "none") == atlas]
            these = [entry for entry in tables if entry in near]
            make = partial(score_blocks, these, near, desc, f"{stem}_atlas-{atlas}_desc-{desc}", level=level)
            part += [Heading(f"Atlas {atlas}")] if len(atlases) > 1 else []
            part += attempt(make, f"{desc} of atlas {atlas}", problems)
            part += unit_blocks(near, desc, problems)
            if desc == "rsa":
                part += pair_blocks(near, f"{stem}_atlas-{atlas}", problems)
            elif desc == "encoding":
                part += encoding_blocks(near, f"{stem}_atlas-{atlas}", problems, level=level)
        part += pictures[desc]
        part += best_voxel_blocks(own, base, stem, problems) if desc == "encoding" and level == "participant" else []
        undecided = desc == "rsa" and not tables
        blocks += [Heading("Distances between the stimuli" if undecided else title), *part] if part else []
    blocks += _partitions(own, stem, problems, level)
    return blocks + told + alike + searchlight_blocks(own, base, stem, problems, level=level)


def _quality(own: list[Entry], base: Backdrop, stem: str, problems: list[str], level: str) -> list[Block]:
    """Runs, motion, signal and reliability of one context; without a network reliability is a finding."""
    blocks = attempt(partial(run_blocks, own, stem), "table of runs", problems)
    blocks += voxel_blocks(own, "tsnr", base, stem, problems)
    if level == "participant":
        blocks += estimation_blocks(own, stem, problems)
        for stat in ("hrf", "noiseceiling"):
            blocks += voxel_blocks(own, stat, base, stem, problems)
    if _has_network(own) and level == "participant":
        blocks += attempt(partial(reliability_blocks, own, stem), "reliability", problems)
        blocks += voxel_blocks(own, "reliability", base, stem, problems)
    return blocks
