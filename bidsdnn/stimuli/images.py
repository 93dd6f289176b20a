"""Pictures as a viewer would show them: any mode that Pillow reads, to 8-bit RGB."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bidsdnn.errors import DataError
from bidsdnn.stimuli.files import missing, modality, reason
from bidsdnn.stimuli.films import check_video, load_video

logger = logging.getLogger(__name__)

# What Pillow's decoders raise on damaged files, found by truncating and corrupting files of each format.
DECODING_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
)


def load_image(path: Path, start: float | None = None, stop: float | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB as a viewer would show it.

    The camera's orientation tag is applied; transparent pixels are laid over white; grey values fill the
    three channels; 16-bit grey is divided by 257; of an animation the first frame is taken. Colour profiles
    are not applied.

    Parameters
    ----------
    path : Path
        Any format that Pillow reads; or a film, of which one frame is the picture.
    start, stop : float, optional
        When that frame begins and ends, in seconds; a picture has no duration.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, fully decoded.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If the file is truncated, no image, or larger than Pillow's limit against decompression bombs.
    """
    if modality(path.name) == "video":
        return Image.fromarray(load_video(path, start, stop, frames=1).frames[0])
    if not path.is_file():
        raise missing(path)
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                logger.info("%s: %d frames; the first is taken", path, frames)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: image refused as a decompression bomb ({error}); store it smaller") from error
    except DECODING_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({reason(error, path)}); replace the file") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined white; store it as 8- or 16-bit")
    if image.mode.startswith("I"):  # I;16, I;16B, and I, which holds 16 or 32 bits
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError("more than 16 bits a pixel; store it as 8- or 16-bit")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def check_image(path: Path) -> None:
    """Decode a picture, a JPEG at an eighth of its size: all of its bytes are read. A film is read as one.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingInputError, DataError
        As `load_image`.
    """
    if modality(path.name) == "video":
        check_video(path)
        return
    if path.suffix.lower() not in (".jpg", ".jpeg") or not path.is_file():
        load_image(path)
        return
    try:
        with Image.open(path) as image:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *DECODING_ERRORS):
        load_image(path)  # says what is wrong, or knows better
