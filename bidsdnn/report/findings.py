"""What was found, in sentences made of numbers.

A sentence names the region, its best layer, how well that did, how sure one can be and on how much data; where
nothing exceeds chance it says so. p is corrected (Holm) for having looked at several layers before a sentence claims
anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from bidsdnn.report.entries import ordered
from bidsdnn.result import COLUMN, JOINT, WEIGHTED

ALPHA = 0.05
# More sentences than this are not read; the remaining regions are counted, and listed in the table.
MAX_SENTENCES = 8
MAX_COLUMNS = 3
_SYMBOLS = {"spearman": "Spearman’s ρ", "pearson": "Pearson’s r", "kendall": "Kendall’s τ"}


@dataclass(frozen=True)
class Sentences:
    """A summary, the sentences that carry it, and what their p and their ± are."""

    lead: Markup
    items: tuple[Markup, ...]
    note: str = ""
    kind: str = "sentences"


def number(value: float, digits: int = 2) -> str:
    """Write a number that cannot exceed 1 without its leading zero, and with a true minus sign."""
    if not np.isfinite(value):
        return "n/a"
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) > 0 else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def equation(name: str, value: str, sign: str = "=") -> str:
    """Write ``r = .45`` so that no line breaks in it."""
    return f"{name} {sign} {value}".replace(" ", "\N{NO-BREAK SPACE}")


def probability(value: float, name: str = "p") -> str:
    """Write ``p = .013``, or ``p < .001`` where three digits would say zero."""
    if not np.isfinite(value):
        return f"{name} not computed"
    if value > 0.9995:
        return equation(name, "1")
    return equation(name, ".001", "<") if value < 0.0005 else equation(name, number(value, 3))


def count(number_of: float, noun: str, plural: str = "") -> str:
    """Write ``1 voxel`` and ``1,200 voxels``."""
    return f"{number_of:,.0f} {noun if number_of == 1 else plural or noun + 's'}"


def comparison_symbol(comparison: str) -> str:
    """How a comparison of two RDMs is written."""
    return _SYMBOLS.get(comparison, comparison)


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p for the number of tests by Holm's step-down procedure (Holm, 1979).

    Parameters
    ----------
    p : ndarray, shape (tests,)
        NaN where there was no test.

    Returns
    -------
    ndarray, shape (tests,)
        Family-wise corrected p, at most 1.
    """
    p = np.asarray(p, dtype=float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    rising = tested[np.argsort(p[tested], kind="stable")]
    steps = p[rising] * np.arange(rising.size, 0, -1)
    corrected[rising] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def decisive(table: pd.DataFrame) -> str | None:
    """The column that decides what stands out: corrected over a family, by false discovery rate, or not corrected."""
    return next((name for name in ("p_fwe", "q", "p") if name in table), None)


def of_ceiling(row: pd.Series, value: str) -> str:
    """A score as a share of what can be reached, as ``38 % of the ceiling``; empty where there is no ceiling.

    Where the ceiling is a range, the share is that of its lower end, and both ends are named.
    """
    share, known = row.get("pearsonr_normalized", np.nan), ""
    lower = row.get("ceiling_lower", np.nan)
    if not np.isfinite(share) and np.isfinite(lower) and lower > 0:
        share, known = row[value] / lower, f" ({number(lower)} to {number(row['ceiling_upper'])})"
    if not (np.isfinite(share) and row[value] > 0):
        return ""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}% of the ceiling{known}"


