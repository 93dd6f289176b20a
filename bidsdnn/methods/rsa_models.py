"""Several models at once: weighted non-negative sums of RDMs, and RDMs after others were taken away.

The one idea: both are linear in the RDMs, so that what does not change under relabelled stimuli, the models' side, is
decomposed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.stats import rankdata

from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.relabelling import relabellings
from bidsdnn.methods.rsa_inference import FROM_ZERO, fisher_mean
from bidsdnn.methods.rsa_samples import Float, checked
from bidsdnn.methods.scores import Split
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.methods.transforms import SIDES, condensed_to_square, n_stimuli

CORRELATIONS = ("pearson", "spearman")
"""Comparisons that controls can be taken out of."""
_HELD_OUT_STIMULI = 3
"""Two stimuli have one pair, which correlates with nothing."""


def weighted(
    models: ArrayLike, brain: ArrayLike, *, folds: Sequence[Split], comparison: str = "pearson",
    judge: ArrayLike | None = None,
) -> tuple[Float, Float]:  # fmt: skip
    """A non-negative weighted sum of model RDMs was fitted to some stimuli and compared for others.

    Weights are those of least squares (Khaligh-Razavi & Kriegeskorte, 2014, PLoS Computational Biology 10,
    e1003915) on the pairs of two training stimuli, about the means unless the comparison measures from zero.
    Similarity is that of the pairs of two held-out stimuli: a pair of a held-out and a training stimulus shares
    that one's noise with the pairs that were fitted.

    Parameters
    ----------
    models : array-like, shape (M, pairs)
    brain : array-like, shape (pairs,)
    folds : sequence of (train, test)
        Index arrays of stimuli, from `predict.kfold`.
    comparison : str
        A row of `SIMILARITIES`, for the held-out pairs.
    judge : array-like, shape (pairs,), optional
        Of another brain, whose held-out pairs are compared with in place of this one's.

    Returns
    -------
    weights : array, shape (folds, M)
        In units of the brain's RDM for one unit of each model's; 0 for a model that is constant.
    similarity : array, shape (folds,)
        Of the held-out pairs, to be averaged by `fisher_mean`; NaN where no model has a weight.

    Raises
    ------
    ValueError
        If shapes disagree, an RDM is not finite, the comparison is unknown, or a fold shares stimuli between its
        parts, has fewer than 3 in either (4 held out for the whitened comparisons and CKA), or names others.
    """
    if comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
    similar = SIMILARITIES[comparison]
    table, target = checked(models, "models"), checked(np.asarray(brain)[None], "brain")[0]
    if table.shape[1] != len(target):
        raise ValueError(f"models, brain: expected as many pairs, got {table.shape[1]} and {len(target)}")
    measured = target if judge is None else checked(np.asarray(judge)[None], "judge")[0]
    if measured.shape != target.shape:
        raise ValueError(f"brain, judge: expected as many pairs, got {len(target)} and {len(measured)}")
    n = n_stimuli(len(target))
    first, second = np.triu_indices(n, 1)
    weights, similarity = np.zeros((len(folds), len(table))), np.full(len(folds), np.nan)
    for number, (train, test) in enumerate(folds):
        member = _members(train, test, n)
        fitted, held_out = (part[first] & part[second] for part in member)
        weights[number] = _fit(table[:, fitted], target[fitted], centred=comparison not in FROM_ZERO)
        similarity[number] = similar(weights[number] @ table[:, held_out], measured[held_out])
    return weights, similarity


def weighted_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    *,
    folds: Sequence[Split],
    comparison: str = "spearman",
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[Float, Float, Float]:
    """The held-out similarity of weighted models was tested by fitting them to relabelled stimuli.

    Parameters
    ----------
    models : array-like, shape (M, pairs)
    brains : array-like, shape (R, pairs)
    folds : sequence of (train, test)
        As in `weighted`.
    comparison : str
        A row of `SIMILARITIES`.
    permutations : int
    seed : int

    Returns
    -------
    similarity : array, shape (R,)
        `fisher_mean` over the folds of the similarity of `weighted`; a fold where no model has a weight counts as 0.
    p : array, shape (R,)
        (1 + b) / (1 + permutations), one-sided; each relabelling repeats the whole fit.
    weights : array, shape (R, M)
        Mean over the folds.

    Raises
    ------
    ValueError
        As `weighted`.
    """
    table, targets = checked(models, "models"), checked(brains, "brains")
    first = [weighted(table, target, folds=folds, comparison=comparison) for target in targets]
    observed = fisher_mean(np.nan_to_num(np.array([similarity for _, similarity in first])), axis=1)
    n = n_stimuli(table.shape[1])
    parts = [Part(table, train, test, n, comparison) for train, test in folds]
    null = np.empty((permutations, len(targets)))
    squares = [condensed_to_square(target).ravel() for target in targets]
    for some, places in relabellings(n, permutations, seed=seed):
        for column, square in enumerate(squares):
            relabelled = square.take(places)
            found = np.array([part.similarity(relabelled) for part in parts])
            null[some, column] = fisher_mean(np.nan_to_num(found), axis=0)
    weights = np.array([weight.mean(axis=0) for weight, _ in first])
    return observed, pvalue(observed, null), weights


class Part:
    """One fold of a weighted fit: the models' side, decomposed once for all relabellings."""

    def __init__(self, table: Float, train: ArrayLike, test: ArrayLike, n: int, comparison: str) -> None:
        first, second = np.triu_indices(n, 1)
        self.fitted, self.held_out = (part[first] & part[second] for part in _members(train, test, n))
        self.comparison, self.centred = comparison, comparison not in FROM_ZERO
        rows = table[:, self.fitted]
        origin = np.linalg.norm(rows, axis=1)
        if self.centred:
            rows = rows - rows.mean(axis=1, keepdims=True)
        size = np.linalg.norm(rows, axis=1)
        usable = size > 1e-12 * origin
        self.held_models = table[usable][:, self.held_out] / size[usable, None]
        # Least squares on the pairs is least squares on their triangle, as many rows as models.
        self.basis, self.triangle = np.linalg.qr((rows[usable] / size[usable, None]).T)

    def similarity(self, brains: Float, judges: Float | None = None) -> Float:
        """Held-out similarity of each brain RDM (count, pairs), or of another's; NaN where no model has a weight."""
        if not self.triangle.size:
            return np.full(len(brains), np.nan)
        target = brains[:, self.fitted]
        if self.centred:
            target = target - target.mean(axis=1, keepdims=True)
        weights = np.array([nnls(self.triangle, one)[0] for one in target @ self.basis])
        predicted, held = weights @ self.held_models, (brains if judges is None else judges)[:, self.held_out]
        if self.comparison in SIDES:
            still, moved = SIDES[self.comparison](predicted)[0], SIDES[self.comparison](held)[1]
            return np.asarray(np.clip(np.einsum("ij,ij->i", still, moved), -1, 1))
        similar = SIMILARITIES[self.comparison]
        return np.array([similar(one, other) for one, other in zip(predicted, held, strict=True)])


