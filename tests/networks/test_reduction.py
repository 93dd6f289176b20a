"""Reduction in the stream: formulas, masks, projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import periodogram
from sklearn.random_projection import SparseRandomProjection
from torch import nn

from bidsdnn.errors import ConfigError
from bidsdnn.methods.reduce import random_dimensions, sparse_projection
from bidsdnn.networks.axes import channel_axis
from bidsdnn.networks.reduction import Reduction


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((5, 6, 4, 4)).astype(np.float32))


FORMULAS = {
    "max": lambda x: x.max(-1),
    "mean": lambda x: x.mean(-1),
    "median": lambda x: np.median(x, -1),
    "l1": lambda x: np.linalg.norm(x, 1, axis=-1),
    "l2": lambda x: np.linalg.norm(x, 2, axis=-1),
}


@pytest.mark.parametrize("how", FORMULAS)
@pytest.mark.parametrize("odd", [False, True])
def test_pooling_is_the_formula(maps, how, odd):
    maps = maps[..., :3, :3] if odd else maps
    x = maps.numpy().astype(np.float64)
    pooled = Reduction(pooling=how)("layer", maps)
    assert pooled.shape == (5, 6)
    np.testing.assert_allclose(pooled, FORMULAS[how](x.reshape(5, 6, -1)), rtol=1e-5, atol=1e-6)
    # Maps with channels last, and tokens, are pooled over the same positions.
    np.testing.assert_array_equal(Reduction(pooling=how)("layer", maps.movedim(1, -1)), pooled)
    tokens = maps.flatten(2).movedim(1, -1)
    np.testing.assert_array_equal(Reduction(pooling=how)("layer", tokens), pooled)
    maps = maps.clone()
    maps[2, 3, 0, 1] = torch.nan
    assert Reduction(pooling=how)("layer", maps).isnan().nonzero().tolist() == [[2, 3]]


def test_pooling_over_a_grid_and_of_vectors(maps):
    x = maps.numpy().reshape(5, 6, 2, 2, 2, 2).mean((3, 5))
    np.testing.assert_allclose(Reduction(pooling="grid:2")("layer", maps), x, rtol=1e-5, atol=1e-6)
    assert Reduction(pooling="grid:9")("layer", maps).shape == maps.shape
    film = maps[:, :, None].expand(-1, -1, 6, -1, -1)
    assert Reduction(pooling="grid:3")("layer", film).shape == (5, 6, 3, 3, 3)
    vectors = maps[:, :, 0, 0]
    assert Reduction(pooling="max")("layer", vectors) is vectors


def test_histograms_and_spectra_of_channels_are_dnnbrains(maps):
    x = maps.numpy().reshape(5, 6, 16)
    counts = Reduction(pooling="histogram:4")("layer", maps)
    assert counts.dtype == torch.float32
    np.testing.assert_array_equal(counts, [[np.histogram(row, 4)[0] for row in one] for one in x])
    power = Reduction(pooling="psd:5")("layer", maps)
    np.testing.assert_allclose(power, periodogram(x, axis=-1)[1][..., :5], rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"--pooling psd:10: layer layer: .*1 to 9 frequencies"):
        Reduction(pooling="psd:10")("layer", maps)


def test_reductions_are_said_in_sentences():
    assert Reduction().sentence == ""
    said = Reduction("mean", {"conv1": {"channel": (1,)}}, "grid:3", 9, "float16").sentence
    for part in ("tokens the mean", "Of conv1, chosen", "a grid of 3 x 3", "9 random dimensions", "half precision"):
        assert part in said


def test_channel_axis():
    assert [channel_axis(s) for s in ((9,), (50, 768), (64, 55, 55), (7, 7, 768), (3, 4, 5), (8, 16, 7, 7))] == [
        0, 1, 0, 2, 0, 0,
    ]  # fmt: skip
    assert channel_axis((8, 7, 7, 96)) == 3


def test_a_modules_last_weights_say_where_its_channels_are():
    """What shapes alone get wrong, or leave open."""
    swin = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 64))
    assert channel_axis((64, 64, 96), nn.Conv2d(1, 64, 3)) == 0
    assert channel_axis((64, 64, 96), swin) == 0  # 64 channels are first here, and nowhere else
    assert channel_axis((64, 64, 64), swin) == 2
    assert channel_axis((64, 64, 64), nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU())) == 0
    assert channel_axis((512, 49), nn.Conv1d(1, 512, 3)) == 0
    assert channel_axis((49, 512), nn.LayerNorm(512)) == 1
    assert channel_axis((7, 7, 768), nn.ReLU()) == 2
    assert channel_axis((96,), nn.Linear(3, 96)) == 0


def test_tokens_and_maps_of_modules_are_reduced_along_their_own_axes():
    sound = torch.randn(2, 6, 49)
    reduction = Reduction(tokens="cls", modules={"conv": nn.Conv1d(1, 6, 3)})
    assert reduction("conv", sound) is sound  # channels x time are no tokens
    maps = torch.randn(2, 6, 6, 4)
    pooled = Reduction(pooling="mean", modules={"conv": nn.Conv2d(1, 6, 3)})
    np.testing.assert_allclose(pooled("conv", maps), maps.numpy().mean((2, 3)), rtol=1e-5, atol=1e-6)
    whole = Reduction(modules={"swin": nn.Linear(3, 4)})
    assert whole("swin", maps) is maps
    assert (reduction.channels, pooled.channels, whole.channels) == ({"conv": 0}, {"conv": 0}, {"swin": 2})


def test_tokens():
    x = torch.randn(2, 5, 3)
    np.testing.assert_array_equal(Reduction(tokens="cls")("layer", x), x[:, 0])
    np.testing.assert_allclose(Reduction(tokens="mean")("layer", x), x.numpy().mean(1), rtol=1e-5, atol=1e-6)
    assert Reduction()("layer", x) is x
    maps = torch.randn(2, 5, 3, 3)
    assert Reduction(tokens="cls")("layer", maps) is maps


def test_masks_select_and_come_before_pooling(maps):
    mask = {"a.*": {"channel": (4, 0)}, "a.b": {"row": (3,), "column": (1, 2)}}
    x = maps.numpy()[:, [4, 0]][:, :, [3]][:, :, :, [1, 2]]
    np.testing.assert_array_equal(Reduction(mask=mask)("a.b", maps), x)
    np.testing.assert_array_equal(Reduction(mask=mask)("a.c#2", maps), maps.numpy()[:, [4, 0]])
    assert Reduction(mask=mask)("b", maps) is maps
    np.testing.assert_array_equal(Reduction(mask=mask, pooling="max")("a.b", maps), x.max((2, 3)))
    last = Reduction(mask=mask)("a.b", maps.movedim(1, -1))
    np.testing.assert_array_equal(last.movedim(-1, 1), x)
    np.testing.assert_array_equal(Reduction(mask={"v": {"channel": (2,)}})("v", maps[:, :, 0, 0]), maps[:, 2:3, 0, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "last"}, "--tokens last: choose one of all, cls, mean"),
        ({"pooling": "grid"}, "--pooling grid: choose one of max"),
        ({"pooling": "grid:0"}, "--pooling grid:0"),
        ({"pooling": "psd:x"}, "--pooling psd:x"),
        ({"projection": 0}, "--projection 0"),
        ({"dtype": "float64"}, "--activation-dtype float64"),
        ({"mask": {"a": {"chn": (0,)}}}, "'chn' is no axis; choose one of channel, row, column"),
        ({"mask": {"a": {"row": ()}}}, "mask of layer a: row"),
        ({"mask": {"a": {"row": (-1,)}}}, "counted from 0"),
        ({"mask": {"a": {"row": (1, 1)}}}, "different numbers"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        Reduction(**options)


def test_indices_that_are_not_there(maps):
    with pytest.raises(ConfigError, match=r"mask of layer a: channel 6 is not there; it has 0 to 5"):
        Reduction(mask={"a": {"channel": (6,)}})("a", maps)
    with pytest.raises(ConfigError, match=r"mask of layer a: shape \(6,\) has no row"):
        Reduction(mask={"a": {"row": (0,)}})("a", maps[:, :, 0, 0])


def test_projection_is_scikit_learns_and_keeps_distances():
    x = np.random.default_rng(1).standard_normal((40, 3000)).astype(np.float32)
    theirs = SparseRandomProjection(500, random_state=7).fit(x)
    np.testing.assert_allclose(sparse_projection(3000, 500, seed=7).toarray(), theirs.components_.toarray(), rtol=1e-6)
    reduction = Reduction(projection=500, seed=3)
    y = reduction("layer", torch.from_numpy(x)).numpy()
    assert y.shape == (40, 500)
    np.testing.assert_array_equal(y, Reduction(projection=500, seed=3)("layer", torch.from_numpy(x)))
    # Rows do not depend on the other rows.
    np.testing.assert_array_equal(reduction("layer", torch.from_numpy(x[7:9])), y[7:9])
    for other in (Reduction(projection=500, seed=4)("layer", torch.from_numpy(x)), reduction("b", torch.from_numpy(x))):
        assert not np.array_equal(other, y)
    near, far = (((t[:, None] - t[None]) ** 2).sum(-1)[np.triu_indices(40, 1)] for t in (y, x))
    assert np.abs(near / far - 1).max() < 0.3
    assert abs((near / far).mean() - 1) < 0.05
    narrow = torch.randn(2, 500)
    assert reduction("layer", narrow) is narrow
    with pytest.raises(ValueError, match="expected 1 to 9"):
        sparse_projection(10, 10, seed=0)


def test_random_dimensions_are_those_of_johnson_and_lindenstrauss():
    assert random_dimensions(1000) == int(4 * np.log(1000) / (0.1**2 / 2 - 0.1**3 / 3))
    assert random_dimensions(1) == 1


def test_only_what_differs_is_described():
    assert Reduction(seed=5).described() == {}
    full = Reduction("cls", {"a": {"row": (1,)}, "b": {}}, "max", 9, "float16", 5)
    assert full.described() == {
        "Tokens": "cls", "Mask": {"a": {"row": [1]}}, "Pooling": "max", "Projection": 9, "ProjectionSeed": 5,
        "ActivationType": "float16",
    }  # fmt: skip
