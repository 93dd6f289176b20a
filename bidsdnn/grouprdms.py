"""RDMs of participants and of networks, read back and joined by their stimuli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.arrays import is_activations, read_activations, read_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.extraction import activations_path
from bidsdnn.geometry import FEWEST_STIMULI, METRICS
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import WEIGHTED


@dataclass(frozen=True, eq=False)
class Geometry:
    """RDMs of one metric over the same stimuli.

    Parameters
    ----------
    ids : list of str
    people : list of str
        Participants, the first axis of each region's RDMs.
    brains : mapping of str to ndarray, shape (participants, pairs)
        By region.
    models : mapping of (str, str) to ndarray, shape (pairs,)
        By network and layer.
    """

    ids: list[str]
    people: list[str]
    brains: Mapping[str, np.ndarray]
    models: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)


def rdm_files(tables: Mapping[str, Path]) -> dict[str, Path]:
    """RDM files beside participants' tables of RSA, by participant and metric's label, as ``01 correlation``."""
    found = {}
    for label, table in tables.items():
        where = {key: value for key, value in names.entities_of(table).items() if key not in ("model", "desc")}
        for path in sorted(table.parent.glob("*_relmat.h5")):
            entities = names.entities_of(path)
            if {key: value for key, value in entities.items() if key != "stat"} == where:
                found[f"{label} {entities.get('stat', '')}"] = path
    return found


def read_geometry(
    derivatives: Derivatives, files: Mapping[str, Path], tables: Mapping[str, pd.DataFrame], metric: str,
    result: pd.DataFrame, omitted: list[str], *, units: str,
) -> Geometry | None:  # fmt: skip
    """RDMs of participants and of layers where all of them are of the same stimuli, joined by their names.

    Parameters
    ----------
    derivatives : Derivatives
    files : mapping of str to Path
        Of `rdm_files`.
    tables : mapping of str to DataFrame
        By participant.
    metric : str
        Of the participants' RDMs.
    result : DataFrame
        Its rows of that metric name the networks and layers.
    omitted : list of str
        Gets a sentence for each thing that cannot be had.
    units : str
        Metric of the layers.

    Returns
    -------
    Geometry or None
    """
    people = {label: files.get(f"{label} {names.label(metric)}") for label in tables}
    lacking = [label for label, path in people.items() if path is None]
    what = f"noise ceilings and bootstrap of {metric} RDMs"
    if lacking:
        omitted.append(f"There are no {what}: sub-{', sub-'.join(lacking)} has no RDM file.")
        return None
    read = {label: read_rdms(path) for label, path in people.items() if path is not None}
    ids = next(iter(read.values()))[0]
    other = [label for label, (own, _) in read.items() if set(own) != set(ids)]
    if other:
        omitted.append(
            f"There are no {what}: sub-{', sub-'.join(other)} saw other stimuli than sub-{next(iter(read))}."
        )
        return None
    if len(ids) < FEWEST_STIMULI:
        return None
    shared = [region for region in next(iter(read.values()))[1] if all(region in rdms for _, rdms in read.values())]
    stacked = {region: np.array([_in_order(ids, own, rdms[region]) for own, rdms in read.values()])
               for region in shared}  # fmt: skip
    gaps = [region for region, rdms in stacked.items() if not np.isfinite(rdms).all()]
    if gaps:
        omitted.append(f"There are no {what} in {', '.join(gaps)}: a participant's RDM has gaps.")
    brains = {region: rdms for region, rdms in stacked.items() if region not in gaps}
    # All layers weighted together have an RDM for each participant, region and fold, and none of their own.
    rows = result[(result["metric"] == metric) & (result["layer"] != WEIGHTED)]
    layers = {network: list(dict.fromkeys(part["layer"])) for network, part in rows.groupby("network", sort=False)}
    models = {}
    for network, wanted in layers.items():
        rdms = _model_rdms(derivatives, str(network), wanted, units, ids)
        models.update({(str(network), layer): rdm for layer, rdm in rdms.items()})
        without = [layer for layer in wanted if layer not in rdms]
        if without:
            omitted.append(f"{network}: no RDM on disk of {', '.join(without)}; the bootstrap was left out for these.")
    return Geometry(ids, list(tables), brains, models)


def _in_order(ids: Sequence[str], own: Sequence[str], rdm: np.ndarray) -> np.ndarray:
    """Take a condensed RDM's pairs in the order of other names, all of which it has."""
    if list(own) == list(ids):
        return rdm
    position = {name: place for place, name in enumerate(own)}
    place = np.array([position[name] for name in ids])
    first, second = np.triu_indices(len(ids), 1)
    low, high = np.minimum(place[first], place[second]), np.maximum(place[first], place[second])
    return rdm[low * len(own) - low * (low + 1) // 2 + high - low - 1]


def _model_rdms(
    derivatives: Derivatives, network: str, layers: Sequence[str], metric: str, ids: Sequence[str]
) -> dict[str, np.ndarray]:
    """A network's RDMs over some stimuli, from its file of RDMs or else from its activations."""
    path = derivatives.root / "stimuli" / f"model-{network}_stat-{names.label(metric)}_relmat.h5"
    if path.exists():
        own, rdms = read_rdms(path)
        if set(ids) <= set(own) and set(layers) <= set(rdms):
            return {layer: _in_order(ids, own, rdms[layer]) for layer in layers}
    path = activations_path(derivatives, network)
    kept = read_json(sidecar_path(path)).get("Layers", []) if is_activations(path) else []
    there = [layer for layer in layers if layer in kept]
    if not there or metric not in METRICS:
        return {}
    own, stored = read_activations(path, there)
    position = {name: row for row, name in enumerate(own)}
    if not set(ids) <= set(own):
        return {}
    groups = [Group(layer, values, network) for layer, values in zip(there, stored, strict=True)]
    x = Patterns(pd.DataFrame({"stimulus_id": own}), groups).take(np.array([position[name] for name in ids]))
    return {group.name: group.rdm(metric) for group in x.groups}
