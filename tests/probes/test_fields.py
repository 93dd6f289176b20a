"""Receptive fields against gradients of the same architectures, and against numbers from arithmetic."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from bidsdnn.networks.network import canonical_layers
from bidsdnn.probes.fields import receptive_fields


class Open(TorchFunctionMode):
    """Lets every gradient pass: no rectification, and the mean in the place of the maximum."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (F.relu, F.hardtanh, torch.relu):
            return args[0] * 1.0
        if func is F.max_pool2d:
            same = {key: kwargs[key] for key in ("stride", "padding", "ceil_mode") if kwargs.get(key) is not None}
            return F.avg_pool2d(args[0], *args[1:4], **same)
        return func(*args, **kwargs)


def positive(module):
    """Weights that are all positive, so that no two ways of the gradient cancel."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_().add_(0.01)
    return module


def seen_by(module, picture, layer, position):
    """The box of pixels that a unit's gradient reaches."""
    kept = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output * 1))
    given = picture.clone().requires_grad_()
    with Open():
        module(given)
    handle.remove()
    kept[-1][(0, slice(None), *position)].sum().backward()  # channels of one layer may differ, as those of Inception
    there = given.grad[0].abs().sum(0) > 0
    rows, columns = there.any(1).nonzero().flatten(), there.any(0).nonzero().flatten()
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def no_weights(name):
    more = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)(weights=None, **more)
    if name in ("alexnet", "vgg11"):  # whose linear layers hold most of the weights, and see the whole picture
        module.classifier = nn.Linear(module.classifier[-6 if name == "alexnet" else 0].in_features, 3)
    return module


SIZES = {"alexnet": 131, "vgg11": 64, "resnet18": 64, "squeezenet1_1": 99, "mobilenet_v2": 64, "googlenet": 64}
SLOW = {"densenet121": 96, "inception_v3": 139, "shufflenet_v2_x0_5": 96, "resnet50": 96, "mnasnet0_5": 96}
CASES = [*SIZES.items(), *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW.items())]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_fields_are_what_gradients_reach(name, size):
    module = positive(no_weights(name))
    picture = torch.rand(1, 3, size, size + 3, dtype=torch.float64)
    layers = canonical_layers(module)
    fields = receptive_fields(module, picture, layers)
    assert list(fields) == layers
    shapes = {}
    handles = [
        module.get_submodule(layer).register_forward_hook(lambda _, __, o, layer=layer: shapes.update({layer: o.shape}))
        for layer in layers
    ]
    with torch.no_grad():
        module(picture)
    for handle in handles:
        handle.remove()
    maps = [layer for layer in layers if not fields[layer].whole]
    assert len(maps) >= 5
    narrow = 0
    for layer in maps[::2]:
        height, width = shapes[layer][2:]
        for position in ((height // 2, width // 2), (0, width - 1)):
            box = seen_by(module, picture, layer, position)
            assert fields[layer].box(position) == box, layer
            narrow += box != ((0, size), (0, size + 3))
    assert narrow >= 3
    assert all(fields[layer].whole for layer in layers if len(shapes[layer]) == 2)


def field_of(module, shape):
    picture = torch.zeros(1, *shape)
    name = [name for name, _ in module.named_modules() if name][-1]
    return receptive_fields(module.eval(), picture, [name])[name]


def test_sizes_beyond_the_picture_are_those_of_the_published_arithmetic():
    """Known sizes: 195 pixels of AlexNet's last pooling, 212 of VGG-16's, and 435 of ResNet-18's last block."""
    for name, layer, size, jump in (
        ("alexnet", "features.12", 195, 32), ("vgg16", "features.30", 212, 32), ("resnet18", "layer4", 435, 32),
    ):  # fmt: skip
        with torch.device("meta"):
            module = getattr(torchvision.models, name)(weights=None)
        module = nn.Sequential(OrderedDict(list(module.named_children())[:-2])).to_empty(device="cpu").eval()
        for tensor in module.state_dict().values():
            tensor.zero_()
        field = receptive_fields(module, torch.zeros(1, 3, 64, 64), [layer])[layer]
        assert (field.size, field.jump) == ((size, size), (jump, jump))


@pytest.mark.parametrize(
    ("steps", "shape", "expected"),
    [
        ([nn.Conv1d(1, 2, 5, stride=2, dilation=3)], (1, 40), ((0,), (13,), (2,))),
        ([nn.Conv3d(1, 2, (1, 3, 3), padding=1), nn.AvgPool3d((2, 1, 1))], (1, 6, 8, 8),
         ((-1,) * 3, (2, 3, 3), (2, 1, 1))),
        ([nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(1, 2, 3)], (1, 9, 9), ((-3, -1), (3, 3), (1, 1))),
        ([nn.Conv2d(1, 2, 3, padding="same", dilation=2), nn.GELU()], (1, 9, 9), ((-2, -2), (5, 5), (1, 1))),
        ([nn.AdaptiveAvgPool2d(4), nn.Hardswish()], (1, 8, 12), ((0, 0), (2, 3), (2, 3))),
        ([nn.Conv2d(1, 4, 3), nn.ChannelShuffle(2), nn.Dropout(), nn.BatchNorm2d(4)], (1, 8, 8),
         ((0, 0), (3, 3), (1, 1))),
    ],
)  # fmt: skip
def test_operations_widen_fields(steps, shape, expected):
    field = field_of(nn.Sequential(*steps), shape)
    assert (field.start, field.size, field.jump) == expected


class Tokens(nn.Module):
    """Channels to the end and back, as ConvNeXt does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Linear(8, 8)
        self.back = nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        return self.back(x + self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))


def test_axes_are_followed_where_channels_go_last():
    picture = torch.zeros(1, 3, 24, 24)
    fields = receptive_fields(Tokens().eval(), picture, ["norm", "mlp", "back"])
    assert [fields[name].axes for name in fields] == [(1, 2), (1, 2), (2, 3)]
    assert all((field.size, field.jump) == ((4, 4), (4, 4)) for field in fields.values())


class Gated(nn.Module):
    """Squeeze and excitation: every place depends on the whole picture."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Hardsigmoid())
        self.out = nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        return self.out(x * self.gate(x))


def test_what_mixes_places_sees_the_whole_picture():
    fields = receptive_fields(Gated().eval(), torch.zeros(1, 3, 9, 9), ["conv", "gate", "out"])
    assert not fields["conv"].whole and fields["gate"].whole and fields["out"].whole
    assert field_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(196, 2)), (3, 9, 9)).whole
    assert field_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softmax2d()), (3, 9, 9)).size == (3, 3)
    assert field_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)), (3, 9, 9)).whole
    assert field_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2)), (3, 9, 9)).whole


def test_attention_sees_the_whole_picture():
    module = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    fields = receptive_fields(
        module, torch.zeros(1, 3, 32, 32), ["conv_proj", "encoder.layers.encoder_layer_0", "heads"]
    )
    assert fields["conv_proj"].size == (8, 8) and fields["conv_proj"].jump == (8, 8)
    assert fields["encoder.layers.encoder_layer_0"].whole and fields["heads"].whole
