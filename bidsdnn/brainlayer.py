"""A region or a voxel as a unit of its network: the encoder of an earlier run, put onto the network as a layer.

Everything is read from the output: which layer predicts best, the weights where they were kept, and else the responses
and activations that the same encoder is fitted to again. What it makes of a layer is one matrix on the layer's units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidsdnn.bids.atlases import atlas_regions
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.extraction import activations_path, network_hash, reduction_of
from bidsdnn.geometry import Regions
from bidsdnn.inside import probe, units_of
from bidsdnn.lookup import closest
from bidsdnn.networks.appended import append
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.predicted import Encoded, stored_encodings
from bidsdnn.probes import CUTS
from bidsdnn.probes.units import BRAIN, BrainUnit, Unit, parse_unit
from bidsdnn.readouts import Weights
from bidsdnn.study import Participant, Study, presented_stimuli

METHODS = (
    "The encoder that was fitted to all stimuli shown was put onto the network as a layer, each region or voxel "
    "reading the layer with its highest cross-validated r among those asked for; a region's response is the mean of "
    "its voxels' predictions."
)


@dataclass(frozen=True, eq=False)
class BrainLayer:
    """One participant's encoder of one network and space, as a layer of that network.

    Parameters
    ----------
    network : Network
        With the layer ``brain``, whose channels are the units.
    units : tuple of Unit
        In the order of the channels, named as they were asked for.
    content : str
        Hash of all that the layer depends on.
    sidecar : mapping
        What a reader needs to know of it: Methods, Encoder, and of each unit the layer, r and the voxels.
    """

    network: Network
    units: tuple[Unit, ...]
    content: str
    sidecar: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Voxels that a unit is the mean of, and the layer that predicts them best."""

    unit: BrainUnit
    atlas: str
    columns: np.ndarray
    layer: str
    r: float


def probe_brain(study: Study, shown: Participant, names: Sequence[str], entities: Mapping[str, str]) -> None:
    """Run probes on the regions and voxels of one participant, by the encoder of each network.

    Parameters
    ----------
    study : Study
    shown : Participant
        Whose stimuli the probes are given.
    names : sequence of str
        Rows of `PROBES`.
    entities : mapping of str to str
        Of the participant's products in one space.
    """
    units = [unit for unit in map(parse_unit, study.config.unit) if isinstance(unit, BrainUnit)]
    if not units:
        return
    stimuli, _ = presented_stimuli(study, [shown])
    others = units_of(study.config, study.networks)
    for network, asked in study.networks:
        own = stimuli.of(network.modality)
        layer = brain_layer(study.derivatives, network, asked, units, config=study.config, entities=entities)
        for name in names:
            cut = name in CUTS
            probe(
                study, name, layer.network, own, layers=(*asked, BRAIN) if cut else (BRAIN,),
                units=(*others[network.label], *layer.units) if cut else layer.units, entities=entities,
                content=layer.content, about=layer.sidecar,
            )  # fmt: skip


def brain_layer(
    out: Derivatives, network: Network, asked: Sequence[str], units: Sequence[BrainUnit], *, config: Config,
    entities: Mapping[str, str],
) -> BrainLayer:  # fmt: skip
    """Put a participant's encoder onto a network.

    Parameters
    ----------
    out : Derivatives
        Holds the encoding.
    network : Network
        That of the encoding.
    asked : sequence of str
        Candidate layers, where ``--layer`` names any; else all of the encoding are.
    units : sequence of BrainUnit
    config : Config
        With the reductions and atlases of the encoding.
    entities : mapping of str to str
        Of the participant's products in the space of the encoding.

    Returns
    -------
    BrainLayer

    Raises
    ------
    MissingInputError
        If there is no encoding from this network.
    ConfigError
        If a region, voxel or layer is not there, or the encoder is not linear.
    DataError
        If the network or its reductions are not those of the encoding.
    """
    every = stored_encodings(out, entities["sub"], network, components=True)
    encoded = next((one for one in every if one.entities == dict(entities)), None)
    if encoded is None:
        raise MissingInputError(
            f"sub-{entities['sub']}: {out.root} holds no encoding from {network.label} of "
            f"{' '.join(f'{key}-{value}' for key, value in entities.items())}; run --analysis encoding first"
        )
    reduction = _reduction(out, network, encoded, config)
    regions, atlases = atlas_regions(config.atlas, encoded.space)
    candidates = _candidates(encoded, network, asked if config.layer else ())
    chosen = [_choose(one, encoded, candidates, regions) for one in dict.fromkeys(units)]
    weights = Weights(out, network, encoded, regions, str(torch_device(config.device)))
    readouts, order = [], []
    for layer in network.in_order({one.layer for one in chosen}):
        own = [one for one in chosen if one.layer == layer]
        readouts.append(weights.readout(layer, [one.columns for one in own], reduction))
        order += own
    made = append(network, readouts)
    named = tuple(Unit(BRAIN, number, name=str(one.unit)) for number, one in enumerate(order))
    content = digest({
        "encoding": encoded.sidecar["ConfigurationHash"], "network": made.weights_sha256, "atlases": atlases,
        "units": [str(unit) for unit in named],
    })  # fmt: skip
    return BrainLayer(made, named, content, _about(out, encoded, order, weights))


