"""Regions and voxels as units of a network: against the fit written out in float64, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.brainlayer import brain_layer
from bidsdnn.cli import main
from bidsdnn.config import Config
from bidsdnn.encoding.models import build_encoder, features_of, taken_by
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.reduce import principal_scores, rotation
from bidsdnn.networks import zoo
from bidsdnn.patterns import Group, Patterns
from bidsdnn.probes.units import BrainUnit
from bidsdnn.readouts import on_units, unit_weights, weights_of
from bidsdnn.stimuli import load_image
from tests.conftest import ATLAS, without_pictures
from tests.test_predicted import MODEL, STEM, maps

UNITS = [BrainUnit.parse(text) for text in ("brain:late", "brain:early", "brain:early:2", "brain:middle")]


def config(finished, out, **more):
    return Config(
        bids_dir=finished.bids, out_dir=out, analysis_level="participant", network=("demo",),
        atlas=(finished.bids / ATLAS,), **more,
    )  # fmt: skip


def put_on(finished, out, units=UNITS, asked=(), **more):
    network = zoo.build("demo", weights="none", seed=0)
    out = Derivatives(out, {"raw": finished.bids})
    entities = {"sub": "01", "task": "objects", "space": "MNI152NLin2009cAsym"}
    return brain_layer(out, network, asked, units, config=config(finished, out.root, **more), entities=entities)


@pytest.fixture(scope="module")
def found(finished):
    return put_on(finished, finished.out)


def pictures(finished, found):
    ids = pd.read_csv(finished.out / "sub-01/func/sub-01_task-objects_desc-condition_trials.tsv", sep="\t")["stim_id"]
    return torch.stack([found.network.preprocess(load_image(finished.bids / "stimuli" / name)) for name in ids])


def by_units(out, seed):
    """Every layer's Ridge, fitted to all stimuli shown: its predictions for these, in float64 on the units."""
    ids = pd.read_csv(out / "sub-01" / "func" / "sub-01_task-objects_desc-condition_trials.tsv", sep="\t")["stim_id"]
    y, found = maps(out, "effect", "condition").astype(np.float32), {}
    with h5py.File(out / "stimuli" / f"{MODEL}_activations.h5") as shown:
        rows = [[name.decode() for name in shown["stim_id"]].index(one) for one in ids]
        for layer in (name for name in shown if "shape" in shown[name].attrs):
            x = shown[layer][:][rows].astype(np.float64)
            inner = rotation(x @ x.T)
            model = Ridge(seed=seed).fit(inner, y)
            found[layer] = x @ (x.T @ ((inner / (inner**2).sum(axis=0)) @ model.coef_)) + model.intercept_
    return found


def test_what_the_layer_gives_is_the_full_fit_of_each_unit_from_its_best_layer(finished, found):
    table = pd.read_csv(
        finished.out / "sub-01/func" / f"{STEM}_atlas-planted_{MODEL}_desc-encoding_results.tsv", sep="\t"
    )
    best = table.loc[table.groupby("region")["pearsonr"].idxmax()].set_index("region")
    about = found.sidecar["BrainUnits"]
    fitted = by_units(finished.out, json.loads(
        (finished.out / "sub-01/func" / f"{STEM}_{MODEL}_stat-pearsonr_desc-encoding_statmap.json").read_text()
    )["EncoderFit"]["Seed"])  # fmt: skip
    with torch.no_grad():
        given = found.network.module(pictures(finished, found)).numpy()
    names, r = (
        list(
            json.loads(
                (finished.out / "sub-01/func" / f"{STEM}_{MODEL}_stat-pearsonr_desc-encoding_statmap.json").read_text()
            )["Layers"]
        ),
        maps(finished.out, "pearsonr", "encoding"),
    )
    for unit in found.units:
        said = about[str(unit)]
        if str(unit).count(":") == 1:
            assert said["Layer"] == best.loc[str(unit).partition(":")[2], "layer"]
            assert said["PearsonR"] == pytest.approx(best.loc[str(unit).partition(":")[2], "pearsonr"], abs=1e-5)
        else:
            assert said["Layer"] == names[np.nanargmax(r[:, said["Columns"][0]])]
        expected = fitted[said["Layer"]][:, said["Columns"]].mean(axis=1)
        np.testing.assert_allclose(given[:, unit.channel], expected, atol=1e-4 * np.abs(expected).max())
    assert len(about["brain:early:2"]["Columns"]) == 1
    assert about["brain:early:2"]["Columns"][0] == about["brain:early"]["Columns"][2]


