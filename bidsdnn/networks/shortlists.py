"""Short names of layers, as papers use them: ``conv5`` of AlexNet, ``block3`` of a transformer, ``stage2`` of Swin.

Where a module's own names are the usual ones (``layer1`` to ``layer4`` of ResNet), there is nothing to add. Numbers
start at 1.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

# Beginning of the name, what holds the blocks, and which of its children count; None for all.
_BLOCKS: tuple[tuple[str, str, str, tuple[str, ...] | None], ...] = (
    ("vit_", "block", "encoder.layers", None),
    ("mvit_", "block", "blocks", None),
    ("maxvit_", "stage", "blocks", None),
    ("convnext_", "stage", "features", ("1", "3", "5", "7")),
    ("swin3d_", "stage", "features", ("0", "2", "4", "6")),
    ("swin_", "stage", "features", ("1", "3", "5", "7")),
    ("efficientnet_", "stage", "features", ("1", "2", "3", "4", "5", "6", "7")),
    ("densenet", "stage", "features", ("denseblock1", "denseblock2", "denseblock3", "denseblock4")),
    ("regnet_", "stage", "trunk_output", None),
)
_STEMS = {"swin3d_": "patch_embed", "convnext_": "features.0", "swin_": "features.0", "efficientnet_": "features.0"}


def short_names(name: str, module: nn.Module) -> dict[str, str]:
    """Name the layers of torchvision's classifiers as papers do.

    Of AlexNet and VGG, ``conv1`` or ``conv1_1`` and ``fc6`` are the convolutions and linear maps themselves, before
    the ReLU; ``conv1_relu`` is what follows, and ``pool1`` the pooling.

    Parameters
    ----------
    name : str
        Torchvision's.
    module : nn.Module

    Returns
    -------
    dict of str to str
        Short name to dotted name; empty where the module's own names are the usual ones.
    """
    if name == "alexnet" or name.startswith("vgg"):
        return _convolutions(module.get_submodule("features"), blocks=name != "alexnet") | _linear(module)
    found: dict[str, str] = {}
    stem = next((layer for start, layer in _STEMS.items() if name.startswith(start)), None)
    if stem:
        found["stem"] = stem
    for start, word, holder, children in _BLOCKS:
        if name.startswith(start):
            chosen: Iterable[str] = children or [child for child, _ in module.get_submodule(holder).named_children()]
            return found | {f"{word}{i}": f"{holder}.{child}" for i, child in enumerate(chosen, start=1)}
    return found


def _convolutions(features: nn.Module, *, blocks: bool) -> dict[str, str]:
    """Number convolutions, or blocks of them that end in a pooling."""
    found: dict[str, str] = {}
    block, within, last = 1, 0, ""
    for child, part in features.named_children():
        if isinstance(part, nn.Conv2d):
            within += 1
            last = f"conv{block}_{within}" if blocks else f"conv{within}"
            found[last] = f"features.{child}"
        elif isinstance(part, nn.ReLU):
            found[f"{last}_relu"] = f"features.{child}"
        elif isinstance(part, nn.MaxPool2d):
            found[f"pool{block if blocks else within}"] = f"features.{child}"
            block, within = block + 1, 0 if blocks else within
    return found


def _linear(module: nn.Module) -> dict[str, str]:
    """Number the linear maps after five stages of convolutions: 6, 7 and 8."""
    found: dict[str, str] = {}
    number = 5
    for child, part in module.get_submodule("classifier").named_children():
        if isinstance(part, nn.Linear):
            number += 1
            found[f"fc{number}"] = f"classifier.{child}"
        elif isinstance(part, nn.ReLU):
            found[f"fc{number}_relu"] = f"classifier.{child}"
    return found
