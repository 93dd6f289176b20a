"""Encoders on wide layers through the analysis itself: seconds of each, and whether the planted layer is found.

Usage: python benchmarks/encoding_models.py [ols ridge ...] [--stimuli 92] [--voxels 1000] [--permutations 200]
       [--units 100000 250000 400000] [--workers 2]

Layers lie on disk as memory maps. The first few principal directions of the second layer drive the voxels of the
region `planted`, and nothing drives those of `none`; both are half of the voxels. 10 folds, 5 within each.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.analyses import encoding
from bidsdnn.parallel import workers
from bidsdnn.patterns import Group, Patterns

SIX = ("ols", "ridge", "lasso", "elastic-net", "pls", "kernel-ridge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoders", nargs="*", default=SIX)
    parser.add_argument("--stimuli", type=int, default=92)
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--units", type=int, nargs="+", default=[100_000, 250_000, 400_000])
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layers, brain = planted(asked, Path(folder))
        half = np.arange(asked.voxels) < asked.voxels // 2
        options = {
            "regions": {"atlas": {"planted": half, "none": ~half}}, "permutations": asked.permutations, "seed": 0,
        }  # fmt: skip
        print(f"{asked.stimuli} stimuli, {asked.voxels} voxels, layers of {asked.units} units, {asked.permutations} "
              f"permutations, {asked.workers} workers")  # fmt: skip
        total = 0.0
        with workers(asked.workers, folder=Path(folder)) as map_:
            map_(abs, range(asked.workers))  # Processes are started before the clock.
            for encoder in asked.encoders:
                start = time.perf_counter()
                result = encoding(layers, brain, encoder=encoder, map=map_, **options)
                seconds = time.perf_counter() - start
                total += seconds
                table = result.tables["encoding"].set_index(["region", "layer"])
                r = " ".join(f"{table.loc[('planted', group.name), 'pearsonr']:.3f}" for group in layers.groups)
                p = table.loc[("planted", layers.groups[1].name), "p"], table.loc["none", "p"].min()
                none = table.loc["none", "pearsonr"].abs().max()
                print(
                    f"  {encoder:13} {seconds:7.1f} s; r by layer {r}, of none at most {none:.3f}; p {p[0]:.3f}, of "
                    f"none at least {p[1]:.3f}", flush=True,
                )  # fmt: skip
        print(f"  all           {total:7.1f} s; {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3:.0f} MB "
              "in the largest worker")  # fmt: skip


def planted(asked: argparse.Namespace, folder: Path) -> tuple[Patterns, Patterns]:
    """Layers on disk, and a brain half of which follows the second."""
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"stimulus_id": [f"s{number:04d}" for number in range(asked.stimuli)]})
    groups, hidden = [], rng.standard_normal((len(asked.units), asked.stimuli, 8))
    for number, units in enumerate(asked.units):
        path = folder / f"layer{number}.npy"
        table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(asked.stimuli, units))
        for start in range(0, units, 20_000):
            stop = min(start + 20_000, units)
            shared = hidden[number] @ rng.standard_normal((8, stop - start))
            # Rectified, as activations are, so that units have means and tails.
            table[:, start:stop] = np.maximum(shared + 2 * rng.standard_normal(shared.shape), 0)
        table.flush()
        groups.append(Group(f"layer{number}", np.load(path, mmap_mode="r"), "net"))
    responses = rng.standard_normal((asked.stimuli, asked.voxels))
    half = asked.voxels // 2
    responses[:, :half] += hidden[1] @ rng.standard_normal((8, half)) / 3
    return Patterns(items, tuple(groups)), Patterns(items, (Group("brain", responses.astype(np.float32)),))


if __name__ == "__main__":
    main()
