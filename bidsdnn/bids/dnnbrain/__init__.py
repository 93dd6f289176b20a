"""DNNBrain's files, read and written exactly as it does: stimuli, masks, activations, regions and RDMs."""

from bidsdnn.bids.dnnbrain.masks import read_dmask, write_dmask

__all__ = ["read_dmask", "write_dmask"]
