"""Models of a group on a small output written here: planted layers, plain loops, what leaks, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from bidsdnn.bids.arrays import write_activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table, write_json
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.checking import check_configuration
from bidsdnn.cli import main
from bidsdnn.conditions import write_conditions
from bidsdnn.config import resolve_config
from bidsdnn.errors import ConfigError, MissingInputError
from bidsdnn.folding import folding
from bidsdnn.groupmodels import group_models
from bidsdnn.groupmodels.people import most_shared
from bidsdnn.parallel import seed_for, serial, workers
from bidsdnn.patterns import Group, Patterns
from bidsdnn.spaces import Volume
from bidsdnn.study import Study

IDS = [f"s{number:02d}.png" for number in range(30)]
LAYERS = {name: np.random.default_rng(seed).standard_normal((30, 4)) for seed, name in enumerate(("l1", "l2", "l3"))}
PEOPLE = ("01", "02", "03", "04")
# Two columns of twelve voxels each for two layers and for none, and a column outside of the mask of some.
REGIONS = {"first": slice(0, 12), "last": slice(12, 24), "none": slice(24, 36)}
DRIVEN = {"first": "l1", "last": "l3", "none": None}
KIND = np.where(LAYERS["l3"][:, 0] > 0, "a", "b")


def responses(label, *, alike=0.8, noise=0.4):
    """One person's responses, stimuli x voxels: partly those of the same voxel in all."""
    common, own = np.random.default_rng(9), np.random.default_rng(int(label))
    values = np.zeros((30, 36))
    for name, where in REGIONS.items():
        weights = [rng.standard_normal((4, 12)) for rng in (common, own)]
        if DRIVEN[name]:
            mixed = np.sqrt(alike) * weights[0] + np.sqrt(1 - alike) * weights[1]
            values[:, where] = LAYERS[DRIVEN[name]] @ mixed / 2
    return values + noise * own.standard_normal(values.shape)


def write_person(out, label, values, ids=IDS, *, space="MNI", known=True, shape=(10, 4, 1)):
    """What the participant level leaves of one person."""
    mask = np.arange(np.prod(shape)).reshape(shape) < 36
    entities = {"sub": label, "task": "see", "space": space}
    volume = Volume(mask, np.eye(4))
    items = pd.DataFrame({"stimulus_id": ids, "n_repeats": 2})
    patterns = Patterns(items, (Group("brain", values.astype(np.float32)),), volume)
    reliable = np.full(36, 0.64 if known else np.nan, dtype=np.float32)
    write_conditions(out, volume, entities, patterns, reliable, {}, units="z")
    table = {name: np.isin(np.arange(36), np.arange(36)[where]) for name, where in REGIONS.items()}
    out.write_atlas("areas", table, volume, **entities)
    rows = pd.DataFrame({"layer": list(LAYERS), "region": "first", "pearsonr": 0.5})
    path = out.path("results", ".tsv", **entities, atlas="areas", model="net", desc="encoding")
    out.write_table(path, rows, {"Layers": list(LAYERS), "Activations": {"net": {"NetworkHash": "x"}}})


def write_output(root, people=PEOPLE, **how):
    """An output folder of several people, and a network's activations."""
    out = Derivatives(root)
    for label in people:
        write_person(out, label, responses(label), **how)
    path = root / "stimuli" / "model-net_activations.h5"
    path.parent.mkdir(exist_ok=True, parents=True)
    # Other stimuli and another order than the people's.
    order = np.random.default_rng(0).permutation(30)
    write_activations(path, {name: layer[order] for name, layer in LAYERS.items()}, [IDS[row] for row in order])
    sidecar = {"Network": "net", "NetworkName": "mynet", "NetworkHash": "x", "Layers": list(LAYERS), "Stimuli": {}}
    write_json(path.with_suffix(".json"), sidecar)
    kinds = pd.DataFrame({"stimulus_id": IDS, "kind": KIND})
    kinds.to_csv(root / "kinds.tsv", sep="\t", index=False)
    return out


def study(out, map=serial, **options):
    values = {
        "bids_dir": str(out.root / "bids"), "out_dir": str(out.root), "analysis_level": "group",
        "permutations": 60, "cv": "kfold:5", **options,
    }  # fmt: skip
    config = resolve_config(values)
    index = StimulusIndex(out.root / "pictures")
    return Study(config, SimpleNamespace(), out, [], index, None, print, map)


def run(out, *models, people=PEOPLE, map=serial, **options):
    return group_models(study(out, map, group_model=models, **options), people)


