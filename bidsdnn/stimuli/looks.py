"""Stimuli small enough to draw, or to tell what a model explains beyond their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bidsdnn.stimuli.files import modality
from bidsdnn.stimuli.films import load_video
from bidsdnn.stimuli.images import load_image
from bidsdnn.stimuli.table import Stimuli


def thumbnail(path: Path, *, size: int = 40) -> np.ndarray:
    """Read a picture, or the first frame of a film, small enough for a figure.

    Parameters
    ----------
    path : Path
    size : int
        Of the longer side.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    MissingInputError, DataError
        As the loaders.
    """
    if modality(path.name) == "video":
        image = Image.fromarray(load_video(path, frames=1).frames[0])
    else:
        image = load_image(path)
    image.thumbnail((size, size))
    return np.asarray(image)


def look(stimuli: Stimuli, row: int, *, size: int = 96) -> np.ndarray | None:
    """Show a stimulus as a small picture: a film, or a clip of it, by its middle frame.

    Parameters
    ----------
    stimuli : Stimuli
    row : int
        Its place in the table.
    size : int
        Of the longer side.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3), or None
        None of a sound.

    Raises
    ------
    MissingInputError, DataError
        As the loaders.
    """
    if stimuli.table["modality"].iloc[row] == "audio":
        return None
    image = load_image(stimuli.paths[row], *stimuli.clips[row])
    image.thumbnail((size, size))
    return np.asarray(image)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture, the same bytes for the same pixels.

    Parameters
    ----------
    path : Path
        Written whatever it is called.
    picture : ndarray of uint8, shape (height, width, 3)
    """
    with path.open("wb") as file:
        Image.fromarray(picture).save(file, format="PNG", optimize=True)


def pixels(stimuli: Stimuli, *, size: int = 32) -> np.ndarray:
    """Read pictures at a low resolution, to tell what a model explains beyond them.

    Parameters
    ----------
    stimuli : Stimuli
        Pictures.
    size : int
        Width and height that each picture is brought to.

    Returns
    -------
    ndarray of float32, shape (n_stimuli, 3 * size * size)
        From 0 to 1.

    Raises
    ------
    MissingInputError, DataError
        If a picture is missing or unreadable.
    """
    read = (load_image(path, *when) for path, when in zip(stimuli.paths, stimuli.clips, strict=True))
    small = [picture.resize((size, size), Image.Resampling.BOX) for picture in read]
    return np.array([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in small])
