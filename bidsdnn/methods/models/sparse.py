"""Lasso and elastic net of many targets at once.

The one idea: principal components of the training rows are orthogonal, and on orthogonal features both have a solution
in closed form, a soft threshold, so that a path of penalties costs as many matrix products and no iterations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from bidsdnn.methods.models.weighted import Weighted, components, tables, usable_blocks
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.reduce import float64_device

_SWEEPS, _ROUNDS = 10, 200
"""Sweeps of coordinate descent between two attempts to solve for the weights that are not 0, and attempts."""

_SYSTEM = 20_000_000
"""Numbers in the linear systems that are solved at a time."""


class ElasticNet(Weighted):
    """Elastic net was fitted to principal components of the training part, each target's penalty chosen within it.

    Minimises ||y - Z b - c||^2 / (2 n) + a r ||b||_1 + a (1 - r) ||b||^2 / 2, as scikit-learn's (Zou & Hastie, 2005,
    J. R. Stat. Soc. B 67, 301-320). Components Z are those of the rows that are fitted, so they are found anew in each
    inner fold. As they are orthogonal, b_j is the soft threshold of z_j'y / n at a r, over z_j'z_j / n + a (1 - r).

    Parameters
    ----------
    penalties : sequence of float, optional
        Shares of each target's least penalty with which all weights are 0; 16 from .9 to .001 in equal ratios if not
        given, so that some weight is left and every target has a score. A single one is used without cross-validation.
    l1_ratio : float
        r, above 0; 1 is the lasso.
    n_components : int or None
        Principal components at most. None or 0: the features as they are, by coordinate descent, for layers or feature
        spaces of a few hundred columns.
    n_splits : int
        Inner folds over the rows.
    seed : int
        Of the inner folds' shuffle.
    device : str
        Where torch multiplies; float64, so ``mps`` falls back to the CPU.
    relative : bool
        Whether penalties are shares as above, or a itself, as scikit-learn's ``alpha``.
    shuffle : bool
        Whether rows are dealt to the inner folds at random; else those are stretches of neighbours, as series need.

    Attributes
    ----------
    coef_ : array, shape (p, V)
        Weights of the features, with components too.
    penalty_ : array, shape (V,)
        The penalty chosen, in the unit of ``penalties``: of least squared error over the held-out inner rows, the
        larger one in a tie.
    n_nonzero_ : array, shape (V,)
        Components, or features, whose weight is not 0.
    """

    separable = True
    references: tuple[str, ...] = ("elastic-net",)

    def __init__(
        self,
        penalties: Sequence[float] | None = None,
        l1_ratio: float = 0.5,
        n_components: int | None = 100,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        relative: bool = True,
        shuffle: bool = True,
    ) -> None:
        self.penalties = penalties
        self.l1_ratio = l1_ratio
        self.n_components = n_components
        self.n_splits = n_splits
        self.seed = seed
        self.device = device
        self.relative = relative
        self.shuffle = shuffle

    @property
    def takes(self) -> str:
        """The features themselves where no components are taken: weights of rotated ones are zero elsewhere."""
        return "rotation" if self.n_components else "units"

    def said(self) -> str:
        """What the parameters make of the fit, as a sentence of the Methods."""
        if not self.n_components:
            return "It was given the features themselves."
        return f"Components were those of the rows that each fit saw, at most {self.n_components}."

    def fixed(self) -> ElasticNet:
        """The model with a penalty fixed before any target is seen: .3 of the least that leaves no weight."""
        if len(self._grid()) == 1:
            return self
        return type(self)(**{**self.get_params(), "penalties": (0.3,), "relative": True})

    def fit(self, X: ArrayLike, Y: ArrayLike) -> ElasticNet:
        """Choose a penalty for each target, then fit all rows.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Finite; p may exceed n, or be 0.
        Y : array-like, shape (n, V)
            Targets. With float32 targets products of components are in float32.

        Raises
        ------
        ValueError
            If shapes disagree, X is not finite, a parameter is out of range, or rows are fewer than inner folds.
        """
        x, y = tables(X, Y)
        grid = self._grid()
        if not 0 < self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio: expected above 0, at most 1, got {self.l1_ratio}")
        where = float64_device(self.device)
        rows = torch.from_numpy(x).to(where)
        kind = torch.float32 if y.dtype == np.float32 else torch.float64
        folds = kfold(len(x), self.n_splits, seed=self.seed, shuffle=self.shuffle) if len(grid) > 1 else []
        inner = [
            (train, test, _Design.of(rows[train], self.n_components, kind), rows[test])
            for train, test in (tuple(torch.from_numpy(index).to(where) for index in fold) for fold in folds)
        ]
        whole = _Design.of(rows, self.n_components, kind)
        self._empty(x, y)
        self.penalty_, self.n_nonzero_ = np.full(y.shape[1], np.nan), np.zeros(y.shape[1], dtype=int)
        for columns in usable_blocks(y):
            part = torch.from_numpy(y[:, columns]).to(where)
            alphas = self._alphas(whole.correlations(part), grid)
            errors = torch.zeros(len(grid), len(columns), dtype=torch.float64, device=where)
            for train, test, design, held_out in inner:
                errors += self._errors(design, part[train], held_out, part[test], alphas)
            chosen = errors.argmin(dim=0)
            alpha = alphas.gather(0, chosen[None])
            weights = next(self._path(whole, part, alpha))
            self.coef_[:, columns] = (whole.axes @ weights).cpu().numpy()
            self.n_nonzero_[columns] = (weights != 0).sum(dim=0).cpu().numpy()
            self.mean_[columns] = part.mean(dim=0, dtype=torch.float64).cpu().numpy()
            self.penalty_[columns] = grid[chosen.cpu().numpy()]
        return self

    def _grid(self) -> NDArray[np.float64]:
        penalties = np.geomspace(0.9, 0.001, 16) if self.penalties is None else self.penalties
        grid = np.atleast_1d(np.array(penalties, dtype=np.float64))
        if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
            raise ValueError(f"penalties: expected positive numbers, got {self.penalties!r}")
        # From the largest on, each solution is near the one before.
        return np.sort(grid)[::-1]

    def _alphas(self, correlations: torch.Tensor, grid: NDArray[np.float64]) -> torch.Tensor:
        """Penalties of scikit-learn's scale for each target, shape (penalties, V)."""
        shares = torch.from_numpy(grid.copy()).to(correlations)[:, None]
        if not self.relative:
            return shares.expand(-1, correlations.shape[1])
        if not len(correlations):
            return shares.expand(-1, correlations.shape[1]) * 0
        return shares * correlations.abs().amax(dim=0) / self.l1_ratio

    def _path(self, design: _Design, y: torch.Tensor, alphas: torch.Tensor) -> Iterator[torch.Tensor]:
        """Weights (k, V) for one row of penalties (V,) after the other."""
        correlations = design.correlations(y)
        weights = torch.zeros_like(correlations)
        for alpha in alphas:
            if design.products is None:
                weights = _threshold(correlations, alpha * self.l1_ratio)
                weights = weights / (design.spread[:, None] + alpha * (1 - self.l1_ratio))
            else:
                weights = _descend(design.products, correlations, alpha, self.l1_ratio, weights)
            yield weights

    def _errors(
        self, design: _Design, y: torch.Tensor, rows: torch.Tensor, measured: torch.Tensor, alphas: torch.Tensor
    ) -> torch.Tensor:
        """Squared error of each penalty for each target over held-out rows, (penalties, V)."""
        scores = ((rows - design.center) @ design.axes.double()).to(design.axes.dtype)
        deviations = (measured - y.mean(dim=0)).to(scores.dtype)
        wrong = [
            (scores @ weights).sub_(deviations).square_().sum(dim=0).double()
            for weights in self._path(design, y, alphas)
        ]
        return torch.stack(wrong)


