"""A picture that differs from another in a small part, through a network: only what the part reaches is computed.

The operations of a forward pass are known from `bidsdnn.probes.fields.Watch`. A tensor stands for whole maps and
holds, of each, the window that differs from the map of the unchanged picture. Convolutions and pooling take the
surroundings of a window from that map; operations that leave places where they are run on windows as they are; before
any other, and where windows fill half of the map, they are put back into whole maps. The module is not changed, and
notices nothing: sizes that it asks for are those of whole maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bidsdnn.probes.fields import MAXIMA, Kernel, Watch, tensors
from bidsdnn.probes.gradients import Score

FULL = 0.85
"""Share of maps from which on windows are put back: what is spared is no more than what cutting out costs."""
ALIKE = 24
"""Windows of one size: the fewer, the better the size fits each; the more, the better a matrix product is filled."""
SIZES = {torch.Tensor.size, torch.Tensor.shape.__get__}  # type: ignore[attr-defined]

Box = tuple[tuple[int, int], ...]
Places = tuple[list[int], list[int], tuple[int, int]]
"""First rows and first columns of windows, and their size."""


def alike(boxes: Sequence[Box], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Split boxes into sets that lie about equally far from the edges: as they grow, they are cut off alike.

    Parameters
    ----------
    boxes : sequence of ((int, int), (int, int))
    lengths : sequence of int
        Of the picture.
    most : int
        Boxes of a set.

    Returns
    -------
    list of list of int
        Numbers of the boxes.
    """
    near = np.array([[min(a, n - b) for (a, b), n in zip(box, lengths, strict=True)] for box in boxes])
    left, done = [np.arange(len(boxes))], []
    while left:
        some = left.pop()
        if len(some) <= most:
            done.append(some.tolist())
            continue
        axis = np.ptp(near[some], axis=0).argmax()
        order = some[np.argsort(near[some, axis], kind="stable")]
        left += [order[len(order) // 2 :], order[: len(order) // 2]]
    return done


@dataclass(frozen=True, eq=False)
class _Cut:
    """Windows of one size.

    Parameters
    ----------
    windows : Tensor, shape (n, channels, height, width)
    rows, columns : list of int
        Of the first places of the windows.
    """

    windows: Tensor
    rows: list[int]
    columns: list[int]

    @property
    def places(self) -> Places:
        return self.rows, self.columns, (self.windows.shape[2], self.windows.shape[3])

    def around(self, ground: Tensor, places: Places) -> Tensor:
        """Larger windows, or others, on a map that begins where the places count from."""
        rows, columns, (height, width) = places
        shape = (len(rows), ground.shape[0], height, width)
        out = torch.empty(shape, dtype=ground.dtype, device=ground.device, memory_format=torch.channels_last)
        h, w = self.windows.shape[2:]
        for k, (top, left) in enumerate(zip(rows, columns, strict=True)):
            out[k] = ground[:, top : top + height, left : left + width]
            # What of the old window lies in the new one.
            i, j = self.rows[k] - top, self.columns[k] - left
            up, down, first, last = max(i, 0), min(i + h, height), max(j, 0), min(j + w, width)
            if up < down and first < last:
                out[k, :, up:down, first:last] = self.windows[k, :, up - i : down - i, first - j : last - j]
        return out


@dataclass(frozen=True, eq=False)
class _Part:
    """Windows on maps, of a few sizes; the first ones are the tensor that stands for all.

    Parameters
    ----------
    cuts : list of _Cut
    clean : Tensor, shape (1, channels, rows, columns)
        Maps of the unchanged picture.
    """

    cuts: list[_Cut]
    clean: Tensor

    @property
    def name(self) -> int:
        """By which the tensor is known that stands for all."""
        return id(self.cuts[0].windows)

    def whole(self) -> Tensor:
        """Maps with the windows in them."""
        n = sum(len(cut.rows) for cut in self.cuts)
        out = self.clean.expand(n, *self.clean.shape[1:]).clone(memory_format=torch.channels_last)
        at = 0
        for cut in self.cuts:
            rows, columns, (height, width) = cut.places
            for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
                out[at, :, row : row + height, column : column + width] = cut.windows[k]
                at += 1
        return out

    def around(self, places: Sequence[Places], *, beyond: float = 0.0) -> list[Tensor]:
        """Larger windows, or others, that begin at other places; `beyond` is the number outside of the map.

        Where they are the same windows, these are given and not copies.
        """
        if list(places) == [cut.places for cut in self.cuts]:
            return [cut.windows for cut in self.cuts]
        pads = []
        for axis, length in enumerate(self.clean.shape[2:]):
            before = max(0, -min(min(one[axis]) for one in places))
            pads.append((before, max(0, max(max(one[axis]) + one[2][axis] for one in places) - length)))
        (up, down), (left, right) = pads
        ground = F.pad(self.clean, (left, right, up, down), value=beyond)[0]
        out = []
        for cut, (rows, columns, size) in zip(self.cuts, places, strict=True):
            moved = _Cut(cut.windows, [row + up for row in cut.rows], [column + left for column in cut.columns])
            out.append(moved.around(ground, ([row + up for row in rows], [column + left for column in columns], size)))
        return out


class Windows:
    """Runs a score for copies of a picture in which one box each is filled.

    Parameters
    ----------
    score : callable
    size : tuple of int
        Rows and columns of the largest box.
    fill : float
        What the boxes hold.
    """

    def __init__(self, score: Score, size: Sequence[int], fill: float) -> None:
        self._score, self._fill = score, fill
        self._size = size[0], size[1]
        self._kinds: list[Kernel | str] = []
        self._clean: dict[int, list[Tensor]] = {}
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}
        self._picture = torch.empty(0)

    def look_at(self, picture: Tensor) -> None:
        """Choose the picture that boxes are laid on.

        Parameters
        ----------
        picture : Tensor, shape (channels, height, width)
        """
        self._picture = picture[None].contiguous(memory_format=torch.channels_last)
        if not self._kinds:
            given = self._picture.clone()
            watch = Watch(given)
            with torch.no_grad(), watch:
                self._score(given)
            self._kinds = watch.kinds
        self._clean = {}

    def __call__(self, boxes: Sequence[Box], *, most: int = ALIKE) -> Tensor:
        """What the score gives for a picture with each box filled.

        Parameters
        ----------
        boxes : sequence of ((int, int), (int, int))
            First row and one after the last, and the same of columns.
        most : int
            Windows of one size.

        Returns
        -------
        Tensor, shape (n, n_units)
        """
        sets = alike(boxes, self._picture.shape[2:], most)
        part = _Part([self._filled([boxes[k] for k in one]) for one in sets], self._picture)
        with torch.no_grad(), _Local(part, self._kinds, self._clean, self._weights):
            found = self._score(part.cuts[0].windows)
        out = torch.empty_like(found)
        out[[k for one in sets for k in one]] = found
        return out

    def _filled(self, boxes: Sequence[Box]) -> _Cut:
        (height, width), (bottom, right) = self._size, self._picture.shape[2:]
        rows = [min(top, bottom - height) for (top, _), _ in boxes]
        columns = [min(left, right - width) for _, (left, _) in boxes]
        cut = _Cut(self._picture[:, :, :0, :0].expand(len(boxes), -1, -1, -1), rows, columns)
        given = cut.around(self._picture[0], (rows, columns, (height, width)))
        for k, ((top, down), (left, last)) in enumerate(boxes):
            given[k, :, top - rows[k] : down - rows[k], left - columns[k] : last - columns[k]] = self._fill
        return _Cut(given, rows, columns)


class _Local(TorchFunctionMode):
    """Runs operations on windows instead of maps, as long as they are small."""

    def __init__(
        self, part: _Part, kinds: Sequence[Kernel | str], clean: dict[int, list[Tensor]],
        weights: dict[int, tuple[Tensor, Tensor]],
    ) -> None:  # fmt: skip
        super().__init__()
        self.kinds, self.clean, self.weights = kinds, clean, weights
        self.call = 0
        self.parts: dict[int, _Part] = {part.name: part}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = self.kinds[self.call]
        self.call += 1
        if func is F.conv2d:
            args, kwargs = self._laid_out(args, kwargs)
        given = [self.parts[id(tensor)] for tensor in tensors((args, kwargs)) if id(tensor) in self.parts]
        if not given:
            return func(*args, **kwargs)
        if not kind:
            return _asked(func, args, kwargs, given[0])
        done = None
        if isinstance(kind, Kernel):
            done = self._windowed(kind, func, args, kwargs, given[0])
        elif kind == "pointwise":
            done = self._pointwise(func, args, kwargs, given)
        if done is not None:
            return done
        new = {part.name: part.whole() for part in given}
        out = func(*_swap(args, new), **_swap(kwargs, new))
        # An operation in place wrote on the map and not on the window, which may be used again.
        for part in given:
            if out is new[part.name]:
                self.parts.pop(part.name)
        return out

    def _laid_out(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Weights with their channels last, as all maps: else they were brought to that order at every call."""
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if id(weight) in self.parts or weight.requires_grad:
            return args, kwargs
        # The tensor itself is held, so that none takes its place in memory.
        known = self.weights.setdefault(id(weight), (weight, weight.contiguous(memory_format=torch.channels_last)))
        new = {id(weight): known[1]}
        return _swap(args, new), _swap(kwargs, new)

    def _pointwise(self, func: Any, args: Any, kwargs: Any, given: list[_Part]) -> Any:
        size = given[0].clean.shape[2:]
        if any(tensor.shape[2:] == size for tensor in tensors((args, kwargs)) if id(tensor) not in self.parts):
            return None  # another input is in whole maps already
        places = _fitted([_union([cut.places for cut in cuts]) for cuts in _by_cut(given)], size)
        if places is None:
            return None
        clean = self._of_clean(func, args, kwargs, given)
        new = {part.name: part.around(places) for part in given}
        outs = [
            func(*_swap(args, one), **_swap(kwargs, one))
            for one in ({name: windows[k] for name, windows in new.items()} for k in range(len(places)))
        ]
        out = self._kept(outs, clean, places)
        for name, windows in new.items():
            if out is windows[0]:  # in place: the tensor that was written on may be used again
                self.parts[name] = self.parts[id(out)]
        return out

    def _windowed(self, kernel: Kernel, func: Any, args: Any, kwargs: Any, part: _Part) -> Any:
        clean = self._of_clean(func, args, kwargs, [part])
        steps = list(zip(kernel.extent, kernel.stride, kernel.padding, strict=True))
        reached: list[Places] = []
        for cut in part.cuts:
            # Output o sees inputs from o * stride - padding on.
            begin = [
                [-((extent - 1 - padding - at) // stride) for at in begins]
                for (extent, stride, padding), begins in zip(steps, (cut.rows, cut.columns), strict=True)
            ]
            size = [(n + extent - 2) // stride + 1 for (extent, stride, _), n in zip(steps, cut.places[2], strict=True)]
            reached.append((begin[0], begin[1], (size[0], size[1])))
        places = _fitted(reached, clean[0].shape[2:])
        if places is None:
            return None
        from_: list[Places] = []
        for rows, columns, size_ in places:
            begin = [
                [o * stride - padding for o in at]
                for (_, stride, padding), at in zip(steps, (rows, columns), strict=True)
            ]
            length = [(n - 1) * stride + extent for (extent, stride, _), n in zip(steps, size_, strict=True)]
            from_.append((begin[0], begin[1], (length[0], length[1])))
        cuts = part.around(from_, beyond=-torch.inf if func in MAXIMA else 0.0)
        outs = [_without_padding(func, args, kwargs, {part.name: one}) for one in cuts]
        return None if outs[0] is None else self._kept(outs, clean, places)

    def _of_clean(self, func: Any, args: Any, kwargs: Any, given: list[_Part]) -> list[Tensor]:
        """What an operation gives for the unchanged picture: of its first batch, and known from then on."""
        if self.call not in self.clean:
            new = {part.name: part.clean.clone() for part in given}
            self.clean[self.call] = list(tensors(func(*_swap(args, new), **_swap(kwargs, new))))
        return self.clean[self.call]

    def _kept(self, outs: list[Any], clean: list[Tensor], places: list[Places]) -> Any:
        for k, known in enumerate(clean):
            made = [list(tensors(out))[k] for out in outs]
            cuts = [_Cut(windows, rows, columns) for windows, (rows, columns, _) in zip(made, places, strict=True)]
            self.parts[id(made[0])] = _Part(cuts, known)
        return outs[0]


def _asked(func: Any, args: Any, kwargs: Any, part: _Part) -> Any:
    """What is asked of a tensor without any new one, as its size: that of whole maps, of all copies."""
    shape = torch.Size((sum(len(cut.rows) for cut in part.cuts), *part.clean.shape[1:]))
    name = getattr(func, "__name__", "")
    if name in ("__len__", "numel", "nelement"):
        return shape[0] if name == "__len__" else shape.numel()
    if func in SIZES or name == "size":
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        return shape if axis is None else shape[axis]
    return func(*args, **kwargs)


def _by_cut(given: Sequence[_Part]) -> list[tuple[_Cut, ...]]:
    return list(zip(*(part.cuts for part in given), strict=True))


def _union(several: Sequence[Places]) -> Places:
    """The smallest windows that hold those of all."""
    begin, size = [], []
    for axis in (0, 1):
        first = [min(starts) for starts in zip(*(places[axis] for places in several), strict=True)]
        ends = [[at + places[2][axis] for at in places[axis]] for places in several]
        begin.append(first)
        size.append(max(end - at for some in ends for end, at in zip(some, first, strict=True)))
    return begin[0], begin[1], (size[0], size[1])


def _fitted(several: Sequence[Places], shape: Sequence[int]) -> list[Places] | None:
    """Windows cut off where they leave the map; None if they are too large to be worth it."""
    out: list[Places] = []
    for places in several:
        begin, size = [], []
        for axis, length in enumerate(shape):
            first = [min(max(at, 0), length - 1) for at in places[axis]]
            ends = [min(at + places[2][axis], length) for at in places[axis]]
            size.append(max(1, *(end - at for end, at in zip(ends, first, strict=True))))
            begin.append([min(at, length - size[-1]) for at in first])
        out.append((begin[0], begin[1], (size[0], size[1])))
    area = sum(len(rows) * height * width for rows, _, (height, width) in out)
    return out if area < FULL * sum(len(rows) for rows, *_ in out) * shape[0] * shape[1] else None


def _swap(value: Any, new: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return new.get(id(value), value)
    if isinstance(value, dict):
        return {key: _swap(part, new) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_swap(part, new) for part in value)
    return value


def _without_padding(func: Any, args: Sequence[Any], kwargs: dict[str, Any], new: dict[int, Tensor]) -> Any:
    """A convolution or pooling of windows that bring their surroundings with them; None where that is not the same."""
    if func is F.conv2d:
        names: tuple[str, ...] = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    elif func in MAXIMA:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    elif func is F.avg_pool2d:
        names = AVERAGE
    else:
        return None
    asked = {**dict(zip(names, _swap(args, new), strict=False)), **_swap(kwargs, new)}
    if func is F.avg_pool2d and (asked.get("ceil_mode") or asked.get("count_include_pad") is False):
        return None  # by how much is divided depends on the border
    if asked.get("return_indices"):
        return None
    asked |= {"padding": 0} if func is F.conv2d else {"padding": 0, "ceil_mode": False}
    return func(**asked)


AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
