"""Bad input gets one line that names file, value and fix, a documented exit status, and nothing half-written."""

from __future__ import annotations

import re
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bidsdnn.cli import main
from bidsdnn.spaces import write_nifti

pytestmark = pytest.mark.usefixtures("undrawn")

FUNC = "derivatives/fmriprep/sub-{0}/func/sub-{0}_task-objects_run-{1}_{2}"
BOLD = "space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
DEMO = ["--network", "demo"]


@pytest.fixture
def bids(demo_dataset, tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(demo_dataset, tmp_path / "bids", symlinks=True))


@dataclass
class Said:
    """Exit status and the error's lines."""

    status: int
    lines: list[str]
    err: str


@pytest.fixture
def run(capsys):
    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        err = capsys.readouterr().err
        return Said(status, [line for line in err.splitlines() if line.startswith("bidsdnn: ")], err)

    return call


def no_half_files(out: Path) -> bool:
    """Whether nothing but finished files and locks is there."""
    hidden = [path.name for path in out.rglob(".*") if path.is_file() and path.name != ".bidsignore"]
    return all(name.endswith(".lock") for name in hidden)


def refused(said, status, pattern):
    assert said.status == status, said.err
    assert len(said.lines) == 1, said.err
    assert re.search(pattern, said.lines[0]), said.lines[0]
    assert "Traceback" not in said.err


def test_missing_folder(run, tmp_path):
    refused(run(tmp_path / "none", tmp_path / "out", "participant"), 2, "none: no such folder")


def test_no_bids(run, tmp_path):
    (tmp_path / "in").mkdir()
    refused(
        run(tmp_path / "in", tmp_path / "out", "participant"), 16, "dataset_description.json.*--skip-bids-validation"
    )


def test_output_equal_to_input(run, bids):
    refused(run(bids, bids, "participant"), 2, "derivatives/bidsdnn")


def test_unknown_level(run, bids, tmp_path):
    refused(run(bids, tmp_path / "out", "session"), 17, "'session' is unknown; choose one of dnn, participant, group")


def test_missing_words(run, bids):
    refused(run(bids), 2, "out_dir is missing")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--participant-label", "99"], "99.*its participants are 01, 02"),
        (["--task-id", "rest"], "rest.*objects"),
        (["--space", "T1w"], "T1w.*MNI152NLin2009cAsym"),
        (["--run-label", "9"], "9.*run-1"),
    ],
)
def test_filters_that_select_nothing(run, demo_dataset, tmp_path, options, pattern):
    refused(run(demo_dataset, tmp_path / "out", "participant", *DEMO, *options), 18, pattern)
    assert not (tmp_path / "out").exists()


def test_no_derivatives(run, bids, tmp_path):
    shutil.rmtree(bids / "derivatives")
    refused(run(bids, tmp_path / "out", "participant", *DEMO), 66, "run fMRIPrep, give its output with -d .*--raw-bold")
    # Each participant's report says why, with the traceback; there is nothing else.
    report = (tmp_path / "out" / "sub-02.html").read_text(encoding="utf-8")
    assert "no preprocessed BOLD" in report and "Traceback" in report and "It stopped before" in report
    assert "did not finish" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob("sub-*/func"))
    (tmp_path / "out" / "sub-02.html").unlink()
    run(bids, tmp_path / "out", "participant", "--reports-only")
    again = (tmp_path / "out" / "sub-02.html").read_text(encoding="utf-8")
    assert again.split("</main>")[0].split(" started ")[0] == report.split("</main>")[0].split(" started ")[0]


def test_a_derivative_without_description_works_with_a_warning(run, bids, tmp_path):
    (bids / "derivatives" / "fmriprep" / "dataset_description.json").unlink()
    said = run(
        bids, tmp_path / "out", "participant", "--network", "none", "--participant-label", "01", "--run-label", "1"
    )
    assert said.status == 0
    assert re.search(r"WARNING.*fmriprep.*dataset_description\.json", said.err)


