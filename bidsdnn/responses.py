"""From the responses to trials to one response per stimulus.

Runs are estimated by workers, each on its own; the parent z-scores the trials within runs and averages those of a
stimulus. A model of all runs takes the place of both where one was asked for.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.across_runs import Joint, Stacked, Stored, estimate_jointly, scratch
from bidsdnn.bids.dataset import Run
from bidsdnn.bids.files import digest, read_json, read_table
from bidsdnn.bids.runs import SPACE
from bidsdnn.conditions import items_path, read_conditions
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods.ceiling import ncsnr, split_half
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.responses import ACROSS_RUNS, RESPONSES, standardized
from bidsdnn.nuisance import SCRUB_MM
from bidsdnn.parallel import Map
from bidsdnn.patterns import Group, Patterns
from bidsdnn.recordings import BLOCK, Task
from bidsdnn.series import estimate_series, join_runs, timeseries
from bidsdnn.single_trials import UNITS, betas_path, design_of, estimate_run, input_digest, trials_of

logger = logging.getLogger(__name__)

ESTIMATORS: dict[str, Any] = {**RESPONSES, **ACROSS_RUNS, "timeseries": timeseries}

JOINT_MAPS = {
    "hrf": "Response of the library that fits best, counted from 1",
    "r2": "Share of variance that the model explains, nuisance aside",
    "onoffr2": "Share of variance that one regressor of all trials explains",
    "fraction": "Length of the responses as a share of that without ridge",
    "noisepool": "Voxels whose components were modelled as noise",
}

SOFTWARE = ("bids", "bids-apps", "pybids", "nibabel", "nilearn", "numpy", "scipy", "pandas")
ANNOTATIONS = ("Notes", "Anatomy", "Mesh", "InflatedMesh")
"""Keys of the quality table's sidecar that no number depends on."""

STRATEGY_WORDS = {
    "motion": "six motion parameters",
    "motion-6": "six motion parameters",
    "motion-12": "six motion parameters and their derivatives",
    "motion-24": "six motion parameters, their derivatives and the squares of both",
    "wm_csf": "mean signals of white matter and cerebrospinal fluid",
    "global_signal": "the global signal",
    "compcor": "components of CompCor",
    "acompcor": "components of anatomical CompCor",
    "tcompcor": "components of temporal CompCor",
    "ica_aroma": "components that ICA-AROMA calls motion",
}
"""Strategies in the words of the Methods."""


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


@dataclass(frozen=True, eq=False)
class Averaged:
    """Responses to stimuli, and how far their repeats agree.

    Parameters
    ----------
    patterns : Patterns
        One item a stimulus, in sorted order, with ``n_repeats``.
    reliability : ndarray, shape (size,)
        Of the responses averaged over repeats, by split halves.
    ncsnr : ndarray, shape (size,), or None
        Signal-to-noise ratio of a trial, from the variance of repeats.
    """

    patterns: Patterns
    reliability: np.ndarray
    ncsnr: np.ndarray | None = None


def average_runs(tasks: Sequence[Task], *, work_dir: Path | None = None) -> Averaged:
    """Z-score each run's responses and average them over the trials of each stimulus.

    Reliability comes from the same pass: trials of a stimulus, whatever run or session they are in, go alternately to
    two halves. The z-scores wait in scratch files, so that memory holds one run's responses, however many runs there
    are, and the averages.

    Parameters
    ----------
    tasks : sequence of Task
        Whose responses have been written.
    work_dir : Path, optional
        Folder for scratch files, which are removed; by default the system's.

    Returns
    -------
    Averaged
    """
    ids: list[str] = []
    with scratch(work_dir) as folder:
        stored = []
        for number, task in enumerate(tasks):
            trials = read_table(trials_of(task))
            keep = trials["estimated"].astype(str).str.lower().eq("true").to_numpy()
            if keep.sum() < 2:
                # A single trial has no spread to be scored by.
                logger.warning("sub-%s: %s has one usable trial and was left out", task.run.sub, task.run.name)
                continue
            scores = standardized(task.space.read(betas_path(task))[keep])
            stored.append(Stored.of(folder / f"{number}.npy", scores))
            ids.extend(trials.loc[keep, "stim_id"].tolist())
        if stored:
            items = pd.DataFrame({"stimulus_id": ids})
            patterns = Patterns(items, (Group("brain", Stacked(stored)),), tasks[0].space)
            averaged = _averaged(patterns)
            if np.isfinite(averaged.patterns.values).all(axis=0).any():
                return averaged
    raise DataError(f"sub-{tasks[0].run.sub}: no voxel has responses that vary in every run; check masks and events")


