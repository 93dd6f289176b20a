"""Maps of decoding: what the responses of a region do when a decoder decides for a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bidsdnn.bids import names
from bidsdnn.decoding.table import Source, Work
from bidsdnn.decoding.targets import Target
from bidsdnn.methods.pattern_maps import patterns
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.result import Map


def pattern_of(work: Work, source: Source) -> tuple[np.ndarray, np.ndarray] | None:
    """Fit a region's decoder to all items, and turn it into a pattern.

    Parameters
    ----------
    work : Work
    source : Source
        A region.

    Returns
    -------
    columns : ndarray of int
        Usable ones.
    pattern : ndarray, shape (C, k)
        In the units of the responses; of two classes, one row, of the second; None without columns, or with an
        estimator that gives nothing but a class.
    """
    columns = source.columns if source.columns is not None else np.empty(0, dtype=int)
    columns = columns[np.isfinite(work.values[:, columns]).all(axis=0)]
    every = np.arange(len(work.labels))
    if not len(columns):
        return None
    fold = work.features.prepare(work.values[:, columns], every, every, rotate=work.decoder.takes == "rotation")
    found = work.decoder.decide(fold.rows, work.labels[None], fold.new, work.n_classes)[0]
    decisions = found[:, None] if found.ndim == 1 else found
    if not np.isfinite(decisions).all():
        return None
    if decisions.shape[1] == 2:
        decisions = decisions[:, 1:] - decisions[:, :1]
    return columns, patterns(work.values[:, columns], decisions)


def pattern_map(work: Work, target: Target, sources: Sequence[Source], decoder: str, *, map: ParallelMap) -> list[Map]:
    """Patterns of all regions of an atlas as one map, a volume a class.

    Parameters
    ----------
    work : Work
    target : Target
    sources : sequence of Source
        Regions; where they overlap the first one counts.
    decoder : str
        Its name.
    map : callable

    Returns
    -------
    list of Map
        Empty where nothing was fitted.
    """
    fitted = map(_Fitted(work), sources, label=f"patterns of {target.name}")
    known = [one for one in fitted if one is not None]
    if not known:
        return []
    shown = list(target.classes) if len(target.classes) > 2 else [*target.classes[1:], target.name][:1]
    values = np.full((len(shown), work.values.shape[1]), np.nan)
    for columns, pattern in reversed(known):
        values[:, columns] = pattern
    about = {
        "Description": f"What responses do when {decoder} decides for each class of {target.name} "
        "(Haufe et al., 2014), fitted to all items, each region by itself: for looking, not a test",
        "Layers": shown,
        "VolumeAxis": "class",
        "Target": target.name,
        "Decoder": decoder,
        "NumberOfItems": len(target.labels),
        "Units": "of the responses, per unit of the decision",
        "NullDistribution": "none: maps are not tested",
    }
    return [Map("pattern", values, sidecar=about, desc=f"decoding+{names.label(target.name)}")]


class _Fitted:
    """`pattern_of` of one kind of work, as workers take it."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, source: Source) -> tuple[np.ndarray, np.ndarray] | None:
        return pattern_of(self.work, source)
