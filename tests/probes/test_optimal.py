"""Optimal stimuli: what canvases and moves do, the ascent against what it must reach, and what stops it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks import zoo
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import standard_preprocess
from bidsdnn.probes.ascent import Climb, ascend, likeness
from bidsdnn.probes.canvas import Fourier, Pixelwise, colour_mixing, moved, roughness
from bidsdnn.probes.driving import drive
from bidsdnn.probes.optimal import natural_drive, optimal_stimulus, own_drive, score
from bidsdnn.probes.pixels import Pixels, from_bytes, to_bytes
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli

SHORT = {"steps": 80}


def generators(n, seed=0):
    return [torch.Generator().manual_seed(seed + number) for number in range(n)]


def smooth(n=2, size=(12, 10)):
    pictures = torch.rand(n, 3, 3, 3, generator=torch.Generator().manual_seed(5))
    return 0.1 + 0.8 * nn.functional.interpolate(pictures, size, mode="bilinear")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    """Eight pictures of coloured noise, coarse and fine."""
    folder, rng = tmp_path_factory.mktemp("shown"), np.random.default_rng(0)
    names = [f"s{number}.png" for number in range(8)]
    for number, name in enumerate(names):
        side = 2 ** (2 + number % 3)
        pixels = rng.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR).save(folder / name)
    table = pd.DataFrame({"stimulus_id": names, "filename": names, "modality": "image", "sha256": ""})
    return Stimuli(table, folder)


@pytest.fixture(scope="module")
def demo():
    return zoo.build("demo", weights="none", seed=0)


def own(module, size=16, mean=(0.5, 0.5, 0.5)):
    preprocess, words = standard_preprocess(size, resize=size, mean=mean, std=(0.5, 0.5, 0.5))
    return Network("own", module.eval(), preprocess, words, "none", 0, "0" * 64)


# canvases and moves


@pytest.mark.parametrize("mixing", [torch.eye(3), colour_mixing(np.random.default_rng(0).random((50, 3)))])
@pytest.mark.parametrize("canvas", [Pixelwise, Fourier])
def test_a_picture_to_start_from_is_drawn_again(canvas, mixing):
    for size in ((12, 10), (9, 11)):
        made = canvas(generators(2), size, mixing)
        pictures = smooth(2, size)
        torch.testing.assert_close(made.pictures(made.inverse(pictures)), pictures, atol=1e-5, rtol=0)
        before = made.values
        made.start(pictures)
        noise = torch.logit(made.pictures(made.values)) - torch.logit(pictures)
        assert 0 < noise.std() < 0.3
        torch.testing.assert_close(made.values - before, made.inverse(pictures))


def test_the_spectrum_of_noise_falls_as_one_over_f():
    made = Fourier(generators(200), (32, 32), torch.eye(3))
    power = torch.fft.rfft2(torch.logit(made.pictures(made.values)), norm="ortho").abs().square().mean((0, 1))
    ratio = power[0, 2:15:4] * torch.arange(2, 15, 4) ** 2
    np.testing.assert_allclose(ratio / ratio[0], 1, rtol=0.2)
    flat = Fourier(generators(2), (32, 32), torch.eye(3), decay=0)
    plain = Pixelwise(generators(2), (32, 32), torch.eye(3))
    torch.testing.assert_close(flat.pictures(flat.values), plain.pictures(plain.values), atol=1e-6, rtol=0)


def test_colours_are_mixed_as_they_covary():
    rng = np.random.default_rng(1)
    true = np.array([[3, 1, 0], [1, 2, 0.5], [0, 0.5, 1]])
    mixing = colour_mixing(rng.standard_normal((20000, 3)) @ np.linalg.cholesky(true).T).numpy()
    np.testing.assert_allclose(mixing @ mixing.T, true / np.linalg.eigvalsh(true)[-1], atol=0.03)
    grey = colour_mixing(np.repeat(rng.random((50, 1)), 3, axis=1)).numpy()
    np.testing.assert_allclose(np.linalg.eigvalsh(grey), [0.1, 0.1, 1], atol=1e-5)
    assert torch.equal(colour_mixing(np.ones((5, 3))), torch.eye(3))


def test_moves_are_shifts_scalings_and_turns():
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 8:12, 20:24] = 1
    still = moved(picture, torch.tensor([[0.0, 0, 1, 0]]))
    torch.testing.assert_close(still, picture, atol=1e-5, rtol=0)
    shifted = moved(picture, torch.tensor([[4 / 32, -2 / 32, 1, 0]]))
    torch.testing.assert_close(shifted, picture.roll((4, -2), (2, 3)), atol=1e-4, rtol=0)
    larger = moved(picture, torch.tensor([[0.0, 0, 1.5, 0]]))
    assert larger.sum() == pytest.approx(1.5**2 * float(picture.sum()), rel=0.02)
    quarter = moved(picture, torch.tensor([[0.0, 0, 1, torch.pi / 2]]))
    turned = [picture.rot90(k, (2, 3)) for k in (1, -1)]
    assert min((quarter - one).abs().max() for one in turned) < 1e-4


def test_roughness_is_the_mean_difference_of_neighbours():
    stripes = torch.zeros(1, 3, 6, 6)
    stripes[..., ::2, :] = 1
    assert roughness(torch.cat([stripes, torch.ones(1, 3, 6, 6)])).tolist() == [1, 0]


@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
def test_preparations_of_colours_are_measured(channels):
    standard, words = standard_preprocess(12, resize=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    change = {
        "rgb": lambda x: x, "bgr": lambda x: 255 * x.flip(0), "grey": lambda x: x.mean(0, keepdim=True),
    }[channels]  # fmt: skip
    network = Network("own", nn.Identity(), lambda image: change(standard(image)), words, "none", 0, "")
    prepared = Pixels.of(network)
    picture = smooth(1, (12, 12))
    expected = network.preprocess(Image.fromarray(to_bytes(picture)[0]))
    pictures = from_bytes(to_bytes(picture))
    torch.testing.assert_close(prepared.to_input(pictures)[0], expected, atol=1e-4, rtol=1e-4)
    if channels != "grey":
        torch.testing.assert_close(prepared.to_pictures(prepared.to_input(pictures)), pictures, atol=1e-4, rtol=0)


def test_preparations_by_the_picture_itself_are_refused():
    standard, words = standard_preprocess(12)

    def by_itself(image):
        x = standard(image)
        return x - x.mean()

    with pytest.raises(ConfigError, match="another for each picture"):
        Pixels.of(Network("own", nn.Identity(), by_itself, words, "none", 0, ""))


# ascent


class Towards:
    """A drive whose best picture is known."""

    def __init__(self, target):
        self.target = target

    def __call__(self, pictures):
        return -((pictures - self.target) ** 2).flatten(1).sum(1), None


@pytest.mark.parametrize("canvas", [Pixelwise, Fourier])
def test_the_ascent_reaches_the_best_picture(canvas):
    target = smooth(2, (8, 8))
    plain = Climb(steps=400, jitter=0, scaling=0, rotation=0, tv=0, l2=0)
    found = ascend(Towards(target), canvas(generators(2), (8, 8), torch.eye(3)), plain, generators(2))
    assert (found.pictures - target).abs().max() < 0.02
    assert (found.stopped == -1).all() and found.curve[-1].min() > -0.01


MEASURES = {
    "tv": roughness,
    "l1": lambda pictures: (pictures - 0.5).abs().mean((1, 2, 3)),
    "l2": lambda pictures: ((pictures - 0.5) ** 2).mean((1, 2, 3)),
}


@pytest.mark.parametrize(("name", "measure"), MEASURES.items())
def test_each_penalty_lowers_what_it_is_on(name, measure):
    def made(weight):
        climb = Climb(steps=80, jitter=0, scaling=0, rotation=0, **{"tv": 0, "l2": 0, name: weight})
        return ascend(Towards(smooth(2, (8, 8))), Pixelwise(generators(2), (8, 8), torch.eye(3)), climb, generators(2))

    assert (measure(made(200.0).pictures) < 0.7 * measure(made(0.0).pictures)).all()


def test_nan_stops_one_picture_at_its_last_good_state_and_no_other():
    target = smooth(3, (8, 8))
    plain = Climb(steps=30, jitter=0, scaling=0, rotation=0)

    class Breaks(Towards):
        calls, at = 0, 12

        def __call__(self, pictures):
            given, _ = super().__call__(pictures)
            self.calls += 1
            bad = torch.tensor([0, torch.nan if self.calls > self.at else 0, 0])
            return given + bad, None

    def made(drive, steps):
        climb = Climb(steps=steps, jitter=0, scaling=0, rotation=0)
        return ascend(drive, Pixelwise(generators(3), (8, 8), torch.eye(3)), climb, generators(3))

    found, whole = made(Breaks(target), plain.steps), made(Towards(target), plain.steps)
    assert found.stopped.tolist() == [-1, 12, -1]
    torch.testing.assert_close(found.pictures[[0, 2]], whole.pictures[[0, 2]])
    # Twelve good steps: the last state whose loss is known to be finite is that after eleven changes.
    torch.testing.assert_close(found.pictures[1], made(Towards(target), 11).pictures[1])
    assert np.isnan(found.curve[12:, 1]).all() and np.isfinite(found.curve[:12, 1]).all()


def test_likeness_is_the_mean_cosine_with_the_others():
    features = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    half = 0.5**0.5
    torch.testing.assert_close(likeness(features), torch.tensor([half / 2, half / 2, half]))
    assert likeness(features[:1]).tolist() == [0]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": 0}, {"scaling": 1}, {"tv": -1}, {"jitter": float("nan")}])
def test_climbs_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Climb(**wrong)


# units of networks

UNITS = [
    Unit("conv1", 2),
    Unit("conv2", 3),
    Unit("conv3", 3),
    Unit("conv5", 5),
    Unit("conv3", 11),
    Unit("conv1", 9, (4, 20)),
]


def test_each_picture_gives_its_own_units_number(demo, stimuli):
    x = torch.stack([demo.preprocess(stimuli.read(row)) for row in range(len(UNITS))])
    for silent in (False, True):
        every = drive(demo.module, x, UNITS, silent=silent)
        torch.testing.assert_close(own_drive(demo.module, x, UNITS, silent=silent)[0], every.diagonal())


@pytest.fixture(scope="module")
def made(demo, stimuli):
    return optimal_stimulus(demo, stimuli, units=UNITS, **SHORT)


def test_the_optimum_raises_the_unit_above_every_stimulus(demo, stimuli, made):
    table = made.tables["optimalstimulus"]
    with torch.inference_mode():
        shown = drive(
            demo.module, torch.stack([demo.preprocess(stimuli.read(i)) for i in range(8)]), UNITS, silent=False
        )
        given = [demo.preprocess(Image.fromarray(one.pixels)) for one in made.pictures]
        reached = drive(demo.module, torch.stack(given), UNITS, silent=False).diagonal()
    np.testing.assert_allclose(table["activation"], reached, rtol=1e-3)
    np.testing.assert_allclose(table["natural_activation"], shown.amax(0), rtol=1e-4)
    assert table["natural_stimulus_id"].tolist() == [stimuli.ids[i] for i in shown.argmax(0)]
    assert table["above_natural"].all() and table["stopped_at"].isna().all()
    assert made.numbers["curve"].shape == (6, 80)
    assert [picture.unit for picture in made.pictures] == [str(unit) for unit in UNITS]


def test_a_picture_does_not_depend_on_the_others(demo, stimuli):
    # A few steps: sums of batches of another size are rounded otherwise, and the ascent is no contraction.
    few = {"steps": 12, "count": 2}
    beside = optimal_stimulus(demo, stimuli, units=UNITS, **few).pictures[3].pixels.astype(int)
    alone = optimal_stimulus(demo, stimuli, units=UNITS[1:2], **few).pictures[1].pixels
    assert np.abs(alone - beside).max() <= 2
    again = optimal_stimulus(demo, stimuli, units=UNITS[1:2], **few, seed=1).pictures[1].pixels
    assert np.median(np.abs(again - beside)) > 5


def test_a_unit_that_no_stimulus_wakes_is_woken(stimuli):
    class Asleep(nn.Module):
        """A rectified unit that wants the left half red, by far more than anything shown."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 16)
            self.relu = nn.ReLU(inplace=True)
            weight = torch.zeros(1, 3, 16, 16)
            weight[0, 0, :, :8], weight[0, 1:, :, 8:] = 1, -1
            self.conv.weight, self.conv.bias = nn.Parameter(weight / 128), nn.Parameter(torch.tensor([-1.5]))

        def forward(self, x):
            return self.relu(self.conv(x))

    network = own(Asleep())
    natural = natural_drive(network, stimuli, [Unit("relu", 0)])
    assert natural.best[0] == 0 and natural.sd[0] == 0 and natural.scale[0] > 0
    result = optimal_stimulus(network, stimuli, units=[Unit("relu", 0)], steps=100, jitter=0, scaling=0, rotation=0)
    row = result.tables["optimalstimulus"].iloc[0]
    assert row["activation"] > 0.5 and row["above_natural"]
    left, right = result.pictures[0].pixels[:, :8].mean((0, 1)), result.pictures[0].pixels[:, 8:].mean((0, 1))
    assert left[0] > 220 and right[1:].max() < 35


