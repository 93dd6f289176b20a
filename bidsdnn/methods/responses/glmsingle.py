"""Single-trial responses with a haemodynamic response, denoising and shrinkage fitted to the data.

The one idea: for any of the library's responses a run's model is one decomposition of its design, shared by all
voxels; what differs between voxels is only which decomposition is used and how much each coordinate is shrunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from bidsdnn.methods.fractional_ridge import FRACTIONS, Rotated, coordinates, penalties, responses, shrunk
from bidsdnn.methods.hrf_library import N_RESPONSES
from bidsdnn.methods.noise_pool import choose_count, components, pool_of, tail_threshold
from bidsdnn.methods.reduce import float64_device
from bidsdnn.methods.repeats import Repeats, repeats_across_runs
from bidsdnn.methods.responses.design import check_runs
from bidsdnn.methods.responses.library_model import LibraryModel, denoised, library_model, with_components

Float32 = NDArray[np.float32]

_COMPONENTS = 10


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `glmsingle` found.

    Parameters
    ----------
    betas : array, shape (n_trials, V)
        Responses of all runs' trials, in the order of the events.
    hrf : array of int, shape (V,)
        Which response of the library each voxel has, from 1; 0 where nothing was estimated.
    r2 : array, shape (V,)
        Share of variance, nuisance aside, that the final model explains.
    onoff_r2 : array, shape (V,)
        The same for one regressor of all trials.
    fraction : array, shape (V,)
        Length of the responses before rescaling, as a share of that without ridge.
    noise_pool : array of bool, shape (V,)
        Voxels whose components were modelled as noise.
    curve : array, shape (n_components + 1,)
        Median error over repeats with 0, 1, ... components; empty if denoising was left out.
    n_components : int
        How many components were modelled.
    left_out : tuple of str
        Sentences: which steps were left out, and why.
    """

    betas: Float32
    hrf: NDArray[np.int64]
    r2: Float32
    onoff_r2: Float32
    fraction: Float32
    noise_pool: NDArray[np.bool_]
    curve: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    n_components: int = 0
    left_out: tuple[str, ...] = ()


