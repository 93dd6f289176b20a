"""Which pixels a unit depends on, for each stimulus, by seven methods."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.networks.inputs import prepared
from bidsdnn.networks.network import Network
from bidsdnn.probes import gradients
from bidsdnn.probes.attribution import METHODS, Job, layers_of_maps
from bidsdnn.probes.driving import check_precision, frozen
from bidsdnn.probes.fields import picture_axes
from bidsdnn.probes.occlusion import grid_of
from bidsdnn.probes.overlays import bar, over, room, seen, summary
from bidsdnn.probes.pictures import sheet
from bidsdnn.probes.stream import stream
from bidsdnn.probes.units import Unit
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli

logger = logging.getLogger(__name__)

BATCH = 8
"""Stimuli whose graphs are in memory together; the last bits of a network's output depend on it."""
SIGNED = ("gradient-x-input", "integrated-gradients", "occlusion")
"""Methods whose maps have a sign that means something; colour channels are summed. Of others the largest is taken."""
DEFAULT = ("gradient", "gradient-x-input", "guided-backpropagation", "grad-cam")
REFERENCES = {
    "gradient": "saliency_gradient", "gradient-x-input": "gradient_x_input",
    "guided-backpropagation": "guided_backpropagation", "smoothgrad": "smoothgrad",
    "integrated-gradients": "integrated_gradients", "grad-cam": "grad_cam", "occlusion": "occlusion",
}  # fmt: skip


