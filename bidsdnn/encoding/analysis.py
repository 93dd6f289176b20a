"""The analysis: every layer's cross-validated prediction of every voxel, scored by region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.encoding.comparison import compared, resampled_units
from bidsdnn.encoding.held import Keeping
from bidsdnn.encoding.identification import identification_table
from bidsdnn.encoding.joint import about_joint, fit_joint, joint_maps, joint_significance, said_of_joint
from bidsdnn.encoding.layer import LayerFit, LayerScores
from bidsdnn.encoding.memory import by_voxel, in_file
from bidsdnn.encoding.models import (
    build_encoder,
    fitted_together,
    inner_folds_of,
    references_of,
    said_of,
    taken_by,
)
from bidsdnn.encoding.significance import Significance, said_of_test, significance, which_voxels
from bidsdnn.encoding.stored import stored_columns
from bidsdnn.encoding.tables import Named, encoding_maps, fold_rows, region_rows
from bidsdnn.encoding.units import unit_scores
from bidsdnn.errors import DataError
from bidsdnn.folding import Folding, folding, items_for
from bidsdnn.geometry import FEWEST_STIMULI, Regions, whole_brain
from bidsdnn.lookup import summary
from bidsdnn.methods.ceiling import LOWEST_CEILING, ceiling_of_items
from bidsdnn.methods.grouped import Grouped, grouped, repeated
from bidsdnn.methods.scores import varies
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map, Result


def encoding(
    x: Patterns,
    y: Patterns,
    *,
    regions: Regions | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: ParallelMap = serial,
    device: str = "cpu",
    encoder: str = "ridge",
    encoder_parameters: Mapping[str, Any] | None = None,
    region_encoder: str | None = None,
    region_encoder_parameters: Mapping[str, Any] | None = None,
    ceiling: np.ndarray | None = None,
    cv: str = "kfold:10",
    parts: pd.DataFrame | None = None,
    trials: Patterns | None = None,
    inner_splits: int = 5,
    purge: float = 20.0,
    voxelwise: bool | None = None,
    iterate: str | None = None,
    bootstrap: int = 1000,
    hierarchy: Sequence[str] = (),
    save_predictions: bool = False,
    save_weights: bool = False,
    scratch: Path | None = None,
    identification: bool = False,
) -> Result:
    """Responses were predicted from each layer with nested cross-validation.

    A layer enters through the exact rotation that its stimuli x stimuli inner products give, at most as many columns as
    stimuli, so that the number of units does not matter. Items of one stimulus are never both trained on and tested.
    p compares a voxel's r, and a region's mean r, with those of permuted stimulus labels; each permutation repeats the
    cross-validated fit, with what a linear model would choose fixed before the responses were seen. Family-wise p is
    over all voxels, or all regions of an atlas, and all layers, which are permuted alike. Volumes of a series are held
    out as whole runs, stimuli or stretches of time, and are shifted in time where labels would be permuted.

    Parameters
    ----------
    x : Patterns
        One group a layer.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.
    permutations : int
    seed : int
    map : callable
        Spreads layers over workers.
    device : str
    encoder : str
        Row of `MODELS`, or ``package.module:object``.
    encoder_parameters : mapping, optional
        The encoder's own.
    region_encoder : str, optional
        The encoder of the regions' rows, where that is another than the voxels': partial least squares of all voxels of
        a region, beside least squares of each voxel. Maps, and what is chosen among layers, are the voxels' encoder's.
    region_encoder_parameters : mapping, optional
    ceiling : ndarray, shape (n_voxels,), optional
        Highest r to be expected in each voxel; NaN where unknown.
    cv : str
        What is held out, as `CrossValidation.parse` reads it.
    parts : DataFrame, optional
        Which stimuli are train and which test, for ``column:NAME``.
    trials : Patterns, optional
        Single trials, for runs or sessions to be held out: their averages within each are then predicted.
    inner_splits : int
        Folds within each training part, for the penalty.
    purge : float
        Seconds of a series that are left out of training on both sides of what is held out.
    voxelwise : bool, optional
        Whether every voxel is tested; if not given, where `which_voxels` finds it cheap. Else regions are, those of
        more than 2,000 voxels by 2,000 drawn at random.
    iterate : str, optional
        ``channel`` or ``position``: each of a layer's predicts by itself as well.
    bootstrap : int
        Samples of the held-out stimuli, for the confidence of best layers and the comparison of networks; 0 leaves both
        out.
    hierarchy : sequence of str
        Regions in their order, for the brain hierarchy score.
    save_predictions, save_weights : bool
        Whether held-out predictions, and the weights of a fit to all stimuli, are part of the result.
    scratch : Path, optional
        Folder for held-out predictions; in memory if not given.
    identification : bool
        Whether the stimuli that are held out together are told from each other by their predictions, in each region.

    Returns
    -------
    Result
        Maps of r, R2 and the best layer of each network; a table of regions, and one of its folds.

    Raises
    ------
    DataError
        If there are fewer stimuli than folds.
    """
    regions = whole_brain(y) if regions is None else regions
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli; encoding needs {FEWEST_STIMULI}; give more runs")
    averaged = y.items.get("n_repeats")
    y = in_file(items_for(cv, y, trials), scratch)
    x = x.match(y)
    folded = folding(
        y.items, cv=cv, parts=parts, purge=purge, permutations=permutations, seed=seed, fewest=inner_splits
    )
    if ceiling is not None and averaged is not None:
        ceiling = ceiling_of_items(ceiling, averaged, y.items["n_repeats"].iloc[folded.tested])
    named = [(atlas, name, columns) for atlas, table in regions.items() for name, columns in table.items()]
    built = {
        "n_splits": inner_splits, "seed": seed_for(seed, "encoding"), "device": device, "shuffle": not folded.series,
        "together": fitted_together(regions, y.values.shape[1]),
    }  # fmt: skip
    model = build_encoder(encoder, encoder_parameters or {}, **built)
    keeping = Keeping(
        scratch, inner_splits, seed_for(seed, "encoding"), not folded.series,
        predictions=bool(bootstrap) or save_predictions, weights=save_weights,
        groups=y.items["stimulus_id"].to_numpy(str),
    )  # fmt: skip
    fit, every = _layer_fit(
        model, y, named, folded, keeping, n_layers=len(x.groups), seed=seed, voxelwise=voxelwise,
        identification=identification,
    )  # fmt: skip
    fits = _fit_together if getattr(model, "joint", False) else _fit_each
    atlases = [atlas for atlas, _, _ in named]
    found = by_region = fits(x.groups, fit, atlases, ceiling, map=map, test=folded.test, voxelwise=every)
    if region_encoder is not None:
        whole = build_encoder(region_encoder, region_encoder_parameters or {}, **built)
        again, _ = _layer_fit(
            whole, y, named, folded, replace(keeping, predictions=False, weights=False), n_layers=len(x.groups),
            seed=seed, voxelwise=False, identification=identification,
        )  # fmt: skip
        by_region = _fit_each(x.groups, again, atlases, ceiling, map=map, test=folded.test, voxelwise=False)
    shared = compared(
        found.layers, found.scores, y, folded.splits, named, units=resampled_units(y.items, purge), samples=bootstrap,
        seed=seed, map=map, ceiling=ceiling, hierarchy=hierarchy,
    )  # fmt: skip
    if iterate and named:
        shared.tables[f"encoding{iterate}"] = unit_scores(x.groups, fit, named, iterate=iterate, map=map)
    chosen = inner_folds_of(model)
    nested = f", {inner_splits} folds within each training part for the {chosen}" if chosen else ""
    return Result(
        "encoding",
        maps=(*found.maps, *shared.maps),
        columns=stored_columns(found.layers, found.scores, y, predictions=save_predictions, weights=save_weights),
        tables={
            "encoding": pd.DataFrame(region_rows(by_region.groups, by_region.scores, named, by_region.tests, ceiling)),
            "encodingfolds": pd.DataFrame(fold_rows(by_region.groups, by_region.scores, named)),
            **shared.tables,
            **(identification_table(by_region.groups, by_region.scores, named) if found.layers else {}),
        },
        sidecar={
            "Methods": f"{summary(encoding)} {said_of(model, encoder)} Cross-validation used {folded.said}{nested}."
            f"{folded.method}{'' if fit.model is model else f' {summary(Grouped)}'} "
            f"{said_of_test(model, folded, permutations, voxelwise=every)}{found.said}{shared.methods}"
            + (
                ""
                if region_encoder is None
                else f" Regions' scores were of a fit of their own. {said_of(whole, region_encoder)}"
            ),
            "CrossValidation": f"{folded.said}{nested}{folded.gap}",
            "Encoder": encoder,
            **({} if region_encoder is None else {"RegionEncoder": region_encoder}),
            "EncoderFit": {
                "Parameters": dict(encoder_parameters or {}),
                "InnerFolds": inner_splits,
                "Seed": keeping.seed,
                "Shuffle": keeping.shuffle,
                "Regions": {atlas: list(table) for atlas, table in regions.items()},
            },
            **shared.sidecar,
            **found.about,
            "Features": {f"{group.network} {group.name}".strip(): taken_by(model, group) for group in x.groups},
            **_measures(y, folded, permutations),
            "References": [
                "encoding",
                *references_of(model, encoder),
                *([] if region_encoder is None else references_of(whole, region_encoder)),
                "permutation",
                "sign-flip",
                "fdr",
                "scikit-learn",
                *(["identification"] if identification else []),
                *(["circular-shift"] if folded.series else []),
                *shared.references,
            ],
        },
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What all layers gave.

    Parameters
    ----------
    layers : sequence of Group
        Those that were fitted one by one; none if as one model.
    groups : sequence of Group
        What has a row in the tables.
    scores : list of LayerScores
        Of each group.
    tests : Significance
    maps : sequence of Map
    about : mapping
        Keys of the sidecar.
    said : str
        For the Methods.
    """

    layers: Sequence[Group]
    groups: Sequence[Group]
    scores: list[LayerScores]
    tests: Significance
    maps: Sequence[Map]
    about: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""


