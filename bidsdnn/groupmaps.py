"""Maps over participants: where in a shared space scores are above zero, and where covariates and groups matter.

The one idea: one table of participants x (layers and voxels) in single precision is all that grows; every test of it
goes through blocks that fit into the processor's cache.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, sidecar_path
from bidsdnn.bids.people import People
from bidsdnn.errors import BidsdnnError, DataError
from bidsdnn.groupeffects import Effect, effects_of
from bidsdnn.grouptables import FEWEST, absent, by_context, content_of, enough, fisher_z, sidecar_of
from bidsdnn.lookup import summary
from bidsdnn.methods.freedman_lane import freedman_lane, orders_of
from bidsdnn.methods.inference import fdr, sign_flips, signs
from bidsdnn.methods.reduce import blocks
from bidsdnn.methods.rsa_inference import FROM_ZERO
from bidsdnn.methods.tfce import EXTENT, HEIGHT, STEP, familywise, peaks, peaks_of_effect, tfce, two_sided
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
FAMILY_OF_EFFECT = FAMILY.replace("largest t of each flip", "largest absolute t of each order")
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
    if not enough(context, paths, own, "The map"):
        omitted += own
        return
    first = read_json(sidecar_path(next(iter(paths.values()))))
    if first.get("Comparison") in FROM_ZERO:
        omitted += [
            *own, f"The {context['desc']} maps hold {first['Comparison']}, whose chance level is not 0: no group map."
        ]  # fmt: skip
        return
    try:
        paths, shared = _on_one_grid(derivatives, paths, own)
    except BidsdnnError as error:
        omitted += [*own, f"There is no group map in {space}: {error}."]
        return
    omitted += own
    content = content_of(paths, permutations=tests.permutations, seed=tests.seed, tests=4, omitted=own)
    of_effects = digest({"means": content, "people": tests.people.content}) if tests.people else ""
    means, effects = _outputs(derivatives, context, paths, tests)
    known, tested = _are_of(content, means), _are_of(of_effects, effects)
    if known and tested:
        return
    if not _are_of(content, means[:1]):
        _remove(derivatives, context, paths)
    maps = _read(derivatives, context, paths, shared)
    sidecar = sidecar_of(derivatives, paths, permutations=tests.permutations, content=content,
                         methods=summary(group_maps), omitted=own)  # fmt: skip
    maps = replace(maps, sidecar={**sidecar, "VolumeAxis": "layer", "Correction": FAMILY, **maps.sidecar})
    summarised = _summarised(maps.scores)
    if not known:
        _mean_maps(derivatives, maps, summarised, tests, omitted)
    if not tested:
        maps = replace(maps, sidecar={**maps.sidecar, "ConfigurationHash": of_effects})
        _effect_maps(derivatives, maps, tests, omitted)


def _are_of(content: str, outputs: Sequence[Path]) -> bool:
    """Whether all these maps are there and were made of this."""
    return all(path.exists() and read_json(sidecar_path(path)).get("ConfigurationHash") == content for path in outputs)


def _remove(derivatives: Derivatives, context: Mapping[str, str], paths: Mapping[str, Path]) -> None:
    """Take away maps that were made of other data: those that are not asked for now would stay beside the new ones."""
    extension = names.parse(next(iter(paths.values())))["extension"]
    for hemi in ("L", "R") if "hemi" in context else (None,):
        first = _output(derivatives, {**context, "hemi": hemi} if hemi else context, extension, "mean")
        wanted = {key: value for key, value in names.entities_of(first).items() if key != "stat"}
        for path in first.parent.glob(f"*_desc-{context['desc']}_statmap{extension}"):
            found = {key: value for key, value in names.entities_of(path).items() if key not in ("stat", "contrast")}
            if found == wanted:
                path.unlink()
                sidecar_path(path).unlink(missing_ok=True)


def _alike(paths: Mapping[str, Path], own: list[str]) -> dict[str, Path]:
    """Maps that have the layers that most have; a sentence on each other."""
    layers = {label: tuple(read_json(sidecar_path(path)).get("Layers") or ()) for label, path in paths.items()}
    usual = Counter(layers.values()).most_common(1)[0][0]
    first = next(label for label in layers if layers[label] == usual)
    other = [label for label in layers if layers[label] != usual]
    own += [
        f"sub-{label}: {paths[label].name} has other layers than that of sub-{first} and was left out."
        for label in other
    ]
    return {label: path for label, path in paths.items() if label not in other}


def _on_one_grid(
    derivatives: Derivatives, paths: dict[str, Path], own: list[str]
) -> tuple[dict[str, Path], Space]:  # fmt: skip
    """Participants whose masks lie on the grid or mesh that most have, and the points that these have in common."""
    masks = {label: _mask_of(derivatives, path) for label, path in paths.items()}
    try:
        return paths, intersection(list(masks.values()))
    except BidsdnnError:
        alike: list[list[str]] = []
        for label, mask in masks.items():
            try:
                intersection([mask])
            except BidsdnnError as error:
                own.append(f"sub-{label} was left out of the map: {error}.")
                continue
            place = next((some for some in alike if _fit(masks[some[0]], mask)), None)
            if place is None:
                alike.append([label])
            else:
                place.append(label)
        most = max(alike, key=len, default=[])
        if len(most) < FEWEST:
            raise
    own += [
        f"sub-{label}: {paths[label].name} has another grid than that of sub-{most[0]} and was left out."
        for some in alike if some is not most for label in some
    ]  # fmt: skip
    return {label: paths[label] for label in most}, intersection([masks[label] for label in most])


def _fit(mask: Path, other: Path) -> bool:
    try:
        return bool(intersection([mask, other]).size)
    except BidsdnnError:
        return False


def _mask_of(derivatives: Derivatives, path: Path) -> Path:
    """Where a participant's map has values."""
    entities = names.entities_of(path)
    kept = {key: entities[key] for key in ("sub", "task", "hemi", "space", "res", "den") if key in entities}
    return derivatives.path("mask", MASKS[names.parse(path)["extension"]], **kept, desc="brain")


