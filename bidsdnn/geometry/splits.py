"""RDMs of each run or session, and how well they agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry.measured import FEWEST_STIMULI, FOLDS, How, Noisy, Regions, Residuals
from bidsdnn.geometry.named import short
from bidsdnn.lookup import resolve
from bidsdnn.methods.rdm import USES_FOLDS
from bidsdnn.methods.rsa_inference import fisher_mean
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.patterns import Patterns
from bidsdnn.result import Matrices


def check_by(by: str, how: How) -> None:
    """Refuse splits that are none, or that leave crossnobis without folds."""
    if by and by not in FOLDS:
        raise ConfigError(f"parameters.rsa.by = {by!r}: choose one of {', '.join(FOLDS)}")
    if by and how.metric in USES_FOLDS and (by, how.folds) != ("session", "run"):
        raise ConfigError(
            f"parameters.rsa.by = {by!r}: {how.metric} is cross-validated over {how.folds}s, which it leaves none of; "
            'choose by = "session" with folds = "run"'
        )


def split_rdms(
    y: Patterns,
    trials: Patterns | None,
    regions: Regions,
    how: How,
    *,
    by: str,
    comparisons: Sequence[str],
    residuals: Residuals | None = None,
) -> tuple[pd.DataFrame, list[Matrices]]:
    """RDMs of each run or session were compared with each other.

    Parameters
    ----------
    y : Patterns
        Responses to stimuli.
    trials : Patterns or None
        Single trials.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)
    how : How
    by : str
        ``run`` or ``session``.
    comparisons : sequence of str
        Rows of `SIMILARITIES`.
    residuals : callable, optional
        Gives those of some voxels.

    Returns
    -------
    table : DataFrame
        A region and comparison in each row: ``between``, the mean similarity of two splits over the stimuli that
        both hold; ``split_half``, that of odd and even splits together, Spearman-Brown corrected.
    matrices : list of Matrices
        One an atlas, named by region and split; NaN in the pairs of stimuli that a split lacks.

    Raises
    ------
    DataError
        If there are fewer than two splits.
    """
    noisy = Noisy.read(y, trials, regions, how, residuals)
    assert trials is not None
    label = trials.items[by].to_numpy()
    names = list(dict.fromkeys(label))
    if len(names) < 2:
        raise DataError(f"parameters.rsa.by = {by!r}: there is one {by}, and nothing to compare its RDM with")
    rows = np.arange(len(y))
    parts = {name: noisy.only(label == name) for name in names}
    number = {name: place for place, name in enumerate(names)}
    odd = np.array([number[name] % 2 == 0 for name in label])
    halves = (noisy.only(odd), noisy.only(~odd))
    table: list[dict[str, Any]] = []
    matrices = []
    for atlas, region_table in regions.items():
        rdms = {n: {r: part.rdm(c, rows) for r, c in region_table.items()} for n, part in parts.items()}
        named = {f"{region}, {name}": rdm for name, found in rdms.items() for region, rdm in found.items()}
        more = {"Description": f"RDM of each region in each {by}", "Splits": [str(name) for name in names]}
        matrices.append(Matrices(f"by{by}", y.ids, named, atlas=atlas, sidecar=more))
        for region, columns in region_table.items():
            two = [_halved(half, columns, rows) for half in halves]
            for comparison in comparisons:
                pairs = [agreement(rdms[a][region], rdms[b][region], comparison) for a, b in combinations(names, 2)]
                r = agreement(two[0], two[1], comparison)
                table.append({
                    "atlas": atlas, "network": "", "region": region, "by": by, "n_splits": len(names),
                    "comparison": short(comparison), "between": float(fisher_mean(np.array(pairs))),
                    "split_half": 2 * r / (1 + abs(r)),
                })  # fmt: skip
    return pd.DataFrame(table), matrices


def _halved(half: Noisy, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """RDM of half the splits; NaN where crossnobis has too few folds left."""
    if half.how.metric in USES_FOLDS and len(np.unique(half.folds)) < 2:
        return np.full(len(rows) * (len(rows) - 1) // 2, np.nan)
    return half.rdm(columns, rows)


def agreement(a: np.ndarray, b: np.ndarray, comparison: str) -> float:
    """Similarity of two RDMs over the stimuli that both have; NaN if those are fewer than four."""
    n = round((1 + (1 + 8 * len(a)) ** 0.5) / 2)
    first, second = np.triu_indices(n, 1)
    both = np.isfinite(a) & np.isfinite(b)
    there = np.zeros(n, dtype=bool)
    there[first[both]] = there[second[both]] = True
    kept = there[first] & there[second]
    if there.sum() < FEWEST_STIMULI or not both[kept].all():
        return float("nan")
    return float(resolve(comparison, SIMILARITIES)(a[kept], b[kept]))
