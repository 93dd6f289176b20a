"""What an analysis found: maps, tables and arrays, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

COLUMN = "column"
"""What stands for a network where a column of a table is the model: behaviour, categories."""
WEIGHTED = "weighted"
"""What stands for a layer where all of a network's are weighted together."""
JOINT = "joint"
"""What stands for a layer where all bands are one model."""


@dataclass(frozen=True, eq=False)
class Map:
    """One statistic of every column of a brain, for one or several layers.

    Parameters
    ----------
    stat : str
        What the numbers are, as ``pearsonr``; goes into the file's name, if it is not empty.
    values : ndarray, shape (k, n_columns) or (n_columns,)
        One row a layer.
    network : str
        Label of the network; empty where none is involved.
    sidecar : mapping
        Further keys of the JSON file beside the map.
    desc : str
        Goes after ``desc-``; by default the analysis' name.
    """

    stat: str
    values: np.ndarray
    network: str = ""
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    desc: str = ""


@dataclass(frozen=True, eq=False)
class Matrices:
    """Symmetric matrices over the same items, other than the regions' RDMs.

    Parameters
    ----------
    desc : str
        Goes after ``desc-``.
    ids : sequence of str
        Items, in the matrices' order.
    values : mapping of str to ndarray, shape (n * (n - 1) / 2,)
        Condensed, by name.
    atlas, network : str
        Go into the file's name, where they are not empty.
    sidecar : mapping
        Further keys of the JSON file beside them.
    """

    desc: str
    ids: Sequence[str]
    values: Mapping[str, np.ndarray]
    atlas: str = ""
    network: str = ""
    sidecar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Columns:
    """Numbers of every stimulus and column of a brain, by layer, which are read a block of columns at a time.

    Parameters
    ----------
    suffix : str
        What they are, in the file's name, as ``predictions``.
    network : str
    ids : sequence of str
        Stimuli of the rows.
    size : int
        Columns.
    tables : mapping of str to callable
        By dataset: gives the rows, shape (n, k), of a slice of k columns.
    vectors : mapping of str to ndarray, shape (size,)
        Datasets of one number a column.
    sidecar : mapping
        Further keys of the JSON file beside them.
    dtypes : mapping of str to str
        Of the tables that are not in float32.
    """

    suffix: str
    network: str
    ids: Sequence[str]
    size: int
    tables: Mapping[str, Callable[[slice], np.ndarray]]
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is a result by itself: a sheet of stimuli, a map of pixels, a stimulus that was made.

    Parameters
    ----------
    name : str
        Goes after ``label-``, of letters, digits and ``+``; once in a result.
    pixels : ndarray of uint8, shape (height, width, 3)
    alt : str
        What it shows, for those who cannot see it.
    caption : str
        What a reader needs to know of it: n, scale, colours.
    unit : str
        The unit that it is about, as ``--unit`` has it; pictures of one unit stand together.
    """

    name: str
    pixels: np.ndarray
    alt: str
    caption: str
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Result:
    """What an analysis found.

    Parameters
    ----------
    analysis : str
        Its name in file names, as ``encoding``.
    maps : tuple of Map
    tables : mapping of str to DataFrame
        By the name that goes after ``desc-``: one row a layer, region and measure, with columns ``network`` and
        ``atlas`` among the others, which become parts of the file's name.
    arrays : mapping of str to (list of str, mapping of str to ndarray)
        By atlas: the stimuli, and the condensed RDM of each region.
    matrices : tuple of Matrices
        Others, as the RDMs of each run.
    covariances : mapping of str to mapping of str to (ndarray, ndarray)
        By atlas and region: columns of the space, and the covariance of their noise, or their variances alone.
    columns : tuple of Columns
        Large arrays of every column, as predictions.
    pictures : tuple of Picture
    weights : mapping of str to bytes
        Files of weights that were learnt, by the network's label.
    numbers : mapping of str to ndarray
        Arrays of a network's units or stimuli, which become datasets of one HDF5 file; texts are allowed.
    sidecar : mapping
        What a reader needs to know to trust the numbers: methods, number of stimuli, folds, permutations.
    """

    analysis: str
    maps: tuple[Map, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    arrays: Mapping[str, tuple[Sequence[str], Mapping[str, np.ndarray]]] = field(default_factory=dict)
    matrices: tuple[Matrices, ...] = ()
    covariances: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    columns: tuple[Columns, ...] = ()
    pictures: tuple[Picture, ...] = ()
    weights: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