def _layer_fit(
    model: Any, y: Patterns, named: Named, folded: Folding, keeping: Keeping, *, n_layers: int, seed: int,
    voxelwise: bool | None, identification: bool,
) -> tuple[LayerFit, bool]:  # fmt: skip
    """How each layer is fitted, and whether every voxel is tested."""
    stimuli = y.items["stimulus_id"].to_numpy(str)
    inside = np.array([columns for _, _, columns in named], dtype=bool).reshape(len(named), y.values.shape[1])
    drawn, every = which_voxels(
        model, inside, n_items=len(y), n_layers=n_layers, permutations=len(folded.orders), single=folded.single,
        seed=seed, asked=voxelwise,
    )  # fmt: skip
    fit = LayerFit(
        # A joint model averages within its folds, where it makes the inner products.
        model if getattr(model, "joint", False) else grouped(model, stimuli),
        y.values, inside, folded.splits, folded.orders, stimuli,
        drawn=drawn, tested=None if every else np.asarray(drawn.any(axis=0)), keeping=keeping.asked,
        identification=identification, folder=keeping.folder,
    )  # fmt: skip
    return fit, every


def _fit_together(
    groups: Sequence[Group], fit: LayerFit, atlases: Sequence[str], ceiling: np.ndarray | None, *, map: ParallelMap,
    test: str, voxelwise: bool,
) -> _Fitted:  # fmt: skip
    """All layers as one model."""
    joint = fit_joint(groups, fit, map)
    tests = joint_significance(joint, atlases, fit.responses.shape[1])
    maps = joint_maps(joint, tests if voxelwise else None, ceiling, test=test)
    averaged = f" {summary(Grouped)}" if repeated(fit.stimuli) else ""
    return _Fitted((), joint.groups, joint.scores, tests, maps, about_joint(joint), f"{averaged}{said_of_joint(joint)}")


