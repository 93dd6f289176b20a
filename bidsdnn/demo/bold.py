"""The demo's BOLD: what the planted layers drive, and what makes it hard to see.

A region's voxels read out its layer linearly, with weights of their own. The rest is what a real scan holds:
a haemodynamic response that differs between people, autocorrelated noise, slow drift, breathing, and a moving head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter
from scipy.stats import gamma

from bidsdnn.demo.brain import Head

TR = 2.0
START_TIME = TR / 2
# Percent signal change: of all pictures alike, and the standard deviation over pictures.
MEAN_RESPONSE, PICTURE_RESPONSE = 1.0, 0.55
# Percent standard deviation at noise 1: autocorrelated, drift, breathing.
_AR_NOISE, _DRIFT, _BREATHING = 1.0, 0.8, 0.5
_AUTOCORRELATION = 0.35
_FINE_STEP = 0.02
_LEAD_IN, _TAIL, _MEAN_GAP = 4.0, 12.0, 4.0
DURATION = 1.5


@dataclass(frozen=True)
class Hrf:
    """A haemodynamic response: the difference of two gamma densities (Friston et al. 1998).

    Parameters
    ----------
    delay : float
        Of the peak's density, in seconds.
    width : float
        Relative width of the peak.
    undershoot : float
        Ratio of the undershoot to the peak.
    """

    delay: float = 6.0
    width: float = 1.0
    undershoot: float = 1 / 6

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Hrf:
        """Draw a person's response."""
        return cls(
            delay=float(np.clip(rng.normal(6.0, 0.4), 5.2, 6.8)),
            width=float(np.clip(rng.normal(1.0, 0.08), 0.85, 1.15)),
            undershoot=float(np.clip(rng.normal(1 / 6, 0.04), 0.05, 0.3)),
        )

    def sample(self, times: np.ndarray) -> np.ndarray:
        """Value at times in seconds after a brief event, with a peak of 1."""
        peak = gamma.pdf(times, self.delay / self.width, scale=self.width)
        values = peak - self.undershoot * gamma.pdf(times, 16.0)
        return values / values.max()


