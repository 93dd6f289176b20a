"""What happened in a run, on disk: the command, the configuration, warnings, failures, time and memory.

Each run has a folder ``logs/<run_uuid>/``; the reports read from there and never from memory.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import re
import resource
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bidsdnn import __version__
from bidsdnn.bids.files import read_json, write_json, write_text
from bidsdnn.config import Config, to_toml
from bidsdnn.errors import OutputError
from bidsdnn.parallel import Outcome, describe

PACKAGES = (
    "h5py", "joblib", "nibabel", "nilearn", "numpy", "pandas", "pillow", "pybids", "scikit-learn", "scipy", "torch",
    "torchvision",
)  # fmt: skip
logger = logging.getLogger(__name__)
# What `timed` logs, and `recall` reads back.
STEP = re.compile(
    r"(?:sub-\w+: )?(?P<step>.+): (?P<how>took|stopped after) (?P<s>[\d.]+) s, peak memory (?P<mb>\d+) MB"
)
FORMAT = "%(asctime)s\t%(levelname)s\t%(name)s\t%(message)s"


def software() -> dict[str, str]:
    """Versions of this program and of the packages that its numbers come from."""
    return {"bidsdnn": __version__, "python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def peak_memory_mb() -> float:
    """Largest resident memory so far of this process or of its largest worker, in MB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    scale = 1e6 if platform.system() == "Darwin" else 1e3
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / scale


@dataclass(frozen=True)
class Journal:
    """The log folder of one run.

    Parameters
    ----------
    root : Path
        Of the output dataset.
    run_uuid : str
    command : str
    started : float
        Seconds since 1970.
    """

    root: Path
    command: str
    run_uuid: str = field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4()}")
    started: float = field(default_factory=time.time)

    @property
    def folder(self) -> Path:
        """Where this run's log goes."""
        return self.root / "logs" / self.run_uuid

    @contextmanager
    def open(self, config: Config, early: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
        """Write what was asked, log to ``bidsdnn.log`` meanwhile, and note time and memory at the end.

        Parameters
        ----------
        config : Config
        early : sequence of LogRecord
            What was logged before there was a folder to log to.

        Raises
        ------
        OutputError
            If the output folder cannot be written.
        """
        write_text(self.folder / "bidsdnn.toml", to_toml(config))
        write_json(self.folder / "environment.json", self._environment())
        try:
            with _logging_to(self.folder / "bidsdnn.log") as handler:
                for record in early:
                    handler.handle(record)
                yield
        finally:
            ended = {"Seconds": round(time.time() - self.started, 1), "PeakMemoryMB": round(peak_memory_mb())}
            write_json(self.folder / "environment.json", self._environment() | ended)

    def _environment(self) -> dict[str, Any]:
        return {
            "Command": self.command,
            "Started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.started)),
            "Software": software(),
            "Platform": platform.platform(),
        }

    @contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Log to ``<name>.log`` meanwhile, as ``sub-01.log``."""
        with _logging_to(self.folder / f"{name}.log"):
            yield

    def failed(self, outcome: Outcome) -> None:
        """Keep the traceback of a participant that failed."""
        assert outcome.error is not None
        write_text(self.folder / f"crash-{outcome.name}.txt", f"{describe(outcome.error)}\n\n{outcome.traceback}")


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Log how long a step took, or after how long it stopped, and the largest memory so far.

    Parameters
    ----------
    step : str
        As ``sub-01: encoding``.
    """
    started, how = time.monotonic(), "stopped after"
    try:
        yield
        how = "took"
    finally:
        seconds = time.monotonic() - started
        logger.info("%s: %s %.1f s, peak memory %.0f MB", step, how, seconds, peak_memory_mb())


@contextmanager
def early_records() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged before there is a folder to log to."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    logger = logging.getLogger("bidsdnn")
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


@contextmanager
def _logging_to(path: Path) -> Iterator[logging.Handler]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another out_dir") from error
    handler.setFormatter(logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%S"))
    logger = logging.getLogger("bidsdnn")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        handler.close()


def latest(root: Path, name: str) -> Path | None:
    """Log folder of the last run that worked on something.

    Parameters
    ----------
    root : Path
        Of the output dataset.
    name : str
        As ``sub-01`` or ``group``.

    Returns
    -------
    Path or None
    """
    return max(
        (path.parent for path in (root / "logs").glob(f"*/{name}.log")), default=None, key=lambda path: path.name
    )


def recall(folder: Path, name: str) -> dict[str, Any]:
    """Read back what a run's log says about one participant or the group.

    Parameters
    ----------
    folder : Path
        From `latest`.
    name : str
        As ``sub-01``.

    Returns
    -------
    dict
        run_uuid, command, config, started, seconds, warnings, errors, tracebacks, steps, software.
    """
    environment = read_json(folder / "environment.json")
    warnings, steps = [], []
    # Warnings before the participant's own work, about the dataset or the networks, concern every participant.
    for log in (folder / "bidsdnn.log", folder / f"{name}.log"):
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
            parts = line.split("\t", 3)
            if len(parts) == 4 and parts[1] == "WARNING" and not _about_another(parts[3], name):
                warnings.append(parts[3])
            step = STEP.fullmatch(parts[3]) if len(parts) == 4 and parts[2] == __name__ else None
            if step and not _about_another(parts[3], name):
                steps.append((step["step"], step["how"], float(step["s"]), float(step["mb"])))
    # What failed at the group level is about the group, whatever it is called.
    names = [one.stem.removeprefix("crash-") for one in sorted(folder.glob("crash-*.txt"))]
    mine = [one for one in names if one == name or (name == "group" and not one.startswith("sub-"))]
    crashes = [(folder / f"crash-{one}.txt").read_text(encoding="utf-8").partition("\n") for one in mine]
    config = folder / "bidsdnn.toml"
    return {
        "run_uuid": folder.name,
        "command": environment.get("Command", ""),
        "config": config.read_text(encoding="utf-8") if config.exists() else "",
        "started": environment.get("Started", ""),
        "seconds": environment.get("Seconds"),
        "warnings": tuple(dict.fromkeys(warnings)),
        "errors": tuple(first for first, _, _ in crashes if first),
        "tracebacks": tuple(rest.strip() for _, _, rest in crashes if rest.strip()),
        # What is in the log of a participant is in that of the run as well.
        "steps": tuple(dict.fromkeys(steps)),
        "software": environment.get("Software", {}),
    }


def runs(root: Path) -> list[dict[str, Any]]:
    """What is known of each run, the first one first.

    Parameters
    ----------
    root : Path
        Of the output dataset.

    Returns
    -------
    list of dict
        ``environment.json``, with the folder's name as ``Run`` and the names that failed as ``Failed``.
    """
    return [
        read_json(path)
        | {
            "Run": path.parent.name,
            "Failed": sorted(one.stem.removeprefix("crash-") for one in path.parent.glob("crash-*.txt")),
        }
        for path in sorted((root / "logs").glob("*/environment.json"))
    ]


def _about_another(message: str, name: str) -> bool:
    """Whether a line of the run's log is about another participant."""
    return message.startswith("sub-") and not message.startswith(f"{name}:")


def command_text(arguments: list[str]) -> str:
    """The command line as one would type it again."""
    return " ".join(
        argument if argument.isprintable() and " " not in argument else json.dumps(argument) for argument in arguments
    )
