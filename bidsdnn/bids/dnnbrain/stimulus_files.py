"""What was shown, and when: DNNBrain's ``.stim.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.dnnbrain.masks import numbered_lines
from bidsdnn.bids.files import write_text
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import Stimuli, frame_times

KINDS = ("image", "video", "video_clip")
ID = "stimID"
HEADER = ("type", "path", "data")
"""Keys that mean something; all others are kept as they are."""

Type = type[int] | type[float] | type[str]
_CALLED: dict[Type, str] = {int: "a whole number", float: "a number", str: "text"}
_STORED: dict[Type, Any] = {int: np.int64, float: np.float64, str: object}


def _type_of(column: str, kind: str) -> Type:
    """What the values of a column are: of a film the stimuli are its frames."""
    if column == ID:
        return int if kind == "video" else str
    reserved: dict[str, Type] = {"label": int, "condition": str}
    return reserved.get(column, float)


@dataclass(frozen=True, eq=False)
class StimFile:
    """What a ``.stim.csv`` holds.

    Parameters
    ----------
    kind : {'image', 'video', 'video_clip'}
    folder : str
        What the file says after ``path=``: the folder of pictures or clips, or the film.
    table : DataFrame
        A row a presentation. ``stimID`` is the picture's or clip's path below the folder, or the number of the film's
        frame, counted from 1; ``label`` is a whole number, ``condition`` text; ``onset``, ``duration`` (in s) and all
        other columns are numbers.
    header : mapping of str to str
        Further keys.
    """

    kind: str
    folder: str
    table: pd.DataFrame
    header: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The stimulus of each row."""
        return [str(one) for one in self.table[ID]]


def read_stim(path: Path) -> StimFile:
    """Read which stimuli there are, and when they were shown.

    Lines ``key=value``, among them ``type=`` and ``path=``, come before ``data=stimID,column,...``, below which each
    line is a row. Nothing is quoted, so that no value has a comma in it.

    Parameters
    ----------
    path : Path
        A ``.stim.csv`` file.

    Returns
    -------
    StimFile

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it is malformed; the line is named.
    """
    lines = numbered_lines(path)
    header: dict[str, str] = {}
    for number, line in lines:
        key, equals, value = line.partition("=")
        if not equals or key in header:
            problem = "stands twice" if equals else "is no key=value"
            raise DataError(f"{path}: line {number}: {key[:40]!r} {problem}; give type=, path=, and then data={ID},...")
        header[key] = value
        if key == "data":
            break
    missing = next((key for key in HEADER if key not in header), None)
    if missing is not None:
        raise DataError(f"{path}: no line {missing}=; give type=, path=, and then data={ID},...")
    kind, folder, names = (header.pop(key) for key in HEADER)
    if kind not in KINDS:
        raise DataError(f"{path}: type={kind} is not known; it is {', '.join(KINDS)}")
    columns = names.split(",")
    twice = next((name for name in columns if columns.count(name) > 1 or not name), None)
    if ID not in columns or twice is not None:
        problem = f"no column {ID}" if twice is None else f"column {twice!r} stands twice or has no name"
        raise DataError(f"{path}: line {number}: {problem}; write data={ID},onset,...")
    return StimFile(kind, folder, _rows(lines, {name: _type_of(name, kind) for name in columns}, path), header)


def _rows(lines: Iterator[tuple[int, str]], types: Mapping[str, Type], path: Path) -> pd.DataFrame:
    rows = []
    for number, line in lines:
        fields = line.split(",")
        if len(fields) != len(types):
            raise DataError(f"{path}: line {number}: {len(fields)} values under {len(types)} columns; "
                            "values cannot have commas in them")  # fmt: skip
        rows.append([_value(*one, f"{path}: line {number}") for one in zip(types, types.values(), fields, strict=True)])
    if not rows:
        raise DataError(f"{path}: no stimuli below its line data=; write a row for each")
    columns = zip(types.items(), zip(*rows, strict=True), strict=True)
    return pd.DataFrame({name: np.array(values, dtype=_STORED[type_]) for (name, type_), values in columns})


def _value(name: str, type_: Type, text: str, where: str) -> int | float | str:
    try:
        value = type_(text)
    except ValueError as error:
        raise DataError(f"{where}: {name} {text[:40]!r} is not {_CALLED[type_]}") from error
    if type_ is int and not -(2**63) <= int(value) < 2**63:
        raise DataError(f"{where}: {name} {text!r} has more than 64 bits")
    if name == ID and (int(value) < 1 if type_ is int else not text.strip()):
        raise DataError(f"{where}: {name} {text!r} is no stimulus; name its file, or number a film's frames from 1")
    return value