def test_no_events(run, bids, tmp_path):
    for path in bids.rglob("*_events.tsv"):
        path.unlink()
    refused(run(bids, tmp_path / "out", "participant", *DEMO), 66, "run-.*events.tsv: no events file")


def test_no_usable_stimulus_column(run, bids, tmp_path):
    for path in bids.rglob("*_events.tsv"):
        rows = [line.split("\t")[:2] for line in path.read_text().splitlines()]
        path.write_text("".join("\t".join([*row, "x" if i == 0 else "1"]) + "\n" for i, row in enumerate(rows)))
    refused(run(bids, tmp_path / "out", "participant", *DEMO), 65, "onset, duration, x.*--stimulus-column")
    refused(run(bids, tmp_path / "out", "participant", *DEMO, "--stimulus-column", "y"), 65, "'y' does not exist")


def test_stimuli_missing_on_disk(run, bids, tmp_path):
    for path in sorted((bids / "stimuli").iterdir())[:7]:
        path.unlink()
    refused(
        run(bids, tmp_path / "out", "dnn", *DEMO),
        66,
        r"7 of 24 stimuli are not there \((\S+, ){5}\.\.\.\); .*--stimuli-dir",
    )
    assert not list((tmp_path / "out").glob("stimuli/*"))


def test_stimuli_that_datalad_has_not_got(run, bids, tmp_path):
    first = min((bids / "stimuli").iterdir())
    first.unlink()
    first.symlink_to("../.git/annex/objects/xx/key")
    refused(run(bids, tmp_path / "out", "dnn", *DEMO), 66, f"{first.name}.*datalad get")


def test_a_stimulus_that_leaves_its_folder(run, bids, tmp_path):
    path = min(bids.rglob("*_events.tsv"))
    lines = path.read_text().splitlines()
    column = lines[0].split("\t").index("stim_file")
    row = lines[1].split("\t")
    row[column] = "../dataset_description.json"
    path.write_text("\n".join([lines[0], "\t".join(row), *lines[2:]]) + "\n")
    said = run(bids, tmp_path / "out", "dnn", *DEMO, "--participant-label", "01")
    refused(said, 65, r"\.\./dataset_description\.json.*leaves the stimuli folder")


