"""Banded ridge beside himalaya's random search: the same bands, weights, penalties and inner folds, in one run.

    python benchmarks/encoding_banded.py [--items 1000] [--bands 5] [--units 2000] [--targets 20000] [--candidates 50]

Prints the seconds of each, their ratio, and how far their held-out r are apart.
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
    for name, default in (("items", 1000), ("bands", 5), ("units", 2000), ("targets", 20_000), ("candidates", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
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

    times, scores = {}, {}
    for name, reach in (("all penalties", None), ("near penalties (the default)", 1)):
        started = time.perf_counter()
        model = BandedRidge(penalties, weights=weights, relative=False, reach=reach).fit_grams(inside, y[:n])
        predicted = model.predict_grams(outside)
        times[name], scores[name] = time.perf_counter() - started, pearsonr(predicted, y[n:].astype(np.float64))

    started = time.perf_counter()
    solve_multiple_kernel_ridge_random_search(
        torch.from_numpy(inside.astype(np.float32)), torch.from_numpy(y[:n]), n_iter=np.maximum(weights, 1e-12),
        alphas=penalties, cv=PredefinedSplit(fold_of), return_weights="dual", progress_bar=False, n_targets_batch=4096,
        n_alphas_batch=3, n_targets_batch_refit=4096,
    )  # fmt: skip
    times["himalaya"] = time.perf_counter() - started
    for name, seconds in times.items():
        ratio = "" if name == "himalaya" else f"  {times['himalaya'] / seconds:.1f} times as fast as himalaya"
        r = "" if name == "himalaya" else f"  mean r {scores[name].mean():.4f}"
        print(f"{name:30s} {seconds:8.1f} s{ratio}{r}")


if __name__ == "__main__":
    main()
