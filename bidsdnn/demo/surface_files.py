"""The demo's surfaces and CIFTI files, under the names of fMRIPrep 25."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

from bidsdnn.demo.bold import START_TIME, TR
from bidsdnn.demo.brain import Grid
from bidsdnn.demo.cortex import Cortex
from bidsdnn.demo.files import TASK, write_json
from bidsdnn.spaces.cifti import write_cifti
from bidsdnn.spaces.gifti import STRUCTURES, label_colour, write_labels, write_maps

SURFACE, CIFTI = "fsaverage", "fsLR"
STANDING_IN = "Simulated: vertices of fsaverage stand in for those of fsLR."


@dataclass(frozen=True, eq=False)
class Sheets:
    """Writes what stands on the demo's cortex.

    Parameters
    ----------
    root : Path
        Of the raw dataset.
    grid : Grid
    cortex : Cortex
    surface, cifti : bool
        Which of the two is written.
    """

    root: Path
    grid: Grid
    cortex: Cortex
    surface: bool
    cifti: bool

    @property
    def cifti_density(self) -> str:
        """What stands after ``den-`` in the names of CIFTI files."""
        return f"{round(self.cortex.size / 1000)}k"

    @property
    def points(self) -> BrainModelAxis:
        """The columns of CIFTI files."""
        halves = zip(("CortexLeft", "CortexRight"), self.cortex.sides, strict=True)
        axes = [BrainModelAxis.from_mask(half.cortex, name=name) for name, half in halves]
        for name, voxels in self.cortex.below.items():
            mask = np.zeros(np.prod(self.grid.shape), dtype=bool)
            mask[voxels] = True
            axes.append(BrainModelAxis.from_mask(mask.reshape(self.grid.shape), name=name, affine=self.grid.affine))
        whole = axes[0]
        for axis in axes[1:]:
            whole = whole + axis
        return whole

    def write_anatomy(self, label: str) -> None:
        """Write a participant's meshes and cortex masks, those of the template, for each kind of file."""
        folder = self.root / "derivatives" / "fmriprep" / f"sub-{label}" / "anat"
        for space in [SURFACE] * self.surface + [CIFTI] * self.cifti:
            about = self._about(space, self.cortex.density)
            for half, structure in zip(self.cortex.sides, STRUCTURES, strict=True):
                stem = f"sub-{label}_hemi-{half.side}_space-{space}_den-{self.cortex.density}"
                for kind in ("midthickness", "inflated"):
                    _write_mesh(folder / f"{stem}_{kind}.surf.gii", getattr(half, kind), half.faces, structure)
                mask = folder / f"{stem}_desc-cortex_mask.label.gii"
                write_labels(mask, half.cortex.astype(np.int32), structure, {1: "cortex"})
                write_json(folder / f"{stem}_desc-cortex_mask.json", {"Type": "Brain", **about})

    def write_run(self, label: str, run: int, data: np.ndarray, mask: np.ndarray) -> None:
        """Write a run's time courses; where the run's mask has lost a voxel, a vertex has none.

        Parameters
        ----------
        label : str
            Participant, without ``sub-``.
        run : int
            From 1.
        data : ndarray of int16, shape (x, y, z, volumes)
        mask : ndarray of bool, shape (x, y, z)
        """
        series = data.reshape(-1, data.shape[-1]).astype(np.float32)
        series[~mask.reshape(-1)] = np.nan
        folder = self.root / "derivatives" / "fmriprep" / f"sub-{label}" / "func"
        stem = f"sub-{label}_task-{TASK}_run-{run}"
        about = {
            "RepetitionTime": TR,
            "StartTime": START_TIME,
            "SliceTimingCorrected": True,
            "TaskName": TASK,
            "Sources": [f"bids:raw:sub-{label}/func/sub-{label}_task-{TASK}_run-{run:02d}_bold.nii.gz"],
        }
        courses = [series[half.voxels].T for half in self.cortex.sides]
        if self.surface:
            for half, structure, values in zip(self.cortex.sides, STRUCTURES, courses, strict=True):
                name = f"{stem}_hemi-{half.side}_space-{SURFACE}_den-{self.cortex.density}_bold"
                on_wall = np.where(half.cortex, values, np.nan)
                write_maps(folder / f"{name}.func.gii", on_wall, structure, tr=TR)
                write_json(folder / f"{name}.json", {**about, **self._about(SURFACE, self.cortex.density)})
        if self.cifti:
            parts = [values[:, half.cortex] for half, values in zip(self.cortex.sides, courses, strict=True)]
            parts += [series[voxels].T for voxels in self.cortex.below.values()]
            name = f"{stem}_space-{CIFTI}_den-{self.cifti_density}_bold"
            # CIFTI files of fMRIPrep hold zeros where there are no data.
            values = np.nan_to_num(np.hstack(parts), nan=0.0)
            write_cifti(folder / f"{name}.dtseries.nii", values, SeriesAxis(0, TR, len(values)), self.points)
            write_json(folder / f"{name}.json", {**about, **self._about(CIFTI, self.cifti_density)})

    def write_atlas(self, names: list[str]) -> None:
        """Write the atlas of the planted regions.

        Parameters
        ----------
        names : list of str
            In the order of their numbers.
        """
        folder = self.root / "derivatives" / "planted"
        numbered = dict(enumerate(names, start=1))
        if self.surface:
            place = folder / f"tpl-{SURFACE}" / "anat"
            place.mkdir(parents=True)
            for half, structure in zip(self.cortex.sides, STRUCTURES, strict=True):
                stem = f"tpl-{SURFACE}_hemi-{half.side}_atlas-planted_den-{self.cortex.density}_dseg"
                write_labels(place / f"{stem}.label.gii", half.labels, structure, numbered)
                write_json(place / f"{stem}.json", self._about(SURFACE, self.cortex.density))
        if self.cifti:
            place = folder / f"tpl-{CIFTI}" / "anat"
            place.mkdir(parents=True)
            labels = [half.labels[half.cortex] for half in self.cortex.sides]
            labels += [np.zeros(len(voxels)) for voxels in self.cortex.below.values()]
            table = {code: (name, label_colour(code)) for code, name in {0: "???", **numbered}.items()}
            stem = f"tpl-{CIFTI}_atlas-planted_den-{self.cifti_density}_dseg"
            codes = np.concatenate(labels).astype(np.int32)[None]
            write_cifti(place / f"{stem}.dlabel.nii", codes, LabelAxis(["planted"], [table]), self.points)
            write_json(place / f"{stem}.json", self._about(CIFTI, self.cifti_density))

    def _about(self, space: str, density: str) -> dict[str, Any]:
        about: dict[str, Any] = {"Density": f"{density} vertices and voxels of the simulated {space}"}
        return about | ({"Description": STANDING_IN} if space == CIFTI else {})


def _write_mesh(path: Path, coordinates: np.ndarray, faces: np.ndarray, structure: str) -> None:
    points = GiftiDataArray(
        np.ascontiguousarray(coordinates, dtype=np.float32), intent="NIFTI_INTENT_POINTSET",
        datatype="NIFTI_TYPE_FLOAT32", meta=GiftiMetaData({"AnatomicalStructurePrimary": structure}),
    )  # fmt: skip
    triangles = GiftiDataArray(
        np.ascontiguousarray(faces, dtype=np.int32), intent="NIFTI_INTENT_TRIANGLE", datatype="NIFTI_TYPE_INT32"
    )
    meta = GiftiMetaData({"AnatomicalStructurePrimary": structure})
    path.write_bytes(GiftiImage(meta=meta, darrays=[points, triangles]).to_bytes())
