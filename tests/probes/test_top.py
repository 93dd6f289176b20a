"""Top stimuli against a plain sort, of pictures, films and sounds; feature maps against the layer itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.networks.zoo import build
from bidsdnn.probes.maps import feature_map
from bidsdnn.probes.pictures import coloured, enlarged, sheet
from bidsdnn.probes.stream import stream
from bidsdnn.probes.top import Extremes, top_stimuli
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli
from tests.stimuli.conftest import write_film

REAL = Path(os.environ.get("BIDSDNN_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
UNITS = (Unit("fc", 3), Unit("conv2", 5), Unit("conv2", 0, (3, 7)), Unit("conv2", 5, (3, 7)))


@pytest.fixture(scope="module")
def demo():
    return build("demo", weights="none", seed=0, alias="toy", given=None)


@pytest.fixture(scope="module")
def stimuli(demo_dataset) -> Stimuli:
    """Seventeen pictures, one of them twice."""
    every = Stimuli.from_folder(demo_dataset / "stimuli")
    table = every.table.iloc[[*range(16), 3]].reset_index(drop=True)
    table["stimulus_id"] = [f"s{number:02d}" for number in range(17)]
    return replace(every, table=table)


@pytest.fixture(scope="module")
def values(demo, stimuli) -> dict[str, np.ndarray]:
    """What `UNITS` give, by one plain pass."""
    seen = {}
    handles = [
        demo.module.get_submodule(layer).register_forward_hook(lambda m, i, o, layer=layer: seen.update({layer: o}))
        for layer in ("fc", "conv2")
    ]
    with torch.no_grad():
        for batch in stream(demo, stimuli):
            demo.module(batch.values)
    for handle in handles:
        handle.remove()
    conv = seen["conv2"].numpy()
    return {"fc:3": seen["fc"].numpy()[:, 3], "conv2:5": conv[:, 5].mean((1, 2)), "conv2:0,3,7": conv[:, 0, 3, 7],
            "conv2:5,3,7": conv[:, 5, 3, 7], "maps": conv}  # fmt: skip


def test_the_extremes_are_those_of_a_plain_stable_sort():
    rng = np.random.default_rng(0)
    table = rng.integers(0, 6, (53, 9)).astype(np.float32)  # with many ties
    found = Extremes(7)
    for start in range(0, 53, 10):
        found.add(table[start : start + 10])
    for (got, rows), sign in ((found.best, -1), (found.worst, 1)):
        order = np.argsort(sign * table, axis=0, kind="stable")[:7]
        np.testing.assert_array_equal(rows, order)
        np.testing.assert_array_equal(got, np.take_along_axis(table, order, 0))
    np.testing.assert_allclose(found.mean, table.mean(0))
    np.testing.assert_allclose(found.sd, table.std(0), rtol=1e-5)
    offset = Extremes(2)
    offset.add(table[:, :1] + 1e4)
    assert offset.sd[0] == pytest.approx(table[:, 0].std(), rel=1e-3)


def test_top_stimuli_are_those_of_one_plain_pass(demo, stimuli, values):
    found = top_stimuli(demo, stimuli, units=UNITS, k=4)
    table = found.tables["topstimuli"]
    assert len(table) == len(UNITS) * 8
    for unit in UNITS:
        position = ",".join(map(str, unit.position)) or "all"
        own = table[(table["layer"] == unit.layer) & (table["channel"] == unit.channel)]
        own = own[own["position"] == position]
        expected = values[str(unit)]
        for end, sign in (("best", -1), ("worst", 1)):
            order = np.argsort(sign * expected, kind="stable")[:4]
            rows = own[own["end"] == end]
            assert rows["stimulus_id"].tolist() == [stimuli.ids[row] for row in order]
            np.testing.assert_allclose(rows["value"], expected[order], rtol=1e-5)
            np.testing.assert_allclose(rows["z"], (expected[order] - expected.mean()) / expected.std(), rtol=1e-3)
    assert [picture.unit for picture in found.pictures] == [str(unit) for unit in UNITS]
    assert stimuli.ids[int(values["fc:3"].argmax())] in found.pictures[0].alt
    assert found.pictures[0].pixels.shape == (2 * 100 + 4, 4 * 100 + 4, 3)


def test_without_units_every_channel_is_ranked_and_none_is_drawn(demo, stimuli, values):
    found = top_stimuli(demo, stimuli, layers=("conv2", "fc"), k=2, over="max")
    table = found.tables["topstimuli"]
    assert table.groupby(["layer", "channel"], sort=False).ngroups == 24 + 32
    assert found.pictures == ()
    best = table.query("layer == 'conv2' and channel == 5 and end == 'best' and rank == 1").iloc[0]
    assert best["value"] == pytest.approx(values["maps"][:, 5].max(), rel=1e-5)


def test_more_than_there_are_is_all_there_are(demo, stimuli):
    table = top_stimuli(demo, stimuli.select(stimuli.ids[:3]), units=UNITS[:1], k=50).tables["topstimuli"]
    assert table["rank"].tolist() == [1, 2, 3] * 2
    with pytest.raises(ValueError, match="k, over"):
        top_stimuli(demo, stimuli, units=UNITS, k=0)


def test_maps_are_what_the_layer_gives(demo, stimuli, values):
    units = (Unit("conv2", 5), Unit("conv2", 0))
    found = feature_map(demo, stimuli, units=units, show=("s04", "s01"))
    assert found.numbers["channels/conv2"].tolist() == [5, 0]
    np.testing.assert_allclose(found.numbers["maps/conv2"], values["maps"][[4, 1]][:, [5, 0]], rtol=1e-4, atol=1e-7)
    (picture,) = found.pictures
    assert picture.pixels.shape == (3 * (128 + 4) + 4, 2 * (128 + 4) + 4, 3)
    own = values["maps"][[4, 1], 5]
    assert f"channel 5, {min(own.min(), 0):.3g} to {own.max():.3g}" in picture.caption
    tile = coloured(enlarged(own[0], 112), low=0, high=own.max())
    np.testing.assert_array_equal(picture.pixels[4 + 132 : 4 + 132 + 128, 4 : 4 + 128], tile)
    strongest = feature_map(demo, stimuli, layers=("conv2", "fc"), n=2, channels=3)
    assert strongest.numbers["channels/conv2"].tolist() == np.argsort(-values["maps"][:2].mean((0, 2, 3)))[:3].tolist()


class Level(nn.Module):
    """How bright, or loud, something is, and how dark."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Identity()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        level = given.abs().flatten(1).mean(1)
        return self.both(torch.stack([level, -level], 1))


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_films_are_shown_by_their_middle_frame_and_sounds_are_in_the_table_alone(tmp_path, kind):
    levels, suffix = [40, 200, 120], {"video": ".mp4", "audio": ".wav"}[kind]
    for number, level in enumerate(levels):
        if kind == "video":
            frames = np.full((9, 32, 32, 3), level, np.uint8)
            frames[:3], frames[6:] = level // 2, level // 2
            write_film(tmp_path / f"{number}{suffix}", frames, fps=3)
        else:
            tone = level / 255 * np.sin(2 * np.pi * 440 * np.arange(8000) / 4000)
            soundfile.write(tmp_path / f"{number}{suffix}", tone, 4000)

    def preprocess(pair):
        return torch.as_tensor(np.ascontiguousarray(pair[0]), dtype=torch.float32).flatten()[:7000]

    network = Network("level", Level().eval(), preprocess, "as it is", "none", 0, "0" * 64, modality=kind)
    found = top_stimuli(network, Stimuli.from_folder(tmp_path, [kind]), units=(Unit("both", 0), Unit("both", 1)), k=2)
    table = found.tables["topstimuli"].query("channel == 0 and end == 'best'")
    assert table["stimulus_id"].tolist() == [f"1{suffix}", f"2{suffix}"]
    assert len(found.pictures) == (2 if kind == "video" else 0)
    if kind == "video":
        shown = found.pictures[0].pixels
        assert [shown[10, x].mean() for x in (10, 50)] == pytest.approx([200, 120], abs=12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"units": (Unit("fc", 1),)}, "layer fc gives 32, which is no map of channels"),
        ({"layers": ("fc",)}, "layer fc gives 32, which is no map of channels"),
        ({"layers": ("conv2",), "show": ("s77",)}, "no stimulus is called 's77'; did you mean s"),
        ({"layers": ("conv2",), "n": 0}, "parameters.feature-map.n = 0"),
    ],
)
def test_what_has_no_map_is_refused(demo, stimuli, given, said):
    with pytest.raises(ConfigError, match=said):
        feature_map(demo, stimuli, **given)


