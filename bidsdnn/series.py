"""Movies and stories: the response to a moment of a stimulus is a volume; runs are joined by stimulus and time."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bidsdnn.across_runs import Stacked, Stored, scratch
from bidsdnn.bids.files import read_table
from bidsdnn.errors import DataError
from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.responses import standardized
from bidsdnn.methods.responses import timeseries as volumes
from bidsdnn.patterns import Group, Patterns
from bidsdnn.recordings import BLOCK, Recording, Task, load_run
from bidsdnn.single_trials import (
    UNITS,
    betas_path,
    call,
    design_of,
    input_digest,
    run_quality,
    trials_of,
    trials_shown,
    write_design,
)

logger = logging.getLogger(__name__)

REPEATS = ("average", "keep")
UNCOVERED = ("error", "drop", "zero")


class Joined(NamedTuple):
    """Responses to moments of stimuli over runs, and their reliability, shape (size,)."""

    patterns: Patterns
    reliability: np.ndarray


def timeseries(
    bold: np.ndarray,
    events: pd.DataFrame,
    *,
    frame_times: np.ndarray,
    nuisance: np.ndarray,
    device: str = "cpu",
    trim: Sequence[float] = (0.0, 0.0),
    repeats: str = "average",
    method: str | Mapping[str, str] = "",
    delays: Sequence[float] | Mapping[str, Sequence[float]] = (),
    unit: str = "seconds",
    uncovered: str = "error",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Responses were the volumes acquired during a stimulus, the nuisance projected out of the series.

    Parameters
    ----------
    bold, events, frame_times, nuisance, device, trim
        As in `methods.responses.timeseries`.
    repeats : {"average", "keep"}
        Whether volumes at the same time into a stimulus are averaged over its presentations.
    method : str or mapping from feature space to str
        Row of `methods.continuous.RESAMPLINGS`; by default the canonical response of ``--hrf`` for features without
        delays, and ``mean`` for those with.
    delays : sequence of float, or mapping from feature space to that
        By how much a volume is later than the feature it answers.
    unit : {"seconds", "volumes"}
        Of the delays.
    uncovered : {"error", "drop", "zero"}
        What to do with volumes that a feature has no samples for.

    Returns
    -------
    items : DataFrame
    values : ndarray, shape (n, V)
        As in `methods.responses.timeseries`; the other parameters are for what joins them and the features.
    """
    return volumes(bold, events, frame_times=frame_times, nuisance=nuisance, trim=trim, device=device)


def presentations(task: Task) -> pd.DataFrame:
    """The presentations of a run, with ``stimulus_start`` as numbers where the events say it.

    Parameters
    ----------
    task : Task

    Returns
    -------
    DataFrame

    Raises
    ------
    DataError
        If a presentation has no duration, or a start is no number.
    """
    shown = trials_shown(task)
    brief = shown[~(shown["duration"] > 0)]
    if len(brief):
        raise DataError(
            f"{task.run.events}: {brief['stimulus_id'].iloc[0]} at {brief['onset'].iloc[0]:g} s has no duration; "
            "--response timeseries needs the seconds for which it was shown"
        )
    if "stimulus_start" in shown:
        starts = pd.to_numeric(shown["stimulus_start"], errors="coerce")
        if starts.isna().any():
            raise DataError(f"{task.run.events}: stimulus_start is empty or no number in some rows; write seconds")
        shown["stimulus_start"] = starts
    return shown


