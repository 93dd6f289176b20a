"""The stimuli that drive a unit most, and least: one pass, and memory for the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.probes.driving import Over, channels, read
from bidsdnn.probes.pictures import sheet
from bidsdnn.probes.stream import stream
from bidsdnn.probes.units import Unit, layer_shape
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli, look


@dataclass(eq=False)
class Extremes:
    """The k largest and smallest values so far of each of many columns, with their rows, and the moments of all.

    Parameters
    ----------
    k : int
    """

    k: int
    n: int = field(default=0, init=False)
    best: tuple[np.ndarray, np.ndarray] | None = field(default=None, init=False, repr=False)
    worst: tuple[np.ndarray, np.ndarray] | None = field(default=None, init=False, repr=False)
    _first: np.ndarray | None = field(default=None, init=False, repr=False)
    _sums: np.ndarray | float = field(default=0.0, init=False, repr=False)
    _squares: np.ndarray | float = field(default=0.0, init=False, repr=False)

    def add(self, values: np.ndarray) -> None:
        """Take in more rows.

        Parameters
        ----------
        values : ndarray, shape (n, n_columns)
            Of the rows that follow those before.
        """
        rows = np.broadcast_to(np.arange(self.n, self.n + len(values))[:, None], values.shape)
        self.best = _largest(self.best, values, rows, self.k, sign=-1)
        self.worst = _largest(self.worst, values, rows, self.k, sign=1)
        exact = values.astype(np.float64)
        if self._first is None:
            self._first = exact[0].copy()
        # Around the first row, so that squares of large means do not swallow the spread.
        self._sums = self._sums + (exact - self._first).sum(0)
        self._squares = self._squares + ((exact - self._first) ** 2).sum(0)
        self.n += len(values)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column over all rows."""
        assert self._first is not None
        return self._first + self._sums / self.n

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of each column over all rows, with n in the denominator."""
        return np.sqrt(np.maximum(self._squares / self.n - (self._sums / self.n) ** 2, 0))


def _largest(
    kept: tuple[np.ndarray, np.ndarray] | None, values: np.ndarray, rows: np.ndarray, k: int, *, sign: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of a stable sort of what is kept and what is new: of equal values, the earlier row."""
    if kept is not None:
        values, rows = np.concatenate([kept[0], values]), np.concatenate([kept[1], rows])
    order = np.argsort(sign * values, axis=0, kind="stable")[:k]
    return np.take_along_axis(values, order, 0), np.take_along_axis(rows, order, 0)


def top_stimuli(
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str] = (),
    units: Sequence[Unit] = (),
    device: str = "cpu",
    workers: int = 1,
    k: int = 8,
    over: Over = "mean",
) -> Result:
    """The stimuli to which each unit gave the largest and the smallest activation were found.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    layers : sequence of str
        All channels of these are looked at if there are no units.
    units : sequence of Unit
        Those that are looked at, with a sheet of pictures each.
    device : str
    workers : int
        Threads that read stimuli; nothing depends on it.
    k : int
        Stimuli at either end.
    over : {'mean', 'max'}
        What of a channel's positions counts.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If k or `over` cannot be used.
    """
    if k < 1 or over not in ("mean", "max"):
        raise ValueError(f"k, over: expected at least 1, and mean or max; got {k}, {over!r}")
    asked = list(units) or [unit for layer in layers for unit in _channels(network, layer)]
    found = extremes(network, stimuli, asked, k=k, over=over, device=device, workers=workers)
    assert found.best is not None and found.worst is not None
    table = _table(asked, stimuli, found)
    pictures = [_picture(network, unit, column, stimuli, found) for column, unit in enumerate(units)]
    of = "the mean" if over == "mean" else "the maximum"
    return Result(
        "topstimuli",
        tables={"topstimuli": table},
        pictures=tuple(picture for picture in pictures if picture is not None),
        sidecar={
            "Methods": f"Of {len(stimuli)} stimuli, the {min(k, len(stimuli))} to which a unit of {network.label} gave "
            f"the largest and the smallest activation were found; of a channel, {of} over its positions.",
            "NumberOfStimuli": len(stimuli),
            "Columns": {
                "end": "best: largest activations; worst: smallest",
                "value": "activation",
                "z": "the same in standard deviations from the mean over all stimuli",
            },
        },
    )


