"""The files of a stimuli folder, and which of them a value in an events table means.

Datasets write their stimuli in many ways: with Windows separators, with the folder's name before, in another
case, without folder or without extension. The index tries these in a fixed order and takes a looser reading
only if it means one file alone.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from bidsdnn.bids.dnnbrain import STIM, stimuli_of
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import Stimuli, modality

# Files that describe a stimulus share its stem; they are no stimuli beside it.
_DESCRIBING = (".json", ".tsv", ".csv", ".txt", ".md")
_BEP044 = re.compile(r"stim-([0-9a-zA-Z+]+)(?:_part-[0-9a-zA-Z+]+)?_(?:image|video|audio|audiovideo)\.")
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


@dataclass(frozen=True)
class Resolution:
    """What a value means.

    Parameters
    ----------
    stimulus_id : str
        Path of the file relative to the stimuli folder, else the tidied value.
    path : Path or None
        The file; a link without content where `status` is ``datalad``; None where it is missing.
    status : {'found', 'missing', 'datalad'}
    """

    stimulus_id: str
    path: Path | None
    status: Literal["found", "missing", "datalad"]


class StimulusIndex:
    """The files below a stimuli folder, walked once.

    Parameters
    ----------
    root : Path
        The folder; one that does not exist has no files. Dotfiles are left out, links to folders are followed
        once and only where they stay inside, links without content are kept.
    id_map : mapping of str to str, optional
        Files of ids that are no file names; what it says goes before all other readings.

    Notes
    -----
    In place of a folder a ``.stim.csv`` may be given, whose stimuli are then all that there are.
    """

    def __init__(self, root: Path, *, id_map: Mapping[str, str] | None = None) -> None:
        self._listed = stimuli_of(root) if root.name.endswith(STIM) else None
        self._given = root
        self.root = root if self._listed is None else self._listed.root
        self.id_map = dict(id_map or {})
        self._real = Path(os.path.realpath(self.root))
        self.files = tuple(sorted(_walk(self._real) if self._listed is None else self._listed.ids))
        rows = [] if self._listed is None else self._listed.table.to_dict("records")
        self._rows = {str(row["stimulus_id"]): row for row in rows}
        self._paths = _by_key(self.files, str)
        self._basenames = _by_key(self.files, _basename)
        self._bare_paths = _by_key(self.files, lambda name: str(PurePosixPath(name).with_suffix("")))
        self._stems = _by_key(self.files, lambda name: PurePosixPath(name).stem)
        self._labels = _by_key(self.files, _bep044_label)

    def __len__(self) -> int:
        return len(self.files)

    def pictures(self, modalities: Iterable[str] = ("image",)) -> Stimuli:
        """Every stimulus of some kinds, without hashes: of a folder in sorted order, of a ``.stim.csv`` in its own.

        Parameters
        ----------
        modalities : iterable of str
            Kinds of stimuli that are taken.

        Raises
        ------
        MissingInputError
            If there is none.
        """
        if self._listed is None:
            return Stimuli.from_folder(self.root, modalities)
        asked = tuple(modalities)
        chosen = self._listed.of(*asked)
        if not len(chosen):
            kind = self._listed.table["modality"].iloc[0]
            raise MissingInputError(
                f"{self._given}: it lists {kind} and no {' or '.join(asked)}; name a network for {kind} with --network"
            )
        return chosen

    def row(self, stimulus_id: str) -> dict[str, Any]:
        """File, modality and, of a film's frame, start and stop of a stimulus that was found, as `Stimuli` has them.

        Parameters
        ----------
        stimulus_id : str

        Returns
        -------
        dict
        """
        return dict(self._rows.get(stimulus_id) or {"filename": stimulus_id, "modality": modality(stimulus_id)})

    def resolve(self, value: str) -> Resolution:
        """Find the file that a value of an events table means.

        Parameters
        ----------
        value : str
            Looked up in the id map, then as a path in the folder, then ignoring case, then by file name, without
            extension, and as the label of a ``stim-<label>`` file; looser readings only if one file alone fits.

        Returns
        -------
        Resolution

        Raises
        ------
        DataError
            If the value leaves the stimuli folder: by ``..``, as an absolute path, or through a link.
        """
        # An image's number is often written as a float: 24812.0 is 24812 where the map has no other.
        filename = self.id_map.get(value.strip()) or self.id_map.get(value.strip().removesuffix(".0"))
        tidy = self._tidy(filename or value)
        name = self._lookup(tidy)
        if name is None:
            # A link to a folder outside was not walked; a value that goes through it is an error, not a gap.
            if os.path.lexists(self._real / tidy):
                self._check_inside(value, self._real / tidy)
            return Resolution(tidy, None, "missing")
        file = self.row(name)["filename"]
        path = self._real / file
        annexed = self._check_inside(value, path)
        if path.exists():
            return Resolution(name, self.root / file, "found")
        return Resolution(name, self.root / file, "datalad") if annexed else Resolution(name, None, "missing")

    def name_of(self, value: str) -> str:
        """The stimulus that a value means, as `resolve` finds it, whether or not its file can be used."""
        tidy = self._tidy(value)
        return self._lookup(tidy) or tidy

    def _tidy(self, value: str) -> str:
        text = value.strip().replace("\\", "/")
        for root in (self.root, self._real):
            text = text.removeprefix(f"{root.as_posix().rstrip('/')}/")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._leaves(value)
        # A folder `stimuli` may itself hold a folder `stimuli`.
        known = "/".join(parts).lower() in self._paths
        if not known and len(parts) > 1 and parts[0].lower() == "stimuli":
            return "/".join(parts[1:])
        if not known and (text.startswith("/") or re.match(r"[A-Za-z]:/", text)):
            raise self._leaves(value)
        return "/".join(parts) or value

    def _lookup(self, tidy: str) -> str | None:
        base = _basename(tidy)
        bare = [tidy, _EXTENSION.sub("", tidy)]
        for table, keys in (
            (self._paths, [tidy]),
            (self._basenames, [base]),
            (self._bare_paths, bare),
            (self._stems, [_basename(key) for key in bare]),
            (self._labels, [base.removeprefix("stim-")]),
        ):
            for key in keys:
                found = _only(table.get(key.lower(), ()), key)
                if found is not None:
                    return found
        return None

    def _check_inside(self, value: str, path: Path) -> bool:
        """Whether a file is a link of git-annex; raises if it lies outside the folder and is none."""
        target = Path(os.path.realpath(path))
        # Content of git-annex lies in the `.git` of the dataset that holds the folder, so outside the folder.
        annexed = "/annex/objects/" in target.as_posix() and any(
            target.is_relative_to(folder / ".git") for folder in path.parents
        )
        if not annexed and not target.is_relative_to(self._real):
            raise self._leaves(value)
        return annexed

    def _leaves(self, value: str) -> DataError:
        return DataError(
            f"events: stimulus {value!r} leaves the stimuli folder {self.root}; "
            "name files inside it, or give another folder with --stimuli-dir"
        )


def read_categories(root: Path) -> dict[str, str]:
    """Category of each stimulus from the folder's ``stimuli.tsv``, by the stimulus' path in the folder.

    Parameters
    ----------
    root : Path
        A table there with columns ``stimulus_id``, whose values are read as those of an events table, and
        ``category`` is used; without it there are none.

    Returns
    -------
    dict of str to str
    """
    path = root / "stimuli.tsv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, sep="\t", dtype=str, na_values=["n/a"], keep_default_na=False, encoding="utf-8-sig")
    if not {"stimulus_id", "category"} <= set(table):
        return {}
    index = StimulusIndex(root)
    table = table.dropna(subset=["stimulus_id", "category"])
    return {
        index.name_of(name): category for name, category in zip(table["stimulus_id"], table["category"], strict=True)
    }


def _walk(root: Path) -> Iterable[str]:
    """Paths relative to the folder, each real folder visited once."""
    seen: set[str] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen or not Path(real).is_relative_to(root) or not folder.is_dir():
            continue
        seen.add(real)
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror}); allow it, or move it away") from error
        for name in names:
            if name.startswith("."):
                continue
            if (folder / name).is_dir():
                pending.append(folder / name)
            else:
                yield (folder / name).relative_to(root).as_posix()


def _by_key(files: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = defaultdict(list)
    for name in files:
        text = key(name)
        if text:
            table[text.lower()].append(name)
    return dict(table)


def _basename(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _bep044_label(name: str) -> str:
    match = _BEP044.match(_basename(name))
    return match.group(1) if match else ""


def _only(candidates: Iterable[str], key: str) -> str | None:
    """The one file that fits; of several, the one that is a stimulus, or the one written in the same case."""
    fitting = list(candidates)
    if len(fitting) > 1:
        fitting = [name for name in fitting if PurePosixPath(name).suffix.lower() not in _DESCRIBING] or fitting
    if len(fitting) > 1:
        fitting = [name for name in fitting if key == name or f"/{name}".endswith(f"/{key}")]
    return fitting[0] if len(fitting) == 1 else None
