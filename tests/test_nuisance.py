"""What is modelled beside the trials: fMRIPrep's files by nilearn, other tables by name, events that are not scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.events import read_tsv
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import high_pass
from bidsdnn.nuisance import confounds, nuisance_events

FRAMES = 1.0 + 2.0 * np.arange(100)
MOTION = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]


def make_run(table):
    return Run({"sub": "01", "task": "t"}, table.parent / "bold.nii.gz", None, table, None, 2.0, 1.0, None, None, "raw")


def write(path, columns):
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


@pytest.fixture
def motion():
    return np.random.default_rng(0).normal(scale=0.01, size=(100, 6))


def test_columns_of_any_table_by_name(tmp_path, motion):
    table = write(tmp_path / "x_timeseries.tsv", dict(zip(MOTION, motion.T, strict=True)))
    regressors, displacement, period = confounds(make_run(table), 100, FRAMES, period=128.0)
    np.testing.assert_allclose(regressors, np.hstack([motion, high_pass(FRAMES, 128.0)]))
    assert period == 128.0
    steps = np.abs(np.diff(motion, axis=0))
    np.testing.assert_allclose(displacement[1:], steps[:, :3].sum(axis=1) + 50 * steps[:, 3:].sum(axis=1))


def test_names_of_old_fmriprep(tmp_path, motion):
    columns = dict(zip(["X", "Y", "Z", "RotX", "RotY", "RotZ"], motion.T, strict=True))
    fd = np.r_[np.nan, np.ones(99)]
    table = write(tmp_path / "x_confounds.tsv", {**columns, "FramewiseDisplacement": fd})
    regressors, displacement, _ = confounds(make_run(table), 100, FRAMES, period=128.0)
    np.testing.assert_allclose(regressors[:, :6], motion)
    np.testing.assert_array_equal(displacement, fd)


def test_without_a_file_only_drifts(tmp_path):
    run = make_run(tmp_path / "none.tsv")
    run = Run(**{**vars(run), "confounds": None})
    regressors, displacement, _ = confounds(run, 100, FRAMES, period=100.0)
    np.testing.assert_allclose(regressors, high_pass(FRAMES, 100.0))
    assert np.isnan(displacement).all()


def test_fmripreps_own_cosines_are_taken_with_nilearn(demo_dataset):
    folder = demo_dataset / "derivatives" / "fmriprep" / "sub-01" / "func"
    table = next(folder.glob("*_run-1_desc-confounds_timeseries.tsv"))
    bold = next(folder.glob("*_run-1_space-*_desc-preproc_bold.nii.gz"))
    whole = read_tsv(table)
    run = Run({"sub": "01", "task": "objects"}, bold, None, table, None, 2.0, 1.0, "x", None, "fmriprep")
    n = len(whole)
    regressors, _, period = confounds(run, n, 1.0 + 2.0 * np.arange(n), period=128.0)
    cosines = [column for column in whole if column.startswith("cosine")]
    assert np.isnan(period)
    expected = whole[[*MOTION, *cosines]].astype(float).to_numpy()
    centred = expected - expected.mean(axis=0)
    assert regressors.shape == centred.shape
    # nilearn orders columns by its own rule: compare what they span.
    fit = centred @ np.linalg.lstsq(centred, regressors, rcond=None)[0]
    np.testing.assert_allclose(fit, regressors, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[:-1], "99 rows for the 100 volumes"),
        (lambda table: table.drop(columns="rot_x"), "no motion parameters"),
        (lambda table: table.assign(rot_x=np.r_[np.nan, np.ones(99)]), "with gaps"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, motion, change, message):
    table = change(pd.DataFrame(dict(zip(MOTION, motion.T, strict=True))))
    path = write(tmp_path / "c.tsv", table)
    with pytest.raises(DataError, match=message):
        confounds(make_run(path), 100, FRAMES, period=128.0)


def test_events_that_are_not_scored_are_modelled_by_kind():
    events = pd.DataFrame(
        {
            "onset": [10.0, 30.0, 50.0, 70.0, 90.0],
            "duration": [1.0, 2.0, 1.0, 5.0, 1.0],
            "trial_type": ["object", "catch", "catch", "rest", "button"],
            "trial": [True, False, False, False, False],
        }
    )
    found = nuisance_events(events, frame_times=FRAMES, hrf="spm")
    assert found.shape == (100, 2)
    catch, _ = compute_regressor(np.array([[30.0, 50.0], [2.0, 1.0], [1.0, 1.0]]), "spm", FRAMES)
    np.testing.assert_allclose(found[:, 1], catch[:, 0], atol=1e-10)
    assert nuisance_events(events[:1], frame_times=FRAMES, hrf="spm").shape == (100, 0)
    assert nuisance_events(events.drop(columns="trial_type"), frame_times=FRAMES, hrf="spm").shape == (100, 1)
