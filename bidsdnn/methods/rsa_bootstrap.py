"""Bootstrap of model evaluations over stimuli, over participants, and over both.

The one idea: a resampled set of stimuli is a weight for each pair, so a sample costs one small matrix product of
weighted RDMs, and that product serves the samples over stimuli and over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Integers = NDArray[np.int64]

COMPARISONS = ("cosine", "pearson", "spearman")
"""Rows of `SIMILARITIES` that resampled stimuli can be compared by."""
OVER = ("both", "stimuli", "participants")

_DISTINCT_STIMULI = 3
"""A sample of fewer distinct stimuli has too few pairs to correlate, and is left out, as in rsatoolbox."""


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
        "pearson", "spearman" (ranks are found anew in each sample) or "cosine".
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
    table, brains = checked(models, "models"), checked(rdms, "rdms")
    n, n_participants = n_stimuli(brains.shape[1]), len(brains)
    if n_participants < 2 and over != "stimuli":
        raise ValueError(f"rdms: expected at least 2 participants to resample, got {n_participants}")
    rng = np.random.default_rng(seed)
    stimuli = rng.multinomial(n, np.full(n, 1 / n), size=samples)
    participants = rng.multinomial(n_participants, np.full(n_participants, 1 / n_participants), size=samples)
    every = np.ones((1, n), dtype=np.int64), np.ones((1, n_participants), dtype=np.int64)
    observed = evaluate(table, brains, *every, comparison=comparison)["both"][0]
    drawn = evaluate(table, brains, stimuli, participants, comparison=comparison, over=over)
    numbers = {"stimuli": n, "participants": n_participants}
    # One more column, always zero: the difference of a model from it is the model's similarity itself.
    models_and_zero = {name: np.pad(values[:, :-1], ((0, 0), (0, 1))) for name, values in drawn.items()}
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
        ceiling_variance=_difference_variance(drawn, numbers)[:-1, -1],
        dof=(min(numbers.values()) if over == "both" else numbers[over]) - 1,
    )


def evaluate(
    models: ArrayLike,
    rdms: ArrayLike,
    stimuli: ArrayLike,
    participants: ArrayLike,
    *,
    comparison: str = "spearman",
    over: str = "both",
) -> dict[str, Float]:
    """Models and the lower noise ceiling were evaluated in given samples of stimuli and participants.

    Parameters
    ----------
    models : array-like, shape (M, pairs)
    rdms : array-like, shape (N, pairs)
    stimuli : array-like of int, shape (samples, n)
        How often each stimulus is in each sample. A pair counts as often as the product of its stimuli; pairs of
        a stimulus with its own copy are left out.
    participants : array-like of int, shape (samples, N)
        How often each participant is in each sample.
    comparison, over : str
        As in `bootstrap`.

    Returns
    -------
    dict
        (samples, M + 1): similarity with each model, averaged over participants, and the lower noise ceiling. In
        "stimuli" the participants are not resampled, in "participants" the stimuli are not, in "both" both are; the
        latter comes with all three, the others alone. A ceiling leaves all copies of a participant out.

    Raises
    ------
    ValueError
        If the comparison is unknown or shapes disagree.
    """
    if comparison not in COMPARISONS:
        raise ValueError(f"comparison: expected one of {COMPARISONS} to resample, got {comparison!r}")
    table, brains = checked(models, "models"), checked(rdms, "rdms")
    draws, counts = np.asarray(stimuli, dtype=np.int64), np.asarray(participants, dtype=np.int64)
    n = n_stimuli(brains.shape[1])
    if table.shape[1] != brains.shape[1]:
        raise ValueError(f"models, rdms: expected as many pairs, got {table.shape[1]} and {brains.shape[1]}")
    if draws.shape != (len(counts), n) or counts.shape[1:] != (len(brains),):
        raise ValueError(
            f"stimuli, participants: expected ({len(counts)}, {n}) and (samples, {len(brains)}), "
            f"got {draws.shape} and {counts.shape}"
        )
    rows: NDArray[Any] = np.vstack([table, brains])
    if comparison == "spearman":
        rows = np.stack([np.unique(row, return_inverse=True)[1] for row in rows]).astype(np.int64)
    names = OVER if over == "both" else (over,)
    results = {name: np.full((len(counts), len(table) + 1), np.nan) for name in names}
    once = np.ones(len(brains), dtype=np.int64)
    if "participants" in names:
        fixed = _Sample.of(rows, np.ones(n, dtype=np.int64), len(table), comparison)
        for number, count in enumerate(counts):
            results["participants"][number] = fixed.evaluate(count)
    if names != ("participants",):
        for number, (draw, count) in enumerate(zip(draws, counts, strict=True)):
            if np.count_nonzero(draw) < _DISTINCT_STIMULI:
                continue
            sample = _Sample.of(rows, draw, len(table), comparison)
            for name in set(names) - {"participants"}:
                results[name][number] = sample.evaluate(once if name == "stimuli" else count)
    return results


def checked(rdms: ArrayLike, name: str) -> Float:
    """RDMs as rows of finite numbers.

    Parameters
    ----------
    rdms : array-like, shape (k, pairs)
    name : str
        What an error calls them.

    Returns
    -------
    array, shape (k, pairs)

    Raises
    ------
    ValueError
        If there are none, the number of pairs is not that of 4 or more stimuli, or a value is not finite.
    """
    rows = np.asarray(rdms, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{name}: expected shape (RDMs, pairs), got {rows.shape}")
    n_stimuli(rows.shape[1])
    if not np.isfinite(rows).all():
        row, pair = np.argwhere(~np.isfinite(rows))[0]
        raise ValueError(f"{name}: expected finite numbers, got {rows[row, pair]} in RDM {row}, pair {pair}")
    return rows


def n_stimuli(n_pairs: int) -> int:
    """Count the stimuli of a condensed RDM; ValueError if fewer than 4 or no whole number."""
    n = round((1 + (1 + 8 * n_pairs) ** 0.5) / 2)
    if n * (n - 1) // 2 != n_pairs or n < 4:
        raise ValueError(f"pairs: expected n * (n - 1) / 2 for n of at least 4 stimuli, got {n_pairs}")
    return n


@dataclass(frozen=True)
class _Sample:
    """One sample of stimuli: every similarity in it, before participants are drawn."""

    comparison: str
    similarity: Float
    """(M, N)."""
    unit: Float
    """(N, p) rows whose inner products are the similarities of participants."""
    ranks: Integers
    """(N, p) of Spearman's correlation only."""
    weights: Integers
    """(p,) how often each pair is in the sample."""

    @classmethod
    def of(cls, rows: NDArray[Any], draw: Integers, n_models: int, comparison: str) -> _Sample:
        """Weigh the pairs of the stimuli that were drawn."""
        first, second = np.triu_indices(len(draw), 1)
        weights = draw[first] * draw[second]
        kept = np.flatnonzero(weights)
        weights, values = weights[kept], rows.take(kept, axis=1)
        ranks = np.zeros((0, 0), dtype=np.int64)
        if comparison == "spearman":
            values = weighted_ranks(values, weights)
            ranks = values[n_models:]
        unit = _unit(values.astype(np.float64), weights, centred=comparison != "cosine")
        return cls(comparison, unit[:n_models] @ unit[n_models:].T, unit[n_models:], ranks, weights)

    def evaluate(self, counts: Integers) -> Float:
        """Average over participants, each as often as drawn: (M + 1,), the lower ceiling last."""
        return np.append(self.similarity @ counts / counts.sum(), self._ceiling(counts))

    def _ceiling(self, counts: Integers) -> float:
        drawn = np.flatnonzero(counts)
        if len(drawn) < 2:
            return np.nan
        often = counts[drawn]
        if self.comparison == "spearman":
            several = self.ranks[drawn] * often[:, None]
            others = _unit(
                weighted_ranks(several.sum(axis=0) - several, self.weights).astype(np.float64),
                self.weights,
                centred=True,
            )
            agreement = np.einsum("ij,ij->i", others, self.unit[drawn])
        else:
            # The length of the others' sum, and its product with the one left out, follow from inner products.
            products = self.unit[drawn] @ self.unit[drawn].T
            with_all = products @ often
            own = often * np.diag(products)
            squared = often @ with_all - 2 * often * with_all + often * own
            with np.errstate(divide="ignore", invalid="ignore"):
                agreement = (with_all - own) / np.sqrt(np.where(squared > 1e-20, squared, np.nan))
        return float(agreement @ often / often.sum())


