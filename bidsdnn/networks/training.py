"""One loop by which weights are learnt, whatever the loss: batches, early stopping, and a checkpoint that goes on.

What an epoch does depends on its number and the seed alone, so that a run that was killed and goes on gives the same
bytes as one that was not. Networks stay in evaluation mode: dropout is off, and normalisation keeps its statistics.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bidsdnn.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

TOTAL = "loss"
DROPS = 2
"""How often training goes on from the best weights with a tenth of the learning rate before it stops."""

Loss = Callable[[np.ndarray], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast weights are learnt.

    Parameters
    ----------
    epochs : int
        The most.
    batch_size : int
    learning_rate : float
        Of Adam (Kingma & Ba 2015).
    weight_decay : float
    patience : int
        Epochs without a smaller validation loss, after which the best weights are taken again with a tenth of the
        learning rate; the third time, training stops.
    seed : int
        Of the order of stimuli.

    Raises
    ------
    ValueError
        If a number cannot be used.
    """

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)) or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate, weight_decay: expected above 0, and at least 0; got {self.learning_rate}, "
                f"{self.weight_decay}"
            )


@dataclass(frozen=True, eq=False)
class Learnt:
    """What training came to; the parameters have the values of the best epoch.

    Parameters
    ----------
    curves : DataFrame
        A row an epoch and part (``train``, ``validation``): the loss and its terms. Epoch 0 is before training.
    epoch : int
        Whose weights were kept.
    stopped : str
        Why training ended.
    """

    curves: pd.DataFrame
    epoch: int
    stopped: str


@dataclass(eq=False)
class _State:
    """All that the next epoch depends on."""

    epoch: int = -1
    best: float = math.inf
    best_epoch: int = 0
    since: int = 0
    drops: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""


def learn(
    parameters: Mapping[str, nn.Parameter],
    loss: Loss,
    *,
    training: Sequence[int] | np.ndarray,
    validation: Sequence[int] | np.ndarray,
    schedule: Schedule,
    checkpoint: Path | None = None,
    identity: str = "",
    tuned: Sequence[str] = (),
    fresh: Sequence[str] = (),
    label: str = "",
) -> Learnt:
    """Weights were learnt by Adam, and those of the epoch with the smallest validation loss kept.

    A loss that is not finite stops training; the last good weights are kept, and `Learnt.stopped` says so.

    Parameters
    ----------
    parameters : mapping of str to nn.Parameter
        What is learnt; changed in place.
    loss : callable
        From rows to terms, mean over rows, of which ``loss`` is the one that is made smaller.
    training, validation : sequence of int
        Rows.
    schedule : Schedule
    checkpoint : Path, optional
        Written after each epoch; if it is there, of the same identity, training goes on from it.
    identity : str
        Hash of what training depends on.
    tuned : sequence of str
        Parameters of which at least one must have a part in the loss.
    fresh : sequence of str
        Parameters that begin from nothing, and so are learnt ten times as fast as those that were learnt before.
    label : str
        Before the bar that is shown on a terminal.

    Returns
    -------
    Learnt

    Raises
    ------
    ConfigError
        If none of `tuned` has a gradient.
    DataError
        If the loss is not finite before anything is learnt.
    """
    rates = {name: schedule.learning_rate * (10 if name in fresh else 1) for name in parameters}
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in parameters.items()]
    optimizer = torch.optim.Adam(groups, weight_decay=schedule.weight_decay, foreach=False)
    state = _resumed(checkpoint, identity, parameters, optimizer) or _State()
    bar = tqdm(total=schedule.epochs, desc=label, initial=max(state.epoch, 0), unit=" epochs",
               disable=not (label and sys.stderr.isatty()), leave=False)  # fmt: skip
    with bar:
        while not state.stopped:
            state.epoch += 1
            found = _epoch(parameters, loss, optimizer, state.epoch, training, schedule, tuned)
            found = found and {**found, "validation": _without_gradient(loss, validation, schedule.batch_size)}
            _judge(state, found, parameters, schedule)
            if not state.stopped and state.epoch - state.since >= schedule.patience:
                _drop(state, parameters, optimizer)
            if checkpoint is not None:
                _save(checkpoint, identity, state, parameters, optimizer)
            bar.update(state.epoch > 0)
    if not state.kept:
        raise DataError("the loss is not finite for the weights as they are; check the weights and the stimuli")
    _take(state, parameters)
    return Learnt(pd.DataFrame(state.curves), state.best_epoch, state.stopped)


