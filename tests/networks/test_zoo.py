"""The zoo: every way to name a network and its weights, and every way to get it wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.networks import weights as files
from bidsdnn.networks import zoo
from bidsdnn.networks.network import MAX_CANONICAL
from bidsdnn.networks.shortlists import short_names

SMALLEST = ["demo", "alexnet", "squeezenet1_1", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet"]
SMALLEST += ["r3d_18", "cornet_z", "cornet_rt", "cornet_s", "vggish"]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty TORCH_HOME, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "home"


def test_the_table_has_all_of_torchvisions_classifiers_and_the_demo():
    assert len(zoo.NETWORKS) >= 81
    assert {"demo", "alexnet", "vit_h_14", "resnet50"} <= set(zoo.NETWORKS)
    assert {"r3d_18", "mc3_18", "r2plus1d_18", "mvit_v2_s", "swin3d_t", "s3d"} <= set(zoo.NETWORKS)
    assert not {"fasterrcnn_resnet50_fpn", "fcn_resnet50", "raft_small"} & set(zoo.NETWORKS)
    assert not [name for name in zoo.NETWORKS if "quantized" in name]


def test_every_set_of_published_weights_can_be_asked_for():
    for name in ("resnet50", "vit_h_14", "s3d"):
        assert set(zoo.published(name)) == {entry.name for entry in models.get_model_weights(name)}
    assert next(iter(zoo.published("resnet50"))) == "IMAGENET1K_V2"
    assert list(zoo.published("cornet_s")) == ["IMAGENET1K"]
    assert zoo.published("demo") == zoo.published("vggish") == {}


def check_untrained(name: str) -> None:
    network = zoo.build(name, weights="none", seed=1)
    assert (network.weights, network.seed, network.module.training) == ("none", 1, False)
    assert network.label == name.replace("_", "+") + "+none+seed1"
    shapes = network.shapes(network.canonical())
    assert 5 <= len(shapes) <= MAX_CANONICAL
    assert list(shapes) == network.canonical()
    assert all(np.prod(shape) > 0 for _, shape in shapes.values())


@pytest.mark.parametrize("name", SMALLEST)
def test_untrained_networks_run_with_their_own_preprocessing(name, recwarn):
    check_untrained(name)
    assert not [w for w in recwarn if "torchvision" in str(w.filename)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in zoo.NETWORKS if n not in SMALLEST])
def test_every_untrained_network(name):
    check_untrained(name)


def test_a_seed_makes_the_weights_and_leaves_torchs_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (zoo.build("squeezenet1_1", weights="none", seed=s).weights_sha256 for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert one == same != other


def test_preprocessing_is_that_of_the_weights(home):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    network = zoo.build("resnet50", weights="none")
    expected = models.ResNet50_Weights.DEFAULT.transforms()(picture)
    assert torch.equal(network.preprocess(picture), expected)
    assert network.preprocessing.startswith("shorter side to 232 pixels (bilinear), centre 224 x 224")


def test_the_demo_sees_64_pixels_and_has_random_weights_only():
    network = zoo.build("demo")
    assert network.label == "demo+none+seed0"
    tensor = network.preprocess(Image.new("RGB", (90, 64), (255, 0, 0)))
    assert tensor.shape == (3, 64, 64)
    assert tensor[:, 0, 0].tolist() == [1, -1, -1]
    with pytest.raises(ConfigError, match="random weights only"):
        zoo.build("demo", weights="IMAGENET1K_V1")


def saved(path: Path, module: nn.Module) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), path)
    return path


def test_weights_from_a_file(tmp_path):
    source = zoo.build("squeezenet1_1", weights="none", seed=5)
    path = saved(tmp_path / "mine.pth", source.module)
    network = zoo.build("squeezenet1_1", weights=str(path), seed=9)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (network.weights, network.seed, network.weights_sha256) == ("mine.pth", None, sha256)
    assert network.label == f"squeezenet1+1+mine+{sha256[:8]}"
    assert files.state_sha256(network.module) == source.weights_sha256
    with pytest.raises(DataError, match="do not fit"):
        zoo.build("alexnet", weights=str(path))


def test_a_file_with_a_published_name_is_prepared_as_published(tmp_path):
    v1, v2 = models.ResNet50_Weights.IMAGENET1K_V1, models.ResNet50_Weights.IMAGENET1K_V2
    assert v1.transforms().resize_size != v2.transforms().resize_size
    path = saved(tmp_path / Path(v1.url).name, models.resnet50())
    assert zoo.build("resnet50", weights=str(path)).preprocess.resize_size == v1.transforms().resize_size
    path = path.rename(tmp_path / "mine.pth")
    assert zoo.build("resnet50", weights=str(path)).preprocess.resize_size == v2.transforms().resize_size


def test_old_densenet_files(tmp_path):
    source = zoo.build("densenet121", weights="none", seed=2)
    old = {}
    for key, tensor in source.module.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:4]}.{part[4]}.")
        old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    network = zoo.build("densenet121", weights=str(tmp_path / "old.pth"))
    assert files.state_sha256(network.module) == source.weights_sha256


@pytest.mark.parametrize(("name", "make"), [("googlenet", models.googlenet), ("inception_v3", models.inception_v3)])
def test_side_branches_of_training_are_passed_over(tmp_path, name, make):
    with torch.device("meta"):
        full = make(weights=None, aux_logits=True, init_weights=False)
    path = saved(tmp_path / "full.pth", full.to_empty(device="cpu"))
    network = zoo.build(name, weights=str(path))
    assert network.module.transform_input
    assert not [layer for layer in network.layers if "aux" in layer.lower()]
    assert any("aux" in key.lower() for key in torch.load(path, weights_only=True))


def test_named_weights_come_from_the_cache_and_are_checked(home, monkeypatch):
    module = zoo.build("squeezenet1_1", weights="none", seed=3).module
    path = saved(home / "hub/checkpoints/new.pth", module)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(path.parent / f"squeezenet1_1-{sha256[:8]}.pth")
    published = models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(published.value, "url", f"http://127.0.0.1:9/{path.name}")
    network = zoo.build("squeezenet1_1")
    assert (network.weights, network.weights_sha256) == ("IMAGENET1K_V1", sha256)
    assert network.label == "squeezenet1+1+IMAGENET1KV1"
    assert zoo.fetch_weights(["squeezenet1_1"], folder=home) == [path]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="delete it"):
        zoo.build("squeezenet1_1")
    with pytest.raises(DataError, match="delete it"):
        zoo.fetch_weights(["squeezenet1_1@IMAGENET1K_V1"], folder=home)


def test_weights_that_cannot_be_had(home):
    with pytest.raises(MissingInputError, match="bidsdnn-fetch resnet18 --dir DIR"):
        zoo.build("resnet18")


@pytest.mark.parametrize("chosen", ["IMAGENET1K_V9", "absent/file.pth"])
def test_unknown_weights_list_the_known(home, chosen):
    with pytest.raises(ConfigError, match=r"not one of DEFAULT, none, IMAGENET1K_V1, IMAGENET1K_V2$"):
        zoo.build("resnet50", weights=chosen)


def test_unknown_networks_offer_the_closest(home):
    with pytest.raises(ConfigError, match=r"resnet_18.*did you mean .*resnet18"):
        zoo.build("resnet_18")
    with pytest.raises(ConfigError, match=r"alexnt.*did you mean .*alexnet"):
        zoo.fetch_weights(["resnet18", "alexnt"], folder=home)
    for name in ("demo", "resnet18@none"):
        with pytest.raises(ConfigError, match=f"'{name}' has no weights to download"):
            zoo.fetch_weights([name], folder=home)
    assert not home.exists()


def test_short_names_are_layers_of_their_network():
    alexnet = zoo.build("alexnet", weights="none")
    assert alexnet.select(["conv1", "conv5", "fc6", "fc8"]) == [
        "features.0",
        "features.10",
        "classifier.1",
        "classifier.6",
    ]
    assert alexnet.select(["conv5_relu", "pool5"]) == ["features.11", "features.12"]
    assert list(alexnet.short)[-1] == "fc8"


@pytest.mark.parametrize(
    ("name", "short", "layer"),
    [
        ("vgg16_bn", "conv5_3", "features.40"),
        ("vgg11", "fc7_relu", "classifier.4"),
        ("vgg16", "pool2", "features.9"),
        ("vit_b_16", "block12", "encoder.layers.encoder_layer_11"),
        ("swin_t", "stage4", "features.7"),
        ("convnext_tiny", "stem", "features.0"),
        ("densenet121", "stage4", "features.denseblock4"),
        ("efficientnet_b0", "stage7", "features.7"),
        ("regnet_y_400mf", "stage2", "trunk_output.block2"),
        ("mvit_v2_s", "block16", "blocks.15"),
        ("swin3d_t", "stage2", "features.2"),
        ("maxvit_t", "stage1", "blocks.0"),
    ],
)
def test_short_names_of_architectures(name, short, layer):
    if name.startswith("regnet"):  # reads its widths from tensors
        module = models.get_model(name)
    else:
        with torch.device("meta"):
            module = models.get_model(name)
    found = short_names(name, module)
    assert found[short] == layer
    assert set(found.values()) <= {layer for layer, _ in module.named_modules()}


def test_what_is_given_replaces_the_networks_own_preparation():
    given = NetworkInput(input_size=64, resize=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    network = zoo.build("resnet18", weights="none", given=given)
    assert network.preprocess(Image.new("RGB", (90, 64), "white")).unique().tolist() == [2.0]
    assert network.preprocessing.startswith("shorter side to 64 pixels")
    film = zoo.build("r3d_18", weights="none", given=NetworkInput(modality="video", input_size=32, frames=4))
    assert film.shapes(["fc"]) == {"fc": ("Linear", (400,))}
    assert film.preprocess((np.zeros((9, 40, 60, 3), np.uint8), 30.0)).shape == (3, 4, 32, 32)


def test_alias():
    assert zoo.build("demo", alias="my_demo").label == "my+demo"


USERS = """
import torch
from torch import nn
from torchvision.transforms import ToTensor
from bidsdnn.networks import zoo

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 3), nn.ReLU())

