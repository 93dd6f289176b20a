"""Networks of other frameworks, from the files they are handed over in: ONNX and Keras.

A file holds its own weights. Of an ONNX file each node is a layer, of a Keras file each layer of the outermost model.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.networks import weights as files
from bidsdnn.networks.libraries import needed, with_listed
from bidsdnn.networks.network import Network
from bidsdnn.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, standard_preprocess
from bidsdnn.stimuli import file_sha256

USUAL_SIZE = 224


def _own_weights(path: Path, weights: str, *, also: tuple[str, ...] = ()) -> None:
    """Refuse weights that are not the file's own."""
    if not path.is_file():
        raise MissingInputError(f"{path}: network not found; check the path")
    if weights not in ("DEFAULT", *also):
        choice = " or ".join(("DEFAULT", *also))
        raise ConfigError(f"weights {weights!r} of {path.name}: the file holds its own; say {choice}")


def _side(path: Path, height: int | None, width: int | None, channels: int | None) -> int:
    """Check that a network takes square pictures of three channels; their side."""
    if channels not in (None, 3) or height != width:
        raise ConfigError(
            f"{path.name} takes {channels} channels of {height} x {width}; only square pictures of 3 channels are made "
            "ready: write a builder that returns a Network with a preprocess of your own"
        )
    return height or USUAL_SIZE


