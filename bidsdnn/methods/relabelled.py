"""Scores of cross-validated predictions under relabellings of the items, of a model that is linear in the targets.

The one idea: many relabelled targets stand side by side and are predicted by one product with the operator; the score
of each needs no more of the predictions than a few sums over each fold, taken while they are still in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bidsdnn.methods.products import comparing_dtype
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.scores import Float

_ENTRIES = 1_000_000
"""Predictions made by one product: few enough to stay in the cache while they are scored."""

_ORDERS = 256
"""Relabellings scored before they are handed on."""

TIES = 2e-5
"""Relabellings whose r differ by no more are equal but for rounding."""


def relabelled_correlations(
    h: NDArray[Any],
    y: NDArray[Any],
    orders: NDArray[np.intp],
    folds: Float,
    training: Float | None = None,
) -> Iterator[tuple[slice, slice, Float]]:
    """Each column's r was taken anew for each relabelling of the items, as a refit of every fold would give it.

    Relabelling by an order moves both axes of the operator, and the folds, by it; or, which is the same and what is
    done, the rows of ``y`` by its inverse.

    Parameters
    ----------
    h : array, shape (n, n)
        The operator less `mean_operator`: its product with the targets is what is predicted beyond the training
        part's mean.
    y : array of float32 or float64, shape (n, V)
        Columns of mean zero, as `standardise` gives them. In float32, long products may be taken in bfloat16
        (`comparing_dtype`): the operator and the targets are rounded before they are relabelled, so that a test
        remains exact.
    orders : array of int, shape (k, n)
    folds : array, shape (folds, n)
        From `membership`; together they hold out every item once.
    training : array, shape (folds, n), optional
        From `trained_on`.

    Yields
    ------
    relabellings : slice
        Of ``orders``.
    columns : slice
        Of ``y``.
    r : array, shape (relabellings, columns)
        As `pooled_correlation`; NaN where nothing varies.
    """
    n, n_columns = y.shape
    scoring = _Scoring.of(h, folds, training, torch.from_numpy(y[:0]).dtype)
    inverse = torch.from_numpy(np.argsort(orders, axis=1)[:, scoring.items])
    width = max(1, _ENTRIES // n)
    for columns in blocks(n_columns, width):
        part = torch.from_numpy(np.ascontiguousarray(y[:, columns]))
        for some in blocks(len(orders), _ORDERS):
            chosen = inverse[some]
            at_once = max(1, width // part.shape[1])
            r = [scoring.correlations(part[rows.T].flatten(1)) for rows in chosen.split(at_once)]
            yield some, columns, torch.cat(r).reshape(len(chosen), -1).numpy()


class _Scoring:
    """What predicts and scores relabelled targets; items stand fold by fold."""

    def __init__(
        self, items: NDArray[np.intp], operator: torch.Tensor, sizes: list[int], training: torch.Tensor | None
    ) -> None:
        self.items, self.operator, self.sizes, self.training = items, operator, sizes, training

    @classmethod
    def of(cls, h: NDArray[Any], folds: Float, training: Float | None, dtype: torch.dtype) -> _Scoring:
        held_out = [np.flatnonzero(fold) for fold in folds]
        items = np.concatenate(held_out)
        product = comparing_dtype(dtype, torch.device("cpu"), len(h))
        operator = torch.from_numpy(np.ascontiguousarray(h[np.ix_(items, items)])).to(product)
        learned = None if training is None else torch.from_numpy(training[:, items]).to(dtype)
        return cls(items, operator, [len(test) for test in held_out], learned)

    def correlations(self, y: torch.Tensor) -> torch.Tensor:
        """`pooled_correlation` of the predictions of targets, (n, k) -> (k,)."""
        deviations = (self.operator @ y.to(self.operator.dtype)).to(y.dtype)
        sizes = torch.tensor(self.sizes, dtype=torch.float64)[:, None]
        held_out, predicted, agree = self._sums(y), self._sums(deviations), self._sums(deviations * y)
        spread = (self._sums(deviations.square_()) / sizes).sqrt()
        scale = torch.where(spread > 0, 1 / spread, 0.0)
        # Measured responses less the mean of the training part, which is a shift of each fold.
        shift = held_out / (len(y) - sizes)
        if self.training is not None:
            shift = -(self.training @ y).double() / self.training.sum(dim=1, keepdim=True)
        lengths = y.square().sum(dim=0).double() + (shift * (2 * held_out + sizes * shift)).sum(dim=0)
        return _correlation(
            (scale * predicted).sum(dim=0),
            (held_out + sizes * shift).sum(dim=0),
            (sizes * (spread > 0)).sum(dim=0),
            lengths,
            (scale * (agree + shift * predicted)).sum(dim=0),
            len(y),
            torch.finfo(y.dtype).eps,
        )

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([fold.sum(dim=0) for fold in values.split(self.sizes)]).double()


def _correlation(
    a: torch.Tensor, b: torch.Tensor, aa: torch.Tensor, bb: torch.Tensor, ab: torch.Tensor, n: int, eps: float
) -> torch.Tensor:
    """Pearson's r from the sums of a, b, a a, b b and a b; NaN where either varies by no more than rounding."""
    of_a, of_b = aa - a.square() / n, bb - b.square() / n
    varies = (of_a > 8 * eps * aa) & (of_b > 8 * eps * bb)
    return torch.where(varies, (ab - a * b / n) / (of_a * of_b).sqrt(), torch.nan)
