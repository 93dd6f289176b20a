"""Folds of time, and relabellings that keep a series' autocorrelation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from bidsdnn.methods.models import Ridge
from bidsdnn.methods.predict import cross_predict, prediction_operator, region_permutation
from bidsdnn.methods.scores import pearsonr, pooled_pearsonr, training_means
from bidsdnn.methods.time_folds import Clips, circular_shifts, clips_of, time_folds


def shown(*runs, n=30, tr=2.0, keep=False):
    """Clips of runs, each a string of stimuli that are shown one after the other for n volumes."""
    rows = {}
    for number, stimuli in enumerate(runs):
        for place, name in enumerate(stimuli):
            for volume in range(n):
                key = (name, volume * tr, number if keep else 0)
                rows.setdefault(key, []).append((f"run-{number}", (place * n + volume) * tr))
    where = [(row, run, seconds) for row, places in enumerate(rows.values()) for run, seconds in places]
    return Clips(
        np.array([name for name, _, _ in rows]),
        np.array([time for _, time, _ in rows]),
        np.array([row for row, _, _ in where]),
        np.array([run for _, run, _ in where]),
        np.array([seconds for _, _, seconds in where]),
    )


def check(clips, splits, purge):
    """Every row once, and no row within the gap of a held-out one, by brute force."""
    assert sorted(np.concatenate([test for _, test in splits]).tolist()) == list(range(len(clips)))
    for train, test in splits:
        times = {row: [] for row in range(len(clips))}
        for row, run, seconds in zip(clips.row, clips.run, clips.seconds, strict=True):
            times[row].append((run, seconds))
        for row in range(len(clips)):
            near = any(
                (a == b and abs(s - t) < purge) or (
                    clips.stimulus[row] == clips.stimulus[other] and abs(clips.time[row] - clips.time[other]) < purge
                )
                for other in test for a, s in times[row] for b, t in times[other]
            )  # fmt: skip
            assert (row in train) == (not near and row not in test)


def test_whole_runs_are_held_out_where_they_share_no_stimulus():
    clips = shown("ab", "cd", "ef")
    splits, unit = time_folds(clips, n_splits=10)
    assert unit == "runs"
    assert [sorted(set(clips.stimulus[test])) for _, test in splits] == [["a", "b"], ["c", "d"], ["e", "f"]]
    check(clips, splits, 20.0)
    assert len(time_folds(clips, n_splits=2)[0]) == 2


@pytest.mark.parametrize("keep", [False, True])
def test_stimuli_are_held_out_where_all_runs_show_them(keep):
    clips = shown("abc", "cab", keep=keep, n=20)
    splits, unit = time_folds(clips, purge=10.0)
    assert unit == "stimuli"
    assert [set(clips.stimulus[test]) for _, test in splits] == [{"a"}, {"b"}, {"c"}]
    check(clips, splits, 10.0)
    assert all(len(train) + len(test) < len(clips) for train, test in splits)


@pytest.mark.parametrize("keep", [False, True])
def test_of_one_stimulus_stretches_are_held_out(keep):
    clips = shown("a", "a", n=60, keep=keep)
    splits, unit = time_folds(clips, n_splits=4, purge=20.0)
    assert unit == "stretches of time"
    for _, test in splits:
        assert np.ptp(clips.time[test]) == 28.0
    check(clips, splits, 20.0)


def test_runs_linked_by_a_stimulus_stay_together():
    clips = shown("ab", "bc", "de")
    assert clips.families().tolist() == [0] * 90 + [1] * 60
    splits, unit = time_folds(clips)
    assert unit == "runs"
    assert [sorted(set(clips.stimulus[test])) for _, test in splits] == [["a", "b", "c"], ["d", "e"]]


def test_what_cannot_be_folded_is_said():
    with pytest.raises(ValueError, match="gap of 100 s to the held-out stretches of time leaves 0 of 30"):
        time_folds(shown("a"), purge=100.0, n_splits=2)
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        time_folds(shown("a"), n_splits=1)
    with pytest.raises(ValueError, match="purge: expected seconds"):
        time_folds(shown("a"), purge=-1)
    with pytest.raises(ValueError, match="several moments of time, got one"):
        time_folds(shown("a", n=1))
    with pytest.raises(ValueError, match="row: expected every row"):
        Clips(np.array(["a", "a"]), np.zeros(2), np.array([0]), np.array(["r"]), np.zeros(1))


def test_shifts_are_rings_within_runs():
    clips = shown("ab", "c", n=10)
    orders = circular_shifts(clips, permutations=50, seed=0)
    assert orders.shape == (50, 30)
    for order in orders:
        for part in (slice(0, 20), slice(20, 30)):
            n = part.stop - part.start
            shift = order[part.start] - part.start
            np.testing.assert_array_equal(order[part], part.start + (np.arange(n) + shift) % n)
    assert len({(order[0], order[20]) for order in orders.tolist()}) > 40
    np.testing.assert_array_equal(orders, circular_shifts(clips, permutations=50, seed=0))
    assert set(circular_shifts(clips, permutations=2000, seed=1)[:, 0]) == set(range(20))


def test_repeats_side_by_side_are_shifted_alike():
    clips = shown("ab", "ba", n=10, keep=True)
    for order in circular_shifts(clips, permutations=20, seed=0):
        moved = clips.time[order] - clips.time
        for name in "ab":
            here = clips.stimulus == name
            assert (clips.stimulus[order][here] == name).all()
            assert (clips.run[order][here] == clips.run[here]).all()
            assert len(set(moved[here] % 20.0)) == 1


def test_runs_and_seconds_are_read_from_text():
    clips = clips_of(["a", "a"], [0.0, 2.0], ["ses-1_run-1@4.5 ses-2_run-1@0", "ses-1_run-1@-1.5"])
    assert clips.row.tolist() == [0, 0, 1]
    assert clips.run.tolist() == ["ses-1_run-1", "ses-2_run-1", "ses-1_run-1"]
    assert clips.seconds.tolist() == [4.5, 0.0, -1.5]


def noise(rng, n, v, rho):
    """Autoregressive noise of unit variance."""
    return lfilter([np.sqrt(1 - rho**2)], [1, -rho], rng.standard_normal((n + 200, v)), axis=0)[200:]


def features(rng, n, p):
    """Slow features, as a movie's are once the response has smoothed them."""
    table = np.apply_along_axis(lambda x: np.convolve(x, np.hanning(9), "same"), 0, rng.standard_normal((n, p)))
    return (table - table.mean(axis=0)) / table.std(axis=0)


