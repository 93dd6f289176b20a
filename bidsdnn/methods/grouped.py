"""A model for items that come in groups: what is trained on is one average a group.

The one idea: items of one stimulus in several runs are alike in what predicts them, so that their average says all that
they say, and folds within the training part can no longer divide them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.predict import Linear
from bidsdnn.methods.scores import Float, Split


class Grouped:
    """Each training part was averaged over the items of a group before the model was fitted.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
        What else it has is had of this.
    groups : array of int, shape (n,)
        Of each item of the whole table.
    """

    def __init__(self, model: Any, groups: NDArray[np.intp]) -> None:
        self.model = model
        self.groups = groups

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("model", "groups"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def fit(self, X: ArrayLike, Y: ArrayLike) -> Any:
        """Fit some rows, as the model does."""
        return self.model.fit(X, Y)

    def predict(self, X: ArrayLike) -> Any:
        """Predict rows, as the model does."""
        return self.model.predict(X)

    def cross_predict(self, X: ArrayLike, Y: ArrayLike, splits: Sequence[Split]) -> Float:
        """Predict each item by a model that was fitted to averages of the training part.

        Parameters
        ----------
        X : array-like, shape (n, p)
        Y : array-like, shape (n, V)
        splits : sequence of (train, test)

        Returns
        -------
        array, shape (n, V)
        """
        x, y = np.asarray(X), np.asarray(Y)
        predicted = np.full(y.shape, np.nan, dtype=np.result_type(y.dtype, np.float32))
        for train, test in splits:
            share = averaging(self.groups[train]).astype(y.dtype)
            fitted = copy.deepcopy(self.model)
            fitted.fit(share.astype(x.dtype) @ x[train], share @ y[train])
            predicted[test] = fitted.predict(x[test])
        return predicted


class GroupedLinear(Grouped):
    """Each training part was averaged over the items of a group before the linear model was fitted."""

    def operator(self, X: ArrayLike, splits: Sequence[Split]) -> Any:
        """The model's own, over items: at a penalty that is fixed nothing is chosen within the training part."""
        return self.model.operator(X, splits)


def averaging(groups: ArrayLike) -> Float:
    """The matrix whose product with a table is the mean of the rows of each group.

    Parameters
    ----------
    groups : array-like, shape (n,)
        Of each row.

    Returns
    -------
    array, shape (n_groups, n)
        Groups in sorted order.
    """
    _, code, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    share = np.zeros((len(counts), len(code)))
    share[code, np.arange(len(code))] = 1 / counts[code]
    return share


def repeated(groups: ArrayLike) -> bool:
    """Whether some group has several rows."""
    return len(np.unique(np.asarray(groups))) < len(np.asarray(groups))


def averaged_products(
    products: Float, groups: ArrayLike, train: NDArray[np.intp], test: NDArray[np.intp]
) -> tuple[Float, Float, Float | None]:
    """Inner products of training rows, and of held-out with training rows, these averaged over the rows of each group.

    Parameters
    ----------
    products : array, shape (bands, n, n)
    groups : array-like, shape (n,)
    train, test : array of int

    Returns
    -------
    inside : array, shape (bands, m, m)
    outside : array, shape (bands, test, m)
    share : array, shape (m, train), or None
        What the targets of training are multiplied with; None where no group has several rows.
    """
    inside, outside = products[:, train[:, None], train], products[:, test[:, None], train]
    if not repeated(np.asarray(groups)[train]):
        return inside, outside, None
    share = averaging(np.asarray(groups)[train])
    return share @ inside @ share.T, outside @ share.T, share


def grouped(model: Any, groups: ArrayLike) -> Any:
    """Give a model for items of which some belong together; the model itself where none do, or it reads units.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    groups : array-like, shape (n,)

    Returns
    -------
    object with ``fit`` and ``predict``
    """
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    if not repeated(groups) or hasattr(model, "cross_predict"):
        return model
    return (GroupedLinear if isinstance(model, Linear) else Grouped)(model, code)
