"""From a stimulus on disk to a network's input."""

from __future__ import annotations

from torch import Tensor

from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.network import Network
from bidsdnn.stimuli import Stimuli


def require_modality(network: Network, stimuli: Stimuli) -> None:
    """Check that a network takes stimuli of this kind.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli

    Raises
    ------
    ConfigError
        If some are of another modality; names the first.
    """
    other = stimuli.table[stimuli.table["modality"] != network.modality]
    if len(other):
        raise ConfigError(
            f"network {network.label} takes {network.modality}, and {len(other)} of {len(stimuli)} stimuli are not: "
            f"{other['filename'].iloc[0]} is {other['modality'].iloc[0]}; name a network for them with --network, or "
            "leave them out with --event-filter"
        )


def prepared(network: Network, stimuli: Stimuli, row: int) -> Tensor:
    """Load one stimulus and make it the network's input.

    Parameters
    ----------
    network : Network
    stimuli : Stimuli
    row : int
        Its place in the table.

    Returns
    -------
    Tensor
        Without a batch axis.

    Raises
    ------
    MissingInputError, DataError
        If it is missing, unreadable, or not fit for the network; names it.
    """
    loaded = stimuli.read(row)
    try:
        return network.preprocess(loaded)
    except DataError as error:
        raise DataError(f"{stimuli.paths[row]}: {error}") from error
    except ValueError as error:
        raise DataError(f"{stimuli.ids[row]}: not fit for {network.label} ({error}); leave it out") from error
