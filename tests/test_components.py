"""Principal components over all stimuli stand beside the activations and in their place."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from bidsdnn import activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.cli import main
from bidsdnn.components import components
from bidsdnn.config import resolve_config
from bidsdnn.extraction import components_path, described
from bidsdnn.parallel import serial
from bidsdnn.stimuli import Stimuli


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "stimuli"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        Image.fromarray(rng.integers(0, 255, size=(40, 40, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def config(tmp_path, level="dnn", **values):
    base = {"bids_dir": str(tmp_path / "in"), "out_dir": str(tmp_path / "out"), "network": ["demo"]}
    return resolve_config({**base, "analysis_level": level, **values})


def made(tmp_path, pictures, names, settings):
    out = Derivatives(tmp_path / "out")
    ((network, _),) = activations.build_networks(settings)
    stimuli = Stimuli.from_folder(pictures).select([f"{name}.png" for name in names]).with_hashes()
    x, content = activations.ensure(network, ["conv1", "fc"], stimuli, out, config=settings)
    z, fitted = components(x, content, network, stimuli.ids, out, config=settings, map=serial)
    return x, z, fitted, components_path(out, network.label)


def test_components_are_scikit_learns_over_all_stimuli(tmp_path, pictures):
    x, z, _, path = made(tmp_path, pictures, "abcdefgh", config(tmp_path, pca=3))
    assert z.ids == x.ids
    for whole, few in zip(x.groups, z.groups, strict=True):
        theirs = PCA(3, svd_solver="full").fit_transform(whole.values[:, :].astype(float))
        signs = np.sign((few.values * theirs).sum(0))
        np.testing.assert_allclose(few.values * signs, theirs, atol=1e-4 * np.abs(theirs).max())
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["Components"] == {"conv1": 3, "fc": 3}
    assert "their first 3 principal components over all stimuli" in sidecar["Methods"]
    with h5py.File(path) as file:
        assert file["conv1"].shape == (8, 3)


def test_what_the_level_dnn_fitted_serves_participants(tmp_path, pictures):
    alone, few = made(tmp_path, pictures, "abcd", config(tmp_path, "participant", pca=2))[1:3]
    _, whole, first, path = made(tmp_path, pictures, "abcdefgh", config(tmp_path, pca=2))
    written = path.read_bytes()
    served, content = made(tmp_path, pictures, "abcd", config(tmp_path, "participant", pca=2))[1:3]
    assert path.read_bytes() == written
    np.testing.assert_array_equal(served.groups[0].values, whole.groups[0].values)
    assert len({few, first, content}) == 3
    assert not np.allclose(alone.groups[0].values, served.groups[0].values[:4])
    fewer = made(tmp_path, pictures, "abcd", config(tmp_path, "participant", pca=1))[1]
    assert fewer.groups[0].values.shape == (4, 1)


def test_shares_and_layers_with_few_units(tmp_path, pictures):
    _, z, _, _ = made(tmp_path, pictures, "abcd", config(tmp_path, pca=100))
    assert [group.values.shape for group in z.groups] == [(4, 4), (4, 4)]
    _, z, _, path = made(tmp_path, pictures, "abcd", config(tmp_path, pca=0.6))
    explained = json.loads(path.with_suffix(".json").read_text())["VarianceExplained"]
    assert min(explained.values()) > 0.6
    assert "explain 60 % of the variance" in described(config(tmp_path, pca=0.6))


def test_the_command_line_encodes_from_components(demo_dataset, tmp_path, capsys):
    options = ["--network", "demo", "--layer", "fc", "--permutations", "20", "--nprocs", "1", "--pooling", "mean"]
    out = tmp_path / "out"
    assert main([str(demo_dataset), str(out), "participant", *options, "--analysis", "encoding", "--pca", "4"]) == 0
    sidecar = json.loads(next(out.glob("sub-01/func/*desc-encoding_results.json")).read_text())
    assert "summarised over its positions by its mean" in sidecar["Methods"]
    assert "their first 4 principal components" in sidecar["Methods"]
    assert "dnnbrain" in sidecar["References"]
    assert main([str(demo_dataset), str(out), "dnn", "--pca", "0"]) == 2
    with pytest.raises(SystemExit):
        main([str(demo_dataset), str(out), "dnn", "--pca", "many"])
    assert "write 100, or a share as 0.9" in capsys.readouterr().err
