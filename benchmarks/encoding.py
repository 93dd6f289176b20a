"""Encoding beside himalaya and scikit-learn, in one run: seconds, how many times faster, and whether scores agree.

Usage: OMP_NUM_THREADS=2 python benchmarks/encoding.py [ridge] [wide] [permutations] [recipe] [--small] [--repeats 3]

``ridge`` is 2,000 stimuli, 200 of them held out, 1,000 features, 20,000 voxels and 10 penalties; ``wide`` 1,000 stimuli
and another 500 held out, 4,096 features, 2,000 voxels and 20 penalties. Penalties are chosen for each voxel over the
same 5 folds, and all voxels are fitted and predicted by both. himalaya's models, backends and batches are first
tried on a part of the voxels, and the fastest takes part. ``permutations`` are timed next to single-penalty
cross-validated fits; ``recipe`` is that of DNNBrain's paper. Repeats alternate; medians count, of the wall and of the
processor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from bidsdnn.methods import products
from bidsdnn.methods.models import OLS, Ridge
from bidsdnn.methods.predict import cross_predict, kfold, mean_operator
from bidsdnn.methods.relabelled import relabelled_correlations
from bidsdnn.methods.scores import membership, pearsonr, pooled_pearsonr, standardise

PARTS = ("ridge", "wide", "permutations", "recipe")


class Size(NamedTuple):
    stimuli: int
    features: int
    voxels: int
    penalties: int
    held_out: int


SIZES = {"ridge": Size(2000, 1000, 20000, 10, 200), "wide": Size(1500, 4096, 2000, 20, 500)}
SMALL = {"ridge": Size(400, 100, 600, 10, 40), "wide": Size(300, 900, 300, 20, 100)}


class Took(NamedTuple):
    wall: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="a tenth of everything, for a quick check")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--relabellings", type=int, default=10, help="that are timed, for the cost of 1,000")
    asked = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    sizes = SMALL if asked.small else SIZES
    print(f"{threads} thread(s); bfloat16 tiles: {products._has_tiles()}; load {os.getloadavg()[0]:.1f}")
    for part in ("ridge", "wide"):
        if part in asked.parts:
            compare_ridge(part, sizes[part], asked.repeats)
    if "permutations" in asked.parts:
        compare_permutations(sizes["ridge"], asked)
    if "recipe" in asked.parts:
        compare_recipe(sizes["wide"], asked.repeats)


def compare_ridge(name: str, size: Size, repeats: int) -> None:
    x, y = planted(size)
    test = size.held_out
    new, held, x, y = x[:test], y[:test], x[test:], y[test:]
    folds = kfold(len(x), 5, seed=0)
    penalties = np.logspace(-1, 5, size.penalties)
    ours = Ridge(penalties, n_splits=5, seed=0, relative=False)
    print(
        f"{name}: {len(x)} stimuli to fit, {size.features} features, {size.voxels} voxels, {size.penalties} penalties"
    )
    part = y[:, : max(size.voxels // 10, 200)]
    tried = {label: timed(lambda call=call: call(x, part, new))[1] for label, call in himalayas(penalties, folds, x)}
    for label, took in tried.items():
        print(f"  himalaya {label:40s} {took.wall:8.2f} s of {part.shape[1]} voxels, processor {took.processor:.2f} s")
    best = min(tried, key=lambda label: tried[label].processor)
    calls = {
        "himalaya": lambda: dict(himalayas(penalties, folds, x))[best](x, y, new),
        "fit, predict": lambda: ours.fit(x, y).predict(new),
        "held out": lambda: ours.held_out(x, new)(y),
        "in float32": lambda: in_float32(lambda: ours.held_out(x, new)(y)),
    }
    found, took = alternated(calls, repeats)
    reference = pearsonr(found["himalaya"], held)
    for label, (wall, processor) in took.items():
        r = pearsonr(found[label], held)
        print(
            f"  {label:14s} {wall:8.2f} s, processor {processor:8.2f} s  "
            f"({took['himalaya'].wall / wall:.1f} x, processor {took['himalaya'].processor / processor:.1f} x; mean r "
            f"{r.mean():.5f}, differs by {abs(r.mean() - reference.mean()):.0e}; within .01 "
            f"{(np.abs(r - reference) < 0.01).mean():.2%})"
        )


def himalayas(penalties: np.ndarray, folds: list[Any], x: np.ndarray) -> Iterator[tuple[str, Callable[..., Any]]]:
    """himalaya's ways of the same fit by name; features and targets are centred, as its kernels want them."""
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV

    def call(backend: str, kernel: bool, batch: int | None) -> Callable[..., Any]:
        def fitted(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
            arrays = set_backend(backend)
            along, mean = x.mean(axis=0), y.mean(axis=0)
            shared = {"alphas": penalties.astype(np.float32), "cv": folds}
            settings = {"n_targets_batch": batch}
            model = (
                KernelRidgeCV(kernel="linear", solver_params=settings, **shared)
                if kernel
                else RidgeCV(fit_intercept=False, solver_params={"warn": False, **settings}, **shared)
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(arrays.asarray(x - along), arrays.asarray(y - mean))
                return np.asarray(arrays.to_numpy(model.predict(arrays.asarray(new - along)))) + mean

        return fitted

    for backend in ("torch", "numpy"):
        for kernel in (False, True) if x.shape[1] <= len(x) else (True,):
            for batch in (None, 1000):
                yield (
                    f"{'KernelRidgeCV' if kernel else 'RidgeCV'}, {backend}, {batch or 'all'} at once",
                    call(backend, kernel, batch),
                )


def in_float32(call: Callable[[], Any]) -> Any:
    """The same on a processor without tiles for bfloat16."""
    known, products._has_tiles = products._has_tiles, lambda: False
    try:
        return call()
    finally:
        products._has_tiles = known


def compare_permutations(size: Size, asked: argparse.Namespace) -> None:
    x, y = planted(size)
    splits, n = kfold(len(x), 5, seed=0), len(x)
    model = Ridge([1.0])
    standard = standardise(y).astype(np.float32)
    orders = np.array([np.random.default_rng(i).permutation(n) for i in range(asked.relabellings)])

    def permuted() -> np.ndarray:
        operator = model.operator(x, splits) - mean_operator(splits, n)
        parts = relabelled_correlations(operator, standard, orders, membership(splits, n))
        means = np.zeros(len(orders))
        for some, _, r in parts:
            means[some] += r.sum(axis=1) / size.voxels
        return means

    calls = {
        "one fit": lambda: pooled_pearsonr(cross_predict(model, x, y, splits), y, splits),
        "permutations": permuted,
        "permutations in float32": lambda: in_float32(permuted),
        "their decomposition": lambda: model.operator(x, splits),
    }
    _, took = alternated(calls, asked.repeats)
    print(f"permutations: {n} stimuli, {size.features} features, {size.voxels} voxels, 5 folds, penalty fixed")
    print(f"  one cross-validated fit with its scores {took['one fit'].wall:.2f} s, {took['one fit'].processor:.2f} s")
    fixed = took["their decomposition"]
    for label in ("permutations", "permutations in float32"):
        wall, processor = (
            once + (all_of - once) * 1000 / len(orders) for all_of, once in zip(took[label], fixed, strict=True)
        )
        print(
            f"  1,000 {label:26s} {wall:.0f} s, processor {processor:.0f} s, from {len(orders)}: "
            f"the cost of {wall / took['one fit'].wall:.0f} fits, processor {processor / took['one fit'].processor:.0f}"
        )


def compare_recipe(size: Size, repeats: int) -> None:
    x, y = (table[size.held_out :] for table in planted(size))
    splits = kfold(len(x), 10, seed=0)
    most = min(100, len(x) // 4)

    def one_voxel_after_another() -> np.ndarray:
        predicted = np.empty(y.shape)
        for train, test in splits:
            reduced = PCA(most, svd_solver="full").fit(x[train])
            known, new = reduced.transform(x[train]), reduced.transform(x[test])
            for voxel in range(y.shape[1]):
                predicted[test, voxel] = LinearRegression().fit(known, y[train, voxel]).predict(new)
        return predicted

    calls = {
        "scikit-learn": one_voxel_after_another,
        "OLS": lambda: cross_predict(OLS(n_components=most), x, y, splits),
    }
    found, took = alternated(calls, repeats)
    r = {label: pearsonr(prediction, y) for label, prediction in found.items()}
    print(f"recipe: {len(x)} stimuli, {size.features} features, PCA {most}, OLS, 10 folds, {size.voxels} voxels")
    for label, (wall, processor) in took.items():
        print(
            f"  {label:14s} {wall:8.2f} s, processor {processor:8.2f} s ({took['scikit-learn'].wall / wall:.0f} x, "
            f"processor {took['scikit-learn'].processor / processor:.0f} x; r differs by "
            f"{np.abs(r[label] - r['scikit-learn']).max():.0e})"
        )


def planted(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Features whose variances fall as those of layers do, and voxels of signal and noise in many proportions."""
    rng = np.random.default_rng(0)
    falling = np.arange(1, size.features + 1, dtype=np.float32) ** -0.5
    x = rng.standard_normal((size.stimuli, size.features), dtype=np.float32) * 10 * falling
    signal = x @ rng.standard_normal((size.features, size.voxels), dtype=np.float32)
    signal *= rng.uniform(0.1, 1, size.voxels).astype(np.float32) / signal.std(axis=0)
    return x, signal + rng.standard_normal(signal.shape, dtype=np.float32)


def alternated(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, Took]]:
    """Each call's result and its median times, one call after the other in every round."""
    found: dict[str, Any] = {}
    times: dict[str, list[Took]] = {label: [] for label in calls}
    for _ in range(repeats):
        for label, call in calls.items():
            found[label], took = timed(call)
            times[label].append(took)
    return found, {label: Took(*map(statistics.median, zip(*rounds, strict=True))) for label, rounds in times.items()}


def timed(call: Callable[[], Any]) -> tuple[Any, Took]:
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, Took(time.perf_counter() - wall, time.process_time() - processor)


if __name__ == "__main__":
    main()
