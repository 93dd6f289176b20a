"""Maps from gradients against finite differences, formulas written out, and captum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bidsdnn.probes.gradients import (
    grad_cam,
    gradient,
    gradient_x_input,
    guided_backpropagation,
    integrated_gradients,
    smooth_gradient,
    upsampled,
)


class Small(nn.Module):
    """Convolutions, pooling and two ReLUs: one a module in place, one a function in place or not."""

    def __init__(self, *, in_place=True, dtype=torch.float64):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.conv1 = nn.Conv2d(3, 4, 3, padding=1, dtype=dtype)
            self.relu = nn.ReLU(inplace=in_place)
            self.conv2 = nn.Conv2d(4, 6, 3, padding=1, dtype=dtype)
            self.fc = nn.Linear(6 * 16, 5, dtype=dtype)
        self.in_place = in_place
        self.eval().requires_grad_(False)

    def forward(self, x):
        x = F.max_pool2d(self.relu(self.conv1(x)), 2)
        x = self.conv2(x)
        if self.in_place:
            x.relu_()
        else:
            x = torch.relu(x)
        return self.fc(x.flatten(1))


class Modules(nn.Module):
    """The same with modules only, which is all that captum can guide."""

    def __init__(self):
        super().__init__()
        small = Small()
        self.conv1, self.relu1, self.pool = small.conv1, nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.relu2, self.fc = small.conv2, nn.ReLU(), small.fc

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        return self.fc(self.relu2(self.conv2(x)).flatten(1))


@pytest.fixture
def batch():
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def score(module):
    return lambda x: module(x)[:, [0, 3]]


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_are_finite_differences(batch, in_place):
    module = Small(in_place=in_place)
    before = batch.clone()
    maps, values = gradient(score(module), batch)
    assert maps.shape == (2, 3, 3, 8, 8) and torch.equal(batch, before)
    torch.testing.assert_close(values, module(batch)[:, [0, 3]])
    step = 1e-6
    for place in ((0, 2, 3), (2, 7, 7), (1, 0, 5)):
        shift = torch.zeros_like(batch)
        shift[(slice(None), *place)] = step
        with torch.no_grad():
            expected = (module(batch + shift) - module(batch - shift))[:, [0, 3]] / (2 * step)
        torch.testing.assert_close(maps[(..., *place)], expected.T, rtol=1e-5, atol=1e-9)
    product, _ = gradient_x_input(score(module), batch)
    torch.testing.assert_close(product, maps * batch)


def test_guided_gradients_are_the_rule_written_out(batch):
    """Both ReLUs, of which one is a module and one a function, in place: backward passes by hand."""
    for in_place in (False, True):
        module = Small(in_place=in_place)
        maps, values = guided_backpropagation(score(module), batch)
        torch.testing.assert_close(values, module(batch)[:, [0, 3]])
        one = F.conv2d(batch, module.conv1.weight, module.conv1.bias, padding=1)
        pooled, where = F.max_pool2d(one.clamp_min(0), 2, return_indices=True)
        two = F.conv2d(pooled, module.conv2.weight, module.conv2.bias, padding=1)
        for k, unit in enumerate((0, 3)):
            back = module.fc.weight[unit].reshape(1, 6, 4, 4).expand(3, -1, -1, -1)
            back = back.clamp_min(0) * (two > 0)
            back = F.conv_transpose2d(back, module.conv2.weight, padding=1)
            back = F.max_unpool2d(back, where, 2)
            back = back.clamp_min(0) * (one > 0)
            torch.testing.assert_close(maps[k], F.conv_transpose2d(back, module.conv1.weight, padding=1))
        # Nothing of the module is changed for good.
        torch.testing.assert_close(gradient(score(module), batch)[0], gradient(score(Small()), batch)[0])


def test_guided_gradients_know_ceilings():
    given = torch.tensor([[-1.0, 3.0, 7.0]])
    sign = torch.tensor([1.0, 1.0, 1.0])
    maps, _ = guided_backpropagation(lambda x: (nn.ReLU6()(x) * sign).sum(1, keepdim=True), given)
    assert maps.tolist() == [[[0.0, 1.0, 0.0]]]


def test_smooth_gradients_are_means_over_noise_that_is_each_stimulus_own(batch):
    module = Small()
    maps, _ = smooth_gradient(score(module), batch, seeds=[5, 6, 7], samples=4, noise=0.1)
    alone, _ = smooth_gradient(score(module), batch[1:2], seeds=[6], samples=4, noise=0.1)
    torch.testing.assert_close(maps[:, 1:2], alone)
    generator = torch.Generator().manual_seed(6)
    noise = [torch.randn(3, 8, 8, generator=generator).double() for _ in range(4)]
    spread = 0.1 * (batch[1].max() - batch[1].min())
    expected = sum(gradient(score(module), (batch[1] + spread * one)[None])[0] for one in noise) / 4
    torch.testing.assert_close(alone, expected)


def test_integrated_gradients_sum_to_the_difference(batch):
    module = Small().float()
    given, baseline = batch.float(), torch.full((3, 8, 8), 0.2)
    maps, values, errors = integrated_gradients(score(module), given, baseline)
    difference = (values - score(module)(baseline[None])).T
    assert ((maps.flatten(2).sum(2) - difference).abs() <= 1e-3 * difference.abs()).all()
    assert (errors > 0).all() and errors.max() < 0.2
    # What is spread to make them whole is no more than the rule's own error: they are as near to the integral.
    fine = sum(gradient(score(module), baseline + (k + 0.5) / 600 * (given - baseline))[0] for k in range(600))
    fine = fine / 600 * (given - baseline)
    assert (maps - fine).norm() < 0.05 * fine.norm()


def test_integrated_gradients_of_what_is_flat_at_midpoints_are_whole():
    steps = lambda x: (x.sum(1, keepdim=True) * 0) + (x.sum(1, keepdim=True) > 0.999)  # noqa: E731
    maps, _, errors = integrated_gradients(steps, torch.tensor([[0.25, 0.75]]), torch.zeros(2))
    torch.testing.assert_close(maps, torch.tensor([[[0.25, 0.75]]]))
    assert errors.item() == pytest.approx(1.0)


def test_grad_cam_is_the_formula(batch):
    module = Modules()
    maps, _ = grad_cam(module, score(module), batch, "conv2")
    acts = module.conv2(module.pool(module.relu1(module.conv1(batch))))
    for k, unit in enumerate((0, 3)):
        back = module.fc.weight[unit].reshape(6, 4, 4) * (acts > 0)
        expected = (back.mean((2, 3), keepdim=True) * acts).sum(1).clamp_min(0)
        torch.testing.assert_close(maps[k], expected)
    large = upsampled(maps, (8, 8))
    torch.testing.assert_close(large, F.interpolate(maps, scale_factor=2, mode="bilinear"))


def test_grad_cam_of_a_layer_that_is_written_over(batch):
    module = Small(in_place=True)
    kept, _ = grad_cam(module, score(module), batch, "conv2")
    plain = Modules()
    expected, _ = grad_cam(plain, score(plain), batch, "conv2")
    torch.testing.assert_close(kept, expected)


def test_what_gives_no_gradient_says_so(batch):
    module = Small()
    for broken in (lambda x: module(x).argmax(1, keepdim=True).double(), lambda x: module(x.detach())):
        with pytest.raises(ValueError, match="no gradient leads from the unit to the input"):
            gradient(broken, batch)
    weights = torch.ones(1, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="does not depend on it"):
        gradient(lambda x: module(x.detach()) * weights, batch)
    with pytest.raises(ValueError, match="met no ReLU"):
        guided_backpropagation(lambda x: x.flatten(1)[:, :2].tanh(), batch)
    with pytest.raises(ValueError, match=r"layer fc gives \(3, 5\), not channels by positions"):
        grad_cam(module, score(module), batch, "fc")


@pytest.fixture
def attr():
    return pytest.importorskip("captum.attr")


def test_maps_are_those_of_captum(attr, batch):
    module = Modules().double()
    for k, unit in enumerate((0, 3)):

        def same(maps, expected, k=k, **tolerance):
            torch.testing.assert_close(maps[k], expected.detach().to(maps.dtype), **tolerance)

        given = batch.clone().requires_grad_()
        same(gradient(score(module), batch)[0], attr.Saliency(module).attribute(given, target=unit, abs=False))
        same(gradient_x_input(score(module), batch)[0], attr.InputXGradient(module).attribute(given, target=unit))
        same(guided_backpropagation(score(module), batch)[0], attr.GuidedBackprop(module).attribute(given, target=unit))
        cam = attr.LayerGradCam(module, module.conv2).attribute(given, target=unit, relu_attributions=True)
        same(grad_cam(module, score(module), batch, "conv2")[0], cam[:, 0])
        found = attr.IntegratedGradients(module).attribute(given, target=unit, n_steps=600, method="riemann_middle")
        ours = integrated_gradients(score(module), batch, torch.zeros(3, 8, 8, dtype=torch.float64), tolerance=1e-3)
        assert (ours[0][k] - found).norm() < 0.02 * found.norm()


def test_smooth_gradients_are_those_of_captum_in_the_limit(attr, batch):
    module, one = Modules().double(), batch[:1]
    spread = float(0.1 * (one.max() - one.min()))
    ours, _ = smooth_gradient(score(module), one, seeds=[1], samples=400, noise=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tunnel = attr.NoiseTunnel(attr.Saliency(module))
        theirs = tunnel.attribute(one, nt_type="smoothgrad", nt_samples=400, stdevs=spread, target=0, abs=False)
    plain, _ = gradient(score(module), one)
    assert (ours[0] - theirs).norm() < 0.15 * (ours[0] - plain[0]).norm()
