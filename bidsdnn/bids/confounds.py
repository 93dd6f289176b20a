"""Confounds tables under one set of names, and which of their columns a strategy means.

fMRIPrep has renamed its columns several times; tables are read under the names of today, so that a strategy is a list
of names and works with every version. Strategies are those of nilearn's ``load_confounds``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.events import read_tsv
from bidsdnn.errors import DataError
from bidsdnn.lookup import closest

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD_RADIUS_MM = 50.0
_TISSUE = ("csf", "white_matter")
_GLOBAL = ("global_signal",)
_EXPANSIONS = {1: ("",), 2: ("", "_derivative1"), 4: ("", "_derivative1", "_power2", "_derivative1_power2")}

STRATEGIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "scrub": (),
    "motion": MOTION,
    **{f"motion-{6 * n}": tuple(f"{c}{end}" for c in MOTION for end in ends) for n, ends in _EXPANSIONS.items()},
    "wm_csf": _TISSUE,
    **{f"wm_csf-{2 * n}": tuple(f"{c}{end}" for c in _TISSUE for end in ends) for n, ends in _EXPANSIONS.items()},
    "global_signal": _GLOBAL,
    **{f"global_signal-{n}": tuple(f"{c}{end}" for c in _GLOBAL for end in ends) for n, ends in _EXPANSIONS.items()},
    "ica_aroma": ("aroma_motion_*",),
}
"""Columns by strategy; ``compcor`` and its kin, which depend on the table's JSON file, are beside it."""

_COMPCOR = re.compile(r"(compcor|acompcor|tcompcor)(?:-(\d+|all))?")
_COMPONENTS = 6
"""Components of CompCor where no number is given."""

# fMRIPrep up to 1.1 wrote the names on the left.
_RENAMED = {
    "X": "trans_x", "Y": "trans_y", "Z": "trans_z", "RotX": "rot_x", "RotY": "rot_y", "RotZ": "rot_z",
    "CSF": "csf", "WhiteMatter": "white_matter", "GlobalSignal": "global_signal",
    "FramewiseDisplacement": "framewise_displacement", "stdDVARS": "std_dvars", "non-stdDVARS": "dvars",
}  # fmt: skip
_NUMBERED = (
    (re.compile(r"([at])CompCor_?(\d+)"), r"\1_comp_cor_\2"),
    (re.compile(r"Cosine_?(\d+)"), r"cosine\1"),
    (re.compile(r"NonSteadyStateOutlier_?(\d+)"), r"non_steady_state_outlier\1"),
    (re.compile(r"AROMAAggrComp_?(\d+)"), r"aroma_motion_\1"),
    (re.compile(r"MotionOutlier_?(\d+)"), r"motion_outlier\1"),
)


def current_name(column: str) -> str:
    """Today's name of a column of any version of fMRIPrep; other names as they are."""
    for pattern, name in _NUMBERED:
        if pattern.fullmatch(column):
            return pattern.sub(name, column)
    return _RENAMED.get(column, column)


def read_confounds(path: Path, *, n_volumes: int, bold: Path) -> pd.DataFrame:
    """Read a confounds table under today's names.

    Parameters
    ----------
    path : Path
        A ``timeseries.tsv``, or ``regressors.tsv`` or ``confounds.tsv`` of older versions.
    n_volumes : int
        Of the recording that it belongs to.
    bold : Path
        Named in the error.

    Returns
    -------
    DataFrame of float
        One row a volume; NaN where there is no number.

    Raises
    ------
    DataError
        If the table has another number of rows than the recording has volumes.
    """
    table = read_tsv(path)
    if len(table) != n_volumes:
        raise DataError(
            f"{path}: {len(table)} rows for the {n_volumes} volumes of {bold.name}; run fMRIPrep on this run again"
        )
    return table.rename(columns=current_name).apply(pd.to_numeric, errors="coerce").astype(float)


def known_strategy(name: str) -> bool:
    """Whether a name is a strategy and not a column."""
    return name in STRATEGIES or _COMPCOR.fullmatch(name) is not None


