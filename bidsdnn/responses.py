"""From a participant's runs to one response per stimulus.

Each run is read once by one worker, which writes the response to every trial and lets the time series go; the parent
then z-scores the trials within runs and averages those of a stimulus.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_table
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.responses import RESPONSES
from bidsdnn.nuisance import confounds, nuisance_events
from bidsdnn.parallel import Map
from bidsdnn.patterns import Group, Patterns
from bidsdnn.spaces import Volume
from bidsdnn.stimuli import file_sha256

logger = logging.getLogger(__name__)

ANNOTATIONS = ("Notes", "Anatomy")
"""Keys of the quality table's sidecar that no number depends on."""


@dataclass(frozen=True)
class Estimation:
    """How responses are estimated; whatever is in here changes the numbers.

    Parameters
    ----------
    response : str
        Row of `RESPONSES`.
    hrf : str
        Haemodynamic response function, ``spm`` or ``glover``.
    high_pass : float
        Longest period kept, in seconds, where the confounds hold no cosines.
    """

    response: str = "lss"
    hrf: str = "spm"
    high_pass: float = 128.0


@dataclass(frozen=True, eq=False)
class Task:
    """One run's work: what a worker needs to know."""

    run: Run
    events: pd.DataFrame
    space: Volume
    estimation: Estimation
    derivatives: Derivatives
    entities: Mapping[str, str]


def estimate_run(task: Task) -> dict[str, Any]:
    """Estimate and write the response to each trial of one run.

    Parameters
    ----------
    task : Task

    Returns
    -------
    dict
        ``quality``, a row of the quality table; ``mean`` and ``tsnr``, shape (size,).

    Raises
    ------
    DataError
        If the bold is no time series, holds no finite voxel, or no trial can be estimated.
    """
    run, estimation = task.run, task.estimation
    bold = task.space.read(run.bold)
    n_volumes = len(bold)
    if n_volumes < 10:
        raise DataError(f"{run.bold}: {n_volumes} volumes are no time series; give a 4-D bold image")
    finite = np.isfinite(bold).all(axis=0)
    if not finite.any():
        raise DataError(f"{run.bold}: every voxel in the mask has NaN; replace the file or leave out the run")
    mean, spread = bold.mean(axis=0, dtype=np.float64), bold.std(axis=0, dtype=np.float64)
    usable = finite & (spread > 0)
    if not usable.any():
        raise DataError(f"{run.bold}: every voxel in the mask is constant; replace the file or leave out the run")
    frame_times = run.start_time + run.tr * np.arange(n_volumes)
    regressors, displacement, period = confounds(run, n_volumes, frame_times, period=estimation.high_pass)
    others = nuisance_events(task.events, frame_times=frame_times, hrf=estimation.hrf)
    trials = task.events[task.events["trial"]].reset_index(drop=True)
    estimator = resolve(estimation.response, RESPONSES)
    betas = estimator(
        bold,
        trials[["onset", "duration"]].astype(float).fillna(0),
        frame_times=frame_times,
        nuisance=np.hstack([regressors, others, np.ones((n_volumes, 1))]),
        hrf=estimation.hrf,
    )
    betas[:, ~usable] = np.nan
    trials["estimated"] = np.isfinite(betas[:, usable]).any(axis=1)
    if not trials["estimated"].any():
        raise DataError(
            f"{run.events}: no trial falls into the {n_volumes} volumes of {run.bold.name}; check the onsets"
        )
    _write_run(task, betas, trials, period)
    quality = {
        "run": run.name,
        "n_volumes": n_volumes,
        "tr": run.tr,
        "n_trials": int(trials["estimated"].sum()),
        "n_dropped": int((~trials["estimated"]).sum()),
        "n_stimuli": trials.loc[trials["estimated"], "stimulus_id"].nunique(),
        "n_nuisance_events": int((~task.events["trial"]).sum()),
        "mean_fd": float(np.nanmean(displacement)) if np.isfinite(displacement).any() else np.nan,
        "max_fd": float(np.nanmax(displacement)) if np.isfinite(displacement).any() else np.nan,
        "tsnr": float(np.median(mean[usable] / spread[usable])),
        "n_voxels": int(usable.sum()),
        "n_voxels_constant": int((~usable).sum()),
    }
    tsnr = np.divide(mean, spread, out=np.full(len(mean), np.nan), where=usable)
    return {"quality": quality, "mean": mean, "tsnr": tsnr}


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
    return entities | {key: first[key] for key in ("space", "res", "den") if key in first}


def run_entities(task: Task) -> dict[str, str]:
    """Entities of a run's products: those of its recording in the analysis' space."""
    kept = ("ses", "task", "acq", "rec", "dir", "run", "echo")
    return {**task.entities, **{key: task.run.entities[key] for key in kept if key in task.run.entities}}