def _output(
    derivatives: Derivatives, context: Mapping[str, str], extension: str, stat: str, contrast: str = ""
) -> Path:
    stem = {key: value for key, value in context.items() if key != "space"}
    return derivatives.path(
        "statmap", extension, tpl=context["space"], **{**stem, "contrast": contrast or None, "stat": stat}
    )


def _outputs(
    derivatives: Derivatives, context: Mapping[str, str], paths: Mapping[str, Path], tests: Tests
) -> tuple[list[Path], list[Path]]:
    """Maps of means, the mean first, and of effects."""
    extension = names.parse(next(iter(paths.values())))["extension"]
    # What could not be enhanced is not tried again.
    mean = read_json(sidecar_path(_output(derivatives, context, extension, "mean")))
    enhanced = ("tfce", "ptfce") if tests.tfce and "NotEnhanced" not in mean else ()
    stats = ("mean", "sem", "t", "p", "pfwe", "q", *enhanced)
    means = [_output(derivatives, context, extension, stat) for stat in stats]
    effects = [
        _output(derivatives, context, extension, stat, effect.contrast)
        for effect in effects_of(tests.people, list(paths), [])
        for stat in ("effect", "t", "p", "pfwe", "q", *enhanced)
    ]
    return means, effects


def _read(derivatives: Derivatives, context: dict[str, str], paths: dict[str, Path], space: Space) -> _Maps:
    """Read the maps one by one into one table of float32, at the points that all participants have."""
    scores: np.ndarray | None = None
    for place, path in enumerate(paths.values()):
        one = space.read(path)
        scores = np.empty((len(paths), *one.shape), dtype=np.float32) if scores is None else scores
        scores[place] = one
    assert scores is not None
    for layer in range(scores.shape[1]):
        scores[:, layer, ~np.isfinite(scores[:, layer]).all(axis=0)] = np.nan
    entities = names.entities_of(next(iter(paths.values())))
    kept = {key: entities[key] for key in ("sub", "task", "space", "res", "den") if key in entities}
    first = read_json(sidecar_path(next(iter(paths.values()))))
    quality = read_json(derivatives.path("results", ".json", **kept, desc="quality"))
    keys: dict[str, Any] = {key: first[key] for key in ("Metric", "Comparison", "NeighborhoodExtent") if key in first}
    keys |= {key: quality[key] for key in ("Mesh", "InflatedMesh") if key in quality}
    keys["Points"] = "those inside the masks of all participants"
    return _Maps(context, paths, space, scores, keys)


