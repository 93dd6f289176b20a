"""The response to each trial of one run: read the bold once, fit once, write, and let the time series go."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.files import digest, sidecar_path
from bidsdnn.bids.runs import RECORDING, SPACE
from bidsdnn.design import FEWEST_RECORDED, Design, collinear_trials, response_model, why_dropped
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve
from bidsdnn.methods.responses import RESPONSES
from bidsdnn.recordings import Estimation as Estimation
from bidsdnn.recordings import Recording, load_run
from bidsdnn.recordings import Task as Task
from bidsdnn.stimuli import file_sha256

UNITS = {"none": "arbitrary", "psc": "percent signal change", "zscore": "standard deviations of the series"}


def estimate_run(task: Task) -> dict[str, Any]:
    """Estimate and write the response to each trial of one run.

    Parameters
    ----------
    task : Task

    Returns
    -------
    dict
        Of `finish_run`.

    Raises
    ------
    DataError
        If the bold is no time series, holds no finite voxel, or no trial can be estimated.
    """
    recording = load_run(task)
    trials = trials_shown(task)
    estimator = resolve(task.estimation.response, RESPONSES)
    fitted = [recording.design.frame_times[recording.design.kept], recording.design.fitted_nuisance()]
    betas = call(estimator, task.estimation, task.device, str(task.run.bold), recording.series, trials, *fitted)
    return finish_run(task, recording, np.array(betas, dtype=np.float32))


def trials_shown(task: Task) -> pd.DataFrame:
    """The run's events that are scored, one row a trial."""
    return task.events[task.events["trial"]].reset_index(drop=True)


def call(
    estimator: Any, estimation: Estimation, device: str, where: str,
    bold: Any, events: Any, frame_times: Any, nuisance: Any,
    **more: Any,
) -> Any:  # fmt: skip
    """Call an estimator with those of the program's parameters that it takes, and the user's."""
    hrf = response_model(estimation.hrf)
    supplied = {
        "frame_times": frame_times, "nuisance": nuisance, "hrf": hrf, "noise": estimation.noise, "device": device,
        **more,
    }  # fmt: skip
    taken = inspect.signature(estimator).parameters
    given = {key: value for key, value in supplied.items() if key in taken}
    try:
        return estimator(bold, events, **{**given, **estimation.parameters})
    except ValueError as error:
        raise DataError(f"--response {estimation.response}: {where}: {error}") from error


def finish_run(task: Task, recording: Recording, betas: np.ndarray) -> dict[str, Any]:
    """Write a run's responses and say what is known of it.

    Parameters
    ----------
    task : Task
    recording : Recording
        Its series is not used.
    betas : ndarray, shape (n_trials, size)

    Returns
    -------
    dict
        ``quality``, a row of the quality table; ``volumes`` and ``dropped``, tables; ``warnings``; ``mean`` and
        ``tsnr``, shape (size,).

    Raises
    ------
    DataError
        If no trial was estimated.
    """
    betas[:, ~recording.usable] = np.nan
    betas[recording.design.recorded <= FEWEST_RECORDED] = np.nan
    trials = trials_shown(task)
    trials["estimated"] = np.isfinite(betas[:, recording.usable]).any(axis=1)
    known = judge_trials(task, recording, trials)
    _write_run(task, betas, trials, recording.design)
    return known


def judge_trials(task: Task, recording: Recording, trials: pd.DataFrame) -> dict[str, Any]:
    """Say why trials were dropped, in a column ``reason`` that is added, and what is known of the run.

    Parameters and errors are those of `finish_run`; ``trials`` holds ``estimated``.
    """
    design = recording.design
    trials["reason"] = why_dropped(design, trials, trials["estimated"].to_numpy())
    warning = collinear_trials(design, trials, trials["reason"])
    if not trials["estimated"].any():
        counts = Counter(trials["reason"])
        why = warning or "; ".join(f"{n} trials {reason}" for reason, n in counts.items())
        raise DataError(
            f"{task.run.events}: no trial falls into the {len(design.kept)} volumes of {task.run.bold.name} "
            f"that can be estimated: {why}; check the onsets"
        )
    return {
        **run_quality(task, recording, trials),
        "warnings": [f"{task.run.name}: {warning}"] if warning else [],
        "mean": recording.mean,
        "tsnr": recording.tsnr,
    }


