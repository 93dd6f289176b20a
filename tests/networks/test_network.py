"""Network: labels, layers, the rule for canonical layers, and the recorder's hooks."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import pil_to_tensor

from bidsdnn.errors import ConfigError
from bidsdnn.networks import zoo
from bidsdnn.networks.network import MAX_CANONICAL, Network, canonical_layers
from bidsdnn.networks.recorder import Recorder


def network(module: nn.Module | None = None, **fields: object) -> Network:
    given = {
        "name": "net_1",
        "module": module or nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()),
        "preprocess": lambda image: pil_to_tensor(image).float() / 255,
        "preprocessing": "values 0..1",
        "weights": "none",
        "seed": 0,
        "weights_sha256": "0123456789abcdef",
    }
    return Network(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"name": "resnet18"}, "resnet18+none+seed0"),
        ({"name": "resnet18", "seed": 12}, "resnet18+none+seed12"),
        ({"name": "alexnet", "weights": "IMAGENET1K_V1", "seed": None}, "alexnet+IMAGENET1KV1"),
        ({"name": "squeezenet1_1", "weights": "my-run.v2.pth", "seed": None}, "squeezenet1+1+my+run+v2+01234567"),
        ({"name": "file:build", "weights": "own", "seed": None}, "file+build+own+01234567"),
        ({"alias": "my net_(2)"}, "my+net+2"),
    ],
)
def test_label(fields, label):
    assert network(**fields).label == label


def test_two_files_of_one_name_have_two_labels():
    a = network(weights="w.pth", weights_sha256="a" * 64)
    assert a.label != replace(a, weights_sha256="b" * 64).label


def test_layers_select_and_shapes():
    module = nn.Sequential()
    module.add_module("features", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    module.add_module("head", nn.Linear(4, 5))
    net = network(module)
    assert net.layers == [f"features{x}" for x in ("", ".0", ".1", ".2", ".3")] + ["head"]
    assert net.select(["head", "features.[01]"]) == ["features.0", "features.1", "head"]
    assert net.select(["Head", "none.*"]) == []
    assert net.shapes(["head", "features.0"]) == {"head": ("Linear", (5,)), "features.0": ("Conv2d", (4, 254, 254))}
    assert net.canonical() == ["features.1", "head"]
    assert {"features.0", "features.1", "head"} <= set(net.shapes())


CANONICAL = {
    "alexnet": [
        *(f"features.{i}" for i in (1, 4, 7, 9, 11)),
        *(f"classifier.{i}" for i in (2, 5, 6)),
    ],
    "resnet18": ["relu", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)), "fc"],
    "vgg11_bn": [
        *(f"features.{i}" for i in (2, 6, 10, 13, 17, 20, 24, 27)),
        *(f"classifier.{i}" for i in (1, 4, 6)),
    ],
    "squeezenet1_1": [*(f"features.{i}" for i in (1, 3, 4, 6, 7, 9, 10, 11, 12)), "classifier.2"],
    "densenet121": [
        "features.relu0",
        *(f"features.{part}{i}" for i in (1, 2, 3) for part in ("denseblock", "transition")),
        *("features.denseblock4", "features.norm5", "classifier"),
    ],
    "vit_b_16": [
        "conv_proj",
        *(f"encoder.layers.encoder_layer_{i}" for i in (0, 2, 3, 4, 5, 7, 8, 9, 10)),
        *("encoder.ln", "heads.head"),
    ],
}


@pytest.mark.parametrize("name", CANONICAL)
def test_canonical_layers_of_known_networks(name):
    with torch.device("meta"):
        module = models.get_model(name, weights=None)
    assert canonical_layers(module) == CANONICAL[name]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("resnet50", "relu", "fc"),
        ("vgg16", "features.1", "classifier.6"),
        ("swin_t", "features.0.2", "head"),
        ("convnext_tiny", "features.0", "classifier.2"),
        ("mobilenet_v3_small", "features.0", "classifier.3"),
        ("efficientnet_b0", "features.0", "classifier.1"),
        ("maxvit_t", "stem.0", "classifier.5"),
    ],
)
def test_canonical_layers_go_from_the_first_to_the_last_in_order(name, first, last):
    with torch.device("meta"):
        module = models.get_model(name, weights=None)
    layers, order = canonical_layers(module), [layer for layer, _ in module.named_modules()]
    assert (layers[0], layers[-1]) == (first, last)
    assert 5 <= len(layers) <= MAX_CANONICAL
    assert [order.index(layer) for layer in layers] == sorted({order.index(layer) for layer in layers})


def test_canonical_layers_of_a_module_without_numbers_are_its_leaves():
    assert canonical_layers(nn.Sequential(nn.AvgPool2d(2), nn.Flatten())) == ["0", "1"]


def test_canonical_drops_what_is_transparent_and_opens_the_backbone():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 3, enable_nested_tensor=False)
            self.drop = nn.Dropout()
            self.fc, self.act = nn.Linear(2, 2), nn.ReLU()

    # `act` may be called after any of the layers, so `fc` keeps its own place.
    assert canonical_layers(Net()) == ["stem", "body.layers.0", "body.layers.1", "body.layers.2", "fc", "act"]


class Awkward(nn.Module):
    """Outputs of every kind, and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.nested, self.words, self.summed, self.unused = (Returns(f) for f in (nested, words, summed, words))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).flatten(2).transpose(1, 2)
        x, _ = self.attention(x, x, x)
        self.nested(x)
        self.words(x)
        self.summed(x)
        return self.relu(x - 1)


