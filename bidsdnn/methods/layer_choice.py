"""Which of several predictions of one response is best, how sure that is, and whether two differ.

The one idea: a bootstrap resamples what was held out, never the fits, so each sample's correlations are products of a
matrix of counts with five tables. What it cannot see, how the fits would differ on other training data, enters as a
factor on its variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr, t

from bidsdnn.methods.scores import Float, Split, training_means

Single = NDArray[np.float32]


class Difference(NamedTuple):
    """A difference of two scores, its standard error, and its two-sided test."""

    difference: float
    se: float
    t: float
    p: float


def held_out(splits: Sequence[Split]) -> NDArray[np.intp]:
    """Items that some fold holds out, sorted."""
    return np.sort(np.concatenate([test for _, test in splits]))


def on_one_scale(
    prediction: ArrayLike, y: ArrayLike, splits: Sequence[Split], *, scale: ArrayLike | None = None
) -> tuple[Single, Single]:
    """Bring held-out predictions and responses to the scale on which `scores.pooled_pearsonr` correlates them.

    Parameters
    ----------
    prediction, y : array-like, shape (n, V)
    splits : sequence of (train, test)
    scale : array-like, shape (n, V), optional
        What the predicted deviations are divided by in place of each fold's root mean square.

    Returns
    -------
    predicted, measured : array, shape (m, V)
        Of the items of `held_out`: deviations from the training part's mean, those predicted over each fold's root mean
        square, those measured over the root mean square of the column.
    """
    prediction, y = np.asarray(prediction), np.asarray(y)
    deviations = (prediction - training_means(y, splits)).astype(np.float64)
    for _, test in splits:
        part = deviations[test]
        size = np.sqrt((part**2).mean(axis=0)) if scale is None else np.asarray(scale)[test]
        deviations[test] = np.divide(part, size, out=np.zeros_like(part), where=(size > 0) & np.isfinite(part))
    rows = held_out(splits)
    measured = (y - training_means(y, splits))[rows].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        measured /= np.sqrt((measured**2).mean(axis=0))
    return deviations[rows].astype(np.float32), measured.astype(np.float32)


def resamplings(units: ArrayLike, *, samples: int, seed: int) -> Single:
    """Stimuli were drawn with replacement.

    Parameters
    ----------
    units : array-like, shape (n,)
        What is drawn as a whole: items of one stimulus, or of one stretch of time, have equal values.
    samples : int
    seed : int

    Returns
    -------
    array, shape (samples, n)
        How often each item is in each sample.
    """
    names, code = np.unique(np.asarray(units), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return np.asarray(drawn[:, code], dtype=np.float32)


def weighted_pearsonr(weights: Single, predicted: Single, measured: Single) -> Single:
    """Correlate columns with items counted as often as each sample has them.

    Parameters
    ----------
    weights : array, shape (samples, n)
    predicted, measured : array, shape (n, V)
        Of a scale near 1, as `on_one_scale` gives them.

    Returns
    -------
    array, shape (samples, V)
        NaN where nothing varies.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    first, second = share @ predicted, share @ measured
    together = share @ (predicted * measured) - first * second
    spread = (share @ predicted**2 - first**2) * (share @ measured**2 - second**2)
    found = np.full(together.shape, np.nan, dtype=np.float32)
    return np.divide(together, np.sqrt(np.maximum(spread, 0)), out=found, where=spread > 1e-9)


def moments(predicted: Single, measured: Single, parts: Sequence[NDArray[np.intp]]) -> Float:
    """Sums that give a correlation over any choice of parts, shape (parts, 6, V).

    Parameters
    ----------
    predicted, measured : array, shape (n, V)
    parts : sequence of array of int
        Rows of each part.

    Returns
    -------
    array, shape (parts, 6, V)
        Counts, sums of both, of their squares and of their products.
    """
    p, m = predicted.astype(np.float64), measured.astype(np.float64)
    one = np.ones_like(p)
    return np.stack([np.stack([a[rows].sum(axis=0) for a in (one, p, m, p * p, m * m, p * m)]) for rows in parts])


def chosen_pearsonr(sums: Float, choice: NDArray[np.intp]) -> Float:
    """Correlate over all parts, each predicted by the layer that was chosen for it.

    Parameters
    ----------
    sums : array, shape (layers, parts, 6, V)
        `moments` of each layer.
    choice : array of int, shape (parts, V) or (parts, 1)

    Returns
    -------
    array, shape (V,)
        NaN where nothing varies.
    """
    index = np.broadcast_to(choice[None, :, None], (1, *sums.shape[1:]))
    n, p, m, pp, mm, pm = np.take_along_axis(sums, index, axis=0)[0].sum(axis=0)
    spread = (pp - p * p / n) * (mm - m * m / n)
    return np.divide(pm - p * m / n, np.sqrt(np.maximum(spread, 0)), out=np.full(len(n), np.nan), where=spread > 1e-12)


