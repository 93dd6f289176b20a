"""Participants' tables of one analysis, joined row by row and tested over participants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import digest, read_json, read_table, sidecar_path
from bidsdnn.journal import software
from bidsdnn.lookup import summary
from bidsdnn.methods.inference import fdr, sign_flip
from bidsdnn.methods.prevalence import ALPHA, LEVEL, prevalence
from bidsdnn.stimuli import file_sha256

ROWS = ("network", "layer", "part", "spaces", "region", "metric", "comparison", "target", "decoder")
FEWEST = 2
POOLED = "pooled"
"""The label that stands for spaces together."""
_PLACES = ("space", "res", "den", "hemi")
_Context = tuple[tuple[str, str], ...]
PREVALENCE = ("prevalence", "prevalence_low", "prevalence_high")
SHARED_COLUMNS = {
    "p": "Of sign flips of participants, one-sided",
    "p_fwe": "The same, family-wise by the largest t of each flip over all rows of one metric, comparison and target",
    "q": "False discovery rate of p over the same rows",
    "p_smallest": "Smallest p that sign flips of the row's participants can give",
    "prevalence": f"Share of the population with the effect, by who has p of at most {ALPHA:.2f}: most likely value",
    "prevalence_low": f"Low end of its {LEVEL:.0%} highest-density interval",
    "prevalence_high": f"High end of its {LEVEL:.0%} highest-density interval",
}

_MADE_BY = {"q": fdr, "prevalence": prevalence}
_WORKS = {"p": "sign-flip", "q": "fdr", "prevalence": "prevalence"}


def by_context(
    derivatives: Derivatives, labels: Sequence[str], suffix: str, extension: str, desc: str, **more: str
) -> dict[tuple[tuple[str, str], ...], dict[str, Path]]:
    """Files of several participants that differ in nothing but the participant."""
    contexts: dict[tuple[tuple[str, str], ...], dict[str, Path]] = {}
    for label in labels:
        folder = derivatives.root / f"sub-{label}" / "func"
        for path in sorted(folder.glob(f"*_desc-{desc}_{suffix}{extension}")):
            entities = names.entities_of(path)
            if entities.items() >= more.items():
                key = tuple((name, value) for name, value in entities.items() if name not in ("sub", *more))
                contexts.setdefault(key, {})[label] = path
    return contexts | _pooled(contexts, labels) if suffix == "results" else contexts


def _pooled(contexts: Mapping[_Context, dict[str, Path]], labels: Sequence[str]) -> dict[_Context, dict[str, Path]]:
    """Tables of the same regions where no space has all participants, who enter with that of most people they have.

    Regions of an atlas are joined by name, whatever space they were found in.
    """
    families: dict[_Context, list[dict[str, Path]]] = {}
    for key, paths in contexts.items():
        kept = tuple((name, value) for name, value in key if name not in _PLACES)
        if "atlas" in dict(kept):
            families.setdefault(kept, []).append(paths)
    found = {}
    for kept, spaces in families.items():
        spaces.sort(key=len, reverse=True)
        everyone = {label: next((one[label] for one in spaces if label in one), None) for label in labels}
        there = {label: path for label, path in everyone.items() if path is not None}
        if len(there) > len(spaces[0]):
            place = next(number for number, (name, _) in enumerate(kept) if name == "atlas")
            found[(*kept[:place], ("space", POOLED), *kept[place:])] = there
    return found


def _spaces(paths: Iterable[Path]) -> dict[str, Any]:
    """For the sidecar, the space of each participant's table where they differ, and a sentence on it."""
    spaces = {}
    for path in paths:
        entities = names.entities_of(path)
        place = [entities.get("space", "native"), *(f"{key} {entities[key]}" for key in _PLACES[1:] if key in entities)]
        spaces[entities["sub"]] = " ".join(place)
    if len(set(spaces.values())) < 2:
        return {}
    by_space = {space: [label for label in spaces if spaces[label] == space] for space in spaces.values()}
    said = "; ".join(f"{space}: sub-{', sub-'.join(people)}" for space, people in by_space.items())
    return {"Spaces": spaces, "Notes": [f"Regions of one name in different spaces were joined ({said})."]}


def fewer_runs(derivatives: Derivatives, labels: Iterable[str]) -> list[str]:
    """A sentence on each participant without results of a run that most have: what is there of them is used."""
    runs: dict[str, set[str]] = {}
    for label in labels:
        tables = [
            read_table(path) for path in (derivatives.root / f"sub-{label}").glob("func/*_desc-quality_results.tsv")
        ]
        runs[label] = {str(run) for table in tables if "run" in table for run in table["run"]}
    known = {label: own for label, own in runs.items() if own}
    counts = Counter(run for own in known.values() for run in own)
    usual = [run for run in sorted(counts) if 2 * counts[run] > len(known)]
    gone = {label: [run for run in usual if run not in own] for label, own in known.items()}
    return [
        f"sub-{label} has no results of {', '.join(some[:5])}{', ...' if len(some) > 5 else ''}, which most have; the "
        "other runs are used."
        for label, some in gone.items() if some
    ]  # fmt: skip


