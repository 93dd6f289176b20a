"""Model RDMs: of a network's layers, of behaviour and categories, and of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry.named import is_own
from bidsdnn.lookup import closest
from bidsdnn.methods.rdm import DISSIMILARITIES, USES_FOLDS, USES_PRECISION
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import COLUMN
from bidsdnn.stimuli import Stimuli, pixels

PIXELS = "pixels"
# Those others need the noise's covariance or repeats, which layers do not have.
METRICS = {name: f for name, f in DISSIMILARITIES.items() if name not in USES_FOLDS | USES_PRECISION}

Columns = Mapping[str, pd.DataFrame]
"""By name: a table with ``stimulus_id`` and ``value`` as text, None where there is none."""


@dataclass(frozen=True, eq=False)
class Model:
    """What is compared with brains.

    Parameters
    ----------
    network, layer : str
        How results name it.
    rdm : ndarray, shape (n * (n - 1) / 2,)
    """

    network: str
    layer: str
    rdm: np.ndarray


def metric_of_layers(asked: str, brains: str) -> str:
    """The layers' metric: the one asked for, else the brain's, else correlation where layers have no repeats.

    Parameters
    ----------
    asked : str
        Empty if none was.
    brains : str
        Row of `DISSIMILARITIES`.

    Returns
    -------
    str
    """
    if asked and asked not in METRICS and not is_own(asked):
        raise ConfigError(f"parameters.rsa.layer_metric = {asked!r} is none of a layer; {closest(asked, METRICS)}")
    return asked or (brains if brains in METRICS or is_own(brains) else "correlation")


def layer_models(x: Patterns | None, *, metric: str, map: ParallelMap) -> list[Model]:
    """RDM of each layer.

    Parameters
    ----------
    x : Patterns or None
        One group a layer.
    metric : str
        Row of `METRICS`, or ``file.py:function``.
    map : callable
        Spreads layers over workers.

    Returns
    -------
    list of Model
    """
    groups = x.groups if x is not None else ()
    rdms = map(partial(Group.rdm, metric=metric), groups, label="RSA") if groups else []
    return [Model(group.network, group.name, rdm) for group, rdm in zip(groups, rdms, strict=True)]


def column_models(columns: Columns, ids: Sequence[str], *, categorical: Sequence[str] = ()) -> list[Model]:
    """Two stimuli differ by their values' difference, if a column holds numbers, else by being of another kind.

    Parameters
    ----------
    columns : mapping of str to DataFrame
        Rows of one stimulus are averaged; categories must agree.
    ids : sequence of str
        Stimuli of the RDMs.
    categorical : sequence of str
        Columns whose numbers are names.

    Returns
    -------
    list of Model
        Of the network `COLUMN`.

    Raises
    ------
    DataError
        If a stimulus has no value, or two categories, or all have the same.
    ConfigError
        If a categorical column was not asked for.
    """
    for name in categorical:
        if name not in columns:
            raise ConfigError(f"parameters.rsa.categorical: {name!r} is no --rdm-column; {closest(name, columns)}")
    return [Model(COLUMN, name, _column_rdm(name, t, ids, name in categorical)) for name, t in columns.items()]


def _column_rdm(name: str, table: pd.DataFrame, ids: Sequence[str], categorical: bool) -> np.ndarray:
    rows = table[table["value"].notna() & table["stimulus_id"].isin(ids)]
    missing = [one for one in ids if one not in set(rows["stimulus_id"])]
    if missing:
        raise DataError(
            f"--rdm-column {name}: {len(missing)} of {len(ids)} stimuli have no value ({', '.join(missing[:5])}); "
            "add them, or leave their events out with --event-filter"
        )
    numbers = pd.to_numeric(rows["value"], errors="coerce")
    first, second = np.triu_indices(len(ids), 1)
    if not categorical and np.isfinite(numbers).all():
        means = numbers.groupby(rows["stimulus_id"].to_numpy()).mean().reindex(list(ids)).to_numpy(dtype=float)
        rdm = np.abs(means[first] - means[second])
    else:
        kinds = rows.groupby("stimulus_id")["value"].unique()
        for stimulus, found in kinds.items():
            if len(found) > 1:
                raise DataError(
                    f"--rdm-column {name}: stimulus {stimulus} is both {found[0]!r} and {found[1]!r}; "
                    "a category is one of the stimulus"
                )
        _, code = np.unique([str(kinds[one][0]) for one in ids], return_inverse=True)
        rdm = (code[first] != code[second]).astype(float)
    if np.ptp(rdm) == 0:
        raise DataError(f"--rdm-column {name}: its {len(ids)} stimuli do not differ in it; there is nothing to compare")
    return np.asarray(rdm)


def find_controls(
    names: Sequence[str], models: Sequence[Model], stimuli: Stimuli | None, ids: Sequence[str]
) -> list[Model]:
    """RDMs of what is not to count.

    Parameters
    ----------
    names : sequence of str
        ``pixels``, a column, a layer, or ``network:layer``.
    models : sequence of Model
        Columns and layers.
    stimuli : Stimuli or None
        Where the pictures are.
    ids : sequence of str
        Stimuli of the RDMs.

    Returns
    -------
    list of Model

    Raises
    ------
    ConfigError
        If a name is not known, or means layers of two networks.
    DataError
        If pixels are asked for and there are no pictures.
    """
    found = []
    for name in names:
        if name == PIXELS:
            if stimuli is None:
                raise DataError("parameters.rsa.control: no pictures for pixels; give their folder with --stimuli-dir")
            found.append(Model(PIXELS, PIXELS, DISSIMILARITIES["correlation"](pixels(stimuli.select(ids)))))
            continue
        network, colon, layer = name.rpartition(":")
        meant = [m for m in models if m.layer == (layer if colon else name) and network in ("", m.network)]
        if len(meant) != 1:
            known = [PIXELS, *(model.layer for model in models)]
            fault = (
                f"means {len(meant)} layers; write network:layer" if meant else f"is unknown; {closest(name, known)}"
            )
            raise ConfigError(f"parameters.rsa.control: {name!r} {fault}")
        found.append(meant[0])
    return found
