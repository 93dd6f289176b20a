"""From the output folder to its reports: finds what belongs to a participant or the group and hands it to the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn import journal
from bidsdnn.bids import names
from bidsdnn.bids.derivatives import DESCRIPTIONS, Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.bids.stimulus_index import read_categories
from bidsdnn.report.entries import Entry, Log
from bidsdnn.report.index import Report, write_index
from bidsdnn.report.page import page
from bidsdnn.stimuli import modality, thumbnail

INDEX = "index.html"
# Other pages at the root, by the name of what they are about.
TITLES = {"group": "Group", "dnn": "Networks"}
RECORDS = {
    "dataset_description.json": "what this dataset is, and what made it",
    "descriptions.tsv": "what each desc- means",
    "logs/CITATION.md": "what to cite",
    "logs/CITATION.bib": "the same for BibTeX",
    "logs/CITATION.tex": "the same for LaTeX",
}


@dataclass(frozen=True)
class Shown:
    """What pages show of the stimuli themselves, and besides pictures.

    Parameters
    ----------
    root : Path or None
        Their folder; a ``stimuli.tsv`` in it may give each one's category.
    pictures : bool
        Whether pages hold small pictures of them: photographs have owners, so only where it was asked for.
    interactive : bool
        Whether maps that can be turned are written beside the pages.
    """

    root: Path | None = None
    pictures: bool = False
    interactive: bool = False

    @cached_property
    def categories(self) -> dict[str, str]:
        """By stimulus, as the folder's ``stimuli.tsv`` has them."""
        return read_categories(self.root) if self.root else {}

    def thumbnails(self, items: Iterable[str]) -> dict[str, np.ndarray]:
        """Small pictures of those stimuli whose files are there."""
        if self.root is None or not self.pictures:
            return {}
        drawn = [item for item in items if modality(item) in ("image", "video") and (self.root / item).is_file()]
        return {item: thumbnail(self.root / item) for item in drawn}


NOTHING_SHOWN = Shown()


def participant_page(derivatives: Derivatives, label: str, shown: Shown = NOTHING_SHOWN) -> Path:
    """Write one participant's report from what is on disk.

    Parameters
    ----------
    derivatives : Derivatives
    label : str
        Without ``sub-``.
    shown : Shown
        What the page shows of the stimuli.

    Returns
    -------
    Path
        ``sub-<label>.html``.
    """
    name = f"sub-{label}"
    entries = _entries(derivatives, name, shown) + _of_layers(derivatives)
    path = derivatives.root / f"{name}.html"
    page(entries, path, figures_dir=derivatives.root / name / "figures", title=name, level="participant",
         log=_log(derivatives.root, name), index=INDEX, interactive=shown.interactive)  # fmt: skip
    return path


def group_page(derivatives: Derivatives, shown: Shown = NOTHING_SHOWN) -> Path:
    """Write the group's report from what is on disk.

    Parameters
    ----------
    derivatives : Derivatives
    shown : Shown
        What the page shows of the stimuli.

    Returns
    -------
    Path
        ``group.html``.
    """
    entries = _entries(derivatives, "group", shown)
    if any(entry.suffix == "relmat" for entry in entries):
        entries += _of_layers(derivatives)
    for folder in sorted(derivatives.root.glob("tpl-*")):
        entries += _entries(derivatives, folder.name)
    for folder in sorted(derivatives.root.glob("sub-*/")):
        entries += [entry for entry in _entries(derivatives, folder.name, arrays=False) if entry.suffix == "results"]
    path = derivatives.root / "group.html"
    page(entries, path, figures_dir=derivatives.root / "group" / "figures", title="Group", level="group",
         log=_log(derivatives.root, "group"), index=INDEX, interactive=shown.interactive)  # fmt: skip
    return path


