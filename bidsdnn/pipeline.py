"""The three levels, each a story from input to report.

`dnn` does what needs no brain, `participant` what needs one participant's brain, `group` the rest. A participant that
fails does not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bidsdnn import activations, grouplevel, reports, similarities
from bidsdnn.across_runs import scratch
from bidsdnn.analysed import analyse, of_participant
from bidsdnn.analyses import NEEDS_NETWORK, reliability
from bidsdnn.bids import names
from bidsdnn.bids.atlases import atlas_descriptions, atlas_regions
from bidsdnn.bids.columns import read_columns
from bidsdnn.bids.dataset import Dataset
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.dnnbrain import folder_of, read_stim
from bidsdnn.bids.events import read_id_map
from bidsdnn.bids.files import digest
from bidsdnn.bids.people import read_people
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.brainlayer import probe_brain
from bidsdnn.checking import check_configuration, is_probe
from bidsdnn.citations import write_citations
from bidsdnn.config import Config
from bidsdnn.encoding.memory import in_file
from bidsdnn.encoding.prediction import PREDICT
from bidsdnn.errors import DatasetError, MissingInputError, SelectionError
from bidsdnn.features import beside
from bidsdnn.groupmodels import group_models
from bidsdnn.inside import probe_all, units_of
from bidsdnn.journal import Journal, early_records, timed
from bidsdnn.measured import Measured, measured
from bidsdnn.parallel import Outcome, attempt, describe, seed_for, workers
from bidsdnn.patterns import Patterns
from bidsdnn.plan import check_encoding, describe_plan
from bidsdnn.predicted import predicted
from bidsdnn.published import group_labels, published
from bidsdnn.study import (
    Participant,
    Study,
    all_stimuli,
    extract,
    extract_stimuli,
    jobs,
    load_participants,
    notes,
    open_study_dataset,
    presented_stimuli,
    reference_stimuli,
    shown_stimuli,
)
from bidsdnn.trials import residuals_of, trials

logger = logging.getLogger(__name__)


def run(config: Config, *, command: str, announce: Callable[[str], None]) -> list[Outcome]:
    """Do what was asked.

    Whatever can be refused without computing is refused before the first file is written.

    Parameters
    ----------
    config : Config
    command : str
        The command line, for the log.
    announce : callable
        Takes a line about what is finished.

    Returns
    -------
    list of Outcome
        One a participant, or one for the other levels; values are the reports' paths.

    Raises
    ------
    BidsdnnError
        If nothing could be started.
    """
    with early_records() as early:
        check_configuration(config)
        dataset = open_study_dataset(config)
        derivatives = Derivatives(config.out_dir, {"raw": dataset.root, **dataset.derivatives})
        if config.reports_only and not config.dry_run:
            return _rebuild(config, derivatives, dataset, announce)
        id_map = read_id_map(config.stimulus_id_map) if config.stimulus_id_map else {}
        index = StimulusIndex(config.stimuli_dir or dataset.stimuli_dir, id_map=id_map)
        reference = partial(reference_stimuli, config, index)
        networks = activations.build_networks(config, stimuli=reference) if config.analysis_level != "group" else []
        units_of(config, networks)
        # At the dnn level the events say what was shown, unless a .stim.csv does; probes look at any folder's.
        own = config.stim_csv or (
            config.stimuli_dir if any(is_probe(config, name) for name in config.analysis) else None
        )
        listed = config.analysis_level == "dnn" and own is not None
        predicts = config.analysis == (PREDICT,)
        reads_brains = config.analysis_level != "group" and not config.rdm and not listed and not predicts
        loaded = load_participants(config, dataset, index) if reads_brains else []
        if config.analysis_level != "group" and loaded and all(one.error is not None for one in loaded):
            # A selection that fits nothing is about the command, all else about the participants.
            about_them = not all(isinstance(one.error, SelectionError) for one in loaded)
            if config.analysis_level == "participant" and about_them and not config.dry_run:
                _report_failures(config, derivatives, dataset, loaded, command, early)
            raise loaded[0].error  # type: ignore[misc]
        n_workers = jobs(config, [one.value.runs for one in loaded if one.value is not None])
        if config.analysis_level == "participant":
            check_encoding(config, loaded)
        if config.dry_run:
            announce(describe_plan(config, dataset, networks, loaded, n_workers))
            return []
    journal = Journal(config.out_dir, command)
    with journal.open(config, early), workers(n_workers, folder=config.work_dir) as map:
        derivatives.start(dataset.description)
        study = Study(config, dataset, derivatives, networks, index, journal, announce, map)
        level = LEVELS[config.analysis_level]
        if config.analysis_level == "participant":
            level = predicted if predicts else published if config.rdm else level
        outcomes = level(study, loaded)
        write_citations(derivatives)
    # The page over all reports tells how long this run took.
    reports.index_page(derivatives)
    return outcomes


def _report_failures(
    config: Config, derivatives: Derivatives, dataset: Dataset, loaded: Sequence[Outcome], command: str,
    early: Sequence[logging.LogRecord],
) -> None:  # fmt: skip
    """Where none of the participants could be loaded, say in the report of each what was wrong with it."""
    journal = Journal(config.out_dir, command)
    with journal.open(config, early):
        derivatives.start(dataset.description)
        for one in loaded:
            with journal.about(one.name):
                logger.error("%s: %s", one.name, describe(one.error))  # type: ignore[arg-type]
                journal.failed(one)
            reports.participant_page(derivatives, one.name.removeprefix("sub-"))
    reports.index_page(derivatives)


def _rebuild(
    config: Config, derivatives: Derivatives, dataset: Dataset, announce: Callable[[str], None]
) -> list[Outcome]:
    """Write reports anew from what is on disk."""
    if not (config.out_dir / "dataset_description.json").exists():
        raise MissingInputError(f"{config.out_dir}: no results to report; run without --reports-only first")
    if config.analysis_level == "dnn":
        announce(f"dnn: {reports.dnn_page(derivatives)}")
        announce(f"index: {reports.index_page(derivatives)}")
        return []
    root = dataset.stimuli_dir if config.stimuli_dir is None else config.stimuli_dir
    root = folder_of(root, read_stim(root)) if config.stim_csv else root
    shown = reports.Shown(root, config.stimulus_pictures, config.interactive_maps)
    if config.analysis_level == "group":
        announce(f"group: {reports.group_page(derivatives, shown)}")
        announce(f"index: {reports.index_page(derivatives)}")
        return []
    there = [
        label for label in group_labels(config, dataset, derivatives) if (config.out_dir / f"sub-{label}").is_dir()
    ]
    if not there:
        raise MissingInputError(
            f"{config.out_dir}: none of the participants has results; run without --reports-only first"
        )
    for label in there:
        announce(f"sub-{label}: {reports.participant_page(derivatives, label, shown)}")
    announce(f"index: {reports.index_page(derivatives)}")
    return []


def dnn(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Extract activations to the stimuli, and compute the layers' RDMs; or probe the networks, where that was asked.

    Without events, every picture of the stimuli folder is taken; of a ``.stim.csv`` in any case.

    Parameters
    ----------
    study : Study
    loaded : sequence of Outcome
        Of `load_participants`.

    Returns
    -------
    list of Outcome
    """
    for one in loaded:
        if one.error is not None:
            logger.warning("%s: left out: %s", one.name, describe(one.error))
    shown = [one.value for one in loaded if one.error is None]
    probes = [name for name in study.config.analysis if is_probe(study.config, name)]
    if not shown:
        logger.info("all pictures of %s are taken", study.config.stim_csv or study.index.root)
    with study.journal.about("dnn"):
        if probes:
            stimuli, counts = presented_stimuli(study, shown) if shown else (all_stimuli(study), {})
            activations.write_manifest(stimuli, counts, study.derivatives)
            events = [table for one in shown for table in one.shown.events.values()]
            probe_all(study, probes, stimuli, events=events)
        elif shown:
            extract(study, shown)
        else:
            extract_stimuli(study, all_stimuli(study), {})
    made = reports.dnn_page(study.derivatives) if probes else study.derivatives.root / "stimuli"
    study.announce(f"dnn: {made}")
    return [Outcome("dnn", value=made), *(one for one in loaded if one.error is not None)]


