"""Rows of the table of channels: what each is tuned to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bidsdnn.decoding.targets import Target
from bidsdnn.methods.tuning import (
    class_means,
    class_selectivity,
    discriminability,
    treves_rolls,
    variance_between,
    vinje_gallant,
)
from bidsdnn.probes.clusters import Clustered


def tuning_rows(one: Clustered, targets: Sequence[Target], ids: Sequence[str]) -> pd.DataFrame:
    """Sparseness, group and, for each target, selectivity of a layer's channels.

    Parameters
    ----------
    one : Clustered
    targets : sequence of Target
        Of the same stimuli, or some of them.
    ids : sequence of str
        Stimuli of the profiles' rows.

    Returns
    -------
    DataFrame
        A row a channel and target; a row a channel where there is none.
    """
    profiles = one.profiles
    n = len(profiles)
    sparse = treves_rolls(profiles)
    alone = pd.DataFrame({
        "layer": one.name, "channel": np.arange(profiles.shape[1]), "mean": profiles.mean(0), "sd": profiles.std(0),
        "treves_rolls": sparse, "lifetime_sparseness": vinje_gallant(sparse, n),
        "cluster": one.channel_clusters, "order": one.channel_places,
    })  # fmt: skip
    if not targets:
        return alone
    return pd.concat([alone.assign(**_tuned(one, target, ids)) for target in targets], ignore_index=True)


def _tuned(one: Clustered, target: Target, ids: Sequence[str]) -> dict[str, object]:
    """Columns of one target: of classes, what is preferred and how much; of numbers, the correlation."""
    rows = one.profiles[pd.Index(ids).get_indexer(target.table.ids)]
    nothing = np.full(rows.shape[1], np.nan)
    if not target.classes:
        around, values = rows - rows.mean(0), target.labels - target.labels.mean()
        spread = np.sqrt((around**2).sum(0) * (values**2).sum())
        r = np.divide(values @ around, spread, out=nothing.copy(), where=spread > 0)
        return {"target": target.name, "preferred": "", "class_selectivity": nothing, "dprime": nothing,
                "eta2": r**2, "pearsonr": r}  # fmt: skip
    k = len(target.classes)
    means, _, _ = class_means(rows, target.labels, k)
    best = means.argmax(0)
    varies = rows.std(0) > 0
    names = np.where(varies, np.array(target.classes, dtype=object)[best], "")
    return {
        "target": target.name, "preferred": names, "class_selectivity": class_selectivity(means),
        "dprime": discriminability(rows, target.labels, best),
        "eta2": variance_between(rows, target.labels, k), "pearsonr": nothing,
    }  # fmt: skip
