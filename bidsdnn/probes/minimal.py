"""The smallest part of a picture that keeps a unit's activation: as segments, or under a mask that is learnt.

DNNBrain's minimal and masked images. What is taken away shows the picture's mean colour; what is kept is said to keep
the activation if it keeps a share of the difference that the whole picture makes to that colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.probes.ascent import Climb, ascend
from bidsdnn.probes.canvas import roughness
from bidsdnn.probes.driving import check_gradient, check_precision, frozen, own_drive
from bidsdnn.probes.made import natural_drive, start_picture
from bidsdnn.probes.pixels import Pixels, to_bytes
from bidsdnn.probes.units import Unit
from bidsdnn.result import Picture, Result
from bidsdnn.stimuli import Stimuli

_LEVELS = 64
"""Thresholds of a mask that are tried."""
_COMPACT = 0.5
"""How much a pixel's place counts beside its colour where a picture is cut into segments."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A picture for a unit, and what the unit gives for parts of it.

    Parameters
    ----------
    network : Network
    prepared : Pixels
    unit : Unit
    picture : Tensor, shape (1, 3, height, width)
    batch : int
        Parts at once.
    """

    network: Network
    prepared: Pixels
    unit: Unit
    picture: Tensor
    batch: int

    def shown(self, masks: Tensor) -> Tensor:
        """The picture where a mask of shape (n, 1, height, width) is 1, and its mean colour where it is 0."""
        return masks * self.picture + (1 - masks) * self.picture.mean((2, 3), keepdim=True)

    def given(self, masks: Tensor) -> NDArray[np.float64]:
        """What the unit gives for each of some parts, shape (n,)."""
        found = []
        with torch.inference_mode():
            for some in masks.split(self.batch):
                inputs = self.prepared.to_input(self.shown(some.to(self.picture.device)))
                found.append(own_drive(self.network.module, inputs, [self.unit] * len(some), silent=False)[0].cpu())
        return torch.cat(found).double().numpy()

    def ends(self) -> tuple[float, float]:
        """What the unit gives for the mean colour alone, and for the whole picture."""
        size = self.picture.shape[2:]
        nothing, whole = self.given(torch.stack([torch.zeros(1, *size), torch.ones(1, *size)]))
        return float(nothing), float(whole)


def minimal_image(
    network: Network, stimuli: Stimuli, *, units: Sequence[Unit], device: str = "cpu", start: str | None = None,
    keep: float = 0.9, segments: int = 40, batch: int = 64,
) -> Result:  # fmt: skip
    """Of a picture, the fewest segments were kept that keep a unit's activation.

    Segments are k-means clusters of colour and place. The one that costs least is taken away again and again, as long
    as the rest keeps its share; so no single one of those that are left can be spared.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    units : sequence of Unit
    device : str
    start : str, optional
        A stimulus, or a file; by default each unit's best stimulus.
    keep : float
        Share of the activation that is to be kept.
    segments : int
    batch : int
        Parts of the picture at once.

    Returns
    -------
    Result
    """
    if segments < 2:
        raise ValueError(f"segments: expected at least 2, got {segments}")
    rows, pictures = [], []
    for parts, name in _pictures(network, stimuli, units, device, start, keep, batch):
        labels = torch.from_numpy(segmented(to_bytes(parts.picture)[0], segments))
        kept = fewest(parts, labels, keep)
        mask = torch.isin(labels, torch.tensor(kept))[None, None].float()
        rows.append({**_row(parts, name, mask), "segments": len(kept), "of_segments": int(labels.max()) + 1})
        pictures.append(_picture(parts, name, mask, rows[-1], "Minimal"))
    return _result("minimalimage", network, rows, pictures, (
        f"Each picture was cut into {segments} segments by k-means of colour and place; the one that costs a unit's "
        f"activation least was taken away, and again, as long as the rest kept {100 * keep:g} % of what the picture "
        "gave beyond its mean colour (minimal images of DNNBrain)."
    ))  # fmt: skip


def masked_image(
    network: Network, stimuli: Stimuli, *, units: Sequence[Unit], device: str = "cpu", start: str | None = None,
    keep: float = 0.9, grid: int = 28, steps: int = 150, rate: float = 0.1, area: float = 2.0, smooth: float = 1.0,
    batch: int = 64,
) -> Result:  # fmt: skip
    """Of a picture, the smallest part under a learnt mask was kept that keeps a unit's activation.

    A mask of grid x grid numbers, brought to the picture's size, is changed by gradient ascent so that little of the
    picture keeps the activation; what lies above the highest threshold that keeps its share is the part.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    units : sequence of Unit
    device : str
    start : str, optional
        A stimulus, or a file; by default each unit's best stimulus.
    keep : float
        Share of the activation that is to be kept.
    grid : int
        Side of the mask before it is enlarged.
    steps : int
    rate : float
        Of Adam.
    area, smooth : float
        Weights of the mask's mean and of its total variation; in units of what the picture gives beyond its mean
        colour.
    batch : int
        Parts of the picture at once.

    Returns
    -------
    Result
    """
    if grid < 2 or min(area, smooth) < 0:
        raise ValueError(f"grid, area, smooth: expected at least 2, 0 and 0, got {grid}, {area}, {smooth}")
    check_precision(network)
    climb = Climb(steps=steps, rate=rate, jitter=0, scaling=0, rotation=0, tv=0, l2=0)
    rows, pictures = [], []
    for parts, name in _pictures(network, stimuli, units, device, start, keep, batch):
        soft = learnt_mask(parts, climb, grid=grid, area=area, smooth=smooth)
        mask = highest(parts, soft, keep)
        rows.append(_row(parts, name, mask))
        pictures.append(_picture(parts, name, mask, rows[-1], "Masked"))
    return _result("maskedimage", network, rows, pictures, (
        f"A mask of {grid} x {grid} numbers was changed by {steps} steps of gradient ascent so that little of the "
        f"picture keeps a unit's activation (weights: area {area:g}, total variation {smooth:g}; Fong & Vedaldi, "
        f"2017); shown is what lies above the highest threshold that keeps {100 * keep:g} % of what the picture gave "
        "beyond its mean colour (masked images of DNNBrain)."
    ), references=["masks", "adam"])  # fmt: skip


def segmented(pixels: NDArray[np.uint8], segments: int) -> NDArray[np.int64]:
    """Cut a picture into segments: clusters of pixels of like colour that lie together.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
    segments : int
        As many at most.

    Returns
    -------
    ndarray of int, shape (height, width)
        From 0, each number in use.
    """
    height, width = pixels.shape[:2]
    across = max(1, round((segments * width / height) ** 0.5))
    down = max(1, segments // across)
    step = (height * width / segments) ** 0.5
    rows, columns = np.indices((height, width))
    place = np.stack([rows, columns], -1) * (_COMPACT / step)
    table = np.concatenate([pixels / 255, place], -1).reshape(-1, 5)
    at = np.stack(np.meshgrid(
        ((np.arange(down) + 0.5) * height / down).astype(int), ((np.arange(across) + 0.5) * width / across).astype(int),
        indexing="ij",
    ), -1).reshape(-1, 2)  # fmt: skip
    first = table[at[:, 0] * width + at[:, 1]]
    found = KMeans(len(first), init=first, n_init=1, max_iter=10, random_state=0).fit(table).labels_
    return np.unique(found, return_inverse=True)[1].reshape(height, width).astype(np.int64)


def fewest(parts: Parts, labels: Tensor, keep: float) -> list[int]:
    """Find segments of which none can be spared: the one that costs least goes, as long as the rest keeps its share.

    Parameters
    ----------
    parts : Parts
    labels : Tensor of int, shape (height, width)
    keep : float

    Returns
    -------
    list of int
        Numbers of the segments; all, where the picture gives no more than its mean colour.
    """
    nothing, whole = parts.ends()
    left = labels.unique().tolist()
    needed = nothing + keep * (whole - nothing)
    while whole > nothing and len(left) > 1:
        masks = torch.stack([torch.isin(labels, torch.tensor([k for k in left if k != one])) for one in left])
        given = parts.given(masks[:, None].float())
        best = int(given.argmax())
        if given[best] < needed:
            break
        del left[best]
    return left


def learnt_mask(parts: Parts, climb: Climb, *, grid: int, area: float, smooth: float) -> Tensor:
    """Change a mask so that little of the picture keeps the activation.

    Parameters
    ----------
    parts : Parts
    climb : Climb
    grid : int
    area, smooth : float

    Returns
    -------
    Tensor, shape (1, 1, height, width)
        From 0 to 1.
    """
    canvas = _Mask(parts, grid)
    nothing, whole = parts.ends()
    size = max(abs(whole - nothing), 1e-12)

    def driven(pictures: Tensor) -> tuple[Tensor, None]:
        given = own_drive(parts.network.module, parts.prepared.to_input(pictures), [parts.unit])[0]
        check_gradient(parts.network, given, [parts.unit])
        # More than the whole picture gives is not asked for.
        gained = ((given - nothing) / size).clamp(max=1)
        mask = canvas.last
        return gained - area * mask.mean((1, 2, 3)) - smooth * roughness(mask), None

    with frozen(parts.network.module):
        found = ascend(driven, canvas, climb, [torch.Generator().manual_seed(0)])
    del found
    with torch.no_grad():
        return canvas.last.detach()


class _Mask:
    """A canvas whose pictures are one picture under masks."""

    def __init__(self, parts: Parts, grid: int) -> None:
        self.parts = parts
        self.values = torch.full((1, 1, grid, grid), 2.0, device=parts.picture.device)
        self.last = torch.sigmoid(self.values)

    def pictures(self, values: Tensor) -> Tensor:
        size = list(self.parts.picture.shape[2:])
        self.last = torch.sigmoid(functional.interpolate(values, size, mode="bilinear", align_corners=False))
        return self.parts.shown(self.last)


def highest(parts: Parts, soft: Tensor, keep: float) -> Tensor:
    """Cut a mask at the highest threshold that keeps the share.

    Parameters
    ----------
    parts : Parts
    soft : Tensor, shape (1, 1, height, width)
    keep : float

    Returns
    -------
    Tensor of 0 and 1, shape (1, 1, height, width)
        1 everywhere, where no threshold keeps it.
    """
    nothing, whole = parts.ends()
    # Shares of the picture, from the smallest part to nearly all of it.
    at = torch.quantile(soft.flatten().cpu().double(), torch.linspace(1 - 1 / _LEVELS, 1 / _LEVELS, _LEVELS).double())
    masks = (soft.cpu().double() >= at.reshape(-1, 1, 1, 1)).float()
    enough = parts.given(masks) >= nothing + keep * (whole - nothing)
    if not (whole > nothing and enough.any()):
        return torch.ones_like(masks[:1])
    return masks[int(np.flatnonzero(enough)[0])][None]


def _pictures(
    network: Network, stimuli: Stimuli, units: Sequence[Unit], device: str, start: str | None, keep: float, batch: int
) -> list[tuple[Parts, str]]:
    """The picture of each unit, as the network sees it, and its name."""
    if not units:
        raise ConfigError("name units with --unit LAYER:CHANNEL")
    if not 0 < keep <= 1 or batch < 1:
        raise ValueError(f"keep, batch: expected more than 0 and at most 1, and at least 1, got {keep}, {batch}")
    prepared = Pixels.of(network)
    best = [start] * len(units) if start else natural_drive(network, stimuli, units, device=device).stimulus
    found = []
    for unit, name in zip(units, best, strict=True):
        picture = start_picture(network, stimuli, str(name), prepared)
        found.append((Parts(network, prepared.to(device), unit, picture.to(device), batch), str(name)))
    return found


def _row(parts: Parts, name: str, mask: Tensor) -> dict[str, Any]:
    nothing, whole = parts.ends()
    given = float(parts.given(mask)[0])
    return {
        "network": parts.network.label, "layer": parts.unit.layer, "unit": str(parts.unit), "stimulus_id": name,
        "activation": given, "whole": whole, "blank": nothing,
        "kept": (given - nothing) / (whole - nothing) if whole > nothing else np.nan, "area": float(mask.mean()),
    }  # fmt: skip


def _picture(parts: Parts, name: str, mask: Tensor, row: dict[str, Any], what: str) -> Picture:
    unit = str(parts.unit)
    shown = to_bytes(parts.shown(mask.to(parts.picture.device)))[0]
    kept = "none" if not np.isfinite(row["kept"]) else f"{100 * row['kept']:.0f} %"
    return Picture(
        parts.unit.label, shown, f"{what} image of {name} for {unit} of {parts.network.label}",
        f"{what} image of {name} for {unit}: {100 * row['area']:.0f} % of the picture, which keeps {kept} of "
        "the activation.", unit,
    )  # fmt: skip


def _result(
    name: str, network: Network, rows: list[dict[str, Any]], pictures: list[Picture], said: str, *,
    references: Sequence[str] = (),
) -> Result:  # fmt: skip
    return Result(
        name,
        tables={name: pd.DataFrame(rows)},
        pictures=tuple(pictures),
        sidecar={
            "Methods": said,
            "References": ["dnnbrain", *references],
            "Columns": {
                "activation": "what the unit gives for the part that is kept", "whole": "for the whole picture",
                "blank": "for the picture's mean colour", "area": "share of the picture that is kept",
                "kept": "share of the activation beyond that of the mean colour; n/a if the picture gives no more",
            },
        },
    )  # fmt: skip
