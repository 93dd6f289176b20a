"""CORnet: shallow, recurrent networks whose four areas stand for V1, V2, V4 and IT.

Three of a kind (Kubilius et al., 2018, bioRxiv 408385; 2019, NeurIPS 32): Z is feedforward, RT recurs within each
area and its areas answer one step of time after another, S recurs within each area through a bottleneck with a skip.
Parameters have the names of the published weights, so that these load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import standard_preprocess

AREAS = ("V1", "V2", "V4", "IT")
WIDTHS = (64, 128, 256, 512)
CLASSES = 1000
WEIGHTS = "IMAGENET1K"
PUBLISHED = {
    "cornet_z": "https://s3.amazonaws.com/cornet-models/cornet_z-5c427c9c.pth",
    "cornet_rt": "https://s3.amazonaws.com/cornet-models/cornet_rt-933c001c.pth",
    "cornet_s": "https://s3.amazonaws.com/cornet-models/cornet_s-1d3f7974.pth",
}


def _decoder() -> nn.Sequential:
    """Mean over space, then a linear readout of ImageNet's classes."""
    steps = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(WIDTHS[-1], CLASSES)}
    return nn.Sequential(OrderedDict(steps))


class FeedforwardArea(nn.Module):
    """An area of CORnet-Z: convolution, ReLU, pooling.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    size, stride : int
        Of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2)
        self.nonlin = nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        nn.init.xavier_uniform_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Answer to the area below."""
        return self.pool(self.nonlin(self.conv(x)))


class RecurrentArea(nn.Module):
    """An area of CORnet-RT: what comes in is added to its own last answer, and convolved.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    size, stride : int
        Of the convolution of what comes in.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.conv_input = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2)
        self.norm_input = nn.GroupNorm(32, outputs)
        self.nonlin_input = nn.ReLU()
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(32, outputs)
        self.nonlin1 = nn.ReLU()

    def drive(self, x: Tensor) -> Tensor:
        """What comes in from the area below."""
        return self.nonlin_input(self.norm_input(self.conv_input(x)))

    def forward(self, drive: Tensor, state: Tensor | None = None) -> Tensor:
        """Answer to what comes in, and to the area's own last answer."""
        return self.nonlin1(self.norm1(self.conv1(drive if state is None else drive + state)))


