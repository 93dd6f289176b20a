"""What is said of pictures that were made: what their units give for them, beside the best of the stimuli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.probes.driving import drive, own_drive
from bidsdnn.probes.pixels import Pixels, from_bytes
from bidsdnn.probes.stream import stream
from bidsdnn.probes.top import extremes
from bidsdnn.probes.units import Unit
from bidsdnn.result import Picture
from bidsdnn.stimuli import Stimuli, load_image

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Natural:
    """What units give for the stimuli: the largest, of which stimulus, and the spread.

    Parameters
    ----------
    best : ndarray, shape (n_units,)
    stimulus : list of str
    mean, sd : ndarray, shape (n_units,)
    scale : ndarray, shape (n_units,)
        The spread of what is climbed: of a unit that is silent for all stimuli, before its rectification.
    """

    best: np.ndarray
    stimulus: list[str]
    mean: np.ndarray
    sd: np.ndarray
    scale: np.ndarray


def natural_drive(network: Network, stimuli: Stimuli, units: Sequence[Unit], *, device: str = "cpu") -> Natural:
    """Find what units give for stimuli: the best, which it is, and the spread.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    units : sequence of Unit
    device : str

    Returns
    -------
    Natural
    """
    found = extremes(network, stimuli, units, k=1, device=device)
    assert found.best is not None
    scale, silent = found.sd.copy(), ~(found.sd > 0)
    if silent.any():
        quiet = [unit for unit, is_so in zip(units, silent, strict=True) if is_so]
        with torch.inference_mode():
            each = [drive(network.module, one.values, quiet).cpu() for one in stream(network, stimuli, device=device)]
        spread = torch.cat(each).double().numpy().std(axis=0)
        scale[silent] = np.where(spread > 0, spread, 1.0)
    ids = [stimuli.ids[row] for row in found.best[1][0]]
    return Natural(found.best[0][0], ids, found.mean, found.sd, scale)


def score(
    network: Network, prepared: Pixels, pictures: np.ndarray, units: Sequence[Unit], *, device: str = "cpu"
) -> np.ndarray:
    """What units give for the pictures that were made for them, as they are in their files.

    Parameters
    ----------
    network : Network
    prepared : Pixels
    pictures : ndarray of uint8, shape (n_units * count, height, width, 3)
        Those of one unit side by side.
    units : sequence of Unit
    device : str

    Returns
    -------
    ndarray, shape (n_units * count, 2)
        What the unit gives, and what a silent one gives before its rectification.
    """
    count, there = len(pictures) // len(units), prepared.to(device)
    found = np.empty((len(pictures), 2))
    with torch.inference_mode():
        for first in range(0, len(pictures), _BATCH):
            rows = slice(first, min(first + _BATCH, len(pictures)))
            given = there.to_input(from_bytes(pictures[rows]).to(device))
            own = [units[row // count] for row in range(rows.start, rows.stop)]
            for column, silent in enumerate((False, True)):
                found[rows, column] = own_drive(network.module, given, own, silent=silent)[0].cpu().numpy()
    return found


def start_picture(network: Network, stimuli: Stimuli, start: str, prepared: Pixels) -> Tensor:
    """A picture to begin from, as the network sees it.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    start : str
        A stimulus, or a file.
    prepared : Pixels
        Of the network.

    Returns
    -------
    Tensor, shape (1, 3, height, width)
        From 0 to 1.

    Raises
    ------
    ConfigError
        If there is neither.
    """
    if start in stimuli.ids:
        picture = stimuli.read(stimuli.ids.index(start))
    elif Path(start).is_file():
        picture = load_image(Path(start))
    else:
        raise ConfigError(f"start = {start!r}: no stimulus and no file is called so; see stimuli/stimuli.tsv")
    return prepared.to_pictures(network.preprocess(picture)[None].float())


def made_table(
    network: Network, units: Sequence[Unit], count: int, natural: Natural, scores: np.ndarray, stopped: np.ndarray
) -> pd.DataFrame:
    """A row a picture: what its unit gives for it, and for the best stimulus.

    Parameters
    ----------
    network : Network
    units : sequence of Unit
    count : int
        Pictures of each, side by side.
    natural : Natural
    scores : ndarray, shape (n_units * count, 2)
        Of `score`.
    stopped : ndarray of int, shape (n_units * count,)
        Of `Reached`.

    Returns
    -------
    DataFrame
    """
    rows: list[dict[str, Any]] = []
    for number, unit in enumerate(units):
        for picture in range(count):
            place = number * count + picture
            given, sd = float(scores[place, 0]), float(natural.sd[number])
            rows.append({
                "network": network.label, "layer": unit.layer, "unit": str(unit), "picture": picture,
                "activation": given, "driven": float(scores[place, 1]),
                "z": (given - natural.mean[number]) / sd if sd > 0 else np.nan,
                "natural_activation": float(natural.best[number]), "natural_stimulus_id": natural.stimulus[number],
                "natural_z": (natural.best[number] - natural.mean[number]) / sd if sd > 0 else np.nan,
                "above_natural": bool(given > natural.best[number]),
                "stopped_at": int(stopped[place]) if stopped[place] >= 0 else pd.NA,
            })  # fmt: skip
    return pd.DataFrame(rows)


def made_picture(network: Network, row: Mapping[str, Any], pixels: np.ndarray, label: str) -> Picture:
    """Show a picture that was made, by its row of `made_table`."""
    unit = str(row["unit"])
    stopped = "" if pd.isna(row["stopped_at"]) else f" Stopped at step {row['stopped_at']}, where NaN was met."
    return Picture(
        label,
        pixels,
        f"The picture made to drive {unit} of {network.label}",
        f"Optimal stimulus of {unit}: it gives {row['activation']:.4g}; of the stimuli, {row['natural_stimulus_id']} "
        f"gives most, {row['natural_activation']:.4g}.{stopped}",
        unit,
    )
