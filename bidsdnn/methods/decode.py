"""Labels decoded from a table, and the test that repeats the whole cross-validated fit with labels relabelled.

The one idea: what a fold does to the features (scaling, rotation, principal components) sees no label, so that it is
done once for all targets and relabellings; what does look at labels (feature selection, the fit) is repeated by each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.classification import auc, balanced_accuracy, confusion
from bidsdnn.methods.models.classifiers import Decoder
from bidsdnn.methods.null import FEWEST_SCALED
from bidsdnn.methods.reduce import blocks, rotation
from bidsdnn.methods.scores import Split

Float = NDArray[np.float64]

_ENTRIES = 4_000_000
"""Decisions or indicators held at a time."""


class Fold(NamedTuple):
    """One fold's rows as a decoder takes them."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    rows: Float
    """(n_train, r)."""
    new: Float
    """(n_test, r)."""


@dataclass(frozen=True)
class Features:
    """What each fold does to the features before a decoder sees them, learned from its training part.

    Parameters
    ----------
    standardize : bool
        Whether each feature is z-scored.
    select : int or float
        How many features, or which share of them, are kept by the F of an analysis of variance (of numbers, by the
        squared correlation) in the training part; 0 keeps all.
    components : int
        How many principal components are kept; 0 keeps all.
    """

    standardize: bool = True
    select: float = 0
    components: int = 0

    def prepare(self, x: Float, train: Any, test: Any, *, rotate: bool = True) -> Fold:
        """Rows of one fold, all labels unseen.

        Parameters
        ----------
        x : array, shape (n, p)
        train, test : array of int
        rotate : bool
            Whether a decoder may be given any columns with the same inner products.

        Returns
        -------
        Fold
        """
        rows, new = x[train].astype(np.float64), x[test].astype(np.float64)
        mean = rows.mean(axis=0)
        rows -= mean
        new -= mean
        if self.standardize:
            spread = rows.std(axis=0)
            # What is constant but for rounding tells nothing, and must not be blown up.
            varies = spread > 1e-10 * np.abs(mean)
            scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies & (spread > 0))
            rows *= scale
            new *= scale
        if rotate or self.components:
            rows, new = rotated(rows, new)
            if self.components:
                rows, new = rows[:, : self.components], new[:, : self.components]
            # One number for all columns: penalties then mean the same for any features.
            unit = np.sqrt((rows**2).sum() / max(rows.size, 1))
            rows, new = (rows / unit, new / unit) if unit > 0 else (rows, new)
        return Fold(train, test, rows, new)


def rotated(rows: Float, new: Float) -> tuple[Float, Float]:
    """Coordinates of centred rows in the directions that they span, and those of new rows.

    Parameters
    ----------
    rows : array, shape (n, p)
        Columns of mean zero.
    new : array, shape (m, p)

    Returns
    -------
    rows : array, shape (n, r)
        With the same inner products; columns at right angles, the largest first.
    new : array, shape (m, r)
        Whatever lies outside of those directions is lost: no linear model that is fitted to the rows can see it.
    """
    if rows.shape[1] > len(rows):
        turned = rotation(rows @ rows.T)
        lengths = (turned**2).sum(axis=0)
        return turned, (new @ rows.T) @ turned / np.where(lengths > 0, lengths, 1)
    left, scale, right = np.linalg.svd(rows, full_matrices=False)
    kept = scale > 1e-10 * max(scale.max(initial=0), 1e-300)
    return left[:, kept] * scale[kept], new @ right[kept].T


