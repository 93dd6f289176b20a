"""One layer's encoding: held-out predictions, their scores, and p of the regions; what a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bidsdnn.encoding.models import features_of
from bidsdnn.methods.predict import Linear, Model, cross_predict, region_permutation
from bidsdnn.methods.relabelled import held_out_permutation
from bidsdnn.methods.scores import fold_pearsonr, pearsonr, pooled_pearsonr, r2
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group

# A permutation costs stimuli x stimuli x voxels: a whole brain's mean r is tested on a sample of its voxels.
MOST_TESTED = 2000


class LayerScores(NamedTuple):
    """What the encoding of one layer found: per voxel, per voxel and fold, and p of the regions."""

    pearsonr: np.ndarray
    r2: np.ndarray
    folds: np.ndarray
    p: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerFit:
    """How one layer is fitted; sent to a worker with the layer."""

    model: Model
    responses: np.ndarray
    regions: np.ndarray
    splits: Sequence[tuple[np.ndarray, np.ndarray]]
    permutations: int
    seed: int
    orders: np.ndarray

    def __call__(self, group: Group) -> LayerScores:
        """Cross-validate one layer."""
        features = features_of(self.model, group)
        predicted = cross_predict(self.model, features, self.responses, self.splits)
        if len(self.splits) == 1:
            return self._single(predicted)
        if not isinstance(self.model, Linear):
            raise TypeError(f"{type(self.model).__name__}: expected a model with an operator, got none")
        p, _ = region_permutation(
            self.model.operator(features, self.splits),
            self.responses,
            self.regions,
            self.splits,
            permutations=self.permutations,
            seed=self.seed,
            orders=self.orders,
        )
        return LayerScores(
            pooled_pearsonr(predicted, self.responses, self.splits),
            r2(predicted, self.responses),
            fold_pearsonr(predicted, self.responses, self.splits),
            p,
        )

    def _single(self, predicted: np.ndarray) -> LayerScores:
        """Scores of one split; its fit does not change when the responses that it has not seen are permuted."""
        test = self.splits[0][1]
        places = np.searchsorted(test, self.orders[:, test])
        given, measured = predicted[test], self.responses[test]
        r = pearsonr(given, measured)
        p = held_out_permutation(given, measured, self.regions, places)
        return LayerScores(r, r2(given, measured), r[None], p)


def thinned(regions: np.ndarray, *, seed: int) -> np.ndarray:
    """At most `MOST_TESTED` columns of each region, drawn without looking at their values."""
    thinned = np.zeros_like(regions, dtype=bool)
    for row, region in zip(thinned, regions, strict=True):
        inside = np.flatnonzero(region)
        rng = np.random.default_rng(seed_for(seed, "tested voxels"))
        row[inside if len(inside) <= MOST_TESTED else rng.choice(inside, MOST_TESTED, replace=False)] = True
    return thinned