def glmsingle(
    bolds: Sequence[Any],
    events: Sequence[pd.DataFrame],
    *,
    frame_times: Sequence[ArrayLike],
    nuisance: Sequence[ArrayLike],
    hrf: str = "spm",
    sessions: Sequence[Any] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    n_components: int = _COMPONENTS,
    out: Any = None,
    device: str = "cpu",
) -> Fitted:
    """Single-trial responses were estimated with a response shape, noise components and ridge chosen by their fit.

    The four steps of GLMsingle (Prince et al., 2022, eLife 11, e77599): a voxel's haemodynamic response is the one of
    20 that explains most variance; principal components of voxels that do not respond are added to the nuisance
    (Kay et al., 2013, Frontiers in Neuroscience 7, 247), as many as make repeats in different runs agree best; each
    voxel's responses are shrunk by fractional ridge regression, again to where repeats agree best; and are then
    scaled and shifted to match those without ridge. Without repeats across runs the last three steps are left out.

    Parameters
    ----------
    bolds : sequence of array-like, shape (T, V) each
        One a run: anything with a ``shape`` that can be sliced ``bold[:, a:b]``, as a memory map. Read four times,
        in blocks of voxels.
    events : sequence of DataFrame
        One a run: columns ``onset``, ``duration`` (seconds) and ``stimulus_id``, one row a trial.
    frame_times : sequence of array-like, shape (T,)
        Seconds at which each run's volumes were acquired.
    nuisance : sequence of array-like, shape (T, C)
        Everything else in each run's model, the constant included.
    hrf : {"spm", "glover"}
        Of the model with all trials in one regressor, which finds voxels that respond.
    sessions : sequence, optional
        A label a run: responses are z-scored within sessions when repeats are compared. By default one session.
    fractions : sequence of float
        Candidates for the ridge, above 0 and up to 1.
    n_components : int
        Most noise components tried.
    out : array-like, shape (trials, V), optional
        Where the responses are put, block by block: anything that takes ``out[:, a:b] = values``, as a table on disk.
        By default a new array.
    device : str
        Where torch multiplies; float64 everywhere, so ``mps`` falls back to the CPU.

    Returns
    -------
    Fitted
        Responses in the units of ``bolds``, of a trial's peak. NaN in the row of a trial that cannot be estimated
        and in the column of a voxel that is constant or not finite in a run.

    Raises
    ------
    ValueError
        If numbers of runs or voxels differ, or a run's input is invalid.
    """
    check_runs(bolds, events, frame_times, nuisance)
    if not len(fractions) or not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions: expected numbers above 0 and up to 1, got {list(fractions)}")
    model = library_model(bolds, events, frame_times, nuisance, hrf, float64_device(device))
    chosen, onoff, mean = _choose_hrf(model)
    trials = pd.concat(list(events), ignore_index=True)
    run = np.repeat(np.arange(len(bolds)), [len(table) for table in events])
    session = np.zeros(len(bolds), dtype=int) if sessions is None else np.unique(sessions, return_inverse=True)[1]
    repeats = repeats_across_runs(
        trials["stimulus_id"][model.estimable], run[model.estimable], session[run[model.estimable]],
        device=model.device,
    )  # fmt: skip
    pool, curve, count, left_out = np.zeros(model.n_voxels, dtype=bool), np.empty(0), 0, []
    if repeats is None:
        left_out.append(
            "Denoising and ridge regression were left out: fewer than 3 stimuli were shown in more than one run."
        )
    elif n_components < 1:
        left_out.append("Denoising was left out, as asked.")
    else:
        threshold = tail_threshold(onoff)
        pool = pool_of(onoff, mean, threshold)
        found = components(((series, pool[voxels]) for voxels, series, _, _ in model.series()), n_components)
        if found is None:
            left_out.append(f"Denoising was left out: {pool.sum()} voxels did not respond, too few for components.")
        else:
            curve = _curve(model, repeats, chosen, onoff, threshold, found)
            if count := choose_count(curve):
                model = denoised(model, [one[:, :count] for one in found])
    shape = (len(model.estimable), model.n_voxels)
    if out is not None and tuple(out.shape) != shape:
        raise ValueError(f"out: expected shape {shape}, got {tuple(out.shape)}")
    betas = np.empty(shape, dtype=np.float32) if out is None else out
    candidates = torch.tensor(sorted(fractions, reverse=True), dtype=torch.float64)
    r2, fraction = _estimate(model, repeats, chosen, candidates, betas)
    return Fitted(betas, chosen + 1, r2, onoff.astype(np.float32), fraction, pool, curve, count, tuple(left_out))


def _choose_hrf(model: LibraryModel) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Each voxel's response (from 0; -1 where unusable), share of variance of the on-off model, and mean."""
    chosen = np.full(model.n_voxels, -1, dtype=np.int64)
    onoff, mean = np.full(model.n_voxels, np.nan), np.full(model.n_voxels, np.nan)
    length = sum(float((one**2).sum()) for one in model.onoff)
    for voxels, series, level, usable in model.series():
        total = torch.stack([(one**2).sum(dim=0) for one in series]).sum(dim=0)
        shared = torch.stack([(x.T @ y)[0] for x, y in zip(model.onoff, series, strict=True)]).sum(dim=0)
        explained = torch.stack([_energy(one.left, series) for one in model.rotated])
        usable = usable & (total > 0).cpu().numpy()
        columns = np.arange(voxels.start, voxels.stop)[usable]
        chosen[columns] = explained.argmax(dim=0).cpu().numpy()[usable]
        onoff[columns] = (shared**2 / (length * total)).cpu().numpy()[usable]
        mean[columns] = level[usable]
    return chosen, onoff, mean


def _energy(left: Sequence[torch.Tensor], series: Sequence[torch.Tensor]) -> torch.Tensor:
    """What orthonormal time courses explain of the series' sums of squares over all runs, (v,)."""
    return torch.stack([((basis.T @ y) ** 2).sum(dim=0) for basis, y in zip(left, series, strict=True)]).sum(dim=0)


