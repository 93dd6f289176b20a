"""What the model of the trials leaves: the noise between voxels that Mahalanobis distances divide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.covariance import ledoit_wolf_shrinkage

from bidsdnn.methods.responses.design import Float, canonical, check_bold, orthonormal
from bidsdnn.methods.responses.hrf import Kernel
from bidsdnn.methods.responses.trials import everything

SHRINKAGES = ("full", "shrinkage", "diagonal")


def residuals(
    bold: Any,
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    columns: ArrayLike | slice = slice(None),
) -> tuple[Float, int]:
    """What is left of the time series by a model with a regressor for every trial.

    Parameters
    ----------
    bold : array, shape (T, V)
        Anything with a ``shape`` that can be sliced ``bold[:, columns]``.
    events : DataFrame
        Columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included.
    hrf : str or callable
        As in `lss`.
    columns : array-like of int or bool, or slice
        The k voxels wanted, as a region's.

    Returns
    -------
    residuals : array, shape (T, k)
        NaN in the column of a voxel that is constant or not finite.
    dof : int
        Degrees of freedom: T less the rank of the model.

    Raises
    ------
    ValueError
        As `lss`.
    """
    design = canonical(events, frame_times=frame_times, nuisance=nuisance, hrf=hrf)
    check_bold(bold.shape, design.frame_times)
    basis = orthonormal(everything(design))
    chosen = columns if isinstance(columns, slice) else np.asarray(columns)
    series = np.array(bold[:, chosen], dtype=np.float64)
    left = series - basis @ (basis.T @ series)
    left[:, ~np.isfinite(series).all(axis=0) | (series == series[:1]).all(axis=0)] = np.nan
    return left, len(series) - basis.shape[1]


def residual_covariance(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    *,
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
    hrf: str | Kernel = "spm",
    columns: ArrayLike | slice = slice(None),
    method: str = "full",
) -> tuple[Float, int]:
    """The noise covariance is that of the residuals of a model with a regressor for every trial, over all runs.

    Runs are read one at a time, and of each only the wanted voxels.

    Parameters
    ----------
    bolds : sequence of R array, shape (T_r, V)
        As in `residuals`.
    events : sequence of R DataFrame
    frame_times : sequence of R array-like, shape (T_r,)
    nuisance : sequence of R array-like, shape (T_r, C_r)
    hrf : str or callable
        As in `lss`.
    columns : array-like of int or bool, or slice
        The k voxels wanted, as a region's.
    method : {"full", "shrinkage", "diagonal"}
        As measured; towards a multiple of the identity, by as much as Ledoit & Wolf (2004), Journal of Multivariate
        Analysis 88, 365-411, estimate; or the variances alone.

    Returns
    -------
    covariance : array, shape (k, k)
        Divided by `dof`. NaN in the rows and columns of voxels that are constant or not finite in any run.
    dof : int
        Degrees of freedom, summed over runs.

    Raises
    ------
    ValueError
        As `residuals`, if the method is unknown, or no degree of freedom is left.
    """
    if method not in SHRINKAGES:
        raise ValueError(f"method: expected one of {list(SHRINKAGES)}, got {method!r}")
    dof, parts = 0, []
    for bold, table, times, others in zip(bolds, events, frame_times, nuisance, strict=True):
        left, free = residuals(bold, table, frame_times=times, nuisance=others, hrf=hrf, columns=columns)
        parts.append(left)
        dof += free
    table = np.vstack(parts)
    if dof < 1:
        raise ValueError(f"bolds: {len(table)} volumes leave no degree of freedom beside the model; drop regressors")
    usable = np.isfinite(table).all(axis=0)
    covariance, left = np.full((table.shape[1],) * 2, np.nan), table[:, usable]
    inside = left.T @ left / dof
    if method == "diagonal":
        inside = np.diag(np.diag(inside))
    elif method == "shrinkage" and usable.any():
        share = ledoit_wolf_shrinkage(left, assume_centered=True)
        inside = (1 - share) * inside + share * np.trace(inside) / len(inside) * np.eye(len(inside))
    covariance[np.ix_(usable, usable)] = inside
    return covariance, dof
