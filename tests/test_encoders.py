"""Encoders by name: what each is given, what is checked early, and planted truth found by all."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import BayesianRidge
from sklearn.linear_model import Ridge as SklearnRidge

from bidsdnn.analyses import encoding
from bidsdnn.cli import main
from bidsdnn.demo.dataset import LAYERS
from bidsdnn.encoding.models import build_encoder, check_encoder, features_of, taken_by
from bidsdnn.errors import ConfigError
from bidsdnn.methods.models import MODELS, Estimator
from bidsdnn.methods.reduce import gram, rotation
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

IDS = [f"s{i:02d}" for i in range(40)]
OPTIONS = {"regions": {"a": {"all": np.ones(6, dtype=bool)}}, "permutations": 19, "seed": 1, "map": serial}
CODE = """
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import BayesianRidge, LinearRegression
from sklearn.pipeline import make_pipeline

class Mean:
    takes = "units"
    def fit(self, X, Y):
        self.columns, self.mean = X.shape[1], Y.mean(axis=0)
    def predict(self, X):
        assert X.shape[1] == self.columns
        return np.tile(self.mean, (len(X), 1))

class Blind:
    def fit(self, X, Y):
        return self

def recipe(n_components=3):
    return make_pipeline(PCA(n_components), LinearRegression())

ready = BayesianRidge()
number = 3

def nothing():
    return 3
