"""Arrays as pictures: sheets of small ones, numbers as colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps

GAP = 4
"""Pixels between the tiles of a sheet."""
PAPER = 255


def coloured(
    values: np.ndarray, *, low: float | None = None, high: float | None = None, colours: str = "magma"
) -> np.ndarray:
    """Numbers as colours, from the lowest to the highest.

    Parameters
    ----------
    values : ndarray, shape (height, width)
    low, high : float, optional
        Ends of the scale; default: those of the values.
    colours : str
        A map of matplotlib.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    low = float(np.nanmin(values)) if low is None else low
    high = float(np.nanmax(values)) if high is None else high
    scaled = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values, dtype=float)
    return np.round(255 * colormaps[colours](scaled)[..., :3]).astype(np.uint8)


def seen_picture(given: np.ndarray) -> np.ndarray:
    """A network's input as a picture: cut out as the network is given it, its contrast stretched to what can be shown.

    Parameters
    ----------
    given : ndarray, shape (channels, height, width)
        One channel, or three, normalised in any way.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    values = np.moveaxis(np.asarray(given, dtype=np.float64)[:3], 0, -1)
    values = values.repeat(3, -1) if values.shape[-1] == 1 else values
    low, high = float(values.min()), float(values.max())
    return np.round(255 * (values - low) / (high - low if high > low else 1)).astype(np.uint8)


def enlarged(picture: np.ndarray, size: int) -> np.ndarray:
    """Repeat pixels until the longer side is as near to a size as whole repetitions come, and not smaller than it was.

    Parameters
    ----------
    picture : ndarray, shape (height, width, ...)
    size : int

    Returns
    -------
    ndarray
    """
    times = max(1, round(size / max(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)


def sheet(rows: Sequence[Sequence[np.ndarray]], *, gap: int = GAP) -> np.ndarray:
    """Lay small pictures out in rows, each centred in a tile of one size.

    Parameters
    ----------
    rows : sequence of sequence of ndarray of uint8, shape (height, width, 3)
        Rows may have different lengths.
    gap : int
        White pixels around each.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    tiles = [tile for row in rows for tile in row]
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    longest = max(len(row) for row in rows)
    size = (len(rows) * (height + gap) + gap, longest * (width + gap) + gap, 3)
    out = np.full(size, PAPER, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top = gap + i * (height + gap) + (height - tile.shape[0]) // 2
            left = gap + j * (width + gap) + (width - tile.shape[1]) // 2
            out[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return out
