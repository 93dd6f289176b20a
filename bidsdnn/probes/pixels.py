"""Between pictures that a person can look at, red, green and blue from 0 to 1, and what a network is given.

What a network's preparation does to colours is measured, not asked for: pictures of one colour are prepared, and the
linear map and the offset that explain them are the preparation, whichever order of channels, scale or mean it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bidsdnn.errors import ConfigError
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import halves

_TOLERANCE = 0.02
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
_CHECKED = (((255, 255, 255), (255, 255, 255)), ((51, 102, 204), (230, 128, 26)))


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a network's preparation does to colours, and the size of its input.

    Parameters
    ----------
    matrix : Tensor, shape (channels, 3)
    offset : Tensor, shape (channels,)
        A pixel p of red, green and blue from 0 to 1 becomes ``matrix @ p + offset``.
    height, width : int
    """

    matrix: Tensor
    offset: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, network: Network) -> Pixels:
        """Measure a network's preparation.

        Parameters
        ----------
        network : Network

        Returns
        -------
        Pixels

        Raises
        ------
        ConfigError
            If the network takes no pictures, or prepares each by its own content, as by its mean or its contrast.
        """
        if network.modality != "image":
            raise ConfigError(f"{network.label} takes {network.modality}; stimuli are made for networks of pictures")
        given = [network.preprocess(halves(colour, colour)).float() for colour in _COLOURS]
        if any(one.ndim != 3 for one in given):
            raise ConfigError(
                f"{network.label}: its preparation gives shape {tuple(given[0].shape)}; stimuli are made for networks "
                "whose input is (channels, height, width)"
            )
        colours = torch.stack([one.mean((1, 2)) for one in given])
        matrix, offset = (colours[1:] - colours[0]).T.contiguous(), colours[0]
        found = cls(matrix, offset, *given[0].shape[1:])
        size = float(matrix.abs().max())
        for pair in _CHECKED:
            one, edge = network.preprocess(halves(*pair)).float(), max(1, found.width // 8)
            for colour, part in zip(pair, (one[..., :edge], one[..., -edge:]), strict=True):
                flat = torch.tensor(colour, dtype=torch.float32).reshape(1, 3, 1, 1) / 255
                if not (found.to_input(flat)[0] - part).abs().max() <= _TOLERANCE * size:
                    raise ConfigError(
                        f"{network.label}: its preparation is another for each picture (it subtracts the picture's "
                        "mean, or the like), so what it does to a new one is not known; give one of fixed mean and std"
                    )
        return found

    def to(self, device: str | torch.device) -> Pixels:
        """The same on another device."""
        return Pixels(self.matrix.to(device), self.offset.to(device), self.height, self.width)

    def to_input(self, pictures: Tensor) -> Tensor:
        """Prepare pictures that have the network's size already.

        Parameters
        ----------
        pictures : Tensor, shape (n, 3, height, width)
            From 0 to 1.

        Returns
        -------
        Tensor, shape (n, channels, height, width)
        """
        return torch.einsum("ck,nkhw->nchw", self.matrix, pictures) + self.offset[:, None, None]

    def to_pictures(self, inputs: Tensor) -> Tensor:
        """Undo the preparation of colours; of a grey input, pictures are grey.

        Parameters
        ----------
        inputs : Tensor, shape (n, channels, height, width)

        Returns
        -------
        Tensor, shape (n, 3, height, width)
            From 0 to 1.
        """
        back = torch.linalg.pinv(self.matrix)
        if len(self.matrix) == 1:
            back = torch.full_like(back, float(1 / self.matrix.sum()))
        return torch.einsum("kc,nchw->nkhw", back, inputs - self.offset[:, None, None]).clamp(0, 1)


def to_bytes(pictures: Tensor) -> np.ndarray:
    """Round pictures to what a file of them holds.

    Parameters
    ----------
    pictures : Tensor, shape (n, 3, height, width)
        From 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (n, height, width, 3)
    """
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_bytes(pictures: np.ndarray) -> Tensor:
    """Read pictures as they are in a file.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, height, width, 3)

    Returns
    -------
    Tensor of float32, shape (n, 3, height, width)
        From 0 to 1.
    """
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
