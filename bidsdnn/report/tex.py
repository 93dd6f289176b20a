"""Text as LaTeX and BibTeX take it."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v",
    "\u0327": "c",
}  # fmt: skip
_LETTERS = {"ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "æ": r"{\ae}", "ı": r"{\i}"}
_SIGNS = {"–": "--", "—": "---", "…": r"\ldots{}", "’": "'", "“": "``", "”": "''", "×": r"$\times$", "±": r"$\pm$",
          "≥": r"$\geq$", "≤": r"$\leq$", "²": r"$^2$", "\u00a0": "~"}  # fmt: skip


def escaped(text: str) -> str:
    """Write any text so that LaTeX prints it as it is.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Letters with accents as commands, which every style and sorting of BibTeX understands.
    """
    plain = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub("|".join(_SIGNS), lambda found: _SIGNS[found[0]], accented(plain))


def accented(text: str) -> str:
    r"""Write letters with accents as LaTeX's commands, as ``{\"u}``; braces and other signs stay.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return "".join(map(_letter, unicodedata.normalize("NFC", text)))


def _letter(letter: str) -> str:
    if letter.isascii() or letter in _SIGNS:
        return letter
    apart = unicodedata.normalize("NFD", letter)
    base, marks = apart[0], apart[1:]
    if marks in _ACCENTS:
        command = _ACCENTS[marks]
        return rf"{{\{command}{' ' if command.isalpha() else ''}{base}}}"
    return _LETTERS.get(letter, letter)
