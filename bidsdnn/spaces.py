"""What a column of a brain table is, and how it is read from and written to files.

A space is the first image of a run made abstract: a number of columns (`size`), a reader and a writer of tables of
items x columns, and the regions that an atlas draws on them. Analyses see tables only; no other module of the project
imports nibabel.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.filebasedimages import ImageFileError

from bidsdnn.errors import DataError, MissingInputError

# fMRIPrep's masks and bolds of one space agree to rounding; a scanner's header and a tool's differ by up to a voxel.
AFFINE_TOLERANCE = 1e-3


def load_image(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.

    Returns
    -------
    nibabel.Nifti1Image

    Raises
    ------
    MissingInputError
        If the file is not there, or is a DataLad link whose content is not there.
    DataError
        If the file is no readable image.
    """
    if not path.exists():
        remedy = "run `datalad get` on it" if path.is_symlink() else "check the path"
        raise MissingInputError(f"{path}: image not found; {remedy}")
    try:
        return nib.load(path)
    except (ImageFileError, OSError, EOFError, ValueError, ZlibError) as error:
        raise DataError(f"{path}: not a readable NIfTI image ({one_line(error)}); replace the file") from error


def image_data(image: Any, path: Path) -> np.ndarray:
    """Read an image's voxels as float32.

    Parameters
    ----------
    image : nibabel image
        What `load_image` returned.
    path : Path
        Named in the error.

    Returns
    -------
    ndarray of float32
        Scaled voxel values, of the image's shape.

    Raises
    ------
    DataError
        If the file ends before its voxels do.
    """
    try:
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (OSError, EOFError, ValueError, ZlibError) as error:
        raise DataError(
            f"{path}: image is truncated or damaged ({one_line(error)}); copy or compute it again"
        ) from error


