"""Features of movies and sounds at the times of the volumes.

The one idea: a resampling is a (volumes x samples) operator that says how much of each sample is in each volume, and a
delay is the same operator at an earlier time; so averages, interpolation, convolution and delays are one product, and
gaps, trimmed ends and recordings that begin before or after the stimulus need no case of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from nilearn.glm.first_level import glover_hrf, spm_hrf
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_LOBES = 3
"""Lobes of the Lanczos kernel on each side."""

_HRF_STEP = 0.05
"""Seconds between the points of a haemodynamic response."""

_EDGE = 1e-6
"""Seconds by which times may miss each other and be the same."""


def resampling(times: ArrayLike, targets: ArrayLike, *, step: float, method: str = "mean") -> csr_array:
    """Features were brought to the volumes: the weight of each sample of a feature in each volume.

    With t the time of a volume, s that of a sample, and d the repetition time, the methods are

    - ``mean`` and ``sum``: over the samples with t - d/2 <= s < t + d/2;
    - ``last``: the last sample with s <= t;
    - ``lanczos``: the mean of samples weighted by w L((t - s) / d), where L(x) = sinc(x) sinc(x / 3) within
      -3 < x < 3 and 0 elsewhere, and w is the time for which the sample stands (half the way to its neighbours). This
      removes what is faster than the volumes can follow, 1 / (2d) (Duchon, 1979, Journal of Applied Meteorology 18,
      1016-1022);
    - ``spm``, ``glover``: convolved with that haemodynamic response, whose integral is 1: the integral of h(t - u) over
      the time u for which the sample stands.

    Windows are centred on the volume, so that no method but the convolutions moves a feature in time.

    Parameters
    ----------
    times : array-like, shape (m,)
        Seconds: the middle of what each sample describes, not falling.
    targets : array-like, shape (n,)
        Seconds of the volumes on the same clock; in any order, of either sign, with gaps.
    step : float
        The repetition time, in seconds.
    method : str
        A row of `RESAMPLINGS`.

    Returns
    -------
    csr_array, shape (n, m)
        An empty row for a volume without a sample. For ``last`` and ``lanczos``, that is also one more than d/2 before
        the first sample or after the last; a window that samples fill in part has the mean of those.

    Raises
    ------
    ValueError
        If the method is unknown, the step is not positive, or times are not finite or fall.
    """
    samples, volumes = np.asarray(times, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if method not in RESAMPLINGS:
        raise ValueError(f"method: expected one of {sorted(RESAMPLINGS)}, got {method!r}")
    if not 0 < step < np.inf:
        raise ValueError(f"step: expected a positive number of seconds, got {step}")
    for name, found in (("times", samples), ("targets", volumes)):
        if found.ndim != 1 or not np.isfinite(found).all():
            raise ValueError(f"{name}: expected finite seconds in one dimension, got shape {found.shape}")
    if (np.diff(samples) < 0).any():
        raise ValueError(f"times: expected seconds that do not fall, got a fall at sample {np.diff(samples).argmin()}")
    rows, columns, weights = RESAMPLINGS[method](samples, volumes, step)
    return csr_array((weights, (rows, columns)), shape=(len(volumes), len(samples)))


def resample(
    values: ArrayLike,
    times: ArrayLike,
    targets: ArrayLike,
    *,
    step: float,
    method: str = "mean",
    delays: Sequence[float] = (0.0,),
    unit: str = "seconds",
    fill: float = 0.0,
) -> Float:
    """Features were resampled to the volumes and repeated at each delay, so that a model can weigh them.

    Parameters
    ----------
    values : array-like, shape (m, p)
        Samples of p features.
    times : array-like, shape (m,)
        Seconds: the middle of what each sample describes.
    targets : array-like, shape (n,)
        Seconds of the volumes on the same clock.
    step : float
        The repetition time, in seconds.
    method : str
        As in `resampling`.
    delays : sequence of float
        By how much a volume is later than the feature it answers; at a delay of 4 s, the volume at 10 s has the
        feature of 6 s. Negative ones are those of a feature that is later than the volume.
    unit : {"seconds", "volumes"}
        Of the delays.
    fill : float
        What a volume without a sample gets, as before the beginning of the stimulus.

    Returns
    -------
    array, shape (n, len(delays) * p)
        All features at the first delay, then all at the second, and so on.

    Raises
    ------
    ValueError
        As `resampling`, if shapes disagree, or there is no delay.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or len(table) != np.size(times):
        raise ValueError(f"values: expected shape ({np.size(times)}, p) for {np.size(times)} times, got {table.shape}")
    if unit not in ("seconds", "volumes"):
        raise ValueError(f"unit: expected 'seconds' or 'volumes', got {unit!r}")
    if not len(delays) or not np.isfinite(delays).all():
        raise ValueError(f"delays: expected finite numbers, got {list(delays)}")
    parts = []
    for delay in np.asarray(delays, dtype=np.float64) * (step if unit == "volumes" else 1.0):
        operator = resampling(times, np.asarray(targets, dtype=np.float64) - delay, step=step, method=method)
        part = operator @ table
        part[np.diff(operator.indptr) == 0] = fill
        parts.append(part)
    return np.hstack(parts)


