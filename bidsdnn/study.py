"""What a run works on, found and checked before anything is computed or written."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn import activations
from bidsdnn.analyses import ANALYSES, NEEDS_NETWORK
from bidsdnn.bids.columns import check_table
from bidsdnn.bids.confounds import STRATEGIES, known_strategy
from bidsdnn.bids.dataset import Dataset, Run, open_dataset
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.events import choose_stimulus_column, edit_events, read_events
from bidsdnn.bids.files import read_json
from bidsdnn.bids.filters import bids_filters, event_filter
from bidsdnn.bids.meshes import Meshes
from bidsdnn.bids.names import require
from bidsdnn.bids.shown import Presented, presented, require_files
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.clips import all_readable, cut, known_contents, stimuli_of
from bidsdnn.components import components
from bidsdnn.computed import computed_features
from bidsdnn.config import Config
from bidsdnn.config_tables import CrossValidation
from bidsdnn.encoding.models import check_encoder
from bidsdnn.errors import ConfigError
from bidsdnn.extraction import check_room, reduction_of
from bidsdnn.features import check_features
from bidsdnn.geometry import METRICS, is_own
from bidsdnn.geometry import check as check_rsa
from bidsdnn.journal import Journal, software
from bidsdnn.lookup import bind, closest, resolve
from bidsdnn.methods.responses import HRFS
from bidsdnn.networks.controls import MODALITIES
from bidsdnn.networks.extract import device as torch_device
from bidsdnn.networks.inputs import require_modality
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Map, Outcome, attempt, available_cpus
from bidsdnn.patterns import Patterns
from bidsdnn.plan import run_memory_mb
from bidsdnn.precomputed import NAME as PRECOMPUTED
from bidsdnn.precomputed import Precomputed, find_responses
from bidsdnn.recordings import Estimation
from bidsdnn.reports import Shown
from bidsdnn.responses import ESTIMATORS
from bidsdnn.searchlights import check_parameters
from bidsdnn.stimuli import Stimuli, readable

logger = logging.getLogger(__name__)

SUPPLIED = (
    "regions", "permutations", "seed", "map", "device", "metric", "comparisons", "trials", "residuals", "columns",
    "stimuli", "iterate", "radius", "ceiling", "encoder", "encoder_parameters", "cv", "parts",
)  # fmt: skip
"""What the program itself passes to an analysis that takes it."""

SUPPLIED_TO_RESPONSES = ("frame_times", "nuisance", "hrf", "noise", "device", "sessions")
"""What the program itself passes to an estimator that takes it."""


@dataclass(frozen=True, eq=False)
class Participant:
    """One participant's input: the recordings, and what they show."""

    label: str
    runs: Sequence[Run]
    shown: Presented
    column: str
    precomputed: Precomputed | None = None


@dataclass(frozen=True, eq=False)
class Study:
    """What all participants share: the input, the output, the networks and how work is spread."""

    config: Config
    dataset: Dataset
    derivatives: Derivatives
    networks: Sequence[tuple[Network, list[str]]]
    index: StimulusIndex
    journal: Journal
    announce: Callable[[str], None]
    map: Map

    @property
    def shown(self) -> Shown:
        """What reports may show of the stimuli."""
        return Shown(self.index.root, self.config.stimulus_pictures)