def test_a_given_picture_is_where_the_ascent_begins(demo, stimuli, tmp_path):
    few = {"steps": 1, "rate": 1e-6, "canvas": "pixels"}
    result = optimal_stimulus(demo, stimuli, units=UNITS[:1], start="s3.png", **few)
    shown = np.asarray(stimuli.read(3))
    assert np.abs(result.pictures[0].pixels.astype(int) - shown).mean() < 12  # noise of a tenth, before the logistic
    stimuli.read(5).save(tmp_path / "mine.png")
    other = optimal_stimulus(demo, stimuli, units=UNITS[:1], start=str(tmp_path / "mine.png"), **few)
    assert np.abs(other.pictures[0].pixels.astype(int) - np.asarray(stimuli.read(5))).mean() < 12
    with pytest.raises(ConfigError, match="no stimulus and no file"):
        optimal_stimulus(demo, stimuli, units=UNITS[:1], start="s9.png")


@pytest.mark.parametrize(("unit", "weight"), [(Unit("conv2", 3), 20.0), (Unit("conv5", 5), 5.0)])
def test_diversity_makes_the_pictures_of_a_unit_differ_more(demo, stimuli, unit, weight):
    def apart(diversity):
        result = optimal_stimulus(
            demo, stimuli, units=[unit], count=3, diversity=diversity, jitter=0, scaling=0, rotation=0, steps=40
        )
        pictures = from_bytes(np.array([one.pixels for one in result.pictures]))
        with torch.inference_mode():
            _, seen = own_drive(demo.module, Pixels.of(demo).to_input(pictures), [unit] * 3)
        features = seen[unit.layer][0]
        if features.ndim > 2:
            features = features.flatten(2) @ features.flatten(2).transpose(1, 2)
        else:
            features = nn.functional.adaptive_avg_pool2d(pictures, 16)
            features = features - features.mean((1, 2, 3), keepdim=True)
        assert result.tables["optimalstimulus"]["above_natural"].all()
        return 1 - float(likeness(features).mean())

    assert apart(weight) > 1.1 * apart(0.0)


