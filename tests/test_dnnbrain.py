"""DNNBrain's users bring their files: the page's example runs, and gives what this program's own files give."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bidsdnn import commands
from bidsdnn.bids.arrays import read_activations, read_rdms, write_rdms
from bidsdnn.bids.dnnbrain import StimFile, read_act, read_rdm, read_stim, stimuli_of, write_rdm, write_roi, write_stim
from bidsdnn.bids.dnnbrain.convert import convert
from bidsdnn.bids.files import read_table, write_json
from bidsdnn.cli import main
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks import zoo
from bidsdnn.networks.recorder import Recorder
from bidsdnn.stimuli import load_video
from tests.stimuli.conftest import greys, write_film

PAGE = (Path(__file__).parents[1] / "docs" / "dnnbrain.md").read_text(encoding="utf-8")
MODEL = "model-demo+none+seed0"
FAST = ["--permutations", "100", "--nprocs", "1"]


@pytest.fixture(scope="module")
def ran(finished, tmp_path_factory):
    """The folder in which the page's example ran; stimuli in an order that no sorting gives."""
    folder = tmp_path_factory.mktemp("dnnbrain")
    (folder / "study" / "sub-01").mkdir(parents=True)
    shutil.copy(finished.bids / "dataset_description.json", folder / "study")
    shutil.copytree(finished.bids / "stimuli", folder / "pictures")
    (folder / "theirs").mkdir()
    ids, rdms = read_rdms(finished.out / "stimuli" / f"{MODEL}_stat-correlation_relmat.h5")
    rng = np.random.default_rng(1)
    order = rng.permutation(len(ids))
    names = [ids[row] for row in order]
    times = {"onset": np.arange(len(names)) * 3.0, "duration": np.ones(len(names))}
    table = pd.DataFrame({"stimID": names, **times, "condition": [name.split("_")[0] for name in names]})
    table.loc[0, "condition"] = ""
    for path in (folder / "objects.stim.csv", folder / "theirs" / "it.stim.csv"):
        write_stim(path, StimFile("image", "pictures", table))
    # The region follows the layer conv5: its responses are mixtures of the layer's units.
    _, (layer,) = read_activations(finished.out / "stimuli" / f"{MODEL}_activations.h5", ["conv5"])
    units = layer[:, :]
    units = (units - units.mean(axis=0)) @ rng.normal(size=(units.shape[1], 8))
    values = (units / units.std(axis=0) + 0.1 * rng.normal(size=units.shape))[order]
    write_roi(folder / "theirs" / "it.roi.h5", [f"IT{number}" for number in range(8)], values)
    first, second = np.triu_indices(len(ids), 1)
    square = np.zeros((len(ids), len(ids)))
    square[first, second] = square[second, first] = rdms["conv5"]
    write_rdm(folder / "theirs" / "it.rdm.h5", "bRDM", {"IT": square[np.ix_(order, order)][first, second]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in re.search(r"```sh\n(.*?)```", PAGE, flags=re.S)[1].splitlines():
            command, *words = shlex.split(line, comments=True) or [""]
            if command == "bidsdnn":
                assert main([*words, *FAST]) == 0, line
            elif command:
                assert getattr(commands, command.removeprefix("bidsdnn-"))(words) == 0, line
    return folder


def test_the_examples_activations_are_dnnbrains(ran, finished):
    ids, stored = read_activations(ran / "out" / "stimuli" / f"{MODEL}_activations.h5", ["conv1", "conv5"])
    assert ids == read_stim(ran / "objects.stim.csv").ids
    theirs = read_act(ran / "mine.act.h5")
    assert theirs.ids == ids
    with h5py.File(ran / "mine.act.h5") as file:
        assert next(iter(file)) == "conv1"
        for name, layer in zip(("conv1", "conv5"), stored, strict=True):
            assert file[name].shape == (len(ids), *layer.unit_shape, 1, 1)[:4]
            np.testing.assert_array_equal(file[name][()].reshape(len(ids), -1), layer[:, :])
    assert stimuli_of(ran / "mine.stim.csv").ids == ids
    # Extracted by name, the same pictures have the same activations as in another order.
    first, (again,) = read_activations(finished.out / "stimuli" / f"{MODEL}_activations.h5", ["conv5"])
    np.testing.assert_allclose(stored[1][:, :], again[:, :][[first.index(name) for name in ids]], rtol=1e-4, atol=1e-5)


def test_the_examples_layer_predicts_its_regions(ran):
    found = read_table(ran / "out/sub-01/func/sub-01_task-theirs_model-mine_desc-encoding_results.tsv")
    assert set(found["region"]) == {f"IT{number}" for number in range(8)}
    assert set(found["network"]) == {"mine"}
    best = found.loc[found.groupby("region")["pearsonr"].idxmax()]
    assert (best["pearsonr"] > 0.5).all()
    assert found.groupby("layer")["pearsonr"].mean().idxmax() == "conv5"


def test_the_examples_rdm_is_taken_in_the_order_of_its_table(ran):
    found = read_table(next((ran / "rsa").glob(f"sub-01/func/*{MODEL}_desc-rsa_results.tsv")))
    found = found[found["comparison"] == "spearman"].set_index("layer")["similarity"]
    assert found["conv5"] == pytest.approx(1, abs=1e-4)
    assert found.drop("conv5").max() < 0.99


def test_the_same_rdm_in_another_order_is_another_result(ran, tmp_path):
    out = tmp_path / "rsa"
    shutil.copytree(ran / "rsa", out)
    options = ["--network", "demo", "--rdm", f"IT={ran / 'theirs' / 'it.rdm.h5'}", *FAST]
    stim = ["--stimuli-dir", str(ran / "objects.stim.csv"), "--reports-only"]
    assert main([str(ran / "study"), str(out), "participant", *options, *stim]) == 0
    # A folder's stimuli are in sorted order, which is not the table's.
    assert main([str(ran / "study"), str(out), "participant", *options, "--stimuli-dir", str(ran / "pictures")]) == 0
    found = read_table(next(out.glob(f"sub-01/func/*{MODEL}_desc-rsa_results.tsv")))
    assert found["similarity"].max() < 0.9


def test_the_examples_rdms_and_events(ran):
    kind, rdms = read_rdm(ran / "mine.rdm.h5")
    ids, ours = read_rdms(ran / "out" / "stimuli" / f"{MODEL}_stat-correlation_relmat.h5")
    assert kind == "dRDM"
    assert list(rdms) == list(ours)
    for name, rdm in ours.items():
        np.testing.assert_array_equal(rdms[name], rdm[None])
    assert read_stim(ran / "mine.stim.csv").ids == ids
    events = read_table(ran / "sub-01_task-objects_events.tsv")
    assert list(events) == ["onset", "duration", "stim_file", "trial_type"]
    assert events["stim_file"].tolist() == ids
    assert events["trial_type"].isna().tolist() == [True] + [False] * (len(ids) - 1)


def test_a_table_of_some_pictures_is_all_there_is(ran, finished, tmp_path, capsys):
    stim = read_stim(ran / "objects.stim.csv")
    path = tmp_path / "few.stim.csv"
    write_stim(path, StimFile("image", str(ran / "pictures"), stim.table[:5]))
    # The dataset's events name more pictures; at this level the table counts.
    arguments = [str(finished.bids), str(tmp_path / "out"), "dnn", "--network", "demo", "--nprocs", "1"]
    assert main([*arguments, "--stimuli-dir", str(path)]) == 0
    assert read_activations(tmp_path / "out/stimuli" / f"{MODEL}_activations.h5", ["conv1"])[0] == stim.ids[:5]
    write_stim(path, StimFile("image", str(ran / "nowhere"), stim.table[:5]))
    assert main([*arguments, "--stimuli-dir", str(path)]) == 66
    assert "folder path=" in capsys.readouterr().err


def test_clips_of_a_table_are_stimuli_of_networks_for_films(finished, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    for name in ("b.mp4", "a.mp4"):
        write_film(tmp_path / "clips" / name, greys(6))
    write_stim(tmp_path / "s.stim.csv", StimFile("video_clip", "clips", pd.DataFrame({"stimID": ["b.mp4", "a.mp4"]})))
    given = [str(finished.bids), str(tmp_path / "out"), "dnn", "--stimuli-dir", str(tmp_path / "s.stim.csv"), *FAST]
    assert main([*given, "--network", "none", "--features", "luminance"]) == 0
    ids, _ = read_activations(tmp_path / "out" / "stimuli" / "model-luminance_activations.h5", [])
    assert ids == ["b.mp4", "a.mp4"]
    assert main([*given, "--network", "demo"]) == 66
    assert "s.stim.csv: it lists video and no image; name a network for video" in capsys.readouterr().err


def test_frames_of_a_film_are_pictures_of_networks(finished, tmp_path):
    """From activations by frame to scores of regions, and back to a table of frames."""
    rng = np.random.default_rng(0)
    frames = rng.random((24, 1, 1, 1)) * rng.integers(0, 256, (32, 48, 3))  # one picture at many contrasts
    write_film(tmp_path / "film.mp4", frames.astype(np.uint8))
    numbers = rng.permutation(24)[:20] + 1
    (tmp_path / "theirs").mkdir()
    for path in (tmp_path / "s.stim.csv", tmp_path / "theirs" / "it.stim.csv"):
        write_stim(path, StimFile("video", str(tmp_path / "film.mp4"), pd.DataFrame({"stimID": numbers})))
    out, given = tmp_path / "out", ["--stimuli-dir", str(tmp_path / "s.stim.csv"), "--network", "demo", *FAST]
    assert main([str(finished.bids), str(out), "dnn", *given]) == 0
    ids, (conv1,) = read_activations(out / "stimuli" / f"{MODEL}_activations.h5", ["conv1"])
    assert ids == [str(number) for number in numbers]
    network, film = zoo.build("demo"), load_video(tmp_path / "film.mp4").frames
    batch = torch.stack([network.preprocess(Image.fromarray(film[number - 1])) for number in numbers])
    with Recorder(network.module, ["conv1"]) as record, torch.no_grad():
        np.testing.assert_allclose(conv1[:, :], record(batch)["conv1"].flatten(1), rtol=1e-4, atol=1e-5)
    values = conv1[:, :] @ rng.normal(size=(conv1.shape[1], 2))
    write_roi(tmp_path / "theirs" / "it.roi.h5", ["A", "B"], values)
    (tmp_path / "study" / "sub-01").mkdir(parents=True)
    shutil.copy(finished.bids / "dataset_description.json", tmp_path / "study")
    more = ["--analysis", "encoding", "--response", "precomputed", "-d", f"theirs={tmp_path / 'theirs'}"]
    assert main([str(tmp_path / "study"), str(out), "participant", *more, *given]) == 0
    found = read_table(next(out.glob(f"sub-01/func/*{MODEL}_desc-encoding_results.tsv"))).set_index("layer")
    assert (found.loc["conv1", "pearsonr"] > 0.5).all()
    convert(out / "stimuli" / f"{MODEL}_activations.h5", tmp_path / "back.act.h5", stimuli_dir=tmp_path)
    assert stimuli_of(tmp_path / "back.stim.csv").ids == ids
    assert read_stim(tmp_path / "back.stim.csv").kind == "video"


def test_regions_of_several_runs_are_z_scored_within_them(ran, tmp_path):
    stim = read_stim(ran / "objects.stim.csv").table
    n = len(stim)
    twice = pd.concat([stim.assign(run=1.0), stim[::-1].assign(run=2.0)], ignore_index=True)
    values = np.random.default_rng(0).normal(size=(2 * n, 2)) + np.repeat([0, 50], n)[:, None]
    (tmp_path / "theirs").mkdir()
    write_roi(tmp_path / "theirs" / "sub-01.roi.h5", ["A", "B"], values)
    write_stim(tmp_path / "theirs" / "sub-01.stim.csv", StimFile("image", "x", twice))
    options = ["--response", "precomputed", "-d", f"theirs={tmp_path / 'theirs'}", "--network", "none", *FAST]
    out = tmp_path / "out"
    arguments = [str(ran / "study"), str(out), "participant", "--stimuli-dir", str(ran / "objects.stim.csv"), *options]
    assert main(arguments) == 0
    runs = read_table(out / "sub-01/func/sub-01_task-theirs_desc-quality_results.tsv")
    assert runs["run"].tolist() == ["run-1", "run-2"]
    assert runs["n_trials"].tolist() == [n, n]
    scored = np.vstack([(part - part.mean(axis=0)) / part.std(axis=0) for part in (values[:n], values[n:])])
    expected = pd.DataFrame(scored, columns=["A", "B"]).groupby(twice["stimID"]).mean()
    effect = read_table(out / "sub-01/func/sub-01_task-theirs_stat-effect_desc-condition_statmap.tsv")
    np.testing.assert_allclose(effect[["A", "B"]], expected, atol=1e-5)


def test_regions_of_a_brain_become_a_brdm_and_come_back(tmp_path):
    rdms = {"V1": np.arange(6.0), "IT": np.arange(6.0)[::-1]}
    write_rdms(tmp_path / "x_relmat.h5", rdms, list("dcba"))
    write_json(tmp_path / "x_relmat.json", {"Description": "RDMs"})
    convert(tmp_path / "x_relmat.h5", tmp_path / "x.rdm.h5", stimuli_dir=Path("pictures"))
    kind, read = read_rdm(tmp_path / "x.rdm.h5")
    assert kind == "bRDM"
    assert list(read) == ["V1", "IT"]
    np.testing.assert_array_equal(read["IT"], rdms["IT"])
    stim = read_stim(tmp_path / "x.stim.csv")
    assert (stim.ids, stim.folder) == (list("dcba"), "pictures")


def test_what_cannot_be_converted_is_said(tmp_path, capsys):
    (tmp_path / "x.stim.csv").write_text("type=image\npath=p\ndata=stimID,onset\na.png,1\n")
    with pytest.raises(DataError, match="no column duration"):
        convert(tmp_path / "x.stim.csv", tmp_path / "x_events.tsv", stimuli_dir=Path("p"))
    with pytest.raises(ConfigError, match=r"x\.stim\.csv to x\.act\.h5: no such conversion; there are"):
        convert(tmp_path / "x.stim.csv", tmp_path / "x.act.h5", stimuli_dir=Path("p"))
    write_rdms(tmp_path / "x_relmat.h5", {"a/b": np.arange(6.0)}, list("abcd"))
    with pytest.raises(DataError, match=r"does not fit \.rdm\.h5: 'a/b': expected a name without '/'"):
        convert(tmp_path / "x_relmat.h5", tmp_path / "x.rdm.h5", stimuli_dir=Path("p"))
    assert not (tmp_path / "x.rdm.h5").exists()
    (tmp_path / "x_activations.h5").write_bytes(b"x")
    assert commands.convert([str(tmp_path / "x_activations.h5"), str(tmp_path / "x.act.h5")]) == 65
    assert "no activations of this program" in capsys.readouterr().err
    assert commands.convert([str(tmp_path / "y_activations.h5"), str(tmp_path / "x.act.h5")]) == 66


def test_the_page_has_every_command_of_dnnbrain():
    rows = re.findall(r"^\| `((?:dnn|db|brain)_\w+)` \|", PAGE, flags=re.M)
    assert len(rows) == len(set(rows)) == 24
