"""How a BIDS dataset is opened: its folders are found, and PyBIDS says which files there are.

PyBIDS' index is made without metadata and over the asked participants only; its filter semantics are kept.
What it finds becomes the plain lists of a `Dataset`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids.layout import BIDSLayout, BIDSLayoutIndexer, Query

from bidsdnn.bids.contents import MESHES, Dataset, Source
from bidsdnn.bids.names import LABEL, natural, parse, read_json
from bidsdnn.bids.runs import Run, parse_space
from bidsdnn.errors import (
    ConfigError,
    DataError,
    InvalidDatasetError,
    MissingInputError,
    OutputError,
    SelectionError,
)

__all__ = ["Dataset", "Run", "Source", "open_dataset"]

logger = logging.getLogger(__name__)

VOLUMES = (".nii.gz", ".nii")
# Names of fMRIPrep 1.x end in the side, before which PyBIDS finds no suffix.
SIDES = ("", ".L", ".R")
BOLD = (*VOLUMES, ".dtseries.nii", *(f"{side}.func.gii" for side in SIDES), ".mgh", ".mgz")
# What PyBIDS is asked for; fMRIPrep 1.x used other suffixes, which `names.parse` reads as today's.
QUERIES: dict[str, dict[str, Any]] = {
    "bold": {"suffix": ["bold", "preproc", None], "extension": list(BOLD)},
    "mask": {"suffix": ["mask", "brainmask"], "extension": [".nii.gz", ".nii"]},
    "confounds": {"suffix": ["timeseries", "regressors", "confounds"], "extension": ".tsv"},
    "events": {"suffix": "events", "extension": ".tsv"},
    "anatomy": {"suffix": ["T1w", "preproc"], "extension": [".nii.gz", ".nii"]},
    "mesh": {"suffix": [*MESHES, None], "extension": [f"{side}.surf.gii" for side in SIDES]},
    "cortex": {"suffix": "mask", "extension": ".label.gii"},
}
SUFFIXES = {
    "bold": ("bold",),
    "mask": ("mask",),
    "confounds": ("timeseries", "regressors"),
    "anatomy": ("T1w",),
    "mesh": MESHES,
    "cortex": ("mask",),
}
# Surfaces and CIFTI go without a description.
DESCS = {
    "bold": ("preproc",),
    "mask": ("brain",),
    "confounds": ("confounds",),
    "anatomy": ("preproc",),
    "mesh": (None,),
    "cortex": ("cortex",),
}
# A filter on these speaks of a derivative's BOLD, not of the raw file that it was made from.
DERIVED = ("space", "cohort", "res", "den", "desc", "echo", "part")
IGNORED = (
    r"^/(code|derivatives|logs|models|sourcedata|stimuli)(/|$)",
    r"/(figures|log)(/|$)",
    # A folder that comes twice on one path: a link that leads back.
    r"/([^/]+)/(?:[^/]+/)*\1(/|$)",
)


def open_dataset(
    bids_dir: Path,
    *,
    derivatives: Mapping[str, Path] | None = None,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    tasks: Sequence[str] = (),
    runs: Sequence[int | str] = (),
    space: str | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: Path | None = None,
    raw_bold: bool = False,
    slice_time_ref: float | None = None,
    validate: bool = True,
    brains: bool = True,
) -> Dataset:
    """Open a BIDS dataset and find the files of the asked participants.

    Parameters
    ----------
    bids_dir : Path
    derivatives : mapping of str to Path, optional
        Names and folders; by default every dataset in ``derivatives/`` but this program's own.
    participants, sessions, tasks : sequence of str
        Labels, with or without ``sub-``, ``ses-``, ``task-``; empty means all.
    runs : sequence of int
        Indices; empty means all.
    space : str, optional
        ``SPACE[:res-x][:den-x]``, or ``native``.
    filters : mapping, optional
        From `filters.bids_filters`.
    database_dir : Path, optional
        Folder for PyBIDS' index of all participants, made there if it is missing.
    raw_bold : bool
        Analyse raw BOLD instead of a derivative's.
    slice_time_ref : float, optional
        Fraction of the repetition time at which a volume shows, where its JSON file does not say.
    validate : bool
        Whether a missing or incomplete ``dataset_description.json`` is an error.
    brains : bool
        Whether participants are needed; networks can be shown a folder of stimuli that has none.

    Returns
    -------
    Dataset

    Raises
    ------
    InvalidDatasetError
        If the folder is no BIDS dataset.
    SelectionError
        If no asked participant is there, or an asked task is not.
    MissingInputError
        If a derivative's folder is not there.
    ConfigError
        If a filter asks about an unknown entity, or the space is not in its syntax.
    """
    if space:
        parse_space(space)
    description = _description(bids_dir, validate=validate)
    labels = _participants(bids_dir, [label.removeprefix("sub-") for label in participants], brains=brains)
    if raw_bold:
        logger.warning("%s: raw BOLD is analysed as it is, without motion or slice-time correction", bids_dir)
    asked = {query: dict(entities) for query, entities in (filters or {}).items()}
    folders = dict(derivatives) if derivatives else _discover(bids_dir / "derivatives")
    if "raw" in folders:
        raise ConfigError(f"-d raw={folders['raw']}: the name `raw` is the raw dataset's; choose another")
    raw = _source("raw", bids_dir, labels, asked, raw_bold=raw_bold, database_dir=database_dir)
    dataset = Dataset(
        root=bids_dir,
        participants=labels,
        description=description,
        raw=raw,
        sources=tuple(
            _source(name, path, labels, asked, raw_bold=raw_bold, database_dir=database_dir)
            for name, path in folders.items()
        ),
        sessions=tuple(label.removeprefix("ses-") for label in sessions),
        asked_tasks=tuple(label.removeprefix("task-") for label in tasks),
        asked_runs=tuple(int(str(index).removeprefix("run-")) for index in runs),
        asked_space=space,
        raw_bold=raw_bold,
        slice_time_ref=slice_time_ref,
        filtered=frozenset(asked),
    )
    for task in dataset.asked_tasks:
        if task not in dataset.tasks:
            there = ", ".join(dataset.tasks) or "none"
            raise SelectionError(f"--task-id {task}: {bids_dir} has no such task; its tasks are {there}")
    return dataset


def _description(root: Path, *, validate: bool) -> dict[str, Any]:
    """Content of the raw dataset's description; checks that it is one."""
    path = root / "dataset_description.json"
    if not root.is_dir():
        raise InvalidDatasetError(f"{root}: no such folder; check bids_dir")
    try:
        description = read_json(path)
        absent = [key for key in ("Name", "BIDSVersion") if key not in description]
        problem = f"{path}: lacks {' and '.join(absent)}; add them" if absent else ""
    except MissingInputError:
        description, problem = (
            {},
            f"{path}: not found, so this is no BIDS dataset; add it, with Name and BIDSVersion",
        )
    except DataError as error:
        description, problem = {}, str(error)
    if problem and validate:
        raise InvalidDatasetError(f"{problem}, or pass --skip-bids-validation")
    if problem:
        logger.warning("%s", problem)
    return description


