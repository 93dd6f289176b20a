"""What each modality's files are read by, and how long they last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bidsdnn.stimuli.films import check_video, load_video, video_length
from bidsdnn.stimuli.images import check_image, load_image
from bidsdnn.stimuli.sounds import audio_length, check_audio, load_audio

LOADERS: dict[str, Callable[..., Any]] = {"image": load_image, "video": load_video, "audio": load_audio}

CHECKS: dict[str, Callable[..., None]] = {"image": check_image, "video": check_video, "audio": check_audio}

LENGTHS: dict[str, Callable[[Path], float]] = {"video": video_length, "audio": audio_length}
