"""One analysis of one participant: what it is given, what its numbers depend on, and where its result goes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bidsdnn.across_runs import scratch
from bidsdnn.analyses import ANALYSES, Regions
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.decoding.models import decoders_of
from bidsdnn.encoding import encoding
from bidsdnn.encoding.memory import jobs_that_fit
from bidsdnn.encoding.models import source_of
from bidsdnn.errors import DataError
from bidsdnn.extraction import activations_path
from bidsdnn.features import described, references
from bidsdnn.folding import n_items_for
from bidsdnn.geometry import PIXELS, own_sources
from bidsdnn.lookup import resolve
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.parallel import at_most, available_cpus, seed_for, serial
from bidsdnn.patterns import Patterns
from bidsdnn.result import Result
from bidsdnn.stimuli import file_sha256
from bidsdnn.study import Study, estimation_of

logger = logging.getLogger(__name__)

HASHED = (
    "permutations", "seed", "metric", "comparisons", "radius", "iterate", "encoder", "encoder_parameters", "cv",
    "region_encoder_parameters",
    "save_predictions", "save_weights",
    "decoder", "decoder_parameters",
)  # fmt: skip
"""What the program passes to an analysis that its numbers depend on, besides the tables."""


def _unchanged(result: Result) -> Result:
    return result


@dataclass(frozen=True, eq=False)
class Destination:
    """Where the results of one brain go, and what is said of their origin.

    Parameters
    ----------
    label : str
        What seeds hang on: the participant's, or the group's.
    said : str
        What messages call it.
    derivatives : Derivatives
    entities : mapping of str to str
        Of the products.
    sources : sequence of str
        Where the responses are.
    settings : mapping
        What the responses were made with.
    finish : callable
        Changes a result before it is written.
    suffix : str
        What `finish` adds to the analysis' name.
    """

    label: str
    said: str
    derivatives: Derivatives
    entities: Mapping[str, str]
    sources: Sequence[str]
    settings: Mapping[str, Any]
    finish: Callable[[Result], Result] = _unchanged
    suffix: str = ""


def of_participant(study: Study, space: Any, entities: Mapping[str, str]) -> Destination:
    """Where the results of a participant go.

    Parameters
    ----------
    study : Study
    space : Space
    entities : mapping of str to str
        Of the participant's products.

    Returns
    -------
    Destination
    """
    out, label = study.derivatives, entities["sub"]
    source = out.image_path("statmap", space, **entities, stat="effect", desc="condition")
    return Destination(label, f"sub-{label}", out, entities, [out.uri(source)], vars(estimation_of(study.config)))


def analyse(
    study: Study,
    name: str,
    x: Patterns | None,
    y: Patterns,
    regions: Regions,
    *,
    ceiling: np.ndarray | None,
    content: str,
    to: Destination,
    more: Mapping[str, Any],
) -> None:
    """Run one analysis and write its result, unless the same result is there.

    Parameters
    ----------
    study : Study
    name : str
        Row of `ANALYSES`, or ``file.py:function``.
    x, y : Patterns
        A network's table and a brain's.
    regions : mapping
        By atlas.
    ceiling : ndarray, shape (n_voxels,), or None
        Highest r to be expected.
    content : str
        Hash of what the tables and regions depend on.
    to : Destination
    more : mapping
        What else the program passes to an analysis that takes it: single trials, columns, pictures.
    """
    config = study.config
    function = resolve(name, ANALYSES)
    device = str(torch_device(config.device))
    supplied: dict[str, Any] = {
        # Work on a GPU is serial, in this process; work on processors is spread.
        "map": study.map if device == "cpu" else serial, "device": device,
        "metric": config.rdm_metric,
        "comparisons": config.rdm_comparison,
        "radius": config.radius,
        "save_predictions": config.save_predictions, "save_weights": config.save_weights, "scratch": None,
        **({} if config.cv is None else {"cv": config.cv}),
        "decoder": config.decoder,
        "decoder_parameters": {name: config.parameters.get(name, {}) for name in decoders_of(config)},
        "encoder": config.encoder, "encoder_parameters": config.parameters.get(config.encoder, {}),
        "region_encoder_parameters": config.parameters.get(config.region_encoder or "", {}),
        "ceiling": ceiling, "regions": regions, "permutations": config.permutations,
        "seed": seed_for(config.random_seed, to.label), "checkpoint": None, "identity": "",
        "networks": [network for network, _ in study.networks], "workers": config.nprocs or available_cpus(), **more,
    }  # fmt: skip
    taken = {key: value for key, value in supplied.items() if key in inspect.signature(function).parameters}
    own = config.parameters.get(name, {})
    # A user's function is part of what its result depends on; a built-in one changes with the version.
    source = "" if name in ANALYSES else inspect.getsource(function)
    settings: dict[str, Any] = {key: taken[key] for key in HASHED if key in taken}
    settings |= own_sources([taken.get("metric", ""), own.get("layer_metric", ""), *taken.get("comparisons", ())])
    if "encoder" in taken:
        settings["encoder_source"] = source_of(taken["encoder"])
    if own.get("region_encoder"):
        settings["region_encoder_source"] = source_of(own["region_encoder"])
    if taken.get("decoder"):
        settings["decoder_source"] = source_of(taken["decoder"])
    for kind in ("columns", "targets"):
        if taken.get(kind):
            settings[kind] = {key: table.to_csv() for key, table in taken[kind].items()}
    if taken.get("parts") is not None:
        settings["parts"] = taken["parts"].to_csv()
    if PIXELS in own.get("control", ()) and taken.get("stimuli") is not None:
        settings["pictures"] = [file_sha256(path) for path in taken["stimuli"].paths]
    content = digest({"tables": content, "analysis": name, "parameters": own, "source": source, **settings})
    stem = function.__name__.replace("_", "") if name not in ANALYSES else name.replace("-", "")
    if to.derivatives.current(f"{stem}{to.suffix}", content, **to.entities):
        logger.info("%s: %s is up to date", to.said, name)
        return
    weights = to.derivatives.path("weights", ".pt", **to.entities, desc=stem)
    checkpoint = weights.with_name(f".{weights.name}.checkpoint")
    if "checkpoint" in taken:
        taken |= {"checkpoint": checkpoint, "identity": content}
    if function is encoding:
        # With items and voxels now known; a plan knows the mask only.
        size = n_items_for(taken.get("cv", "kfold:10"), y, taken.get("trials")), y.groups[0].values.shape[1]
        n_jobs = jobs_that_fit(
            *size, mem_mb=config.mem_mb, jobs=config.nprocs or available_cpus(), encoder=config.encoder
        )
        taken["map"] = at_most(taken["map"], n_jobs)
    # What an analysis leaves in the folder is read while its result is written.
    with scratch(config.work_dir) as folder:
        if "scratch" in taken:
            taken["scratch"] = folder
        try:
            result = function(x, y, **taken, **own)
        except ValueError as error:
            raise DataError(f"{name}: {error}") from error
        result = replace(result, sidecar=_sidecar(study, result, x, to, own))
        to.derivatives.save(to.finish(result), y.space, content, **to.entities)
    for left in checkpoint.parent.glob(f"{checkpoint.name}*") if "checkpoint" in taken else ():
        left.unlink()


def _sidecar(
    study: Study, result: Result, x: Patterns | None, to: Destination, own: Mapping[str, Any]
) -> dict[str, Any]:
    """What a result says of itself, its settings and its sources."""
    config = study.config
    made_by = {**to.settings, "parameters": own}
    chosen = {
        key: getattr(config, key)
        for key in ("event_filter", "stimulus_column", "session_label", "run_label", "features", "cv")
    }
    said = f"{result.sidecar.get('Methods', '')}{described(config)}".strip()
    networks = dict.fromkeys(group.network for group in (x.groups if x else ()))
    made = activations_of(study.derivatives, networks, pca=config.pca)
    cited = list(dict.fromkeys([*result.sidecar.get("References", ()), *references(config)]))
    settings = {**made_by, **chosen}
    return {
        **result.sidecar, **made, "Methods": said, "References": cited, "Settings": settings,
        "Sources": list(to.sources),
    }  # fmt: skip


def activations_of(derivatives: Derivatives, networks: Iterable[str], *, pca: float | None) -> dict[str, Any]:
    """Which files of activations a result was made from, by network, and the hash of what made those."""
    paths = {label: activations_path(derivatives, label) for label in networks}
    found = {
        label: {"File": derivatives.uri(path), "NetworkHash": read_json(sidecar_path(path)).get("NetworkHash", "")}
        for label, path in paths.items() if path.exists()
    }  # fmt: skip
    for one in found.values() if pca is not None else ():
        one["PCA"] = pca
    return {"Activations": found} if found else {}
