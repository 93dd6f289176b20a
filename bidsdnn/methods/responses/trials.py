"""One response per trial of a run: least squares with a model per trial, or with one for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.responses.design import Design, Float, canonical, delayed, separate, together
from bidsdnn.methods.responses.hrf import Kernel
from bidsdnn.methods.responses.noise_model import estimate

_PEAK = (4.0, 8.0)
"""Seconds after the onset between which the canonical response is near its peak."""

_COURSE = 20.0
"""Seconds after the onset that a finite impulse response models if it is not told."""


def lss(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    noise: str = "ols",
    rho: ArrayLike | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were estimated by least squares separate: a model per trial, the others in one regressor.

    Mumford et al. (2012), NeuroImage 59, 2636-2643. With derivatives, a trial's model has those of the trial and
    those of the others as well, and the response is the beta of the canonical regressor, to which the derivatives
    are orthogonal as in nilearn. AR(1) coefficients are those of the model in which all trials share one
    regressor, which is what the models of all trials have in common.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, n_trials rows
        One trial a row; columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired. Volumes may be left out of everything that has T rows.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included. Collinear columns are dropped.
    hrf : str or callable
        One of `HRFS`, or a function as in `trial_regressors`.
    noise : {"ols", "ar1"}
        Ordinary least squares, or prewhitened for AR(1) noise, for each voxel by its own coefficient.
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, used as they are; from `ar1_coefficients` if absent.
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
    design = canonical(events, frame_times=frame_times, nuisance=nuisance, hrf=hrf)
    return estimate(design, separate, bold, noise=noise, rho=rho, residual_design=_shared, device=device)


def lsa(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    noise: str = "ols",
    rho: ArrayLike | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were estimated by least squares all: one model with a regressor for every trial.

    Parameters, returned values and errors are those of `lss`. A trial is not estimable when its regressor is
    a combination of the others and the nuisance; the others are estimated all the same. AR(1) coefficients are
    those of this model.

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
    hrf : str or callable
        One of `HRFS`, or a function as in `trial_regressors`.
    noise : {"ols", "ar1"}
        Ordinary least squares, or prewhitened for AR(1) noise.
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, used as they are; estimated if absent.
    device : str
        Where torch multiplies.

    Returns
    -------
    array, shape (n_trials, V)
        Responses in the units of ``bold``; NaN as in `lss`.

    Raises
    ------
    ValueError
        As `lss`.
    """
    design = canonical(events, frame_times=frame_times, nuisance=nuisance, hrf=hrf)
    return estimate(design, together, bold, noise=noise, rho=rho, residual_design=everything, device=device)


def fir(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    noise: str = "ols",
    delays: Sequence[int] | None = None,
    averaged: Sequence[int] | None = None,
    rho: ArrayLike | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were means over delays of a finite impulse response, in a model per trial, the others in another.

    Turner et al. (2012), NeuroImage 62, 1429-1438: least squares separate without a canonical shape. Each
    trial's model has an impulse at each delay for the trial, and one for all other trials (nilearn's
    ``hrf_model="fir"``). `fir_courses` gives all delays of a condition.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, n_trials rows
        One trial a row; columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included.
    hrf : str
        Has no part in it; there for the sake of `RESPONSES`.
    noise : {"ols", "ar1"}
        Ordinary least squares, or prewhitened for AR(1) noise.
    delays : sequence of int, optional
        Scans after the onset that are modelled, 0 the volume at the onset; those up to 20 s if absent.
    averaged : sequence of int, optional
        Delays over which the response is the mean; those from 4 to 8 s if absent.
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, as in `lss`.
    device : str
        Where torch multiplies.

    Returns
    -------
    array, shape (n_trials, V)
        Responses in the units of ``bold``; NaN as in `lss`.

    Raises
    ------
    ValueError
        As `lss`, or if a delay is no whole number of at least 0 or is averaged but not modelled.
    """
    chosen = default_delays(frame_times) if delays is None else delays
    if averaged is None:
        step = float(np.diff(np.asarray(frame_times, dtype=np.float64)).min())
        averaged = [delay for delay in chosen if _PEAK[0] <= delay * step + 1e-6 and delay * step <= _PEAK[1] + 1e-6]
    design = delayed(events, frame_times=frame_times, nuisance=nuisance, delays=chosen, averaged=averaged)
    return estimate(design, separate, bold, noise=noise, rho=rho, residual_design=_shared, device=device)


def default_delays(frame_times: ArrayLike) -> list[int]:
    """Delays, in scans, from the onset to 20 s after it."""
    step = float(np.diff(np.asarray(frame_times, dtype=np.float64)).min(initial=np.inf))
    if not 0 < step < np.inf:
        raise ValueError(f"frame_times: expected at least 2 rising times, got shape {np.shape(frame_times)}")
    return list(range(int(_COURSE / step + 1e-6) + 1))


def everything(design: Design) -> Float:
    """All regressors of a model (T, P): each trial's, and the nuisance."""
    n, k, t = design.x.shape
    return np.hstack([design.x.reshape(n * k, t).T, design.nuisance])


def _shared(design: Design) -> Float:
    """The regressors of a model in which all trials respond alike (T, K + C)."""
    return np.hstack([design.x.sum(axis=0).T, design.nuisance])
