from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bidsdnn.bids.names import entities_of
from bidsdnn.bids.runs import (
    SPACE,
    Run,
    applying,
    choose_space,
    one_per_recording,
    parse_space,
    recording_key,
    repetition_time,
    start_time,
)
from bidsdnn.errors import ConfigError, DataError, SelectionError
from bidsdnn.spaces import write_nifti

MNI = "MNI152NLin2009cAsym"


def bold(root: Path, name: str, *, tr: float | None = None, **sidecar: object) -> Path:
    path = root / "sub-01" / "func" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, np.ones((2, 2, 2, 3)), np.eye(4), tr=tr)
    if sidecar:
        path.with_name(name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def test_a_run_knows_its_entities():
    path = Path("sub-01_ses-b_task-x_acq-2_run-07_space-T1w_desc-preproc_bold.nii.gz")
    run = Run(entities_of(path), path, None, None, None, 2.0, 0.0, "T1w", None, "fmriprep")
    assert (run.sub, run.ses, run.task, run.run) == ("01", "b", "x", 7)
    assert run.name == "ses-b_task-x_acq-2_run-07"
    alone = Run({"sub": "01"}, path, None, None, None, 2.0, 0.0, None, None, "raw")
    assert (alone.ses, alone.task, alone.run, alone.name) == (None, "", None, "")


def test_recordings_are_ordered_by_number():
    names = ["ses-1_task-b_run-10", "ses-1_task-b_run-9", "ses-2_task-a_run-1", "ses-10_task-a", "ses-1_task-b"]
    ordered = sorted(names, key=lambda name: recording_key(entities_of(f"{name}_bold.nii")))
    assert ordered == [names[4], names[1], names[0], names[2], names[3]]
    assert recording_key({"run": "01"}) == recording_key({"run": "1"})
    assert recording_key({"ses": "01"}) != recording_key({"ses": "1"})


def test_one_per_recording_takes_the_combined_echo_and_the_magnitude():
    stem = "sub-01_task-x_run-1"
    paths = [Path(f"{stem}_{rest}_bold.nii.gz") for rest in ("echo-1", "echo-2", "part-phase", "part-mag", "desc-a")]
    assert one_per_recording([*paths[:2], paths[4]]) == [paths[4]]
    assert one_per_recording(paths[2:4]) == [paths[3]]
    with pytest.raises(SelectionError, match=r"echo-1.*echo-2.*--bids-filter-file"):
        one_per_recording(paths[:2])


def test_applying_prefers_what_shares_more():
    entities = entities_of("sub-01_ses-1_task-x_run-02_space-A_res-2_bold.nii.gz")
    names = [
        "sub-01_task-x_space-A_res-2_desc-brain_mask.nii.gz",
        "sub-01_ses-1_task-x_run-2_space-A_res-02_desc-brain_mask.nii.gz",
        "sub-01_ses-1_task-x_run-2_space-B_desc-brain_mask.nii.gz",
        "sub-01_ses-1_task-x_run-3_space-A_res-2_desc-brain_mask.nii.gz",
        "sub-02_ses-1_task-x_run-2_space-A_res-2_desc-brain_mask.nii.gz",
        "sub-01_ses-1_task-x_acq-z_run-2_space-A_res-2_desc-brain_mask.nii.gz",
    ]
    paths = [Path(name) for name in names]
    assert applying(paths, entities, keys=SPACE) == paths[1]
    assert applying([paths[0], *paths[3:]], entities, keys=SPACE) == paths[0]
    assert applying(paths[2:], entities, keys=SPACE) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("T1w", {"space": "T1w"}),
        ("native", {"space": None}),
        (f"{MNI}:res-2", {"space": MNI, "res": "2"}),
        (f"{MNI}:cohort-1:res-native", {"space": MNI, "cohort": "1", "res": None}),
        ("fsLR:den-91k", {"space": "fsLR", "den": "91k"}),
    ],
)
def test_parse_space(text, wanted):
    assert parse_space(text) == wanted


@pytest.mark.parametrize("text", ["MNI:2", "MNI:res-", "MNI:hemi-L", "", "space-MNI", "a b"])
def test_parse_space_refuses_other_syntax(text):
    with pytest.raises(ConfigError, match="SPACE"):
        parse_space(text)


NATIVE, T1W, PLAIN, TWO = (
    Path(f"sub-01_task-x{space}_desc-preproc_bold.nii.gz")
    for space in ("", "_space-T1w", f"_space-{MNI}", f"_space-{MNI}_res-2")
)


