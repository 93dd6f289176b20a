"""What a column of a brain table is, and how it is read from and written to files.

A space is the first image of a run made abstract: a number of columns (`size`), a reader and a writer of tables of
items x columns, the regions that an atlas draws on them, and which columns are neighbours. Analyses see tables only;
no other package of the project imports nibabel.
"""

from __future__ import annotations

from bidsdnn.spaces.atlases import region_names
from bidsdnn.spaces.cifti import is_cifti
from bidsdnn.spaces.gifti import hemispheres
from bidsdnn.spaces.grayordinates import Cifti
from bidsdnn.spaces.images import image_data, load_image, one_line, write_nifti
from bidsdnn.spaces.mesh import Mesh, fsaverage5, read_mesh, read_meshes
from bidsdnn.spaces.parcels import Parcels
from bidsdnn.spaces.protocol import Space
from bidsdnn.spaces.shared import header_tr, intersection, kind_of, recording_shape, shared_space
from bidsdnn.spaces.surface import Surface
from bidsdnn.spaces.views import mask_image, masker, nilearn_image
from bidsdnn.spaces.volume import Volume

__all__ = [
    "Cifti",
    "Mesh",
    "Parcels",
    "Space",
    "Surface",
    "Volume",
    "fsaverage5",
    "header_tr",
    "hemispheres",
    "image_data",
    "intersection",
    "is_cifti",
    "kind_of",
    "load_image",
    "mask_image",
    "masker",
    "nilearn_image",
    "one_line",
    "read_mesh",
    "read_meshes",
    "recording_shape",
    "region_names",
    "shared_space",
    "write_nifti",
]
