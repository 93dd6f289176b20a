"""How the responses were estimated: the design and its collinearity, motion by volume, dropped trials, chosen HRFs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.report.blocks import Block, Notes, attempt, data_table
from bidsdnn.report.brains import read_scans
from bidsdnn.report.drawing import INK, LINE, SERIES, Figure, Panel, draw
from bidsdnn.report.entries import Entry, pick, read_table, read_tables
from bidsdnn.report.findings import count, number

_MAX_RUNS = 40
_CLOSE = 0.8
"""Correlation of two trials' regressors from which a reader should think of a longer interval."""


def estimation_blocks(entries: list[Entry], stem: str, problems: list[str]) -> list[Block]:
    """Draw the designs, motion by volume and chosen responses, and list dropped trials; of one participant.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
    """
    blocks: list[Block] = []
    for entry in pick(entries, "results", "volumes"):
        blocks += attempt(partial(_motion, entry, stem), "motion by volume", problems)
    for entry in pick(entries, "results", "quality"):
        blocks += attempt(partial(_designs, entry, stem), "designs", problems)
    for entry in pick(entries, "results", "dropped"):
        blocks += attempt(partial(_dropped, entry), "dropped trials", problems)
    for entry in pick(entries, "statmap", "estimation", "hrf"):
        blocks += attempt(partial(_hrfs, entry, stem), "chosen responses", problems)
    return blocks


