"""Folds over groups of items, and relabellings that keep to what may be exchanged.

The one idea: an item stands in a block (a run, a session) and belongs to a group (a stimulus) whose items must not be
told from each other by the folds. Both the folds and the relabellings follow from these two columns of names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.scores import Split

Index = NDArray[np.intp]


def group_folds(groups: ArrayLike, n_splits: int, *, seed: int, shuffle: bool = True) -> list[Split]:
    """Groups of items were dealt at random into folds of equal numbers of groups, each held out once.

    Parameters
    ----------
    groups : array-like, shape (n,)
        Name of the group of each item; items of a group stay together.
    n_splits : int
    seed : int
    shuffle : bool
        Whether groups are dealt at random; else folds are stretches of groups in sorted order.

    Returns
    -------
    list of (train, test)
        Sorted index arrays.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds, or fewer groups than folds.
    """
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if n_splits < 2:
        raise ValueError(f"n_splits: expected at least 2 folds, got {n_splits}")
    if len(names) < n_splits:
        raise ValueError(f"groups: expected at least as many groups as folds ({n_splits}), got {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names)) if shuffle else np.arange(len(names))
    tests = [np.isin(code, part) for part in np.array_split(order, n_splits)]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def blocks_out(blocks: Sequence[str], groups: ArrayLike | None, *, k: int = 1, fewest: int = 2) -> list[Split]:
    """Held out were whole blocks of items, and items of training that belong to a held-out group were left out.

    Parameters
    ----------
    blocks : sequence of str, length n
        Name of the block of each item, as of a run.
    groups : array-like, shape (n,), or None
        Name of the group of each item, as of a stimulus; None if any item may be trained on.
    k : int
        Blocks that are held out together, neighbours in the order in which they come first; the last fold may have
        fewer.
    fewest : int
        Items that a fold must have to train on.

    Returns
    -------
    list of (train, test)
        Sorted index arrays; every item is held out once.

    Raises
    ------
    ValueError
        If there are not more than k blocks, or a fold has too few items left to train on.
    """
    names = list(dict.fromkeys(blocks))
    if len(names) <= k:
        raise ValueError(f"blocks: expected more than {k}, got {len(names)} ({', '.join(names[:3])})")
    where, splits = np.asarray(blocks), []
    for start in range(0, len(names), k):
        held = names[start : start + k]
        test = np.isin(where, held)
        train = ~test if groups is None else ~test & ~np.isin(np.asarray(groups), np.asarray(groups)[test])
        if train.sum() < fewest:
            raise ValueError(
                f"holding out {' and '.join(held)} leaves {int(train.sum())} of {len(where)} items to train on, as "
                f"{int((~test & ~train).sum())} others show the same stimuli"
            )
        splits.append((np.flatnonzero(train), np.flatnonzero(test)))
    return splits


def block_orders(
    blocks: ArrayLike, groups: ArrayLike | None = None, *, permutations: int, seed: int
) -> tuple[Index, float]:
    """Labels were permuted within blocks, those of a group's items together.

    A group takes the place of another that stands in the same blocks as often, so that neither differences between
    blocks nor what the items of a group have in common tell a relabelling from the labels that were given.

    Parameters
    ----------
    blocks : array-like, shape (n,)
    groups : array-like, shape (n,), optional
        Without them each item is one by itself.
    permutations : int
    seed : int

    Returns
    -------
    orders : array of int, shape (permutations, n)
        Item ``orders[k, i]`` takes the place of item i; the identity may be among them.
    count : float
        How many relabellings there are; infinite if more than fit a float.

    Raises
    ------
    ValueError
        If shapes disagree, or there are no permutations.
    """
    block = np.unique(np.asarray(blocks), return_inverse=True)[1]
    n = len(block)
    group = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if group.shape != block.shape:
        raise ValueError(f"blocks, groups: expected one shape (n,), got {block.shape} and {group.shape}")
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    alike: dict[bytes, list[Index]] = {}
    by_group = np.lexsort((block, group))
    for rows in np.split(by_group, np.flatnonzero(np.diff(group[by_group])) + 1):
        alike.setdefault(block[rows].tobytes(), []).append(rows)
    orders = np.tile(np.arange(n), (permutations, 1))
    rng, logarithm = np.random.default_rng(seed), 0.0
    for some in alike.values():
        table = np.stack(some)
        drawn = rng.random((permutations, len(table))).argsort(axis=1)
        orders[:, table] = table[drawn]
        logarithm += lgamma(len(table) + 1)
    return orders, float(np.exp(logarithm)) if logarithm < 700 else np.inf
