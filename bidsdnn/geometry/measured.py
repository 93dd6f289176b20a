"""RDMs of brain regions: from responses to stimuli, from single trials in folds, and from each run or session.

The one idea: what averaged responses no longer hold, the noise and its independence between folds, is in the trials,
a table of the same columns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.geometry.named import distance
from bidsdnn.methods.crossnobis import crossnobis_trials
from bidsdnn.methods.noise import SHRINKAGE, noise_covariance, noise_precision, trial_scatter
from bidsdnn.methods.rdm import USES_FOLDS, USES_PRECISION
from bidsdnn.patterns import Patterns

logger = logging.getLogger(__name__)

Regions = Mapping[str, Mapping[str, np.ndarray]]
Table = Mapping[str, np.ndarray]
FEWEST_STIMULI = 4
FOLDS = ("run", "session")
NOISE = ("trials", "residuals")
Residuals = Callable[[np.ndarray], tuple[np.ndarray, int]]
"""From voxels, (n_voxels,) of bool, to residuals (volumes, k) and their degrees of freedom."""
# A covariance of so many voxels is 800 MB.
MOST_VOXELS = 10_000


def whole_brain(y: Patterns) -> Regions:
    """Make one region of all columns, as it is analysed where there is no atlas."""
    return {"": {"brain": np.ones(y.groups[0].values.shape[1], dtype=bool)}}


@dataclass(frozen=True)
class How:
    """How distances in a brain are measured.

    Parameters
    ----------
    metric : str
        Row of `DISSIMILARITIES`.
    folds : str
        What crossnobis is cross-validated over, ``run`` or ``session``.
    noise : str
        What the noise's covariance is estimated from: ``trials``, their scatter about the mean of their stimulus, or
        ``residuals``, what a model with a regressor for every trial leaves of the series.
    shrinkage : str
        Row of `SHRINKAGE`.

    Raises
    ------
    ConfigError
        If one of them is not known.
    """

    metric: str = "correlation"
    folds: str = "run"
    noise: str = "trials"
    shrinkage: str = "diagonal"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("folds", self.folds, FOLDS), ("noise", self.noise, NOISE), ("shrinkage", self.shrinkage, SHRINKAGE),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"parameters.rsa.{name} = {value!r}: choose one of {', '.join(known)}")

    @property
    def from_trials(self) -> bool:
        """Whether the metric needs single trials."""
        return self.metric in USES_PRECISION

    def __str__(self) -> str:
        """A sentence for the report's methods; empty where averaged responses were enough."""
        if not self.from_trials:
            return ""
        kind = {"diagonal": "variances", "shrunk": "shrunk covariance", "full": "covariance"}[self.shrinkage]
        over = f" Distances were cross-validated over {self.folds}s." if self.metric in USES_FOLDS else ""
        source = {
            "trials": "trials about the mean of their stimulus",
            "residuals": "residuals of a model of trials",
        }
        return f" Noise was described by the {kind} of {source[self.noise]}.{over}"


@dataclass(frozen=True, eq=False)
class Measured:
    """RDMs of all regions.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Which items of the responses the RDMs are about.
    rdms : mapping of str to mapping of str to ndarray, shape (n * (n - 1) / 2,)
        By atlas and region; NaN for a region with fewer than two usable voxels.
    counts : mapping of str to mapping of str to int
        Usable voxels.
    notes : sequence of str
        What was left out.
    noise : mapping of str to mapping of str to (ndarray, ndarray)
        By atlas and region: the usable voxels' columns, and the covariance of their noise; empty unless asked for.
    """

    rows: np.ndarray
    rdms: Mapping[str, Mapping[str, np.ndarray]]
    counts: Mapping[str, Mapping[str, int]]
    notes: Sequence[str] = ()
    noise: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)


