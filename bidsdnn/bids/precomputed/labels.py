"""Which stimulus each row of a file of responses belongs to, from a table beside the file.

The one idea: the nearest table wins, the file's own first, and a table that does not have as many rows as the file
stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from bidsdnn.bids.dnnbrain import STIM, read_stim
from bidsdnn.bids.events import choose_stimulus_column, read_tsv
from bidsdnn.errors import DataError

K = TypeVar("K", Path, tuple[Path, str])

_OWN = ("", "_trials", "_ids", "_stimuli", "_labelfold", "_events", "_imgnames")
"""What may stand between a file's stem and the ending of its table."""

_FOLDER = ("trials", "ids", "stimuli", "labelfold", "imgnames", "stim_ids")
"""Names of a table that serves all files of its folder."""

_LABEL_COLUMNS = ("label", "labels", "stimulus_label", "stimulus label", "image_id", "nsd_id", "73k_id", "id")
_RUN_COLUMNS = ("run", "fold", "folds", "chunk", "chunks", "labelfold")
_SESSION_COLUMNS = ("ses", "session")


@dataclass(frozen=True, eq=False)
class Labels:
    """A table's rows.

    Parameters
    ----------
    path : Path
    ids, run, ses : tuple of str
        Of each row; run and session are empty text where the table has no such column.
    """

    path: Path
    ids: tuple[str, ...]
    run: tuple[str, ...]
    ses: tuple[str, ...]


def stem_of(path: Path) -> str:
    """A file's name without its ending."""
    return re.sub(
        r"(\.(nii|gz|hdf5|h5|roi|mat|npy|tsv|txt|gii|func|shape|dscalar|ptseries|dtseries|mgh|mgz))+$", "", path.name
    )


def table_beside(path: Path, files: Sequence[Path]) -> Path | None:
    """The table that names the rows of a file.

    Parameters
    ----------
    path : Path
        The file of responses.
    files : sequence of Path
        Where to look: all files of the participant.

    Returns
    -------
    Path or None
    """
    there = set(files) - {path}
    stem = stem_of(path)
    own = [path.with_name(f"{stem}{middle}{end}") for middle in _OWN for end in (".tsv", ".txt", STIM)]
    shared = [
        folder / f"{name}{end}"
        for folder in (path.parent, path.parent.parent)
        for name in _FOLDER
        for end in (".tsv", ".txt")
    ]
    found = next((one for one in [*own, *shared] if one in there), None)
    if found is not None:
        return found
    # As BOLD5000's: CSI1_imgnames.txt for CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz.
    named = [
        one
        for one in files
        if one.parent == path.parent
        and any(one.name.endswith(f"{name}{end}") for name in _FOLDER for end in (".tsv", ".txt"))
        and stem_of(one).split("_")[0] == stem.split("_")[0]
    ]
    named = named or [one for one in files if one.parent == path.parent and one.name.endswith(STIM)]
    return named[0] if len(named) == 1 else None


def read_labels(path: Path, *, asked: str | None = None, gaps: bool = False) -> Labels:
    """Read a table of stimuli.

    Parameters
    ----------
    path : Path
        A TSV with a header, a text file of one identifier a line, or DNNBrain's ``.stim.csv``.
    asked : str, optional
        The column that names stimuli, from ``--stimulus-column``.
    gaps : bool
        Whether rows may be without a stimulus, as volumes of rest are; their identifier is empty text.

    Returns
    -------
    Labels

    Raises
    ------
    DataError
        If no column names stimuli, or a row has none.
    """
    if path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        ids = tuple(line.strip() for line in lines if line.strip())
        return Labels(path, ids, ("",) * len(ids), ("",) * len(ids))
    if path.name.endswith(STIM):
        stim = read_stim(path)
        # All of its columns but three are floats, runs too.
        texts = stim.table.map(lambda value: str(value).removesuffix(".0"))
        return Labels(path, tuple(stim.ids), _column(texts, _RUN_COLUMNS), _column(texts, _SESSION_COLUMNS))
    table = read_tsv(path)
    column = asked if asked in table else next((name for name in _LABEL_COLUMNS if name in table), None)
    if column is None or (asked is not None and asked not in table):
        try:
            column = choose_stimulus_column([table], asked=asked)
        except DataError as error:
            raise DataError(f"{path}: {str(error).removeprefix('events: ')}") from error
    known = [name for name in ("stim_id", "stim_file") if name in table] if asked is None else []
    column = known[0] if known else column
    if table[column].isna().any() and not gaps:
        row = int(table[column].isna().to_numpy().argmax())
        raise DataError(f"{path}: row {row + 1} has no {column}; name the stimulus of every row")
    return Labels(
        path, tuple(table[column].fillna("").map(str)), _column(table, _RUN_COLUMNS), _column(table, _SESSION_COLUMNS)
    )


def _column(table: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    name = next((one for one in names if one in table), None)
    return ("",) * len(table) if name is None else tuple(table[name].fillna("").map(str))


def share_out(labels: Labels, counts: Mapping[K, int]) -> dict[K, Labels]:
    """Give each of the files that a table serves its rows.

    Parameters
    ----------
    labels : Labels
    counts : mapping of Path, or of Path and a name in it, to int
        Number of responses in each, in the order of the table's rows.

    Returns
    -------
    dict of the same to Labels

    Raises
    ------
    DataError
        If the table has another number of rows than the files have maps.
    """
    total = sum(counts.values())
    if len(labels.ids) != total:
        first = next(iter(counts))
        name = first.name if isinstance(first, Path) else f"{first[0].name} {first[1]}".strip()
        files = name if len(counts) == 1 else f"{len(counts)} files or runs, {name} first"
        raise DataError(
            f"{labels.path}: {len(labels.ids)} stimuli for {total} responses in {files}; give one row a response"
        )
    shared, start = {}, 0
    for path, count in counts.items():
        rows = slice(start, start + count)
        shared[path] = Labels(labels.path, labels.ids[rows], labels.run[rows], labels.ses[rows])
        start += count
    return shared
