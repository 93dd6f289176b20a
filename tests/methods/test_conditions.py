from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor
from nilearn.glm.regression import ARModel, OLSModel
from scipy.linalg import block_diag

from bidsdnn.methods.responses import ACROSS_RUNS, condition, high_pass

STIMULI = np.array(["cat", "dog", "egg", "fox", "gnu"])


def some_runs(n_voxels=6, *, seed=0, repeats=(2, 2, 1), lengths=(90, 110, 80)):
    """Runs of different lengths, in which not every stimulus is shown."""
    rng = np.random.default_rng(seed)
    runs = []
    for run, (times, length) in enumerate(zip(repeats, lengths, strict=True)):
        frames = 0.6 + 1.7 * np.arange(length)
        shown = rng.permutation(np.repeat(STIMULI if run else STIMULI[:4], times))
        onsets = 5 + np.arange(len(shown)) * (length * 1.7 - 40) / len(shown) + rng.uniform(0, 1.5, len(shown))
        events = pd.DataFrame({"onset": onsets, "duration": rng.uniform(0.5, 3, len(shown)), "stimulus_id": shown})
        nuisance = np.column_stack([rng.standard_normal((length, 3)), high_pass(frames), np.ones(length)])
        bold = 500 + 50 * run + 5 * rng.standard_normal((length, n_voxels))
        runs.append((bold, events, frames, nuisance))
    return runs


def estimated(runs, **given):
    bolds, events, frames, nuisance = zip(*runs, strict=True)
    return condition(bolds, events, frame_times=frames, nuisance=nuisance, **given)


def one_big_design(runs, hrf, first=False):
    """Stimuli's regressors of all runs one below the other, and the nuisance on a block diagonal."""
    stacked = []
    for _, events, frames, _ in runs:
        columns = []
        for name in STIMULI:
            rows = events[events.stimulus_id == name]
            triplet = (rows.onset.to_numpy(), rows.duration.to_numpy(), np.ones(len(rows)))
            width = 1 + hrf.count("+")
            columns.append(compute_regressor(triplet, hrf, frames)[0] if len(rows) else np.zeros((len(frames), width)))
        stacked.append(np.hstack(columns))
    return np.hstack([np.vstack(stacked), block_diag(*(nuisance for *_, nuisance in runs))])


@pytest.mark.parametrize("hrf", ["spm", "glover", "spm + derivative", "spm + derivative + dispersion"])
def test_equal_to_one_big_model(hrf):
    runs = some_runs()
    items, values = estimated(runs, hrf=hrf)
    width = 1 + hrf.count("+")
    theirs = OLSModel(one_big_design(runs, hrf)).fit(np.vstack([bold for bold, *_ in runs])).theta
    assert items.stimulus_id.tolist() == STIMULI.tolist()
    assert items.n_repeats.tolist() == [5, 5, 5, 5, 3]
    assert items.estimated.all()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, theirs[: 5 * width : width], rtol=1e-6, atol=1e-6 * np.abs(theirs[:5]).max())


@pytest.mark.parametrize("rho", [0.4, -0.2])
def test_ar1_is_generalised_least_squares_at_the_same_rho(rho):
    runs = some_runs()
    _, values = estimated(runs, noise="ar1", rho=rho)
    design, bold = one_big_design(runs, "spm"), np.vstack([bold for bold, *_ in runs])
    edges = np.cumsum([0] + [len(bold) for bold, *_ in runs])
    whitened = [
        np.vstack([ARModel(table[a:b], rho).whiten(table[a:b]) for a, b in pairwise(edges)]) for table in (design, bold)
    ]
    expected = np.linalg.lstsq(*whitened, rcond=None)[0][:5]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_rho_is_found_from_the_residuals_of_all_runs():
    runs = some_runs(n_voxels=30, lengths=(300, 300, 300))
    for bold, *_ in runs:
        for t in range(1, len(bold)):
            bold[t] += np.linspace(-0.3, 0.7, 30) * (bold[t - 1] - bold.mean())
    _, found = estimated(runs, noise="ar1")
    design, bold = one_big_design(runs, "spm"), np.vstack([bold for bold, *_ in runs])
    residuals = bold - design @ np.linalg.lstsq(design, bold, rcond=None)[0]
    edges = np.cumsum([0] + [len(bold) for bold, *_ in runs])
    parts = [residuals[a:b] for a, b in pairwise(edges)]
    shared = sum((e[1:] * e[:-1]).mean(axis=0) for e in parts)
    rho = np.trunc(100 * shared / sum((e**2).mean(axis=0) for e in parts)) / 100
    assert np.abs(rho - np.linspace(-0.3, 0.7, 30)).max() < 0.15
    _, given = estimated(runs, noise="ar1", rho=rho)
    np.testing.assert_allclose(found, given, rtol=1e-6)