def spoken(context: Mapping[str, Any]) -> str:
    """Entities of a file in words."""
    return ", ".join(f"{key} {value}" for key, value in context.items() if key != "desc")


def enough(context: Mapping[str, Any], paths: Mapping[str, Path], omitted: list[str], what: str) -> bool:
    """Whether there are two participants or more; if not, a sentence says so."""
    if len(paths) >= FEWEST:
        return True
    omitted.append(f"{what} of {spoken(context)}: only sub-{', sub-'.join(paths)} has it, so there is no group.")
    return False


def has_results(derivatives: Derivatives, label: str) -> bool:
    """Whether a participant has results of any kind."""
    return any((derivatives.root / f"sub-{label}").rglob("*_results.tsv"))


def absent(derivatives: Derivatives, labels: Sequence[str], there: Container[str], what: str) -> list[str]:
    """A sentence on each participant who has no results, or not these."""
    missing = [label for label in labels if label not in there]
    return [
        f"sub-{label} has no {what} and was left out of it." if has_results(derivatives, label)
        else f"sub-{label} has no results and was left out." for label in missing
    ]  # fmt: skip


def is_current(path: Path, content: str, omitted: list[str]) -> bool:
    """Whether a group's table is there and was made of the same; if so, what it left out is said again."""
    sidecar = read_json(sidecar_path(path)) if path.exists() else {}
    if sidecar.get("ConfigurationHash") != content:
        return False
    omitted += sidecar.get("Omitted", [])
    return True


def content_of(paths: Mapping[str, Path], **more: Any) -> str:
    """Hash of participants' files and of what else a product depends on."""
    return digest({"inputs": {label: file_sha256(path) for label, path in paths.items()}, **more})


def sidecar_of(
    derivatives: Derivatives, paths: Mapping[str, Path], *, permutations: int, content: str, methods: str,
    omitted: Sequence[str] = (), columns: Container[str] = ("p", "q"),
) -> dict[str, Any]:  # fmt: skip
    """What a reader of a group's product needs to know: who, which test, and the smallest p that it can give.

    The product's columns say what else was done, and so has its sentence and its work.
    """
    n = len(paths)
    enumerated = n <= 12
    sidecars = {label: read_json(sidecar_path(path)) for label, path in paths.items()}
    first = next(iter(sidecars.values()))
    # Participants may have seen different ones: each enters with those that were seen.
    stimuli = {label: one["NumberOfStimuli"] for label, one in sidecars.items() if "NumberOfStimuli" in one}
    return {
        "Methods": " ".join([methods, *(summary(made) for name, made in _MADE_BY.items() if name in columns)]),
        "Software": software(),
        "Participants": list(paths),
        **_spaces(paths.values()),
        **({"NumberOfStimuli": stimuli} if stimuli else {}),
        "Layers": first.get("Layers", []),
        "Network": first.get("Network", ""),
        "Test": "sign flips of the participants' Fisher-z scores, one-sided",
        "SmallestAttainableP": 1 / 2**n if enumerated else 1 / (1 + permutations),
        "Permutations": 2**n if enumerated else permutations,
        "Omitted": list(omitted),
        "Sources": [derivatives.uri(path) for path in paths.values()],
        "ConfigurationHash": content,
        "References": [work for name, work in _WORKS.items() if name in columns],
    }


def fisher_z(r: np.ndarray) -> np.ndarray:
    """Inverse hyperbolic tangent of correlations; a perfect one becomes a large finite number."""
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))


def described(table: pd.DataFrame) -> dict[str, Any]:
    """What the columns that all groups' tables share mean, for the sidecar."""
    return {name: {"Description": text} for name, text in SHARED_COLUMNS.items() if name in table}


def smallest(present: ArrayLike, permutations: int, *, sides: int = 1) -> np.ndarray:
    """Smallest p that sign flips of so many participants can give; all flips are made of up to 12."""
    people = np.asarray(present, dtype=float)
    drawn = 1 / (1 + permutations) if people.max(initial=0) > 12 else 0
    return np.where(people < FEWEST, np.nan, np.minimum(1, sides * np.maximum(2.0**-people, drawn)))


