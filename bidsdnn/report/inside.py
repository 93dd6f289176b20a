"""What probes of a network found: sheets of pictures with their captions, and tables, an analysis at a time."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import partial

import pandas as pd
from markupsafe import Markup

from bidsdnn.report.blocks import Block, Heading, Notes, Section, attempt, data_table
from bidsdnn.report.decoding import told_blocks
from bidsdnn.report.drawing import Figure, Panel
from bidsdnn.report.entries import Entry, Log, first, pick, read_table, read_tables
from bidsdnn.report.figures import dots
from bidsdnn.report.findings import Sentences, count
from bidsdnn.report.quality import log_section, methods_section
from bidsdnn.report.training import ablation_figures, curve_figures

TITLES = {
    "topstimuli": "Top stimuli: what drives a unit most, and least?",
    "featuremap": "Feature maps: where in a stimulus do channels respond?",
    "probe": "Probing: what can be read from each layer?",
    "saliency": "Saliency: which pixels does a unit depend on?",
    "receptivefield": "Receptive fields: which part of a picture can a unit see?",
    "optimalstimulus": "Optimal stimuli: what would drive a unit most?",
    "minimalimage": "Minimal images: how little of a picture keeps a unit driven?",
    "maskedimage": "Masked images: which part of a picture keeps a unit driven?",
    "ablation": "Ablation: what changes when units are cut out?",
    "transfer": "Transfer: what does the network learn from these stimuli?",
    "braintraining": "Brain-constrained training: does the network come nearer to the brain?",
}
"""Analyses in the order of the page, by their ``desc``."""


def inside_sections(entries: list[Entry], log: Log) -> list[Section]:
    """Put the page of a network together.

    Parameters
    ----------
    entries : list of Entry
        Files of the stimuli's folder.
    log : Log

    Returns
    -------
    list of Section
        What was looked at, one an analysis, methods, log.
    """
    problems: list[str] = []
    found = _probed(entries)
    sections = [
        Section(desc, _short(desc), (Heading(TITLES.get(desc, desc)), *_of_analysis(found, desc, problems)))
        for desc in _descs(found)
    ]
    said = [Notes("", ("No probe of a network was written. See the log below.",))]
    lead: list[Block] = [_lead(found)] if found else list(said)
    return [
        Section("found", "What was looked at", tuple(lead)),
        *sections,
        methods_section(found),
        log_section(log, problems),
    ]


def inside_blocks(entries: list[Entry], stem: str, problems: list[str]) -> list[Block]:
    """Show what probes found of a participant's regions and voxels, within that participant's page.

    Parameters
    ----------
    entries : list of Entry
    stem : str
        Begins the names of pictures.
    problems : list of str
        What could not be shown is added.

    Returns
    -------
    list of Block
        Empty where there are none.
    """
    found = [entry for entry in _probed(entries) if "sub" in entry.entities]
    blocks: list[Block] = []
    for desc in _descs(found):
        blocks += [Heading(TITLES.get(desc, desc)), *_of_analysis(found, desc, problems, stem=f"{stem}_")]
    return blocks


def asked_inside(entries: list[Entry]) -> str:
    """What a network's page is about, in one question."""
    models = list(dict.fromkeys(entry.entities["model"] for entry in _probed(entries) if "model" in entry.entities))
    if not models:
        return ""
    return f"What do the units of {models[0] if len(models) == 1 else count(len(models), 'network')} respond to?"


def _probed(entries: list[Entry]) -> list[Entry]:
    return [e for e in entries if e.suffix in ("results", "picture") and e.sidecar.get("Analysis")]


def _descs(entries: list[Entry]) -> list[str]:
    """Analyses that are there, in the page's order; a table of an analysis names it in its sidecar."""
    there = {_desc(entry) for entry in entries}
    return [desc for desc in TITLES if desc in there] + sorted(there - TITLES.keys())


def _short(desc: str) -> str:
    return TITLES.get(desc, desc).partition(":")[0]


def _desc(entry: Entry) -> str:
    return str(entry.sidecar["Analysis"]).replace("-", "") if ":" not in entry.sidecar["Analysis"] else entry.desc


