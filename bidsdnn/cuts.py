"""The networks of ``--ablate``: which are cut, where, and beside which intact ones they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from bidsdnn.config import Config
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.network import Network
from bidsdnn.networks.surgery import Unit, ablate
from bidsdnn.stimuli import Stimuli

Cut = dict[str, list[Unit] | None]


def parse_cut(text: str) -> tuple[str, str, tuple[int, ...] | None]:
    """Read ``[NETWORK:]LAYER[:CHANNEL[,CHANNEL...]]``.

    Parameters
    ----------
    text : str

    Returns
    -------
    network : str
        Empty where none is named.
    layer : str
        A name or pattern.
    channels : tuple of int or None
        None for all.

    Raises
    ------
    ConfigError
        If no layer is named.
    """
    rest, colon, last = text.rpartition(":")
    channels = tuple(int(one) for one in last.split(",")) if colon and re.fullmatch(r"\d+(,\d+)*", last) else None
    network, _, layer = (text if channels is None else rest).rpartition(":")
    if not layer or "," in layer:
        raise ConfigError(
            f"--ablate {text}: expected [NETWORK:]LAYER[:CHANNEL,...] with channels counted from 0, as in conv3:0,5"
        )
    return network, layer, channels


def with_cuts(
    networks: Sequence[Network], config: Config, *, stimuli: Callable[[str], Stimuli] | None = None
) -> list[Network]:
    """Cut networks as ``--ablate`` says.

    Parameters
    ----------
    networks : sequence of Network
    config : Config
    stimuli : callable, optional
        From a modality to the stimuli that means are taken of; needed unless units are set to zero.

    Returns
    -------
    list of Network
        Each network, itself cut where ``--ablate`` names it; behind it, where some layer is named without a network, a
        copy that is cut there.

    Raises
    ------
    ConfigError
        If a network or a layer does not exist, or has no such channel.
    """
    asked = [(text, *parse_cut(text)) for text in config.ablate]
    labels = [network.label for network in networks]
    for text, name, _, _ in asked:
        if name and not any(_is(network, name) for network in networks):
            raise ConfigError(f"--ablate {text}: no network is called {name!r}; {closest(name, labels)}")
    made: list[Network] = []
    for network in networks:
        own = [(layer, channels) for _, name, layer, channels in asked if name and _is(network, name)]
        itself = _cut(network, own, config, stimuli)
        if own and itself is None:
            raise ConfigError(f"--ablate {network.label}:{own[0][0]}: {_no_layer([network], own[0][0])}")
        # A name that the user gave stays; else the label says what was cut.
        intact = replace(itself, alias=network.alias or itself.alias) if itself else network
        made.append(intact)
        beside = _cut(intact, [(layer, channels) for _, name, layer, channels in asked if not name], config, stimuli)
        made += [beside] if beside else []
    for text, name, layer, _ in asked:
        if not name and not any(network.select([layer]) for network in networks):
            raise ConfigError(f"--ablate {text}: {_no_layer(networks, layer)}")
    return made


def _is(network: Network, name: str) -> bool:
    return name in (network.name, network.alias, network.label)


def _no_layer(networks: Sequence[Network], layer: str) -> str:
    every = [name for network in networks for name in (*network.short, *network.layers)]
    return f"no layer of {', '.join(network.label for network in networks)}; {closest(layer, every)}"


def _cut(
    network: Network,
    asked: Sequence[tuple[str, tuple[int, ...] | None]],
    config: Config,
    stimuli: Callable[[str], Stimuli] | None,
) -> Network | None:
    """Cut what is asked of one network; None where it has none of it."""
    cut: Cut = {}
    for pattern, channels in asked:
        for layer in network.select([pattern]):
            before = cut.get(layer, [])
            cut[layer] = None if channels is None or before is None else [*before, *channels]
    if not cut:
        return None
    try:
        return ablate(
            network, cut, to=config.ablate_to, seed=config.random_seed, device=config.device,
            stimuli=stimuli(network.modality) if stimuli and config.ablate_to != "zero" else None,
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError(f"--ablate: {error}") from error
