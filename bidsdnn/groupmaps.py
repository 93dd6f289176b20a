"""Maps over participants: where in a shared space scores are above zero, and where covariates and groups matter.

The one idea: one table of participants x (layers and voxels) in single precision is all that grows; every test of it
goes through blocks that fit into the processor's cache.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.bids.people import People
from bidsdnn.errors import DataError
from bidsdnn.groupeffects import effects_of
from bidsdnn.grouptables import absent, by_context, content_of, enough, fisher_z, sidecar_of
from bidsdnn.lookup import summary
from bidsdnn.methods.freedman_lane import freedman_lane, smallest_p
from bidsdnn.methods.inference import fdr, sign_flips, signs
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.rsa_inference import FROM_ZERO
from bidsdnn.methods.tfce import EXTENT, HEIGHT, STEP, familywise, peaks, tfce
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.spaces import Cifti, Space, Surface, fsaverage5, intersection, read_meshes
from bidsdnn.spaces.shared import FSAVERAGE5

logger = logging.getLogger(__name__)

MAPS = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr"}
"""The map of each analysis that is tested over participants."""
# Endings of maps, and of the masks beside them.
MASKS = {
    ".nii.gz": ".nii.gz", ".func.gii": ".label.gii", ".dscalar.nii": ".dlabel.nii", ".pscalar.nii": ".plabel.nii",
}  # fmt: skip
# Spaces of one participant only: they enter by region tables, not by maps.
INDIVIDUAL_SPACES = {"T1w", "fsnative", "boldref", "", None}
FAMILY = "over all points of all layers of this network's map, by the largest t of each flip (pfwe); false discovery "
FAMILY += "rate over the points of a layer (q)"
_FLIPS = 64
"""Flips that one job enhances: the same whatever the number of jobs."""


@dataclass(frozen=True)
class Tests:
    """How maps are tested."""

    permutations: int
    seed: int
    map: ParallelMap
    tfce: bool = False
    people: People | None = None
    announce: Callable[[str], None] = logger.debug


@dataclass(frozen=True)
class _Maps:
    """Participants' scores of one map, and where they lie."""

    context: dict[str, str]
    paths: dict[str, Path]
    space: Space
    scores: np.ndarray
    sidecar: dict[str, Any]


def group_maps(derivatives: Derivatives, labels: Sequence[str], omitted: list[str], tests: Tests) -> None:
    """Participants' maps were tested point by point, Fisher-transformed, by flipping the signs of whole participants.

    Parameters
    ----------
    derivatives : Derivatives
    labels : sequence of str
        Participants with results.
    omitted : list of str
        Sentences on what was left out are added here.
    tests : Tests
    """
    for analysis, stat in MAPS.items():
        for extension in MASKS:
            for context, paths in by_context(derivatives, labels, "statmap", extension, analysis, stat=stat).items():
                # The left file stands for both hemispheres.
                if ("hemi", "R") not in context:
                    _of_context(derivatives, dict(context), paths, labels, omitted, tests)


def _of_context(
    derivatives: Derivatives, context: dict[str, str], paths: dict[str, Path], labels: Sequence[str],
    omitted: list[str], tests: Tests,
) -> None:  # fmt: skip
    """Test the maps of one analysis, space and network, unless that was done."""
    space = context.get("space")
    if space in INDIVIDUAL_SPACES:
        omitted.append(f"Maps in {space or 'native'} space differ between participants; the group has tables only.")
        return
    what = f"{context['desc']} map in {space}"
    own = absent(derivatives, labels, paths, f"{what} of {context.get('model', 'the network')}")
    paths = _alike(paths, own)
    omitted += own
    if not enough(context, paths, omitted, "The map"):
        return
    first = read_json(sidecar_path(next(iter(paths.values()))))
    if first.get("Comparison") in FROM_ZERO:
        omitted.append(
            f"The {context['desc']} maps hold {first['Comparison']}, whose chance level is not 0: no group map."
        )
        return
    content = content_of(paths, permutations=tests.permutations, seed=tests.seed, tests=3, omitted=own,
                         people=tests.people.content if tests.people else None)  # fmt: skip
    outputs = _outputs(derivatives, context, paths, tests)
    if all(read_json(sidecar_path(path)).get("ConfigurationHash") == content and path.exists() for path in outputs):
        return
    try:
        maps = _read(derivatives, context, paths)
    except DataError as error:
        omitted.append(f"There is no group map in {space}: {error}.")
        return
    sidecar = sidecar_of(derivatives, paths, permutations=tests.permutations, content=content,
                         methods=summary(group_maps), omitted=own)  # fmt: skip
    maps = replace(maps, sidecar={**sidecar, "VolumeAxis": "layer", "Correction": FAMILY, **maps.sidecar})
    _mean_maps(derivatives, maps, tests, omitted)
    _effect_maps(derivatives, maps, tests, omitted)


