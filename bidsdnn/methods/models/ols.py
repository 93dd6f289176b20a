"""Ordinary least squares, from one decomposition of the features for all targets and, in a test, all relabellings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.models.weighted import Weighted, components, held_out_operator, tables, usable_blocks
from bidsdnn.methods.reduce import float64_device
from bidsdnn.methods.scores import Split


class OLS(Weighted):
    """Ordinary least squares was fitted, the solution of least norm where features outnumber the training items.

    Of all weights that fit the centred training rows best, those of least norm: X+ Y, with X+ the pseudoinverse
    (Penrose, 1956, Proc. Camb. Phil. Soc. 52, 17-19). They do not change with rotations of X. As many features as
    items or more fit the training part perfectly, and predict by interpolation.

    Parameters
    ----------
    n_components : int, optional
        Regress on so many principal components of the training rows, at most (the GLM of DNNBrain's paper takes 100),
        in place of the features.
    device : str
        Where torch multiplies; float64, so ``mps`` falls back to the CPU.

    Attributes
    ----------
    coef_ : array, shape (p, V)
        Weights of the features, with components too.
    rank_ : int
        Directions of the training features that were used.
    """

    separable = True
    references = ("ols",)

    def __init__(self, n_components: int | None = None, device: str = "cpu") -> None:
        self.n_components = n_components
        self.device = device

    def said(self) -> str:
        """What the parameters make of the fit, as a sentence of the Methods."""
        if self.n_components is None:
            return ""
        return f"It was given the {self.n_components} largest principal components of each training part."

    def fit(self, X: ArrayLike, Y: ArrayLike) -> OLS:
        """Fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Finite; p may exceed n, or be 0.
        Y : array-like, shape (n, V)
            Targets.

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, or there are no components.
        """
        x, y = tables(X, Y)
        where = float64_device(self.device)
        table = components(torch.from_numpy(x).to(where), self.n_components)
        self.rank_ = len(table.scale)
        self._empty(x, y)
        kind = torch.float32 if y.dtype == np.float32 else torch.float64
        axes, left = (table.right / table.scale).to(kind), table.left.T.to(kind)
        for columns in usable_blocks(y):
            part = torch.from_numpy(y[:, columns]).to(where)
            mean = part.mean(dim=0, dtype=torch.float64)
            self.coef_[:, columns] = (axes @ (left @ (part - mean.to(kind)))).cpu().numpy()
            self.mean_[columns] = mean.cpu().numpy()
        return self

    def held_out(self, X: ArrayLike, X_new: ArrayLike) -> Callable[[ArrayLike], NDArray[np.floating]]:
        """Fit and predict some targets at a time, keeping no weights.

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
        x, where = np.asarray(X, dtype=np.float64), float64_device(self.device)
        tables(x, x[:, :0])
        table = components(torch.from_numpy(x).to(where), self.n_components)
        new = torch.from_numpy(np.asarray(X_new, dtype=np.float64)).to(where) - table.mean
        scores = new @ (table.right / table.scale)

        def predicted(Y: ArrayLike) -> NDArray[np.floating]:
            _, y = tables(x, Y)
            result = np.full((len(new), y.shape[1]), np.nan, dtype=y.dtype)
            for columns in usable_blocks(y):
                part = torch.from_numpy(y[:, columns]).to(where)
                mean = part.mean(dim=0, dtype=torch.float64).to(part.dtype)
                fitted = scores.to(part.dtype) @ (table.left.T.to(part.dtype) @ (part - mean)) + mean
                result[:, columns] = fitted.cpu().numpy()
            return result

        return predicted

    def operator(self, X: ArrayLike, splits: Sequence[Split]) -> NDArray[np.float64]:
        """All held-out predictions as one matrix (n, n) that multiplies the targets: nothing of it depends on them."""
        return held_out_operator(X, splits, self._weights)

    def _weights(self, train: NDArray[np.float64], test: NDArray[np.float64]) -> NDArray[np.float64]:
        table = components(torch.from_numpy(train), self.n_components)
        added: NDArray[np.float64] = (
            ((torch.from_numpy(test) - table.mean) @ (table.right / table.scale)) @ table.left.T
        ).numpy()
        return added
