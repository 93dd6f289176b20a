"""Which regions are scored: those of the atlases a user gave, or the whole brain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.bids import names
from bidsdnn.bids.files import digest, read_json
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.spaces import Parcels
from bidsdnn.stimuli import file_sha256

logger = logging.getLogger(__name__)

WHOLE_BRAIN = "brain"
# As deep as a template's atlases lie in a dataset.
_FOLDERS = 5


def _label(path: Path) -> str:
    """An atlas' name with its segmentation and scale, as they stand in file names: ``Sch_seg-7n_scale-100``."""
    entities = names.entities_of(path)
    name = entities.get("atlas") or names.label(path.name.removeprefix("lh.").split(".")[0])
    return "_".join([name, *(f"{key}-{entities[key]}" for key in ("seg", "scale") if key in entities)])


def atlas_entities(label: str) -> dict[str, str]:
    """Entities of an atlas' label; none for the whole brain, whose label is empty."""
    if not label:
        return {}
    name, *others = label.split("_")
    return {"atlas": name, **dict(part.split("-", 1) for part in others)}


def atlas_regions(paths: Sequence[Path], space: Any) -> tuple[dict[str, Mapping[str, np.ndarray]], dict[str, str]]:
    """Regions of each atlas on a brain's columns; without an atlas, one region of them all, or each
    of a table's parcels.

    Parameters
    ----------
    paths : sequence of Path
        Segmentations or masks; of a surface's, the left file or both.
    space : Space

    Returns
    -------
    regions : mapping of str to mapping of str to ndarray of bool
    contents : dict of str to str
        Hash of each atlas.

    Raises
    ------
    DataError
        If an atlas has no voxel in this space.
    """
    if not paths and isinstance(space, Parcels):
        return {"": dict(zip(space.names, np.eye(space.size, dtype=bool), strict=True))}, {}
    if not paths:
        return {"": {WHOLE_BRAIN: np.ones(space.size, dtype=bool)}}, {}
    regions: dict[str, Mapping[str, np.ndarray]] = {}
    contents: dict[str, str] = {}
    for path in _left_files(paths):
        label = _label(path)
        if label in regions:
            raise ConfigError(f"--atlas {path}: a second atlas is called {label}; rename one of the files")
        regions[label] = space.regions(path)
        if not any(columns.any() for columns in regions[label].values()):
            raise DataError(f"{path}: no region has a voxel in the brain; give an atlas in the space of the data")
        for name, columns in regions[label].items():
            if not columns.any():
                logger.warning("%s: region %s has no voxel in the brain", path.name, name)
        files = [file for file in (*_both(path), *_tables(path)) if file.exists()]
        contents[label] = digest({"files": [file_sha256(file) for file in files]})
    return regions, contents


def atlas_descriptions(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What the nearest ``atlas-<label>_description.json`` in an atlas' folder or above says, by the atlas' label.

    Parameters
    ----------
    paths : sequence of Path
        As in `atlas_regions`.

    Returns
    -------
    dict of str to dict
        Name, authors, license and references; empty where there is no description.
    """
    kept = ("Name", "Authors", "Curators", "License", "ReferencesAndLinks", "RRID")
    found = {}
    for path in _left_files(paths):
        label = _label(path)
        name = f"atlas-{label.partition('_')[0]}_description.json"
        near = (folder / name for folder in path.absolute().parents[:_FOLDERS])
        said = next((read_json(one) for one in near if one.is_file()), {})
        found[label] = {key: said[key] for key in kept if key in said}
    return found


def _tables(path: Path) -> list[Path]:
    """Tables beside an atlas that would name its regions; they need not exist."""
    parts = path.name.split(".")
    return [path.with_name(".".join(parts[:n]) + ".tsv") for n in range(len(parts) - 1, 0, -1)]


def _left_files(paths: Sequence[Path]) -> list[Path]:
    """Files of atlases, the left one for both hemispheres' files."""
    lefts = [(path, _both(path)[0]) for path in paths]
    return [left for path, left in lefts if path == left or left not in paths]


def _both(path: Path) -> tuple[Path, ...]:
    """The two files of a surface's atlas, or the one file of any other."""
    if not path.name.endswith((".gii", ".gii.gz", ".annot", ".mgh", ".mgz")):
        return (path,)
    try:
        return names.hemisphere(path, "L"), names.hemisphere(path, "R")
    except ValueError:
        return (path,)
