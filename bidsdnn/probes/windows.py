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

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bidsdnn.probes.fields import MAXIMA, Kernel, Watch, tensors
from bidsdnn.probes.gradients import Score

FULL = 0.6
"""Share of a map from which on windows are put back: what is spared is no more than what cutting out costs."""
SIZES = {torch.Tensor.size, torch.Tensor.shape.__get__}  # type: ignore[attr-defined]

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """Windows on maps.

    Parameters
    ----------
    windows : Tensor, shape (n, channels, height, width)
        What the tensor holds.
    clean : Tensor, shape (1, channels, rows, columns)
        Maps of the unchanged picture.
    rows, columns : list of int
        Of the first places of the windows.
    """

    windows: Tensor
    clean: Tensor
    rows: list[int]
    columns: list[int]

    def whole(self) -> Tensor:
        """Maps with the windows in them."""
        out = self.clean.expand(len(self.windows), *self.clean.shape[1:]).clone(memory_format=torch.channels_last)
        height, width = self.windows.shape[2:]
        for k, (row, column) in enumerate(zip(self.rows, self.columns, strict=True)):
            out[k, :, row : row + height, column : column + width] = self.windows[k]
        return out

    def around(self, rows: list[int], columns: list[int], size: tuple[int, int], *, beyond: float) -> Tensor:
        """Larger windows, or others, that begin at other places; `beyond` is the number outside of the map."""
        height, width = size
        bottom, right = self.clean.shape[2:]
        before = max(0, -min(rows)), max(0, -min(columns))
        after = max(0, max(rows) + height - bottom), max(0, max(columns) + width - right)
        ground = F.pad(self.clean, (before[1], after[1], before[0], after[0]), value=beyond)[0]
        shape = (len(self.windows), self.clean.shape[1], height, width)
        out = torch.empty(shape, dtype=ground.dtype, device=ground.device, memory_format=torch.channels_last)
        h, w = self.windows.shape[2:]
        for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
            top, left = row + before[0], column + before[1]
            out[k] = ground[:, top : top + height, left : left + width]
            # What of the old window lies in the new one.
            i, j = self.rows[k] - row, self.columns[k] - column
            up, down, first, last = max(i, 0), min(i + h, height), max(j, 0), min(j + w, width)
            if up < down and first < last:
                out[k, :, up:down, first:last] = self.windows[k, :, up - i : down - i, first - j : last - j]
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

    def __call__(self, boxes: Sequence[Box]) -> Tensor:
        """What the score gives for a picture with each box filled.

        Parameters
        ----------
        boxes : sequence of ((int, int), (int, int))
            First row and one after the last, and the same of columns.

        Returns
        -------
        Tensor, shape (n, n_units)
        """
        height, width = self._size
        bottom, right = self._picture.shape[2:]
        rows = [min(top, bottom - height) for (top, _), _ in boxes]
        columns = [min(left, right - width) for _, (left, _) in boxes]
        plain = _Part(self._picture[:, :, :0, :0].expand(len(boxes), -1, -1, -1), self._picture, rows, columns)
        given = plain.around(rows, columns, (height, width), beyond=0.0)
        for k, ((top, down), (left, last)) in enumerate(boxes):
            given[k, :, top - rows[k] : down - rows[k], left - columns[k] : last - columns[k]] = self._fill
        mode = _Local(_Part(given, self._picture, rows, columns), self._kinds, self._clean)
        with torch.no_grad(), mode:
            found = self._score(given)
        return found