def _fit_each(
    groups: Sequence[Group], fit: LayerFit, atlases: Sequence[str], ceiling: np.ndarray | None, *, map: ParallelMap,
    test: str, voxelwise: bool,
) -> _Fitted:  # fmt: skip
    """Each layer by itself."""
    scores = map(fit, groups, label="encoding")
    tests = significance(scores, atlases, fit.responses.shape[1])
    return _Fitted(
        groups, groups, scores, tests, encoding_maps(groups, scores, tests if voxelwise else None, ceiling, test=test)
    )


def _measures(y: Patterns, folded: Folding, permutations: int) -> dict[str, Any]:
    """What the numbers are, how they were tested, and of how many items."""
    tested = folded.tested
    scored = by_voxel(lambda one: np.isfinite(one).all(axis=0) & varies(one[tested]), y.values)
    return {
        "Measure": "Pearson r of predicted and measured deviations from the training part's mean, pooled over "
        "held-out stimuli, each fold's predictions on their own scale; R2 of the predictions as they are",
        "Ceiling": "square root of the reliability of the averaged responses; pearsonr_normalized is the ratio of "
        f"a region's mean r to its mean ceiling, where that is at least {LOWEST_CEILING}",
        "Test": f"{folded.test}, one-sided",
        "Correction": "family-wise (p_fwe, pfwe) by the largest value of each permutation over all layers and all "
        "voxels or regions of an atlas; false discovery rate (q) over the voxels of a layer, or the layers and "
        "regions of an atlas",
        "Permutations": permutations,
        "NumberOfStimuli": int(y.items.get("stimulus", y.items["stimulus_id"]).nunique()),
        "NumberOfItems": len(y),
        "NumberOfVoxelsNotScored": int((~scored).sum()),
    }
