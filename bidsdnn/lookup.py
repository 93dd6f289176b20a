"""From a name to the object it stands for.

Wherever the configuration takes the name of a table's row it also takes ``package.module:object`` or
``file.py:object``, so that users add networks and analyses without changing this package. Parameters are checked
against the signature before any data is read: a misspelt parameter costs a second and not a night.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bidsdnn.errors import ConfigError

T = TypeVar("T")


def closest(name: str, names: Iterable[str], *, n: int = 4) -> str:
    """Say which of the known names are nearest to a misspelt one.

    Parameters
    ----------
    name : str
        What was asked.
    names : iterable of str
        What there is.
    n : int
        How many to offer.

    Returns
    -------
    str
        A phrase such as ``did you mean alexnet, resnet18?``.
    """
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=n, cutoff=0.4)
    if near:
        return f"did you mean {', '.join(near)}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"there are {shown}" if known else "there are none"


def resolve(name: str, table: Mapping[str, T]) -> T:
    """Find the object that a name stands for.

    Parameters
    ----------
    name : str
        A row of `table`, ``package.module:object``, or ``file.py:object``.
    table : mapping of str to object
        The built-in rows.

    Returns
    -------
    object

    Raises
    ------
    ConfigError
        If nothing has that name.
    """
    if name in table:
        return table[name]
    module_name, colon, attribute = name.rpartition(":")
    if not colon:
        raise ConfigError(f"{name!r} is not known; {closest(name, table)}")
    module = _module(module_name)
    try:
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{module_name} has no {attribute!r}; {closest(attribute, public)}") from error
    return found


def resolve_dotted(name: str, table: Mapping[str, T]) -> T:
    """Find the object that a name stands for, as `resolve`; ``package.module.object`` is understood as well.

    Parameters
    ----------
    name : str
    table : mapping of str to object

    Returns
    -------
    object

    Raises
    ------
    ConfigError
        If nothing has that name.
    """
    module, dot, attribute = name.rpartition(".")
    plain = name not in table and ":" not in name and dot
    return resolve(f"{module}:{attribute}" if plain else name, table)


def _module(name: str) -> Any:
    """Import a module by dotted name, or from a file that ends in ``.py``."""
    if name.endswith(".py"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"{path}: file not found; give the path of a Python file before the colon")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"cannot import {name!r} ({error}); install it, or give file.py:object") from error


def bind(function: Callable[..., T], parameters: Mapping[str, Any], *, name: str, given: Iterable[str] = ()) -> None:
    """Check that a function takes the parameters a user gave it.

    Parameters
    ----------
    function : callable
        What will be called.
    parameters : mapping of str to object
        The user's parameters.
    name : str
        How the user calls the function, for the error.
    given : iterable of str
        Parameters the program itself passes and a user may not.

    Raises
    ------
    ConfigError
        If a parameter is none of the function's keyword-only ones.
    """
    accepted = {
        key
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key not in set(given)
    }
    for key in parameters:
        if key not in accepted:
            raise ConfigError(f"{name} has no parameter {key!r}; {closest(key, accepted)}")


def summary(function: Any) -> str:
    """First sentence of an object's documentation, which lists and reports print."""
    return (function.__doc__ or "").strip().split("\n")[0]
