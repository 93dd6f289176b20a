"""What the layers share: which is best in each voxel and region and how sure that is, how deep, and which network.

Layers are chosen within training parts and scored on what was held out. Confidence comes from a bootstrap over the
held-out stimuli, in which no model is fitted again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bidsdnn.encoding.held import Held
from bidsdnn.encoding.layer import LayerScores
from bidsdnn.encoding.stored import best_voxels
from bidsdnn.encoding.tables import mean, normalized_scores
from bidsdnn.errors import ConfigError
from bidsdnn.folding import is_series
from bidsdnn.lookup import summary
from bidsdnn.methods import layer_choice as choice
from bidsdnn.methods.inference import fdr
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.rsa_inference import holm
from bidsdnn.methods.scores import Split
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map

_VOXELS = 1024
"""Voxels whose bootstrap is in memory at a time."""
_SPANS = 8
"""Pieces of work; their number does not follow that of workers, so that sums do not either."""
ORDERED = "hierarchy"
"""What stands for a region where all regions in their order are meant."""


class Found(NamedTuple):
    """What some voxels tell.

    ``share`` (layers, voxels) of bootstrap samples in which a layer is best in its network; ``nested`` (networks,
    voxels) r with the layer chosen in training; ``means`` (regions, samples, layers) and ``chosen`` (regions, samples,
    networks) sums of r; ``counts`` (regions, samples, layers) voxels by best layer; ``by_region`` (regions, networks)
    sums of r with the layer chosen for the region; ``voxels`` (regions,) that have a score.
    """

    share: np.ndarray
    nested: np.ndarray
    means: np.ndarray
    chosen: np.ndarray
    counts: np.ndarray
    by_region: np.ndarray
    voxels: np.ndarray


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resamples the predictions of some voxels; sent to workers with their numbers.

    Parameters
    ----------
    held : sequence of Held
        By layer.
    networks : sequence of ndarray of int
        Layers of each network.
    inner : ndarray, shape (layers, parts, n_voxels)
        Scores within training parts.
    region_choice : ndarray of int, shape (regions, networks, parts)
        Layer of each region, among those of the network.
    y : ndarray, shape (n, n_voxels)
    splits : sequence of (train, test)
    weights : ndarray, shape (1 + samples, n held out)
        Of `resamplings`; before them the items as they are.
    regions : ndarray of bool, shape (regions, n_voxels)
    """

    held: Sequence[Held]
    networks: Sequence[np.ndarray]
    inner: np.ndarray
    region_choice: np.ndarray
    y: np.ndarray
    splits: Sequence[Split]
    weights: np.ndarray
    regions: np.ndarray

    def __call__(self, span: slice) -> Found:
        """Go through the voxels of a span, block by block."""
        n_layers, n_regions, samples = len(self.held), len(self.regions), len(self.weights)
        shape = (n_regions, samples)
        total = Found(
            np.full((n_layers, span.stop - span.start), np.nan, dtype=np.float32),
            np.full((len(self.networks), span.stop - span.start), np.nan),
            np.zeros((*shape, n_layers)), np.zeros((*shape, len(self.networks))), np.zeros((*shape, n_layers)),
            np.zeros((n_regions, len(self.networks))), np.zeros(n_regions, dtype=int),
        )  # fmt: skip
        for part in blocks(span.stop - span.start, _VOXELS):
            self._add(slice(span.start + part.start, span.start + part.stop), part, total)
        return total

    def _add(self, columns: slice, place: slice, total: Found) -> None:
        """Add the voxels of one block."""
        y = np.asarray(self.y[:, columns])
        rows = choice.held_out(self.splits)
        parts = [np.searchsorted(rows, test) for _, test in choice.merged(self.splits)]
        scaled = [one.scaled(columns, y, self.splits) for one in self.held]
        measured = scaled[0][1]
        r = np.array([choice.weighted_pearsonr(self.weights, p, measured) for p, _ in scaled])
        usable = np.isfinite(r[:, 0]).any(axis=0)
        inside = (self.regions[:, columns] & usable).astype(np.float64)
        total.voxels[:] += inside.sum(axis=1).astype(int)
        sums = np.array([choice.moments(p, measured, parts) for p, _ in scaled])
        r = np.nan_to_num(r)
        total.means[:] += np.einsum("lbv,rv->rbl", r, inside, optimize=True)
        inner = np.asarray(self.inner[:, :, columns])
        for number, layers in enumerate(self.networks):
            picked = choice.winners(inner[layers])
            nested = choice.chosen_pearsonr(sums[layers], picked)
            total.nested[number, place] = np.where(usable, np.nan_to_num(nested), np.nan)
            together = np.empty_like(measured)
            for part, layer in zip(parts, picked, strict=True):
                some = np.array([scaled[one][0][part] for one in layers])
                together[part] = np.take_along_axis(some, layer[None, None], axis=0)[0]
            resampled = np.nan_to_num(choice.weighted_pearsonr(self.weights, together, measured))
            total.chosen[:, :, number] += inside @ resampled.T
            best = r[layers].argmax(axis=0)
            clear = inside * (nested > clear_above(len(rows)))
            for index, layer in enumerate(layers):
                wins = best == index
                total.share[layer, place] = np.where(usable, wins[1:].mean(axis=0), np.nan)
                total.counts[:, :, layer] += clear @ wins.T
            for region in np.flatnonzero(inside.any(axis=1)):
                own = choice.chosen_pearsonr(sums[layers], self.region_choice[region, number][:, None])
                total.by_region[region, number] += np.nan_to_num(own) @ inside[region]


