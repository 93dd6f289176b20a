"""Whether the data can carry what was found: trials, stimuli, motion, signal, reliability; and what was done."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from bidsdnn.report.atlas_works import atlas_reference
from bidsdnn.report.blocks import Block, Code, Methods, Notes, Section, data_table
from bidsdnn.report.drawing import Figure
from bidsdnn.report.entries import Entry, Log, first, listed, ordered, pick, read_tables
from bidsdnn.report.figures import dots
from bidsdnn.report.findings import Sentences, count, number
from bidsdnn.report.methods import find
from bidsdnn.report.prose import paragraphs, works_of

# Half a millimetre of mean framewise displacement is where many studies drop a run.
MOTION_LIMIT = 0.5
_MAX_DOTS = 40


def reliabilities(entries: list[Entry]) -> dict[str, float]:
    """Reliability of the responses by region, the mean over participants; empty where none was computed.

    Parameters
    ----------
    entries : list of Entry
        Of one context and atlas.

    Returns
    -------
    dict of str to float
    """
    found = pick(entries, "results", "reliability")
    if not found:
        return {}
    table = read_tables(found, "region", "reliability")
    return {str(region): float(value) for region, value in table.groupby("region")["reliability"].mean().items()}


def reliability_blocks(entries: list[Entry], stem: str) -> list[Block]:
    """Sentences, dots and a table of how reproducible each region's responses are.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stem : str
        Beginning of the file names.

    Returns
    -------
    list of Block
    """
    found = pick(entries, "results", "reliability")
    blocks: list[Block] = []
    for atlas in dict.fromkeys(entry.entities.get("atlas", "none") for entry in found):
        these = [entry for entry in found if entry.entities.get("atlas", "none") == atlas]
        blocks += _reliability_of_atlas(these, f"{stem}_atlas-{atlas}")
    return blocks


def _reliability_of_atlas(found: list[Entry], stem: str) -> list[Block]:
    """Reliability of the regions of one atlas."""
    table = read_tables(found, "region", "reliability")
    known = table[table["reliability"].notna()]
    if known.empty:
        return [Notes("Reliability", ("No region has a reliability: no stimulus was shown twice.",))]
    top = known.loc[known["reliability"].idxmax()]
    lead = Markup("Responses were most reliable in <b>{}</b> (reliability {}) and had a median of {} over {}.").format(
        top["region"], number(top["reliability"]), number(known["reliability"].median()),
        count(len(known), "region"),
    )  # fmt: skip
    size = [f"n = {count(known['n_stimuli'].max(), 'stimulus', 'stimuli')}"] if "n_stimuli" in known else []
    repeats = [f"{known['n_repeats'].max():g} presentations each"] if "n_repeats" in known else []
    caption = (
        "Reliability of each region's responses: the agreement of two halves of the presentations of each stimulus, "
        f"averaged over voxels. {', '.join(size + repeats)}. No test and no error bars: a description of the data."
    )
    shown = known.nlargest(_MAX_DOTS, "reliability").sort_index()
    panel = dots(
        dict(zip(shown["region"], shown["reliability"], strict=True)),
        stem=f"{stem}_reliability", label="reliability", alt="Reliability by region",
    )  # fmt: skip
    return [
        Sentences(lead, ()),
        Figure((panel,), "Reliability by region", caption, "wide"),
        data_table(table, "Reliability, every region"),
    ]


def run_blocks(entries: list[Entry], stem: str) -> list[Block]:
    """Say, draw and list what is known of each run: trials, stimuli, motion.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    stem : str
        Beginning of the file names.

    Returns
    -------
    list of Block
        Empty if no table of runs was written.
    """
    found = pick(entries, "results", "quality")
    if not found:
        return []
    table = read_tables(found, "run")
    blocks: list[Block] = [Sentences(_summary(table), tuple(_stimulus_sentences(found)))]
    missing = first(found, "StimuliMissing")
    if isinstance(missing, list) and missing:
        more = [f"and {len(missing) - 5:,} more"] if len(missing) > 5 else []
        blocks.append(Notes("Stimuli that were not found", (*map(str, missing[:5]), *more), "warning"))
    if "mean_fd" in table and table["mean_fd"].notna().any():
        blocks.append(_motion(table, stem))
    blocks.append(data_table(table, "Every run", folded=len(table) > 12))
    return blocks


def _motion(table: pd.DataFrame, stem: str) -> Figure:
    """Mean and highest displacement of each run, or of each participant where there are many runs."""
    shown = table.assign(max_fd=table["max_fd"] if "max_fd" in table else table["mean_fd"])
    names, of = _run_names(table), "a run"
    if len(table) > _MAX_DOTS and table["sub"].nunique() > 1:
        shown = shown.groupby("sub", sort=False, as_index=False).agg({"mean_fd": "mean", "max_fd": "max"})
        names, of = [f"sub {label}" for label in shown["sub"]], "a participant's runs"
    # Runs of several sessions may share a number.
    names = names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, 1)]
    shown = shown.assign(name=names)
    few = f" The {_MAX_DOTS} with the most motion." if len(shown) > _MAX_DOTS else ""
    shown = shown.loc[shown["mean_fd"].nlargest(_MAX_DOTS).sort_index().index]
    panel = dots(
        dict(zip(shown["name"], shown["mean_fd"], strict=True)),
        upper=dict(zip(shown["name"], shown["max_fd"], strict=True)),
        stem=f"{stem}_motion", label="framewise displacement (mm)", alt="Mean framewise displacement",
        limit=MOTION_LIMIT if shown["max_fd"].max() > MOTION_LIMIT / 2 else None,
    )  # fmt: skip
    caption = (
        f"Head motion: dots are the mean framewise displacement of {of}, bars end at the maximum; they are no error "
        f"bars.{few} n = {count(len(table), 'run')}; no test. A dashed line marks {MOTION_LIMIT} mm where the axis "
        "reaches it."
    )
    return Figure((panel,), "Head motion", caption, "wide")


def _run_names(table: pd.DataFrame) -> list[str]:
    """Names of runs without the entities that all of them share."""
    full = [
        f"sub-{sub}_{run if '-' in run else f'run-{run}'}".split("_")
        for sub, run in zip(table["sub"], table["run"], strict=True)
    ]
    shared = set.intersection(*(set(parts) for parts in full)) if len(full) > 1 else set()
    short = [[part for part in parts if part not in shared and part != "sub-"] for parts in full]
    return [" ".join(part.replace("-", " ", 1) for part in parts) or "run" for parts in short]


def _summary(table: pd.DataFrame) -> Markup:
    """Runs, trials and motion in one sentence."""
    parts = [count(len(table), "run")]
    if "n_trials" in table:
        dropped = table["n_dropped"].sum() if "n_dropped" in table else 0
        parts.append(f"{count(table['n_trials'].sum(), 'trial')}, {dropped:,.0f} dropped")
    if "n_volumes_left_out" in table and table["n_volumes_left_out"].sum():
        parts.append(f"{count(table['n_volumes_left_out'].sum(), 'volume')} left out of the fit")
    if "mean_fd" in table and table["mean_fd"].notna().any():
        parts.append(f"mean framewise displacement {table['mean_fd'].mean():.2f} mm")
    if "tsnr" in table and table["tsnr"].notna().any():
        # As the map: averaged over runs, of each the median over voxels.
        parts.append(f"tSNR {table['tsnr'].mean():.0f}")
    text = "; ".join(parts) + "."
    constant = table["n_voxels_constant"].max() if "n_voxels_constant" in table else 0
    if constant > 0:
        text += f" At most {count(constant, 'voxel')} in a run had no variance and got no score."
    return Markup("{}").format(text)


def _stimulus_sentences(found: list[Entry]) -> list[Markup]:
    """How events were matched to stimuli."""
    sentences = []
    columns = listed(found, "StimulusColumn")
    here, gone = (_how_many(first(found, key)) for key in ("StimuliFound", "StimuliMissing"))
    if columns:
        sentences.append(Markup("Stimuli were named by the events' column <code>{}</code>.").format(", ".join(columns)))
    if here is not None:
        total = here + (gone or 0)
        sentences.append(Markup("{} of {} named stimuli were found on disk.").format(f"{here:,}", f"{total:,}"))
    return sentences


def _how_many(value: object) -> int | None:
    """A count, or the length of a list of names."""
    return len(value) if isinstance(value, list) else int(value) if isinstance(value, (int, float)) else None


def methods_section(entries: list[Entry]) -> Section:
    """What was done, in sentences to paste, with citations and versions.

    Parameters
    ----------
    entries : list of Entry

    Returns
    -------
    Section
        Sentences, references and software of all sidecars, each once.
    """
    results = [(_level(entry), entry.desc, entry.sidecar) for entry in entries]
    atlases = dict.fromkeys(entry.entities["atlas"] for entry in entries if "atlas" in entry.entities)
    works = {label: [key] if (key := atlas_reference(label)) else [] for label in atlases}
    found = paragraphs(results, atlases=works) if any(said.get("Methods") for _, _, said in results) else []
    software: dict[str, str] = {}
    for entry in entries:
        versions = entry.sidecar.get("Software") or {}
        software |= {str(name): str(version) for name, version in versions.items()}
    references = [(work.text, work.doi) if work else (key, "") for key in works_of(found) for work in [find(key)]]
    block = Methods(
        tuple((one.text, ()) for one in found),
        tuple(sorted(references, key=lambda pair: pair[0].casefold())),
        tuple(sorted(software.items(), key=lambda pair: pair[0].casefold())),
    )
    if not (block.paragraphs or block.references or block.software):
        return Section("methods", "Methods", (Notes("", ("No result says how it was made.",)),))
    return Section("methods", "Methods", (block,))


def _level(entry: Entry) -> str:
    """Whether a file is of a network, a participant or the group."""
    if "sub" in entry.entities:
        return "participant"
    return "dnn" if entry.path.parent.name == "stimuli" else "group"


def log_section(log: Log, problems: list[str]) -> Section:
    """Errors, warnings, the command and the configuration.

    Parameters
    ----------
    log : Log
    problems : list of str
        What this report could not show.

    Returns
    -------
    Section
    """
    blocks: list[Block] = []
    if log.errors:
        where = (f"It stopped in: {log.stopped}.",) if log.stopped else ("It stopped before its analyses began.",)
        blocks.append(Notes(count(len(log.errors), "error"), (*log.errors, *where), "error"))
    blocks += [Code("Traceback", text, folded=False) for text in log.tracebacks]
    warnings = tuple(ordered(pd.Series([*log.warnings, *problems], dtype=str)))
    if warnings:
        blocks.append(Notes(count(len(warnings), "warning"), warnings, "warning"))
    if not log.errors and not warnings:
        blocks.append(Notes("", ("No errors and no warnings.",)))
    if log.command:
        blocks.append(Code("Command", log.command, folded=False))
    if log.config:
        blocks.append(Code("Configuration, as it was resolved", log.config))
    if log.steps:
        rows = [(step if how == "took" else f"{step} (stopped here)", s, mb) for step, how, s, mb in log.steps]
        table = pd.DataFrame(rows, columns=["step", "seconds", "peak_memory"])
        blocks.append(
            data_table(table, "Time and memory", note="Memory: the largest so far of a process.", folded=False)
        )
    took = f" and took {duration(log.seconds)}" if log.seconds is not None else ""
    blocks.append(Notes("", (f"Run {log.run_uuid} started {log.started}{took}.",)))
    return Section("log", "Errors, warnings and provenance", tuple(blocks))


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
