"""Tables with a row a channel, a position or a way to identify stimuli: the best of each region, and all numbers."""

from __future__ import annotations

from functools import partial

import pandas as pd

from bidsdnn.report.blocks import Block, Notes, attempt, data_table
from bidsdnn.report.entries import Entry, first, ordered, pick, read_tables
from bidsdnn.report.findings import MAX_SENTENCES, comparison_symbol, equation, number, probability

VALUES = {"encoding": "pearsonr", "rsa": "similarity"}


def unit_blocks(near: list[Entry], analysis: str, problems: list[str]) -> list[Block]:
    """What each channel or position of a layer does by itself, and how well stimuli are identified, in one atlas.

    Parameters
    ----------
    near : list of Entry
        Of one context and atlas.
    analysis : str
        ``encoding`` or ``rsa``.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    own = [entry for entry in near if "sub" in entry.entities]
    for unit in ("channel", "position"):
        tables = pick(own, "results", f"{analysis}{unit}")
        if tables:
            blocks += attempt(partial(_units, tables, unit, VALUES[analysis]), f"{analysis}{unit} table", problems)
    tables = pick(own, "results", "identification") if analysis == "encoding" else []
    return blocks + (attempt(partial(_identified, tables), "identification table", problems) if tables else [])


def _highest(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """The row of each region with the highest value; regions in their own order."""
    known = table[table[value].notna()]
    rows = [part.loc[part[value].idxmax()] for _, part in known.groupby("region", sort=False)]
    return pd.DataFrame(rows[:MAX_SENTENCES])


def _units(tables: list[Entry], unit: str, value: str) -> list[Block]:
    table = whole = read_tables(tables, "network", "layer", unit, "region", value, "p_fwe")
    symbol = "mean r"
    if "comparison" in table:
        comparisons = ordered(table["comparison"])
        chosen = "spearman" if "spearman" in comparisons else comparisons[0]
        table, symbol = table[table["comparison"] == chosen], comparison_symbol(chosen)
    said = [
        f"{row['region']}: highest is {unit} {row[unit]} of {row['layer']} ({row['network']}), "
        f"{equation(symbol, number(row[value]))}, {probability(row['p_fwe'], 'p(family-wise)')}"
        for _, row in _highest(table, value).iterrows()
    ]
    draws = first(tables, "Permutations")
    rule = f"p from {draws:,} permutations, family-wise over the {unit}s of a layer; layers are not corrected for."
    return [
        Notes(f"Each {unit} by itself", (*said, rule if isinstance(draws, int) else "")),
        data_table(whole, f"All {unit}s"),
    ]


def _identified(tables: list[Entry]) -> list[Block]:
    table = read_tables(tables, "network", "layer", "region", "top1", "chance_top1", "rank", "p_top1", "p")
    said = [
        f"{row['region']}: best by {row['layer']} ({row['network']}), {number(row['top1'])} identified (chance "
        f"{number(row['chance_top1'])}, {probability(row['p_top1'])}), mean rank {number(row['rank'])} (chance .50, "
        f"{probability(row['p'])})"
        for _, row in _highest(table, "rank").iterrows()
    ]
    rule = (
        "Each held-out stimulus among those of its fold, by the correlation of predicted and measured patterns; p is "
        "not corrected for the number of layers and regions."
    )
    return [Notes("Which stimulus was seen?", (*said, rule)), data_table(table, "Identification of stimuli")]
