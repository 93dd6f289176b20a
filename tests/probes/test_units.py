"""Units: as they are written, against the shapes of layers, and as numbers that know the input they came from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.networks.zoo import build
from bidsdnn.probes.driving import channels, check_gradient, check_precision, drive, frozen, own_drive
from bidsdnn.probes.units import BrainUnit, Unit, parse_unit, resolve_units


@pytest.fixture(scope="module")
def demo() -> Network:
    return build("demo", weights="none", seed=0, alias="toy", given=None)


class Rectified(nn.Module):
    """A convolution whose second channel never fires, under an in-place rectification that stands in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(inplace=True))
        for layer in (self.conv, self.block[0]):
            with torch.no_grad():
                layer.bias[1] = -50.0

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.block(self.relu(self.conv(pictures)))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("features.12:7", Unit("features.12", 7)),
        ("features.12:7,3,4", Unit("features.12", 7, (3, 4))),
        ("classifier.6:281", Unit("classifier.6", 281)),
        ("relu#2:0", Unit("relu#2", 0)),
        ("alexnet:conv5:7", Unit("conv5", 7, (), "alexnet")),
        ("brain:early", BrainUnit("early")),
        ("brain:early:12", BrainUnit("early", 12)),
        ("brain:L_V1_ROI:0", BrainUnit("L_V1_ROI", 0)),
    ],
)
def test_units_are_read_and_written(text, unit):
    assert parse_unit(text) == unit
    assert str(unit) == text.removeprefix("alexnet:")


@pytest.mark.parametrize("text", ["features.12", "features.12:", "features.12:a", "features.12:1,-2", ":3", "brain:"])
def test_what_is_no_unit_is_refused(text):
    with pytest.raises(ConfigError, match=r"--unit .*: write"):
        parse_unit(text)


def test_labels_tell_units_apart_in_file_names():
    units = [Unit("conv", 2), Unit("conv", 2, (3, 4)), Unit("conv.2", 3, (4,)), Unit("conv", 23, (4, 0))]
    labels = [unit.label for unit in units]
    assert len(set(labels)) == len(labels)
    assert all(set(label) <= set("+abcdefghijklmnopqrstuvwxyz0123456789") for label in labels)
    assert Unit("brain", 0, name="brain:early:3").label == "brain+early+3"


def test_units_are_found_by_the_names_that_layers_have(demo):
    found = resolve_units(["conv2:3", "toy:fc:1", "conv2:3", "@0:0", "conv?:5,1,1"][:4], [demo])
    assert found == {"toy": (Unit("conv2", 3), Unit("fc", 1), Unit("conv1", 0))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conv2:24", "gives 24 x 32 x 32, of which 24 are channels; give a channel from 0 to 23"),
        ("conv2:3,32,0", "gives 24 x 32 x 32; position 32,0 is outside 32 x 32"),
        ("conv2:3,1", "gives 24 x 32 x 32; give 2 numbers after the channel"),
        ("fc:32", "gives 32, of which 32 are channels"),
        ("fc:3,0", "gives 32; give the channel alone"),
        ("conv22:3", "no layer of toy; did you mean conv2"),
        ("vgg:conv2:3", "no network is called 'vgg'"),
    ],
)
def test_units_out_of_range_are_refused_with_the_shape(demo, text, said):
    with pytest.raises(ConfigError, match=f"--unit {text}: .*{said}"):
        resolve_units([text], [demo])


def test_a_unit_is_the_mean_or_the_maximum_over_positions_or_one_position():
    module = Rectified().eval()
    batch = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        whole = module.conv(batch).relu()
        got = drive(module, batch, [Unit("relu", 0), Unit("relu", 0, (2, 5))])
        peak = drive(module, batch, [Unit("relu", 0)], over="max")
    torch.testing.assert_close(got[:, 0], whole[:, 0].mean((1, 2)))
    torch.testing.assert_close(got[whole[:, 0, 2, 5] > 0, 1], whole[whole[:, 0, 2, 5] > 0, 0, 2, 5])
    torch.testing.assert_close(peak[:, 0], whole[:, 0].amax((1, 2)))
    torch.testing.assert_close(channels(whole, axis=0)[:, 0], got[:, 0])
    tokens = torch.randn(4, 7, 5)
    torch.testing.assert_close(channels(tokens, axis=1, over="max"), tokens.amax(1))


