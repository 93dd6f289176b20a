"""The space of several runs, whatever their files: what they share, and which file stops them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.errors import DataError
from bidsdnn.spaces import Cifti, Mesh, Surface, Volume, hemispheres, intersection, kind_of, shared_space, write_nifti
from tests.spaces.conftest import lattice, write_mesh

SIZES = (36, 36)


def write_run(folder, run, *, sizes=SIZES, space="fsnative", zero=0) -> object:
    path = folder / f"sub-1_run-{run}_hemi-L_space-{space}_bold.func.gii"
    values = np.random.default_rng(run).normal(100, 1, size=(4, sum(sizes)))
    values[:, :zero] = 0
    Surface(tuple(np.ones(n, dtype=bool) for n in sizes)).write(path, values, tr=2.0)
    return path


def write_mask(folder, inside, name="cortex"):
    path = folder / f"hemi-L_desc-{name}_mask.label.gii"
    Surface(inside).write_mask(path)
    return path


@pytest.fixture
def mesh_paths(tmp_path):
    return tuple(write_mesh(tmp_path / f"hemi-{side}_midthickness.surf.gii", lattice(6, 6)) for side in "LR")


def test_kinds_are_told_by_the_file(tmp_path):
    surface = Surface((np.ones(5, dtype=bool),) * 2)
    surface.write(tmp_path / "lh.x.mgz", np.ones((3, 10)))
    nib.MGHImage(np.ones((3, 4, 5), np.float32), np.eye(4)).to_filename(tmp_path / "brain.mgz")
    names = {"hemi-L_bold.func.gii": Surface, "bold.dtseries.nii": Cifti, "bold.nii.gz": Volume, "bold.nii": Volume}
    for name, kind in {**names, "lh.x.mgz": Surface, "brain.mgz": Volume}.items():
        assert kind_of(tmp_path / name) is kind


def test_runs_on_a_surface(tmp_path, mesh_paths):
    runs = [write_run(tmp_path, 1, zero=4), write_run(tmp_path, 2)]
    space, warnings = shared_space(runs, [], meshes=mesh_paths)
    assert isinstance(space, Surface)
    assert space.size == sum(SIZES) - 4
    assert "zero or NaN throughout the first run" in warnings[0]
    assert space.neighbors(radius=1.01).shape == (space.size, space.size)
    inside = (np.arange(36) > 9, np.arange(36) > 7)
    space, warnings = shared_space(runs, [write_mask(tmp_path, inside)], meshes=mesh_paths)
    assert (space.size, warnings) == (26 + 28, [])
    assert space.read(runs[1]).shape == (4, 54)
    both = (np.arange(36) < 12, np.arange(36) < 12)
    masks = [write_mask(tmp_path, inside), write_mask(tmp_path, both, "other")]
    assert shared_space(runs, masks)[0].size == 2 + 4
    assert intersection(masks).size == 6
    with pytest.raises(DataError, match=r"none.*: no vertex lies in this mask and in those"):
        shared_space(runs, [masks[0], write_mask(tmp_path, (~inside[0], ~inside[1]), "none")])


def test_only_fsaverage5_has_its_mesh_without_being_given_one(tmp_path):
    sizes = (10242, 10242)
    for name, known in (("fsaverage5", True), ("fsaverage", True), ("onavg", False)):
        space, _ = shared_space([write_run(tmp_path, 1, sizes=sizes, space=name)], [])
        assert (space.meshes is not None) == space.nested == known
    with pytest.raises(DataError, match=r"10242 and 10242 vertices are not known; .* --mesh L R"):
        space.neighbors(count=4)


def test_runs_masks_and_meshes_of_other_densities_are_refused(tmp_path, mesh_paths):
    runs = [write_run(tmp_path, 1), write_run(tmp_path, 2, sizes=(36, 40))]
    with pytest.raises(DataError, match=r"run-2_.*: 36 and 40 vertices, .*run-1_.* has 36 and 36; .*den-X"):
        shared_space(runs, [])
    small = write_mask(tmp_path, (np.ones(30, dtype=bool), np.ones(36, dtype=bool)))
    with pytest.raises(DataError, match=r"desc-cortex_mask.*: 30 and 36 vertices, .* has 36 and 36"):
        shared_space(runs[:1], [small])
    write_mesh(mesh_paths[1], lattice(5, 5))
    with pytest.raises(DataError, match=r"hemi-R_midthickness\.surf\.gii: 25 vertices, .* has 36; .*--mesh"):
        shared_space(runs[:1], [], meshes=mesh_paths)


def test_a_run_without_its_right_hemisphere_is_named(tmp_path):
    runs = [write_run(tmp_path, 1), write_run(tmp_path, 2)]
    hemispheres(runs[1])[1].unlink()
    with pytest.raises(DataError, match=r"run-2_hemi-R_.*: hemisphere is missing"):
        shared_space(runs, [])


def test_runs_of_different_kinds_are_refused(tmp_path):
    write_nifti(tmp_path / "run-2_bold.nii.gz", np.ones((3, 3, 3, 4)), np.eye(4))
    with pytest.raises(DataError, match=r"run-2_bold\.nii\.gz: another kind of file"):
        shared_space([write_run(tmp_path, 1), tmp_path / "run-2_bold.nii.gz"], [])


def test_the_same_data_in_three_spaces_have_the_same_neighbours(tmp_path):
    """A slab one voxel thick and a square lattice of the same points."""
    i, j = np.mgrid[:6, :6]
    faces = [triangle for a in range(35 - 6) if a % 6 < 5 for triangle in ((a, a + 1, a + 6), (a + 1, a + 7, a + 6))]
    mesh = Mesh(np.stack([i, j, 0 * i], axis=-1).reshape(-1, 3).astype(float), np.array(faces))
    inside = np.ones(36, dtype=bool)
    surface = Surface((inside, inside), (mesh, mesh)).neighbors(radius=1.0)
    slab = Volume(np.ones((6, 6, 1), dtype=bool), np.eye(4)).neighbors(radius=1.0)
    assert (surface[:36, :36] != slab).nnz == 0
    assert (surface[36:, 36:] != slab).nnz == 0
