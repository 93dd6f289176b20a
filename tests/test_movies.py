"""Movies from BIDS to scores: what was planted is predicted, a planted lag is found, and nothing else is."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import spm_hrf
from scipy.signal import lfilter

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

TR, CLIP, GAP, VOLUMES = 2.0, 80.0, 12.0, 100
RATE, START = 10.0, -14.0
MIDDLE = 0.9
"""Seconds after the first pulse at which the first volume shows."""
LAG = 6.0
SHAPE = (5, 4, 3)
REGIONS = {"hrf": slice(0, 20), "late": slice(20, 40), "none": slice(40, 60)}
NONE = ("--network", "none", "--response", "timeseries", "--analysis", "encoding", "--nprocs", "1")
STEM = "sub-01/func/sub-01_task-movie_"


def smooth(rng, n, width):
    return lfilter(np.hanning(width) / width, [1], rng.standard_normal(n + width))[width:] * np.sqrt(width)


def series(name, n, seed):
    """A stimulus' own course, from its name: the same wherever it is shown."""
    return smooth(np.random.default_rng([seed, *name.encode()]), n, 80)


def write_movies(root: Path, runs=("ab", "cd", "ef"), *, noise=1.0, trend=0.0, seed=0) -> Path:
    """Two stimuli a run, and a feature recorded at 10 Hz from 14 s before the first volume."""
    func, prepared = root / "sub-01" / "func", root / "derivatives" / "fmriprep" / "sub-01" / "func"
    for folder in (func, prepared):
        folder.mkdir(parents=True)
        about = {"Name": "movies", "BIDSVersion": "1.10.0"}
        (folder.parents[1] / "dataset_description.json").write_text(json.dumps(about))
    n = int((VOLUMES * TR - START) * RATE)
    times = START + np.arange(n) / RATE
    for number, stimuli in enumerate(runs, start=1):
        rng = np.random.default_rng([seed, number])
        onsets = [GAP + place * (CLIP + GAP) for place in range(len(stimuli))]
        shown = [f"{name}.mp4" for name in stimuli]
        feature = 0.3 * smooth(rng, n, 80)
        for name, onset in zip(shown, onsets, strict=True):
            first = round((onset - START) * RATE)
            feature[first : first + int(CLIP * RATE)] = series(name, int(CLIP * RATE), seed)
        feature += trend * (times / times[-1]) ** 2
        volumes = MIDDLE + np.arange(VOLUMES) * TR
        hrf = np.interp(volumes, times, np.convolve(feature, spm_hrf(1 / RATE, 1))[:n])
        late = np.interp(volumes - LAG, times, feature)
        bold = lfilter([1], [1, -0.5], rng.standard_normal((VOLUMES, 60)), axis=0) * noise + 500
        bold[:, REGIONS["hrf"]] += 2 * (hrf / hrf.std())[:, None]
        bold[:, REGIONS["late"]] += 2 * (late / late.std())[:, None]
        stem = f"sub-01_task-movie_run-{number}"
        image = nib.Nifti1Image(bold.T.reshape(*SHAPE, VOLUMES).astype(np.float32), np.diag([3, 3, 3, 1]))
        image.header.set_zooms((3, 3, 3, TR))
        image.to_filename(prepared / f"{stem}_desc-preproc_bold.nii.gz")
        mask = nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), np.diag([3, 3, 3, 1]))
        mask.to_filename(prepared / f"{stem}_desc-brain_mask.nii.gz")
        (prepared / f"{stem}_desc-preproc_bold.json").write_text(
            json.dumps({"RepetitionTime": TR, "StartTime": MIDDLE})
        )
        pd.DataFrame({"onset": onsets, "duration": CLIP, "stim_file": shown}).to_csv(
            func / f"{stem}_events.tsv", sep="\t", index=False
        )
        with gzip.open(func / f"{stem}_stim.tsv.gz", "wt") as file:
            np.savetxt(file, feature[:, None], fmt="%.6f")
        about = {"SamplingFrequency": RATE, "StartTime": START, "Columns": ["motion"]}
        (func / f"{stem}_stim.json").write_text(json.dumps(about))
    codes = np.zeros(60, dtype=np.int16)
    for code, columns in enumerate(REGIONS.values(), start=1):
        codes[columns] = code
    nib.Nifti1Image(codes.reshape(SHAPE), np.diag([3, 3, 3, 1])).to_filename(root.parent / "atlas-planted_dseg.nii.gz")
    pd.DataFrame({"index": range(1, 4), "name": list(REGIONS)}).to_csv(
        root.parent / "atlas-planted_dseg.tsv", sep="\t", index=False
    )
    return root


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    return write_movies(tmp_path_factory.mktemp("movies") / "bids")


