"""Preparation of films and sounds: which frames and samples are taken, and torchvision's presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import DataError
from bidsdnn.networks import zoo
from bidsdnn.networks.preprocessing import asked_preprocess, blank, frames_of, waveform


def numbered(n: int) -> np.ndarray:
    """Frames whose pixels are their number."""
    return np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(6, 2).repeat(3, 3)


@pytest.mark.parametrize(
    ("n", "own", "frames", "rate", "expected"),
    [
        (8, 10.0, 4, 10.0, [2, 3, 4, 5]),
        (8, 10.0, 4, 5.0, [1, 3, 5, 7]),
        (4, 10.0, 8, 10.0, [0, 0, 0, 1, 2, 3, 3, 3]),
        (5, 10.0, 1, 10.0, [2]),
        (2, 10.0, 4, 20.0, [0, 0, 1, 1]),
        (1, 25.0, 3, 15.0, [0, 0, 0]),
    ],
)
def test_frames_around_the_middle(n, own, frames, rate, expected):
    taken = frames_of((torch.from_numpy(numbered(n)), own), frames=frames, rate=rate)
    assert taken.shape == (frames, 3, 4, 6)
    assert taken[:, 0, 0, 0].tolist() == expected


def test_a_clip_without_frames():
    with pytest.raises(DataError, match="no frames"):
        frames_of((numbered(0), 25.0), frames=2, rate=1.0)


@pytest.mark.parametrize(("name", "frames"), [("r3d_18", 16), ("swin3d_t", 32), ("mvit_v2_s", 16)])
def test_films_are_prepared_as_torchvision_does(name, frames):
    clip = np.random.default_rng(0).integers(0, 256, (frames, 140, 200, 3), dtype=np.uint8)
    network = zoo.build(name, weights="none")
    rate = 7.5 if name == "mvit_v2_s" else 15.0
    preset = models.get_model_weights(name).DEFAULT.transforms()
    expected = preset(torch.from_numpy(clip).permute(0, 3, 1, 2))
    assert torch.equal(network.preprocess((clip, rate)), expected)
    assert network.preprocessing.startswith(f"{frames} frames at {rate:g} a second")
    assert network.modality == "video"


def test_a_waveform_at_another_rate_is_the_same_sound():
    seconds = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 300 * seconds).astype(np.float32)
    found = waveform((tone, 48000), rate=16000)
    assert (found.dtype, found.shape) == (np.float32, (16000,))
    np.testing.assert_allclose(found[200:-200], tone[::3][200:-200], atol=2e-3)
    assert waveform((tone, 48000), rate=48000) is not None


def test_what_is_asked():
    sound = asked_preprocess(NetworkInput(modality="audio", sampling_rate=8000, seconds=0.5, mean=(1.0,), std=(2.0,)))
    assert torch.equal(sound[0]((np.ones(8000, np.float32) * 3, 8000)), torch.ones(4000))
    with pytest.raises(DataError, match=r"shorter than the 0\.500 s"):
        sound[0]((np.ones(800, np.float32), 8000))
    film = asked_preprocess(NetworkInput(modality="video", input_size=32, frames=5, frame_rate=2.0))
    assert film[0](blank("video")).shape == (3, 5, 32, 32)
    picture = asked_preprocess(NetworkInput(input_size=32))
    assert picture[0](Image.new("RGB", (50, 40))).shape == (3, 32, 32)
    assert len({sound[1], film[1], picture[1]}) == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mean": (0.5,)}, "mean has 1 values; image has 3"),
        ({"std": (0.5, 0.5, 0.0)}, "not above 0"),
        ({"input_size": 64, "resize": 32}, "nothing could be cut out"),
        ({"modality": "smell"}, "modality"),
        ({"input_size": 64.0}, "valid integer"),
        ({"colour": 1}, "colour"),
    ],
)
def test_tables_that_make_no_sense(table, message):
    with pytest.raises(ValueError, match=message):
        NetworkInput(**table)
