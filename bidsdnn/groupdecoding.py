"""Decoding over participants: whether what was told from a region is above chance in the population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.grouptables import (
    FEWEST,
    above_chance,
    absent,
    by_context,
    content_of,
    described,
    enough,
    fewer_runs,
    is_current,
    other_settings,
    prevalence_columns,
    sidecar_of,
    smallest,
    spoken,
)  # fmt: skip
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flips

KEYS = ("network", "layer", "region", "target", "decoder")
MEANS = ("n_voxels", "n_items", "n_classes", "accuracy", "balanced_accuracy", "auc", "pearsonr", "r2", "chance")


def decoding_tables(
    derivatives: Derivatives, labels: Sequence[str], omitted: list[str], *, permutations: int, seed: int
) -> int:
    """Participants' balanced accuracy less chance, or Fisher's z of r, was tested by sign flips of participants.

    Parameters
    ----------
    derivatives : Derivatives
    labels : sequence of str
        Participants with results.
    omitted : list of str
        Sentences on what was left out are added here.
    permutations, seed : int
        Of the random flips.

    Returns
    -------
    int
        Tables written or found up to date.
    """
    written = 0
    for key, paths in by_context(derivatives, labels, "results", ".tsv", "decoding").items():
        context = dict(key)
        if not enough(context, paths, omitted, "The decoding table"):
            continue
        written += 1
        name = "_".join(f"{entity}-{label}" for entity, label in context.items() if entity != "desc")
        path = derivatives.root / "group" / f"{name}_desc-decoding_results.tsv"
        own = absent(derivatives, labels, paths, f"decoding table of {spoken(context)}")
        own += fewer_runs(derivatives, paths)
        content = content_of(paths, permutations=permutations, seed=seed, analysis="decoding", tests=2, omitted=own)
        if is_current(path, content, omitted):
            continue
        own += other_settings(paths, "decoding")
        omitted += [one for one in own if one not in omitted]
        table = over_participants(_read(paths), permutations=permutations, seed=seed)
        sidecar = sidecar_of(
            derivatives, paths, permutations=permutations, content=content, methods=summary(decoding_tables),
            omitted=own, columns=table,
        )  # fmt: skip
        derivatives.write_table(path, table, {
            **sidecar, "Test": "sign flips of the participants' scores less chance, one-sided",
            "Correction": "p_fwe: over the rows of one target, by the largest t of each flip; q: false discovery rate "
            "over the same", **described(table),
        })  # fmt: skip
    return written


def _read(paths: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    return {label: read_table(path) for label, path in paths.items()}


def over_participants(tables: Mapping[str, pd.DataFrame], *, permutations: int, seed: int) -> pd.DataFrame:
    """Join participants' rows, and test each target's.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By participant.
    permutations, seed : int

    Returns
    -------
    DataFrame
        Means, n_participants, sem, t, p, p_fwe and q.
    """
    whole = pd.concat([table.assign(participant=label) for label, table in tables.items()], ignore_index=True)
    keys = [key for key in KEYS if key in whole]
    whole = whole.assign(above=above_chance(whole))
    found = []
    for _, rows in whole.groupby("target", sort=False):
        order = pd.MultiIndex.from_frame(rows[keys].drop_duplicates())
        wide = rows.pivot(index=keys, columns="participant", values="above").reindex(order)
        values = wide.reindex(columns=list(tables)).to_numpy(dtype=float).T
        means = (
            rows.groupby(keys, sort=False)[[one for one in MEANS if one in rows]].mean().reindex(order).reset_index()
        )
        present = np.isfinite(values).sum(axis=0)
        flips = sign_flips(values, permutations=permutations, seed=seed)
        spread = np.nanstd(np.where(present >= FEWEST, values, 0.0), axis=0, ddof=1)
        sem = np.where(present >= FEWEST, spread / np.sqrt(np.maximum(present, 1)), np.nan)
        tests = {"n_participants": present, "sem": sem, "t": flips.t, "p": flips.p, "p_fwe": flips.p_fwe,
                 "q": fdr(flips.p), "p_smallest": smallest(present, permutations)}  # fmt: skip
        found.append(means.assign(**tests, **prevalence_columns(rows, keys, tables)))
    return pd.concat(found, ignore_index=True)
