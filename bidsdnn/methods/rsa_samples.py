"""Model evaluations in given samples of stimuli and participants.

The one idea: a resampled set of stimuli is a weight for each pair, so a sample costs one small matrix product of
weighted RDMs, and that product serves the samples over stimuli and over both. Kendall's tau is the exception: it
counts the pairs of each sample anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.kendall import Ranking, concordance, ranking
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.methods.transforms import condensed_to_square, n_stimuli

Float = NDArray[np.float64]
Integers = NDArray[np.int64]

OVER = ("both", "stimuli", "participants")

_CENTRED = ("pearson", "spearman", "whitened_pearson")
_WHITENED = ("whitened_pearson", "whitened_cosine", "linear_cka")
_KENDALL = ("kendall_tau_a", "kendall_tau_b")
_FEW_PAIRS = 600
"""Kendall's tau of up to so many pairs is a matrix product over all pairs of pairs."""
_DISTINCT_STIMULI = 3
"""A sample of fewer distinct stimuli has too few pairs to correlate, and is left out, as in rsatoolbox."""


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
    comparison : str
        A row of `SIMILARITIES`. Ranks are found anew in each sample, and whitening takes copies of a stimulus for
        stimuli of their own. Kendall's tau takes about 0.3 ms for each two of 92-stimulus RDMs in each sample.
    over : str
        A row of `OVER`.

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
    if comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
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
    rows = np.vstack([table, brains])
    sample = _sampler(rows, len(table), comparison)
    names = OVER if over == "both" else (over,)
    results = {name: np.full((len(counts), len(table) + 1), np.nan) for name in names}
    once = np.ones(len(brains), dtype=np.int64)
    if "participants" in names:
        fixed = sample(np.ones(n, dtype=np.int64))
        for number, count in enumerate(counts):
            results["participants"][number] = fixed.evaluate(count)
    if names != ("participants",):
        for number, (draw, count) in enumerate(zip(draws, counts, strict=True)):
            if np.count_nonzero(draw) < _DISTINCT_STIMULI:
                continue
            drawn = sample(draw)
            for name in set(names) - {"participants"}:
                results[name][number] = drawn.evaluate(once if name == "stimuli" else count)
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


@dataclass(frozen=True)
class _Sample:
    """One sample of stimuli: every similarity in it, before participants are drawn."""

    similarity: Float
    """(M, N)."""
    agreement: Callable[[Integers, Integers], Float]
    """From participants who were drawn, and how often, to the similarity of each with the mean of the others."""

    def evaluate(self, counts: Integers) -> Float:
        """Average over participants, each as often as drawn: (M + 1,), the lower ceiling last."""
        drawn = np.flatnonzero(counts)
        often, ceiling = counts[drawn], np.nan
        if len(drawn) > 1:
            ceiling = self.agreement(drawn, often) @ often / often.sum()
        return np.append(self.similarity @ counts / counts.sum(), ceiling)


def _sampler(rows: Float, n_models: int, comparison: str) -> Callable[[Integers], _Sample]:
    """What turns the number of times that each stimulus was drawn into a sample; RDMs are prepared once."""
    codes = np.zeros((0, 0), dtype=np.int64)
    squares, signs = np.zeros((0, 0, 0)), np.zeros((0, 0), dtype=np.float32)
    if comparison in ("spearman", *_KENDALL):
        codes = np.stack([np.unique(row, return_inverse=True)[1] for row in rows]).astype(np.int64)
        if comparison in _KENDALL and rows.shape[1] <= _FEW_PAIRS:
            signs = _signs(codes)
    elif comparison in _WHITENED:
        squares = np.stack([condensed_to_square(row) for row in rows])
    first, second = np.triu_indices(n_stimuli(rows.shape[1]), 1)

    def sample(draw: Integers) -> _Sample:
        weights = draw[first] * draw[second]
        kept = np.flatnonzero(weights)
        weights = weights[kept]
        if comparison == "spearman":
            return _spearman(codes.take(kept, axis=1), weights, n_models)
        if comparison in _KENDALL and len(signs):
            return _few_kendall(codes, signs, draw[first] * draw[second], n_models, comparison)
        if comparison in _KENDALL:
            return _kendall(np.repeat(codes.take(kept, axis=1), weights, axis=1), n_models, comparison)
        values = rows.take(kept, axis=1)
        if comparison in _WHITENED:
            return _whitened(values, squares, draw, weights, n_models, comparison)
        unit = _unit(values, weights, centred=comparison in _CENTRED)
        return _Sample(unit[:n_models] @ unit[n_models:].T, _from_products(unit[n_models:] @ unit[n_models:].T))

    return sample


def _from_products(products: Float) -> Callable[[Integers, Integers], Float]:
    """The length of the others' sum, and its product with the one left out, follow from inner products (N, N)."""

    def agreement(drawn: Integers, often: Integers) -> Float:
        inner = products[np.ix_(drawn, drawn)]
        with_all, own = inner @ often, often * np.diag(inner)
        squared = (often @ with_all - 2 * often * with_all + often * own) * np.diag(inner)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((with_all - own) / np.sqrt(np.where(squared > 1e-20, squared, np.nan)))

    return agreement


