"""Model RDMs against those of brain regions: each by itself, weighted together, and after others were taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry.models import Model
from bidsdnn.geometry.named import comparing, is_own, short
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.rsa_models import CORRELATIONS, partial_permutation, weighted_permutation
from bidsdnn.methods.similarity import familywise, label_permutation
from bidsdnn.parallel import seed_for
from bidsdnn.result import WEIGHTED

_HELD_OUT = 6
"""Stimuli of a fold: with 15 pairs a perfect correlation is no chance event."""
_NULL = 50_000_000
"""Similarities under relabelling held at a time."""

Rdms = Mapping[str, Mapping[str, np.ndarray]]
Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Tests:
    """How RDMs are compared.

    Parameters
    ----------
    comparisons : sequence of str
        Rows of `SIMILARITIES`.
    permutations : int
    seed : int
    metric : str
        Of the brain's RDMs, for the table.
    weighted : bool
        Whether a network's layers are weighted together.
    """

    comparisons: Sequence[str]
    permutations: int
    seed: int
    metric: str = "correlation"
    weighted: bool = False


def compare_all(
    models: Sequence[Model], brains: Rdms, *, counts: Counts | None, tests: Tests, controls: Sequence[Model] = ()
) -> list[dict[str, Any]]:
    """One row a model, region and comparison.

    Parameters
    ----------
    models : sequence of Model
    brains : mapping of str to mapping of str to ndarray, shape (n * (n - 1) / 2,)
        By atlas and region.
    counts : mapping of str to mapping of str to int or None
        Voxels, where they are known.
    tests : Tests
    controls : sequence of Model
        Taken out of both sides for further rows.

    Returns
    -------
    list of dict

    Raises
    ------
    DataError
        If there are too few stimuli for what was asked.
    """
    rows: list[dict[str, Any]] = []
    for atlas, table in brains.items():
        n_voxels = [counts[atlas][name] if counts else np.nan for name in table]
        stacked = np.array(list(table.values()))
        for label, layers, found in _compared(models, stacked, tests, controls):
            taken = "+".join(one.layer for one in controls) if label.startswith("partial") else None
            rows += [
                {
                    "atlas": atlas,
                    "network": model.network,
                    "layer": model.layer,
                    "region": region,
                    "n_voxels": n_voxels[j],
                    "metric": short(tests.metric),
                    "comparison": label,
                    **{key: values[i, j] for key, values in found.items()},
                    **({"controls": taken} if controls else {}),
                }
                for i, model in enumerate(layers)
                for j, region in enumerate(table)
            ]
    return rows


def _compared(
    models: Sequence[Model], stacked: np.ndarray, tests: Tests, controls: Sequence[Model]
) -> Iterator[tuple[str, list[Model], dict[str, np.ndarray]]]:
    """A comparison's name, its models, and what was found, (models, regions)."""
    seed = seed_for(tests.seed, "rsa")
    names = {(one.network, one.layer) for one in controls}
    others = [model for model in models if (model.network, model.layer) not in names]
    networks = list(dict.fromkeys(model.network for model in models)) if tests.weighted else []
    for comparison in tests.comparisons:
        every = np.array([model.rdm for model in models])
        yield short(comparison), list(models), _single(every, stacked, comparison, tests, seed)
        for network in networks:
            own = [model for model in models if model.network == network]
            if len(own) > 1:
                together = Model(network, WEIGHTED, own[0].rdm)
                yield comparison, [together], _weighted(own, stacked, comparison, tests, seed)
        if controls and others and comparison in CORRELATIONS:
            yield f"partial-{comparison}", others, _partial(others, stacked, comparison, tests, seed, controls)


def _single(models: np.ndarray, brains: np.ndarray, comparison: str, tests: Tests, seed: int) -> dict[str, np.ndarray]:
    """Similarity, p, p over the family of a region's models, and the false discovery rate over models and regions."""
    parts = []
    for some in _blocks(len(brains), len(models) * tests.permutations):
        similarity, p, null = label_permutation(
            models,
            brains[some],
            comparison=comparing(comparison),
            permutations=tests.permutations,
            seed=seed,
            return_null=True,
        )
        parts.append((similarity, p, familywise(similarity, null)))
    similarity, p, p_fwe = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return {"similarity": similarity, "p": p, "p_fwe": p_fwe, "q": fdr(p)}