def table(out, desc, *, model="net"):
    middle = f"_model-{model}" if model else ""
    (path,) = (out.root / "group").glob(f"*_atlas-areas{middle}_desc-{desc}_results.tsv")
    return read_table(path)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return write_output(tmp_path_factory.mktemp("group") / "out").root


@pytest.fixture
def out(template, tmp_path):
    """An output that a test may change."""
    shutil.copytree(template, tmp_path / "out")
    return Derivatives(tmp_path / "out")


@pytest.fixture(scope="module")
def all_models(template, tmp_path_factory):
    """All models and analyses, fitted once."""
    root = tmp_path_factory.mktemp("models") / "out"
    shutil.copytree(template, root)
    out = Derivatives(root)
    said = run(
        out, "averaged", "stacked", "cross-participant", analysis=["encoding", "rsa", "decoding"],
        target=[f"kind={root / 'kinds.tsv'}"], decoder="lda", rdm_comparison=["spearman"],
    )  # fmt: skip
    return out, said


@pytest.mark.parametrize("model", ["Averaged", "Stacked", "Crossparticipant"])
def test_planted_layers_are_found(all_models, model):
    out, said = all_models
    assert said == []
    rows = table(out, f"encoding{model}").set_index(["region", "layer"])
    for region, layer in (("first", "l1"), ("last", "l3")):
        assert rows.loc[region]["pearsonr"].idxmax() == layer
        best = rows.loc[(region, layer)]
        assert best["pearsonr"] > 0.5 and best["p_fwe"] == pytest.approx(1 / 61)
    assert rows.loc["none"]["pearsonr"].abs().max() < 0.15 and rows.loc["none"]["p_fwe"].min() > 0.05
    decoded = table(out, f"decoding{model}", model="").set_index("region")
    assert decoded.loc["last", "balanced_accuracy"] > 0.65 and decoded.loc["last", "p"] <= 0.05
    assert decoded.loc["none", "balanced_accuracy"] < 0.65
    rsa = table(out, f"rsa{model}").set_index(["region", "layer"])["similarity"]
    if model == "Crossparticipant":
        assert rsa["first", "weighted"] > 0.4 and rsa["last", "weighted"] > 0.4 and rsa["none", "weighted"] < 0.2
    else:
        assert rsa["first"].idxmax() == "l1" and rsa["last"].idxmax() == "l3"


def test_averages_and_stacks_are_of_all_people(all_models):
    out, _ = all_models
    assert (table(out, "encodingAveraged")["n_voxels"] == 12).all()
    assert (table(out, "encodingStacked")["n_voxels"] == 48).all()
    sidecar = json.loads(next((out.root / "group").glob("*_space-MNI_desc-encodingAveraged_results.json")).read_text())
    assert sidecar["Participants"] == list(PEOPLE) and sidecar["NumberOfStimuli"] == 30
    assert "participants were not" in sidecar["Methods"] and "reliability of the mean" in sidecar["Ceiling"]
    # The mean's noise is a quarter of one person's: .36 of each one's variance, over 16, four times.
    values = np.array([responses(label) for label in PEOPLE])
    noise = 0.36 * values.var(axis=1).sum(axis=0) / 16
    expected = np.sqrt(1 - noise / values.mean(axis=0).var(axis=0))[:12].mean()
    first = table(out, "encodingAveraged").query("region == 'first'")
    assert first["ceiling"].iloc[0] == pytest.approx(expected, abs=1e-4)
    assert table(out, "encodingStacked")["ceiling"].iloc[0] == pytest.approx(0.8)
    name = "tpl-MNI/func/tpl-MNI_task-see_model-net_stat-{}_statmap.nii.gz"
    assert nib.load(out.root / name.format("pearsonr_desc-encodingAveraged")).shape == (10, 4, 1, 3)
    assert nib.load(out.root / name.format("mean_desc-encodingCrossparticipant")).shape == (10, 4, 1, 3)
    assert not list(out.root.glob("tpl-MNI/func/*Stacked*"))