def _about(out: Derivatives, encoded: Encoded, chosen: Sequence[_Chosen], weights: Weights) -> dict[str, Any]:
    return {
        "Methods": METHODS,
        "Encoder": encoded.sidecar["Encoder"],
        "Weights": "stored by the encoding" if weights.stored else "fitted again to all stimuli",
        "BrainUnits": {
            str(one.unit): {
                "Atlas": one.atlas, "Layer": one.layer, "PearsonR": round(one.r, 6),
                "Columns": np.flatnonzero(one.columns).tolist(),
            }
            for one in chosen
        },
        "Sources": [out.uri(encoded.path)],
        "References": ["encoding"],
    }  # fmt: skip


def _reduction(out: Derivatives, network: Network, encoded: Encoded, config: Config) -> Reduction:
    """What is made of activations now, which must be what was made of them for the encoding."""
    kept = read_json(sidecar_path(activations_path(out, network.label)))
    reduction = reduction_of(config, len(kept.get("Stimuli", ())), network=network, stored=kept)
    made = encoded.sidecar["Activations"][network.label]["NetworkHash"]
    if made != network_hash(network, reduction):
        raise DataError(
            f"{encoded.path.name}: made with other weights, inputs or reductions than those of {network.label} now; "
            "give the options of that run, or run --analysis encoding again"
        )
    if made != kept.get("NetworkHash"):
        raise DataError(
            f"{activations_path(out, network.label)}: another run replaced it; run --analysis encoding again"
        )
    return reduction


def _candidates(encoded: Encoded, network: Network, asked: Sequence[str]) -> list[str]:
    known = list(encoded.sidecar["Layers"])
    for layer in asked:
        if layer not in known:
            raise ConfigError(
                f"--layer {layer}: the encoding from {network.label} has no such layer; {closest(layer, known)}"
            )
    return list(asked) or known


def _choose(unit: BrainUnit, encoded: Encoded, candidates: Sequence[str], regions: Regions) -> _Chosen:
    """Find a unit's voxels and its layer, that of the highest mean cross-validated r."""
    where = [atlas for atlas, table in regions.items() if unit.region in table]
    if not where:
        every = [name for table in regions.values() for name in table]
        raise ConfigError(
            f"--unit {unit}: no region of --atlas is called {unit.region!r}; {closest(unit.region, every)}"
        )
    if len(where) > 1:
        raise ConfigError(f"--unit {unit}: {' and '.join(where)} have a region of that name; give one --atlas")
    columns = np.array(regions[where[0]][unit.region], dtype=bool)
    scores = encoded.scores(candidates)
    if unit.voxel is not None:
        members = np.flatnonzero(columns)
        if unit.voxel >= len(members):
            raise ConfigError(
                f"--unit {unit}: {unit.region} has {len(members)} voxels; give one from 0 to {len(members) - 1}"
            )
        columns = np.zeros_like(columns)
        columns[members[unit.voxel]] = True
    columns &= np.isfinite(scores).any(axis=0)
    if not columns.any():
        raise DataError(f"--unit {unit}: no voxel of it was scored by the encoding; choose another")
    r = np.nanmean(np.where(np.isfinite(scores), scores, np.nan)[:, columns], axis=1)
    best = int(np.nanargmax(r))
    return _Chosen(unit, where[0], columns, candidates[best], float(r[best]))
