"""Which mesh and which cortex mask belong to a recording."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsdnn.bids.atlases import atlas_regions
from bidsdnn.bids.dataset import open_dataset
from bidsdnn.bids.meshes import Meshes, find_meshes
from bidsdnn.errors import DataError
from bidsdnn.spaces import Surface, shared_space
from bidsdnn.spaces.gifti import write_labels
from tests.bids.test_dataset import describe, put

FACES = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]], dtype=np.int32)


def write_mesh(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.random.default_rng(n).random((n, 3)).astype(np.float32)
    arrays = [
        nib.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(FACES, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), path)


@pytest.fixture
def prep(tmp_path: Path) -> Path:
    """A derivative with one run on surfaces of 5 vertices, without anything else."""
    root = tmp_path / "ds"
    describe(root)
    put(root, "sub-01/func/sub-01_task-x_bold.nii.gz", "sub-01/func/sub-01_task-x_events.tsv")
    folder = root / "derivatives" / "fmriprep"
    describe(folder, "fMRIPrep")
    (folder / "sub-01" / "func").mkdir(parents=True)
    bold = folder / "sub-01" / "func" / "sub-01_task-x_hemi-L_space-fsnative_bold.func.gii"
    Surface((np.ones(5, bool), np.ones(5, bool))).write(bold, np.random.default_rng(0).random((12, 10)), tr=1.7)
    return folder


def pair(prep: Path, name: str) -> tuple[Path, Path]:
    left, right = (prep / "sub-01" / "anat" / f"sub-01_hemi-{side}_{name}" for side in "LR")
    return left, right


def found(prep: Path, **options) -> Meshes:
    dataset = open_dataset(prep.parents[1])
    (run,) = dataset.runs("01")
    return find_meshes(dataset, "01", run.bold, **options)


def test_the_number_of_vertices_decides(prep):
    assert found(prep) == Meshes()
    for name, n in (("midthickness", 7), ("white", 5), ("pial", 5), ("inflated", 5)):
        for path in pair(prep, f"{name}.surf.gii"):
            write_mesh(path, n)
    meshes = found(prep)
    assert meshes.folded == pair(prep, "white.surf.gii")
    assert meshes.inflated == pair(prep, "inflated.surf.gii")


@pytest.mark.parametrize(("n", "fits"), [(5, True), (6, False)])
def test_a_cortex_mask_must_have_the_vertices_of_the_data(prep, n, fits):
    masks = pair(prep, "desc-cortex_mask.label.gii")
    masks[0].parent.mkdir()
    for path, structure in zip(masks, ("CortexLeft", "CortexRight"), strict=True):
        write_labels(path, np.arange(n) > 0, structure, {1: "cortex"})
    meshes = found(prep)
    assert meshes.cortex == (masks if fits else None)
    if meshes.cortex:
        space, warnings = shared_space([open_dataset(prep.parents[1]).runs("01")[0].bold], [meshes.cortex[0]])
        assert (space.size, warnings) == (8, [])


def test_meshes_asked_for_win_and_must_fit(prep, tmp_path):
    for path in pair(prep, "midthickness.surf.gii"):
        write_mesh(path, 5)
    mine = [tmp_path / f"{side}h.surf.gii" for side in "lr"]
    for path in mine:
        write_mesh(path, 5)
    assert found(prep, asked=mine).folded == tuple(mine)
    write_mesh(mine[1], 6)
    with pytest.raises(DataError, match=r"--mesh .*: 5 and 6 vertices, sub-01_task-x_hemi-L.* has 5 and 5; give"):
        found(prep, asked=mine)


def test_the_repetition_time_is_in_the_surface_itself(prep):
    (run,) = open_dataset(prep.parents[1]).runs("01")
    assert run.tr == 1.7
    assert any("no RepetitionTime in a JSON file; the header's 1.7 s was used" in text for text in run.warnings)


def test_volumes_have_no_mesh(prep):
    dataset = open_dataset(prep.parents[1], raw_bold=True)
    assert find_meshes(dataset, "01", dataset.runs("01")[0].bold) == Meshes()


def test_an_atlas_is_named_by_its_left_file_or_by_both(tmp_path):
    pair = [tmp_path / f"tpl-x_hemi-{side}_atlas-A_seg-2_dseg.label.gii" for side in "LR"]
    write_labels(pair[0], np.array([1, 1, 2, 0, 0]), "CortexLeft", {1: "V1", 2: "V2"})
    write_labels(pair[1], np.array([0, 2, 2, 0, 0]), "CortexRight", {1: "V1", 2: "V2"})
    space = Surface((np.ones(5, bool), np.ones(5, bool)))
    regions, contents = atlas_regions([pair[0]], space)
    assert list(regions) == ["A_seg-2"]
    assert {name: where.nonzero()[0].tolist() for name, where in regions["A_seg-2"].items()} == {
        "V1": [0, 1], "V2": [2, 6, 7]
    }  # fmt: skip
    for paths in (pair, pair[::-1], pair[1:]):
        assert atlas_regions(paths, space)[1] == contents
    write_labels(pair[1], np.array([0, 2, 1, 0, 0]), "CortexRight", {1: "V1", 2: "V2"})
    assert atlas_regions(pair, space)[1] != contents
    before = atlas_regions(pair, space)[1]
    (tmp_path / "tpl-x_hemi-L_atlas-A_seg-2_dseg.tsv").write_text("index\tname\n1\tone\n2\ttwo\n")
    assert atlas_regions(pair, space)[1] != before
