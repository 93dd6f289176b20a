"""Transfer learning: what no linear probe of the frozen layers can tell is learnt; nothing is lost by interruptions."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.retrained import retrained
from bidsdnn.probes.heads import Heads, Target, split, targets_of
from bidsdnn.probes.transfer import transfer
from tests.probes.conftest import N, build

module = sys.modules[transfer.__module__]


FAST = {"learning_rate": 1e-2, "epochs": 15, "patience": 15}


@pytest.fixture(scope="module")
def tuned(squares):
    stimuli, columns = squares
    return transfer(build(), stimuli, targets={"same": columns["same"]}, fine_tune=["*"], **FAST)


def score(result, part="test", measure="accuracy"):
    table = result.tables["transfer"]
    return float(table.loc[(table["part"] == part) & (table["measure"] == measure), "value"].iloc[0])


def test_what_no_linear_probe_of_the_frozen_layers_can_tell(squares, tuned):
    stimuli, columns = squares
    net = build()
    with Recorder(net.module, ["relu1", "relu2", "relu3"]) as record, torch.no_grad():
        seen = record(torch.stack([net.preprocess(stimuli.read(row)) for row in range(N)]))
    for values in seen.values():
        table = values.flatten(2).mean(2) if values.ndim > 2 else values
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        folds = StratifiedKFold(10, shuffle=True, random_state=0)
        assert cross_val_score(probe, table.numpy(), columns["same"]["value"], cv=folds).mean() < 0.6
    frozen = transfer(net, stimuli, targets={"same": columns["same"]}, **FAST)
    assert score(frozen) < 0.65
    assert score(tuned) > 0.9
    assert torch.equal(net.module.fc.weight, build().module.fc.weight)  # the network itself stays


def test_curves_split_and_words(squares, tuned):
    curves, parts = tuned.tables["transfercurves"], tuned.tables["transfersplit"]
    assert set(curves["part"]) == {"train", "validation"} and curves["epoch"].max() <= 15
    validation = curves[curves["part"] == "validation"].set_index("epoch")["loss"]
    assert validation.idxmin() == tuned.sidecar["EpochKept"] == curves.loc[curves["kept"] == 1, "epoch"].iloc[0]
    assert validation.loc[0] == pytest.approx(np.log(2), abs=0.3)
    assert parts["part"].value_counts().to_dict() == pytest.approx({"train": 144, "validation": 48, "test": 48}, abs=2)
    joined = parts.merge(squares[1]["same"])
    assert (joined[joined["part"] == "test"]["value"] == "same").mean() == pytest.approx(0.5, abs=0.05)
    assert "Yosinski" in tuned.sidecar["Methods"]


def test_written_weights_are_the_network_with_its_head(squares, tuned, tmp_path):
    stimuli, _ = squares
    path = tmp_path / "model-local_desc-transfer_weights.pt"
    path.write_bytes(tuned.weights[build().label])
    net = retrained(build, str(path), seed=5)
    assert net.layers[-1] == "head_same.0" or "head_same" in net.layers
    parts = tuned.tables["transfersplit"].set_index("stimulus_id")["part"]
    test = [row for row, name in enumerate(stimuli.ids) if parts[name] == "test"]
    batch = torch.stack([net.preprocess(stimuli.read(row)) for row in test])
    with torch.no_grad():
        chosen = net.module(batch).argmax(1).numpy()
    truth = squares[1]["same"].set_index("stimulus_id")["value"]
    right = [("other", "same")[code] == truth[stimuli.ids[row]] for code, row in zip(chosen, test, strict=True)]
    assert np.mean(right) == pytest.approx(score(tuned))
    assert net.weights == path.name and net.label.startswith("local+model+local+desc+transfer+weights")
    assert not torch.equal(net.module.fc.weight, build(seed=5).module.fc.weight)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="not a readable weights file"):
        retrained(build, str(path), seed=0)


def test_other_files_of_the_same_name_are_refused(tmp_path):
    path = tmp_path / "mine_weights.pt"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match="rename your own file"):
        retrained(build, str(path), seed=0)


def test_interrupted_training_goes_on_to_the_same_bytes(squares, tmp_path, monkeypatch):
    stimuli, columns = squares
    some = stimuli.select(stimuli.ids[:60])
    options = {"targets": columns, "fine_tune": ["fc"], "epochs": 6, "patience": 6, "learning_rate": 1e-2}
    whole = transfer(build(), some, **options)
    checkpoint = tmp_path / "checkpoint"
    real = module.learn

    class Killed(Exception):
        pass

    def killed(parameters, loss, **kwargs):
        calls = 0

        def once(rows):
            nonlocal calls
            calls += 1
            if calls > 9:  # in the middle of an epoch
                raise Killed
            return loss(rows)

        return real(parameters, once, **kwargs)

    monkeypatch.setattr(module, "learn", killed)
    with pytest.raises(Killed):
        transfer(build(), some, checkpoint=checkpoint, identity="same", **options)
    monkeypatch.setattr(module, "learn", real)
    assert checkpoint.is_file()
    begun = torch.load(checkpoint, weights_only=True)["state"]["epoch"]
    assert 0 < begun < 6
    gone_on = transfer(build(), some, checkpoint=checkpoint, identity="same", **options)
    assert gone_on.weights == whole.weights
    pd.testing.assert_frame_equal(gone_on.tables["transfercurves"], whole.tables["transfercurves"])
    other = transfer(build(), some, checkpoint=checkpoint, identity="another", **{**options, "epochs": 1})
    assert other.weights != whole.weights


def test_numbers_are_learnt_too(squares):
    stimuli, columns = squares
    result = transfer(build(), stimuli, targets={"green": columns["green"]}, layer="relu2", **FAST)
    assert score(result, measure="pearsonr") > 0.9 and score(result, measure="r2") > 0.7
    assert result.sidecar["Layer"] == "relu2" and result.sidecar["FineTuned"] == []


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(squares, caplog):
    stimuli, columns = squares
    some = stimuli.select(stimuli.ids[:40])
    options = {"targets": {"green": columns["green"]}, "fine_tune": ["*"]}
    with caplog.at_level(logging.WARNING):
        result = transfer(build(), some, learning_rate=1e30, epochs=3, **options)
    assert "the loss was not finite in epoch" in caplog.text and "smaller learning_rate" in caplog.text
    assert result.sidecar["EpochKept"] == 0 and "weights of epoch 0 were kept" in result.sidecar["Stopped"]
    assert np.isfinite(result.tables["transfer"]["value"]).all()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"targets": {}}, ConfigError, "which column is to be learnt"),
        ({"layer": "conv9"}, ConfigError, "layer conv9: expected one of local"),
        ({"fine_tune": ["convs"]}, ConfigError, "fine_tune convs: no layer of local"),
        ({"fine_tune": ["relu1"]}, ConfigError, "has no weights to learn"),
        ({"fine_tune": ["fc"], "layer": "relu2"}, ConfigError, "no layer of fine_tune has a gradient"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate"),
        ({"test": 0.7, "validation": 0.4}, ValueError, "shares above 0"),
    ],
)
def test_bad_input(squares, options, error, said):
    stimuli, columns = squares
    with pytest.raises(error, match=said):
        transfer(build(), stimuli, **{"targets": {"same": columns["same"]}, **options})


def test_columns_that_cannot_be_learnt():
    ids = ["a", "b", "c"]
    one = pd.DataFrame({"stimulus_id": ids, "value": ["x", "x", "x"]})
    with pytest.raises(DataError, match="1 different ones"):
        targets_of({"kind": one}, ids)
    twice = pd.DataFrame({"stimulus_id": ["a", "a", "b"], "value": ["x", "y", "x"]})
    with pytest.raises(DataError, match="a has 2 classes; give each stimulus one"):
        targets_of({"kind": twice}, ids)
    part = pd.DataFrame({"stimulus_id": ids, "value": ["x", None, "y"]})
    found, known = targets_of({"kind": part}, ids)
    assert known.tolist() == [0, 2] and found[0].classes == ("x", "y")


def test_equal_stimuli_stay_together_and_parts_are_alike():
    contents = [f"{i // 2}" for i in range(100)]
    strata = np.repeat([0, 1], 50)
    parts = split(contents, strata, validation=0.2, test=0.2, seed=1)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    where = {contents[row]: part for part, rows in parts.items() for row in rows}
    assert all(contents[row] in where and where[contents[row]] == part for part, rows in parts.items() for row in rows)
    assert [strata[parts[part]].mean() for part in parts] == [0.5, 0.5, 0.5]
    assert not np.array_equal(parts["test"], split(contents, strata, validation=0.2, test=0.2, seed=2)["test"])
    with pytest.raises(ValueError, match="got none of 2"):
        split(["a", "b"], np.zeros(2, int), validation=0.2, test=0.2, seed=0)


def test_a_head_is_written_on_features_as_they_are():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(5, [1, 3, 0], size=(20, 3)).astype(np.float32))
    targets = [Target("kind", np.arange(20) % 3, ("a", "b", "c")), Target("size", rng.normal(7, 2, 20))]
    heads = Heads(targets, features, np.arange(20), frozen=True, seed=0)
    classes, numbers = heads(features)
    kind, size = heads.written("fc", None)
    torch.testing.assert_close(features @ kind.weights + kind.intercept, classes)
    mean, sd = targets[1].values.mean(), targets[1].values.std()
    torch.testing.assert_close((features @ size.weights + size.intercept), (numbers * sd + mean), atol=1e-4, rtol=1e-4)