def _motion(entry: Entry, stem: str) -> list[Block]:
    """Framewise displacement of every volume, runs side by side."""
    table = read_tables([entry], "run", "volume", "framewise_displacement", "reason")
    if table["framewise_displacement"].isna().all():
        return []
    ends = np.cumsum(table.groupby("run", sort=False).size().to_numpy())
    out = table["reason"].fillna("").ne("").to_numpy()
    displacement = table["framewise_displacement"].to_numpy(dtype=float)

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.plot(np.arange(len(table)), displacement, color=SERIES[0], linewidth=0.9)
        axes.vlines(ends[:-1] - 0.5, 0, np.nanmax(displacement), color=LINE, linewidth=1)
        axes.plot(np.flatnonzero(out), np.nan_to_num(displacement[out]), "x", color=SERIES[1], markersize=5)
        middle = ends - np.diff(ends, prepend=0) / 2
        shown = slice(None, None, max(1, len(ends) // 12))
        axes.set_xticks(middle[shown], [str(i + 1) for i in range(len(ends))][shown])
        axes.set(xlabel="run", ylabel="framewise displacement (mm)", xlim=(0, len(table)), ylim=(0, None))

    reasons = table.loc[out, "reason"].value_counts()
    said = "; ".join(f"{count(n, 'volume')} left out: {reason}" for reason, n in reasons.items())
    said = said or "no volume was left out of the fit"
    panel = draw(f"{stem}_volumes", (640, 190), paint, alt=f"Framewise displacement by volume; {said}.")
    caption = (
        f"Motion by volume: framewise displacement of n = {count(len(table), 'volume')} of {count(len(ends), 'run')}, "
        f"separated by lines. Crosses are volumes that were left out of the fit: {said}. No test and no error bars."
    )
    return [Figure((panel,), "Motion by volume", caption, "wide")]


def _designs(entry: Entry, stem: str) -> list[Block]:
    """Pictures of the first and the most collinear design, and the collinearity of all."""
    table = read_tables([entry], "run")
    files = [entry.path.parent / name for name in entry.sidecar.get("DesignFiles", [])]
    if len(files) != len(table) or "condition_number" not in table:
        return []
    worst = int(table["condition_number"].fillna(np.inf).to_numpy().argmax())
    panels = [_design(files[i], table["run"][i], stem) for i in dict.fromkeys((0, worst))]
    r, condition = table["max_trial_r"], table["condition_number"]
    close = f" In {count((r > _CLOSE).sum(), 'run')} two trials' regressors correlate by more than {_CLOSE:g}."
    caption = (
        "The model of the first run" + (", and of the run with the most collinear one" if len(panels) > 1 else "")
        + ": one column a regressor (trials, then confounds, drifts, other events and a constant, each scaled to its "
        "own range), one row a volume; volumes that were left out are blank. Highest correlation of two trials: "
        f"{number(float(r.min()))} to {number(float(r.max()))} over n = {count(len(table), 'run')}; condition number "
        f"of the trials, all else taken out, {condition.min():.0f} to {condition.max():.0f}."
        f"{close if (r > _CLOSE).any() else ''} No test and no error bars."
    )  # fmt: skip
    return [Figure(tuple(panels), "Design matrices", caption, "grid")]


def _design(path: Path, run: str, stem: str) -> Panel:
    """One run's regressors as shades."""
    table = read_table(path)
    fitted = table["fitted"].to_numpy(dtype=float) > 0 if "fitted" in table else np.ones(len(table), bool)
    names = [column for column in table if column != "fitted"]
    x = table[names].to_numpy(dtype=float)
    low, high = x.min(axis=0), x.max(axis=0)
    x = np.divide(x - low, high - low, out=np.full_like(x, 0.5), where=high > low)
    x[~fitted] = np.nan
    trials = sum(name.startswith("trial") for name in names)

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.grid(visible=False)
        axes.imshow(x, aspect="auto", cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.axvline(trials - 0.5, color=SERIES[1], linewidth=1.5)
        axes.set(ylabel="volume", xticks=[(trials - 1) / 2, trials + (len(names) - trials - 1) / 2])
        axes.set_xticklabels([f"{trials} trials", f"{len(names) - trials} others"], color=INK)

    alt = f"Design matrix of {run}: {trials} trials and {len(names) - trials} other regressors over {len(x)} volumes."
    # What the run's name shares with the others' is in the stem already.
    own = "_".join(part for part in run.split("_") if part not in stem.split("_"))
    return draw("_".join(filter(None, (stem, own, "design"))), (320, 260), paint, alt=alt, label=run)


def _dropped(entry: Entry) -> list[Block]:
    """How many trials have no response, by reason and run."""
    table = read_tables([entry], "run", "reason", "n_trials")
    table = table[table["n_trials"] > 0] if len(table) else table
    if table.empty:
        return [Notes("Dropped trials", ("Every trial of interest has a response.",))]
    totals = table.groupby("reason", sort=False)["n_trials"].sum()
    said = tuple(f"{count(n, 'trial')}: {reason}" for reason, n in totals.items())
    shown = table[["sub", "run", "reason", "n_trials"]]
    return [Notes("Dropped trials", said, "warning"), data_table(shown, "Dropped trials by run")]


def _hrfs(entry: Entry, stem: str) -> list[Block]:
    """How many voxels have each response of the library."""
    values = np.concatenate([scan.values.ravel() for scan in read_scans(entry.path)])
    chosen = values[np.isfinite(values) & (values > 0)].astype(int)
    if not len(chosen):
        return []
    numbers = np.arange(1, chosen.max() + 1)
    counts = np.bincount(chosen, minlength=len(numbers) + 1)[1:]

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.bar(numbers, counts, color=SERIES[0], width=0.8)
        axes.set(xlabel="response of the library, early to late", ylabel="voxels")
        axes.set_xticks(numbers[:: max(1, len(numbers) // 10)])

    most = int(numbers[counts.argmax()])
    panel = draw(f"{stem}_hrfs", (420, 190), paint, alt=f"Voxels by chosen response; most have number {most}.")
    caption = (
        f"Haemodynamic responses chosen for n = {count(len(chosen), 'voxel')}: most often number {most} of the library "
        f"({counts.max():,} voxels). No test and no error bars."
    )
    return [Figure((panel,), "Chosen haemodynamic responses", caption, "wide")]
