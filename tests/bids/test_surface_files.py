"""Surfaces and CIFTI as fMRIPrep 1.x to 25.x name them: found, chosen by space, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bidsdnn.bids.dataset import open_dataset
from bidsdnn.bids.names import hemisphere
from bidsdnn.errors import MissingInputError, SelectionError
from tests.bids.test_dataset import describe, put

STEM = "sub-01/func/sub-01_task-x_run-1"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A raw dataset of one run, and an empty derivative."""
    root = tmp_path / "ds"
    describe(root)
    put(root, "sub-01/func/sub-01_task-x_run-01_bold.nii.gz", "sub-01/func/sub-01_task-x_run-01_events.tsv")
    put(root, "task-x_bold.json", text='{"RepetitionTime": 1.5}')
    describe(root / "derivatives" / "fmriprep", "fMRIPrep")
    return root


def derived(root: Path, *names: str) -> None:
    put(root / "derivatives" / "fmriprep", *names, text='{"StartTime": 0.5}')


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a_hemi-L_space-s_bold.func.gii", "a_hemi-R_space-s_bold.func.gii"),
        ("a_space-s_hemi-L_bold.func.gii", "a_space-s_hemi-R_bold.func.gii"),
        ("sub-L_bold_space-L.L.func.gii", "sub-L_bold_space-L.R.func.gii"),
        ("lh.sub-01_bold.mgh", "rh.sub-01_bold.mgh"),
        ("sub-01_hemi-L.label.gii", "sub-01_hemi-R.label.gii"),
    ],
)
def test_one_hemisphere_names_the_other(left, right):
    assert hemisphere(Path("d") / left, "R") == Path("d") / right
    assert hemisphere(Path("d") / right, "L") == Path("d") / left
    assert hemisphere(Path("d") / left, "L") == Path("d") / left


def test_a_name_without_side_has_no_other():
    with pytest.raises(ValueError, match=r"expected hemi-L, \.L\.func\.gii or lh\."):
        hemisphere(Path("sub-01_bold.nii.gz"), "R")


@pytest.mark.parametrize(
    ("name", "space"),
    [
        (f"{STEM}_hemi-{{}}_space-fsaverage5_bold.func.gii", "fsaverage5"),
        (f"{STEM}_space-fsnative_hemi-{{}}_bold.func.gii", "fsnative"),
        (f"{STEM}_bold_space-fsnative.{{}}.func.gii", "fsnative"),
        (f"{STEM}_hemi-{{}}_space-fsaverage_den-10k_bold.func.gii", "fsaverage:den-10k"),
        (f"{STEM}_hemi-{{}}_space-fsaverage_bold.mgh", "fsaverage"),
        ("sub-01/sub-01_task-x_run-1_hemi-{}_space-fsaverage6_bold.func.gii", "fsaverage6"),
        (f"{STEM}_space-fsLR_den-91k_bold.dtseries.nii", "fsLR:den-91k"),
        (f"{STEM}_space-fsLR_den-170k_bold.dtseries.nii", "fsLR"),
    ],
)
def test_every_spelling_is_found(dataset, name, space):
    derived(dataset, *(name.format(side) for side in "LR"))
    assert open_dataset(dataset).runs("01")[0].bold == open_dataset(dataset, space=space).runs("01")[0].bold
    (run,) = open_dataset(dataset, space=space).runs("01")
    assert run.bold == dataset / "derivatives" / "fmriprep" / name.format("L")
    assert (run.tr, run.mask, run.space) == (1.5, None, space.split(":")[0])


def test_freesurfers_names_are_found(dataset):
    folder = "sub-01/func/"
    names = [f"{folder}{side}h.sub-01_task-x_run-1_space-fsaverage_bold.mgh" for side in "lr"]
    derived(dataset, *names)
    (run,) = open_dataset(dataset).runs("01")
    assert run.bold == dataset / "derivatives" / "fmriprep" / names[0]
    assert run.entities["hemi"] == "L"
    filtered = open_dataset(dataset, filters={"bold": {"run": 2}})
    with pytest.raises(MissingInputError, match="no preprocessed BOLD"):
        filtered.runs("01")


def test_several_spaces_are_listed(dataset):
    derived(
        dataset,
        *(f"{STEM}_hemi-{side}_space-fsaverage{den}_bold.func.gii" for side in "LR" for den in ("", "_den-10k")),
        f"{STEM}_space-fsLR_den-91k_bold.dtseries.nii", f"{STEM}_space-T1w_desc-preproc_bold.nii.gz",
        f"{STEM}_desc-preproc_bold.nii.gz",
    )  # fmt: skip
    with pytest.raises(
        SelectionError, match="T1w, fsLR:den-91k, fsaverage:den-10k, fsaverage:den-native, native; choose one"
    ):
        open_dataset(dataset).runs("01")
    (run,) = open_dataset(dataset, space="fsaverage:den-native").runs("01")
    assert "den" not in run.entities
    (run,) = open_dataset(dataset, space="fsLR").runs("01")
    assert run.bold.name.endswith(".dtseries.nii")


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_lone_hemisphere_is_named(dataset, side):
    other = "R" if side == "L" else "L"
    derived(dataset, f"{STEM}_hemi-{side}_space-fsaverage5_bold.func.gii")
    with pytest.raises(MissingInputError, match=rf"hemi-{other}_space-fsaverage5_bold.func.gii: not found, but"):
        open_dataset(dataset).runs("01")
    link = dataset / "derivatives" / "fmriprep" / f"{STEM}_hemi-{other}_space-fsaverage5_bold.func.gii"
    link.symlink_to("../.git/annex/gone")
    with pytest.raises(MissingInputError, match=rf"hemi-{other}_space-fsaverage5_bold.func.gii: .*datalad get"):
        open_dataset(dataset).runs("01")


