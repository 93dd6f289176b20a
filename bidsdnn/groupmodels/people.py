"""Participants' responses to the stimuli that they share, in a space that they share, or region by region.

The one idea: everything is read back from what the participant level wrote, and joined by stimulus and by the name of a
region; who or what does not fit is named and left out, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.bids import names
from bidsdnn.bids.atlases import atlas_regions
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, read_table, sidecar_path
from bidsdnn.conditions import items_path, read_conditions
from bidsdnn.errors import DataError
from bidsdnn.folding import is_series
from bidsdnn.geometry import Regions
from bidsdnn.groupmaps import INDIVIDUAL_SPACES, MASKS
from bidsdnn.grouptables import by_context
from bidsdnn.spaces import Space, intersection
from bidsdnn.stimuli import file_sha256

FEWEST_STIMULI = 10
"""Stimuli that participants have to share, below which nothing is fitted to them."""
FEWEST_PEOPLE = 2


@dataclass(frozen=True, eq=False)
class Person:
    """One participant's responses to stimuli, as they lie in the output.

    Parameters
    ----------
    label : str
        Without ``sub-``.
    effect : Path
        Map of the responses, one volume a stimulus.
    out : Derivatives
    """

    label: str
    effect: Path
    out: Derivatives

    @cached_property
    def entities(self) -> dict[str, str]:
        """Of the participant's products in this space."""
        kept = names.entities_of(self.effect)
        return {key: value for key, value in kept.items() if key not in ("stat", "desc", "hemi")}

    @cached_property
    def mask(self) -> Path:
        """Which points of the image have responses."""
        hemi = {"hemi": "L"} if "hemi" in names.entities_of(self.effect) else {}
        extension = MASKS[names.parse(self.effect)["extension"]]
        return self.out.path("mask", extension, **self.entities, **hemi, desc="brain")

    @cached_property
    def space(self) -> Space:
        """The participant's own space."""
        return intersection([self.mask])

    @cached_property
    def items(self) -> Any:
        """Stimuli of the map's volumes."""
        return read_table(items_path(self.out, self.entities))

    @property
    def ids(self) -> list[str]:
        """Stimulus of each volume."""
        found: list[str] = self.items["stim_id"].tolist()
        return found

    def atlases(self) -> dict[str, Path]:
        """Atlases as they were used for this participant, by their entities in a file's name."""
        found = {}
        for path in sorted(self.effect.parent.glob(f"sub-{self.label}_*_dseg.*")):
            entities = names.entities_of(path)
            same = self.entities.items() <= entities.items() and entities.get("hemi", "L") == "L"
            if same and path.name.endswith((".nii.gz", ".gii", ".nii")):
                found["_".join(f"{key}-{entities[key]}" for key in ("atlas", "seg", "scale") if key in entities)] = path
        return found

    def read(self, space: Space, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Responses to some stimuli in a space, (n, size), and their reliability, (size,)."""
        found, reliable = read_conditions(self.out, space, self.entities)
        place = {name: row for row, name in enumerate(found.ids)}
        return found.values[[place[name] for name in ids]], reliable


@dataclass(frozen=True, eq=False)
class Shared:
    """Participants, what they share, and where the columns of their tables lie.

    Parameters
    ----------
    people : tuple of Person
    ids : list of str
        Stimuli that all of them saw, sorted.
    space : Space or None
        Points in the masks of all; None where each has a space of their own, and columns are means over regions.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_columns,)
        Regions by atlas, on the columns of `table`.
    entities : dict of str to str
        What their files' names share.
    own_regions : callable
        Regions on a person's own columns.
    omitted : tuple of str
        Sentences on who and what was left out.
    content : str
        Hash of all this.
    """

    people: tuple[Person, ...]
    ids: list[str]
    space: Space | None
    regions: Regions
    entities: dict[str, str]
    own_regions: Callable[[Person], Regions]
    omitted: tuple[str, ...]
    content: str

    @property
    def labels(self) -> list[str]:
        """Participants, without ``sub-``."""
        return [person.label for person in self.people]

    @property
    def sources(self) -> list[str]:
        """Where their responses are."""
        return [person.out.uri(person.effect) for person in self.people]

    def table(self, person: Person) -> tuple[np.ndarray, np.ndarray]:
        """One person's responses to the shared stimuli, (n, n_columns), and their reliability, (n_columns,).

        The reliability of a mean over a region is not known.
        """
        if self.space is not None:
            return person.read(self.space, self.ids)
        values, _ = person.read(person.space, self.ids)
        own = self.own_regions(person)
        means = [_mean(values[:, own[atlas][name]]) for atlas, table in self.regions.items() for name in table]
        return np.stack(means, axis=1), np.full(len(means), np.nan)

    def without_space(self, why: str) -> Shared:
        """The same people with means over regions for columns."""
        regions = _means_for_columns(self.people, self.own_regions)
        return replace(self, space=None, regions=regions, omitted=(*self.omitted, why))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the columns that are finite throughout, (n,)."""
    usable = np.isfinite(values).all(axis=0)
    return np.asarray(values[:, usable].mean(axis=1) if usable.any() else np.full(len(values), np.nan))


def found_contexts(out: Derivatives, labels: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Path]]]:
    """Spaces and tasks that participants have responses in, with the entities of their files and the files.

    Parameters
    ----------
    out : Derivatives
    labels : sequence of str
        Participants, without ``sub-``.

    Returns
    -------
    list of (dict, dict of str to Path)
    """
    found = []
    for extension in MASKS:
        for key, paths in by_context(out, labels, "statmap", extension, "condition", stat="effect").items():
            context = {name: value for name, value in key if name != "desc"}
            # The left file stands for both hemispheres.
            if context.get("hemi") != "R":
                found.append(({name: value for name, value in context.items() if name != "hemi"}, paths))
    return found


