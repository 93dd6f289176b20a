"""What activations depend on beside the stimuli, where they are kept, and whether they fit the memory and the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bidsdnn.bids.arrays import is_activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.dnnbrain import read_dmask
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError, OutputError
from bidsdnn.methods.reduce import random_dimensions
from bidsdnn.networks.extract import estimate_bytes, estimate_memory
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.store import part_paths
from bidsdnn.networks.work import contents
from bidsdnn.parallel import available_cpus
from bidsdnn.stimuli import Stimuli

PROGRAM_BYTES = 500_000_000
"""The interpreter with torch loaded."""


def activations_path(derivatives: Derivatives, label: str, *, desc: str = "") -> Path:
    """Where a network's activations are kept; those to other stimuli than the dataset's have a ``desc``."""
    middle = f"_desc-{desc}" if desc else ""
    return derivatives.root / "stimuli" / f"model-{label}{middle}_activations.h5"


def components_path(derivatives: Derivatives, label: str) -> Path:
    """Where the principal components of a network's layers are kept."""
    return derivatives.root / "stimuli" / f"model-{label}_desc-pca_activations.h5"


def masks(config: Config) -> dict[str, dict[str, tuple[int, ...]]]:
    """The layers and units of interest, of ``--dmask`` and of the TOML's ``[mask]``, which wins for its layers."""
    read = read_dmask(config.dmask) if config.dmask else {}
    from_file = {layer: {axis: tuple(indices) for axis, indices in axes.items()} for layer, axes in read.items()}
    return from_file | config.mask


def resolved_mask(config: Config, network: Network) -> dict[str, dict[str, tuple[int, ...]]]:
    """The masks by layer of one network; of several for one layer, a later one's axes win."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for pattern, axes in masks(config).items():
        for layer in network.select([pattern]):
            found[layer] = found.get(layer, {}) | axes
    return found


def network_hash(network: Network, reduction: Reduction) -> str:
    """Hash of what activations depend on beside the stimuli."""
    return digest(
        {
            "network": network.name,
            "weights": network.weights_sha256,
            "preprocessing": network.preprocessing,
            "modality": network.modality,
            **reduction.described(),
        }
    )


def reduction_of(
    config: Config, n_stimuli: int, *, network: Network | None = None, stored: Mapping[str, Any] | None = None
) -> Reduction:
    """What is made of activations before they are stored.

    Parameters
    ----------
    config : Config
    n_stimuli : int
        From which ``--projection auto`` finds its dimensions.
    network : Network, optional
        Whose layers the masks are for; by default they stay as they were asked for.
    stored : mapping, optional
        Sidecar of a file that is there; its dimensions are kept if they suffice.

    Returns
    -------
    Reduction

    Raises
    ------
    ConfigError
        If an option cannot be used.
    """
    projection = config.projection
    if projection == "auto":
        projection = random_dimensions(n_stimuli)
        projection = max(projection, int((stored or {}).get("Projection", 0)))
    return Reduction(
        tokens=config.tokens,
        mask=masks(config) if network is None else resolved_mask(config, network),
        pooling=config.pooling,
        projection=projection,
        dtype=config.activation_dtype,
        seed=config.random_seed,
        modules={} if network is None else dict(network.module.named_modules()),
    )


def workers_within(network: Network, layers: Sequence[str], reduction: Reduction, config: Config) -> int:
    """How many batches run at once, by processors and by ``--mem-mb``.

    Raises
    ------
    ConfigError
        If not even one fits.
    """
    workers = config.nprocs or available_cpus()
    if config.mem_mb is None:
        return workers
    one, two = (
        estimate_memory(network, layers, workers=count, reduction=reduction) + PROGRAM_BYTES for count in (1, 2)
    )
    limit = config.mem_mb * 1_000_000
    if one > limit:
        raise ConfigError(
            f"--mem-mb {config.mem_mb}: activations of {network.label}, {len(layers)} layers, need about {one} bytes "
            "of memory; give more, or ask for fewer layers"
        )
    return max(1, min(workers, 1 + int((limit - one) / max(two - one, 1))))


def check_room(
    networks: Sequence[tuple[Network, list[str]]], stimuli: Stimuli, derivatives: Derivatives, *, config: Config,
    desc: str = "",
) -> None:  # fmt: skip
    """Check that what will be extracted fits the memory and, all networks together, the disk.

    Parameters
    ----------
    networks : sequence of (Network, list of str)
    stimuli : Stimuli
        With hashes.
    derivatives : Derivatives
    config : Config
    desc : str
        Of `activations_path`.

    Raises
    ------
    ConfigError
        If the memory does not suffice, with the bytes needed.
    OutputError
        If the disk does not suffice, with the bytes needed and free.
    """
    needed = 0
    for network, layers in networks:
        path = activations_path(derivatives, network.label, desc=desc)
        stored = read_json(sidecar_path(path)) if is_activations(path) else {}
        reduction = reduction_of(config, len(stimuli), network=network, stored=stored)
        kept = stored if stored.get("NetworkHash") == network_hash(network, reduction) else {}
        there = kept.get("Stimuli", {})
        asked = dict(zip(stimuli.ids, contents(stimuli), strict=True))
        if asked.items() <= there.items() and set(layers) <= set(kept.get("Layers", [])):
            continue
        wanted = network.in_order([*layers, *kept.get("Layers", [])])
        workers_within(network, wanted, reduction, config)
        # The old file stays until the new one is complete; what an interrupted run wrote is there already.
        begun = part_paths(path.with_name(f".{path.name}"))[0]
        size = estimate_bytes(network, wanted, len(there.keys() | asked.keys()), reduction=reduction)
        needed += max(0, size - (begun.stat().st_blocks * 512 if begun.exists() else 0))
    folder = next(parent for parent in (derivatives.root, *derivatives.root.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{derivatives.root}: activations need {needed} bytes and {free} are free; free space, choose another "
            "out_dir, or store less with --layer, --pooling, --projection or --activation-dtype float16"
        )


def described(config: Config, *, components: bool = True) -> str:
    """What was made of activations before anything was related to them, in sentences; empty where nothing was.

    Parameters
    ----------
    config : Config
    components : bool
        Whether principal components over all stimuli are part of it.

    Returns
    -------
    str
    """
    said = reduction_of(config, 2).sentence
    if config.projection == "auto":
        said = said.replace(f"{random_dimensions(2)} random", "random", 1)
    if config.pca is not None and components:
        what = f"their first {config.pca} principal components"
        if config.pca < 1:
            what = f"as many of their principal components as explain {100 * config.pca:g} % of the variance"
        said += (
            f" Layers were replaced by {what} over all stimuli, as published with DNNBrain; scores of test stimuli are "
            "therefore not independent of the training stimuli."
        )
    return said.strip()
