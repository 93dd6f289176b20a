"""From the responses to trials to one response per stimulus.

Runs are estimated by workers, each on its own; the parent z-scores the trials within runs and averages those of a
stimulus.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.files import digest, read_table
from bidsdnn.bids.runs import SPACE
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.responses import RESPONSES
from bidsdnn.parallel import Map
from bidsdnn.patterns import Group, Patterns
from bidsdnn.single_trials import Task, betas_path, estimate_run, input_digest, spaceless, trials_of

logger = logging.getLogger(__name__)

ANNOTATIONS = ("Notes", "Anatomy", "Mesh", "InflatedMesh")
"""Keys of the quality table's sidecar that no number depends on."""


def shared_entities(runs: Sequence[Run]) -> dict[str, str]:
    """Entities of what is made from several runs: those that all share, without run and session.

    Parameters
    ----------
    runs : sequence of Run

    Returns
    -------
    dict of str to str
        Several tasks are joined by a plus sign.
    """
    first = runs[0].entities
    tasks = sorted({run.task for run in runs})
    entities = {"sub": first["sub"], "task": "+".join(tasks)}
    return entities | {key: first[key] for key in SPACE if key in first}


def average_runs(tasks: Sequence[Task]) -> tuple[Patterns, np.ndarray]:
    """Z-score each run's responses and average them over the trials of each stimulus.

    Reliability comes from the same pass: trials of a stimulus go alternately to two halves.

    Parameters
    ----------
    tasks : sequence of Task
        Whose responses have been written.

    Returns
    -------
    patterns : Patterns
        One item a stimulus, in sorted order, with ``n_repeats``.
    reliability : ndarray, shape (size,)
        Split-half correlation over stimuli, corrected to the full number of repeats.
    """
    values, ids = [], []
    for task in tasks:
        trials = read_table(trials_of(task))
        betas = task.space.read(betas_path(task))
        keep = trials["estimated"].astype(str).str.lower().eq("true").to_numpy()
        if keep.sum() < 2:
            # A single trial has no spread to be scored by.
            logger.warning("sub-%s: %s has one usable trial and was left out", task.run.sub, task.run.name)
            continue
        betas = betas[keep]
        centred = betas - betas.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = centred.std(axis=0, dtype=np.float64).astype(np.float32)
        values.append(np.divide(centred, spread, out=np.full_like(centred, np.nan), where=spread > 0))
        ids.extend(trials.loc[keep, "stim_id"].tolist())
    if not values or not np.isfinite(table := np.vstack(values)).all(axis=0).any():
        raise DataError(
            f"sub-{tasks[0].run.sub}: no voxel has responses that vary in every run; check masks and events"
        )
    patterns = Patterns(pd.DataFrame({"stimulus_id": ids}), (Group("brain", table),), tasks[0].space)
    return patterns.average(), split_half(table, np.asarray(ids, dtype=str))


def _modelled(tasks: Sequence[Task]) -> str:
    """What stood in the model beside the trials, in words."""
    with_motion = sum(task.run.confounds is not None for task in tasks)
    some = "" if with_motion == len(tasks) else f" (in {with_motion} of {len(tasks)} runs)"
    motion = [f"six motion parameters{some}"] if with_motion else []
    others = ["events that are not scored"] if any((~task.events["trial"]).any() for task in tasks) else []
    return " and ".join([*motion, "slow cosines", *others])


