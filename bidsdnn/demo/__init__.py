"""A small BIDS dataset with a planted truth, to try the program on and to test it with.

Pictures differ at a low, a middle and a high level; regions of simulated brains are driven by layers of the demo
network that see those levels.
"""

from __future__ import annotations

from bidsdnn.demo.dataset import SPACES, write_demo

__all__ = ["SPACES", "write_demo"]
