"""What can be asked of two tables that share their stimuli: predict one from the other, or compare their geometry.

An analysis is a function of a network's table, a brain's table and its own keyword parameters. A row in `ANALYSES`
gives it a name; ``file.py:function`` stands wherever a name does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from bidsdnn.decoding import decoding
from bidsdnn.encoding import encoding
from bidsdnn.encoding.partition import variance_partition
from bidsdnn.encoding.tables import mean
from bidsdnn.geometry import Regions, rsa, similarity, whole_brain
from bidsdnn.lookup import summary
from bidsdnn.methods.ceiling import split_half
from bidsdnn.patterns import Patterns
from bidsdnn.probes.braintraining import brain_training
from bidsdnn.result import Result
from bidsdnn.searchlights import searchlight


def reliability(y: Patterns, reliable: np.ndarray, *, regions: Regions | None = None) -> Result:
    """Reliability of a region is the mean over its voxels of the split-half reliability of their responses.

    Parameters
    ----------
    y : Patterns
        Responses, with ``n_repeats``.
    reliable : ndarray, shape (n_voxels,)
        Of each voxel.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.

    Returns
    -------
    Result
        A table of regions.
    """
    regions = whole_brain(y) if regions is None else regions
    repeats = y.items["n_repeats"]
    rows = [
        {
            "atlas": atlas,
            "network": "",
            "region": name,
            "n_voxels": int((columns & np.isfinite(reliable)).sum()),
            "n_stimuli": int((repeats > 1).sum()),
            "n_repeats": float(repeats.mean()),
            "reliability": mean(reliable[columns]),
        }
        for atlas, table in regions.items()
        for name, columns in table.items()
    ]
    return Result("reliability", tables={"reliability": pd.DataFrame(rows)}, sidecar={"Methods": summary(split_half)})


ANALYSES: dict[str, Callable[..., Result]] = {
    "encoding": encoding, "decoding": decoding, "rsa": rsa, "searchlight": searchlight, "similarity": similarity,
    "variance-partition": variance_partition, "brain-training": brain_training,
}  # fmt: skip
NEEDS_NETWORK = {"brain-training", "encoding", "searchlight", "variance-partition"}
"""Analyses that are left out, and named in the report, when no network is asked for."""
