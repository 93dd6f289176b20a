from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor, make_first_level_design_matrix, run_glm
from nilearn.glm.first_level.design_matrix import create_cosine_drift

from bidsdnn.methods.responses import RESPONSES, high_pass, lsa, lss, trial_regressors

TR = 2.0
FRAMES = 0.7 + TR * np.arange(120)


def a_run(n_trials=24, n_voxels=7, *, seed=0, duration=1.5):
    rng = np.random.default_rng(seed)
    onsets = 4 + np.sort(rng.permutation(50)[:n_trials]) * 4.3 + rng.uniform(0, 1, n_trials)
    events = pd.DataFrame({"onset": onsets, "duration": rng.uniform(0, 2 * duration, n_trials)})
    nuisance = np.column_stack([rng.standard_normal((len(FRAMES), 6)), high_pass(FRAMES), np.ones(len(FRAMES))])
    bold = 1000 + 10 * rng.standard_normal((len(FRAMES), n_voxels))
    return bold, events, nuisance


def nilearn_betas(bold, events, nuisance, *, hrf, separate):
    """One ordinary least squares model per trial (or one for all), as a nilearn user would write it."""
    names = [f"trial{i}" for i in range(len(events))]
    rows = []
    for i, name in enumerate(names):
        if separate:
            labels = ["own" if j == i else "rest" for j in range(len(events))]
        else:
            labels, name = names, name
        design = make_first_level_design_matrix(
            FRAMES,
            events.assign(trial_type=labels),
            hrf_model=hrf,
            drift_model=None,
            add_regs=nuisance[:, :-1],
        )
        run_labels, results = run_glm(bold, design.to_numpy(), noise_model="ols")
        wanted = design.columns.get_loc("own" if separate else name)
        row = np.full(bold.shape[1], np.nan)
        for label, result in results.items():
            row[run_labels == label] = result.theta[wanted]
        rows.append(row)
    return np.array(rows)


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


@pytest.mark.parametrize("hrf", ["spm", "glover"])
@pytest.mark.parametrize("name", RESPONSES)
def test_betas_agree_with_nilearn_to_1e6(name, hrf):
    bold, events, nuisance = a_run()
    ours = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance, hrf=hrf)
    theirs = nilearn_betas(bold, events, nuisance, hrf=hrf, separate=name == "lss")
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("name", RESPONSES)
def test_planted_responses_come_back_without_noise(name):
    rng = np.random.default_rng(3)
    _, events, nuisance = a_run(n_trials=18)
    planted = rng.standard_normal((1, 5)) * np.ones((18, 1)) if name == "lss" else rng.standard_normal((18, 5))
    x = trial_regressors(events.onset, events.duration, frame_times=FRAMES)
    bold = x @ planted + nuisance @ rng.standard_normal((nuisance.shape[1], 5)) * 100
    betas = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance)
    np.testing.assert_allclose(betas, planted, atol=1e-5)


@pytest.mark.parametrize("name", RESPONSES)
def test_collinear_nuisance_changes_nothing(name):
    bold, events, nuisance = a_run()
    more = np.column_stack([nuisance, nuisance[:, 0] * 3 - nuisance[:, 2], np.zeros(len(FRAMES)), nuisance[:, -1]])
    call = RESPONSES[name]
    np.testing.assert_allclose(
        call(bold, events, frame_times=FRAMES, nuisance=more),
        call(bold, events, frame_times=FRAMES, nuisance=nuisance),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", RESPONSES)
def test_trials_that_cannot_be_estimated_are_nan_and_spare_the_others(name):
    bold, events, nuisance = a_run()
    late = pd.DataFrame({"onset": [FRAMES[-1] + 5, FRAMES[-1] - 0.4], "duration": [1.0, 1.0]})
    x = trial_regressors(events.onset, events.duration, frame_times=FRAMES)
    nuisance = np.column_stack([nuisance, x[:, 4]])
    betas = RESPONSES[name](bold, pd.concat([events, late]), frame_times=FRAMES, nuisance=nuisance)
    assert np.flatnonzero(np.isnan(betas).all(axis=1)).tolist() == [4, 24, 25]
    assert np.isfinite(np.delete(betas, [4, 24, 25], axis=0)).all()


def test_trials_shown_at_the_same_time_cannot_be_told_apart_by_lsa():
    bold, events, nuisance = a_run()
    events.loc[7] = events.loc[6]
    betas = lsa(bold, events, frame_times=FRAMES, nuisance=nuisance)
    assert np.flatnonzero(np.isnan(betas).any(axis=1)).tolist() == [6, 7]


def test_two_simultaneous_trials_alone_are_collinear_for_lss():
    bold, _, nuisance = a_run()
    events = pd.DataFrame({"onset": [20.0, 20.0], "duration": [1.0, 1.0]})
    assert np.isnan(lss(bold, events, frame_times=FRAMES, nuisance=nuisance)).all()


@pytest.mark.parametrize("name", RESPONSES)
def test_one_trial_is_plain_regression(name):
    bold, _, nuisance = a_run()
    events = pd.DataFrame({"onset": [31.0], "duration": [2.0]})
    design = np.column_stack([trial_regressors([31.0], [2.0], frame_times=FRAMES), nuisance])
    expected = np.linalg.lstsq(design, bold, rcond=None)[0][:1]
    betas = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance)
    np.testing.assert_allclose(betas, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RESPONSES)
