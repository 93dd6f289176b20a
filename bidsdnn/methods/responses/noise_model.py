"""Noise that remembers itself: AR(1) coefficients, whitening, and estimates for each voxel's own coefficient.

The one idea: voxels whose coefficients round to the same hundredth share one whitened operator, so a run needs some
sixty small designs and as many matrix products, not one model a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.responses.design import Bool, Design, Float, Operator, check_bold, orthonormal
from bidsdnn.methods.responses.hrf import scans

NOISES = ("ols", "ar1")

VOXELS = 1024
"""Voxels estimated at a time: as many as stay in a processor's cache."""

_BINS = 100
"""Coefficients are cut to hundredths, towards zero, as nilearn's ``run_glm`` does."""

OPERATOR_BYTES = 256 * 2**20
"""Operators kept for the coefficients of the next voxels."""


def ar1_coefficients(
    bold: NDArray[np.floating], design: ArrayLike, *, frame_times: ArrayLike, device: str = "cpu"
) -> Float:
    """Temporal autocorrelation was estimated per voxel from the residuals of ordinary least squares.

    The Yule-Walker estimate of nilearn's ``run_glm``: the mean product of neighbouring residuals over their mean
    square, cut to hundredths towards zero. Only pairs of volumes that are one repetition time apart count.

    Parameters
    ----------
    bold : array, shape (T, V)
    design : array-like, shape (T, P)
        All regressors, trials and nuisance.
    frame_times : array-like, shape (T,)
        Seconds.
    device : str
        Where torch multiplies.

    Returns
    -------
    array, shape (V,)
        NaN where the time series is constant or not finite; within -.99 and .99.

    Raises
    ------
    ValueError
        If shapes disagree.
    """
    frames = np.asarray(frame_times, dtype=np.float64)
    check_bold(bold.shape, frames)
    where = float64_device(device)
    residuals = _Autocorrelation(orthonormal(np.asarray(design, dtype=np.float64)), frames, where)
    found = np.full(bold.shape[1], np.nan)
    for voxels in blocks(bold.shape[1], VOXELS):
        series, usable = usable_series(bold, voxels, where)
        found[np.arange(voxels.start, voxels.stop)[usable]] = residuals(series)
    return found


def whiten(table: Float, rho: float, steps: NDArray[np.intp]) -> Float:
    """Take from each volume what the one before it predicts.

    The first volume is left as it is, as in nilearn. After a gap of g volumes the prediction is rho ** g, and what
    is left is scaled to the variance of the others.

    Parameters
    ----------
    table : array, shape (..., T)
    rho : float
        Between -1 and 1.
    steps : array of int, shape (T - 1,)
        Repetition times between neighbouring volumes.

    Returns
    -------
    array, shape (..., T)
    """
    predicted, scale = _prediction(rho, steps)
    out = np.array(table, dtype=np.float64)
    out[..., 1:] = scale * (out[..., 1:] - predicted * np.asarray(table)[..., :-1])
    return out


def estimate(
    design: Design,
    solve: Operator,
    bold: NDArray[np.floating],
    *,
    noise: str,
    rho: ArrayLike | None,
    residual_design: Callable[[Design], Float],
    device: str,
) -> NDArray[np.float32]:
    """Multiply the estimator with the time series, a block of voxels at a time.

    Parameters
    ----------
    design : Design
    solve : callable
        `separate` or `together`.
    bold : array, shape (T, V)
    noise : {"ols", "ar1"}
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, used as they are; estimated if absent.
    residual_design : callable
        The regressors (T, P) whose residuals give the coefficients.
    device : str

    Returns
    -------
    array, shape (n, V)
        NaN in rows that are not estimable, and columns that are constant or not finite.

    Raises
    ------
    ValueError
        If shapes disagree, the noise model is unknown, or a coefficient is not within -1 and 1.
    """
    check_bold(bold.shape, design.frame_times)
    given = check_noise(noise, rho, bold.shape[1])
    where = float64_device(device)
    operators = _Operators(design, solve, where)
    rows = np.flatnonzero(operators.estimable)
    responses = np.full((len(design.x), bold.shape[1]), np.nan, dtype=np.float32)
    residuals = None
    if noise == "ar1" and given is None:
        residuals = _Autocorrelation(orthonormal(residual_design(design)), design.frame_times, where)
    for voxels in blocks(bold.shape[1], VOXELS):
        series, usable = usable_series(bold, voxels, where)
        columns = np.arange(voxels.start, voxels.stop)[usable]
        if noise == "ols":
            found = operators(0.0) @ series
        else:
            own = residuals(series) if residuals is not None else np.asarray(given)[columns]
            found, order = by_coefficient(own, series, operators)
            columns = columns[order]
        place(responses, rows, columns, found)
    return responses


def by_coefficient(
    rho: Float, series: torch.Tensor, operators: Callable[[float], torch.Tensor]
) -> tuple[torch.Tensor, NDArray[np.intp]]:
    """Each voxel's estimates by the operator of its coefficient (n, v), and the voxels' order in them (v,)."""
    order = np.argsort(rho, kind="stable")
    values, first = np.unique(rho[order], return_index=True)
    sorted_series = series[:, torch.from_numpy(order).to(series.device)]
    parts = [
        operators(float(value)) @ sorted_series[:, begin:end]
        for value, begin, end in zip(values, first, [*first[1:], len(order)], strict=True)
    ]
    return torch.cat(parts, dim=1) if parts else operators(0.0) @ series, order


