from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from bidsdnn.demo.pictures import draw_picture, plan_pictures
from bidsdnn.networks.network import canonical_layers
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.toy import Toy

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]


def toy(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy().eval()


def tensor(rows):
    pixels = np.stack([np.asarray(draw_picture(row).resize((64, 64))) for _, row in rows.iterrows()])
    return torch.tensor(pixels / 127.5 - 1, dtype=torch.float32).permute(0, 3, 1, 2)


def record(module, pictures):
    with Recorder(module, LAYERS) as recorder, torch.inference_mode():
        return {layer: values.flatten(1).numpy() for layer, values in recorder(pictures).items()}


def test_canonical_layers_are_the_six_named_ones():
    assert canonical_layers(toy(0)) == LAYERS


def test_weights_follow_the_seed():
    first, again, other = toy(3).state_dict(), toy(3).state_dict(), toy(4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_shapes():
    with Recorder(toy(0), LAYERS) as recorder:
        seen = recorder(torch.zeros(2, 3, 64, 64))
    assert {layer: tuple(value.shape[1:]) for layer, value in seen.items()} == {
        "conv1": (24, 32, 32),
        "conv2": (24, 32, 32),
        "conv3": (32,),
        "conv4": (24, 16, 16),
        "conv5": (32,),
        "fc": (32,),
    }


def test_a_blank_picture_gives_numbers():
    seen = record(toy(0), torch.zeros(1, 3, 64, 64))
    assert all(np.isfinite(values).all() for values in seen.values())


@pytest.mark.parametrize("seed", range(4))
def test_planted_layers_have_geometries_of_their_own(seed):
    pictures = tensor(plan_pictures(48, np.random.default_rng(seed)))
    seen = record(toy(seed), pictures)
    distances = [pdist(seen[layer], "correlation") for layer in ("conv1", "conv3", "conv5")]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(spearmanr(distances[i], distances[j])[0]) < 0.3


@pytest.mark.parametrize(("layer", "invariant"), [("conv1", False), ("conv2", False), ("conv3", True), ("conv5", True)])
def test_texture_and_shape_are_seen_wherever_they_are(layer, invariant):
    plan = plan_pictures(24, np.random.default_rng(0)).iloc[:1]
    # 0.375 of the picture's half width are 12 of 64 pixels: a whole number of steps in every layer's grid.
    module = toy(0)
    here, there = (record(module, tensor(plan.assign(x=x, y=0.0))) for x in (-0.1875, 0.1875))
    moved = np.linalg.norm(here[layer] - there[layer]) / np.linalg.norm(here[layer])
    assert moved < 0.02 if invariant else moved > 0.3


def test_contrast_does_not_change_texture_and_shape():
    plan = plan_pictures(24, np.random.default_rng(0)).iloc[:4]
    pictures = tensor(plan)
    grey = pictures.mean((2, 3), keepdim=True)
    bright, dim = record(toy(0), pictures), record(toy(0), grey + 0.5 * (pictures - grey))
    for layer in ("conv3", "conv5"):
        np.testing.assert_allclose(dim[layer], bright[layer], rtol=0.1, atol=0.02 * np.abs(bright[layer]).max())
    assert np.linalg.norm(dim["conv2"]) < 0.7 * np.linalg.norm(bright["conv2"])
