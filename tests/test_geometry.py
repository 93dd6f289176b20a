"""Where RDMs come from and what is asked of them: planted truth, formulas written out, and what cannot be had."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from bidsdnn.bids.arrays import write_covariances
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry import check, column_models, rsa, similarity
from bidsdnn.geometry.similarities import placed
from bidsdnn.geometry.splits import agreement
from bidsdnn.geometry.units import Grid
from bidsdnn.methods.crossnobis import crossnobis_trials
from bidsdnn.methods.inference import fdr
from bidsdnn.methods.noise import noise_precision, trial_scatter
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.rdm import mahalanobis
from bidsdnn.methods.rsa_inference import fisher_mean
from bidsdnn.methods.rsa_models import partial, weighted
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns

N, VOXELS, RUNS = 16, 12, 4
IDS = [f"s{i:02d}.png" for i in range(N)]
ALL = {"a": {"all": np.ones(VOXELS, dtype=bool), "half": np.arange(VOXELS) < 6}}
OPTIONS = {"permutations": 99, "seed": 1, "map": serial, "regions": ALL}


def layers(seed=0, **shapes):
    rng = np.random.default_rng(seed)
    groups = tuple(
        Group(name, rng.standard_normal((N, int(np.prod(shape)))), "net", shape) for name, shape in shapes.items()
    )
    return Patterns(pd.DataFrame({"stimulus_id": IDS}), groups)


@pytest.fixture
def planted():
    """Single trials that follow a layer, each stimulus once a run, two sessions of two runs; and their means."""
    x = layers(right=(30,), wrong=(30,))
    rng = np.random.default_rng(3)
    signal = x.groups[0].values @ rng.standard_normal((30, VOXELS)) / 4
    items, values = [], []
    for run in range(RUNS):
        order = rng.permutation(N)
        items += [{"stimulus_id": IDS[k], "run": f"run-{run}", "session": "ab"[run // 2]} for k in order]
        values.append(signal[order] + rng.standard_normal((N, VOXELS)))
    trials = Patterns(pd.DataFrame(items), (Group("brain", np.vstack(values)),))
    return x, trials.average(), trials


def coded(trials):
    return np.array([IDS.index(name) for name in trials.ids]), trials.items["run"].to_numpy()


@pytest.mark.parametrize("shrinkage", ["diagonal", "shrunk", "full"])
@pytest.mark.parametrize("metric", ["crossnobis", "mahalanobis"])
def test_distances_from_trials(planted, metric, shrinkage):
    x, y, trials = planted
    result = rsa(x, y, trials=trials, metric=metric, shrinkage=shrinkage, **OPTIONS)
    stimulus, run = coded(trials)
    values = trials.values.astype(float)
    deviations, dof = trial_scatter(values, stimulus)
    assert dof == N * (RUNS - 1)
    precision = noise_precision(deviations, method=shrinkage, dof=dof)
    if metric == "crossnobis":
        expected = crossnobis_trials(values, stimulus, run, n_stimuli=N, precision=precision)
    else:
        expected = mahalanobis(y.values, precision=precision)
    np.testing.assert_allclose(result.arrays["a"][1]["all"], expected, rtol=1e-5, atol=1e-6)
    table = result.tables["rsa"].set_index(["layer", "comparison", "region"])
    assert table.loc[("right", "spearman", "all"), "p"] == 0.01
    assert table.loc[("wrong", "spearman", "all"), "p"] > 0.05
    assert (table["metric"] == metric).all()
    # Layers have no repeats.
    model = spearmanr(pdist(x.groups[0].values, "correlation"), expected).statistic
    assert table.loc[("right", "spearman", "all"), "similarity"] == pytest.approx(model, abs=1e-6)
    assert result.sidecar["LayerMetric"] == "correlation"


def test_noise_from_residuals(planted):
    x, y, trials = planted
    noise = np.random.default_rng(9).standard_normal((200, VOXELS)) @ np.random.default_rng(8).random((VOXELS, VOXELS))
    asked = []

    def residuals(columns):
        asked.append(columns)
        return noise[:, columns], 150

    own = {"metric": "crossnobis", "shrinkage": "full", "noise": "residuals"}
    result = rsa(x, y, trials=trials, residuals=residuals, **own, **OPTIONS)
    stimulus, run = coded(trials)
    for name, columns in ALL["a"].items():
        precision = noise_precision(noise[:, columns], method="full", dof=150)
        values = trials.values.astype(float)[:, columns]
        expected = crossnobis_trials(values, stimulus, run, n_stimuli=N, precision=precision)
        np.testing.assert_allclose(result.arrays["a"][1][name], expected, rtol=1e-5, atol=1e-6)
    assert len(asked) == 1 and "residuals of a model" in result.sidecar["Methods"]
    with pytest.raises(DataError, match="there are no series here"):
        rsa(x, y, trials=trials, **own, **OPTIONS)


@pytest.mark.parametrize("shrinkage", ["diagonal", "full"])
def test_the_noises_covariance_can_be_had(planted, tmp_path, shrinkage):
    x, y, trials = planted
    y.values[:, 1] = np.nan
    values = trials.values.astype(float)
    values[3, 1] = np.nan
    trials = Patterns(trials.items, (Group("brain", values),))
    noise = np.random.default_rng(9).standard_normal((200, VOXELS))
    own = {"metric": "crossnobis", "shrinkage": shrinkage, "noise": "residuals", "store_covariance": True}
    result = rsa(x, y, trials=trials, residuals=lambda columns: (noise[:, columns], 150), **own, **OPTIONS)
    columns, covariance = result.covariances["a"]["half"]
    assert columns.tolist() == [0, 2, 3, 4, 5]
    expected = np.cov(noise[:, columns], rowvar=False) * 199 / 150
    np.testing.assert_allclose(covariance, expected if shrinkage == "full" else np.diag(expected), rtol=1e-10)
    # It is the one that the distances were made with.
    precision = np.linalg.inv(covariance) if shrinkage == "full" else 1 / covariance
    stimulus, run = coded(trials)
    rdm = crossnobis_trials(values[:, columns], stimulus, run, n_stimuli=N, precision=precision)
    np.testing.assert_allclose(result.arrays["a"][1]["half"], rdm, rtol=1e-6, atol=1e-9)
    write_covariances(tmp_path / "c.h5", result.covariances["a"])
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["covariance1"].attrs["name"] == "half"
        np.testing.assert_array_equal(file["covariance1"], covariance)
        np.testing.assert_array_equal(file["column1"], columns)
    assert not rsa(x, y, trials=trials, metric="crossnobis", **OPTIONS).covariances


def test_crossnobis_over_sessions_and_stimuli_of_one_fold(planted):
    x, _, trials = planted
    shown = zip(trials.ids, trials.items["session"], strict=True)
    keep = np.array([not (name == IDS[3] and one == "b") for name, one in shown])
    less = trials.take(np.flatnonzero(keep))
    result = rsa(x, less.average(), trials=less, metric="crossnobis", folds="session", **OPTIONS)
    ids, rdms = result.arrays["a"]
    assert ids == [name for name in IDS if name != IDS[3]]
    assert result.sidecar["NumberOfStimuli"] == N - 1
    assert result.sidecar["Notes"] == ["RSA leaves out 1 of 16 stimuli that one session alone showed."]
    assert np.isfinite(rdms["all"]).all()
    # The layers are those of the same stimuli.
    kept = [k for k in range(N) if k != 3]
    expected = spearmanr(pdist(x.groups[0].values[kept], "correlation"), rdms["all"]).statistic
    table = result.tables["rsa"].set_index(["layer", "comparison", "region"])
    assert table.loc[("right", "spearman", "all"), "similarity"] == pytest.approx(expected, abs=1e-6)


def test_crossnobis_without_repeats_and_other_faults(planted):
    x, y, trials = planted
    once = trials.take(np.flatnonzero(trials.items["run"] == "run-0"))
    with pytest.raises(DataError, match="0 of 16 stimuli were shown in two or more runs, and 4 are needed"):
        rsa(x, once.average(), trials=once, metric="crossnobis", **OPTIONS)
    with pytest.raises(DataError, match="mahalanobis: stimulus: no stimulus was repeated"):
        rsa(x, once.average(), trials=once, metric="mahalanobis", **OPTIONS)
    with pytest.raises(DataError, match="needs single trials"):
        rsa(x, y, metric="crossnobis", **OPTIONS)
    few = trials.take(np.flatnonzero(trials.items["run"] < "run-2")).take(np.arange(2 * N))
    with pytest.raises(DataError, match="full covariance of 12 channels needs 12 degrees"):
        rsa(None, few.take(np.arange(20)).average(), trials=few.take(np.arange(20)), metric="mahalanobis",
            shrinkage="full", **OPTIONS)  # fmt: skip


def test_a_region_of_too_many_voxels(planted, monkeypatch):
    x, y, trials = planted
    monkeypatch.setattr("bidsdnn.geometry.measured.MOST_VOXELS", 6)
    rsa(x, y, trials=trials, metric="crossnobis", **OPTIONS)
    with pytest.raises(DataError, match=r'12 voxels has too large a noise covariance.*shrinkage = "diagonal"'):
        rsa(x, y, trials=trials, metric="crossnobis", shrinkage="shrunk", **OPTIONS)


def test_one_usable_voxel_is_no_region(planted):
    x, y, trials = planted
    values = trials.values.copy()
    values[5, 1:6] = np.nan
    spoilt = Patterns(trials.items, (Group("brain", values),))
    result = rsa(x, y, trials=spoilt, metric="crossnobis", **OPTIONS)
    assert np.isnan(result.arrays["a"][1]["half"]).all()
    counts = result.tables["rsa"].groupby("region")["n_voxels"].first()
    assert counts.to_dict() == {"all": 7, "half": 1}
    assert result.sidecar["Notes"] == ["No RDM (n/a) of regions with fewer than 2 usable voxels: half."]


def test_constant_patterns_are_named(planted, caplog):
    x, y, _ = planted
    dead = x.groups[1].values.copy()
    dead[[2, 5]] = 0
    y.values[7, :6] = 3
    same = Group("same", np.eye(N), "net")
    x = Patterns(x.items, (x.groups[0], Group("wrong", dead, "net"), same))
    result = rsa(x, y, **OPTIONS)
    equal, layers, regions = result.sidecar["Notes"]
    assert equal == "Nothing to compare (n/a) in layers whose distances are all equal: same of net."
    assert layers.startswith("No RDM (n/a) of layers wrong of net: patterns of 2 of 16 stimuli (s02.png, s05.png) are")
    assert regions.startswith("No RDM (n/a) of regions half: patterns of 1 of 16 stimuli (s07.png) are constant")
    assert [record.message for record in caplog.records] == [f"RSA: {one}" for one in (equal, layers, regions)]
    table = result.tables["rsa"].set_index(["layer", "region"])["similarity"]
    assert table[("right", "all")].notna().all() and table[("right", "half")].isna().all()
    assert table[("wrong", "all")].isna().all()
    fine = rsa(x, y, metric="euclidean", **OPTIONS)
    assert "No RDM" not in str(fine.sidecar.get("Notes")) and not fine.tables["rsa"]["similarity"][:4].isna().any()


def test_three_stimuli_are_too_few(planted):
    x, y, _ = planted
    three = np.arange(3)
    for function in (rsa, similarity):
        own = OPTIONS if function is rsa else {"regions": ALL, "map": serial}
        with pytest.raises(DataError, match="3 distinct stimuli make no RDM to compare; RSA needs 4 or more"):
            function(x.take(three), y.take(three), **own)


def test_family_wise_p_and_false_discovery_rate(planted):
    x, y, _ = planted
    table = rsa(x, y, **OPTIONS).tables["rsa"]
    rows = table[table["comparison"] == "spearman"]
    np.testing.assert_allclose(rows["q"], fdr(rows["p"]))
    assert (rows["p_fwe"] >= rows["p"]).all()
    alone = rsa(x.select(lambda g: g.name == "right"), y, **OPTIONS).tables["rsa"]
    np.testing.assert_allclose(alone["p_fwe"], alone["p"])


def column(**values):
    return {
        name: pd.DataFrame({"stimulus_id": IDS, "value": [str(one) for one in found]}) for name, found in values.items()
    }


def test_columns_are_models(planted):
    _, y, _ = planted
    times, kinds = np.random.default_rng(1).random(N), np.arange(N) % 3
    columns = column(rt=times, kind=[f"k{one}" for one in kinds], code=kinds)
    columns["rt"] = pd.concat([columns["rt"].assign(value=[str(t + 1) for t in times]),
                               columns["rt"].assign(value=[str(t - 1) for t in times]),
                               pd.DataFrame({"stimulus_id": [IDS[0]], "value": [None]})])  # fmt: skip
    models = {one.layer: one.rdm for one in column_models(columns, IDS, categorical=["code"])}
    np.testing.assert_allclose(models["rt"], pdist(times[:, None], "cityblock"), atol=1e-12)
    np.testing.assert_array_equal(models["kind"], pdist(kinds[:, None], lambda a, b: float(a[0] != b[0])))
    np.testing.assert_array_equal(models["code"], models["kind"])
    table = rsa(None, y, columns=columns, **OPTIONS).tables["rsa"]
    assert set(table["network"]) == {"column"} and set(table["layer"]) == {"rt", "kind", "code"}
    expected = spearmanr(models["rt"], pdist(y.values, "correlation")).statistic
    first = table[(table["layer"] == "rt") & (table["region"] == "all")].iloc[0]
    assert first["similarity"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], r"1 of 16 stimuli have no value \(s00.png\)"),
        (lambda t: t.assign(value=[None, *t["value"][1:]]), r"1 of 16 stimuli have no value \(s00.png\)"),
        (lambda t: t.assign(value="x"), "its 16 stimuli do not differ in it"),
        (lambda t: pd.concat([t, t.iloc[:1].assign(value="z")]), "stimulus s00.png is both 'a' and 'z'"),
    ],
)
def test_columns_that_are_none(change, message):
    table = column(kind=["a", "b"] * (N // 2))["kind"]
    with pytest.raises(DataError, match=message):
        column_models({"kind": change(table)}, IDS)
    with pytest.raises(ConfigError, match="'knd' is no --rdm-column; did you mean kind"):
        column_models({"kind": table}, IDS, categorical=["knd"])


def test_weighted_and_partial_rows(planted):
    x, y, _ = planted
    kinds = column(kind=np.arange(N) % 2)
    table = rsa(x, y, weighted=True, control=["wrong", "kind"], columns=kinds, **OPTIONS).tables["rsa"]
    brain = pdist(y.values, "correlation")
    models = [pdist(group.values, "correlation") for group in x.groups]
    rows = table[table["region"] == "all"].set_index(["comparison", "layer"])
    folds = kfold(N, N // 6, seed=seed_for(1, "weighted"))
    expected = fisher_mean(weighted(models, brain, folds=folds, comparison="spearman")[1])
    assert rows.loc[("spearman", "weighted"), "similarity"] == pytest.approx(float(expected), abs=1e-6)
    assert 0 < rows.loc[("spearman", "weighted"), "p"] <= 1
    control = [models[1], pdist((np.arange(N) % 2)[:, None], "cityblock")]
    for comparison in ("spearman", "pearson"):
        found = rows.loc[(f"partial-{comparison}", "right")]
        value = partial(models[0], brain, control, comparison=comparison)
        assert found["similarity"] == pytest.approx(value, abs=1e-6)
        assert (found["controls"], found["p"]) == ("wrong+kind", 0.01)
    # What is controlled for is no model of its own.
    assert ("partial-spearman", "wrong") not in rows.index
    assert pd.isna(rows.loc[("spearman", "right"), "controls"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"folds": "week"}, "folds = 'week': choose one of run, session"),
        ({"noise": "x"}, "noise = 'x'"),
        ({"shrinkage": "x"}, "shrinkage = 'x': choose one of diagonal, shrunk, full"),
        ({"layer_metric": "crossnobis"}, "'crossnobis' is none of a layer"),
        ({"by": "week"}, "by = 'week'"),
        ({"by": "run", "metric": "crossnobis"}, "which it leaves none of"),
        ({"by": "session", "folds": "session", "metric": "crossnobis"}, "which it leaves none of"),
        ({"control": ["pixels"], "comparisons": ["cosine"]}, "partial RSA needs --rdm-comparison"),
        ({"store_covariance": True}, "correlation uses no covariance of the noise; choose --rdm-metric crossnobis"),
        ({"metric": "x"}, "'x' is not known"),
        ({"comparisons": ["x"]}, "'x' is not known"),
        ({"iterate": "row"}, "--iterate row: choose one of channel, position"),
    ],
)
def test_what_cannot_be_asked(parameters, message):
    own = dict(parameters)
    asked = [own.pop(k, d) for k, d in (("metric", "correlation"), ("comparisons", ["spearman"]), ("iterate", None))]
    with pytest.raises(ConfigError, match=message):
        check(*asked, own)


def test_controls_that_are_unknown(planted):
    x, y, _ = planted
    with pytest.raises(ConfigError, match="'rigth' is unknown; did you mean right"):
        rsa(x, y, control=["rigth"], **OPTIONS)
    with pytest.raises(DataError, match="no pictures for pixels"):
        rsa(x, y, control=["pixels"], **OPTIONS)
    twice = Patterns(x.items, (*x.groups, Group("right", x.groups[1].values, "other")))
    with pytest.raises(ConfigError, match="means 2 layers; write network:layer"):
        rsa(twice, y, control=["right"], **OPTIONS)
    assert rsa(twice, y, control=["other:right"], **OPTIONS).sidecar["Controls"] == ["right"]


@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 4), (7,)])
def test_units_of_a_layer(shape):
    values = np.random.default_rng(0).standard_normal((N, *shape))
    grid, flat = Grid.of(shape), values.reshape(N, -1)
    channels = {3: lambda k: values[:, k].reshape(N, -1), 2: lambda k: values[:, :, k], 1: lambda k: values[:, k, None]}
    for k in range(grid.channels):
        np.testing.assert_array_equal(grid.read(flat, "channel", k, k + 1)[0], channels[len(shape)](k))
    if len(shape) == 3:
        for k in range(20):
            np.testing.assert_array_equal(grid.read(flat, "position", k, k + 1)[0], values[:, :, k // 5, k % 5])
        assert grid.name("position", 7) == "1+2"
    np.testing.assert_array_equal(grid.read(flat, "position", 0, grid.positions).size, flat.size)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("iterate", ["channel", "position"])
def test_each_channel_or_position_in_bounded_memory(iterate, channels_last, monkeypatch):
    x = layers(conv=(3, 4, 5))
    values = x.groups[0].values.reshape(N, 3, 4, 5)
    if channels_last:
        moved = values.transpose(0, 2, 3, 1).reshape(N, 60)
        x = replace(x, groups=(replace(x.groups[0], values=moved, shape=(4, 5, 3), channel_axis=2),))
    units = {
        "channel": values.transpose(1, 0, 2, 3).reshape(3, N, 20),
        "position": values.transpose(2, 3, 0, 1).reshape(20, N, 3),
    }
    signal = units[iterate][1]
    rng = np.random.default_rng(0)
    y = Patterns(x.items, (Group("brain", signal @ rng.standard_normal((signal.shape[1], VOXELS))),))
    table = rsa(x, y, iterate=iterate, **OPTIONS).tables[f"rsa{iterate}"]
    one = table[(table["comparison"] == "spearman") & (table["region"] == "all")]
    assert len(one) == len(units[iterate])
    brain = pdist(y.values, "correlation")
    expected = [spearmanr(pdist(unit, "correlation"), brain).statistic for unit in units[iterate]]
    np.testing.assert_allclose(one["similarity"], expected, atol=1e-6)
    assert one["similarity"].argmax() == 1 and one["p_fwe"].iloc[1] == 0.01
    assert (one["p_fwe"] >= one["p"]).all()
    # One unit at a time gives the same, the family-wise p among it.
    monkeypatch.setattr("bidsdnn.geometry.units._VALUES", 1)
    pd.testing.assert_frame_equal(rsa(x, y, iterate=iterate, **OPTIONS).tables[f"rsa{iterate}"], table)


def test_units_need_a_shape(planted):
    x, y, _ = planted
    flat = Patterns(x.items, (Group("a", x.groups[0].values, "net"),))
    with pytest.raises(DataError, match="extract them again"):
        rsa(flat, y, iterate="channel", **OPTIONS)


@pytest.mark.parametrize("by", ["run", "session"])
def test_rdms_of_each_run_agree(planted, by):
    _, y, trials = planted
    result = rsa(None, y, trials=trials, by=by, **OPTIONS)
    table = result.tables["rdmreliability"].set_index(["region", "comparison"])
    matrix = result.matrices[0]
    assert matrix.desc == f"by{by}" and matrix.ids == IDS
    label = trials.items[by]
    rdms = {}
    for name in dict.fromkeys(label):
        own = trials.take(np.flatnonzero(label == name)).average()
        rdms[name] = pdist(own.values, "correlation")
        np.testing.assert_allclose(matrix.values[f"all, {name}"], rdms[name], atol=1e-5)
    names = list(rdms)
    pairs = [spearmanr(rdms[a], rdms[b]).statistic for i, a in enumerate(names) for b in names[i + 1 :]]
    row = table.loc[("all", "spearman")]
    assert row["between"] == pytest.approx(float(fisher_mean(np.array(pairs))), abs=1e-4)
    assert row["n_splits"] == len(names) and row["split_half"] > row["between"] > 0.1


def test_splits_with_other_stimuli_agree_over_those_they_share():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((7, 3))
    full = pdist(points)
    part = squareform(full)
    part[2], part[:, 2] = np.nan, np.nan
    less = part[np.triu_indices(7, 1)]
    assert agreement(full, less, "pearson") == pytest.approx(1)
    gone = np.where(np.arange(21) < 18, np.nan, full)
    assert np.isnan(agreement(full, gone, "pearson"))


def test_one_run_has_nothing_to_agree_with(planted):
    _, _, trials = planted
    one = trials.take(np.flatnonzero(trials.items["run"] == "run-1"))
    with pytest.raises(DataError, match="there is one run"):
        rsa(None, one.average(), trials=one, by="run", **OPTIONS)


def test_similarity_of_layers_and_regions(planted):
    x, y, _ = planted
    options = {"regions": ALL, "map": serial}
    result = similarity(x, y, **options)
    pairs = result.tables["similarity"]
    assert len(pairs) == 2 * 6
    row = pairs[(pairs["first"] == "right") & (pairs["second"] == "all") & (pairs["comparison"] == "spearman")].iloc[0]
    expected = spearmanr(pdist(x.groups[0].values, "correlation"), pdist(y.values, "correlation")).statistic
    assert row["similarity"] == pytest.approx(expected, abs=1e-6)
    assert (row["first_kind"], row["second_kind"]) == ("net", "region")
    places = result.tables["mds"]
    assert len(places) == 2 * 4 and np.isfinite(places[["x", "y"]]).all(axis=None)
    with pytest.raises(DataError, match="a single RDM is like no other"):
        similarity(None, y, regions={"": {"brain": ALL["a"]["all"]}}, map=serial)


def test_what_is_like_nothing_has_no_place():
    pairs = pd.DataFrame({
        "first_kind": "", "first": ["a", "a", "b"], "second_kind": "", "second": ["b", "c", "c"],
        "comparison": "pearson", "similarity": [0.5, np.nan, np.nan],
    })  # fmt: skip
    places = placed(pairs).set_index("item")
    assert np.isnan(places.loc["c", "x"])
    assert abs(places.loc["a", "x"] - places.loc["b", "x"]) == pytest.approx(0.5)
