"""One participant's or one group's results as one file of HTML.

The file asks nothing of any server: style, pictures and the one small script are in it, and its own security policy
forbids the rest.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bidsdnn import __version__
from bidsdnn.report.blocks import Section
from bidsdnn.report.drawing import Figure, theme_css
from bidsdnn.report.entries import Entry, Log, first, listed
from bidsdnn.report.findings import count
from bidsdnn.report.inside import asked_inside, inside_sections
from bidsdnn.report.sections import build
from bidsdnn.result import COLUMN, WEIGHTED

__all__ = ["Entry", "Log", "page"]

_FACTS = {"sub": "Participant", "ses": "Session", "task": "Task", "space": "Space", "res": "Resolution",
          "den": "Density", "atlas": "Atlas", "model": "Network"}  # fmt: skip


def page(results: list[Entry], path: Path, *, figures_dir: Path, title: str, level: str, log: Log) -> None:
    """Write the report of one participant, or of the group, from files on disk.

    Parameters
    ----------
    results : list of Entry
        One per result file. Files that cannot be read cost their figure, and are named on the page.
    path : Path
        The HTML file; it is replaced in one step.
    figures_dir : Path
        Gets the pictures as files; made if needed.
    title : str
        First line of the page.
    level : str
        ``dnn``, ``participant`` or ``group``.
    log : Log
        What ran.

    Raises
    ------
    ValueError
        If `level` is none of them.
    """
    sections = inside_sections(results, log) if level == "dnn" else build(results, log, level=level)
    figures_dir.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for block in section.blocks:
            for panel in block.panels if isinstance(block, Figure) else ():
                if panel.content:  # else it is a file of the output by itself
                    (figures_dir / panel.name).write_bytes(panel.content)
    html = _render(sections, results, title=title, level=level, log=log)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(html, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _render(sections: list[Section], results: list[Entry], *, title: str, level: str, log: Log) -> str:
    """Fill the template."""
    here = files("bidsdnn.report")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    style = theme_css() + here.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(
        sections=sections, title=title, level=level, log=log, facts=_facts(results, log),
        asked=asked_inside(results) if level == "dnn" else _asked(results),
        style=Markup(style), script=Markup(script), script_hash=digest, version=__version__,
    )  # fmt: skip


def _facts(results: list[Entry], log: Log) -> list[tuple[str, str]]:
    """What the page is about, as pairs of a name and its labels."""
    facts = []
    dataset = first(results, "Dataset")
    if dataset:
        facts.append(("Dataset", str(dataset)))
    for entity, name in _FACTS.items():
        labels = list(dict.fromkeys(e.entities[entity] for e in results if entity in e.entities))
        labels = [label for label in labels if (entity, label) != ("model", COLUMN)]
        if entity == "sub" and len(labels) > 1:
            name = "Participants"
        if labels:
            facts.append((name if len(labels) == 1 or name.endswith("s") else f"{name}s", ", ".join(labels)))
    if not any(name.startswith("Participant") for name, _ in facts) and listed(results, "Participants"):
        facts.insert(0, ("Participants", ", ".join(listed(results, "Participants"))))
    return [*facts, ("Run", log.started.replace("T", " "))]


def _asked(results: list[Entry]) -> str:
    """What the analyses were to answer, with the size of the question."""
    scored = [e for e in results if e.suffix == "results" and e.desc in ("encoding", "rsa")]
    models = list(dict.fromkeys(e.entities.get("model", "") for e in scored))
    columns, models = COLUMN in models, [model for model in models if model != COLUMN]
    if not models and not columns:
        alone = any(e.suffix == "relmat" or e.desc == "reliability" for e in results)
        return "How reliable are the responses, and which stimuli does each region tell apart?" if alone else ""
    stimuli = first(scored, "NumberOfStimuli")
    layers = max((len(set(e.sidecar.get("Layers") or ()) - {WEIGHTED}) for e in scored), default=0)
    to = f" to {count(stimuli, 'stimulus', 'stimuli')}" if isinstance(stimuli, (int, float)) else ""
    if not models:
        return f"How well do behaviour and categories explain the responses{to}?"
    who = models[0] if len(models) == 1 else count(len(models), "network")
    subject = f"{count(layers, 'layer')} of {who}" if layers else who
    verb = "does" if max(layers, len(models)) == 1 or (not layers and len(models) == 1) else "do"
    return f"How well {verb} {subject} explain the responses{to}?"