def seeded(*, seed): return nn.Linear(seed, 1)
def weighted(weights): return nn.Linear({"none": 2}.get(weights, 3), 1)
def prepared():
    net = Net()
    net.preprocess = ToTensor()
    return net
def sized(broken=False):
    net = Net()
    net.input_size, net.mean, net.std = (3, 32, 32), (0.0, 0.0, 0.0), 2.0 if broken else (2.0, 2.0, 2.0)
    return net
def misfit(): return sized(broken=True)
def whole(weights, seed): return zoo.build("demo", weights="none", seed=seed)
instance = Net()
def filmed():
    net = nn.Sequential(nn.Conv3d(3, 2, 3), nn.ReLU())
    net.modality, net.input_size, net.frames, net.frame_rate = "video", 32, 4, 10.0
    return net
def smelling():
    net = filmed()
    net.modality = "smell"
    return net
def wrong(): return 3
number = 3
"""


@pytest.fixture
def users(tmp_path) -> str:
    (tmp_path / "my_net.py").write_text(USERS)
    return str(tmp_path / "my_net.py")


def test_users_functions_get_what_their_signatures_name(users):
    assert zoo.build(f"{users}:seeded", seed=4).module.in_features == 4
    untrained = zoo.build(f"{users}:weighted", weights="none", seed=6)
    assert (untrained.module.in_features, untrained.label) == (2, "my+net+weighted+none+seed6")
    trained = zoo.build(f"{users}:weighted", weights="some/dir/run.pth")
    assert (trained.module.in_features, trained.weights, trained.seed) == (3, "run.pth", None)
    assert trained.label == f"my+net+weighted+run+{trained.weights_sha256[:8]}"
    assert zoo.build(f"{users}:whole", seed=8).label == "demo+none+seed8"


def test_users_modules_are_reproducible_and_say_how_pictures_are_prepared(users):
    one, two = (zoo.build(f"{users}:Net", seed=1) for _ in range(2))
    assert one.weights_sha256 == two.weights_sha256
    assert (one.module.training, one.source, one.weights) == (False, "user", "own")
    assert one.label == f"my+net+Net+own+{one.weights_sha256[:8]}"
    assert one.shapes(["1"]) == {"1": ("ReLU", (2, 222, 222))}
    white = Image.new("RGB", (40, 40), "white")
    assert zoo.build(f"{users}:prepared").preprocess(white).shape == (3, 40, 40)
    sized = zoo.build(f"{users}:sized").preprocess(white)
    assert sized.shape == (3, 32, 32)
    assert (sized == 0.5).all()
    film = zoo.build(f"{users}:filmed")
    assert (film.modality, film.shapes(["1"])["1"][1]) == ("video", (2, 2, 30, 30))
    assert film.preprocessing.startswith("4 frames at 10 a second")
    assert zoo.build(f"{users}:instance").shapes(["0"])["0"][0] == "Conv2d"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("wrong", "expected a torch module or a Network, got int"),
        ("number", "expected a network or a function that makes one, got int"),
        ("smelling", "modality, input_size, mean or std of the module is not usable .*smell"),
        ("misfit", "input_size, mean or std of the module is not usable"),
        ("absent", "did you mean|there are"),
    ],
)
def test_users_objects_that_are_no_networks(users, attribute, message):
    with pytest.raises(ConfigError, match=message):
        zoo.build(f"{users}:{attribute}")


def test_a_network_from_an_installed_package():
    network = zoo.build("torch.nn:Identity")
    assert (network.name, network.source) == ("torch.nn:Identity", "user")