def partial(model: ArrayLike, brain: ArrayLike, controls: ArrayLike, *, comparison: str = "spearman") -> float:
    """Model and brain RDMs were correlated after regressing control RDMs out of both.

    Parameters
    ----------
    model, brain : array-like, shape (pairs,)
    controls : array-like, shape (C, pairs)
        RDMs of what is not to count, such as pixels or category; they may be collinear.
    comparison : str
        "pearson", or "spearman": all are ranked first.

    Returns
    -------
    float
        From -1 to 1; NaN if the controls leave nothing of either.

    Raises
    ------
    ValueError
        If the comparison is another one, shapes disagree, an RDM is not finite, or the controls are as many as the
        pairs less 2.
    """
    pair = np.stack([np.asarray(model, dtype=np.float64), np.asarray(brain, dtype=np.float64)])
    rows, basis = _adjusted(pair, controls, comparison, "model, brain")
    left, length = _left(rows, basis)
    return float(np.clip(left[0] @ left[1] / length.prod(), -1, 1))


def partial_permutation(
    models: ArrayLike,
    brains: ArrayLike,
    controls: ArrayLike,
    *,
    comparison: str = "spearman",
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[Float, Float, Float]:
    """Partial correlations of RDMs were tested by relabelling the stimuli of what the controls leave of the brain's.

    The residuals of the brain's RDM are relabelled, and the controls regressed out of them again: Freedman & Lane
    (1983), Journal of Business & Economic Statistics 1, 292-298, as Legendre (2000), Journal of Statistical
    Computation and Simulation 67, 37-73, applies it to distances.

    Parameters
    ----------
    models : array-like, shape (L, pairs)
    brains : array-like, shape (R, pairs)
    controls : array-like, shape (C, pairs)
        They may be collinear.
    comparison : str
        "pearson" or "spearman".
    permutations : int
    seed : int

    Returns
    -------
    similarity : array, shape (L, R)
        `partial` of each two; NaN where the controls leave nothing.
    p : array, shape (L, R)
        (1 + b) / (1 + permutations), one-sided.
    null : array, shape (permutations, L, R)
        For `similarity.familywise`.

    Raises
    ------
    ValueError
        As `partial`.
    """
    left, right = np.asarray(models, dtype=np.float64), np.asarray(brains, dtype=np.float64)
    rows, basis = _adjusted(np.vstack([left, right]), controls, comparison, "models, brains")
    residual, length = _left(rows, basis)
    still, moved = residual[: len(left)] / length[: len(left), None], residual[len(left) :]
    squares = [condensed_to_square(row).ravel() for row in moved]
    energy = length[len(left) :] ** 2
    observed = still @ (moved / length[len(left) :, None]).T
    null = np.empty((permutations, *observed.shape))
    for some, places in relabellings(n_stimuli(rows.shape[1]), permutations, seed=seed):
        for column, square in enumerate(squares):
            relabelled = square.take(places)
            # Relabelling keeps the length, of which the controls take their share anew.
            rest = energy[column] - ((relabelled @ basis) ** 2).sum(axis=1)
            rest = np.where(rest > 1e-12 * energy[column], rest, np.nan)
            null[some, :, column] = (relabelled @ still.T) / np.sqrt(rest)[:, None]
    return np.clip(observed, -1, 1), pvalue(observed, null), null


def _adjusted(rows: Float, controls: ArrayLike, comparison: str, name: str) -> tuple[Float, Float]:
    """RDMs as the comparison sees them, and orthonormal columns (pairs, k) that span the controls and the mean."""
    if comparison not in CORRELATIONS:
        raise ValueError(f"comparison: expected one of {CORRELATIONS} for partial correlation, got {comparison!r}")
    rows, others = checked(rows, name), checked(controls, "controls")
    if others.shape[1] != rows.shape[1] or len(others) > rows.shape[1] - 3:
        raise ValueError(
            f"controls: expected fewer than {rows.shape[1] - 2} of shape {rows.shape[1:]}, got {others.shape}"
        )
    if comparison == "spearman":
        rows, others = np.asarray(rankdata(rows, axis=1)), np.asarray(rankdata(others, axis=1))
    others = others - others.mean(axis=1, keepdims=True)
    size = np.linalg.norm(others, axis=1)
    # Scaled to one length, no control is lost as rounding beside another.
    design = (others[size > 0] / size[size > 0, None]).T
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    kept = left[:, singular > 1e-10 * singular.max(initial=0)]
    mean = np.full((rows.shape[1], 1), rows.shape[1] ** -0.5)
    return rows, np.hstack([mean, kept])


def _left(rows: Float, basis: Float) -> tuple[Float, Float]:
    """What a basis leaves of RDMs, and its length: NaN where that is no more than rounding."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    left = centred - (centred @ basis) @ basis.T
    # Once more, for what rounding has left of the basis in a residual that is small.
    left = left - (left @ basis) @ basis.T
    length = np.linalg.norm(left, axis=1)
    return left, np.where(length > 1e-8 * np.linalg.norm(centred, axis=1), length, np.nan)


def _members(train: ArrayLike, test: ArrayLike, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of n stimuli are in either part, as masks."""
    masks = np.zeros((2, n), dtype=bool)
    for mask, part in zip(masks, (train, test), strict=True):
        index = np.asarray(part)
        if index.min(initial=0) < 0 or index.max(initial=0) >= n:
            raise ValueError(f"folds: expected stimuli from 0 to {n - 1}, got {index.min()} to {index.max()}")
        mask[index] = True
    if masks.all(axis=0).any():
        raise ValueError("folds: expected train and test stimuli apart, got a fold that shares some")
    if masks.sum(axis=1).min() < _HELD_OUT_STIMULI:
        raise ValueError(
            f"folds: expected at least {_HELD_OUT_STIMULI} stimuli to train and to test, got {masks.sum(axis=1)}"
        )
    return masks[0], masks[1]


def _fit(table: Float, target: Float, *, centred: bool) -> Float:
    """Non-negative least squares with models at unit length, so that small ones are not lost as rounding."""
    origin = np.linalg.norm(table, axis=1)
    if centred:
        table, target = table - table.mean(axis=1, keepdims=True), target - target.mean()
    size = np.linalg.norm(table, axis=1)
    usable = size > 1e-12 * origin
    weights = np.zeros(len(table))
    if usable.any():
        weights[usable] = nnls((table[usable] / size[usable, None]).T, target)[0] / size[usable]
    return weights
