"""Searchlight RSA beside rsatoolbox and mne-rsa: seconds, and how many times faster.

Usage: OMP_NUM_THREADS=1 python benchmarks/searchlight.py [--centres 20000] [--voxels 100] [--stimuli 92] [--layers 1]

Peers that are not installed are left out. They compute as many centres as --peer-centres, on --jobs processes, and
their time is taken as proportional to that number; what they find is compared with what is found here. With --jobs 1
seconds are those of the processor, which other programs on the machine do not change.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from bidsdnn.methods.rdm import correlation
from bidsdnn.methods.searchlight import searchlight
from bidsdnn.parallel import workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--centres", type=int, default=20000)
    parser.add_argument("--voxels", type=int, default=100, help="of each neighbourhood")
    parser.add_argument("--stimuli", type=int, default=92)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--repeats", type=int, default=2, help="of what is fast; the best time counts")
    parser.add_argument("--peer-centres", type=int, default=20000)
    asked = parser.parse_args()
    values, near = ball(asked)
    rng = np.random.default_rng(1)
    models = np.array([correlation(rng.standard_normal((asked.stimuli, 40))) for _ in range(asked.layers)])
    print(f"{near.shape[0]} centres of about {near.nnz / near.shape[0]:.0f} voxels, {asked.stimuli} stimuli")
    for comparison in ("spearman", "pearson"):
        compare(values, near, models, comparison, asked)
    with workers(asked.jobs) as spread:
        _, took = timed(
            lambda: searchlight(values, near, models, permutations=asked.permutations, map=spread), asked.jobs
        )
    print(f"  bidsdnn, spearman with {asked.permutations} permutations on {asked.jobs} processes {took:8.2f} s")


def compare(
    values: np.ndarray, near: csr_array, models: np.ndarray, comparison: str, asked: argparse.Namespace
) -> None:
    best = np.inf
    for jobs in dict.fromkeys((1, asked.jobs)):
        with workers(jobs) as spread:
            # Processes start once for a whole run.
            spread(start, range(4 * jobs))
            for _ in range(asked.repeats):
                found, took = timed(lambda: searchlight(values, near, models, comparison=comparison, map=spread), jobs)
                best = min(best, took)
                print(f"  bidsdnn, {comparison:8s} on {jobs} processes {took:8.2f} s")
    part = near[: asked.peer_centres]
    for name, peer in (("rsatoolbox", rsatoolbox), ("mne_rsa", mne_rsa)):
        if importlib.util.find_spec(name):
            # What a first call imports does not count.
            peer(values, near[:8], models, comparison, asked.jobs)
            theirs, took = timed(lambda peer=peer: peer(values, part, models, comparison, asked.jobs), asked.jobs)
            took *= near.shape[0] / part.shape[0]
            error = np.abs(theirs - found.similarity[:, : part.shape[0]]).max()
            print(
                f"  {name}, {comparison:8s} on {asked.jobs} processes {took:8.2f} s "
                f"({took / best:.0f} x, differs by {error:.0e})"
            )


def start(number: int) -> int:
    values, near = np.random.default_rng(number).standard_normal((60, 10)), csr_array(np.ones((2, 10), bool))
    return len(searchlight(values, near, np.ones((1, 60 * 59 // 2))).n_voxels)


def ball(asked: argparse.Namespace) -> tuple[np.ndarray, csr_array]:
    """Voxels of a cube, each with those nearest to it, as in a volume: neighbourhoods of equal size."""
    from scipy.spatial import cKDTree

    side = int(np.ceil(asked.centres ** (1 / 3)))
    places = np.stack(np.unravel_index(np.arange(asked.centres), (side, side, side)), axis=1)
    near = np.sort(cKDTree(places).query(places, k=asked.voxels)[1], axis=1)
    adjacency = csr_array(
        (np.ones(near.size, bool), near.ravel(), np.arange(asked.centres + 1) * asked.voxels),
        shape=(asked.centres, asked.centres),
    )
    values = np.random.default_rng(0).standard_normal((asked.stimuli, asked.centres), dtype=np.float32)
    return values, adjacency


def patches(near: csr_array) -> list[np.ndarray]:
    return [near.indices[start:stop] for start, stop in zip(near.indptr[:-1], near.indptr[1:], strict=True)]


def rsatoolbox(values: np.ndarray, near: csr_array, models: np.ndarray, comparison: str, jobs: int) -> np.ndarray:
    from rsatoolbox.inference import eval_fixed
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.util.searchlight import evaluate_models_searchlight, get_searchlight_RDMs

    method = {"spearman": "spearman", "pearson": "corr"}[comparison]
    with Path(os.devnull).open("w") as silence, contextlib.redirect_stderr(silence):
        found = get_searchlight_RDMs(
            values.astype(np.float64), np.arange(near.shape[0]), patches(near), np.arange(len(values)), verbose=False
        )
        fixed = [ModelFixed(str(number), model) for number, model in enumerate(models)]
        results = evaluate_models_searchlight(found, fixed, eval_fixed, method=method, n_jobs=jobs)
    return np.array([result.evaluations.reshape(-1, len(models)).mean(axis=0) for result in results]).T


def mne_rsa(values: np.ndarray, near: csr_array, models: np.ndarray, comparison: str, jobs: int) -> np.ndarray:
    from mne_rsa import rsa_array

    chosen = [(slice(None), patch) for patch in patches(near)]
    found = rsa_array(values[:, :, None], list(models), patches=chosen, rsa_metric=comparison, n_jobs=jobs)
    return np.reshape(found, (len(models), near.shape[0]))


def timed(call: Callable[[], Any], jobs: int) -> tuple[Any, float]:
    clock = time.process_time if jobs == 1 else time.perf_counter
    start = clock()
    result = call()
    return result, clock() - start


if __name__ == "__main__":
    main()
