"""From the output folder to its reports: finds what belongs to a participant or the group and hands it to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bidsdnn import journal
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, write_text
from bidsdnn.report.entries import Entry, Log
from bidsdnn.report.methods import citation
from bidsdnn.report.page import page


def participant_page(derivatives: Derivatives, label: str) -> Path:
    """Write one participant's report from what is on disk.

    Parameters
    ----------
    derivatives : Derivatives
    label : str
        Without ``sub-``.

    Returns
    -------
    Path
        ``sub-<label>.html``.
    """
    name = f"sub-{label}"
    entries = _entries(derivatives, name) + _entries(derivatives, "stimuli")
    path = derivatives.root / f"{name}.html"
    page(entries, path, figures_dir=derivatives.root / name / "figures", title=name, level="participant",
         log=_log(derivatives.root, name))  # fmt: skip
    return path


def group_page(derivatives: Derivatives) -> Path:
    """Write the group's report from what is on disk.

    Parameters
    ----------
    derivatives : Derivatives

    Returns
    -------
    Path
        ``group.html``.
    """
    entries = _entries(derivatives, "group")
    for folder in sorted(derivatives.root.glob("tpl-*")):
        entries += _entries(derivatives, folder.name)
    for folder in sorted(derivatives.root.glob("sub-*/")):
        entries += [entry for entry in _entries(derivatives, folder.name, arrays=False) if entry.suffix == "results"]
    path = derivatives.root / "group.html"
    page(entries, path, figures_dir=derivatives.root / "group" / "figures", title="Group", level="group",
         log=_log(derivatives.root, "group"))  # fmt: skip
    return path


def _entries(derivatives: Derivatives, below: str, *, arrays: bool = True) -> list[Entry]:
    found = []
    for path, entities, suffix, sidecar in derivatives.entries(below=below, arrays=arrays):
        if sidecar.get("Anatomy"):
            sidecar["Anatomy"] = str(derivatives.resolve(sidecar["Anatomy"]))
        for key in ("Mesh", "InflatedMesh"):
            if key in sidecar:
                sidecar[key] = [str(derivatives.resolve(uri)) for uri in sidecar[key]]
        found.append(Entry(path, entities, suffix, sidecar))
    return found


def _log(root: Path, name: str) -> Log:
    folder = journal.latest(root, name)
    if folder is None:
        return Log("", "", "", "", None)
    recalled: dict[str, Any] = journal.recall(folder, name)
    recalled.pop("software")
    return Log(**recalled)


def write_citations(derivatives: Derivatives) -> None:
    """Write ``logs/CITATION.md`` and ``.bib`` with what the results on disk rest on.

    Parameters
    ----------
    derivatives : Derivatives
    """
    keys: dict[str, None] = {}
    for path in sorted(derivatives.root.rglob("*.json")):
        for key in read_json(path).get("References", []):
            keys[key] = None
    markdown, bibtex = citation(list(keys))
    write_text(derivatives.root / "logs" / "CITATION.md", markdown)
    write_text(derivatives.root / "logs" / "CITATION.bib", bibtex)
