"""Units that runs share: per cent of the mean signal, and standard deviations of the run's responses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def percent_signal_change(bold: NDArray[np.floating]) -> NDArray[np.float32]:
    """Time series were scaled to per cent signal change: 100 times the difference from the voxel's mean over it.

    Parameters
    ----------
    bold : array, shape (T, V)

    Returns
    -------
    array, shape (T, V)
        NaN in the column of a voxel whose mean is not above zero or that is not finite, as in data whose mean has
        been taken out.
    """
    if bold.ndim != 2:
        raise ValueError(f"bold: expected shape (T, V), got {bold.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        mean = bold.mean(axis=0, dtype=np.float64)
        scale = np.where(np.isfinite(mean) & (mean > 0), 100 / np.where(mean > 0, mean, 1), np.nan)
        # In double precision: the signal is a small difference of large numbers.
        return np.asarray((bold - mean) * scale, dtype=np.float32)


def standardized(values: NDArray[np.floating], runs: ArrayLike | None = None) -> NDArray[np.float32]:
    """Responses were z-scored within runs.

    Parameters
    ----------
    values : array, shape (n, V)
        Responses; a row that is NaN throughout (a trial that was not estimated) stays NaN and counts for nothing.
    runs : array-like, shape (n,), optional
        The run of each row; all are of one run if absent.

    Returns
    -------
    array, shape (n, V)
        Mean 0 and standard deviation 1 over the rows of each run. NaN where a run has fewer than two estimated rows
        or no spread, and in the whole column of a run where an estimated row is not finite.

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    labels = np.zeros(len(values), dtype=np.intp) if runs is None else np.asarray(runs)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f"values, runs: expected (n, V) and (n,), got {values.shape} and {labels.shape}")
    out = np.full(values.shape, np.nan, dtype=np.float32)
    estimated = ~np.isnan(values).all(axis=1)
    for run in np.unique(labels):
        rows = np.flatnonzero((labels == run) & estimated)
        if len(rows) < 2:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            centred = values[rows] - values[rows].mean(axis=0, dtype=np.float64)
            spread = np.sqrt((centred**2).mean(axis=0))
            # A constant column's spread is rounding, not zero.
            flat = spread <= 1e-7 * np.abs(values[rows]).max(axis=0)
            out[rows] = np.where(flat, np.nan, centred / spread)
    return out