def test_with_a_gap_scores_and_shifts_are_the_formula_written_out():
    rng = np.random.default_rng(0)
    clips = shown("abc", n=20)
    x, y = features(rng, 60, 3), noise(rng, 60, 4, 0.5)
    splits, _ = time_folds(clips, purge=8.0)
    orders = circular_shifts(clips, permutations=19, seed=0)
    operator = prediction_operator(x, splits)
    regions = np.array([[True, True, True, True], [True, False, False, False]])
    p, observed = region_permutation(operator, y, regions, splits, permutations=19, seed=0, orders=orders)

    def score(series):
        predicted = cross_predict(Ridge(penalties=[1.0]), x, series, splits)
        means = training_means(series, splits)
        guess = predicted - means
        for _, test in splits:
            guess[test] /= np.sqrt((guess[test] ** 2).mean(axis=0))
        np.testing.assert_allclose(pooled_pearsonr(predicted, series, splits), pearsonr(guess, series - means))
        return regions @ pearsonr(guess, series - means) / regions.sum(axis=1)

    np.testing.assert_allclose(observed, score(y))
    null = np.array([score(y[np.argsort(order)]) for order in orders])
    np.testing.assert_allclose(p, (1 + (null >= score(y)).sum(axis=0)) / 20)


def positives(clips, *, rho, n, permutations, shuffled=False, seed=0, voxels=1, p=3):
    """Share of tests of noise whose p is at most .05."""
    found = []
    splits, _ = time_folds(clips)
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        x = features(rng, len(clips), p)
        y = np.vstack([noise(rng, (clips.run == run).sum(), voxels, rho) for run in np.unique(clips.run)])
        orders = None if shuffled else circular_shifts(clips, permutations=permutations, seed=number)
        found.append(
            region_permutation(
                prediction_operator(x, splits), y, np.ones((1, voxels), bool), splits,
                permutations=permutations, seed=number, orders=orders,
            )[0][0]
        )  # fmt: skip
    return np.mean(np.array(found) <= 0.05)


def test_shifts_hold_the_rate_of_false_positives_where_shuffles_do_not():
    clips = shown("ab", "cd", n=40)
    assert positives(clips, rho=0.8, n=100, permutations=39) < 0.11
    assert positives(clips, rho=0.8, n=100, permutations=39, shuffled=True) > 0.11


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.4, 0.8])
@pytest.mark.parametrize(("runs", "n"), [(("ab", "cd"), 50), (("ab", "cd", "ef"), 50), (("ab",), 100), (("a",), 200)])
def test_rate_of_false_positives_of_shifts(rho, runs, n):
    rate = positives(shown(*runs, n=n), rho=rho, n=1000, permutations=99)
    print(f"runs {runs}, rho {rho}: {rate:.3f}")
    assert rate < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_rate_of_false_positives_where_repeats_share_what_no_feature_explains(keep):
    """Voxels follow the stimuli, by something that is not in the features; drifts are taken out by run."""
    clips, found = shown("ab", "ab", n=60, keep=True), []
    whole = shown("ab", "ab", n=60)
    keys = {key: row for row, key in enumerate(zip(whole.stimulus.tolist(), whole.time.tolist(), strict=True))}
    codes = np.array([keys[key] for key in zip(clips.stimulus.tolist(), clips.time.tolist(), strict=True)])
    drifts = np.cos(np.pi * np.outer(np.arange(120) + 0.5, np.arange(4)) / 120)
    used = clips if keep else whole
    splits, _ = time_folds(used)
    for number in range(1000):
        rng = np.random.default_rng([7, number])
        x, shared = features(rng, 120, 3), features(rng, 120, 1)
        y = shared[codes] + np.vstack([noise(rng, 120, 1, 0.6) for _ in range(2)])
        y = np.vstack([part - drifts @ np.linalg.lstsq(drifts, part)[0] for part in np.split(y, 2)])
        if not keep:
            y = np.array([y[codes == code].mean(axis=0) for code in range(120)])
        orders = circular_shifts(used, permutations=99, seed=number)
        operator = prediction_operator(x[codes] if keep else x, splits)
        p, _ = region_permutation(
            operator, y, np.ones((1, 1), bool), splits, permutations=99, seed=number, orders=orders
        )
        found.append(p[0])
    rate = np.mean(np.array(found) <= 0.05)
    print(f"repeats {'kept' if keep else 'averaged'}: {rate:.3f}")
    assert rate < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
