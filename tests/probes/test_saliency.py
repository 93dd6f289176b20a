"""The analyses saliency and receptive-field: what they find of planted units, what they write, what they refuse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.config import Config
from bidsdnn.errors import ConfigError
from bidsdnn.inside import units_of
from bidsdnn.networks.appended import Readout, append
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import standard_preprocess
from bidsdnn.networks.reduction import Reduction
from bidsdnn.probes.attribution import METHODS, layers_of_maps
from bidsdnn.probes.overlays import flat, over, room, seen, spread, summary
from bidsdnn.probes.receptive import extent, receptive_field
from bidsdnn.probes.saliency import saliency
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli

SIZE = 32


class Corner(nn.Module):
    """Unit 0 is the red of the upper left quarter; unit 1 that of the lower right, taken off."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Linear(2 * 256, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, 0, 1, 1] = 1.0
            weight = torch.zeros(2, 2, 16, 16)
            weight[0, 0, :8, :8] = 1.0
            weight[1, 1, 8:, 8:] = -1.0
            self.out.weight.copy_(weight.flatten(1))

    def forward(self, x):
        return self.out(self.pool(self.relu(self.conv(x))).flatten(1))


def network_of(module, **more):
    preprocess, said = standard_preprocess(SIZE, resize=SIZE, mean=(0,) * 3, std=(1,) * 3)
    return Network("own", module.eval(), preprocess, said, "none", 0, "0" * 64, **more)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(11):
        Image.fromarray(rng.integers(20, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / f"{k:02}.png")
    return Stimuli.from_folder(folder)


UNITS = (Unit("out", 0), Unit("out", 1))


def test_maps_are_where_the_planted_units_look(pictures):
    network = network_of(Corner())
    result = saliency(network, pictures, units=UNITS, method=list(METHODS), samples=2, patch=4, show=2)
    assert set(result.numbers) == {"stim_id", "unit", "value", *METHODS}
    for name in METHODS:
        maps = np.abs(result.numbers[name])
        assert maps.shape == (2, 11, SIZE, SIZE)
        if name == "guided-backpropagation":  # what speaks against a unit is cut off
            assert not maps[1].any()
        else:
            share = [maps[0, :, :16, :16].sum() / maps[0].sum()]
            share += [] if name == "grad-cam" else [maps[1, :, 16:, 16:].sum() / maps[1].sum()]
            assert min(share) > (0.2 if name == "grad-cam" else 0.85), name
    table = result.tables["saliency"]
    assert len(table) == 2 * 11 * 7
    whole = table[table["method"] == "integrated-gradients"]
    assert np.allclose(whole["sum"], whole["value"], rtol=1e-3)
    assert (table.loc[(table["method"] == "occlusion") & (table["channel"] == 1), "sum"] < 0).all()
    assert table["error"].notna().sum() == 22
    best = result.pictures[0]
    assert best.unit == "out:0" and pictures.ids[int(result.numbers["value"][0].argmax())] in best.alt
    assert best.pixels.dtype == np.uint8 and "0 to the" not in best.caption


def test_the_batch_a_stimulus_is_in_changes_nothing(pictures):
    network = network_of(Corner())
    chosen = {"units": UNITS, "method": ["smoothgrad", "integrated-gradients"], "samples": 2, "seed": 3}
    whole = saliency(network, pictures, **chosen).numbers
    last = replace(pictures, table=pictures.table.iloc[[9]].reset_index(drop=True))
    alone = saliency(network, last, **chosen).numbers
    for name in chosen["method"]:
        np.testing.assert_allclose(alone[name][:, 0], whole[name][:, 9], rtol=1e-4, atol=1e-6)


def test_default_methods_are_those_that_fit(pictures, caplog):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2), nn.Tanh())
    result = saliency(network_of(module), pictures, units=[Unit("1", 0)])
    assert result.sidecar["Method"] == ["gradient", "gradient-x-input"]
    assert "leaves out guided-backpropagation: guided backpropagation met no ReLU" in caplog.text
    with pytest.raises(ValueError, match="no layer before 1 has maps; name one with cam_layer"):
        saliency(network_of(module), pictures, units=[Unit("1", 0)], method="grad-cam")


