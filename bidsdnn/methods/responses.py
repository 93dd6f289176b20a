"""From a run's time series to one response per trial.

The one idea: with the nuisance regressors projected out, both estimators are one (trials x time) matrix,
and the responses of all trials in all voxels are its product with the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from nilearn.glm.first_level import glover_hrf, make_first_level_design_matrix, spm_hrf
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from bidsdnn.methods.reduce import blocks, float64_device

Float = NDArray[np.float64]

_OVERSAMPLING = 50
_LEAD_IN = 24.0
"""Seconds before the first frame in which an event still counts (nilearn's ``min_onset``)."""

_VOXELS = 4096
"""Voxels estimated at a time."""

_RECORDED = 1e-3
"""Share of a response's energy that must lie inside the run, below which its trial is not estimated.
Noise in such an estimate is over 30 times that of a whole trial, and would rule the run's z-scores."""

_COLLINEAR = 1e-10
"""Share of a regressor's energy that must be left by the other regressors for its trial to be estimable."""

_HRFS: dict[str, Callable[..., Float]] = {"spm": spm_hrf, "glover": glover_hrf}


def trial_regressors(onsets: ArrayLike, durations: ArrayLike, *, frame_times: ArrayLike, hrf: str = "spm") -> Float:
    """Each event is convolved with a canonical haemodynamic response, on a grid of 50 points per scan.

    Equal to nilearn's ``compute_regressor`` of one event of amplitude 1 at a time. A boxcar convolved with a
    kernel is the difference of two shifted cumulative sums of that kernel, so no convolution is needed, and
    only the two grid points around each frame are looked up. Unlike nilearn, which moves it to the start of
    the grid, an event that is over 24 s before the first frame gives zeros.

    Parameters
    ----------
    onsets, durations : array-like, shape (n_trials,)
        Seconds, on the clock of ``frame_times``.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired.
    hrf : {"spm", "glover"}
        The response, in nilearn's names.

    Returns
    -------
    array, shape (T, n_trials)

    Raises
    ------
    ValueError
        If ``hrf`` is unknown, times are not finite, or a duration is negative.
    """
    starts, lengths, frames = (np.asarray(times, dtype=np.float64) for times in (onsets, durations, frame_times))
    _check_times(starts, lengths, frames)
    if hrf not in _HRFS:
        raise ValueError(f"hrf: expected one of {sorted(_HRFS)}, got {hrf!r}")
    grid = _fine_grid(frames)
    response = np.concatenate([[0.0], np.cumsum(_HRFS[hrf](float(np.diff(frames).min()), _OVERSAMPLING))])
    first = np.minimum(np.searchsorted(grid, starts), len(grid) - 1)
    last = np.minimum(np.searchsorted(grid, starts + lengths), len(grid) - 1)
    gone = last == 0
    last = np.where((first == last) & (last < len(grid) - 1), last + 1, last)

    def convolved(index: NDArray[np.intp]) -> Float:
        passed = index[:, None] + 1 - np.stack([first, last])[:, None, :]
        since_start, since_end = response[np.clip(passed, 0, len(response) - 1)]
        return since_start - since_end

    after = np.clip(np.searchsorted(grid, frames), 1, len(grid) - 1)
    weight = ((frames - grid[after - 1]) / (grid[after] - grid[after - 1]))[:, None]
    regressors = (1 - weight) * convolved(after - 1) + weight * convolved(after)
    regressors[:, gone] = 0
    return regressors


def high_pass(frame_times: ArrayLike, cutoff_seconds: float = 128.0) -> Float:
    """Slow drifts are modelled by a discrete cosine basis.

    Parameters
    ----------
    frame_times : array-like, shape (T,)
        Seconds.
    cutoff_seconds : float
        Periods longer than this are in the basis.

    Returns
    -------
    array, shape (T, C)
        nilearn's cosines, without the constant; no column for a run too short to have a drift.

    Raises
    ------
    ValueError
        If the cutoff is not positive.
    """
    if not cutoff_seconds > 0:
        raise ValueError(f"cutoff_seconds: expected a positive number, got {cutoff_seconds}")
    design = make_first_level_design_matrix(
        np.asarray(frame_times, dtype=np.float64), drift_model="cosine", high_pass=1 / cutoff_seconds
    )
    return design.drop(columns="constant").to_numpy(dtype=np.float64)


def lss(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str = "spm",
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were estimated by least squares separate: a model per trial, the others in one regressor.

    Mumford et al. (2012), NeuroImage 59, 2636-2643. After projecting the nuisance out, each trial's model has
    two regressors, and its 2 x 2 normal equations are solved in closed form for all trials at once.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, n_trials rows
        One trial a row; columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included. Collinear columns are dropped.
    hrf : {"spm", "glover"}
        The response, in nilearn's names.
    device : str
        Where torch multiplies; float64 everywhere, so ``mps`` falls back to the CPU.

    Returns
    -------
    array, shape (n_trials, V)
        Responses in the units of ``bold``. NaN in the row of a trial that cannot be estimated (hardly any of
        its response was recorded, or it is collinear with the rest), and in the column of a voxel that is
        constant or not finite.

    Raises
    ------
    ValueError
        If shapes disagree, a column is missing, or a time or nuisance value is not finite.
    """
    x, recorded, basis = _design(bold, events, frame_times, nuisance, hrf)
    own = x - basis @ (basis.T @ x)
    rest = own.sum(axis=1, keepdims=True) - own
    own_energy, rest_energy = (own**2).sum(axis=0), (rest**2).sum(axis=0)
    shared = (own * rest).sum(axis=0)
    # Other trials that vanish beside the nuisance (or do not exist) leave a model of one regressor.
    alone = rest_energy <= _COLLINEAR * (x**2).sum()
    shared[alone], rest_energy[alone] = 0, 1
    determinant = own_energy * rest_energy - shared**2
    estimable = recorded & (own_energy > _COLLINEAR * (x**2).sum(axis=0))
    estimable &= determinant > _COLLINEAR * own_energy * rest_energy
    with np.errstate(divide="ignore", invalid="ignore"):
        operator = ((rest_energy * own - shared * rest) / determinant).T
    return _apply(operator, estimable, bold, device)


def lsa(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str = "spm",
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were estimated by least squares all: one model with a regressor for every trial.

    Parameters, returned values and errors are those of `lss`. A trial is not estimable when its regressor is
    a combination of the others and the nuisance; the others are estimated all the same.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, n_trials rows
        One trial a row; columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included. Collinear columns are dropped.
    hrf : {"spm", "glover"}
        The response, in nilearn's names.
    device : str
        Where torch multiplies; float64 everywhere, so ``mps`` falls back to the CPU.

    Returns
    -------
    array, shape (n_trials, V)
        Responses in the units of ``bold``; NaN as in `lss`.

    Raises
    ------
    ValueError
        If shapes disagree, a column is missing, or a time or nuisance value is not finite.
    """
    x, recorded, basis = _design(bold, events, frame_times, nuisance, hrf)
    # Unit length, so that a trial of a few seconds and one cut off by the end of the run weigh the same in
    # the rank.
    length = np.sqrt((x**2).sum(axis=0))
    length[length == 0] = 1
    x = x / length
    left, scale, right = np.linalg.svd(x - basis @ (basis.T @ x), full_matrices=False)
    keep = scale > np.sqrt(_COLLINEAR)
    left, scale, right = left[:, keep], scale[keep], right[keep]
    # A trial is estimable if its own axis lies within the space the design reaches.
    estimable = recorded & ((right**2).sum(axis=0) > 1 - 1e-6)
    operator = (right.T / scale) @ left.T / length[:, None]
    return _apply(operator, estimable, bold, device)


def _design(
    bold: NDArray[np.floating], events: pd.DataFrame, frame_times: ArrayLike, nuisance: ArrayLike, hrf: str
) -> tuple[Float, NDArray[np.bool_], Float]:
    """Trial regressors (T, n), which of them were recorded (n,), a basis of the nuisance (T, rank)."""
    frames, others = np.asarray(frame_times, dtype=np.float64), np.asarray(nuisance, dtype=np.float64)
    if bold.ndim != 2 or len(bold) != len(frames):
        raise ValueError(f"bold: expected shape ({len(frames)}, V) for {len(frames)} frame times, got {bold.shape}")
    if others.ndim != 2 or len(others) != len(frames):
        raise ValueError(f"nuisance: expected shape ({len(frames)}, C), got {others.shape}")
    if not np.isfinite(others).all():
        bad = np.flatnonzero(~np.isfinite(others).all(axis=0)).tolist()
        raise ValueError(f"nuisance: expected finite numbers, got NaN or infinity in columns {bad}")
    for column in ("onset", "duration"):
        if column not in events:
            raise ValueError(f"events: expected a column {column!r}, got {list(events.columns)}")
    onsets, durations = (events[column].to_numpy(dtype=np.float64) for column in ("onset", "duration"))
    x = trial_regressors(onsets, durations, frame_times=frames, hrf=hrf)
    # The same trials, had the scanner gone on until the last response was over.
    step = np.diff(frames).min()
    beyond = np.arange(1, np.ceil((durations.max(initial=0.0) + 32) / step) + 1) * step
    full = trial_regressors(onsets, durations, frame_times=np.concatenate([frames, frames[-1] + beyond]), hrf=hrf)
    recorded = (x**2).sum(axis=0) > _RECORDED * (full**2).sum(axis=0)
    return x, recorded, _orthonormal(others)


def _orthonormal(columns: Float) -> Float:
    """An orthonormal basis of the columns; those that add nothing to the others are left out."""
    length = np.sqrt((columns**2).sum(axis=0))
    columns = columns[:, length > 0] / length[length > 0]
    if columns.shape[1] == 0:
        return columns
    q, r, _ = linalg.qr(columns, mode="economic", pivoting=True)
    return q[:, : int((np.abs(np.diag(r)) > 1e-9).sum())]


def _apply(
    operator: Float, estimable: NDArray[np.bool_], bold: NDArray[np.floating], device: str
) -> NDArray[np.float32]:
    """Multiply the (n, T) estimator with the (T, V) time series, a block of voxels at a time."""
    where = float64_device(device)
    responses = np.full((len(operator), bold.shape[1]), np.nan, dtype=np.float32)
    rows = torch.from_numpy(np.ascontiguousarray(operator[estimable])).to(where)
    for voxels in blocks(bold.shape[1], _VOXELS):
        series = np.array(bold[:, voxels], dtype=np.float64)
        usable = np.isfinite(series).all(axis=0) & (series != series[:1]).any(axis=0)
        products = rows @ torch.from_numpy(series[:, usable]).to(where)
        columns = np.arange(voxels.start, voxels.stop)[usable]
        responses[np.ix_(estimable, columns)] = products.cpu().numpy()
    return responses


def _fine_grid(frames: Float) -> Float:
    """Oversampled clock of nilearn: from 24 s before the first frame to about one scan after the last."""
    rate = (len(frames) - 1) / (frames.max() - frames.min())
    end = frames.max() * (1 + 1 / (len(frames) - 1))
    size = rate * (end - frames.min() + _LEAD_IN) * _OVERSAMPLING + 1
    return np.linspace(frames.min() - _LEAD_IN, end, int(np.rint(size)))


def _check_times(onsets: Float, durations: Float, frames: Float) -> None:
    if onsets.ndim != 1 or onsets.shape != durations.shape:
        raise ValueError(
            f"onsets, durations: expected two vectors of one length, got {onsets.shape} and {durations.shape}"
        )
    if frames.ndim != 1 or len(frames) < 2 or not (np.diff(frames) > 0).all():
        raise ValueError(f"frame_times: expected at least 2 rising times, got shape {frames.shape}")
    for name, times in (("onsets", onsets), ("durations", durations), ("frame_times", frames)):
        if not np.isfinite(times).all():
            raise ValueError(f"{name}: expected finite seconds, got NaN or infinity")
    if (durations < 0).any():
        raise ValueError(f"durations: expected seconds of at least 0, got {durations.min()}")


RESPONSES = {"lss": lss, "lsa": lsa}
