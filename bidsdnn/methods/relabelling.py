"""Stimuli in another order: the one null hypothesis of RSA that holds for pairs that share a stimulus.

The one idea: a relabelled RDM is the square matrix read at other places, so that a relabelling is an index, the same
for every RDM of a test.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bidsdnn.methods.reduce import blocks

Index = NDArray[np.intp]

_PAIRS_IN_MEMORY = 1_000_000
"""Relabelled pairs of one RDM held at a time."""


def relabellings(n: int, permutations: int, *, seed: int, inverse: bool = False) -> Iterator[tuple[slice, Index]]:
    """Yield random relabellings of n stimuli, some at a time.

    Parameters
    ----------
    n : int
        Stimuli.
    permutations : int
    seed : int
        Equal seeds relabel equally, however many RDMs are tested.
    inverse : bool
        Undo each relabelling instead: relabelling the one side of a comparison is relabelling the other the inverse
        way, so that both sides can be moved by the same relabellings.

    Yields
    ------
    some : slice
        Which relabellings.
    places : array of int, shape (count, n * (n - 1) / 2)
        Where the pair (i, j), which became (order[i], order[j]), stands in the flattened square matrix. Overwritten by
        the next ones.

    Raises
    ------
    ValueError
        If there are no permutations.
    """
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(n, 1)
    places = np.empty((min(permutations, max(1, _PAIRS_IN_MEMORY // len(first))), len(first)), dtype=np.intp)
    column = np.empty_like(second)
    for some in blocks(permutations, len(places)):
        block = places[: some.stop - some.start]
        for place in block:
            order = rng.permutation(n)
            if inverse:
                order = np.argsort(order)
            # With mode and out given, take does not check and copy: 4 times faster than order[first].
            np.take(order * n, first, out=place, mode="clip")
            place += np.take(order, second, out=column, mode="clip")
        yield some, block