def best_layers(table: pd.DataFrame, value: str, *, by: tuple[str, ...] = ("network", "region")) -> pd.DataFrame:
    """The layer with the highest value, for each network and region or for each region over all networks.

    All layers weighted together, or fitted as one model, are no layer.

    Parameters
    ----------
    table : DataFrame
        With columns network, layer, region, `value`, and p or q where computed.
    value : str
        Column to be highest.
    by : tuple of str
        Columns whose values share one best layer.

    Returns
    -------
    DataFrame
        One row per combination in which any layer has a value, with the added columns `n_layers` and `corrected`
        (p_fwe or q where the table has it, else p after Holm's correction over the layers of the combination).
    """
    rows = []
    for _, part in table[~table["layer"].isin([WEIGHTED, JOINT])].groupby(list(by), sort=False):
        if not part[value].notna().any():
            continue
        if decisive(part) in ("p_fwe", "q"):
            corrected = part[decisive(part)].to_numpy()
        else:
            corrected = holm(part["p"].to_numpy()) if "p" in part else np.full(len(part), np.nan)
        row = int(np.nanargmax(part[value].to_numpy()))
        rows.append({**part.iloc[row].to_dict(), "n_layers": len(part), "corrected": corrected[row]})
    return pd.DataFrame(rows, columns=[*table.columns, "n_layers", "corrected"])


def findings(
    table: pd.DataFrame,
    value: str,
    *,
    verb: str,
    symbol: str,
    note: str = "",
    reliability: dict[str, float] | None = None,
    decidable: bool = True,
) -> Sentences:
    """Say which layer of which network did best in each region, and what columns of tables did.

    What does not exceed chance is not said to have done anything; nor does it count where networks are compared.

    Parameters
    ----------
    table : DataFrame
        With columns network, layer, region, `value`, p; optionally n_voxels, and at the group n_participants, sem,
        t, q, p_fwe, ceiling_lower, ceiling_upper.
    value : str
        Column that holds the score.
    verb : str
        What a layer did, as ``predicted``.
    symbol : str
        What the score is, as ``r``.
    note : str
        What p comes from, and what it is corrected for.
    reliability : dict of str to float, optional
        By region.
    decidable : bool
        False if no p of this test can fall below .05; the sentences then describe and do not decide.

    Returns
    -------
    Sentences
        The summary, and at most `MAX_SENTENCES` sentences, regions in their own order.
    """
    of_networks, columns = table[table["network"] != COLUMN], table[table["network"] == COLUMN]
    best = best_layers(columns if of_networks.empty else of_networks, value, by=("region",)).assign(decided=decidable)
    if best.empty:
        return Sentences(Markup("No layer has a score in any region."), ())
    shown = best if len(best) <= MAX_SENTENCES else best.nlargest(MAX_SENTENCES, value).sort_index()
    several = of_networks["network"].nunique() > 1
    items = [
        _sentence(row, value, verb=verb, symbol=symbol, reliability=reliability or {}, several=several)
        for _, row in shown.iterrows()
    ]
    if len(best) > len(shown):
        rest = count(len(best) - len(shown), "more region")
        items.append(Markup("{} with lower scores: see the table of all numbers.").format(rest))
    # A column is to a summary what a network is: it is named by itself.
    named = [of_networks, *(rows.assign(network=name) for name, rows in columns.groupby("layer", sort=False))]
    leads = [
        _lead(best_layers(rows, value).assign(decided=decidable), value, verb=verb, symbol=symbol)
        for rows in named if rows[value].notna().any()
    ]  # fmt: skip
    return Sentences(Markup(" ").join(leads[: MAX_COLUMNS + 1]), tuple(items), note)


