"""What can be asked of two tables that share their stimuli: predict one from the other, or compare their geometry.

An analysis is a function of a network's table, a brain's table and its own keyword parameters. A row in `ANALYSES`
gives it a name; ``file.py:function`` stands wherever a name does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.folding import folding
from bidsdnn.geometry import FEWEST_STIMULI, Regions, rsa, similarity
from bidsdnn.lookup import summary
from bidsdnn.methods.ceiling import LOWEST_CEILING, normalized, split_half
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.predict import cross_predict, prediction_operator, region_permutation
from bidsdnn.methods.reduce import rotation
from bidsdnn.methods.scores import fold_pearsonr, pooled_pearsonr, r2
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map, Result
from bidsdnn.searchlights import searchlight

# A permutation costs stimuli x stimuli x voxels: a whole brain's mean r is tested on a sample of its voxels.
MOST_TESTED = 2000


class LayerScores(NamedTuple):
    """What the encoding of one layer found: per voxel, per voxel and fold, and p of the regions."""

    pearsonr: np.ndarray
    r2: np.ndarray
    folds: np.ndarray
    p: np.ndarray


@dataclass(frozen=True, eq=False)
class Encoder:
    """How one layer is fitted; sent to a worker with the layer."""

    responses: np.ndarray
    regions: np.ndarray
    splits: Sequence[tuple[np.ndarray, np.ndarray]]
    permutations: int
    seed: int
    inner_splits: int
    device: str
    orders: np.ndarray | None = None

    def __call__(self, group: Group) -> LayerScores:
        """Cross-validate one layer."""
        inner, _, _ = group.gram()
        features = rotation(inner)
        model = Ridge(n_splits=self.inner_splits, seed=self.seed, device=self.device, shuffle=self.orders is None)
        predicted = cross_predict(model, features, self.responses, self.splits)
        p, _ = region_permutation(
            prediction_operator(features, self.splits),
            self.responses,
            self.regions,
            self.splits,
            permutations=self.permutations,
            seed=self.seed,
            orders=self.orders,
        )
        return LayerScores(
            pooled_pearsonr(predicted, self.responses, self.splits),
            r2(predicted, self.responses),
            fold_pearsonr(predicted, self.responses, self.splits),
            p,
        )


def encoding(
    x: Patterns,
    y: Patterns,
    *,
    regions: Regions,
    permutations: int,
    seed: int,
    map: ParallelMap,
    device: str = "cpu",
    ceiling: np.ndarray | None = None,
    n_splits: int = 10,
    inner_splits: int = 5,
    purge: float = 20.0,
) -> Result:
    """Responses were predicted from each layer by ridge regression with nested cross-validation.

    A layer enters through the exact rotation that its stimuli x stimuli inner products give, at most as many columns as
    stimuli, so that the number of units does not matter. Folds are made over stimuli. A region's p tests its mean r
    against permutations of the stimulus labels that repeat the cross-validated fit at one penalty, fixed before the
    responses were seen; of a region of more than 2,000 voxels, the mean r of 2,000 drawn at random is tested.
    Volumes of a series are held out as whole runs, stimuli or stretches of time, and are shifted in time where labels
    would be permuted.

    Parameters
    ----------
    x : Patterns
        One group a layer.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)
        Regions by atlas.
    permutations : int
    seed : int
    map : callable
        Spreads layers over workers.
    device : str
    ceiling : ndarray, shape (n_voxels,), optional
        Highest r to be expected in each voxel; NaN where unknown.
    n_splits : int
        Folds.
    inner_splits : int
        Folds within each training part, for the penalty.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.

    Returns
    -------
    Result
        Maps of r, R2 and the best layer of each network; a table of regions, and one of its folds.

    Raises
    ------
    DataError
        If there are fewer stimuli than folds.
    """
    needed = max(n_splits, FEWEST_STIMULI)
    if len(y) < needed:
        raise DataError(
            f"{len(y)} distinct stimuli for {n_splits} folds; give more runs, or fewer folds in the TOML file: "
            "[parameters.encoding] n_splits = 5"
        )
    folded = folding(y.items, n_splits=n_splits, purge=purge, permutations=permutations, seed=seed)
    responses = y.values
    named = [(atlas, name, columns) for atlas, table in regions.items() for name, columns in table.items()]
    encoder = Encoder(
        responses,
        _thinned(np.array([columns for _, _, columns in named]).reshape(len(named), len(responses.T)), seed=seed),
        folded.splits,
        permutations,
        seed_for(seed, "encoding"),
        inner_splits,
        device,
        folded.orders,
    )
    scores: list[LayerScores] = map(encoder, x.groups, label="encoding")
    rows, folds = [], []
    for group, score in zip(x.groups, scores, strict=True):
        usable = np.isfinite(score.pearsonr)
        for (atlas, name, columns), p in zip(named, score.p, strict=True):
            inside = columns & usable
            label = {"atlas": atlas, "network": group.network, "layer": group.name, "region": name}
            rows.append(
                {
                    **label,
                    "n_voxels": int(inside.sum()),
                    "pearsonr": _mean(score.pearsonr[inside]),
                    "r2": _mean(score.r2[inside]),
                    "p": p,
                    **_normalized(score.pearsonr, ceiling, inside),
                }
            )
            folds += [
                {**label, "fold": number, "pearsonr": _mean(fold[inside])} for number, fold in enumerate(score.folds)
            ]
    return Result(
        "encoding",
        maps=tuple(_encoding_maps(x.groups, scores)),
        tables={"encoding": pd.DataFrame(rows), "encodingfolds": pd.DataFrame(folds)},
        sidecar={
            "Methods": f"{summary(encoding)} {summary(Ridge)} {len(folded.splits)} folds, and {inner_splits} within "
            f"each training part for the penalty, were made over {folded.unit}.{folded.method} A region's p tests its "
            f"mean r against {permutations:,} {folded.test}, each repeating the cross-validated fit at one penalty "
            "fixed beforehand, with p = (1 + b) / (1 + n).",
            "CrossValidation": f"{len(folded.splits)} folds over {folded.unit}, {inner_splits} folds within each "
            f"training part{folded.gap}",
            "Measure": "Pearson r of predicted and measured deviations from the training part's mean, pooled over "
            "held-out stimuli, each fold's predictions on their own scale; R2 of the predictions as they are",
            "Ceiling": "square root of the reliability of the averaged responses; pearsonr_normalized is the ratio of "
            f"a region's mean r to its mean ceiling, where that is at least {LOWEST_CEILING}",
            "Test": f"{folded.test}, one-sided",
            "Permutations": permutations,
            "NumberOfStimuli": int(y.items.get("stimulus", y.items["stimulus_id"]).nunique()),
            "NumberOfItems": len(y),
            "NumberOfVoxelsNotScored": int((~np.isfinite(responses).all(axis=0)).sum()),
            "References": [
                "encoding",
                "ridge",
                "permutation",
                "scikit-learn",
                *(["circular-shift"] if folded.orders is not None else []),
            ],
        },
    )


def _thinned(regions: np.ndarray, *, seed: int) -> np.ndarray:
    """At most `MOST_TESTED` columns of each region, drawn without looking at their values."""
    thinned = np.zeros_like(regions, dtype=bool)
    for row, region in zip(thinned, regions, strict=True):
        inside = np.flatnonzero(region)
        rng = np.random.default_rng(seed_for(seed, "tested voxels"))
        row[inside if len(inside) <= MOST_TESTED else rng.choice(inside, MOST_TESTED, replace=False)] = True
    return thinned


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def _normalized(r: np.ndarray, ceiling: np.ndarray | None, inside: np.ndarray) -> dict[str, float]:
    """A region's mean ceiling, the ratio of its mean r to that, and how many voxels have hardly a ceiling."""
    if ceiling is None:
        return {}
    known = inside & np.isfinite(ceiling)
    highest = _mean(ceiling[known])
    return {
        "ceiling": highest,
        "pearsonr_normalized": normalized(_mean(r[known]), highest),
        "n_voxels_low_ceiling": int((ceiling[known] < LOWEST_CEILING).sum()),
    }