def estimate_series(task: Task) -> dict[str, Any]:
    """Write the volumes of one run that lie within its stimuli.

    Parameters
    ----------
    task : Task

    Returns
    -------
    dict
        As `single_trials.finish_run`; a trial is a presentation.

    Raises
    ------
    DataError
        If the bold is no time series, or fewer than two volumes lie within a stimulus.
    """
    shown = presentations(task)
    recording = load_run(task)
    times = recording.design.frame_times[recording.design.kept]
    items, values = call(
        timeseries, task.estimation, task.device, str(task.run.bold), recording.series, shown, times,
        recording.design.fitted_nuisance(),
    )  # fmt: skip
    if len(items) < 2:
        raise DataError(
            f"{task.run.events}: {len(items)} of {len(times)} volumes of {task.run.bold.name} lie within a stimulus; "
            "check onsets and durations, or trim less in [parameters.timeseries]"
        )
    values[:, ~recording.usable] = np.nan
    trials = trials_shown(task)
    trials["estimated"] = np.isin(np.arange(len(trials)), items["presentation"])
    trials["reason"] = np.where(trials["estimated"], "", "no volume within it")
    _write_run(task, recording, items.assign(onset=times[items["volume"]]), values)
    return {
        **run_quality(task, recording, trials), "warnings": [], "mean": recording.mean, "tsnr": recording.tsnr,
    }  # fmt: skip


def _write_run(task: Task, recording: Recording, items: pd.DataFrame, values: np.ndarray) -> None:
    run, out = task.run, task.derivatives
    table = pd.DataFrame(
        {
            "onset": items["onset"].round(6),
            "duration": run.tr,
            "stim_id": items["stimulus_id"],
            "time": items["time"],
            "clip_id": items["clip_id"],
            "volume": np.flatnonzero(recording.design.kept)[items["volume"]],
            "presentation": items["presentation"],
            "run": run.run,
            "ses": run.ses,
        }
    )
    rows, design = trials_of(task), write_design(task, recording.design)
    columns = {
        "Description": "Volumes that were acquired during a stimulus, one row a volume of the statmap beside it",
        "onset": {"Description": "When the volume was acquired, on the clock of the events", "Units": "s"},
        "time": {"Description": "The same, since the beginning of the stimulus", "Units": "s"},
        "volume": {"Description": "Volume of the bold, from 0"},
        "presentation": {"Description": "Row of the events that are scored, from 0"},
    }
    out.write_table(rows, table, columns)
    sidecar = {
        "Description": "Series of each voxel during stimuli, what was modelled beside them projected out",
        "Units": UNITS[task.estimation.standardize],
        "Estimator": "timeseries",
        "Confounds": list(recording.design.nuisance.regressors.columns),
        "VolumesLeftOut": np.flatnonzero(~recording.design.kept).tolist(),
        "SmoothingFWHM": task.estimation.smoothing,
        "StartTime": run.start_time,
        "RepetitionTimeOfSource": run.tr,
        "TaskName": run.task,
        "VolumeAxis": "clip",
        "TrialsFile": out.uri(rows),
        "Sources": [out.uri(p) for p in (*task.space.files(run.bold), run.events, run.confounds, run.mask) if p],
        "DesignFile": out.uri(design),
        "ConfigurationHash": input_digest(task),
    }
    out.write_map(betas_path(task), values, task.space, sidecar, maps=table["clip_id"].tolist())


def clip_rows(tasks: Sequence[Task]) -> pd.DataFrame:
    """Every volume within a stimulus, of all runs, in the order of presentation.

    Parameters
    ----------
    tasks : sequence of Task
        Whose series have been written.

    Returns
    -------
    DataFrame
        ``stimulus``, ``time``, ``onset``, ``task`` (its number), ``fitted`` (its number among the run's fitted volumes)
        and ``item``: the moment that it is a response to, or, where repeats are kept, the moment and which repeat.
    """
    parts = []
    for number, task in enumerate(tasks):
        table = read_table(trials_of(task))
        place = np.cumsum(read_table(design_of(task))["fitted"].to_numpy() == 1) - 1
        parts.append(
            pd.DataFrame(
                {"stimulus": table["stim_id"], "time": table["time"], "onset": table["onset"], "task": number,
                 "fitted": place[table["volume"]], "item": table["clip_id"].astype(str)}
            )
        )  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    if tasks[0].estimation.parameters.get("repeats", "average") == "keep":
        repeat = rows.groupby("item").cumcount()
        rows["item"] = [f"{item}#{k + 1}" if k else item for item, k in zip(rows["item"], repeat, strict=True)]
    return rows