def _averaged(trials: Patterns) -> Averaged:
    """Averages over the trials of each stimulus, and their reliability, a block of columns at a time."""
    stimulus, table = np.asarray(trials.ids, dtype=str), trials.groups[0].values
    reliability, snr = (np.empty(table.shape[1]) for _ in range(2))
    for voxels in blocks(table.shape[1], BLOCK):
        part = table[:, voxels]
        reliability[voxels], snr[voxels] = split_half(part, stimulus), ncsnr(part, stimulus)
    return Averaged(trials.average(), reliability, snr)


def is_joint(response: str) -> bool:
    """Whether an estimator takes all runs at once; a user's own does if it has a parameter ``bolds``."""
    estimator = resolve(response, ESTIMATORS)
    return response in ACROSS_RUNS or "bolds" in inspect.signature(estimator).parameters


def _estimated(tasks: Sequence[Task], *, map: Map, work_dir: Path | None) -> tuple[Averaged, Joint]:
    """Responses to stimuli, and what is known of each run."""
    label = f"sub-{tasks[0].run.sub} responses"
    if tasks[0].estimation.response == "timeseries":
        found = map(estimate_series, tasks, label=label)
        return Averaged(*join_runs(tasks, work_dir=work_dir)), Joint(found)
    if not is_joint(tasks[0].estimation.response):
        found = map(estimate_run, tasks, label=label)
        return average_runs(tasks, work_dir=work_dir), Joint(found)
    joint = estimate_jointly(tasks, map=map, work_dir=work_dir)
    if joint.items is None or joint.values is None or joint.reliability is None:
        return average_runs(tasks, work_dir=work_dir), joint
    if not np.isfinite(joint.values).all(axis=0).any():
        raise DataError(f"sub-{tasks[0].run.sub}: no voxel has a response to every stimulus; check masks and events")
    patterns = Patterns(joint.items, (Group("brain", joint.values),), tasks[0].space)
    return Averaged(patterns, joint.reliability), joint


def methods_text(tasks: Sequence[Task]) -> str:
    """What was done to the series, in sentences for the report.

    Parameters
    ----------
    tasks : sequence of Task
        Of one participant.

    Returns
    -------
    str
    """
    estimation = tasks[0].estimation
    sentences = [summary(resolve(estimation.response, ESTIMATORS))]
    beside = f"{_modelled(tasks)} were modelled beside them."
    if estimation.response in ("fir", "window", "glmsingle", "timeseries"):
        sentences.append(beside[0].upper() + beside[1:])
    else:
        whose = {"spm": "SPM's", "glover": "Glover's"}.get(estimation.hrf, f"the {estimation.hrf}")
        sentences.append(f"Events were convolved with {whose} haemodynamic response; {beside}")
    limit = SCRUB_MM if estimation.fd_threshold is None and "scrub" in estimation.confounds else estimation.fd_threshold
    if limit is not None:
        sentences.append(f"Volumes with a framewise displacement above {limit:g} mm were left out of the fit.")
    if estimation.noise == "ar1":
        sentences.append("Noise was modelled as autoregressive of order 1.")
    if estimation.smoothing:
        sentences.append(f"Images were smoothed with a kernel of {estimation.smoothing:g} mm (FWHM).")
    scaled = {"psc": "percent signal change", "zscore": "standard deviations"}
    if estimation.standardize in scaled:
        sentences.append(f"Each voxel's series was expressed in {scaled[estimation.standardize]} within runs.")
    if estimation.response == "condition":
        sentences.append("Reliability was that of the same model of odd and of even runs.")
    elif estimation.response == "timeseries":
        sentences.append(
            "Volumes were z-scored within runs"
            + (
                "."
                if estimation.parameters.get("repeats") == "keep"
                else " and averaged over presentations of the same moment of a stimulus."
            )
        )
    else:
        sentences.append("Responses were z-scored within runs and averaged over the trials of a stimulus.")
    return " ".join(sentences)


