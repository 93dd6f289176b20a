"""LSS beside a nilearn user's loop over trials, on the same run: seconds, ratio, and largest difference.

Usage: OMP_NUM_THREADS=1 python benchmarks/responses.py [--voxels 20000] [--trials 60] [--volumes 300]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

from bidsdnn.methods.responses import high_pass, lss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=20000)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--volumes", type=int, default=300)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    frames = 2.0 * np.arange(asked.volumes)
    spacing = (frames[-1] - 20) / asked.trials
    events = pd.DataFrame({"onset": 6 + spacing * np.arange(asked.trials), "duration": 1.0})
    nuisance = np.column_stack([rng.standard_normal((asked.volumes, 6)), high_pass(frames), np.ones(asked.volumes)])
    bold = (1000 + 10 * rng.standard_normal((asked.volumes, asked.voxels))).astype(np.float32)

    def by_nilearn() -> np.ndarray:
        betas = np.empty((asked.trials, asked.voxels))
        for trial in range(asked.trials):
            labels = np.where(np.arange(asked.trials) == trial, "own", "rest")
            design = make_first_level_design_matrix(
                frames,
                events.assign(trial_type=labels),
                hrf_model="spm",
                drift_model=None,
                add_regs=nuisance[:, :-1],
            )
            groups, results = run_glm(bold, design.to_numpy(), noise_model="ols")
            for label, result in results.items():
                betas[trial, groups == label] = result.theta[design.columns.get_loc("own")]
        return betas

    ours, seconds = timed(lambda: lss(bold, events, frame_times=frames, nuisance=nuisance))
    theirs, seconds_nilearn = timed(by_nilearn)
    print(f"LSS, {asked.volumes} volumes, {asked.trials} trials, {asked.voxels} voxels, one thread")
    print(f"  bidsdnn lss               {seconds:8.2f} s")
    print(f"  nilearn, a loop of models {seconds_nilearn:8.2f} s  ({seconds_nilearn / seconds:.0f} x)")
    different = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"  largest difference        {different:8.1e} of the largest beta")


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