def run_quality(task: Task, recording: Recording, trials: pd.DataFrame) -> dict[str, Any]:
    """What the report says of a run: a row of numbers, its volumes, and its dropped trials.

    Parameters
    ----------
    task : Task
    recording : Recording
    trials : DataFrame
        With ``estimated`` and ``reason``.

    Returns
    -------
    dict
        ``quality``, ``volumes`` and ``dropped``.
    """
    run, design = task.run, recording.design
    displacement, left_out = design.nuisance.displacement, design.nuisance.left_out
    known = np.isfinite(displacement).any()
    ends = trials["onset"] + trials["duration"]
    quality = {
        "run": run.name,
        "n_volumes": len(design.kept),
        "n_volumes_left_out": int((~design.kept).sum()),
        "tr": run.tr,
        "n_trials": int(trials["estimated"].sum()),
        "n_dropped": int((~trials["estimated"]).sum()),
        "n_overlapping": int((ends.cummax().shift() > trials["onset"] + 1e-6).sum()),
        "n_stimuli": trials.loc[trials["estimated"], "stimulus_id"].nunique(),
        "n_nuisance_events": int((~task.events["trial"]).sum()),
        "n_confounds": design.nuisance.regressors.shape[1] - 1,
        **design.collinearity(),
        "mean_fd": float(np.nanmean(displacement)) if known else np.nan,
        "max_fd": float(np.nanmax(displacement)) if known else np.nan,
        "tsnr": float(np.median(recording.tsnr[recording.usable])),
        "n_voxels": int(recording.usable.sum()),
        "n_voxels_constant": int((~recording.usable).sum()),
    }
    volumes = pd.DataFrame({"framewise_displacement": displacement, "reason": left_out})
    counts = Counter(trials.loc[~trials["estimated"], "reason"])
    dropped = pd.DataFrame({"reason": list(counts), "n_trials": list(counts.values())}, dtype=object)
    volumes.insert(0, "volume", range(1, len(volumes) + 1))
    return {
        "quality": quality,
        "volumes": volumes.assign(run=run.name),
        "dropped": dropped.assign(run=run.name),
    }


def run_entities(task: Task) -> dict[str, str]:
    """Entities of a run's products: those of its recording in the analysis' space."""
    return {**task.entities, **{key: value for key, value in task.run.entities.items() if key in RECORDING}}


def _write_run(task: Task, betas: np.ndarray, trials: pd.DataFrame, design: Design) -> None:
    """Write a run's trials and their responses."""
    run, estimation, out = task.run, task.estimation, task.derivatives
    period = design.nuisance.period
    known = ("onset", "duration", "stimulus_id", "stim_file", "trial_type", "estimated", "reason")
    table = trials[[column for column in known if column in trials]].rename(columns={"stimulus_id": "stim_id"})
    table = table.assign(run=run.run, ses=run.ses)
    trials_path = trials_of(task)
    design_path = write_design(task, design)
    out.write_table(trials_path, table, {"Description": "Trials, one row a volume of the statmap beside it"})
    inputs = (*task.space.files(run.bold), run.events, run.confounds, run.mask)
    sources = [out.uri(path) for path in inputs if path is not None]
    sidecar = {
        "Description": f"Response of each voxel to each trial ({estimation.response})",
        "Units": UNITS[estimation.standardize],
        "Estimator": estimation.response,
        "HRFModel": estimation.hrf,
        "HighPassPeriod": None if np.isnan(period) else period,
        "Confounds": list(design.nuisance.regressors.columns),
        "VolumesLeftOut": np.flatnonzero(~design.kept).tolist(),
        "SmoothingFWHM": estimation.smoothing,
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


def write_design(task: Task, design: Design) -> Path:
    """Write a run's regressors."""
    about = {"Description": "Regressors of the model, one row a volume, and whether it was fitted"}
    return task.derivatives.write_table(design_of(task), design.table(), about)


def spaceless(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities of tables, which are the same in every space."""
    return {key: value for key, value in entities.items() if key not in SPACE}


def desc_of(task: Task) -> str:
    """Label of a run's products: volumes of a movie are no trials."""
    return "timeseries" if task.estimation.response == "timeseries" else "singletrial"


def betas_path(task: Task) -> Path:
    """Where the responses to a run's trials are."""
    entities = run_entities(task)
    return task.derivatives.image_path("statmap", task.space, **entities, stat="effect", desc=desc_of(task))


def input_digest(task: Task) -> str:
    """Hash of all that a run's responses depend on."""
    run = task.run
    about = sidecar_path(run.confounds) if run.confounds else None
    files = {
        str(key): file_sha256(path)
        for key, path in (("mask", run.mask), ("confounds", run.confounds), ("components", about))
        if path is not None and path.exists()
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
    return task.derivatives.path("trials", ".tsv", **spaceless(run_entities(task)), desc=desc_of(task))


def design_of(task: Task) -> Path:
    """Where the table of a run's regressors is."""
    return task.derivatives.path("design", ".tsv", **spaceless(run_entities(task)), desc=desc_of(task))
