"""Bootstrap of model evaluations over stimuli, over participants, and over both.

The one idea: the three ways to resample share their draws, so that the variance over both can be corrected by those
over each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bidsdnn.methods.rsa_samples import OVER, Float, checked, evaluate
from bidsdnn.methods.transforms import n_stimuli


@dataclass(frozen=True)
class Bootstrap:
    """How similar models are to the participants' RDMs, and how much that varies over samples."""

    similarity: Float
    """(M,) mean over participants of the similarity with each model, without resampling."""
    ceiling: float
    """The lower noise ceiling, without resampling; NaN for one participant."""
    evaluations: Float
    """(samples, M) the same similarity in each sample; NaN where too few stimuli were drawn."""
    ceilings: Float
    """(samples,) the lower noise ceiling in each sample; NaN where one participant was drawn throughout."""
    covariance: Float
    """(M, M) of the evaluations over the samples, uncorrected."""
    variance: Float
    """(M,) of each model's similarity, corrected."""
    difference_variance: Float
    """(M, M) of the difference of each two models, corrected."""
    ceiling_variance: Float
    """(M,) of the difference of each model from the lower noise ceiling, corrected."""
    dof: int
    """Degrees of freedom of a t-test with these variances."""


def bootstrap(
    models: ArrayLike,
    rdms: ArrayLike,
    *,
    comparison: str = "spearman",
    samples: int = 1000,
    over: str = "both",
    seed: int = 0,
) -> Bootstrap:
    """Similarities of models were bootstrapped over stimuli, participants or both, identical pairs left out.

    The variance over stimuli or over participants alone is multiplied by n / (n - 1). Over both, it is the
    corrected dual bootstrap of Schuett et al. (2023), eLife 12, e82566: with n stimuli and N participants,
    a = n / (n - 1) and b = N / (N - 1), it is a v_s + b v_p - a b (v_both - v_s - v_p), at least a v_s and b v_p,
    and at most v_both (rsatoolbox's formula with both numbers given; 2 (v_s + v_p) - v_both for large ones). The
    uncorrected v_both counts the noise of single pairs three times.

    Parameters
    ----------
    models : array-like, shape (M, pairs)
    rdms : array-like, shape (N, pairs)
        The participants' RDMs, of the same stimuli in the same order.
    comparison : str
        A row of `SIMILARITIES`.
    samples : int
    over : str
        "both", "stimuli" or "participants": what the result is to generalise to.
    seed : int

    Returns
    -------
    Bootstrap
        Degrees of freedom are the number of what is resampled, the smaller one of both, less one.

    Raises
    ------
    ValueError
        If an argument is unknown, shapes disagree, an RDM is not finite, there are fewer than 4 stimuli or 2
        samples, or fewer than 2 participants where they are resampled.
    """
    if over not in OVER:
        raise ValueError(f"over: expected one of {OVER}, got {over!r}")
    if samples < 2:
        raise ValueError(f"samples: expected at least 2, got {samples}")
    brains = checked(rdms, "rdms")
    if len(brains) < 2 and over != "stimuli":
        raise ValueError(f"rdms: expected at least 2 participants to resample, got {len(brains)}")
    observed, drawn, numbers = _drawn(models, brains, comparison=comparison, samples=samples, over=over, seed=seed)
    return _summary(observed, drawn, numbers, over)


def bootstraps(
    models: ArrayLike, rdms: ArrayLike, *, comparison: str = "spearman", samples: int = 1000, seed: int = 0
) -> dict[str, Bootstrap]:
    """Similarities of models were bootstrapped over stimuli, over participants and over both, with the same draws.

    Parameters
    ----------
    models, rdms, comparison, samples, seed
        As in `bootstrap`.

    Returns
    -------
    dict of str to Bootstrap
        By `OVER`; each is what `bootstrap` returns.

    Raises
    ------
    ValueError
        As `bootstrap`.
    """
    brains = checked(rdms, "rdms")
    if samples < 2 or len(brains) < 2:
        raise ValueError(f"samples, rdms: expected at least 2 of each, got {samples} and {len(brains)}")
    observed, drawn, numbers = _drawn(models, brains, comparison=comparison, samples=samples, over="both", seed=seed)
    return {over: _summary(observed, drawn, numbers, over) for over in OVER}


def _drawn(
    models: ArrayLike, brains: Float, *, comparison: str, samples: int, over: str, seed: int
) -> tuple[Float, dict[str, Float], dict[str, int]]:
    """Evaluations without resampling and in random samples, and how many stimuli and participants there are."""
    n, n_participants = n_stimuli(brains.shape[1]), len(brains)
    rng = np.random.default_rng(seed)
    stimuli = rng.multinomial(n, np.full(n, 1 / n), size=samples)
    participants = rng.multinomial(n_participants, np.full(n_participants, 1 / n_participants), size=samples)
    every = np.ones((1, n), dtype=np.int64), np.ones((1, n_participants), dtype=np.int64)
    observed = evaluate(models, brains, *every, comparison=comparison, over="stimuli")["stimuli"][0]
    drawn = evaluate(models, brains, stimuli, participants, comparison=comparison, over=over)
    return observed, drawn, {"stimuli": n, "participants": n_participants}


def _summary(observed: Float, drawn: dict[str, Float], numbers: dict[str, int], over: str) -> Bootstrap:
    chosen = drawn if over == "both" else {over: drawn[over]}
    # One more column, always zero: the difference of a model from it is the model's similarity itself.
    models_and_zero = {name: np.pad(values[:, :-1], ((0, 0), (0, 1))) for name, values in chosen.items()}
    differences = _difference_variance(models_and_zero, numbers)
    evaluations, ceilings = drawn[over][:, :-1], drawn[over][:, -1]
    return Bootstrap(
        similarity=observed[:-1],
        ceiling=float(observed[-1]),
        evaluations=evaluations,
        ceilings=ceilings,
        covariance=_covariance(evaluations),
        variance=differences[:-1, -1],
        difference_variance=differences[:-1, :-1],
        ceiling_variance=_difference_variance(chosen, numbers)[:-1, -1],
        dof=(min(numbers.values()) if over == "both" else numbers[over]) - 1,
    )


def _covariance(values: Float) -> Float:
    """Over samples without NaN; NaN where fewer than two are left."""
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        return np.full((values.shape[1], values.shape[1]), np.nan)
    return np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1])


def _difference_variance(drawn: dict[str, Float], numbers: dict[str, int]) -> Float:
    """Corrected variance of the difference of each two columns."""
    found = {}
    for name, values in drawn.items():
        covariance = _covariance(values)
        own = np.diag(covariance)
        found[name] = np.maximum(own[:, None] + own - 2 * covariance, 0)
    single = {name: found[name] * k / (k - 1) for name, k in numbers.items() if name in found}
    if "both" not in found:
        return next(iter(single.values()))
    scale = np.prod([k / (k - 1) for k in numbers.values()])
    total = sum(single.values()) - scale * (found["both"] - found["stimuli"] - found["participants"])
    return np.minimum(np.maximum(total, np.maximum(*single.values())), found["both"])
