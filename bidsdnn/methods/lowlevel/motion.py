"""Motion in films: how fast, and where to."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from bidsdnn.methods.lowlevel.pictures import _square

SIDE = 64
"""Pixels along each side to which frames are brought."""
LEVELS = (4, 2, 1)
"""How many times smaller the frames are in each pass, coarse to fine."""
SMOOTHNESS = 1.0
"""The weight of the field's smoothness, in root mean squares of the picture's gradient: contrast does not matter."""
ITERATIONS, WARPS = 30, 3
SECTORS = 8
PAIRS = 32
"""Pairs of frames that are compared at once."""
_AROUND = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float64).expand(2, 1, 3, 3) / 12


def optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow was estimated after Horn and Schunck, coarse to fine.

    Parameters
    ----------
    first, second : ndarray, shape (n, height, width)
        Brightness of pairs of frames; sides divisible by 4.

    Returns
    -------
    ndarray, shape (n, 2, height, width)
        Pixels that each point moves right, and down.

    Notes
    -----
    Horn BKP, Schunck BG. Determining optical flow. Artif Intell 1981;17:185-203.
    """
    n, height, width = first.shape
    field = torch.zeros(n, 2, height // LEVELS[0], width // LEVELS[0], dtype=torch.float64)
    for level in LEVELS:
        one, two = (_shrunk(frames, level) for frames in (first, second))
        if field.shape[2:] != one.shape[2:]:
            field = 2 * interpolate(field, scale_factor=2, mode="bilinear", align_corners=False)
        for _ in range(WARPS):  # the equation is linear in small steps; each warp leaves a smaller one
            field = _refined(one, two, field)
    return field.numpy()


def _shrunk(frames: np.ndarray, level: int) -> Tensor:
    blurred = gaussian_filter(frames, level / 2, axes=(1, 2), mode="nearest")
    return torch.as_tensor(np.ascontiguousarray(blurred[:, None, ::level, ::level]))


def _refined(one: Tensor, two: Tensor, start: Tensor) -> Tensor:
    """The field after one linearisation about `start`."""
    height, width = one.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([columns + start[:, 0], rows + start[:, 1]], dim=-1)
    at = 2 * at / torch.tensor([width - 1.0, height - 1.0], dtype=torch.float64) - 1
    moved = grid_sample(two, at, mode="bilinear", padding_mode="border", align_corners=True)
    down, across = torch.gradient((one + moved)[:, 0] / 2, dim=(1, 2))
    gradient, change = torch.stack([across, down], dim=1), moved - one
    size = (gradient**2).sum(dim=1, keepdim=True)
    weight = SMOOTHNESS**2 * size.mean(dim=(2, 3), keepdim=True) + size + 1e-12
    field = start
    for _ in range(ITERATIONS):
        around = conv2d(pad(field, (1, 1, 1, 1), mode="replicate"), _AROUND, groups=2)
        wrong = (gradient * (around - start)).sum(dim=1, keepdim=True) + change
        field = around - gradient * wrong / weight
    return field


def flow(frames: np.ndarray, fps: float) -> np.ndarray:
    """Motion was optical flow: mean and spread of speed, mean velocity, and mean speed in 8 sectors of direction.

    Frames are brought to 64 x 64, without regard to their proportions.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)
        At least 2.
    fps : float
        Frames a second.

    Returns
    -------
    ndarray, shape (12,)
        In sides of the picture a second, over pixels and pairs of successive frames: mean and standard deviation of
        speed; mean velocity to the right, and down; mean speed in each sector, the first centred on the right, the
        others clockwise.

    Raises
    ------
    ValueError
        If there is one frame only.
    """
    if len(frames) < 2:
        raise ValueError("frames: expected at least 2 to see motion, got 1")
    light = _square(frames, SIDE)
    found = [
        optical_flow(light[k : k + PAIRS][: len(light) - 1 - k], light[k + 1 : k + 1 + PAIRS])
        for k in range(0, len(light) - 1, PAIRS)
    ]
    fields = np.concatenate(found) * fps / SIDE
    right, down = fields[:, 0].ravel(), fields[:, 1].ravel()
    speed = np.hypot(right, down)
    sector = np.round(np.arctan2(down, right) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    sectors = np.bincount(sector, weights=speed, minlength=SECTORS) / len(speed)
    return np.concatenate([[speed.mean(), speed.std(), right.mean(), down.mean()], sectors])
