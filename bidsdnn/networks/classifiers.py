"""Torchvision's classifiers of pictures and of films, each with the published weights and their preparation."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from bidsdnn.networks import preprocessing
from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.shortlists import short_names

PICTURES: tuple[str, ...] = tuple(models.list_models(module=models))
FILMS: tuple[str, ...] = tuple(models.list_models(module=models.video))

# Side branches that exist for training only; they are not built, and their weights in a file are passed over.
TRAINING_ONLY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}

# Old files say `denselayer1.norm.1.weight` where the network says `denselayer1.norm1.weight`.
OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")

# Frames, and frames a second, that the published accuracies were measured with; torchvision tells them in prose only.
CLIPS = {"mvit": (16, 7.5), "s3d": (128, 15.0), "swin3d": (32, 15.0)}
USUAL_CLIP = (16, 15.0)


def published(name: str) -> dict[str, str]:
    """List the weights that torchvision publishes for a network, its default first.

    Parameters
    ----------
    name : str
        Of `PICTURES` or `FILMS`.

    Returns
    -------
    dict of str to str
        Name to URL.
    """
    entries = models.get_model_weights(name)
    urls = {entry.name: entry.url for entry in entries}
    return {entries.DEFAULT.name: urls[entries.DEFAULT.name], **urls}


def classifier(name: str, *, weights: str, seed: int) -> Network:
    """Build one of torchvision's classifiers of pictures or films.

    Stimuli are prepared as the weights' authors did; for random weights and for a file, as for the default weights,
    unless the file has the name of published ones.

    Parameters
    ----------
    name : str
        Of `PICTURES` or `FILMS`.
    weights : str
        As in `bidsdnn.networks.zoo.build`.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    entries = models.get_model_weights(name)
    recipe = entries[weights] if weights in entries.__members__ else entries.DEFAULT
    path = Path(weights).expanduser()
    if weights not in ("DEFAULT", "none", *entries.__members__) and path.is_file():
        recipe = next((entry for entry in entries if entry.url.endswith(f"/{path.name}")), recipe)
    module, label, sha256 = files.filled(
        partial(_architecture, name, recipe, init=weights == "none"),
        weights=weights,
        seed=seed,
        name=name,
        published=published(name),
        current=partial(_current_keys, TRAINING_ONLY.get(name, ())),
    )
    transform = recipe.transforms()
    if name in FILMS:
        frames, rate = clip_of(name)
        prepare, words = preprocessing.clip_preprocess(transform, frames=frames, rate=rate)
    else:
        prepare, words = transform, preprocessing.describe_preset(transform)
        words += ", then to -1..1 in the network" if name in TRAINING_ONLY else ""
    return Network(
        name=name,
        module=module,
        preprocess=prepare,
        preprocessing=words,
        weights=label,
        seed=seed if label == "none" else None,
        weights_sha256=sha256,
        modality="video" if name in FILMS else "image",
        short=short_names(name, module),
    )


def clip_of(name: str) -> tuple[int, float]:
    """Frames, and frames a second, that a network sees of a clip.

    Parameters
    ----------
    name : str
        Of `FILMS`.

    Returns
    -------
    frames : int
    rate : float
    """
    return next((clip for start, clip in CLIPS.items() if name.startswith(start)), USUAL_CLIP)


def _architecture(name: str, recipe: Any, *, init: bool) -> nn.Module:
    """Make the module that a set of published weights is for, with random weights."""
    options: dict[str, Any] = {"num_classes": len(recipe.meta["categories"])}
    if name.startswith("vit_"):  # its position embedding is as large as the picture
        options["image_size"] = recipe.transforms().crop_size[0]
    if name in TRAINING_ONLY:
        options |= {"aux_logits": False, "transform_input": True, "init_weights": init}
    return models.get_model(name, weights=None, **options)


def _current_keys(dropped: tuple[str, ...], state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename keys of old files in place, which keeps torch's version metadata, and drop side branches."""
    for key in list(state):
        tensor = state.pop(key)
        if not key.startswith(dropped):
            state[OLD_DENSENET_KEY.sub(r"\1", key)] = tensor
    return state
