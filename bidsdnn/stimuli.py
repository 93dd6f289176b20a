"""What was shown: a table of clips on disk, and the loaders that turn one into pixels.

A stimulus is known by its id, never by its place in the table; brains and networks are joined by it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from bidsdnn.errors import DataError, MissingInputError

COLUMNS = ("stimulus_id", "filename", "modality", "sha256")

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

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


@dataclass(frozen=True, eq=False)
class Stimuli:
    """An ordered table of clips on disk.

    Parameters
    ----------
    table : DataFrame
        One row a stimulus; columns at least ``stimulus_id`` (unique strings), ``filename`` (posix path
        relative to `root`), ``modality`` (a row of `LOADERS`) and ``sha256`` (empty where not yet computed).
    root : Path
        The folder that file names are relative to.

    Raises
    ------
    ValueError
        If a column is missing or an id occurs twice.
    DataError
        If a file name leaves `root`.
    """

    table: pd.DataFrame
    root: Path

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise ValueError(f"table: expected columns {', '.join(COLUMNS)}, got none named {', '.join(missing)}")
        table = self.table.reset_index(drop=True).assign(stimulus_id=self.table["stimulus_id"].astype(str).to_numpy())
        twice = table["stimulus_id"][table["stimulus_id"].duplicated()]
        if len(twice):
            raise ValueError(f"table: expected unique stimulus_id, got {twice.iloc[0]!r} more than once")
        for filename in table["filename"]:
            path = PurePosixPath(filename)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(
                    f"{self.root}: stimulus path {str(filename)!r} leaves the stimuli folder; "
                    "name files relative to it, without '..'"
                )
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "root", Path(self.root))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> list[str]:
        """The stimuli's ids, in the table's order."""
        return list(self.table["stimulus_id"])

    @property
    def paths(self) -> list[Path]:
        """The stimuli's files, in the table's order."""
        return [self.root / filename for filename in self.table["filename"]]

    @property
    def clips(self) -> list[tuple[float | None, float | None]]:
        """Start and stop of each stimulus in its file; None where it is all of it."""
        return [(None, None)] * len(self)

    def read(self, row: int) -> Any:
        """Load one stimulus, by its place in the table."""
        return LOADERS[self.table["modality"].iloc[row]](self.root / self.table["filename"].iloc[row])

    def select(self, ids: Iterable[str]) -> Stimuli:
        """Pick stimuli by id, in the order asked.

        Parameters
        ----------
        ids : iterable of str
            Ids that the table has, each once.

        Returns
        -------
        Stimuli

        Raises
        ------
        ValueError
            If the table has no stimulus of that id.
        """
        asked = list(ids)
        row_of = {stimulus: row for row, stimulus in enumerate(self.table["stimulus_id"])}
        unknown = [stimulus for stimulus in asked if stimulus not in row_of]
        if unknown:
            named = ", ".join(map(repr, unknown[:5]))
            raise ValueError(f"ids: expected ids of the stimuli, got {len(unknown)} unknown: {named}")
        return replace(self, table=self.table.iloc[[row_of[stimulus] for stimulus in asked]])

    def with_hashes(self, *, workers: int = 4) -> Stimuli:
        """Fill the column ``sha256`` with the hash of each file's bytes.

        Parameters
        ----------
        workers : int
            Files read at the same time; the result does not depend on it.

        Returns
        -------
        Stimuli

        Raises
        ------
        MissingInputError
            If a file is not there.
        """
        with ThreadPoolExecutor(workers) as pool:
            hashes = list(pool.map(file_sha256, self.paths))
        return replace(self, table=self.table.assign(sha256=hashes))

    @classmethod
    def from_folder(cls, root: Path) -> Stimuli:
        """Take every image file below a folder, sorted by path; the id is the path relative to the folder.

        Hidden files and folders are skipped, macOS's ``._*`` among them. Links are followed, each folder
        once.

        Parameters
        ----------
        root : Path
            The folder.

        Returns
        -------
        Stimuli
            With an empty ``sha256``.

        Raises
        ------
        MissingInputError
            If the folder is not there, or holds no image.
        """
        root = Path(root)
        if not root.is_dir():
            raise MissingInputError(f"{root}: stimuli folder not found; check the path")
        names = sorted(_image_files(root))
        if not names:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise MissingInputError(f"{root}: no image in this folder or below it; give one that holds any of {known}")
        return cls(pd.DataFrame({"stimulus_id": names, "filename": names, "modality": "image", "sha256": ""}), root)


def _image_files(root: Path) -> Iterable[str]:
    """Yield the posix paths, relative to `root`, of the image files below it."""
    seen: set[Path] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link back to a folder already walked
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield (Path(folder) / name).relative_to(root).as_posix()


def _missing(path: Path) -> MissingInputError:
    remedy = "its link points nowhere, run `datalad get` on it" if path.is_symlink() else "check the stimuli folder"
    return MissingInputError(f"{path}: stimulus not found; {remedy}")


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
        raise _missing(path) from error


def load_image(path: Path, start: float | None = None, stop: float | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB as a viewer would show it.

    The camera's orientation tag is applied; transparent pixels are laid over white; grey values fill the
    three channels; 16-bit grey is divided by 257; of an animation the first frame is taken. Colour profiles
    are not applied.

    Parameters
    ----------
    path : Path
        Any format that Pillow reads.
    start, stop : float, optional
        Not used: an image has no duration.

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
    if not path.is_file():
        raise _missing(path)
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: image refused as a decompression bomb ({error}); store it smaller") from error
    except DECODING_ERRORS as error:
        reason = " ".join(str(error).replace(f"{str(path)!r}", "").split()) or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason}); replace the file") from error


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


def thumbnail(path: Path, *, size: int = 40) -> np.ndarray:
    """Read a picture small enough for a figure.

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
        As `load_image`.
    """
    image = load_image(path)
    image.thumbnail((size, size))
    return np.asarray(image)


def pixels(stimuli: Stimuli, *, size: int = 32) -> np.ndarray:
    """Read pictures at a low resolution, to tell what a model explains beyond them.

    Parameters
    ----------
    stimuli : Stimuli
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
    small = [load_image(path).resize((size, size), Image.Resampling.BOX) for path in stimuli.paths]
    return np.array([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in small])


LOADERS: dict[str, Callable[..., Any]] = {"image": load_image}
