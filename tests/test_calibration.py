"""How often encoding's tests are wrong on noise: 1,000 seeded simulations each, quoted in docs/encoding.md."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from bidsdnn.encoding import encoding
from bidsdnn.folding import folding
from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.models import OLS, Ridge
from bidsdnn.methods.null import Given, Refits, held_out_scaled, null, scorer
from bidsdnn.methods.predict import cross_predict, kfold
from bidsdnn.methods.scores import pearsonr, pooled_pearsonr, training_means
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

pytestmark = pytest.mark.slow

SIMULATIONS = 1000
PERMUTATIONS = 99


def rate(p, level=0.05):
    return float(np.mean(np.asarray(p) <= level))


def uniform(p, permutations=PERMUTATIONS):
    """KS p of p that take the values 1 / (1 + n), 2 / (1 + n), ..., each spread over its step."""
    p = np.asarray(p)
    spread = p - np.random.default_rng(0).random(len(p)) / (permutations + 1)
    return float(kstest(spread, "uniform").pvalue)


def test_p_of_voxels_and_regions_and_their_families():
    """Two layers of two networks, six correlated voxels, two regions; nothing relates network and brain."""
    ids = pd.DataFrame({"stimulus_id": [f"s{i:02d}" for i in range(24)]})
    regions = {"a": {"first": np.arange(6) < 3, "all": np.ones(6, dtype=bool)}}
    found = {"voxel": [], "region": [], "voxels": [], "regions": [], "uncorrected": []}
    for simulation in range(SIMULATIONS):
        rng = np.random.default_rng([11, simulation])
        # Layers of different width and smoothness, whose r on noise varies by different amounts.
        wide, narrow = rng.normal(size=(24, 30)), rng.normal(size=(24, 3))
        y = rng.normal(size=(24, 6)) + rng.normal(size=(24, 1))
        result = encoding(
            Patterns(ids, (Group("wide", wide, "a"), Group("narrow", narrow, "b"))),
            Patterns(ids, (Group("brain", y),)),
            regions=regions, permutations=PERMUTATIONS, seed=simulation, map=serial, cv="kfold:6", inner_splits=3,
            bootstrap=0,
        )  # fmt: skip
        maps = {(one.network, one.stat): one.values for one in result.maps if not one.desc}
        found["voxel"].append(maps["a", "p"][0, 0])
        found["voxels"].append(min(maps["a", "pfwe"].min(), maps["b", "pfwe"].min()))
        found["uncorrected"].append(min(maps["a", "p"].min(), maps["b", "p"].min()))
        table = result.tables["encoding"]
        found["region"].append(table["p"].iloc[1])
        found["regions"].append(table["p_fwe"].min())
    print({key: rate(p) for key, p in found.items()}, {key: uniform(p) for key, p in found.items()})
    assert uniform(found["voxel"]) > 0.01
    assert uniform(found["region"]) > 0.01
    for family in ("voxel", "region", "voxels", "regions"):
        assert 0.03 <= rate(found[family]) <= 0.07
    assert rate(found["uncorrected"]) > 0.2


def in_runs(rng, shared):
    """Stimuli in three runs of ten, some of them in two."""
    names = [f"s{i:02d}" for i in range(30 - shared)]
    shown = [*names[:20], *names[:shared], *names[20:]]
    return pd.DataFrame({"stimulus_id": shown, "run": np.repeat(["r1", "r2", "r3"], 10)})


@pytest.mark.parametrize("cv", ["leave-one-out", "leave-one-run-out", "column:x", "kfold:6"])
def test_p_of_every_cross_validation(cv):
    """Six features; runs have means of their own, and responses to a stimulus something in common."""
    found = []
    for simulation in range(SIMULATIONS):
        rng = np.random.default_rng([12, simulation])
        if cv == "leave-one-run-out":
            items = in_runs(rng, 4)
        else:
            items = pd.DataFrame({"stimulus_id": [f"s{i:02d}" for i in range(24)]})
        names, code = np.unique(items["stimulus_id"], return_inverse=True)
        parts = pd.DataFrame({"stimulus_id": names, "value": np.where(np.arange(len(names)) % 3, "train", "test")})
        folded = folding(items, cv=cv, parts=parts, permutations=PERMUTATIONS, seed=simulation)
        x = rng.normal(size=(len(names), 6))[code]
        y = rng.normal(size=(len(items), 4)) + rng.normal(size=(len(names), 4))[code]
        if "run" in items:
            y += rng.normal(size=(3, 4))[np.unique(items["run"], return_inverse=True)[1]]
        if folded.single:
            train, test = folded.splits[0]
            given = Ridge(n_splits=3).fit(x[train], y[train]).predict(x[test])
            test_of = null(Given(given), y[test], np.ones((1, 4), bool), np.searchsorted(test, folded.orders[:, test]))
        else:
            test_of = null(scorer(Ridge(), x, folded.splits), y, np.ones((1, 4), bool), folded.orders)
        found.append(test_of.p_regions[0])
    print(cv, rate(found), uniform(found))
    assert 0.03 <= rate(found) <= 0.07
    assert uniform(found) > 0.01


class Chooses(Ridge):
    """A ridge without an operator, which chooses its penalty anew in each refit."""

    separable = True
    operator = None


def with_penalties(chosen, x, y, splits):
    """Predictions by ridges with the penalties that other responses chose, one a fold and target; y is (n, k, V)."""
    predicted = np.empty_like(y)
    for (train, test), penalties in zip(splits, chosen, strict=True):
        for penalty in np.unique(penalties):
            own = penalties == penalty
            some = y[:, :, own].reshape(len(y), -1)
            fitted = Ridge([penalty]).fit(x[train], some[train]).predict(x[test])
            predicted[np.ix_(test, np.arange(y.shape[1]), own)] = fitted.reshape(len(test), y.shape[1], -1)
    return predicted


def test_penalties_chosen_anew_and_the_two_wrong_ways():
    """Mean r of four voxels, refitted; and with finished predictions shuffled, or the data's penalties held."""
    found = {"refits": [], "shuffled": [], "held": [], "held, plain r": []}
    n, voxels, permutations = 40, 4, 39
    for simulation in range(SIMULATIONS):
        rng = np.random.default_rng([13, simulation])
        x, y, splits = rng.normal(size=(n, 20)), rng.normal(size=(n, voxels)), kfold(n, 5, seed=simulation)
        orders = np.array([np.arange(n), *(rng.permutation(n) for _ in range(permutations))])
        region = np.ones((1, voxels), dtype=bool)
        found["refits"].append(null(Refits(Chooses(n_splits=3), x, splits), y, region, orders[1:]).p_regions[0])
        fitted = [Ridge(n_splits=3).fit(x[train], y[train]) for train, _ in splits]
        predicted = np.empty_like(y)
        for one, (_, test) in zip(fitted, splits, strict=True):
            predicted[test] = one.predict(x[test])
        means = training_means(y, splits)
        deviations = predicted - means
        for _, test in splits:
            deviations[test] /= np.sqrt((deviations[test] ** 2).mean(axis=0))
        shuffled = np.array([pearsonr(deviations, (y - means)[order]).mean() for order in orders])
        found["shuffled"].append(pvalue(shuffled[0], shuffled[1:]))
        moved = y[orders].transpose(1, 0, 2)
        again = with_penalties([one.penalty_ for one in fitted], x, moved, splits)
        flat = again.reshape(n, -1), moved.reshape(n, -1)
        for name, r in (("held", pooled_pearsonr(*flat, splits)), ("held, plain r", pearsonr(*flat))):
            under = r.reshape(len(orders), voxels).mean(axis=1)
            found[name].append(pvalue(under[0], under[1:]))
    print({key: rate(p) for key, p in found.items()}, uniform(found["refits"], permutations))
    assert 0.03 <= rate(found["refits"]) <= 0.07
    assert uniform(found["refits"], permutations) > 0.01
    # What is not offered: shuffled predictions find too much, held penalties of an r that is not centred too little.
    assert rate(found["shuffled"]) > 0.07
    assert rate(found["held, plain r"]) < 0.03


