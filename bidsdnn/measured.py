"""One participant's responses to the stimuli, estimated from recordings or read from another program's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bidsdnn.bids.meshes import find_meshes
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.parallel import serial
from bidsdnn.patterns import Patterns
from bidsdnn.precomputed import Precomputed, precomputed_responses
from bidsdnn.responses import responses, shared_entities
from bidsdnn.single_trials import Task
from bidsdnn.spaces import shared_space
from bidsdnn.study import Participant, Study, about, estimation_of


@dataclass(frozen=True, eq=False)
class Measured:
    """What the rest of the analysis needs to know of one participant's brain.

    Parameters
    ----------
    brain : Patterns
        One item a stimulus.
    reliability : ndarray, shape (size,)
    content : str
        Hash of everything the responses depend on.
    entities : dict of str to str
        Of the participant's products.
    warnings : list of str
    tasks : tuple of Task
        The recordings' work; none where another program estimated the responses.
    """

    brain: Patterns
    reliability: np.ndarray
    content: str
    entities: dict[str, str]
    warnings: list[str]
    tasks: tuple[Task, ...] = ()


def measured(study: Study, one: Participant, left_out: Sequence[str]) -> Measured:
    """Estimate or read one participant's responses.

    Parameters
    ----------
    study : Study
    one : Participant
    left_out : sequence of str
        Sentences for the report.

    Returns
    -------
    Measured

    Raises
    ------
    DataError
        If recordings or files do not fit together, or no response varies.
    """
    if one.precomputed is None:
        return _estimated(study, one, left_out)
    return _read(study, one, one.precomputed, left_out)


def _read(study: Study, one: Participant, precomputed: Precomputed, left_out: Sequence[str]) -> Measured:
    meshes = find_meshes(study.dataset, one.label, precomputed.found.parts[0].path, asked=study.config.mesh)
    sidecar = about(study, one, left_out, meshes)
    return Measured(*precomputed_responses(precomputed, one.label, study.derivatives, sidecar=sidecar, meshes=meshes))


def _estimated(study: Study, one: Participant, left_out: Sequence[str]) -> Measured:
    config = study.config
    runs = [run for run in one.runs if run.events is not None and one.shown.events[run.events]["trial"].any()]
    meshes = find_meshes(study.dataset, one.label, runs[0].bold, asked=config.mesh)
    masks = [meshes.cortex[0]] if meshes.cortex else [run.mask for run in runs if run.mask]
    space, warnings = shared_space([run.bold for run in runs], masks, meshes=meshes.folded)
    entities = shared_entities(runs)
    estimation, device = estimation_of(config), str(torch_device(config.device))
    tasks = tuple(
        Task(run, one.shown.events[run.events], space, estimation, study.derivatives, entities, device)
        for run in runs if run.events is not None
    )  # fmt: skip
    brain, reliable, content = responses(
        tasks, sidecar=about(study, one, left_out, meshes), work_dir=config.work_dir,
        map=study.map if device == "cpu" else serial,
    )  # fmt: skip
    warnings += [f"{run.name}: no confounds file; motion was not modelled" for run in runs if run.confounds is None]
    warnings += [text for run in runs for text in run.warnings]
    return Measured(brain, reliable, content, entities, warnings, tasks)
