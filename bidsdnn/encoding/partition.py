"""Variance partitioning: what feature spaces explain of each voxel, each beyond the others and several together."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.encoding.bands import Bands, bands_of, check_bands
from bidsdnn.encoding.tables import Named, mean
from bidsdnn.errors import DataError
from bidsdnn.folding import folding, is_series, items_for
from bidsdnn.geometry import FEWEST_STIMULI, Regions, whole_brain
from bidsdnn.lookup import summary
from bidsdnn.methods.bands import combine
from bidsdnn.methods.grouped import Grouped, averaged_products, repeated
from bidsdnn.methods.models import BandedRidge
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import Split, varies
from bidsdnn.methods.variance_partition import (
    MOST_SPACES,
    Part,
    Subset,
    bootstrap_r2,
    combined,
    interval,
    not_above_zero,
    subsets,
)
from bidsdnn.methods.variance_partition import parts as parts_of
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map, Result

logger = logging.getLogger(__name__)

KEY = "variance-partition] spaces"
_COLUMNS = 4096
_STRETCH = 20.0
"""Seconds of a series that are drawn together, at least: responses and noise last longer than a volume."""


@dataclass(frozen=True, eq=False)
class SubsetFit:
    """How one fold of a model on some spaces is fitted; sent to a worker.

    Parameters
    ----------
    model : BandedRidge
    grams : sequence of ndarray, shape (n, n)
        Of each layer.
    members : sequence of sequence of int
        Layers of each space.
    responses : ndarray, shape (n, V)
    inside : ndarray, shape (V, R)
        What a voxel counts in each region: one over the region's voxels and the voxel's squared errors of the mean.
    groups : ndarray, shape (n,)
        Stimulus of each item; items of one are averaged in the training part, so that inner folds do not divide them.
    """

    model: BandedRidge
    grams: Sequence[np.ndarray]
    members: Sequence[Sequence[int]]
    responses: np.ndarray
    inside: np.ndarray
    groups: np.ndarray

    def __call__(self, task: tuple[Subset, Split]) -> tuple[np.ndarray, np.ndarray]:
        """Squared errors, summed over the held-out part, (V,); and of each item, over regions, (m, R)."""
        subset, (train, test) = task
        products = combine(self.grams, [self.members[space] for space in subset], train)
        inside, outside, share = averaged_products(products, self.groups, train, test)
        learned = self.responses[train]
        learned = learned if share is None else share.astype(learned.dtype) @ learned
        fitted = copy.deepcopy(self.model).fit_grams(inside, learned)
        whole, each = np.empty(self.responses.shape[1]), np.zeros((len(test), self.inside.shape[1]))
        for targets, pieces in fitted.split_grams(outside):
            wrong = (self.responses[test, targets] - fitted.intercept_[targets] - pieces.sum(axis=0)) ** 2
            whole[targets] = wrong.sum(axis=0)
            each += wrong @ self.inside[targets]
        return whole, each


def variance_partition(
    x: Patterns,
    y: Patterns,
    *,
    regions: Regions | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: ParallelMap = serial,
    device: str = "cpu",
    cv: str = "kfold:10",
    parts: pd.DataFrame | None = None,
    trials: Patterns | None = None,
    spaces: str | Mapping[str, Sequence[str]] = "network",
    n_candidates: int | None = None,
    inner_splits: int = 5,
    purge: float = 20.0,
) -> Result:
    """The variance that feature spaces explain was shared out between them: unique to each, or shared by several.

    Banded ridge was fitted, with nested cross-validation, to every subset of up to four spaces; of more, to each alone,
    all, and all but one. R2 is relative to predicting the training part's mean. Intervals, and one-sided p of unique
    parts, come from a bootstrap over held-out stimuli of the finished predictions, as many samples as permutations.

    Parameters
    ----------
    x : Patterns
        One group a layer.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.
    permutations : int
        Bootstrap samples.
    seed : int
    map : callable
        Spreads models and folds over workers.
    device : str
    cv : str
        What is held out, as `CrossValidation.parse` reads it.
    parts : DataFrame, optional
        Which stimuli are train and which test, for ``column:NAME``.
    trials : Patterns, optional
        Single trials, for runs or sessions to be held out.
    spaces : str or mapping of str to list of str
        A space for each ``network`` or ``layer``, or names and patterns of layers.
    n_candidates : int, optional
        Weights of the spaces to be tried, as `BandedRidge` takes them.
    inner_splits : int
        Folds within each training part, for weights and penalties.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.

    Returns
    -------
    Result
        A map with a volume for each part, and a table of regions.

    Raises
    ------
    DataError
        If there are fewer than two spaces, or too few stimuli.
    """
    regions = whole_brain(y) if regions is None else regions
    x = x.match(y)
    check_bands(spaces, key=KEY)
    found = bands_of(x.groups, spaces, key=KEY)
    if len(found.members) < 2:
        raise DataError(
            f"variance is shared out between two feature spaces or more, and there is {len(found.members)}: "
            f"{', '.join(found.members)}; add another --network or --features, or name some with [parameters.{KEY}"
        )
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli; variance partitioning needs {FEWEST_STIMULI}; give more runs")
    if len(found.members) > MOST_SPACES:
        logger.warning(
            "%d feature spaces: what several share is left out; of up to %d it is computed",
            len(found.members), MOST_SPACES,
        )  # fmt: skip
    y = items_for(cv, y, trials)
    folded = folding(y.items, cv=cv, parts=parts, purge=purge, permutations=1, seed=seed, fewest=inner_splits)
    model = BandedRidge(
        n_splits=inner_splits, seed=seed_for(seed, "variance-partition"), device=device, n_candidates=n_candidates,
        shuffle=not folded.series,
    )  # fmt: skip
    named = [(atlas, name, columns) for atlas, table in regions.items() for name, columns in table.items()]
    scores = _Scores.of(x.match(y).groups, y, named, folded.splits, found, model, map)
    units = _units(y.items, purge).iloc[scores.rows].tolist()
    drawn = bootstrap_r2(scores.errors, scores.baseline, units, samples=permutations, seed=seed_for(seed, "bootstrap"))
    return _result(found, scores, named, drawn, folded=folded, inner_splits=inner_splits, y=y)


@dataclass(frozen=True, eq=False)
class _Scores:
    """Held-out errors of all models.

    Parameters
    ----------
    models : list of tuple of int
        Spaces of each.
    rows : ndarray of int, shape (n,)
        Held-out items.
    voxels : dict of Subset to ndarray, shape (n_voxels,)
        R2 of each model; NaN for voxels that cannot be scored.
    errors : ndarray, shape (n_models, n, R)
    baseline : ndarray, shape (n, R)
    """

    models: list[Subset]
    rows: np.ndarray
    voxels: dict[Subset, np.ndarray]
    errors: np.ndarray
    baseline: np.ndarray

    @classmethod
    def of(
        cls, groups: Sequence[Group], brain: Patterns, named: Named, splits: Sequence[Split], spaces: Bands,
        model: BandedRidge, map: ParallelMap,
    ) -> _Scores:  # fmt: skip
        """Fit every subset in every fold."""
        rows, responses = np.concatenate([test for _, test in splits]), brain.values
        usable = np.flatnonzero(np.isfinite(responses).all(axis=0) & varies(responses[rows]))
        y = np.ascontiguousarray(responses[:, usable])
        total = _mean_errors(y, splits, np.ones((len(usable), 0)))[0]
        inside = np.array([columns[usable] for _, _, columns in named], dtype=np.float64).reshape(len(named), -1).T
        inside /= np.maximum(inside.sum(axis=0), 1) * total[:, None]
        baseline = _mean_errors(y, splits, inside)[1]
        models = subsets(len(spaces.members))
        fit = SubsetFit(
            model, map(_gram, groups, label="inner products"), list(spaces.members.values()), y, inside,
            brain.items["stimulus_id"].to_numpy(str),
        )  # fmt: skip
        tasks = [(subset, split) for subset in models for split in splits]
        made = iter(map(fit, tasks, label="variance partition"))
        voxels, errors = {}, []
        for subset in models:
            folds = [next(made) for _ in splits]
            voxels[subset] = np.full(responses.shape[1], np.nan)
            voxels[subset][usable] = 1 - sum(whole for whole, _ in folds) / total
            errors.append(np.concatenate([each for _, each in folds]))
        return cls(models, rows, voxels, np.stack(errors), baseline)


def _result(
    spaces: Bands, scores: _Scores, named: Named, drawn: np.ndarray, *, folded: Any, inner_splits: int, y: Patterns
) -> Result:
    """Combine the models' R2 into parts, as a map and a table."""
    names = list(spaces.members)
    every = parts_of(len(names))
    maps = {_title(part, names): combined(part, scores.voxels) for part in every}
    samples = {model: drawn[:, place] for place, model in enumerate(scores.models)}
    rows = [
        row
        for part in every
        for row in _rows(part, names, named, maps[_title(part, names)], combined(part, samples), spaces.network)
    ]
    shared = "" if len(names) <= MOST_SPACES else f" Of {len(names)} spaces, what several share was not computed."
    averaged = f" {summary(Grouped)}" if repeated(y.items["stimulus_id"]) else ""
    about = {"Layers": list(maps), "Model": spaces.network, "VolumeAxis": "part", "NullDistribution": "none"}
    said = "Cross-validated R2 of each voxel: of all spaces, each alone, unique to each, and shared"
    nested = f", {inner_splits} folds within each training part for weights and penalties"
    return Result(
        "variancepartition",
        maps=(Map("r2", np.array(list(maps.values())), spaces.network, {**about, "Description": said}),),
        tables={"variancepartition": pd.DataFrame(rows)},
        sidecar={
            "Methods": f"{summary(variance_partition)} {summary(parts_of)} {summary(BandedRidge)} "
            f"{summary(bootstrap_r2)}{shared}{averaged} Cross-validation used {folded.said}{nested}.{folded.method}",
            "CrossValidation": f"{folded.said}{nested}{folded.gap}",
            "Spaces": {name: list(layers) for name, layers in spaces.layers.items()},
            "Measure": "R2 of held-out predictions, one minus their squared error over that of the training part's "
            "mean; a region's is the mean over its voxels. Unique and shared parts sum to that of all spaces, and may "
            "be negative.",
            "Interval": "95 % of bootstrap samples over held-out "
            + (f"stretches of {_STRETCH:g} s" if folded.series else "stimuli")
            + ", predictions held, with twice their variance, for held-out errors depend on one another",
            "Test": "one-sided, of unique parts: how many bootstrap samples are not above zero",
            "Samples": len(drawn),
            "NumberOfStimuli": int(y.items.get("stimulus", y.items["stimulus_id"]).nunique()),
            "NumberOfItems": len(y),
            "References": [
                "encoding", "variance-partition", "commonality", *BandedRidge.references, "scikit-learn",
            ],
        },
    )  # fmt: skip


