"""What can be read from each layer: labels decoded from it, and how its units are tuned, how many dimensions it has.

Layers are those whose activations are stored, so that what is decoded is what every other analysis reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.config_tables import CrossValidation
from bidsdnn.decoding import decoding
from bidsdnn.decoding.targets import Target, understood
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.lookup import summary
from bidsdnn.networks.network import Network
from bidsdnn.parallel import Map, serial
from bidsdnn.patterns import Patterns
from bidsdnn.probes.clusters import MOST, Clustered, LayerWork, check_clusters, clustered_layer
from bidsdnn.probes.tuned import tuning_rows
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli

ANSWERS = {"decoding": "probe", "decodingfolds": "probefolds", "confusion": "probeconfusion"}
"""Tables of decoding, by what they are called here."""


def probe(
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str],
    activations: Callable[[Sequence[str]], Patterns],
    targets: Mapping[str, pd.DataFrame] | None = None,
    decoder: str | None = None,
    decoder_parameters: Mapping[str, Mapping[str, Any]] | None = None,
    cv: str | None = None,
    parts: pd.DataFrame | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: Map = serial,
    device: str = "cpu",
    categorical: Sequence[str] = (),
    standardize: bool = True,
    select: float = 0,
    components: int = 0,
    clustering: str = "hierarchical",
    clusters: int = 8,
) -> Result:
    """Labels of the stimuli were decoded from each layer, and the tuning and the dimensions of its units measured.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    layers : sequence of str
    activations : callable
        Gives some layers' activations to the stimuli.
    targets : mapping of str to DataFrame, optional
        By name: ``stimulus_id`` and ``value`` as text. Without any, nothing is decoded.
    decoder, decoder_parameters, cv, parts, permutations, seed, map, device
        As of `bidsdnn.decoding.decoding`.
    categorical, standardize, select, components
        As of `bidsdnn.decoding.decoding`.
    clustering : {'hierarchical', 'kmeans'}
        How channels, and stimuli, are grouped: by average linkage of correlation distances, or by k-means.
    clusters : int
        How many groups; fewer where there are fewer channels or stimuli.

    Returns
    -------
    Result
        Tables: scores of each target and layer, of folds, confusions; layers; channels; stimuli. A picture a layer.

    Raises
    ------
    DataError, ConfigError
        As `decoding`; if each class is one stimulus; if a parameter is not known.
    """
    check_clusters(clustering, clusters)
    if cv is not None and CrossValidation.parse(cv).kind in ("run", "session"):
        raise ConfigError(f"--cv {cv}: a layer has one pattern a stimulus, and no runs; use kfold:N or leave-one-out")
    x = activations(layers)
    order = pd.Index(x.ids).get_indexer(stimuli.ids)
    x = x if len(x) == len(order) and (order == np.arange(len(order))).all() else x.take(order)
    found = _understood(x, targets or {}, categorical)
    work = LayerWork(clustering, clusters, seed)
    made: list[Clustered] = map(work, x.groups, label=f"{network.label} layers")
    tables: dict[str, pd.DataFrame] = {
        "probelayers": pd.DataFrame([one.layer for one in made]),
        "probeunits": pd.concat([tuning_rows(one, found, x.ids) for one in made], ignore_index=True),
        "probestimuli": pd.concat([one.stimuli(x.ids) for one in made], ignore_index=True),
    }
    said: dict[str, Any] = {}
    if found:
        told = decoding(
            x, _without_columns(x), targets=targets or {}, regions={}, permutations=permutations, seed=seed, map=map,
            device=device, decoder=decoder, decoder_parameters=decoder_parameters, cv=cv, parts=parts,
            categorical=categorical, standardize=standardize, select=select, components=components,
        )  # fmt: skip
        tables |= {ANSWERS[name]: _places(table) for name, table in told.tables.items()}
        said = dict(told.sidecar)
    methods = [summary(probe), summary(clustered_layer), _grouped(clustering, clusters), str(said.get("Methods", ""))]
    return Result(
        "probe",
        tables=tables,
        pictures=tuple(_picture(network, one) for one in made),
        numbers=_numbers(made, found, x.ids),
        sidecar={
            **said,
            "Methods": " ".join(part for part in methods if part),
            "References": [*said.get("References", ()), "scipy", "treves", "vinje", "morcos", "gao"],
            "Titles": TITLES,
            "Columns": COLUMNS,
        },
    )


TITLES = {
    "probe": "Targets told from each layer",
    "probefolds": "The same in each fold",
    "probeconfusion": "What was taken for what",
    "probelayers": "Dimensions and sparseness of each layer",
    "probeunits": "Tuning of each channel",
    "probestimuli": "Groups of stimuli in each layer",
}
COLUMNS = {
    "participation_ratio": "squared sum over sum of squares of the variances of principal components",
    "n_components_80": "principal components that explain 80 % of the variance",
    "lifetime_sparseness": "of Vinje and Gallant, of a unit over stimuli (mean over units that are not silent)",
    "population_sparseness": "the same of a stimulus over units (mean over stimuli)",
    "silent": "share of units that are 0 or less for every stimulus",
    "treves_rolls": "of the channel over stimuli; 1 where all stimuli give the same",
    "preferred": "class with the largest mean",
    "class_selectivity": "(largest - mean of the others) / (largest + mean of the others)",
    "dprime": "of the preferred class against all others",
    "eta2": "share of variance between classes",
    "cluster": "group, from 1 in the order of the picture",
    "order": "place in the picture, from 1",
}


def _without_columns(x: Patterns) -> Patterns:
    """The same items without a brain: one column that nobody looks at."""
    return Patterns.of(np.zeros((len(x), 1)), x.ids)


def _places(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["atlas", "network", "region"], errors="ignore")


def _understood(x: Patterns, targets: Mapping[str, pd.DataFrame], categorical: Sequence[str]) -> list[Target]:
    """Labels of each target, refused where a class is one stimulus, which nothing can generalise to."""
    found = []
    for name, column in targets.items():
        rows = column[column["value"].notna() & column["stimulus_id"].isin(x.ids)]
        each = rows.drop_duplicates(["stimulus_id", "value"])
        if each["stimulus_id"].duplicated().any():
            twice = each.loc[each["stimulus_id"].duplicated(), "stimulus_id"].iloc[0]
            raise DataError(f"--target {name}: stimulus {twice} has several values, and a layer gives it one pattern; "
                            "give each stimulus one value")  # fmt: skip
        numbers = pd.to_numeric(each["value"], errors="coerce")
        numeric = bool(np.isfinite(numbers).all()) and numbers.nunique() > 2 and name not in categorical
        if len(each) and not numeric and not each["value"].duplicated().any():
            raise DataError(f"--target {name}: each of its {len(each)} values is one stimulus', which no decoder knows "
                            "when it is held out; give classes with several stimuli")  # fmt: skip
        found.append(understood(name, column, _without_columns(x), None, numeric=numeric, by_run=False))
    return found


def _grouped(clustering: str, clusters: int) -> str:
    how = "average linkage of correlation distances (optimal order of leaves for up to 500)"
    how += f", or of more than {MOST:,} by k-means"
    how = how if clustering == "hierarchical" else "k-means of standardised profiles (10 starts)"
    return f"Channels, and stimuli, of each layer were put into at most {clusters} groups by {how}."


def _numbers(made: Sequence[Clustered], found: Sequence[Target], ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Profiles of channels, and their means by class."""
    numbers: dict[str, np.ndarray] = {"stim_id": np.array(ids, dtype=object)}
    for one in made:
        numbers[f"profiles/{one.name}"] = one.profiles.astype(np.float32)
        for target in found:
            if target.classes:
                rows = one.profiles[pd.Index(ids).get_indexer(target.table.ids)]
                means = [rows[target.labels == k].mean(0) for k in range(len(target.classes))]
                numbers[f"tuning/{target.name}/{one.name}"] = np.array(means, dtype=np.float32)
    for target in found:
        if target.classes:
            numbers[f"tuning/{target.name}/classes"] = np.array(target.classes, dtype=object)
    return numbers


def _picture(network: Network, one: Clustered) -> Picture:
    """Profiles of a layer's channels, both sides in the order of their groups."""
    n, p = one.profiles.shape
    return Picture(
        one.label,
        one.drawn(),
        f"Activations of {p} channels of {one.name} to {n} stimuli, similar ones beside each other; "
        f"{one.stimulus_clusters.max()} groups of stimuli, {one.channel_clusters.max()} of channels.",
        f"{network.label}, {one.name}: a row a channel ({p}), a column a stimulus ({n}), in the order of the tables; "
        "activation in standard deviations from the channel's mean, from -2.5 (dark) to 2.5 (bright).",
        one.name,
    )
