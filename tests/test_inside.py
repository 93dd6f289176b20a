"""Probes through the command line: what is written, what is not done twice, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import h5py
import pandas as pd
import pytest
from PIL import Image

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

STEM = "model-demo+none+seed0_desc-topstimuli"


ASKED = ("--analysis", "top-stimuli", "feature-map", "probe", "--unit", "conv2:3", "conv1:1")


@pytest.fixture(scope="module")
def probed(demo_dataset, tmp_path_factory) -> Path:
    """Output of three probes on a folder of ten pictures, of two kinds."""
    out = tmp_path_factory.mktemp("inside") / "bidsdnn"
    pictures = out.parent / "pictures"
    pictures.mkdir()
    chosen = sorted((demo_dataset / "stimuli").glob("*.png"))[:10]
    for path in chosen:
        shutil.copy(path, pictures)
    labels = pd.DataFrame({"stimulus_id": [path.name for path in chosen], "kind": ["a", "b"] * 5})
    labels.to_csv(out.parent / "labels.tsv", sep="\t", index=False)
    assert run(demo_dataset, out, *ASKED, *target(out)) == 0
    return out


def run(bids: Path, out: Path, *options: str) -> int:
    pictures = str(out.parent / "pictures")
    rest = ["--layer", "conv2", "fc", "--cv", "kfold:2", "--permutations", "20", "--nprocs", "1"]
    return main([str(bids), str(out), "dnn", "--network", "demo", "--stimuli-dir", pictures, *rest, *options])


def target(out: Path) -> list[str]:
    return ["--target", f"kind={out.parent / 'labels.tsv'}"]


def test_tables_and_pictures_are_written_with_what_made_them(probed):
    stimuli = probed / "stimuli"
    receipt = json.loads((stimuli / f"{STEM}_results.json").read_text())
    assert receipt["Units"] == ["conv2:3", "conv1:1"]
    assert {Path(name).name for name in receipt["Outputs"]} == {
        f"{STEM}_results.tsv", f"label-conv2+unit3_{STEM}_picture.png", f"label-conv1+unit1_{STEM}_picture.png",
    }  # fmt: skip
    table = read_table(stimuli / f"{STEM}_results.tsv")
    assert set(table["layer"]) == {"conv2", "conv1"}
    about = json.loads((stimuli / f"label-conv1+unit1_{STEM}_picture.json").read_text())
    assert table.loc[(table["layer"] == "conv1") & (table["end"] == "best"), "stimulus_id"].iloc[0] in about["Alt"]
    with Image.open(stimuli / f"label-conv1+unit1_{STEM}_picture.png") as sheet:
        assert sheet.mode == "RGB"


def test_maps_and_what_is_probed_are_written(probed):
    stem = probed / "stimuli" / STEM.replace("topstimuli", "")
    with h5py.File(f"{stem}featuremap_arrays.h5") as file:
        assert file["maps/conv2"].shape == (5, 1, 32, 32)
    told = read_table(Path(f"{stem}probe_results.tsv"))
    assert told["layer"].tolist() == ["conv2", "fc"]
    assert told["p"].between(1 / 21, 1).all()
    assert len(read_table(Path(f"{stem}probeunits_results.tsv"))) == 24 + 32
    assert set(read_table(Path(f"{stem}probestimuli_results.tsv"))["layer"]) == {"conv2", "fc"}
    assert read_table(Path(f"{stem}probelayers_results.tsv"))["n_units"].tolist() == [24 * 32 * 32, 32]


def test_the_page_shows_every_picture_with_its_caption(probed):
    page = (probed / "dnn.html").read_text()
    assert page.count("<img") == len(list((probed / "stimuli").glob("*_picture.png"))) == 2 + 2 + 2
    assert len(re.findall(r'<img[^>]* alt="The stimuli that drive [^"]+"', page)) == 2
    assert page.index("The stimuli that drive conv2:3") < page.index("The stimuli that drive conv1:1")
    assert "upper row, the 8 of 10 stimuli" in page
    for name in ("topstimuli", "featuremap", "probe", "methods", "log"):
        assert f'<section id="{name}"' in page
    assert "balanced accuracy of kind" in page
    assert "--analysis top-stimuli" in page
    assert "not shown" not in page
    assert "desc-topstimuli" in (probed / "descriptions.tsv").read_text()


def untimed(path: Path) -> str:
    """A page but for the time that its run took, of which all is known only when it has ended."""
    return re.sub(r" and took [\d.]+ s", "", path.read_text())


def test_what_is_there_is_not_done_again_and_what_is_no_longer_asked_goes(demo_dataset, probed, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(probed, out)
    shutil.copytree(probed.parent / "pictures", tmp_path / "pictures")
    shutil.copy(probed.parent / "labels.tsv", tmp_path)
    tables = [out / "stimuli" / f"{STEM}_results.tsv", out / "stimuli" / f"{STEM[:-10]}probe_results.tsv"]
    before = [table.stat().st_mtime_ns for table in tables]
    assert run(demo_dataset, out, *ASKED, *target(out)) == 0
    assert [table.stat().st_mtime_ns for table in tables] == before
    assert run(demo_dataset, out, "--analysis", "top-stimuli", "--unit", "conv2:3") == 0
    assert tables[0].stat().st_mtime_ns > before[0]
    assert [path.name[:17] for path in out.rglob("*_desc-topstimuli_picture.*")] == ["label-conv2+unit3"] * 2
    page = untimed(out / "dnn.html")
    (out / "dnn.html").unlink()
    assert run(demo_dataset, out, "--reports-only") == 0
    assert untimed(out / "dnn.html") == page


def test_a_label_that_is_in_no_table_is_named(demo_dataset, tmp_path, capsys):
    asked = ["--analysis", "probe", "--network", "demo", "--target", "animacy"]
    assert main([str(demo_dataset), str(tmp_path / "out"), "dnn", *asked]) == 65
    line = capsys.readouterr().err.strip()
    assert line.startswith("bidsdnn: --target animacy: in no events file")
    assert "category" in line
    assert not list((tmp_path / "out").rglob("*_activations.h5"))


@pytest.mark.parametrize(
    ("level", "options", "said"),
    [
        ("dnn", ["--analysis", "top-stimuli", "--unit", "conv2:24"], "gives 24 x 32 x 32"),
        ("dnn", ["--analysis", "top-stimuli", "--unit", "conv2"], "write LAYER:CHANNEL"),
        ("dnn", ["--analysis", "top-stimuli", "encoding"], "encoding: needs a brain"),
        ("dnn", ["--analysis", "top-stimulus"], "did you mean top-stimuli"),
        ("dnn", ["--unit", "conv2:3"], "no analysis looks at units"),
        ("dnn", ["--analysis", "top-stimuli", "--unit", "brain:early"], "a region is a participant's"),
        ("participant", ["--analysis", "top-stimuli"], "needs no brain; run it at the dnn level"),
        ("participant", ["--analysis", "top-stimuli", "--unit", "fc:1"], "needs no brain; run it at the dnn level"),
        ("participant", ["--analysis", "feature-map", "--unit", "brain:early"], "a region has no maps; leave it out"),
        ("participant", ["--analysis", "probe", "--unit", "brain:early"], "are decoded by --analysis decoding"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_before_anything_is_written(
    demo_dataset, tmp_path, capsys, level, options, said
):
    assert main([str(demo_dataset), str(tmp_path / "out"), level, "--network", "demo", *options]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()
