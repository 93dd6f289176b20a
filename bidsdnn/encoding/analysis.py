"""The analysis: every layer's cross-validated prediction of every voxel, scored by region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.encoding.layer import LayerFit, LayerScores, thinned
from bidsdnn.encoding.models import build_encoder, inner_folds_of, references_of, said_of, taken_by
from bidsdnn.encoding.tables import encoding_maps, mean, normalized_scores
from bidsdnn.errors import DataError
from bidsdnn.folding import folding, items_for
from bidsdnn.geometry import FEWEST_STIMULI, Regions
from bidsdnn.lookup import summary
from bidsdnn.methods.ceiling import LOWEST_CEILING
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Patterns
from bidsdnn.result import Result


def encoding(
    x: Patterns,
    y: Patterns,
    *,
    regions: Regions,
    permutations: int,
    seed: int,
    map: ParallelMap,
    device: str = "cpu",
    encoder: str = "ridge",
    encoder_parameters: Mapping[str, Any] | None = None,
    ceiling: np.ndarray | None = None,
    cv: str = "kfold:10",
    parts: pd.DataFrame | None = None,
    trials: Patterns | None = None,
    inner_splits: int = 5,
    purge: float = 20.0,
) -> Result:
    """Responses were predicted from each layer with nested cross-validation.

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
    encoder : str
        Row of `MODELS`, or ``package.module:object``.
    encoder_parameters : mapping, optional
        The encoder's own.
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

    Returns
    -------
    Result
        Maps of r, R2 and the best layer of each network; a table of regions, and one of its folds.

    Raises
    ------
    DataError
        If there are fewer stimuli than folds.
    """
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli; encoding needs {FEWEST_STIMULI}; give more runs")
    y = items_for(cv, y, trials)
    x = x.match(y)
    folded = folding(
        y.items, cv=cv, parts=parts, purge=purge, permutations=permutations, seed=seed, fewest=inner_splits
    )
    responses = y.values
    named = [(atlas, name, columns) for atlas, table in regions.items() for name, columns in table.items()]
    model = build_encoder(
        encoder, encoder_parameters or {},
        n_splits=inner_splits, seed=seed_for(seed, "encoding"), device=device, shuffle=not folded.series,
    )  # fmt: skip
    fit = LayerFit(
        model,
        responses,
        thinned(np.array([columns for _, _, columns in named]).reshape(len(named), len(responses.T)), seed=seed),
        folded.splits,
        permutations,
        seed_for(seed, "encoding"),
        folded.orders,
    )
    scores: list[LayerScores] = map(fit, x.groups, label="encoding")
    chosen = inner_folds_of(model)
    nested = f", {inner_splits} folds within each training part for the {chosen}" if chosen else ""
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
                    "pearsonr": mean(score.pearsonr[inside]),
                    "r2": mean(score.r2[inside]),
                    "p": p,
                    **normalized_scores(score.pearsonr, ceiling, inside),
                }
            )
            folds += [
                {**label, "fold": number, "pearsonr": mean(fold[inside])} for number, fold in enumerate(score.folds)
            ]
    return Result(
        "encoding",
        maps=tuple(encoding_maps(x.groups, scores)),
        tables={"encoding": pd.DataFrame(rows), "encodingfolds": pd.DataFrame(folds)},
        sidecar={
            "Methods": f"{summary(encoding)} {said_of(model, encoder)} Cross-validation: {folded.said}{nested}."
            f"{folded.method} A region's p tests its mean r against {permutations:,} {folded.test}"
            + ("" if folded.single else ", each repeating the cross-validated fit at one penalty fixed beforehand")
            + ", with p = (1 + b) / (1 + n).",
            "CrossValidation": f"{folded.said}{nested}{folded.gap}",
            "Encoder": encoder,
            "Features": {f"{group.network} {group.name}".strip(): taken_by(model, group) for group in x.groups},
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
                *references_of(model, encoder),
                "permutation",
                "scikit-learn",
                *(["circular-shift"] if folded.series else []),
            ],
        },
    )
