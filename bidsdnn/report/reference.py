"""One work to be cited, and how it is written in full and in BibTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bidsdnn.report.tex import accented, escaped

# As ``59(3), 2636-2643``, ``14, 580632``, ``56-61`` and ``13(3), e1005209``.
_PLACE = re.compile(r"(?:(?P<volume>\d+)(?:\((?P<number>[\d-]+)\))?(?:, |$))?(?P<pages>[a-z]*\d+(?:-\d+)?)?")


@dataclass(frozen=True)
class Reference:
    """One work to be cited.

    Parameters
    ----------
    key : str
        Name in sidecars and in BibTeX.
    kind : str
        BibTeX type of the entry.
    authors : tuple of str
        ``Family, Given`` each; a group's name has no comma; ``others`` at the end stands for those not named.
    year : int or None
        None for software that is cited by its version.
    title, venue : str
    where : str
        Volume, issue and pages, or an identifier.
    doi : str
    """

    key: str
    kind: str
    authors: tuple[str, ...]
    year: int | None
    title: str
    venue: str
    where: str = ""
    doi: str = ""

    @property
    def short(self) -> str:
        """Authors and year, as in running text."""
        names = [author.split(",")[0].strip("{}") for author in self.authors]
        people = names[0] if len(names) == 1 else " & ".join(names) if len(names) == 2 else f"{names[0]} et al."
        return f"{people}, {self.year}" if self.year else people

    @property
    def text(self) -> str:
        """The reference in full, as in a list at the end of a paper."""
        names = [_initials(author) for author in self.authors if author != "others"]
        shown = names if len(names) <= 6 else [*names[:3], "… " + names[-1]]
        people = ", ".join(shown) + (" et al" if "others" in self.authors else "")
        year = f" ({self.year})" if self.year else ""
        where = f", {self.where}" if self.where else ""
        title = self.title if self.title.endswith("?") else f"{self.title}."
        doi = f" doi:{self.doi}" if self.doi else ""
        return f"{people}{year}. {title} {self.venue}{where}.{doi}"

    @property
    def bibtex(self) -> str:
        """The reference as a BibTeX entry, whose text LaTeX takes as it is."""
        venue = {"article": "journal", "inproceedings": "booktitle"}.get(self.kind, "howpublished")
        place = _PLACE.fullmatch(self.where)
        known = {name: value for name, value in place.groupdict().items() if value} if place else {"note": self.where}
        lines = {
            "author": " and ".join(a if "," in a or a == "others" else f"{{{a}}}" for a in self.authors),
            "title": f"{{{self.title}}}",
            "year": str(self.year or ""),
            venue: self.venue,
            **known,
        }
        fields = {name: _value(name, value) for name, value in lines.items() if value}
        if self.doi:
            # An address, not text: styles that print it know how.
            fields["doi"] = self.doi
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{body}\n}}"


def _value(name: str, text: str) -> str:
    """What stands in a field; the braces that keep capitals and the names of groups together stay."""
    if name == "pages":
        return text.replace("-", "--")
    if name == "title":
        return f"{{{escaped(text[1:-1])}}}"
    return accented(text).replace("&", r"\&") if name == "author" else escaped(text)


def _initials(author: str) -> str:
    """Turn ``Kennard, Robert W.`` into ``Kennard RW``."""
    family, _, given = author.partition(",")
    letters = "".join(part[0] for part in re.split(r"[\s.\-]+", given) if part)
    return f"{family} {letters}".strip()
