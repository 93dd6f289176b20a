"""What a unit can see: receptive fields from the operations that a forward pass calls, whatever the architecture.

One picture runs through the network, and every operation is watched. Convolutions and pooling widen the field by
their kernels. Of any other operation it is found out by trial: where one place of its input is not a number, and of
its output only the same place is, it leaves the field as it is (activations, normalisations, sums, concatenations,
shuffled channels); else its output depends on the whole picture, as far as is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bidsdnn.networks.recorder import first_tensor


@dataclass(frozen=True)
class Field:
    """Receptive fields of a layer's positions, along the axes of the picture.

    Position i along an axis sees ``size`` pixels from ``start + i * jump`` on, some of which may lie in the padding.

    Parameters
    ----------
    axes : tuple of int
        Axes of the layer's output, the batch's counted, that are the picture's; empty where every unit may depend on
        the whole picture.
    start, size, jump : tuple of int
        In pixels, by axis of the picture.
    edges : tuple of (int, int)
        First pixel, and one after the last, that reach the layer at all, by axis: a step that does not divide its map
        leaves pixels at the end unseen.
    """

    axes: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]
    jump: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """Whether every unit may depend on the whole picture."""
        return not self.axes

    def box(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The pixels within the picture that the unit at a position sees: first, and one after the last, by axis."""
        if self.whole:
            return self.edges
        starts = [start + i * jump for start, i, jump in zip(self.start, position, self.jump, strict=True)]
        ends = [start + size for start, size in zip(starts, self.size, strict=True)]
        return tuple((max(a, low), min(b, high)) for a, b, (low, high) in zip(starts, ends, self.edges, strict=True))

    def of_map(self, lengths: Sequence[int]) -> Field:
        """The same of a map of so many positions, beyond which is nothing."""
        steps = zip(self.edges, self.start, self.size, self.jump, lengths, strict=True)
        edges = tuple((max(low, a), min(high, a + (n - 1) * jump + size)) for (low, high), a, size, jump, n in steps)
        return replace(self, edges=edges)


@dataclass(frozen=True)
class Kernel:
    """What an operation does along the axes of the picture: each output sees `extent` inputs, `stride` apart.

    Parameters
    ----------
    extent, stride, padding : tuple of int
        By axis; the padding is the one before the first.
    """

    extent: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def __call__(self, field: Field) -> Field:
        """The field of its output."""
        steps = list(zip(field.start, field.size, field.jump, self.extent, self.stride, self.padding, strict=True))
        return Field(
            axes=field.axes,
            edges=field.edges,
            start=tuple(start - padding * jump for start, _, jump, _, _, padding in steps),
            size=tuple(size + (extent - 1) * jump for _, size, jump, extent, _, _ in steps),
            jump=tuple(jump * stride for _, _, jump, _, stride, _ in steps),
        )


