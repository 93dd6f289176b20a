"""RDMs beside scipy's pdist, label permutations beside a loop of scipy's spearmanr: seconds and ratio.

Usage: OMP_NUM_THREADS=1 python benchmarks/rsa.py [--stimuli 92] [--units 50000] [--permutations 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
from scipy.spatial.distance import pdist, squareform

from bidsdnn.methods.rdm import correlation, correlation_from_gram, label_permutation
from bidsdnn.methods.reduce import gram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stimuli", type=int, default=92)
    parser.add_argument("--units", type=int, default=50000)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--regions", type=int, default=4)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)

    values = rng.standard_normal((asked.stimuli, asked.units))
    theirs, seconds_scipy = timed(lambda: pdist(values, "correlation"))
    print(f"correlation RDM, {asked.stimuli} stimuli, {asked.units} units, one thread")
    print(f"  scipy pdist           {seconds_scipy:8.3f} s")
    for name, call in {
        "correlation": lambda: correlation(values),
        "gram, then distances": lambda: correlation_from_gram(*gram(values), asked.units),
    }.items():
        ours, seconds = timed(call)
        different = np.abs(ours - theirs).max()
        print(f"  {name:21s} {seconds:8.3f} s  ({seconds_scipy / seconds:.1f} x, differs by {different:.0e})")

    models, brains = (
        np.stack([correlation(rng.standard_normal((asked.stimuli, 40))) for _ in range(count)])
        for count in (asked.layers, asked.regions)
    )

    def by_scipy() -> np.ndarray:
        orders = np.random.default_rng(0)
        reached = np.zeros((len(models), len(brains)))
        observed = np.array([[scipy.stats.spearmanr(m, b).statistic for b in brains] for m in models])
        for _ in range(asked.permutations):
            order = orders.permutation(asked.stimuli)
            for j, brain in enumerate(brains):
                moved = squareform(squareform(brain)[np.ix_(order, order)])
                reached[:, j] += [
                    scipy.stats.spearmanr(model, moved).statistic >= observed[i, j] - 1e-10
                    for i, model in enumerate(models)
                ]
        return (1 + reached) / (1 + asked.permutations)

    (_, p), seconds = timed(lambda: label_permutation(models, brains, permutations=asked.permutations))
    reference, seconds_scipy = timed(by_scipy)
    print(
        f"label permutation, {asked.layers} layers, {asked.regions} regions, "
        f"{asked.permutations} permutations, one thread"
    )
    print(f"  scipy spearmanr       {seconds_scipy:8.3f} s")
    print(f"  label_permutation     {seconds:8.3f} s  ({seconds_scipy / seconds:.0f} x)")
    print(f"  largest difference of p {np.abs(p - reference).max():.3f}")


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
