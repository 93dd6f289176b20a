"""Time `extract` against bare forward passes, and measure its memory.

Run as ``python benchmarks/extraction.py [speed|layers|thingsvision|memory] [NETWORK] [PICTURES]``.

``speed``: against a bare loop of forward passes that is fed the same and keeps nothing; once with pictures decoded
in both, once with tensors that are ready in both. What is left of 1 is the price of keeping, checking and writing every
activation. The processor time of the thread that runs the network tells the same on a machine that others use, too.
``thingsvision``: against that tool on one layer in one run, pictures decoded in both and features saved by both; where
it can be imported (of its requirements, TensorFlow's and torchtyping's names suffice). ``layers``: against one pass for
each of five layers of AlexNet, pictures decoded each time and activations gathered in a list, as DNNBrain goes about
it. ``memory``: peak memory with 512 and 4,096 pictures.

All run on one thread for kernels; workers of `extract` are threads of their own, and one more writes.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bidsdnn.networks import extract, zoo
from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Stimuli, load_image

BATCH = 32
RELUS = ["features.1", "features.4", "features.7", "features.9", "features.11"]


def bare(network: Network, stimuli: Stimuli) -> None:
    for start in range(0, len(stimuli), BATCH):
        paths = stimuli.paths[start : start + BATCH]
        with torch.inference_mode():
            network.module(torch.stack([network.preprocess(load_image(path)) for path in paths]))


def one_pass_a_layer(network: Network, stimuli: Stimuli, layers: list[str]) -> None:
    """A hook on one layer at a time, batches of 8, everything gathered in memory."""
    for layer in layers:
        kept: list[np.ndarray] = []
        hook = network.module.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, kept=kept: kept.extend(output.detach().numpy().copy())
        )
        for start in range(0, len(stimuli), 8):
            batch = torch.stack([network.preprocess(load_image(path)) for path in stimuli.paths[start : start + 8]])
            network.module(batch)
        hook.remove()
        np.asarray(kept)


CLOCKS = (time.perf_counter, time.process_time, time.thread_time)


def fastest(tasks: list[Callable[[], None]], *, rounds: int = 4) -> list[list[float]]:
    """Wall and processor seconds of each task, and processor seconds of this thread; least of some rounds.

    They take turns, so that other load meets all of them.
    """
    taken: list[list[list[float]]] = [[] for _ in tasks]
    for _ in range(rounds):
        for times, task in zip(taken, tasks, strict=True):
            begin = [clock() for clock in CLOCKS]
            task()
            times.append([clock() - then for clock, then in zip(CLOCKS, begin, strict=True)])
    return [[min(column) for column in zip(*times, strict=True)] for times in taken]


def extracted(network: Network, stimuli: Stimuli, layers: list[str], path: Path, workers: int = 1) -> None:
    path.unlink(missing_ok=True)  # ext4 would flush the new file to disk before it replaces an old one
    extract.extract(network, stimuli, layers, path, workers=workers)


def pictures(folder: Path, n: int, size: tuple[int, int] = (300, 400)) -> Stimuli:
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:04d}.jpg")
    return Stimuli.from_folder(folder).with_hashes()


def ready(network: Network, stimuli: Stimuli) -> Network:
    """Replace preprocessing by tensors made before, whatever the picture: decoding a 1-pixel image costs nothing."""
    tensor = network.preprocess(load_image(stimuli.paths[0]))
    return replace(network, preprocess=lambda image: tensor)


def two_threads(work: Callable[[], None]) -> None:
    torch.set_num_threads(2)
    try:
        work()
    finally:
        torch.set_num_threads(1)


def speed(name: str, n: int) -> None:
    network = zoo.build(name, weights="none")
    layers = network.canonical()
    for what, size in (("pictures decoded in both", (300, 400)), ("tensors ready in both", (1, 1))):
        with tempfile.TemporaryDirectory() as folder:
            stimuli = pictures(Path(folder), n, size)
            used = ready(network, stimuli) if size == (1, 1) else network
            path = Path(folder) / "activations.h5"
            bare(used, stimuli.select(stimuli.ids[:BATCH]))
            (loop, _, loop_cpu), (one, _, one_cpu), (two, *_), (threaded, *_) = fastest(
                [
                    lambda used=used, stimuli=stimuli: bare(used, stimuli),
                    lambda used=used, stimuli=stimuli, path=path: extracted(used, stimuli, layers, path),
                    lambda used=used, stimuli=stimuli, path=path: extracted(used, stimuli, layers, path, workers=2),
                    lambda used=used, stimuli=stimuli: two_threads(lambda: bare(used, stimuli)),
                ]
            )
            megabytes = extract.estimate_bytes(network, layers, n) / 1e6
            print(f"{name}, {len(layers)} layers, {n} pictures, {megabytes:.0f} MB, {what}")
            print(f"  bare forward loop   {n / loop:7.1f} pictures/s")
            print(f"  extract, 1 worker   {n / one:7.1f} pictures/s   ratio {loop / one:.2f}, of the thread's "
                  f"processor time {loop_cpu / one_cpu:.2f}")  # fmt: skip
            print(f"  extract, 2 workers  {n / two:7.1f} pictures/s   ratio {loop / two:.2f}; {threaded / two:.2f} of "
                  f"the bare loop with two kernel threads, {n / threaded:.1f} pictures/s")  # fmt: skip


def layers(name: str, n: int) -> None:
    network = zoo.build(name, weights="none")
    with tempfile.TemporaryDirectory() as folder:
        stimuli, path = pictures(Path(folder), n), Path(folder) / "activations.h5"
        (loop, loop_cpu, _), (one, one_cpu, _), (two, *_) = fastest(
            [
                lambda: one_pass_a_layer(network, stimuli, RELUS),
                lambda: extracted(network, stimuli, RELUS, path),
                lambda: extracted(network, stimuli, RELUS, path, workers=2),
            ],
            rounds=2,
        )
        print(f"{name}, {len(RELUS)} layers, {n} pictures")
        print(f"  one pass a layer    {n / loop:7.1f} pictures/s")
        print(f"  extract, 1 worker   {n / one:7.1f} pictures/s   {loop / one:.1f} times, processor time "
              f"{loop_cpu / one_cpu:.1f}")  # fmt: skip
        print(f"  extract, 2 workers  {n / two:7.1f} pictures/s   {loop / two:.1f} times")


def thingsvision(name: str, n: int) -> None:
    """One layer, features saved by both, the same pictures, preprocessing and batches."""
    try:
        from thingsvision import get_extractor_from_model
        from thingsvision.utils.data import DataLoader, ImageDataset
    except ImportError as error:
        sys.exit(f"thingsvision cannot be imported ({error}); put its repository on PYTHONPATH")
    network = zoo.build(name, weights="none")
    layer = network.canonical()[len(network.canonical()) // 2]
    theirs = get_extractor_from_model(network.module, "cpu", "pt", preprocess=network.preprocess)

    def extracted_by_them(folder: Path, out: Path) -> None:
        data = ImageDataset(str(folder), str(out), "pt", transforms=network.preprocess)
        theirs.extract_features(
            DataLoader(data, BATCH, "pt"), layer, flatten_acts=True, output_dir=str(out), save_in_one_file=True
        )
        shutil.rmtree(out)

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        stimuli, path = pictures(Path(folder), n), Path(out) / "activations.h5"
        extracted_by_them(Path(folder), Path(out) / "theirs")
        (them, them_cpu, _), (one, one_cpu, _), (two, *_) = fastest(
            [
                lambda: extracted_by_them(Path(folder), Path(out) / "theirs"),
                lambda: extracted(network, stimuli, [layer], path),
                lambda: extracted(network, stimuli, [layer], path, workers=2),
            ]
        )
        print(f"{name}, layer {layer}, {n} pictures")
        print(f"  thingsvision        {n / them:7.1f} pictures/s")
        print(f"  extract, 1 worker   {n / one:7.1f} pictures/s   {them / one:.2f} times, processor time "
              f"{them_cpu / one_cpu:.2f}")  # fmt: skip
        print(f"  extract, 2 workers  {n / two:7.1f} pictures/s   {them / two:.2f} times")


def peak(name: str, n: str, folder: str) -> None:
    """Run in a process of its own: its peak memory, in bytes."""
    network = zoo.build(name, weights="none")
    stimuli = Stimuli.from_folder(Path(folder)).select([f"{i:04d}.jpg" for i in range(int(n))]).with_hashes()
    extract.extract(network, stimuli, network.canonical(), Path(folder) / "activations.h5", workers=2)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def memory(name: str, n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures(Path(folder), n, (32, 32))
        found = {}
        for count in (n // 8, n):
            command = [sys.executable, __file__, "peak", name, str(count), folder]
            found[count] = int(subprocess.check_output(command, text=True))
            print(f"{name}, canonical layers, {count} pictures: peak {found[count] / 1e6:.0f} MB", flush=True)
        print(f"difference {(found[n] - found[n // 8]) / 1e6:.0f} MB")


def main(mode: str = "speed", name: str = "alexnet", count: str = "") -> None:
    torch.set_num_threads(1)
    modes: dict[str, tuple[Callable[[str, int], None], int]] = {
        "speed": (speed, 512), "layers": (layers, 64), "thingsvision": (thingsvision, 128), "memory": (memory, 4096),
    }  # fmt: skip
    run, usual = modes[mode]
    run(name, int(count or usual))


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
