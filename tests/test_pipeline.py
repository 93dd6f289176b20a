"""The whole path on the tiny demo: what was planted is found, and a run can be repeated, resumed and rebuilt."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

PLANTED = {"early": "conv1", "middle": "conv3", "late": "conv5"}
FUNC = "sub-{}/func/sub-{}_task-objects_space-MNI152NLin2009cAsym_"
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def table(finished, name, sub="01"):
    return read_table(finished.out / (FUNC.format(sub, sub) + name))


def bests(scores, column):
    return scores.loc[scores.groupby("region")[column].idxmax()].set_index("region")["layer"].to_dict()


def validate(folder):
    done = subprocess.run([VALIDATOR, folder, "--json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue.get("severity") == "error"]


@pytest.mark.parametrize("sub", ["01", "02"])
def test_encoding_finds_the_planted_layers(finished, sub):
    scores = table(finished, "atlas-planted_model-demo+none+seed0_desc-encoding_results.tsv", sub)
    columns = ["network", "layer", "region", "n_voxels", "pearsonr", "r2", "explained_variance", "p", "p_fwe", "q"]
    assert list(scores.columns) == [*columns, "ceiling", "ceiling_sd", "pearsonr_normalized", "n_voxels_low_ceiling"]
    known = scores["pearsonr_normalized"].notna()
    assert known.sum() >= 6
    assert (scores.loc[known, "ceiling"] >= 0.1).all()
    assert PLANTED.items() <= bests(scores, "pearsonr").items()
    planted = scores.set_index(["region", "layer"])
    for region, layer in PLANTED.items():
        assert planted.loc[(region, layer), "pearsonr"] > 0.3
        assert planted.loc[(region, layer), "p"] == pytest.approx(1 / 201)
        assert planted.loc[(region, layer), "p_fwe"] <= 0.05
    none = scores[scores["region"] == "none"]
    assert (none["pearsonr"] < 0.1).all()
    assert (none["p"] > 0.01).all()
    assert (none["p_fwe"] > 0.05).all()


def test_rsa_finds_the_planted_layers(finished):
    scores = table(finished, "atlas-planted_model-demo+none+seed0_desc-rsa_results.tsv")
    assert {"network", "layer", "region", "metric", "comparison", "similarity", "p"} <= set(scores.columns)
    assert set(scores["comparison"]) == {"spearman", "pearson"}
    for _, one in scores.groupby("comparison"):
        assert PLANTED.items() <= bests(one, "similarity").items()


def test_the_group_finds_the_planted_layers(finished):
    folder = finished.out / "group"
    stem = "task-objects_space-MNI152NLin2009cAsym_atlas-planted_model-demo+none+seed0_desc-{}_results.tsv"
    scores = read_table(folder / stem.format("encoding"))
    assert {"n_participants", "sem", "t", "p", "q", "pearsonr"} <= set(scores.columns)
    assert PLANTED.items() <= bests(scores, "pearsonr").items()
    assert (scores["n_participants"] == 2).all()
    assert scores["p"].min() == 0.25
    each = [table(finished, "atlas-planted_model-demo+none+seed0_desc-encoding_results.tsv", s) for s in ("01", "02")]
    np.testing.assert_allclose(scores["pearsonr"], (each[0]["pearsonr"] + each[1]["pearsonr"]) / 2)
    spread = np.abs(each[0]["pearsonr"] - each[1]["pearsonr"]) / 2
    np.testing.assert_allclose(scores["sem"], spread, rtol=1e-6)
    assert "similarity" in read_table(folder / stem.format("rsa"))


def test_maps_hold_a_volume_a_layer_and_agree_with_the_table(finished):
    stem = finished.out / (FUNC.format("01", "01") + "model-demo+none+seed0_stat-pearsonr_desc-encoding_statmap")
    image = nib.load(f"{stem}.nii.gz")
    sidecar = json.loads(Path(f"{stem}.json").read_text())
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    assert sidecar["Layers"] == layers
    assert image.shape[3] == len(layers)
    atlas = next(finished.bids.glob("derivatives/planted/tpl-*/anat/*_dseg.nii.gz"))
    names = pd.read_csv(str(atlas).replace(".nii.gz", ".tsv"), sep="\t").set_index("name")["index"]
    r = image.get_fdata()[nib.load(atlas).get_fdata() == names["late"]]
    scores = table(finished, "atlas-planted_model-demo+none+seed0_desc-encoding_results.tsv").set_index(
        ["layer", "region"]
    )
    for position, layer in enumerate(layers):
        assert np.nanmean(r[:, position]) == pytest.approx(scores.loc[(layer, "late"), "pearsonr"], abs=1e-5)
    best = nib.load(str(stem).replace("stat-pearsonr_desc-encoding", "desc-bestlayer") + ".nii.gz").get_fdata()
    known = np.isfinite(image.get_fdata()).all(axis=3)
    np.testing.assert_array_equal(best[known], image.get_fdata()[known].argmax(axis=1) + 1)


def test_group_maps_average_the_participants(finished):
    stem = "space-MNI152NLin2009cAsym_model-demo+none+seed0_stat-pearsonr_desc-encoding_statmap.nii.gz"
    each = [
        nib.load(finished.out / f"sub-{s}" / "func" / f"sub-{s}_task-objects_{stem}").get_fdata() for s in ("01", "02")
    ]
    folder = finished.out / "tpl-MNI152NLin2009cAsym" / "func"
    mean = nib.load(next(folder.glob("*_stat-mean_desc-encoding_statmap.nii.gz"))).get_fdata()
    both = np.isfinite(each[0]) & np.isfinite(each[1])
    np.testing.assert_allclose(mean[both], ((each[0] + each[1]) / 2)[both], atol=1e-6)
    p = nib.load(next(folder.glob("*_stat-p_desc-encoding_statmap.nii.gz"))).get_fdata()
    assert set(np.unique(p[np.isfinite(p)])) <= {0.25, 0.5, 0.75, 1.0}


def test_rdms_carry_their_stimuli(finished):
    ids, rdms = read_rdms(finished.out / (FUNC.format("01", "01") + "atlas-planted_stat-correlation_relmat.h5"))
    assert set(rdms) == {"early", "middle", "late", "none"}
    assert len(ids) == 24
    assert all(rdm.shape == (24 * 23 / 2,) for rdm in rdms.values())
    model_ids, layers = read_rdms(finished.out / "stimuli" / "model-demo+none+seed0_stat-correlation_relmat.h5")
    assert model_ids == ids
    assert list(layers) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]


def test_the_validator_finds_no_error(finished):
    assert validate(finished.bids) == []
    assert validate(finished.out) == []


def test_sources_of_every_sidecar_exist(finished):
    links = json.loads((finished.out / "dataset_description.json").read_text())["DatasetLinks"]
    roots = {"": finished.out} | {name: finished.out / path for name, path in links.items()}
    checked = 0
    for path in finished.out.rglob("*.json"):
        for source in json.loads(path.read_text()).get("Sources", []):
            _, name, relative = source.split(":", 2)
            assert (roots[name] / relative).exists(), f"{path}: {source}"
            checked += 1
    assert checked > 10


def contents(folder, *, logs=False):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".tsv", ".gz", ".json", ".h5") and (logs or "logs" not in path.parts)
    }


@pytest.mark.usefixtures("undrawn")
def test_two_workers_write_the_same_bytes(finished, tmp_path):
    options = [option if option != "1" else "2" for option in finished.options]
    assert options[-2:] == ["--nprocs", "2"]
    for level in ("participant", "group"):
        assert main([str(finished.bids), str(tmp_path / "bidsdnn"), level, *options]) == 0
    one, two = contents(finished.out), contents(tmp_path / "bidsdnn")
    # Links are written relative to the output, which lies elsewhere here.
    different = {name for name in one if one[name] != two.get(name)} - {"dataset_description.json"}
    assert set(one) == set(two)
    assert different == set()


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_recomputes_nothing(finished):
    before = {
        path: path.stat().st_mtime_ns
        for path in finished.out.rglob("*")
        if path.suffix in (".tsv", ".gz", ".h5", ".json")
    }
    for level in ("dnn", "participant", "group"):
        assert main([str(finished.bids), str(finished.out), level, *finished.options]) == 0
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


@pytest.mark.usefixtures("undrawn")
def test_a_changed_option_recomputes_what_depends_on_it(finished, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(finished.out, out)
    before = contents(out)
    options = [option if option != "200" else "99" for option in finished.options]
    assert main([str(finished.bids), str(out), "participant", "--participant-label", "01", *options]) == 0
    changed = {name for name, value in contents(out).items() if before.get(name) != value}
    assert changed
    made = ("encoding", "rsa", "relmat", "bestlayer", "bestvoxels", "hierarchy", "networks")
    assert all(name.startswith("sub-01/") and any(word in name for word in made) for name in changed)


@pytest.mark.usefixtures("undrawn")
def test_the_resolved_file_repeats_the_run(finished, tmp_path):
    toml = max(finished.out.glob("logs/*/bidsdnn.toml"))
    first = next(
        path for path in sorted(finished.out.glob("logs/*/bidsdnn.toml")) if 'participant"' in path.read_text()
    )
    out = tmp_path / "again"
    assert main(["--config-file", str(first), str(finished.bids), str(out), "participant"]) == 0
    name = FUNC.format("02", "02") + "atlas-planted_model-demo+none+seed0_desc-encoding_results.tsv"
    assert (out / name).read_bytes() == (finished.out / name).read_bytes()
    assert "permutations = 200" in toml.read_text()


def test_reports_are_rebuilt_from_disk(finished, tmp_path):
    out = tmp_path / "bidsdnn"
    shutil.copytree(finished.out, out)
    for path in out.glob("*.html"):
        path.unlink()
    assert main([str(finished.bids), str(out), "participant", "--reports-only"]) == 0
    assert main([str(finished.bids), str(out), "group", "--reports-only"]) == 0
    assert {path.name for path in out.glob("*.html")} == {"sub-01.html", "sub-02.html", "group.html", "index.html"}
    assert "late" in (out / "group.html").read_text(encoding="utf-8")
    assert main([str(finished.bids), str(tmp_path / "nothing"), "group", "--reports-only"]) == 66


def test_dry_run_writes_nothing(finished, tmp_path, capsys):
    out = tmp_path / "bidsdnn"
    for level in ("dnn", "participant", "group"):
        assert main([str(finished.bids), str(out), level, "--dry-run", *finished.options]) == 0
    assert not out.exists()
    said = capsys.readouterr().out
    assert "72 trials of 24 stimuli" in said
    assert "conv1, conv2" in said


@pytest.mark.usefixtures("undrawn")
def test_without_network_responses_and_rdms_are_still_written(finished, tmp_path, capsys):
    out = tmp_path / "bidsdnn"
    options = ["--network", "none", "--event-filter", "trial_type == 'object'"]
    assert main([str(finished.bids), str(out), "participant", "--participant-label", "01", *options]) == 0
    trials = read_table(out / "sub-01" / "func" / "sub-01_task-objects_desc-condition_trials.tsv")
    assert len(trials) == 24
    assert (trials["n_repeats"] == 3).all()
    assert next(out.glob("sub-01/func/*_relmat.h5"))
    reliability = read_table(next(out.glob("sub-01/func/*desc-reliability_results.tsv")))
    assert reliability["region"].tolist() == ["brain"]
    assert "encoding" in (out / "sub-01.html").read_text(encoding="utf-8")
    assert "left out" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_lsa_and_a_users_analysis_run_by_name(finished, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import pandas as pd\n"
        "from bidsdnn.result import Result\n"
        "def count(x, y, *, regions, power=1):\n"
        "    rows = [{'atlas': a, 'network': '', 'region': n, 'stimuli': len(y) ** power}\n"
        "            for a, t in regions.items() for n in t]\n"
        "    return Result('count', tables={'count': pd.DataFrame(rows)})\n"
    )
    config = tmp_path / "c.toml"
    config.write_text(f"response = 'lsa'\n[parameters.'{mine}:count']\npower = 2\n")
    out = tmp_path / "bidsdnn"
    arguments = [str(finished.bids), str(out), "participant", "--participant-label", "02", "--config-file", str(config)]
    assert main([*arguments, *finished.options, "--analysis", f"{mine}:count"]) == 0
    counted = read_table(next(out.glob("sub-02/func/*desc-count_results.tsv")))
    assert (counted["stimuli"] == 24**2).all()
    config.write_text(f"[parameters.'{mine}:count']\npowr = 2\n")
    assert main([*arguments, *finished.options, "--analysis", f"{mine}:count"]) == 2


def test_cleaning_is_asked_for_by_flags_and_the_file(finished, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[events.rename]\ncatch = "oddball"\n[parameters.condition]\nrho = 0.3\n')
    out, work = tmp_path / "bidsdnn", tmp_path / "work"
    flags = ["--confounds", "motion-12", "wm_csf", "--fd-threshold", "0.5", "--dummy-scans", "2", "--smoothing", "10",
             "--standardize", "psc", "--slice_time_ref", "0.5", "--high-pass", "100", "--noise", "ar1",
             "--response", "condition", "--event-filter", "trial_type != 'oddball'",
             "--work-dir", str(work)]  # fmt: skip
    asked = ["--participant-label", "01", "--config-file", str(config), "--network", "none", "--analysis", "rsa"]
    assert main([str(finished.bids), str(out), "participant", *asked, *flags]) == 0
    quality = table_at(out, "desc-quality_results.tsv")
    assert (quality["n_volumes_left_out"] >= 2).all()
    # Twelve of motion, two of tissue, cosines and the oddballs.
    assert (quality["n_confounds"] >= 15).all()
    design = read_table(next(out.glob("sub-01/func/*run-1_*design.tsv")))
    assert {"trans_x_derivative1", "csf", "event_oddball", "constant", "fitted"} <= set(design.columns)
    assert design["fitted"].tolist()[:3] == [0, 0, 1]
    sidecar = json.loads(next(out.glob("sub-01/func/*desc-quality_results.json")).read_text())
    assert sidecar["Estimation"]["fd_threshold"] == 0.5
    assert sidecar["EventEdits"] == {"rename": {"catch": "oddball"}}
    effect = json.loads(next(out.glob("sub-01/func/*stat-effect_desc-condition_statmap.json")).read_text())
    assert effect["Units"] == "percent signal change"
    assert not list(out.glob("sub-01/func/*singletrial_statmap*"))
    assert list(work.iterdir()) == []
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert all(title in page for title in ("Motion by volume", "Design matrices", "Noise ceiling of each voxel"))


def table_at(out, ending):
    return read_table(next(out.glob(f"sub-01/func/*{ending}")))


@pytest.mark.usefixtures("undrawn")
def test_sessions_are_combined(finished, tmp_path):
    """The same runs, told to be of two sessions, give the same responses."""
    bids, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(finished.bids, bids, ignore=shutil.ignore_patterns("sub-02*"))
    for path in sorted(bids.rglob("sub-01_*run-*")):
        name, last = re.subn("run-0?3", "run-1", path.name)
        session = "ses-2" if last else "ses-1"
        moved = path.parent.parent / session / "func" / name.replace("sub-01_", f"sub-01_{session}_")
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    options = ["--network", "none", "--analysis", "rsa", "--participant-label", "01", "--nprocs", "1"]
    assert main([str(bids), str(out), "participant", *options]) == 0
    for name in ("stat-effect_desc-condition", "stat-reliability_desc-condition"):
        maps = [
            nib.load(folder / (FUNC.format("01", "01") + f"{name}_statmap.nii.gz")) for folder in (out, finished.out)
        ]
        np.testing.assert_array_equal(maps[0].get_fdata(), maps[1].get_fdata())
    assert len(list(out.glob("sub-01/ses-*/func/*desc-singletrial_trials.tsv"))) == 3
    runs = read_table(out / (FUNC.format("01", "01") + "desc-quality_results.tsv"))["run"].tolist()
    assert runs == ["ses-1_task-objects_run-1", "ses-1_task-objects_run-2", "ses-2_task-objects_run-1"]
