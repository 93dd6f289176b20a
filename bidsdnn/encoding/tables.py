"""Scores of layers as tables of regions and as maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bidsdnn.encoding.layer import LayerScores
from bidsdnn.methods.ceiling import LOWEST_CEILING, normalized
from bidsdnn.patterns import Group
from bidsdnn.result import Map


def mean(values: np.ndarray) -> float:
    """Mean of what is finite; NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def normalized_scores(r: np.ndarray, ceiling: np.ndarray | None, inside: np.ndarray) -> dict[str, float]:
    """A region's mean ceiling, the ratio of its mean r to that, and how many voxels have hardly a ceiling."""
    if ceiling is None:
        return {}
    known = inside & np.isfinite(ceiling)
    highest = mean(ceiling[known])
    return {
        "ceiling": highest,
        "pearsonr_normalized": normalized(mean(r[known]), highest),
        "n_voxels_low_ceiling": int((ceiling[known] < LOWEST_CEILING).sum()),
    }


def encoding_maps(groups: Sequence[Group], scores: Sequence[LayerScores]) -> list[Map]:
    """Three maps of each network: r and R2, a volume a layer, and which layer is best."""
    maps = []
    for network in dict.fromkeys(group.network for group in groups):
        chosen = [(g, s) for g, s in zip(groups, scores, strict=True) if g.network == network]
        layers = {
            "Layers": [group.name for group, _ in chosen],
            "Model": network,
            "VolumeAxis": "layer",
            "NullDistribution": "none: maps are not tested",
        }
        r = np.array([score.pearsonr for _, score in chosen])
        scored = np.isfinite(r).any(axis=0)
        best = np.where(scored, np.where(np.isfinite(r), r, -np.inf).argmax(axis=0) + 1.0, np.nan)
        maps += [
            Map("pearsonr", r, network, {**layers, "Description": "Cross-validated r of each voxel, a volume a layer"}),
            Map(
                "r2",
                np.array([score.r2 for _, score in chosen]),
                network,
                {**layers, "Description": "Cross-validated R2 of each voxel, a volume a layer"},
            ),
            Map("", best, network, {**layers, "Description": "The layer with the highest r, from 1"}, desc="bestlayer"),
        ]
    return maps
