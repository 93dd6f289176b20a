"""VGGish: a network for sounds, of the shape of VGG, over 0.96 s of log-mel spectrogram.

Hershey et al. (2017), ICASSP, 131-135; the spectrogram by the numbers that were published with its weights: 16 kHz,
Hann windows of 25 ms every 10 ms, magnitudes, 64 mel bands from 125 to 7500 Hz, logarithm of the sum with 0.01.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import middle, waveform

RATE = 16_000
WINDOW, HOP, TRANSFORM = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
OFFSET = 0.01
FRAMES = 96
SAMPLES = WINDOW + (FRAMES - 1) * HOP

PREPARATION = (
    "middle 0.975 s at 16000 Hz, magnitudes of Hann windows of 25 ms every 10 ms, 64 mel bands of 125 to 7500 Hz, "
    "log(x + 0.01), 96 frames"
)


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def mel_weights() -> np.ndarray:
    """Triangles, evenly spaced on the mel scale, that sum a spectrum to bands.

    Returns
    -------
    ndarray of float32, shape (257, 64)
    """
    edges = np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2)
    bins = _mel(np.linspace(0.0, RATE / 2, TRANSFORM // 2 + 1))[:, None]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clip(min=0.0)
    triangles[0] = 0.0  # the mean is no sound
    return triangles.astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram of a sound at 16 kHz; a window that is not full is left out.

    Parameters
    ----------
    samples : ndarray, shape (samples,)

    Returns
    -------
    ndarray of float32, shape (frames, 64)
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, dtype=np.float64), WINDOW)[::HOP]
    magnitudes = np.abs(np.fft.rfft(windows * hann, TRANSFORM))
    return np.log(magnitudes @ mel_weights().astype(np.float64) + OFFSET).astype(np.float32)


def preprocess(sound: tuple[np.ndarray, float]) -> Tensor:
    """Make the log-mel spectrogram of the middle of a sound.

    Parameters
    ----------
    sound : (ndarray of shape (samples,), float)
        One channel, and samples a second.

    Returns
    -------
    Tensor, shape (1, 96, 64)

    Raises
    ------
    DataError
        If the sound is shorter than 0.975 s, or not of one channel.
    """
    return torch.from_numpy(log_mel(middle(waveform(sound, rate=RATE), SAMPLES, rate=RATE)))[None]


class VGGish(nn.Module):
    """Six convolutions and three fully connected layers, the last of 128 units, with the published weights' names."""

    def __init__(self) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        channels = 1
        for widths in ((64,), (128,), (256, 256), (512, 512)):
            for width in widths:
                steps += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            steps.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*steps)
        sizes = (512 * (FRAMES // 16) * (BANDS // 16), 4096, 4096, 128)
        self.embeddings = nn.Sequential(*(step for a, b in pairwise(sizes) for step in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Embed spectrograms of shape (n, 1, 96, 64) in 128 dimensions."""
        # The published weights count channels fastest, as the library did that they were trained in.
        return self.embeddings(self.features(spectrograms).permute(0, 2, 3, 1).flatten(1))


SHORT = {
    **{
        name: f"features.{i}"
        for name, i in zip(
            ("conv1", "conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2"), (0, 3, 6, 8, 11, 13), strict=True
        )
    },
    **{"fc1_1": "embeddings.0", "fc1_2": "embeddings.2", "fc2": "embeddings.4", "embedding": "embeddings.5"},
}


def vggish(*, weights: str, seed: int) -> Network:
    """Build VGGish.

    Parameters
    ----------
    weights : str
        ``none`` or a file; nothing is published in a form that can be fetched safely by name.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    make = partial(files.filled, VGGish, seed=seed, name="vggish")
    module, label, sha256 = make(weights=weights, published={}, current=partial(files.without, ("pproc.",)))
    return Network(
        name="vggish",
        module=module,
        preprocess=preprocess,
        preprocessing=PREPARATION,
        weights=label,
        seed=seed if label == "none" else None,
        weights_sha256=sha256,
        modality="audio",
        source="bidsdnn",
        short=SHORT,
    )
