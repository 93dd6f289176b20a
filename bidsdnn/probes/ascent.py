"""Gradient ascent on what units give, many pictures side by side, each for a unit of its own.

Pictures share nothing but the pass through the network: each has its own noise, its own moves and its own steps of
Adam, so that a picture made beside 63 others is the one that is made alone, but for rounding. One that meets NaN stops
where it was last well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bidsdnn.probes.canvas import Canvas, moved, roughness

_DECAY = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True)
class Climb:
    """How pictures are changed.

    Parameters
    ----------
    steps : int
    rate : float
        Of Adam (Kingma & Ba, 2015).
    jitter : float
        Largest shift in a step, as a share of the side.
    scaling : float
        Largest change of size in a step: 0.1 for 0.9 to 1.1.
    rotation : float
        Largest turn in a step, in degrees.
    tv, l1, l2 : float
        Weights of total variation, and of the mean absolute and squared distance from grey; in standard deviations of
        the unit over the stimuli, of which what it gives is measured.
    diversity : float
        Weight of how alike the pictures of one unit are.
    contrast : float
        Of a class: weight of what another class is driven more, or less than a standard deviation less.
    """

    steps: int = 256
    rate: float = 0.05
    jitter: float = 0.03
    scaling: float = 0.1
    rotation: float = 5.0
    tv: float = 0.5
    l1: float = 0.0
    l2: float = 0.5
    diversity: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, got {self.steps}")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate: expected more than 0, got {self.rate}")
        if not 0 <= self.scaling < 1:
            raise ValueError(f"scaling: expected 0 to less than 1, got {self.scaling}")
        for name in ("jitter", "rotation", "tv", "l1", "l2", "diversity", "contrast"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")

    def moves(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw the moves of all steps, shape (steps, n, 4), as `canvas.moved` takes them.

        They shrink to none, which the last tenth of the steps is without: what is reached where a picture moves about
        is robust, and what it gives where it stays is its score.
        """
        each = [2 * torch.rand(self.steps, 4, generator=one) - 1 for one in generators]
        turn = self.rotation * torch.pi / 180
        fading = (1 - torch.arange(self.steps) / (0.9 * self.steps)).clamp(min=0)[:, None, None]
        found = fading * torch.stack(each, 1) * torch.tensor([self.jitter, self.jitter, self.scaling, turn])
        return found + torch.tensor([0.0, 0.0, 1.0, 0.0])

    @property
    def moving(self) -> bool:
        """Whether pictures are moved at all."""
        return bool(self.jitter or self.scaling or self.rotation)


@dataclass(frozen=True, eq=False)
class Reached:
    """Pictures at the end of an ascent.

    Parameters
    ----------
    pictures : Tensor, shape (n, 3, height, width)
        From 0 to 1.
    curve : ndarray of float32, shape (steps, n)
        What each unit gave in each step for its moved picture, in standard deviations; NaN after a stop.
    stopped : ndarray of int, shape (n,)
        Step in which NaN or infinity was met, and from which the picture stayed as it was before; -1 if none was.
    """

    pictures: Tensor
    curve: np.ndarray
    stopped: np.ndarray


def ascend(
    drive: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    canvas: Canvas,
    climb: Climb,
    generators: Sequence[torch.Generator],
) -> Reached:
    """Change pictures so that each drives its unit more.

    Parameters
    ----------
    drive : callable
        From pictures, shape (n, 3, height, width), to what picture i's unit gives for it, shape (n,), in standard
        deviations, and how alike it is to the others of its unit, shape (n,), or None.
    canvas : Canvas
    climb : Climb
    generators : sequence of torch.Generator
        One a picture, on the CPU; the moves are drawn from them.

    Returns
    -------
    Reached
    """
    values = canvas.values.detach().clone()
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    good = values.clone()
    n = len(values)
    alive = torch.ones(n, dtype=torch.bool, device=values.device)
    stopped, curve = np.full(n, -1), np.full((climb.steps, n), np.nan, dtype=np.float32)
    moves = climb.moves(generators).to(values.device)
    for step in range(climb.steps):
        values.requires_grad_()
        pictures = canvas.pictures(values)
        given, alike = drive(moved(pictures, moves[step]) if climb.moving else pictures)
        aim = given - _penalties(pictures, climb)
        if climb.diversity and alike is not None:
            aim = aim - climb.diversity * alike
        finite = torch.isfinite(aim)
        (gradient,) = torch.autograd.grad(torch.where(finite & alive, aim, 0).sum(), values)
        values = values.detach()
        finite &= torch.isfinite(gradient).flatten(1).all(1)
        lost = alive & ~finite
        stopped[lost.cpu().numpy()] = step
        alive = alive & finite
        shape = (n, *[1] * (values.ndim - 1))
        values = torch.where(lost.reshape(shape), good, values)
        curve[step] = torch.where(alive, given.detach(), torch.nan).float().cpu().numpy()
        if not alive.any():
            break
        good = values.clone()
        gradient = torch.where(alive.reshape(shape), gradient, 0)
        first = _DECAY[0] * first + (1 - _DECAY[0]) * gradient
        second = _DECAY[1] * second + (1 - _DECAY[1]) * gradient**2
        size = (second / (1 - _DECAY[1] ** (step + 1))).sqrt() + _EPSILON
        change = climb.rate * (first / (1 - _DECAY[0] ** (step + 1))) / size
        values = torch.where(alive.reshape(shape), values + change, values)
    with torch.no_grad():
        drawn = canvas.pictures(values)
    return Reached(drawn.detach(), curve, stopped)


def _penalties(pictures: Tensor, climb: Climb) -> Tensor:
    """Weighted total variation and distance from grey, shape (n,)."""
    total = torch.zeros(len(pictures), device=pictures.device)
    if climb.tv:
        total = total + climb.tv * roughness(pictures)
    if climb.l1:
        total = total + climb.l1 * (pictures - 0.5).abs().flatten(1).mean(1)
    if climb.l2:
        total = total + climb.l2 * ((pictures - 0.5) ** 2).flatten(1).mean(1)
    return total


def likeness(features: Tensor) -> Tensor:
    """Mean cosine of each picture's features with those of the others.

    Parameters
    ----------
    features : Tensor, shape (n, ...)

    Returns
    -------
    Tensor, shape (n,)
        0 of a single picture.
    """
    unit = functional.normalize(features.flatten(1), dim=1)
    return (unit * (unit.sum(0) - unit)).sum(1) / max(len(unit) - 1, 1)
