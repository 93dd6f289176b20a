"""RSA over participants: layers of all networks against chance, against the noise ceiling and against each other.

The one idea: what is compared with a region by one comparison is one family, whichever network it comes from; one
bootstrap serves its intervals, its tests and its pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, read_table, sidecar_path
from bidsdnn.extraction import activations_path
from bidsdnn.grouprdms import Geometry, rdm_files, read_geometry
from bidsdnn.grouptables import (
    absent,
    by_context,
    content_of,
    described,
    enough,
    fewer_runs,
    other_settings,
    scored,
    sidecar_of,
)
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip_familywise
from bidsdnn.methods.rdm import USES_FOLDS
from bidsdnn.methods.rsa_bootstrap import bootstraps
from bidsdnn.methods.rsa_inference import (
    FROM_ZERO,
    against_ceiling,
    against_zero,
    holm,
    interval,
    noise_ceiling,
    pairwise,
)
from bidsdnn.methods.rsa_samples import OVER
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.result import WEIGHTED

MOST_STIMULI = 500
"""A bootstrap ranks every pair in every sample: of more stimuli it takes hours."""
_AGREE = 1e-3
"""How far a mean of the participants' tables may lie from that of the RDMs on disk before they are no longer those."""
_CI = [f"ci_{over}_{end}" for over in ("stimuli", "participants", "both") for end in ("lower", "upper")]
JUDGED = (
    "ceiling_lower", "ceiling_upper", "se_stimuli", "se_participants", "se_both", *_CI,
    "p_zero", "p_zero_fwe", "p_ceiling", "p_ceiling_fwe",
)  # fmt: skip
COLUMNS = {
    "similarity": "Mean over participants of the similarity of a layer's RDM and the participant's",
    "sem": "Standard error of that mean over participants",
    "t": "t of the participants' Fisher-z similarities against 0; n/a for comparisons that are above 0 for any RDMs",
    "p": "Of sign flips of participants, one-sided",
    "p_fwe": "The same, family-wise over the layers of all networks for one region, metric and comparison (largest t)",
    "q": "False discovery rate of p over all layers, regions and networks for one metric and comparison",
    "ceiling_lower": "Mean similarity of each participant's RDM with the mean of the others'",
    "ceiling_upper": "Mean similarity of each participant's RDM with the mean of all",
    "p_zero": "Bootstrap over stimuli and participants: similarity against 0, one-sided t-test",
    "p_zero_fwe": "The same, Holm's correction over the layers of all networks",
    "p_ceiling": "Bootstrap over stimuli and participants: difference from the lower ceiling, two-sided t-test; n/a "
    "for cosines of distances that are not cross-validated",
    "p_ceiling_fwe": "The same, Holm's correction over the layers of all networks",
    **{f"se_{over}": f"Corrected standard error of the bootstrap over {over}" for over in OVER},
    **{f"ci_{over}_{end}": f"{end.title()} end of the 95 % interval over {over}" for over in OVER
       for end in ("lower", "upper")},
}  # fmt: skip
PAIRS = {
    "difference": "Similarity of the first layer less that of the other",
    "se": "Corrected standard error of the bootstrap over stimuli and participants",
    "t": "Difference over its standard error",
    "p": "Two-sided t-test, not corrected",
    "p_fwe": "Holm's correction over all pairs of layers of all networks for one region, metric and comparison",
    "q": "False discovery rate over the same family",
}


def rsa_tables(
    derivatives: Derivatives, labels: Sequence[str], omitted: list[str], *, permutations: int, seed: int,
    map: ParallelMap,
) -> int:  # fmt: skip
    """Similarities of layers and regions were tested over participants by sign flips.

    Parameters
    ----------
    derivatives : Derivatives
        Holds the participants' tables and RDMs and the networks' RDMs or activations.
    labels : sequence of str
        Participants with results.
    omitted : list of str
        Gets a sentence for each thing that was left out.
    permutations : int
        Random sign flips, and bootstrap samples.
    seed : int
    map : callable
        Spreads regions and comparisons over workers.

    Returns
    -------
    int
        Tables written or found up to date.
    """
    together: dict[tuple[tuple[str, str], ...], dict[str, dict[str, Path]]] = {}
    for context, paths in by_context(derivatives, labels, "results", ".tsv", "rsa").items():
        if enough(dict(context), paths, omitted, "The rsa table"):
            where = tuple((key, value) for key, value in context if key not in ("model", "desc"))
            together.setdefault(where, {})[dict(context)["model"]] = paths
    return sum(
        _write(derivatives, dict(where), networks, labels, omitted, permutations=permutations, seed=seed, map=map)
        for where, networks in together.items()
    )


