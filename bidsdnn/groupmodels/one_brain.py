"""All participants as one brain: their responses averaged, or their voxels side by side; then any analysis of a brain.

The one idea: what comes out is a table of the same kind as a participant's, so that analyses know nothing of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.analysed import Destination, analyse
from bidsdnn.analyses import NEEDS_NETWORK
from bidsdnn.errors import BidsdnnError
from bidsdnn.geometry import Regions
from bidsdnn.groupmodels.people import Shared
from bidsdnn.groupmodels.products import SUFFIX, GroupDerivatives, about, renamed
from bidsdnn.journal import software
from bidsdnn.lookup import summary
from bidsdnn.methods.across_people import alpha, reliability_of_mean
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Result
from bidsdnn.study import Study

logger = logging.getLogger(__name__)

Brain = tuple[Patterns, Regions, "np.ndarray | None", str]
"""Responses, regions on their columns, the highest r to be expected of each column, and what that is."""
INFERENCE = (
    "p compared these participants' responses with those under relabelled stimuli: stimuli were the sample, and "
    "participants were not."
)


def averaged(shared: Shared) -> Brain:
    """Responses were averaged over participants, stimulus by stimulus, and analysed as those of one brain.

    The responses are those that each participant was analysed with, z-scored within runs, so that each has a like say.
    The noise of the mean follows from the reliability of each participant's responses over repeats; where that is not
    known, reliability is Cronbach's alpha, with people in place of repeats, so that what is peculiar to one person
    counts as noise, and a model of it may exceed the ceiling.

    Parameters
    ----------
    shared : Shared

    Returns
    -------
    Brain
    """
    total: Any = 0.0
    variances: Any = 0.0
    noise: Any = 0.0
    for person in shared.people:
        values, reliable = shared.table(person)
        variance = values.var(axis=0, dtype=np.float64)
        total = total + values.astype(np.float64)
        variances, noise = variances + variance, noise + variance * (1 - np.clip(reliable, 0, 1))
    people = len(shared.people)
    mean = np.asarray(total) / people
    y, spread = _brain(shared, mean.astype(np.float32), shared.space), mean.var(axis=0)
    if np.isfinite(noise).any():
        said = "square root of the reliability of the mean over participants, by that of each one's responses"
        return y, shared.regions, _ceiling(reliability_of_mean(noise, spread, people)), said
    said = "square root of Cronbach's alpha over participants, by which all that differs between them is noise"
    return y, shared.regions, _ceiling(alpha(variances, spread, people)), said


def stacked(shared: Shared) -> Brain:
    """Participants' voxels were put side by side, region by region, and analysed as those of one brain.

    Regions are joined by name; no voxel of one person stands for a voxel of another, so no common space is needed.

    Parameters
    ----------
    shared : Shared

    Returns
    -------
    Brain
    """
    tables, reliable, places = [], [], []
    for person in shared.people:
        own = shared.own_regions(person)
        kept = np.any([one for table in own.values() for one in table.values()], axis=0)
        values, agreed = person.read(person.space, shared.ids)
        tables.append(values[:, kept])
        reliable.append(agreed[kept])
        places.append({atlas: {name: one[kept] for name, one in table.items()} for atlas, table in own.items()})
    regions = {
        atlas: {
            name: np.concatenate([
                one.get(atlas, {}).get(name, np.zeros(table.shape[1], dtype=bool))
                for one, table in zip(places, tables, strict=True)
            ])
            for name in dict.fromkeys(name for one in places for name in one.get(atlas, {}))
        }
        for atlas in dict.fromkeys(atlas for one in places for atlas in one)
    }  # fmt: skip
    said = "square root of the reliability of each participant's averaged responses"
    whole = np.concatenate(tables, axis=1)
    return _brain(shared, whole, None), regions, _ceiling(np.concatenate(reliable)), said


MAKERS: dict[str, Callable[[Shared], Brain]] = {"averaged": averaged, "stacked": stacked}


def _ceiling(reliable: np.ndarray) -> np.ndarray | None:
    return None if np.isnan(reliable).all() else np.sqrt(np.clip(reliable, 0, None))


def _brain(shared: Shared, values: np.ndarray, space: Any) -> Patterns:
    return Patterns(pd.DataFrame({"stimulus_id": shared.ids}), (Group("brain", values),), space)


def one_brain(
    study: Study, model: str, shared: Shared, x: Patterns | None, made: str, more: Mapping[str, Any],
    omitted: list[str],
) -> int:  # fmt: skip
    """Run the analyses of the command line on all participants as one brain, and write their results.

    Parameters
    ----------
    study : Study
    model : str
        Row of `MAKERS`.
    shared : Shared
    x : Patterns or None
        Activations to the shared stimuli.
    made : str
        Hash of what these depend on.
    more : mapping
        What else analyses take.
    omitted : list of str
        Sentences on what was left out are added here.

    Returns
    -------
    int
        Analyses that have a result.
    """
    out = study.derivatives
    brain, regions, ceiling, of_ceiling = MAKERS[model](shared)
    found = 0
    for name in study.config.analysis:
        why = _unfit(study, name, brain, x, model)
        if why:
            omitted.append(f"{name} has no {model} model of the group: {why}.")
            continue
        keys = about(shared, model, f"{summary(MAKERS[model])} {INFERENCE}", of_ceiling, omitted)
        to = Destination(
            f"group {model}", f"group, {model}", GroupDerivatives(out.root, out.links), shared.entities, shared.sources,
            {}, partial(_finished, model=model, keys=keys, maps=brain.space is not None), SUFFIX[model],
        )  # fmt: skip
        try:
            # A layer is of no participant: labels are told from brains here.
            layers = None if name == "decoding" else x
            analyse(
                study,
                name,
                layers,
                brain,
                regions,
                ceiling=ceiling,
                content=_content(shared, model, made),
                to=to,
                more=more,
            )
            found += 1
        except BidsdnnError as error:
            omitted.append(f"{name} has no {model} model of the group: {error}")
    return found


def _content(shared: Shared, model: str, made: str) -> str:
    return f"{model} {shared.content} {made}"


def _unfit(study: Study, name: str, brain: Patterns, x: Patterns | None, model: str) -> str:
    """Why an analysis cannot be had of this brain; empty if it can."""
    if name in NEEDS_NETWORK and x is None:
        return "there are no activations to the shared stimuli"
    near = name == "searchlight" or study.config.parameters.get(name, {}).get("searchlight")
    if near and brain.space is None:
        return "neighbourhoods need a common space"
    if name == "rsa" and model == "averaged" and brain.space is None:
        return "a region's mean has no geometry without a common space; ask for --group-model stacked"
    return ""


def _finished(result: Result, *, model: str, keys: Mapping[str, Any], maps: bool) -> Result:
    methods = f"{keys['GroupMethods']} {result.sidecar.get('Methods', '')}".strip()
    cronbach = ["cronbach"] if "Cronbach" in keys.get("Ceiling", "") else []
    references = [*result.sidecar.get("References", []), *cronbach]
    sidecar = {**result.sidecar, **keys, "Methods": methods, "References": references, "Software": software()}
    return renamed(replace(result, sidecar=sidecar), model, maps=maps)
