"""What a BIDS dataset and its derivatives hold: recordings, events and anatomies of the asked participants.

Plain lists of paths, so that a `Dataset` can be sent to other processes; `dataset.open_dataset` makes one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bidsdnn.bids.names import entities_of, hemisphere, inherited, natural, parse, require, same
from bidsdnn.bids.runs import (
    RECORDING,
    SPACE,
    Run,
    applying,
    both_hemispheres,
    choose_space,
    one_per_recording,
    parse_space,
    recording_key,
    recording_name,
    repetition_time,
    start_time,
)
from bidsdnn.errors import MissingInputError, SelectionError

logger = logging.getLogger(__name__)

# Where a vertex lies, best first; the last is for pictures.
MESHES = ("midthickness", "white", "smoothwm", "pial", "inflated")


@dataclass(frozen=True)
class Source:
    """The files of one dataset that belong to the asked participants.

    Parameters
    ----------
    name : str
        ``raw``, or the derivative's name.
    root : Path
    files : dict of str to tuple of Path
        For each of bold, mask, confounds, events, anatomy, mesh and cortex.
    """

    name: str
    root: Path
    files: Mapping[str, tuple[Path, ...]]

    @cached_property
    def _by_participant(self) -> dict[tuple[str, str | None], list[Path]]:
        grouped: dict[tuple[str, str | None], list[Path]] = {}
        for kind, paths in self.files.items():
            for path in paths:
                grouped.setdefault((kind, entities_of(path).get("sub")), []).append(path)
        return grouped

    def of(self, kind: str, label: str) -> list[Path]:
        """A participant's files of one kind."""
        return self._by_participant.get((kind, label), [])


