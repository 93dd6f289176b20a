"""Words of a film or sound, from the transcript that lies beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli.files import modality
from bidsdnn.stimuli.loaders import LENGTHS

ENDINGS = (".TextGrid", "_words.tsv", "_transcript.tsv", "_words.csv", "_transcript.csv", ".tsv", ".csv")
_TIER = re.compile("words?", re.IGNORECASE)
_NO_WORD = re.compile(r"|sp|sil|spn|<.*>|\{.*\}|\[.*\]|#")
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\[\w.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\].])')


def transcript_path(path: Path) -> Path:
    """Find the transcript of a film or sound.

    Parameters
    ----------
    path : Path
        ``story.wav``: of ``story.TextGrid``, ``story_words.tsv``, ``story_transcript.tsv``, the same as ``.csv``, and
        ``story.tsv`` the first that is there.

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        If none is there.
    """
    for ending in ENDINGS:
        there = path.with_name(path.stem + ending)
        if there.is_file():
            return there
    raise MissingInputError(
        f"{path}: no transcript beside it; add {path.stem}_words.tsv with a column onset, or a TextGrid"
    )


def word_onsets(path: Path) -> np.ndarray:
    """Read when words begin.

    Parameters
    ----------
    path : Path
        A table with a column ``onset``, in seconds; rows with an empty ``word`` are no words. Or a Praat TextGrid with
        a tier called ``words``; silences, and what stands in ``<>``, ``{}`` or ``[]``, are no words.

    Returns
    -------
    ndarray, shape (n_words,)
        Seconds, in order.

    Raises
    ------
    DataError
        If there is no such column or tier, or an onset is no number.
    """
    return np.sort(_textgrid(path) if path.suffix.lower() == ".textgrid" else _table(path))


def words_of(path: Path, start: float | None, stop: float | None) -> tuple[np.ndarray, float, float]:
    """Onsets of a stimulus' words, and from when to when it lasts; in place of a loader."""
    return word_onsets(transcript_path(path)), *span(path, start, stop)[:2]


def span(path: Path, start: float | None, stop: float | None) -> tuple[float, float, float]:
    """From when to when a clip lasts, and how long its film or sound is; in place of a loader."""
    length = LENGTHS[modality(path.name)](path)
    return start or 0.0, length if stop is None else stop, length


def _table(path: Path) -> np.ndarray:
    table = pd.read_csv(
        path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, na_values=["n/a"], keep_default_na=False,
        encoding="utf-8-sig",
    )  # fmt: skip
    if "onset" not in table:
        raise DataError(f"{path}: no column onset; it has {', '.join(map(str, table.columns))}")
    if "word" in table:
        table = table[table["word"].fillna("").str.strip() != ""]
    onsets = pd.to_numeric(table["onset"].dropna(), errors="coerce")
    if onsets.isna().any():
        raise DataError(f"{path}: onset {table['onset'].dropna()[onsets.isna()].iloc[0]!r} is no number; correct it")
    return onsets.to_numpy(dtype=float)


def _textgrid(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    # The long and the short form differ in what stands around the strings and numbers, not in these.
    tokens = [m[1].replace('""', '"') if m[1] is not None else float(m[2]) for m in _TOKEN.finditer(text)]
    names, at = [], 5  # type, class, first and last time, number of tiers
    try:
        while at < len(tokens):
            kind, name, count = tokens[at], str(tokens[at + 1]), int(tokens[at + 4])
            width = {"IntervalTier": 3, "TextTier": 2}[str(kind)]
            rows = [tokens[i : i + width] for i in range(at + 5, at + 5 + count * width, width)]
            if _TIER.fullmatch(name.strip()):
                return np.array([float(row[0]) for row in rows if not _NO_WORD.fullmatch(str(row[-1]).strip())])
            names.append(name)
            at += 5 + count * width
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: not a readable TextGrid; save it again from Praat as text") from error
    raise DataError(f"{path}: no tier called words; it has {', '.join(names) or 'none'}")
