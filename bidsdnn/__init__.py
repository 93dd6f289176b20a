"""bidsdnn asks how well deep networks explain brains.

bidsdnn lines up two tables that share their rows, the stimuli: one filled by a network, one by a brain.
Then it either predicts one from the other (encoding), or compares their geometry (RSA).
"""

from __future__ import annotations

__version__ = "0.1.0"