@dataclass(frozen=True)
class Dataset:
    """A BIDS dataset and its derivatives; made by `open_dataset`.

    Parameters
    ----------
    root : Path
    participants : tuple of str
        Labels asked for and present, without ``sub-``.
    description : dict
        Content of ``dataset_description.json``.
    raw : Source
    sources : tuple of Source
        The derivatives.
    sessions, asked_tasks : tuple of str
    asked_runs : tuple of int
        What was asked for; empty means all.
    asked_space : str or None
    raw_bold : bool
        Whether raw BOLD is analysed.
    slice_time_ref : float or None
        Fraction of the repetition time at which a volume shows, where its JSON file does not say.
    filtered : frozenset of str
        Kinds of files that a filter file speaks of.
    """

    root: Path
    participants: tuple[str, ...]
    description: Mapping[str, Any]
    raw: Source
    sources: tuple[Source, ...] = ()
    sessions: tuple[str, ...] = ()
    asked_tasks: tuple[str, ...] = ()
    asked_runs: tuple[int, ...] = ()
    asked_space: str | None = None
    raw_bold: bool = False
    slice_time_ref: float | None = None
    filtered: frozenset[str] = field(default_factory=frozenset)

    @property
    def name(self) -> str:
        """The dataset's name, by default its folder's."""
        return str(self.description.get("Name") or self.root.name)

    @property
    def derivatives(self) -> dict[str, Path]:
        """Name and folder of each derivative."""
        return {source.name: source.root for source in self.sources}

    @property
    def stimuli_dir(self) -> Path:
        """The stimuli folder of the dataset, which need not exist."""
        return self.root / "stimuli"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have BOLD or events, whether asked for or not."""
        kinds = [("bold", source) for source in (self.raw, *self.sources)] + [("events", self.raw)]
        found = {entities_of(path).get("task") for kind, source in kinds for path in source.files[kind]}
        return tuple(sorted((task for task in found if task), key=natural))

    @cached_property
    def space(self) -> dict[str, str | None]:
        """Labels of space, cohort, res and den in which all runs are analysed.

        Raises
        ------
        SelectionError
            If no BOLD is in the asked space, or several spaces or resolutions fit.
        MissingInputError
            If there is no BOLD.
        """
        return choose_space((path for _, path in self._bolds(None)), self.asked_space)

    def runs(self, label: str) -> list[Run]:
        """The asked recordings of a participant, sorted by session, task and run.

        Parameters
        ----------
        label : str
            Without ``sub-``.

        Returns
        -------
        list of Run
            Each has an events file. Runs of a task ``rest...`` without events are left out with a warning.

        Raises
        ------
        MissingInputError
            If there is no BOLD, or a run has no events file, or a file is a DataLad link without content.
        SelectionError
            If nothing is in the asked space, sessions, tasks and runs, or two files fit one run.
        DataError
            If a JSON file is damaged, or no repetition time is known.
        """
        bolds = [
            (source, path) for source, path in self._bolds(label)
            if all(same(key, entities_of(path).get(key), value) for key, value in self.space.items())
        ]  # fmt: skip
        by_path = {path: source for source, path in bolds if self._asked(path)}
        by_path = {one: by_path[path] for path, one in both_hemispheres(by_path).items()}
        chosen = [(by_path[path], path) for path in one_per_recording(by_path)]
        if not chosen:
            asked = {"sessions": self.sessions, "tasks": self.asked_tasks, "runs": self.asked_runs}
            what = ", ".join(f"{key} {' '.join(map(str, value))}" for key, value in asked.items() if value)
            names = sorted({recording_name(entities_of(path)) for _, path in bolds}, key=natural)
            there = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise SelectionError(
                f"sub-{label}: no run in {what or 'the asked space'}; it has {there or 'no other runs'}"
            )
        runs = [self._run(source, path) for source, path in chosen]
        with_events = [run for run in runs if run.events is not None]
        for run in runs:
            if run.events is not None:
                continue
            if not (run.task.lower().startswith("rest") and with_events):
                recording = entities_of(run.raw) if run.raw else run.entities
                raise MissingInputError(
                    f"{self._raw_path(recording, 'events.tsv')}: no events file for {run.bold.name}; "
                    "add it, or choose runs with --task-id and --run-label"
                )
            logger.warning("sub-%s %s: a run of rest without events is left out", label, run.name)
        return with_events

    def anatomy(self, label: str, space: str | None = None) -> Path | None:
        """The participant's preprocessed T1-weighted image in a space.

        Parameters
        ----------
        label : str
        space : str, optional
            As in ``--space``; by default the one that runs are analysed in.

        Returns
        -------
        Path or None
            None where there is none, and for BOLD on its own grid, in which anatomies are not.
        """
        wanted = self.space if space is None else {"res": None, **parse_space(space)}
        if wanted["space"] is None:
            return None
        # The participant's own T1w space goes without the entity in names of anatomies, and the voxels of fsLR's CIFTI
        # files lie in a template of another name.
        there = {"T1w": None, "fsLR": "MNI152NLin6Asym"}.get(wanted["space"], wanted["space"])
        found = [
            path for source in self.sources for path in source.of("anatomy", label)
            if entities_of(path).get("space") == there and path.is_file()
        ]  # fmt: skip
        found.sort(key=lambda path: (entities_of(path).get("res") != wanted["res"], len(entities_of(path)), path))
        return found[0] if found else None

    def surfaces(self, kind: str, label: str, space: str) -> list[tuple[Path, Path]]:
        """Pairs of left and right files that may belong to the vertices of a space; the caller looks at their number.

        Parameters
        ----------
        kind : str
            ``mesh`` or ``cortex``.
        label : str
            Participant.
        space : str
            The entity's label, as ``fsnative``, ``fsaverage5`` or ``fsLR``.

        Returns
        -------
        list of (Path, Path)
            Meshes in the order of `MESHES`.
        """
        # The participant's own surface goes without the entity; fsaverage5 is fsaverage at a density.
        own = ("fsnative", "T1w", None)
        family = own if space in own else (space, space.rstrip("0123456789"))
        found: list[tuple[Path, Path]] = []
        for source in self.sources:
            for path in source.of(kind, label):
                entities = entities_of(path)
                if entities.get("space") in family and entities.get("hemi") == "L" and path.is_file():
                    right = hemisphere(path, "R")
                    found += [(path, right)] if right.is_file() else []
        order = {suffix: position for position, suffix in enumerate(MESHES)}
        return sorted(found, key=lambda pair: order.get(parse(pair[0])["suffix"], 0))

    def event_files(self, label: str) -> list[Path]:
        """The events file of each asked recording of a participant; needs no BOLD content and no derivative.

        Parameters
        ----------
        label : str

        Returns
        -------
        list of Path
            A file that several recordings share stands there several times.
        """
        recordings = self.raw.of("bold", label) or self.raw.of("events", label)
        distinct = {recording_key(e): e for path in recordings if self._asked(path) for e in [entities_of(path)]}
        found = []
        for _, entities in sorted(distinct.items(), key=lambda item: item[0]):
            events = self._events(entities)
            if events is not None:
                found.append(events)
            elif not entities.get("task", "").lower().startswith("rest"):
                logger.warning("sub-%s %s: no events file", label, recording_name(entities))
        return found

    def _bolds(self, label: str | None) -> list[tuple[Source, Path]]:
        """BOLD files to analyse: of one participant, or of all."""
        sources = (self.raw,) if self.raw_bold else self.sources
        every = [(source, path) for source in sources for path in source.files["bold"]]
        found = every if label is None else [(s, path) for s in sources for path in s.of("bold", label)]
        if found:
            return found
        whose = f"sub-{label}" if label is not None and every else str(self.root)
        if self.raw_bold:
            raise MissingInputError(f"{whose}: no raw bold.nii.gz (that passes --bids-filter-file); check the dataset")
        searched = ", ".join(self.derivatives) or "none found"
        raise MissingInputError(
            f"{whose}: no preprocessed BOLD (desc-preproc_bold.nii.gz, bold.func.gii, bold.dtseries.nii) "
            f"in its derivatives ({searched}); run fMRIPrep, give its output with -d NAME=PATH, or use --raw-bold"
        )

    def _asked(self, path: Path) -> bool:
        entities = entities_of(path)
        run = entities.get("run", "")
        return (
            (not self.sessions or entities.get("ses") in self.sessions)
            and (not self.asked_tasks or entities.get("task") in self.asked_tasks)
            and (not self.asked_runs or (run.isdecimal() and int(run) in self.asked_runs))
        )

    def _run(self, source: Source, bold: Path) -> Run:
        entities = entities_of(require(bold))
        label = entities["sub"]
        raw = applying(self.raw.of("bold", label), entities, keys=RECORDING)
        raw_path = raw or self._raw_path(entities, "bold.nii.gz")
        tr, tr_warnings = repetition_time(bold, source.root, raw_path, self.root)
        start, start_warnings = start_time(
            bold, source.root, preprocessed=not self.raw_bold, tr=tr, slice_time_ref=self.slice_time_ref
        )
        others = [source, *(other for other in self.sources if other is not source)]
        # Masks of an anatomy have no task, and another grid.
        masks = [[p for p in other.of("mask", label) if "task" in entities_of(p)] for other in others]
        mask = next((m for m in (applying(paths, entities, keys=SPACE) for paths in masks) if m), None)
        tables = (applying(other.of("confounds", label), entities) for other in others)
        confounds = next((table for table in tables if table), None)
        return Run(
            entities=entities,
            bold=bold,
            mask=mask and require(mask),
            confounds=confounds and require(confounds),
            events=self._events(entities),
            tr=tr,
            start_time=start,
            space=entities.get("space"),
            raw=raw,
            source=source.name,
            warnings=(*tr_warnings, *start_warnings),
        )

    def _events(self, entities: Mapping[str, str]) -> Path | None:
        recording = self._raw_path(entities, "bold.nii.gz")
        found = inherited(recording, root=self.root, suffix="events", extension=".tsv")
        allowed = [p for p in found if "events" not in self.filtered or p in self.raw.files["events"]]
        return require(allowed[0]) if allowed else None

    def _raw_path(self, entities: Mapping[str, str], ending: str) -> Path:
        """Where the raw dataset has a file of a recording."""
        folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
        name = f"sub-{entities['sub']}_{recording_name(entities)}_{ending}"
        return self.root.joinpath(*folders, "func", name)
