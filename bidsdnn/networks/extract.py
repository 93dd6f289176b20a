"""Stimuli through a network, the activations of any number of its layers to one HDF5 file.

Batches have one size whatever the number of stimuli or workers, so that the file's bytes depend on nothing but the
stimuli and the network. Memory holds a few batches, never the whole table; each content is computed once.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bidsdnn import __version__
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.devices import placed, single_threaded
from bidsdnn.networks.inputs import prepared, require_modality
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.store import Store
from bidsdnn.networks.work import Known, Rows, Step, contents, copy, described_in, plan
from bidsdnn.stimuli import Stimuli

RESERVED = ("stim_id", "sha256")
LIBRARIES = ("torch", "torchvision", "pillow", "numpy", "h5py")
WHOLE = Reduction()

Batch = tuple[Step, dict[str, Tensor]]


def estimate_bytes(network: Network, layers: Sequence[str], n_stimuli: int, *, reduction: Reduction = WHOLE) -> int:
    """Compute the size of an activations file, without its few kilobytes of names.

    Parameters
    ----------
    network : Network
        One picture is run through it.
    layers : sequence of str
        Dotted names.
    n_stimuli : int
        Number of pictures.
    reduction : Reduction
        What is made of the activations before they are stored.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ConfigError
        If a layer does not exist.
    """
    units = 0
    for layer, (_, shape) in network.shapes(list(dict.fromkeys(layers))).items():
        units += reduction(layer, torch.zeros(1, *shape)).numel()
    return np.dtype(reduction.dtype).itemsize * units * n_stimuli


def estimate_memory(
    network: Network, layers: Sequence[str], *, workers: int, batch_size: int = 32, reduction: Reduction = WHOLE
) -> int:
    """Estimate the memory that an extraction takes, beyond that of the program itself.

    Parameters
    ----------
    network, layers, workers, batch_size, reduction
        As of `extract`.

    Returns
    -------
    int
        Bytes: the weights; for each batch in flight (two more than workers) the stored layers; and for each worker
        its input and twice the largest output, of which a layer's input and output are at most.
    """
    weights = sum(t.numel() * t.element_size() for t in (*network.module.parameters(), *network.module.buffers()))
    largest = max((int(np.prod(shape, dtype=np.int64)) for _, shape in network.shapes().values()), default=0)
    stored = 4 * sum(int(np.prod(shape, dtype=np.int64)) for _, shape in network.shapes(list(layers)).values())
    reduced = estimate_bytes(network, layers, 1, reduction=reduction)
    # A reduced layer is made of the whole one, which lives as long as its turn in the forward pass.
    return weights + batch_size * ((workers + 2) * min(stored, reduced) + workers * 3 * 4 * largest)


def extract(
    network: Network,
    stimuli: Stimuli,
    layers: Sequence[str],
    path: Path,
    *,
    workers: int = 1,
    batch_size: int = 32,
    device: str = "cpu",
    progress: bool = False,
    reduction: Reduction = WHOLE,
    known: Known | None = None,
) -> None:
    """Activations of all layers were recorded in one forward pass over the stimuli.

    The file has one dataset a layer, named by the layer, float32 (or float16) of shape (n_stimuli, units), with the
    unflattened shape in its attribute ``shape`` and which axis of it is the channels in ``channel_axis``;
    ``stim_id`` and ``sha256``, the rows' ids and the hashes of their files; and on the root what they were made of:
    ``network``, ``label``, ``weights``, ``weights_sha256``, ``seed``, ``preprocessing``, ``layers`` (JSON),
    ``reduction`` (JSON), ``batch_size`` and ``versions`` (JSON). The last batch is filled up by repeating its
    last picture, because a network's output changes in the last bits with the size of the batch.

    An extraction that was interrupted, or ran out of disk, goes on where it stopped when the same is asked again.

    Parameters
    ----------
    network : Network
        Moved to the device for as long as it takes.
    stimuli : Stimuli
        All of the network's modality. Equal contents are computed once.
    layers : sequence of str
        Dotted names.
    path : Path
        Appears when it is complete.
    workers : int
        Threads that decode, prepare and run batches; on a GPU batches run one at a time. One more writes. The file
        does not depend on it.
    batch_size : int
        Pictures that run together. Part of what the activations depend on: keep it.
    device : str
        As in `device`.
    progress : bool
        Show a bar, if stderr is a terminal.
    reduction : Reduction
        What is made of the activations before they are stored.
    known : Known, optional
        A file of the same network, preprocessing and reduction: what it has is copied and not computed.

    Raises
    ------
    ConfigError
        If a layer does not exist, is not reached, or gives no table of pictures, or the device is not there.
    MissingInputError, DataError
        If a picture is missing or unreadable, or an activation is not finite.
    OutputError
        If the file cannot be written.
    """
    if not len(stimuli):
        raise ValueError("stimuli: expected at least one, got none")
    if workers < 1 or batch_size < 1:
        raise ValueError(f"workers, batch_size: expected at least 1, got {workers}, {batch_size}")
    require_modality(network, stimuli)
    layers = list(dict.fromkeys(layers))
    if not layers or set(layers) & set(RESERVED):
        raise ConfigError(f"layers: expected some, none named {' or '.join(RESERVED)}, got {layers}")
    hashed = stimuli if (stimuli.table["sha256"] != "").all() else stimuli.with_hashes(workers=workers)
    rows = Rows(contents(hashed))
    attributes = _attributes(network, layers, reduction, batch_size=batch_size)
    identity = json.dumps([attributes, hashed.ids, rows.names, device], default=str)
    store = Store(path, hashlib.sha256(identity.encode()).hexdigest())
    texts = {"stim_id": hashed.ids, "sha256": list(hashed.table["sha256"])}
    done = store.resume()
    if done is None:
        done = np.zeros(len(rows.names), dtype=bool)
    groups = plan(rows, layers, known, done, batch_size)
    try:
        with (
            placed(network.module, device) as target,
            single_threaded(),
            tqdm(
                total=sum(len(step.rows) for _, steps in groups for step in steps), unit=" pictures",
                disable=not (progress and sys.stderr.isatty()),
            ) as bar,
            _Writer(store, rows) as writer,
        ):  # fmt: skip
            for wanted, steps in groups:
                with Recorder(network.module, wanted, reduce=reduction) as record:
                    job = _Job(network, hashed, record, target, batch_size, reduction.dtype)
                    for step, activations in _in_order(job, steps, workers=workers):
                        if not store.is_open:
                            shapes = {layer: tuple(values.shape[1:]) for layer, values in activations.items()}
                            _lay_out(store, texts, attributes, layers, shapes, rows, known, reduction)
                        writer.put(job, step, activations)
                        del activations  # before the next batch is made, not after
                        bar.update(len(step.rows))
            if not store.is_open:  # every row is known, and every layer
                _lay_out(store, texts, attributes, layers, {}, rows, known, reduction)
        store.finish()
    except ConfigError:
        store.discard()
        raise
    except BaseException:  # a stimulus that could not be read too, which the next run may find whole
        store.leave()
        raise


def _lay_out(
    store: Store, texts: dict[str, list[str]], attributes: dict[str, Any], layers: Sequence[str],
    shapes: dict[str, tuple[int, ...]], rows: Rows, known: Known | None, reduction: Reduction,
) -> None:  # fmt: skip
    """Make the file, and copy into it what is known."""
    made = {
        layer: {"shape": shape, "channel_axis": reduction.channels.get(layer, 0)} for layer, shape in shapes.items()
    }
    made |= described_in(known, layers)
    store.create(texts, attributes, {layer: made[layer] for layer in layers}, n=len(rows.names), dtype=reduction.dtype)
    complete = set(known.contents) if known and set(layers) <= set(known.layers) else set()
    if known:
        copy(known, rows, layers, store)
    store.begin(np.array([name in complete for name in rows.names]))


@dataclass(frozen=True, eq=False)
class _Job:
    """Decodes, prepares and runs a batch."""

    network: Network
    stimuli: Stimuli
    record: Recorder
    target: torch.device
    batch_size: int
    dtype: str
    gate: Any = field(default_factory=threading.Lock)

    def __call__(self, step: Step) -> Batch:
        """Activations of the layers to a step's stimuli."""
        network = self.network
        items = [prepared(network, self.stimuli, row) for row in step.rows]
        for row, item in zip(step.rows, items, strict=True):
            if item.shape != items[0].shape:
                raise ConfigError(
                    f"preprocessing of {network.label} gives shape {tuple(item.shape)} for {self._path(row)} and "
                    f"{tuple(items[0].shape)} for {self._path(step.rows[0])}; make it crop or resize to one size"
                )
        batch = torch.stack(items + items[-1:] * (self.batch_size - len(items)))
        # Not in inference mode, in which the recorder could not see whether an output is written over.
        with self.gate if self.target.type != "cpu" else nullcontext(), torch.no_grad():
            activations = self.record(batch.to(self.target), keep=len(items))
        return step, activations

    def checked(self, layer: str, values: Tensor, step: Step) -> Tensor:
        """Activations as they are stored, if they are finite."""
        # A sum is finite unless a term is not, or it overflows; only then is every value looked at.
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values.flatten(1))).any(1).nonzero()[0])
            raise DataError(
                f"{self._path(step.rows[bad])}: activations of {self.network.label}, layer {layer}, are not finite; "
                "leave out the layer, or check the weights"
            )
        if self.dtype == "float32":
            return values
        small = values.to(torch.float16)
        if not torch.isfinite(small).all():
            bad = int((~torch.isfinite(small.flatten(1))).any(1).nonzero()[0])
            raise DataError(
                f"{self._path(step.rows[bad])}: activations of {self.network.label}, layer {layer}, exceed 65504, the "
                "largest float16; use --activation-dtype float32"
            )
        return small

    def _path(self, row: int) -> Path:
        return self.stimuli.root / str(self.stimuli.table["filename"].iloc[row])


