"""Labels told from one participant's responses by a decoder that was fitted to the others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.decoding.folds import folds_of, scheme_for
from bidsdnn.decoding.models import DEFAULTS, build_decoder, described, has_numbers
from bidsdnn.decoding.targets import Target, understood
from bidsdnn.errors import DataError
from bidsdnn.folding import Folding
from bidsdnn.groupmodels.people import Shared
from bidsdnn.lookup import summary
from bidsdnn.methods.decode import Features, cross_decide, score
from bidsdnn.methods.inference import fdr, pvalue
from bidsdnn.methods.models.classifiers import Decoder
from bidsdnn.methods.null import FEWEST_SCALED
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Group, Patterns
from bidsdnn.result import Result
from bidsdnn.study import Study

TIES = 1e-9
ALL = "all regions"
"""What stands for a region where participants have regions' means only, which are one pattern together."""


@dataclass(frozen=True, eq=False)
class CrossedWork:
    """How one target is decoded across people; sent to a worker with a region's patterns.

    Parameters
    ----------
    decoder : Decoder
    target : Target
        Of the shared stimuli.
    folded : Folding
        Of these.
    features : Features
    """

    decoder: Decoder
    target: Target
    folded: Folding
    features: Features

    def __call__(self, tables: np.ndarray) -> np.ndarray | None:
        """Scores of each labelling and person left out, (1 + permutations, P), the given labels first.

        Parameters
        ----------
        tables : ndarray, shape (P, n, V)
        """
        usable = np.isfinite(tables).all(axis=(0, 1))
        if not usable.any():
            return None
        people, n = tables.shape[:2]
        labels, n_classes = self.target.labels, len(self.target.classes)
        every = labels[np.vstack([np.arange(n), self.folded.orders])]
        splits = crossed_splits(people, self.folded)
        rows = tables[:, :, usable].reshape(people * n, -1)
        few = not n_classes and min(len(test) for _, test in splits) < FEWEST_SCALED
        whole = np.tile(every, (1, people))
        scale = np.full(whole.shape, np.nan) if few else None
        found = cross_decide(
            self.decoder, rows, whole, splits, features=self.features, n_classes=n_classes, scale=scale
        )
        scores = []
        for one in range(people):
            mine = slice(one * n, (one + 1) * n)
            own = None if scale is None else scale[:, mine]
            scores.append(score(found[:, mine], every, self.folded.splits, n_classes, scale=own))
        return np.stack(scores, axis=1)


def crossed_splits(people: int, folded: Folding) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of people's items, one person's after the other's: the others' training part, and one's held-out part."""
    n = folded.orders.shape[1]
    return [
        (np.concatenate([other * n + train for other in range(people) if other != one]), one * n + test)
        for one in range(people)
        for train, test in folded.splits
    ]


