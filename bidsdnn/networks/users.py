"""Users' own networks: what a file or a package of theirs builds, made a `Network`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import ConfigError
from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import asked_preprocess

MODALITIES = ("image", "video", "audio")


def users_network(name: str, found: Any, *, weights: str, seed: int) -> Network:
    """Make a Network of a user's object.

    Parameters
    ----------
    name : str
        ``file.py:object`` or ``package.module:object``.
    found : object
        A module, a Network, or what makes one.
    weights : str
        Passed on, if the object names it.
    seed : int
        Likewise; torch's generator is seeded with it either way.

    Returns
    -------
    Network
        In evaluation mode.

    Raises
    ------
    ConfigError
        If the object neither is a network nor makes one.
    """
    offered = {"weights": weights, "seed": seed}
    passed: dict[str, Any] = {}
    if not isinstance(found, nn.Module | Network):
        if not callable(found):
            raise ConfigError(f"{name}: expected a network or a function that makes one, got {type(found).__name__}")
        passed = {key: offered[key] for key in inspect.signature(found).parameters if key in offered}
        found = files.seeded(partial(found, **passed), seed)
    if isinstance(found, Network):
        found.module.eval()
        return found
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{name}: expected a torch module or a Network, got {type(found).__name__}; return one")
    try:
        preprocess, preprocessing = _preparation(found)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{name}: modality, input_size, mean or std of the module is not usable ({reason})"
        ) from error
    if getattr(found, "modality", "image") not in MODALITIES:
        raise ConfigError(f"{name}: modality {found.modality!r} is not known; say one of {', '.join(MODALITIES)}")
    asked = passed.get("weights", "own")
    file, _, attribute = name.rpartition(":")
    return Network(
        name=f"{Path(file).stem if file.endswith('.py') else file}:{attribute}",
        module=found.eval(),
        preprocess=preprocess,
        preprocessing=preprocessing,
        weights=Path(asked).name,
        seed=seed if asked == "none" else None,
        weights_sha256=files.state_sha256(found),
        modality=getattr(found, "modality", "image"),
        source="user",
    )


def _preparation(module: nn.Module) -> tuple[Callable[..., Any], str]:
    """Read from a user's module how stimuli are prepared for it."""
    own = getattr(module, "preprocess", None)
    if callable(own):
        return own, " ".join(str(getattr(own, "__qualname__", own)).split())
    said: dict[str, Any] = {key: getattr(module, key) for key in NetworkInput.model_fields if hasattr(module, key)}
    if not isinstance(said.get("input_size", 0), int):
        said["input_size"] = int(tuple(said["input_size"])[-1])
    said |= {key: tuple(float(value) for value in said[key]) for key in ("mean", "std") if key in said}
    return asked_preprocess(NetworkInput(**said))
