"""What --cv holds out, and what is exchanged in its tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.cli import main
from bidsdnn.config_tables import CrossValidation
from bidsdnn.folding import folding, items_for
from bidsdnn.patterns import Group, Patterns

OPTIONS = {"permutations": 30, "seed": 1}


def in_runs(**runs):
    rows = [(stimulus, "", run) for run, stimuli in runs.items() for stimulus in stimuli]
    return pd.DataFrame(rows, columns=["stimulus_id", "session", "run"])


def column(**values):
    return pd.DataFrame({"stimulus_id": list(values), "value": list(values.values())})


@pytest.mark.parametrize(
    "text",
    ["kfold:10", "leave-one-out", "leave-one-run-out", "leave-3-runs-out", "leave-one-session-out", "column:shared"],
)
def test_a_scheme_reads_back(text):
    assert str(CrossValidation.parse(text)) == text


def test_other_spellings_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CrossValidation.parse("column:shared=a.tsv").file == tmp_path / "a.tsv"
    assert str(CrossValidation.parse("leave-one-stimulus-out")) == "leave-one-out"
    assert str(CrossValidation.parse("leave-1-runs-out")) == "leave-one-run-out"
    for text in ("kfold", "kfold:1", "kfold:x", "leave-0-runs-out", "column:", "loo", "leave-one-subject-out"):
        with pytest.raises(ValueError, match=r"choose kfold:N with 2 folds or more, leave-one-out"):
            CrossValidation.parse(text)


def test_stimuli_are_held_out_in_folds_or_one_by_one():
    items = pd.DataFrame({"stimulus_id": [f"s{i}" for i in range(12)]})
    found = folding(items, **OPTIONS)
    assert (len(found.splits), found.said, found.test) == (
        10, "10 folds over stimuli", "permutations of the stimulus labels",
    )  # fmt: skip
    assert not np.array_equal(found.orders[0], found.orders[1])
    assert len(folding(items, cv="leave-one-out", **OPTIONS).splits) == 12
    with pytest.raises(ValueError, match=r"12 distinct stimuli for 20 folds; .*--cv kfold:5"):
        folding(items, cv="kfold:20", **OPTIONS)


def test_a_stimulus_of_the_held_out_run_is_not_trained_on():
    items = in_runs(r2="abcx", r10="defx", r1="ghi")
    found = folding(items, cv="leave-one-run-out", **OPTIONS)
    runs, stimuli = items["run"].to_numpy(), items["stimulus_id"].to_numpy()
    assert [set(runs[test]) for _, test in found.splits] == [{"r1"}, {"r2"}, {"r10"}]
    assert all(not set(stimuli[train]) & set(stimuli[test]) for train, test in found.splits)
    assert [len(train) for train, _ in found.splits] == [8, 6, 6]
    # Labels move within runs; x, alone in two runs, stays.
    assert (runs[found.orders] == runs).all()
    assert (found.orders[:, stimuli == "x"] == np.flatnonzero(stimuli == "x")).all()
    with pytest.raises(ValueError, match=r"holding out r1 leaves 0 of 6 .* same stimuli; use --cv kfold:10"):
        folding(in_runs(r1="abc", r2="abc"), cv="leave-one-run-out", **OPTIONS)
    with pytest.raises(ValueError, match="more than 1, got 1"):
        folding(in_runs(r1="abc"), cv="leave-one-run-out", **OPTIONS)


def test_trials_may_be_held_out_and_relabelled_one_by_one():
    items = in_runs(r1="aabb", r2="aabb", r3="aabb")
    found = folding(items, cv="leave-2-runs-out", keep_together=None, relabel_together=None, **OPTIONS)
    assert [len(test) for _, test in found.splits] == [8, 4]
    labels = items["stimulus_id"].to_numpy()[found.orders]
    assert len({tuple(row) for row in labels}) > 20
    assert (np.sort(labels[:, :4]) == list("aabb")).all()
    together = folding(items, cv="leave-one-run-out", keep_together=None, **OPTIONS)
    assert {"".join(row) for row in items["stimulus_id"].to_numpy()[together.orders]} == {"aabb" * 3, "bbaa" * 3}


def test_few_relabellings_are_warned_of(caplog):
    folding(in_runs(r1="ab", r2="cd", r3="ef"), cv="leave-one-run-out", **OPTIONS)
    assert "only 8 relabellings within runs; no p can be below 0.13" in caplog.text


def test_a_column_gives_a_single_split_whose_held_out_part_is_exchanged():
    items = pd.DataFrame({"stimulus_id": list("abcdefgh")})
    parts = column(a="test", b="train", c="train", d="test", e="train", f="test", g="train", h="test", other="test")
    found = folding(items, cv="column:shared", parts=parts, **OPTIONS)
    assert found.single
    train, test = found.splits[0]
    assert (train.tolist(), test.tolist()) == ([1, 2, 4, 6], [0, 3, 5, 7])
    assert (found.orders[:, train] == train).all()
    assert (np.sort(found.orders[:, test]) == test).all()
    assert found.said == "a given split: trained on 4 stimuli, tested on 4"
    assert found.test == "permutations of the held-out responses"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": "train", "b": "train", "c": "test"}, "5 of 8 stimuli are neither train nor test, the first 'd'; fill"),
        (dict.fromkeys("abcdefgh", "1"), r"8 of 8 stimuli are neither train nor test, the first 'a' \('1'\); fill"),
        (dict.fromkeys("abcdef", "train") | dict.fromkeys("gh", "test"), "6 items are train and 2 test; .* 3"),
    ],
)
def test_a_column_with_gaps(values, said):
    items = pd.DataFrame({"stimulus_id": list("abcdefgh")})
    with pytest.raises(ValueError, match=f"--cv column:shared: {said}"):
        folding(items, cv="column:shared", parts=column(**values), **OPTIONS)


def test_a_stimulus_that_is_train_and_test():
    parts = pd.DataFrame({"stimulus_id": ["a", "a"], "value": ["train", "test"]})
    with pytest.raises(ValueError, match="'a' is both train and test"):
        folding(pd.DataFrame({"stimulus_id": ["a"]}), cv="column:x", parts=parts, **OPTIONS)


def series(*runs):
    rows = [
        (f"{stimulus}@{second}", stimulus, float(second), f"{run}@{20 * place + second:.1f}")
        for run, stimuli in runs
        for place, stimulus in enumerate(stimuli)
        for second in range(10)
    ]
    return pd.DataFrame(rows, columns=["stimulus_id", "stimulus", "time", "shown"])


def test_volumes_are_held_out_as_runs_or_by_a_column():
    items = series(("r1", "ab"), ("r2", "cd"), ("r3", "ef"))
    folds = folding(items, cv="leave-one-run-out", purge=0, **OPTIONS)
    assert folds.series
    assert folds.said == "3 folds over runs"
    assert len(folding(items, cv="leave-2-runs-out", purge=0, **OPTIONS).splits) == 2
    assert len(folding(items, cv="kfold:2", purge=0, **OPTIONS).splits) == 2
    parts = column(a="train", b="test", c="train", d="train", e="train", f="train")
    found = folding(items, cv="column:x", parts=parts, purge=12, **OPTIONS)
    train, test = found.splits[0]
    assert test.tolist() == list(range(10, 20))
    # The last second of a comes 11 s before the first of b, and is not trained on.
    assert train.tolist() == [*range(9), *range(20, 60)]
    assert (found.orders[:, train] == train).all()
    shifts = (found.orders[:, test] - 10 - np.arange(10)) % 10
    assert (shifts == shifts[:, :1]).all()
    with pytest.raises(ValueError, match="held out as stretches of time; use --cv kfold:10"):
        folding(items, cv="leave-one-out", **OPTIONS)
    with pytest.raises(ValueError, match="--cv leave-one-run-out: runs: 1 of the 2 runs"):
        folding(series(("r1", "a"), ("r2", "a")), cv="leave-one-run-out", **OPTIONS)


def test_responses_in_runs_are_averages_of_their_trials():
    items = in_runs(r1="aab", r2="ac")
    values = np.arange(10.0).reshape(5, 2)
    trials = Patterns(items, (Group("brain", values),))
    y = Patterns(pd.DataFrame({"stimulus_id": list("abc")}), (Group("brain", np.zeros((3, 2))),))
    found = items_for("leave-one-run-out", y, trials)
    assert found.items[["stimulus_id", "run", "n_repeats"]].to_numpy().tolist() == [
        ["a", "r1", 2], ["a", "r2", 1], ["b", "r1", 1], ["c", "r2", 1],
    ]  # fmt: skip
    np.testing.assert_array_equal(found.values, [values[:2].mean(axis=0), values[3], values[2], values[4]])
    assert items_for("kfold:10", y, trials) is y
    assert items_for("leave-one-session-out", y, trials).ids == list("abc")
    with pytest.raises(ValueError, match="averages over runs; choose an estimator of single trials"):
        items_for("leave-one-run-out", y, None)


def test_a_dataset_with_a_given_split(finished, tmp_path, capsys):
    names = sorted(path.name for path in (finished.bids / "stimuli").glob("*.png"))
    table = tmp_path / "shared.tsv"
    rows = [f"{name}\t{'test' if number % 4 == 0 else 'train'}" for number, name in enumerate(names)]
    table.write_text("\n".join(["stim_file\tshared", *rows]) + "\n")
    options = [*finished.options, "--participant-label", "01", "--analysis", "encoding", "--layer", "conv[15]"]
    call = [str(finished.bids), str(tmp_path / "out"), "participant", *options]
    assert main([*call, "--cv", f"column:shared={table}"]) == 0
    path = next((tmp_path / "out").glob("sub-01/func/*desc-encoding_results.tsv"))
    sidecar = read_json(sidecar_path(path))
    assert sidecar["CrossValidation"].startswith("a given split: trained on 18 stimuli, tested on 6")
    assert sidecar["Test"] == "permutations of the held-out responses, one-sided"
    assert sidecar["Settings"]["cv"] == f"column:shared={table}"
    assert "repeating" not in sidecar["Methods"]
    found = read_table(path)
    best = found.loc[found.groupby("region")["pearsonr"].idxmax()].set_index("region")
    assert found["p"].between(1 / 201, 1).all()
    assert best["layer"].to_dict().items() >= {"early": "conv1", "late": "conv5"}.items()
    table.write_text("\n".join(["stim_file\tshared", *rows[1:]]) + "\n")
    assert main([*call, "--cv", f"column:shared={table}"]) == 65
    assert "1 of 24 stimuli are neither train nor test" in capsys.readouterr().err
    # Every run of the demo shows all stimuli.
    assert main([*call, "--cv", "leave-one-run-out"]) == 65
    assert "as 48 others show the same stimuli; use --cv kfold:10" in capsys.readouterr().err