def responses(tasks: Sequence[Task], *, sidecar: Mapping[str, Any], map: Map) -> tuple[Patterns, np.ndarray, str]:
    """Responses of one participant to each stimulus, read if they are there and computed if not.

    Parameters
    ----------
    tasks : sequence of Task
        One a run, of one participant.
    sidecar : mapping
        Further keys of the quality table's JSON file.
    map : callable
        Spreads runs over workers.

    Returns
    -------
    patterns : Patterns
        One item a stimulus.
    reliability : ndarray, shape (size,)
        Of `average_runs`.
    content : str
        Hash of everything the responses depend on.
    """
    first = tasks[0]
    out, entities = first.derivatives, dict(first.entities)
    numbers = {key: value for key, value in sidecar.items() if key not in ANNOTATIONS}
    content = digest({"runs": map(input_digest, tasks), "sidecar": numbers})
    quality = out.path("results", ".tsv", **entities, desc="quality")
    paths = {
        key: out.image_path("statmap", first.space, **entities, stat=stat, desc=desc)
        for key, stat, desc in (
            ("effect", "effect", "condition"),
            ("reliability", "reliability", "condition"),
            ("noiseceiling", "noiseceiling", "condition"),
            ("mean", "mean", "quality"),
            ("tsnr", "tsnr", "quality"),
        )
    }
    items_path = out.path("trials", ".tsv", **spaceless(entities), desc="condition")
    if out.current("condition", content, **entities):
        logger.info("sub-%s: responses are up to date", entities["sub"])
        out.annotate(quality, sidecar)
        items = read_table(items_path).rename(columns={"stim_id": "stimulus_id"})
        try:
            patterns = Patterns(items, (Group("brain", first.space.read(paths["effect"])),), first.space)
            return patterns, first.space.read(paths["reliability"])[0], content
        except (DataError, ValueError) as error:
            logger.warning("sub-%s: %s; computed again", entities["sub"], error)
    found = map(estimate_run, tasks, label=f"sub-{entities['sub']} responses")
    patterns, reliability = average_runs(tasks)
    estimation = first.estimation
    methods = (
        f"{summary(resolve(estimation.response, RESPONSES))} Events were convolved with the {estimation.hrf} response; "
        f"{_modelled(tasks)} were modelled beside them. Responses were z-scored within runs and averaged over the "
        "trials of a stimulus."
    )
    # A user's own estimator is cited by the user.
    cited = [estimation.response] if estimation.response in RESPONSES else []
    cited += ["fmriprep"] if first.run.source != "raw" else []
    common = {
        **sidecar,
        "ConfigurationHash": content,
        "Estimation": vars(estimation),
        "Methods": methods,
        "References": ["bids", "bids-apps", "pybids", "nibabel", "nilearn", "numpy", *cited],
    }
    out.write_table(
        items_path,
        patterns.items.rename(columns={"stimulus_id": "stim_id"}),
        {"Description": "Stimuli, one row a volume of the statmap beside it"},
    )
    out.write_map(
        paths["effect"],
        patterns.values,
        first.space,
        {
            **common,
            "Description": "Mean over trials of responses z-scored within runs",
            "Units": "z",
            "VolumeAxis": "stimulus",
            "TrialsFile": out.uri(items_path),
        },
        maps=patterns.ids,
    )
    out.write_map(
        paths["reliability"],
        reliability,
        first.space,
        {**common, "Description": "Split-half reliability over stimuli, Spearman-Brown corrected", "Units": "r"},
    )
    out.write_map(
        paths["noiseceiling"],
        np.sqrt(np.clip(reliability, 0, None)),
        first.space,
        {**common, "Description": "Highest r to be expected: the square root of the reliability", "Units": "r"},
    )
    for key in ("mean", "tsnr"):
        average = np.mean([one[key] for one in found], axis=0)
        out.write_map(
            paths[key],
            average,
            first.space,
            {**common, "Description": f"{key} of the bold over volumes, mean over runs"},
        )
    out.write_table(quality, pd.DataFrame([one["quality"] for one in found]), common)
    mask = out.image_path("mask", first.space, **entities, desc="brain")
    out.write_mask(mask, first.space)
    outputs = [*paths.values(), items_path, mask, *(betas_path(task) for task in tasks)]
    out.write_receipt("condition", outputs, common, **entities)
    return patterns, reliability.astype(np.float32), content