def clear_above(n: int) -> float:
    """The r above which a voxel's best layer is counted: 1.645 / sqrt(n), about p = .05 of a single correlation."""
    return 1.645 / float(np.sqrt(n))


def resampled_units(items: pd.DataFrame, purge: float) -> np.ndarray:
    """What a bootstrap draws: stimuli; of a series, stretches as long as the gap between folds."""
    if not is_series(items):
        return items["stimulus_id"].to_numpy(dtype=str)
    stretch = np.floor(items["time"].to_numpy(dtype=float) / max(purge, 1e-9)).astype(int)
    return (items["stimulus"].astype(str) + "\t" + stretch.astype(str)).to_numpy(dtype=str)


@dataclass(frozen=True, eq=False)
class Compared:
    """Maps, tables and sentences of the comparison of layers and networks."""

    maps: list[Map]
    tables: dict[str, pd.DataFrame]
    methods: str
    sidecar: Mapping[str, Any]
    references: tuple[str, ...] = ("layer-assignment", "corrected-resampling")


def compared(
    groups: Sequence[Group], scores: Sequence[LayerScores], y: Patterns, splits: Sequence[Split],
    named: Sequence[tuple[str, str, np.ndarray]], *, samples: int, **options: Any,
) -> Compared:  # fmt: skip
    """`compare_layers` of what `LayerFit` found, and its best voxels; nothing if no bootstrap was asked for."""
    if not samples or not groups:
        return Compared([], {}, "", {}, ())
    held = [one.held for one in scores if one.held is not None]
    inner = [one.inner for one in scores if one.inner is not None]
    found = compare_layers(groups, held, inner, y.values, splits, named, samples=samples, **options)
    found.tables["bestvoxels"] = best_voxels(groups, scores, y, splits, named)
    return found


def compare_layers(
    groups: Sequence[Group],
    held: Sequence[Held],
    inner: Sequence[np.ndarray],
    y: np.ndarray,
    splits: Sequence[Split],
    named: Sequence[tuple[str, str, np.ndarray]],
    *,
    units: np.ndarray,
    samples: int,
    seed: int,
    map: ParallelMap,
    ceiling: np.ndarray | None = None,
    hierarchy: Sequence[str] = (),
) -> Compared:
    """Layers were chosen in each training part by the r of an inner cross-validation, and scored on what it left out.

    Parameters
    ----------
    groups : sequence of Group
        Layers.
    held : sequence of Held
        Their predictions, shape (n_voxels, n).
    inner : sequence of ndarray, shape (parts, n_voxels)
        Of `Keeping.inner`.
    y : ndarray, shape (n, n_voxels)
    splits : sequence of (train, test)
    named : sequence of (str, str, ndarray of bool)
        Atlas, region and voxels.
    units : ndarray, shape (n,)
        Of `resampled_units`.
    samples : int
        Bootstrap samples.
    seed : int
    map : callable
        Spreads voxels over workers.
    ceiling : ndarray, shape (n_voxels,), optional
    hierarchy : sequence of str
        Regions in their order, for the brain hierarchy score.

    Returns
    -------
    Compared
    """
    labels = list(dict.fromkeys(group.network for group in groups))
    networks = [np.array([i for i, g in enumerate(groups) if g.network == label]) for label in labels]
    regions = np.array([columns for _, _, columns in named]).reshape(len(named), y.shape[1])
    scores = np.array(inner)
    rows = choice.held_out(splits)
    drawn = choice.resamplings(units[rows], samples=samples, seed=seed_for(seed, "bootstrap"))
    weights = np.vstack([np.ones(len(rows), dtype=np.float32), drawn])
    picked = region_choice(scores, networks, regions)
    work = Bootstrap(held, networks, scores, picked, y, splits, weights, regions)
    cuts = np.linspace(0, y.shape[1], min(_SPANS, y.shape[1]) + 1).astype(int)
    spans = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
    pieces: list[Found] = map(work, spans, label="layers compared")
    share, nested = (np.concatenate([getattr(one, key) for one in pieces], axis=1) for key in ("share", "nested"))
    sums = {key: np.sum([getattr(one, key) for one in pieces], axis=0) for key in Found._fields[2:]}
    found = Found(share, nested, **sums)
    factor = choice.training_factor(splits)
    dof = len(np.unique(units[rows])) - 1
    tables = {
        "bestlayer": layer_rows(groups, networks, named, found, picked),
        "hierarchy": region_rows(labels, groups, networks, named, found, picked, hierarchy, factor, ceiling),
    }
    if len(labels) > 1:
        tables["networks"] = pair_rows(labels, named, found, factor=factor, dof=dof)
    return Compared(
        best_maps(labels, networks, groups, found), tables, sentences(samples, units, is_pair=len(labels) > 1),
        {"BootstrapSamples": samples, "BootstrapUnits": dof + 1, "TrainingFactor": round(factor, 4)},
        ("layer-assignment", "corrected-resampling", *(["brain-hierarchy"] if hierarchy else []),
         *(["holm"] if len(labels) > 1 else [])),
    )  # fmt: skip


