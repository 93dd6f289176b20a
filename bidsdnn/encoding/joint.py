"""All layers as one model: the joint prediction's scores, what each band adds to them, and p of the regions.

The one idea: a fold leaves a few sums for each voxel and band, from which scores and shares follow, so that predictions
of single bands are never held for a whole brain.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bidsdnn.config import Config
from bidsdnn.encoding.bands import Bands, bands_of, check_bands
from bidsdnn.encoding.layer import LayerFit, LayerScores
from bidsdnn.encoding.models import encoder_class
from bidsdnn.encoding.significance import Significance, significance
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import summary
from bidsdnn.methods.bands import combine
from bidsdnn.methods.ceiling import LOWEST_CEILING
from bidsdnn.methods.grouped import averaged_products
from bidsdnn.methods.models import BandedRidge
from bidsdnn.methods.null import FEWEST_SCALED, Given, products
from bidsdnn.methods.product_measure import Sums, pearsonr_shares, r2_shares
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import Split, varies
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.patterns import Group
from bidsdnn.result import JOINT, Map

KEY = "banded-ridge] bands"
_COLUMNS = 4096


def check_joint(config: Config) -> None:
    """Refuse bands that mean nothing, and what a model of all layers has not.

    Raises
    ------
    ConfigError
    """
    if not getattr(encoder_class(config.encoder), "joint", False):
        return
    check_bands(config.parameters.get(config.encoder, {}).get("bands", "layer"), key=KEY)
    for flag, asked in (
        ("--iterate", config.iterate is not None and "encoding" in config.analysis),
        ("--save-predictions", config.save_predictions),
        ("--save-weights", config.save_weights),
    ):
        if asked:
            raise ConfigError(f"{flag}: --encoder {config.encoder} is one model of all layers; use --encoder ridge")


@dataclass(frozen=True, eq=False)
class FoldFit:
    """How one fold of a joint model is fitted; sent to a worker.

    Parameters
    ----------
    model : BandedRidge
    grams : sequence of ndarray, shape (n, n)
        Of each layer.
    members : sequence of sequence of int
        Layers of each band.
    responses : ndarray, shape (n, V)
    groups : ndarray, shape (n,)
        Stimulus of each item; items of one are averaged in the training part, so that inner folds do not divide them.
    keep : bool
        Whether predictions are wanted as well.
    """

    model: BandedRidge
    grams: Sequence[np.ndarray]
    members: Sequence[Sequence[int]]
    responses: np.ndarray
    groups: np.ndarray
    keep: bool = False

    def __call__(self, split: Split) -> tuple[Sums, np.ndarray | None]:
        """Fit the training part; sums over the held-out part, and what is predicted of it."""
        train, test = split
        inner = combine(self.grams, self.members, train)
        inside, outside, share = averaged_products(inner, self.groups, train, test)
        learned = self.responses[train]
        learned = learned if share is None else share.astype(learned.dtype) @ learned
        fitted = copy.deepcopy(self.model).fit_grams(inside, learned)
        predicted = np.empty((len(test), self.responses.shape[1])) if self.keep else None
        found, within = [], fitted.split_grams(inside) if len(test) < FEWEST_SCALED else None
        for targets, parts in fitted.split_grams(outside):
            mean = fitted.intercept_[targets]
            # Both go through the same blocks of targets.
            spread = None if within is None else np.sqrt((next(within)[1].sum(axis=0) ** 2).mean(axis=0))
            found.append(Sums.of(parts, self.responses[test, targets] - mean, spread=spread))
            if predicted is not None:
                predicted[:, targets] = parts.sum(axis=0) + mean
        return Sums.joined(found), predicted


@dataclass(frozen=True, eq=False)
class Joint:
    """What a joint model found.

    Parameters
    ----------
    bands : Bands
    groups : list of Group
        The joint model and then its bands, as if each were a layer without values.
    scores : list of LayerScores
        Of the joint model, and each band's share of them, whose p is NaN.
    left_out : list of str
        Layers that are in no band.
    """

    bands: Bands
    groups: list[Group]
    scores: list[LayerScores]
    left_out: list[str]


def fit_joint(groups: Sequence[Group], fit: LayerFit, map: ParallelMap) -> Joint:
    """Cross-validate all layers as one model.

    Parameters
    ----------
    groups : sequence of Group
        The layers.
    fit : LayerFit
        With a `BandedRidge`.
    map : callable
        Spreads layers and folds over workers.

    Returns
    -------
    Joint
    """
    model: Any = fit.model
    bands = bands_of(groups, model.bands, key=KEY)
    grams = map(_gram, groups, label="inner products")
    members, single = list(bands.members.values()), len(fit.splits) == 1
    found = map(FoldFit(model, grams, members, fit.responses, fit.stimuli, keep=single), fit.splits, label="encoding")
    folds = [sums for sums, _ in found]
    rows = np.concatenate([test for _, test in fit.splits])
    spread = _spread(fit.responses, rows)
    r, r2 = pearsonr_shares(folds), r2_shares(folds, spread)
    large = [pearsonr_shares([fold]) for fold in folds if single or fold.n >= FEWEST_SCALED]
    within = np.stack(large, axis=1) if large else np.empty((len(r), 0, r.shape[1]))
    unscored = ~_varying(fit.responses, rows)
    for scores in (r, r2, within):
        scores[..., unscored] = np.nan
    if single:
        test = fit.splits[0][1]
        tested = fit.null(Given(found[0][1]), fit.responses[test], np.searchsorted(test, fit.orders[:, test]))
    else:
        operator = model.operator_grams(grams, fit.splits, members=members)
        tested = fit.null(products(operator, fit.splits), fit.responses, fit.orders)
    missed = sum(fold.measured - fold.part.sum(axis=0) for fold in folds) ** 2 / len(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = r2.sum(axis=0) + missed / spread
    nothing = np.full(len(tested.p_regions), np.nan)
    used = {i for chosen in members for i in chosen}
    return Joint(
        bands,
        [Group(name, np.zeros((len(fit.responses), 0)), bands.network) for name in (JOINT, *bands.members)],
        [
            LayerScores(r.sum(axis=0), r2.sum(axis=0), within.sum(axis=0), tested.p_regions, explained, tested),
            *(LayerScores(*share, p=nothing) for share in zip(r, r2, within, strict=True)),
        ],
        [f"{group.network}/{group.name}" for i, group in enumerate(groups) if i not in used],
    )


def joint_significance(joint: Joint, atlases: Sequence[str], n_voxels: int) -> Significance:
    """The tests of the joint model, and NaN for its bands, as `significance` gives those of layers."""
    found = significance(joint.scores[:1], atlases, n_voxels)
    rows = len(joint.scores) - 1
    tested = {one.name: getattr(found, one.name) for one in fields(found)}
    return Significance(**{
        name: np.vstack([values, np.full((rows, values.shape[1]), np.nan)]) for name, values in tested.items()
    })  # fmt: skip


def joint_maps(joint: Joint, found: Significance | None, ceiling: np.ndarray | None, *, test: str) -> list[Map]:
    """Maps of r and R2, the joint model's and then each band's share, its tests, and which band's share is largest."""
    network, names, scores = joint.bands.network, list(joint.bands.members), joint.scores
    null = "none: maps are not tested" if found is None else test
    about = {"Model": network, "VolumeAxis": "layer", "NullDistribution": null}
    r, r2 = np.array([one.pearsonr for one in scores]), np.array([one.r2 for one in scores])
    said = "of each voxel, then what each band adds to it: the bands' volumes sum to the first"
    stats = {"pearsonr": (r, f"Cross-validated r {said}"), "r2": (r2, f"Cross-validated R2 {said}")}
    if ceiling is not None:
        high = np.where(ceiling >= LOWEST_CEILING, ceiling, np.nan)
        stats["pearsonrnormalized"] = (r / high, f"r over its ceiling, where that is at least {LOWEST_CEILING}, {said}")
    if found is not None:
        stats |= {
            "p": (found.p[:1], "p of each voxel's r by itself, of the joint model"),
            "pfwe": (found.p_fwe[:1], "p corrected over all voxels, of the joint model"),
            "q": (found.q[:1], "False discovery rate over the voxels, of the joint model"),
        }
    known = np.isfinite(r[0])
    largest = np.where(known, np.where(known, r[1:], 0).argmax(axis=0) + 1.0, np.nan)
    last = {**about, "Layers": names, "Description": "The band with the largest share of r, from 1"}
    return [
        Map(stat, values, network, {**about, "Layers": [JOINT, *names][: len(values)], "Description": what})
        for stat, (values, what) in stats.items()
    ] + [Map("", largest, network, last, desc="largestshare")]


