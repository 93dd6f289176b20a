"""Low-level features of pictures: of each frame (n, height, width, 3) in uint8, one row.

Light is what a screen of the sRGB standard sends out, so that averages over pixels are physical.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

GRID = 4
"""Cells along each side, in which a feature is averaged."""
SIDE = 128
"""Pixels along each side to which pictures are brought for edges."""
CELL = 16
"""Pixels along each side of a cell of gradients."""
ORIENTATIONS = 9
HUES = 12
WAVELENGTHS = (4.0, 8.0, 16.0, 32.0)
"""Of the Gabor filters, in pixels of a picture `SIDE` wide: 32, 16, 8 and 4 cycles a picture."""
DIRECTIONS = 8
"""Orientations of the Gabor filters."""
RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Of IEC 61966-2-1, for the white D65."""


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames: expected uint8 of shape (n, height, width, 3), got {frames.dtype}, {frames.shape}")
    return frames


def _linear(frames: np.ndarray) -> np.ndarray:
    """Light of each channel, from 0 to 1: the sRGB curve undone."""
    values = np.arange(256) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.asarray(table[frames])


def relative_luminance(frames: np.ndarray) -> np.ndarray:
    """Compute the luminance of each pixel, with white as 1.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, height, width)
    """
    return np.asarray(_linear(_checked(frames)) @ RGB_TO_XYZ[1])


def _cells(values: np.ndarray) -> np.ndarray:
    """Mean in each cell of the grid, shape (n, GRID * GRID), cells along rows first."""
    tensor = torch.as_tensor(values, dtype=torch.float64)[:, None]
    return torch.nn.functional.adaptive_avg_pool2d(tensor, GRID).flatten(1).numpy()


def luminance(frames: np.ndarray) -> np.ndarray:
    """Luminance was averaged over the picture and in each cell of a 4 x 4 grid.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, 17)
        The whole picture's first; white is 1.
    """
    light = relative_luminance(frames)
    return np.column_stack([light.mean(axis=(1, 2)), _cells(light)])


def contrast(frames: np.ndarray) -> np.ndarray:
    """Contrast was the standard deviation of luminance, over the picture and in each cell of a 4 x 4 grid.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, 17)
        The whole picture's first; half black and half white is 0.5.

    Notes
    -----
    Peli E. Contrast in complex images. J Opt Soc Am A 1990;7:2032-2040.
    """
    light = relative_luminance(frames)
    local = np.sqrt(np.maximum(_cells(light**2) - _cells(light) ** 2, 0))
    return np.column_stack([light.std(axis=(1, 2)), local])


def colour(frames: np.ndarray) -> np.ndarray:
    """Colour was the mean and spread of CIELAB's three axes, and a histogram of hue weighted by chroma.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, 18)
        Means of L*, a*, b*; their standard deviations; the mean chroma in each of 12 sectors of hue, the first
        beginning at +a* (red).
    """
    xyz = _linear(_checked(frames)) @ RGB_TO_XYZ.T / RGB_TO_XYZ.sum(axis=1)
    # CIE 15: a cube root, with a line below (6/29)^3.
    curved = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack(
        [116 * curved[..., 1] - 16, 500 * (curved[..., 0] - curved[..., 1]), 200 * (curved[..., 1] - curved[..., 2])],
        axis=-1,
    ).reshape(len(frames), -1, 3)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    sector = np.floor(np.arctan2(lab[..., 2], lab[..., 1]) / (2 * np.pi) * HUES).astype(int) % HUES
    hue = np.stack([np.where(sector == k, chroma, 0).mean(axis=1) for k in range(HUES)], axis=1)
    return np.concatenate([lab.mean(axis=1), lab.std(axis=1), hue], axis=1)