def test_each_person_is_predicted_as_in_plain_loops(out):
    run(out, "cross-participant", analysis=["encoding"], encoder="ols", permutations=1)
    found = table(out, "encodingpeopleCrossparticipant").set_index(["layer", "region", "participant"])["pearsonr"]
    seed = seed_for(0, "group", "cross-participant")
    splits = folding(pd.DataFrame({"stimulus_id": IDS}), cv="kfold:5", permutations=1, seed=seed).splits
    tables = {label: responses(label).astype(np.float32).astype(float) for label in PEOPLE}
    for layer, label in (("l1", "02"), ("l3", "04")):
        x, own = LAYERS[layer], tables[label]
        others = np.mean([one for other, one in tables.items() if other != label], axis=0)
        scores = []
        for voxel in range(36):
            a, b = np.zeros(30), np.zeros(30)
            for train, test in splits:
                fit = LinearRegression().fit(x[train], others[train, voxel])
                guess = fit.predict(x[test]) - others[train, voxel].mean()
                a[test], b[test] = guess / np.sqrt((guess**2).mean()), own[test, voxel] - own[train, voxel].mean()
            scores.append(np.corrcoef(a, b)[0, 1])
        for region, where in REGIONS.items():
            assert found[layer, region, label] == pytest.approx(np.mean(scores[where]), abs=1e-5)


def test_labels_are_told_as_in_plain_loops(out):
    said = run(
        out, "cross-participant", analysis=["decoding"], target=[f"kind={out.root / 'kinds.tsv'}"],
        decoder="sklearn.naive_bayes:GaussianNB", permutations=1, cv=f"column:part={_parts(out)}",
    )  # fmt: skip
    assert said == []
    found = table(out, "decodingpeopleCrossparticipant", model="").set_index(["region", "participant"])
    train, test = np.arange(20), np.arange(20, 30)
    tables = {label: responses(label).astype(np.float32).astype(float) for label in PEOPLE}
    for label in PEOPLE:
        rows = np.concatenate([one[train][:, 12:24] for other, one in tables.items() if other != label])
        scaler = StandardScaler().fit(rows)
        fit = GaussianNB().fit(scaler.transform(rows), np.tile(KIND[train], 3))
        right = fit.predict(scaler.transform(tables[label][test][:, 12:24])) == KIND[test]
        expected = np.mean([right[KIND[test] == one].mean() for one in "ab"])
        assert found.loc[("last", label), "balanced_accuracy"] == pytest.approx(expected)


def _parts(out):
    path = out.root / "parts.tsv"
    parts = np.where(np.arange(30) < 20, "train", "test")
    pd.DataFrame({"stimulus_id": IDS, "part": parts}).to_csv(path, sep="\t", index=False)
    return path


def test_nothing_fitted_has_seen_the_person_or_the_stimuli_it_is_judged_by(out):
    options = {
        "analysis": ["encoding", "decoding"], "cv": f"column:part={_parts(out)}", "permutations": 1,
        "target": [f"kind={out.root / 'kinds.tsv'}"], "decoder": "lda",
    }  # fmt: skip

    def scores():
        run(out, "cross-participant", **options)
        encoded, decoded = (
            table(out, f"{name}peopleCrossparticipant", model=model)
            for name, model in (("encoding", "net"), ("decoding", ""))
        )
        encoded = encoded.set_index(["participant", "layer", "region"])["pearsonr"]
        return encoded, decoded.set_index(["participant", "region"])["balanced_accuracy"]

    before = scores()
    noise = np.random.default_rng(0).standard_normal((30, 36)) * 3
    changed = responses("02")
    changed[:20] = noise[:20]
    write_person(out, "02", changed)
    of_training = scores()
    # What the person left out did at training stimuli is for others to learn from.
    for old, new in zip(before, of_training, strict=True):
        assert new["02"].to_numpy() == pytest.approx(old["02"].to_numpy(), abs=1e-6)
        assert not np.allclose(new["03"], old["03"])
    changed[20:] = noise[20:]
    write_person(out, "02", changed)
    of_tested = scores()
    for old, new in zip(of_training, of_tested, strict=True):
        assert new["03"].to_numpy() == pytest.approx(old["03"].to_numpy(), abs=1e-6)
        assert not np.allclose(new["02"], old["02"])


def elsewhere(function, items, *, label=""):
    """What workers do, in another order: each piece of work travels and knows of no other."""
    found = [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item))) for item in reversed(items)]
    return found[::-1]


@contextmanager
def travelling(n):
    yield serial if n == 1 else elsewhere