def weighted_ranks(values: NDArray[np.integer], weights: Integers) -> Integers:
    """Twice the rank of each value of a row among values that occur several times, ties at their average.

    Parameters
    ----------
    values : array of int, shape (k, p)
        Not negative.
    weights : array of int, shape (p,)
        How often each column occurs, at least once.

    Returns
    -------
    array of int, shape (k, p)
        Twice the rank, less one: a whole number.
    """
    # Sorting one number made of value and place is several times faster than finding the order.
    bits = max(values.shape[1] - 1, 1).bit_length()
    short = int(values.max()).bit_length() + bits < 32
    keys: NDArray[np.signedinteger] = values.astype(np.int32 if short else np.int64)
    keys <<= bits
    keys |= np.arange(values.shape[1], dtype=keys.dtype)
    keys.sort(axis=1)
    place = keys & ((1 << bits) - 1)
    keys >>= bits
    often = weights[place]
    end = often.cumsum(axis=1)
    begin = end - often
    changes = keys[:, 1:] != keys[:, :-1]
    if not changes.all():
        begin[:, 1:] = np.where(changes, begin[:, 1:], 0)
        np.maximum.accumulate(begin, axis=1, out=begin)
        end[:, :-1] = np.where(changes, end[:, :-1], end[:, -1:])
        end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty_like(end)
    np.put_along_axis(ranks, place, begin + end, axis=1)
    return ranks


def _unit(rows: Float, weights: Integers, *, centred: bool) -> Float:
    """Rows whose plain inner products are weighted correlations (or cosines); NaN for constant (or zero) ones."""
    origin = np.sqrt(rows**2 @ weights)
    if centred:
        rows = rows - (rows @ weights / weights.sum())[:, None]
    rows = rows * np.sqrt(weights)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.where(length > 1e-12 * origin, length, np.nan)[:, None]


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
