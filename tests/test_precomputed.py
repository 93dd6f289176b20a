"""Responses that were estimated elsewhere go through the whole path, without recordings or events."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.cli import main
from bidsdnn.precomputed import z_scored
from tests.conftest import ATLAS

pytestmark = pytest.mark.usefixtures("undrawn")

STEM = "sub-{0}/func/sub-{0}_task-objects_space-MNI152NLin2009cAsym_"


@pytest.fixture(scope="module")
def bare(demo_dataset, tmp_path_factory):
    """The demo's participants and stimuli, with neither recordings nor events nor derivatives."""
    folder = tmp_path_factory.mktemp("bare") / "bids"
    for label in ("01", "02"):
        (folder / f"sub-{label}").mkdir(parents=True)
    shutil.copy(demo_dataset / "dataset_description.json", folder)
    shutil.copytree(demo_dataset / "stimuli", folder / "stimuli")
    shutil.copytree(demo_dataset / "derivatives" / "planted", folder / "atlases")
    return folder


def run(bids, out, theirs, *more):
    atlas = bids / ATLAS.replace("derivatives/planted", "atlases")
    arguments = ["participant", "--response", "precomputed", "--network", "demo", "--atlas", str(atlas)]
    return main(
        [str(bids), str(out), *arguments, "-d", f"theirs={theirs}", "--permutations", "200", "--nprocs", "1", *more]
    )


def test_our_own_single_trials_give_the_same_scores_again(finished, bare, tmp_path):
    out = tmp_path / "out"
    assert run(bare, out, finished.out) == 0
    for desc, column in (("encoding", "pearsonr"), ("rsa", "similarity"), ("reliability", "reliability")):
        model = "" if desc == "reliability" else "model-demo+none+seed0_"
        name = STEM.format("01") + f"atlas-planted_{model}desc-{desc}_results.tsv"
        again, first = read_table(out / name), read_table(finished.out / name)
        assert list(again["region"]) == list(first["region"])
        np.testing.assert_allclose(again[column], first[column], atol=1e-4)
    effect = out / (STEM.format("01") + "stat-effect_desc-condition_statmap.nii.gz")
    sidecar = read_json(sidecar_path(effect))
    assert sidecar["Estimation"] == {"response": "precomputed", "format": "bidsdnn", "derivative": "theirs"}
    assert (
        "estimated beforehand and read from theirs" in sidecar["Methods"]
        and "z-scored within runs" in sidecar["Methods"]
    )
    assert (out / "sub-01.html").is_file()
    runs = read_table(out / (STEM.format("01") + "desc-quality_results.tsv"))
    assert len(runs) == 3 and (runs["n_trials"] == 24).all()
    before = effect.stat().st_mtime_ns
    assert run(bare, out, finished.out) == 0
    assert effect.stat().st_mtime_ns == before


@pytest.fixture
def images(finished, tmp_path):
    """One 4-D image of a participant's responses, and a table of their stimuli."""
    folder = tmp_path / "theirs" / "sub-01"
    folder.mkdir(parents=True)
    stem = finished.out / STEM.format("01")
    image = nib.load(f"{stem}stat-effect_desc-condition_statmap.nii.gz")
    nib.save(image, folder / "sub-01_space-MNI152NLin2009cAsym_betas.nii.gz")
    ids = read_table(finished.out / "sub-01/func/sub-01_task-objects_desc-condition_trials.tsv")["stim_id"]
    table = pd.DataFrame({"stimulus": ids})
    table.to_csv(folder / "sub-01_space-MNI152NLin2009cAsym_betas.tsv", sep="\t", index=False)
    return folder.parent


