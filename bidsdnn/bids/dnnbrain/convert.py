"""From this program's files to DNNBrain's, and from its tables of stimuli to BIDS events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.arrays import is_activations, read_activations, read_rdms
from bidsdnn.bids.dnnbrain.arrays import write_act, write_rdm
from bidsdnn.bids.dnnbrain.joined import ACT, RDM, STIM
from bidsdnn.bids.dnnbrain.stimulus_files import ID, StimFile, read_stim, write_stim
from bidsdnn.bids.files import read_json, sidecar_path, write_tsv
from bidsdnn.bids.names import require
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.patterns import Group

EVENTS = "_events.tsv"
_TIMES = ("onset", "duration")


def convert(source: Path, target: Path, *, stimuli_dir: Path) -> list[Path]:
    """Convert a file; what it is told from the two endings.

    Parameters
    ----------
    source : Path
        ``_activations.h5`` or ``_relmat.h5`` of this program, or ``.stim.csv``.
    target : Path
        ``.act.h5``, ``.rdm.h5`` or ``_events.tsv``.
    stimuli_dir : Path
        Folder of the stimuli, for the ``.stim.csv`` that is written beside the target.

    Returns
    -------
    list of Path
        Files written.

    Raises
    ------
    ConfigError
        If the endings belong to no conversion.
    MissingInputError
        If the source is not there.
    DataError
        If its content cannot be used, or has no place in the target.
    """
    for (ours, theirs), work in CONVERSIONS.items():
        if source.name.endswith(ours) and target.name.endswith(theirs):
            try:
                return work(require(source), target, stimuli_dir)
            except ValueError as error:
                raise DataError(f"{source}: does not fit {theirs}: {error}") from error
    known = "; ".join(f"{ours} to {theirs}" for ours, theirs in CONVERSIONS)
    raise ConfigError(f"{source.name} to {target.name}: no such conversion; there are {known}")


def _activations(source: Path, target: Path, stimuli_dir: Path) -> list[Path]:
    """Layers to an ``.act.h5``, their stimuli to a ``.stim.csv``."""
    about = read_json(sidecar_path(source))
    layers, clips = about.get("Layers", []), about.get("Clips", {})
    if not is_activations(source) or not layers:
        raise DataError(f"{source}: no activations of this program, or not beside their JSON file; extract them again")
    ids, stored = read_activations(source, layers)
    groups = [
        Group(name, one, shape=one.unit_shape, channel_axis=one.channel_axis)
        for name, one in zip(layers, stored, strict=True)
    ]
    # Frames of one film are pictures that bear numbers; clips of films have no place in a .stim.csv.
    films = {clips[name][0] for name in ids if name in clips and clips[name][1] == "image"}
    film = films.pop() if len(films) == 1 and set(ids) <= set(clips) else ""
    return [write_act(target, groups), _stimuli(ids, target, ACT, stimuli_dir, film=film)]


def _rdms(source: Path, target: Path, stimuli_dir: Path) -> list[Path]:
    """RDMs to an ``.rdm.h5``, of layers where the JSON file names a network; their stimuli to a ``.stim.csv``."""
    ids, rdms = read_rdms(source)
    layers = "Network" in read_json(sidecar_path(source))
    stacked = {name: rdm[None] if layers else rdm for name, rdm in rdms.items()}
    return [write_rdm(target, "dRDM" if layers else "bRDM", stacked), _stimuli(ids, target, RDM, stimuli_dir)]


def _stimuli(ids: Sequence[str], target: Path, ending: str, stimuli_dir: Path, *, film: str = "") -> Path:
    table = pd.DataFrame({ID: np.array(ids, dtype=np.int64 if film else object)})
    where = (stimuli_dir / film).as_posix()
    stim = StimFile("video" if film else "image", where, table, {"title": target.name.removesuffix(ending)})
    return write_stim(target.with_name(target.name.removesuffix(ending) + STIM), stim)


def _events(source: Path, target: Path, stimuli_dir: Path) -> list[Path]:
    """Presentations to a BIDS events table: ``stimID`` is ``stim_file``, ``condition`` is ``trial_type``."""
    table = read_stim(source).table
    missing = [name for name in _TIMES if name not in table]
    if missing:
        raise DataError(f"{source}: no column {', '.join(missing)}; events need to know when stimuli were shown")
    table = table.rename(columns={ID: "stim_file", "condition": "trial_type"}).replace({"": None})
    write_tsv(target, table[[*_TIMES, *(name for name in table if name not in _TIMES)]])
    return [target]


CONVERSIONS: dict[tuple[str, str], Callable[[Path, Path, Path], list[Path]]] = {
    ("_activations.h5", ACT): _activations,
    ("_relmat.h5", RDM): _rdms,
    (STIM, EVENTS): _events,
}
"""By the endings of both files."""
