"""Responses that other programs estimated, in the formats they leave them in.

The one idea: every format is files whose rows have names; what differs is only where the names stand.
"""

from __future__ import annotations

from bidsdnn.bids.precomputed.found import FORMATS, Found, find
from bidsdnn.bids.precomputed.parts import Part, read_part, shared_space_of

__all__ = ["FORMATS", "Found", "Part", "find", "read_part", "shared_space_of"]
