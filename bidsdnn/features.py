"""Feature spaces beside the networks: for each response, the row of its stimulus, or the samples of its moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn import computed, extraction
from bidsdnn.bids.feature_files import Course
from bidsdnn.bids.features import Features, read_features
from bidsdnn.bids.files import digest
from bidsdnn.config import Config
from bidsdnn.design import canonical
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.lookup import closest
from bidsdnn.methods.continuous import RESAMPLINGS, on_run, resample
from bidsdnn.methods.responses import HRFS
from bidsdnn.networks import controls
from bidsdnn.parallel import Outcome, attempt
from bidsdnn.patterns import Group, Patterns
from bidsdnn.recordings import Task
from bidsdnn.report.methods import REFERENCES
from bidsdnn.series import REPEATS, UNCOVERED, averaged, clip_rows, fitted_volumes, presentations
from bidsdnn.stimuli import Stimuli

_WINDOWS = ("mean", "sum")
"""Resamplings that have nothing to say of a volume between two samples."""
_EDGE = 1e-6


@dataclass(frozen=True)
class Alignment:
    """How one feature space comes to the volumes."""

    method: str
    delays: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, name: str, config: Config) -> Alignment:
        """What a configuration says of a feature space."""
        own = config.parameters.get("timeseries", {})
        delays = _chosen(own.get("delays", ()), name, ())
        method = _chosen(own.get("method", ""), name, "") or ("mean" if delays else canonical(config.hrf))
        return cls(str(method), tuple(float(one) for one in delays) or (0.0,), str(own.get("unit", "seconds")))


def _chosen(value: Any, name: str, default: Any) -> Any:
    return value.get(name, default) if isinstance(value, Mapping) else value


def check_features(config: Config) -> None:
    """Check feature spaces, and what is asked of series, before any data is read.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError, MissingInputError
    """
    controls.check(config.computed_features)
    for name, path in config.features.items():
        if name in config.computed_features:
            raise ConfigError(f"--features {name}={path}: also computed; give the file another name")
        if not path.exists():
            raise MissingInputError(f"--features {name}={path}: no such file or folder; check the path")
        if name in [spec.alias or spec.name for spec in config.networks]:
            raise ConfigError(f"--features {name}: a network has this name; give the features another")
    if config.response == "timeseries":
        _check_series(config, config.parameters.get("timeseries", {}))


def _check_series(config: Config, own: Mapping[str, Any]) -> None:
    if config.networks and config.analysis_level == "participant":
        raise ConfigError(
            "--response timeseries: a network has one row for a stimulus and none for its moments; use --network none "
            "and --features NAME=PATH"
        )
    for name in ("rsa", "similarity", "searchlight"):
        if name in config.analysis:
            raise ConfigError(
                f"--analysis {name}: its test permutes labels, which moments of a series do not bear; with --response "
                "timeseries use --analysis encoding"
            )
    if config.hrf != canonical(config.hrf):
        raise ConfigError(f"--hrf {config.hrf}: features are convolved with spm or glover; use delays for other shapes")
    for key, known in (("repeats", REPEATS), ("uncovered", UNCOVERED), ("unit", ("seconds", "volumes"))):
        if own.get(key, known[0]) not in known:
            raise ConfigError(f"parameters.timeseries.{key} = {own[key]!r}: expected one of {', '.join(known)}")
    known_spaces = (*config.features, *config.computed_features)
    for key in ("method", "delays"):
        for name in own[key] if isinstance(own.get(key), Mapping) else ():
            if name not in known_spaces:
                raise ConfigError(
                    f"parameters.timeseries.{key}.{name}: no such --features; {closest(name, known_spaces)}"
                )
    for name in known_spaces:
        _check_alignment(name, config, own)


def _check_alignment(name: str, config: Config, own: Mapping[str, Any]) -> None:
    delays, method = _chosen(own.get("delays", ()), name, ()), _chosen(own.get("method", ""), name, "")
    if not isinstance(delays, Sequence) or not all(isinstance(one, int | float) for one in delays):
        raise ConfigError(f"parameters.timeseries.delays = {delays!r}: expected a list of numbers, as [2, 4, 6]")
    if method and method not in RESAMPLINGS:
        raise ConfigError(f"parameters.timeseries.method = {method!r}: {closest(str(method), RESAMPLINGS)}")


def covered(config: Config, loaded: Sequence[Outcome]) -> list[Outcome]:
    """Open the feature spaces, and look for what each participant was shown, before hours are spent on responses.

    Parameters
    ----------
    config : Config
    loaded : sequence of Outcome
        Values are participants, with `runs` and with what was shown as `shown`.

    Returns
    -------
    list of Outcome
        Those whose stimuli or runs have no features fail.

    Raises
    ------
    DataError, MissingInputError
        If a feature space cannot be read.
    """
    spaces = [read_features(name, path) for name, path in config.features.items()]

    def found(one: Any) -> Any:
        ids = one.shown.stimuli["stimulus_id"].tolist()
        for space in spaces:
            if config.response != "timeseries":
                space.rows(ids)
                continue
            _require_moments(space)
            for name in () if space.recordings else ids:
                space.course_of(name)
            for run in one.runs if space.recordings else ():
                space.recording(run)
        return one

    return [one if one.error is not None else attempt(partial(found, one.value), one.name) for one in loaded]


def _require_moments(space: Features) -> None:
    if space.stimuli is not None:
        raise DataError(f"{space.flag}: one row a stimulus says nothing of its moments; give onsets")


def described(config: Config) -> str:
    """How feature spaces come to the responses, in sentences for the Methods; empty where there are none.

    Parameters
    ----------
    config : Config

    Returns
    -------
    str
    """
    made = computed.described(config.computed_features)
    if config.networks and (said := extraction.described(config)):
        made = f" {said}{made}"
    names = ", ".join(config.features)
    if config.response != "timeseries":
        said = f" Features ({names}) have a row a stimulus and stand where a network's layer does."
        return made + said if names else made
    if config.computed_features:
        made += f" They were computed of clips of {sample_seconds(config):g} s."
    ways: dict[str, list[str]] = {}
    for name in (*config.features, *config.computed_features):
        alignment = Alignment.of(name, config)
        way = f"convolved with the {alignment.method} response"
        if alignment.method not in HRFS:
            way = f"resampled to the volumes ({alignment.method})"
        if alignment.delays != (0.0,):
            unit = "s" if alignment.unit == "seconds" else "volumes"
            way += f" at delays of {', '.join(f'{one:g}' for one in alignment.delays)} {unit}"
        ways.setdefault(way, []).append(name)
    said = "; ".join(f"{', '.join(some)} {way}" for way, some in ways.items())
    return made + (
        f" Features were brought to the times of the volumes: {said}. What was projected out of the "
        "responses was projected out of them, and their columns were z-scored over volumes."
    )


def references(config: Config) -> list[str]:
    """Works that what `described` says rests on, as keys of `bidsdnn.report.methods.REFERENCES`."""
    reduced = {"random-projection": config.projection is not None, "dnnbrain": config.pca is not None}
    made = [key for key, used in reduced.items() if used and config.networks]
    return made + [name for name in config.computed_features if name in REFERENCES]


def sample_seconds(config: Config) -> float:
    """How long a clip is of which a computed feature of a movie or sound has one value."""
    return config.clip_duration or 1.0


def moments(table: Patterns, stimuli: Stimuli) -> Patterns:
    """Features of clips, with the movie or sound that each is of (``stimulus``) and its middle in seconds (``time``).

    Parameters
    ----------
    table : Patterns
        One item a clip.
    stimuli : Stimuli
        From `Stimuli.cut`.

    Returns
    -------
    Patterns
        In the order of `stimuli`.
    """
    of = [name.rpartition("@")[0] for name in stimuli.ids]
    middle = stimuli.table[["start", "stop"]].mean(axis=1)
    items = pd.DataFrame({"stimulus_id": stimuli.ids, "stimulus": of, "time": middle})
    return replace(table.match(Patterns(items, ())), items=items)


def _in_time(table: Patterns, content: str) -> Features:
    """What was computed of clips, as samples of the movies and sounds."""
    (group,) = table.groups
    values = np.asarray(group.values[:, :])
    parts = table.items.groupby("stimulus", sort=False)
    courses = {str(name): Course(rows["time"].to_numpy(), values[rows.index]) for name, rows in parts}
    return Features(group.name, Path(), courses=courses, content=content)


def beside(
    config: Config, tasks: Sequence[Task], brain: Patterns, extracted: Sequence[tuple[Patterns, str]] = ()
) -> tuple[Patterns, list[tuple[Patterns, str]]]:
    """Read the feature spaces and bring them to a participant's responses.

    Parameters
    ----------
    config : Config
    tasks : sequence of Task
        Of the participant.
    brain : Patterns
    extracted : sequence of (Patterns, str)
        What was computed from the stimuli, with a hash; of series as `moments` says it.

    Returns
    -------
    brain : Patterns
        Without the volumes that a feature does not cover, where those are to be dropped.
    features : list of (Patterns, str)
        Those computed from the stimuli, and the feature spaces, with a hash of what each depends on.

    Raises
    ------
    DataError
        If a stimulus or run has no features, or a feature does not cover a volume.
    """
    spaces = [read_features(name, path) for name, path in config.features.items()]
    if config.response != "timeseries":
        return brain, [*extracted, *((space.rows(brain.ids), space.content) for space in spaces)]
    spaces += [_in_time(table, content) for table, content in extracted]
    rows = clip_rows(tasks)
    uncovered = str(config.parameters.get("timeseries", {}).get("uncovered", "error"))
    kept, found = np.ones(len(brain), dtype=bool), []
    for space in spaces:
        alignment = Alignment.of(space.name, config)
        values, inside = _at_volumes(space, tasks, rows, alignment)
        if uncovered == "error" and not inside.all():
            first = rows[~inside].iloc[0]
            raise DataError(
                f"{space.flag}: nothing for {int((~inside).sum())} of {len(rows)} volumes, "
                f"the first {first['item']} in {tasks[first['task']].run.name}; give more samples, trim the ends, "
                'or say [parameters.timeseries] uncovered = "drop" or "zero"'
            )
        if uncovered == "drop":
            kept &= averaged(rows, inside[:, None].astype(float))[:, 0] == 1
        made = digest(
            {"features": space.content_of([t.run for t in tasks]), "alignment": vars(alignment), "as": uncovered}
        )
        found.append((space.name, averaged(rows, values), made))
    if kept.sum() < 2:
        raise DataError(f"--features: {int(kept.sum())} of {len(brain)} volumes are covered by all features; give more")
    brain = brain if kept.all() else brain.take(np.flatnonzero(kept))
    items = pd.DataFrame({"stimulus_id": brain.ids})
    return brain, [
        (Patterns(items, (Group(name, _scaled(values[kept]), name),)), digest({"made": made, "kept": kept.tolist()}))
        for name, values, made in found
    ]


def _at_volumes(
    space: Features, tasks: Sequence[Task], rows: pd.DataFrame, alignment: Alignment
) -> tuple[np.ndarray, np.ndarray]:
    """Features at each volume of all runs, and which volumes lie within the samples."""
    _require_moments(space)
    values, within = [], []
    for number, task in enumerate(tasks):
        part, tr = rows[rows["task"] == number], task.run.tr
        frames, nuisance = fitted_volumes(task)
        if space.recordings:
            course = space.recording(task.run)
            _check_rate(space, course, tr, alignment)
            within.append(_covered(course, part["onset"].to_numpy(), tr))
            whole = resample(course.values, course.times, frames, step=tr, **vars(alignment))
        else:
            shown = presentations(task)
            courses = {name: space.course_of(name) for name in sorted(set(shown["stimulus_id"]))}
            inside = np.zeros(len(part), dtype=bool)
            for name, course in courses.items():
                _check_rate(space, course, tr, alignment)
                of = (part["stimulus"] == name).to_numpy()
                inside[of] = _covered(course, part["time"].to_numpy()[of], tr)
            within.append(inside)
            whole = on_run(courses, shown, frames, step=tr, **vars(alignment))
        # As from the responses: a regression on what is left is the one with the nuisance in the model.
        basis = np.linalg.qr(nuisance / np.maximum(np.linalg.norm(nuisance, axis=0), 1e-300))[0]
        whole -= basis @ (basis.T @ whole)
        values.append(whole[part["fitted"]])
    return np.vstack(values), np.concatenate(within)


def _covered(course: Course, times: np.ndarray, tr: float) -> np.ndarray:
    """Whether a volume is at most half a repetition time, or half a step between samples, beyond the samples."""
    reach = max(tr, _spacing(course)) / 2 + _EDGE
    return np.asarray((times >= course.times[0] - reach) & (times <= course.times[-1] + reach))


def _check_rate(space: Features, course: Course, tr: float, alignment: Alignment) -> None:
    if alignment.method in _WINDOWS and _spacing(course) > tr + _EDGE:
        raise DataError(
            f"{space.flag}: a sample every {_spacing(course):g} s for a volume every {tr:g} s "
            f'leaves volumes without any; use [parameters.timeseries] method = "last", not {alignment.method}'
        )


def _spacing(course: Course) -> float:
    return float(np.median(np.diff(course.times))) if len(course.times) > 1 else 0.0


def _scaled(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1, so that units do not decide what ridge keeps; constant ones are 0."""
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    flat = spread <= 1e-12 * np.abs(values).max(axis=0, initial=0)
    return np.asarray(np.where(flat, 0, centred / np.where(flat, 1, spread)))
