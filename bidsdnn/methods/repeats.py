"""How well responses agree with those to the same stimulus in other runs: what settings are chosen by.

The one idea: summed over all pairs of repeats, squared differences are a weighted sum of squares and a product with
the sums over partners, so no pair is ever visited, and the partners' sums are computed once for all settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

_STIMULI_NEEDED = 3


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which trials show the same stimulus in another run.

    Parameters
    ----------
    stimulus, cell : tensor of int, shape (n,)
        Number of each trial's stimulus, and of its stimulus within its run.
    session : tensor of int, shape (n,)
        Trials are z-scored within sessions.
    partners : tensor, shape (n, 1)
        How many trials of the same stimulus other runs hold.
    """

    stimulus: torch.Tensor
    cell: torch.Tensor
    session: torch.Tensor
    partners: torch.Tensor

    def agreement(self, unregularised: torch.Tensor) -> Agreement:
        """What responses of these trials (n, V) are compared with: their partners' unregularised responses."""
        ones = torch.ones(len(unregularised), 1, dtype=unregularised.dtype, device=unregularised.device)
        count = _sums(ones, self.session)
        mean = _sums(unregularised, self.session) / count
        spread = (_sums((unregularised - mean) ** 2, self.session) / (count - 1).clamp_min(1)).sqrt()
        # A voxel whose responses do not vary cannot tell settings apart; any will do.
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        z = (unregularised - mean) / spread
        return Agreement(self, mean, spread, self.sums(z), (self.partners * z**2).sum(dim=0))

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Each trial's sum over its partners, (n, V)."""
        return _sums(values, self.stimulus) - _sums(values, self.cell)


@dataclass(frozen=True, eq=False)
class Agreement:
    """The unregularised responses that other ones are measured against."""

    repeats: Repeats
    mean: torch.Tensor
    spread: torch.Tensor
    target: torch.Tensor
    energy: torch.Tensor

    def error(self, values: torch.Tensor) -> torch.Tensor:
        """Mean squared difference between each trial's response (n, V) and its partners', by voxel.

        Both are in units of the unregularised responses' spread over trials of a session.
        """
        z = (values - self.mean) / self.spread
        partners = self.repeats.partners
        return ((partners * z**2 - 2 * z * self.target).sum(dim=0) + self.energy) / partners.sum()


def repeats_across_runs(
    stimulus: ArrayLike, run: ArrayLike, session: ArrayLike, *, device: torch.device
) -> Repeats | None:
    """Find the repeats of stimuli in other runs.

    Parameters
    ----------
    stimulus, run, session : array-like, shape (n,)
        Of each trial.
    device : torch.device

    Returns
    -------
    Repeats or None
        None if fewer than 3 stimuli were shown in more than one run.
    """
    shown = np.unique(np.asarray(stimulus, dtype=str), return_inverse=True)[1]
    runs = np.unique(np.asarray(run), return_inverse=True)[1]
    cells, cell = np.unique(shown * (runs.max(initial=0) + 1) + runs, return_inverse=True)
    if (np.bincount(cells // (runs.max(initial=0) + 1)) > 1).sum() < _STIMULI_NEEDED:
        return None
    partners = np.bincount(shown)[shown] - np.bincount(cell)[cell]
    sessions = np.unique(session, return_inverse=True)[1]
    stimuli, cells_of, sessions_of = (torch.from_numpy(one).to(device) for one in (shown, cell, sessions))
    return Repeats(stimuli, cells_of, sessions_of, torch.from_numpy(partners[:, None].astype(np.float64)).to(device))


def _sums(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Each row replaced by the sum over the rows of its group."""
    totals = torch.zeros(int(codes.max()) + 1, values.shape[1], dtype=values.dtype, device=values.device)
    return totals.index_add_(0, codes, values)[codes]
