"""Networks of other libraries: ``timm:NAME``, ``hf:NAME`` or ``hf:FOLDER``, ``open_clip:ARCHITECTURE``.

Each library is an extra, and imported only when one of its networks is asked for. How stimuli are prepared comes from
the library's own records. Weights that are not at hand and cannot be downloaded are an error of one line.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.lookup import closest
from bidsdnn.networks import weights as files
from bidsdnn.networks.network import MAX_CANONICAL, Network, canonical_layers
from bidsdnn.networks.preprocessing import Preparation, frames_of, middle, waveform

logger = logging.getLogger(__name__)

# What Hugging Face's records do not say, by the custom of the networks there.
FRAMES_PER_SECOND = 7.5
SECONDS = 1.0
INPUTS = ("pixel_values", "input_values", "input_features")


def needed(module: str, *, extra: str, asked: str) -> Any:
    """Import a library that is an extra of the package.

    Parameters
    ----------
    module : str
        As Python imports it.
    extra : str
        As pip installs it.
    asked : str
        The network that needs it, for the error.

    Returns
    -------
    module

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"network {asked} needs {module} ({error}); `pip install bidsdnn[{extra}]`") from error


def with_listed(network: Network, *, ordered: bool = False) -> Network:
    """List as canonical only layers that a forward pass reaches, which a strange library's modules need not be.

    Parameters
    ----------
    network : Network
    ordered : bool
        Whether the module's children are called in their order, as a Sequential's are.

    Returns
    -------
    Network
    """
    reached = network.shapes()
    module = nn.Sequential(OrderedDict(network.module.named_children())) if ordered else network.module
    every = canonical_layers(module, most=len(network.layers) + 1)
    found = [layer for layer in every if layer in reached] or list(reached)
    if len(found) > MAX_CANONICAL:
        found = [found[i] for i in np.linspace(0, len(found) - 1, MAX_CANONICAL).round().astype(int)]
    return replace(network, listed=tuple(found))


def _made(
    name: str, module: nn.Module, preparation: Preparation, *, weights: str, seed: int, sha256: str, **said: Any
) -> Network:
    """Put a network together; `said` are further fields."""
    preprocess, preprocessing = preparation
    made = Network(
        name=name,
        module=module.eval(),
        preprocess=preprocess,
        preprocessing=preprocessing,
        weights=weights,
        seed=seed if weights == "none" else None,
        weights_sha256=sha256,
        **said,
    )
    return with_listed(made)


def _had(load: Callable[[], Any], asked: str) -> Any:
    """Load published weights, whose absence and refusal are one line each."""
    try:
        return load()
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{asked}: refused, because reading its weights would run code; save them as safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise MissingInputError(
            f"weights of {asked} are not at hand and cannot be downloaded ({reason}); fetch them where there is "
            "internet and set HF_HOME, give a file with --weights, or ask for none"
        ) from error


def timm_network(name: str, *, weights: str, seed: int) -> Network:
    """Build a network of timm, prepared for as its record says.

    Parameters
    ----------
    name : str
        As ``timm.list_models()`` has it, with or without ``.TAG``.
    weights : str
        ``DEFAULT``, ``none``, one of timm's tags, or a file.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    asked = f"timm:{name}"
    timm = needed("timm", extra="timm", asked=asked)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ConfigError(f"network {asked} is not known; {closest(architecture, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if weights == "DEFAULT" or weights in tags:
        full = name if weights == "DEFAULT" else f"{architecture}.{weights}"
        module = _had(partial(timm.create_model, full, pretrained=True), asked)
        label, sha256 = module.pretrained_cfg.get("tag") or "pretrained", files.state_sha256(module)
    else:
        make = partial(timm.create_model, name, pretrained=False)
        module, label, sha256 = files.filled(make, weights=weights, seed=seed, name=asked, published={})
    record = timm.data.resolve_model_data_config(module)
    words = {key: record[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
    preparation = (
        timm.data.create_transform(**record, is_training=False),
        f"timm's transform for evaluation {json.dumps(words)}",
    )
    return _made(asked, module, preparation, weights=label, seed=seed, sha256=sha256, source="timm")


def open_clip_network(name: str, *, weights: str, seed: int) -> Network:
    """Build the half of a network of open_clip that sees pictures.

    Parameters
    ----------
    name : str
        As ``open_clip.list_models()`` has it, as ``ViT-B-32``.
    weights : str
        One of open_clip's tags, as ``laion2b_s34b_b79k``; ``none``; or a file, of both halves.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    asked = f"open_clip:{name}"
    library = needed("open_clip", extra="open_clip", asked=asked)
    if name not in library.list_models():
        raise ConfigError(f"network {asked} is not known; {closest(name, library.list_models())}")
    tags = library.list_pretrained_tags_by_model(name)
    if weights == "DEFAULT":
        raise ConfigError(f"network {asked} has no default weights; write {asked}@TAG with one of {', '.join(tags)}")
    make = partial(library.create_model, name)
    if weights in tags:
        both, label = _had(partial(make, pretrained=weights), f"{asked}@{weights}"), weights
        sha256 = files.state_sha256(both.visual)
    else:
        make = partial(make, load_weights=False)
        both, label, sha256 = files.filled(make, weights=weights, seed=seed, name=asked, published={})
    record = library.get_model_preprocess_cfg(both)
    transform = library.transform.image_transform_v2(library.transform.PreprocessCfg(**record), is_train=False)
    preparation = transform, f"open_clip's transform {json.dumps(record)}"
    return _made(asked, both.visual, preparation, weights=label, seed=seed, sha256=sha256, source="open_clip")


