"""Feature spaces computed from the stimuli: what a network must explain beyond.

Each is a network of one layer without weights, so that it is extracted, kept and analysed as any other.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest, summary
from bidsdnn.methods import lowlevel
from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Film, Sound, Stimuli, load_video
from bidsdnn.stimuli.transcripts import span, words_of

COMPUTED = "computed"
LONGEST_SIDE = 512
"""Pixels to which larger pictures are reduced."""
PICTURE_RATE = 4.0
"""Frames a second in which a film's pictures are looked at."""
MOTION_RATE = 10.0
"""Frames a second between which motion is estimated."""

FEATURES: dict[str, Callable[..., np.ndarray]] = {
    "luminance": lowlevel.luminance,
    "contrast": lowlevel.contrast,
    "colour": lowlevel.colour,
    "gabor": lowlevel.gabor,
    "hog": lowlevel.hog,
    "flow": lowlevel.flow,
    "mel": lowlevel.mel,
    "envelope": lowlevel.envelope,
    "wordrate": lowlevel.wordrate,
    "position": lowlevel.position,
}
UNITS = {
    "luminance": 17, "contrast": 17, "colour": 18, "gabor": 512, "hog": 1764, "flow": 12, "mel": 64, "envelope": 16,
    "wordrate": 5, "position": 4,
}  # fmt: skip
_PICTURES = ("luminance", "contrast", "colour", "gabor", "hog")
MODALITIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_PICTURES, ("image", "video")),
    "flow": ("video",),
    **dict.fromkeys(("mel", "envelope"), ("audio",)),
    **dict.fromkeys(("wordrate", "position"), ("audio", "video")),
}
"""What each feature can be computed of."""


def check(names: tuple[str, ...]) -> None:
    """Check that features have these names.

    Parameters
    ----------
    names : tuple of str

    Raises
    ------
    ConfigError
        If one is unknown, or stands twice.
    """
    for name in names:
        if name not in FEATURES:
            raise ConfigError(f"--features {name}: {closest(name, FEATURES)}; of a file, write NAME=PATH")
        if names.count(name) > 1:
            raise ConfigError(f"--features {name}: it stands twice; leave one out")


class Control(Network):
    """A feature space as a network of one layer, without weights."""

    def shapes(self, layers: Sequence[str] | None = None) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Say how many numbers the feature has; as `Network.shapes`."""
        return {self.name: ("Feature", (UNITS[self.name],))}


def control(name: str, modality: str) -> Control:
    """Make the network of one layer that computes a feature space.

    Parameters
    ----------
    name : str
        A row of `FEATURES`; also the name of the layer.
    modality : str
        Of the stimuli.

    Returns
    -------
    Control

    Raises
    ------
    ConfigError
        If the feature is unknown, or not for this modality.
    """
    check((name,))
    if modality not in MODALITIES[name]:
        raise ConfigError(
            f"--features {name}: computed of {' and '.join(MODALITIES[name])}, not of {modality}; leave it out, or the "
            "stimuli with --event-filter"
        )
    # A change of the code is a change of the feature.
    code = b"".join(path.read_bytes() for path in sorted(Path(lowlevel.__file__).parent.glob("*.py")))
    return Control(
        name=name,
        module=nn.Sequential(OrderedDict([(name, nn.Identity())])).eval(),
        preprocess=partial(_computed, FEATURES[name]),
        preprocessing=summary(FEATURES[name]) + _how(name, modality),
        weights=COMPUTED,
        seed=None,
        weights_sha256=hashlib.sha256(code + Path(__file__).read_bytes()).hexdigest(),
        modality=modality,
        alias=name,
        source="bidsdnn",
    )


def readings(name: str, stimuli: Stimuli) -> Stimuli:
    """Stimuli as a feature needs them read: a film's frames at a rate, its words, its place in time.

    Parameters
    ----------
    name : str
        A row of `FEATURES`.
    stimuli : Stimuli
        Of one modality.

    Returns
    -------
    Stimuli
    """
    return replace(stimuli, loader=_loader(name, stimuli.table["modality"].iloc[0]))


def _how(name: str, modality: str) -> str:
    if name not in _PICTURES:
        return ""
    each = f" Of a film, frames at {PICTURE_RATE:g} a second were averaged." if modality == "video" else ""
    return f" Pictures were reduced to at most {LONGEST_SIDE} pixels a side.{each}"


def _loader(name: str, modality: str) -> Callable[..., Any] | None:
    """What reads a stimulus for a feature; None for the loader of its modality."""
    if name in ("wordrate", "position"):
        return partial(_timed, words_of if name == "wordrate" else span)
    if modality == "video":
        return partial(load_video, rate=MOTION_RATE if name == "flow" else PICTURE_RATE)
    return None


def _timed(
    reader: Callable[..., Any], path: Path, start: float | None, stop: float | None, *, mono: bool = False
) -> Any:
    """Words and times are those of all channels."""
    return reader(path, start, stop)


def _computed(function: Callable[..., np.ndarray], item: Any) -> Tensor:
    """A feature of one stimulus."""
    if isinstance(item, Image.Image):
        values = function(_reduced(item)[None])[0]
    elif isinstance(item, Film) and function is not lowlevel.flow:
        values = np.mean([function(_reduced(Image.fromarray(frame))[None])[0] for frame in item.frames], axis=0)
    elif isinstance(item, Film | Sound | tuple):
        values = function(*item)
    else:
        raise ValueError(f"expected a picture, a film or a sound, got {type(item).__name__}")
    return torch.as_tensor(values, dtype=torch.float32)


def _reduced(image: Image.Image) -> np.ndarray:
    if max(image.size) > LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return np.asarray(image)
