"""One run's model before it meets the data: regressors of trials, what stands beside them, which rows are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.errors import DataError
from bidsdnn.lookup import resolve
from bidsdnn.methods.responses import HRFS, trial_regressors
from bidsdnn.nuisance import Nuisance, confounds, nuisance_events

RESPONSE_SECONDS = 32.0
"""A haemodynamic response is over."""

FEWEST_RECORDED = 1e-3
"""Share of a response's energy that must lie in fitted volumes; noise is 30 times that of a whole trial below it."""

SAME = 0.99
"""Correlation of two regressors above which a collinear trial is told with the other one's name."""


@dataclass(frozen=True, eq=False)
class Design:
    """What a run's series is explained by.

    Parameters
    ----------
    frame_times : ndarray, shape (n_volumes,)
        Seconds.
    trials : ndarray, shape (n_volumes, n_trials)
        Regressors at the canonical response.
    recorded : ndarray, shape (n_trials,)
        Share of each response's energy that lies in volumes that are fitted.
    nuisance : Nuisance
        Its regressors hold the events that are not scored, and a constant.
    """

    frame_times: np.ndarray
    trials: np.ndarray
    recorded: np.ndarray
    nuisance: Nuisance

    @property
    def kept(self) -> np.ndarray:
        """Which volumes are fitted, shape (n_volumes,)."""
        return self.nuisance.kept

    def fitted_nuisance(self) -> np.ndarray:
        """What stands beside the trials in the volumes that are fitted, shape (kept, c)."""
        return self.nuisance.regressors.to_numpy(dtype=float)[self.kept]

    def table(self) -> pd.DataFrame:
        """Regressors in columns, one row a volume, and whether it was fitted."""
        trials = pd.DataFrame(self.trials, columns=[f"trial{i}" for i in range(self.trials.shape[1])])
        return pd.concat([trials, self.nuisance.regressors, pd.DataFrame({"fitted": self.kept.astype(int)})], axis=1)

    def collinearity(self) -> dict[str, float]:
        """Highest absolute correlation of two trials' regressors, and their condition number beside all else."""
        x, others = self.trials[self.kept], self.fitted_nuisance()
        x = x[:, self.recorded > FEWEST_RECORDED]
        if x.shape[1] < 2:
            return {"max_trial_r": np.nan, "condition_number": np.nan}
        basis = np.linalg.qr(others / np.maximum(np.linalg.norm(others, axis=0), 1e-300))[0]
        unit = x / np.linalg.norm(x, axis=0)
        scale = np.linalg.svd(unit - basis @ (basis.T @ unit), compute_uv=False)
        # More trials than volumes, or two that are one: no condition number at all.
        whole = len(x) >= x.shape[1] and scale[-1] > 1e-9 * scale[0]
        return {
            "max_trial_r": float(_correlations(x).max()),
            "condition_number": float(scale[0] / scale[-1]) if whole else np.nan,
        }


def _correlations(x: np.ndarray) -> np.ndarray:
    """Absolute correlations of columns, 0 on the diagonal."""
    centred = x - x.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    centred = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    r = np.abs(centred.T @ centred)
    np.fill_diagonal(r, 0)
    return np.asarray(r)


def canonical(hrf: str) -> str:
    """The canonical response that stands for a model of the response where one regressor is wanted."""
    name = hrf.partition(" ")[0]
    return name if name in ("spm", "glover") else "spm"


def response_model(hrf: str) -> Any:
    """What the estimators take for the response that was asked for: a name, or a user's function.

    Where each voxel has its own response of the library, the canonical one is for what all voxels share.
    """
    return resolve(hrf, {"library": "spm", **{name: name for name in HRFS}})


