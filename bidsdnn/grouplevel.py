"""From participants' results on disk to statistics over participants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.groupdecoding import decoding_tables
from bidsdnn.grouplayers import layer_tables
from bidsdnn.grouprsa import rsa_tables
from bidsdnn.grouptables import FEWEST, by_context, content_of, enough, fisher_z, other_settings, scored, sidecar_of
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip, sign_flip_familywise
from bidsdnn.methods.rsa_inference import FROM_ZERO
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import serial
from bidsdnn.spaces import intersection

logger = logging.getLogger(__name__)

SCORES = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr",
          "variancepartition": "r2"}  # fmt: skip
"""The column of each analysis' table that is tested over participants; RSA has tests of its own in `grouprsa`."""
MAPS = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr"}
"""The map of each analysis that is tested over participants."""
# Endings of maps, and of the masks beside them.
MASKS = {
    ".nii.gz": ".nii.gz", ".func.gii": ".label.gii", ".dscalar.nii": ".dlabel.nii", ".pscalar.nii": ".plabel.nii",
}  # fmt: skip
# Spaces of one participant only: they enter by region tables, not by maps.
INDIVIDUAL_SPACES = {"T1w", "fsnative", "boldref", "", None}


def group(
    derivatives: Derivatives, labels: Sequence[str], *, permutations: int, seed: int, map: ParallelMap = serial
) -> tuple[int, list[str]]:
    """Participants' scores were tested against zero, Fisher-transformed, by flipping the signs of whole participants.

    Parameters
    ----------
    derivatives : Derivatives
        Holds the participants' results.
    labels : sequence of str
        Participants, without ``sub-``; those without results are named and left out.
    permutations : int
        Random sign flips where there are more than 12 participants, otherwise all are made; and bootstrap samples
        of RSA.
    seed : int
    map : callable
        Spreads the bootstraps of RSA over workers.

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
        for context, paths in by_context(derivatives, found, "results", ".tsv", analysis).items():
            written += _table(
                derivatives, analysis, dict(context), paths, omitted, permutations=permutations, seed=seed
            )
    written += decoding_tables(derivatives, found, omitted, permutations=permutations, seed=seed)
    written += layer_tables(derivatives, found, omitted, permutations=permutations, seed=seed)
    written += rsa_tables(derivatives, found, omitted, permutations=permutations, seed=seed, map=map)
    for analysis, stat in MAPS.items():
        for extension in MASKS:
            for context, paths in by_context(derivatives, found, "statmap", extension, analysis, stat=stat).items():
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


def _table(
    derivatives: Derivatives, analysis: str, context: dict[str, str], paths: dict[str, Path], omitted: list[str], *,
    permutations: int, seed: int,
) -> int:  # fmt: skip
    """Write the group's table of one analysis, space, atlas and network; 1 if there is one."""
    if not enough(context, paths, omitted, f"The {analysis} table"):
        return 0
    name = "_".join(f"{key}-{value}" for key, value in context.items() if key != "desc")
    path = derivatives.root / "group" / f"{name}_desc-{analysis}_results.tsv"
    content = content_of(paths, permutations=permutations, seed=seed, analysis=analysis)
    if path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content:
        return 1
    omitted += other_settings(paths, analysis)
    tables = {label: read_table(one) for label, one in paths.items()}
    result, _ = scored(tables, SCORES[analysis], permutations=permutations, seed=seed)
    result["q"] = fdr(result["p"])
    sidecar = sidecar_of(derivatives, paths, permutations=permutations, content=content, methods=summary(group))
    if SCORES[analysis] == "r2":
        sidecar["Test"] = "sign flips of the participants' R2, one-sided"
    derivatives.write_table(
        path, result, {**sidecar, "Correction": "false discovery rate over the rows of this table (q)"}
    )
    return 1


def _maps(
    derivatives: Derivatives, context: dict[str, str], paths: dict[str, Path], omitted: list[str], *,
    permutations: int, seed: int,
) -> None:  # fmt: skip
    """Write mean, t, p and family-wise p over participants for every voxel and layer that all of them have."""
    space = context.get("space")
    if space in INDIVIDUAL_SPACES:
        omitted.append(f"Maps in {space or 'native'} space differ between participants; the group has tables only.")
        return
    if not enough(context, paths, omitted, "The map"):
        return
    first = read_json(sidecar_path(next(iter(paths.values()))))
    if first.get("Comparison") in FROM_ZERO:
        omitted.append(
            f"The {context['desc']} maps hold {first['Comparison']}, whose chance level is not 0: no group map."
        )
        return
    stem = {key: value for key, value in context.items() if key != "space"}
    extension = names.parse(next(iter(paths.values())))["extension"]
    outputs = {
        stat: derivatives.path("statmap", extension, tpl=space, **stem, stat=stat)
        for stat in ("mean", "t", "p", "pfwe")
    }
    content = content_of(paths, permutations=permutations, seed=seed)
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
    sidecar = sidecar_of(derivatives, paths, permutations=permutations, content=content, methods=summary(group))
    sidecar |= {"VolumeAxis": "layer", "Omitted": omitted}
    sidecar |= {key: first[key] for key in ("Metric", "Comparison", "NeighborhoodExtent") if key in first}
    kept.pop("hemi", None)
    quality = read_json(derivatives.path("results", ".json", **kept, desc="quality"))
    sidecar |= {key: quality[key] for key in ("Mesh", "InflatedMesh") if key in quality}
    for stat, values in (("mean", flat.mean(axis=0)), ("t", t), ("p", p), ("pfwe", corrected)):
        derivatives.write_map(outputs[stat], values.reshape(shape), shared, sidecar)
