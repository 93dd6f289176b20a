"""Weights: read without running what is in the file, downloaded ahead of time, told apart by their hashes."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.stimuli import file_sha256

# Files that torchvision publishes carry the beginning of their sha256 in their names.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]*$")

# A compute node whose packets are dropped must say so within the patience of a person.
SECONDS_TO_CONNECT = 20.0


def checkpoint_folder(home: Path | None = None) -> Path:
    """Return the folder that weights are kept in: ``hub/checkpoints`` of `home`, or of ``TORCH_HOME``.

    Parameters
    ----------
    home : Path, optional
        What ``TORCH_HOME`` is going to be.

    Returns
    -------
    Path
    """
    return (Path(torch.hub.get_dir()) if home is None else home / "hub") / "checkpoints"


def fetch(url: str, folder: Path, *, progress: bool = False, name: str | None = None) -> Path:
    """Return a weights file of a folder, after downloading it if it is not there.

    The download has a temporary name until it is complete and its hash agrees with the one in the file's
    name.

    Parameters
    ----------
    url : str
        Where the file is published.
    folder : Path
        Where it is kept.
    progress : bool
        Show a bar on stderr while downloading.
    name : str, optional
        The network, for the error; default, the file's name.

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        If the file is not there and cannot be had.
    DataError
        If what arrives does not have the hash that its name promises.
    """
    path = folder / Path(urlparse(url).path).name
    if path.is_file():
        return path
    promised = HASH_IN_NAME.search(path.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _patience(SECONDS_TO_CONNECT):
            torch.hub.download_url_to_file(url, str(path), promised and promised[1], progress=progress)
    except RuntimeError as error:  # torch's word for a hash that does not agree
        raise DataError(f"{url}: download is damaged ({_one_line(error)}); fetch it again") from error
    except OSError as error:
        raise MissingInputError(
            f"weights {path.name} of {name or path.stem} are not in {folder} and cannot be downloaded "
            f"({_one_line(error)}); run `bidsdnn-fetch {name or 'NAME'} --dir DIR` where there is internet, "
            "then set TORCH_HOME=DIR"
        ) from error
    return path


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up on connections after some seconds; torch's download has no such parameter."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def check_hash(path: Path, sha256: str) -> None:
    """Compare a file's hash with the one in its name, if its name has one.

    Parameters
    ----------
    path : Path
        A file as torchvision publishes it.
    sha256 : str
        The hash of its bytes.

    Raises
    ------
    DataError
        If they differ.
    """
    promised = HASH_IN_NAME.search(path.name)
    if promised and not sha256.startswith(promised[1]):
        raise DataError(
            f"{path}: sha256 {sha256[:16]}... is not the {promised[1]} of its name; delete it, fetch it again"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict; nothing that the file holds is run.

    A ``state_dict`` or ``model`` entry around it is unwrapped, and parallel training's prefix ``module.``
    removed.

    Parameters
    ----------
    path : Path
        A file of ``torch.save``, or ``.safetensors``.

    Returns
    -------
    dict of str to Tensor
        On the CPU, with torch's version metadata where the file has it.

    Raises
    ------
    MissingInputError
        If the file is not there.
    DataError
        If it is damaged, wants to run code, or holds anything but named tensors.
    ConfigError
        If it is a ``.safetensors`` file and that package is not installed.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: weights not found; check the path")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise DataError(f"{path}: expected a state dict (names to tensors); save `model.state_dict()` in it")
    if all(key.startswith("module.") for key in content):
        stripped = OrderedDict((key.removeprefix("module."), tensor) for key, tensor in content.items())
        metadata = getattr(content, "_metadata", None)
        if metadata is not None:  # the modules' versions, by which torch reads old files
            stripped._metadata = {  # type: ignore[attr-defined]
                key.removeprefix("module").removeprefix("."): value for key, value in metadata.items()
            }
        return stripped
    return content


def _read_safetensors(path: Path) -> Any:
    try:
        package = importlib.import_module("safetensors")
        reader = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ConfigError(f"{path}: reading .safetensors needs a package; `pip install safetensors`") from error
    try:
        return reader.load_file(path)
    except (package.SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable .safetensors file ({_one_line(error)}); replace it") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise DataError(
                f"{path}: refused, because reading it would run code ({wanted[1]}); "
                "save `model.state_dict()` only, with no other objects"
            ) from error
        raise DataError(f"{path}: not a readable weights file ({_one_line(error)}); replace it") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable weights file ({_one_line(error)}); replace it") from error


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Fill a module's parameters and buffers, all of them and with nothing left over.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    state : dict of str to Tensor
        What `read_state` returned.
    path : Path
        Where it came from, for the error.

    Raises
    ------
    DataError
        If names or shapes do not fit; names the first of each kind.
    """
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        own = module.state_dict()
        check_fit([key for key in own if key not in state], [key for key in state if key not in own], path)
        first = str(error).partition("\n\t")[2].partition("\n")[0] or str(error)
        raise DataError(
            f"{path}: weights do not fit the network ({_one_line(first)}); choose the matching one"
        ) from error
    check_fit(missing, unexpected, path)


