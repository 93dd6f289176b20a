"""Pictures through a network, the activations of any number of its layers to one HDF5 file.

Batches have one size whatever the number of pictures or workers, and are written in order, so that the
file's bytes depend on nothing but the pictures and the network. Memory holds a few batches, never the whole
table.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bidsdnn import __version__
from bidsdnn.errors import ConfigError, DataError, OutputError
from bidsdnn.networks.network import Network, Recorder
from bidsdnn.stimuli import LOADERS, Stimuli

CHUNK_COLUMNS = 8192
RESERVED = ("stim_id", "sha256")
LIBRARIES = ("torch", "torchvision", "pillow", "numpy", "h5py")

Batch = tuple[slice, dict[str, Tensor]]


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


def estimate_bytes(network: Network, layers: Sequence[str], n_stimuli: int) -> int:
    """Compute the size of an activations file, without its few kilobytes of names.

    Parameters
    ----------
    network : Network
        One picture is run through it.
    layers : sequence of str
        Dotted names.
    n_stimuli : int
        Number of pictures.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ConfigError
        If a layer does not exist.
    """
    units = sum(int(np.prod(shape)) for _, shape in network.shapes(list(dict.fromkeys(layers))).values())
    return 4 * units * n_stimuli


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
) -> None:
    """Activations of all layers were recorded in one forward pass over the stimuli.

    The file has one dataset a layer, named by the layer, float32 of shape (n_stimuli, units), with the
    unflattened shape in its attribute ``shape``; ``stim_id`` and ``sha256``, the rows' ids and the hashes of
    their files; and on the root what they were made of: ``network``, ``label``, ``weights``,
    ``weights_sha256``, ``seed``, ``preprocessing``, ``layers`` (JSON), ``batch_size`` and ``versions``
    (JSON). The last batch is filled up by repeating its last picture, because a network's output changes in
    the last bits with the size of the batch.

    Parameters
    ----------
    network : Network
        Moved to the device for as long as it takes.
    stimuli : Stimuli
        All of the network's modality.
    layers : sequence of str
        Dotted names.
    path : Path
        Written, and removed again on error; pass a temporary name and rename it.
    workers : int
        Threads that decode, prepare and run batches; on a GPU batches run one at a time. The file does not
        depend on it.
    batch_size : int
        Pictures that run together. Part of what the activations depend on: keep it.
    device : str
        As in `device`.
    progress : bool
        Show a bar, if stderr is a terminal.

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
    others = set(stimuli.table["modality"]) - {network.modality}
    if others:
        raise ConfigError(f"network {network.label} sees {network.modality}, not {', '.join(sorted(others))}")
    layers = list(dict.fromkeys(layers))
    if not layers or set(layers) & set(RESERVED):
        raise ConfigError(f"layers: expected some, none named {' or '.join(RESERVED)}, got {layers}")
    hashed = stimuli if (stimuli.table["sha256"] != "").all() else stimuli.with_hashes(workers=workers)
    starts = range(0, len(stimuli), batch_size)
    with (
        _placed(network.module, device) as target,
        _single_threaded(),
        Recorder(network.module, layers) as record,
        tqdm(total=len(stimuli), unit=" pictures", disable=not (progress and sys.stderr.isatty())) as bar,
    ):
        gate = nullcontext() if target.type == "cpu" else threading.Lock()
        run = partial(_run_batch, network, hashed.paths, record, gate, target, batch_size)
        with _new_file(path) as file:
            _describe(file, network, hashed, layers, batch_size=batch_size)
            for rows, activations in _in_order(run, starts, workers=workers):
                for layer, values in activations.items():
                    _write(file, layer, values, rows, n=len(stimuli), batch_size=batch_size)
                activations.clear()  # before the next batch is made, not after
                bar.update(rows.stop - rows.start)


def _run_batch(
    network: Network,
    files: list[Path],
    record: Recorder,
    gate: Any,
    target: torch.device,
    batch_size: int,
    start: int,
) -> Batch:
    """Decode, prepare and run the pictures from `start` on."""
    paths = files[start : start + batch_size]
    pictures = [network.preprocess(LOADERS[network.modality](path)) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise ConfigError(
                f"preprocessing of {network.label} gives shape {tuple(picture.shape)} for {path} and "
                f"{tuple(pictures[0].shape)} for {paths[0]}; make it crop or resize to one size"
            )
    batch = torch.stack(pictures + pictures[-1:] * (batch_size - len(pictures)))
    with gate, torch.inference_mode():
        activations = record(batch.to(target), keep=len(paths))
    for layer, values in activations.items():
        # A sum is finite unless a term is not, or it overflows; only then is every value looked at.
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values.flatten(1))).any(1).nonzero()[0])
            raise DataError(
                f"{paths[bad]}: activations of {network.label}, layer {layer}, are not finite; "
                "leave out the layer, or check the weights"
            )
    return slice(start, start + len(paths)), activations


def _in_order(function: Callable[[int], Batch], items: Iterable[int], *, workers: int) -> Iterator[Batch]:
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


@contextmanager
def _placed(module: nn.Module, name: str) -> Iterator[torch.device]:
    """Move a module to a device and, in the end, back; on a GPU, in full precision with the same kernels."""
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
def _single_threaded() -> Iterator[None]:
    """Run torch's kernels on one thread; on more, sums have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _new_file(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file, and remove it if what follows fails."""
    try:
        # The newer format has no limit of 64 KiB on attributes, and no times.
        file = h5py.File(path, "w", libver=("v110", "v110"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); choose another folder") from error
    try:
        with file:
            yield file
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error}); free space there, or choose another") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _describe(file: h5py.File, network: Network, stimuli: Stimuli, layers: list[str], *, batch_size: int) -> None:
    """Write what the activations are of, and what they were made with."""
    for name, texts in (("stim_id", stimuli.ids), ("sha256", list(stimuli.table["sha256"]))):
        encoded = [text.encode() for text in texts]
        dtype = h5py.string_dtype("utf-8", max(map(len, encoded)))
        file.create_dataset(name, data=np.array(encoded, dtype=dtype), track_times=False)
    versions = {"bidsdnn": __version__} | {library: version(library) for library in LIBRARIES}
    file.attrs.update(
        {
            "network": network.name,
            "label": network.label,
            "source": network.source,
            "weights": network.weights,
            "weights_sha256": network.weights_sha256,
            "seed": "n/a" if network.seed is None else network.seed,
            "preprocessing": network.preprocessing,
            "layers": json.dumps(layers),
            "batch_size": batch_size,
            "versions": json.dumps(versions),
        }
    )


def _write(file: h5py.File, layer: str, values: Tensor, rows: slice, *, n: int, batch_size: int) -> None:
    """Write a batch's rows of one layer; the first batch makes the dataset."""
    flat = values.reshape(len(values), -1).numpy()
    if layer not in file:
        # Chunks of equal width, for the file stores every chunk whole.
        blocks = -(-flat.shape[1] // CHUNK_COLUMNS)
        chunks = (min(batch_size, n), -(-flat.shape[1] // blocks))
        made = file.create_dataset(layer, (n, flat.shape[1]), np.float32, chunks=chunks, track_times=False)
        made.attrs["shape"] = np.array(values.shape[1:], dtype=np.int64)
    file[layer][rows] = flat
