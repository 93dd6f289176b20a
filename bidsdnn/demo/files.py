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
_SURFACES = """
The same time courses stand on the cortex, in files of the spaces fsaverage (GIFTI) and fsLR (CIFTI): each vertex shows
one voxel, those of a region lie together around the region's place. The meshes are nilearn's fsaverage5, thinned to
about the size of the voxels. They are those of fsaverage also where a name says fsLR.
"""
_EVENT_COLUMNS = {
    "trial_type": {
        "LongName": "Kind of trial",
        "Levels": {"object": "a picture was shown", "catch": "a dot was shown, to be answered by a key press"},
    },
    "category": {"LongName": "What the picture shows"},
    "stim_file": {"LongName": "Picture", "Description": "Path of the picture in the folder stimuli"},
}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table with ``n/a`` for what is missing, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.8g", lineterminator="\n")


def write_root(root: Path, labels: list[str], rng: np.random.Generator, *, surfaces: bool = False) -> None:
    """Write the files at the root of the raw dataset.

    Parameters
    ----------
    root : Path
    labels : list of str
        Participants, without ``sub-``.
    rng : numpy.random.Generator
        Draws ages and sexes.
    surfaces : bool
        Whether the README speaks of surfaces.
    """
    write_json(
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
    (root / "README.md").write_text(_README + _SURFACES * surfaces, encoding="utf-8")
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{label}" for label in labels],
            "age": rng.integers(20, 36, len(labels)),
            "sex": rng.choice(["F", "M"], len(labels)),
        }
    )
    write_table(root / "participants.tsv", people)
    write_json(
        root / "participants.json",
        {
            "age": {"Description": "Age at the time of the scan, invented", "Units": "year"},
            "sex": {"Description": "Sex, invented", "Levels": {"F": "female", "M": "male"}},
        },
    )
    write_json(root / f"task-{TASK}_bold.json", _acquisition())
    write_json(root / f"task-{TASK}_events.json", _EVENT_COLUMNS)


def _acquisition() -> dict[str, Any]:
    return {
        "TaskName": TASK,
        "TaskDescription": "Look at pictures of objects; press a key when a dot appears.",
        "RepetitionTime": TR,
    }


def write_fmriprep_root(root: Path, *, surfaces: bool = False) -> None:
    """Write the description of the fMRIPrep-like derivative.

    Parameters
    ----------
    root : Path
    surfaces : bool
        Whether it holds surfaces.
    """
    folder = root / "derivatives" / "fmriprep"
    write_json(
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
    # No released version of BIDS knows confounds, nor surfaces as fMRIPrep names them; it writes such lines too.
    unknown = "*_timeseries.*\n" + "*.surf.gii\n*_desc-cortex_mask.*\n*k_bold.*\n" * surfaces
    (folder / ".bidsignore").write_text(unknown, encoding="utf-8")


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
    write_json(
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
    write_json(folder / "truth.json", truth)
    (folder / ".bidsignore").write_text("truth.json\n", encoding="utf-8")
    write_json(folder / "atlas-planted_description.json", {"Name": "Planted regions", "License": "CC0"})
    stem = f"tpl-{SPACE}_atlas-planted_dseg"
    table = pd.DataFrame({"index": np.arange(1, len(names) + 1), "name": names})
    write_table(folder / f"tpl-{SPACE}" / "anat" / f"{stem}.tsv", table)
    write_nifti(folder / f"tpl-{SPACE}" / "anat" / f"{stem}.nii.gz", labels, grid.affine, dtype=np.int16)
    write_table(folder / "stimuli" / "pictures.tsv", pictures)


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
    write_json(derived / f"{stem}-preproc_T1w.json", {"SkullStripped": True, "Sources": [source]})
    write_json(derived / f"{stem}-brain_mask.json", {"Type": "Brain", "Sources": [source]})


def write_run(
    root: Path,
    label: str,
    run: int,
    trials: pd.DataFrame,
    data: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    confounds: tuple[pd.DataFrame, dict[str, Any]],
    *,
    volume: bool = True,
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
    volume : bool
        Whether the derivative holds the images, and not the confounds alone.
    """
    raw = root / f"sub-{label}" / "func"
    derived = root / "derivatives" / "fmriprep" / f"sub-{label}" / "func"
    for folder in (raw, derived):
        folder.mkdir(parents=True, exist_ok=True)
    first = f"sub-{label}_task-{TASK}_run-{run:02d}"
    then = f"sub-{label}_task-{TASK}_run-{run}"
    write_table(raw / f"{first}_events.tsv", trials)
    write_nifti(raw / f"{first}_bold.nii.gz", data, grid.affine, tr=TR, dtype=np.int16)
    # All slices at one time, so that the raw scans too have their volumes at START_TIME.
    write_json(raw / f"{first}_bold.json", {"SliceTiming": [START_TIME] * grid.shape[2]})
    table, metadata = confounds
    write_table(derived / f"{then}_desc-confounds_timeseries.tsv", table)
    write_json(derived / f"{then}_desc-confounds_timeseries.json", metadata)
    if not volume:
        return
    bold = derived / f"{then}_space-{SPACE}_desc-preproc_bold.nii.gz"
    shutil.copyfile(raw / f"{first}_bold.nii.gz", bold)
    source = f"bids:raw:sub-{label}/func/{first}_bold.nii.gz"
    write_json(
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
    write_json(derived / f"{then}_space-{SPACE}_desc-brain_mask.json", {"Type": "Brain", "Sources": [source]})
