"""The demo's brains: anatomy from nilearn's bundled MNI template, regions, and what a scanner sees at rest.

A head is a grid with a mask of the brain and the brightness of every voxel in a T1-weighted and in a BOLD image. No
two participants' heads are alike, but all lie on one grid, as after fMRIPrep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from nilearn.image import resample_img, smooth_img
from scipy.ndimage import binary_dilation, gaussian_filter

# Millimetres in MNI space, of the right hemisphere; the left is its mirror image.
REGIONS = {
    "early": (11.0, -92.0, 0.0),  # occipital pole
    "middle": (42.0, -74.0, 2.0),  # lateral occipital cortex
    "late": (34.0, -48.0, -18.0),  # ventral temporal cortex
    "none": (30.0, 44.0, 22.0),  # prefrontal cortex
}
_RADIUS = 12.5
_ANATOMY_SIZE = 3.0


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels.

    Parameters
    ----------
    shape : tuple of int
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """Millimetres of every voxel's centre, shape (x, y, z, 3)."""
        indices = np.moveaxis(np.indices(self.shape), 0, -1)
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]


@dataclass(frozen=True, eq=False)
class Head:
    """One participant's head on a grid.

    Parameters
    ----------
    grid : Grid
    brain : ndarray of bool, shape (x, y, z)
    t1w : ndarray, shape (x, y, z)
        T1-weighted brightness, 0 to about 1000.
    """

    grid: Grid
    brain: np.ndarray
    t1w: np.ndarray

    @property
    def bold(self) -> np.ndarray:
        """Mean BOLD brightness, shape (x, y, z): about 1000 in grey matter, a dim rim around the brain, 0 elsewhere."""
        rim = binary_dilation(self.brain, iterations=2)
        tissue = np.clip(1450 - 0.65 * self.t1w, 600, 1400)
        return np.where(self.brain, tissue, np.where(rim, 150.0, 0.0))


@dataclass(frozen=True, eq=False)
class Template:
    """The MNI152 template's T1-weighted image and brain mask.

    Parameters
    ----------
    t1w, brain : nibabel images
    """

    t1w: Any
    brain: Any

    @classmethod
    def load(cls) -> Template:
        """Read the template that comes with nilearn; needs no network."""
        return cls(load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2))

    def grid(self, size: float) -> Grid:
        """Cover the template's box with voxels of a size in millimetres."""
        corner = self.t1w.affine[:3, 3]
        extent = np.array(self.t1w.shape) * np.diag(self.t1w.affine)[:3]
        affine = np.diag([size, size, size, 1.0])
        # Whole multiples of the size keep the grid symmetric about the midline, hence both hemispheres alike.
        affine[:3, 3] = np.round(corner / size) * size
        shape = np.ceil(extent / size).astype(int)
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def head(self, grid: Grid, rng: np.random.Generator) -> Head:
        """Make a head that differs from the template by a few percent and millimetres.

        Parameters
        ----------
        grid : Grid
        rng : numpy.random.Generator
            Equal generators make the same head on different grids.

        Returns
        -------
        Head
        """
        warp = np.diag([*rng.normal(1, 0.012, 3), 1.0])
        warp[:3, 3] = rng.normal(0, 0.8, 3)
        gain = 1 + 0.08 * np.tanh(grid.places @ rng.normal(0, 0.012, 3))
        asked = {"target_affine": warp @ grid.affine, "target_shape": grid.shape, "interpolation": "linear"}
        size = float(grid.affine[0, 0])
        brain = _resampled(smooth_img(self.brain, size), asked) > 0.5
        t1w = _resampled(smooth_img(self.t1w, 0.7 * size), asked)
        return Head(grid, brain, 1000 * gain * np.clip(t1w, 0, None) * brain)


def _resampled(image: Any, asked: dict[str, Any]) -> np.ndarray:
    return np.asarray(resample_img(image, force_resample=True, copy_header=True, **asked).get_fdata())


def anatomy_size(voxel_size: float) -> float:
    """Voxel size of the anatomical image, in millimetres: 3, or that of the BOLD image if it is smaller."""
    return min(_ANATOMY_SIZE, voxel_size)


def draw_regions(grid: Grid, brain: np.ndarray) -> np.ndarray:
    """Number the voxels of each region in `REGIONS`, from 1.

    Parameters
    ----------
    grid : Grid
    brain : ndarray of bool, shape (x, y, z)
        Where regions may lie.

    Returns
    -------
    ndarray of int16, shape (x, y, z)
        0 outside the regions.
    """
    labels = np.zeros(grid.shape, dtype=np.int16)
    places = grid.places
    for number, centre in enumerate(REGIONS.values(), start=1):
        for side in (1, -1):
            near = np.linalg.norm(places - np.multiply(centre, (side, 1, 1)), axis=-1) <= _RADIUS
            labels[near & brain & (side * places[..., 0] > 0)] = number
    return labels


def run_mask(brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brain mask as estimated from one run: a few voxels of the surface are lost.

    Parameters
    ----------
    brain : ndarray of bool, shape (x, y, z)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of bool, shape (x, y, z)
    """
    surface = brain & binary_dilation(~brain)
    return brain & ~(surface & (gaussian_filter(rng.standard_normal(brain.shape), 1) > 0.35))
