"""One analysis of one atlas: its sentences, its profiles over depth, its heat maps and its numbers.

`Trust` is what every caption of it says: n, the test, the correction, and what error bars are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bidsdnn.report.bands import joint_blocks
from bidsdnn.report.blocks import Block, Legend, Notes, data_table
from bidsdnn.report.drawing import Figure, slug
from bidsdnn.report.entries import Entry, first, ordered, read_tables
from bidsdnn.report.figures import MAX_REGIONS, has_ceiling, heat_map, legend, profiles
from bidsdnn.report.findings import ALPHA, comparison_symbol, count, findings, number, smallest_p
from bidsdnn.report.quality import reliabilities
from bidsdnn.result import COLUMN, JOINT, WEIGHTED

# Column that holds the score of each analysis.
VALUES = {"encoding": "pearsonr", "rsa": "similarity"}
OVER_PEOPLE = "Error bars: ± standard error of the mean over participants."
# What p_fwe of one participant is over.
FAMILIES = {
    "encoding": "all layers and the regions of the atlas",
    "joint": "the regions of the atlas",
    "rsa": "the layers of a region; regions are not corrected for",
}


@dataclass(frozen=True)
class Trust:
    """How sure one can be of the scores of a table.

    Parameters
    ----------
    n : str
        Size of the data.
    rule : str
        What makes a score stand out, and the correction behind it.
    bars : str
        What error bars are.
    decidable : bool
        Whether p can fall below .05 at all.
    """

    n: str
    rule: str
    bars: str
    decidable: bool = True

    def caption(self, mark: str) -> str:
        """Join size and rule; `mark` is what a figure sets off where the rule holds."""
        return f"{self.n}. {mark + ': ' if self.rule.startswith(('p ', 'q ')) else ''}{self.rule}"


def participant_trust(tables: list[Entry], *, family: str = "") -> Trust:
    """What is to be said of one participant's scores.

    Parameters
    ----------
    tables : list of Entry
        Their sidecars say ``NumberOfStimuli``, ``CrossValidation``, ``Permutations`` and ``Test``.
    family : str
        What p is family-wise over; empty if it is not.

    Returns
    -------
    Trust
    """
    stimuli, folds = first(tables, "NumberOfStimuli"), first(tables, "CrossValidation")
    draws, name = first(tables, "Permutations"), str(first(tables, "Test") or "label permutations")
    test = "" if draws == 0 else f"{draws:,} {name}" if isinstance(draws, int) else name
    size = f"n = {count(stimuli, 'stimulus', 'stimuli')}" if stimuli else "n = 1 participant"
    said = ", ".join(f"{k} {v}" for k, v in folds.items()) if isinstance(folds, dict) else str(folds or "")
    correction = f"family-wise over {family}" if family else "not corrected for the number of layers and regions"
    rule = f"p < .05 ({test}), {correction}." if test else "No p was computed."
    people, bars = first(tables, "NumberOfParticipants"), "No error bars: one participant."
    if first(tables, "GroupModel"):
        size, bars = f"{size}, {count(people or 0, 'participant')}", "No error bars: one model of all participants."
    return Trust(f"{size}; {said}" if said else size, rule, bars)


def group_trust(table: pd.DataFrame, tables: list[Entry]) -> Trust:
    """What is to be said of the group's scores.

    Parameters
    ----------
    table : DataFrame
        With the column n_participants, else the sidecars have to list ``Participants``.
    tables : list of Entry
        Their sidecars say ``Permutations``, ``Test`` and ``Correction``.

    Returns
    -------
    Trust
    """
    listed = "n_participants" in table and table["n_participants"].notna().any()
    n = int(table["n_participants"].max()) if listed else len(first(tables, "Participants") or [])
    people = count(n, "participant")
    draws, name = first(tables, "Permutations"), str(first(tables, "Test") or "sign flips, one-sided")
    enumerated = not isinstance(draws, int) or 2**n <= draws
    test = f"all {2**n:,} {name}" if enumerated else f"{draws:,} {name}"
    least = smallest_p(n, None if enumerated else draws)
    lowest = f"The smallest p that {people} can give is {number(least, 3) if least >= 0.0005 else f'{least:.1g}'}"
    if least >= ALPHA:
        rule = f"{lowest}: nothing can fall below .05, so these numbers describe and do not decide."
    elif "p_fwe" in table:
        rule = f"p < .05, {first(tables, 'Correction') or 'family-wise'} (p from {test}). {lowest}."
    else:
        rule = f"q < .05 (p from {test}; {first(tables, 'Correction') or 'false discovery rate'}). {lowest}."
    return Trust(f"n = {people}", rule, OVER_PEOPLE, least < ALPHA)


def score_blocks(tables: list[Entry], near: list[Entry], desc: str, stem: str, *, level: str) -> list[Block]:
    """Sentences, profiles, heat maps and the numbers of one analysis in one atlas.

    Parameters
    ----------
    tables : list of Entry
        Results of this analysis; at the group those with a participant are drawn as thin lines.
    near : list of Entry
        Everything of the same atlas, for the reliability.
    desc : str
        ``encoding`` or ``rsa``.
    stem : str
        Beginning of the file names.
    level : str
        ``participant`` or ``group``.

    Returns
    -------
    list of Block
    """
    value = VALUES[desc]
    table = read_tables(tables, "network", "layer", "region", value)
    individuals = None
    if level == "group":
        individuals, table = table[table["sub"] != ""], table[table["sub"] == ""]
        # Participants' tables have columns of their own, as p_fwe, which here would say that nothing is decided.
        table = table.drop(columns=[name for name in table if name != value and table[name].isna().all()])
        tables = [entry for entry in tables if "sub" not in entry.entities]
    if table.empty:
        return []
    numbers = data_table(table, "All numbers")
    symbol, verb = "mean r", "predicted"
    if desc == "rsa":
        table, individuals, symbol = _one_comparison(table, individuals)
        verb = "matched"
    together = table.groupby("network")["layer"].transform(lambda layers: (layers == JOINT).any()).astype(bool)
    family = FAMILIES["joint" if together.all() else desc] if "p_fwe" in table else ""
    trust = group_trust(table, tables) if level == "group" else participant_trust(tables, family=family)
    if "sem" in table and table["sem"].notna().any():
        trust = replace(trust, bars=OVER_PEOPLE)
    joint, table = joint_blocks(table[together], trust, stem), table[~together]
    if table.empty:
        return [*joint, numbers]
    reliability = reliabilities(near) if desc == "encoding" else {}
    # A share of the ceiling, where there is one, says the same better.
    known = {} if "pearsonr_normalized" in table else reliability
    said = findings(table, value, verb=verb, symbol="r" if desc == "encoding" else symbol, reliability=known,
                    note=_note(table, trust, desc), decidable=trust.decidable)  # fmt: skip
    return [
        *joint,
        said,
        *([] if trust.decidable else [Notes("", (trust.rule,), "warning")]),
        *_profile_blocks(_with_band(table), value, symbol, trust, reliability, individuals, stem),
        _heat_maps(table, value, symbol, trust, stem),
        numbers,
    ]


def _note(table: pd.DataFrame, trust: Trust, desc: str) -> str:
    """What the symbols of the sentences are."""
    parts = ["r: mean over a region's voxels." if desc == "encoding" and "n_voxels" in table else ""]
    if "sem" in table and table["sem"].notna().any():
        parts.append("±: standard error of the mean over participants.")
    if "prevalence" in table:
        parts.append("Prevalence: share of people who would show it, with its 95 % highest-density interval.")
    if desc == "encoding" and "pearsonr_normalized" in table:
        parts.append("Ceiling: the highest r that a voxel's reliability allows.")
    elif has_ceiling(table):
        parts.append("Ceiling: the lower end of its range.")
    return " ".join(filter(None, [trust.caption("Above chance") if trust.decidable else f"{trust.n}.", *parts]))


def _with_band(table: pd.DataFrame) -> pd.DataFrame:
    """Encoding's ceiling as a band: a region's mean over its voxels, plus and minus their standard deviation."""
    if "ceiling_sd" not in table or has_ceiling(table):
        return table
    return table.assign(
        ceiling_lower=(table["ceiling"] - table["ceiling_sd"]).clip(lower=0),
        ceiling_upper=(table["ceiling"] + table["ceiling_sd"]).clip(upper=1),
    )


def _one_comparison(
    table: pd.DataFrame, individuals: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame | None, str]:
    """Rows of one metric and one comparison, Spearman's where it is there; the table keeps them all."""
    if not {"metric", "comparison"} <= set(table):
        return table, individuals, "similarity"
    comparisons = ordered(table["comparison"])
    comparison = "spearman" if "spearman" in comparisons else comparisons[0]
    metric = ordered(table["metric"])[0]

    def chosen(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["comparison"] == comparison) & (rows["metric"] == metric)]

    return chosen(table), None if individuals is None else chosen(individuals), comparison_symbol(comparison)


