"""Over participants: how similar the regions and layers are on average, and each two people in one region."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, read_table, sidecar_path
from bidsdnn.geometry import own_sources
from bidsdnn.geometry.similarities import arranged, placed
from bidsdnn.journal import software
from bidsdnn.lookup import summary
from bidsdnn.methods.arrangement import classical_mds
from bidsdnn.methods.rsa_inference import fisher_mean
from bidsdnn.stimuli import file_sha256

logger = logging.getLogger(__name__)

FEWEST = 2
PAIR = ["first_kind", "first", "second_kind", "second", "comparison"]
Context = tuple[tuple[str, str], ...]


def people(derivatives: Derivatives, labels: Sequence[str], *, comparisons: Sequence[str]) -> int:
    """The geometry of each region was compared between pairs of participants, over the stimuli that all saw.

    Parameters
    ----------
    derivatives : Derivatives
        Holds the participants' RDMs.
    labels : sequence of str
        Participants, without ``sub-``.
    comparisons : sequence of str
        Rows of `SIMILARITIES`.

    Returns
    -------
    int
        Tables written or found up to date.
    """
    written = 0
    for context, paths in _files(derivatives, labels, "*_relmat.h5", leave_out="desc").items():
        content = digest({**_hashes(paths), "comparisons": list(comparisons), **own_sources(comparisons)})
        outputs = {desc: _path(derivatives, context, desc) for desc in ("people", "peoplemds")}
        written += 1
        if _current(outputs, content):
            continue
        found = {label: read_rdms(path) for label, path in paths.items()}
        shared = [one for one in next(iter(found.values()))[0] if all(one in ids for ids, _ in found.values())]
        regions = [name for name in next(iter(found.values()))[1] if all(name in rdms for _, rdms in found.values())]
        if len(shared) < 4:
            logger.warning("group: participants share %d stimuli; their RDMs were not compared", len(shared))
            continue
        pairs, places = [], []
        for region in regions:
            rdms = np.array([among(ids, rdms[region], shared) for ids, rdms in found.values()])
            for comparison in comparisons:
                rows, where = arranged([(region, f"sub-{label}") for label in found], rdms, comparison)
                pairs.append(rows.rename(columns={"first_kind": "region"}).drop(columns="second_kind"))
                places.append(where.rename(columns={"kind": "region", "item": "participant"}))
        keys = _keys(derivatives, paths, content, summary(people))
        keys |= {"NumberOfStimuli": len(shared)}
        for desc, tables in (("people", pairs), ("peoplemds", places)):
            derivatives.write_table(outputs[desc], pd.concat(tables, ignore_index=True), keys)
    return written


def among(ids: Sequence[str], rdm: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
    """Distances of some stimuli, in their order, joined by name.

    Parameters
    ----------
    ids : sequence of str
        Stimuli of the RDM.
    rdm : ndarray, shape (n * (n - 1) / 2,)
    wanted : sequence of str
        m of them.

    Returns
    -------
    ndarray, shape (m * (m - 1) / 2,)
    """
    square = np.zeros((len(ids), len(ids)))
    square[np.triu_indices(len(ids), 1)] = rdm
    square += square.T
    place = {name: row for row, name in enumerate(ids)}
    rows = [place[name] for name in wanted]
    return np.asarray(square[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)])


def average(derivatives: Derivatives, labels: Sequence[str]) -> int:
    """Similarities of layers, columns and regions were averaged over participants after Fisher's z transform.

    Parameters
    ----------
    derivatives : Derivatives
        Holds the participants' tables of ``--analysis similarity``.
    labels : sequence of str

    Returns
    -------
    int
        Tables written or found up to date.
    """
    written = 0
    for context, paths in _files(derivatives, labels, "*_desc-similarity_results.tsv").items():
        content = digest(_hashes(paths))
        outputs = {desc: _path(derivatives, context, desc) for desc in ("similarity", "mds")}
        written += 1
        if _current(outputs, content):
            continue
        every = pd.concat([_pairs(path) for path in paths.values()], ignore_index=True)
        grouped = every.groupby(PAIR, sort=False)["similarity"]
        rows = grouped.agg(lambda values: float(fisher_mean(values.to_numpy()))).reset_index()
        rows["n_participants"] = grouped.count().to_numpy()
        keys = _keys(derivatives, paths, content, summary(average))
        derivatives.write_table(outputs["similarity"], rows, keys)
        derivatives.write_table(outputs["mds"], placed(rows), keys)
    return written


def _pairs(path: Path) -> pd.DataFrame:
    table = read_table(path)
    return table.astype(dict.fromkeys(PAIR, str))


def _files(
    derivatives: Derivatives, labels: Sequence[str], pattern: str, *, leave_out: str = ""
) -> dict[Context, dict[str, Path]]:
    """Files of two participants or more that differ in nothing but the participant."""
    found: dict[Context, dict[str, Path]] = {}
    for label in labels:
        for path in sorted((derivatives.root / f"sub-{label}" / "func").glob(pattern)):
            entities = names.entities_of(path)
            if leave_out not in entities:
                key = tuple((name, value) for name, value in entities.items() if name not in ("sub", "desc"))
                found.setdefault(key, {})[label] = path
    return {context: paths for context, paths in found.items() if len(paths) >= FEWEST}


def _path(derivatives: Derivatives, context: Context, desc: str) -> Path:
    stem = "".join(f"{key}-{value}_" for key, value in context)
    return derivatives.root / "group" / f"{stem}desc-{desc}_results.tsv"


def _hashes(paths: Mapping[str, Path]) -> dict[str, Any]:
    return {"inputs": {label: file_sha256(path) for label, path in paths.items()}}


def _current(outputs: Mapping[str, Path], content: str) -> bool:
    return all(
        path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content for path in outputs.values()
    )


def _keys(derivatives: Derivatives, paths: Mapping[str, Path], content: str, methods: str) -> dict[str, Any]:
    return {
        "Methods": f"{methods} {summary(classical_mds)}",
        "Software": software(),
        "Participants": list(paths),
        "Sources": [derivatives.uri(path) for path in paths.values()],
        "ConfigurationHash": content,
        "References": ["rsa", "mds"],
    }
