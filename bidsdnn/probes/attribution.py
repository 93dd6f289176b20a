"""The ways to tell which numbers of its input a unit depends on, by name, and what each is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bidsdnn.networks.network import Network
from bidsdnn.parallel import seed_for
from bidsdnn.probes import gradients
from bidsdnn.probes.driving import drive
from bidsdnn.probes.fields import picture_axes
from bidsdnn.probes.occlusion import occlusion
from bidsdnn.probes.units import Unit


@dataclass(frozen=True, eq=False)
class Job:
    """What a method is given: units of one layer, and what the user chose."""

    network: Network
    units: Sequence[Unit]
    seed: int
    samples: int
    noise: float
    baseline: Tensor
    tolerance: float
    cam_layer: str
    size: int
    step: int
    fill: float
    axes: dict[str, int] = field(default_factory=dict)

    def score(self, batch: Tensor) -> Tensor:
        """What the units give."""
        return drive(self.network.module, batch, self.units, axes=self.axes)


Found = tuple[Tensor, Tensor, Tensor | None]


def _plain(function: Callable[..., tuple[Tensor, Tensor]], job: Job, batch: Tensor, ids: Sequence[str]) -> Found:
    return (*function(job.score, batch), None)


def _smoothgrad(job: Job, batch: Tensor, ids: Sequence[str]) -> Found:
    seeds = [seed_for(job.seed, "smoothgrad", one) for one in ids]
    found = gradients.smooth_gradient(job.score, batch, seeds=seeds, samples=job.samples, noise=job.noise)
    return (*found, None)


def _integrated(job: Job, batch: Tensor, ids: Sequence[str]) -> Found:
    return gradients.integrated_gradients(job.score, batch, job.baseline, tolerance=job.tolerance)


def _grad_cam(job: Job, batch: Tensor, ids: Sequence[str]) -> Found:
    if not job.cam_layer:
        raise ValueError(f"grad-cam: no layer before {job.units[0].layer} has maps; name one with cam_layer")
    maps, values = gradients.grad_cam(job.network.module, job.score, batch, job.cam_layer)
    size = [batch.shape[axis] for axis in picture_axes(batch.shape[1:])]
    return gradients.upsampled(maps, size), values, None


def _occlusion(job: Job, batch: Tensor, ids: Sequence[str]) -> Found:
    return (*occlusion(job.score, batch, size=job.size, step=job.step, fill=job.fill), None)


METHODS: dict[str, Callable[..., Found]] = {
    "gradient": partial(_plain, gradients.gradient),
    "gradient-x-input": partial(_plain, gradients.gradient_x_input),
    "guided-backpropagation": partial(_plain, gradients.guided_backpropagation),
    "smoothgrad": _smoothgrad,
    "integrated-gradients": _integrated,
    "grad-cam": _grad_cam,
    "occlusion": _occlusion,
}
"""Ways to tell which pixels count, by name."""


def layers_of_maps(module: nn.Module, batch: Tensor, units: Sequence[Unit]) -> list[str]:
    """Find for each unit the last layer before it that has maps over the picture; poolings are passed over.

    A layer that runs before a unit and is not read by it, as one of another branch, is passed over too: no gradient
    leads to it.

    Parameters
    ----------
    module : nn.Module
    batch : Tensor, shape (1, ...)
    units : sequence of Unit
        Of one layer.

    Returns
    -------
    list of str
        Dotted names with the number of their call; empty where there is none.
    """
    target, _, asked = units[0].layer.partition("#")
    order: list[tuple[str, str, Any]] = []

    def note(name: str, part: nn.Module, _: Any, output: Any) -> Any:
        order.append((name, type(part).__module__.rpartition(".")[2], output))
        # What follows may write over its input.
        return output.clone() if isinstance(output, Tensor) and not f"{name}.".startswith(f"{target}.") else None

    leaves = [(n, part) for n, part in module.named_modules() if n and (n == target or not any(part.children()))]
    handles = [part.register_forward_hook(partial(note, name)) for name, part in leaves]
    try:
        with torch.enable_grad():
            given = drive(module, batch.detach().requires_grad_().clone(), units)[0]
    finally:
        for handle in handles:
            handle.remove()
    at = [k for k, (name, _, _) in enumerate(order) if name == target]
    call = int(asked or len(at))
    before = order[: at[call - 1]] if 0 < call <= len(at) else []
    axes = len(picture_axes(batch.shape[1:]))
    found: dict[str, Tensor] = {}
    for k, (name, kind, output) in enumerate(before):
        has_maps = isinstance(output, Tensor) and output.ndim == axes + 2 and max(output.shape[2:]) > 1
        if has_maps and output.requires_grad and kind != "pooling" and not name.startswith(f"{target}."):
            found[f"{name}#{sum(other == name for other, _, _ in before[: k + 1])}"] = output
    return [_last_read(one, found) for one in given]


def _last_read(given: Tensor, layers: dict[str, Tensor]) -> str:
    """The last layer to which a gradient leads from what a unit gives."""
    if not layers or not given.requires_grad:
        return next(reversed(layers), "")
    slopes = torch.autograd.grad(given, list(layers.values()), retain_graph=True, allow_unused=True)
    there = {name: slope for name, slope in zip(layers, slopes, strict=True) if slope is not None}
    # Units side by side in one layer have slopes of zero to what only their neighbours read.
    return next((name for name in reversed(there) if there[name].any()), next(reversed(there), ""))