def check_configuration(config: Config) -> None:
    """Check names, parameters, atlases, device and output before any data is read.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError, MissingInputError
        If one of them cannot be used.
    """
    if config.analysis_level == "dnn" and not config.networks and not config.computed_features:
        raise ConfigError(
            "--network none: the dnn level computes activations; name a network, or --features to compute"
        )
    torch_device(config.device)
    reduction_of(config, 1)
    for path in (*config.atlas, *config.mesh):
        require(path)
    there = read_json(config.out_dir / "dataset_description.json") if config.out_dir.is_dir() else {}
    if there and not any(one.get("Name") == "bidsdnn" for one in there.get("GeneratedBy", [])):
        raise ConfigError(f"out_dir {config.out_dir} holds another dataset ({there.get('Name')}); choose a new folder")
    for name in config.analysis:
        bind(resolve(name, ANALYSES), config.parameters.get(name, {}), name=f"analysis {name}", given=SUPPLIED)
    check_parameters(**config.parameters.get("searchlight", {}))
    check_response(config)
    check_encoder(config.encoder, config.parameters.get(config.encoder, {}))
    for name in ("rsa", "similarity"):
        check_rsa(config.rdm_metric, config.rdm_comparison, config.iterate, config.parameters.get(name, {}))
    if "searchlight" in config.analysis:
        for flag, name in (("metric", config.rdm_metric), ("comparison", config.rdm_comparison[0])):
            if is_own(name):
                raise ConfigError(
                    f"--rdm-{flag} {name}: --analysis searchlight takes bidsdnn's own, which are fast enough for a "
                    f"brain; choose one of `bidsdnn --list {'dis' * (flag == 'metric')}similarities`, or leave it out"
                )
    if "searchlight" in config.analysis and config.rdm_metric not in METRICS:
        raise ConfigError(
            f"--rdm-metric {config.rdm_metric}: --analysis searchlight has no single trials; choose one of "
            f"{', '.join(METRICS)}, or leave out the searchlight"
        )
    for column, table in config.columns.items():
        if table is not None:
            check_table(column, table)
    scheme = CrossValidation.parse(config.cv)
    if scheme.file is not None:
        check_table(scheme.column, scheme.file, flag="--cv column:")
    check_features(config)
    for name in config.parameters:
        if name not in (*config.analysis, config.response, config.encoder):
            raise ConfigError(
                f"parameters.{name}: this was not asked for; add it to --analysis, or choose it with --response "
                "or --encoder"
            )


def check_response(config: Config) -> None:
    """Check the estimator of responses, its parameters and its models of response and noise."""
    for path in (config.stimulus_id_map,) if config.stimulus_id_map else ():
        require(path)
    if config.response == PRECOMPUTED:
        return
    estimator = resolve(config.response, {**ESTIMATORS, PRECOMPUTED: None})
    bind(
        estimator, config.parameters.get(config.response, {}),
        name=f"response {config.response}", given=SUPPLIED_TO_RESPONSES,
    )  # fmt: skip
    taken = inspect.signature(estimator).parameters
    # The mean over a window takes the parameter, and no value but ols.
    if config.noise != "ols" and ("noise" not in taken or config.response == "window"):
        raise ConfigError(f"--noise {config.noise}: {config.response} has no model of the noise; use --noise ols")
    for name in config.confounds:
        # No column has the name of a strategy with another number.
        if name.partition("-")[0] in {known.partition("-")[0] for known in STRATEGIES} and not known_strategy(name):
            raise ConfigError(f"--confounds {name}: no such strategy; {closest(name, STRATEGIES)}")
    if config.hrf == "library" and config.response != "glmsingle":
        raise ConfigError(f"--hrf library: {config.response} has one response for all voxels; use --response glmsingle")
    resolve(config.hrf, {name: name for name in (*HRFS, "library")})


def estimation_of(config: Config) -> Estimation:
    """What a configuration says of the estimation of responses."""
    own = config.parameters.get(config.response, {})
    if config.response == "timeseries":
        # The others are for the features that meet the responses, and change no response.
        own = {key: value for key, value in own.items() if key in ("trim", "repeats")}
    return Estimation(
        config.response, config.hrf, config.noise, config.high_pass, config.confounds, config.fd_threshold,
        config.dummy_scans, config.smoothing, config.standardize, own,
    )  # fmt: skip


def open_study_dataset(config: Config) -> Dataset:
    """Open the dataset that a configuration names."""
    return open_dataset(
        config.bids_dir, derivatives=config.derivatives or None,
        participants=() if config.rdm else config.participant_label,
        sessions=config.session_label, tasks=config.task_id, runs=config.run_label, space=config.space,
        filters=bids_filters(config.bids_filter_file) if config.bids_filter_file else {},
        database_dir=config.bids_database_dir, raw_bold=config.raw_bold, slice_time_ref=config.slice_time_ref,
        validate=not config.skip_bids_validation,
        brains=config.analysis_level != "dnn" and not config.rdm,
    )  # fmt: skip


