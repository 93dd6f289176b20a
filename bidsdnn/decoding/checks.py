"""What is refused of decoding before any data is read."""

from __future__ import annotations

from typing import Any

from bidsdnn.bids.columns import check_table
from bidsdnn.bids.filters import event_filter
from bidsdnn.config import Config
from bidsdnn.decoding.models import check_decoder, decoders_of
from bidsdnn.decoding.targets import ITEMS
from bidsdnn.errors import ConfigError


def check_decoding(config: Config) -> None:
    """Check the targets, the decoder and the parameters of decoding.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError, DataError
    """
    for column, table in config.targets.items():
        if table is not None:
            check_table(column, table, flag="--target ")
    asked = [owner for owner in ("decoding", "probe") if owner in config.analysis]
    if not asked:
        return
    if "decoding" in asked and not config.targets:
        raise ConfigError("--analysis decoding: nothing to decode; give --target COLUMN or --target COLUMN=FILE.tsv")
    for owner in asked:
        check_parameters(owner=owner, **config.parameters.get(owner, {}))
    for name in decoders_of(config):
        # The table of a name that is an encoder's too was checked as the encoder's.
        check_decoder(name, config.parameters.get(name, {}) if name != config.encoder else {})


def check_parameters(
    *,
    items: str = "run",
    select: float = 0,
    components: int = 0,
    train: str = "",
    test: str = "",
    owner: str = "decoding",
    **others: Any,
) -> None:
    """Refuse parameters of `decoding` that make no sense, before any data is read.

    Parameters
    ----------
    items, select, components, train, test
        As of `decoding`.
    owner : str
        Whose parameters they are.
    **others
        Further parameters, which are not looked at.

    Raises
    ------
    ConfigError
    """
    if items not in ITEMS:
        raise ConfigError(f"parameters.{owner}.items = {items!r}: choose one of {', '.join(ITEMS)}")
    for name, value, whole in (("select", select, False), ("components", components, True)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value < 0 or (value != int(value) and (whole or value > 1)):
            raise ConfigError(f"parameters.{owner}.{name} = {value!r}: give how many, or leave it out for all")
    for text in (train, test):
        if text:
            event_filter(text)