def fitted_volumes(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Times of a run's fitted volumes, and what was modelled beside them, as they were written.

    Parameters
    ----------
    task : Task
        Whose series has been written.

    Returns
    -------
    times : ndarray, shape (kept,)
        Seconds.
    nuisance : ndarray, shape (kept, c)
    """
    design = read_table(design_of(task))
    kept = design["fitted"].to_numpy() == 1
    beside = design.drop(columns=[name for name in design if re.fullmatch(r"trial\d+|fitted", name)])
    times = task.run.start_time + task.run.tr * np.arange(len(design))
    return times[kept], beside.to_numpy(dtype=float)[kept]


def averaged(rows: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Mean over the rows of each item, items in the order in which they come first."""
    codes, items = pd.factorize(rows["item"])
    total = np.zeros((len(items), values.shape[1]))
    np.add.at(total, codes, values)
    return np.asarray(total / np.bincount(codes)[:, None])


def join_runs(tasks: Sequence[Task], *, work_dir: Path | None = None) -> Joined:
    """Z-score each run's volumes, and average those at the same time into the same stimulus.

    The z-scores wait in scratch files, so that memory holds one run's volumes and the averages.

    Parameters
    ----------
    tasks : sequence of Task
        Whose series have been written.
    work_dir : Path, optional
        Folder for scratch files, which are removed; by default the system's.

    Returns
    -------
    Joined
        Items are moments of stimuli: ``stimulus_id`` (``<stimulus>@<time>``), ``stimulus``, ``time``, ``n_repeats``,
        and ``shown``, the runs and seconds at which the volumes were acquired.
    """
    rows = clip_rows(tasks)
    names = [task.run.name.replace(" ", "") or "run" for task in tasks]
    shown = [f"{names[task]}@{onset:.3f}" for task, onset in zip(rows["task"], rows["onset"], strict=True)]
    grouped = rows.assign(shown=shown).groupby("item", sort=False)
    items = grouped.agg(
        stimulus=("stimulus", "first"), time=("time", "first"), n_repeats=("shown", "size"), shown=("shown", " ".join)
    )
    items = items.reset_index().rename(columns={"item": "stimulus_id"})
    moments = rows["item"].str.replace(r"#\d+$", "", regex=True).to_numpy(dtype=str)
    size = tasks[0].space.size
    values, reliability = np.empty((len(items), size), dtype=np.float32), np.empty(size)
    with scratch(work_dir) as folder:
        table = Stacked([_stored(task, folder / f"{number}.npy") for number, task in enumerate(tasks)])
        for voxels in blocks(size, BLOCK):
            part = table[:, voxels]
            values[:, voxels], reliability[voxels] = averaged(rows, part), split_half(part, moments)
    if not np.isfinite(values).all(axis=0).any():
        raise DataError(f"sub-{tasks[0].run.sub}: no voxel varies in every run; check masks and events")
    if len(items) == len(rows):
        reliability = _of_one(reliability, moments)
    _say_repeats(tasks, rows, moments)
    return Joined(Patterns(items, (Group("brain", values),), tasks[0].space), reliability)


def _stored(task: Task, path: Path) -> Stored:
    """A run's volumes in standard deviations, in a scratch file."""
    return Stored.of(path, standardized(task.space.read(betas_path(task))))


def _of_one(reliability: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Reliability of single responses, by Spearman and Brown, from that of their averages."""
    fewer = np.mean(1 / np.unique(moments, return_counts=True)[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        single = 1 / (1 + (1 / np.abs(reliability) - 1) / fewer)
    return np.asarray(np.sign(reliability) * single)


def _say_repeats(tasks: Sequence[Task], rows: pd.DataFrame, moments: np.ndarray) -> None:
    """Warn where a stimulus was repeated and its volumes never fall together."""
    counts = pd.Series(moments).value_counts()
    several = [
        name for name, some in rows.groupby("stimulus", sort=False)
        if some["task"].nunique() > 1 and counts[moments[some.index]].max() == 1
    ]  # fmt: skip
    if several:
        logger.warning(
            "sub-%s: volumes of %s fall at other times into it in each run, and were not averaged over repeats",
            tasks[0].run.sub, ", ".join(map(str, several[:5])),
        )  # fmt: skip