def _labels(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    names = [path.name for path in root.iterdir() if path.name.startswith("sub-") and path.is_dir()]
    return sorted((name[4:] for name in names if LABEL.fullmatch(name[4:])), key=natural)


def _participants(root: Path, asked: Sequence[str], *, brains: bool) -> tuple[str, ...]:
    present = _labels(root)
    if not present and not brains and not asked:
        return ()
    if not present:
        raise InvalidDatasetError(f"{root}: no folder sub-<label> in it; give the folder that holds the participants")
    known = [label for label in present if label in asked] if asked else present
    some = ", ".join(present[:5]) + (", ..." if len(present) > 5 else "")
    if not known:
        raise SelectionError(f"--participant-label {' '.join(asked)}: not in {root}; its participants are {some}")
    for label in asked:
        if label not in present:
            logger.warning("--participant-label %s: not in %s, left out; its participants are %s", label, root, some)
    return tuple(known)


def _discover(folder: Path) -> dict[str, Path]:
    """Datasets in a ``derivatives`` folder and one level deeper, but those of this program."""
    found: dict[str, Path] = {}
    for path in _folders(folder):
        nested = [] if _labels(path) else [child for child in _folders(path) if _is_dataset(child)]
        for dataset in [path, *nested] if _is_dataset(path) else nested:
            name = f"{path.name}-{dataset.name}" if dataset.name in found else dataset.name
            if not _is_own(dataset):
                found[name] = dataset
    return found


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "sub-")))


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset_description.json").is_file() or bool(_labels(folder))


def _is_own(folder: Path) -> bool:
    path = folder / "dataset_description.json"
    makers = read_json(path).get("GeneratedBy") if path.is_file() else None
    return isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == "bidsdnn" for m in makers[:1])