def participants(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Analyse each participant and write the report; one that fails does not stop the others.

    Parameters
    ----------
    study : Study
    loaded : sequence of Outcome
        Of `load_participants`.

    Returns
    -------
    list of Outcome
        Values are the reports' paths.
    """
    outcomes: list[Outcome] = []
    for one, theirs in zip(loaded, _features(study, loaded), strict=True):
        label = one.name.removeprefix("sub-")
        with study.journal.about(one.name):
            failed = next((part for part in (one, theirs) if part.error is not None), None)
            outcome = failed or attempt(partial(participant, study, one.value, theirs.value), one.name)
            if outcome.error is not None:
                logger.error("%s: %s", one.name, describe(outcome.error))
                study.journal.failed(outcome)
        report = reports.participant_page(study.derivatives, label, study.shown)
        study.announce(
            f"{one.name}: {report}" if outcome.error is None else f"{one.name}: failed; what there is: {report}"
        )
        outcomes.append(replace(outcome, value=report))
        if outcome.error is not None and study.config.stop_on_first_crash:
            break
    return outcomes


def _features(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Activations for each participant; a stimulus that cannot be used fails those only who saw it."""
    fine = [one for one in loaded if one.error is None]
    with timed("activations of the networks"):
        together = attempt(lambda: extract(study, [one.value for one in fine]), "")
    if together.error is None:
        return [replace(together, name=one.name) for one in loaded]
    if len(fine) == 1 or not isinstance(together.error, DatasetError):
        raise together.error
    each = [one if one.error else attempt(partial(extract, study, [one.value]), one.name) for one in loaded]
    if all(one.error is not None for one in each):
        raise together.error
    return each


def participant(study: Study, one: Participant, features: Sequence[tuple[Patterns, str]]) -> None:
    """Estimate one participant's responses and relate them to the networks.

    Parameters
    ----------
    study : Study
    one : Participant
    features : sequence of (Patterns, str)
        Activations of each network, and the hash of what they depend on.
    """
    left_out = notes(study.config, one)
    with timed(f"sub-{one.label}: all of it"), scratch(study.config.work_dir) as folder:
        with timed(f"sub-{one.label}: responses"):
            found = measured(study, one, left_out)
        # Many responses wait in a file while they are analysed; nothing else holds them.
        found = replace(found, brain=in_file(found.brain, folder))
        _related(study, one, features, found, left_out)


def _related(
    study: Study, one: Participant, features: Sequence[tuple[Patterns, str]], found: Measured, left_out: Sequence[str]
) -> None:
    """Relate responses to the networks, analysis by analysis."""
    config, out = study.config, study.derivatives
    brain, reliable, entities, space = found.brain, found.reliability, found.entities, found.brain.space
    for warning in dict.fromkeys([*found.warnings, *left_out]):
        logger.warning("sub-%s: %s", one.label, warning)

    regions, atlases = atlas_regions(config.atlas, space)
    content = digest({"responses": found.content, "atlases": atlases})
    described = atlas_descriptions(config.atlas)
    for label, table in regions.items() if config.atlas else ():
        if not out.current(f"atlas{names.label(label)}", content, **entities):
            written = out.write_atlas(label, table, space, about=described[label], **entities)
            out.write_receipt(f"atlas{names.label(label)}", written, {"ConfigurationHash": content}, **entities)
    if not out.current("reliability", content, **entities):
        out.save(reliability(brain, reliable, regions=regions), space, content, **entities)

    brain, features = beside(config, found.tasks, brain, features)
    matched = [table.match(brain).groups for table, _ in features]
    x = Patterns(brain.items, [group for groups in matched for group in groups]) if matched else None
    events = [task.events for task in found.tasks]
    columns = read_columns(config.columns, index=study.index, events=events, sub=one.label)
    scheme = config.cross_validation
    split = {scheme.column: scheme.file} if scheme.kind == "column" else {}
    parts = read_columns(split, index=study.index, events=events, sub=one.label, flag="--cv column:")
    targets = read_columns(config.targets, index=study.index, events=events, sub=one.label, flag="--target ")
    single = trials(found.tasks)
    more = {
        "trials": single, "residuals": residuals_of(single), "columns": columns, "targets": targets,
        "iterate": config.iterate, "stimuli": shown_stimuli(one.shown, study.index.root),
        "parts": parts.get(scheme.column),
    }  # fmt: skip
    to = of_participant(study, brain.space, entities)
    for name in config.analysis:
        if not is_probe(config, name) and (x is not None or name not in NEEDS_NETWORK):
            with timed(f"sub-{one.label}: {name}"):
                analyse(
                    study, name, x, brain, regions, ceiling=np.sqrt(np.clip(reliable, 0, None)),
                    content=digest({"y": content, "x": [made for _, made in features]}), to=to, more=more,
                )  # fmt: skip
    probes = [name for name in config.analysis if is_probe(config, name)]
    if probes:
        with timed(f"sub-{one.label}: {', '.join(probes)}"):
            probe_brain(study, one, probes, entities)


def group(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Test participants' results over participants, fit the models of ``--group-model``, and write the group's report.

    Parameters
    ----------
    study : Study
    loaded : sequence of Outcome
        Not used: this level reads the output.

    Returns
    -------
    list of Outcome
    """
    config = study.config
    labels = group_labels(config, study.dataset, study.derivatives)
    with study.journal.about("group"):
        with timed("tests over participants"):
            grouplevel.group(
                study.derivatives,
                labels,
                permutations=config.permutations,
                seed=seed_for(config.random_seed, "group"),
                map=study.map,
                tfce=config.tfce,
                announce=study.announce,
                people=read_people(study.dataset.root, labels, config.covariate, config.group_column),
            )
        with timed("geometries of participants"):
            similarities.people(study.derivatives, labels, comparisons=config.rdm_comparison)
            similarities.average(study.derivatives, labels)
        with timed("models of the group"):
            models = attempt(partial(group_models, study, labels), "--group-model")
        if models.error is not None:
            logger.error("%s: %s", models.name, describe(models.error))
            study.journal.failed(models)
    report = reports.group_page(study.derivatives, study.shown)
    study.announce(f"group: {report}")
    return [Outcome("group", value=report), *([models] if models.error is not None else [])]


LEVELS: dict[str, Callable[[Study, Sequence[Outcome]], list[Outcome]]] = {
    "dnn": dnn, "participant": participants, "group": group,
}  # fmt: skip
