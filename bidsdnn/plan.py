"""What a run would do and need, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from bidsdnn.bids.dataset import Dataset, Run
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.config import Config
from bidsdnn.encoding.memory import estimate_bytes as encoding_bytes
from bidsdnn.extraction import activations_path, reduction_of
from bidsdnn.networks.extract import estimate_bytes
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Outcome, describe
from bidsdnn.spaces import recording_shape

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


def encoding_size(runs: Sequence[Run], n_stimuli: int) -> tuple[int, int]:
    """Stimuli, and voxels at most: those of the grid, of which the mask leaves some out; surfaces as they are."""
    shape = recording_shape(runs[0].bold) if runs else (0,)
    return n_stimuli, prod(shape[:-1])


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
    if config.analysis_level == "participant":
        lines.append(f"analyses: {', '.join(config.analysis)}; {config.permutations} permutations")
        sizes = [encoding_size(one.value.runs, len(one.value.shown.stimuli)) for one in loaded if one.error is None]
        if "encoding" in config.analysis and any(prod(size) for size in sizes):
            n, voxels = max(sizes, key=prod)
            needed = encoding_bytes(n, voxels, jobs=n_workers) / 1e6
            lines.append(f"encoding: about {needed:.0f} MB, for {n} stimuli x at most {voxels} voxels")
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
