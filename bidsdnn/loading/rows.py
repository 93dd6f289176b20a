"""What is read of large files, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from bidsdnn.errors import SelectionError
from bidsdnn.lookup import closest
from bidsdnn.methods.responses import standardized
from bidsdnn.spaces import Space


@dataclass(frozen=True, eq=False)
class RDMs:
    """Representational dissimilarity matrices of the same items.

    Parameters
    ----------
    ids : tuple of str, length n
        Stimuli, in the order of the rows.
    values : mapping of str to ndarray, shape (n * (n - 1) / 2,)
        Condensed as `scipy.spatial.distance.squareform` takes them, by region or layer.
    """

    ids: tuple[str, ...]
    values: Mapping[str, np.ndarray]

    def square(self, name: str) -> pd.DataFrame:
        """One RDM as a square table with the stimuli's ids on both sides.

        Parameters
        ----------
        name : str
            A region or layer.

        Returns
        -------
        DataFrame, shape (n, n)

        Raises
        ------
        SelectionError
            If there is none of that name.
        """
        if name not in self.values:
            raise SelectionError(f"no RDM of {name!r}; {closest(name, self.values)}")
        return pd.DataFrame(squareform(self.values[name]), index=list(self.ids), columns=list(self.ids))


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Some maps of an image file as rows of a table; read as a whole when the first block is asked for, then kept.

    Parameters
    ----------
    path : Path
        Of a surface the left file.
    space : Space
    rows : ndarray of int
        Which of the file's maps.
    standardize : bool
        Whether columns are z-scored over the rows.
    """

    path: Path
    space: Space
    rows: np.ndarray
    standardize: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), self.space.size

    @cached_property
    def values(self) -> np.ndarray:
        """All of it, shape (n, size)."""
        read = self.space.read(self.path)[self.rows]
        return standardized(read) if self.standardize else read

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.values[key]


@dataclass(frozen=True, eq=False)
class Stack:
    """Tables of the same columns below each other, each read when it is needed.

    Parameters
    ----------
    parts : tuple of ImageRows
    """

    parts: tuple[ImageRows, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        return np.vstack([part[:, key[1]] for part in self.parts])[key[0]]
