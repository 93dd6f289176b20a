"""The meshes and the cortex mask that belong to the vertices of a recording, found by their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bidsdnn.bids.contents import Dataset
from bidsdnn.bids.names import entities_of, parse
from bidsdnn.errors import DataError
from bidsdnn.spaces import Cifti, Surface, hemispheres, kind_of, read_mesh
from bidsdnn.spaces.cifti import CORTICES, open_cifti
from bidsdnn.spaces.gifti import heading

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Meshes:
    """Files of the left and the right hemisphere; None where there are none.

    Parameters
    ----------
    folded : tuple of two Path or None
        Where the vertices lie in the brain: distances are measured on it.
    inflated : tuple of two Path or None
        For pictures.
    cortex : tuple of two Path or None
        Masks without the medial wall.
    """

    folded: Pair | None = None
    inflated: Pair | None = None
    cortex: Pair | None = None


def find_meshes(dataset: Dataset, label: str, bold: Path, *, asked: Sequence[Path] = ()) -> Meshes:
    """Find the meshes of a recording's vertices: those asked for, else those of the derivatives.

    Parameters
    ----------
    dataset : Dataset
    label : str
        Participant.
    bold : Path
        Of a surface the left hemisphere's file.
    asked : sequence of Path
        The left and the right hemisphere's mesh, or nothing.

    Returns
    -------
    Meshes
        Nothing for volumes.

    Raises
    ------
    DataError
        If the meshes asked for have other numbers of vertices, or a file is damaged.
    """
    kind = kind_of(bold)
    if kind is Surface:
        left, right = hemispheres(bold)
        counts = (heading(left).n_vertices, heading(right).n_vertices)
    elif kind is Cifti:
        vertices = open_cifti(bold)[2].nvertices
        counts = (vertices.get(CORTICES[0], 0), vertices.get(CORTICES[1], 0))
    else:
        return Meshes()
    space = entities_of(bold).get("space", "")
    by_kind: dict[str, Pair] = {}
    for pair in dataset.surfaces("mesh", label, space):
        group = "inflated" if parse(pair[0])["suffix"] == "inflated" else "folded"
        if group not in by_kind and _sizes(pair) == counts:
            by_kind[group] = pair
    if asked:
        found = _sizes((asked[0], asked[1]))
        if found != counts:
            raise DataError(
                f"--mesh {asked[0]} {asked[1]}: {found[0]} and {found[1]} vertices, {bold.name} has {counts[0]} and "
                f"{counts[1]}; give the meshes of the data"
            )
        by_kind["folded"] = (asked[0], asked[1])
    masks = [] if kind is Cifti else dataset.surfaces("cortex", label, space)
    fitting = (pair for pair in masks if tuple(heading(one).n_vertices for one in pair) == counts)
    return Meshes(by_kind.get("folded"), by_kind.get("inflated"), next(fitting, None))


def _sizes(pair: Pair) -> tuple[int, int]:
    return read_mesh(pair[0]).size, read_mesh(pair[1]).size
