"""Encoding across people: each participant predicted from the others, at stimuli that nothing was fitted to.

The one idea: a model is fitted to the mean of the other people's responses to the training stimuli, and judged by what
the person left out does at stimuli that none of it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.encoding.models import (
    build_encoder,
    features_of,
    fitted_together,
    inner_folds_of,
    references_of,
    said_of,
)
from bidsdnn.encoding.significance import MOST_TESTED, largest_of_means
from bidsdnn.encoding.tables import mean
from bidsdnn.errors import DataError
from bidsdnn.folding import Folding, folding
from bidsdnn.groupmodels.people import Shared
from bidsdnn.lookup import summary
from bidsdnn.methods.across_people import crossed_null, crossed_pearsonr
from bidsdnn.methods.ceiling import normalized
from bidsdnn.methods.inference import fdr, pvalue
from bidsdnn.methods.null import held_out_scaled
from bidsdnn.methods.relabelled import TIES
from bidsdnn.methods.scores import Split, pearsonr
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.parallel import seed_for, serial
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Map, Result
from bidsdnn.study import Study

Named = Sequence[tuple[str, str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class PersonFit:
    """How one layer predicts one person from the others; sent to a worker with the layer.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    others : ndarray, shape (n, V)
        Mean of the others' responses.
    own : ndarray, shape (n, V)
        The person's.
    splits : sequence of (train, test)
    """

    model: Any
    others: np.ndarray
    own: np.ndarray
    splits: Sequence[Split]

    def __call__(self, group: Group) -> np.ndarray:
        """R of each column, shape (V,)."""
        features = features_of(self.model, group)
        predicted, scale = held_out_scaled(self.model, features, self.others, self.splits)
        return crossed_pearsonr(predicted, self.others, self.own, self.splits, scale=scale)


@dataclass(frozen=True, eq=False)
class NullFit:
    """How one layer's scores are tested; sent to a worker with the layer."""

    model: Any
    tables: np.ndarray
    splits: Sequence[Split]
    orders: np.ndarray
    regions: np.ndarray
    columns: np.ndarray

    def __call__(self, group: Group) -> np.ndarray:
        """Mean r of each region, observed and relabelled, shape (1 + permutations, R)."""
        features = features_of(self.model, group)
        return crossed_null(
            self.model, features, self.tables, self.splits, self.orders, self.regions, columns=self.columns
        )


@dataclass(frozen=True, eq=False)
class Scores:
    """What cross-participant encoding found.

    Parameters
    ----------
    r : ndarray, shape (P, L, V)
    agree : ndarray, shape (P, V)
        R of each person's responses with the mean of the others'.
    ceiling : ndarray, shape (P, V)
        Highest r to be expected of each person.
    nulls : ndarray, shape (1 + permutations, L, R)
    """

    r: np.ndarray
    agree: np.ndarray
    ceiling: np.ndarray
    nulls: np.ndarray


def crossed_encoding(
    study: Study, shared: Shared, x: Patterns, folded: Folding, model: Any, *, seed: int
) -> Scores:  # fmt: skip
    """Each participant's responses were predicted by a model fitted to the mean of the others', stimuli held out.

    The model is fitted to the other participants' mean responses to the training stimuli, and its predictions for the
    held-out stimuli are correlated with what the participant left out did, each side free of its own training part's
    mean. Nothing that is fitted has seen that participant, or those stimuli. p compares the mean over participants of a
    region's mean r with that under permuted stimulus labels, permuted alike in all participants, each repeating the
    fit with what a model chooses fixed beforehand: as every participant is predicted from the others, their scores
    depend on each other, and flipping their signs would find too much.

    Parameters
    ----------
    study : Study
    shared : Shared
    x : Patterns
    folded : Folding
    model : object with ``fit`` and ``predict``
    seed : int

    Returns
    -------
    Scores
    """
    spread = study.map if str(torch_device(study.config.device)) == "cpu" else serial
    named = [one for table in shared.regions.values() for one in table.values()]
    inside = np.array(named, dtype=bool)
    drawn = _drawn(inside, len(shared.people), seed)
    tested = np.flatnonzero(drawn.any(axis=0))
    total: Any = 0.0
    for person in shared.people:
        total = total + shared.table(person)[0].astype(np.float64)
    r, agree, ceiling, few = [], [], [], []
    rows = folded.tested
    for person in shared.people:
        own, reliable = shared.table(person)
        others = ((total - own) / (len(shared.people) - 1)).astype(np.float32)
        fit = PersonFit(model, others, own, folded.splits)
        r.append(np.array(spread(fit, x.groups, label=f"sub-{person.label} from the others")))
        agree.append(pearsonr(others[rows], own[rows]))
        ceiling.append(np.sqrt(np.clip(reliable, 0, None)))
        few.append(own[:, tested])
    test = NullFit(model, np.array(few), folded.splits, folded.orders, drawn[:, tested], tested)
    nulls = np.stack(spread(test, x.groups, label="relabelled"), axis=1)
    return Scores(np.array(r), np.array(agree), np.array(ceiling), nulls)


