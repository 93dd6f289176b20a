"""Brain-constrained training: a network is fine-tuned so that a layer comes nearer to a region and keeps its task.

The one idea: two losses on the same batch. One asks the layer for the region's distances between stimuli, or for a
linear read-out of its responses; the other asks the network for what it could do before.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.lookup import closest
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.networks.devices import placed, single_threaded
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.networks.retrained import written
from bidsdnn.networks.training import DROPS, TOTAL, Learnt, Schedule, learn
from bidsdnn.networks.tuning import Inputs, tapped, trainable
from bidsdnn.networks.work import contents
from bidsdnn.patterns import Patterns
from bidsdnn.probes.brainfit import Readout, Task, distances, mean_r, pearson, predicted_by, rdm_loss
from bidsdnn.probes.driving import check_precision
from bidsdnn.probes.heads import PARTS, Heads, split, targets_of
from bidsdnn.probes.transfer import curves_table, read_layer, split_table
from bidsdnn.result import Result
from bidsdnn.stimuli import Stimuli

Fit = Literal["rdm", "readout"]
Regions = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    brain: float
    task: float


def brain_training(
    x: Patterns,
    y: Patterns,
    *,
    networks: Sequence[Network],
    stimuli: Stimuli | None,
    regions: Regions,
    targets: Mapping[str, pd.DataFrame] | None = None,
    device: str = "cpu",
    seed: int = 0,
    workers: int = 1,
    checkpoint: Path | None = None,
    identity: str = "",
    region: str = "",
    layer: str = "",
    fit: Fit = "rdm",
    brain_weight: float = 1.0,
    task_weight: float = 1.0,
    fine_tune: Sequence[str] = ("*",),
    validation: float = 0.2,
    test: float = 0.2,
    epochs: int = 100,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    patience: int = 10,
) -> Result:
    """Networks were fine-tuned so that a layer fits a region's responses, together with their task.

    Parameters
    ----------
    x : Patterns
        Activations, from which the layer is chosen if none is named: the one whose RDM is nearest to the region's over
        the training stimuli.
    y : Patterns
        Responses.
    networks : sequence of Network
        Stay as they are.
    stimuli : Stimuli or None
        The stimuli of `y`; None where some are no pictures.
    regions : mapping of str to mapping of str to ndarray of bool, shape (n_voxels,)
    targets : mapping of str to DataFrame, optional
        Columns that the network must keep telling, by linear heads on its last layer that are learnt before. Without
        any, it must keep its own output (self-distillation, Hinton et al. 2015).
    device : str
    seed : int
    workers : int
        Threads that read stimuli.
    checkpoint : Path, optional
    identity : str
    region : str
        May be left out if there is one alone.
    layer : str
        As of `Network.select`.
    fit : {'rdm', 'readout'}
        By 1 - r of the distances between a batch's stimuli (correlation distance; McClure & Kriegeskorte 2016), or by
        the squared error of a linear read-out of the z-scored responses.
    brain_weight, task_weight : float
        Of each loss.
    fine_tune : sequence of str
        Layers whose weights are learnt.
    validation, test : float
        Shares of the stimuli.
    epochs, batch_size, learning_rate, weight_decay, patience
        As of `bidsdnn.networks.training.Schedule`.

    Returns
    -------
    Result
        Fit and task before and after, learning curves, the split, and weights.

    Raises
    ------
    ConfigError, DataError
        If there is no such region or layer, or a column cannot be learnt.
    ValueError
        If a parameter cannot be used.
    """
    if fit not in ("rdm", "readout"):
        raise ValueError(f"fit: expected rdm or readout, got {fit!r}")
    if min(brain_weight, task_weight) < 0 or brain_weight + task_weight == 0:
        raise ValueError(
            f"brain_weight, task_weight: expected at least 0, one above; got {brain_weight}, {task_weight}"
        )
    if stimuli is None:
        raise ConfigError("the network is trained on the stimuli, and some are no pictures, or are not there; "
                          "choose pictures with --event-filter")  # fmt: skip
    schedule = Schedule(epochs, batch_size, learning_rate, weight_decay, patience, seed)
    atlas, name, responses = _responses(y, regions, region)
    shown = stimuli.select(y.ids).with_hashes()
    rows = np.arange(len(y.ids))
    learnable, known = targets_of(targets, shown.ids) if targets else ([], rows)
    shown, responses = shown.select([shown.ids[row] for row in known]), responses[known]
    strata = learnable[0].strata if learnable else np.zeros(len(known), dtype=int)
    parts = split(contents(shown), strata, validation=validation, test=test, seed=seed)
    found = []
    for network in networks:
        check_precision(network)
        place = _layer(network, layer, x, known, responses, parts["train"])
        with placed(network.module, device), single_threaded():
            job = _Job(network, shown, responses, parts, place, fit, Weights(brain_weight, task_weight), schedule,
                       device, workers)  # fmt: skip
            own = checkpoint and checkpoint.with_name(f"{checkpoint.name}-{network.label}")
            found.append((network, place, *job.run(learnable, fine_tune, own, identity)))
    tables: dict[str, list[pd.DataFrame]] = {"braintraining": [], "braintrainingcurves": [], "braintrainingsplit": []}
    for network, place, scores, learnt, _ in found:
        same = {"network": network.label, "atlas": atlas}
        tables["braintraining"].append(scores.assign(region=name, layer=place, **same))
        tables["braintrainingcurves"].append(curves_table(learnt).assign(**same))
        tables["braintrainingsplit"].append(split_table(shown.ids, parts).assign(**same))
    return Result(
        "braintraining",
        tables={desc: pd.concat(some, ignore_index=True) for desc, some in tables.items()},
        weights={network.label: made for network, *_, made in found},
        sidecar=_sidecar(name, fit, schedule, parts, bool(learnable), fine_tune, Weights(brain_weight, task_weight),
                         {network.label: learnt for network, _, _, learnt, _ in found}),
    )  # fmt: skip


def _responses(y: Patterns, regions: Regions, region: str) -> tuple[str, str, np.ndarray]:
    """A region's atlas, name and responses, shape (n, voxels), without voxels that are not finite or constant."""
    there = [(atlas, name, columns) for atlas, table in regions.items() for name, columns in table.items()]
    chosen = [one for one in there if one[1] == region] if region else there
    if len(chosen) != 1 and not (region and chosen):
        names = sorted({name for _, name, _ in there})
        said = closest(region, names) if region else f"one of {', '.join(names[:10])}"
        raise ConfigError(
            f"[parameters.brain-training] region = {region!r}: name {said if not region else 'another'}"
            + (f"; {said}" if region else "")
        )
    atlas, name, columns = chosen[0]
    values = np.asarray(y.groups[0].values[:, :])[:, columns].astype(np.float64)
    usable = np.isfinite(values).all(0) & (np.ptp(values, axis=0) > 0)
    if not usable.any():
        raise DataError(f"region {name}: no voxel has responses that vary; choose another")
    return atlas, name, values[:, usable]


