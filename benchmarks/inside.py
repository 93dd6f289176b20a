"""Time analyses inside networks, and measure their memory.

Run as ``python benchmarks/inside.py [top] [PICTURES]``.

``top``: top stimuli of all 1,000 classes of SqueezeNet with random weights, in one pass: time next to a bare loop of
forward passes over the same pictures that keeps nothing, and peak memory with a tenth of them and with all (5,000). The
layer's activations to all of them would be 3.4 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bidsdnn.networks import zoo
from bidsdnn.probes.stream import stream
from bidsdnn.probes.top import top_stimuli
from bidsdnn.stimuli import Stimuli

LAYER = "classifier.1"
"""The map of the classes, 1000 x 13 x 13, whose mean over positions is what the network gives of a class."""


def write_pictures(folder: Path, n: int) -> None:
    """Smooth random pictures, each another."""
    rng = np.random.default_rng(0)
    for number in range(n):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one_pass(folder: Path, n: int) -> None:
    """In a process of its own, so that its peak is its own."""
    torch.set_num_threads(1)
    network = zoo.build("squeezenet1_1", weights="none")
    stimuli = Stimuli.from_folder(folder)
    stimuli = stimuli.select(stimuli.ids[:n])
    began, spent = time.perf_counter(), time.process_time()
    table = top_stimuli(network, stimuli, layers=[LAYER], k=8).tables["topstimuli"]
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    assert table.groupby("channel").ngroups == 1000
    print(f"{wall:.1f} {cpu:.1f} {peak_mb():.0f}")


def bare(folder: Path, n: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    network = zoo.build("squeezenet1_1", weights="none")
    stimuli = Stimuli.from_folder(folder)
    stimuli = stimuli.select(stimuli.ids[:n])
    began, spent = time.perf_counter(), time.process_time()
    with torch.no_grad():
        for batch in stream(network, stimuli):
            network.module(batch.values)
    return time.perf_counter() - began, time.process_time() - spent


def top(n: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, n)
        for some in (n // 10, n):
            command = [sys.executable, __file__, "one-pass", str(some), name]
            wall, cpu, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            print(f"top stimuli of 1,000 classes, {some} pictures: {wall} s, {cpu} s of processors, peak {peak} MB")
        wall, cpu = bare(folder, n // 10)
        print(f"bare forward passes, {n // 10} pictures: {wall:.1f} s, {cpu:.1f} s of processors")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "top"
    if what == "one-pass":
        one_pass(Path(sys.argv[3]), int(sys.argv[2]))
    elif what == "top":
        top(int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
    else:
        sys.exit(__doc__)
