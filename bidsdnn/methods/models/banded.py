"""Banded ridge: one penalty for each band of features and each target, from the bands' inner products alone.

The one idea: with band weights that sum to one, the bands' stimuli x stimuli inner products add up to those of a single
ridge. One decomposition of the sum gives its whole path of penalties, and, by removing rows in closed form, every inner
fold's; targets share all of that, so that a candidate costs matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from bidsdnn.methods.bands import (
    TARGETS,
    centre,
    combine,
    lengths,
    mixed,
    path_errors,
    rank_of,
    recentre,
    solve,
    unit_of,
)
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.products import comparing_dtype
from bidsdnn.methods.reduce import blocks, float64_device
from bidsdnn.methods.scores import Split

Float = NDArray[np.float64]


class BandedRidge(BaseEstimator):
    """Banded ridge regression was fitted: one penalty for each band of features and each target.

    Minimises ||Y - sum_b X_b B_b - c||^2 + sum_b a_b ||B_b||^2 (Nunez-Elizalde, Huth & Gallant, 2019, NeuroImage 197,
    482-492). Penalties are searched as by Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022, NeuroImage 264,
    119728): for weights g of the bands, drawn from Dirichlet distributions, the model is a ridge on the inner products
    sum_b g_b K_b, whose path of penalties a is scored in inner folds; a_b = a / g_b. Each band is first brought to a
    mean squared length of one over the centred training rows, so that the number and scale of its units do not matter.

    Parameters
    ----------
    penalties : sequence of float, optional
        Positive. 9 values from 1e-4 to 1e4 in equal ratios if not given; of a single band `Ridge`'s 17.
    n_splits : int
        Inner folds over the rows.
    seed : int
        Of the inner folds' shuffle and of the weights.
    device : str
        Where torch multiplies; ``mps`` falls back to the CPU, for it has no float64.
    n_candidates : int, optional
        Weights to be tried, at least each band alone and all alike. 10 a band if not given, at most 50.
    weights : array-like, shape (candidates, n_bands), optional
        Weights in place of drawn ones; not negative, no row all zero.
    reach : int, optional
        All penalties are tried with the first weights and with each band alone; with further weights, those within so
        many steps of the target's best penalty so far. Its best penalty hardly moves with the weights, and a candidate
        costs about half. None tries all.
    relative : bool
        Whether penalties are in units of the mean non-zero eigenvalue of the weighted inner products of the training
        rows, and bands brought to one length; or both taken as they are.
    shuffle : bool
        Whether rows are dealt to the inner folds at random; else those are stretches of neighbours, as series need.
    columns : sequence of int, optional
        How many columns of X each band has; all of them one band if not given.
    bands : str or mapping of str to list of str
        For whoever has layers of networks: a band for each ``layer`` or ``network``, or names and patterns.

    Attributes
    ----------
    weights_ : array, shape (n_bands, V)
        The chosen weights g.
    penalty_ : array, shape (V,)
        The chosen a, in the unit of ``penalties``; in a tie the first candidate, and then the smaller penalty.
    dual_ : array, shape (n, V)
        Of each training row; of the dtype of Y if that is float32, else float64. NaN for a target that is not finite.
    intercept_ : array, shape (V,)
        Means of the targets.
    """

    joint = True
    """Fits all bands as one model."""
    references = ("banded-ridge", "banded-ridge-search")
    chooses = "weights of the bands and the penalty"

    def __init__(
        self,
        penalties: Sequence[float] | None = None,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        n_candidates: int | None = None,
        weights: Any = None,
        reach: int | None = 1,
        relative: bool = True,
        shuffle: bool = True,
        columns: Sequence[int] | None = None,
        bands: str | Mapping[str, Sequence[str]] = "layer",
    ) -> None:
        self.penalties = penalties
        self.n_splits = n_splits
        self.seed = seed
        self.device = device
        self.n_candidates = n_candidates
        self.weights = weights
        self.reach = reach
        self.relative = relative
        self.shuffle = shuffle
        self.columns = columns
        self.bands = bands

    def fit(self, X: ArrayLike, Y: ArrayLike) -> BandedRidge:
        """Choose weights and a penalty for each target, then fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Columns band by band, as ``columns`` says.
        Y : array-like, shape (n, V)

        Raises
        ------
        ValueError
            As `fit_grams`, or if ``columns`` do not add up.
        """
        self.rows_ = self._bands(X)
        return self.fit_grams(np.stack([rows @ rows.T for rows in self.rows_]), Y)

    def predict(self, X: ArrayLike) -> Float:
        """Predict the targets (m, V) of new rows (m, p)."""
        new = self._bands(X)
        if [rows.shape[1] for rows in new] != [rows.shape[1] for rows in self.rows_]:
            raise ValueError(f"X: expected the {sum(r.shape[1] for r in self.rows_)} columns that were fitted")
        return self.predict_grams(np.stack([a @ b.T for a, b in zip(new, self.rows_, strict=True)]))

    def fit_grams(self, grams: ArrayLike, Y: ArrayLike) -> BandedRidge:
        """Fit from the inner products of the training rows.

        Parameters
        ----------
        grams : array-like, shape (n_bands, n, n)
            Not centred; that is done here and in every inner fold.
        Y : array-like, shape (n, V)
            Candidates are compared in float32, or bfloat16 (`comparing_dtype`), where targets are; the fit is in
            float64.

        Raises
        ------
        ValueError
            If shapes disagree, inner products are not finite, a penalty or weight cannot be used, or rows are fewer
            than inner folds.
        """
        where = float64_device(self.device)
        products, y = _tables(grams, Y)
        centred, self._means = centre(torch.from_numpy(products).to(where))
        self._scale = lengths(centred) if self.relative else torch.ones(len(centred), dtype=torch.float64)
        centred = centred / self._scale.to(where)[:, None, None]
        weights, grid = self._candidates(len(products)), self._grid(len(products))
        usable = np.flatnonzero(np.isfinite(y).all(axis=0))
        mean = y[:, usable].mean(axis=0, dtype=np.float64)
        targets = torch.from_numpy((y[:, usable] - mean).astype(y.dtype)).to(where)
        chosen, ranks = self._search(centred, targets, weights, grid)
        dual = np.full(y.shape, np.nan, dtype=y.dtype)
        self.intercept_, self.penalty_ = np.full(y.shape[1], np.nan), np.full(y.shape[1], np.nan)
        self.weights_ = np.full((len(products), y.shape[1]), np.nan)
        for pair in np.unique(chosen):
            members = np.flatnonzero(chosen == pair)
            number, step = divmod(int(pair), len(grid))
            whole = mixed(centred, weights[number])
            unit = unit_of(whole, ranks[number]) if self.relative else 1.0
            some = targets[:, torch.from_numpy(members).to(where)].double()
            dual[:, usable[members]] = solve(whole, some, grid[step] * unit).cpu().numpy()
            self.weights_[:, usable[members]] = weights[number][:, None]
            self.penalty_[usable[members]] = grid[step]
        self.dual_ = dual
        self.intercept_[usable] = mean
        return self

    def predict_grams(self, grams: ArrayLike) -> Float:
        """Predict from the inner products (n_bands, m, n) of new rows with the training rows, shape (m, V)."""
        predicted = np.empty((np.shape(grams)[1], self.dual_.shape[1]))
        for targets, parts in self.split_grams(grams):
            predicted[:, targets] = parts.sum(axis=0) + self.intercept_[targets]
        return predicted

    def split_grams(self, grams: ArrayLike) -> Iterator[tuple[slice, Float]]:
        """Predict what each band adds, block by block of targets.

        Parameters
        ----------
        grams : array-like, shape (n_bands, m, n)
            Inner products of new rows with the training rows.

        Yields
        ------
        targets : slice
        parts : array, shape (n_bands, m, targets)
            Deviations from the training part's mean; their sum is what the model predicts.

        Raises
        ------
        ValueError
            If the shape does not fit the training rows.
        """
        products = np.asarray(grams, dtype=np.float64)
        if products.ndim != 3 or products.shape[::2] != (len(self.weights_), len(self.dual_)):
            raise ValueError(
                f"grams: expected shape ({len(self.weights_)}, m, {len(self.dual_)}), got {products.shape}"
            )
        where = self._means.rows.device
        new = torch.from_numpy(products).to(where)
        centred = recentre(new, self._means)
        scale = self._scale.to(where)
        for targets in blocks(self.dual_.shape[1], TARGETS):
            weights = torch.from_numpy(self.weights_[:, targets]).to(where) / scale[:, None]
            dual = torch.from_numpy(self.dual_[:, targets]).to(where).double()
            yield targets, ((centred @ dual) * weights[:, None, :]).cpu().numpy()

    def operator(self, X: ArrayLike, splits: Sequence[Split]) -> Float:
        """All held-out predictions with all bands alike and one penalty, fixed before any target is seen."""
        return self.operator_grams([rows @ rows.T for rows in self._bands(X)], splits)

    def operator_grams(
        self,
        grams: Sequence[ArrayLike],
        splits: Sequence[Split],
        *,
        members: Sequence[Sequence[int]] | None = None,
        penalty: float = 1.0,
    ) -> Float:
        """All held-out predictions with all bands alike and one penalty, as one matrix that multiplies the targets.

        Parameters
        ----------
        grams : sequence of array-like, shape (n, n)
        splits : sequence of (train, test)
        members : sequence of sequence of int, optional
            Which inner products make up each band, as `bands.combine` takes them; each is one if not given.
        penalty : float
            In units of the mean non-zero eigenvalue of each fold's training rows.

        Returns
        -------
        array, shape (n, n)
            Rows that are held out sum to one, as `prediction_operator`'s; others are zero.
        """
        parts = [[number] for number in range(len(grams))] if members is None else members
        n_items = len(np.asarray(grams[0]))
        operator = np.zeros((n_items, n_items))
        alike = np.full(len(parts), 1 / len(parts))
        for train, test in splits:
            products = combine(grams, parts, train)
            centred, means = centre(torch.from_numpy(products[:, train[:, None], train]))
            scale = lengths(centred)[:, None, None]
            inside = mixed(centred / scale, alike)
            unit = unit_of(inside, rank_of(torch.linalg.eigvalsh(inside)))
            inverse = solve(inside, torch.eye(len(train), dtype=torch.float64), penalty * unit)
            new = recentre(torch.from_numpy(products[:, test[:, None], train]), means)
            operator[np.ix_(test, train)] = 1 / len(train) + (mixed(new / scale, alike) @ inverse).numpy()
        return operator

    def _bands(self, X: ArrayLike) -> list[Float]:
        rows = np.asarray(X, dtype=np.float64)
        columns = [rows.shape[-1]] if self.columns is None else list(self.columns)
        if rows.ndim != 2 or sum(columns) != rows.shape[1]:
            raise ValueError(f"columns: expected {sum(columns)} columns of X, one after the other, got {rows.shape}")
        return np.split(rows, np.cumsum(columns)[:-1], axis=1)

    def _grid(self, n_bands: int) -> Float:
        given = np.logspace(-4, 4, 17 if n_bands == 1 else 9) if self.penalties is None else self.penalties
        grid = np.atleast_1d(np.array(given, dtype=np.float64))
        if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
            raise ValueError(f"penalties: expected positive numbers, got {self.penalties!r}")
        return grid

    def _candidates(self, n_bands: int) -> Float:
        if self.weights is None:
            return candidate_weights(n_bands, self.n_candidates, seed=self.seed)
        weights = np.asarray(self.weights, dtype=np.float64)
        fine = weights.ndim == 2 and weights.shape[1] == n_bands and (weights >= 0).all() and weights.any(axis=1).all()
        if not fine or not len(weights):
            raise ValueError(f"weights: expected rows of {n_bands} numbers from 0 on, not all 0, got {self.weights!r}")
        return weights

    def _search(
        self, grams: torch.Tensor, y: torch.Tensor, weights: Float, grid: Float
    ) -> tuple[NDArray[np.intp], list[int]]:
        """The candidate of least squared error, counted over weights and then penalties, and ranks by weights."""
        if len(weights) * len(grid) == 1:
            return np.zeros(y.shape[1], dtype=np.intp), [rank_of(torch.linalg.eigvalsh(mixed(grams, weights[0])))]
        folds = kfold(len(y), self.n_splits, seed=self.seed, shuffle=self.shuffle)
        best = torch.full((y.shape[1],), torch.inf, dtype=torch.float64, device=y.device)
        chosen, ranks = torch.zeros(y.shape[1], dtype=torch.int64, device=y.device), []
        everywhere = torch.arange(y.shape[1], device=y.device), [(slice(0, y.shape[1]), range(len(grid)))]
        rows = y.T.to(comparing_dtype(y.dtype, y.device, len(y))).contiguous()
        for number, g in enumerate(weights):
            wide = self.reach is None or number == 0 or (g > 0).sum() == 1
            order, spans = everywhere if wide else _near(chosen % len(grid), len(grid), int(self.reach or 0))
            some = rows if wide else rows[order]
            errors, rank = path_errors(mixed(grams, g), some, folds, grid, spans, relative=self.relative)
            ranks.append(rank)
            least, which = errors.min(dim=0)
            better = least < best[order]
            best[order] = torch.where(better, least, best[order])
            chosen[order] = torch.where(better, which + number * len(grid), chosen[order])
        return chosen.cpu().numpy(), ranks


def _near(steps: torch.Tensor, n_steps: int, reach: int) -> tuple[torch.Tensor, list[tuple[slice, range]]]:
    """Targets in the order of their best penalty so far, and the penalties within reach of each run of them."""
    order = torch.argsort(steps, stable=True)
    ends = np.cumsum(np.bincount(steps.cpu().numpy(), minlength=n_steps))
    spans = [
        (slice(int(start), int(end)), range(max(0, i - reach), min(n_steps, i + reach + 1)))
        for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
        if end > start
    ]
    return order, spans


def candidate_weights(n_bands: int, count: int | None = None, *, seed: int) -> Float:
    """Band weights to be tried: all bands alike, each band alone, and draws from Dirichlet distributions.

    Parameters
    ----------
    n_bands : int
    count : int, optional
        10 a band if not given, at most 50; never fewer than all alike and each alone.
    seed : int

    Returns
    -------
    array, shape (candidates, n_bands)
        Rows sum to one. Draws have concentrations .1 (few bands) and 1 (any mixture) in turn.
    """
    if n_bands == 1:
        return np.ones((1, 1))
    count = min(10 * n_bands, 50) if count is None else count
    rng = np.random.default_rng(seed)
    drawn = [rng.dirichlet(np.full(n_bands, (0.1, 1.0)[i % 2])) for i in range(max(0, count - n_bands - 1))]
    return np.vstack([np.full((1, n_bands), 1 / n_bands), np.eye(n_bands), *(row[None] for row in drawn)])


def _tables(grams: ArrayLike, Y: ArrayLike) -> tuple[Float, NDArray[np.floating]]:
    products, y = np.asarray(grams, dtype=np.float64), np.asarray(Y)
    if y.dtype not in (np.float32, np.float64):
        y = y.astype(np.float64)
    n = len(y)
    if products.ndim != 3 or y.ndim != 2 or products.shape[1:] != (n, n) or not len(products):
        raise ValueError(f"grams, Y: expected shapes (n_bands, n, n) and (n, V), got {products.shape} and {y.shape}")
    if n < 2:
        raise ValueError(f"Y: expected at least 2 rows, got {n}")
    if not np.isfinite(products).all():
        raise ValueError("grams: expected finite numbers, got NaN or infinity")
    return products, y
