"""File names and sidecars of the demo: BIDS for the raw data, fMRIPrep 25 for the derivative."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bidsdnn
from bidsdnn.demo.bold import START_TIME, TR
from bidsdnn.demo.brain import Grid, Head
from bidsdnn.spaces import write_nifti

TASK = "objects"
SPACE = "MNI152NLin2009cAsym"
_BIDS_VERSION = "1.10.0"
_README = """\
# The demo dataset of bidsdnn

Written by `bidsdnn-demo`; nobody was scanned. Pictures of objects differ in place, hue and contrast (low level),
texture (middle level) and category (high level). In `derivatives/fmriprep` is what fMRIPrep would have made of the
scans; brains are variations of the MNI152 template that comes with nilearn. In `derivatives/planted` are an atlas of
four regions and `truth.json`, which says which layer of the demo network drives which region. The scans in
`sub-*/func` equal those of the derivative, as if nothing had been left to preprocess.
"""
_EVENT_COLUMNS = {
    "trial_type": {
        "LongName": "Kind of trial",
        "Levels": {"object": "a picture was shown", "catch": "a dot was shown, to be answered by a key press"},
    },
    "category": {"LongName": "What the picture shows"},
    "stim_file": {"LongName": "Picture", "Description": "Path of the picture in the folder stimuli"},
}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_table(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.8g", lineterminator="\n")


def write_root(root: Path, labels: list[str], rng: np.random.Generator) -> None:
    """Write the files at the root of the raw dataset.

    Parameters
    ----------
    root : Path
    labels : list of str
        Participants, without ``sub-``.
    rng : numpy.random.Generator
        Draws ages and sexes.
    """
    _write_json(
        root / "dataset_description.json",
        {
            "Name": "Objects: the demo dataset of bidsdnn",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["bidsdnn"],
            "GeneratedBy": [{"Name": "bidsdnn-demo", "Version": bidsdnn.__version__}],
        },
    )
    (root / "README.md").write_text(_README, encoding="utf-8")
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{label}" for label in labels],
            "age": rng.integers(20, 36, len(labels)),
            "sex": rng.choice(["F", "M"], len(labels)),
        }
    )
    _write_table(root / "participants.tsv", people)
    _write_json(
        root / "participants.json",
        {
            "age": {"Description": "Age at the time of the scan, invented", "Units": "year"},
            "sex": {"Description": "Sex, invented", "Levels": {"F": "female", "M": "male"}},
        },
    )
    _write_json(root / f"task-{TASK}_bold.json", _acquisition())
    _write_json(root / f"task-{TASK}_events.json", _EVENT_COLUMNS)


def _acquisition() -> dict[str, Any]:
    return {
        "TaskName": TASK,
        "TaskDescription": "Look at pictures of objects; press a key when a dot appears.",
        "RepetitionTime": TR,
    }


def write_fmriprep_root(root: Path) -> None:
    """Write the description of the fMRIPrep-like derivative.

    Parameters
    ----------
    root : Path
    """
    folder = root / "derivatives" / "fmriprep"
    _write_json(
        folder / "dataset_description.json",
        {
            "Name": "fMRIPrep - fMRI PREProcessing workflow (simulated by bidsdnn-demo)",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [
                {"Name": "fMRIPrep", "Version": "25.0.0", "Description": "Simulated: fMRIPrep was not run."},
                {"Name": "bidsdnn-demo", "Version": bidsdnn.__version__},
            ],
            "DatasetLinks": {"raw": "../.."},
        },
    )
    # No released version of BIDS knows confounds; fMRIPrep writes this line too.
    (folder / ".bidsignore").write_text("*_timeseries.*\n", encoding="utf-8")


def write_planted(
    root: Path, grid: Grid, labels: np.ndarray, names: list[str], truth: dict[str, Any], pictures: pd.DataFrame
) -> None:
    """Write the atlas, the truth and what each picture shows.

    Parameters
    ----------
    root : Path
    grid : Grid
    labels : ndarray of int, shape (x, y, z)
        Region numbers, from 1.
    names : list of str
        Names of the regions in the order of their numbers.
    truth : dict
        What was planted.
    pictures : DataFrame
        A row a picture.
    """
    folder = root / "derivatives" / "planted"
    _write_json(
        folder / "dataset_description.json",
        {
            "Name": "What was planted in the demo dataset of bidsdnn",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [{"Name": "planted", "Version": bidsdnn.__version__, "Description": "bidsdnn-demo"}],
            "DatasetLinks": {"raw": "../.."},
        },
    )
    _write_json(folder / "truth.json", truth)
    (folder / ".bidsignore").write_text("truth.json\n", encoding="utf-8")
    _write_json(folder / "atlas-planted_description.json", {"Name": "Planted regions", "License": "CC0"})
    stem = f"tpl-{SPACE}_atlas-planted_dseg"
    table = pd.DataFrame({"index": np.arange(1, len(names) + 1), "name": names})
    _write_table(folder / f"tpl-{SPACE}" / "anat" / f"{stem}.tsv", table)
    write_nifti(folder / f"tpl-{SPACE}" / "anat" / f"{stem}.nii.gz", labels, grid.affine, dtype=np.int16)
    _write_table(folder / "stimuli" / "pictures.tsv", pictures)


def write_anatomy(root: Path, label: str, head: Head) -> None:
    """Write a participant's anatomical image, raw and in MNI space, and the brain mask.

    Parameters
    ----------
    root : Path
    label : str
        Participant, without ``sub-``.
    head : Head
    """
    raw = root / f"sub-{label}" / "anat"
    derived = root / "derivatives" / "fmriprep" / f"sub-{label}" / "anat"
    for folder in (raw, derived):
        folder.mkdir(parents=True)
    stem = f"sub-{label}_space-{SPACE}_desc"
    write_nifti(raw / f"sub-{label}_T1w.nii.gz", np.round(head.t1w), head.grid.affine, dtype=np.int16)
    shutil.copyfile(raw / f"sub-{label}_T1w.nii.gz", derived / f"{stem}-preproc_T1w.nii.gz")
    write_nifti(derived / f"{stem}-brain_mask.nii.gz", head.brain, head.grid.affine, dtype=np.uint8)
    source = f"bids:raw:sub-{label}/anat/sub-{label}_T1w.nii.gz"
    _write_json(derived / f"{stem}-preproc_T1w.json", {"SkullStripped": True, "Sources": [source]})
    _write_json(derived / f"{stem}-brain_mask.json", {"Type": "Brain", "Sources": [source]})


def write_run(
    root: Path,
    label: str,
    run: int,
    trials: pd.DataFrame,
    data: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    confounds: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    """Write a run, raw (``run-01``) and as fMRIPrep would (``run-1``).

    Parameters
    ----------
    root : Path
    label : str
        Participant, without ``sub-``.
    run : int
        From 1.
    trials : DataFrame
        Content of the events file.
    data : ndarray of int16, shape (x, y, z, volumes)
    mask : ndarray of bool, shape (x, y, z)
    grid : Grid
    confounds : tuple of DataFrame and dict
        Table and sidecar.
    """
    raw = root / f"sub-{label}" / "func"
    derived = root / "derivatives" / "fmriprep" / f"sub-{label}" / "func"
    for folder in (raw, derived):
        folder.mkdir(parents=True, exist_ok=True)
    first = f"sub-{label}_task-{TASK}_run-{run:02d}"
    then = f"sub-{label}_task-{TASK}_run-{run}"
    _write_table(raw / f"{first}_events.tsv", trials)
    write_nifti(raw / f"{first}_bold.nii.gz", data, grid.affine, tr=TR, dtype=np.int16)
    # All slices at one time, so that the raw scans too have their volumes at START_TIME.
    _write_json(raw / f"{first}_bold.json", {"SliceTiming": [START_TIME] * grid.shape[2]})
    bold = derived / f"{then}_space-{SPACE}_desc-preproc_bold.nii.gz"
    shutil.copyfile(raw / f"{first}_bold.nii.gz", bold)
    source = f"bids:raw:sub-{label}/func/{first}_bold.nii.gz"
    _write_json(
        derived / f"{then}_space-{SPACE}_desc-preproc_bold.json",
        {
            "RepetitionTime": TR,
            "StartTime": START_TIME,
            "SliceTimingCorrected": True,
            "SkullStripped": False,
            "TaskName": TASK,
            "Sources": [source],
        },
    )
    write_nifti(derived / f"{then}_space-{SPACE}_desc-brain_mask.nii.gz", mask, grid.affine, dtype=np.uint8)
    _write_json(derived / f"{then}_space-{SPACE}_desc-brain_mask.json", {"Type": "Brain", "Sources": [source]})
    table, metadata = confounds
    _write_table(derived / f"{then}_desc-confounds_timeseries.tsv", table)
    _write_json(derived / f"{then}_desc-confounds_timeseries.json", metadata)
