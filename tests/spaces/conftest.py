"""Where the published atlas and meshes are, small meshes, and the names of a pair of hemispheres."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.spaces import Mesh


@pytest.fixture(scope="session")
def hcp() -> Path:
    """Folder of the HCP's meshes and atlas on 32k fsLR, beside the repository or where the variable says."""
    shared = os.environ.get("BIDSDNN_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(shared) / "hcp_mmp1_fsLR32k"
    if not folder.is_dir():
        pytest.skip("shared data are not here")
    return folder


def lattice(rows: int, columns: int, *, edge: float = 1.0) -> Mesh:
    """A flat mesh of equilateral triangles."""
    i, j = np.mgrid[:rows, :columns]
    points = np.stack([(j + 0.5 * (i % 2)) * edge, i * edge * np.sqrt(0.75), np.zeros_like(i, dtype=float)], axis=-1)
    number = np.arange(rows * columns).reshape(rows, columns)
    faces = []
    for row in range(rows - 1):
        low, high = (number[row], number[row + 1]) if row % 2 == 0 else (number[row + 1], number[row])
        faces += [*zip(low[:-1], low[1:], high[:-1], strict=True), *zip(high[:-1], high[1:], low[1:], strict=True)]
    return Mesh(points.reshape(-1, 3).astype(np.float32), np.array(faces, dtype=np.int32))


def write_mesh(path: Path, mesh: Mesh) -> Path:
    """Write a surf.gii."""
    arrays = [
        nib.gifti.GiftiDataArray(mesh.coordinates, "NIFTI_INTENT_POINTSET", "NIFTI_TYPE_FLOAT32"),
        nib.gifti.GiftiDataArray(mesh.faces, "NIFTI_INTENT_TRIANGLE", "NIFTI_TYPE_INT32"),
    ]
    nib.GiftiImage(darrays=arrays).to_filename(path)
    return path