def cross_decide(
    decoder: Decoder, x: ArrayLike, labels: ArrayLike, splits: Sequence[Split], *,
    features: Features = Features(), n_classes: int = 0, scale: Float | None = None,
) -> Float:  # fmt: skip
    """Each item was judged by a decoder that was fitted without it.

    Parameters
    ----------
    decoder : Decoder
    x : array-like, shape (n, p)
    labels : array-like, shape (P, n)
        Labellings of the items: classes from 0, or numbers.
    splits : sequence of (train, test)
    features : Features
    n_classes : int
        0 for numbers.
    scale : array, shape (P, n), optional
        Of numbers: filled with the root mean square of the fold's fitted deviations from the mean over its training
        part.

    Returns
    -------
    array, shape (P, n, C), or (P, n) for numbers
        NaN for items that no fold holds out.

    Raises
    ------
    ValueError
        If shapes disagree, or x is not finite.
    """
    x, labels = np.asarray(x), np.asarray(labels)
    if x.ndim != 2 or labels.ndim != 2 or labels.shape[1] != len(x):
        raise ValueError(f"x, labels: expected shapes (n, p) and (P, n), got {x.shape} and {labels.shape}")
    if not np.isfinite(x).all():
        raise ValueError("x: expected finite numbers, got NaN or infinity")
    shape = (*labels.shape, n_classes) if decoder.kind == "classes" else labels.shape
    found = np.full(shape, np.nan)
    for train, test in splits:
        for some, fold in _prepared(x, labels, train, test, decoder, features, n_classes):
            known = labels[some][:, train]
            if scale is None:
                found[some, test] = decoder.decide(fold.rows, known, fold.new, n_classes)
                continue
            both = decoder.decide(fold.rows, known, np.concatenate([fold.new, fold.rows]), n_classes)
            found[some, test], fitted = both[:, : len(test)], both[:, len(test) :]
            deviations = fitted - known.mean(axis=1, keepdims=True)
            scale[some, test] = np.sqrt((deviations**2).mean(axis=1, keepdims=True))
    return found


