"""Models that map one table to another: objects with ``fit(X, Y)`` and ``predict(X)``.

The one idea: a ridge's whole path of penalties follows from one decomposition of X, so that every target can
have a penalty of its own for the price of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.held_out import decompose
from bidsdnn.methods.models.weighted import new_rows, tables
from bidsdnn.methods.predict import kfold, prediction_operator
from bidsdnn.methods.products import comparing_dtype
from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.scores import Split

_TARGETS = 1024
"""Targets fitted at a time."""

_ENTRIES = 1_000_000
"""Held-out predictions made by one product, few enough to stay in the cache while they are scored."""

_KEPT = 100_000_000
"""Numbers that are kept to predict the held-out rows of all folds at all penalties; more are made for each block."""


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
            Targets. With float32 targets, penalties are compared in float32, or bfloat16 (`comparing_dtype`), and the
            fit is in float32.

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, a penalty is not positive, or rows are fewer than inner
            folds.
        """
        x, y = tables(X, Y)
        path = self._path(x)
        n_targets = y.shape[1]
        self.coef_ = np.full((x.shape[1], n_targets), np.nan, dtype=y.dtype)
        self.intercept_, self.penalty_ = np.full(n_targets, np.nan), np.full(n_targets, np.nan)
        basis = path.table.basis().to(torch.float32 if y.dtype == np.float32 else torch.float64)
        for targets in blocks(n_targets, _TARGETS):
            columns, fitted = path.fit(y[:, targets])
            columns += targets.start
            coef = basis @ fitted.weights
            self.coef_[:, columns] = coef.cpu().numpy()
            self.intercept_[columns] = (fitted.mean - path.table.mean @ coef.double()).cpu().numpy()
            self.penalty_[columns] = fitted.penalties.cpu().numpy()
        return self

    def held_out(self, X: ArrayLike, X_new: ArrayLike) -> Callable[[ArrayLike], NDArray[np.floating]]:
        """Fit and predict target by target, keeping no weights.

        Parameters
        ----------
        X : array-like, shape (n, p)
        X_new : array-like, shape (m, p)

        Returns
        -------
        callable
            From targets (n, c) to what ``fit`` and ``predict`` would give for the new rows, (m, c), in the precision
            of the targets.
        """
        x = _finite(X)
        path = self._path(x)
        new = path.table.project(torch.from_numpy(_finite(X_new)).to(path.table.mean.device))
        # New rows are projected: the basis, the largest of all tables, is not needed any more.
        path.table = path.table._replace(factored=())
        shape, step = x.shape, _TARGETS if path.keep else 4 * _TARGETS
        del x

        def predicted(Y: ArrayLike) -> NDArray[np.floating]:
            y = _targets(Y, shape)
            result = np.full((len(new), y.shape[1]), np.nan, dtype=y.dtype)
            for targets in blocks(y.shape[1], step):
                columns, fitted = path.fit(y[:, targets])
                part = new.to(fitted.weights.dtype) @ fitted.weights + fitted.mean.to(fitted.weights.dtype)
                result[:, columns + targets.start] = part.cpu().numpy()
            return result

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

    def _path(self, x: NDArray[np.float64]) -> _Path:
        grid = self._grid()
        folds = kfold(len(x), self.n_splits, seed=self.seed, shuffle=self.shuffle) if len(grid) > 1 else []
        return _Path(torch.from_numpy(x).to(float64_device(self.device)), grid, folds, relative=self.relative)


class _Fitted(NamedTuple):
    """A block of targets, fitted."""

    penalties: torch.Tensor
    """(V,) as chosen from the grid."""
    weights: torch.Tensor
    """(rank, V) of the scores."""
    mean: torch.Tensor
    """(V,)"""