def test_both_names_of_a_ciftis_sidecar_are_read(dataset):
    (dataset / "task-x_bold.json").unlink()
    name = f"{STEM}_space-fsLR_den-91k_bold"
    derived(dataset, f"{name}.dtseries.nii")
    put(dataset / "derivatives" / "fmriprep", f"{name}.dtseries.json", text='{"RepetitionTime": 2.2, "StartTime": 9}')
    put(dataset / "derivatives" / "fmriprep", f"{name}.json", text='{"StartTime": 1.1}')
    (run,) = open_dataset(dataset).runs("01")
    assert (run.tr, run.start_time) == (2.2, 1.1)


def test_meshes_and_cortex_masks_are_found_by_space(dataset):
    prep = dataset / "derivatives" / "fmriprep"
    native = [f"sub-01/anat/sub-01_hemi-{{}}_{kind}.surf.gii" for kind in ("inflated", "pial", "midthickness")]
    standard = "sub-01/anat/sub-01_hemi-{}_space-fsLR_den-32k_midthickness.surf.gii"
    old = "sub-01/anat/sub-01_T1w_white.{}.surf.gii"
    cortex = "sub-01/anat/sub-01_hemi-{}_desc-cortex_mask.label.gii"
    derived(dataset, *(name.format(side) for name in (*native, standard, old, cortex) for side in "LR"))
    derived(dataset, "sub-01/anat/sub-01_hemi-L_smoothwm.surf.gii")
    data = open_dataset(dataset)

    def pair(name: str) -> tuple[Path, ...]:
        return tuple(prep / name.format(side) for side in "LR")

    # Of a file without its other half nothing can be made.
    assert data.surfaces("mesh", "01", "fsnative") == [pair(n) for n in (native[2], old, native[1], native[0])]
    assert data.surfaces("mesh", "01", "fsLR") == [pair(standard)]
    assert data.surfaces("mesh", "01", "fsaverage5") == []
    assert data.surfaces("cortex", "01", "fsnative") == [pair(cortex)]
    derived(dataset, *(f"sub-01/anat/sub-01_hemi-{s}_space-fsaverage_den-10k_pial.surf.gii" for s in "LR"))
    assert len(open_dataset(dataset).surfaces("mesh", "01", "fsaverage5")) == 1


def test_trees_without_bids_names_are_passed_over(dataset):
    """As ciftify's of ds004496 (NOD)."""
    put(dataset, "derivatives/ciftify/sub-01/results/ses-x_task-y_run-1/ses-x_task-y_run-1_Atlas.dtseries.nii")
    derived(dataset, f"{STEM}_space-T1w_desc-preproc_bold.nii.gz")
    assert open_dataset(dataset).runs("01")[0].space == "T1w"


def test_nested_and_undescribed_derivatives_hold_surfaces(dataset, caplog):
    """The folders of ds005165 (versionB/fmriprep), without a description, as in ds001499."""
    prep = dataset / "derivatives" / "versionB" / "fmriprep"
    put(prep, *(f"{STEM}_hemi-{side}_space-fsaverage_bold.func.gii" for side in "LR"))
    (dataset / "derivatives" / "fmriprep" / "dataset_description.json").unlink()
    data = open_dataset(dataset)
    assert data.derivatives == {"fmriprep": prep}
    assert f"{prep}: no dataset_description.json" in caplog.text
    assert data.runs("01")[0].bold.name == "sub-01_task-x_run-1_hemi-L_space-fsaverage_bold.func.gii"


def test_regions_time_series_are_found_by_a_filter(dataset):
    derived(
        dataset,
        *(f"{STEM}_space-fsLR_atlas-{name}_den-91k_timeseries.ptseries.nii" for name in ("A", "B")),
        f"{STEM}_space-T1w_desc-preproc_bold.nii.gz",
    )
    chosen = {"bold": {"suffix": "timeseries", "extension": ".ptseries.nii", "atlas": "B"}}
    (run,) = open_dataset(dataset, filters=chosen).runs("01")
    assert run.bold.name.endswith("_atlas-B_den-91k_timeseries.ptseries.nii")


def test_the_anatomy_under_cifti_is_its_template(dataset):
    anatomy = "sub-01/anat/sub-01_space-MNI152NLin6Asym_res-2_desc-preproc_T1w.nii.gz"
    derived(
        dataset, anatomy, "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", f"{STEM}_space-fsLR_den-91k_bold.dtseries.nii"
    )
    assert open_dataset(dataset).anatomy("01") == dataset / "derivatives" / "fmriprep" / anatomy
