"""What units give for a batch of stimuli, with the graph that leads back to the stimuli.

What a channel gives for a stimulus is the mean over its positions, wherever a single number is needed; who wants its
peak asks for the maximum. A rectified unit that is silent says nothing of what would wake it: it is read before its
rectification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.axes import channel_axis
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import first_tensor
from bidsdnn.probes.gradients import ceiling
from bidsdnn.probes.units import Unit

Over = Literal["mean", "max"]
THRESHOLDS = {F.threshold, torch.threshold, torch.threshold_}
"""Rectifications besides those that `gradients.ceiling` knows: of them, too, silent units have no gradient."""


def drive(
    module: nn.Module, batch: Tensor, units: Sequence[Unit], *, over: Over = "mean", silent: bool = True,
    axes: dict[str, int] | None = None,
) -> Tensor:  # fmt: skip
    """Run a batch and return what units give, with the graph that leads back to the batch.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the batch's device.
    batch : Tensor, shape (n, ...)
        The module's input.
    units : sequence of Unit
    over : {'mean', 'max'}
        What of a channel's positions is taken, where the unit has no position.
    silent : bool
        Whether a rectified unit that gives 0 is read before its rectification, for its gradient. Of a channel that is
        silent at all positions that is the position nearest to its threshold, so that the number is continuous in
        the batch.
    axes : dict of str to int, optional
        Axis of the channels, by layer; what is found is added.

    Returns
    -------
    Tensor, shape (n, n_units)

    Raises
    ------
    ConfigError
        If a layer is not there or not reached, or its output is no table of stimuli.
    """
    layers = list(dict.fromkeys(unit.layer for unit in units))
    with outputs(module, layers, before=silent) as seen:
        module(batch)
    axes = {} if axes is None else axes
    columns = []
    for unit in units:
        if unit.layer not in seen:
            raise ConfigError(f"layer {unit.layer} is never reached by a forward pass of the network; choose another")
        after, before = seen[unit.layer]
        if after.ndim == 0 or len(after) != len(batch):
            raise ConfigError(
                f"layer {unit.layer} gives shape {tuple(after.shape)} for {len(batch)} stimuli: its first axis is not "
                "the stimuli; choose another layer"
            )
        if unit.layer not in axes:
            axes[unit.layer] = channel_axis(after.shape[1:], module.get_submodule(unit.layer.partition("#")[0]))
        column = read(after, unit, axis=axes[unit.layer], over=over)
        if before is not None:
            column = torch.where(column > 0, column, read(before, unit, axis=axes[unit.layer], over="max"))
        columns.append(column)
    return torch.stack(columns, 1)


def own_drive(
    module: nn.Module, batch: Tensor, units: Sequence[Unit], *, silent: bool = True
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor | None]]]:
    """Run a batch and return what each one's own unit gives, with the graph; by one gathering a layer.

    Parameters
    ----------
    module : nn.Module
    batch : Tensor, shape (n, ...)
    units : sequence of Unit, length n
        As `drive` takes them, one for each of the batch.
    silent : bool
        As of `drive`.

    Returns
    -------
    given : Tensor, shape (n,)
    seen : dict of str to (Tensor, Tensor or None)
        What layers gave, and gave before their rectification.
    """
    layers = list(dict.fromkeys(unit.layer for unit in units))
    with outputs(module, layers, before=silent) as seen:
        module(batch)
    given = batch.new_zeros(len(batch))
    for layer in layers:
        if layer not in seen:
            raise ConfigError(f"layer {layer} is never reached by a forward pass of the network; choose another")
        after, before = seen[layer]
        axis = channel_axis(after.shape[1:], module.get_submodule(layer.partition("#")[0]))
        rows = [row for row, unit in enumerate(units) if unit.layer == layer]
        own = [units[row] for row in rows]
        values = _gathered(after, rows, own, axis, peak=False)
        if before is not None:
            values = torch.where(values > 0, values, _gathered(before, rows, own, axis, peak=True))
        given = given.index_put((torch.tensor(rows, device=batch.device),), values.to(given.dtype))
    return given, seen


def _gathered(values: Tensor, rows: Sequence[int], units: Sequence[Unit], axis: int, *, peak: bool) -> Tensor:
    """Numbers of units, one a row: at their positions, or the mean or peak over all, shape (k,)."""
    if values.ndim == 1:
        return values[list(rows)]
    first = torch.tensor(list(rows), device=values.device)
    channel = torch.tensor([unit.channel for unit in units], device=values.device)
    moved = values.movedim(axis + 1, 1)
    own = moved[first, channel].reshape(len(rows), -1)
    flat = [int(np.ravel_multi_index(unit.position, moved.shape[2:])) if unit.position else 0 for unit in units]
    at = own.gather(1, torch.tensor(flat, device=values.device)[:, None])[:, 0]
    everywhere = own.amax(1) if peak else own.mean(1)
    placed = torch.tensor([bool(unit.position) for unit in units], device=values.device)
    return torch.where(placed, at, everywhere)


def read(values: Tensor, unit: Unit, *, axis: int, over: Over = "mean") -> Tensor:
    """Take a unit's number from what its layer gave.

    Parameters
    ----------
    values : Tensor, shape (n, ...)
    unit : Unit
    axis : int
        Of the channels, not counting the first.
    over : {'mean', 'max'}

    Returns
    -------
    Tensor, shape (n,)
    """
    if values.ndim == 1:
        return values
    channel = values.select(1 + axis, unit.channel)
    if unit.position:
        for number in unit.position:
            channel = channel.select(1, number)
        return channel
    flat = channel.reshape(len(channel), -1)
    return flat.mean(1) if over == "mean" else flat.amax(1)


def channels(values: Tensor, *, axis: int, over: Over = "mean") -> Tensor:
    """What each channel of a layer gives: the mean, or the maximum, over its positions.

    Parameters
    ----------
    values : Tensor, shape (n, ...)
    axis : int
        Of the channels, not counting the first.
    over : {'mean', 'max'}

    Returns
    -------
    Tensor, shape (n, n_channels)
    """
    if values.ndim <= 2:
        return values.reshape(len(values), -1)
    flat = values.movedim(1 + axis, 1).reshape(len(values), values.shape[1 + axis], -1)
    return flat.mean(2) if over == "mean" else flat.amax(2)


@contextmanager
def outputs(
    module: nn.Module, layers: Sequence[str], *, before: bool
) -> Iterator[dict[str, tuple[Tensor, Tensor | None]]]:
    """Keep what layers give, and what went into the rectification that made it, as copies that nothing overwrites."""
    seen: dict[str, tuple[Tensor, Tensor | None]] = {}
    handles = []
    modules = dict(module.named_modules())
    watch = _Rectifications()
    try:
        for name in dict.fromkeys(layer.partition("#")[0] for layer in layers):
            if not name or name not in modules:
                raise ConfigError(f"layer {name!r} is not in the network; {closest(name, filter(None, modules))}")
            if before:
                handles.append(modules[name].register_forward_pre_hook(watch.enter))
            handles.append(modules[name].register_forward_hook(_keeper(name, layers, seen, watch)))
        with watch if before else nullcontext():
            yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Rectifications(TorchFunctionMode):
    """The last rectification within the layers that are read, be it a module or a function: output, and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.within = 0
        self.last: tuple[Any, Tensor] | None = None

    def enter(self, _: nn.Module, __: Any) -> None:
        """A layer that is read begins; elsewhere nothing is kept."""
        self.within += 1

    def before(self, output: Tensor) -> Tensor | None:
        """What was rectified to make an output that a layer hands on; None if it was made otherwise."""
        self.within = max(0, self.within - 1)
        return self.last[1] if self.last is not None and self.last[0] is output else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.within or (func not in THRESHOLDS and ceiling(func, args, kwargs) is None):
            return func(*args, **kwargs)
        given = (args[0] if args else kwargs["input"]).clone()  # which the rectification may write over
        output = func(*args, **kwargs)
        self.last = output, given
        return output


