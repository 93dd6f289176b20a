"""Models that tell classes apart, each for many labellings of the same rows at once.

The one idea: what a fit needs of its rows is decomposed before any label is seen, so that a thousand relabellings, each
of which repeats the fit, are a few large products. Rows come as `decode.Fold` makes them: centred columns at right
angles to each other, which no decoder here can tell from the features themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.svm import SVC

from bidsdnn.methods.models.ridge import Ridge
from bidsdnn.methods.reduce import float64_device

Float = NDArray[np.float64]
Labels = NDArray[Any]


class Decoder(Protocol):
    """What decoding needs of a model.

    ``kind`` is ``classes`` or ``numbers``; ``takes`` is ``rotation`` (any columns with the features' inner products)
    or ``units`` (the features themselves).
    """

    kind: str
    takes: str

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """Fit the rows (n, r) to each labelling (P, n), and judge new rows (m, r): (P, m, C), or (P, m) for numbers."""


class Discriminant(BaseEstimator):
    """Classes were told apart by linear discriminant analysis with a covariance shrunk to its mean.

    The covariance within classes S is replaced by (1 - a) S + a m I, with m the mean variance of the training rows over
    the directions that they span. Ridge regression on class indicators holds all that this needs (Hastie, Buja &
    Tibshirani, 1995, Annals of Statistics 23, 73-102), so that relabellings share one decomposition.

    Parameters
    ----------
    shrinkage : float or "auto"
        a, between 0 and 1. "auto": of Ledoit & Wolf (2004), from the training rows of all classes together, so that
        labels play no part in it.
    device : str
        Where torch multiplies.
    """

    kind = "classes"
    takes = "rotation"

    def __init__(self, shrinkage: float | str = "auto", *, device: str = "cpu") -> None:
        self.shrinkage = shrinkage
        self.device = device

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """Logarithm of each class' posterior, up to a number that all classes share."""
        a = self._shrinkage(rows)
        where = float64_device(self.device)
        x, t, y = _tensors(where, rows, new, _indicators(labels, n_classes))
        n, squares = len(x), (x**2).sum(dim=0)
        penalty = a / (1 - a) * squares.mean()
        count = y.sum(dim=0)
        held = torch.where(count > 0, count, 1)
        loadings = (x.T @ y.flatten(1)).unflatten(1, y.shape[1:])
        weights = loadings / (squares + penalty)[:, None, None]
        # G = M' A^-1 M with class means M and A = X'X + penalty; then (A - M D M')^-1 M = A^-1 M (I - D G)^-1.
        g = torch.einsum("rpc,rpd->pcd", loadings, weights) / (held[:, :, None] * held[:, None, :])
        eye = torch.eye(n_classes, dtype=torch.float64, device=where)
        back = torch.linalg.inv(eye - held[:, :, None] * g)
        ahead = (t @ weights.flatten(1)).unflatten(1, y.shape[1:]).transpose(0, 1) / held[:, None, :]
        size = torch.diagonal(g @ back, dim1=1, dim2=2)
        decisions = (ahead @ back - size[:, None, :] / 2) * (n / (1 - a)) + torch.log(held / n)[:, None, :]
        return np.asarray(decisions.masked_fill((count == 0)[:, None, :], -torch.inf).cpu().numpy())

    def _shrinkage(self, rows: Float) -> float:
        if self.shrinkage == "auto":
            return float(np.clip(ledoit_wolf_shrinkage(rows, assume_centered=True), 1e-4, 1 - 1e-4))
        if isinstance(self.shrinkage, str) or not 0 < self.shrinkage < 1:
            raise ValueError(f'shrinkage: expected a number between 0 and 1, or "auto", got {self.shrinkage!r}')
        return float(self.shrinkage)


class Logistic(BaseEstimator):
    """Classes were told apart by multinomial logistic regression with an L2 penalty.

    Minimises the sum of -log p(class) + ||w||^2 / (2 C), intercepts free, as scikit-learn does. Minimised by steps of a
    fixed bound of the curvature (Boehning, 1992, Annals of the Institute of Statistical Mathematics 44, 197-200), which
    is diagonal in the rows' own directions, with Nesterov's momentum, restarted when it leads uphill.

    Parameters
    ----------
    C : float
        Inverse of the penalty, for rows of mean variance 1 over the directions that they span.
    tol : float
        Largest gradient at which a fit is finished, per row.
    max_iter : int
    device : str
        Where torch multiplies.
    """

    kind = "classes"
    takes = "rotation"

    def __init__(self, C: float = 1.0, tol: float = 1e-5, max_iter: int = 2000, *, device: str = "cpu") -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """Linear predictor of each class."""
        if not self.C > 0:
            raise ValueError(f"C: expected a positive number, got {self.C}")
        x, t, y = _tensors(float64_device(self.device), rows, new, _indicators(labels, n_classes))
        # Of two classes scikit-learn penalises the difference of the two classes' weights.
        penalty = (2.0 if n_classes == 2 else 1.0) / self.C
        weights, intercepts = self._fit(x, y, penalty)
        found = (t @ weights.flatten(1)).unflatten(1, y.shape[1:]) + intercepts
        absent = y.sum(dim=0) == 0
        return np.asarray(found.masked_fill(absent, -torch.inf).transpose(0, 1).cpu().numpy())

    def _fit(self, x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (r, P, C) and intercepts (P, C) of all labellings."""
        n, absent = len(x), y.sum(dim=0) == 0
        # The intercept is one more column, of ones and without penalty; columns are at right angles.
        z = torch.cat([x, x.new_ones(n, 1)], dim=1)
        pull = torch.full((z.shape[1], 1, 1), penalty, dtype=z.dtype, device=z.device)
        pull[-1] = 0
        step = 1 / ((z**2).sum(dim=0)[:, None, None] / 2 + pull)
        old = z.new_zeros(z.shape[1], *y.shape[1:])
        ahead, momentum = old.clone(), z.new_ones(y.shape[1])
        for _ in range(self.max_iter):
            linear = (z @ ahead.flatten(1)).unflatten(1, y.shape[1:]).masked_fill(absent, -torch.inf)
            gradient = (z.T @ (torch.softmax(linear, dim=2) - y).flatten(1)).unflatten(1, y.shape[1:]) + pull * ahead
            if gradient.abs().max() <= self.tol * n:
                return ahead[:-1], ahead[-1]
            moved = ahead - step * gradient
            uphill = (gradient * (moved - old)).sum(dim=(0, 2)) > 0
            momentum = torch.where(uphill, 1.0, momentum)
            following = (1 + torch.sqrt(1 + 4 * momentum**2)) / 2
            ahead = moved + ((momentum - 1) / following)[:, None] * (moved - old)
            old, momentum = moved, following
        raise ValueError(f"max_iter: logistic regression did not converge in {self.max_iter} steps; give a smaller C")


class SupportVectors(BaseEstimator):
    """Classes were told apart by linear support vector machines, one for each two classes, which vote.

    scikit-learn's ``SVC`` on the rows' inner products; ties are broken by the sums of the decisions. Every labelling is
    a fit of its own.

    Parameters
    ----------
    C : float
        Inverse of the penalty, for rows of mean variance 1 over the directions that they span.
    """

    kind = "classes"
    takes = "rotation"

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """Votes of each class, and sums of decisions below one vote."""
        inner, ahead = rows @ rows.T, new @ rows.T
        model = SVC(kernel="precomputed", C=self.C, decision_function_shape="ovr")
        return _each(model, inner, labels, ahead, n_classes)


class RidgeDecoder(BaseEstimator):
    """Numbers were predicted by ridge regression, the penalty chosen by cross-validation in the training data.

    `Ridge`, with a penalty for each labelling, chosen anew.

    Parameters
    ----------
    penalties : sequence of float, optional
        As of `Ridge`.
    n_splits : int
        Inner folds.
    seed : int
    device : str
    """

    kind = "numbers"
    takes = "rotation"

    def __init__(
        self, penalties: Sequence[float] | None = None, n_splits: int = 5, *, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.penalties = penalties
        self.n_splits = n_splits
        self.seed = seed
        self.device = device

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """Predicted numbers, (P, m)."""
        inner = min(self.n_splits, len(rows))
        model = Ridge(self.penalties, inner, self.seed, self.device).fit(rows, np.asarray(labels, dtype=float).T)
        return np.ascontiguousarray(model.predict(new).T)


class Own:
    """Labels were decoded by an estimator of the user's choice.

    Parameters
    ----------
    estimator : object with ``fit(X, y)`` and ``predict(X)``
        A scikit-learn estimator or pipeline; it is given the features themselves, and a copy is fitted to each
        labelling.
    kind : str
        What it predicts, if it does not say so itself.
    """

    takes = "units"

    def __init__(self, estimator: Any, kind: str = "classes") -> None:
        self.estimator = estimator
        # Only scikit-learn's own say what they are.
        known = hasattr(estimator, "__sklearn_tags__")
        says = {is_classifier: "classes", is_regressor: "numbers"}
        self.kind = next((name for asks, name in says.items() if known and asks(estimator)), kind)

    def decide(self, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
        """What the estimator says of each class, (P, m, C), or the numbers it predicts, (P, m)."""
        if self.kind == "numbers":
            return np.array([np.ravel(_copy(self.estimator).fit(rows, one).predict(new)) for one in labels])
        return _each(self.estimator, rows, labels, new, n_classes)


def _each(model: Any, rows: Float, labels: Labels, new: Float, n_classes: int) -> Float:
    """Decisions of a scikit-learn classifier that is fitted to each labelling, (P, m, C)."""
    found = np.full((len(labels), len(new), n_classes), -np.inf)
    for decisions, one in zip(found, labels, strict=True):
        fitted = _copy(model).fit(rows, one)
        there = np.unique(one)
        way = next((name for name in ("decision_function", "predict_proba") if hasattr(fitted, name)), None)
        if way is None or len(there) < 2:
            decisions[:, there] = np.asarray(fitted.predict(new))[:, None] == there
            continue
        said = np.asarray(getattr(fitted, way)(new), dtype=np.float64)
        decisions[:, there] = np.stack([-said, said], axis=1) if said.ndim == 1 else said
    return found


def _copy(model: Any) -> Any:
    return clone(model) if hasattr(model, "get_params") else copy.deepcopy(model)


def _indicators(labels: Labels, n_classes: int) -> Float:
    """Zeros and ones, (n, P, C)."""
    return (np.asarray(labels).T[:, :, None] == np.arange(n_classes)).astype(np.float64)


def _tensors(where: torch.device, *arrays: Float) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)).to(where) for array in arrays]


DECODERS = {"logistic": Logistic, "svm": SupportVectors, "lda": Discriminant, "ridge": RidgeDecoder}
