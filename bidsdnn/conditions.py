"""The table that all analyses start from on disk: one response per stimulus, how reliable it is, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.patterns import Group, Patterns
from bidsdnn.single_trials import spaceless
from bidsdnn.spaces import Space


def condition_map(out: Derivatives, space: Space, entities: Mapping[str, str], stat: str) -> Path:
    """Where a map of the responses to stimuli is: ``effect``, ``reliability`` or ``noiseceiling``."""
    return out.image_path("statmap", space, **entities, stat=stat, desc="condition")


def items_path(out: Derivatives, entities: Mapping[str, str]) -> Path:
    """Where the table is that says which stimulus each map shows."""
    return out.path("trials", ".tsv", **spaceless(entities), desc="condition")


def read_conditions(out: Derivatives, space: Space, entities: Mapping[str, str]) -> tuple[Patterns, np.ndarray]:
    """Read what `write_conditions` wrote.

    Parameters
    ----------
    out : Derivatives
    space : Space
    entities : mapping

    Returns
    -------
    patterns : Patterns
    reliability : ndarray, shape (size,)
    """
    items = read_table(items_path(out, entities)).rename(columns={"stim_id": "stimulus_id"})
    values = space.read(condition_map(out, space, entities, "effect"))
    reliability = space.read(condition_map(out, space, entities, "reliability"))[0]
    return Patterns(items, (Group("brain", values),), space), reliability


def write_conditions(
    out: Derivatives,
    space: Space,
    entities: Mapping[str, str],
    patterns: Patterns,
    reliability: np.ndarray,
    common: Mapping[str, Any],
    *,
    units: str,
) -> list[Path]:
    """Write one response per stimulus, its reliability and noise ceiling, and the mask.

    Parameters
    ----------
    out : Derivatives
    space : Space
    entities : mapping
    patterns : Patterns
        One item a stimulus.
    reliability : ndarray, shape (size,)
    common : mapping
        Keys of every sidecar.
    units : str
        Of the responses.

    Returns
    -------
    list of Path
    """
    items = items_path(out, entities)
    text = "Stimuli, one row a volume of the statmap beside it"
    out.write_table(items, patterns.items.rename(columns={"stimulus_id": "stim_id"}), {"Description": text})
    maps = {
        "effect": (patterns.values, "Mean over the responses to each stimulus", units),
        "reliability": (reliability, "Split-half reliability over stimuli, Spearman-Brown corrected", "r"),
        "noiseceiling": (
            np.sqrt(np.clip(reliability, 0, None)), "Highest r to be expected: the square root of the reliability", "r",
        ),
    }  # fmt: skip
    written = [items]
    for stat, (values, description, unit) in maps.items():
        more = {"VolumeAxis": "stimulus", "TrialsFile": out.uri(items)} if stat == "effect" else {}
        path = condition_map(out, space, entities, stat)
        written.append(
            out.write_map(path, values, space, {**common, **more, "Description": description, "Units": unit})
        )
    mask = out.image_path("mask", space, **entities, desc="brain")
    out.write_mask(mask, space)
    return [*written, mask]
