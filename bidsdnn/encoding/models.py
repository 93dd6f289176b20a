"""From an encoder's name to a model that is ready to be fitted, and from a layer to what that model is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import bind, resolve
from bidsdnn.methods.models import MODELS
from bidsdnn.methods.predict import Model
from bidsdnn.methods.reduce import rotation
from bidsdnn.patterns import Group

SUPPLIED = ("n_splits", "seed", "device", "shuffle")
"""What the program itself passes to a model that takes it."""


def encoder_class(name: str) -> Any:
    """The class of an encoder: a row of `MODELS`, ``package.module:object`` or ``file.py:object``.

    Raises
    ------
    ConfigError
        If there is none of that name, or it cannot be fitted or predict.
    """
    found = resolve(name, MODELS)
    for method in ("fit", "predict"):
        if not hasattr(found, method):
            raise ConfigError(
                f"--encoder {name}: it has no method `{method}`; give a class with fit(X, Y) and predict(X)"
            )
    return found


def check_encoder(name: str, parameters: Mapping[str, Any]) -> None:
    """Check an encoder's name and the parameters of ``[parameters.NAME]``.

    Raises
    ------
    ConfigError
    """
    found = encoder_class(name)
    if inspect.isclass(found) and name in MODELS:
        bind(found, parameters, name=f"encoder {name}")


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
    """
    found = encoder_class(name)
    taken = inspect.signature(found).parameters
    model: Model = found(**{**{key: value for key, value in supplied.items() if key in taken}, **parameters})
    return model


def features_of(model: Model, group: Group) -> np.ndarray:
    """What a model is given of a layer, shape (n, p).

    The exact rotation has as many columns as items at most and the inner products of all units: models that do not
    change with rotations cannot tell it from the layer.
    """
    if getattr(model, "takes", "rotation") == "units":
        return np.asarray(group.values[:, :], dtype=np.float64)
    inner, _, _ = group.gram()
    return rotation(inner)
