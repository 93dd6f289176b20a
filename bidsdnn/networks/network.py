"""A network as a value: a torch module, what is done to a picture before it, and where its weights come from.

Layers are the dotted names of the module's submodules. One forward pass records any number of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.preprocessing import blank
from bidsdnn.networks.recorder import Recorder

MAX_CANONICAL = 12
BACKBONE_SHARE = 0.6  # a container with more of the parameters than this is the network itself, not one of its layers


@dataclass(frozen=True, eq=False)
class Network:
    """A network and all that its activations depend on.

    Parameters
    ----------
    name : str
        The row of the zoo, or ``file:object`` of a user's own.
    module : nn.Module
        In evaluation mode.
    preprocess : callable
        From what `bidsdnn.stimuli.LOADERS` gives to a float tensor, of one shape for all stimuli: of a PIL image,
        (channels, height, width); of the pair of a film's frames and their rate, (channels, frames, height, width);
        of the pair of a sound's samples and their rate, what the network takes.
    preprocessing : str
        What `preprocess` does, in words that go into the records.
    weights : str
        ``none`` for seeded random weights, a name such as ``IMAGENET1K_V1``, or a file's name.
    seed : int or None
        Of the random weights.
    weights_sha256 : str
        Hash of the weights file; of the module's state where there is no file.
    modality : str
        What the network sees; a row of `bidsdnn.stimuli.LOADERS`.
    alias : str, optional
        The user's name for it; replaces the label.
    source : str
        Where the architecture comes from.
    short : mapping of str to str
        Names by which papers call layers, to their dotted names.
    listed : tuple of str
        Layers that are analysed when none are asked for; where empty, `canonical_layers` finds them.
    changes : tuple of str
        What `bidsdnn.networks.surgery` did to it, in clauses that go into the records.
    """

    name: str
    module: nn.Module
    preprocess: Callable[[Any], Tensor]
    preprocessing: str
    weights: str
    seed: int | None
    weights_sha256: str
    modality: str = "image"
    alias: str | None = None
    source: str = "torchvision"
    short: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The network's name in file names: letters, digits and ``+``; different weights differ in it."""
        if self.alias:
            return _sanitised(self.alias)
        if self.weights == "none":
            parts = [self.name, "none"] + ([] if self.seed is None else [f"seed{self.seed}"])
        elif re.fullmatch(r"[A-Z][A-Z0-9_]*", self.weights):
            parts = [self.name, self.weights.replace("_", "")]
        else:
            parts = [self.name, PurePath(self.weights).stem, self.weights_sha256[:8]]
        return _sanitised("+".join(parts))

    @property
    def layers(self) -> list[str]:
        """Dotted names of all submodules, in the module's order."""
        return [name for name, _ in self.module.named_modules() if name]

    def canonical(self) -> list[str]:
        """Return the at most 12 layers that are analysed when none are asked for; see `canonical_layers`."""
        return list(self.listed) or canonical_layers(self.module)

    def select(self, patterns: Iterable[str]) -> list[str]:
        """Find layers by name, shell-style pattern or depth.

        Parameters
        ----------
        patterns : iterable of str
            A layer's whole name, a short one, as ``conv5`` of AlexNet, or a glob as ``features.*``; case counts.
            ``relu#2`` is the second call of a module in one forward pass. ``@0.5`` is the canonical layer at half
            the depth, ``@0`` the first, ``@1`` the last.

        Returns
        -------
        list of str
            Layers that match any pattern, in the module's order; empty if none does.

        Raises
        ------
        ConfigError
            If a depth is no number from 0 to 1.
        """
        order = {layer: place for place, layer in enumerate(self.layers)}
        found: set[str] = set()
        for pattern in patterns:
            if pattern.startswith("@"):
                found.add(self._at_depth(pattern))
                continue
            glob, mark, call = pattern.partition("#")
            glob = self.short.get(glob, glob)
            found |= {layer + mark + call for layer in order if fnmatchcase(layer, glob)}
        return self.in_order(found)

    def in_order(self, layers: Iterable[str]) -> list[str]:
        """Sort layers as they stand in the module, each once; calls of one module by their numbers."""
        order = {layer: place for place, layer in enumerate(self.layers)}
        split = [(layer, *layer.partition("#")[::2]) for layer in set(layers)]
        return [layer for layer, _, _ in sorted(split, key=lambda one: (order[one[1]], len(one[2]), one[2]))]

    def _at_depth(self, pattern: str) -> str:
        try:
            depth = float(pattern[1:])
        except ValueError:
            depth = -1.0
        if not 0 <= depth <= 1:
            raise ConfigError(f"layer {pattern!r}: after @ stands a depth from 0 (first) to 1 (last), as in @0.5")
        names = self.canonical()
        return names[int(depth * (len(names) - 1) + 0.5)]

    def shapes(self, layers: Sequence[str] | None = None) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Measure what layers give for one picture, by one forward pass of a grey or silent one.

        Parameters
        ----------
        layers : sequence of str, optional
            Default: every layer that a forward pass reaches and whose output is a table of pictures.

        Returns
        -------
        dict of str to (str, tuple of int)
            Type of the submodule, and shape of its output without the batch axis.

        Raises
        ------
        ConfigError
            If a layer that was asked for does not exist, or is not reached by a forward pass.
        """
        asked = self.layers if layers is None else list(layers)
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        batch = self.preprocess(blank(self.modality)).unsqueeze(0).to(device)
        with Recorder(self.module, asked, lenient=layers is None) as record, torch.inference_mode():
            seen = record(batch)
        return {name: (self._type(name), tuple(seen[name].shape[1:])) for name in seen}

    def _type(self, layer: str) -> str:
        return type(self.module.get_submodule(layer.partition("#")[0])).__name__


def canonical_layers(module: nn.Module, *, most: int = MAX_CANONICAL) -> list[str]:
    """Choose the layers that tell a network's story, by one rule for all architectures.

    The module is opened, and in it every ``Sequential`` and ``ModuleList``, and any other container that
    holds more than 60 % of the parameters; what remains closed (a residual block, say) is one layer. Parts
    that compute nothing learnt and are no activation (dropout, pooling, reshaping) are left out. A
    convolution, linear map or normalisation directly followed by its normalisation or activation is
    represented by the latter. Of more than `most` layers, `most` are taken at even spacing, the first and
    the last among them.

    Parameters
    ----------
    module : nn.Module
        Any network.
    most : int
        The largest number of layers.

    Returns
    -------
    list of str
        Dotted names, in the module's order.
    """
    total = sum(parameter.numel() for parameter in module.parameters())
    found = _expanded("", module, total) or [name for name, part in module.named_modules() if name and _is_leaf(part)]
    if len(found) <= most:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]


def _expanded(prefix: str, module: nn.Module, total: int) -> list[str]:
    """Name the layers of a container that is opened."""
    # A subclass of Sequential is a block that somebody gave a name, and stays closed.
    in_order = isinstance(module, nn.Sequential)
    parts = [(f"{prefix}{name}", child) for name, child in module.named_children() if not _is_transparent(child)]
    names: list[str] = []
    for i, (name, child) in enumerate(parts):
        share = sum(parameter.numel() for parameter in child.parameters()) / max(total, 1)
        opened = type(child) in (nn.Sequential, nn.ModuleList, nn.ModuleDict) or share > BACKBONE_SHARE
        if opened and not _is_leaf(child):
            names += _expanded(f"{name}.", child, total)
        elif i + 1 == len(parts) or not _goes_on_in(child, parts[i + 1][1], in_order=in_order):
            names.append(name)
    return names


def _goes_on_in(module: nn.Module, following: nn.Module, *, in_order: bool) -> bool:
    """Tell whether the next module finishes this one, as a ReLU does its convolution.

    Outside a Sequential the order of registration is not the order of calls; there, only the chain
    convolution, batch normalisation, activation is trusted.
    """
    kind, after = _kind(module), _kind(following)
    if in_order:
        return kind in ("conv", "linear", "batchnorm", "normalization") and after in (
            "activation",
            "batchnorm",
            "normalization",
        )
    return (kind, after) in (("conv", "batchnorm"), ("batchnorm", "activation"))


def _kind(module: nn.Module) -> str:
    """Name the file of torch.nn that a module's class, or a base of it, comes from."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.modules.") and base is not nn.Module:
            return base.__module__.rpartition(".")[2]
    return ""


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _is_transparent(module: nn.Module) -> bool:
    """Tell whether a module neither holds numbers nor is an activation."""
    held = next(module.parameters(), None) is not None or next(module.buffers(), None) is not None
    return not held and _kind(module) != "activation"


def _sanitised(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "+", text).strip("+")
