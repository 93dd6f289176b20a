"""From participants' results on disk to statistics over participants."""

from __future__ import annotations

import json
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
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.journal import software
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip, sign_flip_familywise
from bidsdnn.methods.rsa_inference import noise_ceiling
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.spaces import intersection
from bidsdnn.stimuli import file_sha256

logger = logging.getLogger(__name__)

SCORES = {"encoding": "pearsonr", "rsa": "similarity", "searchlight": "similarity", "searchlightencoding": "pearsonr"}
"""The column of each analysis' table that is tested over participants."""
MAPS = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr"}
"""The map of each analysis that is tested over participants."""
# Cosines of distances, which are all positive, lie above 0 by chance.
NO_ZERO = {"cosine", "whitened_cosine", "linear_cka"}
ROWS = ("network", "layer", "region", "metric", "comparison")
FEWEST = 2
# Endings of maps, and of the masks beside them.
MASKS = {
    ".nii.gz": ".nii.gz", ".func.gii": ".label.gii", ".dscalar.nii": ".dlabel.nii", ".pscalar.nii": ".plabel.nii",
}  # fmt: skip
# Spaces of one participant only: they enter by region tables, not by maps.
INDIVIDUAL_SPACES = {"T1w", "fsnative", "boldref", "", None}


def group(derivatives: Derivatives, labels: Sequence[str], *, permutations: int, seed: int) -> tuple[int, list[str]]:
    """Participants' scores were tested against zero, Fisher-transformed, by flipping the signs of whole participants.

    Parameters
    ----------
    derivatives : Derivatives
        Holds the participants' results.
    labels : sequence of str
        Participants, without ``sub-``; those without results are named and left out.
    permutations : int
        Random sign flips where there are more than 12 participants; otherwise all are made.
    seed : int

    Returns
    -------
    n_tables : int
        Tables written or found up to date.
    omitted : list of str
        Sentences on who and what was left out.

    Raises
    ------
    MissingInputError
        If fewer than two participants have results.
    """
    found = [label for label in labels if any((derivatives.root / f"sub-{label}").rglob("*_results.tsv"))]
    if len(found) < FEWEST:
        raise MissingInputError(
            f"{derivatives.root}: {len(found)} of {len(labels)} participants have results; a group needs two or more, "
            "run the participant level first"
        )
    omitted = [f"sub-{label} has no results and was left out." for label in labels if label not in found]
    written = 0
    for analysis in SCORES:
        for context, paths in _by_context(derivatives, found, "results", ".tsv", analysis).items():
            written += _table(
                derivatives, analysis, dict(context), paths, omitted, permutations=permutations, seed=seed
            )
    for analysis, stat in MAPS.items():
        for extension in MASKS:
            for context, paths in _by_context(derivatives, found, "statmap", extension, analysis, stat=stat).items():
                # The left file stands for both hemispheres.
                if ("hemi", "R") not in context:
                    _maps(derivatives, dict(context), paths, omitted, permutations=permutations, seed=seed)
    if not written:
        raise MissingInputError(
            f"{derivatives.root}: no analysis has results of two or more participants; "
            "run the participant level with a network first"
        )
    for sentence in omitted:
        logger.warning("%s", sentence)
    return written, omitted


