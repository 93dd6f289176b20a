"""Files that appear whole or not at all, and hashes of what they depend on."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn import __version__
from bidsdnn.errors import OutputError


def digest(content: Mapping[str, Any]) -> str:
    """Hash of a configuration slice and its inputs.

    Parameters
    ----------
    content : mapping
        Plain values; paths are written as text.

    Returns
    -------
    str
        SHA-256 of the content and this program's version, in hexadecimal.
    """
    text = json.dumps({"version": __version__, **content}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `path` when all went well.

    Parameters
    ----------
    path : Path
        Final name; its folder is made.

    Yields
    ------
    Path
        A hidden name in the same folder.

    Raises
    ------
    OutputError
        If the folder or file cannot be written.
    """
    with together([path]) as (temporary,):
        yield temporary


@contextmanager
def together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Give temporary names that become some files' when all went well: both hemispheres, or none.

    Parameters
    ----------
    paths : sequence of Path
        Final names in one folder, which is made.

    Yields
    ------
    list of Path
        Hidden names in that folder, which differ from each other as the final ones do.

    Raises
    ------
    OutputError
        If the folder or a file cannot be written.
    """
    mark = uuid.uuid4().hex
    temporaries = [path.with_name(f".{mark}.{path.name}") for path in paths]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{paths[0]}: cannot be written ({error.strerror or error}); free space or choose another out_dir"
        ) from error
    finally:
        for temporary in temporaries:
            if temporary.exists():
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, empty where the file is missing or unreadable as JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_tsv(path: Path, table: pd.DataFrame) -> None:
    """Write a table with ``n/a`` for what is missing; numbers in nine significant digits.

    Parameters
    ----------
    path : Path
    table : DataFrame
    """
    with atomic(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", float_format="%.9g", lineterminator="\n")


def read_table(path: Path, *, text: Collection[str] = ()) -> pd.DataFrame:
    """Read a table that `write_tsv` wrote; names stay text, as do the columns of `text`, and numbers become numbers."""
    names = dict.fromkeys(
        (
            *text,
            "stimulus_id",
            "region",
            "layer",
            "network",
            "other_layer",
            "other_network",
            "run",
            "trial_type",
            "participant",
            "stim_id",
            "stimulus",
            "target",
            "decoder",
            "true",
            "predicted",
            "preferred",
        ),
        str,
    )
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=names, encoding="utf-8")


def sidecar_path(path: Path) -> Path:
    """The JSON file beside a data file."""
    return path.with_name(path.name.split(".")[0] + ".json")
