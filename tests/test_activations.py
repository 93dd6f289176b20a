"""Activations are extracted once, kept, added to, and never slip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from bidsdnn import activations
from bidsdnn.bids.arrays import read_activations, read_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.config import resolve_config
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks import extract as extraction
from bidsdnn.parallel import serial
from bidsdnn.stimuli import Stimuli


def config(tmp_path, **values):
    base = {
        "bids_dir": str(tmp_path / "in"),
        "out_dir": str(tmp_path / "out"),
        "analysis_level": "dnn",
        "network": ["demo"],
    }
    return resolve_config({**base, **values})


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "stimuli"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdef":
        Image.fromarray(rng.integers(0, 255, size=(70, 80, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def count(monkeypatch):
    """How many pictures and layers each extraction took."""
    calls: list[tuple[int, int]] = []
    real = extraction.extract

    def counted(network, stimuli, layers, *args, **kwargs):
        calls.append((len(stimuli), len(layers)))
        return real(network, stimuli, layers, *args, **kwargs)

    monkeypatch.setattr(extraction, "extract", counted)
    return calls


def ensure(tmp_path, pictures, names, layers=("conv1", "fc"), **values):
    settings = config(tmp_path, **values)
    ((network, _),) = activations.build_networks(settings)
    stimuli = Stimuli.from_folder(pictures).select([f"{name}.png" for name in names]).with_hashes()
    return activations.ensure(network, list(layers), stimuli, Derivatives(tmp_path / "out"), config=settings)


def test_extracted_once_and_added_to(tmp_path, pictures, count):
    first, content = ensure(tmp_path, pictures, "abc")
    _, again = ensure(tmp_path, pictures, "abc")
    assert count == [(3, 2)]
    assert content == again
    fewer, _ = ensure(tmp_path, pictures, "b", ["fc"])
    assert count == [(3, 2)]
    assert len(fewer) == 3
    more, _ = ensure(tmp_path, pictures, "bde", ["conv3"])
    assert count[1:] == [(5, 3)]
    # What was there keeps its rows and its values; new stimuli come after.
    assert more.ids == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    again, _ = ensure(tmp_path, pictures, "abc")
    np.testing.assert_array_equal(again.groups[1].values[:3, :], first.groups[1].values[:, :])
    assert len(count) == 2


def test_a_changed_picture_is_extracted_anew(tmp_path, pictures, count):
    before, content = ensure(tmp_path, pictures, "abc")
    old = before.groups[1].values[:, :]
    Image.new("RGB", (70, 70), "red").save(pictures / "b.png")
    after, other = ensure(tmp_path, pictures, "abc")
    new = after.groups[1].values[:, :]
    assert other != content
    assert len(count) == 2
    np.testing.assert_array_equal(new[[0, 2]], old[[0, 2]])
    assert not np.array_equal(new[1], old[1])


def test_other_weights_are_another_file(tmp_path, pictures, count):
    ensure(tmp_path, pictures, "ab")
    ensure(tmp_path, pictures, "ab", random_seed=1)
    assert {path.name for path in (tmp_path / "out" / "stimuli").glob("*.h5")} == {
        "model-demo+none+seed0_activations.h5",
        "model-demo+none+seed1_activations.h5",
    }


def test_a_file_that_changes_under_a_reader_stops_the_run(tmp_path, pictures):
    patterns, _ = ensure(tmp_path, pictures, "abc")
    path = activations.activations_path(Derivatives(tmp_path / "out"), "demo+none+seed0")
    with h5py.File(path, "r+") as file:
        file["stim_id"][...] = file["stim_id"][:][::-1]
    with pytest.raises(DataError, match="another job changed its stimuli"):
        patterns.groups[0].values[:, :5]


def test_a_file_without_its_sidecar_is_not_trusted(tmp_path, pictures, count):
    ensure(tmp_path, pictures, "abc")
    next((tmp_path / "out" / "stimuli").glob("*_activations.json")).unlink()
    ensure(tmp_path, pictures, "abc")
    assert len(count) == 2


def test_nothing_is_left_of_an_extraction_that_failed(tmp_path, pictures):
    path = pictures / "c.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"c\.png"):
        ensure(tmp_path, pictures, "abc")
    assert not [p for p in (tmp_path / "out" / "stimuli").iterdir() if not p.name.endswith(".lock")]


def test_layers_by_glob_and_network(tmp_path):
    ((_, layers),) = activations.build_networks(config(tmp_path, layer=["conv[13]", "demo:fc"]))
    assert layers == ["conv1", "conv3", "fc"]
    two = config(tmp_path, network=["a=demo", "b=demo@none"], layer=["a:conv1"])
    ((network, layers),) = activations.build_networks(two)
    assert (network.label, layers) == ("a", ["conv1"])
    with pytest.raises(ConfigError, match="conv9"):
        activations.build_networks(config(tmp_path, layer=["conv1", "conv9"]))


def test_rdms_are_written_once_and_cover_all_layers_kept(tmp_path, pictures):
    ((network, _),) = activations.build_networks(config(tmp_path))
    out = Derivatives(tmp_path / "out")
    x, _ = ensure(tmp_path, pictures, "abcdef")
    activations.write_rdms(network, out, map=serial)
    path = next((tmp_path / "out" / "stimuli").glob("*_relmat.h5"))
    written = path.stat().st_mtime_ns
    ensure(tmp_path, pictures, "ab", ["fc"])
    activations.write_rdms(network, out, map=serial)
    assert path.stat().st_mtime_ns == written
    ids, rdms = read_rdms(path)
    assert ids == x.ids
    assert list(rdms) == ["conv1", "fc"]
    np.testing.assert_array_equal(rdms["fc"], x.groups[1].rdm())
    ensure(tmp_path, pictures, "ab", ["conv2"])
    activations.write_rdms(network, out, map=serial)
    assert list(read_rdms(path)[1]) == ["conv1", "conv2", "fc"]


def test_too_many_stimuli_for_one_rdm(tmp_path, pictures, monkeypatch, caplog):
    monkeypatch.setattr(activations, "MOST_STIMULI_FOR_RDM", 3)
    ((network, _),) = activations.build_networks(config(tmp_path))
    ensure(tmp_path, pictures, "abcd")
    activations.write_rdms(network, Derivatives(tmp_path / "out"), map=serial)
    assert not list((tmp_path / "out").rglob("*_relmat.h5"))
    assert "per participant only" in caplog.text


def test_the_manifest_keeps_what_others_wrote(tmp_path, pictures):
    out = Derivatives(tmp_path / "out")
    stimuli = Stimuli.from_folder(pictures).with_hashes()
    activations.write_manifest(stimuli.select(["b.png"]), {"b.png": 4}, out)
    activations.write_manifest(stimuli.select(["a.png", "b.png"]), {"a.png": 1, "b.png": 9}, out)
    lines = (tmp_path / "out" / "stimuli" / "stimuli.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["stimulus_id", "a.png", "b.png"]
    assert [line.split("\t")[4] for line in lines[1:]] == ["1", "4"]
    Image.new("RGB", (9, 9)).save(pictures / "b.png")
    activations.write_manifest(Stimuli.from_folder(pictures).with_hashes().select(["b.png"]), {"b.png": 2}, out)
    assert "\t2\t" in (tmp_path / "out" / "stimuli" / "stimuli.tsv").read_text().splitlines()[2]


def test_stored_layers_read_blocks(finished):
    path = activations.activations_path(Derivatives(finished.out), "demo+none+seed0")
    ids, (layer,) = read_activations(path, ["conv2"])
    with h5py.File(path) as file:
        whole = file["conv2"][:]
    np.testing.assert_array_equal(layer[:, 3:9], whole[:, 3:9])
    np.testing.assert_array_equal(layer[2:4, :], whole[2:4])
    assert layer.shape == whole.shape
    assert len(ids) == 24
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert list(sidecar["Stimuli"]) == ids


def test_real_photographs_and_weights(tmp_path):
    """The fit to human IT rises from the first layer to late ones (needs the shared data)."""
    shared = Path(__file__).parents[2] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("shared data are not here")
    from bidsdnn.cli import main
    from bidsdnn.methods.similarity import label_permutation

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    shutil.copytree(shared / "rsa92" / "images_white", tmp_path / "in" / "stimuli")
    weights = str(shared / "squeezenet1_1" / "squeezenet1_1.pth")
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "dnn", "--network", "squeezenet1_1", "--weights", weights]
    assert main([*arguments, "--layer", "features.1", "features.11"]) == 0
    ids, rdms = read_rdms(next((tmp_path / "out").rglob("*_relmat.h5")))
    assert ids == [f"image_{i:02d}.jpg" for i in range(1, 93)]
    with np.load(shared / "rsa92" / "cichy2014" / "fmri_IT_RDMs.npz") as file:
        people = file["Net_RDM"][:, *np.triu_indices(92, 1)]
    fit, _ = label_permutation(np.array(list(rdms.values())), people, permutations=1)
    assert fit[1].mean() > fit[0].mean() + 0.1
