"""Any estimator with ``fit`` and ``predict`` as a model of many targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.base
import sklearn.utils
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.models.weighted import tables
from bidsdnn.methods.scores import varies


class Estimator(BaseEstimator):
    """An estimator of the user's was fitted.

    scikit-learn's that take one target are fitted to each target; all others are given those targets at once that are
    finite and vary. A target that does not vary is predicted as it is, one that is not finite as NaN.

    Parameters
    ----------
    estimator : object with ``fit(X, y)`` and ``predict(X)``
        Left as it is; copies are fitted.
    seed : int
        Of each of its parameters named ``random_state`` that is None.
    """

    references = ("scikit-learn",)

    def __init__(self, estimator: Any, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    @property
    def takes(self) -> str | None:
        """What the estimator says that it takes; None if it does not say."""
        return getattr(self.estimator, "takes", None)

    @property
    def separable(self) -> bool:
        """Whether each target is fitted on its own."""
        return not self._multiple()

    def said(self) -> str:
        """How targets are fitted, as a sentence of the Methods."""
        return f"{type(self.estimator).__name__} was fitted to {'all targets at once' if self._multiple() else 'each'}."

    def fit(self, X: ArrayLike, Y: ArrayLike) -> Estimator:
        """Fit copies of the estimator to all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
        Y : array-like, shape (n, V)

        Raises
        ------
        ValueError
            If shapes disagree, or X is not finite; and what the estimator raises.
        """
        x, y = tables(X, Y)
        self.mean_ = np.where(np.isfinite(y).all(axis=0), y.mean(axis=0, dtype=np.float64), np.nan)
        self.fitted_: list[tuple[Any, NDArray[np.intp]]] = []
        targets = np.flatnonzero(varies(y.astype(np.float64)))
        # Without features there is nothing to fit, and most estimators refuse.
        if len(targets) and x.shape[1]:
            if self._multiple():
                self._fit(x, y[:, targets], targets)
            else:
                for one in targets:
                    self._fit(x, y[:, one], np.array([one]))
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
            If the estimator predicts another shape.
        """
        x = np.asarray(X, dtype=np.float64)
        predicted = np.tile(self.mean_, (len(x), 1))
        for one, targets in self.fitted_:
            given = np.asarray(one.predict(x), dtype=np.float64)
            if given.size != len(x) * len(targets):
                name = type(self.estimator).__name__
                raise ValueError(f"{name}: expected predictions of shape {(len(x), len(targets))}, got {given.shape}")
            predicted[:, targets] = given.reshape(len(x), len(targets))
        return predicted

    def _fit(self, x: NDArray[np.float64], y: NDArray[np.floating], targets: NDArray[np.intp]) -> None:
        copy = self._copy()
        copy.fit(x, y)  # Not every object returns itself.
        self.fitted_.append((copy, targets))

    def _multiple(self) -> bool:
        """Whether it takes several targets; what is not scikit-learn's and does not say so is taken to."""
        try:
            return bool(sklearn.utils.get_tags(self.estimator).target_tags.multi_output)
        except (AttributeError, TypeError):
            return True

    def _copy(self) -> Any:
        copy = sklearn.base.clone(self.estimator, safe=False)
        if hasattr(copy, "get_params"):
            seeds = {
                name: self.seed
                for name, value in copy.get_params().items()
                if name.split("__")[-1] == "random_state" and value is None
            }
            if seeds:
                copy.set_params(**seeds)
        return copy
