"""One layer by itself: profiles of its channels, its dimensions, and groups of channels and of stimuli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage, optimal_leaf_ordering
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist
from sklearn.cluster import KMeans

from bidsdnn.bids.names import label
from bidsdnn.errors import ConfigError
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.tuning import components_for, participation_ratio, sparseness_of, variances_of, vinje_gallant
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group
from bidsdnn.probes.pictures import coloured

CLUSTERINGS = ("hierarchical", "kmeans")
BLOCK = 8192
"""Columns of a layer that are read at a time."""
ORDERED = 500
"""Leaves whose optimal order is sought; of more it takes too long, and the order is that of the linkage."""
MOST = 5000
"""Leaves of a tree: of more, distances of all pairs fill the memory, and k-means finds the groups."""
WIDEST = 700
"""Pixels of a picture's longer side, above which rows or columns are averaged."""
LIMIT = 2.5


@dataclass(frozen=True, eq=False)
class Clustered:
    """What was found of a layer.

    Parameters
    ----------
    name : str
    profiles : ndarray, shape (n, n_channels)
        Mean of each channel over its positions.
    layer : dict
        Row of the table of layers.
    stimulus_clusters, stimulus_places : ndarray of int, shape (n,)
        Groups, and places in the picture, from 1.
    channel_clusters, channel_places : ndarray of int, shape (n_channels,)
        The same of channels.
    """

    name: str
    profiles: np.ndarray
    layer: dict[str, Any]
    stimulus_clusters: np.ndarray
    stimulus_places: np.ndarray
    channel_clusters: np.ndarray
    channel_places: np.ndarray

    @property
    def label(self) -> str:
        """The layer in file names."""
        return label(self.name)

    def stimuli(self, ids: Sequence[str]) -> pd.DataFrame:
        """Rows of the table of stimuli."""
        columns = {"stimulus_id": ids, "cluster": self.stimulus_clusters, "order": self.stimulus_places}
        return pd.DataFrame({"layer": self.name, **columns})

    def drawn(self) -> np.ndarray:
        """Profiles in standard deviations, in the order of groups, as a picture."""
        spread = self.profiles.std(0)
        scaled = (self.profiles - self.profiles.mean(0)) / np.where(spread > 0, spread, 1)
        picture = scaled[np.argsort(self.stimulus_places)][:, np.argsort(self.channel_places)].T
        for axis in (0, 1):
            picture = _averaged(picture, axis)
        # About as high as wide, however many channels there are: a page shows it at full width.
        times = [max(1, WIDEST // size) for size in picture.shape]
        picture = picture.repeat(times[0], 0).repeat(times[1], 1)
        return coloured(picture, low=-LIMIT, high=LIMIT)


def _averaged(values: np.ndarray, axis: int) -> np.ndarray:
    """Neighbours averaged where there are more than can be seen."""
    size = values.shape[axis]
    if size <= WIDEST:
        return values
    starts = np.linspace(0, size, WIDEST, endpoint=False).astype(int)
    counts = np.diff(np.append(starts, size))
    sums = np.add.reduceat(values, starts, axis=axis)
    return sums / np.expand_dims(counts, 1 - axis)


@dataclass(frozen=True)
class LayerWork:
    """`clustered_layer` with its parameters; sent to a worker with each layer."""

    clustering: str
    clusters: int
    seed: int

    def __call__(self, group: Group) -> Clustered:
        """Look at one layer."""
        seed = seed_for(self.seed, "clusters", group.name)
        return clustered_layer(group, clustering=self.clustering, clusters=self.clusters, seed=seed)


def check_clusters(clustering: str, clusters: int) -> None:
    """Refuse parameters of grouping that make no sense.

    Parameters
    ----------
    clustering : str
    clusters : int

    Raises
    ------
    ConfigError
    """
    if clustering not in CLUSTERINGS:
        raise ConfigError(f"parameters.probe.clustering = {clustering!r}: choose one of {', '.join(CLUSTERINGS)}")
    if not isinstance(clusters, int) or clusters < 1:
        raise ConfigError(f"parameters.probe.clusters = {clusters!r}: give how many, from 1")


def clustered_layer(group: Group, *, clustering: str, clusters: int, seed: int) -> Clustered:
    """Sparseness was computed with negative activations taken as 0, dimensions from the covariance of all units.

    Parameters
    ----------
    group : Group
        A layer.
    clustering : str
    clusters : int
    seed : int
        Of k-means.

    Returns
    -------
    Clustered
    """
    n, p = group.values.shape
    profiles, positive = _pass(group)
    inner = group.gram()[0]
    variances = variances_of(inner)
    known = positive["unit_squares"] > 0
    lifetime = vinje_gallant(sparseness_of(positive["unit_sums"], positive["unit_squares"], n), n)
    population = vinje_gallant(sparseness_of(positive["row_sums"], positive["row_squares"], p), p)
    layer = {
        "layer": group.name, "n_units": p, "n_channels": profiles.shape[1], "n_stimuli": n,
        "participation_ratio": participation_ratio(variances), "n_components_80": components_for(variances, 0.8),
        "lifetime_sparseness": float(lifetime[known].mean()) if known.any() else np.nan,
        "population_sparseness": float(np.nanmean(population)) if np.isfinite(population).any() else np.nan,
        "silent": float((~known).mean()),
    }  # fmt: skip
    rows, row_places = (
        _near(_rows_as_points(inner), clusters, seed) if clustering == "kmeans" or n > MOST
        else _linked(group.rdm("correlation"), n, clusters)
    )  # fmt: skip
    points = _standardised(profiles.T)
    columns, column_places = (
        _near(points, clusters, seed) if clustering == "kmeans" or len(points) > MOST
        else _linked(pdist(points, "correlation"), len(points), clusters)
    )  # fmt: skip
    return Clustered(group.name, profiles, layer, rows, row_places, columns, column_places)


def _pass(group: Group) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Means of channels over positions, and sums of what is above 0, in one pass over blocks of columns."""
    n, p = group.values.shape
    channel = _channel_of(group)
    n_channels = int(channel.max()) + 1
    profiles = np.zeros((n, n_channels))
    sums = {"unit_sums": np.zeros(p), "unit_squares": np.zeros(p), "row_sums": np.zeros(n), "row_squares": np.zeros(n)}
    for some in blocks(p, BLOCK):
        values = np.asarray(group.values[:, some], dtype=np.float64)
        own = channel[some]
        member = csr_array((np.ones(len(own)), (np.arange(len(own)), own)), shape=(len(own), n_channels))
        profiles += values @ member
        values = np.maximum(values, 0)
        sums["unit_sums"][some], sums["row_sums"] = values.sum(0), sums["row_sums"] + values.sum(1)
        values **= 2
        sums["unit_squares"][some], sums["row_squares"] = values.sum(0), sums["row_squares"] + values.sum(1)
    return profiles / np.bincount(channel), sums


def _channel_of(group: Group) -> np.ndarray:
    """Channel of each column of a layer."""
    p = group.values.shape[1]
    if len(group.shape) < 2 or int(np.prod(group.shape)) != p:
        return np.arange(p)
    axis = group.channel_axis or 0
    channels = np.arange(group.shape[axis]).reshape([-1 if one == axis else 1 for one in range(len(group.shape))])
    return np.broadcast_to(channels, group.shape).ravel()


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and variance 1; a row that does not vary stays 0."""
    spread = rows.std(1, keepdims=True)
    return np.asarray((rows - rows.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1))


def _rows_as_points(inner: np.ndarray) -> np.ndarray:
    """Coordinates of the rows that have the same distances, in as few dimensions as there are rows."""
    centred = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def _near(points: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups by k-means, and places from the nearest to a group's centre to the farthest, both from 1."""
    # Points that are the same make no more groups than there are different ones.
    clusters = min(clusters, len(np.unique(points, axis=0)))
    found = KMeans(clusters, n_init=10, random_state=seed).fit(points)
    gap = np.linalg.norm(points - found.cluster_centers_[found.labels_], axis=1)
    return _numbered(found.labels_, np.lexsort([gap, found.labels_]))


def _linked(distances: np.ndarray, n: int, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups by average linkage of condensed distances, and places of the leaves, both from 1."""
    if n < 3:
        return np.minimum(np.arange(1, n + 1), clusters), np.arange(1, n + 1)
    # Where a row does not vary it has no correlation, and is as far from all others as unrelated ones are.
    distances = np.nan_to_num(distances, nan=1.0)
    tree = linkage(distances, "average")
    tree = optimal_leaf_ordering(tree, distances) if n <= ORDERED else tree
    return _numbered(fcluster(tree, clusters, "maxclust"), leaves_list(tree))


def _numbered(raw: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups as they follow each other in an order, and each item's place in it, both from 1."""
    places = np.empty(len(order), dtype=int)
    places[order] = np.arange(1, len(order) + 1)
    number = {one: i for i, one in enumerate(dict.fromkeys(raw[order].tolist()), 1)}
    return np.array([number[one] for one in raw.tolist()]), places
