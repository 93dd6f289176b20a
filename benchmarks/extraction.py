"""Time `extract` against a bare loop of forward passes that is fed the same and keeps nothing.

Run as ``python benchmarks/extraction.py [NETWORK] [PICTURES]``. Prints pictures a second of both, and their
ratio; what is left of 1 is the price of copying, checking and writing every activation. Both run on one
thread; two workers use two cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bidsdnn.networks import extract, zoo
from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Stimuli, load_image

BATCH = 32


def bare(network: Network, stimuli: Stimuli) -> None:
    for start in range(0, len(stimuli), BATCH):
        paths = stimuli.paths[start : start + BATCH]
        with torch.inference_mode():
            network.module(torch.stack([network.preprocess(load_image(path)) for path in paths]))


def fastest(tasks: list[Callable[[], None]], *, rounds: int = 4) -> list[float]:
    """Wall seconds of each task; they take turns, so that other load on the machine meets all of them."""
    taken: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for times, task in zip(taken, tasks, strict=True):
            begin = time.perf_counter()
            task()
            times.append(time.perf_counter() - begin)
    return [min(times) for times in taken]


def main(name: str = "alexnet", pictures: str = "96") -> None:
    torch.set_num_threads(1)
    n = int(pictures)
    rng = np.random.default_rng(0)
    network = zoo.build(name, weights="none")
    layers = network.canonical()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n):
            pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{i:04d}.jpg")
        stimuli = Stimuli.from_folder(Path(folder)).with_hashes()
        path = Path(folder) / "activations.h5"
        bare(network, stimuli.select(stimuli.ids[:BATCH]))
        size = extract.estimate_bytes(network, layers, n) / 1e6
        loop, one, two = fastest(
            [
                lambda: bare(network, stimuli),
                lambda: extract.extract(network, stimuli, layers, path, workers=1),
                lambda: extract.extract(network, stimuli, layers, path, workers=2),
            ]
        )
        print(f"{name}, {len(layers)} layers, {n} pictures, {size:.0f} MB")
        print(f"bare forward loop   {n / loop:7.1f} pictures/s")
        print(f"extract, 1 worker   {n / one:7.1f} pictures/s   ratio {loop / one:.2f}")
        print(f"extract, 2 workers  {n / two:7.1f} pictures/s   ratio {loop / two:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
