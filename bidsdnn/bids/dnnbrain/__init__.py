"""DNNBrain's files, read and written exactly as it does: stimuli, masks, activations, regions and RDMs."""

from bidsdnn.bids.dnnbrain.arrays import (
    RDM_TYPES,
    read_layers,
    read_rdm,
    read_roi,
    write_act,
    write_rdm,
    write_roi,
)
from bidsdnn.bids.dnnbrain.joined import ACT, RDM, ROI, STIM, read_act, stim_beside
from bidsdnn.bids.dnnbrain.masks import read_dmask, write_dmask
from bidsdnn.bids.dnnbrain.stimulus_files import StimFile, folder_of, read_stim, stimuli_of, write_stim

__all__ = [
    "ACT",
    "RDM",
    "RDM_TYPES",
    "ROI",
    "STIM",
    "StimFile",
    "folder_of",
    "read_act",
    "read_dmask",
    "read_layers",
    "read_rdm",
    "read_roi",
    "read_stim",
    "stim_beside",
    "stimuli_of",
    "write_act",
    "write_dmask",
    "write_rdm",
    "write_roi",
    "write_stim",
]
