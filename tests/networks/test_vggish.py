"""VGGish: its spectrogram against scipy's and a filter bank written out, and its weights' names and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import spectrogram

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks import vggish, zoo


def filter_bank() -> np.ndarray:
    """The published bank, band by band."""
    mel = lambda f: 1127 * np.log(1 + f / 700)  # noqa: E731
    edges = [mel(125) + i * (mel(7500) - mel(125)) / 65 for i in range(66)]
    bank = np.zeros((257, 64))
    for band in range(64):
        low, mid, high = edges[band : band + 3]
        for k in range(1, 257):
            m = mel(k * 16000 / 512)
            if low < m <= mid:
                bank[k, band] = (m - low) / (mid - low)
            elif mid < m < high:
                bank[k, band] = (high - m) / (high - mid)
    return bank


def test_the_filter_bank():
    np.testing.assert_allclose(vggish.mel_weights(), filter_bank(), atol=1e-6)


def test_the_spectrogram_is_scipys():
    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    _, _, scaled = spectrogram(
        sound, 16000, window, nperseg=400, noverlap=240, nfft=512, detrend=False, scaling="spectrum", mode="magnitude"
    )
    expected = np.log(filter_bank().T @ (scaled * window.sum()) + 0.01).T
    found = vggish.log_mel(sound)
    assert found.shape == (1 + (8000 - 400) // 160, 64)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tone_is_in_its_band():
    time = np.arange(16000) / 16000
    bands = vggish.preprocess((np.sin(2 * np.pi * 1000 * time).astype(np.float32), 16000))
    assert bands.shape == (1, 96, 64)
    assert set(bands[0].argmax(1).tolist()) == {int(filter_bank()[32].argmax())}


def test_sounds_are_brought_to_16_khz_and_cut_in_the_middle():
    time = np.arange(44100 * 2) / 44100
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    resampled = vggish.preprocess((tone, 44100))
    own = vggish.preprocess((np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32), 16000))
    assert torch.nn.functional.l1_loss(resampled, own) < 0.2
    long = np.zeros(48000, np.float32)
    long[:16000] = np.random.default_rng(0).normal(size=16000)
    assert (vggish.preprocess((long, 16000)) == np.float32(np.log(0.01))).all()


@pytest.mark.parametrize(
    ("sound", "message"),
    [(np.zeros(8000, np.float32), r"0\.500 s is shorter than the 0\.975 s"), (np.zeros((16000, 2)), "mix it to mono")],
)
def test_sounds_that_do_not_fit(sound, message):
    with pytest.raises(DataError, match=message):
        vggish.preprocess((sound, 16000))


def test_weights_come_from_a_file(tmp_path):
    source = zoo.build("vggish", weights="none", seed=2)
    state = {f"module.{key}": value for key, value in source.module.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in source.module.state_dict().items() if key.endswith("weight")}
    assert shapes == {
        "features.0.weight": (64, 1, 3, 3),
        "features.3.weight": (128, 64, 3, 3),
        "features.6.weight": (256, 128, 3, 3),
        "features.8.weight": (256, 256, 3, 3),
        "features.11.weight": (512, 256, 3, 3),
        "features.13.weight": (512, 512, 3, 3),
        "embeddings.0.weight": (4096, 12288),
        "embeddings.2.weight": (4096, 4096),
        "embeddings.4.weight": (128, 4096),
    }
    torch.save(state | {"module.pproc.pca_means": torch.zeros(128, 1)}, tmp_path / "vggish.pth")
    network = zoo.build("vggish", weights=str(tmp_path / "vggish.pth"))
    assert network.modality == "audio"
    x = torch.rand(1, 1, 96, 64)
    with torch.inference_mode():
        assert torch.equal(network.module(x), source.module(x))
        # Channels are counted fastest: rows, columns, channels, as in the library it was trained in.
        maps = source.module.features(x)[0].numpy().transpose(1, 2, 0).ravel()
        first = source.module.embeddings[0](torch.from_numpy(maps.copy())[None])
        torch.testing.assert_close(source.module.embeddings[1:](first), source.module(x))
    with pytest.raises(ConfigError, match="not one of none, a file"):
        zoo.build("vggish")
