"""Where programs leave the responses they estimated, one function a format.

The one idea: the first format that a derivative's files fit is taken; a derivative that holds two levels of the same
estimates, as runs and their average, gives the finer one, so that repeats are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bidsdnn.bids.dnnbrain import ACT, RDM, ROI
from bidsdnn.bids.files import read_table
from bidsdnn.bids.names import natural, parse, same
from bidsdnn.bids.precomputed.labels import Labels, read_labels, share_out, table_beside
from bidsdnn.bids.precomputed.parts import ARRAYS, IMAGES, Part, count_maps, parcel_runs
from bidsdnn.bids.runs import RECORDING, choose_space
from bidsdnn.errors import DataError, MissingInputError, SelectionError
from bidsdnn.spaces import load_image

_SPM = re.compile(r"Sn\((\d+)\) (.+)\*bf\((\d+)\)\s*$")
_MODULATED = re.compile(r"x.+\^\d+$")
_SESSION = re.compile(r"ses(?:sion)?-?0*([0-9]+|[0-9a-zA-Z]+)")
_OTHER = ("bold", "mask", "dseg", "probseg", "T1w", "T2w", "boldref", "statmap", "betaseries", "xfm", "meanvol", "R2")
"""Suffixes of images that are no table of responses."""

_NO_RESPONSES = (ACT, RDM)
"""Endings of DNNBrain's files that may lie beside those of responses."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Which of a participant's files are wanted; empty means all."""

    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    space: str | None = None
    column: str | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """A participant's responses in one derivative.

    Parameters
    ----------
    name : str
        Of the derivative.
    kind : str
        Row of `FORMATS`.
    parts : tuple of Part
    files : tuple of Path
        All of the participant's files, among which masks are looked for.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]
    files: tuple[Path, ...]


def files_of(root: Path, label: str, *, alone: bool) -> list[Path]:
    """A participant's files below a folder, sorted.

    Parameters
    ----------
    root : Path
    label : str
        Without ``sub-``.
    alone : bool
        Whether this is the only participant; then files in which none is named belong to them.

    Returns
    -------
    list of Path
        Those with ``sub-01``, ``sub01``, ``subj01`` or, unless it is a number, the label itself as a folder or as
        the part of a file's name before or between underscores.
    """
    own = re.compile(rf"(sub|subj|subject)[-_]?{re.escape(label)}", re.IGNORECASE)
    any_one = re.compile(r"(sub|subj|subject)[-_]?[0-9a-zA-Z+]+", re.IGNORECASE)
    found = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        words = [*parts[:-1], *re.split(r"[_.]", parts[-1])]
        mine = any(own.fullmatch(word) or (word == label and not label.isdecimal()) for word in words)
        if mine or (alone and not any(any_one.fullmatch(word) for word in words)):
            found.append(path)
    return sorted(found, key=lambda path: natural(path.as_posix()))


def find(name: str, root: Path, label: str, asked: Asked, *, alone: bool = False) -> Found | None:
    """Find a participant's responses in a derivative.

    Parameters
    ----------
    name : str
        Of the derivative.
    root : Path
        Its folder.
    label : str
        Participant, without ``sub-``.
    asked : Asked
    alone : bool
        Whether this is the only participant.

    Returns
    -------
    Found or None
        None if there are none.

    Raises
    ------
    DataError
        If files and names of stimuli do not fit together.
    SelectionError
        If none is in the asked space, sessions, tasks or runs.
    """
    if not root.is_dir():
        raise MissingInputError(f"{root}: no such folder; check -d {name}={root}")
    files = files_of(root, label, alone=alone)
    for kind, finder in FORMATS.items():
        if parts := finder(files, asked):
            return Found(name, kind, tuple(parts), tuple(files))
    return None


def own(files: Sequence[Path], asked: Asked) -> list[Part]:
    """Single-trial responses that this program wrote: ``desc-singletrial_statmap`` and its table of trials."""
    tables = {_recording(path): path for path in files if path.name.endswith("_desc-singletrial_trials.tsv")}
    maps = [
        path
        for path in files
        if (name := parse(path))["suffix"] == "statmap"
        and name.get("desc") == "singletrial"
        and not path.name.endswith(".json")
        and name.get("hemi") != "R"
    ]
    parts = []
    for path in _chosen(maps, asked):
        table_path = tables.get(_recording(path))
        if table_path is None:
            raise MissingInputError(f"{path}: its table of trials is not beside it (desc-singletrial_trials.tsv)")
        table = read_table(table_path)
        if len(table) != count_maps(path):
            raise DataError(f"{table_path}: {len(table)} trials for {count_maps(path)} responses in {path.name}")
        estimated = table.get("estimated")
        keep = (
            np.ones(len(table), bool) if estimated is None else estimated.astype(str).str.lower().eq("true").to_numpy()
        )
        ids = table.loc[keep, "stim_id"].tolist()
        parts.append(_part(path, ids, np.flatnonzero(keep), labels=table_path))
    return parts


