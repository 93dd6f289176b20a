"""From a decoder's name to a model that is ready to be fitted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from bidsdnn.config import Config
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest, resolve_dotted, summary
from bidsdnn.methods.models.classifiers import DECODERS, Decoder, Own

DEFAULTS = {"classes": "logistic", "numbers": "ridge"}
"""The decoder of each kind of target, where none was asked for."""
SUPPLIED = ("seed", "device")
"""What the program itself passes to a decoder that takes it."""


def decoders_of(config: Config) -> tuple[str, ...]:
    """Decoders that a configuration may use; none if nothing is decoded."""
    if not {"decoding", "probe"} & set(config.analysis):
        return ()
    return (config.decoder,) if config.decoder else tuple(DEFAULTS.values())


def has_numbers(decoder: str | None, categorical: bool) -> bool | None:
    """Whether a target has to be of numbers; None if its values decide."""
    if categorical:
        return False
    kind = getattr(DECODERS.get(decoder or ""), "kind", None)
    return None if kind is None else kind == "numbers"


def check_decoder(name: str, parameters: Mapping[str, Any]) -> None:
    """Check a decoder's name and the parameters of ``[parameters.NAME]``, before any data is read.

    Parameters
    ----------
    name : str
        Row of `DECODERS`, ``package.module.object`` or ``file.py:object``.
    parameters : mapping

    Raises
    ------
    ConfigError
    """
    build_decoder(name, parameters, "classes")


def build_decoder(name: str, parameters: Mapping[str, Any], kind: str, **supplied: Any) -> Decoder:
    """Make a decoder that is ready to be fitted.

    Parameters
    ----------
    name : str
    parameters : mapping
        The user's own, which win.
    kind : str
        ``classes`` or ``numbers``: what an estimator that does not say so predicts.
    **supplied
        Of `SUPPLIED`; each is passed if the decoder takes it.

    Returns
    -------
    Decoder

    Raises
    ------
    ConfigError
        If there is none of that name, it cannot be fitted or predict, or has no such parameter.
    """
    found = resolve_dotted(name, DECODERS)
    if name not in DECODERS:
        return Own(_instance(name, found, parameters), kind)
    taken = inspect.signature(found).parameters
    for key in parameters:
        if key not in taken or key in SUPPLIED:
            raise ConfigError(f"decoder {name} has no parameter {key!r}; {closest(key, set(taken) - set(SUPPLIED))}")
    decoder: Decoder = found(**{**{key: value for key, value in supplied.items() if key in taken}, **parameters})
    return decoder


def _instance(name: str, found: Any, parameters: Mapping[str, Any]) -> Any:
    """An estimator that is a class or a function that makes one, or is one already."""
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        if parameters:
            raise ConfigError(f"parameters.{name}: {name} is an estimator already; give its class to set parameters")
        made = found
    else:
        try:
            made = found(**parameters)
        except TypeError as error:
            raise ConfigError(
                f"--decoder {name}: {error}; give its parameters in the TOML file's parameters"
            ) from error
    for method in ("fit", "predict"):
        if not callable(getattr(made, method, None)):
            raise ConfigError(
                f"--decoder {name}: it has no method `{method}`; give an estimator with fit(X, y) and predict(X)"
            )
    return made


def described(name: str) -> str:
    """First sentence of a decoder's documentation, or its name."""
    return summary(DECODERS[name]) if name in DECODERS else f"Labels were decoded by {name.rpartition(':')[2]}."