def test_no_trials_and_no_nuisance_are_empty_tables(name):
    bold, events, _ = a_run()
    none = np.empty((len(FRAMES), 0))
    assert RESPONSES[name](bold, events[:0], frame_times=FRAMES, nuisance=none).shape == (0, 7)
    assert np.isfinite(RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=none)).all()


@pytest.mark.parametrize("name", RESPONSES)
def test_broken_voxels_are_nan_and_spare_the_others(name):
    bold, events, nuisance = a_run(n_voxels=9)
    whole = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance)
    bold[:, 2], bold[5, 4], bold[7, 8] = 123.456, np.nan, np.inf
    betas = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance)
    assert np.flatnonzero(np.isnan(betas).any(axis=0)).tolist() == [2, 4, 8]
    good = [0, 1, 3, 5, 6, 7]
    np.testing.assert_allclose(betas[:, good], whole[:, good], rtol=1e-6)


@pytest.mark.parametrize("name", RESPONSES)
def test_blocks_of_voxels_do_not_change_the_betas(name, monkeypatch):
    bold, events, nuisance = a_run(n_voxels=50)
    whole = RESPONSES[name](bold.astype(np.float32), events, frame_times=FRAMES, nuisance=nuisance)
    monkeypatch.setattr("bidsdnn.methods.responses._VOXELS", 7)
    parts = RESPONSES[name](bold.astype(np.float32), events, frame_times=FRAMES, nuisance=nuisance)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


@pytest.mark.parametrize("seconds", [128.0, 60.0])
def test_high_pass_is_nilearns_cosines_without_the_constant(seconds):
    theirs = create_cosine_drift(1 / seconds, FRAMES)
    np.testing.assert_allclose(high_pass(FRAMES, seconds), theirs[:, :-1], atol=1e-12)
    assert high_pass(TR * np.arange(10)).shape == (10, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bold": np.zeros((3, 2))}, r"bold: expected shape \(120, V\)"),
        ({"nuisance": np.ones((5, 1))}, r"nuisance: expected shape \(120, C\)"),
        ({"nuisance": np.where(np.eye(120, 3) > 0, np.nan, 1)}, r"nuisance: .* columns \[0, 1, 2\]"),
        ({"events": pd.DataFrame({"onset": [1.0]})}, "events: expected a column 'duration'"),
        ({"events": pd.DataFrame({"onset": [np.nan], "duration": [1.0]})}, "onsets: expected finite"),
        ({"events": pd.DataFrame({"onset": [1.0], "duration": [-1.0]})}, "durations: .* got -1.0"),
        ({"hrf": "box"}, r"hrf: expected one of \['glover', 'spm'\], got 'box'"),
        ({"frame_times": np.zeros(120)}, "frame_times: expected at least 2 rising times"),
    ],
)
@pytest.mark.parametrize("name", RESPONSES)
def test_bad_input_is_named(name, change, message):
    bold, events, nuisance = a_run()
    given = {"bold": bold, "events": events, "frame_times": FRAMES, "nuisance": nuisance} | change
    with pytest.raises(ValueError, match=message):
        RESPONSES[name](given.pop("bold"), given.pop("events"), **given)


def test_other_bad_times_are_named():
    with pytest.raises(ValueError, match="two vectors of one length"):
        trial_regressors([1.0, 2.0], [1.0], frame_times=FRAMES)
    with pytest.raises(ValueError, match="cutoff_seconds: expected a positive number, got 0"):
        high_pass(FRAMES, 0)