def _layer(
    network: Network, layer: str, x: Patterns, known: np.ndarray, responses: np.ndarray, training: np.ndarray
) -> str:
    """The layer asked for, or the one whose RDM is nearest to the region's over the training stimuli."""
    if layer:
        return read_layer(network, layer)
    brain = distances(responses[training])
    rs = {}
    for group in x.groups:
        if group.network == network.label:
            values = np.asarray(group.values[:, :])[known][training]
            rs[group.name] = pearson(distances(values), brain)
    fine = {name: r for name, r in rs.items() if np.isfinite(r)}
    if not fine:
        raise DataError(f"{network.label}: no layer's distances vary over the training stimuli; name another --layer")
    return max(fine, key=lambda name: fine[name])


class _Job:
    """The training of one network."""

    def __init__(
        self, network: Network, stimuli: Stimuli, responses: np.ndarray, parts: Mapping[str, np.ndarray], layer: str,
        fit: Fit, weights: Weights, schedule: Schedule, device: str, workers: int,
    ) -> None:  # fmt: skip
        self.network, self.layer, self.parts, self.fit = network, layer, parts, fit
        self.weights, self.schedule = weights, schedule
        self.device = torch_device(device)
        self.responses = responses
        mean, sd = responses[parts["train"]].mean(0), responses[parts["train"]].std(0)
        scaled = (responses - mean) / np.where(sd > 0, sd, np.inf)
        self.scaled = torch.from_numpy(scaled.astype(np.float32)).to(self.device)
        self.raw = torch.from_numpy(responses.astype(np.float32)).to(self.device)
        self.trained = replace(network, module=copy.deepcopy(network.module).eval())
        self.inputs = Inputs(self.trained, stimuli, device=self.device, workers=workers)
        self.head_layer = read_layer(network, "")
        modules = dict(self.trained.module.named_modules())
        self.pool = Reduction(pooling="mean", modules=modules)
        self.n = len(responses)

    def seen(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer, the layer that heads read (pooled) and the whole network give."""
        with tapped(self.trained.module, [self.layer, self.head_layer, ""]) as seen:
            self.trained.module(self.inputs(rows))
        missing = [layer for layer in (self.layer, self.head_layer, "") if layer not in seen]
        if missing:
            raise ConfigError(f"layer {missing[0]!r} is never reached by a forward pass of the network; choose another")
        return seen[self.layer].flatten(1), self.pool(self.head_layer, seen[self.head_layer]).flatten(1), seen[""]

    def whole(self) -> list[Tensor]:
        """The same of all stimuli, a batch at a time, without gradients."""
        size = self.schedule.batch_size
        with torch.no_grad():
            parts = [self.seen(np.arange(start, min(start + size, self.n))) for start in range(0, self.n, size)]
        return [torch.cat([part[i] for part in parts]) for i in range(3)]

    def run(
        self, targets: Sequence[Any], fine_tune: Sequence[str], checkpoint: Path | None, identity: str
    ) -> tuple[pd.DataFrame, Learnt, bytes]:
        """Train, and compare what the network was worth before and after."""
        tuned = trainable(self.trained, fine_tune)
        if not tuned:
            raise ConfigError("[parameters.brain-training] fine_tune: no layer is learnt; name some, or * for all")
        features, top, output = self.whole()
        training = self.parts["train"]
        heads = self._heads(targets, top) if targets else None
        task = Task(heads, output.detach())
        before = self._scores(features, top, output, task)
        readout = Readout(features[training], self.scaled[training]) if self.fit == "readout" else None
        parameters = {**tuned, **_named("heads", heads), **_named("readout", readout)}
        learnt = learn(
            parameters, lambda rows: self._loss(rows, task, readout),
            training=self.parts["train"], validation=self.parts["validation"], schedule=self.schedule,
            checkpoint=checkpoint, identity=identity, tuned=list(tuned),
            label=f"brain-training of {self.network.label}",
        )  # fmt: skip
        features, top, output = self.whole()
        after = self._scores(features, top, output, task)
        table = before.rename(columns={"value": "before"}).assign(after=after["value"])
        return table, learnt, written(self.trained, heads.written(self.head_layer, "mean") if heads else ())

    def _heads(self, targets: Sequence[Any], top: Tensor) -> Heads:
        """Heads that were learnt on the network as it was."""
        training = self.parts["train"]
        heads = Heads(targets, top[training], training, frozen=True, seed=self.schedule.seed).to(self.device)

        def loss(rows: np.ndarray) -> dict[str, Tensor]:
            return {TOTAL: torch.stack(list(heads.losses(top[rows], rows).values())).sum()}

        learn(dict(heads.named_parameters()), loss, training=training, validation=self.parts["validation"],
              schedule=replace(self.schedule, learning_rate=1e-2))  # fmt: skip
        return heads

    def _loss(self, rows: np.ndarray, task: Task, readout: nn.Module | None) -> dict[str, Tensor]:
        features, top, output = self.seen(rows)
        if readout is not None:
            brain = (readout(features) - self.scaled[rows]).square().mean()
        else:
            brain = rdm_loss(features, self.raw[rows])
        kept = task.loss(top, output, rows)
        counted = [weight * term for weight, term in ((self.weights.brain, brain), (self.weights.task, kept)) if weight]
        return {TOTAL: torch.stack(counted).sum(), "brain": brain, "task": kept}

    def _scores(self, features: Tensor, top: Tensor, output: Tensor, task: Task) -> pd.DataFrame:
        """Fit to the region and the task's score, by part."""
        table = features.detach().cpu().double().numpy()
        rows: list[dict[str, Any]] = []
        predicted = predicted_by(table, self.responses, self.parts["train"])
        for part in PARTS:
            some = self.parts[part]
            n = len(some)
            rdm = pearson(distances(table[some]), distances(self.responses[some])) if n > 2 else np.nan
            rows.append({"part": part, "measure": "rdm_pearsonr", "value": rdm, "n_stimuli": n})
            r = mean_r(predicted[some], self.responses[some]) if n > 2 else np.nan
            rows.append({"part": part, "measure": "readout_pearsonr", "value": r, "n_stimuli": n})
            rows += [{"part": part, **row, "n_stimuli": n} for row in task.scored(top, output, some)]
        return pd.DataFrame(rows)


def _named(prefix: str, module: nn.Module | None) -> dict[str, nn.Parameter]:
    return {} if module is None else {f"{prefix}.{name}": one for name, one in module.named_parameters()}


def _sidecar(
    region: str, fit: Fit, schedule: Schedule, parts: Mapping[str, np.ndarray], targets: bool,
    fine_tune: Sequence[str], weights: Weights, learnt: Mapping[str, Learnt],
) -> dict[str, Any]:  # fmt: skip
    how = (
        "1 - r of the correlation distances between a batch's stimuli (representational distance learning, McClure & "
        "Kriegeskorte 2016)" if fit == "rdm" else "the squared error of a linear read-out of its z-scored responses"
    )  # fmt: skip
    what = (
        "the cross-entropy or squared error of linear heads that were learnt on the network as it was" if targets
        else "the squared difference from the network's own output as it was, over that output's variance over stimuli "
        "(self-distillation, Hinton et al. 2015)"
    )  # fmt: skip
    return {
        "Methods": f"The weights of {', '.join(fine_tune)} were fine-tuned by Adam (Kingma & Ba 2015; learning rate "
        f"{schedule.learning_rate:g}, a tenth of it where the validation loss had not fallen in {schedule.patience} "
        f"epochs, up to {DROPS} times; batches of {schedule.batch_size}) towards region {region}, with the loss "
        f"{weights.brain:g} times {how} plus {weights.task:g} times {what}. Stimuli were split into "
        f"{', '.join(f'{len(parts[part])} for {part}' for part in PARTS)}; the weights of the epoch with the smallest "
        "validation loss were kept, and fit and task compared before and after on stimuli that were held out.",
        "Analysis": "brain-training",
        "References": ["rdl", "adam", *([] if targets else ["distillation"])],
        "Region": region,
        "Fit": fit,
        "FineTuned": list(fine_tune),
        "Schedule": vars(schedule),
        "Weights": vars(weights),
        "EpochKept": {label: one.epoch for label, one in learnt.items()},
        "Stopped": {label: one.stopped for label, one in learnt.items()},
        "Columns": {
            "part": "train: learnt from; validation: by which training was stopped; test: neither",
            "measure": "rdm_pearsonr: r of the layer's and the region's correlation distances; readout_pearsonr: mean "
            "over voxels of the r of a ridge regression fitted to the training part; output_r2, output_agreement: of "
            "the network's output with what it was; others: of a target's head",
            "before": "of the network as it was",
            "after": "of the fine-tuned network",
        },
    }
