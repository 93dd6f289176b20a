"""What the similarity of model and brain RDMs means: its ceiling and its tests.

A model is judged against nothing (zero), against the best any model could do with such noise (the ceiling), and
against other models; tests take their variances from `rsa_bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata, t

from bidsdnn.methods.inference import fdr
from bidsdnn.methods.rsa_bootstrap import Bootstrap
from bidsdnn.methods.rsa_samples import Float, checked
from bidsdnn.methods.similarity import SIMILARITIES

_RANKED = ("spearman", "kendall_tau_a", "kendall_tau_b")
FROM_ZERO = ("cosine", "whitened_cosine", "linear_cka")
"""Comparisons that are above zero for any two RDMs of distances, so that zero is no null for them."""
_VARIANCE = 1e-20
"""Variances below this are rounding: equal models differ by nothing, always."""


@dataclass(frozen=True)
class Family:
    """A family of t-tests; every array has one shape, and NaN where nothing varies."""

    difference: Float
    """What was tested against zero."""
    t: Float
    p: Float
    holm: Float
    """P-values corrected so that one false positive in the family is as rare as said."""
    q: Float
    """The smallest false discovery rate at which each test would be a discovery."""


def noise_ceiling(rdms: ArrayLike, *, comparison: str = "spearman") -> tuple[float, float]:
    """The best similarity any model could reach lay between a lower and an upper noise ceiling.

    Upper: the mean similarity of the participants' RDMs with the mean of all of them, which is tuned to their
    noise. Lower: with the mean of the others. RDMs are averaged as the comparison sees them: as ranks (Spearman,
    Kendall), z-scored (Pearson, also whitened) or at unit length (cosine, also whitened; CKA). Nili et al. (2014),
    PLoS Computational Biology 10, e1003553; Schuett et al. (2023), eLife 12, e82566.

    Parameters
    ----------
    rdms : array-like, shape (N, pairs)
        The participants' RDMs.
    comparison : str
        A row of `SIMILARITIES`. For Kendall's tau the mean of ranks is an approximation of the best RDM.

    Returns
    -------
    lower, upper : float
        The lower one is NaN for a single participant, both for a constant RDM.

    Raises
    ------
    ValueError
        If the comparison is unknown, an RDM is not finite, or there are fewer than 4 stimuli.
    """
    similar = _similarity(comparison)
    rows = checked(rdms, "rdms")
    normal = _normalised(rows, comparison)
    total = normal.sum(axis=0)
    upper = float(np.mean([similar(total, row) for row in rows]))
    if len(rows) < 2:
        return np.nan, upper
    return float(np.mean([similar(total - own, row) for own, row in zip(normal, rows, strict=True)])), upper


def against_zero(resampled: Bootstrap) -> Family:
    """Each model's similarity was tested against zero by a one-sided t-test with its bootstrap variance.

    Parameters
    ----------
    resampled : Bootstrap
        Of a correlation: the cosine of two RDMs is never zero by chance.

    Returns
    -------
    Family
        Arrays of shape (M,), a family of the models.
    """
    return _tests(resampled.similarity, resampled.variance, resampled.dof, two_sided=False)


def against_ceiling(resampled: Bootstrap) -> Family:
    """Each model's distance from the lower noise ceiling was tested by a two-sided t-test.

    The variance is that of the difference, as the ceiling varies with the models over the same samples. A model
    that is not significantly lower explains the data as well as can be told.

    The truth lies above the lower ceiling, so that it is seldom found below it, where noise adds nothing to the RDMs
    (crossnobis, any comparison) or the same to all distances and the comparison takes no notice of that (Pearson,
    Spearman, Kendall, whitened Pearson). For a cosine (also whitened; CKA) of other distances participants resemble
    each other by what noise adds, and the truth does lie below: not to be used. The same holds, less, for all
    comparisons of other distances where some stimuli are noisier than others in every participant.

    Parameters
    ----------
    resampled : Bootstrap

    Returns
    -------
    Family
        Arrays of shape (M,), a family of the models; negative differences lie below the ceiling. NaN for one
        participant.
    """
    difference = resampled.similarity - resampled.ceiling
    return _tests(difference, resampled.ceiling_variance, resampled.dof, two_sided=True)


def interval(resampled: Bootstrap, *, level: float = 0.95) -> tuple[Float, Float]:
    """Each model's similarity has a confidence interval from t with its bootstrap variance.

    Parameters
    ----------
    resampled : Bootstrap
    level : float
        Of confidence, between 0 and 1.

    Returns
    -------
    lower, upper : array, shape (M,)

    Raises
    ------
    ValueError
        If the level lies outside 0 to 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    margin = t.ppf((1 + level) / 2, resampled.dof) * np.sqrt(resampled.variance)
    return resampled.similarity - margin, resampled.similarity + margin