def at_clips(
    features: Mapping[str, tuple[ArrayLike, ArrayLike]],
    stimulus: Sequence[str],
    time: ArrayLike,
    *,
    step: float,
    method: str = "mean",
    delays: Sequence[float] = (0.0,),
    unit: str = "seconds",
    fill: float = 0.0,
) -> Float:
    """Features are looked up by stimulus and time within it.

    Before the beginning of a stimulus there is nothing, whatever was shown there: `on_run` knows that as well.

    Parameters
    ----------
    features : mapping from str to (times, values)
        For each stimulus, seconds (m,) since its beginning and samples (m, p).
    stimulus : sequence of str, length n
        The stimulus of each clip, as in the items of `timeseries`.
    time : array-like, shape (n,)
        Seconds into the stimulus.
    step, method, delays, unit, fill
        As in `resample`.

    Returns
    -------
    array, shape (n, len(delays) * p)

    Raises
    ------
    ValueError
        As `resample`, or if a stimulus has no features or stimuli differ in their number of features.
    """
    names, when = np.asarray(stimulus, dtype=object), np.asarray(time, dtype=np.float64)
    width = _width(features, sorted(set(names.tolist()))) * len(delays)
    out = np.full((len(names), width), fill)
    for name in sorted(set(names.tolist())):
        times, values = features[name]
        rows = names == name
        out[rows] = resample(values, times, when[rows], step=step, method=method, delays=delays, unit=unit, fill=fill)
    return out


def on_run(
    features: Mapping[str, tuple[ArrayLike, ArrayLike]],
    events: pd.DataFrame,
    frame_times: ArrayLike,
    *,
    step: float,
    method: str = "mean",
    delays: Sequence[float] = (0.0,),
    unit: str = "seconds",
) -> Float:
    """Features are laid out on a run's clock, where each stimulus was presented.

    Delays and convolution reach from one presentation into the next, as the response does; presentations that
    overlap are added. Where nothing is shown, features are 0.

    Parameters
    ----------
    features : mapping from str to (times, values)
        As in `at_clips`.
    events : DataFrame, one presentation a row
        As in `timeseries`; of a stimulus, what lies within the presentation's duration was shown.
    frame_times : array-like, shape (T,)
        Seconds of the volumes, on the clock of the onsets.
    step, method, delays, unit
        As in `resample`.

    Returns
    -------
    array, shape (T, len(delays) * p)

    Raises
    ------
    ValueError
        As `at_clips`.
    """
    names = events["stimulus_id"].astype(str).tolist()
    starts = events["stimulus_start"].tolist() if "stimulus_start" in events else [0.0] * len(names)
    frames = np.asarray(frame_times, dtype=np.float64)
    out = np.zeros((len(frames), _width(features, sorted(set(names))) * len(delays)))
    for name, onset, duration, start in zip(names, events["onset"], events["duration"], starts, strict=True):
        times = np.asarray(features[name][0], dtype=np.float64) - start
        shown = (times >= -_EDGE) & (times < duration - _EDGE)
        values = np.asarray(features[name][1], dtype=np.float64)[shown]
        out += resample(values, times[shown] + onset, frames, step=step, method=method, delays=delays, unit=unit)
    return out


