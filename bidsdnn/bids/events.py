"""Events tables: how they are read, which column names the stimuli, and what was presented.

Identifiers are text and stay text: ``3626115.019498`` is a name, ``NA`` may be a condition, only ``n/a`` is
missing.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.names import require
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.config_tables import EventEdits
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.lookup import closest

logger = logging.getLogger(__name__)

MISSING = ("n/a", "")
STIMULUS_COLUMNS = ("stim_id", "stim_file")
# Seen in public datasets, most telling first.
KNOWN_COLUMNS = (
    "file_path", "ImgName", "stimulus_name", "stimulus_id", "stimulus", "stim", "stimname", "image",
    "image_name", "filename", "condition",
)  # fmt: skip
CATEGORY_COLUMN = "trial_type"


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a table as text.

    Parameters
    ----------
    path : Path
        A tab-separated file in UTF-8, with or without byte-order mark.

    Returns
    -------
    DataFrame of object
        Text as written, None where the file says ``n/a`` or nothing.

    Raises
    ------
    MissingInputError
        If the file is not there, or is a DataLad link whose content is not there.
    DataError
        If it is not UTF-8 or no table.
    """
    require(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                (reader.line_num, row) for reader in [csv.reader(file, delimiter="\t", strict=True)] for row in reader
            ]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the table as UTF-8 text") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a table ({error}); replace the file") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise DataError(f"{path}: the file is empty; restore it, or leave out its run")
    header = rows[0][1]
    while header and not header[-1]:
        header = header[:-1]
    if "" in header or len(set(header)) < len(header):
        raise DataError(f"{path}: the header {header} names a column twice or not at all; mend it")
    body = [_fit(row, len(header), path=path, line=line) for line, row in rows[1:]]
    return pd.DataFrame(body, columns=header, dtype=object)


def _fit(row: list[str], width: int, *, path: Path, line: int) -> list[str | None]:
    """A row as wide as the header; empty cells at the end may be missing or in excess."""
    if any(row[width:]):
        raise DataError(f"{path}: line {line} has {len(row)} cells under {width} columns; mend the line")
    padded = [*row[:width], *[""] * (width - len(row))]
    return [None if cell in MISSING else cell for cell in padded]


def read_events(path: Path) -> pd.DataFrame:
    """Read an events table, in the order of the onsets.

    Parameters
    ----------
    path : Path
        An ``events.tsv`` file.

    Returns
    -------
    DataFrame
        ``onset`` and ``duration`` in seconds as numbers, all else as text. Rows without onset are dropped and
        counted in ``attrs["n_without_onset"]``; durations that are missing are 0, an impulse, and counted in
        ``attrs["n_without_duration"]``.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If a column is missing, or a value is no number; names the row.
    """
    table = read_tsv(path)
    for column in ("onset", "duration"):
        if column not in table:
            raise DataError(f"{path}: no column {column!r} among {', '.join(table.columns)}; add it, in seconds")
        table[column] = _seconds(table[column], path=path)
    known = table["onset"].notna()
    without_duration = int(table.loc[known, "duration"].isna().sum())
    events = table[known].sort_values("onset", kind="stable", ignore_index=True)
    events["duration"] = events["duration"].fillna(0.0)
    if len(events) and events["duration"].min() < 0:
        raise DataError(f"{path}: duration {events['duration'].min():g} is negative; write it in seconds, or n/a")
    events.attrs = {"n_without_onset": int((~known).sum()), "n_without_duration": without_duration}
    return events


