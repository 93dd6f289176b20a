"""One layer's encoding: held-out predictions, their scores, and their test; what a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bidsdnn.encoding.held import Held, Keeping, Weights
from bidsdnn.encoding.identification import identified
from bidsdnn.encoding.memory import by_voxel, room
from bidsdnn.encoding.models import features_of
from bidsdnn.methods.null import FEWEST_SCALED, Given, Null, held_out_scaled, null, scorer
from bidsdnn.methods.predict import Model
from bidsdnn.methods.scores import Split, explained_variance, fold_pearsonr, pearsonr, pooled_pearsonr, r2
from bidsdnn.patterns import Group


class LayerScores(NamedTuple):
    """What the encoding of one layer found: per voxel, per voxel and fold, p of the regions, and what was tested."""

    pearsonr: np.ndarray
    r2: np.ndarray
    folds: np.ndarray
    p: np.ndarray
    explained: np.ndarray | None = None
    null: Null | None = None
    inner: np.ndarray | None = None
    held: Held | None = None
    weights: Weights | None = None
    identified: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LayerFit:
    """How one layer is fitted; sent to a worker with the layer.

    Parameters
    ----------
    model : object with ``fit`` and ``predict``
    responses : ndarray, shape (n, V)
    regions : ndarray of bool, shape (R, V)
    splits : sequence of (train, test)
        Together they hold out every item once, or there is one.
    orders : ndarray of int, shape (permutations, n)
        Relabellings.
    stimuli : ndarray of str, shape (n,)
        Stimulus of each item.
    drawn : ndarray of bool, shape (R, V), optional
        Voxels whose mean r a region's test takes; all of the region, if not given.
    tested : ndarray of bool, shape (V,), optional
        Voxels whose r is tested; all, if not given.
    keeping : Keeping, optional
        What is kept for the comparison of layers and for later.
    identification : bool
        Whether stimuli are to be identified.
    folder : Path, optional
        Of scratch files, for predictions that are too many for memory.
    """

    model: Model
    responses: np.ndarray
    regions: np.ndarray
    splits: Sequence[Split]
    orders: np.ndarray
    stimuli: np.ndarray
    drawn: np.ndarray | None = None
    tested: np.ndarray | None = None
    keeping: Keeping | None = None
    identification: bool = False
    folder: Path | None = None

    def __call__(self, group: Group) -> LayerScores:
        """Cross-validate one layer."""
        features = features_of(self.model, group)
        if len(self.splits) == 1:
            return self._single(group, features)
        out = room(self.folder, self.responses.shape, np.result_type(self.responses.dtype, np.float32))
        predicted, scale = held_out_scaled(self.model, features, self.responses, self.splits, out=out)
        y, splits = self.responses, self.splits
        folds = [split for split in self.splits if len(split[1]) >= FEWEST_SCALED]
        found = self.null(scorer(self.model, features, self.splits), self.responses, self.orders)
        scores = LayerScores(
            by_voxel(lambda p, y, s: pooled_pearsonr(p, y, splits, scale=s), predicted, y, scale),
            by_voxel(r2, predicted, y),
            by_voxel(lambda p, y: fold_pearsonr(p, y, folds), predicted, y) if folds else np.empty((0, y.shape[1])),
            found.p_regions,
            by_voxel(explained_variance, predicted, y),
            found,
        )
        return self._with_kept(scores, group, features, predicted, scale)

    def _with_kept(
        self, scores: LayerScores, group: Group, features: Any, predicted: np.ndarray, scale: np.ndarray | None = None
    ) -> LayerScores:
        """Scores with what the comparison of layers needs, and the weights, if these are asked for."""
        if self.identification:
            found = identified(
                self.model, features, predicted, self.responses, regions=self.regions, splits=self.splits,
                orders=self.orders, ids=self.stimuli,
            )  # fmt: skip
            scores = scores._replace(identified=found)
        if self.keeping is None:
            return scores
        y, names, keeping = self.responses, (group.network, group.name), self.keeping
        if keeping.predictions:
            inner = keeping.inner(self.model, features, y, self.splits)
            scores = scores._replace(inner=inner, held=keeping.keep(predicted, *names, scale=scale))
        return scores._replace(weights=keeping.fitted(self.model, features, y, *names)) if keeping.weights else scores

    def _single(self, group: Group, features: Any) -> LayerScores:
        """Scores of one split; its fit does not change when the responses that it has not seen are permuted."""
        test = self.splits[0][1]
        predicted = held_out_scaled(self.model, features, self.responses, self.splits)[0]
        given = predicted[test]
        measured = self.responses[test]
        found = self.null(Given(given), measured, np.searchsorted(test, self.orders[:, test]))
        r = pearsonr(given, measured)
        explained = explained_variance(given, measured)
        scores = LayerScores(r, r2(given, measured), r[None], found.p_regions, explained, found)
        return self._with_kept(scores, group, features, predicted)

    def null(self, score: Any, measured: np.ndarray, orders: np.ndarray) -> Null:
        """Compare the scores of relabelled responses with the observed ones."""
        drawn = self.regions if self.drawn is None else self.drawn
        return null(score, measured, drawn, orders, columns=self.tested)