def _keeper(
    name: str, layers: Sequence[str], seen: dict[str, tuple[Tensor, Tensor | None]], watch: _Rectifications
) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that keeps the calls of a module that are asked for."""
    calls = 0

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        tensor = first_tensor(output)
        # A block ends with a rectification only if that one's output is what it hands on.
        before = None if tensor is None else watch.before(tensor)
        wanted = {name, f"{name}#{calls}"} & set(layers)
        if not wanted:
            return
        if tensor is None:
            raise ConfigError(f"layer {name!r} gives {type(output).__name__}, which holds no tensor; choose another")
        for layer in wanted:
            seen[layer] = tensor.clone(), before

    return keep


def check_gradient(network: Network, values: Tensor, units: Sequence[Unit]) -> None:
    """Check that a graph leads from units back to the input.

    Parameters
    ----------
    network : Network
    values : Tensor, shape (n, n_units)
        Of `drive`, for a batch that requires a gradient.
    units : sequence of Unit

    Raises
    ------
    ConfigError
        If none does: the layer's operations, or the network's precision, give no gradients.
    """
    if not values.requires_grad:
        layers = ", ".join(dict.fromkeys(unit.layer for unit in units))
        raise ConfigError(
            f"{network.label}: layer {layers} gives no gradient with respect to the input (its operations are not "
            "differentiable, or detached); choose another layer, or an analysis without gradients"
        )


def check_precision(network: Network) -> None:
    """Check that a network computes in a precision in which gradients can be had.

    Parameters
    ----------
    network : Network

    Raises
    ------
    ConfigError
        If its weights are in half precision, or quantised.
    """
    kinds = {parameter.dtype for parameter in network.module.parameters()}
    low = sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32, torch.float64})
    if low or any("quantized" in type(part).__module__ for part in network.module.modules()):
        raise ConfigError(
            f"{network.label}: its weights are {low[0] if low else 'quantised'}, in which gradients cannot be had or "
            "are rounded to nothing; give the network in float32, or ask for an analysis without gradients"
        )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Take no gradients of a module's weights meanwhile: only the input's are wanted, and theirs cost memory."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
