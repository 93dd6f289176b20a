"""What a run is modelled by, and the matrices that turn its time series into responses.

The one idea: with the nuisance projected out, the responses of all trials are one (trials x time) operator, and
its product with the data is the estimate in every voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from bidsdnn.methods.responses.hrf import LEAD_IN, Kernel, impulses, scans, trial_basis

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Operator = Callable[[Float, Float, Float], tuple[Float, Bool]]
"""From regressors (n, K, T), an orthonormal basis of the nuisance (T, C) and weights of the betas (n, K) to an
operator (n, T) and which of its rows are estimable (n,)."""

_RECORDED = 1e-3
"""Share of a response's energy that must lie inside the run, below which its trial is not estimated.
Noise in such an estimate is over 30 times that of a whole trial, and would rule the run's z-scores."""

COLLINEAR = 1e-10
"""Share of a regressor's energy that must be left by the other regressors for its trial to be estimable."""

_AFTER = 32.0
"""Seconds for which a canonical response lasts in nilearn."""


@dataclass(frozen=True, eq=False)
class Design:
    """One run's model: regressors of its trials, and everything else.

    Parameters
    ----------
    x : array, shape (n, K, T)
        Regressors of each trial: its response and the derivatives, or an impulse at each delay.
    wanted : array, shape (n, K)
        The response is this weighted sum of a trial's betas.
    recorded : array of bool, shape (n,)
        False where hardly any of the trial's response falls into the volumes.
    nuisance : array, shape (T, C)
    frame_times : array, shape (T,)
    """

    x: Float
    wanted: Float
    recorded: Bool
    nuisance: Float
    frame_times: Float


def canonical(
    events: pd.DataFrame, *, frame_times: ArrayLike, nuisance: ArrayLike, hrf: str | Kernel = "spm"
) -> Design:
    """A model in which each trial has a haemodynamic response of known shape, and its derivatives where asked.

    Parameters
    ----------
    events : DataFrame, n rows
        Columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    nuisance : array-like, shape (T, C)
    hrf : str or callable
        As in `trial_basis`.

    Returns
    -------
    Design

    Raises
    ------
    ValueError
        If a column is missing, shapes disagree, or a number is not finite.
    """
    frames, others, onsets, durations = _checked(events, frame_times, nuisance)
    x, wanted = trial_basis(onsets, durations, frame_times=frames, hrf=hrf)
    full, _ = trial_basis(onsets, durations, frame_times=_beyond(frames, durations), hrf=hrf)
    return Design(x, wanted, _recorded(x[:, :1], full[:, :1]), others, frames)


def delayed(
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    delays: Sequence[int],
    averaged: Sequence[int],
) -> Design:
    """A model in which each trial has a finite impulse response.

    Parameters
    ----------
    events : DataFrame, n rows
        Columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    nuisance : array-like, shape (T, C)
    delays : sequence of int
        Scans after the onset that are modelled.
    averaged : sequence of int
        Those over which the response is the mean.

    Returns
    -------
    Design

    Raises
    ------
    ValueError
        As `canonical`, or if a delay to be averaged is not modelled.
    """
    frames, others, onsets, durations = _checked(events, frame_times, nuisance)
    if not len(averaged) or not set(averaged) <= set(delays) or len(set(delays)) != len(delays):
        raise ValueError(f"averaged: expected some of the delays {list(delays)}, got {list(averaged)}")
    x = impulses(onsets, durations, frame_times=frames, delays=delays)
    chosen = np.isin(delays, averaged)
    full = impulses(onsets, durations, frame_times=_beyond(frames, durations, max(delays)), delays=delays)
    wanted = np.tile(chosen / chosen.sum(), (len(x), 1))
    return Design(x, wanted, _recorded(x[:, chosen], full[:, chosen]), others, frames)


