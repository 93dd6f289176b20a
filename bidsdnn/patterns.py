"""The table that both sides fill: items x columns, with the items' identity beside it.

A brain's table has one group of columns, its voxels; a network's has one group a layer. Tables are joined by
``stimulus_id`` and never by order, and a stimulus without a partner stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bidsdnn.lookup import resolve
from bidsdnn.methods.rdm import DISSIMILARITIES, FROM_GRAM, from_gram
from bidsdnn.methods.reduce import blocks, gram

BLOCK = 8192
"""Columns averaged at a time."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a larger table, read only when a block of columns is asked for.

    Parameters
    ----------
    values : array-like, shape (n_stored, p)
        Anything with ``shape`` that can be sliced by columns.
    index : ndarray of int, shape (n,)
        Which stored row is row i.
    """

    values: Any
    index: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.index), self.values.shape[1]

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        rows, columns = key
        return np.asarray(self.values[:, columns])[self.index][rows]


@dataclass(frozen=True, eq=False)
class Group:
    """A named group of columns: one layer of one network, or a brain.

    Parameters
    ----------
    name : str
        The layer's dotted name, or ``brain``.
    values : array-like, shape (n, p)
        In memory or on disk; sliced by columns.
    network : str
        Label of the network it belongs to; empty for a brain.
    shape : tuple of int
        Of one item's values before they were flattened; empty where it is not known.
    channel_axis : int or None
        Which axis of that shape is the channels; None where it is not known.
    """

    name: str
    values: Any
    network: str = ""
    shape: tuple[int, ...] = ()
    channel_axis: int | None = None

    def gram(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Inner products of the rows, shape (n, n), the rows' sums, and the number of columns."""
        inner, sums = gram(self.values)
        return inner, sums, self.values.shape[1]

    def rdm(self, metric: str = "correlation") -> np.ndarray:
        """Dissimilarity of each two rows, shape (n * (n - 1) / 2,); in blocks of columns where the metric allows it."""
        if metric in FROM_GRAM:
            return from_gram(metric, *self.gram())
        return np.asarray(resolve(metric, DISSIMILARITIES)(self.values[:, :]))


@dataclass(frozen=True, eq=False)
class Patterns:
    """Items x columns.

    Parameters
    ----------
    items : DataFrame, n rows
        One row an item, with a column ``stimulus_id``.
    groups : sequence of Group
        Each with n rows.
    space : Space, optional
        What the columns of a brain are.

    Raises
    ------
    ValueError
        If a group has another number of rows than `items`.
    """

    items: pd.DataFrame
    groups: Sequence[Group]
    space: Any = None

    def __post_init__(self) -> None:
        if "stimulus_id" not in self.items:
            raise ValueError(f"items: expected a column stimulus_id, got {list(self.items.columns)}")
        for group in self.groups:
            if group.values.shape[0] != len(self.items):
                raise ValueError(f"{group.name}: {group.values.shape[0]} rows for {len(self.items)} items")

    @classmethod
    def of(
        cls, values: ArrayLike | Mapping[str, ArrayLike], ids: Sequence[str], *, network: str = "", space: Any = None
    ) -> Patterns:
        """Make a table of arrays.

        Parameters
        ----------
        values : array-like, shape (n, p), or mapping of str to array-like
            Of a brain, or of a network's layers by name.
        ids : sequence of str, length n
            Stimulus of each row.
        network : str
            Label of the network; empty for a brain.
        space : Space, optional
            What the columns of a brain are.

        Returns
        -------
        Patterns
        """
        tables = values if isinstance(values, Mapping) else {"brain": values}
        groups = tuple(Group(name, np.asarray(table), network) for name, table in tables.items())
        return cls(pd.DataFrame({"stimulus_id": list(ids)}), groups, space)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """Stimulus of each item."""
        return self.items["stimulus_id"].tolist()

    @property
    def values(self) -> np.ndarray:
        """Values of the only group, shape (n, p); a table in a file stays there."""
        if len(self.groups) != 1:
            raise ValueError(f"values: expected one group of columns, got {[g.name for g in self.groups]}")
        found = self.groups[0].values
        return found if isinstance(found, np.ndarray) else np.asarray(found[:, :])

    def take(self, index: np.ndarray) -> Patterns:
        """Choose items by position, without reading any values.

        Parameters
        ----------
        index : ndarray of int, shape (m,)

        Returns
        -------
        Patterns of m items
        """
        groups = tuple(replace(group, values=Rows(group.values, np.asarray(index))) for group in self.groups)
        return replace(self, items=self.items.iloc[index].reset_index(drop=True), groups=groups)

    def select(self, keep: Callable[[Group], bool]) -> Patterns:
        """Choose groups of columns.

        Parameters
        ----------
        keep : callable
            Says of a `Group` whether it stays.

        Returns
        -------
        Patterns
        """
        return replace(self, groups=tuple(group for group in self.groups if keep(group)))

    def match(self, other: Patterns) -> Patterns:
        """Bring these items into another table's order, joined by stimulus.

        Parameters
        ----------
        other : Patterns
            Each of its stimuli must be here; stimuli that only this table has are left out.

        Returns
        -------
        Patterns
            As many items as `other`, in its order.

        Raises
        ------
        ValueError
            If a stimulus stands twice here, or one of `other` is not here.
        """
        if self.ids == other.ids:
            return self
        position = pd.Series(np.arange(len(self)), index=self.ids)
        if position.index.has_duplicates:
            twice = position.index[position.index.duplicated()][0]
            raise ValueError(f"stimulus_id: {twice!r} stands twice; average its items first")
        missing = [stimulus for stimulus in other.ids if stimulus not in position.index]
        if missing:
            raise ValueError(f"stimulus_id: {len(missing)} stimuli have no partner, the first: {missing[:5]}")
        return self.take(position.loc[other.ids].to_numpy())

    def average(self, *within: str) -> Patterns:
        """Average the items of each stimulus; a table of stimuli in sorted order.

        Parameters
        ----------
        *within : str
            Columns of the items: only items that are equal in these are averaged, as in ``run``.

        Returns
        -------
        Patterns
            One item a stimulus, and run or the like, with the number of items averaged in column ``n_repeats``.
        """
        keys = ["stimulus_id", *within]
        groups = self.items[keys].astype(str).groupby(keys, sort=True)
        code, items = groups.ngroup().to_numpy(), groups.size().rename("n_repeats").reset_index()
        values = self.groups[0].values
        mean = np.zeros((len(items), values.shape[1]), dtype=np.float32)
        # Runs on disk are read once each, and not once a block of columns.
        rows = values.runs() if within and hasattr(values, "runs") else [(slice(0, len(code)), values)]
        for some, table in rows:
            for columns in blocks(values.shape[1], BLOCK):
                total = np.zeros((len(items), columns.stop - columns.start))
                np.add.at(total, code[some], np.asarray(table[:, columns], dtype=np.float64))
                mean[:, columns] += total / items[["n_repeats"]].to_numpy()
        items["stimulus_id"] = items["stimulus_id"].astype(object)
        return replace(self, items=items, groups=(replace(self.groups[0], values=mean),))
