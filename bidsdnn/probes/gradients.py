"""Which numbers of its input a unit follows: maps from gradients, of many stimuli and units at once.

A `Score` runs a batch and gives the numbers of its units; nothing else here knows of layers. Each function returns
maps of shape (n_units, n, ...), the input's, on its device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Score = Callable[[Tensor], Tensor]
"""From a batch (n, ...) to the numbers of units (n, n_units)."""

PIECES = (16, 48, 144)
"""Of the line of integrated gradients; each a third of those before."""


def gradient(score: Score, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of units with respect to the input was computed (Simonyan et al. 2014).

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...)
    values : Tensor, shape (n, n_units)
        What the units give.

    Raises
    ------
    ValueError
        If no gradient leads from the units to the input.
    """
    given = batch.detach().requires_grad_()
    with torch.enable_grad():
        values = score(given.clone())  # a network whose first step is in place cannot write on a leaf
        return torch.stack(list(_each(values, given))), values.detach()


def _each(values: Tensor, of: Tensor) -> Iterator[Tensor]:
    """Gradients of one unit after the other, from one forward pass."""
    if not values.requires_grad:
        raise ValueError("no gradient leads from the unit to the input: an operation between them is not "
                         "differentiable, or detached; choose another layer, or the method occlusion")  # fmt: skip
    for k in range(values.shape[1]):
        last = k + 1 == values.shape[1]
        (found,) = torch.autograd.grad(values[:, k].sum(), of, retain_graph=not last, allow_unused=True)
        if found is None:
            raise ValueError("no gradient leads from the unit to the input: it does not depend on it; choose another")
        yield found


def gradient_x_input(score: Score, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of units was multiplied by the input (Shrikumar et al. 2016), of which zero is the reference.

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...)
    values : Tensor, shape (n, n_units)
    """
    maps, values = gradient(score, batch)
    return maps * batch, values


def guided_backpropagation(score: Score, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient was computed with only its positive part let through each ReLU (Springenberg et al. 2015).

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...)
    values : Tensor, shape (n, n_units)

    Raises
    ------
    ValueError
        If no ReLU was met.
    """
    with guided() as mode:
        found = gradient(score, batch)
    if not mode.met:
        raise ValueError("guided backpropagation met no ReLU on the way to the unit; use the method gradient")
    return found


def smooth_gradient(
    score: Score, batch: Tensor, *, seeds: Sequence[int], samples: int = 25, noise: float = 0.15
) -> tuple[Tensor, Tensor]:
    """The gradient was averaged over copies of the input with Gaussian noise (SmoothGrad; Smilkov et al. 2017).

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)
    seeds : sequence of int
        One a stimulus: its noise does not depend on which others are in the batch, nor on the device.
    samples : int
        Copies.
    noise : float
        Standard deviation, in units of the stimulus' range from its smallest to its largest number.

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...)
    values : Tensor, shape (n, n_units)
        Of the input without noise.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    flat = batch.flatten(1)
    spread = noise * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (batch.ndim - 1))
    total: Tensor | None = None
    for _ in range(samples):
        drawn = torch.stack([torch.randn(batch.shape[1:], generator=one) for one in generators])
        maps, _ = gradient(score, batch + spread * drawn.to(batch))
        total = maps if total is None else total.add_(maps)
    assert total is not None
    with torch.no_grad():
        return total / samples, score(batch.clone())


def integrated_gradients(
    score: Score, batch: Tensor, baseline: Tensor, *, tolerance: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients were integrated along the line from a baseline to the input (Sundararajan et al. 2017).

    The integral is by the midpoint rule, of 16 pieces, of 48 for stimuli whose maps do not yet sum to the difference
    that they explain, and of 144 for those that still do not. The gradient of a network of ReLUs jumps so often along
    the line that the sum comes near to its goal slowly, and as the sum is known, it is used: what it still misses is
    spread over the map in proportion to its absolute values, the smallest change that makes it whole. That is little,
    as these sum to far more than the difference.

    Parameters
    ----------
    score : callable
    batch : Tensor, shape (n, ...)
    baseline : Tensor, shape (...)
        Or one that broadcasts to it.
    tolerance : float
        Error of the midpoint rule's sum that is small enough, relative to the difference.

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...)
        Each sums to the unit at the input minus the unit at the baseline.
    values : Tensor, shape (n, n_units)
    errors : Tensor, shape (n, n_units)
        Of the midpoint rule's sums, before they were made whole, relative to the difference.
    """
    start = baseline.expand_as(batch)
    way = batch - start
    with torch.no_grad():
        values = score(batch.clone())
        whole = (values - score(start.clone())).T.double()
    sums = torch.zeros((values.shape[1], *batch.shape), dtype=batch.dtype, device=batch.device)
    errors, missing = torch.zeros_like(whole), torch.zeros_like(whole)
    left = torch.arange(len(batch), device=batch.device)
    pieces = torch.full((len(batch),), PIECES[0], device=batch.device)
    for n in PIECES:
        for k in range(n):
            if n > PIECES[0] and k % 3 == 1:
                continue  # the middle one of three is the midpoint of the piece that was cut
            sums[:, left] += gradient(score, start[left] + (k + 0.5) / n * way[left])[0]
        pieces[left] = n
        missing[:, left] = whole[:, left] - (sums[:, left] / n * way[left]).flatten(2).sum(2, dtype=torch.float64)
        errors = missing.abs() / whole.abs().clamp_min(torch.finfo(whole.dtype).tiny)
        left = (errors > tolerance).any(0).nonzero().flatten()
        if not len(left):
            break
    more = [1] * (batch.ndim - 1)
    maps = sums.mul_(way / pieces.reshape(-1, *more).to(batch.dtype))
    weights = maps.abs()
    total = weights.flatten(2).sum(2, dtype=torch.float64)
    if (total == 0).any():
        # Flat at every midpoint: nothing is known of which pixels count but how far they go.
        weights[total == 0] = way.abs().expand_as(weights)[total == 0]
        total = weights.flatten(2).sum(2, dtype=torch.float64)
    gain = (missing / total.clamp_min(torch.finfo(total.dtype).tiny)).to(batch.dtype)
    return maps + gain.reshape(*gain.shape, *more) * weights, values, errors.T.to(values.dtype)


