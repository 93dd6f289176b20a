from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from bidsdnn.across_runs import Stored
from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.fractional_ridge import FRACTIONS
from bidsdnn.methods.hrf_library import kernels
from bidsdnn.methods.noise_pool import components
from bidsdnn.methods.responses import library_model as module
from bidsdnn.methods.responses import trial_regressors
from bidsdnn.methods.responses.glmsingle import glmsingle

TR, VOLUMES, RUNS, STIMULI, DURATION = 1.5, 150, 4, 30, 2.0
FRAMES = 0.75 + TR * np.arange(VOLUMES)
NUISANCE = np.vander(np.linspace(-1, 1, VOLUMES), 3)


def plant(*, voxels=120, noise=1.0, shared=0.0, on_grid=False, seed=0, gap=6.9):
    """Half the voxels respond to each stimulus with their own amplitudes and their own place in the library."""
    rng = np.random.default_rng(seed)
    responds = np.arange(voxels) < voxels // 2
    place = rng.integers(4, 17, voxels)
    amplitude = np.where(responds, 1.5 + rng.standard_normal((STIMULI, voxels)), 0)
    bolds, events, order = [], [], []
    for _ in range(RUNS):
        shown = rng.permutation(STIMULI)
        onset = 4 + gap * np.arange(STIMULI) + (0 if on_grid else rng.uniform(0, 1, STIMULI))
        frames = FRAMES - 0.75 if on_grid else FRAMES
        events.append(pd.DataFrame({"onset": onset, "duration": DURATION, "stimulus_id": [f"s{i}" for i in shown]}))
        series = 300 + noise * rng.standard_normal((VOLUMES, voxels))
        series += np.linspace(-1, 1, VOLUMES)[:, None] * rng.standard_normal(voxels) * 5
        for number, kernel in enumerate(kernels(DURATION)):
            x = trial_regressors(onset, np.full(STIMULI, DURATION), frame_times=frames, hrf=kernel)
            series[:, place == number] += x @ amplitude[shown][:, place == number]
        slow = gaussian_filter1d(rng.standard_normal((VOLUMES, 2)), 1.5, axis=0)
        series += shared * (slow / slow.std(axis=0)) @ rng.standard_normal((2, voxels))
        bolds.append(series.astype(np.float32))
        order.append(amplitude[shown])
    return bolds, events, np.vstack(order), place, responds


def fit(bolds, events, **options):
    n = len(bolds)
    return glmsingle(bolds, events, frame_times=[FRAMES] * n, nuisance=[NUISANCE] * n, **options)


def correlations(a, b):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def renamed(events):
    """The same trials, none repeated."""
    return [table.assign(stimulus_id=[f"{run}-{i}" for i in table.index]) for run, table in enumerate(events)]


def test_planted_responses_and_their_shapes_are_recovered():
    bolds, events, truth, place, responds = plant(noise=0.2)
    found = fit(bolds, events)
    assert (np.abs(found.hrf - 1 - place)[responds] <= 1).mean() > 0.9
    assert np.median(correlations(found.betas, truth)[responds]) > 0.98
    # Scaled back after the ridge, so in the units that were planted.
    slopes = [np.polyfit(truth[:, v], found.betas[:, v], 1)[0] for v in np.flatnonzero(responds)]
    assert np.median(slopes) == pytest.approx(1, abs=0.08)
    assert found.left_out == () and not found.noise_pool[responds].any()
    assert np.isin(found.fraction, np.float32(FRACTIONS)).all()
    assert np.median(found.fraction[responds]) > 0.8 > np.median(found.fraction[~responds])
    assert np.median(found.r2[responds]) > 0.9 and ((found.r2 >= 0) & (found.r2 <= 1)).all()


def test_a_planted_shared_component_is_removed_and_reliability_improves():
    bolds, events, truth, _, responds = plant(voxels=300, noise=1.0, shared=2.0)
    labels = np.concatenate([table["stimulus_id"] for table in events])
    full, undenoised = fit(bolds, events), fit(bolds, events, n_components=0)
    assert full.n_components == 2 and full.curve[0] > 1.2 * full.curve.min() and full.left_out == ()
    assert undenoised.left_out == ("Denoising was left out, as asked.",) and undenoised.n_components == 0
    quality = [np.median(correlations(one.betas, truth)[responds]) for one in (undenoised, full)]
    reliable = [np.nanmedian(split_half(one.betas, labels)[responds]) for one in (undenoised, full)]
    assert quality[1] > quality[0] + 0.1 and reliable[1] > reliable[0] + 0.1


