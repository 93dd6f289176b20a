"""What is made of a layer's output before it is stored, from one stimulus at a time: nothing here is fitted.

In this order: the token of a transformer, the channels and units of interest, pooling over positions, and a sparse
random projection. What is fitted to stimuli (principal components, z-scores) belongs into folds and is not here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bidsdnn.errors import ConfigError
from bidsdnn.methods.reduce import histogram, power_spectrum, sparse_projection
from bidsdnn.networks.axes import channel_axis

TOKENS = ("all", "cls", "mean")
POOLING = {
    "max": "its maximum", "mean": "its mean", "median": "its median",
    "l1": "the sum of its absolute values", "l2": "the root of its sum of squares",
}  # fmt: skip
NUMBERED = {
    "grid": "the means in the cells of a grid of {0} x {0}",
    "histogram": "the counts in {0} equal bins from its least to its largest value",
    "psd": "the first {0} entries of its periodogram",
}
AXES = ("channel", "row", "column")

Mask = Mapping[str, Mapping[str, Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Stateless reduction of activations; the default changes nothing.

    Parameters
    ----------
    tokens : str
        Of outputs of shape (tokens, values): ``all``, the first one (``cls``), or their ``mean``.
    mask : mapping of str to mapping of str to sequence of int
        By layer or glob: indices from 0 along ``channel``, ``row`` and ``column`` that are kept.
    pooling : str, optional
        Over positions, for each channel: ``max``, ``mean``, ``median``, ``l1``, ``l2``; ``grid:N``, the means in the
        cells of an N x N grid; ``histogram:N``, the counts in N bins; ``psd:N``, the first N powers of the spectrum.
    projection : int, optional
        Random dimensions of layers that have more units.
    dtype : str
        ``float32`` or ``float16``, of what is stored.
    seed : int
        Of the projection.
    modules : mapping of str to nn.Module
        By layer, from which `channel_axis` knows where its channels are; of others the shape decides.
    channels : dict of str to int
        By layer that was reduced, which axis of what is stored has the channels; filled by each call.

    Raises
    ------
    ConfigError
        If a name, an axis or a number is not one of these.
    """

    tokens: str = "all"
    mask: Mask = field(default_factory=dict)
    pooling: str | None = None
    projection: int | None = None
    dtype: str = "float32"
    seed: int = 0
    modules: Mapping[str, nn.Module] = field(default_factory=dict, repr=False)
    channels: dict[str, int] = field(default_factory=dict, repr=False)
    _matrices: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise ConfigError(f"--tokens {self.tokens}: choose one of {', '.join(TOKENS)}")
        if self.pooling is not None and self.pooling not in POOLING and not self._number:
            raise ConfigError(
                f"--pooling {self.pooling}: choose one of {', '.join(POOLING)}, grid:N, histogram:N, psd:N, as grid:4"
            )
        if self.projection is not None and self.projection < 1:
            raise ConfigError(f"--projection {self.projection}: give a number of dimensions from 1, or auto")
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"--activation-dtype {self.dtype}: choose float32 or float16")
        for layer, axes in self.mask.items():
            for axis, indices in axes.items():
                if axis not in AXES:
                    raise ConfigError(f"mask of layer {layer}: {axis!r} is no axis; choose one of {', '.join(AXES)}")
                if not len(indices) or min(indices) < 0 or len(set(indices)) < len(indices):
                    raise ConfigError(
                        f"mask of layer {layer}: {axis} = {list(indices)[:8]}: give different numbers counted from 0"
                    )

    @property
    def _number(self) -> int:
        """N of ``grid:N`` and its like; 0 for others."""
        name, _, number = (self.pooling or "").partition(":")
        return int(number) if name in NUMBERED and number.isdigit() else 0

    @property
    def sentence(self) -> str:
        """What is made of activations, in sentences for the Methods; empty if nothing is."""
        said = {
            f"Of a transformer's tokens {'the first' if self.tokens == 'cls' else 'the mean'} was taken.":
                self.tokens != "all",
            f"Of {', '.join(self.mask)}, chosen channels, rows and columns were kept.": any(self.mask.values()),
            f"Each channel was summarised over its positions by {self._summary}; layers without positions "
            "stayed as they were.": self.pooling,
            f"Layers with more units were projected to {self.projection} random dimensions (Li et al., 2006).":
                self.projection,
            "Activations were stored in half precision.": self.dtype == "float16",
        }  # fmt: skip
        return " ".join(text for text, wanted in said.items() if wanted)

    @property
    def _summary(self) -> str:
        name = (self.pooling or "").partition(":")[0]
        return NUMBERED[name].format(self._number) if self._number else POOLING.get(name, "")

    def described(self) -> dict[str, Any]:
        """What differs from the default, for hashes and sidecars; empty if nothing does."""
        content: dict[str, Any] = {
            "Tokens": self.tokens if self.tokens != "all" else None,
            "Mask": {layer: {a: list(i) for a, i in axes.items()} for layer, axes in self.mask.items() if axes},
            "Pooling": self.pooling,
            "Projection": self.projection,
            "ProjectionSeed": self.seed if self.projection else None,
            "ActivationType": self.dtype if self.dtype != "float32" else None,
        }
        return {key: value for key, value in content.items() if value not in (None, {})}

    def __call__(self, layer: str, values: Tensor) -> Tensor:
        """Reduce one layer's output.

        Parameters
        ----------
        layer : str
            Its name, with or without ``#`` and the number of a call.
        values : Tensor, shape (n, ...)

        Returns
        -------
        Tensor, shape (n, ...)
            The same tensor, or a view of it, where there is nothing to do.

        Raises
        ------
        ConfigError
            If a mask names an index, or an axis, that the layer does not have.
        """
        channel = channel_axis(values.shape[1:], self.modules.get(layer.partition("#")[0]))
        if self.tokens != "all" and values.ndim == 3 and channel == 1:
            values, channel = (values[:, 0] if self.tokens == "cls" else values.mean(1)), 0
        for pattern, axes in self.mask.items():
            if axes and (layer == pattern or fnmatchcase(layer.partition("#")[0], pattern)):
                values = _masked(layer, values, axes, channel)
        if self.pooling and values.ndim > 2:
            values, channel = self._pooled(layer, values.movedim(channel + 1, 1)), 0
        values = self._projected(layer, values) if self.projection else values
        self.channels[layer] = channel if values.ndim > 2 else 0
        return values

    def _pooled(self, layer: str, values: Tensor) -> Tensor:
        how, number = str(self.pooling).partition(":")[0], self._number
        if how == "grid":
            size = [min(number, length) for length in values.shape[2:]]
            pool: Any = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)
            if len(size) > len(pool):
                raise ConfigError(
                    f"--pooling {self.pooling}: activations of shape {tuple(values.shape[1:])} have no grid"
                )
            pooled: Tensor = pool[len(size) - 1](values, size if len(size) > 1 else size[0])
            return pooled
        if not number:
            return pool_positions(values.flatten(2), how)
        try:
            table = values.flatten(2).to("cpu", torch.float32).numpy()
            made = histogram(table, number) if how == "histogram" else power_spectrum(table, number)
        except ValueError as error:
            raise ConfigError(f"--pooling {self.pooling}: layer {layer}: {error}; give another number") from error
        return torch.from_numpy(made.astype(np.float32))

    def __deepcopy__(self, memo: dict[int, Any]) -> Reduction:
        """Return itself: it is a value, and what it holds besides are caches."""
        return self

    def units(self, layer: str, shape: Sequence[int]) -> int:
        """Numbers that are left of a layer's output, of some shape for each stimulus, before it is projected."""
        return replace(self, projection=None)(layer, torch.zeros(1, *shape)).numel()

    def projection_matrix(self, layer: str, units: int) -> Any:
        """The sparse random matrix (dimensions, units) that layer, units and seed determine; None if none is taken."""
        if self.projection is None or units <= self.projection:
            return None
        with self._lock:
            if (layer, units) not in self._matrices:
                text = f"{self.seed} {layer} {units}".encode()
                seed = int.from_bytes(hashlib.sha256(text).digest()[:4], "little")
                self._matrices[layer, units] = sparse_projection(units, self.projection, seed=seed)
            return self._matrices[layer, units]

    def _projected(self, layer: str, values: Tensor) -> Tensor:
        matrix = self.projection_matrix(layer, values[0].numel())
        if matrix is None:
            return values
        flat = values.flatten(1).to("cpu", torch.float32).numpy()
        return torch.from_numpy(np.ascontiguousarray((matrix @ flat.T).T))