def test_what_cannot_be_is_refused(pictures):
    network = network_of(Corner())
    for chosen, error, said in (
        ({"method": "gradients"}, ConfigError, "did you mean gradient"),
        ({"method": []}, ConfigError, "name at least one"),
        ({"samples": 0}, ValueError, "samples, noise, tolerance, show: expected"),
        ({"method": "occlusion", "patch": 40}, ValueError, "does not cover 32 x 32 pixels"),
    ):
        with pytest.raises(error, match=said):
            saliency(network, pictures, units=UNITS, **chosen)
    whole = replace(network, preprocess=lambda picture: torch.zeros(3, SIZE, SIZE, dtype=torch.int64))
    with pytest.raises(ConfigError, match="its input is of int64, to which no gradient leads"):
        saliency(whole, pictures, units=UNITS)

    class Chosen(Corner):
        def forward(self, x):
            return nn.functional.one_hot(super().forward(x).argmax(1), 2).float()

    chosen = Chosen()
    chosen.last = nn.Identity()
    forward = chosen.forward
    chosen.forward = lambda x: chosen.last(forward(x))
    with pytest.raises(ValueError, match="no gradient leads from the unit to the input"):
        saliency(network_of(chosen), pictures, units=[Unit("last", 0)])


def test_half_precision_is_only_occluded(pictures):
    network = network_of(Corner().half())
    network = replace(network, preprocess=lambda picture, own=network.preprocess: own(picture).half())
    for method in (None, "gradient", ["occlusion", "gradient"]):
        with pytest.raises(ConfigError, match="its weights are float16"):
            saliency(network, pictures, units=UNITS, method=method)
    found = saliency(network, pictures, units=UNITS, method="occlusion", patch=8, step=8).numbers["occlusion"]
    full = saliency(network_of(Corner()), pictures, units=UNITS, method="occlusion", patch=8, step=8)
    np.testing.assert_allclose(found, full.numbers["occlusion"], rtol=0.02, atol=0.5)
    config = Config(
        bids_dir=Path("in"), out_dir=Path("out"), analysis_level="dnn", analysis=("saliency",), unit=("out:0",)
    )
    with pytest.raises(ConfigError, match="its weights are float16"):
        units_of(config, [(network, [])])
    only = config.model_copy(update={"parameters": {"saliency": {"method": "occlusion"}}})
    assert units_of(only, [(network, [])])[network.label] == (Unit("out", 0),)


def test_silent_units_say_what_would_wake_them(pictures):
    module = Corner()
    module.conv.bias = nn.Parameter(torch.full((2,), -5.0))
    network = network_of(module)
    units = [Unit("relu", 0), Unit("relu", 1, (3, 4))]
    result = saliency(network, pictures, units=units, method=["gradient", "occlusion"], patch=4, step=4)
    assert (result.numbers["value"] < -4).all()  # read before the rectification, which gives 0
    # The places that are equally near to the threshold share it.
    np.testing.assert_allclose(result.numbers["gradient"].sum((2, 3)), 1.0, rtol=1e-5)
    one = result.numbers["gradient"][1]
    assert one[:, 3, 4].all() and np.count_nonzero(one) == len(pictures)


def test_voxels_are_units_like_others(pictures):
    """A read-out of one place of the pooled map: its maps and its field are that place's four pixels."""
    weights = np.zeros((2 * 16 * 16, 2))
    weights[4 * 16 + 10, 1] = 3.0
    readout = Readout("pool", weights, np.array([0.5, -0.5]), np.zeros(512), Reduction())
    network = append(network_of(Corner()), [readout])
    units = [Unit("brain", 1, name="brain:early:1")]
    result = saliency(network, pictures, units=units, method=["gradient", "occlusion"], patch=2, step=2)
    for name, maps in result.numbers.items():
        if name in ("gradient", "occlusion"):
            assert (maps[0, :, 8:10, 20:22].reshape(len(pictures), -1).max(1) > 0).all(), name
            elsewhere = maps.copy()
            elsewhere[:, :, 8:10, 20:22] = 0
            np.testing.assert_allclose(elsewhere, 0, atol=1e-5)
    np.testing.assert_allclose(result.numbers["gradient"].sum((2, 3)), 3.0, rtol=1e-6)
    assert [one.name for one in result.pictures] == ["brain+early+1"]
    field = receptive_field(network, pictures, layers=["brain"], units=units, patch=2, step=2)
    assert field.tables["receptivefield"].set_index("layer").loc["brain", "whole"]
    measured = field.tables["receptivefieldunits"].set_index("method")
    assert measured.loc["occlusion", "sides"] == measured.loc["gradient", "sides"] == "2,2"
    assert measured.loc["occlusion", "centre"] == "8.5,20.5"


