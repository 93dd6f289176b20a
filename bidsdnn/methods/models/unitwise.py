"""The best single unit of a layer for each voxel, as DNNBrain's univariate mapping, with the choice inside the folds.

The largest of many correlations is large by chance (.2 to .4 on noise), so a unit is chosen and fitted on the training
part only. Units are read some at a time, all folds in one pass, and no table of units x voxels is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.models.weighted import new_rows, tables
from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.scores import Split

_UNITS = 2048
"""Units searched at a time."""

_TARGETS = 4096
"""Targets searched at a time: with the units, 32 MB of correlations."""

_LEAST = 0.01
"""Spread that a unit has to have in the training part, as a share of the units' root mean square."""

Float = NDArray[np.float64]


class Unitwise(BaseEstimator):
    """The unit that correlates most with a voxel in the training part was chosen, and regressed on, in each fold.

    DNNBrain's univariate mapping (Chen et al., 2020, Front. Comput. Neurosci. 14, 580632), which reports the largest
    correlation; here both the choice, by absolute correlation, and the line are learned without the held-out items.
    Units that hardly vary in the training part, by less than a hundredth of the units' root mean square, are not
    chosen: rectified units are close to 0 for most stimuli, and a line along such a unit leads anywhere.

    Parameters
    ----------
    n_units : int, optional
        Units to choose from, drawn at random; all if not given.
    seed : int
        Of the draw.
    device : str
        Where torch multiplies. Correlations are compared in float32, lines are fitted in float64.

    Attributes
    ----------
    unit_ : array of int, shape (V,)
        The unit chosen; -1 where no unit varies, or the target was not finite.
    slope_, intercept_ : array, shape (V,)
        NaN for a target that was not finite.
    """

    takes = "blocks"
    separable = True
    references = ("dnnbrain",)

    def __init__(self, n_units: int | None = None, seed: int = 0, device: str = "cpu") -> None:
        self.n_units = n_units
        self.seed = seed
        self.device = device

    def said(self) -> str:
        """What the parameters make of the fit, as a sentence of the Methods."""
        return "" if self.n_units is None else f"It was chosen from {self.n_units} units drawn at random."

    def fixed(self) -> Unitwise:
        """The model with at most 1,000 units to choose from, drawn before any target is seen, which bounds its cost."""
        return Unitwise(min(self.n_units or 1000, 1000), self.seed, self.device)

    def drawn(self, values: Any) -> Any:
        """The units to choose from alone, in memory, where these are drawn; read once for many fits.

        Parameters
        ----------
        values : array-like, shape (n, p)
            As `cross_predict` takes them.

        Returns
        -------
        array-like, shape (n, n_units), or the values themselves
            In place of the values, what is predicted from them is the same.
        """
        if self.n_units is None or self.n_units >= values.shape[1]:
            return values
        return np.concatenate([_read(values, numbers) for numbers in self._drawn(values.shape[1])], axis=1)

    def fit(self, X: ArrayLike, Y: ArrayLike) -> Unitwise:
        """Choose a unit for each target, and fit a line.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Finite; p may be 0.
        Y : array-like, shape (n, V)

        Raises
        ------
        ValueError
            If shapes disagree, or X is not finite.
        """
        x, y = tables(X, Y)
        (self.unit_,) = self._search(x, y, [np.arange(len(x))])
        self.n_features_ = x.shape[1]
        self.slope_, self.intercept_ = _lines(_taken(x, self.unit_), y)
        return self

    def predict(self, X: ArrayLike) -> Float:
        """Predict the targets of new rows.

        Parameters
        ----------
        X : array-like, shape (m, p)

        Returns
        -------
        array, shape (m, V)

        Raises
        ------
        ValueError
            If X has another number of columns than the model was fitted with.
        """
        x = new_rows(X, self.n_features_)
        predicted: Float = _taken(x, self.unit_) * self.slope_ + self.intercept_
        return predicted

    def cross_predict(self, values: Any, Y: ArrayLike, splits: Sequence[Split]) -> NDArray[Any]:
        """Each item was predicted by the best unit of the folds that it is not in; units are read in one pass.

        Parameters
        ----------
        values : array-like, shape (n, p)
            Anything with a ``shape`` that can be sliced ``values[:, a:b]``.
        Y : array-like, shape (n, V)
        splits : sequence of (train, test)

        Returns
        -------
        array, shape (n, V)
            Of the precision of Y; NaN for items that no fold holds out, and for targets that are not finite.
        """
        y = np.asarray(Y)
        predicted = np.full(y.shape, np.nan, dtype=np.result_type(y.dtype, np.float32))
        chosen = self._search(values, y, [train for train, _ in splits])
        finite = np.isfinite(y).all(axis=0)
        for units in [slice(-1, 0), *blocks(values.shape[1], _UNITS)]:
            inside = [np.flatnonzero((one >= units.start) & (one < units.stop) & finite) for one in chosen]
            if not any(len(targets) for targets in inside):
                continue
            block = np.asarray(values[:, units], dtype=np.float64) if units.start >= 0 else np.empty((len(y), 0))
            for one, targets, (train, test) in zip(chosen, inside, splits, strict=True):
                for some in blocks(len(targets), _TARGETS):
                    columns = targets[some]
                    features = _taken(block, one[columns] - units.start if units.start >= 0 else one[columns])
                    slope, intercept = _lines(features[train], y[np.ix_(train, columns)])
                    predicted[np.ix_(test, columns)] = features[test] * slope + intercept
        return predicted

    def _search(self, values: Any, y: NDArray[Any], parts: Sequence[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
        """The unit chosen for each target in each training part, -1 for none."""
        where = torch.device(self.device)
        usable = np.flatnonzero(np.isfinite(y).all(axis=0))
        targets = [_standard(torch.from_numpy(y[np.ix_(part, usable)]).to(where)).float() for part in parts]
        least = self._least(values, parts)
        top = torch.zeros(len(parts), len(usable), device=where)
        which = torch.full((len(parts), len(usable)), -1, dtype=torch.int64, device=where)
        for numbers in self._drawn(values.shape[1]):
            block = _read(values, numbers)
            there, places = torch.from_numpy(block).to(float64_device(self.device)), torch.from_numpy(numbers).to(where)
            for fold, part in enumerate(parts):
                rows = _standard(there[torch.from_numpy(part)], least[fold]).float().to(where)
                for some in blocks(len(usable), _TARGETS):
                    _better(targets[fold][:, some].T @ rows, places, top[fold, some], which[fold, some])
        chosen = np.full((len(parts), y.shape[1]), -1)
        chosen[:, usable] = which.cpu().numpy()
        return list(chosen)

    def _least(self, values: Any, parts: Sequence[NDArray[np.intp]]) -> Float:
        """Length that a centred unit has to have in each training part."""
        squares, number = np.zeros(len(parts)), 0
        for numbers in self._drawn(values.shape[1]):
            block = _read(values, numbers)
            number += len(numbers)
            for fold, part in enumerate(parts):
                rows = block[part]
                squares[fold] += ((rows - rows.mean(axis=0)) ** 2).sum()
        found: Float = _LEAST * np.sqrt(squares / max(number, 1))
        return found

    def _drawn(self, size: int) -> Iterator[NDArray[np.intp]]:
        """Numbers of the units to choose from, those that are near each other at a time."""
        if self.n_units is not None and self.n_units < 1:
            raise ValueError(f"n_units: expected at least 1, got {self.n_units}")
        drawn = np.arange(size)
        if self.n_units is not None and self.n_units < size:
            drawn = np.sort(np.random.default_rng(self.seed).choice(size, self.n_units, replace=False))
        for units in blocks(size, _UNITS):
            first, last = np.searchsorted(drawn, [units.start, units.stop])
            if last > first:
                yield drawn[first:last]


def _read(values: Any, units: NDArray[np.intp]) -> Float:
    """Some units that are near each other, (n, units)."""
    start, stop = int(units[0]), int(units[-1]) + 1
    block: Float = np.asarray(np.asarray(values[:, start:stop])[:, units - start], dtype=np.float64)
    if not np.isfinite(block).all():
        raise ValueError("X: expected finite numbers, got NaN or infinity")
    return block


def _better(r: torch.Tensor, places: torch.Tensor, top: torch.Tensor, which: torch.Tensor) -> None:
    """Note, in place, for which targets one of these units is better than those before; r is (targets, units)."""
    lowest, highest = torch.aminmax(r, dim=1)
    found = torch.maximum(highest, -lowest)
    # More than rounding: what does not vary is never best, and of equals the first is.
    better = torch.nonzero(found > top + 1e-6)[:, 0]
    # After the first blocks few targets find a better unit, so that its place is looked for in few rows.
    top[better] = found[better]
    which[better] = places[r[better].abs().argmax(dim=1)]


def _standard(values: torch.Tensor, least: float = 0) -> torch.Tensor:
    """Columns of mean 0 and length 1; 0 for those that do not vary, or whose length is below the least."""
    centred = values.double() if values.device.type != "mps" else values
    largest = centred.abs().amax(dim=0) if len(centred) else centred.new_zeros(centred.shape[1])
    centred = centred - centred.mean(dim=0)
    length = centred.square().sum(dim=0).sqrt()
    varies = (length > 1e-12 * largest * len(centred) ** 0.5) & (length >= least)
    return torch.where(varies, centred / torch.where(varies, length, 1), 0)


def _taken(x: Float, units: NDArray[np.intp]) -> Float:
    """A column of features for each target; zeros where none was chosen."""
    taken = np.zeros((len(x), len(units)))
    there = units >= 0
    taken[:, there] = x[:, units[there]]
    return taken


def _lines(features: Float, y: NDArray[Any]) -> tuple[Float, Float]:
    """Slope and intercept of each target on its feature."""
    x_mean, y_mean = features.mean(axis=0), y.mean(axis=0, dtype=np.float64)
    centred = features - x_mean
    squares = (centred**2).sum(axis=0)
    products = (centred * (y - y_mean)).sum(axis=0)
    slope = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    intercept = np.where(np.isfinite(y).all(axis=0), y_mean - slope * x_mean, np.nan)
    return np.where(np.isfinite(intercept), slope, np.nan), intercept
