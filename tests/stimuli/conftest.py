from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


def write_film(path: Path, frames: np.ndarray, fps: int = 10, *, faststart: bool = False) -> Path:
    """A film of nearly lossless frames, with a key frame every five."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv444p"
        stream.options = {"crf": "1", "g": "5"}
        for values in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")))
        container.mux(stream.encode())
    return path


def greys(n: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Frame number k is of grey 10 k."""
    return np.broadcast_to((10 * np.arange(n, dtype=np.uint8))[:, None, None, None], (n, *size, 3))


@pytest.fixture
def film(tmp_path):
    return write_film(tmp_path / "film.mp4", greys(20))