def _alike(paths: Mapping[str, Path], own: list[str]) -> dict[str, Path]:
    """Maps that have the layers of the first one; a sentence on each other."""
    layers = {label: read_json(sidecar_path(path)).get("Layers") for label, path in paths.items()}
    first = next(iter(layers))
    other = [label for label in layers if layers[label] != layers[first]]
    own += [
        f"sub-{label}: {paths[label].name} has other layers than that of sub-{first} and was left out."
        for label in other
    ]
    return {label: path for label, path in paths.items() if label not in other}


def _output(
    derivatives: Derivatives, context: Mapping[str, str], extension: str, stat: str, contrast: str = ""
) -> Path:
    stem = {key: value for key, value in context.items() if key != "space"}
    return derivatives.path(
        "statmap", extension, tpl=context["space"], **{**stem, "contrast": contrast or None, "stat": stat}
    )


def _outputs(
    derivatives: Derivatives, context: Mapping[str, str], paths: Mapping[str, Path], tests: Tests
) -> list[Path]:
    extension = names.parse(next(iter(paths.values())))["extension"]
    # What could not be enhanced is not tried again.
    mean = read_json(sidecar_path(_output(derivatives, context, extension, "mean")))
    enhanced = tests.tfce and "NotEnhanced" not in mean
    stats = ["mean", "sem", "t", "p", "pfwe", "q", *(("tfce", "ptfce") if enhanced else ())]
    found = [_output(derivatives, context, extension, stat) for stat in stats]
    for effect in effects_of(tests.people, list(paths), []):
        found += [
            _output(derivatives, context, extension, stat, effect.contrast)
            for stat in ("effect", "t", "p", "pfwe", "q")
        ]
    return found


def _read(derivatives: Derivatives, context: dict[str, str], paths: dict[str, Path]) -> _Maps:
    """Read the maps one by one into one table of float32, at the points that all participants have."""
    extension = names.parse(next(iter(paths.values())))["extension"]
    masks = []
    for path in paths.values():
        kept = {
            key: value
            for key, value in names.entities_of(path).items()
            if key in ("sub", "task", "hemi", "space", "res", "den")
        }
        masks.append(derivatives.path("mask", MASKS[extension], **kept, desc="brain"))
    space = intersection(masks)
    scores: np.ndarray | None = None
    for place, path in enumerate(paths.values()):
        one = space.read(path)
        scores = np.empty((len(paths), *one.shape), dtype=np.float32) if scores is None else scores
        scores[place] = one
    assert scores is not None
    for layer in range(scores.shape[1]):
        scores[:, layer, ~np.isfinite(scores[:, layer]).all(axis=0)] = np.nan
    kept.pop("hemi", None)
    first = read_json(sidecar_path(next(iter(paths.values()))))
    quality = read_json(derivatives.path("results", ".json", **kept, desc="quality"))
    keys: dict[str, Any] = {key: first[key] for key in ("Metric", "Comparison", "NeighborhoodExtent") if key in first}
    keys |= {key: quality[key] for key in ("Mesh", "InflatedMesh") if key in quality}
    keys["Points"] = "those inside the masks of all participants"
    return _Maps(context, paths, space, scores, keys)


def _mean_maps(derivatives: Derivatives, maps: _Maps, tests: Tests, omitted: list[str]) -> None:
    """Write mean, sem, t, p, family-wise p and false discovery rate; scores are Fisher-transformed in place."""
    n, layers, size = maps.scores.shape
    flat = maps.scores.reshape(n, layers * size)
    found = {key: np.empty(layers * size, dtype=np.float32) for key in ("mean", "sem")}
    for some in blocks(layers * size, 2**16):
        part = flat[:, some].astype(np.float64)
        found["mean"][some], found["sem"][some] = part.mean(axis=0), part.std(axis=0, ddof=1) / np.sqrt(n)
        flat[:, some] = fisher_z(part)
    flips = sign_flips(flat, permutations=tests.permutations, seed=tests.seed)
    found |= {"t": flips.t, "p": flips.p, "pfwe": flips.p_fwe}
    found["q"] = np.concatenate([fdr(one) for one in flips.p.reshape(layers, size)])
    sidecar = dict(maps.sidecar)
    left_out: list[str] = []
    edges = _edges(derivatives, maps, left_out) if tests.tfce else None
    omitted += left_out
    if left_out:
        sidecar["NotEnhanced"] = left_out[0]
    if edges is not None:
        found["tfce"], found["ptfce"] = _enhanced(maps, edges, flips.t.reshape(layers, size), tests)
        sidecar |= {
            "ClusterEnhancement": {"Extent": EXTENT, "Height": HEIGHT, "Step": STEP, "Neighbors": "voxels that share a "
                                   "face, vertices that share an edge", "Correction": "family-wise over all points of "
                                   "all layers by the largest enhancement of each flip"},
            "References": [*sidecar["References"], "tfce"],
            "Methods": f"{sidecar['Methods']} {summary(tfce)}",
        }  # fmt: skip
    _write(derivatives, maps, found, sidecar)