def test_ridge_improves_reliability_where_trials_overlap():
    bolds, events, truth, _, responds = plant(noise=3.0, gap=3.5)
    labels = np.concatenate([table["stimulus_id"] for table in events])
    ridge, plain = fit(bolds, events, n_components=0), fit(bolds, renamed(events))
    quality = [np.median(correlations(one.betas, truth)[responds]) for one in (plain, ridge)]
    reliable = [np.nanmedian(split_half(one.betas, labels)[responds]) for one in (plain, ridge)]
    assert quality[1] > quality[0] + 0.05 and reliable[1] > reliable[0] + 0.05


def test_without_noise_to_share_no_component_is_forced_in():
    bolds, events, *_ = plant(voxels=300, noise=1.0, shared=0.0)
    found = fit(bolds, events)
    assert found.n_components <= 1


def test_without_repeats_it_is_least_squares_with_the_chosen_response_and_says_what_it_left_out():
    bolds, events, _, _, _ = plant(voxels=20)
    found = fit(bolds, renamed(events))
    assert len(found.left_out) == 1 and "Denoising and ridge regression were left out" in found.left_out[0]
    assert (found.fraction == 1).all() and found.n_components == 0 and not found.noise_pool.any()
    for voxel in range(20):
        kernel = kernels(DURATION)[found.hrf[voxel] - 1]
        explained, total = 0.0, 0.0
        for run, (bold, table) in enumerate(zip(bolds, events, strict=True)):
            x = trial_regressors(table["onset"], table["duration"], frame_times=FRAMES, hrf=kernel)
            model = np.hstack([x, NUISANCE])
            expected, *_ = np.linalg.lstsq(model, bold[:, voxel].astype(float), rcond=None)
            rows = slice(run * STIMULI, (run + 1) * STIMULI)
            there = np.isfinite(found.betas[rows, voxel])
            np.testing.assert_allclose(found.betas[rows, voxel][there], expected[:STIMULI][there], rtol=2e-3, atol=2e-3)
            clean = bold[:, voxel] - NUISANCE @ np.linalg.lstsq(NUISANCE, bold[:, voxel].astype(float), rcond=None)[0]
            total += (clean**2).sum()
            explained += (clean**2).sum() - ((bold[:, voxel] - model @ expected) ** 2).sum()
        assert found.r2[voxel] == pytest.approx(explained / total, abs=1e-3)


def test_the_chosen_response_explains_most_variance():
    bolds, events, *_ = plant(voxels=12, noise=2.0)
    found = fit(bolds, renamed(events))
    shares = []
    for kernel in kernels(DURATION):
        left = 0.0
        for bold, table in zip(bolds, events, strict=True):
            x = trial_regressors(table["onset"], table["duration"], frame_times=FRAMES, hrf=kernel)
            model = np.hstack([x, NUISANCE])
            left = left + ((bold - model @ np.linalg.lstsq(model, bold.astype(float), rcond=None)[0]) ** 2).sum(axis=0)
        shares.append(left)
    assert (np.argmin(shares, axis=0) == found.hrf - 1).all()


def test_components_enter_the_model_as_nuisance_regressors_would():
    bolds, events, *_ = plant(voxels=40, shared=1.0)
    model = module.library_model(bolds, events, [FRAMES] * RUNS, [NUISANCE] * RUNS, "spm", torch.device("cpu"))
    (_, series, _, _), *_ = model.series()
    noise = components([(series, np.ones(40, dtype=bool))], 3)
    swept = list(module.with_components(model, 7, series, noise))
    for count, found in enumerate(swept):
        expected = []
        for bold, table, extra in zip(bolds, events, noise, strict=True):
            x = trial_regressors(table["onset"], table["duration"], frame_times=FRAMES, hrf=kernels(DURATION)[7])
            full = np.hstack([x, NUISANCE, extra[:, :count].numpy()])
            expected.append(np.linalg.lstsq(full, bold.astype(float), rcond=None)[0][:STIMULI])
        np.testing.assert_allclose(found.numpy(), np.vstack(expected), atol=1e-6)


def test_betas_do_not_depend_on_the_blocks_nor_on_where_the_series_are(tmp_path, monkeypatch):
    bolds, events, *_ = plant(voxels=60, shared=1.0)
    whole = fit(bolds, events)
    monkeypatch.setattr(module, "_VOXELS", 13)
    mapped = []
    for run, bold in enumerate(bolds):
        np.save(tmp_path / f"{run}.npy", bold)
        mapped.append(np.load(tmp_path / f"{run}.npy", mmap_mode="r"))
    parts = fit(mapped, events)
    np.testing.assert_array_equal(parts.hrf, whole.hrf)
    np.testing.assert_array_equal(parts.fraction, whole.fraction)
    np.testing.assert_allclose(parts.betas, whole.betas, rtol=1e-4, atol=1e-5)