def _seconds(column: pd.Series, *, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = (numbers.isna() & column.notna()) | np.isinf(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{path}: {column.name} {column.iloc[row]!r} in row {row + 1} is no number of seconds; mend it")
    return numbers


def choose_stimulus_column(
    tables: Iterable[pd.DataFrame], index: StimulusIndex | None = None, *, asked: str | None = None
) -> str:
    """Choose the one column that names the stimuli in all events of a dataset.

    The column that was asked for; else ``stim_id``, ``stim_file``, and the names that known datasets use;
    else ``trial_type``. A column that is empty throughout is passed over, and so is one of whose values none
    is a file of the stimuli folder, where another's are.

    Parameters
    ----------
    tables : iterable of DataFrame
        Events of all runs.
    index : StimulusIndex, optional
        The stimuli folder.
    asked : str, optional
        Name from ``--stimulus-column``.

    Returns
    -------
    str

    Raises
    ------
    DataError
        If no column can be used; lists the columns there are.
    """
    values: dict[str, set[str]] = {}
    for table in tables:
        for column in table.columns:
            values.setdefault(str(column), set()).update(table[column].dropna().map(str))
    found = ", ".join(values) or "none"
    if asked is not None:
        if not values.get(asked):
            fault = "is empty" if asked in values else "does not exist"
            raise DataError(f"events: --stimulus-column {asked!r} {fault}; the events have the columns {found}")
        return asked
    usable = [c for c in (*STIMULUS_COLUMNS, *KNOWN_COLUMNS) if values.get(c)]
    if not usable and values.get(CATEGORY_COLUMN):
        usable = [CATEGORY_COLUMN]
    if not usable:
        raise DataError(f"events: no column names the stimuli; choose one of {found} with --stimulus-column")
    chosen = next((c for c in usable if _any_file(values[c], index)), usable[0])
    logger.info("stimulus column %s, chosen among %s", chosen, ", ".join(usable))
    return chosen


def _any_file(values: Iterable[str], index: StimulusIndex | None) -> bool:
    return index is not None and len(index) > 0 and any(_is_file(value, index) for value in sorted(values))


def _is_file(value: str, index: StimulusIndex) -> bool:
    try:
        return index.resolve(value).status != "missing"
    except DataError:
        # While columns are compared this only speaks against the column; `presented` raises it for the chosen
        # one.
        return False


def read_id_map(path: Path) -> dict[str, str]:
    """Read which file each id of the events means.

    Parameters
    ----------
    path : Path
        A table with the columns ``id`` and ``filename``.

    Returns
    -------
    dict of str to str
        Ids as they are written; paths relative to the stimuli folder.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If a column or a value is missing, or one id has two files.
    """
    table = read_tsv(path)
    for column in ("id", "filename"):
        if column not in table:
            raise DataError(f"--stimulus-id-map {path}: no column {column!r} among {', '.join(table.columns)}; add it")
        if table[column].isna().any():
            row = int(np.flatnonzero(table[column].isna())[0]) + 1
            raise DataError(f"--stimulus-id-map {path}: no {column} in row {row}; add it, or delete the row")
    distinct = table[["id", "filename"]].drop_duplicates()
    twice = distinct.loc[distinct["id"].duplicated(), "id"]
    if len(twice):
        raise DataError(f"--stimulus-id-map {path}: id {twice.iloc[0]!r} has two files; leave one")
    return dict(zip(distinct["id"], distinct["filename"], strict=True))


def edit_events(tables: Mapping[Path, pd.DataFrame], edits: EventEdits) -> dict[Path, pd.DataFrame]:
    """Split, rename and merge the names in one column of the events, in this order.

    Parameters
    ----------
    tables : mapping of Path to DataFrame
        All events of a dataset, of `read_events`.
    edits : EventEdits
        From the TOML file's ``[events]``.

    Returns
    -------
    dict of Path to DataFrame
        Tables that lack the column are as they were.

    Raises
    ------
    ConfigError
        If no table has the column, or a name that is to be changed.
    """
    tables = dict(tables)
    columns = {str(column) for table in tables.values() for column in table.columns}
    for wanted in (edits.column, *edits.split.values()) if edits.split or edits.rename or edits.merge else ():
        if wanted not in columns:
            raise ConfigError(f"events: no column {wanted!r}; the events have {', '.join(sorted(columns))}")
    _check_names(tables, edits.column, edits.split, "split")
    tables = {path: _split(table, edits) if edits.column in table else table for path, table in tables.items()}
    _check_names(tables, edits.column, edits.rename, "rename")
    tables = _renamed(tables, edits.column, edits.rename)
    merged = {old: new for new, olds in edits.merge.items() for old in olds}
    _check_names(tables, edits.column, merged, "merge")
    return _renamed(tables, edits.column, merged)


def _split(table: pd.DataFrame, edits: EventEdits) -> pd.DataFrame:
    names = table[edits.column].copy()
    for name, by in edits.split.items():
        rows = (table[edits.column] == name) & table.get(by, pd.Series(index=table.index, dtype=object)).notna()
        if rows.any():
            names[rows] = [f"{name}_{value}" for value in table.loc[rows, by]]
    return _with(table, edits.column, names)


def _renamed(tables: Mapping[Path, pd.DataFrame], column: str, names: Mapping[str, str]) -> dict[Path, pd.DataFrame]:
    return {
        path: _with(table, column, table[column].map(lambda name: names.get(name, name))) if column in table else table
        for path, table in tables.items()
    }


def _with(table: pd.DataFrame, column: str, values: pd.Series) -> pd.DataFrame:
    changed = table.assign(**{column: values.astype(object).where(values.notna(), None)})
    changed.attrs = dict(table.attrs)
    return changed


def _check_names(tables: Mapping[Path, pd.DataFrame], column: str, names: Iterable[str], step: str) -> None:
    there = {str(name) for table in tables.values() if column in table for name in table[column].dropna()}
    for name in names:
        if name not in there:
            raise ConfigError(f"events.{step}: no event has the {column} {name!r}; {closest(name, there)}")
