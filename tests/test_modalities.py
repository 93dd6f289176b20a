"""Films and sounds from BIDS to scores: clips, planted light and loudness, and files that cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import soundfile
from nilearn.glm.first_level import spm_hrf

from bidsdnn.bids.files import read_json, read_table
from bidsdnn.cli import main
from tests.stimuli.conftest import write_film

pytestmark = pytest.mark.usefixtures("undrawn")

TR, CLIP, PARTS, VOLUMES = 1.0, 4.0, 12, 72
START = 8.0
SHAPE = (4, 4, 2)


def planted(number: int) -> np.ndarray:
    """How bright, or loud, each clip of a stimulus is."""
    return np.random.default_rng(number).permutation(np.linspace(0.05, 0.95, PARTS))


def write_stimulus(path: Path, number: int) -> None:
    levels = planted(number)
    if path.suffix == ".mp4":
        # Brighter is also fuller of edges: half of the columns stay black.
        grey = np.round(255 * levels ** (1 / 2.2)).astype(np.uint8).repeat(int(CLIP * 5))
        frames = np.zeros((len(grey), 32, 32, 3), np.uint8)
        frames[:, :, ::2] = grey[:, None, None, None]
        write_film(path, frames, fps=5)
    else:
        rate = 4000
        times = np.arange(int(CLIP * PARTS * rate)) / rate
        tone = 0.9 * levels.repeat(int(CLIP * rate)) * np.sin(2 * np.pi * 440 * times)
        soundfile.write(path, tone, rate, subtype="PCM_16")


def write_dataset(root: Path, suffix: str, runs: int = 4) -> Path:
    """A stimulus a run; one half of the voxels follow its planted course, the other half are noise."""
    func, prepared = root / "sub-01" / "func", root / "derivatives" / "fmriprep" / "sub-01" / "func"
    for folder in (func, prepared, root / "stimuli"):
        folder.mkdir(parents=True)
    for folder in (root, prepared.parents[1]):
        (folder / "dataset_description.json").write_text(json.dumps({"Name": "clips", "BIDSVersion": "1.10.0"}))
    rng = np.random.default_rng(0)
    for number in range(1, runs + 1):
        write_stimulus(root / "stimuli" / f"s{number}{suffix}", number)
        course = np.zeros(VOLUMES)
        course[int(START) : int(START + CLIP * PARTS)] = planted(number).repeat(int(CLIP / TR))
        response = np.convolve(course, spm_hrf(TR, 1))[:VOLUMES]
        bold = 500 + 0.3 * rng.standard_normal((VOLUMES, np.prod(SHAPE)))
        bold[:, : bold.shape[1] // 2] += 5 * response[:, None]
        stem = f"sub-01_task-film_run-{number}"
        image = nib.Nifti1Image(bold.T.reshape(*SHAPE, VOLUMES).astype(np.float32), np.diag([3, 3, 3, 1]))
        image.header.set_zooms((3, 3, 3, TR))
        image.to_filename(prepared / f"{stem}_desc-preproc_bold.nii.gz")
        mask = nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), np.diag([3, 3, 3, 1]))
        mask.to_filename(prepared / f"{stem}_desc-brain_mask.nii.gz")
        about = json.dumps({"RepetitionTime": TR, "StartTime": 0.0})
        (prepared / f"{stem}_desc-preproc_bold.json").write_text(about)
        events = pd.DataFrame({"onset": [START], "duration": [CLIP * PARTS], "stim_file": [f"s{number}{suffix}"]})
        events.to_csv(func / f"{stem}_events.tsv", sep="\t", index=False)
    codes = np.repeat([1, 2], np.prod(SHAPE) // 2).astype(np.int16).reshape(SHAPE)
    nib.Nifti1Image(codes, np.diag([3, 3, 3, 1])).to_filename(root.parent / "atlas-halves_dseg.nii.gz")
    table = pd.DataFrame({"index": [1, 2], "name": ["driven", "noise"]})
    table.to_csv(root.parent / "atlas-halves_dseg.tsv", sep="\t", index=False)
    (root.parent / "clips.toml").write_text(f"clip_duration = {CLIP}\nhigh_pass = 1000.0\n")
    return root


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {
        kind: write_dataset(tmp_path_factory.mktemp(kind) / "bids", suffix)
        for kind, suffix in (("video", ".mp4"), ("audio", ".wav"))
    }


def options(root: Path, *more: str) -> list[str]:
    return [
        "--network", "none", "--atlas", str(root.parent / "atlas-halves_dseg.nii.gz"), "--confounds", "none",
        "--config-file", str(root.parent / "clips.toml"), "--nprocs", "1", "--permutations", "50", *more,
    ]  # fmt: skip


def scores(out: Path, name: str) -> pd.Series:
    found = read_table(next(out.glob(f"sub-01/func/*atlas-halves_model-{name}_desc-encoding_results.tsv")))
    assert set(found["layer"]) == {name}
    return found.set_index("region")["pearsonr"].astype(float)


@pytest.mark.parametrize(("kind", "feature"), [("video", "luminance"), ("audio", "envelope")])
def test_clips_of_films_and_sounds_reach_the_scores(datasets, tmp_path, kind, feature):
    root, out = datasets[kind], tmp_path / "out"
    more = ("--analysis", "encoding", "--features", feature, "position")
    assert main([str(root), str(out), "participant", *options(root, *more)]) == 0
    found = scores(out, feature)
    assert found["driven"] > 0.6 and abs(found["noise"]) < 0.4
    assert found["driven"] > scores(out, "position")["driven"] + 0.3
    manifest = read_table(out / "stimuli" / "stimuli.tsv")
    suffix = {"video": ".mp4", "audio": ".wav"}[kind]
    assert len(manifest) == 4 * PARTS and set(manifest["type"]) == {kind}
    assert f"s1{suffix}@44" in set(manifest["stimulus_id"])
    about = read_json(next(out.glob("sub-01/func/*desc-encoding_results.json")))
    assert "Features computed from the stimuli" in about["Methods"]
    kept = out / "stimuli" / f"model-{feature}_activations.h5"
    before = kept.stat().st_mtime_ns
    assert main([str(root), str(out), "participant", *options(root, *more)]) == 0
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(("kind", "feature"), [("video", "luminance"), ("audio", "envelope")])
def test_features_of_films_and_sounds_are_joined_to_volumes_by_time(datasets, tmp_path, kind, feature):
    root, out = datasets[kind], tmp_path / "out"
    (tmp_path / "c.toml").write_text("high_pass = 1000.0\nclip_duration = 3.0\n")
    more = ("--analysis", "encoding", "--response", "timeseries", "--features", feature, "position")
    given = [*options(root, *more), "--config-file", str(tmp_path / "c.toml")]
    assert main([str(root), str(out), "participant", *given]) == 0
    found = scores(out, feature)
    assert found["driven"] > 0.6 and abs(found["noise"]) < 0.3
    assert found["driven"] > scores(out, "position")["driven"] + 0.3
    manifest = read_table(out / "stimuli" / "stimuli.tsv")
    assert len(manifest) == 4 * round(CLIP * PARTS / 3) and set(manifest["type"]) == {kind}
    said = read_json(next(out.glob("sub-01/func/*desc-encoding_results.json")))["Methods"]
    assert "computed of clips of 3 s" in said and f"{feature}, position convolved with the spm response" in said


def test_moments_of_pictures_are_refused(finished, tmp_path, capsys):
    given = ["--network", "none", "--response", "timeseries", "--analysis", "encoding", "--features", "luminance"]
    assert main([str(finished.bids), str(tmp_path / "out"), "participant", *given, "--nprocs", "1"]) == 2
    assert "is no film or sound, of which --response timeseries has moments" in capsys.readouterr().err


def test_a_feature_of_another_kind_than_the_folders_is_refused(datasets, tmp_path, capsys):
    root = tmp_path / "bids"
    shutil.copytree(datasets["video"] / "stimuli", root / "stimuli")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "clips", "BIDSVersion": "1.10.0"}))
    given = ["--network", "none", "--nprocs", "1", "--features", "position", "mel"]
    assert main([str(root), str(tmp_path / "out"), "dnn", *given]) == 2
    assert "--features mel: computed of audio, of which there are none" in capsys.readouterr().err


def test_the_dnn_level_computes_features_of_a_folder(datasets, tmp_path):
    root = tmp_path / "bids"
    shutil.copytree(datasets["video"] / "stimuli", root / "stimuli")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "clips", "BIDSVersion": "1.10.0"}))
    given = ["--network", "none", "--nprocs", "1", "--features", "contrast", "position"]
    assert main([str(root), str(tmp_path / "out"), "dnn", *given]) == 0
    for name in ("contrast", "position"):
        about = read_json(tmp_path / "out" / "stimuli" / f"model-{name}_activations.json")
        assert list(about["Stimuli"]) == ["s1.mp4", "s2.mp4", "s3.mp4", "s4.mp4"]


def test_a_network_refuses_stimuli_of_another_kind(datasets, tmp_path, capsys):
    root = datasets["video"]
    given = [*options(root), "--network", "demo"]
    assert main([str(root), str(tmp_path / "out"), "participant", *given]) != 0
    assert "takes image, and 48 of 48 stimuli are not: s1.mp4 is video; name a network" in capsys.readouterr().err
    given = [*options(root), "--features", "mel"]
    assert main([str(root), str(tmp_path / "out"), "participant", *given]) != 0
    assert "--features mel: computed of audio, not of video" in capsys.readouterr().err
    assert main([str(root), str(tmp_path / "out"), "participant", *options(root), "--features", "mell"]) != 0
    assert "--features mell: " in capsys.readouterr().err


def test_unreadable_stimuli_stop_the_run_or_are_left_out(datasets, tmp_path, capsys, caplog):
    root = shutil.copytree(datasets["audio"], tmp_path / "bids")
    for name in ("atlas-halves_dseg.nii.gz", "atlas-halves_dseg.tsv", "clips.toml"):
        shutil.copy(datasets["audio"].parent / name, tmp_path / name)
    content = (root / "stimuli" / "s2.wav").read_bytes()
    (root / "stimuli" / "s2.wav").write_bytes(content[: len(content) // 2])
    given = options(root, "--analysis", "encoding", "--features", "envelope")
    assert main([str(root), str(tmp_path / "out"), "participant", *given]) != 0
    said = capsys.readouterr().err
    assert "s2.wav: " in said and "the sound is truncated" in said and "--skip-unreadable" in said
    assert not list((tmp_path / "out").glob("sub-01/func/*"))
    assert main([str(root), str(tmp_path / "out"), "participant", *given, "--skip-unreadable"]) == 0
    assert "left out: " in caplog.text and "s2.wav" in caplog.text
    manifest = read_table(tmp_path / "out" / "stimuli" / "stimuli.tsv")
    assert len(manifest) == 3 * PARTS and not manifest["stimulus_id"].str.startswith("s2").any()
    about = read_json(tmp_path / "out" / "stimuli" / "model-envelope_activations.json")
    assert {name.partition("@")[0] for name in about["LeftOut"]} == {"s2.wav"}
    assert scores(tmp_path / "out", "envelope")["driven"] > 0.6
    assert "could not be read left out with their trials" in (tmp_path / "out" / "sub-01.html").read_text("utf-8")


def test_stereo_needs_an_option(datasets, tmp_path, capsys):
    root = tmp_path / "bids"
    (root / "stimuli").mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "two", "BIDSVersion": "1.10.0"}))
    for number in (1, 2):
        tone = np.random.default_rng(number).normal(0, 0.1, (8000, 2))
        soundfile.write(root / "stimuli" / f"s{number}.wav", tone, 8000)
    given = [str(root), str(tmp_path / "out"), "dnn", "--network", "none", "--features", "mel", "--nprocs", "1"]
    assert main(given) != 0
    assert "2 channels where a network hears one; average them by --mono" in capsys.readouterr().err
    assert main([*given, "--mono"]) == 0
