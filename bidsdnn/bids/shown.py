"""What was shown: which rows of the events are trials, and which stimulus each presents."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from bidsdnn.bids.events import read_events
from bidsdnn.bids.filters import EventFilter
from bidsdnn.bids.stimulus_index import Resolution, StimulusIndex
from bidsdnn.errors import ConfigError, DataError, MissingInputError

logger = logging.getLogger(__name__)

# Written where a stimulus is named, these say that there was none, unless a file has that name.
NO_STIMULUS = {"blank", "fixation", "fix", "rest", "baseline", "iti", "isi", "null"}


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
    skipped : tuple of str
        Stimuli that were left out because they could not be read.
    """

    events: dict[Path, pd.DataFrame]
    stimuli: pd.DataFrame
    missing: list[str]
    datalad: list[str]
    skipped: tuple[str, ...] = ()


def presented(
    paths: Sequence[Path],
    *,
    index: StimulusIndex,
    column: str,
    keep: EventFilter | Callable[[pd.DataFrame], np.ndarray] | None = None,
    tables: Mapping[Path, pd.DataFrame] | None = None,
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
    tables : mapping of Path to DataFrame, optional
        The events, where they were read before.

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
    tables = {path: read_events(path) if tables is None else tables[path].copy() for path in shared}
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
    blank = sorted({value for value, found in known.items() if _no_stimulus(value, found)})
    if blank:
        logger.warning("%s: %s is no stimulus; its rows are modelled and not scored", paths[0], ", ".join(blank))
    by_id = {found.stimulus_id: found for found in known.values()}
    result = _collect({name: by_id[name] for name in sorted(counts)}, counts, tables, index)
    logger.info(
        "%d trials of %d stimuli in %d events files; %d stimuli without file, %d to get by datalad",
        counts.total(), len(counts), len(tables), len(result.missing), len(result.datalad),
    )  # fmt: skip
    return result


def shown_by_name(values: Iterable[str], index: StimulusIndex) -> tuple[dict[str, str], Presented]:
    """Find the stimuli that names of responses mean.

    Parameters
    ----------
    values : iterable of str
        One a response.
    index : StimulusIndex
        The stimuli folder.

    Returns
    -------
    ids : dict of str to str
        The stimulus that each name means.
    shown : Presented
        Without events.

    Raises
    ------
    DataError
        If a name leaves the stimuli folder, or two names mean one file.
    """
    given = Counter(values)
    known = {value: index.resolve(value) for value in given}
    _check_readings(known, index)
    counts: Counter[str] = Counter()
    for value, found in known.items():
        counts[found.stimulus_id] += given[value]
    by_id = {found.stimulus_id: found for found in known.values()}
    shown = _collect({name: by_id[name] for name in sorted(counts)}, counts, {}, index)
    return {value: found.stimulus_id for value, found in known.items()}, shown


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
    trial = values.notna().to_numpy(dtype=bool, copy=True)
    if keep is not None:
        trial = trial & keep(table.assign(**{name: empty for name in wanted if name not in table}))
    stimuli: list[str | None] = [None] * len(table)
    for row in np.flatnonzero(trial):
        value = str(values.iloc[row])
        if value not in known:
            known[value] = index.resolve(value)
        trial[row] = not _no_stimulus(value, known[value])
        stimuli[row] = known[value].stimulus_id if trial[row] else None
    return trial, pd.Series(stimuli, index=table.index, dtype=object)


def _no_stimulus(value: str, found: Resolution) -> bool:
    """Whether a value says that nothing was shown."""
    return found.status == "missing" and PurePosixPath(found.stimulus_id).stem.lower() in NO_STIMULUS


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
    rows = [index.row(name) for name in found]
    files = [row["filename"] if f.path is not None else None for row, f in zip(rows, found.values(), strict=True)]
    table = pd.DataFrame(
        {
            "stimulus_id": pd.Series(list(found), dtype=object),
            "filename": pd.Series(files, dtype=object),
            "modality": [row["modality"] for row in rows],
            "sha256": "",
            "n_presentations": [counts[name] for name in found],
            "present": [f.status == "found" for f in found.values()],
        }
    )
    if any("start" in row for row in rows):  # frames of a film
        table = table.assign(**{key: [row.get(key, np.nan) for row in rows] for key in ("start", "stop")})
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
