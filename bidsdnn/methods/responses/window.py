"""One response per trial without a model of its shape: the mean of some volumes after the onset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.responses.design import Bool, Design, Float, canonical
from bidsdnn.methods.responses.hrf import Kernel, scans
from bidsdnn.methods.responses.noise_model import estimate

_SECONDS = (4.0, 8.0)


def window(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    hrf: str | Kernel = "spm",
    noise: str = "ols",
    seconds: Sequence[float] | None = None,
    volumes: Sequence[int] | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Responses were means of the volumes in a window after the onset, the nuisance projected out of the series.

    As in BOLD5000 (Chang et al., 2019, Scientific Data 6, 49), whose TRs 3 and 4 after the onset, counted from 1
    and 2 s long, are ``seconds=(4, 8)`` and ``volumes=(2, 3)`` here.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, n_trials rows
        One trial a row; columns ``onset`` and ``duration`` in seconds.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired. Volumes may be missing (scrubbed).
    nuisance : array-like, shape (T, C)
        What is projected out, the constant included: responses are relative to the mean of the run.
    hrf : str
        Has no part in it; there for the sake of `RESPONSES`.
    noise : {"ols"}
        A mean has no noise model.
    seconds : pair of float, optional
        Volumes acquired from so long after the onset to before so long after it; 4 to 8 s if nothing is given.
    volumes : sequence of int, optional
        Volumes after the onset, instead of seconds: 0 is the last one that began by the onset.
    device : str
        Where torch multiplies.

    Returns
    -------
    array, shape (n_trials, V)
        Responses in the units of ``bold``. NaN in the row of a trial of whose window less than half was
        recorded, and in the column of a voxel that is constant or not finite.

    Raises
    ------
    ValueError
        As `lss`, or if the window is empty, given twice, or shorter than a repetition time.
    """
    if noise != "ols":
        raise ValueError(f"noise: expected 'ols', since a mean over a window has no noise model, got {noise!r}")
    if seconds is not None and volumes is not None:
        raise ValueError("seconds, volumes: expected one of the two, got both")
    design = canonical(events, frame_times=frame_times, nuisance=nuisance)
    onsets, frames = events["onset"].to_numpy(dtype=np.float64), design.frame_times
    if volumes is None:
        mean, recorded = _between(onsets, frames, _SECONDS if seconds is None else seconds)
    else:
        mean, recorded = _counted(onsets, frames, volumes)
    averaging = Design(mean[:, None], np.ones((len(mean), 1)), recorded, design.nuisance, frames)
    return estimate(averaging, _project, bold, noise="ols", rho=None, residual_design=_nothing, device=device)


def _between(onsets: Float, frames: Float, seconds: Sequence[float]) -> tuple[Float, Bool]:
    """Averages (n, T) of the volumes between two times after each onset, and whether half of them are there."""
    if len(seconds) != 2 or not np.isfinite(seconds).all() or not seconds[0] < seconds[1]:
        raise ValueError(f"seconds: expected two rising numbers, got {list(seconds)}")
    step = np.diff(frames).min()
    if seconds[1] - seconds[0] < step * (1 - 1e-6):
        raise ValueError(
            f"seconds: expected a window of at least one repetition time, {step:.4g} s, got {list(seconds)}"
        )
    # A volume at the very edge must not depend on the last bit of a sum of times.
    since = frames - onsets[:, None] + 1e-6
    inside = (since >= seconds[0]) & (since < seconds[1])
    return _averages(inside, np.full(len(onsets), np.floor((seconds[1] - seconds[0]) / step + 1e-6)))


def _counted(onsets: Float, frames: Float, volumes: Sequence[int]) -> tuple[Float, Bool]:
    """Averages (n, T) of volumes counted from each onset, and whether half of them are there."""
    chosen = np.asarray(volumes)
    if chosen.ndim != 1 or not len(chosen) or (chosen != np.rint(chosen)).any() or len(set(chosen)) != len(chosen):
        raise ValueError(f"volumes: expected different whole numbers, got {list(volumes)}")
    clock, index = scans(frames)
    at = np.floor((onsets - clock[0]) / (clock[1] - clock[0]) + 1e-6)
    inside = np.isin((index - at[:, None]).astype(np.intp), chosen.astype(np.intp))
    return _averages(inside, np.full(len(onsets), len(chosen)))


def _averages(inside: Bool, expected: NDArray[np.floating]) -> tuple[Float, Bool]:
    found = inside.sum(axis=1)
    return inside / np.maximum(found, 1)[:, None], (found > 0) & (2 * found >= expected)


def _project(x: Float, basis: Float, wanted: Float) -> tuple[Float, Bool]:
    """Averages of what is left when the nuisance is projected out."""
    rows = x[:, 0]
    return rows - (rows @ basis) @ basis.T, np.ones(len(rows), dtype=bool)


def _nothing(design: Design) -> Float:
    return design.nuisance
