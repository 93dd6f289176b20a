"""The analysis: every target told from every region and every layer, with cross-validation and a test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.filters import event_filter
from bidsdnn.decoding.checks import check_parameters
from bidsdnn.decoding.folds import folds_of, scheme_for
from bidsdnn.decoding.maps import pattern_map
from bidsdnn.decoding.models import DEFAULTS, build_decoder, described, has_numbers
from bidsdnn.decoding.searchlight import searchlights
from bidsdnn.decoding.table import Source, Work, score_rows, with_places
from bidsdnn.decoding.targets import Target, understood
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.folding import CrossValidation, Folding
from bidsdnn.geometry import Regions, whole_brain
from bidsdnn.lookup import summary
from bidsdnn.methods.decode import Features
from bidsdnn.methods.searchlight_decoding import searchlight_decoding
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Patterns
from bidsdnn.result import Map, Result

logger = logging.getLogger(__name__)

RADIUS = 10.0
UNEVEN = 0.2
"""Difference of training parts in the number of a class, as a share of it, from which it is pointed out."""


@dataclass
class _Found:
    """Rows of all targets, and what is to be said of them."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    folds: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folding: dict[str, str] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)
    decoders: list[str] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    near: list[dict[str, Any]] = field(default_factory=list)


def decoding(
    x: Patterns | None,
    y: Patterns,
    *,
    targets: Mapping[str, pd.DataFrame],
    regions: Regions | None = None,
    permutations: int = 1000,
    seed: int = 0,
    map: ParallelMap = serial,
    device: str = "cpu",
    trials: Patterns | None = None,
    decoder: str | None = None,
    decoder_parameters: Mapping[str, Mapping[str, Any]] | None = None,
    cv: str | None = None,
    parts: pd.DataFrame | None = None,
    categorical: Sequence[str] = (),
    items: str = "run",
    standardize: bool = True,
    select: float = 0,
    components: int = 0,
    train: str = "",
    test: str = "",
    patterns: bool = False,
    searchlight: bool = False,
    radius: float = RADIUS,
) -> Result:
    """Columns of labels were decoded from the responses of regions and from layers, with cross-validation.

    Parameters
    ----------
    x : Patterns or None
        One group a layer.
    y : Patterns
        Responses to the same stimuli.
    targets : mapping of str to DataFrame
        By name: ``stimulus_id`` and ``value`` as text.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,), optional
        Regions by atlas. By default all voxels are one.
    permutations, seed : int
    map : callable
        Spreads regions and layers over workers.
    device : str
    trials : Patterns, optional
        Single trials, with ``run``, ``session`` and the columns of the events.
    decoder : str, optional
        Row of `DECODERS`, ``package.module:object``; by default one for the kind of target.
    decoder_parameters : mapping of str to mapping, optional
        By decoder.
    cv : str, optional
        What is held out, as `CrossValidation.parse` reads it; by default 10 folds of stimuli, or, where each class is
        one stimulus, runs.
    parts : DataFrame, optional
        Which stimuli are train and which test, for ``column:NAME``.
    categorical : sequence of str
        Targets whose numbers are names of classes.
    items : str
        Where trials bear the labels, ``run`` for their means within a run, or ``trial``.
    standardize : bool
        Whether a region's voxels are z-scored by the training part.
    select, components
        Of `Features`: how many features, and how many principal components, are kept within folds.
    train, test : str
        Filters of the items that are trained on and tested, as ``ses == '01'``: cross-decoding.
    patterns : bool
        Whether decoders are also fitted to all items, and shown as patterns (the regions of the first atlas).
    searchlight : bool
        Whether classes are also told from the neighbourhood of every voxel or vertex.
    radius : float
        Of a neighbourhood, in millimetres.

    Returns
    -------
    Result
        Tables of scores, folds and confusion matrices.

    Raises
    ------
    DataError, ConfigError
        If a target has no two classes or numbers, a class has fewer members than folds, or a parameter is not known.
    """
    regions = whole_brain(y) if regions is None else regions
    check_parameters(items=items, select=select, components=components, train=train, test=test)
    for name in categorical:
        if name not in targets:
            raise ConfigError(f"parameters.decoding.categorical: {name!r} is no --target; add it there")
    found, features = _Found(), Features(standardize, select, components)
    kept = [column for text in (train, test) if text for column in event_filter(text).columns]
    over_runs = cv is not None and CrossValidation.parse(cv).kind in ("run", "session")
    for name, column in targets.items():
        kind = has_numbers(decoder, name in categorical)
        target = understood(
            name, column, y, trials, numeric=kind, by_run=over_runs or bool(kept), items=items, kept=kept
        )
        folded = folds_of(
            target, cv=scheme_for(cv, target.bearer, name), parts=parts, permutations=permutations, seed=seed,
            train=train, test=test,
        )  # fmt: skip
        chosen = decoder or DEFAULTS[target.kind]
        model = build_decoder(
            chosen, (decoder_parameters or {}).get(chosen, {}), target.kind, seed=seed_for(seed, "decoding"),
            device=device,
        )  # fmt: skip
        if model.kind != target.kind:
            raise DataError(
                f"--decoder {chosen}: decodes {model.kind}, and --target {name} has {target.kind}; use "
                f"--decoder {DEFAULTS[target.kind]}"
            )
        work = Work(model, target.table.values, target.labels, folded, features, len(target.classes))
        families = _families(target, x, regions, found.notes)
        found.maps += pattern_map(work, target, families[0], chosen, map=map) if patterns and regions else []
        if searchlight:
            drawn, near = searchlights(target, folded, regions, radius=radius, device=device, map=map)
            found.maps, found.near = [*found.maps, *drawn], [*found.near, *near]
        for sources in families:
            rows = score_rows(target, chosen, sources, map(work, sources, label=f"decoding {name}"), folded)
            for all_rows, new in zip((found.scores, found.folds, found.confusion), rows, strict=True):
                all_rows += new
        _note(found, target, folded, chosen)
    return _result(found, permutations, features, train, test)