def pairwise(resampled: Bootstrap) -> Family:
    """Pairs of models were compared by a two-sided t-test with the bootstrap variance of their difference.

    Parameters
    ----------
    resampled : Bootstrap

    Returns
    -------
    Family
        Arrays of shape (M, M): row less column, a family of M (M - 1) / 2 comparisons; NaN on the diagonal and for
        models that never differ.
    """
    first, second = np.triu_indices(len(resampled.similarity), 1)
    difference = resampled.similarity[first] - resampled.similarity[second]
    tested = _tests(difference, resampled.difference_variance[first, second], resampled.dof, two_sided=True)
    shape = resampled.difference_variance.shape

    def square(values: Float, sign: float) -> Float:
        matrix = np.full(shape, np.nan)
        matrix[first, second], matrix[second, first] = values, sign * values
        return matrix

    return Family(
        difference=square(tested.difference, -1),
        t=square(tested.t, -1),
        p=square(tested.p, 1),
        holm=square(tested.holm, 1),
        q=square(tested.q, 1),
    )


def holm(p: ArrayLike) -> Float:
    """The family-wise error rate was controlled by Holm's step-down procedure.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70: valid under any dependence of the tests.

    Parameters
    ----------
    p : array-like, any shape
        P-values of one family; NaN are tests that were not made, and are not counted.

    Returns
    -------
    array, of the shape of ``p``
        Corrected p-values; NaN where p is.

    Raises
    ------
    ValueError
        If a p-value lies outside 0 to 1.
    """
    p = np.asarray(p, dtype=np.float64)
    made = ~np.isnan(p)
    tested = p[made]
    if ((tested < 0) | (tested > 1)).any():
        raise ValueError(f"p: expected values from 0 to 1, got {tested.min()} to {tested.max()}")
    order = np.argsort(tested, kind="stable")
    corrected = np.empty_like(tested)
    raised = tested[order] * np.arange(len(tested), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1)
    result = np.full(p.shape, np.nan)
    result[made] = corrected
    return result


def fisher_mean(r: ArrayLike, *, axis: int = 0) -> Float:
    """Correlations were averaged after Fisher's z transform, and the mean transformed back.

    tanh(mean(arctanh r)): the sampling variance of z hardly depends on the correlation, and the plain mean is biased
    towards zero. Silver & Dunlap (1987), Journal of Applied Psychology 72, 146-148.

    Parameters
    ----------
    r : array-like
        Correlations; NaN are left out.
    axis : int

    Returns
    -------
    array, without that axis
        NaN where all are. A correlation of 1 counts as the largest number below it.

    Raises
    ------
    ValueError
        If a value lies outside -1 to 1.
    """
    r = np.asarray(r, dtype=np.float64)
    if (np.abs(r) > 1 + 1e-12).any():
        raise ValueError(f"r: expected correlations from -1 to 1, got {np.nanmin(r)} to {np.nanmax(r)}")
    largest = np.nextafter(1.0, 0.0)
    z, present = np.arctanh(np.clip(r, -largest, largest)), ~np.isnan(r)
    count = present.sum(axis=axis)
    total = np.where(present, z, 0).sum(axis=axis)
    return np.asarray(np.tanh(total / np.where(count > 0, count, np.nan)))


def _similarity(comparison: str) -> Callable[[ArrayLike, ArrayLike], float]:
    if comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
    return SIMILARITIES[comparison]


def _normalised(rows: Float, comparison: str) -> Float:
    """RDMs on one scale, as that comparison wants them averaged."""
    if comparison in _RANKED:
        return np.asarray(rankdata(rows, axis=1), dtype=np.float64)
    if comparison not in FROM_ZERO:
        rows = rows - rows.mean(axis=1, keepdims=True)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(size > 0, size, np.nan))


def _tests(difference: Float, variance: Float, dof: int, *, two_sided: bool) -> Family:
    error = np.sqrt(np.where(variance > _VARIANCE, variance, np.nan))
    statistic = difference / error
    p = 2 * t.sf(np.abs(statistic), dof) if two_sided else t.sf(statistic, dof)
    return Family(difference, statistic, np.asarray(p), holm(p), fdr(p))