@pytest.mark.parametrize("layer", ["relu", "block", "block.1"])
def test_silent_rectified_units_are_read_before_their_rectification(layer):
    module = Rectified().eval()
    batch = torch.randn(3, 3, 8, 8, requires_grad=True)
    silent = drive(module, batch, [Unit(layer, 1)])
    before = module.conv(batch)
    before = before if layer == "relu" else module.block[0](before.relu())
    torch.testing.assert_close(silent[:, 0], before[:, 1].amax((1, 2)))
    assert (silent < 0).all()
    assert torch.autograd.grad(silent.sum(), batch)[0].abs().max() > (0 if layer == "relu" else -1)
    assert (drive(module, batch, [Unit(layer, 1)], silent=False) == 0).all()


class Function(nn.Module):
    """A residual block as many networks write it: its last rectification is a function, not a module."""

    def __init__(self, rectify):
        super().__init__()
        self.conv, self.block, self.rectify = nn.Conv2d(3, 3, 3, padding=1), nn.Module(), rectify
        self.block.forward = lambda x: self.rectify(x + self.conv(x) - 50)

    def forward(self, x):
        return self.block(x).clone().mul_(2)


@pytest.mark.parametrize(
    "rectify",
    [torch.relu, nn.functional.relu, lambda x: nn.functional.relu(x, inplace=True), lambda x: x.relu_(),
     nn.functional.relu6, lambda x: nn.functional.threshold(x, 0, 0)],
)  # fmt: skip
def test_a_rectification_that_is_a_function_is_read_through_too(rectify):
    module = Function(rectify).eval()
    batch = torch.randn(2, 3, 8, 8, requires_grad=True)
    unit = Unit("block", 1)
    expected = (batch + module.conv(batch) - 50)[:, 1].amax((1, 2))
    for given in (drive(module, batch, [unit])[:, 0], own_drive(module, batch, [unit] * 2)[0]):
        torch.testing.assert_close(given, expected)
        assert torch.autograd.grad(given.sum(), batch)[0].abs().max() > 0
    assert (drive(module, batch, [unit], silent=False) == 0).all()


def test_a_layer_is_read_before_what_follows_writes_over_it():
    module = Rectified().eval()
    batch = torch.randn(2, 3, 8, 8, requires_grad=True)
    got = drive(module, batch, [Unit("conv", 0), Unit("conv", 1)])
    torch.testing.assert_close(got, module.conv(batch).mean((2, 3)))
    step = torch.zeros(batch.shape)
    step[0, 1, 3, 3] = 1e-2
    grown = drive(module, (batch + step).detach(), [Unit("conv", 0)]) - got[:, :1].detach()
    gradient = torch.autograd.grad(got[0, 0], batch)[0]
    assert float(grown[0, 0]) == pytest.approx(1e-2 * float(gradient[0, 1, 3, 3]), abs=1e-6)


def test_weights_take_no_gradients_meanwhile():
    module = Rectified()
    module.conv.bias.requires_grad_(False)
    with frozen(module):
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.conv.weight.requires_grad
    assert not module.conv.bias.requires_grad


def test_networks_without_gradients_are_refused(demo):
    batch = torch.randn(1, 3, 64, 64)
    with frozen(demo.module), pytest.raises(ConfigError, match=r"toy: layer fc gives no gradient"):
        check_gradient(demo, drive(demo.module, batch, [Unit("fc", 0)]), [Unit("fc", 0)])
    half = Network(**{**vars(demo), "module": Rectified().half()})
    with pytest.raises(ConfigError, match="toy: its weights are float16"):
        check_precision(half)
    check_precision(demo)