class CORnetRT(nn.Module):
    """CORnet-RT: at each step of time an area answers to what the area below answered one step before.

    Parameters
    ----------
    times : int
        Steps; the published network makes five.
    """

    def __init__(self, times: int = 5) -> None:
        super().__init__()
        self.times = times
        self.V1 = RecurrentArea(3, WIDTHS[0], size=7, stride=4)
        self.V2 = RecurrentArea(WIDTHS[0], WIDTHS[1])
        self.V4 = RecurrentArea(WIDTHS[1], WIDTHS[2])
        self.IT = RecurrentArea(WIDTHS[2], WIDTHS[3])
        self.decoder = _decoder()

    def forward(self, pictures: Tensor) -> Tensor:
        """Let the areas run, from silence, and read out the last."""
        areas: list[RecurrentArea] = [self.V1, self.V2, self.V4, self.IT]
        states: list[Tensor] = []
        for step in range(self.times):
            if step == 0:
                # Nothing has reached the higher areas yet: their drive is zero.
                drives = [self.V1.drive(pictures)]
                for area in areas[1:]:
                    height, width = (-(-side // 2) for side in drives[-1].shape[-2:])
                    drives.append(drives[-1].new_zeros(len(pictures), area.conv_input.out_channels, height, width))
                states = [area(drive) for area, drive in zip(areas, drives, strict=True)]
            else:
                inputs = [pictures, *states[:-1]]
                states = [
                    area(area.drive(below), state) for area, below, state in zip(areas, inputs, states, strict=True)
                ]
        return self.decoder(states[-1])


class _Strided(nn.Conv2d):
    """A convolution whose stride is the caller's: the first pass through an area halves the picture, later ones not.

    The stride is an argument and no attribute that changes, because threads share the module.
    """

    def forward(self, x: Tensor, stride: int) -> Tensor:  # type: ignore[override]
        return functional.conv2d(x, self.weight, self.bias, stride, self.padding)


class BottleneckArea(nn.Module):
    """An area of CORnet-S: a bottleneck with a skip, gone through several times with the same convolutions.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    times : int
        Passes; each has its own normalisation.
    """

    scale = 4

    def __init__(self, inputs: int, outputs: int, *, times: int) -> None:
        super().__init__()
        wide = outputs * self.scale
        self.times = times
        self.conv_input = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = nn.Conv2d(outputs, outputs, 1, stride=2, bias=False)
        self.norm_skip = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, wide, 1, bias=False)
        self.nonlin1 = nn.ReLU()
        self.conv2 = _Strided(wide, wide, 3, padding=1, bias=False)
        self.nonlin2 = nn.ReLU()
        self.conv3 = nn.Conv2d(wide, outputs, 1, bias=False)
        self.nonlin3 = nn.ReLU()
        for step in range(times):
            for number, channels in ((1, wide), (2, wide), (3, outputs)):
                setattr(self, f"norm{number}_{step}", nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Go through the area `times` times."""
        x = self.conv_input(x)
        for step in range(self.times):
            first, second, third = (getattr(self, f"norm{number}_{step}") for number in (1, 2, 3))
            skip = x if step else self.norm_skip(self.skip(x))
            x = self.nonlin1(first(self.conv1(x)))
            x = self.nonlin2(second(self.conv2(x, 1 if step else 2)))
            x = self.nonlin3(third(self.conv3(x)) + skip)
        return x


class _FirstArea(nn.Sequential):
    """V1 of CORnet-S: two convolutions with pooling between them; a named block, closed as the other areas are."""

    def __init__(self) -> None:
        width = WIDTHS[0]
        steps: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            "norm1": nn.BatchNorm2d(width),
            "nonlin1": nn.ReLU(),
            "pool": nn.MaxPool2d(3, stride=2, padding=1),
            "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
            "norm2": nn.BatchNorm2d(width),
            "nonlin2": nn.ReLU(),
        }
        super().__init__(OrderedDict(steps))


def cornet_z() -> nn.Module:
    """Make CORnet-Z with random weights.

    Returns
    -------
    nn.Module
    """
    areas: list[tuple[str, nn.Module]] = [("V1", FeedforwardArea(3, WIDTHS[0], size=7, stride=2))]
    areas += [(name, FeedforwardArea(WIDTHS[i], WIDTHS[i + 1])) for i, name in enumerate(AREAS[1:])]
    return nn.Sequential(OrderedDict([*areas, ("decoder", _decoder())]))


def cornet_s() -> nn.Module:
    """Make CORnet-S with random weights: two, four and two passes through V2, V4 and IT.

    Returns
    -------
    nn.Module
    """
    areas: list[tuple[str, nn.Module]] = [("V1", _FirstArea())]
    for i, (name, times) in enumerate(zip(AREAS[1:], (2, 4, 2), strict=True)):
        areas.append((name, BottleneckArea(WIDTHS[i], WIDTHS[i + 1], times=times)))
    network = nn.Sequential(OrderedDict([*areas, ("decoder", _decoder())]))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


MAKERS: dict[str, Callable[[], nn.Module]] = {"cornet_z": cornet_z, "cornet_rt": CORnetRT, "cornet_s": cornet_s}


def cornet(name: str, *, weights: str, seed: int) -> Network:
    """Build a CORnet.

    Parameters
    ----------
    name : str
        A row of `MAKERS`.
    weights : str
        ``DEFAULT`` or ``IMAGENET1K``, ``none``, or a file.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    preprocess, preprocessing = standard_preprocess(224)
    make = partial(files.filled, MAKERS[name], seed=seed, name=name)
    module, label, sha256 = make(weights=weights, published={WEIGHTS: PUBLISHED[name]})
    return Network(
        name=name,
        module=module,
        preprocess=preprocess,
        preprocessing=preprocessing,
        weights=label,
        seed=seed if label == "none" else None,
        weights_sha256=sha256,
        source="bidsdnn",
        listed=(*AREAS, "decoder"),
    )
