"""Which axis of a layer's output is the channels: first in feature maps, last in tokens and some transformers' maps.

The shape alone does not say it: (64, 64, 96) is a Swin transformer's map or one of 64 channels of a sound. The module
does: what its last part with weights gives has as many channels as that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

_FIRST: dict[type[nn.Module], str] = {
    nn.Conv1d: "out_channels", nn.Conv2d: "out_channels", nn.Conv3d: "out_channels",
    nn.BatchNorm1d: "num_features", nn.BatchNorm2d: "num_features", nn.BatchNorm3d: "num_features",
    nn.GroupNorm: "num_channels",
}  # fmt: skip


def channel_axis(shape: Sequence[int], module: nn.Module | None = None) -> int:
    """Say which axis of one stimulus' activations is the channels.

    Parameters
    ----------
    shape : sequence of int
        Without the axis of stimuli.
    module : nn.Module, optional
        That gave them.

    Returns
    -------
    int
        The first or the last. Of them the one with as many channels as the last part of the module that has weights;
        where both have, the first of a convolution or batch normalisation and the last of others. Where neither has,
        or there is no such part: the first in feature maps; the last in tokens (two axes), and in maps whose last axis
        alone differs from the one before it where that is square, as (14, 14, 192).
    """
    last = len(shape) - 1
    if last < 1:
        return 0
    channels, first = _channels(module)
    fitting = [axis for axis in (0, last) if shape[axis] == channels]
    if fitting:
        return fitting[0] if len(fitting) == 1 or first else last
    return last if len(shape) == 2 or shape[-1] != shape[-2] == shape[-3] else 0


def _channels(module: nn.Module | None) -> tuple[int | None, bool]:
    """Channels of the last part with weights, and whether such parts have them first."""
    parts = [part for part in module.modules() if not any(part.children())] if module is not None else []
    for part in reversed(parts):
        for kind, name in _FIRST.items():
            if isinstance(part, kind):
                return int(getattr(part, name)), True
        if isinstance(part, nn.Linear):
            return part.out_features, False
        if isinstance(part, nn.LayerNorm):
            shape: Any = part.normalized_shape
            # Subclasses, as torchvision's LayerNorm2d, turn maps around before and after.
            return int(shape[-1]), type(part) is not nn.LayerNorm
    return None, True