def load_participants(config: Config, dataset: Dataset, index: StimulusIndex) -> list[Outcome]:
    """Find each participant's recordings and read what they show.

    Parameters
    ----------
    config : Config
    dataset : Dataset
    index : StimulusIndex

    Returns
    -------
    list of Outcome
        Values are `Participant`; at the dnn level, which needs no recordings, without runs.
    """
    if config.response == PRECOMPUTED:
        found = partial(_precomputed, config, dataset, index)
        return [attempt(partial(found, label), f"sub-{label}") for label in dataset.participants]
    tables: dict[str, Outcome] = {}
    for label in dataset.participants:
        tables[label] = attempt(partial(_events, config, dataset, label), f"sub-{label}")
    read = {path: table for one in tables.values() if one.error is None for path, table in one.value[1].items()}
    if not read:
        return [one for one in tables.values() if one.error is not None]
    edited = edit_events(read, config.events)
    column = choose_stimulus_column(edited.values(), index, asked=config.stimulus_column)
    keep = event_filter(config.event_filter) if config.event_filter else None

    shown = partial(presented, index=index, column=column, keep=keep, tables=edited)

    def load(label: str) -> Participant:
        runs, events = tables[label].value
        paths = [run.events for run in runs if run.events is not None] if runs else list(events)
        found = shown(paths)
        return Participant(
            label, runs, cut(found, config.clip_duration, index.root) if config.clip_duration else found, column
        )

    loaded = [
        one if one.error is not None else attempt(partial(load, label), one.name) for label, one in tables.items()
    ]
    return all_readable(config, loaded, index.root) if config.networks or config.computed_features else loaded


def _precomputed(config: Config, dataset: Dataset, index: StimulusIndex, label: str) -> Participant:
    """A participant whose responses were estimated elsewhere: neither recordings nor events are needed."""
    found, shown = find_responses(config, dataset, label, index)
    return Participant(label, [], shown, "stim_id", found)


def _events(config: Config, dataset: Dataset, label: str) -> tuple[list[Run], dict[Path, pd.DataFrame]]:
    if config.analysis_level == "dnn":
        return [], {path: read_events(path) for path in dataset.event_files(label)}
    runs = dataset.runs(label)
    return runs, {run.events: read_events(run.events) for run in runs if run.events is not None}