def _rows(
    part: Part, names: Sequence[str], named: Named, r2: np.ndarray, samples: np.ndarray, network: str
) -> list[dict[str, Any]]:
    """One part's rows of the table of regions."""
    observed = np.array([mean(r2[columns]) for _, _, columns in named])
    low, high = interval(samples, observed)
    p = not_above_zero(samples, observed) if part.kind == "unique" else np.full(len(named), np.nan)
    return [
        {
            "atlas": atlas, "network": network, "part": part.kind, "spaces": "+".join(names[i] for i in part.spaces),
            "region": region, "n_voxels": int((columns & np.isfinite(r2)).sum()), "r2": observed[place],
            "ci_low": low[place], "ci_high": high[place], "p": p[place],
        }
        for place, (atlas, region, columns) in enumerate(named)
    ]  # fmt: skip


def _title(part: Part, names: Sequence[str]) -> str:
    return "all" if part.kind == "all" else f"{part.kind} {'+'.join(names[i] for i in part.spaces)}"


def _units(items: pd.DataFrame, purge: float) -> pd.Series[Any]:
    """What is drawn together: items of one stimulus; of a series, stretches of time."""
    if not is_series(items):
        return items["stimulus_id"]
    stretch = (items["time"] // max(purge, _STRETCH)).astype(int)
    return items["stimulus"].astype(str) + " " + stretch.astype(str)


def _mean_errors(y: np.ndarray, splits: Sequence[Split], inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of the training part's mean: over held-out items, (V,), and of each over regions, (n, R)."""
    whole, each = np.zeros(y.shape[1]), np.zeros((sum(len(test) for _, test in splits), inside.shape[1]))
    for columns in blocks(y.shape[1], _COLUMNS):
        part = [(y[test, columns] - y[train, columns].mean(axis=0, dtype=np.float64)) ** 2 for train, test in splits]
        wrong = np.concatenate(part)
        whole[columns] = wrong.sum(axis=0)
        each += wrong @ inside[columns]
    return whole, each


def _gram(group: Group) -> np.ndarray:
    return group.gram()[0]
