"""What a run works on, found and checked before anything is computed or written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn import activations
from bidsdnn.analyses import NEEDS_NETWORK
from bidsdnn.bids.dataset import Dataset, Run, open_dataset
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.events import choose_stimulus_column, edit_events, read_events
from bidsdnn.bids.filters import bids_filters, event_filter
from bidsdnn.bids.meshes import Meshes
from bidsdnn.bids.shown import Presented, presented, require_files
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.clips import all_readable, cut, known_contents, stimuli_of
from bidsdnn.components import components
from bidsdnn.computed import computed_features
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError
from bidsdnn.extraction import check_room
from bidsdnn.features import covered, moments, sample_seconds
from bidsdnn.journal import Journal, software
from bidsdnn.networks.controls import MODALITIES
from bidsdnn.networks.inputs import require_modality
from bidsdnn.networks.network import Network
from bidsdnn.networks.surgery import MOST_FOR_MEAN, spaced
from bidsdnn.parallel import Map, Outcome, attempt, available_cpus
from bidsdnn.patterns import Patterns
from bidsdnn.plan import run_memory_mb
from bidsdnn.precomputed import NAME as PRECOMPUTED
from bidsdnn.precomputed import Precomputed, find_responses
from bidsdnn.recordings import Estimation
from bidsdnn.reports import Shown
from bidsdnn.stimuli import LENGTHS, Stimuli, readable

logger = logging.getLogger(__name__)


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
        return Shown(self.index.root, self.config.stimulus_pictures, self.config.interactive_maps)


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
        return covered(config, [attempt(partial(found, label), f"sub-{label}") for label in dataset.participants])
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
        if config.clip_duration and config.response != "timeseries":
            found = cut(found, config.clip_duration, index.root)
        return Participant(label, runs, found, column)

    loaded = [
        one if one.error is not None else attempt(partial(load, label), one.name) for label, one in tables.items()
    ]
    if config.networks or config.computed_features:
        loaded = all_readable(config, loaded, index.root)
    return covered(config, loaded) if config.analysis_level == "participant" else loaded


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
    gone = one.shown.skipped
    unread = [
        f"{len(gone)} {'stimulus' if len(gone) == 1 else 'stimuli'} that could not be read left out with their trials, "
        f"as --skip-unreadable asks: {', '.join(gone[:10])}{', ...' if len(gone) > 10 else ''}."
    ]
    if config.networks or config.features or config.computed_features:
        return unread if gone else []
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


def reference_stimuli(config: Config, index: StimulusIndex, kind: str) -> Stimuli:
    """At most 256 stimuli of one kind in the folder, at even spacing, with hashes: the same for all participants.

    Parameters
    ----------
    config : Config
    index : StimulusIndex
    kind : str
        A row of `bidsdnn.stimuli.LOADERS`.

    Returns
    -------
    Stimuli
    """
    stimuli = spaced(replace(index.pictures([kind]), mono=config.mono), MOST_FOR_MEAN).with_hashes()
    stimuli, _ = readable(stimuli, skip=config.skip_unreadable, known=known_contents(config.out_dir))
    return stimuli


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
    stimuli, counts = presented_stimuli(study, shown)
    if study.config.response == "timeseries" and not study.networks:
        return _series(study, stimuli)
    return extract_stimuli(study, stimuli, counts)


def presented_stimuli(study: Study, shown: Sequence[Participant]) -> tuple[Stimuli, dict[str, int]]:
    """Everything that some participants saw, with hashes, and how often each was shown.

    Parameters
    ----------
    study : Study
    shown : sequence of Participant

    Returns
    -------
    stimuli : Stimuli
    counts : dict of str to int

    Raises
    ------
    MissingInputError
        If a stimulus has no file.
    """
    for one in shown:
        require_files(one.shown, root=study.index.root)
    table = pd.concat([one.shown.stimuli for one in shown])
    counts = table.groupby("stimulus_id")["n_presentations"].sum().to_dict()
    table = table.drop_duplicates("stimulus_id").sort_values("stimulus_id", ignore_index=True)
    stimuli = stimuli_of(table, study.index.root, mono=study.config.mono).with_hashes()
    left_out = tuple(dict.fromkeys(name for one in shown for name in one.shown.skipped))
    return replace(stimuli, left_out=left_out), counts


def _series(study: Study, stimuli: Stimuli) -> list[tuple[Patterns, str]]:
    """Features of the moments of movies and sounds."""
    other = stimuli.table[~stimuli.table["modality"].isin(list(LENGTHS))]
    if len(other):
        raise ConfigError(
            f"--features {study.config.computed_features[0]}: {other['stimulus_id'].iloc[0]} is no film or sound, of "
            "which --response timeseries has moments; use another --response, or --event-filter"
        )
    clips = stimuli.cut(sample_seconds(study.config), to_end=True).with_hashes()
    counts = dict.fromkeys(clips.ids, 1)
    return [(moments(table, clips), content) for table, content in extract_stimuli(study, clips, counts)]


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
