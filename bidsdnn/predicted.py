"""Responses to pictures that nobody has seen in a scanner, predicted by the encoders of an earlier run.

Everything but the new pictures is read from the output: responses, activations to the stimuli that were shown, scores
and, where they were kept, weights. Without weights the encoder is fitted again, to all stimuli and in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn import activations, reports
from bidsdnn.bids import names
from bidsdnn.bids.arrays import read_activations, read_columns_file
from bidsdnn.bids.atlases import atlas_regions
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.conditions import condition_map, read_conditions
from bidsdnn.encoding.models import build_encoder, features_of, fitted_together, taken_by
from bidsdnn.encoding.prediction import PREDICT
from bidsdnn.encoding.tables import mean
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.extraction import activations_path, check_room, network_hash, reduction_of
from bidsdnn.folding import is_series
from bidsdnn.geometry import Regions
from bidsdnn.groupmaps import MASKS
from bidsdnn.journal import software
from bidsdnn.lookup import closest
from bidsdnn.methods.crossgram import cross_gram, on_rotation
from bidsdnn.methods.layer_choice import winners
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Outcome, attempt, describe
from bidsdnn.patterns import Group, Patterns
from bidsdnn.published import group_labels
from bidsdnn.result import JOINT, Map, Result
from bidsdnn.spaces import Space, intersection
from bidsdnn.stimuli import Stimuli
from bidsdnn.study import Study, all_stimuli

logger = logging.getLogger(__name__)

METHODS = (
    "Responses to new stimuli were predicted by the encoder that was fitted to all stimuli shown, each voxel from "
    "the layer with the highest cross-validated r among those asked for."
)


@dataclass(frozen=True, eq=False)
class New:
    """A network's activations to the new stimuli.

    Parameters
    ----------
    network : Network
    layers : list of str
        Candidates.
    features : Patterns
    content : str
        Hash of what they depend on.
    identity : str
        Hash of the network and of what is made of its activations.
    """

    network: Network
    layers: list[str]
    features: Patterns
    content: str
    identity: str


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoding of one participant, network and space, as it lies in the output.

    Parameters
    ----------
    path : Path
        Of the map of r.
    entities : dict of str to str
        Of the participant's products in this space.
    space : Space
    sidecar : mapping
        Of the map.
    """

    path: Path
    entities: dict[str, str]
    space: Space
    sidecar: Mapping[str, Any]

    def scores(self, layers: Sequence[str]) -> np.ndarray:
        """R of some layers, shape (layers, voxels)."""
        known = list(self.sidecar["Layers"])
        return np.asarray(self.space.read(self.path)[[known.index(layer) for layer in layers]])


