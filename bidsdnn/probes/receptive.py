"""Which part of a picture a unit can see, and which it does: fields from the architecture, and from stimuli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.inputs import prepared
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.probes import gradients
from bidsdnn.probes.driving import check_precision, drive, frozen
from bidsdnn.probes.fields import Field, picture_axes, receptive_fields
from bidsdnn.probes.occlusion import Occluder, grid_of
from bidsdnn.probes.overlays import over, place, seen
from bidsdnn.probes.pictures import sheet
from bidsdnn.probes.units import Unit, layer_shape
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli

METHODS = ("theoretical", "gradient", "occlusion", "activation")
REFERENCES = {
    "theoretical": "receptive_arithmetic", "gradient": "effective_field", "occlusion": "object_detectors",
    "activation": "object_detectors",
}  # fmt: skip
EDGE = 1 - 0.9545
"""Share of a map's maximum above which a pixel counts as seen: of a Gaussian, two standard deviations (Luo et al.)."""
BATCH = 8


def receptive_field(
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str] = (),
    units: Sequence[Unit] = (),
    device: str = "cpu",
    method: str | Sequence[str] = METHODS,
    n: int = 32,
    threshold: float = EDGE,
    patch: int = 0,
    step: int = 0,
    fill: float = 0.0,
) -> Result:
    """Receptive fields of layers were derived from the network's operations, and those of units measured with stimuli.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    layers : sequence of str
        Those whose fields are derived, besides those of units.
    units : sequence of Unit
        Those whose fields are measured. Of a channel, the unit in the middle of its map.
    device : str
    method : str or sequence of str
        Of `METHODS`: ``gradient`` is the mean absolute gradient over stimuli, ``occlusion`` the mean absolute change
        under a patch, ``activation`` the mean of the channel's maps, brought to the picture's size and moved so that
        their peaks meet in the middle.
    n : int
        Stimuli that are averaged, taken at even spacing.
    threshold : float
        Share of the mean map's maximum above which a pixel counts as seen.
    patch, step : int
        Of occlusion, in pixels. Default: a fourteenth of the picture's shorter side, and half of it.
    fill : float
        What the patch shows.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If a parameter cannot be used.
    ConfigError
        If there is no such method, or the network gives no gradients.
    """
    names = [method] if isinstance(method, str) else list(dict.fromkeys(method))
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"[parameters.receptive-field] method {name!r} is not known; {closest(name, METHODS)}")
    if n < 1 or not 0 < threshold < 1:
        raise ValueError(f"n, threshold: expected at least 1, and between 0 and 1; got {n}, {threshold}")
    if units and "gradient" in names:
        check_precision(network)
    first = prepared(network, stimuli, 0)
    asked = network.in_order([*layers, *[unit.layer for unit in units]])
    with frozen(network.module):
        fields = receptive_fields(network.module, first[None].to(torch.device(device)), asked)
        found = []
        rows = np.unique(np.linspace(0, len(stimuli) - 1, min(n, len(stimuli))).astype(int))
        measured = [name for name in names if name != "theoretical"]
        if units and measured:
            look = _Look(network, stimuli, rows, torch.device(device), patch, step, fill)
            found = [_measured(look, unit, fields.get(unit.layer), measured) for unit in units]
    table = _layers(network, fields, first)
    return Result(
        "receptivefield",
        tables={
            "receptivefield": table,
            **({"receptivefieldunits": _units(found, threshold)} if found else {}),
        },
        pictures=tuple(_picture(network, one, threshold, len(rows)) for one in found if one.maps),
        numbers=_numbers(found, measured) if found else {},
        sidecar=_sidecar(network, names if units else ["theoretical"], len(rows), threshold),
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """What a field is measured with."""

    network: Network
    stimuli: Stimuli
    rows: np.ndarray
    device: torch.device
    patch: int
    step: int
    fill: float

    def batches(self) -> list[list[int]]:
        """Rows of the stimuli that run together."""
        return [[int(row) for row in self.rows[k : k + BATCH]] for k in range(0, len(self.rows), BATCH)]

    def load(self, rows: Sequence[int]) -> Tensor:
        """Stimuli as the network is given them."""
        return torch.stack([prepared(self.network, self.stimuli, row) for row in rows]).to(self.device)


@dataclass(frozen=True, eq=False)
class _Measured:
    """Mean maps of one unit, by method, and the picture under them."""

    unit: Unit
    field: Field | None
    maps: dict[str, np.ndarray]
    ground: np.ndarray
    n: int


def _measured(look: _Look, unit: Unit, field: Field | None, names: Sequence[str]) -> _Measured:
    """Mean maps over stimuli of the unit in the middle of a channel, or at its position."""
    shape, axis = layer_shape(look.network, unit.layer)
    others = shape[:axis] + shape[axis + 1 :]
    at = replace(unit, position=unit.position or tuple(length // 2 for length in others))
    axes: dict[str, int] = {}

    def score(batch: Tensor) -> Tensor:
        return drive(look.network.module, batch, [at], axes=axes)

    maps: dict[str, np.ndarray] = {}
    total = np.zeros(0)
    occluder: Occluder | None = None
    for rows in look.batches():
        batch = look.load(rows)
        whole = batch.sum(0).cpu().numpy()
        total = total + whole if total.size else whole
        for name in names:
            if name == "gradient":
                found = _summed(gradients.gradient(score, batch)[0][0].abs())
            elif name == "occlusion":
                occluder = occluder or _occluder(look, score, batch, at, field)
                found = torch.stack([occluder.grid.spread(occluder(one)[0].abs())[0] for one in batch]).sum(0)
            else:
                centred = _centred(look, unit, batch, axis)
                if centred is None:
                    continue
                found = centred
            maps[name] = maps.get(name, 0.0) + found.cpu().numpy().astype(np.float64)
    maps = {name: (values / len(look.rows)).astype(np.float32) for name, values in maps.items()}
    return _Measured(at, field, maps, seen(total / len(look.rows)), len(look.rows))


def _summed(maps: Tensor) -> Tensor:
    """Sum over stimuli, and over the input's channels where it has any."""
    return maps.sum(0) if maps.ndim == 2 else maps.sum((0, 1))


def _occluder(look: _Look, score: gradients.Score, batch: Tensor, unit: Unit, field: Field | None) -> Occluder:
    sides = [batch.shape[axis] for axis in picture_axes(batch.shape[1:])][-2:]
    patch = look.patch or max(1, min(sides) // 14)
    grid = grid_of(batch.shape[1:], size=patch, step=look.step or max(1, patch // 2))
    # What a unit cannot see cannot change it.
    within = None if field is None or field.whole else field.box(unit.position)
    return Occluder(score, grid, look.fill, within=within)


def _centred(look: _Look, unit: Unit, batch: Tensor, axis: int) -> Tensor | None:
    """The sum of a channel's maps at the picture's size, their peaks moved to the middle; None if it has no maps."""
    with torch.no_grad(), Recorder(look.network.module, [unit.layer]) as record:
        values = record(batch)[unit.layer].select(1 + axis, unit.channel)
    sizes = [batch.shape[one] for one in picture_axes(batch.shape[1:])]
    if values.ndim - 1 != len(sizes):
        return None
    large = gradients.upsampled(values[None].clamp_min(0), sizes)[0]
    total = torch.zeros(sizes)
    for one in large:
        peak = np.unravel_index(int(one.argmax()), one.shape)
        total += _moved(one, [size // 2 - int(at) for size, at in zip(sizes, peak, strict=True)])
    return total


def _moved(values: Tensor, by: Sequence[int]) -> Tensor:
    """A map moved along its axes; what comes in from outside is nothing."""
    out = torch.zeros_like(values)
    new = tuple(slice(max(k, 0), size + min(k, 0)) for k, size in zip(by, values.shape, strict=True))
    old = tuple(slice(max(-k, 0), size + min(-k, 0)) for k, size in zip(by, values.shape, strict=True))
    out[new] = values[old]
    return out


def extent(values: np.ndarray, threshold: float) -> dict[str, Any]:
    """Measure the part of a map that lies above a share of its maximum.

    Parameters
    ----------
    values : ndarray
        Not negative.
    threshold : float

    Returns
    -------
    dict of str to number or str
        ``size``: side of the square (cube, segment) with as many pixels; ``sides``: of the box around them, by axis;
        ``centre``: mean place, weighted by the map.
    """
    most = float(values.max())
    if most <= 0:
        return {"size": 0.0, "sides": "n/a", "centre": "n/a"}
    inside = values > threshold * most
    sides, centres = [], []
    for axis, length in enumerate(values.shape):
        rest = tuple(other for other in range(values.ndim) if other != axis)
        there = np.flatnonzero(inside.any(rest))
        sides.append(int(there[-1] - there[0] + 1))
        weights = values.sum(rest, dtype=np.float64)
        centres.append(float(weights @ np.arange(length) / weights.sum()))
    return {"size": float(inside.sum() ** (1 / values.ndim)), "sides": place(sides), "centre": place(centres)}


def _layers(network: Network, fields: dict[str, Field], first: Tensor) -> pd.DataFrame:
    """A row a layer: what the architecture lets its units see."""
    rows = []
    shapes = network.shapes(list(fields))
    for layer, field in fields.items():
        kind, shape = shapes[layer]
        lengths = [shape[axis - 1] for axis in field.axes]
        middle = [length // 2 for length in lengths]
        box = field.box(middle)
        rows.append({
            "layer": layer, "type": kind, "shape": ",".join(map(str, shape)),
            "whole": field.whole,
            "size": place(field.size), "jump": "n/a" if field.whole else place(field.jump),
            "start": "n/a" if field.whole else place(field.start),
            "middle": place([(low + high - 1) / 2 for low, high in box]),
            "share": float(np.prod([high - low for low, high in box]) / np.prod(field_lengths(first))),
        })  # fmt: skip
    return pd.DataFrame(rows)


def field_lengths(stimulus: Tensor) -> list[int]:
    """Pixels of one stimulus along the axes of its picture."""
    return [stimulus.shape[axis - 1] for axis in picture_axes(stimulus.shape)]


def _units(found: Sequence[_Measured], threshold: float) -> pd.DataFrame:
    """A row a unit and method."""
    rows = []
    for one in found:
        unit = one.unit
        where = {"layer": unit.layer, "channel": unit.channel, "position": ",".join(map(str, unit.position)) or "all"}
        if one.field is not None:
            box = one.field.box(unit.position)
            sides = [high - low for low, high in box]
            centre = place([(low + high - 1) / 2 for low, high in box])
            size = float(np.prod(sides) ** (1 / len(sides)))
            rows.append(
                {**where, "method": "theoretical", "n": 0, "size": size, "sides": place(sides), "centre": centre}
            )
        for name, values in one.maps.items():
            rows.append({**where, "method": name, "n": one.n, **extent(values, threshold)})
    return pd.DataFrame(rows)


def _numbers(found: Sequence[_Measured], names: Sequence[str]) -> dict[str, np.ndarray]:
    units = np.array([str(one.unit) for one in found], dtype=object)
    maps = {}
    for name in names:
        there = [one.maps[name] for one in found if name in one.maps]
        if there:
            maps[name] = np.stack(there)
            maps[f"{name}_unit"] = np.array([str(one.unit) for one in found if name in one.maps], dtype=object)
    return {"unit": units, **maps}


def _picture(network: Network, one: _Measured, threshold: float, n: int) -> Picture:
    """Mean maps of a unit in a row; a white box is what it can see."""
    tiles = []
    for values in one.maps.values():
        tile = over(values, one.ground, signed=False)
        if one.field is not None and values.ndim == 2:
            factor = tile.shape[0] // values.shape[0], tile.shape[1] // values.shape[1]
            _box(
                tile,
                [(low * k, high * k) for (low, high), k in zip(one.field.box(one.unit.position), factor, strict=True)],
            )
        tiles.append(tile)
    sizes = "; ".join(f"{name} {extent(values, threshold)['size']:.0f}" for name, values in one.maps.items())
    return Picture(
        one.unit.label,
        sheet([tiles]),
        f"Parts of a picture that {one.unit} sees, by {', '.join(one.maps)}.",
        f"{network.label}, {one.unit}: from the left, means over {n} stimuli by {', '.join(one.maps)}, over the mean "
        f"stimulus; black to yellow is 0 to the 99.5th percentile. Sides of squares with as many pixels above "
        f"{threshold:.3g} of the maximum: {sizes}. White box: what the architecture lets it see. Maps of activation "
        "are moved so that their peaks are in the middle.",
        str(one.unit),
    )


def _box(tile: np.ndarray, sides: Sequence[tuple[int, int]]) -> None:
    (top, bottom), (left, right) = ((low, high - 1) for low, high in sides)
    tile[[top, bottom], left : right + 1] = 255
    tile[top : bottom + 1, [left, right]] = 255


def _sidecar(network: Network, names: Sequence[str], n: int, threshold: float) -> dict[str, Any]:
    """What a reader needs to know."""
    says = {
        "gradient": "the mean absolute gradient", "occlusion": "the mean absolute change under a patch",
        "activation": "the mean of the channel's maps at the picture's size, their peaks moved to the middle",
    }  # fmt: skip
    measured = [says[name] for name in names if name in says]
    also = (
        f" Fields of units were measured over {n} stimuli by {', '.join(measured)}; the pixels above {threshold:.3g} "
        "of a map's maximum count as seen."
    )
    return {
        "Methods": f"Receptive fields of the layers of {network.label} were derived from the operations of a forward "
        f"pass.{also if measured else ''}",
        "References": list(dict.fromkeys(REFERENCES[name] for name in ("theoretical", *names))),
        "Method": list(names),
        "Columns": {
            "whole": "whether every unit may depend on the whole picture",
            "size": "pixels that a unit sees, of a layer by axis and with what lies in the padding; of a unit, side of "
            "the square with as many pixels",
            "jump": "pixels between the fields of neighbours, by axis",
            "start": "first pixel of the first unit's field, by axis; negative in the padding",
            "middle": "centre of the field of the layer's middle unit",
            "share": "of the picture that the middle unit sees",
            "sides": "of the box around the pixels that are seen, by axis",
            "centre": "mean place, weighted by the map",
        },
    }
