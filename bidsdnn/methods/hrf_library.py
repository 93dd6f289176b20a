"""A family of haemodynamic responses from early and short to late and long.

The one idea: over cortex, responses differ along one line, from those that rise at once, and dip after, to those that
wait and rise slowly; a response is a place on that line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

N_RESPONSES = 20

_SECONDS = 50.0
"""How long a response lasts at most."""


_PLACES = {
    "delay": (0, 0, 0, 0.5, 1.8, 4.4),
    "mode": (2.9, 3.3, 3.4, 4.0, 3.2, 1.3),
    "width": (2.05, 1.6, 1.55, 1.85, 2.3, 3.4),
    "undershoot": (0.6, 0.25, 0.08, 0.07, 0.04, 0),
    "undershoot_mode": (6.4, 5.5, 10, 18.8, 19.2, 19.2),
    "undershoot_width": (1.8, 4.5, 8, 6, 4.4, 4.4),
}
"""What makes a response at six equally spaced places of the line, in seconds but for the undershoot's weight."""


def response(place: float, seconds: Float) -> Float:
    """A haemodynamic response is a gamma density after a delay, less an undershoot of the same form.

    Between six places on the line, the two densities' modes and widths, the delay and the undershoot's weight change
    linearly. They were fitted to span the responses that Allen et al. (2022, Nature Neuroscience 25, 116-126) found
    over the visual cortices of eight participants, and which GLMsingle offers; each of those correlates above .98
    with one of twenty at equal steps along the line.

    Parameters
    ----------
    place : float
        From 0 (peak 2.8 s after an impulse, with a strong undershoot) to 1 (peak after 5.7 s, without).
    seconds : array
        Time since the impulse.

    Returns
    -------
    array, shape of ``seconds``
        The peak is about 1.
    """
    steps = np.linspace(0, 1, len(_PLACES["delay"]))
    here = {name: float(np.interp(place, steps, values)) for name, values in _PLACES.items()}
    since = seconds - here["delay"]
    undershoot = _gamma(since, here["undershoot_mode"], here["undershoot_width"])
    return _gamma(since, here["mode"], here["width"]) - here["undershoot"] * undershoot


def _gamma(seconds: Float, mode: float, width: float) -> Float:
    """Gamma density by its mode and standard deviation, divided by its peak."""
    scale = (np.sqrt(mode**2 + 4 * width**2) - mode) / 2
    after = np.maximum(seconds, 1e-9)
    return np.where(seconds > 0, np.exp(mode / scale * np.log(after / mode) - (after - mode) / scale), 0.0)


def kernels(duration: float, n: int = N_RESPONSES) -> list[Callable[[float, int], Float]]:
    """Responses at equal steps along the line, such that a trial's response peaks at 1.

    Parameters
    ----------
    duration : float
        Seconds that a trial lasts.
    n : int
        How many; at least 2.

    Returns
    -------
    list of callable
        ``(tr, oversampling) -> samples`` every ``tr / oversampling`` seconds, as nilearn's functions of the kind.
    """
    return [_kernel(place, duration) for place in np.linspace(0, 1, n)]


def _kernel(place: float, duration: float) -> Callable[[float, int], Float]:
    def sampled(tr: float, oversampling: int) -> Float:
        step = tr / oversampling
        samples = response(place, np.arange(0, _SECONDS, step))
        # A trial is a sum over the grid points that it covers; one without duration covers one.
        covered = max(1, round(duration / step))
        sums = np.concatenate([np.zeros(covered), np.cumsum(samples)])
        return np.asarray(samples / (sums[covered:] - sums[:-covered]).max())

    return sampled
