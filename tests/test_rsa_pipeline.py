"""RSA from the command line: crossnobis of runs, behaviour and categories, controls, channels, and who is like whom."""

from __future__ import annotations

import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.cli import main
from tests.conftest import ATLAS

TOML = """
[parameters.rsa]
shrinkage = "shrunk"
store_covariance = true
weighted = true
control = ["pixels", "size"]
"""


@pytest.fixture(scope="module")
def output(demo_dataset, tmp_path_factory):
    """Of both participants and of the group."""
    folder = tmp_path_factory.mktemp("rsa")
    (folder / "c.toml").write_text(TOML)
    files = sorted(path.name for path in (demo_dataset / "stimuli").glob("*.png"))
    rows = [f"{name}\t{len(name) + k % 5}" for k, name in enumerate(files)]
    (folder / "sizes.tsv").write_text("\n".join(["stim_file\tsize", *rows]) + "\n")
    options = [
        "--network", "demo", "--atlas", str(demo_dataset / ATLAS), "--permutations", "100", "--nprocs", "1",
        "--config-file", str(folder / "c.toml"), "--analysis", "rsa", "similarity", "--rdm-metric", "crossnobis",
        "--rdm-column", "category", f"size={folder / 'sizes.tsv'}", "--iterate", "channel", "--layer", "conv?",
    ]  # fmt: skip
    for level in ("participant", "group"):
        assert main([str(demo_dataset), str(folder / "out"), level, *options]) == 0
    return folder / "out", demo_dataset, options


def one(out, pattern):
    (path,) = out.glob(pattern)
    return path


def test_crossnobis_of_runs_finds_the_planted_layers(output):
    out, _, _ = output
    path = one(out, "sub-01/func/*model-demo*_desc-rsa_results.tsv")
    table = read_table(path)
    assert set(table["metric"]) == {"crossnobis"}
    rows = table[table["comparison"] == "spearman"].pivot(index="layer", columns="region", values="similarity")
    assert rows.drop(index="weighted")[["early", "middle", "late"]].idxmax().tolist() == ["conv1", "conv3", "conv5"]
    best = table[(table["comparison"] == "spearman") & (table["layer"] == "conv3") & (table["region"] == "middle")]
    assert best["p_fwe"].item() < 0.05 and best["q"].item() < 0.2
    assert set(table["comparison"]) == {"spearman", "pearson", "partial-spearman", "partial-pearson"}
    keys = read_json(sidecar_path(path))
    assert keys["Controls"] == ["pixels", "size"] and "cross-validated over runs" in keys["Methods"]
    assert {"crossnobis", "weighted-rsa", "partial-permutation"} <= set(keys["References"])
    assert read_json(sidecar_path(one(out, "sub-01/func/*_stat-crossnobis_relmat.h5")))["NonNegative"] is False


def test_the_noises_covariance_is_written_and_its_columns_are_voxels_of_the_mask(output):
    out, _, _ = output
    path = one(out, "sub-01/func/*_atlas-planted_stat-covariance_desc-noise_relmat.h5")
    codes = np.asarray(nib.load(one(out, "sub-01/func/*_atlas-planted_dseg.nii.gz")).dataobj)
    mask = np.asarray(nib.load(one(out, "sub-01/func/*_desc-brain_mask.nii.gz")).dataobj) > 0
    names = read_table(one(out, "sub-01/func/*_atlas-planted_dseg.tsv")).set_index("index")["name"]
    with h5py.File(path) as file:
        assert {file[f"covariance{k}"].attrs["name"] for k in range(len(names))} == set(names)
        for k in range(len(names)):
            covariance, columns = file[f"covariance{k}"][:], file[f"column{k}"][:]
            assert set(names[codes[mask][columns]]) == {file[f"covariance{k}"].attrs["name"]}
            assert covariance.shape == (len(columns), len(columns)) and np.linalg.eigvalsh(covariance).min() > 0
    assert read_json(sidecar_path(path))["RelationshipMeasure"] == "covariance"


@pytest.mark.usefixtures("undrawn")
def test_noise_from_residuals_finds_the_planted_layers_too(output, tmp_path):
    out, bids, _ = output
    (tmp_path / "c.toml").write_text('[parameters.rsa]\nnoise = "residuals"\nshrinkage = "shrunk"\n')
    shutil.copytree(out, tmp_path / "out")
    options = ["--network", "demo", "--layer", "conv?", "--atlas", str(bids / ATLAS), "--nprocs", "1"]
    more = ["--rdm-metric", "crossnobis", "--config-file", str(tmp_path / "c.toml"), "--participant-label", "01"]
    assert main([str(bids), str(tmp_path / "out"), "participant", *options, *more, "--analysis", "rsa"]) == 0
    path = one(tmp_path / "out", "sub-01/func/*_stat-crossnobis_relmat.h5")
    assert "residuals of a model of trials" in read_json(sidecar_path(path))["Methods"]
    table = read_table(one(tmp_path / "out", "sub-01/func/*model-demo*_desc-rsa_results.tsv"))
    rows = table[table["comparison"] == "spearman"].pivot(index="layer", columns="region", values="similarity")
    assert rows[["early", "middle", "late"]].idxmax().tolist() == ["conv1", "conv3", "conv5"]


