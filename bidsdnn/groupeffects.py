"""What covariates and two groups do to participants' scores, from their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.bids.people import People
from bidsdnn.grouptables import absent, by_context, content_of, is_current, joined, sidecar_of, spoken
from bidsdnn.lookup import summary
from bidsdnn.methods.freedman_lane import ENUMERATED, freedman_lane, smallest_p
from bidsdnn.methods.inference import fdr

SCORES = {"encoding": "pearsonr", "searchlight": "similarity", "searchlightencoding": "pearsonr",
          "variancepartition": "r2", "rsa": "similarity", "decoding": "above"}  # fmt: skip
"""The column of each analysis' table; of decoding what is above chance."""
FEWEST = 4
"""Participants below whom no effect is tested: two orders of three participants say nothing."""
COLUMNS = {
    "effect": "The covariate, or the group that is compared less the other one",
    "estimate": "Change of the Fisher-z score (of R2 and accuracy: of the score) with one unit of the covariate, or "
    "difference of the groups, with the other variables held",
    "t": "Of the estimate",
    "p": "Of permuted residuals (Freedman and Lane), two-sided",
    "p_fwe": "The same, family-wise over the rows of one effect, metric, comparison and target by the largest t",
    "q": "False discovery rate of p over the same rows",
    "n_participants": "Participants with a score and all variables",
    "p_smallest": "Smallest p that the orders of these participants can give",
}


@dataclass(frozen=True)
class Effect:
    """A variable that is tested, with the others held."""

    name: str
    contrast: str
    labels: list[str]
    tested: np.ndarray
    nuisance: np.ndarray
    held: tuple[str, ...]
    groups: dict[str, int]

    def sidecar(self, permutations: int) -> dict[str, Any]:
        """What a reader needs to know of the test."""
        return {
            "Methods": f"{summary(freedman_lane)} {summary(fdr)}",
            "Effect": self.name,
            "Held": list(self.held),
            "Participants": self.labels,
            **({"Groups": self.groups} if self.groups else {}),
            "Test": "permuted residuals of the other variables' model (Freedman and Lane), two-sided",
            "Permutations": permutations,
            "SmallestAttainableP": smallest_p(self.tested, permutations, self.nuisance),
            "References": ["freedman-lane", "permutation-glm", "fdr"],
        }


def effects_of(people: People | None, labels: Sequence[str], omitted: list[str]) -> list[Effect]:
    """Each covariate and the groups as a test with the others held, of the participants that have all values.

    Parameters
    ----------
    people : People or None
    labels : sequence of str
        Participants with results.
    omitted : list of str
        Sentences on who and what was left out are added here, once.

    Returns
    -------
    list of Effect
    """
    if people is None:
        return []
    columns = {name: [values.get(label, np.nan) for label in labels] for name, values in people.covariates.items()}
    if people.group_column is not None and people.groups is not None:
        columns[people.group_column] = [people.groups.get(label, np.nan) for label in labels]
    values = np.array(list(columns.values()), dtype=float).T
    kept = np.isfinite(values).all(axis=1)
    for label, row in zip(labels, values, strict=True):
        lacking = [name for name, value in zip(columns, row, strict=True) if not np.isfinite(value)]
        if lacking:
            what = f"{', '.join(lacking)} in {people.path.name}"
            _once(omitted, f"sub-{label} has no {what} and was left out of the tests of covariates and groups.")
    there = [label for label, keep in zip(labels, kept, strict=True) if keep]
    values = values[kept]
    found = []
    for place, name in enumerate(columns):
        others = np.delete(values, place, axis=1)
        is_group = name == people.group_column
        # The group's column comes last, a covariate of the same name before it.
        is_group = is_group and place == len(columns) - 1
        shown = f"{people.levels[1]} - {people.levels[0]}" if is_group else name
        reason = _untestable(values[:, place], others)
        if reason:
            _once(omitted, f"{name} was not tested: {reason}.")
            continue
        counts = {level: int((values[:, place] == code).sum()) for code, level in enumerate(people.levels)}
        found.append(Effect(
            shown, names.label(shown), there, values[:, place], others,
            tuple(one for one in columns if one != name), counts if is_group else {},
        ))  # fmt: skip
    return found


