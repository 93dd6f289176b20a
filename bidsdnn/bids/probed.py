"""What a probe of a network found, written: tables, pictures and arrays, and the receipt that makes them current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bidsdnn.bids.arrays import write_numbers
from bidsdnn.bids.atlases import atlas_entities
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import atomic, read_json, sidecar_path, write_json
from bidsdnn.result import Result
from bidsdnn.stimuli import write_png


def save_probe(derivatives: Derivatives, result: Result, content: str, /, **entities: Any) -> None:
    """Write a probe's result; what an earlier run of it left under other names goes.

    Parameters
    ----------
    derivatives : Derivatives
    result : Result
        Its ``analysis`` goes after ``desc-``.
    content : str
        Hash of all the result depends on.
    **entities
        ``model``, and ``datatype`` or the participant's.
    """
    name = result.analysis
    receipt = derivatives.receipt(name, **entities)
    before = read_json(receipt).get("Outputs", [])
    # Between the old files and the new ones nothing says that they are whole.
    receipt.unlink(missing_ok=True)
    common = {**result.sidecar, "ConfigurationHash": content}
    written: list[Path] = []
    for desc, table in result.tables.items():
        for atlas, rows in table.groupby("atlas", sort=False) if "atlas" in table else [("", table)]:
            path = derivatives.path("results", ".tsv", **entities, **atlas_entities(str(atlas)), desc=desc)
            rows = rows.drop(columns=["atlas", "network"], errors="ignore")
            written.append(derivatives.write_table(path, rows, common))
    shown = []
    for picture in result.pictures:
        path = derivatives.path("picture", ".png", **{**entities, "label": picture.name}, desc=name)
        with atomic(path) as temporary:
            write_png(temporary, picture.pixels)
        about = {"Alt": picture.alt, "Caption": picture.caption, "Unit": picture.unit}
        write_json(sidecar_path(path), {**common, "Description": picture.caption, **about})
        shown.append({"File": path.relative_to(derivatives.root).as_posix(), **about})
        written.append(path)
    if result.numbers:
        path = derivatives.path("arrays", ".h5", **entities, desc=name)
        write_numbers(path, result.numbers)
        shapes = {key: list(values.shape) for key, values in result.numbers.items()}
        write_json(sidecar_path(path), {**common, "Datasets": shapes})
        written.append(path)
    written += derivatives.write_weights(result, common, **entities)
    kept = {path.relative_to(derivatives.root).as_posix() for path in written}
    for old in set(before) - kept:
        (derivatives.root / old).unlink(missing_ok=True)
        sidecar_path(derivatives.root / old).unlink(missing_ok=True)
    derivatives.write_receipt(name, written, {**common, "Pictures": shown}, **entities)