def region_rdms(y: Patterns, table: Table, *, metric: str = "correlation") -> dict[str, np.ndarray]:
    """RDM of each region, from responses to stimuli.

    Parameters
    ----------
    y : Patterns
        Responses.
    table : mapping of str to ndarray of bool, shape (n_voxels,)
    metric : str
        Row of `DISSIMILARITIES` that needs neither folds nor the noise, or ``file.py:function``.

    Returns
    -------
    dict of str to ndarray, shape (n * (n - 1) / 2,)
        NaN for a region with fewer than two usable voxels.
    """
    values = y.values
    usable = np.isfinite(values).all(axis=0)
    measured = distance(metric)
    pairs = len(y) * (len(y) - 1) // 2
    return {
        name: measured(values[:, columns & usable]) if (columns & usable).sum() > 1 else np.full(pairs, np.nan)
        for name, columns in table.items()
    }


def measure(
    y: Patterns, trials: Patterns | None, regions: Regions, how: How, *, residuals: Residuals | None = None,
    with_noise: bool = False,
) -> Measured:  # fmt: skip
    """RDMs of all regions, from single trials where the metric needs them.

    Parameters
    ----------
    y : Patterns
        Responses to stimuli.
    trials : Patterns or None
        Single trials, with ``run`` and ``session``.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)
    how : How
    residuals : callable, optional
        Gives those of some voxels.
    with_noise : bool
        Whether the noise's covariance is returned too.

    Returns
    -------
    Measured

    Raises
    ------
    DataError
        If the metric needs repeats that there are not.
    """
    if not how.from_trials:
        usable = np.isfinite(y.values).all(axis=0)
        rdms = {atlas: region_rdms(y, table, metric=how.metric) for atlas, table in regions.items()}
        return Measured(np.arange(len(y)), rdms, _counts(regions, usable))
    noisy = Noisy.read(y, trials, regions, how, residuals)
    rows, notes = np.arange(len(y)), []
    if how.metric in USES_FOLDS:
        rows = noisy.repeated()
        if len(rows) < FEWEST_STIMULI:
            raise DataError(
                f"{how.metric}: {len(rows)} of {len(y)} stimuli were shown in two or more {how.folds}s, and "
                f"{FEWEST_STIMULI} are needed; choose another --rdm-metric, or other folds in the TOML file: "
                "[parameters.rsa] folds"
            )
        if len(rows) < len(y):
            notes = [f"RSA leaves out {len(y) - len(rows)} of {len(y)} stimuli that one {how.folds} alone showed."]
            logger.warning("%s", notes[0])
    rdms = {atlas: {name: noisy.rdm(columns, rows) for name, columns in t.items()} for atlas, t in regions.items()}
    noise = {atlas: noisy.covariances(table) for atlas, table in regions.items()} if with_noise else {}
    return Measured(rows, rdms, _counts(regions, noisy.usable), notes, noise)


def _counts(regions: Regions, usable: np.ndarray) -> dict[str, dict[str, int]]:
    return {atlas: {name: int((columns & usable).sum()) for name, columns in t.items()} for atlas, t in regions.items()}