def grad_cam(module: nn.Module, score: Score, batch: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """The maps of a convolutional layer were summed, weighted by the mean gradient of each, and rectified.

    This is Grad-CAM (Selvaraju et al. 2017), at the resolution of the layer.

    Parameters
    ----------
    module : nn.Module
        That `score` runs.
    score : callable
    batch : Tensor, shape (n, ...)
    layer : str
        Dotted name of a submodule whose output is (n, channels, ...positions), with or without ``#`` and a call.

    Returns
    -------
    maps : Tensor, shape (n_units, n, ...positions)
    values : Tensor, shape (n, n_units)

    Raises
    ------
    ValueError
        If the layer has no positions, or the units do not depend on it.
    """
    seen: list[Tensor] = []
    name, _, asked = layer.partition("#")
    calls = 0

    def keep(_: nn.Module, __: Any, output: Any) -> Tensor | None:
        nonlocal calls
        calls += 1
        if asked and calls != int(asked):
            return None
        if not isinstance(output, Tensor) or output.ndim < 3:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"Grad-CAM: layer {layer} gives {shape}, not channels by positions; choose a convolution")
        seen[:] = [output]
        return output.clone()  # what follows may write over its input

    handle = module.get_submodule(name).register_forward_hook(keep)
    given = batch.detach().requires_grad_()
    try:
        with torch.enable_grad():
            values = score(given.clone())
            if not seen:
                raise ValueError(f"Grad-CAM: layer {layer} is not reached by a forward pass; choose another")
            maps = []
            for found in _each(values, seen[0]):
                weights = found.flatten(2).mean(2)
                maps.append(torch.einsum("nc,nc...->n...", weights, seen[0].detach()).relu())
            return torch.stack(maps), values.detach()
    finally:
        handle.remove()


def upsampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps were brought to the size of the input by linear interpolation between the centres of their cells.

    Parameters
    ----------
    maps : Tensor, shape (n_units, n, ...positions)
        Of one, two or three axes.
    size : sequence of int

    Returns
    -------
    Tensor, shape (n_units, n, *size)
    """
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


class _Rectified(torch.autograd.Function):
    """A ReLU, up to a ceiling, that lets only positive gradients pass."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, most: float) -> Tensor:
        out = given.clamp(0, most)
        ctx.save_for_backward((given > 0) & (given < most))
        return out

    @staticmethod
    def backward(ctx: Any, *back: Tensor) -> tuple[Tensor, None]:
        (open_,) = ctx.saved_tensors
        return back[0].clamp_min(0) * open_, None


IN_PLACE = {torch.relu_, F.relu_, Tensor.relu_}
RELUS = {F.relu, torch.relu, Tensor.relu, *IN_PLACE}
"""The functions by which a ReLU is called, by modules or by themselves, and that are guided."""


class _Guide(TorchFunctionMode):
    """Puts `_Rectified` in the place of every ReLU that is called meanwhile; `met` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        most = ceiling(func, args, kwargs)
        if most is None:
            return func(*args, **kwargs)
        self.met += 1
        given = args[0] if args else kwargs["input"]
        out = _Rectified.apply(given, most)
        in_place = func in IN_PLACE or kwargs.get("inplace", False)
        # The caller may go on with the tensor that it asked to be written on.
        return given.copy_(out) if in_place else out


def ceiling(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> float | None:
    """What a rectification is cut at; None of any other function."""
    if func in RELUS:
        return float("inf")
    if func is F.relu6:
        return 6.0
    if func is F.hardtanh:  # by which torch's ReLU6 is computed
        low = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
        return float(high) if low == 0 else None
    return None


@contextmanager
def guided() -> Iterator[_Guide]:
    """Let only positive gradients pass each ReLU that runs meanwhile, without a change to any module.

    ReLU and ReLU6 are found whether they are modules or functions, in place or not. A rectification that is written
    otherwise (``clamp(min=0)``, ``maximum``, ``where``), or runs in a compiled or scripted module, is out of reach, and
    its gradient is the plain one; so are other activations (GELU, SiLU), for which the method is not defined.
    """
    with _Guide() as mode:
        yield mode
