"""Maps over participants beside nilearn's permuted_ols: seconds, ratio, memory, and the p of one map.

Usage: OMP_NUM_THREADS=1 python benchmarks/group.py [--participants 50 --voxels 200000 --layers 8 --flips 5000]
Ours is the group level's own function, from files to files, with both one-sided p, their families and rates; nilearn
tests one of the layers, in memory, on --jobs processors. With --tfce N, N flips of one map are enhanced by both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.groupmaps import Tests, group_maps
from bidsdnn.methods.inference import sign_flips, signs
from bidsdnn.methods.tfce import peaks
from bidsdnn.parallel import serial
from bidsdnn.spaces import Volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {
        "participants": 50,
        "voxels": 200_000,
        "layers": 8,
        "flips": 5000,
        "jobs": 2,
        "tfce": 0,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    space = brain(asked.voxels)
    print(f"{asked.participants} participants x {space.size} voxels x {asked.layers} layers, {asked.flips} sign flips")
    with tempfile.TemporaryDirectory() as folder:
        out = Derivatives(Path(folder) / "out")
        labels = [f"{i:03d}" for i in range(asked.participants)]
        for number, label in enumerate(labels):
            write(out, label, scores(number, asked.layers, space), space)
        # A process of its own, so that its peak is that of the level alone.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, spent, megabytes = pool.apply(ours, (out, labels, asked.flips))
    print(f"  bidsdnn, files to files  {seconds:8.1f} s, {spent:8.1f} s of one processor, peak {megabytes:.0f} MB")
    one = np.stack([np.arctanh(scores(number, 1, space)[0]) for number in range(asked.participants)])
    start, began = time.perf_counter(), time.process_time()
    found = sign_flips(one, permutations=asked.flips, seed=0)
    alone, own = time.perf_counter() - start, time.process_time() - began
    print(f"  bidsdnn, one map         {alone:8.1f} s, {own:8.1f} s of one processor")
    theirs, peer_seconds, peer_spent = timed_peer(one, asked.flips, asked.jobs)
    print(f"  nilearn, one map         {peer_seconds:8.1f} s, {peer_spent:8.1f} s of {asked.jobs} processors")
    print(
        f"  ratio of one map {peer_seconds / alone:.0f}, of processor time {peer_spent / own:.0f}; of {asked.layers} "
        f"layers with files {asked.layers * peer_seconds / seconds:.0f}, {asked.layers * peer_spent / spent:.0f}"
    )
    compare(found, theirs, asked.flips)
    if asked.tfce:
        enhanced(one, space, asked.tfce)


def brain(voxels: int) -> Volume:
    """A ball of so many voxels."""
    side = int(np.ceil((voxels * 6 / np.pi) ** (1 / 3))) + 2
    distance = np.linalg.norm(np.stack(np.indices((side,) * 3)) - (side - 1) / 2, axis=0)
    mask = distance <= np.sort(distance, axis=None)[voxels - 1]
    return Volume(mask, np.diag([2.0, 2.0, 2.0, 1.0]))


def scores(number: int, layers: int, space: Volume) -> np.ndarray:
    """Smooth correlations, above zero in a part of the ball."""
    rng = np.random.default_rng(number)
    found = []
    for _ in range(layers):
        field = gaussian_filter(rng.standard_normal(space.mask.shape, dtype=np.float32), 1.5)
        field *= 0.1 / field.std()
        field[: len(field) // 3] += 0.03
        found.append(field[space.mask])
    return np.array(found, dtype=np.float32)


def write(out: Derivatives, label: str, values: np.ndarray, space: Volume) -> None:
    names = {"sub": label, "task": "t", "space": "MNI152NLin2009cAsym"}
    mask = out.path("mask", ".nii.gz", **names, desc="brain")
    mask.parent.mkdir(parents=True)
    out.write_mask(mask, space)
    path = out.path("statmap", ".nii.gz", **names, model="net", stat="pearsonr", desc="encoding")
    out.write_map(path, values, space, {"Layers": [f"l{i}" for i in range(len(values))], "Network": "net"})


def ours(out: Derivatives, labels: list[str], flips: int) -> tuple[float, float, float]:
    start, began = time.perf_counter(), time.process_time()
    group_maps(out, labels, [], Tests(permutations=flips, seed=0, map=serial))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return time.perf_counter() - start, time.process_time() - began, peak


def timed_peer(values: np.ndarray, flips: int, jobs: int) -> tuple[np.ndarray, float, float]:
    """Family-wise p, seconds, and seconds of processors: those of workers count when they have ended."""
    from joblib.externals.loky import get_reusable_executor
    from nilearn.mass_univariate import permuted_ols

    start, began = time.perf_counter(), spent()
    result: Any = permuted_ols(
        np.ones((len(values), 1)), values, model_intercept=False, n_perm=flips, two_sided_test=False, n_jobs=jobs,
        random_state=0, output_type="dict",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    get_reusable_executor().shutdown(wait=True)
    return 10 ** -result["logp_max_t"][0], seconds, spent() - began


def spent() -> float:
    """Processor time of this process and of those of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def compare(found: Any, theirs: np.ndarray, flips: int) -> None:
    differ = found.p_fwe - theirs
    # Two independent estimates of one p from so many flips each.
    error = np.sqrt(2 * np.maximum(theirs * (1 - theirs), 1 / flips) / flips)
    print(
        f"  family-wise p of one map: largest difference {np.abs(differ).max():.4f}, "
        f"{np.abs(differ / error).max():.1f} Monte-Carlo standard errors; "
        f"{(found.p_fwe <= 0.05).sum()} and {(theirs <= 0.05).sum()} voxels at .05"
    )


def enhanced(values: np.ndarray, space: Volume, flips: int) -> None:
    from nilearn.mass_univariate._utils import calculate_tfce
    from scipy.ndimage import generate_binary_structure

    rows, _ = signs(len(values), flips, 0)
    edges = space.edges()
    start = time.perf_counter()
    peaks(values, edges, rows)
    seconds = (time.perf_counter() - start) / flips
    t = values.mean(axis=0) / values.std(axis=0, ddof=1) * len(values) ** 0.5
    grid = np.zeros(space.mask.shape)
    grid[space.mask] = t
    start = time.perf_counter()
    calculate_tfce(grid[..., None], generate_binary_structure(3, 1), two_sided_test=False)
    peer = time.perf_counter() - start
    print(f"  cluster enhancement of one flip: {seconds:.3f} s, nilearn {peer:.3f} s")


if __name__ == "__main__":
    main()
