"""The order in which a page is read: sentences, maps, scores by region and layer, geometry, then what they rest on.

Participants and the group share it. The sentences of every analysis stand together on the first screen; a section
without content is left out.
"""

from __future__ import annotations

from functools import partial

from bidsdnn.report.arrangement import plane_blocks
from bidsdnn.report.backdrop import Backdrop, background
from bidsdnn.report.bands import partition_blocks
from bidsdnn.report.blocks import Block, Heading, Notes, Section, attempt
from bidsdnn.report.decoding import TITLE, decoding_blocks
from bidsdnn.report.effects import effect_blocks, effect_maps
from bidsdnn.report.encoding import encoding_blocks
from bidsdnn.report.encoding import voxel_blocks as best_voxel_blocks
from bidsdnn.report.entries import Entry, Log, listed, pick
from bidsdnn.report.estimation import estimation_blocks
from bidsdnn.report.findings import Sentences
from bidsdnn.report.groupmodels import group_model_blocks
from bidsdnn.report.inside import inside_blocks
from bidsdnn.report.interactive import view_blocks
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
# Sections of results in the order in which they are read; the first is always there.
RESULTS = {
    "found": "What was found", "maps": "Maps", "scores": "Regions and layers", "geometry": "Geometry",
    "decoding": "Decoding", "models": "Group models", "inside": "Regions and voxels as units of a network",
}  # fmt: skip
Parts = dict[str, list[Block]]


def build(entries: list[Entry], log: Log, *, level: str, interactive: bool = False) -> list[Section]:
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
        Results, data quality, methods, errors; the first and the last three are always there.

    Raises
    ------
    ValueError
        If the level is neither.
    """
    if level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    problems: list[str] = []
    parts: Parts = {name: [] for name in (*RESULTS, "quality")}
    contexts = _contexts(entries)
    for context in contexts:
        own = [entry for entry in entries if set(entry.context) <= set(context)]
        stem = "_".join([_owner(own, level), *(f"{entity}-{label}" for entity, label in context)])
        heading: list[Block] = []
        if len(contexts) > 1:
            heading.append(Heading(", ".join(f"{entity} {label}" for entity, label in context)))
        base = background(own, problems)
        made = _found(own, base, stem, problems, level) | {"quality": _quality(own, base, stem, problems, level)}
        if interactive:
            made["maps"] = view_blocks(own, base, stem, problems, level=level) + made["maps"]
        for name, blocks in made.items():
            parts[name] += heading + blocks if blocks else []
    quality = parts.pop("quality")
    people, left_out = listed(entries, "Participants"), listed(entries, "Notes") + listed(entries, "Omitted")
    if level == "group" and people:
        quality.insert(0, Notes("Participants", (", ".join(people),)))
    if left_out:
        quality.append(Notes("What was left out", tuple(dict.fromkeys(left_out))))
    nothing = "No score was written." + (" See the errors below." if log.errors else "")
    parts["found"] = parts["found"] or [Notes("", (nothing,))]
    return [
        *(Section(name, RESULTS[name], tuple(blocks)) for name, blocks in parts.items() if blocks),
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
    return _titled("Variance partitioning: what do feature spaces explain alone and together?", blocks)


def _titled(title: str, blocks: list[Block]) -> list[Block]:
    """Blocks under a heading, if there are any."""
    return [Heading(title), *blocks] if blocks else []


def _lifted(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """Sentences, with the warnings and the headings that belong to them, and the rest."""
    said: list[Block] = []
    rest: list[Block] = []
    for block in blocks:
        warns = isinstance(block, Notes) and block.tone == "warning" and not block.title
        if isinstance(block, Sentences) or (warns and said):
            said.append(block)
        else:
            rest.append(block)
    return said, rest


def _found(own: list[Entry], base: Backdrop, stem: str, problems: list[str], level: str) -> Parts:
    """All results of one context, by section."""
    parts: Parts = {name: [] for name in RESULTS}
    compared = _has_network(own)
    if compared:
        for desc in _TITLES:
            said, rest = _scored(own, desc, stem, problems, level)
            parts["found"] += said
            parts["scores"] += rest
        parts["maps"] += model_blocks(own, base, stem, problems, level=level)
        parts["scores"] += _partitions(own, stem, problems, level)
        if level == "participant":
            parts["maps"] += best_voxel_blocks(own, base, stem, problems)
    else:
        said, parts["scores"] = _lifted(attempt(partial(reliability_blocks, own, stem), "reliability", problems))
        parts["found"] += said
        parts["maps"] += voxel_blocks(own, "reliability", base, stem, problems)
    told, rest = _lifted(decoding_blocks(own, stem, problems, level=level))
    parts["found"] += _titled(TITLE, told)
    # The section is called what the heading says.
    parts["decoding"] += rest[1:]
    parts["maps"] += searchlight_blocks(own, base, stem, problems, level=level)
    parts["maps"] += decoding_searchlights(own, base, stem, problems)
    parts["geometry"] += rdm_blocks(own, stem, problems) + plane_blocks(own, stem, problems)
    parts["geometry"] += similarity_blocks(own, stem, problems, level=level)
    parts["inside"] += inside_blocks(own, stem, problems)
    if level == "group":
        parts["maps"] += effect_maps(own, base, stem, problems)
        parts["scores"] += effect_blocks(own, problems)
        parts["models"] += group_model_blocks(own, base, stem, problems)
    if not compared and not told and any(parts.values()):
        alone = listed(own, "Notes") or ["No network was compared; these are the responses by themselves."]
        parts["found"].insert(0, Notes("", tuple(alone)))
    return parts


def _scored(own: list[Entry], desc: str, stem: str, problems: list[str], level: str) -> tuple[list[Block], list[Block]]:
    """Sentences of one analysis, and what else it has by region and layer."""
    said: list[Block] = []
    shown: list[Block] = []
    tables = pick(own, "results", desc)
    atlases = list(dict.fromkeys(entry.entities.get("atlas", "none") for entry in tables))
    for atlas in atlases:
        near = [entry for entry in own if entry.entities.get("atlas", "none") == atlas]
        these = [entry for entry in tables if entry in near]
        make = partial(score_blocks, these, near, desc, f"{stem}_atlas-{atlas}_desc-{desc}", level=level)
        first, rest = _lifted(attempt(make, f"{desc} of atlas {atlas}", problems))
        rest += unit_blocks(near, desc, problems)
        rest += pair_blocks(near, desc, f"{stem}_atlas-{atlas}", problems)
        if desc == "encoding":
            rest += encoding_blocks(near, f"{stem}_atlas-{atlas}", problems, level=level)
        named = f"Atlas {atlas}" if len(atlases) > 1 else ""
        said += _titled(named, first) if named else first
        shown += _titled(named, rest) if named else rest
    return _titled(_TITLES[desc], said), _titled(_TITLES[desc], shown)


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
