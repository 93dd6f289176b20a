"""Time analyses inside networks, and measure their memory.

Run as ``python benchmarks/inside.py [top] [PICTURES]``, ``optimal [STEPS]``, ``occlusion [NETWORK ...]`` or
``saliency [PICTURES]``.

``top``: top stimuli of all 1,000 classes of SqueezeNet with random weights, in one pass: time next to a bare loop of
forward passes over the same pictures that keeps nothing, and peak memory with a tenth of them and with all (5,000). The
layer's activations to all of them would be 3.4 GB.

``optimal``: optimal stimuli of 64 units at once, next to one at a time, of SqueezeNet (224 x 224) and of the demo's
network (64 x 64): time of processors for a step of the 64, on one thread, and peak memory of both.

``occlusion``: the map of one class and one picture, a patch of 32 pixels every 16 (169 positions), next to one forward
pass for each position, timed at 12 of them, in the network's own memory layout and with channels last; seconds of the
processor with one thread. It is asserted that both give the same.

``saliency``: maps of one class of SqueezeNet with random weights for 1,000 pictures of 224 x 224 in one pass, and for a
tenth of them, by gradient and by SmoothGrad of 4 copies: time of processors, and peak memory. It is asserted that
every picture has a map of either method. The maps of the 1,000 are 200 MB a method, and wait in files from 256 MB on.
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
from bidsdnn.probes.ascent import Climb
from bidsdnn.probes.occlusion import Occluder, grid_of
from bidsdnn.probes.optimal import Maker
from bidsdnn.probes.pixels import Pixels
from bidsdnn.probes.saliency import saliency
from bidsdnn.probes.stream import stream
from bidsdnn.probes.top import top_stimuli
from bidsdnn.probes.units import Unit, layer_shape
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


def occlude(name: str) -> None:
    torch.set_num_threads(1)
    module = zoo.build(name, weights="none").module.requires_grad_(False)
    picture = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    grid = grid_of(picture.shape, size=32, step=16)

    def score(batch: torch.Tensor) -> torch.Tensor:
        return module(batch)[:, :1]

    occluder = Occluder(score, grid)
    occluder(picture)  # operations are watched, and parts compared with whole pictures
    began = time.process_time()
    drops, values = occluder(picture)
    parts = time.process_time() - began
    some = np.linspace(0, len(grid.boxes) - 1, 12).astype(int)
    for layout in (torch.contiguous_format, torch.channels_last):
        module.to(memory_format=layout)
        spent = []
        with torch.inference_mode():
            for k in some:
                covered = picture.clone()
                (top_, bottom), (left, right) = grid.boxes[k]
                covered[:, top_:bottom, left:right] = 0.0
                given = covered[None].contiguous(memory_format=layout)
                began = time.process_time()
                found = score(given)[0]
                spent.append(time.process_time() - began)
                assert (values - found - drops[:, k]).abs().max() < 1e-3 * drops.abs().max()
        each = float(np.median(spent)) * len(grid.boxes)
        kind = str(layout).removeprefix("torch.")
        print(f"occlusion, {name}: {parts:.2f} s; one pass a position ({kind}): {each:.2f} s; {each / parts:.1f} times")


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


def salient(folder: Path, method: str, n: int) -> None:
    """In a process of its own, so that its peak is its own."""
    torch.set_num_threads(1)
    network = zoo.build("squeezenet1_1", weights="none")
    stimuli = Stimuli.from_folder(folder)
    stimuli = stimuli.select(stimuli.ids[:n])
    began = time.process_time()
    found = saliency(network, stimuli, units=[Unit(LAYER, 0)], method=method, samples=4, show=6)
    cpu, maps = time.process_time() - began, found.numbers[method]
    assert maps.shape == (1, n, 224, 224) and all(one.any() for one in maps[0])
    print(f"{cpu:.1f} {peak_mb():.0f}")


def saliency_of(n: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, n)
        for method in ("gradient", "smoothgrad"):
            for some in (n // 10, n):
                command = [sys.executable, __file__, "salient", method, str(some), name]
                cpu, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                print(f"saliency by {method}, {some} pictures: {cpu} s of processors, peak {peak} MB")


def ascent(name: str, layer: str, batch: int, steps: int) -> None:
    """In a process of its own, so that its peak is its own."""
    torch.set_num_threads(1)
    network = zoo.build(name, weights="none")
    channels = layer_shape(network, layer)[0][0]
    units = [Unit(layer, number % channels) for number in range(64)]
    prepared = Pixels.of(network)
    maker = Maker(network, prepared, Climb(steps=steps), "fourier", 1.0, torch.eye(3), None, None, 0, "cpu", {})
    spent = time.process_time()
    for first in range(0, 64, batch):
        maker(units[first : first + batch], np.ones(batch), 1)
    print(f"{(time.process_time() - spent) / steps:.2f} {peak_mb():.0f}")


def optimal(steps: int) -> None:
    for name, layer in (("squeezenet1_1", "features.12"), ("demo", "conv4")):
        found = {}
        for batch in (64, 1):
            command = [sys.executable, __file__, "ascent", name, layer, str(batch), str(steps)]
            cpu, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            found[batch] = float(cpu)
            print(f"optimal stimuli of 64 units of {name} {layer}, {batch} at once: {cpu} s a step, peak {peak} MB")
        print(f"  ratio {found[1] / found[64]:.2f}")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "top"
    if what == "one-pass":
        one_pass(Path(sys.argv[3]), int(sys.argv[2]))
    elif what == "ascent":
        ascent(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif what == "salient":
        salient(Path(sys.argv[4]), sys.argv[2], int(sys.argv[3]))
    elif what == "saliency":
        saliency_of(int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    elif what == "optimal":
        optimal(int(sys.argv[2]) if len(sys.argv) > 2 else 8)
    elif what == "top":
        top(int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
    elif what == "occlusion":
        for network in sys.argv[2:] or ["alexnet", "squeezenet1_1", "resnet18", "vgg11"]:
            occlude(network)
    else:
        sys.exit(__doc__)
