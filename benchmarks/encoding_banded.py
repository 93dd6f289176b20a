"""Banded ridge beside himalaya's random search: the same bands, weights, penalties and inner folds, in one run.

    python benchmarks/encoding_banded.py [--items 1000] [--bands 5] [--units 2000] [--targets 4000] [--candidates 20]

Alternates them, and prints the processor time of each (fit and prediction), himalaya's over it, and held-out r.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from himalaya.backend import set_backend
from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
from sklearn.model_selection import PredefinedSplit

from bidsdnn.methods.models import BandedRidge
from bidsdnn.methods.models.banded import candidate_weights
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.scores import pearsonr


def main() -> None:
    """Time both on one planted table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("items", 1000), ("bands", 5), ("units", 2000), ("targets", 4000), ("candidates", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    set_backend("torch")
    rng = np.random.default_rng(0)
    n, test = asked.items, asked.items // 5
    layers = [rng.standard_normal((n + test, asked.units)).astype(np.float32) for _ in range(asked.bands)]
    y = layers[0][:, :20] @ rng.standard_normal((20, asked.targets)) + layers[1][:, :20] @ rng.standard_normal(
        (20, asked.targets)
    )
    y = (y + 6 * rng.standard_normal(y.shape)).astype(np.float32)
    y -= y[:n].mean(axis=0)
    # himalaya centres no kernels: both are given layers that are centred and of one length over the training items.
    layers = [layer - layer[:n].mean(axis=0) for layer in layers]
    grams = np.stack([layer @ layer[:n].T / (layer[:n] ** 2).sum(axis=1).mean() for layer in layers])
    inside, outside = grams[:, :n].astype(np.float64), grams[:, n:].astype(np.float64)
    weights, penalties = candidate_weights(asked.bands, asked.candidates, seed=0), np.logspace(-4, 4, 9)
    fold_of = np.empty(n, dtype=int)
    for number, (_, held) in enumerate(kfold(n, 5, seed=0)):
        fold_of[held] = number

    def ours(reach: int | None) -> np.ndarray:
        model = BandedRidge(penalties, weights=weights, relative=False, reach=reach).fit_grams(inside, y[:n])
        return model.predict_grams(outside)

    def himalayas() -> np.ndarray:
        found = solve_multiple_kernel_ridge_random_search(
            torch.from_numpy(inside.astype(np.float32)), torch.from_numpy(y[:n]), n_iter=np.maximum(weights, 1e-12),
            alphas=penalties, cv=PredefinedSplit(fold_of), return_weights="dual", progress_bar=False,
            n_targets_batch=4096, n_alphas_batch=3, n_targets_batch_refit=4096,
        )  # fmt: skip
        deltas, dual = (np.asarray(one) for one in found[:2])
        return np.einsum("bmn,nv,bv->mv", outside.astype(np.float32), dual, np.exp(deltas), optimize="greedy")

    scores: dict[str, np.ndarray] = {}
    ways = {"all penalties": lambda: ours(None), "near penalties (the default)": lambda: ours(1), "himalaya": himalayas}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.repeats):
        for name, way in ways.items():
            started = time.process_time()
            predicted = way()
            times[name].append(time.process_time() - started)
            scores[name] = pearsonr(predicted.astype(np.float64), y[n:].astype(np.float64))
    for name, seconds in times.items():
        ratios = [theirs / own for theirs, own in zip(times["himalaya"], seconds, strict=True)]
        gap = np.abs(scores[name] - scores["himalaya"])
        print(
            f"{name:30s} {min(seconds):8.1f} s  {np.median(ratios):4.1f} times as fast ({min(ratios):.1f}-"
            f"{max(ratios):.1f})  mean r {scores[name].mean():.4f}  r within .01: {(gap < 0.01).mean():.1%}"
        )


if __name__ == "__main__":
    main()
