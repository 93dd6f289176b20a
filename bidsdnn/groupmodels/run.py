"""All models of a group that were asked for, space by space; what cannot be had is said and left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bidsdnn.bids.columns import read_columns
from bidsdnn.config import Config
from bidsdnn.errors import BidsdnnError, MissingInputError
from bidsdnn.groupmodels.crossed import crossed
from bidsdnn.groupmodels.layers import layers_of
from bidsdnn.groupmodels.one_brain import MAKERS, one_brain
from bidsdnn.groupmodels.people import Shared, found_contexts, shared
from bidsdnn.patterns import Patterns
from bidsdnn.study import Study, load_participants

logger = logging.getLogger(__name__)

Fit = Callable[[Study, str, Shared, "Patterns | None", str, Mapping[str, Any], list[str]], int]
FITS: dict[str, Fit] = {**dict.fromkeys(MAKERS, one_brain), "cross-participant": crossed}


def group_models(study: Study, labels: Sequence[str]) -> list[str]:
    """Fit the models of ``--group-model`` to what participants share, in each space and task, and write the results.

    Parameters
    ----------
    study : Study
    labels : sequence of str
        Participants, without ``sub-``.

    Returns
    -------
    list of str
        Sentences on who and what was left out.

    Raises
    ------
    MissingInputError
        If nothing of what was asked for could be had.
    """
    config, said = study.config, []
    if not config.group_model:
        return []
    own, omitted = _without_runs(config)
    study = replace(study, config=own)
    found = 0
    for context, paths in found_contexts(study.derivatives, labels):
        try:
            people = shared(study.derivatives, context, paths, config.atlas, labels=labels)
            more = _more(study, people)
        except BidsdnnError as error:
            said.append(f"{', '.join(config.group_model)}: {error}")
            continue
        of_layers = [*omitted]
        x, made = layers_of(own, people, of_layers)
        said += people.omitted
        for model in dict.fromkeys(config.group_model):
            of_model = [*of_layers]
            try:
                found += FITS[model](study, model, people, x, made, more, of_model)
            except BidsdnnError as error:
                of_model.append(f"{model}: {error}")
            said += of_model
    said = list(dict.fromkeys(said))
    for sentence in said:
        logger.warning("%s", sentence)
    if not found:
        why = said[0] if said else f"{study.derivatives.root} holds no responses; run the participant level first"
        raise MissingInputError(f"nothing could be fitted: {why}")
    return said


def _without_runs(config: Config) -> tuple[Config, list[str]]:
    """A configuration that holds out stimuli: of people together there are no runs."""
    if config.cross_validation.kind not in ("run", "session"):
        return config, []
    said = f"--cv {config.cv}: participants together have no runs; models of the group hold out 10 folds of stimuli."
    return config.model_copy(update={"cv": None}), [said]


def _events(study: Study, people: Shared) -> list[pd.DataFrame]:
    """Events of the participants, read from the dataset: the output keeps only some of their columns."""
    loaded = load_participants(study.config, study.dataset, study.index)
    there = [one.value for one in loaded if one.error is None and one.value.label in people.labels]
    return [table for one in there for table in one.shown.events.values()]


def _more(study: Study, people: Shared) -> dict[str, Any]:
    """What analyses take beside the tables, with the events of all participants."""
    config, scheme = study.config, study.config.cross_validation
    split = {scheme.column: scheme.file} if scheme.kind == "column" else {}
    asked = {**config.columns, **config.targets, **split}
    events = _events(study, people) if None in asked.values() else []
    parts = read_columns(split, index=study.index, events=events, flag="--cv column:")
    return {
        "trials": None, "residuals": None, "stimuli": None, "iterate": config.iterate,
        "columns": read_columns(config.columns, index=study.index, events=events),
        "targets": read_columns(config.targets, index=study.index, events=events, flag="--target "),
        "parts": parts.get(scheme.column),
    }  # fmt: skip
