from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm
from nilearn.glm.regression import ARModel

from bidsdnn.methods.responses import RESPONSES, ar1_coefficients, fir, high_pass, lsa, lss, trial_regressors

TR = 2.0
FRAMES = 0.7 + TR * np.arange(120)
MODELS = ("lss", "lsa")
DERIVATIVES = ("spm + derivative", "glover + derivative", "spm + derivative + dispersion")


def a_run(n_trials=24, n_voxels=7, *, seed=0, duration=1.5):
    rng = np.random.default_rng(seed)
    onsets = 4 + np.sort(rng.permutation(50)[:n_trials]) * 4.3 + rng.uniform(0, 1, n_trials)
    events = pd.DataFrame({"onset": onsets, "duration": rng.uniform(0, 2 * duration, n_trials)})
    nuisance = np.column_stack([rng.standard_normal((len(FRAMES), 6)), high_pass(FRAMES), np.ones(len(FRAMES))])
    bold = 1000 + 10 * rng.standard_normal((len(FRAMES), n_voxels))
    return bold, events, nuisance


def nilearn_betas(bold, events, nuisance, *, hrf, separate, rho=None, delays=None, averaged=None, noise="ols"):
    """One model per trial (or one for all), as a nilearn user would write it."""
    trials = range(len(events))
    names = [f"trial{i}" for i in trials]
    models = [["own" if j == i else "rest" for j in trials] for i in trials] if separate else [names]
    rows = []
    for labels in models:
        design = make_first_level_design_matrix(
            FRAMES,
            events.assign(trial_type=labels),
            hrf_model="fir" if delays else hrf,
            fir_delays=delays,
            drift_model=None,
            add_regs=nuisance[:, :-1],
        )
        if rho is not None:
            betas = ARModel(design.to_numpy(), rho).fit(bold).theta
        else:
            betas = np.empty((design.shape[1], bold.shape[1]))
            groups, results = run_glm(bold, design.to_numpy(), noise_model=noise)
            for label, result in results.items():
                betas[:, groups == label] = result.theta
        for name in ["own"] if separate else names:
            wanted = [f"{name}_delay_{delay}" for delay in averaged] if delays else [name]
            rows.append(betas[[design.columns.get_loc(column) for column in wanted]].mean(axis=0))
    return np.array(rows)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(theirs)))


@pytest.mark.parametrize("hrf", ["spm", "glover"])
@pytest.mark.parametrize("name", MODELS)
def test_betas_agree_with_nilearn_to_1e6(name, hrf):
    bold, events, nuisance = a_run()
    ours = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance, hrf=hrf)
    theirs = nilearn_betas(bold, events, nuisance, hrf=hrf, separate=name == "lss")
    assert ours.dtype == np.float32
    assert_close(ours, theirs)


@pytest.mark.parametrize("rho", [0.37, -0.12, 0.0])
@pytest.mark.parametrize("name", MODELS)
def test_ar1_agrees_with_nilearn_at_the_same_rho(name, rho):
    bold, events, nuisance = a_run()
    given = {"frame_times": FRAMES, "nuisance": nuisance, "noise": "ar1"}
    theirs = nilearn_betas(bold, events, nuisance, hrf="spm", separate=name == "lss", rho=rho)
    assert_close(RESPONSES[name](bold, events, rho=rho, **given), theirs)
    assert_close(RESPONSES[name](bold, events, rho=np.full(7, rho), **given), theirs)


def test_lsa_with_ar1_is_nilearns_own_fit_of_each_voxel():
    bold, events, nuisance = a_run(n_voxels=40)
    bold[1:] += 0.5 * (bold[:-1] - 1000) * np.linspace(-0.5, 1.5, 40)
    ours = lsa(bold, events, frame_times=FRAMES, nuisance=nuisance, noise="ar1")
    assert_close(ours, nilearn_betas(bold, events, nuisance, hrf="spm", separate=False, noise="ar1"))


def test_lss_with_ar1_is_close_to_nilearns_fit_of_each_trial():
    bold, events, nuisance = a_run(n_voxels=40)
    bold[1:] += 0.5 * (bold[:-1] - 1000) * np.linspace(-0.5, 1.5, 40)
    ours = lss(bold, events, frame_times=FRAMES, nuisance=nuisance, noise="ar1")
    theirs = nilearn_betas(bold, events, nuisance, hrf="spm", separate=True, noise="ar1")
    plain = lss(bold, events, frame_times=FRAMES, nuisance=nuisance)
    # nilearn's coefficient differs from trial to trial by a bin or two; ours is one for all of them.
    spread = theirs.std()
    assert (ours - theirs).std() < 0.02 * spread
    assert (plain - theirs).std() > 0.2 * spread


