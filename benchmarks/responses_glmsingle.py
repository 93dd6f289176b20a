"""`glmsingle` beside the published implementation on the same planted data: CPU seconds, ratio, reliability, agreement.

Both get several data sets in turn; the fastest of each is compared, and scores are means over data sets. The published
package is imported from the Python path:

Usage: PYTHONPATH=PATH_TO_GLMsingle OMP_NUM_THREADS=1 python benchmarks/responses_glmsingle.py [--voxels 1000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.stats import gamma

from bidsdnn.methods.ceiling import split_half
from bidsdnn.methods.responses import trial_regressors
from bidsdnn.methods.responses.glmsingle import glmsingle

RUNS, STIMULI, SPACING, DURATION, TR = 4, 40, 5.0, 2.0, 1.0
VOLUMES = int(STIMULI * SPACING + 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--datasets", type=int, default=3)
    parser.add_argument("--noise", type=float, default=3.0)
    parser.add_argument("--shared", type=float, default=2.0)
    asked = parser.parse_args()
    from glmsingle.glmsingle import GLM_single

    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    scores: dict[str, list[float]] = {}
    for seed in range(asked.datasets):
        bolds, events, truth, responds = plant(asked.voxels, noise=asked.noise, shared=asked.shared, seed=seed)
        mine, spent = timed(lambda: ours(bolds, events))  # noqa: B023 - called at once
        seconds["ours"].append(spent)
        theirs, spent = timed(lambda: published(GLM_single, bolds, events))  # noqa: B023
        seconds["theirs"].append(spent)
        labels = np.concatenate([table["stimulus_id"] for table in events])
        for name, betas in (("ours", mine), ("theirs", theirs)):
            scores.setdefault(f"reliability {name}", []).append(np.nanmedian(split_half(betas, labels)[responds]))
            scores.setdefault(f"truth {name}", []).append(np.median(correlations(betas, truth)[responds]))
        scores.setdefault("agreement", []).append(np.median(correlations(mine, theirs)[responds]))
    mean = {name: np.mean(values) for name, values in scores.items()}
    fast, slow = (min(seconds[name]) for name in ("ours", "theirs"))
    print(
        f"{RUNS} runs x {VOLUMES} volumes, {len(labels)} trials of {STIMULI} stimuli, {asked.voxels} voxels, one thread"
    )
    print(f"  bidsdnn glmsingle {fast:8.2f} s")
    print(f"  GLMsingle         {slow:8.2f} s  ({slow / fast:.0f} x; all: {rounded(seconds)})")
    print(f"  medians over voxels that respond, means over {asked.datasets} data sets:")
    for name in ("ours", "theirs"):
        print(
            f"    {name:6s}  split-half reliability {mean[f'reliability {name}']:.3f}, "
            f"correlation with the planted responses {mean[f'truth {name}']:.3f}"
        )
    print(f"    correlation of the betas of both {mean['agreement']:.4f}")


def ours(bolds: list[np.ndarray], events: list[pd.DataFrame]) -> np.ndarray:
    """Betas (trials, V), with the polynomials that the published implementation takes by default."""
    degree = round(VOLUMES * TR / 60 / 2)
    nuisance = np.polynomial.legendre.legvander(np.linspace(-1, 1, VOLUMES), degree)
    return glmsingle(bolds, events, frame_times=[TR * np.arange(VOLUMES)] * RUNS, nuisance=[nuisance] * RUNS).betas


def published(model: Any, bolds: list[np.ndarray], events: list[pd.DataFrame]) -> np.ndarray:
    """The same of the published implementation, its files and figures left out."""
    design = []
    for table in events:
        design.append(np.zeros((VOLUMES, STIMULI)))
        design[-1][(table["onset"] / TR).astype(int), table["stimulus_id"].str[1:].astype(int)] = 1
    asked = {"wantfileoutputs": [0] * 4, "wantmemoryoutputs": [0, 0, 0, 1]}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), quiet():
        os.chdir(folder)  # it writes into the folder it is in
        found = model(asked).fit(design, [bold.T.copy() for bold in bolds], DURATION, TR, folder + "/out", None)
    return np.asarray(found["typed"]["betasmd"]).reshape(bolds[0].shape[1], -1).T


def plant(
    voxels: int, *, noise: float, shared: float, seed: int = 0
) -> tuple[list[np.ndarray], list[pd.DataFrame], Any, Any]:
    """Half the voxels respond, with shapes of neither library; noise is white, shared and slow."""
    rng = np.random.default_rng(seed)
    responds = np.arange(voxels) < voxels // 2
    peak = rng.integers(6, 14, voxels) / 2
    amplitude = np.where(responds, 1.5 + rng.standard_normal((STIMULI, voxels)), 0)
    onset = 6 + SPACING * np.arange(STIMULI)
    bolds, events, truth = [], [], []
    for _ in range(RUNS):
        shown = rng.permutation(STIMULI)
        events.append(pd.DataFrame({"onset": onset, "duration": DURATION, "stimulus_id": [f"s{i:02d}" for i in shown]}))
        series = 300 + noise * rng.standard_normal((VOLUMES, voxels))
        series += np.linspace(-5, 5, VOLUMES)[:, None] * rng.standard_normal(voxels)
        for seconds in np.unique(peak):
            columns = peak == seconds
            regressors = trial_regressors(
                onset, np.full(STIMULI, DURATION), frame_times=TR * np.arange(VOLUMES), hrf=double_gamma(seconds)
            )
            series[:, columns] += regressors @ amplitude[shown][:, columns]
        slow = gaussian_filter1d(rng.standard_normal((VOLUMES, 3)), 2, axis=0)
        series += shared * (slow / slow.std(axis=0)) @ rng.standard_normal((3, voxels)) / np.sqrt(3)
        bolds.append(series.astype(np.float32))
        truth.append(amplitude[shown])
    return bolds, events, np.vstack(truth), responds


def double_gamma(peak: float) -> Callable[[float, int], np.ndarray]:
    """A response that peaks after some seconds and undershoots ten seconds later."""

    def samples(tr: float, oversampling: int) -> np.ndarray:
        seconds = np.arange(0, 40, tr / oversampling)
        shape = gamma.pdf(seconds, peak + 1) - gamma.pdf(seconds, peak + 11) / 6
        convolved = np.convolve(shape, np.ones(round(DURATION * oversampling / tr)))
        return np.asarray(shape / convolved.max())

    return samples


@contextlib.contextmanager
def quiet() -> Any:
    """Without progress bars, back in the folder where one was."""
    here = Path.cwd()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
    os.chdir(here)


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def rounded(seconds: dict[str, list[float]]) -> str:
    return "; ".join(f"{name} {', '.join(f'{one:.2f}' for one in spent)} s" for name, spent in seconds.items())


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """A call's result and its seconds of processor time, which other programs on the machine do not lengthen."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


if __name__ == "__main__":
    main()
