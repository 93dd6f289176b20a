"""Searchlight analyses: the comparison of layers with every neighbourhood of a brain, in whatever space it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from bidsdnn.config_tables import CrossValidation
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.folding import folding, items_for
from bidsdnn.geometry import FEWEST_STIMULI, METRICS, Regions, whole_brain
from bidsdnn.lookup import resolve, summary
from bidsdnn.methods import searchlight as rsa_method
from bidsdnn.methods import searchlight_encoding as encoding_method
from bidsdnn.methods.grouped import grouped
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.neighbourhoods import FEWEST_COLUMNS
from bidsdnn.methods.null import held_out_scaled
from bidsdnn.methods.predict import Model, prediction_operator
from bidsdnn.methods.reduce import rotation
from bidsdnn.methods.scores import Split, pooled_pearsonr
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map, Result

logger = logging.getLogger(__name__)

METHODS = ("rsa", "encoding")
RADIUS = 10.0
ALPHA = 0.05
# Neighbourhoods and relabellings of the trial that says beforehand how long a test will take.
_PROBED, _PROBED_PERMUTATIONS = 256, 8
_LONG = 3600.0


@dataclass(frozen=True, eq=False)
class Scores:
    """What one kind of searchlight found, each of shape (layers, centres)."""

    name: str
    stat: str
    values: np.ndarray
    p: np.ndarray
    p_familywise: np.ndarray


def searchlight(
    x: Patterns,
    y: Patterns,
    *,
    regions: Regions | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: ParallelMap = serial,
    device: str = "cpu",
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman",),
    radius: float = RADIUS,
    neighbors: int | None = None,
    methods: Sequence[str] = ("rsa",),
    cv: str = "kfold:10",
    trials: Patterns | None = None,
    inner_splits: int = 5,
    purge: float = 20.0,
) -> Result:
    """Layers were compared with the responses in the neighbourhood of every voxel or vertex (searchlight analysis).

    Voxels are neighbours by straight distance inside the brain mask, vertices by the way along the cortex.

    Parameters
    ----------
    x : Patterns
        One group a layer.
    y : Patterns
        Responses to the same stimuli, with their space.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas, for the table; by default all voxels are one.
    permutations : int
    seed : int
    map : callable
        Spreads blocks of centres over workers.
    device : str
    metric : str
        One of `METRICS`.
    comparisons : sequence of str
        Rows of `SIMILARITIES`; the first is used.
    radius : float
        Of a neighbourhood, in millimetres.
    neighbors : int, optional
        Size of a neighbourhood as a number of voxels or vertices, the centre among them, in place of the radius.
    methods : sequence of str
        "rsa": similarity of RDMs. "encoding": mean over the neighbourhood of each voxel's cross-validated r.
    cv : str
        What encoding holds out, as `CrossValidation.parse` reads it; every item once.
    trials : Patterns, optional
        Single trials, for runs or sessions to be held out: encoding then predicts their averages within each.
    inner_splits : int
        Folds within each training part, for the penalty.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.

    Returns
    -------
    Result
        Maps of the score, p and family-wise p of each layer; a table of regions.

    Raises
    ------
    DataError
        If there are too few stimuli, or the space knows no neighbours.
    ConfigError
        If a metric, comparison or method is not known.
    """
    regions = whole_brain(y) if regions is None else regions
    x = x.match(y)
    resolve(metric, METRICS)
    resolve(comparisons[0], SIMILARITIES)
    check_parameters(methods=methods, neighbors=neighbors, cv=cv)
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli; this searchlight needs {FEWEST_STIMULI} or more, give more runs")
    near = y.space.neighbors(count=neighbors) if neighbors else y.space.neighbors(radius=radius)
    values = y.values
    usable = np.isfinite(values).all(axis=0)
    sizes = np.asarray(csr_array(near, dtype=np.int64) @ usable.astype(np.int64))
    found, held_out = [], ""
    if "rsa" in methods:
        models = np.array(map(partial(Group.rdm, metric=metric), x.groups, label="RDMs of layers"))
        found.append(
            _rsa(
                values, near, models, metric=metric, comparison=comparisons[0], device=device, sizes=sizes,
                permutations=permutations, seed=seed_for(seed, "searchlight"), map=map,
            )
        )  # fmt: skip
    if "encoding" in methods:
        items = items_for(cv, y, trials)
        folded = folding(
            items.items, cv=cv, purge=purge, permutations=permutations, seed=seed, fewest=inner_splits
        )  # fmt: skip
        ridge = Ridge(
            n_splits=inner_splits, seed=seed_for(seed, "encoding"), device=device, shuffle=not folded.series
        )  # fmt: skip
        fit = Fit(items.values, folded.splits, grouped(ridge, items.items["stimulus_id"].to_numpy(str)))
        found.append(_encoding(fit, x.match(items).groups, near, folded.orders, map=map))
        held_out = (
            f" Encoding used {folded.said}{folded.gap}, {inner_splits} folds within each training part for the "
            f"penalty, and {folded.test} for its test.{folded.method}"
        )
    extent = f"the {neighbors} nearest" if neighbors else f"within {radius:g} mm"
    about = {
        "NeighborhoodExtent": f"{neighbors} voxels or vertices" if neighbors else f"{radius:g} mm",
        "MeanNeighborhoodSize": round(float(sizes[usable].mean()), 1) if usable.any() else 0,
        "NumberOfCentres": int((sizes >= FEWEST_COLUMNS).sum()),
        "NumberOfCentresNotScored": int((sizes < FEWEST_COLUMNS).sum()),
    }
    said = [summary(rsa_method.searchlight)] if "rsa" in methods else []
    said += [f"{summary(encoding_method.pooled)} {summary(Ridge)}"] if "encoding" in methods else []
    return Result(
        "searchlight",
        maps=tuple(one for scores in found for one in _maps(scores, x.groups)),
        tables={f"{scores.name}": _table(scores, x.groups, regions, metric, comparisons[0]) for scores in found},
        sidecar={
            "Methods": f"{summary(searchlight)} A neighbourhood was the centre and the voxels or vertices {extent}. "
            f"{' '.join(said)} p came from {permutations:,} permutations of the stimulus labels, the same for all "
            "centres and layers, with p = (1 + b) / (1 + n); family-wise p counted the permutations whose largest "
            "value over all centres and layers, each layer's in units of its root mean square, reached the observed "
            f"one.{held_out}",
            "Test": "permutations of stimulus labels, one-sided",
            "Permutations": permutations,
            "Correction": "family-wise over all centres and layers, by the largest value of each permutation",
            "NumberOfStimuli": len(y),
            "NumberOfVoxelsNotScored": int((~usable).sum()),
            "Metric": metric,
            "Comparison": comparisons[0],
            **about,
            "References": ["searchlight", "permutation", "sign-flip", *(["ridge"] if "encoding" in methods else [])],
        },
    )


def check_parameters(
    *, methods: Sequence[str] = ("rsa",), neighbors: int | None = None, cv: str | None = None, **others: Any
) -> None:
    """Refuse parameters of `searchlight` that make no sense, before any data is read.

    Parameters
    ----------
    methods, neighbors, cv
        As of `searchlight`.
    **others
        Further parameters, which are not looked at.

    Raises
    ------
    ConfigError
    """
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"parameters.searchlight.methods = {method!r}: choose of {', '.join(METHODS)}")
    if not methods:
        raise ConfigError(f"parameters.searchlight.methods is empty: choose of {', '.join(METHODS)}")
    if neighbors is not None and neighbors < FEWEST_COLUMNS:
        raise ConfigError(f"parameters.searchlight.neighbors = {neighbors}: a neighbourhood needs 2 or more")
    if "encoding" in methods and CrossValidation.parse(cv or "kfold:10").kind == "column":
        raise ConfigError(
            f'--cv {cv}: searchlight encoding holds every stimulus out once; use --cv kfold:10, or methods = ["rsa"]'
        )


def _rsa(
    values: np.ndarray, near: csr_array, models: np.ndarray, *, metric: str, comparison: str, device: str,
    sizes: np.ndarray, permutations: int, seed: int, map: ParallelMap,
) -> Scores:  # fmt: skip
    """Searchlight RSA; says beforehand how long it will take."""
    chosen: dict[str, Any] = {"metric": metric, "comparison": comparison, "seed": seed, "device": device}
    _announce(values, near, models, sizes, permutations, chosen)
    found = rsa_method.searchlight(values, near, models, permutations=permutations, map=map, **chosen)
    return Scores("searchlight", "similarity", found.similarity, found.p, found.p_familywise)


def _announce(
    values: np.ndarray,
    near: csr_array,
    models: np.ndarray,
    sizes: np.ndarray,
    permutations: int,
    chosen: dict[str, Any],
) -> None:
    """Time a trial on a few centres, and say what all will take."""
    some = near[np.flatnonzero(sizes >= FEWEST_COLUMNS)[:_PROBED]]
    if not some.shape[0]:
        return
    few = min(permutations, _PROBED_PERMUTATIONS)
    seconds = []
    # The first call starts the libraries and does not count.
    for count in (0, 0, few):
        start = time.perf_counter()
        rsa_method.searchlight(values, some, models, permutations=count, **chosen)
        seconds.append(time.perf_counter() - start)
    each = max(seconds[2] - seconds[1], 0) / max(few, 1)
    whole = (seconds[1] + each * permutations) * near.shape[0] / some.shape[0]
    _say("searchlight", near, float(sizes.mean()), len(models), permutations, whole)


def _say(what: str, near: csr_array, size: float, layers: int, permutations: int, seconds: float) -> None:
    """Log how long a test will take; a long one is worth a warning."""
    logger.log(
        logging.WARNING if seconds > _LONG else logging.INFO,
        "%s: %d neighbourhoods of %.0f on average, %d layers, %d permutations: about %s on one processor%s",
        what, near.shape[0], size, layers, permutations,
        f"{seconds / 60:,.0f} min" if seconds > 120 else f"{seconds:.0f} s",
        "; fewer --permutations or layers take less" if seconds > _LONG else "",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fit:
    """How one layer predicts every voxel; sent to a worker with the layer."""

    responses: np.ndarray
    splits: Sequence[Split]
    model: Model

    def __call__(self, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """Cross-validated r of each voxel, and the operator of the test."""
        features = rotation(group.gram()[0])
        predicted, scale = held_out_scaled(self.model, features, self.responses, self.splits)
        r = pooled_pearsonr(predicted, self.responses, self.splits, scale=scale)
        return r, prediction_operator(features, self.splits)


def _encoding(fit: Fit, groups: Sequence[Group], near: csr_array, orders: np.ndarray, *, map: ParallelMap) -> Scores:
    """Searchlight encoding."""
    fitted: list[tuple[np.ndarray, np.ndarray]] = map(fit, groups, label="encoding")
    operators = [operator for _, operator in fitted]
    start = time.perf_counter()
    encoding_method.encoding_permutation(operators, fit.responses, near, fit.splits, orders=orders[:1])
    # The observed labels and one relabelling.
    whole = (time.perf_counter() - start) / 2 * len(orders)
    _say("searchlight encoding", near, float(near.nnz / near.shape[0]), len(groups), len(orders), whole)
    p, p_familywise = encoding_method.encoding_permutation(
        operators, fit.responses, near, fit.splits, orders=orders, map=map
    )
    mean = encoding_method.pooled(np.array([r for r, _ in fitted]), near)
    return Scores("searchlightencoding", "pearsonr", mean, p, p_familywise)


def _maps(scores: Scores, groups: Sequence[Group]) -> list[Map]:
    """Three maps of each network, a volume a layer."""
    maps = []
    for network in dict.fromkeys(group.network for group in groups):
        rows = [i for i, group in enumerate(groups) if group.network == network]
        keys = {"Layers": [groups[i].name for i in rows], "Model": network, "VolumeAxis": "layer"}
        for stat, values, what in (
            (scores.stat, scores.values, "Score of the neighbourhood of each centre"),
            ("p", scores.p, "Uncorrected p of each centre"),
            ("pfwe", scores.p_familywise, "Family-wise p over all centres and layers"),
        ):
            about = {**keys, "Description": f"{what}, a volume a layer"}
            maps.append(Map(stat, values[rows], network, about, desc=scores.name))
    return maps


def _table(scores: Scores, groups: Sequence[Group], regions: Regions, metric: str, comparison: str) -> pd.DataFrame:
    """Each layer's mean, peak and number of significant centres in each region."""
    rows = []
    for i, group in enumerate(groups):
        for atlas, table in regions.items():
            for region, columns in table.items():
                inside = np.flatnonzero(columns & np.isfinite(scores.values[i]))
                values, corrected = scores.values[i, inside], scores.p_familywise[i, inside]
                peak = inside[values.argmax()] if len(inside) else None
                row: Mapping[str, Any] = {
                    "atlas": atlas, "network": group.network, "layer": group.name, "region": region,
                    "n_voxels": len(inside),
                    **({"metric": metric, "comparison": comparison} if scores.stat == "similarity" else {}),
                    scores.stat: values.mean() if len(inside) else np.nan,
                    "peak": np.nan if peak is None else scores.values[i, peak],
                    "peak_p": np.nan if peak is None else scores.p[i, peak],
                    "peak_pfwe": np.nan if peak is None else scores.p_familywise[i, peak],
                    "n_significant": int((corrected < ALPHA).sum()),
                }  # fmt: skip
                rows.append(row)
    return pd.DataFrame(rows)
