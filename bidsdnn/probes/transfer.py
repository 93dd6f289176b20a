"""Transfer learning: a network learns columns of the stimuli, by new heads alone or with layers fine-tuned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.networks.devices import single_threaded
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.retrained import written
from bidsdnn.networks.training import DROPS, TOTAL, Learnt, Schedule, learn
from bidsdnn.networks.tuning import MOST_BYTES, Inputs, tapped, trainable
from bidsdnn.networks.work import contents
from bidsdnn.probes.heads import PARTS, Heads, split, targets_of
from bidsdnn.result import Result
from bidsdnn.stimuli import Stimuli

Features = Callable[[np.ndarray], Tensor]


def transfer(
    network: Network,
    stimuli: Stimuli,
    *,
    targets: Mapping[str, pd.DataFrame],
    device: str = "cpu",
    seed: int = 0,
    workers: int = 1,
    checkpoint: Path | None = None,
    identity: str = "",
    layer: str = "",
    pooling: str | None = "mean",
    fine_tune: Sequence[str] = (),
    validation: float = 0.2,
    test: float = 0.2,
    epochs: int = 100,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    patience: int = 10,
) -> Result:
    """Columns of the stimuli were learnt by linear heads on a layer, with or without the layers before it.

    Parameters
    ----------
    network : Network
        Stays as it is.
    stimuli : Stimuli
    targets : mapping of str to DataFrame
        Columns, with ``stimulus_id`` and ``value``; each gets a head: of classes by cross-entropy, of numbers by
        squared error.
    device : str
    seed : int
        Of the split, of the heads' first weights, and of the order of stimuli.
    workers : int
        Threads that read stimuli.
    checkpoint : Path, optional
        From which an interrupted training goes on.
    identity : str
        Hash of what the training depends on.
    layer : str
        That heads read; by default the last canonical layer that is not itself linear.
    pooling : str, optional
        Of a layer with positions, as ``--pooling``; ``none`` for all its units.
    fine_tune : sequence of str
        Layers whose weights are learnt too, as ``--layer`` has them: ``*`` for all; none by default.
    validation, test : float
        Shares of the stimuli: by the first, training is stopped; by the other, it is scored. Equal stimuli stay
        together, and each part has the same share of each class.
    epochs, batch_size, learning_rate, weight_decay, patience
        As of `bidsdnn.networks.training.Schedule`.

    Returns
    -------
    Result
        Scores, learning curves, the split, and weights.

    Raises
    ------
    ConfigError
        If there is no such layer, or nothing to learn from.
    ValueError
        If a number cannot be used.
    """
    schedule = Schedule(epochs, batch_size, learning_rate, weight_decay, patience, seed)
    learnable, known = targets_of(targets, stimuli.ids)
    labelled = stimuli.select([stimuli.ids[row] for row in known])
    parts = split(contents(labelled), learnable[0].strata, validation=validation, test=test, seed=seed)
    place = read_layer(network, layer)
    pooling = None if pooling == "none" else pooling
    with single_threaded():
        trained = replace(network, module=copy.deepcopy(network.module).eval())
        tuned = trainable(trained, fine_tune)
        inputs = Inputs(trained, labelled, device=torch_device(device), workers=workers)
        features = features_of(trained, inputs, place, pooling, frozen=not tuned, n=len(labelled), size=batch_size)
        heads = Heads(
            learnable, gathered(features, parts["train"], batch_size), parts["train"], frozen=not tuned, seed=seed
        )
        heads = heads.to(torch_device(device))
        new = {f"heads.{name}": one for name, one in heads.named_parameters()}
        learnt = learn(
            {**tuned, **new}, lambda rows: _losses(heads, features(rows), rows),
            training=parts["train"], validation=parts["validation"], schedule=schedule, checkpoint=checkpoint,
            identity=identity, tuned=list(tuned), fresh=list(new), label=f"transfer of {network.label}",
        )  # fmt: skip
        scores = [
            {"part": part, **row}
            for part in PARTS
            for row in heads.scored(gathered(features, parts[part], batch_size), parts[part])
        ]
        made = written(trained, heads.written(place, pooling))
    return Result(
        "transfer",
        tables={
            "transfer": pd.DataFrame(scores),
            "transfercurves": curves_table(learnt),
            "transfersplit": split_table(labelled.ids, parts),
        },
        weights={network.label: made},
        sidecar=_sidecar(network, place, pooling, fine_tune, schedule, learnt, parts, len(stimuli)),
    )


def _losses(heads: Heads, features: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
    losses = heads.losses(features, rows)
    total = torch.stack(list(losses.values())).sum()
    return {TOTAL: total, **(losses if len(losses) > 1 else {})}


def read_layer(network: Network, layer: str) -> str:
    """Find the layer that heads read.

    Parameters
    ----------
    network : Network
    layer : str
        As of `Network.select`; empty for the last canonical layer that is not itself linear.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        If it is none, or more than one.
    """
    if not layer:
        listed = network.canonical()
        inner = [name for name in listed if not isinstance(network.module.get_submodule(name), nn.Linear)]
        return (inner or listed)[-1]
    found = network.select([layer])
    if len(found) != 1:
        raise ConfigError(
            f"layer {layer}: expected one of {network.label}, got {len(found)}; {closest(layer, network.layers)}"
        )
    return found[0]


def features_of(
    network: Network, inputs: Inputs, layer: str, pooling: str | None, *, frozen: bool, n: int, size: int
) -> Features:
    """A function from rows to what a layer gives for them, shape (n, units), pooled.

    Parameters
    ----------
    network : Network
    inputs : Inputs
    layer : str
    pooling : str or None
    frozen : bool
        Whether no weight changes, so that what was computed once stays true; kept in memory where it fits.
    n : int
        Stimuli.
    size : int
        Stimuli that run together.

    Returns
    -------
    callable
    """
    reduction = Reduction(pooling=pooling, modules=dict(network.module.named_modules()))

    def computed(rows: np.ndarray) -> Tensor:
        with tapped(network.module, [layer]) as seen:
            network.module(inputs(rows))
        if layer not in seen:
            raise ConfigError(f"layer {layer} is never reached by a forward pass of the network; choose another")
        return reduction(layer, seen[layer]).flatten(1)

    if not frozen:
        return computed
    with torch.no_grad():
        first = computed(np.arange(1))
        if first.numel() * n * first.element_size() > MOST_BYTES:
            return torch.no_grad()(computed)
        table = torch.cat([computed(np.arange(start, min(start + size, n))) for start in range(0, n, size)])
    return lambda rows: table[torch.from_numpy(np.asarray(rows)).to(table.device)]


def gathered(features: Features, rows: np.ndarray, size: int) -> Tensor:
    """Features of many rows, a batch at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([features(rows[start : start + size]) for start in range(0, len(rows), size)])


