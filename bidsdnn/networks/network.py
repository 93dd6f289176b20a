"""A network as a value: a torch module, what is done to a picture before it, and where its weights come from.

Layers are the dotted names of the module's submodules. One forward pass records any number of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.preprocessing import blank

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
        """Find layers by shell-style patterns.

        Parameters
        ----------
        patterns : iterable of str
            As ``features.*``, a layer's whole name, or a short one, as ``conv5`` of AlexNet; case counts.

        Returns
        -------
        list of str
            Layers that match any pattern, in the module's order; empty if none does.
        """
        wanted = [self.short.get(pattern, pattern) for pattern in patterns]
        return [layer for layer in self.layers if any(fnmatchcase(layer, pattern) for pattern in wanted)]

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
        return {name: (type(self.module.get_submodule(name)).__name__, tuple(seen[name].shape[1:])) for name in seen}


class Recorder:
    """Forward hooks that copy the outputs of layers, as float32 in main memory, while the context lasts.

    The copy is made at once, because a following in-place activation would overwrite the output. Of a tuple,
    list or mapping the first tensor is taken; of a module called several times in one forward pass, the last
    call. Threads may share one recorder: each sees its own batch only.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; its forward pass must not keep state on the module if threads share it.
    layers : sequence of str
        Dotted names of submodules.
    lenient : bool
        Whether layers that are not reached, or give no table of pictures, are left out and are no error.

    Raises
    ------
    ConfigError
        If a layer does not exist.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str], *, lenient: bool = False) -> None:
        modules = dict(module.named_modules())
        for layer in layers:
            if not layer or layer not in modules:
                raise ConfigError(f"layer {layer!r} is not in the network; {closest(layer, filter(None, modules))}")
        self._module = module
        self._lenient = lenient
        self._layers = {layer: modules[layer] for layer in layers}
        self._local = threading.local()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        try:
            for layer, module in self._layers.items():
                self._handles.append(module.register_forward_hook(partial(self._hook, layer)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if self._lenient and (tensor is None or tensor.ndim == 0 or len(tensor) != self._local.size):
            return
        if tensor is None:
            raise ConfigError(f"layer {layer!r} gives {type(output).__name__}, which holds no tensor; choose another")
        if tensor.ndim == 0 or len(tensor) != self._local.size:
            raise ConfigError(
                f"layer {layer!r} gives shape {tuple(tensor.shape)} for {self._local.size} pictures: "
                "its first axis is not the pictures; choose another layer"
            )
        kept = tensor.detach()[: self._local.keep]
        self._local.seen[layer] = kept.to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)

    def __call__(self, batch: Tensor, *, keep: int | None = None) -> dict[str, Tensor]:
        """Run a batch and return what the layers gave.

        Parameters
        ----------
        batch : Tensor, shape (n, ...)
            The module's input.
        keep : int, optional
            Record the first pictures of the batch only.

        Returns
        -------
        dict of str to Tensor of float32, shape (keep, ...)
            In the order of the layers asked for.

        Raises
        ------
        ConfigError
            If a layer was not reached, or its output is no table of pictures.
        """
        self._local.size, self._local.keep, self._local.seen = len(batch), keep, {}
        self._module(batch)
        seen: dict[str, Tensor] = self._local.seen
        self._local.seen = {}
        unreached = [layer for layer in self._layers if layer not in seen]
        if unreached and not self._lenient:
            named = ", ".join(unreached[:5])
            raise ConfigError(f"layer {named} is never reached by a forward pass of the network; leave it out")
        return {layer: seen[layer] for layer in self._layers if layer in seen}


def _first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in a module's output, whatever holds it."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):  # of which the outputs of HuggingFace's models are a kind
        output = list(output.values())
    if isinstance(output, tuple | list):
        found = (_first_tensor(part) for part in output)
        return next((tensor for tensor in found if tensor is not None), None)
    return None


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
