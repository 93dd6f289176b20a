"""Maps, masks and maskers as nilearn takes them, made in memory from a space and a table of its columns."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis

from bidsdnn.errors import DataError
from bidsdnn.spaces.cifti import CORTICES
from bidsdnn.spaces.grayordinates import Cifti
from bidsdnn.spaces.mesh import REMEDY, Mesh
from bidsdnn.spaces.parcels import Parcels
from bidsdnn.spaces.protocol import Space
from bidsdnn.spaces.surface import Surface
from bidsdnn.spaces.volume import Volume


def nilearn_image(space: Space, values: np.ndarray) -> Any:
    """Make an image of nilearn's from one map or several.

    Parameters
    ----------
    space : Space
    values : ndarray, shape (k, size) or (size,)

    Returns
    -------
    Nifti1Image or nilearn.surface.SurfaceImage
        Four-dimensional, or with k columns, where `values` has two dimensions; NaN outside the mask. Of a CIFTI file
        the cortex alone.

    Raises
    ------
    DataError
        If the space is one of parcels, or a surface whose meshes are not known.
    """
    if isinstance(space, Volume):
        values = np.asarray(values)
        data = np.full((*space.mask.shape, *values.shape[:-1]), np.nan, dtype=np.float32)
        data[space.mask] = values.T
        return nib.Nifti1Image(data, np.asarray(space.affine))
    return _surface_image(space, np.asarray(values, dtype=np.float32), np.nan)


def mask_image(space: Space) -> Any:
    """Make an image of which voxels or vertices are columns of a space.

    Parameters
    ----------
    space : Space

    Returns
    -------
    Nifti1Image or nilearn.surface.SurfaceImage

    Raises
    ------
    DataError
        As `nilearn_image`.
    """
    if isinstance(space, Volume):
        return nib.Nifti1Image(space.mask.astype(np.uint8), np.asarray(space.affine))
    return _surface_image(space, np.ones(space.size, dtype=bool), False)


def masker(space: Space) -> Any:
    """Make a fitted masker of nilearn's whose features are the space's columns, of a CIFTI file those of its cortex.

    Parameters
    ----------
    space : Space

    Returns
    -------
    nilearn.maskers.NiftiMasker or nilearn.maskers.SurfaceMasker

    Raises
    ------
    DataError
        As `nilearn_image`.
    """
    from nilearn.maskers import NiftiMasker, SurfaceMasker

    kind = NiftiMasker if isinstance(space, Volume) else SurfaceMasker
    return kind(mask_img=mask_image(space)).fit()


def _surface_image(space: Space, values: np.ndarray, outside: Any) -> Any:
    """Values on the vertices of both hemispheres."""
    from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

    vertices, meshes = _cortex(space)
    hemispheres: dict[str, Any] = {}
    data: dict[str, np.ndarray] = {}
    for side, (columns, where), mesh in zip(("left", "right"), vertices, meshes, strict=True):
        # nilearn wants vertices first, and maps second where there are several.
        data[side] = np.full((mesh.size, *values.shape[:-1]), outside, dtype=values.dtype)
        data[side][where] = values[..., columns].T
        hemispheres[side] = InMemoryMesh(np.asarray(mesh.coordinates), np.asarray(mesh.faces))
    return SurfaceImage(PolyMesh(**hemispheres), data)


def _cortex(space: Space) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[Mesh, Mesh]]:
    """Of the left and the right cortex: which columns lie on it, and at which vertices; and the meshes."""
    if isinstance(space, Parcels) or not isinstance(space, Surface | Cifti):
        raise DataError("parcels are no image: nilearn's objects need voxels or vertices; use the tables instead")
    if space.meshes is None:
        raise DataError(f"the meshes of this surface are not known; {REMEDY}")
    if isinstance(space, Surface):
        where = [np.flatnonzero(inside) for inside in space.inside]
        split = len(where[0])
        columns = [np.arange(split), np.arange(split, space.size)]
        return list(zip(columns, where, strict=True)), space.meshes
    points: BrainModelAxis = space.points
    found = [np.flatnonzero(points.name == name) for name in CORTICES]
    return [(columns, np.asarray(points.vertex)[columns]) for columns in found], space.meshes


def one_map(image: Any, position: int) -> Any:
    """Take one map out of an image that holds several, in the image's own format.

    Parameters
    ----------
    image : Nifti1Image, Cifti2Image or GiftiImage
    position : int
        From 0.

    Returns
    -------
    nibabel image
        Of a NIfTI image three-dimensional.
    """
    if isinstance(image, nib.GiftiImage):
        return nib.GiftiImage(header=image.header, meta=image.meta, darrays=[image.darrays[position]])
    if isinstance(image, nib.Cifti2Image):
        axes = [image.header.get_axis(axis) for axis in range(2)]
        row = np.asarray(image.dataobj[position : position + 1])
        return nib.Cifti2Image(row, header=(axes[0][position : position + 1], axes[1]))
    return image.slicer[..., position] if image.ndim > 3 else image