def _with_depth(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["network"] != COLUMN) & (table["layer"] != WEIGHTED)]


def _profile_blocks(
    table: pd.DataFrame, value: str, symbol: str, trust: Trust, reliability: dict[str, float],
    individuals: pd.DataFrame | None, stem: str,
) -> list[Block]:  # fmt: skip
    """Score against depth, and whose colour is whose; neither columns nor all layers together have a depth."""
    table = _with_depth(table)
    if table.empty:
        return []
    individuals = None if individuals is None else _with_depth(individuals)
    networks, n_regions = ordered(table["network"]), table["region"].nunique()
    panels = profiles(table, value, stem=f"{stem}_profile", symbol=symbol, reliability=reliability,
                      individuals=individuals)  # fmt: skip
    encoding = value == VALUES["encoding"]
    what = "Cross-validated prediction" if encoding else "Similarity of the layers' and the regions' distances"
    caption = [f"{what} ({symbol}) by layer, from shallow to deep."]
    if n_regions > MAX_REGIONS:
        caption.append(f"The {MAX_REGIONS} regions with the highest scores.")
    caption += [trust.caption("Filled points"), trust.bars]
    if individuals is not None and len(individuals):
        caption.append("Grey: the participants.")
    elif len(networks) == 1 and n_regions > 1:
        caption.append("Grey: the other regions.")
    if has_ceiling(table):
        caption.append(
            "Band: the mean noise ceiling of a region's voxels, ± their standard deviation."
            if encoding
            else "Band: the noise ceiling, from the mean of the other participants to the mean of all."
        )
    if any(np.isfinite(list(reliability.values()))):
        caption.append("Dashed: reliability of the region's responses.")
    figure = Figure(panels, "Score by layer" if encoding else "Similarity by layer", " ".join(caption))
    return [Legend(tuple(legend(networks))), figure] if len(networks) > 1 else [figure]


def _heat_maps(table: pd.DataFrame, value: str, symbol: str, trust: Trust, stem: str) -> Figure:
    """Every layer and region, one picture for each network, all in one scale."""
    networks = ordered(table["network"])
    top = max(float(table[value].max()), 0.02) if table[value].notna().any() else 0.1
    maps = tuple(
        heat_map(table[table["network"] == network], value, stem=f"{stem}_model-{slug(network)}_heatmap",
                 symbol=symbol, top=top, named=len(networks) > 1)
        for network in networks
    )  # fmt: skip
    together = " Weighted: all layers together, fitted to some stimuli and judged on others; p is not corrected."
    caption = f"The same scores as a table: {symbol} of every layer in every region. {trust.caption('Stars')}"
    caption += together if (table["layer"] == WEIGHTED).any() else ""
    return Figure(maps, "Every layer and region", f"{caption} No error bars.", "wide")