@pytest.mark.parametrize(
    ("paths", "asked", "space", "res"),
    [
        ([TWO], None, MNI, "2"),
        ([NATIVE], None, None, None),
        ([NATIVE, T1W, TWO], "native", None, None),
        ([NATIVE, T1W, TWO], MNI, MNI, "2"),
        ([PLAIN, TWO], f"{MNI}:res-02", MNI, "2"),
        ([PLAIN, TWO], f"{MNI}:res-native", MNI, None),
    ],
)
def test_choose_space(paths, asked, space, res):
    assert choose_space(paths, asked) == {"space": space, "cohort": None, "res": res, "den": None}


@pytest.mark.parametrize(
    ("paths", "asked", "listed"),
    [
        ([NATIVE, T1W, TWO], None, f"{MNI}:res-2, T1w, native; choose one"),
        ([PLAIN, TWO], MNI, f"{MNI}:res-2, {MNI}:res-native; choose one"),
        ([T1W, TWO], f"{MNI}:res-1", f"{MNI}:res-2, T1w$"),
    ],
)
def test_choose_space_lists_what_there_is(paths, asked, listed):
    with pytest.raises(SelectionError, match=listed):
        choose_space(paths, asked)


def test_repetition_time_comes_from_the_nearest_source(tmp_path):
    raw_root, root = tmp_path / "raw", tmp_path / "fmriprep"
    name = "sub-01_task-x_run-1_desc-preproc_bold.nii.gz"
    raw = raw_root / "sub-01" / "func" / "sub-01_task-x_run-01_bold.nii.gz"
    path = bold(root, name, tr=1.25)
    tr, warnings = repetition_time(path, root, raw, raw_root)
    assert tr == 1.25
    assert "the header's 1.25 s was used" in warnings[0]
    raw_root.mkdir()
    (raw_root / "task-x_bold.json").write_text('{"RepetitionTime": 1.5}')
    assert repetition_time(path, root, raw, raw_root) == (1.5, [])
    path = bold(root, name, tr=1.25, RepetitionTime=2)
    assert repetition_time(path, root, raw, raw_root) == (2.0, [])


@pytest.mark.parametrize("value", [0, -1, 2000, "2", True, [2]])
def test_repetition_time_makes_sense(tmp_path, value):
    path = bold(tmp_path, "sub-01_task-x_bold.nii.gz", RepetitionTime=value)
    with pytest.raises(DataError, match=r"RepetitionTime is .* mend sub-01_task-x_bold.json"):
        repetition_time(path, tmp_path, path, tmp_path)


def test_repetition_time_reads_milliseconds_of_a_header(tmp_path):
    from bidsdnn.spaces import load_image

    path = bold(tmp_path, "sub-01_task-x_bold.nii.gz", tr=1500.0)
    with pytest.raises(DataError, match="no RepetitionTime"):
        repetition_time(path, tmp_path, path, tmp_path)
    image = load_image(path)
    image.header.set_xyzt_units("mm", "msec")
    image.to_filename(tmp_path / "sub-01" / "func" / "sub-01_task-y_bold.nii.gz")
    other = path.with_name("sub-01_task-y_bold.nii.gz")
    assert repetition_time(other, tmp_path, other, tmp_path)[0] == 1.5


def test_start_time_warns_where_slice_timing_is_unknown(tmp_path):
    told = bold(tmp_path, "sub-01_task-a_bold.nii.gz", StartTime=0.7)
    unshifted = bold(tmp_path, "sub-01_task-b_bold.nii.gz", SliceTimingCorrected=False)
    silent = bold(tmp_path, "sub-01_task-c_bold.nii.gz")
    assert start_time(told, tmp_path, preprocessed=True) == (0.7, [])
    assert start_time(unshifted, tmp_path, preprocessed=True) == (0.0, [])
    assert start_time(silent, tmp_path, preprocessed=False) == (0.0, [])
    start, warnings = start_time(silent, tmp_path, preprocessed=True)
    assert start == 0.0
    assert "no StartTime" in warnings[0]
    wrong = bold(tmp_path, "sub-01_task-d_bold.nii.gz", StartTime="x")
    with pytest.raises(DataError, match="StartTime is 'x'"):
        start_time(wrong, tmp_path, preprocessed=True)


def test_slice_time_ref_stands_where_the_sidecar_is_silent(tmp_path):
    silent, told = bold(tmp_path, "a_bold.nii.gz"), bold(tmp_path, "b_bold.nii.gz", StartTime=0.7)
    assert start_time(silent, tmp_path, preprocessed=True, tr=2.0, slice_time_ref=0.5) == (1.0, [])
    assert start_time(told, tmp_path, preprocessed=True, tr=2.0, slice_time_ref=0.5) == (0.7, [])
    assert "--slice-time-ref" in start_time(silent, tmp_path, preprocessed=True, tr=2.0)[1][0]
