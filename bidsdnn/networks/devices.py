"""Where a network runs, so that its numbers depend on nothing else of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from bidsdnn.errors import ConfigError


def device(name: str) -> torch.device:
    """Choose the device that a network runs on.

    Parameters
    ----------
    name : str
        ``auto`` (the first there is of cuda, mps, cpu), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns
    -------
    torch.device

    Raises
    ------
    ConfigError
        If the name is unknown, or this machine has no such device.
    """
    kind, _, index = name.partition(":")
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": cards > 0, "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if kind not in there or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device {name!r} is not known; choose auto, cpu, cuda, cuda:N or mps")
    if not there[kind] or (index and int(index) >= cards):
        raise ConfigError(f"device {name!r} is not on this machine; choose auto or cpu")
    return torch.device(name)


@contextmanager
def placed(module: nn.Module, name: str) -> Iterator[torch.device]:
    """Move a module to a device and, in the end, back; on a GPU, in full precision with the same kernels.

    Parameters
    ----------
    module : nn.Module
    name : str
        As of `device`.

    Yields
    ------
    torch.device
    """
    target = device(name)
    before = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact if target.type == "cuda" else nullcontext():
        try:
            module.to(target)
            yield target
        finally:
            module.to(before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch's kernels on one thread; on more, sums have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
