"""Presets: what they fill in, and what wins over them."""

from __future__ import annotations

import tomllib

import pytest

from bidsdnn.config import resolve_config, to_toml
from bidsdnn.encoding.models import check_encoder
from bidsdnn.errors import ConfigError
from bidsdnn.networks.zoo import build
from bidsdnn.presets import PRESETS

LEAST = {"bids_dir": "in", "out_dir": "out", "analysis_level": "participant"}
PAPER = {**LEAST, "preset": "dnnbrain2020"}


def test_the_paper_of_dnnbrain():
    config = resolve_config(PAPER)
    assert (config.network, config.pca, config.encoder, config.cv) == (("alexnet",), 100, "ols", "kfold:10")
    assert (config.analysis, config.rdm_metric, config.rdm_comparison) == (
        ("encoding", "rsa"), "correlation", ("pearson",),
    )  # fmt: skip
    network = build("alexnet", weights="none", seed=0)
    chosen = network.select(config.layer)
    assert chosen == [f"features.{number}" for number in (1, 4, 7, 9, 11)]
    shapes = network.shapes()
    assert {shapes[layer][0] for layer in chosen} == {"ReLU"}
    assert config.region_encoder == "pls"
    assert config.parameters["pls"] == {"n_components": 10, "scale_x": True, "scale_y": True}
    assert resolve_config(tomllib.loads(to_toml(config))) == config


def test_partial_least_squares_as_the_paper_has_it():
    config = resolve_config({**PAPER, "encoder": "pls", "parameters": {"pls": {"n_components": 5}, "rsa": {}}})
    assert config.parameters == {"pls": {"n_components": 5, "scale_x": True, "scale_y": True}, "rsa": {}}
    check_encoder("pls", PRESETS["dnnbrain2020"]["parameters"]["pls"])


def test_whatever_is_given_wins():
    given = {"encoder": "ridge", "network": ["resnet18"], "pca": 20, "cv": "leave-one-out", "analysis": ["rsa"]}
    config = resolve_config({**PAPER, **given})
    assert (config.encoder, config.network, config.layer) == ("ridge", ("resnet18",), ())
    assert (config.pca, config.cv, config.analysis) == (20, "leave-one-out", ("rsa",))


def test_an_unknown_preset_gets_the_closest():
    with pytest.raises(ConfigError, match=r"--preset dnnbrain2021: not known; did you mean dnnbrain2020\?"):
        resolve_config({**LEAST, "preset": "dnnbrain2021"})


def test_a_preset_is_a_flag_too(tmp_path):
    from bidsdnn.arguments import parser
    from bidsdnn.cli import settings

    (tmp_path / "c.toml").write_text('preset = "dnnbrain2020"\nencoder = "lasso"\n')
    argv = ["in", "out", "participant", "--config-file", str(tmp_path / "c.toml"), "--pca", "50"]
    config = resolve_config(settings(parser().parse_intermixed_args(argv)))
    assert (config.preset, config.encoder, config.pca) == ("dnnbrain2020", "lasso", 50)
    config = resolve_config(settings(parser().parse_intermixed_args([*argv[:3], "--preset", "dnnbrain2020"])))
    assert config.encoder == "ols"