class Lasso(ElasticNet):
    """Lasso was fitted to principal components of the training part, each target's penalty chosen within it.

    `ElasticNet` whose whole penalty is on absolute weights (Tibshirani, 1996, J. R. Stat. Soc. B 58, 267-288).

    Parameters
    ----------
    penalties, n_components, n_splits, seed, device, relative, shuffle
        As in `ElasticNet`.
    """

    references = ("lasso",)

    def __init__(
        self,
        penalties: Sequence[float] | None = None,
        n_components: int | None = 100,
        n_splits: int = 5,
        seed: int = 0,
        device: str = "cpu",
        *,
        relative: bool = True,
        shuffle: bool = True,
    ) -> None:
        super().__init__(
            penalties, 1.0, n_components, n_splits, seed, device, relative=relative, shuffle=shuffle
        )  # fmt: skip


@dataclass(frozen=True)
class _Design:
    """Centred features of some rows, as components or as they are."""

    center: torch.Tensor
    axes: torch.Tensor
    """(p, k) from features to columns."""
    scores: torch.Tensor
    """(n, k)."""
    spread: torch.Tensor
    """(k,) mean squares of the columns."""
    products: torch.Tensor | None
    """(k, k) mean products of the columns; None if those are orthogonal."""

    @classmethod
    def of(cls, rows: torch.Tensor, n_components: int | None, kind: torch.dtype) -> _Design:
        """Components of rows (n, p), or their columns."""
        if n_components:
            table = components(rows, n_components)
            scores, axes, products = table.left * table.scale, table.right, None
            center = table.mean
        else:
            center = rows.mean(dim=0)
            scores = rows - center
            # Less than rounding leaves of a column that does not vary.
            scores[:, scores.abs().amax(dim=0) <= 1e-12 * rows.abs().amax(dim=0)] = 0
            axes = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
            products, kind = scores.T @ scores / len(rows), torch.float64
        return cls(center, axes.to(kind), scores.to(kind), scores.square().mean(dim=0).to(kind), products)

    def correlations(self, y: torch.Tensor) -> torch.Tensor:
        """Mean products of columns and centred targets, (k, V)."""
        return self.scores.T @ (y - y.mean(dim=0)).to(self.scores.dtype) / len(y)