def _width(features: Mapping[str, tuple[ArrayLike, ArrayLike]], names: Sequence[str]) -> int:
    """Number of features, the same for all stimuli."""
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(f"features: expected those of every stimulus, got none of {', '.join(missing[:5])}")
    widths = {np.shape(features[name][1])[1] for name in names}
    if len(widths) > 1:
        raise ValueError(f"features: expected the same number for every stimulus, got {sorted(widths)}")
    return widths.pop() if widths else 0


def _window(times: Float, targets: Float, step: float) -> tuple[Index, Index, Float]:
    rows, columns = _pairs(times, targets - step / 2, targets + step / 2)
    return rows, columns, np.ones(len(rows))


def _mean(times: Float, targets: Float, step: float) -> tuple[Index, Index, Float]:
    return _shares(*_window(times, targets, step), len(targets))


def _last(times: Float, targets: Float, step: float) -> tuple[Index, Index, Float]:
    columns = np.searchsorted(times, targets + _EDGE, side="right") - 1
    rows = np.flatnonzero((columns >= 0) & _inside(times, targets, step))
    return rows, columns[rows], np.ones(len(rows))


def _lanczos(times: Float, targets: Float, step: float) -> tuple[Index, Index, Float]:
    inside = np.flatnonzero(_inside(times, targets, step))
    reach = _LOBES * step
    rows, columns = _pairs(times, targets[inside] - reach, targets[inside] + reach)
    x = (targets[inside][rows] - times[columns]) / step
    weights = np.sinc(x) * np.sinc(x / _LOBES) * _spacing(times, step)[columns]
    return _shares(inside[rows], columns, weights, len(targets))


def _convolution(response: Callable[..., Float]) -> Callable[[Float, Float, float], tuple[Index, Index, Float]]:
    def weigh(times: Float, targets: Float, step: float) -> tuple[Index, Index, Float]:
        values = response(_HRF_STEP, 1)
        # nilearn spreads its points from 0 to 32 s, both included.
        stamps = np.linspace(0, 32.0, len(values))
        passed = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2)])
        passed /= passed[-1]
        half = _spacing(times, step) / 2
        widest = half.max(initial=0.0)
        rows, columns = _pairs(times, targets - stamps[-1] - widest, targets + widest)
        late = targets[rows] - times[columns]
        weights = np.interp(late + half[columns], stamps, passed) - np.interp(late - half[columns], stamps, passed)
        return rows, columns, weights

    return weigh


def _pairs(times: Float, begin: Float, end: Float) -> tuple[Index, Index]:
    """Volume and sample of each sample with begin <= time < end."""
    first = np.searchsorted(times, begin - _EDGE)
    counts = np.maximum(np.searchsorted(times, end - _EDGE) - first, 0)
    rows = np.repeat(np.arange(len(begin)), counts)
    before = np.cumsum(counts) - counts
    return rows, np.arange(counts.sum()) - np.repeat(before - first, counts)


def _shares(rows: Index, columns: Index, weights: Float, n: int) -> tuple[Index, Index, Float]:
    """Weights that sum to 1 over the samples of a volume."""
    total = np.bincount(rows, weights, n)[rows]
    there = total > 0
    return rows[there], columns[there], weights[there] / total[there]


def _inside(times: Float, targets: Float, step: float) -> NDArray[np.bool_]:
    """Volumes within half a repetition time of the feature."""
    if not len(times):
        return np.zeros(len(targets), dtype=bool)
    return (targets >= times[0] - step / 2 - _EDGE) & (targets <= times[-1] + step / 2 + _EDGE)


def _spacing(times: Float, step: float) -> Float:
    """Seconds for which each sample stands: half the way to its neighbours, or the whole way to its only one."""
    return np.gradient(times) if len(times) > 1 else np.full(len(times), step)


RESAMPLINGS = {
    "mean": _mean,
    "sum": _window,
    "last": _last,
    "lanczos": _lanczos,
    "spm": _convolution(spm_hrf),
    "glover": _convolution(glover_hrf),
}
