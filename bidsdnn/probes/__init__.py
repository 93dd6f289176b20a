"""What can be asked of a network alone: which stimuli drive a unit, what it sees, what its layers tell apart.

A probe is a function of a network and stimuli that takes what it needs by keyword: layers, units, a device, a seed and
parameters of its own. A row in `PROBES` gives it a name. A region or a voxel of a brain is a unit of the network that
a fitted encoder was appended to, and needs no probe of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from bidsdnn.probes.ablation import ablation
from bidsdnn.probes.maps import feature_map
from bidsdnn.probes.minimal import masked_image, minimal_image
from bidsdnn.probes.optimal import optimal_stimulus
from bidsdnn.probes.probing import probe
from bidsdnn.probes.receptive import receptive_field
from bidsdnn.probes.saliency import saliency
from bidsdnn.probes.top import top_stimuli
from bidsdnn.probes.transfer import transfer
from bidsdnn.result import Result

PROBES: dict[str, Callable[..., Result]] = {
    "top-stimuli": top_stimuli,
    "feature-map": feature_map,
    "probe": probe,
    "optimal-stimulus": optimal_stimulus,
    "minimal-image": minimal_image,
    "masked-image": masked_image,
    "saliency": saliency,
    "receptive-field": receptive_field,
    "ablation": ablation,
    "transfer": transfer,
}

NEEDS_UNITS: set[str] = {
    "saliency",
    "optimal-stimulus",
    "minimal-image",
    "masked-image",
}
"""Probes that are asked for with ``--unit``."""
NEEDS_GRADIENTS: set[str] = {
    "saliency",
    "optimal-stimulus",
    "masked-image",
    "transfer",
}
"""Probes that differentiate the network, and so refuse one in half precision before any work."""
CUTS: set[str] = {"ablation"}
"""Probes that look at units of a brain and at others of its network together: what is cut, and what it does to them."""
OF_NETWORKS: dict[str, str] = {
    "feature-map": "a region has no maps",
    "probe": "a region's responses are decoded by --analysis decoding",
    "transfer": "a network is trained for it",
}
"""Probes that make no sense of a brain's units, and why."""
