"""Units are cut out one by one: what becomes of the layers behind them, and of the network's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bidsdnn.methods.rdm import correlation
from bidsdnn.networks.network import Network
from bidsdnn.networks.recorder import Recorder, first_tensor
from bidsdnn.networks.surgery import WORDS, To, ablate, spaced
from bidsdnn.networks.surgery import Unit as Place
from bidsdnn.probes.stream import BATCH, stream
from bidsdnn.probes.units import BRAIN, Unit
from bidsdnn.result import Result
from bidsdnn.stimuli import Stimuli

OUTPUT = "output"
"""What stands for a layer where the network's output is meant."""
TOGETHER = "all together"
MOST_BYTES = 1_000_000_000
"""Of the patterns that RDMs are made of, before and after a cut."""
MOST_FOR_RDM = 200

Cut = dict[str, list[Place] | None]


@dataclass(eq=False)
class Change:
    """Sums over stimuli of what becomes of a layer, from which its numbers follow."""

    n: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    before: float = 0.0
    size: int = 0
    others: int = 0
    rs: list[float] = field(default_factory=list)
    alone: list[Tensor] = field(default_factory=list)

    def add(self, before: Tensor, after: Tensor) -> None:
        """Take in a batch, shape (n, ...) each."""
        a, b = before.flatten(1).double(), after.flatten(1).double()
        self.n += len(a)
        self.size += a.numel()
        self.absolute += float((b - a).abs().sum())
        self.squared += float(((b - a) ** 2).sum())
        self.before += float((a**2).sum())
        self.others += int((a.argmax(1) != b.argmax(1)).sum())
        if a.shape[1] == 1:
            self.alone.append(torch.cat([a, b], dim=1))
        else:
            self.rs += _rs(a, b).tolist()

    def row(self) -> dict[str, float]:
        """The numbers, as columns of the table."""
        rs = self.rs + (_rs(*torch.cat(self.alone).T[:, None]).tolist() if self.alone else [])
        return {
            "mean_absolute_change": self.absolute / self.size,
            "relative_change": float(np.sqrt(self.squared / self.before)) if self.before else np.nan,
            "pearsonr": float(np.mean([r for r in rs if np.isfinite(r)] or [np.nan])),
            "other_maximum": self.others / self.n,
        }


