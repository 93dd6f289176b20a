"""What linear models share: their tables checked, weights from the components of the features, and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.reduce import Spectrum, blocks, spectrum
from bidsdnn.methods.scores import Split

TARGETS = 2048
"""Targets fitted at a time; a constant, because the shape of a product decides its last bits."""


def tables(X: ArrayLike, Y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Features as float64 and targets as float32 or float64, checked.

    Raises
    ------
    ValueError
        If shapes disagree, rows are fewer than 2, or a feature is not finite.
    """
    x, y = np.asarray(X, dtype=np.float64), np.asarray(Y)
    if y.dtype not in (np.float32, np.float64):
        y = y.astype(np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"X, Y: expected shapes (n, p) and (n, V), got {x.shape} and {y.shape}")
    if len(x) < 2:
        raise ValueError(f"X: expected at least 2 rows, got {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError("X: expected finite numbers, got NaN or infinity")
    return x, y


def new_rows(X: ArrayLike, n_features: int) -> NDArray[np.float64]:
    """Rows to be predicted, as float64, checked.

    Raises
    ------
    ValueError
        If X has another number of columns than the model was fitted with.
    """
    x = np.asarray(X, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ValueError(f"X: expected shape (m, {n_features}), got {x.shape}")
    return x


def usable_blocks(y: NDArray[np.floating]) -> Iterator[NDArray[np.intp]]:
    """Columns of finite targets, some at a time."""
    for targets in blocks(y.shape[1], TARGETS):
        yield targets.start + np.flatnonzero(np.isfinite(y[:, targets]).all(axis=0))


def components(x: torch.Tensor, most: int | None = None) -> Spectrum:
    """Principal components of a table: all of them, or the largest only, which costs less.

    Parameters
    ----------
    x : tensor of float64, shape (n, p)
    most : int, optional

    Returns
    -------
    Spectrum
        Of at most ``most``, n - 1 and p directions.

    Raises
    ------
    ValueError
        If fewer than one is asked for.
    """
    if most is not None and most < 1:
        raise ValueError(f"n_components: expected at least 1, got {most}")
    smaller = min(x.shape)
    if most is None or smaller < 4 * most:
        table = spectrum(x)
        return Spectrum(table.mean, table.left[:, :most], table.scale[:most], table.right[:, :most])
    mean = x.mean(dim=0)
    centred = x - mean
    wide = x.shape[1] > x.shape[0]
    products = centred @ centred.T if wide else centred.T @ centred
    # LAPACK finds a few of the eigenvectors in a fraction of the time of all.
    values, vectors = scipy.linalg.eigh(products.cpu().numpy(), subset_by_index=[smaller - most, smaller - 1])
    # Squares have half the digits: what is below is rounding.
    keep = values > max(values[-1], 0) * 1e-13 + np.finfo(float).eps ** 2 * float(torch.linalg.norm(x)) ** 2
    scale = torch.from_numpy(np.sqrt(values[keep])[::-1].copy()).to(x)
    axes = torch.from_numpy(vectors[:, keep][:, ::-1].copy()).to(x)
    other = (centred.T if wide else centred) @ axes / scale
    return Spectrum(mean, axes, scale, other) if wide else Spectrum(mean, other, scale, axes)


def held_out_operator(
    X: ArrayLike,
    splits: Sequence[Split],
    weights: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """The matrix whose product with the targets is every held-out prediction, of a model that is linear in them.

    Parameters
    ----------
    X : array-like, shape (n, p)
    splits : sequence of (train, test)
        Together they hold out every item once.
    weights : callable
        Of a training part (m, p) and held-out rows (k, p); what each training target adds to each held-out
        prediction, (k, m), once targets are centred.

    Returns
    -------
    array, shape (n, n)
        Its rows sum to one.

    Raises
    ------
    ValueError
        If the folds do not hold out every item once.
    """
    x = np.asarray(X, dtype=np.float64)
    operator = np.full((len(x), len(x)), np.nan)
    for train, test in splits:
        if np.intersect1d(train, test).size or np.isfinite(operator[test]).any():
            raise ValueError("splits: expected every item held out once, and never in its own training part")
        added = weights(x[train], x[test])
        operator[test] = 0
        # Targets are centred on the training part: what weights add up to is taken off again.
        operator[np.ix_(test, train)] = added + (1 - added.sum(axis=1, keepdims=True)) / len(train)
    if np.isnan(operator).any():
        raise ValueError("splits: expected every item held out once, got items that no fold holds out")
    return operator


class Weighted(BaseEstimator):
    """A model that predicts with a weight for each feature and target.

    Attributes
    ----------
    coef_ : array, shape (p, V)
        Weights, of the dtype of Y if that is float32, else float64; NaN for a target that was not finite.
    center_ : array, shape (p,)
        Means of the training features.
    mean_ : array, shape (V,)
        Means of the training targets; NaN for a target that was not finite.
    """

    coef_: NDArray[np.floating]
    center_: NDArray[np.float64]
    mean_: NDArray[np.float64]

    @property
    def intercept_(self) -> NDArray[np.float64]:
        """What is predicted where all features are 0, shape (V,)."""
        predicted: NDArray[np.float64] = self.mean_ - self.center_ @ self.coef_.astype(np.float64)
        return predicted

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the targets of new rows.

        Parameters
        ----------
        X : array-like, shape (m, p)

        Returns
        -------
        array, shape (m, V)

        Raises
        ------
        ValueError
            If X has another number of columns than the model was fitted with.
        """
        x = new_rows(X, len(self.coef_))
        predicted = np.empty((len(x), self.coef_.shape[1]))
        # Less the means first: float32 weights would not survive the cancellation with an intercept.
        rows = (x - self.center_).astype(self.coef_.dtype)
        for targets in blocks(predicted.shape[1], TARGETS):
            predicted[:, targets] = rows @ self.coef_[:, targets] + self.mean_[targets]
        return predicted

    def _empty(self, x: NDArray[np.float64], y: NDArray[np.floating]) -> None:
        """Weights of a model that has seen no target yet."""
        self.coef_ = np.full((x.shape[1], y.shape[1]), np.nan, dtype=y.dtype)
        self.center_, self.mean_ = x.mean(axis=0), np.full(y.shape[1], np.nan)
