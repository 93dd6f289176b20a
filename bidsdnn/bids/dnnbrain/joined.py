"""Rows of DNNBrain's activations and regions, with the names of their stimuli from the ``.stim.csv`` beside them.

The files themselves name no stimuli; DNNBrain's users keep them in the order of a ``.stim.csv``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.bids.dnnbrain.arrays import StoredLayer, read_layers
from bidsdnn.bids.dnnbrain.stimulus_files import StimFile, read_stim
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.methods.reduce import blocks
from bidsdnn.patterns import BLOCK, Group, Patterns

STIM, ACT, ROI, RDM = ".stim.csv", ".act.h5", ".roi.h5", ".rdm.h5"


def stim_beside(path: Path) -> Path:
    """The table of stimuli that belongs to a file: the one of its name, else the only one in its folder.

    Parameters
    ----------
    path : Path
        ``NAME.act.h5`` or ``NAME.roi.h5``.

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        If there is none, or several of other names.
    """
    own = path.with_name(path.name.removesuffix(ACT).removesuffix(ROI) + STIM)
    there = sorted(one for one in path.parent.glob(f"*{STIM}") if not one.name.startswith("."))
    if own in there or len(there) == 1:
        return own if own in there else there[0]
    raise MissingInputError(
        f"{path}: nothing names its rows, and {'no' if not there else 'more than one'} {STIM} lies beside it; "
        f"put {own.name} there, with a row for each of its rows"
    )


def read_act(path: Path, stim: StimFile | None = None, *, network: str = "") -> Patterns:
    """Find activations and the stimuli they are to, without reading the activations of stimuli that stand once.

    Parameters
    ----------
    path : Path
        An ``.act.h5`` file.
    stim : StimFile, optional
        The stimuli of its rows; by default of the file beside it.
    network : str
        Label of the network or feature space.

    Returns
    -------
    Patterns
        One item a stimulus, in the order in which they first stand; one group a layer, whose values stay on disk.

    Raises
    ------
    MissingInputError
        If a file is not there.
    DataError
        If stimuli and activations differ in number, or a stimulus that stands twice has different activations.
    """
    layers = read_layers(path)
    ids = np.array((stim or read_stim(stim_beside(path))).ids, dtype=object)
    n = next(iter(layers.values())).shape[0]
    if n != len(ids):
        raise DataError(f"{path}: {n} rows for {len(ids)} stimuli of its {STIM}; give one row a stimulus")
    _, first, code = np.unique(ids.astype(str), return_index=True, return_inverse=True)
    if len(first) < n:
        for layer in layers.values():
            _check_repeats(layer, first[code], ids)
    groups = tuple(Group(name, layer, network, layer.unit_shape) for name, layer in layers.items())
    whole = Patterns(pd.DataFrame({"stimulus_id": ids}), groups)
    return whole if len(first) == n else whole.take(np.sort(first))


def _check_repeats(layer: StoredLayer, same_as: np.ndarray, ids: np.ndarray) -> None:
    """A network answers one picture in one way; rows that differ are no activations to it, or stand elsewhere."""
    for columns in blocks(layer.shape[1], BLOCK):
        values = layer[:, columns]
        differs = (values != values[same_as]).any(axis=1)
        if differs.any():
            row = int(differs.argmax())
            raise DataError(
                f"{layer.path}: {layer.dataset}: rows {same_as[row] + 1} and {row + 1} are both {ids[row]!r} and "
                f"differ; correct its {STIM}"
            )
