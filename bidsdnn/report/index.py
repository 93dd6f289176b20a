"""The page over a whole output folder: its reports, what is in it, and the runs that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from bidsdnn.report.blocks import Block, Code, Notes, Section, data_table
from bidsdnn.report.findings import Sentences, count
from bidsdnn.report.page import write_page
from bidsdnn.report.quality import duration


@dataclass(frozen=True)
class Report:
    """One report of the folder.

    Parameters
    ----------
    path : Path
    title : str
        As ``sub-01`` or ``Group``.
    started : str
        When the run began that it tells of.
    error : str
        Why it did not finish, empty if it did.
    """

    path: Path
    title: str
    started: str = ""
    error: str = ""


def address(path: Path, root: Path) -> str:
    """Where a link leads, from the folder's own page; any character of a name stays a part of the name."""
    return quote(path.relative_to(root).as_posix())


def write_index(
    root: Path, *, name: str, reports: Sequence[Report], products: dict[str, list[tuple[Path, str]]],
    runs: Sequence[dict[str, Any]],
) -> Path:  # fmt: skip
    """Write ``index.html``.

    Parameters
    ----------
    root : Path
        The output folder.
    name : str
        Of the dataset.
    reports : sequence of Report
        Those of participants have paths that begin with ``sub-``.
    products : dict of str to list of (Path, str)
        By title of a table, files and what they are.
    runs : sequence of dict
        As `bidsdnn.journal.runs` returns them.

    Returns
    -------
    Path
    """
    people = [one for one in reports if one.path.name.startswith("sub-")]
    failed = [one for one in reports if one.error]
    sections = [
        Section("reports", "Reports", tuple(_reports(root, reports, people, failed))),
        Section("files", "Files", tuple(_products(root, products))),
        Section("log", "Runs", tuple(_runs(root, runs))),
    ]
    facts = [("Participants", f"{len(people):,}"), ("Runs", f"{len(runs):,}")]
    facts += [("Last run", str(runs[-1].get("Started", "")).replace("T", " "))] if runs else []
    alert = f"{', '.join(one.title for one in failed)} did not finish." if failed else ""
    path = root / "index.html"
    write_page(sections, path, title=name, kicker="all reports", facts=facts, alert=alert)
    return path


def _reports(root: Path, reports: Sequence[Report], people: Sequence[Report], failed: Sequence[Report]) -> list[Block]:
    """A sentence, and every report with its state; the group's, of which there is one, before the participants'."""
    if not reports:
        return [Notes("", ("No report was written yet: the levels `participant` and `group` write them.",))]
    first = [one for one in reports if one not in people]
    parts = [Markup('<a href="{}">{}</a>').format(address(one.path, root), one.title) for one in first]
    parts.append(Markup("{}").format(count(len(people), "participant")))
    done = "all of them finished" if not failed else f"{len(failed)} did not finish"
    lead = Markup(" · ").join(parts) + Markup("; {}.").format(done)
    listed = [*failed, *(one for one in [*first, *people] if not one.error)]
    table = pd.DataFrame(
        [(one.title, "did not finish" if one.error else "finished", one.started.replace("T", " "), one.error)
         for one in listed], columns=["report", "state", "started", "reason"],
    )  # fmt: skip
    table = table if failed else table.drop(columns="reason")
    links = tuple(address(one.path, root) for one in listed)
    return [Sentences(lead, ()), data_table(table, "Every report", folded=False, links=links)]


def _products(root: Path, products: dict[str, list[tuple[Path, str]]]) -> list[Block]:
    """Files by kind, each with its size and what it is."""
    blocks: list[Block] = []
    for title, files in products.items():
        if files:
            rows = [(path.relative_to(root).as_posix(), said, path.stat().st_size / 1e3) for path, said in files]
            table = pd.DataFrame(rows, columns=["file", "description", "size"])
            links = tuple(address(path, root) for path, _ in files)
            blocks.append(data_table(table, title, folded=len(files) > 12, links=links))
    return blocks or [Notes("", ("Nothing was written yet.",))]


def _runs(root: Path, runs: Sequence[dict[str, Any]]) -> list[Block]:
    """Every run, the last one first, and the last one's command."""
    if not runs:
        return [Notes("", ("No run is on record.",))]
    rows = [
        (run["Run"], str(run.get("Started", "")).replace("T", " "),
         ", ".join(run["Failed"]) + " failed" if run["Failed"] else "finished" if "Seconds" in run else "not finished",
         run.get("Seconds", float("nan")), run.get("PeakMemoryMB", float("nan")), run.get("Command", ""))
        for run in reversed(runs)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["run", "started", "state", "seconds", "peak_memory", "command"])
    links = tuple(address(root / "logs" / run["Run"] / "bidsdnn.log", root) for run in reversed(runs))
    took = runs[-1].get("Seconds")
    last = f"The last run's command, which took {duration(took)}" if took is not None else "The last run's command"
    command = str(runs[-1].get("Command", ""))
    return [data_table(table, "Every run", folded=False, links=links), Code(last, command, folded=False)]
