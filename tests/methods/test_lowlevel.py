"""Low-level features against the formulae written out, independent implementations and planted stimuli."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bidsdnn.methods import lowlevel
from bidsdnn.methods.lowlevel.motion import optical_flow
from bidsdnn.methods.lowlevel.pictures import GRID, SIDE, WAVELENGTHS
from bidsdnn.methods.lowlevel.sounds import FLOOR, HIGHEST, LOWEST


def noise(n: int = 2, height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((1, 16, 16, 3), colour, np.uint8)


def linear(value: float) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def test_relative_luminance_is_the_standards_formula():
    frames = noise(1, 3, 4)
    expected = [
        [0.2126729 * linear(r) + 0.7151522 * linear(g) + 0.0721750 * linear(b) for r, g, b in row] for row in frames[0]
    ]
    np.testing.assert_allclose(lowlevel.relative_luminance(frames)[0], expected, rtol=1e-12)
    assert lowlevel.relative_luminance(plain((255, 255, 255)))[0, 0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "function", [lowlevel.luminance, lowlevel.contrast, lowlevel.colour, lowlevel.gabor, lowlevel.hog]
)
def test_rows_are_pictures_and_do_not_depend_on_each_other(function):
    frames = noise(3)
    together = function(frames)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, np.concatenate([function(frame[None]) for frame in frames]), rtol=1e-10)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(bad):
    with pytest.raises(ValueError, match="expected uint8 of shape"):
        lowlevel.luminance(bad)


def test_luminance_and_contrast_by_cell():
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, :10, 30:] = 255  # the cell in the upper right
    light = lowlevel.luminance(frames)[0]
    assert light[0] == pytest.approx(1 / 16, abs=1e-6)
    np.testing.assert_allclose(light[1:], np.eye(16)[GRID - 1], atol=1e-6)
    frames[:, 10:20, 0:5] = 255  # half of a cell
    found = lowlevel.contrast(frames)[0]
    np.testing.assert_allclose(found[1:], 0.5 * np.eye(16)[GRID], atol=1e-6)
    share = 1 / 16 + 1 / 32
    assert found[0] == pytest.approx(np.sqrt(share * (1 - share)), abs=1e-6)
    half = np.zeros((1, 8, 8, 3), np.uint8)
    half[:, :4] = 255
    assert lowlevel.contrast(half)[0, 0] == pytest.approx(0.5, abs=1e-6)


# CIELAB of sRGB's primaries under D65, as tables give it.
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)), ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)  # fmt: skip
def test_colour_has_the_values_of_cielab(rgb, lab):
    found = lowlevel.colour(plain(rgb))[0]
    np.testing.assert_allclose(found[:3], lab, atol=0.02)
    np.testing.assert_allclose(found[3:6], 0, atol=1e-6)
    chroma = np.hypot(*lab[1:])
    sector = int(np.degrees(np.arctan2(lab[2], lab[1])) % 360 // 30)
    np.testing.assert_allclose(found[6:], chroma * (np.arange(12) == sector), atol=0.05)


def test_colour_is_that_of_skimage():
    skimage = pytest.importorskip("skimage.color")
    frames = noise(2)
    lab = np.stack([skimage.rgb2lab(frame) for frame in frames]).reshape(2, -1, 3)
    found = lowlevel.colour(frames)
    np.testing.assert_allclose(found[:, :3], lab.mean(axis=1), atol=0.02)
    np.testing.assert_allclose(found[:, 3:6], lab.std(axis=1), atol=0.02)


def grating(wavelength: float, angle: float, side: int = SIDE) -> np.ndarray:
    down, across = np.mgrid[:side, :side]
    wave = np.cos(2 * np.pi / wavelength * (across * np.cos(angle) + down * np.sin(angle)))
    return np.repeat((127.5 + 60 * wave).astype(np.uint8)[None, ..., None], 3, axis=-1)


@pytest.mark.parametrize("scale", range(4))
@pytest.mark.parametrize("direction", [0, 1, 3, 4, 6])
def test_gabor_energy_is_greatest_at_the_gratings_scale_and_orientation(scale, direction):
    found = lowlevel.gabor(grating(WAVELENGTHS[scale], np.pi * direction / 8))[0].reshape(4, 8, GRID, GRID)
    inner = found[:, :, 1:-1, 1:-1].mean(axis=(2, 3))
    assert np.unravel_index(inner.argmax(), inner.shape) == (scale, direction)
    assert inner[scale, (direction + 4) % 8] < 0.1 * inner[scale, direction]


def test_gabor_energy_does_not_depend_on_phase_and_grows_with_contrast():
    first, moved = grating(8, 0), np.roll(grating(8, 0), 2, axis=2)
    middle = (1, 0, slice(1, 3), slice(1, 3))
    one, other = (lowlevel.gabor(each)[0].reshape(4, 8, GRID, GRID)[middle] for each in (first, moved))
    np.testing.assert_allclose(one, other, rtol=0.01)
    np.testing.assert_allclose(lowlevel.gabor(plain((90, 90, 90))), 0, atol=1e-12)
    weak = (127.5 + (first.astype(float) - 127.5) / 2).astype(np.uint8)
    assert (lowlevel.gabor(weak)[0].reshape(4, 8, GRID, GRID)[middle] < 0.6 * one).all()


def test_gabor_response_is_a_sum_over_pixels_written_out():
    """The filters are Gabor functions: the response at one pixel is the sum in space."""
    from bidsdnn.methods.lowlevel.pictures import _gabor_kernels

    side, wavelength, direction = 64, 8.0, 2
    values = np.random.default_rng(0).normal(size=(side, side))
    values -= values.mean()
    kernel = _gabor_kernels(side, wavelength)[direction]
    found = np.fft.ifft2(np.fft.fft2(values) * kernel)[32, 32]
    bandwidth = np.sqrt(2 * np.log(2))
    along, beside = (2**0.5 - 2**-0.5) / 2 / wavelength / bandwidth, np.tan(np.pi / 8) / wavelength / bandwidth
    down, across = (np.mgrid[:side, :side] - 32).astype(float)
    angle = np.pi * direction / 8
    u, v = across * np.cos(angle) + down * np.sin(angle), -across * np.sin(angle) + down * np.cos(angle)
    weights = 4 * np.pi * along * beside * np.exp(-2 * np.pi**2 * ((along * u) ** 2 + (beside * v) ** 2))
    expected = (weights * np.exp(-2j * np.pi * u / wavelength) * values).sum()
    assert found == pytest.approx(expected, rel=1e-3)


def test_histograms_of_gradients_are_those_of_skimage():
    feature = pytest.importorskip("skimage.feature")
    from bidsdnn.methods.lowlevel.pictures import _square

    frames = noise(2, 128, 128)
    expected = [
        feature.hog(light, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2), block_norm="L2-Hys")
        for light in _square(frames, SIDE)
    ]
    np.testing.assert_allclose(lowlevel.hog(frames), expected, atol=1e-3)


def test_histograms_of_gradients_point_across_an_edge():
    frames = np.zeros((1, 128, 128, 3), np.uint8)
    frames[:, :, 56:] = 255
    found = lowlevel.hog(frames)[0].reshape(7, 7, 4, 9)
    assert found[..., 1:].max() < 1e-6 < found[..., 0].max()  # gradients along x only
    assert lowlevel.hog(frames).shape == (1, 7 * 7 * 4 * 9)


def texture(side: int = 64, seed: int = 0) -> np.ndarray:
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 2.5, mode="wrap")
    return 0.5 + 0.15 * values / values.std()


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -1), (3, 2), (-4, 1), (0, 0)])
def test_optical_flow_finds_a_planted_shift(right, down):
    image = texture()
    field = optical_flow(image[None], np.roll(image, (down, right), axis=(0, 1))[None])[0]
    inner = field[:, 10:-10, 10:-10]
    np.testing.assert_allclose(np.median(inner, axis=(1, 2)), [right, down], atol=0.15)


@pytest.mark.parametrize(("right", "down", "sector"), [(1, 0, 0), (1, 1, 1), (0, 1, 2), (-1, 0, 4), (0, -1, 6)])
def test_flow_is_speed_and_direction_of_a_film(right, down, sector):
    still = (255 * texture()).clip(0, 255).astype(np.uint8)
    frames = np.stack([np.roll(still, (k * down, k * right), axis=(0, 1)) for k in range(4)])
    found = lowlevel.flow(np.repeat(frames[..., None], 3, axis=-1), fps=8.0)
    speed = np.hypot(right, down) * 8 / 64
    assert found[0] == pytest.approx(speed, rel=0.15)
    np.testing.assert_allclose(found[2:4], np.array([right, down]) * 8 / 64, atol=0.15 * speed)
    assert found[4:].argmax() == sector
    assert found[4:].sum() == pytest.approx(found[0])


def test_flow_needs_two_frames():
    with pytest.raises(ValueError, match="at least 2"):
        lowlevel.flow(noise(1), 8.0)


def test_a_still_film_does_not_move():
    np.testing.assert_allclose(lowlevel.flow(np.repeat(noise(1), 3, axis=0), 8.0), 0, atol=1e-9)


def test_mel_filters_are_triangles_on_the_mel_scale():
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)), 66) / 2595) - 1)
    filters = lowlevel.mel_filters(edges)
    np.testing.assert_allclose(filters[:, 1:-1], np.eye(64), atol=1e-9)
    np.testing.assert_allclose(filters[:, [0, -1]], 0, atol=1e-9)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("band", [30, 40, 55])
def test_mel_spectrum_of_a_tone(rate, band):
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)), 66) / 2595) - 1)
    samples = np.sin(2 * np.pi * edges[band + 1] * np.arange(rate) / rate)
    found = lowlevel.mel(samples, rate)
    assert found.argmax() == band
    assert found[band] == pytest.approx(0, abs=3)
    np.testing.assert_allclose(lowlevel.mel(samples / 10, rate)[band], found[band] - 20, atol=1e-6)
    np.testing.assert_allclose(lowlevel.mel(0 * samples, rate), 10 * np.log10(FLOOR))


def test_mel_needs_a_window():
    with pytest.raises(ValueError, match=r"at least 0\.025 s"):
        lowlevel.mel(np.zeros(100), 16000)


def test_envelope_is_the_modulation_that_was_planted():
    times = np.arange(16000) / 16000
    planted = 0.5 + 0.4 * np.sin(2 * np.pi * times)
    found = lowlevel.envelope(planted * np.sin(2 * np.pi * 1000 * times), 16000)
    np.testing.assert_allclose(found, planted.reshape(16, -1).mean(axis=1), atol=0.01)
    with pytest.raises(ValueError, match="at least 16"):
        lowlevel.envelope(np.zeros(5), 16000)


def test_word_rate_counts_words_that_begin_in_the_clip():
    onsets = np.array([0.0, 0.9, 2.0, 2.1, 3.5, 3.999, 4.0, 9.0])
    np.testing.assert_allclose(lowlevel.wordrate(onsets, 2.0, 4.0), [2.0, 4.0, 0.0, 0.0, 4.0])
    np.testing.assert_allclose(lowlevel.wordrate(np.array([]), 2.0, 4.0), 0)
    with pytest.raises(ValueError, match="after start"):
        lowlevel.wordrate(onsets, 2.0, 2.0)


def test_position_is_legendre_polynomials_of_the_middle():
    x = 2 * 3.0 / 10 - 1
    expected = [x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2, (35 * x**4 - 30 * x**2 + 3) / 8]
    np.testing.assert_allclose(lowlevel.position(2.0, 4.0, 10.0), expected)
    with pytest.raises(ValueError, match="start < stop"):
        lowlevel.position(4.0, 2.0, 10.0)
