from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bidsdnn.methods.models import BandedRidge
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.scores import r2, training_means
from bidsdnn.methods.variance_partition import (
    Part,
    bootstrap_r2,
    combined,
    interval,
    not_above_zero,
    parts,
    subsets,
)


def scores(n_spaces, seed=0):
    rng = np.random.default_rng(seed)
    return {subset: rng.random(5) for subset in subsets(n_spaces)}


@pytest.mark.parametrize("n_spaces", [2, 3, 4])
def test_unique_and_shared_sum_to_all(n_spaces):
    models = scores(n_spaces)
    every = parts(n_spaces)
    total = sum(combined(part, models) for part in every if part.kind in ("unique", "shared"))
    np.testing.assert_allclose(total, combined(every[0], models))
    assert len([part for part in every if part.kind in ("unique", "shared")]) == 2**n_spaces - 1
    for one in range(n_spaces):
        own = sum(combined(p, models) for p in every if p.kind in ("unique", "shared") and one in p.spaces)
        np.testing.assert_allclose(own, models[(one,)])


def test_three_spaces_written_out():
    s = scores(3)
    found = {(part.kind, part.spaces): combined(part, s) for part in parts(3)}
    a, b, c, ab, ac, bc, abc = (s[k] for k in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
    np.testing.assert_allclose(found["unique", (1,)], abc - ac)
    np.testing.assert_allclose(found["shared", (0, 1)], ac + bc - c - abc)
    np.testing.assert_allclose(found["shared", (0, 1, 2)], a + b + c - ab - ac - bc + abc)
    np.testing.assert_allclose(found["alone", (2,)], c)


def test_many_spaces_have_unique_parts_alone():
    assert subsets(5) == [*combinations(range(5), 1), *combinations(range(5), 4), tuple(range(5))]
    assert {part.kind for part in parts(5)} == {"all", "alone", "unique"}
    s = scores(5)
    unique = next(part for part in parts(5) if part.kind == "unique" and part.spaces == (2,))
    np.testing.assert_allclose(combined(unique, s), s[0, 1, 2, 3, 4] - s[0, 1, 3, 4])
    with pytest.raises(ValueError, match="at least 2"):
        subsets(1)


def test_bootstrap_is_written_out_and_draws_units_together():
    rng = np.random.default_rng(0)
    errors, base = rng.random((2, 6, 3)), rng.random((6, 3))
    units = ["a", "a", "b", "b", "c", "c"]
    drawn = bootstrap_r2(errors, base, units, samples=40, seed=3)
    weights = np.random.default_rng(3).multinomial(3, np.full(3, 1 / 3), size=40).repeat(2, axis=1)
    expected = 1 - (weights[7] @ errors[1]) / (weights[7] @ base)
    np.testing.assert_allclose(drawn[7, 1], expected)
    mean = drawn[:, 1].mean(axis=0)
    low, high = interval(drawn[:, 1], mean)
    expected = mean + np.sqrt(2) * (np.percentile(drawn[:, 1], [2.5, 97.5], axis=0) - mean)
    np.testing.assert_allclose([low, high], expected)
    # Twice the variance about .5: 1.2, -1.6, -.2 and 2.6.
    np.testing.assert_allclose(not_above_zero(np.array([[1.0], [-1.0], [0.0], [2.0]]), [0.5]), [3 / 5])
    for bad, message in (({"units": units[:3]}, "expected shapes"), ({"units": ["a"] * 6}, "at least 2")):
        with pytest.raises(ValueError, match=message):
            bootstrap_r2(errors, base, **{"units": units, **bad}, samples=2, seed=0)


QUICK = {"penalties": [0.01, 0.1, 1.0, 10.0, 100.0], "n_candidates": 6, "n_splits": 3}


def shared_out(spaces, y, *, n_splits=5, seed=0, inside=None):
    """R2 of all parts, and bootstrap samples of each, as the analysis makes them."""
    n, splits = len(y), kfold(len(y), n_splits, seed=seed)
    grams = np.stack([space @ space.T for space in spaces])
    base = (y - training_means(y, splits)) ** 2
    errors = {}
    for subset in subsets(len(spaces)):
        predicted = np.empty_like(y)
        for train, test in splits:
            model = BandedRidge(**QUICK).fit_grams(grams[list(subset)][:, train[:, None], train], y[train])
            predicted[test] = model.predict_grams(grams[list(subset)][:, test[:, None], train])
        errors[subset] = (predicted - y) ** 2
    found = {subset: 1 - one.sum(axis=0) / base.sum(axis=0) for subset, one in errors.items()}
    weights = 1 / base.sum(axis=0) / y.shape[1]
    weights = weights[:, None] if inside is None else inside / base.sum(axis=0)[:, None]
    drawn = bootstrap_r2(
        np.stack([e @ weights for e in errors.values()]), base @ weights, range(n), samples=199, seed=seed
    )
    return found, dict(zip(errors, drawn.transpose(1, 0, 2), strict=True))


def test_collinear_spaces_share_and_do_not_double_their_variance():
    rng = np.random.default_rng(0)
    a, n = rng.standard_normal((90, 5)), 90
    copy = a @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    other = rng.standard_normal((n, 5))
    y = a @ rng.standard_normal((5, 30)) + 2 * rng.standard_normal((n, 30))
    found, _ = shared_out([a, copy, other], y)
    means = {(part.kind, part.spaces): combined(part, found).mean() for part in parts(3)}
    alone = means["alone", (0,)]
    assert alone > 0.3
    assert means["alone", (1,)] == pytest.approx(alone, abs=1e-3)
    assert means["all", (0, 1, 2)] == pytest.approx(alone, abs=0.03)
    assert means["shared", (0, 1)] == pytest.approx(alone, abs=0.05)
    for one in ((0,), (1,), (2,)):
        assert abs(means["unique", one]) < 0.03


def test_planted_parts_are_found():
    """Uncorrelated spaces have unique parts only; in units of the total variance 1 / 3 each."""
    rng = np.random.default_rng(1)
    n, v = 300, 20
    a, b = rng.standard_normal((2, n, 4))
    y = (a @ rng.standard_normal((4, v)) + b @ rng.standard_normal((4, v))) / 2
    y += rng.standard_normal((n, v)) * y.std(axis=0) / np.sqrt(2)
    found, drawn = shared_out([a, b], y)
    means = {(part.kind, part.spaces): combined(part, found) for part in parts(2)}
    assert means["all", (0, 1)].mean() == pytest.approx(2 / 3, abs=0.04)
    assert abs(means["shared", (0, 1)].mean()) < 0.04
    for one in (0, 1):
        unique = Part("unique", (one,), {(0, 1): 1, (1 - one,): -1})
        observed = means["unique", (one,)].mean()
        low, high = interval(combined(unique, drawn), [observed])
        assert low[0] < observed < high[0]
        assert observed == pytest.approx(1 / 3, abs=0.06)
        assert not_above_zero(combined(unique, drawn), [observed])[0] == 1 / 200


def test_alone_is_r2_against_the_training_mean():
    rng = np.random.default_rng(2)
    a, b, y = rng.standard_normal((3, 30, 4))
    found, drawn = shared_out([a, b], y)
    splits = kfold(30, 5, seed=0)
    base = 1 - r2(training_means(y, splits), y)
    predicted = np.empty_like(y)
    for train, test in splits:
        predicted[test] = BandedRidge(**QUICK).fit(a[train], y[train]).predict(a[test])
    np.testing.assert_allclose(1 - found[0,], (1 - r2(predicted, y)) / base)
    assert drawn[0,].shape == (199, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["independent", "collinear", "copy", "wide"])
@pytest.mark.parametrize("size", [1, 20])
def test_a_space_without_variance_of_its_own_is_rarely_said_to_have_some(kind, size):
    """1,000 regions of one voxel, and of 20 whose noise correlates, of 40 stimuli, in 100 draws of the features."""
    p = []
    unique = Part("unique", (1,), {(0, 1): 1, (0,): -1})
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a = rng.standard_normal((40, 8))
        noise = rng.standard_normal((40, 200 if kind == "wide" else 8))
        b = {"independent": noise, "wide": noise, "collinear": a + 0.5 * noise[:, :8], "copy": a + 0.1 * noise[:, :8]}
        shared = np.repeat(rng.standard_normal((40, 10)), size, axis=1)
        y = 0.25 * a @ rng.standard_normal((8, 10 * size)) + rng.standard_normal((40, 10 * size)) + shared * (size > 1)
        inside = np.repeat(np.eye(10), size, axis=0) / size
        found, drawn = shared_out([a, b[kind]], y, seed=seed, inside=inside)
        p += not_above_zero(combined(unique, drawn), combined(unique, found) @ inside).tolist()
    rate = float(np.mean(np.array(p) <= 0.05))
    print(kind, size, rate)
    assert rate <= 0.07