def _drawn(inside: np.ndarray, people: int, seed: int) -> np.ndarray:
    """Columns that each region is tested by: at most as many of all people as one person's region is tested by."""
    most, drawn = max(1, MOST_TESTED // people), inside.copy()
    for one in drawn:
        there = np.flatnonzero(one)
        if len(there) > most:
            one[np.random.default_rng(seed_for(seed, "tested voxels")).permutation(there)[most:]] = False
    return drawn


def region_table(groups: Sequence[Group], found: Scores, named: Named) -> pd.DataFrame:
    """A row a layer and region: means over participants, their spread, and the test.

    Parameters
    ----------
    groups : sequence of Group
        The layers.
    found : Scores
    named : sequence of (str, str, ndarray)
        Atlas, name and columns of each region.

    Returns
    -------
    DataFrame
    """
    observed, null = found.nulls[0], found.nulls[1:]
    p, p_fwe, q = (
        pvalue(observed, null, tolerance=TIES),
        np.full(observed.shape, np.nan),
        np.full(observed.shape, np.nan),
    )
    atlases = np.array([atlas for atlas, _, _ in named])
    for atlas in dict.fromkeys(atlases):
        own = atlases == atlas
        p_fwe[:, own], q[:, own] = largest_of_means(found.nulls[:, :, own]), fdr(p[:, own])
    rows = []
    for layer, group in enumerate(groups):
        for place, (atlas, name, columns) in enumerate(named):
            each, usable = _each(found.r[:, layer], columns)
            n = len(each)
            highest = mean(found.ceiling[:, usable])
            rows.append({
                "atlas": atlas, "network": group.network, "layer": group.name, "region": name,
                "n_voxels": int(usable.sum()), "pearsonr": mean(each), "n_participants": n,
                "sem": float(each.std(ddof=1) / np.sqrt(n)), "p": p[layer, place], "p_fwe": p_fwe[layer, place],
                "q": q[layer, place], "intersubject": mean(found.agree[:, usable]), "ceiling": highest,
                "pearsonr_normalized": normalized(mean(each), highest),
            })  # fmt: skip
    return pd.DataFrame(rows)


def people_table(groups: Sequence[Group], labels: Sequence[str], found: Scores, named: Named) -> pd.DataFrame:
    """A row a layer, region and participant left out."""
    return pd.DataFrame([
        {
            "atlas": atlas, "network": group.network, "layer": group.name, "region": name, "participant": label,
            "pearsonr": score,
        }
        for layer, group in enumerate(groups)
        for atlas, name, columns in named
        for label, score in zip(labels, _each(found.r[:, layer], columns)[0], strict=True)
    ])  # fmt: skip


def _each(r: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each person's mean r over the columns of a region that all have a score for, and which these are."""
    usable = columns & np.isfinite(r).all(axis=0)
    return (r[:, usable].mean(axis=1) if usable.any() else np.full(len(r), np.nan)), usable


def encoding_result(
    study: Study, shared: Shared, x: Patterns | None, more: Mapping[str, Any], seed: int
) -> Result:  # fmt: skip
    """Each participant was predicted from the others, by layer and region.

    Parameters
    ----------
    study : Study
    shared : Shared
    x : Patterns or None
        Activations to the shared stimuli.
    more : mapping
        With ``parts``, for ``--cv column:NAME``.
    seed : int

    Returns
    -------
    Result

    Raises
    ------
    DataError
        If the encoder is one model of all layers.
    """
    assert x is not None
    config = study.config
    own = config.parameters.get("encoding", {})
    inner, cv = own.get("inner_splits", 5), config.cv or "kfold:10"
    folded = folding(
        pd.DataFrame({"stimulus_id": shared.ids}), cv=cv, parts=more["parts"], permutations=config.permutations,
        seed=seed, fewest=inner,
    )  # fmt: skip
    name = config.region_encoder or config.encoder
    n_columns = len(next(iter(next(iter(shared.regions.values())).values())))
    model: Any = build_encoder(
        name, config.parameters.get(name, {}), n_splits=inner, seed=seed_for(seed, "encoding"),
        device=str(torch_device(config.device)), shuffle=True, together=fitted_together(shared.regions, n_columns),
    )  # fmt: skip
    if getattr(model, "joint", False):
        raise DataError(f"--encoder {name} is one model of all layers; use --encoder ridge")
    found = crossed_encoding(study, shared, x, folded, model, seed=seed)
    named = [(atlas, one, columns) for atlas, table in shared.regions.items() for one, columns in table.items()]
    nested = (
        f", {inner} folds within each training part for the {inner_folds_of(model)}" if inner_folds_of(model) else ""
    )
    return Result(
        "encoding",
        maps=_maps(x.groups, found),
        tables={
            "encoding": region_table(x.groups, found, named),
            "encodingpeople": people_table(x.groups, shared.labels, found, named),
        },
        sidecar={
            "Methods": f"{summary(crossed_encoding)} {said_of(model, name)} Cross-validation used "
            f"{folded.said}{nested}, the participant left out.",
            "CrossValidation": f"{folded.said}{nested}; one participant left out at a time",
            "Encoder": name,
            "Measure": "Pearson r of predicted and measured deviations from each one's training part's mean, pooled "
            "over held-out stimuli, by participant; sem is over participants; intersubject is the r of a participant's "
            "responses with the mean of the others'",
            "Test": f"{folded.test}, alike in all participants, one-sided",
            "Correction": "p_fwe: largest value of each permutation over all layers and regions of an atlas; q: false "
            "discovery rate over the same",
            "Permutations": config.permutations,
            "References": ["encoding", *references_of(model, name), "permutation", "fdr", "scikit-learn"],
        },
    )


def _maps(groups: Sequence[Group], found: Scores) -> tuple[Map, ...]:
    """Mean over participants of r, a volume a layer, and its standard error."""
    maps = []
    for network in dict.fromkeys(group.network for group in groups):
        own = [place for place, group in enumerate(groups) if group.network == network]
        keys = {"Layers": [groups[place].name for place in own], "VolumeAxis": "layer"}
        r = found.r[:, own]
        for stat, values, said in (
            ("mean", r.mean(axis=0), "Mean over participants of the r of each voxel, predicted from the others"),
            ("sem", r.std(axis=0, ddof=1) / np.sqrt(len(r)), "Standard error over participants of that r"),
        ):
            maps.append(Map(stat, values, network, {**keys, "Description": f"{said}, a volume a layer"}))
    return tuple(maps)