def statmaps(files: Sequence[Path], asked: Asked) -> list[Part]:
    """Condition images of fitlins and nilearn: ``contrast-<label>_stat-effect_statmap``, the label the stimulus."""
    maps = [
        path
        for path in files
        if (name := parse(path))["suffix"] == "statmap"
        and name.get("stat") == "effect"
        and "contrast" in name
        and name["extension"] in IMAGES
    ]
    return [_part(path, [parse(path)["contrast"]], np.array([0])) for path in _finest(_chosen(maps, asked))]


def betaseries(files: Sequence[Path], asked: Asked) -> list[Part]:
    """NiBetaSeries: ``desc-<trialtype>_betaseries``, a volume a trial of one condition, which is the stimulus."""
    maps = [
        path for path in files
        if (name := parse(path))["suffix"] == "betaseries" and "desc" in name and name["extension"] in IMAGES
    ]  # fmt: skip
    parts = []
    for path in _chosen(maps, asked):
        count = count_maps(path)
        parts.append(_part(path, [parse(path)["desc"]] * count, np.arange(count)))
    return parts


def glmsingle(files: Sequence[Path], asked: Asked) -> list[Part]:
    """GLMsingle's results: the betas of the most elaborate model, and a table of the stimuli of all trials."""
    for stem in ("TYPED_FITHRF_GLMDENOISE_RR", "TYPEC_FITHRF_GLMDENOISE", "TYPEB_FITHRF"):
        if results := [path for path in files if path.name.startswith(f"{stem}.") and path.suffix in ARRAYS]:
            return _labelled(_one_a_folder(results), files, asked, needed=True)
    return []


def spm(files: Sequence[Path], asked: Asked) -> list[Part]:
    """SPM's ``beta_0001.nii``: the condition stands in the image's header, ``Sn(1) face*bf(1)``; Sn is the run."""
    parts = []
    for path in files:
        if not re.fullmatch(r"beta_\d{4}\.nii(\.gz)?", path.name):
            continue
        raw = load_image(path).header["descrip"].item()
        match = _SPM.search(raw.decode("latin-1") if isinstance(raw, bytes) else str(raw))
        # The constant, motion, modulators and derivatives are no responses to a condition.
        if match is None or match.group(3) != "1" or _MODULATED.search(match.group(2)):
            continue
        session = _SESSION.search(path.as_posix())
        ses = session.group(1) if session else ""
        run = f"{path.parent.as_posix()} {match.group(1)}"
        parts.append(Part(path, (match.group(2),), np.array([0]), (run,), (ses,)))
    return parts


def regions(files: Sequence[Path], asked: Asked) -> list[Part]:
    """Regions' series: ``timeseries.tsv``, ``.ptseries.nii``, ``.roi.h5``, HDF5 tables a run; a label a volume."""
    tables = [
        path
        for path in files
        if (path.name.endswith("_timeseries.tsv") and parse(path).get("desc") != "confounds")
        or path.name.endswith((".ptseries.nii", ".pscalar.nii"))
    ]
    runs = {(path, ""): count_maps(path) for path in _chosen(tables, asked) if table_beside(path, files)}
    for path in files:
        if path.suffix in (".h5", ".hdf5") and not path.name.endswith(_NO_RESPONSES) and table_beside(path, files):
            runs |= {(path, key): shape[0] for key, shape in parcel_runs(path).items()}
    parts, groups = [], {table_beside(path, files): True for path, _ in runs}
    for table in filter(None, groups):
        mine = {run: count for run, count in runs.items() if table_beside(run[0], files) == table}
        for (path, key), labels in share_out(read_labels(table, asked=asked.column, gaps=True), mine).items():
            rows = np.flatnonzero([name != "" for name in labels.ids])
            whole = _part(path, labels.ids, np.arange(len(labels.ids)))
            named = [
                own or other or (key if key != ROI else "") for own, other in zip(labels.run, whole.run, strict=True)
            ]
            ses = [own or other for own, other in zip(labels.ses, whole.ses, strict=True)]
            of = [tuple(column[row] for row in rows) for column in (labels.ids, named, ses)]
            parts.append(Part(path, of[0], rows, of[1], of[2], table, key))
    return parts