@pytest.mark.parametrize("spread", [travelling, pytest.param(workers, marks=pytest.mark.slow)])
def test_jobs_change_no_byte(template, tmp_path, spread):
    found = []
    for n in (1, 2):
        shutil.copytree(template, tmp_path / str(n))
        out = Derivatives(tmp_path / str(n))
        with spread(n) as map:
            run(out, "averaged", "cross-participant", map=map, analysis=["encoding"], permutations=20)
        files = sorted([*(out.root / "group").iterdir(), *(out.root / "tpl-MNI" / "func").iterdir()])
        found.append({path.name: path.read_bytes() for path in files if path.suffix != ".json"})
    assert len(found[0]) > 10 and found[0] == found[1]


def test_what_is_there_is_not_fitted_again(out, caplog):
    options = {"analysis": ["encoding"], "permutations": 5}
    run(out, "averaged", "cross-participant", **options)
    before = {path: path.stat().st_mtime_ns for path in (out.root / "group").iterdir()}
    caplog.set_level("INFO")
    run(out, "averaged", "cross-participant", **options)
    assert before == {path: path.stat().st_mtime_ns for path in (out.root / "group").iterdir()}
    assert "group, averaged: encoding is up to date" in caplog.text
    assert "group, cross-participant: encoding is up to date" in caplog.text


def test_own_spaces_are_joined_by_region(tmp_path):
    out = write_output(tmp_path / "out", people=PEOPLE[:3], space="T1w", known=False)
    said = run(
        out, "averaged", "stacked", "cross-participant", people=PEOPLE[:3], analysis=["encoding", "rsa"],
        permutations=20, rdm_comparison=["spearman"],
    )  # fmt: skip
    assert any("Each participant has a T1w space of their own" in one for one in said)
    assert any("rsa has no averaged model of the group: a region's mean has no geometry" in one for one in said)
    assert (table(out, "encodingAveraged")["n_voxels"] == 1).all()
    assert (table(out, "encodingCrossparticipant")["n_voxels"] == 1).all()
    assert (table(out, "encodingStacked")["n_voxels"] == 36).all()
    assert not list(out.root.glob("tpl-*"))
    rows = table(out, "encodingCrossparticipant").set_index(["region", "layer"])["pearsonr"]
    assert rows["first"].idxmax() == "l1" and rows["last"].idxmax() == "l3"
    assert table(out, "rsaStacked")["similarity"].notna().all() and len(table(out, "rsaCrossparticipant")) == 3
    sidecar = json.loads(next((out.root / "group").glob("*_desc-encodingAveraged_results.json")).read_text())
    assert "Cronbach" in sidecar["Ceiling"] and "cronbach" in sidecar["References"]


def test_other_grids_leave_regions(out):
    write_person(out, "02", responses("02"), shape=(12, 3, 1))
    said = run(out, "averaged", "stacked", analysis=["encoding"], permutations=5)
    assert "There is no common space" in said[0] and "columns are regions' means" in said[0]
    assert (table(out, "encodingAveraged")["n_voxels"] == 1).all()
    assert (table(out, "encodingStacked")["n_voxels"] == 48).all()


def test_a_damaged_map_is_named(out):
    path = out.root / "sub-02" / "func" / "sub-02_task-see_space-MNI_stat-effect_desc-condition_statmap.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MissingInputError, match=r"nothing could be fitted: averaged: .*sub-02_task-see"):
        run(out, "averaged", analysis=["encoding"])


@pytest.mark.parametrize("encoder", ["pls", "sklearn.linear_model.LinearRegression"])
def test_encoders_that_are_not_linear_in_the_targets_predict_across_people(out, encoder):
    assert run(out, "cross-participant", analysis=["encoding"], encoder=encoder, permutations=19) == []
    rows = table(out, "encodingCrossparticipant").set_index(["region", "layer"])
    for region, layer in (("first", "l1"), ("last", "l3")):
        assert rows.loc[region]["pearsonr"].idxmax() == layer and rows.loc[(region, layer), "p_fwe"] == 0.05


def test_all_layers_as_one_model_predict_no_one_across_people(out):
    with pytest.raises(MissingInputError, match="--encoder banded-ridge is one model of all layers"):
        run(out, "cross-participant", analysis=["encoding"], encoder="banded-ridge", permutations=5)


def test_stimuli_that_all_saw_are_used(out):
    write_person(out, "03", responses("03")[5:], IDS[5:])
    write_person(out, "04", responses("04")[:4], IDS[:4])
    said = run(out, "averaged", analysis=["encoding"], people=(*PEOPLE, "05"), permutations=5)
    assert said[:2] == [
        "sub-05 has no responses in task see, space MNI and was left out.",
        "sub-04 shares too few stimuli with the others and was left out.",
    ]
    assert "the 25 that all of them saw are used" in said[2]
    sidecar = json.loads(next((out.root / "group").glob("*MNI_desc-encodingAveraged_results.json")).read_text())
    assert sidecar["NumberOfStimuli"] == 25 and sidecar["Participants"] == ["01", "02", "03"]
    assert sidecar["Omitted"][:3] == said[:3]