def _square(frames: np.ndarray, side: int) -> np.ndarray:
    """Luminance as the eye scales it, roughly its cube root, of pictures brought to a square; shape (n, side, side)."""
    light = torch.as_tensor(np.cbrt(relative_luminance(frames)))[:, None]
    return interpolate(light, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[:, 0].numpy()


def gabor(frames: np.ndarray) -> np.ndarray:
    """Energy of Gabor filters at 4 scales and 8 orientations was averaged in each cell of a 4 x 4 grid.

    Filters are Gaussian in frequency, one octave and 45 degrees wide at half height, without response to a constant;
    the energy is the root of the summed squares of the two phases. Pictures are brought to 128 x 128, without regard to
    their proportions, and continued by their mirror image.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, 4 * 8 * 16)
        From 32 cycles a picture to 4; within a scale, from vertical edges on, by 22.5 degrees; within an
        orientation, by cell.

    Notes
    -----
    Daugman J. J Opt Soc Am A 1985;2:1160-1169.
    """
    pad = SIDE // 2
    light = np.pad(_square(frames, SIDE), ((0, 0), (pad, pad), (pad, pad)), mode="symmetric")
    spectrum = np.fft.fft2(light - light.mean(axis=(1, 2), keepdims=True))
    inner = slice(pad, pad + SIDE)
    found = [
        _cells(np.abs(np.fft.ifft2(spectrum * kernel))[:, inner, inner])
        for wavelength in WAVELENGTHS
        for kernel in _gabor_kernels(2 * SIDE, wavelength)
    ]
    return np.concatenate(found, axis=1)


def _gabor_kernels(side: int, wavelength: float) -> list[np.ndarray]:
    """Transfer functions of one scale: one lobe each, so that the response is complex, its phases a quarter apart."""
    down, across = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    centre = 1 / wavelength
    # Half height at centre * 2^(-1/2) and 2^(1/2) on average, and at 22.5 degrees to either side.
    along = centre * (2**0.5 - 2**-0.5) / 2 / np.sqrt(2 * np.log(2))
    beside = centre * np.tan(np.pi / 8) / np.sqrt(2 * np.log(2))
    kernels = []
    for k in range(DIRECTIONS):
        angle = np.pi * k / DIRECTIONS
        u = across * np.cos(angle) + down * np.sin(angle) - centre
        v = -across * np.sin(angle) + down * np.cos(angle)
        kernel = 2 * np.exp(-(u**2) / (2 * along**2) - v**2 / (2 * beside**2))
        kernel[0, 0] = 0
        kernels.append(kernel)
    return kernels


def hog(frames: np.ndarray) -> np.ndarray:
    """Histograms of 9 orientations of gradients were taken in 8 x 8 cells of the picture, in blocks of 2 x 2.

    Pictures are brought to 128 x 128. Gradients are central differences of the luminance's cube root; each votes by
    its size for one orientation; blocks are normalised by L2, clipped at 0.2 and normalised again.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    ndarray, shape (n, 7 * 7 * 2 * 2 * 9)

    Notes
    -----
    Dalal N, Triggs B. CVPR 2005:886-893.
    """
    return np.array([_blocks(_histograms(light)) for light in _square(frames, SIDE)])


def _histograms(light: np.ndarray) -> np.ndarray:
    """Mean size of the gradient by orientation in each cell, shape (cells, cells, ORIENTATIONS)."""
    down, across = np.zeros_like(light), np.zeros_like(light)
    down[1:-1] = light[2:] - light[:-2]
    across[:, 1:-1] = light[:, 2:] - light[:, :-2]
    size = np.hypot(down, across)
    turn = np.rad2deg(np.arctan2(down, across)) % 180
    which = np.minimum(turn // (180 / ORIENTATIONS), ORIENTATIONS - 1)
    votes = np.where(which[..., None] == np.arange(ORIENTATIONS), size[..., None], 0)
    n = SIDE // CELL
    return np.asarray(votes.reshape(n, CELL, n, CELL, ORIENTATIONS).mean(axis=(1, 3)))


def _blocks(cells: np.ndarray) -> np.ndarray:
    n = len(cells) - 1
    blocks = np.stack([cells[i : i + n, j : j + n] for i in (0, 1) for j in (0, 1)], axis=2).reshape(n, n, -1)
    for clip in (0.2, None):
        blocks = blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + 1e-10)
        blocks = blocks if clip is None else np.minimum(blocks, clip)
    return np.asarray(blocks.ravel())
