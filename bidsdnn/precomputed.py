"""From responses that another program estimated to one response per stimulus: found, named, averaged over repeats."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.dataset import Dataset
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest
from bidsdnn.bids.meshes import Meshes
from bidsdnn.bids.names import parse
from bidsdnn.bids.precomputed import FORMATS, Found, find, read_part, shared_space_of
from bidsdnn.bids.precomputed.found import Asked
from bidsdnn.bids.runs import SPACE
from bidsdnn.bids.shown import Presented, shown_by_name
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.conditions import read_conditions, write_conditions
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.lookup import summary
from bidsdnn.methods.ceiling import split_half
from bidsdnn.patterns import Group, Patterns
from bidsdnn.responses import ANNOTATIONS
from bidsdnn.stimuli import file_sha256

logger = logging.getLogger(__name__)

NAME = "precomputed"
"""What ``--response`` says."""

NONE = Meshes()

_ENOUGH = 3
"""Responses of a run below which z-scores would be made of hardly anything."""


@dataclass(frozen=True, eq=False)
class Precomputed:
    """One participant's responses as another program left them, their stimuli found.

    Parameters
    ----------
    found : Found
    ids : mapping of str to str
        The stimulus that each name means.
    """

    found: Found
    ids: Mapping[str, str]


def find_responses(config: Config, dataset: Dataset, label: str, index: StimulusIndex) -> tuple[Precomputed, Presented]:
    """Find a participant's responses in the derivatives, and which stimuli they are to.

    Parameters
    ----------
    config : Config
    dataset : Dataset
    label : str
        Without ``sub-``.
    index : StimulusIndex

    Returns
    -------
    responses : Precomputed
    shown : Presented

    Raises
    ------
    MissingInputError
        If there are none.
    ConfigError
        If two derivatives have some.
    """
    asked = Asked(
        dataset.sessions, config.task_id and dataset.asked_tasks, dataset.asked_runs, config.space,
        config.stimulus_column,
    )  # fmt: skip
    alone = len(dataset.participants) == 1
    there = [find(name, root, label, asked, alone=alone) for name, root in dataset.derivatives.items()]
    found = [one for one in there if one is not None]
    if not found:
        searched = ", ".join(f"{name}={root}" for name, root in dataset.derivatives.items()) or "none given"
        raise MissingInputError(
            f"sub-{label}: no precomputed responses in the derivatives ({searched}); "
            f"the formats read are {', '.join(FORMATS)} (docs/precomputed.md); give their folder with -d NAME=PATH"
        )
    if len(found) > 1:
        both = " and ".join(one.name for one in found)
        raise ConfigError(f"sub-{label}: precomputed responses are in {both}; choose one with -d NAME=PATH")
    ids, shown = shown_by_name([name for part in found[0].parts for name in part.ids], index)
    logger.info("sub-%s: %d responses to %d stimuli, format %s", label, sum(len(p.ids) for p in found[0].parts),
                len(shown.stimuli), found[0].kind)  # fmt: skip
    return Precomputed(found[0], ids), shown


def precomputed_responses(
    one: Precomputed, label: str, out: Derivatives, *, sidecar: Mapping[str, Any], meshes: Meshes = NONE
) -> tuple[Patterns, np.ndarray, str, dict[str, str], list[str]]:
    """Responses were estimated beforehand by another program and read from ``--derivatives``.

    Parameters
    ----------
    one : Precomputed
    label : str
        Participant.
    out : Derivatives
    sidecar : mapping
        Further keys of the quality table's JSON file.
    meshes : Meshes
        Of responses on a surface.

    Returns
    -------
    patterns : Patterns
        One item a stimulus.
    reliability : ndarray, shape (size,)
    content : str
        Hash of the files, their stimuli and the space.
    entities : dict of str to str
        Of the participant's products.
    warnings : list of str

    Raises
    ------
    DataError
        If files differ in grid, or no point has responses that vary.
    """
    found = one.found
    space, warnings = shared_space_of(found.parts, found.files, meshes)
    entities = entities_of_parts(found, label)
    items = pd.DataFrame(
        {
            "stimulus_id": [one.ids[name] for part in found.parts for name in part.ids],
            "run": [name for part in found.parts for name in part.run],
            "ses": [name for part in found.parts for name in part.ses],
        }
    )
    files = sorted({file for part in found.parts for file in space.files(part.path)}
                   | {part.labels for part in found.parts if part.labels})  # fmt: skip
    numbers = {key: value for key, value in sidecar.items() if key not in ANNOTATIONS}
    content = digest(
        {
            "files": {str(path): file_sha256(path) for path in files},
            "items": items.to_csv(index=False),
            "space": space.identity,
            "sidecar": numbers,
        }
    )
    quality = out.path("results", ".tsv", **entities, desc="quality")
    if out.current("condition", content, **entities):
        logger.info("sub-%s: responses are up to date", label)
        out.annotate(quality, sidecar)
        try:
            return *read_conditions(out, space, entities), content, entities, warnings
        except (DataError, ValueError) as error:
            logger.warning("sub-%s: %s; read again", label, error)
    values = np.vstack([read_part(part, space) for part in found.parts])
    values, scored = z_scored(values, items)
    patterns = Patterns(items, (Group("brain", values),), space)
    reliability = split_half(values, items["stimulus_id"].to_numpy(dtype=str)).astype(np.float32)
    once = int((items["stimulus_id"].value_counts() == 1).sum())
    if once:
        warnings.append(f"{once} of {items['stimulus_id'].nunique()} stimuli have one response and no repeat")
    cited = ["glmsingle"] if found.kind == "glmsingle" else []
    common = {
        **sidecar,
        "ConfigurationHash": content,
        "Estimation": {"response": NAME, "format": found.kind, "derivative": found.name},
        "Methods": _methods(found, scored=scored),
        "References": ["bids", "bids-apps", "pybids", "nibabel", "numpy", *cited],
        "Sources": [out.uri(path) for path in files[:100]],
    }
    patterns = patterns.average()
    written = write_conditions(
        out, space, entities, patterns, reliability, common, units="z" if scored else "arbitrary"
    )
    written.append(out.write_table(quality, _by_run(items), common))
    out.write_receipt("condition", written, common, **entities)
    return patterns, reliability, content, entities, warnings


def entities_of_parts(found: Found, label: str) -> dict[str, str]:
    """Entities of a participant's products: the task and space of the files, else the derivative's name for a task."""
    read = [parse(part.path) for part in found.parts]
    tasks = sorted({name["task"] for name in read if "task" in name})
    task = "+".join(tasks) or names.label(found.name)
    return {"sub": label, "task": task} | {key: read[0][key] for key in SPACE if key in read[0]}


def z_scored(values: np.ndarray, items: pd.DataFrame) -> tuple[np.ndarray, bool]:
    """Z-score responses within runs, or within sessions where runs are unknown.

    Parameters
    ----------
    values : ndarray, shape (n, size)
    items : DataFrame, n rows
        Columns ``run`` and ``ses``.

    Returns
    -------
    values : ndarray of float32, shape (n, size)
        NaN where a run's responses do not vary.
    scored : bool
        False, and the values as they were, if some run has fewer than 3 responses.
    """
    groups = items.groupby(["ses", "run"], sort=False).indices.values()
    if min(map(len, groups)) < _ENOUGH:
        return values, False
    scored = np.empty_like(values, dtype=np.float32)
    for rows in groups:
        part = values[rows].astype(np.float64)
        part -= part.mean(axis=0)
        spread = part.std(axis=0)
        scored[rows] = np.divide(part, spread, out=np.full_like(part, np.nan), where=spread > 0)
    return scored, True


def _methods(found: Found, *, scored: bool) -> str:
    how = "z-scored within runs" if scored else "taken as they are, without z-scoring (a run has fewer than 3)"
    return (
        f"Responses were estimated beforehand and read from {found.name}. {summary(FORMATS[found.kind])} "
        f"They were {how} and averaged over the repeats of a stimulus."
    )


def _by_run(items: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its name, responses and stimuli."""
    runs = items.groupby(["ses", "run"], sort=False)["stimulus_id"]
    table = pd.DataFrame({"n_trials": runs.size(), "n_stimuli": runs.nunique()}).reset_index()
    name = [" ".join(filter(None, (ses and f"ses-{ses}", run and f"run-{run}"))) or "all"
            for ses, run in zip(table["ses"], table["run"], strict=True)]  # fmt: skip
    return table.drop(columns=["ses", "run"]).assign(run=name)[["run", "n_trials", "n_stimuli"]]
