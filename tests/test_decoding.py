"""Decoding of stimuli's and of trials' labels: what is held out, what is refused, and planted truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from bidsdnn.decoding.analysis import decoding
from bidsdnn.decoding.checks import check_parameters
from bidsdnn.decoding.folds import folds_of, scheme_for
from bidsdnn.decoding.models import build_decoder
from bidsdnn.decoding.targets import understood
from bidsdnn.encoding import encoding
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

STIMULI = [f"s{k:02}" for k in range(24)]
KIND = {name: "animal" if k % 2 else "tool" for k, name in enumerate(STIMULI)}
SIZE = {name: float(k % 5) + 0.1 * k for k, name in enumerate(STIMULI)}


def column(values, names=None):
    names = list(values) if names is None else names
    return pd.DataFrame({"stimulus_id": names, "value": [None if v is None else str(v) for v in values.values()]})


@pytest.fixture
def brain():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((24, 20)).astype(np.float32)
    values[1::2, :6] += 2
    values[:, 10:16] += 2 * np.array(list(SIZE.values()))[:, None]
    values[0, 19] = np.nan
    items = pd.DataFrame({"stimulus_id": STIMULI, "n_repeats": 3})
    return Patterns(items, (Group("brain", values),))


REGIONS = {"made": {name: np.isin(np.arange(20), span) for name, span in
                    {"kind": range(6), "none": range(6, 10), "size": range(10, 16), "gap": [19]}.items()}}  # fmt: skip


@pytest.fixture
def trials():
    """Four categories as stimuli, in six runs of two sessions, two trials of each in a run."""
    rng = np.random.default_rng(1)
    rows = [
        {"stimulus_id": name, "run": f"run-{run}", "run_label": run, "session": str(1 + run // 3), "answer": answer}
        for run in range(6) for name in "abcd" for answer in ("yes", "no")
    ]  # fmt: skip
    items = pd.DataFrame(rows)
    code = items["stimulus_id"].map("abcd".index).to_numpy()
    values = rng.standard_normal((48, 12)) + 2 * np.eye(4, 12)[code]
    values[:, 8] += 3 * (items["answer"] == "yes")
    return Patterns(items, (Group("brain", values.astype(np.float32)),))


def run(x, y, targets, regions=REGIONS, **more):
    more = {"permutations": 99, "seed": 0, "map": serial, **more}
    return decoding(x, y, regions=regions, targets=targets, **more)


def layers(ids):
    rng = np.random.default_rng(2)
    good = rng.standard_normal((24, 300)) + np.array([KIND[s] == "animal" for s in ids])[:, None]
    return Patterns(
        pd.DataFrame({"stimulus_id": ids}),
        (Group("good", good, "net"), Group("bad", rng.standard_normal((24, 300)), "net")),
    )


def test_classes_and_numbers_are_told_where_they_were_planted(brain):
    found = run(layers(STIMULI[::-1]), brain, {"kind": column(KIND), "size": column(SIZE)}, cv="kfold:6")
    table = found.tables["decoding"].set_index(["target", "region", "layer"])
    kind, size = table.loc["kind"], table.loc["size"]
    assert kind.loc[("kind", ""), "balanced_accuracy"] > 0.85
    assert kind.loc[("", "good"), "balanced_accuracy"] == 1
    assert kind.loc[("kind", ""), "p_fwe"] == pytest.approx(0.01)
    assert (kind.loc[[("none", ""), ("", "bad")], "p"] > 0.05).all()
    assert size.loc[("size", ""), "pearsonr"] > 0.9
    assert size.loc[("none", ""), "p"] > 0.05
    assert list(kind["decoder"].unique()) == ["logistic"]
    assert list(size["decoder"].unique()) == ["ridge"]
    assert np.isnan(kind.loc[("gap", ""), "p"])
    assert (table["p_fwe"].dropna() >= table["p"].dropna()).all()
    confusion = found.tables["confusion"].query("region == 'kind'")
    assert confusion["n_items"].sum() == 24
    folds = found.tables["decodingfolds"].query("region == 'kind' and target == 'kind'")
    assert folds["n_test"].tolist() == [4] * 6
    assert folds["accuracy"].mean() == pytest.approx(kind.loc[("kind", ""), "accuracy"])


def test_stimuli_are_dealt_class_by_class_and_relabelled_within_folds(brain):
    target = understood("kind", column(KIND), brain, None, numeric=None, by_run=False)
    folded = folds_of(target, cv="kfold:6", parts=None, permutations=20, seed=0)
    for _, test in folded.splits:
        assert np.bincount(target.labels[test]).tolist() == [2, 2]
        for order in folded.orders:
            assert set(order[test]) == set(test)
    assert len({order.tobytes() for order in folded.orders}) == 20


def test_categories_as_stimuli_are_told_over_runs(brain, trials):
    y = trials.average()
    target = {"category": column(dict(zip("abcd", "abcd", strict=True)))}
    found = run(None, y, target, {"": {"brain": np.ones(12, dtype=bool)}}, trials=trials)
    row = found.tables["decoding"].iloc[0]
    assert row["n_items"] == 24
    assert row["balanced_accuracy"] > 0.6
    assert row["p"] == 0.01
    assert "6 folds over runs" in found.sidecar["CrossValidation"]["category"]
    with pytest.raises(DataError, match=r"each class of --target category is one stimulus.*--cv leave-one-run-out"):
        run(None, y, target, trials=trials, cv="kfold:2")
    with pytest.raises(DataError, match=r"averages over runs.*--response lss"):
        run(None, y, target)
    single = run(None, y, target, {"": {"brain": np.ones(12, dtype=bool)}}, trials=trials, items="trial")
    assert single.tables["decoding"]["n_items"].item() == 48
    two = run(None, y, target, {"": {"brain": np.ones(12, dtype=bool)}}, trials=trials, cv="leave-2-runs-out")
    assert two.tables["decodingfolds"]["fold"].nunique() == 3


def test_run_averages_are_scikit_learns(trials):
    target = understood("c", column(dict(zip("abcd", "abcd", strict=True))), trials.average(), trials, numeric=None,
                        by_run=False)  # fmt: skip
    frame = pd.DataFrame(trials.values).groupby([trials.items["run"], trials.items["stimulus_id"]]).mean()
    items = target.table.items
    np.testing.assert_allclose(
        target.table.values, frame.loc[list(zip(items["run"], items["stimulus_id"], strict=True))], atol=1e-6
    )
    folded = folds_of(target, cv="leave-one-run-out", parts=None, permutations=9, seed=0)
    for train, test in folded.splits:
        assert set(items["run"].iloc[train]).isdisjoint(items["run"].iloc[test])
    runs = items["run"].to_numpy()
    assert all((runs[order] == runs).all() for order in folded.orders)


def test_trials_of_one_stimulus_may_differ(trials):
    answers = pd.DataFrame({"stimulus_id": trials.ids, "value": trials.items["answer"]})
    found = run(layers(STIMULI), trials.average(), {"answer": answers}, {"": {"brain": np.ones(12, dtype=bool)}},
                trials=trials, decoder="lda")  # fmt: skip
    assert found.tables["decoding"]["balanced_accuracy"].item() > 0.8
    assert "was not decoded from layers" in found.sidecar["Notes"][0]
    with pytest.raises(DataError, match="--target other: stimulus a is both 'yes' and 'no'"):
        run(None, trials.average(), {"other": answers}, trials=trials)


def test_trained_on_one_session_and_tested_on_another(trials):
    target = {"category": column(dict(zip("abcd", "abcd", strict=True)))}
    region = {"": {"brain": np.ones(12, dtype=bool)}}
    found = run(None, trials.average(), target, region, trials=trials, train="ses == '1'", test="ses == '2'")
    row = found.tables["decoding"].iloc[0]
    assert row["n_items"] == 12
    folds = found.tables["decodingfolds"]
    assert (folds["n_train"] == 12).all()
    # All training items are those of session 1, so that the folds are one fit.
    means = trials.average("session", "run")
    ses, kind = means.items["session"].to_numpy(), means.items["stimulus_id"].to_numpy()
    rows, new = means.values[ses == "1"], means.values[ses == "2"]
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    said = LogisticRegression(C=1.0, tol=1e-8).fit((rows - mean) / spread, kind[ses == "1"])
    assert row["accuracy"] == pytest.approx(said.score((new - mean) / spread, kind[ses == "2"]), abs=0.1)
    by_number = run(None, trials.average(), target, region, trials=trials, train="run <= 2", test="run > 2")
    assert by_number.tables["decoding"]["accuracy"].item() == row["accuracy"]
    with pytest.raises(ConfigError, match="train or test: no column 'colour'"):
        run(None, trials.average(), target, region, trials=trials, train="colour == 1")
    with pytest.raises(DataError, match="train = \"ses == '9'\": none of 24 items"):
        run(None, trials.average(), target, region, trials=trials, train="ses == '9'")


def test_gaps_are_counted_and_left_out(brain):
    gaps = {**KIND, "s00": None, "s05": None}
    found = run(None, brain, {"kind": column(gaps)}, cv="kfold:5")
    assert found.tables["decoding"]["n_items"].iloc[0] == 22
    assert found.sidecar["Notes"] == ["2 of 24 items have no kind: left out."]


def test_two_numbers_are_classes_and_more_may_be(brain):
    two = {name: k % 2 for k, name in enumerate(STIMULI)}
    assert "balanced_accuracy" in run(None, brain, {"t": column(two)}, cv="kfold:5").tables["decoding"]
    three = {name: k % 3 for k, name in enumerate(STIMULI)}
    assert "pearsonr" in run(None, brain, {"t": column(three)}, cv="kfold:5").tables["decoding"]
    found = run(None, brain, {"t": column(three)}, cv="kfold:5", categorical=["t"]).tables["decoding"]
    assert found["n_classes"].iloc[0] == 3


def test_a_given_split_is_used(brain):
    parts = pd.DataFrame({"stimulus_id": STIMULI, "value": ["train"] * 16 + ["test"] * 8})
    found = run(None, brain, {"kind": column(KIND)}, cv="column:part", parts=parts)
    assert found.tables["decoding"]["n_items"].iloc[0] == 8


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        (dict.fromkeys(STIMULI, "x"), {}, "all 24 items are 'x'"),
        (dict.fromkeys(STIMULI, 1), {"decoder": "ridge"}, "all 24 items have 1"),
        (KIND, {"decoder": "ridge"}, "'tool' is no number; choose a decoder of classes"),
        ({**KIND, "s00": "rare"}, {}, "class 'rare' has 1 stimuli, fewer than the 6 folds; give more stimuli"),
        (KIND, {"cv": "kfold:20"}, "class 'animal' has 12 stimuli, fewer than the 20 folds; use --cv kfold:12"),
        (SIZE, {"cv": "kfold:30"}, "24 distinct stimuli for 30 folds"),
        (dict.fromkeys(STIMULI), {}, "none of the 24 stimuli has a value"),
        (SIZE, {"decoder": "sklearn.svm:SVC"}, "--decoder sklearn.svm:SVC: decodes classes"),
    ],
)
def test_bad_targets(brain, values, more, message):
    with pytest.raises(DataError, match=message):
        run(None, brain, {"t": column(values)}, **{"cv": "kfold:6", **more})


def test_bad_parameters(brain):
    for parameters in ({"items": "x"}, {"select": -1}, {"select": 1.5}, {"components": 2.5}, {"train": "ses =="}):
        with pytest.raises(ConfigError):
            check_parameters(**parameters)
    with pytest.raises(ConfigError, match="has no method `predict`"):
        build_decoder("sklearn.decomposition:PCA", {}, "classes")
    with pytest.raises(ConfigError, match="decoder svm has no parameter 'c'"):
        build_decoder("svm", {"c": 1}, "classes")
    with pytest.raises(ConfigError, match="'nothing' is no --target"):
        run(None, brain, {"kind": column(KIND)}, categorical=["nothing"])


def test_any_estimator_by_name(brain):
    name = "sklearn.neighbors:KNeighborsClassifier"
    found = run(None, brain, {"kind": column(KIND)}, decoder=name, cv="kfold:6", permutations=9,
                decoder_parameters={name: {"n_neighbors": 3}})  # fmt: skip
    assert found.tables["decoding"].query("region == 'kind'")["accuracy"].item() > 0.8
    found = run(None, brain, {"size": column(SIZE)}, decoder="sklearn.linear_model:Lasso", cv="kfold:6",
                permutations=9)  # fmt: skip
    assert found.tables["decoding"].query("region == 'size'")["pearsonr"].item() > 0.8


def test_the_scheme_follows_the_target():
    assert scheme_for(None, "stimulus", "t") == "kfold:10"
    assert scheme_for(None, "identity", "t") == scheme_for(None, "trial", "t") == "leave-one-run-out"
    assert scheme_for("kfold:4", "trial", "t") == "kfold:4"


def test_searchlights_tell_classes_where_they_differ(brain):
    class Line:
        def neighbors(self, *, radius):
            return csr_array(np.abs(np.subtract.outer(np.arange(20), np.arange(20))) <= radius)

    table = Patterns(brain.items, brain.groups, Line())
    found = run(None, table, {"kind": column(KIND)}, cv="kfold:6", searchlight=True, radius=2)
    accuracy, _, corrected = found.maps
    assert (accuracy.stat, accuracy.desc) == ("balancedaccuracy", "searchlightdecoding+kind")
    assert (corrected.values[:5] < 0.05).all()
    rows = found.tables["searchlightdecoding"].set_index("region")
    assert rows.loc["kind", "peak_pfwe"] == 0.01
    assert rows.loc["none", "balanced_accuracy"] < rows.loc["kind", "balanced_accuracy"]
    with pytest.raises(DataError, match="has numbers, and searchlights tell classes"):
        run(None, table, {"size": column(SIZE)}, cv="kfold:6", searchlight=True)


def test_encoding_identifies_stimuli_from_what_it_predicts(brain):
    noise = np.random.default_rng(3).standard_normal((24, 19))
    x = Patterns(brain.items, (Group("same", brain.values[:, :19], "net"), Group("none", noise, "net")))
    more = {"regions": {"": {"all": np.arange(20) < 19}}, "permutations": 99, "seed": 0, "map": serial}
    table = encoding(x, brain, cv="kfold:6", identification=True, **more).tables["identification"]
    same, none = table.iloc[0], table.iloc[1]
    assert same["rank"] > 0.75
    assert same["p"] <= 0.02
    assert none["p"] > 0.05
    assert same["chance_top1"] == 0.25
    assert "identification" not in encoding(x, brain, cv="kfold:6", **more).tables
    parts = pd.DataFrame({"stimulus_id": STIMULI, "value": ["train"] * 16 + ["test"] * 8})
    single = encoding(x, brain, cv="column:part", parts=parts, identification=True, **more).tables["identification"]
    assert single["chance_top1"].iloc[0] == 0.125
    assert single["p"].iloc[0] < 0.05


def test_patterns_show_where_a_class_differs(brain):
    found = run(None, brain, {"kind": column(KIND), "size": column(SIZE)}, cv="kfold:6", patterns=True, permutations=9)
    kind, size = found.maps
    assert (kind.desc, kind.stat, kind.sidecar["Layers"]) == ("decoding+kind", "pattern", ["tool"])
    # Each region has a decoder of its own; in the one that holds the difference, animals (odd rows) respond more.
    assert (kind.values[0, :6] < 0).all()
    assert (size.values[0, 10:16] > 0).all()
    assert np.isnan(kind.values[0, 16:]).all()
    mean = brain.values[1::2, :6].mean(axis=0) - brain.values[::2, :6].mean(axis=0)
    assert np.corrcoef(-kind.values[0, :6], mean)[0, 1] > 0.5


def test_folds_that_do_not_divide_the_classes_are_pointed_out(brain):
    six = column({name: "abcdef"[k // 4] for k, name in enumerate(STIMULI)})
    three, four = (run(None, brain, {"kind": six}, cv=cv, permutations=9).sidecar for cv in ("kfold:3", "kfold:4"))
    assert "folds do not divide the classes evenly" in three["Notes"][0] and "Notes" not in four