def place(responses: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], found: Any) -> None:
    """Write estimates (rows, columns) into the table, as one block where they are one."""
    numbers = found.cpu().numpy()
    if len(rows) == len(responses) and len(columns) and (np.diff(columns) == 1).all():
        responses[:, columns[0] : columns[-1] + 1] = numbers
    else:
        responses[np.ix_(rows, columns)] = numbers


def usable_series(bold: NDArray[np.floating], voxels: slice, where: torch.device) -> tuple[torch.Tensor, Bool]:
    """The time series of a block of voxels that vary and are finite (T, usable), and which ones those are."""
    series = np.array(bold[:, voxels], dtype=np.float64)
    # NaN and infinity are the largest or the smallest of their column.
    highest, lowest = series.max(axis=0), series.min(axis=0)
    usable = np.isfinite(highest) & np.isfinite(lowest) & (highest > lowest)
    return torch.from_numpy(series if usable.all() else series[:, usable]).to(where), usable


class _Autocorrelation:
    """From time series (T, v) to their AR(1) coefficients (v,), beside a basis of the model (T, rank)."""

    def __init__(self, basis: Float, frame_times: Float, where: torch.device) -> None:
        self.basis = torch.from_numpy(np.ascontiguousarray(basis)).to(where)
        self.steps = np.diff(scans(frame_times)[1])

    def __call__(self, series: torch.Tensor) -> Float:
        residuals = series - self.basis @ (self.basis.T @ series)
        return binned(*lagged(residuals, self.steps), mean_product(series, series))


def lagged(residuals: torch.Tensor, steps: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean square of residuals (T, v), and mean product of those one repetition time apart, about their mean."""
    residuals = residuals - residuals.mean(dim=0)
    before, after = residuals[:-1], residuals[1:]
    if (steps != 1).any():
        adjacent = torch.from_numpy(np.flatnonzero(steps == 1)).to(residuals.device)
        before, after = before[adjacent], after[adjacent]
    return mean_product(residuals, residuals), mean_product(before, after)


def mean_product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the product of two tables (T, v)."""
    return (one * other).sum(dim=0) / max(len(one), 1)


def binned(energy: torch.Tensor, shared: torch.Tensor, original: torch.Tensor) -> Float:
    """AR(1) coefficients cut to hundredths; 0 where the model explains the series (of mean square `original`)."""
    explained = energy <= 1e-20 * original
    ratio = torch.where(explained, 0.0, shared / torch.where(explained, 1.0, energy))
    return np.asarray((torch.trunc(ratio.clamp(-0.99, 0.99) * _BINS) / _BINS).cpu().numpy())


class _Operators:
    """The estimator of a design at each AR(1) coefficient, for data that were not whitened."""

    def __init__(self, design: Design, solve: Operator, where: torch.device) -> None:
        self.design, self.solve, self.where = design, solve, where
        self.steps = np.diff(scans(design.frame_times)[1])
        plain, estimable = solve(design.x, orthonormal(design.nuisance), design.wanted)
        self.estimable = estimable & design.recorded
        self.kept = {0.0: self._rows(plain)}

    def __call__(self, rho: float) -> torch.Tensor:
        if rho not in self.kept:
            # Full whitening changes no rank, so what is estimable is decided once, without it.
            design = self.design
            basis = orthonormal(whiten(design.nuisance.T, rho, self.steps).T)
            operator, _ = self.solve(whiten(design.x, rho, self.steps), basis, design.wanted)
            if len(self.kept) * operator.nbytes > OPERATOR_BYTES:
                self.kept = {0.0: self.kept[0.0]}
            self.kept[rho] = self._rows(whitening(operator, rho, self.steps))
        return self.kept[rho]

    def _rows(self, operator: Float) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(operator[self.estimable])).to(self.where)


def whitening(operator: Float, rho: float, steps: NDArray[np.intp]) -> Float:
    """The operator (n, T) times the whitening matrix: applied to raw data, it does what it did to whitened data."""
    predicted, scale = _prediction(rho, steps)
    scaled = operator * np.concatenate([[1.0], scale])
    out = scaled.copy()
    out[:, :-1] -= scaled[:, 1:] * predicted
    return out


def _prediction(rho: float, steps: NDArray[np.intp]) -> tuple[Float, Float]:
    """How much of the volume before is in each but the first, and the factor that restores the variance."""
    predicted = np.power(float(rho), steps)
    return predicted, np.sqrt((1 - rho**2) / (1 - predicted**2))


def check_noise(noise: str, rho: ArrayLike | None, n_voxels: int) -> Float | None:
    """AR(1) coefficients (V,) if any are given; ValueError if they or the noise model are out of the question."""
    if noise not in NOISES:
        raise ValueError(f"noise: expected one of {list(NOISES)}, got {noise!r}")
    if rho is None:
        return None
    if noise == "ols":
        raise ValueError("rho: expected none with noise 'ols', which has no autocorrelation; use noise 'ar1'")
    given = np.asarray(rho, dtype=np.float64)
    if given.shape not in ((), (n_voxels,)):
        raise ValueError(f"rho: expected one number or shape ({n_voxels},), got {given.shape}")
    if (np.abs(given) >= 1).any():
        raise ValueError("rho: expected numbers between -1 and 1")
    return np.array(np.broadcast_to(given, n_voxels))