def _rs(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of the rows of two tables; NaN where a row is constant."""
    one, other = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (one * other).sum(1) / (one.square().sum(1) * other.square().sum(1)).sqrt()


def ablation(
    network: Network,
    stimuli: Stimuli,
    *,
    layers: Sequence[str] = (),
    units: Sequence[Unit] = (),
    device: str = "cpu",
    seed: int = 0,
    workers: int = 1,
    to: To = "zero",
    batch_size: int = BATCH,
) -> Result:
    """Units were ablated, each alone and all together, and layers and output compared with the intact network's.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
        With hashes.
    layers : sequence of str
        That are compared; and that are cut, each as a whole, where no unit is named. Of a network that a brain's
        encoder was appended to, the brain is compared and never cut.
    units : sequence of Unit
        That are cut. Those of a brain are compared.
    device : str
    seed : int
        Of shuffling.
    workers : int
        Threads that read stimuli.
    to : {'zero', 'mean', 'shuffled'}
        As of `bidsdnn.networks.surgery.ablate`.
    batch_size : int

    Returns
    -------
    Result
        A row a cut and layer: the mean absolute change of its units; their change relative to what they gave, as the
        ratio of root mean squares; Pearson's r of its pattern before and after, mean over stimuli (of a single unit,
        as a brain's, over stimuli); that of its RDMs (correlation distance); and the share of stimuli for which another
        unit has the maximum: of a classifier's output, those that are classified otherwise.
    """
    cuts = _cuts(layers, [unit for unit in units if not _is_brain(unit)])
    watched = [layer for layer in dict.fromkeys([*layers, *(unit.layer for unit in units)]) if layer != BRAIN]
    watched = network.in_order([*watched, *([BRAIN] if BRAIN in network.layers else [])])
    made = {
        name: ablate(network, cut, to=to, stimuli=stimuli, seed=seed, batch_size=batch_size, device=device)
        for name, cut in cuts.items()
    }
    changes = {name: {layer: Change() for layer in (*watched, *_read_units(units), OUTPUT)} for name in cuts}
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "workers": workers}
    for batch in stream(network, stimuli, label=f"ablation of {network.label}", **options):
        before = _outputs(network, watched, units, batch.values)
        for name, cut in made.items():
            for layer, after in _outputs(cut, watched, units, batch.values).items():
                changes[name][layer].add(before[layer], after)
    few = spaced(stimuli, _fitting(network, watched, len(stimuli)))
    intact = _rdms(network, watched, few, options)
    rows = []
    for name, cut in made.items():
        rdms = _rdms(cut, watched, few, options)
        for layer, change in changes[name].items():
            r = _rdm_r(intact[layer], rdms[layer]) if layer in intact else np.nan
            rows.append({"cut": name, "layer": layer, **change.row(), "rdm_pearsonr": r})
    table = pd.DataFrame(rows)
    return Result("ablation", tables={"ablation": table}, sidecar=_sidecar(network, cuts, to, len(stimuli), len(few)))


def _is_brain(unit: Unit) -> bool:
    return unit.layer == BRAIN


def _read_units(units: Sequence[Unit]) -> list[str]:
    return [str(unit) for unit in units if _is_brain(unit)]


def _cuts(layers: Sequence[str], units: Sequence[Unit]) -> dict[str, Cut]:
    """What is cut, by name: each unit alone and all together, or each layer."""
    if not units:
        return {layer: {layer: None} for layer in layers if layer != BRAIN}
    cuts: dict[str, Cut] = {str(unit): {unit.layer: [(unit.channel, *unit.position)]} for unit in units}
    if len(units) > 1:
        whole: Cut = {}
        for unit in units:
            whole[unit.layer] = [*(whole.get(unit.layer) or []), (unit.channel, *unit.position)]
        cuts[TOGETHER] = whole
    return cuts


def _outputs(network: Network, layers: Sequence[str], units: Sequence[Unit], batch: Tensor) -> dict[str, Tensor]:
    """What layers, units of a brain and the network as a whole give."""
    with _output(network.module) as whole, Recorder(network.module, layers) as record, torch.no_grad():
        seen = record(batch)
    for unit in units:
        if _is_brain(unit):
            seen[str(unit)] = seen[BRAIN][:, unit.channel, None]
    return {**seen, OUTPUT: whole[0]}


@contextmanager
def _output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what a module as a whole gives."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        tensor = first_tensor(output)
        kept[:] = [] if tensor is None else [tensor.detach().float().cpu().clone()]

    handle = module.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _fitting(network: Network, layers: Sequence[str], n: int) -> int:
    """How many stimuli's patterns fit into memory."""
    one = 8 * sum(prod(shape) for _, shape in network.shapes(layers).values())
    return min(n, MOST_FOR_RDM, max(8, MOST_BYTES // max(one, 1)))


def _rdms(network: Network, layers: Sequence[str], stimuli: Stimuli, options: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[str, list[Tensor]] = {}
    for batch in stream(network, stimuli, **options):
        for layer, values in _outputs(network, layers, (), batch.values).items():
            parts.setdefault(layer, []).append(values.flatten(1))
    return {layer: _rdm(torch.cat(some).double().numpy()) for layer, some in parts.items()}


def _rdm(table: np.ndarray) -> np.ndarray:
    """Correlation distances; NaN for patterns that are constant."""
    constant = np.ptp(table, axis=1) == 0
    n = len(table)
    distances = np.full(n * (n - 1) // 2, np.nan)
    if table.shape[1] > 1 and (~constant).sum() > 1:
        rows, columns = np.triu_indices(n, 1)
        distances[~constant[rows] & ~constant[columns]] = correlation(table[~constant])
    return distances


def _rdm_r(one: np.ndarray, other: np.ndarray) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 3 or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return float("nan")
    return float(np.corrcoef(one[known], other[known])[0, 1])


def _sidecar(network: Network, cuts: Mapping[str, Cut], to: To, n: int, n_rdm: int) -> dict[str, Any]:
    return {
        "Methods": f"Units of {network.label} were ablated, each alone{' and all together' * (len(cuts) > 1)}: their "
        f"output, bias included, was {WORDS[to]}, and what later layers gave for {n} stimuli compared with the intact "
        f"network (Morcos et al. 2018); RDMs over {n_rdm} of the stimuli.",
        "References": ["ablation"],
        "Ablated": list(cuts),
        "AblatedTo": to,
        "NumberOfStimuli": n,
        "NumberOfStimuliRDM": n_rdm,
        "Columns": {
            "cut": "what gives nothing of its own",
            "layer": "what is compared; output: of the whole network",
            "mean_absolute_change": "mean over stimuli and units of the absolute difference",
            "relative_change": "root of the summed squared differences over that of the summed squares before",
            "pearsonr": "r of the pattern over units before and after, mean over stimuli; of a single unit, as a "
            "brain's, over stimuli; n/a where it is constant",
            "other_maximum": "share of stimuli for which another unit has the maximum; of a classifier's output: "
            "classified otherwise",
            "rdm_pearsonr": "r of the correlation-distance RDMs before and after",
        },
    }
