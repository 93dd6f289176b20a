"""The methods of a paper, from what results say of themselves: sentences, each once, with the works that they rest on.

A report's page, ``CITATION.md`` and ``CITATION.tex`` print the same paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bidsdnn.report.methods import find

# Where a result's sentences go, by how its `desc` begins; the order of the paragraphs.
_TITLES = {
    "Networks": ("activations",),
    "Responses": ("quality", "condition", "singletrial"),
    "Encoding": ("encoding", "bestlayer", "bestvoxels", "hierarchy", "networks", "identification"),
    "Variance partitioning": ("variancepartition",),
    "Decoding": ("decoding", "confusion"),
    "Representational similarity": ("rsa", "rdm", "similarity", "arrangement", ""),
    "Searchlights": ("searchlight",),
    "Reliability": ("reliability",),
    "Inside the networks": (),
    "Group": (),
    "Models of the group": (),
}
# How the `desc` of what was fitted to participants together ends, by `--group-model`.
_GROUP_MODELS = ("Averaged", "Stacked", "Crossparticipant")
# Programs by the key of their work: the name in a sidecar's `Software`, and the one in a paper.
_PROGRAMS = {
    "pybids": ("pybids", "PyBIDS"), "nibabel": ("nibabel", "NiBabel"), "nilearn": ("nilearn", "Nilearn"),
    "numpy": ("numpy", "NumPy"), "scipy": ("scipy", "SciPy"), "pandas": ("pandas", "pandas"),
    "scikit-learn": ("scikit-learn", "scikit-learn"), "pytorch": ("torch", "PyTorch"),
    "torchvision": ("torchvision", "torchvision"), "matplotlib": ("matplotlib", "Matplotlib"),
}  # fmt: skip
_STANDARD = ("bidsdnn", "bids", "bids-apps", "fmriprep")
# Which words of a sentence a work belongs to; works without any stand at the end of their paragraph.
_CUES = {
    "lss": "least squares separate", "lss-turner": "least squares separate", "lsa": "least squares all",
    "fir": "finite impulse", "window": "in a window", "condition": "one model of all runs",
    "timeseries": "volumes acquired", "glmsingle": "response shape", "glmdenoise": "noise components",
    "ar1": "autoregressive", "motion": "framewise displacement|motion parameters", "motion-24": "squares of both",
    "compcor": "CompCor", "ica-aroma": "AROMA", "ncsnr": "signal-to-noise", "encoding": "predicted from",
    "ridge": "[Rr]idge", "banded-ridge": "[Bb]anded ridge", "banded-ridge-search": "[Bb]anded ridge",
    "kernel-ridge": "[Kk]ernel", "lasso": "[Ll]asso", "elastic-net": "[Ee]lastic net", "pls": "[Pp]artial least",
    "ols": "least squares", "permutation": r"\(1 \+ b\) / \(1 \+ n\)", "circular-shift": "shifted in time",
    "sign-flip": "family-wise|signs of whole|sign flips", "fdr": "false discovery", "holm": "Holm",
    "layer-assignment": "Layers were chosen", "brain-hierarchy": "hierarchy|[Dd]epth",
    "variance-partition": "shared out", "corrected-resampling": "bootstrap (variance|samples)",
    "commonality": "commonality", "rsa": "issimilarity matrices|geometry|Similarities of",
    "rsa-toolbox": "noise ceiling",
    "rsa-inference": "bootstrap", "crossnobis": "Mahalanobis", "mds": "multidimensional",
    "searchlight": "[Ss]earchlight", "weighted-rsa": "weighted sum", "partial-permutation": "controls leave",
    "haufe": "patterns", "lda-ridge": "discriminant", "identification": "matched with predictions",
    "random-projection": "projected", "tfce": "threshold-free", "freedman-lane": "Effects of covariates",
    "permutation-glm": "Effects of covariates", "prevalence": "[Pp]revalence",
}  # fmt: skip
# A full stop after these ends no sentence.
_ABBREVIATED = re.compile(r"(?:\b(?:al|cf|e\.g|i\.e|vs|approx|no|pp?|Fig|Eq)|\b[A-Z])\.$")


@dataclass(frozen=True)
class Said:
    """One sentence and the works it cites.

    Parameters
    ----------
    text : str
        Ends with its full stop.
    works : tuple of str
        Keys of `REFERENCES`, or references in full.
    """

    text: str
    works: tuple[str, ...] = ()

    @property
    def cited(self) -> str:
        """The sentence with authors and years, as in running text."""
        found = list(filter(None, map(_short, self.works)))
        return f"{self.text[:-1]} ({'; '.join(found)})." if found else self.text


@dataclass(frozen=True)
class Paragraph:
    """What was done in one part of an analysis.

    Parameters
    ----------
    title : str
    sentences : tuple of Said
    """

    title: str
    sentences: tuple[Said, ...]

    @property
    def text(self) -> str:
        """The paragraph with authors and years."""
        return " ".join(one.cited for one in self.sentences)


def _short(work: str) -> str:
    """Authors and year of a work; of one that is given in full, its first author if it begins as they do."""
    known = find(work)
    if known:
        return known.short
    begins = re.match(r"(?P<people>[^(]*?)\s*\((?P<year>\d{4})\w?\)", work)
    if begins is None:
        return ""
    first, *others = re.split(r", |; | and | & ", begins["people"])
    family = re.sub(r"(\s+[A-Z]{1,3}|,.*)$", "", first)
    return f"{family}{' et al.' if others else ''}, {begins['year']}"


def split(text: str) -> list[str]:
    """Take a text apart into its sentences.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
    """
    found: list[str] = []
    for part in re.split(r"(?<=[.!?])\s+", text.strip()):
        # What opened a bracket that is not closed, or ends in an abbreviation, goes on.
        if found and (_ABBREVIATED.search(found[-1]) or found[-1].count("(") > found[-1].count(")")):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return [one if one[-1] in ".!?" else f"{one}." for one in found]


def title_of(level: str, desc: str) -> str:
    """Which paragraph a result's sentences belong to.

    Parameters
    ----------
    level : str
        ``dnn``, ``participant`` or ``group``.
    desc : str
        The entity of the result's name; empty for RDMs.

    Returns
    -------
    str
    """
    if level == "group":
        is_model = desc.partition("+")[0].endswith(_GROUP_MODELS)
        return "Models of the group" if is_model else "Group"
    if level == "dnn" and desc in ("", "activations", "pca"):
        return "Networks"
    for title, starts in _TITLES.items():
        if any(desc == one or (one and desc.startswith(one)) for one in starts):
            return title
    return "Inside the networks"


def paragraphs(
    results: Iterable[tuple[str, str, Mapping[str, Any]]], *, atlases: Mapping[str, Sequence[str]] | None = None
) -> list[Paragraph]:
    """Put what results say of themselves into the paragraphs of a methods section.

    Parameters
    ----------
    results : iterable of (level, desc, sidecar)
        ``Methods`` and ``References`` of the sidecars are used.
    atlases : mapping of str to sequence of str, optional
        Works of the atlases that were used, by their label.

    Returns
    -------
    list of Paragraph
        In the order of the work; no sentence stands twice, and no paragraph is empty. The last one names software.
    """
    said: dict[str, dict[str, dict[str, None]]] = {title: {} for title in _TITLES}
    placed: dict[str, str] = {}
    software: dict[str, str] = {}
    programs: dict[str, None] = {}
    for level, desc, sidecar in sorted(results, key=_rank):
        title = title_of(level, desc)
        texts = sidecar.get("Methods") or []
        sentences = [one for text in ([texts] if isinstance(texts, str) else texts) for one in split(text)]
        for sentence in sentences:
            said[placed.setdefault(sentence, title)].setdefault(sentence, {})
        works = [key for key in sidecar.get("References") or () if key not in (*_PROGRAMS, *_STANDARD)]
        programs |= dict.fromkeys(key for key in sidecar.get("References") or () if key not in works)
        for key in works if sentences else ():
            owner = next((one for one in sentences if key in _CUES and re.search(_CUES[key], one)), sentences[-1])
            said[placed[owner]][owner][key] = None
        software |= {str(name): str(version) for name, version in (sidecar.get("Software") or {}).items()}
    found = [Paragraph(title, _once(sentences)) for title, sentences in said.items() if sentences]
    named = _atlas_sentences(atlases or {})
    return [*found, *([Paragraph("Regions", named)] if named else []), *_software(programs, software)]


def _rank(result: tuple[str, str, Mapping[str, Any]]) -> tuple[int, int]:
    """Where a result stands among others: in the order of the paragraphs, and an analysis before its parts."""
    order = [one for starts in _TITLES.values() for one in starts]
    return next((i for i, one in enumerate(order) if one and result[1].startswith(one)), len(order)), len(result[1])


def _once(sentences: Mapping[str, Mapping[str, None]]) -> tuple[Said, ...]:
    """Sentences with their works, each work at its first sentence only."""
    cited: set[str] = set()
    found = []
    for text, works in sentences.items():
        found.append(Said(text, tuple(key for key in works if key not in cited)))
        cited |= set(works)
    return tuple(found)


def _atlas_sentences(atlases: Mapping[str, Sequence[str]]) -> tuple[Said, ...]:
    return tuple(
        Said(f"Regions were those of the atlas {label}.", tuple(works)) for label, works in sorted(atlases.items())
    )


def _software(programs: Mapping[str, None], versions: Mapping[str, str]) -> list[Paragraph]:
    """What was computed with what: programs whose work is cited, and no others."""
    if "bidsdnn" not in versions and not programs:
        return []
    version = f" {versions['bidsdnn']}" if "bidsdnn" in versions else ""
    sentences = [Said(f"The analysis was run with bidsdnn{version}.", ("bidsdnn",))]
    standards = tuple(key for key in ("bids", "bids-apps") if key in programs)
    if standards:
        sentences.append(Said("Data were read and written in the Brain Imaging Data Structure.", standards))
    if "fmriprep" in programs:
        sentences.append(Said("Images had been preprocessed with fMRIPrep.", ("fmriprep",)))
    used = [key for key in _PROGRAMS if key in programs]
    if used:
        python = f"Python {versions['python']}" if "python" in versions else "Python"
        named = [" ".join([_PROGRAMS[key][1], versions.get(_PROGRAMS[key][0], "")]).strip() for key in used]
        sentences.append(Said(f"It was computed in {python} with {_listed(named)}.", tuple(used)))
    return [Paragraph("Software", tuple(sentences))]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def works_of(found: Iterable[Paragraph]) -> list[str]:
    """All works that paragraphs cite.

    Parameters
    ----------
    found : iterable of Paragraph

    Returns
    -------
    list of str
        Each once, in the order of their first citation.
    """
    return list(dict.fromkeys(key for one in found for sentence in one.sentences for key in sentence.works))