def picture_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes of one stimulus, the batch's counted, along which places lie: all but the channels.

    Parameters
    ----------
    shape : sequence of int
        Of the network's input, without the batch; of a waveform, its samples alone.

    Returns
    -------
    tuple of int
    """
    return (1,) if len(shape) == 1 else tuple(range(2, len(shape) + 1))


def receptive_fields(module: nn.Module, picture: Tensor, layers: Sequence[str]) -> dict[str, Field]:
    """Receptive fields were derived from the operations of a forward pass.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    picture : Tensor, shape (1, ...)
        Any input; of its numbers nothing depends.
    layers : sequence of str
        Dotted names, with or without ``#`` and the number of a call.

    Returns
    -------
    dict of str to Field
        Of the layers that were reached.
    """
    found: dict[str, Field] = {}
    calls: dict[str, int] = {}
    watch = Watch(picture)

    def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        tensor = first_tensor(output)
        field = None if tensor is None else watch.field(tensor)
        for layer in {name, f"{name}#{calls[name]}"} & set(layers):
            if field is not None:
                found[layer] = field

    names = dict.fromkeys(layer.partition("#")[0] for layer in layers)
    handles = [module.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
    try:
        with torch.no_grad(), watch:
            module(picture)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: found[layer] for layer in layers if layer in found}


class Watch(TorchFunctionMode):
    """Follows the fields of tensors through the operations that are called meanwhile.

    Parameters
    ----------
    picture : Tensor, shape (1, ...)
        Where they begin.
    """

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        axes = picture_axes(picture.shape[1:])
        n = len(axes)
        sizes = tuple(picture.shape[axis] for axis in axes)
        edges = tuple((0, size) for size in sizes)
        self.all = Field((), (0,) * n, sizes, (0,) * n, edges)
        # Tensors are held, so that none takes the place of another in memory.
        self.known: dict[int, tuple[Tensor, Field]] = {}
        self.kinds: list[Kernel | str] = []
        self._set(picture, Field(axes, (0,) * n, (1,) * n, (1,) * n, edges))

    def field(self, tensor: Tensor) -> Field | None:
        """The field of a tensor; None if it does not depend on the picture."""
        found = self.known.get(id(tensor))
        return found[1] if found else None

    def _set(self, tensor: Tensor, field: Field) -> None:
        self.known[id(tensor)] = tensor, field

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [tensor for tensor in tensors((args, kwargs)) if id(tensor) in self.known]
        if not given:
            self.kinds.append("")
            return func(*args, **kwargs)
        fields = {id(tensor): self.known[id(tensor)][1] for tensor in given}
        kernel = kernel_of(func, args, kwargs)
        if kernel is not None and fields[id(given[0])].axes != tuple(range(2, 2 + len(kernel.extent))):
            kernel = None
        found: list[Field | None] | None = None
        lengths = given[0].shape[2:]
        if kernel is None:
            # Before the operation, which may write over its input.
            found = self._tried(func, args, kwargs, given, fields)
        out = func(*args, **kwargs)
        made = list(tensors(out))
        if kernel is not None:
            before = fields[id(given[0])].of_map(lengths)
            found = [kernel(before)] * len(made)
        assert found is not None
        for tensor, field in zip(made, found, strict=True):
            if field is not None:
                self._set(tensor, field)
        self.kinds.append(kernel or self._kind(made, found, given, fields, args) if made else "")
        return out

    def _kind(
        self, made: list[Tensor], found: list[Field | None], given: list[Tensor], fields: dict[int, Field], args: Any
    ) -> str:
        """Whether places of maps, rows and columns, go through an operation each by itself."""
        axes = {one.axes if one else () for one in (*found, *fields.values())}
        sizes = {tuple(tensor.shape[2:]) for tensor in (*made, *given)}
        # A table of positions that is added fits the whole map only, and no part of it.
        others = {tuple(tensor.shape[-2:]) for tensor in tensors(args) if id(tensor) not in fields}
        return "pointwise" if axes == {(2, 3)} and len(sizes) == 1 and not sizes & others else "whole"

    def _tried(
        self, func: Any, args: Any, kwargs: Any, given: list[Tensor], fields: dict[int, Field]
    ) -> list[Field | None]:
        """Fields of an operation's outputs, of which each input is made not a number at one place."""
        union: list[Field | None] | None = None
        for tensor in given:
            field = fields[id(tensor)]
            place = {axis: tensor.shape[axis] // 3 for axis in field.axes}
            marked = _marked(tensor, place)
            # Copies of the others too, which an operation in place would write over.
            new = {id(one): marked if one is tensor else one.clone() for one in given}
            out = func(*_swapped(args, new), **_swapped(kwargs, new))
            seen = [self._same_place(field, tensor, place, one) for one in tensors(out)]
            union = seen if union is None else [self._both(a, b) for a, b in zip(union, seen, strict=True)]
        assert union is not None
        return union

    def _same_place(self, field: Field, tensor: Tensor, place: dict[int, int], out: Tensor) -> Field | None:
        if field.whole or not (out.is_floating_point() or out.is_complex()):
            return self.all
        bad = torch.isnan(out)
        if not bad.any():
            return self.all
        axes: list[int] = []
        for axis, at in place.items():
            for candidate in range(out.ndim):
                if candidate in axes or out.shape[candidate] != tensor.shape[axis]:
                    continue
                where = bad.movedim(candidate, 0).flatten(1).any(1).nonzero().flatten().tolist()
                if where == [at]:
                    axes.append(candidate)
                    break
            else:
                return self.all
        return replace(field, axes=tuple(axes))

    def _both(self, one: Field | None, other: Field | None) -> Field | None:
        """The field of what depends on both."""
        if one is None or other is None:
            return one or other
        if (one.axes, one.jump) != (other.axes, other.jump) or one.whole:
            return self.all
        start = tuple(map(min, one.start, other.start))
        ends = [max(a + m, b + n) for a, m, b, n in zip(one.start, one.size, other.start, other.size, strict=True)]
        size = tuple(end - a for end, a in zip(ends, start, strict=True))
        edges = tuple((min(a, b), max(c, d)) for (a, c), (b, d) in zip(one.edges, other.edges, strict=True))
        return replace(one, start=start, size=size, edges=edges)


def _marked(tensor: Tensor, place: dict[int, int]) -> Tensor:
    """A copy that is not a number at one place, of all channels."""
    out = tensor.detach().clone()
    index = tuple(place.get(axis, slice(None)) for axis in range(out.ndim))
    if out.is_floating_point() or out.is_complex():
        out[index] = torch.nan
    return out


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)