def _by_response(chosen: NDArray[np.int64], voxels: slice) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The responses that occur in a block, and the block's columns that have each."""
    here = chosen[voxels]
    for number in range(N_RESPONSES):
        if (columns := np.flatnonzero(here == number)).size:
            yield number, columns


def _curve(
    model: LibraryModel,
    repeats: Repeats,
    chosen: NDArray[np.int64],
    onoff: NDArray[np.float64],
    threshold: float,
    found: Sequence[torch.Tensor],
) -> NDArray[np.float64]:
    """Median error over repeats of responsive voxels with 0, 1, ... components among the nuisance."""
    responds = onoff > threshold
    if not responds.any():
        responds[np.argsort(np.nan_to_num(onoff, nan=-np.inf), kind="stable")[-100:]] = True
    among = np.where(responds, chosen, -1)
    rows = torch.from_numpy(np.flatnonzero(model.estimable)).to(model.device)
    errors = []
    for voxels, series, _, _ in model.series():
        for number, columns in _by_response(among, voxels):
            data = [one[:, columns] for one in series]
            sweep = with_components(model, number, data, found)
            plain = next(sweep)[rows]
            agreement = repeats.agreement(plain)
            errors.append(torch.stack([agreement.error(plain), *(agreement.error(one[rows]) for one in sweep)]))
    return np.asarray(torch.cat(errors, dim=1).median(dim=1).values.cpu())


def _estimate(
    model: LibraryModel,
    repeats: Repeats | None,
    chosen: NDArray[np.int64],
    fractions: torch.Tensor,
    betas: Any,
) -> tuple[Float32, Float32]:
    """Put the responses of all trials into ``betas``; share of variance explained, and fraction."""
    r2, fraction = (np.full(model.n_voxels, np.nan, dtype=np.float32) for _ in range(2))
    fractions = fractions.to(model.device)
    rows = torch.from_numpy(np.flatnonzero(model.estimable)).to(model.device)
    for voxels, series, _, _ in model.series():
        block = np.full((len(model.estimable), voxels.stop - voxels.start), np.nan, dtype=np.float32)
        for number, columns in _by_response(chosen, voxels):
            one, data = model.rotated[number], [y[:, columns] for y in series]
            where = np.arange(voxels.start, voxels.stop)[columns]
            found = coordinates(one, data)
            values = responses(one, found)[rows]
            kept, share = found, torch.ones(len(columns), dtype=found.dtype)
            if repeats is not None:
                penalty, share = _best_penalty(one, found, values, repeats, rows, fractions)
                kept = shrunk(one.scale, found, penalty)
                values = _rescaled(responses(one, kept)[rows], values)
            total = torch.stack([(y**2).sum(dim=0) for y in data]).sum(dim=0)
            explained = (one.scale[:, None] * found) ** 2 - (one.scale[:, None] * (found - kept)) ** 2
            r2[where] = (explained.sum(dim=0) / total).cpu().numpy()
            fraction[where] = share.cpu().numpy()
            block[np.ix_(model.estimable, columns)] = values.cpu().numpy()
        betas[:, voxels] = block
    return r2, fraction


def _best_penalty(
    one: Rotated,
    found: torch.Tensor,
    plain: torch.Tensor,
    repeats: Repeats,
    rows: torch.Tensor,
    fractions: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The penalty of each voxel under which repeats agree best, and its fraction; the largest of equals."""
    candidates = penalties(one.scale, found, fractions)
    agreement = repeats.agreement(plain)
    errors = [agreement.error(responses(one, shrunk(one.scale, found, penalty))[rows]) for penalty in candidates]
    best = torch.stack(errors).argmin(dim=0)
    return candidates.gather(0, best[None])[0], fractions[best]


def _rescaled(values: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Scale and shift each voxel's responses to match the unregularised ones by least squares."""
    centred, mean = values - values.mean(dim=0), plain.mean(dim=0)
    energy = (centred**2).sum(dim=0)
    slope = (centred * (plain - mean)).sum(dim=0) / energy
    # A line that falls would turn responses upside down.
    return torch.where((slope > 0) & (energy > 0), slope * centred + mean, values)
