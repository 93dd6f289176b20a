"""From trials to stimuli: planted responses are found by every estimator, runs one by one or all at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from bidsdnn.across_runs import copy_run, estimate_jointly
from bidsdnn.bids.dataset import Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, read_table
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import condition, high_pass, trial_regressors
from bidsdnn.parallel import serial
from bidsdnn.recordings import Estimation, Task
from bidsdnn.report.methods import REFERENCES
from bidsdnn.responses import ESTIMATORS, average_runs, responses
from bidsdnn.single_trials import betas_path, trials_of
from bidsdnn.spaces import Volume, write_nifti

N, TR, STIMULI, RUNS = 150, 2.0, 12, 4
SHAPE = (4, 4, 2)
FRAMES = TR * np.arange(N)


@dataclass
class Planted:
    """Tasks of one participant, and the response of each voxel to each stimulus (STIMULI, size)."""

    tasks: list[Task]
    truth: np.ndarray


@pytest.fixture
def planted(tmp_path):
    rng = np.random.default_rng(3)
    size = int(np.prod(SHAPE))
    truth = 3.0 * rng.normal(size=(STIMULI, size))
    space, tasks = Volume(np.ones(SHAPE, bool), np.diag([2.0, 2, 2, 1])), []
    for number in range(RUNS):
        shown = np.r_[rng.permutation(STIMULI), rng.permutation(STIMULI)[:4]]
        events = pd.DataFrame(
            {"onset": 8.0 + 17.0 * np.arange(16), "duration": 2.0, "trial": True,
             "stimulus_id": [f"s{i:02d}" for i in shown], "trial_type": "object"}
        )  # fmt: skip
        x = trial_regressors(events["onset"], events["duration"], frame_times=FRAMES)
        series = 100 + x @ truth[shown] + 0.3 * rng.normal(size=(N, size))
        bold = tmp_path / f"sub-01_task-t_run-{number}_bold.nii.gz"
        write_nifti(bold, series.T.reshape(*SHAPE, N), space.affine, tr=TR)
        entities = {"sub": "01", "task": "t", "run": str(number)}
        run = Run(entities, bold, None, None, tmp_path / f"run-{number}_events.tsv", TR, 0.0, None, None, "raw")
        tasks.append(Task(run, events, space, Estimation(), Derivatives(tmp_path / "out"), {"sub": "01", "task": "t"}))
    return Planted(tasks, truth)


def asked(planted, **changes):
    return [replace(task, estimation=replace(task.estimation, **changes)) for task in planted.tasks]


def found(tasks):
    return responses(tasks, sidecar={}, map=serial)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"timeseries"}))
def test_every_estimator_finds_planted_responses(planted, name):
    patterns, reliability, _ = found(asked(planted, response=name))
    assert patterns.ids == [f"s{i:02d}" for i in range(STIMULI)]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(patterns.values.T, planted.truth.T, strict=True)]
    assert np.median(r) > (0.95 if name in ("window", "fir") else 0.99)
    assert np.nanmedian(reliability) > 0.9
    quality = read_table(planted.tasks[0].derivatives.root / "sub-01/func/sub-01_task-t_desc-quality_results.tsv")
    assert (quality["n_trials"] == 16).all()
    assert len(quality) == RUNS


def test_a_model_of_all_runs_equals_its_function(planted):
    tasks = asked(planted, response="condition")
    patterns, reliability, _ = found(tasks)
    bolds = [task.space.read(task.run.bold) for task in tasks]
    beside = np.hstack([high_pass(FRAMES, 128.0), np.ones((N, 1))])
    everything = {"frame_times": [FRAMES] * RUNS, "nuisance": [beside] * RUNS}
    items, values = condition(bolds, [task.events for task in tasks], **everything)
    np.testing.assert_allclose(patterns.values, values, rtol=1e-4, atol=1e-4)
    assert patterns.items["n_repeats"].tolist() == items["n_repeats"].tolist()
    # Reliability: the same model of every other run.
    parts = [
        condition(bolds[i::2], [task.events for task in tasks[i::2]], frame_times=[FRAMES] * 2, nuisance=[beside] * 2)[
            1
        ]
        for i in (0, 1)
    ]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(parts[0].T, parts[1].T, strict=True)]
    np.testing.assert_allclose(reliability, 2 * np.array(r) / (1 + np.abs(r)), rtol=1e-4)
    assert not betas_path(tasks[0]).exists()


def test_it_is_read_back_equal_and_without_computing(planted, monkeypatch):
    tasks = asked(planted, response="condition", confounds=("none",))
    first, reliable, content = found(tasks)
    monkeypatch.setattr("bidsdnn.responses.estimate_jointly", None)
    again, same, digest = found(tasks)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(reliable, same)
    assert digest == content
    assert again.items["n_repeats"].tolist() == first.items["n_repeats"].tolist()


def test_scratch_files_go_where_asked_and_away(planted, tmp_path):
    task = planted.tasks[0]
    stored, recording = copy_run(task, folder=tmp_path)
    whole = task.space.read(task.run.bold)
    assert (stored.shape, stored.ndim, stored[:, :3].dtype, recording.series.size) == (whole.shape, 2, np.float32, 0)
    np.testing.assert_array_equal(stored[:, 5:9], whole[:, 5:9])
    np.testing.assert_array_equal(stored[3:7], whole[3:7])
    work = tmp_path / "work"
    estimate_jointly(asked(planted, response="condition"), map=serial, work_dir=work)
    assert list(work.iterdir()) == []


def test_a_users_estimator_of_all_runs(planted, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from types import SimpleNamespace\n"
        "def first_volumes(bolds, events, *, frame_times, sessions):\n"
        "    assert sessions == [''] * 4\n"
        "    parts = [np.array(b[:len(e)]) for b, e in zip(bolds, events)]\n"
        "    return SimpleNamespace(betas=np.vstack(parts), hrf=np.full(bolds[0].shape[1], 7), left_out=('Said.',))\n"
    )
    tasks = asked(planted, response=f"{tmp_path}/mine.py:first_volumes")
    found(tasks)
    for task in tasks:
        betas = task.space.read(betas_path(task))
        np.testing.assert_allclose(betas, task.space.read(task.run.bold)[:16], rtol=1e-6)
        assert read_table(trials_of(task))["estimated"].all()
    folder = planted.tasks[0].derivatives.root / "sub-01" / "func"
    chosen = tasks[0].space.read(folder / "sub-01_task-t_stat-hrf_desc-estimation_statmap.nii.gz")
    assert (chosen == 7).all()
    assert "Said." in read_json(folder / "sub-01_task-t_desc-quality_results.json")["Omitted"]


def test_unequal_repeats_and_stimuli_seen_once(planted):
    tasks = planted.tasks[:2]
    for task in tasks:
        task.events.loc[:, "stimulus_id"] = task.events["stimulus_id"].replace({"s03": f"only{task.run.run}"})
    found(tasks)
    averaged = average_runs(tasks)
    counts = dict(zip(averaged.patterns.ids, averaged.patterns.items["n_repeats"], strict=True))
    assert set(counts.values()) >= {1, 2, 3}
    sidecar = read_json(tasks[0].derivatives.root / "sub-01/func/sub-01_task-t_desc-quality_results.json")
    once = sum(count == 1 for count in counts.values())
    assert sidecar["StimuliSeenOnce"] == once > 0
    assert f"Stimuli shown once: {once} of {len(counts)}" in sidecar["Omitted"][0]
    snr = tasks[0].space.read(next(tasks[0].derivatives.root.glob("sub-01/func/*stat-ncsnr*.nii.gz")))
    np.testing.assert_allclose(snr[0], averaged.ncsnr, rtol=1e-5)
    assert np.nanmedian(snr) > 2


def test_methods_say_what_was_done(planted):
    tasks = asked(planted, smoothing=4.0, standardize="psc", noise="ar1", dummy_scans=2)
    found(tasks)
    text = read_json(tasks[0].derivatives.root / "sub-01/func/sub-01_task-t_desc-quality_results.json")["Methods"]
    assert "least squares separate" in text
    assert "smoothed with a kernel of 4 mm (FWHM)" in text
    assert "percent signal change" in text
    assert "autoregressive" in text


@pytest.mark.parametrize("response", ["lss", "lsa", "fir", "window", "condition"])
def test_what_was_used_is_cited_and_nothing_else(planted, response):
    found(asked(planted, response=response, noise="ols" if response == "window" else "ar1"))
    folder = planted.tasks[0].derivatives.root / "sub-01/func"
    keys = read_json(folder / "sub-01_task-t_desc-quality_results.json")["References"]
    assert response in keys and ("ar1" in keys) == (response != "window")
    assert ("ncsnr" in keys) == (response != "condition")
    assert set(keys) <= set(REFERENCES) and not {"compcor", "motion-24", "ica-aroma", "fracridge"} & set(keys)


def test_a_run_whose_trials_are_all_outside_is_named(planted):
    tasks = asked(planted, response="condition")
    tasks[1].events["onset"] += 270.0
    with pytest.raises(DataError, match=r"run-1_events.tsv: .*onsets? .*sub-01_task-t_run-1_bold.nii.gz"):
        found(tasks)


def test_smoothing_is_the_spaces_own(planted):
    whole = planted.tasks[0].space.read(planted.tasks[0].run.bold)
    task = asked(planted, smoothing=3.0)[0]
    from bidsdnn.recordings import load_run

    np.testing.assert_array_equal(load_run(task).series, task.space.smooth(whole, 3.0))


def test_glmsingle_writes_what_it_chose_and_says_what_it_left_out(planted):
    found(asked(planted, response="glmsingle"))
    folder = planted.tasks[0].derivatives.root / "sub-01/func"
    space = planted.tasks[0].space
    hrf = space.read(folder / "sub-01_task-t_stat-hrf_desc-estimation_statmap.nii.gz")[0]
    assert set(np.unique(hrf)) <= set(range(1, 21)) and hrf.std() < 6
    fraction = space.read(folder / "sub-01_task-t_stat-fraction_desc-estimation_statmap.nii.gz")[0]
    assert ((fraction > 0) & (fraction <= 1)).all()
    text = read_json(folder / "sub-01_task-t_desc-quality_results.json")
    assert "response shape, noise components and ridge chosen" in text["Methods"]
    assert {"glmsingle", "glmdenoise", "fracridge", "ncsnr"} <= set(text["References"])
    once = asked(planted, response="glmsingle")
    for number, task in enumerate(once):
        task.events["stimulus_id"] = [f"r{number}-{name}-{i}" for i, name in enumerate(task.events["stimulus_id"])]
    found(once)
    text = read_json(folder / "sub-01_task-t_desc-quality_results.json")
    assert "Denoising and ridge regression were left out" in str(text)
