"""Models that map one table to another: objects with ``fit(X, Y)`` and ``predict(X)``, as in scikit-learn.

A row in `MODELS` gives an encoder its name. What a model says of itself decides what it is given and how it is tested:
``takes`` is ``rotation`` (the exact rotation of a layer, as many columns as stimuli at most, which models that do not
care about rotations may have in place of any number of units), or ``units`` (the units themselves); and an
``operator(X, splits)``, where there is one, is the matrix whose product with the targets is every held-out prediction,
so that a relabelling that repeats the cross-validated fit costs one product.
"""

from bidsdnn.methods.models.ridge import Ridge

__all__ = ["MODELS", "Ridge"]

MODELS = {"ridge": Ridge}
