"""The demo's surfaces: the mesh, what stands on it, and the files."""

from __future__ import annotations

import numpy as np
import pytest

from bidsdnn.demo import write_demo
from bidsdnn.demo.bold import TR
from bidsdnn.demo.brain import REGIONS, Template, draw_regions
from bidsdnn.demo.cortex import DENSITIES, lay_out
from bidsdnn.spaces import Cifti, Surface, Volume, header_tr, load_image, read_mesh
from tests.test_demo import SMALL, SPACE, contents, validate

FUNC = "derivatives/fmriprep/sub-01/func/sub-01_task-objects_run-2_"
ANAT = "derivatives/fmriprep/sub-01/anat/sub-01_"
SURFACE = "hemi-L_space-fsaverage_den-3k_bold.func.gii"
CIFTI = "space-fsLR_den-5k_bold.dtseries.nii"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo") / "all", **SMALL, spaces=("volume", "surface", "cifti"))


@pytest.fixture(scope="module")
def layout():
    template = Template.load()
    grid = template.grid(6.0)
    brain = template.head(grid, np.random.default_rng(0)).brain
    labels = draw_regions(grid, brain)
    return grid, brain, labels, lay_out(grid, brain, labels)


def test_meshes_are_closed_spheres_with_outward_triangles(layout):
    for half in layout[3].sides:
        n = DENSITIES["3k"]
        assert half.midthickness.shape == half.inflated.shape == (n, 3)
        assert half.faces.shape == (2 * n - 4, 3)
        edges = np.sort(np.vstack([half.faces[:, [0, 1]], half.faces[:, [1, 2]], half.faces[:, [2, 0]]]), axis=1)
        _, times = np.unique(edges, axis=0, return_counts=True)
        assert (times == 2).all()
        corners = half.inflated[half.faces]
        assert np.linalg.det(corners).sum() > 0


def test_each_voxel_of_a_region_stands_on_one_vertex(layout):
    grid, _, labels, cortex = layout
    for number in range(1, len(REGIONS) + 1):
        shown = np.concatenate([half.voxels[half.labels == number] for half in cortex.sides])
        assert sorted(shown) == np.flatnonzero(labels == number).tolist()
    for half, sign in zip(cortex.sides, (-1, 1), strict=True):
        assert not half.labels[~half.cortex].any()
        assert (sign * grid.places.reshape(-1, 3)[half.voxels, 0] > 0).all()
        assert (labels.reshape(-1)[half.voxels] == half.labels).all()


def test_regions_lie_around_their_places(layout):
    for half, sign in zip(layout[3].sides, (-1, 1), strict=True):
        for number, centre in enumerate(REGIONS.values(), start=1):
            apart = half.midthickness[half.labels == number].mean(axis=0) - np.multiply(centre, (sign, 1, 1))
            assert np.linalg.norm(apart) < 8


def test_every_space_holds_the_same_time_courses(demo):
    planted = demo / "derivatives" / "planted"
    bold = demo / f"{FUNC}{SPACE}_desc-preproc_bold.nii.gz"
    volume = Volume.from_masks([demo / f"{FUNC}{SPACE}_desc-brain_mask.nii.gz"])
    surface = Surface.from_masks([demo / f"{ANAT}hemi-L_space-fsaverage_den-3k_desc-cortex_mask.label.gii"])
    cifti = Cifti.from_files([demo / f"{FUNC}{CIFTI}"])
    series = {space: space.read(demo / path) for space, path in
              ((volume, bold), (surface, f"{FUNC}{SURFACE}"), (cifti, f"{FUNC}{CIFTI}"))}  # fmt: skip
    regions = {
        volume: volume.regions(next(planted.rglob("*_dseg.nii.gz"))),
        surface: surface.regions(next(planted.rglob("*hemi-L*_dseg.label.gii"))),
        cifti: cifti.regions(next(planted.rglob("*_dseg.dlabel.nii"))),
    }
    for name in REGIONS:
        courses = {space: series[space][:, regions[space][name]] for space in series}
        whole = np.unique(courses[volume], axis=1)
        # A vertex whose voxel the run's mask has lost is NaN, in CIFTI zero.
        kept = courses[surface][:, np.isfinite(courses[surface]).all(axis=0)]
        np.testing.assert_array_equal(np.unique(kept, axis=1), whole)
        kept = courses[cifti][:, (courses[cifti] != 0).any(axis=0)]
        np.testing.assert_array_equal(np.unique(kept, axis=1), whole)


def test_files_say_their_time_step_and_structure(demo):
    assert header_tr(demo / f"{FUNC}{SURFACE}") == header_tr(demo / f"{FUNC}{CIFTI}") == TR
    right = load_image(demo / f"{FUNC}{SURFACE}".replace("hemi-L", "hemi-R"))
    assert right.meta["AnatomicalStructurePrimary"] == "CortexRight"
    points = Cifti.from_files([demo / f"{FUNC}{CIFTI}"]).points
    assert set(points.name) == {
        f"CIFTI_STRUCTURE_{kind}_{side}" for kind in ("CORTEX", "THALAMUS") for side in ("LEFT", "RIGHT")
    }
    assert read_mesh(demo / f"{ANAT}hemi-R_space-fsLR_den-3k_inflated.surf.gii").size == DENSITIES["3k"]


def test_volumes_do_not_depend_on_surfaces(demo, tmp_path):
    alone = contents(write_demo(tmp_path / "alone", **SMALL))
    more = contents(demo)
    differing = {name for name in alone if alone[name] != more[name]}
    assert differing == {"README.md", "derivatives/fmriprep/.bidsignore"}
    only = contents(write_demo(tmp_path / "only", **SMALL, spaces=("cifti",)))
    assert not [name for name in only if "fmriprep" in name and name.endswith(("_bold.nii.gz", ".func.gii"))]
    assert only[f"{FUNC}{CIFTI}"] == more[f"{FUNC}{CIFTI}"]


@pytest.mark.parametrize("part", ["", "derivatives/fmriprep", "derivatives/planted"])
def test_the_official_validator_finds_no_error(demo, part):
    assert validate(demo / part) == []
