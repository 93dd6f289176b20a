"""The networks that participants were analysed with, read back from the output: no network is built at this level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.arrays import is_activations, read_activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.features import read_features
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.config import Config
from bidsdnn.errors import BidsdnnError
from bidsdnn.extraction import activations_path, components_path
from bidsdnn.groupmodels.people import Shared
from bidsdnn.patterns import Group, Patterns


def layers_of(config: Config, shared: Shared, omitted: list[str]) -> tuple[Patterns | None, str]:
    """Activations to the shared stimuli of the layers that participants were analysed with.

    Parameters
    ----------
    config : Config
        With ``--network`` only those networks; with ``none`` only features.
    shared : Shared
    omitted : list of str
        Sentences on what was left out are added here.

    Returns
    -------
    patterns : Patterns or None
        One group a layer, values on disk; None if there are none.
    content : str
        Hash of what they depend on.
    """
    items, groups, hashes = pd.DataFrame({"stimulus_id": shared.ids}), [], {}
    for label, (layers, reduced) in analysed(shared).items():
        if not _asked(config, label, shared.people[0].out):
            continue
        try:
            found, made = _read(config, shared.people[0].out, label, layers, reduced=reduced)
            groups += list(found.match(Patterns(items, ())).groups)
        except (BidsdnnError, ValueError) as error:
            omitted.append(f"{label} was left out: {error}.")
            continue
        hashes[label] = [made, layers]
    return Patterns(items, tuple(groups)) if groups else None, digest({"networks": hashes})


def analysed(shared: Shared) -> dict[str, tuple[list[str], bool]]:
    """Networks and layers in the results of the first participant who has any, and whether those were components."""
    for person in shared.people:
        found: dict[str, tuple[dict[str, None], bool]] = {}
        for path in sorted(person.effect.parent.glob(f"sub-{person.label}_*_model-*_results.tsv")):
            entities = names.entities_of(path)
            if person.entities.items() <= entities.items():
                _add(found, entities["model"], read_json(sidecar_path(path)))
        if found:
            return {label: (list(layers), reduced) for label, (layers, reduced) in found.items()}
    return {}


def _add(found: dict[str, tuple[dict[str, None], bool]], label: str, sidecar: Mapping[str, Any]) -> None:
    layers, _ = found.setdefault(label, ({}, False))
    made = sidecar.get("Activations", {}).get(label, {})
    # What stands for all layers, as a weighted model, is none itself; the file of activations knows which are.
    layers.update(dict.fromkeys(sidecar.get("Layers", [])))
    found[label] = (layers, "PCA" in made)


def _asked(config: Config, label: str, out: Derivatives) -> bool:
    """Whether a network is among those of ``--network``; all are, where it was not given."""
    if label in config.computed_features or label in config.features:
        return True
    if "network" not in config.model_fields_set:
        return True
    name = read_json(sidecar_path(activations_path(out, label))).get("NetworkName")
    return any(label == spec.alias or (spec.alias is None and name == _known_as(spec.name)) for spec in config.networks)


def _known_as(name: str) -> str:
    """What a network of this name on the command line calls itself: without the folders of its file."""
    file, colon, attribute = name.rpartition(":")
    if file.endswith(".py"):
        return f"{Path(file).stem}:{attribute}"
    return name if colon else Path(name).name


def _read(
    config: Config, out: Derivatives, label: str, layers: Sequence[str], *, reduced: bool
) -> tuple[Patterns, str]:
    """A network's layers on disk, or a feature space, with the hash of what they depend on."""
    path = components_path(out, label) if reduced else activations_path(out, label)
    if not is_activations(path):
        if label in config.features:
            space = read_features(label, config.features[label])
            if space.stimuli is None:
                raise ValueError("these features vary in time, and are none of stimuli")
            return space.stimuli, space.content
        raise ValueError(
            f"{path.relative_to(out.root)} is not there; run the participant level again, or give --features NAME=PATH"
        )
    sidecar = read_json(sidecar_path(path))
    kept = [layer for layer in sidecar["Layers"] if layer in layers]
    ids, stored = read_activations(path, kept)
    groups = tuple(
        Group(layer, values, label, values.unit_shape, values.channel_axis)
        for layer, values in zip(kept, stored, strict=True)
    )
    hashed = {key: sidecar.get(key) for key in ("NetworkHash", "Stimuli", "PCA")}
    return Patterns(pd.DataFrame({"stimulus_id": ids}), groups), digest(hashed)
