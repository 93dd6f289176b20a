from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm
from sklearn.covariance import ledoit_wolf

from bidsdnn.methods.responses import (
    fir_courses,
    high_pass,
    percent_signal_change,
    residual_covariance,
    residuals,
    standardized,
    timeseries,
    trial_regressors,
)

TR = 2.0
FRAMES = TR * np.arange(120)
EVENTS = pd.DataFrame({"onset": 6 + 11.3 * np.arange(18), "duration": 1.0, "stimulus_id": list("abcabcabcabcabcabc")})
NUISANCE = np.column_stack([np.random.default_rng(1).standard_normal((120, 4)), high_pass(FRAMES), np.ones(120)])
MODEL = {"frame_times": FRAMES, "nuisance": NUISANCE}


def a_series(n_voxels=8, *, seed=0):
    return 1000 + np.random.default_rng(seed).standard_normal((120, n_voxels)) * np.linspace(1, 3, n_voxels)


@pytest.mark.parametrize("noise", ["ols", "ar1"])
def test_courses_agree_with_nilearn(noise):
    bold = a_series()
    design = make_first_level_design_matrix(
        FRAMES,
        EVENTS.rename(columns={"stimulus_id": "trial_type"}),
        hrf_model="fir",
        fir_delays=[0, 1, 3, 6],
        drift_model=None,
        add_regs=NUISANCE[:, :-1],
    )
    labels, results = run_glm(bold, design.to_numpy(), noise_model=noise)
    kinds, courses = fir_courses(bold, EVENTS, delays=[0, 1, 3, 6], noise=noise, **MODEL)
    assert kinds == ["a", "b", "c"] and courses.shape == (3, 4, 8)
    for label, result in results.items():
        expected = result.theta[:12].reshape(3, 4, -1)
        found = courses[:, :, labels == label]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_planted_courses_come_back():
    planted = np.random.default_rng(2).standard_normal((3, 11, 4))
    starts = 2 + np.cumsum(np.random.default_rng(3).permutation([4, 5, 6, 6, 7, 8] * 3))
    events = EVENTS.assign(onset=TR * starts, duration=TR)
    bold = np.zeros((140, 4))
    for start, kind in zip(starts, EVENTS.stimulus_id, strict=True):
        bold[start : start + 11] += planted["abc".index(kind)]
    bold = bold[:120] + 10 * NUISANCE[:, :4]
    _, courses = fir_courses(bold, events, **MODEL)
    np.testing.assert_allclose(courses, planted, atol=1e-3)


def test_residuals_are_those_of_nilearns_model():
    bold = a_series()
    design = make_first_level_design_matrix(
        FRAMES,
        EVENTS.drop(columns="stimulus_id").assign(trial_type=[f"t{i}" for i in range(18)]),
        hrf_model="spm",
        drift_model=None,
        add_regs=NUISANCE[:, :-1],
    ).to_numpy()
    _, results = run_glm(bold, design, noise_model="ols")
    left, dof = residuals(bold, EVENTS, columns=[1, 5], **MODEL)
    np.testing.assert_allclose(left, results[0.0].residuals[:, [1, 5]], atol=1e-8)
    assert dof == 120 - np.linalg.matrix_rank(design)


def test_covariance_over_runs_is_the_planted_one():
    rng = np.random.default_rng(4)
    mixing = rng.standard_normal((5, 5))
    bolds = [100 * run + rng.standard_normal((120, 5)) @ mixing for run in range(40)]
    x = trial_regressors(EVENTS.onset, EVENTS.duration, frame_times=FRAMES)
    bolds = [bold + x @ rng.standard_normal((18, 5)) * 20 for bold in bolds]
    many = {key: [value] * 40 for key, value in MODEL.items()}
    covariance, dof = residual_covariance(bolds, [EVENTS] * 40, **many)
    truth = mixing.T @ mixing
    assert np.abs(covariance - truth).max() < 0.1 * np.abs(truth).max()
    stacked = np.vstack([residuals(bold, EVENTS, **MODEL)[0] for bold in bolds])
    np.testing.assert_allclose(covariance, stacked.T @ stacked / dof, rtol=1e-10)
    shrunk, _ = residual_covariance(bolds[:2], [EVENTS] * 2, method="shrinkage", **{k: v[:2] for k, v in many.items()})
    both = stacked[:240]
    np.testing.assert_allclose(shrunk, ledoit_wolf(both, assume_centered=True)[0] * 240 / (2 * dof / 40), rtol=1e-8)
    alone, _ = residual_covariance(bolds, [EVENTS] * 40, method="diagonal", **many)
    np.testing.assert_allclose(alone, np.diag(np.diag(covariance)))


