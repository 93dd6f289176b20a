"""Films: frames, clips, sampling, and every way a film can be broken."""

from __future__ import annotations

import numpy as np
import pytest

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import films, load_video
from bidsdnn.stimuli.films import check_video, video_length

from .conftest import write_film


def numbers(found) -> list[int]:
    """Which frame of `greys` each is."""
    assert found.frames.dtype == np.uint8
    return [round(level / 10) for level in found.frames.mean(axis=(1, 2, 3))]


def test_a_whole_film(film):
    found = load_video(film)
    assert (found.frames.shape, found.fps) == ((20, 32, 48, 3), 10.0)
    assert numbers(found) == list(range(20))
    assert video_length(film) == pytest.approx(2.0)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.5), (0.7, 1.3), (1.5, 2.0), (0.25, 0.45)])
def test_a_clip_has_the_frames_that_begin_in_it(film, start, stop):
    expected = [k for k in range(20) if start <= k / 10 < stop]
    assert numbers(load_video(film, start, stop)) == expected


@pytest.mark.parametrize("n", [1, 4, 7, 16, 20, 33])
def test_uniform_frames_are_those_at_the_middles_of_equal_parts(film, n):
    found = load_video(film, frames=n)
    times = (np.arange(n) + 0.5) * 2 / n
    assert numbers(found) == np.minimum(np.floor(times * 10 + 1e-6), 19).astype(int).tolist()
    assert found.fps == pytest.approx(n / 2)
    clip = load_video(film, 0.5, 1.5, frames=n)
    assert numbers(clip) == np.floor((0.5 + (np.arange(n) + 0.5) / n) * 10 + 1e-6).astype(int).tolist()


@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0, 20.0])
def test_frames_at_a_rate(film, rate):
    found = load_video(film, 1.0, 2.0, rate=rate)
    assert numbers(found) == np.floor((1 + np.arange(int(rate)) / rate) * 10 + 1e-6).astype(int).tolist()
    assert found.fps == rate


def test_colours_are_red_green_blue(tmp_path):
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    frames[..., 0] = 200
    found = load_video(write_film(tmp_path / "red.mp4", frames)).frames
    assert np.abs(found.astype(int) - frames).max() <= 8


def test_sampling_is_one_or_the_other(film):
    with pytest.raises(ValueError, match="one of them"):
        load_video(film, frames=3, rate=2.0)
    with pytest.raises(ValueError, match="above 0"):
        load_video(film, frames=-1)


@pytest.mark.parametrize(("start", "stop"), [(1.0, 5.0), (1.0, 1.0), (3.0, None)])
def test_a_clip_that_leaves_its_film(film, start, stop):
    with pytest.raises(DataError, match=r"film\.mp4: a clip from .* of a film of 2 s"):
        load_video(film, start, stop)


def test_a_clip_too_large_for_memory(film, monkeypatch):
    monkeypatch.setattr(films, "LARGEST_CLIP", 5 * 32 * 48 * 3)
    assert len(load_video(film, 0, 0.5).frames) == 5
    with pytest.raises(DataError, match="cut the film into clips"):
        load_video(film)


def test_missing_empty_and_other_files(tmp_path):
    with pytest.raises(MissingInputError, match="check the stimuli folder"):
        load_video(tmp_path / "a.mp4")
    for content in (b"", b"no film at all" * 50):
        (tmp_path / "b.mp4").write_bytes(content)
        for function in (load_video, check_video, video_length):
            with pytest.raises(DataError, match=r"b\.mp4: not a readable film"):
                function(tmp_path / "b.mp4")


@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_films_are_found_by_the_check_and_by_loading(tmp_path, faststart, share):
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), dtype=np.uint8)
    content = write_film(tmp_path / "whole.mp4", noise, faststart=faststart).read_bytes()
    check_video(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(content[: int(share * len(content))])
    for function in (check_video, load_video):
        with pytest.raises(DataError, match=r"cut\.mp4: .*replace the file"):
            function(tmp_path / "cut.mp4")


def test_a_film_without_pictures(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    with pytest.raises(DataError, match="no picture in this file"):
        load_video(tmp_path / "sound.wav")
