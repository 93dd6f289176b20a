"""Held-out ridge predictions of any fold, at any penalty, from one decomposition of all rows.

The one idea: a model that never saw some rows follows from the model of all rows by solving a system of the size of
what was left out, because the fitted values of the left-out rows are known to answer to themselves by a known share.
No fold needs a decomposition of its own, and all folds share their products with the targets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from bidsdnn.methods.reduce import spectrum

_ROWS = 256
"""Rows copied at a time."""
_SMALL = 256
"""Up to so many rows or columns, singular values are taken of the table itself and not of its inner products."""


class Decomposed(NamedTuple):
    """Rows of a column-centred table X in the basis of its singular vectors, in float64; null directions left out."""

    mean: torch.Tensor
    """(p,) column means."""
    factored: tuple[torch.Tensor, ...]
    """Whose product is the basis (p, rank), the right singular vectors: of wide tables that is large, and work. Empty
    where no new rows are projected."""
    scores: torch.Tensor
    """(n, rank) the centred rows in that basis."""
    eigenvalues: torch.Tensor
    """(rank,) of X'X."""

    def basis(self) -> torch.Tensor:
        """Right singular vectors, (p, rank)."""
        return self.factored[0] if len(self.factored) == 1 else self.factored[0] @ self.factored[1]

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores of other rows, (m, p) -> (m, rank)."""
        rows = rows - self.mean
        for factor in self.factored:
            rows = rows @ factor
        return rows

    def unit(self, train: torch.Tensor | None = None) -> float:
        """Mean of the non-zero eigenvalues of X'X of the training rows, centred; their number is taken as usual.

        That is the rank of all rows, or one less than the training rows if those are fewer.
        """
        if not len(self.eigenvalues):
            return 1.0
        if train is None:
            return float(self.eigenvalues.mean())
        parts = train.split(_ROWS)
        mean = torch.stack([self.scores[some].sum(dim=0) for some in parts]).sum(dim=0) / len(train)
        lengths = sum(float((self.scores[some] - mean).square().sum()) for some in parts)
        return lengths / max(1, min(len(train) - 1, len(self.eigenvalues)))

    def factors(self, rows: torch.Tensor | None = None, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Scores with a column of ones, (n, rank + 1), whose products with the targets are all a fit needs of them."""
        count, rank = len(self.scores) if rows is None else len(rows), self.scores.shape[1]
        made = self.scores.new_ones((count, rank + 1), dtype=dtype)
        for start in range(0, count, _ROWS):
            some = slice(start, start + _ROWS)
            made[some, :rank] = self.scores[some if rows is None else rows[some]]
        return made

    def held_out(self, left_out: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
        """What predicts rows that are left out from the products of the factors of all others with their targets.

        With F the factors, H = F D F' the fitted values' matrix of all rows and k the rows left out, predictions are
        (I - H_kk)^-1 H_kt y_t for the rows t that remain (Cook and Weisberg, 1982, Residuals and Influence in
        Regression, section 2.2, for one row), which is (I - H_kk)^-1 F_k D times F_t'y_t.

        Parameters
        ----------
        left_out : tensor of int, shape (k,)
        penalties : tensor, shape (L,)
            In the unit of the eigenvalues.

        Returns
        -------
        tensor, shape (L, k, rank + 1)
        """
        rows = self.factors(left_out)
        items = torch.full_like(penalties, len(self.scores))[:, None]
        lengths = torch.cat([self.eigenvalues + penalties[:, None], items], dim=1)
        return torch.stack([_without(rows, length) for length in lengths])


def _without(rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(I - F D F')^-1 F D, which is F (1/D - F'F)^-1, for rows F and 1/D the lengths; NaN where rounding forbids.

    One matrix at a time: batches of them hang in the solver of some builds when it has several threads.
    """
    weighted = rows / lengths
    if len(rows) <= rows.shape[1]:
        others = torch.eye(len(rows), dtype=rows.dtype, device=rows.device) - weighted @ rows.T
        right = weighted
    else:
        others, right = torch.diag(lengths) - rows.T @ rows, rows.T
    factor, failed = torch.linalg.cholesky_ex(others)
    if failed:
        return torch.full_like(rows, torch.nan)
    solved = torch.cholesky_solve(right, factor)
    return solved if len(rows) <= rows.shape[1] else solved.T


def decompose(rows: torch.Tensor) -> Decomposed:
    """Decompose a table of float64, shape (n, p), through the smaller of its two matrices of inner products.

    Squared singular values below 1e-16 of the largest times max(n, p) are lost in those, which no penalty would tell
    from zero; small tables are decomposed themselves.
    """
    if min(rows.shape) <= _SMALL:
        table = spectrum(rows)
        return Decomposed(table.mean, (table.right,), table.left * table.scale, table.scale**2)
    mean = rows.mean(dim=0)
    centred = rows - mean
    wide = rows.shape[1] >= rows.shape[0]
    eigenvalues, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    # Ascending: those that are kept stand last.
    first = int((eigenvalues <= torch.finfo(rows.dtype).eps * max(rows.shape) * eigenvalues[-1]).sum())
    eigenvalues, vectors = eigenvalues[first:].flip(0), vectors[:, first:].flip(1)
    if wide:
        scale = eigenvalues.sqrt()
        scores = vectors * scale
        return Decomposed(mean, (centred.T, vectors.div_(scale)), scores, eigenvalues)
    return Decomposed(mean, (vectors,), centred @ vectors, eigenvalues)
