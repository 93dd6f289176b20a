"""Low-level features of sounds: samples (n,) at a rate, one row."""

from __future__ import annotations

import numpy as np
from scipy.signal import hilbert, stft

BANDS = 64
LOWEST, HIGHEST = 50.0, 8000.0
"""Hz of the mel bands' outer edges."""
WINDOW, STEP = 0.025, 0.010
"""Seconds of each spectrum, and from one to the next."""
FLOOR = 1e-8
"""Power below which a band is silent, -80 dB."""
PARTS = 16


def _mel(hertz: np.ndarray) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def mel_filters(frequencies: np.ndarray, *, bands: int = BANDS) -> np.ndarray:
    """Triangles of equal width on the mel scale, each of height 1.

    Parameters
    ----------
    frequencies : ndarray, shape (n,)
        Hz of the spectrum's lines.
    bands : int

    Returns
    -------
    ndarray, shape (bands, n)

    Notes
    -----
    O'Shaughnessy D. Speech communication. 1987: mel = 2595 log10(1 + f / 700).
    """
    edges = np.linspace(_mel(np.array(LOWEST)), _mel(np.array(HIGHEST)), bands + 2)
    at, step = _mel(frequencies)[None, :], edges[1] - edges[0]
    return np.asarray(np.maximum(0, 1 - np.abs(at - edges[1:-1, None]) / step))


def mel(samples: np.ndarray, rate: float) -> np.ndarray:
    """The mel spectrum was the mean power in 64 bands from 50 to 8,000 Hz, in decibel.

    Spectra are of Hann windows of 25 ms every 10 ms; bands above half the sound's rate are silent.

    Parameters
    ----------
    samples : ndarray, shape (n,)
        From -1 to 1.
    rate : float
        Samples a second.

    Returns
    -------
    ndarray, shape (64,)
        0 dB is the power of a tone of amplitude 1 at the middle of a band wider than a spectrum's line, as those
        above 1 kHz are; silence is -80 dB.

    Raises
    ------
    ValueError
        If the sound is shorter than a window.
    """
    samples, window = np.asarray(samples, dtype=float), round(WINDOW * rate)
    if samples.ndim != 1 or len(samples) < window:
        raise ValueError(f"samples: expected one channel of at least {WINDOW} s, got shape {samples.shape} at {rate}/s")
    padded = 2 ** int(np.ceil(np.log2(4 * window)))  # lines close enough for the narrowest band
    frequencies, _, spectra = stft(
        samples, rate, "hann", window, window - round(STEP * rate), padded, boundary=None, padded=False
    )
    power = (np.abs(spectra) ** 2).mean(axis=1) * 4  # a tone of amplitude 1 has 1 at its line
    return np.asarray(10 * np.log10(np.maximum(mel_filters(frequencies) @ power / _spread(padded, window), FLOOR)))


def _spread(padded: int, window: int) -> float:
    """How much a tone's power, summed over lines, exceeds that at its own line: padding and the Hann window's 1.5."""
    return 1.5 * padded / window


def envelope(samples: np.ndarray, rate: float) -> np.ndarray:
    """The envelope was the magnitude of the analytic signal, averaged in 16 equal parts of the sound.

    Parameters
    ----------
    samples : ndarray, shape (n,)
    rate : float
        Not used: parts are relative to the sound's length.

    Returns
    -------
    ndarray, shape (16,)

    Raises
    ------
    ValueError
        If there are fewer than 16 samples.
    """
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or len(samples) < PARTS:
        raise ValueError(f"samples: expected one channel of at least {PARTS}, got shape {samples.shape}")
    return np.array([part.mean() for part in np.array_split(np.abs(hilbert(samples)), PARTS)])
