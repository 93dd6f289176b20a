"""What encoding keeps besides scores: held-out predictions, weights, and a look at the voxels predicted best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bidsdnn.encoding.layer import LayerScores
from bidsdnn.methods.layer_choice import held_out
from bidsdnn.methods.scores import Split
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Columns

BEST_VOXELS = 4
"""Voxels of each network whose predictions stand in a table."""
_MOST_ITEMS = 1000
_PLACES = "of the columns that stand for voxels or vertices of the brain mask as they lie in its file, C order"


def stored_columns(
    groups: Sequence[Group], scores: Sequence[LayerScores], y: Patterns, *, predictions: bool, weights: bool
) -> tuple[Columns, ...]:
    """Held-out predictions and weights of each network, for HDF5 files.

    Parameters
    ----------
    groups : sequence of Group
    scores : sequence of LayerScores
    y : Patterns
    predictions, weights : bool
        Which of the two.

    Returns
    -------
    tuple of Columns
    """
    size, found = y.groups[0].values.shape[1], []
    for network in dict.fromkeys(group.network for group in groups):
        own = [(group.name, score) for group, score in zip(groups, scores, strict=True) if group.network == network]
        layers = {"Layers": [name for name, _ in own]}
        if predictions:
            tables = {name: score.held.read for name, score in own if score.held is not None}
            text = f"Predictions of held-out stimuli: /<layer> has a row a stimulus of /stim_id, {_PLACES}"
            found.append(Columns("predictions", network, y.ids, size, tables, sidecar={**layers, "Description": text}))
        if weights:
            kept = {name: score.weights for name, score in own if score.weights is not None}
            text = (
                "Weights of the fit to all stimuli: those of a layer's units are X' alpha, X being the activations to "
                f"the stimuli of /stim_id, and /alpha/<layer> has their rows, {_PLACES}; a prediction is the inner "
                "products of a stimulus' units with X, times alpha, plus /intercept/<layer>"
            )
            found.append(Columns(
                "weights", network, y.ids, size,
                {f"alpha/{name}": one.alpha.read for name, one in kept.items()},
                {f"{key}/{name}": getattr(one, key) for name, one in kept.items() for key in ("intercept", "penalty")},
                {**layers, "Description": text}, {f"alpha/{name}": one.dtype for name, one in kept.items()},
            ))  # fmt: skip
    return tuple(found)


def best_voxels(
    groups: Sequence[Group], scores: Sequence[LayerScores], y: Patterns, splits: Sequence[Split],
    named: Sequence[tuple[str, str, np.ndarray]],
) -> pd.DataFrame:  # fmt: skip
    """Predicted and measured responses of the voxels that each network predicts best, from their best layer.

    Parameters
    ----------
    groups : sequence of Group
    scores : sequence of LayerScores
        With predictions.
    y : Patterns
    splits : sequence of (train, test)
    named : sequence of (str, str, ndarray of bool)
        Atlas, region and voxels; only voxels in a region are looked at.

    Returns
    -------
    DataFrame
        A row a stimulus and voxel; at most 1,000 stimuli, evenly spaced.
    """
    inside = np.any([columns for _, _, columns in named], axis=0) if named else np.zeros(0, dtype=bool)
    rows = held_out(splits)
    kept = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ITEMS)).astype(int))
    responses, tables = y.values, []
    for network in dict.fromkeys(group.network for group in groups):
        own = [(g, s) for g, s in zip(groups, scores, strict=True) if g.network == network]
        r = np.array([np.where(np.isfinite(score.pearsonr) & inside, score.pearsonr, -np.inf) for _, score in own])
        best = r.max(axis=0, initial=-np.inf)
        for voxel in np.argsort(-best, kind="stable")[:BEST_VOXELS]:
            group, score = own[int(r[:, voxel].argmax())]
            if not np.isfinite(best[voxel]) or score.held is None:
                continue
            one = slice(int(voxel), int(voxel) + 1)
            predicted, measured = score.held.scaled(one, responses[:, one], splits)
            tables.append(pd.DataFrame({
                "atlas": "", "network": network, "layer": group.name,
                "region": next(name for _, name, columns in named if columns[voxel]), "voxel": int(voxel),
                "pearsonr": best[voxel], "stimulus_id": np.array(y.ids, dtype=object)[rows[kept]],
                "prediction": predicted[kept, 0], "measured": measured[kept, 0],
            }))  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["atlas", "network"])
