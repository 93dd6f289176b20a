"""A small network whose random weights already see place, then texture, then shape.

It stands in for a trained network where none can be had: in the demo and in tests. What its layers represent follows
from its wiring and not from its weights, so that regions of a simulated brain can be told apart by the layer that
drives them: `conv1` sees colour and place, `conv2` edges in their places, `conv3` texture wherever it is, `conv4`
outlines in their places, `conv5` shape wherever it is, and `fc` which texture is on which shape.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

BLOBS, EDGES = 8, 16
# Keeps a blank picture from dividing zero by zero.
_EPSILON = 1e-6


def _random_filters(outputs: int, inputs: int, size: int, *, balanced: bool) -> nn.Parameter:
    """Gaussian filters of unit expected norm; balanced ones sum to zero over space and so ignore what is uniform."""
    weights = torch.randn(outputs, inputs, size, size) / (inputs * size * size) ** 0.5
    return nn.Parameter(weights - weights.mean((2, 3), keepdim=True) if balanced else weights)


def _convolution(inputs: int, outputs: int, size: int, *, balanced: bool) -> nn.Conv2d:
    """A convolution on a torus, so that a shape's sums over space do not depend on its place."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode="circular", bias=False)
    layer.weight = _random_filters(outputs, inputs, size, balanced=balanced)
    return layer


class _Stem(nn.Module):
    """Blurred colour blobs, and weaker colour-blind edges, both on a grid of half the picture's size."""

    def __init__(self) -> None:
        super().__init__()
        # Repeating the outermost pixels keeps a picture's frame from being an edge.
        self.blob = nn.Conv2d(3, BLOBS, 13, stride=2, padding=6, padding_mode="replicate", bias=False)
        self.edge = nn.Conv2d(3, EDGES, 5, stride=2, padding=2, padding_mode="replicate", bias=False)
        axis = torch.linspace(-2.0, 2.0, 13)
        window = torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / 2)
        colours = nn.functional.normalize(torch.randn(BLOBS, 3), dim=1)
        self.blob.weight = nn.Parameter(colours[:, :, None, None] * window / window.sum())
        filters = nn.functional.normalize(_random_filters(EDGES, 1, 5, balanced=True).detach().flatten(1), dim=1)
        # A tenth of the blobs' strength: fine detail has little power, in natural pictures too.
        self.edge.weight = nn.Parameter(0.1 * filters.reshape(EDGES, 1, 5, 5).repeat(1, 3, 1, 1) / 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.relu(torch.cat([self.blob(pictures), self.edge(pictures)], dim=1))


class _Energy(nn.Module):
    """Mean over channels, blurred over a neighbourhood of five: how much detail is here, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(5, stride=1)

    def forward(self, edges: torch.Tensor) -> torch.Tensor:
        energy = edges.mean(1, keepdim=True)
        return self.blur(nn.functional.pad(energy, (2, 2, 2, 2), mode="circular"))


class _Figure(nn.Module):
    """Where the object is: local energy, saturated relative to the picture's largest."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = _Energy()

    def forward(self, edges: torch.Tensor) -> torch.Tensor:
        energy = self.energy(edges)
        return energy / (0.3 * energy.amax((2, 3), keepdim=True) + energy + _EPSILON)


class _DivisiveNorm(nn.Module):
    """Edges relative to the local energy: which kind of detail, whatever its contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = _Energy()

    def forward(self, edges: torch.Tensor) -> torch.Tensor:
        energy = self.energy(edges)
        relative = edges / (0.2 * energy.amax((2, 3), keepdim=True) + energy + _EPSILON)
        return relative - relative.mean(1, keepdim=True)


class _Conjunction(nn.Module):
    """Random Fourier features (Rahimi & Recht 2007) of texture and shape: alike only if both are alike."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(units, eps=_EPSILON, elementwise_affine=False)
        self.texture = nn.Linear(units, units, bias=False)
        self.shape = nn.Linear(units, units, bias=False)
        # Two pictures of the demo differ in phase by about a radian through either; shapes differ less than textures.
        self.texture.weight = nn.Parameter(0.25 * torch.randn(units, units))
        self.shape.weight = nn.Parameter(0.55 * torch.randn(units, units))

    def forward(self, texture: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        return torch.cos(self.texture(self.norm(texture)) + self.shape(self.norm(shape)))


class _Block(nn.Sequential):
    """Named steps that count as one layer; a plain Sequential would be opened by the rule for canonical layers."""

    def __init__(self, **steps: nn.Module) -> None:
        super().__init__(OrderedDict(steps))


class Toy(nn.Module):
    """Six layers with random weights, from the place of colours to the shape of objects.

    The canonical layers are `conv1` (24 x 32 x 32), `conv2` (24 x 32 x 32), `conv3` (32), `conv4` (24 x 16 x 16),
    `conv5` (32) and `fc` (32). `conv3` and `conv4` both read `conv2`: one sums what kind of detail there is,
    relative to how much (divisive normalisation, Heeger 1992), the other keeps how much there is where. Convolutions
    after the first wrap around the borders, so that sums over space do not change when an object moves.

    Weights are drawn from torch's generator on the CPU; seed it, or fork it, around the call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Stem()
        self.conv2 = _Block(conv=_convolution(EDGES, 24, 3, balanced=True), relu=nn.ReLU(inplace=True))
        self.conv3 = _Block(
            norm=_DivisiveNorm(),
            conv=_convolution(24, 32, 3, balanced=False),
            relu=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
        )
        self.conv4 = _Block(
            figure=_Figure(),
            conv=_convolution(1, 24, 7, balanced=True),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(2),
        )
        self.conv5 = _Block(
            conv=_convolution(24, 32, 5, balanced=True),
            relu=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
        )
        self.fc = _Conjunction(32)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Parameters
        ----------
        pictures : Tensor, shape (n, 3, height, width)
            About -1 to 1; meant for 64 x 64.

        Returns
        -------
        Tensor, shape (n, 32)
        """
        edges = self.conv2(self.conv1(pictures)[:, BLOBS:])
        return self.fc(self.conv3(edges), self.conv5(self.conv4(edges)))
