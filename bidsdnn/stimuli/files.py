"""What all modalities share: kinds of files, hashes of their content, and how to say that one is not there."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from bidsdnn.errors import MissingInputError

MODALITIES = {
    "image": ".jpg .jpeg .png .bmp .tif .tiff .gif .webp .pgm .ppm .svg",
    "video": ".mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .wmv",
    "audio": ".wav .mp3 .flac .ogg .m4a .aac .aif .aiff",
}
UNREADABLE = frozenset({".svg", ".m4a", ".aac"})
"""Stimuli for people; there is no decoder for them here."""


def modality(filename: str) -> str:
    """Kind of a stimulus by its file's extension: image, video, audio, or other."""
    extension = PurePosixPath(filename).suffix.lower()
    return next((kind for kind, known in MODALITIES.items() if extension in known.split()), "other")


def missing(path: Path) -> MissingInputError:
    """The error that a stimulus is not there, and what to do about it."""
    remedy = "its link points nowhere, run `datalad get` on it" if path.is_symlink() else "check the stimuli folder"
    return MissingInputError(f"{path}: stimulus not found; {remedy}")


def reason(error: BaseException, path: Path) -> str:
    """What a decoder says, in one line without the path."""
    said = str(error).replace(f"{str(path)!r}", "").replace(str(path), "")
    return " ".join(said.split()) or type(error).__name__


def file_sha256(path: Path) -> str:
    """Hash the bytes of a file.

    Parameters
    ----------
    path : Path
        A file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    MissingInputError
        If the file is not there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise missing(path) from error
