"""What is modelled beside the trials (motion, drifts, events that are not scored), and which volumes are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bidsdnn.bids.confounds import chosen_columns, framewise_displacement, non_steady_state, read_confounds
from bidsdnn.bids.dataset import Run
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import event_regressors, high_pass
from bidsdnn.methods.responses.hrf import Kernel

# Rest is what the constant models; as a regressor beside all trials it would be collinear with them.
BASELINE = {"rest", "fixation", "fix", "baseline", "iti", "isi", "n/a", ""}
FEWEST_FREE = 10
"""Volumes that must be left beside as many as there are confounds, where some are left out."""

SCRUB_MM = 0.5
"""Framewise displacement above which ``--confounds scrub`` leaves a volume out (nilearn's threshold)."""


@dataclass(frozen=True, eq=False)
class Nuisance:
    """What is modelled beside the trials of a run.

    Parameters
    ----------
    regressors : DataFrame, n_volumes rows
        Without a constant.
    displacement : ndarray, shape (n_volumes,)
        Framewise displacement in millimetres; NaN where unknown.
    left_out : ndarray of str, shape (n_volumes,)
        Why a volume is left out of the fit; empty where it is not.
    period : float
        Longest period kept, in seconds; NaN where the file has its own cosines.
    """

    regressors: pd.DataFrame
    displacement: np.ndarray
    left_out: np.ndarray
    period: float

    @property
    def kept(self) -> np.ndarray:
        """Which volumes are fitted, shape (n_volumes,)."""
        return np.asarray(self.left_out == "")


def confounds(
    run: Run,
    n_volumes: int,
    frame_times: np.ndarray,
    *,
    period: float,
    names: Sequence[str] = ("motion",),
    fd_threshold: float | None = None,
    dummy_scans: int | None = None,
) -> Nuisance:
    """Confounds as they were asked for, and slow cosines, as fMRIPrep wrote them or computed where it did not.

    Parameters
    ----------
    run : Run
    n_volumes : int
    frame_times : ndarray, shape (n_volumes,)
        Seconds.
    period : float
        Longest period kept, in seconds, where the file holds no cosines.
    names : sequence of str
        Strategies, columns and patterns.
    fd_threshold : float, optional
        Volumes with a higher framewise displacement, in millimetres, are left out of the fit.
    dummy_scans : int, optional
        Volumes at the start that are left out; by default those that the file calls not steady.

    Returns
    -------
    Nuisance

    Raises
    ------
    DataError
        If the file has another number of rows than the bold has volumes, lacks what was asked for, or leaves too few
        volumes to fit.
    """
    limit = SCRUB_MM if fd_threshold is None and "scrub" in names else fd_threshold
    cosines = high_pass(frame_times, period)
    drifts = pd.DataFrame(cosines, columns=[f"cosine{i:02d}" for i in range(cosines.shape[1])])
    left_out = np.full(n_volumes, "", dtype=object)
    displacement = np.full(n_volumes, np.nan)
    regressors = drifts
    if run.confounds is not None:
        table = read_confounds(run.confounds, n_volumes=n_volumes, bold=run.bold)
        own = [column for column in table.columns if column.startswith("cosine")]
        metadata = read_json(sidecar_path(run.confounds))
        regressors = chosen_columns(table, [*names, *own], path=run.confounds, metadata=metadata)
        displacement = framewise_displacement(table)
        if dummy_scans is None:
            left_out[non_steady_state(table)] = "not in steady state"
        if own:
            period = float("nan")
        else:
            regressors = pd.concat([regressors, drifts], axis=1)
    if limit is not None:
        if not np.isfinite(displacement).any():
            where = run.confounds or run.bold
            raise DataError(f"{where}: no framewise displacement for --fd-threshold; leave the threshold out")
        left_out[(left_out == "") & (np.nan_to_num(displacement) > limit)] = f"moved by more than {limit:g} mm"
    left_out[: dummy_scans or 0] = "dummy scan"
    found = Nuisance(regressors, displacement, left_out, period)
    _check_volumes(run, found)
    return found


def _check_volumes(run: Run, found: Nuisance) -> None:
    """Where volumes are left out, some must be left over from what the confounds explain."""
    n_confounds, left = found.regressors.shape[1], int(found.kept.sum())
    if left < len(found.kept) and left < n_confounds + FEWEST_FREE:
        raise DataError(
            f"{run.bold}: {left} of {len(found.kept)} volumes are left for {n_confounds} confounds; raise "
            "--fd-threshold, ask for fewer --confounds, or leave out the run with --run-label"
        )


def nuisance_events(events: pd.DataFrame, *, frame_times: np.ndarray, hrf: str | Kernel) -> pd.DataFrame:
    """Regressors of each kind of event that is not scored, such as catch and blank trials.

    Parameters
    ----------
    events : DataFrame
        Columns onset, duration, trial (bool), and trial_type if there is one.
    frame_times : ndarray, shape (n_volumes,)
        Seconds.
    hrf : str or callable
        As the estimators take it; each derivative is a further regressor.

    Returns
    -------
    DataFrame, shape (n_volumes, columns)
        Kinds that are rest have no regressor.
    """
    others = events[~events["trial"]]
    kinds = others.get("trial_type", pd.Series("other", index=others.index)).fillna("n/a").astype(str)
    columns = {}
    for kind in sorted(set(kinds)):
        if kind.lower() not in BASELINE:
            rows = others[kinds == kind]
            onsets, durations = rows["onset"].to_numpy(float), rows["duration"].fillna(0).to_numpy(float)
            each = event_regressors(onsets, durations, frame_times=frame_times, hrf=hrf)
            for name, column in zip(("", "_derivative", "_dispersion"), each.T, strict=False):
                columns[f"event_{kind}{name}"] = column
    return pd.DataFrame(columns, index=range(len(frame_times)))