def high_pass(frame_times: ArrayLike, cutoff_seconds: float = 128.0) -> Float:
    """Slow drifts are modelled by a discrete cosine basis.

    Parameters
    ----------
    frame_times : array-like, shape (T,)
        Seconds. Where volumes are missing, the basis is that of the whole run, of which those rows are left out.
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
    clock, index = scans(frame_times)
    design = make_first_level_design_matrix(clock, drift_model="cosine", high_pass=1 / cutoff_seconds)
    return design.drop(columns="constant").to_numpy(dtype=np.float64)[index]


def separate(x: Float, basis: Float, wanted: Float) -> tuple[Float, Bool]:
    """A model for each trial, whose other trials share one set of regressors, solved for all trials at once.

    The trial's own regressors are made orthogonal to the others', after which they are a small regression each.

    Parameters
    ----------
    x : array, shape (n, K, T)
    basis : array, shape (T, C)
        Orthonormal basis of the nuisance.
    wanted : array, shape (n, K)
        Weights of a trial's betas.

    Returns
    -------
    operator : array, shape (n, T)
    estimable : array of bool, shape (n,)
    """
    own = x - (x @ basis) @ basis.T
    rest = own.sum(axis=0) - own
    # Other trials that vanish beside the nuisance (or do not exist) leave a model of this one's regressors.
    energy = (rest**2).sum(axis=2)
    rest[energy <= COLLINEAR * (x**2).sum(axis=(0, 2))] = 0
    rest = _unit(rest)[0]
    own, length = _unit(own, beside=x)
    inner, _ = _inverse(rest @ rest.transpose(0, 2, 1))
    own = own - (own @ rest.transpose(0, 2, 1)) @ inner @ rest
    inverse, kept = _inverse(own @ own.transpose(0, 2, 1))
    weights = np.divide(wanted, length, out=np.zeros_like(length), where=length > 0)[:, None, :]
    there = ((length > 0) | (wanted == 0)).all(axis=1)
    estimable = there & (((weights @ kept) ** 2).sum(axis=(1, 2)) > (1 - 1e-6) * (weights**2).sum(axis=(1, 2)))
    return (weights @ inverse @ own)[:, 0], estimable


def together(x: Float, basis: Float, wanted: Float) -> tuple[Float, Bool]:
    """One model with the regressors of every trial; parameters and results are those of `separate`."""
    n, k, _ = x.shape
    columns, length = unit_columns(x)
    left, scale, right = np.linalg.svd(columns - basis @ (basis.T @ columns), full_matrices=False)
    keep = scale > np.sqrt(COLLINEAR)
    left, scale, right = left[:, keep], scale[keep], right[keep]
    weights = wanted / length
    mixed = (weights[:, :, None] * right.T.reshape(n, k, len(scale))).sum(axis=1)
    # A response is estimable if its weights lie within the space the design reaches.
    return (mixed / scale) @ left.T, (mixed**2).sum(axis=1) > (1 - 1e-6) * (weights**2).sum(axis=1)


def unit_columns(x: Float) -> tuple[Float, Float]:
    """Regressors (n, K, T) as columns of length 1 (T, n * K), and their lengths (n, K); zeros have length 1.

    So a trial of a few seconds and one cut off by the end of the run weigh the same in the rank.
    """
    n, k, t = x.shape
    length = np.sqrt((x**2).sum(axis=2))
    length[length == 0] = 1
    return (x / length[:, :, None]).reshape(n * k, t).T, length


def orthonormal(columns: Float) -> Float:
    """An orthonormal basis of the columns (T, C); those that add nothing to the others are left out."""
    length = np.sqrt((columns**2).sum(axis=0))
    columns = columns[:, length > 0] / length[length > 0]
    if columns.shape[1] == 0:
        return columns
    q, r, _ = linalg.qr(columns, mode="economic", pivoting=True)
    return q[:, : int((np.abs(np.diag(r)) > 1e-9).sum())]


def check_bold(shape: tuple[int, ...], frame_times: Float) -> None:
    """ValueError unless a time series has a volume for each time."""
    if len(shape) != 2 or shape[0] != len(frame_times):
        raise ValueError(
            f"bold: expected shape ({len(frame_times)}, V) for {len(frame_times)} frame times, got {shape}"
        )


def check_runs(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
) -> None:
    """ValueError unless there is one of each for every run, the same voxels in all, and a stimulus for each trial."""
    counts = {len(part) for part in (bolds, events, frame_times, nuisance)}
    if counts != {len(bolds)} or not bolds:
        raise ValueError(f"bolds, events, frame_times, nuisance: expected one for each run, got {sorted(counts)}")
    if len({bold.shape[1] for bold in bolds}) > 1:
        raise ValueError(f"bolds: expected the same voxels in each run, got {[bold.shape[1] for bold in bolds]}")
    for table in events:
        if "stimulus_id" not in table:
            raise ValueError(f"events: expected a column 'stimulus_id', got {list(table.columns)}")


def _unit(rows: Float, beside: Float | None = None) -> tuple[Float, Float]:
    """Rows (n, K, T) of length 1, and their lengths; both zero where next to nothing is left beside the original."""
    length = np.sqrt((rows**2).sum(axis=2))
    if beside is not None:
        length[length**2 <= COLLINEAR * (beside**2).sum(axis=2)] = 0
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return rows * inverse[:, :, None], length


def _inverse(products: Float) -> tuple[Float, Float]:
    """Pseudo-inverses of inner products (n, K, K) of unit rows, and projections onto what they span."""
    values, vectors = np.linalg.eigh(products)
    keep = values > COLLINEAR
    inverse = np.where(keep, 1 / np.where(keep, values, 1), 0)
    turned = vectors.transpose(0, 2, 1)
    return (vectors * inverse[:, None, :]) @ turned, (vectors * keep[:, None, :]) @ turned


def _checked(events: pd.DataFrame, frame_times: ArrayLike, nuisance: ArrayLike) -> tuple[Float, Float, Float, Float]:
    frames, others = np.asarray(frame_times, dtype=np.float64), np.asarray(nuisance, dtype=np.float64)
    if others.ndim != 2 or len(others) != len(frames):
        raise ValueError(f"nuisance: expected shape ({len(frames)}, C), got {others.shape}")
    if not np.isfinite(others).all():
        bad = np.flatnonzero(~np.isfinite(others).all(axis=0)).tolist()
        raise ValueError(f"nuisance: expected finite numbers, got NaN or infinity in columns {bad}")
    for column in ("onset", "duration"):
        if column not in events:
            raise ValueError(f"events: expected a column {column!r}, got {list(events.columns)}")
    onsets, durations = (events[column].to_numpy(dtype=np.float64) for column in ("onset", "duration"))
    return frames, others, onsets, durations


def _beyond(frames: Float, durations: Float, delay: int = 0) -> Float:
    """The same run, had no volume been left out and the scanner gone on until the last response was over."""
    if frames.ndim != 1 or len(frames) < 2 or not (np.diff(frames) > 0).all() or not np.isfinite(durations).all():
        return frames
    clock, _ = scans(frames)
    step = clock[1] - clock[0]
    before = np.arange(np.ceil(LEAD_IN / step), 0, -1) * step
    after = np.arange(1, np.ceil((durations.max(initial=0.0) + _AFTER) / step) + delay + 1) * step
    return np.concatenate([clock[0] - before, clock, clock[-1] + after])


def _recorded(x: Float, full: Float) -> Bool:
    """Whether enough of all of a trial's regressors (n, K, time) lies inside the run."""
    inside, whole = ((table**2).sum(axis=2) for table in (x, full))
    return np.asarray((inside > _RECORDED * whole).all(axis=1))