def _encoding_maps(groups: Sequence[Group], scores: Sequence[LayerScores]) -> list[Map]:
    """Three maps of each network: r and R2, a volume a layer, and which layer is best."""
    maps = []
    for network in dict.fromkeys(group.network for group in groups):
        chosen = [(g, s) for g, s in zip(groups, scores, strict=True) if g.network == network]
        layers = {
            "Layers": [group.name for group, _ in chosen],
            "Model": network,
            "VolumeAxis": "layer",
            "NullDistribution": "none: maps are not tested",
        }
        r = np.array([score.pearsonr for _, score in chosen])
        scored = np.isfinite(r).any(axis=0)
        best = np.where(scored, np.where(np.isfinite(r), r, -np.inf).argmax(axis=0) + 1.0, np.nan)
        maps += [
            Map("pearsonr", r, network, {**layers, "Description": "Cross-validated r of each voxel, a volume a layer"}),
            Map(
                "r2",
                np.array([score.r2 for _, score in chosen]),
                network,
                {**layers, "Description": "Cross-validated R2 of each voxel, a volume a layer"},
            ),
            Map("", best, network, {**layers, "Description": "The layer with the highest r, from 1"}, desc="bestlayer"),
        ]
    return maps


def reliability(y: Patterns, reliable: np.ndarray, *, regions: Regions) -> Result:
    """Reliability of a region is the mean over its voxels of the split-half reliability of their responses.

    Parameters
    ----------
    y : Patterns
        Responses, with ``n_repeats``.
    reliable : ndarray, shape (n_voxels,)
        Of each voxel.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)

    Returns
    -------
    Result
        A table of regions.
    """
    repeats = y.items["n_repeats"]
    rows = [
        {
            "atlas": atlas,
            "network": "",
            "region": name,
            "n_voxels": int((columns & np.isfinite(reliable)).sum()),
            "n_stimuli": int((repeats > 1).sum()),
            "n_repeats": float(repeats.mean()),
            "reliability": _mean(reliable[columns]),
        }
        for atlas, table in regions.items()
        for name, columns in table.items()
    ]
    return Result("reliability", tables={"reliability": pd.DataFrame(rows)}, sidecar={"Methods": summary(split_half)})


ANALYSES: dict[str, Callable[..., Result]] = {
    "encoding": encoding, "rsa": rsa, "searchlight": searchlight, "similarity": similarity,
}  # fmt: skip
NEEDS_NETWORK = {"encoding", "searchlight"}
"""Analyses that are left out, and named in the report, when no network is asked for."""