def run_design(
    run: Run,
    events: pd.DataFrame,
    n_volumes: int,
    *,
    hrf: str,
    period: float,
    names: Sequence[str] = ("motion",),
    fd_threshold: float | None = None,
    dummy_scans: int | None = None,
) -> Design:
    """Make the design of a run.

    Parameters
    ----------
    run : Run
    events : DataFrame
        Columns onset, duration and trial.
    n_volumes : int
    hrf : str
        As it was asked for: the whole model of other events, and the canonical response of the trials' regressors.
    period, names, fd_threshold, dummy_scans
        Of `confounds`.

    Returns
    -------
    Design

    Raises
    ------
    DataError
        If the onsets are in no seconds of this run, or the confounds cannot be used.
    """
    frame_times = run.start_time + run.tr * np.arange(n_volumes)
    trials = events[events["trial"]]
    check_onsets(run, trials, end=float(frame_times[-1] + run.tr))
    beside = confounds(
        run, n_volumes, frame_times, period=period, names=names, fd_threshold=fd_threshold, dummy_scans=dummy_scans
    )
    others = nuisance_events(events, frame_times=frame_times, hrf=response_model(hrf))
    hrf = canonical(hrf)
    regressors = pd.concat([beside.regressors, others, pd.DataFrame({"constant": np.ones(n_volumes)})], axis=1)
    onsets, durations = (trials[column].to_numpy(dtype=float) for column in ("onset", "duration"))
    # The same trials, had the scanner started before the first event and gone on until the last response was over.
    before = np.ceil(max(0.0, frame_times[0] - onsets.min(initial=np.inf)) / run.tr)
    after = np.ceil((durations.max(initial=0.0) + RESPONSE_SECONDS) / run.tr)
    whole = frame_times[0] + run.tr * np.arange(-before, n_volumes + after)
    full = (trial_regressors(onsets, durations, frame_times=whole, hrf=hrf) ** 2).sum(axis=0)
    x = trial_regressors(onsets, durations, frame_times=frame_times, hrf=hrf)
    recorded = np.divide((x[beside.kept] ** 2).sum(axis=0), full, out=np.zeros(len(full)), where=full > 0)
    nuisance = Nuisance(regressors, beside.displacement, beside.left_out, beside.period)
    return Design(frame_times, x, recorded, nuisance)


def check_onsets(run: Run, trials: pd.DataFrame, *, end: float) -> None:
    """Check that onsets and durations are in seconds of the recording.

    Parameters
    ----------
    run : Run
    trials : DataFrame
        Columns onset and duration.
    end : float
        Seconds at which the recording ends.

    Raises
    ------
    DataError
        If most onsets come after the end, or most durations are longer than the run: milliseconds, or samples.
    """
    for column in ("onset", "duration"):
        values = trials[column].to_numpy(dtype=float)
        if len(values) and np.median(values) > end:
            top = float(values.max())
            unit = "look like milliseconds: divide them by 1000" if top / 1000 <= end else "look like samples"
            raise DataError(
                f"{run.events}: {column}s reach {top:g}, but {run.bold.name} ends after {end:g} s; "
                f"they {unit}, and write them in seconds"
            )


def why_dropped(design: Design, trials: pd.DataFrame, estimated: np.ndarray) -> list[str]:
    """Say of each trial why it has no response.

    Parameters
    ----------
    design : Design
    trials : DataFrame, n_trials rows
    estimated : ndarray of bool, shape (n_trials,)

    Returns
    -------
    list of str
        Empty where it has one.
    """
    first, last = design.frame_times[0], design.frame_times[-1]
    reasons = []
    for done, onset, duration, share in zip(
        estimated, trials["onset"], trials["duration"], design.recorded, strict=True
    ):
        if done:
            reasons.append("")
        elif onset > last:
            reasons.append("after the last volume")
        elif onset + duration + RESPONSE_SECONDS < first or (onset < first and share <= FEWEST_RECORDED):
            reasons.append("before the first volume")
        elif share <= FEWEST_RECORDED:
            reasons.append("its volumes were left out or not recorded")
        else:
            reasons.append("collinear")
    return reasons


def collinear_trials(design: Design, trials: pd.DataFrame, reasons: Sequence[str]) -> str:
    """Name the trials that no model tells apart, and what can be done; empty if there are none.

    Parameters
    ----------
    design : Design
    trials : DataFrame, n_trials rows
    reasons : sequence of str
        Of `why_dropped`.

    Returns
    -------
    str
    """
    bad = [i for i, reason in enumerate(reasons) if reason == "collinear"]
    if not bad:
        return ""
    r = _correlations(design.trials[design.kept])

    def name(i: int) -> str:
        return f"{trials['stimulus_id'].iloc[i]} at {trials['onset'].iloc[i]:g} s"

    told = [
        f"{name(i)} with {name(int(r[i].argmax())) if r[i].max() > SAME else 'the other regressors together'}"
        for i in bad[:5]
    ]
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    return (
        f"{len(bad)} trial{'s are' if len(bad) > 1 else ' is'} collinear ({'; '.join(told)}{more}); "
        "use --response lss, fewer --confounds, or leave trials out with --event-filter"
    )
