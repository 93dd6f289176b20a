"""Best layers, depth and networks over participants, from the tables of their encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.grouptables import (
    FEWEST,
    absent,
    by_context,
    content_of,
    enough,
    fisher_z,
    is_current,
    sidecar_of,
    smallest,
    spoken,
)  # fmt: skip
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip, sign_flips_two_sided
from bidsdnn.methods.layer_choice import winners
from bidsdnn.parallel import seed_for

_PAIR = ["first", "second", "region"]


def layer_tables(
    derivatives: Derivatives, labels: Sequence[str], omitted: list[str], *, permutations: int, seed: int
) -> int:
    """Each participant's score was that of the layer in which the others' mean was highest; depths were averaged.

    Parameters
    ----------
    derivatives : Derivatives
    labels : sequence of str
        Participants.
    omitted : list of str
        Sentences on what was left out are added here.
    permutations : int
        Sign flips, and bootstrap samples of participants.
    seed : int

    Returns
    -------
    int
        Tables written or up to date.
    """
    made = {"hierarchy": _regions, "bestlayer": _layers, "networks": _pairs}
    written = 0
    for desc, make in made.items():
        for context, paths in by_context(derivatives, labels, "results", ".tsv", desc).items():
            if not enough(dict(context), paths, omitted, f"The {desc} table"):
                continue
            name = "_".join(f"{key}-{value}" for key, value in context if key != "desc")
            path = derivatives.root / "group" / f"{name}_desc-{desc}_results.tsv"
            scores = {
                label: Path(str(one).replace(f"_desc-{desc}_", "_desc-encoding_")) for label, one in paths.items()
            }
            own = absent(derivatives, labels, paths, f"{desc} table of {spoken(dict(context))}")
            content = content_of(
                paths, permutations=permutations, seed=seed, desc=desc, tests=2, omitted=own,
                scores=content_of({k: one for k, one in scores.items() if one.exists()}),
            )  # fmt: skip
            written += 1
            if is_current(path, content, omitted):
                continue
            omitted += own
            tables = {label: read_table(one) for label, one in paths.items()}
            table = make(tables, scores, permutations=permutations, seed=seed_for(seed, desc, name))
            sidecar = sidecar_of(
                derivatives, paths, permutations=permutations, content=content, methods=summary(layer_tables),
                omitted=own, columns=table,
            )  # fmt: skip
            about = _about(desc, permutations)
            if desc == "networks":
                about["SmallestAttainableP"] = min(1.0, 2 * sidecar["SmallestAttainableP"])
            derivatives.write_table(path, table, {**sidecar, **about})
    return written


def _about(desc: str, samples: int) -> dict[str, Any]:
    if desc == "networks":
        return {
            "Test": "sign flips of the participants' differences, two-sided",
            "NetworksTest": "sign flips of the participants' differences, two-sided; family-wise over all pairs and "
            "regions by the largest",
            "Correction": "family-wise over all pairs and regions of this table by the largest (p_fwe), and false "
            "discovery rate (q)",
        }
    return {"BootstrapSamples": samples, "BootstrapUnits": "participants"}


def stack(scores: Mapping[str, Path]) -> tuple[list[str], list[str], np.ndarray]:
    """Layers, regions and Fisher-z scores, shape (participants, layers, regions), of one network."""
    tables = [read_table(path) for path in scores.values()]
    whole = pd.concat(tables, ignore_index=True)
    # A region that the first participant lacks is in the others' tables.
    layers, regions = (list(dict.fromkeys(whole[key])) for key in ("layer", "region"))
    values = [
        table.pivot(index="layer", columns="region", values="pearsonr").reindex(index=layers, columns=regions)
        for table in tables
    ]
    return layers, regions, fisher_z(np.array(values, dtype=float))


def left_out(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose a layer by the other participants' mean, and take the score of each.

    Parameters
    ----------
    z : ndarray, shape (participants, layers, regions)

    Returns
    -------
    chosen : ndarray of int, shape (participants, regions)
    scores : ndarray, shape (participants, regions)
    """
    known = np.nan_to_num(z)
    chosen = winners((known.sum(axis=0) - known).transpose(1, 0, 2))
    return chosen, np.take_along_axis(z, chosen[:, None], axis=1)[:, 0]


