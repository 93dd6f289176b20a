"""Minimal and masked images: the planted part is what is left, and nothing of it can be spared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import standard_preprocess
from bidsdnn.probes.minimal import Parts, fewest, masked_image, minimal_image, segmented
from bidsdnn.probes.pixels import Pixels
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli

SIZE = 32
SQUARE = (slice(8, 16), slice(16, 28))


class Reds(nn.Module):
    """How red the picture is, and how dark: red minus green, everywhere alike."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.conv.weight = nn.Parameter(torch.tensor([[1.0, -1, 0], [-1, -1, -1]]).reshape(2, 3, 1, 1))
        self.conv.bias = nn.Parameter(torch.tensor([-0.5, 0.0]))

    def forward(self, x):
        return self.relu(self.conv(x))


@pytest.fixture(scope="module")
def network():
    preprocess, words = standard_preprocess(SIZE, resize=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Network("reds", Reds().eval(), preprocess, words, "none", 0, "0" * 64)


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    """A red square, a blue one, and a picture of one grey."""
    folder = tmp_path_factory.mktemp("squares")
    for name, colour in (("red", (255, 20, 20)), ("blue", (20, 20, 255)), ("grey", (120, 130, 125))):
        pixels = np.full((SIZE, SIZE, 3), (120, 130, 125), dtype=np.uint8)
        pixels[SQUARE] = colour
        Image.fromarray(pixels).save(folder / f"{name}.png")
    names = ["blue.png", "grey.png", "red.png"]
    return Stimuli(pd.DataFrame({"stimulus_id": names, "filename": names, "modality": "image", "sha256": ""}), folder)


def overlap(picture):
    """Share of the kept pixels that lie in the square, and of the square that is kept."""
    whole = picture.reshape(-1, 3)
    fill = np.unique(whole, axis=0, return_counts=True)
    common = fill[0][fill[1].argmax()]
    kept = (np.abs(picture.astype(int) - common) > 3).any(2)
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[SQUARE] = True
    return (kept & inside).sum() / max(kept.sum(), 1), (kept & inside).sum() / inside.sum()


@pytest.mark.parametrize("make", [minimal_image, masked_image])
def test_what_is_left_is_the_part_that_was_planted(network, stimuli, make):
    result = make(network, stimuli, units=[Unit("relu", 0)], keep=0.8)
    (row,) = result.tables[result.analysis].to_dict("records")
    assert row["stimulus_id"] == "red.png" and row["kept"] >= 0.8 and row["area"] < 0.15
    assert row["activation"] == pytest.approx(row["blank"] + row["kept"] * (row["whole"] - row["blank"]))
    precise, covered = overlap(result.pictures[0].pixels)
    assert precise > 0.75 and covered > 0.75
    assert "red.png" in result.pictures[0].caption


def test_no_segment_that_is_left_can_be_spared(network, stimuli):
    prepared = Pixels.of(network)
    picture = prepared.to_pictures(network.preprocess(stimuli.read(2))[None])
    parts = Parts(network, prepared, Unit("relu", 0), picture, 8)
    rows, columns = np.indices((SIZE, SIZE)) // 4
    labels = torch.from_numpy(rows * 8 + columns)
    nothing, whole = parts.ends()
    with torch.inference_mode():
        direct = network.module(network.preprocess(stimuli.read(2))[None])[0, 0].mean()
    assert whole == pytest.approx(float(direct), rel=1e-5)
    kept = fewest(parts, labels, 0.7)
    # Of the square's six cells of equal weight, five keep 83 %, four 67 %.
    assert len(kept) == 5
    for gone in kept:
        mask = torch.isin(labels, torch.tensor([one for one in kept if one != gone]))[None, None].float()
        assert parts.given(mask)[0] < nothing + 0.7 * (whole - nothing)


def test_segments_are_of_one_colour_and_lie_together(stimuli):
    pixels = np.asarray(stimuli.read(2))
    labels = segmented(pixels, 16)
    assert set(np.unique(labels)) == set(range(labels.max() + 1)) and 8 <= labels.max() + 1 <= 16
    rows, columns = np.indices(labels.shape)
    for number in range(labels.max() + 1):
        own = labels == number
        assert np.ptp(pixels[own].astype(int), axis=0).max() <= 1
        assert max(np.ptp(rows[own]), np.ptp(columns[own])) < 20


def test_a_picture_that_says_nothing_is_kept_whole(network, stimuli):
    for make in (minimal_image, masked_image):
        result = make(network, stimuli, units=[Unit("relu", 0)], start="grey.png")
        row = result.tables[result.analysis].iloc[0]
        assert row["area"] == 1 and np.isnan(row["kept"]) and "keeps none" in result.pictures[0].caption


@pytest.mark.parametrize(
    ("make", "more", "kind", "said"),
    [
        (minimal_image, {"keep": 0}, ValueError, "keep, batch: expected"),
        (minimal_image, {"segments": 1}, ValueError, "segments: expected"),
        (masked_image, {"grid": 1}, ValueError, "grid, area, smooth: expected"),
        (masked_image, {"start": "no.png"}, ConfigError, "no stimulus and no file"),
        (masked_image, {"units": []}, ConfigError, "name units"),
    ],
)
def test_what_cannot_be_done_is_said(network, stimuli, make, more, kind, said):
    with pytest.raises(kind, match=said):
        make(network, stimuli, **{"units": [Unit("relu", 0)], **more})
