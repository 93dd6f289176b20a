"""One recording: its files, found by the entities of their names, and its timing.

Files of one recording agree in session, task, acquisition, reconstruction, direction and run, whatever
dataset holds them; run 01 is run 1, because raw datasets and derivatives differ in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidsdnn.bids.names import entities_of, hemisphere, natural, require, same, sidecar
from bidsdnn.errors import ConfigError, DataError, MissingInputError, SelectionError
from bidsdnn.spaces import header_tr

RECORDING = ("ses", "task", "acq", "ce", "rec", "dir", "run")
SPACE = ("space", "cohort", "res", "den")
# Longer than any repetition time of an fMRI sequence: a number beyond it was meant in milliseconds.
LONGEST_TR = 60.0


@dataclass(frozen=True)
class Run:
    """One recording of BOLD.

    Parameters
    ----------
    entities : dict of str to str
        Of the BOLD file's name, by their short names, as written.
    bold : Path
    mask, confounds, events : Path or None
        None where there is none.
    tr : float
        Seconds between volumes.
    start_time : float
        Seconds from the first pulse to the moment that the first volume shows (`StartTime` of fMRIPrep).
    space : str or None
        The entity's label; None for the BOLD's own grid.
    raw : Path or None
        The raw BOLD file that it was made from.
    source : str
        The dataset that holds `bold`: ``raw``, or the derivative's name.
    warnings : tuple of str
        What was assumed.
    """

    entities: dict[str, str]
    bold: Path
    mask: Path | None
    confounds: Path | None
    events: Path | None
    tr: float
    start_time: float
    space: str | None
    raw: Path | None
    source: str
    warnings: tuple[str, ...] = ()

    @property
    def sub(self) -> str:
        """Participant's label."""
        return self.entities["sub"]

    @property
    def ses(self) -> str | None:
        """Session's label."""
        return self.entities.get("ses")

    @property
    def task(self) -> str:
        """Task's label, empty where the name has none."""
        return self.entities.get("task", "")

    @property
    def run(self) -> int | None:
        """Index of the run."""
        return int(self.entities["run"]) if self.entities.get("run", "").isdecimal() else None

    @property
    def name(self) -> str:
        """What tells this recording from the participant's others, as ``ses-01_task-x_run-1``."""
        return recording_name(self.entities)


def recording_name(entities: Mapping[str, str]) -> str:
    """The entities that tell recordings of one participant apart, as in a file's name."""
    return "_".join(f"{key}-{entities[key]}" for key in RECORDING if key in entities)


def recording_key(entities: Mapping[str, str]) -> tuple[Any, ...]:
    """Equal for files of one recording, and sorts recordings; runs count as numbers."""
    run = entities.get("run", "")
    labels = [entities.get(key, "") for key in RECORDING[:-1]]
    return (*map(natural, labels), natural(str(int(run)) if run.isdecimal() else run))


def one_per_recording(bolds: Iterable[Path]) -> list[Path]:
    """Choose one file for each recording, in the order of session, task and run.

    Parameters
    ----------
    bolds : iterable of Path
        Of one participant, in one space. A combined image stands for its echoes, the magnitude for the phase.

    Returns
    -------
    list of Path

    Raises
    ------
    SelectionError
        If two files fit one recording.
    """
    groups: dict[Any, list[Path]] = {}
    for path in bolds:
        groups.setdefault(recording_key(entities_of(path)), []).append(path)
    chosen = []
    for _, group in sorted(groups.items(), key=lambda item: item[0]):
        combined = [path for path in group if "echo" not in entities_of(path)] or group
        fitting = [path for path in combined if entities_of(path).get("part", "mag") == "mag"] or combined
        if len(fitting) > 1:
            raise SelectionError(
                f"{fitting[0]}: {fitting[1]} is of the same recording; "
                "choose a derivative with -d NAME=PATH, or a file with --bids-filter-file"
            )
        chosen += fitting
    return chosen


def both_hemispheres(paths: Iterable[Path]) -> dict[Path, Path]:
    """The file that stands for each image: the left one for the two files of a surface, any other for itself.

    Parameters
    ----------
    paths : iterable of Path

    Returns
    -------
    dict of Path to Path
        From each file to the one that stands for it.

    Raises
    ------
    MissingInputError
        If one of a surface's two files is not there, or is a DataLad link whose content is not there.
    """
    found = {}
    for path in paths:
        if "hemi" not in entities_of(path):
            found[path] = path
            continue
        left, right = hemisphere(path, "L"), hemisphere(path, "R")
        for one in (left, right):
            if one == path or one.is_file():
                continue
            if one.is_symlink():
                require(one)
            raise MissingInputError(
                f"{one}: not found, but {path.name} is there; a surface is analysed with both hemispheres, add this one"
            )
        found[path] = left
    return found


def applying(paths: Iterable[Path], entities: Mapping[str, str], *, keys: Sequence[str] = ()) -> Path | None:
    """Choose the file that belongs to a recording.

    Parameters
    ----------
    paths : iterable of Path
        Candidates; one that lacks an entity, such as the run, applies to all its values.
    entities : mapping
        Of the recording.
    keys : sequence of str
        Entities that must be there or absent alike, as those in `SPACE`.

    Returns
    -------
    Path or None
        The one that shares the most entities; None if none applies.
    """
    fitting: list[tuple[int, Path]] = []
    for path in paths:
        theirs = entities_of(path)
        shared = [key for key in ("sub", *RECORDING) if key in theirs]
        if all(same(key, theirs[key], entities.get(key)) for key in shared) and all(
            same(key, theirs.get(key), entities.get(key)) for key in keys
        ):
            fitting.append((-len(shared), path))
    return min(fitting)[1] if fitting else None


