"""From an encoder's name to a model that is ready to be fitted, and from a layer to what that model is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsdnn.errors import ConfigError
from bidsdnn.geometry import Regions
from bidsdnn.lookup import closest, resolve_dotted, summary
from bidsdnn.methods.models import MODELS, Estimator
from bidsdnn.methods.predict import Model
from bidsdnn.methods.reduce import rotation
from bidsdnn.patterns import Group

SUPPLIED = ("n_splits", "seed", "device", "shuffle", "together")
"""What the program itself passes to a model that takes it."""


def encoder_class(name: str) -> Any:
    """What an encoder's name stands for: a row of `MODELS`, ``package.module.object`` or ``file.py:object``.

    Returns
    -------
    class, function that makes a model, or model

    Raises
    ------
    ConfigError
        If there is none of that name, or it cannot be fitted or predict.
    """
    found = resolve_dotted(name, MODELS)
    if inspect.isclass(found) or not callable(found):
        _require(found, name)
    return found


def check_encoder(name: str, parameters: Mapping[str, Any]) -> None:
    """Check an encoder's name and the parameters of ``[parameters.NAME]``, their values too.

    Raises
    ------
    ConfigError
    """
    model = build_encoder(name, parameters)
    if isinstance(model, Estimator):
        return
    # One's own models are tried on random numbers: a value that they refuse costs a second and not a night.
    rng = np.random.default_rng(0)
    try:
        model.fit(rng.standard_normal((12, 3)), rng.standard_normal((12, 2)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"[parameters.{name}] {error}") from error


def build_encoder(name: str, parameters: Mapping[str, Any], **supplied: Any) -> Model:
    """Make an encoder that is ready to be fitted.

    Parameters
    ----------
    name : str
    parameters : mapping
        The user's own, which win.
    **supplied
        Of `SUPPLIED`; each is passed if the model takes it.

    Returns
    -------
    object with ``fit`` and ``predict``
        Whatever is no row of `MODELS` as an `Estimator`.

    Raises
    ------
    ConfigError
        If the encoder has no such parameter, or what it makes cannot be fitted or predict.
    """
    found = encoder_class(name)
    if not callable(found):
        if parameters:
            raise ConfigError(f"[parameters.{name}] it is made already; give its class, or a function that makes it")
        return Estimator(found, seed=supplied.get("seed", 0))
    own = _bound(found, name, parameters)
    try:
        made = found(**{**{key: value for key, value in supplied.items() if key in own}, **parameters})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--encoder {name}: it cannot be made ({error}); see [parameters.{name}]") from error
    _require(made, name)
    model: Model = made if name in MODELS else Estimator(made, seed=supplied.get("seed", 0))
    return model


def fitted_together(regions: Regions, n_voxels: int) -> NDArray[np.intp]:
    """Number the voxels by the region of the first atlas that they are in; -1 outside of all."""
    together = np.full(n_voxels, -1)
    for number, columns in enumerate(next(iter(regions.values()), {}).values()):
        together[columns & (together < 0)] = number
    return together


def source_of(name: str) -> str:
    """Text that a user's encoder is defined by, on which results depend; empty for what is installed."""
    file, _, _ = name.rpartition(":")
    return Path(file).read_text(encoding="utf-8") if file.endswith(".py") else ""


def _bound(found: Any, name: str, parameters: Mapping[str, Any]) -> set[str]:
    """Parameters by name of what makes a model, once the user's are among them."""
    signature = inspect.signature(found).parameters
    accepted = {
        key
        for key, parameter in signature.items()
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.values()):
        for key in parameters:
            if key not in accepted:
                raise ConfigError(f"encoder {name} has no parameter {key!r}; {closest(key, accepted)}")
    return accepted


def _require(found: Any, name: str) -> None:
    for method in ("fit", "predict"):
        if not hasattr(found, method):
            raise ConfigError(
                f"--encoder {name}: it has no method `{method}`; give a class with fit(X, Y) and predict(X)"
            )


def taken_by(model: Model, group: Group) -> str:
    """What a model is given of a layer: ``rotation``, ``units`` or ``blocks``.

    Bidsdnn's own say so in ``takes``. Another that does not say gets the units of a layer that has at most as many as
    there are items, where a rotation would be no smaller and hide which unit is which, and else the rotation.
    """
    takes = getattr(model, "takes", "rotation")
    if takes is None:
        items, units = group.values.shape
        return "units" if units <= items else "rotation"
    return str(takes)


def features_of(model: Model, group: Group) -> Any:
    """What a model is given of a layer, shape (n, p).

    The exact rotation has as many columns as items at most and the inner products of all units: models that do not
    change with rotations cannot tell it from the layer.
    """
    takes = taken_by(model, group)
    if takes == "blocks":
        return group.values
    if takes == "units":
        return np.asarray(group.values[:, :], dtype=np.float64)
    inner, _, _ = group.gram()
    return rotation(inner, overwrite=True)


def said_of(model: Model, encoder: str) -> str:
    """Sentences of the Methods on a model."""
    own = model.said() if hasattr(model, "said") else ""
    first = summary(type(model)) if encoder in MODELS else f"The encoder was {encoder}."
    return f"{first} {own}".strip()


def references_of(model: Model, encoder: str) -> list[str]:
    """Keys of the works that a model comes from."""
    return list(getattr(model, "references", (encoder,)))


def inner_folds_of(model: Model) -> str | None:
    """What a model chooses by folds within the training part; None if it chooses nothing."""
    if isinstance(model, Estimator) or not hasattr(model, "n_splits"):
        return None
    return str(getattr(model, "chooses", "penalty"))