def test_betas_in_another_order_and_named_without_extension_give_the_same_scores(finished, bare, images, tmp_path):
    folder = images / "sub-01"
    table = pd.read_csv(folder / "sub-01_space-MNI152NLin2009cAsym_betas.tsv", sep="\t")
    image = nib.load(folder / "sub-01_space-MNI152NLin2009cAsym_betas.nii.gz")
    order = np.random.default_rng(0).permutation(len(table))
    data = image.get_fdata(dtype=np.float32)[..., order]
    nib.save(nib.Nifti1Image(data, image.affine), folder / "sub-01_space-MNI152NLin2009cAsym_betas.nii.gz")
    named = table["stimulus"].iloc[order].str.rsplit("/").str[-1].str.rsplit(".").str[0]
    named.to_frame("stimulus").to_csv(folder / "sub-01_space-MNI152NLin2009cAsym_betas.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    assert run(bare, out, images, "--participant-label", "01") == 0
    name = STEM.format("01").replace("objects", "{}") + "atlas-planted_model-demo+none+seed0_desc-rsa_results.tsv"
    again, first = read_table(out / name.format("theirs")), read_table(finished.out / name.format("objects"))
    # Z-scored over stimuli again, which the first was over trials.
    assert np.corrcoef(again["similarity"], first["similarity"])[0, 1] > 0.99


def test_regions_series_give_a_score_for_each_region(finished, bare, images, tmp_path):
    folder = images / "sub-01"
    stem = folder / "sub-01_space-MNI152NLin2009cAsym_betas"
    data = nib.load(f"{stem}.nii.gz").get_fdata(dtype=np.float32)
    atlas = bare / ATLAS.replace("derivatives/planted", "atlases")
    codes = np.asarray(nib.load(atlas).dataobj)
    names = pd.read_csv(str(atlas).replace(".nii.gz", ".tsv"), sep="\t").set_index("name")["index"]
    means = {name: np.nanmean(data[codes == index], axis=0) for name, index in names.items()}
    (folder / "sub-01_space-MNI152NLin2009cAsym_betas.tsv").rename(folder / "sub-01_task-x_timeseries_labelfold.tsv")
    (folder / "sub-01_space-MNI152NLin2009cAsym_betas.nii.gz").unlink()
    pd.DataFrame(means).to_csv(folder / "sub-01_task-x_timeseries.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    options = ["--response", "precomputed", "--network", "demo", "-d", f"theirs={images}", "--permutations", "50"]
    arguments = [str(bare), str(out), "participant", *options, "--participant-label", "01", "--nprocs", "1"]
    assert main(arguments) == 0
    scores = read_table(out / "sub-01/func/sub-01_task-x_model-demo+none+seed0_desc-encoding_results.tsv")
    assert set(scores["region"]) == set(names.index)
    best = scores.loc[scores.groupby("region")["pearsonr"].idxmax()].set_index("region")["layer"]
    assert best["late"] == "conv5"
    assert (out / "sub-01.html").is_file()


def test_a_participant_without_responses_fails_alone(bare, images, tmp_path, capsys):
    assert run(bare, tmp_path / "out", images) == 1
    said = capsys.readouterr().err
    assert "sub-02: no precomputed responses in the derivatives (theirs=" in said
    assert (tmp_path / "out" / "sub-01.html").is_file()


def test_ids_without_a_file_stop_the_run_and_are_named(bare, images, tmp_path, capsys):
    path = images / "sub-01" / "sub-01_space-MNI152NLin2009cAsym_betas.tsv"
    table = pd.read_csv(path, sep="\t")
    table.loc[[2, 5], "stimulus"] = ["nowhere.png", "elsewhere.png"]
    table.to_csv(path, sep="\t", index=False)
    assert run(bare, tmp_path / "out", images, "--participant-label", "01") != 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bidsdnn: ")]
    assert len(said) == 1 and "2 of 24 stimuli are not there (elsewhere.png, nowhere.png)" in said[0]


def test_a_dry_run_counts_responses_and_writes_nothing(bare, images, tmp_path, capsys):
    assert run(bare, tmp_path / "out", images, "--participant-label", "01", "--dry-run") == 0
    assert "sub-01: 24 trials of 24 stimuli" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_two_derivatives_with_responses_must_be_told_apart(bare, images, finished, tmp_path, capsys):
    both = ("-d", f"theirs={images}", f"ours={finished.out}")
    arguments = ["participant", "--response", "precomputed", "--network", "none", *both, "--participant-label", "01"]
    assert main([str(bare), str(tmp_path / "out"), *arguments]) != 0
    assert "precomputed responses are in theirs and ours; choose one" in capsys.readouterr().err


def test_z_scoring_is_within_runs_and_left_out_for_short_ones():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((8, 3)).astype(np.float32) * 4 + 2
    items = pd.DataFrame({"run": ["1"] * 4 + ["2"] * 4, "ses": ["a"] * 8})
    scored, done = z_scored(values, items)
    assert done
    for rows in (slice(0, 4), slice(4, 8)):
        expected = (values[rows] - values[rows].mean(axis=0)) / values[rows].std(axis=0)
        np.testing.assert_allclose(scored[rows], expected, rtol=1e-4, atol=1e-5)
    same, done = z_scored(values, items.assign(run=["1"] * 6 + ["2"] * 2))
    assert not done and same is values
