"""Sounds as one row of samples: a whole recording, or the part of it that a clip is."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import resample_poly

from bidsdnn.errors import DataError
from bidsdnn.stimuli.files import missing, reason

BLOCK = 1 << 20
_UNKNOWN_LENGTH = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes in headers of recordings that were written as a stream."""


class Sound(NamedTuple):
    """Samples of a clip.

    Parameters
    ----------
    samples : ndarray of float32, shape (n_samples,)
        From -1 to 1.
    rate : int
        Samples a second.
    """

    samples: np.ndarray
    rate: int


def load_audio(
    path: Path, start: float | None = None, stop: float | None = None, *, rate: int | None = None, mono: bool = False
) -> Sound:
    """Read a sound, or a clip of it, as one channel of float32 samples.

    Parameters
    ----------
    path : Path
        Any format that libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF.
    start, stop : float, optional
        Seconds.
    rate : int, optional
        Samples a second to resample to, by a polyphase filter (`scipy.signal.resample_poly`); default: the file's.
    mono : bool
        Whether several channels are averaged; otherwise they are an error.

    Returns
    -------
    Sound

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If the file is no sound, has several channels, or ends before the clip does.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with soundfile.SoundFile(path) as file:
            own, length = file.samplerate, file.frames / file.samplerate
            begin, end = start or 0.0, length if stop is None else stop
            first, last = round(begin * own), round(end * own)
            if last <= first or last > file.frames + 1:
                raise DataError(
                    f"{path}: a clip from {begin:g} to {end:g} s of a sound of {length:g} s is too short or leaves it; "
                    "correct the events or clip_duration"
                )
            _check_channels(path, file.channels, mono=mono)
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not a readable sound ({reason(error, path)}); replace the file") from error
    if len(samples) < min(last, file.frames) - first:
        raise DataError(f"{path}: samples end after {len(samples)}; the sound is truncated, replace the file")
    sound = Sound(samples.mean(axis=1), own)
    if not np.isfinite(sound.samples).all():
        raise DataError(f"{path}: samples that are not finite; replace the file")
    return sound if rate is None else resampled(sound, rate)


def resampled(sound: Sound, rate: int) -> Sound:
    """Bring a sound to another rate by a polyphase filter.

    Parameters
    ----------
    sound : Sound
    rate : int

    Returns
    -------
    Sound
    """
    if rate < 1:
        raise ValueError(f"rate: expected samples a second, got {rate}")
    if rate == sound.rate:
        return sound
    ratio = Fraction(rate, sound.rate)
    samples = resample_poly(sound.samples.astype(np.float64), ratio.numerator, ratio.denominator)
    return Sound(samples.astype(np.float32), rate)


def audio_length(path: Path) -> float:
    """Seconds that a sound says it lasts.

    Parameters
    ----------
    path : Path

    Returns
    -------
    float

    Raises
    ------
    MissingInputError, DataError
        As `load_audio`.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with soundfile.SoundFile(path) as file:
            return file.frames / file.samplerate
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not a readable sound ({reason(error, path)}); replace the file") from error


def _check_channels(path: Path, channels: int, *, mono: bool) -> None:
    if channels > 1 and not mono:
        raise DataError(f"{path}: {channels} channels where a network hears one; average them by --mono, or store one")


def check_audio(path: Path, *, mono: bool = False) -> None:
    """Read a sound to its end.

    Parameters
    ----------
    path : Path
    mono : bool
        As `load_audio`.

    Raises
    ------
    MissingInputError, DataError
        As `load_audio`, also if a WAV file is shorter than its header says.
    """
    if not path.is_file():
        raise missing(path)
    _check_riff(path)
    try:
        with soundfile.SoundFile(path) as file:
            _check_channels(path, file.channels, mono=mono)
            seen = sum(len(block) for block in file.blocks(BLOCK, dtype="float32", always_2d=True))
            declared = file.frames
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not a readable sound ({reason(error, path)}); replace the file") from error
    if not seen:
        raise DataError(f"{path}: a sound without samples; replace the file")
    if seen < declared:
        raise DataError(f"{path}: {seen} of {declared} samples are there; the sound is truncated, replace the file")


def _check_riff(path: Path) -> None:
    """Libsndfile trusts the file's size over the header's, and reads a truncated WAV without a word."""
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) == 12 and head[:4] == b"RIFF" and head[8:] == b"WAVE":
        (size,) = struct.unpack("<I", head[4:8])
        there = path.stat().st_size
        if size not in _UNKNOWN_LENGTH and size + 8 > there + 1:
            raise DataError(f"{path}: {there} of {size + 8} bytes are there; the sound is truncated, replace the file")
