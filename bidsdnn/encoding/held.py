"""What a layer's fit leaves for the comparison of layers: its held-out predictions, and scores within training parts.

The one idea: predictions of all layers are needed together, and do not fit in memory together. They lie in a scratch
file a layer, voxels one behind the other, and are read a block of voxels at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bidsdnn.methods.grouped import Grouped, averaging, repeated
from bidsdnn.methods.layer_choice import merged, on_one_scale
from bidsdnn.methods.null import held_out
from bidsdnn.methods.predict import Linear, Model, kfold
from bidsdnn.methods.reduce import at_a_time, blocks
from bidsdnn.methods.scores import Split, pooled_pearsonr
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Rows

_COLUMNS = 4096
_ROUNDING = 1e-4
"""Share of the largest prediction by which single precision may change one."""


@dataclass(frozen=True, eq=False)
class Held:
    """Numbers of every item and voxel of one layer, as its held-out predictions.

    In memory or in a scratch file, which travels between processes as a path.

    Parameters
    ----------
    values : ndarray, shape (n_voxels, n), or Path
    scale : Held, optional
        What the predicted deviations are divided by, where folds are too small to tell.
    """

    values: np.ndarray | Path
    scale: Held | None = None

    def read(self, columns: slice) -> np.ndarray:
        """Those of some voxels, shape (n, columns)."""
        whole = np.load(self.values, mmap_mode="r") if isinstance(self.values, Path) else self.values
        return np.asarray(whole[columns]).T

    def scaled(self, columns: slice, y: np.ndarray, splits: Sequence[Split]) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and responses of some voxels, shape (n, columns), as `on_one_scale`."""
        scale = None if self.scale is None else self.scale.read(columns)
        return on_one_scale(self.read(columns), y, splits, scale=scale)


class Weights(NamedTuple):
    """A layer's weights w = X' alpha, of the fit to all items.

    ``alpha`` (n, voxels) a number for each training item, ``intercept`` (voxels,), ``penalty`` (voxels,) NaN where the
    model has none, and ``dtype`` in which alpha gives the predictions back.
    """

    alpha: Held
    intercept: np.ndarray
    penalty: np.ndarray
    dtype: str