def about_joint(joint: Joint) -> dict[str, Any]:
    """What a reader of a joint model's rows needs to know."""
    return {
        "Bands": {name: list(layers) for name, layers in joint.bands.layers.items()},
        "LayersLeftOut": joint.left_out,
        "Shares": "the row `joint` is all bands as one model; rows of bands hold what each adds to its r and R2, and "
        "sum to them. A band's share may be negative and has no p.",
        "JointTest": "all bands alike and one penalty, both fixed beforehand",
    }


def said_of_joint(joint: Joint) -> str:
    """Sentences of the Methods on a joint model."""
    layers = joint.bands.layers
    how = "; ".join(f"{name}: {', '.join(those)}" for name, those in layers.items() if those[0] != name)
    listed = f" The bands were {how}." if how else ""
    return (
        f" All bands were fitted as one model.{listed} {summary(pearsonr_shares)} {summary(r2_shares)} "
        "For p, bands weighed alike."
    )


def _gram(group: Group) -> np.ndarray:
    return group.gram()[0]


def _varying(responses: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which voxels are finite, and vary over what is held out."""
    parts = [
        np.isfinite(responses[:, columns]).all(axis=0) & varies(responses[rows, columns])
        for columns in blocks(responses.shape[1], _COLUMNS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _spread(responses: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum of squared deviations from the mean over all items that are held out."""
    spread = np.empty(responses.shape[1])
    for columns in blocks(responses.shape[1], _COLUMNS):
        part = responses[rows, columns].astype(np.float64)
        with np.errstate(invalid="ignore"):
            spread[columns] = ((part - part.mean(axis=0)) ** 2).sum(axis=0)
    return spread