def pool_positions(values: Tensor, how: str) -> Tensor:
    """Summarise the last axis.

    Parameters
    ----------
    values : Tensor, shape (n, channels, positions)
    how : str
        ``max``, ``mean``, ``median`` (of an even number, the mean of the middle two), ``l1`` (sum of absolute
        values) or ``l2`` (square root of the sum of squares).

    Returns
    -------
    Tensor, shape (n, channels)
        NaN where a position is NaN.
    """
    if how == "max":
        return values.amax(-1)
    if how == "mean":
        return values.mean(-1)
    if how == "median":
        ordered, size = values.sort(-1).values, values.shape[-1]
        middle = (ordered[..., (size - 1) // 2] + ordered[..., size // 2]) / 2
        return torch.where(ordered[..., -1].isnan(), torch.nan, middle)  # NaN is sorted to the end
    # The norm's gradient is zero where all is zero, and not the NaN that a root has there.
    return values.abs().sum(-1) if how == "l1" else torch.linalg.vector_norm(values, dim=-1)


def _masked(layer: str, values: Tensor, axes: Mapping[str, Sequence[int]], channel: int) -> Tensor:
    """Keep the indices of interest."""
    rest = [axis for axis in range(values.ndim - 1) if axis != channel]
    # Of films, the last two axes are rows and columns; of tokens, the only one is rows.
    of = {"channel": channel} | dict(zip(AXES[1:], rest[-2:], strict=False))
    for name, indices in axes.items():
        if name not in of:
            raise ConfigError(f"mask of layer {layer}: shape {tuple(values.shape[1:])} has no {name}; leave it out")
        size = values.shape[of[name] + 1]
        if max(indices) >= size:
            raise ConfigError(f"mask of layer {layer}: {name} {max(indices)} is not there; it has 0 to {size - 1}")
        values = values.index_select(of[name] + 1, torch.tensor(list(indices), device=values.device))
    return values
