"""One response per stimulus from all runs at once.

The one idea: a stimulus has one beta in all runs and the nuisance its own in each, so with the nuisance projected out
run by run, the normal equations are sums over runs, and no two runs are in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.responses.design import (
    COLLINEAR,
    Bool,
    Design,
    Float,
    canonical,
    check_bold,
    check_runs,
    orthonormal,
)
from bidsdnn.methods.responses.hrf import Kernel, kind_basis, scans
from bidsdnn.methods.responses.noise_model import (
    OPERATOR_BYTES,
    VOXELS,
    binned,
    by_coefficient,
    check_noise,
    lagged,
    mean_product,
    place,
    usable_series,
    whiten,
    whitening,
)


def condition(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    *,
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
    hrf: str | Kernel = "spm",
    noise: str = "ols",
    rho: ArrayLike | None = None,
    device: str = "cpu",
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Responses were estimated by one model of all runs, with a regressor for every stimulus.

    Equal to least squares of the runs' time series one below the other, on the stimuli's regressors and, for each
    run, its own nuisance.

    Parameters
    ----------
    bolds : sequence of R array-like, shape (T_r, V)
        Time series of each run: arrays, memory maps, or anything else with a ``shape`` that can be sliced
        ``bold[:, a:b]``; a block of voxels is held at a time. (What a memory map has read stays in memory until it
        is closed, so for many large runs a slice had better open it anew.)
    events : sequence of R DataFrame
        Columns ``onset`` and ``duration`` in seconds, and ``stimulus_id``.
    frame_times : sequence of R array-like, shape (T_r,)
        Seconds, on each run's clock; volumes may be missing.
    nuisance : sequence of R array-like, shape (T_r, C_r)
        Everything else in each run's model, its constant included.
    hrf : str or callable
        As in `lss`; derivatives are further regressors of each stimulus.
    noise : {"ols", "ar1"}
        With AR(1) noise, a voxel has one coefficient in all runs.
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, used as they are; estimated from the residuals of ordinary least squares if absent.
    device : str
        Where torch multiplies.

    Returns
    -------
    items : DataFrame, S rows
        ``stimulus_id``, sorted, ``n_repeats`` (trials), and ``estimated``: whether the design tells the stimulus
        from the others.
    values : array, shape (S, V)
        In the units of the bold. NaN in rows that are not estimated, and in the column of a voxel that is constant
        or not finite in any run.

    Raises
    ------
    ValueError
        As `lss`, or if the sequences have different lengths or the runs different numbers of voxels.
    """
    items, designs = stimulus_designs(bolds, events, frame_times, nuisance, hrf)
    n_voxels = bolds[0].shape[1]
    given = check_noise(noise, rho, n_voxels)
    where = float64_device(device)
    operators = _Operators(designs, where)
    items["estimated"] = operators.estimable
    rows = np.flatnonzero(operators.estimable)
    values = np.full((len(items), n_voxels), np.nan, dtype=np.float32)
    for voxels in blocks(n_voxels, VOXELS):
        series, usable = _usable_in_all(bolds, voxels, where)
        columns = np.arange(voxels.start, voxels.stop)[usable]
        if noise == "ols":
            found = operators(0.0) @ series
        else:
            own = operators.autocorrelation(series) if given is None else given[columns]
            found, order = by_coefficient(own, series, operators)
            columns = columns[order]
        place(values, rows, columns, found)
    return items, values


def stimulus_designs(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
    hrf: str | Kernel,
) -> tuple[pd.DataFrame, list[Design]]:
    """Stimuli of all runs, and each run's model of them; a stimulus that a run does not show has zeros there.

    Parameters and errors are those of `condition`.

    Returns
    -------
    items : DataFrame, S rows
        ``stimulus_id`` and ``n_repeats``.
    designs : list of Design
        With S "trials" each, of which those are recorded that have a recorded trial in the run.
    """
    check_runs(bolds, events, frame_times, nuisance)
    shown = pd.concat([table["stimulus_id"] for table in events]).astype(str)
    ids, repeats = np.unique(shown.to_numpy(dtype=str), return_counts=True)
    designs = []
    for bold, table, times, others in zip(bolds, events, frame_times, nuisance, strict=True):
        trials = canonical(table, frame_times=times, nuisance=others, hrf=hrf)
        check_bold(bold.shape, trials.frame_times)
        which = np.searchsorted(ids, table["stimulus_id"].astype(str).to_numpy(dtype=str))
        x = kind_basis(table["onset"], table["duration"], which, len(ids), frame_times=times, hrf=hrf)
        recorded = np.zeros(len(ids), dtype=bool)
        np.logical_or.at(recorded, which, trials.recorded)
        designs.append(replace(trials, x=x, recorded=recorded))
    return pd.DataFrame({"stimulus_id": ids.astype(object), "n_repeats": repeats}), designs


