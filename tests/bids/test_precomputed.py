from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel import cifti2
from nilearn.glm.first_level import FirstLevelModel
from nilearn.interfaces.bids import save_glm_to_bids

from bidsdnn.bids.precomputed import FORMATS, find, read_part, shared_space_of
from bidsdnn.bids.precomputed.found import Asked
from bidsdnn.errors import DataError, MissingInputError, SelectionError
from bidsdnn.spaces import Cifti, Surface

SHAPE = (4, 5, 3)
AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])
STIMULI = ["face", "house", "shoe", "cat"]
EXAMPLE = Path(__file__).parents[3] / "shared" / "data" / "spm_betas_example"


def volumes(n, seed=0):
    """Responses of n rows, (x, y, z, n); one corner is outside the brain."""
    data = np.random.default_rng(seed).standard_normal((*SHAPE, n)).astype(np.float32)
    data[0, 0, 0] = np.nan
    return data


def save(path, data, affine=AFFINE, descrip=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.header["descrip"] = descrip
    nib.save(image, path)
    return path


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def mask(folder, name="sub-01_desc-brain_mask.nii.gz"):
    inside = np.ones(SHAPE, dtype=np.uint8)
    inside[0, 0, 0] = 0
    return save(folder / name, inside)


def look(root, label="01", **options):
    found = find("theirs", root, label, Asked(**options))
    assert found is not None
    space, said = shared_space_of(found.parts, found.files)
    values = np.vstack([read_part(part, space) for part in found.parts])
    ids = [name for part in found.parts for name in part.ids]
    return found, ids, values, space, said


def expected(data):
    """Rows of an (x, y, z, n) array inside the brain."""
    inside = np.isfinite(data).all(axis=3)
    return data[inside].T


# One function a format: writes two runs (or sessions) of two responses to each of two stimuli; returns what is to come.


def write_own(root):
    truth = []
    for run in (1, 2):
        stem = root / f"sub-01/func/sub-01_task-x_run-{run}"
        data = volumes(5, run)
        save(Path(f"{stem}_space-T1w_stat-effect_desc-singletrial_statmap.nii.gz"), data)
        text(
            Path(f"{stem}_desc-singletrial_trials.tsv"), "onset\tstim_id\testimated",
            "1\tface\tTrue", "2\thouse\tTrue", "3\tshoe\tFalse", "4\tface\tTrue", "5\thouse\tTrue",
        )  # fmt: skip
        truth.append(data[..., [0, 1, 3, 4]])
    return ["face", "house", "face", "house"] * 2, np.concatenate(truth, axis=3), ["x 1"] * 4 + ["x 2"] * 4


def write_statmaps(root):
    ids, truth, runs = [], [], []
    for run in (1, 2):
        for number, name in enumerate(("face", "house")):
            data = volumes(1, 10 * run + number)
            stem = f"sub-01/sub-01_task-x_run-{run}_contrast-{name}_stat"
            save(root / f"{stem}-effect_statmap.nii.gz", data[..., 0])
            save(root / f"{stem}-z_statmap.nii.gz", volumes(1, 99)[..., 0])
            ids.append(name)
            truth.append(data)
            runs.append(f"x {run}")
    # An average over runs lies beside them.
    save(root / "sub-01/sub-01_task-x_contrast-face_stat-effect_statmap.nii.gz", volumes(1)[..., 0])
    return ids, np.concatenate(truth, axis=3), runs


def write_betaseries(root):
    truth = []
    for number, name in enumerate(("face", "house")):
        data = volumes(4, number)
        save(root / f"sub-01/func/sub-01_task-x_run-1_space-T1w_desc-{name}_betaseries.nii.gz", data)
        truth.append(data)
    return ["face"] * 4 + ["house"] * 4, np.concatenate(truth, axis=3), ["x 1"] * 8


def write_glmsingle(root):
    data = volumes(8)
    folder = root / "sub-01"
    mask(folder)
    with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["betasmd"] = data
        file["R2"] = np.zeros(SHAPE)
    save(folder / "R2.nii.gz", data[..., 0])
    names = ["face", "house", "face", "house"] * 2
    text(folder / "trials.tsv", "stim_id\trun", *[f"{name}\t{1 + i // 4}" for i, name in enumerate(names)])
    return names, data, ["1"] * 4 + ["2"] * 4


def write_spm(root):
    ids, truth, runs = [], [], []
    folder = root / "sub-01"
    number = 0
    for run in (1, 2):
        for name in ("face*bf(1)", "house*bf(1)", "face*bf(2)", "facexage^1*bf(1)", "R1"):
            number += 1
            data = volumes(1, number)
            save(folder / f"beta_{number:04d}.nii", data[..., 0],
                 descrip=f"spm_spm:beta ({number:04d}) - Sn({run}) {name}")  # fmt: skip
            if name in ("face*bf(1)", "house*bf(1)"):
                ids.append(name.removesuffix("*bf(1)"))
                truth.append(data)
                runs.append(f"{folder.as_posix()} {run}")
    save(folder / "beta_0011.nii", volumes(1)[..., 0], descrip="spm_spm:beta (0011) - Sn(1) constant")
    save(folder / "ResMS.nii", volumes(1)[..., 0])
    return ids, np.concatenate(truth, axis=3), runs


def write_nsd(root):
    truth = []
    folder = root / "ppdata/subj01/func1pt8mm/betas_fithrf"
    names = ["face", "house", "face", "house"]
    for session in (1, 2, 10):
        data = volumes(4, session)
        save(folder / f"betas_session{session:02d}.nii.gz", data)
        with h5py.File(folder / f"betas_session{session:02d}.hdf5", "w") as file:
            file["betas"] = data.T
        truth.append(data)
    save(folder / "meanbeta_session01.nii.gz", volumes(1)[..., 0])
    text(folder / "trials.tsv", "73k_id\tsession", *[f"{name}\t{s}" for s in (1, 2, 10) for name in names])
    return names * 3, np.concatenate(truth, axis=3), [""] * 12


def write_labelfold(root):
    data = volumes(8)
    save(root / "sub-01/sub-01_betas.nii.gz", data)
    names = ["face", "house", "face", "house"] * 2
    text(root / "sub-01/sub-01_labelfold.tsv", "label\tfold", *[f"{n}\t{1 + i // 4}" for i, n in enumerate(names)])
    return names, data, ["1"] * 4 + ["2"] * 4


WRITERS = {
    "bidsdnn": write_own,
    "statmap": write_statmaps,
    "betaseries": write_betaseries,
    "glmsingle": write_glmsingle,
    "spm": write_spm,
    "betas": write_labelfold,
    "betas of NSD": write_nsd,
}


def test_every_format_has_a_test():
    assert {name.split()[0] for name in WRITERS} | {"regions"} == set(FORMATS)


@pytest.mark.parametrize("kind", WRITERS)
def test_responses_are_read_with_their_stimuli_and_runs(kind, tmp_path):
    ids, truth, runs = WRITERS[kind](tmp_path)
    found, names, values, space, _ = look(tmp_path)
    assert found.kind == kind.split()[0]
    assert names == ids
    np.testing.assert_array_equal(values, expected(truth))
    assert [run for part in found.parts for run in part.run] == runs
    assert space.size == np.prod(SHAPE) - 1
    np.testing.assert_array_equal(space.affine, AFFINE)


@pytest.mark.parametrize("kind", WRITERS)
def test_other_participants_find_nothing(kind, tmp_path):
    WRITERS[kind](tmp_path)
    assert find("theirs", tmp_path, "02", Asked()) is None


def test_sessions_of_nsd_come_from_the_file_names_where_the_table_has_none(tmp_path):
    write_nsd(tmp_path)
    folder = tmp_path / "ppdata/subj01/func1pt8mm/betas_fithrf"
    text(folder / "trials.tsv", "73k_id", *["face", "house", "face", "house"] * 3)
    found, *_ = look(tmp_path)
    assert [part.ses[0] for part in found.parts] == ["1", "2", "10"]


def test_hdf5_of_nsd_equals_its_images(tmp_path):
    write_nsd(tmp_path)
    folder = tmp_path / "ppdata/subj01/func1pt8mm/betas_fithrf"
    _, _, images, _, _ = look(tmp_path)
    for path in folder.glob("betas_session*.nii.gz"):
        path.unlink()
    _, _, arrays, space, said = look(tmp_path)
    np.testing.assert_array_equal(arrays, images)
    # The affine comes from the one image that is left.
    np.testing.assert_array_equal(space.affine, AFFINE)
    assert "no brain mask" in said[0]


def test_bold5000s_list_of_names_serves_all_sessions(tmp_path):
    stem = "CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-"
    data = [volumes(3, s) for s in (1, 2)]
    for session, one in enumerate(data, start=1):
        save(tmp_path / f"{stem}{session:02d}.nii.gz", one)
    text(tmp_path / "CSI1_imgnames.txt", "a.jpg", "b.jpg", "c.jpg", "a.jpg", "d.jpg", "b.jpg")
    save(tmp_path / "CSI2_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz", volumes(3))
    found, ids, values, _, _ = look(tmp_path, "CSI1")
    assert ids == ["a.jpg", "b.jpg", "c.jpg", "a.jpg", "d.jpg", "b.jpg"]
    assert [part.ses[0] for part in found.parts] == ["1", "2"]
    np.testing.assert_array_equal(values, expected(np.concatenate(data, axis=3)))


def test_a_result_of_unravelled_voxels_is_laid_into_its_mask(tmp_path):
    folder = tmp_path / "sub-01"
    inside = nib.load(mask(folder)).get_fdata() > 0
    betas = volumes(4)[inside]
    with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["betasmd"] = betas[:, None, None, :]
    text(folder / "trials.tsv", "stim_id", *STIMULI)
    _, _, values, space, _ = look(tmp_path)
    np.testing.assert_array_equal(values, betas.T)
    np.testing.assert_array_equal(space.mask, inside)
    (folder / "sub-01_desc-brain_mask.nii.gz").unlink()
    with pytest.raises(DataError, match=r"59 voxels without a grid; put the mask"):
        look(tmp_path)


def test_a_matlab_result_has_its_axes_turned(tmp_path):
    data = volumes(4)
    folder = tmp_path / "sub-01"
    mask(folder)
    with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.mat", "w") as file:
        file["modelmd"] = data.T
    text(folder / "trials.tsv", "stim_id", *STIMULI)
    _, _, values, _, _ = look(tmp_path)
    np.testing.assert_array_equal(values, expected(data))


def test_an_array_without_an_image_beside_it_says_what_it_cannot_do(tmp_path):
    write_glmsingle(tmp_path)
    for path in tmp_path.rglob("*.nii.gz"):
        path.unlink()
    *_, said = look(tmp_path)
    assert "has no affine" in said[0] and "put its mask into its folder" in said[0]


def test_the_mask_decides_where_there_is_one(tmp_path):
    data = np.nan_to_num(volumes(4), nan=7.0)
    save(tmp_path / "sub-01/sub-01_betas.nii.gz", data)
    text(tmp_path / "sub-01/sub-01_betas.tsv", "stim_id", *STIMULI)
    assert look(tmp_path)[3].size == np.prod(SHAPE)
    mask(tmp_path / "sub-01")
    assert look(tmp_path)[3].size == np.prod(SHAPE) - 1


def test_asked_runs_and_spaces_are_chosen(tmp_path):
    write_own(tmp_path)
    found, *_ = look(tmp_path, runs=(2,))
    assert len(found.parts) == 1 and "run-2" in found.parts[0].path.name
    with pytest.raises(SelectionError, match="no responses in the asked"):
        find("theirs", tmp_path, "01", Asked(runs=(7,)))
    for run in (1, 2):
        old = tmp_path / f"sub-01/func/sub-01_task-x_run-{run}_space-T1w_stat-effect_desc-singletrial_statmap.nii.gz"
        save(old.with_name(old.name.replace("T1w", "MNI152Lin")), volumes(5))
    with pytest.raises(SelectionError, match="choose one"):
        find("theirs", tmp_path, "01", Asked())
    assert len(find("theirs", tmp_path, "01", Asked(space="T1w")).parts) == 2


def test_only_participant_owns_unmarked_files(tmp_path):
    save(tmp_path / "betas.nii.gz", volumes(4))
    text(tmp_path / "betas.tsv", "stim_id", *STIMULI)
    assert find("theirs", tmp_path, "01", Asked()) is None
    assert find("theirs", tmp_path, "01", Asked(), alone=True) is not None


@pytest.mark.parametrize("rows", [3, 5])
def test_a_table_with_another_number_of_rows_is_refused(rows, tmp_path):
    save(tmp_path / "sub-01/sub-01_betas.nii.gz", volumes(4))
    text(tmp_path / "sub-01/sub-01_betas.tsv", "stim_id", *["face"] * rows)
    with pytest.raises(DataError, match=rf"sub-01_betas.tsv: {rows} stimuli for 4 responses in sub-01_betas.nii.gz"):
        look(tmp_path)


def test_own_trials_must_be_as_many_as_maps(tmp_path):
    write_own(tmp_path)
    path = tmp_path / "sub-01/func/sub-01_task-x_run-1_desc-singletrial_trials.tsv"
    text(path, "onset\tstim_id\testimated", "1\tface\tTrue")
    with pytest.raises(DataError, match="1 trials for 5 responses"):
        look(tmp_path)
    path.unlink()
    with pytest.raises(MissingInputError, match="its table of trials is not beside it"):
        look(tmp_path)


def test_a_row_without_stimulus_is_refused(tmp_path):
    save(tmp_path / "sub-01/sub-01_betas.nii.gz", volumes(3))
    text(tmp_path / "sub-01/sub-01_betas.tsv", "stim_id\tx", "face\t1", "n/a\t1", "cat\t1")
    with pytest.raises(DataError, match="row 2 has no stim_id"):
        look(tmp_path)


def test_a_table_without_a_column_of_stimuli_is_refused(tmp_path):
    save(tmp_path / "sub-01/sub-01_betas.nii.gz", volumes(2))
    text(tmp_path / "sub-01/sub-01_betas.tsv", "beauty\tsize", "1\t2", "3\t4")
    with pytest.raises(DataError, match=r"sub-01_betas.tsv: .*choose one of beauty, size with --stimulus-column"):
        look(tmp_path)
    assert look(tmp_path, column="beauty")[1] == ["1", "3"]


def test_glmsingle_without_stimuli_is_refused(tmp_path):
    write_glmsingle(tmp_path)
    (tmp_path / "sub-01/trials.tsv").unlink()
    with pytest.raises(MissingInputError, match=r"which stimulus each of its 8 trials showed; add trials.tsv"):
        look(tmp_path)


def test_pickles_are_refused_with_the_reason(tmp_path):
    write_glmsingle(tmp_path)
    folder = tmp_path / "sub-01"
    (folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5").unlink()
    np.save(folder / "TYPED_FITHRF_GLMDENOISE_RR.npy", {"betasmd": volumes(8)}, allow_pickle=True)
    with pytest.raises(DataError, match=r"pickled Python objects.*refused; run GLMsingle with wanthdf5=1"):
        look(tmp_path)
    np.save(folder / "TYPED_FITHRF_GLMDENOISE_RR.npy", volumes(8))
    np.testing.assert_array_equal(look(tmp_path)[2], expected(volumes(8)))


def test_hdf5_without_betas_names_what_it_holds(tmp_path):
    write_glmsingle(tmp_path)
    with h5py.File(tmp_path / "sub-01/TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["R2"] = np.zeros(3)
    with pytest.raises(DataError, match="holds R2; responses are expected in betasmd"):
        look(tmp_path)
    (tmp_path / "sub-01/TYPED_FITHRF_GLMDENOISE_RR.hdf5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        look(tmp_path)


def test_mixed_grids_are_refused(tmp_path):
    write_statmaps(tmp_path)
    odd = tmp_path / "sub-01/sub-01_task-x_run-2_contrast-house_stat-effect_statmap.nii.gz"
    save(odd, np.ones((4, 5, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"run-2_contrast-house.*its grid \(4, 5, 4\) differs"):
        look(tmp_path)
    save(odd, volumes(1)[..., 0], affine=np.diag([3.0, 3, 3, 1]))
    with pytest.raises(DataError, match="differs from that of"):
        look(tmp_path)


def test_nothing_inside_any_image_is_refused(tmp_path):
    save(tmp_path / "sub-01/sub-01_betas.nii.gz", np.full((*SHAPE, 4), np.nan, dtype=np.float32))
    text(tmp_path / "sub-01/sub-01_betas.tsv", "stim_id", *STIMULI)
    with pytest.raises(DataError, match="no voxel has a response"):
        look(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="no such folder; check -d theirs="):
        find("theirs", tmp_path / "gone", "01", Asked())


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the SPM example is not there")
def test_real_spm_images():
    found, ids, values, space, _ = look(EXAMPLE / "derivatives" / "SPM_example")
    assert found.kind == "spm"
    assert ids == ["1443537.022563", "1621127.019020"]
    image = nib.load(found.parts[0].path).get_fdata(dtype=np.float32)
    assert np.isfinite(values).all() and space.size == np.isfinite(image).sum()
    np.testing.assert_array_equal(values[0], image[space.mask])


def test_nilearns_maps_are_read(tmp_path):
    rng = np.random.default_rng(0)
    events = pd.DataFrame({"onset": 4 + 8.0 * np.arange(10), "duration": 2.0, "trial_type": ["face", "house"] * 5})
    bold = nib.Nifti1Image(100 + rng.standard_normal((6, 6, 6, 60)), np.diag([3, 3, 3, 1]))
    inside = nib.Nifti1Image(np.ones((6, 6, 6), np.uint8), bold.affine)
    with warnings.catch_warnings():
        # Of drawing maps of noise, and of names that moved between versions.
        warnings.simplefilter("ignore")
        model = FirstLevelModel(t_r=1.5, mask_img=inside, minimize_memory=False).fit(bold, events)
        save_glm_to_bids(model, ["face", "house"], out_dir=tmp_path, prefix="sub-01_task-x")
    found, ids, values, _, _ = look(tmp_path)
    assert found.kind == "statmap" and ids == ["face", "house"]
    effect = model.compute_contrast("face", output_type="effect_size").get_fdata(dtype=np.float32)
    np.testing.assert_allclose(values[0], effect.reshape(-1), rtol=1e-4)


def write_regions(root):
    rng = np.random.default_rng(0)
    truth, runs = [], []
    for run in (1, 2):
        values = rng.standard_normal((6, 3)).astype(np.float32)
        stem = root / f"sub-01/func/sub-01_task-x_run-{run}_atlas-a"
        pd.DataFrame(values, columns=["V1", "V2", "IT"]).to_csv(
            text(Path(f"{stem}_timeseries.tsv")), sep="\t", index=False, float_format="%.9g"
        )
        # Volumes of rest have no stimulus.
        text(Path(f"{stem}_timeseries_labelfold.tsv"), "label", "face", "n/a", "house", "face", "n/a", "house")
        truth.append(values[[0, 2, 3, 5]])
        runs += [f"x {run}"] * 4
    text(root / "sub-01/func/sub-01_task-x_run-1_desc-confounds_timeseries.tsv", "trans_x", "0")
    return ["face", "house"] * 4, np.vstack(truth), runs


def write_parcels(root):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 3)).astype(np.float32)
    voxels = [np.array([[i, 0, 0]]) for i in range(3)]
    axis = cifti2.ParcelsAxis(["V1", "V2", "IT"], voxels, [{}] * 3, np.eye(4), (3, 1, 1), {})
    image = cifti2.Cifti2Image(values, (cifti2.SeriesAxis(0, 1.5, 4), axis))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SERIES")
    path = root / "sub-01/func/sub-01_task-x_run-1_timeseries.ptseries.nii"
    path.parent.mkdir(parents=True)
    nib.save(image, path)
    text(path.with_name("sub-01_task-x_run-1_timeseries_ids.tsv"), "stim_id", "face", "house", "face", "house")
    return ["face", "house"] * 2, values, ["x 1"] * 4


def write_parcel_hdf5(root):
    rng = np.random.default_rng(0)
    truth = []
    (root / "sub-01").mkdir(parents=True)
    with h5py.File(root / "sub-01/sub-01_atlas-b.h5", "w") as file:
        for key in ("ses-1_a", "ses-1_b"):
            truth.append(rng.standard_normal((3, 5)).astype(np.float32))
            file[key] = truth[-1]
    text(root / "sub-01/sub-01_atlas-b_stimuli.tsv", "stim_id", "face", "house", "cat", "cat", "face", "house")
    return ["face", "house", "cat", "cat", "face", "house"], np.vstack(truth), ["ses-1_a"] * 3 + ["ses-1_b"] * 3


@pytest.mark.parametrize("write", [write_regions, write_parcels, write_parcel_hdf5])
def test_regions_series_are_read_with_a_label_for_each_volume(write, tmp_path):
    ids, truth, runs = write(tmp_path)
    found, names, values, space, _ = look(tmp_path)
    assert found.kind == "regions" and names == ids
    np.testing.assert_allclose(values, truth, rtol=1e-6)
    assert [run for part in found.parts for run in part.run] == runs
    assert space.names == (("V1", "V2", "IT") if truth.shape[1] == 3 else tuple(f"parcel{i}" for i in range(1, 6)))


def test_region_tables_must_have_as_many_labels_as_volumes_and_the_same_regions(tmp_path):
    write_regions(tmp_path)
    labels = tmp_path / "sub-01/func/sub-01_task-x_run-1_atlas-a_timeseries_labelfold.tsv"
    text(labels, "label", "face", "house")
    with pytest.raises(DataError, match="2 stimuli for 6 responses in sub-01_task-x_run-1_atlas-a_timeseries"):
        look(tmp_path)


def test_parcel_runs_of_two_atlases_are_refused(tmp_path):
    write_parcel_hdf5(tmp_path)
    with h5py.File(tmp_path / "sub-01/sub-01_atlas-c.h5", "w") as file:
        file["ses-2"] = np.zeros((2, 7))
    text(tmp_path / "sub-01/sub-01_atlas-c.tsv", "stim_id", "face", "house")
    with pytest.raises(DataError, match=r"files have \[5, 7\] regions; give files of one atlas"):
        look(tmp_path)


@pytest.mark.parametrize("kind", ["surface", "cifti"])
def test_our_own_surfaces_and_cifti_are_read(kind, tmp_path):
    rng = np.random.default_rng(0)
    stem = "sub-01/func/sub-01_task-x_run-1"
    values = rng.standard_normal((3, 9 if kind == "surface" else 4)).astype(np.float32)
    if kind == "surface":
        inside = np.ones(6, dtype=bool), np.array([True, True, True, False, False, False])
        space = Surface(inside)
        path = tmp_path / f"{stem}_hemi-L_space-fsnative_stat-effect_desc-singletrial_statmap.func.gii"
    else:
        model = cifti2.BrainModelAxis.from_surface(np.arange(4), 6, "CortexLeft")
        space = Cifti(model)
        path = tmp_path / f"{stem}_space-fsLR_den-91k_stat-effect_desc-singletrial_statmap.dscalar.nii"
    path.parent.mkdir(parents=True)
    space.write(path, values)
    text(
        tmp_path / f"{stem}_desc-singletrial_trials.tsv",
        "stim_id\testimated", "face\tTrue", "house\tFalse", "cat\tTrue",
    )  # fmt: skip
    found, ids, read, there, _ = look(tmp_path)
    assert found.kind == "bidsdnn" and ids == ["face", "cat"] and there.size == space.size
    np.testing.assert_array_equal(read, values[[0, 2]])
