"""What layers give in a forward pass, recorded by hooks that later in-place operations cannot reach."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest

Reduce = Callable[[str, Tensor], Tensor]


class Recorder:
    """Forward hooks that keep the outputs of layers, as float32 in main memory, while the context lasts.

    An output is copied at once, because a following in-place activation would overwrite it; copies go to memory that
    `release` gave back, if there is any, as fresh pages cost more than the copying. Where two batches have shown that
    nothing writes over a layer's output, in the same forward pass or the next, it is kept as it is, and watched: if it
    is written over after all, the batch runs again and is copied. (In inference mode tensors cannot be watched.) Of a
    tuple, list or mapping the first tensor is taken. ``name#2`` is what the second call of a module in one forward
    pass gives; the plain name is the last call. Threads may share one recorder: each sees its own batch only.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; its forward pass must not keep state on the module if threads share it.
    layers : sequence of str
        Dotted names of submodules, with or without ``#`` and the number of a call.
    lenient : bool
        Whether layers that are not reached, or give no table of pictures, are left out and are no error; of modules
        that are called several times each call is then recorded too.
    reduce : callable, optional
        Makes less of a layer's output, given its name, before it is kept.

    Raises
    ------
    ConfigError
        If a layer does not exist.
    """

    def __init__(
        self, module: nn.Module, layers: Sequence[str], *, lenient: bool = False, reduce: Reduce | None = None
    ) -> None:
        modules = dict(module.named_modules())
        for layer in layers:
            name, mark, call = layer.partition("#")
            if not name or name not in modules:
                raise ConfigError(f"layer {layer!r} is not in the network; {closest(layer, filter(None, modules))}")
            if mark and not (call.isdigit() and int(call)):
                raise ConfigError(f"layer {layer!r}: after # stands the number of a call from 1, as in {name}#2")
        self._module = module
        self._lenient = lenient
        self._reduce = reduce
        self._layers = list(layers)
        self._hooked = {name: modules[name] for name in (layer.partition("#")[0] for layer in layers)}
        self._local = threading.local()
        self._handles: list[RemovableHandle] = []
        self._free: dict[tuple[tuple[int, ...], bool], list[Tensor]] = {}
        self._copies: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        self._once: dict[str, Tensor] = {}  # outputs that a first batch left as they were
        self._intact: set[str] = set()
        self._changing: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Recorder:
        try:
            for name, module in self._hooked.items():
                self._handles.append(module.register_forward_hook(partial(self._hook, name)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if self._lenient and (tensor is None or tensor.ndim == 0 or len(tensor) != self._local.size):
            return
        if tensor is None:
            raise ConfigError(f"layer {name!r} gives {type(output).__name__}, which holds no tensor; choose another")
        if tensor.ndim == 0 or len(tensor) != self._local.size:
            raise ConfigError(
                f"layer {name!r} gives shape {tuple(tensor.shape)} for {self._local.size} pictures: "
                "its first axis is not the pictures; choose another layer"
            )
        calls = self._local.calls
        calls[name] = calls.get(name, 0) + 1
        for layer in (name, f"{name}#{calls[name]}"):
            if self._lenient or layer in self._layers:
                self._keep(layer, tensor)

    def _keep(self, layer: str, tensor: Tensor) -> None:
        local = self._local
        kept = tensor.detach()[: local.keep]
        if self._reduce:
            kept = self._reduce(layer, kept)
        if _can_stay(kept):
            if kept.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                local.seen[layer] = kept  # made by the reduction, and nobody else's
                return
            if not kept.is_inference() and layer not in self._changing:
                local.watched[layer] = kept, kept._version
                if layer in self._intact:
                    local.seen[layer] = kept
                    return
        copy = self._empty(tuple(kept.shape))
        local.seen[layer] = copy.copy_(kept)

    def _learn(self, seen: dict[str, Tensor], watched: dict[str, tuple[Tensor, int]]) -> bool:
        """Find out which outputs stay as they are; whether all that were kept without a copy did."""
        whole = True
        for layer, (output, before) in watched.items():
            held = seen[layer] is output
            same = output._version == before and (held or torch.equal(output, seen[layer]))
            with self._lock:
                first = None if held else self._once.pop(layer, None)
                if not same or (first is not None and first.data_ptr() == output.data_ptr()):
                    # Written over in this pass; or the module's own memory, which the next pass writes over.
                    self._changing.add(layer)
                    self._intact.discard(layer)
                    whole &= not held
                elif first is not None:
                    self._intact.add(layer)
                elif not held:
                    self._once[layer] = output
        return whole

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        with self._lock:
            free = self._free.get((shape, torch.is_inference_mode_enabled()))
            if free:
                return free.pop()
            made = torch.empty(shape, dtype=torch.float32)
            self._copies[id(made)] = made
        return made

    def release(self, tensors: Iterable[Tensor]) -> None:
        """Give back what a call returned and nobody looks at any more: later calls write over the copies among it."""
        with self._lock:
            for tensor in tensors:
                if self._copies.get(id(tensor)) is tensor:
                    self._free.setdefault((tuple(tensor.shape), tensor.is_inference()), []).append(tensor)

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
        local = self._local
        local.size, local.keep = len(batch), keep
        whole = False
        while not whole:  # twice at most a layer: what was written over once is copied from then on
            local.seen, local.calls, local.watched = {}, {}, {}
            self._module(batch)
            whole = self._learn(local.seen, local.watched)
        seen: dict[str, Tensor] = local.seen
        calls: dict[str, int] = local.calls
        local.seen, local.watched = {}, {}
        if self._lenient:
            parts = {name: [f"{name}#{k + 1}" for k in range(calls.get(name, 0))] for name in self._hooked}
            names = [part for name in self._layers for part in (name, *(parts[name] if len(parts[name]) > 1 else []))]
            return {layer: seen[layer] for layer in names if layer in seen}
        unreached = [layer for layer in self._layers if layer not in seen]
        if unreached:
            raise ConfigError(f"layer {', '.join(unreached[:5])} is never reached by a forward pass of the network; "
                              f"{_fewer_calls(unreached[0], calls)}leave it out")  # fmt: skip
        return {layer: seen[layer] for layer in self._layers}


def _can_stay(kept: Tensor) -> bool:
    """Whether a tensor is what is wanted already, and holds no more memory than a copy would."""
    plain = kept.device.type == "cpu" and kept.dtype == torch.float32
    return plain and kept.untyped_storage().nbytes() <= kept.numel() * kept.element_size()


def _fewer_calls(layer: str, calls: dict[str, int]) -> str:
    name, mark, _ = layer.partition("#")
    return f"{name} is called {calls.get(name, 0)} times; " if mark else ""


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in a module's output, whatever holds it."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):  # of which the outputs of HuggingFace's models are a kind
        output = list(output.values())
    if isinstance(output, tuple | list):
        found = (first_tensor(part) for part in output)
        return next((tensor for tensor in found if tensor is not None), None)
    return None
