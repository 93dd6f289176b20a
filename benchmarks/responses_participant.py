"""A whole participant through the command line: peak memory and seconds, with few runs and with many.

Writes a generated dataset (int16 in gzip, as fMRIPrep writes it) into a temporary folder, 180 MB a run, and removes it.
The program runs as one process; its peak of memory is the system's figure for that process, pages of scratch files that
it has mapped included. How often each image is decompressed is counted by what gzip hands out inside that process.

Usage: OMP_NUM_THREADS=1 python benchmarks/responses_participant.py [--response lss condition glmsingle] [--runs 3 12]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

GRID = (72, 84, 50)
TR, SPACING, TRIALS = 2.0, 9.0, 60
DISTINCT = 3
"""Runs that have data of their own; the others are links to these, and are read as files of their own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--response", nargs="+", default=["lss", "condition", "glmsingle"])
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 12])
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--volumes", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="for generated data and scratch files; the system's by default")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return
    with tempfile.TemporaryDirectory(prefix="bidsdnn-benchmark-", dir=asked.folder) as name:
        folder = Path(name)
        write_dataset(folder / "bids", max(asked.runs), asked.voxels, asked.volumes)
        print(f"{asked.volumes} volumes x {asked.voxels:,} voxels a run, {TRIALS} trials a run, one process")
        for response in asked.response:
            for runs in asked.runs:
                found = measure(folder, response, runs)
                print(
                    f"  {response:10s} {runs:3d} runs  {found['peak'] / 1e9:5.2f} GB peak  {found['seconds']:6.0f} s  "
                    f"each image decompressed {found['times']:.2f} times",
                    flush=True,
                )


def measure(folder: Path, response: str, runs: int) -> dict[str, float]:
    """Peak bytes, seconds and decompressions of one participant in a process of its own."""
    out = folder / f"out-{response}-{runs}"
    options = [
        str(folder / "bids"), str(out), "participant", "--network", "none", "--stimulus-column", "trial_type",
        "--response", response, "--nprocs", "1", "-w", str(folder / "work"),
        "--run-label", *map(str, range(1, runs + 1)),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--child", *options], capture_output=True, text=True, env={**os.environ}
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "seconds": time.perf_counter() - start}


def child(options: list[str]) -> None:
    """Run the program, and print the peak of this process' memory and how often bold images were decompressed."""
    handed: dict[str, int] = {}
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, *args: int) -> bytes:
        data = read(self, *args)
        path = str(self.fileobj.name)
        handed[path] = handed.get(path, 0) + len(data)
        return data

    gzip.GzipFile.read = counted  # type: ignore[method-assign]
    from bidsdnn.cli import main as bidsdnn

    status = bidsdnn(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bold = {name: n for name, n in handed.items() if name.endswith("_desc-preproc_bold.nii.gz")}
    sizes = {name: np.prod(nib.load(name).shape) * 2 for name in bold}
    times = max((n / sizes[name] for name, n in bold.items()), default=float("nan"))
    print(json.dumps({"peak": peak, "times": float(times)}))
    raise SystemExit(status)


def write_dataset(folder: Path, runs: int, voxels: int, volumes: int) -> None:
    """Noise around a mean, and in each voxel a response to half of the stimuli, after fMRIPrep's names."""
    rng = np.random.default_rng(0)
    mask = np.zeros(np.prod(GRID), dtype=np.uint8)
    mask[rng.permutation(mask.size)[:voxels]] = 1
    func, raw = folder / "derivatives" / "fmriprep" / "sub-01" / "func", folder / "sub-01" / "func"
    for place in (func, raw):
        place.mkdir(parents=True)
    about = {"Name": "generated", "BIDSVersion": "1.9.0"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    derived = {**about, "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (func.parents[1] / "dataset_description.json").write_text(json.dumps(derived))
    (folder / "task-see_bold.json").write_text(json.dumps({"TaskName": "see", "RepetitionTime": TR}))
    for run in range(1, runs + 1):
        stem = f"sub-01_task-see_run-{run:02d}"
        onset = 4 + SPACING * np.arange(TRIALS) * (volumes * TR - 30) / (SPACING * TRIALS)
        shown = rng.permutation(TRIALS)
        table = pd.DataFrame({"onset": onset, "duration": 1.0, "trial_type": [f"s{i:02d}" for i in shown]})
        table.to_csv(raw / f"{stem}_events.tsv", sep="\t", index=False)
        motion = pd.DataFrame(
            rng.standard_normal((volumes, 6)), columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
        )
        motion.to_csv(func / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False)
        image = nib.Nifti1Image(mask.reshape(GRID), np.diag([2.0, 2, 2, 1]))
        nib.save(image, func / f"{stem}_desc-brain_mask.nii.gz")
        bold = func / f"{stem}_desc-preproc_bold.nii.gz"
        meta = {"RepetitionTime": TR, "StartTime": 0.0, "SkullStripped": False}
        (func / f"{stem}_desc-preproc_bold.json").write_text(json.dumps(meta))
        if run > DISTINCT:
            os.link(func / f"sub-01_task-see_run-{(run - 1) % DISTINCT + 1:02d}_desc-preproc_bold.nii.gz", bold)
            continue
        write_bold(bold, onset, volumes, rng)


def write_bold(path: Path, onset: np.ndarray, volumes: int, rng: np.random.Generator) -> None:
    """One run as int16: a bump after each trial, and noise so that the file is about as large as a real one."""
    seconds = TR * np.arange(volumes)
    course = np.exp(-(((seconds[:, None] - onset - 5.5) / 2.5) ** 2)).sum(axis=1)
    level = rng.integers(500, 900, np.prod(GRID)).astype(np.int16)
    image = nib.Nifti1Image(np.empty((*GRID, 1), dtype=np.int16), np.diag([2.0, 2, 2, 1]))
    image.header.set_data_shape((*GRID, volumes))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 2, 2, TR))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(image.header.binaryblock + b"\0" * 4)
        for volume in range(volumes):
            noise = rng.integers(-20, 21, level.size, dtype=np.int16)
            values = level + noise + np.int16(round(10 * course[volume]))
            file.write(values.reshape(GRID).tobytes(order="F"))


if __name__ == "__main__":
    main()
