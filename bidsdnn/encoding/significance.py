"""What is tested, and the corrections over voxels, regions, layers and networks.

The one idea: all layers of all networks are relabelled alike, so that the largest score of a relabelling over all of
them controls the family-wise error however they depend on each other (Westfall & Young, 1993, Resampling-based multiple
testing; Nichols & Holmes, 2002, Human Brain Mapping 15, 1-25).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidsdnn.encoding.layer import LayerScores
from bidsdnn.folding import Folding
from bidsdnn.methods.inference import fdr
from bidsdnn.methods.predict import Linear, Model
from bidsdnn.methods.relabelled import TIES
from bidsdnn.methods.searchlight import familywise
from bidsdnn.parallel import seed_for

MOST_TESTED = 2000
"""Voxels of a region whose mean r is tested, where not all voxels are."""
MOST_WORK = 3e13
"""Multiplications up to which every voxel is tested unasked: some minutes of two processors."""


def which_voxels(
    model: Model, regions: np.ndarray, *, n_items: int, n_layers: int, permutations: int, single: bool, seed: int,
    asked: bool | None,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Choose the voxels that are tested, by what was asked or by what it costs.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    regions : ndarray of bool, shape (R, V)
    n_items, n_layers, permutations : int
    single : bool
        Whether a relabelling repeats no fit.
    seed : int
    asked : bool or None
        Whether every voxel is to be tested.

    Returns
    -------
    drawn : ndarray of bool, shape (R, V)
        Voxels that each region is tested by: all of its own; or, where not every voxel is tested, of more than
        `MOST_TESTED` so many, drawn without looking at their values.
    voxelwise : bool
        Whether every voxel is tested; else those that are drawn for some region.
    """
    n_voxels = regions.shape[1]
    work = float(n_voxels) * n_layers * permutations * n_items * (1 if single else n_items)
    cheap = n_voxels <= MOST_TESTED or ((single or isinstance(model, Linear)) and work <= MOST_WORK)
    if cheap if asked is None else asked:
        return regions, True
    drawn = regions.copy()
    for one in drawn:
        inside = np.flatnonzero(one)
        if len(inside) > MOST_TESTED:
            one[np.random.default_rng(seed_for(seed, "tested voxels")).permutation(inside)[MOST_TESTED:]] = False
    return drawn, bool(drawn.any(axis=0).all())


@dataclass(frozen=True, eq=False)
class Significance:
    """p of voxels and regions, and their corrections.

    Parameters
    ----------
    p, p_fwe, q : ndarray, shape (L, V)
        Of each layer and voxel; NaN where nothing was tested. Family-wise over all voxels and layers, q over the voxels
        of a layer.
    regions_p, regions_fwe, regions_q : ndarray, shape (L, R)
        Of each layer and region, corrected over the regions of an atlas and all layers.
    """

    p: np.ndarray
    p_fwe: np.ndarray
    q: np.ndarray
    regions_p: np.ndarray
    regions_fwe: np.ndarray
    regions_q: np.ndarray


def significance(scores: Sequence[LayerScores], atlases: Sequence[str], n_voxels: int) -> Significance:
    """Correct the tests of all layers together.

    Parameters
    ----------
    scores : sequence of LayerScores
    atlases : sequence of str, length R
        Of each region: those of one atlas are a family.
    n_voxels : int

    Returns
    -------
    Significance
    """
    nulls = [score.null for score in scores if score.null is not None]
    whole = np.full((3, len(nulls), n_voxels), np.nan)
    corrected = familywise(
        np.stack([one.observed for one in nulls], axis=1), np.stack([one.largest for one in nulls], axis=1),
        np.array([one.squares for one in nulls]), tolerance=TIES,
    )  # fmt: skip
    for layer, one in enumerate(nulls):
        whole[0, layer, one.columns], whole[1, layer, one.columns] = one.p, corrected[:, layer]
        whole[2, layer] = fdr(whole[0, layer])
    p = np.array([score.p for score in scores]).reshape(len(scores), len(atlases))
    p_fwe, q = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    for atlas in dict.fromkeys(atlases):
        own = np.flatnonzero(np.asarray(atlases) == atlas)
        p_fwe[:, own] = largest_of_means(np.stack([one.means[:, own] for one in nulls], axis=1))
        q[:, own] = fdr(p[:, own])
    return Significance(whole[0], whole[1], whole[2], p, p_fwe, q)


def largest_of_means(means: np.ndarray) -> np.ndarray:
    """Family-wise p of means over regions: how often the largest of a relabelling reaches the observed one.

    Each mean is in units of its root mean square over the relabellings, the given labels among them, so that regions of
    many voxels, whose means vary less, are not outweighed by those of few.

    Parameters
    ----------
    means : ndarray, shape (1 + permutations, L, R)
        The observed ones first.

    Returns
    -------
    ndarray, shape (L, R)
        NaN where a mean is.
    """
    scale = np.sqrt((means**2).mean(axis=0))
    units = np.divide(means, scale, out=np.zeros_like(means), where=scale > 0)
    largest = np.where(np.isnan(means), -np.inf, units)[1:].max(axis=(1, 2), initial=-np.inf)
    reached = (largest[:, None, None] >= units[0] - TIES).sum(axis=0)
    return np.where(np.isnan(means[0]), np.nan, (1 + reached) / (1 + len(largest)))


def said_of_test(model: Any, folded: Folding, permutations: int, *, voxelwise: bool) -> str:
    """Sentences of the Methods on the test.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    folded : Folding
    permutations : int
    voxelwise : bool
        Whether every voxel was tested.

    Returns
    -------
    str
    """
    if folded.single:
        repeated = ""
    elif isinstance(model, Linear):
        repeated = ", each repeating the cross-validated fit with all that a model chooses fixed beforehand"
    elif hasattr(model, "fixed"):
        repeated = ", each repeating the cross-validated fit at parameters fixed beforehand"
    else:
        repeated = ", each repeating the cross-validated fit and all of its choices"
    what = "The r of each voxel and the mean r of each region were" if voxelwise else (
        f"The mean r of each region, of more than {MOST_TESTED:,} voxels that of {MOST_TESTED:,} drawn at random, was"
    )  # fmt: skip
    return (
        f"{what} tested against {permutations:,} {folded.test}{repeated}, with p = (1 + b) / (1 + n); family-wise p "
        "counted the permutations whose largest value over all layers and voxels, or regions of an atlas, reached the "
        "observed one, and q was the false discovery rate."
    )
