"""Weighted models of the geometry of other people's responses, judged by one person's, at stimuli held out of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bidsdnn.methods.across_people import means_of_others
from bidsdnn.methods.relabelling import relabellings
from bidsdnn.methods.rsa_inference import fisher_mean
from bidsdnn.methods.rsa_models import Part, weighted
from bidsdnn.methods.rsa_samples import Float, checked
from bidsdnn.methods.scores import Split
from bidsdnn.methods.transforms import condensed_to_square, n_stimuli


def crossed_weighted(
    models: ArrayLike, people: ArrayLike, *, folds: Sequence[Split], comparison: str = "spearman",
    permutations: int = 1000, seed: int = 0,
) -> tuple[Float, Float]:  # fmt: skip
    """Weights of model RDMs were fitted to the mean RDM of the other people, and judged by the RDM of the one left out.

    As `rsa_models.weighted`: fitted to pairs of training stimuli, judged by pairs of held-out stimuli, which no weight
    has seen in anybody. Relabelled stimuli are relabelled alike in all people.

    Parameters
    ----------
    models : array-like, shape (M, pairs)
    people : array-like, shape (P, pairs)
        RDM of each person.
    folds : sequence of (train, test)
        Index arrays of stimuli.
    comparison : str
        A row of `SIMILARITIES`.
    permutations, seed : int

    Returns
    -------
    similarity : array, shape (P,)
        `fisher_mean` over the folds, of each person; a fold where no model has a weight counts as 0.
    null : array, shape (permutations, P)
        The same for each relabelling, the whole fit repeated.

    Raises
    ------
    ValueError
        As `rsa_models.weighted`.
    """
    table, own = checked(models, "models"), checked(people, "people")
    others = means_of_others(own)
    found = [
        weighted(table, target, folds=folds, comparison=comparison, judge=judge)[1]
        for target, judge in zip(others, own, strict=True)
    ]
    n = n_stimuli(table.shape[1])
    parts = [Part(table, train, test, n, comparison) for train, test in folds]
    null = np.empty((permutations, len(own)))
    squares = [
        (condensed_to_square(a).ravel(), condensed_to_square(b).ravel()) for a, b in zip(others, own, strict=True)
    ]
    for some, places in relabellings(n, permutations, seed=seed):
        for column, (fitted, judged) in enumerate(squares):
            relabelled = fitted.take(places), judged.take(places)
            each = np.array([part.similarity(*relabelled) for part in parts])
            null[some, column] = fisher_mean(np.nan_to_num(each), axis=0)
    return np.asarray(fisher_mean(np.nan_to_num(np.array(found)), axis=1)), null