@pytest.mark.parametrize("hrf", DERIVATIVES)
@pytest.mark.parametrize("rho", [None, 0.3])
@pytest.mark.parametrize("name", MODELS)
def test_derivatives_agree_with_nilearn(name, rho, hrf):
    bold, events, nuisance = a_run(n_trials=14)
    noise = {} if rho is None else {"noise": "ar1", "rho": rho}
    ours = RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance, hrf=hrf, **noise)
    assert_close(ours, nilearn_betas(bold, events, nuisance, hrf=hrf, separate=name == "lss", rho=rho))


@pytest.mark.parametrize("rho", [None, 0.3])
def test_fir_agrees_with_nilearn(rho):
    bold, events, nuisance = a_run(n_trials=14)
    noise = {} if rho is None else {"noise": "ar1", "rho": rho}
    ours = fir(bold, events, frame_times=FRAMES, nuisance=nuisance, **noise)
    delays = list(range(11))
    theirs = nilearn_betas(bold, events, nuisance, hrf=None, separate=True, rho=rho, delays=delays, averaged=[2, 3, 4])
    assert_close(ours, theirs)
    chosen = fir(bold, events, frame_times=FRAMES, nuisance=nuisance, delays=[1, 2, 5], averaged=[5, 1])
    theirs = nilearn_betas(bold, events, nuisance, hrf=None, separate=True, delays=[1, 2, 5], averaged=[1, 5])
    assert_close(chosen, theirs)