def plan_trials(files: list[str], categories: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Order a run: every picture once and a few catch trials, at jittered onsets.

    Parameters
    ----------
    files : list of str
        Paths under ``stimuli/``.
    categories : list of str
        What each picture shows.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        Columns of an events file: `onset`, `duration`, `trial_type`, `category`, `stim_file`.
    """
    catch = max(2, len(files) // 16)
    table = pd.DataFrame(
        {
            "trial_type": ["object"] * len(files) + ["catch"] * catch,
            "category": [*categories, *["n/a"] * catch],
            "stim_file": [*files, *["n/a"] * catch],
        }
    )
    table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    # Evenly spread gaps in random order: runs of one length, whatever the order.
    gaps = rng.permutation(np.linspace(_MEAN_GAP - 1, _MEAN_GAP + 1, len(table)))
    table.insert(0, "onset", np.round(_LEAD_IN + np.cumsum(gaps) - gaps, 2))
    table.insert(1, "duration", DURATION)
    return table


def count_volumes(trials: int) -> int:
    """Volumes of a run with a number of trials."""
    return int(np.ceil((_LEAD_IN + trials * _MEAN_GAP + _TAIL) / TR))


def evoked(onsets: np.ndarray, volumes: int, hrf: Hrf) -> np.ndarray:
    """Response of every trial at every volume's time.

    Parameters
    ----------
    onsets : ndarray, shape (trials,)
        Seconds.
    volumes : int
    hrf : Hrf

    Returns
    -------
    ndarray, shape (volumes, trials)
        Peak of about 1.
    """
    lags = np.arange(0, 32, _FINE_STEP)
    box = np.ones(round(DURATION / _FINE_STEP))
    response = np.convolve(hrf.sample(lags), box / len(box))[: len(lags)]
    # Slice timing correction makes volume i the state of the brain at START_TIME + i TR.
    since = START_TIME + TR * np.arange(volumes)[:, None] - onsets[None, :]
    return np.interp(since, lags, response / response.max(), left=0.0, right=0.0)


def read_out(activations: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Read a layer out linearly, with random weights that vary smoothly over voxels.

    Parameters
    ----------
    activations : ndarray, shape (stimuli, units)
    places : ndarray, shape (voxels, 3)
        Millimetres.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (stimuli, voxels)
        Mean 0 and standard deviation 1 over stimuli.
    """
    centred = activations - activations.mean(0)
    independent = centred @ rng.standard_normal((activations.shape[1], len(places)))
    squared = ((places[:, None] - places[None]) ** 2).sum(-1)
    smooth = independent @ np.exp(-squared / (2 * 3.5**2))
    return (smooth - smooth.mean(0)) / smooth.std(0)


@dataclass(frozen=True, eq=False)
class Motion:
    """How a head moved in a run.

    Parameters
    ----------
    parameters : ndarray, shape (volumes, 6)
        Translations in millimetres, then rotations in radians.
    """

    parameters: np.ndarray

    @classmethod
    def draw(cls, volumes: int, rng: np.random.Generator) -> Motion:
        """Draw a slow random walk with a few sudden shifts."""
        steps = 0.02 * rng.standard_normal((volumes, 6))
        jumps = rng.choice(volumes, size=max(1, volumes // 50), replace=False)
        steps[jumps] += 0.15 * rng.standard_normal((len(jumps), 6))
        walk = gaussian_filter(np.cumsum(steps, axis=0), (0.5, 0))
        # 50 mm from the head's centre, a radian moves as far as 50 mm do.
        return cls((walk - walk[0]) * [1, 1, 1, 1 / 50, 1 / 50, 1 / 50])

    @property
    def framewise_displacement(self) -> np.ndarray:
        """Sum of absolute changes in mm (Power et al. 2012); NaN at the first volume."""
        moved = np.abs(np.diff(self.parameters, axis=0)) @ [1, 1, 1, 50, 50, 50]
        return np.concatenate([[np.nan], moved])


def simulate_run(
    head: Head, driven: np.ndarray, response: np.ndarray, motion: Motion, rng: np.random.Generator, *, noise: float
) -> np.ndarray:
    """Simulate a run's images.

    Parameters
    ----------
    head : Head
    driven : ndarray of bool, shape (x, y, z)
        Voxels that respond.
    response : ndarray, shape (volumes, voxels)
        Percent signal change of the driven voxels.
    motion : Motion
    rng : numpy.random.Generator
    noise : float
        Multiplies all that is not response.

    Returns
    -------
    ndarray of int16, shape (x, y, z, volumes)
    """
    baseline = head.bold
    visible = baseline > 0
    level, places = baseline[visible], head.grid.places[visible]
    volumes = len(response)
    white = rng.standard_normal((volumes + 10, len(level)), dtype=np.float32)
    change = _AR_NOISE * lfilter([np.sqrt(1 - _AUTOCORRELATION**2)], [1, -_AUTOCORRELATION], white, axis=0)[10:]
    time = (np.arange(volumes) + 0.5) / volumes
    cosines = np.cos(np.pi * time[:, None] * np.arange(1, 4)) / np.arange(1, 4)
    breathing = np.sin(2 * np.pi * (rng.uniform(0.22, 0.3) * TR * np.arange(volumes) + rng.uniform()))
    for course, size in [*((c, _DRIFT) for c in cosines.T), (breathing, _BREATHING)]:
        waves = np.cos(places @ rng.normal(0, 0.02, 3) + rng.uniform(0, 2 * np.pi))
        change += size * np.outer(course, 0.4 * rng.normal() + waves)
    change *= noise
    change[:, driven[visible]] += response
    images = level * (1 + change / 100) + noise * _edge_motion(head, baseline, visible, motion)
    data = np.zeros((*head.grid.shape, volumes), dtype=np.int16)
    data[visible] = np.round(np.clip(images, 0, 32000)).T
    return data


def _edge_motion(head: Head, baseline: np.ndarray, visible: np.ndarray, motion: Motion) -> np.ndarray:
    """What is left of motion after realignment: brightness moves along its gradient, a fifth of the head's way."""
    size = float(head.grid.affine[0, 0])
    slope = np.stack(np.gradient(baseline, size), axis=-1)[visible]
    places = head.grid.places[visible]
    turn = np.cross(places, slope)
    moved: np.ndarray = -0.2 * motion.parameters @ np.concatenate([slope, turn], axis=1).T
    return moved
