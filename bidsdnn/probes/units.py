"""A unit of a network: which number of a layer's output is meant, and whether the layer has it.

A unit is a channel of a layer, at one position or over all of them; how it is read is in `driving`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.axes import channel_axis
from bidsdnn.networks.network import Network

BRAIN = "brain"


@dataclass(frozen=True)
class Unit:
    """A channel of a layer, at one position or over all.

    Parameters
    ----------
    layer : str
        Dotted name, with ``#2`` for a module's second call.
    channel : int
        From 0.
    position : tuple of int
        From 0, one number an axis that is not the channels: of a convolution's map, row and column. Empty for all
        positions.
    network : str
        Name, alias or label of the network that is meant; empty for any.
    name : str
        What it is called, where it is more than a place in a layer: ``brain:early``.
    """

    layer: str
    channel: int
    position: tuple[int, ...] = ()
    network: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read ``[NETWORK:]LAYER:CHANNEL[,ROW,COLUMN]``.

        Parameters
        ----------
        text : str
            The layer as `Network.select` takes it.

        Returns
        -------
        Unit

        Raises
        ------
        ConfigError
            If it is not written so.
        """
        where, _, numbers = text.rpartition(":")
        network, _, layer = where.rpartition(":")
        if not layer or not re.fullmatch(r"\d+(,\d+)*", numbers):
            raise ConfigError(
                f"--unit {text}: write LAYER:CHANNEL, LAYER:CHANNEL,ROW,COLUMN (from 0), or brain:REGION[:VOXEL]"
            )
        channel, *position = (int(number) for number in numbers.split(","))
        return cls(layer, channel, tuple(position), network)

    @property
    def label(self) -> str:
        """The unit in file names: letters, digits and ``+``."""
        # The word keeps channel 2 of `conv` apart from layer `conv.2`.
        text = self.name or f"{self.layer}+unit{'+'.join(map(str, (self.channel, *self.position)))}"
        return re.sub(r"[^0-9A-Za-z]+", "+", text).strip("+")

    def __str__(self) -> str:
        """As `parse` reads it, without the network."""
        return self.name or f"{self.layer}:{','.join(map(str, (self.channel, *self.position)))}"


@dataclass(frozen=True)
class BrainUnit:
    """A region, or one voxel of it, that a fitted encoder makes a unit of the network.

    Parameters
    ----------
    region : str
    voxel : int or None
        From 0, in the order of the region's voxels; None for the mean over the region.
    """

    region: str
    voxel: int | None = None

    @classmethod
    def parse(cls, text: str) -> BrainUnit:
        """Read ``brain:REGION[:VOXEL]``.

        Parameters
        ----------
        text : str

        Returns
        -------
        BrainUnit

        Raises
        ------
        ConfigError
            If it is not written so.
        """
        mark, _, rest = text.partition(":")
        region, colon, voxel = rest.rpartition(":")
        if not (colon and voxel.isdigit()):
            region, voxel = rest, ""
        if mark != BRAIN or not region:
            raise ConfigError(f"--unit {text}: write brain:REGION, or brain:REGION:VOXEL (from 0)")
        return cls(region, int(voxel) if voxel else None)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{BRAIN}:{self.region}" + ("" if self.voxel is None else f":{self.voxel}")


def is_brain(text: str) -> bool:
    """Whether a ``--unit`` is one of a brain."""
    return text.startswith(f"{BRAIN}:")


def parse_unit(text: str) -> Unit | BrainUnit:
    """Read one ``--unit``, of a network or of a brain."""
    return BrainUnit.parse(text) if is_brain(text) else Unit.parse(text)


def resolve_units(texts: Sequence[str], networks: Sequence[Network]) -> dict[str, tuple[Unit, ...]]:
    """Find units in networks and check them against what their layers give.

    Parameters
    ----------
    texts : sequence of str
        As `Unit.parse` reads them; a layer may be a short name, a pattern or a depth, and means every layer it finds.
    networks : sequence of Network

    Returns
    -------
    dict of str to tuple of Unit
        By the network's label, with dotted names of layers, each once; empty where a network has none of them.

    Raises
    ------
    ConfigError
        If no network has the layer, or a layer has no such channel or position; with the layer's shape.
    """
    found: dict[str, dict[Unit, None]] = {network.label: {} for network in networks}
    for text in texts:
        asked = Unit.parse(text)
        among = [n for n in networks if asked.network in ("", n.name, n.alias, n.label)]
        if not among:
            labels = [network.label for network in networks]
            raise ConfigError(
                f"--unit {text}: no network is called {asked.network!r}; {closest(asked.network, labels)}"
            )
        layers = {network.label: network.select([asked.layer]) for network in among}
        if not any(layers.values()):
            every = [layer for network in among for layer in (*network.short, *network.layers)]
            raise ConfigError(
                f"--unit {text}: no layer of {', '.join(n.label for n in among)}; {closest(asked.layer, every)}"
            )
        for network in among:
            for layer in layers[network.label]:
                unit = Unit(layer, asked.channel, asked.position)
                check_unit(unit, network)
                found[network.label][unit] = None
    return {label: tuple(units) for label, units in found.items()}


def layer_shape(network: Network, layer: str) -> tuple[tuple[int, ...], int]:
    """What a layer gives for one stimulus, and which axis of it is the channels.

    Parameters
    ----------
    network : Network
    layer : str

    Returns
    -------
    shape : tuple of int
    axis : int
    """
    shape = network.shapes([layer])[layer][1]
    return shape, channel_axis(shape, network.module.get_submodule(layer.partition("#")[0]))


def check_unit(unit: Unit, network: Network) -> None:
    """Check that a layer has a unit.

    Parameters
    ----------
    unit : Unit
    network : Network

    Raises
    ------
    ConfigError
        With the layer's shape.
    """
    shape, axis = layer_shape(network, unit.layer)
    others = shape[:axis] + shape[axis + 1 :]
    size = f"--unit {unit}: layer {unit.layer} of {network.label} gives {_times(shape)}"
    channels = shape[axis] if shape else 1
    if unit.channel >= channels:
        raise ConfigError(f"{size}, of which {channels} are channels; give a channel from 0 to {channels - 1}")
    if unit.position and len(unit.position) != len(others):
        what = f"{len(others)} numbers after the channel" if others else "the channel alone"
        raise ConfigError(f"{size}; give {what}")
    for given, there in zip(unit.position, others, strict=False):
        if given >= there:
            raise ConfigError(f"{size}; position {','.join(map(str, unit.position))} is outside {_times(others)}")


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