def _write(
    derivatives: Derivatives, where: dict[str, str], networks: dict[str, dict[str, Path]], labels: Sequence[str],
    omitted: list[str], *, permutations: int, seed: int, map: ParallelMap,
) -> int:  # fmt: skip
    """Write the tables of one space and atlas: one a network, and one of pairs over all networks."""
    stem = "".join(f"{key}-{value}_" for key, value in where.items())
    folder = derivatives.root / "group"
    outputs = {network: folder / f"{stem}model-{network}_desc-rsa_results.tsv" for network in networks}
    own = {f"{network} {label}": path for network, paths in networks.items() for label, path in paths.items()}
    beside = {label: path for paths in networks.values() for label, path in paths.items()}
    sources = rdm_files({label: beside[label] for label in sorted(beside)})
    made = [read_json(sidecar_path(activations_path(derivatives, network))) for network in networks]
    content = digest({
        "tables": content_of(own), "rdms": content_of(sources), "permutations": permutations, "seed": seed,
        "labels": list(labels),
        "networks": [(one.get("NetworkHash"), one.get("Stimuli")) for one in made],
    })  # fmt: skip
    if all(_is_current(derivatives, path, content) for path in outputs.values()):
        omitted += [one for path in outputs.values() for one in read_json(sidecar_path(path)).get("Omitted", [])]
        return len(outputs)
    left_out: list[str] = []
    for network, paths in networks.items():
        left_out += [*absent(derivatives, labels, paths, f"rsa table of {network}"), *other_settings(paths, "rsa")]
    left_out += fewer_runs(derivatives, beside)
    tables = {
        label: pd.concat([read_table(paths[label]) for paths in networks.values() if label in paths])
        for label in dict.fromkeys(label for paths in networks.values() for label in paths)
    }
    result = _tested(tables, permutations=permutations, seed=seed)
    # Layers have no runs to cross-validate over: their metric may be another one than the brain's.
    units = str(read_json(sidecar_path(next(iter(own.values())))).get("LayerMetric") or "")
    pairs, means = [], {}
    for metric in dict.fromkeys(result["metric"]):
        found = read_geometry(derivatives, sources, tables, str(metric), result, left_out, units=units or str(metric))
        if found is not None:
            means[metric] = found
            pairs.append(_judge(result, found, str(metric), left_out, samples=max(permutations, 2), seed=seed, map=map))
    further = _write_shared(derivatives, folder, stem, pairs, means, networks, permutations, content)
    for network, path in outputs.items():
        rows = result[result["network"] == network]
        sidecar = _sidecar(derivatives, networks[network], rows, permutations=permutations, content=content)
        derivatives.write_table(path, rows, {
            **sidecar, "Omitted": left_out, "Outputs": further, **described(rows), **_described(COLUMNS, rows),
        })  # fmt: skip
    omitted += left_out
    return len(outputs)


def _is_current(derivatives: Derivatives, path: Path, content: str) -> bool:
    sidecar = read_json(sidecar_path(path)) if path.exists() else {}
    return sidecar.get("ConfigurationHash") == content and all(
        (derivatives.root / name).exists() for name in sidecar.get("Outputs", [])
    )


def _described(columns: Mapping[str, str], table: pd.DataFrame) -> dict[str, Any]:
    return {name: {"Description": text} for name, text in columns.items() if name in table}


_MADE_BY: Mapping[str, tuple[Callable[..., Any], str]] = {
    "similarity": (rsa_tables, "rsa"), "ceiling_lower": (noise_ceiling, "rsa-toolbox"),
    "se_both": (bootstraps, "rsa-inference"), "p_zero": (against_zero, "rsa-inference"),
    "p_ceiling": (against_ceiling, "rsa-inference"), "p_zero_fwe": (holm, "holm"), "p_ceiling_fwe": (holm, "holm"),
    "difference": (pairwise, "rsa-inference"), "se": (holm, "holm"),
}  # fmt: skip


