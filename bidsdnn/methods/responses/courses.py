"""The whole course of a response, without a shape: what `fir` averages, by kind of event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.responses.design import Design, delayed, together
from bidsdnn.methods.responses.noise_model import estimate
from bidsdnn.methods.responses.trials import default_delays, everything


def fir_courses(
    bold: NDArray[np.floating],
    events: pd.DataFrame,
    *,
    frame_times: ArrayLike,
    nuisance: ArrayLike,
    by: str = "stimulus_id",
    delays: Sequence[int] | None = None,
    noise: str = "ols",
    rho: ArrayLike | None = None,
    device: str = "cpu",
) -> tuple[list[str], NDArray[np.float32]]:
    """Courses of the response were estimated by a finite impulse response model with all kinds of events in it.

    Glover (1999), NeuroImage 9, 416-429. Equal to nilearn's model of the run with ``hrf_model="fir"``.

    Parameters
    ----------
    bold : array, shape (T, V)
        Time series.
    events : DataFrame
        Columns ``onset`` and ``duration`` in seconds, and the one named by `by`.
    frame_times : array-like, shape (T,)
        Seconds at which the volumes were acquired.
    nuisance : array-like, shape (T, C)
        Everything else in the model, the constant included.
    by : str
        Column of which each value has a course.
    delays : sequence of int, optional
        Scans after the onset, 0 the volume at the onset; those up to 20 s if absent.
    noise : {"ols", "ar1"}
        Ordinary least squares, or prewhitened for AR(1) noise.
    rho : array-like, shape () or (V,), optional
        AR(1) coefficients, as in `lss`.
    device : str
        Where torch multiplies.

    Returns
    -------
    kinds : list of str, length n
        Sorted.
    courses : array, shape (n, len(delays), V)
        In the units of ``bold``. NaN at delays that the design does not tell from the rest, and in the column of a
        voxel that is constant or not finite.

    Raises
    ------
    ValueError
        As `fir`, or if the column is missing.
    """
    if by not in events:
        raise ValueError(f"events: expected a column {by!r}, got {list(events.columns)}")
    chosen = default_delays(frame_times) if delays is None else list(delays)
    design = delayed(events, frame_times=frame_times, nuisance=nuisance, delays=chosen, averaged=chosen)
    kinds, which = np.unique(events[by].astype(str).to_numpy(dtype=str), return_inverse=True)
    x = np.zeros((len(kinds), *design.x.shape[1:]))
    np.add.at(x, which, design.x)
    # Each delay of each kind is an item of its own.
    flat = x.reshape(-1, 1, x.shape[2])
    there = (flat**2).sum(axis=(1, 2)) > 0
    each = Design(flat, np.ones((len(flat), 1)), there, design.nuisance, design.frame_times)
    found = estimate(each, together, bold, noise=noise, rho=rho, residual_design=everything, device=device)
    return kinds.tolist(), found.reshape(len(kinds), len(chosen), -1)