def _epoch(
    parameters: Mapping[str, nn.Parameter], loss: Loss, optimizer: torch.optim.Optimizer, epoch: int,
    training: Sequence[int] | np.ndarray, schedule: Schedule,
    tuned: Sequence[str],
) -> dict[str, dict[str, float]] | None:  # fmt: skip
    """Learn from all training rows once, in the epoch's own order; the first only looks. None if a loss is not finite.

    What is said of the training rows is the mean over the epoch's batches, each before the step it led to.
    """
    if epoch == 0:
        return {"train": _without_gradient(loss, training, schedule.batch_size)}
    order = np.random.default_rng([schedule.seed, epoch]).permutation(np.asarray(training))
    sums: dict[str, float] = {}
    for start in range(0, len(order), schedule.batch_size):
        rows = order[start : start + schedule.batch_size]
        terms = loss(rows)
        if not torch.isfinite(terms[TOTAL]):
            return None
        optimizer.zero_grad(set_to_none=True)
        if terms[TOTAL].requires_grad:
            terms[TOTAL].backward()
        if all(parameters[name].grad is None for name in tuned or parameters):
            raise ConfigError(
                "no layer of fine_tune has a gradient from the loss; name layers before the one that is read"
            )
        optimizer.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(rows)
    return {"train": {name: value / len(order) for name, value in sums.items()}}


def _without_gradient(loss: Loss, rows: Sequence[int] | np.ndarray, batch_size: int) -> dict[str, float]:
    sums: dict[str, float] = {}
    every = np.asarray(rows)
    with torch.no_grad():
        for start in range(0, len(every), batch_size):
            some = every[start : start + batch_size]
            for name, value in loss(some).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(some)
    return {name: value / len(every) for name, value in sums.items()}


def _judge(
    state: _State, found: dict[str, dict[str, float]] | None, parameters: Mapping[str, nn.Parameter],
    schedule: Schedule,
) -> None:  # fmt: skip
    """Keep the weights if they are the best so far, and find out whether to stop."""
    if found is None or not math.isfinite(found["validation"][TOTAL]):
        state.stopped = (
            f"the loss was not finite in epoch {state.epoch}; the weights of epoch {state.best_epoch} were kept; "
            "choose a smaller learning_rate"
        )
        logger.warning("%s", state.stopped)
        return
    state.curves += [{"epoch": state.epoch, "part": part, **terms} for part, terms in found.items()]
    if found["validation"][TOTAL] < state.best:
        state.best, state.best_epoch, state.since = found["validation"][TOTAL], state.epoch, state.epoch
        state.kept = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}
    if state.epoch >= schedule.epochs:
        state.stopped = f"all {schedule.epochs} epochs were done"
    elif state.drops == DROPS and state.epoch - state.since >= schedule.patience:
        state.stopped = f"no smaller validation loss in {schedule.patience} epochs at any learning rate"


def _drop(state: _State, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Go back to the best weights, with a tenth of the learning rate: steps were too long to find better ones."""
    _take(state, parameters)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] *= 0.1
    state.drops += 1
    state.since = state.epoch


def _take(state: _State, parameters: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state.kept[name])


def _save(
    path: Path, identity: str, state: _State, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    content = {
        "identity": identity,
        "state": vars(state),
        "parameters": {name: parameter.detach() for name, parameter in parameters.items()},
        "optimizer": optimizer.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(as_bytes(content))
    temporary.replace(path)


def _resumed(
    path: Path | None, identity: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> _State | None:
    """What an interrupted run of the same training left; None where there is nothing of use."""
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["identity"] != identity:
            return None
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(content["parameters"][name])
        optimizer.load_state_dict(content["optimizer"])
        state = _State(**content["state"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("%s: cannot be read (%s); training begins anew", path, error)
        return None
    logger.info("%s: training goes on after epoch %d", path.name, state.epoch)
    return state


def as_bytes(content: Any) -> bytes:
    """What ``torch.save`` writes, which in memory does not depend on a file's name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