def crossed_decoding(study: Study, shared: Shared, x: Patterns | None, more: Mapping[str, Any], seed: int) -> Result:
    """Labels were told from each participant's responses by a decoder fitted to those of the others, stimuli held out.

    The rows of the training part are the other participants' responses to the training stimuli, participant by
    participant, so that the decoder meets the noise that it will be judged in. Nothing that is fitted has seen the
    participant left out, or the held-out stimuli. p compares the mean score over participants with that of labels
    permuted alike in all of them, each permutation repeating the whole fit.

    Parameters
    ----------
    study : Study
    shared : Shared
    x : Patterns or None
        Not used: a layer is of no participant.
    more : mapping
        With the targets.
    seed : int

    Returns
    -------
    Result
    """
    config, own = study.config, study.config.parameters.get("decoding", {})
    if own.get("train") or own.get("test"):
        raise DataError("parameters.decoding.train and test choose trials, of which people together have none")
    tables = [shared.table(person)[0] for person in shared.people]
    rows: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    said, tests, decoders = {}, [], []
    features = Features(own.get("standardize", True), own.get("select", 0), own.get("components", 0))
    first = Patterns(pd.DataFrame({"stimulus_id": shared.ids}), (Group("brain", tables[0]),))
    for name, column in more["targets"].items():
        numeric = has_numbers(config.decoder, name in own.get("categorical", ()))
        target = understood(name, column, first, None, numeric=numeric, by_run=False)
        folded = folds_of(
            target, cv=scheme_for(config.cv, target.bearer, name), parts=more["parts"],
            permutations=config.permutations, seed=seed,
        )  # fmt: skip
        chosen = config.decoder or DEFAULTS[target.kind]
        decoder = build_decoder(
            chosen, config.parameters.get(chosen, {}), target.kind, seed=seed_for(seed, "decoding"),
            device=str(torch_device(config.device)),
        )  # fmt: skip
        known = [shared.ids.index(one) for one in target.table.ids]
        stacked = np.array([table[known] for table in tables])
        work = CrossedWork(decoder, target, folded, features)
        for atlas, regions in _sources(shared).items():
            found = study.map(work, [stacked[:, :, where] for where in regions.values()], label=f"decoding {name}")
            more_rows, more_each = _rows(target, chosen, atlas, regions, found, shared.labels)
            rows += more_rows
            each += more_each
        said[name] = f"{len(target.labels)} stimuli, {folded.said}{folded.gap}; one participant left out at a time"
        tests.append(folded.test)
        decoders.append(chosen)
    return Result(
        "decoding",
        tables={"decoding": pd.DataFrame(rows), "decodingpeople": pd.DataFrame(each)},
        sidecar={
            "Methods": f"{summary(crossed_decoding)} {' '.join(described(one) for one in dict.fromkeys(decoders))}",
            "CrossValidation": said,
            "Test": f"{' or '.join(dict.fromkeys(tests))}, alike in all participants, one-sided",
            "Permutations": config.permutations,
            "Correction": "p_fwe: over the regions of an atlas, by the best score of each relabelling; q: false "
            "discovery rate over the same",
            "Decoders": list(dict.fromkeys(decoders)),
            "References": ["permutation", "scikit-learn", "fdr"],
        },
    )


def _sources(shared: Shared) -> dict[str, dict[str, np.ndarray]]:
    """Columns of each region; where columns are regions' means, those of an atlas together."""
    if shared.space is not None:
        return {atlas: dict(table) for atlas, table in shared.regions.items()}
    return {atlas: {ALL: np.any(list(table.values()), axis=0)} for atlas, table in shared.regions.items()}


def _rows(
    target: Target, decoder: str, atlas: str, regions: Mapping[str, np.ndarray], found: list[np.ndarray | None],
    labels: list[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """Rows of regions, and of regions and participants."""
    measure, n = ("balanced_accuracy", len(target.classes)) if target.classes else ("pearsonr", 0)
    known = [one.mean(axis=1) for one in found if one is not None]
    largest = np.nanmax([one[1:] for one in known], axis=0) if known else np.empty(0)
    rows, each = [], []
    for (region, where), one in zip(regions.items(), found, strict=True):
        label = {"atlas": atlas, "network": "", "layer": "", "region": region, "target": target.name}
        row: dict[str, Any] = {**label, "decoder": decoder, "n_voxels": int(where.sum()), "n_items": len(target.labels)}
        if one is None:
            rows.append({**row, "p": np.nan})
            continue
        people, null = one[0], one[1:].mean(axis=1)
        rows.append({
            **row, **({"n_classes": n} if n else {}), measure: people.mean(), "chance": 1 / n if n else 0.0,
            "n_participants": len(people), "sem": people.std(ddof=1) / np.sqrt(len(people)),
            "null_95": float(np.quantile(null, 0.95)), "p": float(pvalue(people.mean(), null, tolerance=TIES)),
            "p_fwe": float(pvalue(people.mean(), largest, tolerance=TIES)),
        })  # fmt: skip
        each += [
            {**label, "participant": person, measure: float(value)}
            for person, value in zip(labels, people, strict=True)
        ]
    for row, q in zip(rows, fdr([row["p"] for row in rows]), strict=True):
        row["q"] = q
    return rows, each
