"""Optimal stimuli: pictures that are made to drive a unit, by gradient ascent from noise or from a picture.

The one idea: what is climbed is regularised, moved about and begun many times; what is reported is the picture as a
file holds it, as the network's input, beside the best of the stimuli that were shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import resolve
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import first_tensor
from bidsdnn.parallel import seed_for
from bidsdnn.probes.ascent import Climb, Reached, ascend, likeness
from bidsdnn.probes.canvas import Canvas, Fourier, Generated, Pixelwise, colour_mixing
from bidsdnn.probes.driving import channels, check_gradient, check_precision, frozen, own_drive
from bidsdnn.probes.made import made_picture, made_table, natural_drive, score, start_picture
from bidsdnn.probes.pixels import Pixels, to_bytes
from bidsdnn.probes.units import BRAIN, Unit, layer_shape
from bidsdnn.result import Result
from bidsdnn.stimuli import Stimuli, pixels

CANVASES = ("fourier", "pixels")
_COARSE = 16
"""Side of the pictures by which those of a unit without positions are told from each other."""
_COLOURED = 64
"""Stimuli that the covariance of colours is taken from."""


def optimal_stimulus(
    network: Network,
    stimuli: Stimuli,
    *,
    units: Sequence[Unit],
    device: str = "cpu",
    seed: int = 0,
    count: int = 1,
    canvas: str = "fourier",
    decay: float = 1.0,
    decorrelate: bool = True,
    start: str | None = None,
    generator: str | None = None,
    batch: int = 64,
    steps: int = 256,
    rate: float = 0.05,
    jitter: float = 0.03,
    scaling: float = 0.1,
    rotation: float = 5.0,
    tv: float = 0.5,
    l1: float = 0.0,
    l2: float = 0.5,
    diversity: float = 1.0,
    contrast: float = 1.0,
) -> Result:
    """For each unit a stimulus was made that drives it, by gradient ascent on its activation.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
        That the made ones are compared with.
    units : sequence of Unit
    device : str
    seed : int
    count : int
        Pictures of each unit, from different noise.
    canvas : {'fourier', 'pixels'}
        What is changed: the spectrum, or pixels.
    decay : float
        Of ``fourier``: power of the frequency by which sizes go down.
    decorrelate : bool
        Whether colours are changed along directions that are uncorrelated in the stimuli.
    start : str, optional
        A stimulus, or a file, to begin from in place of noise.
    generator : str, optional
        ``file.py:build``, which gives an nn.Module from latents to pictures; the latents are changed.
    batch : int
        Pictures at once.
    steps, rate, jitter, scaling, rotation, tv, l1, l2, diversity, contrast
        As of `Climb`.

    Returns
    -------
    Result

    Raises
    ------
    ConfigError
        If there is no unit, the network has no gradients, or a parameter cannot be used.
    """
    if not units:
        raise ConfigError("--analysis optimal-stimulus: name units with --unit LAYER:CHANNEL")
    if count < 1 or batch < 1:
        raise ValueError(f"count, batch: expected at least 1, got {count}, {batch}")
    check_precision(network)
    how = Climb(steps, rate, jitter, scaling, rotation, tv, l1, l2, diversity, contrast)
    prepared = Pixels.of(network)
    mixing = colour_mixing(_colours(stimuli)) if decorrelate else torch.eye(3)
    begun = None if start is None else start_picture(network, stimuli, start, prepared)
    maker = Maker(
        network, prepared, how, canvas, decay, mixing, begun, _generator(generator), seed, device,
        _outputs(network, units, prepared, device) if contrast else {},
    )  # fmt: skip
    natural = natural_drive(network, stimuli, units, device=device)
    made: list[Reached] = []
    step = max(1, batch // count)
    for first in range(0, len(units), step):
        some = slice(first, first + step)
        made.append(maker(units[some], natural.scale[some], count))
    pictures = to_bytes(torch.cat([one.pictures for one in made]))
    scores = score(network, prepared, pictures, units, device=device)
    stopped = np.concatenate([one.stopped for one in made])
    table = made_table(network, units, count, natural, scores, stopped)
    return Result(
        "optimalstimulus",
        tables={"optimalstimulus": table},
        pictures=tuple(
            made_picture(network, row, one, label)
            for row, one, label in zip(table.to_dict("records"), pictures, _labels(units, count), strict=True)
        ),
        numbers={
            "curve": np.concatenate([one.curve for one in made], axis=1).T,
            "unit": np.array(table["unit"], dtype=object),
            "picture": table["picture"].to_numpy(),
        },
        sidecar=_sidecar(how, network, canvas, generator, start, decorrelate, count, stopped, units),
    )


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes pictures for some units at once.

    Parameters
    ----------
    network : Network
    prepared : Pixels
        Of the network.
    climb : Climb
    canvas, decay
        As of `optimal_stimulus`.
    mixing : Tensor, shape (3, 3)
        Of colours.
    start : Tensor, optional
        The picture to begin from, shape (1, 3, height, width).
    generator : nn.Module, optional
    seed, device
        As of `optimal_stimulus`.
    classes : mapping of str to int
        Layers of classes, and the axis of their channels.
    """

    network: Network
    prepared: Pixels
    climb: Climb
    canvas: str
    decay: float
    mixing: Tensor
    start: Tensor | None
    generator: nn.Module | None
    seed: int
    device: str
    classes: Mapping[str, int]

    def __call__(self, units: Sequence[Unit], scale: np.ndarray, count: int) -> Reached:
        """Make `count` pictures of each unit, whose spreads over the stimuli are `scale`."""
        own = [unit for unit in units for _ in range(count)]
        names = [(str(unit), str(number)) for unit in units for number in range(count)]
        generators = [torch.Generator().manual_seed(seed_for(self.seed, *name)) for name in names]
        there = self.prepared.to(self.device)
        spread = torch.from_numpy(np.repeat(scale, count).astype(np.float32)).to(self.device)
        asked = False

        def driven(pictures: Tensor) -> tuple[Tensor, Tensor | None]:
            nonlocal asked
            given, seen = own_drive(self.network.module, there.to_input(pictures), own)
            if not asked:
                check_gradient(self.network, given, units)
                asked = True
            given = given / spread - self.climb.contrast * _exceeded(seen, own, self.classes, spread)
            several = self.climb.diversity > 0 and count > 1
            return given, _likeness(pictures, seen, units, count) if several else None

        with frozen(self.network.module):
            return ascend(driven, self._drawn(generators), self.climb, generators)

    def _drawn(self, generators: Sequence[torch.Generator]) -> Canvas:
        size = (self.prepared.height, self.prepared.width)
        if self.generator is not None:
            return Generated(generators, size, self.generator, device=self.device)
        made: Pixelwise
        if self.canvas == "fourier":
            made = Fourier(generators, size, self.mixing, device=self.device, decay=self.decay)
        elif self.canvas == "pixels":
            made = Pixelwise(generators, size, self.mixing, device=self.device)
        else:
            raise ValueError(f"canvas: expected one of {', '.join(CANVASES)}, got {self.canvas!r}")
        if self.start is not None:
            made.start(self.start.expand(len(generators), -1, -1, -1))
        return made


