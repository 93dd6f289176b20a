"""Weights that bidsdnn itself has learnt: written, and read back by ``NETWORK@PATH`` with the layers put on.

The file is one of ``torch.save`` with tensors, numbers and words only: the state of the whole module, which read-outs
were learnt with it, and what stimuli were prepared like.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.appended import Readout, append
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.training import as_bytes
from bidsdnn.networks.weights import load_state
from bidsdnn.stimuli import file_sha256

ENDING = "_weights.pt"
"""Of the files; weights of other kinds are called otherwise."""
HEADS = "heads"


@dataclass(frozen=True, eq=False)
class Head:
    """A linear read-out that was learnt.

    Parameters
    ----------
    name : str
        What it tells: the target.
    layer : str
        That it reads.
    pooling : str or None
        Of `Reduction`, of that layer before it is read.
    weights : Tensor, shape (units, k)
    intercept : Tensor, shape (k,)
    classes : tuple of str
        Of its k outputs; empty for numbers.
    """

    name: str
    layer: str
    pooling: str | None
    weights: Tensor
    intercept: Tensor
    classes: tuple[str, ...] = ()


def written(network: Network, heads: Sequence[Head] = ()) -> bytes:
    """What a file of learnt weights holds.

    Parameters
    ----------
    network : Network
        With the learnt weights.
    heads : sequence of Head

    Returns
    -------
    bytes
    """
    state = {name: tensor.detach().cpu() for name, tensor in network.module.state_dict().items()}
    return as_bytes(
        {
            "state_dict": state,
            "network": network.name,
            "weights": network.weights,
            "preprocessing": network.preprocessing,
            HEADS: [
                {
                    "name": head.name, "layer": head.layer, "pooling": head.pooling,
                    "weights": head.weights.detach().cpu().clone(), "intercept": head.intercept.detach().cpu().clone(),
                    "classes": list(head.classes),
                }
                for head in heads
            ],
        }
    )  # fmt: skip


def is_retrained(weights: str) -> bool:
    """Whether weights are a file that bidsdnn wrote."""
    return weights.endswith(ENDING) and Path(weights).expanduser().is_file()


def retrained(make: Callable[..., Network], weights: str, *, seed: int) -> Network:
    """Build a network with weights that bidsdnn has learnt; read-outs learnt with them are its last layers.

    Parameters
    ----------
    make : callable
        Builds the network, given ``weights`` and ``seed``.
    weights : str
        The file.
    seed : int

    Returns
    -------
    Network
        A read-out is a layer, called as `layer_of` says, whose channels are the classes; the last one's output is the
        network's.

    Raises
    ------
    DataError
        If the file is damaged, of another network, or holds anything else.
    """
    path = Path(weights).expanduser()
    content = _read(path)
    network = make(weights="none", seed=seed)
    if PurePath(network.name).name != PurePath(content["network"]).name:  # a user's file may have moved
        raise DataError(f"{path}: weights of {content['network']}, not of {network.name}; name that network")
    if network.preprocessing != content["preprocessing"]:
        # Published weights come with their own preparation of stimuli.
        network = make(weights=content["weights"], seed=seed)
    load_state(network.module, content["state_dict"], path)
    network.module.eval()
    for head in content[HEADS]:
        network = append(network, [_readout(head, network)], name=layer_of(str(head["name"])))
    return replace(network, weights=path.name, weights_sha256=file_sha256(path), seed=None, alias=None)


def layer_of(target: str) -> str:
    """What the layer of a target's read-out is called: ``head_`` and the target's letters and digits."""
    return f"head_{re.sub(r'[^0-9A-Za-z]+', '_', target)}"


def _readout(head: Mapping[str, Any], network: Network) -> Readout:
    modules = dict(network.module.named_modules())
    weights = head["weights"].numpy()
    reduction = Reduction(pooling=head["pooling"], modules=modules)
    return Readout(head["layer"], weights, head["intercept"].numpy(), np.zeros(len(weights)), reduction)


def _read(path: Path) -> dict[str, Any]:
    expected = {"state_dict", "network", "weights", "preprocessing", HEADS}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        said = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a readable weights file ({said}); train again, or replace it") from error
    if not isinstance(content, dict) or not expected <= content.keys():
        raise ConfigError(
            f"{path}: not written by --analysis transfer or brain-training, whose names end so; rename your own file"
        )
    return content
