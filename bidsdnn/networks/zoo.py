"""Where networks come from: torchvision's image classifiers, the demo's own, and what a user's file builds.

A row of `NETWORKS` is a function ``(*, weights, seed) -> Network``; nothing else in the package knows
torchvision.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest, resolve
from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.toy import Toy
from bidsdnn.stimuli import file_sha256

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Side branches that exist for training only; they are not built, and their weights in a file are passed over.
TRAINING_ONLY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}

# Old files say `denselayer1.norm.1.weight` where the network says `denselayer1.norm1.weight`.
OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def build(name: str, *, weights: str = "DEFAULT", seed: int = 0, alias: str | None = None) -> Network:
    """Build a network by name.

    Parameters
    ----------
    name : str
        A row of `NETWORKS`, ``package.module:object`` or ``file.py:object``. The object is a `Network`, a
        module, or a function or class that makes one; it is called with those of ``weights=`` and ``seed=``
        that it names. A module may say by attributes how pictures are prepared: ``preprocess`` (a function
        from PIL image to tensor), or any of ``input_size``, ``mean`` and ``std``; else they are as
        ImageNet's, 224 pixels.
    weights : str
        ``DEFAULT``, ``none`` for seeded random weights, a name such as ``IMAGENET1K_V2``, or a file.
    seed : int
        Of random weights.
    alias : str, optional
        Replaces the label.

    Returns
    -------
    Network
        In evaluation mode, on the CPU.

    Raises
    ------
    ConfigError
        If there is no such network or weights, or a user's object is neither a network nor makes one.
    MissingInputError
        If weights cannot be had.
    DataError
        If a weights file does not fit.
    """
    found: Any = resolve(name, NETWORKS)
    make = found if name in NETWORKS else partial(_users, name, found)
    network: Network = make(weights=weights, seed=seed)
    return replace(network, alias=alias) if alias else network


def fetch_weights(names: Iterable[str], *, folder: Path | None = None, progress: bool = False) -> list[Path]:
    """Download the weights of networks, for machines without internet.

    Parameters
    ----------
    names : iterable of str
        ``NAME`` or ``NAME@WEIGHTS``, with rows of `NETWORKS`.
    folder : Path, optional
        Files go to ``hub/checkpoints`` in it, where ``TORCH_HOME=folder`` finds them; default, torch's own.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    list of Path
        One file a name.

    Raises
    ------
    ConfigError
        If there is no such network, or it has no such weights; before anything is downloaded.
    MissingInputError, DataError
        As `bidsdnn.networks.weights.fetch`.
    """
    wanted = []
    for asked in names:
        name, _, chosen = asked.partition("@")
        if name not in NETWORKS:
            raise ConfigError(f"network {name!r} is not known; {closest(name, NETWORKS)}")
        entry = _entry(name, chosen or "DEFAULT") if name in TORCHVISION else None
        if entry is None:
            raise ConfigError(f"network {asked!r} has no weights to download; leave it out")
        wanted.append((name, entry))
    target = files.checkpoint_folder(folder)
    paths = []
    for name, entry in wanted:
        paths.append(files.fetch(entry.url, target, progress=progress, name=name))
        files.check_hash(paths[-1], file_sha256(paths[-1]))
    return paths


def _entry(name: str, weights: str) -> Any:
    """Return torchvision's record of published weights; None for random ones."""
    if weights == "none":
        return None
    published = models.get_model_weights(name)
    if weights == "DEFAULT":
        return published.DEFAULT
    if weights in published.__members__:
        return published[weights]
    raise ConfigError(
        f"weights {weights!r} of {name}: no such file, and not one of DEFAULT, none, "
        + ", ".join(entry.name for entry in published)
    )


def torchvision_classifier(name: str, *, weights: str, seed: int) -> Network:
    """Build one of torchvision's image classifiers.

    Pictures are prepared as the weights' authors did; for random weights and for a file, as for the default
    weights, unless the file has the name of published ones.

    Parameters
    ----------
    name : str
        A name of `torchvision.models.list_models`.
    weights : str
        As in `build`.
    seed : int
        As in `build`.

    Returns
    -------
    Network
    """
    path = Path(weights).expanduser()
    published = models.get_model_weights(name)
    if weights not in ("DEFAULT", "none", *published.__members__) and path.is_file():
        recipe = next((w for w in published if w.url.endswith(f"/{path.name}")), published.DEFAULT)
        label, sha256 = path.name, file_sha256(path)
    else:
        entry = _entry(name, weights)
        recipe = entry or published.DEFAULT
        label = entry.name if entry else "none"
        if entry:
            path = files.fetch(entry.url, files.checkpoint_folder(), name=name)
            files.check_hash(path, sha256 := file_sha256(path))
    module = _seeded(partial(_architecture, name, recipe, init=label == "none"), seed)
    if label == "none":
        sha256 = files.state_sha256(module)
    else:
        state = _current_keys(files.read_state(path), TRAINING_ONLY.get(name, ()))
        files.load_state(module, state, path)
    transform = recipe.transforms()
    return Network(
        name=name,
        module=module.eval(),
        preprocess=transform,
        preprocessing=_describe(transform) + (", then to -1..1 in the network" if name in TRAINING_ONLY else ""),
        weights=label,
        seed=seed if label == "none" else None,
        weights_sha256=sha256,
    )