def _families(target: Target, x: Patterns | None, regions: Regions, notes: list[str]) -> list[list[Source]]:
    """Regions of each atlas, and all layers: what a family-wise p is over."""
    families = [
        [Source({"atlas": atlas, "region": name}, np.flatnonzero(columns)) for name, columns in table.items()]
        for atlas, table in regions.items()
    ]
    if x is None:
        return families
    if target.bearer != "stimulus" or "run" in target.table.items:
        notes.append(
            f"{target.name} was not decoded from layers: a layer has one pattern a stimulus, and here stimuli recur in "
            "what is held out."
        )
        return families
    layers = x.match(target.table)
    return [*families, [Source({"network": one.network, "layer": one.name}, group=one) for one in layers.groups]]


def _note(found: _Found, target: Target, folded: Folding, chosen: str) -> None:
    """What is to be said of one target."""
    if target.left_out:
        said = f"{target.left_out} of {target.left_out + len(target.labels)} items have no {target.name}: left out."
        found.notes.append(said)
        logger.warning("decoding: %s", said)
    if target.classes and _uneven(target, folded):
        said = (
            f"{target.name}: folds do not divide the classes evenly, so that what is held out is rarer in training and "
            "accuracies without information lie below chance. p knows that, since relabellings do too; a --cv that "
            "divides the classes avoids it."
        )
        found.notes.append(said)
        logger.warning("decoding: %s", said)
    what = {"stimulus": "stimuli", "identity": "means within runs or trials", "trial": "means within runs or trials"}
    found.folding[target.name] = (
        f"{len(target.labels)} items ({what[target.bearer]}), {folded.said}{folded.gap}; {folded.test}"
    )
    found.tests.append(folded.test)
    found.decoders.append(chosen)


def _uneven(target: Target, folded: Folding) -> bool:
    """Whether training parts differ in how many they hold of a class, by a fifth or more."""
    counts = [np.bincount(target.labels[train], minlength=len(target.classes)) for train, _ in folded.splits]
    most, least = np.max(counts, axis=0), np.min(counts, axis=0)
    return len(counts) > 1 and bool((most - least >= UNEVEN * most).any())


def _result(found: _Found, permutations: int, features: Features, train: str, test: str) -> Result:
    tables = {"decoding": found.scores, "decodingfolds": found.folds, "confusion": found.confusion}
    tables["searchlightdecoding"] = found.near
    decoders, tests = list(dict.fromkeys(found.decoders)), " or ".join(dict.fromkeys(found.tests))
    crossed = [f"trained on items with {train}" if train else "", f"tested on those with {test}" if test else ""]
    said = " and ".join(part for part in crossed if part)
    works = {
        "lda-ridge": "lda" in decoders,
        "ridge": "ridge" in decoders,
        "haufe": any(one.stat == "pattern" for one in found.maps),
    }
    works["searchlight"] = bool(found.near)
    sentences = [
        summary(decoding),
        *(described(name) for name in decoders),
        "Voxels were z-scored by the training part." if features.standardize else "",
        summary_of(features) if features.select or features.components else "",
        f"Decoders were {said}." if said else "",
        summary(searchlight_decoding) if found.near else "",
        f"Balanced accuracy, or r pooled over folds, was tested against {permutations:,} {tests}, each repeating the "
        "whole fit, with p = (1 + b) / (1 + n); family-wise p counted the best score of each relabelling over the "
        "regions of an atlas, or over all layers.",
    ]
    return Result(
        "decoding",
        maps=tuple(found.maps),
        tables={name: with_places(rows) for name, rows in tables.items() if rows},
        sidecar={
            "Methods": " ".join(filter(None, sentences)),
            "CrossValidation": found.folding,
            "Test": f"{tests}, one-sided",
            "Permutations": permutations,
            "Correction": "p_fwe: over the regions of an atlas or over all layers, by the best score of each "
            "relabelling; q: false discovery rate over the same",
            "Decoders": decoders,
            "CrossDecoding": said,
            **({"Notes": found.notes} if found.notes else {}),
            "References": ["permutation", "scikit-learn", "fdr", *(key for key, used in works.items() if used)],
        },
    )


def summary_of(features: Features) -> str:
    """What was kept within folds, in a sentence."""
    kept = [f"{features.select:g} features with the highest F" if features.select >= 1 else ""]
    kept += [f"the {features.select:.0%} of features with the highest F" if 0 < features.select < 1 else ""]
    kept += [f"{features.components} principal components" if features.components else ""]
    return f"Of the training part of each fold were kept: {', then '.join(part for part in kept if part)}."