def test_a_channel_of_one_position_has_no_map(demo, stimuli):
    pooled = replace(demo, module=nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)).eval(), listed=())
    with pytest.raises(ConfigError, match="layer 1 gives 4 x 1 x 1, which is no map of channels"):
        feature_map(pooled, stimuli, units=(Unit("1", 2),))


def test_units_without_maps_are_left_out_where_others_have_some(demo, stimuli, caplog):
    found = feature_map(demo, stimuli, units=(Unit("fc", 1), Unit("conv2", 3)), n=2)
    assert [one.name for one in found.pictures] == ["conv2"]
    assert "feature-map leaves out fc: layer fc gives 32" in caplog.text


def test_sheets_hold_their_tiles_and_colours_their_scale():
    tiles = [[np.full((3, 5, 3), 10, np.uint8), np.full((5, 2, 3), 20, np.uint8)], [np.full((1, 1, 3), 30, np.uint8)]]
    whole = sheet(tiles, gap=1)
    assert whole.shape == (13, 13, 3)
    assert [(whole == level).all(2).sum() for level in (10, 20, 30)] == [15, 10, 1]
    assert (
        coloured(np.array([[0.0, 1.0, 2.0]]), low=0, high=1)[0, 1] == coloured(np.ones((1, 1)), low=0, high=1)
    ).all()
    assert coloured(np.zeros((2, 2))).shape == (2, 2, 3)
    assert enlarged(np.eye(3), 7).shape == (6, 6)


@pytest.mark.skipif(not (REAL / "squeezenet1_1").is_dir(), reason="no real weights here")
def test_top_pictures_of_animal_classes_are_animals():
    weights = REAL / "squeezenet1_1" / "squeezenet1_1.pth"
    network = build("squeezenet1_1", weights=str(weights), seed=0, alias="real", given=None)
    pictures = Stimuli.from_folder(REAL / "rsa92" / "images_white")
    about = pd.read_csv(REAL / "rsa92" / "images.tsv", sep="\t").set_index("image")
    animals = {235: "German shepherd", 246: "Great Dane", 291: "lion", 373: "macaque", 386: "African elephant"}
    buildings = {663: "monastery", 873: "triumphal arch"}
    units = [Unit("classifier.1", number) for number in (*animals, *buildings)]
    table = top_stimuli(network, pictures, units=units, k=3).tables["topstimuli"].query("end == 'best'")
    is_animal = about["animal"][table["stimulus_id"].str.removesuffix(".jpg")].to_numpy(dtype=bool)
    assert is_animal[table["channel"].isin(animals)].all()
    assert not is_animal[table["channel"].isin(buildings)].any()