def chosen_columns(
    table: pd.DataFrame, names: Sequence[str], *, path: Path, metadata: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Choose the columns that strategies, names and patterns mean.

    Derivatives and squares that older versions did not write are computed from their columns. The first row of a
    derivative, which has no value, gets that of the second, as in nilearn.

    Parameters
    ----------
    table : DataFrame
        Of `read_confounds`.
    names : sequence of str
        Strategies, columns, or patterns such as ``trans_*``.
    path : Path
        The table's file, for the errors.
    metadata : mapping, optional
        Content of its JSON file, which says which components of CompCor come from which mask.

    Returns
    -------
    DataFrame of float
        Finite; each column once.

    Raises
    ------
    DataError
        If a name means no column, or a column has gaps.
    """
    chosen: dict[str, pd.Series] = {}
    for name in names:
        compcor = _COMPCOR.fullmatch(name)
        wanted = _components(table, compcor, metadata or {}) if compcor else list(STRATEGIES.get(name, (name,)))
        if compcor and not wanted:
            raise DataError(f"{path}: no components for --confounds {name}; leave it out, or run fMRIPrep with CompCor")
        for pattern in wanted:
            columns = _matching(table, pattern)
            if not columns:
                raise DataError(_absent(table, name, pattern, path))
            chosen |= {column: _series(table, column) for column in columns}
    numbers = pd.DataFrame(chosen, index=table.index)
    # What is computed from the volume before has no first value.
    if len(numbers) > 1:
        numbers.iloc[0] = numbers.iloc[0].fillna(numbers.iloc[1])
    for column in numbers:
        if not np.isfinite(numbers[column]).all():
            row = int(np.flatnonzero(~np.isfinite(numbers[column]))[0]) + 1
            raise DataError(f"{path}: {column} with gaps (row {row}); run fMRIPrep on this run again, or leave it out")
    return numbers


def _absent(table: pd.DataFrame, name: str, pattern: str, path: Path) -> str:
    if name.startswith("motion"):
        return (
            f"{path}: no motion parameters ({', '.join(MOTION)}); give the confounds of fMRIPrep, or --confounds none"
        )
    what = f"{pattern!r} of --confounds {name}" if name in STRATEGIES else f"{name!r} of --confounds"
    return f"{path}: no column {what}; {closest(name, [*STRATEGIES, 'compcor', *map(str, table.columns)])}"


def _components(table: pd.DataFrame, asked: re.Match[str], metadata: Mapping[str, Any]) -> list[str]:
    """The first components of CompCor: anatomical ones from the combined mask, or temporal ones."""
    stem = "t_comp_cor_" if asked.group(1) == "tcompcor" else "a_comp_cor_"
    there = sorted(column for column in table.columns if column.startswith(stem))
    about = {current_name(key): value for key, value in metadata.items() if isinstance(value, dict)}
    if stem == "a_comp_cor_":
        there = [c for c in there if about.get(c, {}).get("Mask", "combined") == "combined"]
    there = [c for c in there if about.get(c, {}).get("Retained", True)]
    number = asked.group(2) or str(_COMPONENTS)
    return there if number == "all" else there[: int(number)]


def _matching(table: pd.DataFrame, pattern: str) -> list[str]:
    pattern = current_name(pattern)
    found = [column for column in table.columns if fnmatchcase(column, pattern)]
    return found or ([pattern] if _base(pattern) in table else [])


def _base(column: str) -> str:
    return re.sub(r"(_derivative1)?(_power2)?$", "", column)


def _series(table: pd.DataFrame, column: str) -> pd.Series:
    """A column, or the derivative and square of one."""
    if column in table:
        return table[column]
    series = table[_base(column)]
    series = series.diff() if "_derivative1" in column else series
    return series**2 if column.endswith("_power2") else series


def framewise_displacement(table: pd.DataFrame) -> np.ndarray:
    """Framewise displacement is the sum of absolute changes of position and, on a 50 mm sphere, of rotation.

    Power et al. (2012), NeuroImage 59, 2142-2154.

    Parameters
    ----------
    table : DataFrame
        Of `read_confounds`.

    Returns
    -------
    ndarray, shape (n_volumes,)
        Millimetres, as the table says or computed from its motion parameters; NaN without them.
    """
    if "framewise_displacement" in table:
        return table["framewise_displacement"].to_numpy(dtype=float)
    if not set(MOTION) <= set(table.columns):
        return np.full(len(table), np.nan)
    numbers = table[list(MOTION)].to_numpy(dtype=float)
    steps = np.abs(np.diff(numbers, axis=0, prepend=numbers[:1]))
    steps[:, 3:] *= HEAD_RADIUS_MM
    return np.asarray(steps.sum(axis=1))


def non_steady_state(table: pd.DataFrame) -> np.ndarray:
    """Which volumes fMRIPrep saw before the signal was steady, shape (n_volumes,)."""
    columns = [c for c in table.columns if re.fullmatch(r"non_steady_state_outlier_?\d+", str(c))]
    return (
        np.asarray(table[columns].fillna(0).to_numpy(dtype=float).any(axis=1))
        if columns
        else np.zeros(len(table), bool)
    )