def _by_context(
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


def _enough(context: Mapping[str, Any], paths: Mapping[str, Path], omitted: list[str], what: str) -> bool:
    if len(paths) >= FEWEST:
        return True
    described = ", ".join(f"{key} {value}" for key, value in context.items() if key != "desc")
    omitted.append(f"{what} of {described}: only sub-{', sub-'.join(paths)} has it, so there is no group.")
    return False


def _content(paths: Mapping[str, Path], **more: Any) -> str:
    return digest({"inputs": {label: file_sha256(path) for label, path in paths.items()}, **more})


def _sidecar(derivatives: Derivatives, paths: Mapping[str, Path], permutations: int, content: str) -> dict[str, Any]:
    n = len(paths)
    enumerated = n <= 12
    first = read_json(sidecar_path(next(iter(paths.values()))))
    return {
        "Methods": summary(group),
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


def _table(
    derivatives: Derivatives, analysis: str, context: dict[str, str], paths: dict[str, Path], omitted: list[str], *,
    permutations: int, seed: int,
) -> int:  # fmt: skip
    """Write the group's table of one analysis, space, atlas and network; 1 if there is one."""
    if not _enough(context, paths, omitted, f"The {analysis} table"):
        return 0
    stem = {key: value for key, value in context.items() if key != "desc"}
    name = "_".join(f"{key}-{value}" for key, value in stem.items())
    path = derivatives.root / "group" / f"{name}_desc-{analysis}_results.tsv"
    content = _content(paths, permutations=permutations, seed=seed, analysis=analysis)
    if path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content:
        return 1
    settings = {label: json.dumps(read_json(sidecar_path(one)).get("Settings")) for label, one in paths.items()}
    if len(set(settings.values())) > 1:
        other = [label for label in paths if settings[label] != settings[next(iter(paths))]]
        omitted.append(
            f"The {analysis} of sub-{', sub-'.join(other)} was made with other settings than that of "
            f"sub-{next(iter(paths))}; run the participant level again with the same options for all."
        )
    score = SCORES[analysis]
    tables = {label: read_table(one) for label, one in paths.items()}
    keys = [key for key in ROWS if key in next(iter(tables.values()))]
    whole = pd.concat([table.assign(participant=label) for label, table in tables.items()], ignore_index=True)
    wide = whole.pivot(index=keys, columns="participant", values=score)
    order = pd.MultiIndex.from_frame(whole[keys].drop_duplicates())
    values = wide.reindex(index=order, columns=list(tables)).to_numpy(dtype=float).T
    t, p = sign_flip(fisher_z(values), permutations=permutations, seed=seed)
    means = whole.groupby(keys, sort=False).mean(numeric_only=True).reindex(order).reset_index()
    present = np.isfinite(values).sum(axis=0)
    result = means[keys].copy()
    for column in ("n_voxels", score, "r2", "ceiling", "pearsonr_normalized"):
        if column in means:
            result[column] = means[column]
    spread = np.nanstd(np.where(present >= FEWEST, values, 0.0), axis=0, ddof=1)
    result["n_participants"] = present
    result["sem"] = np.where(present >= FEWEST, spread / np.sqrt(np.maximum(present, 1)), np.nan)
    result["t"], result["p"], result["q"] = t, p, fdr(p)
    if analysis == "rsa":
        ceilings = _ceilings(derivatives, context, list(tables), set(result["comparison"]) & set(SIMILARITIES))
        bounds = [
            ceilings.get(pair, (np.nan, np.nan)) for pair in zip(result["region"], result["comparison"], strict=True)
        ]
        result["ceiling_lower"], result["ceiling_upper"] = zip(*bounds, strict=True)
    sidecar = _sidecar(derivatives, paths, permutations, content)
    derivatives.write_table(
        path, result, {**sidecar, "Correction": "false discovery rate over the rows of this table (q)"}
    )
    return 1


def _ceilings(
    derivatives: Derivatives, context: Mapping[str, str], labels: Sequence[str], comparisons: set[str]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Lower and upper noise ceiling of each region and comparison, where all participants saw the same stimuli."""
    where = {key: value for key, value in context.items() if key not in ("model", "desc")}
    people = []
    for label in labels:
        for path in sorted((derivatives.root / f"sub-{label}" / "func").glob("*_relmat.h5")):
            entities = names.entities_of(path)
            if {key: value for key, value in entities.items() if key not in ("sub", "stat")} == where:
                people.append(read_rdms(path))
    if len(people) < len(labels) or any(ids != people[0][0] for ids, _ in people):
        return {}
    found = {}
    for region in set.intersection(*(set(rdms) for _, rdms in people)):
        stacked = np.array([rdms[region] for _, rdms in people])
        if np.isfinite(stacked).all() and len(people[0][0]) >= 4:
            for comparison in comparisons:
                found[region, comparison] = noise_ceiling(stacked, comparison=comparison)
    return found


def _maps(
    derivatives: Derivatives, context: dict[str, str], paths: dict[str, Path], omitted: list[str], *,
    permutations: int, seed: int,
) -> None:  # fmt: skip
    """Write mean, t, p and family-wise p over participants for every voxel and layer that all of them have."""
    space = context.get("space")
    if space in INDIVIDUAL_SPACES:
        omitted.append(f"Maps in {space or 'native'} space differ between participants; the group has tables only.")
        return
    if not _enough(context, paths, omitted, "The map"):
        return
    comparison = read_json(sidecar_path(next(iter(paths.values())))).get("Comparison")
    if comparison in NO_ZERO:
        omitted.append(f"The {context['desc']} maps hold {comparison}, whose chance level is not 0: no group map.")
        return
    stem = {key: value for key, value in context.items() if key != "space"}
    extension = names.parse(next(iter(paths.values())))["extension"]
    outputs = {
        stat: derivatives.path("statmap", extension, tpl=space, **stem, stat=stat)
        for stat in ("mean", "t", "p", "pfwe")
    }
    content = _content(paths, permutations=permutations, seed=seed)
    if all(
        path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content for path in outputs.values()
    ):
        return
    masks = []
    for path in paths.values():
        kept = {
            key: value
            for key, value in names.entities_of(path).items()
            if key in ("sub", "task", "hemi", "space", "res", "den")
        }
        masks.append(derivatives.path("mask", MASKS[extension], **kept, desc="brain"))
    try:
        shared = intersection(masks)
    except DataError as error:
        omitted.append(f"There is no group map in {space}: {error}.")
        return
    scores = np.array([shared.read(path) for path in paths.values()])
    shape = scores.shape[1:]
    flat = scores.reshape(len(scores), -1)
    flat[:, ~np.isfinite(flat).all(axis=0)] = np.nan
    z = fisher_z(flat.astype(np.float64))
    t, p = sign_flip(z, permutations=permutations, seed=seed)
    corrected = sign_flip_familywise(z, permutations=permutations, seed=seed)
    sidecar = _sidecar(derivatives, paths, permutations, content) | {"VolumeAxis": "layer", "Omitted": omitted}
    kept.pop("hemi", None)
    quality = read_json(derivatives.path("results", ".json", **kept, desc="quality"))
    sidecar |= {key: quality[key] for key in ("Mesh", "InflatedMesh") if key in quality}
    for stat, values in (("mean", flat.mean(axis=0)), ("t", t), ("p", p), ("pfwe", corrected)):
        derivatives.write_map(outputs[stat], values.reshape(shape), shared, sidecar)