"""


def patterns(**values):
    items = pd.DataFrame({"stimulus_id": IDS})
    return Patterns(items, tuple(Group(name, value, "net") for name, value in values.items()))


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(size=(40, 90)), rng.normal(size=(40, 90))
    right[:, :3] *= 12
    y = (right[:, :3] @ rng.normal(size=(3, 6)) / 12 + rng.normal(size=(40, 6)) / 2).astype(np.float32)
    return patterns(right=right, wrong=wrong), Patterns(pd.DataFrame({"stimulus_id": IDS}), (Group("brain", y),))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path / "own.py"


@pytest.mark.parametrize("encoder", MODELS)
def test_every_encoder_finds_the_planted_layer(planted, encoder):
    result = encoding(*planted, encoder=encoder, **OPTIONS)
    table = result.tables["encoding"].set_index("layer")
    # Bands are tested together.
    tested = "joint" if encoder == "banded-ridge" else "right"
    assert table.loc["right", "pearsonr"] > 0.4 and table.loc[tested, "p"] == 0.05
    assert table.loc["wrong", "pearsonr"] < 0.2 and not table.loc["wrong", "p"] <= 0.05
    said = result.sidecar
    assert said["Encoder"] == encoder
    assert said["Features"]["net right"] == {"unitwise": "blocks"}.get(encoder, "rotation")
    assert set(said["References"]) & set(MODELS) <= {encoder}
    assert {"unitwise": "dnnbrain"}.get(encoder, encoder) in said["References"]
    chosen = {"ols": None, "unitwise": None, "pls": "number of components"}.get(encoder, "penalty")
    assert ("training part" in said["CrossValidation"]) == (chosen is not None)
    assert chosen is None or chosen in said["CrossValidation"]


def test_partial_least_squares_of_a_region_does_not_see_the_others(planted):
    x, y = planted
    first = np.arange(6) < 3
    both = {**OPTIONS, "regions": {"a": {"one": first, "two": ~first}}}
    alone = {**OPTIONS, "regions": {"a": {"one": np.ones(3, dtype=bool)}}}
    part = Patterns(y.items, (Group("brain", y.values[:, first]),))
    found, expected = encoding(x, y, encoder="pls", **both), encoding(x, part, encoder="pls", **alone)
    np.testing.assert_allclose(found.maps[0].values[:, first], expected.maps[0].values, rtol=1e-5)
    columns = ["layer", "pearsonr", "p"]
    pd.testing.assert_frame_equal(
        found.tables["encoding"].query("region == 'one'")[columns].reset_index(drop=True),
        expected.tables["encoding"][columns],
    )


def test_voxels_that_cannot_be_scored_are_counted(planted):
    x, y = planted
    values = y.values.copy()
    values[:, 0], values[3, 1] = 4.0, np.nan
    for encoder in MODELS:
        found = encoding(x, Patterns(y.items, (Group("brain", values),)), encoder=encoder, **OPTIONS)
        assert np.isnan(found.maps[0].values[:, :2]).all() and np.isfinite(found.maps[0].values[0, 2:]).all()
        assert found.sidecar["NumberOfVoxelsNotScored"] == 2
        assert (found.tables["encoding"]["n_voxels"] == 4).all()


def test_what_an_estimator_is_given(own):
    rng = np.random.default_rng(0)
    narrow, wide = Group("a", rng.normal(size=(20, 20))), Group("b", rng.normal(size=(20, 21)))
    unsaid, units = build_encoder("sklearn.linear_model.BayesianRidge", {}), build_encoder(f"{own}:Mean", {})
    assert [taken_by(unsaid, group) for group in (narrow, wide)] == ["units", "rotation"]
    assert [taken_by(units, group) for group in (narrow, wide)] == ["units", "units"]
    np.testing.assert_array_equal(features_of(unsaid, narrow), narrow.values)
    np.testing.assert_array_equal(features_of(unsaid, wide), rotation(gram(wide.values)[0]))
    np.testing.assert_array_equal(features_of(units, wide), wide.values)


def test_single_targets_are_fitted_one_by_one_and_many_at_once():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 5))
    y[:, 1], y[2, 3] = 4.0, np.nan
    for name, theirs in (("BayesianRidge", BayesianRidge), ("Ridge", SklearnRidge)):
        model = build_encoder(f"sklearn.linear_model.{name}", {})
        predicted = model.fit(x, y).predict(x[:7])
        for one in (0, 2, 4):
            np.testing.assert_allclose(predicted[:, one], theirs().fit(x, y[:, one]).predict(x[:7]), rtol=1e-9)
        np.testing.assert_array_equal(predicted[:, 1], 4)
        assert np.isnan(predicted[:, 3]).all()
    np.testing.assert_allclose(model.fit(x[:, :0], y[:, :1]).predict(x[:, :0]), y[:, 0].mean())


def test_classes_instances_factories_and_their_parameters(own):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.normal(size=(30, 2))
    for name, parameters in ((f"{own}:recipe", {"n_components": 2}), (f"{own}:ready", {}), (f"{own}:Mean", {})):
        check_encoder(name, parameters)
        model = build_encoder(name, parameters)
        assert isinstance(model, Estimator) and model.fit(x, y).predict(x).shape == (30, 2)
    assert build_encoder(f"{own}:recipe", {"n_components": 2}).estimator[0].n_components == 2
    forest = build_encoder("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 3}, seed=7)
    np.testing.assert_array_equal(forest.fit(x, y).predict(x), forest.fit(x, y).predict(x))
    assert forest.fitted_[0][0].random_state == 7


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ridgee", {}, "'ridgee' is not known; did you mean ridge"),
        ("sklearn.linear_model.Bayesian", {}, "sklearn.linear_model has no 'Bayesian'; did you mean BayesianRidge"),
        ("sklearn.nowhere.Ridge", {}, "cannot import 'sklearn.nowhere'"),
        ("sklearn.preprocessing.StandardScaler", {}, "it has no method `predict`; give a class with fit"),
        ("OWN:Blind", {}, "it has no method `predict`"),
        ("OWN:number", {}, "it has no method `fit`"),
        ("OWN:nothing", {}, "it has no method `fit`"),
        ("OWN:ready", {"tol": 1.0}, "it is made already"),
        ("OWN:recipe", {"components": 1}, "has no parameter 'components'; did you mean n_components"),
        ("ridge", {"penalty": 1.0}, "encoder ridge has no parameter 'penalty'; did you mean penalties"),
        ("ridge", {"penalties": [-1.0]}, r"\[parameters.ridge\] penalties: expected positive numbers"),
        ("ols", {"n_components": 0}, r"\[parameters.ols\] n_components: expected at least 1, got 0"),
        ("ols", {"n_components": "many"}, r"\[parameters.ols\]"),
    ],
)
def test_what_cannot_be_an_encoder_is_named_early(own, name, parameters, message):
    with pytest.raises(ConfigError, match=message) as raised:
        check_encoder(name.replace("OWN", str(own)), parameters)
    assert "\n" not in str(raised.value)


def test_predictions_of_another_shape_are_named():
    class Wrong:
        def fit(self, X, Y):
            return self

        def predict(self, X):
            return X[:, :1]

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.normal(size=(30, 2))
    with pytest.raises(ValueError, match=r"Wrong: expected predictions of shape \(30, 2\), got \(30, 1\)"):
        Estimator(Wrong()).fit(x, y).predict(x)


def test_the_examples_of_the_page_run(finished, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
    (name, code), *_ = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S)
    (tmp_path / name).write_text(code)
    net, dotted = re.findall(r"```toml\n(.*?)```", text, flags=re.S)
    monkeypatch.chdir(tmp_path)
    check_encoder("my_encoder.py:recipe", {"n_components": 2})
    values = tomllib.loads(net)
    check_encoder(values["encoder"], values["parameters"][values["encoder"]])
    (tmp_path / "c.toml").write_text(dotted)
    # Responses and activations are there: only the encoding is new.
    out = shutil.copytree(finished.out, tmp_path / "out")
    options = [*finished.options[:-4], "--nprocs", "1", "--analysis", "encoding", "--participant-label", "01"]
    argv = [str(finished.bids), str(out), "participant", *options, "--config-file", str(tmp_path / "c.toml")]
    assert main(argv) == 0
    sidecar = json.loads(next(out.glob("sub-01/func/*desc-encoding_results.json")).read_text())
    assert sidecar["Encoder"] == tomllib.loads(dotted)["encoder"]
    assert "KNeighborsRegressor was fitted to all targets at once." in sidecar["Methods"]
    assert "ridge" not in sidecar["References"]
    assert sidecar["Permutations"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["pls", "lasso"])
def test_the_layers_of_the_demo_are_found(finished, tmp_path, encoder):
    out = shutil.copytree(finished.out, tmp_path / "out")
    options = [*finished.options, "--analysis", "encoding", "--encoder", encoder, "--participant-label", "01"]
    assert main([str(finished.bids), str(out), "participant", *options]) == 0
    scores = pd.read_table(next(out.glob("sub-01/func/*atlas-planted*desc-encoding_results.tsv")))
    best = scores.loc[scores.groupby("region")["pearsonr"].idxmax()].set_index("region")
    for region, layer in LAYERS.items():
        if layer is None:
            continue
        assert best.loc[region, "layer"] == layer
        assert best.loc[region, "pearsonr"] > 0.3 and best.loc[region, "p"] == pytest.approx(1 / 201)
    none = scores[scores["region"] == "none"]
    assert (none["pearsonr"] < 0.1).all() and (none["p"] > 0.01).all()


def test_banded_ridge_finds_the_layers_of_the_demo(finished, tmp_path, undrawn):
    out = shutil.copytree(finished.out, tmp_path / "out")
    options = [*finished.options, "--analysis", "encoding", "--encoder", "banded-ridge", "--participant-label", "01"]
    assert main([str(finished.bids), str(out), "participant", *options]) == 0
    scores = pd.read_table(next(out.glob("sub-01/func/*atlas-planted*desc-encoding_results.tsv")))
    joint = scores[scores["layer"] == "joint"].set_index("region")
    shares = scores[scores["layer"] != "joint"].pivot_table(index="region", columns="layer", values="pearsonr")
    for region, layer in LAYERS.items():
        if layer is not None:
            assert shares.loc[region].idxmax() == layer
            assert joint.loc[region, "pearsonr"] > 0.3 and joint.loc[region, "p"] == pytest.approx(1 / 201)
    assert joint.loc["none", "pearsonr"] < 0.1 and joint.loc["none", "p"] > 0.05


def test_regions_can_have_an_encoder_of_their_own(planted):
    own = {"n_components": 2}
    both = encoding(*planted, encoder="ols", region_encoder="pls", region_encoder_parameters=own, **OPTIONS)
    voxels, regions = (
        encoding(*planted, encoder="ols", **OPTIONS),
        encoding(*planted, encoder="pls", encoder_parameters=own, **OPTIONS),
    )
    for name in ("encoding", "encodingfolds"):
        pd.testing.assert_frame_equal(both.tables[name], regions.tables[name])
    pd.testing.assert_frame_equal(both.tables["bestlayer"], voxels.tables["bestlayer"])
    for ours, theirs in zip(both.maps, voxels.maps, strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
    assert both.sidecar["RegionEncoder"] == "pls" and {"ols", "pls"} <= set(both.sidecar["References"])
