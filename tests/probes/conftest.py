"""Pictures of two squares, and a small network with small receptive fields, that training is tested on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Stimuli

SIZE, N = 32, 240


class Local(nn.Module):
    """Small receptive fields, whose mean over the picture is a sum over its objects, and units that read the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, stride=2, padding=1, padding_mode="circular")
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(12, 24, 3, stride=2, padding=1, padding_mode="circular")
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(24, 32)
        self.relu3 = nn.ReLU()

    def forward(self, x):
        maps = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.relu3(self.fc(maps.mean((2, 3))))


def build(*, weights: str = "none", seed: int = 0) -> Network:
    torch.manual_seed(seed)

    def preprocess(image):
        pixels = np.asarray(image.resize((SIZE, SIZE)), dtype=np.float32).transpose(2, 0, 1)
        return torch.from_numpy(pixels / 127.5 - 1)

    return Network("local", Local().eval(), preprocess, f"{SIZE} pixels", weights, seed, f"seed{seed}")


@pytest.fixture(scope="package")
def squares(tmp_path_factory) -> tuple[Stimuli, dict[str, pd.DataFrame]]:
    """Two far squares, each red or green: are they of one colour? (An exclusive or: linear in no sum over objects.)"""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(N):
        colours = (number // 2 % 2, number % 2)
        pixels = np.full((SIZE, SIZE, 3), 128, dtype=np.uint8)
        top, left = rng.integers(0, SIZE, 2)
        for k, colour in enumerate(colours):
            place = np.ix_((top + np.arange(6)) % SIZE, (left + 16 * k + np.arange(6)) % SIZE)
            pixels[place] = [(255, 0, 0), (0, 255, 0)][colour]
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        rows.append((f"{number:03}.png", "same" if colours[0] == colours[1] else "other", str(sum(colours))))
    table = pd.DataFrame(rows, columns=["stimulus_id", "same", "green"])
    columns = {name: table[["stimulus_id", name]].rename(columns={name: "value"}) for name in ("same", "green")}
    return Stimuli.from_folder(folder).with_hashes(), columns