def shared(
    out: Derivatives, context: Mapping[str, str], paths: Mapping[str, Path], atlas: Sequence[Path],
    *, labels: Sequence[str],
) -> Shared:  # fmt: skip
    """Find what participants share.

    Parameters
    ----------
    out : Derivatives
    context : mapping of str to str
        Entities of the files.
    paths : mapping of str to Path
        Maps of responses by participant.
    atlas : sequence of Path
        Of ``--atlas``; by default the atlases that participants were analysed with.
    labels : sequence of str
        All that might have been there.

    Returns
    -------
    Shared

    Raises
    ------
    DataError
        If there are fewer than two participants, too few stimuli or no regions that they share.
    """
    where = ", ".join(f"{key} {value}" for key, value in context.items())
    omitted = [f"sub-{label} has no responses in {where} and was left out." for label in labels if label not in paths]
    people = [Person(label, path, out) for label, path in paths.items()]
    if len(people) < FEWEST_PEOPLE:
        raise DataError(f"{where}: only sub-{people[0].label} has responses; a model of a group needs two participants")
    if any(is_series(person.items) for person in people):
        raise DataError(f"{where}: volumes of a series (--response timeseries) are no responses to stimuli")
    kept, ids = most_shared({person.label: person.ids for person in people})
    for person in people:
        if person.label not in kept:
            omitted.append(f"sub-{person.label} shares too few stimuli with the others and was left out.")
    if len(kept) < FEWEST_PEOPLE or len(ids) < FEWEST_STIMULI:
        raise DataError(f"{where}: participants share {len(ids)} stimuli; models of a group need {FEWEST_STIMULI}")
    people = [person for person in people if person.label in kept]
    differ = {len(person.ids) for person in people} != {len(ids)}
    omitted += [f"Participants saw different stimuli; the {len(ids)} that all of them saw are used."] if differ else []
    if {read_json(sidecar_path(person.effect)).get("Units") for person in people} - {"z"}:
        omitted.append("Responses that another program scaled are used as they are; who has larger ones counts more.")
    individual = context.get("space") in INDIVIDUAL_SPACES

    def own_regions(person: Person) -> Regions:
        there = list(person.atlases().values())
        return atlas_regions(there if individual else atlas or there, person.space)[0]

    hashed = {person.label: [file_sha256(one) for one in _files(person)] for person in people}
    found = Shared(tuple(people), ids, None, {}, dict(context), own_regions, tuple(omitted), "")
    if individual:
        space = context.get("space") or "native"
        found = found.without_space(f"Each participant has a {space} space of their own: columns are regions' means.")
    else:
        found = _in_space(found, atlas)
    content = {
        "files": hashed,
        "atlas": [file_sha256(path) for path in atlas],
        "stimuli": ids,
        "space": None if found.space is None else found.space.identity,
        "regions": {name: list(table) for name, table in found.regions.items()},
    }
    return replace(found, content=digest(content))


def _files(person: Person) -> list[Path]:
    """What a person's table depends on."""
    files = [*person.space.files(person.effect), *person.space.files(person.mask)]
    return [*files, items_path(person.out, person.entities), *person.atlases().values()]


def _in_space(found: Shared, atlas: Sequence[Path]) -> Shared:
    """Columns are the points in the masks of all; without any, means over regions."""
    first = found.people[0]
    try:
        space = intersection([person.mask for person in found.people])
    except DataError as error:
        return found.without_space(f"There is no common space ({error}): columns are regions' means.")
    regions, _ = atlas_regions(atlas or list(first.atlases().values()), space)
    known = {label: dict(table) for label, table in regions.items()}
    return replace(found, space=space, regions=known)


def _means_for_columns(people: Sequence[Person], own_regions: Callable[[Person], Regions]) -> Regions:
    """Regions that all have, each one column."""
    every = [own_regions(person) for person in people]
    shared_names = [
        (atlas, name)
        for atlas, table in every[0].items()
        for name in table
        if all(one.get(atlas, {}).get(name, np.zeros(1)).any() for one in every)
    ]
    if not any(atlas for atlas, _ in shared_names):
        raise DataError(
            "participants have no space in common, and no region: run the participant level with --atlas, whose "
            "regions then stand for the voxels"
        )
    regions: dict[str, dict[str, np.ndarray]] = {}
    for column, (atlas, name) in enumerate(shared_names):
        regions.setdefault(atlas, {})[name] = np.arange(len(shared_names)) == column
    return regions


def most_shared(ids: Mapping[str, Sequence[str]], fewest: int = FEWEST_STIMULI) -> tuple[list[str], list[str]]:
    """Leave out participants one by one, until the others share enough stimuli: first who leaves most to the others.

    Parameters
    ----------
    ids : mapping of str to sequence of str
        Stimuli by participant.
    fewest : int

    Returns
    -------
    labels : list of str
        Who stays; two, whatever they share, if no more can.
    stimuli : list of str
        What they share, sorted.
    """
    kept = {label: set(one) for label, one in ids.items()}
    while len(kept) > FEWEST_PEOPLE and len(set.intersection(*kept.values())) < fewest:
        left = {label: len(set.intersection(*(one for other, one in kept.items() if other != label))) for label in kept}
        # Of equals the one with the fewest stimuli goes, then the last.
        gone = max(reversed(left), key=lambda label: (left[label], -len(kept[label])))
        del kept[gone]
    return list(kept), sorted(set.intersection(*kept.values()))
