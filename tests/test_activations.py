"""Activations are extracted once, kept, added to, and never slip."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from PIL import Image

from bidsdnn import activations
from bidsdnn.bids.arrays import read_activations, read_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.config import resolve_config
from bidsdnn.errors import ConfigError, DataError, OutputError
from bidsdnn.extraction import PROGRAM_BYTES, check_room, workers_within
from bidsdnn.methods.reduce import random_dimensions
from bidsdnn.networks import controls, zoo
from bidsdnn.networks import extract as extraction
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.store import part_paths
from bidsdnn.parallel import serial
from bidsdnn.stimuli import Stimuli, readable


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


@pytest.fixture
def forwards(monkeypatch):
    """Layers and number of pictures of each batch that went through a network."""
    calls: list[tuple[list[str], int]] = []
    real = extraction._Job.__call__

    def counted(job, step):
        done = real(job, step)
        calls.append((list(done[1]), len(step.rows)))
        return done

    monkeypatch.setattr(extraction._Job, "__call__", counted)
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


def test_only_what_is_new_is_computed(tmp_path, pictures, forwards):
    first, _ = ensure(tmp_path, pictures, "abc", ["fc"])
    old = first.groups[0].values[:, :]
    assert forwards == [(["fc"], 3)]
    ensure(tmp_path, pictures, "abc", ["conv1"])
    assert forwards[1:] == [(["conv1"], 3)]
    more, _ = ensure(tmp_path, pictures, "dbe", ["conv1", "fc"])
    assert forwards[2:] == [(["conv1", "fc"], 2)]
    assert more.ids == [f"{name}.png" for name in "abcde"]
    ensure(tmp_path, pictures, "fa", ["conv2"])
    assert forwards[3:] == [(["conv2"], 5), (["conv1", "conv2", "fc"], 1)]
    np.testing.assert_array_equal(more.groups[1].values[:3, :], old)
    fresh, _ = ensure(tmp_path / "other", pictures, "abcdef", ["conv1", "conv2", "fc"])
    again, _ = ensure(tmp_path, pictures, "abcdef", ["conv1", "conv2", "fc"])
    assert len(forwards) == 6
    for kept, made in zip(again.groups, fresh.groups, strict=True):
        np.testing.assert_array_equal(kept.values[:, :], made.values[:, :])


def test_equal_contents_are_computed_once(tmp_path, pictures, forwards):
    shutil.copy(pictures / "b.png", pictures / "x.png")
    shutil.copy(pictures / "b.png", pictures / "y.png")
    x, _ = ensure(tmp_path, pictures, "abx", ["fc"])
    assert forwards == [(["fc"], 2)]
    values = x.groups[0].values[:, :]
    np.testing.assert_array_equal(values[1], values[2])
    assert not np.array_equal(values[0], values[1])
    x, _ = ensure(tmp_path, pictures, "y", ["fc"])
    assert len(forwards) == 1
    assert x.ids == ["a.png", "b.png", "x.png", "y.png"]
    np.testing.assert_array_equal(x.groups[0].values[:, :], np.vstack([values, values[1:2]]))


def test_clips_of_an_earlier_run_stay(tmp_path, forwards):
    for name in ("a.wav", "b.wav"):
        (tmp_path / "stimuli").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "stimuli" / name, np.random.default_rng(0).normal(size=8000) * (name < "b"), 8000)
    clips = Stimuli.from_folder(tmp_path / "stimuli", ["audio"]).cut(0.25).with_hashes()
    network, derivatives = controls.control("envelope", "audio"), Derivatives(tmp_path / "out")

    def ensured(names):
        some = clips.select(names)
        return activations.ensure(network, ["envelope"], some, derivatives, config=config(tmp_path))[0]

    first = ensured(clips.ids[:4]).groups[0].values[:, :]
    both = ensured(clips.ids[4:6])
    assert [count for _, count in forwards] == [4, 2] and both.ids == clips.ids[:6]
    np.testing.assert_array_equal(both.groups[0].values[:, :][:4], first)
    soundfile.write(tmp_path / "stimuli" / "a.wav", np.zeros(8000), 8000)  # what was made of it goes
    assert ensured(clips.ids[6:]).ids == clips.ids[4:]


def hidden(tmp_path):
    return {p.name for p in (tmp_path / "out" / "stimuli").iterdir() if not p.name.endswith(".lock")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OutputError])
def test_an_interrupted_extraction_goes_on(tmp_path, pictures, forwards, monkeypatch, error):
    monkeypatch.setattr(extraction, "extract", partial(extraction.extract, batch_size=2))
    counted = extraction._Job.__call__

    def stops(job, step):
        if step.rows[0] == 4:
            raise error("stop")
        return counted(job, step)

    with monkeypatch.context() as patch:
        patch.setattr(extraction._Job, "__call__", stops)
        with pytest.raises(error):
            ensure(tmp_path, pictures, "abcdef", nprocs=1)
    assert forwards == [(["conv1", "fc"], 2)] * 2
    name = ".model-demo+none+seed0_activations.h5"
    assert hidden(tmp_path) == {f".{name}.part", f".{name}.done"}
    resumed, _ = ensure(tmp_path, pictures, "abcdef", nprocs=1)
    assert forwards[2:] == [(["conv1", "fc"], 2)]
    assert hidden(tmp_path) == {name[1:], f"{name[1:-3]}.json"}
    whole, _ = ensure(tmp_path / "other", pictures, "abcdef", nprocs=1)
    for one, other in zip(resumed.groups, whole.groups, strict=True):
        np.testing.assert_array_equal(one.values[:, :], other.values[:, :])
    paths = [next((folder / "out" / "stimuli").glob("*.h5")) for folder in (tmp_path, tmp_path / "other")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_picture_that_breaks_meanwhile_costs_no_other(tmp_path, pictures, forwards, monkeypatch):
    monkeypatch.setattr(extraction, "extract", partial(extraction.extract, batch_size=2))
    settings, whole = config(tmp_path, nprocs=1), (pictures / "e.png").read_bytes()
    ((network, _),) = activations.build_networks(settings)
    stimuli = Stimuli.from_folder(pictures).with_hashes()
    made = partial(activations.ensure, network, ["fc"], stimuli, Derivatives(tmp_path / "out"), config=settings)
    (pictures / "e.png").write_bytes(whole[:99])
    with pytest.raises(DataError, match=r"e\.png: not a readable image"):
        made()
    assert forwards == [(["fc"], 2)] * 2
    (pictures / "e.png").write_bytes(whole)
    found, _ = made()
    assert forwards == [(["fc"], 2)] * 3
    again, _ = ensure(tmp_path / "other", pictures, "abcdef", ["fc"], nprocs=1)
    np.testing.assert_array_equal(found.groups[0].values[:, :], again.groups[0].values[:, :])


def test_stimuli_left_out_are_said_beside_the_activations(tmp_path, pictures):
    whole = (pictures / "c.png").read_bytes()
    (pictures / "c.png").write_bytes(whole[:99])
    settings = config(tmp_path)
    ((network, _),) = activations.build_networks(settings)

    def left_out():
        stimuli, _ = readable(Stimuli.from_folder(pictures), skip=True)
        activations.ensure(network, ["fc"], stimuli.with_hashes(), Derivatives(tmp_path / "out"), config=settings)
        return json.loads(next((tmp_path / "out" / "stimuli").glob("*.json")).read_text()).get("LeftOut")

    assert left_out() == ["c.png"]
    (pictures / "c.png").write_bytes(whole)
    assert not left_out()


def test_what_an_interrupted_run_left_for_others_is_dropped(tmp_path, pictures, forwards, monkeypatch):
    part, marks = part_paths(tmp_path / "out" / "stimuli" / ".model-demo+none+seed0_activations.h5")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"damaged")
    marks.write_bytes(b"0" * 64 + b"\1\1\1")
    ensure(tmp_path, pictures, "abc", ["fc"])
    assert forwards == [(["fc"], 3)]
    assert not part.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from bidsdnn.networks import extract as extraction, store, zoo
from bidsdnn.stimuli import Stimuli
store.SECONDS_BETWEEN_MARKS = 0
real = extraction._Job.__call__
def call(job, step):
    if step.rows[0] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, step)
extraction._Job.__call__ = call
pictures, path = Stimuli.from_folder(Path(sys.argv[1])), Path(sys.argv[2])
extraction.extract(zoo.build("demo"), pictures, ["conv1", "fc"], path, batch_size=1)
"""


