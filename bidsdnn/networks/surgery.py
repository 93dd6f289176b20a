"""Network -> Network: units cut out, weights shuffled. What comes back is a value, and every analysis runs on it.

A cut is a forward hook on a copy of the module, so that layers keep their names; the copy shares the weights.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.axes import channel_axis
from bidsdnn.networks.devices import placed, single_threaded
from bidsdnn.networks.inputs import prepared, require_modality
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.work import contents
from bidsdnn.stimuli import Stimuli

Unit = int | tuple[int, ...]
To = Literal["zero", "mean", "shuffled"]

MOST_FOR_MEAN = 256
"""Stimuli that a mean is taken over; of more, as many at even spacing."""
MOST_IN_BANK = 64
"""Stimuli whose activations stand in for those of others; they are all held in memory."""
WORDS = {
    "zero": "set to zero",
    "mean": "set to each channel's mean over stimuli and positions",
    "shuffled": "set to what another stimulus, drawn by chance, gives them",
}


def ablate(
    network: Network,
    cut: Mapping[str, Sequence[Unit] | None],
    *,
    to: To = "zero",
    stimuli: Stimuli | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "cpu",
) -> Network:
    """Units were ablated by replacing their output, so that neither input nor bias reaches later layers.

    Parameters
    ----------
    network : Network
        Stays as it is.
    cut : mapping of str to (sequence of int or of tuple of int) or None
        By layer, with or without ``#`` and the number of a call: channels, or single units as (channel, row, column);
        None for the whole layer.
    to : {'zero', 'mean', 'shuffled'}
        What the units give instead: zero; their channel's mean over stimuli and positions (at most 256 stimuli, at
        even spacing); or what another stimulus gives them, one and the same for all units of a layer. Which one is
        drawn by the stimulus' pixels and the seed, among at most 64 of `stimuli`, so that it depends neither on the
        batch nor on its size.
    stimuli : Stimuli, optional
        With hashes; for means and shuffling.
    seed : int
        Of the draw.
    batch_size : int
        Stimuli that are measured together.
    device : str
        Where they are measured.

    Returns
    -------
    Network
        Has another label and hash.

    Raises
    ------
    ConfigError
        If a layer does not exist or has no such unit, or nothing is given to take means of.
    """
    if to not in WORDS:
        raise ConfigError(f"ablate to {to!r}: choose one of {', '.join(WORDS)}")
    if not cut:
        raise ValueError("cut: expected at least one layer, got none")
    masks = {layer: _mask(network, layer, units) for layer, units in cut.items()}
    some = None
    if to != "zero":
        if stimuli is None or not len(stimuli):
            raise ConfigError(f"ablate to {to}: expected stimuli to measure it on, got none; use zero")
        some = spaced(stimuli, MOST_FOR_MEAN if to == "mean" else MOST_IN_BANK)
    found = _measured(network, masks, some, means=to == "mean", batch_size=batch_size, device=device)
    if found and to == "shuffled" and len(set(found.keys)) < 2:
        raise ConfigError("ablate to shuffled: expected stimuli that differ, got equal ones; use zero or mean")
    module = _shared_copy(network)
    here = _Pass(keyed=to == "shuffled", seed=seed)
    module.register_forward_pre_hook(here.begin)
    for layer, mask in masks.items():
        values = found.tables[layer] if found else torch.zeros(int(mask.sum()))
        hook = _Replacement(layer, mask, values, found.keys if found and to == "shuffled" else (), here)
        module.get_submodule(layer.partition("#")[0]).register_forward_hook(hook)
    identity = [network.weights_sha256, to, seed if to == "shuffled" else 0, contents(some) if some else []]
    identity += [[layer, sha256(mask.numpy().tobytes()).hexdigest()] for layer, mask in sorted(masks.items())]
    digest = sha256(repr(identity).encode()).hexdigest()
    mark = _mark(cut, to)
    return replace(
        network,
        module=module,
        weights_sha256=digest,
        alias=f"{network.label}+without+{mark if len(mark) <= 40 else digest[:8]}",
        changes=(*network.changes, _sentence(cut, to)),
    )


def shuffled_weights(network: Network, *, seed: int) -> Network:
    """Weights were shuffled within each tensor, which keeps their distribution and leaves nothing of what was learnt.

    Statistics that normalisation layers have gathered stay.

    Parameters
    ----------
    network : Network
        Stays as it is.
    seed : int

    Returns
    -------
    Network

    Raises
    ------
    ConfigError
        If it has no weights.
    """
    module = copy.deepcopy(network.module)
    named = dict(module.named_parameters())
    if not named:
        raise ConfigError(f"{network.label}: it has no weights that could be shuffled; leave out @shuffled")
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name, parameter in named.items():
        flat = parameter.detach().cpu().contiguous().reshape(-1).clone()
        # As integers of the same size, because numpy knows no bfloat16.
        bits = flat.view(whole[flat.element_size()]).numpy()
        np.random.default_rng([seed, zlib.crc32(name.encode())]).shuffle(bits)
        parameter.data = flat.reshape(parameter.shape).to(parameter.device)
    digest = sha256(f"shuffled|{seed}|{network.weights_sha256}".encode()).hexdigest()
    said = "its weights were shuffled within each tensor"
    return replace(
        network, module=module, weights=f"shuffled {network.weights}", seed=seed, weights_sha256=digest,
        changes=(*network.changes, said),
    )  # fmt: skip


class _Pass:
    """One forward pass: how often each layer was called in it, and which stimuli it is about; a thread has its own."""

    def __init__(self, *, keyed: bool, seed: int) -> None:
        self._keyed, self._seed = keyed, seed
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"keyed": self._keyed, "seed": self._seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._local.calls = {}
        self._local.keys = keys_of(inputs[0]) if self._keyed else []

    def number(self, name: str) -> int:
        """Count a call of a module."""
        calls: dict[str, int] = self._local.calls
        calls[name] = calls.get(name, 0) + 1
        return calls[name]

    def drawn(self, bank: Sequence[int]) -> list[int]:
        """For each stimulus of the batch the row of another one in a bank."""
        rows = []
        for key in self._local.keys:
            others = [row for row, other in enumerate(bank) if other != key]
            rows.append(others[int(np.random.default_rng([self._seed, key]).integers(len(others)))])
        return rows


class _Replacement:
    """A forward hook that gives units other values."""

    def __init__(self, layer: str, mask: Tensor, values: Tensor, keys: Sequence[int], here: _Pass) -> None:
        name, _, call = layer.partition("#")
        self._layer, self._call = layer, int(call or 0)
        self._counter = f"{layer}|{name}"  # of this hook alone, as two may be on one module
        self._mask, self._values, self._keys, self._here = mask, values, tuple(keys), here

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        number = self._here.number(self._counter)
        if self._call not in (0, number):
            return output
        return with_tensor(output, self._replaced)

    def _replaced(self, tensor: Tensor) -> Tensor:
        if tensor.shape[1:] != self._mask.shape:
            raise ConfigError(
                f"layer {self._layer!r} gives shape {tuple(tensor.shape[1:])}, and was cut as "
                f"{tuple(self._mask.shape)}; name one call, as in {self._layer}#2"
            )
        values = self._values.to(tensor.device, tensor.dtype)
        cut = tensor.clone()
        cut[:, self._mask.to(tensor.device)] = values[self._here.drawn(self._keys)] if self._keys else values
        return cut


def keys_of(batch: Tensor) -> list[int]:
    """Number each stimulus of a batch by its values, whatever stands beside it."""
    return [zlib.crc32(one.contiguous().numpy().tobytes()) for one in batch.detach().cpu().float()]


def with_tensor(output: Any, change: Any) -> Any:
    """Change the first tensor in a module's output, whatever holds it, and leave the rest.

    Parameters
    ----------
    output : object
        A tensor, or a tuple, list or mapping that holds one.
    change : callable
        From a tensor to a tensor.

    Returns
    -------
    object
    """
    changed, _ = _changed(output, change)
    return changed


def _changed(output: Any, change: Any) -> tuple[Any, bool]:
    if isinstance(output, Tensor):
        return change(output), True
    if isinstance(output, dict):
        for key, part in output.items():
            new, done = _changed(part, change)
            if done:
                made = copy.copy(output)
                made[key] = new
                return made, True
    if isinstance(output, tuple | list):
        for i, part in enumerate(output):
            new, done = _changed(part, change)
            if done:
                parts = [*output[:i], new, *output[i + 1 :]]
                return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts), True
    return output, False


def _mask(network: Network, layer: str, units: Sequence[Unit] | None) -> Tensor:
    """Which units of a layer are cut, in the layer's shape."""
    name = layer.partition("#")[0]
    shape = network.shapes([layer])[layer][1]
    if units is None:
        return torch.ones(shape, dtype=torch.bool)
    if not len(units):
        raise ConfigError(f"layer {layer}: expected units to cut, got none; name the layer alone to cut it all")
    axis = channel_axis(shape, network.module.get_submodule(name))
    mask = torch.zeros(shape, dtype=torch.bool)
    by_channel = mask.movedim(axis, 0)  # the same memory
    for unit in units:
        place = (unit,) if isinstance(unit, int | np.integer) else tuple(unit)
        size = by_channel.shape[: len(place)]
        if len(place) > by_channel.ndim or any(not 0 <= i < n for i, n in zip(place, size, strict=True)):
            raise ConfigError(
                f"{layer}:{','.join(map(str, place))}: no such unit; the layer's shape is {tuple(shape)}, with "
                f"{shape[axis]} channels, counted from 0"
            )
        by_channel[place] = True
    return mask