class _Writer:
    """Checks and writes batches in a thread of its own, one after the other; one more may wait."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self._store, self._rows = store, rows
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None and self._last is not None:
            self._last.result()

    def put(self, job: _Job, step: Step, activations: dict[str, Tensor]) -> None:
        """Wait for the batch before, and begin to write this one."""
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(_write, self._store, self._rows, job, step, activations)


def _write(store: Store, rows: Rows, job: _Job, step: Step, activations: dict[str, Tensor]) -> None:
    """Write a batch to all rows of its contents."""
    same = rows.same(step.rows)
    for layer, values in activations.items():
        table = job.checked(layer, values, step).flatten(1).numpy()
        store.write(layer, [members[0] for members in same], table)
        for members, value in zip(same, table, strict=True):
            for row in members[1:]:
                store.write(layer, [row], value)
    job.record.release(activations.values())
    activations.clear()
    store.mark([row for members in same for row in members])


def _attributes(network: Network, layers: list[str], reduction: Reduction, *, batch_size: int) -> dict[str, Any]:
    """Say what the activations were made with."""
    versions = {"bidsdnn": __version__} | {library: version(library) for library in LIBRARIES}
    return {
        "network": network.name,
        "label": network.label,
        "source": network.source,
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "seed": "n/a" if network.seed is None else network.seed,
        "preprocessing": network.preprocessing,
        "layers": json.dumps(layers),
        "reduction": json.dumps(reduction.described()),
        "batch_size": batch_size,
        "versions": json.dumps(versions),
    }


def _in_order(function: Callable[[Step], Batch], items: Iterable[Step], *, workers: int) -> Iterator[Batch]:
    """Call a function in threads and yield its results in order; at most `workers` + 1 wait in memory."""
    if workers == 1:
        yield from map(function, items)
        return
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                if len(pending) > workers:
                    yield pending.popleft().result()
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
