"""Noise between channels, and patterns in folds: what Mahalanobis and cross-validated distances are given.

The one idea: a precision matrix weighs channels by how reliable they are, together and apart; a diagonal one is
kept as a vector, so that a whole brain's fits in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


SHRINKAGE = ("diagonal", "shrunk", "full")


def trial_scatter(values: ArrayLike, stimulus: ArrayLike) -> tuple[Float, int]:
    """Deviations of trials from the mean of their stimulus, as a sample of the noise.

    Parameters
    ----------
    values : array-like, shape (trials, p)
    stimulus : array-like, shape (trials,)
        Which stimulus each trial showed; those shown once tell nothing of the noise.

    Returns
    -------
    deviations : array, shape (t, p)
        Of the trials of stimuli shown twice or more.
    dof : int
        t less the number of those stimuli.

    Raises
    ------
    ValueError
        If no stimulus was repeated, or shapes disagree.
    """
    table, labels = np.asarray(values, dtype=np.float64), np.asarray(stimulus)
    if table.ndim != 2 or labels.shape != table.shape[:1]:
        raise ValueError(f"values, stimulus: expected (trials, p) and (trials,), got {table.shape}, {labels.shape}")
    _, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    repeated = count[code] > 1
    if not repeated.any():
        raise ValueError("stimulus: no stimulus was repeated, so that the scatter of trials tells nothing of the noise")
    sums = np.zeros((len(count), table.shape[1]))
    np.add.at(sums, code, table)
    return (table - sums[code] / count[code, None])[repeated], int(repeated.sum() - (count > 1).sum())


def noise_covariance(residuals: ArrayLike, *, method: str = "diagonal", dof: int | None = None) -> Float:
    """The noise covariance of channels, from residuals of the responses or scatter of the trials.

    Covariances are about the mean of each channel, as in rsatoolbox (its "diag", "shrinkage_eye" and "full").

    Parameters
    ----------
    residuals : array-like, shape (t, p)
        A time point or trial in each row, a channel in each column.
    method : str
        "diagonal": variances alone. "shrunk": towards a multiple of the identity, by as much as Ledoit &
        Wolf (2004), Journal of Multivariate Analysis 88, 365-411, estimate. "full": as measured.
    dof : int, optional
        Degrees of freedom of the residuals; t - 1 if absent.

    Returns
    -------
    array, shape (p,) for "diagonal", else (p, p)

    Raises
    ------
    ValueError
        If the method is unknown, the table is not two-dimensional, has fewer than two rows, holds a value that
        is not finite or a constant channel.
    """
    table = np.asarray(residuals, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"residuals: expected shape (t, p) with t of at least 2, got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("residuals: expected finite numbers, got NaN or infinity")
    if method not in SHRINKAGE:
        raise ValueError(f"method: expected diagonal, shrunk or full, got {method!r}")
    t = len(table)
    dof = t - 1 if dof is None else dof
    if dof < 1:
        raise ValueError(f"dof: expected at least 1, got {dof}")
    table = table - table.mean(axis=0)
    variance = np.einsum("ij,ij->j", table, table) / dof
    if (variance == 0).any():
        raise ValueError(f"residuals: channel {int(np.argmin(variance))} is constant, its noise has no inverse")
    if method == "diagonal":
        return np.asarray(variance)
    if method == "shrunk":
        from sklearn.covariance import ledoit_wolf

        return np.asarray(ledoit_wolf(table, assume_centered=True)[0] * t / dof)
    return np.asarray(table.T @ table / dof)


def noise_precision(residuals: ArrayLike, *, method: str = "diagonal", dof: int | None = None) -> Float:
    """The inverse of the noise covariance of channels, from residuals of the responses or scatter of the trials.

    Parameters
    ----------
    residuals, method, dof
        As in `noise_covariance`; "full" needs as many degrees of freedom as channels.

    Returns
    -------
    array, shape (p,) for "diagonal", else (p, p)

    Raises
    ------
    ValueError
        As `noise_covariance`, and if a full covariance has no inverse.
    """
    table = np.asarray(residuals, dtype=np.float64)
    rank = len(table) - 1 if dof is None else dof
    if method == "full" and table.ndim == 2 and 1 <= rank < table.shape[1]:
        p = table.shape[1]
        raise ValueError(
            f"residuals: a full covariance of {p} channels needs {p} degrees of freedom or more, got {rank}; shrink it"
        )
    covariance = noise_covariance(table, method=method, dof=dof)
    return np.asarray(1 / covariance if covariance.ndim == 1 else np.linalg.inv(covariance))


def as_precision(precision: ArrayLike, n_channels: int) -> Float:
    """Check the inverse of a noise covariance, or its diagonal, against the number of channels.

    Parameters
    ----------
    precision : array-like, shape (p, p) or (p,)
    n_channels : int
        p.

    Returns
    -------
    array, shape (p, p) or (p,)

    Raises
    ------
    ValueError
        If the shape is another one, or the matrix is not symmetric or not finite.
    """
    weights = np.asarray(precision, dtype=np.float64)
    if weights.shape not in ((n_channels,), (n_channels, n_channels)):
        raise ValueError(
            f"precision: expected shape ({n_channels}, {n_channels}) or ({n_channels},), got {weights.shape}"
        )
    if not np.isfinite(weights).all():
        raise ValueError("precision: expected finite numbers, got NaN or infinity")
    if weights.ndim == 2 and np.abs(weights - weights.T).max(initial=0) > 1e-8 * np.abs(weights).max(initial=0):
        raise ValueError("precision: expected a symmetric matrix, got one that differs from its transpose")
    return weights


def weighted(patterns: Float, weights: Float) -> Float:
    """Patterns (..., p) times a precision (p, p), or its diagonal (p,)."""
    return np.asarray(patterns * weights if weights.ndim == 1 else patterns @ weights)


def stacked_folds(values: ArrayLike, folds: ArrayLike | None) -> Float:
    """Patterns by fold, stimulus and channel.

    Parameters
    ----------
    values : array-like, shape (folds, n, p), or (rows, p) with `folds`
    folds : array-like, shape (rows,), optional
        The fold of each row; the k-th row of each fold is stimulus k.

    Returns
    -------
    array, shape (folds, n, p)
        A row that is not finite throughout is NaN throughout.

    Raises
    ------
    ValueError
        If there are fewer than two folds, folds hold different numbers of rows, or shapes disagree.
    """
    table = np.array(values, dtype=np.float64)
    if folds is not None:
        label = np.asarray(folds)
        if table.ndim != 2 or label.shape != table.shape[:1]:
            raise ValueError(f"folds: expected one for each row of a table (rows, p), got {label.shape}, {table.shape}")
        names, code, count = np.unique(label, return_inverse=True, return_counts=True)
        if (count != count[0]).any():
            raise ValueError(
                f"folds: expected the same stimuli in each, got {count.tolist()} rows in {names.tolist()}; "
                "give shape (folds, n, p) with NaN for a stimulus that is missing"
            )
        table = table[np.argsort(code, kind="stable")].reshape(len(names), count[0], table.shape[1])
    if table.ndim != 3:
        raise ValueError(f"values: expected shape (folds, n, p), or (rows, p) with folds, got {table.shape}")
    if len(table) < 2:
        raise ValueError(f"folds: a cross-validated distance needs at least 2 repeats, got {len(table)}")
    table[~np.isfinite(table).all(axis=2)] = np.nan
    return table
