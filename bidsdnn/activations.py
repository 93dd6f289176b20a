"""A network's activations to the dataset's stimuli: computed once, kept in the output, read by every participant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn.bids.arrays import is_activations, read_activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path, write_json
from bidsdnn.config import Config
from bidsdnn.cuts import with_cuts
from bidsdnn.errors import ConfigError
from bidsdnn.extraction import activations_path, described, masks, network_hash, reduction_of, workers_within
from bidsdnn.lookup import closest
from bidsdnn.networks import extract, zoo
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.work import Known, contents
from bidsdnn.parallel import Map
from bidsdnn.patterns import Group, Patterns
from bidsdnn.report.network_works import network_reference
from bidsdnn.stimuli import Stimuli, modality

logger = logging.getLogger(__name__)

# A condensed RDM of 10,000 stimuli is 400 MB; of more, RDMs are made for the stimuli a participant saw.
MOST_STIMULI_FOR_RDM = 10_000


def build_networks(
    config: Config, *, stimuli: Callable[[str], Stimuli] | None = None
) -> list[tuple[Network, list[str]]]:
    """Build each network asked for, cut it as ``--ablate`` says, and find its asked layers.

    Parameters
    ----------
    config : Config
    stimuli : callable, optional
        Of `bidsdnn.cuts.with_cuts`.

    Returns
    -------
    list of (Network, list of str)
        Networks without a matching layer are left out where another has one.

    Raises
    ------
    ConfigError
        If a layer pattern matches in no network, or two networks have one name.
    """
    named = {name for spec in config.networks for name in (spec.name, spec.alias) if name}
    for name in config.network_inputs:
        if name not in named:
            raise ConfigError(f"networks.{name}: --network names no such network; {closest(name, named)}")
    networks = [
        zoo.build(
            spec.name,
            weights=spec.weights,
            seed=config.random_seed,
            alias=spec.alias,
            given=config.network_inputs.get(spec.alias or spec.name) or config.network_inputs.get(spec.name),
        )
        for spec in config.networks
    ]
    networks = with_cuts(networks, config, stimuli=stimuli)
    labels = [network.label for network in networks]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"--network: {label!r} stands twice; give one of them another name, as in second={label}")
    chosen: dict[str, list[str]] = {network.label: [] for network in networks}
    # Who masks layers and names none means those.
    for pattern in config.layer or tuple(masks(config)):
        narrowed, colon, glob = pattern.rpartition(":")
        among = [n for n in networks if not colon or narrowed in (n.name, n.alias, n.label)]
        if colon and not among:
            raise ConfigError(f"--layer {pattern}: no network is called {narrowed!r}; {closest(narrowed, labels)}")
        found = {network.label: network.select([glob]) for network in among}
        if not any(found.values()):
            every = [layer for network in among for layer in (*network.short, *network.layers)]
            raise ConfigError(
                f"--layer {pattern}: no layer of {', '.join(n.label for n in among)}; {closest(glob, every)}"
            )
        for label, layers in found.items():
            chosen[label].extend(layers)
    if not config.layer and not masks(config):
        chosen = {network.label: list(network.canonical()) for network in networks}
    for label, layers in chosen.items():
        if not layers:
            logger.warning("%s: no --layer matches; this network is left out", label)
    ordered = {n.label: n.in_order(chosen[n.label]) for n in networks}
    _check_mask(config, networks, ordered)
    return [(network, ordered[network.label]) for network in networks if ordered[network.label]]


def _check_mask(config: Config, networks: Sequence[Network], chosen: Mapping[str, list[str]]) -> None:
    """Refuse a mask of layers that nobody asked for: it would change nothing, and nobody would know."""
    for pattern in masks(config):
        asked = {layer.partition("#")[0] for network in networks for layer in chosen[network.label]}
        meant = {layer.partition("#")[0] for network in networks for layer in network.select([pattern])}
        if not asked & meant:
            raise ConfigError(f"mask of layer {pattern}: no such layer is analysed; {closest(pattern, asked)}")


def ensure(
    network: Network, layers: Sequence[str], stimuli: Stimuli, derivatives: Derivatives, *, config: Config,
    desc: str = "",
) -> tuple[Patterns, str]:  # fmt: skip
    """Activations of some layers to some stimuli: read if they are there, extracted if not.

    What an earlier run left for other stimuli or layers of the same network is kept.

    Parameters
    ----------
    network : Network
    layers : sequence of str
    stimuli : Stimuli
        With hashes of their content.
    derivatives : Derivatives
    config : Config
    desc : str
        Of `activations_path`.

    Returns
    -------
    patterns : Patterns
        One group a layer; the values stay on disk.
    content : str
        Hash of the network, and of the stimuli and layers asked for.
    """
    path = activations_path(derivatives, network.label, desc=desc)
    with derivatives.lock(path):
        stored = read_json(sidecar_path(path)) if is_activations(path) else {}
        reduction = reduction_of(config, len(stimuli), network=network, stored=stored)
        identity = network_hash(network, reduction)
        kept = stored if stored.get("NetworkHash") == identity else {}
        asked = dict(zip(stimuli.ids, contents(stimuli), strict=True))
        if not (asked.items() <= kept.get("Stimuli", {}).items() and set(layers) <= set(kept.get("Layers", []))):
            _extract(network, layers, stimuli, path, kept, reduction, identity, config=config)
        _say_left_out(path, stimuli, kept.get("LeftOut", []))
    content = digest({"network": identity, "stimuli": asked, "layers": list(layers)})
    return _read(path, layers, network.label), content


def _extract(
    network: Network, layers: Sequence[str], stimuli: Stimuli, path: Path, kept: Mapping[str, Any],
    reduction: Reduction, identity: str, *, config: Config,
) -> None:  # fmt: skip
    """Make a file of the asked and the kept layers and stimuli; what is kept is copied."""
    there: Mapping[str, str] = kept.get("Stimuli", {})
    wanted = network.in_order([*layers, *kept.get("Layers", [])])
    everything = _with_known(stimuli, there, kept.get("Clips", {}))
    known = Known(path, list(there.values()), kept["Layers"]) if kept else None
    logger.info("extracting %d layers of %s for %d stimuli", len(wanted), network.label, len(everything))
    # The name does not change from run to run, so that an interrupted extraction is found again.
    fresh = path.with_name(f".{path.name}")
    extract.extract(
        network,
        everything,
        wanted,
        fresh,
        workers=workers_within(network, wanted, reduction, config),
        device=config.device,
        progress=True,
        reduction=reduction,
        known=known,
    )
    content = {
        "Description": "Activations of a network's layers to stimuli, one HDF5 dataset a layer",
        "Network": network.label,
        "NetworkName": network.name,
        "Weights": network.weights,
        "WeightsSHA256": network.weights_sha256,
        "Preprocessing": network.preprocessing,
        **reduction.described(),
        "Methods": network_methods(network, wanted, described(config, components=False)),
        "Layers": wanted,
        "Stimuli": dict(zip(everything.ids, contents(everything), strict=True)),
        "Clips": _clips(everything),
        "NetworkHash": identity,
    }
    # The sidecar follows its file: between the two a reader sees an old hash and computes again.
    sidecar_path(path).unlink(missing_ok=True)
    fresh.replace(path)
    write_json(sidecar_path(path), content)


def _say_left_out(path: Path, stimuli: Stimuli, before: Sequence[str]) -> None:
    """Write beside the activations which stimuli could not be read, and in no later run either."""
    about = read_json(sidecar_path(path))
    left_out = sorted({*before, *stimuli.left_out} - set(about["Stimuli"]))
    if left_out != about.get("LeftOut", []):
        write_json(sidecar_path(path), {**about, "LeftOut": left_out})


def _clips(stimuli: Stimuli) -> dict[str, list[Any]]:
    """File, modality, start and stop of each stimulus that is a part of its file."""
    of = zip(stimuli.ids, stimuli.table["filename"], stimuli.table["modality"], stimuli.clips, strict=True)
    return {name: [filename, kind, *when] for name, filename, kind, when in of if when != (None, None)}


def _with_known(stimuli: Stimuli, known: Mapping[str, str], clips: Mapping[str, list[Any]]) -> Stimuli:
    """Put before the asked stimuli those an earlier run extracted and whose files are still the same.

    Their rows keep their places, so that a job that is reading the file meanwhile finds them there.
    """
    rows = {name: row for name, row in zip(stimuli.ids, stimuli.table.to_dict("records"), strict=True) if name in known}
    others = [
        {"stimulus_id": name, "sha256": ""}
        | dict(zip(("filename", "modality", "start", "stop"), clips.get(name) or (name, modality(name)), strict=False))
        for name in known if name not in rows
    ]  # fmt: skip
    others = [row for row in others if (stimuli.root / row["filename"]).is_file()]
    if others:
        hashed = Stimuli(pd.DataFrame(others), stimuli.root).with_hashes()
        found = zip(hashed.table.to_dict("records"), contents(hashed), strict=True)
        rows |= {row["stimulus_id"]: row for row, sha in found if sha == known[row["stimulus_id"]]}
    new = stimuli.table[~stimuli.table["stimulus_id"].isin(known)]
    kept = pd.DataFrame([rows[name] for name in known if name in rows])
    return replace(stimuli, table=pd.concat([kept, new], ignore_index=True) if rows else new)


def _read(path: Path, layers: Sequence[str], label: str) -> Patterns:
    ids, stored = read_activations(path, layers)
    groups = tuple(
        Group(layer, values, label, values.unit_shape, values.channel_axis)
        for layer, values in zip(layers, stored, strict=True)
    )
    return Patterns(pd.DataFrame({"stimulus_id": ids}), groups)


def write_rdms(network: Network, derivatives: Derivatives, *, config: Config, map: Map) -> None:
    """Write the correlation-distance RDM of each layer whose activations are kept, if they are not there.

    Parameters
    ----------
    network : Network
    derivatives : Derivatives
        Holds the network's activations.
    config : Config
    map : callable
        Spreads layers over workers.
    """
    source = activations_path(derivatives, network.label)
    kept = read_json(sidecar_path(source))
    content = digest({"network": kept["NetworkHash"], "stimuli": kept["Stimuli"], "layers": kept["Layers"]})
    path = source.with_name(f"model-{network.label}_stat-correlation_relmat.h5")
    if path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content:
        return
    x = _read(source, kept["Layers"], network.label)
    if len(x) > MOST_STIMULI_FOR_RDM:
        logger.warning("%d stimuli: RDMs of the layers are made per participant only", len(x))
        return
    rdms = map(Group.rdm, x.groups, label=f"{network.label} RDMs")
    sidecar = {
        "Description": "RDM of each layer over all stimuli",
        "Network": network.label,
        "Layers": kept["Layers"],
        "ConfigurationHash": content,
        "Methods": network_methods(network, kept["Layers"], described(config, components=False)),
        "References": ["pytorch", "torchvision", *filter(None, [network_reference(network.name)])],
        "Sources": [derivatives.uri(source)],
    }
    with derivatives.lock(path):
        derivatives.write_rdms(path, dict(zip(kept["Layers"], rdms, strict=True)), x.ids, sidecar)


def write_manifest(stimuli: Stimuli, presentations: Mapping[str, int], derivatives: Derivatives) -> None:
    """List the stimuli in ``stimuli/stimuli.tsv``; rows that earlier runs wrote for other stimuli stay.

    Parameters
    ----------
    stimuli : Stimuli
        With hashes.
    presentations : mapping of str to int
        How often each was shown to the participants of this run.
    derivatives : Derivatives
    """
    path = derivatives.root / "stimuli" / "stimuli.tsv"
    table = pd.DataFrame(
        {
            "stimulus_id": stimuli.ids,
            "type": stimuli.table["modality"].to_numpy(),
            "filename": stimuli.table["filename"].to_numpy(),
            "sha256": stimuli.table["sha256"].to_numpy(),
            "n_presentations": [presentations.get(name, 0) for name in stimuli.ids],
            "present": True,
        }
    )
    with derivatives.lock(path):
        if path.exists():
            old = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
            known = set(zip(old["stimulus_id"], old["sha256"], strict=True))
            new = [pair not in known for pair in zip(table["stimulus_id"], table["sha256"], strict=True)]
            if not any(new):
                return
            table = table[new].astype(str)
            table = pd.concat([table, old[~old["stimulus_id"].isin(table["stimulus_id"])]], ignore_index=True)
            table = table.sort_values("stimulus_id", ignore_index=True)
        derivatives.write_table(
            path,
            table,
            {
                "stimulus_id": {"Description": "Path below the stimuli folder"},
                "n_presentations": {
                    "Description": "How often it was shown to the participants of the run that added it"
                },
            },
        )


def network_methods(network: Network, layers: Sequence[str], made: str) -> str:
    """Sentences for the report's methods.

    Parameters
    ----------
    network : Network
    layers : sequence of str
    made : str
        What was made of the activations, as `extraction.described` says it.

    Returns
    -------
    str
    """
    random = network.weights in ("none", "shuffled none")
    weights = "seeded random weights" if random else f"weights {network.weights}"
    said = "; ".join([weights, *network.changes])
    return (
        f"Activations of {len(layers)} layer{'' if len(layers) == 1 else 's'} of the network {network.name} ({said}) "
        f"were extracted in one forward pass per stimulus (input: {network.preprocessing}). {made}"
    ).strip()