class _Operators:
    """The estimator of all runs at each AR(1) coefficient.

    The runs' operators stand side by side (S, sum of T_r), so that the product with the runs' series one below the
    other is the sum over runs.
    """

    def __init__(self, designs: list[Design], where: torch.device) -> None:
        self.designs, self.where = designs, where
        self.steps = [np.diff(scans(design.frame_times)[1]) for design in designs]
        self.bases = [orthonormal(design.nuisance) for design in designs]
        self.betas, estimable = _solve([design.x for design in designs], self.bases)
        recorded = np.any([design.recorded for design in designs], axis=0)
        self.estimable: Bool = estimable & recorded
        self.rows = np.flatnonzero(self.estimable) * designs[0].x.shape[1]
        self.kept = {0.0: self._tensor(np.hstack(self.betas)[self.rows])}

    def __call__(self, rho: float) -> torch.Tensor:
        """Operators of the estimable stimuli, for data that were not whitened."""
        if rho not in self.kept:
            pairs = list(zip(self.designs, self.steps, strict=True))
            bases = [orthonormal(whiten(design.nuisance.T, rho, steps).T) for design, steps in pairs]
            found, _ = _solve([whiten(design.x, rho, steps) for design, steps in pairs], bases)
            found = [whitening(one[self.rows], rho, steps) for one, steps in zip(found, self.steps, strict=True)]
            if len(self.kept) * sum(one.nbytes for one in found) > OPERATOR_BYTES:
                self.kept = {0.0: self.kept[0.0]}
            self.kept[rho] = self._tensor(np.hstack(found))
        return self.kept[rho]

    def autocorrelation(self, series: torch.Tensor) -> Float:
        """AR(1) coefficients (v,) of the residuals of all runs."""
        betas = self._tensor(np.hstack(self.betas)) @ series
        sums = torch.zeros(3, series.shape[1], dtype=torch.float64, device=self.where)
        parts = series.split([len(design.frame_times) for design in self.designs])
        for run, design, basis, steps in zip(parts, self.designs, self.bases, self.steps, strict=True):
            x, q = self._tensor(design.x.reshape(-1, design.x.shape[2])), self._tensor(basis)
            residuals = run - x.T @ betas
            residuals -= q @ (q.T @ residuals)
            energy, shared = lagged(residuals, steps)
            sums += len(run) * torch.stack([energy, shared, mean_product(run, run)])
        return binned(*sums)

    def _tensor(self, table: Float) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(table)).to(self.where)


def _solve(regressors: list[Float], bases: list[Float]) -> tuple[list[Float], Bool]:
    """Operators (S * K, T_r) of one model of all runs, and which stimuli's first regressor is estimable (S,)."""
    s, k, _ = regressors[0].shape
    tables = [x.reshape(s * k, -1) for x in regressors]
    length = np.sqrt(sum((table**2).sum(axis=1) for table in tables))
    length[length == 0] = 1
    tables = [table / length[:, None] for table in tables]
    left = [table - (table @ basis) @ basis.T for table, basis in zip(tables, bases, strict=True)]
    values, vectors = np.linalg.eigh(sum(table @ table.T for table in left))
    keep = values > COLLINEAR
    vectors = vectors[:, keep]
    inverse = (vectors / values[keep]) @ vectors.T / length[:, None]
    reached = ((vectors**2).sum(axis=1) > 1 - 1e-6).reshape(s, k)
    return [inverse @ table for table in left], reached[:, 0]


def _usable_in_all(bolds: Sequence[Any], voxels: slice, where: torch.device) -> tuple[torch.Tensor, Bool]:
    """All runs' time series (sum of T_r, v) of voxels that vary and are finite in every run, and which those are."""
    found = [usable_series(bold, voxels, where) for bold in bolds]
    usable = np.logical_and.reduce([one for _, one in found])
    parts = [
        series if one.sum() == usable.sum() else series[:, torch.from_numpy(np.flatnonzero(usable[one])).to(where)]
        for series, one in found
    ]
    return torch.cat(parts), usable
