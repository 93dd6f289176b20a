"""Probes through the command line: what is written, what is not done twice, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

STEM = "model-demo+none+seed0_desc-topstimuli"


@pytest.fixture(scope="module")
def probed(demo_dataset, tmp_path_factory) -> Path:
    """Output of top stimuli of two units, of a folder of ten pictures."""
    out = tmp_path_factory.mktemp("inside") / "bidsdnn"
    pictures = out.parent / "pictures"
    pictures.mkdir()
    for path in sorted((demo_dataset / "stimuli").glob("*.png"))[:10]:
        shutil.copy(path, pictures)
    assert run(demo_dataset, out, "--analysis", "top-stimuli", "--unit", "conv2:3", "fc:1") == 0
    return out


def run(bids: Path, out: Path, *options: str) -> int:
    pictures = out.parent / "pictures"
    return main([str(bids), str(out), "dnn", "--network", "demo", "--stimuli-dir", str(pictures), *options])


def test_tables_and_pictures_are_written_with_what_made_them(probed):
    stimuli = probed / "stimuli"
    receipt = json.loads((stimuli / f"{STEM}_results.json").read_text())
    assert receipt["Units"] == ["conv2:3", "fc:1"]
    assert {Path(name).name for name in receipt["Outputs"]} == {
        f"{STEM}_results.tsv", f"label-conv2+unit3_{STEM}_picture.png", f"label-fc+unit1_{STEM}_picture.png",
    }  # fmt: skip
    table = read_table(stimuli / f"{STEM}_results.tsv")
    assert set(table["layer"]) == {"conv2", "fc"}
    about = json.loads((stimuli / f"label-fc+unit1_{STEM}_picture.json").read_text())
    assert table.loc[(table["layer"] == "fc") & (table["end"] == "best"), "stimulus_id"].iloc[0] in about["Alt"]
    with Image.open(stimuli / f"label-fc+unit1_{STEM}_picture.png") as sheet:
        assert sheet.mode == "RGB"
    assert not list(stimuli.glob("*_activations.h5"))


def test_the_page_shows_every_picture_with_its_caption(probed):
    page = (probed / "dnn.html").read_text()
    assert page.count("<img") == 2
    assert len(re.findall(r'<img[^>]* alt="The stimuli that drive [^"]+"', page)) == 2
    assert "upper row, the 8 of 10 stimuli" in page
    assert '<section id="topstimuli"' in page
    assert "--analysis top-stimuli" in page
    assert "desc-topstimuli" in (probed / "descriptions.tsv").read_text()
    assert not (probed / "stimuli" / "figures").exists() or not list((probed / "stimuli" / "figures").iterdir())


def test_what_is_there_is_not_done_again_and_what_is_no_longer_asked_goes(demo_dataset, probed, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(probed, out)
    shutil.copytree(probed.parent / "pictures", tmp_path / "pictures")
    table = out / "stimuli" / f"{STEM}_results.tsv"
    before = table.stat().st_mtime_ns
    asked = ["--analysis", "top-stimuli", "--unit", "conv2:3"]
    assert run(demo_dataset, out, *asked, "fc:1") == 0
    assert table.stat().st_mtime_ns == before
    assert run(demo_dataset, out, *asked) == 0
    assert table.stat().st_mtime_ns > before
    assert [path.name[:16] for path in out.rglob("*_picture.*")] == ["label-conv2+unit"] * 2
    # The time that a run took is known when it has ended.
    page = (out / "dnn.html").read_text()
    (out / "dnn.html").unlink()
    assert run(demo_dataset, out, "--reports-only") == 0
    assert re.sub(r" and took [\d.]+ s", "", (out / "dnn.html").read_text()) == page


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
