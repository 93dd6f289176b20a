"""Feature maps: where in a picture channels respond, as small multiples."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.probes.pictures import coloured, enlarged, seen_picture, sheet
from bidsdnn.probes.stream import stream
from bidsdnn.probes.units import Unit, layer_shape
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli

logger = logging.getLogger(__name__)

TILE = 112
"""Pixels of a map's longer side, about."""
MAP_AXES = 2


def feature_map(
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str] = (),
    units: Sequence[Unit] = (),
    device: str = "cpu",
    show: Sequence[str] = (),
    n: int = 5,
    channels: int = 4,
) -> Result:
    """Activations of channels at each position of a picture were drawn as maps.

    Parameters
    ----------
    network : Network
        Of pictures.
    stimuli : Stimuli
    layers : sequence of str
        Where there are no units: those whose strongest channels are drawn.
    units : sequence of Unit
        Channels that are drawn; a position is not looked at.
    device : str
    show : sequence of str
        Stimuli that are shown, by id; by default the first.
    n : int
        How many are, where `show` names none.
    channels : int
        How many of a layer are drawn where there are no units: those with the largest mean over what is shown.

    Returns
    -------
    Result
        A picture a layer: the stimuli as the network is given them, and below a row a channel. The maps as arrays.

    Raises
    ------
    ConfigError
        If a layer has no maps, a stimulus is not there, or a number is below 1.
    """
    if network.modality != "image":
        raise ConfigError(f"--analysis feature-map: {network.label} takes {network.modality}, and maps are of pictures")
    for key, value in (("n", n), ("channels", channels)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"parameters.feature-map.{key} = {value!r}: give how many, from 1")
    chosen = _chosen(stimuli, show, n)
    wanted = _wanted(network, layers, units)
    axes = {layer: layer_shape(network, layer)[1] for layer in wanted}
    with torch.no_grad(), Recorder(network.module, list(wanted)) as record:
        inputs, parts = [], []
        for batch in stream(network, chosen, device=device):
            inputs.append(batch.values.cpu().numpy())
            seen = record(batch.values)
            parts.append({layer: np.moveaxis(seen[layer].numpy(), 1 + axes[layer], 1).copy() for layer in wanted})
    pictures = [seen_picture(one) for one in np.concatenate(inputs)]
    drawn: list[Picture] = []
    numbers: dict[str, np.ndarray] = {"stim_id": np.array(chosen.ids, dtype=object)}
    for layer, asked in wanted.items():
        maps = np.concatenate([part[layer] for part in parts])
        order = asked or np.argsort(-maps.mean((0, 2, 3)), kind="stable")[:channels].tolist()
        drawn.append(_sheet(network, layer, order, maps[:, order], pictures, chosen.ids))
        numbers[f"maps/{layer}"] = maps[:, order]
        numbers[f"channels/{layer}"] = np.array(order)
    return Result(
        "featuremap",
        pictures=tuple(drawn),
        numbers=numbers,
        sidecar={
            "Methods": f"Activations of chosen channels of {network.label} at each position were drawn for "
            f"{len(chosen)} pictures, each channel on a scale of its own.",
            "Shown": chosen.ids,
        },
    )


def _chosen(stimuli: Stimuli, show: Sequence[str], n: int) -> Stimuli:
    for name in show:
        if name not in stimuli.ids:
            raise ConfigError(f"parameters.feature-map.show: no stimulus is called {name!r}; "
                              f"{closest(name, stimuli.ids)}")  # fmt: skip
    return stimuli.select(list(show) or stimuli.ids[:n])


def _wanted(network: Network, layers: Sequence[str], units: Sequence[Unit]) -> dict[str, list[int]]:
    """Channels by layer; none where the strongest are taken. Layers without maps are left out, or refused."""
    wanted: dict[str, list[int]] = {}
    for unit in units:
        wanted.setdefault(unit.layer, [])
        wanted[unit.layer] += [unit.channel] if unit.channel not in wanted[unit.layer] else []
    shapes = {layer: layer_shape(network, layer)[0] for layer in wanted or layers}
    flat = {layer: shape for layer, shape in shapes.items() if not _has_maps(network, layer)}
    if flat:
        layer, shape = next(iter(flat.items()))
        said = f"layer {layer} gives {' x '.join(map(str, shape))}, which is no map of channels"
        if len(flat) == len(shapes):
            raise ConfigError(f"--analysis feature-map: {said}; choose a convolution")
        if units:
            logger.warning("feature-map leaves out %s: %s", ", ".join(flat), said)
    return {layer: wanted.get(layer, []) for layer in shapes if layer not in flat}


def _has_maps(network: Network, layer: str) -> bool:
    """Whether a layer gives more than one position on two axes: a class averaged over all has none to draw."""
    shape, axis = layer_shape(network, layer)
    return len(shape) == MAP_AXES + 1 and max(shape[:axis] + shape[axis + 1 :]) > 1


def _sheet(
    network: Network, layer: str, order: Sequence[int], maps: np.ndarray, pictures: Sequence[np.ndarray],
    ids: Sequence[str],
) -> Picture:  # fmt: skip
    """Stimuli in the first row, and a row a channel; each channel's colours from its least to its largest."""
    height, width = enlarged(maps[0, 0], TILE).shape
    rows = [[_fitted(picture, height, width) for picture in pictures]]
    scales, peaks = [], []
    for k, channel in enumerate(order):
        own = maps[:, k]
        low, high = min(float(own.min()), 0.0), float(own.max())
        rows.append([coloured(enlarged(one, TILE), low=low, high=high) for one in own])
        scales.append(f"channel {channel}, {low:.3g} to {high:.3g}")
        peaks.append(f"channel {channel} most to {ids[int(own.reshape(len(own), -1).max(1).argmax())]}")
    size = f"{maps.shape[2]} x {maps.shape[3]}"
    return Picture(
        Unit(layer, 0).label.rpartition("+unit")[0],
        sheet(rows),
        f"Feature maps of {layer}, {size} positions, for {', '.join(ids)}: {'; '.join(peaks)}.",
        f"{network.label}, {layer}: upper row, {len(ids)} pictures as the network is given them (contrast stretched); "
        f"below, activation at each of {size} positions, from dark to bright: {'; '.join(scales)}.",
        layer,
    )


def _fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixels of a picture on another grid."""
    rows = (np.arange(height) + 0.5) * picture.shape[0] / height
    columns = (np.arange(width) + 0.5) * picture.shape[1] / width
    return picture[rows.astype(int)][:, columns.astype(int)]