def dnn_page(derivatives: Derivatives) -> Path:
    """Write the page of what probes found in the networks by themselves.

    Parameters
    ----------
    derivatives : Derivatives

    Returns
    -------
    Path
        ``dnn.html``.
    """
    path = derivatives.root / "dnn.html"
    page(_entries(derivatives, "stimuli", arrays=False), path, figures_dir=derivatives.root / "stimuli" / "figures",
         title="Networks", level="dnn", log=_log(derivatives.root, "dnn"), index=INDEX)  # fmt: skip
    return path


def _of_layers(derivatives: Derivatives) -> list[Entry]:
    """RDMs of networks' layers; what probes found has a page of its own."""
    return [entry for entry in _entries(derivatives, "stimuli") if entry.suffix == "relmat"]


def index_page(derivatives: Derivatives) -> Path:
    """Write ``index.html``, the page over everything that the output folder holds.

    Parameters
    ----------
    derivatives : Derivatives

    Returns
    -------
    Path
    """
    root = derivatives.root
    pages = [root / f"{name}.html" for name in TITLES]
    pages = [path for path in pages if path.exists()] + sorted(root.glob("sub-*.html"))
    described = read_json(root / "dataset_description.json")
    return write_index(
        root, name=str(described.get("Name") or root.name), reports=[_report(root, path) for path in pages],
        products=_products(root), runs=journal.runs(root),
    )  # fmt: skip


def _report(root: Path, path: Path) -> Report:
    name = path.stem
    log = _log(root, name)
    return Report(path, TITLES.get(name, name), log.started, log.errors[0] if log.errors else "")


def _products(root: Path) -> dict[str, list[tuple[Path, str]]]:
    """What is not of one participant: networks and stimuli, the group's tables and maps, and the records."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for title, folders in {
        "Stimuli and networks": ["stimuli"], "The group": ["group", *(p.name for p in sorted(root.glob("tpl-*")))],
    }.items():  # fmt: skip
        files = [path for folder in folders for path in sorted((root / folder).rglob("*"))]
        files = [path for path in files if path.is_file() and path.suffix != ".json" and "figures" not in path.parts]
        found[title] = [(path, _said(path)) for path in files if not path.name.startswith(".")]
    records = [
        root / "dataset_description.json",
        *sorted(root.glob("descriptions.*")),
        *sorted(root.glob("logs/CITATION.*")),
    ]
    found["Records"] = [(path, _RECORDS.get(path.name, "")) for path in records if path.exists()]
    return found


_RECORDS = {
    "dataset_description.json": "what this dataset is, and what made it", "descriptions.tsv": "what each desc- means",
    "CITATION.md": "what to cite", "CITATION.bib": "the same for BibTeX", "CITATION.tex": "the same for LaTeX",
}  # fmt: skip


def _said(path: Path) -> str:
    """What a file is: its sidecar's description, else what its name says."""
    said = read_json(sidecar_path(path)).get("Description")
    desc = names.entities_of(path).get("desc", "")
    return str(said) if isinstance(said, str) else DESCRIPTIONS.get(f"desc-{desc}", "")


def _entries(derivatives: Derivatives, below: str, shown: Shown = NOTHING_SHOWN, *, arrays: bool = True) -> list[Entry]:
    found = []
    for path, entities, suffix, sidecar in derivatives.entries(below=below, arrays=arrays):
        if sidecar.get("Anatomy"):
            sidecar["Anatomy"] = str(derivatives.resolve(sidecar["Anatomy"]))
        for key in ("Mesh", "InflatedMesh"):
            if key in sidecar:
                sidecar[key] = [str(derivatives.resolve(uri)) for uri in sidecar[key]]
        if "_items" in sidecar:
            sidecar |= {"_categories": shown.categories, "_pictures": shown.thumbnails(sidecar["_items"])}
        found.append(Entry(path, entities, suffix, sidecar))
    return found


def _log(root: Path, name: str) -> Log:
    folder = journal.latest(root, name)
    if folder is None:
        return Log("", "", "", "", None)
    recalled: dict[str, Any] = journal.recall(folder, name)
    recalled.pop("software")
    return Log(**recalled)
