"""Events tables: how they are read, which column names the stimuli, and what was presented.

Identifiers are text and stay text: ``3626115.019498`` is a name, ``NA`` may be a condition, only ``n/a`` is
missing.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.filters import EventFilter
from bidsdnn.bids.names import require
from bidsdnn.bids.stimulus_index import Resolution, StimulusIndex, modality
from bidsdnn.errors import ConfigError, DataError, MissingInputError

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


@dataclass(frozen=True)
class Presented:
    """What was shown in the runs of a dataset.

    Parameters
    ----------
    events : dict of Path to DataFrame
        For each events file, its table with two columns more: ``trial``, whether the row presents a stimulus
        of interest, and ``stimulus_id``, which one (None in other rows).
    stimuli : DataFrame
        One row per stimulus, sorted: ``stimulus_id``, ``filename`` (relative to the stimuli folder, None
        where there is no file), ``modality``, ``sha256`` (empty), ``n_presentations``, ``present``.
    missing : list of str
        Stimuli that no file was found for, sorted.
    datalad : list of str
        Stimuli whose file is a DataLad link without content, sorted.
    """

    events: dict[Path, pd.DataFrame]
    stimuli: pd.DataFrame
    missing: list[str]
    datalad: list[str]


def presented(
    paths: Sequence[Path],
    *,
    index: StimulusIndex,
    column: str,
    keep: EventFilter | Callable[[pd.DataFrame], np.ndarray] | None = None,
) -> Presented:
    """Find which stimuli the events of some runs present.

    Parameters
    ----------
    paths : sequence of Path
        The events file of each run; a file that several runs share stands there, and counts, several times.
    index : StimulusIndex
        The stimuli folder.
    column : str
        From `choose_stimulus_column`. Values that are no files, as categories are, are their own identifiers.
    keep : callable, optional
        From `filters.event_filter`: which rows are of interest. Columns that only some tables have are
        missing in the others.

    Returns
    -------
    Presented

    Raises
    ------
    MissingInputError
        If there is no events file.
    DataError
        If no row is of interest, a value leaves the stimuli folder, or two values mean one file.
    ConfigError
        If the filter asks about a column that no table has.
    """
    if not paths:
        raise MissingInputError("no events.tsv file for the asked sessions, tasks and runs; add them")
    shared = Counter(paths)
    tables = {path: read_events(path) for path in shared}
    wanted = getattr(keep, "columns", ())
    _check_columns(wanted, tables.values())
    known: dict[str, Resolution] = {}
    counts: Counter[str] = Counter()
    for path, table in tables.items():
        table["trial"], table["stimulus_id"] = _trials(table, column, wanted, keep, index, known)
        for stimulus in table.loc[table["trial"], "stimulus_id"]:
            counts[stimulus] += shared[path]
        if not table["trial"].any():
            logger.warning("%s: no row presents a stimulus of interest (column %s)", path, column)
    if not counts:
        kept = f" that passes --event-filter {getattr(keep, 'text', '')!r}" if keep else ""
        raise DataError(
            f"{paths[0]}: in {len(tables)} events files no row has a {column}{kept}; "
            "see --stimulus-column and --event-filter"
        )
    _check_readings(known, index)
    by_id = {found.stimulus_id: found for found in known.values()}
    result = _collect({name: by_id[name] for name in sorted(counts)}, counts, tables, index)
    logger.info(
        "%d trials of %d stimuli in %d events files; %d stimuli without file, %d to get by datalad",
        counts.total(), len(counts), len(tables), len(result.missing), len(result.datalad),
    )  # fmt: skip
    return result


def _check_columns(wanted: Sequence[str], tables: Iterable[pd.DataFrame]) -> None:
    there = dict.fromkeys(str(column) for table in tables for column in table.columns)
    for column in wanted:
        if column not in there:
            raise ConfigError(f"--event-filter: no column {column!r}; the events have {', '.join(there)}")


def _trials(
    table: pd.DataFrame,
    column: str,
    wanted: Sequence[str],
    keep: Callable[[pd.DataFrame], np.ndarray] | None,
    index: StimulusIndex,
    known: dict[str, Resolution],
) -> tuple[np.ndarray, pd.Series]:
    """Which rows are trials, and each one's stimulus; `known` gathers the values that were looked up."""
    empty = pd.Series([None] * len(table), index=table.index, dtype=object)
    values = table.get(column, empty)
    trial = values.notna().to_numpy(dtype=bool)
    if keep is not None:
        trial = trial & keep(table.assign(**{name: empty for name in wanted if name not in table}))
    stimuli: list[str | None] = [None] * len(table)
    for row in np.flatnonzero(trial):
        value = str(values.iloc[row])
        if value not in known:
            known[value] = index.resolve(value)
        stimuli[row] = known[value].stimulus_id
    return trial, pd.Series(stimuli, index=table.index, dtype=object)


def _check_readings(known: dict[str, Resolution], index: StimulusIndex) -> None:
    """Tell of files found in another folder than their value says; two values must not meet in one file."""
    spellings: dict[str, list[str]] = {}
    for value, found in known.items():
        spellings.setdefault(found.stimulus_id, []).append(value)
    moved = [v for v, found in known.items() if found.path is not None and not _agree(v, found.stimulus_id)]
    for value in moved:
        others = [other for other in spellings[known[value].stimulus_id] if other != value]
        if others:
            raise DataError(
                f"{index.root}: stimuli {value!r} and {others[0]!r} both mean {known[value].stimulus_id}; "
                "give a stimuli folder that holds both with --stimuli-dir"
            )
    if moved:
        logger.warning("%d stimuli were found by file name in another folder, as %s at %s",
                       len(moved), moved[0], known[moved[0]].stimulus_id)  # fmt: skip


def _agree(value: str, filename: str) -> bool:
    """Whether a value's folders end as the file's do, or the other way round; none agrees with any."""
    one, other = ["/" + v.replace("\\", "/").lower().rpartition("/")[0].strip("/") for v in (value, filename)]
    return one == "/" or one.endswith(other) or other.endswith(one) or other == "/"


def _collect(
    found: dict[str, Resolution], counts: Counter[str], tables: dict[Path, pd.DataFrame], index: StimulusIndex
) -> Presented:
    table = pd.DataFrame(
        {
            "stimulus_id": pd.Series(list(found), dtype=object),
            "filename": pd.Series([n if f.path is not None else None for n, f in found.items()], dtype=object),
            "modality": [modality(name) for name in found],
            "sha256": "",
            "n_presentations": [counts[name] for name in found],
            "present": [f.status == "found" for f in found.values()],
        }
    )
    missing = [name for name, f in found.items() if f.status == "missing"]
    datalad = [name for name, f in found.items() if f.status == "datalad"]
    return Presented(tables, table, missing, datalad)


def require_files(found: Presented, *, root: Path) -> None:
    """Check that a network can be shown what the participants were shown.

    Parameters
    ----------
    found : Presented
    root : Path
        The stimuli folder.

    Raises
    ------
    MissingInputError
        If a stimulus has no file, or a DataLad link without content; counts them and names five.
    """
    if found.datalad:
        raise MissingInputError(
            f"{root}: {len(found.datalad)} stimuli have no content here ({_first(found.datalad)}); "
            "run `datalad get stimuli` in the dataset"
        )
    if found.missing:
        raise MissingInputError(
            f"{root}: {len(found.missing)} of {len(found.stimuli)} stimuli are not there ({_first(found.missing)}); "
            "give their folder with --stimuli-dir, their column with --stimulus-column, "
            "or leave their events out with --event-filter"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
