"""New read-outs of a network: columns of the stimuli as targets, one linear head each, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.retrained import Head
from bidsdnn.networks.weights import seeded

PARTS = ("train", "validation", "test")
BINS = 5
"""Of numbers, by which the parts get the same share of small and large ones."""


@dataclass(frozen=True, eq=False)
class Target:
    """A column of the stimuli that is learnt.

    Parameters
    ----------
    name : str
    values : ndarray, shape (n,)
        Classes from 0, or numbers.
    classes : tuple of str
        Empty for numbers.
    """

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()

    @property
    def strata(self) -> np.ndarray:
        """Classes, or bins of numbers, shape (n,)."""
        if self.classes:
            return self.values
        ranks = pd.Series(self.values).rank(method="first").to_numpy() - 1
        return (ranks * BINS // len(ranks)).astype(int)


def targets_of(columns: Mapping[str, pd.DataFrame], ids: Sequence[str]) -> tuple[list[Target], np.ndarray]:
    """Understand columns: numbers, if all values are and there are more than two; else classes.

    Parameters
    ----------
    columns : mapping of str to DataFrame
        With ``stimulus_id`` and ``value``.
    ids : sequence of str
        Stimuli.

    Returns
    -------
    targets : list of Target
        Of the stimuli with all values.
    known : ndarray of int
        Their places among `ids`.

    Raises
    ------
    ConfigError
        If there is no column.
    DataError
        If fewer than two stimuli have values, all have the same, or one has several classes.
    """
    if not columns:
        raise ConfigError("which column is to be learnt? Name it with --target NAME, or --target NAME=FILE.tsv")
    found = {}
    for name, table in columns.items():
        rows = table[table["value"].notna() & table["stimulus_id"].isin(ids)]
        numbers = pd.to_numeric(rows["value"], errors="coerce")
        numeric = bool(np.isfinite(numbers).all()) and numbers.nunique() > 2
        values = numbers if numeric else rows["value"].astype(str)
        several = values.groupby(rows["stimulus_id"]).nunique()
        if not numeric and (several > 1).any():
            raise DataError(f"--target {name}: {several.idxmax()} has {several.max()} classes; give each stimulus one")
        by_stimulus = values.groupby(rows["stimulus_id"])
        found[name] = (by_stimulus.mean() if numeric else by_stimulus.first()).reindex(list(ids)), numeric
    known = np.flatnonzero(np.logical_and.reduce([values.notna().to_numpy() for values, _ in found.values()]))
    targets = []
    for name, (values, numeric) in found.items():
        own = values.to_numpy()[known]
        if len(known) < 2 or len(set(own)) < 2:
            raise DataError(
                f"--target {name}: {len(known)} of {len(ids)} stimuli have a value, {len(set(own))} different ones; "
                "check the column and its ids"
            )
        if numeric:
            targets.append(Target(name, own.astype(np.float64)))
        else:
            classes, codes = np.unique(own.astype(str), return_inverse=True)
            targets.append(Target(name, codes, tuple(map(str, classes))))
    return targets, known


def split(
    contents: Sequence[str], strata: np.ndarray, *, validation: float, test: float, seed: int
) -> dict[str, np.ndarray]:
    """Split stimuli into training, validation and test, with the same share of each stratum.

    Parameters
    ----------
    contents : sequence of str, shape (n,)
        What stimuli show: equal ones stay together.
    strata : ndarray of int, shape (n,)
    validation, test : float
        Shares.
    seed : int

    Returns
    -------
    dict of str to ndarray of int
        Rows of ``train``, ``validation`` and ``test``, sorted.

    Raises
    ------
    ValueError
        If the shares leave nothing to train on, or a part is empty.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise ValueError(f"validation, test: expected shares above 0 and below 1 together, got {validation}, {test}")
    rows_of: dict[str, list[int]] = {}
    for row, content in enumerate(contents):
        rows_of.setdefault(content, []).append(row)
    groups = list(rows_of.values())
    of_group = np.asarray([strata[rows[0]] for rows in groups])
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for stratum in np.unique(of_group):
        members = np.random.default_rng([seed, int(stratum)]).permutation(np.flatnonzero(of_group == stratum))
        ends = np.cumsum(np.round(len(members) * np.asarray([test, validation])).astype(int))
        for part, some in zip(("test", "validation", "train"), np.split(members, ends), strict=True):
            parts[part] += [row for group in some for row in groups[group]]
    for part, rows in parts.items():
        if not rows:
            raise ValueError(f"{part}: expected stimuli, got none of {len(contents)}; give more, or a larger share")
    return {part: np.sort(np.asarray(rows)) for part, rows in parts.items()}