def test_categories_and_tables_are_models(output):
    out, _, _ = output
    table = read_table(one(out, "sub-01/func/*model-column_desc-rsa_results.tsv"))
    assert set(table["layer"]) >= {"category", "size"}
    ids, rdms = read_rdms(one(out, "sub-01/func/*_stat-crossnobis_relmat.h5"))
    kinds = np.array([name.split("-")[0] for name in ids])
    model = (kinds[:, None] != kinds)[np.triu_indices(len(ids), 1)]
    row = table[(table["layer"] == "category") & (table["region"] == "late") & (table["comparison"] == "spearman")]
    assert row["similarity"].item() == pytest.approx(spearmanr(model, rdms["late"]).statistic, abs=1e-6)


def test_channels_and_similarities(output):
    out, _, _ = output
    channels = read_table(one(out, "sub-01/func/*model-demo*_desc-rsachannel_results.tsv"))
    assert channels.groupby("layer")["channel"].nunique().min() > 1
    assert (channels["p_fwe"].dropna() >= channels.loc[channels["p_fwe"].notna(), "p"]).all()
    pairs = read_table(one(out, "sub-01/func/*_desc-similarity_results.tsv"))
    items = 5 + 2 + 4
    assert len(pairs) == 2 * items * (items - 1) // 2
    average = read_table(one(out, "group/*_desc-similarity_results.tsv"))
    assert (average["n_participants"] == 2).all() and len(average) == len(pairs)
    row = (pairs["first"] == "conv1") & (pairs["second"] == "early") & (pairs["comparison"] == "spearman")
    other = read_table(one(out, "sub-02/func/*_desc-similarity_results.tsv"))
    z = np.arctanh([pairs.loc[row, "similarity"].item(), other.loc[row, "similarity"].item()])
    assert average.loc[row, "similarity"].item() == pytest.approx(np.tanh(z.mean()), abs=1e-6)


def test_people_are_compared_in_each_region(output):
    out, _, _ = output
    table = read_table(one(out, "group/*_stat-crossnobis_desc-people_results.tsv"))
    rdms = [read_rdms(one(out, f"sub-{label}/func/*_stat-crossnobis_relmat.h5"))[1] for label in ("01", "02")]
    row = table[(table["region"] == "middle") & (table["comparison"] == "spearman")].iloc[0]
    assert (row["first"], row["second"]) == ("sub-01", "sub-02")
    expected = spearmanr(rdms[0]["middle"], rdms[1]["middle"]).statistic
    assert row["similarity"] == pytest.approx(expected, abs=1e-6)


def test_reports_show_matrices_and_planes(output):
    out, _, _ = output
    for page, names in (("sub-01", ("models", "regions", "models+and+regions")), ("group", ("models", "regions"))):
        text = (out / f"{page}.html").read_text(encoding="utf-8")
        assert "Geometries side by side" in text and "not shown" not in text
        for name in names:
            found = (out / page / "figures").glob(f"*_desc-similarity_{name}_*.svg")
            drawn = {path.stem.rpartition("_")[2] for path in found}
            # A plane of four regions would say less than their six numbers.
            assert drawn == ({"matrix"} if name == "regions" else {"matrix", "plane"})


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_done_twice(output, capsys):
    out, bids, options = output
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_results.tsv")}
    for level in ("participant", "group"):
        assert main([str(bids), str(out), level, *options]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--rdm-column", "catgory"], 65, "in no events file and not in"),
        (["--rdm-column", "trial_type"], 65, "do not differ in it"),
        (["--rdm-column", "a", "a"], 2, "column 'a' stands 2 times"),
        (["--rdm-column", "x={sizes}"], 65, "no such column; there are size"),
        (["--rdm-column", "x=missing.tsv"], 66, "missing.tsv"),
        (["--rdm-metric", "crossnobis", "--analysis", "searchlight"], 2, "searchlight"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_bad_input(output, tmp_path, capsys, more, status, message):
    out, bids, _ = output
    more = [one.format(sizes=out.parent / "sizes.tsv") for one in more]
    fresh = [str(bids), str(tmp_path / "out"), "participant", "--network", "none", "--participant-label", "01"]
    if "searchlight" in more:
        fresh[4] = "demo"
    shutil.copytree(out, tmp_path / "out")
    assert main([*fresh, "--analysis", "rsa", "--nprocs", "1", *more]) == status
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_behaviour_of_each_participant(demo_dataset, tmp_path):
    files = sorted(path.name for path in (demo_dataset / "stimuli").glob("*.png"))
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "participant_id": np.repeat(["sub-01", "sub-02"], len(files)), "stim_id": files * 2,
        "rating": rng.random(2 * len(files)),
    })  # fmt: skip
    table.to_csv(tmp_path / "r.tsv", sep="\t", index=False)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    shutil.copytree(demo_dataset / "stimuli", tmp_path / "in" / "stimuli")
    ratings = [table[table["participant_id"] == f"sub-0{k}"]["rating"].to_numpy() for k in (1, 2)]
    rdms = np.array([np.abs(one[:, None] - one) for one in ratings])
    np.save(tmp_path / "IT.npy", rdms)
    files = [f"IT={tmp_path / 'IT.npy'}", f"rating={tmp_path / 'r.tsv'}"]
    options = ["--rdm", files[0], "--network", "none", "--rdm-column", files[1]]
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "participant", *options, "--permutations", "100"]
    assert main(arguments) == 0
    for label in ("01", "02"):
        rows = read_table(one(tmp_path / "out", f"sub-{label}/func/*model-column_desc-rsa_results.tsv"))
        assert rows["similarity"].tolist() == pytest.approx([1, 1])
