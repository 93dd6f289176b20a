"""RSA with RDMs that others measured, without any brain data: each file a region, its first axis the participants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bidsdnn import reports
from bidsdnn.bids.columns import read_columns
from bidsdnn.bids.dataset import Dataset
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest
from bidsdnn.bids.rdms import count_stimuli, name_stimuli, read_people, reordered
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError, DataError, SelectionError
from bidsdnn.geometry import METRICS, compare, is_own, own_sources
from bidsdnn.journal import software
from bidsdnn.parallel import Outcome, seed_for
from bidsdnn.patterns import Patterns
from bidsdnn.stimuli import Stimuli, file_sha256
from bidsdnn.study import Study, all_stimuli, extract_stimuli

logger = logging.getLogger(__name__)

OF_BRAINS = ("folds", "noise", "shrinkage", "store_covariance", "by")
"""Parameters of RSA that say how brains are measured."""


@dataclass(frozen=True, eq=False)
class Published:
    """RDMs of several participants and regions over the same stimuli.

    Parameters
    ----------
    ids : list of str
        Stimuli.
    people : mapping of str to mapping of str to ndarray, shape (pairs,)
        By participant's label and region.
    content : str
        Hash of the files.
    """

    ids: list[str]
    people: Mapping[str, Mapping[str, np.ndarray]]
    content: str


def read_published(config: Config, known: Sequence[str]) -> Published:
    """Read the files of ``--rdm``.

    Parameters
    ----------
    config : Config
    known : sequence of str
        Stimuli of the stimuli folder or ``.stim.csv``.

    Returns
    -------
    Published

    Raises
    ------
    DataError
        If the files are about different stimuli, or an RDM has gaps.
    SelectionError
        If none of the asked participants is in them.
    """
    shared: list[str] | None = None
    people: dict[str, dict[str, np.ndarray]] = {}
    for region, path in config.rdm.items():
        ids, rdms = read_people(path, region=region)
        named = name_stimuli(ids, count_stimuli(rdms.shape[1], path), known, path)
        if ids is None:
            order = "the folder in sorted order" if config.stim_csv is None else f"{config.stim_csv.name} in its order"
            logger.warning("%s: holds no names; its stimuli are taken to be those of %s", path, order)
        shared = shared or named
        if sorted(named) != sorted(shared):
            raise DataError(f"--rdm {path}: other stimuli than the first file; give one set for all")
        rdms = reordered(rdms, named, shared)
        for number, rdm in enumerate(rdms, start=1):
            people.setdefault(f"{number:02d}", {})[region] = rdm
    assert shared is not None
    if config.participant_label:
        chosen = {label: people[label] for label in config.participant_label if label in people}
        if not chosen:
            raise SelectionError(f"--participant-label: none is in the files of --rdm; they hold {', '.join(people)}")
        people = chosen
    content = digest({region: file_sha256(path) for region, path in config.rdm.items()})
    return Published(shared, people, content)


def compare_published(
    study: Study, features: Sequence[tuple[Patterns, str]], stimuli: Stimuli, found: Published, label: str
) -> None:
    """Compare the layers with one participant's RDMs and write the result.

    Parameters
    ----------
    study : Study
    features : sequence of (Patterns, str)
        Activations of each network to the stimuli, and the hash of what they depend on.
    stimuli : Stimuli
        Those of the RDMs, with hashes.
    found : Published
    label : str
        Of the participant.
    """
    config = study.config
    seed = seed_for(config.random_seed, label)
    columns = read_columns(config.columns, index=study.index, sub=label)
    own = config.parameters.get("rsa", {})
    content = digest({
        # The order counts where a file names no stimuli.
        "rdms": found.content, "order": found.ids, "networks": [made for _, made in features],
        "metric": config.rdm_metric, "label": label,
        "comparisons": config.rdm_comparison, "permutations": config.permutations, "seed": seed, "parameters": own,
        "columns": {name: table.to_csv() for name, table in columns.items()}, "iterate": config.iterate,
        **own_sources([config.rdm_metric, own.get("layer_metric", ""), *config.rdm_comparison]),
        "stimuli": dict(zip(stimuli.ids, stimuli.table["sha256"], strict=True)),
    })  # fmt: skip
    if study.derivatives.current("rsa", content, sub=label):
        logger.info("sub-%s: rsa is up to date", label)
        return
    items = pd.DataFrame({"stimulus_id": found.ids})
    groups = [group for table, _ in features for group in table.match(Patterns(items, ())).groups]
    result = compare(
        Patterns(items, groups) if groups else None, found.ids, {"": found.people[label]}, columns=columns,
        permutations=config.permutations, seed=seed, map=study.map, metric=config.rdm_metric,
        comparisons=config.rdm_comparison, iterate=config.iterate, stimuli=stimuli, **own,
    )  # fmt: skip
    sidecar = {**result.sidecar, "Software": software()}
    study.derivatives.save(replace(result, sidecar=sidecar), None, content, sub=label)


def check(config: Config) -> None:
    """Refuse what published RDMs do not allow."""
    if not config.networks and not config.computed_features and not config.rdm_column:
        raise ConfigError(
            "--rdm with --network none: there is nothing to compare the RDMs with; name a network, or an --rdm-column"
        )
    if config.rdm_metric not in METRICS and not is_own(config.rdm_metric):
        raise ConfigError(
            f"--rdm with --rdm-metric {config.rdm_metric}: that of the layers, which have no repeats; choose one of "
            f"{', '.join(METRICS)}"
        )
    for name in config.parameters.get("rsa", {}):
        if name in OF_BRAINS:
            raise ConfigError(f"parameters.rsa.{name}: the RDMs of --rdm are measured already; leave it out")
    if config.atlas:
        raise ConfigError("--rdm with --atlas: the names of the files are the regions; leave out --atlas")


def published(study: Study, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Compare the layers with RDMs that others measured, participant by participant.

    Parameters
    ----------
    study : Study
    loaded : sequence of Outcome
        Not used: the RDMs' files hold the participants.

    Returns
    -------
    list of Outcome
        Values are the reports' paths.
    """
    check(study.config)
    stimuli = all_stimuli(study)
    found = read_published(study.config, stimuli.ids)
    chosen = stimuli.select(found.ids)
    features = extract_stimuli(study, chosen, {})
    outcomes = []
    for label in found.people:
        with study.journal.about(f"sub-{label}"):
            compare_published(study, features, chosen, found, label)
        report = reports.participant_page(study.derivatives, label, study.shown)
        study.announce(f"sub-{label}: {report}")
        outcomes.append(Outcome(f"sub-{label}", value=report))
    return outcomes


def group_labels(config: Config, dataset: Dataset, derivatives: Derivatives) -> list[str]:
    """Participants of the dataset; with published RDMs those of the output, which are all there are."""
    if not config.rdm:
        return list(dataset.participants)
    there = sorted(path.name.removeprefix("sub-") for path in derivatives.root.glob("sub-*") if path.is_dir())
    return [label for label in there if label in (config.participant_label or there)]
