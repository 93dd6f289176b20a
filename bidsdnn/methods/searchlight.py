"""Searchlights: the geometry of every small neighbourhood of a brain, compared with that of models.

The one idea: the RDMs of a block of centres are ranked once; every relabelling of the stimuli moves the models, which
are few, and costs one product with all centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bidsdnn.methods.neighbourhoods import Neighbourhoods, mean_ranks
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.similarity import SIMILARITIES, label_permutation
from bidsdnn.methods.transforms import SIDES, condensed_to_square, n_stimuli

Float = NDArray[np.float64]

_CENTRES = 2048
_PAIRS = 24_000_000
"""Centres of a block, at most, and distances of a block; constants, so that blocks do not follow the workers."""
_FEWEST_CENTRES = 256
"""Centres of a block, at least: moving the models is paid by the block."""
_MOVED = 16_000_000
"""Distances of relabelled models, and numbers of their products, held at a time."""


class Found(NamedTuple):
    """What a searchlight found at each centre."""

    similarity: Float
    """(m, centres) similarity of each model's RDM; NaN where there is no RDM."""
    p: Float
    """(m, centres) (1 + b) / (1 + permutations), of each centre by itself; NaN without permutations."""
    p_familywise: Float
    """(m, centres) the same of the largest similarity over all centres and models."""
    n_voxels: NDArray[np.intp]
    """(centres,) usable columns of each neighbourhood; fewer than 2 make no RDM."""


class Part(NamedTuple):
    """What a block of centres found."""

    similarity: Float
    reached: NDArray[np.intp]
    largest: Float
    squares: Float


def serial(function: Callable[[Any], Any], items: Iterable[Any], *, label: str = "") -> list[Any]:
    """Apply a function to items one after the other; stands where a parallel map may."""
    return [function(item) for item in items]


