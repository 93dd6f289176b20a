"""Variance shared out between feature spaces: what each explains alone, beyond the others, and together with them.

The one idea: everything is a sum of held-out R2 of models on subsets of the spaces, so that a bootstrap over held-out
items of the models' errors gives the interval of each, without fitting anything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks

Float = NDArray[np.float64]
Subset = tuple[int, ...]

MOST_SPACES = 4
"""Up to so many spaces all subsets are fitted: 15 models."""
_SAMPLES = 100
"""Bootstrap samples made at a time."""


class Part(NamedTuple):
    """A share of the variance: what kind it is, which spaces it belongs to, and how models on subsets give it."""

    kind: str
    """``all``, ``alone``, ``unique`` or ``shared``."""
    spaces: Subset
    signs: Mapping[Subset, int]
    """Its R2 is the sum of these models' with these signs."""


def subsets(n_spaces: int) -> list[Subset]:
    """Subsets of spaces to be fitted: all, or of more than `MOST_SPACES` each alone, all but one, and all.

    Parameters
    ----------
    n_spaces : int

    Returns
    -------
    list of tuple of int
        Spaces by number, from 0.

    Raises
    ------
    ValueError
        If there are fewer than two spaces.
    """
    if n_spaces < 2:
        raise ValueError(f"n_spaces: expected at least 2 to share variance between, got {n_spaces}")
    sizes = range(1, n_spaces + 1) if n_spaces <= MOST_SPACES else (1, n_spaces - 1, n_spaces)
    return [chosen for size in sizes for chosen in combinations(range(n_spaces), size)]


def parts(n_spaces: int) -> list[Part]:
    """Variance was shared out by commonality analysis of held-out R2.

    With R(T) the R2 of the model on the spaces T and R() = 0, what the spaces S and no others share is the sum over
    subsets T of S of (-1)^(|T| + 1) R(T and all spaces outside S) (Mood, 1971, American Educational Research Journal 8,
    191-202; Lescroart, Stansbury & Gallant, 2015, Frontiers in Computational Neuroscience 9, 135). For a single space
    that is what the model loses without it. Unique and shared parts sum to the R2 of all spaces.

    Parameters
    ----------
    n_spaces : int

    Returns
    -------
    list of Part
        All; each alone; each one's unique part; and, of at most `MOST_SPACES` spaces, what each several share. Shared
        parts may be negative: one space may make another's worth more.
    """
    every = tuple(range(n_spaces))
    fitted = subsets(n_spaces)
    found = [Part("all", every, {every: 1})]
    found += [Part("alone", (one,), {(one,): 1}) for one in every]
    shared = fitted if n_spaces <= MOST_SPACES else [(one,) for one in every]
    for chosen in shared:
        signs: dict[Subset, int] = {}
        outside = [one for one in every if one not in chosen]
        for size in range(len(chosen) + 1):
            for inside in combinations(chosen, size):
                model = tuple(sorted((*inside, *outside)))
                if model:
                    signs[model] = signs.get(model, 0) + (-1) ** (size + 1)
        found.append(Part("unique" if len(chosen) == 1 else "shared", chosen, signs))
    return found


def combined(part: Part, scores: Mapping[Subset, ArrayLike]) -> Float:
    """The R2 of a part from those of the models on subsets.

    Parameters
    ----------
    part : Part
        Of `parts`.
    scores : mapping of tuple of int to array-like
        R2 of the model on each subset of spaces, all of one shape.

    Returns
    -------
    array
        Of that shape.
    """
    return np.asarray(sum(sign * np.asarray(scores[model], dtype=np.float64) for model, sign in part.signs.items()))


def bootstrap_r2(errors: ArrayLike, baseline: ArrayLike, units: Sequence[object], *, samples: int, seed: int) -> Float:
    """Intervals came from held-out items drawn with replacement; predictions stayed, and no model was fitted again.

    Parameters
    ----------
    errors : array-like, shape (n_models, n, R)
        Squared error of each held-out item, of several models.
    baseline : array-like, shape (n, R)
        Squared error of the training part's mean.
    units : sequence, length n
        Items that are equal here are drawn together: repetitions of a stimulus, neighbours in time.
    samples : int
    seed : int

    Returns
    -------
    array, shape (samples, n_models, R)
        R2 of each sample, 1 - sum of errors / sum of the baseline's.

    Raises
    ------
    ValueError
        If shapes disagree, or there are fewer than two units or no samples.
    """
    wrong, base = np.asarray(errors, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if wrong.ndim != 3 or wrong.shape[1:] != base.shape or len(units) != len(base):
        raise ValueError(
            f"errors, baseline, units: expected shapes (n_models, n, R), (n, R) and (n,), got {wrong.shape}, "
            f"{base.shape} and {len(units)}"
        )
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    names = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    if len(names) < 2:
        raise ValueError(f"units: expected at least 2 to draw from, got {len(names)}")
    of = np.array([names[unit] for unit in units])
    rng = np.random.default_rng(seed)
    found = np.empty((samples, len(wrong), base.shape[1]))
    for some in blocks(samples, _SAMPLES):
        weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=some.stop - some.start)[:, of]
        total = weights @ base
        with np.errstate(invalid="ignore", divide="ignore"):
            found[some] = 1 - np.einsum("bn,mnr->bmr", weights, wrong, optimize=True) / total[:, None]
    return found


def interval(samples: ArrayLike, observed: ArrayLike, *, level: float = 0.95) -> tuple[Float, Float]:
    """Percentiles of bootstrap samples that hold the middle ``level`` of them, lower and upper, `widened`.

    Parameters
    ----------
    samples : array-like, shape (samples, R)
    observed : array-like, shape (R,)
    level : float

    Returns
    -------
    low, high : array, shape (R,)
    """
    low, high = np.quantile(widened(samples, observed), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def not_above_zero(samples: ArrayLike, observed: ArrayLike) -> Float:
    """P is (1 + bootstrap samples at or below zero) / (1 + samples), one-sided, of samples that are `widened`.

    Parameters
    ----------
    samples : array-like, shape (samples, R)
    observed : array-like, shape (R,)

    Returns
    -------
    array, shape (R,)
        NaN where a sample is not finite.
    """
    drawn = widened(samples, observed)
    p = (1 + (drawn <= 0).sum(axis=0)) / (1 + len(drawn))
    return np.where(np.isfinite(drawn).all(axis=0), p, np.nan)


def widened(samples: ArrayLike, observed: ArrayLike) -> Float:
    """Bootstrap samples with twice the variance about what was observed.

    Each held-out error is predicted from the others, and the others from it. Where a space explains nothing, what it
    seems to gain is a sum over pairs of items, each of which counts in the errors of both (a degenerate U-statistic,
    whose variance is twice that of its terms taken as independent); a bootstrap over items does not see that, and
    rejects a true null in 8 to 10 % at .05.
    """
    centre = np.asarray(observed, dtype=np.float64)
    return centre + np.sqrt(2) * (np.asarray(samples, dtype=np.float64) - centre)
