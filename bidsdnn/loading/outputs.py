"""What can be asked of an output folder, and what is read for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.arrays import read_activations, read_rdms
from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.bids.runs import recording_name
from bidsdnn.errors import MissingInputError, SelectionError
from bidsdnn.loading.files import TABLE_ENTITIES, Files
from bidsdnn.loading.rows import ImageRows, RDMs, Stack
from bidsdnn.lookup import closest
from bidsdnn.patterns import Group, Patterns
from bidsdnn.report.entries import TEXT_COLUMNS
from bidsdnn.spaces import (
    Space,
    Surface,
    fsaverage5,
    intersection,
    load_image,
    mask_image,
    masker,
    nilearn_image,
    read_meshes,
)
from bidsdnn.spaces.shared import FSAVERAGE5
from bidsdnn.spaces.views import one_map

# Entities that tell participants' products of one space apart from those of another.
_CONTEXT = ("sub", "task", "space", "cohort", "res", "den")


@dataclass(frozen=True)
class Outputs(Files):
    """What one output folder holds; every method reads, and none writes.

    Files are chosen by the entities of their names, as ``sub="01"``: a label, several in a list, or None for names
    without that entity. Where one file is asked for and several fit, the error says which entity to add.

    Parameters
    ----------
    root : Path
        The ``out_dir`` of a run.
    """

    def __repr__(self) -> str:
        found = {key: [label for label in sorted(set(self._index.get(key, ()))) if label] for key in ("sub", "model")}
        tables = sorted(set(self._index.loc[self._index["suffix"] == "results", "desc"]))
        said = {"participants": found["sub"], "networks": found["model"], "tables": tables}
        lines = [f"  {name}: {', '.join(labels)}" for name, labels in said.items() if labels]
        return "\n".join([f"Outputs({str(self.root)!r})", *lines])

    def table(self, desc: str | None = None, *, level: str | None = "participant", **entities: Any) -> pd.DataFrame:
        """Stack result tables, with the entities of their names as columns.

        Parameters
        ----------
        desc : str, optional
            Which analysis: ``encoding``, ``rsa``, ``bestlayer`` ...; by default all of them, whose columns differ.
        level : str or None
            ``participant`` or ``group``; None stacks both.
        **entities
            As in `files`.

        Returns
        -------
        DataFrame
            Tidy: one row a row of a table, entities first.

        Raises
        ------
        SelectionError
            If no table fits.
        """
        asked = {key: value for key, value in (("level", level), ("desc", desc)) if value is not None}
        found = self.files("results", **asked, **entities)
        found = found[found["extension"] == ".tsv"]
        keys = [key for key in found.columns if key in TABLE_ENTITIES or (key in names.ENTITIES and found[key].any())]
        parts = []
        for row in found.to_dict("records"):
            part = read_table(row["path"], text=TEXT_COLUMNS)
            own = {key: row[key] for key in (["level", *keys] if level is None else keys) if key not in part}
            parts.append(pd.concat([pd.DataFrame(own, index=part.index), part], axis=1))
        return pd.concat(parts, ignore_index=True)

    def space(self, **entities: Any) -> Space:
        """Find out what the columns of a participant's tables are.

        Parameters
        ----------
        **entities
            As in `files`: a participant and, where there are several, the task and space. Masks of several
            participants are intersected, as the group's maps are.

        Returns
        -------
        Space
            Of a surface or a CIFTI file with its meshes, where they are known.

        Raises
        ------
        SelectionError
            If there is no mask, or masks are in several spaces.
        """
        kept = {key: value for key, value in entities.items() if key in _CONTEXT}
        found = self.files("mask", desc="brain", level="participant", **kept)
        for key in ("space", "res", "den", "extension"):
            if key in found and found[key].nunique() > 1:
                there = ", ".join(sorted(label or "None" for label in set(found[key])))
                raise SelectionError(f"{self.root}: masks differ in {key}; say which: {there}")
        masks = [Path(path) for path in found["path"]]
        space: Any = intersection(masks)
        if not hasattr(space, "meshes"):
            return space
        return replace(space, meshes=self._meshes(space, masks[0]))

    def _meshes(self, space: Any, mask: Path) -> Any:
        """Meshes that the participant's responses name, or those of fsaverage5, which nilearn brings along."""
        own = {key: value for key, value in names.entities_of(mask).items() if key in _CONTEXT}
        named = read_json(self.derivatives.path("results", ".json", **own, desc="quality")).get("Mesh")
        paths = [self.derivatives.resolve(uri) for uri in named or ()]
        if paths and all(path.is_file() for path in paths):
            return read_meshes((paths[0], paths[1]))
        whole = isinstance(space, Surface) and all(inside.size == FSAVERAGE5 for inside in space.inside)
        return fsaverage5() if whole and "fsaverage" in mask.name else None

    def mask(self, **entities: Any) -> Any:
        """Show which voxels or vertices were analysed.

        Parameters
        ----------
        **entities
            As in `space`.

        Returns
        -------
        Nifti1Image or nilearn.surface.SurfaceImage
        """
        return mask_image(self.space(**entities))

    def masker(self, **entities: Any) -> Any:
        """Make a fitted masker of nilearn's for the analysed voxels or vertices.

        Parameters
        ----------
        **entities
            As in `space`.

        Returns
        -------
        nilearn.maskers.NiftiMasker or nilearn.maskers.SurfaceMasker
            Its features are the columns of `responses` and `values`.
        """
        return masker(self.space(**entities))

    def image(self, layer: str | None = None, **entities: Any) -> Any:
        """Open one map file with nibabel; its values are not read yet.

        Parameters
        ----------
        layer : str, optional
            A single map of it: of a layer, a stimulus or a part.
        **entities
            As ``sub="01", stat="pearsonr", desc="encoding"``; a map of the group has ``level="group"``.

        Returns
        -------
        nibabel image
            Of a surface two, of the left and the right hemisphere.

        Raises
        ------
        SelectionError
            If none or several files fit, or there is no such layer.
        """
        path = self.file("statmap", **entities)
        position = None if layer is None else _position(self._map_names(path), layer, path)
        both = [path, names.hemisphere(path, "R")] if names.entities_of(path).get("hemi") == "L" else [path]
        images = [load_image(one) for one in both]
        if position is not None:
            images = [one_map(image, position) for image in images]
        return images[0] if len(images) == 1 else tuple(images)

    def maps(self, **entities: Any) -> dict[str, Any]:
        """Read one map file as images that nilearn takes, one a layer, stimulus or part.

        Parameters
        ----------
        **entities
            As in `image`.

        Returns
        -------
        dict of str to Nifti1Image or nilearn.surface.SurfaceImage
            By the name of the map, in the order of the file. Of a CIFTI file the cortex.
        """
        path, space, values = self._read(entities)
        return {name: nilearn_image(space, one) for name, one in zip(self._map_names(path), values, strict=True)}

    def values(self, **entities: Any) -> np.ndarray:
        """Read one map file as a table of its maps by the columns of `responses`.

        Parameters
        ----------
        **entities
            As in `image`.

        Returns
        -------
        ndarray, shape (k, size)
        """
        return self._read(entities)[2]

    def _read(self, entities: Mapping[str, Any]) -> tuple[Path, Space, np.ndarray]:
        path = self.file("statmap", **entities)
        own = names.entities_of(path)
        # What all participants of the group have is what its maps show.
        context = {key: own.get(key) for key in _CONTEXT if key not in ("sub", "space")}
        space = self.space(**{**context, "space": own.get("space", own.get("tpl"))}, **_only(own, "sub"))
        return path, space, space.read(path)

    def _map_names(self, path: Path) -> list[str]:
        """Names of a file's maps: of layers or stimuli where there are as many, else of what the numbers are."""
        image, said = load_image(path), read_json(sidecar_path(path))
        shape: tuple[int, ...] = getattr(image, "shape", ())
        if path.name.endswith(".gii"):
            size = len(image.darrays)
        elif path.name.endswith(".nii.gz"):
            size = shape[3] if len(shape) > 3 else 1
        else:
            size = shape[0]
        trials = said.get("TrialsFile")
        lists = [said.get("Layers"), read_table(self.derivatives.resolve(trials))["stim_id"] if trials else None]
        fitting = next((list(one) for one in lists if one is not None and len(one) == size), None)
        if fitting and said.get("VolumeAxis") is not None:
            return [str(name) for name in fitting]
        stat = names.entities_of(path).get("stat") or names.entities_of(path).get("desc", "map")
        return [stat] if size == 1 else [str(number) for number in range(1, size + 1)]

    def regions(self, **entities: Any) -> dict[str, dict[str, np.ndarray]]:
        """Read the atlases as they were used.

        Parameters
        ----------
        **entities
            As in `space`, and ``atlas``.

        Returns
        -------
        dict of str to dict of str to ndarray of bool, shape (size,)
            Columns of each region, by atlas: what every analysis takes as ``regions``.
        """
        space, found = self.space(**entities), self.files("dseg", level="participant", **entities)
        regions: dict[str, dict[str, np.ndarray]] = {}
        for path in found.loc[found["extension"] != ".tsv", "path"]:
            own = names.entities_of(path)
            label = "_".join([own["atlas"], *(f"{key}-{own[key]}" for key in ("seg", "scale") if key in own)])
            regions[label] = space.regions(path)
        return regions

    def rdms(self, **entities: Any) -> RDMs:
        """Read the dissimilarities of one file: of regions, of a network's layers, or of a region's participants.

        Parameters
        ----------
        **entities
            As ``sub="01", atlas="Sch"``, or ``level="dnn", model="resnet18"``.

        Returns
        -------
        RDMs
        """
        ids, values = read_rdms(self.file("relmat", **entities))
        return RDMs(tuple(ids), values)

    def activations(self, model: str, layers: str | Sequence[str] | None = None, **entities: Any) -> Patterns:
        """Find a network's activations; they stay in their file until a block of columns is asked for.

        Parameters
        ----------
        model : str
            The network's label, as in file names.
        layers : str or sequence of str, optional
            By default all that were extracted.
        **entities
            As in `files`.

        Returns
        -------
        Patterns
            One item a stimulus, one group a layer.

        Raises
        ------
        SelectionError
            If there is no such network or layer.
        """
        path = self.file("activations", **{"model": model, "desc": None, "extension": ".h5", **entities})
        there = list(read_json(sidecar_path(path)).get("Layers", []))
        wanted = there if layers is None else [layers] if isinstance(layers, str) else list(layers)
        for layer in wanted:
            _position(there, layer, path)
        ids, stored = read_activations(path, wanted)
        groups = [
            Group(name, values, model, values.unit_shape, values.channel_axis)
            for name, values in zip(wanted, stored, strict=True)
        ]
        return Patterns(pd.DataFrame({"stimulus_id": ids}), groups)

    def responses(self, *, desc: str = "condition", standardize: bool = True, **entities: Any) -> Patterns:
        """Find a participant's responses; images are read when their values are asked for.

        Parameters
        ----------
        desc : str
            ``condition``: one item a stimulus, with ``n_repeats``. ``singletrial``: one item a trial that was
            estimated, with its ``run`` and ``session``.
        standardize : bool
            Whether single trials are z-scored within runs, as they are before they are averaged or analysed.
        **entities
            As ``sub="01"``, and the task and space where there are several.

        Returns
        -------
        Patterns
            One group, ``brain``, and its space.

        Raises
        ------
        SelectionError
            If there are none, or in several spaces.
        """
        found = self.files("statmap", desc=desc, stat="effect", level="participant", **entities)
        space = self.space(**entities)
        parts, items = [], []
        for path in map(Path, found["path"]):
            table = read_table(self.derivatives.resolve(read_json(sidecar_path(path))["TrialsFile"]))
            table = table.rename(columns={"stim_id": "stimulus_id"})
            if desc == "singletrial":
                own = names.entities_of(path)
                labels = {"task": own.get("task", ""), "session": own.get("ses", ""), "run_label": own.get("run", "")}
                table = table.drop(columns="ses").assign(run=recording_name(own), **labels)
            estimated = table.get("estimated", pd.Series("True", index=table.index)).astype(str).str.lower() == "true"
            kept = np.flatnonzero(estimated)
            parts.append(ImageRows(path, space, kept, standardize=standardize and desc == "singletrial"))
            items.append(table.iloc[kept])
        if len(parts) > 1 and desc == "condition":
            self.file("statmap", desc=desc, stat="effect", level="participant", **entities)
        values = parts[0] if len(parts) == 1 else Stack(tuple(parts))
        return Patterns(pd.concat(items, ignore_index=True), (Group("brain", values),), space)


def load(out_dir: str | Path) -> Outputs:
    """Open an output folder; nothing but the names of its files is read.

    Parameters
    ----------
    out_dir : str or Path
        As it was given to ``bidsdnn``.

    Returns
    -------
    Outputs

    Raises
    ------
    MissingInputError
        If the folder is not there, or no output of bidsdnn.
    """
    root = Path(out_dir)
    if not root.is_dir():
        raise MissingInputError(f"{root}: folder not found; give the out_dir of a run of bidsdnn")
    made_by = read_json(root / "dataset_description.json").get("GeneratedBy", [])
    if not any(one.get("Name") == "bidsdnn" for one in made_by):
        raise MissingInputError(f"{root}: no output of bidsdnn; give the out_dir of a run, as derivatives/bidsdnn")
    return Outputs(root)


def _only(entities: Mapping[str, str], *keys: str) -> dict[str, str]:
    return {key: entities[key] for key in keys if key in entities}


def _position(known: Sequence[str], name: str, path: Path) -> int:
    """Where a layer stands among those of a file."""
    if name not in known:
        raise SelectionError(f"{path}: no {name!r} in it; {closest(name, known)}")
    return list(known).index(name)