def test_who_leaves_most_to_the_others_is_left_out_first():
    few = {"1": "abcdef", "2": "abcdeg", "3": "abxyzw", "4": "abcd"}
    assert most_shared(few, fewest=4) == (["1", "2", "4"], ["a", "b", "c", "d"])
    assert most_shared(few, fewest=5) == (["1", "2"], ["a", "b", "c", "d", "e"])
    assert most_shared({"1": "ab", "2": "cd", "3": "ef"}, fewest=1) == (["1", "2"], [])


def test_what_cannot_be_fitted_is_said(out):
    with pytest.raises(MissingInputError, match="only sub-01 has responses; a model of a group needs two"):
        run(out, "averaged", people=["01"], analysis=["encoding"])
    with pytest.raises(MissingInputError, match="holds no responses; run the participant level first"):
        run(out, "averaged", people=["09"], analysis=["encoding"])
    said = run(out, "averaged", "cross-participant", analysis=["encoding", "rsa", "similarity"],
               cv="leave-one-run-out", permutations=5, parameters={"rsa": {"folds": "run"}})  # fmt: skip
    assert said[0].startswith("--cv leave-one-run-out: participants together have no runs")
    assert "similarity has no cross-participant model of the group" in said[-1]
    (out.root / "stimuli" / "model-net_activations.h5").unlink()
    with pytest.raises(MissingInputError, match=r"net was left out: stimuli/model-net_activations\.h5 is not there"):
        run(out, "averaged", "cross-participant", analysis=["encoding"])
    for label in ("03", "04"):
        shutil.rmtree(out.root / f"sub-{label}")
    write_person(out, "02", responses("02"), [f"other{number}.png" for number in range(30)])
    with pytest.raises(MissingInputError, match="participants share 0 stimuli; models of a group need 10"):
        run(out, "averaged", people=["01", "02"], analysis=["encoding"])


def test_networks_that_were_not_asked_for_are_left_out(out):
    with pytest.raises(MissingInputError, match="no averaged model of the group: there are no activations"):
        run(out, "averaged", analysis=["encoding"], network=["resnet18"])
    assert run(out, "averaged", analysis=["rsa"], network=["mynet"], permutations=5) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": ["none"], "analysis": ["encoding"]}, "--group-model with --network none: encoding needs layers"),
        ({"rdm": {"a": "a.npz"}}, "RDMs of --rdm hold no responses"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_group_only(out, options, says):
    values = {"bids_dir": str(out.root), "out_dir": str(out.root / "derivatives" / "x"), "group_model": ["averaged"]}
    with pytest.raises(ConfigError, match=says):
        check_configuration(resolve_config({**values, **options, "analysis_level": "group"}))
    with pytest.raises(ConfigError, match=r"group_model\.0"):
        resolve_config({**values, "group_model": ["mean"], "analysis_level": "group"})


def test_the_group_level_fits_them_and_its_report_is_written(finished, tmp_path, undrawn, capsys):
    root = tmp_path / "bidsdnn"
    shutil.copytree(finished.out, root)
    options = [*finished.options, "--analysis", "encoding", "rsa", "--cv", "kfold:4", "--rdm-comparison", "spearman"]
    asked = ["--group-model", "averaged", "stacked", "cross-participant", "--permutations", "20"]
    assert main([str(finished.bids), str(root), "group", *options, *asked]) == 0
    for desc in ("encodingAveraged", "encodingStacked", "encodingCrossparticipant", "rsaCrossparticipant"):
        (path,) = (root / "group").glob(f"*_atlas-planted_*_desc-{desc}_results.tsv")
        assert len(read_table(path))
    page = (root / "group.html").read_text(encoding="utf-8")
    for title in ("Participants&#39; averaged responses: encoding", "From some participants to another one: encoding"):
        assert title in page[page.index('id="models-title"') :]
    (root / "stimuli" / "model-demo+none+seed0_activations.h5").unlink()
    options += ["--analysis", "encoding", *asked[:2]]
    assert main([str(finished.bids), str(root), "group", *options]) == 1
    assert "nothing could be fitted: demo+none+seed0 was left out" in capsys.readouterr().err