def test_the_gradient_reaches_the_pixels(finished, found):
    one = copy.deepcopy(found.network.module).double()
    # On uniform backgrounds the edges of the demo are exactly at the threshold of their ReLU, which has no slope there.
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (pictures(finished, found)[:1].double() + noise).requires_grad_()
    for unit in found.units:
        (gradient,) = torch.autograd.grad(one(x)[0, unit.channel], x)
        step = 1e-6 * gradient / gradient.norm()
        with torch.no_grad():
            apart = (one(x + step) - one(x - step))[0, unit.channel] / 2e-6
        assert float(apart) == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_layers_that_are_named_are_the_candidates(finished):
    one = put_on(finished, finished.out, asked=("conv2", "conv5"), layer=("conv2", "conv5"))
    assert {about["Layer"] for about in one.sidecar["BrainUnits"].values()} <= {"conv2", "conv5"}


def test_stored_weights_are_those_of_the_fit(finished, found, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.out, out, ignore=shutil.ignore_patterns("figures", "*.html"))
    func = out / "sub-01" / "func"
    about = json.loads((func / f"{STEM}_{MODEL}_stat-pearsonr_desc-encoding_statmap.json").read_text())
    (func / f"{STEM}_{MODEL}_desc-encoding_weights.json").write_text(
        json.dumps({"ConfigurationHash": about["ConfigurationHash"]})
    )
    rng, size = np.random.default_rng(0), maps(out, "pearsonr", "encoding").shape[1]
    with (
        h5py.File(out / "stimuli" / f"{MODEL}_activations.h5") as shown,
        h5py.File(func / f"{STEM}_{MODEL}_desc-encoding_weights.h5", "w") as file,
    ):
        ids = [name.decode() for name in shown["stim_id"]][::-1]
        file["stim_id"] = ids
        alpha = {layer: rng.standard_normal((len(ids), size)).astype(np.float32) for layer in about["Layers"]}
        for layer, values in alpha.items():
            file[f"alpha/{layer}"], file[f"intercept/{layer}"] = values, rng.standard_normal(size)
        one = put_on(finished, out)
        assert one.sidecar["Weights"] == "stored by the encoding" and one.content != found.content
        x = pictures(finished, one)
        order = pd.read_csv(func / "sub-01_task-objects_desc-condition_trials.tsv", sep="\t")["stim_id"]
        rows = [ids[::-1].index(name) for name in order]
        with torch.no_grad():
            given = one.network.module(x).numpy()
        for unit in one.units:
            said = one.sidecar["BrainUnits"][str(unit)]
            units = shown[said["Layer"]][:].astype(np.float64)
            full = units[rows] @ (units[::-1].T @ alpha[said["Layer"]]) + file[f"intercept/{said['Layer']}"][:]
            expected = full[:, said["Columns"]].mean(axis=1)
            np.testing.assert_allclose(given[:, unit.channel], expected, atol=1e-4 * np.abs(expected).max())


def test_components_over_all_stimuli_become_weights_on_units():
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((12, 40)), rng.standard_normal((5, 40))
    scores, _ = principal_scores(x, 4)
    theirs = PCA(4, svd_solver="full").fit(x)
    w, b = rng.standard_normal((4, 3)), rng.standard_normal(3)
    # In another order, joined by name.
    tables = [
        Patterns(pd.DataFrame({"stimulus_id": [f"s{i}" for i in order]}), (Group("conv", values[order]),))
        for order, values in ((np.arange(12)[::-1], x), (np.arange(12), scores))
    ]
    weights, intercept = on_units(*tables, w, b)
    sign = np.sign((theirs.transform(x) * scores).sum(axis=0))
    np.testing.assert_allclose(new @ weights + intercept, (theirs.transform(new) * sign) @ w + b, atol=1e-10)


