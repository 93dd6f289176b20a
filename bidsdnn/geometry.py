"""Representational geometry: what the distances between stimuli in a network share with those in a brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods.rdm import DISSIMILARITIES, USES_FOLDS, USES_PRECISION
from bidsdnn.methods.similarity import SIMILARITIES, label_permutation
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Result

Regions = Mapping[str, Mapping[str, np.ndarray]]
FEWEST_STIMULI = 4
# Those others need the noise's covariance or repeats, which averaged responses no longer hold.
METRICS = {name: f for name, f in DISSIMILARITIES.items() if name not in USES_FOLDS | USES_PRECISION}


def region_rdms(y: Patterns, table: Mapping[str, np.ndarray], *, metric: str = "correlation") -> dict[str, np.ndarray]:
    """RDM of each region.

    Parameters
    ----------
    y : Patterns
        Responses.
    table : mapping of str to ndarray of bool, shape (n_voxels,)
    metric : str
        One of `METRICS`.

    Returns
    -------
    dict of str to ndarray, shape (n * (n - 1) / 2,)
        NaN for a region with fewer than two usable voxels.
    """
    values = y.values
    usable = np.isfinite(values).all(axis=0)
    pairs = len(y) * (len(y) - 1) // 2
    return {
        name: DISSIMILARITIES[metric](values[:, columns & usable])
        if (columns & usable).sum() > 1
        else np.full(pairs, np.nan)
        for name, columns in table.items()
    }


def rsa(
    x: Patterns | None,
    y: Patterns,
    *,
    regions: Regions,
    permutations: int,
    seed: int,
    map: ParallelMap,
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman", "pearson"),
) -> Result:
    """Representational dissimilarity matrices of layers and regions were compared.

    Parameters
    ----------
    x : Patterns or None
        One group a layer; None makes the regions' RDMs only.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)
        Regions by atlas.
    permutations : int
    seed : int
    map : callable
        Spreads layers over workers.
    metric : str
        One of `METRICS`.
    comparisons : sequence of str
        Rows of `SIMILARITIES`.

    Returns
    -------
    Result
        A table of layers x regions, and the regions' RDMs.

    Raises
    ------
    DataError
        If there are fewer than four stimuli.
    ConfigError
        If a metric or a comparison is not known.
    """
    resolve(metric, METRICS)
    for comparison in comparisons:
        resolve(comparison, SIMILARITIES)
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli make no RDM to compare; RSA needs {FEWEST_STIMULI} or more")
    usable = np.isfinite(y.values).all(axis=0)
    brains = {atlas: region_rdms(y, table, metric=metric) for atlas, table in regions.items()}
    counts = {
        atlas: {name: int((columns & usable).sum()) for name, columns in t.items()} for atlas, t in regions.items()
    }
    return compare(
        x, y.ids, brains, counts=counts, permutations=permutations, seed=seed, map=map, metric=metric,
        comparisons=comparisons,
    )  # fmt: skip


def compare(
    x: Patterns | None,
    ids: Sequence[str],
    brains: Mapping[str, Mapping[str, np.ndarray]],
    *,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    permutations: int,
    seed: int,
    map: ParallelMap,
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman", "pearson"),
) -> Result:
    """Layers were compared with RDMs of regions.

    Parameters
    ----------
    x : Patterns or None
        One group a layer, its items those of the RDMs.
    ids : sequence of str
        Stimuli of the RDMs, in their order.
    brains : mapping of str to mapping of str to ndarray, shape (n * (n - 1) / 2,)
        Condensed RDMs by atlas and region.
    counts : mapping of str to mapping of str to int, optional
        Voxels of each region, where they are known.
    permutations, seed, map, metric, comparisons
        As in `rsa`; the metric is that of the layers.

    Returns
    -------
    Result
    """
    groups = x.groups if x is not None else ()
    models = np.array(map(partial(Group.rdm, metric=metric), groups, label="RSA")) if groups else np.empty((0, 0))
    rows: list[dict[str, Any]] = []
    for atlas, table in brains.items() if groups else ():
        stacked = np.array(list(table.values()))
        for comparison in comparisons:
            similarity, p = label_permutation(
                models, stacked, comparison=comparison, permutations=permutations, seed=seed_for(seed, "rsa")
            )
            rows += [
                {
                    "atlas": atlas,
                    "network": group.network,
                    "layer": group.name,
                    "region": name,
                    "n_voxels": counts[atlas][name] if counts else np.nan,
                    "metric": metric,
                    "comparison": comparison,
                    "similarity": similarity[i, j],
                    "p": p[i, j],
                }
                for i, group in enumerate(groups)
                for j, name in enumerate(table)
            ]
    return Result(
        "rsa",
        tables={"rsa": pd.DataFrame(rows)} if rows else {},
        arrays={atlas: (ids, table) for atlas, table in brains.items()},
        sidecar={
            "Methods": f"{summary(rsa)} {summary(METRICS[metric])} p comes from {permutations:,} permutations of the "
            "stimulus labels, the same for all layers, with p = (1 + b) / (1 + n)."
            if groups
            else summary(METRICS[metric]),
            "Test": "permutations of stimulus labels, one-sided",
            "Permutations": permutations,
            "NumberOfStimuli": len(ids),
            "Metric": metric,
            "RelationshipMeasure": "1 - Pearson correlation" if metric == "correlation" else metric,
            "Comparisons": {name: summary(SIMILARITIES[name]) for name in comparisons},
            "References": ["rsa", "permutation"],
        },
    )