def jobs(config: Config, runs: Sequence[Sequence[Run]]) -> int:
    """How many pieces of work may run at once, by processors and by memory.

    Parameters
    ----------
    config : Config
    runs : sequence of sequence of Run
        By participant.

    Returns
    -------
    int

    Raises
    ------
    ConfigError
        If a single run does not fit ``--mem-mb``.
    """
    n = max(1, (config.nprocs or available_cpus()) // config.omp_nthreads)
    if config.mem_mb is None or not any(runs):
        return n
    needed = max(run_memory_mb(run) for some in runs for run in some)
    if needed > config.mem_mb:
        raise ConfigError(
            f"--mem-mb {config.mem_mb}: one run needs about {needed:.0f} MB; give more, or a coarser --space"
        )
    return max(1, min(n, int(config.mem_mb / needed)))


def about(study: Study, one: Participant, left_out: Sequence[str], meshes: Meshes) -> dict[str, Any]:
    """What a reader of the responses needs to know of their origin."""
    # The space of a recording says which anatomy fits; precomputed responses come without.
    anatomy = study.dataset.anatomy(one.label) if one.precomputed is None else None
    drawn = {
        name: [study.derivatives.uri(path) for path in pair]
        for name, pair in (("Mesh", meshes.folded), ("InflatedMesh", meshes.inflated)) if pair
    }  # fmt: skip
    return {
        "Anatomy": study.derivatives.uri(anatomy) if anatomy else None,
        **drawn,
        "StimulusColumn": one.column,
        "StimuliFound": int(one.shown.stimuli["present"].sum()),
        "StimuliMissing": int((~one.shown.stimuli["present"].astype(bool)).sum()),
        "EventFilter": study.config.event_filter,
        "EventEdits": study.config.events.model_dump(exclude_defaults=True),
        "Notes": list(left_out),
        "Software": software(),
    }


def notes(config: Config, one: Participant) -> list[str]:
    """What was left out, in sentences for the report."""
    if config.networks or config.features or config.computed_features:
        return []
    left_out = [name for name in config.analysis if name in NEEDS_NETWORK]
    return [
        "No network was asked for (--network none): "
        + (f"{', '.join(left_out)} and " if left_out else "")
        + f"the comparison with layers {'were' if left_out else 'was'} left out."
        + (f" Of {len(one.shown.stimuli)} stimuli, {len(one.shown.missing)} have no file." if one.shown.missing else "")
    ]


def all_stimuli(study: Study) -> Stimuli:
    """Every stimulus of the folder or ``.stim.csv`` that the networks or features take, or its clips, with hashes."""
    config = study.config
    kinds = {network.modality for network, _ in study.networks}
    kinds |= {kind for name in config.computed_features for kind in MODALITIES[name]}
    stimuli = replace(study.index.pictures(kinds or {"image"}), mono=config.mono).with_hashes()
    stimuli, skipped = readable(stimuli, skip=config.skip_unreadable, known=known_contents(study.derivatives.root))
    for said in skipped:
        logger.warning("left out: %s", said)
    return stimuli.cut(config.clip_duration).with_hashes() if config.clip_duration else stimuli


def extract(study: Study, shown: Sequence[Participant]) -> list[tuple[Patterns, str]]:
    """Activations to everything that some participants saw, read or computed.

    Parameters
    ----------
    study : Study
    shown : sequence of Participant

    Returns
    -------
    list of (Patterns, str)
        By network, with a hash of the network, its layers and their stimuli.

    Raises
    ------
    MissingInputError
        If a stimulus has no file.
    """
    if not study.networks and not study.config.computed_features:
        return []
    for one in shown:
        require_files(one.shown, root=study.index.root)
    table = pd.concat([one.shown.stimuli for one in shown])
    counts = table.groupby("stimulus_id")["n_presentations"].sum().to_dict()
    table = table.drop_duplicates("stimulus_id").sort_values("stimulus_id", ignore_index=True)
    stimuli = stimuli_of(table, study.index.root, mono=study.config.mono).with_hashes()
    return extract_stimuli(study, stimuli, counts)


def shown_stimuli(shown: Presented, root: Path) -> Stimuli | None:
    """What was shown, without hashes; None if a file is not there, or some are no pictures."""
    if shown.missing or shown.datalad or set(shown.stimuli["modality"]) != {"image"}:
        return None
    return stimuli_of(shown.stimuli, root)


def extract_stimuli(study: Study, stimuli: Stimuli, counts: Mapping[str, int]) -> list[tuple[Patterns, str]]:
    """Activations to some stimuli, and the layers' RDMs; as `extract`.

    Parameters
    ----------
    study : Study
    stimuli : Stimuli
        With hashes.
    counts : mapping of str to int
        How often each was presented; empty for stimuli of a folder, of which each network takes its kind.

    Returns
    -------
    list of (Patterns, str)
    """
    check_room(study.networks, stimuli, study.derivatives, config=study.config)
    activations.write_manifest(stimuli, counts, study.derivatives)
    made = []
    for network, layers in study.networks:
        own = stimuli if counts else stimuli.of(network.modality)
        require_modality(network, own)
        features, content = activations.ensure(network, layers, own, study.derivatives, config=study.config)
        activations.write_rdms(network, study.derivatives, config=study.config, map=study.map)
        given = (features, content, network, own.ids, study.derivatives)
        made.append(components(*given, config=study.config, map=study.map))
        logger.info("%s: activations of %d layers to %d stimuli", network.label, len(layers), len(own))
    for name in study.config.computed_features:
        own = stimuli if counts else stimuli.of(*MODALITIES[name])
        made += computed_features([name], own, study.derivatives, config=study.config)
    return made
