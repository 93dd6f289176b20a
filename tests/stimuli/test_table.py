"""Clips of films and sounds, stimuli of several modalities, and those that cannot be read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import LENGTHS, LOADERS, Film, Sound, Stimuli, readable, unreadable
from bidsdnn.stimuli.loaders import CHECKS

from .conftest import greys, write_film


@pytest.fixture
def folder(tmp_path):
    write_film(tmp_path / "film.mp4", greys(25))
    soundfile.write(tmp_path / "sound.wav", np.linspace(-0.5, 0.5, 8000), 8000)
    Image.new("RGB", (20, 10), (1, 2, 3)).save(tmp_path / "picture.png")
    return tmp_path


def test_every_modality_has_a_loader_and_a_check():
    assert set(LOADERS) == set(CHECKS) >= set(LENGTHS)


def test_a_folder_gives_the_modalities_asked_for(folder):
    every = Stimuli.from_folder(folder, LOADERS)
    assert dict(zip(every.ids, every.table["modality"], strict=True)) == {
        "film.mp4": "video", "picture.png": "image", "sound.wav": "audio",
    }  # fmt: skip
    assert Stimuli.from_folder(folder, ["video"]).ids == every.of("video").ids == ["film.mp4"]
    kinds = [type(every.read(row)) for row in range(3)]
    assert kinds == [Film, Image.Image, Sound]
    (folder / "film.mp4").unlink()
    with pytest.raises(MissingInputError, match=r"no video in this folder.*\.mp4"):
        Stimuli.from_folder(folder, ["video"])


def test_films_and_sounds_are_cut_into_clips(folder):
    clips = Stimuli.from_folder(folder, LOADERS).cut(0.5)
    films = [f"film.mp4@{start}" for start in ("0", "0.5", "1", "1.5", "2")]
    assert clips.ids == [*films, "picture.png", "sound.wav@0", "sound.wav@0.5"]
    frames = clips.read(3).frames
    assert [round(level / 10) for level in frames.mean(axis=(1, 2, 3))] == [15, 16, 17, 18, 19]
    np.testing.assert_allclose(clips.read(7).samples, np.linspace(-0.5, 0.5, 8000)[4000:], atol=1e-4)
    assert clips.clips[5] == (None, None)
    assert clips.cut(0.1).ids == clips.cut(0.5).ids[:5] + clips.ids[5:]  # clips stay what they are
    assert Stimuli.from_folder(folder, ["video"]).cut(1.0).ids == ["film.mp4@0", "film.mp4@1"]
    assert Stimuli.from_folder(folder, ["video"]).cut(9.0).ids == ["film.mp4"]


def test_a_last_clip_goes_to_the_end(folder):
    films = Stimuli.from_folder(folder, ["video"])
    (length,) = {round(LENGTHS["video"](path), 6) for path in films.paths[:1]}
    for seconds in (0.6 * length, 0.5 * length, 2 * length):
        clips = films.select(films.ids[:1]).cut(seconds, to_end=True)
        assert clips.clips[0][0] == 0 and clips.clips[-1][1] == pytest.approx(length)
        assert all(stop - start == pytest.approx(min(seconds, length)) for start, stop in clips.clips)
        assert len(clips.read(len(clips) - 1).frames)


def test_clips_of_one_film_have_different_hashes(folder):
    hashed = Stimuli.from_folder(folder, LOADERS).cut(1.0).with_hashes()
    assert hashed.table["sha256"].nunique() == len(hashed)
    plain = hashlib.sha256((folder / "picture.png").read_bytes()).hexdigest()
    assert hashed.table.set_index("stimulus_id")["sha256"]["picture.png"] == plain
    again = Stimuli.from_folder(folder, LOADERS).cut(1.0).select(["film.mp4@1"]).with_hashes()
    assert again.table["sha256"][0] == hashed.table.set_index("stimulus_id")["sha256"]["film.mp4@1"]


def test_unreadable_stimuli_are_named_before_anything_else(folder):
    for name in ("film.mp4", "picture.png", "sound.wav"):
        content = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(content[: int(0.6 * len(content))])
    every = Stimuli.from_folder(folder, LOADERS)
    found = unreadable(every, workers=2)
    assert list(found) == ["cut_film.mp4", "cut_picture.png", "cut_sound.wav"]
    assert all(str(folder / name) in said for name, said in found.items())
    with pytest.raises(DataError, match=r"cut_film\.mp4: .*3 of 6 stimuli .*--skip-unreadable"):
        readable(every, skip=False)
    kept, said = readable(every, skip=True)
    assert kept.ids == ["film.mp4", "picture.png", "sound.wav"]
    assert said == list(found.values())
    with pytest.raises(DataError, match="no stimulus can be read"):
        readable(every.select(list(found)), skip=True)


def test_content_that_was_read_before_is_not_read_again(folder, monkeypatch):
    stimuli = Stimuli.from_folder(folder, LOADERS).with_hashes()
    seen = []
    monkeypatch.setitem(CHECKS, "image", seen.append)
    readable(stimuli, skip=False, known=stimuli.table["sha256"])
    assert seen == []
    readable(stimuli, skip=False, known=stimuli.of("video", "audio").table["sha256"])
    assert [path.name for path in seen] == ["picture.png"]


def test_a_clip_that_leaves_its_film_is_unreadable(folder):
    table = pd.DataFrame({"stimulus_id": ["a", "b"], "filename": "film.mp4", "modality": "video", "sha256": ""})
    stimuli = Stimuli(table.assign(start=[0.0, 2.0], stop=[2.5, 4.0]), Path(folder))
    assert list(unreadable(stimuli)) == ["b"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif"])
def test_the_check_of_pictures_finds_what_loading_would(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: len(content) // 2])
    assert list(unreadable(Stimuli.from_folder(tmp_path))) == [f"cut{suffix}"]
