"""The files of an output folder, found by the entities of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.errors import SelectionError
from bidsdnn.lookup import closest

LEVELS = ("dnn", "participant", "group")
TABLE_ENTITIES = ("sub", "task", "space", "atlas", "model", "desc")
"""Columns that a table has in any case."""
_FILE = ("path", "level", "suffix", "extension")
_FOLDERS = {"sub": "participant", "tpl": "group", "group": "group", "stimuli": "dnn"}


@dataclass(frozen=True)
class Files:
    """The files of one output folder by entity.

    Parameters
    ----------
    root : Path
        The ``out_dir`` of a run.
    """

    root: Path

    @cached_property
    def derivatives(self) -> Derivatives:
        """The folder as the program itself sees it, with the datasets that it is linked to."""
        links = read_json(self.root / "dataset_description.json").get("DatasetLinks", {})
        found = {name: Path(target) for name, target in links.items() if "://" not in target}
        return Derivatives(self.root, {name: (self.root / path).resolve() for name, path in found.items()})

    @cached_property
    def _index(self) -> pd.DataFrame:
        """One row a file that has data, by entity; of a surface's two files the left one."""
        rows = []
        for path in sorted(self.root.rglob("*")):
            place = path.relative_to(self.root).parts
            level = _FOLDERS.get(place[0].partition("-")[0])
            if level is None or "figures" in place or path.name.startswith(".") or path.suffix in (".json", ".html"):
                continue
            entities = names.parse(path)
            entities.pop("datatype", None)
            if path.is_file() and entities.pop("hemi", "L") == "L":
                rows.append({"path": path, "level": level, **entities})
        known = [key for key in names.ENTITIES if key in TABLE_ENTITIES or any(key in row for row in rows)]
        return pd.DataFrame(rows, columns=[*_FILE, *known]).fillna("")

    def files(self, suffix: str | None = None, **entities: Any) -> pd.DataFrame:
        """List files by entity.

        Parameters
        ----------
        suffix : str, optional
            What they are: ``results``, ``statmap``, ``relmat``, ``activations``, ``trials``, ``mask``, ``dseg``.
        **entities
            As ``sub="01"``; ``level`` is one of `LEVELS`.

        Returns
        -------
        DataFrame
            One row a file: ``path``, ``level``, ``suffix``, ``extension`` and each entity that occurs, empty where a
            name lacks it. Of a surface's two files the left one stands for both.

        Raises
        ------
        SelectionError
            If no file fits, with what there is; or if an entity is not known.
        """
        found = self._index
        asked = {"suffix": suffix, **entities} if suffix is not None else entities
        for key, value in asked.items():
            if key not in (*_FILE[1:], *names.ENTITIES):
                raise SelectionError(f"{key!r} is no entity; {closest(key, [*_FILE[1:], *names.ENTITIES])}")
            labels = found[key] if key in found else pd.Series("", index=found.index)
            kept = found[labels.map(lambda label, key=key, value=value: _fits(key, label, value))]
            if kept.empty:
                there = ", ".join(sorted({label or "none" for label in labels})) or "nothing"
                before = [f"{name}-{_said(one)}" for name, one in asked.items() if name != key]
                among = f" among {', '.join(before[: list(asked).index(key)])}" if list(asked).index(key) else ""
                raise SelectionError(f"{self.root}: no file with {key} {_said(value)}{among}; there is {there}")
            found = kept
        return found.reset_index(drop=True)

    def file(self, suffix: str, **entities: Any) -> Path:
        """Find one file by entity.

        Parameters
        ----------
        suffix : str
        **entities
            As in `files`.

        Returns
        -------
        Path

        Raises
        ------
        SelectionError
            If none or several fit, with the entities by which those differ.
        """
        found = self.files(suffix, **entities)
        if len(found) > 1:
            differ = {key: sorted(set(found[key])) for key in found.columns[1:] if found[key].nunique() > 1}
            said = "; ".join(f"{key}: {', '.join(label or 'None' for label in some)}" for key, some in differ.items())
            raise SelectionError(f"{self.root}: {len(found)} files of {suffix} fit; say which by {said}")
        return Path(found["path"].iloc[0])

    def sidecar(self, suffix: str, **entities: Any) -> dict[str, Any]:
        """Read the JSON file beside one file: methods, references, settings, software.

        Parameters
        ----------
        suffix : str
        **entities
            As in `files`.

        Returns
        -------
        dict
        """
        return read_json(sidecar_path(self.file(suffix, **entities)))


def _fits(key: str, label: str, value: Any) -> bool:
    """Whether a name's label is one of those asked for; None asks for names without the entity."""
    some = list(value) if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str) else [value]
    return any(names.same(key, label, "" if one is None else str(one).removeprefix(f"{key}-")) for one in some)


def _said(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
