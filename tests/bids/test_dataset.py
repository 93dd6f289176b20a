from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from bidsdnn.bids.dataset import open_dataset
from bidsdnn.errors import (
    ConfigError,
    DataError,
    InvalidDatasetError,
    MissingInputError,
    OutputError,
    SelectionError,
)
from bidsdnn.spaces import write_nifti

MNI = "MNI152NLin2009cAsym"
EVENTS = "onset\tduration\tstim_file\n0\t1\ta.png\n"


def put(root: Path, *names: str, text: str | None = None) -> None:
    """Write small files of the right kind; JSON and TSV take `text`."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".nii.gz"):
            write_nifti(path, np.ones((2, 2, 2, 3), dtype=np.float32), np.eye(4), tr=2.0)
        elif name.endswith(".json"):
            path.write_text(text or "{}", encoding="utf-8")
        else:
            path.write_text(text or EVENTS, encoding="utf-8")


def describe(root: Path, generator: str | None = None) -> None:
    content: dict[str, object] = {"Name": "Test", "BIDSVersion": "1.9.0"}
    if generator:
        content |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": generator}]}
    put(root, "dataset_description.json", text=json.dumps(content))


@pytest.fixture
def modern(tmp_path: Path) -> Path:
    """Names as fMRIPrep 25 writes them; raw `run-01` against derivative `run-1`."""
    root, prep = tmp_path / "ds", tmp_path / "ds" / "derivatives" / "fmriprep"
    describe(root)
    describe(prep, "fMRIPrep")
    put(root, "task-things_bold.json", text='{"RepetitionTime": 1.5}')
    for sub in ("01", "02", "10"):
        for ses in ("a", "b"):
            folder = f"sub-{sub}/ses-{ses}"
            for run in (1, 2, 10):
                raw = f"{folder}/func/sub-{sub}_ses-{ses}_task-things_run-{run:02}"
                put(root, f"{raw}_bold.nii.gz", f"{raw}_events.tsv")
                stem = f"{folder}/func/sub-{sub}_ses-{ses}_task-things_run-{run}"
                for space in ("", "_space-T1w", f"_space-{MNI}_res-2"):
                    put(prep, f"{stem}{space}_desc-preproc_bold.nii.gz", f"{stem}{space}_desc-brain_mask.nii.gz")
                    sidecar = '{"StartTime": 0.73, "RepetitionTime": 1.5}'
                    put(prep, f"{stem}{space}_desc-preproc_bold.json", text=sidecar)
                put(prep, f"{stem}_desc-confounds_timeseries.tsv")
                put(prep, *(f"{stem}_hemi-{side}_space-fsaverage5_bold.func.gii" for side in "LR"))
        anat = f"sub-{sub}/anat/sub-{sub}"
        put(root, f"{anat}_T1w.nii.gz")
        put(prep, f"{anat}_desc-preproc_T1w.nii.gz", f"{anat}_space-{MNI}_res-2_desc-preproc_T1w.nii.gz")
        put(prep, f"{anat}_desc-brain_mask.nii.gz", f"{anat}_space-{MNI}_res-2_desc-brain_mask.nii.gz")
    return root


def test_runs_of_a_modern_derivative(modern):
    dataset = open_dataset(modern, space=MNI)
    assert dataset.participants == ("01", "02", "10")
    assert (dataset.name, dataset.tasks, list(dataset.derivatives)) == ("Test", ("things",), ["fmriprep"])
    runs = dataset.runs("02")
    assert [(run.ses, run.run) for run in runs] == [(s, r) for s in "ab" for r in (1, 2, 10)]
    run = runs[2]
    stem = "sub-02/ses-a/func/sub-02_ses-a_task-things"
    prep = modern / "derivatives" / "fmriprep"
    assert run.bold == prep / f"{stem}_run-10_space-{MNI}_res-2_desc-preproc_bold.nii.gz"
    assert run.mask == prep / f"{stem}_run-10_space-{MNI}_res-2_desc-brain_mask.nii.gz"
    assert run.confounds == prep / f"{stem}_run-10_desc-confounds_timeseries.tsv"
    assert runs[0].events == modern / f"{stem}_run-01_events.tsv"
    assert runs[0].raw == modern / f"{stem}_run-01_bold.nii.gz"
    assert (run.tr, run.start_time, run.space, run.source, run.warnings) == (1.5, 0.73, MNI, "fmriprep", ())
    assert run.entities["res"] == "2"
    assert runs[0].name == "ses-a_task-things_run-1"


def test_spaces_are_asked_for_by_name(modern):
    with pytest.raises(SelectionError, match=rf"{MNI}:res-2, T1w, fsaverage5, native; choose one"):
        open_dataset(modern).runs("01")
    native = open_dataset(modern, space="native").runs("01")[0]
    assert native.bold.name == "sub-01_ses-a_task-things_run-1_desc-preproc_bold.nii.gz"
    assert native.mask.name == "sub-01_ses-a_task-things_run-1_desc-brain_mask.nii.gz"
    assert (native.space, native.start_time) == (None, 0.73)
    assert {run.space for run in open_dataset(modern, space="T1w").runs("01")} == {"T1w"}
    with pytest.raises(SelectionError, match="no BOLD is in this space; there is"):
        open_dataset(modern, space="fsaverage6").runs("01")
    with pytest.raises(ConfigError, match="res-"):
        open_dataset(modern, space="T1w:2")


def test_anatomies_are_in_the_space_of_the_runs(modern):
    anat = modern / "derivatives" / "fmriprep" / "sub-01" / "anat"
    assert open_dataset(modern, space=MNI).anatomy("01") == anat / f"sub-01_space-{MNI}_res-2_desc-preproc_T1w.nii.gz"
    dataset = open_dataset(modern, space="T1w")
    assert dataset.anatomy("01") == anat / "sub-01_desc-preproc_T1w.nii.gz"
    assert dataset.anatomy("01", "native") is None
    assert dataset.anatomy("01", "MNI152Lin") is None
    assert open_dataset(modern, raw_bold=True).anatomy("01") is None


def test_only_what_was_asked_for_is_found(modern, caplog):
    dataset = open_dataset(
        modern, participants=["sub-02", "77"], sessions=["ses-b"], tasks=["task-things"], runs=["02", 10], space="T1w"
    )
    assert dataset.participants == ("02",)
    assert "--participant-label 77: not in" in caplog.text
    assert [(run.ses, run.run) for run in dataset.runs("02")] == [("b", 2), ("b", 10)]
    indexed = [
        path for source in (dataset.raw, *dataset.sources) for kind in source.files for path in source.files[kind]
    ]
    assert indexed
    assert all("sub-02" in path.name for path in indexed)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"participants": ["77", "78"]}, "--participant-label 77 78: not in .*; its participants are 01, 02, 10"),
        ({"tasks": ["thing"]}, "--task-id thing: .*; its tasks are things"),
        ({"sessions": ["z"]}, "no run in sessions z; it has ses-a_task-things_run-1, "),
        ({"runs": [3]}, "no run in runs 3"),
    ],
)
def test_a_selection_without_files_says_what_there_is(modern, asked, named):
    with pytest.raises(SelectionError, match=named):
        open_dataset(modern, space="T1w", **asked).runs("01")


def test_a_dataset_travels_to_workers(modern):
    dataset = pickle.loads(pickle.dumps(open_dataset(modern, participants=["01"], space="T1w")))
    assert len(dataset.runs("01")) == 6


@pytest.mark.parametrize(
    ("bold", "runs"),
    [
        ({"run": 2, "session": "a"}, [("a", 2)]),
        ({"run": ["1", 2], "session": ["a"]}, [("a", 1), ("a", 2)]),
        ({"session": "*", "acquisition": None, "run": 10}, [("a", 10), ("b", 10)]),
        ({"space": "T1w", "run": [1, None], "session": "b"}, [("b", 1)]),
    ],
)
def test_filters_have_the_semantics_of_pybids(modern, bold, runs):
    dataset = open_dataset(modern, participants=["01"], space="T1w", filters={"bold": bold})
    assert [(run.ses, run.run) for run in dataset.runs("01")] == runs
    assert all(run.raw is not None for run in dataset.runs("01"))


def test_filters_on_other_files(modern):
    prep = modern / "derivatives" / "fmriprep"
    stem = "sub-01/ses-a/func/sub-01_ses-a_task-things_run-1_space-T1w"
    put(prep, f"{stem}_desc-smooth_bold.nii.gz", f"{stem}_desc-grey_mask.nii.gz")
    smooth = {"bold": {"desc": "smooth"}, "mask": {"desc": "grey"}, "confounds": {"run": 99}}
    run = open_dataset(modern, participants=["01"], filters=smooth).runs("01")[0]
    assert run.bold.name.endswith("_desc-smooth_bold.nii.gz")
    assert run.mask.name.endswith("_desc-grey_mask.nii.gz")
    assert run.confounds is None
    with pytest.raises(MissingInputError, match=r"run-02_events.tsv"):
        open_dataset(modern, participants=["01"], space="T1w", filters={"events": {"run": 1}}).runs("01")
    with pytest.raises(ConfigError, match=r"query bold: 'colour' is not a recognized entity"):
        open_dataset(modern, filters={"bold": {"colour": "red"}})


def test_an_index_on_disk_is_made_once_for_all_participants(modern, tmp_path):
    stored = tmp_path / "index"
    first = open_dataset(modern, participants=["01"], space="T1w", database_dir=stored)
    assert sorted(path.name for path in stored.iterdir()) == ["fmriprep", "raw"]
    put(modern, "sub-02/ses-a/func/sub-02_ses-a_task-later_bold.nii.gz")
    second = open_dataset(modern, participants=["02"], space="T1w", database_dir=stored)
    assert (len(first.runs("01")), len(second.runs("02"))) == (6, 6)
    assert second.tasks == ("things",)
    describe(tmp_path / "other")
    put(tmp_path / "other", "sub-01/func/sub-01_task-x_bold.nii.gz")
    with pytest.raises(ConfigError, match=r"is the index of .*ds; give another folder"):
        open_dataset(tmp_path / "other", database_dir=stored)
    with pytest.raises(OutputError, match="cannot be written"):
        open_dataset(modern, database_dir=modern / "dataset_description.json")


def test_a_derivative_without_description_masks_and_times_works(tmp_path, caplog):
    """Names and gaps of ds004496 (NOD)."""
    root, prep = tmp_path / "ds", tmp_path / "ds" / "derivatives" / "fmriprep"
    describe(root)
    stem = "sub-01/ses-imagenet01/func/sub-01_ses-imagenet01_task-imagenet"
    put(root, f"{stem}_run-01_bold.nii.gz", f"{stem}_run-01_events.tsv")
    put(prep, f"{stem}_run-1_space-T1w_desc-preproc_bold.nii.gz", f"{stem}_run-1_desc-confounds_timeseries.tsv")
    put(prep, f"{stem}_run-1_space-T1w_desc-preproc_bold.json", text='{"RepetitionTime": 2, "DelayTime": 0}')
    put(tmp_path / "ds", "derivatives/ciftify/sub-01/results/ses-x_task-y_run-1/x_Atlas.dtseries.txt")
    (run,) = open_dataset(root).runs("01")
    assert f"{prep}: no dataset_description.json" in caplog.text
    assert (run.mask, run.tr, run.start_time, run.space) == (None, 2.0, 0.0, "T1w")
    assert run.confounds is not None
    assert run.events == root / f"{stem}_run-01_events.tsv"
    assert [w for w in run.warnings if "no StartTime" in w]


def test_a_flat_derivative_in_a_nested_folder_works(tmp_path):
    """The folders of ds004488 (HAD) and ds005165: no func, no ses; derivatives one level deeper."""
    root = tmp_path / "ds"
    describe(root)
    put(root, "sub-01/func/sub-01_task-action_run-10_events.tsv", "task-action_bold.json", text=None)
    put(root, "task-action_bold.json", text='{"RepetitionTime": 2}')
    put(root, "sub-01/func/sub-01_task-action_run-10_events.tsv")
    prep = root / "derivatives" / "versionB" / "fmriprep"
    put(prep, "sub-01/sub-01_task-action_run-10_desc-preproc_bold.nii.gz")
    put(prep, "sub-01/sub-01_task-action_run-10_desc-preproc-smooth90_bold.nii.gz")
    dataset = open_dataset(root)
    assert dataset.derivatives == {"fmriprep": prep}
    (run,) = dataset.runs("01")
    assert (run.run, run.tr, run.raw, run.space) == (10, 2.0, None, None)


def test_names_of_fmriprep_1_work(tmp_path):
    root, prep = tmp_path / "ds", tmp_path / "ds" / "derivatives" / "fmriprep"
    describe(root)
    stem = "sub-CSI1/ses-01/func/sub-CSI1_ses-01_task-5000scenes_run-01"
    put(root, f"{stem}_bold.nii.gz", f"{stem}_events.tsv")
    put(root, "task-5000scenes_bold.json", text='{"RepetitionTime": 2}')
    put(prep, f"{stem}_bold_space-T1w_preproc.nii.gz", f"{stem}_bold_space-T1w_brainmask.nii.gz")
    put(prep, f"{stem}_bold_confounds.tsv", "sub-CSI1/anat/sub-CSI1_T1w_preproc.nii.gz")
    dataset = open_dataset(root)
    (run,) = dataset.runs("CSI1")
    assert run.bold == prep / f"{stem}_bold_space-T1w_preproc.nii.gz"
    assert run.mask == prep / f"{stem}_bold_space-T1w_brainmask.nii.gz"
    assert run.confounds == prep / f"{stem}_bold_confounds.tsv"
    assert dataset.anatomy("CSI1") == prep / "sub-CSI1/anat/sub-CSI1_T1w_preproc.nii.gz"


def test_events_are_inherited_from_the_top(tmp_path):
    """As ds002366 does: one events file for all participants."""
    root = tmp_path / "ds"
    describe(root)
    for sub in ("01", "02"):
        put(root, *(f"sub-{sub}/func/sub-{sub}_task-{task}_run-1_bold.nii.gz" for task in ("a", "b")))
    put(root, "task-a_events.tsv", "task-b_events.tsv", "task-a_bold.json", "._task-a_events.tsv")
    dataset = open_dataset(root, raw_bold=True)
    assert [run.events for run in dataset.runs("02")] == [root / "task-a_events.tsv", root / "task-b_events.tsv"]
    assert dataset.event_files("01") == [root / "task-a_events.tsv", root / "task-b_events.tsv"]
    only = open_dataset(root, raw_bold=True, filters={"events": {"task": "a"}})
    assert only.event_files("01") == [root / "task-a_events.tsv"]


def raw_only(tmp_path: Path) -> Path:
    root = tmp_path / "ds"
    describe(root)
    put(root, "task-x_bold.json", text='{"RepetitionTime": 2.5}')
    for run in ("01", "02"):
        put(root, f"sub-01/func/sub-01_task-x_run-{run}_bold.nii.gz", f"sub-01/func/sub-01_task-x_run-{run}_events.tsv")
    describe(root / "derivatives" / "pymvpa", "masks")
    put(root / "derivatives" / "pymvpa", "sub-01/func/sub-01_task-x_desc-brain_mask.nii.gz")
    put(root / "derivatives" / "pymvpa", "sub-01/func/sub-01_task-x_run-02_desc-confounds_timeseries.tsv")
    return root


def test_raw_bold_is_used_when_asked_for(tmp_path, caplog):
    root = raw_only(tmp_path)
    with pytest.raises(MissingInputError, match=r"in its derivatives \(pymvpa\); .*-d NAME=PATH, or use --raw-bold"):
        open_dataset(root).runs("01")
    one, two = open_dataset(root, raw_bold=True).runs("01")
    assert "raw BOLD is analysed as it is" in caplog.text
    assert one.mask == two.mask == root / "derivatives/pymvpa/sub-01/func/sub-01_task-x_desc-brain_mask.nii.gz"
    assert (one.confounds, two.confounds is None) == (None, False)
    assert (one.tr, one.start_time, one.source, one.raw, one.warnings) == (2.5, 0.0, "raw", one.bold, ())


def test_events_are_found_without_bold_content_or_derivative(tmp_path):
    root = raw_only(tmp_path)
    bold = root / "sub-01" / "func" / "sub-01_task-x_run-01_bold.nii.gz"
    bold.unlink()
    bold.symlink_to("../../.git/annex/objects/gone")
    dataset = open_dataset(root)
    assert [path.name[-13:] for path in dataset.event_files("01")] == ["01_events.tsv", "02_events.tsv"]
    with pytest.raises(MissingInputError, match=r"run-01_bold.nii.gz: its content is not here; run `datalad get"):
        open_dataset(root, raw_bold=True).runs("01")


def test_a_run_without_events_is_an_error_unless_it_is_rest(tmp_path, caplog):
    root = raw_only(tmp_path)
    put(root, "sub-01/func/sub-01_task-rest_bold.nii.gz")
    put(root, "task-rest_bold.json", text='{"RepetitionTime": 2.5}')
    dataset = open_dataset(root, raw_bold=True)
    assert [run.task for run in dataset.runs("01")] == ["x", "x"]
    assert "task-rest: a run of rest without events is left out" in caplog.text
    with pytest.raises(MissingInputError, match=r"sub-01_task-rest_events.tsv: no events file"):
        open_dataset(root, raw_bold=True, tasks=["rest"]).runs("01")
    (root / "sub-01" / "func" / "sub-01_task-x_run-02_events.tsv").unlink()
    with pytest.raises(MissingInputError, match=r"sub-01_task-x_run-02_events.tsv: no events file for .*--run-label"):
        dataset.runs("01")
    assert len(dataset.event_files("01")) == 1
    assert "task-x_run-02: no events file" in caplog.text


def test_acquisition_and_direction_must_match(tmp_path):
    root = raw_only(tmp_path)
    folder = root / "sub-01" / "func"
    for name in ("acq-hi_dir-AP", "acq-hi_dir-PA"):
        put(folder, f"sub-01_task-y_{name}_bold.nii.gz", f"sub-01_task-y_{name}_events.tsv")
    put(root, "task-y_bold.json", text='{"RepetitionTime": 1}')
    runs = open_dataset(root, raw_bold=True, tasks=["y"]).runs("01")
    assert [run.events.name for run in runs] == [f"sub-01_task-y_acq-hi_dir-{d}_events.tsv" for d in ("AP", "PA")]


def test_two_derivatives_with_the_same_recording_need_a_choice(modern):
    other = modern / "derivatives" / "other"
    describe(other, "other")
    put(other, "sub-01/ses-a/func/sub-01_ses-a_task-things_run-01_space-T1w_desc-preproc_bold.nii.gz")
    with pytest.raises(SelectionError, match=r"is of the same recording; choose a derivative with -d NAME=PATH"):
        open_dataset(modern, space="T1w").runs("01")
    chosen = open_dataset(modern, space="T1w", derivatives={"mine": modern / "derivatives" / "fmriprep"})
    assert {run.source for run in chosen.runs("01")} == {"mine"}
    with pytest.raises(MissingInputError, match=r"sub-02: no preprocessed BOLD .*\(x\)"):
        open_dataset(modern, derivatives={"x": other}).runs("02")


def test_derivatives_are_discovered_but_our_own_are_not(tmp_path):
    root = raw_only(tmp_path)
    describe(root / "derivatives" / "bidsdnn", "bidsdnn")
    describe(root / "derivatives" / "versionB" / "pymvpa", "x")
    put(root, "derivatives/notes/readme.txt", "derivatives/.hidden/dataset_description.json")
    assert sorted(open_dataset(root).derivatives) == ["pymvpa", "versionB-pymvpa"]


def test_wrong_derivatives_are_named(tmp_path):
    root = raw_only(tmp_path)
    with pytest.raises(MissingInputError, match=r"nowhere: no such folder; check -d x="):
        open_dataset(root, derivatives={"x": tmp_path / "nowhere"})
    with pytest.raises(ConfigError, match="choose another"):
        open_dataset(root, derivatives={"raw": root})
    put(root, "derivatives/pymvpa/dataset_description.json", text='{"GeneratedBy": {"Name": "x"}}')
    with pytest.raises(DataError, match=r"pymvpa: PyBIDS cannot index it"):
        open_dataset(root)
    put(root, "derivatives/pymvpa/dataset_description.json", text="{")
    with pytest.raises(DataError, match=r"pymvpa.dataset_description.json: not readable as JSON"):
        open_dataset(root)


def test_links_that_lead_back_are_not_followed_for_ever(tmp_path):
    root = raw_only(tmp_path)
    for name in ("loop", "loop2"):
        (root / "sub-01" / "func" / name).symlink_to("..")
        (root / "sub-01" / name).symlink_to(".")
    assert len(open_dataset(root, raw_bold=True).runs("01")) == 2


@pytest.mark.parametrize(
    ("description", "named"),
    [
        (None, "dataset_description.json: not found, so this is no BIDS dataset"),
        ("{", "not readable as JSON"),
        ('{"Name": "x"}', "lacks BIDSVersion"),
    ],
)
def test_what_is_no_bids_dataset_is_said_so(tmp_path, caplog, description, named):
    root = raw_only(tmp_path)
    path = root / "dataset_description.json"
    path.unlink()
    if description is not None:
        path.write_text(description)
    with pytest.raises(InvalidDatasetError, match=rf"{named}.*--skip-bids-validation"):
        open_dataset(root)
    assert len(open_dataset(root, raw_bold=True, validate=False).runs("01")) == 2
    assert named in caplog.text


def test_folders_without_participants_are_no_datasets(tmp_path):
    describe(tmp_path / "empty")
    with pytest.raises(InvalidDatasetError, match="no folder sub-<label>"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(InvalidDatasetError, match="no such folder"):
        open_dataset(tmp_path / "none")


def test_real_haxby_slice():
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "haxby2001_1slice_bids"
    if not root.is_dir():
        pytest.skip("no shared data here")
    runs = open_dataset(root, raw_bold=True).runs("01")
    assert [run.run for run in runs] == list(range(1, 13))
    assert {run.tr for run in runs} == {2.5}
    assert len({run.mask for run in runs}) == 1
    assert len({run.confounds for run in runs}) == 12