def _blocks(count: int, each: int) -> Iterator[slice]:
    step = max(1, _NULL // each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _finite(brains: np.ndarray) -> np.ndarray:
    """Regions that have an RDM which varies."""
    finite = np.isfinite(brains).all(axis=1)
    return finite & (np.ptp(np.where(finite[:, None], brains, 0), axis=1) > 0)


def _spread(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Values (k, usable regions) among all regions, NaN elsewhere."""
    every = np.full((len(values), len(usable)), np.nan)
    every[:, usable] = values
    return every


def _weighted(
    models: Sequence[Model], brains: np.ndarray, comparison: str, tests: Tests, seed: int
) -> dict[str, np.ndarray]:
    n = round((1 + (1 + 8 * brains.shape[1]) ** 0.5) / 2)
    n_splits = min(5, n // _HELD_OUT)
    if n_splits < 2:
        raise DataError(
            f"parameters.rsa.weighted: {n} stimuli are too few to hold some out; {2 * _HELD_OUT} are needed"
        )
    usable = _finite(brains)
    similarity, p = np.empty((1, 0)), np.empty((1, 0))
    rdms = np.array([model.rdm for model in models])
    rdms = rdms[np.isfinite(rdms).all(axis=1)]
    if usable.any() and len(rdms):
        folds = kfold(n, n_splits, seed=seed_for(tests.seed, "weighted"))
        options = {"comparison": comparison, "permutations": tests.permutations, "seed": seed}
        found = weighted_permutation(rdms, brains[usable], folds=folds, **options)  # type: ignore[arg-type]
        similarity, p = found[0][None], found[1][None]
    return {"similarity": _spread(similarity, usable), "p": _spread(p, usable)}


def _partial(
    models: Sequence[Model], brains: np.ndarray, comparison: str, tests: Tests, seed: int, controls: Sequence[Model]
) -> dict[str, np.ndarray]:
    usable, rdms = _finite(brains), np.array([model.rdm for model in models])
    good = np.isfinite(rdms).all(axis=1)
    found = {key: np.full((len(models), len(usable)), np.nan) for key in ("similarity", "p", "p_fwe")}
    if usable.any() and good.any():
        similarity, p, null = partial_permutation(
            rdms[good], brains[usable], np.array([one.rdm for one in controls]), comparison=comparison,
            permutations=tests.permutations, seed=seed,
        )  # fmt: skip
        for key, values in (("similarity", similarity), ("p", p), ("p_fwe", familywise(similarity, null))):
            found[key][np.ix_(good, usable)] = values
    return {**found, "q": fdr(found["p"])}


def methods(tests: Tests, controls: Sequence[Model]) -> str:
    """Sentences for the report on how RDMs were compared."""
    said = (
        f"p came from {tests.permutations:,} permutations of the stimulus labels, the same for all layers, with "
        "p = (1 + b) / (1 + n). The family-wise p counted how often the best of all models reached the observed "
        "similarity, and q was the false discovery rate over models and regions."
    )
    if tests.weighted:
        said += f" {summary(weighted_permutation)} Stimuli were held out in up to 5 folds."
    if controls:
        said += f" {summary(partial_permutation)} The controls were {', '.join(one.layer for one in controls)}."
    return said


def check_combined(control: Sequence[str], weighted: bool, comparisons: Sequence[str]) -> None:
    """Refuse controls that no asked comparison can use, and weights that are judged by a function of the user's."""
    own = [name for name in comparisons if is_own(name)]
    if weighted and own:
        raise ConfigError(
            f"parameters.rsa.weighted: --rdm-comparison {own[0]} cannot judge weighted layers; leave out either"
        )
    if control and not set(comparisons) & set(CORRELATIONS):
        raise ConfigError(f"parameters.rsa.control: partial RSA needs --rdm-comparison {' or '.join(CORRELATIONS)}")