@dataclass(frozen=True)
class _Measured:
    """What some stimuli give the units: their channels' means, shape (k,), or a row a stimulus, (n, k), by layer."""

    tables: dict[str, Tensor]
    keys: tuple[int, ...]


def _measured(
    network: Network, masks: Mapping[str, Tensor], stimuli: Stimuli | None, *, means: bool, batch_size: int, device: str
) -> _Measured | None:
    if stimuli is None:
        return None
    require_modality(network, stimuli)
    keys: list[int] = []
    sums: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {layer: [] for layer in masks}
    with (
        placed(network.module, device) as target,
        single_threaded(),
        torch.no_grad(),
        Recorder(network.module, list(masks)) as record,
    ):
        for batch, n in batches(network, stimuli, batch_size):
            keys += keys_of(batch[:n])
            for layer, values in record(batch.to(target), keep=n).items():
                if means:
                    sums[layer] = sums.get(layer, 0) + values.double().sum(0)
                else:
                    rows[layer].append(values[:, masks[layer]].clone())
    if not means:
        return _Measured({layer: torch.cat(some) for layer, some in rows.items()}, tuple(keys))
    tables = {}
    for layer, total in sums.items():
        axis = channel_axis(total.shape, network.module.get_submodule(layer.partition("#")[0]))
        others = [i for i in range(total.ndim) if i != axis]
        average = total.mean(others, keepdim=True) if others else total
        tables[layer] = (average / len(stimuli)).expand(total.shape)[masks[layer]].float()
    return _Measured(tables, ())