def _channels(network: Network, layer: str) -> list[Unit]:
    shape, axis = layer_shape(network, layer)
    return [Unit(layer, channel) for channel in range(shape[axis] if shape else 1)]


def extremes(
    network: Network, stimuli: Stimuli, units: Sequence[Unit], *, k: int, over: Over = "mean", device: str = "cpu",
    workers: int = 1,
) -> Extremes:  # fmt: skip
    """Pass the stimuli through a network once and keep the extremes of units.

    Parameters
    ----------
    network : Network
        On the device.
    stimuli : Stimuli
    units : sequence of Unit
        Columns of what is returned.
    k : int
    over : {'mean', 'max'}
    device : str
    workers : int

    Returns
    -------
    Extremes
    """
    layers = list(dict.fromkeys(unit.layer for unit in units))
    axes = {layer: layer_shape(network, layer)[1] for layer in layers}
    of = {layer: [i for i, unit in enumerate(units) if unit.layer == layer] for layer in layers}
    order = np.concatenate([of[layer] for layer in layers])
    found = Extremes(k)

    def reduce(layer: str, values: Tensor) -> Tensor:
        own = [units[i] for i in of[layer]]
        if all(not unit.position for unit in own):
            picked = torch.tensor([unit.channel for unit in own], device=values.device)
            return channels(values, axis=axes[layer], over=over)[:, picked]
        return torch.stack([read(values, unit, axis=axes[layer], over=over) for unit in own], 1)

    with torch.no_grad(), Recorder(network.module, layers, reduce=reduce) as record:
        said = f"{network.label} top stimuli"
        for batch in stream(network, stimuli, device=device, label=said, workers=workers):
            seen = record(batch.values)
            values = np.concatenate([seen[layer].numpy() for layer in layers], 1)
            whole = np.empty_like(values)
            whole[:, order] = values
            found.add(whole)
            record.release(seen.values())
    return found


def _table(units: Sequence[Unit], stimuli: Stimuli, found: Extremes) -> pd.DataFrame:
    """A row a unit, end and rank."""
    assert found.best is not None and found.worst is not None
    ids, spread = np.array(stimuli.ids, dtype=object), np.where(found.sd > 0, found.sd, np.nan)
    parts = []
    for end, (values, rows) in (("best", found.best), ("worst", found.worst)):
        n = len(values)
        parts.append(
            pd.DataFrame(
                {
                    "unit": np.repeat([str(unit) for unit in units], n),
                    "layer": np.repeat([unit.layer for unit in units], n),
                    "channel": np.repeat([unit.channel for unit in units], n),
                    "position": np.repeat([",".join(map(str, unit.position)) or "all" for unit in units], n),
                    "end": end,
                    "rank": np.tile(np.arange(1, n + 1), len(units)),
                    "stimulus_id": ids[rows.T.ravel()],
                    "value": values.T.ravel(),
                    "z": ((values - found.mean) / spread).T.ravel(),
                    "_unit": np.repeat(np.arange(len(units)), n),
                }
            )
        )
    table = pd.concat(parts).sort_values(["_unit", "end", "rank"], kind="stable", ignore_index=True)
    return table.drop(columns="_unit")


def _picture(network: Network, unit: Unit, column: int, stimuli: Stimuli, found: Extremes) -> Picture | None:
    """The best stimuli of a unit in one row, the worst in a second; None of sounds."""
    assert found.best is not None and found.worst is not None
    rows: list[list[np.ndarray]] = []
    said: list[Any] = []
    for values, places in (found.best, found.worst):
        tiles = [look(stimuli, int(row)) for row in places[:, column]]
        rows.append([tile for tile in tiles if tile is not None])
        said.append((", ".join(stimuli.ids[int(row)] for row in places[:, column]), values[:, column]))
    if not rows[0]:
        return None
    (best, high), (worst, low) = said
    return Picture(
        unit.label,
        sheet(rows),
        f"The stimuli that drive {unit} most: {best}. Those that drive it least: {worst}.",
        f"{network.label}, {unit}: upper row, the {len(high)} of {len(stimuli)} stimuli with the largest activation, "
        f"from the left ({high[0]:.3g} to {high[-1]:.3g}; mean of all {found.mean[column]:.3g}); lower row, the "
        f"smallest ({low[0]:.3g} to {low[-1]:.3g}).",
        str(unit),
    )