def onnx_network(path: Path, *, weights: str, seed: int) -> Network:
    """Build the network of an ONNX file; pictures are normalised as ImageNet's, unless the TOML file says else.

    Parameters
    ----------
    path : Path
        A file whose one input is of shape (n, 3, height, width).
    weights : str
        ``DEFAULT``: the file's own.
    seed : int
        Not used.

    Returns
    -------
    Network

    Raises
    ------
    ConfigError
        If ONNX's libraries are missing, or the input is not pictures.
    DataError
        If the file is damaged, has an operator that is not known, or takes a batch of one only.
    """
    _own_weights(path, weights)
    onnx, converter = (needed(module, extra="onnx", asked=path.name) for module in ("onnx", "onnx2torch"))
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's errors have no base of their own
        raise DataError(f"{path}: not a readable ONNX file ({_line(error)}); export it again") from error
    _without_identities(model.graph)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in held]
    sizes = [axis.dim_value or None for axis in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(sizes) != 4:
        raise ConfigError(f"{path.name}: expected one input of shape (n, 3, height, width), got {len(inputs)}, {sizes}")
    side = _side(path, sizes[2], sizes[3], sizes[1])
    try:
        module = _flat(converter.convert(model)).eval()
    except NotImplementedError as error:
        raise DataError(f"{path}: {_line(error)}; export it with opset_version=17, or other operators") from error
    preprocess, preprocessing = standard_preprocess(side, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    try:
        with torch.inference_mode():
            module(torch.zeros(2, 3, side, side))
    except RuntimeError as error:
        raise DataError(
            f"{path}: does not take a batch of 2 ({_line(error)}); export it with a dynamic first axis"
        ) from error
    made = Network(path.name, module, preprocess, preprocessing, "own", None, file_sha256(path), source="onnx")
    return with_listed(made, ordered=True)


def _without_identities(graph: Any) -> None:
    """Take out the nodes that pass on what they get, as exporters make for equal weights: the converter knows few."""
    outputs = {entry.name for entry in graph.output}
    idle = [node for node in graph.node if node.op_type == "Identity" and node.output[0] not in outputs]
    source = {node.output[0]: node.input[0] for node in idle}
    for node in idle:
        graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            while name in source:
                name = source[name]
            node.input[i] = name


def _flat(graph: Any) -> nn.Module:
    """Give the nodes of a converted graph names without ``/`` and ``.``, which mean other things here."""
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        if node.target not in renamed:
            plain = re.sub(r"[^0-9A-Za-z]+", "_", node.target).strip("_") or "node"
            name = plain
            while name in taken:
                name = f"{plain}_{len(taken)}"
            taken.add(name)
            renamed[node.target] = name
        node.target = renamed[node.target]
    modules = {new: graph.get_submodule(old) for old, new in renamed.items()}
    for old in renamed:
        graph.delete_submodule(old)
    for new, module in modules.items():
        graph.add_submodule(new, module)
    graph.recompile()
    return graph


def keras_network(path: Path, *, weights: str, seed: int) -> Network:
    """Build the network of a Keras file, run by torch; pixels are 0..255, unless the TOML file says else.

    Parameters
    ----------
    path : Path
        A ``.keras`` or ``.h5`` file of a functional or sequential model whose one input is pictures.
    weights : str
        ``DEFAULT``: the file's own; ``none``: new ones by the layers' initializers.
    seed : int
        Of random weights.

    Returns
    -------
    Network

    Raises
    ------
    ConfigError
        If Keras is missing or runs on something else than torch, or the input is not pictures.
    DataError
        If the file is damaged, or wants to run code.
    """
    _own_weights(path, weights, also=("none",))
    keras = _keras(path)
    try:
        with keras.device("cpu"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of a damaged file, whatever its archive, JSON and HDF5 readers raise
        if "Lambda" in str(error) or "safe_mode" in str(error):
            raise DataError(
                f"{path}: refused, because reading it would run code (a Lambda layer); write the layer as a class"
            ) from error
        raise DataError(f"{path}: not a readable Keras file ({_line(error)}); save it again") from error
    if weights == "none":
        with _python_seed(seed), keras.device("cpu"):
            model = keras.models.clone_model(model)
    shape = tuple(model.inputs[0].shape) if len(getattr(model, "inputs", None) or ()) == 1 else ()
    if len(shape) != 4:
        raise ConfigError(f"{path.name}: expected a model of one input (n, height, width, 3), got {shape}")
    first = keras.config.image_data_format() == "channels_first"
    channels, height, width = shape[1:] if first else (shape[3], *shape[1:3])
    side = _side(path, height, width, channels)
    with keras.device("cpu"):
        module = KerasLayers(keras, model, channels_first=first).eval()
    preprocess, preprocessing = standard_preprocess(side, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    untrained = weights == "none"
    return with_listed(
        Network(
            name=path.name,
            module=module,
            preprocess=preprocess,
            preprocessing=preprocessing,
            weights="none" if untrained else "own",
            seed=seed if untrained else None,
            weights_sha256=files.state_sha256(module) if untrained else file_sha256(path),
            source="keras",
        )
    )


def _keras(path: Path) -> Any:
    """Import Keras so that torch computes."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keras = needed("keras", extra="keras", asked=path.name)
    if keras.config.backend() != "torch":
        raise ConfigError(f"{path.name}: Keras runs on {keras.config.backend()}; set KERAS_BACKEND=torch")
    return keras


def saved_model(path: Path, *, weights: str, seed: int) -> NoReturn:
    """Say what to do with TensorFlow's own format.

    Parameters
    ----------
    path : Path
    weights : str
    seed : int

    Raises
    ------
    ConfigError
        Always.
    """
    raise ConfigError(
        f"{path}: TensorFlow's SavedModel cannot be read without TensorFlow; export it to ONNX "
        "(`python -m tf2onnx.convert --saved-model DIR --output model.onnx`) or save it as .keras"
    )


class KerasLayers(nn.Module):
    """A Keras model whose layers' outputs each pass through a module of the layer's name, where hooks see them.

    Maps have their channels first, as everywhere in torch.

    Parameters
    ----------
    keras : module
    model : keras.Model
    channels_first : bool
        Whether the model itself has them first.
    """

    def __init__(self, keras: Any, model: Any, *, channels_first: bool) -> None:
        super().__init__()
        kinds, inputs, outputs = _tapped(keras, model)
        # In tuples, because torch would register Keras's own modules, which no hook reaches.
        self._held = (keras, keras.Model(inputs, outputs))
        self._channels_first = channels_first
        self._names = list(kinds)
        # The same tensors as Keras's, so that moving and hashing this module is moving and hashing the model.
        self.variables = nn.ParameterList([variable.value for variable in model.variables])
        for name, kind in kinds.items():
            self.add_module(name, type(kind, (nn.Identity,), {})())

    def forward(self, pictures: Tensor) -> Tensor:
        """Run the model on pictures of shape (n, 3, height, width)."""
        keras, model = self._held
        given = pictures if self._channels_first else pictures.permute(0, 2, 3, 1)
        with keras.device(str(pictures.device)):
            outputs = model(given, training=False)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        last = pictures
        for name, output in zip(self._names, outputs, strict=True):
            maps = output.ndim > 3 and not self._channels_first
            last = self.get_submodule(name)(output.movedim(-1, 1) if maps else output)
        return last


def _tapped(keras: Any, model: Any) -> tuple[dict[str, str], Any, list[Any]]:
    """Kinds by name, the inputs, and the outputs of all layers, in the order of calls; of shared ones the last call.

    The graph is gone through anew, with the same layers, because a layer that is itself a model knows its output
    within that model only.
    """
    found: dict[str, tuple[str, Any]] = {}

    def call(layer: Any, *given: Any, **more: Any) -> Any:
        output = layer(*given, **more)
        if isinstance(output, keras.KerasTensor):
            name = re.sub(r"[^0-9A-Za-z_]+", "_", layer.name)
            found.pop(name, None)
            found[name] = type(layer).__name__, output
        return output

    if isinstance(model, keras.Sequential):
        inputs = keras.Input(batch_shape=model.inputs[0].shape)
        current = inputs
        for layer in model.layers:
            current = call(layer, current)
    else:
        inputs = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call).inputs
    return {name: kind for name, (kind, _) in found.items()}, inputs, [output for _, output in found.values()]


@contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Seed Python's generator, which Keras's initializers draw from, and leave it as it was."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
