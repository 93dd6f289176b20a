"""Choices that belong together, by the name of what was published with them; flags and the TOML file win over each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest

PRESETS: dict[str, dict[str, Any]] = {
    # Chen et al. (2020), Front. Comput. Neurosci. 14, 580632, and its tutorial on mapping between networks and brains.
    "dnnbrain2020": {
        "network": ["alexnet"],
        "layer": [f"conv{number}_relu" for number in range(1, 6)],
        "pca": 100,
        "analysis": ["encoding", "rsa"],
        "encoder": "ols",
        "decoder": "logistic",
        "cv": "kfold:10",
        "rdm_metric": "correlation",
        "rdm_comparison": ["pearson"],
        "parameters": {
            "encoding": {"region_encoder": "pls"},
            "pls": {"n_components": 10, "scale_x": True, "scale_y": True},
        },
    },
}
"""Values of the configuration's fields; parameters are those of models that may be chosen."""


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a preset says and nobody else did.

    Parameters
    ----------
    values : mapping
        Plain values as TOML holds them; ``preset`` names a row of `PRESETS`, or is not there.

    Returns
    -------
    dict
        Layers are filled in with their network only, and parameters for the encoder that is chosen.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    name = values.get("preset")
    if name is None:
        return dict(values)
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: not known; {closest(str(name), PRESETS)}")
    preset = {key: value for key, value in PRESETS[name].items() if key != "parameters"}
    if "network" in values:
        del preset["layer"]
    made = {**preset, **values}
    own, given = PRESETS[name]["parameters"], made.get("parameters", {})
    chosen = {made["encoder"]}
    # Regions have a model of their own beside the preset's encoder of voxels, and beside no other.
    if "encoding" in made["analysis"] and made["encoder"] == preset["encoder"]:
        chosen |= {"encoding", given.get("encoding", {}).get("region_encoder", own["encoding"]["region_encoder"])}
    filled_in = {key: {**own[key], **given.get(key, {})} for key in own if key in chosen}
    if filled_in:
        made["parameters"] = {**given, **filled_in}
    return made