def one_line(error: BaseException) -> str:
    """First line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def write_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray, *, tr: float | None = None, dtype: Any = np.float32
) -> None:
    """Write a NIfTI image whose bytes depend on its content only.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    data : ndarray, shape (x, y, z) or (x, y, z, k)
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    tr : float, optional
        Seconds between volumes.
    dtype : numpy dtype
        Stored type.
    """
    image = nib.Nifti1Image(np.asarray(data, dtype=dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    # A gzip header with a name or a time would make equal images unequal, and the validator warns of both.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as out:
        out.write(image.to_bytes())


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
        mask = image_data(first, paths[0]).reshape(first.shape[:3]) > 0
        for path in paths[1:]:
            image = load_image(path)
            if image.shape[:3] != mask.shape:
                raise DataError(
                    f"{path}: shape {image.shape[:3]} differs from {mask.shape} of {paths[0]}; "
                    "ask for one resolution with --space SPACE:res-X"
                )
            mask &= image_data(image, path).reshape(mask.shape) > 0
        if not mask.any():
            raise DataError(f"{paths[0]}: no voxel lies in the masks of all {len(paths)} runs; leave out a run")
        return cls(mask, np.asarray(first.affine))

    def grid_difference(self, image: Any) -> float:
        """Largest distance in millimetres between a corner of this grid and the same corner of an image's grid."""
        shape = self.mask.shape
        corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
        return float(np.abs(corners @ (self.affine - image.affine).T).max())

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

    def write(self, path: Path, values: np.ndarray) -> None:
        """Write a table of items x columns as an image, NaN outside the mask.

        Parameters
        ----------
        path : Path
            Ends in ``.nii.gz``.
        values : ndarray, shape (k, size) or (size,)
            Two-dimensional values make a 4-D image, one-dimensional ones a 3-D image.
        """
        values = np.asarray(values, dtype=np.float32)
        data = np.full((self.mask.size, *values.shape[:-1]), np.nan, dtype=np.float32)
        data[self._where] = values.T
        write_nifti(path, data.reshape(*self.mask.shape, *values.shape[:-1]), self.affine)

    def write_codes(self, path: Path, codes: np.ndarray) -> None:
        """Write whole numbers, shape (size,), as a segmentation, 0 outside the mask."""
        data = np.zeros(self.mask.size, dtype=np.int32)
        data[self._where] = codes
        write_nifti(path, data.reshape(self.mask.shape), self.affine, dtype=np.int32)

    def write_mask(self, path: Path) -> None:
        """Write the mask as an image of zeros and ones."""
        write_nifti(path, self.mask, self.affine, dtype=np.uint8)

    def regions(self, path: Path, labels: Path | None = None) -> dict[str, np.ndarray]:
        """Which columns lie in each region of an atlas.

        An atlas on another grid is resampled to this one by nearest neighbour.

        Parameters
        ----------
        path : Path
            A discrete segmentation (``dseg.nii.gz``).
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
        image = load_image(path)
        if len([n for n in image.shape if n > 1]) > 3:
            raise DataError(f"{path}: an atlas has three dimensions, this image has shape {image.shape}")
        if image.shape[:3] != self.mask.shape or self.grid_difference(image) > AFFINE_TOLERANCE:
            from nilearn.image import resample_img

            image = resample_img(
                nib.Nifti1Image(image_data(image, path).reshape(image.shape[:3]), image.affine),
                target_affine=self.affine,
                target_shape=self.mask.shape,
                interpolation="nearest",
                force_resample=True,
                copy_header=True,
            )
        codes = image_data(image, path).reshape(-1)[self._where]
        if not np.array_equal(codes, np.round(codes)):
            raise DataError(f"{path}: an atlas holds whole numbers, this image does not; give a dseg file")
        return {name: codes == index for index, name in region_names(path, labels, codes).items()}


def region_names(path: Path, labels: Path | None, codes: np.ndarray) -> dict[int, str]:
    """Names of an atlas's regions by their number, from its label table, else the numbers themselves.

    Parameters
    ----------
    path : Path
        The atlas image.
    labels : Path or None
        The label table; None looks beside the image.
    codes : ndarray
        The numbers that occur, used where there is no table.

    Returns
    -------
    dict of int to str

    Raises
    ------
    DataError
        If the table lacks a column, or names two regions alike.
    """
    beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    table_path = labels or beside
    if not table_path.exists():
        return {int(code): str(int(code)) for code in np.unique(codes) if code != 0}
    table = pd.read_csv(table_path, sep="\t", dtype=str, encoding="utf-8-sig", keep_default_na=False)
    if not {"index", "name"} <= set(table.columns):
        raise DataError(f"{table_path}: columns {sorted(table.columns)}; a label table has `index` and `name`")
    try:
        names = {int(row["index"]): row["name"] for _, row in table.iterrows() if int(row["index"]) != 0}
    except ValueError as error:
        raise DataError(
            f"{table_path}: column `index` holds {error.args[0].split()[-1]}; give whole numbers"
        ) from error
    if {"n/a", ""} & set(names.values()):
        raise DataError(f"{table_path}: a region is called `n/a`, which means missing; name every region")
    if len(set(names.values())) < len(names):
        raise DataError(f"{table_path}: two regions have the same name; name each region once")
    return names


def shared_space(bolds: Sequence[Path], masks: Sequence[Path]) -> tuple[Volume, list[str]]:
    """Voxels that lie in the brain masks of all runs.

    Parameters
    ----------
    bolds : sequence of Path
        The runs of one participant, in one space.
    masks : sequence of Path
        Their masks; without any, the brain is found by the first run's intensity.

    Returns
    -------
    space : Volume
        On the grid of the functional images.
    warnings : list of str

    Raises
    ------
    DataError
        If grids differ, or no voxel is in all masks.
    """
    warnings = []
    image = load_image(bolds[0])
    if masks:
        space = Volume.from_masks(list(dict.fromkeys(masks)))
    else:
        space = Volume.from_bold(bolds[0])
        warnings.append("no brain mask was found; the brain was found in the first run by its intensity")
    _check_near(space, image, masks, warnings)
    space = Volume(space.mask, np.asarray(image.affine))
    for bold in bolds[1:]:
        other = load_image(bold)
        if other.shape[:3] != space.mask.shape or space.grid_difference(other) > 0.5 * _voxel_size(image):
            raise DataError(
                f"{bold}: its grid differs from that of {bolds[0]}; ask for one resolution with --space SPACE:res-X"
            )
    return space, warnings


def _check_near(space: Volume, image: Any, masks: Sequence[Path], warnings: list[str]) -> None:
    """Warn of a mask off the image's grid, and refuse one that lies half a voxel off or more."""
    if image.shape[:3] != space.mask.shape:
        raise DataError(
            f"{masks[0]}: shape {space.mask.shape} differs from the bold's {image.shape[:3]}; give its own mask"
        )
    difference = space.grid_difference(image)
    if difference > 0.5 * _voxel_size(image):
        raise DataError(
            f"{masks[0]}: lies up to {difference:.1f} mm off the bold's grid; resample the mask to the bold"
        )
    if difference > AFFINE_TOLERANCE or not np.array_equal(space.affine, image.affine):
        warnings.append(f"{masks[0].name} lies {difference:.2g} mm off the bold's grid; the bold's grid was used")


def _voxel_size(image: Any) -> float:
    return float(min(np.linalg.norm(image.affine[:3, :3], axis=0)))
