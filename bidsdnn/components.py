"""Layers as their principal components over all stimuli, as the paper on DNNBrain has them: beside the activations.

They see every stimulus, so what is cross-validated afterwards is not told apart from what was fitted; the folds of
`encoding` fit their own. This is for repeating what was published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.activations import network_methods
from bidsdnn.bids.arrays import is_activations, read_activations, write_activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path, write_json
from bidsdnn.config import Config
from bidsdnn.extraction import activations_path, components_path, described
from bidsdnn.methods.reduce import principal_scores
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Map
from bidsdnn.patterns import Group, Patterns


def components(
    features: Patterns, content: str, network: Network, ids: Sequence[str], derivatives: Derivatives,
    *, config: Config, map: Map,
) -> tuple[Patterns, str]:  # fmt: skip
    """Principal components of each layer over the stimuli of this run, or those that the level ``dnn`` left.

    What the level ``dnn`` fitted is used wherever it has the stimuli and layers that are asked for, so that jobs of one
    participant each have the same components; without it they are fitted to what the run shows.

    Parameters
    ----------
    features : Patterns
        Activations, a group a layer.
    content : str
        Hash of what they depend on.
    network : Network
    ids : sequence of str
        Stimuli of this run.
    derivatives : Derivatives
    config : Config
    map : callable
        Spreads layers over workers.

    Returns
    -------
    patterns : Patterns
        In memory, a group a layer; without ``--pca`` the activations as they are.
    content : str
        Hash of the activations, of the stimuli that were fitted and of the number of components.
    """
    if config.pca is None:
        return features, content
    path = components_path(derivatives, network.label)
    source = read_json(sidecar_path(activations_path(derivatives, network.label)))
    layers = [group.name for group in features.groups]
    contents = {name: source["Stimuli"][name] for name in ids}
    with derivatives.lock(path):
        kept = read_json(sidecar_path(path)) if is_activations(path) else {}
        if not _serves(kept, contents, layers, source["NetworkHash"], config):
            positions = pd.Series(np.arange(len(features)), index=features.ids)
            chosen = features.take(positions.loc[list(ids)].to_numpy())
            kept = _sidecar(network, layers, contents, source, derivatives, config)
            found = map(partial(_scores, n=config.pca or 1), chosen.groups, label=f"{network.label} components")
            kept["Components"] = {layer: scores.shape[1] for layer, (scores, _) in zip(layers, found, strict=True)}
            kept["VarianceExplained"] = {layer: share for layer, (_, share) in zip(layers, found, strict=True)}
            sidecar_path(path).unlink(missing_ok=True)
            write_activations(path, {layer: scores for layer, (scores, _) in zip(layers, found, strict=True)}, ids)
            write_json(sidecar_path(path), kept)
        read, stored = read_activations(path, layers)
        # Another job may replace the file by components of other stimuli: these are small, and kept in memory.
        groups = tuple(
            Group(layer, table[:, :], network.label, (table.shape[1],))
            for layer, table in zip(layers, stored, strict=True)
        )
    fitted = {key: kept[key] for key in ("NetworkHash", "Stimuli", "PCA")}
    return Patterns(pd.DataFrame({"stimulus_id": read}), groups), digest({"activations": content, "pca": fitted})


def _scores(group: Group, *, n: float) -> tuple[np.ndarray, float]:
    """Components of a layer, at most as many as there are, and the share of variance that they explain."""
    most = min(group.values.shape)
    scores, share = principal_scores(group.values, min(n, most))
    return scores.astype(np.float32), share


def _serves(
    kept: Mapping[str, Any], contents: Mapping[str, str], layers: Sequence[str], network: str, config: Config
) -> bool:
    """Whether components that are there are those asked for."""
    same = kept.get("NetworkHash") == network and kept.get("PCA") == config.pca
    if not same or not set(layers) <= set(kept.get("Layers", [])):
        return False
    there = kept.get("Stimuli", {})
    return bool(contents == there or (kept.get("FittedAt") == "dnn" and contents.items() <= there.items()))


def _sidecar(
    network: Network, layers: Sequence[str], contents: Mapping[str, str], source: Mapping[str, Any],
    derivatives: Derivatives, config: Config,
) -> dict[str, Any]:  # fmt: skip
    return {
        "Description": "Principal components of a network's layers over all stimuli, one HDF5 dataset a layer",
        "Network": network.label,
        "Layers": list(layers),
        "PCA": config.pca,
        "FittedAt": config.analysis_level,
        "Stimuli": dict(contents),
        "NetworkHash": source["NetworkHash"],
        "Methods": network_methods(network, layers, described(config)),
        "Sources": [derivatives.uri(activations_path(derivatives, network.label))],
    }
