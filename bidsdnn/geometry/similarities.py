"""How similar many RDMs are to each other: layers, networks and regions, or one region of many people.

The one idea: it is one call, whatever the RDMs are of, and what it gives is a table of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.geometry.measured import FEWEST_STIMULI, How, Regions, Residuals, measure, whole_brain
from bidsdnn.geometry.models import Columns, column_models, layer_models, metric_of_layers
from bidsdnn.geometry.named import check_names, comparing, described, short
from bidsdnn.lookup import summary
from bidsdnn.methods.arrangement import classical_mds, pairwise_similarity, square_of_pairs
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import serial
from bidsdnn.patterns import Patterns
from bidsdnn.result import Result


def similarity(
    x: Patterns | None,
    y: Patterns,
    *,
    regions: Regions | None = None,
    map: ParallelMap = serial,
    metric: str = "correlation",
    comparisons: Sequence[str] = ("spearman", "pearson"),
    trials: Patterns | None = None,
    residuals: Residuals | None = None,
    columns: Columns | None = None,
    folds: str = "run",
    noise: str = "trials",
    shrinkage: str = "diagonal",
    layer_metric: str = "",
    categorical: Sequence[str] = (),
) -> Result:
    """Representational dissimilarity matrices of all layers, columns and regions were compared with each other.

    Parameters
    ----------
    x : Patterns or None
        One group a layer, of any number of networks.
    y : Patterns
        Responses to the same stimuli.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.
    map, metric, comparisons, trials, residuals, columns, folds, noise, shrinkage, layer_metric, categorical
        As in `rsa`.

    Returns
    -------
    Result
        A table of pairs, and one of each item's place on a map of two dimensions.

    Raises
    ------
    DataError
        If there are fewer than four stimuli, or fewer than two RDMs.
    """
    regions = whole_brain(y) if regions is None else regions
    x = None if x is None else x.match(y)
    check_names(metric, comparisons)
    if len(y) < FEWEST_STIMULI:
        raise DataError(f"{len(y)} distinct stimuli make no RDM to compare; RSA needs {FEWEST_STIMULI} or more")
    brains = measure(y, trials, regions, How(metric, folds, noise, shrinkage), residuals=residuals)
    ids = [y.ids[row] for row in brains.rows]
    table = x if x is None or len(ids) == len(x) else x.take(brains.rows)
    models = layer_models(table, metric=metric_of_layers(layer_metric, metric), map=map)
    models += column_models(columns or {}, ids, categorical=categorical)
    pairs, places = [], []
    for atlas, own in brains.rdms.items():
        items = [*((model.network, model.layer) for model in models), *(("region", name) for name in own)]
        rdms = np.array([*(model.rdm for model in models), *own.values()])
        for comparison in comparisons:
            rows, where = arranged(items, rdms, comparison)
            pairs.append(rows.assign(atlas=atlas, network=""))
            places.append(where.assign(atlas=atlas, network=""))
    if not any(len(rows) for rows in pairs):
        raise DataError("similarity: a single RDM is like no other; give --atlas with several regions, or a network")
    return Result(
        "similarity",
        tables={"similarity": pd.concat(pairs, ignore_index=True), "mds": pd.concat(places, ignore_index=True)},
        sidecar={
            "Methods": f"{summary(similarity)} {described(metric, DISSIMILARITIES)} {summary(classical_mds)}",
            "Metric": short(metric),
            "NumberOfStimuli": len(ids),
            "Comparisons": {short(name): described(name, SIMILARITIES) for name in comparisons},
            "References": ["rsa", "mds"],
            **({"Notes": brains.notes} if brains.notes else {}),
        },
    )


def arranged(items: Sequence[tuple[str, str]], rdms: np.ndarray, comparison: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare each two of some RDMs, and lay those out whose distances are known.

    Parameters
    ----------
    items : sequence of (str, str)
        What each is of: its network, or ``region`` or another kind; and its name.
    rdms : ndarray, shape (k, pairs)
    comparison : str
        Row of `SIMILARITIES`.

    Returns
    -------
    pairs : DataFrame
        ``first_kind``, ``first``, ``second_kind``, ``second``, ``comparison``, ``similarity``.
    places : DataFrame
        Of `placed`.
    """
    square = pairwise_similarity(rdms, comparison=comparing(comparison))
    first, second = (place.tolist() for place in np.triu_indices(len(items), 1))
    pairs = pd.DataFrame(
        {
            "first_kind": [items[i][0] for i in first],
            "first": [items[i][1] for i in first],
            "second_kind": [items[j][0] for j in second],
            "second": [items[j][1] for j in second],
            "comparison": short(comparison),
            "similarity": square[first, second],
        }
    )
    return pairs, placed(pairs)


def placed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Lay out what was compared on a plane, distances being one minus the similarity.

    Parameters
    ----------
    pairs : DataFrame
        Of `arranged`, of any number of comparisons.

    Returns
    -------
    DataFrame
        ``kind``, ``item``, ``comparison``, ``x`` and ``y``; NaN where a similarity to others is not known.
    """
    tables = []
    for comparison, rows in pairs.groupby("comparison", sort=False):
        first = list(zip(rows["first_kind"], rows["first"], strict=True))
        second = list(zip(rows["second_kind"], rows["second"], strict=True))
        items, square = square_of_pairs(first, second, rows["similarity"])
        # An item that is like no other is left out first, so that it does not take others with it.
        known = np.isfinite(square).sum(axis=1) > 1
        distances = 1 - square[np.ix_(known, known)]
        place = np.full((len(items), 2), np.nan)
        if len(distances) > 1 and np.isfinite(distances).all():
            place[known], _ = classical_mds(distances)
        named = {"kind": [kind for kind, _ in items], "item": [name for _, name in items], "comparison": comparison}
        tables.append(pd.DataFrame({**named, "x": place[:, 0], "y": place[:, 1]}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
