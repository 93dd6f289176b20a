"""Behaviour and categories: a column of the events, of stimuli.tsv, or of a table that the user gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bidsdnn.bids.events import read_tsv
from bidsdnn.bids.names import require
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.errors import DataError
from bidsdnn.lookup import closest

ID_COLUMNS = ("stimulus_id", "stim_id", "stim_file", "stimulus", "filename")
PERSON_COLUMNS = ("participant_id", "participant", "sub")
MANIFEST = "stimuli.tsv"


def read_columns(
    asked: Mapping[str, Path | None], *, index: StimulusIndex, events: Sequence[pd.DataFrame] = (), sub: str = "",
    flag: str = "--rdm-column ",
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Find the columns of ``--rdm-column``, or of another flag.

    Parameters
    ----------
    asked : mapping of str to Path or None
        Names of columns, and the tables they are in; None looks into the events, then into ``stimuli.tsv``.
    index : StimulusIndex
        The stimuli folder, which says what a value of a table means.
    events : sequence of DataFrame
        Of a participant's runs, with ``trial`` and ``stimulus_id``.
    sub : str
        The participant, whose rows alone count in a table that names participants.
    flag : str
        What a column's name follows on the command line, for the errors.

    Returns
    -------
    dict of str to DataFrame
        With ``stimulus_id`` and ``value``, text or None; a stimulus may have several rows.

    Raises
    ------
    DataError
        If a column is in none of the tables, or a table names no stimuli or none of the participant.
    """
    return {name: _read(name, path, index, events, sub, flag) for name, path in asked.items()}


def _read(
    name: str, path: Path | None, index: StimulusIndex, events: Sequence[pd.DataFrame], sub: str, flag: str
) -> pd.DataFrame:
    if path is not None:
        return _from_table(name, path, index, sub, flag)
    shown = [table[table["trial"].astype(bool)] for table in events]
    found = [
        pd.DataFrame({"stimulus_id": table["stimulus_id"], "value": table[name]}) for table in shown if name in table
    ]
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame({"stimulus_id": [], "value": []})
    if rows["value"].notna().any():
        # Onsets and durations were read as numbers.
        return rows.assign(value=rows["value"].map(str, na_action="ignore"))
    manifest = index.root / MANIFEST
    known = _names(shown)
    if manifest.is_file():
        table = read_tsv(manifest)
        if name in table:
            return _from_table(name, manifest, index, sub, flag)
        known |= set(table.columns)
    raise DataError(
        f"{flag}{name}: in no events file and not in {manifest}; {closest(name, sorted(known))}; "
        f"or write {name}=FILE.tsv"
    )


def _names(tables: Iterable[pd.DataFrame]) -> set[str]:
    return {str(column) for table in tables for column in table.columns} - {"trial", "stimulus_id"}


def _from_table(name: str, path: Path, index: StimulusIndex, sub: str, flag: str) -> pd.DataFrame:
    table = check_table(name, path, flag=flag)
    person = next((column for column in PERSON_COLUMNS if column in table), None)
    if person is not None and sub:
        table = table[table[person].map(lambda value: str(value).removeprefix("sub-")) == sub]
        if not len(table):
            raise DataError(f"{flag}{name}: {path} has no row of sub-{sub}; add them, or leave it out")
    ids = table[next(column for column in ID_COLUMNS if column in table)]
    named = ids.notna()
    meant = [index.resolve(str(value)).stimulus_id for value in ids[named]]
    return pd.DataFrame({"stimulus_id": meant, "value": table.loc[named, name].to_numpy()})


def check_table(name: str, path: Path, *, flag: str = "--rdm-column ") -> pd.DataFrame:
    """Read a table and check that it has a column, and one that names the stimuli.

    Parameters
    ----------
    name : str
    path : Path
    flag : str
        What the name follows on the command line, for the errors.

    Returns
    -------
    DataFrame

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If a column is lacking.
    """
    require(path)
    table = read_tsv(path)
    if name not in table:
        raise DataError(f"{flag}{name}={path}: no such column; {closest(name, table.columns)}")
    if not any(column in table for column in ID_COLUMNS):
        raise DataError(f"{flag}{name}={path}: no column names the stimuli; call one {ID_COLUMNS[0]}")
    return table
