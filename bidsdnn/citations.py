"""What to cite, and a methods section to paste, from all results of the output folder: ``logs/CITATION.*``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bidsdnn.bids import names
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, write_text
from bidsdnn.report.atlas_works import atlas_reference
from bidsdnn.report.citing import bibtex, latex, markdown
from bidsdnn.report.prose import paragraphs

_LEVELS = {"stimuli": "dnn", "group": "group"}


def write_citations(derivatives: Derivatives) -> None:
    """Write ``CITATION.md``, ``.tex`` and ``.bib`` of what the results on disk rest on, and of nothing else.

    Parameters
    ----------
    derivatives : Derivatives
    """
    found = paragraphs(_results(derivatives), atlases=_atlases(derivatives))
    for ending, text in (("md", markdown(found)), ("tex", latex(found)), ("bib", bibtex(found))):
        write_text(derivatives.root / "logs" / f"CITATION.{ending}", text)


def _results(derivatives: Derivatives) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Level, ``desc`` and content of each JSON file beside a result."""
    for path in sorted(derivatives.root.rglob("*.json")):
        top, *below = path.relative_to(derivatives.root).parts
        kind = top.partition("-")[0]
        if below and kind in ("sub", "tpl", *_LEVELS):
            entities = names.parse(path)
            desc = entities.get("desc", "activations" if entities["suffix"] == "activations" else "")
            yield {"sub": "participant", "tpl": "group"}.get(kind, _LEVELS.get(kind, "")), desc, read_json(path)


def _atlases(derivatives: Derivatives) -> dict[str, list[str]]:
    """Works of each atlas: what its own description says, else that of its usual name."""
    found = {}
    for path in sorted(derivatives.root.glob("atlas-*_description.json")):
        label = names.parse(path)["atlas"]
        own, known = read_json(path).get("ReferencesAndLinks") or [], atlas_reference(label)
        found[label] = [own] if isinstance(own, str) else [str(one) for one in own] or ([known] if known else [])
    return found