def test_fir_finds_planted_courses_of_any_shape():
    frames = TR * np.arange(120)
    starts = np.array([4, 17, 29, 43, 56, 70, 84, 97])
    course = np.array([0.0, 0.5, 2.0, 3.0, 1.0, -1.0])
    gain = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, -1.0, 2.0])
    bold = np.zeros((120, 1))
    for start, size in zip(starts, gain, strict=True):
        bold[start : start + len(course), 0] += size * course
    events, nuisance = pd.DataFrame({"onset": frames[starts], "duration": TR}), np.empty((120, 0))
    for averaged, expected in (([2, 3], 2.5), ([5], -1.0), ([0], 0.0), ([7], 0.0)):
        betas = fir(bold, events, frame_times=frames, nuisance=nuisance, delays=range(8), averaged=averaged)
        np.testing.assert_allclose(betas[:, 0], gain * expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", MODELS)
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
    monkeypatch.setattr("bidsdnn.methods.responses.noise_model.VOXELS", 7)
    parts = RESPONSES[name](bold.astype(np.float32), events, frame_times=FRAMES, nuisance=nuisance)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bold": np.zeros((3, 2))}, r"bold: expected shape \(120, V\)"),
        ({"nuisance": np.ones((5, 1))}, r"nuisance: expected shape \(120, C\)"),
        ({"nuisance": np.where(np.eye(120, 3) > 0, np.nan, 1)}, r"nuisance: .* columns \[0, 1, 2\]"),
        ({"events": pd.DataFrame({"onset": [1.0]})}, "events: expected a column 'duration'"),
        ({"events": pd.DataFrame({"onset": [np.nan], "duration": [1.0]})}, "onsets: expected finite"),
        ({"events": pd.DataFrame({"onset": [1.0], "duration": [-1.0]})}, "durations: .* got -1.0"),
        ({"frame_times": np.zeros(120)}, "frame_times: expected at least 2 rising times"),
    ],
)
@pytest.mark.parametrize("name", RESPONSES)
def test_bad_input_is_named(name, change, message):
    bold, events, nuisance = a_run()
    given = {"bold": bold, "events": events, "frame_times": FRAMES, "nuisance": nuisance} | change
    with pytest.raises(ValueError, match=message):
        RESPONSES[name](given.pop("bold"), given.pop("events"), **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hrf": "box"}, r"hrf: expected one of \['glover', 'glover \+ derivative', .*, got 'box'"),
        ({"noise": "ar2"}, r"noise: expected one of \['ols', 'ar1'\], got 'ar2'"),
        ({"rho": 0.2}, "rho: expected none with noise 'ols'"),
        ({"noise": "ar1", "rho": [0.1, 0.2]}, r"rho: expected one number or shape \(7,\), got \(2,\)"),
        ({"noise": "ar1", "rho": 1.0}, "rho: expected numbers between -1 and 1"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_bad_models_are_named(name, change, message):
    bold, events, nuisance = a_run()
    with pytest.raises(ValueError, match=message):
        RESPONSES[name](bold, events, frame_times=FRAMES, nuisance=nuisance, **change)


@pytest.mark.parametrize("noise", ["ols", "ar1"])
@pytest.mark.parametrize("name", MODELS)
def test_scrubbed_volumes_leave_what_the_others_say(name, noise):
    rng = np.random.default_rng(5)
    _, events, nuisance = a_run(n_trials=18)
    planted = rng.standard_normal((1, 5)) * np.ones((18, 1)) if name == "lss" else rng.standard_normal((18, 5))
    x = trial_regressors(events.onset, events.duration, frame_times=FRAMES)
    bold = x @ planted + nuisance @ rng.standard_normal((nuisance.shape[1], 5)) * 100
    keep = np.ones(len(FRAMES), dtype=bool)
    keep[[0, 1, 20, 21, 22, 47, 90]] = False
    bold[~keep] = 1e6
    given = {"noise": noise} if noise == "ols" else {"noise": noise, "rho": 0.4}
    betas = RESPONSES[name](bold[keep], events, frame_times=FRAMES[keep], nuisance=nuisance[keep], **given)
    # Only the fine grid's phase differs, by the two volumes that are missing at its start.
    np.testing.assert_allclose(betas, planted, atol=0.02)


@pytest.mark.parametrize("rho", [0.5, -0.3])
def test_ar1_across_gaps_is_generalised_least_squares(rho):
    bold, events, nuisance = a_run(n_trials=12)
    keep = np.ones(len(FRAMES), dtype=bool)
    keep[[20, 21, 22, 47, 90, 91]] = False
    betas = lsa(bold[keep], events, frame_times=FRAMES[keep], nuisance=nuisance[keep], noise="ar1", rho=rho)
    x = np.hstack([trial_regressors(events.onset, events.duration, frame_times=FRAMES), nuisance])[keep]
    at = np.flatnonzero(keep)
    covariance = rho ** np.abs(at[:, None] - at)
    # The first volume weighs as if it had no past, as in nilearn: its innovation has the variance of the others.
    covariance = covariance - (rho**2 * rho ** (at - at[0]))[:, None] * rho ** (at - at[0])
    weights = np.linalg.inv(covariance)
    expected = np.linalg.solve(x.T @ weights @ x, x.T @ weights @ bold[keep])[:12]
    assert_close(betas, expected)


def test_a_trial_that_fell_into_scrubbed_volumes_is_not_estimated():
    bold, events, nuisance = a_run(n_trials=12)
    keep = (events.onset[5] - 0.1 > FRAMES) | (events.onset[5] + events.duration[5] + 34 < FRAMES)
    other = np.abs(events.onset - events.onset[5]) > 60
    events = events[other | (events.index == 5)].reset_index(drop=True)
    for name in MODELS:
        betas = RESPONSES[name](bold[keep], events, frame_times=FRAMES[keep], nuisance=nuisance[keep])
        assert np.flatnonzero(np.isnan(betas).all(axis=1)).size == 1


@pytest.mark.parametrize("name", MODELS)
def test_planted_responses_in_autocorrelated_noise_are_unbiased_and_better_by_ar1(name):
    rng = np.random.default_rng(11)
    _, events, nuisance = a_run(n_trials=20)
    x = trial_regressors(events.onset, events.duration, frame_times=FRAMES)
    planted = 2 * rng.standard_normal((20, 1)) if name == "lsa" else np.full((20, 1), 2.0)
    noise = rng.standard_normal((len(FRAMES), 2000))
    for volume in range(1, len(FRAMES)):
        noise[volume] += 0.7 * noise[volume - 1]
    error = {
        kind: RESPONSES[name](x @ planted + noise, events, frame_times=FRAMES, nuisance=nuisance, noise=kind) - planted
        for kind in ("ols", "ar1")
    }
    for one in error.values():
        standard_error = one.std(axis=1) / np.sqrt(2000)
        assert (np.abs(one.mean(axis=1)) < 4 * standard_error).all()
    assert (error["ar1"] ** 2).mean() < 0.92 * (error["ols"] ** 2).mean()


def test_estimated_coefficients_are_the_planted_ones():
    rng = np.random.default_rng(12)
    frames = TR * np.arange(2000)
    planted = np.repeat([-0.3, 0.0, 0.4, 0.8], 25)
    noise = rng.standard_normal((2000, 100))
    for volume in range(1, 2000):
        noise[volume] += planted * noise[volume - 1]
    found = ar1_coefficients(noise, np.ones((2000, 1)), frame_times=frames)
    np.testing.assert_allclose(found, np.round(found, 2), atol=1e-12)
    assert np.abs(found - planted).max() < 0.1 and abs((found - planted).mean()) < 0.02
    keep = rng.uniform(size=2000) > 0.2
    scrubbed = ar1_coefficients(noise[keep], np.ones((keep.sum(), 1)), frame_times=frames[keep])
    assert np.abs(scrubbed - planted).max() < 0.12 and abs((scrubbed - planted).mean()) < 0.02
