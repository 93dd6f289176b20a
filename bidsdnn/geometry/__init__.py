"""Representational geometry: what the distances between stimuli in a network share with those in a brain.

Sources of RDMs (`measured`, `models`), what is asked of two of them (`comparing`, `units`, `splits`), and matrices of
how similar many are to each other (`similarities`).
"""

from bidsdnn.geometry.measured import FEWEST_STIMULI, Regions, region_rdms, whole_brain
from bidsdnn.geometry.models import METRICS, PIXELS, Columns, Model, column_models, layer_models
from bidsdnn.geometry.named import is_own, own_sources
from bidsdnn.geometry.rsa import check, compare, rsa
from bidsdnn.geometry.similarities import similarity

__all__ = [
    "FEWEST_STIMULI",
    "METRICS",
    "PIXELS",
    "Columns",
    "Model",
    "Regions",
    "check",
    "column_models",
    "compare",
    "is_own",
    "layer_models",
    "own_sources",
    "region_rdms",
    "rsa",
    "similarity",
    "whole_brain",
]
