"""What was asked, as one frozen value.

Keys of the TOML file are the flags' names with underscores; flags win over the file. The resolved file is written to
the output's ``logs/<run_uuid>/`` and repeats the analysis when it is given back with ``--config-file``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bidsdnn.config_tables import CrossValidation, EventEdits, NetworkInput, NetworkSpec
from bidsdnn.errors import ConfigError
from bidsdnn.lookup import closest
from bidsdnn.presets import filled

LEVELS = ("dnn", "participant", "group")


class Config(BaseModel):
    """Everything that was asked; each field is the flag of the same name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bids_dir: Path
    out_dir: Path
    analysis_level: Literal["dnn", "participant", "group"]

    # which data
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    run_label: tuple[int, ...] = ()
    bids_filter_file: Path | None = None
    derivatives: dict[str, Path] = Field(default_factory=dict)
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    space: str | None = None
    mesh: tuple[Path, ...] = ()
    atlas: tuple[Path, ...] = ()
    raw_bold: bool = False

    # stimuli and networks
    stimuli_dir: Path | None = None
    stimulus_column: str | None = None
    stimulus_pictures: bool = False
    interactive_maps: bool = False
    stimulus_id_map: Path | None = None
    clip_duration: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    mono: bool = False
    skip_unreadable: bool = False
    event_filter: str | None = None
    events: EventEdits = EventEdits()
    network: tuple[str, ...] = ("alexnet",)
    weights: str = "DEFAULT"
    network_inputs: dict[str, NetworkInput] = Field(default_factory=dict, alias="networks")
    layer: tuple[str, ...] = ()
    ablate: tuple[str, ...] = ()
    ablate_to: Literal["zero", "mean", "shuffled"] = "zero"
    unit: tuple[str, ...] = ()
    features: dict[str, Path] = Field(default_factory=dict)
    tokens: Literal["all", "cls", "mean"] = "all"
    mask: dict[str, dict[str, tuple[int, ...]]] = Field(default_factory=dict)
    dmask: Path | None = None
    pooling: str | None = None
    projection: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    pca: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    activation_dtype: Literal["float32", "float16"] = "float32"
    computed_features: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    # analyses
    preset: str | None = None
    response: str = "lss"
    hrf: str = "spm"
    noise: Literal["ols", "ar1"] = "ols"
    confounds: tuple[str, ...] = ("motion",)
    fd_threshold: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    dummy_scans: int | None = Field(default=None, ge=0)
    high_pass: float = Field(default=128.0, gt=0, allow_inf_nan=False)
    smoothing: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    standardize: Literal["none", "psc", "zscore"] = "none"
    slice_time_ref: float | None = Field(default=None, ge=0, le=1)
    analysis: tuple[str, ...] = ("encoding", "rsa")
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    rdm: dict[str, Path] = Field(default_factory=dict)
    rdm_column: tuple[str, ...] = ()
    rdm_metric: str = "correlation"
    rdm_comparison: tuple[str, ...] = ("spearman", "pearson")
    radius: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    iterate: Literal["channel", "position"] | None = None
    encoder: str = "ridge"
    save_predictions: bool = False
    save_weights: bool = False
    decoder: str | None = None
    target: tuple[str, ...] = ()
    cv: str | None = None
    group_model: tuple[Literal["averaged", "stacked", "cross-participant"], ...] = ()
    permutations: int = Field(default=1000, ge=1)
    random_seed: int = Field(default=0, ge=0)
    tfce: bool = False
    covariate: tuple[str, ...] = ()
    group_column: str | None = None

    # which machine
    nprocs: int | None = Field(default=None, ge=1)
    omp_nthreads: int = Field(default=1, ge=1)
    mem_mb: int | None = Field(default=None, ge=1)
    work_dir: Path | None = None
    stop_on_first_crash: bool = False
    reports_only: bool = False
    dry_run: bool = False
    verbose: int = Field(default=0, ge=0)
    notrack: bool = False

    @property
    def stim_csv(self) -> Path | None:
        """The table of DNNBrain that ``--stimuli-dir`` names in place of a folder, if it does."""
        listed = self.stimuli_dir is not None and self.stimuli_dir.name.endswith(".stim.csv")
        return self.stimuli_dir if listed else None

    @field_validator(
        "bids_dir", "out_dir", "bids_database_dir", "work_dir",
        "stimuli_dir", "bids_filter_file", "stimulus_id_map", "dmask",
    )  # fmt: skip
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    @field_validator("weights")
    @classmethod
    def _absolute_weights(cls, text: str) -> str:
        return _absolute_file(text)

    @field_validator("response", "rdm_metric", "encoder", "decoder")
    @classmethod
    def _absolute_response(cls, text: str | None) -> str | None:
        return None if text is None else _absolute_name(text)

    @field_validator("network", "analysis", "rdm_comparison")
    @classmethod
    def _absolute_names(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_absolute_name(text) for text in texts)

    @field_validator("cv")
    @classmethod
    def _known_cv(cls, text: str | None) -> str | None:
        return None if text is None else str(CrossValidation.parse(text))

    @field_validator("network_inputs")
    @classmethod
    def _absolute_inputs(cls, tables: dict[str, NetworkInput]) -> dict[str, NetworkInput]:
        return {_absolute_name(name): table for name, table in tables.items()}

    @field_validator("parameters")
    @classmethod
    def _absolute_keys(cls, tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {_absolute_name(name): table for name, table in tables.items()}

    @field_validator("mesh")
    @classmethod
    def _both_meshes(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(paths) not in (0, 2):
            raise ValueError(f"{len(paths)} files; give the left and the right hemisphere's, --mesh L R")
        return paths

    @field_validator("atlas", "mesh")
    @classmethod
    def _absolute_atlases(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser().absolute() for path in paths)

    @field_validator("features")
    @classmethod
    def _labels(cls, paths: dict[str, Path]) -> dict[str, Path]:
        for name in paths:
            if not re.fullmatch(r"[0-9a-zA-Z+]+", name):
                raise ValueError(
                    f"{name!r}: a name of features has letters, digits and + only, as in --features mine=PATH"
                )
        return paths

    @field_validator("derivatives", "rdm", "features")
    @classmethod
    def _absolute_derivatives(cls, paths: dict[str, Path]) -> dict[str, Path]:
        return {name: path.expanduser().absolute() for name, path in paths.items()}

    @field_validator("rdm_column", "target")
    @classmethod
    def _absolute_columns(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        split = [text.partition("=") for text in texts]
        names = [name for name, _, _ in split]
        for name in names:
            if not name or names.count(name) > 1:
                raise ValueError(f"column {name!r} stands {names.count(name)} times; write NAME or NAME=FILE.tsv once")
        return tuple(name + (f"={Path(path).expanduser().absolute()}" if path else "") for name, _, path in split)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        # A link or `..` must not lead results into the input.
        bids, out = self.bids_dir.resolve(), self.out_dir.resolve()
        if out == bids:
            raise ValueError(
                f"out_dir {self.out_dir} is the input dataset; choose {self.bids_dir / 'derivatives' / 'bidsdnn'}"
            )
        if self.work_dir is not None and self.work_dir.resolve().is_relative_to(bids):
            raise ValueError(f"work_dir {self.work_dir} lies in the input dataset; choose a folder outside it")
        if out.is_relative_to(bids) and not out.is_relative_to(bids / "derivatives"):
            raise ValueError(
                f"out_dir {self.out_dir} lies in the input dataset; choose {self.bids_dir / 'derivatives' / 'bidsdnn'}"
            )
        if "none" in self.network and len(self.network) > 1:
            raise ValueError("network: `none` stands alone; leave it out, or leave out the others")
        if "none" in self.confounds and len(self.confounds) > 1:
            raise ValueError("confounds: `none` stands alone; leave it out, or leave out the others")
        return self

    @property
    def cross_validation(self) -> CrossValidation:
        """What ``--cv`` holds out, by its default where nothing was said."""
        return CrossValidation.parse(self.cv or "kfold:10")

    @property
    def region_encoder(self) -> str | None:
        """The encoder of the regions' rows, where ``[parameters.encoding]`` names another than the voxels'."""
        return self.parameters.get("encoding", {}).get("region_encoder")

    @property
    def columns(self) -> dict[str, Path | None]:
        """Columns of ``--rdm-column``, and the files they are in; None for the dataset's own tables."""
        return _named_tables(self.rdm_column)

    @property
    def targets(self) -> dict[str, Path | None]:
        """Columns of ``--target``, as `columns`."""
        return _named_tables(self.target)

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """The networks asked for; none with ``--network none``."""
        if self.network == ("none",):
            return ()
        return tuple(NetworkSpec.parse(text, weights=self.weights) for text in self.network)


def _named_tables(texts: tuple[str, ...]) -> dict[str, Path | None]:
    split = [text.partition("=") for text in texts]
    return {name: Path(path) if path else None for name, _, path in split}


def _absolute_file(text: str) -> str:
    """An existing file's absolute path; anything else as it is."""
    shuffled = text.startswith("shuffled:")
    path = Path(text.removeprefix("shuffled:")).expanduser()
    return "shuffled:" * shuffled + str(path.absolute()) if path.is_file() else text


def _absolute_name(text: str) -> str:
    """``[ALIAS=]file.py:object[@file]`` with absolute files, so that it means the same from any folder."""
    alias, equals, rest = text.rpartition("=")
    name, at, weights = rest.partition("@")
    file, colon, attribute = name.rpartition(":")
    if file.endswith(".py"):
        name = f"{_absolute_file(file)}{colon}{attribute}"
    elif file == "hf" and Path(attribute).expanduser().is_dir():
        name = f"hf:{Path(attribute).expanduser().absolute()}"
    elif not colon and Path(name).suffix:  # a network in a file, as model.onnx
        name = _absolute_file(name)
    return f"{alias}{equals}{name}{at}{_absolute_file(weights) if at else ''}"


def load_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Parameters
    ----------
    path : Path
        A TOML file whose keys are fields of `Config`.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If the file is missing, no TOML, or has a key that is no field.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config-file {path}: {error.strerror or error}; give a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config-file {path}: not valid TOML ({error})") from error
    keys = {field.alias or name for name, field in Config.model_fields.items()}
    for key in values:
        if key not in keys:
            raise ConfigError(f"--config-file {path}: unknown key {key!r}; {closest(key, keys)}")
    return values


def resolve_config(values: Mapping[str, Any], *, origin: str = "") -> Config:
    """Check what was asked and make it one frozen value.

    Parameters
    ----------
    values : mapping
        Plain values as TOML holds them: strings, numbers, lists, tables.
    origin : str
        The file they came from, for the error.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        In one line: the key, the value and what is wrong with it.
    """
    try:
        # JSON lets strict types still read a path from a string and a tuple from a list.
        config = Config.model_validate_json(json.dumps(filled(values), default=str))
        _ = config.networks
        return config
    except ValidationError as error:
        first, where = error.errors()[0], f"{origin}: " if origin else ""
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not key:
            raise ConfigError(f"{where}{message}") from error
        raise ConfigError(f"{where}{key} = {first['input']!r}: {message}") from error


def to_toml(config: Config) -> str:
    """Write a configuration as TOML that reads back equal.

    Parameters
    ----------
    config : Config

    Returns
    -------
    str
    """
    return tomli_w.dumps(json.loads(config.model_dump_json(exclude_none=True, by_alias=True)))
