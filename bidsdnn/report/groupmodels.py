"""Models fitted at the group: of averaged responses, of all participants' voxels, and from one person to another."""

from __future__ import annotations

from functools import partial

from bidsdnn.report.backdrop import Backdrop
from bidsdnn.report.blocks import Block, Heading, Notes, attempt, data_table
from bidsdnn.report.entries import Entry, listed, pick, read_tables
from bidsdnn.report.maps import model_blocks
from bidsdnn.report.scores import score_blocks

SUFFIXES = {
    "Averaged": "Participants' averaged responses",
    "Stacked": "All participants' voxels side by side",
    "Crossparticipant": "From some participants to another one",
}
"""What is added to ``desc-``, and what the model is of."""
_WORDS = {"encoding": "encoding", "rsa": "representational similarity", "decoding": "decoding"}
_OTHERS = {
    "encodingpeople": "Prediction of each participant", "encodingfolds": "Prediction in each fold",
    "bestlayer": "How sure the best layer is", "hierarchy": "Depth of each region", "networks": "All pairs of networks",
    "identification": "Identification of stimuli", "reliability": "Reliability", "encodingpairs": "All pairs of layers",
    "rsapairs": "All pairs of layers", "decodingpeople": "Labels told from each participant",
    "rsapeople": "Similarity of each participant",
}  # fmt: skip


def group_model_blocks(own: list[Entry], base: Backdrop, stem: str, problems: list[str]) -> list[Block]:
    """Sentences, profiles, maps and numbers of each model of the group.

    Parameters
    ----------
    own : list of Entry
        Of one context.
    base : Backdrop
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.

    Returns
    -------
    list of Block
        Empty where ``--group-model`` was not given.
    """
    blocks: list[Block] = []
    for suffix, title in SUFFIXES.items():
        mine = [entry for entry in own if entry.desc.partition("+")[0].endswith(suffix)]
        made: list[Block] = []
        for analysis, word in _WORDS.items():
            blocks_of_it = _analysis(mine, analysis, suffix, base, stem, problems)
            made += [Heading(f"{title}: {word}"), *blocks_of_it] if blocks_of_it else []
        blocks += [*_said(title, mine), *made] if made else []
    return blocks


def _said(title: str, mine: list[Entry]) -> list[Block]:
    """How the model was made, in the words of its sidecar."""
    said = listed(mine, "GroupMethods")
    return [Notes(title, tuple(said))] if said else []


def _analysis(
    mine: list[Entry], analysis: str, suffix: str, base: Backdrop, stem: str, problems: list[str]
) -> list[Block]:
    """One analysis of one model, atlas by atlas, then its maps and its other tables."""
    blocks: list[Block] = []
    tables = pick(mine, "results", f"{analysis}{suffix}")
    for atlas in dict.fromkeys(entry.entities.get("atlas", "none") for entry in tables):
        these = [entry for entry in tables if entry.entities.get("atlas", "none") == atlas]
        label = f"{stem}_atlas-{atlas}_desc-{analysis}{suffix}"
        what = f"{analysis}{suffix} of atlas {atlas}"
        if analysis == "decoding":
            blocks += attempt(partial(_table, these, f"Decoding, atlas {atlas}"), what, problems)
        else:
            blocks += attempt(partial(score_blocks, these, [], analysis, label, level="participant"), what, problems)
    if analysis == "encoding":
        blocks += model_blocks(mine, base, stem, problems, level="participant", desc=f"encoding{suffix}")
    for other, title in _OTHERS.items():
        if other.startswith(analysis) or (analysis == "encoding" and not other.startswith(tuple(_WORDS))):
            found = pick(mine, "results", f"{other}{suffix}")
            if found:
                blocks += attempt(partial(_table, found, title), other, problems)
    return blocks


def _table(tables: list[Entry], title: str) -> list[Block]:
    return [data_table(read_tables(tables).drop(columns=["sub"], errors="ignore"), title)]
