"""Which layers belong together: one band or feature space a layer, a network, or as patterns of names say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.lookup import closest
from bidsdnn.patterns import Group

WORDS = ("layer", "network")


@dataclass(frozen=True)
class Bands:
    """Groups of layers, by name.

    Parameters
    ----------
    members : mapping of str to tuple of int
        Positions of the layers.
    layers : mapping of str to tuple of str
        Their names.
    network : str
        What their file goes by: the networks, joined.
    """

    members: Mapping[str, tuple[int, ...]]
    layers: Mapping[str, tuple[str, ...]]
    network: str


def check_bands(wanted: Any, *, key: str) -> None:
    """Refuse what names no bands, before any data is read.

    Parameters
    ----------
    wanted : object
        ``layer``, ``network``, or a mapping of names to lists of patterns.
    key : str
        Where it was said, for the error.

    Raises
    ------
    ConfigError
    """
    if isinstance(wanted, str):
        if wanted not in WORDS:
            raise ConfigError(f"[parameters.{key} = {wanted!r}: {closest(wanted, WORDS)}")
        return
    fine = isinstance(wanted, Mapping) and wanted and all(_patterns(patterns) for patterns in wanted.values())
    if not fine:
        raise ConfigError(
            f"[parameters.{key} = {wanted!r}: expected layer, network, or names with lists of patterns, "
            'as {early = ["alexnet/features.0", "alexnet/features.3"], sound = ["cochleagram"]}'
        )


def _patterns(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return bool(listed and value and all(isinstance(one, str) for one in value))


def bands_of(groups: Sequence[Group], wanted: str | Mapping[str, Sequence[str]], *, key: str) -> Bands:
    """Put layers into bands.

    Parameters
    ----------
    groups : sequence of Group
    wanted : str or mapping
        As `check_bands` takes it. A pattern such as ``conv*`` is compared with a layer's name, its network's, and
        ``network/layer``. Layers that none names are left out.
    key : str
        Where it was said, for the error.

    Returns
    -------
    Bands

    Raises
    ------
    DataError
        If a pattern fits no layer, or a layer is in two bands.
    """
    networks = list(dict.fromkeys(group.network for group in groups))
    if wanted == "network":
        named = {name: [i for i, group in enumerate(groups) if group.network == name] for name in networks}
    elif wanted == "layer":
        named = {_full(group, len(networks)): [i] for i, group in enumerate(groups)}
    else:
        named = {name: _fitting(groups, name, patterns, key) for name, patterns in dict(wanted).items()}  # type: ignore[arg-type]
        every = [i for chosen in named.values() for i in chosen]
        twice = next((i for i in every if every.count(i) > 1), None)
        if twice is not None:
            raise DataError(f"[parameters.{key}: layer {groups[twice].name} is in two of them; name it once")
    used = {groups[i].network for chosen in named.values() for i in chosen}
    return Bands(
        {name: tuple(chosen) for name, chosen in named.items()},
        {name: tuple(_full(groups[i], 2) for i in chosen) for name, chosen in named.items()},
        "+".join(name for name in networks if name in used),
    )


def _full(group: Group, n_networks: int) -> str:
    """``layer``, or ``network/layer`` where there are several networks; a feature space is its own layer."""
    return group.name if n_networks == 1 or group.network in ("", group.name) else f"{group.network}/{group.name}"


def _fitting(groups: Sequence[Group], name: str, patterns: Sequence[str], key: str) -> list[int]:
    found: list[int] = []
    for pattern in patterns:
        these = [
            i
            for i, group in enumerate(groups)
            if any(fnmatchcase(one, pattern) for one in (group.name, group.network, f"{group.network}/{group.name}"))
        ]
        if not these:
            names = [f"{group.network}/{group.name}" for group in groups]
            raise DataError(f"[parameters.{key}.{name}: {pattern!r} fits no layer; {closest(pattern, names)}")
        found += [i for i in these if i not in found]
    return found