@dataclass(frozen=True, eq=False)
class Noisy:
    """Single trials of the voxels in any region.

    Parameters
    ----------
    values : ndarray, shape (trials, p)
    columns : ndarray of bool, shape (n_voxels,)
        Which voxels those are.
    usable : ndarray of bool, shape (n_voxels,)
        Those that vary in every run.
    stimulus : ndarray of int, shape (trials,)
        Item of the responses that each trial showed.
    folds : ndarray, shape (trials,)
    n : int
        Items.
    how : How
    residuals : (ndarray, int) or None
        Those of the columns, and their degrees of freedom.
    precisions : dict
        Of each region, once it was asked for: a split uses that of all trials.
    """

    values: np.ndarray
    columns: np.ndarray
    usable: np.ndarray
    stimulus: np.ndarray
    folds: np.ndarray
    n: int
    how: How
    residuals: tuple[np.ndarray, int] | None
    precisions: dict[bytes, np.ndarray]

    @classmethod
    def read(
        cls, y: Patterns, trials: Patterns | None, regions: Regions, how: How, residuals: Residuals | None = None
    ) -> Noisy:
        """Read the trials' responses in all regions.

        Raises
        ------
        DataError
            If there are no trials, or no residuals where they are the noise.
        """
        if trials is None or not len(trials):
            raise DataError(
                f"{how.metric} needs single trials, of which there are none; choose another --rdm-metric or --response"
            )
        masks = [columns for table in regions.values() for columns in table.values()]
        inside = np.any(masks, axis=0)
        values = np.asarray(trials.groups[0].values[:, inside], dtype=np.float64)
        wanted = how.from_trials and how.noise == "residuals"
        if wanted and residuals is None:
            raise DataError('[parameters.rsa] noise = "residuals": there are no series here; choose noise = "trials"')
        left = residuals(inside) if wanted and residuals is not None else None
        place = {name: row for row, name in enumerate(y.ids)}
        usable = np.zeros(len(inside), dtype=bool)
        usable[inside] = np.isfinite(values).all(axis=0)
        stimulus = np.array([place[name] for name in trials.ids])
        return cls(values, inside, usable, stimulus, trials.items[how.folds].to_numpy(), len(y), how, left, {})

    def repeated(self) -> np.ndarray:
        """Items that two folds or more hold."""
        pairs = {(code, fold) for code, fold in zip(self.stimulus.tolist(), self.folds.tolist(), strict=True)}
        counts = np.bincount([code for code, _ in pairs], minlength=self.n)
        return np.flatnonzero(counts > 1)

    def only(self, keep: np.ndarray, folds: np.ndarray | None = None) -> Noisy:
        """Some of the trials; the noise stays that of all."""
        folds = self.folds if folds is None else folds
        return replace(self, values=self.values[keep], stimulus=self.stimulus[keep], folds=folds[keep])

    def rdm(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """RDM of one region over some items, in their order; NaN in the pairs of items without trials."""
        inside = (columns & self.usable)[self.columns]
        pairs = len(rows) * (len(rows) - 1) // 2
        if inside.sum() < 2:
            return np.full(pairs, np.nan)
        place = np.full(self.n, -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.stimulus] >= 0
        values, stimulus = self.values[kept][:, inside], place[self.stimulus[kept]]
        precision = self._precision(columns, inside) if self.how.from_trials else None
        if self.how.metric in USES_FOLDS:
            folds = self.folds[kept]
            return crossnobis_trials(values, stimulus, folds, n_stimuli=len(rows), precision=precision)
        shown = np.unique(stimulus)
        means = np.array([values[stimulus == code].mean(axis=0) for code in shown])
        square = np.full((len(rows), len(rows)), np.nan)
        if len(shown) > 1:
            one, other = np.triu_indices(len(shown), 1)
            found = distance(self.how.metric)(means, **({} if precision is None else {"precision": precision}))
            square[shown[one], shown[other]] = found
        return np.asarray(square[np.triu_indices(len(rows), 1)])

    def _precision(self, columns: np.ndarray, inside: np.ndarray) -> np.ndarray:
        key = columns.tobytes()
        if key not in self.precisions:
            if self.how.shrinkage != "diagonal" and inside.sum() > MOST_VOXELS:
                raise DataError(
                    f"{self.how.metric}: a region of {inside.sum()} voxels has too large a noise covariance; give "
                    '--atlas with smaller regions, or [parameters.rsa] shrinkage = "diagonal" in the TOML file'
                )
            self.precisions[key] = self._noise(noise_precision, inside)
        return self.precisions[key]

    def covariances(self, table: Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Covariance of the noise in each region that has an RDM, with the voxels' columns."""
        found = {}
        for name, columns in table.items():
            inside = (columns & self.usable)[self.columns]
            if inside.sum() > 1:
                found[name] = (np.flatnonzero(columns & self.usable), self._noise(noise_covariance, inside))
        return found

    def _noise(self, estimate: Callable[..., np.ndarray], inside: np.ndarray) -> np.ndarray:
        """The covariance of the noise or its inverse, from what was chosen as its source."""
        try:
            if self.residuals is None:
                deviations, dof = trial_scatter(self.values[:, inside], self.stimulus)
            else:
                deviations, dof = self.residuals[0][:, inside], self.residuals[1]
            return estimate(deviations, method=self.how.shrinkage, dof=dof)
        except ValueError as error:
            raise DataError(f"{self.how.metric}: {error}") from error
