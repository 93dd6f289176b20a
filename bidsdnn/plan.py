"""What a run would do and need, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from bidsdnn.bids.dataset import Dataset, Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.config import Config
from bidsdnn.encoding.memory import estimate_bytes as encoding_bytes
from bidsdnn.encoding.memory import jobs_that_fit
from bidsdnn.extraction import activations_path, reduction_of
from bidsdnn.networks.extract import estimate_bytes
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Outcome, describe
from bidsdnn.probes import PROBES
from bidsdnn.spaces import load_image, recording_shape

# The image as float32, the voxels in the mask, their copy in double precision for the products, and the interpreter.
COPIES_OF_BOLD = 4
INTERPRETER_MB = 400


def run_memory_mb(run: Run) -> float:
    """Memory that one run's estimation needs, in MB, from the image's header alone.

    Parameters
    ----------
    run : Run

    Returns
    -------
    float
    """
    return INTERPRETER_MB + COPIES_OF_BOLD * 4 * prod(recording_shape(run.bold)) / 1e6


def encoding_size(config: Config, one: Any) -> tuple[int, int]:
    """Items and voxels of a participant's encoding, at most, from events and masks alone.

    Parameters
    ----------
    config : Config
    one : Participant
        As it was loaded.

    Returns
    -------
    n_items : int
        Stimuli; trials where runs or sessions are held out.
    n_voxels : int
        Of the smallest mask, for what is analysed is in all of them; else of the grid. Of surfaces as they are. 0 if
        there are no recordings.
    """
    by_part = config.cross_validation.kind in ("run", "session")
    stimuli = one.shown.stimuli
    n_items = int(stimuli["n_presentations"].sum()) if by_part else len(stimuli)
    if not one.runs:
        return n_items, 0
    shape = recording_shape(one.runs[0].bold)
    masks = {run.mask for run in one.runs if run.mask} if len(shape) == 4 else set()
    return n_items, min((int(np.count_nonzero(load_image(mask).dataobj)) for mask in masks), default=prod(shape[:-1]))


def check_encoding(config: Config, loaded: Sequence[Outcome]) -> None:
    """Refuse an encoding that does not fit ``--mem-mb`` before anything is estimated.

    Items of series are volumes, and precomputed responses come with a mask of their own: both are checked once they
    are known, before they are fitted.

    Parameters
    ----------
    config : Config
    loaded : sequence of Outcome
        Participants' input.

    Raises
    ------
    ConfigError
    """
    if config.mem_mb is None or "encoding" not in config.analysis or config.response == "timeseries":
        return
    for one in loaded:
        if one.error is None and one.value.runs:
            jobs_that_fit(*encoding_size(config, one.value), mem_mb=config.mem_mb, encoder=config.encoder)


def describe_plan(
    config: Config,
    dataset: Dataset,
    networks: Sequence[tuple[Network, list[str]]],
    loaded: Sequence[Outcome],
    n_workers: int,
) -> str:
    """Say what would be done, for ``--dry-run``.

    Parameters
    ----------
    config : Config
    dataset : Dataset
    networks : sequence of (Network, list of str)
    loaded : sequence of Outcome
        Participants' input.
    n_workers : int

    Returns
    -------
    str
        Several lines.
    """
    lines = [f"bidsdnn {config.analysis_level}: {config.bids_dir} -> {config.out_dir}"]
    stimuli: dict[str, bool] = {}
    for one in loaded:
        if one.error is not None:
            lines.append(f"{one.name}: cannot be analysed: {describe(one.error)}")
            continue
        shown = one.value.shown
        stimuli |= dict(zip(shown.stimuli["stimulus_id"], shown.stimuli["present"], strict=True))
        lines.append(f"{one.name}: {_participant(one.value)}")
    if loaded:
        lines.append(f"stimuli: {len(stimuli)} presented, {sum(stimuli.values())} on disk")
    out = Derivatives(config.out_dir)
    for network, layers in networks:
        n = max(len(stimuli), 1)
        size = estimate_bytes(network, layers, n, reduction=reduction_of(config, n, network=network)) / 1e6
        there = " (a file is there)" if activations_path(out, network.label).exists() else ""
        lines.append(f"{network.label}: {len(layers)} layers ({', '.join(layers)}), {size:.0f} MB on disk{there}")
    if config.computed_features:
        lines.append(f"features computed from the stimuli: {', '.join(config.computed_features)}")
    if config.features:
        lines.append(f"features: {', '.join(f'{name} ({path})' for name, path in config.features.items())}")
    probes = [name for name in config.analysis if name in PROBES]
    if probes:
        units = f" of {', '.join(config.unit)}" if config.unit else ""
        lines.append(f"networks are looked into: {', '.join(probes)}{units}")
    if config.analysis_level == "participant":
        lines.append(f"analyses: {', '.join(config.analysis)}; {config.permutations} permutations")
        asked = "encoding" in config.analysis and config.response != "timeseries"
        sizes = [encoding_size(config, one.value) for one in loaded if asked and one.error is None]
        if any(prod(size) for size in sizes):
            n, voxels = max(sizes, key=prod)
            at_once = jobs_that_fit(n, voxels, mem_mb=config.mem_mb, jobs=n_workers, encoder=config.encoder)
            needed = encoding_bytes(n, voxels, jobs=at_once, encoder=config.encoder) / 1e6
            lines.append(
                f"encoding: about {needed:.0f} MB with {at_once} layers at a time, for {n} stimuli x at most {voxels} "
                "voxels"
            )
    if config.analysis_level == "group":
        lines.append(f"participants: {', '.join(dataset.participants)}")
    lines.append(f"{n_workers} jobs at a time; nothing was written")
    return "\n".join(lines)


def _participant(one: Any) -> str:
    trials = int(one.shown.stimuli["n_presentations"].sum())
    if not one.runs:
        return f"{trials} trials of {len(one.shown.stimuli)} stimuli"
    memory = max(run_memory_mb(run) for run in one.runs)
    space = one.runs[0].entities.get("space", "native")
    return (
        f"{len(one.runs)} runs in {space}, {trials} trials of {len(one.shown.stimuli)} stimuli, "
        f"about {memory:.0f} MB a job"
    )
