"""Feature spaces that a user brings: a row a stimulus, samples of each stimulus, or samples of each run.

What a folder or file holds is told from its content, and everything is joined by the name of the stimulus or the
entities of the run, never by order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from bidsdnn.bids.dnnbrain import ACT, read_act, read_stim, stim_beside
from bidsdnn.bids.feature_files import (
    IDS,
    NAMES_FILE,
    TIMES,
    Course,
    array_course,
    course,
    named_rows,
    numbers,
    read_recording,
    table_course,
    text_table,
)
from bidsdnn.bids.files import digest
from bidsdnn.bids.names import entities_of, require, same, sidecar
from bidsdnn.bids.runs import Run
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.patterns import Group, Patterns
from bidsdnn.stimuli import file_sha256

T = TypeVar("T")

RECORDINGS = ("_stim.tsv", "_stim.tsv.gz")
TABLES = (".tsv", ".csv")
ARRAYS = (".npy", ".npz")
_OTHER_DATASETS = ("code", "derivatives", "sourcedata", "logs", "figures")


@dataclass(frozen=True, eq=False)
class Features:
    """One feature space.

    Parameters
    ----------
    name : str
        What it is called in files and tables.
    path : Path
        What the user gave; ``Path()`` of what was computed.
    stimuli : Patterns, optional
        A row a stimulus, where that is what the file holds.
    courses : mapping of str to Course
        Samples in time since the beginning of a stimulus, by the name that the files give it.
    recordings : tuple of Path
        ``_stim.tsv[.gz]`` files, on the clock of their run.
    content : str
        Hash of the files; of recordings, `content_of` says it for some runs.
    """

    name: str
    path: Path
    stimuli: Patterns | None = None
    courses: Mapping[str, Course] = field(default_factory=dict)
    recordings: tuple[Path, ...] = ()
    content: str = ""

    @property
    def flag(self) -> str:
        """How a user asked for it."""
        return f"--features {self.name}" + (f"={self.path}" if self.path.name else "")

    def rows(self, ids: list[str]) -> Patterns:
        """Rows of some stimuli.

        Parameters
        ----------
        ids : list of str

        Returns
        -------
        Patterns
            In the order asked; one group, or one a layer.

        Raises
        ------
        DataError
            If features vary in time, or a stimulus has none.
        """
        if self.stimuli is None:
            raise DataError(
                f"{self.flag}: these features vary in time; use --response timeseries, or give "
                "a table with one row a stimulus"
            )
        position = {stimulus: row for row, stimulus in enumerate(self.stimuli.ids)}
        chosen = [self._found(name, position) for name in ids]
        return Patterns(pd.DataFrame({"stimulus_id": ids}), self.stimuli.take(np.array(chosen, dtype=int)).groups)

    def course_of(self, stimulus: str) -> Course:
        """Samples of one stimulus.

        Parameters
        ----------
        stimulus : str
            Its id; found by its path, its file name, or either without extension.

        Raises
        ------
        DataError
            If it has none.
        """
        return self._found(stimulus, self.courses)

    def recording(self, run: Run) -> Course:
        """Samples of one run, found by the entities of its name.

        Parameters
        ----------
        run : Run

        Raises
        ------
        DataError
            If there is no file for the run, or several.
        """
        path = self._recording_of(run)
        return read_recording(path, root=_root_of(path))

    def content_of(self, runs: Sequence[Run]) -> str:
        """Hash of the files that some runs use."""
        return _content(tuple(self._recording_of(run) for run in runs)) if self.recordings else self.content

    def _recording_of(self, run: Run) -> Path:
        applying = [p for p in self.recordings if _applies(p, run)]
        named = [p for p in applying if entities_of(p).get("recording") == self.name] or applying
        most = max((len(entities_of(p)) for p in named), default=0)
        found = [p for p in named if len(entities_of(p)) == most]
        if len(found) == 1:
            return found[0]
        where = self.flag
        if not found:
            raise DataError(f"{where}: no _stim.tsv file for {run.name}; add it, or leave out the run with --run-label")
        raise DataError(
            f"{where}: {len(found)} files fit {run.name} ({', '.join(p.name for p in found)}); choose one by calling "
            "the features as its recording- entity"
        )

    def _found(self, stimulus: str, table: Mapping[str, T]) -> T:
        path = PurePosixPath(stimulus)
        for key in (stimulus, str(path.with_suffix("")), path.name, path.stem):
            if key in table:
                return table[key]
        loose = [key for key in table if PurePosixPath(key).stem == path.stem]
        if len(loose) == 1:
            return table[loose[0]]
        what = f"several rows fit ({', '.join(loose[:3])})" if loose else f"nothing for stimulus {stimulus!r}"
        there = ", ".join(list(table)[:3])
        raise DataError(
            f"{self.flag}: {what}; it has {there}{', ...' if len(table) > 3 else ''}; "
            "name them by the stimulus' id, path or file name"
        )


def read_features(name: str, path: Path) -> Features:
    """Read a feature space, whatever form it has.

    Parameters
    ----------
    name : str
    path : Path
        A folder of ``_stim.tsv[.gz]`` recordings, such as a BIDS dataset, or one such file; a folder with a table
        (columns ``onset`` and maybe ``duration``) or an array (with its times) for each stimulus; a table of all
        stimuli with or without onsets, also in long form (``onset``, ``feature``, ``value``); or an array with a row
        a stimulus, ``.npz`` (``stimulus_id`` and ``values``), ``.npy`` beside its ``file_names.txt``, or all layers of
        DNNBrain's ``.act.h5`` beside its ``.stim.csv``.

    Returns
    -------
    Features

    Raises
    ------
    MissingInputError
        If there is nothing, or nothing that can be read.
    DataError
        If a file's content cannot be used.
    """
    files = list(_walk(path)) if path.is_dir() else [require(path)]
    recordings = tuple(file for file in files if file.name.endswith(RECORDINGS))
    if recordings:
        return Features(name, path, recordings=recordings)
    if not path.is_dir():
        return _of_file(name, path)
    read = [file for file in files if file.suffix in TABLES + ARRAYS and not file.name.endswith(TIMES)]
    if not read:
        raise MissingInputError(
            f"--features {name}={path}: no _stim.tsv, table ({', '.join(TABLES)}) or array ({', '.join(ARRAYS)}) in it"
        )
    courses = {}
    for file in read:
        key = file.relative_to(path).with_suffix("").as_posix()
        if key in courses:
            raise DataError(f"{file}: a second file for the stimulus {key!r}; keep one")
        courses[key] = table_course(file) if file.suffix in TABLES else array_course(file)
    _same_width(name, courses)
    return Features(name, path, courses=courses, content=_content(tuple(files)))


def _of_file(name: str, path: Path) -> Features:
    content = [path]
    if path.name.endswith(ACT):
        table = stim_beside(path)
        layers = read_act(path, read_stim(table), network=name)
        return Features(name, path, stimuli=layers, content=_content((path, table)))
    if path.suffix in ARRAYS:
        ids, values = named_rows(path)
        content += [path.with_name(NAMES_FILE)] if path.suffix == ".npy" else []
        return Features(name, path, stimuli=_patterns(name, path, ids, values), content=_content(tuple(content)))
    if path.suffix not in TABLES:
        raise DataError(
            f"--features {name}={path}: not a folder, table or array; give {', '.join((*TABLES, *ARRAYS, ACT))}"
        )
    frame = text_table(path)
    column = next((one for one in IDS if one in frame), None)
    if column is None:
        raise DataError(f"{path}: no column names the stimuli; call it {IDS[0]}")
    if frame[column].isna().any():
        raise DataError(f"{path}: {column} is empty in row {int(frame[column].isna().argmax()) + 1}; name the stimulus")
    if "onset" not in frame:
        values = numbers(frame.drop(columns=column), path)
        return Features(
            name, path, stimuli=_patterns(name, path, frame[column].tolist(), values), content=_content((path,))
        )
    known = None if "feature" not in frame else sorted(set(frame["feature"].dropna()))
    courses = {
        str(stimulus): course(rows.drop(columns=column), path, known)
        for stimulus, rows in frame.groupby(column, sort=False)
    }
    return Features(name, path, courses=courses, content=_content((path,)))


def _patterns(name: str, path: Path, ids: list[Any], values: np.ndarray) -> Patterns:
    texts = [str(one) for one in ids]
    twice = next((one for one in texts if texts.count(one) > 1), None) if len(set(texts)) < len(texts) else None
    if twice is not None:
        raise DataError(f"{path}: stimulus {twice!r} has several rows; keep one, or give their onsets")
    return Patterns(pd.DataFrame({"stimulus_id": texts}), (Group(name, values, name),))


def _same_width(name: str, courses: Mapping[str, Course]) -> None:
    widths = {key: course.values.shape[1] for key, course in courses.items()}
    first = next(iter(widths))
    other = next((key for key, width in widths.items() if width != widths[first]), None)
    if other is not None:
        raise DataError(
            f"--features {name}: {first} has {widths[first]} features and {other} has {widths[other]}; make them equal"
        )


def _applies(path: Path, run: Run) -> bool:
    """Whether a recording's entities are all those of the run."""
    own = {key: value for key, value in entities_of(path).items() if key not in ("recording", "desc")}
    return all(same(key, value, run.entities.get(key)) for key, value in own.items())


def _root_of(path: Path) -> Path:
    """Top folder of a file's dataset; the file's own folder where nothing says it is one."""
    parents = list(path.parents)
    return next((folder for folder in parents if (folder / "dataset_description.json").is_file()), parents[0])


def _walk(root: Path) -> Iterator[Path]:
    """Files below a folder, sorted, but those of other datasets in it."""
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _OTHER_DATASETS)
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _content(files: tuple[Path, ...]) -> str:
    """Hash of files, and of the JSON files of recordings."""
    abouts = [sidecar(p, root=_root_of(p)) if p.name.endswith(RECORDINGS) else None for p in files]
    return digest({"files": [[p.name, file_sha256(p), about] for p, about in zip(files, abouts, strict=True)]})
