"""Occlusion against whole pictures, one by one, and against captum; only what is reached is computed anew."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from bidsdnn.probes import windows
from bidsdnn.probes.driving import drive
from bidsdnn.probes.occlusion import Occluder, grid_of, occlusion
from bidsdnn.probes.units import Unit
from bidsdnn.probes.windows import ALIKE


def one_by_one(score, stimulus, grid, fill):
    with torch.no_grad():
        whole = score(stimulus[None])[0]
        drops = []
        for box in grid.boxes:
            covered = stimulus.clone()
            covered[(..., *[slice(*side) for side in box])] = fill
            drops.append(whole - score(covered[None])[0])
    return torch.stack(drops, 1)


def network(name):
    more = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)(weights=None, **more).eval()
    return module.requires_grad_(False)


SLOW = [
    "alexnet", "resnet18", "vgg11", "googlenet", "inception_v3", "densenet121", "mobilenet_v2", "resnet50",
    "convnext_tiny", "efficientnet_b0", "swin_t", "regnet_y_400mf",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", "resnet18", "shufflenet_v2_x0_5", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)],
)
def test_parts_give_what_whole_pictures_give(name):
    module = network(name)
    size = {"inception_v3": 149, "swin_t": 96}.get(name, 128)
    stimulus = torch.randn(3, size, size - 5, generator=torch.Generator().manual_seed(0))
    grid = grid_of(stimulus.shape, size=21, step=20)
    score = lambda batch: module(batch)[:, :4]  # noqa: E731
    occluder = Occluder(score, grid, 0.3, batch_size=5)
    drops, values = occluder(stimulus)
    expected = one_by_one(score, stimulus, grid, 0.3)
    assert drops.shape == (4, len(grid.boxes))
    torch.testing.assert_close(values, score(stimulus[None])[0])
    # GoogLeNet's changes, with random weights, are no larger than what single precision rounds.
    assert (drops - expected).abs().max() < 1e-3 * expected.abs().max() + 1e-6 * values.abs().max()
    assert occluder.local or name == "swin_t"


class Odd(nn.Module):
    """Channels last, positions that are added, a border that wraps around, sizes that are asked for."""

    def __init__(self, kind):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            wrap = "circular" if kind == "wrap" else "zeros"
            self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode=wrap)
            self.table = nn.Parameter(torch.randn(4, 30, 28))
            self.norm, self.fc = nn.LayerNorm(4), nn.Linear(4, 2)
        self.kind = kind
        self.eval().requires_grad_(False)

    def forward(self, x):
        x = self.conv(x)
        if self.kind == "table":
            x = x + self.table
        if self.kind == "last":
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.kind == "in place":
            x.relu_()
            x *= 2
        if self.kind == "sizes":
            n, c, h, w = x.shape
            assert len(x) == n and x.numel() == n * c * h * w
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w) * h
        if self.kind == "average":
            x = nn.functional.avg_pool2d(x, 3, 2, 1, False, False) + nn.functional.avg_pool2d(x, 3, 2, 1)
        return self.fc((x**2).mean((2, 3)))


@pytest.mark.parametrize("kind", ["table", "last", "wrap", "in place", "sizes", "average"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_unusual_operations_change_nothing(kind, batch_size):
    module = Odd(kind)
    stimulus = torch.randn(3, 30, 28, generator=torch.Generator().manual_seed(0))
    grid = grid_of(stimulus.shape, size=6, step=4)
    drops, _ = Occluder(module, grid, batch_size=batch_size)(stimulus)
    torch.testing.assert_close(drops, one_by_one(module, stimulus, grid, 0.0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", ["classifier.1", "features.4", "features.3.squeeze"])
def test_units_of_layers_are_read_where_windows_have_several_sizes(layer):
    """Of some batches the layer is in windows, of others in whole maps: each has as many rows as there are copies."""
    module = network("squeezenet1_1")
    stimulus = torch.randn(3, 96, 90, generator=torch.Generator().manual_seed(0))
    grid = grid_of(stimulus.shape, size=16, step=8)
    assert len(grid.boxes) > 2 * ALIKE
    score = lambda batch: drive(module, batch, [Unit(layer, 3), Unit(layer, 5)])  # noqa: E731
    occluder = Occluder(score, grid)
    drops, values = occluder(stimulus)
    expected = one_by_one(score, stimulus, grid, 0.0)
    assert occluder.local
    assert (drops - expected).abs().max() < 1e-3 * expected.abs().max() + 1e-6 * values.abs().max()


def test_second_stimuli_have_their_own_surroundings():
    module = network("squeezenet1_1")
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps, _ = occlusion(module, batch, size=16, step=16)
    alone, _ = occlusion(module, batch[1:], size=16, step=16)
    torch.testing.assert_close(maps[:, 1:], alone, rtol=1e-3, atol=1e-6)


def test_only_what_is_reached_is_computed(monkeypatch):
    module = network("squeezenet1_1")
    whole, parts, calls = [], [], windows._without_padding

    def counted(*given):
        out = calls(*given)
        if given[0] is nn.functional.conv2d and given[1][1].shape[1] == 3:
            parts.append(out.numel())
        return out

    monkeypatch.setattr(windows, "_without_padding", counted)
    stimulus = torch.randn(3, 128, 128)
    grid = grid_of(stimulus.shape, size=16, step=16)
    Occluder(module, grid)(stimulus)
    with module.features[0].register_forward_hook(lambda _, __, output: whole.append(output.numel())):
        Occluder(module, grid, local=False)(stimulus)
    assert 0 < sum(parts) < 0.1 * sum(whole)


@pytest.mark.parametrize(
    ("shape", "size", "step", "n"), [((3, 10, 11), 4, 3, 3 * 4), ((50,), 10, 5, 9), ((3, 4, 6, 6), 3, 3, 4)]
)
def test_pixels_have_the_mean_over_patches(shape, size, step, n):
    grid = grid_of(shape, size=size, step=step)
    assert len(grid.boxes) == n
    weights = torch.rand(shape, dtype=torch.float64)
    batch = torch.rand(2, *shape, dtype=torch.float64)
    maps, _ = occlusion(lambda x: (x * weights).flatten(1).sum(1, keepdim=True), batch, size=size, step=step)
    assert maps.shape == (1, 2, *grid.lengths)
    total, times = torch.zeros(grid.lengths, dtype=torch.float64), torch.zeros(grid.lengths, dtype=torch.float64)
    for box in grid.boxes:
        place = tuple(slice(*side) for side in box)
        total[place] += (batch[0] * weights)[(..., *place)].sum()
        times[place] += 1
    torch.testing.assert_close(maps[0, 0], total / times)


def test_patches_that_do_not_fit_are_refused():
    for size, step in ((12, 1), (4, 5), (0, 1)):
        with pytest.raises(ValueError, match="does not cover 10 x 11 pixels; give a size up to 10"):
            grid_of((3, 10, 11), size=size, step=step)


def test_maps_are_those_of_captum():
    attr = pytest.importorskip("captum.attr")
    module = Odd("sizes")
    batch = torch.randn(2, 3, 30, 28, generator=torch.Generator().manual_seed(0))
    maps, _ = occlusion(module, batch, size=6, step=4)
    for unit in (0, 1):
        expected = attr.Occlusion(module).attribute(batch, (3, 6, 6), strides=(3, 4, 4), target=unit)
        torch.testing.assert_close(maps[unit], expected[:, 0], rtol=1e-3, atol=1e-6)
