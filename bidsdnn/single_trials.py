"""The response to each trial of one run: read the bold once, fit once, write, and let the time series go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest
from bidsdnn.bids.runs import RECORDING, SPACE
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve
from bidsdnn.methods.responses import RESPONSES, trial_regressors
from bidsdnn.nuisance import confounds, nuisance_events
from bidsdnn.spaces import Space
from bidsdnn.stimuli import file_sha256


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
    space: Space
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
    with np.errstate(invalid="ignore"):
        mean, spread = bold.mean(axis=0, dtype=np.float64), bold.std(axis=0, dtype=np.float64)
    usable = finite & (spread > 0)
    if not usable.any():
        raise DataError(f"{run.bold}: every voxel in the mask is constant; replace the file or leave out the run")
    frame_times = run.start_time + run.tr * np.arange(n_volumes)
    regressors, displacement, period = confounds(run, n_volumes, frame_times, period=estimation.high_pass)
    others = nuisance_events(task.events, frame_times=frame_times, hrf=estimation.hrf)
    trials = task.events[task.events["trial"]].reset_index(drop=True)
    estimator = resolve(estimation.response, RESPONSES)
    nuisance = np.hstack([regressors, others, np.ones((n_volumes, 1))])
    timing = trials[["onset", "duration"]].to_numpy(dtype=float)
    betas = estimator(bold, trials, frame_times=frame_times, nuisance=nuisance, hrf=estimation.hrf)
    betas[:, ~usable] = np.nan
    trials["estimated"] = np.isfinite(betas[:, usable]).any(axis=1)
    if not trials["estimated"].any():
        raise DataError(
            f"{run.events}: no trial falls into the {n_volumes} volumes of {run.bold.name}; check the onsets"
        )
    design = pd.DataFrame(
        np.hstack([trial_regressors(*timing.T, frame_times=frame_times, hrf=estimation.hrf), nuisance]),
        columns=[f"trial{i}" for i in range(len(trials))] + [f"nuisance{i}" for i in range(nuisance.shape[1])],
    )
    _write_run(task, betas, trials, design, period)
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


def run_entities(task: Task) -> dict[str, str]:
    """Entities of a run's products: those of its recording in the analysis' space."""
    return {**task.entities, **{key: value for key, value in task.run.entities.items() if key in RECORDING}}


def _write_run(task: Task, betas: np.ndarray, trials: pd.DataFrame, design: pd.DataFrame, period: float) -> None:
    """Write a run's trials and their responses."""
    run, estimation, out = task.run, task.estimation, task.derivatives
    entities = run_entities(task)
    known = ("onset", "duration", "stimulus_id", "stim_file", "trial_type", "estimated")
    table = trials[[column for column in known if column in trials]].rename(columns={"stimulus_id": "stim_id"})
    table = table.assign(run=run.run, ses=run.ses)
    trials_path = trials_of(task)
    design_path = out.path("design", ".tsv", **spaceless(entities), desc="singletrial")
    out.write_table(design_path, design, {"Description": "Regressors of the model, one row a volume"})
    out.write_table(trials_path, table, {"Description": "Trials, one row a volume of the statmap beside it"})
    inputs = (*task.space.files(run.bold), run.events, run.confounds, run.mask)
    sources = [out.uri(path) for path in inputs if path is not None]
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
        "DesignFile": out.uri(design_path),
        "ConfigurationHash": input_digest(task),
    }
    out.write_map(betas_path(task), betas, task.space, sidecar, maps=table["stim_id"].tolist())


def spaceless(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities of tables, which are the same in every space."""
    return {key: value for key, value in entities.items() if key not in SPACE}


def betas_path(task: Task) -> Path:
    """Where the responses to a run's trials are."""
    entities = run_entities(task)
    return task.derivatives.image_path("statmap", task.space, **entities, stat="effect", desc="singletrial")


def input_digest(task: Task) -> str:
    """Hash of all that a run's responses depend on."""
    run = task.run
    files = {
        str(key): file_sha256(path)
        for key, path in (("mask", run.mask), ("confounds", run.confounds))
        if path is not None
    }
    files["bold"] = ", ".join(map(file_sha256, task.space.files(run.bold)))
    return digest(
        {
            "files": files,
            "events": task.events.to_csv(index=False),
            "tr": run.tr,
            "start": run.start_time,
            "estimation": vars(task.estimation),
            "space": task.space.identity,
        }
    )


def trials_of(task: Task) -> Path:
    """Where the table of a run's trials is."""
    return task.derivatives.path("trials", ".tsv", **spaceless(run_entities(task)), desc="singletrial")
