"""Maps over a network's input: kept on disk where they are many, said in numbers, and shown over the stimulus."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from bidsdnn.probes.pictures import coloured, enlarged

IN_MEMORY = 2**28
"""Bytes of maps from which on they wait in a file that has no name."""
SIDE = 224
"""Pixels of a tile's longer side, about."""
SIGNED, POSITIVE = "bwr", "magma"


def room(shape: Sequence[int]) -> np.ndarray:
    """An array of float32 for maps; a large one is a file, which goes with it.

    Parameters
    ----------
    shape : sequence of int

    Returns
    -------
    ndarray
    """
    if 4 * prod(shape) <= IN_MEMORY:
        return np.zeros(tuple(shape), dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * prod(shape))
        return np.memmap(file, dtype=np.float32, mode="r+", shape=tuple(shape))


def summary(values: np.ndarray) -> dict[str, Any]:
    """Say a map in numbers.

    Parameters
    ----------
    values : ndarray
        Of any number of axes.

    Returns
    -------
    dict of str to number or str
        ``sum``; ``largest``, the value that is farthest from zero, and ``peak``, its place; ``centre``, the place of
        the mean absolute value; ``half``, the smallest share of the pixels that holds half of the absolute sum (0.5
        where all are equal).
    """
    size = np.abs(values, dtype=np.float64)
    total = float(size.sum())
    peak = np.unravel_index(int(size.argmax()), size.shape)
    found: dict[str, Any] = {
        "sum": float(values.sum(dtype=np.float64)), "largest": float(values[peak]), "peak": place(peak),
    }  # fmt: skip
    if total == 0:
        return {**found, "centre": "n/a", "half": np.nan}
    centres = [
        float((size.sum(tuple(other for other in range(size.ndim) if other != axis)) * np.arange(length)).sum() / total)
        for axis, length in enumerate(size.shape)
    ]
    shares = np.cumsum(np.sort(size, axis=None)[::-1]) / total
    return {**found, "centre": place(centres), "half": float((np.searchsorted(shares, 0.5) + 1) / size.size)}


def place(numbers: Sequence[Any]) -> str:
    """A place in a map, as texts have it: row, column."""
    return ",".join(f"{float(number):.1f}".removesuffix(".0") for number in numbers)


def flat(values: np.ndarray) -> np.ndarray:
    """Make two axes of a map that has others: of a film the middle frame, of a waveform a strip of its largest values.

    Parameters
    ----------
    values : ndarray, shape (rows, columns), (frames, rows, columns) or (samples,)

    Returns
    -------
    ndarray, shape (rows, columns)
    """
    if values.ndim == 3:
        return values[values.shape[0] // 2]
    if values.ndim == 1:
        bins = np.array_split(values, min(SIDE, len(values)))
        largest = np.array([one[np.abs(one).argmax()] for one in bins])
        return np.repeat(largest[None], max(1, len(largest) // 6), 0)
    return values


def seen(stimulus: np.ndarray) -> np.ndarray:
    """Show a network's input as a picture, from its smallest number to its largest.

    Parameters
    ----------
    stimulus : ndarray, shape (channels, ...) or (samples,)

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    parts = [stimulus] if stimulus.ndim == 1 else list(stimulus)
    planes = np.stack([flat(part) for part in (parts if len(parts) == 3 else [np.mean(parts, 0)])], -1)
    low, high = float(planes.min()), float(planes.max())
    scaled = (planes - low) / (high - low) if high > low else np.zeros_like(planes)
    return enlarged(np.broadcast_to(np.round(255 * scaled).astype(np.uint8), (*planes.shape[:2], 3)), SIDE)


def over(values: np.ndarray, picture: np.ndarray, *, signed: bool) -> np.ndarray:
    """Lay a map over a grey picture: the farther from zero, the less the picture shines through.

    Parameters
    ----------
    values : ndarray
        Two axes after `flat`.
    picture : ndarray of uint8, shape (height, width, 3)
        Of `seen`.
    signed : bool
        Whether the colours go from blue (negative) over white to red, or from black to yellow. A signed map of
        many pixels is spread to the neighbours of each, as single ones of both signs cannot be told apart.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    values = flat(values)
    if signed and max(values.shape) > SIDE // 2:
        values = spread(values)
    end = scale(values)
    colours = coloured(values, low=-end if signed else 0.0, high=end, colours=SIGNED if signed else POSITIVE)
    size = picture.shape[0] // values.shape[0], picture.shape[1] // values.shape[1]
    colours = colours.repeat(size[0], 0).repeat(size[1], 1)
    weight = np.clip(np.abs(values) / end, 0, 1) if end else np.zeros_like(values)
    weight = (0.25 + 0.75 * np.sqrt(weight)).repeat(size[0], 0).repeat(size[1], 1)[..., None]
    grey = picture.mean(-1, keepdims=True)
    return np.round(weight * colours + (1 - weight) * grey).astype(np.uint8)


def spread(values: np.ndarray) -> np.ndarray:
    """Give each pixel what is farthest from zero among it and its eight neighbours.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)

    Returns
    -------
    ndarray, shape (rows, columns)
    """
    around = np.stack([maximum_filter(values, 3), minimum_filter(values, 3)])
    return np.where(around[0] >= -around[1], around[0], around[1])


def scale(values: np.ndarray) -> float:
    """Where the colours of a map end: at the 99.5th percentile of its absolute values, or the largest if that is 0."""
    size = np.abs(values)
    return float(np.percentile(size, 99.5)) or float(size.max())


def bar(width: int, *, signed: bool, height: int = 12) -> np.ndarray:
    """A strip of a scale's colours, from its low end on the left to its high one.

    Parameters
    ----------
    width : int
    signed : bool
    height : int

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    ramp = np.repeat(np.linspace(-1.0 if signed else 0.0, 1.0, width)[None], height, 0)
    return coloured(ramp, colours=SIGNED if signed else POSITIVE)
