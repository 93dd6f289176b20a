"""Which stimulus was seen, told from what an encoding model predicts for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.methods.identification import identification_permutation, identify
from bidsdnn.methods.inference import pvalue
from bidsdnn.methods.predict import Linear, Model
from bidsdnn.methods.scores import Split
from bidsdnn.patterns import Group

COLUMNS = ("top1", "chance_top1", "rank", "p_top1", "p")


def identified(
    model: Model, features: Any, predicted: np.ndarray, measured: np.ndarray, *, regions: np.ndarray,
    splits: Sequence[Split], orders: np.ndarray, ids: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Identify the stimuli of each region from the held-out predictions of one layer.

    Parameters
    ----------
    model : Model
        Only one that is linear in the responses, or a single split, is tested.
    features : array
        What the model is given of the layer.
    predicted, measured : ndarray, shape (n, V)
    regions : ndarray of bool, shape (R, V)
    splits : sequence of (train, test)
    orders : ndarray of int, shape (permutations, n)
    ids : ndarray of str, shape (n,)
        Stimulus of each item.

    Returns
    -------
    ndarray, shape (R, 5)
        `COLUMNS`.
    """
    linear = isinstance(model, Linear) and len(splits) > 1
    operator = model.operator(features, splits) if linear else None  # type: ignore[attr-defined]
    rows = []
    for columns in regions:
        guess, true = predicted[:, columns], measured[:, columns]
        found = identify(guess, true, splits, ids=ids)
        p = (np.nan, np.nan)
        if operator is not None:
            p = identification_permutation(operator, true, splits, orders, ids=ids)
        elif len(splits) == 1:
            # The model saw nothing of what is exchanged.
            null = [identify(guess, true[order], splits, ids=ids)[:2] for order in orders]
            p = tuple(pvalue(np.array(found[:2]), np.array(null)))
        rows.append((found.top1, found.chance, found.rank, *p))
    return np.array(rows, dtype=np.float64).reshape(len(regions), len(COLUMNS))


def identification_table(
    groups: Sequence[Group], scores: Sequence[Any], named: Sequence[tuple[str, str, np.ndarray]]
) -> dict[str, pd.DataFrame]:
    """Make the table of identification, a row a layer and region; empty if stimuli were not identified."""
    rows = [
        {"atlas": atlas, "network": group.network, "layer": group.name, "region": name,
         **dict(zip(COLUMNS, map(float, row), strict=True))}
        for group, score in zip(groups, scores, strict=True) if score.identified is not None
        for (atlas, name, _), row in zip(named, score.identified, strict=True)
    ]  # fmt: skip
    return {"identification": pd.DataFrame(rows)} if rows else {}
