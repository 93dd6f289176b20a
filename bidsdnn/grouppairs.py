"""Which of two layers predicts a region better, of one network or of two, over participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.grouptables import FEWEST, absent, by_context, content_of, enough, is_current, joined, sidecar_of, smallest
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flips_two_sided
from bidsdnn.result import JOINT

COLUMNS = {
    "difference": "Mean over participants of the first layer's Fisher-z score less that of the other",
    "se": "Standard error of that mean over participants",
    "t": "Of the participants' differences against 0",
    "p": "Of sign flips of participants, two-sided",
    "p_fwe": "The same, family-wise over all pairs of layers of a region by the largest absolute t of each flip",
    "q": "False discovery rate of p over all pairs and regions",
    "n_participants": "Participants who have both layers in this region",
    "p_smallest": "Smallest p that sign flips of so many participants can give",
}


def pair_tables(
    derivatives: Derivatives, labels: Sequence[str], omitted: list[str], *, permutations: int, seed: int
) -> int:
    """Pairs of layers, of one network or of two, were compared by sign flips of participants' differences.

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
        Tables written or up to date.
    """
    together: dict[tuple[tuple[str, str], ...], dict[str, dict[str, Path]]] = {}
    for context, paths in by_context(derivatives, labels, "results", ".tsv", "encoding").items():
        if len(paths) < FEWEST:
            continue
        where = tuple((key, value) for key, value in context if key not in ("model", "desc"))
        together.setdefault(where, {})[dict(context).get("model", "")] = paths
    written = 0
    for place, networks in together.items():
        paths = {
            f"{network} {label}": path for network, one in networks.items()
            for label, path in one.items()
        }  # fmt: skip
        tables = _tables(networks)
        if not paths or not enough(dict(place), {label: Path() for label in tables}, [], ""):
            continue
        if max(len(table[["network", "layer"]].drop_duplicates()) for table in tables.values()) < 2:
            continue
        written += 1
        stem = "".join(f"{key}-{value}_" for key, value in place)
        path = derivatives.root / "group" / f"{stem}desc-encodingpairs_results.tsv"
        own = []
        for network, found in networks.items():
            own += absent(derivatives, labels, found, f"encoding table of {network}")
        content = content_of(paths, permutations=permutations, seed=seed, pairs=2, omitted=own)
        if is_current(path, content, omitted):
            continue
        omitted += own
        sidecar = sidecar_of(derivatives, paths, permutations=permutations, content=content,
                             methods=summary(pair_tables), omitted=own)  # fmt: skip
        n = len(tables)
        derivatives.write_table(path, pairs(tables, permutations=permutations, seed=seed), {
            **sidecar, "Participants": list(tables), "Network": list(networks), "Layers": [],
            "Test": "sign flips of the participants' differences, two-sided",
            "Permutations": 2**n if n <= 12 else permutations,
            "SmallestAttainableP": float(smallest(n, permutations, sides=2)),
            "Correction": "family-wise over all pairs of layers of a region by the largest absolute t (p_fwe), and "
            "false discovery rate over all rows (q)",
            **{column: {"Description": text} for column, text in COLUMNS.items()},
        })  # fmt: skip
    return written


def _tables(networks: Mapping[str, Mapping[str, Path]]) -> dict[str, pd.DataFrame]:
    """Each participant's rows of all networks, without models of several bands, whose rows are no layers' scores."""
    found: dict[str, list[pd.DataFrame]] = {}
    for paths in networks.values():
        for label, path in paths.items():
            table = read_table(path)
            if len(table) and not (table["layer"] == JOINT).any():
                found.setdefault(label, []).append(table)
    return {label: pd.concat(tables, ignore_index=True) for label, tables in found.items()}


def pairs(tables: Mapping[str, pd.DataFrame], *, permutations: int, seed: int) -> pd.DataFrame:
    """Compare each two layers in each region.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Rows of all networks by participant: network, layer, region, pearsonr.
    permutations, seed : int

    Returns
    -------
    DataFrame
        region network layer other_network other_layer and `COLUMNS`.
    """
    keys, z = joined(tables, "pearsonr")
    found = []
    for region, rows in keys.groupby("region", sort=False).indices.items():
        first, second = (rows[side] for side in np.triu_indices(len(rows), 1))
        if not len(first):
            continue
        values = z[:, first] - z[:, second]
        n = np.isfinite(values).sum(axis=0)
        tests = sign_flips_two_sided(values, permutations=permutations, seed=seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(n > 0, np.nansum(values, axis=0) / n, np.nan)
            spread = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / (n - 1) / n)
        found.append(pd.DataFrame({
            "region": region,
            **{f"{other}{key}": keys[key].to_numpy()[side] for other, side in (("", first), ("other_", second))
               for key in ("network", "layer")},
            "difference": mean, "se": np.where(n > 1, spread, np.nan), "t": tests.t, "p": tests.p,
            "p_fwe": tests.p_fwe, "n_participants": n, "p_smallest": smallest(n, permutations, sides=2),
        }))  # fmt: skip
    table = pd.concat(found, ignore_index=True)
    table.insert(table.columns.get_loc("n_participants"), "q", fdr(table["p"]))
    return table
