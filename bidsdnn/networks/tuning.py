"""What is learnt, and from what: stimuli as inputs, layers with the way back to their weights, weights by pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.inputs import prepared, require_modality
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import first_tensor
from bidsdnn.stimuli import Stimuli

MOST_BYTES = 1_000_000_000
"""Of prepared stimuli that are kept in memory; of more, each is read again in each epoch."""


class Inputs:
    """Stimuli as a network takes them, by row: kept in memory where they fit, else read when they are asked for.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
        Of the network's modality.
    device : torch.device
        Where batches go.
    workers : int
        Threads that read.
    most_bytes : int
    """

    def __init__(
        self,
        network: Network,
        stimuli: Stimuli,
        *,
        device: torch.device,
        workers: int = 1,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        require_modality(network, stimuli)
        self._network, self._stimuli, self._device, self._workers = network, stimuli, device, workers
        self._kept: dict[int, Tensor] = {}
        self._room = most_bytes

    def __call__(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Prepare some stimuli, shape (n, ...)."""
        lacking = [int(row) for row in rows if int(row) not in self._kept]
        made: dict[int, Tensor] = {}
        if lacking:
            read = partial(prepared, self._network, self._stimuli)
            with ThreadPoolExecutor(self._workers) as pool:
                made = dict(zip(lacking, pool.map(read, lacking), strict=True))
        for row, item in made.items():
            size = item.numel() * item.element_size()
            if size <= self._room:
                self._kept[row] = item
                self._room -= size
        items = [self._kept.get(int(row), made.get(int(row))) for row in rows]
        return torch.stack(items).to(self._device)  # type: ignore[arg-type]


@contextmanager
def tapped(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Hold what layers give in the last forward pass, with the way back to weights and pixels.

    Parameters
    ----------
    module : nn.Module
    layers : sequence of str
        Dotted names, with or without ``#`` and the number of a call; ``""`` for the whole module.

    Yields
    ------
    dict of str to Tensor
        Filled by each pass.

    Raises
    ------
    ConfigError
        If there is no such layer.
    """
    seen: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    modules = dict(module.named_modules())

    def begin(_: nn.Module, __: Any) -> None:
        seen.clear()
        calls.clear()

    def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        tensor = first_tensor(output)
        for layer in {name, f"{name}#{calls[name]}"} & set(layers):
            if tensor is not None:
                seen[layer] = tensor.clone()  # a following in-place activation writes over the original

    names = dict.fromkeys(layer.partition("#")[0] for layer in layers)
    for name in names:
        if name not in modules:
            raise ConfigError(f"layer {name!r} is not in the network; {closest(name, filter(None, modules))}")
    handles = [module.register_forward_pre_hook(begin)]
    handles += [modules[name].register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def trainable(network: Network, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """Find the weights of layers, and let them alone have gradients.

    Parameters
    ----------
    network : Network
        Its module is changed: weights of other layers have no gradients from now on.
    patterns : sequence of str
        As of `Network.select`.

    Returns
    -------
    dict of str to nn.Parameter
        By their names in the module.

    Raises
    ------
    ConfigError
        If a pattern finds no layer, or none with weights.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        layers = network.select([pattern])
        if not layers:
            raise ConfigError(f"fine_tune {pattern}: no layer of {network.label}; {closest(pattern, network.layers)}")
        within = {
            name for name, _ in network.module.named_parameters()
            if any(name == layer or name.startswith(f"{layer}.") for layer in layers)
        }  # fmt: skip
        if not within:
            raise ConfigError(
                f"fine_tune {pattern}: {', '.join(layers[:3])} of {network.label} has no weights to learn"
            )
        chosen |= within
    found = {}
    for name, parameter in network.module.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name in chosen:
            found[name] = parameter
    return found