def _enhanced(maps: _Maps, edges: np.ndarray, t: np.ndarray, tests: Tests) -> tuple[np.ndarray, np.ndarray]:
    """Enhanced t maps, and their family-wise p; how long that takes is said first."""
    n, layers, _ = maps.scores.shape
    flips, sampled = signs(n, tests.permutations, tests.seed)
    started = time.process_time()
    enhanced = np.array([np.where(np.isnan(row), np.nan, tfce(row, edges)) for row in t])
    seconds = (time.process_time() - started) * len(flips)
    took = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    sentence = (
        f"cluster enhancement of the {maps.context['desc']} map of {maps.context.get('model', 'the network')}: "
        f"{layers} layers x {len(flips)} flips take about {took} of processor time"
    )
    logger.info("%s", sentence)
    tests.announce(sentence)
    tasks = [(layer, flips[some]) for layer in range(layers) for some in blocks(len(flips), _FLIPS)]
    found = tests.map(partial(_peaks, maps.scores, edges), tasks, label="TFCE")
    largest = np.reshape(
        [np.concatenate([one for (layer, _), one in zip(tasks, found, strict=True) if layer == each])
         for each in range(layers)], (layers, len(flips)),
    ).max(axis=0)  # fmt: skip
    return enhanced, familywise(enhanced, largest, sampled=sampled)


def _peaks(scores: np.ndarray, edges: np.ndarray, task: tuple[int, np.ndarray]) -> np.ndarray:
    layer, flips = task
    return peaks(scores[:, layer], edges, flips)


def _edges(derivatives: Derivatives, maps: _Maps, omitted: list[str]) -> np.ndarray | None:
    """Which points touch, None where that is not known.

    On surfaces along the meshes that the responses were found on, or those of fsaverage5.
    """
    space, meshes = maps.space, maps.sidecar.get("Mesh")
    if isinstance(space, Surface | Cifti) and space.meshes is None:
        if meshes:
            left, right = (derivatives.resolve(uri) for uri in meshes)
            space = replace(space, meshes=read_meshes((left, right)))
        elif isinstance(space, Surface) and space.nested and space.inside[0].size == FSAVERAGE5:
            space = replace(space, meshes=fsaverage5())
    try:
        return space.edges()
    except DataError as error:
        omitted.append(f"The {maps.context['desc']} map was not enhanced: {error}.")
        return None


def _effect_maps(derivatives: Derivatives, maps: _Maps, tests: Tests, omitted: list[str]) -> None:
    """Write estimate, t, p, family-wise p and false discovery rate of each covariate and of two groups."""
    labels = list(maps.paths)
    for effect in effects_of(tests.people, labels, omitted):
        rows = [labels.index(label) for label in effect.labels]
        scores = maps.scores[rows].reshape(len(rows), -1)
        found = freedman_lane(scores, effect.tested, effect.nuisance, permutations=tests.permutations, seed=tests.seed)
        q = np.concatenate([fdr(one) for one in found.p.reshape(maps.scores.shape[1:])])
        sidecar = {
            **maps.sidecar, **effect.sidecar(tests.permutations),
            "SmallestAttainableP": smallest_p(effect.tested, tests.permutations),
        }  # fmt: skip
        stats = {"effect": found.estimate, "t": found.t, "p": found.p, "pfwe": found.p_fwe, "q": q}
        _write(derivatives, maps, stats, sidecar, effect.contrast)


def _write(
    derivatives: Derivatives, maps: _Maps, found: Mapping[str, np.ndarray], sidecar: Mapping[str, Any],
    contrast: str = "",
) -> None:  # fmt: skip
    extension = names.parse(next(iter(maps.paths.values())))["extension"]
    for stat, values in found.items():
        path = _output(derivatives, maps.context, extension, stat, contrast)
        derivatives.write_map(path, np.reshape(values, maps.scores.shape[1:]), maps.space, sidecar)