def test_a_killed_extraction_goes_on(tmp_path, pictures, forwards):
    def extract(out):
        stimuli = Stimuli.from_folder(pictures)
        extraction.extract(zoo.build("demo"), stimuli, ["conv1", "fc"], tmp_path / out, batch_size=1)

    command = [sys.executable, "-c", KILLED, str(pictures), str(tmp_path / "a.h5")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    extract("a.h5")
    # The batch before the last may not have been written when the process died.
    assert len(forwards) in (2, 3)
    extract("b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_reduced_activations_say_how(tmp_path, pictures, forwards):
    options = {
        "layer": ["conv1", "fc"],
        "mask": {"conv1": {"channel": [2, 0]}},
        "pooling": "max",
        "activation_dtype": "float16",
    }
    _, plain = ensure(tmp_path, pictures, "abc")
    x, content = ensure(tmp_path, pictures, "abc", **options)
    assert content != plain
    assert len(forwards) == 2
    path = activations.activations_path(Derivatives(tmp_path / "out"), "demo+none+seed0")
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert (sidecar["Pooling"], sidecar["ActivationType"]) == ("max", "float16")
    assert sidecar["Mask"] == {"conv1": {"channel": [2, 0]}}
    with h5py.File(path) as file:
        assert file["conv1"].dtype == np.float16
        assert file["conv1"].attrs["shape"].tolist() == [2]
    ensure(tmp_path / "other", pictures, "abc")
    path = activations.activations_path(Derivatives(tmp_path / "other" / "out"), "demo+none+seed0")
    with h5py.File(path) as file:
        expected = file["conv1"][:].reshape(3, *file["conv1"].attrs["shape"]).max((2, 3))[:, [2, 0]]
    values = x.groups[0].values[:, :]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected.astype(np.float16).astype(np.float32))
    assert x.groups[0].shape == (2,)


def test_projected_activations(tmp_path, pictures, forwards):
    x, _ = ensure(tmp_path, pictures, "abc", ["conv1"], projection=20)
    assert x.groups[0].values.shape == (3, 20)
    auto, _ = ensure(tmp_path, pictures, "abcdef", ["conv1"], projection="auto")
    assert auto.groups[0].values.shape == (6, random_dimensions(6))
    # Dimensions that suffice for more stimuli suffice for fewer.
    ensure(tmp_path, pictures, "ab", ["conv1"], projection="auto")
    assert len(forwards) == 2


def test_float16_that_overflows(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(Reduction, "__call__", lambda self, layer, values: values * 1e6)
    with pytest.raises(DataError, match=r"a\.png: activations of demo.*, layer conv1, exceed 65504"):
        ensure(tmp_path, pictures, "abc", ["conv1"], activation_dtype="float16")


def test_a_mask_names_the_layers(tmp_path):
    ((_, layers),) = activations.build_networks(config(tmp_path, mask={"conv[13]": {"channel": [1]}}))
    assert layers == ["conv1", "conv3"]
    with pytest.raises(ConfigError, match="mask of layer conv1: no such layer is analysed"):
        activations.build_networks(config(tmp_path, layer=["fc"], mask={"conv1": {"channel": [1]}}))


def test_dnnbrains_mask_names_layers_and_counts_from_one(tmp_path, pictures):
    (tmp_path / "a.dmask.csv").write_text("conv1=chn\n1,3\nfc=\n")
    settings = config(tmp_path, dmask=str(tmp_path / "a.dmask.csv"))
    ((network, layers),) = activations.build_networks(settings)
    assert layers == ["conv1", "fc"]
    stimuli = Stimuli.from_folder(pictures).with_hashes()
    some, _ = activations.ensure(network, layers, stimuli, Derivatives(tmp_path / "out"), config=settings)
    whole, _ = ensure(tmp_path / "other", pictures, "abcdef")
    shape = whole.groups[0].shape
    expected = whole.groups[0].values[:, :].reshape(6, *shape)[:, [0, 2]]
    np.testing.assert_array_equal(some.groups[0].values[:, :], expected.reshape(6, -1))
    assert some.groups[0].shape == (2, *shape[1:])
    np.testing.assert_array_equal(some.groups[1].values[:, :], whole.groups[1].values[:, :])


def test_what_does_not_fit_is_said_before(tmp_path, pictures, monkeypatch):
    settings = config(tmp_path, network=["a=demo", "b=demo"])
    networks = activations.build_networks(settings)
    stimuli = Stimuli.from_folder(pictures).with_hashes()
    out = Derivatives(tmp_path / "out")
    one = extraction.estimate_bytes(*networks[0], len(stimuli))
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=2 * one - 1))
    with pytest.raises(OutputError, match=f"activations need {2 * one} bytes and {2 * one - 1} are free"):
        check_room(networks, stimuli, out, config=settings)
    check_room(networks[:1], stimuli, out, config=settings)
    activations.ensure(*networks[0], stimuli, out, config=settings)
    check_room(networks, stimuli, out, config=settings)
    small = config(tmp_path, network=["demo"], mem_mb=100)
    with pytest.raises(ConfigError, match=r"--mem-mb 100: activations of a, .* need about \d{9} bytes"):
        check_room(networks[:1], stimuli, Derivatives(tmp_path / "new"), config=small)
    need = extraction.estimate_memory(*networks[0], workers=3) + PROGRAM_BYTES
    enough = config(tmp_path, network=["demo"], mem_mb=int(need / 1e6) + 1, nprocs=8)
    assert workers_within(*networks[0], Reduction(), enough) == 3


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
    activations.write_rdms(network, out, config=config(tmp_path), map=serial)
    path = next((tmp_path / "out" / "stimuli").glob("*_relmat.h5"))
    written = path.stat().st_mtime_ns
    ensure(tmp_path, pictures, "ab", ["fc"])
    activations.write_rdms(network, out, config=config(tmp_path), map=serial)
    assert path.stat().st_mtime_ns == written
    ids, rdms = read_rdms(path)
    assert ids == x.ids
    assert list(rdms) == ["conv1", "fc"]
    np.testing.assert_array_equal(rdms["fc"], x.groups[1].rdm())
    ensure(tmp_path, pictures, "ab", ["conv2"])
    activations.write_rdms(network, out, config=config(tmp_path), map=serial)
    assert list(read_rdms(path)[1]) == ["conv1", "conv2", "fc"]


def test_too_many_stimuli_for_one_rdm(tmp_path, pictures, monkeypatch, caplog):
    monkeypatch.setattr(activations, "MOST_STIMULI_FOR_RDM", 3)
    ((network, _),) = activations.build_networks(config(tmp_path))
    ensure(tmp_path, pictures, "abcd")
    activations.write_rdms(network, Derivatives(tmp_path / "out"), config=config(tmp_path), map=serial)
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
