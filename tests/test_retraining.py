"""Training through the command line: what is written, resumed and refused; every analysis runs on the result."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import h5py
import pandas as pd
import pytest

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main
from bidsdnn.networks.training import learn
from tests.conftest import without_pictures

TOML = """
[parameters.transfer]
fine_tune = ["conv5", "fc"]
epochs = 3
batch_size = 8
"""
STEM = "model-demo+none+seed0_desc-transfer"


@pytest.fixture(scope="module")
def columns(demo_dataset, tmp_path_factory) -> Path:
    """Which texture each picture of the demo has, and the configuration."""
    folder = tmp_path_factory.mktemp("columns")
    names = [path.name for path in sorted((demo_dataset / "stimuli").glob("*.png"))]
    textures = sorted({name.split("-")[1] for name in names})
    rows = [(name, "first" if textures.index(name.split("-")[1]) % 2 else "second") for name in names]
    pd.DataFrame(rows, columns=["stimulus_id", "texture"]).to_csv(folder / "textures.tsv", sep="\t", index=False)
    (folder / "transfer.toml").write_text(TOML)
    return folder


def run(bids: Path, out: Path, *options: str, level: str = "dnn") -> int:
    with without_pictures():
        return main([str(bids), str(out), level, "--nprocs", "1", *options])


def transfer(bids: Path, out: Path, columns: Path) -> int:
    target, config = columns / "textures.tsv", columns / "transfer.toml"
    return run(bids, out, "--network", "demo", "--analysis", "transfer", "--target", f"texture={target}",
               "--config-file", str(config))  # fmt: skip


@pytest.fixture(scope="module")
def trained(demo_dataset, columns, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "bidsdnn"
    assert transfer(demo_dataset, out, columns) == 0
    return out


def test_what_is_written(trained):
    stimuli = trained / "stimuli"
    receipt = json.loads((stimuli / f"{STEM}_results.json").read_text())
    assert {Path(name).name.removeprefix("model-demo+none+seed0_desc-") for name in receipt["Outputs"]} == {
        "transfer_results.tsv", "transfercurves_results.tsv", "transfersplit_results.tsv", "transfer_weights.pt",
    }  # fmt: skip
    assert set(read_table(stimuli / f"{STEM}_results.tsv")["part"]) == {"train", "validation", "test"}
    assert not list(stimuli.glob(".*checkpoint*"))
    assert "desc-transfercurves" in (trained / "descriptions.tsv").read_text()
    assert "Yosinski" in (trained / "dnn.html").read_text()


def test_a_killed_run_goes_on_to_the_same_bytes(demo_dataset, columns, trained, tmp_path, monkeypatch):
    out = tmp_path / "bidsdnn"
    module = sys.modules["bidsdnn.probes.transfer"]

    def killed(parameters, loss, *, validation, **options):
        def once(rows):
            if len(list((out / "stimuli").glob(".*checkpoint"))) and rows[0] != validation[0]:
                raise KeyboardInterrupt
            return loss(rows)

        return learn(parameters, once, validation=validation, **options)

    monkeypatch.setattr(module, "learn", killed)
    assert transfer(demo_dataset, out, columns) != 0
    assert len(list((out / "stimuli").glob(".*checkpoint"))) == 1
    monkeypatch.setattr(module, "learn", learn)
    assert transfer(demo_dataset, out, columns) == 0
    for name in (f"{STEM}_weights.pt", "model-demo+none+seed0_desc-transfercurves_results.tsv"):
        assert (out / "stimuli" / name).read_bytes() == (trained / "stimuli" / name).read_bytes()


def test_every_analysis_runs_on_the_result(demo_dataset, trained, finished, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(finished.out, out)
    weights = trained / "stimuli" / f"{STEM}_weights.pt"
    networks = ("--network", "demo", f"tuned=demo@{weights}", "random=demo@shuffled")
    asked = ("--analysis", "rsa", "--layer", "conv3", "conv5", "tuned:head_texture")
    assert run(demo_dataset, out, *finished.options, *networks, *asked, level="participant") == 0
    with h5py.File(out / "stimuli" / "model-tuned_activations.h5") as file:
        assert file["head_texture"].shape == (24, 2)
    found = {}
    for label in ("demo+none+seed0", "tuned", "random"):
        path = next(out.glob(f"sub-01/func/*_atlas-planted_model-{label}_desc-rsa_results.tsv"))
        found[label] = read_table(path)
    # conv3 was not learnt, and conv5 was.
    rows = {label: table[table["region"] == "late"].set_index("layer") for label, table in found.items()}
    score = next(column for column in rows["tuned"] if column in ("spearman", "value", "similarity"))
    assert (rows["tuned"].loc[["conv3"], score] == rows["demo+none+seed0"].loc[["conv3"], score]).all()
    assert (rows["tuned"].loc[["conv5"], score] != rows["demo+none+seed0"].loc[["conv5"], score]).any()


BRAIN = """
[parameters.brain-training]
region = "late"
layer = "conv5"
fine_tune = ["conv5"]
epochs = 2
validation = 0.25
test = 0.25
"""


def test_towards_a_region(demo_dataset, finished, columns, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(finished.out, out)
    (tmp_path / "brain.toml").write_text(BRAIN)
    asked = ("--analysis", "brain-training", "--target", f"texture={columns / 'textures.tsv'}",
             "--participant-label", "01", "--config-file", str(tmp_path / "brain.toml"))  # fmt: skip
    assert run(demo_dataset, out, *finished.options, *asked, level="participant") == 0
    func = out / "sub-01" / "func"
    table = read_table(next(func.glob("*_atlas-planted_model-demo+none+seed0_desc-braintraining_results.tsv")))
    assert {"part", "measure", "before", "after"} <= set(table) and set(table["layer"]) == {"conv5"}
    assert {"rdm_pearsonr", "readout_pearsonr", "texture_accuracy"} <= set(table["measure"])
    assert len(list(func.glob("*_desc-braintrainingcurves_results.tsv"))) == 1
    weights = next(func.glob("*_model-demo+none+seed0_desc-braintraining_weights.pt"))
    assert not list(func.glob(".*checkpoint*"))
    assert run(demo_dataset, out, "--network", f"near=demo@{weights}", "--layer", "conv5") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "which column is to be learnt"),
        (("--target", "nosuch"), "--target nosuch"),
        (("--target", "texture=nowhere.tsv"), "nowhere.tsv"),
    ],
)
def test_bad_targets(demo_dataset, tmp_path, capsys, options, said):
    assert run(demo_dataset, tmp_path / "out", "--network", "demo", "--analysis", "transfer", *options) != 0
    assert said in capsys.readouterr().err