class _Path:
    """The part of a fit that is the same for all targets."""

    def __init__(self, rows: torch.Tensor, grid: NDArray[np.float64], folds: list[Split], *, relative: bool) -> None:
        self.table = decompose(rows)
        self.grid = torch.from_numpy(grid).to(rows.device)
        self.relative = relative
        self.folds = [(torch.from_numpy(train), torch.from_numpy(test)) for train, test in folds]
        # Rows fold by fold, so that those of a fold are a view.
        self.order = np.concatenate([test for _, test in folds]) if folds else np.arange(len(rows))
        self.sizes = [len(test) for _, test in folds]
        self.keep = sum(self.sizes) * self.table.scores.shape[1] * len(grid) <= _KEPT
        self.factors: dict[torch.dtype, torch.Tensor] = {}
        self.kept: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}

    def _factors(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype not in self.factors:
            self.factors[dtype] = self.table.factors(torch.from_numpy(self.order), dtype)
        return self.factors[dtype]

    def fit(self, y: NDArray[np.floating]) -> tuple[NDArray[np.intp], _Fitted]:
        """Fit the targets (n, V) that are finite, and say which those are."""
        block = torch.from_numpy(y[self.order]).to(self.grid.device)
        usable = block.isfinite().all(dim=0)
        if not usable.all():
            block = block[:, usable]
        mean = block.mean(dim=0, dtype=torch.float64)
        block -= mean.to(block.dtype)
        factors = self._factors(block.dtype)
        if self.folds:
            parts = [f.T @ b for f, b in zip(factors.split(self.sizes), block.split(self.sizes), strict=True)]
            loadings = sum(parts[1:], parts[0])
            chosen = self.grid[self._errors(block, loadings, parts).argmin(dim=0)]
        else:
            loadings, chosen = factors.T @ block, self.grid.expand(block.shape[1])
        unit = self.table.unit() if self.relative else 1.0
        shrunk = 1 / (self.table.eigenvalues[:, None] + chosen * unit)
        return np.flatnonzero(usable.cpu().numpy()), _Fitted(chosen, loadings[:-1] * shrunk.to(block.dtype), mean)

    def _errors(self, y: torch.Tensor, loadings: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
        """Squared error of each penalty for each target over the held-out rows of all folds, (penalties, V)."""
        errors = torch.zeros(len(self.grid), y.shape[1], dtype=torch.float64, device=y.device)
        dtype = comparing_dtype(y.dtype, y.device, len(loadings))
        for number, (part, measured) in enumerate(zip(parts, y.split(self.sizes), strict=True)):
            others = (loadings - part).to(dtype)
            for some in blocks(len(self.grid), max(1, _ENTRIES // (len(measured) * _TARGETS))):
                # One product for some penalties: (penalties x held-out rows, rank) @ (rank, V).
                wrong = (self._map(number, some, dtype) @ others).to(y.dtype).unflatten(0, (-1, len(measured)))
                # In place: passes over memory cost as much as the product.
                errors[some] += wrong.sub_(measured).square_().sum(dim=1)
        # A penalty so small that rounding leaves nothing of it is not chosen.
        return errors.nan_to_num(torch.inf)

    def _map(self, number: int, some: slice, dtype: torch.dtype) -> torch.Tensor:
        """What predicts a fold's held-out rows at some penalties, (penalties x rows, rank + 1)."""
        key = (number, some.start, dtype)
        if key in self.kept:
            return self.kept[key]
        train, test = self.folds[number]
        unit = self.table.unit(train) if self.relative else 1.0
        made = self.table.held_out(test, self.grid[some] * unit).to(dtype).flatten(0, 1)
        if self.keep:
            self.kept[key] = made
        return made


def _targets(Y: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.floating]:
    y = np.asarray(Y)
    if y.dtype not in (np.float32, np.float64):
        y = y.astype(np.float64)
    if y.ndim != 2 or len(y) != shape[0]:
        raise ValueError(f"X, Y: expected shapes (n, p) and (n, V), got {shape} and {y.shape}")
    return y


def _finite(X: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(X, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("X: expected finite numbers, got NaN or infinity")
    return x