def _source(
    name: str,
    root: Path,
    labels: Sequence[str],
    filters: Mapping[str, Mapping[str, Any]],
    *,
    raw_bold: bool,
    database_dir: Path | None,
) -> Source:
    """Index a dataset, and keep the files of the asked participants."""
    if not root.is_dir():
        raise MissingInputError(f"{root}: no such folder; check -d {name}={root}")
    if name != "raw" and not (root / "dataset_description.json").is_file():
        logger.warning("%s: no dataset_description.json; read as a derivative all the same", root)
    try:
        layout = _layout(name, root, labels, database_dir=database_dir)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise DataError(f"{root}: PyBIDS cannot index it ({error}); mend its dataset_description.json") from error
    files = {}
    for kind, query in QUERIES.items():
        asked = dict(filters.get(kind, {}))
        if name == "raw" and not raw_bold:
            asked = {entity: value for entity, value in asked.items() if entity not in DERIVED}
        found = _query(layout, kind, {**query, **asked})
        if kind == "bold":
            # What PyBIDS makes of `lh.sub-01_task-x_bold.mgh`.
            found += _query(layout, kind, {**asked, "suffix": ["lh", "rh"]})
        files[kind] = tuple(path for path in found if _fits(path, kind, labels, asked, raw=name == "raw"))
    return Source(name, root, files)


def _fits(path: Path, kind: str, labels: Sequence[str], asked: Mapping[str, Any], *, raw: bool) -> bool:
    """Whether a file is a participant's and of a kind; a filter on suffix or desc replaces our own."""
    parsed = parse(path)
    if parsed.get("sub") not in labels or kind == "events":
        return parsed.get("sub") in labels or (kind == "events" and "sub" not in parsed)
    right_suffix = "suffix" in asked or parsed["suffix"] in SUFFIXES[kind]
    volume = parsed["extension"] in VOLUMES
    if raw and kind == "bold" and not volume:
        return False
    fitting = (None,) if raw else DESCS[kind] if volume or kind != "bold" else (None, *DESCS[kind])
    return right_suffix and ("desc" in asked or parsed.get("desc") in fitting)


def _layout(name: str, root: Path, labels: Sequence[str], *, database_dir: Path | None) -> BIDSLayout:
    """PyBIDS' index: of the asked participants in memory, or of all in a folder that is used again."""
    asked = "|".join(map(re.escape, labels))
    others = [] if database_dir else [rf"^/sub-(?!(?:{asked})(?:[/_.]|$))"]
    indexer = BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=[re.compile(text) for text in (*IGNORED, *others)]
    )
    options = {
        "validate": False,
        "is_derivative": name != "raw",
        "config": ["bids", "derivatives"],
        "indexer": indexer,
    }
    with warnings.catch_warnings():
        # What PyBIDS says of old descriptions concerns their authors.
        warnings.simplefilter("ignore")
        if database_dir is None:
            return BIDSLayout(root, **options)
        stored = database_dir / name
        if not (stored / "layout_index.sqlite").is_file():
            _store(root, stored, options)
        layout = BIDSLayout(root, database_path=stored, **options)
    if os.path.realpath(layout.root) != os.path.realpath(root):
        raise ConfigError(f"--bids-database-dir {stored}: is the index of {layout.root}; give another folder")
    return layout


def _store(root: Path, stored: Path, options: Mapping[str, Any]) -> None:
    """Make an index on disk; jobs that start together never read one that is half made."""
    making = stored.with_name(f".{stored.name}-{uuid.uuid4().hex}")
    try:
        making.mkdir(parents=True)
        BIDSLayout(root, database_path=making, **options)
        making.rename(stored)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        if not (stored / "layout_index.sqlite").is_file():
            raise OutputError(f"--bids-database-dir {stored}: cannot be written ({error.strerror})") from error


def _query(layout: BIDSLayout, kind: str, wanted: Mapping[str, Any]) -> list[Path]:
    try:
        found = layout.get(return_type="file", **{key: _translated(value) for key, value in wanted.items()})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--bids-filter-file, query {kind}: {str(error).splitlines()[0]}") from error
    # A folder that is reached twice, through a link, holds each file once.
    distinct = {(os.path.realpath(Path(path).parent), Path(path).name): Path(path) for path in reversed(found)}
    return sorted(distinct.values(), key=lambda path: natural(path.as_posix()))


def _translated(value: Any) -> Any:
    if isinstance(value, list):
        return [_translated(v) for v in value]
    return {None: Query.NONE, "*": Query.ANY}.get(value, value)