def _sidecar(
    derivatives: Derivatives, paths: Mapping[str, Path], table: pd.DataFrame, *, permutations: int, content: str
) -> dict[str, Any]:
    """What a reader needs to know of a table; of what it has no number of, nothing."""
    made = [one for name, one in _MADE_BY.items() if name in table and table[name].notna().any()]
    said = " ".join(dict.fromkeys(summary(function) for function, _ in made))
    keys = sidecar_of(derivatives, paths, permutations=permutations, content=content, methods=said, columns=table)
    return {
        **keys,
        "BootstrapSamples": permutations,
        "Correction": "family-wise over the layers of all networks in a region by the largest t",
        "References": list(dict.fromkeys([*keys["References"], *(work for _, work in made)])),
    }


def _write_shared(
    derivatives: Derivatives, folder: Path, stem: str, pairs: Sequence[pd.DataFrame], means: Mapping[Any, Geometry],
    networks: Mapping[str, Mapping[str, Path]], permutations: int, content: str,
) -> list[str]:  # fmt: skip
    """Write what belongs to all networks: the pairs, and the participants' mean RDMs; returns their names."""
    paths = {label: path for one in networks.values() for label, path in one.items()}
    written = []
    rows = pd.concat(pairs) if pairs else pd.DataFrame()
    if len(rows):
        sidecar = {
            # Their p is of t-tests; the column of that name stands for sign flips.
            **_sidecar(derivatives, paths, rows.drop(columns="p"), permutations=permutations, content=content),
            "Test": "t-tests with the bootstrap variance over stimuli and participants, two-sided",
            "Correction": "Holm's over all pairs of a region (p_fwe), and false discovery rate (q)",
        }
        path = folder / f"{stem}desc-rsapairs_results.tsv"
        written.append(derivatives.write_table(path, rows, {**sidecar, **_described(PAIRS, rows)}))
    for metric, found in means.items():
        mean = {name: rdms.mean(axis=0) for name, rdms in found.brains.items()}
        path = folder / f"{stem}stat-{names.label(str(metric))}_relmat.h5"
        sidecar = {"Description": "Mean over participants of each region's RDM", "Participants": found.people,
                   "Metric": metric, "ConfigurationHash": content}  # fmt: skip
        written.append(derivatives.write_rdms(path, mean, found.ids, sidecar))
    return [path.relative_to(derivatives.root).as_posix() for path in written]


def has_null_at_zero(table: pd.DataFrame) -> np.ndarray:
    """Where zero and the ceiling can be tested against: correlations, and cosines of cross-validated distances.

    Noise lifts all other distances alike. To a cosine that is a resemblance, which puts any two RDMs above zero and the
    truth, which has no noise, below the ceiling.
    """
    return np.asarray(~table["comparison"].isin(FROM_ZERO) | table["metric"].isin(USES_FOLDS))


def _tested(tables: Mapping[str, pd.DataFrame], *, permutations: int, seed: int) -> pd.DataFrame:
    """Means over participants with the sign flips' p, family-wise p and false discovery rate."""
    result, z = scored(tables, "similarity", permutations=permutations, seed=seed)
    result.loc[~has_null_at_zero(result), ["t", "p", "p_smallest"]] = np.nan
    result["p_fwe"] = result["q"] = np.nan
    # All layers weighted together are no further layer: their p stands alone, as in the participants' tables.
    single = np.flatnonzero(result["layer"] != WEIGHTED)
    for _, rows in _families(result, single, "region", "metric", "comparison"):
        if result["p"].iloc[rows].notna().any():
            p = sign_flip_familywise(z[:, rows], permutations=permutations, seed=seed)
            result.loc[result.index[rows], "p_fwe"] = p
    for _, rows in _families(result, single, "metric", "comparison"):
        result.loc[result.index[rows], "q"] = fdr(result["p"].iloc[rows])
    return result.assign(**dict.fromkeys(JUDGED, np.nan))


