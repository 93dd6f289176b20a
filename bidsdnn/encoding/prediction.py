"""What ``--analysis predict`` may be asked for: stored encoders, applied to stimuli that were not shown."""

from __future__ import annotations

from bidsdnn.config import Config
from bidsdnn.errors import ConfigError

PREDICT = "predict"


def check_prediction(config: Config) -> None:
    """Refuse what a prediction does not allow.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
    """
    if PREDICT not in config.analysis:
        return
    if len(config.analysis) > 1:
        others = " ".join(name for name in config.analysis if name != PREDICT)
        raise ConfigError(f"--analysis predict {others}: predict stands alone, as its --stimuli-dir is another")
    if config.analysis_level != "participant":
        raise ConfigError(f"--analysis predict at the {config.analysis_level} level: ask for participant")
    if config.stimuli_dir is None:
        raise ConfigError("--analysis predict: give the folder of the new stimuli with --stimuli-dir")
    if not config.networks:
        raise ConfigError("--analysis predict with --network none: name the network of the encoding")
    for flag, value in (("--pca", config.pca), ("--projection auto", config.projection == "auto" or None)):
        if value is not None:
            raise ConfigError(
                f"--analysis predict with {flag}: what it makes depends on all stimuli; run the encoding and this "
                "without it"
            )
