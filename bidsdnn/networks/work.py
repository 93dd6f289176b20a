"""Which stimuli must go through a network, for which layers: what is known already, or stands twice, need not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bidsdnn.networks.store import Store
from bidsdnn.stimuli import Stimuli


@dataclass(frozen=True)
class Known:
    """What an earlier file has.

    Parameters
    ----------
    path : Path
    contents : sequence of str
        Of its rows, as `contents` names them.
    layers : sequence of str
    """

    path: Path
    contents: Sequence[str]
    layers: Sequence[str]


@dataclass(frozen=True)
class Step:
    """Contents that run together, by their first rows."""

    rows: tuple[int, ...]


def contents(stimuli: Stimuli) -> list[str]:
    """Name each stimulus' content: the hash of its file, and of a clip its start and stop.

    Parameters
    ----------
    stimuli : Stimuli
        Those without hashes are read for them.

    Returns
    -------
    list of str

    Raises
    ------
    MissingInputError
        If such a file is not there.
    """
    if (stimuli.table["sha256"] == "").any():
        stimuli = stimuli.with_hashes()
    clips = stimuli.clips
    return [
        sha if clip == (None, None) else f"{sha}@{clip[0]}-{clip[1]}"
        for sha, clip in zip(stimuli.table["sha256"], clips, strict=True)
    ]


class Rows:
    """The rows of a table, by content.

    Parameters
    ----------
    names : sequence of str
        Content of each row.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.of: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            self.of.setdefault(name, []).append(row)

    def same(self, rows: Sequence[int]) -> list[list[int]]:
        """All rows whose content is that of each of some rows."""
        return [self.of[self.names[row]] for row in rows]


def plan(
    rows: Rows, layers: Sequence[str], known: Known | None, done: np.ndarray, batch_size: int
) -> list[tuple[tuple[str, ...], list[Step]]]:
    """Cut what is left to do into batches.

    Parameters
    ----------
    rows : Rows
    layers : sequence of str
        All that the file will have.
    known : Known or None
    done : ndarray of bool, shape (n,)
        Rows that are complete.
    batch_size : int

    Returns
    -------
    list of (tuple of str, list of Step)
        Layers, and what goes through the network for them: known contents for new layers first, then new contents
        for all layers; each content once.
    """
    there = set(known.contents) if known else set()
    new_layers = tuple(layer for layer in layers if not known or layer not in known.layers)
    first = [members[0] for members in rows.of.values() if not done[members].all()]
    groups = []
    for wanted, some in (
        (new_layers, [row for row in first if rows.names[row] in there]),
        (tuple(layers), [row for row in first if rows.names[row] not in there]),
    ):
        steps = [Step(tuple(some[start : start + batch_size])) for start in range(0, len(some), batch_size)]
        if wanted and steps:
            groups.append((wanted, steps))
    return groups


def described_in(known: Known | None, layers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Attributes of the layers that an earlier file has: their shapes before they were flattened, and channels."""
    if known is None:
        return {}
    with h5py.File(known.path, "r") as file:
        return {layer: dict(file[layer].attrs) for layer in layers if layer in known.layers}


def copy(known: Known, rows: Rows, layers: Sequence[str], store: Store) -> None:
    """Copy what an earlier file has of some layers into a new one, a few megabytes at a time."""
    place = {name: row for row, name in enumerate(known.contents)}
    pairs = [(row, place[name]) for row, name in enumerate(rows.names) if name in place]
    with h5py.File(known.path, "r") as file:
        for layer in (layer for layer in layers if layer in known.layers):
            step = max(1, 16_000_000 // (4 * file[layer].shape[1]))
            for start in range(0, len(pairs), step):
                some = pairs[start : start + step]
                old = [source for _, source in some]
                if old == list(range(old[0], old[0] + len(old))):
                    values = file[layer][old[0] : old[0] + len(old)]
                else:
                    values = np.stack([file[layer][source] for source in old])
                store.write(layer, [row for row, _ in some], values)
