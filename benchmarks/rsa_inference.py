"""The dual bootstrap of model evaluations beside rsatoolbox's: seconds, ratio, means and variances.

Usage: OMP_NUM_THREADS=1 python benchmarks/rsa_inference.py [--samples 1000] [--peer-samples 10]
The peer draws fewer samples, and its seconds are multiplied up to as many; where it is not installed, ours are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from bidsdnn.methods.rsa_bootstrap import bootstrap
from bidsdnn.methods.rsa_samples import evaluate

THEIR_NAMES = {"pearson": "corr", "cosine": "cosine", "spearman": "spearman"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--peer-samples", type=int, default=10)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--participants", type=int, default=15)
    parser.add_argument("--stimuli", type=int, default=92)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((asked.models, asked.stimuli, 20))
    models = np.stack([pdist(pattern) for pattern in patterns])
    noise = rng.standard_normal((asked.participants, asked.stimuli, 20))
    rdms = np.stack([pdist(np.hstack([patterns[0], one])) for one in noise])
    print(
        f"dual bootstrap with lower noise ceilings, {asked.samples} samples, {asked.models} models, "
        f"{asked.participants} participants, {asked.stimuli} stimuli, one thread"
    )
    for comparison, name in THEIR_NAMES.items():
        _, seconds = timed(lambda of=comparison: bootstrap(models, rdms, comparison=of, samples=asked.samples))
        print(f"  {comparison:9s} bootstrap   {seconds:8.2f} s")
        try:
            beside_rsatoolbox(models, rdms, comparison, name, asked.samples, asked.peer_samples, seconds)
        except ImportError:
            print("            rsatoolbox is not installed")


def beside_rsatoolbox(
    models: np.ndarray, rdms: np.ndarray, ours: str, theirs: str, samples: int, peer_samples: int, seconds: float
) -> None:
    import rsatoolbox

    n = round((1 + (1 + 8 * models.shape[1]) ** 0.5) / 2)
    fixed = [rsatoolbox.model.ModelFixed(str(number), model) for number, model in enumerate(models)]
    data = rsatoolbox.rdm.RDMs(rdms)
    drawn, sampled = [], rsatoolbox.inference.evaluate.bootstrap_sample

    def recorded(*args: Any, **kwargs: Any) -> Any:
        sample = sampled(*args, **kwargs)
        drawn.append(sample[1:])
        return sample

    rsatoolbox.inference.evaluate.bootstrap_sample = recorded

    def peer() -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return rsatoolbox.inference.eval_dual_bootstrap(fixed, data, method=theirs, N=peer_samples)

    result, peer_seconds = timed(peer)
    scaled = peer_seconds * samples / peer_samples
    print(
        f"            rsatoolbox  {scaled:8.2f} s  ({scaled / seconds:.0f} x; "
        f"{peer_seconds:.2f} s for {peer_samples} samples, multiplied)"
    )
    rsatoolbox.inference.evaluate.bootstrap_sample = sampled
    who, stimuli = (
        np.stack([np.bincount(sample[kind], minlength=size) for sample in drawn])
        for kind, size in enumerate((len(rdms), n))
    )
    found = evaluate(models, rdms, stimuli, who, comparison=ours)
    for place, over in enumerate(("both", "participants", "stimuli")):
        values, peers = found[over][:, :-1], result.evaluations[:, :, 0, 0, place]
        means = np.abs(values.mean(axis=0) - peers.mean(axis=0)).max()
        covariances = np.abs(np.cov(values.T) - np.cov(peers.T)).max()
        print(f"            same draws, over {over:12s} means differ by {means:.0e}, covariances by {covariances:.0e}")


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
