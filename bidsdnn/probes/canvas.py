"""What a picture that is made is a function of: pixels, their spectrum, or the latents of a generator.

Each canvas holds one tensor whose first axis is the pictures, and gives pictures of red, green and blue from 0 to 1.
All start from noise that a picture's own generator of random numbers draws, so that a picture does not depend on which
others are made beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bidsdnn.errors import ConfigError

NOISE = 0.1
"""Standard deviation of the noise that is started from, before the logistic function."""
_EDGE = 0.01
"""Distance from black and from white that a picture to start from is kept at, where the logistic function ends."""


class Canvas(Protocol):
    """Pictures as a function of one tensor."""

    values: Tensor

    def pictures(self, values: Tensor) -> Tensor:
        """Draw, shape (n, 3, height, width), from 0 to 1."""
        ...


class Pixelwise:
    """Pictures as their pixels: the logistic function of mixed, uncorrelated colours.

    Parameters
    ----------
    generators : sequence of torch.Generator
        One a picture, on the CPU.
    size : (int, int)
        Height and width.
    colours : Tensor, shape (3, 3)
        Mixes uncorrelated colours into red, green and blue, as `colour_mixing` finds it.
    device : str
    """

    def __init__(
        self, generators: Sequence[torch.Generator], size: tuple[int, int], colours: Tensor, *, device: str = "cpu"
    ) -> None:
        self.size, self.colours = size, colours.to(device)
        self.values = NOISE * torch.stack([torch.randn(3, *size, generator=one) for one in generators]).to(device)

    def start(self, pictures: Tensor) -> None:
        """Add pictures of shape (n, 3, height, width) to the noise."""
        self.values = self.values + self.inverse(pictures)

    def inverse(self, pictures: Tensor) -> Tensor:
        """What draws some pictures."""
        raw = torch.logit(pictures.to(self.colours.device).clamp(_EDGE, 1 - _EDGE))
        return torch.einsum("kc,nchw->nkhw", torch.linalg.inv(self.colours), raw)

    def pictures(self, values: Tensor) -> Tensor:
        """Draw, shape (n, 3, height, width)."""
        return torch.sigmoid(torch.einsum("ck,nkhw->nchw", self.colours, values))


class Fourier(Pixelwise):
    """Pictures as their spectrum, each frequency at the size that it has in pictures of the world (Olah et al., 2017).

    Where the gradient of pixels makes the finest detail first, a step along this one changes all frequencies alike, in
    proportion to 1 / f.

    Parameters
    ----------
    generators, size, colours, device
        As of `Pixelwise`.
    decay : float
        Power of the frequency by which its size goes down.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], size: tuple[int, int], colours: Tensor, *, device: str = "cpu",
        decay: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(generators, size, colours, device=device)
        rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
        frequency = np.maximum(np.hypot(rows, columns), 1 / max(size))
        scale = frequency**-decay
        # Noise of unit size in all coefficients is noise of unit size in the pixels.
        self.scale = torch.from_numpy((scale / np.sqrt((scale**2).mean())).astype(np.float32)).to(device)
        spectra = torch.fft.rfft2(self.values, norm="ortho")
        self.values = torch.view_as_real(spectra).contiguous()

    def inverse(self, pictures: Tensor) -> Tensor:
        """What draws some pictures."""
        return torch.view_as_real(torch.fft.rfft2(super().inverse(pictures), norm="ortho") / self.scale).contiguous()

    def pictures(self, values: Tensor) -> Tensor:
        """Draw, shape (n, 3, height, width)."""
        raw = torch.fft.irfft2(torch.view_as_complex(values) * self.scale, s=self.size, norm="ortho")
        return super().pictures(raw)