def _outputs(network: Network, units: Sequence[Unit], prepared: Pixels, device: str) -> dict[str, int]:
    """Layers whose channels are the network's output, as those of classes are, and which axis the channels are."""
    blank = prepared.to(device).to_input(torch.full((1, 3, prepared.height, prepared.width), 0.5, device=device))
    with torch.inference_mode():
        output = first_tensor(network.module(blank))
    if output is None or output.ndim != 2 or output.shape[1] < 2:
        return {}
    shapes = {layer: layer_shape(network, layer) for layer in {unit.layer for unit in units} - {BRAIN}}
    return {layer: axis for layer, (shape, axis) in shapes.items() if shape and shape[axis] == output.shape[1]}


def _exceeded(
    seen: Mapping[str, tuple[Tensor, Tensor | None]], units: Sequence[Unit], classes: Mapping[str, int], spread: Tensor
) -> Tensor:
    """By how much each class fails to be a standard deviation above all others, in those, shape (n,); 0 of the rest."""
    found = torch.zeros_like(spread)
    for layer, axis in classes.items():
        chosen = [row for row, unit in enumerate(units) if unit.layer == layer and not unit.position]
        if not chosen:
            continue
        rows = torch.tensor(chosen, device=spread.device)
        values = channels(seen[layer][0][rows], axis=axis)
        own = torch.tensor([units[row].channel for row in chosen], device=spread.device)[:, None]
        other = values.scatter(1, own, -torch.inf).amax(1)
        short = (1 + (other - values.gather(1, own)[:, 0]) / spread[rows]).clamp(min=0)
        found = found.index_put((rows,), short.to(found.dtype))
    return found