@dataclass(frozen=True, eq=False)
class Averages:
    """Means of some rows of a table, taken when a block of columns is asked for."""

    values: Rows
    share: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Means and columns."""
        return len(self.share), self.values.shape[1]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = key
        found: np.ndarray = self.share[rows] @ self.values[:, columns]
        return found


@dataclass(frozen=True, eq=False)
class Keeping:
    """How the predictions of each layer are kept, and what its choice in each training part rests on.

    Parameters
    ----------
    folder : Path, optional
        For scratch files; None keeps predictions in memory.
    inner_splits : int
        Folds within each training part.
    seed : int
    shuffle : bool
        Whether items are dealt to inner folds at random; else those are stretches of neighbours.
    predictions : bool
        Whether held-out predictions are kept.
    weights : bool
        Whether the weights of a fit to all items are.
    groups : ndarray, shape (n,), optional
        Stimulus of each item; items of one are averaged in each training part, so that inner folds do not divide them.
    """

    folder: Path | None = None
    inner_splits: int = 5
    seed: int = 0
    shuffle: bool = True
    predictions: bool = True
    weights: bool = False
    groups: np.ndarray | None = None

    @property
    def asked(self) -> Keeping | None:
        """None if nothing is to be kept."""
        return self if self.predictions or self.weights else None

    def keep(self, predicted: np.ndarray, *names: str, dtype: str = "float32", scale: np.ndarray | None = None) -> Held:
        """Keep an array of shape (n, n_voxels), and a scale of that shape."""
        beside = None if scale is None else self.keep(scale, *names, "scale")
        if self.folder is None:
            return Held(np.ascontiguousarray(predicted.T, dtype=dtype), beside)
        path = self.folder / f"{seed_for(0, 'held', *names):x}.npy"
        # Of (n_voxels, n) the rows lie as columns of (n, n_voxels) do.
        with path.open("wb") as file:
            head = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": predicted.shape[::-1]}
            np.lib.format.write_array_header_1_0(file, head)
            for columns in blocks(predicted.shape[1], at_a_time(len(predicted), _COLUMNS)):
                file.write(np.ascontiguousarray(predicted[:, columns].T, dtype=dtype).tobytes())
        return Held(path, beside)

    def fitted(self, model: Model, x: Any, y: np.ndarray, *names: str) -> Weights:
        """Fit all items and keep the weights."""
        one = copy.deepcopy(model)
        if self.groups is not None and repeated(self.groups):
            share = averaging(self.groups)
            one.fit(share @ x, share.astype(y.dtype) @ y)
        else:
            one.fit(x, y)
        alpha, intercept = dual(one, x)
        penalty = np.broadcast_to(np.asarray(getattr(one, "penalty_", np.nan), dtype=np.float64), intercept.shape)
        dtype = "float64" if _loses(alpha, x @ x.T) else "float32"
        return Weights(self.keep(alpha, *names, "alpha", dtype=dtype), intercept, penalty, dtype)

    def inner(self, model: Model, x: Any, y: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
        """Scores of a layer within each training part, by inner cross-validation: what a layer is chosen by.

        Scores of the other folds would not do: their models were trained on the fold that is held out, and choosing by
        them lifts r on noise to .11 (simulated: 40 stimuli, 5 layers).

        Parameters
        ----------
        model : object with ``fit`` and ``predict``
            With an ``operator``, at its fixed penalty; else refitted.
        x : array-like, shape (n, p)
            Of `features_of`.
        y : ndarray, shape (n, n_voxels)
        splits : sequence of (train, test)

        Returns
        -------
        ndarray of float32, shape (G, n_voxels)
            A row for each of the `merged` folds.
        """
        rows, one = [], model.model if isinstance(model, Grouped) else model
        for train, _ in merged(splits):
            part: Any = x[train] if isinstance(x, np.ndarray) else Rows(x, train)
            targets: Any = Rows(y, train)
            if self.groups is not None and repeated(self.groups[train]):
                share = averaging(self.groups[train])
                part, targets = share @ part[:, :], Averages(targets, share)
            count = part.shape[0]
            inside = kfold(count, min(self.inner_splits, count), seed=self.seed, shuffle=self.shuffle)
            rows.append(self._scores(one, part, targets, inside))
        return np.array(rows, dtype=np.float32)

    def _scores(self, model: Model, x: Any, targets: Any, inside: Sequence[Split]) -> np.ndarray:
        if not isinstance(model, Linear):
            own, y = model.fixed() if hasattr(model, "fixed") else model, targets[:, :]
            few = own.drawn(x) if hasattr(own, "drawn") else x
            return pooled_pearsonr(held_out(own, few, y, inside), y, inside)
        operator: Any = model.operator(x, inside)
        scores = np.empty(targets.shape[1])
        for columns in blocks(targets.shape[1], at_a_time(targets.shape[0], _COLUMNS)):
            y = targets[:, columns]
            with np.errstate(invalid="ignore"):
                scores[columns] = pooled_pearsonr(operator @ y, y, inside)
        return scores


def _loses(alpha: np.ndarray, inner: np.ndarray) -> bool:
    """Whether predictions from alpha in single precision are others: where no penalty holds its size down."""
    apart, largest = 0.0, 0.0
    for columns in blocks(alpha.shape[1], _COLUMNS):
        exact = alpha[:, columns][:, np.isfinite(alpha[:, columns]).all(axis=0)]
        apart = max(apart, np.abs(inner @ (exact - exact.astype(np.float32))).max(initial=0))
        largest = max(largest, np.abs(inner @ exact).max(initial=0))
    return apart > _ROUNDING * largest


def is_linear(model: Any, x: np.ndarray, weights: np.ndarray, intercept: np.ndarray) -> bool:
    """Whether weights and intercept give a model's predictions for x, but for rounding."""
    there = np.asarray(model.predict(x), dtype=np.float64)
    known = np.isfinite(there).all(axis=0)
    apart = np.abs(x @ weights[:, known] + intercept[known] - there[:, known]).max(initial=0)
    return not apart > _ROUNDING * np.abs(there[:, known]).max(initial=0)


def dual(model: Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a fitted linear model on its training items, in place of units: w = x' alpha.

    Parameters
    ----------
    model : object with ``predict``
        Fitted to the exact rotation of its items.
    x : ndarray, shape (n, rank)
        That rotation, whose columns are orthogonal.

    Returns
    -------
    alpha : ndarray, shape (n, n_voxels)
        Predictions for rows z are ``(z @ x.T) @ alpha + intercept``; so they are for units, with the inner products of
        the units.
    intercept : ndarray, shape (n_voxels,)

    Raises
    ------
    ValueError
        If the predictions are not linear in the features.
    """
    intercept = np.asarray(model.predict(np.zeros((1, x.shape[1]))), dtype=np.float64)[0]
    weights = np.asarray(model.predict(np.eye(x.shape[1])), dtype=np.float64) - intercept
    if not is_linear(model, x, weights, intercept):
        raise ValueError(
            f"--save-weights: {type(model).__name__} is not linear in the features, so it has no weights; leave it "
            "out, --analysis predict fits the model again"
        )
    return (x / (x**2).sum(axis=0)) @ weights, intercept
