"""From participants' results on disk to statistics over participants."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.bids.people import People
from bidsdnn.errors import MissingInputError
from bidsdnn.groupdecoding import decoding_tables
from bidsdnn.groupeffects import effect_tables
from bidsdnn.grouplayers import layer_tables
from bidsdnn.groupmaps import Tests, group_maps
from bidsdnn.grouppairs import pair_tables
from bidsdnn.grouprsa import has_null_at_zero, rsa_tables
from bidsdnn.grouptables import (
    FEWEST,
    absent,
    by_context,
    content_of,
    described,
    enough,
    fewer_runs,
    has_results,
    is_current,
    lacking,
    other_settings,
    scored,
    sidecar_of,
    spoken,
)  # fmt: skip
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip_familywise
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import serial

logger = logging.getLogger(__name__)

SCORES = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr",
          "variancepartition": "r2"}  # fmt: skip
"""The column of each analysis' table that is tested over participants; RSA has tests of its own in `grouprsa`."""


def group(
    derivatives: Derivatives, labels: Sequence[str], *, permutations: int, seed: int, map: ParallelMap = serial,
    tfce: bool = False, people: People | None = None, announce: Callable[[str], None] = logger.debug,
) -> tuple[int, list[str]]:  # fmt: skip
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
        Spreads the bootstraps of RSA, and the enhancement of maps, over workers.
    tfce : bool
        Whether maps are enhanced as well.
    people : People, optional
        Covariates and groups that are tested.
    announce : callable
        Takes a line about what will take long.

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
    found = [label for label in labels if has_results(derivatives, label)]
    if len(found) < FEWEST:
        raise MissingInputError(
            f"{derivatives.root}: {len(found)} of {len(labels)} participants have results; a group needs two or more, "
            "run the participant level first"
        )
    omitted = absent(derivatives, labels, found, "results")
    options: dict[str, Any] = {"permutations": permutations, "seed": seed}
    written = 0
    for analysis in SCORES:
        for context, paths in by_context(derivatives, labels, "results", ".tsv", analysis).items():
            written += _table(derivatives, analysis, dict(context), paths, labels, omitted, **options)
    written += decoding_tables(derivatives, labels, omitted, **options)
    written += layer_tables(derivatives, labels, omitted, **options)
    written += pair_tables(derivatives, labels, omitted, **options)
    written += rsa_tables(derivatives, labels, omitted, **options, map=map)
    if people is not None:
        written += effect_tables(derivatives, labels, omitted, people, **options)
    group_maps(derivatives, labels, omitted, Tests(**options, map=map, tfce=tfce, people=people, announce=announce))
    omitted = list(dict.fromkeys(omitted))
    if not written:
        raise MissingInputError(
            f"{derivatives.root}: no analysis has results of two or more participants; "
            "run the participant level with a network first"
        )
    for sentence in omitted:
        logger.warning("%s", sentence)
    return written, omitted


def _table(
    derivatives: Derivatives, analysis: str, context: dict[str, str], paths: dict[str, Path], labels: Sequence[str],
    omitted: list[str], *, permutations: int, seed: int,
) -> int:  # fmt: skip
    """Write the group's table of one analysis, space, atlas and network; 1 if there is one."""
    if not enough(context, paths, omitted, f"The {analysis} table"):
        return 0
    name = "_".join(f"{key}-{value}" for key, value in context.items() if key != "desc")
    path = derivatives.root / "group" / f"{name}_desc-{analysis}_results.tsv"
    own = absent(derivatives, labels, paths, f"{analysis} table of {spoken(context)}") + fewer_runs(derivatives, paths)
    content = content_of(paths, permutations=permutations, seed=seed, analysis=analysis, tests=3, omitted=own)
    if is_current(path, content, omitted):
        return 1
    own += other_settings(paths, analysis)
    tables = {label: read_table(one) for label, one in paths.items()}
    result, z = scored(tables, SCORES[analysis], permutations=permutations, seed=seed)
    own += lacking(result, z, list(tables))
    omitted += own
    result = _corrected(result, z, permutations=permutations, seed=seed)
    sidecar = sidecar_of(derivatives, paths, permutations=permutations, content=content, methods=summary(group),
                         omitted=own, columns=result)  # fmt: skip
    if SCORES[analysis] == "r2":
        sidecar["Test"] = "sign flips of the participants' R2, one-sided"
    derivatives.write_table(path, result, {
        **sidecar, "Correction": "family-wise over the layers and regions of this table by the largest t of each flip",
        **described(result),
    })  # fmt: skip
    return 1


def _corrected(result: pd.DataFrame, z: np.ndarray, *, permutations: int, seed: int) -> pd.DataFrame:
    """Family-wise p over all layers and regions of one metric and comparison, and false discovery rate."""
    result = result.assign(p_fwe=np.nan, q=np.nan)
    if "comparison" in result:
        # Noise puts any two RDMs above zero: sign flips have no null there.
        result.loc[~has_null_at_zero(result), ["t", "p", "p_smallest"]] = np.nan
    by = [key for key in ("metric", "comparison") if key in result]
    families = result.groupby(by, sort=False).indices.values() if by else [np.arange(len(result))]
    for rows in families:
        if result["p"].iloc[rows].notna().any():
            found = sign_flip_familywise(z[:, rows], permutations=permutations, seed=seed)
            result.loc[result.index[rows], ["p_fwe", "q"]] = np.column_stack([found, fdr(result["p"].iloc[rows])])
    return result
