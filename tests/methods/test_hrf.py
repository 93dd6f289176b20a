from __future__ import annotations

import warnings

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor
from nilearn.glm.first_level.design_matrix import create_cosine_drift

from bidsdnn.methods.responses import HRFS, event_regressors, high_pass, impulses, trial_basis, trial_regressors

TR = 2.0
FRAMES = 0.7 + TR * np.arange(120)
KEEP = np.ones(120, dtype=bool)
KEEP[[3, 4, 5, 30, 60, 62, 64, 100]] = False


@pytest.mark.parametrize("hrf", ["spm", "glover"])
@pytest.mark.parametrize("frames", [FRAMES, 0.82 * np.arange(300), 3 + 1.5 * np.arange(40)], ids=len)
def test_trial_regressors_equal_nilearns(hrf, frames):
    end = frames[-1]
    onsets = np.array([0.0, 0.3, 5.0, 5.01, 17.77, end / 2, end - 3, end - 0.01, end + 1, end + 50, -4.0, -40.0])
    durations = np.array([0.0, 0.01, 1.0, 30.0, 0.5, end, 10.0, 1.0, 1.0, 1.0, 2.0, 45.0])
    ours = trial_regressors(onsets, durations, frame_times=frames, hrf=hrf)
    for column, onset, duration in zip(ours.T, onsets, durations, strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Some stimulus onsets", UserWarning)
            theirs, _ = compute_regressor(([onset], [duration], [1.0]), hrf, frames)
        np.testing.assert_allclose(column, theirs[:, 0], rtol=0, atol=1e-12)


def test_an_event_before_the_grid_leaves_nothing():
    regressors = trial_regressors([-80.0], [2.0], frame_times=FRAMES)
    assert (regressors == 0).all()


@pytest.mark.parametrize("hrf", HRFS)
def test_regressors_of_a_kind_equal_nilearns(hrf):
    onsets, durations = np.array([3.0, 20.5, 33.0, 90.0, 230.0]), np.array([1.0, 0.0, 4.0, 2.5, 30.0])
    theirs, _ = compute_regressor((onsets, durations, np.ones(5)), hrf, FRAMES)
    ours = event_regressors(onsets, durations, frame_times=FRAMES, hrf=hrf)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    ours = event_regressors(onsets, durations, frame_times=FRAMES[KEEP], hrf=hrf)
    np.testing.assert_allclose(ours, theirs[KEEP], rtol=0, atol=1e-10)


@pytest.mark.parametrize("hrf", HRFS)
def test_a_trials_weighted_betas_are_nilearns_canonical_beta(hrf):
    series = np.random.default_rng(0).standard_normal(120)
    (basis,), (weights,) = trial_basis([40.0], [3.0], frame_times=FRAMES, hrf=hrf)
    theirs, _ = compute_regressor(([40.0], [3.0], [1.0]), hrf, FRAMES)
    expected = np.linalg.lstsq(theirs, series, rcond=None)[0][0]
    np.testing.assert_allclose(weights @ np.linalg.lstsq(basis.T, series, rcond=None)[0], expected, rtol=1e-8)


@pytest.mark.parametrize("hrf", ["spm", "glover"])
@pytest.mark.parametrize("tr", [0.72, 1.5, 2.0])
def test_missing_volumes_do_not_move_the_others(hrf, tr):
    frames = 0.3 + tr * np.arange(120)
    onsets, durations = np.array([-5.0, 3.0, 20.5, 33.0, 71.0]), np.array([1.0, 0.0, 4.0, 2.5, 30.0])
    whole = np.column_stack(
        [compute_regressor(([o], [d], [1.0]), hrf, frames)[0] for o, d in zip(onsets, durations, strict=True)]
    )
    ours = trial_regressors(onsets, durations, frame_times=frames[KEEP], hrf=hrf)
    np.testing.assert_allclose(ours, whole[KEEP], rtol=0, atol=1e-12)


def test_volumes_off_the_clock_are_interpolated():
    frames = np.array([0.0, 2.0, 4.0, 7.0, 8.0, 11.3, 14.0, 16.0])
    finer = np.arange(0, 16.01, 0.1)
    ours = trial_regressors([1.0], [2.0], frame_times=frames)
    smooth = trial_regressors([1.0], [2.0], frame_times=finer)
    # Nilearn's kernels have unit sum over points, 20 times as many of them in a clock of 0.1 s.
    at = np.interp(frames, finer, smooth[:, 0])
    np.testing.assert_allclose(ours[:, 0] / ours.max(), at / at.max(), atol=0.03)


@pytest.mark.parametrize("frames", [FRAMES, 0.82 * np.arange(300)], ids=len)
def test_impulses_equal_nilearns(frames):
    onsets, durations = np.array([3.0, 20.5, 33.3]), np.array([1.0, 0.0, 4.0])
    ours = impulses(onsets, durations, frame_times=frames, delays=[0, 1, 4, 9])
    for one, onset, duration in zip(ours, onsets, durations, strict=True):
        theirs, _ = compute_regressor(([onset], [duration], [1.0]), "fir", frames, fir_delays=[0, 1, 4, 9])
        np.testing.assert_allclose(one.T, theirs, rtol=0, atol=1e-12)


def test_a_users_own_response_is_convolved():
    def decay(step, oversampling):
        return np.exp(-np.arange(0, 20, step / oversampling) / 3)

    ours = trial_regressors([4.0, 50.3], [0.0, 2.0], frame_times=FRAMES, hrf=decay)
    for column, onset, duration in zip(ours.T, [4.0, 50.3], [0.0, 2.0], strict=True):
        theirs, _ = compute_regressor(([onset], [duration], [1.0]), decay, FRAMES)
        np.testing.assert_allclose(column, theirs[:, 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("delays", [[], [-1, 2], [1.5]])
def test_bad_delays_are_named(delays):
    with pytest.raises(ValueError, match="delays: expected whole numbers of scans"):
        impulses([1.0], [1.0], frame_times=FRAMES, delays=delays)


def test_drifts_of_a_scrubbed_run_are_rows_of_the_whole_runs():
    np.testing.assert_allclose(high_pass(FRAMES[KEEP]), high_pass(FRAMES)[KEEP], atol=1e-12)


@pytest.mark.parametrize("seconds", [128.0, 60.0])
def test_high_pass_is_nilearns_cosines_without_the_constant(seconds):
    theirs = create_cosine_drift(1 / seconds, FRAMES)
    np.testing.assert_allclose(high_pass(FRAMES, seconds), theirs[:, :-1], atol=1e-12)
    assert high_pass(TR * np.arange(10)).shape == (10, 0)


def test_other_bad_times_are_named():
    with pytest.raises(ValueError, match="two vectors of one length"):
        trial_regressors([1.0, 2.0], [1.0], frame_times=FRAMES)
    with pytest.raises(ValueError, match="cutoff_seconds: expected a positive number, got 0"):
        high_pass(FRAMES, 0)