def write_stim(path: Path, stim: StimFile) -> Path:
    """Write stimuli as `read_stim` and DNNBrain read them.

    Parameters
    ----------
    path : Path
    stim : StimFile

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the file could not be read again: a value has a comma or a line's end in it, or a key or its value ``=``.
    """
    if stim.kind not in KINDS or ID not in stim.table or not len(stim.table) or set(stim.header) & set(HEADER):
        raise ValueError(f"stim: expected one of {', '.join(KINDS)}, rows with {ID}, and own keys beside {HEADER}")
    head = {"type": stim.kind, "path": stim.folder, **stim.header, "data": ",".join(stim.table.columns)}
    columns = [
        [_text(value, name, _type_of(name, stim.kind)) for value in stim.table[name]] for name in stim.table.columns
    ]
    for text in (*head, *head.values()):
        if "=" in text or len(text.splitlines()) > 1:
            raise ValueError(f"stim: expected keys and values in one line and without '=', got {text!r}")
    rows = [",".join(row) for row in zip(*columns, strict=True)]
    write_text(path, "\n".join([*(f"{key}={value}" for key, value in head.items()), *rows]) + "\n")
    return path


def _text(value: Any, name: str, type_: Type) -> str:
    """A value in the fewest digits that bring it back."""
    if isinstance(value, str) != (type_ is str) or (type_ is int and int(value) != value):
        raise ValueError(f"stim: expected {_CALLED[type_]} in {name}, got {value!r}")
    text = value if type_ is str else repr(type_(value))
    if "," in text or len(f"{text}.".splitlines()) > 1 or (name == ID and not text.strip()):
        raise ValueError(f"stim: expected values without comma in one line in {name}, got {text!r}")
    return text


def stimuli_of(path: Path) -> Stimuli:
    """Find the pictures, clips or frames that a ``.stim.csv`` names, each once, in the order in which they stand there.

    Parameters
    ----------
    path : Path
        A ``.stim.csv`` file of pictures, of clips, a file each, or of the frames of one film, which are pictures. Its
        ``path=``, where it is relative, is looked for beside the file, and then, as DNNBrain does, in the working
        directory.

    Returns
    -------
    Stimuli
        Ids are the file's ``stimID``; without hashes. A frame has the ``start`` and ``stop`` of its time on the screen.

    Raises
    ------
    MissingInputError
        If the folder or a file is not there.
    DataError
        If it is malformed, or the film does not have a frame.
    """
    stim = read_stim(path)
    root = folder_of(path, stim)
    names = list(dict.fromkeys(stim.ids))
    if stim.kind == "video":
        return _frames(path, root / Path(stim.folder).name, names)
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise MissingInputError(
            f"{path}: {len(missing)} of {len(names)} files are not in {root} ({', '.join(missing[:5])}); "
            "correct the line path="
        )
    kind = "image" if stim.kind == "image" else "video"
    return Stimuli(pd.DataFrame({"stimulus_id": names, "filename": names, "modality": kind, "sha256": ""}), root)


def _frames(path: Path, film: Path, names: list[str]) -> Stimuli:
    """Frames of a film, by their numbers from 1 in the order in which they are shown."""
    times, numbers = frame_times(film), np.array(names, dtype=np.int64)
    if numbers.max() > len(times) - 1:
        raise DataError(f"{path}: {ID} {numbers.max()}: {film} has {len(times) - 1} frames; correct the number")
    table = {"stimulus_id": names, "filename": film.name, "modality": "image", "sha256": ""}
    return Stimuli(pd.DataFrame(table | {"start": times[numbers - 1], "stop": times[numbers]}), film.parent)


def folder_of(path: Path, stim: StimFile) -> Path:
    """The folder of the stimuli of a file; of a film's frames, the film's.

    Parameters
    ----------
    path : Path
        The ``.stim.csv`` file.
    stim : StimFile
        Its content.

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        If it is not there.
    """
    film = stim.kind == "video"
    for found in (path.parent / stim.folder, Path(stim.folder)):
        if found.is_file() if film else found.is_dir():
            return found.parent if film else found
    raise MissingInputError(
        f"{path}: {'film' if film else 'folder'} path={stim.folder} not found; correct it, relative to this file or in "
        "full"
    )