def region_choice(inner: np.ndarray, networks: Sequence[np.ndarray], regions: np.ndarray) -> np.ndarray:
    """Layer of each region in each training part, by its mean inner r, (regions, networks, parts)."""
    known = np.isfinite(inner).any(axis=(0, 1))
    means = np.einsum("lgv,rv->rlg", np.nan_to_num(inner), (regions & known).astype(np.float32), optimize=True)
    return np.array([[means[r][layers].argmax(axis=0) for layers in networks] for r in range(len(regions))], dtype=int)


def layer_rows(
    groups: Sequence[Group], networks: Sequence[np.ndarray], named: Sequence[tuple[str, str, np.ndarray]],
    found: Found, picked: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """A row each layer and region: how often it is best."""
    rows = []
    for number, layers in enumerate(networks):
        for index, layer in enumerate(layers):
            for r, (atlas, name, _) in enumerate(named):
                best = found.means[r][1:, layers].argmax(axis=1)
                clear = found.counts[r, 0, layers].sum()
                known = found.voxels[r] > 0
                rows.append({
                    "atlas": atlas, "network": groups[layer].network, "layer": groups[layer].name, "region": name,
                    "n_voxels": found.voxels[r],
                    "confidence": float((best == index).mean()) if known else np.nan,
                    "chosen": float((picked[r, number] == index).mean()) if known else np.nan,
                    "voxels": found.counts[r, 0, layer] / clear if clear else np.nan,
                })  # fmt: skip
    return pd.DataFrame(rows)


def region_rows(
    labels: Sequence[str], groups: Sequence[Group], networks: Sequence[np.ndarray],
    named: Sequence[tuple[str, str, np.ndarray]], found: Found, picked: np.ndarray, hierarchy: Sequence[str],
    factor: float, ceiling: np.ndarray | None,
) -> pd.DataFrame:  # fmt: skip
    """A row each network and region: its best layer, r with the layer chosen in training, and its depth."""
    rows = []
    for number, (label, layers) in enumerate(zip(labels, networks, strict=True)):
        for r, (atlas, name, columns) in enumerate(named):
            n = found.voxels[r]
            means = found.means[r, 0, layers] / n if n else np.full(len(layers), np.nan)
            depths = choice.preferred_depth(found.counts[r][:, layers])
            best = int(means.argmax()) if n else -1
            of_region = found.by_region[r, number] / n if n else np.nan
            inside = columns & np.isfinite(found.nested[number])
            share = (found.means[r][1:, layers].argmax(axis=1) == best).mean() if n else np.nan
            rows.append({
                "atlas": atlas, "network": label, "layer": groups[layers[best]].name if n else "", "region": name,
                "n_voxels": n, "pearsonr": of_region, "pearsonr_voxelwise": mean(found.nested[number][inside]),
                **normalized_scores(found.nested[number], ceiling, inside, of_region=of_region),
                "confidence": share, "n_voxels_clear": int(found.counts[r, 0, layers].sum()), "depth": depths[0],
                "depth_se": _spread(depths[1:], factor), "profile": choice.profile_rank(means),
                "hierarchy_score": np.nan, "hierarchy_se": np.nan,
            })  # fmt: skip
        rows += _ordered_rows(label, layers, named, found, hierarchy, factor)
    return pd.DataFrame(rows)


def _ordered_rows(
    label: str, layers: np.ndarray, named: Sequence[tuple[str, str, np.ndarray]], found: Found,
    hierarchy: Sequence[str], factor: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row each atlas that has the ordered regions: the brain hierarchy score."""
    rows = []
    for atlas in dict.fromkeys(atlas for atlas, _, _ in named) if hierarchy else ():
        index = {name: r for r, (one, name, _) in enumerate(named) if one == atlas}
        missing = [name for name in hierarchy if name not in index]
        if missing:
            raise ConfigError(
                f"parameters.encoding.hierarchy: {missing[0]!r} is no region of atlas {atlas or 'brain'}; it has "
                f"{', '.join(index)}"
            )
        counts = found.counts[[index[name] for name in hierarchy]][:, :, layers].transpose(1, 0, 2)
        scores = choice.hierarchy_score(counts)
        rows.append({
            "atlas": atlas, "network": label, "layer": "", "region": ORDERED,
            "n_voxels_clear": int(counts[0].sum()), "hierarchy_score": scores[0],
            "hierarchy_se": _spread(scores[1:], factor),
        })  # fmt: skip
    return rows


def _spread(resampled: np.ndarray, factor: float) -> float:
    known = resampled[np.isfinite(resampled)]
    return float(np.sqrt(factor) * known.std(ddof=1)) if len(known) > 1 else float("nan")


def pair_rows(
    labels: Sequence[str], named: Sequence[tuple[str, str, np.ndarray]], found: Found, *, factor: float, dof: int
) -> pd.DataFrame:
    """A row each two networks and region: difference of r, each voxel's layer chosen in training, and its test."""
    tables = []
    for r, (atlas, name, _) in enumerate(named):
        r_means = found.chosen[r] / found.voxels[r] if found.voxels[r] else np.full(found.chosen[r].shape, np.nan)
        rows = []
        for one, other in combinations(range(len(labels)), 2):
            apart = r_means[:, one] - r_means[:, other]
            tested = choice.difference_test(apart[0], apart[1:], factor=factor, dof=dof)
            rows.append({
                "atlas": atlas, "network": "", "first": labels[one], "second": labels[other], "region": name,
                "n_voxels": found.voxels[r], "first_pearsonr": r_means[0, one], "second_pearsonr": r_means[0, other],
                **tested._asdict(),
            })  # fmt: skip
        table = pd.DataFrame(rows)
        tables.append(table.assign(p_fwe=holm(table["p"])))
    if not tables:
        return pd.DataFrame(columns=["atlas", "network", "first", "second", "region"])
    whole = pd.concat(tables, ignore_index=True)
    return whole.assign(q=fdr(whole["p"]))


def best_maps(
    labels: Sequence[str], networks: Sequence[np.ndarray], groups: Sequence[Group], found: Found
) -> list[Map]:
    """Two maps of each network: r with the layer chosen in training, and how often each layer is best."""
    maps = []
    for number, (label, layers) in enumerate(zip(labels, networks, strict=True)):
        names = {"Layers": [groups[layer].name for layer in layers], "Model": label}
        maps += [
            Map("pearsonr", found.nested[number], label, {
                **names, "Description": "Cross-validated r, the layer of each voxel chosen in each training part",
            }, desc="bestlayer"),
            Map("confidence", found.share[layers], label, {
                **names, "VolumeAxis": "layer",
                "Description": "Share of bootstrap samples in which a layer has a voxel's highest r, a volume a layer",
            }, desc="bestlayer"),
        ]  # fmt: skip
    return maps


def sentences(samples: int, units: np.ndarray, *, is_pair: bool) -> str:
    """The Methods."""
    text = (
        f" {summary(compare_layers)} Confidence was the share of {samples:,} bootstrap samples of the held-out "
        f"stimuli, without refitting, in which a layer had the highest r. {summary(choice.preferred_depth)} Voxels "
        "with r above 1.645 / sqrt(n) were counted for their best layer."
    )
    if is_pair:
        text += f" {summary(choice.difference_test)} The family was the pairs of a region (Holm)."
    return text