def run(bids, out, *more):
    atlas = bids.parent / "atlas-planted_dseg.nii.gz"
    return main([*map(str, (bids, out, "participant", *NONE, "--atlas", atlas, "--permutations", "99", *more))])


def scores(out, name):
    found = read_table(out / f"{STEM}atlas-planted_model-{name}_desc-encoding_results.tsv")
    return found.set_index("region")


@pytest.fixture(scope="module")
def watched(movies, tmp_path_factory):
    """Output of one run with the feature convolved, and delayed by four lags, each a feature space."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "c.toml").write_text(
        '[parameters.timeseries]\nmethod = {d2 = "lanczos"}\n[parameters.timeseries.delays]\n'
        "d2 = [2]\nd4 = [4]\nd6 = [6]\nd8 = [8]\nfir = [0, 2, 4, 6, 8, 10, 12]\n"
    )
    names = ("hrf", "d2", "d4", "d6", "d8", "fir")
    options = ("--config-file", folder / "c.toml", "--features", *(f"{name}={movies}" for name in names))
    assert run(movies, folder / "out", *options) == 0
    return folder / "out", options


def test_the_planted_region_is_predicted_and_another_is_not(watched):
    found = scores(watched[0], "hrf")
    assert found.loc["hrf", "pearsonr"] > 0.7
    assert found.loc["hrf", "p"] == 0.01
    assert abs(found.loc["none", "pearsonr"]) < 0.15
    assert found.loc["none", "p"] > 0.05
    both = scores(watched[0], "fir")
    assert (both.loc[["hrf", "late"], "pearsonr"] > 0.7).all()
    assert both.loc["none", "p"] > 0.05


def test_the_planted_lag_is_found(watched):
    late = {name: scores(watched[0], name).loc["late", "pearsonr"] for name in ("d2", "d4", "d6", "d8")}
    assert max(late, key=late.get) == "d6"
    assert late["d6"] > 0.75
    assert late["d6"] - max(late["d4"], late["d8"]) > 0.05


def test_volumes_are_written_by_run_and_by_moment(watched, movies):
    out = watched[0]
    rows = read_table(out / f"{STEM}run-1_desc-timeseries_trials.tsv")
    image = nib.load(out / f"{STEM}run-1_stat-effect_desc-timeseries_statmap.nii.gz")
    assert image.shape == (*SHAPE, len(rows)) == (*SHAPE, 80)
    assert rows["stim_id"].unique().tolist() == ["a.mp4", "b.mp4"]
    np.testing.assert_allclose(rows["onset"], np.r_[12:92:2, 104:184:2] + MIDDLE)
    np.testing.assert_allclose(rows["time"], np.r_[0:80:2, 0:80:2] + MIDDLE)
    np.testing.assert_allclose(rows["volume"] * TR + MIDDLE, rows["onset"])
    bold = nib.load(next(movies.rglob("*run-1_desc-preproc_bold.nii.gz"))).get_fdata()[..., rows["volume"]]
    r = np.corrcoef(bold[0, 0, 0], image.get_fdata()[0, 0, 0])[0, 1]
    assert r > 0.9
    items = read_table(out / f"{STEM}desc-condition_trials.tsv")
    assert len(items) == 240
    assert items.loc[41, ["stim_id", "shown", "n_repeats"]].tolist() == ["b.mp4@2.900", "task-movie_run-1@106.900", 1]
    about = json.loads((out / f"{STEM}atlas-planted_model-hrf_desc-encoding_results.json").read_text())
    assert about["CrossValidation"].startswith("3 folds over runs")
    assert about["Test"] == "circular shifts of the responses in time, one-sided"
    assert about["NumberOfStimuli"] == 6
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "circular shifts" in page
    assert "hrf convolved with the spm response" in page
    assert "d2 resampled to the volumes (lanczos) at delays of 2 s" in page


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_computes_nothing(watched, movies, caplog):
    out, options = watched
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*statmap*")}
    assert run(movies, out, *options) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*statmap*")} == before
    design = out / f"{STEM}run-2_desc-timeseries_design.tsv"
    design.unlink()
    assert run(movies, out, *options) == 0
    assert design.exists()


def write_tables(movies, folder):
    """The same feature in one table a stimulus, 4 samples a second."""
    folder.mkdir()
    for name in "abcdef":
        values = series(f"{name}.mp4", int(CLIP * RATE), 0).reshape(-1, 5).mean(axis=1)
        table = pd.DataFrame({"onset": np.arange(len(values)) * 0.5, "duration": 0.5, "motion": values})
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    return folder


@pytest.mark.usefixtures("undrawn")
def test_samples_of_each_stimulus_give_what_recordings_give(movies, tmp_path, watched):
    tables = write_tables(movies, tmp_path / "tables")
    every = [pd.read_csv(path, sep="\t").assign(stimulus=f"{path.stem}.mp4") for path in sorted(tables.iterdir())]
    pd.concat(every[::-1]).melt(["stimulus", "onset", "duration"], var_name="feature").to_csv(
        tmp_path / "long.csv", index=False
    )
    (tmp_path / "arrays").mkdir()
    for path in tables.iterdir():
        table = pd.read_csv(path, sep="\t")
        np.savez(tmp_path / "arrays" / path.stem, times=table["onset"] + 0.25, values=table[["motion"]].to_numpy())
    forms = [f"tables={tables}", f"long={tmp_path / 'long.csv'}", f"arrays={tmp_path / 'arrays'}"]
    assert run(movies, tmp_path / "out", "--features", *forms) == 0
    first = scores(tmp_path / "out", "tables")
    assert first.loc["hrf", "pearsonr"] == pytest.approx(scores(watched[0], "hrf").loc["hrf", "pearsonr"], abs=0.1)
    for name in ("long", "arrays"):
        pd.testing.assert_frame_equal(
            scores(tmp_path / "out", name).drop(columns=["network", "layer"]),
            first.drop(columns=["network", "layer"]), rtol=1e-6,
        )  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_drifts_leave_features_as_they_leave_responses(tmp_path):
    bids = write_movies(tmp_path / "bids", noise=0.01, trend=20.0)
    (tmp_path / "c.toml").write_text('[parameters.timeseries]\nmethod = "last"\ndelays = [6]\n')
    options = ("--config-file", tmp_path / "c.toml", "--features", f"motion={bids}")
    assert run(bids, tmp_path / "out", *options) == 0
    assert scores(tmp_path / "out", "motion").loc["late", "pearsonr"] > 0.98


def test_the_example_of_the_page_runs(movies, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "continuous.md").read_text(encoding="utf-8")
    command = re.search(r"```\nbidsdnn (.*?)```", text, flags=re.S)[1].replace("\\\n", " ").split()
    (tmp_path / "movie.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    (tmp_path / "data").symlink_to(movies)
    write_tables(movies, tmp_path / "annotations")
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--permutations", "19", "--nprocs", "1"]) == 0
    for name in ("motion", "words"):
        found = read_table(next((tmp_path / "out").rglob(f"*model-{name}_desc-encoding_results.tsv")))
        assert found["pearsonr"].item() > 0.3
    assert len(read_table(tmp_path / "out" / f"{STEM}desc-condition_trials.tsv")) == 228


@pytest.mark.usefixtures("undrawn")
def test_repeats_are_averaged_and_stay_in_one_fold(tmp_path):
    bids = write_movies(tmp_path / "bids", ("ab", "ba", "ab"), noise=3.0)
    assert run(bids, tmp_path / "out", "--features", f"motion={bids}") == 0
    items = read_table(tmp_path / "out" / f"{STEM}desc-condition_trials.tsv")
    assert len(items) == 80
    assert (items["n_repeats"] == 3).all()
    found = scores(tmp_path / "out", "motion")
    assert found.loc["hrf", "pearsonr"] > 0.5
    assert found.loc["hrf", "ceiling"] > found.loc["none", "ceiling"] + 0.2
    about = json.loads((tmp_path / "out" / f"{STEM}atlas-planted_model-motion_desc-encoding_results.json").read_text())
    assert about["CrossValidation"].startswith("2 folds over stimuli")
    (tmp_path / "c.toml").write_text('[parameters.timeseries]\nrepeats = "keep"\n')
    options = ("--config-file", tmp_path / "c.toml", "--features", f"motion={bids}")
    assert run(bids, tmp_path / "kept", *options) == 0
    kept = read_table(tmp_path / "kept" / f"{STEM}desc-condition_trials.tsv")
    assert len(kept) == 240
    assert {"a.mp4@0.900", "a.mp4@0.900#2", "a.mp4@0.900#3"} <= set(kept["stim_id"])
    assert scores(tmp_path / "kept", "motion").loc["hrf", "ceiling"] < found.loc["hrf", "ceiling"]


def refused(capsys, text):
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert text in said, said


@pytest.mark.usefixtures("undrawn")
def test_a_feature_that_ends_early_is_named_dropped_or_zero(movies, tmp_path, capsys):
    tables = write_tables(movies, tmp_path / "tables")
    lines = (tables / "b.tsv").read_text().splitlines()
    (tables / "b.tsv").write_text("\n".join(lines[:101]) + "\n")
    option = ("--features", f"motion={tables}")
    assert run(movies, tmp_path / "out", *option) == 65
    refused(capsys, "nothing for 15 of 240 volumes, the first b.mp4@50.900 in task-movie_run-1")
    for how, n in (("drop", 225), ("zero", 240)):
        (tmp_path / "c.toml").write_text(f'[parameters.timeseries]\nuncovered = "{how}"\n')
        assert run(movies, tmp_path / "out", *option, "--config-file", tmp_path / "c.toml") == 0
        about = (tmp_path / "out" / f"{STEM}atlas-planted_model-motion_desc-encoding_results.json").read_text()
        assert json.loads(about)["NumberOfItems"] == n
    (tables / "c.tsv").unlink()
    assert run(movies, tmp_path / "out2", *option) == 65
    refused(capsys, "nothing for stimulus 'c.mp4'; it has a, b, d")


@pytest.mark.parametrize(
    ("options", "toml", "status", "text"),
    [
        (["--analysis", "rsa"], "", 2, "--analysis rsa: its test permutes labels"),
        (["--network", "demo"], "", 2, "use --network none and --features NAME=PATH"),
        (["--hrf", "spm + derivative"], "", 2, "features are convolved with spm or glover"),
        (["--features", "m=nowhere"], "", 66, "no such file or folder"),
        (["--features", "m_1=nowhere"], "", 2, "letters, digits and + only"),
        ([], '[parameters.timeseries]\nrepeats = "mean"\n', 2, "expected one of average, keep"),
        ([], '[parameters.timeseries]\nmethod = "lanczo"\n', 2, "did you mean lanczos"),
        ([], '[parameters.timeseries]\ndelays = "2"\n', 2, "expected a list of numbers"),
        ([], "[parameters.timeseries.delays]\nmtion = [2]\n", 2, "no such --features"),
        ([], "[parameters.timeseries]\ndelay = [2]\n", 2, "no parameter 'delay'; did you mean delays"),
    ],
)
def test_what_makes_no_sense_is_refused_early(movies, tmp_path, capsys, options, toml, status, text):
    (tmp_path / "c.toml").write_text(toml)
    more = ["--config-file", tmp_path / "c.toml", "--features", f"motion={movies}", *options]
    assert run(movies, tmp_path / "out", *more) == status
    refused(capsys, text)
    assert not (tmp_path / "out").exists()


def test_without_durations_or_recordings_the_run_is_named(movies, tmp_path, capsys):
    bids = tmp_path / "bids"
    shutil.copytree(movies, bids)
    shutil.copy(movies.parent / "atlas-planted_dseg.nii.gz", tmp_path)
    shutil.copy(movies.parent / "atlas-planted_dseg.tsv", tmp_path)
    recording = bids / "sub-01/func/sub-01_task-movie_run-2_stim.tsv.gz"
    recording.rename(tmp_path / "away")
    assert run(bids, tmp_path / "out", "--features", f"motion={bids}") == 65
    refused(capsys, "no _stim.tsv file for task-movie_run-2")
    (tmp_path / "away").rename(recording)
    events = bids / "sub-01/func/sub-01_task-movie_run-3_events.tsv"
    events.write_text(events.read_text().replace("80.0", "n/a"))
    assert run(bids, tmp_path / "out", "--features", f"motion={bids}") == 65
    refused(capsys, "run-3_events.tsv: e.mp4 at 12 s has no duration")
