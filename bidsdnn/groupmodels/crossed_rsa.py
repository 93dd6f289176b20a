"""RSA across people: layers weighted together for the others' geometry, compared with that of the one left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError
from bidsdnn.geometry import is_own
from bidsdnn.geometry.measured import How, measure
from bidsdnn.geometry.models import Model, layer_models, metric_of_layers
from bidsdnn.groupmodels.people import Shared
from bidsdnn.lookup import summary
from bidsdnn.methods.across_people import means_of_others
from bidsdnn.methods.crossed_rsa import crossed_weighted
from bidsdnn.methods.inference import fdr, pvalue
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import WEIGHTED, Result
from bidsdnn.study import Study

HELD_OUT = 6
"""Stimuli of a fold."""
TIES = 1e-9


@dataclass(frozen=True, eq=False)
class CrossedRegion:
    """How one region's geometry is predicted across people; sent to a worker with the people's RDMs.

    Parameters
    ----------
    models : ndarray, shape (M, pairs)
    folds : list of (train, test)
    comparison : str
    permutations, seed : int
    """

    models: np.ndarray
    folds: list[Any]
    comparison: str
    permutations: int
    seed: int

    def __call__(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Similarity of each person, (P,), and relabelled, (permutations, P); None if an RDM is not to be had."""
        if not np.isfinite(people).all() or (np.ptp(people, axis=1) == 0).any():
            return None
        return crossed_weighted(
            self.models, people, folds=self.folds, comparison=self.comparison, permutations=self.permutations,
            seed=self.seed,
        )  # fmt: skip


def crossed_rsa(
    study: Study, shared: Shared, x: Patterns | None, more: Mapping[str, Any], seed: int
) -> Result:  # fmt: skip
    """Layers were weighted together to fit the others' geometry, and compared with that of the participant left out.

    Regions are joined by name, each participant's geometry being that of the region's voxels in the participant's own
    brain: what is shared is how stimuli differ, and no voxel stands for another's. Weights of a network's layers are
    fitted to the mean RDM of the other participants over the training stimuli, and judged by the participant's RDM over
    the held-out stimuli. p compares the mean similarity over participants with that under permuted stimulus labels,
    permuted alike in all of them, each permutation repeating the fit.

    Parameters
    ----------
    study : Study
    shared : Shared
    x : Patterns or None
        Activations to the shared stimuli.
    more : mapping
        Not used.
    seed : int

    Returns
    -------
    Result

    Raises
    ------
    DataError
        If there is no network of two layers, or there are too few stimuli, or single trials would be needed.
    """
    config, n = study.config, len(shared.ids)
    layers = layer_models(x, metric=metric_of_layers(_own(study, "layer_metric"), config.rdm_metric), map=study.map)
    networks: dict[str, list[Model]] = {}
    for model in layers:
        if np.isfinite(model.rdm).all():
            networks.setdefault(model.network, []).append(model)
    networks = {name: models for name, models in networks.items() if len(models) > 1}
    comparisons = [one for one in config.rdm_comparison if not is_own(one)]
    if not networks or not comparisons or n < 2 * HELD_OUT:
        raise DataError(
            f"weights are fitted to two layers or more, {2 * HELD_OUT} stimuli or more and bidsdnn's own comparisons; "
            f"there are {len(layers)} layers, {n} stimuli and {', '.join(config.rdm_comparison)}"
        )
    brains = _brains(study, shared)
    folds = kfold(n, min(5, n // HELD_OUT), seed=seed_for(seed, "weighted"))
    rows: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for network, models in networks.items():
        table = np.array([model.rdm for model in models])
        for comparison in comparisons:
            work = CrossedRegion(table, folds, comparison, config.permutations, seed)
            found = study.map(work, list(brains.values()), label=f"RSA of {network}")
            label = {"network": network, "layer": WEIGHTED, "comparison": comparison}
            some, each = _rows(label, brains, found, shared.labels)
            rows += some
            people += each
    return Result(
        "rsa",
        tables={"rsa": pd.DataFrame(rows), "rsapeople": pd.DataFrame(people)},
        sidecar={
            "Methods": summary(crossed_rsa),
            "CrossValidation": f"{len(folds)} folds over stimuli; one participant left out at a time",
            "Metric": config.rdm_metric,
            "Measure": "similarity of the weighted layers with a participant's RDM over pairs of held-out stimuli; "
            "intersubject is that of a participant's whole RDM with the mean of the others'",
            "Test": "permutations of the stimulus labels, alike in all participants, one-sided",
            "Correction": "q: false discovery rate over the regions of an atlas",
            "Permutations": config.permutations,
            "References": ["rsa", "weighted-rsa", "permutation", "fdr"],
        },
    )


def _own(study: Study, key: str) -> str:
    return str(study.config.parameters.get("rsa", {}).get(key, ""))


def _brains(study: Study, shared: Shared) -> dict[tuple[str, str], np.ndarray]:
    """RDMs of all people, (P, pairs), of each atlas and region that all of them have."""
    each = []
    for person in shared.people:
        values, _ = person.read(person.space, shared.ids)
        y = Patterns(pd.DataFrame({"stimulus_id": shared.ids}), (Group("brain", values),))
        measured = measure(y, None, shared.own_regions(person), How(study.config.rdm_metric))
        each.append({(atlas, name): rdm for atlas, table in measured.rdms.items() for name, rdm in table.items()})
    return {key: np.array([one[key] for one in each]) for key in each[0] if all(key in one for one in each)}


def _rows(
    label: Mapping[str, str], brains: Mapping[tuple[str, str], np.ndarray],
    found: list[tuple[np.ndarray, np.ndarray] | None], people: list[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """Rows of regions, and of regions and participants."""
    rows: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    similar = SIMILARITIES[label["comparison"]]
    for ((atlas, region), rdms), one in zip(brains.items(), found, strict=True):
        place = {"atlas": atlas, **label, "region": region}
        if one is None:
            rows.append({**place, "p": np.nan})
            continue
        similarity, null = one
        agree = [similar(other, own) for other, own in zip(means_of_others(rdms), rdms, strict=True)]
        rows.append({
            **place, "similarity": similarity.mean(), "n_participants": len(similarity),
            "sem": similarity.std(ddof=1) / np.sqrt(len(similarity)),
            "p": float(pvalue(similarity.mean(), null.mean(axis=1), tolerance=TIES)), "intersubject": np.mean(agree),
        })  # fmt: skip
        each += [
            {**place, "participant": person, "similarity": float(score)}
            for person, score in zip(people, similarity, strict=True)
        ]
    atlases = [row["atlas"] for row in rows]
    for atlas in dict.fromkeys(atlases):
        own = [row for row in rows if row["atlas"] == atlas]
        for row, q in zip(own, fdr([row["p"] for row in own]), strict=True):
            row["q"] = q
    return rows, each