GENERATOR = """
import torch
from torch import nn

class Blobs(nn.Module):
    latent_shape = (12,)

    def forward(self, latents):
        coarse = torch.sigmoid(latents).reshape(-1, 3, 2, 2)
        return nn.functional.interpolate(coarse, (32, 32), mode="bilinear")

def build():
    return Blobs()

class Wild(Blobs):
    def forward(self, latents):
        return 9 * super().forward(latents)

nothing = nn.Identity
"""


def test_a_generator_of_ones_own_is_the_prior(demo, stimuli, tmp_path):
    (tmp_path / "mine.py").write_text(GENERATOR)
    result = optimal_stimulus(demo, stimuli, units=UNITS[:1], generator=f"{tmp_path}/mine.py:build", steps=100)
    assert result.tables["optimalstimulus"]["above_natural"].all()
    picture = from_bytes(result.pictures[0].pixels[None])
    # It holds what four colours hold: pictures of the generator only.
    corners = nn.functional.interpolate(picture, (2, 2), mode="area")
    assert roughness(picture)[0] < 0.05 and corners.std() > 0.05
    assert "generator-prior" in result.sidecar["References"]
    for name, said in (("nothing", "latent_shape"), ("Wild", "make it .* from 0 to 1")):
        with pytest.raises(ConfigError, match=said):
            optimal_stimulus(demo, stimuli, units=UNITS[:1], generator=f"{tmp_path}/mine.py:{name}", **SHORT)


def test_what_cannot_be_climbed_is_said(demo, stimuli):
    with pytest.raises(ConfigError, match="name units with --unit"):
        optimal_stimulus(demo, stimuli, units=[])
    with pytest.raises(ValueError, match="canvas: expected one of fourier, pixels"):
        optimal_stimulus(demo, stimuli, units=UNITS[:1], canvas="oil")
    half = own(nn.Sequential(nn.Conv2d(3, 2, 3)).half())
    with pytest.raises(ConfigError, match="float16"):
        optimal_stimulus(half, stimuli, units=[Unit("0", 0)])

    class Rounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Identity()

        def forward(self, x):
            return self.act(x.detach())

    with pytest.raises(ConfigError, match="gives no gradient"):
        optimal_stimulus(own(Rounds()), stimuli, units=[Unit("act", 0)])


def test_scores_are_of_the_picture_as_its_file_holds_it(demo):
    pictures = to_bytes(smooth(2, (64, 64)))
    found = score(demo, Pixels.of(demo), pictures, UNITS[:2])
    with torch.inference_mode():
        given = torch.stack([demo.preprocess(Image.fromarray(one)) for one in pictures])
        expected = drive(demo.module, given, UNITS[:2], silent=False).diagonal()
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
