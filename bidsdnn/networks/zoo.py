"""Where networks come from: torchvision, CORnet, VGGish, the demo's own, other libraries, files, and users.

A row of `NETWORKS` is a function ``(*, weights, seed) -> Network``. A row of `LIBRARIES` or `FILES` takes, before
these, what stands behind its prefix, as in ``timm:NAME``, or the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bidsdnn.config_tables import NetworkInput
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest, resolve
from bidsdnn.networks import classifiers, cornet, formats, libraries
from bidsdnn.networks import weights as files
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import asked_preprocess, standard_preprocess
from bidsdnn.networks.retrained import is_retrained, retrained
from bidsdnn.networks.surgery import shuffled_weights
from bidsdnn.networks.toy import Toy
from bidsdnn.networks.users import users_network
from bidsdnn.networks.vggish import vggish
from bidsdnn.stimuli import file_sha256


def build(
    name: str, *, weights: str = "DEFAULT", seed: int = 0, alias: str | None = None, given: NetworkInput | None = None
) -> Network:
    """Build a network by name.

    Parameters
    ----------
    name : str
        A row of `NETWORKS`, a row of `LIBRARIES` with a name behind it, as ``timm:resnet18``, a file of one of
        the kinds in `FILES`, ``package.module:object`` or ``file.py:object``. The object is a `Network`, a
        module, or a function or class that makes one; it is called with those of ``weights=`` and ``seed=``
        that it names. A module may say by attributes how stimuli are prepared: ``preprocess`` (a function
        to a tensor from a PIL image, or from what its ``modality`` gives), or any field of
        `bidsdnn.config.NetworkInput`, as ``input_size``, ``mean`` and ``std``; else they are as ImageNet's, 224 pixels.
    weights : str
        ``DEFAULT``, ``none`` for seeded random weights, a name such as ``IMAGENET1K_V2``, or a file, also
        of ``--analysis transfer`` or another; ``shuffled[:WEIGHTS]`` for any of these, shuffled within each tensor.
    seed : int
        Of random weights, and of shuffling.
    alias : str, optional
        Replaces the label.
    given : NetworkInput, optional
        Replaces the network's own preparation of stimuli.

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
    kind, _, base = weights.partition(":")
    if kind == "shuffled":
        network = shuffled_weights(_maker(name)(weights=base or "DEFAULT", seed=seed), seed=seed)
    elif is_retrained(weights):
        network = retrained(_maker(name), weights, seed=seed)
    else:
        network = _maker(name)(weights=weights, seed=seed)
    if given is not None:
        preprocess, preprocessing = asked_preprocess(given)
        network = replace(network, preprocess=preprocess, preprocessing=preprocessing, modality=given.modality)
    return replace(network, alias=alias) if alias else network


def _maker(name: str) -> Callable[..., Network]:
    """Find what builds the network of a name."""
    if name in NETWORKS:
        return NETWORKS[name]
    prefix, colon, rest = name.partition(":")
    if colon and prefix in LIBRARIES:
        return partial(LIBRARIES[prefix], rest)
    path = Path(name).expanduser()
    if (path / "saved_model.pb").is_file():
        path = path / "saved_model.pb"
    if path.suffix.lower() in FILES:
        return partial(FILES[path.suffix.lower()], path)
    found: Any = resolve(name, NETWORKS)
    return partial(users_network, name, found)


def holds_weights(name: str) -> bool:
    """Tell whether a network is a file with weights in it, which cannot be built without them.

    Parameters
    ----------
    name : str

    Returns
    -------
    bool
    """
    return Path(name).suffix.lower() in FILES


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
        urls = published(name)
        if not urls or chosen == "none":
            raise ConfigError(f"network {asked!r} has no weights to download; leave it out")
        chosen = next(iter(urls)) if chosen in ("", "DEFAULT") else chosen
        if chosen not in urls:
            raise ConfigError(f"weights {chosen!r} of {name}: not one of DEFAULT, {', '.join(sorted(urls))}")
        wanted.append((name, urls[chosen]))
    target = files.checkpoint_folder(folder)
    paths = []
    for name, url in wanted:
        paths.append(files.fetch(url, target, progress=progress, name=name))
        files.check_hash(paths[-1], file_sha256(paths[-1]))
    return paths


def published(name: str) -> dict[str, str]:
    """List the weights that a network of the zoo can be had with by name.

    Parameters
    ----------
    name : str
        A row of `NETWORKS`.

    Returns
    -------
    dict of str to str
        Name to URL, the default first; empty where nothing is published.
    """
    if name in cornet.PUBLISHED:
        return {cornet.WEIGHTS: cornet.PUBLISHED[name]}
    return classifiers.published(name) if name in (*classifiers.PICTURES, *classifiers.FILMS) else {}


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
    module = files.seeded(Toy, seed).eval()
    preprocess, preprocessing = standard_preprocess(64, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    sha256 = files.state_sha256(module)
    return Network("demo", module, preprocess, preprocessing, "none", seed, sha256, source="bidsdnn")


NETWORKS: dict[str, Callable[..., Network]] = {
    "demo": demo,
    "vggish": vggish,
    **{name: partial(cornet.cornet, name) for name in cornet.MAKERS},
    **{name: partial(classifiers.classifier, name) for name in (*classifiers.PICTURES, *classifiers.FILMS)},
}

LIBRARIES: dict[str, Callable[..., Network]] = {
    "timm": libraries.timm_network,
    "hf": libraries.hf_network,
    "open_clip": libraries.open_clip_network,
}

FILES: dict[str, Callable[..., Network]] = {
    ".onnx": formats.onnx_network,
    ".keras": formats.keras_network,
    ".h5": formats.keras_network,
    ".pb": formats.saved_model,
}
