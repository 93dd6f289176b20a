"""The demo's confounds table, computed from a run's images and motion under fMRIPrep's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.demo.bold import TR, Motion
from bidsdnn.demo.brain import Head

_AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_CUTOFF = 128.0
_COMPONENTS = 6


def cosine_basis(volumes: int) -> np.ndarray:
    """Discrete cosines slower than 128 s, without the constant.

    Parameters
    ----------
    volumes : int

    Returns
    -------
    ndarray, shape (volumes, n)
        Columns of unit norm.
    """
    order = int(np.floor(2 * volumes * TR / _CUTOFF))
    phase = np.pi * (2 * np.arange(volumes)[:, None] + 1) / (2 * volumes)
    return np.sqrt(2 / volumes) * np.cos(phase * np.arange(1, order + 1))


def _expanded(name: str, course: np.ndarray) -> dict[str, np.ndarray]:
    """A course with its derivative and their squares, as fMRIPrep names them."""
    change = np.concatenate([[np.nan], np.diff(course)])
    return {
        name: course,
        f"{name}_derivative1": change,
        f"{name}_power2": course**2,
        f"{name}_derivative1_power2": change**2,
    }


def tabulate_confounds(
    head: Head, mask: np.ndarray, data: np.ndarray, motion: Motion
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compute a run's confounds.

    Parameters
    ----------
    head : Head
        Its T1-weighted image tells white matter (the brightest fifth of the brain) from fluid (the darkest tenth).
    mask : ndarray of bool, shape (x, y, z)
        The run's brain mask.
    data : ndarray, shape (x, y, z, volumes)
        The run's images.
    motion : Motion

    Returns
    -------
    table : DataFrame
        One row a volume; NaN where a value is not defined.
    metadata : dict
        Content of the sidecar.
    """
    series = data[mask].T.astype(float)
    brightness = head.t1w[mask]
    tissue = {
        "csf": brightness <= np.quantile(brightness, 0.1),
        "white_matter": brightness >= np.quantile(brightness, 0.8),
        "global_signal": np.ones(len(brightness), dtype=bool),
    }
    columns: dict[str, np.ndarray] = {}
    for name, voxels in tissue.items():
        columns |= _expanded(name, series[:, voxels].mean(1))
    columns["dvars"] = np.concatenate([[np.nan], np.sqrt((np.diff(series, axis=0) ** 2).mean(1))])
    columns["framewise_displacement"] = motion.framewise_displacement
    cosines = cosine_basis(len(series))
    components, shares = _principal(series[:, tissue["csf"] | tissue["white_matter"]], cosines)
    columns |= {f"a_comp_cor_{i:02d}": course for i, course in enumerate(components.T)}
    columns |= {f"cosine{i:02d}": course for i, course in enumerate(cosines.T)}
    for name, course in zip(_AXES, motion.parameters.T, strict=True):
        columns |= _expanded(name, course)
    metadata = {
        f"a_comp_cor_{i:02d}": {
            "CumulativeVarianceExplained": round(float(shares[: i + 1].sum()), 6),
            "Mask": "combined",
            "Method": "aCompCor",
            "Retained": True,
            "SingularValue": round(float(np.sqrt(shares[i])), 6),
            "VarianceExplained": round(float(shares[i]), 6),
        }
        for i in range(components.shape[1])
    }
    return pd.DataFrame(columns), metadata


def _principal(series: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First principal courses of voxels without slow drift, and the shares of variance that they explain."""
    centred = series - series.mean(0)
    centred = centred - cosines @ (cosines.T @ centred)
    scaled = centred / np.maximum(centred.std(0), 1e-6)
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    # The sign of a component is arbitrary; fixing it makes tables equal on all machines.
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])
    return (left * signs)[:, :_COMPONENTS], (values**2 / (values**2).sum())[:_COMPONENTS]
