"""One participant's or one group's results as one file of HTML.

The file asks nothing of any server: style, pictures and the one small script are in it, and its own security policy
forbids the rest.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bidsdnn import __version__
from bidsdnn.report.blocks import Section, Views
from bidsdnn.report.drawing import Figure, theme_css
from bidsdnn.report.entries import Entry, Log, first, listed
from bidsdnn.report.findings import count
from bidsdnn.report.inside import asked_inside, inside_sections
from bidsdnn.report.sections import build
from bidsdnn.result import COLUMN, WEIGHTED

__all__ = ["Entry", "Log", "page", "write_page"]

_WHO = {"participant": "This participant", "group": "The group analysis", "dnn": "The work on the networks"}
_FACTS = {"sub": "Participant", "ses": "Session", "task": "Task", "space": "Space", "res": "Resolution",
          "den": "Density", "atlas": "Atlas", "model": "Network"}  # fmt: skip


def page(
    results: list[Entry], path: Path, *, figures_dir: Path, title: str, level: str, log: Log, index: str = "",
    interactive: bool = False,
) -> None:  # fmt: skip
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
    index : str
        Address of the page that lists all reports, if there is one.
    interactive : bool
        Whether maps that can be turned are written beside the pictures.

    Raises
    ------
    ValueError
        If `level` is none of them.
    """
    inside = level == "dnn"
    sections = inside_sections(results, log) if inside else build(results, log, level=level, interactive=interactive)
    figures_dir.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for block in section.blocks:
            for panel in block.panels if isinstance(block, Figure) else ():
                if panel.content:  # else it is a file of the output by itself
                    (figures_dir / panel.name).write_bytes(panel.content)
            for view in block.pages if isinstance(block, Views) else ():
                (figures_dir / view.name).write_text(view.html, encoding="utf-8")
    who = _WHO[level]
    asked = asked_inside(results) if inside else _asked(results)
    alert = f"{who} did not finish: {log.errors[0]}" if log.errors else ""
    write_page(
        sections, path, title=title, kicker=f"{level} report", asked=asked, facts=_facts(results, log),
        alert=alert, run=log.run_uuid, index=index,
        beside=quote(os.path.relpath(figures_dir, path.parent)),
    )  # fmt: skip


def write_page(
    sections: list[Section], path: Path, *, title: str, kicker: str, asked: str = "",
    facts: Sequence[tuple[str, str]] = (), alert: str = "", run: str = "", index: str = "", beside: str = "",
) -> None:  # fmt: skip
    """Write sections as one file of HTML.

    Parameters
    ----------
    sections : list of Section
    path : Path
        The HTML file; it is replaced in one step.
    title : str
        First line of the page.
    kicker : str
        What kind of page it is.
    asked : str
        A question or a summary, under the title.
    facts : sequence of (str, str)
        Names and values, under that.
    alert : str
        What went wrong, if anything.
    run : str
        The run that the page tells of.
    index : str
        Address of the page that lists all reports, if there is one.
    beside : str
        Address of the folder of the pages beside this one.
    """
    html = _render(
        sections=sections,
        title=title,
        kicker=kicker,
        asked=asked,
        facts=facts,
        alert=alert,
        run=run,
        index=index,
        beside=beside,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _render(**said: object) -> str:
    """Fill the template."""
    here = files("bidsdnn.report")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    style = theme_css() + here.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(**said, style=Markup(style), script=Markup(script), script_hash=digest, version=__version__)


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
