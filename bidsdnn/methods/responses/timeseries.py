"""Movies and stories: the response is the time series itself, one row for each volume of a stimulus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.responses.design import canonical, check_bold, orthonormal
from bidsdnn.methods.responses.noise_model import VOXELS, place, usable_series


def timeseries(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    trim: Sequence[float] = (0.0, 0.0),
    device: str = "cpu",
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Responses were the volumes acquired during a stimulus, the nuisance projected out of the series.

    Nothing is convolved or shifted here: the delay of the response belongs to the features
    (`bidsdnn.methods.continuous`), which meet these rows by stimulus and time.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame, one presentation a row
        Columns ``onset`` and ``duration`` in seconds, ``stimulus_id``, and, where a presentation does not begin with
        the beginning of the stimulus, ``stimulus_start``: seconds into the stimulus at the onset.
    frame_times : array-like, shape (T,)
        Seconds, on the clock of the onsets; they may be negative, and volumes may be missing.
    nuisance : array-like, shape (T, C)
        What is projected out, the constant included.
    trim : pair of float
        Seconds left out at the beginning and the end of each presentation; negative to go beyond it.
    device : str
        Where torch multiplies.

    Returns
    -------
    items : DataFrame, n rows
        ``clip_id`` (``<stimulus>@<time>``, to the millisecond), ``stimulus_id``, ``time`` (seconds into the stimulus
        at which the volume was acquired), ``volume`` (row of `bold`) and ``presentation`` (row of `events`). By
        presentation and time; a volume in two overlapping presentations is there twice.
    values : array, shape (n, V)
        In the units of ``bold``; NaN in the column of a voxel that is constant or not finite.

    Raises
    ------
    ValueError
        If shapes disagree, a column is missing, or a time or nuisance value is not finite.
    """
    if "stimulus_id" not in events:
        raise ValueError(f"events: expected a column 'stimulus_id', got {list(events.columns)}")
    if len(trim) != 2 or not np.isfinite(trim).all():
        raise ValueError(f"trim: expected two numbers of seconds, got {list(trim)}")
    design = canonical(events, frame_times=frame_times, nuisance=nuisance)
    onsets, durations = (events[column].to_numpy(dtype=np.float64) for column in ("onset", "duration"))
    starts = events["stimulus_start"].to_numpy(dtype=np.float64) if "stimulus_start" in events else 0 * onsets
    if not np.isfinite(starts).all():
        raise ValueError("events: expected finite seconds in 'stimulus_start', got NaN or infinity")
    # A volume at the very edge must not depend on the last bit of a sum of times.
    since = design.frame_times - onsets[:, None] + 1e-6
    shown, volumes = np.nonzero((since >= trim[0]) & (since < (durations - trim[1])[:, None]))
    time = (design.frame_times[volumes] - onsets[shown] + starts[shown]).round(6) + 0.0
    ids = events["stimulus_id"].astype(str).to_numpy(dtype=object)[shown]
    items = pd.DataFrame(
        {
            "clip_id": [f"{name}@{when:.3f}" for name, when in zip(ids, time, strict=True)],
            "stimulus_id": ids,
            "time": time,
            "volume": volumes,
            "presentation": shown,
        }
    )
    check_bold(bold.shape, design.frame_times)
    where = float64_device(device)
    basis = torch.from_numpy(orthonormal(design.nuisance)).to(where)
    values = np.full((len(items), bold.shape[1]), np.nan, dtype=np.float32)
    for voxels in blocks(bold.shape[1], VOXELS):
        series, usable = usable_series(bold, voxels, where)
        cleaned = series - basis @ (basis.T @ series)
        columns = np.arange(voxels.start, voxels.stop)[usable]
        place(values, np.arange(len(items)), columns, cleaned[torch.from_numpy(volumes).to(where)])
    return items, values