def saliency(
    network: Network,
    stimuli: Stimuli,
    *,
    units: Sequence[Unit],
    device: str = "cpu",
    seed: int = 0,
    method: str | Sequence[str] | None = None,
    samples: int = 25,
    noise: float = 0.15,
    baseline: float = 0.0,
    tolerance: float = 0.01,
    cam_layer: str = "",
    patch: int = 0,
    step: int = 0,
    fill: float = 0.0,
    show: int = 6,
    save_maps: bool = True,
) -> Result:
    """Maps were made of the pixels that units depend on, for each stimulus.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    units : sequence of Unit
    device : str
    seed : int
        Of SmoothGrad's noise.
    method : str or sequence of str, optional
        Rows of `METHODS`. Default: gradient, gradient-x-input, guided-backpropagation and grad-cam; the last two where
        the network has ReLUs, and maps.
    samples : int
        Noisy copies of SmoothGrad.
    noise : float
        Of SmoothGrad, in units of the range of the stimulus' numbers.
    baseline : float
        Number of the network's input from which gradients are integrated; of normalised pictures 0 is the mean colour.
    tolerance : float
        Error of integrated gradients' midpoint rule, relative to the difference that its sum explains, from which on
        it is refined.
    cam_layer : str
        Layer of Grad-CAM. Default: the last one with maps that the unit reads, poolings not counted.
    patch, step : int
        Of occlusion, in pixels. Default: a seventh of the picture's shorter side, and half of it.
    fill : float
        What the patch shows, as `baseline`.
    show : int
        Stimuli in the sheet of each unit: those that drive it most.
    save_maps : bool
        Whether the maps of all stimuli are stored.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If a parameter cannot be used, or a method does not fit the network.
    ConfigError
        If there is no such method, or the network is in half precision and another than occlusion is asked for.
    """
    _check(samples=samples, noise=noise, tolerance=tolerance, show=show)
    names = _methods(method)
    if names != ["occlusion"]:
        check_precision(network)
    first = prepared(network, stimuli, 0).to(torch.device(device))
    _check_floats(network, first)
    sizes = [first.shape[axis - 1] for axis in picture_axes(first.shape)]
    patch = patch or max(1, min(sizes[-2:]) // 7)
    step = step or max(1, patch // 2)
    if "occlusion" in names:
        grid_of(first.shape, size=patch, step=step)
    ground = torch.full_like(first, baseline)
    with frozen(network.module):
        jobs = [
            Job(network, own, seed, samples, noise, ground, tolerance, maps_of, patch, step, fill)
            for maps_of, own in _together(network, first, units, names, cam_layer)
        ]
        if method is None:
            names = _fitting(names, jobs, first, stimuli.ids[0])
        found = _all(network, stimuli, units, jobs, names, device=device, sizes=sizes)
    pictures = [_sheet(network, stimuli, unit, k, found, names, show) for k, unit in enumerate(units)]
    return Result(
        "saliency",
        tables={"saliency": _table(units, stimuli, found, names)},
        pictures=tuple(pictures) if show else (),
        numbers=_numbers(units, stimuli, found, names) if save_maps else {},
        sidecar=_sidecar(network, units, jobs, names, baseline=baseline, n=len(stimuli)),
    )


def _together(
    network: Network, first: Tensor, units: Sequence[Unit], names: Sequence[str], cam_layer: str
) -> list[tuple[str, list[Unit]]]:
    """Units of one layer, and of one layer of Grad-CAM, which run together."""
    found: dict[tuple[str, str], list[Unit]] = {}
    for layer in dict.fromkeys(unit.layer for unit in units):
        own = [unit for unit in units if unit.layer == layer]
        wanted = "grad-cam" in names and not cam_layer
        maps_of = layers_of_maps(network.module, first[None], own) if wanted else [cam_layer] * len(own)
        for unit, name in zip(own, maps_of, strict=True):
            found.setdefault((layer, name), []).append(unit)
    return [(name, own) for (_, name), own in found.items()]


@dataclass(frozen=True, eq=False)
class _Maps:
    """Maps of methods, shape (n_units, n_stimuli, ...), and what units give and integrals miss (n_units, n_stimuli)."""

    maps: dict[str, np.ndarray]
    values: np.ndarray
    errors: np.ndarray


def _all(
    network: Network, stimuli: Stimuli, units: Sequence[Unit], jobs: Sequence[Job], names: Sequence[str], *,
    device: str, sizes: Sequence[int],
) -> _Maps:  # fmt: skip
    """One pass over the stimuli, with all methods and units."""
    shape = len(units), len(stimuli)
    out = _Maps({name: room((*shape, *sizes)) for name in names}, np.zeros(shape), np.full(shape, np.nan))
    place = {unit: k for k, unit in enumerate(units)}
    for batch in stream(network, stimuli, device=device, batch_size=BATCH, label=f"{network.label} saliency"):
        ids = [stimuli.ids[row] for row in batch.rows]
        rows = slice(batch.rows.start, batch.rows.stop)
        for job in jobs:
            at = [place[unit] for unit in job.units]
            for name in names:
                maps, values, errors = METHODS[name](job, batch.values, ids)
                out.maps[name][at, rows] = _over_channels(maps, batch.values, signed=name in SIGNED).cpu().numpy()
                out.values[at, rows] = values.T.cpu().numpy()
                if errors is not None:
                    out.errors[at, rows] = errors.T.cpu().numpy()
    return out


def _over_channels(maps: Tensor, batch: Tensor, *, signed: bool) -> Tensor:
    """One number a pixel of maps that have the input's channels."""
    if maps.ndim != batch.ndim + 1 or batch.ndim == 2:
        return maps if signed or batch.ndim > 2 else maps.abs()
    return maps.sum(2) if signed else maps.abs().amax(2)


def _check(*, samples: int, noise: float, tolerance: float, show: int) -> None:
    if samples < 1 or noise <= 0 or tolerance <= 0 or show < 0:
        raise ValueError(
            "samples, noise, tolerance, show: expected at least 1, more than 0, more than 0, and at least 0; got "
            f"{samples}, {noise}, {tolerance}, {show}"
        )


def _methods(method: str | Sequence[str] | None) -> list[str]:
    names = list(DEFAULT) if method is None else [method] if isinstance(method, str) else list(dict.fromkeys(method))
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"[parameters.saliency] method {name!r} is not known; {closest(name, METHODS)}")
    if not names:
        raise ConfigError("[parameters.saliency] method: name at least one")
    return names


def _check_floats(network: Network, stimulus: Tensor) -> None:
    if not stimulus.is_floating_point():
        raise ConfigError(f"{network.label}: its input is of {str(stimulus.dtype).removeprefix('torch.')}, to which no "
                          "gradient leads; give a network of pictures, films or sounds as numbers")  # fmt: skip


def _fitting(names: Sequence[str], jobs: Sequence[Job], first: Tensor, name_of: str) -> list[str]:
    """Of methods that nobody asked for by name, those that the network allows; it is said which are left out."""
    kept = []
    for name in names:
        try:
            for job in jobs:
                METHODS[name](job, first[None], [name_of])
        except ValueError as error:
            if name == "gradient":
                raise
            logger.warning("saliency leaves out %s: %s", name, error)
        else:
            kept.append(name)
    return kept


def _table(units: Sequence[Unit], stimuli: Stimuli, found: _Maps, names: Sequence[str]) -> pd.DataFrame:
    """A row a unit, stimulus and method."""
    rows = []
    for k, unit in enumerate(units):
        where = {
            "layer": unit.layer, "channel": unit.channel, "position": ",".join(map(str, unit.position)) or "all",
        }  # fmt: skip
        for i, stimulus in enumerate(stimuli.ids):
            for name in names:
                error = found.errors[k, i] if name == "integrated-gradients" else np.nan
                rows.append({**where, "stimulus_id": stimulus, "method": name, "value": found.values[k, i],
                             **summary(found.maps[name][k, i]), "error": error})  # fmt: skip
    return pd.DataFrame(rows)


def _numbers(units: Sequence[Unit], stimuli: Stimuli, found: _Maps, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        "stim_id": np.array(stimuli.ids, dtype=object), "unit": np.array([str(unit) for unit in units], dtype=object),
        "value": found.values, **{name: found.maps[name] for name in names},
    }  # fmt: skip


def _sheet(
    network: Network, stimuli: Stimuli, unit: Unit, k: int, found: _Maps, names: Sequence[str], show: int
) -> Picture:
    """The stimuli that drive a unit most, one a row, and the maps of each method over them."""
    order = np.argsort(-found.values[k], kind="stable")[:show]
    rows = []
    for i in order:
        picture = seen(prepared(network, stimuli, int(i)).numpy())
        rows.append([picture, *[over(found.maps[n][k, i], picture, signed=n in SIGNED) for n in names]])
    width = rows[0][0].shape[1] if rows else 0
    tiles = sheet(rows) if rows else np.zeros((1, 1, 3), np.uint8)
    foot = sheet([[np.full((12, width, 3), 255, np.uint8), *[bar(width, signed=n in SIGNED) for n in names]]])
    ids = ", ".join(stimuli.ids[int(i)] for i in order)
    signed = [name for name in names if name in SIGNED]
    said = (
        f" Of {', '.join(signed)}: blue speaks against the unit, red for it; in large pictures each pixel is drawn "
        "over its neighbours, so that single ones are seen."
        if signed else ""
    )  # fmt: skip
    what = {"video": "middle frame of the film", "audio": "sound"}.get(network.modality, "picture")
    return Picture(
        unit.label,
        np.concatenate([tiles, foot]),
        f"Parts of the stimuli {ids} on which {unit} depends, by {', '.join(names)}.",
        f"{network.label}, {unit}: the {len(order)} of {len(stimuli)} stimuli that drive the unit most, from the top "
        f"({found.values[k, order[0]]:.3g} to {found.values[k, order[-1]]:.3g}). From the left: the {what} as the "
        f"network is given it; {'; '.join(names)}. Each map is scaled by itself, to the 99.5th percentile of its "
        f"absolute values; below, the colours, of which the others go from zero to that.{said}",
        str(unit),
    )


def _sidecar(
    network: Network, units: Sequence[Unit], jobs: Sequence[Job], names: Sequence[str], *, baseline: float, n: int
) -> dict[str, Any]:
    """What a reader needs to know."""
    job = jobs[0]
    cams = {str(unit): job.cam_layer for job in jobs for unit in job.units}
    says = {
        "gradient": "the gradient",
        "gradient-x-input": "the gradient times the input",
        "guided-backpropagation": "guided backpropagation",
        "smoothgrad": f"SmoothGrad (the mean gradient of {job.samples} copies with Gaussian noise of {job.noise:g} of "
        "the stimulus' range)",
        "integrated-gradients": f"integrated gradients (from an input of {baseline:g}; midpoint rule of "
        f"{', '.join(map(str, gradients.PIECES))} pieces, as few as bring the sum to {job.tolerance:g} of its goal; "
        "what it still misses is spread in proportion to absolute values)",
        "grad-cam": f"Grad-CAM (layer {', '.join(dict.fromkeys(cams.values()))})",
        "occlusion": f"occlusion (the drop under a patch of {job.size} pixels, every {job.step}, of value "
        f"{job.fill:g}; pixels have the mean over the patches that cover them)",
    }
    return {
        "Methods": f"Maps of the pixels that {len(units)} unit{'s' * (len(units) > 1)} of {network.label} depend on "
        f"were made for {n} stimuli by {', '.join(says[name] for name in names)}. Of colours the "
        "largest absolute value was taken, or the sum where the sign has a meaning.",
        "References": [REFERENCES[name] for name in names],
        "Method": list(names),
        **({"GradCAMLayers": cams} if "grad-cam" in names else {}),
        "Columns": {
            "value": "what the unit gives for the stimulus",
            "sum": "of the map", "largest": "value of the map that is farthest from zero", "peak": "its row,column",
            "centre": "mean row,column, weighted by absolute values",
            "half": "smallest share of the pixels that holds half of the absolute sum",
            "error": "of integrated gradients: what the midpoint rule's sum missed before it was made whole, relative "
            "to the difference to the baseline",
        },
    }  # fmt: skip