def batches(network: Network, stimuli: Stimuli, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Prepare stimuli for a network, a batch at a time; the last one is filled up with its last stimulus.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    batch_size : int

    Yields
    ------
    batch : Tensor, shape (batch_size, ...)
    n : int
        How many of it are stimuli.
    """
    for start in range(0, len(stimuli), batch_size):
        items = [prepared(network, stimuli, row) for row in range(start, min(start + batch_size, len(stimuli)))]
        yield torch.stack(items + items[-1:] * (batch_size - len(items))), len(items)


def spaced(stimuli: Stimuli, most: int) -> Stimuli:
    """Take at most so many stimuli, at even spacing.

    Parameters
    ----------
    stimuli : Stimuli
    most : int

    Returns
    -------
    Stimuli
    """
    if len(stimuli) <= most:
        return stimuli
    kept = np.linspace(0, len(stimuli) - 1, most).round().astype(int)
    return stimuli.select([stimuli.ids[i] for i in kept])


def _shared_copy(network: Network) -> nn.Module:
    """Copy a module's structure and hooks; parameters and buffers stay the same tensors."""
    tensors = [*network.module.parameters(), *network.module.buffers()]
    try:
        return copy.deepcopy(network.module, {id(tensor): tensor for tensor in tensors})
    except (TypeError, RuntimeError) as error:
        raise ConfigError(f"{network.label}: this module cannot be copied ({error}); it cannot be cut") from error


def _mark(cut: Mapping[str, Sequence[Unit] | None], to: str) -> str:
    """Name a cut in a file's name."""
    parts = []
    for layer, units in cut.items():
        parts.append(layer)
        parts += [] if units is None else [str(unit) for unit in units]
    return "+".join([*parts, *([] if to == "zero" else [to])])


def _sentence(cut: Mapping[str, Sequence[Unit] | None], to: str) -> str:
    said = [
        f"all of {layer}" if units is None else f"{len(units)} unit{'s' * (len(units) > 1)} of {layer}"
        for layer, units in cut.items()
    ]
    one = len(said) == 1 and said[0].startswith(("all", "1 "))
    return f"{' and '.join(said)} {'was' if one else 'were'} {WORDS[to]}"