def _threshold(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return values.sign() * (values.abs() - at).clamp(min=0)


def _descend(
    products: torch.Tensor, correlations: torch.Tensor, alpha: torch.Tensor, ratio: float, start: torch.Tensor
) -> torch.Tensor:
    """Coordinate descent for all targets at a time (Friedman, Hastie & Tibshirani, 2010, J. Stat. Softw. 33(1)).

    Some sweeps find which weights are 0; the others then solve a linear system, which is exact, and whose solution says
    itself whether those were the right ones.
    """
    weights = start.clone()
    if not len(weights):
        return weights
    unsolved = torch.arange(weights.shape[1], device=weights.device)
    for _ in range(_ROUNDS):
        part = _sweep(products, correlations[:, unsolved], alpha[unsolved], ratio, weights[:, unsolved])
        step = max(1, _SYSTEM // max(len(weights) ** 2, 1))
        exact = [
            _solve(products, correlations[:, some], alpha[some], ratio, part[:, place : place + step])
            for place, some in ((at, unsolved[at : at + step]) for at in range(0, len(unsolved), step))
        ]
        solved = torch.cat([right for _, right in exact])
        weights[:, unsolved] = torch.where(solved, torch.cat([found for found, _ in exact], dim=1), part)
        unsolved = unsolved[~solved]
        if not len(unsolved):
            return weights
    warnings.warn(
        f"{len(unsolved)} targets had not converged after {_ROUNDS * _SWEEPS} sweeps; take larger penalties, or "
        "n_components",
        ConvergenceWarning,
        stacklevel=2,
    )
    return weights


def _sweep(
    products: torch.Tensor, correlations: torch.Tensor, alpha: torch.Tensor, ratio: float, start: torch.Tensor
) -> torch.Tensor:
    """Sweeps over all features, each weight set to its best while the others stay."""
    weights, spread = start.clone(), products.diagonal()
    left = correlations - products @ weights
    for _ in range(_SWEEPS):
        for j in torch.nonzero(spread > 0)[:, 0].tolist():
            best = _threshold(left[j] + spread[j] * weights[j], alpha * ratio) / (spread[j] + alpha * (1 - ratio))
            left -= products[:, j, None] * (best - weights[j])
            weights[j] = best
    return weights


def _solve(
    products: torch.Tensor, correlations: torch.Tensor, alpha: torch.Tensor, ratio: float, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (p, V) where the same ones are 0 and signs are the same, and for which targets those are the minimum."""
    signs = weights.sign()
    active = signs.abs()
    ridge = alpha * (1 - ratio)
    diagonal = (active * ridge + 1 - active).T
    systems = products * active.T[:, :, None] * active.T[:, None, :] + torch.diag_embed(diagonal)
    wanted = (correlations - alpha * ratio * signs) * active
    found, failed = torch.linalg.solve_ex(systems, wanted.T[:, :, None])
    solution = found[:, :, 0].T
    gradient = correlations - products @ solution - ridge * solution
    least = 1e-9 * correlations.abs().amax(dim=0)
    kept = ((solution * signs >= 0) & solution.isfinite()).all(dim=0)
    zeros = (gradient.abs() * (1 - active) <= alpha * ratio + least).all(dim=0)
    # A system that is nearly singular has a solution that does not solve it.
    level = ((gradient - alpha * ratio * signs).abs() * active <= least * 1e3).all(dim=0)
    return solution, kept & zeros & level & (failed == 0)