class Branches(nn.Module):
    """Two units side by side: the first reads `early` alone, the second `late`, which runs behind it."""

    def __init__(self):
        super().__init__()
        self.early, self.late, self.unread = (nn.Conv2d(3, 2, 3, padding=1) for _ in range(3))
        self.out = nn.Identity()

    def forward(self, x):
        early, late, _ = self.early(x), self.late(x), self.unread(x)
        return self.out(torch.stack([early.mean((1, 2, 3)), late.square().mean((1, 2, 3))], 1))


def test_grad_cam_takes_the_last_maps_that_the_unit_reads(pictures):
    module = Corner().eval()
    batch = torch.zeros(1, 3, SIZE, SIZE)
    assert layers_of_maps(module, batch, UNITS) == ["relu#1", "relu#1"]
    assert layers_of_maps(module, batch, [Unit("relu", 0)]) == ["conv#1"]
    assert layers_of_maps(module, batch, [Unit("conv", 0)]) == [""]
    network = network_of(Branches())
    both = saliency(network, pictures, units=UNITS, method="grad-cam")
    assert both.sidecar["GradCAMLayers"] == {"out:0": "early#1", "out:1": "late#1"}
    for k, layer in enumerate(("early", "late")):
        alone = saliency(network, pictures, units=UNITS[k : k + 1], method="grad-cam", cam_layer=layer)
        np.testing.assert_allclose(both.numbers["grad-cam"][k], alone.numbers["grad-cam"][0], rtol=1e-5, atol=1e-7)


class Moving(nn.Module):
    """Over frames, rows and columns, or over samples."""

    def __init__(self, kind):
        super().__init__()
        self.conv = nn.Conv3d(3, 2, (1, 3, 3)) if kind == "video" else nn.Conv1d(1, 2, 9, stride=4)
        self.relu = nn.ReLU()
        self.kind = kind

    def forward(self, x):
        return self.relu(self.conv(x if self.kind == "video" else x[:, None]))