def _architecture(name: str, recipe: Any, *, init: bool) -> nn.Module:
    """Make the module that a set of published weights is for, with random weights."""
    options: dict[str, Any] = {"num_classes": len(recipe.meta["categories"])}
    if name.startswith("vit_"):  # its position embedding is as large as the picture
        options["image_size"] = recipe.transforms().crop_size[0]
    if name in TRAINING_ONLY:
        options |= {"aux_logits": False, "transform_input": True, "init_weights": init}
    return models.get_model(name, weights=None, **options)


def _current_keys(state: dict[str, torch.Tensor], dropped: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Rename keys of old files in place, which keeps torch's version metadata, and drop side branches."""
    for key in list(state):
        tensor = state.pop(key)
        if not key.startswith(dropped):
            state[OLD_DENSENET_KEY.sub(r"\1", key)] = tensor
    return state


def _seeded(make: Callable[[], Any], seed: int) -> Any:
    """Call a function under a seed, and leave the process's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make()


def _describe(transform: Any) -> str:
    """Say in words what torchvision's preset for classification does."""
    way = InterpolationMode(transform.interpolation).value
    return _described(transform.resize_size[0], transform.crop_size[0], transform.mean, transform.std, way)


def _described(shorter: int, size: int, mean: Iterable[float], std: Iterable[float], way: str) -> str:
    minus, over = (", ".join(f"{value:g}" for value in values) for values in (mean, std))
    return (
        f"shorter side to {shorter} pixels ({way}), centre {size} x {size}, values 0..1, minus ({minus}), over ({over})"
    )


def standard_preprocess(
    size: int,
    *,
    resize: int | None = None,
    mean: Iterable[float] = IMAGENET_MEAN,
    std: Iterable[float] = IMAGENET_STD,
) -> tuple[Compose, str]:
    """Scale the shorter side, cut out the centre, and normalise.

    Parameters
    ----------
    size : int
        Side of the square that the network sees, in pixels.
    resize : int, optional
        Length of the shorter side before cutting; default ``256 / 224`` of `size`, ImageNet's custom.
    mean, std : iterable of float
        One a channel, of values 0..1.

    Returns
    -------
    preprocess : callable
        From PIL image to tensor.
    preprocessing : str
        The same in words.
    """
    shorter, mean, std = resize or round(size * 256 / 224), tuple(mean), tuple(std)
    steps = [Resize(shorter), CenterCrop(size), ToTensor(), Normalize(mean, std)]
    return Compose(steps), _described(shorter, size, mean, std, "bilinear")


def demo(*, weights: str, seed: int) -> Network:
    """Build the small network of random weights that drives the demo's regions.

    Parameters
    ----------
    weights : str
        ``DEFAULT`` or ``none``; both mean random.
    seed : int
        Of the random weights.

    Returns
    -------
    Network
    """
    if weights not in ("DEFAULT", "none"):
        raise ConfigError(f"weights {weights!r} of demo: it has random weights only; ask for none")
    module = _seeded(Toy, seed).eval()
    preprocess, preprocessing = standard_preprocess(64, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    sha256 = files.state_sha256(module)
    return Network("demo", module, preprocess, preprocessing, "none", seed, sha256, source="bidsdnn")


def _users(name: str, found: Any, *, weights: str, seed: int) -> Network:
    """Make a Network of a user's object."""
    offered = {"weights": weights, "seed": seed}
    passed: dict[str, Any] = {}
    if not isinstance(found, nn.Module | Network):
        if not callable(found):
            raise ConfigError(f"{name}: expected a network or a function that makes one, got {type(found).__name__}")
        passed = {key: offered[key] for key in inspect.signature(found).parameters if key in offered}
        found = _seeded(partial(found, **passed), seed)
    if isinstance(found, Network):
        found.module.eval()
        return found
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{name}: expected a torch module or a Network, got {type(found).__name__}; return one")
    try:
        preprocess, preprocessing = _users_preprocess(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: input_size, mean or std of the module is not usable ({error})") from error
    asked = passed.get("weights", "own")
    file, _, attribute = name.rpartition(":")
    return Network(
        name=f"{Path(file).stem if file.endswith('.py') else file}:{attribute}",
        module=found.eval(),
        preprocess=preprocess,
        preprocessing=preprocessing,
        weights=Path(asked).name,
        seed=seed if asked == "none" else None,
        weights_sha256=files.state_sha256(found),
        source="user",
    )


def _users_preprocess(module: nn.Module) -> tuple[Callable[..., Any], str]:
    """Read from a user's module how pictures are prepared for it."""
    own = getattr(module, "preprocess", None)
    if callable(own):
        return own, " ".join(str(getattr(own, "__qualname__", own)).split())
    size = getattr(module, "input_size", 224)
    side = size if isinstance(size, int) else tuple(size)[-1]
    mean, std = getattr(module, "mean", IMAGENET_MEAN), getattr(module, "std", IMAGENET_STD)
    return standard_preprocess(int(side), mean=[float(m) for m in mean], std=[float(s) for s in std])


TORCHVISION: tuple[str, ...] = tuple(models.list_models(module=models))

NETWORKS: dict[str, Callable[..., Network]] = {
    "demo": demo,
    **{name: partial(torchvision_classifier, name) for name in TORCHVISION},
}
