"""Which precision large matrix products are taken in where only their comparison counts."""

from __future__ import annotations

import torch

FEWEST = 256
"""Numbers a product must sum before bfloat16 is worth its rounding."""


def comparing_dtype(dtype: torch.dtype, device: torch.device, summed: int) -> torch.dtype:
    """Choose the dtype of products whose results are compared and not reported.

    Processors with matrix tiles (Intel's AMX) multiply bfloat16 about eight times faster than float32. Its inputs are
    rounded to 2^-9; where many products are summed, and many sums scored, the score loses less than the noise of one
    item. What is reported is never multiplied so.

    Parameters
    ----------
    dtype : torch.dtype
        That of the data; float64 is kept.
    device : torch.device
    summed : int
        Length of the sums.

    Returns
    -------
    torch.dtype
        bfloat16 or ``dtype``.
    """
    worth = dtype == torch.float32 and device.type == "cpu" and summed > FEWEST
    return torch.bfloat16 if worth and _has_tiles() else dtype


def _has_tiles() -> bool:
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(known is not None and known())