def _likeness(
    pictures: Tensor, seen: Mapping[str, tuple[Tensor, Tensor | None]], units: Sequence[Unit], count: int
) -> Tensor:
    """How alike a unit's pictures are, shape (n,): in which channels of its layer are active together.

    A layer without positions says no more than that they all drive the unit; pictures are then compared themselves.
    """
    found = []
    for number, unit in enumerate(units):
        rows = slice(number * count, (number + 1) * count)
        features = seen[unit.layer][0][rows]
        if features.ndim > 2:
            flat = features.flatten(2)
            features = flat @ flat.transpose(1, 2)
        else:
            features = functional.adaptive_avg_pool2d(pictures[rows], _COARSE)
            features = features - features.mean((1, 2, 3), keepdim=True)
        found.append(likeness(features))
    return torch.cat(found)


def _labels(units: Sequence[Unit], count: int) -> list[str]:
    """Names of the pictures, in the order of the rows."""
    return [f"{unit.label}+picture{n}" if count > 1 else unit.label for unit in units for n in range(count)]


def _colours(stimuli: Stimuli) -> np.ndarray:
    rows = np.unique(np.linspace(0, len(stimuli) - 1, min(len(stimuli), _COLOURED)).round().astype(int))
    return pixels(stimuli.select(stimuli.ids[row] for row in rows), size=32).reshape(-1, 3)


def _generator(name: str | None) -> nn.Module | None:
    if name is None:
        return None
    build: Any = resolve(name, {})
    made: nn.Module = build() if not isinstance(build, nn.Module) else build
    return made


def _sidecar(
    climb: Climb, network: Network, canvas: str, generator: str | None, start: str | None, decorrelate: bool,
    count: int, stopped: np.ndarray, units: Sequence[Unit],
) -> dict[str, Any]:  # fmt: skip
    what = {"fourier": "its spectrum, scaled by 1 / f", "pixels": "its pixels"}[canvas]
    what = what if generator is None else f"the latents of the generator {generator} (Nguyen et al., 2016)"
    began = "noise" if start is None else start
    colours = " Colours were decorrelated by their covariance in the stimuli." if decorrelate and not generator else ""
    moves = (
        f"In each step it was shifted by up to {100 * climb.jitter:g} % of its side, scaled by up to "
        f"{100 * climb.scaling:g} % and turned by up to {climb.rotation:g} degrees. "
        if climb.moving else ""
    )  # fmt: skip
    weights = ", ".join(f"{name} {getattr(climb, name):g}" for name in ("tv", "l1", "l2") if getattr(climb, name))
    said = (
        f"For each unit of {network.label} {'a picture was' if count == 1 else f'{count} pictures were'} made "
        f"to drive it, by {climb.steps} steps of gradient ascent (Adam, rate "
        f"{climb.rate:g}) on {what}, from {began} (Erhan et al., 2009; Olah et al., 2017).{colours} {moves}"
        + (f"Penalties, in standard deviations of the unit over the stimuli: {weights}. " if weights else "")
        + ("A class was held a standard deviation above all others. " if climb.contrast else "")
        + "A rectified unit that is silent was driven before its rectification. Activations are those to the finished "
        "picture, rounded to bytes and not moved."
    )
    lost = int((stopped >= 0).sum())
    return {
        "Methods": said,
        "References": [
            "activation-maximisation", "class-visualisation", "deep-visualisation", "feature-visualisation", "adam",
            *(["image-parametrisation"] if canvas == "fourier" and not generator else []),
            *(["generator-prior"] if generator else []),
            *(["inceptionism"] if start else []),
            *(["population-control", "inception-loops"] if any(unit.layer == BRAIN for unit in units) else []),
        ],
        "Climb": {one.name: getattr(climb, one.name) for one in fields(climb)},
        "NumberOfPicturesStopped": lost,
        "Columns": {
            "picture": "its number, from 0", "activation": "what the unit gives for it",
            "driven": "the same; of a rectified unit that is silent, before the rectification",
            "z": "activation in standard deviations from the mean over the stimuli",
            "natural_activation": "largest activation to a stimulus", "natural_stimulus_id": "which stimulus that is",
            "above_natural": "whether the made picture drives the unit more than every stimulus",
            "stopped_at": "step at which NaN was met, and the last good state kept; n/a if none was",
        },
    }  # fmt: skip
