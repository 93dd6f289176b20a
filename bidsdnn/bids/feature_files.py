"""What one file of features holds: samples in time, or a row a stimulus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from bidsdnn.bids.names import require, sidecar
from bidsdnn.errors import DataError, MissingInputError

T = TypeVar("T")

IDS = ("stimulus_id", "stim_id", "stim_file", "stimulus")
"""Columns that name the stimulus, the first that is there."""
NAMES_FILE = "file_names.txt"
TIMES = ("_times.npy", "_times.txt", "_times.tsv")
"""Endings of files with the times of an array's rows."""


class Course(NamedTuple):
    """Samples of some features: seconds (m,), the middle of what each describes, and values (m, p)."""

    times: np.ndarray
    values: np.ndarray


def read_recording(path: Path, *, root: Path) -> Course:
    """Read a continuous recording of BIDS: samples at ``StartTime`` + k / ``SamplingFrequency``, on the run's clock.

    Parameters
    ----------
    path : Path
        ``_stim.tsv`` or ``.tsv.gz``, with or without a header.
    root : Path
        Top folder of its dataset, up to which JSON files apply.

    Returns
    -------
    Course

    Raises
    ------
    DataError
        If its JSON file lacks a key, or a cell is no number.
    """
    about = sidecar(path, root=root)
    rate, start, columns = (about.get(key) for key in ("SamplingFrequency", "StartTime", "Columns"))
    if not isinstance(rate, int | float) or not rate > 0 or not isinstance(start, int | float):
        raise DataError(
            f"{path}: SamplingFrequency {rate!r} and StartTime {start!r} must be numbers; add them to its JSON file"
        )
    raw = text_table(path, header=None)
    named = bool(len(raw)) and pd.to_numeric(raw.iloc[0], errors="coerce").isna().all() and raw.iloc[0].notna().all()
    frame = raw.iloc[1:] if named else raw
    if named:
        columns = raw.iloc[0].tolist()
    if not isinstance(columns, list) or len(columns) != frame.shape[1]:
        raise DataError(f"{path}: Columns {columns!r} do not name its {frame.shape[1]} columns; mend its JSON file")
    values = numbers(frame.set_axis(columns, axis=1), path)
    return Course(start + np.arange(len(values)) / rate, values)


def table_course(path: Path) -> Course:
    """Read a table with ``onset`` and maybe ``duration`` in seconds since the beginning of the stimulus."""
    frame = text_table(path)
    if "onset" not in frame:
        raise DataError(f"{path}: no column onset among {', '.join(map(str, frame.columns))}; add it, in seconds")
    return course(frame.drop(columns=[one for one in IDS if one in frame]), path)


def course(frame: pd.DataFrame, path: Path, known: list[str] | None = None) -> Course:
    """Samples of a table with onsets, wide or long."""
    if {"feature", "value"} <= set(frame.columns):
        frame = _widened(frame, path, known)
    timing = numbers(frame[[one for one in ("onset", "duration") if one in frame]], path)
    times = timing[:, 0] + (timing[:, 1] / 2 if timing.shape[1] > 1 else 0)
    order = np.argsort(times, kind="stable")
    values = numbers(frame.drop(columns=["onset", "duration"], errors="ignore"), path)
    return Course(times[order], values[order])


def _widened(frame: pd.DataFrame, path: Path, known: list[str] | None) -> pd.DataFrame:
    """One row a moment and one column a feature, from one row for each of both."""
    moment = [one for one in ("onset", "duration") if one in frame]
    if frame.duplicated([*moment, "feature"]).any():
        row = frame[frame.duplicated([*moment, "feature"])].iloc[0]
        raise DataError(f"{path}: {row['feature']} has two values at onset {row['onset']}; keep one")
    wide = frame.pivot(index=moment, columns="feature", values="value").reindex(columns=known)
    if wide.isna().any(axis=None):
        feature = wide.columns[wide.isna().any()][0]
        raise DataError(f"{path}: {feature} has no value at some onsets at which other features have; add them")
    return wide.reset_index()


def array_course(path: Path) -> Course:
    """Read an array with a row a moment: ``.npz`` with ``times`` and ``values``, or ``.npy`` with its times beside."""
    if path.suffix == ".npz":
        arrays = _arrays(path)
        if not {"times", "values"} <= set(arrays):
            raise DataError(f"{path}: has the arrays {', '.join(arrays)}; give it times and values")
        times, values = arrays["times"], arrays["values"]
    else:
        beside = [path.with_name(path.stem + ending) for ending in TIMES]
        found = next((one for one in beside if one.is_file()), None)
        if found is None:
            raise MissingInputError(f"{path}: no times beside it; add {beside[1].name}, seconds of each row")
        values = _loaded(path)
        times = _loaded(found) if found.suffix == ".npy" else numbers(text_table(found, header=None), found)[:, 0]
    values = values[:, None] if values.ndim == 1 else values
    if times.shape != values.shape[:1] or values.ndim != 2:
        raise DataError(f"{path}: {times.shape} times for values of shape {values.shape}; give a time a row")
    return Course(*_finite(path, times.astype(float), values.astype(float)))


def named_rows(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and rows of an array with a row a stimulus."""
    if path.suffix == ".npz":
        arrays = _arrays(path)
        column = next((one for one in IDS if one in arrays), None)
        if column is None or "values" not in arrays:
            raise DataError(f"{path}: has the arrays {', '.join(arrays)}; give it {IDS[0]} and values")
        ids, values = arrays[column].tolist(), arrays["values"]
    else:
        listed = require(path.with_name(NAMES_FILE))
        ids, values = [one for one in listed.read_text(encoding="utf-8").splitlines() if one], _loaded(path)
    if values.ndim != 2 or len(values) != len(ids):
        raise DataError(f"{path}: {len(ids)} names for values of shape {values.shape}; give a row a stimulus")
    return [str(one) for one in ids], _finite(path, values)[0]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    loaded = _load(path)
    return _guarded(path, lambda: {key: loaded[key] for key in loaded.files})


def _loaded(path: Path) -> np.ndarray:
    return np.asarray(_load(path))


def _load(path: Path) -> Any:
    return _guarded(path, lambda: np.load(path, allow_pickle=False))


def _guarded(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not readable as arrays of numbers ({error}); save it anew, without pickle") from error


def _finite(path: Path, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    for array in arrays:
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise DataError(f"{path}: holds {array.dtype} with NaN, infinity or text; give finite numbers")
    return arrays


def text_table(path: Path, header: int | None = 0) -> pd.DataFrame:
    """A table as text, ``n/a`` missing."""
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        return pd.read_csv(
            require(path), sep=separator, header=header, dtype=object, na_values=["n/a", ""], keep_default_na=False,
            encoding="utf-8-sig",
        )  # fmt: skip
    except (OSError, ValueError, EOFError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not readable as a table ({' '.join(str(error).split())}); mend the file") from error


def numbers(frame: pd.DataFrame, path: Path) -> np.ndarray:
    """Cells as numbers, shape (rows, columns)."""
    if frame.empty:
        raise DataError(f"{path}: no row or no column of features; add them")
    values = frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        cell = frame.iloc[row, column]
        raise DataError(
            f"{path}: {frame.columns[column]} is {cell!r} in row {row + 1}; give a number, or drop the column"
        )
    return values