def confidence(z: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Share of bootstrap samples of participants in which each layer's mean is highest, (layers, regions)."""
    people = len(z)
    counts = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=samples)
    best = winners(np.einsum("bp,plr->lbr", counts, np.nan_to_num(z)))
    return np.array([(best == layer).mean(axis=0) for layer in range(z.shape[1])])


def _layers(
    tables: Mapping[str, pd.DataFrame], scores: Mapping[str, Path], *, permutations: int, seed: int
) -> pd.DataFrame:
    layers, regions, z = stack(scores)
    share, (chosen, _) = confidence(z, samples=permutations, seed=seed), left_out(z)
    there = np.isfinite(z).any(axis=1)
    network = next(iter(tables.values()))["network"].iloc[0]
    return pd.DataFrame([
        {
            "network": network, "layer": layer, "region": region, "confidence": share[i, r],
            "chosen": float((chosen[there[:, r], r] == i).mean()), "n_participants": int(there[:, r].sum()),
        }
        for i, layer in enumerate(layers) for r, region in enumerate(regions) if there[:, r].any()
    ])  # fmt: skip


def _regions(
    tables: Mapping[str, pd.DataFrame], scores: Mapping[str, Path], *, permutations: int, seed: int
) -> pd.DataFrame:
    layers, regions, z = stack(scores)
    share, (_, own) = confidence(z, samples=permutations, seed=seed), left_out(z)
    best = winners(np.nan_to_num(z).sum(axis=0))
    whole = pd.concat(tables.values(), ignore_index=True)
    rows = []
    for region, part in whole.groupby("region", sort=False):
        place = regions.index(region) if region in regions else None
        depth, score = part["depth"].to_numpy(float), part["hierarchy_score"].to_numpy(float)
        rows.append({
            "network": part["network"].iloc[0], "region": region,
            "layer": "" if place is None else layers[best[place]],
            "pearsonr": np.nan if place is None else float(np.tanh(_mean(own[:, place]))),
            "confidence": np.nan if place is None else share[best[place], place],
            "depth": _mean(depth), "sem": _sem(depth), "hierarchy_score": _mean(score), "hierarchy_se": _sem(score),
            "n_participants": len(part),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    people = whole.pivot_table(index="region", columns=whole.groupby("region").cumcount(), values="hierarchy_score")
    z = people.reindex(table["region"]).to_numpy(float).T if len(people) else np.full((FEWEST, len(table)), np.nan)
    p = sign_flip(fisher_z(z), permutations=permutations, seed=seed)[1]
    known = smallest(np.isfinite(z).sum(axis=0), permutations)
    return table.assign(p=p, p_smallest=np.where(np.isfinite(p), known, np.nan))


def _pairs(
    tables: Mapping[str, pd.DataFrame], scores: Mapping[str, Path], *, permutations: int, seed: int
) -> pd.DataFrame:
    """Differences tested two-sided; the family holds each one and its negative."""
    tables = _oriented(tables)
    # A region that the first participant lacks is in the others' tables.
    rows = pd.concat(tables.values(), ignore_index=True)[_PAIR].drop_duplicates().reset_index(drop=True)
    keys = pd.MultiIndex.from_frame(rows)
    values = np.array([
        table.set_index(_PAIR)["difference"].reindex(keys).to_numpy(float) for table in tables.values()
    ])  # fmt: skip
    tests = sign_flips_two_sided(values, permutations=permutations, seed=seed)
    spread = [_sem(column) for column in values.T]
    result = rows.assign(difference=[_mean(column) for column in values.T], se=spread, t=tests.t, p=tests.p)
    result["p_fwe"], result["q"] = tests.p_fwe, fdr(tests.p)
    n = np.isfinite(values).sum(axis=0)
    return result.assign(n_participants=n, p_smallest=smallest(n, permutations, sides=2))


def _oriented(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Each two networks the same way round in all tables: whoever named them in the other order has the negative."""
    known: set[tuple[str, str]] = set()
    found = {}
    for label, table in tables.items():
        pair = list(zip(table["first"], table["second"], strict=True))
        turned = np.array([(second, first) in known for first, second in pair], dtype=bool)
        known |= {one for one, other in zip(pair, turned, strict=True) if not other}
        found[label] = table.assign(
            first=table["first"].where(~turned, table["second"]), second=table["second"].where(~turned, table["first"]),
            difference=table["difference"].where(~turned, -table["difference"]),
        )  # fmt: skip
    return found


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _sem(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