class Heads(nn.Module):
    """A linear head a target, on one table of features.

    Features are first centred, and of frozen layers z-scored, by the training part, which is part of the head that is
    written. Where layers are learnt, scaling would amplify the gradients of units that hardly vary yet.

    Parameters
    ----------
    targets : sequence of Target
    features : Tensor, shape (n_train, units)
        Of the training part.
    training : ndarray of int
        Its rows.
    frozen : bool
        Whether the features stay as they are.
    seed : int
        Of the heads' first weights.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, targets: Sequence[Target], features: Tensor, training: np.ndarray, *, frozen: bool, seed: int
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        flat = features.detach().flatten(1).double().cpu()
        sd = flat.std(0, unbiased=False)
        self.register_buffer("centre", flat.mean(0).float())
        varied = torch.where(sd > 1e-6 * sd.max().clamp(min=1e-12), sd, torch.inf)
        self.register_buffer("scale", (varied if frozen else torch.ones_like(sd)).float())
        self.moments = {
            t.name: (float(t.values[training].mean()), float(t.values[training].std()) or 1.0) for t in targets
        }
        sizes = [len(target.classes) or 1 for target in targets]
        self.linear = seeded(lambda: nn.ModuleList(nn.Linear(flat.shape[1], size) for size in sizes), seed)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Scores of classes, or z-scored numbers, shape (n, k), one a target."""
        scaled = (features.flatten(1) - self.centre) / self.scale
        return [linear(scaled) for linear in self.linear]

    def losses(self, features: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
        """Cross-entropy of classes, mean squared error of z-scored numbers, by target."""
        found = {}
        for target, scores in zip(self.targets, self(features), strict=True):
            values = torch.from_numpy(np.asarray(target.values[rows])).to(scores.device)
            if target.classes:
                found[target.name] = functional.cross_entropy(scores, values.long())
            else:
                mean, sd = self.moments[target.name]
                found[target.name] = functional.mse_loss(scores[:, 0], ((values - mean) / sd).to(scores.dtype))
        return found

    def scored(self, features: Tensor, rows: np.ndarray) -> list[dict[str, object]]:
        """What the heads are worth on some rows: a row a target and measure."""
        found: list[dict[str, object]] = []
        with torch.no_grad():
            every = [scores.cpu().double().numpy() for scores in self(features)]
        for target, scores in zip(self.targets, every, strict=True):
            values = target.values[rows]
            for measure, value in _measures(target, values, scores, self.moments[target.name]).items():
                found.append({"target": target.name, "measure": measure, "value": value, "n_stimuli": len(rows)})
        return found

    def written(self, layer: str, pooling: str | None) -> list[Head]:
        """The heads on features as they are, for the file."""
        made = []
        for target, linear in zip(self.targets, self.linear, strict=True):
            weight = (linear.weight / self.scale).T.detach()
            intercept = (linear.bias - self.centre @ weight).detach()
            if not target.classes:
                mean, sd = self.moments[target.name]
                weight, intercept = weight * sd, intercept * sd + mean
            made.append(Head(target.name, layer, pooling, weight, intercept, target.classes))
        return made


def _measures(target: Target, values: np.ndarray, scores: np.ndarray, moments: tuple[float, float]) -> dict[str, float]:
    if target.classes:
        right = scores.argmax(1) == values
        by_class = [right[values == code].mean() for code in np.unique(values)]
        return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(by_class))}
    predicted = scores[:, 0] * moments[1] + moments[0]
    total = ((values - values.mean()) ** 2).sum()
    return {
        "pearsonr": float(np.corrcoef(values, predicted)[0, 1]) if total and np.ptp(predicted) else float("nan"),
        "r2": float(1 - ((values - predicted) ** 2).sum() / total) if total else float("nan"),
    }
