"""Parts of the configuration: a network and a cross-validation as one word of a flag, inputs, and edits of events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bidsdnn.errors import ConfigError


class NetworkSpec(BaseModel):
    """One ``--network``: its builder, its weights, and the name it goes by in files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weights: str
    alias: str | None = None

    @classmethod
    def parse(cls, text: str, *, weights: str) -> NetworkSpec:
        """Read ``[ALIAS=]NAME[@WEIGHTS]``.

        Parameters
        ----------
        text : str
        weights : str
            The weights where the text names none.

        Returns
        -------
        NetworkSpec
        """
        alias, equals, rest = text.partition("=")
        if not equals:
            alias, rest = "", text
        name, _, own = rest.partition("@")
        if not name:
            raise ConfigError(f"--network {text!r} names no network; write [ALIAS=]NAME[@WEIGHTS]")
        if alias and not re.fullmatch(r"[0-9a-zA-Z+]+", alias):
            raise ConfigError(f"--network {text!r}: an alias has letters, digits and + only, as in mynet={name}")
        return cls(name=name, weights=own or weights, alias=alias or None)


@dataclass(frozen=True)
class CrossValidation:
    """One ``--cv``: what is held out.

    Parameters
    ----------
    kind : str
        ``kfold``, ``stimulus``, ``run``, ``session`` or ``column``.
    k : int
        Folds of ``kfold``; else how many are held out together.
    column : str
        Whose values are ``train`` and ``test``.
    file : Path, optional
        The table that the column is in.
    """

    kind: Literal["kfold", "stimulus", "run", "session", "column"]
    k: int = 1
    column: str = ""
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> CrossValidation:
        """Read ``kfold:N``, ``leave-one-out``, ``leave-K-runs-out``, ``leave-one-session-out``, ``column:NAME[=FILE]``.

        Parameters
        ----------
        text : str

        Returns
        -------
        CrossValidation

        Raises
        ------
        ValueError
            If it is none of these.
        """
        folds, given = re.fullmatch(r"kfold:(\d+)", text), re.fullmatch(r"column:([^=]+)(?:=(.+))?", text)
        if folds and int(folds[1]) >= 2:
            return cls("kfold", int(folds[1]))
        if text in ("leave-one-out", "leave-one-stimulus-out"):
            return cls("stimulus")
        left = re.fullmatch(r"leave-(one|[1-9]\d*)-(run|session)s?-out", text)
        if left:
            return cls("run" if left[2] == "run" else "session", 1 if left[1] == "one" else int(left[1]))
        if given:
            return cls("column", column=given[1], file=Path(given[2]).expanduser().absolute() if given[2] else None)
        raise ValueError(
            "choose kfold:N with 2 folds or more, leave-one-out, leave-one-run-out, leave-2-runs-out, "
            "leave-one-session-out, or column:NAME[=FILE.tsv] with values train and test"
        )

    def __str__(self) -> str:
        """As `parse` reads it."""
        if self.kind == "kfold":
            return f"kfold:{self.k}"
        if self.kind == "stimulus":
            return "leave-one-out"
        if self.kind == "column":
            return f"column:{self.column}" + (f"={self.file}" if self.file else "")
        return f"leave-one-{self.kind}-out" if self.k == 1 else f"leave-{self.k}-{self.kind}s-out"


class NetworkInput(BaseModel):
    """What a network is given, where neither it nor its library says so, or they are overruled.

    Of pictures and films, the shorter side is scaled to ``resize`` (256 / 224 of the size, where not said) and the
    centre cut out; of films, ``frames`` are taken at ``frame_rate``; of sounds, ``seconds`` at ``sampling_rate``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    modality: Literal["image", "video", "audio"] = "image"
    input_size: int = Field(default=224, ge=1)
    resize: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    frames: int = Field(default=16, ge=1)
    frame_rate: float = Field(default=15.0, gt=0, allow_inf_nan=False)
    sampling_rate: int = Field(default=16_000, ge=1)
    seconds: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _channels(self) -> NetworkInput:
        channels = 1 if self.modality == "audio" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != channels:
                raise ValueError(f"{name} has {len(values)} values; {self.modality} has {channels}, one a channel")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {min(self.std)} is not above 0")
        if self.resize is not None and self.resize < self.input_size:
            raise ValueError(
                f"resize {self.resize} is less than input_size {self.input_size}; nothing could be cut out"
            )
        return self


class EventEdits(BaseModel):
    """How the names in one column of the events are changed before anything reads them: split, renamed, merged.

    Each step sees the names that the one before left. ``split`` adds the value of another column to a name, as
    ``face_male``; where that value is missing the name stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    column: str = "trial_type"
    split: dict[str, str] = Field(default_factory=dict)
    rename: dict[str, str] = Field(default_factory=dict)
    merge: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _once(self) -> EventEdits:
        merged = [name for names in self.merge.values() for name in names]
        twice = next((name for name in merged if merged.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"events.merge: {twice!r} is merged twice; name it once")
        return self
