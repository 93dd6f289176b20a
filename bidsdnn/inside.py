"""Probes of networks: which are asked for, what each is given, what its result depends on and where that goes.

At the dnn level each network is probed by itself. A participant's regions and voxels are probed as units of a network
that a fitted encoder was appended to, by the same function with the participant's entities.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn import activations
from bidsdnn.bids.columns import read_columns
from bidsdnn.bids.files import digest
from bidsdnn.bids.probed import save_probe
from bidsdnn.config import Config
from bidsdnn.decoding.models import decoders_of
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.extraction import check_room, network_hash, reduction_of
from bidsdnn.lookup import resolve
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.networks.devices import placed
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.work import contents
from bidsdnn.parallel import available_cpus, seed_for, serial
from bidsdnn.patterns import Patterns
from bidsdnn.probes import NEEDS_GRADIENTS, PROBES
from bidsdnn.probes.driving import check_precision
from bidsdnn.probes.units import Unit, is_brain, resolve_units
from bidsdnn.report.network_works import network_reference
from bidsdnn.stimuli import Stimuli, file_sha256
from bidsdnn.study import Study

logger = logging.getLogger(__name__)

HASHED = ("layers", "units", "seed", "permutations", "decoder", "decoder_parameters", "cv")
"""What the program passes to a probe that its result depends on, besides network and stimuli, by its text."""


def units_of(config: Config, networks: Sequence[tuple[Network, list[str]]]) -> dict[str, tuple[Unit, ...]]:
    """Find the units of ``--unit`` in the networks, and refuse what no probe could use, before any work.

    Parameters
    ----------
    config : Config
    networks : sequence of (Network, list of str)

    Returns
    -------
    dict of str to tuple of Unit
        By the network's label; without those of brains, which are known when an encoder is fitted.

    Raises
    ------
    ConfigError
        If a unit is not there, or a network has no gradients and a probe wants them.
    """
    differentiated = NEEDS_GRADIENTS & set(config.analysis)
    if config.parameters.get("saliency", {}).get("method") in ("occlusion", ["occlusion"]):
        differentiated -= {"saliency"}
    for network, _ in networks if differentiated else ():
        check_precision(network)
    return resolve_units([text for text in config.unit if not is_brain(text)], [network for network, _ in networks])


def probe_all(study: Study, names: Sequence[str], stimuli: Stimuli, *, events: Sequence[pd.DataFrame] = ()) -> None:
    """Run probes on every network of a study, at the dnn level.

    Parameters
    ----------
    study : Study
    names : sequence of str
        Rows of `PROBES`, or ``file.py:function``.
    stimuli : Stimuli
        With hashes; each network takes its kind.
    events : sequence of DataFrame
        With ``trial`` and ``stimulus_id``, whose columns ``--target`` may name.
    """
    units = units_of(study.config, study.networks)
    for network, layers in study.networks:
        own = stimuli.of(network.modality)
        if not len(own):
            raise ConfigError(f"network {network.label} takes {network.modality}, of which there is none; leave it out")
        for name in names:
            given = units[network.label]
            if study.config.unit and not given:
                logger.warning("%s: has none of --unit; %s is left out", network.label, name)
                continue
            probe(
                study, name, network, own, layers=layers, units=given, entities={"datatype": "stimuli"}, events=events
            )


def probe(
    study: Study,
    name: str,
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str],
    units: Sequence[Unit],
    entities: Mapping[str, str],
    content: str = "",
    about: Mapping[str, Any] | None = None,
    events: Sequence[pd.DataFrame] = (),
) -> None:
    """Run one probe of one network and write its result, unless the same result is there.

    Parameters
    ----------
    study : Study
    name : str
        Row of `PROBES`, or ``file.py:function``.
    network : Network
        For a brain's units, with the encoder appended.
    stimuli : Stimuli
        With hashes, of the network's modality.
    layers : sequence of str
    units : sequence of Unit
        Of this network.
    entities : mapping
        Of the products: ``datatype="stimuli"``, or the participant's ``sub``, ``task``, ``space``.
    content : str
        Hash of what the network depends on beyond its own, as the responses that an encoder was fitted to.
    about : mapping, optional
        Keys of the sidecar that say of what the network was made; its ``Methods`` come before the probe's.
    events : sequence of DataFrame
        As of `probe_all`.
    """
    config, out = study.config, study.derivatives
    function = resolve(name, PROBES)
    own = config.parameters.get(name, {})
    device = str(torch_device(config.device))
    whom = entities.get("sub", "dnn")
    supplied: dict[str, Any] = {
        "layers": tuple(layers), "units": tuple(units), "device": device, "seed": seed_for(config.random_seed, whom),
        "map": study.map if device == "cpu" else serial, "permutations": config.permutations,
        "workers": config.nprocs or available_cpus(), "decoder": config.decoder,
        "decoder_parameters": {name: config.parameters.get(name, {}) for name in decoders_of(config)},
        "activations": partial(_activations, study, network, stimuli),
        **({} if config.cv is None else {"cv": config.cv}),
        **_labels(study, function, events),
    }  # fmt: skip
    taken = {key: value for key, value in supplied.items() if key in inspect.signature(function).parameters}
    depends = {
        "analysis": name, "network": network_hash(network, _reduction(study, network, stimuli, taken)),
        "more": content, "stimuli": dict(zip(stimuli.ids, contents(stimuli), strict=True)), "parameters": own,
        "source": "" if name in PROBES else inspect.getsource(function), "files": _files(own),
        "targets": {key: table.to_csv() for key, table in taken.get("targets", {}).items()},
        "parts": taken["parts"].to_csv() if "parts" in taken else "",
        **{key: str(taken[key]) for key in HASHED if key in taken},
    }  # fmt: skip
    hashed = digest(depends)
    stem = name.replace("-", "") if name in PROBES else function.__name__.replace("_", "")
    entities = {**entities, "model": network.label}
    weights = out.path("weights", ".pt", **entities, desc=stem)
    checkpoint = weights.with_name(f".{weights.name}.checkpoint")
    if "checkpoint" in inspect.signature(function).parameters:
        taken |= {"checkpoint": checkpoint, "identity": hashed}
    if out.current(stem, hashed, **entities):
        logger.info("%s: %s of %s is up to date", whom, name, network.label)
        return
    logger.info("%s: %s of %s", whom, name, network.label)
    try:
        with placed(network.module, config.device):
            result = function(network, stimuli, **taken, **own)
    except ValueError as error:
        raise DataError(f"{name} of {network.label}: {error}") from error
    if result.analysis != stem:
        raise ValueError(f"{name}: expected Result({stem!r}), got {result.analysis!r}")
    made = dict(about or {})
    said = {
        **made, "Analysis": name, "Network": network.label, "Weights": network.weights,
        "WeightsSHA256": network.weights_sha256, "Preprocessing": network.preprocessing,
        "Units": [str(unit) for unit in taken.get("units", ())], "Layers": list(taken.get("layers", ())),
        "Parameters": own, "NumberOfStimuli": len(stimuli),
    }  # fmt: skip
    cited = ["pytorch", "torchvision", *filter(None, [network_reference(network.name)])]
    sidecar = {
        **said, **result.sidecar,
        "Methods": f"{made.get('Methods', '')} {result.sidecar.get('Methods', '')}".strip(),
        "References": [*cited, *made.get("References", ()), *result.sidecar.get("References", ())],
    }  # fmt: skip
    save_probe(out, replace(result, sidecar=sidecar), hashed, **entities)
    checkpoint.unlink(missing_ok=True)


def _files(own: Mapping[str, Any]) -> dict[str, str]:
    """Hash of each file that a parameter names, as a picture to start from or the code of a generator."""
    named = {
        key: Path(value.rpartition(":")[0] if ".py:" in value else value)
        for key, value in own.items()
        if isinstance(value, str)
    }
    return {key: file_sha256(path) for key, path in named.items() if path.is_file()}


def _reduction(study: Study, network: Network, stimuli: Stimuli, taken: Mapping[str, Any]) -> Reduction:
    """What is made of activations, where a probe reads them; others look at all units."""
    return reduction_of(study.config, len(stimuli), network=network) if "activations" in taken else Reduction()


def _activations(study: Study, network: Network, stimuli: Stimuli, layers: Sequence[str]) -> Patterns:
    """Stored activations of some layers, extracted if they are not there and there is room."""
    check_room([(network, list(layers))], stimuli, study.derivatives, config=study.config)
    return activations.ensure(network, layers, stimuli, study.derivatives, config=study.config)[0]


def _labels(study: Study, function: Callable[..., Any], events: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Columns of the stimuli that ``--target`` and ``--cv column:`` name, for a probe that takes them."""
    config, found = study.config, dict[str, Any]()
    taken, scheme = inspect.signature(function).parameters, config.cross_validation
    if "targets" in taken:
        found["targets"] = read_columns(config.targets, index=study.index, events=events, flag="--target ")
    if "parts" in taken and scheme.kind == "column":
        asked = {scheme.column: scheme.file}
        found["parts"] = read_columns(asked, index=study.index, events=events, flag="--cv column:")[scheme.column]
    return found
