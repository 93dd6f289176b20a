"""Cut networks and shuffled weights: what units give, what later layers make of it, and that bytes are the same."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.bids.arrays import read_activations
from bidsdnn.config import resolve_config
from bidsdnn.cuts import parse_cut, with_cuts
from bidsdnn.errors import ConfigError
from bidsdnn.networks import zoo
from bidsdnn.networks.extract import extract
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.surgery import ablate, shuffled_weights, with_tensor
from bidsdnn.stimuli import Stimuli


class Twice(nn.Module):
    """A module that is called twice, an in-place activation, and a layer that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pair = Pair()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        maps = self.relu(self.second(self.relu(self.conv(x))))
        return self.head(self.pair(maps)[0])


class Pair(nn.Module):
    def forward(self, maps):
        return maps.mean((2, 3)), maps


def network(seed: int = 0, size: int = 8) -> Network:
    torch.manual_seed(seed)

    def preprocess(image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[:, :size, :size] / 255)

    return Network("twice", Twice().eval(), preprocess, f"{size} pixels", "none", seed, f"hash{seed}")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory) -> Stimuli:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(rng.integers(0, 255, size=(64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return Stimuli.from_folder(folder).with_hashes()


def seen(net: Network, layers, batch):
    with Recorder(net.module, layers) as record, torch.no_grad():
        return record(batch)


def batch_of(net: Network, stimuli: Stimuli):
    return torch.stack([net.preprocess(stimuli.read(row)) for row in range(len(stimuli))])


def test_channels_give_zero_bias_included_and_the_rest_follows(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    nn.init.constant_(net.module.conv.bias, 3.0)
    cut = ablate(net, {"conv": [1, 3]})
    whole, less = (seen(n, ["conv", "second", "head"], batch) for n in (net, cut))
    assert (less["conv"][:, [1, 3]] == 0).all() and (whole["conv"][:, [1, 3]] != 0).any()
    assert torch.equal(less["conv"][:, [0, 2]], whole["conv"][:, [0, 2]])
    # The formula written out: the next layer on the cut maps.
    with torch.no_grad():
        maps = net.module.conv(batch)
        maps[:, [1, 3]] = 0
        expected = net.module.second(torch.relu(maps))
    assert torch.equal(less["second"], expected)
    assert not torch.allclose(less["head"], whole["head"])
    assert torch.equal(seen(net, ["head"], batch)["head"], whole["head"])  # the intact one stays intact
    assert cut.weights_sha256 != net.weights_sha256 and cut.label == "twice+none+seed0+without+conv+1+3"
    assert cut.layers == net.layers and cut.changes == ("2 units of conv were set to zero",)
    assert cut.module.conv.weight is net.module.conv.weight  # no second copy in memory


def test_one_unit_and_one_call(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    one = seen(ablate(net, {"conv": [(2, 4, 5)]}), ["conv"], batch)["conv"]
    whole = seen(net, ["conv", "relu#1", "relu#2"], batch)
    changed = one != whole["conv"]
    assert changed.any() and changed[:, 2, 4, 5].sum() == changed.sum()
    second = seen(ablate(net, {"relu#2": None}), ["relu#1", "relu#2"], batch)
    assert torch.equal(second["relu#1"], whole["relu#1"]) and (second["relu#2"] == 0).all()
    both = seen(ablate(net, {"relu": [0]}), ["relu#1", "relu#2"], batch)
    assert (both["relu#1"][:, 0] == 0).all() and (both["relu#2"][:, 0] == 0).all()


def test_mean_is_each_channels_mean_over_stimuli_and_positions(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    expected = seen(net, ["second"], batch)["second"].double().mean((0, 2, 3)).float()
    cut = ablate(net, {"second": [0, 2]}, to="mean", stimuli=stimuli, batch_size=3)
    found = seen(cut, ["second"], batch)["second"]
    for channel in (0, 2):
        torch.testing.assert_close(found[:, channel], expected[channel].expand(7, 8, 8))
    pair = ablate(net, {"pair": [1]}, to="mean", stimuli=stimuli)
    torch.testing.assert_close(
        seen(pair, ["pair"], batch)["pair"][:, 1], seen(net, ["pair"], batch)["pair"][:, 1].mean().expand(7)
    )


def test_shuffled_is_another_stimulus_and_depends_on_no_batch(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    whole = seen(net, ["second"], batch)["second"]
    cut = ablate(net, {"second": [0, 1]}, to="shuffled", stimuli=stimuli, seed=1)
    found = seen(cut, ["second"], batch)["second"]
    donors = [[j for j in range(7) if torch.equal(found[i, :2], whole[j, :2])] for i in range(7)]
    assert all(len(some) == 1 and some != [i] for i, some in enumerate(donors))  # all units of one other stimulus
    assert torch.equal(found[:, 2:], whole[:, 2:])
    order = torch.tensor([4, 0, 6])
    torch.testing.assert_close(seen(cut, ["second"], batch[order])["second"], found[order], rtol=0, atol=1e-6)
    for other in (copy.deepcopy(cut.module), pickle.loads(pickle.dumps(cut.module))):
        with Recorder(other, ["second"]) as record, torch.no_grad():
            assert torch.equal(record(batch)["second"], found)
    again = ablate(net, {"second": [0, 1]}, to="shuffled", stimuli=stimuli, seed=2)
    assert again.weights_sha256 != cut.weights_sha256
    assert not torch.equal(seen(again, ["second"], batch)["second"], found)


def test_bytes_do_not_depend_on_workers(stimuli, tmp_path):
    for to in ("mean", "shuffled"):
        cut = ablate(zoo.build("demo"), {"conv3": None}, to=to, stimuli=stimuli)
        tables = []
        for workers in (1, 3):
            path = tmp_path / f"{to}{workers}.h5"
            extract(cut, stimuli, ["conv3", "fc"], path, workers=workers, batch_size=2)
            tables.append([values[:, :] for values in read_activations(path, ["conv3", "fc"])[1]])
        assert all(np.array_equal(a, b) for a, b in zip(*tables, strict=True))


def test_gradients_go_through_what_is_left(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    cut = ablate(net, {"conv": [0, 1, 2]})
    pixels = batch.requires_grad_()
    maps = cut.module(pixels).sum()
    (gradient,) = torch.autograd.grad(maps, pixels)
    assert torch.isfinite(gradient).all() and (gradient != 0).any()
    nothing = ablate(net, {"conv": None}).module(pixels)
    (gradient,) = torch.autograd.grad(nothing.sum(), pixels, allow_unused=True)
    assert gradient is None or (gradient == 0).all()


def test_cuts_add_up(stimuli):
    net, batch = network(), batch_of(network(), stimuli)
    together = seen(ablate(net, {"conv": [0], "second": [1]}), ["head"], batch)["head"]
    in_turn = seen(ablate(ablate(net, {"conv": [0]}), {"second": [1]}), ["head"], batch)["head"]
    assert torch.equal(together, in_turn)


@pytest.mark.parametrize(
    ("cut", "options", "said"),
    [
        ({"conv": [4]}, {}, r"conv:4: no such unit; the layer's shape is \(4, 8, 8\), with 4 channels"),
        ({"conv": [(0, 8, 0)]}, {}, "conv:0,8,0: no such unit"),
        ({"convs": None}, {}, "layer 'convs' is not in the network"),
        ({"conv": []}, {}, "expected units to cut, got none"),
        ({"conv": None}, {"to": "mean"}, "expected stimuli to measure it on"),
        ({"conv": None}, {"to": "noise"}, "choose one of zero, mean, shuffled"),
    ],
)
def test_bad_cuts(cut, options, said):
    with pytest.raises(ConfigError, match=said):
        ablate(network(), cut, **options)


def test_shuffling_among_equal_pictures(stimuli):
    with pytest.raises(ConfigError, match="expected stimuli that differ"):
        ablate(network(), {"conv": None}, to="shuffled", stimuli=stimuli.select(stimuli.ids[:1]))


def test_shuffled_weights_keep_their_values_and_nothing_else():
    net = network()
    net.module.pair.few = nn.Parameter(torch.arange(6, dtype=torch.bfloat16))
    one, same, other = (shuffled_weights(net, seed=seed) for seed in (0, 0, 1))
    for name, parameter in net.module.named_parameters():
        new = one.module.get_parameter(name)
        assert new.dtype == parameter.dtype
        assert torch.equal(new.flatten().sort().values, parameter.flatten().sort().values)
        assert torch.equal(new, same.module.get_parameter(name))
    assert not torch.equal(one.module.conv.weight, net.module.conv.weight)
    assert not torch.equal(one.module.conv.weight, other.module.conv.weight)
    assert len({one.weights_sha256, other.weights_sha256, net.weights_sha256}) == 3
    built = zoo.build("demo", weights="shuffled", seed=3)
    assert built.label == f"demo+shuffled+none+{built.weights_sha256[:8]}"
    with pytest.raises(ConfigError, match="no weights that could be shuffled"):
        shuffled_weights(Network("n", nn.ReLU(), net.preprocess, "", "none", 0, "x"), seed=0)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("conv3", ("", "conv3", None)),
        ("conv3:0,5", ("", "conv3", (0, 5))),
        ("demo:conv3", ("demo", "conv3", None)),
        ("timm:resnet18:layer1.*:7", ("timm:resnet18", "layer1.*", (7,))),
    ],
)
def test_parse(text, read):
    assert parse_cut(text) == read


@pytest.mark.parametrize("text", ["", ":3", "demo:", "conv3:1,x", "conv3:-1,2"])
def test_parse_refuses(text):
    with pytest.raises(ConfigError, match=r"--ablate .*expected"):
        parse_cut(text)


def asked(tmp_path, *cuts, **values):
    folders = {"bids_dir": str(tmp_path / "in"), "out_dir": str(tmp_path / "out")}
    return resolve_config({**folders, "analysis_level": "dnn", "ablate": [*cuts], **values})


def test_cut_beside_or_in_place(tmp_path):
    nets = [zoo.build("demo"), zoo.build("demo", alias="cut")]
    found = with_cuts(nets, asked(tmp_path, "cut:conv3:0", "conv5"))
    assert [net.label for net in found] == [
        "demo+none+seed0", "demo+none+seed0+without+conv5", "cut", "cut+without+conv5",
    ]  # fmt: skip
    assert [len(net.changes) for net in found] == [0, 1, 1, 2]
    assert len({net.weights_sha256 for net in found}) == 4
    unnamed = with_cuts([zoo.build("demo")], asked(tmp_path, "demo:conv3"))
    assert [net.label for net in unnamed] == ["demo+none+seed0+without+conv3"]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("alexnet:conv3", "no network is called 'alexnet'"),
        ("conv9", "no layer of demo.*conv"),
        ("demo:conv9", "no layer of demo"),
        ("conv3:32", r"conv3:32: no such unit; the layer's shape is \(32,\)"),
    ],
)
def test_cuts_that_cannot_be_made(tmp_path, cut, said):
    with pytest.raises(ConfigError, match=rf"--ablate.*{said}"):
        with_cuts([zoo.build("demo")], asked(tmp_path, cut))


def test_first_tensor_of_named_tuples_and_mappings():
    import collections

    pair = collections.namedtuple("pair", "a b")
    one = torch.ones(2)
    found = with_tensor({"n": None, "p": pair(None, one)}, torch.neg)
    assert torch.equal(found["p"].b, -one) and found["n"] is None and isinstance(found["p"], pair)