def _spearman(codes: Integers, weights: Integers, n_models: int) -> _Sample:
    ranks = weighted_ranks(codes, weights)
    unit = _unit(ranks.astype(np.float64), weights, centred=True)

    def agreement(drawn: Integers, often: Integers) -> Float:
        several = ranks[n_models:][drawn] * often[:, None]
        others = weighted_ranks(several.sum(axis=0) - several, weights).astype(np.float64)
        return np.asarray(np.einsum("ij,ij->i", _unit(others, weights, centred=True), unit[n_models:][drawn]))

    return _Sample(unit[:n_models] @ unit[n_models:].T, agreement)


def _signs(codes: Integers) -> NDArray[np.float32]:
    """Which of each two values of a row is larger, (k, p (p - 1) / 2)."""
    first, second = np.triu_indices(codes.shape[1], 1)
    return np.sign(codes[:, first] - codes[:, second]).astype(np.float32)


def _few_kendall(
    codes: Integers, signs: NDArray[np.float32], weights: Integers, n_models: int, comparison: str
) -> _Sample:
    """The same as `_kendall` where all pairs of pairs fit into memory: one matrix product of signs."""
    first, second = np.triu_indices(len(weights), 1)
    often = (weights[first] * weights[second]).astype(np.float32)
    brains = signs[n_models:]
    # Whole numbers below 2 ** 24: single precision is exact.
    untied = (np.abs(signs) @ often).astype(np.float64)
    every = weights.sum() * (weights.sum() - 1) / 2
    ranks = np.zeros_like(codes[n_models:])
    ranks[:, weights > 0] = weighted_ranks(codes[n_models:][:, weights > 0], weights[weights > 0])

    def tau(concordant: Float, x: Float, y: Float) -> Float:
        length = np.where(x * y > 0, every if comparison == "kendall_tau_a" else np.sqrt(x * y), np.nan)
        return np.asarray(concordant / length)

    def agreement(drawn: Integers, counts: Integers) -> Float:
        several = ranks[drawn] * counts[:, None]
        others = _signs(several.sum(axis=0) - several)
        concordant = np.einsum("ij,ij->i", others * often, brains[drawn]).astype(np.float64)
        return tau(concordant, (np.abs(others) @ often).astype(np.float64), untied[n_models:][drawn])

    concordant = (signs[:n_models] * often) @ brains.T
    return _Sample(tau(concordant.astype(np.float64), untied[:n_models, None], untied[n_models:]), agreement)


def _kendall(codes: Integers, n_models: int, comparison: str) -> _Sample:
    """Of values that stand as often as they were drawn; a ceiling averages ranks, which is an approximation."""
    found = [ranking(row.astype(np.float64)) for row in codes]
    models, brains = found[:n_models], found[n_models:]
    ranks = weighted_ranks(codes[n_models:], np.ones(codes.shape[1], dtype=np.int64))

    def tau(x: Ranking, y: Ranking) -> float:
        pairs = (x.pairs - x.tied) * (y.pairs - y.tied)
        if not pairs:
            return np.nan
        counted = concordance(x, y.rank, y.tied)
        return float(counted / (x.pairs if comparison == "kendall_tau_a" else pairs**0.5))

    def agreement(drawn: Integers, often: Integers) -> Float:
        several = ranks[drawn] * often[:, None]
        others = several.sum(axis=0) - several
        return np.array([
            tau(ranking(mean.astype(np.float64)), brains[who]) for mean, who in zip(others, drawn, strict=True)
        ])  # fmt: skip

    return _Sample(np.array([[tau(model, brain) for brain in brains] for model in models]), agreement)


def _whitened(
    values: Float, squares: Float, draw: Integers, weights: Integers, n_models: int, comparison: str
) -> _Sample:
    """Inner products x' V^-1 y of the pairs that were drawn, for V = 2 I + S S' with the stimuli's indicators S.

    By Woodbury's identity V^-1 is (I - S (2 I + S' S)^-1 S') / 2. Copies of a stimulus have equal sums of pairs, so
    the system has one equation for each distinct stimulus.
    """
    chosen = np.flatnonzero(draw)
    often, n = draw[chosen].astype(np.float64), draw.sum()
    sums, origin = squares[:, chosen] @ draw, values**2 @ weights
    if comparison in _CENTRED:
        mean = values @ weights / weights.sum()
        values, sums = values - mean[:, None], sums - mean[:, None] * (n - often)
    system = np.diag(2 + n - 2 * often) + often
    solved = np.linalg.solve(system, sums.T)
    products = (values * weights) @ values[n_models:].T - (sums * often) @ solved[:, n_models:]
    own = values**2 @ weights - np.einsum("ij,j,ji->i", sums, often, solved)
    length = np.sqrt(np.where(own > 1e-12 * origin, own, np.nan))
    # A ceiling averages RDMs of one plain length, as rsatoolbox does.
    size = np.sqrt(values[n_models:] ** 2 @ weights)
    return _Sample(
        products[:n_models] / length[:n_models, None] / length[n_models:],
        _from_products(products[n_models:] / size[:, None] / size),
    )


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
