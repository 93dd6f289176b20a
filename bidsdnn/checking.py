"""What can be refused of a configuration before any data is read: names, parameters, files that must be there."""

from __future__ import annotations

import inspect

from bidsdnn.analyses import ANALYSES, NEEDS_NETWORK
from bidsdnn.bids.columns import check_table
from bidsdnn.bids.confounds import STRATEGIES, known_strategy
from bidsdnn.bids.files import read_json
from bidsdnn.bids.names import require
from bidsdnn.bids.people import check_people
from bidsdnn.config import Config
from bidsdnn.cuts import parse_cut
from bidsdnn.decoding.checks import check_decoding
from bidsdnn.decoding.models import decoders_of
from bidsdnn.encoding.bands import check_bands
from bidsdnn.encoding.joint import check_joint
from bidsdnn.encoding.models import check_encoder
from bidsdnn.encoding.partition import KEY as PARTITION
from bidsdnn.encoding.prediction import PREDICT, check_prediction
from bidsdnn.errors import ConfigError
from bidsdnn.extraction import reduction_of
from bidsdnn.features import check_features
from bidsdnn.geometry import METRICS, is_own
from bidsdnn.geometry import check as check_rsa
from bidsdnn.lookup import bind, closest, resolve
from bidsdnn.methods.responses import HRFS
from bidsdnn.networks.devices import device as torch_device
from bidsdnn.precomputed import NAME as PRECOMPUTED
from bidsdnn.probes import CUTS, NEEDS_UNITS, OF_NETWORKS, PROBES
from bidsdnn.probes.units import BrainUnit, parse_unit
from bidsdnn.responses import ESTIMATORS
from bidsdnn.searchlights import check_parameters

SUPPLIED = (
    "regions", "permutations", "seed", "map", "device", "metric", "comparisons", "trials", "residuals", "columns",
    "stimuli", "iterate", "radius", "ceiling", "encoder", "encoder_parameters", "cv", "parts",
    "region_encoder_parameters",
    "save_predictions", "save_weights", "scratch",
    "targets", "decoder", "decoder_parameters", "networks", "workers", "checkpoint", "identity",
)  # fmt: skip
"""What the program itself passes to an analysis that takes it."""

SUPPLIED_TO_PROBES = (
    "layers", "units", "device", "seed", "map", "permutations", "workers", "activations", "targets", "decoder",
    "decoder_parameters", "cv", "parts", "checkpoint", "identity",
)  # fmt: skip
"""What the program itself passes to a probe that takes it."""

SUPPLIED_TO_RESPONSES = ("frame_times", "nuisance", "hrf", "noise", "device", "sessions")
"""What the program itself passes to an estimator that takes it."""


def check_configuration(config: Config) -> None:
    """Check names, parameters, atlases, device and output before any data is read.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError, MissingInputError
        If one of them cannot be used.
    """
    if config.analysis_level == "dnn" and not config.networks and not config.computed_features:
        raise ConfigError(
            "--network none: the dnn level computes activations; name a network, or --features to compute"
        )
    for text in config.ablate:
        parse_cut(text)
    torch_device(config.device)
    reduction_of(config, 1)
    for path in (*config.atlas, *config.mesh):
        require(path)
    there = read_json(config.out_dir / "dataset_description.json") if config.out_dir.is_dir() else {}
    if there and not any(one.get("Name") == "bidsdnn" for one in there.get("GeneratedBy", [])):
        raise ConfigError(f"out_dir {config.out_dir} holds another dataset ({there.get('Name')}); choose a new folder")
    check_prediction(config)
    for name in config.analysis if config.analysis != (PREDICT,) else ():
        rows, given = (PROBES, SUPPLIED_TO_PROBES) if is_probe(config, name) else (ANALYSES, SUPPLIED)
        bind(resolve(name, rows), config.parameters.get(name, {}), name=f"analysis {name}", given=given)
    check_probes(config)
    check_parameters(cv=config.cv, **config.parameters.get("searchlight", {}))
    check_response(config)
    check_encoder(config.encoder, config.parameters.get(config.encoder, {}))
    if config.region_encoder is not None:
        check_encoder(config.region_encoder, config.parameters.get(config.region_encoder, {}))
    check_joint(config)
    check_bands(config.parameters.get("variance-partition", {}).get("spaces", "network"), key=PARTITION)
    for name in ("rsa", "similarity"):
        check_rsa(config.rdm_metric, config.rdm_comparison, config.iterate, config.parameters.get(name, {}))
    if "searchlight" in config.analysis:
        for flag, name in (("metric", config.rdm_metric), ("comparison", config.rdm_comparison[0])):
            if is_own(name):
                raise ConfigError(
                    f"--rdm-{flag} {name}: --analysis searchlight takes bidsdnn's own, which are fast enough for a "
                    f"brain; choose one of `bidsdnn --list {'dis' * (flag == 'metric')}similarities`, or leave it out"
                )
    if "searchlight" in config.analysis and config.rdm_metric not in METRICS:
        raise ConfigError(
            f"--rdm-metric {config.rdm_metric}: --analysis searchlight has no single trials; choose one of "
            f"{', '.join(METRICS)}, or leave out the searchlight"
        )
    for column, table in config.columns.items():
        if table is not None:
            check_table(column, table)
    scheme = config.cross_validation
    if scheme.file is not None:
        check_table(scheme.column, scheme.file, flag="--cv column:")
    check_decoding(config)
    check_people(config.bids_dir, config.covariate, config.group_column)
    check_group_model(config)
    check_features(config)
    for name in config.parameters:
        if name not in (*config.analysis, config.response, config.encoder, config.region_encoder, *decoders_of(config)):
            raise ConfigError(
                f"parameters.{name}: this was not asked for; add it to --analysis, or choose it with --response, "
                "--encoder or --decoder"
            )


