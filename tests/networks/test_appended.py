"""A read-out appended as a layer: against the product written out, its gradient, and what stays as it was."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.appended import Appended, Readout, append
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.reduction import Reduction


def base():
    torch.manual_seed(0)
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, padding=1), relu=nn.ReLU(inplace=True), pool=nn.AvgPool2d(2), flat=nn.Flatten(),
        fc=nn.Linear(64, 5),
    )  # fmt: skip
    return nn.Sequential(layers).eval()


def network(module):
    return Network("own", module, lambda image: torch.zeros(3, 8, 8), "none", "none", 0, "0" * 64)


def batch(n=3, dtype=torch.float32):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def weights(units, k=2):
    rng = np.random.default_rng(2)
    return rng.standard_normal((units, k)), rng.standard_normal(k), rng.standard_normal(units)


MADE = {
    "as it is": {}, "max": {"pooling": "max"}, "mean": {"pooling": "mean"}, "median": {"pooling": "median"},
    "l1": {"pooling": "l1"}, "l2": {"pooling": "l2"}, "grid": {"pooling": "grid:2"},
    "mask": {"mask": {"conv": {"channel": (1, 3), "row": (0, 2, 5)}}},
    "projection": {"projection": 20, "seed": 3},
}  # fmt: skip


@pytest.mark.parametrize("made", MADE)
def test_output_is_the_product_with_what_the_encoder_was_given(made):
    module, reduction = base(), Reduction(**MADE[made])
    with torch.no_grad():
        given = reduction("conv", module.conv(batch())).flatten(1).numpy().astype(np.float64)
    w, b, _ = weights(given.shape[1])
    units = reduction.units("conv", (4, 8, 8))
    matrix = reduction.projection_matrix("conv", units)
    own = w if matrix is None else matrix.T @ w
    one = append(network(module), [Readout("conv", own, b, np.full(units, 0.3), reduction)])
    np.testing.assert_allclose(one.module(batch()).detach(), given @ w + b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", MADE)
def test_gradient_at_the_pixels_is_that_of_finite_differences(made):
    reduction = Reduction(**MADE[made])
    units = reduction.units("conv", (4, 8, 8))
    module = append(network(base()), [Readout("conv", *weights(units), reduction)]).module.double()
    x = batch(1, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda pixels: module(pixels), x, eps=1e-6, atol=1e-5)


def test_read_outs_of_several_layers_stand_side_by_side_before_anything_writes_them_over():
    module = base()
    first = Readout("conv", *weights(256, 2), Reduction())
    second = Readout("fc", *weights(5, 1), Reduction())
    one = append(network(module), [first, second])
    with torch.no_grad():
        conv = module.conv(batch())  # the ReLU behind it works in place
        expected = torch.cat([first(conv), second(module(batch()))], 1)
        torch.testing.assert_close(one.module(batch()), expected)
    assert one.layers[:5] == ["conv", "relu", "pool", "flat", "fc"]
    assert one.shapes(["brain"])["brain"][1] == (3,)
    assert one.canonical()[-1] == "brain" and one.label == network(module).label
    assert one.weights_sha256 != network(module).weights_sha256
    with Recorder(one.module, ["relu", "brain"]) as record:
        assert set(record(batch())) == {"relu", "brain"}


def test_the_call_of_a_module_that_is_called_twice_is_told_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Tanh()
            self.bias = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.act(self.act(x) + self.bias)

    module = Twice().eval()
    w, b, mean = weights(192)
    one = append(
        network(module), [Readout("act#1", w, b, mean, Reduction()), Readout("act#2", w, b, mean, Reduction())]
    )
    with torch.no_grad():
        found = one.module(batch())
        np.testing.assert_allclose(found[:, :2], np.tanh(batch().flatten(1).numpy()) @ w + b, atol=1e-4)
        np.testing.assert_allclose(found[:, 2:], module(batch()).flatten(1).numpy() @ w + b, atol=1e-4)
    assert "bias" in dict(one.module.named_parameters())


def test_a_copy_is_its_own_and_an_exchanged_layer_is_exchanged():
    one = append(network(base()), [Readout("relu", *weights(256), Reduction())]).module
    other = copy.deepcopy(one)
    before = one(batch())
    with torch.no_grad():
        other.conv.weight.zero_()
    assert torch.equal(one(batch()), before) and not torch.allclose(other(batch()), before)
    other.conv = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        expected = other.brain[0](torch.relu(other.conv(batch())))
        torch.testing.assert_close(other(batch()), expected)


def test_weights_of_another_layer_are_refused():
    one = append(network(base()), [Readout("relu", *weights(200), Reduction())])
    with pytest.raises(ConfigError, match="gives 256 units and the encoder has weights for 200"):
        one.module(batch())


def test_modes_and_types_reach_the_base():
    module = base()
    one = Appended(module, [Readout("fc", *weights(5), Reduction())])
    assert one.train().training and module.training and module.conv.training
    one.eval().double()
    assert module.conv.weight.dtype == torch.float64 and not module.training


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Readout("fc", *weights(5), Reduction(pooling="histogram:4")), "histogram:4 has no gradient"),
        (lambda: Readout("fc", *weights(5), Reduction(pooling="psd:4")), "psd:4 has no gradient"),
        (lambda: append(network(base()), [Readout("fo", *weights(5), Reduction())]), "has no layer fo"),
        (lambda: append(network(base()), [Readout("fc", *weights(5), Reduction())], name="fc"), "a layer of that name"),
    ],
)
def test_what_cannot_be_appended_is_said(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
