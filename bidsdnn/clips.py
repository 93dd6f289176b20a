"""What participants were shown, as clips, and without what cannot be read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.shown import Presented
from bidsdnn.config import Config
from bidsdnn.errors import DataError
from bidsdnn.parallel import Outcome, attempt
from bidsdnn.stimuli import LENGTHS, LOADERS, Stimuli, clip, clips_in, unreadable

logger = logging.getLogger(__name__)


def stimuli_of(table: pd.DataFrame, root: Path, *, mono: bool = False) -> Stimuli:
    """Stimuli that were shown, without hashes.

    Parameters
    ----------
    table : DataFrame
        As `Presented.stimuli`.
    root : Path
        The stimuli folder.
    mono : bool
        As `Stimuli`.

    Returns
    -------
    Stimuli
    """
    columns = [name for name in ("stimulus_id", "filename", "modality", "start", "stop") if name in table]
    return Stimuli(table[columns].assign(sha256=""), root, mono)


def cut(shown: Presented, duration: float, root: Path) -> Presented:
    """Replace each presentation of a film or sound by presentations of its clips.

    Clips are called ``<stimulus>@<start>``, follow each other without gaps, and end with the event or the film. An
    event shorter than a clip stays what it is.

    Parameters
    ----------
    shown : Presented
        With events.
    duration : float
        Seconds of a clip.
    root : Path
        The stimuli folder.

    Returns
    -------
    Presented
        Its stimuli have columns ``start`` and ``stop``.

    Raises
    ------
    MissingInputError, DataError
        If a film or sound cannot be read.
    """
    frames = {name: shown.stimuli.get(name, np.nan) for name in ("start", "stop")}
    table = shown.stimuli.assign(**frames).set_index("stimulus_id", drop=False)
    timed = table[table["modality"].isin(list(LENGTHS)) & table["present"].astype(bool)]
    lengths = {name: LENGTHS[row["modality"]](root / row["filename"]) for name, row in timed.iterrows()}
    counts: Counter[str] = Counter()
    made: dict[str, dict[str, Any]] = {}
    events = {path: _cut(rows, lengths, duration, made) for path, rows in shown.events.items()}
    for rows in events.values():
        counts.update(rows.loc[rows["trial"].astype(bool), "stimulus_id"])
    parts = [table.loc[one["of"]].to_dict() | {k: v for k, v in one.items() if k != "of"} for one in made.values()]
    kept = table[table["stimulus_id"].isin(counts)]
    every = pd.concat([kept, pd.DataFrame(parts, columns=table.columns)]) if parts else kept
    every = every.sort_values("stimulus_id", ignore_index=True)
    return replace(shown, events=events, stimuli=every.assign(n_presentations=every["stimulus_id"].map(counts)))


def _cut(
    rows: pd.DataFrame, lengths: Mapping[str, float], duration: float, made: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    """One table of events; `made` gathers the clips."""
    onset, lasts = (pd.to_numeric(rows[name], errors="coerce").to_numpy(float) for name in ("onset", "duration"))
    counts = []
    for trial, name, seconds in zip(rows["trial"], rows["stimulus_id"], lasts, strict=True):
        length = lengths.get(name, 0.0) if trial else 0.0
        counts.append(clips_in(length if np.isnan(seconds) else min(seconds, length), duration))
    repeats = np.maximum(counts, 1)
    number = np.concatenate([np.arange(n) for n in repeats]) if len(rows) else np.zeros(0, dtype=int)
    whole = np.repeat(np.array(counts, dtype=int) == 0, repeats)
    new = rows.loc[rows.index.repeat(repeats)].reset_index(drop=True)
    clips = [clip(str(name), int(n), duration) for name, n in zip(new["stimulus_id"], number, strict=True)]
    for name, one, is_whole in zip(new["stimulus_id"], clips, whole, strict=True):
        if not is_whole:
            made[one["stimulus_id"]] = one | {"of": name}
    names = [name if w else one["stimulus_id"] for name, one, w in zip(new["stimulus_id"], clips, whole, strict=True)]
    return new.assign(
        onset=np.where(whole, new["onset"], np.repeat(onset, repeats) + number * duration),
        duration=np.where(whole, new["duration"], duration),
        stimulus_id=pd.Series(names, index=new.index, dtype=object),
    )


def unusable(shown: Sequence[Presented], root: Path, *, mono: bool, known: Collection[str] = ()) -> dict[str, str]:
    """Read every file that was shown, once.

    Parameters
    ----------
    shown : sequence of Presented
    root : Path
        The stimuli folder.
    mono : bool
        As `Stimuli`.
    known : collection of str
        Hashes of content that an earlier run read.

    Returns
    -------
    dict of str to str
        By stimulus, what is wrong with it.
    """
    tables = [one.stimuli[one.stimuli["present"].astype(bool)] for one in shown]
    if not tables:
        return {}
    table = pd.concat(tables).drop_duplicates("stimulus_id").reset_index(drop=True)
    stimuli = stimuli_of(table[table["modality"].isin(list(LOADERS))], root, mono=mono)
    if known and len(stimuli):
        stimuli = stimuli.with_hashes()
        stimuli = replace(stimuli, table=stimuli.table[~stimuli.table["sha256"].isin(list(known))])
    return unreadable(stimuli)


def without(shown: Presented, bad: Mapping[str, str], *, skip: bool) -> Presented:
    """Stop at stimuli that cannot be read, or take their events out of what is scored.

    Parameters
    ----------
    shown : Presented
    bad : mapping of str to str
        From `unusable`.
    skip : bool
        Whether they are left out.

    Returns
    -------
    Presented

    Raises
    ------
    DataError
        If there are some and they are not to be left out, or none is left.
    """
    theirs = [name for name in shown.stimuli["stimulus_id"] if name in bad]
    if not theirs:
        return shown
    if not skip:
        raise DataError(
            f"{bad[theirs[0]]} ({len(theirs)} of {len(shown.stimuli)} stimuli cannot be read; --skip-unreadable leaves "
            "them out)"
        )
    if len(theirs) == len(shown.stimuli):
        raise DataError(f"{bad[theirs[0]]} (no stimulus can be read)")
    events = {}
    for path, rows in shown.events.items():
        out = rows["stimulus_id"].isin(theirs).to_numpy(dtype=bool)
        events[path] = rows.assign(
            trial=rows["trial"].to_numpy(dtype=bool) & ~out, stimulus_id=rows["stimulus_id"].where(~out, None)
        )
    stimuli = shown.stimuli[~shown.stimuli["stimulus_id"].isin(theirs)].reset_index(drop=True)
    return replace(shown, events=events, stimuli=stimuli, skipped=tuple(theirs))


def all_readable(config: Config, loaded: Sequence[Outcome], root: Path) -> list[Outcome]:
    """Read what all participants were shown, once, before hours are spent.

    Parameters
    ----------
    config : Config
    loaded : sequence of Outcome
        Values are participants, with what was shown as `shown`.
    root : Path
        The stimuli folder.

    Returns
    -------
    list of Outcome
        Those who saw something unreadable fail, or it is left out of theirs.
    """
    shown = [one.value.shown for one in loaded if one.error is None]
    bad = unusable(shown, root, mono=config.mono, known=known_contents(config.out_dir))
    for said in dict.fromkeys(bad.values()) if config.skip_unreadable else ():
        logger.warning("left out: %s", said)

    def usable(one: Any) -> Any:
        return replace(one, shown=without(one.shown, bad, skip=config.skip_unreadable))

    return [one if one.error is not None else attempt(partial(usable, one.value), one.name) for one in loaded]


def known_contents(out_dir: Path) -> set[str]:
    """Hashes of the stimuli that earlier runs read."""
    path = out_dir / "stimuli" / "stimuli.tsv"
    return set(pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)["sha256"]) if path.exists() else set()
