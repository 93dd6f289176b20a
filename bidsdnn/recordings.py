"""One run's series, read once and made ready to be fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.design import Design, run_design
from bidsdnn.errors import DataError
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.responses import percent_signal_change, standardized
from bidsdnn.spaces import Space

FEWEST_VOLUMES = 10
BLOCK = 4096
"""Voxels whose moments are computed at a time."""


@dataclass(frozen=True)
class Estimation:
    """How responses are estimated; whatever is in here changes the numbers.

    Parameters
    ----------
    response : str
        Row of `RESPONSES`.
    hrf : str
        Haemodynamic response function, as the estimators take it.
    noise : str
        ``ols`` or ``ar1``.
    high_pass : float
        Longest period kept, in seconds, where the confounds hold no cosines.
    confounds : tuple of str
        Strategies, columns and patterns of the confounds table.
    fd_threshold : float or None
        Volumes that moved by more millimetres are left out of the fit.
    dummy_scans : int or None
        Volumes left out at the start; None leaves out those that fMRIPrep calls not steady.
    smoothing : float
        Full width at half maximum in millimetres; 0 for none.
    standardize : str
        Of each voxel's series: ``none``, ``psc`` (percent of its mean) or ``zscore``.
    parameters : mapping
        Of the estimator, from the TOML file.
    """

    response: str = "lss"
    hrf: str = "spm"
    noise: str = "ols"
    high_pass: float = 128.0
    confounds: tuple[str, ...] = ("motion",)
    fd_threshold: float | None = None
    dummy_scans: int | None = None
    smoothing: float = 0.0
    standardize: str = "none"
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """One run's work: what a worker needs to know."""

    run: Run
    events: pd.DataFrame
    space: Space
    estimation: Estimation
    derivatives: Derivatives
    entities: Mapping[str, str]
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Recording:
    """A run's series ready to be fitted, and what is known of it.

    Parameters
    ----------
    series : ndarray, shape (kept, size)
        Of the volumes that are fitted, smoothed and scaled as asked.
    design : Design
    usable : ndarray of bool, shape (size,)
        Voxels that are finite and vary.
    mean, tsnr : ndarray, shape (size,)
        Over the fitted volumes, before smoothing.
    """

    series: np.ndarray
    design: Design
    usable: np.ndarray
    mean: np.ndarray
    tsnr: np.ndarray


def load_run(task: Task) -> Recording:
    """Read one run and prepare it.

    Parameters
    ----------
    task : Task

    Returns
    -------
    Recording

    Raises
    ------
    DataError
        If the bold is no time series, holds no finite voxel, or its events or confounds do not fit it.
    """
    run, estimation = task.run, task.estimation
    bold = task.space.read(run.bold)
    if len(bold) < FEWEST_VOLUMES:
        raise DataError(f"{run.bold}: {len(bold)} volumes are no time series; give a 4-D bold image")
    design = run_design(
        run, task.events, len(bold), hrf=estimation.hrf, period=estimation.high_pass,
        names=estimation.confounds, fd_threshold=estimation.fd_threshold, dummy_scans=estimation.dummy_scans,
    )  # fmt: skip
    series = bold if design.kept.all() else bold[design.kept]
    mean, spread = moments(series)
    if not np.isfinite(mean).any():
        raise DataError(f"{run.bold}: every voxel in the mask has NaN; replace the file or leave out the run")
    usable = np.isfinite(mean) & (spread > 0)
    if not usable.any():
        raise DataError(f"{run.bold}: every voxel in the mask is constant; replace the file or leave out the run")
    tsnr = np.divide(mean, spread, out=np.full(len(mean), np.nan), where=usable)
    if estimation.smoothing:
        series = task.space.smooth(series, estimation.smoothing)
    return Recording(scaled(series, estimation.standardize), design, usable, mean, tsnr)


def moments(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over volumes, in blocks of voxels.

    Parameters
    ----------
    series : ndarray, shape (n_volumes, size)

    Returns
    -------
    mean, spread : ndarray, shape (size,)
        Both NaN where a value is not finite.
    """
    mean, spread = np.empty((2, series.shape[1]))
    for voxels in blocks(series.shape[1], BLOCK):
        block = np.where(np.isfinite(series[:, voxels]).all(axis=0), series[:, voxels], np.nan).astype(np.float64)
        mean[voxels], spread[voxels] = block.mean(axis=0), block.std(axis=0)
    return mean, spread


def scaled(series: np.ndarray, how: str) -> np.ndarray:
    """Scale each voxel's series: to percent of its mean, to unit variance, or not at all.

    Parameters
    ----------
    series : ndarray, shape (n_volumes, size)
    how : str
        ``psc``, ``zscore`` or ``none``.

    Returns
    -------
    ndarray of float32, shape (n_volumes, size)
        NaN where the mean, or the spread, is not above 0.
    """
    if how == "none":
        return series
    scale = percent_signal_change if how == "psc" else standardized
    found = np.empty(series.shape, dtype=np.float32)
    for voxels in blocks(series.shape[1], BLOCK):
        found[:, voxels] = scale(series[:, voxels])
    return found