def _families(result: pd.DataFrame, among: np.ndarray, *by: str) -> list[tuple[Any, np.ndarray]]:
    """Positions of the rows that share a family, of some rows."""
    found = result.iloc[among].groupby(list(by), sort=False).indices
    return [(key, among[rows]) for key, rows in found.items()]


def _judge(
    result: pd.DataFrame, found: Geometry, metric: str, omitted: list[str], *, samples: int, seed: int,
    map: ParallelMap,
) -> pd.DataFrame:  # fmt: skip
    """Fill in ceilings, errors, intervals and p of the bootstrap, and return the pairs."""
    rows = result[result["metric"] == metric]
    families = [
        (region, comparison, part.index) for (region, comparison), part in rows.groupby(["region", "comparison"],
                                                                                        sort=False)
        if region in found.brains and comparison in SIMILARITIES
    ]  # fmt: skip
    for region, comparison, index in families:
        ceiling = noise_ceiling(found.brains[region], comparison=comparison)
        result.loc[index, ["ceiling_lower", "ceiling_upper"]] = ceiling
    if len(found.ids) > MOST_STIMULI:
        omitted.append(f"The bootstrap was left out: {len(found.ids)} stimuli are more than {MOST_STIMULI}.")
        return pd.DataFrame()
    tasks, places = [], []
    for region, comparison, index in families:
        keys = list(zip(rows.loc[index, "network"], rows.loc[index, "layer"], strict=True))
        usable = [n for n, key in enumerate(keys) if key in found.models and np.ptp(found.models[key]) > 0]
        if usable:
            tasks.append((np.array([found.models[keys[n]] for n in usable]), found.brains[region], comparison))
            places.append((region, comparison, index[usable]))
    judged = map(partial(_judged, samples=samples, seed=seed_for(seed, "bootstrap")), tasks, label="bootstrap")
    pairs = []
    for (region, comparison, index), (columns, family) in zip(places, judged, strict=True):
        if np.nanmax(np.abs(columns.pop("similarity") - result.loc[index, "similarity"]), initial=0) > _AGREE:
            omitted.append(
                f"The bootstrap of {region} ({comparison}) was left out: the RDMs on disk do not give the similarities "
                "of the tables; run the participant level again."
            )
            continue
        result.loc[index, list(columns)] = pd.DataFrame(columns, index=index)
        pairs.append(_pair_rows(result.loc[index], region, metric, comparison, family))
    result.loc[~has_null_at_zero(result), ["p_zero", "p_zero_fwe", "p_ceiling", "p_ceiling_fwe"]] = np.nan
    return pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame()


def _judged(
    task: tuple[np.ndarray, np.ndarray, str], *, samples: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Bootstrap one region and comparison: columns of its layers, and of its pairs as matrices."""
    models, rdms, comparison = task
    found = bootstraps(models, rdms, comparison=comparison, samples=samples, seed=seed)
    columns = {"similarity": found["both"].similarity}
    for over in OVER:
        columns[f"se_{over}"] = np.sqrt(found[over].variance)
        columns[f"ci_{over}_lower"], columns[f"ci_{over}_upper"] = interval(found[over])
    zero, ceiling, pairs = (test(found["both"]) for test in (against_zero, against_ceiling, pairwise))
    columns |= {"p_zero": zero.p, "p_zero_fwe": zero.holm, "p_ceiling": ceiling.p, "p_ceiling_fwe": ceiling.holm}
    family = {"difference": pairs.difference, "se": np.sqrt(found["both"].difference_variance), "t": pairs.t,
              "p": pairs.p, "p_fwe": pairs.holm, "q": pairs.q}  # fmt: skip
    return columns, family


def _pair_rows(
    rows: pd.DataFrame, region: str, metric: str, comparison: str, family: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """One row for each two layers, those of different networks among them."""
    first, second = np.triu_indices(len(rows), 1)
    network, layer = rows["network"].to_numpy(), rows["layer"].to_numpy()
    return pd.DataFrame({
        "region": region, "metric": metric, "comparison": comparison,
        "network": network[first], "layer": layer[first],
        "other_network": network[second], "other_layer": layer[second],
        **{name: values[first, second] for name, values in family.items()},
    })  # fmt: skip
