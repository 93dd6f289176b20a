from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.methods.responses import window

TR = 2.0
FRAMES = 0.5 + TR * np.arange(60)
EVENTS = pd.DataFrame({"onset": FRAMES[[3, 10, 20, 31]], "duration": 1.0})
NUISANCE = np.column_stack([np.linspace(-1, 1, 60), np.ones(60)])


def a_series(seed=0):
    return 100 + np.random.default_rng(seed).standard_normal((60, 5))


def left(bold):
    """What a projection leaves, by the formula: y - N (N'N)^-1 N'y."""
    return bold - NUISANCE @ np.linalg.solve(NUISANCE.T @ NUISANCE, NUISANCE.T @ bold)


def test_bold5000s_trs_3_and_4_are_the_default():
    bold = a_series()
    expected = [left(bold)[[at + 2, at + 3]].mean(axis=0) for at in (3, 10, 20, 31)]
    for given in ({}, {"volumes": (2, 3)}, {"seconds": (4, 8)}):
        betas = window(bold, EVENTS, frame_times=FRAMES, nuisance=NUISANCE, **given)
        assert betas.dtype == np.float32
        np.testing.assert_allclose(betas, expected, rtol=1e-5, atol=1e-6)


def test_onsets_between_volumes():
    bold = a_series()
    events = EVENTS.assign(onset=EVENTS.onset + np.array([0.0, 0.4, 1.0, 1.9]))
    counted = window(bold, events, frame_times=FRAMES, nuisance=NUISANCE, volumes=[0, -1, 4])
    expected = [left(bold)[[at, at - 1, at + 4]].mean(axis=0) for at in (3, 10, 20, 31)]
    np.testing.assert_allclose(counted, expected, rtol=1e-5, atol=1e-6)
    timed = window(bold, events, frame_times=FRAMES, nuisance=NUISANCE, seconds=[3.0, 9.0])
    inside = [(FRAMES - onset >= 3) & (FRAMES - onset < 9) for onset in events.onset]
    np.testing.assert_allclose(timed, [left(bold)[rows].mean(axis=0) for rows in inside], rtol=1e-5, atol=1e-6)


def test_planted_steps_are_found_without_the_drift():
    bold = 50 + 3 * NUISANCE[:, :1] + np.zeros((60, 2))
    sizes = np.array([1.0, -2.0, 3.0, 0.5])
    for at, size in zip((3, 10, 20, 31), sizes, strict=True):
        bold[at + 2 : at + 4] += size
        bold[at + 4 : at + 6] -= size
    far = np.column_stack([NUISANCE, np.eye(60)[:, 55]])
    betas = window(bold, EVENTS, frame_times=FRAMES, nuisance=far)
    np.testing.assert_allclose(betas - betas[0], (sizes - sizes[0])[:, None] * np.ones(2), atol=0.3)
    assert np.corrcoef(betas[:, 0], sizes)[0, 1] > 0.999


def test_scrubbed_and_unrecorded_windows():
    bold = a_series()
    late = pd.DataFrame({"onset": [FRAMES[-1] - 4.0, FRAMES[-1] - 2.0, FRAMES[0] - 50.0], "duration": 1.0})
    keep = np.ones(60, dtype=bool)
    keep[[5, 12, 13]] = False
    whole = left(bold)
    betas = window(bold, pd.concat([EVENTS, late]), frame_times=FRAMES, nuisance=NUISANCE)
    np.testing.assert_allclose(betas[4], whole[59], atol=1e-5)
    assert np.flatnonzero(np.isnan(betas).all(axis=1)).tolist() == [5, 6]
    betas = window(bold[keep], EVENTS, frame_times=FRAMES[keep], nuisance=NUISANCE[keep])
    assert np.flatnonzero(np.isnan(betas).all(axis=1)).tolist() == [1]
    n = NUISANCE[keep]
    projected = bold[keep] - n @ np.linalg.lstsq(n, bold[keep], rcond=None)[0]
    np.testing.assert_allclose(betas[0], projected[np.flatnonzero(keep) == 6][0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise": "ar1"}, "noise: expected 'ols', since a mean"),
        ({"seconds": (4, 8), "volumes": (2,)}, "seconds, volumes: expected one of the two"),
        ({"seconds": (8, 4)}, "seconds: expected two rising numbers"),
        ({"seconds": (4, 5)}, "seconds: expected a window of at least one repetition time, 2 s"),
        ({"volumes": ()}, "volumes: expected different whole numbers"),
        ({"volumes": (1.5,)}, "volumes: expected different whole numbers"),
        ({"volumes": (2, 2)}, "volumes: expected different whole numbers"),
    ],
)
def test_bad_windows_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        window(a_series(), EVENTS, frame_times=FRAMES, nuisance=NUISANCE, **given)
