"""What a volume holds of each event: haemodynamic responses, their derivatives, or an impulse at each delay.

The one idea: a boxcar convolved with a kernel is the difference of two shifted cumulative sums of that kernel, so
no convolution is needed, and only the two fine grid points around each volume are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from nilearn.glm.first_level.hemodynamic_models import (
    glover_dispersion_derivative,
    glover_hrf,
    glover_time_derivative,
    spm_dispersion_derivative,
    spm_hrf,
    spm_time_derivative,
)
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Kernel = Callable[[float, int], Float]
"""From a repetition time and a number of points within it to the response's samples, as nilearn's functions are."""

_OVERSAMPLING = 50
LEAD_IN = 24.0
"""Seconds before the first volume in which an event still counts (nilearn's ``min_onset``)."""

_KERNELS: dict[str, tuple[Kernel, ...]] = {
    "spm": (spm_hrf,),
    "spm + derivative": (spm_hrf, spm_time_derivative),
    "spm + derivative + dispersion": (spm_hrf, spm_time_derivative, spm_dispersion_derivative),
    "glover": (glover_hrf,),
    "glover + derivative": (glover_hrf, glover_time_derivative),
    "glover + derivative + dispersion": (glover_hrf, glover_time_derivative, glover_dispersion_derivative),
}
HRFS = tuple(_KERNELS)
"""The haemodynamic responses, in nilearn's names."""


def trial_regressors(
    onsets: ArrayLike, durations: ArrayLike, *, frame_times: ArrayLike, hrf: str | Kernel = "spm"
) -> Float:
    """Each event is convolved with a canonical haemodynamic response, on a grid of 50 points per scan.

    Equal to nilearn's ``compute_regressor`` of one event of amplitude 1 at a time. Unlike nilearn, which moves it
    to the start of the grid, an event that is over 24 s before the first volume gives zeros.

    Parameters
    ----------
    onsets, durations : array-like, shape (n_trials,)
        Seconds, on the clock of ``frame_times``.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired. Volumes may be missing (scrubbed): the others get what they
        would have got with them.
    hrf : str or callable
        One of `HRFS`, of which the first regressor is returned, without derivatives; or a function of the
        repetition time and the oversampling that returns samples of a response, as nilearn's are.

    Returns
    -------
    array, shape (T, n_trials)

    Raises
    ------
    ValueError
        If ``hrf`` is unknown, times are not finite, or a duration is negative.
    """
    return np.ascontiguousarray(_sampled(onsets, durations, frame_times, _kernels(hrf)[:1])[0][:, 0].T)


def trial_basis(
    onsets: ArrayLike, durations: ArrayLike, *, frame_times: ArrayLike, hrf: str | Kernel = "spm"
) -> tuple[Float, Float]:
    """Each event is convolved with a haemodynamic response and, where asked, its derivatives.

    The response to a trial is how much of the canonical regressor is in what the trial's regressors fit together.
    That is the canonical regressor's beta in nilearn, which makes derivatives orthogonal to it, as measured over all
    volumes of the run (those that are missing from ``frame_times`` included).

    Parameters
    ----------
    onsets, durations : array-like, shape (n_trials,)
        Seconds, on the clock of ``frame_times``.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired; see `trial_regressors`.
    hrf : str or callable
        One of `HRFS`, with its derivatives, or a function as in `trial_regressors`.

    Returns
    -------
    basis : array, shape (n_trials, K, T)
        K of 1, 2 (derivative) or 3 (dispersion).
    weights : array, shape (n_trials, K)
        The response is this weighted sum of a trial's betas.

    Raises
    ------
    ValueError
        As `trial_regressors`.
    """
    basis, clock = _sampled(onsets, durations, frame_times, _kernels(hrf))
    energy = (clock[:, :1] ** 2).sum(axis=2)
    shared = np.einsum("nkt,nt->nk", clock, clock[:, 0])
    weights = np.divide(shared, energy, out=np.zeros_like(shared), where=energy > 0)
    weights[:, 0] = 1
    return basis, weights


def event_regressors(
    onsets: ArrayLike, durations: ArrayLike, *, frame_times: ArrayLike, hrf: str | Kernel = "spm"
) -> Float:
    """All events of a kind share one regressor, and one for each derivative, orthogonal to those before it.

    Equal to nilearn's ``compute_regressor``. Parameters and errors are those of `trial_regressors`.

    Parameters
    ----------
    onsets, durations : array-like, shape (n_events,)
        Seconds.
    frame_times : array-like, shape (T,)
        Seconds.
    hrf : str or callable
        One of `HRFS`, with its derivatives, or a function as in `trial_regressors`.

    Returns
    -------
    array, shape (T, K)
    """
    alike = np.zeros(np.shape(onsets), dtype=np.intp)
    return kind_basis(onsets, durations, alike, 1, frame_times=frame_times, hrf=hrf)[0].T


def kind_basis(
    onsets: ArrayLike,
    durations: ArrayLike,
    kinds: NDArray[np.intp],
    n_kinds: int,
    *,
    frame_times: ArrayLike,
    hrf: str | Kernel = "spm",
) -> Float:
    """`event_regressors` of several kinds of events at once.

    Parameters
    ----------
    onsets, durations : array-like, shape (n_events,)
        Seconds.
    kinds : array of int, shape (n_events,)
        The kind of each event, from 0.
    n_kinds : int
        Kinds without an event get zeros.
    frame_times : array-like, shape (T,)
        Seconds.
    hrf : str or callable
        As in `trial_regressors`, with its derivatives.

    Returns
    -------
    array, shape (n_kinds, K, T)
    """
    totals = []
    for table in _sampled(onsets, durations, frame_times, _kernels(hrf)):
        total = np.zeros((n_kinds, *table.shape[1:]))
        np.add.at(total, kinds, table)
        totals.append(total)
    return _orthogonal(*totals)


def impulses(onsets: ArrayLike, durations: ArrayLike, *, frame_times: ArrayLike, delays: Sequence[int]) -> Float:
    """Each event has one regressor for each delay after it: a finite impulse response.

    Equal to nilearn's ``compute_regressor`` with ``hrf_model="fir"`` and ``fir_delays``.

    Parameters
    ----------
    onsets, durations : array-like, shape (n_trials,)
        Seconds, on the clock of ``frame_times``.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired; see `trial_regressors`.
    delays : sequence of int
        Scans after the onset; 0 is the volume acquired at the onset.

    Returns
    -------
    array, shape (n_trials, len(delays), T)

    Raises
    ------
    ValueError
        If a delay is no whole number of at least 0, or times are bad as in `trial_regressors`.
    """
    if not len(delays) or any(delay != int(delay) or delay < 0 for delay in delays):
        raise ValueError(f"delays: expected whole numbers of scans of at least 0, got {list(delays)}")

    def box(delay: int) -> Kernel:
        return lambda _, oversampling: np.repeat([0.0, 1 / oversampling], [delay * oversampling, oversampling])

    # nilearn reads an impulse one point short of a scan later, so that an event at a volume's time is in delay 0.
    kernels = [box(int(delay)) for delay in delays]
    return _sampled(onsets, durations, frame_times, kernels, ahead=_OVERSAMPLING - 1)[0]


def scans(frame_times: ArrayLike) -> tuple[Float, NDArray[np.intp]]:
    """The regular clock behind volumes of which some may be missing.

    Parameters
    ----------
    frame_times : array-like, shape (T,)
        Rising seconds.

    Returns
    -------
    clock : array, shape (T + missing,)
        Seconds from the first volume to the last, one repetition time (the smallest distance) apart.
    index : array, shape (T,)
        Where each volume is on that clock (the nearest point).
    """
    frames = np.asarray(frame_times, dtype=np.float64)
    step = np.diff(frames).min()
    ratio = (frames[-1] - frames[0]) / step
    count = int(np.ceil(ratio - 1e-3))
    last = frames[-1] if abs(ratio - count) <= 1e-3 else frames[0] + count * step
    return np.linspace(frames[0], last, count + 1), np.rint((frames - frames[0]) / step).astype(np.intp)


def _kernels(hrf: str | Kernel) -> tuple[Kernel, ...]:
    if callable(hrf):
        return (hrf,)
    if hrf not in _KERNELS:
        raise ValueError(f"hrf: expected one of {sorted(_KERNELS)}, got {hrf!r}")
    return _KERNELS[hrf]


def _sampled(
    onsets: ArrayLike, durations: ArrayLike, frame_times: ArrayLike, kernels: Sequence[Kernel], ahead: int = 0
) -> tuple[Float, Float]:
    """Boxcars convolved with each kernel, at the volumes and at the regular clock behind them, (n, K, time)."""
    starts, lengths, frames = (np.asarray(times, dtype=np.float64) for times in (onsets, durations, frame_times))
    _check_times(starts, lengths, frames)
    step = float(np.diff(frames).min())
    clock, _ = scans(frames)
    grid = _fine_grid(clock)
    first = np.minimum(np.searchsorted(grid, starts), len(grid) - 1)
    last = np.minimum(np.searchsorted(grid, starts + lengths), len(grid) - 1)
    gone = last == 0
    last = np.where((first == last) & (last < len(grid) - 1), last + 1, last)
    sums = [np.concatenate([[0.0], np.cumsum(kernel(step, _OVERSAMPLING))]) for kernel in kernels]

    def convolved(index: NDArray[np.intp]) -> Float:
        passed = index[:, None] + 1 + ahead - np.stack([first, last])[:, None, :]
        since = np.stack([total[np.clip(passed, 0, len(total) - 1)] for total in sums])
        return (since[:, 0] - since[:, 1]).transpose(2, 0, 1)

    def at(times: Float) -> Float:
        after = np.clip(np.searchsorted(grid, times), 1, len(grid) - 1)
        weight = (times - grid[after - 1]) / (grid[after] - grid[after - 1])
        values = (1 - weight) * convolved(after - 1) + weight * convolved(after)
        values[gone] = 0
        return values

    sampled = at(frames)
    return sampled, sampled if len(clock) == len(frames) else at(clock)


def _orthogonal(basis: Float, clock: Float) -> Float:
    """Take from each regressor (n, K, T) what is in those before it, as measured on the whole clock."""
    basis, clock = basis.copy(), clock.copy()
    for k in range(1, basis.shape[1]):
        # The k regressors before are orthogonal by now, so their shares are measured one by one.
        energy = (clock[:, :k] ** 2).sum(axis=2)
        share = np.einsum("njt,nt->nj", clock[:, :k], clock[:, k])
        share = np.divide(share, energy, out=np.zeros_like(share), where=energy > 0)
        for table in (basis, clock):
            table[:, k] -= np.einsum("nj,njt->nt", share, table[:, :k])
    return basis


def _fine_grid(clock: Float) -> Float:
    """Oversampled clock of nilearn: from 24 s before the first volume to about one scan after the last."""
    rate = (len(clock) - 1) / (clock[-1] - clock[0])
    end = clock[-1] * (1 + 1 / (len(clock) - 1))
    size = rate * (end - clock[0] + LEAD_IN) * _OVERSAMPLING + 1
    return np.linspace(clock[0] - LEAD_IN, end, int(np.rint(size)))


def _check_times(onsets: Float, durations: Float, frames: Float) -> None:
    if onsets.ndim != 1 or onsets.shape != durations.shape:
        raise ValueError(
            f"onsets, durations: expected two vectors of one length, got {onsets.shape} and {durations.shape}"
        )
    if frames.ndim != 1 or len(frames) < 2 or not (np.diff(frames) > 0).all():
        raise ValueError(f"frame_times: expected at least 2 rising times, got shape {frames.shape}")
    for name, times in (("onsets", onsets), ("durations", durations), ("frame_times", frames)):
        if not np.isfinite(times).all():
            raise ValueError(f"{name}: expected finite seconds, got NaN or infinity")
    if (durations < 0).any():
        raise ValueError(f"durations: expected seconds of at least 0, got {durations.min()}")
