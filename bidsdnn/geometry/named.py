"""Distances and comparisons by name: rows of the tables, or a function of the user's in a file.

The one idea: a name travels, to workers as well, and becomes a function where it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES


def is_own(name: str) -> bool:
    """Whether a name means a function of the user's: ``file.py:function`` or ``package.module:function``."""
    return ":" in name


def short(name: str) -> str:
    """What results call a distance or a comparison: its row, or the function's own name."""
    return name.rpartition(":")[2]


def distance(name: str) -> Callable[..., np.ndarray]:
    """The function that makes an RDM of patterns."""
    found: Callable[..., np.ndarray] = resolve(name, DISSIMILARITIES)
    return found


def comparing(name: str) -> str | Callable[..., float]:
    """The row that `methods` know a comparison by, or the user's function."""
    return resolve(name, SIMILARITIES) if is_own(name) else name


def described(name: str, table: dict[str, Any]) -> str:
    """First sentence of a function's documentation, or that it has none."""
    return summary(resolve(name, table)) or f"{short(name)}, a function of the user's, was used."


def lower_first(text: str) -> str:
    """Begin a sentence with a small letter, to go on from another's beginning."""
    return text[:1].lower() + text[1:]


def own_sources(names: Iterable[str]) -> dict[str, str]:
    """Source text of the user's functions, on which results depend."""
    return {name: inspect.getsource(resolve(name, {})) for name in names if is_own(name)}


def check_names(metric: str, comparisons: Sequence[str]) -> None:
    """Refuse a distance or a comparison that is not known, or a function that does not give what it should.

    Parameters
    ----------
    metric : str
        Row of `DISSIMILARITIES`, or a function (n, p) -> (n * (n - 1) / 2,).
    comparisons : sequence of str
        Rows of `SIMILARITIES`, or functions (pairs,), (pairs,) -> float.

    Raises
    ------
    ConfigError
    """
    patterns = np.random.default_rng(0).random((5, 8))
    if is_own(metric):
        _check(metric, "--rdm-metric", DISSIMILARITIES, (10,), patterns)
    else:
        resolve(metric, DISSIMILARITIES)
    for name in comparisons:
        if is_own(name):
            _check(name, "--rdm-comparison", SIMILARITIES, (), *patterns.reshape(4, 10)[:2])
        else:
            resolve(name, SIMILARITIES)


def _check(name: str, flag: str, table: dict[str, Any], shape: tuple[int, ...], *arguments: np.ndarray) -> None:
    """Call a user's function once, on random numbers."""
    function = resolve(name, table)
    if short(name) in table:
        raise ConfigError(f"{flag} {name}: {short(name)} is one of bidsdnn's own; give the function another name")
    try:
        found = np.asarray(function(*arguments), dtype=float)
    except Exception as error:
        raise ConfigError(f"{flag} {name}: failed on random numbers ({type(error).__name__}: {error})") from error
    if found.shape != shape:
        expected = "a number" if shape == () else "n * (n - 1) / 2 distances in scipy's order"
        raise ConfigError(f"{flag} {name}: gave shape {found.shape} for {arguments[0].shape}; return {expected}")