def searchlight(
    values: ArrayLike,
    adjacency: csr_array,
    models: ArrayLike,
    *,
    metric: str = "correlation",
    comparison: str = "spearman",
    permutations: int = 0,
    seed: int = 0,
    device: str = "cpu",
    map: Callable[..., list[Any]] = serial,
) -> Found:
    """The RDM of the neighbourhood of every centre was compared with each model's (searchlight RSA).

    Kriegeskorte, Goebel & Bandettini (2006), PNAS 103, 3863-3868; Nili et al. (2014). Stimulus labels are permuted on
    the model's side, in the same way for all centres and models, so that the largest similarity of each relabelling
    controls the family-wise error over them (Nichols & Holmes, 2002). Before the largest is taken, a model's
    similarities are divided by their root mean square over centres and relabellings, the identity included: models
    whose similarities scatter more by chance do not set the bar for the others.

    Parameters
    ----------
    values : array-like, shape (n, V)
        Responses to n stimuli. A column that is not finite throughout is left out of every neighbourhood.
    adjacency : sparse array of bool, shape (centres, V)
        A row marks the columns of a neighbourhood.
    models : array-like, shape (m, n * (n - 1) / 2)
        Condensed RDMs of the same stimuli.
    metric : str
        A row of `DISSIMILARITIES` that needs neither precision nor folds; correlation, cosine, euclidean, sqeuclidean
        and spearman in batches, others one by one.
    comparison : str
        A row of `SIMILARITIES`. Kendall's tau costs a count for each centre, model and relabelling.
    permutations : int
        Relabellings; the cost of each is a product (centres, pairs) @ (pairs, m).
    seed : int
    device : str
        Where torch multiplies.
    map : callable
        ``map(function, items, label=...)``; spreads blocks of centres. The result is the same for any.

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        If shapes disagree, there are fewer than 4 stimuli, or the metric or comparison is unknown.
    """
    near = Neighbourhoods.of(values, adjacency, metric=metric, device=device)
    n, known = near.columns.shape[1], np.asarray(models, dtype=np.float64)
    if known.ndim != 2 or n_stimuli(known.shape[1]) != n:
        raise ValueError(f"models: expected the pairs of {n} stimuli in each row, got shape {known.shape}")
    if comparison not in SIMILARITIES:
        raise ValueError(f"comparison: expected one of {sorted(SIMILARITIES)}, got {comparison!r}")
    rng = np.random.default_rng(seed)
    # The models are moved, which is moving the brains the inverse way: the relabellings are those of a region's test.
    orders = np.array([np.argsort(rng.permutation(n)) for _ in range(permutations)], dtype=np.intp)
    work = _Work(near, known, orders.reshape(permutations, n), comparison, seed)
    step = int(np.clip(_PAIRS // known.shape[1], _FEWEST_CENTRES, _CENTRES))
    parts: list[Part] = map(work, list(blocks(len(near.sizes), step)), label="searchlight")
    similarity = np.concatenate([part.similarity for part in parts])
    p = p_familywise = np.full(similarity.shape, np.nan)
    if permutations:
        unknown = np.isnan(similarity)
        p = np.where(unknown, np.nan, (1 + np.concatenate([part.reached for part in parts])) / (1 + permutations))
        largest = np.max([part.largest for part in parts], axis=0)
        squares = np.sum([part.squares for part in parts], axis=0)
        p_familywise = familywise(similarity, largest, squares)
    return Found(np.clip(similarity, -1, 1).T, p.T, p_familywise.T, near.sizes)


def familywise(observed: Float, largest: Float, squares: Float, *, tolerance: float = 1e-6) -> Float:
    """Family-wise p over centres and models: how often the largest of a relabelling reaches the observed value.

    Parameters
    ----------
    observed : array, shape (centres, m)
    largest : array, shape (permutations, m)
        Over centres, under each relabelling; -inf for a model without any.
    squares : array, shape (m,)
        Sum of squares over centres and relabellings, which sets each model's scale.
    tolerance : float
        Of what counts as reached.

    Returns
    -------
    array, shape (centres, m)
        (1 + b) / (1 + permutations); NaN where ``observed`` is.
    """
    known = np.isfinite(observed)
    # The observed labels are one relabelling of many, and count in the scale as any other.
    scale = np.sqrt(squares + (np.where(known, observed, 0) ** 2).sum(axis=0))
    scale *= 1 / np.sqrt(np.maximum(known.sum(axis=0) * (1 + len(largest)), 1))
    scale = np.where(scale > 0, scale, 1.0)
    best = np.sort((largest / scale).max(axis=1, initial=-np.inf))
    reached = len(best) - np.searchsorted(best, (observed - tolerance) / scale, side="left")
    return np.where(known, (1 + reached) / (1 + len(best)), np.nan)


@dataclass(frozen=True, eq=False)
class _Work:
    """What a block of centres needs; sent to a worker once."""

    near: Neighbourhoods
    models: Float
    orders: NDArray[np.intp]
    comparison: str
    seed: int

    def __call__(self, centres: slice) -> Part:
        """Compare the RDMs of some centres with the models and with the relabelled models."""
        if self.comparison not in SIDES:
            return self._one_by_one(self.near.rdms(centres, lambda brains: brains).cpu().numpy())
        still = self.near.rdms(centres, partial(_still, self.comparison))
        moved = SIDES[self.comparison](self.models)[1]
        # A side is NaN throughout or nowhere.
        rows, layers = torch.isfinite(still[:, 0]), np.isfinite(moved).all(axis=1)
        still = still if bool(rows.all()) else still[rows]
        squares = np.stack([condensed_to_square(model).ravel() for model in moved[layers]]) if layers.any() else None
        similarity = np.full((len(rows), len(moved)), np.nan)
        reached = np.zeros(similarity.shape, dtype=np.intp)
        largest, power = np.full((len(self.orders), len(moved)), -np.inf), np.zeros(len(moved))
        if squares is None or not len(still):
            return Part(similarity, reached, largest, power)
        flat = torch.from_numpy(squares).to(still)
        models = flat[:, _places(np.arange(self.near.columns.shape[1])[None], still.device)[0]]
        observed = still @ models.T
        known = np.ix_(rows.cpu().numpy(), layers)
        similarity[known] = observed.double().cpu().numpy()
        threshold = observed[:, None] - (1e-10 if still.dtype == torch.float64 else 1e-6)
        count = torch.zeros(observed.shape, dtype=torch.int64, device=still.device)
        step = max(1, _MOVED // (len(flat) * max(still.shape[1], len(still))))
        for some in blocks(len(self.orders), step):
            places = _places(self.orders[some], still.device)
            # (m, k, pairs) -> (centres, k, m): one product for all models and relabellings of the block.
            under = (
                (still @ flat[:, places.flatten()].reshape(-1, still.shape[1]).T)
                .reshape(len(still), len(flat), len(places))
                .transpose(1, 2)
            )
            count += (under >= threshold).sum(dim=1)
            largest[some, layers] = under.amax(dim=0).double().cpu().numpy()
            power[layers] += torch.linalg.vector_norm(under, dim=(0, 1), dtype=torch.float64).cpu().numpy() ** 2
        reached[known] = count.cpu().numpy()
        return Part(similarity, reached, largest, power)

    def _one_by_one(self, brains: NDArray[Any]) -> Part:
        """Kendall's tau, which is no inner product."""
        if not len(self.orders):
            compare = SIMILARITIES[self.comparison]
            similarity = np.array([[compare(model, brain) for model in self.models] for brain in brains])
            return Part(similarity.reshape(len(brains), -1), np.zeros(0, np.intp), np.zeros((0, 0)), np.zeros(0))
        similarity, p, null = label_permutation(
            self.models, brains.astype(np.float64), comparison=self.comparison, permutations=len(self.orders),
            seed=self.seed, return_null=True,
        )  # fmt: skip
        reached = np.nan_to_num(p * (1 + len(self.orders)) - 1).round().astype(np.intp)
        largest = np.where(np.isnan(null), -np.inf, null).max(axis=2, initial=-np.inf)
        return Part(similarity.T, reached.T, largest, np.nansum(null**2, axis=(0, 2)))


def _still(comparison: str, brains: torch.Tensor) -> torch.Tensor:
    """The brain's side of a comparison, as `SIDES` has it, in batches and in the precision of the work."""
    if comparison not in ("spearman", "pearson", "cosine"):
        sides = SIDES[comparison](brains.double().cpu().numpy())[0]
        return torch.from_numpy(sides).to(brains)
    origin = brains
    if comparison == "spearman":
        brains = origin = mean_ranks(brains)
    elif comparison == "pearson":
        brains = brains - brains.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(brains, dim=1, keepdim=True)
    least = 4 * torch.finfo(brains.dtype).eps * torch.linalg.vector_norm(origin, dim=1, keepdim=True)
    return brains / torch.where(length > least, length, torch.nan)


def _places(orders: NDArray[np.intp], device: torch.device) -> torch.Tensor:
    """Where the pairs are found in the flattened square matrix after relabellings (k, n), as (k, pairs)."""
    n = orders.shape[1]
    first, second = np.triu_indices(n, 1)
    return torch.from_numpy(orders[:, first] * n + orders[:, second]).to(device)
