"""How well single trials of real BOLD tell their categories, from one run to the others, in a finished output.

Each run's mean pattern of a category is matched by correlation with the categories' means over all other runs; trials
are z-scored within runs, as the averages are.

Usage: bidsdnn HAXBY out participant --stimulus-column trial_type --network none --raw-bold --response glmsingle
       python benchmarks/responses_categories.py out/sub-01/func
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+", help="participants' func folders in an output")
    for folder in parser.parse_args().folder:
        print(folder)
        mask = nib.load(next(folder.glob("*_desc-brain_mask.nii.gz"))).get_fdata() > 0
        reliable = nib.load(next(folder.glob("*_stat-reliability_desc-condition_statmap.nii.gz"))).get_fdata()[mask]
        print(
            f"  reliability of {mask.sum()} voxels: median {np.nanmedian(reliable):.2f}, "
            f"best tenth at least {np.nanquantile(reliable, 0.9):.2f}"
        )
        if patterns := read_runs(folder, mask):
            right = matches(patterns)
            chance = 1 / patterns[0].shape[0]
            print(f"  in the right category: {right.sum()} of {right.size} ({right.mean():.2f}; chance {chance:.3f})")


def read_runs(folder: Path, mask: np.ndarray) -> list[np.ndarray]:
    """Mean pattern of each category in each run, (categories, voxels), of categories that every run shows."""
    found = []
    for path in sorted(folder.glob("*_run-*_stat-effect_desc-singletrial_statmap.nii.gz")):
        table = pd.read_csv(str(path).replace("_stat-effect", "").replace("_statmap.nii.gz", "_trials.tsv"), sep="\t")
        keep = table["estimated"].astype(str).str.lower().eq("true").to_numpy()
        values = nib.load(path).get_fdata()[mask].T[keep]
        scores = (values - values.mean(axis=0)) / values.std(axis=0)
        found.append(pd.DataFrame(scores).groupby(table.loc[keep, "stim_id"].to_numpy()).mean())
    if not found:
        return []
    shared = sorted(set.intersection(*(set(one.index) for one in found)))
    usable = np.logical_and.reduce([np.isfinite(one.to_numpy()).all(axis=0) for one in found])
    return [one.loc[shared].to_numpy()[:, usable] for one in found]


def matches(patterns: list[np.ndarray]) -> np.ndarray:
    """Whether each run's pattern of a category is most like that category's mean over the other runs, (runs, k)."""
    found = []
    for i, own in enumerate(patterns):
        others = np.mean([one for j, one in enumerate(patterns) if j != i], axis=0)
        r = np.corrcoef(own, others)[: len(own), len(own) :]
        found.append(r.argmax(axis=1) == np.arange(len(own)))
    return np.array(found)


if __name__ == "__main__":
    main()
