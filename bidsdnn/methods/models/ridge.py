"""Models that map one table to another: objects with ``fit(X, Y)`` and ``predict(X)``.

The one idea: a ridge's whole path of penalties follows from one decomposition of X, so that every target can
have a penalty of its own for the price of matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.predict import kfold, prediction_operator
from bidsdnn.methods.reduce import Spectrum, blocks, float64_device, spectrum
from bidsdnn.methods.scores import Split

_TARGETS = 2048
"""Targets fitted at a time."""


class Ridge(BaseEstimator):
    """Ridge regression was fitted, each target's penalty chosen by cross-validation in the training data.

    Minimises ||Y - X b - c||^2 + a ||b||^2 with an unpenalised intercept c (Hoerl & Kennard, 1970,
    Technometrics 12, 55-67). Penalties are relative by default: a = penalty x the mean non-zero eigenvalue of
    X'X of the centred training rows. That unit follows the scale of X and its number of rows and does not
    change with rotations, so one grid serves every layer.

    Parameters
    ----------
    penalties : sequence of float, optional
        Positive. 17 values from 1e-4 to 1e4 in equal ratios if not given. A single one is used without
        cross-validation.
    n_splits : int
        Inner folds over the rows.
    seed : int
        Of the inner folds' shuffle.
    device : str
        Where torch multiplies; float64, so ``mps`` falls back to the CPU.
    relative : bool
        Whether penalties are in the unit above, or absolute as in scikit-learn.
    shuffle : bool
        Whether rows are dealt to the inner folds at random; else those are stretches of neighbours, as series need.

    Attributes
    ----------
    coef_ : array, shape (p, V)
        Weights; of the dtype of Y if that is float32, else float64. NaN for a target that was not finite.
    intercept_ : array, shape (V,)
    penalty_ : array, shape (V,)
        The penalty chosen, in the unit of ``penalties``: of least squared error over the held-out inner rows,
        the smaller one in a tie.
    """

    def __init__(
        self,
        penalties: Sequence[float] | None = None,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        relative: bool = True,
        shuffle: bool = True,
    ) -> None:
        self.penalties = penalties
        self.n_splits = n_splits
        self.seed = seed
        self.device = device
        self.relative = relative
        self.shuffle = shuffle

    def fit(self, X: ArrayLike, Y: ArrayLike) -> Ridge:
        """Choose a penalty for each target, then fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Finite; p may exceed n, or be 0.
        Y : array-like, shape (n, V)
            Targets. With float32 targets, penalties are compared in float32 and the fit is in float64.

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, a penalty is not positive, or rows are fewer than inner
            folds.
        """
        x, y = _tables(X, Y)
        grid = self._grid()
        where = float64_device(self.device)
        rows = torch.from_numpy(x).to(where)
        folds = kfold(len(x), self.n_splits, seed=self.seed, shuffle=self.shuffle) if len(grid) > 1 else []
        inner = [_Fold.of(rows, train, test) for train, test in folds]
        whole = spectrum(rows)
        n_targets = y.shape[1]
        self.coef_ = np.full((x.shape[1], n_targets), np.nan, dtype=y.dtype)
        self.intercept_, self.penalty_ = np.full(n_targets, np.nan), np.full(n_targets, np.nan)
        for targets in blocks(n_targets, _TARGETS):
            part = y[:, targets]
            usable = np.isfinite(part).all(axis=0)
            columns = np.arange(targets.start, targets.stop)[usable]
            block = torch.from_numpy(part[:, usable]).to(where)
            errors = [self._errors(fold, block, grid) for fold in inner]
            total = sum(errors, torch.zeros(len(grid), len(columns), dtype=torch.float64, device=where))
            chosen = torch.from_numpy(grid).to(where)[total.argmin(dim=0)]
            coef, intercept = _solve(whole, block.double(), chosen * self._unit(whole))
            self.coef_[:, columns] = coef.cpu().numpy()
            self.intercept_[columns] = intercept.cpu().numpy()
            self.penalty_[columns] = chosen.cpu().numpy()
        return self

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
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.coef_):
            raise ValueError(f"X: expected shape (m, {len(self.coef_)}), got {x.shape}")
        predicted = np.empty((len(x), self.coef_.shape[1]))
        for targets in blocks(predicted.shape[1], _TARGETS):
            predicted[:, targets] = x @ self.coef_[:, targets].astype(np.float64) + self.intercept_[targets]
        return predicted

    def operator(self, X: ArrayLike, splits: Sequence[Split]) -> NDArray[np.float64]:
        """All held-out predictions at one penalty, fixed before any target is seen, as `prediction_operator`."""
        return prediction_operator(X, splits)

    def _grid(self) -> NDArray[np.float64]:
        penalties = np.logspace(-4, 4, 17) if self.penalties is None else self.penalties
        grid = np.atleast_1d(np.array(penalties, dtype=np.float64))
        if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
            raise ValueError(f"penalties: expected positive numbers, got {self.penalties!r}")
        return grid

    def _unit(self, table: Spectrum) -> float:
        return table.mean_eigenvalue if self.relative else 1.0

    def _errors(self, fold: _Fold, y: torch.Tensor, grid: NDArray[np.float64]) -> torch.Tensor:
        """Squared error of each penalty for each target over the fold's held-out rows, (penalties, V)."""
        scale = fold.table.scale
        penalties = torch.from_numpy(grid).to(scale.device) * self._unit(fold.table)
        shrunk = scale / (scale**2 + penalties[:, None])
        train = y[fold.train]
        mean = train.mean(dim=0)
        loadings = fold.table.left.T.to(y.dtype) @ (train - mean)
        # One product for all penalties: (penalties x held-out rows, rank) @ (rank, V).
        paths = (fold.scores * shrunk[:, None, :]).to(y.dtype).flatten(0, 1)
        # In place from here on: the passes over memory cost as much as the product.
        wrong = (paths @ loadings).reshape(len(grid), len(fold.test), -1)
        return wrong.sub_(y[fold.test] - mean).square_().sum(dim=1).double()


class _Fold:
    """The part of an inner fold that is the same for all targets."""

    def __init__(self, train: torch.Tensor, test: torch.Tensor, table: Spectrum, scores: torch.Tensor) -> None:
        self.train, self.test, self.table, self.scores = train, test, table, scores

    @classmethod
    def of(cls, rows: torch.Tensor, train: NDArray[np.intp], test: NDArray[np.intp]) -> _Fold:
        inside, outside = (torch.from_numpy(index).to(rows.device) for index in (train, test))
        table = spectrum(rows[inside])
        return cls(inside, outside, table, (rows[outside] - table.mean) @ table.right)


def _solve(table: Spectrum, y: torch.Tensor, penalties: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients (p, V) and intercepts (V,), with a penalty (V,) for each target."""
    mean = y.mean(dim=0)
    scale = table.scale[:, None]
    coef = table.right @ (scale / (scale**2 + penalties) * (table.left.T @ (y - mean)))
    return coef, mean - table.mean @ coef


def _tables(X: ArrayLike, Y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
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
