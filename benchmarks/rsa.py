"""RDMs and their comparisons beside scipy and rsatoolbox: seconds, and how many times faster.

Usage: OMP_NUM_THREADS=2 python benchmarks/rsa.py [rdm] [permutation] [kendall] [--stimuli 500] [--permutations 10000]

rsatoolbox is left out where it is not installed. What is slow elsewhere is timed on fewer permutations, and
compared on those.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
from scipy.spatial.distance import pdist, squareform

from bidsdnn.methods.rdm import correlation, correlation_from_gram
from bidsdnn.methods.reduce import gram
from bidsdnn.methods.similarity import kendall_tau_a, kendall_tau_b, label_permutation

PARTS = ("rdm", "permutation", "kendall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--patterns", type=int, default=1000, help="stimuli of the RDM that is made")
    parser.add_argument("--units", type=int, default=50000)
    parser.add_argument("--stimuli", type=int, default=500, help="stimuli of the RDMs that are compared")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--regions", type=int, default=1)
    parser.add_argument("--permutations", type=int, default=10000)
    parser.add_argument("--scipy-permutations", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="of what is fast; the best time counts")
    asked = parser.parse_args()
    if "rdm" in asked.parts:
        compare_rdms(asked)
    if "permutation" in asked.parts:
        for layers in asked.layers:
            compare_permutations(asked, layers)
    if "kendall" in asked.parts:
        compare_kendall(asked)


def compare_rdms(asked: argparse.Namespace) -> None:
    values = np.random.default_rng(0).standard_normal((asked.patterns, asked.units), dtype=np.float32)
    print(f"correlation RDM, {asked.patterns} stimuli, {asked.units} units in float32")
    _, product = timed(lambda: values @ values.T, asked.repeats)
    other = values.copy()
    _, unsymmetric = timed(lambda: values @ other.T, asked.repeats)
    print(f"  matrix product        {product:8.3f} s as X X', {unsymmetric:.3f} s as X Y'")
    exact, seconds_scipy = timed(lambda: pdist(values.astype(np.float64), "correlation"))
    print(f"  scipy pdist           {seconds_scipy:8.3f} s")
    theirs = rsatoolbox("data"), rsatoolbox("rdm.calc")
    seconds_rsatoolbox = np.nan
    if all(theirs):
        # In float64: in float32 it errs by as much as the plain product.
        dataset = theirs[0].Dataset(values.astype(np.float64))
        _, seconds_rsatoolbox = timed(lambda: theirs[1].calc_rdm(dataset, method="correlation"))
        print(f"  rsatoolbox            {seconds_rsatoolbox:8.3f} s")
    double = values.astype(np.float64)
    for name, call in {
        "correlation": lambda: correlation(values),
        "correlation, float64": lambda: correlation(double),
        "gram, then distances": lambda: correlation_from_gram(*gram(values), asked.units),
    }.items():
        ours, seconds = timed(call, asked.repeats)
        print(
            f"  {name:21s} {seconds:8.3f} s  ({seconds_scipy / seconds:.0f} x scipy, "
            f"{seconds_rsatoolbox / seconds:.0f} x rsatoolbox, {seconds / product:.2f} and {seconds / unsymmetric:.2f} "
            f"of the products, differs by {np.abs(ours - exact).max():.0e})"
        )


def compare_permutations(asked: argparse.Namespace, layers: int) -> None:
    models, brains = some_rdms(asked.stimuli, layers, 1), some_rdms(asked.stimuli, asked.regions, 2)
    few = asked.scipy_permutations

    def by_scipy() -> np.ndarray:
        orders = np.random.default_rng(0)
        reached = np.zeros((len(models), len(brains)))
        observed = np.array([[scipy.stats.spearmanr(m, b).statistic for b in brains] for m in models])
        for _ in range(few):
            order = orders.permutation(asked.stimuli)
            for j, brain in enumerate(brains):
                moved = squareform(squareform(brain)[np.ix_(order, order)])
                reached[:, j] += [
                    scipy.stats.spearmanr(model, moved).statistic >= observed[i, j] - 1e-10
                    for i, model in enumerate(models)
                ]
        return (1 + reached) / (1 + few)

    print(f"label permutation, Spearman, {asked.stimuli} stimuli, {layers} layers, {asked.regions} regions")
    _, seconds = timed(lambda: label_permutation(models, brains, permutations=asked.permutations))
    each = seconds / asked.permutations
    print(f"  label_permutation     {seconds:8.3f} s for {asked.permutations}, {each * 1000:.3f} s per 1,000")
    reference, seconds_scipy = timed(by_scipy)
    p = label_permutation(models, brains, permutations=few)[1]
    print(
        f"  scipy spearmanr       {seconds_scipy:8.3f} s for {few} ({seconds_scipy / few / each:.0f} x), "
        f"largest difference of p {np.abs(p - reference).max():.0e}"
    )


def compare_kendall(asked: argparse.Namespace) -> None:
    a, b = some_rdms(asked.stimuli, 2, 3)
    tied = np.round(b, 1)
    print(f"Kendall's tau, {asked.stimuli} stimuli, {len(a)} pairs")
    _, permuted = timed(lambda: label_permutation(a[None], b[None], comparison="kendall_tau_b", permutations=50))
    for name, other in {"no ties": b, "ties": tied}.items():
        theirs, seconds_scipy = timed(lambda other=other: scipy.stats.kendalltau(a, other).statistic, 10)
        ours, seconds = timed(lambda other=other: kendall_tau_b(a, other), 10)
        _, seconds_a = timed(lambda other=other: kendall_tau_a(a, other), 10)
        print(
            f"  {name:8s} scipy {seconds_scipy * 1000:.1f} ms, tau-b {seconds * 1000:.1f} ms, tau-a "
            f"{seconds_a * 1000:.1f} ms ({seconds_scipy / seconds:.1f} x, differs by {abs(ours - theirs):.0e})"
        )
    print(f"  in label_permutation  {permuted / 51 * 1000:.1f} ms per call")


def some_rdms(stimuli: int, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([correlation(rng.standard_normal((stimuli, 40))) for _ in range(count)])


def rsatoolbox(module: str) -> Any:
    try:
        return importlib.import_module(f"rsatoolbox.{module}")
    except ImportError:
        return None


def timed(call: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    seconds = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds = min(seconds, time.perf_counter() - start)
    return result, seconds


if __name__ == "__main__":
    main()
