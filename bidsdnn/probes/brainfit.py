"""How well a layer fits a region, and what a network must keep: the two sides of brain-constrained training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from bidsdnn.methods.rdm import correlation
from bidsdnn.probes.heads import Heads

FEWEST = 4
"""Stimuli of a batch, below which the pairs' distances say nothing."""
PENALTIES = np.logspace(-2, 6, 17)
_EPSILON = 1e-8


def distances(table: np.ndarray) -> np.ndarray:
    """Correlation distances of the rows of a table, condensed; NaN if some row is constant.

    Parameters
    ----------
    table : ndarray, shape (n, units)

    Returns
    -------
    ndarray, shape (n * (n - 1) / 2,)
    """
    if table.shape[1] < 2 or (np.ptp(table, axis=1) == 0).any():
        return np.full(len(table) * (len(table) - 1) // 2, np.nan)
    return np.asarray(correlation(table))


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r of two vectors; NaN if one is constant or not finite."""
    if np.ptp(one) > 0 and np.ptp(other) > 0:
        return float(np.corrcoef(one, other)[0, 1])
    return float("nan")


class Task:
    """What the network must keep: its heads' columns, or its own output.

    Parameters
    ----------
    heads : Heads or None
    output : Tensor, shape (n, ...)
        Of the network as it was, for all stimuli.
    """

    def __init__(self, heads: Heads | None, output: Tensor) -> None:
        self.heads, self.output = heads, output.flatten(1)
        self.spread = self.output.var(0, unbiased=False).mean().clamp(min=_EPSILON)

    def loss(self, top: Tensor, output: Tensor, rows: np.ndarray) -> Tensor:
        """What is lost of the task, given what the heads read and the network's output."""
        if self.heads is not None:
            return torch.stack(list(self.heads.losses(top, rows).values())).sum()
        return (output.flatten(1) - self.output[rows]).square().mean() / self.spread

    def scored(self, top: Tensor, output: Tensor, rows: np.ndarray) -> list[dict[str, Any]]:
        """How well the task is done, given the same of all stimuli: a row a measure."""
        if self.heads is not None:
            scores = self.heads.scored(top[rows], rows)
            return [{"measure": f"{row['target']}_{row['measure']}", "value": row["value"]} for row in scores]
        now, before = output.flatten(1)[rows], self.output[rows]
        found = [{"measure": "output_r2", "value": float(1 - (now - before).square().mean() / self.spread)}]
        if now.shape[1] > 1:
            same = (now.argmax(1) == before.argmax(1)).double().mean()
            found.append({"measure": "output_agreement", "value": float(same)})
        return found


def rdm_loss(features: Tensor, responses: Tensor) -> Tensor:
    """1 - Pearson's r of two tables' correlation distances between their rows; 0 for fewer than four rows.

    Parameters
    ----------
    features : Tensor, shape (n, units)
    responses : Tensor, shape (n, voxels)

    Returns
    -------
    Tensor
        A scalar, differentiable in the features.
    """
    if len(features) < FEWEST:
        return 0 * features.sum()
    model, brain = (_upper_distances(table) for table in (features, responses))
    model, brain = (one - one.mean() for one in (model, brain))
    r = (model * brain).sum() / (model.square().sum() * brain.square().sum() + _EPSILON**2).sqrt()
    return 1 - r


def _upper_distances(table: Tensor) -> Tensor:
    centred = table - table.mean(1, keepdim=True)
    unit = centred / (centred.square().sum(1, keepdim=True) + _EPSILON**2).sqrt()
    rows, columns = torch.triu_indices(len(table), len(table), 1, device=table.device)
    return 1 - (unit @ unit.T)[rows, columns]


class Readout(nn.Module):
    """A linear read-out that begins as the ridge regression of the responses on the layer as it was.

    Features are centred, and not scaled: that would amplify the gradients of a layer that hardly varies yet.

    Parameters
    ----------
    features : Tensor, shape (n, units)
        Of the training part.
    responses : Tensor, shape (n, voxels)
    """

    centre: Tensor

    def __init__(self, features: Tensor, responses: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(0))
        self.linear = nn.Linear(features.shape[1], responses.shape[1]).to(features.device)
        table = (features - self.centre).cpu().double().numpy()
        model = _ridge(table, responses.cpu().double().numpy())
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(np.atleast_2d(model.coef_)))
            self.linear.bias.copy_(torch.from_numpy(np.atleast_1d(model.intercept_)))

    def forward(self, features: Tensor) -> Tensor:
        """Predict responses, shape (n, voxels)."""
        predicted: Tensor = self.linear(features - self.centre)
        return predicted


def _ridge(table: np.ndarray, responses: np.ndarray) -> RidgeCV:
    return RidgeCV(alphas=PENALTIES).fit(table, responses)


def predicted_by(table: np.ndarray, responses: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Predict responses by ridge regression, its penalty chosen by leave-one-out in the training rows.

    Parameters
    ----------
    table : ndarray, shape (n, units)
    responses : ndarray, shape (n, voxels)
    training : ndarray of int

    Returns
    -------
    ndarray, shape (n, voxels)
    """
    model = _ridge(table[training], responses[training])
    return np.asarray(model.predict(table)).reshape(responses.shape)


def mean_r(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean over columns of Pearson's r, of those that vary."""
    rs = [pearson(p, m) for p, m in zip(predicted.T, measured.T, strict=True)]
    return float(np.mean([r for r in rs if np.isfinite(r)] or [np.nan]))
