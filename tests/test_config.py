"""Configuration: strict, flags over file, and the resolved file repeats the run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bidsdnn.config import Config, load_toml, resolve_config, to_toml
from bidsdnn.config_tables import NetworkSpec
from bidsdnn.errors import ConfigError

LEAST = {"bids_dir": "in", "out_dir": "out", "analysis_level": "participant"}


def test_defaults_need_three_words():
    config = resolve_config(LEAST)
    assert config.network == ("alexnet",)
    assert config.analysis == ("encoding", "rsa")
    assert config.permutations == 1000
    assert config.bids_dir == Path("in").absolute()


def test_resolved_file_reads_back_equal():
    config = resolve_config(
        {
            **LEAST,
            "participant_label": ["01", "02"],
            "derivatives": {"fmriprep": "/data/x"},
            "network": ["a=resnet18@none", "vgg16"],
            "parameters": {"encoding": {"inner_splits": 3}},
            "cv": "leave-2-runs-out",
            "networks": {"a": {"input_size": 64, "mean": [0.5, 0.5, 0.5]}, "vgg16": {"modality": "image"}},
            "high_pass": 100.0,
            "event_filter": "trial_type == 'object'",
            "events": {"column": "kind", "rename": {"a": "b"}, "merge": {"c": ["d", "e"]}, "split": {"f": "g"}},
            "confounds": ["motion-24", "trans_*"],
            "fd_threshold": 0.5,
        }
    )
    assert resolve_config(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nprocs": "3"}, "nprocs = '3'"),
        ({"permutations": 0}, "permutations = 0"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"networks": {"a": {"std": [1.0]}}}, "std has 1 values"),
        ({"networks": {"a": {"size": 3}}}, "networks.a.size"),
        ({"out_dir": "in"}, "derivatives/bidsdnn"),
        ({"out_dir": "in/results"}, "lies in the input dataset"),
        ({"work_dir": "in/work"}, "work_dir"),
        ({"network": ["none", "alexnet"]}, "stands alone"),
        ({"network": ["a b=alexnet"]}, "alias"),
        ({"network": ["@none"]}, "names no network"),
        ({"raw_bold": 1}, "raw_bold = 1"),
        ({"confounds": ["none", "motion"]}, "confounds: `none` stands alone"),
        ({"fd_threshold": 0.0}, "fd_threshold = 0.0"),
        ({"slice_time_ref": 1.5}, "slice_time_ref = 1.5"),
        ({"standardize": "percent"}, "standardize = 'percent'"),
        ({"noise": "ar2"}, "noise = 'ar2'"),
        ({"events": {"renamed": {}}}, "events.renamed"),
        ({"events": {"merge": {"a": ["x"], "b": ["x"]}}}, "'x' is merged twice"),
    ],
)
def test_nonsense_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_config({**LEAST, **values})
    assert "\n" not in str(caught.value)


def test_output_in_derivatives_of_the_input_is_allowed():
    assert resolve_config({**LEAST, "out_dir": "in/derivatives/bidsdnn"}).out_dir.name == "bidsdnn"


def test_misspelt_key_of_the_file_gets_the_closest(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('netwrok = ["alexnet"]\n')
    with pytest.raises(ConfigError, match=r"c\.toml: unknown key 'netwrok'; did you mean network"):
        load_toml(path)
    path.write_text("network = [\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_toml(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alexnet", ("alexnet", "DEFAULT", None)),
        ("alexnet@none", ("alexnet", "none", None)),
        ("mine=net.py:build@w.pth", ("net.py:build", "w.pth", "mine")),
    ],
)
def test_network_syntax(text, expected):
    spec = NetworkSpec.parse(text, weights="DEFAULT")
    assert (spec.name, spec.weights, spec.alias) == expected


def test_network_none_asks_for_no_network():
    assert resolve_config({**LEAST, "network": ["none"]}).networks == ()
    assert isinstance(resolve_config(LEAST), Config)


def test_files_are_named_absolutely_so_that_the_file_repeats_from_anywhere(tmp_path, monkeypatch):
    for name in ("w.pth", "net.py", "mine.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    config = resolve_config(
        {
            **LEAST,
            "weights": "w.pth",
            "network": ["a=net.py:build@w.pth", "alexnet@none", "net.py:build"],
            "analysis": ["mine.py:f"],
            "parameters": {"mine.py:f": {"x": 1}},
        }
    )
    assert config.weights == str(tmp_path / "w.pth")
    assert config.network[0] == f"a={tmp_path}/net.py:build@{tmp_path}/w.pth"
    assert config.network[1:] == ("alexnet@none", f"{tmp_path}/net.py:build")
    assert config.analysis == tuple(config.parameters) == (f"{tmp_path}/mine.py:f",)
    assert resolve_config({**LEAST, "notrack": True}).notrack


def test_endless_numbers_are_refused():
    with pytest.raises(ConfigError, match="high_pass"):
        resolve_config({**LEAST, "high_pass": float("inf")})
