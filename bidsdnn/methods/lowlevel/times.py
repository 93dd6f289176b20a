"""Features of time: how many words, and how far into the film or story."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre


def wordrate(onsets: np.ndarray, start: float, stop: float) -> np.ndarray:
    """The word rate was the number of words that begin in the clip, a second, and in each of its quarters.

    Parameters
    ----------
    onsets : ndarray, shape (n_words,)
        Seconds since the beginning of the film or sound.
    start, stop : float
        Of the clip.

    Returns
    -------
    ndarray, shape (5,)
        Words a second: of the clip, and of its quarters.
    """
    if not stop > start:
        raise ValueError(f"stop: expected after start {start}, got {stop}")
    count, _ = np.histogram(onsets, np.linspace(start, np.nextafter(stop, -np.inf), 5))
    return np.concatenate([[count.sum() / (stop - start)], count * 4 / (stop - start)])


def position(start: float, stop: float, length: float) -> np.ndarray:
    """The position in time was the Legendre polynomials 1 to 4 of the clip's middle, from -1 at the beginning to 1.

    Parameters
    ----------
    start, stop : float
        Of the clip, in seconds.
    length : float
        Of the film or sound.

    Returns
    -------
    ndarray, shape (4,)
    """
    if not 0 <= start < stop or length <= 0:
        raise ValueError(f"start, stop, length: expected 0 <= start < stop, got {start}, {stop}, {length}")
    return np.asarray(legendre.legvander(np.array([(start + stop) / length - 1]), 4)[0, 1:])