def other_settings(paths: Mapping[str, Path], analysis: str) -> list[str]:
    """A sentence on participants whose tables were made in another way than the first one's; none if all agree."""
    settings = {label: json.dumps(read_json(sidecar_path(one)).get("Settings")) for label, one in paths.items()}
    first = next(iter(paths))
    other = [label for label in paths if settings[label] != settings[first]]
    if not other:
        return []
    return [
        f"The {analysis} of sub-{', sub-'.join(other)} was made with other settings than that of sub-{first}; "
        "run the participant level again with the same options for all."
    ]


def above_chance(whole: pd.DataFrame) -> pd.Series:
    """What decoding is tested by: balanced accuracy less chance, or Fisher's z of r."""
    above = pd.Series(np.nan, index=whole.index)
    if "balanced_accuracy" in whole:
        above = whole["balanced_accuracy"] - whole["chance"]
    if "pearsonr" in whole:
        above = above.where(above.notna(), fisher_z(whole["pearsonr"].to_numpy(dtype=float)))
    return above


def joined(tables: Mapping[str, pd.DataFrame], score: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Participants' rows side by side, as what is tested: Fisher's z of correlations, other scores as they are.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By participant, with the columns of `ROWS` that the analysis has.
    score : str
        A column, or ``above``: that of `above_chance`.

    Returns
    -------
    keys : DataFrame
        One row for each that any participant has.
    z : ndarray, shape (n_participants, n_rows)
        NaN where a participant lacks a row.
    """
    whole = pd.concat([table.assign(participant=label) for label, table in tables.items()], ignore_index=True)
    if score == "above":
        whole = whole.assign(above=above_chance(whole))
    keys = [key for key in ROWS if key in whole]
    order = whole[keys].drop_duplicates()
    values = _wide(whole, keys, score, tables)
    return order.reset_index(drop=True), values if score in ("r2", "above") else fisher_z(values)


def _wide(whole: pd.DataFrame, keys: list[str], column: str, tables: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """A column as participants x rows."""
    order = pd.MultiIndex.from_frame(whole[keys].drop_duplicates())
    wide = whole.pivot(index=keys, columns="participant", values=column)
    return np.asarray(wide.reindex(index=order, columns=list(tables)).to_numpy(dtype=float).T)


def lacking(keys: pd.DataFrame, z: np.ndarray, labels: Sequence[str]) -> list[str]:
    """A sentence on each participant who has no score in some regions that others have."""
    sentences = []
    for label, row in zip(labels, np.isfinite(z), strict=True):
        has = pd.Series(row).groupby(keys["region"].to_numpy(), sort=False).any() if "region" in keys else pd.Series()
        if len(has) and not has.all():
            sentences.append(
                f"sub-{label} has no scores in {', '.join(map(str, has.index[~has]))}: the others' are used."
            )
    return sentences


def prevalence_columns(whole: pd.DataFrame, keys: list[str], tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """How common an effect is among people, where the participants' tables have p."""
    if "p" not in whole:
        return {}
    return dict(zip(PREVALENCE, prevalence(_wide(whole, keys, "p", tables)), strict=True))


def scored(
    tables: Mapping[str, pd.DataFrame], score: str, *, permutations: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Participants' scores were tested against zero, Fisher-transformed, by flipping the signs of whole participants.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By participant, with the columns of `ROWS` that the analysis has.
    score : str
        Column to be tested: correlations.
    permutations, seed : int
        Of the random flips.

    Returns
    -------
    table : DataFrame
        Rows as in the participants' tables: means, n_participants, sem, t and p.
    z : ndarray, shape (n_participants, n_rows)
        Fisher-transformed scores; NaN where a participant lacks a row.
    """
    whole = pd.concat([table.assign(participant=label) for label, table in tables.items()], ignore_index=True)
    keys = [key for key in ROWS if key in whole]
    order = pd.MultiIndex.from_frame(whole[keys].drop_duplicates())
    values = _wide(whole, keys, score, tables)
    z = values if score == "r2" else fisher_z(values)
    t, p = sign_flip(z, permutations=permutations, seed=seed)
    means = whole.groupby(keys, sort=False).mean(numeric_only=True).reindex(order).reset_index()
    present = np.isfinite(values).sum(axis=0)
    result = means[keys].copy()
    for column in ("n_voxels", score, "r2", "ceiling", "pearsonr_normalized"):
        if column in means:
            result[column] = means[column]
    spread = np.nanstd(np.where(present >= FEWEST, values, 0.0), axis=0, ddof=1)
    result["n_participants"] = present
    result["sem"] = np.where(present >= FEWEST, spread / np.sqrt(np.maximum(present, 1)), np.nan)
    result["t"], result["p"], result["p_smallest"] = t, p, smallest(present, permutations)
    return result.assign(**prevalence_columns(whole, keys, tables)), z