def _prepared(
    x: Any, labels: Any, train: Any, test: Any, decoder: Decoder, features: Features, n_classes: int
) -> Iterator[tuple[slice, Fold]]:
    """Some labellings at a time, with the fold's rows: the same for all, unless features are selected by the labels."""
    rotate = decoder.takes == "rotation"
    if not features.select:
        fold = features.prepare(x, train, test, rotate=rotate)
        step = max(1, _ENTRIES // (len(x) * max(n_classes, 1)))
        yield from ((some, fold) for some in blocks(len(labels), step))
        return
    kept = selected(x[train], labels[:, train], features.select, n_classes)
    for some in blocks(len(labels), 1):
        yield some, features.prepare(x[:, kept[some.start]], train, test, rotate=rotate)


def selected(x: ArrayLike, labels: ArrayLike, select: float, n_classes: int) -> NDArray[np.intp]:
    """Features were selected by the F of a one-way analysis of variance over the training part.

    Parameters
    ----------
    x : array-like, shape (n, p)
    labels : array-like, shape (P, n)
        Classes, or numbers, for which F grows with the squared correlation.
    select : int or float
        How many are kept, or, below 1, which share.
    n_classes : int
        0 for numbers.

    Returns
    -------
    array of int, shape (P, k)
        Ascending; a feature that is constant is kept last.
    """
    x, labels = np.asarray(x, dtype=np.float64), np.asarray(labels)
    count = int(np.ceil(select * x.shape[1])) if select < 1 else min(int(select), x.shape[1])
    centred = x - x.mean(axis=0)
    total = (centred**2).sum(axis=0)
    if n_classes:
        explained = np.zeros((len(labels), x.shape[1]))
        for one in range(n_classes):
            inside = (labels == one).astype(np.float64)
            size = np.maximum(inside.sum(axis=1), 1)[:, None]
            explained += (inside @ centred) ** 2 / size
    else:
        numbers = labels - labels.mean(axis=1, keepdims=True)
        explained = (numbers @ centred) ** 2 / np.maximum((numbers**2).sum(axis=1), 1e-300)[:, None]
    # F is a growing function of this share, whose degrees of freedom are those of all features.
    share = np.divide(explained, total, out=np.full_like(explained, -1), where=total > 1e-20 * (x**2).sum(axis=0))
    best = np.argsort(-share, axis=1, kind="stable")[:, :count]
    return np.asarray(np.sort(best, axis=1))


class Decoded(NamedTuple):
    """What was decoded from one table: the observed labels' decisions and score, and scores of relabellings."""

    decisions: Float
    score: float
    null: Float
    auc: float


def decode(
    decoder: Decoder, x: ArrayLike, labels: ArrayLike, splits: Sequence[Split], *,
    orders: ArrayLike, features: Features = Features(), n_classes: int = 0,
) -> Decoded:  # fmt: skip
    """Labels were decoded with cross-validation, and with labels permuted, each permutation repeating the whole fit.

    Parameters
    ----------
    decoder : Decoder
    x : array-like, shape (n, p)
    labels : array-like, shape (n,)
        Classes from 0, or numbers.
    splits : sequence of (train, test)
        A fold may leave items out of both.
    orders : array-like of int, shape (P, n)
        Relabellings: item i gets the label of item ``orders[k, i]``.
    features : Features
    n_classes : int
        0 for numbers.

    Returns
    -------
    Decoded
        ``decisions`` (n, C), or predictions (n,); ``score`` the balanced accuracy, or the correlation pooled over
        folds; ``null`` (P,).
    """
    labels = np.asarray(labels)
    every = labels[np.vstack([np.arange(len(labels)), np.asarray(orders)]).astype(int)]
    step = max(1, _ENTRIES // (len(labels) * max(n_classes, 1)))
    # Of very few held-out items the spread is a matter of chance, and of one it leaves the sign alone.
    few = not n_classes and min(len(test) for _, test in splits) < FEWEST_SCALED
    scores, first = [], np.empty(0)
    for some in blocks(len(every), step):
        scale = np.full(every[some].shape, np.nan) if few else None
        found = cross_decide(decoder, x, every[some], splits, features=features, n_classes=n_classes, scale=scale)
        first = found[0] if some.start == 0 else first
        scores.append(score(found, every[some], splits, n_classes, scale=scale))
    whole = np.concatenate(scores)
    area = auc(labels, first, splits) if n_classes else float("nan")
    # Predictions that do not vary agree with nothing.
    return Decoded(first, float(whole[0]), np.nan_to_num(whole[1:]), area)


def score(
    found: Float, labels: NDArray[Any], splits: Sequence[Split], n_classes: int, *, scale: Float | None = None
) -> Float:
    """Balanced accuracy of decisions (P, n, C), or pooled correlation of predictions (P, n), shape (P,).

    ``scale`` (P, n) puts the predictions of small folds on one scale; by default each fold's are on their own.
    """
    if n_classes:
        return balanced_accuracy(confusion(labels, choices(found), n_classes))
    return _correlation(found, labels.astype(np.float64), splits, scale)


def choices(decisions: Float) -> NDArray[np.intp]:
    """The class of the highest decision, (..., n); -1 for an item that was not held out."""
    unknown = np.isnan(decisions).any(axis=-1)
    return np.where(unknown, -1, np.where(np.isnan(decisions), -np.inf, decisions).argmax(axis=-1))


def _correlation(found: Float, labels: Float, splits: Sequence[Split], scale: Float | None) -> Float:
    """`scores.pooled_pearsonr` of each labelling; items that no fold holds out do not count."""
    guessed, measured = [], []
    for train, test in splits:
        mean = labels[:, train].mean(axis=1, keepdims=True)
        guess = found[:, test] - mean
        spread = np.sqrt((guess**2).mean(axis=1, keepdims=True)) if scale is None else scale[:, test]
        guessed.append(np.divide(guess, spread, out=np.zeros_like(guess), where=spread > 0))
        measured.append(labels[:, test] - mean)
    a, b = (np.concatenate(side, axis=1) for side in (guessed, measured))
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    length = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), length, out=np.full(len(a), np.nan), where=length > 0)