class Returns(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


def nested(x: Tensor):
    return {"name": None, "parts": [("text", 2 * x), x]}


def words(x: Tensor):
    return "nothing"


def summed(x: Tensor):
    return x.sum(0)


@pytest.fixture
def awkward() -> nn.Module:
    torch.manual_seed(0)
    return Awkward().eval()


def test_recorder_copies_before_an_in_place_activation(awkward):
    batch = torch.randn(4, 3, 5, 5)
    with torch.no_grad(), Recorder(awkward, ["conv"]) as record:
        seen = record(batch)["conv"]
        expected = awkward.conv(batch)
    assert (expected < 0).any()
    assert torch.equal(seen, expected)


def test_recorder_takes_the_first_tensor_and_the_last_call(awkward):
    batch = torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        output = awkward(batch)
    with torch.no_grad(), Recorder(awkward, ["relu", "attention", "nested"]) as record:
        seen = record(batch, keep=3)
    assert list(seen) == ["relu", "attention", "nested"]
    assert torch.equal(seen["relu"], output[:3])
    assert torch.equal(seen["nested"], 2 * seen["attention"])
    assert seen["attention"].shape == (3, 25, 2)


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unused", "layer unused is never reached"),
        ("words", "'words' gives str, which holds no tensor"),
        ("summed", r"'summed' gives shape \(25, 2\) for 4 pictures"),
    ],
)
def test_recorder_errors_and_removes_its_hooks(awkward, layer, message):
    with pytest.raises(ConfigError, match=message), Recorder(awkward, ["conv", layer]) as record:
        assert hooks(awkward) == 2
        record(torch.randn(4, 3, 5, 5))
    assert hooks(awkward) == 0


def test_recorder_offers_the_closest_layer(awkward):
    with pytest.raises(ConfigError, match="'con' is not in the network; did you mean conv"):
        Recorder(awkward, ["con"])


def test_threads_share_a_recorder_without_mixing(awkward):
    batches = [torch.randn(4, 3, 6, 6) for _ in range(8)]
    results: dict[int, Tensor] = {}
    with Recorder(awkward, ["conv"]) as record:

        def work(i: int) -> None:
            with torch.inference_mode():
                results[i] = record(batches[i])["conv"]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, batch in enumerate(batches):
        with torch.no_grad():
            assert torch.equal(results[i], awkward.conv(batch))


