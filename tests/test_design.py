"""One run's model: what of each trial was recorded, what is told of those that cannot be estimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.dataset import Run
from bidsdnn.design import FEWEST_RECORDED, check_onsets, collinear_trials, run_design, why_dropped
from bidsdnn.errors import DataError
from bidsdnn.methods.responses import trial_regressors

RUN = Run(
    {"sub": "01", "task": "t"}, Path("x_bold.nii.gz"), None, None, Path("x_events.tsv"), 2.0, 0.0, None, None, "raw"
)


def events(onsets, duration=1.0, **columns):
    ids = [f"s{i}" for i in range(len(onsets))]
    return pd.DataFrame({"onset": onsets, "duration": duration, "stimulus_id": ids, "trial": True, **columns})


def design(table, n=100, **options):
    return run_design(RUN, table, n, hrf="spm", period=128.0, **options)


def test_a_design_has_trials_confounds_other_events_and_a_constant():
    table = events([10.0, 30.0, 50.0], trial_type=["a", "catch", "a"])
    table["trial"] = [True, False, True]
    found = design(table)
    assert found.trials.shape == (100, 2)
    expected = trial_regressors([10.0, 50.0], [1.0, 1.0], frame_times=2.0 * np.arange(100))
    np.testing.assert_allclose(found.trials, expected)
    assert found.nuisance.regressors.columns.tolist()[-2:] == ["event_catch", "constant"]
    written = found.table()
    assert written.columns.tolist()[:2] == ["trial0", "trial1"]
    assert (written["fitted"] == 1).all()
    np.testing.assert_allclose(found.recorded, 1, atol=1e-6)


def test_collinearity_of_a_design():
    apart = design(events([10.0, 60.0, 110.0])).collinearity()
    close = design(events([10.0, 60.0, 62.0])).collinearity()
    same = design(events([10.0, 60.0, 60.0])).collinearity()
    assert apart["max_trial_r"] < 0.3 < 0.6 < close["max_trial_r"] < 0.95
    assert apart["condition_number"] < close["condition_number"] < 50
    assert same["max_trial_r"] == pytest.approx(1)
    assert np.isnan(same["condition_number"])
    x = design(events([10.0, 60.0, 62.0]))
    others = x.nuisance.regressors.to_numpy()
    unit = x.trials / np.linalg.norm(x.trials, axis=0)
    left = unit - others @ np.linalg.lstsq(others, unit, rcond=None)[0]
    assert close["condition_number"] == pytest.approx(np.linalg.cond(left))


def test_why_trials_are_dropped():
    table = events([-60.0, -1.0, 50.0, 50.0, 100.0, 199.5, 260.0])
    found = design(table, dummy_scans=0)
    shares = found.recorded
    assert shares[0] == 0
    assert shares[1] > 0.99
    assert shares[5] < FEWEST_RECORDED
    reasons = why_dropped(found, table, np.array([False, True, False, False, True, False, False]))
    assert reasons == [
        "before the first volume", "", "collinear", "collinear", "", "after the last volume", "after the last volume",
    ]  # fmt: skip
    told = collinear_trials(found, table, reasons)
    assert told.startswith(
        "2 trials are collinear (s2 at 50 s with s3 at 50 s; s3 at 50 s with s2 at 50 s); use --resp"
    )
    assert collinear_trials(found, table, [""] * 7) == ""
    left = design(events([20.0, 100.0]), dummy_scans=60)
    assert why_dropped(left, events([20.0, 100.0]), np.array([False, True])) == [
        "its volumes were left out or not recorded", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("onsets", "duration", "message"),
    [
        (
            [10_000.0, 50_000.0, 90_000.0],
            1.0,
            "onsets reach 90000, but x_bold.nii.gz ends after 200 s; they look like mil",
        ),
        ([1e6, 5e6, 9e6], 1.0, "they look like samples"),
        ([10.0, 50.0, 90.0], 500.0, "x_events.tsv: durations reach 500, .*divide them by 1000"),
    ],
)
def test_times_that_are_no_seconds(onsets, duration, message):
    with pytest.raises(DataError, match=message):
        design(events(onsets, duration))
    check_onsets(RUN, events([10.0, 50.0, 900.0]), end=200.0)
