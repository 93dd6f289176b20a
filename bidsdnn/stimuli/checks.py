"""Every stimulus is looked at before hours are spent on them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bidsdnn.errors import DataError
from bidsdnn.stimuli.loaders import CHECKS, LENGTHS
from bidsdnn.stimuli.table import Stimuli

_EDGE = 0.1
"""Seconds by which a clip may leave its film, of which one frame more or less is no matter."""


def unreadable(stimuli: Stimuli, *, workers: int = 4) -> dict[str, str]:
    """Find the stimuli that cannot be read.

    Each file is read once, to its end: pictures are decoded, films demultiplexed, sounds decoded.

    Parameters
    ----------
    stimuli : Stimuli
        Of the modalities in `LOADERS`; clips must lie in their files.
    workers : int
        Files read at the same time.

    Returns
    -------
    dict of str to str
        By id, in the table's order: what is wrong with it, in one line.

    Raises
    ------
    MissingInputError
        If a file is not there.
    """
    kinds = dict(zip(stimuli.paths, stimuli.table["modality"], strict=True))

    def check(item: tuple) -> tuple[str, float]:
        path, kind = item
        try:
            CHECKS[kind](path, **({"mono": stimuli.mono} if kind == "audio" else {}))
            return "", LENGTHS[kind](path) if kind in LENGTHS else 0.0
        except DataError as error:
            return str(error), 0.0

    with ThreadPoolExecutor(workers) as pool:
        found = dict(zip(kinds, pool.map(check, kinds.items()), strict=True))
    said = {}
    for name, path, (_, stop) in zip(stimuli.ids, stimuli.paths, stimuli.clips, strict=True):
        wrong, length = found[path]
        if not wrong and stop is not None and kinds[path] in LENGTHS and stop > length + _EDGE:
            wrong = f"{path}: a clip to {stop:g} s of {length:g} s; correct the events or clip_duration"
        if wrong:
            said[name] = wrong
    return said


def readable(stimuli: Stimuli, *, skip: bool, known: Iterable[str] = (), workers: int = 4) -> tuple[Stimuli, list[str]]:
    """Stop at stimuli that cannot be read, or leave them out.

    Parameters
    ----------
    stimuli : Stimuli
    skip : bool
        Whether unreadable stimuli are left out; otherwise they are an error.
    known : iterable of str
        Hashes of content that was read before; with ``sha256`` filled, those stimuli are not read again.
    workers : int

    Returns
    -------
    stimuli : Stimuli
    skipped : list of str
        What was wrong with those left out, a line each.

    Raises
    ------
    DataError
        If one cannot be read and `skip` is false, or none can.
    """
    new = ~stimuli.table["sha256"].isin(set(known) - {""})
    bad = unreadable(replace(stimuli, table=stimuli.table[new]), workers=workers) if new.any() else {}
    if not bad:
        return stimuli, []
    first = next(iter(bad.values()))
    if not skip:
        more = f" ({len(bad)} of {len(stimuli)} stimuli are like this; --skip-unreadable leaves them out)"
        raise DataError(f"{first}{more}")
    if len(bad) == len(stimuli):
        raise DataError(f"{first} (no stimulus can be read)")
    left = stimuli.select([name for name in stimuli.ids if name not in bad])
    return replace(left, left_out=(*stimuli.left_out, *bad)), list(bad.values())
