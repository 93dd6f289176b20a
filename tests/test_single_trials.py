"""One run's responses: volumes left out are out of the fit, units, and what is said of the run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.dataset import Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import high_pass, lss
from bidsdnn.recordings import Estimation, Task, scaled
from bidsdnn.single_trials import betas_path, estimate_run, input_digest, trials_of
from bidsdnn.spaces import Volume, write_nifti

N, TR = 120, 2.0


@pytest.fixture
def task(tmp_path):
    rng = np.random.default_rng(1)
    series = 100 + rng.normal(size=(4, 4, 2, N))
    write_nifti(tmp_path / "sub-01_task-t_bold.nii.gz", series, np.diag([2.0, 2, 2, 1]), tr=TR)
    motion = pd.DataFrame(
        rng.normal(scale=0.01, size=(N, 6)), columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    )
    motion["framewise_displacement"] = np.r_[np.nan, np.full(N - 1, 0.1)]
    motion.loc[[30, 31, 77], "framewise_displacement"] = 2.0
    motion.to_csv(tmp_path / "c.tsv", sep="\t", index=False, na_rep="n/a")
    onsets = 6.0 + 11.0 * np.arange(20)
    events = pd.DataFrame(
        {"onset": onsets, "duration": 1.0, "trial": True, "stimulus_id": [f"s{i % 10}" for i in range(20)]}
    )
    run = Run({"sub": "01", "task": "t"}, tmp_path / "sub-01_task-t_bold.nii.gz", None, tmp_path / "c.tsv",
              tmp_path / "e.tsv", TR, 0.0, None, None, "raw")  # fmt: skip
    space = Volume(np.ones((4, 4, 2), bool), np.diag([2.0, 2, 2, 1]))
    return Task(run, events, space, Estimation(), Derivatives(tmp_path / "out"), {"sub": "01", "task": "t"})


def estimated(task, **changes):
    task = replace(task, estimation=replace(task.estimation, **changes))
    found = estimate_run(task)
    return task.space.read(betas_path(task)), found


def test_volumes_left_out_are_out_of_the_fit(task):
    betas, found = estimated(task, fd_threshold=1.0)
    left = [30, 31, 77]
    assert found["quality"]["n_volumes_left_out"] == 3
    assert np.flatnonzero(found["volumes"]["reason"] != "").tolist() == left
    # The same fit, the rows of those volumes given a regressor of their own each.
    bold, table = task.space.read(task.run.bold), pd.read_csv(task.run.confounds, sep="\t", na_values="n/a")
    frames = TR * np.arange(N)
    nuisance = np.hstack([table.iloc[:, :6], high_pass(frames, 128.0), np.ones((N, 1)), np.eye(N)[:, left]])
    expected = lss(bold, task.events, frame_times=frames, nuisance=nuisance)
    np.testing.assert_allclose(betas, expected, atol=2e-4)
    # What the volumes hold has no part in it.
    data = np.moveaxis(task.space.read(task.run.bold).reshape(N, 4, 4, 2), 0, -1).copy()
    data[..., left] += 1e3
    write_nifti(task.run.bold, data, np.diag([2.0, 2, 2, 1]), tr=TR)
    again, _ = estimated(task, fd_threshold=1.0)
    np.testing.assert_array_equal(again, betas)
    whole, _ = estimated(task)
    assert np.abs(whole - betas).max() > 1
    # Dummy scans shift nilearn's fine grid, so regressors differ by a fiftieth of a volume.
    short, found = estimated(task, fd_threshold=1.0, dummy_scans=2)
    assert found["quality"]["n_volumes_left_out"] == 5
    near = np.corrcoef(short[2:].ravel(), betas[2:].ravel())[0, 1]
    assert 0.98 < near < 1


def test_units(task):
    betas, _ = estimated(task)
    percent, _ = estimated(task, standardize="psc")
    mean = task.space.read(task.run.bold).mean(axis=0)
    np.testing.assert_allclose(percent, betas / mean * 100, rtol=1e-3, atol=1e-4)
    sidecar = json.loads(betas_path(task).with_name(betas_path(task).name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Units"] == "percent signal change"
    assert sidecar["Confounds"][:2] == ["trans_x", "trans_y"]
    series = np.array([[1.0, 0, 5], [3.0, 0, 5]], dtype=np.float32)
    np.testing.assert_allclose(scaled(series, "zscore"), [[-1, np.nan, np.nan], [1, np.nan, np.nan]])
    np.testing.assert_allclose(scaled(series, "psc"), [[-50, np.nan, 0], [50, np.nan, 0]])
    assert scaled(series, "none") is series


def test_a_run_says_what_was_dropped_and_why(task):
    table = task.events.copy()
    table.loc[5, "onset"] = table.loc[4, "onset"]
    table.loc[19, "onset"] = 500.0
    _, found = estimated(replace(task, events=table), response="lsa")
    assert found["quality"]["n_dropped"] == 3
    assert found["quality"]["n_overlapping"] == 1
    assert dict(zip(found["dropped"]["reason"], found["dropped"]["n_trials"], strict=True)) == {
        "collinear": 2, "after the last volume": 1,
    }  # fmt: skip
    assert found["warnings"] == [
        "task-t: 2 trials are collinear (s4 at 50 s with s5 at 50 s; s5 at 50 s with s4 at 50 s); use --response lss, "
        "fewer --confounds, or leave trials out with --event-filter"
    ]
    written = read_table(trials_of(task))
    assert written["reason"].fillna("").tolist()[4:7] == ["collinear", "collinear", ""]


def test_all_trials_collinear_is_an_error_with_the_remedy(task):
    table = task.events.iloc[:4].assign(onset=20.0)
    with pytest.raises(
        DataError, match=r"e.tsv: no trial .*4 trials are collinear \(s0 at 20 s with s1 at 20 s.*--event-filter"
    ):
        estimated(replace(task, events=table), response="lsa")


def test_a_users_estimator_gets_what_it_takes(task, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def mean(bold, events, *, frame_times, power=1):\n"
        "    return bold.mean(axis=0) ** power + 0 * events['onset'].to_numpy()[:, None]\n"
    )
    betas, _ = estimated(task, response=f"{tmp_path}/mine.py:mean", parameters={"power": 2})
    np.testing.assert_allclose(betas[0], task.space.read(task.run.bold).mean(axis=0) ** 2, rtol=1e-5)


def test_everything_that_changes_numbers_is_hashed(task):
    changes = [
        {"response": "lsa"}, {"hrf": "glover"}, {"noise": "ar1"}, {"high_pass": 100.0}, {"confounds": ("motion-24",)},
        {"fd_threshold": 0.5}, {"dummy_scans": 1}, {"smoothing": 4.0}, {"standardize": "psc"}, {"parameters": {"a": 1}},
    ]  # fmt: skip
    assert {key for change in changes for key in change} == set(vars(Estimation()))
    hashes = [input_digest(replace(task, estimation=replace(task.estimation, **change))) for change in changes]
    assert len({input_digest(task), *hashes}) == len(changes) + 1
    task.run.confounds.with_suffix(".json").write_text("{}")
    assert input_digest(task) not in hashes
