"""A layer put onto a network: a linear read-out of other layers' outputs, as a fitted encoder is.

The one idea: what an encoder makes of a layer, masked, pooled, projected, turned to components and weighted, is linear
behind the pooling, so all of it is one matrix. With that at its end the network's output is a brain's predicted
response, and whatever works for a unit works for a voxel.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import first_tensor
from bidsdnn.networks.reduction import Reduction

BRAIN = "brain"
"""Name of the layer that is put on."""


class Readout(nn.Module):
    """Predictions of some voxels or regions from one layer's output.

    Parameters
    ----------
    layer : str
        Whose output it reads; ``relu#2`` is that of the second call.
    weights : array-like, shape (units, k)
        On the units as `reduction` leaves them before it projects: those of random dimensions are brought back by
        `Reduction.projection_matrix`.
    intercept : array-like, shape (k,)
    centre : array-like, shape (units,)
        Taken off the units first, which changes nothing but the rounding: the mean over the stimuli of the fit.
    reduction : Reduction
        What the encoder's activations were made by.

    Raises
    ------
    ConfigError
        If the reduction has no gradient.
    """

    weights: Tensor
    intercept: Tensor
    centre: Tensor

    def __init__(
        self, layer: str, weights: ArrayLike, intercept: ArrayLike, centre: ArrayLike, reduction: Reduction
    ) -> None:
        super().__init__()
        kind = (reduction.pooling or "").partition(":")[0]
        if kind in ("histogram", "psd"):
            raise ConfigError(
                f"--unit {BRAIN}: --pooling {reduction.pooling} has no gradient that reaches the pixels; run encoding "
                "with max, mean, median, l1, l2 or grid:N, or without --pooling"
            )
        self.layer = layer
        # Activations stored in half precision were rounded; what is rounded has no gradient.
        self.reduction = replace(reduction, projection=None, dtype="float32")
        w, b = np.asarray(weights, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        mean = np.asarray(centre, dtype=np.float64)
        for name, values in {"weights": w, "intercept": b + mean @ w, "centre": mean}.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

    def forward(self, output: Tensor) -> Tensor:
        """Predict, shape (n, k)."""
        values = self.reduction(self.layer, output.to(self.weights.dtype)).flatten(1)
        if values.shape[1] != len(self.weights):
            raise ConfigError(
                f"--unit {BRAIN}: layer {self.layer} gives {values.shape[1]} units and the encoder has weights for "
                f"{len(self.weights)}; give the network and the options of the encoding"
            )
        return (values - self.centre) @ self.weights + self.intercept


class Appended(nn.Module):
    """A network with one more layer, which reads others' outputs and whose output is the network's.

    The base's layers keep their names, and are its own: nothing is copied.

    Parameters
    ----------
    base : nn.Module
    readouts : sequence of Readout
        The new layer's channels are theirs, one behind the other.
    name : str
        Of the new layer.
    """

    def __init__(self, base: nn.Module, readouts: Sequence[Readout], name: str = BRAIN) -> None:
        super().__init__()
        self.__dict__["base"] = base  # unseen by torch, which would put its name before those of the layers
        self._parameters, self._buffers = base._parameters, base._buffers
        self._modules.update(base._modules)
        self.name = name
        self.add_module(name, _Columns(readouts))
        self.training = base.training

    def train(self, mode: bool = True) -> Appended:
        """Set the mode of the base and of the new layer."""
        self.__dict__["base"].train(mode)
        super().train(mode)
        return self

    def forward(self, batch: Tensor) -> Tensor:
        """Predict, shape (n, channels)."""
        base: nn.Module = self.__dict__["base"]
        # A layer that was exchanged since, as surgery does, is exchanged in the base.
        base._modules.update({key: part for key, part in self._modules.items() if key != self.name})
        brain: _Columns = self._modules[self.name]  # type: ignore[assignment]
        layers = brain.layers
        seen: dict[str, Tensor] = {}
        calls: dict[str, int] = {}
        keep = partial(_keep, seen, calls, layers, threading.get_ident())
        handles = [
            base.get_submodule(layer).register_forward_hook(partial(keep, layer))
            for layer in dict.fromkeys(layer.partition("#")[0] for layer in layers)
        ]
        try:
            base(batch)
        finally:
            for handle in handles:
                handle.remove()
        missing = [layer for layer in layers if layer not in seen]
        if missing:
            raise ConfigError(f"layer {missing[0]} is never reached by a forward pass of the network; leave it out")
        predicted: Tensor = brain(seen)
        return predicted


class _Columns(nn.ModuleList):
    """Read-outs side by side: one layer, whose channels are voxels or regions."""

    @property
    def layers(self) -> list[str]:
        """What each reads."""
        return [readout.layer for readout in self if isinstance(readout, Readout)]

    def forward(self, seen: dict[str, Tensor]) -> Tensor:
        return torch.cat([readout(seen[layer]) for layer, readout in zip(self.layers, self, strict=True)], dim=1)


def _keep(
    seen: dict[str, Tensor], calls: dict[str, int], wanted: Sequence[str], thread: int, layer: str,
    module: nn.Module, inputs: Any, output: Any,
) -> None:  # fmt: skip
    """Keep a layer's output of this thread's pass, as it is before the next layer may write it over."""
    if threading.get_ident() != thread:
        return
    tensor = first_tensor(output)
    calls[layer] = calls.get(layer, 0) + 1
    for name in (layer, f"{layer}#{calls[layer]}"):
        if name in wanted and tensor is not None:
            seen[name] = tensor.clone()


def append(network: Network, readouts: Sequence[Readout], *, name: str = BRAIN) -> Network:
    """Put a layer of read-outs onto a network.

    Parameters
    ----------
    network : Network
    readouts : sequence of Readout
    name : str
        Of the layer.

    Returns
    -------
    Network
        Of the same name in files, whose output is the new layer's, shape (n, channels).

    Raises
    ------
    ConfigError
        If the network has a layer of that name, or none that a read-out reads.
    """
    if name in network.layers:
        raise ConfigError(f"--unit {name}: {network.label} has a layer of that name itself; leave --unit {name} out")
    for readout in readouts:
        if readout.layer.partition("#")[0] not in network.layers:
            raise ConfigError(
                f"--unit {name}: {network.label} has no layer {readout.layer}; give the encoder's network"
            )
    state = hashlib.sha256(network.weights_sha256.encode())
    for readout in readouts:
        state.update(readout.layer.encode())
        state.update(readout.weights.numpy().tobytes() + readout.intercept.numpy().tobytes())
    device = next((one.device for one in network.module.parameters()), torch.device("cpu"))
    module = Appended(network.module, readouts, name).to(device)
    return replace(
        network, module=module.eval(), weights_sha256=state.hexdigest(), alias=network.label,
        listed=(*network.canonical(), name),
    )  # fmt: skip