def test_planted_responses_come_back_whatever_the_order_of_runs():
    rng = np.random.default_rng(1)
    runs = some_runs()
    planted = rng.standard_normal((5, 6))
    design = one_big_design(runs, "spm")[:, :5]
    edges = np.cumsum([0] + [len(bold) for bold, *_ in runs])
    runs = [
        (design[a:b] @ planted + 10 * nuisance @ rng.standard_normal((nuisance.shape[1], 6)), events, frames, nuisance)
        for (_, events, frames, nuisance), (a, b) in zip(runs, pairwise(edges), strict=True)
    ]
    np.testing.assert_allclose(estimated(runs)[1], planted, atol=1e-5)
    np.testing.assert_allclose(estimated(runs[::-1])[1], planted, atol=1e-5)


@pytest.mark.parametrize("noise", ["ols", "ar1"])
def test_blocks_of_voxels_do_not_change_the_betas(noise, monkeypatch):
    runs = some_runs(n_voxels=23)
    whole = estimated(runs, noise=noise)[1]
    monkeypatch.setattr("bidsdnn.methods.responses.conditions.VOXELS", 5)
    monkeypatch.setattr("bidsdnn.methods.responses.conditions.OPERATOR_BYTES", 1)
    np.testing.assert_allclose(estimated(runs, noise=noise)[1], whole, rtol=1e-6)


def test_stimuli_and_voxels_that_cannot_be_estimated_spare_the_others():
    runs = some_runs()
    whole = estimated(runs)[1]
    runs[1][0][3, 2], runs[2][0][:, 4] = np.nan, 7.0
    late = pd.DataFrame({"onset": [500.0], "duration": [1.0], "stimulus_id": ["late"]})
    runs[0] = (runs[0][0], pd.concat([runs[0][1], late]), *runs[0][2:])
    items, values = estimated(runs)
    assert items.estimated.tolist() == [True] * 5 + [False]
    assert np.isnan(values[5]).all()
    assert np.flatnonzero(np.isnan(values[:5]).any(axis=0)).tolist() == [2, 4]
    np.testing.assert_allclose(values[:5, [0, 1, 3, 5]], whole[:, [0, 1, 3, 5]], rtol=1e-5)


def test_two_stimuli_always_shown_together_are_not_told_apart():
    runs = []
    for bold, events, frames, nuisance in some_runs():
        twin = events[events.stimulus_id == "cat"].assign(stimulus_id="twin")
        runs.append((bold, pd.concat([events, twin]), frames, nuisance))
    items, values = estimated(runs)
    assert items.stimulus_id[~items.estimated].tolist() == ["cat", "twin"]
    assert np.isnan(values[~items.estimated]).all() and np.isfinite(values[items.estimated]).all()


@pytest.mark.parametrize("name", ACROSS_RUNS)
def test_bad_input_is_named(name):
    bolds, events, frames, nuisance = (list(part) for part in zip(*some_runs(), strict=True))
    call = ACROSS_RUNS[name]
    with pytest.raises(ValueError, match="expected one for each run"):
        call(bolds, events[:2], frame_times=frames, nuisance=nuisance)
    with pytest.raises(ValueError, match="expected the same voxels in each run"):
        call([*bolds[:2], bolds[2][:, :3]], events, frame_times=frames, nuisance=nuisance)
    with pytest.raises(ValueError, match="expected a column 'stimulus_id'"):
        call(bolds, [*events[:2], events[2][["onset", "duration"]]], frame_times=frames, nuisance=nuisance)
    with pytest.raises(ValueError, match="bold: expected shape"):
        call([*bolds[:2], bolds[2][:5]], events, frame_times=frames, nuisance=nuisance)
