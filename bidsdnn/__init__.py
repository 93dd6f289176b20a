"""bidsdnn asks how well deep networks explain brains.

bidsdnn lines up two tables that share their rows, the stimuli: one filled by a network, one by a brain.
Then it either predicts one from the other (encoding), or compares their geometry (RSA).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NOUNS = {
    "Cifti": "spaces",
    "Config": "config",
    "Dataset": "bids.dataset",
    "Derivatives": "bids.derivatives",
    "Network": "networks.network",
    "Parcels": "spaces",
    "Patterns": "patterns",
    "Result": "result",
    "Run": "bids.dataset",
    "Stimuli": "stimuli",
    "Surface": "spaces",
    "Volume": "spaces",
    "load": "loading",
}
__all__ = ["__version__", *_NOUNS]


def __getattr__(name: str) -> Any:
    """Import a noun, or `load`, when it is first asked for, so that the command line starts at once."""
    if name not in _NOUNS:
        raise AttributeError(f"module 'bidsdnn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bidsdnn.{_NOUNS[name]}"), name)