def _lead(best: pd.DataFrame, value: str, *, verb: str, symbol: str) -> Markup:
    """One summary for each network, and which network won."""
    parts = []
    networks = ordered(best["network"])
    above = best[best["decided"].astype(bool) & (best["corrected"] < ALPHA)]
    # Beyond three the summary would be a list; the best one then speaks for all.
    for network in networks if len(networks) <= 3 else [best.loc[best[value].idxmax(), "network"]]:
        own, sure = best[best["network"] == network], above[above["network"] == network]
        best_of = own if sure.empty else sure
        top = best_of.loc[best_of[value].idxmax()]
        if not (own["decided"] & own["corrected"].notna()).any():
            template = "<b>{network}</b> was highest in <b>{region}</b> ({score}, layer {layer})."
        elif len(sure):
            template = (
                "<b>{network}</b> {verb} {sure} of {of} above chance, best in <b>{region}</b> ({score}, layer {layer})."
            )
        else:
            template = "<b>{network}</b> {verb} none of {of} above chance; its best was {score}, in {region}."
        score = ", ".join(
            filter(None, (equation(symbol, number(top[value])), of_ceiling(top, value) if len(sure) else ""))
        )
        if top["layer"] == network:
            template = template.replace(", layer {layer}", "")
        parts.append(
            Markup(template).format(
                network=network, verb=verb, sure=len(sure), of=count(len(own), "region"), score=score,
                region=top["region"], layer=top["layer"],
            )
        )  # fmt: skip
    # Where no network is above chance, the highest of them has won nothing.
    if len(networks) > 1 and len(above):
        winners = above.loc[above.groupby("region", sort=False)[value].idxmax(), "network"].value_counts()
        parts.append(
            Markup("Of {} networks, <b>{}</b> did best in {} of the {} above chance.").format(
                len(networks), winners.index[0], winners.iloc[0], count(above["region"].nunique(), "region")
            )
        )
    return Markup(" ").join(parts)


def _sentence(
    row: pd.Series, value: str, *, verb: str, symbol: str, reliability: dict[str, float], several: bool
) -> Markup:
    """One region and its best layer; the network is named where there are several."""
    score = equation(symbol, number(row[value]))
    if np.isfinite(row.get("sem", np.nan)):
        score += f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{number(row['sem'])}"
    tested = row["decided"] and np.isfinite(row["corrected"])
    below = (tested and row["corrected"] >= ALPHA) or row[value] <= 0
    name = Markup("<code>{}</code>").format(row["layer"])
    if row["network"] == COLUMN:
        name = Markup("column ") + name
    elif several:
        name += Markup(" of {}").format(row["network"])
    details = Markup(", ").join(
        Markup("{}").format(part)
        for part in ["" if below else of_ceiling(row, value), *_details(row, reliability)]
        if part
    )
    if below:
        template = "In <b>{}</b>, nothing {verb} above chance; the highest was {}: {}, {}."
    elif not tested:
        template = "In <b>{}</b>, {} was highest: <strong>{}</strong>, {}."
    else:
        template = "In <b>{}</b>, {} {verb} best: <strong>{}</strong>, {}."
    return Markup(template).format(row["region"], name, score, details, verb=verb)


def _details(row: pd.Series, reliability: dict[str, float]) -> list[str]:
    """What decides, the size of the data and the reliability, as far as the table knows them."""
    details = []
    if "p_fwe" in row:
        details.append(probability(row["p_fwe"], "p(FWE)"))
    elif "q" in row:
        details += [probability(row["p"])] * ("p" in row) + [probability(row["q"], "q")]
    elif row["n_layers"] > 1 and np.isfinite(row["corrected"]):
        details.append(probability(row["corrected"], "p(Holm)"))
    elif "p" in row:
        details.append(probability(row["p"]))
    if np.isfinite(row.get("n_participants", np.nan)):
        details.append(count(row["n_participants"], "participant"))
    if np.isfinite(row.get("prevalence", np.nan)):
        ends = " to ".join(number(row.get(f"prevalence_{end}", np.nan)) for end in ("low", "high"))
        details.append(f"prevalence {number(row['prevalence'])} ({ends})")
    elif np.isfinite(row.get("n_voxels", np.nan)):
        details.append(count(row["n_voxels"], "voxel"))
    if np.isfinite(reliability.get(str(row["region"]), np.nan)):
        details.append(f"reliability {number(reliability[str(row['region'])])}")
    return [text.replace(" ", "\N{NO-BREAK SPACE}") for text in details]


def smallest_p(n_participants: int, n_permutations: int | None) -> float:
    """The smallest one-sided p that flipping signs can give.

    Parameters
    ----------
    n_participants : int
    n_permutations : int or None
        Flips that were drawn; None if all 2 ** n were enumerated.

    Returns
    -------
    float
    """
    enumerated = 2.0**-n_participants
    return enumerated if n_permutations is None else max(enumerated, 1 / (n_permutations + 1))
