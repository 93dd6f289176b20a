from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gamma

from bidsdnn.methods.hrf_library import N_RESPONSES, kernels, response
from bidsdnn.methods.responses import trial_regressors

SECONDS = np.arange(0, 50, 0.01)


def test_the_library_runs_from_early_with_an_undershoot_to_late_without():
    curves = np.array([response(place, SECONDS) for place in np.linspace(0, 1, N_RESPONSES)])
    peaks = SECONDS[curves.argmax(axis=1)]
    assert peaks[0] == pytest.approx(2.8, abs=0.1) and peaks[-1] == pytest.approx(5.7, abs=0.1)
    half = curves > curves.max(axis=1, keepdims=True) / 2
    middles = (half * SECONDS).sum(axis=1) / half.sum(axis=1)
    assert np.diff(middles).min() > -0.05 and np.diff(middles).max() < 0.6
    assert curves[0].min() < -0.2 and curves[-1].min() > -0.01
    neighbours = [np.corrcoef(curves[i], curves[i + 1])[0, 1] for i in range(N_RESPONSES - 1)]
    assert min(neighbours) > 0.95 and max(neighbours) < 0.9999


def test_a_response_is_made_of_gamma_densities():
    def density(seconds, mode, width):
        scale = (np.sqrt(mode**2 + 4 * width**2) - mode) / 2
        one = gamma(1 + mode / scale, scale=scale)
        assert one.std() == pytest.approx(width)
        return one.pdf(seconds) / one.pdf(mode)

    expected = density(SECONDS - 4.4, 1.3, 3.4)
    np.testing.assert_allclose(response(1.0, SECONDS), expected, atol=1e-10)
    expected = density(SECONDS, 2.9, 2.05) - 0.6 * density(SECONDS, 6.4, 1.8)
    np.testing.assert_allclose(response(0.0, SECONDS), expected, atol=1e-10)


@pytest.mark.parametrize("duration", [0.0, 0.5, 3.0, 12.0])
def test_a_trial_of_the_given_duration_peaks_at_one(duration):
    frames = 0.1 * np.arange(600)
    for kernel in kernels(duration):
        regressor = trial_regressors([5.0], [duration], frame_times=frames, hrf=kernel)
        assert regressor.max() == pytest.approx(1, abs=0.02)
        assert abs(regressor[frames < 5]).max() == 0


def test_a_trial_is_the_convolution_of_its_boxcar():
    step, frames = 0.02, np.arange(0, 80, 1.0)
    kernel = kernels(2.0)[12]
    grid = np.arange(0, 80, step)
    boxcar = ((grid >= 10) & (grid < 12)).astype(float)
    expected = np.convolve(boxcar, kernel(1.0, 50))[: len(grid)][::50]
    found = trial_regressors([10.0], [2.0], frame_times=frames, hrf=kernel)[:, 0]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="hrf: expected one of"):
        trial_regressors([1.0], [1.0], frame_times=np.arange(20.0), hrf="flat")