def _summarised(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and its standard error of scores, which are Fisher-transformed in place."""
    flat = scores.reshape(len(scores), -1)
    found = {key: np.empty(flat.shape[1], dtype=np.float32) for key in ("mean", "sem")}
    for some in blocks(flat.shape[1], 2**16):
        part = flat[:, some].astype(np.float64)
        found["mean"][some], found["sem"][some] = part.mean(axis=0), part.std(axis=0, ddof=1) / np.sqrt(len(scores))
        flat[:, some] = fisher_z(part)
    return found


def _mean_maps(
    derivatives: Derivatives, maps: _Maps, summarised: Mapping[str, np.ndarray], tests: Tests, omitted: list[str]
) -> None:  # fmt: skip
    """Write mean, sem, t, p, family-wise p and false discovery rate."""
    n, layers, size = maps.scores.shape
    flips = sign_flips(maps.scores.reshape(n, -1), permutations=tests.permutations, seed=tests.seed)
    found = {**summarised, "t": flips.t, "p": flips.p, "pfwe": flips.p_fwe}
    found["q"] = np.concatenate([fdr(one) for one in flips.p.reshape(layers, size)])
    sidecar = dict(maps.sidecar)
    left_out: list[str] = []
    edges = _edges(derivatives, maps, left_out) if tests.tfce else None
    omitted += left_out
    if left_out:
        sidecar["NotEnhanced"] = left_out[0]
    if edges is not None:
        draws = signs(n, tests.permutations, tests.seed)
        found |= _enhanced(maps, edges, flips.t, tests, draws, partial(_peaks, maps.scores, edges), tfce)
        sidecar = _about_clusters(sidecar, "flip")
    _write(derivatives, maps, found, sidecar)


def _about_clusters(sidecar: Mapping[str, Any], what: str) -> dict[str, Any]:
    correction = f"family-wise over all points of all layers by the largest enhancement of each {what}"
    neighbors = "voxels that share a face, vertices that share an edge"
    return {
        **sidecar,
        "ClusterEnhancement": {"Extent": EXTENT, "Height": HEIGHT, "Step": STEP, "Neighbors": neighbors,
                               "Correction": correction},
        "References": [*sidecar["References"], "tfce"],
        "Methods": f"{sidecar['Methods']} {summary(tfce)}",
    }  # fmt: skip


def _enhanced(
    maps: _Maps, edges: np.ndarray, t: np.ndarray, tests: Tests, draws: tuple[np.ndarray, int],
    peaks_of: Callable[[tuple[int, np.ndarray]], np.ndarray], enhance: Callable[..., np.ndarray], contrast: str = "",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Enhanced t maps, and their family-wise p; how long that takes is said first."""
    layers = maps.scores.shape[1]
    relabelled, sampled = draws
    started = time.process_time()
    enhanced = np.array([np.where(np.isnan(row), np.nan, enhance(row, edges)) for row in t.reshape(layers, -1)])
    seconds = (time.process_time() - started) * len(relabelled)
    took = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    sentence = (
        f"cluster enhancement of the {maps.context['desc']} map{contrast and f' of {contrast}'} of "
        f"{maps.context.get('model', 'the network')}: {layers} layers x {len(relabelled)} "
        f"{'orders' if contrast else 'flips'} take about {took} of processor time"
    )
    logger.info("%s", sentence)
    tests.announce(sentence)
    tasks = [(layer, relabelled[some]) for layer in range(layers) for some in blocks(len(relabelled), _FLIPS)]
    found = tests.map(peaks_of, tasks, label="TFCE")
    largest = np.reshape(
        [np.concatenate([one for (layer, _), one in zip(tasks, found, strict=True) if layer == each])
         for each in range(layers)], (layers, len(relabelled)),
    ).max(axis=0)  # fmt: skip
    return {"tfce": enhanced, "ptfce": familywise(np.abs(enhanced), largest, sampled=sampled)}


def _peaks(scores: np.ndarray, edges: np.ndarray, task: tuple[int, np.ndarray]) -> np.ndarray:
    layer, flips = task
    return peaks(scores[:, layer], edges, flips)


def _peaks_of_effect(scores: np.ndarray, edges: np.ndarray, effect: Effect, task: tuple[int, np.ndarray]) -> np.ndarray:
    layer, orders = task
    return peaks_of_effect(scores[:, layer], edges, effect.tested, effect.nuisance, orders)


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
    effects = effects_of(tests.people, labels, omitted)
    # What could not be enhanced was said with the means.
    edges = _edges(derivatives, maps, []) if tests.tfce and effects else None
    for effect in effects:
        rows = [labels.index(label) for label in effect.labels]
        own = replace(maps, scores=maps.scores[rows])
        flat = own.scores.reshape(len(rows), -1)
        found = freedman_lane(flat, effect.tested, effect.nuisance, permutations=tests.permutations, seed=tests.seed)
        q = np.concatenate([fdr(one) for one in found.p.reshape(maps.scores.shape[1:])])
        sidecar = {**maps.sidecar, **effect.sidecar(tests.permutations)}
        sidecar["Correction"] = FAMILY_OF_EFFECT
        stats = {"effect": found.estimate, "t": found.t, "p": found.p, "pfwe": found.p_fwe, "q": q}
        if edges is not None:
            orders = orders_of(len(rows), tests.permutations, tests.seed)
            of_orders = partial(_peaks_of_effect, own.scores, edges, effect)
            stats |= _enhanced(own, edges, found.t, tests, orders, of_orders, two_sided, effect.name)
            sidecar = _about_clusters(sidecar, "order, of either sign")
        _write(derivatives, maps, stats, sidecar, effect.contrast)


def _write(
    derivatives: Derivatives, maps: _Maps, found: Mapping[str, np.ndarray], sidecar: Mapping[str, Any],
    contrast: str = "",
) -> None:  # fmt: skip
    extension = names.parse(next(iter(maps.paths.values())))["extension"]
    for stat, values in found.items():
        path = _output(derivatives, maps.context, extension, stat, contrast)
        derivatives.write_map(path, np.reshape(values, maps.scores.shape[1:]), maps.space, sidecar)
