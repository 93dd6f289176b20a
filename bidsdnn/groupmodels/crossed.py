"""Each participant predicted from the others: which analyses have that form, and where their results go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bidsdnn.analysed import activations_of
from bidsdnn.analyses import NEEDS_NETWORK
from bidsdnn.bids.files import digest
from bidsdnn.decoding.models import DEFAULTS
from bidsdnn.encoding.models import source_of
from bidsdnn.errors import BidsdnnError
from bidsdnn.groupmodels.crossed_decoding import crossed_decoding
from bidsdnn.groupmodels.crossed_encoding import encoding_result
from bidsdnn.groupmodels.crossed_rsa import crossed_rsa
from bidsdnn.groupmodels.people import Shared
from bidsdnn.groupmodels.products import SUFFIX, GroupDerivatives, about, renamed
from bidsdnn.journal import software
from bidsdnn.methods.ceiling import LOWEST_CEILING
from bidsdnn.parallel import seed_for
from bidsdnn.patterns import Patterns
from bidsdnn.result import Result
from bidsdnn.study import Study

logger = logging.getLogger(__name__)

MODEL = "cross-participant"
SAID = (
    "Each participant was predicted by what was fitted to the others, at stimuli that were held out; p relabels the "
    "stimuli of all participants alike."
)
CEILING = (
    "mean over participants of the square root of the reliability of the averaged responses of the one left out; "
    f"pearsonr_normalized where that is at least {LOWEST_CEILING}"
)

Crossed = Callable[[Study, Shared, "Patterns | None", Mapping[str, Any], int], Result]
CROSSED: dict[str, Crossed] = {"encoding": encoding_result, "decoding": crossed_decoding, "rsa": crossed_rsa}
"""Analyses that have a form in which one participant is predicted from others."""


def crossed(
    study: Study, model: str, shared: Shared, x: Patterns | None, made: str, more: Mapping[str, Any],
    omitted: list[str],
) -> int:  # fmt: skip
    """Predict each participant from the others, analysis by analysis, and write the results.

    Parameters
    ----------
    study, model, shared, x, made, more, omitted
        As of `one_brain.one_brain`.

    Returns
    -------
    int
        Analyses that have a result.
    """
    config, seed = study.config, seed_for(study.config.random_seed, "group", model)
    out, found = GroupDerivatives(study.derivatives.root, study.derivatives.links), 0
    for name in config.analysis:
        if name not in CROSSED:
            omitted.append(
                f"{name} has no {model} model of the group: nothing in it is fitted to one to predict another."
            )
            continue
        if name in NEEDS_NETWORK and x is None:
            omitted.append(f"{name} has no {model} model of the group: there are no activations to the shared stimuli.")
            continue
        content = _content(study, name, shared, made, more, seed)
        if out.current(f"{name}{SUFFIX[model]}", content, **shared.entities):
            logger.info("group, %s: %s is up to date", model, name)
            found += 1
            continue
        try:
            result = CROSSED[name](study, shared, x, more, seed)
        except (BidsdnnError, ValueError) as error:
            omitted.append(f"{name} has no {model} model of the group: {error}")
            continue
        out.save(_finished(study, result, shared, x, omitted), shared.space, content, **shared.entities)
        found += 1
    return found


def _content(study: Study, name: str, shared: Shared, made: str, more: Mapping[str, Any], seed: int) -> str:
    config = study.config
    models = {
        "encoding": [config.region_encoder or config.encoder],
        "decoding": [config.decoder] if config.decoder else list(DEFAULTS.values()),
    }
    own: dict[str, Any] = {
        "encoding": {"cv": config.cv, "parts": None if more["parts"] is None else more["parts"].to_csv()},
        "rsa": {"metric": config.rdm_metric, "comparisons": config.rdm_comparison},
    }
    own["decoding"] = {
        **own["encoding"], "targets": {key: table.to_csv() for key, table in more["targets"].items()},
        "decoder": config.decoder,
    }  # fmt: skip
    return digest({
        "tables": [shared.content, made], "analysis": [MODEL, name], "seed": seed, "permutations": config.permutations,
        **own[name], "models": models.get(name, []), "sources": [source_of(one) for one in models.get(name, [])],
        "parameters": {key: config.parameters.get(key) for key in (name, *models.get(name, []))},
    })  # fmt: skip


def _finished(study: Study, result: Result, shared: Shared, x: Patterns | None, omitted: list[str]) -> Result:
    keys = about(shared, MODEL, SAID, CEILING if result.analysis == "encoding" else "", omitted)
    networks = dict.fromkeys(group.network for group in (x.groups if x else ()))
    made = activations_of(study.derivatives, networks, pca=study.config.pca)
    sidecar = {**result.sidecar, **keys, **made, "Software": software(), "Sources": shared.sources}
    return renamed(replace(result, sidecar=sidecar), MODEL, maps=shared.space is not None)
