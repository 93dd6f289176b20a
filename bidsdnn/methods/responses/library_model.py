"""The models of all runs' trials, one for each response of a library, and components added to them.

The one idea: a model is decomposed once and then serves all voxels that have its response.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.fractional_ridge import Rotated, coordinates, responses, rotate
from bidsdnn.methods.hrf_library import kernels
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.responses.design import canonical, check_bold, orthonormal

_VOXELS = 2048
"""Voxels worked on at a time, of all runs."""


@dataclass(frozen=True, eq=False)
class LibraryModel:
    """All runs' models, for every response of the library.

    Parameters
    ----------
    bolds : sequence of array-like, shape (T, V)
        By run.
    bases : sequence of tensor, shape (T, C)
        By run, an orthonormal basis of the nuisance.
    designs : sequence of sequence of tensor, shape (T, n_trials)
        By response and run, the trials' regressors with the nuisance projected out.
    rotated : sequence of Rotated
        By response, the same decomposed.
    onoff : sequence of tensor, shape (T, 1)
        By run, all trials in one regressor.
    estimable : array of bool, shape (n_trials of all runs,)
    device : torch.device
    """

    bolds: Sequence[Any]
    bases: Sequence[torch.Tensor]
    designs: Sequence[Sequence[torch.Tensor]]
    rotated: Sequence[Rotated]
    onoff: Sequence[torch.Tensor]
    estimable: NDArray[np.bool_]
    device: torch.device

    @property
    def n_voxels(self) -> int:
        """Columns of every run."""
        return int(self.bolds[0].shape[1])

    def series(self) -> Iterator[tuple[slice, list[torch.Tensor], NDArray[np.float64], NDArray[np.bool_]]]:
        """Blocks of voxels: each run's series without nuisance, their mean, and which voxels vary in every run."""
        for voxels in blocks(self.n_voxels, _VOXELS):
            found, mean, usable = [], np.zeros(voxels.stop - voxels.start), True
            for bold, basis in zip(self.bolds, self.bases, strict=True):
                values = np.array(bold[:, voxels], dtype=np.float64)
                usable = usable & np.isfinite(values).all(axis=0) & (values != values[:1]).any(axis=0)
                values[:, ~usable] = 0
                mean += values.mean(axis=0) / len(self.bolds)
                one = torch.from_numpy(values).to(self.device)
                found.append(one - basis @ (basis.T @ one))
            yield voxels, found, mean, np.asarray(usable)


def library_model(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
    hrf: str,
    device: torch.device,
) -> LibraryModel:
    """Build and decompose the designs of all runs for all responses of the library.

    Parameters
    ----------
    bolds, events, frame_times, nuisance, hrf
        Of `glmsingle`.
    device : torch.device

    Returns
    -------
    LibraryModel
    """
    lasting = float(np.median(np.concatenate([table["duration"].to_numpy(dtype=float) for table in events])))
    library = kernels(lasting)
    bases, onoff, estimable = [], [], []
    designs: list[list[torch.Tensor]] = [[] for _ in library]
    for bold, table, frames, others in zip(bolds, events, frame_times, nuisance, strict=True):
        check_bold(bold.shape, np.asarray(frames))
        basis = orthonormal(np.asarray(others, dtype=np.float64))
        assumed = canonical(table, frame_times=frames, nuisance=others, hrf=hrf)
        recorded, together = assumed.recorded, assumed.x[:, 0].sum(axis=0)[:, None]
        onoff.append(torch.from_numpy(together - basis @ (basis.T @ together)).to(device))
        for number, kernel in enumerate(library):
            design = canonical(table, frame_times=frames, nuisance=others, hrf=kernel)
            # A trial that a late response would leave unrecorded is not estimated in any voxel.
            recorded = recorded & design.recorded
            x = design.x[:, 0].T
            designs[number].append(torch.from_numpy(x - basis @ (basis.T @ x)).to(device))
        bases.append(torch.from_numpy(basis).to(device))
        estimable.append(recorded)
    rotated = [rotate(one) for one in designs]
    reached = np.ones(sum(map(len, estimable)), dtype=bool)
    for one in rotated:
        # As in `lsa`: a trial is estimable if its own axis lies within the space the design reaches.
        reached &= torch.cat([(right**2).sum(dim=1) for right in one.right]).cpu().numpy() > 1 - 1e-6
    return LibraryModel(bolds, bases, designs, rotated, onoff, np.concatenate(estimable) & reached, device)


def denoised(model: LibraryModel, found: Sequence[torch.Tensor]) -> LibraryModel:
    """Add components to the nuisance of each run.

    Parameters
    ----------
    model : LibraryModel
    found : sequence of tensor, shape (T, k)
        By run, orthonormal, and orthogonal to the nuisance.

    Returns
    -------
    LibraryModel
    """
    designs = [[x - p @ (p.T @ x) for x, p in zip(one, found, strict=True)] for one in model.designs]
    return replace(
        model,
        bases=[torch.cat(pair, dim=1) for pair in zip(model.bases, found, strict=True)],
        designs=designs,
        rotated=[rotate(one) for one in designs],
        onoff=[x - p @ (p.T @ x) for x, p in zip(model.onoff, found, strict=True)],
    )


def with_components(
    model: LibraryModel, number: int, series: Sequence[torch.Tensor], found: Sequence[torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Unregularised responses with 0, 1, ... components in the model.

    A regressor added to a least-squares model moves the others' coefficients by its own coefficient times what it
    has in common with them (Frisch-Waugh-Lovell), so no model is fitted twice.

    Parameters
    ----------
    model : LibraryModel
    number : int
        Of the response in the library.
    series : sequence of tensor, shape (T, v)
        By run, nuisance projected out.
    found : sequence of tensor, shape (T, k)
        By run, orthonormal components.

    Yields
    ------
    tensor, shape (n_trials of all runs, v)
        k + 1 times.
    """
    one = model.rotated[number]
    plain = responses(one, coordinates(one, series))
    yield plain
    sizes = [design.shape[1] for design in model.designs[number]]
    common = _responses_by_run(one, found)
    left = [x.T @ noise for x, noise in zip(model.designs[number], found, strict=True)]
    over = [
        noise.T @ y - b.T @ part
        for noise, y, b, part in zip(found, series, left, plain.split(sizes), strict=True)
    ]  # fmt: skip
    for count in range(1, found[0].shape[1] + 1):
        moved = []
        for d, b, rest in zip(common, left, over, strict=True):
            inner = torch.eye(count, dtype=d.dtype, device=d.device) - b[:, :count].T @ d[:, :count]
            moved.append(d[:, :count] @ torch.linalg.solve(inner, rest[:count]))
        yield plain - torch.cat(moved)


def _responses_by_run(rotated: Rotated, series: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Unregularised responses (n_trials, k) of each run to its own time courses (T, k)."""
    scales = rotated.scale.split([right.shape[1] for right in rotated.right])
    return [
        right @ ((left.T @ one) / scale[:, None])
        for left, scale, right, one in zip(rotated.left, scales, rotated.right, series, strict=True)
    ]