def test_a_truncated_image(run, bids, tmp_path):
    path = min((bids / "stimuli").iterdir())
    path.write_bytes(path.read_bytes()[:200])
    refused(run(bids, tmp_path / "out", "dnn", *DEMO), 65, f"{path.name}: ")
    assert no_half_files(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_a_truncated_bold_stops_one_participant_of_two(run, bids, tmp_path):
    path = bids / FUNC.format("01", "2", BOLD)
    path.write_bytes(path.read_bytes()[:20_000])
    said = run(bids, tmp_path / "out", "participant", *DEMO, "--permutations", "10")
    refused(said, 1, f"sub-01: .*{path.name}: image is truncated or damaged")
    assert next((tmp_path / "out").glob("sub-02/func/*desc-encoding_results.tsv"))
    assert not list((tmp_path / "out").glob("sub-01/func/*encoding*"))
    assert "truncated" in (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert next((tmp_path / "out").glob("logs/*/crash-sub-01.txt")).read_text().count("Traceback")
    assert no_half_files(tmp_path / "out")
    alone = run(bids, tmp_path / "out", "participant", *DEMO, "--participant-label", "01")
    refused(alone, 65, "truncated")


def test_stopping_on_the_first_crash(run, bids, tmp_path):
    path = bids / FUNC.format("01", "2", BOLD)
    path.write_bytes(path.read_bytes()[:20_000])
    options = ["--network", "none", "--analysis", "rsa", "--stop-on-first-crash"]
    refused(run(bids, tmp_path / "out", "participant", *options), 65, "sub-01: .*truncated")
    assert not (tmp_path / "out" / "sub-02").exists()


def test_a_broken_events_file_stops_one_participant_of_two(run, bids, tmp_path):
    path = min(bids.glob("sub-02/func/*_events.tsv"))
    path.write_text(path.read_text().replace("\n", "\nsoon", 1))
    said = run(bids, tmp_path / "out", "participant", "--network", "none", "--analysis", "rsa")
    refused(said, 1, f"sub-02: .*{path.name}: onset 'soon.*row 1")
    assert (tmp_path / "out" / "sub-01" / "func").is_dir()


def change_bold(bids, change):
    path = bids / FUNC.format("01", "1", BOLD)
    image = nib.load(path)
    write_nifti(path, change(image.get_fdata(dtype=np.float32)), image.affine, tr=2.0)
    return path


ONE_RUN = ["--participant-label", "01", "--run-label", "1", "--permutations", "10"]


def test_a_bold_that_is_all_nan(run, bids, tmp_path):
    path = change_bold(bids, lambda data: np.full_like(data, np.nan))
    refused(
        run(bids, tmp_path / "out", "participant", *DEMO, *ONE_RUN), 65, f"{path.name}: every voxel in the mask has NaN"
    )


def test_a_bold_without_time(run, bids, tmp_path):
    path = change_bold(bids, lambda data: data[..., :3])
    said = run(bids, tmp_path / "out", "participant", *DEMO, *ONE_RUN)
    refused(said, 65, f"{path.name}: 3 volumes are no time series")


def test_confounds_shorter_than_the_bold(run, bids, tmp_path):
    change_bold(bids, lambda data: np.concatenate([data, data], axis=3))
    said = run(bids, tmp_path / "out", "participant", *DEMO, *ONE_RUN)
    refused(said, 65, r"desc-confounds_timeseries\.tsv: \d+ rows for the \d+ volumes")


def test_constant_voxels_are_counted_and_not_scored(run, bids, tmp_path):
    def freeze(data):
        data = data.copy()
        data[: data.shape[0] // 2] = 500.0
        return data

    change_bold(bids, freeze)
    said = run(bids, tmp_path / "out", "participant", *DEMO, *ONE_RUN)
    assert said.status == 0, said.err
    quality = next((tmp_path / "out").glob("sub-01/func/*desc-quality_results.tsv")).read_text().splitlines()
    counted = dict(zip(quality[0].split("\t"), quality[1].split("\t"), strict=True))
    assert int(counted["n_voxels_constant"]) > 10
    r = nib.load(next((tmp_path / "out").glob("sub-01/func/*stat-pearsonr_desc-encoding_statmap.nii.gz"))).get_fdata()
    half = r.shape[0] // 2
    assert np.isnan(r[:half]).all()
    assert np.isfinite(r[half:]).any()


def test_fewer_stimuli_than_folds(run, bids, tmp_path):
    keep = sorted(path.name for path in (bids / "stimuli").iterdir())[:6]
    options = ["--event-filter", f"stim_file in {keep!r}".replace("'", '"')]
    said = run(bids, tmp_path / "out", "participant", *DEMO, *options, "--participant-label", "01")
    refused(said, 65, r"6 distinct stimuli for 10 folds; .*--cv kfold:5")


@pytest.mark.parametrize(
    ("options", "status", "pattern"),
    [
        (["--network", "alexnett"], 2, "did you mean alexnet"),
        (["--network", "demo", "--layer", "conv9"], 2, "conv9.*did you mean conv"),
        (["--network", "demo", "--layer", "vgg:conv1"], 2, "no network is called 'vgg'"),
        (["--network", "demo", "demo"], 2, "stands twice"),
        (["--network", "demo", "--analysis", "encodin"], 2, "did you mean encoding"),
        (["--network", "demo", "--response", "lsss"], 2, "did you mean lss"),
        (["--network", "demo", "--cv", "loo"], 2, "cv = 'loo': choose kfold:N"),
        (["--network", "demo", "--cv", "column:a=none.tsv"], 66, "none.tsv"),
        (["--network", "demo", "--event-filter", "trial_type =="], 2, "event-filter"),
        (["--network", "demo", "--atlas", "none.nii.gz"], 66, "none.nii.gz"),
        (["--network", "demo", "--mem-mb", "5"], 2, "--mem-mb 5: one run needs about"),
        (["--network", "demo", "--mem-mb", "600", "--analysis", "encoding"], 2, "encoding of .* stimuli x .* bytes"),
        (["--network", "resnet18", "--weights", "w.pth"], 2, "w.pth"),
        (["--network", "none", "--hrf", "spmm"], 2, "'spmm' is not known; did you mean spm"),
        (["--network", "none", "--hrf", "library"], 2, "--hrf library: lss has one response .*--response glmsingle"),
        (["--network", "none", "--noise", "ar1", "--response", "window"], 2, "--noise ar1: window has no model"),
        (["--network", "none", "--stimulus-id-map", "none.tsv"], 66, "none.tsv"),
        (["--network", "none", "--confounds", "motion-7"], 2, "--confounds motion-7: no such strategy; did you mean"),
        (["--network", "none", "--run-label", "1", "--confounds", "motoin"], 65, "confounds.*did you mean motion"),
        (["--network", "none", "--run-label", "1", "--fd-threshold", "0.001"], 65, "run-1_.*volumes are left"),
        (["--network", "none", "--run-label", "1", "--dummy-scans", "900"], 65, "run-1_.*0 of .*volumes are left"),
    ],
)
def test_misspelt_options(run, demo_dataset, tmp_path, options, status, pattern):
    refused(run(demo_dataset, tmp_path / "out", "participant", "--participant-label", "01", *options), status, pattern)


def change_events(bids, change, run="1"):
    path = next(bids.glob(f"sub-01/func/*run-*{run}_events.tsv"))
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(path, sep="\t", index=False)
    return path


NONE = ["--network", "none", "--analysis", "rsa", "--participant-label", "01"]


def test_onsets_in_milliseconds(run, bids, tmp_path):
    path = change_events(bids, lambda table: table.assign(onset=[str(1000 * float(t)) for t in table["onset"]]))
    said = run(bids, tmp_path / "out", "participant", *NONE)
    refused(said, 65, rf"{path.name}: onsets reach .*run-1_.*ends after .*look like milliseconds: divide them by 1000")


def test_trials_that_are_all_collinear(run, bids, tmp_path):
    path = change_events(bids, lambda table: table.assign(onset="20", duration="1"))
    said = run(bids, tmp_path / "out", "participant", *NONE, "--response", "lsa")
    refused(said, 65, rf"{path.name}: no trial .*run-1_.*24 trials are collinear \(.* at 20 s with .*--response lss")


def test_some_collinear_trials_are_named_and_dropped(run, bids, tmp_path):
    def together(table):
        rows = table.index[table["trial_type"] == "object"][:2]
        return table.assign(onset=table["onset"].mask(table.index == rows[1], table.loc[rows[0], "onset"]))

    change_events(bids, together)
    said = run(bids, tmp_path / "out", "participant", *NONE, "--response", "lsa")
    assert said.status == 0, said.err
    assert re.search(r"WARNING: sub-01: task-objects_run-1: 2 trials are collinear \(", said.err)
    dropped = next((tmp_path / "out").glob("sub-01/func/*desc-dropped_results.tsv")).read_text().splitlines()
    assert dropped[1:] == ["collinear\t2\ttask-objects_run-1"]
    assert "2 trials: collinear" in (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")


def test_a_filter_that_leaves_no_trials(run, demo_dataset, tmp_path):
    said = run(demo_dataset, tmp_path / "out", "participant", *NONE, "--event-filter", "trial_type == 'none'")
    refused(said, 65, r"run-.*_events.tsv: .* no row has a stim_file that passes --event-filter")


def test_events_that_cannot_be_renamed(run, demo_dataset, tmp_path):
    (tmp_path / "c.toml").write_text('[events.rename]\nobjekt = "x"\n')
    said = run(demo_dataset, tmp_path / "out", "participant", *NONE, "--config-file", tmp_path / "c.toml")
    refused(said, 2, r"events.rename: no event has the trial_type 'objekt'; did you mean object")


def test_misspelt_parameters_of_an_estimator(run, demo_dataset, tmp_path):
    (tmp_path / "c.toml").write_text('response = "window"\n[parameters.window]\nsecond = [4, 8]\n')
    said = run(demo_dataset, tmp_path / "out", "participant", *NONE, "--config-file", tmp_path / "c.toml")
    refused(said, 2, r"response window has no parameter 'second'; did you mean seconds")
    (tmp_path / "c.toml").write_text('response = "window"\n[parameters.window]\nseconds = [8, 4]\n')
    said = run(demo_dataset, tmp_path / "out", "participant", *NONE, "--config-file", tmp_path / "c.toml")
    refused(said, 65, r"--response window: .*run-1_.*bold.nii.gz: seconds: expected two rising numbers")


def test_misspelt_key_of_the_configuration(run, bids, tmp_path):
    (tmp_path / "c.toml").write_text('layers = ["conv1"]\n')
    said = run(bids, tmp_path / "out", "participant", "--config-file", tmp_path / "c.toml")
    refused(said, 2, r"c\.toml: unknown key 'layers'; did you mean layer")


def test_weights_that_cannot_be_had_offline(run, demo_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # A port that nothing listens on: no request leaves this machine.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib keeps the proxies of its first request for the life of the process; other tests want theirs.
    monkeypatch.setattr(urllib.request, "_opener", None)
    said = run(demo_dataset, tmp_path / "out", "dnn", "--network", "alexnet")
    refused(said, 66, "alexnet.*bidsdnn-fetch alexnet.*TORCH_HOME")


def test_an_output_that_cannot_be_written(run, demo_dataset, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    said = run(demo_dataset, blocked / "out", "dnn", *DEMO)
    refused(said, 73, "cannot be written")


def test_a_group_of_one_is_refused(run, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    shutil.rmtree(out / "sub-02")
    refused(
        run(finished.bids, out, "group", *finished.options), 66, "1 of 2 participants have results; a group needs two"
    )


def test_dnn_without_network(run, demo_dataset, tmp_path):
    refused(run(demo_dataset, tmp_path / "out", "dnn", "--network", "none"), 2, "name a network")


def test_same_atlas_twice(run, demo_dataset, tmp_path):
    atlas = next(demo_dataset.glob("derivatives/planted/tpl-*/anat/*_dseg.nii.gz"))
    said = run(demo_dataset, tmp_path / "out", "participant", *DEMO, "--atlas", atlas, atlas, *ONE_RUN)
    refused(said, 2, "second atlas is called planted")


def test_a_link_to_the_input_is_no_output(run, bids, tmp_path):
    before = (bids / "dataset_description.json").read_bytes()
    (tmp_path / "link").symlink_to(bids)
    refused(run(tmp_path / "link", bids, "participant"), 2, "is the input dataset")
    refused(run(bids, tmp_path / "link" / "results", "participant"), 2, "lies in the input dataset")
    refused(run(bids, bids / ".." / "bids", "participant"), 2, "is the input dataset")
    assert (bids / "dataset_description.json").read_bytes() == before


def test_another_dataset_is_no_output(run, bids, tmp_path):
    shutil.copytree(bids / "derivatives" / "fmriprep", tmp_path / "other")
    refused(run(bids, tmp_path / "other", "participant", *DEMO), 2, "holds another dataset .*choose a new folder")


def edit_events(path, change):
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join("\t".join(row) + "\n" for row in [lines[0], *change(lines[0], lines[1:])]))


def test_a_stimulus_that_one_participant_saw_stops_that_one(run, bids, tmp_path):
    (bids / "stimuli" / "own.png").write_bytes(b"no picture")

    def own(header, rows):
        rows[0][header.index("stim_file")] = "own.png"
        return rows

    edit_events(min(bids.glob("sub-02/func/*_events.tsv")), own)
    options = [*DEMO, "--permutations", "10", "--layer", "fc"]
    refused(run(bids, tmp_path / "out", "participant", *options), 1, r"sub-02: .*own\.png")
    assert next((tmp_path / "out").glob("sub-01/func/*desc-encoding_results.tsv"))


def test_runs_without_enough_trials_are_left_out_and_named(run, bids, tmp_path):
    first, second, _ = sorted(bids.glob("sub-01/func/*_events.tsv"))

    def none(header, rows):
        column = header.index("stim_file")
        return [[*row[:column], "n/a", *row[column + 1 :]] for row in rows]

    edit_events(first, none)
    edit_events(second, lambda header, rows: rows[:1])
    out = tmp_path / "out"
    said = run(bids, out, "participant", "--participant-label", "01", "--network", "none", "--analysis", "rsa")
    assert said.status == 0, said.err
    assert re.search("run-01_events.tsv: no row presents a stimulus", said.err)
    assert re.search("run-2 has one usable trial and was left out", said.err)
    r = nib.load(next(out.glob("sub-01/func/*stat-effect_desc-condition*.nii.gz"))).get_fdata()
    assert np.isfinite(r).any()
    options = ["--participant-label", "01", "--run-label", "2", "--network", "none", "--analysis", "rsa"]
    refused(run(bids, tmp_path / "two", "participant", *options), 65, "no voxel has responses that vary")


def test_missing_confounds_are_said(run, bids, tmp_path):
    for path in bids.rglob("*_run-1_desc-confounds_timeseries.tsv"):
        path.unlink()
    out = tmp_path / "out"
    said = run(bids, out, "participant", "--participant-label", "01", "--network", "none", "--analysis", "rsa")
    assert said.status == 0
    assert re.search("run-1: no confounds file; motion was not modelled", said.err)
    assert "(in 2 of 3 runs)" in next(out.glob("sub-01/func/*desc-quality_results.json")).read_text()


def test_atlases_of_several_scales_stand_side_by_side(run, bids, tmp_path):
    atlas = next(bids.glob("derivatives/planted/tpl-*/anat/*_dseg.nii.gz"))
    paths = [tmp_path / f"tpl-X_atlas-Sch_seg-7n_scale-{scale}_dseg.nii.gz" for scale in (100, 200)]
    for path in paths:
        shutil.copy(atlas, path)
    out = tmp_path / "out"
    assert run(bids, out, "participant", *DEMO, "--layer", "fc", "--atlas", *paths, *ONE_RUN).status == 0
    for scale in (100, 200):
        stem = f"sub-01_task-objects_space-MNI152NLin2009cAsym_atlas-Sch_seg-7n_scale-{scale}"
        assert (out / "sub-01" / "func" / f"{stem}_dseg.nii.gz").exists()
        assert (out / "sub-01" / "func" / f"{stem}_model-demo+none+seed0_desc-encoding_results.tsv").exists()


def test_a_group_analysed_in_two_ways_is_warned_of(run, bids, tmp_path):
    out, options = tmp_path / "out", [*DEMO, "--layer", "fc", "--permutations", "10"]
    for label, response in (("01", "lss"), ("02", "lsa")):
        assert run(bids, out, "participant", "--participant-label", label, "--response", response, *options).status == 0
    said = run(bids, out, "group", *options)
    assert said.status == 0
    assert re.search("sub-02 was made with other settings than that of sub-01", said.err)


@pytest.mark.parametrize("kept", ["h5", "effect"])
def test_a_damaged_product_of_ours_is_computed_again(run, bids, tmp_path, kept):
    out = tmp_path / "out"
    arguments = [bids, out, "participant", *DEMO, "--layer", "fc", *ONE_RUN]
    assert run(*arguments).status == 0
    table = next(out.glob("sub-01/func/*desc-encoding_results.tsv"))
    before = table.read_bytes()
    path = next(out.rglob("*_activations.h5" if kept == "h5" else "*stat-effect_desc-condition_statmap.nii.gz"))
    path.write_bytes(path.read_bytes()[:1000])
    table.unlink()
    said = run(*arguments)
    assert said.status == 0, said.err
    assert table.read_bytes() == before


def test_a_device_that_is_not_there(run, demo_dataset, tmp_path):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    refused(run(demo_dataset, tmp_path / "out", "participant", *DEMO, "--device", "mps"), 2, "mps")
    assert not (tmp_path / "out").exists()
