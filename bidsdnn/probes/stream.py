"""Stimuli through a network, a batch at a time: memory knows the batch and not the number of stimuli."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from bidsdnn.errors import ConfigError
from bidsdnn.networks.inputs import prepared, require_modality
from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Stimuli

BATCH = 32
"""Stimuli that run together, whatever the machine: the last bits of a network's output depend on it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Stimuli that run together: their places in the table, and the network's input."""

    rows: range
    values: Tensor


def stream(
    network: Network, stimuli: Stimuli, *, device: str = "cpu", batch_size: int = BATCH, label: str = "",
    workers: int = 1,
) -> Iterator[Batch]:  # fmt: skip
    """Load, prepare and yield stimuli in the table's order; the next batches are read while one is used.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
        Of the network's modality.
    device : str
        Where the batches go.
    batch_size : int
    label : str
        Before the bar that is shown on a terminal; empty for none.
    workers : int
        Threads that read; the batches do not depend on it.

    Yields
    ------
    Batch

    Raises
    ------
    ConfigError
        If the network takes another modality, or its preprocessing gives several shapes.
    MissingInputError, DataError
        If a stimulus is missing or unreadable.
    """
    require_modality(network, stimuli)
    pieces = [range(start, min(start + batch_size, len(stimuli))) for start in range(0, len(stimuli), batch_size)]
    waiting: deque[Future[Tensor]] = deque()
    bar = tqdm(total=len(stimuli), desc=label, disable=not (label and sys.stderr.isatty()), leave=False)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            ahead = iter(pieces)
            for rows in pieces:
                while len(waiting) <= workers and (piece := next(ahead, None)) is not None:
                    waiting.append(pool.submit(partial(_read, network, stimuli, piece)))
                yield Batch(rows, waiting.popleft().result().to(torch.device(device)))
                bar.update(len(rows))
        finally:
            for future in waiting:
                future.cancel()


def _read(network: Network, stimuli: Stimuli, rows: range) -> Tensor:
    items = [prepared(network, stimuli, row) for row in rows]
    for row, item in zip(rows, items, strict=True):
        if item.shape != items[0].shape:
            raise ConfigError(
                f"preprocessing of {network.label} gives shape {tuple(item.shape)} for {stimuli.paths[row]} and "
                f"{tuple(items[0].shape)} for {stimuli.paths[rows[0]]}; make it crop or resize to one size"
            )
    return torch.stack(items)
