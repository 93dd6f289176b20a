"""One table decoded: what a worker does with a region or a layer, and the rows that it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.decoding.targets import Target
from bidsdnn.folding import Folding
from bidsdnn.methods.classification import accuracy, balanced_accuracy, confusion
from bidsdnn.methods.decode import Decoded, Features, choices, decode, score
from bidsdnn.methods.inference import fdr, pvalue
from bidsdnn.methods.models.classifiers import Decoder
from bidsdnn.methods.reduce import rotation
from bidsdnn.methods.scores import r2
from bidsdnn.patterns import Group

TIES = 1e-9


@dataclass(frozen=True, eq=False)
class Source:
    """A region of a brain, or a layer.

    Parameters
    ----------
    label : mapping of str to str
        ``atlas`` and ``region``, or ``network`` and ``layer``.
    columns : ndarray of int, optional
        Of the brain's values.
    group : Group, optional
        A layer, with an item for each of the target's.
    """

    label: Mapping[str, str]
    columns: np.ndarray | None = None
    group: Group | None = None


@dataclass(frozen=True, eq=False)
class Work:
    """How one target is decoded; sent to a worker with each source.

    Parameters
    ----------
    decoder : Decoder
    values : ndarray, shape (n, n_voxels)
        Responses to the target's items.
    labels : ndarray, shape (n,)
    folded : Folding
    features : Features
    n_classes : int
    """

    decoder: Decoder
    values: np.ndarray
    labels: np.ndarray
    folded: Folding
    features: Features
    n_classes: int

    def __call__(self, source: Source) -> Decoded | None:
        """Decode one source; None if it has no column that is finite."""
        x, features = self.table(source)
        if not x.shape[1]:
            return None
        return decode(
            self.decoder, x, self.labels, self.folded.splits, orders=self.folded.orders, features=features,
            n_classes=self.n_classes,
        )  # fmt: skip

    def table(self, source: Source) -> tuple[np.ndarray, Features]:
        """The source's columns, and what becomes of them: a layer's units stay in the scale they have to each other."""
        if source.group is None:
            x = self.values[:, source.columns]
            return x[:, np.isfinite(x).all(axis=0)], self.features
        own = Features(False, self.features.select, self.features.components)
        if own.select or self.decoder.takes == "units":
            return np.asarray(source.group.values[:, :]), own
        return rotation(source.group.gram()[0]), own


def score_rows(
    target: Target, name: str, sources: Sequence[Source], found: Sequence[Decoded | None], folded: Folding
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of scores, of folds and of confusion matrices.

    Family-wise p counts relabellings whose best score over the sources reaches the observed one; q is the false
    discovery rate over the same sources.

    Parameters
    ----------
    target : Target
    name : str
        Of the decoder.
    sources : sequence of Source
        One family.
    found : sequence of Decoded or None
        Of each source.
    folded : Folding

    Returns
    -------
    rows, folds, confusions : list of dict
    """
    held = np.unique(np.concatenate([test for _, test in folded.splits]))
    known = [one for one in found if one is not None]
    largest = np.nanmax([one.null for one in known], axis=0) if known else np.empty(0)
    rows: list[dict[str, Any]] = []
    folds: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    for source, one in zip(sources, found, strict=True):
        label = {**source.label, "target": target.name}
        n = 0 if source.columns is None or one is None else _voxels(target, source)
        row = {**label, "decoder": name, **({"n_voxels": n} if source.group is None else {}), "n_items": len(held)}
        if one is None:
            rows.append({**row, **({"n_classes": len(target.classes)} if target.classes else {}), "p": np.nan})
            continue
        p = pvalue(one.score, one.null, tolerance=TIES)
        rows.append({
            **row, **_scores(target, one, held), "null_95": float(np.quantile(one.null, 0.95)),
            "p": float(p), "p_fwe": float(np.where(np.isnan(p), np.nan, pvalue(one.score, largest, tolerance=TIES))),
        })  # fmt: skip
        folds += _fold_rows(target, label, one, folded)
        counts += list(_confusion_rows(target, label, one))
    for row, q in zip(rows, fdr([row["p"] for row in rows]), strict=True):
        row["q"] = q
    return rows, folds, counts


def _voxels(target: Target, source: Source) -> int:
    values = target.table.values[:, source.columns]
    return int(np.isfinite(values).all(axis=0).sum())


def _scores(target: Target, one: Decoded, held: np.ndarray) -> dict[str, Any]:
    if not target.classes:
        predicted, true = one.decisions[held], target.labels[held]
        return {"pearsonr": one.score, "r2": float(r2(predicted[:, None], true[:, None])[0]), "chance": 0.0}
    n = len(target.classes)
    counts = confusion(target.labels, choices(one.decisions), n)
    tested = int((counts.sum(axis=1) > 0).sum())
    return {
        "n_classes": n, "accuracy": float(accuracy(counts)), "balanced_accuracy": one.score, "auc": one.auc,
        "chance": 1 / n if tested == n else np.nan,
    }  # fmt: skip


def _fold_rows(target: Target, label: Mapping[str, str], one: Decoded, folded: Folding) -> Iterator[dict[str, Any]]:
    n = len(target.classes)
    for number, (train, test) in enumerate(folded.splits):
        row: dict[str, Any] = {**label, "fold": number, "n_train": len(train), "n_test": len(test)}
        if n:
            counts = confusion(target.labels[test], choices(one.decisions[test]), n)
            row |= {"accuracy": float(accuracy(counts)), "balanced_accuracy": float(balanced_accuracy(counts))}
        else:
            alone = [(train, test)]
            row["pearsonr"] = float(score(one.decisions[None], target.labels[None], alone, 0)[0])
        yield row


def _confusion_rows(target: Target, label: Mapping[str, str], one: Decoded) -> Iterator[dict[str, Any]]:
    n = len(target.classes)
    if not n:
        return
    counts = confusion(target.labels, choices(one.decisions), n)
    for true, row in zip(target.classes, counts, strict=True):
        for predicted, count in zip(target.classes, row, strict=True):
            share = count / row.sum() if row.sum() else np.nan
            yield {**label, "true": true, "predicted": predicted, "n_items": int(count), "share": share}


def with_places(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A table that has all the columns that become parts of file names."""
    places = {"atlas": "", "network": "", "layer": "", "region": ""}
    return pd.DataFrame([{**places, **row} for row in rows])
