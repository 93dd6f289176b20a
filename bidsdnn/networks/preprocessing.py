"""What is done to a stimulus before a network sees it, and the same in words for the records.

A picture comes as a PIL image; a film as the pair of its frames, uint8 of shape (frames, height, width, 3), and their
rate; a sound as the pair of its samples, float32 of one channel, and their rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from torchvision.transforms._presets import VideoClassification

from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import DataError
from bidsdnn.stimuli import Sound, resampled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Preparation = tuple[Callable[..., Any], str]


def blank(modality: str) -> Any:
    """Make a stimulus without content, by which shapes are measured.

    Parameters
    ----------
    modality : str
        ``image``, ``video`` or ``audio``.

    Returns
    -------
    PIL.Image.Image or (ndarray, float)
        Grey, or silent, and of two seconds.
    """
    if modality == "video":
        return np.full((50, 256, 256, 3), 128, dtype=np.uint8), 25.0
    if modality == "audio":
        return np.zeros(32_000, dtype=np.float32), 16_000
    return halves((127, 127, 127), (127, 127, 127))


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image.Image:
    """Make a picture of two colours, red, green and blue from 0 to 255, side by side."""
    picture = Image.new("RGB", (256, 256), left)
    picture.paste(right, (128, 0, 256, 256))
    return picture


def described(shorter: int, size: int, mean: Iterable[float], std: Iterable[float], way: str) -> str:
    """Say in words what the usual preparation of pictures does.

    Parameters
    ----------
    shorter, size : int
        Pixels of the shorter side before, and of both sides after, the centre is cut out.
    mean, std : iterable of float
        One a channel.
    way : str
        Of interpolating.

    Returns
    -------
    str
    """
    minus, over = (", ".join(f"{value:g}" for value in values) for values in (mean, std))
    return (
        f"shorter side to {shorter} pixels ({way}), centre {size} x {size}, values 0..1, minus ({minus}), over ({over})"
    )


def describe_preset(transform: Any) -> str:
    """Say in words what torchvision's preset for classification of pictures does.

    Parameters
    ----------
    transform : ImageClassification

    Returns
    -------
    str
    """
    way = InterpolationMode(transform.interpolation).value
    return described(transform.resize_size[0], transform.crop_size[0], transform.mean, transform.std, way)


def standard_preprocess(
    size: int,
    *,
    resize: int | None = None,
    mean: Iterable[float] = IMAGENET_MEAN,
    std: Iterable[float] = IMAGENET_STD,
) -> Preparation:
    """Scale the shorter side, cut out the centre, and normalise.

    Parameters
    ----------
    size : int
        Side of the square that the network sees, in pixels.
    resize : int, optional
        Length of the shorter side before cutting; default ``256 / 224`` of `size`, ImageNet's custom.
    mean, std : iterable of float
        One a channel, of values 0..1.

    Returns
    -------
    preprocess : callable
        From PIL image to tensor.
    preprocessing : str
        The same in words.
    """
    shorter, mean, std = resize or round(size * 256 / 224), tuple(mean), tuple(std)
    steps = [Resize(shorter), CenterCrop(size), ToTensor(), Normalize(mean, std)]
    return Compose(steps), described(shorter, size, mean, std, "bilinear")


def frames_of(clip: tuple[Any, float], *, frames: int, rate: float) -> Tensor:
    """Take frames at a network's rate around the middle of a clip; beyond its ends, the outermost ones repeat.

    Parameters
    ----------
    clip : (uint8 of shape (n, height, width, 3), float)
        Frames, and how many a second there are.
    frames : int
        How many are taken.
    rate : float
        How many a second are taken.

    Returns
    -------
    Tensor of uint8, shape (frames, 3, height, width)
    """
    pixels, own = clip
    pixels = torch.as_tensor(pixels)
    if not len(pixels):
        raise DataError("clip has no frames; check its start and stop")
    # A frame i of a clip shows the time from i / rate on; the middle of frames is the middle of the clip.
    times = len(pixels) / own / 2 + (np.arange(frames) - (frames - 1) / 2) / rate
    index = np.clip(np.floor(times * own + 1e-6), 0, len(pixels) - 1).astype(int)
    return pixels[torch.from_numpy(index)].permute(0, 3, 1, 2)


def clip_preprocess(transform: VideoClassification, *, frames: int, rate: float) -> Preparation:
    """Take a number of frames at a rate from the middle of a clip, and prepare them as torchvision's preset does.

    Parameters
    ----------
    transform : VideoClassification
        Torchvision's preset.
    frames : int
        How many frames the network sees.
    rate : float
        Frames a second.

    Returns
    -------
    preprocess : callable
        From frames and their rate to a tensor of shape (3, frames, height, width).
    preprocessing : str
    """

    def prepare(clip: tuple[Any, float]) -> Tensor:
        return transform(frames_of(clip, frames=frames, rate=rate))

    size = " x ".join(map(str, transform.resize_size))
    side = "sides" if len(transform.resize_size) > 1 else "shorter side"
    minus, over = (", ".join(f"{value:g}" for value in values) for values in (transform.mean, transform.std))
    return prepare, (
        f"{frames} frames at {rate:g} a second around the clip's middle (outermost repeat), {side} to {size} pixels "
        f"(bilinear), centre {' x '.join(map(str, transform.crop_size))}, values 0..1, minus ({minus}), over ({over})"
    )


def waveform(sound: tuple[Any, float], *, rate: int) -> np.ndarray:
    """Bring a sound to a sampling rate by polyphase filtering.

    Parameters
    ----------
    sound : (ndarray of shape (samples,), float)
        One channel, and samples a second.
    rate : int
        Samples a second that are wanted.

    Returns
    -------
    ndarray of float32, shape (samples,)

    Raises
    ------
    DataError
        If there are several channels.
    """
    samples, own = np.asarray(sound[0], dtype=np.float32), round(sound[1])
    if samples.ndim != 1:
        raise DataError(f"sound has shape {samples.shape}, expected one channel; mix it to mono")
    return resampled(Sound(samples, own), rate).samples


def middle(samples: np.ndarray, n: int, *, rate: int) -> np.ndarray:
    """Cut the middle out of a sound.

    Parameters
    ----------
    samples : ndarray, shape (samples,)
    n : int
        Samples that are wanted.
    rate : int
        Samples a second, for the error.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    DataError
        If the sound is shorter.
    """
    if len(samples) < n:
        raise DataError(
            f"sound of {len(samples) / rate:.3f} s is shorter than the {n / rate:.3f} s that the network hears; "
            "lengthen it, or leave it out"
        )
    start = (len(samples) - n) // 2
    return samples[start : start + n]


def sound_preprocess(*, rate: int, seconds: float, mean: float = 0.0, std: float = 1.0) -> Preparation:
    """Cut the middle out of a sound's waveform at a sampling rate.

    Parameters
    ----------
    rate : int
        Samples a second.
    seconds : float
        How long the network hears.
    mean, std : float
        Taken off, and divided by.

    Returns
    -------
    preprocess : callable
        From samples and their rate to a tensor of shape (rate * seconds,).
    preprocessing : str
    """

    def prepare(sound: tuple[Any, float]) -> Tensor:
        samples = middle(waveform(sound, rate=rate), round(rate * seconds), rate=rate)
        return torch.from_numpy((samples - np.float32(mean)) / np.float32(std))

    return prepare, f"middle {seconds:g} s of the waveform at {rate} Hz, minus {mean:g}, over {std:g}"


def asked_preprocess(given: NetworkInput) -> Preparation:
    """Prepare stimuli as the configuration's table ``[networks.NAME]`` says.

    Parameters
    ----------
    given : NetworkInput

    Returns
    -------
    preprocess : callable
    preprocessing : str
    """
    if given.modality == "audio":
        minus, over = (given.mean or (0.0,))[0], (given.std or (1.0,))[0]
        return sound_preprocess(rate=given.sampling_rate, seconds=given.seconds, mean=minus, std=over)
    mean, std = given.mean or IMAGENET_MEAN, given.std or IMAGENET_STD
    if given.modality == "image":
        return standard_preprocess(given.input_size, resize=given.resize, mean=mean, std=std)
    resize = given.resize or round(given.input_size * 256 / 224)
    transform = VideoClassification(
        crop_size=(given.input_size, given.input_size), resize_size=(resize,), mean=mean, std=std
    )
    return clip_preprocess(transform, frames=given.frames, rate=given.frame_rate)