class Generated:
    """Pictures as what a generator network makes of its latents (Nguyen et al., 2016).

    Parameters
    ----------
    generators : sequence of torch.Generator
        One a picture, on the CPU.
    size : (int, int)
        Height and width that the generator's pictures are brought to.
    network : nn.Module
        From latents, shape (n, *latent_shape), to pictures from 0 to 1, shape (n, 3, height, width). Its attribute
        ``latent_shape`` says what it takes.
    device : str

    Raises
    ------
    ConfigError
        If it says no ``latent_shape``, or makes no such pictures.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], size: tuple[int, int], network: nn.Module, *, device: str = "cpu"
    ) -> None:
        shape = getattr(network, "latent_shape", None)
        shape = (shape,) if isinstance(shape, int) else shape
        if not isinstance(network, nn.Module) or not shape:
            raise ConfigError(
                "[parameters.optimal-stimulus] generator: give an nn.Module with an attribute latent_shape, as "
                "(128,), that makes pictures (n, 3, height, width) from 0 to 1"
            )
        self.network, self.size = network.to(device).eval().requires_grad_(False), size
        self.values = torch.stack([torch.randn(*shape, generator=one) for one in generators]).to(device)
        with torch.no_grad():
            made = self.network(self.values[:1])
        if made.ndim != 4 or made.shape[1] != 3 or made.min() < -1e-3 or made.max() > 1 + 1e-3:
            raise ConfigError(
                f"[parameters.optimal-stimulus] generator: it makes shape {tuple(made.shape)}, from {made.min():.3g} "
                f"to {made.max():.3g}; make it (n, 3, height, width) from 0 to 1, by a sigmoid at its end"
            )

    def pictures(self, values: Tensor) -> Tensor:
        """Draw, shape (n, 3, height, width)."""
        made = self.network(values)
        if tuple(made.shape[2:]) != self.size:
            made = functional.interpolate(made, self.size, mode="bilinear", align_corners=False, antialias=True)
        return made.clamp(0, 1)


def colour_mixing(colours: NDArray[Any]) -> Tensor:
    """Colours of pixels were decorrelated by the stimuli's own covariance (Olah, Mordvintsev & Schubert 2017).

    Parameters
    ----------
    colours : ndarray, shape (n, 3)
        Red, green and blue of pixels.

    Returns
    -------
    Tensor of float32, shape (3, 3)
        The symmetric root of their covariance, of norm 1: it makes colours as correlated as the stimuli's of colours
        that are not. No direction is less than a tenth of the largest, so that stimuli without colour do not rule
        colour out.
    """
    covariance = np.cov(np.asarray(colours, dtype=np.float64).T)
    size, axes = np.linalg.eigh(covariance)
    if not size[-1] > 0:
        return torch.eye(3)
    root = np.sqrt(np.maximum(size / size[-1], 0.01))
    return torch.from_numpy(((axes * root) @ axes.T).astype(np.float32))


def moved(pictures: Tensor, moves: Tensor) -> Tensor:
    """Shift, scale and turn each picture about its middle; what comes in from outside is its reflection.

    Parameters
    ----------
    pictures : Tensor, shape (n, 3, height, width)
    moves : Tensor, shape (n, 4)
        Shift down and to the right, as shares of the side; factor of size; turn in radians.

    Returns
    -------
    Tensor, shape (n, 3, height, width)
    """
    height, width = pictures.shape[2:]
    down, right, size, turn = moves.to(pictures.dtype).unbind(1)
    cos, sin = torch.cos(turn) / size, torch.sin(turn) / size
    # Where each pixel comes from, in coordinates from -1 to 1 along both sides.
    first = torch.stack([cos, -sin * height / width, -2 * right], 1)
    second = torch.stack([sin * width / height, cos, -2 * down], 1)
    grid = functional.affine_grid(torch.stack([first, second], 1), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def roughness(pictures: Tensor) -> Tensor:
    """Total variation: mean absolute difference of neighbouring pixels, shape (n,)."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().flatten(1).mean(1)
    return down + (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).abs().flatten(1).mean(1)
