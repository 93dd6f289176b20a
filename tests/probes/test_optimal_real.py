"""Optimal stimuli of a network that was trained on photographs: seen as what they were made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bidsdnn.networks import zoo
from bidsdnn.probes.optimal import optimal_stimulus
from bidsdnn.probes.pixels import Pixels, from_bytes
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli

SHARED = Path(__file__).parents[3] / "shared" / "data"
CLASSES = {291: "lion", 281: "tabby", 985: "daisy", 340: "zebra", 963: "pizza"}


@pytest.mark.slow
def test_the_optimal_stimulus_of_a_class_is_classified_as_that_class():
    """Five classes, also when the picture goes through the preparation again; above every photograph."""
    weights = SHARED / "squeezenet1_1" / "squeezenet1_1.pth"
    if not weights.is_file():
        pytest.skip("shared data are not here")
    network = zoo.build("squeezenet1_1", weights=str(weights), seed=0)
    stimuli = Stimuli.from_folder(SHARED / "rsa92" / "images_white")
    assert len(stimuli) == 92
    result = optimal_stimulus(network, stimuli, units=[Unit("classifier.3", number) for number in CLASSES], steps=64)
    table = result.tables["optimalstimulus"]
    with torch.inference_mode():
        prepared = Pixels.of(network)
        for number, row, picture in zip(CLASSES, table.to_dict("records"), result.pictures, strict=True):
            given = network.module(prepared.to_input(from_bytes(picture.pixels[None])))[0]
            assert int(given.argmax()) == number and float(given.softmax(0)[number]) > 0.9
            assert row["activation"] == pytest.approx(float(given[number]), rel=1e-3)
            again = network.module(network.preprocess(Image.fromarray(picture.pixels))[None])[0]
            assert int(again.argmax()) == number
            assert row["above_natural"] and row["activation"] > 2 * row["natural_activation"]
