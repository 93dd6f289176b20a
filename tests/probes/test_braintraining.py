"""Brain-constrained training on a planted region: it comes nearer on held-out stimuli, and the task stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.linear_model import RidgeCV

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.retrained import retrained
from bidsdnn.patterns import Group, Patterns
from bidsdnn.probes.brainfit import distances, predicted_by, rdm_loss
from bidsdnn.probes.braintraining import brain_training
from tests.probes.conftest import N, build


@pytest.fixture(scope="module")
def study(squares):
    """A region of 30 voxels that tells equal squares from different ones, which the network does not, and noise."""
    stimuli, columns = squares
    rng = np.random.default_rng(1)
    same = (columns["same"]["value"] == "same").to_numpy().astype(float)
    voxels = np.outer(same, rng.normal(0, 1, 30)) + np.outer(1 - same, rng.normal(0, 1, 30))
    values = np.hstack([voxels + rng.normal(0, 0.5, voxels.shape), rng.normal(0, 1, (N, 5))])
    items = pd.DataFrame({"stimulus_id": stimuli.ids})
    # Responses come in an order of their own.
    order = rng.permutation(N)
    y = Patterns(items.iloc[order].reset_index(drop=True), (Group("brain", values[order]),))
    net = build()
    batch = torch.stack([net.preprocess(stimuli.read(row)) for row in range(N)])
    with Recorder(net.module, ["relu2", "relu3"]) as record, torch.no_grad():
        seen = {layer: values.flatten(1).numpy()[order] for layer, values in record(batch).items()}
    x = Patterns(y.items, tuple(Group(layer, values, net.label) for layer, values in seen.items()))
    there = np.arange(35) < 30
    return x, y, stimuli, {"planted": {"equal": there, "noise": ~there}}, {"colours": columns["green"]}


FAST = {"region": "equal", "learning_rate": 1e-2, "epochs": 40, "patience": 40}


def table(result):
    return result.tables["braintraining"].set_index(["part", "measure"])[["before", "after"]]


@pytest.fixture(scope="module")
def by_rdm(study):
    x, y, stimuli, regions, targets = study
    classes = {"colours": targets["colours"].assign(value="n" + targets["colours"]["value"])}
    return brain_training(
        x, y, networks=[build()], stimuli=stimuli, regions=regions, targets=classes, layer="relu3", **FAST
    )


def test_held_out_fit_rises_and_the_task_stays(by_rdm):
    scores = table(by_rdm)
    fit, task = scores.loc[("test", "rdm_pearsonr")], scores.loc[("test", "colours_accuracy")]
    assert fit["before"] < 0.2 and fit["after"] > fit["before"] + 0.3
    assert scores.loc[("test", "readout_pearsonr"), "after"] > scores.loc[("test", "readout_pearsonr"), "before"] + 0.2
    assert task["before"] > 0.9 and task["after"] > task["before"] - 0.02


def test_numbers_are_the_formulas_on_the_written_weights(study, by_rdm, tmp_path):
    _, y, stimuli, _, _ = study
    path = tmp_path / "sub-01_model-local_desc-braintraining_weights.pt"
    path.write_bytes(by_rdm.weights[build().label])
    net = retrained(build, str(path), seed=9)
    split = by_rdm.tables["braintrainingsplit"]
    part = dict(zip(split["stimulus_id"], split["part"], strict=True))
    rows = [row for row, name in enumerate(y.ids) if part[name] == "test"]
    pictures = {name: stimuli.read(row) for row, name in enumerate(stimuli.ids)}
    batch = torch.stack([net.preprocess(pictures[y.ids[row]]) for row in rows])
    with Recorder(net.module, ["relu3"]) as record, torch.no_grad():
        features = record(batch)["relu3"].numpy()
    brain = y.groups[0].values[rows][:, :30]
    expected = np.corrcoef(pdist(features, "correlation"), pdist(brain, "correlation"))[0, 1]
    assert table(by_rdm).loc[("test", "rdm_pearsonr"), "after"] == pytest.approx(expected, abs=1e-4)
    assert "head_colours" in net.layers and "McClure" in by_rdm.sidecar["Methods"]


def test_a_read_out_of_the_responses(study):
    x, y, stimuli, regions, targets = study
    result = brain_training(x, y, networks=[build()], stimuli=stimuli, regions=regions, targets=targets, fit="readout",
                            layer="relu3", **{**FAST, "epochs": 20})  # fmt: skip
    scores = table(result)
    held_out, task = scores.loc[("test", "readout_pearsonr")], scores.loc[("test", "colours_r2")]
    assert held_out["before"] < 0.2 and held_out["after"] > held_out["before"] + 0.3
    assert task["after"] > task["before"] - 0.02
    assert set(result.tables["braintrainingcurves"]) >= {"epoch", "part", "loss", "brain", "task", "kept"}


def test_a_task_of_no_weight_is_lost_and_one_of_all_weight_kept(study):
    x, y, stimuli, regions, _ = study
    few = {**FAST, "layer": "relu3", "epochs": 8}
    results = [
        brain_training(x, y, networks=[build()], stimuli=stimuli, regions=regions, **few,
                       brain_weight=brain, task_weight=1 - brain)
        for brain in (1.0, 0.0)
    ]  # fmt: skip
    lost, kept = map(table, results)
    assert "self-distillation" in results[0].sidecar["Methods"]
    assert (lost.loc[("test", ["output_r2", "output_agreement"]), "before"] == 1).all()
    assert kept.loc[("test", "output_r2"), "after"] == pytest.approx(1)
    assert lost.loc[("test", "output_r2"), "after"] < 0.5


def test_interrupted_training_goes_on_to_the_same_bytes(study, tmp_path):
    x, y, stimuli, regions, _ = study
    options = {"networks": [build()], "stimuli": stimuli, "regions": regions, "checkpoint": tmp_path / "c",
               **FAST, "layer": "relu3"}  # fmt: skip
    first = brain_training(x, y, identity="a", **{**options, "epochs": 3})
    assert [path.name for path in tmp_path.iterdir()] == [f"c-{build().label}"]
    # What is complete is read back as it is.
    again = brain_training(x, y, identity="a", **{**options, "epochs": 3})
    assert again.weights == first.weights


def test_the_layer_nearest_to_the_region_is_taken(study):
    x, y, stimuli, regions, _ = study
    near = Group("relu2", y.groups[0].values[:, :30], build().label)
    result = brain_training(x.__class__(x.items, (near, x.groups[1])), y, networks=[build()], stimuli=stimuli,
                            regions=regions, **{**FAST, "epochs": 1})  # fmt: skip
    assert set(result.tables["braintraining"]["layer"]) == {"relu2"}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"region": ""}, ConfigError, r"region = '': name one of equal, noise"),
        ({"region": "equals"}, ConfigError, "region = 'equals'.*equal"),
        ({"fit": "cka"}, ValueError, "fit: expected rdm or readout"),
        ({"brain_weight": -1.0}, ValueError, "brain_weight, task_weight"),
        ({"layer": "relu9"}, ConfigError, "layer relu9"),
        ({"fine_tune": []}, ConfigError, "no layer is learnt"),
        (
            {"fine_tune": ["fc"], "layer": "relu2", "task_weight": 0.0},
            ConfigError,
            "no layer of fine_tune has a gradient",
        ),
        ({"stimuli": None}, ConfigError, "some are no pictures"),
    ],
)
def test_bad_input(study, options, error, said):
    x, y, stimuli, regions, _ = study
    with pytest.raises(error, match=said):
        brain_training(x, y, **{"networks": [build()], "stimuli": stimuli, "regions": regions, **FAST, **options})


def test_half_precision_is_refused(study):
    x, y, stimuli, regions, _ = study
    half = replace(build(), module=build().module.half())
    with pytest.raises(ConfigError, match="float16, in which gradients cannot be had"):
        brain_training(x, y, networks=[half], stimuli=stimuli, regions=regions, **FAST)


def test_voxels_without_responses(study):
    x, y, stimuli, regions, _ = study
    empty = Patterns(y.items, (Group("brain", np.full((N, 35), np.nan)),))
    with pytest.raises(DataError, match="no voxel has responses that vary"):
        brain_training(x, empty, networks=[build()], stimuli=stimuli, regions=regions, **FAST)


def test_the_loss_is_one_less_r_of_scipys_distances():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 20)), rng.normal(size=(9, 7))
    expected = 1 - np.corrcoef(pdist(a, "correlation"), pdist(b, "correlation"))[0, 1]
    tensors = [torch.from_numpy(one).requires_grad_() for one in (a, b)]
    assert float(rdm_loss(*tensors).detach()) == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda one: rdm_loss(one, tensors[1].detach()), tensors[:1])
    assert float(rdm_loss(tensors[0][:3], tensors[1][:3]).detach()) == 0
    np.testing.assert_allclose(distances(a), pdist(a, "correlation"))


def test_the_read_out_is_sklearns_ridge():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 5)), rng.normal(size=(30, 3))
    rows = np.arange(20)
    expected = RidgeCV(np.logspace(-2, 6, 17)).fit(a[:20], b[:20]).predict(a)
    np.testing.assert_allclose(predicted_by(a, b, rows), expected)
