from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor, glover_hrf, spm_hrf

from bidsdnn.methods.continuous import RESAMPLINGS, at_clips, on_run, resample, resampling
from bidsdnn.methods.responses import timeseries, trial_regressors

TR = 2.0
PLAIN = ("mean", "sum", "last", "lanczos")
STARTS = (-3.3, 0.0, 0.7, 5.0)


def slow_signal(seed=0, fastest=0.12):
    """A function of time with no frequency above `fastest` Hz."""
    rng = np.random.default_rng(seed)
    rate, size, phase = rng.uniform(0.01, fastest, 25), rng.standard_normal(25), rng.uniform(0, 6.3, 25)
    return lambda t: (size * np.cos(2 * np.pi * rate * np.asarray(t)[..., None] + phase)).sum(axis=-1)


def recovered_delay(bold, frames, signal):
    """The lag in seconds at which a continuous function of time correlates most with a time series."""
    lags = np.arange(-8, 8.001, 0.05)
    at = [np.corrcoef(bold, signal(frames - lag))[0, 1] for lag in lags]
    return lags[int(np.argmax(at))]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("lag", [0.0, 3.0, 6.0, -2.0])
@pytest.mark.parametrize("method", PLAIN)
def test_a_planted_lag_is_where_features_and_volumes_meet(method, lag, start):
    signal = slow_signal()
    times = np.arange(0, 300, 0.05)
    frames = start + TR * np.arange(150)
    bold = signal(frames - lag)
    found = {}
    for delay in np.arange(-4, 8.01, 0.25):
        features = resample(signal(times)[:, None], times, frames, step=TR, method=method, delays=[delay], fill=np.nan)
        there = np.isfinite(features[:, 0])
        found[delay] = np.corrcoef(features[there, 0], bold[there])[0, 1]
    assert max(found, key=found.get) == lag
    assert found[lag] > 0.98


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("lag", [0.0, 1.5, -2.0])
@pytest.mark.parametrize(("method", "response"), [("spm", spm_hrf), ("glover", glover_hrf)])
def test_a_planted_lag_is_found_beyond_that_of_the_response(method, response, lag, start):
    signal = slow_signal()
    times = np.arange(0, 300, 0.05)
    frames = start + TR * np.arange(150)
    kernel = response(0.05, 1)
    convolved = np.convolve(signal(times), kernel / kernel.sum())[: len(times)]
    bold = np.interp(frames - lag, times, convolved)
    there = (frames > 45) & (frames < 280)
    found = {}
    for delay in np.arange(-4, 4.01, 0.25):
        features = resample(signal(times)[:, None], times, frames, step=TR, method=method, delays=[delay])
        found[delay] = np.corrcoef(features[there, 0], bold[there])[0, 1]
    assert max(found, key=found.get) == lag
    assert found[lag] > 0.999


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", PLAIN)
def test_a_resampled_feature_is_not_moved(method, start):
    signal = slow_signal(1)
    times = np.arange(0, 300, 0.05)
    frames = start + TR * np.arange(150)
    features = resample(signal(times)[:, None], times, frames, step=TR, method=method, fill=np.nan)[:, 0]
    there = np.isfinite(features)
    assert abs(recovered_delay(features[there], frames[there], signal)) <= 0.05


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("delay", [1, 2, 4])
def test_a_finite_impulse_response_finds_the_planted_delay(delay, start):
    rng = np.random.default_rng(3)
    signal = slow_signal(3, fastest=0.24)
    times = np.arange(0, 400, 0.1)
    frames = start + TR * np.arange(195)
    bold = signal(frames - delay * TR) + 0.1 * rng.standard_normal(195)
    x = resample(
        signal(times)[:, None], times, frames, step=TR, method="lanczos", delays=range(7), unit="volumes", fill=np.nan
    )
    there = np.isfinite(x).all(axis=1)
    weights = np.linalg.lstsq(x[there], bold[there], rcond=None)[0]
    assert np.argmax(np.abs(weights)) == delay
    assert abs(weights[delay] - 1) < 0.3


@pytest.mark.parametrize("method", ["spm", "glover"])
@pytest.mark.parametrize("start", STARTS)
def test_convolution_is_that_of_a_boxcar_in_nilearn(method, start):
    times = np.arange(0, 200, 0.1) + 0.05
    frames = start + TR * np.arange(100)
    feature = ((times > 30) & (times < 34)) * 1.0 + ((times > 100) & (times < 101)) * 2.0
    ours = resample(feature[:, None], times, frames, step=TR, method=method)[:, 0]
    theirs, _ = compute_regressor(([30.0, 100.0], [4.0, 1.0], [1.0, 2.0]), method, frames)
    # Theirs is on a grid of 0.04 s.
    np.testing.assert_allclose(ours, theirs[:, 0], atol=0.03 * theirs.max())
    assert np.corrcoef(ours, theirs[:, 0])[0, 1] > 0.9995


