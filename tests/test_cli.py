"""The command line: help at once, both spellings, lists, and statuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bidsdnn import __version__, cli, commands
from bidsdnn.arguments import LISTS
from bidsdnn.errors import ConfigError, UnknownLevelError


def parse(*arguments):
    return cli.settings(cli.parser().parse_args([*arguments]))


HELP = """
import runpy, sys
before = set(sys.modules)
sys.argv = ["bidsdnn", "--help"]
try:
    runpy.run_module("bidsdnn", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_help_is_there_at_once():
    said = subprocess.run([sys.executable, "-c", HELP], capture_output=True, check=True, text=True).stdout
    page, _, imported = said.strip().rpartition("\n")
    assert page.startswith("usage: bidsdnn")
    # Python's own modules cost milliseconds, those of others seconds.
    assert set(imported.split()) - sys.stdlib_module_names == {"bidsdnn"}


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"bidsdnn v{__version__}\n"


@pytest.mark.parametrize("spelling", ["--participant-label", "--participant_label"])
def test_classic_flags_in_both_spellings(spelling):
    values = parse("in", "out", "participant", spelling, "sub-01", "02", "--n_cpus", "2", "--notrack")
    assert values["participant_label"] == ["01", "02"]
    assert values["nprocs"] == 2
    assert "notrack" not in values


def test_every_flag_of_several_words_has_both_spellings():
    for action in cli.parser()._actions:
        for flag in action.option_strings:
            if flag.startswith("--") and "-" in flag[2:]:
                assert "--" + flag[2:].replace("-", "_") in action.option_strings


@pytest.mark.parametrize(("text", "mb"), [("8000", 8000), ("8G", 8000), ("8GB", 8000), ("0.5T", 500000), ("2048k", 2)])
def test_memory_with_units(text, mb):
    assert parse("in", "out", "participant", "--mem", text)["mem_mb"] == mb


def test_memory_without_sense(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["in", "out", "participant", "--mem-mb", "lots"])
    assert stop.value.code == 2
    assert "'lots' is no amount of memory" in capsys.readouterr().err


def test_derivatives_by_name_or_by_folder():
    assert parse("i", "o", "dnn", "-d", "fmriprep=/a/b", "/c/xcp")["derivatives"] == {
        "fmriprep": "/a/b",
        "xcp": "/c/xcp",
    }
    with pytest.raises(ConfigError, match="stands twice"):
        parse("i", "o", "dnn", "-d", "a=/x", "/y/a")


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text('bids_dir = "a"\nout_dir = "b"\nanalysis_level = "dnn"\npermutations = 5\n')
    values = parse("--config-file", str(tmp_path / "c.toml"), "--permutations", "7")
    assert (values["bids_dir"], values["analysis_level"], values["permutations"]) == ("a", "dnn", 7)
    with pytest.raises(UnknownLevelError, match="'session' is unknown"):
        parse("in", "out", "session")


def test_the_list_of_networks_says_which_weights_there_are(capsys):
    assert cli.main(["--list", "networks"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert lines["resnet50"] == "IMAGENET1K_V2, IMAGENET1K_V1, none"
    assert lines["r3d_18"] == "KINETICS400_V1, none"
    assert lines["vggish"] == "none"
    assert lines["timm:NAME"].startswith("Build a network of timm")


def test_the_list_of_layers_has_short_names(capsys):
    assert cli.main(["--list", "layers", "--network", "alexnet"]) == 0
    assert "  features.10\tConv2d\t256 x 13 x 13\tconv5\n" in capsys.readouterr().out


@pytest.mark.parametrize("what", LISTS)
def test_lists_need_no_dataset(what, capsys):
    assert cli.main(["--list", what, "--network", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = {"networks": "alexnet", "layers": "* conv1", "analyses": "encoding\t", "models": "ridge\t",
                "responses": "lss\t", "dissimilarities": "correlation\t", "similarities": "spearman\t",
                    "features": "luminance\t"}  # fmt: skip
    assert any(line.startswith(expected[what]) for line in lines)
    assert what in ("networks", "layers") or all(line.split("\t")[1] for line in lines)


def test_demo_and_fetch_answer_in_one_line(tmp_path, capsys, monkeypatch):
    assert commands.demo([str(tmp_path / "d"), "--participants", "1", "--stimuli", "12", "--spaces", "moon"]) == 2
    assert "moon" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert commands.demo([str(tmp_path / "full")]) == 73
    assert commands.fetch(["alexnett"]) == 2
    assert "did you mean alexnet" in capsys.readouterr().err
    path = tmp_path / "w.pth"
    monkeypatch.setattr("bidsdnn.networks.zoo.fetch_weights", lambda names, folder, progress: [path])
    assert commands.fetch(["alexnet", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(path), f"export TORCH_HOME={tmp_path}"]


def test_interrupting_is_no_error(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert cli.main(["in", "out", "participant"]) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["in", "out", "participant"])


def test_positionals_may_stand_anywhere():
    values = cli.settings(cli.parser().parse_intermixed_args(["in", "--dry-run", "out", "--nprocs", "1", "dnn"]))
    assert (values["bids_dir"], values["out_dir"], values["analysis_level"]) == ("in", "out", "dnn")


def test_labels_from_a_file(tmp_path):
    (tmp_path / "labels.txt").write_text("sub-01\n02\n")
    assert parse("i", "o", "dnn", "--participant-label", str(tmp_path / "labels.txt"))["participant_label"] == [
        "01",
        "02",
    ]
    assert parse("i", "o", "dnn", "--run-label", "run-1", "02")["run_label"] == [1, 2]