def test_layers_by_depth_and_calls(awkward):
    net = zoo.build("alexnet", weights="none")
    names = net.canonical()
    assert net.select(["@0", "@1"]) == [names[0], names[-1]]
    assert net.select(["@0.5"]) == [names[4]]  # of 8, the middle is rounded up
    assert net.select(["classifier.6", "features.1*", "@0"]) == ["features.1", "features.10", "features.11",
                                                                "features.12", "classifier.6"]  # fmt: skip
    for wrong in ("@1.5", "@half", "@"):
        with pytest.raises(ConfigError, match="after @ stands a depth"):
            net.select([wrong])
    resnet = zoo.build("resnet18", weights="none")
    assert resnet.select(["layer1.?.relu#2", "layer1.0.relu"]) == [
        "layer1.0.relu",
        "layer1.0.relu#2",
        "layer1.1.relu#2",
    ]
    shapes = resnet.shapes()
    assert shapes["layer1.0.relu#2"] == shapes["layer1.0.relu"] == ("ReLU", (64, 56, 56))
    assert "relu#1" not in shapes


def test_each_call_of_a_module_can_be_had():
    resnet = zoo.build("resnet18", weights="none")
    block = resnet.module.layer1[0]
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad(), Recorder(block, ["relu", "relu#1", "relu#2", "bn1"]) as record:
        seen = record(x)
        output = block(x)
        assert torch.equal(seen["relu#1"], seen["bn1"].clamp(min=0))
    assert torch.equal(seen["relu"], output)
    assert torch.equal(seen["relu#2"], output)
    message = r"relu#3 is never reached .*; relu is called 2 times"
    with pytest.raises(ConfigError, match=message), torch.no_grad(), Recorder(block, ["relu#3"]) as record:
        record(x)
    for wrong in ("relu#", "relu#0", "relu#x"):
        with pytest.raises(ConfigError, match="after # stands the number of a call"):
            Recorder(block, [wrong])


def test_released_memory_is_used_again(awkward):
    first, second = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    with torch.no_grad(), Recorder(awkward, ["conv"]) as record:
        one = record(first)["conv"]
        place = one.data_ptr()
        kept = record(second)["conv"]
        assert kept.data_ptr() != place
        record.release([one])
        again = record(second)["conv"]
        assert again.data_ptr() == place
        assert torch.equal(again, kept)


class Sly(nn.Module):
    """Layers whose outputs are written over: at once, by the next pass, or from the third pass on."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.over, self.late, self.own = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), Own()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        x = self.over(self.plain(x)).add_(1)
        late = self.late(x)
        x = late.relu() if self.passes < 3 else late.mul_(2)
        return self.own(x)


class Own(nn.Module):
    """Gives the same memory in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.empty(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory.copy_(x)


def test_only_outputs_that_nothing_writes_over_are_kept_without_a_copy():
    sly, layers = Sly().eval(), ["plain", "over", "late", "own"]
    expected: list[dict[str, Tensor]] = []
    for name in layers:
        sly.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: expected[-1].update({name: output.clone()})
        )
    batches, found = [torch.randn(2, 3) for _ in range(5)], []
    with torch.no_grad(), Recorder(sly, layers) as record:
        for batch in batches:
            expected.append({})
            found.append(record(batch))
            assert sly.passes == len(found) + (len(found) > 2)  # the third was run again, and only that
        assert record._intact == {"plain"}
        assert record._changing == {"over", "late", "own"}
        for seen, hand in zip(found, expected, strict=True):
            for name in layers:
                torch.testing.assert_close(seen[name], hand[name], rtol=0, atol=0)
        # What is given back and written over is the recorder's own memory alone.
        kept = {name: value.clone() for name, value in found[4].items()}
        record.release([found[4]["plain"]])
        record(batches[0])
        torch.testing.assert_close(found[4]["plain"], kept["plain"], rtol=0, atol=0)
