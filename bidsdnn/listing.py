"""What ``--list`` prints: the rows of the tables, each with its first sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bidsdnn.analyses import ANALYSES
from bidsdnn.config_tables import NetworkSpec
from bidsdnn.lookup import summary
from bidsdnn.methods import models, similarity
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.networks.controls import FEATURES
from bidsdnn.networks.formats import saved_model
from bidsdnn.networks.zoo import FILES, LIBRARIES, NETWORKS, build, holds_weights, published
from bidsdnn.precomputed import NAME as PRECOMPUTED
from bidsdnn.precomputed import precomputed_responses
from bidsdnn.probes import PROBES
from bidsdnn.responses import ESTIMATORS


def listing(what: str, networks: Sequence[str]) -> list[str]:
    """Lines of one list.

    Parameters
    ----------
    what : str
        As ``networks`` or ``analyses``.
    networks : sequence of str
        Whose layers are listed.

    Returns
    -------
    list of str
    """
    if what == "networks":
        others = {f"{prefix}:NAME": maker for prefix, maker in LIBRARIES.items()}
        others |= {f"FILE{suffix}": maker for suffix, maker in FILES.items() if maker is not saved_model}
        return [_network(name) for name in sorted(NETWORKS)] + [f"{k}\t{summary(v)}" for k, v in others.items()]
    if what == "layers":
        return [line for text in networks for line in _layers(text)]
    tables: dict[str, Any] = {
        "features": FEATURES,
        "analyses": {**ANALYSES, **PROBES},
        "responses": {**ESTIMATORS, PRECOMPUTED: precomputed_responses},
        "dissimilarities": DISSIMILARITIES,
        "similarities": similarity.SIMILARITIES,
        "models": models.MODELS,
    }
    return [f"{name}\t{summary(function)}" for name, function in tables[what].items()]


def _network(name: str) -> str:
    """A network's name, and the weights that can be had by name, the default first."""
    return "\t".join([name, ", ".join([*published(name), "none"])])


def _layers(text: str) -> list[str]:
    """Name, type, output shape and short name of each layer of a network; canonical ones carry a star."""
    # Names and shapes do not depend on the weights, so none need be there.
    spec = NetworkSpec.parse(text, weights="none")
    network = build(spec.name, weights="DEFAULT" if holds_weights(spec.name) else "none", seed=0, alias=spec.alias)
    canonical = set(network.canonical())
    lines = [f"# {network.name}: * is used without --layer"]
    called = {layer: short for short, layer in network.short.items()}
    for name, (kind, shape) in network.shapes().items():
        size = " x ".join(str(number) for number in shape)
        short = f"\t{called[name]}" if name in called else ""
        lines.append(f"{'*' if name in canonical else ' '} {name}\t{kind}\t{size}{short}")
    return lines
