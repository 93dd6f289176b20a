"""What participants.tsv says of the participants: covariates and two groups.

The one idea: who lacks a value is named and has no part in the tests that need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bidsdnn.bids.events import read_tsv
from bidsdnn.bids.files import digest
from bidsdnn.errors import DataError
from bidsdnn.lookup import closest

TABLE = "participants.tsv"


@dataclass(frozen=True)
class People:
    """Covariates and groups of participants.

    Parameters
    ----------
    path : Path
        The table.
    covariates : mapping of str to mapping of str to float
        Values by name and participant, without ``sub-``; NaN where the table says nothing.
    group_column : str or None
    groups : mapping of str to float
        0 or 1 by participant, NaN where the table says nothing.
    levels : tuple of str
        What 0 and 1 are called.
    """

    path: Path
    covariates: Mapping[str, Mapping[str, float]]
    group_column: str | None = None
    groups: Mapping[str, float] | None = None
    levels: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """Hash of the values."""
        return digest({"covariates": {k: dict(v) for k, v in self.covariates.items()}, "column": self.group_column,
                       "groups": dict(self.groups or {}), "levels": self.levels})  # fmt: skip


def check_people(root: Path, covariates: Sequence[str], group_column: str | None) -> None:
    """Check that participants.tsv has the columns, before anything is read that takes longer.

    Parameters
    ----------
    root : Path
        Of the dataset.
    covariates : sequence of str
    group_column : str or None

    Raises
    ------
    MissingInputError
        If there is no table.
    DataError
        If a column is lacking.
    """
    path = root / TABLE
    asked = [
        *(("--covariate", name) for name in covariates),
        *((("--group-column", group_column),) * bool(group_column)),
    ]
    if not asked:
        return
    table = read_tsv(path)
    for flag, name in asked:
        if name not in table or name == "participant_id":
            others = [column for column in table.columns if column != "participant_id"]
            raise DataError(f"{flag} {name}: {path} has no such column; {closest(str(name), others)}")
    if "participant_id" not in table:
        raise DataError(f"{path}: no column participant_id; add it")


def read_people(
    root: Path, labels: Sequence[str], covariates: Sequence[str] = (), group_column: str | None = None
) -> People | None:
    """Read covariates and groups of participants.

    Parameters
    ----------
    root : Path
        Of the dataset.
    labels : sequence of str
        Participants, without ``sub-``.
    covariates : sequence of str
        Columns of numbers.
    group_column : str or None
        Column with two different values.

    Returns
    -------
    People or None
        None if nothing was asked for, or there is nobody to compare with.

    Raises
    ------
    MissingInputError, DataError
        If there is no table, no such column, a value that is no number, or the groups are not two.
    """
    if not covariates and group_column is None:
        return None
    check_people(root, covariates, group_column)
    if len(labels) < 2:
        # That one participant is no group is said where the group is made.
        return None
    path = root / TABLE
    table = read_tsv(path)
    table = table.assign(participant_id=table["participant_id"].map(lambda one: str(one).removeprefix("sub-")))
    twice = table["participant_id"][table["participant_id"].duplicated()]
    if len(twice):
        raise DataError(f"{path}: sub-{twice.iloc[0]} has two rows; leave one")
    rows = table.set_index("participant_id").reindex(list(labels))
    numbers = {name: _numbers(path, name, rows[name].to_dict()) for name in covariates}
    if group_column is None:
        return People(path, numbers)
    named = {label: value for label, value in rows[group_column].items() if isinstance(value, str)}
    levels = sorted(set(named.values()))
    if len(levels) != 2:
        found = ", ".join(levels[:5]) or "nothing"
        raise DataError(
            f"--group-column {group_column}: {path} holds {len(levels)} values for these participants ({found}); "
            "choose a column with two, or participants with --participant-label"
        )
    codes = {str(label): float(levels.index(named[label])) if label in named else float("nan") for label in rows.index}
    return People(path, numbers, group_column, codes, tuple(levels))


def _numbers(path: Path, name: str, values: Mapping[str, object]) -> dict[str, float]:
    found = {}
    for label, value in values.items():
        try:
            found[label] = float(value) if isinstance(value, str) else float("nan")
        except ValueError as error:
            raise DataError(
                f"--covariate {name}: {path} says {value!r} of sub-{label}, which is no number; write numbers or "
                "n/a, or use --group-column"
            ) from error
    known = {value for value in found.values() if np.isfinite(value)}
    if len(known) < 2:
        raise DataError(f"--covariate {name}: {path} has the same value for all of these participants; choose another")
    return found