def _swapped(value: Any, new: dict[int, Tensor]) -> Any:
    """Arguments with other tensors in the place of some."""
    if isinstance(value, Tensor):
        return new.get(id(value), value)
    if isinstance(value, dict):
        return {key: _swapped(part, new) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_swapped(part, new) for part in value)
    return value


def kernel_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Kernel | None:
    """What an operation does along the axes of the picture; None if that has to be found out.

    Parameters
    ----------
    func : callable
        Of torch.
    args, kwargs
        What it is called with.

    Returns
    -------
    Kernel or None
    """
    given = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
    if not isinstance(given, Tensor):
        return None
    if func in CONVOLUTIONS:
        return _of_convolution(CONVOLUTIONS[func], args, kwargs)
    if func in POOLS:
        return _of_pool(POOLS[func], func, args, kwargs)
    if func in ADAPTIVE:
        return _of_adaptive(ADAPTIVE[func], given, args, kwargs)
    if func is F.pad:
        return _of_padding(given, args, kwargs)
    return None


def _argument(args: Sequence[Any], kwargs: dict[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _each(value: Any, n: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return tuple(int(one) for one in (values if len(values) == n else values * n))


def _of_convolution(n: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Kernel:
    weight = _argument(args, kwargs, 1, "weight", None)
    stride = _each(_argument(args, kwargs, 3, "stride", 1), n)
    padding = _argument(args, kwargs, 4, "padding", 0)
    dilation = _each(_argument(args, kwargs, 5, "dilation", 1), n)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else tuple((e - 1) // 2 for e in extent)
    return Kernel(extent, stride, _each(padding, n))


def _of_pool(n: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Kernel:
    size = _each(_argument(args, kwargs, 1, "kernel_size", 1), n)
    stride = _argument(args, kwargs, 2, "stride", None)
    padding = _each(_argument(args, kwargs, 3, "padding", 0), n)
    dilation = _each(_argument(args, kwargs, 4, "dilation", 1) if func in MAXIMA else 1, n)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True))
    return Kernel(extent, size if stride in (None, []) else _each(stride, n), padding)


def _of_adaptive(n: int, given: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Kernel | None:
    asked = _argument(args, kwargs, 1, "output_size", None)
    asked = tuple(asked) if isinstance(asked, tuple | list) else (asked,) * n
    before = tuple(given.shape[-n:])
    after = tuple(length if one is None else int(one) for one, length in zip(asked, before, strict=True))
    if any(b % a for a, b in zip(after, before, strict=True)) or set(after) == {1}:
        return None  # cells of different sizes, or the whole picture
    cells = tuple(b // a for a, b in zip(after, before, strict=True))
    return Kernel(cells, cells, (0,) * n)


def _of_padding(given: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Kernel | None:
    """Of padding that surrounds the picture; what wraps or mirrors it is taken to be nothing."""
    pad = list(_argument(args, kwargs, 1, "pad", ()))
    n = given.ndim - 2
    if n < 1 or any(pad[2 * n :]):
        return None
    before = [*pad[::2], *[0] * n][:n]
    return Kernel((1,) * n, (1,) * n, tuple(before[::-1]))


MAXIMA = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3, torch.max_pool1d: 1, torch.max_pool2d: 2}
POOLS = {**MAXIMA, F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}
CONVOLUTIONS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
ADAPTIVE = {
    F.adaptive_avg_pool1d: 1, F.adaptive_avg_pool2d: 2, F.adaptive_avg_pool3d: 3,
    F.adaptive_max_pool1d: 1, F.adaptive_max_pool2d: 2, F.adaptive_max_pool3d: 3,
}  # fmt: skip
