"""What is modelled beside the trials: confounds by name, volumes left out, events that are not scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor

from bidsdnn.bids.dataset import Run
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


def read(table, n=100, **options):
    return confounds(make_run(table), n, FRAMES[:n], period=128.0, **options)


@pytest.fixture
def motion():
    return np.random.default_rng(0).normal(scale=0.01, size=(100, 6))


@pytest.fixture
def columns(motion):
    return dict(zip(MOTION, motion.T, strict=True))


def test_columns_of_any_table_by_name(tmp_path, motion, columns):
    found = read(write(tmp_path / "x_timeseries.tsv", columns))
    np.testing.assert_allclose(found.regressors, np.hstack([motion, high_pass(FRAMES, 128.0)]))
    assert found.regressors.columns[:6].tolist() == MOTION
    assert found.period == 128.0
    assert found.kept.all()
    steps = np.abs(np.diff(motion, axis=0))
    np.testing.assert_allclose(found.displacement[1:], steps[:, :3].sum(axis=1) + 50 * steps[:, 3:].sum(axis=1))


def test_names_of_old_fmriprep(tmp_path, motion):
    columns = dict(zip(["X", "Y", "Z", "RotX", "RotY", "RotZ"], motion.T, strict=True))
    fd = np.r_[np.nan, np.ones(99)]
    extra = {"aCompCor00": motion[:, 0], "Cosine00": motion[:, 1], "NonSteadyStateOutlier00": np.eye(100)[0]}
    table = write(tmp_path / "x_confounds.tsv", {**columns, "FramewiseDisplacement": fd, **extra})
    found = read(table, names=("motion", "acompcor"))
    np.testing.assert_allclose(found.regressors[MOTION], motion)
    assert found.regressors.columns[6:].tolist() == ["a_comp_cor_00", "cosine00"]
    np.testing.assert_array_equal(found.displacement, fd)
    assert found.left_out.tolist() == ["not in steady state", *[""] * 99]


def test_without_a_file_only_drifts(tmp_path):
    run = make_run(tmp_path / "none.tsv")
    run = Run(**{**vars(run), "confounds": None})
    found = confounds(run, 100, FRAMES, period=100.0, dummy_scans=3)
    np.testing.assert_allclose(found.regressors, high_pass(FRAMES, 100.0))
    assert np.isnan(found.displacement).all()
    assert found.left_out.tolist() == ["dummy scan"] * 3 + [""] * 97
    with pytest.raises(DataError, match=r"bold.nii.gz: no framewise displacement for --fd-threshold"):
        confounds(run, 100, FRAMES, period=100.0, fd_threshold=0.5)


def test_volumes_that_moved_are_left_out(tmp_path, columns):
    fd = np.full(100, 0.1)
    fd[0], fd[[10, 50]], fd[20] = np.nan, 0.7, 0.4
    steady = {"non_steady_state_outlier00": np.eye(100)[0], "non_steady_state_outlier01": np.eye(100)[1]}
    table = write(tmp_path / "c.tsv", {**columns, "framewise_displacement": fd, **steady})
    assert np.flatnonzero(~read(table).kept).tolist() == [0, 1]
    assert np.flatnonzero(~read(table, names=("motion", "scrub")).kept).tolist() == [0, 1, 10, 50]
    found = read(table, fd_threshold=0.3, dummy_scans=0)
    assert np.flatnonzero(~found.kept).tolist() == [10, 20, 50]
    assert set(found.left_out[~found.kept]) == {"moved by more than 0.3 mm"}
    assert np.flatnonzero(~read(table, dummy_scans=5).kept).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"bold.nii.gz: 0 of 100 volumes are left .*--fd-threshold.*--run-label"):
        read(table, fd_threshold=0.01, dummy_scans=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[:-1], "99 rows for the 100 volumes"),
        (lambda table: table.drop(columns="rot_x"), "no motion parameters"),
        (lambda table: table.assign(rot_x=np.r_[1, 1, np.nan, np.ones(97)]), r"c.tsv: rot_x with gaps \(row 3\)"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, columns, change, message):
    path = write(tmp_path / "c.tsv", change(pd.DataFrame(columns)))
    with pytest.raises(DataError, match=message):
        read(path)


def test_events_that_are_not_scored_are_modelled_by_kind():
    events = pd.DataFrame(
        {
            "onset": [10.0, 30.0, 50.0, 70.0, 90.0],
            "duration": [1.0, 2.0, 1.0, 5.0, 1.0],
            "trial_type": ["object", "catch", "catch", "rest", "blank"],
            "trial": [True, False, False, False, False],
        }
    )
    found = nuisance_events(events, frame_times=FRAMES, hrf="spm")
    assert found.shape == (100, 2)
    catch, _ = compute_regressor(np.array([[30.0, 50.0], [2.0, 1.0], [1.0, 1.0]]), "spm", FRAMES)
    assert found.columns.tolist() == ["event_blank", "event_catch"]
    np.testing.assert_allclose(found["event_catch"], catch[:, 0], atol=1e-10)
    with_derivative = nuisance_events(events, frame_times=FRAMES, hrf="spm + derivative")
    both, _ = compute_regressor(np.array([[30.0, 50.0], [2.0, 1.0], [1.0, 1.0]]), "spm + derivative", FRAMES)
    np.testing.assert_allclose(with_derivative[["event_catch", "event_catch_derivative"]], both, atol=1e-10)
    assert nuisance_events(events[:1], frame_times=FRAMES, hrf="spm").shape == (100, 0)
    assert nuisance_events(events.drop(columns="trial_type"), frame_times=FRAMES, hrf="spm").shape == (100, 1)