def test_weights_of_any_linear_model_are_found():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 6)), rng.standard_normal((30, 2))
    model = Lasso(alpha=0.1).fit(x, y)  # scikit-learn keeps its weights the other way round
    weights, intercept = unit_weights(model, x)
    np.testing.assert_allclose(weights, model.coef_.T, atol=1e-12)
    np.testing.assert_allclose(intercept, model.intercept_)
    with pytest.raises(ValueError, match="KNeighborsRegressor is not linear"):
        unit_weights(KNeighborsRegressor(3).fit(x, y), x)


@pytest.mark.parametrize(
    ("units", "more", "kind", "said"),
    [
        (["brain:erly"], {}, ConfigError, "no region of --atlas is called 'erly'.*early"),
        (["brain:early:9999"], {}, ConfigError, "early has .* voxels; give one from 0 to"),
        (["brain:early"], {"pooling": "max"}, DataError, "other weights, inputs or reductions"),
        (["brain:early"], {"layer": ("relu",)}, ConfigError, "--layer relu: the encoding from demo"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(finished, units, more, kind, said):
    with pytest.raises(kind, match=said):
        put_on(finished, finished.out, [BrainUnit.parse(text) for text in units], more.get("layer", ()), **more)


def test_encoders_that_are_no_layer_are_refused(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.out, out, ignore=shutil.ignore_patterns("figures", "*.html"))
    path = out / "sub-01" / "func" / f"{STEM}_{MODEL}_stat-pearsonr_desc-encoding_statmap.json"
    about = json.loads(path.read_text())
    for encoder, parameters, said in (
        ("kernel-ridge", {"kernel": "rbf"}, "kernel-ridge is not linear"),
        ("banded-ridge", {}, "one model of several layers"),
    ):
        fit = {**about["EncoderFit"], "Parameters": parameters}
        path.write_text(json.dumps({**about, "Encoder": encoder, "EncoderFit": fit}))
        with pytest.raises(ConfigError, match=said):
            put_on(finished, out, UNITS[:1])
    # As banded ridge itself leaves it: the joint model stands before the layers' shares.
    path.write_text(json.dumps({**about, "Encoder": "banded-ridge", "Layers": ["joint", *about["Layers"]]}))
    with pytest.raises(ConfigError, match="banded-ridge is one model of several layers"):
        put_on(finished, out, UNITS[:1])
    path.unlink()
    path.with_suffix("").with_suffix(".nii.gz").unlink()
    with pytest.raises(MissingInputError, match="holds no encoding from demo"):
        put_on(finished, out, UNITS[:1])


@pytest.fixture(scope="module")
def probed(finished, tmp_path_factory):
    """A participant's regions, probed from the command line as units of a network are."""
    folder = tmp_path_factory.mktemp("probed")
    shutil.copytree(finished.out, folder / "out")
    (folder / "few.toml").write_text("[parameters.optimal-stimulus]\nsteps = 100\n")
    options = (
        *finished.options,
        "--analysis",
        "optimal-stimulus",
        "top-stimuli",
        "ablation",
        "--config-file",
        str(folder / "few.toml"),
    )
    options += ("--unit", "brain:early", "brain:middle", "brain:late", "brain:late:1")
    with without_pictures():
        assert (
            main([str(finished.bids), str(folder / "out"), "participant", "--participant-label", "01", *options]) == 0
        )
    return folder / "out"


def made(out, ending):
    return sorted((out / "sub-01" / "func").glob(f"*{ending}"))


def test_probes_take_regions_as_they_take_units(finished, found, probed):
    (path,) = made(probed, "desc-topstimuli_results.tsv")
    table = pd.read_csv(path, sep="\t").query("end == 'best' and rank == 1")
    ids = pd.read_csv(finished.out / "sub-01/func/sub-01_task-objects_desc-condition_trials.tsv", sep="\t")["stim_id"]
    with torch.no_grad():
        given = found.network.module(pictures(finished, found)).numpy()
    for unit in found.units:
        if str(unit) != "brain:early:2":
            row = table[table["channel"] == ["brain:early", "brain:middle", "brain:late"].index(str(unit))]
            assert row["stimulus_id"].tolist() == [ids[int(given[:, unit.channel].argmax())]]
            assert row["value"].iloc[0] == pytest.approx(given[:, unit.channel].max(), rel=1e-3)
    assert "brain:late:1" in (probed / "sub-01.html").read_text()


def test_a_planted_region_is_lost_with_the_layer_it_reads_and_with_those_before(probed):
    (path,) = made(probed, "desc-ablation_results.tsv")
    table = pd.read_csv(path, sep="\t").set_index(["cut", "layer"])
    reads = json.loads(path.with_suffix(".json").read_text())["BrainUnits"]
    order = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    assert list(dict.fromkeys(table.index.get_level_values("cut"))) == order
    for region, about in reads.items():
        assert np.isnan(table.loc[(about["Layer"], region), "pearsonr"])  # nothing varies any more
        for layer in order[order.index(about["Layer"]) + 1 :]:
            assert table.loc[(layer, region), "relative_change"] == 0
            assert table.loc[(layer, region), "pearsonr"] == pytest.approx(1)


def test_optimal_stimuli_of_planted_regions_are_what_was_planted(found, probed):
    (path,) = made(probed, "desc-optimalstimulus_results.tsv")
    table = pd.read_csv(path, sep="\t").set_index("unit")
    assert table["above_natural"].all() and len(table) == 4
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["BrainUnits"]["brain:early"]["Layer"] and "was put onto the network as a layer" in about["Methods"]
    share = {}
    for unit in found.units:
        if str(unit) == "brain:early:2":
            continue
        (png,) = made(probed, f"label-{unit.label}_{MODEL}_desc-optimalstimulus_picture.png")
        picture = load_image(png)
        grey = np.repeat(np.asarray(picture).mean(2, keepdims=True), 3, 2).astype(np.uint8)
        changed = (picture, *map(Image.fromarray, (grey, np.roll(np.asarray(picture), (32, 32), axis=(0, 1)))))
        with torch.no_grad():
            batch = torch.stack([found.network.preprocess(one) for one in changed])
            whole, *others = found.network.module(batch)[:, unit.channel].tolist()
        share[str(unit)] = np.array(others) / whole
    # Colour in its place drives the first region; texture and shape, wherever and in whatever colour, the others.
    assert max(share["brain:early"]) < 0.5
    for name in ("brain:middle", "brain:late"):
        assert share[name][0] > 0.95 and share[name][1] > 0.6, share


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [
        ("ridge", {}), ("ols", {}), ("ols", {"n_components": 5}), ("lasso", {}), ("elastic-net", {"n_components": 5}),
        ("pls", {"n_components": 2}), ("pls", {"n_components": 2, "scale_x": True}),
        ("kernel-ridge", {"kernel": "linear"}), ("unitwise", {}), ("sklearn.linear_model:Ridge", {"alpha": 3.0}),
    ],
)  # fmt: skip
def test_every_linear_encoder_has_weights_on_the_units(encoder, parameters):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 45 if "n_components" in parameters else 20))
    y = (x[:, :2] + 0.3 * rng.standard_normal((30, 2))).astype(np.float32)
    model = build_encoder(encoder, parameters, n_splits=5, seed=0, device="cpu", shuffle=True)
    group = Group("fc", x)
    features = features_of(model, group)
    model.fit(features, y)
    there = np.asarray(model.predict(features))
    weights, intercept = weights_of(model, group, features, np.ones(2, dtype=bool))
    np.testing.assert_allclose(x @ weights + intercept, there, atol=1e-5)
    if taken_by(model, group) != "rotation":  # stimuli that nobody saw, of models that are given units
        new = rng.standard_normal((4, x.shape[1]))
        np.testing.assert_allclose(new @ weights + intercept, model.predict(new), atol=1e-5)