@pytest.mark.parametrize("method", ["full", "shrinkage", "diagonal"])
def test_voxels_that_are_broken_in_one_run_have_no_covariance(method):
    bolds = [a_series(seed=0), a_series(seed=1)]
    bolds[1][3, 2], bolds[0][:, 5] = np.nan, 4.0
    both = {key: [value] * 2 for key, value in MODEL.items()}
    covariance, _ = residual_covariance(bolds, [EVENTS] * 2, columns=slice(1, 7), method=method, **both)
    assert np.flatnonzero(np.isnan(covariance).all(axis=0)).tolist() == [1, 4]
    kept = [0, 2, 3, 5]
    clean = residual_covariance(bolds, [EVENTS] * 2, columns=[1, 3, 4, 6], method=method, **both)[0]
    np.testing.assert_allclose(covariance[np.ix_(kept, kept)], clean)


def test_bad_covariances_are_named():
    with pytest.raises(ValueError, match="method: expected one of"):
        residual_covariance([a_series()], [EVENTS], frame_times=[FRAMES], nuisance=[NUISANCE], method="oas")
    with pytest.raises(ValueError, match="120 volumes leave no degree of freedom"):
        residual_covariance([a_series()], [EVENTS], frame_times=[FRAMES], nuisance=[np.eye(120)])


def test_per_cent_signal_change_is_relative_to_the_mean():
    bold = np.array(
        [[100.0, 1e6, 0.0, -5.0, np.nan], [102.0, 1e6 + 10, 1.0, -5.0, 1.0], [98.0, 1e6 - 10, -1.0, -5.0, 1.0]]
    )
    changed = percent_signal_change(bold)
    np.testing.assert_allclose(changed[:, :2], [[0, 0], [2, 0.001], [-2, -0.001]], atol=1e-6)
    assert np.isnan(changed[:, 2:]).all()
    assert changed.dtype == np.float32
    with pytest.raises(ValueError, match=r"bold: expected shape \(T, V\), got \(3,\)"):
        percent_signal_change(np.zeros(3))


def test_responses_are_standardised_run_by_run():
    values = np.random.default_rng(0).standard_normal((12, 4)) * 3 + 7
    values[:, 3], values[2], values[8, 1] = 2.5, np.nan, np.nan
    runs = np.repeat([1, 2, 3], [5, 6, 1])
    scaled = standardized(values, runs)
    rows = [0, 1, 3, 4]
    own = values[rows, 0]
    np.testing.assert_allclose(scaled[rows, 0], (own - own.mean()) / own.std(), rtol=1e-6)
    assert np.isnan(scaled[2]).all() and np.isnan(scaled[:, 3]).all() and np.isnan(scaled[11]).all()
    assert np.isnan(scaled[5:11, 1]).all() and np.isfinite(scaled[rows, 1]).all()
    np.testing.assert_allclose(standardized(values[:5]), scaled[:5])
    with pytest.raises(ValueError, match=r"values, runs: expected \(n, V\) and \(n,\)"):
        standardized(values, runs[:3])


def test_volumes_of_a_stimulus_are_rows_with_its_name_and_time():
    bold = a_series()
    frames = -3.0 + TR * np.arange(120)
    events = pd.DataFrame(
        {"onset": [0.0, 100.5], "duration": [10.0, 6.0], "stimulus_id": ["film", "7"], "stimulus_start": [2.0, 0.0]}
    )
    items, values = timeseries(bold, events, frame_times=frames, nuisance=NUISANCE)
    assert items.volume.tolist() == [2, 3, 4, 5, 6, 52, 53, 54]
    assert items.clip_id.tolist() == [f"film@{t}.000" for t in (3, 5, 7, 9, 11)] + ["7@0.500", "7@2.500", "7@4.500"]
    assert items.presentation.tolist() == [0] * 5 + [1] * 3
    left = bold - NUISANCE @ np.linalg.lstsq(NUISANCE, bold, rcond=None)[0]
    np.testing.assert_allclose(values, left[items.volume], atol=1e-4)
    keep = np.delete(np.arange(120), [3, 53])
    some, _ = timeseries(bold[keep], events, frame_times=frames[keep], nuisance=NUISANCE[keep])
    assert some.clip_id.tolist() == [items.clip_id[i] for i in (0, 2, 3, 4, 5, 7)]


def test_ends_of_a_presentation_are_trimmed_or_extended():
    events = pd.DataFrame({"onset": [20.0], "duration": [20.0], "stimulus_id": ["film"]})
    for trim, times in (((4, 2), [4, 6, 8, 10, 12, 14, 16]), ((0, -4), list(range(0, 24, 2))), ((30, 0), [])):
        items, values = timeseries(a_series(), events, trim=trim, **MODEL)
        assert items.time.tolist() == times and values.shape == (len(times), 8)
    with pytest.raises(ValueError, match="trim: expected two numbers of seconds"):
        timeseries(a_series(), events, trim=(1,), **MODEL)
    with pytest.raises(ValueError, match="expected a column 'stimulus_id'"):
        timeseries(a_series(), events[["onset", "duration"]], **MODEL)
    with pytest.raises(ValueError, match="finite seconds in 'stimulus_start'"):
        timeseries(a_series(), events.assign(stimulus_start=np.nan), **MODEL)