def predicted(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Predict each participant's responses to the stimuli of ``--stimuli-dir``.

    Parameters
    ----------
    study : Study
    loaded : sequence of Outcome
        Not used: the output holds the participants.

    Returns
    -------
    list of Outcome
        Values are the reports' paths.
    """
    there = group_labels(study.config, study.dataset, study.derivatives)
    found = {
        label: {
            network.label: attempt(partial(stored_encodings, study.derivatives, label, network), f"sub-{label}")
            for network, _ in study.networks
        }
        for label in there
    }
    fine = [one.value for each in found.values() for one in each.values() if one.error is None]
    if not fine:
        raise next(one.error for each in found.values() for one in each.values() if one.error is not None)
    stimuli = all_stimuli(study)
    new = [_extracted(study, network, asked, fine, stimuli) for network, asked in study.networks]
    shown = reports.Shown(study.dataset.stimuli_dir, study.config.stimulus_pictures, study.config.interactive_maps)
    outcomes = []
    for label in there:
        name = f"sub-{label}"
        with study.journal.about(name):
            made = attempt(partial(_participant, study, label, found[label], new), name)
            if made.error is not None:
                logger.error("%s: %s", name, describe(made.error))
                study.journal.failed(made)
        report = reports.participant_page(study.derivatives, label, shown)
        study.announce(f"{name}: {report}" if made.error is None else f"{name}: failed; what there is: {report}")
        outcomes.append(Outcome(name, report, made.error, made.traceback))
    return outcomes


def stored_encodings(
    derivatives: Derivatives, label: str, network: Network, *, components: bool = False
) -> list[Encoded]:
    """Find a participant's encoding from a network, in every space that has one; of components where they may be."""
    folder = derivatives.root / f"sub-{label}" / "func"
    maps = sorted(folder.glob("*_stat-pearsonr_desc-encoding_statmap.*"))
    maps = [path for path in maps if path.suffix != ".json" and names.entities_of(path).get("hemi") != "R"]
    own = [path for path in maps if names.entities_of(path).get("model") == network.label]
    if not own:
        others = sorted({names.entities_of(path).get("model", "") for path in maps})
        there = f"; there is one of {', '.join(others)}" if others else ""
        raise MissingInputError(
            f"sub-{label}: {derivatives.root} holds no encoding from {network.label}{there}; run --analysis encoding "
            "first"
        )
    found = []
    for path in own:
        entities = {k: v for k, v in names.entities_of(path).items() if k not in ("model", "stat", "desc", "hemi")}
        hemi = {"hemi": "L"} if "hemi" in names.entities_of(path) else {}
        mask = derivatives.path("mask", MASKS[names.parse(path)["extension"]], **entities, **hemi, desc="brain")
        sidecar = read_json(sidecar_path(path))
        made = sidecar.get("Activations", {}).get(network.label)
        if not made or "EncoderFit" not in sidecar:
            raise DataError(f"{path}: an older version made it, and does not say how; run --analysis encoding again")
        if JOINT in sidecar["Layers"] and JOINT not in network.layers:
            raise ConfigError(
                f"{path.name}: --encoder {sidecar['Encoder']} is one model of several layers, of which no layer's part "
                "is kept; run encoding with one of each layer, as ridge, into another folder"
            )
        if "PCA" in made and not components:
            raise DataError(f"{path}: made from components of all stimuli (--pca); run --analysis encoding without it")
        found.append(Encoded(path, entities, intersection([mask]), sidecar))
    return found


def _extracted(
    study: Study, network: Network, asked: Sequence[str], stored: Sequence[Sequence[Encoded]], stimuli: Stimuli
) -> New:
    """Activations of the layers that were encoded to the new stimuli."""
    config, out = study.config, study.derivatives
    encoded = [one for some in stored for one in some if one.sidecar["Network"] == network.label]
    known = list(dict.fromkeys(layer for one in encoded for layer in one.sidecar["Layers"]))
    layers = list(asked) if config.layer else network.in_order(known)
    for layer in layers:
        if layer not in known:
            raise ConfigError(
                f"--layer {layer}: the encoding from {network.label} has no such layer; {closest(layer, known)}"
            )
    kept = read_json(sidecar_path(activations_path(out, network.label)))
    identity = network_hash(network, reduction_of(config, len(stimuli), network=network, stored=kept))
    for one in encoded:
        if one.sidecar["Activations"][network.label]["NetworkHash"] != identity:
            raise DataError(
                f"{one.path.name}: made with other weights, inputs or reductions than those of {network.label} now; "
                "give the options of that run, or run --analysis encoding again"
            )
    if kept.get("NetworkHash") != identity:
        raise DataError(
            f"{activations_path(out, network.label)}: another run replaced it; run --analysis encoding again"
        )
    own = stimuli.of(network.modality)
    check_room([(network, layers)], own, out, config=config, desc=PREDICT)
    features, content = activations.ensure(network, layers, own, out, config=config, desc=PREDICT)
    return New(network, layers, features, content, identity)


def _participant(study: Study, label: str, found: Mapping[str, Outcome], new: Sequence[New]) -> None:
    """Predict and write, a result a space."""
    failed = next((one.error for one in found.values() if one.error is not None), None)
    if failed is not None:
        raise failed
    by_space: dict[tuple[tuple[str, str], ...], list[tuple[New, Encoded]]] = {}
    for one in new:
        for encoded in found[one.network.label].value:
            by_space.setdefault(tuple(encoded.entities.items()), []).append((one, encoded))
    for pairs in by_space.values():
        _space(study, label, pairs)


def _space(study: Study, label: str, pairs: Sequence[tuple[New, Encoded]]) -> None:
    """Predict from every network in one space, and write."""
    out, config = study.derivatives, study.config
    _, first = pairs[0]
    regions, atlases = atlas_regions(config.atlas, first.space)
    content = digest({
        "atlases": atlases, "layers": [new.layers for new, _ in pairs], "features": [new.content for new, _ in pairs],
        "encodings": [encoded.sidecar["ConfigurationHash"] for _, encoded in pairs],
    })  # fmt: skip
    if out.current(PREDICT, content, **first.entities):
        logger.info("sub-%s: %s is up to date", label, PREDICT)
        return
    y, _ = read_conditions(out, first.space, first.entities)
    if is_series(y.items):
        raise DataError(f"sub-{label}: predictions are of responses to stimuli, not of volumes (--response timeseries)")
    ceiling = first.space.read(condition_map(out, first.space, first.entities, "noiseceiling"))[0]
    maps, tables = [], []
    for new, encoded in pairs:
        r, layer = chosen_layers(out, new, encoded)
        values = predictions(out, new, encoded, y, layer, regions=regions, device=str(torch_device(config.device)))
        network, ids = new.network.label, new.features.ids
        about = {"CandidateLayers": new.layers, "Stimuli": ids, "ActivationsFile": out.uri(_file(out, network))}
        maps += [
            Map("effect", values, network, {
                **about, "VolumeAxis": "stimulus", "Units": "those of the responses in desc-condition",
                "Description": "Predicted response to each of Stimuli, a volume a stimulus",
            }),
            Map("noiseceiling", ceiling, network, {"Description": "Highest r to be expected of the predictions"}),
            Map("pearsonr", r, network, {**about, "Description": "Cross-validated r of the encoder of each voxel"}),
            Map("layer", layer + 1.0, network, {
                **about, "Description": "Layer of each voxel, of CandidateLayers, from 1",
            }),
        ]  # fmt: skip
        tables += _rows(regions, network, ids, values, r, ceiling)
    sidecar = {
        "Methods": METHODS, "Software": software(), "References": ["encoding"],
        "Sources": [out.uri(encoded.path) for _, encoded in pairs], "NumberOfStimuli": len(y),
    }  # fmt: skip
    result = Result(PREDICT, maps=tuple(maps), tables={PREDICT: pd.DataFrame(tables)}, sidecar=sidecar)
    out.save(result, first.space, content, **first.entities)


def _rows(
    regions: Regions, network: str, ids: Sequence[str], values: np.ndarray,
    r: np.ndarray, ceiling: np.ndarray,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row each region and stimulus: mean predicted response, mean r and mean ceiling."""
    usable = np.isfinite(r)
    return [
        {
            "atlas": atlas, "network": network, "region": name, "stimulus_id": stimulus,
            "prediction": mean(row[inside]), "n_voxels": int(inside.sum()), "pearsonr": mean(r[inside]),
            "ceiling": mean(ceiling[inside]),
        }
        for atlas, table in regions.items()
        for name, columns in table.items()
        for inside in [columns & usable]
        for stimulus, row in zip(ids, values, strict=True)
    ]  # fmt: skip


def _file(out: Derivatives, label: str) -> Path:
    return activations_path(out, label, desc=PREDICT)


def chosen_layers(out: Derivatives, new: New, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """R of each voxel's encoder, and which of the candidates is its layer, NaN where none has a score.

    With all layers of the encoding as candidates r is that of the layer chosen in training parts.
    """
    scores = encoded.scores(new.layers)
    known = np.isfinite(scores).any(axis=0)
    layer = np.where(known, winners(np.where(np.isfinite(scores), scores, -np.inf)), np.nan)
    r = np.where(known, np.nanmax(np.where(known, scores, 0), axis=0), np.nan)
    nested = out.image_path(
        "statmap", encoded.space, **encoded.entities, model=new.network.label, stat="pearsonr", desc="bestlayer"
    )
    if set(new.layers) == set(encoded.sidecar["Layers"]) and len(new.layers) > 1 and nested.exists():
        r = encoded.space.read(nested)[0]
    return r, layer


def predictions(
    out: Derivatives, new: New, encoded: Encoded, y: Patterns, layer: np.ndarray, *, regions: Regions, device: str
) -> np.ndarray:
    """Predict each voxel from its layer, shape (new stimuli, voxels); NaN where it has none."""
    path = activations_path(out, new.network.label)
    ids, stored = read_activations(path, new.layers)
    known = Patterns(
        pd.DataFrame({"stimulus_id": ids}),
        tuple(
            Group(name, one, new.network.label, one.unit_shape) for name, one in zip(new.layers, stored, strict=True)
        ),
    )
    weights = out.path("weights", ".h5", **encoded.entities, model=new.network.label, desc="encoding")
    kept = read_json(sidecar_path(weights)).get("ConfigurationHash") == encoded.sidecar["ConfigurationHash"]
    predicted = np.full((len(new.features), len(layer)), np.nan, dtype=np.float32)
    for number, fresh in enumerate(new.features.groups):
        columns = layer == number
        if not columns.any():
            continue
        if kept and weights.exists():
            predicted[:, columns] = from_weights(weights, fresh, known, columns)
        else:
            predicted[:, columns] = refitted(encoded.sidecar, fresh, known, y, columns, regions=regions, device=device)
    return predicted


def from_weights(path: Path, fresh: Group, known: Patterns, columns: np.ndarray) -> np.ndarray:
    """Predict some voxels from weights on the stimuli that were shown."""
    names_ = [f"alpha/{fresh.name}", f"intercept/{fresh.name}"]
    ids, (alpha, intercept) = read_columns_file(path, names_, columns)
    rows = known.select(lambda group: group.name == fresh.name)
    position = pd.Series(np.arange(len(rows)), index=rows.ids)
    products = cross_gram(fresh.values, rows.groups[0].values)[:, position.loc[ids].to_numpy()]
    return np.asarray(products @ alpha + intercept)


def encoder_of(sidecar: Mapping[str, Any], n_voxels: int, *, regions: Regions, device: str) -> Any:
    """Make the encoder of an encoding's sidecar again, ready to be fitted to all stimuli.

    Raises
    ------
    DataError
        If it fits a region's voxels together, and the regions are others.
    """
    fit = sidecar["EncoderFit"]
    together = fitted_together(regions, n_voxels)
    model = build_encoder(
        sidecar["Encoder"], fit["Parameters"],
        n_splits=fit["InnerFolds"], seed=fit["Seed"], device=device, shuffle=fit["Shuffle"], together=together,
    )  # fmt: skip
    if hasattr(model, "among") and fit["Regions"] != {atlas: list(table) for atlas, table in regions.items()}:
        raise DataError(
            f"{sidecar['Encoder']} fits a region's voxels together: give the --atlas of the encoding, with regions "
            f"{fit['Regions']}"
        )
    return model


def refitted(
    sidecar: Mapping[str, Any],
    fresh: Group,
    known: Patterns,
    y: Patterns,
    columns: np.ndarray,
    *,
    regions: Regions,
    device: str,
) -> np.ndarray:
    """Fit the encoder to all stimuli that were shown, and predict some voxels."""
    model = encoder_of(sidecar, len(columns), regions=regions, device=device)
    (group,) = known.select(lambda one: one.name == fresh.name).match(y).groups
    features, rows = features_of(model, group), fresh.values
    # Some models fit all voxels together: they get those of all layers.
    model.fit(features, y.values)
    if taken_by(model, group) == "rotation":
        rows = on_rotation(cross_gram(fresh.values, group.values), features)
    elif taken_by(model, group) == "units":
        rows = np.asarray(fresh.values[:, :], dtype=np.float64)
    return np.asarray(model.predict(rows))[:, columns]
