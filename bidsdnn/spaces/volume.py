"""Volumes: a column is a voxel inside a mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from bidsdnn.errors import DataError
from bidsdnn.spaces.atlases import codes_on_grid, grid_difference, named_regions, region_names
from bidsdnn.spaces.images import check_common, image_data, load_image, write_nifti
from bidsdnn.spaces.mesh import FWHM_PER_SIGMA, SLACK, by_pattern, check_extent, check_fwhm

# Centres whose neighbours are looked up in one go.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Volume:
    """The voxels inside a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    """

    mask: np.ndarray
    affine: np.ndarray
    extension: ClassVar[str] = ".nii.gz"
    label_extension: ClassVar[str] = ".nii.gz"

    @property
    def entities(self) -> dict[str, str]:
        """Entities that the name of a map's file needs: none."""
        return {}

    @cached_property
    def identity(self) -> str:
        """Hash of mask and grid."""
        text = hashlib.sha256(np.packbits(self.mask).tobytes())
        text.update(json.dumps([list(self.mask.shape), np.asarray(self.affine, dtype=float).tolist()]).encode())
        return text.hexdigest()

    def files(self, path: Path) -> tuple[Path, ...]:
        """Files that one map consists of: itself."""
        return (path,)

    @property
    def size(self) -> int:
        """Number of columns."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def _where(self) -> np.ndarray:
        return np.flatnonzero(self.mask.reshape(-1))

    @classmethod
    def from_bold(cls, path: Path) -> Volume:
        """Find the brain in a run that has no mask, by its intensity.

        Parameters
        ----------
        path : Path
            A 4-D image.

        Returns
        -------
        Volume
        """
        from nilearn.masking import compute_epi_mask

        image = load_image(path)
        mean = image_data(image, path).reshape(*image.shape[:3], -1).mean(axis=3)
        mask = compute_epi_mask(nib.Nifti1Image(np.nan_to_num(mean), image.affine))
        return cls(np.asarray(mask.dataobj) > 0, np.asarray(image.affine))

    @classmethod
    def from_masks(cls, paths: list[Path]) -> Volume:
        """Intersect the masks of several runs.

        Parameters
        ----------
        paths : list of Path
            Brain masks of equal shape.

        Returns
        -------
        Volume
            The voxels that lie in every mask.

        Raises
        ------
        DataError
            If shapes differ, or no voxel is in all masks.
        """
        first = load_image(paths[0])
        mask = _mask(first, paths[0])
        for path in paths[1:]:
            image = load_image(path)
            if image.shape[:3] != mask.shape:
                raise DataError(
                    f"{path}: shape {image.shape[:3]} differs from {mask.shape} of {paths[0]}; "
                    "ask for one resolution with --space SPACE:res-X"
                )
            apart = grid_difference(first.affine, image.affine, mask.shape)
            if apart > 0.5 * float(min(np.linalg.norm(first.affine[:3, :3], axis=0))):
                raise DataError(
                    f"{path}: its grid lies up to {apart:.1f} mm off that of {paths[0]}; resample it to the same grid"
                )
            mask &= _mask(image, path)
            check_common(mask, path, paths[0], what="voxel")
        check_common(mask, paths[0], paths[0], what="voxel")
        return cls(mask, np.asarray(first.affine))

    def grid_difference(self, image: Any) -> float:
        """Largest distance in millimetres between a corner of this grid and the same corner of an image's grid."""
        return grid_difference(self.affine, image.affine, self.mask.shape)

    def read(self, path: Path) -> np.ndarray:
        """Read an image's voxels inside the mask.

        Parameters
        ----------
        path : Path
            A 3-D or 4-D NIfTI image on this grid.

        Returns
        -------
        ndarray of float32, shape (k, size)
            One row per volume.

        Raises
        ------
        DataError
            If the grid differs or the file is damaged.
        """
        image = load_image(path)
        if image.shape[:3] != self.mask.shape:
            raise DataError(
                f"{path}: shape {tuple(image.shape[:3])} differs from the mask's {self.mask.shape}; "
                "ask for one resolution with --space SPACE:res-X"
            )
        data = image_data(image, path).reshape(self.mask.size, -1, order="C")
        return np.ascontiguousarray(data[self._where].T)

    def write(
        self, path: Path, values: np.ndarray, *, names: Sequence[str] | None = None, tr: float | None = None
    ) -> None:
        """Write a table of items x columns as an image, NaN outside the mask.

        Parameters
        ----------
        path : Path
            Ends in ``.nii.gz``.
        values : ndarray, shape (k, size) or (size,)
            Two-dimensional values make a 4-D image, one-dimensional ones a 3-D image.
        names : sequence of str, optional
            Not kept: a NIfTI file has no room for them.
        tr : float, optional
            Seconds between volumes.
        """
        values = np.asarray(values, dtype=np.float32)
        data = np.full((self.mask.size, *values.shape[:-1]), np.nan, dtype=np.float32)
        data[self._where] = values.T
        write_nifti(path, data.reshape(*self.mask.shape, *values.shape[:-1]), self.affine, tr=tr)

    def write_codes(self, path: Path, codes: np.ndarray, names: Mapping[int, str] | None = None) -> None:
        """Write whole numbers, shape (size,), as a segmentation, 0 outside the mask; their names go into a TSV."""
        data = np.zeros(self.mask.size, dtype=np.int32)
        data[self._where] = codes
        write_nifti(path, data.reshape(self.mask.shape), self.affine, dtype=np.int32)

    def write_mask(self, path: Path) -> None:
        """Write the mask as an image of zeros and ones."""
        write_nifti(path, self.mask, self.affine, dtype=np.uint8)

    def neighbors(self, *, radius: float | None = None, count: int | None = None) -> csr_array:
        """Voxels near each voxel, inside the mask, by the distance between their centres.

        Parameters
        ----------
        radius : float, optional
            Millimetres; the sphere's surface belongs to it.
        count : int, optional
            Number of nearest voxels including the centre.

        Returns
        -------
        csr_array of bool, shape (size, size)
            A row is a centre.

        Raises
        ------
        ValueError
            Unless one of radius and count is given, and positive.
        """
        check_extent(radius, count)
        if radius is None:
            return self._nearest(min(int(count or 1), self.size))
        offsets = self._sphere(radius)
        # A border of nothing around the grid, wide enough that no offset wraps around it.
        border = np.abs(offsets).max(axis=0)
        padded = np.full(np.array(self.mask.shape) + 2 * border, -1, dtype=np.int32)
        inner = tuple(slice(b, b + n) for b, n in zip(border, self.mask.shape, strict=True))
        padded[inner][self.mask] = np.arange(self.size, dtype=np.int32)
        strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
        centres = np.flatnonzero(padded.reshape(-1) >= 0)
        # In the order of the columns, so that each row's indices rise.
        steps = np.sort(offsets @ strides)
        columns, lengths = [], []
        for start in range(0, self.size, _BLOCK):
            found = padded.reshape(-1)[centres[start : start + _BLOCK, None] + steps]
            lengths.append((found >= 0).sum(axis=1))
            columns.append(found[found >= 0])
        pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        indices = np.concatenate(columns)
        return csr_array((np.ones(len(indices), dtype=bool), indices, pointers), shape=(self.size, self.size))

    def edges(self) -> np.ndarray:
        """Pairs of voxels inside the mask that share a face, shape (m, 2)."""
        number = np.full(self.mask.shape, -1, dtype=np.int32)
        number[self.mask] = np.arange(self.size, dtype=np.int32)
        pairs = []
        for axis in range(3):
            along = np.moveaxis(number, axis, 0)
            pairs.append(np.stack([along[:-1].reshape(-1), along[1:].reshape(-1)], axis=1))
        both = np.concatenate(pairs)
        return both[(both >= 0).all(axis=1)]

    def _sphere(self, radius: float) -> np.ndarray:
        """Steps in voxels, shape (n, 3), that lead no further than the radius."""
        axes = np.asarray(self.affine, dtype=float)[:3, :3]
        # The planes of voxels of an axis are this far apart, also on a sheared grid.
        apart = 1 / np.linalg.norm(np.linalg.inv(axes), axis=1)
        reach = np.minimum(np.floor(radius * SLACK / apart).astype(int), np.array(self.mask.shape) - 1)
        steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
        return steps[np.linalg.norm(steps @ axes.T, axis=1) <= radius * SLACK]

    def _nearest(self, count: int) -> csr_array:
        points = np.argwhere(self.mask) @ np.asarray(self.affine, dtype=float)[:3, :3].T
        indices = np.sort(cKDTree(points).query(points, k=[*range(1, count + 1)])[1], axis=1).astype(np.int32)
        pointers = np.arange(self.size + 1) * count
        data = np.ones(indices.size, dtype=bool)
        return csr_array((data, indices.reshape(-1), pointers), shape=(self.size, self.size))

    def smooth(self, values: np.ndarray, fwhm: float) -> np.ndarray:
        """Smooth maps with a Gaussian kernel, normalised by its part inside the mask.

        Voxels outside the mask and NaN voxels have no weight, so that no signal leaks from or to outside; NaN stay
        NaN. Where the mask is the whole image this equals ``nilearn.image.smooth_img``.

        Parameters
        ----------
        values : ndarray, shape (k, size)
        fwhm : float
            Full width at half maximum in millimetres.

        Returns
        -------
        ndarray of float32, shape (k, size)
        """
        check_fwhm(fwhm)
        sigma = fwhm / FWHM_PER_SIGMA / np.linalg.norm(np.asarray(self.affine, dtype=float)[:3, :3], axis=0)
        box = self._box(np.ceil(4 * sigma + 1).astype(int))

        def smoothed(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
            where = np.zeros(self.mask.size, dtype=bool)
            where[self._where[known]] = True
            inside = where.reshape(self.mask.shape)[box]
            weight = gaussian_filter(inside.astype(np.float32), sigma)[inside]
            result = np.empty_like(rows)
            grid = np.zeros(inside.shape, dtype=np.float32)
            for row, out in zip(rows, result, strict=True):
                grid[inside] = row
                out[:] = gaussian_filter(grid, sigma)[inside] / weight
            return result

        return by_pattern(values, smoothed)

    def _box(self, border: np.ndarray) -> tuple[slice, ...]:
        """The part of the grid that holds the mask and a border."""
        low, high = np.argwhere(self.mask).min(axis=0) - border, np.argwhere(self.mask).max(axis=0) + border + 1
        return tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas.

        An atlas on another grid is resampled to this one by nearest neighbour, with a warning.

        Parameters
        ----------
        path : Path
            A discrete segmentation (``dseg.nii.gz``), or a mask of zeros and ones, which is one region.
        labels : Path, optional
            A BIDS label table with columns ``index`` and ``name``; by default the file beside the image
            with the ending ``.tsv``, if there is one.

        Returns
        -------
        dict of str to ndarray of bool, shape (size,)
            Regions without a voxel in this space are there, and empty.

        Raises
        ------
        DataError
            If the image is no segmentation, or the table lacks its columns.
        """
        codes = codes_on_grid(path, self.affine, self.mask.shape).reshape(-1)[self._where]
        return named_regions(codes, region_names(path, labels, codes))


def _mask(image: Any, path: Path) -> np.ndarray:
    shape = (*image.shape, 1, 1, 1)[:3]
    data = image_data(image, path)
    if data.size != np.prod(shape):
        raise DataError(f"{path}: a mask has three dimensions, this image has shape {tuple(image.shape)}")
    return data.reshape(shape) > 0
