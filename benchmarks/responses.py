"""LSS beside a nilearn user's loop over trials, on the same run: seconds, ratio, and largest difference.

Usage: OMP_NUM_THREADS=1 python benchmarks/responses.py [--voxels 20000] [--trials 60] [--volumes 240] [--rounds 3]

Both sides take turns, and the fastest turn of each counts. The loop with AR(1) takes half a minute and runs once,
between two of ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

from bidsdnn.methods.responses import high_pass, lss

CHECKED = 3
"""Trials whose AR(1) coefficients by nilearn are given to ours, to compare the fits at the same rho."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=20000)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--volumes", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bold, events, model = a_run(asked.voxels, asked.trials, asked.volumes)
    print(f"LSS, {asked.volumes} volumes, {asked.trials} trials, {asked.voxels} voxels, one thread")

    def ours(noise: str) -> Callable[[], Any]:
        return lambda: lss(bold, events, **model, noise=noise)

    def nilearns(noise: str) -> Callable[[], Any]:
        return lambda: by_nilearn(bold, events, **model, noise=noise)

    found, theirs = compare("OLS", ours("ols"), nilearns("ols"), turns="oto" * asked.rounds)
    different = np.abs(found - theirs[0]).max() / np.abs(theirs[0]).max()
    print(f"  largest difference        {different:8.1e} of the largest beta")
    found, (betas, rhos) = compare("AR(1)", ours("ar1"), nilearns("ar1"), turns="ootoo")
    spread = np.std(found - betas) / np.std(betas)
    print(f"  difference, each by its own estimate of rho       {spread:8.1e} of the betas' standard deviation")
    worst = 0.0
    for trial, rho in rhos.items():
        same = lss(bold, events, **model, noise="ar1", rho=rho)[trial]
        worst = max(worst, np.abs(same - betas[trial]).max() / np.abs(betas[trial]).max())
    print(f"  largest difference at the same rho                {worst:8.1e} of the largest beta")


def a_run(voxels: int, trials: int, volumes: int) -> tuple[np.ndarray, pd.DataFrame, dict[str, Any]]:
    """Noise with AR(1) coefficients from -.1 to .6, and the model of a run."""
    rng = np.random.default_rng(0)
    frames = 2.0 * np.arange(volumes)
    spacing = (frames[-1] - 20) / trials
    events = pd.DataFrame({"onset": 6 + spacing * np.arange(trials), "duration": 1.0})
    nuisance = np.column_stack([rng.standard_normal((volumes, 6)), high_pass(frames), np.ones(volumes)])
    bold = 10 * rng.standard_normal((volumes, voxels))
    rho = rng.uniform(-0.1, 0.6, voxels)
    for volume in range(1, volumes):
        bold[volume] += rho * bold[volume - 1]
    return (1000 + bold).astype(np.float32), events, {"frame_times": frames, "nuisance": nuisance}


def by_nilearn(
    bold: np.ndarray, events: pd.DataFrame, *, frame_times: np.ndarray, nuisance: np.ndarray, noise: str
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Betas of a model for each trial, and the AR(1) coefficients of the first few."""
    betas, rhos = np.empty((len(events), bold.shape[1])), {}
    for trial in range(len(events)):
        labels = np.where(np.arange(len(events)) == trial, "own", "rest")
        design = make_first_level_design_matrix(
            frame_times,
            events.assign(trial_type=labels),
            hrf_model="spm",
            drift_model=None,
            add_regs=nuisance[:, :-1],
        )
        groups, results = run_glm(bold, design.to_numpy(), noise_model=noise)
        for label, result in results.items():
            betas[trial, groups == label] = result.theta[design.columns.get_loc("own")]
        if noise == "ar1" and trial < CHECKED:
            rhos[trial] = groups.astype(float)
    return betas, rhos


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], *, turns: str) -> tuple[Any, Any]:
    """Take turns (o: ours, t: theirs), print the fastest of each and the ratio, and return what each found."""
    seconds: dict[str, list[float]] = {"o": [], "t": []}
    results: dict[str, Any] = {}
    for turn in turns:
        start = time.perf_counter()
        results[turn] = (ours if turn == "o" else theirs)()
        seconds[turn].append(time.perf_counter() - start)
    best = {side: min(times) for side, times in seconds.items()}
    print(f"  {name}: bidsdnn lss               {best['o']:8.3f} s (of {len(seconds['o'])} turns)")
    print(f"  {name}: nilearn, a loop of models {best['t']:8.3f} s (of {len(seconds['t'])} turns)")
    print(f"  {name}: ratio                     {best['t'] / best['o']:8.0f}")
    return results["o"], results["t"]


if __name__ == "__main__":
    main()
