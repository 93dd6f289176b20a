"""A small output folder with the files that a participant's analysis leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bidsdnn.report.page import Entry, Log
from bidsdnn.spaces import write_nifti

LAYERS = ["conv1", "conv2", "fc"]
SCORES = {"early": [0.41, 0.20, 0.05], "late": [0.08, 0.22, 0.45], "none": [0.01, -0.02, 0.02]}
ENTITIES = {"sub": "01", "task": "view", "space": "S"}


def write(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def encoding_table(scores=SCORES, network="demo+none+seed0", layers=LAYERS) -> pd.DataFrame:
    rows = [
        {"network": network, "layer": layer, "region": region, "n_voxels": 60, "pearsonr": r, "r2": r * r,
         "p": 0.001 if r > 0.04 else 0.4}
        for region, values in scores.items() for layer, r in zip(layers, values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


class Output:
    """Writes result files, and remembers them as entries."""

    def __init__(self, folder: Path):
        self.folder, self.entries = folder, []

    def table(self, table: pd.DataFrame, desc: str, sidecar: dict | None = None, **entities: str) -> None:
        path = write(table, self.folder / f"{'_'.join(entities.values())}_{desc}_{len(self.entries)}_results.tsv")
        self.entries.append(Entry(path, {**entities, "desc": desc}, "results", sidecar or {}))

    def map(self, data: np.ndarray, stat: str, desc: str, sidecar: dict | None = None, **entities: str) -> None:
        path = self.folder / f"{stat}_{desc}_{len(self.entries)}_statmap.nii.gz"
        write_nifti(path, data, np.diag([3.0, 3, 3, 1]))
        self.entries.append(Entry(path, {**entities, "stat": stat, "desc": desc}, "statmap", sidecar or {}))

    def rdms(self, arrays: dict, items: list[str], **entities: str) -> None:
        entry = Entry(self.folder / "x_relmat.h5", {**entities, "stat": "correlation"}, "relmat",
                      {"_arrays": {"_items": np.array(items), **arrays}})  # fmt: skip
        self.entries.append(entry)


SIDECAR = {
    "Layers": LAYERS, "Network": "demo+none+seed0", "NumberOfStimuli": 12, "CrossValidation": "5 folds over stimuli",
    "Permutations": 1000, "Test": "label permutations, one-sided", "Methods": "Ridge regression was fitted.",
    "References": ["ridge", "permutation", "Someone A (2020). A work of their own. Journal."],
    "Software": {"bidsdnn": "0.1.0", "torch": "2.9.1"},
}  # fmt: skip


def participant(output: Output, scores=SCORES, *, network: bool = True) -> Output:
    rng = np.random.default_rng(0)
    atlas, model = {"atlas": "demo"}, {"model": "demo+none+seed0"}
    output.table(
        pd.DataFrame({"run": ["01", "02"], "n_volumes": 100, "n_trials": 48, "n_dropped": [0, 1], "n_stimuli": 12,
                      "mean_fd": [0.1, 0.3], "max_fd": [0.5, 1.2], "tsnr": 50.0, "n_voxels_constant": [0, 2]}),
        "quality", {"StimulusColumn": "stim_file", "StimuliFound": 12, "StimuliMissing": ["<b>gone</b>.png"],
                    "Anatomy": None, "Notes": ["Reliability of run 3 was left out."]}, **ENTITIES,
    )  # fmt: skip
    shape = (6, 7, 5)
    output.map(rng.uniform(30, 60, shape), "tsnr", "quality", **ENTITIES)
    output.map(rng.uniform(900, 1100, shape), "mean", "quality", **ENTITIES)
    reliability = pd.DataFrame(
        {"region": list(scores), "n_voxels": 60, "n_stimuli": 12, "n_repeats": 4, "reliability": 0.6}
    )
    output.table(reliability, "reliability", **ENTITIES, **atlas)
    output.rdms({region: rng.random(66) for region in scores}, [f"s{i}" for i in range(12)], **ENTITIES, **atlas)
    if not network:
        return output
    table = encoding_table(scores)
    output.table(table, "encoding", SIDECAR, **ENTITIES, **atlas, **model)
    maps = rng.uniform(-0.1, 0.5, (*shape, 3))
    maps[0] = np.nan
    output.map(maps, "pearsonr", "encoding", SIDECAR, **ENTITIES, **model)
    rsa = table.drop(columns=["pearsonr", "r2", "n_voxels"]).assign(
        metric="correlation", comparison="spearman", similarity=table["pearsonr"] * 0.8
    )
    output.table(pd.concat([rsa, rsa.assign(comparison="pearson")]), "rsa", SIDECAR, **ENTITIES, **atlas, **model)
    output.rdms({layer: rng.random(66) for layer in LAYERS}, [f"s{i}" for i in range(12)][::-1], **model)
    return output


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


@pytest.fixture
def log() -> Log:
    return Log("20260101-000000_x", "bidsdnn in out participant", 'seed = 0\nname = "<i>"\n', "2026-01-01 00:00", 12.0)