def test_unusable_voxels_and_trials_are_nan_and_change_nothing_else():
    bolds, events, _, _, responds = plant(voxels=60)
    whole = fit(bolds, events)
    spoilt = [bold.copy() for bold in bolds]
    spoilt[1][:, 3] = 7
    spoilt[2][10, 5] = np.nan
    late = [
        pd.concat([table, pd.DataFrame({"onset": [FRAMES[-1] + 5], "duration": 2.0, "stimulus_id": ["s1"]})])
        for table in events
    ]
    found = fit(spoilt, [table.reset_index(drop=True) for table in late])
    gone = np.arange(len(found.betas)) % (STIMULI + 1) == STIMULI
    assert np.isnan(found.betas[gone]).all() and np.isnan(found.betas[:, [3, 5]]).all()
    assert (found.hrf[[3, 5]] == 0).all() and np.isnan(found.r2[[3, 5]]).all()
    kept = np.setdiff1d(np.arange(60), [3, 5])
    r = correlations(found.betas[~gone][:, kept], whole.betas[:, kept])
    # Where there is nothing but noise, response and fraction may jump for a voxel fewer in the pool.
    assert r[responds[kept]].min() > 0.97


def test_trials_at_the_same_time_are_not_estimated_the_others_are():
    bolds, events, *_ = plant(voxels=20)
    events[0].loc[1, ["onset", "duration"]] = events[0].loc[0, ["onset", "duration"]]
    found = fit(bolds, events)
    assert np.isnan(found.betas[:2]).all() and np.isfinite(found.betas[2:28]).all()


def test_sessions_are_compared_after_z_scoring_each():
    bolds, events, _, _, responds = plant(noise=1.0)
    scaled = [bold * (1 if run < 2 else 8) for run, bold in enumerate(bolds)]
    together, apart = fit(scaled, events), fit(scaled, events, sessions=["1", "1", "2", "2"])
    assert np.median(apart.fraction[responds]) != np.median(together.fraction[responds])
    np.testing.assert_array_equal(apart.hrf, fit(scaled, events, sessions=[0, 0, 9, 9]).hrf)  # labels, not numbers


def test_fractions_are_asked_for_in_any_order_and_checked():
    bolds, events, *_ = plant(voxels=30)
    found = fit(bolds, events, fractions=[0.25, 1.0, 0.5])
    assert set(np.unique(found.fraction)) <= {0.25, 0.5, 1.0}
    for wrong in ([], [0.0, 1.0], [1.5]):
        with pytest.raises(ValueError, match="fractions: expected numbers above 0 and up to 1"):
            fit(bolds, events, fractions=wrong)


def test_agrees_with_the_published_implementation(tmp_path, monkeypatch):
    published = pytest.importorskip("glmsingle.glmsingle", reason="GLMsingle is not installed")
    monkeypatch.chdir(tmp_path)
    bolds, events, _, _, responds = plant(voxels=100, noise=1.5, shared=1.5, on_grid=True, gap=7.5)
    events = [table[table["onset"].lt(FRAMES[-1] - 15)].reset_index(drop=True) for table in events]
    events = [table.assign(onset=np.round(table["onset"] / TR) * TR) for table in events]
    design = []
    for table in events:
        design.append(np.zeros((VOLUMES, STIMULI)))
        column = table["stimulus_id"].str[1:].astype(int)
        design[-1][np.round(table["onset"] / TR).astype(int), column] = 1
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = published.GLM_single({"wantfileoutputs": [0] * 4, "wantmemoryoutputs": [0, 0, 0, 1]}).fit(
            design, [bold.T.copy() for bold in bolds], DURATION, TR, str(tmp_path / "o"), None
        )["typed"]["betasmd"]
    runs = len(bolds)
    ours = glmsingle(bolds, events, frame_times=[TR * np.arange(VOLUMES)] * runs, nuisance=[NUISANCE] * runs).betas
    assert np.median(correlations(ours, theirs.squeeze().T)[responds]) > 0.95


def test_responses_are_put_where_they_are_wanted(tmp_path):
    bolds, events, *_ = plant(voxels=40)
    out = Stored.empty(tmp_path / "responses.npy", (RUNS * STIMULI, 40))
    found = fit(bolds, events, out=out)
    assert found.betas is out
    np.testing.assert_array_equal(out[:, :], fit(bolds, events).betas)
    with pytest.raises(ValueError, match=r"out: expected shape \(120, 40\), got \(119, 40\)"):
        fit(bolds, events, out=Stored.empty(tmp_path / "few.npy", (RUNS * STIMULI - 1, 40)))
