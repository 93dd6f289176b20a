"""Representational similarity analysis: one participant's regions against layers, behaviour and categories."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry.comparing import Counts, Rdms, Tests, check_combined, compare_all, methods
from bidsdnn.geometry.measured import FEWEST_STIMULI, How, Regions, Residuals, measure, whole_brain
from bidsdnn.geometry.models import Columns, column_models, find_controls, layer_models, metric_of_layers
from bidsdnn.geometry.named import check_names, described, lower_first, short
from bidsdnn.geometry.splits import check_by, split_rdms
from bidsdnn.geometry.undefined import undefined
from bidsdnn.geometry.units import ITERATE, UnitTests, unit_table
from bidsdnn.lookup import summary
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import serial
from bidsdnn.patterns import Patterns
from bidsdnn.result import Result
from bidsdnn.stimuli import Stimuli

logger = logging.getLogger(__name__)


def check(metric: str, comparisons: Sequence[str], iterate: str | None, parameters: Mapping[str, Any]) -> How:
    """Refuse what cannot be asked of RSA, before any data is read.

    Parameters
    ----------
    metric : str
        Of the brain's RDMs.
    comparisons : sequence of str
    iterate : str or None
    parameters : mapping
        Those of `rsa` that a user gave.

    Returns
    -------
    How

    Raises
    ------
    ConfigError
    """
    check_names(metric, comparisons)
    if iterate and iterate not in ITERATE:
        raise ConfigError(f"--iterate {iterate}: choose one of {', '.join(ITERATE)}")
    how = How(metric, **{key: parameters[key] for key in ("folds", "noise", "shrinkage") if key in parameters})
    metric_of_layers(parameters.get("layer_metric", ""), metric)
    check_by(parameters.get("by", ""), how)
    check_combined(parameters.get("control", ()), bool(parameters.get("weighted")), comparisons)
    if layer_metric := parameters.get("layer_metric"):
        check_names(layer_metric, ())
    if parameters.get("store_covariance") and not how.from_trials:
        raise ConfigError(
            f"parameters.rsa.store_covariance: {metric} uses no covariance of the noise; choose --rdm-metric "
            "crossnobis or mahalanobis"
        )
    return how


def rsa(
    x: Patterns | None,
    y: Patterns,
    *,
    regions: Regions | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: ParallelMap = serial,
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman", "pearson"),
    trials: Patterns | None = None,
    residuals: Residuals | None = None,
    columns: Columns | None = None,
    stimuli: Stimuli | None = None,
    iterate: str | None = None,
    folds: str = "run",
    noise: str = "trials",
    shrinkage: str = "diagonal",
    store_covariance: bool = False,
    by: str = "",
    layer_metric: str = "",
    categorical: Sequence[str] = (),
    weighted: bool = False,
    control: Sequence[str] = (),
) -> Result:
    """Representational dissimilarity matrices of layers and regions were compared.

    Parameters
    ----------
    x : Patterns or None
        One group a layer.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.
    permutations : int
    seed : int
    map : callable
        Spreads layers over workers.
    metric : str
        Row of `DISSIMILARITIES`, of the brain's RDMs.
    comparisons : sequence of str
        Rows of `SIMILARITIES`.
    trials : Patterns, optional
        Single trials, with ``run`` and ``session``, for metrics that need repeats or the noise.
    residuals : callable, optional
        Gives those of some voxels, for ``noise = "residuals"``.
    columns : mapping of str to DataFrame, optional
        Behaviour and categories that are models too.
    stimuli : Stimuli, optional
        Pictures, for the control ``pixels``.
    iterate : str, optional
        ``channel`` or ``position``: each of a layer's is compared too.
    folds : str
        What crossnobis is cross-validated over: ``run`` or ``session``.
    noise, shrinkage : str
        Of `How`.
    store_covariance : bool
        Whether the covariance of each region's noise is written, for those who compute crossnobis elsewhere.
    by : str
        ``run`` or ``session``: RDMs of each are written, and how well they agree.
    layer_metric : str
        The layers' metric; by default the brain's, or correlation where that needs repeats.
    categorical : sequence of str
        Columns whose numbers are names.
    weighted : bool
        Whether a network's layers are weighted together too.
    control : sequence of str
        ``pixels``, columns or layers, for partial RSA.

    Returns
    -------
    Result
        Tables of models x regions, and the regions' RDMs.

    Raises
    ------
    DataError
        If there are fewer than four stimuli, or the metric needs repeats that there are not.
    ConfigError
        If a metric or a comparison is not known.
    """
    regions = whole_brain(y) if regions is None else regions
    x = None if x is None else x.match(y)
    how = check(metric, comparisons, iterate, {
        "folds": folds, "noise": noise, "shrinkage": shrinkage, "by": by, "layer_metric": layer_metric,
        "control": control, "store_covariance": store_covariance, "weighted": weighted,
    })  # fmt: skip
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli make no RDM to compare; RSA needs {FEWEST_STIMULI} or more")
    brains = measure(y, trials, regions, how, residuals=residuals, with_noise=store_covariance)
    result = compare(
        x if x is None or len(brains.rows) == len(x) else x.take(brains.rows),
        [y.ids[row] for row in brains.rows], brains.rdms, counts=brains.counts, permutations=permutations, seed=seed,
        map=map, metric=metric, comparisons=comparisons, columns=columns, stimuli=stimuli, iterate=iterate,
        layer_metric=layer_metric, categorical=categorical, weighted=weighted, control=control, said=str(how),
    )  # fmt: skip
    tables, matrices = dict(result.tables), result.matrices
    if by:
        table, splits = split_rdms(y, trials, regions, how, by=by, comparisons=comparisons, residuals=residuals)
        tables["rdmreliability"], matrices = table, (*matrices, *splits)
    notes = [*brains.notes, *result.sidecar.get("Notes", ())]
    sidecar = {**result.sidecar, **({"Notes": notes} if notes else {})}
    return Result(
        "rsa", tables=tables, arrays=result.arrays, matrices=matrices, covariances=brains.noise, sidecar=sidecar
    )


def compare(
    x: Patterns | None,
    ids: Sequence[str],
    brains: Rdms,
    *,
    counts: Counts | None = None,
    permutations: int,
    seed: int,
    map: ParallelMap,
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman", "pearson"),
    columns: Columns | None = None,
    stimuli: Stimuli | None = None,
    iterate: str | None = None,
    layer_metric: str = "",
    categorical: Sequence[str] = (),
    weighted: bool = False,
    control: Sequence[str] = (),
    said: str = "",
) -> Result:
    """Layers, behaviour and categories were compared with RDMs of regions.

    Parameters
    ----------
    x : Patterns or None
        One group a layer, its items those of the RDMs.
    ids : sequence of str
        Stimuli of the RDMs, in their order.
    brains : mapping of str to mapping of str to ndarray, shape (n * (n - 1) / 2,)
        Condensed RDMs by atlas and region.
    counts : mapping of str to mapping of str to int, optional
        Voxels of each region, where they are known.
    permutations, seed, map, metric, comparisons
        As in `rsa`.
    columns, stimuli, iterate, layer_metric, categorical, weighted, control
        As in `rsa`.
    said : str
        How the brain's RDMs were made, beyond the metric's first sentence.

    Returns
    -------
    Result
    """
    units = metric_of_layers(layer_metric, metric)
    layers = layer_models(x, metric=units, map=map)
    models = [*layers, *column_models(columns or {}, ids, categorical=categorical)]
    controls = find_controls(control, models, stimuli, ids)
    tests = Tests(comparisons, permutations, seed, metric, weighted)
    notes = undefined(models, brains, ids, counts=counts)
    for sentence in notes:
        logger.warning("RSA: %s", sentence)
    rows = compare_all(models, brains, counts=counts, tests=tests, controls=controls) if models else []
    tables = {"rsa": pd.DataFrame(rows)} if rows else {}
    if iterate and x is not None:
        asked = UnitTests(iterate, units, brains, tests)
        tables[f"rsa{iterate}"] = unit_table(x.groups, asked, map=map)
    text = f"{described(metric, DISSIMILARITIES)}{said}"
    if layers and units != metric:
        text += f" In layers, {lower_first(described(units, DISSIMILARITIES))}"
    return Result(
        "rsa",
        tables=tables,
        arrays={atlas: (ids, table) for atlas, table in brains.items()},
        sidecar={
            "Methods": f"{summary(rsa)} {text} {methods(tests, controls)}" if models else text,
            "Test": "permutations of stimulus labels, one-sided",
            "Correction": "p_fwe: over the models of one region and comparison; q: over models and regions",
            "Permutations": permutations,
            "NumberOfStimuli": len(ids),
            "Metric": short(metric),
            "LayerMetric": short(units),
            "RelationshipMeasure": "1 - Pearson correlation" if metric == "correlation" else short(metric),
            "NonNegative": metric != "crossnobis",
            "Comparisons": {short(name): described(name, SIMILARITIES) for name in comparisons},
            "Controls": [one.layer for one in controls],
            **({"Notes": notes} if notes else {}),
            "References": ["rsa", "permutation", "fdr",
                           *(["crossnobis"] if metric in ("crossnobis", "mahalanobis") else []),
                           *(["weighted-rsa"] if weighted else []), *(["partial-permutation"] if controls else [])],
        },
    )  # fmt: skip
