"""One person's responses and those of others: how reliable their mean is, and how well models of others predict one.

The one idea: a model that is fitted to others predicts a person it has not seen, and each person is a target of all the
others, so that the scores of people depend on each other. Relabelling the stimuli of all people alike keeps that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.null import held_out, products
from bidsdnn.methods.predict import EXACT_ITEMS, Linear, Model
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import (
    Float,
    Split,
    membership,
    pearsonr,
    pooled_correlation,
    standardise,
    trained_on,
    training_means,
)

_ENTRIES = 4_000_000
"""Predictions, or entries of relabelled operators, held at a time."""


def alpha(variances: ArrayLike, of_mean: ArrayLike, n_people: int) -> Float:
    """Cronbach's alpha over people: the reliability of their mean, all that differs between people being noise.

    With s the variances over stimuli of P people's responses and m that of their mean,
    P / (P - 1) (1 - sum(s) / (P^2 m)), the mean of all split-half reliabilities over people; where people are alike
    that is Spearman and Brown's formula for P people. Cronbach (1951), Psychometrika 16, 297-334.

    Parameters
    ----------
    variances : array-like, shape (V,)
        Sum over people of the variance of each one's responses over stimuli.
    of_mean : array-like, shape (V,)
        Variance over stimuli of the mean over people.
    n_people : int

    Returns
    -------
    array, shape (V,)
        1 or less; NaN where nothing varies.
    """
    return n_people / (n_people - 1) * reliability_of_mean(variances, of_mean, n_people)


def reliability_of_mean(noise: ArrayLike, of_mean: ArrayLike, n_people: int) -> Float:
    """Reliability of a mean over people is the share of its variance that is not the noise of their measurements.

    The noise of one person's averaged responses is (1 - reliability) times their variance over stimuli, and that of
    the mean over P people is the sum of theirs over P^2.

    Parameters
    ----------
    noise : array-like, shape (V,)
        Sum over people of the noise variance of each one's responses.
    of_mean : array-like, shape (V,)
        Variance over stimuli of the mean over people.
    n_people : int

    Returns
    -------
    array, shape (V,)
        1 or less; NaN where nothing varies.
    """
    summed, of_sum = np.asarray(noise, dtype=np.float64), n_people**2 * np.asarray(of_mean, dtype=np.float64)
    return 1 - np.divide(summed, of_sum, out=np.full_like(of_sum, np.nan), where=of_sum > 0)


def crossed_pearsonr(
    predicted: ArrayLike, targets: ArrayLike, measured: ArrayLike, splits: Sequence[Split], *,
    scale: ArrayLike | None = None,
) -> Float:  # fmt: skip
    """Held-out predictions of a model of others were correlated with one person's responses.

    As `pooled_pearsonr`, with each side free of its own training part's mean: predictions of the others', responses of
    the person's.

    Parameters
    ----------
    predicted : array-like, shape (n, V)
    targets : array-like, shape (n, V)
        What the model was fitted to.
    measured : array-like, shape (n, V)
        The person's.
    splits : sequence of (train, test)
        They hold out every item once, or are a single split.
    scale : array-like, shape (n, V), optional
        As of `pooled_pearsonr`.

    Returns
    -------
    array, shape (V,)
        NaN where nothing varies or something is not finite.
    """
    given, y = np.asarray(predicted), np.asarray(measured)
    if len(splits) == 1:
        test = splits[0][1]
        return np.asarray(pearsonr(given[test], y[test]))
    deviations = given - training_means(targets, splits)
    if scale is not None:
        spread = np.asarray(scale)
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = np.where(spread == 0, 0, deviations / spread)
        return np.asarray(pearsonr(scaled, y - training_means(y, splits)))
    learned = trained_on(splits, len(y))
    members = membership(splits, len(y))
    with np.errstate(invalid="ignore"):
        return np.asarray(
            pooled_correlation(
                deviations.astype(np.float64)[None], standardise(y), members[None],
                None if learned is None else learned[None],
            )[0]
        )  # fmt: skip


def means_of_others(tables: ArrayLike) -> Float:
    """Mean of all people but one, for each person.

    Parameters
    ----------
    tables : array-like, shape (P, ...)

    Returns
    -------
    array of float64, shape (P, ...)
        Free of the person's own table but for rounding.
    """
    every = np.asarray(tables, dtype=np.float64)
    return np.asarray((every.sum(axis=0) - every) / (len(every) - 1))


def crossed_null(
    model: Model, features: Any, tables: ArrayLike, splits: Sequence[Split], orders: NDArray[np.intp],
    regions: NDArray[np.bool_], *, columns: NDArray[np.intp] | None = None,
) -> Float:  # fmt: skip
    """Scores of people predicted from others were compared with those of stimuli relabelled alike in all people.

    The fit is repeated for each relabelling, with all that the model chooses fixed beforehand where it can be. Scores
    of people depend on each other, as each is predicted from responses that the others' scores rest on; they do so
    under every relabelling as well.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    features : array-like, shape (n, p)
    tables : array-like, shape (P, n, V)
        Responses of each person to the same items.
    splits : sequence of (train, test)
        As of `crossed_pearsonr`.
    orders : array of int, shape (m, n)
    regions : array of bool, shape (R, V)
    columns : array of int, shape (V,), optional
        Which of the columns that the model knows of these are; all, if not given.

    Returns
    -------
    array, shape (1 + m, R)
        Mean over people and a region's columns of r, the observed one first; NaN for regions without any column.
    """
    measured = np.asarray(tables, dtype=np.float64)
    people, n, _ = measured.shape
    usable = np.isfinite(np.array([standardise(one) for one in measured])).all(axis=(0, 1))
    inside = np.asarray(regions, dtype=bool) & usable
    weights = inside.T / np.where(inside.sum(axis=1) > 0, inside.sum(axis=1), np.nan)
    means = np.full((1 + len(orders), len(inside)), np.nan)
    if not usable.any():
        return means
    others, own = means_of_others(measured)[:, :, usable], measured[:, :, usable]
    y = own.transpose(1, 0, 2).reshape(n, -1)
    every = np.vstack([np.arange(n), orders])
    if isinstance(model, Linear) and len(splits) > 1:
        scored = _products(model.operator(features, splits), others.transpose(1, 0, 2).reshape(n, -1), y, splits, every)
    else:
        known = np.arange(len(usable)) if columns is None else columns
        scored = _refits(model, features, others, own, splits, every, known[usable])
    for some, r in scored:
        over_people = np.nan_to_num(r).reshape(len(r), people, -1).mean(axis=1)
        means[some] = over_people @ weights[usable]
    return means


def _refits(
    model: Any, features: Any, others: NDArray[Any], own: NDArray[Any], splits: Sequence[Split],
    orders: NDArray[np.intp], columns: NDArray[np.intp],
) -> Iterator[tuple[slice, Float]]:  # fmt: skip
    """R of each person's columns for one relabelling at a time, (1, P * columns); people are fitted one by one."""
    fixed = model.fixed() if hasattr(model, "fixed") else model
    fixed = fixed.among(columns) if hasattr(fixed, "among") else fixed
    features = fixed.drawn(features) if hasattr(fixed, "drawn") else features
    if len(splits) == 1:
        # What the model was fitted to stays; only what it has not seen is relabelled.
        test = splits[0][1]
        given = [held_out(fixed, features, target, splits)[test] for target in others]
        for one, order in enumerate(orders):
            judged = zip(given, own, strict=True)
            yield slice(one, one + 1), np.concatenate([pearsonr(guess, y[order[test]]) for guess, y in judged])[None]
        return
    for one, order in enumerate(np.argsort(orders, axis=1)):
        each = [
            crossed_pearsonr(held_out(fixed, features, target[order], splits), target[order], y[order], splits)
            for target, y in zip(others, own, strict=True)
        ]
        yield slice(one, one + 1), np.concatenate(each)[None]


def _products(
    operator: NDArray[Any], targets: NDArray[Any], y: NDArray[Any], splits: Sequence[Split], orders: NDArray[np.intp]
) -> Iterator[tuple[slice, Float]]:
    """The same of a model that is linear in the targets: relabelling moves the operator and the folds."""
    n = len(y)
    h = products(operator, splits).operator
    folds, learned = membership(splits, n), trained_on(splits, n)
    if len(folds) == n:
        # Folds of one item have no scale of their own and, at one penalty, need none.
        folds, learned = np.ones((1, n)), np.ones((1, n))
    dtype = np.float64 if n <= EXACT_ITEMS else np.float32
    h, standard, given = h.astype(dtype), standardise(y).astype(dtype), targets.astype(dtype)
    step = max(1, _ENTRIES // max(n * n, n * y.shape[1]))
    for some in blocks(len(orders), step):
        moved = orders[some]
        relabelled = np.array([h[np.ix_(order, order)] for order in moved])
        training = None if learned is None else learned[:, moved].transpose(1, 0, 2)
        yield some, pooled_correlation(relabelled @ given, standard, folds[:, moved].transpose(1, 0, 2), training)