def curves_table(learnt: Learnt) -> pd.DataFrame:
    """Learning curves, with the epoch marked whose weights were kept."""
    return learnt.curves.assign(kept=(learnt.curves["epoch"] == learnt.epoch).astype(int))


def split_table(ids: Sequence[str], parts: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Which stimulus was in which part."""
    rows = {int(row): part for part, some in parts.items() for row in some}
    return pd.DataFrame({"stimulus_id": list(ids), "part": [rows[row] for row in range(len(ids))]})


def _sidecar(
    network: Network, layer: str, pooling: str | None, fine_tune: Sequence[str], schedule: Schedule, learnt: Learnt,
    parts: Mapping[str, np.ndarray], n: int,
) -> dict[str, Any]:  # fmt: skip
    tuned = f"the weights of {', '.join(fine_tune)}" if fine_tune else "no weights of the network"
    sizes = ", ".join(f"{len(parts[part])} for {part}" for part in PARTS)
    return {
        "Methods": f"Transfer learning (Yosinski et al. 2014): linear heads on {layer} of {network.label} and {tuned} "
        f"were learnt by Adam (Kingma & Ba 2015; learning rate {10 * schedule.learning_rate:g} of heads"
        f"{f' and {schedule.learning_rate:g} of layers' if fine_tune else ''}, a tenth of it where the validation loss "
        f"had not fallen in {schedule.patience} epochs, up to {DROPS} times; batches of {schedule.batch_size}), "
        f"stimuli split into {sizes}. The weights of the epoch with the smallest validation "
        f"loss were kept ({learnt.epoch}; {learnt.stopped}).",
        "References": ["transfer", "adam"],
        "Layer": layer,
        "Pooling": pooling,
        "FineTuned": list(fine_tune),
        "Schedule": vars(schedule),
        "EpochKept": learnt.epoch,
        "Stopped": learnt.stopped,
        "NumberOfStimuli": n,
        "Columns": {
            "part": "train: learnt from; validation: by which training was stopped; test: neither",
            "value": "on the scale of the measure",
            "kept": "1: the weights of this epoch were kept",
        },
        "Titles": {"transfercurves": "Learning curves", "transfersplit": "Which stimulus was in which part"},
    }
