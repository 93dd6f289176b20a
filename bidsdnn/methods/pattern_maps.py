"""What of the data a decoder's decision goes with.

The one idea: weights say how to cancel noise as well as where signal is; the covariance of features and decisions says
the latter alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def patterns(x: ArrayLike, decisions: ArrayLike) -> Float:
    """Weights of decoders were turned into patterns: what features do when a decision is larger.

    A = cov(X) W cov(S)^-1 of Haufe et al. (2014, NeuroImage 87, 96-110, equation 6), where S = X W are the decisions,
    so that A = cov(X, S) cov(S)^-1 needs no weights. Decisions of classes that sum to a constant, as those of two
    classes do, have the pseudo-inverse in place of the inverse.

    Parameters
    ----------
    x : array-like, shape (n, p)
    decisions : array-like, shape (n, C)
        Of the rows that the decoder was fitted to.

    Returns
    -------
    array, shape (C, p)
        In the units of x; zero for a feature that is constant.

    Raises
    ------
    ValueError
        If the rows differ in number.
    """
    x, decisions = np.asarray(x, dtype=np.float64), np.asarray(decisions, dtype=np.float64)
    if x.ndim != 2 or decisions.ndim != 2 or len(x) != len(decisions):
        raise ValueError(f"x, decisions: expected shapes (n, p) and (n, C), got {x.shape} and {decisions.shape}")
    centred = decisions - decisions.mean(axis=0)
    inverse = np.linalg.pinv(centred.T @ centred, rcond=1e-10, hermitian=True)
    return np.asarray(inverse @ (centred.T @ (x - x.mean(axis=0))))