@pytest.mark.parametrize("method", ["spm", "glover"])
def test_a_convolved_constant_is_the_constant_after_a_while(method):
    times = np.arange(0, 200, 0.3)
    out = resample(np.full((len(times), 1), 3.0), times, [100.0, 150.0, 300.0, -5.0], step=TR, method=method)
    np.testing.assert_allclose(out[:, 0], [3, 3, 0, 0], atol=1e-6)


def test_means_sums_and_last_samples_by_hand():
    times = [0.1, 0.9, 1.0, 2.9, 3.1, 6.0]
    values = np.array([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]])
    frames = [0.0, 2.0, 4.0, 6.0, 8.0, -2.0]

    def by(method):
        return resample(values, times, frames, step=TR, method=method)[:, 0].tolist()

    assert by("sum") == [3, 12, 16, 32, 0, 0]
    assert by("mean") == [1.5, 6, 16, 32, 0, 0]
    assert by("last") == [0, 4, 16, 32, 0, 0]


def test_a_repetition_time_that_samples_fill_in_part_has_the_mean_of_those():
    times = np.arange(0, 9.5, 0.5)
    frames = np.arange(0, 14, 2.0)
    for method in ("mean", "lanczos", "last"):
        out = resample(np.full((len(times), 2), 5.0), times, frames, step=TR, method=method, fill=np.nan)
        np.testing.assert_allclose(out[:6], 5.0, rtol=1e-12)
        assert np.isnan(out[6]).all()
    assert resample(np.ones((len(times), 1)), times, frames, step=TR, method="sum")[:, 0].tolist() == [
        2,
        4,
        4,
        4,
        4,
        1,
        0,
    ]


def test_lanczos_keeps_what_volumes_can_follow_and_removes_the_rest():
    rng = np.random.default_rng(5)
    times = np.sort(rng.uniform(0, 200, 4000))
    frames = 20 + TR * np.arange(80)
    slow = slow_signal(4, fastest=0.12)
    kept = resample(slow(times)[:, None], times, frames, step=TR, method="lanczos")[:, 0]
    assert np.corrcoef(kept, slow(frames))[0, 1] > 0.999
    np.testing.assert_allclose(kept, slow(frames), atol=0.06 * np.abs(slow(frames)).max())
    fast = np.cos(2 * np.pi * 0.4 * times)[:, None]
    passed = {method: resample(fast, times, frames, step=TR, method=method).std() for method in ("lanczos", "last")}
    assert passed["lanczos"] < 0.05 < 0.5 < passed["last"]


def test_lanczos_is_its_formula():
    rng = np.random.default_rng(6)
    times = np.sort(rng.uniform(0, 30, 50))
    operator = resampling(times, [11.3, 14.0], step=TR, method="lanczos").toarray()
    for row, t in zip(operator, [11.3, 14.0], strict=True):
        x = (t - times) / TR
        with np.errstate(invalid="ignore"):
            kernel = 3 * np.sin(np.pi * x) * np.sin(np.pi * x / 3) / (np.pi * x) ** 2
        weights = np.where(np.abs(x) < 3, kernel, 0) * np.gradient(times)
        np.testing.assert_allclose(row, weights / weights.sum(), atol=1e-12)


@pytest.mark.parametrize("method", RESAMPLINGS)
def test_gaps_and_order_of_volumes_do_not_matter(method):
    times = np.arange(0, 60, 0.25)
    values = np.random.default_rng(7).standard_normal((len(times), 3))
    frames = -4 + TR * np.arange(40)
    whole = resample(values, times, frames, step=TR, method=method, delays=[0, 2.5])
    some = np.random.default_rng(8).permutation(40)[:17]
    np.testing.assert_allclose(
        resample(values, times, frames[some], step=TR, method=method, delays=[0, 2.5]), whole[some]
    )


@pytest.mark.parametrize("method", RESAMPLINGS)
def test_delays_by_volumes_are_shifted_rows(method):
    times = np.arange(0, 60, 0.25)
    values = np.random.default_rng(7).standard_normal((len(times), 3))
    frames = 0.5 + TR * np.arange(30)
    plain = resample(values, times, frames, step=TR, method=method)
    both = resample(values, times, frames, step=TR, method=method, delays=[0, 2, -1], unit="volumes")
    np.testing.assert_allclose(both[:, :3], plain)
    np.testing.assert_allclose(both[2:, 3:6], plain[:-2], atol=1e-12)
    np.testing.assert_allclose(both[:-1, 6:], plain[1:], atol=1e-12)
    assert (both[:2, 3:6] == 0).all()