def parse_space(text: str) -> dict[str, str | None]:
    """Read ``SPACE[:cohort-x][:res-x][:den-x]``.

    Parameters
    ----------
    text : str
        ``native`` means files without the entity; ``res-native`` and ``den-native`` those without resolution, density.

    Returns
    -------
    dict of str to (str or None)
        Labels that are asked for; None where the entity must be absent.

    Raises
    ------
    ConfigError
        If the text is not in this syntax.
    """
    space, *modifiers = text.split(":")
    wanted: dict[str, str | None] = {"space": None if space == "native" else space}
    for modifier in modifiers:
        key, dash, value = modifier.partition("-")
        if key not in SPACE[1:] or not dash or not value:
            raise ConfigError(
                f"--space {text!r}: {modifier!r} is none of cohort-x, res-x, den-x; write SPACE[:res-x][:den-x]"
            )
        wanted[key] = None if value == "native" else value
    if not space.isalnum():
        raise ConfigError(f"--space {text!r}: {space!r} is no space's name; write SPACE[:res-x][:den-x]")
    return wanted


def choose_space(bolds: Iterable[Path], asked: str | None) -> dict[str, str | None]:
    """Choose the space, and resolution, in which all runs are analysed.

    Parameters
    ----------
    bolds : iterable of Path
        The files there are.
    asked : str or None
        As in `parse_space`; None chooses the only space present.

    Returns
    -------
    dict of str to (str or None)
        Labels of space, cohort, res and den.

    Raises
    ------
    SelectionError
        If no file is in the asked space, or several spaces or resolutions fit; lists them.
    """
    present = {tuple(entities_of(path).get(key) for key in SPACE) for path in bolds}
    wanted = parse_space(asked) if asked else {}
    fitting = [
        variant
        for variant in present
        if all(same(key, variant[SPACE.index(key)], value) for key, value in wanted.items())
    ]
    if len(fitting) == 1:
        return dict(zip(SPACE, fitting[0], strict=True))
    spelt = ", ".join(sorted(_spelt(variant, present) for variant in fitting or present))
    if fitting:
        raise SelectionError(
            f"--space{f' {asked}' if asked else ''}: the preprocessed BOLD is there as {spelt}; choose one"
        )
    raise SelectionError(f"--space {asked}: no BOLD is in this space; there is {spelt or 'none at all'}")


def _spelt(variant: tuple[str | None, ...], others: Iterable[tuple[str | None, ...]]) -> str:
    """As the user writes it; without resolution or density where others have one is ``res-native``, ``den-native``."""
    told = {key: value for key, value in zip(SPACE, variant, strict=True) if value}
    for position, key in ((2, "res"), (3, "den")):
        if any(other[0] == variant[0] and other[position] for other in others):
            told.setdefault(key, "native")
    return ":".join([told.get("space", "native"), *(f"{key}-{told[key]}" for key in SPACE[1:] if key in told)])


def repetition_time(bold: Path, root: Path, raw: Path, raw_root: Path) -> tuple[float, list[str]]:
    """Seconds between volumes, from the JSON files of a derivative, of the raw file, or the image's header.

    Parameters
    ----------
    bold, root : Path
        A file and the dataset it is in.
    raw, raw_root : Path
        The raw file that it was made from, which need not exist, and its dataset.

    Returns
    -------
    tr : float
    warnings : list of str

    Raises
    ------
    DataError
        If the value makes no sense, or there is none.
    """
    for path, top in ((bold, root), (raw, raw_root)):
        value = sidecar(path, root=top).get("RepetitionTime")
        if value is not None:
            return _seconds(value, "RepetitionTime", path, low=1e-3, high=LONGEST_TR), []
    tr = header_tr(bold)
    if not 1e-3 <= tr <= LONGEST_TR:
        raise DataError(f"{bold}: no RepetitionTime in a JSON file, nor in the header; add it to {_json(bold)}")
    return tr, [f"{bold.name}: no RepetitionTime in a JSON file; the header's {tr:g} s was used"]


def start_time(
    bold: Path, root: Path, *, preprocessed: bool, tr: float = 0.0, slice_time_ref: float | None = None
) -> tuple[float, list[str]]:
    """Seconds from the first pulse to the moment that the first volume shows.

    Slice-time correction shifts it to the middle of the volume, by default of fMRIPrep.

    Parameters
    ----------
    bold, root : Path
        A file and the dataset it is in.
    preprocessed : bool
        Whether slice timing may have been corrected.
    tr : float
        Seconds between volumes.
    slice_time_ref : float, optional
        Fraction of the repetition time at which a volume shows, where its JSON file does not say.

    Returns
    -------
    start_time : float
        0 where it is not known.
    warnings : list of str

    Raises
    ------
    DataError
        If the value makes no sense.
    """
    metadata = sidecar(bold, root=root)
    if "StartTime" in metadata:
        return _seconds(metadata["StartTime"], "StartTime", bold, low=0.0, high=LONGEST_TR), []
    if slice_time_ref is not None:
        return slice_time_ref * tr, []
    if not preprocessed or metadata.get("SliceTimingCorrected") is False:
        return 0.0, []
    return 0.0, [
        f"{bold.name}: no StartTime in its JSON file; volumes were taken to start at 0 s, "
        "though slice-time correction may have moved them by up to one TR; --slice-time-ref says by how much"
    ]


def _seconds(value: Any, key: str, path: Path, *, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(f"{path}: {key} is {value!r} in its JSON file, expected seconds; mend {_json(path)}")
    return float(value)


def _json(path: Path) -> str:
    return path.name.split(".")[0] + ".json"
