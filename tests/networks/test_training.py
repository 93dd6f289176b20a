"""The loop by which weights are learnt: steps that are too long, and runs that are interrupted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bidsdnn.networks import training
from bidsdnn.networks.training import TOTAL, Schedule, learn

STEEP = torch.tensor([1.0, 10.0, 100.0, 1000.0])


def valley():
    """A narrow valley whose floor is at zero: weights already near it, which long steps leave."""
    weights = nn.Parameter(torch.tensor([0.03, -0.02, 0.05, 0.04]))
    return {"weights": weights}, lambda rows: {TOTAL: (STEEP * weights.square()).sum()}


def learnt(schedule, **more):
    parameters, loss = valley()
    rows = {"training": np.arange(4), "validation": np.arange(2)}
    return learn(parameters, loss, **rows, schedule=schedule, **more), parameters


def test_where_steps_are_too_long_they_become_shorter():
    found, parameters = learnt(Schedule(epochs=60, patience=3, learning_rate=1.0))
    losses = found.curves[found.curves["part"] == "validation"].set_index("epoch")["loss"]
    assert losses[1:4].min() > losses[0]  # the first three epochs are worse than nothing
    assert found.epoch > 3 and losses[found.epoch] < losses[0] / 2
    assert losses.idxmin() == found.epoch
    assert float((STEEP * parameters["weights"].detach().square()).sum()) == pytest.approx(losses[found.epoch])


def test_it_stops_after_the_third_time_without_a_smaller_loss():
    found, _ = learnt(Schedule(epochs=60, patience=2, learning_rate=1e5))
    assert found.epoch == 0 and found.curves["epoch"].max() == 6
    assert found.stopped == "no smaller validation loss in 2 epochs at any learning rate"


@pytest.mark.parametrize("killed_after", [1, 3, 4, 7])
def test_interrupted_before_and_after_a_drop_it_comes_to_the_same(tmp_path, monkeypatch, killed_after):
    schedule = Schedule(epochs=12, patience=3, learning_rate=1.0)
    whole, expected = learnt(schedule)
    saved = training._save
    calls = []

    def dying(*arguments):
        saved(*arguments)
        calls.append(1)
        if len(calls) == killed_after + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", dying)
    with pytest.raises(KeyboardInterrupt):
        learnt(schedule, checkpoint=tmp_path / "checkpoint", identity="a")
    monkeypatch.setattr(training, "_save", saved)
    again, parameters = learnt(schedule, checkpoint=tmp_path / "checkpoint", identity="a")
    assert again.curves.equals(whole.curves) and again.epoch == whole.epoch
    assert torch.equal(parameters["weights"], expected["weights"])
