"""How well classes were told apart: of one set of labels, or of many at once.

The one idea: everything but the AUC follows from the confusion matrix, and a stack of those is one count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from bidsdnn.methods.scores import Split

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def confusion(true: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count how often items of each class were taken for each class.

    Parameters
    ----------
    true, predicted : array-like of int, shape (..., n)
        Classes from 0. A negative prediction is of an item that was not held out, and does not count.
    n_classes : int

    Returns
    -------
    array of int, shape (..., C, C)
        Rows are the true classes, as in scikit-learn.

    Raises
    ------
    ValueError
        If the shapes differ, or a class is not below ``n_classes``.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.shape != predicted.shape:
        raise ValueError(f"true, predicted: expected equal shapes, got {true.shape} and {predicted.shape}")
    if true.size and (true.min() < 0 or true.max() >= n_classes or predicted.max() >= n_classes):
        raise ValueError(f"true, predicted: expected classes below {n_classes}, got others")
    n = true.shape[-1]
    table = np.arange(true.size) // max(n, 1)
    cell = (table * n_classes + true.ravel()) * n_classes + predicted.ravel()
    tables = int(np.prod(true.shape[:-1], dtype=int))
    counts = np.bincount(cell[predicted.ravel() >= 0], minlength=tables * n_classes**2)
    return counts.reshape(*true.shape[:-1], n_classes, n_classes)


def accuracy(counts: ArrayLike) -> Float:
    """Accuracy is the share of held-out items whose class was found.

    Parameters
    ----------
    counts : array-like, shape (..., C, C)
        From `confusion`.

    Returns
    -------
    array, shape (...)
        NaN without items.
    """
    counts = np.asarray(counts, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1)))


def balanced_accuracy(counts: ArrayLike) -> Float:
    """Balanced accuracy is the mean over classes of the share of a class' items that were found.

    Its chance level is one over the number of classes, however many items each class has.

    Parameters
    ----------
    counts : array-like, shape (..., C, C)
        From `confusion`.

    Returns
    -------
    array, shape (...)
        Over the classes that have items; NaN without any.
    """
    counts = np.asarray(counts, dtype=np.float64)
    totals, right = counts.sum(axis=-1), np.diagonal(counts, axis1=-2, axis2=-1)
    there = totals > 0
    share = np.divide(right, totals, out=np.zeros_like(totals), where=there)
    with np.errstate(invalid="ignore"):
        return np.asarray(share.sum(axis=-1) / there.sum(axis=-1))


def auc(true: ArrayLike, decisions: ArrayLike, splits: Sequence[Split]) -> float:
    """The area under the ROC curve was computed within folds, one class against the rest, and averaged.

    Decisions of different folds are on different scales and are not pooled. The area is the share of pairs of one item
    of the class and one of the rest in which the former has the higher decision, ties counting half (Mann & Whitney).

    Parameters
    ----------
    true : array-like of int, shape (n,)
    decisions : array-like, shape (n, C)
        Higher is more of that class.
    splits : sequence of (train, test)

    Returns
    -------
    float
        Mean over the classes (of two classes, the second alone) and folds that hold out items of the class and
        others; NaN if no fold does.
    """
    true, decisions = np.asarray(true), np.asarray(decisions, dtype=np.float64)
    classes = range(decisions.shape[1]) if decisions.shape[1] > 2 else [1]
    areas = []
    for _, test in splits:
        for one in classes:
            inside = true[test] == one
            n_in, n_out = inside.sum(), (~inside).sum()
            if n_in and n_out:
                value = decisions[test, one] if decisions.shape[1] > 2 else decisions[test, 1] - decisions[test, 0]
                ranks = rankdata(value)
                areas.append((ranks[inside].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))
    return float(np.mean(areas)) if areas else float("nan")
