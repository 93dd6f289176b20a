"""What is modelled beside the trials: motion, slow drifts, and events that are not scored."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.events import read_tsv
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import high_pass, trial_regressors

logger = logging.getLogger(__name__)

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


OLD_MOTION = ("X", "Y", "Z", "RotX", "RotY", "RotZ")


# Rest is what the constant models; as a regressor beside all trials it would be collinear with them.
BASELINE = {"rest", "fixation", "fix", "baseline", "blank", "iti", "isi", "n/a", ""}


HEAD_RADIUS_MM = 50.0


def confounds(
    run: Run, n_volumes: int, frame_times: np.ndarray, *, period: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Six motion parameters and slow cosines, as fMRIPrep wrote them or computed where it did not.

    Parameters
    ----------
    run : Run
    n_volumes : int
    frame_times : ndarray, shape (n_volumes,)
        Seconds.
    period : float
        Longest period kept, in seconds, where the file holds no cosines.

    Returns
    -------
    regressors : ndarray, shape (n_volumes, c)
        Without a constant.
    framewise_displacement : ndarray, shape (n_volumes,)
        Millimetres (Power et al. 2012); NaN where unknown.
    period : float
        Of the file's cosines: NaN.

    Raises
    ------
    DataError
        If the file has another number of rows than the bold has volumes.
    """
    cosines = high_pass(frame_times, period)
    unknown = np.full(n_volumes, np.nan)
    if run.confounds is None:
        return cosines, unknown, period
    table = read_tsv(run.confounds)
    if len(table) != n_volumes:
        raise DataError(
            f"{run.confounds}: {len(table)} rows for the {n_volumes} volumes of {run.bold.name}; "
            "run fMRIPrep on this run again"
        )
    motion = next((list(columns) for columns in (MOTION, OLD_MOTION) if set(columns) <= set(table.columns)), [])
    if not motion:
        raise DataError(f"{run.confounds}: no motion parameters ({', '.join(MOTION)}); give the confounds of fMRIPrep")
    own = [column for column in table.columns if column.startswith("cosine")]
    parameters = _fmriprep_confounds(run) if own else None
    numbers = table[motion].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise DataError(f"{run.confounds}: motion parameters with gaps; run fMRIPrep on this run again")
    regressors = parameters if parameters is not None else np.hstack([numbers, cosines])
    column = next((c for c in ("framewise_displacement", "FramewiseDisplacement") if c in table), None)
    if column is not None:
        displacement = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    else:
        steps = np.abs(np.diff(numbers, axis=0, prepend=numbers[:1]))
        turning = [position for position, name in enumerate(motion) if name.lower().startswith("rot")]
        steps[:, turning] *= HEAD_RADIUS_MM
        displacement = steps.sum(axis=1)
    return regressors, displacement, float("nan") if own else period


def _fmriprep_confounds(run: Run) -> np.ndarray | None:
    """Motion and cosines by nilearn's own reading of fMRIPrep's files; None for confounds it does not know."""
    from nilearn.interfaces.fmriprep import load_confounds

    if run.confounds is None or run.confounds.parent != run.bold.parent or "desc-confounds" not in run.confounds.name:
        return None
    try:
        table, _ = load_confounds(str(run.bold), strategy=("motion", "high_pass"), motion="basic", demean=True)
    except ValueError as error:
        logger.warning("%s: nilearn does not read it (%s); its columns are read by name", run.confounds, error)
        return None
    return table.to_numpy(dtype=float)


def nuisance_events(events: pd.DataFrame, *, frame_times: np.ndarray, hrf: str) -> np.ndarray:
    """One regressor for each kind of event that is not scored, such as catch trials.

    Parameters
    ----------
    events : DataFrame
        Columns onset, duration, trial (bool), and trial_type if there is one.
    frame_times : ndarray, shape (n_volumes,)
        Seconds.
    hrf : str

    Returns
    -------
    ndarray, shape (n_volumes, kinds)
    """
    others = events[~events["trial"]]
    kinds = others.get("trial_type", pd.Series("other", index=others.index)).fillna("n/a").astype(str)
    columns = []
    for kind in sorted(set(kinds)):
        if kind.lower() not in BASELINE:
            rows = others[kinds == kind]
            each = trial_regressors(
                rows["onset"].to_numpy(float),
                rows["duration"].fillna(0).to_numpy(float),
                frame_times=frame_times,
                hrf=hrf,
            )
            columns.append(each.sum(axis=1))
    return np.column_stack(columns) if columns else np.empty((len(frame_times), 0))