def _modelled(tasks: Sequence[Task]) -> str:
    """What stood in the model beside the trials, in words."""
    with_motion = sum(task.run.confounds is not None for task in tasks)
    some = "" if with_motion == len(tasks) else f" (in {with_motion} of {len(tasks)} runs)"
    names = [STRATEGY_WORDS.get(name, name) for name in tasks[0].estimation.confounds if name not in ("none", "scrub")]
    motion = [f"{', '.join(names)}{some}"] if with_motion and names else []
    others = ["events that were not scored"] if any((~task.events["trial"]).any() for task in tasks) else []
    named = [*motion, "slow cosines", *others]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _write_run_tables(first: Task, found: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write what is known of each volume, and of each trial without response, of all runs."""
    out, written = first.derivatives, []
    for key, text in (
        ("volumes", "Motion of each volume, and why it was left out of the fit; empty where it was not"),
        ("dropped", "Trials without a response, and why"),
    ):
        path = out.path("results", ".tsv", **first.entities, desc=key)
        written.append(out.write_table(path, pd.concat([one[key] for one in found]), {"Description": text}))
    return written


def responses(
    tasks: Sequence[Task], *, sidecar: Mapping[str, Any], map: Map, work_dir: Path | None = None
) -> tuple[Patterns, np.ndarray, str]:
    """Responses of one participant to each stimulus, read if they are there and computed if not.

    Parameters
    ----------
    tasks : sequence of Task
        One a run, of one participant.
    sidecar : mapping
        Further keys of the quality table's JSON file.
    map : callable
        Spreads runs over workers.
    work_dir : Path, optional
        Folder for scratch files.

    Returns
    -------
    patterns : Patterns
        One item a stimulus.
    reliability : ndarray, shape (size,)
        Of the responses averaged over repeats.
    content : str
        Hash of everything the responses depend on.
    """
    first = tasks[0]
    out, entities = first.derivatives, dict(first.entities)
    numbers = {key: value for key, value in sidecar.items() if key not in ANNOTATIONS}
    content = digest({"runs": map(input_digest, tasks), "sidecar": numbers})
    quality = out.path("results", ".tsv", **entities, desc="quality")
    if out.current("condition", content, **entities):
        logger.info("sub-%s: responses are up to date", entities["sub"])
        out.annotate(quality, sidecar)
        try:
            return *read_conditions(first.derivatives, first.space, first.entities), content
        except (DataError, ValueError) as error:
            logger.warning("sub-%s: %s; computed again", entities["sub"], error)
    averaged, joint = _estimated(tasks, map=map, work_dir=work_dir)
    once = int((averaged.patterns.items["n_repeats"] == 1).sum())
    warned = [text for one in joint.found for text in one["warnings"]]
    for warning in dict.fromkeys([*warned, *joint.left_out]):
        logger.warning("sub-%s: %s", entities["sub"], warning)
    estimation = first.estimation
    common = {
        **sidecar,
        "ConfigurationHash": content,
        "Estimation": vars(estimation),
        "Methods": methods_text(tasks) + (f" {summary(ncsnr)}" if _has_ncsnr(averaged) else ""),
        "StimuliSeenOnce": once,
        "Omitted": [*warned, *joint.left_out, *_seen_once(once, len(averaged.patterns))],
        "References": [*SOFTWARE, *_cited(tasks, averaged)],
    }
    written = _write(first, averaged, joint, common)
    designs = [os.path.relpath(design_of(task), quality.parent) for task in tasks]
    out.write_table(quality, pd.DataFrame([one["quality"] for one in joint.found]), {**common, "DesignFiles": designs})
    written += _write_run_tables(first, joint.found)
    written += [path for task in tasks for path in (betas_path(task), trials_of(task))] if joint.items is None else []
    written += [design_of(task) for task in tasks]
    out.write_receipt("condition", written, common, **entities)
    return averaged.patterns, averaged.reliability.astype(np.float32), content


def _cited(tasks: Sequence[Task], averaged: Averaged) -> list[str]:
    """Works on what was done to the series; a user's own estimator is cited by the user."""
    estimation = tasks[0].estimation
    with_motion = any(task.run.confounds is not None for task in tasks)
    # A strategy's number of components is no matter here: acompcor-10 is CompCor.
    named = {f"{name}-" for name in estimation.confounds} if with_motion else set()
    used = {
        **dict.fromkeys(("glmdenoise", "fracridge"), estimation.response == "glmsingle"),
        "ar1": estimation.noise == "ar1",
        "fmriprep": _by_fmriprep(tasks[0]),
        "motion": with_motion,
        "motion-24": "motion-24-" in named,
        "compcor": any(name.lstrip("at").startswith("compcor-") for name in named),
        "ica-aroma": "ica_aroma-" in named,
        "ncsnr": _has_ncsnr(averaged),
    }
    own = [estimation.response] if estimation.response in ESTIMATORS else []
    return [*own, *(key for key, yes in used.items() if yes)]


def _has_ncsnr(averaged: Averaged) -> bool:
    return averaged.ncsnr is not None and bool(np.isfinite(averaged.ncsnr).any())


def _by_fmriprep(task: Task) -> bool:
    """Whether fMRIPrep made the images, as their dataset says; of one that says nothing its name decides."""
    source = task.run.source
    said = read_json(task.derivatives.links.get(source, Path()) / "dataset_description.json").get("GeneratedBy")
    makers = [str(one.get("Name", "")) for one in said] if said else [source]
    return source != "raw" and any("fmriprep" in name.lower() for name in makers)


def _seen_once(once: int, n_stimuli: int) -> list[str]:
    if not once:
        return []
    how = "all" if once == n_stimuli else f"{once:,} of {n_stimuli:,}"
    return [f"Stimuli shown once: {how}; they are analysed, and reliability rests on the others."]


def _condition_paths(task: Task) -> dict[str, Path]:
    """Where the maps of responses to stimuli are, by what they show."""
    maps = ("effect", "reliability", "noiseceiling", "ncsnr")
    return {
        **{stat: _map_path(task, stat, "condition") for stat in maps},
        **{stat: _map_path(task, stat, "quality") for stat in ("mean", "tsnr")},
    }


def _map_path(task: Task, stat: str, desc: str) -> Path:
    return task.derivatives.image_path("statmap", task.space, **task.entities, stat=stat, desc=desc)


def _write(first: Task, averaged: Averaged, joint: Joint, common: Mapping[str, Any]) -> list[Path]:
    """Write responses to stimuli, their reliability, and maps of the bold."""
    out, paths, items = first.derivatives, _condition_paths(first), items_path(first.derivatives, first.entities)
    table = averaged.patterns.items.rename(columns={"stimulus_id": "stim_id"})
    out.write_table(items, table, {"Description": "Stimuli, one row a volume of the statmap beside it"})
    scored = joint.items is None
    effect = {
        "Description": "Mean over trials of responses z-scored within runs" if scored else "Response to each stimulus",
        "Units": "z" if scored else UNITS[first.estimation.standardize],
        "VolumeAxis": "stimulus",
        "TrialsFile": out.uri(items),
    }
    reliable = averaged.reliability
    maps: dict[Path, tuple[np.ndarray, dict[str, Any]]] = {
        paths["effect"]: (averaged.patterns.values, effect),
        paths["reliability"]: (
            reliable,
            {"Description": "Reliability of the responses to stimuli, from split halves of repeats", "Units": "r"},
        ),
        paths["noiseceiling"]: (
            np.sqrt(np.clip(reliable, 0, None)),
            {"Description": "Highest r to be expected: the square root of the reliability", "Units": "r"},
        ),
    }
    if averaged.ncsnr is not None:
        text = "Signal over noise of a trial (standard deviations), from the variance of repeats"
        maps[paths["ncsnr"]] = (averaged.ncsnr, {"Description": text, "Units": "ratio"})
    for key in ("mean", "tsnr"):
        average = np.mean([one[key] for one in joint.found], axis=0)
        maps[paths[key]] = (average, {"Description": f"{key} of the bold over volumes, mean over runs"})
    for stat, values in joint.maps.items():
        text = f"{JOINT_MAPS.get(stat, stat)} ({first.estimation.response})"
        maps[_map_path(first, stat, "estimation")] = (values, {"Description": text})
    for path, (values, about) in maps.items():
        named = averaged.patterns.ids if path == paths["effect"] else None
        out.write_map(path, values, first.space, {**common, **about}, maps=named)
    mask = out.image_path("mask", first.space, **first.entities, desc="brain")
    out.write_mask(mask, first.space)
    return [*maps, items, mask]