def _lead(entries: list[Entry]) -> Sentences:
    models = list(dict.fromkeys(entry.entities.get("model", "") for entry in entries))
    n = first(entries, "NumberOfStimuli")
    lead = Markup("<b>{}</b> {} looked into{}.").format(
        ", ".join(models), "was" if len(models) == 1 else "were",
        f", with {count(n, 'stimulus', 'stimuli')}" if isinstance(n, int) else "",
    )  # fmt: skip
    return Sentences(lead, tuple(Markup("{}").format(TITLES.get(desc, desc)) for desc in _descs(entries)))


def _of_analysis(entries: list[Entry], desc: str, problems: list[str], *, stem: str = "") -> list[Block]:
    """Pictures, then tables, by network."""
    own = [entry for entry in entries if _desc(entry) == desc]
    models = list(dict.fromkeys(entry.entities.get("model", "") for entry in own))
    blocks: list[Block] = []
    for model in models:
        near = [entry for entry in own if entry.entities.get("model", "") == model]
        blocks += [Heading(model)] if len(models) > 1 else []
        own_stem = f"{stem}model-{model}_desc-{desc}"
        if desc in DRAWN:
            blocks += attempt(partial(DRAWN[desc], near, own_stem), f"figures of {desc}", problems)
        blocks += attempt(partial(_pictures, pick(near, "picture")), f"pictures of {desc}", problems)
        # The figures bring the table of what was told with them.
        for entry in [one for one in pick(near, "results") if one.desc != "probe"]:
            blocks += attempt(partial(_table, entry), entry.path.name, problems)
    return blocks


def _probe_figures(entries: list[Entry], stem: str) -> list[Block]:
    """What was told from each layer, and how many dimensions it has."""
    told = pick(entries, "results", "probe")
    blocks = told_blocks(told, pick(entries, "results", "probeconfusion"), stem) if told else []
    table = read_tables(pick(entries, "results", "probelayers"), "layer", "participation_ratio")
    known = table[table["participation_ratio"].notna()]
    if known.empty:
        return blocks
    panel = dots(
        dict(zip(known["layer"], known["participation_ratio"], strict=True)), stem=f"{stem}_dimensions",
        label="participation ratio", alt="Dimensionality by layer",
    )  # fmt: skip
    caption = (
        f"Dimensions of each layer's activations to {count(known['n_stimuli'].max(), 'stimulus', 'stimuli')}, by the "
        "participation ratio of the variances of principal components. A description: no test and no error bars."
    )
    return [*blocks, Figure((panel,), "Dimensions by layer", caption, "wide")]


DRAWN: dict[str, Callable[[list[Entry], str], list[Block]]] = {
    "probe": _probe_figures, "ablation": ablation_figures, "transfer": curve_figures, "braintraining": curve_figures,
}  # fmt: skip
"""Figures that are drawn from the tables of an analysis, before its pictures."""


def _pictures(entries: list[Entry]) -> list[Block]:
    """A figure a unit: pictures of one unit stand together under their captions."""
    units = list(dict.fromkeys(str(entry.sidecar.get("Unit", "")) for entry in entries))
    # In the order in which they were asked for, not in that of the files' names.
    asked = [*(first(entries, "Units") or ()), *(first(entries, "Layers") or ())]
    units.sort(key=lambda unit: asked.index(unit) if unit in asked else len(asked))
    blocks: list[Block] = []
    for unit in units:
        own = [entry for entry in entries if str(entry.sidecar.get("Unit", "")) == unit]
        captions = list(dict.fromkeys(str(entry.sidecar.get("Caption", "")) for entry in own))
        panels = tuple(_panel(entry) for entry in own)
        blocks.append(Figure(panels, unit or own[0].entities.get("label", ""), " ".join(captions), "wide"))
    return blocks


def _panel(entry: Entry) -> Panel:
    """A picture that lies in the output already, so that its file is not written a second time."""
    data = b64encode(entry.path.read_bytes()).decode()
    alt = str(entry.sidecar.get("Alt", ""))
    markup = Markup('<img class="raster" alt="{}" src="data:image/png;base64,{}">').format(alt, data)
    return Panel(entry.path.name, b"", markup, alt)


def _table(entry: Entry) -> list[Block]:
    table: pd.DataFrame = read_table(entry.path)
    said = entry.sidecar.get("Columns") or {}
    note = " ".join(f"{name}: {text}." for name, text in said.items() if name in table)
    titles = entry.sidecar.get("Titles") or {}
    title = titles.get(entry.desc, f"{_short(entry.desc)}, every row")
    return [data_table(table, title, note=note, folded=len(table) > 12)]