def two_stories(signal):
    times = np.arange(0, 80, 0.1)
    return {"one": (times, signal(times)[:, None]), "two": (times[:500], signal(1000 + times[:500])[:, None])}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("lag", [0.0, 4.0])
def test_clips_meet_their_features_by_stimulus_and_time(lag, start):
    signal = slow_signal(9)
    features = two_stories(signal)
    frames = start + TR * np.arange(100)
    events = pd.DataFrame(
        {
            "onset": [110.3, 6.1],
            "duration": [40.0, 70.0],
            "stimulus_id": ["two", "one"],
            "stimulus_start": [5.0, 0.0],
        }
    )
    shown = signal(np.where(frames > 100, 1005 + frames - lag - 110.3, frames - lag - 6.1))
    nuisance = np.ones((100, 1))
    items, values = timeseries(shown[:, None], events, frame_times=frames, nuisance=nuisance)
    at = at_clips(features, items.stimulus_id, items.time, step=TR, method="lanczos", delays=[lag], fill=np.nan)
    there = np.isfinite(at[:, 0])
    assert there.sum() > 45 and set(items.stimulus_id[there]) == {"one", "two"}
    assert np.corrcoef(at[there, 0], values[there, 0])[0, 1] > 0.995
    wrong = at_clips(features, items.stimulus_id, items.time, step=TR, method="lanczos", delays=[lag + 2], fill=np.nan)
    both = there & np.isfinite(wrong[:, 0])
    assert np.corrcoef(wrong[both, 0], values[both, 0])[0, 1] < 0.95
    run = on_run(features, events, frames, step=TR, method="lanczos", delays=[lag])
    late = there & (items.time - items.groupby("stimulus_id").time.transform("min") > 12).to_numpy()
    late &= (items.time < items.groupby("stimulus_id").time.transform("max") - 8).to_numpy()
    np.testing.assert_allclose(run[items.volume[late]], at[late], atol=1e-6)


def test_features_of_a_run_reach_into_the_next_presentation():
    times = np.arange(0, 4, 0.1) + 0.05
    features = {"a": (times, np.ones((40, 1))), "b": (times, np.full((40, 1), 2.0))}
    events = pd.DataFrame({"onset": [10.0, 14.0], "duration": [4.0, 4.0], "stimulus_id": ["a", "b"]})
    frames = 1.0 + TR * np.arange(15)
    delayed = on_run(features, events, frames, step=TR, delays=[0, 4])
    np.testing.assert_allclose(delayed[:, 0], [0] * 5 + [1, 1, 2, 2] + [0] * 6, atol=1e-12)
    np.testing.assert_allclose(delayed[:, 1], [0] * 7 + [1, 1, 2, 2] + [0] * 4, atol=1e-12)
    convolved = on_run(features, events, frames, step=TR, method="spm")
    boxes = trial_regressors([10.0, 14.0], [4.0, 4.0], frame_times=frames) @ [1.0, 2.0]
    assert np.corrcoef(convolved[:, 0], boxes)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "cubic"}, "method: expected one of .*, got 'cubic'"),
        ({"step": 0}, "step: expected a positive number of seconds, got 0"),
        ({"times": [0.0, np.nan, 1.0]}, "times: expected finite seconds"),
        ({"times": [0.0, 2.0, 1.0]}, "times: expected seconds that do not fall, got a fall at sample 1"),
        ({"targets": [[0.0]]}, "targets: expected finite seconds"),
        ({"values": np.ones((2, 1))}, r"values: expected shape \(3, p\)"),
        ({"delays": []}, "delays: expected finite numbers"),
        ({"unit": "scans"}, "unit: expected 'seconds' or 'volumes', got 'scans'"),
    ],
)
def test_bad_input_is_named(given, message):
    good = {"values": np.ones((3, 1)), "times": [0.0, 1.0, 2.0], "targets": [0.0, 2.0], "step": TR}
    with pytest.raises(ValueError, match=message):
        resample(**good | given)


def test_features_that_are_missing_or_differ_are_named():
    features = {"a": ([0.0], np.ones((1, 2))), "b": ([0.0], np.ones((1, 3)))}
    with pytest.raises(ValueError, match="got none of c"):
        at_clips(features, ["a", "c"], [0.0, 0.0], step=TR)
    with pytest.raises(ValueError, match=r"the same number for every stimulus, got \[2, 3\]"):
        at_clips(features, ["a", "b"], [0.0, 0.0], step=TR)
