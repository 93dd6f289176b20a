"""One `map` for all parallel work, whose results do not depend on how many workers there are.

Each piece of work runs with a fixed number of kernel threads, in this process or in a worker, so that a run with
``--nprocs 16`` writes the same bytes as one with ``--nprocs 1``.
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bidsdnn.errors import BidsdnnError


class Map(Protocol):
    """Apply a function to items and return the results in the items' order."""

    def __call__(self, function: Callable[..., Any], items: Iterable[Any], *, label: str = "") -> list[Any]:
        """Apply `function` to each of `items`, showing progress under `label`."""


@dataclass(frozen=True)
class Outcome:
    """What came of a piece of work that is allowed to fail: its value, or its error and traceback."""

    name: str
    value: Any = None
    error: BaseException | None = None
    traceback: str = ""


def available_cpus() -> int:
    """Number of processors this process may use, as a scheduler or container has set it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attempt(function: Callable[[], Any], name: str) -> Outcome:
    """Call a function and keep whatever error it raises.

    Parameters
    ----------
    function : callable
        Takes nothing.
    name : str
        Whose work it is, as ``sub-01``.

    Returns
    -------
    Outcome
    """
    try:
        return Outcome(name, value=function())
    except Exception as error:  # one participant's failure, whatever it is, must not stop the others
        return Outcome(name, error=error, traceback=traceback.format_exc())


def seed_for(seed: int, *names: str) -> int:
    """Seed of one piece of work: the same whichever worker does it, and different for each name.

    Parameters
    ----------
    seed : int
        The run's.
    *names : str
        What the work is.

    Returns
    -------
    int
        32 bits.
    """
    text = "\0".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def describe(error: BaseException) -> str:
    """One line for an error: its text where it was made for users, its type and text otherwise."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BidsdnnError) else f"{type(error).__name__}: {text}"


@contextmanager
def workers(n: int, *, folder: Path | None = None) -> Iterator[Map]:
    """Give a `map` over up to n processes, each of which computes with one thread.

    Parameters
    ----------
    n : int
        Number of worker processes; 1 works in this process.
    folder : Path, optional
        Where arrays are shared with the workers; by default joblib's choice.

    Yields
    ------
    Map
    """
    run = partial(_map, n=n)
    with threadpool_limits(1):
        if n == 1:
            yield run
        else:
            with parallel_config(
                "loky", n_jobs=n, inner_max_num_threads=1, temp_folder=folder, max_nbytes="1M", mmap_mode="r"
            ):
                yield run


def at_most(map: Map, n: int) -> Map:
    """The same map over so many processes at most, where memory is for no more."""
    if isinstance(map, partial) and map.func is _map:
        return partial(_map, n=min(n, map.keywords["n"]))
    return map


def serial(function: Callable[..., Any], items: Iterable[Any], *, label: str = "") -> list[Any]:
    """A `Map` that works in this process."""
    return _map(function, items, label=label, n=1)


def _map(function: Callable[..., Any], items: Iterable[Any], *, label: str = "", n: int) -> list[Any]:
    tasks = list(items)
    bar = partial(tqdm, total=len(tasks), desc=label, disable=None if label else True, leave=False)
    if n == 1 or len(tasks) <= 1:
        return [_limited(function, task) for task in bar(tasks)]
    # Tasks are coarse: sent in batches, the last of them would leave processes idle.
    # Every task ends, so that none is killed while it writes; then the first error, in the tasks' order, is raised.
    jobs = Parallel(n_jobs=n, return_as="generator", batch_size=1)(delayed(_kept)(function, task) for task in tasks)
    found = list(bar(jobs))
    for outcome in found:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in found]


def _kept(function: Callable[..., Any], task: Any) -> Outcome:
    return attempt(partial(_limited, function, task), "")


def _limited(function: Callable[..., Any], task: Any) -> Any:
    with threadpool_limits(1):
        return function(task)