def check_fit(missing: Sequence[str], unexpected: Sequence[str], path: Path) -> None:
    """Refuse weights that leave something unfilled, or have something left over.

    Parameters
    ----------
    missing, unexpected : sequence of str
        Names of parameters and buffers.
    path : Path
        Where the weights came from.

    Raises
    ------
    DataError
        If there are any; names the first of each kind.
    """
    found = {"missing": missing, "unexpected": unexpected}
    problems = [f"{len(keys)} {kind}, first {keys[0]!r}" for kind, keys in found.items() if keys]
    if problems:
        raise DataError(f"{path}: weights do not fit the network ({'; '.join(problems)}); choose the matching one")


def filled(
    make: Callable[[], nn.Module],
    *,
    weights: str,
    seed: int,
    name: str,
    published: Mapping[str, str],
    current: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state,
    load: Callable[[nn.Module, dict[str, Tensor], Path], None] = load_state,
) -> tuple[nn.Module, str, str]:
    """Make a module and fill it: with seeded random weights, published ones, or a file's.

    Parameters
    ----------
    make : callable
        Makes the module, with random weights.
    weights : str
        ``none``, ``DEFAULT`` for the first published, the name of published ones, or a file.
    seed : int
        Of random weights.
    name : str
        The network, for errors.
    published : mapping of str to str
        URLs of published weights.
    current : callable
        Brings the names in a file up to date.
    load : callable
        Fills the module from a state dict.

    Returns
    -------
    module : nn.Module
        In evaluation mode.
    label : str
        What the weights are called: ``none``, the published ones' name, or the file's.
    sha256 : str
        Of the file; of the module's state where there is none.

    Raises
    ------
    ConfigError
        If there are no such weights.
    MissingInputError, DataError
        If they cannot be had, or do not fit.
    """
    path = Path(weights).expanduser()
    asked = next(iter(published), "") if weights == "DEFAULT" else weights
    if weights == "none":
        module = seeded(make, seed).eval()
        return module, "none", state_sha256(module)
    if asked not in published and not path.is_file():
        known = ", ".join(["DEFAULT", "none", *sorted(published)] if published else ["none", "a file"])
        raise ConfigError(f"weights {weights!r} of {name}: no such file, and not one of {known}")
    if asked in published:
        path = fetch(published[asked], checkpoint_folder(), name=name)
    sha256 = file_sha256(path)
    if asked in published:
        check_hash(path, sha256)
    state = current(read_state(path))
    module = seeded(make, seed).eval()
    load(module, state, path)
    return module, asked if asked in published else path.name, sha256


def without(prefixes: tuple[str, ...], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the entries of a state dict, in place, whose names begin with any of some words.

    Parameters
    ----------
    prefixes : tuple of str
    state : dict of str to Tensor

    Returns
    -------
    dict of str to Tensor
    """
    for key in [key for key in state if key.startswith(prefixes)]:
        del state[key]
    return state


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """Call a function under a seed, and leave the process's generator as it was.

    Parameters
    ----------
    make : callable
    seed : int

    Returns
    -------
    object
        What the function returns.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make()


def state_sha256(module: nn.Module) -> str:
    """Hash a module's parameters and buffers: names, types, shapes and values.

    Parameters
    ----------
    module : nn.Module
        On any device.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):  # a module's extra state may be anything
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _one_line(error: object) -> str:
    """Shorten an error to its first sentence, for a message of one line."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[.;]) ", text, maxsplit=1)[0][:160] or type(error).__name__
