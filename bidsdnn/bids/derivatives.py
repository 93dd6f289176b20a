"""The output dataset: what is written, under which name, and how it is read back.

The output is the cache: every product carries, in the JSON file beside it, a hash of all that it depends on; equal hash
means that it is read and not computed again. A file appears whole, under a temporary name that is then renamed, or not
at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from bidsdnn import __version__
from bidsdnn.bids import names
from bidsdnn.bids.arrays import read_rdms, write_columns, write_covariances, write_rdms
from bidsdnn.bids.atlases import atlas_entities
from bidsdnn.bids.descriptions import DESCRIPTIONS
from bidsdnn.bids.files import atomic, read_json, sidecar_path, together, write_json, write_text, write_tsv
from bidsdnn.bids.wording import COVARIANCE, README
from bidsdnn.errors import OutputError
from bidsdnn.result import Result
from bidsdnn.spaces import Space

IGNORED = "*.html\nfigures\ngroup\n*_statmap.*\n*_relmat.*\n*_results.*\n*_trials.*\n*_design.*\n"
IGNORED += "*_predictions.*\n*_weights.*\n*_arrays.*\n*_picture.*\n"
# BIDS knows no masks and segmentations of surfaces and CIFTI that have a task in their names.
IGNORED += "*hemi-*\n*.dlabel.nii\n*.plabel.nii\n*_space-fsLR_*\n"


@dataclass(frozen=True)
class Derivatives:
    """The output dataset.

    Parameters
    ----------
    root : Path
    links : mapping of str to Path
        Datasets that products are made from, for ``DatasetLinks`` and ``Sources``.
    """

    root: Path
    links: Mapping[str, Path] = field(default_factory=dict)

    def path(self, suffix: str, extension: str, *, datatype: str | None = "func", **entities: Any) -> Path:
        """Where a product goes; entities that are None or empty are left out.

        Parameters
        ----------
        suffix, extension : str
            As ``statmap`` and ``.nii.gz``.
        datatype : str or None
            Folder of the product.
        **entities
            As ``sub="01", task="things"``.

        Returns
        -------
        Path
        """
        kept = {key: str(value) for key, value in entities.items() if value not in (None, "")}
        return self.root / names.build(kept, suffix=suffix, extension=extension, datatype=datatype)

    def uri(self, path: Path) -> str:
        """BIDS URI of a file in this dataset, or in one it is linked to.

        Parameters
        ----------
        path : Path

        Returns
        -------
        str
            The path itself where it lies in no known dataset.
        """
        inside = [(len(str(root)), name, root) for name, root in {"": self.root, **self.links}.items()]
        for _, name, root in sorted(inside, reverse=True):
            if path.is_relative_to(root):
                return f"bids:{name}:{path.relative_to(root).as_posix()}"
        return str(path)

    def resolve(self, uri: str) -> Path:
        """The file that a BIDS URI of `uri` stands for."""
        _, name, path = uri.split(":", 2) if uri.startswith("bids:") else ("", "", uri)
        return {"": self.root, **self.links}.get(name, self.root) / path

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Let one process at a time make a product; the lock of a process that died is free."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                yield
        except PermissionError as error:
            raise OutputError(f"{path.parent}: cannot be written ({error.strerror}); choose another out_dir") from error

    def start(self, raw: Mapping[str, Any]) -> None:
        """Write what makes the folder a BIDS derivative dataset.

        Parameters
        ----------
        raw : mapping
            The raw dataset's ``dataset_description.json``.
        """
        description: dict[str, Any] = {
            "Name": "bidsdnn: networks and brains",
            "BIDSVersion": "1.11.1",
            "DatasetType": "derivative",
            "GeneratedBy": [
                {
                    "Name": "bidsdnn",
                    "Version": __version__,
                    "Description": "Activations of networks, responses to stimuli, encoding models and RSA",
                }
            ],
        }
        if "DatasetDOI" in raw:
            description["SourceDatasets"] = [{"DOI": raw["DatasetDOI"]}]
        if "License" in raw:
            description["License"] = raw["License"]
        links = {name: os.path.relpath(path, self.root) for name, path in self.links.items()}
        # Array jobs share this folder: links that others wrote stay.
        description["DatasetLinks"] = {
            **read_json(self.root / "dataset_description.json").get("DatasetLinks", {}),
            **links,
        }
        table = "".join(f"{key}\t{text}\n" for key, text in DESCRIPTIONS.items())
        for name, text in {
            "dataset_description.json": json.dumps(description, indent=2, ensure_ascii=False) + "\n",
            ".bidsignore": IGNORED,
            "README.md": README,
            "descriptions.tsv": "desc_id\tdescription\n" + table,
            "descriptions.json": json.dumps({"desc_id": {"Description": "A desc- label of this dataset"}}) + "\n",
        }.items():
            path = self.root / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)

    def write_table(self, path: Path, table: pd.DataFrame, sidecar: Mapping[str, Any]) -> Path:
        """Write a table and then the JSON file beside it."""
        write_tsv(path, table)
        write_json(sidecar_path(path), sidecar)
        return path

    def annotate(self, path: Path, keys: Mapping[str, Any]) -> None:
        """Bring keys of a sidecar up to date, leaving its data as they are."""
        old = read_json(sidecar_path(path))
        if {**old, **keys} != old:
            write_json(sidecar_path(path), {**old, **keys})

    def image_path(self, suffix: str, space: Space, /, **entities: Any) -> Path:
        """Where a ``statmap``, ``mask`` or ``dseg`` of a space goes; of a surface's two files, the left one."""
        extension = space.extension if suffix == "statmap" else space.label_extension
        return self.path(suffix, extension, **{**entities, **space.entities})

    def write_map(
        self,
        path: Path,
        values: np.ndarray,
        space: Space,
        sidecar: Mapping[str, Any],
        *,
        maps: Sequence[str] | None = None,
    ) -> Path:
        """Write a map, and then the JSON file beside each of its files.

        Parameters
        ----------
        path : Path
            Of `image_path`.
        values : ndarray, shape (k, size) or (size,)
        space : Space
        sidecar : mapping
        maps : sequence of str, optional
            Names of the k maps, for formats that hold them; by default the sidecar's ``Layers`` or ``Stimuli``.

        Returns
        -------
        Path
        """
        maps = sidecar.get("Layers", sidecar.get("Stimuli")) if maps is None else maps
        files = space.files(path)
        with together(files) as temporaries:
            space.write(
                temporaries[0], values, names=maps if maps and len(maps) == len(np.atleast_2d(values)) else None
            )
        skull = {"SkullStripped": True} if path.name.endswith(".nii.gz") else {}
        for file in files:
            write_json(sidecar_path(file), {**sidecar, **skull, **_space_keys(file)})
        return path

    def write_rdms(
        self, path: Path, rdms: Mapping[str, np.ndarray], ids: Sequence[str], sidecar: Mapping[str, Any]
    ) -> Path:
        """Write condensed RDMs, one dataset a layer or region, with the stimuli's names, and the JSON beside it."""
        write_rdms(path, rdms, ids)
        keys = {
            "RelationshipMeasure": "1 - Pearson correlation",
            "Weighted": True,
            "Directed": False,
            "ValidDiagonal": False,
            "StorageFormat": "UpperTriangle",
            "NonNegative": True,
        }
        write_json(sidecar_path(path), {**keys, **sidecar})
        return path

    def save(self, result: Result, where: Any, content: str, /, **entities: Any) -> None:
        """Write a result's maps, tables and arrays, and at last the receipt that makes it current.

        Parameters
        ----------
        result : Result
        where : Space
            What the maps' columns are.
        content : str
            Hash of all the result depends on.
        **entities
            Of the participant: ``sub``, ``task``, ``space``, ``res``.
        """
        name = result.analysis
        common = {**result.sidecar, "ConfigurationHash": content}
        written: list[Path] = []
        for m in result.maps:
            path = self.image_path("statmap", where, **entities, model=m.network, stat=m.stat, desc=m.desc or name)
            written.append(self.write_map(path, m.values, where, {**common, **m.sidecar, "Network": m.network}))
        for desc, whole in result.tables.items():
            if not len(whole):  # nor columns: of regions, where there are none
                continue
            for (atlas, network), rows in whole.groupby(["atlas", "network"], sort=False, dropna=False):
                path = self.path("results", ".tsv", **entities, **atlas_entities(atlas), model=network, desc=desc)
                keys = {**common, "Network": network, "Layers": list(dict.fromkeys(rows.get("layer", [])))}
                # A region has no layer, and a layer that no brain is compared with has no region.
                empty = [c for c in ("network", "layer", "region") if c in rows and (rows[c] == "").all()]
                rows = rows.drop(columns=["atlas", *empty])
                written.append(self.write_table(path, rows, keys))
        stat = names.label(str(result.sidecar.get("Metric", "correlation")))
        for atlas, (ids, rdms) in result.arrays.items():
            path = self.path("relmat", ".h5", **entities, **atlas_entities(atlas), stat=stat)
            written.append(self.write_rdms(path, rdms, ids, common))
        for one in result.matrices:
            path = self.path(
                "relmat", ".h5", **entities, **atlas_entities(one.atlas), model=one.network, stat=stat, desc=one.desc
            )
            written.append(self.write_rdms(path, one.values, one.ids, {**common, **one.sidecar}))
        for table in result.columns:
            path = self.path(table.suffix, ".h5", **entities, model=table.network, desc=name)
            write_columns(path, table.ids, table.size, table.tables, table.vectors, table.dtypes)
            write_json(sidecar_path(path), {**common, **table.sidecar, "Network": table.network})
            written.append(path)
        for atlas, regions in result.covariances.items():
            path = self.path("relmat", ".h5", **entities, **atlas_entities(atlas), stat="covariance", desc="noise")
            write_covariances(path, regions)
            write_json(sidecar_path(path), {**common, **COVARIANCE})
            written.append(path)
        written += self.write_weights(result, common, **entities)
        self.write_receipt(name, written, common, **entities)

    def write_weights(self, result: Result, sidecar: Mapping[str, Any], /, **entities: Any) -> list[Path]:
        """Write weights that were learnt, a file a network, and return the files."""
        written = []
        for label, content in result.weights.items():
            path = self.path("weights", ".pt", **{**entities, "model": label}, desc=result.analysis)
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            write_json(sidecar_path(path), {**sidecar, "Network": label, "Description": "Weights, for NETWORK@PATH"})
            written.append(path)
        return written

    def write_atlas(
        self, label: str, regions: Mapping[str, np.ndarray], where: Space, /, about: Mapping[str, Any] | None = None,
        **entities: Any,
    ) -> list[Path]:  # fmt: skip
        """Write an atlas as it was used, on the data's grid, with its names, and say at the root what it is."""
        entities |= atlas_entities(label)
        path = self.image_path("dseg", where, **entities)
        codes = np.zeros(where.size, dtype=np.int32)
        for index, columns in enumerate(regions.values(), start=1):
            codes[columns] = index
        numbered = dict(enumerate(regions, start=1))
        with together(where.files(path)) as temporaries:
            where.write_codes(temporaries[0], codes, numbered)
        written = [path]
        if where.label_extension == ".nii.gz":
            # A volume has no place for names; labels of surfaces and CIFTI hold theirs.
            written.append(self.path("dseg", ".tsv", **entities))
            write_tsv(written[-1], pd.DataFrame({"index": list(numbered), "name": list(regions)}))
        for file in where.files(path):
            write_json(sidecar_path(file), {"Description": "The atlas on the grid of the data", **_space_keys(file)})
        description = {"Name": entities["atlas"], "Description": "An atlas that the user gave with --atlas"}
        path_of_it = self.root / f"atlas-{entities['atlas']}_description.json"
        if read_json(path_of_it) != {**description, **(about or {})}:
            write_json(path_of_it, {**description, **(about or {})})
        return written

    def write_mask(self, path: Path, space: Space) -> Path:
        """Write a space's mask and the JSON file beside it."""
        with together(space.files(path)) as temporaries:
            space.write_mask(temporaries[0])
        for file in space.files(path):
            write_json(sidecar_path(file), {"Type": "Brain", **_space_keys(file)})
        return path

    def write_receipt(
        self, analysis: str, written: Sequence[Path], sidecar: Mapping[str, Any], **entities: Any
    ) -> None:
        """Say that an analysis is complete: what it wrote, and the hash of what that depends on."""
        files = [file for path in written for file in _files(path)]
        outputs = [path.relative_to(self.root).as_posix() for path in files]
        write_json(self.receipt(analysis, **entities), {**sidecar, "Outputs": outputs})

    def receipt(self, analysis: str, **entities: Any) -> Path:
        """The JSON file that applies to all tables of an analysis, written when everything else is there."""
        return self.path("results", ".json", **entities, desc=analysis)

    def current(self, analysis: str, content: str, **entities: Any) -> bool:
        """Whether an analysis' products are all there and were made from the same inputs in the same way."""
        receipt = read_json(self.receipt(analysis, **entities))
        return receipt.get("ConfigurationHash") == content and all(
            (self.root / name).exists() for name in receipt.get("Outputs", [])
        )

    def entries(self, *, below: str, arrays: bool = True) -> list[tuple[Path, dict[str, str], str, dict[str, Any]]]:
        """Products in a folder of this dataset: path, entities, suffix and sidecar; RDMs come with their arrays.

        Parameters
        ----------
        below : str
            As ``sub-01``, ``group`` or ``stimuli``.
        arrays : bool
            Whether RDMs are read.

        Returns
        -------
        list of (Path, dict, str, dict)
        """
        found = []
        for path in sorted((self.root / below).rglob("*")):
            parsed = names.parse(path) if path.is_file() and not path.name.startswith(".") else {}
            if path.suffix == ".json" or parsed.get("suffix") not in ("results", "statmap", "relmat", "picture"):
                continue
            # The left file stands for both hemispheres.
            if parsed.pop("hemi", "L") == "R":
                continue
            keys = ("suffix", "extension", "datatype")
            entities = {key: value for key, value in parsed.items() if key not in keys}
            sidecar = read_json(sidecar_path(path))
            if parsed["suffix"] == "relmat" and arrays and parsed.get("stat") != "covariance":
                ids, rdms = read_rdms(path)
                sidecar |= {"_items": ids, "_arrays": rdms}
            found.append((path, entities, parsed["suffix"], sidecar))
        return found


def _files(path: Path) -> list[Path]:
    """A product's files: of a surface both."""
    both = names.entities_of(path).get("hemi") == "L"
    return [path, names.hemisphere(path, "R")] if both else [path]


def _space_keys(path: Path) -> dict[str, str]:
    """Keys that the specification requires of an image in a space."""
    entities = names.parse(path)
    space = entities.get("space") or entities.get("tpl")
    keys = {"SpatialReference": f"space-{space}" if space else "the grid of the functional images"}
    if "res" in entities:
        keys["Resolution"] = f"that of the input's res-{entities['res']}"
    if "den" in entities:
        keys["Density"] = f"that of the input's den-{entities['den']}"
    return keys
