"""Sounds: samples, clips, resampling, channels, and every way a sound can be broken."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import Sound, load_audio, resampled
from bidsdnn.stimuli.sounds import audio_length, check_audio

RATE = 8000


def tone(frequency: float = 440.0, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def sound(tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(), RATE, subtype="PCM_16")
    return tmp_path / "tone.wav"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff"])
def test_samples_are_those_written(tmp_path, name):
    soundfile.write(tmp_path / name, tone(), RATE)
    found = load_audio(tmp_path / name)
    assert (found.samples.dtype, found.rate, found.samples.shape) == (np.float32, RATE, (RATE,))
    assert np.abs(found.samples - tone()).max() < (0.05 if name == "a.ogg" else 1e-4)
    assert audio_length(tmp_path / name) == 1.0
    check_audio(tmp_path / name)


def test_a_clip(sound):
    found = load_audio(sound, 0.25, 0.75)
    np.testing.assert_array_equal(found.samples, load_audio(sound).samples[2000:6000])


@pytest.mark.parametrize("rate", [4000, 16000, 11025])
def test_resampling_keeps_a_tone(sound, rate):
    found = load_audio(sound, rate=rate)
    assert (found.rate, len(found.samples)) == (rate, rate)
    expected = tone(rate=rate)
    inner = slice(rate // 10, -rate // 10)  # the filter rings at the ends
    assert np.abs(found.samples - expected)[inner].max() < 2e-3
    assert resampled(found, rate) is found


def test_resampling_removes_what_the_new_rate_cannot_hold():
    high = Sound(tone(3500).astype(np.float32), RATE)
    assert np.abs(resampled(high, 4000).samples[200:-200]).max() < 0.01


def test_stereo_is_refused_or_averaged(tmp_path):
    stereo = np.stack([tone(), 0 * tone()], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    for function in (load_audio, check_audio):
        with pytest.raises(DataError, match=r"two\.wav: 2 channels .* --mono"):
            function(tmp_path / "two.wav")
    check_audio(tmp_path / "two.wav", mono=True)
    assert np.abs(load_audio(tmp_path / "two.wav", mono=True).samples - tone() / 2).max() < 1e-4


@pytest.mark.parametrize(("start", "stop"), [(0.5, 2.0), (0.5, 0.5), (2.0, None)])
def test_a_sound_too_short_for_its_clip(sound, start, stop):
    with pytest.raises(DataError, match=r"tone\.wav: a clip .* of a sound of 1 s is too short"):
        load_audio(sound, start, stop)


def test_empty_missing_and_other_files(tmp_path):
    with pytest.raises(MissingInputError, match="check the stimuli folder"):
        load_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    with pytest.raises(DataError, match="too short"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(DataError, match="without samples"):
        check_audio(tmp_path / "none.wav")
    (tmp_path / "b.wav").write_bytes(b"no sound at all" * 20)
    for function in (load_audio, check_audio, audio_length):
        with pytest.raises(DataError, match=r"b\.wav: not a readable sound"):
            function(tmp_path / "b.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(10, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="not finite"):
        load_audio(tmp_path / "nan.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_truncated_sounds_are_found_by_the_check(tmp_path, suffix, share):
    soundfile.write(tmp_path / f"whole{suffix}", np.random.default_rng(0).normal(0, 0.1, 4 * RATE), RATE)
    content = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=f"cut{suffix}: .*replace the file"):
        check_audio(tmp_path / f"cut{suffix}")
