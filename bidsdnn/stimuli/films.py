"""Films as arrays of frames: a whole film, or the part of it that a clip is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from bidsdnn.errors import DataError
from bidsdnn.stimuli.files import missing, reason

LARGEST_CLIP = 4 * 2**30
"""Bytes of frames that one clip may hold."""


class Film(NamedTuple):
    """Frames of a clip.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n_frames, height, width, 3)
        RGB.
    fps : float
        Frames a second.
    """

    frames: np.ndarray
    fps: float


def load_video(
    path: Path,
    start: float | None = None,
    stop: float | None = None,
    *,
    frames: int | None = None,
    rate: float | None = None,
) -> Film:
    """Decode a film, or a clip of it, to 8-bit RGB frames in the order in which they are shown.

    The camera's rotation is applied. Sampled frames are those on the screen at the times asked for; only they are
    kept in memory.

    Parameters
    ----------
    path : Path
        Any format that FFmpeg reads; the first video stream is taken, sound is not.
    start, stop : float, optional
        Seconds from the film's first frame; frames that begin in [start, stop) are taken.
    frames : int, optional
        That many frames, at the middles of as many equal parts of the clip.
    rate : float, optional
        A frame every ``1 / rate`` seconds, the first at `start`.

    Returns
    -------
    Film

    Raises
    ------
    ValueError
        If both `frames` and `rate` are given, or one is not positive.
    MissingInputError
        If the file is not there.
    DataError
        If the file is no film or truncated, the clip reaches beyond its end, or is larger than 4 GiB.
    """
    if (frames is not None and rate is not None) or (frames or rate or 1) <= 0:
        raise ValueError(f"frames, rate: expected one of them, above 0, got {frames}, {rate}")
    if not path.is_file():
        raise missing(path)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            fps, length = float(stream.average_rate or 0) or 1.0, _length(container, stream)
            begin, end = _bounds(path, start, stop, length, fps)
            if frames is not None:
                fps = frames / (end - begin)
                wanted = begin + (np.arange(frames) + 0.5) / fps
            elif rate is not None:
                fps, wanted = rate, begin + np.arange(max(1, round((end - begin) * rate - 1e-6))) / rate
            else:
                wanted = None
            return Film(_stacked(path, _frames(container, stream, begin), begin, end, wanted), fps)
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: not a readable film ({reason(error, path)}); replace the file") from error


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError(f"{path}: no picture in this file; replace it, or use a network for audio")
    return container.streams.video[0]


def _length(container: Any, stream: Any) -> float:
    """Seconds that a film says it lasts; infinite if it says nothing."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else np.inf


def _bounds(path: Path, start: float | None, stop: float | None, length: float, fps: float) -> tuple[float, float]:
    begin = start or 0.0
    end = length if stop is None else stop
    if end <= begin or end > length + 1.5 / fps:
        raise DataError(
            f"{path}: a clip from {begin:g} to {end:g} s of a film of {length:g} s; correct the events or clip_duration"
        )
    if not np.isfinite(end):
        raise DataError(f"{path}: the film does not say how long it lasts; copy it to MP4 or Matroska")
    return begin, min(end, length) if stop is None else end


def _frames(container: Any, stream: Any, begin: float) -> Iterator[tuple[float, Any]]:
    """Frames with their times since the film's first, from the last key frame before `begin` on."""
    origin = stream.start_time or 0
    if begin > 0:
        container.seek(origin + int(Fraction(begin) / stream.time_base), stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts is not None:
            yield float((frame.pts - origin) * stream.time_base), frame


def _stacked(
    path: Path, found: Iterator[tuple[float, Any]], begin: float, end: float, wanted: np.ndarray | None
) -> np.ndarray:
    """Frames of a clip; at the wanted times, if there are any."""
    kept: list[np.ndarray] = []
    before: Any = None
    last, size, slack = begin, 0, 1e-6
    for time, frame in found:
        last = max(last, time + (float(frame.duration * frame.time_base) if frame.duration else 0.0))
        if wanted is None:
            if time >= end - slack:
                break
            if time >= begin - slack:
                kept.append(_rgb(frame))
        else:
            while len(kept) < len(wanted) and time > wanted[len(kept)] + slack:
                kept.append(_rgb(before if before is not None else frame))
            before = frame
            if len(kept) == len(wanted):
                break
        size = len(kept) * (kept[0].nbytes if kept else 0)
        if size > LARGEST_CLIP:
            raise DataError(
                f"{path}: frames from {begin:g} to {end:g} s need more than {LARGEST_CLIP >> 30} GiB; cut the film "
                "into clips, as with clip_duration = 2.0"
            )
    if wanted is not None and before is not None:
        while len(kept) < len(wanted) and wanted[len(kept)] <= last + slack:
            kept.append(_rgb(before))
    if not kept or (wanted is not None and len(kept) < len(wanted)):
        raise DataError(f"{path}: frames end at {last:g} s, before {end:g} s; the film is truncated, replace the file")
    return np.stack(kept)


def _rgb(frame: Any) -> np.ndarray:
    turned = np.rot90(frame.to_ndarray(format="rgb24"), (getattr(frame, "rotation", 0) or 0) // 90)
    return np.ascontiguousarray(turned)


def video_length(path: Path) -> float:
    """Seconds that a film says it lasts.

    Parameters
    ----------
    path : Path

    Returns
    -------
    float

    Raises
    ------
    MissingInputError, DataError
        As `load_video`.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with av.open(str(path)) as container:
            return _length(container, _stream(container, path))
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: not a readable film ({reason(error, path)}); replace the file") from error


def frame_times(path: Path) -> np.ndarray:
    """Seconds from a film's first frame at which each frame begins, and at which the last one ends.

    Packets are read, nothing is decoded.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ndarray, shape (n_frames + 1,)

    Raises
    ------
    MissingInputError, DataError
        As `load_video`.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            origin = stream.start_time or 0
            lasts = {p.pts: p.duration or 0 for p in container.demux(stream) if p.pts is not None and p.pts >= origin}
            scale, rate = float(stream.time_base), float(stream.average_rate or 0) or 1.0
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: not a readable film ({reason(error, path)}); replace the file") from error
    if not lasts:
        raise DataError(f"{path}: a film without frames; replace the file")
    begins = np.array(sorted(lasts))
    return np.append((begins - origin) * scale, (begins[-1] - origin + (lasts[begins[-1]] or 1 / rate / scale)) * scale)


def check_video(path: Path) -> None:
    """Read a film's packets to its end, and decode its first frame.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingInputError, DataError
        As `load_video`, also if packets end before the time that the film says it lasts.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            length, fps = _length(container, stream), float(stream.average_rate or 0) or 1.0
            next(container.decode(stream))
            container.seek(0)
            ends = [
                p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None and not p.is_corrupt
            ]
            seen = float((max(ends, default=0) - (stream.start_time or 0)) * stream.time_base)
    except (av.error.FFmpegError, StopIteration) as error:
        raise DataError(f"{path}: not a readable film ({reason(error, path)}); replace the file") from error
    if np.isfinite(length) and seen < length - max(2 / fps, 0.1):
        raise DataError(f"{path}: frames end at {seen:g} of {length:g} s; the film is truncated, replace the file")