class _Local(TorchFunctionMode):
    """Runs operations on windows instead of maps, as long as they are small."""

    def __init__(self, part: _Part, kinds: Sequence[Kernel | str], clean: dict[int, list[Tensor]]) -> None:
        super().__init__()
        self.kinds, self.clean = kinds, clean
        self.call = 0
        self.parts: dict[int, _Part] = {id(part.windows): part}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = self.kinds[self.call]
        self.call += 1
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
        new = {id(part.windows): part.whole() for part in given}
        out = func(*_swap(args, new), **_swap(kwargs, new))
        # An operation in place wrote on the map and not on the window, which may be used again.
        for part in given:
            if out is new[id(part.windows)]:
                self.parts.pop(id(part.windows))
        return out

    def _pointwise(self, func: Any, args: Any, kwargs: Any, given: list[_Part]) -> Any:
        size = given[0].clean.shape[2:]
        if any(tensor.shape[2:] == size for tensor in tensors((args, kwargs)) if id(tensor) not in self.parts):
            return None  # another input is in whole maps already
        rows = [min(starts) for starts in zip(*(part.rows for part in given), strict=True)]
        columns = [min(starts) for starts in zip(*(part.columns for part in given), strict=True)]
        reach = _reach(given, rows, columns)
        rows, columns, narrow = _fitted(rows, columns, reach, size)
        if not narrow:
            return None
        new = {
            id(p.windows): p.windows
            if (p.rows, p.columns, tuple(p.windows.shape[2:])) == (rows, columns, reach)
            else p.around(rows, columns, reach, beyond=0.0)
            for p in given
        }
        clean = self._of_clean(func, args, kwargs, given)
        return self._kept(func(*_swap(args, new), **_swap(kwargs, new)), clean, rows, columns)

    def _windowed(self, kernel: Kernel, func: Any, args: Any, kwargs: Any, part: _Part) -> Any:
        clean = self._of_clean(func, args, kwargs, [part])
        shape = clean[0].shape[2:]
        starts, sizes = [], []
        for axis, begin in enumerate((part.rows, part.columns)):
            extent, stride, padding = kernel.extent[axis], kernel.stride[axis], kernel.padding[axis]
            # Output o sees inputs from o * stride - padding on.
            sizes.append((part.windows.shape[2 + axis] + extent - 2) // stride + 1)
            starts.append([-((extent - 1 - padding - at) // stride) for at in begin])
        rows, columns, narrow = _fitted(starts[0], starts[1], (sizes[0], sizes[1]), shape)
        if not narrow:
            return None
        from_ = [
            [o * kernel.stride[axis] - kernel.padding[axis] for o in at] for axis, at in enumerate((rows, columns))
        ]
        length = [(sizes[axis] - 1) * kernel.stride[axis] + kernel.extent[axis] for axis in (0, 1)]
        beyond = -torch.inf if func in MAXIMA else 0.0
        cut = part.around(from_[0], from_[1], (length[0], length[1]), beyond=beyond)
        out = _without_padding(func, args, kwargs, {id(part.windows): cut})
        return None if out is None else self._kept(out, clean, rows, columns)

    def _of_clean(self, func: Any, args: Any, kwargs: Any, given: list[_Part]) -> list[Tensor]:
        """What an operation gives for the unchanged picture: of its first batch, and known from then on."""
        if self.call not in self.clean:
            new = {id(part.windows): part.clean.clone() for part in given}
            self.clean[self.call] = list(tensors(func(*_swap(args, new), **_swap(kwargs, new))))
        return self.clean[self.call]

    def _kept(self, out: Any, clean: list[Tensor], rows: list[int], columns: list[int]) -> Any:
        for tensor, known in zip(tensors(out), clean, strict=True):
            self.parts[id(tensor)] = _Part(tensor, known, rows, columns)
        return out


def _asked(func: Any, args: Any, kwargs: Any, part: _Part) -> Any:
    """What is asked of a tensor without any new one, as its size: that of whole maps."""
    if func in SIZES or getattr(func, "__name__", "") == "size":
        shape = torch.Size((len(part.windows), *part.clean.shape[1:]))
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        return shape if axis is None else shape[axis]
    return func(*args, **kwargs)


def _reach(given: Sequence[_Part], rows: list[int], columns: list[int]) -> tuple[int, int]:
    """Rows and columns of the smallest windows from some places on that hold those of all parts."""
    pairs = [(part, k) for part in given for k in range(len(rows))]
    height = max(part.rows[k] + part.windows.shape[2] - rows[k] for part, k in pairs)
    return height, max(part.columns[k] + part.windows.shape[3] - columns[k] for part, k in pairs)


def _fitted(
    rows: list[int], columns: list[int], size: tuple[int, int], shape: Sequence[int]
) -> tuple[list[int], list[int], bool]:
    """Windows moved into the map, and whether they are small enough to be worth it."""
    (height, width), (bottom, right) = size, shape
    narrow = height <= bottom and width <= right and height * width < FULL * bottom * right
    rows = [min(max(row, 0), bottom - height) for row in rows]
    return rows, [min(max(column, 0), right - width) for column in columns], narrow


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
