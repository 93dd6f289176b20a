"""Scores of layers as tables of regions and as maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bidsdnn.encoding.layer import LayerScores
from bidsdnn.encoding.significance import Significance
from bidsdnn.methods.ceiling import LOWEST_CEILING, normalized
from bidsdnn.patterns import Group
from bidsdnn.result import Map

Named = Sequence[tuple[str, str, np.ndarray]]
"""Atlas, name and voxels, shape (n_voxels,), of each region."""


def mean(values: np.ndarray) -> float:
    """Mean of what is finite; NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def normalized_scores(
    r: np.ndarray, ceiling: np.ndarray | None, inside: np.ndarray, *, of_region: float | None = None
) -> dict[str, float]:
    """A region's mean ceiling, the ratio of its mean r to that, and how many voxels have hardly a ceiling.

    The mean r is that of the voxels that have a ceiling, or ``of_region``.
    """
    if ceiling is None:
        return {}
    known = inside & np.isfinite(ceiling)
    highest = mean(ceiling[known])
    return {
        "ceiling": highest,
        "ceiling_sd": float(ceiling[known].std()) if known.any() else float("nan"),
        "pearsonr_normalized": normalized(mean(r[known]) if of_region is None else of_region, highest),
        "n_voxels_low_ceiling": int((ceiling[known] < LOWEST_CEILING).sum()),
    }


def region_rows(
    groups: Sequence[Group],
    scores: Sequence[LayerScores],
    named: Named,
    found: Significance,
    ceiling: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Rows of the table of regions: each layer's mean scores in each, and their tests."""
    rows = []
    for layer, (group, score) in enumerate(zip(groups, scores, strict=True)):
        usable = np.isfinite(score.pearsonr)
        for place, (atlas, name, columns) in enumerate(named):
            inside = columns & usable
            rows.append(
                {
                    "atlas": atlas, "network": group.network, "layer": group.name, "region": name,
                    "n_voxels": int(inside.sum()),
                    "pearsonr": mean(score.pearsonr[inside]),
                    "r2": mean(score.r2[inside]),
                    "explained_variance": mean(score.explained[inside]) if score.explained is not None else np.nan,
                    "p": found.regions_p[layer, place],
                    "p_fwe": found.regions_fwe[layer, place],
                    "q": found.regions_q[layer, place],
                    **normalized_scores(score.pearsonr, ceiling, inside),
                }
            )  # fmt: skip
    return rows


def fold_rows(groups: Sequence[Group], scores: Sequence[LayerScores], named: Named) -> list[dict[str, Any]]:
    """Rows of the table of folds: each layer's mean r in each region and fold."""
    return [
        {
            "atlas": atlas, "network": group.network, "layer": group.name, "region": name,
            "fold": number, "pearsonr": mean(fold[columns & np.isfinite(score.pearsonr)]),
        }
        for group, score in zip(groups, scores, strict=True)
        for atlas, name, columns in named
        for number, fold in enumerate(score.folds)
    ]  # fmt: skip


def encoding_maps(
    groups: Sequence[Group],
    scores: Sequence[LayerScores],
    found: Significance | None = None,
    ceiling: np.ndarray | None = None,
    *,
    test: str = "",
) -> list[Map]:
    """Maps of each network: scores and p, a volume a layer, and which layer is best."""
    maps = []
    for network in dict.fromkeys(group.network for group in groups):
        own = [place for place, group in enumerate(groups) if group.network == network]
        layers = {
            "Layers": [groups[place].name for place in own],
            "Model": network,
            "VolumeAxis": "layer",
            "NullDistribution": "none: maps are not tested" if found is None else f"{test}, the same for all layers",
        }
        stats = _stats([scores[place] for place in own], ceiling)
        if found is not None:
            stats |= {
                "p": (found.p[own], "p of each voxel's r by itself"),
                "pfwe": (found.p_fwe[own], "p corrected over all voxels, and all layers of all networks"),
                "q": (found.q[own], "False discovery rate over the voxels of a layer"),
            }
        maps += [
            Map(stat, values, network, {**layers, "Description": f"{said}, a volume a layer"})
            for stat, (values, said) in stats.items()
        ]
        r = stats["pearsonr"][0]
        scored = np.isfinite(r).any(axis=0)
        best = np.where(scored, np.where(np.isfinite(r), r, -np.inf).argmax(axis=0) + 1.0, np.nan)
        about = {**layers, "Description": "The layer with the highest r, from 1"}
        maps.append(Map("", best, network, about, desc="bestlayer"))
    return maps


def _stats(scores: Sequence[LayerScores], ceiling: np.ndarray | None) -> dict[str, tuple[np.ndarray, str]]:
    """Scores of one network's layers, and what each is."""
    r = np.array([score.pearsonr for score in scores])
    stats = {
        "pearsonr": (r, "Cross-validated r of each voxel"),
        "r2": (np.array([score.r2 for score in scores]), "Cross-validated R2 of each voxel"),
    }
    if all(score.explained is not None for score in scores):
        explained = np.array([score.explained for score in scores])
        stats["explainedvariance"] = (explained, "Cross-validated explained variance of each voxel")
    if ceiling is not None:
        high = np.where(ceiling >= LOWEST_CEILING, ceiling, np.nan)
        stats["pearsonrnormalized"] = (r / high, f"r over its ceiling, where that is at least {LOWEST_CEILING}")
    return stats
