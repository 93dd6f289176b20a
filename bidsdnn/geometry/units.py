"""RDMs of each channel or each position of a layer, against those of brain regions, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.geometry.comparing import Tests
from bidsdnn.geometry.named import comparing, distance, short
from bidsdnn.methods.similarity import label_permutation
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group

ITERATE = ("channel", "position")
_VALUES = 16_000_000
"""Activations, distances, and similarities under relabelling, held at a time."""


@dataclass(frozen=True)
class Grid:
    """How a layer's units are laid out: channels first in feature maps, last in tokens, alone in vectors.

    Parameters
    ----------
    channels : int
    places : tuple of int
        Of the positions: height and width, or tokens; empty for a vector.
    channels_first : bool
    """

    channels: int
    places: tuple[int, ...]
    channels_first: bool

    @classmethod
    def of(cls, shape: Sequence[int], channel_axis: int | None = None) -> Grid:
        """Read the layout from the shape of a picture's activations, and which axis is the channels if that is known.

        Where it is not, two axes are tokens x channels, and of more the first is the channels.
        """
        sizes = tuple(int(size) for size in shape)
        axis = (len(sizes) == 2) * 1 if channel_axis is None else channel_axis
        return cls(sizes[axis], sizes[:axis] + sizes[axis + 1 :], axis == 0)

    @property
    def positions(self) -> int:
        """Number of positions."""
        return int(np.prod(self.places, dtype=int))

    def read(self, values: Any, iterate: str, start: int, stop: int) -> np.ndarray:
        """Activations of some channels or positions, shape (stop - start, n, units of each)."""
        over = (self.channels, self.positions) if self.channels_first else (self.positions, self.channels)
        outer = (iterate == "channel") == self.channels_first
        n, inner = values.shape[0], over[1]
        if outer:
            block = values[:, slice(start * inner, stop * inner)]
            return np.asarray(block).reshape(n, stop - start, inner).transpose(1, 0, 2)
        parts = [np.asarray(values[:, slice(k * inner + start, k * inner + stop)]) for k in range(over[0])]
        return np.stack(parts, axis=2).transpose(1, 0, 2)

    def name(self, iterate: str, index: int) -> str:
        """A channel's number, or a position's row and column, from 0."""
        if iterate == "channel":
            return str(index)
        return "+".join(str(part) for part in np.unravel_index(index, self.places or (1,)))


@dataclass(frozen=True, eq=False)
class UnitTests:
    """Compares one layer's channels or positions; sent to a worker with the layer.

    Parameters
    ----------
    iterate : str
        Of `ITERATE`.
    metric : str
        Of the units' RDMs.
    brains : mapping of str to mapping of str to ndarray, shape (pairs,)
    tests : Tests
    """

    iterate: str
    metric: str
    brains: Mapping[str, Mapping[str, np.ndarray]]
    tests: Tests

    def __call__(self, group: Group) -> pd.DataFrame:
        """A row each unit, region and comparison; p_fwe is over the layer's units."""
        if not group.shape:
            raise DataError(f"{group.name}: the shape of its activations is not known; extract them again")
        grid = Grid.of(group.shape, group.channel_axis)
        return pd.concat(
            [
                self._table(group, grid, atlas, comparison)
                for atlas in self.brains
                for comparison in self.tests.comparisons
            ],
            ignore_index=True,
        )

    def _table(self, group: Group, grid: Grid, atlas: str, comparison: str) -> pd.DataFrame:
        regions, permutations = self.brains[atlas], self.tests.permutations
        brains = np.array(list(regions.values()))
        best = np.full((permutations, len(brains)), -np.inf)
        parts = []
        for rdms in self._rdms(group, grid, brains.shape[1], permutations * len(brains)):
            similarity, p, null = label_permutation(
                rdms, brains, comparison=comparing(comparison), permutations=permutations, return_null=True,
                seed=seed_for(self.tests.seed, "rsa"),
            )  # fmt: skip
            best = np.maximum(best, np.where(np.isnan(null), -np.inf, null).max(axis=1))
            parts.append((similarity, p))
        similarity, p = (np.concatenate(part) for part in zip(*parts, strict=True))
        reached = np.array([(best >= row - 1e-10).sum(axis=0) for row in similarity])
        p_fwe = np.where(np.isnan(similarity), np.nan, (1 + reached) / (1 + permutations))
        units = np.repeat([grid.name(self.iterate, k) for k in range(len(similarity))], len(regions))
        return pd.DataFrame(
            {
                "atlas": atlas, "network": group.network, "layer": group.name,
                self.iterate: units, "region": list(regions) * len(similarity), "metric": short(self.metric),
                "comparison": short(comparison), "similarity": similarity.ravel(), "p": p.ravel(),
                "p_fwe": p_fwe.ravel(),
            }
        )  # fmt: skip

    def _rdms(self, group: Group, grid: Grid, pairs: int, null: int) -> Iterator[np.ndarray]:
        """RDMs of some units at a time, (k, pairs)."""
        count, each = grid.channels, grid.positions
        if self.iterate == "position":
            count, each = each, count
        measured = distance(self.metric)
        step = max(1, _VALUES // max(pairs, null, each * group.values.shape[0]))
        for start in range(0, count, step):
            values = grid.read(group.values, self.iterate, start, min(start + step, count))
            yield np.array([measured(one) for one in values])


def unit_table(groups: Sequence[Group], compared: UnitTests, *, map: ParallelMap) -> pd.DataFrame:
    """RDMs of each channel or position were compared with those of regions.

    Parameters
    ----------
    groups : sequence of Group
        Layers, with the shape of a picture's activations.
    compared : UnitTests
    map : callable
        Spreads layers over workers.

    Returns
    -------
    DataFrame
        NaN for a unit whose RDM is not defined, as the correlation distance of a channel without positions.

    Raises
    ------
    DataError
        If a layer's shape is not known.
    """
    return pd.concat(map(compared, groups, label=f"RSA by {compared.iterate}"), ignore_index=True)