def betas(files: Sequence[Path], asked: Asked) -> list[Part]:
    """Betas with a table of stimuli beside them: a 4-D image (NSD, BOLD5000, a ``labelfold`` table) or HDF5."""
    maps = [
        path
        for path in files
        if path.name.endswith((*IMAGES, ".dscalar.nii", *ARRAYS))
        and parse(path)["suffix"] not in _OTHER
        and not path.name.endswith(("_R.func.gii", ".R.func.gii", ROI, *_NO_RESPONSES))
        and parse(path).get("hemi") != "R"
        and table_beside(path, files) is not None
    ]
    return _labelled(_chosen(_one_a_stem(maps), asked), files, asked, needed=False)


def _labelled(maps: Sequence[Path], files: Sequence[Path], asked: Asked, *, needed: bool) -> list[Part]:
    """Files whose stimuli stand in a table, each table shared by the files it lies beside."""
    groups: dict[Path, dict[Path, int]] = {}
    for path in maps:
        table = table_beside(path, files)
        count = count_maps(path)
        if table is None:
            if needed:
                raise MissingInputError(
                    f"{path}: nothing beside it says which stimulus each of its {count} trials showed; "
                    "add trials.tsv with a column stim_id and one row a trial"
                )
            continue
        if count > 0:
            groups.setdefault(table, {})[path] = count
    parts = []
    for table, counts in groups.items():
        # One table may be shared by files of one image each, or by 4-D files, beside which single images, as their
        # mean, are something else.
        if max(counts.values()) > 1:
            counts = {path: count for path, count in counts.items() if count > 1}
        for path, labels in share_out(read_labels(table, asked=asked.column), counts).items():
            parts.append(_with_labels(path, labels))
    return parts


def _with_labels(path: Path, labels: Labels) -> Part:
    whole = _part(path, labels.ids, np.arange(len(labels.ids)), labels=labels.path)
    session = _SESSION.search(path.name)
    ses = tuple(
        own or other or (session.group(1) if session else "") for own, other in zip(labels.ses, whole.ses, strict=True)
    )
    run = tuple(own or other for own, other in zip(labels.run, whole.run, strict=True))
    return Part(path, whole.ids, whole.rows, run, ses, labels.path)


def _part(path: Path, ids: Sequence[str], rows: np.ndarray, *, labels: Path | None = None) -> Part:
    name = parse(path)
    n = len(ids)
    # Two tasks may both have a run 1.
    run = " ".join(name[key] for key in ("task", "acq", "dir", "run") if key in name) if "run" in name else ""
    return Part(path, tuple(ids), rows, (run,) * n, (name.get("ses", ""),) * n, labels)


def _recording(path: Path) -> tuple[str | None, ...]:
    name = parse(path)
    return tuple(name.get(key) for key in RECORDING)


def _chosen(paths: Sequence[Path], asked: Asked) -> list[Path]:
    """Those of the asked space, sessions, tasks and runs; a name that lacks an entity is not held against it."""
    if not paths:
        return []
    space = choose_space(paths, asked.space)
    kept = [path for path in paths if all(same(key, parse(path).get(key), value) for key, value in space.items())]
    wanted = {"ses": asked.sessions, "task": asked.tasks, "run": tuple(map(str, asked.runs))}
    for key, values in wanted.items():
        if values:
            kept = [p for p in kept if key not in parse(p) or any(same(key, parse(p)[key], value) for value in values)]
    if not kept:
        raise SelectionError(f"{paths[0]}: no responses in the asked sessions, tasks and runs; ask for fewer")
    return kept


def _finest(paths: Sequence[Path]) -> list[Path]:
    """Those of single runs, else of sessions, where there are such beside averages over them."""
    for key in ("run", "ses"):
        if finer := [path for path in paths if key in parse(path)]:
            return finer
    return list(paths)


def _one_a_folder(paths: Sequence[Path]) -> list[Path]:
    """Of a result saved twice, the HDF5 file."""
    best: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: path.suffix == ".npy"):
        best.setdefault(path.parent, path)
    return list(best.values())


def _one_a_stem(paths: Sequence[Path]) -> list[Path]:
    """Of betas saved twice, as NSD's, the image, which has an affine."""
    best: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths, key=lambda path: path.name.endswith(ARRAYS)):
        best.setdefault((path.parent, path.name.split(".")[0]), path)
    return sorted(best.values(), key=lambda path: natural(path.as_posix()))


FORMATS: dict[str, Callable[[Sequence[Path], Asked], list[Part]]] = {
    "bidsdnn": own,
    "statmap": statmaps,
    "betaseries": betaseries,
    "glmsingle": glmsingle,
    "spm": spm,
    "regions": regions,
    "betas": betas,
}
