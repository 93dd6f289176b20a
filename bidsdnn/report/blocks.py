"""What a page is put together from: headings, sentences, figures, tables, notes.

The template shows each block by its `kind`; nothing here knows of HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bidsdnn.errors import DatasetError
from bidsdnn.report.drawing import Figure
from bidsdnn.report.entries import TEXT_COLUMNS
from bidsdnn.report.findings import Sentences, number

MAX_ROWS = 2000
# Scores between -1 and 1 are written without a leading zero.
_SCORES = frozenset({
    "pearsonr", "pearsonr_normalized", "ceiling", "max_trial_r", "pearsonr_folds_sem", "r2", "p", "q", "sem",
    "explained_variance", "p_top1", "share",
    "confidence", "chosen", "voxels", "depth", "depth_se", "profile", "hierarchy_score", "hierarchy_se",
    "pearsonr_voxelwise", "first_pearsonr", "second_pearsonr", "prediction", "ceiling_sd",
    "similarity", "reliability", "difference", "se", "p_fwe", "peak", "peak_p", "peak_pfwe",
    "prevalence", "prevalence_low", "prevalence_high", "estimate",
    "accuracy", "balanced_accuracy", "auc", "chance", "null_95", "top1", "rank", "chance_top1",
})  # fmt: skip
_SCORE_KINDS = ("ceiling_", "se_", "ci_", "p_")
_NAMES = {
    "n_voxels": "voxels", "n_voxels_low_ceiling": "voxels with a ceiling below .1", "pearsonr": "mean r",
    "ceiling": "mean ceiling", "ceiling_sd": "sd of the ceiling", "pearsonr_voxelwise": "mean r, layer by voxel",
    "confidence": "share of samples won", "chosen": "share of folds", "voxels": "share of voxels",
    "n_voxels_clear": "voxels with clear r", "depth_se": "se of depth", "profile": "rank correlation with depth",
    "hierarchy_score": "brain hierarchy score", "hierarchy_se": "se of the score",
    "first_pearsonr": "mean r of the first", "second_pearsonr": "mean r of the second",
    "pearsonr_normalized": "r over ceiling", "max_trial_r": "highest r of trials",
    "n_volumes_left_out": "volumes left out", "n_overlapping": "overlapping trials", "n_confounds": "confounds",
    "pearsonr_folds_sem": "sem of r over folds", "r2": "mean R²",
    "top1": "share identified", "chance_top1": "chance", "p_top1": "p of the share", "rank": "mean rank",
    "peak_memory": "peak memory (MB)", "size": "size (kB)",
    "p_smallest": "smallest p", "prevalence_low": "prevalence, low end", "prevalence_high": "prevalence, high end",
    "n_participants": "participants", "n_volumes": "volumes", "tr": "TR (s)", "n_trials": "trials",
    "n_dropped": "trials dropped", "n_stimuli": "stimuli", "n_nuisance_events": "nuisance events",
    "mean_fd": "mean FD (mm)", "max_fd": "max FD (mm)", "tsnr": "tSNR", "n_voxels_constant": "constant voxels",
    "n_repeats": "repeats", "n_items": "held-out items", "n_classes": "classes",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC", "null_95": "95 % of the null", "n_significant": "significant centres", "peak_p": "p of the peak",
    "peak_pfwe": "family-wise p of the peak", "sub": "participant", "p_fwe": "p (family-wise)",
    "p_zero": "p against 0 (bootstrap)", "p_zero_fwe": "the same, family-wise",
    "p_ceiling": "p against the ceiling (bootstrap)", "p_ceiling_fwe": "the same, family-wise ",
}  # fmt: skip


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Notes:
    """Short statements under one title; `tone` is ``plain``, ``warning`` or ``error``."""

    title: str
    items: tuple[str, ...]
    tone: str = "plain"
    kind: str = "notes"


@dataclass(frozen=True)
class Table:
    """A table of formatted cells; the second text of a cell is what it is sorted by, `links` where first cells lead."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]
    note: str = ""
    folded: bool = True
    links: tuple[str, ...] = ()
    kind: str = "table"


@dataclass(frozen=True)
class Code:
    """Text as it was typed or written, folded away if asked."""

    title: str
    text: str
    folded: bool = True
    kind: str = "code"


@dataclass(frozen=True)
class Legend:
    """Which colour and which marker belongs to which name."""

    items: tuple[tuple[str, str, str], ...]
    kind: str = "legend"


@dataclass(frozen=True)
class Methods:
    """Paragraphs to paste, the works they cite, and versions by software."""

    paragraphs: tuple[tuple[str, tuple[str, ...]], ...]
    references: tuple[tuple[str, str], ...]
    software: tuple[tuple[str, str], ...]
    kind: str = "methods"


@dataclass(frozen=True)
class View:
    """A page of its own beside the report: the file's name, what it shows, and its content."""

    name: str
    text: str
    html: str


@dataclass(frozen=True)
class Views:
    """Pages beside the report, under one title."""

    title: str
    pages: tuple[View, ...]
    kind: str = "views"


Block = Heading | Views | Notes | Table | Code | Legend | Methods | Sentences | Figure


@dataclass(frozen=True)
class Section:
    """Blocks under one heading with an anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


def attempt(make: Callable[[], list[Block]], what: str, problems: list[str]) -> list[Block]:
    """Make blocks; a file that cannot be shown costs its blocks and a warning, never the page.

    Parameters
    ----------
    make : callable
        Returns blocks.
    what : str
        Named in the warning.
    problems : list of str
        The warning is added here.

    Returns
    -------
    list of Block
    """
    try:
        return make()
    except (DatasetError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problems.append(f"{what} not shown: {reason}")
        return []


def data_table(
    table: pd.DataFrame, title: str, *, note: str = "", folded: bool = True, links: tuple[str, ...] = ()
) -> Table:
    """Format a table for reading; its raw numbers stay behind the cells for sorting.

    Parameters
    ----------
    table : DataFrame
    title : str
    note : str
        Under the table.
    folded : bool
        Whether the reader has to open it.
    links : tuple of str
        Address of each row's first cell, empty for none.

    Returns
    -------
    Table
        At most `MAX_ROWS` rows, and a note that says so.
    """
    shown = table.head(MAX_ROWS)
    if "sub" in shown:
        others = shown.drop(columns="sub")
        shown = others if shown["sub"].nunique() < 2 else pd.concat([shown["sub"], others], axis=1)
    columns = [str(name) for name in shown]
    numeric = tuple(name not in TEXT_COLUMNS for name in columns)
    cells = [[_cell(value, name) for value in shown[name]] for name in columns]
    if len(table) > MAX_ROWS:
        note = f"{note} The first {MAX_ROWS:,} of {len(table):,} rows; all are in the file.".strip()
    titles = tuple(_NAMES.get(name, name.replace("_", " ")) for name in columns)
    return Table(title, titles, numeric, tuple(zip(*cells, strict=True)), note, folded, links)


def _cell(value: object, column: str) -> tuple[str, str]:
    """Text of a cell, and what it sorts by."""
    if not isinstance(value, (int, float, np.number)):
        return str(value), str(value)
    value = float(value)
    if not np.isfinite(value):
        return "n/a", ""
    if column in _SCORES or column.startswith(_SCORE_KINDS):
        return number(value, 3), repr(value)
    text = f"{value:,.0f}" if value.is_integer() else f"{value:.3g}" if abs(value) < 100 else f"{value:,.1f}"
    return text.replace("-", "−"), repr(value)
