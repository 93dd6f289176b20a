"""Which trials a design cannot estimate and why, and how far the others are blurred by each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bidsdnn.methods.responses.design import (
    COLLINEAR,
    Design,
    Float,
    canonical,
    orthonormal,
    separate,
    together,
    unit_columns,
)
from bidsdnn.methods.responses.hrf import Kernel

_NAMED = 5
"""Trials that a reason names."""

_SOLVERS = {"lss": separate, "lsa": together}


def reasons(
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    response: str = "lss",
) -> list[str]:
    """Say of each trial why it cannot be estimated.

    Parameters
    ----------
    events : DataFrame, n_trials rows
        Columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    nuisance : array-like, shape (T, C)
        Everything else in the model.
    hrf : str or callable
        As in `lss`.
    response : {"lss", "lsa"}

    Returns
    -------
    list of str, length n_trials
        Empty for a trial that can be estimated. Otherwise ``its response was not recorded``, ``collinear with the
        nuisance regressors``, or ``collinear with trials 6, 7`` (rows of `events`, from 0) and the like.

    Raises
    ------
    ValueError
        As `lss`, or if the estimator is another one.
    """
    design = canonical(events, frame_times=frame_times, nuisance=nuisance, hrf=hrf)
    basis = orthonormal(design.nuisance)
    _, estimable = _solver(response)(design.x, basis, design.wanted)
    first = design.x[:, 0]
    left = first - (first @ basis) @ basis.T
    alone = (left**2).sum(axis=1) <= COLLINEAR * (first**2).sum(axis=1)
    others = _partners(design, basis)
    said = []
    for trial in range(len(first)):
        if not design.recorded[trial]:
            said.append("its response was not recorded")
        elif estimable[trial]:
            said.append("")
        elif alone[trial]:
            said.append("collinear with the nuisance regressors")
        elif response == "lsa" and others[trial]:
            said.append(f"collinear with {_named(others[trial])}")
        else:
            said.append("collinear with the other trials")
    return said


def variance_inflation(
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    response: str = "lss",
) -> Float:
    """Collinearity is the variance inflation factor: 1 / (1 - R2) of a trial's regressor on the rest of its model.

    Parameters and errors are those of `reasons`.

    Parameters
    ----------
    events : DataFrame, n_trials rows
        Columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    nuisance : array-like, shape (T, C)
        Everything else in the model.
    hrf : str or callable
        As in `lss`.
    response : {"lss", "lsa"}

    Returns
    -------
    array, shape (n_trials,)
        At least 1; NaN for a trial that cannot be estimated.
    """
    design = canonical(events, frame_times=frame_times, nuisance=nuisance, hrf=hrf)
    weights = np.zeros_like(design.wanted)
    weights[:, 0] = 1
    # The norm of a row of the estimator is one over what the rest of the model leaves of the regressor.
    operator, estimable = _solver(response)(design.x, orthonormal(design.nuisance), weights)
    spread = ((design.x[:, 0] - design.x[:, 0].mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.where(estimable & design.recorded, spread * (operator**2).sum(axis=1), np.nan)


def _solver(response: str):  # type: ignore[no-untyped-def]
    if response not in _SOLVERS:
        raise ValueError(f"response: expected one of {sorted(_SOLVERS)}, got {response!r}")
    return _SOLVERS[response]


def _partners(design: Design, basis: Float) -> list[list[int]]:
    """The other recorded trials in the combinations of regressors that vanish, for each trial."""
    columns, _ = unit_columns(design.x)
    n, k, _ = design.x.shape
    columns = columns - basis @ (basis.T @ columns)
    values, vectors = np.linalg.eigh(columns.T @ columns)
    null = vectors[:, values <= COLLINEAR]
    shared = np.abs((null @ null.T).reshape(n, k, n, k)).max(axis=(1, 3)) > 1e-3
    # A trial of zeros vanishes on its own.
    shared &= design.recorded & design.recorded[:, None] & ~np.eye(n, dtype=bool)
    return [np.flatnonzero(row).tolist() for row in shared]


def _named(trials: Sequence[int]) -> str:
    named = ", ".join(str(trial) for trial in trials[:_NAMED])
    more = len(trials) - _NAMED
    return f"trial{'s' if len(trials) > 1 else ''} {named}" + (f" and {more} more" if more > 0 else "")
