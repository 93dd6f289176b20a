from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level.hemodynamic_models import spm_hrf
from nilearn.interfaces.fmriprep import load_confounds
from PIL import Image

from bidsdnn.demo import write_demo
from bidsdnn.demo.bold import (
    START_TIME,
    TR,
    Hrf,
    Motion,
    count_volumes,
    evoked,
    plan_trials,
    read_out,
    simulate_run,
)
from bidsdnn.demo.brain import REGIONS, Template, draw_regions, run_mask
from bidsdnn.demo.confounds import cosine_basis
from bidsdnn.demo.dataset import LAYERS, planted_activations
from bidsdnn.demo.pictures import SIZE, draw_picture, plan_pictures
from bidsdnn.errors import ConfigError, OutputError
from bidsdnn.spaces import Volume, load_image

SMALL = {"participants": 1, "stimuli": 12, "runs": 2, "voxel_size": 9.0, "noise": 0.2}
SPACE = "space-MNI152NLin2009cAsym"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo") / "small", **SMALL)


@pytest.fixture(scope="module")
def template():
    return Template.load()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def validate(folder: Path) -> list[dict]:
    program = shutil.which("bids-validator-deno") or str(Path(sys.executable).parent / "bids-validator-deno")
    if not Path(program).exists():
        pytest.skip("bids-validator-deno is not installed")
    answer = subprocess.run([program, "--json", str(folder)], capture_output=True, text=True, check=False)
    issues = json.loads(answer.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


class TestPictures:
    @pytest.mark.parametrize(("stimuli", "each"), [(24, 1), (48, 2), (96, 4)])
    def test_category_and_texture_are_crossed(self, stimuli, each):
        plan = plan_pictures(stimuli, np.random.default_rng(0))
        counts = plan.groupby(["category", "texture"]).size()
        assert len(counts) == 24 and set(counts) == {each}

    @pytest.mark.parametrize("stimuli", [12, 13, 30])
    def test_files_are_unique_and_sorted(self, stimuli):
        files = plan_pictures(stimuli, np.random.default_rng(0))["file"]
        assert len(set(files)) == stimuli and list(files) == sorted(files)

    def test_low_level_does_not_tell_category_or_texture(self):
        plan = plan_pictures(480, np.random.default_rng(0))
        for low in ("x", "y", "hue", "contrast", "size", "tilt"):
            for high in ("category", "texture"):
                between = plan.groupby(high)[low].transform("mean").var() / plan[low].var()
                assert between < 0.05, (low, high)

    def test_every_factor_changes_the_picture(self):
        row = plan_pictures(24, np.random.default_rng(0)).iloc[0]
        base = np.asarray(draw_picture(row)).astype(int)
        changes = {
            "category": "moon", "texture": "rings", "x": -row["x"], "y": -row["y"], "hue": (row["hue"] + 0.5) % 1,
            "contrast": 0.2, "size": 0.3, "tilt": row["tilt"] + 30,
        }  # fmt: skip
        for factor, value in changes.items():
            changed = np.asarray(draw_picture(pd.Series({**row.to_dict(), factor: value}))).astype(int)
            assert np.abs(changed - base).mean() > 0.5, factor

    def test_objects_lie_within_the_picture(self):
        for _, row in plan_pictures(96, np.random.default_rng(1)).iterrows():
            pixels = np.asarray(draw_picture(row)).astype(int)
            assert pixels.shape == (SIZE, SIZE, 3)
            frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
            background = np.median(frame, axis=0)
            # At most a tip touches the border.
            assert (np.abs(frame - background).max(1) > 8).mean() < 0.1, row["file"]


class TestBold:
    def test_default_response_is_spms(self):
        step = 0.1
        reference = spm_hrf(step, oversampling=1, time_length=32)
        ours = Hrf().sample(np.arange(len(reference)) * step)
        assert np.corrcoef(ours, reference)[0, 1] > 0.999

    def test_trials_show_each_picture_once_with_jitter(self):
        trials = plan_trials([f"{i}.png" for i in range(48)], ["cup"] * 48, np.random.default_rng(0))
        shown = trials[trials["trial_type"] == "object"]
        assert sorted(shown["stim_file"]) == sorted(f"{i}.png" for i in range(48))
        assert set(trials.loc[trials["trial_type"] == "catch", "stim_file"]) == {"n/a"}
        gaps = np.diff(trials["onset"])
        assert gaps.min() > 2.9 and gaps.max() < 5.1 and len(set(np.round(gaps, 2))) > 20

    def test_runs_end_after_the_last_response(self):
        trials = plan_trials([f"{i}.png" for i in range(48)], ["cup"] * 48, np.random.default_rng(0))
        assert count_volumes(len(trials)) * TR - trials["onset"].max() > 10

    def test_evoked_response_honours_the_start_time(self):
        onset = 10.0
        course = evoked(np.array([onset]), 40, Hrf())[:, 0]
        fine = np.arange(0, 32, 0.01)
        response = np.convolve(Hrf().sample(fine), np.ones(150))[: len(fine)]
        since = START_TIME + TR * np.arange(40) - onset
        expected = np.interp(since, fine, response / response.max(), left=0, right=0)
        np.testing.assert_allclose(course, expected, atol=0.03)

    def test_read_out_is_linear_standardised_and_smooth(self):
        rng = np.random.default_rng(0)
        activations = rng.standard_normal((60, 40))
        near = np.arange(20)[:, None] * np.array([[2.0, 0.0, 0.0]])
        values = read_out(activations, near, rng)
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(values.std(0), 1)
        design = np.column_stack([np.ones(60), activations])
        residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        np.testing.assert_allclose(residuals, 0, atol=1e-10)
        neighbours = np.corrcoef(values.T)
        assert np.diag(neighbours, 1).mean() > 0.7 > 0.4 > np.abs(np.diag(neighbours, 10)).mean()

    def test_framewise_displacement_is_power(self):
        motion = Motion.draw(30, np.random.default_rng(0))
        mm = motion.parameters * [1, 1, 1, 50, 50, 50]
        np.testing.assert_allclose(motion.framewise_displacement[1:], np.abs(np.diff(mm, axis=0)).sum(1))
        assert np.isnan(motion.framewise_displacement[0])

    def test_noise_free_run_holds_the_response(self, template):
        rng = np.random.default_rng(0)
        head = template.head(template.grid(9.0), rng)
        driven = np.zeros(head.grid.shape, dtype=bool)
        driven[tuple(np.argwhere(head.brain)[50])] = True
        response = np.linspace(0, 5, 20)[:, None]
        data = simulate_run(head, driven, response, Motion.draw(20, rng), rng, noise=0.0)
        np.testing.assert_allclose(data[driven][0], (head.bold[driven] * (1 + response[:, 0] / 100)), atol=0.51)
        assert (data[~driven] == data[~driven][:, :1]).all()

    def test_noise_is_autocorrelated(self, template):
        rng = np.random.default_rng(0)
        head = template.head(template.grid(9.0), rng)
        still = Motion(np.zeros((200, 6)))
        nothing = np.zeros(head.grid.shape, dtype=bool)
        data = simulate_run(head, nothing, np.zeros((200, 0)), still, rng, noise=1.0)[head.brain].T.astype(float)
        data -= data.mean(0)
        basis = cosine_basis(200)
        data -= basis @ (basis.T @ data)
        lag = (data[1:] * data[:-1]).sum(0) / (data**2).sum(0)
        assert 0.15 < lag.mean() < 0.45


class TestBrain:
    def test_regions_are_bilateral_apart_and_in_the_brain(self, template):
        grid = template.grid(6.0)
        head = template.head(grid, np.random.default_rng(0))
        labels = draw_regions(grid, head.brain)
        x = grid.places[..., 0]
        assert not labels[~head.brain].any()
        for number in range(1, len(REGIONS) + 1):
            left, right = ((labels == number) & (x < 0)).sum(), ((labels == number) & (x > 0)).sum()
            assert left > 20 and abs(left - right) <= 6

    def test_heads_differ_a_little(self, template):
        grid = template.grid(8.0)
        first, second = (template.head(grid, np.random.default_rng(seed)) for seed in (0, 1))
        overlap = (first.brain & second.brain).sum() / (first.brain | second.brain).sum()
        assert 0.85 < overlap < 1.0
        assert 0.9 < np.corrcoef(first.t1w[first.brain], second.t1w[first.brain])[0, 1] < 1.0

    def test_run_masks_lose_a_few_voxels(self, template):
        brain = template.head(template.grid(8.0), np.random.default_rng(0)).brain
        first, second = (run_mask(brain, np.random.default_rng(seed)) for seed in (0, 1))
        assert not (first & ~brain).any() and (first != second).any()
        assert 0.85 < first.sum() / brain.sum() < 1.0


def test_cosines_are_orthonormal_and_slow():
    basis = cosine_basis(110)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    assert basis.shape[1] == int(2 * 110 * TR // 128)


def test_equal_arguments_write_equal_bytes(demo, tmp_path):
    again = write_demo(tmp_path / "again", **SMALL)
    assert contents(demo) == contents(again)
    other = write_demo(tmp_path / "other", **SMALL, seed=1)
    same = [name for name, data in contents(other).items() if contents(demo).get(name) == data]
    assert not any(name.endswith(("events.tsv", "_bold.nii.gz", "timeseries.tsv", "truth.json")) for name in same)


def test_a_participant_does_not_depend_on_how_many_there_are(demo, tmp_path):
    more = contents(write_demo(tmp_path / "more", **{**SMALL, "participants": 2}))
    here = {name: data for name, data in contents(demo).items() if "sub-01" in name}
    assert here and all(more[name] == data for name, data in here.items())


def test_nothing_is_left_beside(demo):
    assert [path.name for path in demo.parent.iterdir()] == [demo.name]


@pytest.mark.parametrize("part", ["", "derivatives/fmriprep", "derivatives/planted"])
def test_the_official_validator_finds_no_error(demo, part):
    assert validate(demo / part) == []


def test_files_are_named_as_bids_and_fmriprep_name_them(demo):
    names = set(contents(demo))
    stem = "derivatives/fmriprep/sub-01/func/sub-01_task-objects_run-2"
    assert {
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/func/sub-01_task-objects_run-02_bold.nii.gz",
        "sub-01/func/sub-01_task-objects_run-02_events.tsv",
        f"{stem}_{SPACE}_desc-preproc_bold.nii.gz",
        f"{stem}_{SPACE}_desc-preproc_bold.json",
        f"{stem}_{SPACE}_desc-brain_mask.nii.gz",
        f"{stem}_desc-confounds_timeseries.tsv",
        f"{stem}_desc-confounds_timeseries.json",
        f"derivatives/fmriprep/sub-01/anat/sub-01_{SPACE}_desc-preproc_T1w.nii.gz",
    } <= names


def test_events_name_pictures_that_are_there(demo):
    for path in (demo / "sub-01" / "func").glob("*_events.tsv"):
        events = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        files = events.loc[events["trial_type"] == "object", "stim_file"]
        assert sorted(files) == sorted(p.name for p in (demo / "stimuli").iterdir())
        assert all(Image.open(demo / "stimuli" / file).size == (SIZE, SIZE) for file in files)


def test_bold_has_its_tr_and_masks_differ_by_run(demo):
    func = demo / "derivatives" / "fmriprep" / "sub-01" / "func"
    for bold in func.glob("*_bold.nii.gz"):
        image = load_image(bold)
        sidecar = json.loads(bold.with_name(bold.name.replace(".nii.gz", ".json")).read_text())
        assert image.header.get_zooms()[3] == sidecar["RepetitionTime"] == TR
        assert image.header.get_xyzt_units() == ("mm", "sec") and sidecar["StartTime"] == START_TIME
    first, second = (load_image(path).get_fdata() for path in sorted(func.glob("*mask.nii.gz")))
    assert (first != second).any()


def test_nilearn_reads_the_confounds(demo):
    bold = next((demo / "derivatives" / "fmriprep" / "sub-01" / "func").glob("*_bold.nii.gz"))
    confounds, _ = load_confounds(
        str(bold), strategy=("motion", "high_pass", "wm_csf", "global_signal", "compcor"), motion="full", n_compcor=5
    )
    assert {"trans_x", "rot_z_derivative1_power2", "cosine00", "a_comp_cor_04", "global_signal"} <= set(confounds)
    table = pd.read_csv(str(bold).split("_space")[0] + "_desc-confounds_timeseries.tsv", sep="\t", na_values=["n/a"])
    assert len(table) == load_image(bold).shape[3]
    assert table["trans_x_derivative1"].isna().tolist() == [True] + [False] * (len(table) - 1)


def test_truth_agrees_with_the_atlas(demo):
    folder = demo / "derivatives" / "planted"
    truth = json.loads((folder / "truth.json").read_text())
    assert {name: region["layer"] for name, region in truth["regions"].items()} == LAYERS
    assert truth["network"] == "demo+none+seed0"
    atlas = next(folder.rglob("*_dseg.nii.gz"))
    image = load_image(atlas)
    regions = Volume(np.ones(image.shape, dtype=bool), image.affine).regions(atlas)
    assert {name: int(where.sum()) for name, where in regions.items()} == {
        name: region["voxels"] for name, region in truth["regions"].items()
    }
    assert all(where.sum() > 10 for where in regions.values())


def test_driven_regions_repeat_their_responses_and_none_does_not(demo):
    """Without a model of the response: agreement over runs of the mean signal 4 to 8 s after each picture."""
    func = demo / "derivatives" / "fmriprep" / "sub-01" / "func"
    volume = Volume.from_masks(sorted(func.glob("*mask.nii.gz")))
    regions = volume.regions(next((demo / "derivatives" / "planted").rglob("*_dseg.nii.gz")))
    shown: dict[str, list[np.ndarray]] = {}
    for run in (1, 2):
        data = volume.read(func / f"sub-01_task-objects_run-{run}_{SPACE}_desc-preproc_bold.nii.gz")
        basis = np.column_stack([np.ones(len(data)), cosine_basis(len(data))])
        data = data - basis @ np.linalg.lstsq(basis, data, rcond=None)[0]
        times = START_TIME + TR * np.arange(len(data))
        events = pd.read_csv(
            demo / "sub-01" / "func" / f"sub-01_task-objects_run-{run:02d}_events.tsv", sep="\t", keep_default_na=False
        )
        for _, event in events[events["trial_type"] == "object"].iterrows():
            after = (times > event["onset"] + 4) & (times < event["onset"] + 8)
            shown.setdefault(event["stim_file"], []).append(data[after].mean(0))
    files = sorted(shown)
    halves = np.array([[shown[file][run] for file in files] for run in (0, 1)])
    agreement = [np.corrcoef(first, second)[0, 1] for first, second in np.moveaxis(halves, 2, 0)]
    means = {name: float(np.mean(np.array(agreement)[where])) for name, where in regions.items()}
    assert min(means["early"], means["middle"], means["late"]) > 0.2 > means["none"] + 0.1


def test_planted_activations_belong_to_the_pictures():
    plan = plan_pictures(12, np.random.default_rng(0))
    label, activations = planted_activations(plan, 5)
    assert label == "demo+none+seed5" and set(activations) == {"conv1", "conv3", "conv5"}
    _, backwards = planted_activations(plan[::-1], 5)
    np.testing.assert_array_equal(backwards["conv3"][::-1], activations["conv3"])


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"mine: is there already and not an empty folder"):
        write_demo(tmp_path / "mine")
    assert contents(tmp_path) == {"mine/notes.txt": b"mine"}


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_demo(tmp_path / "file" / "demo")


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bidsdnn.demo.files.write_planted", fail)
    (tmp_path / "demo").mkdir()
    with pytest.raises(OutputError, match="No space left on device"):
        write_demo(tmp_path / "demo", **SMALL)
    assert contents(tmp_path) == {} and [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spaces": ("mesh",)}, "spaces mesh: the demo has volume, surface, cifti"),
        ({"spaces": ()}, "spaces none: the demo has volume"),
        ({"participants": 0}, "participants 0: give a number from 1 to 99"),
        ({"stimuli": 3}, "stimuli 3: give a number from 12"),
        ({"runs": 0}, "runs 0: "),
        ({"voxel_size": 1.0}, "voxel_size 1.0: "),
        ({"noise": float("nan")}, "noise nan: "),
        ({"seed": -1}, "seed -1: "),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        write_demo(tmp_path / "demo", **arguments)
    assert not any(tmp_path.iterdir())