def hf_network(name: str, *, weights: str, seed: int) -> Network:
    """Build a network of Hugging Face's transformers that sees or hears.

    Of networks with two halves, that of pictures or sounds is taken; of encoders with a decoder, the encoder. Code
    in a repository is not run.

    Parameters
    ----------
    name : str
        A folder as ``save_pretrained`` writes it, or a repository whose files are cached or can be downloaded.
    weights : str
        ``DEFAULT``, ``none``, or a file.
    seed : int
        Of random weights.

    Returns
    -------
    Network
    """
    asked = f"hf:{name}"
    library = needed("transformers", extra="transformers", asked=asked)
    folder = Path(name).expanduser()
    where = str(folder) if folder.is_dir() else name
    config = _had(partial(library.AutoConfig.from_pretrained, where, trust_remote_code=False), asked)
    processor = _processor(library, where, asked)
    if weights == "DEFAULT":
        load = partial(library.AutoModel.from_pretrained, where, output_loading_info=True, trust_remote_code=False)
        # What a file lacks is filled at random.
        whole, found = files.seeded(lambda: _had(load, asked), seed)
        if lacking := sorted(found["missing_keys"]):
            logger.warning("%s: %d weights are not in its file, and random: %s", asked, len(lacking), lacking[0])
        label, sha256 = "pretrained", files.state_sha256(whole)
    else:
        make = partial(library.AutoModel.from_config, config, trust_remote_code=False)
        load = partial(_hf_state, config)
        whole, label, sha256 = files.filled(make, weights=weights, seed=seed, name=asked, published={}, load=load)
    module, takes = _perceiving(whole, asked)
    modality, preparation = _hf_preparation(processor, config, takes, asked)
    called = f"hf:{folder.resolve().name}" if folder.is_dir() else asked
    said = {"modality": modality, "source": "transformers"}
    return _made(called, module, preparation, weights=label, seed=seed, sha256=sha256, **said)


def _hf_state(config: Any, module: Any, state: dict[str, Tensor], path: Path) -> None:
    """Fill a network as its library does, which renames what older versions of it wrote."""
    made, found = type(module).from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    files.check_fit(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]), path)
    files.load_state(module, made.state_dict(), path)


def _processor(library: Any, where: str, asked: str) -> Any:
    """Find what prepares pictures or sounds for a network."""
    for kind in (library.AutoImageProcessor, library.AutoFeatureExtractor):
        try:
            return kind.from_pretrained(where, trust_remote_code=False)
        except (OSError, ValueError, KeyError):
            continue
    raise ConfigError(f"network {asked} has no image processor and no feature extractor; it neither sees nor hears")


def _perceiving(whole: nn.Module, asked: str) -> tuple[nn.Module, str]:
    """Take the part of a network that sees or hears, and the name of its first argument."""
    parts: list[Any] = [getattr(whole, part, None) for part in ("vision_model", "audio_model")]
    if getattr(whole.config, "is_encoder_decoder", False):
        parts.append(whole.get_encoder())  # type: ignore[operator]
    for part in (*parts, whole):
        takes = next(iter(inspect.signature(part.forward).parameters)) if part is not None else ""
        if takes in INPUTS:
            return part, takes
    raise ConfigError(f"network {asked}: {type(whole).__name__} takes neither pictures nor sounds; choose another")


def _hf_preparation(processor: Any, config: Any, takes: str, asked: str) -> tuple[str, Preparation]:
    """Make of Hugging Face's processor a function of one stimulus."""
    words = f"{type(processor).__name__} {json.dumps(json.loads(processor.to_json_string()), sort_keys=True)}"
    if takes != "pixel_values":
        return "audio", _hf_sounds(processor, takes, words)
    frames = getattr(config, "num_frames", None)
    if frames is None:
        return "image", (lambda picture: processor(picture, return_tensors="pt")[takes][0], words)
    rate = float(getattr(processor, "fps", None) or getattr(config, "fps", None) or FRAMES_PER_SECOND)

    def prepare(clip: tuple[Any, float]) -> Tensor:
        taken = frames_of(clip, frames=frames, rate=rate)
        return processor(list(taken), return_tensors="pt")[takes][0]

    return "video", (prepare, f"{frames} frames at {rate:g} a second around the clip's middle, {words}")


def _hf_sounds(processor: Any, takes: str, words: str) -> Preparation:
    """Bring sounds to the processor's rate; where it takes any length, to one second."""
    rate = int(processor.sampling_rate)

    def process(samples: np.ndarray) -> Tensor:
        return processor(samples, sampling_rate=rate, return_tensors="pt")[takes][0]

    one, two = (process(np.zeros(round(seconds * rate), np.float32)).shape for seconds in (SECONDS, 2 * SECONDS))
    if one == two:
        return lambda sound: process(waveform(sound, rate=rate)), f"waveform at {rate} Hz, {words}"

    def prepare(sound: tuple[Any, float]) -> Tensor:
        return process(middle(waveform(sound, rate=rate), round(SECONDS * rate), rate=rate))

    return prepare, f"middle {SECONDS:g} s of the waveform at {rate} Hz, {words}"
