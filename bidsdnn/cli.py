"""The command line: the only module that prints results, catches errors and exits.

Nothing heavy is imported before the arguments are read, so that ``--help`` is there at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bidsdnn.arguments import LEVELS, parser
from bidsdnn.errors import BidsdnnError, ConfigError, UnknownLevelError

KERNEL_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plain values of all that was asked, the flags winning over the file.

    Parameters
    ----------
    arguments : Namespace
        With those arguments only that were given.

    Returns
    -------
    dict
        Keys are fields of `Config`.

    Raises
    ------
    ConfigError, UnknownLevelError
    """
    from bidsdnn.config import load_toml

    given = {key: value for key, value in vars(arguments).items() if value is not None}
    values = load_toml(Path(given.pop("config_file"))) if "config_file" in given else {}
    given.pop("notrack", None)
    given.pop("list_what", None)
    for name, prefix in {"participant_label": "sub-", "session_label": "ses-", "task_id": "task-"}.items():
        if name in given:
            given[name] = _labels(given[name], prefix)
    if "features" in given:  # a word alone is computed, and no file
        given["computed_features"] = [text for text in given["features"] if text.isalpha()]
        given["features"] = [text for text in given["features"] if not text.isalpha()]
    for name in ("derivatives", "rdm", "features"):
        if name in given:
            given[name] = _named_paths(given[name], f"--{name}")
    values |= given
    for name in ("bids_dir", "out_dir", "analysis_level"):
        if name not in values:
            raise ConfigError(f"{name} is missing; usage: bidsdnn BIDS_DIR OUT_DIR {{dnn,participant,group}}")
    if values["analysis_level"] not in LEVELS:
        raise UnknownLevelError(
            f"analysis level {values['analysis_level']!r} is unknown; choose one of {', '.join(LEVELS)}"
        )
    return values


def _labels(texts: Sequence[str], prefix: str) -> list[str]:
    """Labels as they are, or from a text file with one a line."""
    if len(texts) == 1 and Path(texts[0]).is_file():
        texts = Path(texts[0]).read_text(encoding="utf-8").split()
    return [text.removeprefix(prefix) for text in texts]


def _named_paths(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """Read NAME=PATH, or PATH alone, whose last folder is its name."""
    named: dict[str, str] = {}
    for text in pairs:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).absolute().name, text
        if name in named:
            raise ConfigError(f"{flag} {text}: the name {name!r} stands twice; write OTHER={path}")
        named[name] = path
    return named


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsdnn``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit status, as the documentation lists them.
    """
    arguments = parser().parse_intermixed_args(argv)
    return guarded(lambda: _run(arguments, list(argv if argv is not None else sys.argv[1:])))


def _run(arguments: argparse.Namespace, argv: list[str]) -> int:
    if getattr(arguments, "list_what", None):
        single_threaded()
        from bidsdnn.listing import listing

        print("\n".join(listing(arguments.list_what, getattr(arguments, "network", ["alexnet"]))))
        return 0
    values = settings(arguments)
    # Numerical libraries read these once, when they are imported: after this line and not before.
    single_threaded()
    from bidsdnn.config import resolve_config

    config = resolve_config(values, origin=getattr(arguments, "config_file", None) or "")
    if not config.bids_dir.is_dir():
        raise ConfigError(f"{config.bids_dir}: no such folder; give the BIDS dataset's path")
    from bidsdnn.journal import command_text
    from bidsdnn.pipeline import run

    with _log_to_stderr(config.verbose):
        outcomes = run(config, command=command_text(["bidsdnn", *argv]), announce=print)
    return _status(outcomes, config.out_dir)


def _status(outcomes: Sequence[Any], out_dir: Path) -> int:
    """0 if all went well, the common status if all failed alike, else 1; lists what failed."""
    from bidsdnn.parallel import describe

    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"bidsdnn: {outcome.name}: {describe(outcome.error)}", file=sys.stderr)
    if not failed:
        return 0
    if any(not isinstance(outcome.error, BidsdnnError) for outcome in failed):
        print(f"bidsdnn: tracebacks are in {out_dir / 'logs'}", file=sys.stderr)
    codes = {getattr(outcome.error, "exit_code", 1) for outcome in failed}
    return codes.pop() if len(failed) == len(outcomes) and len(codes) == 1 else 1


def guarded(work: Callable[[], int]) -> int:
    """Run a command; errors of the user's making are one line and an exit status."""
    try:
        return work()
    except BidsdnnError as error:
        print(f"bidsdnn: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of a list has seen enough; nothing more can be printed, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("bidsdnn: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def single_threaded() -> None:
    """Sums and decompositions differ in their last bits with the number of threads: all work is spread by process."""
    for name in KERNEL_THREADS:
        os.environ[name] = "1"
    os.environ.setdefault("MPLBACKEND", "agg")


@contextmanager
def _log_to_stderr(verbose: int) -> Iterator[None]:
    """Warnings on the terminal, with -v what is done, with -vv everything; errors are printed once, at the end."""
    logger = logging.getLogger("bidsdnn")
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    handler = logging.StreamHandler()
    handler.setLevel(max(logging.WARNING - 10 * verbose, logging.DEBUG))
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
