"""Networks of ONNX and Keras files: what their own runtimes give, layer by layer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.config import resolve_config
from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.networks import formats, zoo
from bidsdnn.networks.extract import extract
from bidsdnn.stimuli import Stimuli

PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(216, 5)
    ).eval()


@pytest.fixture
def exported(tmp_path) -> Path:
    for module in ("onnx", "onnx2torch"):
        pytest.importorskip(module)
    path = tmp_path / "model.onnx"
    axes = {"pictures": {0: "n"}}
    torch.onnx.export(net(), (PICTURES[:1],), path, dynamo=False, input_names=["pictures"], dynamic_axes=axes)
    return path


def outputs(network, pictures) -> dict[str, torch.Tensor]:
    seen = {}
    for layer in network.layers:
        module = network.module.get_submodule(layer)
        module.register_forward_hook(lambda m, i, o, layer=layer: seen.__setitem__(layer, o.clone()))
    with torch.inference_mode():
        network.module(pictures)
    return seen


def test_onnx(exported):
    network = zoo.build(str(exported))
    assert (network.name, network.weights, network.modality) == ("model.onnx", "own", "image")
    assert network.label == f"model+onnx+own+{network.weights_sha256[:8]}"
    assert network.preprocess(Image.new("RGB", (40, 30))).shape == (3, 16, 16)
    assert not [layer for layer in network.layers if "/" in layer or "." in layer]
    seen = outputs(network, PICTURES)
    expected = PICTURES
    for layer, step in zip(network.layers, net(), strict=True):
        expected = step(expected)
        torch.testing.assert_close(seen[layer], expected)
    assert network.canonical() == [network.layers[i] for i in (1, 3, 6)]
    given = NetworkInput(input_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    white = zoo.build(str(exported), given=given).preprocess(Image.new("RGB", (40, 30), "white"))
    assert white.unique().tolist() == [1.0]


def test_onnx_is_what_its_own_runtime_gives(exported):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"pictures": PICTURES.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(zoo.build(str(exported)).module(PICTURES).numpy(), expected, atol=1e-6)


def test_onnx_files_that_are_no_use(exported, tmp_path):
    with pytest.raises(ConfigError, match=r"'none' of model\.onnx: the file holds its own; say DEFAULT"):
        zoo.build(str(exported), weights="none")
    with pytest.raises(MissingInputError, match="check the path"):
        zoo.build(str(tmp_path / "absent.onnx"))
    (tmp_path / "broken.onnx").write_bytes(exported.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"broken\.onnx: not a readable ONNX file"):
        zoo.build(str(tmp_path / "broken.onnx"))
    torch.onnx.export(nn.Linear(3, 2), (torch.rand(1, 3),), tmp_path / "flat.onnx", dynamo=False)
    with pytest.raises(ConfigError, match="expected one input of shape"):
        zoo.build(str(tmp_path / "flat.onnx"))
    torch.onnx.export(nn.Conv2d(1, 2, 3), (torch.rand(1, 1, 8, 8),), tmp_path / "grey.onnx", dynamo=False)
    with pytest.raises(ConfigError, match="takes 1 channels of 8 x 8"):
        zoo.build(str(tmp_path / "grey.onnx"))


def test_names_of_files_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").touch()
    Path("folder").mkdir()
    asked = {"bids_dir": "in", "out_dir": "out", "analysis_level": "dnn"}
    config = resolve_config({**asked, "network": ["a=net.onnx", "hf:folder", "hf:some/where", "timm:resnet18.a1_in1k"]})
    assert config.network == (
        f"a={tmp_path}/net.onnx",
        f"hf:{tmp_path}/folder",
        "hf:some/where",
        "timm:resnet18.a1_in1k",
    )


@pytest.fixture
def keras():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not here")
    return formats._keras(Path("test"))


@pytest.fixture
def saved(tmp_path, keras) -> Path:
    pictures = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(pictures)
    x = keras.layers.BatchNormalization(name="norm")(x)
    y = keras.layers.Conv2D(4, 3, padding="same", name="side")(x)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(pictures, keras.layers.Dense(5, name="out")(x))
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_keras(saved, keras):
    network = zoo.build(str(saved))
    model = keras.saving.load_model(saved)
    assert network.layers[-6:] == ["first", "norm", "side", "sum", "pool", "out"]
    assert network.canonical() == ["first", "norm", "side", "sum", "pool", "out"]
    assert network.shapes(["first", "out"]) == {"first": ("Conv2D", (4, 14, 14)), "out": ("Dense", (5,))}
    seen = outputs(network, PICTURES)
    given = PICTURES.permute(0, 2, 3, 1)
    torch.testing.assert_close(seen["out"], model(given, training=False).detach())
    first = keras.Model(model.inputs, model.get_layer("sum").output)(given, training=False).detach()
    torch.testing.assert_close(seen["sum"], first.permute(0, 3, 1, 2))
    white = network.preprocess(Image.new("RGB", (20, 16), "white"))
    torch.testing.assert_close(white, torch.full((3, 16, 16), 255.0))


def test_keras_models_within_models_and_layers_called_twice(keras, tmp_path):
    steps = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="c"), keras.layers.ReLU()]
    base = keras.Sequential(steps, name="base")
    pictures = keras.Input((16, 16, 3))
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    x = shared(shared(base(pictures)))
    model = keras.Model(pictures, keras.layers.Dense(2, name="out")(keras.layers.Flatten(name="flat")(x)))
    model.save(tmp_path / "nested.keras")
    seen = outputs(zoo.build(str(tmp_path / "nested.keras")), PICTURES)
    given = PICTURES.permute(0, 2, 3, 1)
    inner = base(given)
    torch.testing.assert_close(seen["base"], inner.detach().permute(0, 3, 1, 2))
    torch.testing.assert_close(seen["shared"], shared(shared(inner)).detach().permute(0, 3, 1, 2))
    torch.testing.assert_close(seen["out"], model(given).detach())
    base.save(tmp_path / "sequential.keras")
    sequential = zoo.build(str(tmp_path / "sequential.keras"))
    assert sequential.canonical()[0] == "c"
    torch.testing.assert_close(outputs(sequential, PICTURES)[sequential.canonical()[1]], seen["base"])


@pytest.mark.parametrize("kind", ["exported", "saved"])
def test_files_are_extracted_in_threads_as_one_by_one(kind, request, tmp_path):
    network = zoo.build(str(request.getfixturevalue(kind)))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
    stimuli = Stimuli.from_folder(tmp_path / "pictures")
    for workers in (1, 3):
        extract(network, stimuli, network.canonical(), tmp_path / f"{workers}.h5", workers=workers, batch_size=2)
    given = torch.stack([network.preprocess(Image.fromarray(picture)) for picture in pixels])
    expected = outputs(network, given)
    with h5py.File(tmp_path / "1.h5") as one, h5py.File(tmp_path / "3.h5") as three:
        for layer in network.canonical():
            assert np.array_equal(one[layer][:], three[layer][:])
            np.testing.assert_allclose(one[layer][:], expected[layer].flatten(1).numpy(), atol=1e-5, rtol=1e-4)


def test_untrained_keras_networks_are_seeded(saved):
    one, same, other = (zoo.build(str(saved), weights="none", seed=seed) for seed in (1, 1, 2))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert (one.weights, one.seed, one.label) == ("none", 1, "model+keras+none+seed1")
    assert zoo.build(str(saved)).weights == "own"


def test_keras_files_that_are_no_use(saved, keras, tmp_path):
    with pytest.raises(ConfigError, match="say DEFAULT or none"):
        zoo.build(str(saved), weights="IMAGENET1K_V1")
    flat = keras.Input((8,))
    keras.Model(flat, keras.layers.Lambda(lambda t: t + 1)(flat)).save(tmp_path / "code.keras")
    with pytest.raises(DataError, match=r"code\.keras: refused, because reading it would run code"):
        zoo.build(str(tmp_path / "code.keras"))
    keras.Model(flat, keras.layers.Dense(2)(flat)).save(tmp_path / "flat.keras")
    with pytest.raises(ConfigError, match="expected a model of one input"):
        zoo.build(str(tmp_path / "flat.keras"))
    (tmp_path / "broken.keras").write_bytes(saved.read_bytes()[:500])
    with pytest.raises(DataError, match=r"broken\.keras: not a readable Keras file"):
        zoo.build(str(tmp_path / "broken.keras"))


def test_keras_files_of_the_older_kind(saved, keras):
    old = saved.with_suffix(".h5")
    model = keras.saving.load_model(saved)
    model.save(old)
    found = outputs(zoo.build(str(old)), PICTURES)["out"]
    torch.testing.assert_close(found, model(PICTURES.permute(0, 2, 3, 1), training=False).detach())


def test_another_backend_of_keras_is_refused(keras, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ConfigError, match="Keras runs on jax; set KERAS_BACKEND=torch"):
        formats._keras(Path("model.keras"))


def test_savedmodels_are_told_what_to_do(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    for name in (tmp_path, tmp_path / "saved_model.pb"):
        with pytest.raises(ConfigError, match=r"export it to ONNX .* or save it as \.keras"):
            zoo.build(str(name))


@pytest.mark.parametrize(("name", "module"), [("a.onnx", "onnx"), ("a.keras", "keras")])
def test_a_library_that_is_not_there_is_named(monkeypatch, tmp_path, name, module):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {module} .*pip install bidsdnn\[{module}\]"):
        zoo.build(str(tmp_path / name))


def test_no_library_is_imported_before_it_is_asked_for():
    extras = {"timm", "transformers", "open_clip", "onnx", "keras"}
    code = f"import sys, bidsdnn.networks.zoo; print({extras} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_exported_classifiers_are_their_originals(name, tmp_path):
    for module in ("onnx", "onnx2torch"):
        pytest.importorskip(module)
    original = zoo.build(name, weights="none")
    picture = original.preprocess(Image.effect_noise((300, 260), 60).convert("RGB"))[None]
    path, axes = tmp_path / "model.onnx", {"pictures": {0: "n"}}
    torch.onnx.export(
        original.module, (picture,), path, dynamo=False, opset_version=17, input_names=["pictures"], dynamic_axes=axes
    )
    network = zoo.build(str(path))
    with torch.inference_mode():
        expected = original.module(picture)
        torch.testing.assert_close(network.module(picture), expected, atol=1e-4, rtol=1e-3)
    assert 5 <= len(network.canonical()) <= 12
    assert list(network.shapes(network.canonical())) == network.canonical()


@pytest.mark.slow
def test_a_published_architecture_of_keras(keras, tmp_path):
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))
    model.save(tmp_path / "mobilenet.keras")
    network = zoo.build(str(tmp_path / "mobilenet.keras"))
    pictures = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(
            network.module(pictures), model(pictures.permute(0, 2, 3, 1), training=False).detach()
        )
    assert len(network.canonical()) == 12