@pytest.mark.parametrize(("kind", "shape"), [("video", (3, 4, 10, 12)), ("audio", (400,))])
def test_films_and_sounds_have_maps(kind, shape, tmp_path):
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(3, *shape, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = replace(network_of(Moving(kind)), modality=kind)
    table = pd.DataFrame({"filename": ["a", "b", "c"], "modality": kind, "sha256": ""}, index=["a", "b", "c"])

    class Few:
        ids, paths = ["a", "b", "c"], ["a", "b", "c"]

        def __len__(self):
            return 3

        def read(self, row):
            return row

    few = Few()
    few.table = table
    network = replace(network, preprocess=lambda row: given[row if isinstance(row, int) else 0])
    result = saliency(network, few, units=[Unit("relu", 1)], method=list(METHODS), samples=2, patch=3)
    sizes = shape[1:] if kind == "video" else shape
    for name in METHODS:
        assert result.numbers[name].shape == (1, 3, *sizes)
    assert result.pictures[0].pixels.ndim == 3
    fields = receptive_field(network, few, units=[Unit("relu", 1)], layers=["conv"], patch=3)
    units = fields.tables["receptivefieldunits"].set_index("method")
    assert units.loc["theoretical", "sides"] == ("1,3,3" if kind == "video" else "9")
    assert units.loc["gradient", "sides"] == units.loc["theoretical", "sides"]


def test_fields_of_units_are_measured(pictures):
    network = network_of(Corner())
    with torch.no_grad():
        network.module.conv.weight.fill_(0.1)
    unit = Unit("conv", 0, (10, 20))
    result = receptive_field(network, pictures, layers=["pool"], units=[unit], patch=1)
    table = result.tables["receptivefield"].set_index("layer")
    assert table.loc["conv", "size"] == "3,3" and table.loc["conv", "start"] == "-1,-1"
    assert table.loc["pool", "size"] == "4,4" and table.loc["pool", "jump"] == "2,2"
    assert table.loc["pool", "middle"] == "16.5,16.5"
    units = result.tables["receptivefieldunits"].set_index("method")
    for name in ("theoretical", "gradient", "occlusion"):
        assert units.loc[name, "sides"] == "3,3", name
        assert units.loc[name, "size"] == pytest.approx(3), name
    assert units.loc["gradient", "centre"] == "10,20"
    maps = result.numbers["occlusion"][0]
    assert (maps > 0).sum() == 9
    assert "activation" in result.numbers
    assert result.pictures[0].pixels.shape[2] == 3
    only = receptive_field(network, pictures, layers=["conv"])
    assert set(only.tables) == {"receptivefield"} and not only.pictures and not only.numbers
    with pytest.raises(ConfigError, match="did you mean theoretical"):
        receptive_field(network, pictures, units=[unit], method="theoretic")
    with pytest.raises(ValueError, match="n, threshold"):
        receptive_field(network, pictures, units=[unit], n=0)


def test_activation_maps_meet_at_their_peaks(pictures):
    """A channel that answers a bright dot: wherever it is, the mean map has its peak in the middle."""
    network = network_of(Corner())
    result = receptive_field(network, pictures, units=[Unit("pool", 0)], method="activation")
    maps = result.numbers["activation"][0]
    assert np.unravel_index(maps.argmax(), maps.shape) == (16, 16)


def test_maps_in_numbers_and_colours():
    values = np.zeros((4, 5), dtype=np.float32)
    values[1, 3], values[2, 3] = -3.0, 1.0
    found = summary(values)
    assert found == {"sum": -2.0, "largest": -3.0, "peak": "1,3", "centre": "1.2,3", "half": 1 / 20}
    assert np.isnan(summary(np.zeros(3))["half"])
    assert summary(np.ones((2, 5)))["half"] == 0.5
    assert extent(values.clip(0), 0.5) == {"size": 1.0, "sides": "1,1", "centre": "2,3"}
    assert flat(np.arange(24).reshape(2, 3, 4)).tolist() == np.arange(12, 24).reshape(3, 4).tolist()
    wave = np.zeros(1000)
    wave[10] = -5
    assert flat(wave).min() == -5
    picture = seen(np.random.default_rng(0).random((3, 4, 5)))
    assert picture.shape == (224, 280, 3)[:0] + picture.shape and picture.min() == 0 and picture.max() == 255
    red, blue = over(np.array([[1.0, -1.0]]), np.full((2, 4, 3), 128, np.uint8), signed=True)[0, [0, 3]]
    assert red[0] > red[2] and blue[2] > blue[0]
    dots = np.zeros((200, 200))
    dots[50, 50], dots[52, 50], dots[150, 150] = 1.0, -2.0, -1.0
    wide = spread(dots)
    assert wide[49, 49] == 1.0 and wide[51, 50] == -2.0 and wide[151, 151] == -1.0 and wide[48, 50] == 0.0
    assert np.count_nonzero(wide) == 9 + 6 + 9
    shown = over(dots, np.full((200, 200, 3), 128, np.uint8), signed=True)
    assert shown[151, 151, 2] > shown[151, 151, 0] and shown[49, 49, 0] > shown[49, 49, 2]


def test_many_maps_wait_in_a_file(monkeypatch):
    monkeypatch.setattr("bidsdnn.probes.overlays.IN_MEMORY", 100)
    large = room((3, 10))
    assert isinstance(large, np.memmap) and not large.any()
    large[1] = 2.0
    assert large.sum() == 20.0
    assert not isinstance(room((2, 2)), np.memmap)


@pytest.fixture(scope="module")
def few(demo_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    for path in sorted((demo_dataset / "stimuli").glob("*.png"))[:2]:
        shutil.copy(path, folder)
    return folder


def test_both_are_written_and_shown(demo_dataset, few, tmp_path, undrawn):
    from bidsdnn.bids.files import read_table
    from bidsdnn.cli import main

    out = tmp_path / "out"
    asked = ["--network", "demo", "--stimuli-dir", str(few), "--unit", "conv2:3,8,8", "fc:1"]
    assert main([str(demo_dataset), str(out), "dnn", *asked, "--analysis", "saliency", "receptive-field"]) == 0
    stimuli = out / "stimuli"
    table = read_table(stimuli / "model-demo+none+seed0_desc-saliency_results.tsv")
    assert len(table) == 2 * 2 * 4 and table["sum"].notna().all()
    fields = read_table(stimuli / "model-demo+none+seed0_desc-receptivefield_results.tsv")
    assert set(fields["layer"]) >= {"conv2", "fc"}
    assert (stimuli / "model-demo+none+seed0_desc-receptivefieldunits_results.tsv").exists()
    assert (stimuli / "model-demo+none+seed0_desc-saliency_arrays.h5").exists()
    page = (out / "dnn.html").read_text()
    assert page.count("<img") >= 4 and "Simonyan" in page and "Luo" in page
