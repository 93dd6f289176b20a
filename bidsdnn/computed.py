"""Feature spaces computed from the stimuli, kept in the output as a network's activations are."""

from __future__ import annotations

from collections.abc import Sequence

from bidsdnn import activations
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.config import Config
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import summary
from bidsdnn.networks import controls
from bidsdnn.patterns import Patterns
from bidsdnn.stimuli import Stimuli


def computed_features(
    names: Sequence[str], stimuli: Stimuli, derivatives: Derivatives, *, config: Config
) -> list[tuple[Patterns, str]]:
    """Read or compute features of some stimuli.

    Parameters
    ----------
    names : sequence of str
        Rows of `controls.FEATURES`.
    stimuli : Stimuli
        With hashes; of one modality.
    derivatives : Derivatives
    config : Config

    Returns
    -------
    list of (Patterns, str)
        By feature, with the hash of what it depends on; network and layer bear its name.

    Raises
    ------
    ConfigError
        If a feature is not for these stimuli.
    """
    kinds = sorted(set(stimuli.table["modality"]))
    if names and not kinds:
        takes = " and ".join(controls.MODALITIES[names[0]])
        raise ConfigError(f"--features {names[0]}: computed of {takes}, of which there are none; leave it out")
    if names and len(kinds) > 1:
        raise ConfigError(
            f"--features {names[0]}: stimuli are {' and '.join(kinds)}; choose one kind with --event-filter"
        )
    made = []
    for name in names:
        network = controls.control(name, kinds[0])
        made.append(activations.ensure(network, [name], controls.readings(name, stimuli), derivatives, config=config))
    return made


def described(names: Sequence[str]) -> str:
    """How features were computed, in sentences for the Methods; empty where there are none."""
    said = " ".join(summary(controls.FEATURES[name]) for name in names)
    return f" Features computed from the stimuli stand where a network's layer does. {said}" if names else ""
