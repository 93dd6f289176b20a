"""What a unit loses where a part of its input is covered: every place of a patch, in batches.

Positions of one stimulus share all that lies outside the patch. Where a network is convolutional, only the places
that the patch reaches are computed anew (`bidsdnn.probes.windows`), layer by layer, until they fill the map.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidsdnn.probes.fields import picture_axes
from bidsdnn.probes.gradients import Score
from bidsdnn.probes.windows import Windows, alike

logger = logging.getLogger(__name__)

POSITIONS = 64
"""Copies of a stimulus that run together."""
AGREES = 1e-3
"""What covered copies may differ by from those computed in full, in units of the largest change; and by rounding."""


@dataclass(frozen=True)
class Grid:
    """Where a patch is laid: from the first pixel on, a step apart, until the last pixel is covered.

    Parameters
    ----------
    lengths : tuple of int
        Of the input, along the axes of the picture.
    size, step : tuple of int
        Of the patch, in pixels.
    """

    lengths: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many positions there are, by axis."""
        steps = zip(self.lengths, self.size, self.step, strict=True)
        return tuple(-(-max(length - size, 0) // step) + 1 for length, size, step in steps)

    @property
    def boxes(self) -> list[tuple[tuple[int, int], ...]]:
        """First pixel, and one after the last, by axis; of each position. The last ones end with the picture."""
        sides = [
            [(k * step, min(k * step + size, length)) for k in range(n)]
            for n, length, size, step in zip(self.shape, self.lengths, self.size, self.step, strict=True)
        ]
        return list(product(*sides))

    def spread(self, drops: Tensor) -> Tensor:
        """Give each pixel the mean over the patches that cover it.

        Parameters
        ----------
        drops : Tensor, shape (..., n_positions)

        Returns
        -------
        Tensor, shape (..., *lengths)
        """
        total, times = drops.new_zeros(*drops.shape[:-1], *self.lengths), drops.new_zeros(self.lengths)
        more = [1] * len(self.lengths)
        for k, box in enumerate(self.boxes):
            place = tuple(slice(low, high) for low, high in box)
            there: tuple[Any, ...] = (..., *place)
            total[there] += drops[..., k].reshape(*drops.shape[:-1], *more)
            times[place] += 1
        return total / times.clamp_min(1)


def grid_of(shape: Sequence[int], *, size: int, step: int) -> Grid:
    """Lay out the positions of a patch over a stimulus.

    Parameters
    ----------
    shape : sequence of int
        Of the network's input, without the batch.
    size, step : int
        Of the patch along each axis of a picture, in pixels (or samples); all frames of a film are covered.

    Returns
    -------
    Grid

    Raises
    ------
    ValueError
        If the patch is larger than the picture.
    """
    lengths = tuple(shape[axis - 1] for axis in picture_axes(shape))
    film = len(lengths) == 3
    sides = lengths[1:] if film else lengths
    if not 0 < size <= min(sides) or not 0 < step <= size:
        raise ValueError(
            f"occlusion: a patch of {size} pixels every {step} does not cover {' x '.join(map(str, sides))} pixels; "
            f"give a size up to {min(sides)}, and a step up to the size"
        )
    before = lengths[:1] if film else ()
    return Grid(lengths, (*before, *[size] * len(sides)), (*before, *[step] * len(sides)))


@dataclass(eq=False)
class Occluder:
    """Covers stimuli at every position of a grid and measures what units lose.

    Parameters
    ----------
    score : callable
    grid : Grid
    fill : float
        What the patch shows, in the network's numbers: of normalised pictures 0 is the mean colour.
    batch_size : int
        Positions that run together.
    local : bool
        Whether only the places that a patch reaches are computed, where the network allows it.
    within : tuple of (int, int), optional
        First pixel and one after the last, by axis, of what the units see: patches elsewhere change nothing, and are
        not computed.
    """

    score: Score
    grid: Grid
    fill: float = 0.0
    batch_size: int = POSITIONS
    local: bool = True
    within: tuple[tuple[int, int], ...] | None = None
    _windows: Windows | None = field(default=None, repr=False)

    def __call__(self, stimulus: Tensor) -> tuple[Tensor, Tensor]:
        """The drop of units was measured where a patch covers the stimulus (Zeiler & Fergus 2014).

        Parameters
        ----------
        stimulus : Tensor, shape (...)

        Returns
        -------
        drops : Tensor, shape (n_units, n_positions)
            What a unit gives for the stimulus, minus what it gives for the covered one.
        values : Tensor, shape (n_units,)
            For the stimulus.
        """
        boxes = self.grid.boxes
        with torch.no_grad():
            values = self.score(stimulus[None].clone())[0]
            if self.local and self._windows is None:
                self._windows = self._checked(stimulus, values)
            if self.local and self._windows:
                self._windows.look_at(stimulus)
            there = [k for k, box in enumerate(boxes) if self._touches(box)]
            drops = values.new_zeros(len(values), len(boxes))
            for some in alike([boxes[k] for k in there], self.grid.lengths, self.batch_size) if there else ():
                piece = [there[k] for k in some]
                drops[:, piece] = (values - self._run(stimulus, [boxes[k] for k in piece])).T
        return drops, values

    def _touches(self, box: Sequence[tuple[int, int]]) -> bool:
        if self.within is None:
            return True
        return all(a < high and low < b for (a, b), (low, high) in zip(box, self.within, strict=True))

    def _run(self, stimulus: Tensor, boxes: Sequence[tuple[tuple[int, int], ...]]) -> Tensor:
        if self.local and self._windows:
            return self._windows(boxes)
        return self._whole(stimulus, boxes)

    def _whole(self, stimulus: Tensor, boxes: Sequence[tuple[tuple[int, int], ...]]) -> Tensor:
        covered = stimulus.expand(len(boxes), *stimulus.shape).clone()
        for copy, box in zip(covered, boxes, strict=True):
            copy[(..., *[slice(*side) for side in box])] = self.fill
        return self.score(covered)

    def _checked(self, stimulus: Tensor, values: Tensor) -> Windows | None:
        """Windows on the network, if they give what the whole pictures give at some positions."""
        boxes = [box for box in self.grid.boxes if self._touches(box)]
        some = [boxes[k] for k in np.unique(np.linspace(0, len(boxes) - 1, 5).astype(int))]
        if stimulus.ndim != 3:
            self.local = False
            return None
        windows = Windows(self.score, self.grid.size, self.fill)
        try:
            windows.look_at(stimulus)
            found = windows(some, most=2)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            logger.info("occlusion computes whole pictures: the network cannot be computed in parts (%s)", error)
            self.local = False
            return None
        expected = self._whole(stimulus, some)
        rounding = 32 * torch.finfo(values.dtype).eps * values.abs().max()
        if (found - expected).abs().max() > AGREES * (values - expected).abs().max() + rounding:
            logger.info("occlusion computes whole pictures: parts of the network do not give the same")
            self.local = False
            return None
        return windows


def occlusion(
    score: Score, batch: Tensor, *, size: int, step: int, fill: float = 0.0, batch_size: int = POSITIONS
) -> tuple[Tensor, Tensor]:
    """The drop of units was measured where a patch covers stimuli (Zeiler & Fergus 2014); pixels have the mean.

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)
    size, step : int
        Of the patch, in pixels.
    fill : float
        What it shows, in the network's numbers.
    batch_size : int
        Positions that run together.

    Returns
    -------
    maps : Tensor, shape (n_units, n, *lengths)
    values : Tensor, shape (n, n_units)
    """
    occluder = Occluder(score, grid_of(batch.shape[1:], size=size, step=step), fill, batch_size)
    found = [occluder(stimulus) for stimulus in batch]
    maps = torch.stack([occluder.grid.spread(drops) for drops, _ in found], 1)
    return maps, torch.stack([values for _, values in found])
