"""A finished output folder, seen from Python: tables, images, RDMs, activations and responses, by entity.

Names of files are looked through once; a file is opened when it is asked for, and large arrays are read when their
values are.
"""

from bidsdnn.loading.files import LEVELS
from bidsdnn.loading.outputs import Outputs, load
from bidsdnn.loading.rows import RDMs

__all__ = ["LEVELS", "Outputs", "RDMs", "load"]
