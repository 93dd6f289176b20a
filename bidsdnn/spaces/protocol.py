"""The contract of a space: all that the rest of the project knows of where a column lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array


class Space(Protocol):
    """What the columns of a brain's table are."""

    @property
    def size(self) -> int:
        """Number of columns."""

    @property
    def extension(self) -> str:
        """Ending of a map's file: ``.nii.gz``, ``.func.gii`` or ``.dscalar.nii``."""

    @property
    def label_extension(self) -> str:
        """Ending of a segmentation's or a mask's file: ``.nii.gz``, ``.label.gii`` or ``.dlabel.nii``."""

    @property
    def entities(self) -> dict[str, str]:
        """Entities to be merged into the name of a map's file: ``hemi-L`` for a surface."""

    @property
    def identity(self) -> str:
        """Hash of the grid, mask and mesh."""

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files that one map consists of: the path itself, for a surface the left and the right file."""

    def read(self, path: Path) -> np.ndarray:
        """Read maps as a table, float32 of shape (k, size)."""

    def write(
        self, path: Path, values: np.ndarray, *, names: Sequence[str] | None = None, tr: float | None = None
    ) -> None:
        """Write maps of shape (k, size) or (size,), named where the format can name them."""

    def write_codes(self, path: Path, codes: np.ndarray, names: Mapping[int, str] | None = None) -> None:
        """Write whole numbers of shape (size,) as a segmentation."""

    def write_mask(self, path: Path) -> None:
        """Write which points of the whole image are columns."""

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas, bool of shape (size,) by name."""

    def neighbors(self, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Which columns are near each column: bool of shape (size, size), a row is a centre and holds itself."""

    def edges(self) -> np.ndarray:
        """Pairs of columns that touch, each once, int of shape (m, 2)."""

    def smooth(self, values: np.ndarray, fwhm: float) -> np.ndarray:
        """Smooth maps of shape (k, size) with a kernel of this width in millimetres."""
