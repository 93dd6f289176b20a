"""What was shown: a table of clips on disk (`table`), and the loaders that turn one into pixels, frames or samples."""

from bidsdnn.stimuli.checks import readable, unreadable
from bidsdnn.stimuli.files import MODALITIES, file_sha256, modality
from bidsdnn.stimuli.films import Film, frame_times, load_video
from bidsdnn.stimuli.images import load_image
from bidsdnn.stimuli.loaders import LENGTHS, LOADERS
from bidsdnn.stimuli.looks import look, pixels, thumbnail, write_png
from bidsdnn.stimuli.sounds import Sound, load_audio, resampled
from bidsdnn.stimuli.table import Stimuli, clip, clips_in

__all__ = [
    "LENGTHS",
    "LOADERS",
    "MODALITIES",
    "Film",
    "Sound",
    "Stimuli",
    "clip",
    "clips_in",
    "file_sha256",
    "frame_times",
    "load_audio",
    "load_image",
    "load_video",
    "look",
    "modality",
    "pixels",
    "readable",
    "resampled",
    "thumbnail",
    "unreadable",
    "write_png",
]
