"""From time series to responses to trials, stimuli or clips: every estimator, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bidsdnn.methods.responses.conditions import condition
from bidsdnn.methods.responses.courses import fir_courses
from bidsdnn.methods.responses.design import high_pass
from bidsdnn.methods.responses.glmsingle import glmsingle
from bidsdnn.methods.responses.hrf import HRFS, event_regressors, impulses, trial_basis, trial_regressors
from bidsdnn.methods.responses.noise_model import NOISES, ar1_coefficients
from bidsdnn.methods.responses.residuals import residual_covariance, residuals
from bidsdnn.methods.responses.scaling import percent_signal_change, standardized
from bidsdnn.methods.responses.timeseries import timeseries
from bidsdnn.methods.responses.trials import fir, lsa, lss
from bidsdnn.methods.responses.window import window

RESPONSES: dict[str, Callable[..., Any]] = {"lss": lss, "lsa": lsa, "fir": fir, "window": window}
"""Estimators of one run: a response to each trial, from the bold of that run."""

ACROSS_RUNS: dict[str, Callable[..., Any]] = {"condition": condition, "glmsingle": glmsingle}
"""Estimators of all runs at once: the stimuli and a response to each, or responses to all trials (`Fitted`)."""

__all__ = [
    "ACROSS_RUNS",
    "HRFS",
    "NOISES",
    "RESPONSES",
    "ar1_coefficients",
    "condition",
    "event_regressors",
    "fir",
    "fir_courses",
    "glmsingle",
    "high_pass",
    "impulses",
    "lsa",
    "lss",
    "percent_signal_change",
    "residual_covariance",
    "residuals",
    "standardized",
    "timeseries",
    "trial_basis",
    "trial_regressors",
    "window",
]
