"""What covariates and groups of participants do to the scores: a sentence for each effect, and all numbers."""

from __future__ import annotations

import pandas as pd

from bidsdnn.report.blocks import Block, Heading, Notes, attempt, data_table
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.findings import ALPHA, count, equation, number, probability

TITLE = "Covariates and groups: what do participants' differences do to the scores?"
_ANALYSES = {
    "encoding": "Prediction", "rsa": "Similarity of geometries", "decoding": "Labels told",
    "searchlight": "Similarity of neighbourhoods' geometries", "searchlightencoding": "Prediction of neighbourhoods",
    "variancepartition": "Explained variance",
}  # fmt: skip
_MOST = 6


def effect_blocks(entries: list[Entry], problems: list[str]) -> list[Block]:
    """Say which effects are significant where, by analysis.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
        Empty where no covariate and no groups were given.
    """
    blocks: list[Block] = []
    for analysis, title in _ANALYSES.items():
        for entry in pick(entries, "results", f"{analysis}effects"):

            def make(entry: Entry = entry, title: str = title) -> list[Block]:
                return _blocks(entry, title)

            blocks += attempt(make, entry.path.name, problems)
    return [Heading(TITLE), *blocks] if blocks else []


def _blocks(entry: Entry, title: str) -> list[Block]:
    table = read_tables([entry], "effect", "estimate", "p", "p_fwe")
    said = [_sentence(str(effect), table[table["effect"] == effect]) for effect in ordered(table["effect"])]
    atlas = entry.entities.get("atlas")
    named = f"{title}, atlas {atlas}" if atlas else title
    draws, test = first([entry], "Permutations"), str(first([entry], "Test") or "permutations")
    note = f"{draws:,} {test}." if isinstance(draws, int) else f"{test}."
    numbers = data_table(table.drop(columns=["sub"], errors="ignore"), f"{named}: all effects", note=note)
    return [Notes(named, tuple(said)), numbers]


def _sentence(effect: str, rows: pd.DataFrame) -> str:
    """One effect: where it is significant, or the strongest of it."""
    people = count(rows["n_participants"].max(), "participant") if "n_participants" in rows else ""
    sure = rows[rows["p_fwe"] < ALPHA]
    if sure.empty:
        known = rows[rows["p"].notna()]
        if known.empty:
            return f"{effect}: not tested."
        row = known.loc[known["p"].idxmin()]
        return f"{effect}: no effect in {count(len(rows), 'test')} (smallest {_where(row)}; {people})."
    few = sure.nsmallest(_MOST, "p_fwe")
    more = f"; and in {len(sure) - len(few):,} more" if len(sure) > len(few) else ""
    return f"{effect}: {'; '.join(_where(row) for _, row in few.iterrows())}{more} ({people})."


def _where(row: pd.Series) -> str:
    place = ", ".join(str(row[name]) for name in ("region", "layer", "target") if str(row.get(name) or "n/a") != "n/a")
    return f"{place}: {equation('estimate', number(row['estimate']))}, {probability(row['p_fwe'], 'p(FWE)')}"
