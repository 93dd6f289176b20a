"""A table of clips on disk. A stimulus is known by its id, never by its place; brains and networks are joined by it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli.files import MODALITIES, UNREADABLE, file_sha256, modality
from bidsdnn.stimuli.loaders import LENGTHS, LOADERS

COLUMNS = ("stimulus_id", "filename", "modality", "sha256")


@dataclass(frozen=True, eq=False)
class Stimuli:
    """An ordered table of clips on disk.

    Parameters
    ----------
    table : DataFrame
        One row a stimulus; columns at least ``stimulus_id`` (unique strings), ``filename`` (posix path
        relative to `root`), ``modality`` (a row of `LOADERS`) and ``sha256`` (empty where not yet computed).
        With ``start`` and ``stop``, in seconds, a row is that part of its film or sound; where they are NaN, all of it.
    root : Path
        The folder that file names are relative to.
    mono : bool
        Whether the channels of a sound are averaged; otherwise several are an error.
    loader : callable, optional
        ``(path, start, stop)``, reads each stimulus; default: that of its modality.
    left_out : tuple of str
        Stimuli that would be in the table if they could be read.

    Raises
    ------
    ValueError
        If a column is missing or an id occurs twice.
    DataError
        If a file name leaves `root`.
    """

    table: pd.DataFrame
    root: Path
    mono: bool = False
    loader: Callable[..., Any] | None = None
    left_out: tuple[str, ...] = ()

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
        if not {"start", "stop"} <= set(self.table):
            return [(None, None)] * len(self)
        return [
            (None if pd.isna(start) else float(start), None if pd.isna(stop) else float(stop))
            for start, stop in zip(self.table["start"], self.table["stop"], strict=True)
        ]

    def read(self, row: int) -> Any:
        """Load one stimulus.

        Parameters
        ----------
        row : int
            Its place in the table.

        Returns
        -------
        PIL.Image.Image, Film, Sound, or what the table's own loader returns

        Raises
        ------
        MissingInputError, DataError
            If the file is missing or unreadable.
        """
        kind = self.table["modality"].iloc[row]
        options = {"mono": True} if kind == "audio" and self.mono else {}
        return (self.loader or LOADERS[kind])(self.root / self.table["filename"].iloc[row], *self.clips[row], **options)

    def of(self, *modalities: str) -> Stimuli:
        """Take the stimuli of some modalities.

        Parameters
        ----------
        *modalities : str

        Returns
        -------
        Stimuli
        """
        return replace(self, table=self.table[self.table["modality"].isin(modalities)])

    def cut(self, duration: float, *, to_end: bool = False) -> Stimuli:
        """Cut films and sounds into clips of one duration, called ``<stimulus>@<start>``.

        What is left at the end and shorter than a clip is left out; a film or sound shorter than a clip, and one that
        is a clip already, stays as it is.

        Parameters
        ----------
        duration : float
            Seconds.
        to_end : bool
            Whether a last clip, which overlaps the one before, goes to the end; a short film or sound is then a clip.

        Returns
        -------
        Stimuli
            With columns ``start`` and ``stop``.
        """
        table = self.table if {"start", "stop"} <= set(self.table) else self.table.assign(start=np.nan, stop=np.nan)
        rows: list[dict[str, Any]] = []
        for row in table.to_dict("records"):
            whole = row["modality"] in LENGTHS and pd.isna(row["start"])
            length = LENGTHS[row["modality"]](self.root / row["filename"]) if whole else 0.0
            clips = [clip(row["stimulus_id"], n, duration) for n in range(clips_in(length, duration))]
            if whole and to_end and length - len(clips) * duration > 1e-3 * duration:
                start = max(0.0, length - duration)
                clips.append({"stimulus_id": f"{row['stimulus_id']}@{start:g}", "start": start, "stop": length})
            rows += [row | one for one in clips] or [row]
        return replace(self, table=pd.DataFrame(rows, columns=table.columns))

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
        """Fill the column ``sha256`` with the hash of each file's bytes; of a clip, of that hash, its start and stop.

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
        files = list(dict.fromkeys(self.paths))
        with ThreadPoolExecutor(workers) as pool:
            known = dict(zip(files, pool.map(file_sha256, files), strict=True))
        hashes = [_clip_sha256(known[path], *clip) for path, clip in zip(self.paths, self.clips, strict=True)]
        return replace(self, table=self.table.assign(sha256=hashes))

    @classmethod
    def from_folder(cls, root: Path, modalities: Iterable[str] = ("image",)) -> Stimuli:
        """Take every file of some modalities below a folder, sorted by path; the id is the path relative to the folder.

        Hidden files and folders are skipped, macOS's ``._*`` among them. Links are followed, each folder
        once.

        Parameters
        ----------
        root : Path
            The folder.
        modalities : iterable of str
            Rows of `LOADERS`.

        Returns
        -------
        Stimuli
            With an empty ``sha256``.

        Raises
        ------
        MissingInputError
            If the folder is not there, or holds no such file.
        """
        root, asked = Path(root), sorted(set(modalities))
        if not root.is_dir():
            raise MissingInputError(f"{root}: stimuli folder not found; check the path")
        known = {suffix for kind in asked for suffix in MODALITIES[kind].split()} - UNREADABLE
        names = sorted(name for name in _files(root) if PurePosixPath(name).suffix.lower() in known)
        if not names:
            raise MissingInputError(
                f"{root}: no {' or '.join(asked)} in this folder or below it; give one that holds any of "
                f"{', '.join(sorted(known))}"
            )
        kinds = [modality(name) for name in names]
        return cls(pd.DataFrame({"stimulus_id": names, "filename": names, "modality": kinds, "sha256": ""}), root)


def clips_in(length: float, duration: float) -> int:
    """Whole clips in so many seconds."""
    return int(np.floor(length / duration + 1e-3))


def clip(stimulus: str, number: int, duration: float) -> dict[str, Any]:
    """Id, start and stop of the clip of that number, from 0."""
    start, stop = round(number * duration, 6), round((number + 1) * duration, 6)
    return {"stimulus_id": f"{stimulus}@{start:g}", "start": start, "stop": stop}


def _clip_sha256(sha256: str, start: float | None, stop: float | None) -> str:
    whole = start is None and stop is None
    return sha256 if whole else hashlib.sha256(f"{sha256} {start!r} {stop!r}".encode()).hexdigest()


def _files(root: Path) -> Iterable[str]:
    """Yield the posix paths, relative to `root`, of the files below it that are not hidden."""
    seen: set[Path] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link back to a folder already walked
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()
