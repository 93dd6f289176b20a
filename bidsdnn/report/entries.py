"""What a report is made from: the files of one output folder and the log of one run.

An `Entry` is one file with its name taken apart; everything else in this package works on lists of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Written by an analysis as text; every other column of a table is a number.
TEXT_COLUMNS = frozenset({
    "network", "layer", "other_network", "other_layer", "region", "metric", "comparison", "run", "ses", "task", "sub",
    "controls", "by", "position", "first_kind", "first", "second_kind", "second", "kind", "item", "participant",
    "reason", "step", "state", "file", "started", "command", "report", "description", "effect", "end", "unit",
    "measure", "target", "cut", "decoder", "true", "predicted", "channel", "stimulus_id", "part", "spaces",
    "preferred",
})  # fmt: skip
# What tells two analyses of one participant apart, in the order in which the page names it.
CONTEXT = ("ses", "task", "space", "res", "den")


@dataclass(frozen=True, eq=False)
class Entry:
    """One result file.

    Parameters
    ----------
    path : Path
    entities : dict of str to str
        Short names and labels as in the file name, without suffix and extension.
    suffix : str
    sidecar : dict
        The parsed JSON file; for ``relmat`` files with ``_arrays``, condensed distances by name, and
        ``_items``, the names of the stimuli.
    """

    path: Path
    entities: dict[str, str]
    suffix: str
    sidecar: dict[str, Any]

    @property
    def desc(self) -> str:
        """Label of the entity ``desc``, empty if the name has none."""
        return self.entities.get("desc", "")

    @property
    def stat(self) -> str:
        """Label of the entity ``stat``, empty if the name has none."""
        return self.entities.get("stat", "")

    @property
    def context(self) -> tuple[tuple[str, str], ...]:
        """Session, task and space, as pairs of entity and label; a template is the space of what lies on it."""
        labels = {"space": self.entities["tpl"], **self.entities} if "tpl" in self.entities else self.entities
        return tuple((name, labels[name]) for name in CONTEXT if name in labels)


@dataclass(frozen=True)
class Log:
    """What one run did, as far as a reader of its report wants to know.

    Parameters
    ----------
    run_uuid : str
    command : str
        The command line.
    config : str
        The resolved configuration as TOML.
    started : str
        Date and time.
    seconds : float or None
        How long it took.
    warnings, errors : tuple of str
        One line each.
    tracebacks : tuple of str
    steps : tuple of (str, str, float, float)
        What was done, whether it ``took`` or ``stopped after`` so many seconds, and the largest memory so far in MB.
    """

    run_uuid: str
    command: str
    config: str
    started: str
    seconds: float | None
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    tracebacks: tuple[str, ...] = ()
    steps: tuple[tuple[str, str, float, float], ...] = ()

    @property
    def stopped(self) -> str:
        """The step that did not finish, empty if all did."""
        return next((step for step, how, *_ in self.steps if how != "took"), "")


def pick(entries: list[Entry], suffix: str, desc: str | None = None, stat: str | None = None) -> list[Entry]:
    """Entries of one suffix, and of one ``desc`` and ``stat`` where asked; None accepts any.

    Parameters
    ----------
    entries : list of Entry
    suffix : str
    desc, stat : str or None

    Returns
    -------
    list of Entry
        In the order given.
    """
    return [
        entry
        for entry in entries
        if entry.suffix == suffix and desc in (None, entry.desc) and stat in (None, entry.stat)
    ]


def read_table(path: Path) -> pd.DataFrame:
    """Read a result table; names stay text, ``n/a`` becomes NaN.

    Parameters
    ----------
    path : Path
        A tab-separated file.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        If the file is empty or a column of numbers holds something else.
    """
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    for column in table.columns.difference(list(TEXT_COLUMNS)):
        try:
            table[column] = pd.to_numeric(table[column].where(~table[column].isin(["n/a", ""])))
        except ValueError as error:
            raise ValueError(f"{path}: column `{column}` expected numbers, got: {error}") from error
    return table


def read_tables(entries: list[Entry], *columns: str) -> pd.DataFrame:
    """Stack the tables of several entries, with their participant where the name has one.

    Parameters
    ----------
    entries : list of Entry
    *columns : str
        What each table has to have.

    Returns
    -------
    DataFrame
        Rows in the order of the files; `sub` is empty where a name has no participant.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    tables = []
    for entry in entries:
        table = read_table(entry.path)
        missing = [column for column in columns if column not in table]
        if missing:
            raise ValueError(f"{entry.path}: expected columns {', '.join(columns)}; {', '.join(missing)} not there")
        if "network" in columns:
            table["network"] = table["network"].replace("", entry.entities.get("model", ""))
        tables.append(table.assign(sub=entry.entities.get("sub", "")))
    return pd.concat(tables, ignore_index=True)


def ordered(values: pd.Series) -> list[str]:
    """Distinct values in the order of their first appearance, which is the order of depth for layers."""
    return list(dict.fromkeys(values))


def listed(entries: list[Entry], key: str) -> list[str]:
    """What sidecars say under one key, without repetitions.

    Parameters
    ----------
    entries : list of Entry
    key : str
        Its value may be a text or a list of texts.

    Returns
    -------
    list of str
    """
    found: dict[str, None] = {}
    for entry in entries:
        value = entry.sidecar.get(key) or []
        for item in [value] if isinstance(value, str) else value:
            found[item if isinstance(item, str) else json.dumps(item)] = None
    return list(found)


def first(entries: list[Entry], key: str) -> Any:
    """Value of the first sidecar that has a key, else None."""
    return next((entry.sidecar[key] for entry in entries if entry.sidecar.get(key) is not None), None)


def square(condensed: np.ndarray) -> np.ndarray:
    """Distances between n items as a symmetric matrix.

    Parameters
    ----------
    condensed : ndarray, shape (n * (n - 1) / 2,)
        Upper triangle by rows, as `scipy.spatial.distance.pdist` orders it.

    Returns
    -------
    ndarray, shape (n, n)
        Zeros on the diagonal.

    Raises
    ------
    ValueError
        If the length is that of no triangle.
    """
    pairs = np.asarray(condensed, dtype=float).ravel()
    n = round((1 + np.sqrt(1 + 8 * pairs.size)) / 2)
    if n * (n - 1) // 2 != pairs.size:
        raise ValueError(f"condensed: expected n (n - 1) / 2 distances, got {pairs.size}")
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    return matrix + matrix.T