def merged(splits: Sequence[Split], *, most: int = 10) -> list[Split]:
    """Join folds to at most so many, each trained on what all of its folds are trained on.

    Parameters
    ----------
    splits : sequence of (train, test)
    most : int

    Returns
    -------
    list of (train, test)
        The folds themselves, where they are few.
    """
    joined = []
    for part in np.array_split(np.arange(len(splits)), min(most, len(splits))):
        trains, tests = [splits[i][0] for i in part], [splits[i][1] for i in part]
        train = trains[0]
        for other in trains[1:]:
            train = np.intersect1d(train, other, assume_unique=True)
        joined.append((train, np.sort(np.concatenate(tests))))
    return joined


def training_factor(splits: Sequence[Split]) -> float:
    """How much larger the variance of a cross-validated score is than its bootstrap over held-out items says.

    1 + n_test / n_train, of all folds together: the folds' training parts overlap, so that one accident of training
    is in all of them (Nadeau & Bengio, 2003, Machine Learning 52, 239-281). Without it 13 to 22 % of tests of two equal
    models are below .05 (simulated), with it 2 to 7 %.
    """
    return 1 + len(held_out(splits)) / float(np.mean([len(train) for train, _ in splits]))


def difference_test(observed: float, resampled: ArrayLike, *, factor: float, dof: int) -> Difference:
    """Two scores were compared by the bootstrap variance of their difference, raised for the training parts' overlap.

    A two-sided t-test.

    Parameters
    ----------
    observed : float
    resampled : array-like, shape (samples,)
        The difference in each bootstrap sample.
    factor : float
        Of `training_factor`.
    dof : int
        Units drawn, less one.

    Returns
    -------
    Difference
        NaN where the scores never differ.
    """
    se = float(np.sqrt(factor) * np.std(np.asarray(resampled, dtype=np.float64), ddof=1))
    if not (np.isfinite(observed) and se > 0):
        return Difference(float(observed), se, float("nan"), float("nan"))
    statistic = float(observed) / se
    return Difference(float(observed), se, statistic, float(2 * t.sf(abs(statistic), dof)))


def preferred_depth(counts: ArrayLike) -> Float:
    """Depth was the mean over voxels of the layer that predicted each best, from 0 for the first to 1 for the last.

    After the assignment of voxels to layers of Güçlü & van Gerven (2015), Journal of Neuroscience 35, 10005-10014.

    Parameters
    ----------
    counts : array-like, shape (..., layers)
        How many voxels each layer predicts best.

    Returns
    -------
    array, shape (...)
        NaN without voxels, or with a single layer.
    """
    counts = np.asarray(counts, dtype=np.float64)
    place = np.arange(counts.shape[-1]) / max(counts.shape[-1] - 1, 1)
    total = counts.sum(axis=-1)
    known = (total > 0) & (counts.shape[-1] > 1)
    return np.divide(counts @ place, total, out=np.full(np.shape(total), np.nan), where=known)


def hierarchy_score(counts: ArrayLike) -> Float:
    """The brain hierarchy score is the rank correlation, over voxels, of a region's level and the best layer.

    The encoding-based score of Nonaka, Majima, Aoki & Kamitani (2021), iScience 24, 103013: Spearman's, ties having
    their mean rank.

    Parameters
    ----------
    counts : array-like, shape (..., levels, layers)
        How many voxels of each region each layer predicts best; regions in the order of their levels.

    Returns
    -------
    array, shape (...)
        NaN where all voxels share a level or a layer.
    """
    counts = np.asarray(counts, dtype=np.float64)
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    total = rows.sum(axis=-1)[..., None]

    def ranks(margin: Float) -> Float:
        return margin.cumsum(axis=-1) - margin / 2 - total / 2

    a, b = ranks(rows), ranks(columns)
    together = np.einsum("...i,...ij,...j->...", a, counts, b)
    spread = (rows * a**2).sum(axis=-1) * (columns * b**2).sum(axis=-1)
    return np.divide(together, np.sqrt(spread), out=np.full(np.shape(spread), np.nan), where=spread > 0)


def profile_rank(scores: ArrayLike) -> float:
    """Say whether scores rise with depth: Spearman's correlation of the layers' order and their scores.

    Parameters
    ----------
    scores : array-like, shape (layers,)

    Returns
    -------
    float
        NaN with fewer than three layers, or equal scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    kept = np.flatnonzero(np.isfinite(scores))
    if len(kept) < 3 or np.ptp(scores[kept]) == 0:
        return float("nan")
    return float(spearmanr(kept, scores[kept]).statistic)


def winners(scores: NDArray[Any]) -> NDArray[np.intp]:
    """Which layer is highest, the first of equal ones; a layer that predicts nothing counts as r = 0.

    Parameters
    ----------
    scores : array, shape (layers, ...)

    Returns
    -------
    array of int, shape (...)
    """
    return np.asarray(np.nan_to_num(scores, nan=0.0).argmax(axis=0))
