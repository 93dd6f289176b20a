"""RSA with measured RDMs and no brain data: what was planted is found, participant by participant and in the group."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.files import read_table
from bidsdnn.bids.rdms import read_people
from bidsdnn.cli import main
from bidsdnn.methods.rsa_inference import noise_ceiling
from tests.conftest import without_pictures


@pytest.fixture
def study(finished, tmp_path):
    """A folder of stimuli without participants, and RDMs of five people that follow two layers."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    shutil.copytree(finished.bids / "stimuli", folder / "stimuli")
    _, layers = read_rdms(finished.out / "stimuli" / "model-demo+none+seed0_stat-correlation_relmat.h5")
    rng = np.random.default_rng(0)
    for name, layer in (("EVC", "conv1"), ("IT", "conv5")):
        noise = [rng.normal(scale=layers[layer].std(), size=layers[layer].shape) for _ in range(5)]
        np.savez(tmp_path / f"{name}.npz", rdms=np.array([squareform(layers[layer] + one) for one in noise]))
    return folder, tmp_path


def arguments(study, level, *more):
    folder, tmp = study
    files = [f"EVC={tmp / 'EVC.npz'}", f"IT={tmp / 'IT.npz'}"]
    options = ["--network", "demo", "--permutations", "100", "--nprocs", "1", "--rdm", *files]
    return [str(folder), str(tmp / "out"), level, *options, *more]


@pytest.mark.usefixtures("undrawn")
def test_published_rdms_find_their_layers(study, capsys):
    tmp = study[1]
    for level in ("participant", "group"):
        assert main(arguments(study, level)) == 0
    assert "sorted order" in capsys.readouterr().err
    out = tmp / "out"
    assert len(list(out.glob("sub-*.html"))) == 5
    one = read_table(out / "sub-03" / "func" / "sub-03_model-demo+none+seed0_desc-rsa_results.tsv")
    assert set(one["region"]) == {"EVC", "IT"}
    group = read_table(out / "group" / "model-demo+none+seed0_desc-rsa_results.tsv")
    group = group[group["comparison"] == "spearman"]
    best = group.loc[group.groupby("region")["similarity"].idxmax()].set_index("region")
    assert best["layer"].to_dict() == {"EVC": "conv1", "IT": "conv5"}
    assert (best["n_participants"] == 5).all()
    assert (best["p"] == 1 / 32).all()
    # What drives the people's RDMs can do no better than their ceiling, which other layers stay far below.
    assert (best["ceiling_lower"] < best["ceiling_upper"]).all()
    assert (best["similarity"] > best["ceiling_lower"]).all()
    assert (best["similarity"] < best["ceiling_upper"] + 0.02).all()
    people = read_people(tmp / "IT.npz")[1]
    assert best.loc["IT", ["ceiling_lower", "ceiling_upper"]].tolist() == pytest.approx(noise_ceiling(people), rel=1e-6)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_results.tsv")}
    assert main(arguments(study, "participant")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_reports_show_pictures_on_request_and_order_by_category(study):
    folder, tmp = study
    with without_pictures():
        assert main(arguments(study, "participant")) == 0
    assert main(arguments(study, "group")) == 0
    page = (tmp / "out" / "group.html").read_text()
    assert "clustered by the mean of the regions&#39; distances" in page and "<image" not in page
    names = sorted(path.name for path in (folder / "stimuli").iterdir() if path.suffix == ".png")
    rows = "".join(f"{name}\t{name.split('-')[0]}\n" for name in names)
    (folder / "stimuli" / "stimuli.tsv").write_text("stimulus_id\tcategory\n" + rows)
    assert main(arguments(study, "group", "--stimulus-pictures")) == 0
    page = (tmp / "out" / "group.html").read_text()
    assert "grouped by category" in page and page.count("<image") == 2 * len(names)
    assert "% of the ceiling" in page.replace("\N{NO-BREAK SPACE}", " ") and "Which layers differ?" in page
    assert main(arguments(study, "participant", "--stimulus_pictures", "--reports-only")) == 0


@pytest.mark.usefixtures("undrawn")
def test_some_participants_and_another_metric(study):
    options = ["--participant-label", "02", "04", "--rdm-metric", "euclidean", "--rdm-comparison", "kendall_tau_a"]
    assert main(arguments(study, "participant", *options)) == 0
    out = study[1] / "out"
    assert {path.name for path in out.glob("sub-*.html")} == {"sub-02.html", "sub-04.html"}
    table = read_table(next(out.glob("sub-02/func/*_desc-rsa_results.tsv")))
    assert set(zip(table["metric"], table["comparison"], strict=True)) == {("euclidean", "kendall_tau_a")}


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--participant-label", "99"], 18, "they hold 01, 02"),
        (["--network", "none"], 2, "nothing to compare"),
        (["--atlas", "{file}"], 2, "leave out --atlas"),
        (["--rdm-metric", "crossnobis"], 2, "layers, which have no repeats"),
        (["--rdm-comparison", "spearmann"], 2, "did you mean spearman"),
        (["--rdm", "A={gaps}"], 65, "has gaps"),
        (["--rdm", "A={one}", "B={other}"], 65, "other.tsv: other stimuli than the first file; give one set for all"),
        (["--rdm", "A={small}"], 65, "23 stimuli without names, the stimuli folder has 24"),
    ],
)
def test_bad_input(study, capsys, options, status, message):
    tmp = study[1]
    with np.load(tmp / "IT.npz") as file:
        rdms = file["rdms"]
    np.save(tmp / "gaps.npy", np.where(rdms > np.quantile(rdms, 0.99), np.nan, rdms))
    np.save(tmp / "small.npy", rdms[:, 1:, 1:])
    shown = sorted(path.name for path in (study[0] / "stimuli").iterdir())
    for name, some in (("one", shown[:6]), ("other", shown[1:7])):
        rows = ["\t".join(f"{abs(i - j)}" for j in range(6)) for i in range(6)]
        (tmp / f"{name}.tsv").write_text("\n".join(["\t".join(some), *rows]) + "\n")
    names = {name: tmp / f"{name}.npy" for name in ("gaps", "small")}
    names |= {"file": tmp / "IT.npz", "one": tmp / "one.tsv", "other": tmp / "other.tsv"}
    assert main(arguments(study, "participant", *(option.format(**names) for option in options))) == status
    assert message in capsys.readouterr().err
