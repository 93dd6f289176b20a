"""A methods section to paste: in Markdown, and in LaTeX with the BibTeX entries that it cites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bidsdnn.report.methods import REFERENCES, citation, find
from bidsdnn.report.prose import Paragraph, works_of
from bidsdnn.report.tex import escaped

_TEX = r"""% Paste this into a paper; beside it, CITATION.bib has the works:
%   \bibliographystyle{plainnat}
%   \bibliography{CITATION}
"""


def markdown(found: Sequence[Paragraph]) -> str:
    """Write paragraphs with authors and years, and the list of works.

    Parameters
    ----------
    found : sequence of Paragraph

    Returns
    -------
    str
    """
    works = works_of(found)
    listed, _ = citation(works)
    parts = ["# Methods", *(f"**{one.title}.** {one.text}" for one in found)]
    return "\n\n".join([*parts, "# References", listed]) if works else "\n\n".join(parts) + "\n"


def latex(found: Sequence[Paragraph]) -> str:
    r"""Write paragraphs as LaTeX with ``\cite``.

    Parameters
    ----------
    found : sequence of Paragraph

    Returns
    -------
    str
        Its keys are those of `bibtex` of the same paragraphs.
    """
    keys = bib_keys(works_of(found))
    parts = []
    for one in found:
        sentences = [_cited(said.text, [keys[key] for key in said.works]) for said in one.sentences]
        parts.append("\n".join([rf"\paragraph{{{escaped(one.title)}.}}", *sentences]))
    return _TEX + "\n" + "\n\n".join(parts) + "\n"


def _cited(text: str, keys: Sequence[str]) -> str:
    return escaped(text[:-1]) + (rf"~\cite{{{','.join(keys)}}}" if keys else "") + text[-1]


def bibtex(found: Iterable[Paragraph]) -> str:
    """Write the works that paragraphs cite as BibTeX entries.

    Parameters
    ----------
    found : iterable of Paragraph

    Returns
    -------
    str
        Works that are known by their text alone stand as ``@misc`` with that text.
    """
    entries = {}
    for work, key in bib_keys(works_of(found)).items():
        known = find(work)
        entries[key] = known.bibtex if known else f"@misc{{{key},\n  note = {{{escaped(work)}}}\n}}"
    return "".join(f"{entries[key]}\n\n" for key in sorted(entries)).rstrip("\n") + "\n"


def bib_keys(works: Iterable[str]) -> dict[str, str]:
    """Keys of works in BibTeX; of those in full, made of their first words.

    Parameters
    ----------
    works : iterable of str

    Returns
    -------
    dict of str to str
        Each key once.
    """
    found: dict[str, str] = {}
    for work in works:
        known = find(work)
        stem = known.key if known else "-".join(re.findall(r"[a-z0-9]+", work.lower())[:4]) or "work"
        key, number = stem, 2
        while key in found.values() or (known is None and key in REFERENCES):
            key, number = f"{stem}-{number}", number + 1
        found[work] = key
    return found
