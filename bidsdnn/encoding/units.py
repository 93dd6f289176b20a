"""Encoding from each channel or each position of a layer: every one a small layer of its own, read in one stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bidsdnn.encoding.layer import LayerFit, LayerScores
from bidsdnn.encoding.tables import mean
from bidsdnn.errors import DataError
from bidsdnn.geometry.units import Grid
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.patterns import Group

_VALUES = 16_000_000
"""Activations held at a time."""


@dataclass(frozen=True, eq=False)
class UnitFits:
    """Fits one layer's channels or positions; sent to a worker with the layer.

    Parameters
    ----------
    iterate : str
        ``channel`` or ``position``.
    fit : LayerFit
        Of the voxels in regions.
    named : sequence of (str, str)
        Atlas and name of each region.
    """

    iterate: str
    fit: LayerFit
    named: Sequence[tuple[str, str]]

    def __call__(self, group: Group) -> pd.DataFrame:
        """A row each unit and region; p_fwe is over the layer's units."""
        if not group.shape:
            raise DataError(f"{group.name}: the shape of its activations is not known; extract them again")
        grid = Grid.of(group.shape, group.channel_axis)
        n_regions = len(self.named)
        largest = np.full((len(self.fit.orders), n_regions), -np.inf)
        observed, rows = [], []
        for number, unit in enumerate(self._units(group, grid)):
            scores = self.fit(unit)
            means = np.full((1 + len(largest), n_regions), np.nan) if scores.null is None else scores.null.means
            largest = np.maximum(largest, np.where(np.isnan(means[1:]), -np.inf, means[1:]))
            observed.append(means[0])
            rows += self._rows(group, grid.name(self.iterate, number), scores)
        reached = np.array([(largest >= one - 1e-10).sum(axis=0) for one in observed])
        corrected = np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + len(largest)))
        table = pd.DataFrame(rows).assign(p_fwe=corrected.ravel())
        table.loc[table["pearsonr"].isna(), ["p", "p_fwe"]] = np.nan
        return table

    def _rows(self, group: Group, unit: str, scores: LayerScores) -> list[dict[str, object]]:
        usable = np.isfinite(scores.pearsonr)
        return [
            {
                "atlas": atlas, "network": group.network, "layer": group.name, self.iterate: unit, "region": name,
                "n_voxels": int((columns & usable).sum()), "pearsonr": mean(scores.pearsonr[columns & usable]),
                "p": p,
            }
            for (atlas, name), columns, p in zip(self.named, self.fit.regions, scores.p, strict=True)
        ]  # fmt: skip

    def _units(self, group: Group, grid: Grid) -> Iterator[Group]:
        """Channels or positions one after the other; some of them are in memory at a time."""
        count, each = grid.channels, grid.positions
        if self.iterate == "position":
            count, each = each, count
        step = max(1, _VALUES // (each * group.values.shape[0]))
        for start in range(0, count, step):
            for values in grid.read(group.values, self.iterate, start, min(start + step, count)):
                yield Group(group.name, values, group.network)


def unit_scores(
    groups: Sequence[Group], fit: LayerFit, named: Sequence[tuple[str, str, np.ndarray]], *, iterate: str,
    map: ParallelMap,
) -> pd.DataFrame:  # fmt: skip
    """Responses were predicted from each channel or position of a layer by itself, as from layers.

    Parameters
    ----------
    groups : sequence of Group
        Layers, with the shape of a stimulus' activations.
    fit : LayerFit
    named : sequence of (str, str, ndarray of bool)
        Atlas, region and voxels.
    iterate : str
        ``channel`` or ``position``.
    map : callable
        Spreads layers over workers.

    Returns
    -------
    DataFrame
        Mean r of a region's voxels; NaN for a unit that is the same for all stimuli.

    Raises
    ------
    DataError
        If a layer's shape is not known.
    """
    inside = fit.regions.any(axis=0)
    drawn, tested = (None if one is None else one[..., inside] for one in (fit.drawn, fit.tested))
    own = replace(
        fit, responses=fit.responses[:, inside], regions=fit.regions[:, inside], drawn=drawn, tested=tested,
        keeping=None, identification=False,
    )  # fmt: skip
    asked = UnitFits(iterate, own, [(atlas, name) for atlas, name, _ in named])
    return pd.concat(map(asked, groups, label=f"encoding by {iterate}"), ignore_index=True)