def _write_run(task: Task, betas: np.ndarray, trials: pd.DataFrame, period: float) -> None:
    """Write a run's trials and their responses."""
    run, estimation, out = task.run, task.estimation, task.derivatives
    entities = run_entities(task)
    known = ("onset", "duration", "stimulus_id", "stim_file", "trial_type", "estimated")
    table = trials[[column for column in known if column in trials]].assign(run=run.run, ses=run.ses)
    trials_path = out.path("trials", ".tsv", **_spaceless(entities), desc="singletrial")
    out.write_table(trials_path, table, {"Description": "Trials, one row a volume of the statmap beside it"})
    sources = [out.uri(path) for path in (run.bold, run.events, run.confounds, run.mask) if path is not None]
    sidecar = {
        "Description": f"Response of each voxel to each trial ({estimation.response}, OLS)",
        "Units": "arbitrary",
        "Estimator": estimation.response,
        "HRFModel": estimation.hrf,
        "HighPassPeriod": None if np.isnan(period) else period,
        "StartTime": run.start_time,
        "RepetitionTimeOfSource": run.tr,
        "TaskName": run.task,
        "VolumeAxis": "trial",
        "TrialsFile": out.uri(trials_path),
        "Sources": sources,
    }
    out.write_map(_betas_path(task), betas, task.space, sidecar)


def _spaceless(entities: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entities.items() if key not in ("space", "res", "den")}


def _betas_path(task: Task) -> Path:
    return task.derivatives.path("statmap", ".nii.gz", **run_entities(task), stat="effect", desc="singletrial")


def input_digest(task: Task) -> str:
    """Hash of all that a run's responses depend on."""
    run = task.run
    files = {
        str(key): file_sha256(path)
        for key, path in (("bold", run.bold), ("mask", run.mask), ("confounds", run.confounds))
        if path is not None
    }
    return digest(
        {
            "files": files,
            "events": task.events.to_csv(index=False),
            "tr": run.tr,
            "start": run.start_time,
            "estimation": vars(task.estimation),
            "mask": file_text(task.space),
        }
    )


def file_text(space: Volume) -> str:
    """What identifies a space: its mask and grid."""
    return digest({"mask": np.packbits(space.mask).tobytes().hex(), "affine": space.affine.tolist()})


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
        trials = read_table(
            task.derivatives.path("trials", ".tsv", **_spaceless(run_entities(task)), desc="singletrial")
        )
        betas = task.space.read(_betas_path(task))
        keep = trials["estimated"].astype(str).str.lower().eq("true").to_numpy()
        betas = betas[keep]
        centred = betas - betas.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = centred.std(axis=0, dtype=np.float64).astype(np.float32)
        values.append(np.divide(centred, spread, out=np.full_like(centred, np.nan), where=spread > 0))
        ids.extend(trials.loc[keep, "stimulus_id"].tolist())
    table = np.vstack(values)
    patterns = Patterns(pd.DataFrame({"stimulus_id": ids}), (Group("brain", table),), tasks[0].space)
    return patterns.average(), split_half(table, np.asarray(ids, dtype=str))


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
        key: out.path("statmap", ".nii.gz", **entities, stat=stat, desc=desc)
        for key, stat, desc in (
            ("effect", "effect", "condition"),
            ("reliability", "reliability", "condition"),
            ("mean", "mean", "quality"),
            ("tsnr", "tsnr", "quality"),
        )
    }
    items_path = out.path("trials", ".tsv", **_spaceless(entities), desc="condition")
    if out.current("condition", content, **entities):
        logger.info("sub-%s: responses are up to date", entities["sub"])
        out.annotate(quality, sidecar)
        items = read_table(items_path)
        patterns = Patterns(items, (Group("brain", first.space.read(paths["effect"])),), first.space)
        return patterns, first.space.read(paths["reliability"])[0], content
    found = map(estimate_run, tasks, label=f"sub-{entities['sub']} responses")
    patterns, reliability = average_runs(tasks)
    estimation = first.estimation
    methods = (
        f"{summary(resolve(estimation.response, RESPONSES))} Events were convolved with the {estimation.hrf} response; "
        "six motion parameters, slow cosines and events that are not scored were modelled beside them. Responses were "
        "z-scored within runs and averaged over the trials of a stimulus."
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
    out.write_table(items_path, patterns.items, {"Description": "Stimuli, one row a volume of the statmap beside it"})
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
    )
    out.write_map(
        paths["reliability"],
        reliability,
        first.space,
        {**common, "Description": "Split-half reliability over stimuli, Spearman-Brown corrected", "Units": "r"},
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
    mask = out.path("mask", ".nii.gz", **entities, desc="brain")
    out.write_mask(mask, first.space)
    outputs = [*paths.values(), items_path, mask, *(_betas_path(task) for task in tasks)]
    out.write_receipt("condition", outputs, common, **entities)
    return patterns, reliability.astype(np.float32), content
