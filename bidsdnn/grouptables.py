"""Participants' tables of one analysis, joined row by row and tested over participants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.journal import software
from bidsdnn.methods.inference import sign_flip
from bidsdnn.stimuli import file_sha256

ROWS = ("network", "layer", "part", "spaces", "region", "metric", "comparison")
FEWEST = 2


def by_context(
    derivatives: Derivatives, labels: Sequence[str], suffix: str, extension: str, desc: str, **more: str
) -> dict[tuple[tuple[str, str], ...], dict[str, Path]]:
    """Files of several participants that differ in nothing but the participant."""
    contexts: dict[tuple[tuple[str, str], ...], dict[str, Path]] = {}
    for label in labels:
        folder = derivatives.root / f"sub-{label}" / "func"
        for path in sorted(folder.glob(f"*_desc-{desc}_{suffix}{extension}")):
            entities = names.entities_of(path)
            if entities.items() >= more.items():
                key = tuple((name, value) for name, value in entities.items() if name not in ("sub", *more))
                contexts.setdefault(key, {})[label] = path
    return contexts


def enough(context: Mapping[str, Any], paths: Mapping[str, Path], omitted: list[str], what: str) -> bool:
    """Whether there are two participants or more; if not, a sentence says so."""
    if len(paths) >= FEWEST:
        return True
    described = ", ".join(f"{key} {value}" for key, value in context.items() if key != "desc")
    omitted.append(f"{what} of {described}: only sub-{', sub-'.join(paths)} has it, so there is no group.")
    return False


def content_of(paths: Mapping[str, Path], **more: Any) -> str:
    """Hash of participants' files and of what else a product depends on."""
    return digest({"inputs": {label: file_sha256(path) for label, path in paths.items()}, **more})


def sidecar_of(
    derivatives: Derivatives, paths: Mapping[str, Path], *, permutations: int, content: str, methods: str
) -> dict[str, Any]:
    """What a reader of a group's product needs to know: who, which test, and the smallest p that it can give."""
    n = len(paths)
    enumerated = n <= 12
    first = read_json(sidecar_path(next(iter(paths.values()))))
    return {
        "Methods": methods,
        "Software": software(),
        "Participants": list(paths),
        "Layers": first.get("Layers", []),
        "Network": first.get("Network", ""),
        "Test": "sign flips of the participants' Fisher-z scores, one-sided",
        "SmallestAttainableP": 1 / 2**n if enumerated else 1 / (1 + permutations),
        "Permutations": 2**n if enumerated else permutations,
        "Sources": [derivatives.uri(path) for path in paths.values()],
        "ConfigurationHash": content,
        "References": ["sign-flip", "fdr"],
    }


def fisher_z(r: np.ndarray) -> np.ndarray:
    """Inverse hyperbolic tangent of correlations; a perfect one becomes a large finite number."""
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))


def other_settings(paths: Mapping[str, Path], analysis: str) -> list[str]:
    """A sentence on participants whose tables were made in another way than the first one's; none if all agree."""
    settings = {label: json.dumps(read_json(sidecar_path(one)).get("Settings")) for label, one in paths.items()}
    first = next(iter(paths))
    other = [label for label in paths if settings[label] != settings[first]]
    if not other:
        return []
    return [
        f"The {analysis} of sub-{', sub-'.join(other)} was made with other settings than that of sub-{first}; "
        "run the participant level again with the same options for all."
    ]


def scored(
    tables: Mapping[str, pd.DataFrame], score: str, *, permutations: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Participants' scores were tested against zero, Fisher-transformed, by flipping the signs of whole participants.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By participant, with the columns of `ROWS` that the analysis has.
    score : str
        Column to be tested: correlations.
    permutations, seed : int
        Of the random flips.

    Returns
    -------
    table : DataFrame
        Rows as in the participants' tables: means, n_participants, sem, t and p.
    z : ndarray, shape (n_participants, n_rows)
        Fisher-transformed scores; NaN where a participant lacks a row.
    """
    keys = [key for key in ROWS if key in next(iter(tables.values()))]
    whole = pd.concat([table.assign(participant=label) for label, table in tables.items()], ignore_index=True)
    order = pd.MultiIndex.from_frame(whole[keys].drop_duplicates())
    wide = whole.pivot(index=keys, columns="participant", values=score)
    values = wide.reindex(index=order, columns=list(tables)).to_numpy(dtype=float).T
    z = values if score == "r2" else fisher_z(values)
    t, p = sign_flip(z, permutations=permutations, seed=seed)
    means = whole.groupby(keys, sort=False).mean(numeric_only=True).reindex(order).reset_index()
    present = np.isfinite(values).sum(axis=0)
    result = means[keys].copy()
    for column in ("n_voxels", score, "r2", "ceiling", "pearsonr_normalized"):
        if column in means:
            result[column] = means[column]
    spread = np.nanstd(np.where(present >= FEWEST, values, 0.0), axis=0, ddof=1)
    result["n_participants"] = present
    result["sem"] = np.where(present >= FEWEST, spread / np.sqrt(np.maximum(present, 1)), np.nan)
    result["t"], result["p"] = t, p
    return result, z