def check_group_model(config: Config) -> None:
    """Refuse models of a group that nothing asked for could be fitted by; other levels take no notice of them."""
    if not config.group_model or config.analysis_level != "group":
        return
    if config.rdm:
        raise ConfigError("--group-model: RDMs of --rdm hold no responses to average or predict; leave out either")
    if config.networks or config.features or config.computed_features:
        return
    if set(config.analysis) <= NEEDS_NETWORK:
        raise ConfigError(
            f"--group-model with --network none: {' and '.join(config.analysis)} needs layers or --features; "
            "leave out --network none, or ask for --analysis rsa or decoding"
        )


def is_probe(config: Config, name: str) -> bool:
    """Whether an analysis is one of a network alone: a row of `PROBES`, or at the dnn level a user's own."""
    return name in PROBES or (config.analysis_level == "dnn" and name not in ANALYSES and name != PREDICT)


def check_probes(config: Config) -> None:
    """Check that probes and their units are asked for where they can be had.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
    """
    probes = [name for name in config.analysis if is_probe(config, name)]
    others = [name for name in config.analysis if name not in probes]
    brains = [text for text in config.unit if isinstance(parse_unit(text), BrainUnit)]
    level = config.analysis_level
    if config.unit and not probes and level != "group":
        raise ConfigError(f"--unit {config.unit[0]}: no analysis looks at units; name one with --analysis, as "
                          "top-stimuli")  # fmt: skip
    if level == "dnn" and probes and others:
        raise ConfigError(
            f"--analysis {others[0]}: needs a brain, and {probes[0]} none; run the one at the participant level and "
            "the other at the dnn level"
        )
    if level == "dnn" and brains:
        raise ConfigError(f"--unit {brains[0]}: a region is a participant's; run it at the participant level")
    if level == "participant" and brains and not config.networks:
        raise ConfigError(f"--unit {brains[0]}: an encoder is put onto its network; name that with --network")
    if level == "dnn" and probes and not config.networks:
        raise ConfigError(f"--analysis {probes[0]}: looks into a network; name one with --network")
    if level == "participant" and set(probes) - CUTS and len(brains) < len(config.unit):
        other = next(text for text in config.unit if text not in brains)
        raise ConfigError(f"--unit {other}: is a network's, and needs no brain; run it at the dnn level")
    if level == "participant" and probes and not brains:
        raise ConfigError(
            f"--analysis {probes[0]}: needs no brain; run it at the dnn level, or give --unit brain:REGION"
        )
    of_networks = [name for name in probes if name in OF_NETWORKS]
    if level == "participant" and of_networks:
        name = of_networks[0]
        raise ConfigError(f"--analysis {name}: {OF_NETWORKS[name]}; leave it out, or run it at the dnn level")
    lacking = [name for name in probes if name in NEEDS_UNITS]
    if lacking and not config.unit and level != "group":
        raise ConfigError(f"--analysis {lacking[0]}: which units? Name them with --unit LAYER:CHANNEL")


def check_response(config: Config) -> None:
    """Check the estimator of responses, its parameters and its models of response and noise."""
    for path in (config.stimulus_id_map,) if config.stimulus_id_map else ():
        require(path)
    if config.response == PRECOMPUTED:
        return
    estimator = resolve(config.response, {**ESTIMATORS, PRECOMPUTED: None})
    bind(
        estimator, config.parameters.get(config.response, {}),
        name=f"response {config.response}", given=SUPPLIED_TO_RESPONSES,
    )  # fmt: skip
    taken = inspect.signature(estimator).parameters
    # The mean over a window takes the parameter, and no value but ols.
    if config.noise != "ols" and ("noise" not in taken or config.response == "window"):
        raise ConfigError(f"--noise {config.noise}: {config.response} has no model of the noise; use --noise ols")
    for name in config.confounds:
        # No column has the name of a strategy with another number.
        if name.partition("-")[0] in {known.partition("-")[0] for known in STRATEGIES} and not known_strategy(name):
            raise ConfigError(f"--confounds {name}: no such strategy; {closest(name, STRATEGIES)}")
    if config.hrf == "library" and config.response != "glmsingle":
        raise ConfigError(f"--hrf library: {config.response} has one response for all voxels; use --response glmsingle")
    resolve(config.hrf, {name: name for name in (*HRFS, "library")})
