"""Kernel ridge: a ridge in the coordinates that the kernel's inner products give, at most as many as training rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.models.ridge import Ridge
from bidsdnn.methods.models.weighted import held_out_operator, new_rows, tables
from bidsdnn.methods.reduce import rotation, spectrum
from bidsdnn.methods.scores import Split

KERNELS = ("linear", "rbf", "polynomial")


class KernelRidge(BaseEstimator):
    """Kernel ridge regression was fitted, each target's penalty chosen by cross-validation in the training data.

    Ridge with an unpenalised intercept in the space of the kernel, exactly (Saunders, Gammerman & Vovk, 1998, ICML,
    515-521): the kernel of the training rows is centred and rotated into coordinates, in which `Ridge` is fitted. No
    matrix is larger than rows x rows. Kernels see X less the training rows' mean; ``rbf`` is exp(-g |u - v|^2), and
    ``polynomial`` (g u'v + 1)^degree.

    Parameters
    ----------
    kernel : str
        ``linear``, ``rbf`` or ``polynomial``.
    gamma : float
        g, over the mean squared length of the centred training rows: it then follows the scale of X.
    degree : int
        Of ``polynomial``.
    penalties : sequence of float, optional
        As of `Ridge`.
    n_splits, seed, device, relative, shuffle
        As of `Ridge`; ``relative`` holds for gamma too, which is g itself without.

    Attributes
    ----------
    ridge_ : Ridge
        In the kernel's coordinates; its ``penalty_`` are those chosen.
    """

    separable = True
    references = ("kernel-ridge",)

    def __init__(
        self,
        kernel: str = "rbf",
        gamma: float = 1.0,
        degree: int = 2,
        penalties: Sequence[float] | None = None,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        relative: bool = True,
        shuffle: bool = True,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.penalties = penalties
        self.n_splits = n_splits
        self.seed = seed
        self.device = device
        self.relative = relative
        self.shuffle = shuffle

    def said(self) -> str:
        """What the parameters make of the fit, as a sentence of the Methods."""
        said = {
            "linear": "linear",
            "rbf": f"exp(-{self.gamma:g} |u - v|^2)",
            "polynomial": f"({self.gamma:g} u'v + 1)^{self.degree}",
        }[self.kernel]
        unit = (
            " in units of the training rows' mean squared length" if self.relative and self.kernel != "linear" else ""
        )
        return f"The kernel was {said}{unit}."

    def fit(self, X: ArrayLike, Y: ArrayLike) -> KernelRidge:
        """Choose a penalty for each target, then fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
        Y : array-like, shape (n, V)

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, a parameter is out of range, or rows are fewer than inner folds.
        """
        x, y = tables(X, Y)
        self.space_ = _Space(x, self)
        self.ridge_ = Ridge(
            self.penalties, self.n_splits, self.seed, self.device, relative=self.relative, shuffle=self.shuffle
        ).fit(self.space_.rows, y)
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
        return self.ridge_.predict(self.space_.of(np.asarray(X, dtype=np.float64)))

    def operator(self, X: ArrayLike, splits: Sequence[Split]) -> NDArray[np.float64]:
        """All held-out predictions at one penalty, fixed before any target is seen, as a matrix (n, n)."""
        return held_out_operator(X, splits, self._weights)

    def _weights(self, train: NDArray[np.float64], test: NDArray[np.float64]) -> NDArray[np.float64]:
        space = _Space(train, self)
        table = spectrum(torch.from_numpy(space.rows))
        shrunk = table.scale / (table.scale**2 + table.mean_eigenvalue)
        rows = torch.from_numpy(space.of(test)) - table.mean
        added: NDArray[np.float64] = ((rows @ table.right * shrunk) @ table.left.T).numpy()
        return added


class _Space:
    """Coordinates of the training rows in the space of the kernel, and of others."""

    def __init__(self, x: NDArray[np.float64], model: KernelRidge) -> None:
        if model.kernel not in KERNELS:
            raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {model.kernel!r}")
        if not (np.isfinite(model.gamma) and model.gamma > 0):
            raise ValueError(f"gamma: expected a positive number, got {model.gamma}")
        if model.degree < 1:
            raise ValueError(f"degree: expected at least 1, got {model.degree}")
        self._model = model
        self._center = x.mean(axis=0)
        self._train = x - self._center
        length = float((self._train**2).sum(axis=1).mean())
        self._gamma = model.gamma / length if model.relative and length > 0 else model.gamma
        kernel = self._kernel(self._train)
        self._means, self._mean = kernel.mean(axis=0), kernel.mean()
        centred = kernel - self._means - self._means[:, None] + self._mean
        self.rows = rotation((centred + centred.T) / 2)
        # Coordinates of others: their inner products with the training rows' axes, of unit length.
        self._axes = self.rows / (self.rows**2).sum(axis=0)

    def of(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates of other rows (m, p)."""
        x = new_rows(x, len(self._center))
        kernel = self._kernel(x - self._center)
        coordinates: NDArray[np.float64] = (
            kernel - kernel.mean(axis=1, keepdims=True) - self._means + self._mean
        ) @ self._axes
        return coordinates

    def _kernel(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Kernel of centred rows (m, p) with the training rows, (m, n)."""
        products: NDArray[np.float64] = x @ self._train.T
        if self._model.kernel == "linear":
            return products
        if self._model.kernel == "polynomial":
            return (self._gamma * products + 1) ** self._model.degree
        squares = (x**2).sum(axis=1)[:, None] + (self._train**2).sum(axis=1) - 2 * products
        return np.exp(-self._gamma * np.maximum(squares, 0))
