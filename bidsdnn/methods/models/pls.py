"""Partial least squares of many targets together, from matrices of the size of the training rows.

The one idea: its components depend on the targets through the items x items inner products of those only, and on the
features through their rotation, so that neither the units nor the voxels are met more than twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.models.weighted import TARGETS, Weighted, tables
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.reduce import Spectrum, blocks, float64_device, spectrum

Float = NDArray[np.float64]

_SMALL = 200
"""Up to this size all eigenvectors cost no more than a search for the first."""


class PLS(Weighted):
    """Partial least squares regression was fitted to the voxels of each region together.

    Components of the features that covary most with the targets, one after the other, and regression of each target on
    them: PLS2 by NIPALS as in scikit-learn's ``PLSRegression`` (Wold, Sjöström & Eriksson, 2001, Chemom. Intell. Lab.
    Syst. 58, 109-130), computed from inner products between items (Rosipal & Trejo, 2001, JMLR 2, 97-123).

    Parameters
    ----------
    n_components : int, optional
        Chosen for each set of targets by the inner folds if not given: of least squared error over held-out rows and
        all of its targets, the smaller number in a tie.
    most : int
        Components to choose from.
    scale_x : bool
        Whether features are divided by their standard deviations; a rotation has others than the units.
    scale_y : bool
        Whether targets are, so that voxels of large variance do not choose the components for the others.
    together : array of int, shape (V,), optional
        Targets with the same number are fitted together; all of them if not given.
    n_splits : int
        Inner folds over the rows.
    seed : int
        Of the inner folds' shuffle.
    device : str
        Where torch multiplies; float64, so ``mps`` falls back to the CPU.
    shuffle : bool
        Whether rows are dealt to the inner folds at random; else those are stretches of neighbours, as series need.

    Attributes
    ----------
    coef_ : array, shape (p, V)
        Weights of the features as they are.
    n_components_ : array of int, shape (V,)
        Components of each target; 0 for one that was not finite.
    """

    separable = False
    chooses = "number of components"
    references = ("pls",)

    def __init__(
        self,
        n_components: int | None = None,
        most: int = 20,
        scale_x: bool = False,
        scale_y: bool = True,
        together: NDArray[np.intp] | None = None,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        shuffle: bool = True,
    ) -> None:
        self.n_components = n_components
        self.most = most
        self.scale_x = scale_x
        self.scale_y = scale_y
        self.together = together
        self.n_splits = n_splits
        self.seed = seed
        self.device = device
        self.shuffle = shuffle

    @property
    def takes(self) -> str:
        """The units themselves where they are scaled: a rotation would be scaled along other axes."""
        return "units" if self.scale_x else "rotation"

    def said(self) -> str:
        """What the parameters make of the fit, as a sentence of the Methods."""
        number = f"at most {self.most}" if self.n_components is None else f"{self.n_components}"
        scaled = [name for name, is_so in (("units", self.scale_x), ("voxels", self.scale_y)) if is_so]
        return f"It took {number} components" + (f", with {' and '.join(scaled)} scaled." if scaled else ".")

    def fixed(self) -> PLS:
        """The model with a number of components fixed before any target is seen: 5."""
        if self.n_components is not None:
            return self
        return PLS(**{**self.get_params(), "n_components": 5})

    def among(self, columns: NDArray[np.intp]) -> PLS:
        """The model of some of the targets only: those of a set that are left are fitted together."""
        return self if self.together is None else PLS(**{**self.get_params(), "together": self.together[columns]})

    def fit(self, X: ArrayLike, Y: ArrayLike) -> PLS:
        """Choose a number of components for each set of targets, then fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Finite; p may exceed n, or be 0.
        Y : array-like, shape (n, V)
            Targets.

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, a parameter is out of range, or rows are fewer than inner folds.
        """
        x, y = tables(X, Y)
        most = self.most if self.n_components is None else self.n_components
        if most < 1:
            raise ValueError(f"n_components: expected at least 1, got {most}")
        sets = np.zeros(y.shape[1], dtype=int) if self.together is None else np.asarray(self.together)
        if sets.shape != y.shape[1:]:
            raise ValueError(f"together: expected a number for each of {y.shape[1]} targets, got shape {sets.shape}")
        folds = [] if self.n_components else kfold(len(x), self.n_splits, seed=self.seed, shuffle=self.shuffle)
        where = float64_device(self.device)
        inner = [(_Rows(x[train], self.scale_x, where), x[test], train, test) for train, test in folds]
        whole = _Rows(x, self.scale_x, where)
        self._empty(x, y)
        self.n_components_ = np.zeros(y.shape[1], dtype=int)
        finite = np.isfinite(y).all(axis=0)
        for number in np.unique(sets):
            columns = np.flatnonzero((sets == number) & finite)
            if len(columns):
                errors = sum(
                    (self._errors(rows, new, y[np.ix_(train, columns)], y[np.ix_(test, columns)], most)
                     for rows, new, train, test in inner), np.zeros(most),
                )  # fmt: skip
                self._fit(whole, y, columns, most if self.n_components else int(errors.argmin()) + 1)
        return self

    def _fit(self, rows: _Rows, y: NDArray[np.floating], columns: NDArray[np.intp], count: int) -> None:
        part = y[:, columns]
        targets = _Targets.of(part, rows.left, scale=self.scale_y)
        found = _nipals(rows.scale, targets, count)
        weights = rows.weights(found.rotations).astype(y.dtype)
        self.n_components_[columns] = found.rotations.shape[1]
        self.mean_[columns] = targets.mean
        for some in blocks(len(columns), TARGETS):
            loadings = rows.loadings(found.scores, part[:, some], targets.mean[some])
            self.coef_[:, columns[some]] = weights @ loadings

    def _errors(
        self, rows: _Rows, new: Float, y: NDArray[np.floating], measured: NDArray[np.floating], most: int
    ) -> Float:
        """Squared error over held-out rows and scaled targets with 1, 2, ... components, shape (most,)."""
        targets = _Targets.of(y, rows.left, scale=self.scale_y)
        found = _nipals(rows.scale, targets, most)
        scores = (new - rows.center) @ rows.weights(found.rotations)
        errors = np.zeros(most)
        for some in blocks(y.shape[1], TARGETS):
            loadings = rows.loadings(found.scores, y[:, some], targets.mean[some]) / targets.spread[some]
            left = (measured[:, some] - targets.mean[some]) / targets.spread[some]
            for number in range(most):
                if number < scores.shape[1]:
                    left = left - scores[:, number, None] * loadings[number]
                errors[number] += np.square(left).sum()
        return errors


class _Rows:
    """Training features, scaled if asked for, as their singular vectors."""

    def __init__(self, x: Float, scaled: bool, where: torch.device) -> None:
        self.spread = _spread(x) if scaled else np.ones(x.shape[1])
        table: Spectrum = spectrum(torch.from_numpy(x / self.spread).to(where))
        self.center, self.left = x.mean(axis=0), table.left
        self.scale, self._right = table.scale.cpu().numpy(), table.right.cpu().numpy()

    def weights(self, rotations: Float) -> Float:
        """From rotations of the singular vectors (rank, k) to weights of the features (p, k)."""
        found: Float = self._right @ rotations / self.spread[:, None]
        return found

    def loadings(self, scores: Float, y: NDArray[np.floating], mean: Float) -> NDArray[np.floating]:
        """Regression of targets (n, V) on components, given in singular vectors (rank, k); shape (k, V)."""
        axes = (self.left @ torch.from_numpy(scores).to(self.left)).T
        part = torch.from_numpy(y - mean.astype(y.dtype)).to(axes.device)
        return (axes.to(part.dtype) @ part).cpu().numpy()


class _Targets(NamedTuple):
    """Targets, centred and scaled, in the singular vectors of the features."""

    mean: Float
    spread: Float
    values: Float | None
    """(rank, V) if that is smaller than their inner products."""
    products: Float | None
    """(rank, rank)."""

    @classmethod
    def of(cls, y: NDArray[np.floating], left: torch.Tensor, *, scale: bool) -> _Targets:
        mean = y.mean(axis=0, dtype=np.float64)
        spread = _spread(y) if scale else np.ones(y.shape[1])
        rank = left.shape[1]
        products = np.zeros((rank, rank))
        for some in blocks(y.shape[1], TARGETS):
            part = ((y[:, some] - mean[some]) / spread[some]).astype(y.dtype)
            there = torch.from_numpy(part).to(left.device)
            values = left.T.to(there.dtype) @ there
            if y.shape[1] <= min(rank, TARGETS):
                return cls(mean, spread, values.double().cpu().numpy(), None)
            products += (values @ values.T).double().cpu().numpy()
        return cls(mean, spread, None, products)


class _Found(NamedTuple):
    """Components in the singular vectors of the features."""

    rotations: Float
    """(rank, k) from features to scores."""
    scores: Float
    """(rank, k), orthonormal."""


def _nipals(scale: Float, targets: _Targets, most: int) -> _Found:
    """Components of features whose singular values are given, one after the other."""
    rank = len(scale)
    left = np.diag(scale)
    rotations, scores, loadings = np.zeros((rank, most)), np.zeros((rank, most)), np.zeros((rank, most))
    first = None
    for number in range(min(most, rank)):
        weights, covariance = _direction(left, targets)
        # Once nothing is left of either side, more components would be rounding.
        first = covariance if first is None else first
        if not covariance > 1e-12 * first or first == 0:
            return _Found(rotations[:, :number], scores[:, :number])
        score = left @ weights
        length = np.linalg.norm(score)
        earlier = loadings[:, :number].T @ weights
        rotations[:, number] = (weights - rotations[:, :number] @ earlier) / length
        scores[:, number] = score / length
        loadings[:, number] = left.T @ scores[:, number]
        left -= np.outer(scores[:, number], loadings[:, number])
    return _Found(rotations[:, : min(most, rank)], scores[:, : min(most, rank)])


def _direction(left: Float, targets: _Targets) -> tuple[Float, float]:
    """Weights of what is left of the features that covary most with the targets, of unit length, and how much."""
    if targets.values is not None:
        covariance = left.T @ targets.values
        value, vector = _largest(covariance.T @ covariance)
        weights = covariance @ vector
        length = float(np.linalg.norm(weights))
        return weights / (length or 1), value
    assert targets.products is not None
    value, weights = _largest(left.T @ targets.products @ left)
    return weights, value


def _largest(matrix: Float) -> tuple[float, Float]:
    """The largest eigenvalue of a symmetric matrix and its vector."""
    size = len(matrix)
    try:
        if size > _SMALL:
            values, vectors = scipy.sparse.linalg.eigsh(matrix, k=1, v0=np.ones(size))
        else:
            values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - 1, size - 1])
    except scipy.sparse.linalg.ArpackNoConvergence:
        # The two largest are nearly equal, and a search does not tell them apart.
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - 1, size - 1])
    return float(values[0]), vectors[:, 0]


def _spread(values: NDArray[np.floating]) -> Float:
    """Standard deviations of columns; 1 for those that do not vary."""
    spread: Float = values.std(axis=0, ddof=1, dtype=np.float64)
    return np.where(spread > 1e-12 * np.abs(values).max(axis=0, initial=0), spread, 1)