def test_r_on_noise_centres_on_zero():
    rng = np.random.default_rng(14)
    x, y = rng.normal(size=(40, 39)), rng.normal(size=(40, 4000))
    for cv in (kfold(40, 10, seed=0), kfold(40, 40, seed=0)):
        predicted, scale = held_out_scaled(Ridge(), x, y, cv)
        r = pooled_pearsonr(predicted, y, cv, scale=scale)
        print(len(cv), np.nanmean(r), np.nanstd(r), pearsonr(predicted, y).mean())
        assert abs(np.nanmean(r)) < 0.01


def test_r2_of_least_squares_is_what_the_planting_says():
    """Errors of new items are s^2 (1 + 1 / m) (m - 2) / (m - p - 2) with m normal training rows and p features."""
    n, p, folds = 60, 8, 10
    m = n - n // folds
    rng = np.random.default_rng(15)
    errors, spreads = [], []
    for simulation in range(SIMULATIONS):
        x, weights = rng.normal(size=(n, p)), rng.normal(size=p)
        weights *= 1.5 / np.linalg.norm(weights)
        y = (x @ weights + rng.normal(size=n))[:, None]
        predicted = cross_predict(OLS(), x, y, kfold(n, folds, seed=simulation))
        errors.append(((y - predicted) ** 2).mean())
        spreads.append(((y - y.mean()) ** 2).mean())
    expected = (1 + 1 / m) * (m - 2) / (m - p - 2)
    standard_error = np.std(errors) / SIMULATIONS**0.5
    assert abs(np.mean(errors) - expected) < 3 * standard_error
    planted = 1 - expected / ((1.5**2 + 1) * (n - 1) / n)
    found = 1 - np.mean(errors) / np.mean(spreads)
    print(found, planted, standard_error)
    assert found == pytest.approx(planted, abs=0.01)