def _untestable(x: np.ndarray, others: np.ndarray) -> str:
    """Why a variable cannot be tested; empty if it can."""
    whole = np.column_stack([np.ones(len(x)), others])
    needed = max(FEWEST, whole.shape[1] + 2)
    if len(x) < needed:
        return f"only {len(x)} participants have all values, {needed} are needed"
    left = x - whole @ np.linalg.lstsq(whole, x, rcond=None)[0]
    if np.linalg.norm(left) <= 1e-8 * np.linalg.norm(x - x.mean()) or not np.ptp(x):
        return "the other variables say all of it for these participants" if np.ptp(x) else "all have the same value"
    return ""


def _once(sentences: list[str], sentence: str) -> None:
    if sentence not in sentences:
        sentences.append(sentence)


def effect_tables(
    derivatives: Derivatives, labels: Sequence[str], omitted: list[str], people: People, *, permutations: int, seed: int
) -> int:
    """Write a table of effects for each analysis, space, atlas and network.

    Parameters
    ----------
    derivatives : Derivatives
    labels : sequence of str
        Participants with results.
    omitted : list of str
        Sentences on what was left out are added here.
    people : People
    permutations, seed : int
        Of the random orders.

    Returns
    -------
    int
        Tables written or up to date.
    """
    written = 0
    for analysis, score in SCORES.items():
        for context, paths in by_context(derivatives, labels, "results", ".tsv", analysis).items():
            own: list[str] = absent(derivatives, labels, paths, f"{analysis} table of {spoken(dict(context))}")
            effects = effects_of(people, list(paths), own)
            omitted += [one for one in own if one not in omitted]
            if not effects:
                continue
            written += 1
            name = "_".join(f"{key}-{value}" for key, value in context if key != "desc")
            path = derivatives.root / "group" / f"{name}_desc-{analysis}effects_results.tsv"
            content = content_of(
                paths, permutations=permutations, seed=seed, people=people.content, omitted=own, effects=2
            )
            if is_current(path, content, omitted):
                continue
            tables = {label: read_table(one) for label, one in paths.items()}
            table = pd.concat(
                [_rows(tables, score, effect, permutations=permutations, seed=seed) for effect in effects],
                ignore_index=True,
            )
            about = [effect.sidecar(permutations) for effect in effects]
            sidecar = sidecar_of(
                derivatives, paths, permutations=permutations, content=content, methods=summary(freedman_lane),
                omitted=own,
            )  # fmt: skip
            derivatives.write_table(path, table, {
                **sidecar, **about[0], "SmallestAttainableP": max(one["SmallestAttainableP"] for one in about),
                "Effect": [one["Effect"] for one in about], "Held": [one["Held"] for one in about],
                "Groups": next((one["Groups"] for one in about if "Groups" in one), {}),
                "Correction": COLUMNS["p_fwe"].removeprefix("The same, "),
                **{column: {"Description": text} for column, text in COLUMNS.items()},
            })  # fmt: skip
    return written


def _rows(
    tables: Mapping[str, pd.DataFrame], score: str, effect: Effect, *, permutations: int, seed: int
) -> pd.DataFrame:
    """One effect in every row of the participants' tables."""
    keys, z = joined({label: tables[label] for label in effect.labels}, score)
    found = keys.assign(
        effect=effect.name, estimate=np.nan, t=np.nan, p=np.nan, p_fwe=np.nan, q=np.nan, n_participants=0,
        p_smallest=np.nan,
    )  # fmt: skip
    by = [key for key in ("metric", "comparison", "target") if key in keys]
    families = keys.groupby(by, sort=False).indices.values() if by else [np.arange(len(keys))]
    for rows in families:
        one = freedman_lane(z[:, rows], effect.tested, effect.nuisance, permutations=permutations, seed=seed)
        values = {"estimate": one.estimate, "t": one.t, "p": one.p, "p_fwe": one.p_fwe, "q": fdr(one.p)}
        for column, column_values in {**values, "n_participants": one.n}.items():
            found.loc[found.index[rows], column] = column_values
    found["p_smallest"] = np.where(found["p"].notna(), _smallest(z, effect, permutations), np.nan)
    return found


def _smallest(z: np.ndarray, effect: Effect, permutations: int) -> np.ndarray:
    """Smallest p of each row, by the participants who have a score in it."""
    found = np.full(z.shape[1], np.nan)
    drawn = 1 / (1 + permutations) if len(z) > ENUMERATED else 0
    for there in np.unique(np.isfinite(z), axis=1).T:
        same = (np.isfinite(z) == there[:, None]).all(axis=0)
        if there.any():
            found[same] = max(drawn, smallest_p(effect.tested[there], permutations, effect.nuisance[there]))
    return found
