"""Memory of an encoding, sampled while it runs: ``python benchmarks/encoding_memory.py [stimuli voxels ...]``.

Five layers of up to 300,000 units lie in an HDF5 file of float32, responses in another file; layers go one after the
other. The number of penalties, permutations and bootstrap samples is small: they cost time, and no memory. Without
arguments two tables of a tenth of 10,000 stimuli x 200,000 voxels: a tenth of the stimuli with all voxels, which shows
what grows with voxels, and a third of both, which shows what grows with the square of the stimuli.
``--encoder NAME``, ``--layers N``, ``--fit`` (peaks at several sizes, for `bidsdnn.encoding.memory`) and ``--eigh N``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from bidsdnn.analyses import encoding
from bidsdnn.encoding import memory
from bidsdnn.methods.reduce import blocks
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

UNITS = (300_000, 190_000, 65_000, 43_000, 4_096)
TENTHS = ((1_000, 200_000), (3_162, 63_246))
FITTED = ((600, 10_000), (1_200, 5_000), (2_000, 2_000), (500, 60_000), (1_600, 10_000))
"""The last one is for the check."""
BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 60


def resident() -> tuple[int, int]:
    """Bytes of this process that are its own, and pages of files that it has open."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(found[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile"))


@contextmanager
def sampled(every: float = 0.05) -> Iterator[list[tuple[float, int, int]]]:
    """Seconds, and both parts of the memory, until the end."""
    samples, done, start = [], threading.Event(), time.monotonic()

    def sample() -> None:
        while not done.is_set():
            samples.append((time.monotonic() - start, *resident()))
            done.wait(every)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def curve(samples: list[tuple[float, int, int]]) -> str:
    """The largest memory of each sixtieth of the time, as bars from nothing to the peak."""
    times, total = np.array([one[0] for one in samples]), np.array([one[1] + one[2] for one in samples])
    places = np.minimum((times / times[-1] * WIDTH).astype(int), WIDTH - 1)
    tops = [total[places == place].max(initial=0) for place in range(WIDTH)]
    return "".join(BARS[round(top / total.max() * (len(BARS) - 1))] for top in tops)


def made(folder: Path, n: int, n_voxels: int, units: Sequence[int]) -> tuple[Patterns, Patterns]:
    """Layers and responses that depend on the first layer, in files."""
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"stimulus_id": [f"s{i:05d}" for i in range(n)]})
    cause = rng.standard_normal((n, 20), dtype=np.float32)
    file = h5py.File(folder / "layers.h5", "w")
    groups = []
    for number, count in enumerate(units):
        values = file.create_dataset(f"layer{number}", (n, count), dtype="f4", chunks=(n, 64))
        for columns in blocks(count, 4096):
            mixed = cause @ rng.standard_normal((20, columns.stop - columns.start), dtype=np.float32)
            values[:, columns] = mixed + rng.standard_normal(mixed.shape, dtype=np.float32) * 2
        groups.append(Group(f"layer{number}", values, "net"))
    table = memory.Table.of(folder / "brain.bin", (n, n_voxels), mode="w+")
    for columns in blocks(n_voxels, memory.width(n)):
        mixed = cause @ rng.standard_normal((20, columns.stop - columns.start), dtype=np.float32)
        table[:, columns] = mixed + rng.standard_normal(mixed.shape, dtype=np.float32) * 5
    return Patterns(items, groups), Patterns(items, (Group("brain", table),))


def measure(n: int, n_voxels: int, units: Sequence[int], *, encoder: str, cv: str, folder: Path | None) -> None:
    """One encoding, its peak beside the estimate, and its curve."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        x, y = made(Path(name), n, n_voxels, units)
        own = {"penalties": [0.1, 1.0]} if encoder == "ridge" else {"n_components": 5} if encoder == "pls" else {}
        start = time.process_time()
        regions = {"atlas": {"half": np.arange(n_voxels) < n_voxels // 2, "all": np.ones(n_voxels, dtype=bool)}}
        with threadpool_limits(1), sampled() as samples:
            result = encoding(
                x, y, regions=regions, permutations=9, seed=0, map=serial, encoder=encoder, encoder_parameters=own,
                bootstrap=20, inner_splits=3, cv=cv, scratch=Path(name),
            )  # fmt: skip
        seconds = time.process_time() - start
    own_bytes, total = max(one[1] for one in samples), max(one[1] + one[2] for one in samples)
    estimate = memory.estimate_bytes(n, n_voxels, encoder=encoder)
    sizes = {
        "peak": total, "of it its own": own_bytes, "at the start": sum(samples[0][1:]), "estimated": estimate,
        "responses": 4 * n * n_voxels,
    }  # fmt: skip
    said = ", ".join(f"{key} {value / 1e6:.0f} MB" for key, value in sizes.items())
    r = result.tables["encoding"]["pearsonr"].iloc[0]
    print(f"{encoder} {n} x {n_voxels}, {len(units)} layers, {cv}: {said}; mean r of layer 0 {r:.3f}")
    print(f"{samples[-1][0]:.0f} s, {seconds:.0f} s of processor time")
    print(f"|{curve(samples)}|", flush=True)


def main() -> None:
    """Each table in a process of its own, which starts with nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", help="stimuli and voxels, in turn")
    parser.add_argument("--encoder", default="ridge")
    parser.add_argument("--layers", type=int, default=len(UNITS))
    parser.add_argument("--units", type=int, default=UNITS[0], help="at most")
    parser.add_argument("--cv", default="kfold:5")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--eigh", type=int)
    parser.add_argument("--folder", type=Path, help="of scratch files: on a disk")
    asked = parser.parse_args()
    if asked.eigh:
        table = np.random.default_rng(0).standard_normal((asked.eigh, 2 * asked.eigh), dtype=np.float32)
        products = (table @ table.T).astype(np.float64)
        start = time.process_time()
        with threadpool_limits(1):
            eigh(products.T, overwrite_a=True, driver="evd", check_finite=False)
        print(f"eigenvectors of {asked.eigh} stimuli: {time.process_time() - start:.0f} s of processor time")
        return
    sizes = list(zip(asked.sizes[::2], asked.sizes[1::2], strict=True)) or list(FITTED if asked.fit else TENTHS)
    if len(sizes) == 1:
        units = [min(count, asked.units) for count in UNITS[: asked.layers]]
        measure(*sizes[0], units, encoder=asked.encoder, cv=asked.cv, folder=asked.folder)
        return
    rest = ["--encoder", asked.encoder, "--layers", str(1 if asked.fit else asked.layers), "--cv", asked.cv]
    rest += ["--units", str(20_000 if asked.fit else asked.units)]
    rest += ["--folder", str(asked.folder)] if asked.folder else []
    for n, n_voxels in sizes:
        subprocess.run([sys.executable, __file__, str(n), str(n_voxels), *rest], check=True)


if __name__ == "__main__":
    main()
