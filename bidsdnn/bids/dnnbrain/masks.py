"""Masks of layers, channels and units: DNNBrain's ``.dmask.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bidsdnn.bids.files import write_text
from bidsdnn.bids.names import require
from bidsdnn.errors import DataError

AXES = {"chn": "channel", "row": "row", "col": "column"}
"""What DNNBrain calls an axis, and what it is."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not empty, with their numbers, the first being 1.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it is no text.
    """
    try:
        text = require(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start}); save it as such"
        ) from error
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def read_dmask(path: Path) -> dict[str, dict[str, list[int]]]:
    """Read which channels, rows and columns of which layers are of interest.

    A line ``layer=axis,axis`` with axes among ``chn``, ``row`` and ``col`` is followed by one line of numbers for each
    axis, counted from 1; ``layer=`` alone is the whole layer.

    Parameters
    ----------
    path : Path
        A ``.dmask.csv`` file.

    Returns
    -------
    dict of str to dict of str to list of int
        By layer, in the file's order: of each axis that it restricts, ``channel``, ``row`` or ``column``, which places,
        counted from 0. Without axes the whole layer is meant.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it is no mask; the line is named.
    """
    masks: dict[str, dict[str, list[int]]] = {}
    lines = numbered_lines(path)
    for number, line in lines:
        layer, equals, names = line.partition("=")
        layer = layer.strip()
        if not equals or not layer:
            raise DataError(
                f"{path}: line {number}: {line[:40]!r} belongs to no layer; write LAYER=chn,row,col before it"
            )
        if layer in masks:
            raise DataError(f"{path}: line {number}: layer {layer!r} stands twice; give its axes in one line")
        masks[layer] = {}
        for name in filter(None, map(str.strip, names.split(","))):
            if name not in AXES or AXES[name] in masks[layer]:
                problem = "stands twice" if name in AXES else "is no axis"
                raise DataError(f"{path}: line {number}: {name!r} {problem}; the axes are {', '.join(AXES)}, each once")
            at, numbers = next(lines, (number + 1, ""))
            masks[layer][AXES[name]] = _places(numbers, f"{path}: line {at}: axis {name} of {layer}")
    if not masks:
        raise DataError(f"{path}: no layer in it; write LAYER= for a whole layer, or LAYER=chn and a line of channels")
    return masks


def _places(text: str, where: str) -> list[int]:
    """Numbers of a line, counted from 0."""
    fields = [field.strip() for field in text.split(",")]
    wrong = next((field for field in fields if not field.isascii() or not field.isdigit() or int(field) < 1), None)
    if wrong is not None:
        raise DataError(f"{where}: {wrong!r} is not a number from 1; give whole numbers with commas between them")
    places = [int(field) - 1 for field in fields]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise DataError(f"{where}: {twice + 1} stands twice; give each number once")
    return places


def write_dmask(path: Path, masks: Mapping[str, Mapping[str, Sequence[int]]]) -> Path:
    """Write a mask, as `read_dmask` reads it.

    Parameters
    ----------
    path : Path
    masks : mapping of str to mapping of str to sequence of int
        By layer; places counted from 0.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the file could not be read again: an axis is unknown or has no places, or a layer's name has ``=`` in it.
    """
    short = {axis: name for name, axis in AXES.items()}
    lines = []
    for layer, axes in masks.items():
        if layer != layer.strip() or "=" in layer or len(layer.splitlines()) != 1:
            raise ValueError(f"masks: expected names of layers in one line and without '=', got {layer!r}")
        if not set(axes) <= set(short) or not all(len(places) for places in axes.values()):
            raise ValueError(f"masks: expected places on axes among {', '.join(short)}, got {dict(axes)} of {layer}")
        lines.append(f"{layer}={','.join(short[axis] for axis in axes)}")
        for places in axes.values():
            if min(places) < 0 or len(set(places)) < len(places):
                raise ValueError(f"masks: expected places from 0, each once, got {list(places)} of {layer}")
            lines.append(",".join(str(place + 1) for place in places))
    write_text(path, "\n".join(lines) + "\n")
    return path
