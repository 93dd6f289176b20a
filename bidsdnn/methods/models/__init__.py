"""Models that map one table to another: objects with ``fit(X, Y)`` and ``predict(X)``, as in scikit-learn.

A row in `MODELS` gives an encoder its name. What a model says of itself decides what it is given and how it is tested:

``takes``
    ``rotation``: the exact rotation of a layer, as many columns as stimuli at most, which models that do not care about
    rotations may have in place of any number of units; ``units``: the units themselves; ``blocks``: an array-like of
    them that is read some columns at a time, by a model with ``cross_predict(values, Y, splits)`` of its own.
``operator(X, splits)``
    The matrix whose product with the targets is every held-out prediction: a relabelling that repeats the
    cross-validated fit then costs one product.
``fixed()``
    The model with all that it would choose by looking at the targets fixed beforehand. Refitting it to relabelled
    targets is cheap, and it is as valid a statistic as the model itself if what was observed is fitted by it as well.
``separable``
    Whether each target is fitted on its own, so that relabellings of a table may be fitted at once, side by side as
    columns of one Y.
``drawn(values)``
    Of a model that looks at some units only: these, read once for many fits to them.
``among(columns)``
    Of a model that fits some targets together: the model for some of the columns of Y.
``joint``
    Whether all layers are fitted as one model, from their inner products.
``said()``
    A sentence on what the parameters make of the fit, for the Methods.
``references``
    Keys of the works it comes from.
"""

from bidsdnn.methods.models.banded import BandedRidge
from bidsdnn.methods.models.estimator import Estimator
from bidsdnn.methods.models.kernel import KernelRidge
from bidsdnn.methods.models.ols import OLS
from bidsdnn.methods.models.pls import PLS
from bidsdnn.methods.models.ridge import Ridge
from bidsdnn.methods.models.sparse import ElasticNet, Lasso
from bidsdnn.methods.models.unitwise import Unitwise

__all__ = [
    "MODELS",
    "OLS",
    "PLS",
    "BandedRidge",
    "ElasticNet",
    "Estimator",
    "KernelRidge",
    "Lasso",
    "Ridge",
    "Unitwise",
]

MODELS = {
    "ols": OLS,
    "ridge": Ridge,
    "banded-ridge": BandedRidge,
    "lasso": Lasso,
    "elastic-net": ElasticNet,
    "pls": PLS,
    "kernel-ridge": KernelRidge,
    "unitwise": Unitwise,
}
